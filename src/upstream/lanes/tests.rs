use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use http_body_util::BodyExt as _;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
use tokio::sync::Semaphore;
use tokio::task::yield_now;

use super::*;
use crate::body;

const IDLE: Duration = Duration::from_secs(90);

/// The other side. `/slow` waits for a turn before it answers, `/pieces` before each piece of its answer, `/last` closes behind
/// its answer, `/cut` instead of one.
#[derive(Clone, Debug)]
struct Far(Arc<Seen>);

#[derive(Debug)]
struct Seen {
    /// Connections that may still be made; without a turn they wait.
    doors: Semaphore,
    /// The next connections fail.
    broken: AtomicUsize,
    made: AtomicUsize,
    open: AtomicUsize,
    turns: Semaphore,
    heads: Mutex<Vec<String>>,
}

impl Far {
    fn new(doors: usize) -> Self {
        Self(Arc::new(Seen {
            doors: Semaphore::new(doors),
            broken: AtomicUsize::new(0),
            made: AtomicUsize::new(0),
            open: AtomicUsize::new(0),
            turns: Semaphore::new(0),
            heads: Mutex::default(),
        }))
    }

    fn lanes(&self) -> Arc<Lanes<Self>> {
        Arc::new(Lanes::new(self.clone(), IDLE))
    }

    fn made(&self) -> usize {
        self.0.made.load(SeqCst)
    }

    fn open(&self) -> usize {
        self.0.open.load(SeqCst)
    }

    async fn serve(self, mut socket: DuplexStream) {
        self.0.open.fetch_add(1, SeqCst);
        let mut head = Vec::new();
        while let Ok(byte) = socket.read_u8().await {
            head.push(byte);
            if !head.ends_with(b"\r\n\r\n") {
                continue;
            }
            let text = String::from_utf8(std::mem::take(&mut head)).unwrap();
            let path = text.split(' ').nth(1).unwrap().to_owned();
            self.0.heads.lock().push(text);
            if path == "/slow" {
                self.0.turns.acquire().await.unwrap().forget();
            }
            if path == "/cut" {
                break;
            }
            if path == "/pieces" {
                let head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
                socket.write_all(head).await.unwrap();
                // Two pieces at once, and each time one more that comes by itself.
                for piece in ["2\r\nab\r\n2\r\ncd\r\n", "1\r\ne\r\n", "0\r\n\r\n"] {
                    self.0.turns.acquire().await.unwrap().forget();
                    if socket.write_all(piece.as_bytes()).await.is_err() {
                        break;
                    }
                }
                continue;
            }
            if socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.is_err() {
                break;
            }
            if path == "/last" {
                break;
            }
        }
        self.0.open.fetch_sub(1, SeqCst);
    }
}

impl Service<Uri> for Far {
    type Response = TokioIo<DuplexStream>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let far = self.clone();
        Box::pin(async move {
            far.0.doors.acquire().await?.forget();
            if far.0.broken.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)).is_ok() {
                return Err("nobody there".into());
            }
            far.0.made.fetch_add(1, SeqCst);
            let (near, other) = duplex(1 << 10);
            tokio::spawn(far.serve(other));
            Ok(TokioIo::new(near))
        })
    }
}

/// Asks, and reads the answer.
async fn ask(lanes: &Arc<Lanes<Far>>, uri: &'static str) -> Result<Bytes, Failed> {
    let mut request = Request::new(body::full(Bytes::new()));
    *request.uri_mut() = Uri::from_static(uri);
    let response = Arc::clone(lanes).request(request).await?;
    Ok(body::read(response.into_body().boxed_unsync(), 99).await.unwrap())
}

fn spawn(lanes: &Arc<Lanes<Far>>, uri: &'static str) -> tokio::task::JoinHandle<Result<Bytes, Failed>> {
    let lanes = Arc::clone(lanes);
    tokio::spawn(async move { ask(&lanes, uri).await })
}

/// Lets all tasks run until none has anything to do.
async fn settle() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}

#[tokio::test(start_paused = true)]
async fn calls_one_after_the_other_share_a_connection() {
    let far = Far::new(9);
    let lanes = far.lanes();
    for uri in ["http://far:8080/a?b=c", "http://far:8080", "http://far:8080/slow", "http://far:8080/d"] {
        far.0.turns.add_permits(1);
        assert_eq!(ask(&lanes, uri).await.unwrap(), "ok");
    }
    assert_eq!((far.made(), far.open()), (1, 1));
    assert!(far.0.heads.lock()[0].starts_with("GET /a?b=c HTTP/1.1\r\n"));
    assert!(far.0.heads.lock().iter().all(|head| head.contains("\r\nhost: far:8080\r\n")));
    // Another host has connections of its own, and a usual port is not said.
    assert_eq!(ask(&lanes, "http://near:80/").await.unwrap(), "ok");
    assert_eq!(far.made(), 2);
    assert!(far.0.heads.lock().last().unwrap().contains("\r\nhost: near\r\n"));
    drop(lanes);
    settle().await;
    assert_eq!(far.open(), 0, "they end with their client");
}

#[tokio::test(start_paused = true)]
async fn calls_at_once_have_a_connection_each_and_leave_them_to_the_next() {
    let far = Far::new(99);
    let lanes = far.lanes();
    let calls: Vec<_> = (0..20).map(|_| spawn(&lanes, "http://far/slow")).collect();
    settle().await;
    assert_eq!(far.made(), 20);
    far.0.turns.add_permits(20);
    for call in calls {
        assert_eq!(call.await.unwrap().unwrap(), "ok");
    }
    for _ in 0..20 {
        ask(&lanes, "http://far/").await.unwrap();
    }
    assert_eq!(far.made(), 20);
    tokio::time::sleep(2 * IDLE).await;
    assert_eq!(far.open(), 0, "nobody has used them for long");
    ask(&lanes, "http://far/").await.unwrap();
    assert_eq!(far.made(), 21);
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_takes_what_comes_free_first() {
    let far = Far::new(1);
    let lanes = far.lanes();
    let first = spawn(&lanes, "http://far/slow");
    settle().await;
    // No door is open for these two: they wait for connections that are not made.
    let (second, third) = (spawn(&lanes, "http://far/slow"), spawn(&lanes, "http://far/b"));
    settle().await;
    far.0.turns.add_permits(1);
    assert_eq!(first.await.unwrap().unwrap(), "ok");
    settle().await;
    assert!(!second.is_finished() && !third.is_finished());
    assert!(far.0.heads.lock().last().unwrap().contains(" /slow "), "the one who waits longest");
    far.0.turns.add_permits(1);
    assert_eq!(second.await.unwrap().unwrap(), "ok");
    assert_eq!(third.await.unwrap().unwrap(), "ok");
    assert_eq!(far.made(), 1);
    // What was begun for them is there for others.
    far.0.doors.add_permits(2);
    settle().await;
    assert_eq!(far.made(), 3);
    let calls: Vec<_> = (0..3).map(|_| spawn(&lanes, "http://far/slow")).collect();
    settle().await;
    far.0.turns.add_permits(3);
    for call in calls {
        assert_eq!(call.await.unwrap().unwrap(), "ok");
    }
    assert_eq!(far.made(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_is_not_made_fails_one_and_leaves_nobody_waiting() {
    let far = Far::new(0);
    far.0.broken.store(1, SeqCst);
    let lanes = far.lanes();
    let calls: Vec<_> = (0..3).map(|_| spawn(&lanes, "http://far/")).collect();
    settle().await;
    // The one that fails was made for the first; the other two serve those who are left.
    far.0.doors.add_permits(3);
    let mut failed = 0;
    for call in calls {
        match call.await.unwrap() {
            Ok(answer) => assert_eq!(answer, "ok"),
            Err(error) => {
                assert!(matches!(&error, Failed::Connecting(why) if why.to_string() == "nobody there"));
                failed += 1;
            }
        }
    }
    assert_eq!(failed, 1);
    // A connection comes free for somebody whose own fails afterwards: nobody waits for ever.
    let slow = spawn(&lanes, "http://far/slow");
    let other = spawn(&lanes, "http://far/slow");
    settle().await;
    let waiting: Vec<_> = (0..2).map(|_| spawn(&lanes, "http://far/")).collect();
    settle().await;
    far.0.turns.add_permits(1);
    settle().await;
    far.0.broken.store(9, SeqCst);
    far.0.doors.add_permits(9);
    far.0.turns.add_permits(1);
    for call in waiting.into_iter().chain([slow, other]) {
        assert!(call.await.unwrap().is_ok());
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_other_side_has_closed_is_not_used() {
    let far = Far::new(9);
    let lanes = far.lanes();
    assert_eq!(ask(&lanes, "http://far/last").await.unwrap(), "ok");
    settle().await;
    assert_eq!(ask(&lanes, "http://far/").await.unwrap(), "ok");
    assert_eq!(far.made(), 2);
    // Closed without an answer: the request was sent, so it is not sent again.
    let cut = ask(&lanes, "http://far/cut").await.unwrap_err();
    assert!(matches!(cut, Failed::Sending(_)), "{cut:?}");
    assert_eq!(far.0.heads.lock().iter().filter(|head| head.contains(" /cut ")).count(), 1);
    assert_eq!(ask(&lanes, "http://far/").await.unwrap(), "ok");
    assert_eq!(far.made(), 3);
}

#[tokio::test(start_paused = true)]
async fn what_meets_a_connection_as_it_closes_goes_over_another() {
    let far = Far::new(9);
    let lanes = far.lanes();
    // The answer is read and the end behind it is not yet: the connection looks free.
    for _ in 0..5 {
        assert_eq!(ask(&lanes, "http://far/last").await.unwrap(), "ok");
    }
    assert!(far.made() <= 5 && far.open() == 0);
}

#[tokio::test(start_paused = true)]
async fn who_leaves_takes_the_connection_along_and_nobody_elses() {
    let far = Far::new(2);
    let lanes = far.lanes();
    let call = spawn(&lanes, "http://far/slow");
    settle().await;
    call.abort();
    settle().await;
    far.0.turns.add_permits(1);
    settle().await;
    assert_eq!(far.open(), 0);
    // In line, waiting for a connection: it is made and is free.
    let held = spawn(&lanes, "http://far/slow");
    settle().await;
    let waiting = spawn(&lanes, "http://far/");
    settle().await;
    waiting.abort();
    far.0.turns.add_permits(1);
    assert_eq!(held.await.unwrap().unwrap(), "ok");
    yield_now().await;
    assert_eq!(ask(&lanes, "http://far/").await.unwrap(), "ok");
    assert_eq!(far.made(), 2);
}

#[test]
fn no_address_is_no_connection() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let far = Far::new(1);
    for uri in ["/", "*"] {
        let answered = runtime.block_on(ask(&far.lanes(), uri));
        assert!(matches!(answered, Err(Failed::Connecting(_))));
    }
}

async fn begin(lanes: &Arc<Lanes<Far>>, uri: &'static str) -> Arriving {
    let mut request = Request::new(body::full(Bytes::new()));
    *request.uri_mut() = Uri::from_static(uri);
    Arc::clone(lanes).request(request).await.unwrap().into_body()
}

#[tokio::test(start_paused = true)]
async fn pieces_come_as_they_are_made_and_the_last_frees_the_connection() {
    let far = Far::new(9);
    let lanes = far.lanes();
    let mut body = begin(&lanes, "http://far/pieces").await;
    assert!(futures_util::poll!(body.frame()).is_pending());
    far.0.turns.add_permits(1);
    for piece in ["ab", "cd"] {
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), piece);
    }
    assert!(futures_util::poll!(body.frame()).is_pending());
    // Another task goes on with it.
    let reading = tokio::spawn(async move { body::read(body, 99).await.unwrap() });
    settle().await;
    far.0.turns.add_permits(2);
    assert_eq!(reading.await.unwrap(), "e");
    assert_eq!(ask(&lanes, "http://far/").await.unwrap(), "ok");
    assert_eq!(far.made(), 1);
    // One that is left in the middle goes.
    let mut body = begin(&lanes, "http://far/pieces").await;
    far.0.turns.add_permits(1);
    assert!(body.frame().await.unwrap().is_ok());
    drop(body);
    far.0.turns.add_permits(2);
    settle().await;
    assert_eq!(far.open(), 0);
    // One whose length was told is over with its last byte, whether its end is asked for or not.
    let mut body = begin(&lanes, "http://far/").await;
    assert!(body.frame().await.unwrap().is_ok());
    assert!(body.is_end_stream());
    drop(body);
    assert_eq!(ask(&lanes, "http://far/").await.unwrap(), "ok");
    assert_eq!(far.made(), 2);
}

#[tokio::test(start_paused = true)]
async fn what_is_closed_while_it_is_free_is_let_go_at_once() {
    let far = Far::new(9);
    let lanes = far.lanes();
    assert_eq!(ask(&lanes, "http://far/last").await.unwrap(), "ok");
    settle().await;
    let free = || lanes.hosts.lock().iter().map(|host| host.lanes.lock().free.len()).sum::<usize>();
    assert_eq!(free(), 0);
    assert_eq!(ask(&lanes, "http://far/").await.unwrap(), "ok");
    settle().await;
    assert_eq!(free(), 1);
}
