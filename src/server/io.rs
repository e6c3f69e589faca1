//! A client's socket, watched: what hyper leaves open for ever is closed here.
//!
//! hyper waits without end for the first bytes of a connection and for a client that does not read, and it
//! drops a `Content-Length` beside a `Transfer-Encoding` without a word. This wrapper sees the bytes go by.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use memchr::memmem::Finder;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use crate::wake::Alarm;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The longest head that is looked at; hyper refuses longer ones.
const HEAD: usize = 32 << 10;

/// The end of a head; a search that prepares itself anew for each costs more than the search.
static END: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\r\n\r\n"));

/// How long a client may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// For the first bytes, and for each request's head once begun.
    pub head: Duration,
    /// Between two requests of one connection.
    pub idle: Duration,
    /// Without taking a single byte of what we send.
    pub write: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { head: Duration::from_secs(10), idle: Duration::from_mins(2), write: Duration::from_mins(1) }
    }
}

/// What the socket and the service of one connection tell each other.
#[derive(Debug, Default)]
pub(super) struct Line {
    version: AtomicU8,
    begun: AtomicU64,
    busy: AtomicUsize,
    conflict: AtomicBool,
    /// A reply has gone, and nothing has come since.
    quiet: AtomicBool,
    /// That has been so for too long.
    overdue: AtomicBool,
}

impl Line {
    pub(super) fn is_h2(&self) -> bool {
        self.version.load(Ordering::Relaxed) == 2
    }

    /// The head just read named both `Content-Length` and `Transfer-Encoding`.
    pub(super) fn conflict(&self) -> bool {
        self.conflict.load(Ordering::Relaxed)
    }

    /// A request has begun; it lasts until the guard goes.
    pub(super) fn begin(self: &Arc<Self>) -> Busy {
        self.begun.fetch_add(1, Ordering::Relaxed);
        self.quiet.store(false, Ordering::Relaxed);
        self.busy.fetch_add(1, Ordering::Relaxed);
        Busy(Arc::clone(self))
    }
}

/// A request being served on a connection.
#[derive(Debug)]
pub(super) struct Busy(Arc<Line>);

impl Busy {
    pub(super) fn is_h2(&self) -> bool {
        self.0.is_h2()
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        if self.0.busy.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.quiet.store(true, Ordering::Relaxed);
        }
    }
}

/// The time between two requests of an HTTP/1 connection. hyper looks for the next request before it lets go of the last
/// reply, and would have to be woken to look again; so whoever polls the connection counts the time.
#[derive(Debug)]
pub(super) struct Between {
    line: Arc<Line>,
    patience: Duration,
    /// It is not moved with every request: when it rings, it is set again if the time is not over.
    alarm: Option<Alarm>,
    /// The request after which the time began, and when it is over.
    after: Option<(u64, Instant)>,
}

impl Between {
    pub(super) fn new(line: Arc<Line>, patience: Patience) -> Self {
        Self { line, patience: patience.idle, alarm: None, after: None }
    }

    /// Whether it has just become too long: then the next read fails.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.line.quiet.load(Ordering::Relaxed) || self.line.is_h2() {
            self.after = None;
            return Poll::Pending;
        }
        let begun = self.line.begun.load(Ordering::Relaxed);
        let end = match self.after {
            Some((after, end)) if after == begun => end,
            _ => Instant::now() + self.patience,
        };
        self.after = Some((begun, end));
        if self.line.overdue.load(Ordering::Relaxed) {
            return Poll::Pending;
        }
        let alarm = self.alarm.get_or_insert_with(|| Alarm::at(end));
        ready!(alarm.poll(cx));
        while Instant::now() < end {
            alarm.set(end);
            ready!(alarm.poll(cx));
        }
        self.line.overdue.store(true, Ordering::Relaxed);
        Poll::Ready(())
    }
}

/// The socket.
pub(super) struct Watched<S> {
    inner: S,
    line: Arc<Line>,
    patience: Patience,
    /// Bytes of the preface seen so far, until the version is known.
    matched: usize,
    begun: u64,
    /// When the wait for a head began, and for how long it may last. Most heads come whole, so the clock is looked at when
    /// there is something to wait for.
    waiting: Option<(Option<Instant>, Duration)>,
    in_head: bool,
    head: Vec<u8>,
    read_timer: Pin<Box<Sleep>>,
    write_timer: Option<Pin<Box<Sleep>>>,
}

impl<S> Watched<S> {
    pub(super) fn new(inner: S, line: Arc<Line>, patience: Patience) -> Self {
        let now = Instant::now();
        Self {
            inner,
            line,
            patience,
            matched: 0,
            begun: 0,
            waiting: Some((Some(now), patience.head)),
            in_head: false,
            head: Vec::new(),
            read_timer: Box::pin(tokio::time::sleep_until(now + patience.head)),
            write_timer: None,
        }
    }

    fn saw(&mut self, data: &[u8]) {
        self.line.quiet.store(false, Ordering::Relaxed);
        self.line.overdue.store(false, Ordering::Relaxed);
        if self.line.version.load(Ordering::Relaxed) == 0 {
            let expected = PREFACE.get(self.matched..).unwrap_or_default();
            let common = data.iter().zip(expected).take_while(|(a, b)| a == b).count();
            self.matched += common;
            if self.matched == PREFACE.len() {
                self.line.version.store(2, Ordering::Relaxed);
                self.waiting = None;
                self.head = Vec::new();
            } else if common < data.len() {
                self.line.version.store(1, Ordering::Relaxed);
            }
        }
        if self.line.version.load(Ordering::Relaxed) == 2 {
            return;
        }
        self.settle();
        if self.line.busy.load(Ordering::Relaxed) > 0 {
            return;
        }
        if !self.in_head {
            self.in_head = true;
            self.head.clear();
            if self.begun > 0 {
                self.waiting = Some((None, self.patience.head));
            }
        }
        if self.head.len() >= HEAD {
            return;
        }
        let scanned = self.head.len().saturating_sub(3);
        self.head.extend_from_slice(data.get(..HEAD.min(data.len())).unwrap_or(data));
        let tail = self.head.get(scanned..).unwrap_or_default();
        if let Some(end) = END.find(tail) {
            let conflict = ambiguous(self.head.get(..scanned + end).unwrap_or_default());
            self.line.conflict.store(conflict, Ordering::Relaxed);
        }
    }

    /// Notices that a request began since last time: its head is done with.
    fn settle(&mut self) {
        let begun = self.line.begun.load(Ordering::Relaxed);
        if begun != self.begun {
            self.begun = begun;
            self.in_head = false;
            self.waiting = None;
        }
    }

    fn overdue(&mut self, cx: &mut Context<'_>) -> bool {
        self.settle();
        if self.line.is_h2() {
            return false;
        }
        if self.line.overdue.load(Ordering::Relaxed) {
            return true;
        }
        if self.line.busy.load(Ordering::Acquire) > 0 {
            return false;
        }
        let Some((since, patience)) = &mut self.waiting else { return false };
        let deadline = *since.get_or_insert_with(Instant::now) + *patience;
        if self.read_timer.deadline() != deadline {
            self.read_timer.as_mut().reset(deadline);
        }
        self.read_timer.as_mut().poll(cx).is_ready()
    }

    fn wrote<T>(&mut self, cx: &mut Context<'_>, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.write_timer = None;
            return polled;
        }
        let patience = self.patience.write;
        let timer = self.write_timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(patience)));
        ready!(timer.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client does not read")))
    }
}

/// Whether a head holds both ways of giving a length: the opening of request smuggling.
fn ambiguous(head: &[u8]) -> bool {
    let (mut encoded, mut measured) = (false, false);
    for end in memchr::memchr_iter(b'\n', head) {
        let line = head.get(end + 1..).unwrap_or_default();
        let begins =
            |name: &[u8]| line.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name));
        match line.first() {
            Some(b't' | b'T') => encoded |= begins(b"transfer-encoding:"),
            Some(b'c' | b'C') => measured |= begins(b"content-length:"),
            _ => {}
        }
    }
    encoded && measured
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buf.filled().len();
        if let Poll::Ready(read) = Pin::new(&mut this.inner).poll_read(cx, buf) {
            read?;
            this.saw(buf.filled().get(before..).unwrap_or_default());
            return Poll::Ready(Ok(()));
        }
        if this.overdue(cx) {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client sends nothing")));
        }
        Poll::Pending
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.wrote(cx, polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        self.wrote(cx, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.inner).poll_flush(cx);
        self.wrote(cx, polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.inner).poll_shutdown(cx);
        self.wrote(cx, polled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes nothing, and does not end.
    struct Stuck;

    impl AsyncWrite for Stuck {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
            Poll::Pending
        }
        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Pending
        }
        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Pending
        }
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_takes_nothing_is_given_up_at_the_end_too() {
        use tokio::io::AsyncWriteExt as _;
        let patience = Patience::default();
        let watched = || Watched::new(Stuck, Arc::default(), patience);
        let begun = Instant::now();
        assert_eq!(watched().write(b"x").await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(watched().flush().await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(watched().shutdown().await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(begun.elapsed().as_secs(), 3 * patience.write.as_secs());
    }

    #[test]
    fn two_lengths_in_one_head_are_seen() {
        assert!(ambiguous(b"POST / HTTP/1.1\r\nContent-length: 5\r\ntransfer-Encoding: chunked"));
        assert!(!ambiguous(b"POST / HTTP/1.1\r\ncontent-length: 5\r\nx: transfer-encoding: chunked"));
    }
}
