//! Content of messages and outputs: text and media.

use serde_json::value::RawValue;

use crate::error::{Error, Result};
use crate::gemini::ask::Part;
use crate::openai::chat::{File, Url};
use crate::openai::responses as wire;
use crate::translate::Target;
use crate::translate::chat::media::{self, Source};
use crate::translate::chat::parts;
use crate::translate::chat::request::{Drops, read};
use crate::wire::Text;

/// Reads a content: a string, or parts.
fn each<'a>(
    raw: &'a RawValue,
    field: &str,
    mut one: impl FnMut(wire::Part<'a>) -> Result<Option<Part<'a>>>,
) -> Result<Vec<Part<'a>>> {
    match raw.get().as_bytes().first() {
        Some(b'"') => {
            let text: Text<'a> = read(raw).map_err(|error| error.within(field))?;
            Ok(if text.is_empty() { Vec::new() } else { vec![Part::text(text)] })
        }
        Some(b'[') => {
            let all: Vec<wire::Part<'a>> = read(raw).map_err(|error| error.within(field))?;
            let mut out = Vec::with_capacity(all.len());
            for (at, part) in all.into_iter().enumerate() {
                let mut made = one(part).map_err(|error| error.within(&format!("{field}[{at}]")))?;
                if let Some(place) = made.as_mut().and_then(media::fetched_at) {
                    *place = format!("{field}[{at}].{place}");
                }
                out.extend(made);
            }
            Ok(out)
        }
        _ => {
            let message = "This must be a string or an array of parts.";
            Err(Error::invalid(field.to_owned(), message).code("invalid_type"))
        }
    }
}

fn said<'a>(text: Option<Text<'a>>, name: &'static str) -> Result<Option<Part<'a>>> {
    let text = text.ok_or_else(|| lacking(name))?;
    Ok((!text.is_empty()).then(|| Part::text(text)))
}

fn lacking(name: &'static str) -> Error {
    Error::invalid(name, format!("This part needs its '{name}'.")).code("missing_required_parameter")
}

/// A system's or developer's words.
pub(super) fn system(raw: &RawValue) -> Result<Vec<Part<'_>>> {
    each(raw, "content", |part| match part.kind.as_ref() {
        "input_text" | "text" | "output_text" => said(part.text, "text"),
        other => Err(parts::unknown_kind(other, "'input_text'")),
    })
}

/// What the model said; a replayed thought is no text of it.
pub(super) fn assistant(raw: &RawValue) -> Result<Vec<Part<'_>>> {
    each(raw, "content", |part| match part.kind.as_ref() {
        "output_text" | "input_text" | "text" => said(part.text, "text"),
        "refusal" => said(part.refusal, "refusal"),
        "reasoning_text" | "summary_text" => Ok(None),
        other => Err(parts::unknown_kind(other, "'output_text' and 'refusal'")),
    })
}

/// What the user said (`content`), or what came of a call (`output`).
pub(super) fn user<'a>(
    raw: &'a RawValue,
    field: &str,
    target: &Target<'_>,
    drops: &mut Drops,
) -> Result<Vec<Part<'a>>> {
    each(raw, field, |part| one(part, target, drops))
}

fn one<'a>(part: wire::Part<'a>, target: &Target<'_>, drops: &mut Drops) -> Result<Option<Part<'a>>> {
    match part.kind.as_ref() {
        "input_text" | "text" | "output_text" | "summary_text" => said(part.text, "text"),
        "refusal" => said(part.refusal, "refusal"),
        "input_image" | "image_url" | "computer_screenshot" => image(part, target, drops).map(Some),
        "input_file" | "file" => file(part, target, drops).map(Some),
        "input_audio" => {
            let audio = part.input_audio.ok_or_else(|| lacking("input_audio"))?;
            media::heard(audio).map(Some).map_err(|error| error.within("input_audio"))
        }
        other => {
            let known = "'input_text', 'input_image', 'input_file' and 'input_audio'";
            Err(parts::unknown_kind(other, known))
        }
    }
}

fn image<'a>(part: wire::Part<'a>, target: &Target<'_>, drops: &mut Drops) -> Result<Part<'a>> {
    let mut detail = part.detail;
    let mut made = if let Some(raw) = part.image_url {
        let within = |error: Error| error.within("image_url");
        let url = if raw.get().starts_with('{') { read(raw) } else { read(raw).map(plain) };
        let url: Url<'a> = url.map_err(within)?;
        detail = url.detail.or(detail);
        media::located(&url.url, Source::of("image", url.format), target).map_err(within)?
    } else if part.file_id.is_some() {
        media::filed(file_of(None, part.file_id, None, None), target)?
    } else {
        return Err(lacking("image_url"));
    };
    parts::looked_at(&mut made, detail, target, drops)?;
    Ok(made)
}

fn plain(url: Text<'_>) -> Url<'_> {
    Url { url, detail: None, format: None }
}

fn file_of<'a>(
    file_data: Option<Text<'a>>,
    file_id: Option<Text<'a>>,
    file_url: Option<Text<'a>>,
    filename: Option<Text<'a>>,
) -> File<'a> {
    File { file_data, file_id, file_url, filename, format: None }
}

fn file<'a>(part: wire::Part<'a>, target: &Target<'_>, drops: &mut Drops) -> Result<Part<'a>> {
    let mut made = if let Some(file) = part.file {
        let mut made = media::filed(file, target).map_err(|error| error.within("file"))?;
        if let Some(waits) = media::fetched_at(&mut made) {
            *waits = format!("file.{waits}");
        }
        made
    } else {
        media::filed(file_of(part.file_data, part.file_id, part.file_url, part.filename), target)?
    };
    parts::looked_at(&mut made, part.detail, target, drops)?;
    Ok(made)
}
