//! How many calls a site carries at once: found by trying, given back by dropping.
//!
//! The limit is the operator's until a site turns away half of what it gets within a second; then it falls to
//! seven tenths of what was in flight. With each second that is better it grows: by a tenth while it is what holds
//! callers back, so that it settles near what the site takes; to the double while it is far from that.

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
    most: AtomicU32,
    limit: AtomicU32,
    flying: AtomicU32,
    window: AtomicU64,
    answered: AtomicU32,
    turned_away: AtomicU32,
}

/// One call in flight; dropping it makes room.
#[derive(Debug)]
pub(super) struct Flight(Arc<Throttle>);

impl Drop for Flight {
    fn drop(&mut self) {
        self.0.flying.fetch_sub(1, Relaxed);
    }
}

impl Throttle {
    pub(super) fn new(most: u32) -> Arc<Self> {
        Arc::new(Self {
            most: AtomicU32::new(most),
            limit: AtomicU32::new(most),
            flying: AtomicU32::new(0),
            window: AtomicU64::new(0),
            answered: AtomicU32::new(0),
            turned_away: AtomicU32::new(0),
        })
    }

    /// Takes another bound from the operator, and keeps what was found by trying.
    pub(super) fn bound(&self, most: u32) {
        let before = self.most.swap(most, Relaxed);
        if self.limit.load(Relaxed) >= before.min(most) {
            self.limit.store(most, Relaxed);
        }
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
    pub(super) fn hear(&self, turned_away: bool, now: impl FnOnce() -> u64) {
        let most = self.most.load(Relaxed);
        if turned_away {
            self.turned_away.fetch_add(1, Relaxed);
        } else if self.limit.load(Relaxed) >= most && self.turned_away.load(Relaxed) == 0 {
            // Nothing is wrong and nothing was: no counting on the common way.
            return;
        }
        self.answered.fetch_add(1, Relaxed);
        let (begun, now) = (self.window.load(Relaxed), now());
        if now < begun + WINDOW_MS || self.window.compare_exchange(begun, now, Relaxed, Relaxed).is_err() {
            return;
        }
        let (answered, refused) = (self.answered.swap(0, Relaxed), self.turned_away.swap(0, Relaxed));
        let limit = self.limit.load(Relaxed);
        let flying = self.in_flight();
        let next = if answered >= ENOUGH && refused * 2 >= answered {
            limit.min(flying / 10 * 7)
        } else if flying * 2 >= limit {
            limit.saturating_add(limit / 10 + 1)
        } else {
            limit.saturating_mul(2)
        };
        self.limit.store(next.max(FLOOR).min(most), Relaxed);
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
            site.hear(true, || 2000 + now);
        }
        site.hear(true, || 3100);
        assert!(site.depart().is_none());
        assert_eq!(site.limit.load(Relaxed), 140);
        // Its limit holds callers back: it grows slowly.
        site.hear(false, || 4200);
        assert_eq!(site.limit.load(Relaxed), 155);
        drop(flights);
        for second in 2..=4 {
            site.hear(false, || 3200 + second * 1000);
        }
        assert_eq!(site.limit.load(Relaxed), 1000);
        // A few refusals in quiet times lower nothing.
        for second in 1..=9 {
            site.hear(true, || 10_000 + second * 1000);
        }
        assert_eq!(site.limit.load(Relaxed), 1000);
    }

    #[test]
    fn another_bound_keeps_what_was_found() {
        let site = Throttle::new(1000);
        site.bound(2000);
        assert_eq!(site.limit.load(Relaxed), 2000);
        site.limit.store(140, Relaxed);
        site.bound(1000);
        assert_eq!(site.limit.load(Relaxed), 140);
        site.bound(50);
        assert_eq!(site.limit.load(Relaxed), 50);
    }
}
