//! The line in the log that every request leaves.

use std::time::Duration;

use tracing::Level;

use super::{Entry, Outcome, price};
use crate::telemetry::log;

/// The line's name, for filters.
const TARGET: &str = "gemway::access";

pub(super) fn log(entry: &Entry, outcome: Outcome) {
    let fault = entry.error.as_ref();
    let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let (asked, dropped, agent) = (
        entry.asked.as_deref().map(|asked| log::clipped(asked, 80)),
        entry.dropped.as_deref().map(|dropped| log::clipped(dropped, 200)),
        entry.user_agent.as_deref().map(|agent| log::clipped(agent, 120)),
    );
    let trace = entry.trace.as_ref().map(|trace| trace.id());
    // All fields but the first, once for whatever is to be done with them.
    macro_rules! fields {
        ($then:ident $level:tt) => {
            $then!($level
                key = entry.key.as_deref(),
                route = entry.route,
                method = entry.method,
                http_version = entry.version,
                status = entry.status,
                outcome = outcome.as_str(),
                error = fault.map(|fault| fault.kind.as_str()),
                error_code = fault.and_then(|fault| fault.code.as_deref()),
                error_param = fault.and_then(|fault| fault.param.as_deref()),
                error_cause = fault.and_then(|fault| fault.cause.as_deref()),
                upstream_error = fault.and_then(|fault| fault.said.as_deref()),
                model_requested = asked.as_deref(),
                model_used = entry.model.as_deref(),
                site = entry.site.as_deref(),
                attempts = entry.attempts,
                retry_reason = entry.retried,
                upstream_status = entry.upstream_status,
                provider = entry.provider,
                upstream_ms = millis(entry.upstream),
                trace_id = trace.as_deref(),
                overhead_us = entry.overhead.map(|ours| u64::try_from(ours.as_micros()).unwrap_or(u64::MAX)),
                dropped = dropped.as_deref(),
                stream = entry.stream,
                ttft_ms = entry.first_token.map(millis),
                duration_ms = millis(entry.duration),
                bytes_in = entry.bytes_in,
                bytes_out = entry.bytes_out,
                input_tokens = entry.usage.prompt(),
                output_tokens = entry.usage.completion(),
                reasoning_tokens = entry.usage.thoughts,
                cached_tokens = entry.usage.cached,
                estimated = entry.usage.estimated,
                cost_usd = entry.cost.map(price::dollars),
                user_agent = agent.as_deref())
        };
    }
    macro_rules! event {
        ($level:tt $($name:ident = $value:expr),*) => {
            tracing::event!(
                target: TARGET, Level::$level, request_id = %entry.request_id, $($name = $value,)* "request"
            )
        };
    }
    // The filter is asked as it is for the event: by target, level and fields.
    macro_rules! wanted {
        ($level:tt $($name:ident = $value:expr),*) => {
            tracing::enabled!(target: TARGET, Level::$level, message, request_id, $($name),*)
        };
    }
    macro_rules! put {
        ($line:tt $($name:ident = $value:expr),*) => {
            $($line.put(concat!(",\"", stringify!($name), "\":"), &$value);)*
        };
    }
    let ours = matches!(outcome, Outcome::Failed);
    if !log::is_json() {
        if ours {
            fields!(event WARN);
        } else {
            fields!(event INFO);
        }
        return;
    }
    let (level, wanted) =
        if ours { (Level::WARN, fields!(wanted WARN)) } else { (Level::INFO, fields!(wanted INFO)) };
    if wanted {
        log::put((level, TARGET, "request"), |line| {
            line.put(",\"request_id\":", &*entry.request_id);
            fields!(put line);
        });
    }
}
