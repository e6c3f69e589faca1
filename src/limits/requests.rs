//! Requests over time, by the generic cell rate algorithm: a full allowance at once, refilled evenly.

use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::Clock;
use governor::middleware::StateInformationMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};

use super::{State, Timer};

impl Clock for Timer {
    type Instant = Duration;

    fn now(&self) -> Duration {
        self.elapsed()
    }
}

type Cells = RateLimiter<NotKeyed, InMemoryState, Timer, StateInformationMiddleware>;

/// So many requests in a period; none at all when the number is 0.
#[derive(Debug)]
pub(super) struct Requests {
    limit: u32,
    each: Duration,
    timer: Timer,
    cells: Option<Cells>,
}

impl Requests {
    pub(super) fn new(limit: u32, period: Duration, timer: Timer) -> Self {
        let each = period / limit.max(1);
        let cells = NonZeroU32::new(limit).and_then(|burst| {
            let quota = Quota::with_period(each)?.allow_burst(burst);
            Some(
                RateLimiter::direct_with_clock(quota, timer.clone())
                    .with_middleware::<StateInformationMiddleware>(),
            )
        });
        Self { limit, each, timer, cells }
    }

    pub(super) fn limit(&self) -> u32 {
        self.limit
    }

    /// Counts one request, or says how long until one fits.
    pub(super) fn take(&self) -> Result<State, Duration> {
        let cells = self.cells.as_ref().ok_or(Duration::from_hours(24))?;
        match cells.check() {
            Ok(snapshot) => {
                let remaining = snapshot.remaining_burst_capacity();
                Ok(State {
                    limit: u64::from(self.limit),
                    remaining: u64::from(remaining),
                    reset: self.each.saturating_mul(self.limit.saturating_sub(remaining)),
                })
            }
            Err(refusal) => Err(refusal.wait_time_from(self.timer.now())),
        }
    }
}
