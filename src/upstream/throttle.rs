//! How many calls a site carries at once: found by trying, given back by dropping.
//!
//! The limit is the operator's until a site turns away half of what it gets within a second; then it falls to
//! seven tenths of what was in flight, and doubles again with each second that is better.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

/// The limit never falls below this: a few callers in a row must not lock a site.
const FLOOR: u32 = 32;
/// A second with fewer answers than this says nothing.
const ENOUGH: u32 = 20;
const WINDOW_MS: u64 = 1000;

/// The calls in flight at one site.
#[derive(Debug)]
pub(super) struct Throttle {
    most: u32,
    limit: AtomicU32,
    flying: AtomicU32,
    window: AtomicU64,
    answered: AtomicU32,
    turned_away: AtomicU32,
}

/// One call in flight; dropping it makes room.
#[derive(Debug)]
pub struct Flight(Arc<Throttle>);

impl Drop for Flight {
    fn drop(&mut self) {
        self.0.flying.fetch_sub(1, Relaxed);
    }
}

impl Throttle {
    pub(super) fn new(most: u32) -> Arc<Self> {
        Arc::new(Self {
            most,
            limit: AtomicU32::new(most),
            flying: AtomicU32::new(0),
            window: AtomicU64::new(0),
            answered: AtomicU32::new(0),
            turned_away: AtomicU32::new(0),
        })
    }

    /// Takes off, if there is room.
    pub(super) fn depart(self: &Arc<Self>) -> Option<Flight> {
        let flight = Flight(Arc::clone(self));
        // Counted first, so that two cannot take the last place; the guard gives it back.
        let before = self.flying.fetch_add(1, Relaxed);
        (before < self.limit.load(Relaxed)).then_some(flight)
    }

    pub(super) fn in_flight(&self) -> u32 {
        self.flying.load(Relaxed)
    }

    /// How many calls it carries at this moment.
    pub(super) fn limit(&self) -> u32 {
        self.limit.load(Relaxed)
    }

    /// Hears how a call went: `true` if the site had no room for it. `now` is in milliseconds.
    pub(super) fn hear(&self, turned_away: bool, now: u64) {
        if turned_away {
            self.turned_away.fetch_add(1, Relaxed);
        } else if self.limit.load(Relaxed) >= self.most && self.turned_away.load(Relaxed) == 0 {
            // Nothing is wrong and nothing was: no counting on the common way.
            return;
        }
        self.answered.fetch_add(1, Relaxed);
        let begun = self.window.load(Relaxed);
        if now < begun + WINDOW_MS || self.window.compare_exchange(begun, now, Relaxed, Relaxed).is_err() {
            return;
        }
        let (answered, refused) = (self.answered.swap(0, Relaxed), self.turned_away.swap(0, Relaxed));
        let limit = self.limit.load(Relaxed);
        let next = if answered >= ENOUGH && refused * 2 >= answered {
            limit.min(self.in_flight() / 10 * 7)
        } else {
            limit.saturating_mul(2)
        };
        self.limit.store(next.max(FLOOR).min(self.most), Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flight_is_given_back() {
        let site = Throttle::new(2);
        let first = site.depart().unwrap();
        let second = site.depart().unwrap();
        assert!(site.depart().is_none());
        drop(first);
        assert!(site.depart().is_some());
        drop(second);
        assert_eq!(site.in_flight(), 0);
    }

    #[test]
    fn a_site_that_turns_callers_away_gets_fewer_and_gets_them_back() {
        let site = Throttle::new(1000);
        let flights: Vec<_> = (0..200).map(|_| site.depart().unwrap()).collect();
        for now in 0..30 {
            site.hear(true, 2000 + now);
        }
        site.hear(true, 3100);
        assert!(site.depart().is_none());
        assert_eq!(site.limit.load(Relaxed), 140);
        for second in 1..=3 {
            site.hear(false, 3100 + second * 1000);
        }
        assert_eq!(site.limit.load(Relaxed), 1000);
        drop(flights);
        // A few refusals in quiet times lower nothing.
        for second in 1..=9 {
            site.hear(true, 10_000 + second * 1000);
        }
        assert_eq!(site.limit.load(Relaxed), 1000);
    }
}
