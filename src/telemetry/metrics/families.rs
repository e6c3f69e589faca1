//! Every metric by name, kind, labels and meaning, once: the registry, the README's table and the tests all read
//! this file.
//!
//! Names follow Prometheus' conventions (base units, `_total` on counters); those that begin with `gen_ai_` are
//! `OpenTelemetry`'s `GenAI` names with dots as underscores.

use prometheus::{CounterVec, GaugeVec, HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts};

/// What a metric counts with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Seconds, from milliseconds to ten minutes.
    Seconds,
    /// Seconds, from fifty microseconds to a quarter of one.
    Instants,
    /// A share, from minus four to one.
    Ratio,
}

impl Form {
    /// As Prometheus calls it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Seconds | Self::Instants | Self::Ratio => "histogram",
        }
    }
}

/// One metric.
#[derive(Clone, Copy, Debug)]
pub struct Family {
    /// Its name.
    pub name: &'static str,
    /// What it counts with.
    pub form: Form,
    /// Its labels.
    pub labels: &'static [&'static str],
    /// What it means.
    pub help: &'static str,
}

const SECONDS: [f64; 16] =
    [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0];

const INSTANTS: [f64; 12] =
    [0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25];

const RATIOS: [f64; 13] = [-4.0, -2.0, -1.0, -0.5, -0.25, -0.1, 0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0];

const GEN_AI: &[&str] =
    &["gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model", "error_type"];
const TOKENS: &[&str] =
    &["gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model", "gen_ai_token_modality"];

/// Declares the metrics: each becomes a field of [`Families`] and a row of [`ALL`].
macro_rules! families {
    ($($field:ident: $type:ident $form:ident $name:literal $labels:expr, $help:literal;)*) => {
        /// The metrics themselves.
        #[derive(Debug)]
        pub(super) struct Families {
            $(pub(super) $field: $type,)*
        }

        /// Every metric that the gateway itself makes; process and runtime metrics come beside them.
        pub const ALL: &[Family] = &[
            $(Family { name: $name, form: Form::$form, labels: $labels, help: $help },)*
        ];

        impl Families {
            pub(super) fn new() -> Self {
                Self { $($field: $type::make(Form::$form, $name, $help, $labels),)* }
            }

            /// Calls with every metric.
            pub(super) fn each(&self, mut register: impl FnMut(Box<dyn prometheus::core::Collector>)) {
                $(register(Box::new(self.$field.clone()));)*
            }
        }
    };
}

trait Make {
    fn make(form: Form, name: &str, help: &str, labels: &[&str]) -> Self;
}

#[expect(clippy::expect_used, reason = "names and labels are literals of this file; a test makes them all")]
impl Make for IntCounterVec {
    fn make(_: Form, name: &str, help: &str, labels: &[&str]) -> Self {
        Self::new(Opts::new(name, help), labels).expect("a well-formed metric")
    }
}

#[expect(clippy::expect_used, reason = "names and labels are literals of this file; a test makes them all")]
impl Make for CounterVec {
    fn make(_: Form, name: &str, help: &str, labels: &[&str]) -> Self {
        Self::new(Opts::new(name, help), labels).expect("a well-formed metric")
    }
}

#[expect(clippy::expect_used, reason = "names and labels are literals of this file; a test makes them all")]
impl Make for GaugeVec {
    fn make(_: Form, name: &str, help: &str, labels: &[&str]) -> Self {
        Self::new(Opts::new(name, help), labels).expect("a well-formed metric")
    }
}

#[expect(clippy::expect_used, reason = "names and labels are literals of this file; a test makes them all")]
impl Make for IntGaugeVec {
    fn make(_: Form, name: &str, help: &str, labels: &[&str]) -> Self {
        Self::new(Opts::new(name, help), labels).expect("a well-formed metric")
    }
}

#[expect(clippy::expect_used, reason = "names and labels are literals of this file; a test makes them all")]
impl Make for HistogramVec {
    fn make(form: Form, name: &str, help: &str, labels: &[&str]) -> Self {
        let buckets = match form {
            Form::Instants => INSTANTS.to_vec(),
            Form::Ratio => RATIOS.to_vec(),
            Form::Counter | Form::Gauge | Form::Seconds => SECONDS.to_vec(),
        };
        Self::new(HistogramOpts::new(name, help).buckets(buckets), labels).expect("a well-formed metric")
    }
}

families! {
    requests: IntCounterVec Counter "gemway_http_requests_total" &["route", "method", "code", "outcome"],
        "Requests that have ended.";
    duration: HistogramVec Seconds "gemway_http_request_duration_seconds" &["route", "outcome"],
        "From the head of a request to the end of its reply.";
    overhead: HistogramVec Instants "gemway_overhead_seconds" &["route", "phase"],
        "What we took before Google was asked (request), and from its answer to the head of the reply (response).";
    event_lag: HistogramVec Instants "gemway_stream_event_lag_seconds" &[],
        "From an event of Google's being read to its translation being handed to the socket.";
    first_token: HistogramVec Seconds "gemway_time_to_first_token_seconds" &["model"],
        "From the head of a request to the first streamed event.";
    first_token_ours: HistogramVec Instants "gemway_time_to_first_token_overhead_seconds" &["model"],
        "What of that was ours; gen_ai_client_operation_time_to_first_chunk_seconds is what was Google's.";
    in_flight: IntGaugeVec Gauge "gemway_inflight_requests" &[], "Requests whose reply has not ended.";
    streams: IntGaugeVec Gauge "gemway_open_streams" &[], "Replies being streamed.";
    connections: IntGaugeVec Gauge "gemway_connections" &[], "Open client connections.";
    cancelled: IntCounterVec Counter "gemway_client_cancelled_total" &["route", "phase"],
        "Clients that left: before Google was asked (request), before its first byte, or in the stream.";
    truncated: IntCounterVec Counter "gemway_stream_truncated_total" &["reason"],
        "Streams that ended with an error event.";
    tokens: IntCounterVec Counter "gemway_tokens_total" &["model", "kind"],
        "Tokens as Google reported them; cached is a part of input.";
    estimated: IntCounterVec Counter "gemway_estimated_requests_total" &["route"],
        "Requests whose tokens had to be estimated, in part at least.";
    odd_ends: IntCounterVec Counter "gemway_unknown_finish_reasons_total" &["model"],
        "Requests of which an answer ended for a reason that this release does not know, and takes for a stop.";
    key_tokens: IntCounterVec Counter "gemway_key_tokens_total" &["key", "model", "kind"],
        "Tokens by client key: input with cached and with what tools fed back, output with reasoning.";
    key_cost: CounterVec Counter "gemway_key_cost_usd_total" &["key", "model"],
        "Dollars by client key, where prices are known.";
    unpriced: IntCounterVec Counter "gemway_unpriced_requests_total" &["model"],
        "Requests that used tokens of a model whose price is not known.";
    ledger_rows: IntCounterVec Counter "gemway_ledger_rows_total" &["outcome"],
        "Rows written to the ledger, by how their request ended.";
    ledger_recovered: IntCounterVec Counter "gemway_ledger_recovered_rows_total" &[],
        "Those of them that had waited in memory while the ledger was away.";
    ledger_oldest: GaugeVec Gauge "gemway_ledger_oldest_unflushed_seconds" &[],
        "How long the oldest row that is not written yet has waited.";
    ledger_lost: IntCounterVec Counter "gemway_ledger_lost_rows_total" &[],
        "Rows that found no room while the ledger was away.";
    ledger_errors: IntCounterVec Counter "gemway_ledger_errors_total" &[], "Writes to the ledger that failed.";
    ledger_queue: IntGaugeVec Gauge "gemway_ledger_queue_depth" &[], "Rows that wait for the ledger.";
    ledger_up: IntGaugeVec Gauge "gemway_ledger_up" &[], "Whether the ledger takes rows.";
    refusals: IntCounterVec Counter "gemway_ratelimit_rejections_total" &["limit", "scope"],
        "Requests refused by a limit or a budget.";
    limit_store_up: IntGaugeVec Gauge "gemway_ratelimit_store_up" &[],
        "Whether the store that shares limits answers.";
    limit_store_errors: IntCounterVec Counter "gemway_ratelimit_store_errors_total" &[],
        "Calls to that store which failed or took too long.";
    limit_store_took: HistogramVec Instants "gemway_ratelimit_store_duration_seconds" &[],
        "How long requests waited for that store.";
    admitted: IntCounterVec Counter "gemway_ratelimit_admissions_total" &[],
        "Requests that their limits let through.";
    estimate_error: HistogramVec Ratio "gemway_ratelimit_estimate_error_ratio" &["model"],
        "How far the tokens that were reserved were from those that were used: (used - reserved) / used.";
    shed: IntCounterVec Counter "gemway_shed_total" &["reason"],
        "Requests and connections turned away for want of capacity.";
    concurrency: IntGaugeVec Gauge "gemway_concurrency_limit" &["site"],
        "Calls that a site may carry at once; it falls while the site turns calls away.";
    site_in_flight: IntGaugeVec Gauge "gemway_site_inflight_calls" &["site"], "Calls under way at a site.";
    breakers: IntGaugeVec Gauge "gemway_site_breakers" &["site", "state"],
        "Models whose breaker at a site is half_open (called last) or open (not called).";
    cooling: IntGaugeVec Gauge "gemway_site_cooling_models" &["site"],
        "Models without quota at a site for the moment.";
    key_pool: IntGaugeVec Gauge "gemway_key_pool_keys" &["state"],
        "Sites whose credential is ok, cooling (no quota for some model) or invalid (Google refused it).";
    attempts: IntCounterVec Counter "gemway_upstream_attempts_total" &["site", "model", "code", "reason"],
        "Calls made to Google, retries included; reason is empty where they succeeded.";
    retries: IntCounterVec Counter "gemway_upstream_retries_total" &["site", "reason"],
        "Calls that were made because one before had failed, by what it failed of.";
    budget_spent: IntCounterVec Counter "gemway_retry_budget_exhausted_total" &["site"],
        "Calls that were not repeated because too many had been of late.";
    gen_ai_duration: HistogramVec Seconds "gen_ai_client_operation_duration_seconds" GEN_AI,
        "Duration of an operation; error_type is empty where it succeeded.";
    gen_ai_first_chunk: HistogramVec Seconds "gen_ai_client_operation_time_to_first_chunk_seconds" GEN_AI,
        "From calling Google to the first event of its stream.";
    gen_ai_chunk: HistogramVec Seconds "gen_ai_client_operation_time_per_output_chunk_seconds" GEN_AI,
        "From one read of a stream that brought events to the next.";
    gen_ai_input: IntCounterVec Counter "gen_ai_client_inference_usage_input_tokens_total" TOKENS,
        "Input tokens, what server-side tools fed back included.";
    gen_ai_output: IntCounterVec Counter "gen_ai_client_inference_usage_output_tokens_total" TOKENS,
        "Output tokens, reasoning included.";
    gen_ai_cached: IntCounterVec Counter "gen_ai_client_inference_usage_cache_read_input_tokens_total" TOKENS,
        "Input tokens that were read from a cache: a part of the input tokens.";
    gen_ai_reasoning: IntCounterVec Counter "gen_ai_client_inference_usage_reasoning_output_tokens_total" TOKENS,
        "Reasoning tokens: a part of the output tokens.";
    spans_lost: IntCounterVec Counter "gemway_trace_spans_lost_total" &[],
        "Spans that no collector took.";
    reloads: IntCounterVec Counter "gemway_config_reloads_total" &["result"],
        "Configurations read again: taken, or refused with the old one kept.";
    loaded: IntGaugeVec Gauge "gemway_config_last_success_timestamp_seconds" &[],
        "When the configuration in force was read.";
    config: IntGaugeVec Gauge "gemway_config_info" &["hash"],
        "The configuration in force, by a hash of the files that it was read from; always 1.";
    build: IntGaugeVec Gauge "gemway_build_info" &["version", "revision", "rustc"], "The running build; always 1.";
    workers: IntGaugeVec Gauge "tokio_workers" &[], "Worker threads of the runtime that serves clients.";
    tasks: IntGaugeVec Gauge "tokio_alive_tasks" &[], "Tasks that have not ended.";
    queue: IntGaugeVec Gauge "tokio_global_queue_depth" &[], "Tasks that wait for a worker.";
}
