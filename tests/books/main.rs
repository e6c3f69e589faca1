//! The books, end to end: what clients saw, what the ledger holds and what the metrics say, with real processes.

#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests fail that way")]

mod agree;
mod keys;
mod kill;
mod replicas;
#[expect(dead_code, reason = "each suite uses its part")]
#[path = "../support/mod.rs"]
mod support;
mod terms;
