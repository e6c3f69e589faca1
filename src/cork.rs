//! A socket whose first words go out with those of others.
//!
//! Whoever writes to a socket of the same machine wakes its reader, and the kernel bills the writer for that. With many
//! calls under way it is much cheaper to make all that is ready, and then to write it all, than to write each as it
//! becomes ready: the second reader is awake already, and the kernel's ways are still at hand. So what is written first
//! after something was read, which is the beginning of a request or of its answer, is laid down in a buffer, and written
//! when all tasks that wait for their turn have had it. Where nobody waits, that is at once. The events of a stream that
//! has begun are written directly: each would else be late.
//!
//! A thread whose runtime calls [`rest`] looks for events once more before it writes, since whatever they bring may have
//! something to write too.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker, ready};

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream, tcp, unix};

mod tray;

use tray::Post;
pub use tray::{Settled, rest, settle_all, settle_later};

/// What is longer is worth a system call of its own, and not worth a copy. Bytes.
const ROOM: usize = 16 << 10;

/// A socket that can be read and written by two.
pub trait Socket {
    /// The one who reads.
    type Read: AsyncRead + Unpin + Send;
    /// The one who writes.
    type Write: AsyncWrite + Unpin + Send + 'static;

    /// Both.
    fn halves(self) -> (Self::Read, Self::Write);
}

impl Socket for TcpStream {
    type Read = tcp::OwnedReadHalf;
    type Write = tcp::OwnedWriteHalf;

    fn halves(self) -> (Self::Read, Self::Write) {
        self.into_split()
    }
}

impl Socket for UnixStream {
    type Read = unix::OwnedReadHalf;
    type Write = unix::OwnedWriteHalf;

    fn halves(self) -> (Self::Read, Self::Write) {
        self.into_split()
    }
}

/// The socket.
#[derive(Debug)]
pub struct Corked<S: Socket> {
    read: S::Read,
    desk: Arc<Desk<S::Write>>,
    /// Nothing was written since something was read, or ever.
    fresh: bool,
}

/// What the owner of a socket shares with whoever writes for it.
#[derive(Debug)]
struct Desk<W> {
    /// What was laid down could not be written at once, so that the owner has to.
    late: AtomicBool,
    letter: Mutex<Letter<W>>,
}

#[derive(Debug)]
struct Letter<W> {
    socket: W,
    bytes: Vec<u8>,
    /// How many of them were written.
    sent: usize,
    /// It lies in a tray, and whoever empties that will write it.
    posted: bool,
    /// Who is woken if that fails.
    sender: Waker,
    error: Option<io::Error>,
}

impl<S: Socket> Corked<S> {
    /// Around a socket.
    pub fn new(socket: S) -> Self {
        let (read, socket) = socket.halves();
        let (bytes, sender) = (Vec::new(), Waker::noop().clone());
        let letter = Letter { socket, bytes, sent: 0, posted: false, sender, error: None };
        let desk = Desk { late: AtomicBool::new(false), letter: Mutex::new(letter) };
        Self { read, desk: Arc::new(desk), fresh: true }
    }

    fn lay_down(&mut self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let length = bufs.iter().map(|buf| buf.len()).sum::<usize>();
        let mut letter = self.desk.letter.lock();
        if letter.posted && letter.bytes.len() + length <= ROOM {
            letter.add(bufs);
            return Poll::Ready(Ok(length));
        }
        ready!(letter.send(cx))?;
        if !std::mem::take(&mut self.fresh) || length > ROOM {
            tray::settle();
            return Pin::new(&mut letter.socket).poll_write_vectored(cx, bufs);
        }
        // A thread that ends has no tray any more.
        let Some(spare) = tray::room() else {
            return Pin::new(&mut letter.socket).poll_write_vectored(cx, bufs);
        };
        letter.bytes = spare;
        letter.add(bufs);
        letter.posted = true;
        if !letter.sender.will_wake(cx.waker()) {
            letter.sender.clone_from(cx.waker());
        }
        drop(letter);
        tray::put(Arc::clone(&self.desk) as Arc<dyn Post>);
        Poll::Ready(Ok(length))
    }
}

impl<W: AsyncWrite + Unpin> Letter<W> {
    fn add(&mut self, bufs: &[IoSlice<'_>]) {
        for buf in bufs {
            self.bytes.extend_from_slice(buf);
        }
    }

    /// Writes what was laid down.
    fn send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(error) = self.error.take() {
            return Poll::Ready(Err(error));
        }
        while let Some(rest) = self.bytes.get(self.sent..).filter(|rest| !rest.is_empty()) {
            let wrote = ready!(Pin::new(&mut self.socket).poll_write(cx, rest))?;
            if wrote == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sent += wrote;
        }
        self.bytes.clear();
        self.sent = 0;
        self.posted = false;
        Poll::Ready(Ok(()))
    }
}

impl<W: AsyncWrite + Unpin + Send> Post for Desk<W> {
    fn post(&self) -> Option<Vec<u8>> {
        let mut letter = self.letter.lock();
        let sender = std::mem::replace(&mut letter.sender, Waker::noop().clone());
        letter.posted = false;
        let sent = letter.send(&mut Context::from_waker(&sender));
        let spare = match sent {
            Poll::Ready(Ok(())) => Some(std::mem::take(&mut letter.bytes)),
            // The owner hears of it when it looks the next time.
            Poll::Ready(Err(error)) => {
                letter.error = Some(error);
                self.late.store(true, Ordering::Release);
                sender.wake_by_ref();
                None
            }
            // The owner is woken when there is room.
            Poll::Pending => {
                self.late.store(true, Ordering::Release);
                None
            }
        };
        letter.sender = sender;
        spare
    }
}

impl<S: Socket + Unpin> AsyncRead for Corked<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.read).poll_read(cx, buf);
        if polled.is_ready() {
            self.fresh = true;
            tray::read();
        }
        polled
    }
}

impl<S: Socket + Unpin> AsyncWrite for Corked<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.lay_down(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.lay_down(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.desk.letter.lock().socket.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // What lies in a tray is as good as written.
        if !self.desk.late.load(Ordering::Acquire) {
            return Poll::Ready(Ok(()));
        }
        let mut letter = self.desk.letter.lock();
        let sent = ready!(letter.send(cx));
        self.desk.late.store(false, Ordering::Relaxed);
        Poll::Ready(sent)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut letter = self.desk.letter.lock();
        ready!(letter.send(cx))?;
        Pin::new(&mut letter.socket).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::time::Duration;

    use futures_util::FutureExt as _;
    use socket2::SockRef;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::tray::{READS, ROW};
    use super::*;

    /// A socket, and its other side.
    async fn pair() -> (Corked<TcpStream>, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (far, _) = listener.accept().await.unwrap();
        near.set_nodelay(true).unwrap();
        (Corked::new(near), far)
    }

    fn unread(socket: &TcpStream) -> usize {
        let mut room = [std::mem::MaybeUninit::uninit(); 64];
        SockRef::from(socket).peek(&mut room).unwrap_or(0)
    }

    #[tokio::test]
    async fn what_is_first_is_written_when_others_have_had_their_turn() {
        let (mut socket, mut far) = pair().await;
        for round in 0..3 {
            assert!(socket.write_all(b"hello").now_or_never().is_some(), "it is laid down in round {round}");
            assert!(socket.write_all(b", you").now_or_never().is_some());
            assert!(socket.flush().now_or_never().is_some());
            assert_eq!(unread(&far), 0);
            tokio::task::yield_now().await;
            assert_eq!(unread(&far), 10, "both at once in round {round}");
            // More of the same goes directly, before something else was read.
            socket.write_all(b"!").await.unwrap();
            assert_eq!(unread(&far), 11);
            let mut read = [0; 11];
            far.read_exact(&mut read).await.unwrap();
            assert_eq!(&read, b"hello, you!");
            far.write_all(b"and?").await.unwrap();
            socket.read_exact(&mut read[..4]).await.unwrap();
        }
    }

    #[test]
    fn a_thread_that_rests_looks_for_events_before_it_writes() {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.enable_all().worker_threads(1).on_thread_park(rest).build().unwrap();
        // Only a worker's thread rests.
        let far = runtime.block_on(runtime.spawn(async {
            let (mut socket, far) = pair().await;
            socket.write_all(b"hello").await.unwrap();
            tokio::task::yield_now().await;
            assert_eq!(unread(&far), 0, "it has only looked");
            tokio::time::sleep(Duration::from_millis(1)).await;
            assert_eq!(unread(&far), 5, "it has rested");
            far
        }));
        drop(far);
    }

    #[test]
    fn a_thread_that_never_rests_writes_all_the_same() {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.enable_all().worker_threads(1).on_thread_park(rest).build().unwrap();
        let busy = runtime.spawn(async {
            let (mut first, far) = pair().await;
            let (mut other, mut talker) = pair().await;
            first.write_all(b"hello").await.unwrap();
            let mut read = [0; 1];
            for reads in 0..READS {
                assert_eq!(unread(&far), 0, "after {reads} reads");
                talker.write_all(b"x").await.unwrap();
                while other.read(&mut read).now_or_never().is_none() {
                    tokio::task::yield_now().await;
                }
            }
            assert_eq!(unread(&far), 5);
            // Nor when there is much to be written.
            let mut sockets = Vec::new();
            for _ in 0..ROW {
                sockets.push(pair().await);
            }
            for (socket, far) in &mut sockets {
                assert_eq!(unread(far), 0);
                socket.write_all(b"hello").await.unwrap();
            }
            assert!(sockets.iter().all(|(_, far)| unread(far) == 5));
        });
        runtime.block_on(busy).unwrap();
    }

    /// Says that it has gone.
    struct Last(Arc<AtomicBool>);

    impl Settled for Last {}

    impl Drop for Last {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Release);
        }
    }

    fn last() -> (impl Fn() -> bool, Arc<Last>) {
        let gone = Arc::<AtomicBool>::default();
        let last = Arc::new(Last(Arc::clone(&gone)));
        (move || gone.load(Ordering::Acquire), last)
    }

    #[test]
    fn what_is_settled_later_is_settled_before_anything_is_written() {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.enable_all().worker_threads(1).on_thread_park(rest).build().unwrap();
        let busy = runtime.spawn(async {
            let (mut socket, far) = pair().await;
            socket.write_all(b"head").await.unwrap();
            // By resting.
            let (gone, one) = last();
            settle_later(one);
            tokio::task::yield_now().await;
            assert!(!gone());
            tokio::time::sleep(Duration::from_millis(1)).await;
            assert!(gone());
            // By what is written directly, and by more than are kept.
            let (gone, one) = last();
            settle_later(one);
            socket.write_all(b"event").await.unwrap();
            assert!(gone());
            let all: Vec<_> =
                (0..ROW).map(|_| last()).map(|(gone, one)| (gone, settle_later(one)).0).collect();
            assert!(all.iter().all(|gone| gone()));
            // By whoever wants to know.
            let (gone, one) = last();
            settle_later(one);
            std::thread::spawn(settle_all).join().unwrap();
            assert!(gone());
            drop(far);
        });
        runtime.block_on(busy).unwrap();
        // Nobody says here when it rests.
        let (gone, one) = last();
        settle_later(one);
        assert!(gone());
    }

    /// Cannot be settled.
    struct Broken;

    impl Settled for Broken {}

    impl Drop for Broken {
        fn drop(&mut self) {
            panic!("on purpose");
        }
    }

    #[test]
    fn what_cannot_be_settled_harms_nobody() {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.enable_all().worker_threads(1).on_thread_park(rest).build().unwrap();
        let busy = runtime.spawn(async {
            tokio::time::sleep(Duration::from_millis(1)).await;
            let (gone, one) = last();
            settle_later(Arc::new(Broken));
            settle_later(one);
            tokio::time::sleep(Duration::from_millis(1)).await;
            gone()
        });
        assert!(runtime.block_on(busy).unwrap());
    }

    /// Leaves what it has when its task is ended.
    struct Leaves(Option<Arc<Last>>);
    impl Drop for Leaves {
        fn drop(&mut self) {
            if let Some(last) = self.0.take() {
                settle_later(last);
            }
        }
    }

    #[test]
    fn what_is_left_when_a_thread_stops_is_settled() {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.enable_all().worker_threads(1).on_thread_park(rest).on_thread_stop(rest);
        let runtime = builder.build().unwrap();
        let (gone, one) = last();
        runtime.spawn(async move {
            let _leaves = Leaves(Some(one));
            std::future::pending::<()>().await;
        });
        // The thread has rested since.
        runtime.block_on(async { tokio::time::sleep(Duration::from_millis(10)).await });
        assert!(!gone());
        drop(runtime);
        assert!(gone());
    }

    #[tokio::test]
    async fn what_is_long_goes_directly_and_after_what_was_laid_down() {
        let (mut socket, mut far) = pair().await;
        socket.write_all(b"head").await.unwrap();
        let long = vec![b'x'; ROOM + 1];
        socket.write_all(&long).await.unwrap();
        let mut read = vec![0; ROOM + 5];
        far.read_exact(&mut read).await.unwrap();
        assert!(read.starts_with(b"headx") && read.ends_with(b"x"));
    }

    #[tokio::test]
    async fn what_was_laid_down_is_written_before_the_end() {
        let (mut socket, mut far) = pair().await;
        socket.write_all(b"last words").await.unwrap();
        socket.shutdown().await.unwrap();
        let mut read = Vec::new();
        far.read_to_end(&mut read).await.unwrap();
        assert_eq!(read, b"last words");

        let (mut socket, mut far) = pair().await;
        socket.write_all(b"and gone").await.unwrap();
        drop(socket);
        let mut read = Vec::new();
        far.read_to_end(&mut read).await.unwrap();
        assert_eq!(read, b"and gone");
    }

    #[tokio::test]
    async fn what_finds_no_room_is_written_by_its_owner() {
        let (mut socket, mut far) = pair().await;
        // Until the other side's room is full.
        let mut filled = 0;
        socket.write_all(b"x").await.unwrap();
        tokio::task::yield_now().await;
        let more = [b'x'; 4096];
        while let Ok(wrote) = tokio::time::timeout(Duration::from_millis(200), socket.write(&more)).await {
            filled += wrote.unwrap();
        }
        far.write_all(b"?").await.unwrap();
        let mut read = [0; 1];
        socket.read_exact(&mut read).await.unwrap();
        socket.write_all(b"the rest").await.unwrap();
        tokio::task::yield_now().await;
        assert!(socket.flush().now_or_never().is_none(), "nobody reads");
        let reading = tokio::spawn(async move {
            let mut all = vec![0; filled + 9];
            far.read_exact(&mut all).await.unwrap();
            (all, far)
        });
        socket.flush().await.unwrap();
        let (all, _far) = reading.await.unwrap();
        assert!(all.ends_with(b"xthe rest"));
    }

    #[tokio::test]
    async fn whoever_is_gone_is_noticed() {
        let (mut socket, far) = pair().await;
        SockRef::from(&far).set_linger(Some(Duration::ZERO)).unwrap();
        drop(far);
        // The reset has to arrive.
        let reset = socket.read(&mut [0; 1]).await;
        assert!(reset.is_err());
        socket.write_all(b"hello").await.unwrap();
        let failed = poll_fn(|cx| {
            let flushed = Pin::new(&mut socket).poll_flush(cx);
            // It looks again when it is woken.
            if matches!(flushed, Poll::Ready(Ok(()))) { Poll::Pending } else { flushed }
        });
        let failed = tokio::time::timeout(Duration::from_secs(5), failed).await.unwrap();
        assert_eq!(failed.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn outside_of_a_runtime_nothing_is_held_back() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (mut socket, far) = runtime.block_on(pair());
        // It takes a turn of the runtime to know that the socket is ready.
        runtime.block_on(async { socket.read.readable().now_or_never() });
        runtime.block_on(socket.desk.letter.lock().socket.writable()).unwrap();
        assert!(socket.write_all(b"hello").now_or_never().is_some());
        assert_eq!(unread(&far), 5);
    }
}
