//! What can go wrong on the way, in the house's words. No text here holds a URL, a header or a body.

use std::error::Error as StdError;
use std::io;

use super::connect::Unanswered;
use crate::body::{BoxError, ReadError};
use crate::error::{Error, Kind, Origin, Retry};

/// The connection was not there in time; made by the connector and found again in the error's causes.
#[derive(Debug, thiserror::Error)]
#[error("connecting took too long")]
pub(super) struct ConnectTimeout;

/// We gave up waiting. Google's own 504 has the same code, and a better chance at the next try.
#[derive(Debug, thiserror::Error)]
#[error("a deadline of the gateway's passed")]
struct Waited;

/// A deadline of ours passed.
pub(super) fn timeout(code: &'static str, message: &'static str) -> Error {
    Error::new(Kind::Timeout, Origin::Upstream, message).code(code).retry(Retry::Soon).because(Waited)
}

/// Whether it was we who gave up waiting.
pub(super) fn is_ours(error: &Error) -> bool {
    cause::<Waited>(error).is_some()
}

/// Nothing came.
pub(super) fn silent() -> Error {
    timeout("upstream_timeout", "Google took too long to begin its answer.")
}

/// The status line came, and then nothing.
pub(super) fn no_event() -> Error {
    timeout("upstream_first_event_timeout", "Google began its answer and then said nothing.")
}

/// The whole request took too long.
pub(super) fn out_of_time() -> Error {
    timeout("request_timeout", "The request took too long in all.")
}

/// Google answered with something that cannot be used.
pub(super) fn invalid(message: &'static str) -> Error {
    Error::new(Kind::UpstreamBroken, Origin::Upstream, message)
        .code("upstream_invalid_response")
        .retry(Retry::Soon)
}

/// The connection broke off.
pub(super) fn disconnected(source: impl Into<BoxError>) -> Error {
    Error::new(Kind::UpstreamBroken, Origin::Upstream, "The connection to Google broke off.")
        .code("upstream_disconnected")
        .retry(Retry::Soon)
        .because(source)
}

/// Our credential is not usable; the operator must act.
pub(super) fn credential(source: impl Into<BoxError>) -> Error {
    Error::new(Kind::UpstreamRefused, Origin::Upstream, "The gateway could not obtain its Google credential.")
        .code("upstream_auth_error")
        .because(source)
}

/// Every site that could serve has failed too often of late.
pub(super) fn closed() -> Error {
    Error::new(
        Kind::Overloaded,
        Origin::Gateway,
        "Google keeps failing; the gateway is not asking it for now.",
    )
    .code("upstream_circuit_open")
}

/// Every site that could serve has as many calls as it carries.
pub(super) fn full() -> Error {
    Error::new(Kind::Overloaded, Origin::Gateway, "The gateway carries as many requests as it can.")
        .code("gateway_overloaded")
        .retry(Retry::After(std::time::Duration::from_secs(1)))
}

/// A setting that cannot be used; said at start.
pub(super) fn setting(message: String) -> Error {
    Error::new(Kind::Invalid, Origin::Gateway, message)
}

/// A request that got no status line.
pub(super) fn unanswered(error: Unanswered) -> Error {
    let unreachable = |message| Error::new(Kind::UpstreamUnreachable, Origin::Upstream, message);
    if cause::<ConnectTimeout>(&error).is_some() {
        return timeout("upstream_connect_timeout", "Connecting to Google took too long.").because(error);
    }
    if cause::<rustls::Error>(&error).is_some() {
        return unreachable("No trusted connection to Google could be made.")
            .code("upstream_tls_error")
            .because(error);
    }
    if error.is_connect() {
        return unreachable("Google could not be reached.")
            .code("upstream_unreachable")
            .retry(Retry::Soon)
            .because(error);
    }
    broken(error.into())
}

/// A status line or a body that broke.
pub(super) fn broken(error: BoxError) -> Error {
    // A deadline of ours travels through the body as an error of the house already.
    let error = match error.downcast::<Error>() {
        Ok(ours) => return *ours,
        Err(other) => other,
    };
    let nonsense = [io::ErrorKind::InvalidData, io::ErrorKind::InvalidInput];
    if cause::<hyper::Error>(&*error).is_some_and(hyper::Error::is_parse)
        // What a chunk's own head says wrong comes as this.
        || cause::<io::Error>(&*error).is_some_and(|error| nonsense.contains(&error.kind()))
    {
        return invalid("Google's answer was not proper HTTP.").because(error);
    }
    disconnected(error)
}

/// A body that could not be read whole.
pub(super) fn unread(error: ReadError) -> Error {
    match error {
        ReadError::TooLarge(_) => invalid("Google's answer is larger than the gateway takes.").because(error),
        ReadError::Broken(error) => broken(error),
    }
}

/// Whether nothing of the request can have arrived: no connection was made.
pub fn is_unsent(error: &Error) -> bool {
    match error.explicit_code() {
        Some("upstream_unreachable" | "upstream_connect_timeout") => error.origin() == Origin::Upstream,
        Some(_) | None => false,
    }
}

/// Looks for a cause of one type. An `io::Error` hides what it wraps from `source`, so it is opened too.
fn cause<'e, T: StdError + 'static>(error: &'e (dyn StdError + 'static)) -> Option<&'e T> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<T>() {
            return Some(found);
        }
        next = match error.downcast_ref::<io::Error>() {
            Some(io) => io.get_ref().map(|inner| inner as _),
            None => error.source(),
        };
    }
    None
}
