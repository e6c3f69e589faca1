//! What a person writes: the TOML file, every key optional, unknown keys refused with their place.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Deserializer};
use serde_spanned::Spanned;

use super::ConfigError;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    pub(super) listen: Option<Spanned<String>>,
    pub(super) admin_listen: Option<Spanned<String>>,
    pub(super) admin_key: Option<Spanned<String>>,
    pub(super) strict: Option<bool>,
    pub(super) credentials: Option<KeyCredentials>,
    pub(super) insecure_no_auth: Option<bool>,
    pub(super) catalog: Option<String>,
    pub(super) prices: Option<String>,
    pub(super) cost_header: Option<bool>,
    #[serde(default)]
    pub(super) sites: Vec<Site>,
    #[serde(default)]
    pub(super) routes: Vec<Route>,
    #[serde(default)]
    pub(super) aliases: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) keys: Vec<Key>,
    pub(super) limits: Option<Limits>,
    pub(super) ledger: Option<Ledger>,
    pub(super) store: Option<Store>,
    #[serde(default)]
    pub(super) simulator: Simulator,
    #[serde(default)]
    pub(super) server: Server,
    #[serde(default)]
    pub(super) upstream: Upstream,
    pub(super) fetch: Option<Fetch>,
    #[serde(default)]
    pub(super) log: Log,
    pub(super) tls: Option<super::tls::Written>,
    pub(super) traces: Option<super::traces::Written>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum SiteKindName {
    GeminiApi,
    Vertex,
    Simulator,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Site {
    pub(super) name: Spanned<String>,
    pub(super) kind: SiteKindName,
    pub(super) base_url: Option<Spanned<String>>,
    pub(super) api_version: Option<String>,
    pub(super) api_key: Option<Spanned<String>>,
    pub(super) project: Option<String>,
    pub(super) location: Option<Spanned<String>>,
    pub(super) credentials: Option<Spanned<String>>,
    pub(super) quota_project: Option<String>,
    pub(super) quota_group: Option<String>,
    pub(super) native_place: Option<NativePlace>,
}

/// Whose project and location a native Vertex request is sent to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum NativePlace {
    /// The site's, whatever the path says.
    #[default]
    Site,
    /// The path's.
    Caller,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Route {
    pub(super) models: Vec<String>,
    pub(super) sites: Vec<Spanned<String>>,
    pub(super) balance: Option<Balance>,
    pub(super) weights: Option<Spanned<BTreeMap<String, u32>>>,
    #[serde(default)]
    pub(super) fallback: Vec<String>,
    pub(super) head_timeout: Option<Span>,
    pub(super) first_event_timeout: Option<Span>,
    pub(super) idle_timeout: Option<Span>,
    pub(super) total_timeout: Option<Span>,
    pub(super) retries: Option<u32>,
    pub(super) hedge_percent: Option<u32>,
}

/// How the sites of a route share the work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Balance {
    /// The first that can.
    #[default]
    Order,
    /// All of them; one conversation stays with one.
    Spread,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Key {
    pub(super) name: Spanned<String>,
    pub(super) secret: Option<Spanned<String>>,
    pub(super) hash: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) models: Vec<String>,
    pub(super) requests_per_minute: Option<u32>,
    pub(super) requests_per_day: Option<u32>,
    pub(super) tokens_per_minute: Option<u64>,
    pub(super) concurrent_requests: Option<u32>,
    pub(super) input_tokens_per_minute: Option<u64>,
    pub(super) output_tokens_per_minute: Option<u64>,
    pub(super) budget: Option<Spanned<Budget>>,
    #[serde(default)]
    pub(super) labels: BTreeMap<String, String>,
    pub(super) expires: Option<Spanned<String>>,
    pub(super) credentials: Option<KeyCredentials>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
/// Whose Google credential a client's requests travel with.
pub enum KeyCredentials {
    /// The gateway's.
    #[default]
    Gateway,
    /// The caller's own.
    Caller,
}

impl KeyCredentials {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Caller => "caller",
        }
    }
}

impl From<KeyCredentials> for crate::keys::Credentials {
    fn from(written: KeyCredentials) -> Self {
        match written {
            KeyCredentials::Gateway => Self::Gateway,
            KeyCredentials::Caller => Self::Caller,
        }
    }
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Budget {
    pub(super) usd: Option<f64>,
    pub(super) tokens: Option<u64>,
    pub(super) per: Period,
}

/// The span of a budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Period {
    /// A calendar day, UTC.
    Day,
    /// A calendar month, UTC.
    Month,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Limits {
    pub(super) redis: Option<Spanned<String>>,
    pub(super) ca_file: Option<String>,
    pub(super) on_store_failure: Option<OnStoreFailure>,
    pub(super) replicas: Option<u32>,
    pub(super) store_timeout: Option<Span>,
    #[serde(default)]
    pub(super) rules: Vec<Rule>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Rule {
    pub(super) name: Option<String>,
    #[serde(default)]
    pub(super) keys: Vec<String>,
    #[serde(default)]
    pub(super) models: Vec<String>,
    #[serde(default)]
    pub(super) per: Vec<Each>,
    pub(super) requests_per_minute: Option<u32>,
    pub(super) requests_per_day: Option<u32>,
    pub(super) tokens_per_minute: Option<u64>,
    pub(super) input_tokens_per_minute: Option<u64>,
    pub(super) output_tokens_per_minute: Option<u64>,
    pub(super) concurrent_requests: Option<u32>,
}

/// What a rule counts apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Each {
    /// Each key.
    Key,
    /// Each model.
    Model,
}

/// What a limit does while its shared store is away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnStoreFailure {
    /// Count in this process.
    #[default]
    Local,
    /// Refuse.
    Deny,
    /// Let through.
    Allow,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Ledger {
    pub(super) url: Spanned<String>,
    pub(super) durability: Option<Durability>,
}

/// When a ledger row must be safe.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Durability {
    /// Soon: rows are batched.
    #[default]
    Process,
    /// Before the answer ends.
    BeforeEnd,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Store {
    pub(super) url: Spanned<String>,
    pub(super) max_age: Option<Span>,
    pub(super) max_bytes: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Simulator {
    pub(super) time_to_first_token: Option<Span>,
    pub(super) tokens_per_second: Option<f64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Server {
    pub(super) max_body_bytes: Option<u64>,
    pub(super) header_timeout: Option<Span>,
    pub(super) body_timeout: Option<Span>,
    pub(super) heartbeat: Option<Span>,
    pub(super) drain_timeout: Option<Span>,
    pub(super) min_drain: Option<Span>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Upstream {
    pub(super) connect_timeout: Option<Span>,
    pub(super) head_timeout: Option<Span>,
    pub(super) first_event_timeout: Option<Span>,
    pub(super) idle_timeout: Option<Span>,
    pub(super) total_timeout: Option<Span>,
    pub(super) retries: Option<u32>,
    pub(super) hedge_percent: Option<u32>,
    pub(super) longest_retry_wait: Option<Span>,
    pub(super) slow_start: Option<Span>,
    pub(super) max_in_flight: Option<u32>,
    pub(super) connection_max_age: Option<Span>,
    pub(super) https_proxy: Option<Spanned<String>>,
    pub(super) no_proxy: Option<String>,
    pub(super) ca_file: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Fetch {
    pub(super) enabled: Option<bool>,
    #[serde(default)]
    pub(super) allow: Vec<Spanned<String>>,
    pub(super) max_bytes: Option<u64>,
    pub(super) timeout: Option<Span>,
    pub(super) max_count: Option<u32>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Log {
    pub(super) format: Option<LogFormat>,
    pub(super) level: Option<String>,
    pub(super) share: Option<f64>,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// Pretty on a terminal, JSON elsewhere.
    #[default]
    Auto,
    /// One JSON object a line.
    Json,
    /// For people.
    Pretty,
}

impl LogFormat {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Json => "json",
            Self::Pretty => "pretty",
        }
    }
}

/// A duration as people write it: `200ms`, `1m 30s`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span(pub(super) Duration);

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        duration(&text).map(Self).map_err(serde::de::Error::custom)
    }
}

/// Reads `200ms`, `1m 30s`, `2h`; a bare `0` too.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    if text.trim() == "0" {
        return Ok(Duration::ZERO);
    }
    humantime::parse_duration(text.trim())
        .map_err(|error| format!("\"{text}\" is not a duration such as \"200ms\" or \"1m 30s\": {error}"))
}

/// Reads the text of a file; `path` is only for messages.
pub(super) fn parse(path: &Path, text: &str) -> Result<File, ConfigError> {
    toml::from_str(text).map_err(|error| {
        let span = error.span();
        let message = error.message();
        let message = unknown_key(message).unwrap_or_else(|| message.trim_end().to_owned());
        match span {
            Some(span) => at(path, text, &span, &message),
            None => ConfigError::new(format!("{}: {message}", path.display())),
        }
    })
}

/// A complaint with file, line and column.
pub(super) fn at(path: &Path, text: &str, span: &Range<usize>, message: &str) -> ConfigError {
    let before = text.get(..span.start).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().map_or(0, |rest| rest.chars().count()) + 1;
    ConfigError::new(format!("{}:{line}:{column}: {message}", path.display()))
}

/// serde's "unknown field `x`, expected one of `a`, `b`" in our words, with the nearest name.
fn unknown_key(message: &str) -> Option<String> {
    let (what, rest) = if let Some(rest) = message.strip_prefix("unknown field `") {
        ("key", rest)
    } else {
        ("value", message.strip_prefix("unknown variant `")?)
    };
    let (name, rest) = rest.split_once('`')?;
    let known: Vec<&str> = rest.split('`').skip(1).step_by(2).collect();
    Some(match nearest(name, known.iter().copied()) {
        Some(near) => format!("unknown {what} `{name}`, did you mean `{near}`?"),
        None => format!("unknown {what} `{name}`, known are: {}", known.join(", ")),
    })
}

/// The known name that a mistyped one most likely meant.
pub(super) fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    known
        .map(|candidate| (strsim::damerau_levenshtein(name, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= (candidate.len().max(name.len()) / 3).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}
