//! Connections to hosts that speak HTTP/1 in the clear: a sidecar, a relay, a double.
//!
//! A connection carries one call at a time, and has no task of its own: whoever waits for its answer works for it, and reads
//! what it brings without being woken by anybody in between. When the answer has been read the connection is free for the next.
//! Whoever finds none free has one made and waits in line, for it or for one that comes free before.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use bytes::Bytes;
use http::header::HOST;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderValue, Request, Response, Uri};
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::rt::{Read, Write};
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;
use tower::Service;

use crate::body::{Body, BoxError};
use crate::wake::{Ear, Hushed};

/// How often a connection and the reader of its answer may make work for each other before their task is given back.
const TURNS: usize = 8;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failed {
    /// No connection was made, so nothing was sent.
    #[error("no connection was made")]
    Connecting(#[source] BoxError),
    /// The connection broke before a status line came.
    #[error("the request was not answered")]
    Sending(#[source] hyper::Error),
}

/// The connections of one client.
#[derive(Debug)]
pub(super) struct Lanes<C> {
    connector: C,
    /// How long a connection is kept that nobody uses.
    idle: Duration,
    /// Few: a site has one.
    hosts: Mutex<Vec<Arc<Host>>>,
}

#[derive(Debug)]
struct Host {
    authority: Authority,
    /// Where connections go.
    origin: Uri,
    /// What it is called when it is spoken to.
    name: HeaderValue,
    idle: Duration,
    lanes: Mutex<State>,
    /// Something has happened to a connection that is free.
    stirred: Arc<Stirred>,
    /// Says so.
    stir: Waker,
}

#[derive(Debug, Default)]
struct State {
    /// Those that were used last are at the end, and are used first.
    free: Vec<Lane>,
    line: VecDeque<Waiter>,
    /// Connections that are being made: never fewer than wait in line.
    opening: usize,
    /// Connections that were ever begun.
    begun: u64,
    /// A task lets go of what is free for too long.
    swept: bool,
}

/// Somebody in line.
#[derive(Debug)]
struct Waiter {
    lane: oneshot::Sender<Result<Lane, Failed>>,
    /// The connection that is made for it.
    number: u64,
}

/// A connection.
struct Lane {
    sender: SendRequest<Body>,
    /// None when it has ended.
    connection: Option<Connection>,
    ear: Ear,
    /// It has carried nothing yet.
    fresh: bool,
    /// Since when it is free.
    since: Instant,
}

type Connection = Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>>;

/// A place in line, and the number of the connection that has to be made for it.
type Place = (oneshot::Receiver<Result<Lane, Failed>>, u64);

impl<C, I> Lanes<C>
where
    C: Service<Uri, Response = I, Error = BoxError, Future: Send> + Clone + Send + Sync + 'static,
    I: Read + Write + Unpin + Send + 'static,
{
    /// Connections that this makes, and that are let go when nobody has used them for so long.
    pub(super) fn new(connector: C, idle: Duration) -> Self {
        Self { connector, idle, hosts: Mutex::default() }
    }

    /// Sends a request to its `http` address, and waits for the head of the answer. What met a connection that the other
    /// side had given up, and was not sent, goes over another one.
    ///
    /// # Errors
    /// [`Failed`]
    pub(super) fn request(
        self: Arc<Self>,
        mut request: Request<Body>,
    ) -> impl Future<Output = Result<Response<Arriving>, Failed>> + Send + use<C, I> {
        let uri = std::mem::take(request.uri_mut());
        let host = uri.authority().map(|authority| self.host(authority));
        // The host goes into a header, the rest into the first line.
        if let (Some(host), Some(path)) = (&host, uri.path_and_query()) {
            *request.uri_mut() = Uri::from(path.clone());
            request.headers_mut().entry(HOST).or_insert_with(|| host.name.clone());
        }
        async move {
            let Some(host) = host else {
                return Err(Failed::Connecting("an address without a host".into()));
            };
            loop {
                let mut lane = match host.take() {
                    Ok(lane) => lane,
                    Err((place, number)) => {
                        let connector = self.connector.clone();
                        tokio::spawn(open(connector, Arc::clone(&host), number));
                        let nobody = |_| Err(Failed::Connecting("nobody made it".into()));
                        place.await.unwrap_or_else(nobody)?
                    }
                };
                // What sending says to the connection is heard as soon as it is worked for.
                lane.ear.attend();
                let answered = {
                    let mut answered = pin!(lane.sender.try_send_request(request));
                    poll_fn(|cx| lane.work(cx, |cx| answered.as_mut().poll(cx))).await
                };
                match answered {
                    Ok(response) => return Ok(response.map(|body| Arriving::new(body, lane, &host))),
                    Err(mut error) => match error.take_message() {
                        Some(unsent) if !lane.fresh => request = unsent,
                        _ => return Err(Failed::Sending(error.into_error())),
                    },
                }
            }
        }
    }

    fn host(&self, authority: &Authority) -> Arc<Host> {
        let mut hosts = self.hosts.lock();
        if let Some(host) = hosts.iter().find(|host| host.authority == *authority) {
            return Arc::clone(host);
        }
        let stirred = Arc::<Stirred>::default();
        let host = Arc::new(Host {
            authority: authority.clone(),
            origin: origin(authority),
            name: name(authority),
            idle: self.idle,
            lanes: Mutex::default(),
            stir: Waker::from(Arc::clone(&stirred)),
            stirred,
        });
        hosts.push(Arc::clone(&host));
        host
    }
}

fn origin(authority: &Authority) -> Uri {
    let mut parts = http::uri::Parts::default();
    parts.scheme = Some(Scheme::HTTP);
    parts.authority = Some(authority.clone());
    parts.path_and_query = Some(PathAndQuery::from_static("/"));
    // With all its parts it is an address.
    Uri::from_parts(parts).unwrap_or_default()
}

/// What a host is called when it is spoken to: without its port where that is the usual one.
fn name(authority: &Authority) -> HeaderValue {
    let host = authority.host();
    let text = match authority.port_u16() {
        None | Some(80) => Bytes::copy_from_slice(host.as_bytes()),
        Some(port) => format!("{host}:{port}").into(),
    };
    // What is an authority is a header's value.
    HeaderValue::from_maybe_shared(text).unwrap_or_else(|_| HeaderValue::from_static(""))
}

impl Lane {
    /// Works for the connection where it has something to do, and asks its reader: one makes work for the other.
    fn work<T>(&mut self, cx: &Context<'_>, mut reader: impl FnMut(&mut Context<'_>) -> Poll<T>) -> Poll<T> {
        self.ear.lend(cx.waker());
        for _ in 0..TURNS {
            self.turn();
            let polled = reader(&mut Context::from_waker(self.ear.waker()));
            if polled.is_ready() {
                // What there is to do is done when more is asked for.
                self.ear.leave();
                return polled;
            }
            if !self.ear.is_rung() {
                break;
            }
        }
        self.ear.rest();
        Poll::Pending
    }

    /// Has the connection do what there is to do.
    fn turn(&mut self) {
        if !self.ear.listen() {
            return;
        }
        let Some(connection) = &mut self.connection else { return };
        if let Poll::Ready(ended) = connection.as_mut().poll(&mut Context::from_waker(self.ear.waker())) {
            self.connection = None;
            if let Err(error) = ended {
                tracing::debug!(%error, "a connection broke");
            }
        }
    }

    /// Whether it takes a call; looks at what has happened to it since it came free.
    fn works(&mut self) -> bool {
        self.turn();
        self.ear.leave();
        self.is_open()
    }

    /// Whether it takes a call, as far as is known.
    fn is_open(&self) -> bool {
        self.connection.is_some() && self.sender.is_ready()
    }
}

impl std::fmt::Debug for Lane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lane").field("fresh", &self.fresh).field("since", &self.since).finish_non_exhaustive()
    }
}

/// The body of an answer, and the connection over which it comes.
#[derive(Debug)]
pub(super) struct Arriving {
    /// Both are there until it is over.
    parts: Option<(Hushed<Incoming>, Lane)>,
    home: Weak<Host>,
    /// Nobody has read of it.
    fresh: bool,
}

impl Arriving {
    fn new(body: Incoming, mut lane: Lane, host: &Arc<Host>) -> Self {
        lane.fresh = false;
        let body = Hushed::new(body, true);
        let mut arriving = Self { parts: Some((body, lane)), home: Arc::downgrade(host), fresh: true };
        if arriving.is_end_stream() {
            arriving.over();
        }
        arriving
    }

    /// Whoever has read the answer gives the connection back.
    fn over(&mut self) {
        let Some((body, mut lane)) = self.parts.take() else { return };
        lane.ear.attend();
        drop(body);
        // It may not know yet that its last word was taken.
        if !lane.sender.is_ready() {
            lane.ear.waker().wake_by_ref();
            lane.turn();
        }
        if lane.sender.is_ready()
            && let Some(host) = self.home.upgrade()
        {
            host.free(lane);
        }
    }
}

impl HttpBody for Arriving {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        let Some((body, lane)) = &mut this.parts else { return Poll::Ready(None) };
        let mut body = Pin::new(body);
        // What is short has come with its head, and there is nothing left to work for.
        if std::mem::take(&mut this.fresh) {
            lane.ear.attend();
            if let Poll::Ready(Some(frame)) =
                body.as_mut().poll_frame(&mut Context::from_waker(lane.ear.waker()))
            {
                lane.ear.leave();
                return Poll::Ready(Some(frame.map_err(Into::into)));
            }
        }
        let polled = lane.work(cx, |cx| body.as_mut().poll_frame(cx));
        if let Poll::Ready(None) = polled {
            this.over();
        }
        polled.map_err(Into::into)
    }

    fn is_end_stream(&self) -> bool {
        self.parts.as_ref().is_none_or(|(body, _)| body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.parts.as_ref().map_or_else(|| SizeHint::with_exact(0), |(body, _)| body.size_hint())
    }
}

impl Drop for Arriving {
    fn drop(&mut self) {
        // Else the answer was left in the middle, and the connection ends with it.
        if self.is_end_stream() {
            self.over();
        }
    }
}

/// What connections that are free call.
#[derive(Debug, Default)]
struct Stirred(Notify);

impl Wake for Stirred {
    fn wake(self: Arc<Self>) {
        self.0.notify_one();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.notify_one();
    }
}

impl Host {
    /// What is free, or else a place in line; whoever gets that has the connection made.
    fn take(&self) -> Result<Lane, Place> {
        let mut lanes = self.lanes.lock();
        // One that the other side has closed meanwhile says so when it is given a call, and gives that back.
        while let Some(lane) = lanes.free.pop() {
            if lane.is_open() {
                return Ok(lane);
            }
        }
        lanes.opening += 1;
        lanes.begun += 1;
        let (number, (told, place)) = (lanes.begun, oneshot::channel());
        lanes.line.push_back(Waiter { lane: told, number });
        Err((place, number))
    }

    /// A connection has come free: it is for whoever waits longest.
    fn free(self: &Arc<Self>, lane: Lane) {
        self.give(&mut self.lanes.lock(), lane);
    }

    fn give(self: &Arc<Self>, lanes: &mut State, mut lane: Lane) {
        lane.since = Instant::now();
        while let Some(waiter) = lanes.line.pop_front() {
            match waiter.lane.send(Ok(lane)) {
                Ok(()) => return,
                // Nobody is there any more.
                Err(back) => match back {
                    Ok(again) => lane = again,
                    Err(_) => return,
                },
            }
        }
        // What happens to it now is nobody's business but ours.
        lane.ear.leave();
        lane.ear.lend(&self.stir);
        lanes.free.push(lane);
        if !std::mem::replace(&mut lanes.swept, true) {
            tokio::spawn(sweep(Arc::downgrade(self), Arc::clone(&self.stirred), self.idle));
        }
    }

    /// A connection was made.
    fn opened(self: &Arc<Self>, lane: Lane) {
        let mut lanes = self.lanes.lock();
        lanes.opening -= 1;
        self.give(&mut lanes, lane);
    }

    /// A connection could not be made.
    fn failed(&self, number: u64, error: BoxError) {
        let mut lanes = self.lanes.lock();
        lanes.opening -= 1;
        // As long as there are as many to come as wait, nobody is without.
        if lanes.line.len() <= lanes.opening {
            return;
        }
        // Its own may have got another's, whose turn would come last.
        let own = lanes.line.iter().position(|waiter| waiter.number == number);
        let waiter = match own {
            Some(at) => lanes.line.remove(at),
            None => lanes.line.pop_back(),
        };
        drop(lanes);
        if let Some(waiter) = waiter {
            // Nobody may be there any more.
            let _ = waiter.lane.send(Err(Failed::Connecting(error)));
        }
    }
}

/// Makes a connection.
async fn open<C, I>(mut connector: C, host: Arc<Host>, number: u64)
where
    C: Service<Uri, Response = I, Error = BoxError>,
    I: Read + Write + Unpin + Send + 'static,
{
    let made = async {
        poll_fn(|cx| connector.poll_ready(cx)).await?;
        Ok(handshake(connector.call(host.origin.clone()).await?).await?)
    };
    match made.await {
        Err(error) => host.failed(number, error),
        Ok((sender, connection)) => host.opened(Lane {
            sender,
            connection: Some(Box::pin(connection)),
            ear: Ear::default(),
            fresh: true,
            since: Instant::now(),
        }),
    }
}

/// Lets go of what is free for too long or closed by the other side, until nothing is free.
async fn sweep(host: Weak<Host>, stirred: Arc<Stirred>, idle: Duration) {
    loop {
        // Both are reasons to look.
        let _ = tokio::time::timeout(idle / 3, stirred.0.notified()).await;
        let Some(host) = host.upgrade() else { return };
        let mut lanes = host.lanes.lock();
        lanes.free.retain_mut(|lane| lane.works() && lane.since.elapsed() < idle);
        if lanes.free.is_empty() {
            lanes.swept = false;
            return;
        }
    }
}

#[cfg(test)]
mod tests;
