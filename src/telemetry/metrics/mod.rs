//! The metrics and the moments at which they are counted; the only place that knows how metrics are kept.
//!
//! No label ever comes from a client's bytes: routes, methods and kinds are closed sets, models are the
//! resolved names the engine vouches for, sites come from the configuration.

use std::time::{Duration, Instant};

use prometheus::core::Collector;
use prometheus::{
    Encoder, Histogram, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry, TextEncoder,
};

use super::otlp::{self, Carrier, Post, Spans};
use crate::cork;
use crate::usage::{ByModality, Modality, Usage};

mod accounts;
mod families;
mod series;
#[cfg(test)]
mod tests;

pub use accounts::Accounts;
pub use families::{ALL, Family, Form};

use families::Families;
use series::{Cache, Request, Series};

/// The model label of requests whose model nobody could resolve.
pub const UNRESOLVED: &str = "unresolved";

/// All metrics of the process.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    families: Families,
    /// The only series of its family, looked up once: it is observed for every batch of every stream.
    event_lag: Histogram,
    in_flight: IntGauge,
    /// The series that finished requests and calls to Google counted in before.
    requests: Cache<6, Request>,
    attempts: Cache<3, Series<IntCounter>>,
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
    /// From the first byte of the head to the head of the reply, without the wait for Google.
    pub overhead: Option<Duration>,
    /// What of that passed before Google was asked.
    pub before: Option<Duration>,
    /// Why there was no capacity for it, from a closed set.
    pub shed: Option<&'static str>,
    /// Tokens that were reserved for it.
    pub reserved: Option<u64>,
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
        let in_flight = single(&families.in_flight);
        let runtime = tokio::runtime::Handle::try_current().ok();
        let accounts = Accounts::of(&families);
        let metrics = Self {
            registry: Registry::new(),
            families,
            event_lag,
            in_flight,
            requests: Cache::default(),
            attempts: Cache::default(),
            runtime,
            accounts,
        };
        metrics.families.each(|family| metrics.add(family));
        #[cfg(target_os = "linux")]
        metrics.add(Box::new(prometheus::process_collector::ProcessCollector::for_self()));
        let build = [env!("CARGO_PKG_VERSION"), env!("GEMWAY_REVISION"), env!("GEMWAY_RUSTC")];
        metrics.families.build.with_label_values(&build).set(1);
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
        let model = request.model.unwrap_or(UNRESOLVED);
        let (error, provider) = (request.error.unwrap_or(""), request.provider.unwrap_or(""));
        let words = [request.route, request.method, request.outcome, error, model, provider];
        let series = self.requests.of(words, request.status);
        let requests = || {
            let code = request.status.to_string();
            families.requests.with_label_values(&[request.route, request.method, &code, request.outcome])
        };
        series.requests.get(requests).inc();
        let duration = || families.duration.with_label_values(&[request.route, request.outcome]);
        series.duration.get(duration).observe(request.duration.as_secs_f64());
        if let Some(overhead) = request.overhead {
            let before = request.before.map_or(overhead, |before| before.min(overhead));
            let observe = |series: &Series<Histogram>, phase: &str, part: Duration| {
                let find = || families.overhead.with_label_values(&[request.route, phase]);
                series.get(find).observe(part.as_secs_f64());
            };
            observe(&series.before, "request", before);
            if request.before.is_some() {
                observe(&series.after, "response", overhead.saturating_sub(before));
            }
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
        if let Some(first) = request.first_token {
            let find = || families.first_token.with_label_values(&[model]);
            series.first_token.get(find).observe(first.as_secs_f64());
            let ours = first.saturating_sub(request.upstream);
            let find = || families.first_token_ours.with_label_values(&[model]);
            series.first_token_ours.get(find).observe(ours.as_secs_f64());
        }
        if let Some(reason) = request.shed {
            self.shed(reason);
        }
        self.count(request, model, &series);
        if let Some(provider) = request.provider {
            self.gen_ai(request, provider, model, &series);
        }
    }

    fn count(&self, request: &Finished<'_>, model: &str, series: &Request) {
        let usage = &request.usage;
        let kinds = [
            ("input", usage.input),
            ("cached", usage.cached),
            ("tool_use", usage.tool_use),
            ("output", usage.output),
            ("reasoning", usage.thoughts),
        ];
        for ((kind, count), series) in kinds.into_iter().zip(&series.tokens) {
            if count > 0 {
                series.get(|| self.families.tokens.with_label_values(&[model, kind])).inc_by(count);
            }
        }
        let used = usage.prompt() + usage.completion();
        if let Some(reserved) = request.reserved
            && used > 0
            && !usage.estimated
        {
            #[expect(clippy::cast_precision_loss, reason = "a ratio of token counts, for a histogram")]
            let ratio = (used as f64 - reserved as f64) / used as f64;
            let find = || self.families.estimate_error.with_label_values(&[model]);
            series.estimate_error.get(find).observe(ratio);
        }
        if usage.odd_end {
            self.families.odd_ends.with_label_values(&[model]).inc();
        }
        if usage.estimated {
            self.families.estimated.with_label_values(&[request.route]).inc();
        }
    }

    /// The same request under OpenTelemetry's names.
    fn gen_ai(&self, request: &Finished<'_>, provider: &str, model: &str, series: &Request) {
        let families = &self.families;
        let operation = operation(request.route);
        let labels = [operation, provider, model, request.error.unwrap_or("")];
        let find = || families.gen_ai_duration.with_label_values(&labels);
        series.gen_ai_duration.get(find).observe(request.duration.as_secs_f64());
        if request.first_token.is_some() {
            let find = || families.gen_ai_first_chunk.with_label_values(&labels);
            series.gen_ai_first_chunk.get(find).observe(request.upstream.as_secs_f64());
        }
        let usage = &request.usage;
        let split = |series: &[Series<IntCounter>], family: &IntCounterVec, all: u64, by: &ByModality| {
            // What Google did not break down is text, as far as anybody knows.
            let rest = all.saturating_sub(by.total());
            for (modality, series) in Modality::ALL.into_iter().zip(series) {
                let count = by[modality].saturating_add(if modality == Modality::Text { rest } else { 0 });
                if count > 0 {
                    let labels = [operation, provider, model, modality.as_str()];
                    series.get(|| family.with_label_values(&labels)).inc_by(count);
                }
            }
        };
        let mut input = usage.input_by;
        for modality in Modality::ALL {
            input[modality] = input[modality].saturating_add(usage.tool_use_by[modality]);
        }
        split(&series.gen_ai_input, &families.gen_ai_input, usage.prompt(), &input);
        split(&series.gen_ai_output, &families.gen_ai_output, usage.completion(), &usage.output_by);
        split(&series.gen_ai_cached, &families.gen_ai_cached, usage.cached, &usage.cached_by);
        split(&series.gen_ai_reasoning, &families.gen_ai_reasoning, usage.thoughts, &ByModality::default());
    }

    /// Books one call to Google: its status, where it came to one, and from a closed set why it failed.
    pub fn attempt(&self, site: &str, model: &str, status: Option<u16>, reason: Option<&str>) {
        let reason = reason.unwrap_or_default();
        let series = self.attempts.of([site, model, reason], status.unwrap_or(0));
        let find = || {
            let code = status.map_or_else(|| "none".to_owned(), |status| status.to_string());
            self.families.attempts.with_label_values(&[site, model, &code, reason])
        };
        series.get(find).inc();
    }

    /// Books a call that was made because the one before it had failed.
    pub fn retry(&self, site: &str, reason: &str) {
        self.families.retries.with_label_values(&[site, reason]).inc();
    }

    /// Books what was turned away for want of capacity; `reason` is from a closed set.
    pub fn shed(&self, reason: &str) {
        self.families.shed.with_label_values(&[reason]).inc();
    }

    /// Puts in place of what was known of sites what is known now.
    pub fn sites<'s>(&self, sites: impl Iterator<Item = Site<'s>>) {
        let families = &self.families;
        for gauges in [
            &families.concurrency,
            &families.site_in_flight,
            &families.breakers,
            &families.cooling,
            &families.key_pool,
        ] {
            gauges.reset();
        }
        families.budget_spent.reset();
        let keys = |state: &str| families.key_pool.with_label_values(&[state]);
        for state in ["ok", "cooling", "invalid"] {
            keys(state).set(0);
        }
        for Site { name, in_flight, limit, half_open, open, cooling, refused, denied } in sites {
            let set = |family: &IntGaugeVec, labels: &[&str], value: usize| {
                family.with_label_values(labels).set(i64::try_from(value).unwrap_or(i64::MAX));
            };
            families.concurrency.with_label_values(&[name]).set(limit.into());
            families.site_in_flight.with_label_values(&[name]).set(in_flight.into());
            set(&families.breakers, &[name, "half_open"], half_open);
            set(&families.breakers, &[name, "open"], open);
            set(&families.cooling, &[name], cooling);
            keys(if refused {
                "invalid"
            } else if cooling > 0 {
                "cooling"
            } else {
                "ok"
            })
            .inc();
            families.budget_spent.with_label_values(&[name]).inc_by(denied);
        }
    }

    /// A queue for spans, and what carries them to a collector; `service` is `service.name`.
    pub fn spans(&self, service: &str, post: Post) -> (Spans, Carrier) {
        otlp::open(service, self.families.spans_lost.with_label_values::<&str>(&[]), post)
    }

    /// A configuration was read again and taken; `hash` tells it from others.
    pub fn reloaded(&self, hash: &str) {
        self.families.reloads.with_label_values(&["taken"]).inc();
        self.configured(hash);
        self.loaded();
    }

    /// This configuration is in force; `hash` tells it from others.
    pub fn configured(&self, hash: &str) {
        self.families.config.reset();
        self.families.config.with_label_values(&[hash]).set(1);
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
        Held::new(self.in_flight.clone())
    }

    /// Counts a stream as open until the guard is dropped: on a route, from a provider, of a model, as
    /// [`Finished`] names them.
    pub fn stream(&self, route: &str, provider: Option<&str>, model: Option<&str>) -> Streaming {
        let labels = [operation(route), provider.unwrap_or(""), model.unwrap_or(UNRESOLVED), ""];
        Streaming {
            _open: Held::new(single(&self.families.streams)),
            lag: self.event_lag.clone(),
            pace: provider.map(|_| self.families.gen_ai_chunk.with_label_values(&labels)),
            last: None,
        }
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
        // Whoever has an answer finds it counted.
        cork::settle_all();
        self.accounts.refresh(crate::clock::Clock::System.unix_millis());
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
pub fn operation(route: &str) -> &'static str {
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
    pace: Option<Histogram>,
    last: Option<Instant>,
}

impl Streaming {
    /// Books the time from events having been read to their translation being ready to go, which is now.
    pub fn sent(&mut self, read: Instant) {
        self.lag.observe(read.elapsed().as_secs_f64());
        self.came(read);
    }

    /// Books the time since events came before; now others have.
    pub fn came(&mut self, read: Instant) {
        if let (Some(pace), Some(last)) = (&self.pace, self.last.replace(read)) {
            pace.observe(read.saturating_duration_since(last).as_secs_f64());
        }
    }
}

/// How one site stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Site<'s> {
    /// Its name, which is the operator's.
    pub name: &'s str,
    /// Calls under way.
    pub in_flight: u32,
    /// Calls that it may carry.
    pub limit: u32,
    /// Models that are called there last.
    pub half_open: usize,
    /// Models that are not called there.
    pub open: usize,
    /// Models without quota there.
    pub cooling: usize,
    /// Google refused its credential.
    pub refused: bool,
    /// Calls that were not repeated for want of a retry budget.
    pub denied: u64,
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
