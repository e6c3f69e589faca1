//! The effective configuration, written as a person would write it, secrets masked.

use std::time::Duration;

use toml::{Table, Value};

use crate::catalog::Pattern;
use crate::limits::{Quota, Rule};

use super::{
    Amount, Balance, Config, Durability, GoogleCredentials, Key, KeyProof, OnStoreFailure, Period, Site,
    SiteKind,
};

const MASK: &str = "***";

pub(super) fn show(config: &Config) -> String {
    let mut top = Entries::default();
    top.put("listen", config.listen.to_string())
        .put("admin_listen", config.admin_listen.to_string())
        .maybe("admin_key", config.admin_key.as_ref().map(|_| MASK))
        .put("strict", config.strict)
        .put("credentials", config.credentials.as_str())
        .put("insecure_no_auth", config.insecure_no_auth)
        .put("cost_header", config.cost_header)
        .maybe("prices", config.prices.as_ref().map(|path| path.display().to_string()))
        .maybe("catalog", config.catalog.as_ref().map(|path| path.display().to_string()))
        .put("sites", list(config.sites.iter().map(site)))
        .put(
            "routes",
            list(config.routes.iter().map(|route| {
                let mut entry = Entries::default();
                entry.put("models", strings(&route.models)).put("sites", strings(&route.sites));
                if route.balance == Balance::Spread {
                    let weights = route.sites.iter().zip(&route.weights);
                    let weights = weights.map(|(site, weight)| (site.clone(), i64::from(*weight).into()));
                    entry.put("balance", "spread").put("weights", Value::Table(weights.collect()));
                }
                if !route.fallback.is_empty() {
                    entry.put("fallback", strings(&route.fallback));
                }
                entry
                    .maybe("head_timeout", route.head_timeout.map(span))
                    .maybe("first_event_timeout", route.first_event_timeout.map(span))
                    .maybe("idle_timeout", route.idle_timeout.map(span))
                    .maybe("total_timeout", route.total_timeout.map(span))
                    .maybe("retries", route.retries.map(i64::from))
                    .maybe("hedge_percent", route.hedge_percent.map(i64::from));
                entry
            })),
        );
    if !config.aliases.is_empty() {
        let aliases = config.aliases.iter().map(|(from, to)| (from.clone(), Value::from(to.as_str())));
        top.put("aliases", Value::Table(aliases.collect()));
    }
    if !config.keys.is_empty() {
        top.put("keys", list(config.keys.iter().map(key)));
    }
    let on_store_failure = match config.limits.on_store_failure {
        OnStoreFailure::Local => "local",
        OnStoreFailure::Deny => "deny",
        OnStoreFailure::Allow => "allow",
    };
    top.table("limits", |limits| {
        limits
            .maybe("redis", config.limits.redis.as_ref().map(|_| MASK))
            .maybe("ca_file", config.limits.ca_file.as_ref().map(|path| path.display().to_string()))
            .put("on_store_failure", on_store_failure)
            .put("replicas", i64::from(config.limits.replicas))
            .put("store_timeout", span(config.limits.store_timeout));
        if !config.limits.rules.is_empty() {
            limits.put("rules", list(config.limits.rules.iter().map(rule)));
        }
    });
    if let Some(ledger) = &config.ledger {
        let durability = match ledger.durability {
            Durability::Process => "process",
            Durability::BeforeEnd => "before_end",
        };
        top.table("ledger", |table| {
            table.put("url", MASK).put("durability", durability);
        });
    }
    if let Some(store) = &config.store {
        top.table("store", |table| {
            table
                .put("url", MASK)
                .put("max_age", span(store.max_age))
                .put("max_bytes", i64::try_from(store.max_bytes).unwrap_or(i64::MAX));
        });
    }
    organs(config, &mut top);
    toml::to_string(&top.0).unwrap_or_default()
}

fn organs(config: &Config, top: &mut Entries) {
    top.table("simulator", |table| {
        table
            .put("time_to_first_token", span(config.simulator.time_to_first_token))
            .put("tokens_per_second", config.simulator.tokens_per_second);
    });
    if let Some(traces) = &config.traces {
        top.table("traces", |table| {
            table
                .put("endpoint", traces.endpoint.to_string())
                .put("service", traces.service.as_str())
                .put("share", traces.share);
            if !traces.headers.is_empty() {
                let masked = traces.headers.keys().map(|name| (name.to_string(), Value::from(MASK)));
                table.put("headers", Value::Table(masked.collect()));
            }
        });
    }
    if let Some(tls) = &config.tls {
        let shown = |path: &std::path::Path| path.display().to_string();
        top.table("tls", |table| {
            table
                .put("cert", shown(&tls.cert))
                .put("key", shown(&tls.key))
                .maybe("client_ca", tls.client_ca.as_deref().map(shown));
        });
    }
    let server = config.server;
    top.table("server", |table| {
        table
            .put("max_body_bytes", integer(u64::try_from(server.max_body_bytes).unwrap_or(u64::MAX)))
            .put("header_timeout", span(server.header_timeout))
            .put("body_timeout", span(server.body_timeout))
            .put("heartbeat", span(server.heartbeat))
            .put("drain_timeout", span(server.drain_timeout))
            .put("min_drain", span(server.min_drain));
    });
    let upstream = config.upstream;
    top.table("upstream", |table| {
        table
            .put("connect_timeout", span(upstream.connect_timeout))
            .put("head_timeout", span(upstream.head_timeout))
            .put("first_event_timeout", span(upstream.first_event_timeout))
            .put("idle_timeout", span(upstream.idle_timeout))
            .put("total_timeout", span(upstream.total_timeout))
            .put("retries", i64::from(upstream.retries))
            .put("hedge_percent", i64::from(upstream.hedge_percent))
            .put("longest_retry_wait", span(upstream.longest_retry_wait))
            .maybe("slow_start", upstream.slow_start.map(span))
            .put("max_in_flight", i64::from(upstream.max_in_flight))
            .put("connection_max_age", span(config.network.connection_max_age))
            .maybe("https_proxy", config.network.https_proxy.as_ref().map(|_| MASK))
            .maybe("no_proxy", config.network.no_proxy.as_deref())
            .maybe("ca_file", config.network.ca_file.as_ref().map(|path| path.display().to_string()));
    });
    if let Some(fetch) = &config.fetch {
        top.table("fetch", |table| {
            table
                .put("enabled", true)
                .put("allow", strings(&fetch.allow))
                .put("max_bytes", integer(u64::try_from(fetch.max_bytes).unwrap_or(u64::MAX)))
                .put("timeout", span(fetch.timeout))
                .put("max_count", integer(u64::try_from(fetch.max_count).unwrap_or(u64::MAX)));
        });
    }
    top.table("log", |table| {
        table
            .put("format", config.log.format.as_str())
            .put("level", config.log.level.as_str())
            .put("share", config.log.share);
    });
}

fn site(site: &Site) -> Entries {
    let mut entry = Entries::default();
    entry.put("name", site.name.as_str());
    match &site.kind {
        SiteKind::Simulator => {
            entry.put("kind", "simulator");
        }
        SiteKind::GeminiApi { base_url, api_version, api_key: _ } => {
            entry
                .put("kind", "gemini_api")
                .put("base_url", base_url.as_str())
                .put("api_version", api_version.as_str())
                .put("api_key", MASK);
        }
        SiteKind::Vertex { base_url, api_version, project, location, credentials, quota_project } => {
            let credentials = match credentials {
                GoogleCredentials::Adc => "adc".to_owned(),
                GoogleCredentials::Metadata => "metadata".to_owned(),
                GoogleCredentials::File(path) => format!("file:{}", path.display()),
                GoogleCredentials::ApiKey(_) => format!("api_key:{MASK}"),
            };
            entry
                .put("kind", "vertex")
                .put("base_url", base_url.as_str())
                .put("api_version", api_version.as_str())
                .maybe("project", project.as_deref())
                .put("location", location.as_str())
                .put("native_place", if site.caller_place { "caller" } else { "site" })
                .put("credentials", credentials)
                .maybe("quota_project", quota_project.as_deref());
        }
    }
    entry.put("quota_group", site.quota_group.as_str());
    entry
}

fn rule(rule: &Rule) -> Entries {
    let patterns = |patterns: &[Pattern]| {
        strings(&patterns.iter().map(|pattern| pattern.as_str().to_owned()).collect::<Vec<_>>())
    };
    let mut entry = Entries::default();
    entry
        .put("name", rule.name.as_str())
        .put("keys", patterns(&rule.keys))
        .put("models", patterns(&rule.models));
    let each = [("key", rule.per_key), ("model", rule.per_model)];
    let each: Vec<_> = each.iter().filter(|(_, is)| *is).map(|(name, _)| (*name).to_owned()).collect();
    entry.put("per", strings(&each));
    quota(&mut entry, &rule.quota);
    entry
}

fn quota(entry: &mut Entries, quota: &Quota) {
    entry
        .maybe("requests_per_minute", quota.requests_per_minute.map(i64::from))
        .maybe("requests_per_day", quota.requests_per_day.map(i64::from))
        .maybe("tokens_per_minute", quota.tokens_per_minute.map(integer))
        .maybe("input_tokens_per_minute", quota.input_tokens_per_minute.map(integer))
        .maybe("output_tokens_per_minute", quota.output_tokens_per_minute.map(integer))
        .maybe("concurrent_requests", quota.concurrent_requests.map(i64::from));
}

fn key(key: &Key) -> Entries {
    let mut entry = Entries::default();
    entry.put("name", key.name.as_str());
    match key.proof {
        KeyProof::Secret(_) => entry.put("secret", MASK),
        KeyProof::Sha256(_) => entry.put("hash", MASK),
    };
    if !key.models.is_empty() {
        entry.put("models", strings(&key.models));
    }
    quota(&mut entry, &key.quota());
    if !key.labels.is_empty() {
        let labels = key.labels.iter().map(|(name, value)| (name.clone(), Value::from(value.as_str())));
        entry.put("labels", Value::Table(labels.collect()));
    }
    entry.maybe(
        "expires",
        key.expires
            .and_then(|at| i64::try_from(at).ok())
            .and_then(|at| Some(jiff::Timestamp::from_second(at).ok()?.to_string())),
    );
    if let Some(budget) = key.budget {
        let per = match budget.per {
            Period::Day => "day",
            Period::Month => "month",
        };
        entry.table("budget", |table| {
            match budget.amount {
                Amount::Usd(usd) => table.put("usd", usd),
                Amount::Tokens(tokens) => table.put("tokens", integer(tokens)),
            };
            table.put("per", per);
        });
    }
    entry.put("credentials", key.credentials.as_str());
    entry
}

/// A TOML table that is written entry by entry.
#[derive(Default)]
struct Entries(Table);

impl Entries {
    fn put(&mut self, key: &str, value: impl Into<Value>) -> &mut Self {
        self.0.insert(key.to_owned(), value.into());
        self
    }

    fn maybe(&mut self, key: &str, value: Option<impl Into<Value>>) -> &mut Self {
        if let Some(value) = value {
            self.put(key, value);
        }
        self
    }

    fn table(&mut self, key: &str, fill: impl FnOnce(&mut Self)) {
        let mut table = Self::default();
        fill(&mut table);
        self.put(key, Value::Table(table.0));
    }
}

fn list(entries: impl Iterator<Item = Entries>) -> Value {
    Value::Array(entries.map(|entry| Value::Table(entry.0)).collect())
}

fn strings(texts: &[String]) -> Value {
    Value::Array(texts.iter().map(|text| Value::from(text.as_str())).collect())
}

fn span(duration: Duration) -> String {
    humantime::format_duration(duration).to_string()
}

fn integer(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
