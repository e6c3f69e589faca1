//! Content parts: text and media.
//!
//! Base64 is cut out of the client's token and passed on; it is looked at once, to say what is wrong with it
//! before Google does, and rewritten only where it is not plain.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::value::RawValue;

use super::request::read;
use crate::error::{Error, Result};
use crate::gemini::ask::{Blob, FileData, MediaResolution, Part};
use crate::openai::chat;
use crate::translate::{Backend, Target};
use crate::wire::{Base64, Text};

const FILES: &str = "https://generativelanguage.googleapis.com/";

enum Content<'a> {
    Text(Text<'a>),
    Parts(Vec<chat::Part<'a>>),
}

fn content(raw: &RawValue) -> Result<Content<'_>> {
    match raw.get().as_bytes().first() {
        Some(b'"') => read(raw).map(Content::Text),
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
        out.extend(one(part).map_err(|error| error.within(&format!("content[{at}]")))?);
    }
    Ok(out)
}

fn unknown_kind(kind: &str, known: &str) -> Error {
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

/// An assistant's message: texts and refusals; a replayed thought is no text of the model.
pub(super) fn assistant(raw: &RawValue) -> Result<Vec<Part<'_>>> {
    each(raw, |part| match part.kind.as_ref() {
        "text" | "output_text" | "input_text" => said(part.text, "text"),
        "refusal" => said(part.refusal, "refusal"),
        "thinking" | "reasoning" | "redacted_thinking" => Ok(None),
        other => Err(unknown_kind(other, "'text' and 'refusal'")),
    })
}

/// A user's message or a tool's result.
pub(super) fn user<'a>(raw: &'a RawValue, target: &Target<'_>) -> Result<Vec<Part<'a>>> {
    each(raw, |part| one(part, target))
}

/// One part of a user's message; nothing for an empty text.
pub(in crate::translate) fn one<'a>(part: chat::Part<'a>, target: &Target<'_>) -> Result<Option<Part<'a>>> {
    match part.kind.as_ref() {
        "text" | "input_text" | "output_text" => said(part.text, "text"),
        "refusal" => said(part.refusal, "refusal"),
        "image_url" | "input_image" => {
            let (url, detail) = url(part.image_url, "image_url")?;
            let mut made = located(&url, "image", target).map_err(|error| error.within("image_url.url"))?;
            made.media_resolution = detail.or(part.detail).and_then(|detail| resolution(&detail, target));
            Ok(Some(made))
        }
        "video_url" => {
            let (url, _) = url(part.video_url, "video_url")?;
            let mut made = located(&url, "video", target).map_err(|error| error.within("video_url.url"))?;
            made.video_metadata = part.video_metadata.filter(|raw| raw.get().starts_with('{'));
            Ok(Some(made))
        }
        "input_audio" => {
            let Some(audio) = part.input_audio else { return Err(lacking("input_audio")) };
            heard(audio).map(Some).map_err(|error| error.within("input_audio"))
        }
        "file" | "input_file" => {
            let Some(file) = part.file else { return Err(lacking("file")) };
            filed(file, target).map(Some).map_err(|error| error.within("file"))
        }
        other => Err(unknown_kind(other, "'text', 'image_url', 'input_audio', 'file' and 'video_url'")),
    }
}

fn lacking(name: &'static str) -> Error {
    Error::invalid(name, format!("A part of type '{name}' needs its '{name}'."))
        .code("missing_required_parameter")
}

type Located<'a> = (Text<'a>, Option<Text<'a>>);

fn url<'a>(raw: Option<&'a RawValue>, name: &'static str) -> Result<Located<'a>> {
    let Some(raw) = raw else { return Err(lacking(name)) };
    if raw.get().starts_with('"') {
        return Ok((read(raw).map_err(|error| error.within(name))?, None));
    }
    let chat::Url { url, detail } = read(raw).map_err(|error| error.within(name))?;
    Ok((url, detail))
}

fn resolution(detail: &Text<'_>, target: &Target<'_>) -> Option<MediaResolution> {
    // A hint for one part is understood by the same families that take media inside results.
    if !target.traits.multimodal_results {
        return None;
    }
    let level = match detail.decode().as_ref() {
        "low" => "MEDIA_RESOLUTION_LOW",
        "high" => "MEDIA_RESOLUTION_HIGH",
        "original" => "MEDIA_RESOLUTION_ULTRA_HIGH",
        _ => return None,
    };
    Some(MediaResolution { level })
}

/// The characters of a token with the body's own lifetime, where no escape is among them.
fn characters<'a>(text: &Text<'a>) -> Cow<'a, str> {
    text.decode()
}

fn inline<'a>(mime_type: Cow<'a, str>, data: Base64<'a>) -> Part<'a> {
    Part { inline_data: Some(Blob { mime_type, data, display_name: None }), ..Part::default() }
}

fn split(text: Cow<'_, str>, at: usize) -> (Cow<'_, str>, Cow<'_, str>) {
    match text {
        Cow::Borrowed(text) => {
            let (head, tail) = text.split_at_checked(at).unwrap_or((text, ""));
            (Cow::Borrowed(head), Cow::Borrowed(tail))
        }
        Cow::Owned(mut text) => {
            let tail = if text.is_char_boundary(at) && at <= text.len() {
                text.split_off(at)
            } else {
                String::new()
            };
            (Cow::Owned(text), Cow::Owned(tail))
        }
    }
}

/// A URL of any kind → the part that holds or names the media.
fn located<'a>(url: &Text<'a>, wanted: &str, target: &Target<'_>) -> Result<Part<'a>> {
    let url = characters(url);
    if is_data(&url) {
        return data_url(url, wanted);
    }
    remote(url, wanted, target)
}

fn is_data(url: &str) -> bool {
    url.get(..5).is_some_and(|scheme| scheme.eq_ignore_ascii_case("data:"))
}

fn bad_data(wanted: &str, what: &str) -> Error {
    let code = if wanted == "image" { "invalid_image_format" } else { "invalid_value" };
    Error::invalid("", format!("The data URL cannot be used: {what}.")).code(code)
}

fn data_url<'a>(url: Cow<'a, str>, wanted: &str) -> Result<Part<'a>> {
    let Some(comma) = memchr::memchr(b',', url.as_bytes()) else {
        return Err(bad_data(wanted, "it has no comma before the data"));
    };
    let (head, payload) = split(url, comma + 1);
    let head = head.get(5..comma).unwrap_or_default();
    let mut fields = head.split(';').map(str::trim);
    let mime = fields.next().unwrap_or_default().to_ascii_lowercase();
    let encoded = fields.any(|field| field.eq_ignore_ascii_case("base64"));
    let data = if encoded {
        plain_base64(payload)
    } else {
        let bytes: Vec<u8> = percent_encoding::percent_decode_str(&payload).collect();
        Base64::new(STANDARD.encode(bytes))
    };
    let Some(data) = data.filter(|data| !data.as_str().is_empty()) else {
        return Err(bad_data(wanted, "it holds no valid base64"));
    };
    let mime = settle(mime, &data, wanted);
    if wanted == "image" {
        let kind = mime.split('/').next().unwrap_or_default();
        let fits = match kind {
            "image" => !mime.contains("svg"),
            "video" | "audio" => true,
            _ => mime == "application/pdf",
        };
        if !fits {
            return Err(bad_data(wanted, "the media type is not an image type that Gemini reads"));
        }
    }
    Ok(inline(mime, data))
}

/// The media type under the name Google knows, guessed from the first bytes where none is given.
fn settle(mime: String, data: &Base64<'_>, wanted: &str) -> Cow<'static, str> {
    match mime.as_str() {
        "image/jpg" | "image/pjpeg" => "image/jpeg".into(),
        "audio/x-wav" | "audio/wave" | "audio/vnd.wave" => "audio/wav".into(),
        "application/x-pdf" => "application/pdf".into(),
        "" | "application/octet-stream" | "binary/octet-stream" => sniff(data.as_str(), wanted).into(),
        _ => mime.into(),
    }
}

fn sniff(data: &str, wanted: &str) -> &'static str {
    const MARKS: [(&str, &str); 7] = [
        ("iVBORw0KGgo", "image/png"),
        ("/9j/", "image/jpeg"),
        ("R0lGOD", "image/gif"),
        ("JVBERi", "application/pdf"),
        ("SUQz", "audio/mp3"),
        ("T2dnUw", "audio/ogg"),
        ("ZkxhQ", "audio/flac"),
    ];
    if data.starts_with("UklGR") {
        return if wanted == "image" { "image/webp" } else { "audio/wav" };
    }
    let found = MARKS.iter().find(|(mark, _)| data.starts_with(mark)).map(|(_, mime)| *mime);
    found.unwrap_or(match wanted {
        "image" => "image/jpeg",
        "video" => "video/mp4",
        _ => "application/pdf",
    })
}

/// Base64 as Google likes it: a slice where it is plain, a clean copy where it is the URL alphabet, wrapped in
/// lines or percent-encoded; nothing where it is none of these.
fn plain_base64(payload: Cow<'_, str>) -> Option<Base64<'_>> {
    let sound = |text: &str| {
        let body = text.trim_end_matches('=');
        text.len() - body.len() <= 2
            && body.len() % 4 != 1
            && body.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'+' || byte == b'/')
    };
    if sound(&payload) {
        return Base64::new(payload);
    }
    let text = percent_encoding::percent_decode_str(&payload).decode_utf8().ok()?;
    let clean: String = text
        .chars()
        .filter(|c| !c.is_ascii_whitespace())
        .map(|c| match c {
            '-' => '+',
            '_' => '/',
            other => other,
        })
        .collect();
    sound(&clean).then(|| Base64::new(clean)).flatten()
}

fn file_part<'a>(file_uri: Cow<'a, str>, mime_type: Option<Cow<'a, str>>) -> Part<'a> {
    Part { file_data: Some(FileData { mime_type, file_uri, display_name: None }), ..Part::default() }
}

fn remote<'a>(url: Cow<'a, str>, wanted: &str, target: &Target<'_>) -> Result<Part<'a>> {
    let refuse = |what: &str| Err(Error::invalid("", what.to_owned()).code("invalid_image_url"));
    if url.starts_with("gs://") {
        let mime = by_extension(&url).unwrap_or(usual(wanted));
        return Ok(file_part(url, Some(mime.into())));
    }
    if url.starts_with(FILES) {
        if target.backend == Backend::Vertex {
            return refuse("A file of the Gemini API cannot be read by Vertex AI.");
        }
        return Ok(file_part(url, None));
    }
    if let Some(found) = uploaded(&url, target) {
        return found;
    }
    let https = url.get(..8).is_some_and(|scheme| scheme.eq_ignore_ascii_case("https://"));
    if !https || url.len() > 8192 || url.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return refuse("The URL must be a data URL, or begin with https:// or gs://.");
    }
    let host = host(&url);
    if !public(host) {
        return refuse("The URL's host is private or cannot be resolved from outside.");
    }
    let tube = ["youtube.com", "www.youtube.com", "m.youtube.com", "youtu.be"];
    if tube.iter().any(|name| host.eq_ignore_ascii_case(name)) {
        return Ok(file_part(url, Some("video/mp4".into())));
    }
    let mime = by_extension(&url).unwrap_or(usual(wanted));
    Ok(file_part(url, Some(mime.into())))
}

fn uploaded<'a>(id: &str, target: &Target<'_>) -> Option<Result<Part<'a>>> {
    let name = id.strip_prefix("files/")?;
    let plain = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    if !plain || target.backend == Backend::Vertex {
        let error = Error::invalid("", "This is not the name of a file that the model can read.");
        return Some(Err(error.code("invalid_value")));
    }
    Some(Ok(file_part(format!("{FILES}v1beta/files/{name}").into(), None)))
}

fn host(url: &str) -> &str {
    let rest = url.get(8..).unwrap_or_default();
    let end = rest.find(['/', '?', '#', '\\']).unwrap_or(rest.len());
    let authority = rest.get(..end).unwrap_or_default();
    if authority.starts_with('[') {
        return authority;
    }
    let end = authority.rfind(':').unwrap_or(authority.len());
    authority.get(..end).unwrap_or_default()
}

/// Whether a host can be meant for anybody: no private names, no addresses outside the public ranges.
fn public(host: &str) -> bool {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    if host.is_empty() || host.contains(['@', '[', ']', '%']) || !host.contains('.') {
        return false;
    }
    let last = host.rsplit('.').next().unwrap_or_default();
    if last.starts_with("0x") || last.bytes().all(|byte| byte.is_ascii_digit()) {
        // A number of any other spelling than four plain decimals is a disguise.
        return host.parse::<Ipv4Addr>().is_ok_and(|address| outside(IpAddr::V4(address)));
    }
    let inner = ["localhost", "local", "internal", "intranet", "lan", "home", "corp", "arpa"];
    !inner.contains(&last)
}

fn outside(address: IpAddr) -> bool {
    let IpAddr::V4(address) = address else { return false };
    let [a, b, ..] = address.octets();
    !(address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_multicast()
        || address.is_broadcast()
        || a == 0
        || a >= 240
        || (a == 100 && (64..128).contains(&b))
        || (a == 192 && b == 0)
        || (a == 198 && (b == 18 || b == 19)))
}

fn usual(wanted: &str) -> &'static str {
    match wanted {
        "image" => "image/jpeg",
        "video" => "video/mp4",
        _ => "application/pdf",
    }
}

fn by_extension(name: &str) -> Option<&'static str> {
    let path = name.split(['?', '#']).next().unwrap_or_default();
    let (_, extension) = path.rsplit('/').next().unwrap_or_default().rsplit_once('.')?;
    Some(match extension.to_ascii_lowercase().as_str() {
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "webp" => "image/webp",
        "gif" => "image/gif",
        "heic" => "image/heic",
        "heif" => "image/heif",
        "pdf" => "application/pdf",
        "txt" | "md" | "csv" => "text/plain",
        "html" | "htm" => "text/html",
        "mp3" => "audio/mp3",
        "wav" => "audio/wav",
        "ogg" => "audio/ogg",
        "flac" => "audio/flac",
        "m4a" => "audio/m4a",
        "aac" => "audio/aac",
        "mp4" => "video/mp4",
        "mov" => "video/quicktime",
        "webm" => "video/webm",
        "mpg" | "mpeg" => "video/mpeg",
        "avi" => "video/avi",
        "json" => "application/json",
        _ => return None,
    })
}

fn heard(audio: chat::InputAudio<'_>) -> Result<Part<'_>> {
    let data = characters(&audio.data);
    if is_data(&data) {
        return data_url(data, "audio").map_err(|error| error.within("data"));
    }
    let format = audio.format.map(|format| format.decode().to_ascii_lowercase()).unwrap_or_default();
    let mime: Cow<'_, str> = match format.as_str() {
        "wav" | "" => "audio/wav".into(),
        "mp3" => "audio/mp3".into(),
        "pcm16" | "pcm" => "audio/pcm".into(),
        "opus" | "ogg" => "audio/ogg".into(),
        other if other.len() < 12 && other.bytes().all(|byte| byte.is_ascii_alphanumeric()) => {
            format!("audio/{other}").into()
        }
        _ => return Err(Error::invalid("format", "This is not the name of an audio format.")),
    };
    let data = plain_base64(data).filter(|data| !data.as_str().is_empty());
    let data = data.ok_or_else(|| Error::invalid("data", "The audio is not valid base64."))?;
    Ok(inline(mime, data))
}

fn filed<'a>(file: chat::File<'a>, target: &Target<'_>) -> Result<Part<'a>> {
    if let Some(data) = file.file_data {
        let data = characters(&data);
        if is_data(&data) {
            return data_url(data, "file").map_err(|error| error.within("file_data"));
        }
        let data = plain_base64(data).filter(|data| !data.as_str().is_empty());
        let data = data.ok_or_else(|| Error::invalid("file_data", "The file is not valid base64."))?;
        let name = file.filename.map(|name| name.decode()).unwrap_or_default();
        let mime = by_extension(&name).unwrap_or_else(|| sniff(data.as_str(), "file"));
        return Ok(inline(mime.into(), data));
    }
    let Some(id) = file.file_id.map(|id| id.decode()) else {
        let message = "A file needs 'file_data' or 'file_id'.";
        return Err(Error::invalid("file_data", message).code("missing_required_parameter"));
    };
    if id.starts_with("gs://") || id.starts_with(FILES) || id.starts_with("files/") {
        return remote(id, "file", target).map_err(|error| error.within("file_id"));
    }
    let shown: String = id.chars().take(80).collect();
    Err(Error::invalid("file_id", format!("No file with the id '{shown}' is known here.")))
}
