//! Every metric by name, kind, labels and meaning, once: the registry, the README's table and the tests all read
//! this file.
//!
//! Names follow Prometheus' conventions (base units, `_total` on counters); those that begin with `gen_ai_` are
//! `OpenTelemetry`'s `GenAI` names with dots as underscores.

use prometheus::{CounterVec, HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts};

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
}

impl Form {
    /// As Prometheus calls it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Seconds | Self::Instants => "histogram",
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
impl Make for IntGaugeVec {
    fn make(_: Form, name: &str, help: &str, labels: &[&str]) -> Self {
        Self::new(Opts::new(name, help), labels).expect("a well-formed metric")
    }
}

#[expect(clippy::expect_used, reason = "names and labels are literals of this file; a test makes them all")]
impl Make for HistogramVec {
    fn make(form: Form, name: &str, help: &str, labels: &[&str]) -> Self {
        let buckets = if form == Form::Instants { INSTANTS.to_vec() } else { SECONDS.to_vec() };
        Self::new(HistogramOpts::new(name, help).buckets(buckets), labels).expect("a well-formed metric")
    }
}

families! {
    requests: IntCounterVec Counter "gemway_http_requests_total" &["route", "method", "code", "outcome"],
        "Requests that have ended.";
    duration: HistogramVec Seconds "gemway_http_request_duration_seconds" &["route", "outcome"],
        "From the head of a request to the end of its reply.";
    overhead: HistogramVec Instants "gemway_overhead_seconds" &["route"],
        "From the head of a request to the head of its reply, without the time spent waiting for Google.";
    event_lag: HistogramVec Instants "gemway_stream_event_lag_seconds" &[],
        "From an event of Google's being read to its translation being handed to the socket.";
    first_token: HistogramVec Seconds "gemway_time_to_first_token_seconds" &["model"],
        "From the head of a request to the first streamed event.";
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
    ledger_rows: IntCounterVec Counter "gemway_ledger_rows_total" &[], "Rows written to the ledger.";
    ledger_lost: IntCounterVec Counter "gemway_ledger_lost_rows_total" &[],
        "Rows that found no room while the ledger was away.";
    ledger_errors: IntCounterVec Counter "gemway_ledger_errors_total" &[], "Writes to the ledger that failed.";
    ledger_queue: IntGaugeVec Gauge "gemway_ledger_queue_rows" &[], "Rows that wait for the ledger.";
    ledger_up: IntGaugeVec Gauge "gemway_ledger_up" &[], "Whether the ledger takes rows.";
    refusals: IntCounterVec Counter "gemway_limit_refusals_total" &["limit", "scope"],
        "Requests refused by a limit or a budget.";
    limit_store_up: IntGaugeVec Gauge "gemway_limit_store_up" &[],
        "Whether the store that shares limits answers.";
    limit_store_errors: IntCounterVec Counter "gemway_limit_store_errors_total" &[],
        "Calls to that store which failed or took too long.";
    attempts: IntCounterVec Counter "gemway_upstream_attempts_total" &["site", "model", "code"],
        "Calls made to Google, retries included.";
    gen_ai_duration: HistogramVec Seconds "gen_ai_client_operation_duration_seconds" GEN_AI,
        "Duration of an operation; error_type is empty where it succeeded.";
    gen_ai_first_chunk: HistogramVec Seconds "gen_ai_client_operation_time_to_first_chunk_seconds" GEN_AI,
        "From calling Google to the first event of its stream.";
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
    build: IntGaugeVec Gauge "gemway_build_info" &["version"], "The running build; always 1.";
    workers: IntGaugeVec Gauge "tokio_workers" &[], "Worker threads of the runtime that serves clients.";
    tasks: IntGaugeVec Gauge "tokio_alive_tasks" &[], "Tasks that have not ended.";
    queue: IntGaugeVec Gauge "tokio_global_queue_depth" &[], "Tasks that wait for a worker.";
}
