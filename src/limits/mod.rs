//! How much a client may do: requests by minute and day, tokens by minute, requests at once.
//!
//! [`Limiter::admit`] either refuses or gives a [`Permit`]. The permit is the right to run: it holds the
//! place among the concurrent requests until it is dropped, and the token estimate until it is settled.
//! Everything here counts in this process alone.

mod flights;
mod requests;
mod tokens;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use http::{HeaderName, HeaderValue};

use crate::error::{Error, Kind, Origin, Result, Retry};

use self::flights::{Flight, Flights};
use self::requests::Requests;
use self::tokens::Tokens;

/// What one key may do; an absent number is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quota {
    /// Requests in a minute.
    pub requests_per_minute: Option<u32>,
    /// Requests in a day.
    pub requests_per_day: Option<u32>,
    /// Tokens in a minute, of prompt and answer together.
    pub tokens_per_minute: Option<u64>,
    /// Requests at once.
    pub concurrent_requests: Option<u32>,
}

/// Where the limiter's time comes from.
#[derive(Clone, Debug)]
pub enum Timer {
    /// The machine's steady clock.
    Steady(Instant),
    /// Milliseconds moved by hand.
    Hand(Arc<AtomicU64>),
}

impl Timer {
    /// A steady clock that starts now.
    pub fn steady() -> Self {
        Self::Steady(Instant::now())
    }

    /// Time since the timer was made.
    fn elapsed(&self) -> Duration {
        match self {
            Self::Steady(start) => start.elapsed(),
            Self::Hand(millis) => Duration::from_millis(millis.load(Ordering::Relaxed)),
        }
    }
}

/// The limits of every key.
#[derive(Debug)]
pub struct Limiter {
    keys: HashMap<String, Arc<Counters>>,
}

#[derive(Debug)]
struct Counters {
    minute: Option<Requests>,
    day: Option<Requests>,
    tokens: Option<Tokens>,
    flights: Option<Arc<Flights>>,
}

impl Limiter {
    /// A limiter for these keys. A name that is not among them is not limited.
    pub fn new(keys: Vec<(String, Quota)>) -> Self {
        Self::with_timer(keys, &Timer::steady())
    }

    /// The same, with time from elsewhere.
    pub fn with_timer(keys: Vec<(String, Quota)>, timer: &Timer) -> Self {
        const MINUTE: Duration = Duration::from_mins(1);
        const DAY: Duration = Duration::from_hours(24);
        let keys = keys.into_iter().map(|(name, quota)| {
            let counters = Counters {
                minute: quota.requests_per_minute.map(|n| Requests::new(n, MINUTE, timer.clone())),
                day: quota.requests_per_day.map(|n| Requests::new(n, DAY, timer.clone())),
                tokens: quota.tokens_per_minute.map(|n| Tokens::new(n, MINUTE, timer.clone())),
                flights: quota.concurrent_requests.map(Flights::new),
            };
            (name, Arc::new(counters))
        });
        Self { keys: keys.collect() }
    }

    /// Lets one request in, or says when to come back. What can be given back is taken first, so that a
    /// refusal costs the key nothing but, at worst, one request of its minute.
    pub fn admit(&self, key: &str, estimate_tokens: u64) -> Result<Permit> {
        let Some(counters) = self.keys.get(key) else { return Ok(Permit::unlimited()) };
        let flight = match &counters.flights {
            None => None,
            Some(flights) => Some(flights.take().ok_or_else(|| {
                refused(format!("at most {} requests at once", flights.limit()), Duration::from_secs(1))
            })?),
        };
        let mut headers = Vec::new();
        if let Some(tokens) = &counters.tokens {
            let state = tokens
                .charge(estimate_tokens)
                .map_err(|wait| refused(format!("{} tokens a minute", tokens.limit()), wait))?;
            state.write("tokens", &mut headers);
        }
        let permit =
            Permit { counters: Some(Arc::clone(counters)), estimate: estimate_tokens, flight, headers };
        match permit.count_request() {
            Ok(Some(state)) => Ok(permit.with(state)),
            Ok(None) => Ok(permit),
            Err(error) => {
                permit.settle(0);
                Err(error)
            }
        }
    }
}

/// The right to run one request.
#[must_use = "dropping the permit ends the request's place"]
pub struct Permit {
    counters: Option<Arc<Counters>>,
    estimate: u64,
    #[expect(dead_code, reason = "held for its drop")]
    flight: Option<Flight>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Permit {
    fn unlimited() -> Self {
        Self { counters: None, estimate: 0, flight: None, headers: Vec::new() }
    }

    fn count_request(&self) -> Result<Option<State>> {
        let Some(counters) = &self.counters else { return Ok(None) };
        let mut state = None;
        if let Some(day) = &counters.day {
            state =
                Some(day.take().map_err(|wait| refused(format!("{} requests a day", day.limit()), wait))?);
        }
        if let Some(minute) = &counters.minute {
            // The minute's numbers are the ones clients pace themselves by; they hide the day's.
            state = Some(
                minute
                    .take()
                    .map_err(|wait| refused(format!("{} requests a minute", minute.limit()), wait))?,
            );
        }
        Ok(state)
    }

    fn with(mut self, state: State) -> Self {
        state.write("requests", &mut self.headers);
        self
    }

    /// Replaces the estimate by what was really used. A permit that is dropped unsettled keeps its
    /// estimate charged.
    pub fn settle(self, actual_tokens: u64) {
        if let Some(tokens) = self.counters.as_ref().and_then(|counters| counters.tokens.as_ref()) {
            tokens.settle(self.estimate, actual_tokens);
        }
    }

    /// The `x-ratelimit-*` response headers of the limits that exist.
    pub fn headers(&self) -> &[(HeaderName, HeaderValue)] {
        &self.headers
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit").field("estimate", &self.estimate).finish_non_exhaustive()
    }
}

/// Where a limit stands after a request was counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct State {
    limit: u64,
    remaining: u64,
    /// Until it is full again.
    reset: Duration,
}

impl State {
    fn write(self, unit: &'static str, headers: &mut Vec<(HeaderName, HeaderValue)>) {
        let [limit, remaining, reset] = match unit {
            "tokens" => {
                ["x-ratelimit-limit-tokens", "x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens"]
            }
            _ => {
                ["x-ratelimit-limit-requests", "x-ratelimit-remaining-requests", "x-ratelimit-reset-requests"]
            }
        };
        headers.push((HeaderName::from_static(limit), HeaderValue::from(self.limit)));
        headers.push((HeaderName::from_static(remaining), HeaderValue::from(self.remaining)));
        if let Ok(value) = HeaderValue::try_from(go_duration(self.reset)) {
            headers.push((HeaderName::from_static(reset), value));
        }
    }
}

/// A duration as Go prints it (`12ms`, `1.5s`, `6m0s`, `1h2m3s`): the form that clients of `OpenAI` expect.
fn go_duration(duration: Duration) -> String {
    if duration < Duration::from_secs(1) {
        let millis = duration.as_micros().div_ceil(1000);
        return if millis == 1000 { "1s".to_owned() } else { format!("{millis}ms") };
    }
    if duration < Duration::from_mins(1) {
        let millis = duration.as_millis();
        let text = format!("{}.{:03}", millis / 1000, millis % 1000);
        return format!("{}s", text.trim_end_matches('0').trim_end_matches('.'));
    }
    let seconds = duration.as_secs();
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if hours > 0 { format!("{hours}h{minutes}m{seconds}s") } else { format!("{minutes}m{seconds}s") }
}

fn refused(limit: impl fmt::Display, wait: Duration) -> Error {
    let wait = wait.max(Duration::from_millis(1));
    Error::new(
        Kind::RateLimited,
        Origin::Gateway,
        format!("Rate limit reached for this API key: {limit}. Try again in {}.", go_duration(wait)),
    )
    .code("rate_limit_exceeded")
    .retry(Retry::After(wait))
}

#[cfg(test)]
mod tests;
