//! An Embeddings request → a plan of calls.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::Shape;
use super::plan::{Form, Options, Plan};
use crate::error::{Error, Result};
use crate::gemini::ask::Part;
use crate::gemini::embed::Content;
use crate::openai::chat;
use crate::openai::embeddings::{Google, Request};
use crate::translate::chat::parts;
use crate::translate::chat::request::{Drops, check_model, document, read};
use crate::translate::chat::sampling::{LONGEST_LABEL, labelled};
use crate::translate::tokens::{self, Encoding};
use crate::translate::{Backend, Target};
use crate::wire::Text;

/// Inputs of one request; `OpenAI`'s limit, which clients count on.
const MOST_INPUTS: usize = 2048;
/// Tokens are values, so there may be many; the body's size bounds them too.
const MOST_VALUES: usize = 20_000_000;

/// Google's names of what vectors are for, and what stands for each before a query where there is no such field.
const TASKS: [(&str, &str); 8] = [
    ("RETRIEVAL_QUERY", "search result"),
    ("RETRIEVAL_DOCUMENT", ""),
    ("SEMANTIC_SIMILARITY", "sentence similarity"),
    ("CLASSIFICATION", "classification"),
    ("CLUSTERING", "clustering"),
    ("QUESTION_ANSWERING", "question answering"),
    ("FACT_VERIFICATION", "fact checking"),
    ("CODE_RETRIEVAL_QUERY", "code retrieval"),
];

/// Reads a client's body.
///
/// # Errors
/// When it is no JSON object, or a value has the wrong type or is missing: with the field's path.
pub fn parse(body: &[u8]) -> Result<Request<'_>> {
    let request: Request<'_> = document(body, MOST_VALUES)?;
    if let Some(model) = &request.model {
        check_model(model)?;
    }
    Ok(request)
}

/// Translates a request for one target. `asked` is the model as the client calls it, which tells what encoding its
/// tokens are in.
///
/// # Errors
/// What cannot be embedded, before anything is sent: with the field's path.
pub fn plan<'a>(request: &Request<'a>, asked: &str, target: &Target<'_>) -> Result<Plan<'a>> {
    let traits = &target.traits.embedding;
    let mut drops = Drops::new(target.strict);
    let google = google(request, &mut drops)?;
    let form = match (target.backend, traits.predict) {
        (Backend::GeminiApi, _) => Form::Gemini,
        (Backend::Vertex, 0) => Form::Vertex,
        (Backend::Vertex, inputs) => Form::Predict { inputs: inputs as usize },
    };
    let mut inputs = inputs(request, asked, target, &mut drops)?;
    let mut options = Options { dimensions: dimensions(request, traits.dimensions)?, ..Options::default() };
    options.task = task(request.task_type.as_ref().or(google.and_then(|google| google.task_type.as_ref())))?;
    let title = request.title.map(|raw| ("title", raw));
    let title = title.or(google.and_then(|google| google.title).map(|raw| ("google.title", raw)));
    if let Some((param, raw)) = title {
        options.titles = titles(raw, inputs.len()).map_err(|error| error.within(param))?;
        // Google takes a title for documents only.
        match options.task {
            None => options.task = Some("RETRIEVAL_DOCUMENT"),
            Some("RETRIEVAL_DOCUMENT") => {}
            Some(_) => {
                let message = "A title is for documents: 'task_type' must be 'RETRIEVAL_DOCUMENT'.";
                return Err(Error::invalid(param, message));
            }
        }
    }
    if !traits.task_type
        && let Some(task) = options.task.take()
    {
        let titles = std::mem::take(&mut options.titles);
        prefix(&mut inputs, task, &titles, &mut drops)?;
    }
    vertex_options(google, target.backend, form, &mut options, &mut drops)?;
    labelled("user", request.user.as_ref(), LONGEST_LABEL)?;
    if request.user.is_some() {
        drops.note("user", "Gemini has no place for it")?;
    }
    drops.unknown("", &request.unknown)?;
    let shape = Shape {
        base64: base64(request)?,
        rescale: options.dimensions.is_some_and(|asked| !traits.unit && asked != traits.dimensions),
        dimensions: options.dimensions.map(|asked| asked as usize),
    };
    let mut plan = Plan::new(form, target.model, inputs, options, shape);
    plan.dropped = drops.into_names();
    Ok(plan)
}

/// The extension object, from either place.
fn google<'r, 'a>(request: &'r Request<'a>, drops: &mut Drops) -> Result<Option<&'r Google<'a>>> {
    let mut found = request.google.as_ref();
    if let Some(extra) = &request.extra_body {
        drops.unknown("extra_body.", &extra.unknown)?;
        found = found.or(extra.google.as_ref());
    }
    if let Some(google) = found {
        drops.unknown("google.", &google.unknown)?;
    }
    Ok(found)
}

fn base64(request: &Request<'_>) -> Result<bool> {
    match request.encoding_format.as_ref().map(Text::decode).as_deref() {
        None | Some("float") => Ok(false),
        Some("base64") => Ok(true),
        Some(_) => Err(Error::invalid("encoding_format", "'encoding_format' must be 'float' or 'base64'.")),
    }
}

fn dimensions(request: &Request<'_>, most: u32) -> Result<Option<u32>> {
    let Some(asked) = request.dimensions else { return Ok(None) };
    match u32::try_from(asked) {
        Ok(asked) if asked > 0 && (most == 0 || asked <= most) => Ok(Some(asked)),
        Ok(_) | Err(_) if most == 0 => {
            let code = if asked < 1 { "integer_below_min_value" } else { "integer_above_max_value" };
            Err(Error::invalid("dimensions", "'dimensions' must be a number above 0.").code(code))
        }
        Ok(_) | Err(_) => {
            let message =
                format!("'dimensions' must be between 1 and {most} for this model, and not {asked}.");
            let code = if asked < 1 { "integer_below_min_value" } else { "integer_above_max_value" };
            Err(Error::invalid("dimensions", message).code(code))
        }
    }
}

fn task(text: Option<&Text<'_>>) -> Result<Option<&'static str>> {
    let Some(text) = text else { return Ok(None) };
    let name = text.decode().to_ascii_uppercase();
    if name == "TASK_TYPE_UNSPECIFIED" {
        return Ok(None);
    }
    if let Some((known, _)) = TASKS.iter().find(|(known, _)| *known == name) {
        return Ok(Some(known));
    }
    let known: Vec<&str> = TASKS.iter().map(|(known, _)| *known).collect();
    let message = format!("'task_type' must be one of {}.", known.join(", "));
    Err(Error::invalid("task_type", message))
}

/// One title for all inputs, or one for each.
fn titles(raw: &RawValue, inputs: usize) -> Result<Vec<Text<'_>>> {
    if raw.get().starts_with('"') {
        return Ok(vec![read(raw)?]);
    }
    let titles: Vec<Text<'_>> = read(raw)?;
    if titles.len() != inputs {
        let message = format!("There are {} titles for {inputs} inputs.", titles.len());
        return Err(Error::invalid("", message));
    }
    Ok(titles)
}

/// Says what the vectors are for the way newer models want it: in words before the text.
fn prefix(inputs: &mut [Content<'_>], task: &str, titles: &[Text<'_>], drops: &mut Drops) -> Result<()> {
    let query = TASKS.iter().find(|(known, _)| *known == task).map_or("", |(_, words)| words);
    for (at, input) in inputs.iter_mut().enumerate() {
        let text = match input {
            Content::Text(text) => Some(text),
            Content::Parts(parts) => parts.iter_mut().find_map(|part| part.text.as_mut()),
        };
        let Some(text) = text else {
            drops
                .note("task_type", "this model takes it as words before a text, and an input has no text")?;
            continue;
        };
        let said = text.decode();
        let words = if task == "RETRIEVAL_DOCUMENT" {
            let title = if let [one] = titles { Some(one) } else { titles.get(at) };
            let title = title.map(Text::decode).filter(|title| !title.is_empty());
            format!("title: {} | text: {said}", title.as_deref().unwrap_or("none"))
        } else {
            format!("task: {query} | query: {said}")
        };
        *text = Text::plain(words);
    }
    Ok(())
}

/// What only Vertex AI can be told.
fn vertex_options(
    google: Option<&Google<'_>>,
    backend: Backend,
    form: Form,
    options: &mut Options<'_>,
    drops: &mut Drops,
) -> Result<()> {
    let Some(google) = google else { return Ok(()) };
    let mut only = |asked: Option<bool>, name: &str, place: bool| match asked {
        Some(_) if !place => drops.note(name, "this model has no such switch at this place").map(|()| None),
        asked => Ok(asked),
    };
    let vertex = backend == Backend::Vertex;
    options.auto_truncate = only(google.auto_truncate, "google.auto_truncate", vertex)?;
    let reads = form == Form::Vertex;
    options.document_ocr = only(google.document_ocr, "google.document_ocr", reads)?;
    options.audio_track_extraction =
        only(google.audio_track_extraction, "google.audio_track_extraction", reads)?;
    Ok(())
}

/// The encoding of the request's tokens, should it have any.
///
/// # Errors
/// For the name of an encoding that does not exist.
pub fn encoding(request: &Request<'_>, asked: &str) -> Result<Encoding> {
    Encoding::of(request.encoding.as_ref().map(Text::decode).as_deref(), asked)
}

fn inputs<'a>(
    request: &Request<'a>,
    asked: &str,
    target: &Target<'_>,
    drops: &mut Drops,
) -> Result<Vec<Content<'a>>> {
    let raw = request.input;
    let encoding = encoding(request, asked)?;
    let traits = &target.traits.embedding;
    // `predict` knows nothing but texts.
    let text_only = traits.text_only || (target.backend == Backend::Vertex && traits.predict > 0);
    let mut source = Source { encoding, decoded: 0, text_only, target, drops };
    let one = |source: &mut Source<'_>| source.input(raw).map(|input| vec![input]);
    let flat = raw.get().strip_prefix('[').map(str::trim_ascii_start);
    let inputs = match flat {
        None => one(&mut source),
        Some(inner) if inner.starts_with(|c: char| c == '-' || c.is_ascii_digit()) => one(&mut source),
        Some(_) => source.list(raw),
    };
    inputs.map_err(|error| error.within("input"))
}

/// What inputs are read with.
struct Source<'s> {
    encoding: Encoding,
    decoded: usize,
    text_only: bool,
    target: &'s Target<'s>,
    drops: &'s mut Drops,
}

impl Source<'_> {
    fn list<'a>(&mut self, raw: &'a RawValue) -> Result<Vec<Content<'a>>> {
        let Few(items, count) = read(raw)?;
        if count == 0 {
            return Err(Error::invalid("", "'input' must hold at least one input.").code("empty_array"));
        }
        if count > MOST_INPUTS {
            let message = format!("'input' must hold at most {MOST_INPUTS} inputs, and not {count}.");
            return Err(Error::invalid("", message).code("array_above_max_length"));
        }
        let mut inputs = Vec::with_capacity(items.len());
        for (at, item) in items.into_iter().enumerate() {
            inputs.push(self.input(item).map_err(|error| error.within(&format!("[{at}]")))?);
        }
        Ok(inputs)
    }

    /// One input, which gives one vector.
    fn input<'a>(&mut self, raw: &'a RawValue) -> Result<Content<'a>> {
        match raw.get().as_bytes().first() {
            Some(b'"') => {
                let text: Text<'a> = read(raw)?;
                if text.is_empty() {
                    return Err(Error::invalid("", "An input must not be an empty string."));
                }
                Ok(Content::Text(text))
            }
            Some(b'{') => {
                let part = parts::one(read(raw)?, self.target, self.drops)?;
                self.parts(part.into_iter().collect())
            }
            Some(b'[') if tokens::are_tokens(raw) => {
                let text = self.encoding.text(raw)?;
                self.decoded += text.len();
                if self.decoded > tokens::MOST_BYTES {
                    return Err(Error::invalid("", "The tokens stand for too much text."));
                }
                Ok(Content::Text(Text::plain(text)))
            }
            Some(b'[') => {
                let read: Vec<chat::Part<'a>> = read(raw)?;
                let mut made = Vec::with_capacity(read.len());
                for (at, part) in read.into_iter().enumerate() {
                    made.extend(
                        parts::one(part, self.target, self.drops)
                            .map_err(|error| error.within(&format!("[{at}]")))?,
                    );
                }
                self.parts(made)
            }
            _ => Err(Error::invalid("", "An input must be a string, a list of tokens, or content parts.")
                .code("invalid_type")),
        }
    }

    fn parts<'a>(&self, mut parts: Vec<Part<'a>>) -> Result<Content<'a>> {
        let plain = parts.iter().all(|part| part.text.is_some());
        match parts.pop() {
            None => Err(Error::invalid("", "An input must not be empty.")),
            Some(Part { text: Some(text), .. }) if parts.is_empty() => Ok(Content::Text(text)),
            Some(_) if !plain && self.text_only => {
                Err(Error::unsupported("", "This model embeds text only."))
            }
            Some(_) if self.text_only => {
                Err(Error::unsupported("", "This model embeds one text for each input."))
            }
            Some(last) => {
                parts.push(last);
                Ok(Content::Parts(parts))
            }
        }
    }
}

/// The first elements of a list, and how many there are in all.
struct Few<'a>(Vec<&'a RawValue>, usize);

impl<'de: 'a, 'a> Deserialize<'de> for Few<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct List;
        impl<'de> Visitor<'de> for List {
            type Value = Few<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of inputs")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Few<'de>, A::Error> {
                let (mut items, mut count) = (Vec::new(), 0);
                while items.len() < MOST_INPUTS {
                    let Some(item) = seq.next_element()? else { return Ok(Few(items, count)) };
                    items.push(item);
                    count += 1;
                }
                while seq.next_element::<IgnoredAny>()?.is_some() {
                    count += 1;
                }
                Ok(Few(items, count))
            }
        }
        deserializer.deserialize_seq(List)
    }
}
