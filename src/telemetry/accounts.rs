//! Metrics of the books: the ledger, limits and budgets, and who used how many tokens.

use std::collections::HashSet;
use std::sync::Arc;

use parking_lot::Mutex;
use prometheus::core::Collector;
use prometheus::{CounterVec, IntCounter, IntCounterVec, IntGauge, Opts};

use crate::usage::Usage;

/// Names of keys that may become labels; whoever comes later is `other`.
const KEYS: usize = 1000;

/// Handles to the metrics; clones count in the same place.
#[derive(Clone, Debug)]
pub struct Accounts(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    keys: Mutex<HashSet<String>>,
    tokens: IntCounterVec,
    cost: CounterVec,
    unpriced: IntCounterVec,
    rows: IntCounter,
    lost: IntCounter,
    errors: IntCounter,
    queue: IntGauge,
    ledger_up: IntGauge,
    refusals: IntCounterVec,
    store_up: IntGauge,
    store_errors: IntCounter,
}

impl Default for Accounts {
    fn default() -> Self {
        Self::new()
    }
}

impl Accounts {
    /// Fresh ones, not registered anywhere yet.
    pub fn new() -> Self {
        let accounts = Self(Arc::new(Inner {
            keys: Mutex::default(),
            tokens: vec(
                "gemway_key_tokens_total",
                "Tokens by client key; input includes cached and what tools fed back, output includes reasoning.",
                &["key", "model", "kind"],
            ),
            cost: costs(),
            unpriced: vec(
                "gemway_unpriced_requests_total",
                "Requests that used tokens of a model whose price is not known.",
                &["model"],
            ),
            rows: single("gemway_ledger_rows_total", "Rows that were written to the ledger."),
            lost: single("gemway_ledger_lost_rows_total", "Rows that found no room and are lost."),
            errors: single("gemway_ledger_errors_total", "Writes to the ledger that failed."),
            queue: gauge("gemway_ledger_queue_rows", "Rows that wait for the ledger's thread."),
            ledger_up: gauge("gemway_ledger_up", "Whether the ledger takes rows."),
            refusals: vec(
                "gemway_limit_refusals_total",
                "Requests refused by a limit or a budget.",
                &["limit", "scope"],
            ),
            store_up: gauge("gemway_limit_store_up", "Whether the store that shares limits answers."),
            store_errors: single(
                "gemway_limit_store_errors_total",
                "Calls to the store that shares limits which failed or took too long.",
            ),
        }));
        accounts.0.ledger_up.set(1);
        accounts.0.store_up.set(1);
        accounts
    }

    /// Every metric, to be registered.
    pub fn collectors(&self) -> Vec<Box<dyn Collector>> {
        let inner = &self.0;
        vec![
            Box::new(inner.tokens.clone()),
            Box::new(inner.cost.clone()),
            Box::new(inner.unpriced.clone()),
            Box::new(inner.rows.clone()),
            Box::new(inner.lost.clone()),
            Box::new(inner.errors.clone()),
            Box::new(inner.queue.clone()),
            Box::new(inner.ledger_up.clone()),
            Box::new(inner.refusals.clone()),
            Box::new(inner.store_up.clone()),
            Box::new(inner.store_errors.clone()),
        ]
    }

    /// Counts what a key used. `cost` is in dollars; nothing where no price is known.
    pub fn used(&self, key: &str, model: &str, usage: &Usage, cost: Option<f64>) {
        let known = {
            let mut keys = self.0.keys.lock();
            let known = keys.contains(key);
            if !known && keys.len() < KEYS {
                keys.insert(key.to_owned());
            }
            known || keys.contains(key)
        };
        let key = if known { key } else { "other" };
        let kinds = [
            ("input", usage.prompt()),
            ("cached", usage.cached),
            ("output", usage.completion()),
            ("reasoning", usage.thoughts),
        ];
        for (kind, count) in kinds {
            if count > 0 {
                self.0.tokens.with_label_values(&[key, model, kind]).inc_by(count);
            }
        }
        match cost {
            Some(cost) if cost > 0.0 => self.0.cost.with_label_values(&[key, model]).inc_by(cost),
            Some(_) => {}
            None => self.0.unpriced.with_label_values(&[model]).inc(),
        }
    }

    /// Rows were handed to the ledger's thread.
    pub fn ledger_queued(&self, rows: usize) {
        self.0.queue.add(i64::try_from(rows).unwrap_or(i64::MAX));
    }

    /// The ledger's thread took rows.
    pub fn ledger_taken(&self, rows: usize) {
        self.0.queue.sub(i64::try_from(rows).unwrap_or(i64::MAX));
    }

    /// Rows are safe.
    pub fn ledger_written(&self, rows: usize) {
        self.0.rows.inc_by(rows as u64);
    }

    /// Rows are lost.
    pub fn ledger_lost(&self, rows: usize) {
        self.0.lost.inc_by(rows as u64);
    }

    /// A write failed.
    pub fn ledger_error(&self) {
        self.0.errors.inc();
    }

    /// The ledger takes rows, or does not.
    pub fn ledger_up(&self, up: bool) {
        self.0.ledger_up.set(up.into());
    }

    /// A request was refused; both words are from closed sets.
    pub fn refused(&self, limit: &str, scope: &str) {
        self.0.refusals.with_label_values(&[limit, scope]).inc();
    }

    /// The store that shares limits answers, or does not.
    pub fn store_up(&self, up: bool) {
        self.0.store_up.set(up.into());
    }

    /// A call to that store failed.
    pub fn store_error(&self) {
        self.0.store_errors.inc();
    }
}

#[expect(clippy::expect_used, reason = "names and labels are literals of this file; a test makes them all")]
fn vec(name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    IntCounterVec::new(Opts::new(name, help), labels).expect("a well-formed metric")
}

#[expect(clippy::expect_used, reason = "names and labels are literals of this file; a test makes them all")]
fn costs() -> CounterVec {
    let opts = Opts::new("gemway_key_cost_usd_total", "Dollars by client key, where prices are known.");
    CounterVec::new(opts, &["key", "model"]).expect("a well-formed metric")
}

#[expect(clippy::expect_used, reason = "names are literals of this file; a test makes them all")]
fn single(name: &str, help: &str) -> IntCounter {
    IntCounter::new(name, help).expect("a well-formed metric")
}

#[expect(clippy::expect_used, reason = "names are literals of this file; a test makes them all")]
fn gauge(name: &str, help: &str) -> IntGauge {
    IntGauge::new(name, help).expect("a well-formed metric")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_stay_bounded() {
        let accounts = Accounts::new();
        let usage = Usage { input: 2, ..Usage::default() };
        for key in 0..KEYS + 10 {
            accounts.used(&format!("key-{key}"), "m", &usage, None);
        }
        let other = accounts.0.tokens.with_label_values(&["other", "m", "input"]);
        assert_eq!(other.get(), 20);
        assert_eq!(accounts.0.unpriced.with_label_values(&["m"]).get(), KEYS as u64 + 10);
    }
}
