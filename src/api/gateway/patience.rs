//! What a client's headers say about time and about trying again.

use std::time::Duration;

use http::{HeaderMap, HeaderValue};

use crate::error::{Error, Result};
use crate::upstream::{Repeat, Wish};

const TIMEOUT: &str = "x-request-timeout";
const TIMEOUT_MS: &str = "x-request-timeout-ms";
const SDK_TIMEOUT: &str = "x-stainless-timeout";
const SDK_READ_TIMEOUT: &str = "x-stainless-read-timeout";
const NO_RETRY: &str = "x-gemway-no-retry";
const NO_FALLBACK: &str = "x-gemway-no-fallback";

/// What of all that a request says. Most say nothing, and looking each header up costs more than one look at all.
#[derive(Default)]
struct Said<'h> {
    timeout: Option<&'h HeaderValue>,
    timeout_ms: Option<&'h HeaderValue>,
    sdk_timeout: Option<&'h HeaderValue>,
    sdk_read_timeout: Option<&'h HeaderValue>,
    no_retry: Option<&'h HeaderValue>,
    no_fallback: Option<&'h HeaderValue>,
}

impl<'h> Said<'h> {
    fn by(headers: &'h HeaderMap) -> Self {
        let mut said = Self::default();
        for (name, value) in headers {
            let place = match name.as_str() {
                TIMEOUT => &mut said.timeout,
                TIMEOUT_MS => &mut said.timeout_ms,
                SDK_TIMEOUT => &mut said.sdk_timeout,
                SDK_READ_TIMEOUT => &mut said.sdk_read_timeout,
                NO_RETRY => &mut said.no_retry,
                NO_FALLBACK => &mut said.no_fallback,
                _ => continue,
            };
            // Of several the first counts.
            place.get_or_insert(value);
        }
        said
    }
}

/// Nobody means less than this by a time limit; `0` stands for none.
const SHORTEST: Duration = Duration::from_millis(1);

/// An SDK's own clock runs out first: its caller is to see a timeout, as without a gateway, and not our word for it.
const GRACE: Duration = Duration::from_millis(500);

/// Reads the headers of one request into its wish.
///
/// `x-request-timeout` (seconds, or a duration such as `1500ms`) and `x-request-timeout-ms` limit the whole
/// request. The SDKs' own headers tell when they stop listening for the first byte: `x-stainless-timeout` (Node's
/// whole patience until the head) and `x-stainless-read-timeout` (Python's, between two reads), in seconds. All of
/// them only shorten what is configured. `x-gemway-no-retry` asks for one call and no more,
/// `x-gemway-no-fallback` for no other model.
///
/// # Errors
/// When a limit that a person wrote cannot be read; SDKs' headers are ignored then.
pub(super) fn read<'w>(headers: &HeaderMap, model: &'w str, streams: bool) -> Result<Wish<'w>> {
    let said = Said::by(headers);
    let written = |name: &str, value: Option<&HeaderValue>, parse: fn(&str) -> Option<Duration>| {
        let Some(value) = value else { return Ok(None) };
        let Some(limit) = value.to_str().ok().and_then(|text| parse(text.trim())) else {
            let message = format!("The header {name} does not hold a time limit.");
            return Err(Error::invalid(name.to_owned(), message));
        };
        Ok(Some(limit).filter(|limit| *limit >= SHORTEST))
    };
    let whole = shorter(
        written(TIMEOUT, said.timeout, seconds_or_duration)?,
        written(TIMEOUT_MS, said.timeout_ms, milliseconds)?,
    );
    let sdk =
        |value| text(value).and_then(seconds).filter(|limit| *limit >= SHORTEST).map(|limit| limit + GRACE);
    let first = shorter(sdk(said.sdk_timeout), sdk(said.sdk_read_timeout));
    let on = |value| text(value).is_some_and(|value| !matches!(value, "" | "0" | "false" | "no"));
    let repeat = match (on(said.no_retry), on(said.no_fallback)) {
        (true, _) => Repeat::Never,
        (false, true) => Repeat::SameModel,
        (false, false) => Repeat::All,
    };
    // A whole reply has its first byte when all of it is there.
    let total = if streams { whole } else { shorter(whole, first) };
    Ok(Wish { model, total, first: first.filter(|_| streams), repeat, session: None })
}

fn text(value: Option<&HeaderValue>) -> Option<&str> {
    value?.to_str().ok().map(str::trim)
}

fn shorter(a: Option<Duration>, b: Option<Duration>) -> Option<Duration> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

fn seconds(text: &str) -> Option<Duration> {
    Duration::try_from_secs_f64(text.parse().ok()?).ok()
}

fn milliseconds(text: &str) -> Option<Duration> {
    text.parse().ok().map(Duration::from_millis)
}

fn seconds_or_duration(text: &str) -> Option<Duration> {
    seconds(text).or_else(|| humantime::parse_duration(text).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(headers: &[(&'static str, &str)], streams: bool) -> Result<Wish<'static>> {
        let pairs = headers.iter().map(|(name, value)| {
            (http::HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())
        });
        read(&pairs.collect(), "m", streams)
    }

    #[test]
    fn limits_are_read_and_the_shortest_counts() {
        let total = |headers: &[_]| wish(headers, true).unwrap().total;
        let some = |millis| Some(Duration::from_millis(millis));
        assert_eq!(total(&[]), None);
        assert_eq!(total(&[("x-request-timeout", "2")]), some(2000));
        assert_eq!(total(&[("x-request-timeout", "0.5")]), some(500));
        assert_eq!(total(&[("x-request-timeout", "1500ms")]), some(1500));
        assert_eq!(total(&[("x-request-timeout", "2"), ("x-request-timeout-ms", "30")]), some(30));
        assert_eq!(total(&[("x-request-timeout", "0")]), None);
        for bad in ["soon", "-1", "1e400", "NaN"] {
            let error = wish(&[("x-request-timeout", bad)], true).unwrap_err();
            assert_eq!(error.param(), Some("x-request-timeout"), "{bad}");
        }
    }

    #[test]
    fn an_sdks_patience_is_until_the_first_byte() {
        let python = [("x-stainless-read-timeout", "600")];
        let streamed = wish(&python, true).unwrap();
        let patience = Some(Duration::from_mins(10) + GRACE);
        assert_eq!((streamed.total, streamed.first), (None, patience));
        let whole = wish(&python, false).unwrap();
        assert_eq!((whole.total, whole.first), (patience, None));
        assert_eq!(wish(&[("x-stainless-timeout", "NOT_GIVEN")], false).unwrap().total, None);
    }

    #[test]
    fn repeating_can_be_refused() {
        let repeat = |headers: &[_]| wish(headers, true).unwrap().repeat;
        assert_eq!(repeat(&[]), Repeat::All);
        assert_eq!(repeat(&[("x-gemway-no-retry", "1")]), Repeat::Never);
        assert_eq!(repeat(&[("x-gemway-no-retry", "false")]), Repeat::All);
        assert_eq!(repeat(&[("x-gemway-no-fallback", "true")]), Repeat::SameModel);
    }
}
