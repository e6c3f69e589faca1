//! The server: listeners, connections, the layers around the front, and the way down.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::Request;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::api::{Engine, Front, Intake, Operator};
use crate::body::BoxError;
use crate::cork::{self, Corked};
use crate::error::{Error, Kind, Origin, Result};
use crate::ids::Ids;
use crate::meter::{Books, Sink};
use crate::telemetry::Metrics;
use crate::telemetry::metrics::Held;
use crate::wake::{Door, Hushed, Word};

mod admin;
mod io;
mod signals;
mod stack;
mod tls;

pub use io::Patience;
pub use signals::{Hangups, Shutdown, watch};
pub use tls::{Pem, Tls};

use io::{Between, Line, Watched};
use stack::Stack;

/// After a failed accept (no file descriptors left, most likely) wait a moment, or the loop eats the processor.
const AFTER_ACCEPT_ERROR: Duration = Duration::from_millis(100);

/// How long the last words of a cut stream may take to leave.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// The server's settings.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where clients come: `HOST:PORT`, or `unix:PATH`.
    pub listen: String,
    /// Where the operator comes: `HOST:PORT`.
    pub admin_listen: String,
    /// What clients on a TCP socket are greeted with; none is plain HTTP.
    pub tls: Option<Arc<Tls>>,
    /// Which part of the traces that begin here is kept, where requests are traced at all.
    pub trace_share: Option<f64>,
    /// Bounds of a request's body.
    pub intake: Intake,
    /// Bounds of a connection's pauses.
    pub patience: Patience,
    /// Streams are never silent for longer than this; none lets them.
    pub heartbeat: Option<Duration>,
    /// How many client connections there may be.
    pub max_connections: usize,
    /// After the first signal, how long new connections are still taken: load balancers learn slowly.
    pub min_drain: Duration,
    /// After the first signal, how long running requests may go on.
    pub drain_timeout: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:8080".to_owned(),
            admin_listen: "127.0.0.1:9090".to_owned(),
            tls: None,
            trace_share: None,
            intake: Intake::default(),
            patience: Patience::default(),
            heartbeat: None,
            max_connections: 16_384,
            min_drain: Duration::from_secs(5),
            drain_timeout: Duration::from_secs(570),
        }
    }
}

/// A server that listens and does not answer yet.
#[derive(Debug)]
pub struct Server {
    config: Config,
    listener: Listener,
    admin: std::net::TcpListener,
    sink: Option<Arc<dyn Sink>>,
    operator: Option<Arc<dyn Operator>>,
}

#[derive(Debug)]
enum Listener {
    Tcp(TcpListener),
    Unix { listener: UnixListener, _file: Socketfile },
}

/// The file of a Unix socket, removed with its listener.
#[derive(Debug)]
struct Socketfile(PathBuf);

impl Drop for Socketfile {
    fn drop(&mut self) {
        // Nobody is hurt if it is gone already.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Opens both listeners.
///
/// # Errors
/// When an address is wrong or taken.
pub async fn bind(config: Config) -> Result<Server> {
    let failed = |address: &str, error: std::io::Error| {
        Error::new(Kind::Conflict, Origin::Gateway, format!("cannot listen on {address}: {error}"))
            .because(error)
    };
    let listener = match config.listen.strip_prefix("unix:") {
        Some(path) => {
            let path = PathBuf::from(path);
            unlink_stale(&path).await;
            let listener = UnixListener::bind(&path).map_err(|error| failed(&config.listen, error))?;
            Listener::Unix { listener, _file: Socketfile(path) }
        }
        None => Listener::Tcp(
            TcpListener::bind(config.listen.as_str()).await.map_err(|error| failed(&config.listen, error))?,
        ),
    };
    let admin = TcpListener::bind(config.admin_listen.as_str())
        .await
        .and_then(TcpListener::into_std)
        .map_err(|error| failed(&config.admin_listen, error))?;
    Ok(Server { config, listener, admin, sink: None, operator: None })
}

/// Binds and runs.
///
/// # Errors
/// When a listener cannot be opened.
pub async fn run(
    config: Config,
    engine: Arc<dyn Engine>,
    metrics: Arc<Metrics>,
    shutdown: Shutdown,
) -> Result<()> {
    bind(config).await?.run(engine, metrics, shutdown).await
}

/// A socket left behind by a process that died; one that answers is somebody's and stays.
async fn unlink_stale(path: &PathBuf) {
    if path.exists() && tokio::net::UnixStream::connect(path).await.is_err() {
        // If this fails, the bind that follows says why.
        let _ = std::fs::remove_file(path);
    }
}

/// The three steps of going down.
#[derive(Clone, Debug, Default)]
struct Steps {
    /// Not ready any more; new requests are served, connections are asked to go.
    draining: CancellationToken,
    /// No new connections; idle ones close.
    closing: CancellationToken,
    /// What still runs is told to end.
    cut: CancellationToken,
}

impl Server {
    /// Where clients come, if that is an address.
    pub fn address(&self) -> Option<SocketAddr> {
        match &self.listener {
            Listener::Tcp(listener) => listener.local_addr().ok(),
            Listener::Unix { .. } => None,
        }
    }

    /// Where the operator comes.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin.local_addr().ok()
    }

    /// Lets `operator` answer below `/admin/` on the second listener.
    #[must_use]
    pub fn operated(mut self, operator: Option<Arc<dyn Operator>>) -> Self {
        self.operator = operator;
        self
    }

    /// Tells `sink` of every request; without one, metrics and log are told.
    #[must_use]
    pub fn booked(mut self, sink: Arc<dyn Sink>) -> Self {
        self.sink = Some(sink);
        self
    }

    /// Serves until `shutdown` begins and the drain is done, or until `shutdown` says now.
    ///
    /// # Errors
    /// When the admin thread cannot be started.
    pub async fn run(self, engine: Arc<dyn Engine>, metrics: Arc<Metrics>, shutdown: Shutdown) -> Result<()> {
        let Self { config, listener, admin, sink, operator } = self;
        let steps = Steps::default();
        let stop = CancellationToken::new();
        let _stopped = stop.clone().drop_guard();
        let side = admin::Admin {
            engine: Arc::clone(&engine),
            metrics: Arc::clone(&metrics),
            draining: steps.draining.clone(),
            operator,
            stop,
        };
        admin::start(admin, side)?;
        let sink = sink.unwrap_or_else(|| Arc::new(Books::new(Arc::clone(&metrics))));
        let front = Front::new(engine, Arc::clone(&metrics), config.intake, steps.cut.clone());
        let front = front.heartbeat(config.heartbeat);
        let shared = stack::Shared {
            metrics: Arc::clone(&metrics),
            sink,
            ids: Arc::new(Ids::Random),
            draining: steps.draining.clone(),
            trace_share: config.trace_share,
        };
        let stack = Stack::new(front, shared);
        let mut house = House { config, steps, metrics, stack, connections: JoinSet::new() };
        tokio::select! {
            () = shutdown.now.cancelled() => tracing::warn!("told to end at once"),
            () = house.live(listener, &shutdown) => tracing::info!("drained"),
        }
        // All that was answered is in the books when this returns.
        cork::settle_all();
        Ok(())
    }
}

/// The running server; dropping it ends every connection.
struct House {
    config: Config,
    steps: Steps,
    metrics: Arc<Metrics>,
    stack: Arc<Stack>,
    connections: JoinSet<()>,
}

impl House {
    async fn live(&mut self, listener: Listener, shutdown: &Shutdown) {
        tokio::select! {
            () = shutdown.begin.cancelled() => {}
            () = self.accept(&listener) => {}
        }
        let begun = Instant::now();
        tracing::info!(connections = self.connections.len(), "draining");
        self.steps.draining.cancel();
        let window = self.config.min_drain.min(self.config.drain_timeout);
        // The window ends by the clock: accepting never ends by itself.
        let _ = tokio::time::timeout(window, self.accept(&listener)).await;
        drop(listener);
        self.steps.closing.cancel();
        let patience = begun + self.config.drain_timeout;
        if tokio::time::timeout_at(patience, self.empty()).await.is_err() {
            tracing::warn!(
                connections = self.connections.len(),
                "the drain takes too long: ending what runs"
            );
            self.steps.cut.cancel();
            if tokio::time::timeout(LAST_WORDS, self.empty()).await.is_err() {
                tracing::warn!(connections = self.connections.len(), "connections dropped");
            }
        }
    }

    async fn empty(&mut self) {
        while self.connections.join_next().await.is_some() {}
    }

    async fn accept(&mut self, listener: &Listener) {
        loop {
            let accepted = tokio::select! {
                Some(_) = self.connections.join_next() => continue,
                accepted = next(listener) => accepted,
            };
            match accepted {
                Ok(socket) if self.connections.len() < self.config.max_connections => self.welcome(socket),
                Ok(_) => {
                    self.metrics.shed("connections");
                    tracing::warn!("too many connections: one refused");
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(AFTER_ACCEPT_ERROR).await;
                }
            }
        }
    }

    fn welcome(&mut self, socket: Socket) {
        let held = self.metrics.connection();
        let (stack, steps, patience) = (Arc::clone(&self.stack), self.steps.clone(), self.config.patience);
        // Each kind is a task of its own: one for all would be as large as all of them, for as long as it lives.
        match (socket, self.config.tls.clone()) {
            (Socket::Tcp(socket), None) => {
                self.connections.spawn(connection(Corked::new(socket), stack, steps, patience, held))
            }
            (Socket::Unix(socket), _) => {
                self.connections.spawn(connection(Corked::new(socket), stack, steps, patience, held))
            }
            (Socket::Tcp(socket), Some(tls)) => self.connections.spawn(async move {
                match Box::pin(tls.accept(Corked::new(socket))).await {
                    Ok(socket) => connection(socket, stack, steps, patience, held).await,
                    Err(error) => tracing::debug!(%error, "a TLS handshake failed"),
                }
            }),
        };
    }
}

enum Socket {
    Tcp(tokio::net::TcpStream),
    Unix(tokio::net::UnixStream),
}

/// Asks of a silent client's machine: after half a minute, then each ten seconds, three times in vain.
fn signs_of_life() -> TcpKeepalive {
    let (silence, pause) = (Duration::from_secs(30), Duration::from_secs(10));
    TcpKeepalive::new().with_time(silence).with_interval(pause).with_retries(3)
}

async fn next(listener: &Listener) -> std::io::Result<Socket> {
    match listener {
        Listener::Tcp(listener) => {
            let (socket, _) = listener.accept().await?;
            // A token is a small packet; holding it back for an acknowledgement would cost tens of milliseconds.
            if let Err(error) = socket.set_nodelay(true) {
                tracing::debug!(%error, "TCP_NODELAY was refused");
            }
            // A client whose machine is gone says nothing of it, and while a model thinks nothing is written to it.
            if let Err(error) = SockRef::from(&socket).set_tcp_keepalive(&signs_of_life()) {
                tracing::debug!(%error, "keep-alive was refused");
            }
            Ok(Socket::Tcp(socket))
        }
        Listener::Unix { listener, .. } => listener.accept().await.map(|(socket, _)| Socket::Unix(socket)),
    }
}

/// Serves one connection to its end; it counts as one until then.
async fn connection<I>(socket: I, stack: Arc<Stack>, steps: Steps, patience: Patience, _held: Held)
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let line = Arc::new(Line::default());
    let io = TokioIo::new(Watched::new(socket, Arc::clone(&line), patience));
    let seen = Arc::clone(&line);
    let service = service_fn(move |request: Request<Incoming>| {
        let coming = |body| Hushed::new(body, !seen.is_h2());
        let request =
            request.map(|body| coming(body).map_err(|error| -> BoxError { error.into() }).boxed_unsync());
        stack.call(request, &seen)
    });
    let builder = builder();
    let mut connection = std::pin::pin!(builder.serve_connection(io, service));
    // Draining comes before closing, so there is one thing to wait for.
    let Steps { draining, closing, .. } = steps;
    let mut closing = Some(closing);
    let mut step = Some(Word::of(draining));
    let mut between = Between::new(Arc::clone(&line), patience);
    let mut door = Door::default();
    let served = poll_fn(|cx| {
        let waker = door.waker(cx.waker());
        loop {
            if let Poll::Ready(served) = connection.as_mut().poll(&mut Context::from_waker(waker)) {
                return Poll::Ready(served);
            }
            if between.poll(cx).is_ready() {
                continue;
            }
            let Some(word) = &mut step else { return Poll::Pending };
            ready!(word.poll(cx));
            let last = closing.is_none();
            step = closing.take().map(Word::of);
            // HTTP/1 is told by `connection: close` on its next response; closing it here would race with a request
            // that is on its way.
            if last || line.is_h2() {
                connection.as_mut().graceful_shutdown();
            }
        }
    });
    if let Err(error) = served.await {
        tracing::debug!(%error, "a connection broke");
    }
}

fn builder() -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        // Heads and pauses are timed by `Watched`, which can tell the two apart.
        .header_read_timeout(None)
        // No `pipeline_flush`: it holds back the 400 to a broken head, since that head is still in the buffer.
        .max_buf_size(32 << 10);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(32 << 10)
        .max_concurrent_streams(256)
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(4 << 20)
        .keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(20));
    builder
}
