//! Google's failures as ours.

use std::borrow::Cow;

use http::StatusCode;

use crate::error::{Error, Kind, Origin, Retry};
use crate::gemini::error::Status;

/// Longer messages help nobody.
const MAX_MESSAGE: usize = 2000;
const MASK: &str = "[masked]";

/// Reads an HTTP answer that is not a success. `secrets` are masked in Google's text wherever they occur, as is
/// anything that looks like a credential.
pub fn from_response(status: StatusCode, body: &[u8], secrets: &[&str]) -> Error {
    let read = Status::parse(body).unwrap_or_default();
    classify(status.as_u16(), &read, secrets)
}

/// Reads an error object that came in place of an answer, or within a stream.
pub fn from_event(event: &[u8]) -> Error {
    let Some(read) = Status::parse(event) else {
        return Error::new(Kind::UpstreamBroken, Origin::Upstream, "Google's answer could not be read.")
            .code("upstream_invalid_response")
            .retry(Retry::Soon);
    };
    let status = read.code.filter(|code| (400..600).contains(code)).unwrap_or_else(|| http_of(&read.status));
    classify(status, &read, &[])
}

/// The HTTP status that belongs to a `google.rpc.Code`.
fn http_of(name: &str) -> u16 {
    match name {
        "INVALID_ARGUMENT" | "FAILED_PRECONDITION" | "OUT_OF_RANGE" => 400,
        "UNAUTHENTICATED" => 401,
        "PERMISSION_DENIED" => 403,
        "NOT_FOUND" => 404,
        "ABORTED" | "ALREADY_EXISTS" => 409,
        "RESOURCE_EXHAUSTED" => 429,
        "CANCELLED" => 499,
        "UNIMPLEMENTED" => 501,
        "UNAVAILABLE" => 503,
        "DEADLINE_EXCEEDED" => 504,
        _ => 500,
    }
}

fn classify(status: u16, read: &Status, secrets: &[&str]) -> Error {
    let lower = read.message.to_ascii_lowercase();
    let says = |words: &[&str]| words.iter().all(|word| lower.contains(word));
    let reason = |name: &str| read.reasons.iter().any(|reason| reason == name);
    let text = || -> Cow<'static, str> {
        if read.message.is_empty() {
            format!("Google answered with status {status}.").into()
        } else {
            mask(&read.message, secrets).into()
        }
    };
    let upstream = |kind: Kind| Error::new(kind, Origin::Upstream, text());
    let soon = || read.retry_delay.map_or(Retry::Soon, Retry::After);
    match status {
        400 if reason("API_KEY_INVALID") || says(&["api key", "not valid"]) || says(&["api key expired"]) => {
            refused(&text())
        }
        400 if says(&["input token count", "exceed"]) || says(&["token count", "only supports up to"]) => {
            let message = format!("{} (context_length_exceeded)", text());
            Error::new(Kind::ContextTooLong, Origin::Client, message)
                .code("context_length_exceeded")
                .at("messages")
        }
        400 if says(&["location is not supported"]) => {
            upstream(Kind::Forbidden).code("unsupported_country_region_territory")
        }
        400 if says(&["billing"]) && read.status == "FAILED_PRECONDITION" => quota_spent(text()),
        400 if says(&["request payload size exceeds"]) => {
            Error::new(Kind::TooLarge, Origin::Client, text()).code("request_too_large")
        }
        400 if reason("SAFETY") || reason("PROHIBITED_CONTENT") || says(&["blocked", "safety"]) => {
            upstream(Kind::Blocked).code("content_policy_violation")
        }
        403 if says(&["file", "permission to access"]) || says(&["cachedcontent not found"]) => {
            upstream(Kind::NotFound).code("not_found")
        }
        401 | 403 => refused(&text()),
        402 => quota_spent(text()),
        404 => upstream(Kind::NotFound).code("model_not_found").at("model"),
        408 | 504 => upstream(Kind::Timeout).code("upstream_timeout").retry(soon()),
        409 => upstream(Kind::Conflict).retry(soon()),
        413 => Error::new(Kind::TooLarge, Origin::Client, text()).code("request_too_large"),
        429 => {
            let per_day = read.quota_ids.iter().any(|id| id.contains("PerDay"));
            let unpaid = says(&["credits", "depleted"]) || says(&["prepa", "credit"]);
            if per_day || unpaid {
                quota_spent(text())
            } else {
                upstream(Kind::RateLimited).code("rate_limit_exceeded").retry(soon())
            }
        }
        499 => upstream(Kind::UpstreamBroken).code("upstream_disconnected").retry(Retry::Soon),
        503 => upstream(Kind::Overloaded).code("upstream_overloaded").retry(soon()),
        501 => upstream(Kind::UpstreamFailed).code("upstream_error"),
        502 => upstream(Kind::UpstreamBroken).code("upstream_error").retry(soon()),
        500..=599 => upstream(Kind::UpstreamFailed).code("upstream_error").retry(soon()),
        400..=499 => {
            let error = Error::new(Kind::Invalid, Origin::Client, text()).code("invalid_value");
            match &read.field {
                Some(field) => error.at(field.clone()),
                None => error,
            }
        }
        // Redirects are not followed, and no other success is expected here.
        _ => Error::new(
            Kind::UpstreamBroken,
            Origin::Upstream,
            format!("Google answered with the unexpected status {status}."),
        )
        .code("upstream_error"),
    }
}

/// Our credential was refused: the client can do nothing and learns nothing, the log gets Google's words.
fn refused(said: &str) -> Error {
    Error::new(
        Kind::UpstreamRefused,
        Origin::Upstream,
        "Google refused the gateway's credential; the operator must act.",
    )
    .code("upstream_auth_error")
    .because(said.to_owned())
}

fn quota_spent(message: Cow<'static, str>) -> Error {
    Error::new(Kind::QuotaSpent, Origin::Upstream, message).code("insufficient_quota")
}

/// Google's text without credentials and without the queries of addresses.
pub fn mask(text: &str, secrets: &[&str]) -> String {
    let mut text: String = text.chars().take(MAX_MESSAGE).collect();
    for secret in secrets.iter().filter(|secret| !secret.is_empty()) {
        text = text.replace(secret, MASK);
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text.as_str();
    while let Some(first) = rest.chars().next() {
        let before = out.chars().next_back().is_some_and(char::is_alphanumeric);
        let (kept, gone) = secret_at(rest, before);
        if kept + gone > 0 {
            out.push_str(rest.get(..kept).unwrap_or_default());
            if gone > 0 && !is_address(rest) {
                out.push_str(MASK);
            }
            rest = rest.get(kept + gone..).unwrap_or_default();
        } else {
            out.push(first);
            rest = rest.get(first.len_utf8()..).unwrap_or_default();
        }
    }
    out
}

fn begins(text: &str, prefix: &str) -> bool {
    text.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

fn is_address(text: &str) -> bool {
    begins(text, "http://") || begins(text, "https://")
}

/// How many bytes at the start of `text` stay, and how many after them must go.
fn secret_at(text: &str, inside_word: bool) -> (usize, usize) {
    let run = |from: usize, fits: fn(char) -> bool| {
        let rest = text.get(from..).unwrap_or_default();
        rest.find(|c| !fits(c)).unwrap_or(rest.len())
    };
    let word =
        |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '~' | '+' | '/' | '=' | '%');
    if is_address(text) {
        let whole = run(0, |c| !c.is_whitespace() && !matches!(c, '"' | '\'' | '<' | '>' | ')' | '`'));
        let address = text.get(..whole).unwrap_or_default();
        let kept = address.find(['?', '#']).unwrap_or(whole);
        return (kept, whole - kept);
    }
    for prefix in ["AIza", "ya29.", "AQ.Ab"] {
        if text.starts_with(prefix) {
            return (0, run(0, word));
        }
    }
    if inside_word {
        return (0, 0);
    }
    for prefix in
        ["bearer ", "key=", "api_key=", "apikey=", "api-key=", "token=", "access_token=", "x-goog-api-key: "]
    {
        if begins(text, prefix) {
            return (prefix.len(), run(prefix.len(), word));
        }
    }
    (0, 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn error(status: u16, body: &str) -> Error {
        from_response(StatusCode::from_u16(status).unwrap(), body.as_bytes(), &[])
    }

    fn body(status: &str, message: &str, details: &str) -> String {
        format!(r#"{{"error":{{"code":0,"status":"{status}","message":"{message}","details":[{details}]}}}}"#)
    }

    #[test]
    fn our_own_credential_is_never_the_clients_fault() {
        let details = r#"{"@type":"type.googleapis.com/google.rpc.ErrorInfo","reason":"API_KEY_INVALID"}"#;
        for (status, body) in [
            (400, body("INVALID_ARGUMENT", "API key not valid.", details)),
            (401, body("UNAUTHENTICATED", "x", "")),
            (403, body("PERMISSION_DENIED", "denied", "")),
        ] {
            let error = error(status, &body);
            assert_eq!(
                (error.kind(), error.explicit_code()),
                (Kind::UpstreamRefused, Some("upstream_auth_error"))
            );
            assert_eq!(error.retries(), Retry::Never);
        }
    }

    #[test]
    fn quotas_by_minute_and_by_day() {
        let retry = r#"{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"36s"}"#;
        let minute = error(429, &body("RESOURCE_EXHAUSTED", "quota", retry));
        assert_eq!(minute.kind(), Kind::RateLimited);
        assert_eq!(minute.retries(), Retry::After(Duration::from_secs(36)));
        let day = r#"{"violations":[{"quotaId":"GenerateRequestsPerDayPerProject"}]}"#;
        let day = error(429, &body("RESOURCE_EXHAUSTED", "quota", &format!("{day},{retry}")));
        assert_eq!((day.kind(), day.explicit_code()), (Kind::QuotaSpent, Some("insufficient_quota")));
        assert_eq!(day.retries(), Retry::Never);
        assert_eq!(error(429, "").retries(), Retry::Soon);
    }

    #[test]
    fn the_rest_of_the_catalogue() {
        let cases = [
            (400, "INVALID_ARGUMENT", "Bad field", Kind::Invalid),
            (
                400,
                "INVALID_ARGUMENT",
                "The input token count (9) exceeds the maximum number of tokens allowed (5).",
                Kind::ContextTooLong,
            ),
            (400, "FAILED_PRECONDITION", "User location is not supported for the API use.", Kind::Forbidden),
            (404, "NOT_FOUND", "models/x is not found", Kind::NotFound),
            (413, "", "", Kind::TooLarge),
            (500, "INTERNAL", "oops", Kind::UpstreamFailed),
            (503, "UNAVAILABLE", "overloaded", Kind::Overloaded),
            (504, "DEADLINE_EXCEEDED", "late", Kind::Timeout),
            (302, "", "", Kind::UpstreamBroken),
        ];
        for (status, name, message, kind) in cases {
            assert_eq!(error(status, &body(name, message, "")).kind(), kind, "{status} {message}");
            let wrapped = format!("[{}]", body(name, message, ""));
            assert_eq!(error(status, &wrapped).kind(), kind, "{status} {message}");
        }
        let long = error(400, &body("", "input token count (9) exceeds", ""));
        assert!(long.message().contains("context_length_exceeded"));
        let field = r#"{"fieldViolations":[{"field":"tools[0]","description":"x"}]}"#;
        assert_eq!(error(400, &body("INVALID_ARGUMENT", "x", field)).param(), Some("tools[0]"));
        let html = error(502, "<html><h1>Bad gateway</h1></html>");
        assert_eq!((html.kind(), html.retries()), (Kind::UpstreamBroken, Retry::Soon));
        assert!(!html.message().contains("html"));
    }

    #[test]
    fn events_are_classified_by_code_or_name() {
        assert_eq!(from_event(br#"{"error":{"code":429}}"#).kind(), Kind::RateLimited);
        assert_eq!(from_event(br#"[{"error":{"status":"UNAVAILABLE"}}]"#).kind(), Kind::Overloaded);
        assert_eq!(from_event(br#"{"error":{"code":"503"}}"#).kind(), Kind::Overloaded);
        assert_eq!(from_event(b"5").kind(), Kind::UpstreamBroken);
    }

    #[test]
    fn credentials_and_queries_are_masked() {
        let said = "Key AIzaSyA-1_2 and ya29.abc-d, Bearer xyz.9 at https://a.b/c?key=1&d=2 (key=zzz) monkey=fine, own s3cr3t";
        let masked = mask(said, &["s3cr3t"]);
        assert_eq!(
            masked,
            "Key [masked] and [masked], Bearer [masked] at https://a.b/c (key=[masked]) monkey=fine, own [masked]"
        );
    }
}
