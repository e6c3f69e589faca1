//! What of a request and of an answer is passed on.

use std::borrow::Cow;

use http::HeaderMap;
use http::header::{CONNECTION, CONTENT_LENGTH, HeaderName};

/// Whether a request header goes upstream as it is. Everything else stays here: credentials, cookies, what proxies
/// added, and whatever could make Google read another request than the one that was checked.
fn passes(name: &str) -> bool {
    matches!(
        name,
        "content-type"
            | "content-encoding"
            | "content-range"
            | "content-length"
            | "accept"
            | "accept-language"
            | "range"
            | "if-range"
            | "if-match"
            | "if-none-match"
            | "last-event-id"
            | "idempotency-key"
            | "x-goog-api-client"
            | "x-server-timeout"
            | "api-revision"
            | "x-vertex-ai-llm-request-type"
            | "x-vertex-ai-llm-shared-request-type"
            | "x-upload-content-type"
            | "x-upload-content-length"
    ) || name.starts_with("x-goog-upload-")
}

/// Most requests carry fewer, with what is added to them on their way. And so do their answers with what is added to those:
/// hyper reads their headers into the room that the request's had.
const ROOM: usize = 24;

/// Whether a response header ends here: it speaks of Google's connection, or to Google's own clients, or would pass for a
/// word of ours.
fn ends(name: &HeaderName) -> bool {
    let name = name.as_str();
    matches!(
        name,
        "connection"
            | "keep-alive"
            | "proxy-connection"
            | "proxy-authenticate"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
            | "set-cookie"
            | "alt-svc"
            | "strict-transport-security"
            | "x-request-id"
    ) || name.starts_with("x-gemway-")
}

/// The headers of a request that Google is to see. The length of a body that is in hand is told by whoever sends it.
pub(in crate::api::gateway) fn headers(all: &HeaderMap, in_hand: bool) -> HeaderMap {
    let mut passed = HeaderMap::with_capacity(ROOM);
    for (name, value) in all {
        if in_hand && *name == CONTENT_LENGTH {
            continue;
        }
        if passes(name.as_str()) {
            passed.append(name.clone(), value.clone());
        }
    }
    passed
}

/// Takes out of an answer's headers what is not the client's business.
pub(in crate::api::gateway) fn answer(headers: &mut HeaderMap) {
    // Most answers have none of them.
    while let Some(name) = headers.keys().find(|name| ends(name)).cloned() {
        if name == CONNECTION {
            // What it names is hop-by-hop as well.
            let named: Vec<HeaderName> = headers
                .get_all(CONNECTION)
                .iter()
                .filter_map(|value| value.to_str().ok())
                .flat_map(|value| value.split(','))
                .filter_map(|name| HeaderName::try_from(name.trim()).ok())
                .collect();
            for name in named {
                headers.remove(name);
            }
        }
        headers.remove(name);
    }
}

/// The query without credentials, and without the parameters by which Google reads headers and the method from
/// the query.
pub(in crate::api::gateway) fn query(query: Option<&str>) -> Option<String> {
    let secret = |pair: &&str| {
        let name = pair.split('=').next().unwrap_or_default();
        let name: Cow<'_, str> = percent_encoding::percent_decode_str(name).decode_utf8_lossy();
        let name = name.trim_start_matches('$').to_ascii_lowercase();
        ["key", "access_token", "oauth_token", "httpheaders", "httpmethod", "http_method"].contains(&&*name)
            || name.starts_with("x-http-method")
            || name == "userproject"
    };
    let kept: Vec<&str> = query?.split('&').filter(|pair| !pair.is_empty() && !secret(pair)).collect();
    (!kept.is_empty()).then(|| kept.join("&"))
}

/// The length that a request's body is said to have, in bytes.
pub(in crate::api::gateway) fn length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_credential_stays_in_a_query() {
        assert_eq!(query(Some("alt=sse&key=AIza&%6bey=x&$key=y")), Some("alt=sse".to_owned()));
        assert_eq!(query(Some("key=AIza")), None);
        assert_eq!(
            query(Some("pageSize=2&access_token=t&pageToken=a%3D")),
            Some("pageSize=2&pageToken=a%3D".into())
        );
        assert_eq!(query(Some("$httpHeaders=a&%24httpMethod=DELETE&alt=json")), Some("alt=json".into()));
    }

    #[test]
    fn what_speaks_of_the_connection_ends_here() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("content-type", "application/json"),
            ("set-cookie", "a=b"),
            ("set-cookie", "c=d"),
            ("alt-svc", "h3"),
            ("x-request-id", "theirs"),
            ("connection", "close, x-hop"),
            ("x-hop", "1"),
            ("x-gemway-served-by", "another"),
            ("server", "ESF"),
        ] {
            headers.append(HeaderName::from_static(name), http::HeaderValue::from_static(value));
        }
        answer(&mut headers);
        let mut names: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["content-type", "server"]);
    }

    #[test]
    fn only_known_headers_go_up() {
        let mut all = HeaderMap::new();
        for name in [
            "authorization",
            "x-goog-api-key",
            "cookie",
            "x-forwarded-for",
            "x-goog-user-project",
            "x-http-method-override",
            "x-goog-upload-command",
            "content-type",
            "host",
            "connection",
        ] {
            all.insert(HeaderName::from_static(name), http::HeaderValue::from_static("v"));
        }
        let mut names: Vec<String> = headers(&all, false).keys().map(ToString::to_string).collect();
        names.sort();
        assert_eq!(names, ["content-type", "x-goog-upload-command"]);
    }
}
