//! Metrics of the books: the ledger, limits and budgets, and who used how many tokens.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use prometheus::{CounterVec, GaugeVec, Histogram, IntCounter, IntCounterVec, IntGaugeVec};

use super::families::Families;
use super::series::{Account, Cache};
use crate::usage::Usage;

/// Names of keys that may become labels; whoever comes later is `other`.
const KEYS: usize = 1000;

/// Handles to the metrics; clones count in the same place.
#[derive(Clone, Debug)]
pub struct Accounts(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    keys: Mutex<HashSet<String>>,
    /// The series of keys that have labels of their own, by key and model.
    used: Cache<2, Account>,
    tokens: IntCounterVec,
    cost: CounterVec,
    unpriced: IntCounterVec,
    rows: IntCounterVec,
    recovered: IntCounterVec,
    /// When the oldest row that is not written was handed over, in milliseconds since 1970; 0 for none.
    oldest: AtomicU64,
    waited: GaugeVec,
    lost: IntCounterVec,
    errors: IntCounterVec,
    queue: IntGaugeVec,
    ledger_up: IntGaugeVec,
    refusals: IntCounterVec,
    store_up: IntGaugeVec,
    store_errors: IntCounterVec,
    store_took: Histogram,
    admitted: OnceLock<IntCounter>,
    admissions: IntCounterVec,
}

impl Default for Accounts {
    fn default() -> Self {
        Self::new()
    }
}

impl Accounts {
    /// Fresh ones that nobody scrapes.
    pub fn new() -> Self {
        Self::of(&Families::new())
    }

    pub(super) fn of(families: &Families) -> Self {
        let accounts = Self(Arc::new(Inner {
            keys: Mutex::default(),
            used: Cache::default(),
            tokens: families.key_tokens.clone(),
            cost: families.key_cost.clone(),
            unpriced: families.unpriced.clone(),
            rows: families.ledger_rows.clone(),
            recovered: families.ledger_recovered.clone(),
            oldest: AtomicU64::new(0),
            waited: families.ledger_oldest.clone(),
            lost: families.ledger_lost.clone(),
            errors: families.ledger_errors.clone(),
            queue: families.ledger_queue.clone(),
            ledger_up: families.ledger_up.clone(),
            refusals: families.refusals.clone(),
            store_up: families.limit_store_up.clone(),
            store_errors: families.limit_store_errors.clone(),
            store_took: families.limit_store_took.with_label_values::<&str>(&[]),
            admitted: OnceLock::new(),
            admissions: families.admitted.clone(),
        }));
        lone(&accounts.0.ledger_up).set(1);
        lone(&accounts.0.store_up).set(1);
        accounts
    }

    /// Counts what a key used. `cost` is in dollars; nothing where no price is known.
    pub fn used(&self, key: &str, model: &str, usage: &Usage, cost: Option<f64>) {
        // Whoever has no label of its own goes under the common one; who is remembered has one.
        let known = self.0.used.find([key, model], 0);
        let key = if known.is_some() || self.has_label(key) { key } else { "other" };
        let series = known.unwrap_or_else(|| self.0.used.of([key, model], 0));
        let kinds = [
            ("input", usage.prompt()),
            ("cached", usage.cached),
            ("output", usage.completion()),
            ("reasoning", usage.thoughts),
        ];
        for ((kind, count), series) in kinds.into_iter().zip(&series.tokens) {
            if count > 0 {
                series.get(|| self.0.tokens.with_label_values(&[key, model, kind])).inc_by(count);
            }
        }
        match cost {
            Some(cost) if cost > 0.0 => {
                series.cost.get(|| self.0.cost.with_label_values(&[key, model])).inc_by(cost);
            }
            Some(_) => {}
            None => series.unpriced.get(|| self.0.unpriced.with_label_values(&[model])).inc(),
        }
    }

    fn has_label(&self, key: &str) -> bool {
        let mut keys = self.0.keys.lock();
        if keys.contains(key) {
            return true;
        }
        let room = keys.len() < KEYS;
        if room {
            keys.insert(key.to_owned());
        }
        room
    }

    /// Rows were handed to the ledger's thread.
    pub fn ledger_queued(&self, rows: usize) {
        lone(&self.0.queue).add(i64::try_from(rows).unwrap_or(i64::MAX));
    }

    /// The ledger's thread took rows.
    pub fn ledger_taken(&self, rows: usize) {
        lone(&self.0.queue).sub(i64::try_from(rows).unwrap_or(i64::MAX));
    }

    /// A row is safe; `outcome` is how its request ended.
    pub fn ledger_written(&self, outcome: &str) {
        self.0.rows.with_label_values(&[outcome]).inc();
    }

    /// Rows are safe that had waited for a ledger that was away.
    pub fn ledger_recovered(&self, rows: usize) {
        count(&self.0.recovered, rows);
    }

    /// The oldest row that is not written was handed over then, in milliseconds since 1970; 0: all are written.
    pub fn ledger_oldest(&self, at: u64) {
        self.0.oldest.store(at, Relaxed);
    }

    /// Puts what changes with the clock into its gauges.
    pub(super) fn refresh(&self, now: u64) {
        let oldest = self.0.oldest.load(Relaxed);
        let waited = if oldest == 0 { 0 } else { now.saturating_sub(oldest) };
        self.0.waited.with_label_values::<&str>(&[]).set(Duration::from_millis(waited).as_secs_f64());
    }

    /// Rows are lost.
    pub fn ledger_lost(&self, rows: usize) {
        count(&self.0.lost, rows);
    }

    /// A write failed.
    pub fn ledger_error(&self) {
        count(&self.0.errors, 1);
    }

    /// The ledger takes rows, or does not.
    pub fn ledger_up(&self, up: bool) {
        lone(&self.0.ledger_up).set(up.into());
    }

    /// A request was refused; both words are from closed sets.
    pub fn refused(&self, limit: &str, scope: &str) {
        self.0.refusals.with_label_values(&[limit, scope]).inc();
    }

    /// A request's limits let it through.
    pub fn admitted(&self) {
        self.0.admitted.get_or_init(|| self.0.admissions.with_label_values::<&str>(&[])).inc();
    }

    /// A request waited so long for the store that shares limits.
    pub fn store_took(&self, wait: Duration) {
        self.0.store_took.observe(wait.as_secs_f64());
    }

    /// The store that shares limits answers, or does not.
    pub fn store_up(&self, up: bool) {
        lone(&self.0.store_up).set(up.into());
    }

    /// A call to that store failed.
    pub fn store_error(&self) {
        count(&self.0.store_errors, 1);
    }
}

/// The only series of a gauge without labels.
fn lone(gauge: &IntGaugeVec) -> prometheus::IntGauge {
    gauge.with_label_values::<&str>(&[])
}

fn count(counter: &IntCounterVec, by: usize) {
    counter.with_label_values::<&str>(&[]).inc_by(by as u64);
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
