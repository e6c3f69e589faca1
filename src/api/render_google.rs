//! How an error looks to Google's clients: on native routes, whole and inside a stream.

use bytes::{BufMut, Bytes, BytesMut};
use http::Response;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use serde_json::{Value, json};

use super::render::{ceil_seconds, code, describe};
use crate::body::{self, Body};
use crate::error::{Error, Kind, Retry};

/// Which of Google's two shapes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Shape {
    /// `{"error":{"code":429,"message":…,"status":"RESOURCE_EXHAUSTED","details":[…]}}`
    #[default]
    Rpc,
    /// `{"error":{"code":"rate_limit_exceeded","message":…}}`, on interactions and webhooks.
    Word,
}

/// The name of the gRPC code that a kind of error comes under, and the word of the Interactions API for it.
fn names(kind: Kind) -> (&'static str, &'static str) {
    match kind {
        Kind::Malformed
        | Kind::Invalid
        | Kind::Unsupported
        | Kind::ContextTooLong
        | Kind::Blocked
        | Kind::TooLarge
        | Kind::TargetTooLong
        | Kind::ExpectationFailed
        | Kind::UnsupportedMedia => ("INVALID_ARGUMENT", "invalid_request"),
        Kind::Unauthenticated => ("UNAUTHENTICATED", "authentication"),
        Kind::Forbidden => ("PERMISSION_DENIED", "permission_denied"),
        Kind::NotFound => ("NOT_FOUND", "not_found"),
        Kind::MethodNotAllowed | Kind::UpgradeRequired => ("UNIMPLEMENTED", "unimplemented"),
        Kind::Conflict => ("ABORTED", "aborted"),
        Kind::RateLimited => ("RESOURCE_EXHAUSTED", "rate_limit_exceeded"),
        Kind::QuotaSpent => ("RESOURCE_EXHAUSTED", "quota_exceeded"),
        Kind::RequestTimeout | Kind::Timeout => ("DEADLINE_EXCEEDED", "deadline_exceeded"),
        Kind::Overloaded
        | Kind::UpstreamRefused
        | Kind::UpstreamUnreachable
        | Kind::UpstreamBroken
        | Kind::Draining => ("UNAVAILABLE", "service_unavailable"),
        Kind::ClientGone => ("CANCELLED", "cancelled"),
        Kind::UpstreamFailed | Kind::Internal => ("INTERNAL", "api_error"),
    }
}

/// The JSON of an error.
pub fn body(error: &Error, shape: Shape) -> Value {
    let (status, word) = names(error.kind());
    if shape == Shape::Word {
        return json!({ "error": { "code": word, "message": error.message() } });
    }
    let reason = code(error).unwrap_or(word).to_ascii_uppercase();
    let mut details = vec![json!({
        "@type": "type.googleapis.com/google.rpc.ErrorInfo",
        "reason": reason,
        // Tells whoever reads it that these are the gateway's words, not Google's.
        "domain": "gemway",
    })];
    if let Some(field) = error.param() {
        details.push(json!({
            "@type": "type.googleapis.com/google.rpc.BadRequest",
            "fieldViolations": [{ "field": field, "description": error.message() }],
        }));
    }
    if let Retry::After(wait) = error.retries() {
        details.push(json!({
            "@type": "type.googleapis.com/google.rpc.RetryInfo",
            "retryDelay": format!("{}s", wait.as_millis().div_ceil(1000)),
        }));
    }
    json!({ "error": {
        "code": describe(error.kind()).status.as_u16(),
        "message": error.message(),
        "status": status,
        "details": details,
    } })
}

/// The error as a whole response.
pub fn response(error: &Error, shape: Shape, request_id: &str) -> Response<Body> {
    let mut response = Response::new(body::full(body(error, shape).to_string()));
    *response.status_mut() = describe(error.kind()).status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json; charset=UTF-8"));
    if let Ok(id) = HeaderValue::from_str(request_id) {
        headers.insert(HeaderName::from_static("x-request-id"), id);
    }
    if error.calls() > 0 {
        headers.insert(HeaderName::from_static("x-gemway-attempts"), HeaderValue::from(error.calls()));
    }
    if let Retry::After(wait) = error.retries() {
        headers.insert(RETRY_AFTER, HeaderValue::from(ceil_seconds(wait)));
    }
    response
}

/// The error as an event of a stream whose status line has gone out. What was sent last may have been half an
/// event; the blank line in front ends it.
pub fn event(error: &Error, shape: Shape) -> Bytes {
    let mut event = BytesMut::new();
    let mut value = body(error, shape);
    if shape == Shape::Word {
        event.put_slice(b"\r\n\r\nevent: error\r\ndata: ");
        if let Some(map) = value.as_object_mut() {
            map.insert("event_type".to_owned(), "error".into());
        }
    } else {
        event.put_slice(b"\r\n\r\ndata: ");
    }
    event.put_slice(value.to_string().as_bytes());
    event.put_slice(b"\r\n\r\n");
    event.freeze()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::error::Origin;

    #[test]
    fn a_limit_looks_like_googles() {
        let error = Error::new(Kind::RateLimited, Origin::Gateway, "slow down")
            .retry(Retry::After(Duration::from_millis(1500)));
        let response = response(&error, Shape::Rpc, "req_1");
        assert_eq!(
            (response.status().as_u16(), response.headers()["retry-after"].to_str().unwrap()),
            (429, "2")
        );
        let value = body(&error, Shape::Rpc);
        assert_eq!(
            (&value["error"]["code"], &value["error"]["status"]),
            (&json!(429), &json!("RESOURCE_EXHAUSTED"))
        );
        assert_eq!(value["error"]["details"][1]["retryDelay"], "2s");
        assert_eq!(body(&error, Shape::Word)["error"]["code"], "rate_limit_exceeded");
    }

    #[test]
    fn an_error_in_a_stream_is_an_event() {
        let error = Error::invalid("contents", "no");
        assert!(event(&error, Shape::Rpc).starts_with(b"\r\n\r\ndata: {\"error\":{\"code\":400,"));
        assert!(event(&error, Shape::Word).ends_with(b"\"event_type\":\"error\"}\r\n\r\n"));
    }
}
