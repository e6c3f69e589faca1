//! A second call for a short answer that is late, where the operator wants that: whichever answers first is taken,
//! the other one is given up, and Google may bill both.
//!
//! Late is what takes longer than nineteen in twenty of the same kind did at this site. How many may be asked twice
//! is a share of all, so that a site which slows down as a whole is not asked twice by everybody.

use std::pin::pin;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use futures_util::future::{Either, select};
use parking_lot::Mutex;
use tokio::time::{Instant, timeout};

use super::retry::Class;
use super::throttle::Flight;
use super::{Answer, Call, Leg, Method, Upstream};
use crate::error::Result;

/// Answers that are remembered of each kind.
const REMEMBERED: usize = 128;
/// With fewer nobody knows what is late.
const ENOUGH: usize = 32;
/// The bound is found anew after so many.
const ANEW: u32 = 16;
/// Nothing is late before this: what it would save is not worth a call.
const SOONEST: Duration = Duration::from_millis(20);
/// Kinds of answers that take longer than this are not short.
const SHORT: Duration = Duration::from_secs(10);
/// Nor are requests longer than this, in bytes.
const SMALL: usize = 64 << 10;
/// What one second call costs of the credit, and how much of that is saved up at most.
const PRICE: u64 = 100;
const SAVED: u64 = 10 * PRICE;

/// How long answers of one kind took lately.
#[derive(Debug, Default)]
pub(super) struct Pace {
    recent: Mutex<(Vec<u32>, usize)>,
    since: AtomicU32,
    /// In milliseconds; 0 is unknown.
    late: AtomicU32,
}

impl Pace {
    fn took(&self, span: Duration) {
        let span = u32::try_from(span.as_millis()).unwrap_or(u32::MAX).max(1);
        let mut recent = self.recent.lock();
        let (spans, next) = &mut *recent;
        match spans.get_mut(*next) {
            Some(oldest) => *oldest = span,
            None => spans.push(span),
        }
        *next = (*next + 1) % REMEMBERED;
        if spans.len() < ENOUGH || !self.since.fetch_add(1, Relaxed).is_multiple_of(ANEW) {
            return;
        }
        let mut sorted = spans.clone();
        drop(recent);
        let at = sorted.len() * 19 / 20;
        let (_, late, _) = sorted.select_nth_unstable(at);
        self.late.store(*late, Relaxed);
    }

    /// When such an answer is late, if that is known and they are short.
    fn late(&self) -> Option<Duration> {
        let late = Duration::from_millis(self.late.load(Relaxed).into());
        (!late.is_zero() && late <= SHORT).then(|| late.max(SOONEST))
    }
}

/// How many second calls a site has earned.
#[derive(Debug, Default)]
pub(super) struct Credit(AtomicU64);

impl Credit {
    /// A call was made, of which so many in a hundred may be made twice.
    fn earn(&self, percent: u32) {
        let earned = |credit: u64| Some((credit + u64::from(percent)).min(SAVED));
        // It never fails.
        let _ = self.0.fetch_update(Relaxed, Relaxed, earned);
    }

    fn spend(&self) -> bool {
        self.0.fetch_update(Relaxed, Relaxed, |credit| credit.checked_sub(PRICE)).is_ok()
    }
}

impl Upstream {
    /// [`Upstream::call_on`], and a second time when the answer is late, within what the route allows. What came of
    /// the one that was given up nobody knows: see [`Answer::lost`].
    ///
    /// # Errors
    /// As there.
    pub async fn call_hedged(&self, leg: &Leg<'_>, call: &Call) -> Result<Answer> {
        let percent = leg.hedge_percent;
        let Some(health) = self.health.get(leg.site_index) else { return self.call_on(leg, call).await };
        if percent == 0 || call.method == Method::Stream || call.body.len() > SMALL {
            return self.call_on(leg, call).await;
        }
        let pace = health.paces.of(&format!("{} {:?}", call.model, call.method));
        health.credit.earn(percent);
        let begun = Instant::now();
        let second = || health.credit.spend().then(|| health.throttle.depart()).flatten();
        let answer = match pace.late() {
            None => self.call_on(leg, call).await,
            Some(late) => self.race(leg, call, late, second).await,
        };
        if answer.is_ok() {
            pace.took(begun.elapsed());
        }
        answer
    }

    async fn race(
        &self,
        leg: &Leg<'_>,
        call: &Call,
        late: Duration,
        second: impl FnOnce() -> Option<Flight>,
    ) -> Result<Answer> {
        let mut first = pin!(self.call_on(leg, call));
        if let Ok(answer) = timeout(late, first.as_mut()).await {
            return answer;
        }
        let Some(_flight) = second() else { return first.await };
        let another = pin!(self.call_on(leg, call));
        let (ended, other) = match select(first, another).await {
            Either::Left((ended, other)) | Either::Right((ended, other)) => (ended, other),
        };
        let twice = |answer: Answer, lost| Answer { attempts: answer.attempts + 1, lost, ..answer };
        match ended {
            Ok(answer) => Ok(twice(answer, 1)),
            // The other one would be told the same.
            Err(error) if Class::of(&error) == Class::Final => Err(error),
            Err(error) => other.await.map(|answer| twice(answer, 0)).map_err(|_same| error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn late_is_what_takes_longer_than_nineteen_in_twenty() {
        let pace = Pace::default();
        for span in 1..ENOUGH {
            pace.took(Duration::from_millis(span as u64));
            assert_eq!(pace.late(), None);
        }
        for span in 0..400 {
            pace.took(Duration::from_millis(if span % 10 == 0 { 900 } else { 100 }));
        }
        assert_eq!(pace.late(), Some(Duration::from_millis(900)));
        for _ in 0..200 {
            pace.took(Duration::from_millis(2));
        }
        assert_eq!(pace.late(), Some(SOONEST));
        for _ in 0..200 {
            pace.took(SHORT * 2);
        }
        assert_eq!(pace.late(), None, "long answers are not asked for twice");
        assert_eq!(pace.recent.lock().0.len(), REMEMBERED);
    }

    #[test]
    fn second_calls_are_a_share() {
        let credit = Credit::default();
        let granted = (0..1000).filter(|_| {
            credit.earn(5);
            credit.spend()
        });
        assert_eq!(granted.count(), 50);
        (0..10_000).for_each(|_| credit.earn(5));
        assert_eq!((0..100).filter(|_| credit.spend()).count(), 10, "what is not used is not saved up");
    }
}
