//! From what was written to what is meant: defaults applied, secrets fetched, contradictions refused.

use std::collections::HashSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use serde_spanned::Spanned;

use crate::catalog::Pattern;
use crate::limits::{Quota, Rule};
use crate::store::Place;

use super::file::{self, File, SiteKindName, nearest};
use super::{
    Balance, Config, ConfigError, Env, Fetch, GoogleCredentials, Ledger, Limits, Listen, Log, LogFormat,
    Network, Overrides, ReadFile, Route, Server, Simulator, Site, SiteKind, Store, Upstream, env, secret,
};

pub(super) const GEMINI_VERSION: &str = "v1beta";
pub(super) const VERTEX_VERSION: &str = "v1beta1";

const MIB: u64 = 1024 * 1024;

/// The file being resolved, for complaints that name the place.
pub(super) struct Resolver<'a> {
    path: PathBuf,
    text: String,
    pub(super) env: Env<'a>,
    pub(super) read: ReadFile<'a>,
    warnings: Vec<String>,
}

pub(super) fn resolve(flags: &Overrides, env: Env<'_>, read: ReadFile<'_>) -> Result<Config, ConfigError> {
    let path = flags.config.clone().or_else(|| env("GEMWAY_CONFIG").map(PathBuf::from));
    let (path, text) = match path {
        None => (PathBuf::new(), String::new()),
        Some(path) => {
            let text = read(&path).map_err(|error| {
                ConfigError::new(format!("cannot read the configuration {}: {error}", path.display()))
            })?;
            (path, text)
        }
    };
    let file = file::parse(&path, &text)?;
    Resolver { path, text, env, read, warnings: Vec::new() }.config(file, flags)
}

impl Resolver<'_> {
    fn config(mut self, file: File, flags: &Overrides) -> Result<Config, ConfigError> {
        let listen = self.listen(flags.listen.as_deref(), "GEMWAY_LISTEN", file.listen.as_ref(), 8080)?;
        let admin_listen = self.listen(
            flags.admin_listen.as_deref(),
            "GEMWAY_ADMIN_LISTEN",
            file.admin_listen.as_ref(),
            9090,
        )?;
        let strict =
            flags.strict || env::truthy(self.env, "GEMWAY_STRICT")? || file.strict.unwrap_or_default();
        let insecure_no_auth = flags.insecure_no_auth
            || env::truthy(self.env, "GEMWAY_INSECURE_NO_AUTH")?
            || file.insecure_no_auth.unwrap_or_default();
        let sites = self.sites(&file.sites)?;
        let routes = self.routes(&file.routes, &sites)?;
        let keys = self.keys(&file.keys, file.credentials.unwrap_or_default())?;
        if keys.is_empty() && !listen.is_local() {
            if !insecure_no_auth && file.store.is_none() {
                return Err(ConfigError::new(format!(
                    "listen = \"{listen}\" is reachable from other machines, but there are no client keys: \
                     add [[keys]] or GEMWAY_API_KEYS, listen on 127.0.0.1, or say --insecure-no-auth"
                )));
            }
            if insecure_no_auth {
                self.warnings
                    .push(format!("anyone who reaches {listen} may use this gateway: there are no keys"));
            }
        }
        if !admin_listen.is_local() {
            self.warnings.push(format!("the operator's listener {admin_listen} is reachable without a key"));
        }
        let admin_key = file.admin_key.as_ref().map(|key| self.secret(key)).transpose()?;
        let limits = self.limits(file.limits.as_ref())?;
        let (ledger, store) = self.stores(file.ledger.as_ref(), file.store.as_ref())?;
        for pattern in file.aliases.keys().filter(|alias| alias.contains('*')) {
            self.warnings.push(format!("the alias \"{pattern}\" is taken literally: aliases know no `*`"));
        }
        let fetch = self.fetch(file.fetch)?;
        let log = self.log(&file.log, flags)?;
        let network = self.network(&file.upstream)?;
        let tls = self.tls(file.tls.as_ref())?;
        let traces = self.traces(file.traces.as_ref())?;
        Ok(Config {
            listen,
            admin_listen,
            admin_key,
            strict,
            credentials: file.credentials.unwrap_or_default(),
            insecure_no_auth,
            sites,
            routes,
            aliases: file.aliases,
            keys,
            limits,
            ledger,
            store,
            simulator: simulator(&file.simulator, flags)?,
            server: server(&file.server)?,
            upstream: upstream(&file.upstream),
            fetch,
            network,
            log,
            tls,
            traces,
            catalog: file.catalog.map(PathBuf::from),
            prices: file.prices.map(PathBuf::from),
            cost_header: file.cost_header.unwrap_or_default(),
            warnings: self.warnings,
        })
    }

    pub(super) fn complaint<T>(&self, place: &Spanned<T>, message: &str) -> ConfigError {
        file::at(&self.path, &self.text, &place.span(), message)
    }

    fn listen(
        &self,
        flag: Option<&str>,
        variable: &str,
        written: Option<&Spanned<String>>,
        port: u16,
    ) -> Result<Listen, ConfigError> {
        if let Some(text) = flag {
            return listen(text).map_err(ConfigError::new);
        }
        if let Some(text) = (self.env)(variable) {
            return listen(&text).map_err(|problem| ConfigError::new(format!("{variable}: {problem}")));
        }
        match written {
            Some(text) => listen(text.get_ref()).map_err(|problem| self.complaint(text, &problem)),
            None => Ok(Listen::Tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))),
        }
    }

    pub(super) fn secret(&self, text: &Spanned<String>) -> Result<SecretString, ConfigError> {
        secret::fetch(text.get_ref(), self.env, self.read).map_err(|problem| self.complaint(text, &problem))
    }

    fn sites(&mut self, written: &[file::Site]) -> Result<Vec<Site>, ConfigError> {
        if written.is_empty() {
            return Ok(vec![env::site(self.env, &mut self.warnings)?]);
        }
        let mut seen = HashSet::new();
        written
            .iter()
            .map(|site| {
                let name = site.name.get_ref();
                if name.is_empty() {
                    return Err(self.complaint(&site.name, "a site needs a name"));
                }
                if !seen.insert(name.as_str()) {
                    return Err(self.complaint(&site.name, &format!("two sites are named \"{name}\"")));
                }
                Ok(Site {
                    name: name.clone(),
                    kind: self.site_kind(site)?,
                    quota_group: site.quota_group.clone().unwrap_or_else(|| name.clone()),
                    caller_place: site.native_place == Some(file::NativePlace::Caller),
                })
            })
            .collect()
    }

    fn site_kind(&self, site: &file::Site) -> Result<SiteKind, ConfigError> {
        let given = site.base_url.as_ref();
        let given = given.map(|url| base_url(url.get_ref()).map_err(|problem| self.complaint(url, &problem)));
        let given = given.transpose()?;
        let version = |default: &str| site.api_version.clone().unwrap_or_else(|| default.to_owned());
        self.only_fitting(site)?;
        Ok(match site.kind {
            SiteKindName::Simulator => SiteKind::Simulator,
            SiteKindName::GeminiApi => {
                let Some(api_key) = &site.api_key else {
                    return Err(self.complaint(&site.name, "a gemini_api site needs an api_key"));
                };
                SiteKind::GeminiApi {
                    base_url: given.unwrap_or_else(env::gemini_base),
                    api_version: version(GEMINI_VERSION),
                    api_key: self.secret(api_key)?,
                }
            }
            SiteKindName::Vertex => {
                let credentials = self.google_credentials(site)?;
                if site.project.is_none() && !matches!(credentials, GoogleCredentials::ApiKey(_)) {
                    return Err(self.complaint(&site.name, "a vertex site needs a project, or an API key"));
                }
                let location = site.location.as_ref().map_or("global", |text| text.get_ref().as_str());
                let host = vertex_host(location).map_err(|problem| match &site.location {
                    Some(text) => self.complaint(text, &problem),
                    None => ConfigError::new(problem),
                })?;
                SiteKind::Vertex {
                    base_url: given.unwrap_or(host),
                    api_version: version(VERTEX_VERSION),
                    project: site.project.clone(),
                    location: location.to_owned(),
                    credentials,
                    quota_project: site.quota_project.clone(),
                }
            }
        })
    }

    /// A key that means nothing for the kind of site is a mistake, not a decoration.
    fn only_fitting(&self, site: &file::Site) -> Result<(), ConfigError> {
        let vertex_only = [
            ("project", site.project.is_some()),
            ("location", site.location.is_some()),
            ("credentials", site.credentials.is_some()),
            ("quota_project", site.quota_project.is_some()),
            ("native_place", site.native_place.is_some()),
        ];
        let foreign: Vec<&str> = match site.kind {
            SiteKindName::Vertex => Vec::new(),
            SiteKindName::GeminiApi => {
                vertex_only.iter().filter(|(_, set)| *set).map(|(key, _)| *key).collect()
            }
            SiteKindName::Simulator => {
                let more = [("api_key", site.api_key.is_some()), ("base_url", site.base_url.is_some())];
                vertex_only.iter().chain(&more).filter(|(_, set)| *set).map(|(key, _)| *key).collect()
            }
        };
        match foreign.first() {
            None => Ok(()),
            Some(key) => {
                Err(self.complaint(&site.name, &format!("`{key}` means nothing for a site of this kind")))
            }
        }
    }

    fn google_credentials(&self, site: &file::Site) -> Result<GoogleCredentials, ConfigError> {
        match (&site.credentials, &site.api_key) {
            (Some(text), Some(_)) => {
                Err(self.complaint(text, "give either credentials or api_key, not both"))
            }
            (None, Some(key)) => Ok(GoogleCredentials::ApiKey(self.secret(key)?)),
            (None, None) => Ok(GoogleCredentials::Adc),
            (Some(text), None) => {
                let word = text.get_ref().as_str();
                if let Some(path) = word.strip_prefix("file:") {
                    return Ok(GoogleCredentials::File(PathBuf::from(path)));
                }
                if let Some(key) = word.strip_prefix("api_key:") {
                    let key = secret::fetch(key, self.env, self.read);
                    return key
                        .map(GoogleCredentials::ApiKey)
                        .map_err(|problem| self.complaint(text, &problem));
                }
                match word {
                    "adc" => Ok(GoogleCredentials::Adc),
                    "metadata" => Ok(GoogleCredentials::Metadata),
                    _ => Err(self.complaint(
                        text,
                        "credentials are \"adc\", \"metadata\", \"file:PATH\" or \"api_key:SECRET\"",
                    )),
                }
            }
        }
    }

    fn routes(&self, written: &[file::Route], sites: &[Site]) -> Result<Vec<Route>, ConfigError> {
        let names = || sites.iter().map(|site| site.name.as_str());
        if written.is_empty() {
            let all = names().map(str::to_owned).collect();
            return Ok(vec![everything(all)]);
        }
        let route = |route: &file::Route| {
            for site in &route.sites {
                let name = site.get_ref().as_str();
                if names().all(|known| known != name) {
                    let hint = nearest(name, names()).map_or_else(
                        || format!(", known are: {}", names().collect::<Vec<_>>().join(", ")),
                        |near| format!(", did you mean `{near}`?"),
                    );
                    return Err(self.complaint(site, &format!("there is no site `{name}`{hint}")));
                }
            }
            let weights = self.weights(route)?;
            let span = |given: Option<file::Span>| given.map(|span| span.0);
            Ok(Route {
                models: route.models.clone(),
                sites: route.sites.iter().map(|site| site.get_ref().clone()).collect(),
                balance: route.balance.unwrap_or(match route.weights {
                    Some(_) => Balance::Spread,
                    None => Balance::Order,
                }),
                weights,
                fallback: route.fallback.clone(),
                head_timeout: span(route.head_timeout),
                first_event_timeout: span(route.first_event_timeout),
                idle_timeout: span(route.idle_timeout),
                total_timeout: span(route.total_timeout),
                retries: route.retries,
                hedge_percent: route.hedge_percent,
            })
        };
        written.iter().map(route).collect()
    }

    /// The weights of a route's sites, in their order; 1 where nothing is said.
    fn weights(&self, route: &file::Route) -> Result<Vec<u32>, ConfigError> {
        let Some(weights) = &route.weights else { return Ok(vec![1; route.sites.len()]) };
        if route.balance == Some(Balance::Order) {
            return Err(self.complaint(weights, "weights mean nothing with balance = \"order\""));
        }
        let known = |name: &String| route.sites.iter().any(|site| site.get_ref() == name);
        if let Some(stranger) = weights.get_ref().keys().find(|name| !known(name)) {
            return Err(self.complaint(weights, &format!("this route has no site `{stranger}`")));
        }
        if weights.get_ref().values().any(|weight| *weight == 0) {
            return Err(self.complaint(weights, "a weight is 1 or more; leave out a site that gets nothing"));
        }
        let weight = |site: &Spanned<String>| weights.get_ref().get(site.get_ref()).copied().unwrap_or(1);
        Ok(route.sites.iter().map(weight).collect())
    }

    fn limits(&mut self, written: Option<&file::Limits>) -> Result<Limits, ConfigError> {
        let redis = written.and_then(|limits| limits.redis.as_ref());
        let redis = redis.map(|url| self.secret(url)).transpose()?;
        if let (Some(url), Some(written)) = (&redis, written.and_then(|limits| limits.redis.as_ref()))
            && !["redis://", "rediss://"].iter().any(|scheme| url.expose_secret().starts_with(scheme))
        {
            return Err(self.complaint(written, "the url must begin with redis://, or rediss:// for TLS"));
        }
        let mut rules = Vec::new();
        for rule in written.iter().flat_map(|limits| &limits.rules) {
            rules.push(self.rule(rule, rules.len() + 1));
        }
        let on_store_failure = written.and_then(|limits| limits.on_store_failure).unwrap_or_default();
        let timeout = written.and_then(|limits| limits.store_timeout);
        Ok(Limits {
            redis,
            ca_file: written.and_then(|limits| limits.ca_file.as_ref()).map(PathBuf::from),
            on_store_failure,
            replicas: written.and_then(|limits| limits.replicas).unwrap_or(1),
            store_timeout: timeout.map_or(Duration::from_millis(50), |span| span.0),
            rules,
        })
    }

    fn rule(&mut self, rule: &file::Rule, number: usize) -> Rule {
        let name = rule.name.clone().unwrap_or_else(|| format!("rule {number}"));
        let quota = Quota {
            requests_per_minute: rule.requests_per_minute,
            requests_per_day: rule.requests_per_day,
            tokens_per_minute: rule.tokens_per_minute,
            input_tokens_per_minute: rule.input_tokens_per_minute,
            output_tokens_per_minute: rule.output_tokens_per_minute,
            concurrent_requests: rule.concurrent_requests,
        };
        if quota == Quota::default() {
            self.warnings.push(format!("limits.rules: {name} limits nothing"));
        }
        Rule {
            name,
            keys: rule.keys.iter().map(|key| Pattern::new(key.as_str())).collect(),
            models: rule.models.iter().map(|model| Pattern::new(model.as_str())).collect(),
            per_key: rule.per.contains(&file::Each::Key),
            per_model: rule.per.contains(&file::Each::Model),
            quota,
        }
    }

    fn stores(
        &mut self,
        ledger: Option<&file::Ledger>,
        store: Option<&file::Store>,
    ) -> Result<(Option<Ledger>, Option<Store>), ConfigError> {
        let ledger = match ledger {
            None => None,
            Some(ledger) => {
                let durability = ledger.durability.unwrap_or_default();
                let place = Place::parse(&self.secret(&ledger.url)?)
                    .map_err(|error| self.complaint(&ledger.url, error.message()))?;
                Some(Ledger { place, durability })
            }
        };
        let store = match store {
            None => None,
            Some(store) => {
                let url = self.secret(&store.url)?;
                let in_memory = url.expose_secret().starts_with("memory");
                // OpenAI promises thirty days.
                let max_age = store.max_age.map_or(Duration::from_hours(30 * 24), |span| span.0);
                let max_bytes = store.max_bytes.unwrap_or(if in_memory { 256 * MIB } else { 8192 * MIB });
                Some(Store { url, max_age, max_bytes })
            }
        };
        Ok((ledger, store))
    }

    fn fetch(&self, written: Option<file::Fetch>) -> Result<Option<Fetch>, ConfigError> {
        let Some(written) = written.filter(|written| written.enabled.unwrap_or_default()) else {
            return Ok(None);
        };
        if written.allow.is_empty() {
            return Err(ConfigError::new(
                "[fetch] is enabled and allows no host: name some, as in allow = [\"images.example.com\"]"
                    .to_owned(),
            ));
        }
        for host in &written.allow {
            let name = host.get_ref().strip_prefix("*.").unwrap_or(host.get_ref());
            let plain = !name.is_empty()
                && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'.' || byte == b'-');
            if !plain && host.get_ref() != "*" {
                return Err(
                    self.complaint(host, "a host is written as \"example.com\", \"*.example.com\" or \"*\"")
                );
            }
        }
        let bytes = written.max_bytes.unwrap_or(20 * MIB);
        Ok(Some(Fetch {
            allow: written.allow.into_iter().map(Spanned::into_inner).collect(),
            max_bytes: usize::try_from(bytes).unwrap_or(usize::MAX),
            timeout: written.timeout.map_or(Duration::from_secs(10), |span| span.0),
            max_count: usize::try_from(written.max_count.unwrap_or(16)).unwrap_or(usize::MAX),
        }))
    }

    /// The file's word, else the variables that every tool reads, in either case.
    fn network(&self, written: &file::Upstream) -> Result<Network, ConfigError> {
        let variable = |name: &str| (self.env)(name).or_else(|| (self.env)(&name.to_lowercase()));
        let https_proxy = match &written.https_proxy {
            // An empty one switches the variable off.
            Some(text) if text.get_ref().is_empty() => None,
            Some(text) => Some(self.secret(text)?),
            None => variable("HTTPS_PROXY").or_else(|| variable("ALL_PROXY")).map(SecretString::from),
        };
        Ok(Network {
            https_proxy,
            no_proxy: written.no_proxy.clone().or_else(|| variable("NO_PROXY")),
            ca_file: written.ca_file.as_ref().map(PathBuf::from),
            connection_max_age: written.connection_max_age.map_or(Duration::from_mins(10), |span| span.0),
            programs: (self.env)("GOOGLE_EXTERNAL_ACCOUNT_ALLOW_EXECUTABLES").as_deref() == Some("1"),
        })
    }

    fn log(&self, written: &file::Log, flags: &Overrides) -> Result<Log, ConfigError> {
        let format = match (flags.log_format, (self.env)("GEMWAY_LOG_FORMAT")) {
            (Some(format), _) => format,
            (None, Some(word)) => {
                <LogFormat as clap::ValueEnum>::from_str(word.trim(), true).map_err(|error| {
                    ConfigError::new(format!("GEMWAY_LOG_FORMAT is none of auto, json, pretty: {error}"))
                })?
            }
            (None, None) => written.format.unwrap_or_default(),
        };
        let level = (self.env)("GEMWAY_LOG").or_else(|| written.level.clone());
        let share = written.share.unwrap_or(1.0);
        if !(0.0..=1.0).contains(&share) {
            return Err(ConfigError::new(
                "log.share is between 0 (only what went wrong) and 1 (every request)",
            ));
        }
        Ok(Log { format, level: level.unwrap_or_else(|| "info".to_owned()), share })
    }
}

/// The route of a configuration that writes none: everything goes anywhere.
fn everything(sites: Vec<String>) -> Route {
    Route {
        models: vec!["*".to_owned()],
        weights: vec![1; sites.len()],
        sites,
        balance: Balance::Order,
        fallback: Vec::new(),
        head_timeout: None,
        first_event_timeout: None,
        idle_timeout: None,
        total_timeout: None,
        retries: None,
        hedge_percent: None,
    }
}

fn simulator(written: &file::Simulator, flags: &Overrides) -> Result<Simulator, ConfigError> {
    let pace = flags.simulator_tokens_per_second.or(written.tokens_per_second).unwrap_or(100.0);
    if !pace.is_finite() || pace < 0.0 {
        return Err(ConfigError::new("simulator.tokens_per_second must be 0 (at once) or more"));
    }
    Ok(Simulator {
        time_to_first_token: flags
            .simulator_ttft
            .or(written.time_to_first_token.map(|span| span.0))
            .unwrap_or(Duration::from_millis(200)),
        tokens_per_second: pace,
    })
}

fn server(written: &file::Server) -> Result<Server, ConfigError> {
    let bytes = written.max_body_bytes.unwrap_or(32 * MIB);
    let max_body_bytes = usize::try_from(bytes).map_err(|error| {
        ConfigError::new(format!("server.max_body_bytes = {bytes} is too large for this machine: {error}"))
    })?;
    let span = |given: Option<file::Span>, seconds| given.map_or(Duration::from_secs(seconds), |span| span.0);
    Ok(Server {
        max_body_bytes,
        header_timeout: span(written.header_timeout, 30),
        body_timeout: span(written.body_timeout, 120),
        heartbeat: span(written.heartbeat, 0),
        drain_timeout: span(written.drain_timeout, 570),
        min_drain: span(written.min_drain, 0),
    })
}

fn upstream(written: &file::Upstream) -> Upstream {
    let span = |given: Option<file::Span>, seconds| given.map_or(Duration::from_secs(seconds), |span| span.0);
    Upstream {
        connect_timeout: span(written.connect_timeout, 10),
        head_timeout: span(written.head_timeout.or(written.first_event_timeout), 600),
        first_event_timeout: span(written.first_event_timeout, 600),
        idle_timeout: span(written.idle_timeout, 300),
        total_timeout: span(written.total_timeout, 3600),
        retries: written.retries.unwrap_or(2),
        hedge_percent: written.hedge_percent.unwrap_or(0),
        longest_retry_wait: span(written.longest_retry_wait, 5),
        slow_start: written.slow_start.map(|span| span.0).filter(|span| !span.is_zero()),
        max_in_flight: written.max_in_flight.unwrap_or(20_000),
    }
}

/// Reads `127.0.0.1:8080`, `[::1]:8080`, `localhost:8080`, `:8080` (every address) or `unix:PATH`.
fn listen(text: &str) -> Result<Listen, String> {
    let text = text.trim();
    if let Some(path) = text.strip_prefix("unix:") {
        return if path.is_empty() {
            Err("\"unix:\" needs a path".to_owned())
        } else {
            Ok(Listen::Unix(Path::new(path).to_owned()))
        };
    }
    let numeric = match text.rsplit_once(':') {
        Some(("localhost", port)) => format!("127.0.0.1:{port}"),
        Some(("", port)) => format!("0.0.0.0:{port}"),
        _ => text.to_owned(),
    };
    numeric.parse().map(Listen::Tcp).map_err(|error: std::net::AddrParseError| {
        format!("\"{text}\" is not an address such as \"127.0.0.1:8080\" or \"unix:PATH\": {error}")
    })
}

/// Checks an upstream address; returns it without a trailing slash.
pub(super) fn base_url(text: &str) -> Result<String, String> {
    let bad = |why: &str| format!("\"{text}\" is not an address to call: {why}");
    let uri: http::Uri =
        text.trim().parse().map_err(|error: http::uri::InvalidUri| bad(&error.to_string()))?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) || uri.host().is_none_or(str::is_empty) {
        return Err(bad("it must begin with https:// (or http://) and a host"));
    }
    if uri.query().is_some() || uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return Err(bad("it may have neither a query nor a password"));
    }
    Ok(text.trim().trim_end_matches('/').to_owned())
}

/// The host that serves a Vertex location.
pub(super) fn vertex_host(location: &str) -> Result<String, String> {
    let clean = !location.is_empty()
        && location.len() <= 63
        && location.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    match location {
        "global" => Ok("https://aiplatform.googleapis.com".to_owned()),
        _ if !clean => Err(format!(
            "\"{location}\" is not a location such as \"us-central1\", \"global\", \"us\" or \"eu\""
        )),
        region if region.contains('-') => Ok(format!("https://{region}-aiplatform.googleapis.com")),
        multi => Ok(format!("https://aiplatform.{multi}.rep.googleapis.com")),
    }
}
