//! An engine that does as it is told, and a client that sees every byte.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::future::BoxFuture;
use gemway::api::routes::Endpoint;
use gemway::api::{Ctx, Engine, EventSource, Incoming, Readiness, Reply, Stream};
use gemway::error::{Error, Kind, Origin, Result};
use gemway::keys::{KeyConfig, Keys, Proof, Tenant};
use gemway::openai::models::{Model, ModelList};
use gemway::server::{self, Config, Shutdown};
use gemway::telemetry::Metrics;
use gemway::translate::Machine;
use gemway::usage::Usage;
use http::HeaderMap;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

/// The double. The body of a chat request is its stage direction.
pub(crate) struct Double {
    pub(crate) sources_alive: Arc<AtomicUsize>,
    pub(crate) waiting: Arc<AtomicUsize>,
    feed: parking_lot::Mutex<Option<mpsc::UnboundedReceiver<Result<Bytes>>>>,
}

struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(count))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

struct Fed {
    feed: mpsc::UnboundedReceiver<Result<Bytes>>,
    _alive: Counted,
}

impl EventSource for Fed {
    fn poll_next(&mut self, cx: &mut Context<'_>, batch: &mut Vec<Bytes>) -> Poll<Result<bool>> {
        match self.feed.poll_recv(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(None) => Poll::Ready(Ok(false)),
            Poll::Ready(Some(Err(error))) => Poll::Ready(Err(error)),
            Poll::Ready(Some(Ok(event))) => {
                batch.push(event);
                Poll::Ready(Ok(true))
            }
        }
    }
}

struct Echo;

impl Machine for Echo {
    fn push(&mut self, event: &[u8], out: &mut BytesMut) -> Result<()> {
        out.extend_from_slice(&[b"data: ", event, b"\n\n"].concat());
        Ok(())
    }
    fn usage(&self) -> Usage {
        Usage { output: 1, ..Usage::default() }
    }
    fn finish(&mut self, out: &mut BytesMut) -> Result<Usage> {
        out.extend_from_slice(b"data: [DONE]\n\n");
        Ok(self.usage())
    }
}

impl Engine for Double {
    fn authenticate(&self, headers: &HeaderMap, query: Option<&str>) -> Result<Arc<Tenant>> {
        let proof = Proof::Secret("good".to_owned().into());
        let key = KeyConfig::new("team-a", proof);
        Keys::new(&[key]).authenticate(headers, query)
    }

    fn serve(
        self: Arc<Self>,
        cx: Ctx,
        endpoint: Endpoint,
        incoming: Incoming,
    ) -> BoxFuture<'static, Result<Reply>> {
        Box::pin(async move {
            if endpoint == Endpoint::Models {
                return Reply::json(&ModelList::new(vec![Model::google("gemini-x")]));
            }
            if let Endpoint::Model(id) = endpoint {
                return Reply::json(&Model::google(id));
            }
            if endpoint != Endpoint::Chat {
                return Err(gemway::api::routes::unserved(&incoming.method, incoming.uri.path()));
            }
            let body = incoming.json(&cx).await?;
            cx.meter.model("asked", Some("gemini-x"));
            match &body[..] {
                b"panic" => panic!("as told"),
                b"busy" => Err(Error::new(Kind::RateLimited, Origin::Upstream, "slow down")
                    .retry(gemway::error::Retry::After(Duration::from_millis(2500)))),
                b"wait" => {
                    let _here = Counted::new(&self.waiting);
                    std::future::pending().await
                }
                b"stream" => {
                    let feed = self.feed.lock().take().expect("one stream a test");
                    let mut headers = HeaderMap::new();
                    headers.insert("x-gemway-dropped-params", "seed".parse().unwrap());
                    let alive = Counted::new(&self.sources_alive);
                    Ok(Reply::Stream(Stream {
                        events: Box::new(Fed { feed, _alive: alive }),
                        machine: Box::new(Echo),
                        headers,
                        closing: None,
                    }))
                }
                other => Ok(Reply::Whole {
                    body: Bytes::from(format!(
                        r#"{{"bytes":{},"key":"{}","deployment":{:?}}}"#,
                        other.len(),
                        cx.tenant.name(),
                        cx.deployment.as_deref().unwrap_or("")
                    )),
                    headers: HeaderMap::new(),
                }),
            }
        })
    }

    fn uploader(&self, _: &str) -> Result<Arc<Tenant>> {
        Err(Error::new(Kind::NotFound, Origin::Client, "no uploads here"))
    }

    fn ready(&self) -> Readiness {
        Readiness { ready: true, simulator: true, detail: vec![("site".into(), "double".into())] }
    }
}

/// A running server.
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    pub(crate) admin: SocketAddr,
    pub(crate) feed: mpsc::UnboundedSender<Result<Bytes>>,
    pub(crate) double: Arc<Double>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) shutdown: Shutdown,
    pub(crate) ended: tokio::task::JoinHandle<Result<()>>,
}

impl Running {
    pub(crate) fn say(&self, event: &'static str) {
        self.feed.send(Ok(Bytes::from_static(event.as_bytes()))).unwrap();
    }
}

pub(crate) async fn start() -> Running {
    start_with(|_| {}).await
}

pub(crate) async fn start_with(change: impl FnOnce(&mut Config)) -> Running {
    let mut config = Config {
        listen: "127.0.0.1:0".into(),
        admin_listen: "127.0.0.1:0".into(),
        min_drain: Duration::from_millis(300),
        drain_timeout: Duration::from_secs(20),
        ..Config::default()
    };
    config.intake.limit = 1 << 20;
    change(&mut config);
    let server = server::bind(config).await.unwrap();
    let (feed, events) = mpsc::unbounded_channel();
    let double = Arc::new(Double {
        sources_alive: Arc::default(),
        waiting: Arc::default(),
        feed: parking_lot::Mutex::new(Some(events)),
    });
    let metrics = Arc::new(Metrics::new());
    let shutdown = Shutdown::default();
    let (address, admin) = (server.address().unwrap(), server.admin_address().unwrap());
    let engine: Arc<dyn Engine> = Arc::<Double>::clone(&double);
    let ended = tokio::spawn(server.run(engine, Arc::clone(&metrics), shutdown.clone()));
    Running { address, admin, feed, double, metrics, shutdown, ended }
}

/// A connection that is read by hand.
pub(crate) struct Wire {
    pub(crate) socket: TcpStream,
    seen: Vec<u8>,
}

impl Wire {
    pub(crate) async fn open(address: SocketAddr) -> Self {
        Self { socket: TcpStream::connect(address).await.unwrap(), seen: Vec::new() }
    }

    pub(crate) async fn send(&mut self, text: impl AsRef<[u8]>) {
        self.socket.write_all(text.as_ref()).await.unwrap();
    }

    /// Reads until `needle` has come, and gives everything up to and with it.
    pub(crate) async fn until(&mut self, needle: &str) -> String {
        let reading = async {
            loop {
                if let Some(at) = find(&self.seen, needle.as_bytes()) {
                    let rest = self.seen.split_off(at + needle.len());
                    return String::from_utf8(std::mem::replace(&mut self.seen, rest)).unwrap();
                }
                let count = self.socket.read_buf(&mut self.seen).await.unwrap();
                assert_ne!(count, 0, "closed before {needle:?}: {:?}", String::from_utf8_lossy(&self.seen));
            }
        };
        tokio::time::timeout(Duration::from_secs(5), reading)
            .await
            .unwrap_or_else(|_| panic!("no {needle:?}"))
    }

    /// Reads to the end.
    pub(crate) async fn rest(&mut self) -> String {
        let end = self.socket.read_to_end(&mut self.seen);
        // A reset after the answer is as good an end as any.
        let _ = tokio::time::timeout(Duration::from_secs(5), end).await.expect("the connection ends");
        String::from_utf8(std::mem::take(&mut self.seen)).unwrap()
    }
}

fn find(hay: &[u8], needle: &[u8]) -> Option<usize> {
    hay.windows(needle.len()).position(|window| window == needle)
}

/// One request on a connection of its own; the whole answer as text.
pub(crate) async fn raw(address: SocketAddr, request: impl AsRef<[u8]>) -> String {
    let mut wire = Wire::open(address).await;
    // Who refuses need not read to the end.
    let _ = wire.socket.write_all(request.as_ref()).await;
    wire.rest().await
}

pub(crate) async fn get(address: SocketAddr, path: &str) -> String {
    call(address, "GET", path, "").await
}

pub(crate) async fn call(address: SocketAddr, method: &str, path: &str, body: &str) -> String {
    raw(address, request(method, path, body, "connection: close\r\n")).await
}

pub(crate) fn request(method: &str, path: &str, body: &str, extra: &str) -> String {
    format!(
        "{method} {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer good\r\n{extra}content-length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// Waits until something is true, for at most a second.
pub(crate) async fn soon(what: &str, condition: impl Fn() -> bool) {
    for _ in 0..100 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("not within a second: {what}");
}

/// The double alone, for tests that start the server themselves.
pub(crate) fn engine() -> Arc<dyn Engine> {
    Arc::new(Double {
        sources_alive: Arc::default(),
        waiting: Arc::default(),
        feed: parking_lot::Mutex::new(None),
    })
}
