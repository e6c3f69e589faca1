//! Which path leads where.
//!
//! Every route is served under several roofs: `/v1`, none at all (people forget it in the base URL), Google's
//! own `/v1beta/openai`, and what the Azure client builds.

use http::Method;
use percent_encoding::percent_decode_str;

use super::native_routes::{Native, Thing};
use crate::error::{Error, Kind, Origin};

/// What a path stands for; what was named in it, decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// A greeting.
    Root,
    /// Chat Completions.
    Chat,
    /// A stored completion, which we never keep.
    StoredChat,
    /// The list of models.
    Models,
    /// One model.
    Model(String),
    /// A new response.
    Responses,
    /// Counts the tokens of what would be a response's input.
    InputTokens,
    /// Shortens a conversation.
    Compact,
    /// A stored response.
    Response(String),
    /// Ends a response in the background.
    CancelResponse(String),
    /// What a stored response was asked.
    ResponseItems(String),
    /// A new conversation.
    Conversations,
    /// A conversation.
    Conversation(String),
    /// A conversation's items.
    ConversationItems(String),
    /// One of a conversation's items.
    ConversationItem(String, String),
    /// Embeddings.
    Embeddings,
    /// Legacy completions.
    Completions,
    /// One of Google's own endpoints.
    Native(Native),
}

impl Endpoint {
    /// The token of the upload that a request continues, if it continues one.
    pub fn upload(&self) -> Option<&str> {
        let Self::Native(Native { thing: Thing::Session(token), .. }) = self else { return None };
        Some(token)
    }
}

/// A path that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// What it stands for.
    pub endpoint: Endpoint,
    /// The metric and log label.
    pub name: &'static str,
    /// The Azure deployment in the path, which stands for the model.
    pub deployment: Option<String>,
}

impl From<Native> for Found {
    fn from(native: Native) -> Self {
        Self { name: native.name, endpoint: Endpoint::Native(native), deployment: None }
    }
}

/// Makes the endpoint from what stood in place of `{}` and `*`.
type Make = fn(&mut Vec<String>) -> Endpoint;

struct Route {
    /// Below the roof. `{}` takes one segment; a trailing `*` takes the rest of the path, slashes included.
    path: &'static str,
    /// It is a path, and no pattern.
    plain: bool,
    methods: &'static [Method],
    name: &'static str,
    make: Make,
}

const fn route(path: &'static str, methods: &'static [Method], name: &'static str, make: Make) -> Route {
    let (mut plain, mut rest) = (true, path.as_bytes());
    while let [byte, more @ ..] = rest {
        plain = plain && !matches!(byte, b'{' | b'*');
        rest = more;
    }
    Route { path, plain, methods, name, make }
}

/// The last name that stood in the path.
fn last(found: &mut Vec<String>) -> String {
    found.pop().unwrap_or_default()
}

const READ: &[Method] = &[Method::GET, Method::HEAD];
const POST: &[Method] = &[Method::POST];
const ONE: &[Method] = &[Method::GET, Method::POST, Method::DELETE];

/// The first that fits counts.
const ROUTES: &[Route] = &[
    route("", READ, "root", |_| Endpoint::Root),
    route("/chat/completions", POST, "chat", |_| Endpoint::Chat),
    route("/chat/completions/*", ONE, "stored_chat", |_| Endpoint::StoredChat),
    route("/models", READ, "models", |_| Endpoint::Models),
    route("/models/*", READ, "model", |found| Endpoint::Model(last(found))),
    route("/responses", &[Method::GET, Method::POST], "responses", |_| Endpoint::Responses),
    route("/responses/input_tokens", POST, "input_tokens", |_| Endpoint::InputTokens),
    route("/responses/compact", POST, "compact", |_| Endpoint::Compact),
    route("/responses/{}", &[Method::GET, Method::DELETE], "response", |found| {
        Endpoint::Response(last(found))
    }),
    route("/responses/{}/cancel", POST, "cancel_response", |found| Endpoint::CancelResponse(last(found))),
    route("/responses/{}/input_items", READ, "response_items", |found| Endpoint::ResponseItems(last(found))),
    route("/conversations", POST, "conversations", |_| Endpoint::Conversations),
    route("/conversations/{}", ONE, "conversation", |found| Endpoint::Conversation(last(found))),
    route("/conversations/{}/items", &[Method::GET, Method::POST], "conversation_items", |found| {
        Endpoint::ConversationItems(last(found))
    }),
    route("/conversations/{}/items/{}", &[Method::GET, Method::DELETE], "conversation_item", |found| {
        let item = last(found);
        Endpoint::ConversationItem(last(found), item)
    }),
    route("/embeddings", POST, "embeddings", |_| Endpoint::Embeddings),
    route("/completions", POST, "completions", |_| Endpoint::Completions),
];

/// What the Azure client may put below a deployment.
const DEPLOYED: &[&str] = &["chat", "embeddings", "completions", "responses"];

/// Longest first: the first that fits is the roof.
const ROOFS: &[&str] = &["/v1beta/openai", "/openai/v1", "/openai", "/v1", ""];

/// `OpenAI`'s other endpoints: known, and not served.
const ELSEWHERE: &[(&str, &str)] = &[
    ("/responses", "Responses"),
    ("/embeddings", "Embeddings"),
    ("/completions", "legacy Completions"),
    ("/conversations", "Conversations"),
    ("/files", "Files"),
    ("/uploads", "Uploads"),
    ("/images", "Images"),
    ("/audio", "Audio"),
    ("/videos", "Videos"),
    ("/batches", "Batch"),
    ("/moderations", "Moderations"),
    ("/assistants", "Assistants"),
    ("/threads", "Assistants"),
    ("/vector_stores", "Vector stores"),
    ("/fine_tuning", "Fine-tuning"),
    ("/realtime", "Realtime"),
    ("/containers", "Containers"),
    ("/evals", "Evals"),
    ("/organization", "Administration"),
    ("/projects", "Administration"),
    ("/alpha", "Graders"),
    ("/graders", "Graders"),
    ("/skills", "Skills"),
    ("/chatkit", "ChatKit"),
    ("/live", "Live"),
    ("/agents", "Agents"),
    ("/decisions", "Decisions"),
    ("/content_provenance_checks", "Content provenance"),
    ("/safety", "Safety"),
    ("/edits", "Edits"),
    ("/engines", "Engines"),
    ("/fine-tunes", "Fine-tuning"),
];

/// What is served of `OpenAI`'s, for those who asked for something else.
const SERVED: &str = "/v1/chat/completions, /v1/responses, /v1/conversations, /v1/embeddings, /v1/completions and \
     /v1/models";

/// Finds the route of a request.
///
/// # Errors
/// 404 for a path nobody serves, 405 for a method it does not have (`Allow` from [`allow`]).
pub fn find(method: &Method, path: &str) -> Result<Found, Error> {
    let (below, deployment) = strip(path);
    for route in ROUTES {
        let Some(named) = fits(route, below) else { continue };
        if deployment.is_some() && !DEPLOYED.contains(&route.name) {
            break;
        }
        if !route.methods.contains(method) {
            return Err(wrong_method(method, path));
        }
        let decoded: Option<Vec<_>> = named.into_iter().map(decode).collect();
        let Some(mut decoded) = decoded else { return Err(unknown(method, path)) };
        return Ok(Found { endpoint: (route.make)(&mut decoded), name: route.name, deployment });
    }
    Err(unserved(method, path))
}

/// Why a path is not served: a known endpoint of `OpenAI`'s that this gateway has not, or nothing anybody knows.
pub fn unserved(method: &Method, path: &str) -> Error {
    let (below, _) = strip(path);
    let named = ELSEWHERE.iter().find(|(prefix, _)| {
        below.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    });
    match named {
        Some((_, name)) => Error::new(
            Kind::NotFound,
            Origin::Client,
            format!(
                "This gateway does not serve the {name} API ({} {}). It serves {SERVED}.",
                short(method.as_str()),
                short(path)
            ),
        )
        .code("unsupported_endpoint"),
        None => unknown(method, path),
    }
}

/// The methods that a path does have, for `Allow`; none where the path is unknown.
pub fn allow(path: &str) -> Option<String> {
    let (below, _) = strip(path);
    let route = ROUTES.iter().find(|route| fits(route, below).is_some())?;
    Some(route.methods.iter().map(Method::as_str).collect::<Vec<_>>().join(", "))
}

/// The method, as a label from a closed set.
pub fn method_label(method: &Method) -> &'static str {
    const KNOWN: [(&Method, &str); 8] = [
        (&Method::GET, "GET"),
        (&Method::POST, "POST"),
        (&Method::HEAD, "HEAD"),
        (&Method::PUT, "PUT"),
        (&Method::PATCH, "PATCH"),
        (&Method::DELETE, "DELETE"),
        (&Method::OPTIONS, "OPTIONS"),
        (&Method::CONNECT, "CONNECT"),
    ];
    KNOWN.iter().find(|(known, _)| *known == method).map_or("other", |(_, label)| label)
}

/// Takes off the roof, an Azure deployment and one trailing slash.
fn strip(path: &str) -> (&str, Option<String>) {
    let path = path.strip_suffix('/').unwrap_or(path);
    if let Some(rest) = path.strip_prefix("/openai/deployments/")
        && let Some((deployment, _)) = rest.split_once('/')
        && let Some(name) = decode(deployment)
    {
        return (rest.strip_prefix(deployment).unwrap_or_default(), Some(name));
    }
    if let Some(below) = vertex_layer(path) {
        return (below, None);
    }
    let below = ROOFS.iter().find_map(|roof| {
        let rest = path.strip_prefix(roof)?;
        (rest.is_empty() || rest.starts_with('/')).then_some(rest)
    });
    (below.unwrap_or(path), None)
}

/// What stands below `/v1/projects/{p}/locations/{l}/endpoints/openapi`, where Vertex AI has its `OpenAI` layer.
pub(super) fn vertex_layer(path: &str) -> Option<&str> {
    let placed = path.strip_prefix("/v1/projects/").or_else(|| path.strip_prefix("/v1beta1/projects/"))?;
    let (_, rest) = placed.split_once("/locations/")?;
    let (_, rest) = rest.split_once('/')?;
    let below = rest.strip_prefix("endpoints/openapi")?;
    (below.is_empty() || below.starts_with('/')).then_some(below)
}

/// What stands in place of `{}` and `*`, if the pattern fits.
fn fits<'p>(route: &Route, path: &'p str) -> Option<Vec<&'p str>> {
    if route.plain {
        return (route.path == path).then(Vec::new);
    }
    let pattern = route.path;
    if let Some(stem) = pattern.strip_suffix('*') {
        return path.strip_prefix(stem).filter(|rest| !rest.is_empty()).map(|rest| vec![rest]);
    }
    let mut segments = path.split('/');
    let mut named = Vec::new();
    for wanted in pattern.split('/') {
        match segments.next()? {
            "" if wanted == "{}" => return None,
            segment if wanted == "{}" => named.push(segment),
            segment if segment == wanted => {}
            _ => return None,
        }
    }
    segments.next().is_none().then_some(named)
}

fn decode(segment: &str) -> Option<String> {
    let text = percent_decode_str(segment).decode_utf8().ok()?;
    let clean = !text.is_empty() && text.len() <= 512 && !text.chars().any(char::is_control);
    clean.then(|| text.into_owned())
}

fn wrong_method(method: &Method, path: &str) -> Error {
    let allowed = allow(path).unwrap_or_default();
    Error::new(
        Kind::MethodNotAllowed,
        Origin::Client,
        format!("Not allowed to {} on {} (try {allowed}).", short(method.as_str()), short(path)),
    )
}

fn unknown(method: &Method, path: &str) -> Error {
    let shown = short(path);
    let mut message = format!("Invalid URL ({} {shown})", short(method.as_str()));
    if let Some(near) = nearest(&shown) {
        message.push_str(". Did you mean ");
        message.push_str(near);
        message.push('?');
    }
    Error::new(Kind::NotFound, Origin::Client, message).code("unknown_url")
}

fn nearest(path: &str) -> Option<&'static str> {
    const OFFERED: [&str; 7] = [
        "/v1/chat/completions",
        "/v1/responses",
        "/v1/embeddings",
        "/v1/completions",
        "/v1/conversations",
        "/v1/models",
        "/v1/models/{id}",
    ];
    let distance = |offered: &&str| strsim::osa_distance(offered, path);
    let near = OFFERED.into_iter().min_by_key(distance)?;
    let close = distance(&near) <= near.len() / 2
        || path.split('/').any(|segment| !segment.is_empty() && segment != "v1" && near.contains(segment));
    close.then_some(near)
}

/// Client text in a message: short and on one line.
fn short(text: &str) -> String {
    crate::telemetry::clip(text, 200)
}

/// Every route under every roof, with every method that it has.
#[cfg(test)]
pub(super) fn all() -> Vec<(Method, String)> {
    let mut all = Vec::new();
    for route in ROUTES.iter().filter(|route| !route.path.is_empty()) {
        let below = route.path.replace("{}", "x").replace('*', "x");
        let deployed = DEPLOYED.contains(&route.name).then_some("/openai/deployments/d");
        for method in route.methods {
            all.extend(
                ROOFS.iter().copied().chain(deployed).map(|roof| (method.clone(), format!("{roof}{below}"))),
            );
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(path: &str) -> Endpoint {
        find(&Method::GET, path).or_else(|_| find(&Method::POST, path)).unwrap().endpoint
    }

    #[test]
    fn every_roof_leads_to_the_same_place() {
        for path in [
            "/v1/chat/completions",
            "/chat/completions",
            "/v1beta/openai/chat/completions",
            "/openai/v1/chat/completions",
            "/v1/chat/completions/",
            "/v1/projects/p/locations/us-central1/endpoints/openapi/chat/completions",
            "/v1beta1/projects/p/locations/global/endpoints/openapi/chat/completions",
        ] {
            assert_eq!(endpoint(path), Endpoint::Chat, "{path}");
        }
        assert_eq!(endpoint("/openai/models"), Endpoint::Models);
        let azure = find(&Method::POST, "/openai/deployments/dep%2Fa/chat/completions").unwrap();
        assert_eq!((azure.endpoint, azure.deployment.as_deref()), (Endpoint::Chat, Some("dep/a")));
        assert_eq!(endpoint("/"), Endpoint::Root);
    }

    #[test]
    fn a_models_name_may_hold_slashes() {
        for path in ["/v1/models/models%2Fgemini-x", "/v1/models/models/gemini-x", "/models/models/gemini-x/"]
        {
            assert_eq!(endpoint(path), Endpoint::Model("models/gemini-x".to_owned()), "{path}");
        }
        assert!(find(&Method::GET, "/v1/models/%ff").is_err());
    }

    #[test]
    fn names_stand_in_the_middle_of_a_path() {
        assert_eq!(
            endpoint("/v1/responses/resp_1/input_items"),
            Endpoint::ResponseItems("resp_1".to_owned())
        );
        assert_eq!(endpoint("/v1/responses/input_tokens"), Endpoint::InputTokens);
        let item = Endpoint::ConversationItem("conv_1".to_owned(), "msg%2".to_owned());
        assert_eq!(endpoint("/conversations/conv_1/items/msg%252"), item);
        for path in ["/v1/responses//cancel", "/v1/responses/a/b", "/v1/conversations/c/items/i/more"] {
            assert_eq!(find(&Method::GET, path).unwrap_err().kind(), Kind::NotFound, "{path}");
        }
    }

    #[test]
    fn wrong_ways_are_told_precisely() {
        let error = find(&Method::GET, "/v1/chat/completions").unwrap_err();
        assert_eq!(error.kind(), Kind::MethodNotAllowed);
        assert_eq!(allow("/v1/chat/completions").as_deref(), Some("POST"));
        let error = find(&Method::POST, "/v1/nope").unwrap_err();
        assert!(error.message().starts_with("Invalid URL (POST /v1/nope)"), "{}", error.message());
        let error = find(&Method::POST, "/v1/chat/completion").unwrap_err();
        assert!(error.message().contains("/v1/chat/completions?"), "{}", error.message());
        for (path, name) in [
            ("/v1/images/edits", "Images"),
            ("/v1/audio/speech", "Audio"),
            ("/v1/files", "Files"),
            ("/v1/batches/b_1", "Batch"),
            ("/v1/moderations", "Moderations"),
            ("/v1/threads/t/runs", "Assistants"),
            ("/v1/fine_tuning/jobs", "Fine-tuning"),
            ("/v1/realtime/client_secrets", "Realtime"),
            ("/v1/vector_stores", "Vector stores"),
            ("/v1/evals", "Evals"),
            ("/openai/videos", "Videos"),
        ] {
            for method in [Method::GET, Method::POST, Method::DELETE, Method::PATCH] {
                let error = find(&method, path).unwrap_err();
                assert_eq!(error.explicit_code(), Some("unsupported_endpoint"), "{path}");
                assert!(error.message().contains(name) && error.message().contains(SERVED), "{path}");
                assert!(error.message().contains(path), "{}", error.message());
            }
        }
        let error = find(&Method::POST, "/v1/images/generations").unwrap_err();
        assert!(error.message().contains("Images"), "{}", error.message());
        for path in
            ["//v1/chat/completions", "/v1/../admin", "/v1/%2e%2e/metrics", "/metrics", "/v1/v1/models"]
        {
            assert_eq!(find(&Method::GET, path).unwrap_err().kind(), Kind::NotFound, "{path}");
        }
    }
}
