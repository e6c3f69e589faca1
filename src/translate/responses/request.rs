//! A Responses request → what Gemini is asked.

use std::borrow::Cow;

use serde_json::json;

use super::input::{self, Told};
use super::{Ask, History, Shape, echo, tools};
use crate::catalog::Thinking;
use crate::error::{Error, Result};
use crate::gemini::ask::{GenerateRequest, GenerationConfig, ImageConfig, SystemInstruction, ThinkingConfig};
use crate::openai::responses::{Item, Request};
use crate::translate::chat::google::{self, Extension};
use crate::translate::chat::parts;
use crate::translate::chat::request::{Drops, MOST_VALUES, check_model, document, open};
use crate::translate::chat::sampling::{
    LONGEST_LABEL, by_effort, decimal, described, integer, labelled, native, service_tier,
};
use crate::translate::chat::tools::{Toolbox, form};
use crate::translate::{Signatures, Target};
use crate::wire::Text;

/// What `include` may name; what of it the answer has anyway needs no switch.
const INCLUDABLE: [&str; 8] = [
    "code_interpreter_call.outputs",
    "computer_call_output.output.image_url",
    "file_search_call.results",
    "message.input_image.image_url",
    "message.output_text.logprobs",
    "reasoning.encrypted_content",
    "web_search_call.action.sources",
    "web_search_call.results",
];

/// Reads a client's body.
///
/// # Errors
/// [`crate::error::Kind::Malformed`] when it is no JSON object, `Invalid` with the field's path when a value has
/// the wrong type or is missing, `Unsupported` for stored prompt templates.
pub fn parse(body: &[u8]) -> Result<Request<'_>> {
    let request: Request<'_> = document(body, MOST_VALUES)?;
    if request.prompt.is_some() {
        let message = "Stored prompt templates are not available here: send the instructions and the input.";
        return Err(Error::unsupported("prompt", message));
    }
    if !request.model.is_empty() {
        check_model(&request.model)?;
    }
    Ok(request)
}

/// The ids of items that the input refers to and does not hold: whoever keeps responses looks for them before
/// [`ask`].
///
/// # Errors
/// When `input` is neither a string nor items.
pub fn references(request: &Request<'_>) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for raw in request.input.map(input::items).transpose()?.unwrap_or_default() {
        // What cannot be read is refused when it is translated.
        let Ok(item) = serde_json::from_str::<Item<'_>>(raw.get()) else { continue };
        found.extend(input::reference(&item).map(|id| id.decode().into_owned()));
    }
    Ok(found)
}

/// The id in `conversation`, which may be a string or an object.
///
/// # Errors
/// When it is something else.
pub fn conversation(request: &Request<'_>) -> Result<Option<String>> {
    let Some(raw) = request.conversation else { return Ok(None) };
    let id = echo::conversation(raw).map(|id| id.decode().into_owned()).filter(|id| !id.is_empty());
    id.map(Some).ok_or_else(|| {
        let message = "'conversation' must be a conversation's id, or an object with its 'id'.";
        Error::invalid("conversation", message).code("invalid_type")
    })
}

/// Translates a request for one target.
///
/// # Errors
/// What cannot be said to Gemini, before anything is sent: with the field's path.
pub fn ask<'a>(
    mut request: Request<'a>,
    history: &'a History,
    target: &Target<'_>,
    signatures: &dyn Signatures,
) -> Result<Ask<'a>> {
    if request.input.is_none() && history.items.is_empty() {
        return Err(Error::invalid("input", "Missing required parameter: 'input'.")
            .code("missing_required_parameter"));
    }
    if request.stream_options.is_some() && !request.stream {
        let message = "'stream_options' is only allowed when 'stream' is true.";
        return Err(Error::invalid("stream_options", message));
    }
    if !target.traits.output.iter().any(|kind| kind == "text" || kind == "image") {
        let message = "This model only speaks: it cannot be used for responses.";
        return Err(Error::unsupported("model", message).code("unsupported_value"));
    }
    let mut drops = Drops::new(target.strict);
    let mut shape = Shape {
        echo: echo::of(&request),
        tier: echo::tier(&request),
        background: request.background == Some(true),
        ..Shape::default()
    };
    shape.reading.choices = 1;
    shape.reading.single_call = request.parallel_tool_calls == Some(false);
    let include: Vec<Cow<'_, str>> = request.include.iter().flatten().map(Text::decode).collect();
    for (at, name) in include.iter().enumerate().filter(|(_, name)| !INCLUDABLE.contains(&name.as_ref())) {
        let name: String = name.chars().filter(char::is_ascii_graphic).take(60).collect();
        drops.note(&format!("include[{at}]({name})"), "nothing of this name can be included")?;
    }
    let includes = |name: &str| include.iter().any(|known| known == name);
    shape.encrypted = includes("reasoning.encrypted_content");
    shape.sources = includes("web_search_call.action.sources");
    let logprobs = includes("message.output_text.logprobs");
    let mut extension = google::take(request.google.take(), request.extra_body.take(), &mut drops)?;

    let declared = request.tools.take().unwrap_or_default();
    let runs_code = tools::runs_code(&declared);
    let Told { system, mut contents, tools: more, reasoning, text } =
        input::build(&request, history, target, signatures, runs_code, &mut drops)?;
    open(&mut contents);
    request.reasoning = reasoning.or(request.reasoning);
    request.text = text.or(request.text);
    let declared = [declared, more].concat();

    let mut generation = Some(sampled(&request, logprobs, target, &mut drops)?);
    if let Some(config) = &mut generation {
        config.media_resolution = google::media_resolution(extension.as_ref(), target, &mut drops)?;
        config.image_config = google::image_config(extension.as_ref(), target, &mut drops)?;
        config.thinking_config = thinking(&request, extension.as_ref(), target, &mut shape, &mut drops)?;
    }
    let mut toolbox =
        tools::build(&declared, request.tool_choice, &mut extension, target, &mut shape, &mut drops)?;
    if let (Some(picture), Some(config)) = (&shape.picture, &mut generation) {
        config.response_modalities = vec!["TEXT", "IMAGE"];
        let ratio = picture.size.as_deref().and_then(tools::ratio);
        if let (Some(ratio), None) = (ratio, &config.image_config) {
            config.image_config =
                Some(ImageConfig { aspect_ratio: Some(ratio.to_owned()), image_size: None });
        }
    }
    answer_format(&mut request, &mut toolbox, &mut generation, target, &mut shape, &mut drops)?;
    unheard(&request, &mut drops)?;
    parts::agree(&mut contents, &mut generation, target, &mut drops)?;
    // An empty configuration is left out: compared as JSON, for it has a field for everything.
    let generation =
        generation.filter(|config| serde_json::to_value(config).is_ok_and(|value| value != json!({})));

    let mut system = system;
    if !system.is_empty() && !target.traits.system_instruction {
        // Without a place of its own it comes first in the user's first turn.
        if let Some(first) = contents.first_mut() {
            first.parts.splice(0..0, system.drain(..));
        }
    }
    let mut upstream = GenerateRequest {
        system_instruction: (!system.is_empty()).then_some(SystemInstruction { parts: system }),
        tools: toolbox.tools,
        tool_config: toolbox.config,
        generation_config: generation,
        service_tier: service_tier(request.service_tier.as_ref(), target, &mut drops)?,
        contents,
        ..GenerateRequest::default()
    };
    google::apply(&mut upstream, &mut extension, None, "instructions", target, &mut drops)?;
    drops.unknown("", &request.unknown)?;
    Ok(Ask { request: upstream, shape, dropped: drops.into_names() })
}

fn sampled<'a>(
    request: &Request<'a>,
    logprobs: bool,
    target: &Target<'_>,
    drops: &mut Drops,
) -> Result<GenerationConfig<'a>> {
    let traits = target.traits;
    let mut config = GenerationConfig {
        temperature: decimal("temperature", request.temperature, 0.0, 2.0)?,
        top_p: decimal("top_p", request.top_p, 0.0, 1.0)?,
        max_output_tokens: integer("max_output_tokens", request.max_output_tokens, 1, i64::from(i32::MAX))?,
        ..GenerationConfig::default()
    };
    if !traits.sampling {
        let why = "this model chooses its sampling itself";
        if config.temperature.take().is_some() {
            drops.note("temperature", why)?;
        }
        if config.top_p.take().is_some() {
            drops.note("top_p", why)?;
        }
    }
    let ceiling = traits.max_output_tokens.filter(|_| !traits.long_decode);
    if let (Some(wanted), Some(ceiling)) =
        (config.max_output_tokens, ceiling.and_then(|ceiling| i64::try_from(ceiling).ok()))
        && wanted > ceiling
    {
        drops.note("max_output_tokens", "more than the model can give; its own limit is used")?;
        config.max_output_tokens = Some(ceiling);
    }
    let top = integer("top_logprobs", request.top_logprobs, 0, 20)?.filter(|top| *top > 0);
    if logprobs || top.is_some() {
        if traits.logprobs {
            config.response_logprobs = Some(true);
            config.logprobs = top;
        } else {
            let name = if top.is_some() { "top_logprobs" } else { "include" };
            drops.note(name, "this model gives no log probabilities")?;
        }
    }
    Ok(config)
}

fn thinking(
    request: &Request<'_>,
    extension: Option<&Extension<'_>>,
    target: &Target<'_>,
    shape: &mut Shape,
    drops: &mut Drops,
) -> Result<Option<ThinkingConfig>> {
    let reasoning = request.reasoning.as_ref();
    let word =
        |text: Option<&Text<'_>>| text.map(|text| text.decode().into_owned()).filter(|text| !text.is_empty());
    if let Some(said) = reasoning {
        drops.unknown("reasoning.", &said.unknown)?;
        if word(said.context.as_ref()).is_some_and(|context| context != "auto") {
            drops.note("reasoning.context", "the model uses all reasoning that comes back to it")?;
        }
        if word(said.mode.as_ref()).is_some_and(|mode| mode != "standard") {
            drops.note("reasoning.mode", "Gemini has no such setting")?;
        }
    }
    let effort = word(reasoning.and_then(|said| said.effort.as_ref()));
    let summary = reasoning.and_then(|said| said.summary.as_ref().or(said.generate_summary.as_ref()));
    let summary = word(summary).is_some_and(|summary| summary != "none");
    let mut config = match effort {
        Some(effort) => by_effort("reasoning.effort", &effort, &target.traits.thinking, drops)?,
        None => None,
    };
    if summary && target.traits.thinking == Thinking::None {
        drops.note("reasoning.summary", "this model does not think")?;
    } else if summary {
        shape.reading.thoughts = true;
        config.get_or_insert_default().include_thoughts = Some(true);
    }
    let own = extension.and_then(|found| Some((found.google.thinking_config.as_ref()?, found.place)));
    let Some((own, place)) = own else { return Ok(config) };
    let place = format!("{place}.thinking_config");
    let mut native = native(own, target, drops).map_err(|error| error.within(&place))?;
    if let Some(said) = config {
        native.include_thoughts = native.include_thoughts.or(said.include_thoughts);
        if said.thinking_level.is_some() || said.thinking_budget.is_some() {
            if own.thinking_level.is_some() || own.thinking_budget.is_some() {
                drops.note("reasoning.effort", "the thinking configuration says it already")?;
            } else {
                native.thinking_level = said.thinking_level;
                native.thinking_budget = said.thinking_budget;
            }
        }
    }
    shape.reading.thoughts = native.include_thoughts.unwrap_or(false);
    Ok((native != ThinkingConfig::default()).then_some(native))
}

fn answer_format<'a>(
    request: &mut Request<'a>,
    toolbox: &mut Toolbox<'a>,
    generation: &mut Option<GenerationConfig<'a>>,
    target: &Target<'_>,
    shape: &mut Shape,
    drops: &mut Drops,
) -> Result<()> {
    let Some(text) = request.text.take() else { return Ok(()) };
    drops.unknown("text.", &text.unknown)?;
    if text.verbosity.is_some_and(|verbosity| verbosity.decode() != "medium") {
        drops.note("text.verbosity", "Gemini has no such setting")?;
    }
    let Some(format) = text.format else { return Ok(()) };
    drops.unknown("text.format.", &format.unknown)?;
    let raw = match format.kind.as_ref() {
        "text" => return Ok(()),
        "json_object" => None,
        "json_schema" => {
            let Some(schema) = format.schema else {
                let message = "Missing required parameter: 'text.format.schema'.";
                let error = Error::invalid("text.format.schema", message);
                return Err(error.code("missing_required_parameter"));
            };
            Some(schema).filter(|raw| raw.get().trim() != "{}")
        }
        other => {
            let other: String = other.chars().take(40).collect();
            let message = format!(
                "Invalid value: '{other}'. Supported values are: 'text', 'json_object' and 'json_schema'."
            );
            return Err(Error::invalid("text.format.type", message));
        }
    };
    let names = ("text.format", "text.format.schema");
    form(raw, names, (toolbox, generation), target, &mut shape.reading, drops)
}

/// What has no equal.
fn unheard(request: &Request<'_>, drops: &mut Drops) -> Result<()> {
    if let Some(metadata) = request.metadata {
        described(metadata)?;
    }
    labelled("prompt_cache_key", request.prompt_cache_key.as_ref(), 1024)?;
    let obfuscated = request.stream_options.as_ref().and_then(|options| options.include_obfuscation);
    if obfuscated == Some(true) {
        drops.note("stream_options.include_obfuscation", "events are not padded")?;
    }
    if let Some(options) = &request.stream_options {
        drops.unknown("stream_options.", &options.unknown)?;
    }
    if integer("max_tool_calls", request.max_tool_calls, 0, i64::from(i32::MAX))?.is_some() {
        drops.note("max_tool_calls", "Gemini does not count the calls of Google's own tools")?;
    }
    match request.truncation.as_ref().map(Text::decode).as_deref() {
        None | Some("" | "disabled") => {}
        Some("auto") => {
            drops.note("truncation", "nothing is left out: an input that is too long is refused")?;
        }
        Some(_) => {
            let message = "Supported values are: 'auto' and 'disabled'.";
            return Err(Error::invalid("truncation", message));
        }
    }
    if request.context_management.is_some() {
        drops.note("context_management", "nothing is compacted unless it is asked for")?;
    }
    if request.prompt_cache_retention.is_some() {
        drops.note("prompt_cache_retention", "Google's cache keeps its own time")?;
    }
    if request.prompt_cache_options.is_some() {
        drops.note("prompt_cache_options", "Google's cache has no such settings")?;
    }
    let labels = [("user", &request.user), ("safety_identifier", &request.safety_identifier)];
    for (name, label) in labels {
        labelled(name, label.as_ref(), LONGEST_LABEL)?;
        if label.is_some() {
            drops.note(name, "Gemini keeps no end users apart")?;
        }
    }
    Ok(())
}
