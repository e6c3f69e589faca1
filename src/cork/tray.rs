//! What a thread writes in one row: when it rests, or when it has looked for events. And what is settled before.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Wake, Waker};

use parking_lot::Mutex;

/// Buffers that a thread keeps, and how large they may be in bytes: connections that wait for something have none.
const SPARE: usize = 64;
const SPARE_ROOM: usize = 4 << 10;

/// So many sockets are written at the latest, or when so much was read meanwhile: a thread that is never done does not keep
/// anybody waiting.
pub(super) const ROW: usize = 32;
pub(super) const READS: u32 = 64;

/// Whatever can lie in a tray.
pub(super) trait Post: Send + Sync {
    /// Writes what was laid down, as far as it can be written now, and gives the buffer back.
    fn post(&self) -> Option<Vec<u8>>;
}

/// Something whose end makes work, as the last of a request that is to be booked. That work must not leave anything to be
/// settled later itself.
pub trait Settled: Send + Sync {}

/// The trays of all threads.
static ALL: Mutex<Vec<Weak<Tray>>> = Mutex::new(Vec::new());

thread_local! {
    /// A thread's tray, and the waker that empties it.
    static TRAY: (Arc<Tray>, Waker) = {
        let tray = Arc::<Tray>::default();
        let mut all = ALL.lock();
        all.retain(|tray| tray.strong_count() > 0);
        all.push(Arc::downgrade(&tray));
        (Arc::clone(&tray), Waker::from(tray))
    };
    /// Whether the thread says when it has nothing left to do.
    static RESTS: Cell<bool> = const { Cell::new(false) };
    /// How much may still be read before what lies in the tray is written and settled; 0 where nothing does.
    static PATIENCE: Cell<u32> = const { Cell::new(0) };
}

/// Writes what was laid down. To be called by a runtime's threads whenever they have nothing left to do
/// ([`on_thread_park`](tokio::runtime::Builder::on_thread_park)).
pub fn rest() {
    RESTS.set(true);
    if PATIENCE.get() > 0 {
        // A thread that ends has no tray any more.
        let _ = TRAY.try_with(|(tray, _)| tray.empty());
    }
}

/// Lets something go before this thread writes anything else, and at the latest when it rests: what the ends of many have to
/// do is done in one row, which costs less. Where a thread does not say when it rests, at once.
pub fn settle_later(last: Arc<dyn Settled>) {
    if RESTS.get() {
        // A thread that ends has no tray any more; there it goes at once too.
        let _ = TRAY.try_with(|(tray, _)| tray.leave(last));
    }
}

/// Lets go what was left for later, on whatever thread.
pub fn settle_all() {
    // Not under the lock: a thread that begins would wait for all that work.
    let all: Vec<_> = ALL.lock().iter().filter_map(Weak::upgrade).collect();
    for tray in all {
        tray.settle();
    }
}

/// Something is about to be written directly.
pub(super) fn settle() {
    if PATIENCE.get() > 0 {
        let _ = TRAY.try_with(|(tray, _)| tray.settle());
    }
}

/// Something was read.
pub(super) fn read() {
    match PATIENCE.get() {
        0 => {}
        1 => {
            let _ = TRAY.try_with(|(tray, _)| tray.empty());
        }
        more => PATIENCE.set(more - 1),
    }
}

/// A buffer for what is to be laid down; nothing where a thread ends, which has no tray any more.
pub(super) fn room() -> Option<Vec<u8>> {
    TRAY.try_with(|(tray, _)| tray.spare.lock().pop().unwrap_or_default()).ok()
}

/// Lays something down, where there was [`room`] for it.
pub(super) fn put(desk: Arc<dyn Post>) {
    TRAY.with(|(tray, waker)| tray.put(waker, desk));
}

/// What a thread has to write when its tasks have had their turn.
#[derive(Default)]
struct Tray {
    desks: Mutex<Vec<Arc<dyn Post>>>,
    /// What is let go before.
    last: Mutex<Vec<Arc<dyn Settled>>>,
    spare: Mutex<Vec<Vec<u8>>>,
}

impl Tray {
    fn put(&self, waker: &Waker, desk: Arc<dyn Post>) {
        let mut desks = self.desks.lock();
        desks.push(desk);
        let count = desks.len();
        drop(desks);
        if count == 1 {
            PATIENCE.set(READS);
            // Polled once, it has the waker called when all tasks have had their turn and the thread has looked for
            // events; that is all that is wanted of it. Outside of a runtime it is called at once.
            let _ = pin!(tokio::task::yield_now()).poll(&mut Context::from_waker(waker));
        } else if count >= ROW {
            self.empty();
        }
    }

    fn leave(&self, last: Arc<dyn Settled>) {
        let mut all = self.last.lock();
        all.push(last);
        let count = all.len();
        drop(all);
        if PATIENCE.get() == 0 {
            PATIENCE.set(READS);
        }
        if count >= ROW {
            self.settle();
        }
    }

    /// Whoever returns from here finds all settled, whoever did it.
    fn settle(&self) {
        let mut last = self.last.lock();
        // It may be a thread of the runtime, which is not to end because of what one request has left.
        if catch_unwind(AssertUnwindSafe(|| last.clear())).is_err() {
            tracing::error!("what a request left could not be settled");
        }
    }

    fn empty(&self) {
        PATIENCE.set(0);
        self.settle();
        let mut desks = std::mem::take(&mut *self.desks.lock());
        for desk in desks.drain(..) {
            let bytes = desk.post().filter(|bytes| (1..=SPARE_ROOM).contains(&bytes.capacity()));
            let mut spare = self.spare.lock();
            if spare.len() < SPARE {
                spare.extend(bytes);
            }
        }
        // Its room is used again.
        let mut new = self.desks.lock();
        if new.is_empty() {
            *new = desks;
        }
    }
}

impl Wake for Tray {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    /// The thread has looked for events. If it says when it rests, they have their turn first.
    fn wake_by_ref(self: &Arc<Self>) {
        if !RESTS.get() {
            self.empty();
        }
    }
}
