//! Futures that seldom end, waited for by tasks that wake often.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use tokio::time::{Instant, Sleep};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// Wakes a task, and remembers it.
#[derive(Debug)]
struct Bell {
    rung: AtomicBool,
    task: Waker,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.rung.store(true, Ordering::Release);
        self.task.wake_by_ref();
    }
}

/// A future that is asked again only when it has woken its task itself. Asking it whenever the task wakes for something
/// else costs locks, some of which all tasks share.
#[derive(Debug)]
struct Seldom<F> {
    future: Pin<Box<F>>,
    bell: Option<Arc<Bell>>,
}

impl<F: Future> Seldom<F> {
    fn new(future: F) -> Self {
        Self { future: Box::pin(future), bell: None }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<F::Output> {
        let bell = match &self.bell {
            Some(bell) if bell.task.will_wake(cx.waker()) => {
                // The load alone is what nearly every call comes to.
                if !bell.rung.load(Ordering::Relaxed) || !bell.rung.swap(false, Ordering::Acquire) {
                    return Poll::Pending;
                }
                Arc::clone(bell)
            }
            _ => {
                let bell = Arc::new(Bell { rung: AtomicBool::new(false), task: cx.waker().clone() });
                Arc::clone(self.bell.insert(bell))
            }
        };
        self.future.as_mut().poll(&mut Context::from_waker(&Waker::from(bell)))
    }
}

/// A moment to be waited for.
#[derive(Debug)]
pub struct Alarm(Seldom<Sleep>);

impl Alarm {
    /// Rings at this moment.
    pub fn at(moment: Instant) -> Self {
        Self(Seldom::new(tokio::time::sleep_until(moment)))
    }

    /// Rings at another moment instead, also if it has rung.
    pub fn set(&mut self, moment: Instant) {
        self.0.future.as_mut().reset(moment);
        if let Some(bell) = &self.0.bell {
            bell.rung.store(true, Ordering::Relaxed);
        }
    }

    /// Whether it rings.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.0.poll(cx)
    }
}

/// A word that is given once, to all.
#[derive(Debug)]
pub struct Word(Seldom<WaitForCancellationFutureOwned>);

impl Word {
    /// Waits for this token.
    pub fn of(token: CancellationToken) -> Self {
        Self(Seldom::new(token.cancelled_owned()))
    }

    /// Whether it was given. To be asked no more once it was.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.0.poll(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_alarm_rings_when_it_is_time_and_wakes_whoever_waits() {
        let begun = Instant::now();
        let mut alarm = Alarm::at(begun + Duration::from_secs(5));
        poll_fn(|cx| alarm.poll(cx)).await;
        assert_eq!(begun.elapsed().as_secs(), 5);
        alarm.set(begun + Duration::from_secs(9));
        let mut cx = Context::from_waker(Waker::noop());
        assert!(alarm.poll(&mut cx).is_pending());
        // Another task waits now, and is the one that is woken.
        poll_fn(|cx| alarm.poll(cx)).await;
        assert_eq!(begun.elapsed().as_secs(), 9);
    }

    #[tokio::test]
    async fn a_word_reaches_whoever_waited_last() {
        let token = CancellationToken::new();
        let mut word = Word::of(token.clone());
        assert!(word.poll(&mut Context::from_waker(Waker::noop())).is_pending());
        let waiting = tokio::spawn(async move { poll_fn(|cx| word.poll(cx)).await });
        tokio::task::yield_now().await;
        token.cancel();
        waiting.await.unwrap();
    }
}
