//! Lines on their way to standard error: gathered for a moment and written together by a thread of their own, for
//! a system call by line and by request is dear, and a pipe that nobody reads must not stop requests at once.
//!
//! Warnings and errors go out at once, and take along what stands before them. Nothing is dropped: when more is
//! held than the bound, whoever logs writes it out himself, and waits if he must.

use std::io::{self, Write};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

/// How long a line may lie, at most about.
const PAUSE: Duration = Duration::from_millis(10);
/// Bytes that may lie.
const MOST: usize = 1 << 20;

static RUNNING: OnceLock<Lines> = OnceLock::new();

/// Writes out what still lies; for the end of the process.
pub fn flush() {
    if let Some(lines) = RUNNING.get() {
        lines.0.write_out(&[]);
    }
}

/// Where the subscriber writes; clones are the same place.
#[derive(Clone)]
pub(super) struct Lines(Arc<Shared<io::Stderr>>);

impl Lines {
    /// The lines of this process; the first call starts the thread.
    pub(super) fn start() -> Self {
        let start = || {
            let shared = Arc::new(Shared::new(io::stderr()));
            let written = Arc::clone(&shared);
            let thread = std::thread::Builder::new().name("gemway-log".to_owned());
            // Without a thread every line goes out at once, as it would have anyway at the latest.
            let started = thread.spawn(move || written.run()).is_ok();
            shared.held.lock().prompt = !started;
            Self(shared)
        };
        RUNNING.get_or_init(start).clone()
    }

    /// Takes a whole line of this level.
    pub(super) fn put(&self, line: &[u8], level: Level) {
        self.0.put(line, is_urgent(level));
    }
}

/// What lies, and where it goes. `out` is locked before `held`.
struct Shared<W> {
    held: Mutex<Held>,
    more: Condvar,
    out: Mutex<Out<W>>,
}

#[derive(Default)]
struct Held {
    bytes: Vec<u8>,
    /// The thread waits to be told.
    asleep: bool,
    /// There is no thread.
    prompt: bool,
}

struct Out<W> {
    to: W,
    /// The buffer that is being written, kept for its room.
    spare: Vec<u8>,
}

impl<W: Write> Shared<W> {
    fn new(to: W) -> Self {
        Self { held: Mutex::default(), more: Condvar::new(), out: Mutex::new(Out { to, spare: Vec::new() }) }
    }

    /// Takes a line. `now`: it goes out before this returns, behind all that came before it.
    fn put(&self, line: &[u8], now: bool) {
        if !now {
            let mut held = self.held.lock();
            if !held.prompt && held.bytes.len() + line.len() <= MOST {
                held.bytes.extend_from_slice(line);
                if std::mem::take(&mut held.asleep) {
                    self.more.notify_one();
                }
                return;
            }
        }
        self.write_out(line);
    }

    fn write_out(&self, line: &[u8]) {
        let mut out = self.out.lock();
        let Out { to, spare } = &mut *out;
        {
            let mut held = self.held.lock();
            held.bytes.extend_from_slice(line);
            std::mem::swap(&mut held.bytes, spare);
        }
        // Standard error may be closed; then there is nobody to tell.
        let _ = to.write_all(spare);
        spare.clear();
    }

    fn run(&self) {
        loop {
            {
                let mut held = self.held.lock();
                while held.bytes.is_empty() {
                    held.asleep = true;
                    self.more.wait(&mut held);
                }
            }
            #[expect(clippy::disallowed_methods, reason = "this thread has nothing else to do")]
            std::thread::sleep(PAUSE);
            self.write_out(&[]);
        }
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line { shared: &self.0, now: true }
    }

    fn make_writer_for(&'a self, about: &Metadata<'_>) -> Line<'a> {
        Line { shared: &self.0, now: is_urgent(*about.level()) }
    }
}

/// Whether lines of a level go out at once.
fn is_urgent(level: Level) -> bool {
    level <= Level::WARN
}

/// Takes one line, which comes whole.
pub(super) struct Line<'a> {
    shared: &'a Shared<io::Stderr>,
    now: bool,
}

impl Write for Line<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.shared.put(line, self.now);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Default)]
    struct Seen(Arc<Mutex<Vec<Vec<u8>>>>);

    impl Write for Seen {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().push(bytes.to_vec());
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_lie_until_one_is_urgent_and_keep_their_order() {
        let seen = Seen::default();
        let shared = Shared::new(seen.clone());
        shared.put(b"one\n", false);
        shared.put(b"two\n", false);
        assert!(seen.0.lock().is_empty());
        shared.put(b"now\n", true);
        shared.put(b"last\n", false);
        shared.write_out(&[]);
        assert_eq!(*seen.0.lock(), [b"one\ntwo\nnow\n".to_vec(), b"last\n".to_vec()]);
    }

    #[test]
    fn what_lies_is_bounded_and_nothing_is_lost() {
        let seen = Seen::default();
        let shared = Shared::new(seen.clone());
        let line = vec![b'x'; MOST / 4];
        for _ in 0..9 {
            shared.put(&line, false);
        }
        let written: usize = seen.0.lock().iter().map(Vec::len).sum();
        let lying = shared.held.lock().bytes.len();
        assert!(lying <= MOST);
        assert_eq!(written + lying, 9 * line.len());
    }

    #[test]
    fn the_thread_writes_soon() {
        let seen = Seen::default();
        let shared = Arc::new(Shared::new(seen.clone()));
        let running = Arc::clone(&shared);
        std::thread::spawn(move || running.run());
        for _ in 0..3 {
            shared.put(b"line\n", false);
            let begun = std::time::Instant::now();
            while seen.0.lock().is_empty() {
                assert!(begun.elapsed() < Duration::from_secs(5), "nobody wrote");
                std::thread::yield_now();
            }
            seen.0.lock().clear();
        }
    }
}
