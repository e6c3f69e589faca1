//! Which path is one of Google's own.
//!
//! `OpenAI` and Google share a few addresses (`/v1/models`, `/v1/files`, `/v1/batches`). What only Google has is
//! Google's; a shared one is Google's when the request looks like a Google client's: it brings its key in
//! `x-goog-api-key` or `?key=`, or says `x-goog-api-client`.

use std::borrow::Cow;

use http::{HeaderMap, Method};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use super::render_google::Shape;
use crate::error::{Error, Kind, Origin, Result};

/// What may stand in a segment of a path as it is.
const SEGMENT: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b'@').remove(b':');

/// One of Google's own endpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Native {
    /// `v1`, `v1beta`, `v1alpha` or `v1beta1`, as the caller wrote it.
    pub version: &'static str,
    /// Which surface's paths these are.
    pub surface: Surface,
    /// What is asked for.
    pub thing: Thing,
    /// The metric and log label.
    pub name: &'static str,
}

/// The form of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Surface {
    /// `/v1beta/models/m:generateContent`
    Gemini,
    /// `/v1/projects/p/locations/l/…`; express paths and lists of publishers' models name no place.
    Vertex(Option<Place>),
}

/// A project and a location, ready for a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The project's id or number.
    pub project: String,
    /// The location.
    pub location: String,
}

/// What a native request is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Thing {
    /// A method of a model.
    Call {
        /// What stands before the model's name: `models`, `tunedModels`, `publishers/google/models`, `endpoints`.
        family: Cow<'static, str>,
        /// The model's name, decoded.
        model: String,
        /// `generateContent`, …
        method: &'static str,
    },
    /// The description of a model.
    Model {
        /// As in [`Thing::Call`].
        family: Cow<'static, str>,
        /// The model's name, decoded.
        model: String,
    },
    /// The list of models; the path below version and place.
    Models(String),
    /// A thing that Google keeps, or a collection of them; the path below version and place, encoded.
    Kept {
        /// The first segment: `cachedContents`, `files` …
        collection: &'static str,
        /// All of it.
        path: String,
    },
    /// The start of an upload, or one in a single piece; the path from the root, without the first slash.
    Upload(String),
    /// The continuation of an upload, by the token that its start was answered with.
    Session(String),
}

/// Methods of a model, and the labels they get.
const METHODS: &[(&str, &str)] = &[
    ("generateContent", "native_generate"),
    ("streamGenerateContent", "native_stream"),
    ("countTokens", "native_count_tokens"),
    ("computeTokens", "native_compute_tokens"),
    ("embedContent", "native_embed"),
    ("batchEmbedContents", "native_embed"),
    ("asyncBatchEmbedContent", "native_batch"),
    ("batchGenerateContent", "native_batch"),
    ("predict", "native_predict"),
    ("predictLongRunning", "native_predict"),
    ("fetchPredictOperation", "native_operations"),
];

/// What Google keeps: the first segment, the label, and whether `OpenAI` has an address of the same name below
/// `/v1`.
const COLLECTIONS: &[(&str, &str, bool)] = &[
    ("cachedContents", "native_caches", false),
    ("files", "native_files", true),
    ("files:register", "native_files", false),
    ("generatedFiles", "native_files", false),
    ("batches", "native_batches", true),
    ("batchPredictionJobs", "native_batches", false),
    ("operations", "native_operations", false),
    ("interactions", "interactions", false),
    ("webhooks", "webhooks", false),
    ("fileSearchStores", "native_stores", false),
    ("agents", "native_agents", true),
    ("triggers", "native_agents", false),
    ("environments", "native_agents", false),
    ("credentials", "native_agents", false),
    ("decisions", "native_agents", true),
    ("voices", "native_voices", false),
];

const VERSIONS: [&str; 4] = ["v1beta", "v1", "v1beta1", "v1alpha"];

/// Finds the native endpoint of a request; nothing where the path is not Google's.
pub fn find(method: &Method, path: &str, query: Option<&str>, headers: &HeaderMap) -> Option<Result<Native>> {
    let below = path.strip_prefix('/')?;
    if let Some(rest) = below.strip_prefix("upload/") {
        return Some(upload(method, rest));
    }
    let (first, rest) = below.split_once('/')?;
    let version = VERSIONS.into_iter().find(|version| *version == first)?;
    let head = rest.split(['/', ':']).next().unwrap_or_default();
    // Google's own OpenAI layers are among our roofs.
    if head == "openai" || super::routes::vertex_layer(path).is_some() {
        return None;
    }
    if version == "v1" {
        // OpenAI has no methods behind a colon, but names with colons in them.
        let verb = rest.rsplit_once(':').map_or("", |(_, verb)| verb);
        let shared = match head {
            "models" => !METHODS.iter().any(|(method, _)| *method == verb),
            _ => verb.is_empty() && COLLECTIONS.iter().any(|(name, _, shared)| *shared && *name == head),
        };
        let known = shared
            || ["models", "tunedModels", "projects", "publishers"].contains(&head)
            || COLLECTIONS.iter().any(|(name, ..)| *name == head);
        if !known || shared && !googlish(query, headers) {
            return None;
        }
    }
    let found = inside(method, version, rest.strip_suffix('/').unwrap_or(rest));
    Some(found.unwrap_or_else(|| Err(lost(method, path))))
}

/// How errors look at this path.
pub fn shape(path: &str) -> Shape {
    let words = ["interactions", "webhooks"];
    let word = |segment: &str| words.contains(&segment.split(':').next().unwrap_or_default());
    if path.split('/').any(word) { Shape::Word } else { Shape::Rpc }
}

/// Whether the request looks like a Google client's.
fn googlish(query: Option<&str>, headers: &HeaderMap) -> bool {
    headers.contains_key("x-goog-api-key")
        || headers.contains_key("x-goog-api-client")
        || query.is_some_and(|query| query.split('&').any(|pair| pair.starts_with("key=")))
}

fn upload(method: &Method, rest: &str) -> Result<Native> {
    let whole = || format!("/upload/{rest}");
    if ![Method::POST, Method::PUT].contains(method) {
        return Err(wrong_method(method));
    }
    if let Some(token) = rest.strip_prefix("session/") {
        let thing = Thing::Session(token.to_owned());
        return Ok(Native { version: "v1beta", surface: Surface::Gemini, thing, name: "native_upload" });
    }
    let (version, path) = rest.split_once('/').ok_or_else(|| lost(method, &whole()))?;
    let version =
        VERSIONS.into_iter().find(|known| *known == version).ok_or_else(|| lost(method, &whole()))?;
    let path = clean(path).ok_or_else(|| lost(method, &whole()))?;
    // A store takes uploads at an address of its own.
    let store = path.starts_with("fileSearchStores/") && path.ends_with(":uploadToFileSearchStore");
    if path != "files" && !store {
        return Err(lost(method, &whole()));
    }
    let thing = Thing::Upload(format!("upload/{version}/{path}"));
    Ok(Native { version, surface: Surface::Gemini, thing, name: "native_upload" })
}

/// What stands below the version; nothing where nobody knows it.
fn inside(method: &Method, version: &'static str, rest: &str) -> Option<Result<Native>> {
    let (surface, rest) = if let Some(placed) = rest.strip_prefix("projects/") {
        let mut segments = placed.splitn(4, '/');
        let (project, locations) = (clean(segments.next()?)?, segments.next()?);
        let (location, rest) = (clean(segments.next()?)?, segments.next()?);
        if locations != "locations" {
            return None;
        }
        (Surface::Vertex(Some(Place { project, location })), rest)
    } else if rest.starts_with("publishers/") || version == "v1beta1" {
        (Surface::Vertex(None), rest)
    } else {
        (Surface::Gemini, rest)
    };
    let (thing, name) = match common(rest) {
        Some((family, model)) => model_or_call(family.into(), model)?,
        None => less_common(rest)?,
    };
    let fits = match &thing {
        Thing::Call { .. } => method == Method::POST,
        Thing::Model { .. } | Thing::Models(_) => method == Method::GET || method == Method::HEAD,
        Thing::Kept { .. } | Thing::Upload(_) | Thing::Session(_) => {
            [Method::GET, Method::HEAD, Method::POST, Method::PATCH, Method::DELETE].contains(method)
        }
    };
    Some(if fits { Ok(Native { version, surface, thing, name }) } else { Err(wrong_method(method)) })
}

/// The family and the last segment of what nearly all requests ask for.
fn common(rest: &str) -> Option<(&'static str, &str)> {
    let mut families = ["models", "publishers/google/models"].into_iter();
    let (family, model) =
        families.find_map(|family| Some((family, rest.strip_prefix(family)?.strip_prefix('/')?)))?;
    (!model.as_bytes().contains(&b'/')).then_some((family, model))
}

/// Everything else.
fn less_common(rest: &str) -> Option<(Thing, &'static str)> {
    let segments: Vec<&str> = rest.split('/').collect();
    Some(match *segments.as_slice() {
        ["models"] => (Thing::Models("models".to_owned()), "native_models"),
        ["publishers", publisher, "models"] => {
            (Thing::Models(format!("publishers/{}/models", clean(publisher)?)), "native_models")
        }
        ["tunedModels", model] => model_or_call("tunedModels".into(), model)?,
        ["endpoints", model] => model_or_call("endpoints".into(), model)?,
        ["publishers", publisher, "models", model] => {
            model_or_call(format!("publishers/{}/models", clean(publisher)?).into(), model)?
        }
        // A long prediction is asked after below its model.
        ["models", _, "operations", _] | ["publishers", _, "models", _, "operations", _] => {
            let thing = Thing::Kept { collection: "operations", path: clean(rest)? };
            (thing, "native_operations")
        }
        ["tunedModels"] => (Thing::Models("tunedModels".to_owned()), "native_models"),
        [first, ..] => {
            let word = first.split(':').next().unwrap_or_default();
            let (collection, name, _) =
                COLLECTIONS.iter().find(|(known, ..)| *known == first || *known == word)?;
            (Thing::Kept { collection, path: clean(rest)? }, *name)
        }
        [] => return None,
    })
}

fn model_or_call(family: Cow<'static, str>, segment: &str) -> Option<(Thing, &'static str)> {
    // Short texts: a search that prepares itself would cost more than looking.
    let colon = segment.bytes().rposition(|byte| byte == b':');
    let Some((model, method)) = colon.and_then(|at| Some((segment.get(..at)?, segment.get(at + 1..)?)))
    else {
        return Some((Thing::Model { family, model: decode(segment)? }, "native_models"));
    };
    let (method, name) = METHODS.iter().find(|(known, _)| *known == method)?;
    Some((Thing::Call { family, model: decode(model)?, method }, name))
}

/// A segment as text; nothing where it could become two, or climb.
fn decode(segment: &str) -> Option<String> {
    let plain =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~' | b'@' | b':');
    let is_plain = segment.bytes().all(plain);
    // Most names have nothing to decode.
    let text = if is_plain { segment.into() } else { percent_decode_str(segment).decode_utf8().ok()? };
    let bad = |letter: char| letter.is_control() || matches!(letter, '/' | '\\' | '?' | '#' | '%' | '&');
    let climbs = text == "." || text.as_bytes().windows(2).any(|two| two == b"..");
    let fine = !text.is_empty() && text.len() <= 512 && !climbs && (is_plain || !text.contains(bad));
    fine.then(|| text.into_owned())
}

/// A path whose segments were all decoded, looked at and encoded again: what is checked here is what Google reads.
fn clean(path: &str) -> Option<String> {
    let mut clean = String::with_capacity(path.len());
    for segment in path.split('/') {
        if !clean.is_empty() {
            clean.push('/');
        }
        clean.extend(utf8_percent_encode(&decode(segment)?, SEGMENT));
    }
    Some(clean)
}

/// Encodes one decoded segment.
pub fn segment(text: &str) -> Cow<'_, str> {
    utf8_percent_encode(text, SEGMENT).into()
}

fn wrong_method(method: &Method) -> Error {
    let shown = crate::telemetry::clip(method.as_str(), 20);
    Error::new(Kind::MethodNotAllowed, Origin::Client, format!("{shown} is not allowed on this path."))
}

fn lost(method: &Method, path: &str) -> Error {
    let shown = (crate::telemetry::clip(method.as_str(), 20), crate::telemetry::clip(path, 200));
    let message = format!("This gateway serves nothing at {} {}.", shown.0, shown.1);
    Error::new(Kind::NotFound, Origin::Client, message).code("unknown_url")
}

/// Every endpoint under every version and place, with every method that it has.
#[cfg(test)]
pub(super) fn all() -> Vec<(Method, String)> {
    let kept = [Method::GET, Method::HEAD, Method::POST, Method::PATCH, Method::DELETE];
    let families = ["models", "tunedModels", "publishers/google/models", "endpoints"];
    let places =
        VERSIONS.map(|version| [format!("/{version}"), format!("/{version}/projects/p/locations/l")]);
    let mut all = Vec::new();
    for place in places.as_flattened() {
        for family in families.into_iter().filter(|family| place != "/v1" || *family != "endpoints") {
            all.extend(
                METHODS.iter().map(|(method, _)| (Method::POST, format!("{place}/{family}/m:{method}"))),
            );
            all.push((Method::GET, format!("{place}/{family}/m")));
        }
        for list in ["models", "tunedModels", "publishers/google/models"] {
            all.push((Method::GET, format!("{place}/{list}")));
        }
        for operation in ["models/m/operations/o", "publishers/google/models/m/operations/o"] {
            all.push((Method::GET, format!("{place}/{operation}")));
        }
        for (collection, ..) in COLLECTIONS {
            for below in ["", "/x", "/x:verb", "/x/verb"] {
                all.extend(
                    kept.iter().map(|method| (method.clone(), format!("{place}/{collection}{below}"))),
                );
            }
        }
    }
    for version in VERSIONS {
        for below in ["files", "fileSearchStores/s:uploadToFileSearchStore"] {
            for method in [Method::POST, Method::PUT] {
                all.push((method, format!("/upload/{version}/{below}")));
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(method: &Method, path: &str) -> Native {
        find(method, path, None, &HeaderMap::new()).unwrap().unwrap()
    }

    fn call(family: &'static str, model: &str, method: &'static str) -> Thing {
        Thing::Call { family: family.into(), model: model.into(), method }
    }

    #[test]
    fn both_surfaces_are_known() {
        let native = found(&Method::POST, "/v1beta/models/gemini-3.8-flash:streamGenerateContent");
        assert_eq!(native.thing, call("models", "gemini-3.8-flash", "streamGenerateContent"));
        assert_eq!(
            (native.version, native.surface, native.name),
            ("v1beta", Surface::Gemini, "native_stream")
        );
        let path =
            "/v1/projects/p-1/locations/us-central1/publishers/google/models/gemini-pro:generateContent";
        let native = found(&Method::POST, path);
        assert_eq!(native.thing, call("publishers/google/models", "gemini-pro", "generateContent"));
        let place = Place { project: "p-1".into(), location: "us-central1".into() };
        assert_eq!(native.surface, Surface::Vertex(Some(place)));
        let native = found(&Method::POST, "/v1/publishers/google/models/g:predict");
        assert_eq!(
            (native.surface, native.thing),
            (Surface::Vertex(None), call("publishers/google/models", "g", "predict"))
        );
        let native = found(&Method::GET, "/v1/projects/p/locations/l/cachedContents/1");
        assert_eq!(
            native.thing,
            Thing::Kept { collection: "cachedContents", path: "cachedContents/1".into() }
        );
        let native = found(&Method::POST, "/v1beta/batches/b:cancel");
        assert_eq!(native.thing, Thing::Kept { collection: "batches", path: "batches/b:cancel".into() });
        let native = found(&Method::POST, "/upload/v1beta/files");
        assert_eq!(native.thing, Thing::Upload("upload/v1beta/files".into()));
        assert_eq!(found(&Method::POST, "/v1beta/files:register").name, "native_files");
    }

    #[test]
    fn shared_addresses_belong_to_google_when_a_google_client_asks() {
        let open = HeaderMap::new();
        let mut google = HeaderMap::new();
        google.insert("x-goog-api-key", http::HeaderValue::from_static("k"));
        for path in ["/v1/models", "/v1/models/gemini-x", "/v1/files", "/v1/batches/b"] {
            assert!(find(&Method::GET, path, None, &open).is_none(), "{path}");
            assert!(find(&Method::GET, path, None, &google).unwrap().is_ok(), "{path}");
            assert!(find(&Method::GET, path, Some("pageSize=2&key=k"), &open).unwrap().is_ok(), "{path}");
        }
        assert!(find(&Method::GET, "/v1beta/models", None, &open).unwrap().is_ok());
        assert!(find(&Method::GET, "/v1/models/ft:gpt-x:acme::1", None, &open).is_none());
        for path in ["/v1/files:register", "/v1/batches/b:cancel", "/v1/models/m:countTokens"] {
            assert!(find(&Method::POST, path, None, &open).unwrap().is_ok(), "{path}");
        }
        assert!(find(&Method::POST, "/v1/chat/completions", None, &google).is_none());
        assert!(find(&Method::POST, "/v1beta/openai/chat/completions", None, &google).is_none());
        let layer = "/v1/projects/p/locations/l/endpoints/openapi/chat/completions";
        assert!(find(&Method::POST, layer, None, &google).is_none());
    }

    #[test]
    fn nothing_climbs_and_nothing_is_read_twice() {
        let open = HeaderMap::new();
        for path in [
            "/v1beta/models/..:generateContent",
            "/v1beta/models/a%2Fb:generateContent",
            "/v1beta/models/a%252Fb:generateContent",
            "/v1beta/models/a%3Fb:generateContent",
            "/v1beta/files/%2e%2e/models",
            "/v1beta/files//x",
            "/v1beta/models/x:deleteEverything",
            "/v1/projects/p/regions/l/models/m:predict",
            "/v1/projects/..%2f/locations/l/cachedContents",
            "/v1beta/secrets",
            "/upload/v1beta/models",
            "/upload/v2/files",
        ] {
            let found = find(&Method::POST, path, None, &open);
            assert_eq!(found.unwrap().unwrap_err().kind(), Kind::NotFound, "{path}");
        }
        let native = found(&Method::POST, "/v1beta/models/gemini%2Dx:generateContent");
        assert_eq!(native.thing, call("models", "gemini-x", "generateContent"));
        let error = find(&Method::DELETE, "/v1beta/models/x", None, &open).unwrap().unwrap_err();
        assert_eq!(error.kind(), Kind::MethodNotAllowed);
    }
}
