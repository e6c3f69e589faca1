//! Google's extensions to the client's dialect (`google`, `extra_body.google`), checked before they leave:
//! what Google would refuse by field is refused here by the client's own path.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::request::{Drops, read};
use crate::error::{Error, Result};
use crate::gemini::ask::{GenerateRequest, ImageConfig, SafetySetting, Tool};
use crate::openai::chat::{ExtraBody, Google};
use crate::translate::{Backend, Target};
use crate::wire::{Text, Unknown};

/// The extension object and where it stood.
#[derive(Debug)]
pub(in crate::translate) struct Extension<'a> {
    pub(in crate::translate) google: Google<'a>,
    /// `google` or `extra_body.google`.
    pub(in crate::translate) place: &'static str,
}

/// The extension object from both places; what stands at the top wins.
pub(in crate::translate) fn take<'a>(
    top: Option<Google<'a>>,
    extra: Option<ExtraBody<'a>>,
    drops: &mut Drops,
) -> Result<Option<Extension<'a>>> {
    let mut inner = None;
    if let Some(extra) = extra {
        drops.unknown("extra_body.", &extra.unknown)?;
        inner = extra.google;
    }
    let (place, google) = match (top, inner) {
        (None, None) => return Ok(None),
        (Some(top), None) => ("google", top),
        (None, Some(inner)) => ("extra_body.google", inner),
        (Some(mut top), Some(inner)) => {
            top.thinking_config = top.thinking_config.or(inner.thinking_config);
            top.cached_content = top.cached_content.or(inner.cached_content);
            top.safety_settings = top.safety_settings.or(inner.safety_settings);
            top.tools = top.tools.or(inner.tools);
            top.media_resolution = top.media_resolution.or(inner.media_resolution);
            top.stream_function_call_arguments =
                top.stream_function_call_arguments.or(inner.stream_function_call_arguments);
            top.aspect_ratio = top.aspect_ratio.or(inner.aspect_ratio);
            top.image_config = top.image_config.or(inner.image_config);
            top.unknown.0.extend(inner.unknown.0);
            ("google", top)
        }
    };
    drops.unknown("google.", &google.unknown)?;
    if let Some(config) = &google.thinking_config {
        drops.unknown("google.thinking_config.", &config.unknown)?;
    }
    if let Some(config) = &google.image_config {
        drops.unknown("google.image_config.", &config.unknown)?;
    }
    Ok(Some(Extension { google, place }))
}

#[derive(Deserialize)]
struct Setting<'a> {
    #[serde(borrow)]
    category: Text<'a>,
    #[serde(borrow)]
    threshold: Text<'a>,
    #[serde(borrow, default)]
    method: Option<Text<'a>>,
    #[serde(flatten)]
    unknown: Unknown,
}

/// Safety settings: one for a category, in Google's words.
fn safety(raw: &RawValue, target: &Target<'_>, drops: &mut Drops) -> Result<Vec<SafetySetting>> {
    const THRESHOLDS: [&str; 5] =
        ["BLOCK_LOW_AND_ABOVE", "BLOCK_MEDIUM_AND_ABOVE", "BLOCK_ONLY_HIGH", "BLOCK_NONE", "OFF"];
    let given: Vec<Setting<'_>> = read(raw)?;
    let mut out: Vec<SafetySetting> = Vec::with_capacity(given.len());
    for (at, setting) in given.into_iter().enumerate() {
        let wrong = |name: &str, message: String| Err(Error::invalid(format!("[{at}].{name}"), message));
        if let Some(name) = setting.unknown.0.first() {
            let name: String = name.chars().take(40).collect();
            let message = format!("A safety setting has no '{name}'.");
            return wrong(&name, message).map_err(|error| error.code("unknown_parameter"));
        }
        let category = setting.category.decode().to_ascii_uppercase();
        let kind = category.strip_prefix("HARM_CATEGORY_").unwrap_or_default();
        if kind.is_empty() || !kind.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_') {
            return wrong("category", "A category is named as in 'HARM_CATEGORY_HARASSMENT'.".to_owned());
        }
        if out.iter().any(|known| known.category == category) {
            return wrong("category", format!("'{category}' is set twice."));
        }
        let threshold = setting.threshold.decode().to_ascii_uppercase();
        if !THRESHOLDS.contains(&threshold.as_str()) {
            return wrong("threshold", format!("Supported values are: '{}'.", THRESHOLDS.join("', '")));
        }
        let method = setting.method.map(|method| method.decode().to_ascii_uppercase());
        if method.as_deref().is_some_and(|method| !matches!(method, "SEVERITY" | "PROBABILITY")) {
            return wrong("method", "Supported values are: 'SEVERITY' and 'PROBABILITY'.".to_owned());
        }
        let method = match method {
            Some(_) if target.backend == Backend::GeminiApi => {
                drops.note("safety_settings.method", "only Vertex AI has a choice of methods")?;
                None
            }
            method => method,
        };
        out.push(SafetySetting { category, threshold, method });
    }
    Ok(out)
}

/// Where one of Google's tools exists, and whether it may stand beside functions on every model.
struct Known {
    name: &'static str,
    only: Option<Backend>,
    beside_functions: bool,
}

const fn known(name: &'static str, only: Option<Backend>, beside_functions: bool) -> Known {
    Known { name, only, beside_functions }
}

const KNOWN: [Known; 12] = [
    known("codeExecution", None, true),
    known("computerUse", None, true),
    known("googleMaps", None, true),
    known("googleSearch", None, false),
    known("googleSearchRetrieval", None, false),
    known("urlContext", None, false),
    known("fileSearch", Some(Backend::GeminiApi), false),
    known("mcpServers", Some(Backend::GeminiApi), false),
    known("enterpriseWebSearch", Some(Backend::Vertex), false),
    known("exaAiSearch", Some(Backend::Vertex), false),
    known("parallelAiSearch", Some(Backend::Vertex), false),
    known("retrieval", Some(Backend::Vertex), false),
];

/// Google's own tools, as the client named them.
#[derive(Debug, Default)]
pub(in crate::translate) struct Own<'a> {
    pub(in crate::translate) tools: Vec<Tool<'a>>,
    /// The name, in the client's request, of one that not every model takes beside functions.
    pub(in crate::translate) exclusive: Option<String>,
    /// Google Search is among them.
    pub(in crate::translate) search: bool,
}

/// Reads `tools` of the extension object, one of Google's tools in each entry that leaves.
pub(in crate::translate) fn tools<'a>(
    extension: &mut Option<Extension<'a>>,
    target: &Target<'_>,
) -> Result<Own<'a>> {
    let mut own = Own::default();
    let Some(Extension { google, place }) = extension else { return Ok(own) };
    for (at, entry) in google.tools.take().into_iter().flatten().enumerate() {
        for (name, value) in entry {
            let path = format!("{place}.tools[{at}].{}", name.chars().take(40).collect::<String>());
            let camel = camel(&name);
            let Some(known) = KNOWN.iter().find(|known| known.name == camel) else {
                let message = if camel == "functionDeclarations" {
                    "Functions are declared in the request's own 'tools'."
                } else {
                    "Google has no tool of this name."
                };
                return Err(Error::invalid(path, message));
            };
            if known.only.is_some_and(|only| only != target.backend) {
                let message = "This tool does not exist on the side of Google that serves this model.";
                return Err(Error::unsupported(path, message));
            }
            let wanted = if camel == "mcpServers" { '[' } else { '{' };
            if !value.get().starts_with(wanted) {
                return Err(
                    Error::invalid(path, "This tool's settings have another form.").code("invalid_type")
                );
            }
            own.search |= camel == "googleSearch";
            if !known.beside_functions {
                own.exclusive.get_or_insert(path);
            }
            let one = BTreeMap::from([(known.name, value)]);
            own.tools.push(Tool { own: one, ..Tool::default() });
        }
    }
    Ok(own)
}

fn camel(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    let mut up = false;
    for c in name.chars() {
        match c {
            '_' => up = true,
            c if up => {
                out.extend(c.to_uppercase());
                up = false;
            }
            c => out.push(c),
        }
    }
    out
}

/// The name of a prepared context.
fn cached<'a>(extension: &mut Option<Extension<'a>>) -> Result<Option<Text<'a>>> {
    let Some(Extension { google, place }) = extension else { return Ok(None) };
    let Some(name) = google.cached_content.take() else { return Ok(None) };
    let text = name.decode();
    let fits = text.split('/').rev().nth(1) == Some("cachedContents")
        && text.len() < 256
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/_-.:".contains(&byte));
    if !fits {
        let message = "A prepared context is named as in 'cachedContents/abc123'.";
        return Err(Error::invalid(format!("{place}.cached_content"), message));
    }
    Ok(Some(name))
}

/// How closely to look at all media of a request.
pub(in crate::translate) fn media_resolution(
    extension: Option<&Extension<'_>>,
    target: &Target<'_>,
    drops: &mut Drops,
) -> Result<Option<&'static str>> {
    let Some(Extension { google, place }) = extension else { return Ok(None) };
    let Some(word) = &google.media_resolution else { return Ok(None) };
    if !target.traits.media_resolution {
        drops.note(&format!("{place}.media_resolution"), "this model looks at media in one way")?;
        return Ok(None);
    }
    let word = word.decode().to_ascii_uppercase();
    match word.strip_prefix("MEDIA_RESOLUTION_").unwrap_or(&word) {
        "LOW" => Ok(Some("MEDIA_RESOLUTION_LOW")),
        "MEDIUM" => Ok(Some("MEDIA_RESOLUTION_MEDIUM")),
        "HIGH" => Ok(Some("MEDIA_RESOLUTION_HIGH")),
        "UNSPECIFIED" => Ok(None),
        _ => {
            let message = "Supported values are: 'MEDIA_RESOLUTION_LOW', '…_MEDIUM' and '…_HIGH'.";
            Err(Error::invalid(format!("{place}.media_resolution"), message))
        }
    }
}

/// The shape and size of pictures, for models that make them.
pub(in crate::translate) fn image_config(
    extension: Option<&Extension<'_>>,
    target: &Target<'_>,
    drops: &mut Drops,
) -> Result<Option<ImageConfig>> {
    let Some(Extension { google, place }) = extension else { return Ok(None) };
    let inner = google.image_config.as_ref();
    let ratio = google.aspect_ratio.as_ref().or_else(|| inner?.aspect_ratio.as_ref());
    let size = inner.and_then(|inner| inner.image_size.as_ref());
    if ratio.is_none() && size.is_none() {
        return Ok(None);
    }
    if !target.traits.output.iter().any(|output| output == "image") {
        let name = if google.aspect_ratio.is_some() { "google.aspect_ratio" } else { "google.image_config" };
        drops.note(name, "this model makes no pictures")?;
        return Ok(None);
    }
    let ratio = ratio.map(|ratio| ratio.decode().into_owned());
    let plain = |ratio: &String| {
        ratio.split_once(':').is_some_and(|(wide, high)| {
            [wide, high].iter().all(|side| (1..=2).contains(&side.len()) && side.parse::<u8>().is_ok())
        })
    };
    if ratio.as_ref().is_some_and(|ratio| !plain(ratio)) {
        return Err(Error::invalid(
            format!("{place}.aspect_ratio"),
            "An aspect ratio is written as in '16:9'.",
        ));
    }
    let size = size.map(|size| size.decode().to_ascii_uppercase());
    if size.as_deref().is_some_and(|size| !matches!(size, "512" | "0.5K" | "1K" | "2K" | "4K")) {
        let message = "Supported values are: '512', '1K', '2K' and '4K'.";
        return Err(Error::invalid(format!("{place}.image_config.image_size"), message));
    }
    Ok(Some(ImageConfig { aspect_ratio: ratio, image_size: size }))
}

/// Sets what only Google's own settings can say: what is blocked, and a prepared context. `settings` are those
/// of the request itself, `system` its name for the system's words.
pub(in crate::translate) fn apply<'a>(
    upstream: &mut GenerateRequest<'a>,
    extension: &mut Option<Extension<'a>>,
    settings: Option<&RawValue>,
    system: &str,
    target: &Target<'_>,
    drops: &mut Drops,
) -> Result<()> {
    let settings = match &extension {
        Some(found) if found.google.safety_settings.is_some() => {
            found.google.safety_settings.map(|raw| (format!("{}.safety_settings", found.place), raw))
        }
        _ => settings.map(|raw| ("safety_settings".to_owned(), raw)),
    };
    if let Some((place, raw)) = settings {
        let settings = safety(raw, target, drops).map_err(|error| error.within(&place))?;
        upstream.safety_settings = (!settings.is_empty()).then_some(settings);
    }
    if let Some(cached) = cached(extension)? {
        // The prepared context holds these itself; beside it Google refuses them.
        if upstream.system_instruction.take().is_some() {
            drops.note(system, "the cached content has its own system instruction")?;
        }
        if !std::mem::take(&mut upstream.tools).is_empty() {
            drops.note("tools", "the cached content has its own tools")?;
        }
        upstream.tool_config = None;
        upstream.cached_content = Some(cached);
    }
    Ok(())
}
