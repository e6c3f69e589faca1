//! Tokens over time: a bucket that may go into debt, because what an answer costs is known when it ends.

use std::time::Duration;

use parking_lot::Mutex;

use super::{State, Timer};

#[derive(Debug)]
pub(super) struct Tokens {
    limit: u64,
    period: Duration,
    timer: Timer,
    level: Mutex<Level>,
}

/// Counted in token-milliseconds (tokens times the period in milliseconds), so that refilling is exact.
#[derive(Debug)]
struct Level {
    units: i128,
    at: u128,
}

impl Tokens {
    pub(super) fn new(limit: u64, period: Duration, timer: Timer) -> Self {
        let level = Level { units: scaled(limit, period), at: timer.elapsed().as_millis() };
        Self { limit, period, timer, level: Mutex::new(level) }
    }

    pub(super) fn limit(&self) -> u64 {
        self.limit
    }

    /// Takes the estimate out, or says how long until it fits. An estimate above the whole limit fits a
    /// full bucket and leaves a debt: refusing it for ever would help nobody.
    pub(super) fn charge(&self, estimate: u64) -> Result<State, Duration> {
        if self.limit == 0 {
            return Err(Duration::from_hours(24));
        }
        let mut level = self.level.lock();
        self.refill(&mut level);
        let needed = scaled(estimate.min(self.limit), self.period).max(1);
        if level.units < needed {
            return Err(self.time_for(needed - level.units));
        }
        level.units -= scaled(estimate, self.period);
        let remaining = level.units.max(0) / self.per_token();
        Ok(State {
            limit: self.limit,
            remaining: u64::try_from(remaining).unwrap_or(0),
            reset: self.time_for(scaled(self.limit, self.period) - level.units),
        })
    }

    /// Puts the difference between estimate and truth right.
    pub(super) fn settle(&self, estimate: u64, actual: u64) {
        let mut level = self.level.lock();
        self.refill(&mut level);
        let full = scaled(self.limit, self.period);
        let back = scaled(estimate, self.period) - scaled(actual, self.period);
        level.units = (level.units + back).min(full);
    }

    fn refill(&self, level: &mut Level) {
        let now = self.timer.elapsed().as_millis();
        let gained = now.saturating_sub(level.at).saturating_mul(u128::from(self.limit));
        let gained = i128::try_from(gained).unwrap_or(i128::MAX);
        level.units = level.units.saturating_add(gained).min(scaled(self.limit, self.period));
        level.at = now;
    }

    fn per_token(&self) -> i128 {
        scaled(1, self.period).max(1)
    }

    /// How long the bucket takes to gain so much.
    fn time_for(&self, units: i128) -> Duration {
        let limit = i128::from(self.limit.max(1));
        let millis = (units.max(0) + limit - 1) / limit;
        Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX))
    }
}

fn scaled(tokens: u64, period: Duration) -> i128 {
    let millis = i128::try_from(period.as_millis()).unwrap_or(i128::MAX);
    i128::from(tokens).saturating_mul(millis)
}
