//! A completions request → what Gemini is asked, choice by choice.

use std::sync::Arc;

use serde_json::value::RawValue;

use super::Shape;
use crate::catalog::{Level, Thinking};
use crate::error::{Error, Result};
use crate::openai::chat;
use crate::openai::completions::Request;
use crate::translate::chat::Ask;
use crate::translate::chat::request::{self as chats, check_model, document, read};
use crate::translate::tokens::{self, Encoding};
use crate::translate::{Signatures, Target};
use crate::wire::Text;

/// Choices of one request: each is a call.
const MOST_CHOICES: usize = 128;
/// Tokens are values too.
const MOST_VALUES: usize = 5_000_000;
/// `OpenAI`'s own, where a request says nothing.
const TOKENS: i64 = 16;

/// One prompt, as a JSON string.
#[derive(Debug)]
pub enum Prompt<'a> {
    /// A piece of the client's body.
    Raw(&'a RawValue),
    /// What tokens stood for.
    Made(Box<RawValue>),
}

impl Prompt<'_> {
    fn raw(&self) -> &RawValue {
        match self {
            Self::Raw(raw) => raw,
            Self::Made(raw) => raw,
        }
    }
}

/// What a request comes to.
#[derive(Debug)]
pub struct Setup<'a> {
    /// The prompts; none where nothing was said.
    pub prompts: Vec<Option<Prompt<'a>>>,
    /// Choices for each.
    pub each: usize,
    /// Whether a stream is wanted.
    pub stream: bool,
    /// Whether the stream ends with the counts.
    pub include_usage: bool,
}

/// Reads a client's body.
///
/// # Errors
/// When it is no JSON object, or a value has the wrong type: with the field's path.
pub fn parse(body: &[u8]) -> Result<Request<'_>> {
    let request: Request<'_> = document(body, MOST_VALUES)?;
    if let Some(model) = &request.model {
        check_model(model)?;
    }
    Ok(request)
}

/// The encoding of the request's tokens, should it have any.
///
/// # Errors
/// For the name of an encoding that does not exist.
pub fn encoding(request: &Request<'_>, asked: &str) -> Result<Encoding> {
    Encoding::of(request.encoding.as_ref().map(Text::decode).as_deref(), asked)
}

/// Finds the prompts, and refuses what no model of Google's can do. `asked` is the model as the client calls it.
///
/// # Errors
/// With the field's path.
pub fn setup<'a>(request: &Request<'a>, asked: &str) -> Result<Setup<'a>> {
    if request.suffix.as_ref().is_some_and(|suffix| !suffix.is_empty()) {
        let message = "Gemini cannot write towards a 'suffix'; describe in the prompt what shall follow.";
        return Err(Error::unsupported("suffix", message));
    }
    let each = match request.n.unwrap_or(1) {
        n @ 1..=128 => usize::try_from(n).unwrap_or(1),
        _ => return Err(Error::invalid("n", "'n' must be between 1 and 128.")),
    };
    match request.best_of.map(usize::try_from) {
        None => {}
        Some(Ok(of)) if of == each || (of <= 1 && each == 1) => {}
        Some(Ok(of)) if of > each && of <= 20 => {
            let message = "Gemini does not rank completions: 'best_of' can only be as many as 'n'.";
            return Err(Error::unsupported("best_of", message));
        }
        Some(_) => {
            return Err(Error::invalid("best_of", "'best_of' must be at least 'n', and at most 20."));
        }
    }
    if request.max_tokens == Some(0) {
        let message = "Gemini always writes something: 'max_tokens' must be at least 1.";
        return Err(Error::unsupported("max_tokens", message));
    }
    match request.logprobs {
        None | Some(0..=5) => {}
        Some(_) => return Err(Error::invalid("logprobs", "'logprobs' must be between 0 and 5.")),
    }
    if request.echo == Some(true) && request.logprobs.is_some() {
        let message = "Gemini gives no probabilities for a prompt: 'echo' and 'logprobs' exclude each other.";
        return Err(Error::unsupported("logprobs", message));
    }
    let prompts = prompts(request, asked).map_err(|error| error.within("prompt"))?;
    if prompts.len() * each > MOST_CHOICES {
        let message = format!(
            "{} prompts of {each} choices each are too many; at most {MOST_CHOICES} choices fit.",
            prompts.len()
        );
        return Err(Error::invalid(if each > 1 { "n" } else { "prompt" }, message));
    }
    let stream = request.stream.unwrap_or(false);
    let options: Option<chat::StreamOptions> =
        request.stream_options.map(read).transpose().map_err(|error| error.within("stream_options"))?;
    let include_usage = options.and_then(|options| options.include_usage).unwrap_or(false);
    Ok(Setup { prompts, each, stream, include_usage })
}

fn prompts<'a>(request: &Request<'a>, asked: &str) -> Result<Vec<Option<Prompt<'a>>>> {
    let Some(raw) = request.prompt else { return Ok(vec![None]) };
    let wrong = || Error::invalid("", "A prompt must be a string or a list of tokens.").code("invalid_type");
    let mut decoded = 0;
    let mut one = |raw: &'a RawValue| match raw.get().as_bytes().first() {
        Some(b'"') => {
            let text: Text<'a> = read(raw)?;
            Ok((!text.is_empty()).then_some(Prompt::Raw(raw)))
        }
        Some(b'[') if tokens::are_tokens(raw) => {
            let text = encoding(request, asked)?.text(raw)?;
            decoded += text.len();
            if decoded > tokens::MOST_BYTES {
                return Err(Error::invalid("", "The tokens stand for too much text."));
            }
            let json = serde_json::to_string(&text).map_err(Error::internal)?;
            Ok(Some(Prompt::Made(RawValue::from_string(json).map_err(Error::internal)?)))
        }
        _ => Err(wrong()),
    };
    let flat = raw.get().strip_prefix('[').map(str::trim_ascii_start);
    match flat {
        Some(inner) if !inner.starts_with(|c: char| c == '-' || c.is_ascii_digit()) => {
            let list: Vec<&'a RawValue> = read(raw)?;
            if list.is_empty() {
                return Err(Error::invalid("", "A list of prompts must not be empty."));
            }
            if list.len() > MOST_CHOICES {
                let message =
                    format!("A list of {} prompts is too long; at most {MOST_CHOICES} fit.", list.len());
                return Err(Error::invalid("", message));
            }
            let numbered = list.into_iter().enumerate();
            numbered.map(|(at, raw)| one(raw).map_err(|error| error.within(&format!("[{at}]")))).collect()
        }
        Some(_) | None => one(raw).map(|prompt| vec![prompt]),
    }
}

/// Translates one choice of a request for one target; and what the answering half must know.
///
/// # Errors
/// What cannot be said to Gemini, before anything is sent: with the field's path.
pub fn ask<'p>(
    request: &'p Request<'_>,
    setup: &'p Setup<'_>,
    number: usize,
    target: &Target<'_>,
    signatures: &dyn Signatures,
) -> Result<(Ask<'p>, Shape)> {
    let prompt = setup.prompts.get(number / setup.each.max(1)).and_then(Option::as_ref);
    // The sampling fields mean the same in both, so they are read in one place: as a chat of one turn.
    let mut turn: chat::Request<'p> =
        serde_json::from_str(r#"{"model":"","messages":[]}"#).map_err(Error::internal)?;
    let mut said: chat::Message<'p> =
        serde_json::from_str(r#"{"role":"user","content":"Begin."}"#).map_err(Error::internal)?;
    if let Some(prompt) = prompt {
        said.content = Some(prompt.raw());
    }
    turn.messages.push(said);
    turn.stream = setup.stream;
    turn.stream_options =
        request.stream_options.map(read).transpose().map_err(|error| error.within("stream_options"))?;
    turn.temperature = request.temperature;
    turn.top_p = request.top_p;
    turn.top_k = request.top_k;
    // The same seed would give the same text again.
    let again = i64::try_from(number % setup.each.max(1)).unwrap_or(0);
    turn.seed = request.seed.map(|seed| seed.wrapping_add(again));
    turn.presence_penalty = request.presence_penalty;
    turn.frequency_penalty = request.frequency_penalty;
    turn.stop = request.stop;
    turn.logit_bias = request.logit_bias;
    turn.user.clone_from(&request.user);
    turn.safety_settings = request.safety_settings;
    turn.logprobs = request.logprobs.map(|_| true);
    turn.top_logprobs = request.logprobs.filter(|top| *top > 0);
    turn.extra_body = request.extra_body.map(read).transpose().map_err(|error| error.within("extra_body"))?;
    turn.google = request.google.map(read).transpose().map_err(|error| error.within("google"))?;
    turn.unknown.clone_from(&request.unknown);
    let steered = turn.google.is_some() || turn.extra_body.is_some();
    let (effort, silent) = least(&target.traits.thinking);
    turn.reasoning_effort.clone_from(&request.reasoning_effort);
    if turn.reasoning_effort.is_none() && !steered {
        turn.reasoning_effort = effort.map(Text::plain);
    }
    // Thoughts count too: under a cap that nobody asked for, a model that must think would never come to speak.
    let quiet = silent && request.reasoning_effort.is_none() && !steered;
    turn.max_tokens = request.max_tokens.or(quiet.then_some(TOKENS));
    let made = chats::ask(turn, target, signatures)?;
    let echo = prompt.filter(|_| request.echo == Some(true));
    let echo = echo.map(|prompt| read::<Text<'_>>(prompt.raw())).transpose()?;
    let shape = Shape {
        chat: made.shape.clone(),
        echo: echo.map(|text| Arc::from(text.decode().as_ref())),
        index: number,
        among: setup.prompts.len() * setup.each > 1,
    };
    Ok((made, shape))
}

/// The least effort of a model, and whether that is none.
fn least(thinking: &Thinking) -> (Option<&'static str>, bool) {
    match thinking {
        Thinking::None => (None, true),
        Thinking::Budget { can_be_off: true, .. } => (Some("none"), true),
        Thinking::Budget { .. } => (Some("minimal"), false),
        Thinking::Levels(levels) if levels.contains(&Level::Minimal) => (Some("minimal"), false),
        Thinking::Levels(levels) if levels.contains(&Level::Low) => (Some("low"), false),
        Thinking::Levels(_) => (None, false),
    }
}
