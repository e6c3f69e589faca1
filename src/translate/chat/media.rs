//! Media: data URLs, addresses, uploaded files.
//!
//! Base64 is cut out of the client's token and passed on; it is looked at once, to say what is wrong with it
//! before Google does, and rewritten only where it is not plain.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::error::{Error, Result};
use crate::gemini::ask::{Blob, FileData, GenerateRequest, Part};
use crate::openai::chat;
use crate::translate::{Backend, Media, Target, Wanted};
use crate::wire::{Base64, Text};

const FILES: &str = "https://generativelanguage.googleapis.com/";

/// What a part says it holds.
pub(in crate::translate) struct Source<'a> {
    /// `image`, `video`, `audio` or `file`.
    wanted: &'static str,
    /// Its media type, where the client gives it beside the address.
    mime: Option<Cow<'a, str>>,
}

impl<'a> Source<'a> {
    pub(in crate::translate) fn of(wanted: &'static str, mime: Option<Text<'a>>) -> Self {
        let mime = mime.map(|mime| mime.decode()).filter(|mime| {
            mime.len() < 80
                && mime.contains('/')
                && mime.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/.+-".contains(&byte))
        });
        Self { wanted, mime }
    }
}

/// Puts fetched media in the place of their addresses; tells which are still missing.
pub fn fill<'a>(request: &mut GenerateRequest<'a>, fetched: &'a BTreeMap<String, Media>) -> Vec<Wanted> {
    let mut missing: Vec<Wanted> = Vec::new();
    let mut one = |part: &mut Part<'a>| {
        let Some(FileData { fetch: Some(place), file_uri, display_name, .. }) = &mut part.file_data else {
            return;
        };
        let found = fetched.get(file_uri.as_ref());
        let Some((media, data)) = found.and_then(|media| Some((media, Base64::new(media.data.as_str())?)))
        else {
            if !missing.iter().any(|known| known.url == *file_uri) {
                missing.push(Wanted { url: file_uri.to_string(), place: std::mem::take(place) });
            }
            return;
        };
        let display_name = display_name.take();
        part.inline_data = Some(Blob { mime_type: media.mime.into(), data, display_name });
        part.file_data = None;
    };
    for part in request.contents.iter_mut().flat_map(|content| &mut content.parts) {
        one(part);
        if let Some(response) = &mut part.function_response {
            response.parts.iter_mut().for_each(&mut one);
        }
    }
    missing
}

/// Where a part waits for what must be fetched first.
pub(in crate::translate) fn fetched_at<'p>(part: &'p mut Part<'_>) -> Option<&'p mut String> {
    part.file_data.as_mut()?.fetch.as_mut()
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
pub(in crate::translate) fn located<'a>(
    url: &Text<'a>,
    source: Source<'a>,
    target: &Target<'_>,
) -> Result<Part<'a>> {
    let url = characters(url);
    if is_data(&url) {
        return data_url(url, source.wanted);
    }
    remote(url, source, target)
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
        if written(&data) {
            return Err(bad_data(wanted, "it holds text, not an image"));
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

/// Whether the first byte is `<`: markup under the name of an image.
fn written(data: &Base64<'_>) -> bool {
    data.as_str().as_bytes().first() == Some(&b'P')
        && data.as_str().as_bytes().get(1).is_some_and(|second| (b'A'..=b'P').contains(second))
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
pub(in crate::translate) fn plain_base64(payload: Cow<'_, str>) -> Option<Base64<'_>> {
    let payload = match Base64::standard(payload) {
        Ok(plain) => return Some(plain),
        Err(other) => other,
    };
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
    Base64::standard(Cow::Owned(clean)).ok()
}

fn file_part<'a>(file_uri: Cow<'a, str>, mime_type: Option<Cow<'a, str>>) -> Part<'a> {
    let file = FileData { mime_type, file_uri, display_name: None, fetch: None };
    Part { file_data: Some(file), ..Part::default() }
}

fn remote<'a>(url: Cow<'a, str>, source: Source<'a>, target: &Target<'_>) -> Result<Part<'a>> {
    let refuse = |what: &str| Err(Error::invalid("", what.to_owned()).code("invalid_image_url"));
    let Source { wanted, mime } = source;
    let guessed = |mime: Option<Cow<'a, str>>, url: &str| {
        Some(mime.unwrap_or_else(|| by_extension(url).unwrap_or(usual(wanted)).into()))
    };
    if url.len() > 8192 || url.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return refuse("This is not a URL.");
    }
    if url.starts_with("gs://") {
        if !target.traits.remote_uris && target.backend == Backend::GeminiApi {
            return refuse("This model does not read files by their address.");
        }
        let mime = guessed(mime, &url);
        return Ok(file_part(url, mime));
    }
    if url.starts_with(FILES) {
        if target.backend == Backend::Vertex {
            return refuse("A file of the Gemini API cannot be read by Vertex AI.");
        }
        // Google knows the type of what was uploaded to it.
        return Ok(file_part(url, mime));
    }
    if let Some(name) = url.strip_prefix("files/") {
        return Ok(file_part(uploaded(name, target)?, mime));
    }
    let https = url.get(..8).is_some_and(|scheme| scheme.eq_ignore_ascii_case("https://"));
    if !https {
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
    let mime = guessed(mime, &url);
    let mut made = file_part(url, mime);
    if let Some(file) = &mut made.file_data
        && !(target.traits.remote_uris || target.backend == Backend::Vertex)
    {
        file.fetch = Some(format!("{wanted}_url"));
    }
    Ok(made)
}

/// The address of a file that was uploaded to the Gemini API.
fn uploaded(name: &str, target: &Target<'_>) -> Result<Cow<'static, str>> {
    let plain = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    if !plain || target.backend == Backend::Vertex {
        return Err(Error::invalid("", "This is not the name of a file that the model can read."));
    }
    Ok(format!("{FILES}v1beta/files/{name}").into())
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

pub(in crate::translate) fn heard(audio: chat::InputAudio<'_>) -> Result<Part<'_>> {
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

pub(in crate::translate) fn filed<'a>(file: chat::File<'a>, target: &Target<'_>) -> Result<Part<'a>> {
    let source = Source::of("file", file.format);
    if let Some(data) = file.file_data {
        let data = characters(&data);
        if is_data(&data) {
            return data_url(data, "file").map_err(|error| error.within("file_data"));
        }
        let data = plain_base64(data).filter(|data| !data.as_str().is_empty());
        let data = data.ok_or_else(|| Error::invalid("file_data", "The file is not valid base64."))?;
        let name = file.filename.map(|name| name.decode()).unwrap_or_default();
        let mime = source
            .mime
            .unwrap_or_else(|| by_extension(&name).unwrap_or_else(|| sniff(data.as_str(), "file")).into());
        return Ok(inline(mime, data));
    }
    let (place, id) = match (file.file_id, file.file_url) {
        (Some(id), _) => ("file_id", id.decode()),
        (None, Some(url)) => ("file_url", url.decode()),
        (None, None) => {
            let message = "A file needs 'file_data' or 'file_id'.";
            return Err(Error::invalid("file_data", message).code("missing_required_parameter"));
        }
    };
    let addressed = ["gs://", FILES, "files/", "https://", "data:"].iter().any(|start| id.starts_with(start));
    if addressed || place == "file_url" {
        let made = if is_data(&id) { data_url(id, "file") } else { remote(id, source, target) };
        return made.map_err(|error| error.within(place)).map(|mut part| {
            if let Some(waits) = fetched_at(&mut part) {
                place.clone_into(waits);
            }
            part
        });
    }
    let shown: String = id.chars().take(80).collect();
    Err(Error::invalid("file_id", format!("No file with the id '{shown}' is known here.")))
}
