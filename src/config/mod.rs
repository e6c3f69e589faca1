//! Configuration: a TOML file, then the environment, then flags, resolved into plain values.
//!
//! [`Config`] holds values only: every default is already applied, every secret already fetched. This is
//! the one place that reads the environment; `app` hands each organ what it needs from here.

mod clients;
mod env;
mod file;
mod resolve;
mod secret;
mod seen;
mod show;
mod tls;
mod traces;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use secrecy::SecretString;

use crate::catalog::Catalog;
use crate::keys::KeyConfig;
use crate::limits::{OnFailure, Rule, Sharing};
use crate::meter::price::Prices;
use crate::store::Place;

pub(crate) use self::file::duration;
pub use self::file::{Balance, Durability, KeyCredentials, LogFormat, OnStoreFailure, Period};
pub use self::seen::Seen;
pub use self::tls::Tls;
pub use self::traces::Traces;

/// Everything an operator decided.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where clients are served.
    pub listen: Listen,
    /// Where probes and metrics are served.
    pub admin_listen: Listen,
    /// Who may use the operator's API; without one it is off.
    pub admin_key: Option<SecretString>,
    /// Refuse what would be dropped.
    pub strict: bool,
    /// Whose Google credential goes upstream, where a key does not say.
    pub credentials: KeyCredentials,
    /// Serve beyond loopback without keys.
    pub insecure_no_auth: bool,
    /// Places to call; never empty.
    pub sites: Vec<Site>,
    /// Which models go where; never empty.
    pub routes: Vec<Route>,
    /// What clients say → what is dispatched.
    pub aliases: BTreeMap<String, String>,
    /// Clients; empty means everybody.
    pub keys: Vec<Key>,
    /// How limits are shared.
    pub limits: Limits,
    /// Where usage is written down, if anywhere.
    pub ledger: Option<Ledger>,
    /// Where state is kept, if anywhere.
    pub store: Option<Store>,
    /// The pace of the built-in simulator.
    pub simulator: Simulator,
    /// The way in.
    pub server: Server,
    /// The way out.
    pub upstream: Upstream,
    /// Media that the gateway fetches itself, if it does.
    pub fetch: Option<Fetch>,
    /// What stands between us and Google.
    pub network: Network,
    /// Log lines.
    pub log: Log,
    /// The certificate that clients see; none is plain HTTP.
    pub tls: Option<Tls>,
    /// Where spans go, if anywhere.
    pub traces: Option<Traces>,
    /// A file laid over the built-in model catalogue; see [`Config::catalogue`].
    pub catalog: Option<PathBuf>,
    /// A file laid over the built-in prices; see [`Config::priced`].
    pub prices: Option<PathBuf>,
    /// Every reply tells what it cost, also where nobody asked.
    pub cost_header: bool,
    warnings: Vec<String>,
}

/// An address to serve on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// A TCP socket.
    Tcp(SocketAddr),
    /// A Unix socket at a path.
    Unix(PathBuf),
}

impl Listen {
    /// Whether only this machine can reach it.
    pub fn is_local(&self) -> bool {
        match self {
            Self::Tcp(address) => address.ip().to_canonical().is_loopback(),
            Self::Unix(_) => true,
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// A place to call.
#[derive(Clone, Debug)]
pub struct Site {
    /// Its name in routes, logs and metrics.
    pub name: String,
    /// What it is.
    pub kind: SiteKind,
    /// Sites of one Google project share this; the site's own name unless given.
    pub quota_group: String,
    /// Native requests choose project and location (Vertex AI only).
    pub caller_place: bool,
}

/// What a site is.
#[derive(Clone, Debug)]
pub enum SiteKind {
    /// The Gemini Developer API.
    GeminiApi {
        /// Without a trailing slash.
        base_url: String,
        /// `v1beta` unless given.
        api_version: String,
        /// Sent as `x-goog-api-key`.
        api_key: SecretString,
    },
    /// Vertex AI.
    Vertex {
        /// Without a trailing slash; follows from the location unless given.
        base_url: String,
        /// `v1beta1` unless given.
        api_version: String,
        /// Absent in express mode, where the key says it.
        project: Option<String>,
        /// A region, `global`, `us` or `eu`.
        location: String,
        /// How it is authenticated.
        credentials: GoogleCredentials,
        /// Sent as `x-goog-user-project`.
        quota_project: Option<String>,
    },
    /// The built-in simulator.
    Simulator,
}

/// How Vertex AI is authenticated.
#[derive(Clone, Debug)]
pub enum GoogleCredentials {
    /// Application default credentials.
    Adc,
    /// A credential file.
    File(PathBuf),
    /// The metadata server.
    Metadata,
    /// An API key.
    ApiKey(SecretString),
}

/// Models → sites, in order of preference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Patterns with `*`.
    pub models: Vec<String>,
    /// Names of sites.
    pub sites: Vec<String>,
    /// How they share the work.
    pub balance: Balance,
    /// For each site, its share of the work when it is spread.
    pub weights: Vec<u32>,
    /// Models to ask instead when no site serves.
    pub fallback: Vec<String>,
    /// Instead of [`Upstream::head_timeout`].
    pub head_timeout: Option<Duration>,
    /// Instead of [`Upstream::first_event_timeout`].
    pub first_event_timeout: Option<Duration>,
    /// Instead of [`Upstream::idle_timeout`].
    pub idle_timeout: Option<Duration>,
    /// Instead of [`Upstream::total_timeout`].
    pub total_timeout: Option<Duration>,
    /// Instead of [`Upstream::retries`].
    pub retries: Option<u32>,
    /// Instead of [`Upstream::hedge_percent`].
    pub hedge_percent: Option<u32>,
}

/// A client.
#[derive(Clone, Debug)]
pub struct Key {
    /// Its name in logs, metrics and the ledger.
    pub name: String,
    /// What it proves itself with.
    pub proof: KeyProof,
    /// Patterns of what it may dispatch, after aliases; empty means everything.
    pub models: Vec<String>,
    /// Limit.
    pub requests_per_minute: Option<u32>,
    /// Limit.
    pub requests_per_day: Option<u32>,
    /// Limit.
    pub tokens_per_minute: Option<u64>,
    /// Limit.
    pub concurrent_requests: Option<u32>,
    /// Limit.
    pub input_tokens_per_minute: Option<u64>,
    /// Limit.
    pub output_tokens_per_minute: Option<u64>,
    /// Limit.
    pub budget: Option<Budget>,
    /// What the ledger notes beside the name.
    pub labels: BTreeMap<String, String>,
    /// From this second since 1970 on it is not let in any more.
    pub expires: Option<u64>,
    /// Whose Google credential goes upstream.
    pub credentials: KeyCredentials,
}

/// What a client proves itself with.
#[derive(Clone, Debug)]
pub enum KeyProof {
    /// The key.
    Secret(SecretString),
    /// Its SHA-256 digest.
    Sha256([u8; 32]),
}

/// What a key may spend.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Budget {
    /// What is counted.
    pub amount: Amount,
    /// In which span.
    pub per: Period,
}

/// What a budget counts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Amount {
    /// Dollars.
    Usd(f64),
    /// Tokens.
    Tokens(u64),
}

/// How limits are shared.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Where replicas share them, if they do; may hold a password.
    pub redis: Option<SecretString>,
    /// Whom its certificate is checked against, in place of the machine's roots: a PEM file.
    pub ca_file: Option<PathBuf>,
    /// What happens while it is away.
    pub on_store_failure: OnStoreFailure,
    /// How many replicas there are, for the time without it.
    pub replicas: u32,
    /// How long a request waits for it.
    pub store_timeout: Duration,
    /// Limits that are not one key's own.
    pub rules: Vec<Rule>,
}

/// Where usage is written down.
#[derive(Clone, Debug)]
pub struct Ledger {
    /// Which database, and where.
    pub place: Place,
    /// When a row must be safe.
    pub durability: Durability,
}

/// Where state is kept.
#[derive(Clone, Debug)]
pub struct Store {
    /// `sqlite:…`, `memory:` or `postgres://…`; may hold a password.
    pub url: SecretString,
    /// What is older goes.
    pub max_age: Duration,
    /// When there is more, the oldest goes.
    pub max_bytes: u64,
}

/// The pace of the built-in simulator.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Simulator {
    /// Before the first token.
    pub time_to_first_token: Duration,
    /// 0 means at once.
    pub tokens_per_second: f64,
}

/// The way in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Server {
    /// Largest request body.
    pub max_body_bytes: usize,
    /// A request's head must have come within.
    pub header_timeout: Duration,
    /// A request's body must have come within.
    pub body_timeout: Duration,
    /// Streams are never silent for longer than this; 0 lets them.
    pub heartbeat: Duration,
    /// After SIGTERM streams may go on for so long.
    pub drain_timeout: Duration,
    /// After SIGTERM new requests are still served for so long.
    pub min_drain: Duration,
}

/// The way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Upstream {
    /// TCP and TLS.
    pub connect_timeout: Duration,
    /// Until the status line of a stream; unless given, as long as until its first event.
    pub head_timeout: Duration,
    /// Until the first event, thinking included.
    pub first_event_timeout: Duration,
    /// Between two events.
    pub idle_timeout: Duration,
    /// The whole call.
    pub total_timeout: Duration,
    /// How often one request may return to a site that failed.
    pub retries: u32,
    /// How many short whole calls in a hundred may be made twice when they are late.
    pub hedge_percent: u32,
    /// The longest wait before such a return; longer ones are left to the client.
    pub longest_retry_wait: Duration,
    /// A call that begins later than this counts against its site.
    pub slow_start: Option<Duration>,
    /// Calls in flight at one site.
    pub max_in_flight: u32,
}

/// Media that the gateway fetches itself, for models that do not read an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetch {
    /// Hosts: by name, `*.example.com` for all below one, `*` for all public ones.
    pub allow: Vec<String>,
    /// Bytes of all media of one request.
    pub max_bytes: usize,
    /// Time for all media of one request.
    pub timeout: Duration,
    /// Addresses in one request.
    pub max_count: usize,
}

/// What stands between us and Google.
#[derive(Clone, Debug)]
pub struct Network {
    /// The proxy for `https`; may hold a password.
    pub https_proxy: Option<SecretString>,
    /// Hosts, domains and networks that are called without it, separated by commas.
    pub no_proxy: Option<String>,
    /// Certificates of authorities to trust beside the machine's own.
    pub ca_file: Option<PathBuf>,
    /// How long a connection takes new calls.
    pub connection_max_age: Duration,
    /// Credential files may name programs to run (`GOOGLE_EXTERNAL_ACCOUNT_ALLOW_EXECUTABLES=1`).
    pub programs: bool,
}

/// Log lines.
#[derive(Clone, Debug, PartialEq)]
pub struct Log {
    /// How they look.
    pub format: LogFormat,
    /// Which there are, as a `tracing` filter (`info`, `gemway=debug`).
    pub level: String,
    /// Which part of the requests that went well has a line; what went wrong always has one.
    pub share: f64,
}

/// What flags say; what is absent leaves file and environment alone.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// The file.
    pub config: Option<PathBuf>,
    /// For [`Config::listen`].
    pub listen: Option<String>,
    /// For [`Config::admin_listen`].
    pub admin_listen: Option<String>,
    /// Switches [`Config::strict`] on.
    pub strict: bool,
    /// Switches [`Config::insecure_no_auth`] on.
    pub insecure_no_auth: bool,
    /// For [`Log::format`].
    pub log_format: Option<LogFormat>,
    /// For [`Simulator::time_to_first_token`].
    pub simulator_ttft: Option<Duration>,
    /// For [`Simulator::tokens_per_second`].
    pub simulator_tokens_per_second: Option<f64>,
}

/// A variable's value, by its name.
pub type Env<'a> = &'a dyn Fn(&str) -> Option<String>;

/// A file's text, by its path.
pub type ReadFile<'a> = &'a dyn Fn(&Path) -> io::Result<String>;

/// What is wrong with the configuration, as complete text for a person.
#[derive(Debug, PartialEq, Eq)]
pub struct ConfigError(String);

impl ConfigError {
    fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ConfigError {}

impl Config {
    /// The configuration of this process.
    pub fn from_process(flags: &Overrides) -> Result<Self, ConfigError> {
        Self::load(flags, &process_env, &|path| std::fs::read_to_string(path))
    }

    /// File, then environment, then flags.
    pub fn load(flags: &Overrides, env: Env<'_>, read: ReadFile<'_>) -> Result<Self, ConfigError> {
        // A variable that is set to nothing is one that is not set.
        let env = |name: &str| env(name).filter(|value| !value.trim().is_empty());
        resolve::resolve(flags, &env, read)
    }

    /// The model catalogue in effect: the built-in one, under the operator's file if there is one.
    pub fn catalogue(&self, read: ReadFile<'_>) -> Result<Catalog, ConfigError> {
        let builtin = Catalog::builtin().map_err(|error| ConfigError::new(error.message()))?;
        let Some(path) = &self.catalog else { return Ok(builtin) };
        let place = path.display();
        let text = read(path)
            .map_err(|error| ConfigError::new(format!("cannot read the model catalogue {place}: {error}")))?;
        builtin
            .with_override(&text)
            .map_err(|error| ConfigError::new(format!("{place}: {}", error.message())))
    }

    /// The prices in effect: the built-in ones, under the operator's file if there is one.
    pub fn priced(&self, read: ReadFile<'_>) -> Result<Prices, ConfigError> {
        let builtin = Prices::builtin().map_err(|error| ConfigError::new(error.message()))?;
        let Some(path) = &self.prices else { return Ok(builtin) };
        let place = path.display();
        let text = read(path)
            .map_err(|error| ConfigError::new(format!("cannot read the prices {place}: {error}")))?;
        builtin
            .with_override(&text)
            .map_err(|error| ConfigError::new(format!("{place}: {}", error.message())))
    }

    /// [`Config::priced`] from this process's files.
    pub fn prices_from_process(&self) -> Result<Prices, ConfigError> {
        self.priced(&|path| std::fs::read_to_string(path))
    }

    /// [`Config::catalogue`] from this process's files.
    pub fn catalogue_from_process(&self) -> Result<Catalog, ConfigError> {
        self.catalogue(&|path| std::fs::read_to_string(path))
    }

    /// The clients in the form that [`Keys::new`](crate::keys::Keys::new) takes.
    pub fn key_configs(&self) -> Vec<KeyConfig> {
        self.keys.iter().map(Key::to_organ).collect()
    }

    /// How replicas share limits, if they do.
    pub fn sharing(&self) -> Option<Sharing> {
        let limits = &self.limits;
        limits.redis.as_ref().map(|url| Sharing {
            url: url.clone(),
            ca_file: limits.ca_file.clone(),
            on_failure: match limits.on_store_failure {
                OnStoreFailure::Local => OnFailure::Local,
                OnStoreFailure::Deny => OnFailure::Deny,
                OnStoreFailure::Allow => OnFailure::Allow,
            },
            replicas: limits.replicas,
            timeout: limits.store_timeout,
        })
    }

    /// Whether every answer comes from the built-in simulator.
    pub fn simulated(&self) -> bool {
        self.sites.iter().all(|site| matches!(site.kind, SiteKind::Simulator))
    }

    /// What the operator should know: keys that this version accepts and does not act on, among others.
    pub fn warnings(&self) -> Vec<String> {
        self.warnings.clone()
    }

    /// The effective configuration as a TOML file, secrets masked.
    pub fn to_toml(&self) -> String {
        show::show(self)
    }
}

/// Reads one variable of this process.
#[expect(clippy::disallowed_methods, reason = "this is the place that reads the environment")]
pub(crate) fn process_env(name: &str) -> Option<String> {
    std::env::var(name).ok()
}
