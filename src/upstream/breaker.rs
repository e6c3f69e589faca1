//! Whether a model at a site is worth a call: failures in a row make it doubtful, many more close it.
//!
//! A doubtful place comes last in the order; a closed one is not called at all. Either way one call is let through
//! when the wait is over: the probe. A probe that works opens the place again; one that fails doubles the wait.
//!
//! Answers that break off in their middle are a row of their own: that the next one begins well does not end it,
//! that one ends well does.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};

/// So many failures in a row send callers elsewhere, where there is an elsewhere.
const DOUBTFUL: u32 = 5;
/// So many mean that calling is pointless, even for want of anything better. Much higher, for a place that is not
/// called cannot answer: a handful of unlucky requests must not close the only one there is.
const CLOSED: u32 = 50;
/// Failures further apart than this are no row.
const MEMORY_MS: u64 = 10_000;
const FIRST_WAIT_MS: u64 = 500;
const LONGEST_WAIT_MS: u64 = 30_000;

/// What is known of one model at one site. Times are milliseconds since some common moment.
#[derive(Debug, Default)]
pub(super) struct Breaker {
    failures: Row,
    breaks: Row,
    wait: AtomicU64,
    probe_at: AtomicU64,
    probing: AtomicBool,
}

/// Failures in a row.
#[derive(Debug, Default)]
struct Row {
    count: AtomicU32,
    last: AtomicU64,
}

impl Row {
    fn count(&self) -> u32 {
        self.count.load(Relaxed)
    }

    /// One more; older ones are forgotten if the last was longer ago than `memory`.
    fn more(&self, now: u64, memory: u64) -> u32 {
        let last = self.last.swap(now, Relaxed);
        let before = if now.saturating_sub(last) > memory { 0 } else { self.count() };
        let count = before.saturating_add(1);
        self.count.store(count, Relaxed);
        count
    }

    fn over(&self) {
        self.count.store(0, Relaxed);
    }
}

/// How a place stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Standing {
    /// Call it.
    Well,
    /// Call it if nothing better is left, or as a probe.
    Doubtful,
    /// Do not call it, except as a probe.
    Closed,
}

impl Breaker {
    pub(super) fn standing(&self) -> Standing {
        match self.failures.count().max(self.breaks.count()) {
            failures if failures < DOUBTFUL => Standing::Well,
            failures if failures < CLOSED => Standing::Doubtful,
            _ => Standing::Closed,
        }
    }

    /// When the next probe may go.
    pub(super) fn probe_at(&self) -> u64 {
        self.probe_at.load(Relaxed)
    }

    /// Takes the one probe that is due, if it is. It must be given back with one of the words below.
    pub(super) fn probe(&self, now: u64) -> bool {
        now >= self.probe_at() && !self.probing.swap(true, Relaxed)
    }

    /// A call worked, to its end.
    pub(super) fn worked(&self) {
        // The common case reads and writes nothing that others write.
        if self.failures.count() > 0 || self.breaks.count() > 0 {
            self.failures.over();
            self.breaks.over();
            self.wait.store(0, Relaxed);
            self.probing.store(false, Relaxed);
        }
    }

    /// An answer began well. `false`: that proves nothing here, where answers begin and then break; its end will.
    pub(super) fn began(&self) -> bool {
        if self.breaks.count() >= DOUBTFUL {
            self.failures.over();
            return false;
        }
        if self.failures.count() > 0 {
            self.failures.over();
            self.wait.store(0, Relaxed);
            self.probing.store(false, Relaxed);
        }
        true
    }

    /// An answer came to its end; `probe` if it was to show that answers do. Its beginning may be long ago, so it
    /// says nothing of those that do not even begin.
    pub(super) fn ended(&self, probe: bool) {
        if self.breaks.count() > 0 {
            self.breaks.over();
        }
        if probe {
            self.wait.store(0, Relaxed);
            self.probing.store(false, Relaxed);
        }
    }

    /// A call failed, and the place is to blame.
    pub(super) fn failed(&self, now: u64) {
        self.count(&self.failures, now);
    }

    /// An answer broke off in its middle.
    pub(super) fn broke(&self, now: u64) {
        self.count(&self.breaks, now);
    }

    fn count(&self, row: &Row, now: u64) {
        // A closed place hears nothing for a long time, by its own doing.
        let failures = row.more(now, MEMORY_MS + self.wait.load(Relaxed));
        if failures < DOUBTFUL {
            return;
        }
        // Calls that were under way when the place was given up say nothing new; a probe's failure does.
        if self.probing.swap(false, Relaxed) || failures == DOUBTFUL || failures == CLOSED {
            let wait = (self.wait.load(Relaxed) * 2).clamp(FIRST_WAIT_MS, LONGEST_WAIT_MS);
            self.wait.store(wait, Relaxed);
            self.probe_at.store(now + wait, Relaxed);
        }
    }

    /// A call ended without telling anything about the place (the client left).
    pub(super) fn abandoned(&self) {
        self.probing.store(false, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failing(times: u32, now: u64) -> Breaker {
        let breaker = Breaker::default();
        (0..times).for_each(|_| breaker.failed(now));
        breaker
    }

    #[test]
    fn a_row_of_failures_is_believed_and_one_success_forgets_it() {
        assert_eq!(failing(4, 9).standing(), Standing::Well);
        assert_eq!(failing(5, 9).standing(), Standing::Doubtful);
        let closed = failing(50, 9);
        assert_eq!(closed.standing(), Standing::Closed);
        closed.worked();
        assert_eq!(closed.standing(), Standing::Well);
    }

    #[test]
    fn answers_that_begin_well_and_break_are_a_row() {
        let breaker = Breaker::default();
        for at in 0..5 {
            assert_eq!(breaker.standing(), Standing::Well);
            assert!(breaker.began());
            breaker.broke(at);
        }
        assert_eq!(breaker.standing(), Standing::Doubtful);
        // The probe begins well, which proves nothing; it is given back when it ends.
        assert!(breaker.probe(600) && !breaker.began());
        assert_eq!((breaker.standing(), breaker.probe(600)), (Standing::Doubtful, false));
        breaker.broke(700);
        assert_eq!(breaker.probe_at(), 1700);
        assert!(breaker.probe(1700));
        breaker.ended(true);
        assert_eq!(breaker.standing(), Standing::Well);
        breaker.broke(1800);
        assert_eq!(breaker.standing(), Standing::Well);
    }

    #[test]
    fn failures_far_apart_are_no_row() {
        let breaker = Breaker::default();
        for at in 0..100 {
            breaker.failed(at * 11_000);
        }
        assert_eq!(breaker.standing(), Standing::Well);
    }

    #[test]
    fn one_probe_at_a_time_and_each_failure_doubles_the_wait() {
        let breaker = failing(5, 1000);
        assert!(!breaker.probe(1499));
        assert!(breaker.probe(1500));
        assert!(!breaker.probe(1500));
        breaker.abandoned();
        assert!(breaker.probe(1500));
        breaker.failed(1600);
        assert_eq!(breaker.probe_at(), 2600);
        for _ in 0..20 {
            let now = breaker.probe_at();
            assert!(breaker.probe(now));
            breaker.failed(now);
            assert!(breaker.probe_at() - now <= 30_000);
        }
        // A late failure of an ordinary call moves nothing.
        let before = breaker.probe_at();
        breaker.failed(before - 1);
        assert_eq!(breaker.probe_at(), before);
    }
}
