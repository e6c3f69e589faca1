//! How connections are made, and how many calls share one.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::FutureExt as _;
use futures_util::future::{Either, select};
use http::uri::Scheme;
use http::{Request, Response, Uri};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::dns::{GaiResolver, Name};
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::legacy::connect::{Connected, HttpConnector, capture_connection};
use hyper_util::client::legacy::{self, Client as Pool};
use hyper_util::client::proxy::matcher::Matcher;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use secrecy::ExposeSecret as _;
use tokio::net::TcpStream;
use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;
use tower::Service;

use super::fail::{ConnectTimeout, setting};
use super::gauge::Gauged;
use super::lanes::{self, Lanes};
use super::settings::{Names, Network};
use crate::body::{Body, BoxError};
use crate::cork::Corked;
use crate::error::Result;
use crate::placed::pinned;

const IDLE: Duration = Duration::from_secs(90);
const PING_EVERY: Duration = Duration::from_secs(20);
const PING_WITHIN: Duration = Duration::from_secs(10);
/// A stream may run this far ahead of its reader.
const STREAM_WINDOW: u32 = 1 << 20;
/// Room for many stalled readers before they starve the others on the same connection.
const CONNECTION_WINDOW: u32 = 16 << 20;
/// Calls that share one HTTP/2 connection; Google allows a hundred streams on one, and what is above waits.
const SHARING: u32 = 80;
/// Connections beyond the first, each made when it is needed.
const CONNECTIONS: usize = 64;
/// Connections that are being made at a time. Where each call needs its own, a burst of a thousand calls would else
/// be a thousand handshakes at once.
const OPENING: usize = 128;

/// A client for one site, or for the token exchanges of all.
///
/// A pool keeps one HTTP/2 connection to a host for as long as it works. So there are many pools, filled one after
/// the other; and all of them are given up after a while, so that names are looked up again and load moves. Calls
/// under way on an old pool's connections go on to their end.
///
/// Where HTTP/1 is spoken, a connection takes one call at a time and there is nothing to share: what is encrypted goes
/// to the first pool, which lends what is free and makes what is missing, several at once; what is not goes over
/// [`Lanes`], which do the same for less.
#[derive(Clone, Debug)]
pub(super) struct Client(Arc<Pools>);

/// A request that got no status line.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unanswered {
    #[error(transparent)]
    Pool(#[from] legacy::Error),
    #[error(transparent)]
    Lane(#[from] lanes::Failed),
}

impl Unanswered {
    /// Whether no connection was made.
    pub(super) fn is_connect(&self) -> bool {
        match self {
            Self::Pool(error) => error.is_connect(),
            Self::Lane(error) => matches!(error, lanes::Failed::Connecting(_)),
        }
    }
}

#[derive(Debug)]
struct Pools {
    connector: Connector,
    age: Duration,
    begun: Instant,
    /// When the present generation ends, in milliseconds since `begun`.
    until: AtomicU64,
    generation: ArcSwap<Generation>,
}

#[derive(Debug)]
struct Generation {
    lanes: Arc<Lanes<Connector>>,
    shares: Vec<Share>,
    /// The host chose HTTP/1 when it could have had HTTP/2.
    plain: AtomicBool,
}

/// One pool, and whether it has a connection. While it has none, one call makes it and the others wait or go
/// elsewhere: else each of a hundred would make its own, for nobody knows yet that one would do.
#[derive(Debug, Default)]
struct Share {
    pool: OnceLock<Pool<Connector, Body>>,
    /// When a call last went this way, plus one, in milliseconds since `begun`; 0 before a connection was made.
    used: AtomicU64,
    opening: AtomicBool,
    opened: Notify,
}

impl Client {
    /// Builds the client. Certificates are checked against the machine's roots, or Mozilla's where it has none,
    /// and those of the network's own authority if there is one.
    pub(super) fn new(connect: Duration, network: &Network) -> Result<Self> {
        let names = Finder { system: GaiResolver::new(), book: network.names.clone() };
        let mut tcp = HttpConnector::new_with_resolver(names);
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_keepalive(Some(Duration::from_secs(30)));
        tcp.set_connect_timeout(Some(connect));
        let proxies = network.https_proxy.as_ref().map(|proxy| {
            let except = network.no_proxy.clone().unwrap_or_default();
            Arc::new(Matcher::builder().https(proxy.expose_secret()).no(except).build())
        });
        let dial = Dial { tcp, proxies };
        let https = HttpsConnectorBuilder::new()
            .with_tls_config(tls(network.ca_file.as_deref())?)
            .https_or_http()
            .enable_http1()
            .enable_http2()
            .wrap_connector(dial);
        let opening = Arc::new(Semaphore::new(OPENING));
        Ok(Self::around(Connector { https, limit: connect, opening }, network.max_age))
    }

    /// A client that connects in the same manner and shares no connection.
    pub(super) fn sibling(&self) -> Self {
        let Pools { connector, age, .. } = &*self.0;
        Self::around(connector.clone(), *age)
    }

    fn around(connector: Connector, age: Duration) -> Self {
        Self(Arc::new(Pools {
            generation: ArcSwap::from_pointee(Generation::new(&connector)),
            connector,
            age,
            begun: Instant::now(),
            until: AtomicU64::new(millis(age)),
        }))
    }

    /// Sends a request, where `flying` calls to the same host are under way, this one among them.
    pub(super) fn request(
        &self,
        request: Request<Body>,
        flying: u32,
    ) -> impl Future<Output = Result<Response<Body>, Unanswered>> + Send + use<> {
        let now = millis(self.0.begun.elapsed());
        let generation = self.0.generation(now);
        // HTTP/2 is agreed on under TLS only.
        if request.uri().scheme() != Some(&Scheme::HTTPS) {
            let answered = Arc::clone(&generation.lanes).request(request);
            return Either::Left(answered.map(|answered| Ok(answered?.map(BodyExt::boxed_unsync))));
        }
        let pools = Arc::clone(&self.0);
        // In a box: it is large, and what goes over lanes need not carry it along.
        Either::Right(pinned(move || async move {
            let answered = pools.shared(&generation, now, request, flying).await?;
            Ok(answered.map(|body| body.map_err(Into::into).boxed_unsync()))
        }))
    }
}

/// The right to make a share's connection; dropped without success it goes to the next.
struct Opening<'g> {
    generation: &'g Generation,
    at: usize,
}

impl<'g> Opening<'g> {
    fn begin(generation: &'g Generation, at: usize) -> Option<Self> {
        let share = generation.shares.get(at)?;
        // Not `then_some`: the one that is not given out would be dropped, and undo the other's.
        (!share.opening.swap(true, Relaxed)).then(|| Self { generation, at })
    }

    /// Says that there is a connection, and whether it may be shared, as far as that is known.
    fn done(self, now: u64, shared: Option<bool>) {
        if let Some(shared) = shared {
            self.generation.plain.store(!shared, Relaxed);
        }
        if let Some(share) = self.generation.shares.get(self.at) {
            share.used.store(now + 1, Relaxed);
        }
    }
}

impl Drop for Opening<'_> {
    fn drop(&mut self) {
        if let Some(share) = self.generation.shares.get(self.at) {
            share.opening.store(false, Relaxed);
            share.opened.notify_waiters();
        }
    }
}

impl Share {
    /// Whether there is a connection, as far as anybody knows.
    fn is_open(&self, now: u64) -> bool {
        let used = self.used.load(Relaxed);
        used > 0 && now.saturating_sub(used) < millis(IDLE)
    }
}

impl Pools {
    /// Sends a request over a connection that it may share with others.
    async fn shared(
        &self,
        generation: &Generation,
        now: u64,
        mut request: Request<Body>,
        flying: u32,
    ) -> Result<Response<Incoming>, legacy::Error> {
        if generation.plain.load(Relaxed) {
            return generation.pool(0, self).request(request).await;
        }
        let wanted = usize::try_from(flying.saturating_sub(1) / SHARING).unwrap_or(0);
        let last = wanted.min(CONNECTIONS - 1);
        // The share that is wanted, if it has a connection or this call makes it; else the next that has one.
        for at in (0..=last).rev() {
            let Some(share) = generation.shares.get(at) else { continue };
            if share.is_open(now) {
                share.used.store(now + 1, Relaxed);
                return generation.pool(at, self).request(request).await;
            }
            if let Some(opening) = Opening::begin(generation, at) {
                let mut captured = capture_connection(&mut request);
                let pool = generation.pool(at, self);
                let sending = pin!(pool.request(request));
                let connected = pin!(async {
                    captured.wait_for_connection_metadata().await.as_ref().map(Connected::is_negotiated_h2)
                });
                let answered = match select(connected, sending).await {
                    Either::Left((shared, sending)) => {
                        opening.done(now, shared);
                        sending.await
                    }
                    Either::Right((answered, _)) => answered,
                };
                return answered;
            }
        }
        let Some(first) = generation.shares.first() else {
            return self.build().request(request).await;
        };
        let opened = first.opened.notified();
        // It may have been opened between the look and the wait; the limit is the connector's own.
        if !first.is_open(millis(self.begun.elapsed())) && first.opening.load(Relaxed) {
            let _ = tokio::time::timeout(self.connector.limit, opened).await;
        }
        generation.pool(0, self).request(request).await
    }

    fn generation(&self, now: u64) -> Arc<Generation> {
        let until = self.until.load(Relaxed);
        if now >= until
            && self.until.compare_exchange(until, now + millis(self.age), Relaxed, Relaxed).is_ok()
        {
            self.generation.store(Arc::new(Generation::new(&self.connector)));
        }
        self.generation.load_full()
    }

    fn build(&self) -> Pool<Connector, Body> {
        Pool::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .http2_initial_stream_window_size(STREAM_WINDOW)
            .http2_initial_connection_window_size(CONNECTION_WINDOW)
            .http2_keep_alive_interval(PING_EVERY)
            .http2_keep_alive_timeout(PING_WITHIN)
            .build(self.connector.clone())
    }
}

impl Generation {
    fn new(connector: &Connector) -> Self {
        Self {
            lanes: Arc::new(Lanes::new(connector.clone(), IDLE)),
            shares: (0..CONNECTIONS).map(|_| Share::default()).collect(),
            plain: AtomicBool::new(false),
        }
    }

    fn pool(&self, at: usize, pools: &Pools) -> Pool<Connector, Body> {
        match self.shares.get(at) {
            Some(share) => share.pool.get_or_init(|| pools.build()).clone(),
            None => pools.build(),
        }
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX / 2)
}

/// Whom we trust.
fn tls(extra: Option<&Path>) -> Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    let native = rustls_native_certs::load_native_certs();
    for error in &native.errors {
        tracing::debug!(%error, "a root certificate of this machine cannot be read");
    }
    roots.add_parsable_certificates(native.certs);
    if roots.is_empty() {
        tracing::debug!("no root certificates on this machine; using the built-in ones");
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    if let Some(path) = extra {
        let bad =
            |why: String| setting(format!("The certificates in {} cannot be used: {why}.", path.display()));
        let read = CertificateDer::pem_file_iter(path).map_err(|error| bad(error.to_string()))?;
        let mut count = 0;
        for certificate in read {
            let certificate = certificate.map_err(|error| bad(error.to_string()))?;
            roots.add(certificate).map_err(|error| bad(error.to_string()))?;
            count += 1;
        }
        if count == 0 {
            return Err(bad("there are none".to_owned()));
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| setting("TLS cannot be set up.".to_owned()).because(error))?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

/// Looks names up, anew for each connection: nothing is remembered here beyond what the machine remembers.
#[derive(Clone, Debug)]
struct Finder {
    system: GaiResolver,
    book: Option<Arc<dyn Names>>,
}

impl Service<Name> for Finder {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.system.poll_ready(cx)
    }

    fn call(&mut self, name: Name) -> Self::Future {
        if let Some(book) = &self.book {
            let found = book.find(name.as_str());
            return Box::pin(async move {
                let at = |host| SocketAddr::new(host, 0);
                Ok(found?.into_iter().map(at).collect::<Vec<_>>().into_iter())
            });
        }
        let asked = self.system.call(name);
        Box::pin(async move { Ok(asked.await?.collect::<Vec<_>>().into_iter()) })
    }
}

/// TCP, through a proxy where one is set. Only `https` goes through it: what is not encrypted (the metadata
/// server, the loopback) is near.
#[derive(Clone)]
struct Dial {
    tcp: HttpConnector<Finder>,
    proxies: Option<Arc<Matcher>>,
}

/// Whether an address is on this machine, where no proxy can reach it.
fn is_here(uri: &Uri) -> bool {
    let host = uri.host().unwrap_or_default();
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost")
        || bare.parse::<std::net::IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
}

impl std::fmt::Debug for Dial {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The proxy's address may hold a password.
        f.debug_struct("Dial").field("proxied", &self.proxies.is_some()).finish_non_exhaustive()
    }
}

impl Service<Uri> for Dial {
    type Response = TokioIo<Gauged>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.tcp.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let proxy = self.proxies.as_ref().filter(|_| uri.scheme_str() == Some("https") && !is_here(&uri));
        let Some(proxy) = proxy.and_then(|proxies| proxies.intercept(&uri)) else {
            let direct = self.tcp.call(uri);
            return Box::pin(async move { Ok(gauged(direct.await?)) });
        };
        let mut tunnel = Tunnel::new(proxy.uri().clone(), self.tcp.clone());
        if let Some(auth) = proxy.basic_auth() {
            tunnel = tunnel.with_auth(auth.clone());
        }
        let tunneled = tunnel.call(uri);
        Box::pin(async move { Ok(gauged(tunneled.await?)) })
    }
}

fn gauged(socket: TokioIo<TcpStream>) -> TokioIo<Gauged> {
    TokioIo::new(Gauged::new(Corked::new(socket.into_inner())))
}

/// TCP and TLS under one deadline: hyper's own covers TCP only.
#[derive(Clone, Debug)]
struct Connector {
    https: HttpsConnector<Dial>,
    limit: Duration,
    /// Who may make a connection now.
    opening: Arc<Semaphore>,
}

impl Service<Uri> for Connector {
    type Response = <HttpsConnector<Dial> as Service<Uri>>::Response;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.https.poll_ready(cx)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let (limit, opening) = (self.limit, Arc::clone(&self.opening));
        let connecting = self.https.call(uri);
        Box::pin(async move {
            let connected = tokio::time::timeout(limit, async {
                let _turn = opening.acquire().await?;
                connecting.await
            });
            connected.await.unwrap_or_else(|_| Err(ConnectTimeout.into()))
        })
    }
}
