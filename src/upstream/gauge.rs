//! What one read of a connection brought, so that a body's reader knows whether there is more of it.
//!
//! Under TLS a connection of HTTP/1 is a task of its own (in the clear it is not: see `lanes`), which reads what there is
//! and hands it over chunk by chunk, each when the one before was taken. Whoever writes events on wants to wait for the
//! rest of a read, which is there already, and never for the next read, which may be seconds away. What is counted is what
//! was encrypted; that is more than what is handed over, so the reader believes in a rest that does not come, and looks
//! for it a few times in vain.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, ready};

use hyper_util::client::legacy::connect::{Connected, Connection};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::cork::Corked;

/// The last read of one connection: in the upper half its number, in the lower one its length in bytes.
#[derive(Clone, Debug, Default)]
pub(super) struct Gauge(Arc<AtomicU64>);

impl Gauge {
    fn read(&self, bytes: usize) {
        // Only the connection's task writes here.
        let number = (self.0.load(Relaxed) >> 32).wrapping_add(1);
        self.0.store((number << 32) | u64::from(u32::try_from(bytes).unwrap_or(u32::MAX)), Relaxed);
    }

    fn last(&self) -> (u64, u64) {
        let last = self.0.load(Relaxed);
        (last >> 32, last & u64::from(u32::MAX))
    }
}

/// What is left of the last read, as one body's reader sees it.
#[derive(Debug)]
pub(super) struct Rest {
    gauge: Gauge,
    number: u64,
    left: u64,
}

impl Rest {
    pub(super) fn new(gauge: Gauge) -> Self {
        Self { gauge, number: 0, left: 0 }
    }

    /// A chunk of so many bytes was handed over.
    pub(super) fn took(&mut self, bytes: usize) {
        let (number, length) = self.gauge.last();
        if number != self.number {
            (self.number, self.left) = (number, length);
        }
        // Around a chunk are its length in hexadecimal digits and two line ends.
        let digits = (usize::BITS - bytes.leading_zeros()).div_ceil(4);
        self.left = self.left.saturating_sub(bytes as u64 + u64::from(digits) + 4);
    }

    /// Whether there is something left.
    pub(super) fn is_some(&self) -> bool {
        self.left > 0
    }
}

/// A connection that keeps its gauge.
pub(super) struct Gauged {
    inner: Corked<TcpStream>,
    gauge: Gauge,
}

impl Gauged {
    pub(super) fn new(inner: Corked<TcpStream>) -> Self {
        Self { inner, gauge: Gauge::default() }
    }
}

impl Connection for Gauged {
    /// The gauge comes with each answer, instead of the addresses that hyper would tell.
    fn connected(&self) -> Connected {
        Connected::new().extra(self.gauge.clone())
    }
}

impl AsyncRead for Gauged {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(cx, buf))?;
        // What filled the buffer was cut off by it: one byte more than was read stands for the rest, so that the next
        // read is waited for, which comes at once.
        self.gauge.read(buf.filled().len() - before + usize::from(buf.remaining() == 0));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Gauged {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `4\r\nabcd\r\n` three times in two reads, the end in a third.
    #[test]
    fn a_read_is_over_when_its_last_chunk_was_handed_over() {
        let gauge = Gauge::default();
        let mut rest = Rest::new(gauge.clone());
        gauge.read(18);
        rest.took(4);
        assert!(rest.is_some());
        rest.took(4);
        assert!(!rest.is_some());
        gauge.read(9);
        rest.took(4);
        assert!(!rest.is_some());
        gauge.read(9 + 5);
        rest.took(4);
        assert!(rest.is_some(), "the end of the body");
    }

    #[test]
    fn the_length_of_a_length_counts() {
        for (bytes, around) in [(1, 5), (15, 5), (16, 6), (255, 6), (256, 7), (4095, 7), (4096, 8)] {
            let gauge = Gauge::default();
            let mut rest = Rest::new(gauge.clone());
            gauge.read(bytes + around);
            rest.took(bytes);
            assert!(!rest.is_some(), "{bytes}");
            gauge.read(bytes + around + 1);
            rest.took(bytes);
            assert!(rest.is_some(), "{bytes}");
        }
    }
}
