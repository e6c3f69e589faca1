//! Sampling, lengths, thinking, modalities, tiers.

use std::borrow::Cow;
use std::collections::HashMap;

use serde_json::json;
use serde_json::value::RawValue;

use super::Shape;
use super::google::{self, Extension};
use super::request::{Drops, read};
use crate::catalog::{Level, Thinking};
use crate::error::{Error, Result};
use crate::gemini::ask::{GenerationConfig, ThinkingConfig};
use crate::openai::chat::{self, Request};
use crate::translate::Target;
use crate::wire::{Text, Unknown};

const MOST_STOPS: usize = 5;
/// Of what names an end user, in bytes.
pub(in crate::translate) const LONGEST_LABEL: usize = 512;
const MOST_PAIRS: usize = 16;

pub(in crate::translate) fn decimal(
    name: &'static str,
    value: Option<f64>,
    min: f64,
    max: f64,
) -> Result<Option<f64>> {
    let Some(number) = value else { return Ok(None) };
    let (word, bound, code) = if number < min {
        (">=", min, "decimal_below_min_value")
    } else if number > max {
        ("<=", max, "decimal_above_max_value")
    } else {
        return Ok(Some(number));
    };
    let message = format!("Invalid '{name}': {number} is outside the range; it must be {word} {bound}.");
    Err(Error::invalid(name, message).code(code))
}

pub(in crate::translate) fn integer(
    name: &'static str,
    value: Option<i64>,
    min: i64,
    max: i64,
) -> Result<Option<i64>> {
    let Some(number) = value else { return Ok(None) };
    let (word, bound, code) = if number < min {
        (">=", min, "integer_below_min_value")
    } else if number > max {
        ("<=", max, "integer_above_max_value")
    } else {
        return Ok(Some(number));
    };
    let message = format!("Invalid '{name}': {number} is outside the range; it must be {word} {bound}.");
    Err(Error::invalid(name, message).code(code))
}

/// Builds `generationConfig`, but for the form of the answer.
pub(super) fn build<'a>(
    request: &Request<'a>,
    extension: Option<&Extension<'a>>,
    target: &Target<'_>,
    shape: &mut Shape,
    drops: &mut Drops,
) -> Result<Option<GenerationConfig<'a>>> {
    let mut config = GenerationConfig::default();
    sampled(request, target, &mut config, drops)?;
    counted(request, target, &mut config, shape, drops)?;
    config.stop_sequences = stops(request.stop, drops)?;
    if !target.traits.stops && !config.stop_sequences.is_empty() {
        drops.note("stop", "this model takes no stop sequences")?;
        config.stop_sequences.clear();
    }
    shape.may_be_empty = !config.stop_sequences.is_empty();
    config.thinking_config = thinking(request, extension, target, shape, drops)?;
    modalities(request, target, &mut config, shape, drops)?;
    config.media_resolution = google::media_resolution(extension, target, drops)?;
    config.image_config = google::image_config(extension, target, drops)?;
    unheard(request, drops)?;
    Ok((!config.is_empty()).then_some(config))
}

fn sampled(
    request: &Request<'_>,
    target: &Target<'_>,
    config: &mut GenerationConfig<'_>,
    drops: &mut Drops,
) -> Result<()> {
    let traits = target.traits;
    config.temperature = decimal("temperature", request.temperature, 0.0, 2.0)?;
    config.top_p = decimal("top_p", request.top_p, 0.0, 1.0)?;
    // An extension, in which 0 and −1 mean "all of them", as without it.
    let top_k = request.top_k.filter(|top_k| !matches!(top_k, -1 | 0));
    config.top_k = integer("top_k", top_k, 1, i64::from(i32::MAX))?;
    config.presence_penalty = decimal("presence_penalty", request.presence_penalty, -2.0, 2.0)?;
    config.frequency_penalty = decimal("frequency_penalty", request.frequency_penalty, -2.0, 2.0)?;
    if !traits.sampling {
        let why = "this model chooses its sampling itself";
        if config.temperature.take().is_some() {
            drops.note("temperature", why)?;
        }
        if config.top_p.take().is_some() {
            drops.note("top_p", why)?;
        }
        if config.top_k.take().is_some() {
            drops.note("top_k", why)?;
        }
    }
    if !traits.penalties {
        let why = "this model takes no penalties";
        // A penalty of 0 is what the model does anyway.
        if config.presence_penalty.take().is_some_and(|penalty| penalty != 0.0) {
            drops.note("presence_penalty", why)?;
        }
        if config.frequency_penalty.take().is_some_and(|penalty| penalty != 0.0) {
            drops.note("frequency_penalty", why)?;
        }
    }
    Ok(())
}

/// As many as Google gives where it gives several.
const MOST_CANDIDATES: u32 = 8;

fn counted(
    request: &Request<'_>,
    target: &Target<'_>,
    config: &mut GenerationConfig<'_>,
    shape: &mut Shape,
    drops: &mut Drops,
) -> Result<()> {
    let traits = target.traits;
    let n = integer("n", request.n, 1, 128)?.unwrap_or(1);
    let n = u32::try_from(n).unwrap_or(1);
    if n > MOST_CANDIDATES.max(traits.max_candidates) {
        let message = format!("'n' is {n}; at most {MOST_CANDIDATES} answers can be had for one request.");
        return Err(Error::unsupported("n", message).code("unsupported_value"));
    }
    shape.choices = n;
    // A model that gives one answer is asked several times.
    if n <= traits.max_candidates.max(1) {
        config.candidate_count = (n > 1).then_some(n);
    } else {
        shape.fan = n;
    }

    let most = i64::from(i32::MAX);
    let old = integer("max_tokens", request.max_tokens, 1, most)?;
    let new = integer("max_completion_tokens", request.max_completion_tokens, 1, most)?;
    if let (Some(old), Some(new)) = (old, new)
        && old != new
    {
        drops.note("max_tokens", "'max_completion_tokens' is given too, and wins")?;
    }
    config.max_output_tokens = new.or(old);
    let ceiling = traits.max_output_tokens.and_then(|ceiling| i64::try_from(ceiling).ok());
    if let (Some(wanted), Some(ceiling)) = (config.max_output_tokens, ceiling)
        && wanted > ceiling
    {
        let name = if new.is_some() { "max_completion_tokens" } else { "max_tokens" };
        drops.note(name, "more than the model can give; its own limit is used")?;
        config.max_output_tokens = Some(ceiling);
    }

    if request.seed.is_some() && !traits.seed {
        drops.note("seed", "this model takes no seed")?;
    } else if let Some(seed) = request.seed {
        config.seed = Some(if let Ok(seed) = i32::try_from(seed) {
            seed
        } else {
            drops.note("seed", "Gemini's seeds have 32 bits; this one is folded")?;
            let bytes = (seed ^ (seed >> 32)).to_le_bytes();
            i32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
        });
    }

    let top = integer("top_logprobs", request.top_logprobs, 0, 20)?;
    let wanted = request.logprobs.unwrap_or(false);
    if top.is_some_and(|top| top > 0) && !wanted {
        return Err(Error::invalid("top_logprobs", "'top_logprobs' needs 'logprobs' to be true."));
    }
    if wanted && traits.logprobs {
        config.response_logprobs = Some(true);
        config.logprobs = top.filter(|top| *top > 0);
    } else if wanted {
        drops.note("logprobs", "this model gives no log probabilities")?;
    }
    Ok(())
}

fn stops<'a>(raw: Option<&'a RawValue>, drops: &mut Drops) -> Result<Vec<Text<'a>>> {
    let Some(raw) = raw else { return Ok(Vec::new()) };
    let one = raw.get().starts_with('"');
    let mut all: Vec<Text<'a>> = if one {
        vec![read(raw).map_err(|error| error.within("stop"))?]
    } else {
        read(raw).map_err(|error| error.within("stop"))?
    };
    if let Some(at) = all.iter().position(Text::is_empty) {
        let param = if one { "stop".to_owned() } else { format!("stop[{at}]") };
        return Err(Error::invalid(param, "A stop sequence must not be empty."));
    }
    if all.len() > MOST_STOPS {
        drops.note("stop", "Gemini takes five stop sequences; the first five are used")?;
        all.truncate(MOST_STOPS);
    }
    Ok(all)
}

fn thinking(
    request: &Request<'_>,
    extension: Option<&Extension<'_>>,
    target: &Target<'_>,
    shape: &mut Shape,
    drops: &mut Drops,
) -> Result<Option<ThinkingConfig>> {
    const NAME: &str = "reasoning_effort";
    let known = &target.traits.thinking;
    let effort = request.reasoning_effort.as_ref().map(Text::decode).filter(|effort| !effort.is_empty());
    let own = extension.and_then(|found| Some((found.google.thinking_config.as_ref()?, found.place)));
    if let Some((own, place)) = own {
        let place = format!("{place}.thinking_config");
        shape.thoughts = own.include_thoughts.unwrap_or(false);
        let mut config = native(own, target, drops).map_err(|error| error.within(&place))?;
        if let Some(effort) = effort {
            if own.thinking_level.is_some() || own.thinking_budget.is_some() {
                drops.note(NAME, "the thinking configuration says it already")?;
            } else if let Some(by_effort) = by_effort(NAME, &effort, known, drops)? {
                config.thinking_level = by_effort.thinking_level;
                config.thinking_budget = by_effort.thinking_budget;
            }
        }
        if request.thinking.is_some() {
            drops.note("thinking", "the thinking configuration says it already")?;
        }
        return Ok((config != ThinkingConfig::default()).then_some(config));
    }
    if let Some(thinking) = &request.thinking {
        if effort.is_some() {
            drops.note("thinking", "'reasoning_effort' says it already")?;
        } else {
            return by_tokens(thinking, known, shape, drops);
        }
    }
    effort.map_or(Ok(None), |effort| by_effort(NAME, &effort, known, drops))
}

/// Google's own words, checked against what the model takes.
pub(in crate::translate) fn native(
    own: &chat::ThinkingConfig<'_>,
    target: &Target<'_>,
    drops: &mut Drops,
) -> Result<ThinkingConfig> {
    let known = &target.traits.thinking;
    if own.thinking_budget.is_some() && own.thinking_level.is_some() {
        return Err(Error::invalid("", "Give a thinking budget or a thinking level, not both."));
    }
    let mut config = ThinkingConfig { include_thoughts: own.include_thoughts, ..ThinkingConfig::default() };
    if *known == Thinking::None {
        if own.thinking_budget.is_some_and(|budget| budget != 0) || own.thinking_level.is_some() {
            drops.note("google.thinking_config", "this model does not think")?;
        }
        return Ok(ThinkingConfig::default());
    }
    if let Some(level) = &own.thinking_level {
        let word = level.decode().to_ascii_uppercase();
        let word = word.strip_prefix("THINKING_LEVEL_").unwrap_or(&word);
        let wrong =
            |error: fn(&'static str, String) -> Error, message: String| Err(error("thinking_level", message));
        let level = match word {
            "MINIMAL" => Level::Minimal,
            "LOW" => Level::Low,
            "MEDIUM" => Level::Medium,
            "HIGH" => Level::High,
            "XHIGH" => Level::Xhigh,
            "UNSPECIFIED" => return Ok(config),
            _ => {
                let message = "Supported values are: 'minimal', 'low', 'medium', 'high' and 'xhigh'.";
                return wrong(Error::invalid, message.to_owned());
            }
        };
        match known {
            Thinking::Levels(levels) if levels.contains(&level) => {
                config.thinking_level = Some(word_of(level).into());
            }
            Thinking::Levels(_) => {
                return wrong(Error::unsupported, format!("This model has no thinking level '{word}'."));
            }
            Thinking::Budget { .. } | Thinking::None => {
                let message = "This model has a thinking budget, and no levels.";
                return wrong(Error::unsupported, message.to_owned());
            }
        }
    }
    if let Some(budget) = own.thinking_budget {
        let fits = match known {
            Thinking::Budget { min, max, can_be_off } => {
                budget == -1
                    || (budget == 0 && *can_be_off)
                    || u32::try_from(budget).is_ok_and(|budget| (*min..=*max).contains(&budget))
            }
            // Levels came later, and with them the older models' switch was tolerated for one generation.
            Thinking::Levels(_) => !target.traits.long_decode && budget >= -1,
            Thinking::None => true,
        };
        if !fits {
            let message = format!("This model does not take a thinking budget of {budget}.");
            return Err(Error::unsupported("thinking_budget", message).code("unsupported_value"));
        }
        config.thinking_budget = Some(budget);
    }
    Ok(config)
}

/// `thinking`, as other gateways take it: on or off, and tokens.
fn by_tokens(
    thinking: &chat::Thinking<'_>,
    known: &Thinking,
    shape: &mut Shape,
    drops: &mut Drops,
) -> Result<Option<ThinkingConfig>> {
    let kind = thinking.kind.as_ref().map(Text::decode).unwrap_or_default();
    let tokens = thinking.budget_tokens;
    let mut config = match (kind.as_ref(), tokens) {
        ("disabled", _) => return by_effort("thinking", "none", known, drops),
        ("enabled" | "adaptive" | "auto" | "", None) => ThinkingConfig::default(),
        ("enabled" | "adaptive" | "auto" | "", Some(tokens)) => {
            let Some(tokens) = u32::try_from(tokens).ok().filter(|tokens| *tokens > 0) else {
                return Err(Error::invalid("thinking.budget_tokens", "A budget is a positive number."));
            };
            match known {
                Thinking::None => ThinkingConfig::default(),
                Thinking::Budget { min, max, .. } => {
                    let budget = tokens.clamp(*min, (*max).max(*min));
                    if budget != tokens {
                        drops.note("thinking.budget_tokens", "the nearest budget of this model is used")?;
                    }
                    let budget = i32::try_from(budget).unwrap_or(i32::MAX);
                    ThinkingConfig { thinking_budget: Some(budget), ..ThinkingConfig::default() }
                }
                Thinking::Levels(_) => {
                    drops.note("thinking.budget_tokens", "this model has levels; the nearest is used")?;
                    let effort = match tokens {
                        0..=1024 => "low",
                        1025..=8192 => "medium",
                        _ => "high",
                    };
                    by_effort("thinking", effort, known, drops)?.unwrap_or_default()
                }
            }
        }
        _ => {
            let message = "Supported values are: 'enabled' and 'disabled'.";
            return Err(Error::invalid("thinking.type", message));
        }
    };
    if *known == Thinking::None {
        drops.note("thinking", "this model does not think")?;
        return Ok(None);
    }
    config.include_thoughts = Some(true);
    shape.thoughts = true;
    Ok(Some(config))
}

fn word_of(level: Level) -> &'static str {
    match level {
        Level::Minimal => "MINIMAL",
        Level::Low => "LOW",
        Level::Medium => "MEDIUM",
        Level::High => "HIGH",
        Level::Xhigh => "XHIGH",
    }
}

pub(in crate::translate) fn by_effort(
    name: &str,
    effort: &str,
    thinking: &Thinking,
    drops: &mut Drops,
) -> Result<Option<ThinkingConfig>> {
    let (level, tokens) = match effort {
        "none" => (Level::Minimal, 0),
        "minimal" => (Level::Minimal, 1024),
        "low" => (Level::Low, 1024),
        "medium" => (Level::Medium, 8192),
        "high" => (Level::High, 24576),
        "xhigh" | "max" => (Level::Xhigh, u32::MAX),
        _ => {
            drops.note(name, "this effort is not known here")?;
            return Ok(None);
        }
    };
    match thinking {
        Thinking::None => {
            if effort != "none" {
                drops.note(name, "this model does not think")?;
            }
            Ok(None)
        }
        Thinking::Budget { can_be_off: true, .. } if tokens == 0 => {
            Ok(Some(ThinkingConfig { thinking_budget: Some(0), ..ThinkingConfig::default() }))
        }
        Thinking::Budget { min, max, .. } => {
            if tokens == 0 {
                drops.note(name, "this model cannot stop thinking; it thinks as little as it can")?;
            }
            let budget = tokens.clamp(*min, (*max).max(*min));
            let budget = i32::try_from(budget).unwrap_or(i32::MAX);
            Ok(Some(ThinkingConfig { thinking_budget: Some(budget), ..ThinkingConfig::default() }))
        }
        Thinking::Levels(levels) => {
            // The nearest level that is not above the wanted one, else the least there is.
            let below = levels.iter().filter(|known| **known <= level).max();
            let Some(chosen) = below.or_else(|| levels.iter().min()) else { return Ok(None) };
            if *chosen != level {
                drops.note(name, "the nearest level of this model is used")?;
            }
            let word = word_of(*chosen);
            Ok(Some(ThinkingConfig { thinking_level: Some(word.into()), ..ThinkingConfig::default() }))
        }
    }
}

fn modalities(
    request: &Request<'_>,
    target: &Target<'_>,
    config: &mut GenerationConfig<'_>,
    shape: &mut Shape,
    drops: &mut Drops,
) -> Result<()> {
    let wanted: Vec<Cow<'_, str>> = request.modalities.iter().flatten().map(Text::decode).collect();
    let can = |name: &str| target.traits.output.iter().any(|known| known == name);
    for (at, name) in wanted.iter().enumerate() {
        let param = format!("modalities[{at}]");
        if !matches!(name.as_ref(), "text" | "audio" | "image") {
            let message = "Supported values are: 'text', 'audio' and 'image'.";
            return Err(Error::invalid(param, message));
        }
        if name != "text" && !can(name) {
            let message = format!("This model cannot produce {name}.");
            return Err(Error::unsupported(param, message).code("unsupported_value"));
        }
    }
    let has = |name: &str| wanted.iter().any(|wanted| wanted == name);
    let mute = !can("text") && can("audio");
    if mute && has("text") && !has("audio") {
        let message = "This model speaks, and produces no text.";
        return Err(Error::unsupported("modalities", message).code("unsupported_value"));
    }
    if has("audio") || (mute && wanted.is_empty()) {
        // Google's voices speak alone: the words are not given beside them.
        config.response_modalities = vec!["AUDIO"];
        if let Some(audio) = &request.audio {
            config.speech_config = spoken(audio, drops)?;
            shape.wav = audio.format.as_ref().is_some_and(|format| format.decode() == "wav");
        }
    } else {
        if has("image") {
            config.response_modalities = if has("text") { vec!["TEXT", "IMAGE"] } else { vec!["IMAGE"] };
        }
        if request.audio.is_some() {
            drops.note("audio", "no audio is asked for in 'modalities'")?;
        }
    }
    Ok(())
}

fn spoken(audio: &chat::AudioOut<'_>, drops: &mut Drops) -> Result<Option<serde_json::Value>> {
    if let Some(format) = &audio.format {
        match format.decode().as_ref() {
            "wav" | "pcm16" => {}
            "mp3" | "flac" | "opus" | "aac" => {
                drops.note("audio.format", "the voice comes as uncompressed samples")?;
            }
            _ => {
                let message = "Supported values are: 'wav', 'aac', 'mp3', 'flac', 'opus' and 'pcm16'.";
                return Err(Error::invalid("audio.format", message));
            }
        }
    }
    let Some(voice) = audio.voice else { return Ok(None) };
    if !voice.get().starts_with('"') {
        drops.note("audio.voice", "only voices with names are known here")?;
        return Ok(None);
    }
    let voice: Text<'_> = read(voice).map_err(|error| error.within("audio.voice"))?;
    let name = spoken_by(&voice.decode()).into_owned();
    if name.is_empty() || name.len() > 80 {
        return Err(Error::invalid("audio.voice", "This is not the name of a voice."));
    }
    Ok(Some(json!({"voiceConfig": {"prebuiltVoiceConfig": {"voiceName": name}}})))
}

/// The voices of the client's dialect have no twins; each gets one of Google's, other names pass.
fn spoken_by(voice: &str) -> Cow<'_, str> {
    let google = match voice {
        "alloy" => "Kore",
        "ash" => "Charon",
        "ballad" => "Algieba",
        "coral" => "Aoede",
        "echo" => "Puck",
        "fable" => "Fenrir",
        "onyx" => "Orus",
        "nova" => "Leda",
        "sage" => "Sulafat",
        "shimmer" => "Zephyr",
        "verse" => "Iapetus",
        other => other,
    };
    Cow::Borrowed(google)
}

/// Google's name of the tier.
pub(in crate::translate) fn service_tier(
    tier: Option<&Text<'_>>,
    target: &Target<'_>,
    drops: &mut Drops,
) -> Result<Option<&'static str>> {
    let Some(tier) = tier else { return Ok(None) };
    Ok(match tier.decode().as_ref() {
        "default" | "standard" | "flex" | "priority" if !target.traits.tiers => {
            drops.note("service_tier", "this model has no tiers")?;
            None
        }
        "auto" | "" => None,
        "default" | "standard" => Some("standard"),
        "flex" => Some("flex"),
        "priority" => Some("priority"),
        _ => {
            drops.note("service_tier", "Google has no such tier")?;
            None
        }
    })
}

/// What has no equal: checked all the same, so that a typing error is not taken for a wish.
fn unheard(request: &Request<'_>, drops: &mut Drops) -> Result<()> {
    let labels = [
        ("user", &request.user, LONGEST_LABEL, "Gemini keeps no end users apart"),
        ("safety_identifier", &request.safety_identifier, LONGEST_LABEL, "Gemini keeps no end users apart"),
        ("prompt_cache_key", &request.prompt_cache_key, 1024, "Google's cache finds equal beginnings itself"),
    ];
    for (name, label, longest, why) in labels {
        labelled(name, label.as_ref(), longest)?;
        if label.is_some() {
            drops.note(name, why)?;
        }
    }
    if let Some(metadata) = request.metadata
        && described(metadata)?
    {
        drops.note("metadata", "Gemini keeps no metadata")?;
    }
    if let Some(raw) = request.logit_bias {
        biased(raw, drops).map_err(|error| error.within("logit_bias"))?;
    }
    if request.store == Some(true) {
        drops.note("store", "completions are not kept")?;
    }
    if let Some(verbosity) = &request.verbosity {
        match verbosity.decode().as_ref() {
            "medium" | "" => {}
            "low" | "high" => drops.note("verbosity", "Gemini has no such setting")?,
            _ => {
                let message = "Supported values are: 'low', 'medium' and 'high'.";
                return Err(Error::invalid("verbosity", message));
            }
        }
    }
    let objects = [
        ("prediction", request.prediction, "Gemini takes no expected answer"),
        ("moderation", request.moderation, "Gemini has no moderation beside the answer"),
        ("prompt_cache_options", request.prompt_cache_options, "Google's cache keeps its own time"),
    ];
    for (name, raw, why) in objects {
        let Some(raw) = raw else { continue };
        if !raw.get().starts_with('{') {
            return Err(Error::invalid(name, format!("'{name}' must be an object.")).code("invalid_type"));
        }
        drops.note(name, why)?;
    }
    if request.prompt_cache_retention.is_some() {
        drops.note("prompt_cache_retention", "Google's cache keeps its own time")?;
    }
    if request.stream_options.as_ref().is_some_and(|options| options.include_obfuscation == Some(true)) {
        drops.note("stream_options.include_obfuscation", "chunks are not padded")?;
    }
    Ok(())
}

/// Bounds a text that names somebody or something, in bytes.
pub(in crate::translate) fn labelled(
    name: &'static str,
    label: Option<&Text<'_>>,
    longest: usize,
) -> Result<()> {
    if label.is_some_and(|label| label.decode().len() > longest) {
        let message = format!("'{name}' may be {longest} characters long at most.");
        return Err(Error::invalid(name, message).code("string_above_max_length"));
    }
    Ok(())
}

/// Bounds `metadata`; whether it says anything.
pub(in crate::translate) fn described(metadata: &RawValue) -> Result<bool> {
    pairs(metadata).map_err(|error| error.within("metadata"))
}

fn pairs(metadata: &RawValue) -> Result<bool> {
    let pairs: Unknown = read(metadata)?;
    if pairs.0.len() > MOST_PAIRS {
        let message = format!("'metadata' may hold {MOST_PAIRS} pairs at most.");
        return Err(Error::invalid("", message).code("object_above_max_properties"));
    }
    let pairs: HashMap<Cow<'_, str>, Option<Text<'_>>> = read(metadata)?;
    for (name, value) in &pairs {
        let long = value.as_ref().is_some_and(|value| value.decode().chars().count() > LONGEST_LABEL);
        if long || name.chars().count() > 64 {
            let message = "A name in 'metadata' may have 64 characters, and a value 512.";
            return Err(Error::invalid("", message).code("string_above_max_length"));
        }
    }
    Ok(!pairs.is_empty())
}

fn biased(raw: &RawValue, drops: &mut Drops) -> Result<()> {
    let biases: HashMap<Cow<'_, str>, f64> = read(raw)?;
    if biases.values().any(|bias| !(-100.0..=100.0).contains(bias)) {
        return Err(Error::invalid("", "A bias must be between -100 and 100."));
    }
    if !biases.is_empty() {
        drops.note("logit_bias", "Gemini's tokens cannot be biased")?;
    }
    Ok(())
}
