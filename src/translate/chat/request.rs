//! A Chat Completions request → what Gemini is asked.

use serde::Deserialize;
use serde_json::error::Category;
use serde_json::value::RawValue;

use super::messages::{self, Conversation};
use super::{Ask, Shape, google, parts, sampling, tools};
use crate::catalog::dotted;
use crate::error::{Error, Kind, Origin, Result};
use crate::gemini::ask::{Content, GenerateRequest, Part, Role, SystemInstruction};
use crate::openai::chat::Request;
use crate::translate::{Signatures, Target};
use crate::wire::{self, Text, Unfit, Unknown};

const DEEPEST: usize = 64;
pub(in crate::translate) const MOST_VALUES: usize = 100_000;
const MOST_DROPPED: usize = 32;
/// From this length on JSON is read by [`wire::read`], which is quicker with long strings.
const LONG: usize = 16 << 10;

/// What the user is taken to have said where Gemini demands a user's turn and the client sent none.
const OPENING: &str = "Begin.";

/// Fields that Gemini has no equal of: listed, or refused where the operator wants that.
#[derive(Debug)]
pub(in crate::translate) struct Drops {
    strict: bool,
    names: Vec<String>,
}

impl Drops {
    /// None yet.
    pub(in crate::translate) fn new(strict: bool) -> Self {
        Self { strict, names: Vec::new() }
    }

    /// Their names, for `x-gemway-dropped-params`.
    pub(in crate::translate) fn into_names(self) -> Vec<String> {
        self.names
    }

    /// Notes that `name` has no effect, or not the one it says.
    pub(in crate::translate) fn note(&mut self, name: &str, why: &str) -> Result<()> {
        if self.strict {
            return Err(Error::unsupported(name.to_owned(), format!("'{name}': {why}")));
        }
        if self.names.iter().any(|known| known == name) {
            return Ok(());
        }
        match self.names.len() {
            // The names leave in a header, which has an end.
            MOST_DROPPED => self.names.push("and-more".to_owned()),
            0..MOST_DROPPED => self.names.push(name.to_owned()),
            _ => {}
        }
        Ok(())
    }

    /// Notes what a schema says and the model will not hear: `label` says where, each pointer what.
    pub(super) fn lost(&mut self, param: &str, label: &str, pointers: &[String]) -> Result<()> {
        for pointer in pointers {
            if self.strict {
                let message =
                    format!("'{label}': this model's schemas have no place for what stands at '{pointer}'.");
                return Err(Error::unsupported(param.to_owned(), message));
            }
            let printable = |c: char| if c.is_ascii_graphic() && c != ',' { c } else { '_' };
            let name: String = format!("{label}#{pointer}").chars().take(160).map(printable).collect();
            self.note(&name, "")?;
        }
        Ok(())
    }

    /// Notes fields that nobody here knows.
    pub(in crate::translate) fn unknown(&mut self, prefix: &str, unknown: &Unknown) -> Result<()> {
        for name in &unknown.0 {
            // The names leave in a header: only what is harmless there.
            let plain = name.len() <= 64 && name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b',');
            let name = if plain { name.as_str() } else { "(unprintable)" };
            let why = "this field is not known here";
            self.note(&format!("{prefix}{name}"), why).map_err(|error| error.code("unknown_parameter"))?;
        }
        Ok(())
    }
}

/// Reads a client's body.
///
/// # Errors
/// [`Kind::Malformed`] when it is no JSON object, [`Kind::Invalid`] with the field's path when a value has
/// the wrong type or is missing.
pub fn parse(body: &[u8]) -> Result<Request<'_>> {
    let request: Request<'_> = document(body, MOST_VALUES)?;
    check_model(&request.model)?;
    Ok(request)
}

/// Reads a body as a request of any kind, of at most `most` values.
///
/// # Errors
/// As [`parse`].
pub(in crate::translate) fn document<'a, T: Deserialize<'a>>(body: &'a [u8], most: usize) -> Result<T> {
    let text = std::str::from_utf8(body).map_err(|error| {
        malformed(&format!("byte {} is not valid UTF-8", error.valid_up_to())).because(error)
    })?;
    if text.len() >= LONG
        && let Ok(value) = wire::read(text, DEEPEST, most)
    {
        return Ok(value);
    }
    survey(body, most)?;
    serde_json::from_str(text).map_err(|error| explain::<T>(text, error))
}

/// What cannot be a model's name is refused before anybody is asked for it.
pub(in crate::translate) fn check_model(model: &str) -> Result<()> {
    let plain =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'/' | b':' | b'@');
    let odd = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '?' | '#' | '%' | '\\' | '&');
    let odd = || !model.bytes().all(plain) && model.contains(odd);
    if model.is_empty() || model.len() > 256 || dotted(model) || odd() {
        return Err(Error::invalid("model", "'model' must be the name of a model."));
    }
    Ok(())
}

fn malformed(what: &str) -> Error {
    Error::new(
        Kind::Malformed,
        Origin::Client,
        format!("We could not parse the JSON body of your request: {what}."),
    )
}

/// Bounds nesting and number of values.
pub(in crate::translate) fn fits(json: &[u8]) -> Result<()> {
    survey(json, MOST_VALUES)
}

fn survey(json: &[u8], most: usize) -> Result<()> {
    let refuse =
        |what: String, code: &'static str| Err(Error::new(Kind::Invalid, Origin::Client, what).code(code));
    match wire::survey(json, DEEPEST, most) {
        Ok(()) => Ok(()),
        Err(Unfit::TooDeep) => {
            refuse(format!("The JSON is nested deeper than {DEEPEST} levels."), "json_too_deep")
        }
        Err(Unfit::TooMany) => refuse(format!("The JSON holds more than {most} values."), "json_too_large"),
    }
}

/// Reads a raw value as a type; the error names the place within it.
pub(in crate::translate) fn read<'a, T: Deserialize<'a>>(raw: &'a RawValue) -> Result<T> {
    let text = raw.get();
    let value =
        if text.len() >= LONG { wire::read(text, DEEPEST, usize::MAX) } else { serde_json::from_str(text) };
    if let Ok(value) = value {
        return Ok(value);
    }
    let mut from = serde_json::Deserializer::from_str(raw.get());
    serde_path_to_error::deserialize(&mut from).map_err(|error| {
        let path = error.path().to_string();
        field_error(&path, error.inner())
    })
}

/// Why a body could not be read; reads again, slower, to find the place.
fn explain<'a, T: Deserialize<'a>>(text: &'a str, error: serde_json::Error) -> Error {
    if !matches!(error.classify(), Category::Data) && !error.to_string().starts_with("number out of range") {
        return malformed(&error.to_string()).because(error);
    }
    if !text.trim_start().starts_with('{') {
        return malformed("it is not a JSON object").because(error);
    }
    let mut from = serde_json::Deserializer::from_str(text);
    match serde_path_to_error::deserialize::<_, T>(&mut from) {
        Ok(_) => malformed(&error.to_string()).because(error),
        Err(error) => {
            let path = error.path().to_string();
            field_error(&path, error.inner())
        }
    }
}

/// Turns serde's words into a code and a path.
fn field_error(path: &str, error: &serde_json::Error) -> Error {
    let text = error.to_string();
    let what = text.rfind(" at line ").and_then(|end| text.get(..end)).unwrap_or(&text).to_owned();
    let named = || what.split('`').nth(1).unwrap_or_default().to_owned();
    let path = if path == "." { String::new() } else { path.to_owned() };
    let join = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    let (param, code, message) = if what.starts_with("missing field") {
        let param = join(&named());
        (param.clone(), "missing_required_parameter", format!("Missing required parameter: '{param}'."))
    } else if what.starts_with("duplicate field") {
        // The path already ends with the field where the reader had entered it.
        let name = named();
        let param = if path.rsplit('.').next() == Some(name.as_str()) { path.clone() } else { join(&name) };
        (param.clone(), "duplicate_parameter", format!("'{param}' is given twice."))
    } else if what.starts_with("invalid type") {
        let place = if path.is_empty() { String::new() } else { format!(" for '{path}'") };
        let (got, wanted) = types(what.trim_start_matches("invalid type: "));
        let message = format!("Invalid type{place}: expected {wanted}, but got {got} instead.");
        (path, "invalid_type", message)
    } else {
        let place = if path.is_empty() { String::new() } else { format!(" for '{path}'") };
        let message = format!("Invalid value{place}: {what}.");
        (path, "invalid_value", message)
    };
    // serde's own words quote what the client sent, so they are no cause for the log.
    Error::invalid(param, message).code(code)
}

/// serde's words for two types (`string "7", expected i64`) in OpenAI's: what was sent, without its value, and what was
/// expected.
fn types(what: &str) -> (&'static str, String) {
    const SENT: [(&str, &str); 8] = [
        ("string", "a string"),
        ("boolean", "a boolean"),
        ("integer", "an integer"),
        ("floating point", "a decimal"),
        ("number", "a number"),
        ("sequence", "an array"),
        ("map", "an object"),
        ("null", "null"),
    ];
    let got = SENT.iter().find(|(word, _)| what.starts_with(word)).map_or("another type", |(_, plain)| plain);
    let wanted =
        what.rfind(", expected ").and_then(|at| what.get(at + ", expected ".len()..)).unwrap_or(what);
    let plain = match wanted {
        "f64" | "f32" => "a number",
        "i64" | "u64" | "i32" | "u32" | "u16" | "u8" | "usize" => "an integer",
        "a sequence" => "an array",
        "a map" => "an object",
        _ if wanted.starts_with("struct ") => "an object",
        other => other,
    };
    (got, plain.to_owned())
}

/// Translates a request for one target.
///
/// # Errors
/// What cannot be said to Gemini, before anything is sent: with the field's path.
pub fn ask<'a>(
    mut request: Request<'a>,
    target: &Target<'_>,
    signatures: &dyn Signatures,
) -> Result<Ask<'a>> {
    let mut drops = Drops::new(target.strict);
    let mut shape = Shape {
        include_usage: request.stream_options.as_ref().and_then(|o| o.include_usage).unwrap_or(false),
        single_call: request.parallel_tool_calls == Some(false),
        ..Shape::default()
    };
    if request.stream_options.is_some() && !request.stream {
        let message = "'stream_options' is only allowed when 'stream' is true.";
        return Err(Error::invalid("stream_options", message));
    }
    let mut google = google::take(request.google.take(), request.extra_body.take(), &mut drops)?;

    let mut toolbox = tools::build(&mut request, &mut google, target, &mut shape, &mut drops)?;
    let mut generation = sampling::build(&request, google.as_ref(), target, &mut shape, &mut drops)?;
    tools::answer_format(&mut request, &mut toolbox, &mut generation, target, &mut shape, &mut drops)?;

    let messages = std::mem::take(&mut request.messages);
    let Conversation { mut system, mut contents } =
        messages::build(messages, target, signatures, &mut shape.names, &mut drops)?;
    open(&mut contents);
    parts::agree(&mut contents, &mut generation, target, &mut drops)?;
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
        service_tier: sampling::service_tier(request.service_tier.as_ref(), target, &mut drops)?,
        contents,
        ..GenerateRequest::default()
    };
    google::apply(&mut upstream, &mut google, request.safety_settings, "system", target, &mut drops)?;
    drops.unknown("", &request.unknown)?;
    Ok(Ask { request: upstream, shape, dropped: drops.into_names() })
}

/// Gemini wants at least one turn, and a call only behind a user's turn.
pub(in crate::translate) fn open(contents: &mut Vec<Content<'_>>) {
    let called = contents.first().is_some_and(|first| {
        first.role == Role::Model && first.parts.iter().any(|part| part.function_call.is_some())
    });
    if contents.is_empty() || called {
        let opening = vec![Part::text(Text::plain(OPENING))];
        contents.insert(0, Content { role: Role::User, parts: opening });
    }
}
