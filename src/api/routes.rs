//! Which path leads where.
//!
//! Every route is served under several roofs: `/v1`, none at all (people forget it in the base URL), Google's
//! own `/v1beta/openai`, and what the Azure client builds.

use http::Method;
use percent_encoding::percent_decode_str;

use crate::error::{Error, Kind, Origin};

/// What a path stands for.
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

#[derive(Clone, Copy)]
enum Goal {
    Root,
    Chat,
    StoredChat,
    Models,
    Model,
}

struct Route {
    /// Below the roof; a trailing `*` takes the rest of the path, slashes included.
    path: &'static str,
    methods: &'static [Method],
    name: &'static str,
    goal: Goal,
}

const ROUTES: &[Route] = &[
    Route { path: "", methods: &[Method::GET, Method::HEAD], name: "root", goal: Goal::Root },
    Route { path: "/chat/completions", methods: &[Method::POST], name: "chat", goal: Goal::Chat },
    Route {
        path: "/chat/completions/*",
        methods: &[Method::GET, Method::POST, Method::DELETE],
        name: "stored_chat",
        goal: Goal::StoredChat,
    },
    Route { path: "/models", methods: &[Method::GET, Method::HEAD], name: "models", goal: Goal::Models },
    Route { path: "/models/*", methods: &[Method::GET, Method::HEAD], name: "model", goal: Goal::Model },
];

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
];

/// Finds the route of a request.
///
/// # Errors
/// 404 for a path nobody serves, 405 for a method it does not have (`Allow` from [`allow`]).
pub fn find(method: &Method, path: &str) -> Result<Found, Error> {
    let (below, deployment) = strip(path);
    for route in ROUTES {
        let Some(rest) = fits(route.path, below) else { continue };
        if deployment.is_some() && !matches!(route.goal, Goal::Chat) {
            break;
        }
        if !route.methods.contains(method) {
            return Err(wrong_method(method, path));
        }
        let endpoint = match route.goal {
            Goal::Root => Endpoint::Root,
            Goal::Chat => Endpoint::Chat,
            Goal::StoredChat => Endpoint::StoredChat,
            Goal::Models => Endpoint::Models,
            Goal::Model => match decode(rest) {
                Some(id) => Endpoint::Model(id),
                None => return Err(unknown(method, path)),
            },
        };
        return Ok(Found { endpoint, name: route.name, deployment });
    }
    let named = ELSEWHERE.iter().find(|(prefix, _)| {
        below.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    });
    Err(match named {
        Some((_, name)) => Error::new(
            Kind::NotFound,
            Origin::Client,
            format!(
                "This gateway does not serve the {name} API ({} {}). It serves /v1/chat/completions and \
                 /v1/models.",
                short(method.as_str()),
                short(path)
            ),
        )
        .code("unsupported_endpoint"),
        None => unknown(method, path),
    })
}

/// The methods that a path does have, for `Allow`; none where the path is unknown.
pub fn allow(path: &str) -> Option<String> {
    let (below, _) = strip(path);
    let route = ROUTES.iter().find(|route| fits(route.path, below).is_some())?;
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
    let below = ROOFS.iter().find_map(|roof| {
        let rest = path.strip_prefix(roof)?;
        (rest.is_empty() || rest.starts_with('/')).then_some(rest)
    });
    (below.unwrap_or(path), None)
}

/// The rest of the path, if the pattern fits.
fn fits<'p>(pattern: &str, path: &'p str) -> Option<&'p str> {
    match pattern.strip_suffix('*') {
        Some(stem) => path.strip_prefix(stem).filter(|rest| !rest.is_empty()),
        None => (path == pattern).then_some(""),
    }
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
    const OFFERED: [&str; 3] = ["/v1/chat/completions", "/v1/models", "/v1/models/{id}"];
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
    fn wrong_ways_are_told_precisely() {
        let error = find(&Method::GET, "/v1/chat/completions").unwrap_err();
        assert_eq!(error.kind(), Kind::MethodNotAllowed);
        assert_eq!(allow("/v1/chat/completions").as_deref(), Some("POST"));
        let error = find(&Method::POST, "/v1/nope").unwrap_err();
        assert!(error.message().starts_with("Invalid URL (POST /v1/nope)"), "{}", error.message());
        let error = find(&Method::POST, "/v1/chat/completion").unwrap_err();
        assert!(error.message().contains("/v1/chat/completions?"), "{}", error.message());
        let error = find(&Method::POST, "/v1/embeddings").unwrap_err();
        assert!(error.message().contains("Embeddings"), "{}", error.message());
        for path in
            ["//v1/chat/completions", "/v1/../admin", "/v1/%2e%2e/metrics", "/metrics", "/v1/v1/models"]
        {
            assert_eq!(find(&Method::GET, path).unwrap_err().kind(), Kind::NotFound, "{path}");
        }
    }
}
