//! Tokens over time: a bucket that refills evenly and may fall into debt, kept as one number.
//!
//! The number is the time at which the bucket will be full again (the theoretical arrival time of the generic
//! cell rate algorithm), in milliseconds; a time that has passed means a full bucket.

use super::State;

/// What rounding may cost.
const DUST: f64 = 1e-6;

/// A limit as the bucket sees it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rate {
    /// Milliseconds from empty to full.
    span: f64,
    /// Milliseconds a token.
    step: f64,
    limit: u64,
}

#[expect(clippy::cast_precision_loss, reason = "tokens and milliseconds stay far below 2^53")]
pub(super) const fn float(number: u64) -> f64 {
    number as f64
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "floored at zero; what is huge saturates"
)]
const fn whole(number: f64) -> u64 {
    number.max(0.0) as u64
}

impl Rate {
    pub(super) fn new(limit: u64, span: u64) -> Self {
        Self { span: float(span), step: float(span) / float(limit.max(1)), limit }
    }

    /// Where the bucket would stand if so much were taken, or how long until that fits. An estimate above the
    /// whole limit fits a full bucket and leaves a debt: refusing it for ever would help nobody.
    pub(super) fn look(&self, full_at: f64, now: u64, cost: u64) -> Result<State, State> {
        let now = float(now);
        let base = full_at.max(now);
        if self.limit == 0 {
            return Err(State { millis: super::DAY, ..State::default() });
        }
        let needed = float(cost.min(self.limit).max(1)) * self.step;
        let lacks = base + needed - self.span - now;
        if lacks > DUST {
            return Err(State { millis: whole((lacks - DUST).ceil()), ..State::default() });
        }
        let after = base + float(cost) * self.step;
        Ok(State {
            remaining: whole((now + self.span - after) / self.step + DUST),
            millis: whole((after - now - DUST).ceil()),
            ..State::default()
        })
    }

    pub(super) fn take(&self, full_at: f64, now: u64, cost: u64) -> f64 {
        full_at.max(float(now)) + float(cost) * self.step
    }

    /// Puts the difference between estimate and truth right; never more than full.
    pub(super) fn settle(&self, full_at: f64, now: u64, (cost, actual): (u64, u64)) -> f64 {
        let now = float(now);
        (full_at.max(now) + (float(actual) - float(cost)) * self.step).max(now)
    }
}
