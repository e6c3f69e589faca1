//! Content parts: what a message holds.

use serde_json::value::RawValue;

use super::media::{self, Source};
use super::request::{Drops, read};
use crate::error::{Error, Result};
use crate::gemini::ask::{Content as Turn, GenerationConfig, MediaResolution, Part, VideoMetadata};
use crate::openai::chat;
use crate::translate::Target;
use crate::wire::Text;

/// Video is sampled at most this often.
const MOST_FRAMES: f64 = 24.0;
const DETAIL: &str = "detail";
const CLOSEST: &str = "MEDIA_RESOLUTION_ULTRA_HIGH";

enum Content<'a> {
    Text(Text<'a>),
    Parts(Vec<chat::Part<'a>>),
}

fn content(raw: &RawValue) -> Result<Content<'_>> {
    match raw.get().as_bytes().first() {
        // It is JSON already; only what is wrong with it is found by reading it again.
        Some(b'"') => Text::from_raw(raw).or_else(|_| read(raw)).map(Content::Text),
        Some(b'[') => read(raw).map(Content::Parts),
        _ => Err(Error::invalid("", "A content must be a string or an array of parts.").code("invalid_type")),
    }
}

fn said<'a>(text: Option<Text<'a>>, kind: &str) -> Result<Option<Part<'a>>> {
    let Some(text) = text else {
        let message = format!("A part of type '{kind}' needs its '{kind}'.");
        return Err(Error::invalid(kind.to_owned(), message).code("missing_required_parameter"));
    };
    Ok((!text.is_empty()).then(|| Part::text(text)))
}

fn each<'a>(
    raw: &'a RawValue,
    mut one: impl FnMut(chat::Part<'a>) -> Result<Option<Part<'a>>>,
) -> Result<Vec<Part<'a>>> {
    let parts = match content(raw).map_err(|error| error.within("content"))? {
        Content::Text(text) if text.is_empty() => return Ok(Vec::new()),
        Content::Text(text) => return Ok(vec![Part::text(text)]),
        Content::Parts(parts) => parts,
    };
    let mut out = Vec::with_capacity(parts.len());
    for (at, part) in parts.into_iter().enumerate() {
        let mut made = one(part).map_err(|error| error.within(&format!("content[{at}]")))?;
        if let Some(place) = made.as_mut().and_then(media::fetched_at) {
            *place = format!("content[{at}].{place}");
        }
        out.extend(made);
    }
    Ok(out)
}

pub(in crate::translate) fn unknown_kind(kind: &str, known: &str) -> Error {
    let kind: String = kind.chars().take(40).collect();
    Error::invalid("type", format!("Invalid value: '{kind}'. Supported values are: {known}."))
}

/// A system message: texts only.
pub(super) fn texts(raw: &RawValue) -> Result<Vec<Part<'_>>> {
    each(raw, |part| match part.kind.as_ref() {
        "text" | "input_text" => said(part.text, "text"),
        other => Err(unknown_kind(other, "'text'")),
    })
}

/// An assistant's message: texts, refusals and pictures; a replayed thought is no text of the model.
pub(super) fn assistant<'a>(
    raw: &'a RawValue,
    target: &Target<'_>,
    drops: &mut Drops,
) -> Result<Vec<Part<'a>>> {
    each(raw, |part| match part.kind.as_ref() {
        "text" | "output_text" | "input_text" => said(part.text, "text"),
        "refusal" => said(part.refusal, "refusal"),
        "image_url" => image(part, target, drops).map(Some),
        "thinking" | "reasoning" | "redacted_thinking" => Ok(None),
        other => Err(unknown_kind(other, "'text' and 'refusal'")),
    })
}

/// The pictures that an assistant's message carries beside its content.
pub(super) fn drawn<'a>(
    raw: &'a RawValue,
    target: &Target<'_>,
) -> Result<Vec<(Part<'a>, Option<&'a RawValue>)>> {
    if !raw.get().starts_with('[') {
        return Ok(Vec::new());
    }
    let pictures: Vec<chat::Drawn<'a>> = read(raw).map_err(|error| error.within("images"))?;
    let mut out = Vec::with_capacity(pictures.len());
    for (at, picture) in pictures.into_iter().enumerate() {
        let place = format!("images[{at}]");
        let place = |error: Error| error.within(&place);
        let url = url(picture.image_url, "image_url").map_err(place)?;
        let part = media::located(&url.url, Source::of("image", None), target)
            .map_err(|error| place(error.within("image_url.url")))?;
        out.push((part, picture.extra_content));
    }
    Ok(out)
}

/// A user's message or a tool's result.
pub(super) fn user<'a>(raw: &'a RawValue, target: &Target<'_>, drops: &mut Drops) -> Result<Vec<Part<'a>>> {
    each(raw, |part| one(part, target, drops))
}

/// One part of a user's message; nothing for an empty text.
pub(in crate::translate) fn one<'a>(
    mut part: chat::Part<'a>,
    target: &Target<'_>,
    drops: &mut Drops,
) -> Result<Option<Part<'a>>> {
    match part.kind.as_ref() {
        "text" | "input_text" | "output_text" => said(part.text, "text"),
        "refusal" => said(part.refusal, "refusal"),
        "image_url" | "input_image" => image(part, target, drops).map(Some),
        "video_url" => {
            let video = clip(part.video_metadata.take())?;
            let url = url(part.video_url, "video_url")?;
            let source = Source::of("video", url.format);
            let mut made =
                media::located(&url.url, source, target).map_err(|error| error.within("video_url.url"))?;
            made.video_metadata = video;
            looked_at(&mut made, url.detail.or(part.detail), target, drops)?;
            Ok(Some(made))
        }
        "input_audio" => {
            let Some(audio) = part.input_audio else { return Err(lacking("input_audio")) };
            media::heard(audio).map(Some).map_err(|error| error.within("input_audio"))
        }
        "file" | "input_file" => {
            let video = clip(part.video_metadata.take())?;
            let (file, place) = match part.file {
                Some(file) => (file, Some("file")),
                None if part.kind == "input_file" => {
                    let chat::Part { file_data, file_id, file_url, filename, .. } = part;
                    (chat::File { file_data, file_id, file_url, filename, format: None }, None)
                }
                None => return Err(lacking("file")),
            };
            let within = |error: Error| match place {
                Some(place) => error.within(place),
                None => error,
            };
            let mut made = media::filed(file, target).map_err(within)?;
            if let (Some(place), Some(waits)) = (place, media::fetched_at(&mut made)) {
                *waits = format!("{place}.{waits}");
            }
            made.video_metadata = video;
            looked_at(&mut made, part.detail, target, drops)?;
            Ok(Some(made))
        }
        other => Err(unknown_kind(other, "'text', 'image_url', 'input_audio', 'file' and 'video_url'")),
    }
}

fn image<'a>(part: chat::Part<'a>, target: &Target<'_>, drops: &mut Drops) -> Result<Part<'a>> {
    if part.image_url.is_none()
        && let Some(id) = part.file_id
    {
        let file =
            chat::File { file_data: None, file_id: Some(id), file_url: None, filename: None, format: None };
        return media::filed(file, target);
    }
    let url = url(part.image_url, "image_url")?;
    let source = Source::of("image", url.format);
    let mut made = media::located(&url.url, source, target).map_err(|error| error.within("image_url.url"))?;
    looked_at(&mut made, url.detail.or(part.detail), target, drops)?;
    Ok(made)
}

fn lacking(name: &'static str) -> Error {
    Error::invalid(name, format!("A part of type '{name}' needs its '{name}'."))
        .code("missing_required_parameter")
}

fn url<'a>(raw: Option<&'a RawValue>, name: &'static str) -> Result<chat::Url<'a>> {
    let Some(raw) = raw else { return Err(lacking(name)) };
    if raw.get().starts_with('"') {
        let url = read(raw).map_err(|error| error.within(name))?;
        return Ok(chat::Url { url, detail: None, format: None });
    }
    read(raw).map_err(|error| error.within(name))
}

/// `detail`: how closely to look at one part.
pub(in crate::translate) fn looked_at(
    part: &mut Part<'_>,
    detail: Option<Text<'_>>,
    target: &Target<'_>,
    drops: &mut Drops,
) -> Result<()> {
    let Some(detail) = detail else { return Ok(()) };
    let level = match detail.decode().as_ref() {
        "auto" | "" => return Ok(()),
        "low" => "MEDIA_RESOLUTION_LOW",
        "medium" => "MEDIA_RESOLUTION_MEDIUM",
        "high" => "MEDIA_RESOLUTION_HIGH",
        "original" => CLOSEST,
        _ => {
            let message = "Supported values are: 'auto', 'low', 'high' and 'original'.";
            return Err(Error::invalid("detail", message));
        }
    };
    if !target.traits.media_resolution {
        return drops.note(DETAIL, "this model looks at media in one way");
    }
    part.media_resolution = Some(MediaResolution { level });
    Ok(())
}

/// Older families look at all media alike: what every picture, video and document of the request says is said
/// once for all of them. Where they do not agree, each is seen as it would be without a word.
pub(in crate::translate) fn agree(
    contents: &mut [Turn<'_>],
    config: &mut Option<GenerationConfig<'_>>,
    target: &Target<'_>,
    drops: &mut Drops,
) -> Result<()> {
    // The families that are told so for one part are those that take media inside results.
    if target.traits.multimodal_results {
        return Ok(());
    }
    let seen = contents.iter_mut().flat_map(|content| &mut content.parts).filter(|part| visible(part));
    let levels: Vec<_> = seen.map(|part| part.media_resolution.take().map(|said| said.level)).collect();
    let Some(level) = levels.iter().flatten().next().copied() else { return Ok(()) };
    if config.as_ref().is_some_and(|config| config.media_resolution.is_some()) {
        return drops.note(DETAIL, "the resolution of all media is given already");
    }
    if levels.iter().any(|other| *other != Some(level)) {
        return drops.note(DETAIL, "this model looks at all media alike, and they differ in it");
    }
    config.get_or_insert_default().media_resolution = Some(match level {
        CLOSEST => {
            drops.note(DETAIL, "this model looks less closely than that")?;
            "MEDIA_RESOLUTION_HIGH"
        }
        other => other,
    });
    Ok(())
}

/// What has a resolution: anything but sound and plain text.
fn visible(part: &Part<'_>) -> bool {
    let mime = match (&part.inline_data, &part.file_data) {
        (Some(blob), _) => Some(blob.mime_type.as_ref()),
        (None, Some(file)) => file.mime_type.as_deref(),
        (None, None) => return false,
    };
    !mime.is_some_and(|mime| mime.starts_with("audio/") || mime.starts_with("text/"))
}

/// Google's own words about a video, checked.
fn clip(given: Option<chat::VideoMetadata<'_>>) -> Result<Option<VideoMetadata>> {
    let Some(given) = given else { return Ok(None) };
    let place = |error: Error| error.within("video_metadata");
    if let Some(name) = given.unknown.0.first() {
        let shown: String = name.chars().take(40).collect();
        return Err(place(
            Error::invalid("", format!("A video has no '{shown}'.")).code("unknown_parameter"),
        ));
    }
    if given.fps.is_some_and(|fps| !(fps > 0.0 && fps <= MOST_FRAMES)) {
        let message = "Frames a second must be above 0, and 24 at most.";
        return Err(place(Error::invalid("fps", message)));
    }
    Ok(Some(VideoMetadata {
        start_offset: offset(given.start_offset).map_err(|error| place(error.within("start_offset")))?,
        end_offset: offset(given.end_offset).map_err(|error| place(error.within("end_offset")))?,
        fps: given.fps,
    }))
}

/// Seconds as a number, or as Google writes durations: `1.5s`.
fn offset(raw: Option<&RawValue>) -> Result<Option<String>> {
    let Some(raw) = raw else { return Ok(None) };
    let text = if raw.get().starts_with('"') {
        read::<Text<'_>>(raw)?.decode().into_owned()
    } else {
        format!("{}s", raw.get())
    };
    let number = text.strip_suffix('s').unwrap_or_default();
    let digits = |part: &str| !part.is_empty() && part.len() <= 9 && part.bytes().all(|b| b.is_ascii_digit());
    let fits = match number.split_once('.') {
        Some((whole, part)) => digits(whole) && digits(part),
        None => digits(number),
    };
    if fits {
        Ok(Some(text))
    } else {
        Err(Error::invalid("", "An offset is a number of seconds, as in '1.5s'."))
    }
}
