//! Every metric, in one place; the only file that knows how metrics are kept.
//!
//! No label ever comes from a client's bytes: routes, methods and kinds are closed sets, models are the
//! resolved names the engine vouches for, sites come from the configuration.

use std::time::Duration;

use prometheus::core::Collector;
use prometheus::{
    Encoder, GaugeVec, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, Opts, Registry, TextEncoder,
};

use super::Accounts;
use crate::usage::Usage;

/// The model label of requests whose model nobody could resolve.
pub const UNRESOLVED: &str = "unresolved";

const SECONDS: [f64; 16] =
    [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0];

/// All metrics of the process.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    duration: HistogramVec,
    first_token: HistogramVec,
    tokens: IntCounterVec,
    attempts: IntCounterVec,
    in_flight: IntGauge,
    streams: IntGauge,
    connections: IntGauge,
    accounts: Accounts,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

/// One finished request, as the metrics count it.
#[derive(Clone, Copy, Debug)]
pub struct Finished<'a> {
    /// The route's name, not its path.
    pub route: &'a str,
    /// The method, from a closed set.
    pub method: &'a str,
    /// The status that was sent.
    pub status: u16,
    /// How it ended.
    pub outcome: &'a str,
    /// The resolved model, where one was.
    pub model: Option<&'a str>,
    /// From the first byte of the head to the last of the reply.
    pub duration: Duration,
    /// To the first token.
    pub first_token: Option<Duration>,
    /// What it cost.
    pub usage: Usage,
}

impl Metrics {
    /// Fresh metrics with a registry of their own.
    pub fn new() -> Self {
        let registry = Registry::new();
        let metrics = Self {
            requests: counter(
                "gemway_http_requests_total",
                "Requests that have ended.",
                &["route", "method", "code", "outcome"],
            ),
            duration: histogram(
                "gemway_http_request_duration_seconds",
                "From the head of a request to the end of its reply.",
                &["route", "outcome"],
            ),
            first_token: histogram(
                "gemway_time_to_first_token_seconds",
                "From the head of a request to the first streamed event.",
                &["model"],
            ),
            tokens: counter(
                "gemway_tokens_total",
                "Tokens as Google reported them; cached is a part of input.",
                &["model", "kind"],
            ),
            attempts: counter(
                "gemway_upstream_attempts_total",
                "Calls made to Google, retries included.",
                &["site", "model", "code"],
            ),
            in_flight: gauge("gemway_in_flight_requests", "Requests whose reply has not ended."),
            streams: gauge("gemway_open_streams", "Replies being streamed."),
            connections: gauge("gemway_connections", "Open client connections."),
            accounts: Accounts::new(),
            registry,
        };
        metrics.register();
        metrics
    }

    fn register(&self) {
        if let Ok(build) = GaugeVec::new(Opts::new("gemway_build_info", "The running build."), &["version"]) {
            build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1.0);
            self.add(build);
        }
        self.add(self.requests.clone());
        self.add(self.duration.clone());
        self.add(self.first_token.clone());
        self.add(self.tokens.clone());
        self.add(self.attempts.clone());
        self.add(self.in_flight.clone());
        self.add(self.streams.clone());
        self.add(self.connections.clone());
        for collector in self.accounts.collectors() {
            if let Err(error) = self.registry.register(collector) {
                tracing::warn!(%error, "a metric was not registered");
            }
        }
        #[cfg(target_os = "linux")]
        self.add(prometheus::process_collector::ProcessCollector::for_self());
    }

    fn add(&self, collector: impl Collector + 'static) {
        if let Err(error) = self.registry.register(Box::new(collector)) {
            tracing::warn!(%error, "a metric was not registered");
        }
    }

    /// The metrics of ledger, limits and keys.
    pub fn accounts(&self) -> &Accounts {
        &self.accounts
    }

    /// Books a finished request.
    pub fn finished(&self, request: &Finished<'_>) {
        let code = request.status.to_string();
        self.requests
            .with_label_values(&[request.route, request.method, code.as_str(), request.outcome])
            .inc();
        self.duration
            .with_label_values(&[request.route, request.outcome])
            .observe(request.duration.as_secs_f64());
        let model = request.model.unwrap_or(UNRESOLVED);
        if let Some(first) = request.first_token {
            self.first_token.with_label_values(&[model]).observe(first.as_secs_f64());
        }
        let usage = &request.usage;
        let kinds = [
            ("input", usage.input),
            ("cached", usage.cached),
            ("tool_use", usage.tool_use),
            ("output", usage.output),
            ("reasoning", usage.thoughts),
        ];
        for (kind, count) in kinds {
            if count > 0 {
                self.tokens.with_label_values(&[model, kind]).inc_by(count);
            }
        }
    }

    /// Books one call to Google; `code` is its status, or a short word when there was none.
    pub fn attempt(&self, site: &str, model: &str, code: &str) {
        self.attempts.with_label_values(&[site, model, code]).inc();
    }

    /// Counts a request as in flight until the guard is dropped.
    pub fn in_flight(&self) -> Held {
        Held::new(&self.in_flight)
    }

    /// Counts a stream as open until the guard is dropped.
    pub fn stream(&self) -> Held {
        Held::new(&self.streams)
    }

    /// Counts a connection as open until the guard is dropped.
    pub fn connection(&self) -> Held {
        Held::new(&self.connections)
    }

    /// How many requests are in flight.
    pub fn in_flight_now(&self) -> i64 {
        self.in_flight.get()
    }

    /// How many streams are open.
    pub fn streams_now(&self) -> i64 {
        self.streams.get()
    }

    /// The text that Prometheus scrapes.
    pub fn render(&self) -> Vec<u8> {
        let mut text = Vec::new();
        if let Err(error) = TextEncoder::new().encode(&self.registry.gather(), &mut text) {
            tracing::warn!(%error, "the metrics could not be written");
        }
        text
    }
}

/// Something counted for as long as this lives.
#[derive(Debug)]
pub struct Held(IntGauge);

impl Held {
    fn new(gauge: &IntGauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[expect(clippy::expect_used, reason = "names and labels are literals of this file; a test makes them all")]
fn counter(name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    IntCounterVec::new(Opts::new(name, help), labels).expect("a well-formed metric")
}

#[expect(clippy::expect_used, reason = "names and labels are literals of this file; a test makes them all")]
fn histogram(name: &str, help: &str, labels: &[&str]) -> HistogramVec {
    HistogramVec::new(HistogramOpts::new(name, help).buckets(SECONDS.to_vec()), labels)
        .expect("a well-formed metric")
}

#[expect(clippy::expect_used, reason = "names and labels are literals of this file; a test makes them all")]
fn gauge(name: &str, help: &str) -> IntGauge {
    IntGauge::new(name, help).expect("a well-formed metric")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finished_request_shows() {
        let metrics = Metrics::new();
        let usage = Usage { input: 7, output: 3, ..Usage::default() };
        let held = metrics.in_flight();
        metrics.attempt("studio", "gemini-x", "200");
        metrics.finished(&Finished {
            route: "chat",
            method: "POST",
            status: 200,
            outcome: "ok",
            model: None,
            duration: Duration::from_millis(12),
            first_token: Some(Duration::from_millis(5)),
            usage,
        });
        let text = String::from_utf8(metrics.render()).unwrap();
        for line in [
            r#"gemway_http_requests_total{code="200",method="POST",outcome="ok",route="chat"} 1"#,
            r#"gemway_tokens_total{kind="input",model="unresolved"} 7"#,
            r#"gemway_upstream_attempts_total{code="200",model="gemini-x",site="studio"} 1"#,
            "gemway_in_flight_requests 1",
            "gemway_build_info",
        ] {
            assert!(text.contains(line), "{line} is missing in\n{text}");
        }
        drop(held);
        assert_eq!(metrics.in_flight_now(), 0);
    }
}
