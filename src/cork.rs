//! A socket that lets others go first.
//!
//! Whoever writes to a socket of the same machine wakes its reader, and the kernel bills the writer for that. With many
//! calls under way it is much cheaper to make all that is ready, and then to write it all, than to write each as it
//! becomes ready: the second reader is awake already. So before the first write after something was read, which is the
//! beginning of a request or of its answer, the task steps back once behind those that wait for their turn. Where nobody
//! waits, it goes on at once; and so do the events of a stream that has begun: each would cost another turn, and be late.

use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection};

/// The socket.
#[derive(Debug)]
pub struct Corked<S> {
    inner: S,
    /// It has not stepped back since something was read, or ever.
    fresh: bool,
}

impl<S> Corked<S> {
    /// Around a socket.
    pub fn new(inner: S) -> Self {
        Self { inner, fresh: true }
    }

    fn step(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !std::mem::replace(&mut self.fresh, false) {
            return Poll::Ready(());
        }
        // Polled once, it has the task woken when all others have had their turn; that is all that is wanted of it. A
        // task that simply wakes itself would be work for an idle thread, which would be woken for it.
        pin!(tokio::task::yield_now()).poll(cx)
    }
}

impl<S: Read + Unpin> Read for Corked<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.inner).poll_read(cx, buf);
        self.fresh |= polled.is_ready();
        polled
    }
}

impl<S: Write + Unpin> Write for Corked<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.step(cx));
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.step(cx));
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

impl<S: Connection> Connection for Corked<S> {
    fn connected(&self) -> Connected {
        self.inner.connected()
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use futures_util::FutureExt as _;
    use hyper_util::rt::TokioIo;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test]
    async fn others_go_first_and_everything_is_written() {
        let (near, mut far) = tokio::io::duplex(64);
        let mut socket = Corked::new(TokioIo::new(near));
        let other = tokio::spawn(async {});
        for round in 0..3 {
            let mut steps = 0;
            let wrote = poll_fn(|cx| {
                steps += 1;
                Pin::new(&mut socket).poll_write(cx, b"hello")
            });
            assert_eq!(wrote.await.unwrap(), 5);
            assert_eq!(steps, 2, "once behind the others in round {round}");
            assert!(other.is_finished());
            poll_fn(|cx| Pin::new(&mut socket).poll_flush(cx)).await.unwrap();
            // More of the same does not wait again, flushed or not, before something else was read.
            let more = |cx: &mut Context<'_>| Pin::new(&mut socket).poll_write(cx, b", you");
            assert!(poll_fn(more).now_or_never().is_some());
            let mut read = [0; 10];
            far.read_exact(&mut read).await.unwrap();
            assert_eq!(&read, b"hello, you");
            far.write_all(b"and?").await.unwrap();
            let mut room = [0; 8];
            let mut room = hyper::rt::ReadBuf::new(&mut room);
            poll_fn(|cx| Pin::new(&mut socket).poll_read(cx, room.unfilled())).await.unwrap();
        }
    }
}
