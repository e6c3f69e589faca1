//! How an error looks on the wire: the one place.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{Response, StatusCode};

use crate::body::{self, Body};
use crate::error::{Error, Kind, Retry};
use crate::openai::error::{ErrorBody, ErrorObject};
use crate::translate::Failure;

/// `OpenAI`'s answer to one kind of error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// The status, from which SDKs choose the exception class.
    pub status: StatusCode,
    /// The error's `type`.
    pub family: &'static str,
    /// The `code` where the error brings none of its own.
    pub code: Option<&'static str>,
}

const REQUEST: &str = "invalid_request_error";
const SERVER: &str = "server_error";

const fn look(status: StatusCode, family: &'static str, code: Option<&'static str>) -> Look {
    Look { status, family, code }
}

/// The table.
pub fn describe(kind: Kind) -> Look {
    match kind {
        Kind::Malformed => look(StatusCode::BAD_REQUEST, REQUEST, None),
        Kind::Invalid => look(StatusCode::BAD_REQUEST, REQUEST, Some("invalid_value")),
        Kind::Unsupported => look(StatusCode::BAD_REQUEST, REQUEST, Some("unsupported_parameter")),
        Kind::Unauthenticated => look(StatusCode::UNAUTHORIZED, REQUEST, Some("invalid_api_key")),
        Kind::Forbidden => look(StatusCode::FORBIDDEN, REQUEST, None),
        Kind::NotFound => look(StatusCode::NOT_FOUND, REQUEST, None),
        Kind::MethodNotAllowed => look(StatusCode::METHOD_NOT_ALLOWED, REQUEST, Some("method_not_supported")),
        Kind::UpgradeRequired => look(StatusCode::UPGRADE_REQUIRED, REQUEST, Some("websocket_not_supported")),
        Kind::UnsupportedMedia => {
            look(StatusCode::UNSUPPORTED_MEDIA_TYPE, REQUEST, Some("unsupported_media_type"))
        }
        Kind::ExpectationFailed => look(StatusCode::EXPECTATION_FAILED, REQUEST, Some("expectation_failed")),
        Kind::Conflict => look(StatusCode::CONFLICT, REQUEST, Some("conflict")),
        Kind::RequestTimeout => look(StatusCode::REQUEST_TIMEOUT, REQUEST, Some("request_timeout")),
        Kind::TooLarge => look(StatusCode::PAYLOAD_TOO_LARGE, REQUEST, Some("request_too_large")),
        Kind::TargetTooLong => look(StatusCode::URI_TOO_LONG, REQUEST, Some("uri_too_long")),
        Kind::ContextTooLong => look(StatusCode::BAD_REQUEST, REQUEST, Some("context_length_exceeded")),
        Kind::Blocked => look(StatusCode::BAD_REQUEST, REQUEST, Some("content_policy_violation")),
        Kind::RateLimited => look(StatusCode::TOO_MANY_REQUESTS, "requests", Some("rate_limit_exceeded")),
        Kind::QuotaSpent => {
            look(StatusCode::TOO_MANY_REQUESTS, "insufficient_quota", Some("insufficient_quota"))
        }
        Kind::Overloaded => look(StatusCode::SERVICE_UNAVAILABLE, SERVER, Some("server_is_overloaded")),
        // Never 401: the client's own key is fine, ours is not.
        Kind::UpstreamRefused => look(StatusCode::BAD_GATEWAY, SERVER, Some("upstream_auth_error")),
        Kind::UpstreamUnreachable => look(StatusCode::BAD_GATEWAY, SERVER, Some("upstream_unreachable")),
        Kind::UpstreamBroken => look(StatusCode::BAD_GATEWAY, SERVER, Some("upstream_invalid_response")),
        Kind::UpstreamFailed => look(StatusCode::INTERNAL_SERVER_ERROR, SERVER, Some("upstream_error")),
        Kind::Timeout => look(StatusCode::GATEWAY_TIMEOUT, SERVER, Some("upstream_timeout")),
        Kind::Draining => look(StatusCode::SERVICE_UNAVAILABLE, SERVER, Some("gateway_draining")),
        Kind::ClientGone => look(client_closed(), REQUEST, Some("client_closed_request")),
        Kind::Internal => look(StatusCode::INTERNAL_SERVER_ERROR, SERVER, Some("server_error")),
    }
}

fn client_closed() -> StatusCode {
    StatusCode::from_u16(499).unwrap_or(StatusCode::BAD_REQUEST)
}

/// The code that the client sees.
pub fn code(error: &Error) -> Option<&str> {
    error.explicit_code().or(describe(error.kind()).code)
}

/// The `type` that the client sees.
fn family(error: &Error) -> &'static str {
    if error.is_of_tokens() { "tokens" } else { describe(error.kind()).family }
}

/// The JSON of an error.
pub fn body(error: &Error) -> Vec<u8> {
    let object = ErrorObject {
        message: message(error),
        kind: family(error).to_owned(),
        param: error.param().map(str::to_owned),
        code: code(error).map(str::to_owned),
    };
    // Strings and options cannot fail to serialize; an empty object is still JSON.
    serde_json::to_vec(&ErrorBody { error: object }).unwrap_or_else(|_| b"{}".to_vec())
}

/// `LangChain` and others find an overlong prompt by this word in the text, for Python's exception shows no code.
fn message(error: &Error) -> String {
    let text = error.message();
    if error.kind() == Kind::ContextTooLong && !text.contains("context_length_exceeded") {
        return format!("{text} (context_length_exceeded)");
    }
    text.to_owned()
}

/// The error as a whole response.
pub fn response(error: &Error, request_id: &str) -> Response<Body> {
    let look = describe(error.kind());
    let mut response = Response::new(body::full(body(error)));
    *response.status_mut() = look.status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Ok(id) = HeaderValue::from_str(request_id) {
        headers.insert(HeaderName::from_static("x-request-id"), id);
    }
    if look.status == StatusCode::UNAUTHORIZED {
        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    if let Retry::After(wait) = error.retries() {
        headers.insert(RETRY_AFTER, HeaderValue::from(ceil_seconds(wait)));
        let millis = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        headers.insert(HeaderName::from_static("retry-after-ms"), HeaderValue::from(millis));
    }
    if error.calls() > 0 {
        headers.insert(HeaderName::from_static("x-gemway-attempts"), HeaderValue::from(error.calls()));
    }
    if hopeless(error, look.status) {
        headers.insert(HeaderName::from_static("x-should-retry"), HeaderValue::from_static("false"));
    }
    response
}

/// SDKs retry 408, 409, 429 and 5xx on their own, and Node's ignores a wait of more than a minute and tries
/// again at once; where that cannot help they must be told.
fn hopeless(error: &Error, status: StatusCode) -> bool {
    if error.kind() == Kind::QuotaSpent || error.is_exhausted() {
        return true;
    }
    match error.retries() {
        Retry::After(wait) => wait > Duration::from_mins(1),
        Retry::Soon => false,
        Retry::Never => status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error(),
    }
}

pub(super) fn ceil_seconds(wait: Duration) -> u64 {
    wait.as_secs().saturating_add(u64::from(wait.subsec_nanos() > 0)).max(1)
}

/// The error for a front that has its own way to end a stream.
pub fn failure<T>(error: &Error, tell: impl FnOnce(&Failure<'_>) -> T) -> T {
    let message = message(error);
    let kind = family(error);
    tell(&Failure { message: &message, kind, code: code(error), param: error.param() })
}

/// The error as an event of a stream whose status line has gone out. SDKs raise on it.
pub fn event(error: &Error) -> Bytes {
    let mut event = BytesMut::new();
    event.put_slice(b"data: ");
    event.put_slice(&body(error));
    event.put_slice(b"\n\n");
    event.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Origin;

    fn header<'a>(response: &'a Response<Body>, name: &str) -> Option<&'a str> {
        response.headers().get(name).map(|value| value.to_str().unwrap())
    }

    #[test]
    fn all_four_keys_are_there() {
        let error = Error::new(Kind::Malformed, Origin::Client, "no");
        assert_eq!(
            String::from_utf8(body(&error)).unwrap(),
            r#"{"error":{"message":"no","type":"invalid_request_error","param":null,"code":null}}"#
        );
    }

    #[test]
    fn a_wait_is_told_twice_and_a_long_one_forbids_retries() {
        let wait = |wait| Error::new(Kind::RateLimited, Origin::Upstream, "slow").retry(Retry::After(wait));
        let short = response(&wait(Duration::from_millis(1500)), "req_1");
        assert_eq!(short.status(), 429);
        assert_eq!(header(&short, "retry-after"), Some("2"));
        assert_eq!(header(&short, "retry-after-ms"), Some("1500"));
        assert_eq!(header(&short, "x-should-retry"), None);
        assert_eq!(header(&short, "x-request-id"), Some("req_1"));
        let long = response(&wait(Duration::from_secs(61)), "req_1");
        assert_eq!(header(&long, "x-should-retry"), Some("false"));
    }

    #[test]
    fn what_cannot_succeed_says_so() {
        let spent = Error::new(Kind::QuotaSpent, Origin::Upstream, "x").retry(Retry::Soon);
        assert_eq!(header(&response(&spent, "r"), "x-should-retry"), Some("false"));
        let refused = response(&Error::new(Kind::UpstreamRefused, Origin::Upstream, "x"), "r");
        assert_eq!(refused.status(), 502);
        assert_eq!(header(&refused, "x-should-retry"), Some("false"));
        let soon = Error::new(Kind::Overloaded, Origin::Upstream, "x").retry(Retry::Soon);
        assert_eq!(header(&response(&soon, "r"), "x-should-retry"), None);
        let key = response(&Error::new(Kind::Unauthenticated, Origin::Client, "x"), "r");
        assert_eq!(header(&key, "www-authenticate"), Some("Bearer"));
    }
}
