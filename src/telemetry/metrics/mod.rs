//! The metrics and the moments at which they are counted; the only place that knows how metrics are kept.
//!
//! No label ever comes from a client's bytes: routes, methods and kinds are closed sets, models are the
//! resolved names the engine vouches for, sites come from the configuration.

use std::time::Duration;

use prometheus::core::Collector;
use prometheus::{Encoder, Histogram, IntGauge, IntGaugeVec, Registry, TextEncoder};

use super::otlp::{self, Carrier, Post, Spans};
use crate::usage::{ByModality, Modality, Usage};

mod accounts;
mod families;
#[cfg(test)]
mod tests;

pub use accounts::Accounts;
pub use families::{ALL, Family, Form};

use families::Families;

/// The model label of requests whose model nobody could resolve.
pub const UNRESOLVED: &str = "unresolved";

/// All metrics of the process.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    families: Families,
    /// The only series of its family, looked up once: it is observed for every batch of every stream.
    event_lag: Histogram,
    /// The runtime that is looked at when somebody scrapes.
    runtime: Option<tokio::runtime::Handle>,
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
    /// What went wrong, from a closed set; nothing where it went well.
    pub error: Option<&'a str>,
    /// The resolved model, where one was.
    pub model: Option<&'a str>,
    /// OpenTelemetry's name for who answered (`gcp.gemini`, `gcp.vertex_ai`), where somebody was asked.
    pub provider: Option<&'a str>,
    /// The reply is a stream.
    pub stream: bool,
    /// From the first byte of the head to the last of the reply.
    pub duration: Duration,
    /// To the first token.
    pub first_token: Option<Duration>,
    /// From the first byte of the head to the head of the reply, without what follows.
    pub overhead: Option<Duration>,
    /// The wait for Google before the reply's head.
    pub upstream: Duration,
    /// What it cost.
    pub usage: Usage,
}

impl Metrics {
    /// Fresh metrics with a registry of their own. Made inside a runtime, they tell of it too.
    pub fn new() -> Self {
        let families = Families::new();
        let event_lag = families.event_lag.with_label_values::<&str>(&[]);
        let runtime = tokio::runtime::Handle::try_current().ok();
        let accounts = Accounts::of(&families);
        let metrics = Self { registry: Registry::new(), families, event_lag, runtime, accounts };
        metrics.families.each(|family| metrics.add(family));
        #[cfg(target_os = "linux")]
        metrics.add(Box::new(prometheus::process_collector::ProcessCollector::for_self()));
        metrics.families.build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        metrics.loaded();
        // A gauge that was never touched would be missing from the scrape; dashboards want its zero.
        for family in [&metrics.families.in_flight, &metrics.families.streams, &metrics.families.connections]
        {
            single(family).set(0);
        }
        metrics
    }

    fn add(&self, collector: Box<dyn Collector>) {
        if let Err(error) = self.registry.register(collector) {
            tracing::warn!(%error, "a metric was not registered");
        }
    }

    /// The metrics of ledger, limits and keys.
    pub fn accounts(&self) -> &Accounts {
        &self.accounts
    }

    /// Books a finished request.
    pub fn finished(&self, request: &Finished<'_>) {
        let families = &self.families;
        let code = request.status.to_string();
        families.requests.with_label_values(&[request.route, request.method, &code, request.outcome]).inc();
        families
            .duration
            .with_label_values(&[request.route, request.outcome])
            .observe(request.duration.as_secs_f64());
        if let Some(overhead) = request.overhead {
            families.overhead.with_label_values(&[request.route]).observe(overhead.as_secs_f64());
        }
        if request.outcome == "client_cancelled" {
            let phase = match (request.provider, request.first_token) {
                (None, _) => "request",
                (Some(_), None) => "first_byte",
                (Some(_), Some(_)) => "stream",
            };
            families.cancelled.with_label_values(&[request.route, phase]).inc();
        }
        if request.stream
            && let Some(error) = request.error
        {
            families.truncated.with_label_values(&[error]).inc();
        }
        let model = request.model.unwrap_or(UNRESOLVED);
        if let Some(first) = request.first_token {
            families.first_token.with_label_values(&[model]).observe(first.as_secs_f64());
        }
        self.count(request, model);
        if let Some(provider) = request.provider {
            self.gen_ai(request, provider, model);
        }
    }

    fn count(&self, request: &Finished<'_>, model: &str) {
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
                self.families.tokens.with_label_values(&[model, kind]).inc_by(count);
            }
        }
        if usage.odd_end {
            self.families.odd_ends.with_label_values(&[model]).inc();
        }
        if usage.estimated {
            self.families.estimated.with_label_values(&[request.route]).inc();
        }
    }

    /// The same request under OpenTelemetry's names.
    fn gen_ai(&self, request: &Finished<'_>, provider: &str, model: &str) {
        let families = &self.families;
        let operation = operation(request.route);
        let labels = [operation, provider, model, request.error.unwrap_or("")];
        families.gen_ai_duration.with_label_values(&labels).observe(request.duration.as_secs_f64());
        if request.first_token.is_some() {
            families.gen_ai_first_chunk.with_label_values(&labels).observe(request.upstream.as_secs_f64());
        }
        let usage = &request.usage;
        let split = |family: &prometheus::IntCounterVec, all: u64, by: &ByModality| {
            // What Google did not break down is text, as far as anybody knows.
            let rest = all.saturating_sub(by.total());
            for modality in Modality::ALL {
                let count = by[modality].saturating_add(if modality == Modality::Text { rest } else { 0 });
                if count > 0 {
                    family.with_label_values(&[operation, provider, model, modality.as_str()]).inc_by(count);
                }
            }
        };
        let mut input = usage.input_by;
        for modality in Modality::ALL {
            input[modality] = input[modality].saturating_add(usage.tool_use_by[modality]);
        }
        split(&families.gen_ai_input, usage.prompt(), &input);
        split(&families.gen_ai_output, usage.completion(), &usage.output_by);
        split(&families.gen_ai_cached, usage.cached, &usage.cached_by);
        split(&families.gen_ai_reasoning, usage.thoughts, &ByModality::default());
    }

    /// Books one call to Google; `code` is its status, or a short word when there was none.
    pub fn attempt(&self, site: &str, model: &str, code: &str) {
        self.families.attempts.with_label_values(&[site, model, code]).inc();
    }

    /// A queue for spans, and what carries them to a collector; `service` is `service.name`.
    pub fn spans(&self, service: &str, post: Post) -> (Spans, Carrier) {
        otlp::open(service, self.families.spans_lost.with_label_values::<&str>(&[]), post)
    }

    /// A configuration was read again and taken.
    pub fn reloaded(&self) {
        self.families.reloads.with_label_values(&["taken"]).inc();
        self.loaded();
    }

    /// A configuration was read again and refused; the old one stays.
    pub fn reload_refused(&self) {
        self.families.reloads.with_label_values(&["refused"]).inc();
    }

    fn loaded(&self) {
        let now = crate::clock::Clock::System.unix_seconds();
        single(&self.families.loaded).set(i64::try_from(now).unwrap_or(i64::MAX));
    }

    /// Counts a request as in flight until the guard is dropped.
    pub fn in_flight(&self) -> Held {
        Held::new(single(&self.families.in_flight))
    }

    /// Counts a stream as open until the guard is dropped.
    pub fn stream(&self) -> Streaming {
        Streaming { _open: Held::new(single(&self.families.streams)), lag: self.event_lag.clone() }
    }

    /// Counts a connection as open until the guard is dropped.
    pub fn connection(&self) -> Held {
        Held::new(single(&self.families.connections))
    }

    /// How many requests are in flight.
    pub fn in_flight_now(&self) -> i64 {
        single(&self.families.in_flight).get()
    }

    /// How many streams are open.
    pub fn streams_now(&self) -> i64 {
        single(&self.families.streams).get()
    }

    /// The text that Prometheus scrapes.
    pub fn render(&self) -> Vec<u8> {
        if let Some(runtime) = &self.runtime {
            let seen = runtime.metrics();
            let set = |family: &IntGaugeVec, value: usize| {
                single(family).set(i64::try_from(value).unwrap_or(i64::MAX));
            };
            set(&self.families.workers, seen.num_workers());
            set(&self.families.tasks, seen.num_alive_tasks());
            set(&self.families.queue, seen.global_queue_depth());
        }
        let mut text = Vec::new();
        if let Err(error) = TextEncoder::new().encode(&self.registry.gather(), &mut text) {
            tracing::warn!(%error, "the metrics could not be written");
        }
        text
    }
}

/// The one series of a family without labels.
fn single(family: &IntGaugeVec) -> IntGauge {
    family.with_label_values::<&str>(&[])
}

/// OpenTelemetry's name for what a route does.
fn operation(route: &str) -> &'static str {
    match route {
        "completions" => "text_completion",
        "embeddings" => "embeddings",
        route if route.starts_with("native") => "generate_content",
        _ => "chat",
    }
}

/// Something counted for as long as this lives.
#[derive(Debug)]
pub struct Held(IntGauge);

impl Held {
    fn new(gauge: IntGauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// An open stream.
#[derive(Debug)]
pub struct Streaming {
    _open: Held,
    lag: Histogram,
}

impl Streaming {
    /// Books the time from events having been read to their translation being ready to go.
    pub fn lag(&self, lag: Duration) {
        self.lag.observe(lag.as_secs_f64());
    }
}

/// The metrics as rows of a Markdown table, for the README.
pub fn table() -> String {
    let mut table = String::from("| metric | kind | labels | meaning |\n|---|---|---|---|\n");
    for Family { name, form, labels, help } in ALL {
        let labels = labels.iter().map(|label| format!("`{label}`")).collect::<Vec<_>>().join(", ");
        table.extend(["| `", name, "` | ", form.as_str(), " | ", &labels, " | ", help, " |\n"]);
    }
    table
}
