//! Waiting for what seldom comes, in tasks that wake often.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use http_body::{Body, Frame, SizeHint};
use parking_lot::Mutex;
use tokio::time::{Instant, Sleep};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

thread_local! {
    /// Whether calls of wakers from here are caught.
    static HUSHED: Cell<bool> = const { Cell::new(false) };
    static CAUGHT: RefCell<Option<Waker>> = const { RefCell::new(None) };
}

/// Does something, and gives back whom it would have woken on the way, of those that look whether they are [`caught`]; the
/// last one, if there were many.
fn hushed<T>(act: impl FnOnce() -> T) -> (T, Option<Waker>) {
    /// Also where `act` panics: else the thread would wake nobody any more.
    struct Over;
    impl Drop for Over {
        fn drop(&mut self) {
            HUSHED.set(false);
        }
    }
    let over = Over;
    HUSHED.set(true);
    let done = act();
    drop(over);
    (done, CAUGHT.take())
}

/// Whether a call was caught.
fn caught<W: Wake + Send + Sync + 'static>(called: &Arc<W>) -> bool {
    let caught = HUSHED.get();
    if caught {
        CAUGHT.set(Some(Waker::from(Arc::clone(called))));
    }
    caught
}

/// A message's body as hyper reads it. Whoever takes its last chunk wakes the connection that has read it, which has nothing
/// more to do for it: here it is let alone.
#[derive(Debug)]
pub struct Hushed<B> {
    body: B,
    hush: bool,
}

impl<B> Hushed<B> {
    /// Wraps a body; `hush` where it is one of HTTP/1, whose connection has read to the end of what it has handed over.
    pub fn new(body: B, hush: bool) -> Self {
        Self { body, hush }
    }
}

impl<B: Body + Unpin> Body for Hushed<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let Self { body, hush } = &mut *self;
        let (polled, caught) = if *hush {
            hushed(|| Pin::new(&mut *body).poll_frame(cx))
        } else {
            (Pin::new(&mut *body).poll_frame(cx), None)
        };
        // What has come whole needs no more work.
        if !body.is_end_stream()
            && let Some(connection) = caught
        {
            connection.wake();
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

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
        if !caught(self) {
            self.rung.store(true, Ordering::Release);
            self.task.wake_by_ref();
        }
    }
}

/// The bell of whatever a task waits for, if it has one yet, and the waker that rings it.
#[derive(Debug, Default)]
pub struct Door(Option<(Arc<Bell>, Waker)>);

impl Door {
    /// The bell that wakes this task.
    fn bell(&mut self, task: &Waker) -> &(Arc<Bell>, Waker) {
        // Another task's is of no use.
        self.0.take_if(|(bell, _)| !bell.task.will_wake(task));
        self.0.get_or_insert_with(|| {
            let bell = Arc::new(Bell { rung: AtomicBool::new(true), task: task.clone() });
            (Arc::clone(&bell), Waker::from(bell))
        })
    }

    /// The waker to be given on.
    pub fn waker(&mut self, task: &Waker) -> &Waker {
        &self.bell(task).1
    }

    /// The same, and whether it was used since the last time, or never given on by this task.
    fn answer(&mut self, task: &Waker) -> (&Waker, bool) {
        let (bell, waker) = self.bell(task);
        // The load alone is what most calls come to.
        (waker, bell.rung.load(Ordering::Relaxed) && bell.rung.swap(false, Ordering::Acquire))
    }

    /// As if it had been rung.
    fn ring(&self) {
        if let Some((bell, _)) = &self.0 {
            bell.rung.store(true, Ordering::Relaxed);
        }
    }
}

/// A future that is asked again only when it has woken its task itself. Asking it whenever the task wakes for something
/// else costs locks, some of which all tasks share.
#[derive(Debug)]
struct Seldom<F> {
    future: Pin<Box<F>>,
    door: Door,
}

impl<F: Future> Seldom<F> {
    fn new(future: F) -> Self {
        Self { future: Box::pin(future), door: Door::default() }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<F::Output> {
        let (waker, rung) = self.door.answer(cx.waker());
        if rung { self.future.as_mut().poll(&mut Context::from_waker(waker)) } else { Poll::Pending }
    }
}

/// A body that, while it waits, is asked again only when it has woken its task itself. Its connection asks it at every
/// turn, two or three times for each frame.
#[derive(Debug)]
pub struct Calm<B> {
    body: B,
    waiting: bool,
    door: Door,
}

impl<B> Calm<B> {
    /// Wraps a body.
    pub fn new(body: B) -> Self {
        Self { body, waiting: false, door: Door::default() }
    }
}

impl<B: Body + Unpin> Body for Calm<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let this = &mut *self;
        // What never waits needs no door.
        if this.door.0.is_none()
            && let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(cx)
        {
            return Poll::Ready(frame);
        }
        let (waker, rung) = this.door.answer(cx.waker());
        if this.waiting && !rung {
            return Poll::Pending;
        }
        let polled = Pin::new(&mut this.body).poll_frame(&mut Context::from_waker(waker));
        this.waiting = polled.is_pending();
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
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
        self.0.door.ring();
    }

    /// Whether it rings.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.0.poll(cx)
    }
}

/// A word that is given once, to all.
#[derive(Debug)]
pub struct Word {
    token: CancellationToken,
    /// Made when it is asked for the first time, which for what is short is never.
    given: Option<Seldom<WaitForCancellationFutureOwned>>,
}

impl Word {
    /// Waits for this token.
    pub fn of(token: CancellationToken) -> Self {
        Self { token, given: None }
    }

    /// Whether it was given. To be asked no more once it was.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Self { token, given } = self;
        given.get_or_insert_with(|| Seldom::new(token.clone().cancelled_owned())).poll(cx)
    }
}

/// Somebody has called since the last time.
const RUNG: u8 = 1;
/// Somebody is there and looks again before leaving, so that nobody has to be woken.
const THERE: u8 = 2;

/// What [`Ear`]s and their wakers share.
#[derive(Debug)]
struct Hall {
    state: AtomicU8,
    task: Mutex<Waker>,
}

impl Hall {
    fn call(&self) {
        let task = self.task.lock().clone();
        task.wake();
    }
}

impl Wake for Hall {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !caught(self) && self.state.fetch_or(RUNG, Ordering::AcqRel) & THERE == 0 {
            self.call();
        }
    }
}

/// The waker of a future that is worked for by one task after the other, with long pauses in between. What it says while
/// somebody works for it wakes nobody.
#[derive(Debug)]
pub struct Ear {
    hall: Arc<Hall>,
    waker: Waker,
    /// Whom it wakes: known here too, to be compared without a lock.
    task: Waker,
}

impl Default for Ear {
    /// One that has been called, and by which nobody is woken.
    fn default() -> Self {
        let (state, task) = (AtomicU8::new(RUNG), Mutex::new(Waker::noop().clone()));
        let hall = Arc::new(Hall { state, task });
        Self { waker: Waker::from(Arc::clone(&hall)), hall, task: Waker::noop().clone() }
    }
}

impl Ear {
    /// Wakes this task from now on.
    pub fn lend(&mut self, task: &Waker) {
        if !self.task.will_wake(task) {
            self.task.clone_from(task);
            self.hall.task.lock().clone_from(task);
        }
    }

    /// What is to be given on.
    pub fn waker(&self) -> &Waker {
        &self.waker
    }

    /// Somebody is there from now on, and will listen.
    pub fn attend(&self) {
        self.hall.state.fetch_or(THERE, Ordering::AcqRel);
    }

    /// Somebody is there from now on; whether there was a call since the last time.
    pub fn listen(&self) -> bool {
        self.hall.state.swap(THERE, Ordering::AcqRel) & RUNG != 0
    }

    /// Whether there was a call since then.
    pub fn is_rung(&self) -> bool {
        self.hall.state.load(Ordering::Acquire) & RUNG != 0
    }

    /// Whoever was there waits to be woken.
    pub fn rest(&self) {
        if self.hall.state.fetch_and(!THERE, Ordering::AcqRel) & RUNG != 0 {
            self.hall.call();
        }
    }

    /// Whoever was there comes back, or nobody does.
    pub fn leave(&self) {
        self.hall.state.fetch_and(!THERE, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
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

    /// Counts how often it is woken.
    #[derive(Default)]
    struct Sleeper(std::sync::atomic::AtomicUsize);

    impl Wake for Sleeper {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn an_ear_wakes_whoever_has_it_and_nobody_who_listens() {
        let sleepers = [Arc::<Sleeper>::default(), Arc::default()];
        let tasks = sleepers.clone().map(Waker::from);
        let woken = || [0, 1].map(|at: usize| sleepers[at].0.load(Ordering::Relaxed));
        let mut ear = Ear::default();
        assert!(ear.listen(), "a new one has been called");
        ear.lend(&tasks[0]);
        ear.waker().wake_by_ref();
        assert!(ear.is_rung());
        assert_eq!(woken(), [0, 0], "somebody is there");
        ear.rest();
        assert_eq!(woken(), [1, 0], "and has left without having listened");
        assert!(ear.listen() && !ear.is_rung());
        ear.rest();
        assert_eq!(woken(), [1, 0]);
        // What was given away before wakes whoever has it now.
        let given = ear.waker().clone();
        ear.lend(&tasks[1]);
        given.wake();
        assert_eq!(woken(), [1, 1]);
        // Whoever comes back hears of it then.
        ear.attend();
        ear.waker().wake_by_ref();
        ear.leave();
        assert_eq!(woken(), [1, 1]);
        assert!(ear.listen());
    }

    #[test]
    fn what_is_hushed_wakes_nobody_and_is_given_back() {
        let sleeper = Arc::<Sleeper>::default();
        let woken = || sleeper.0.load(Ordering::Relaxed);
        let task = Waker::from(Arc::clone(&sleeper));
        let mut door = Door::default();
        let waker = door.waker(&task).clone();
        assert!(waker.will_wake(door.waker(&task)));
        waker.wake_by_ref();
        assert_eq!(woken(), 1);
        let ((), caught) = hushed(|| waker.wake_by_ref());
        assert_eq!(woken(), 1);
        caught.unwrap().wake();
        assert_eq!(woken(), 2);
        // Others are woken all the same: from other threads, and if they are nobody's business.
        let ((), caught) = hushed(|| {
            std::thread::scope(|scope| scope.spawn(|| waker.wake_by_ref()).join()).unwrap();
            task.wake_by_ref();
        });
        assert_eq!(woken(), 4);
        assert!(caught.is_none());
        let panicked = std::panic::catch_unwind(|| hushed(|| panic!("on purpose")));
        assert!(panicked.is_err());
        waker.wake_by_ref();
        assert_eq!(woken(), 5, "it is over with a panic too");
        let ear = Ear::default();
        assert!(ear.listen());
        let ((), caught) = hushed(|| ear.waker().wake_by_ref());
        assert!(!ear.is_rung());
        caught.unwrap().wake();
        assert!(ear.is_rung());
    }

    /// Counts how often it is asked; there is a frame whenever the flag is up.
    struct Counting<'c> {
        asked: &'c Cell<u32>,
        ready: &'c Cell<bool>,
        waker: &'c RefCell<Option<Waker>>,
    }

    impl Body for Counting<'_> {
        type Data = bytes::Bytes;
        type Error = Infallible;

        fn poll_frame(
            self: Pin<&mut Self>,
            cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<bytes::Bytes>, Infallible>>> {
            self.asked.set(self.asked.get() + 1);
            if self.ready.take() {
                return Poll::Ready(Some(Ok(Frame::data(bytes::Bytes::new()))));
            }
            *self.waker.borrow_mut() = Some(cx.waker().clone());
            Poll::Pending
        }
    }

    #[tokio::test]
    async fn a_body_that_waits_is_left_alone_until_it_wakes_its_task() {
        let (asked, ready, waker) = (Cell::new(0), Cell::new(true), RefCell::new(None));
        let mut body = Calm::new(Counting { asked: &asked, ready: &ready, waker: &waker });
        let mut ask = |cx: &mut Context<'_>| Pin::new(&mut body).poll_frame(cx).is_ready();
        poll_fn(|cx| {
            assert!(ask(cx));
            for _ in 0..3 {
                assert!(!ask(cx));
            }
            // Once more as it began to wait: with the waker that is heard.
            assert_eq!(asked.get(), 3);
            ready.set(true);
            waker.take().unwrap().wake();
            assert!(ask(cx));
            assert!(!ask(cx));
            assert_eq!(asked.get(), 5);
            Poll::Ready(())
        })
        .await;
        // Another task's waker has to be made known.
        assert!(!ask(&mut Context::from_waker(Waker::noop())));
        assert_eq!(asked.get(), 6);
    }
}
