//! The running binary as an operator sees it: headers, logs, metrics, traces, certificates, and a configuration that
//! changes under load.

#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests fail that way")]

mod answers;
mod listeners;
mod logs;
mod reload;
mod scrape;
#[expect(dead_code, reason = "each suite uses its part")]
#[path = "../support/mod.rs"]
mod support;
mod traces;
