//! Connections to hosts that speak HTTP/1 in the clear: a sidecar, a relay, a double.
//!
//! A connection carries one call at a time. Its own task gets the sender back as soon as the call is on its way, and frees it
//! when the answer has been read. Whoever finds no connection free has one made and waits in line, for it or for one that
//! comes free before.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use http::header::HOST;
use http::uri::Authority;
use http::{HeaderValue, Request, Response, Uri};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::client::conn::http1::{self, SendRequest, handshake};
use hyper::rt::{Read, Write};
use hyper_util::client::legacy::connect::{Connected, Connection};
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tower::Service;

use crate::body::{Body, BoxError};

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
    idle: Duration,
    lanes: Mutex<State>,
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

/// A connection that is free.
#[derive(Debug)]
struct Lane {
    sender: SendRequest<Body>,
    lent: Arc<Lent>,
    /// It has carried nothing yet.
    fresh: bool,
    since: Instant,
}

/// What a connection's task and its lane share.
#[derive(Debug)]
struct Lent {
    /// Here the task finds the sender again.
    sender: Mutex<Option<SendRequest<Body>>>,
    /// What the socket says of itself, with each answer.
    connected: Connected,
}

/// A place in line, and the number of the connection that has to be made for it.
type Place = (oneshot::Receiver<Result<Lane, Failed>>, u64);

impl<C, I> Lanes<C>
where
    C: Service<Uri, Response = I, Error = BoxError, Future: Send> + Clone + Send + 'static,
    I: Connection + Read + Write + Unpin + Send + 'static,
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
    pub(super) async fn request(&self, mut request: Request<Body>) -> Result<Response<Incoming>, Failed> {
        let uri = std::mem::take(request.uri_mut());
        let (Some(authority), Some(path)) = (uri.authority(), uri.path_and_query()) else {
            return Err(Failed::Connecting("an address without a host".into()));
        };
        // The host goes into a header, the rest into the first line.
        *request.uri_mut() = Uri::from(path.clone());
        request.headers_mut().entry(HOST).or_insert_with(|| name(authority));
        let host = self.host(authority);
        loop {
            let lane = match host.take() {
                Ok(lane) => lane,
                Err((place, number)) => {
                    let connector = self.connector.clone();
                    tokio::spawn(open(connector, uri.clone(), Arc::clone(&host), number));
                    let nobody = |_| Err(Failed::Connecting("nobody made it".into()));
                    place.await.unwrap_or_else(nobody)?
                }
            };
            let (fresh, lent) = (lane.fresh, Arc::clone(&lane.lent));
            match lane.send(request).await {
                Ok(mut response) => {
                    lent.connected.get_extras(response.extensions_mut());
                    return Ok(response);
                }
                Err(mut error) => match error.take_message() {
                    Some(unsent) if !fresh => request = unsent,
                    _ => return Err(Failed::Sending(error.into_error())),
                },
            }
        }
    }

    fn host(&self, authority: &Authority) -> Arc<Host> {
        let mut hosts = self.hosts.lock();
        if let Some(host) = hosts.iter().find(|host| host.authority == *authority) {
            return Arc::clone(host);
        }
        let (authority, idle) = (authority.clone(), self.idle);
        let host = Arc::new(Host { authority, idle, lanes: Mutex::default() });
        hosts.push(Arc::clone(&host));
        host
    }
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
    fn works(&self) -> bool {
        // Before its task has run for the first time it is not known to be ready, and takes one call all the same.
        self.sender.is_ready() || (self.fresh && !self.sender.is_closed())
    }

    fn send(
        self,
        request: Request<Body>,
    ) -> impl Future<Output = Result<Response<Incoming>, TrySendError<Request<Body>>>> {
        let Self { mut sender, lent, .. } = self;
        // The task looks for the sender under this lock, so it cannot be done with the call before the sender is there.
        let mut lent = lent.sender.lock();
        let sent = sender.try_send_request(request);
        *lent = Some(sender);
        sent
    }
}

impl Host {
    /// What is free, or else a place in line; whoever gets that has the connection made.
    fn take(&self) -> Result<Lane, Place> {
        let mut lanes = self.lanes.lock();
        while let Some(lane) = lanes.free.pop() {
            if lane.works() {
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
    fn free(self: &Arc<Self>, mut lane: Lane) {
        let mut lanes = self.lanes.lock();
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
        lanes.free.push(lane);
        if !std::mem::replace(&mut lanes.swept, true) {
            tokio::spawn(sweep(Arc::downgrade(self), self.idle));
        }
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

/// Makes a connection, which then has a task of its own: one that remembered how it was made would be larger for as long as it
/// lives.
async fn open<C, I>(mut connector: C, uri: Uri, host: Arc<Host>, number: u64)
where
    C: Service<Uri, Response = I, Error = BoxError>,
    I: Connection + Read + Write + Unpin + Send + 'static,
{
    let made = async {
        poll_fn(|cx| connector.poll_ready(cx)).await?;
        let socket = connector.call(uri).await?;
        let connected = socket.connected();
        let (sender, connection) = handshake(socket).await?;
        Ok((sender, connection, connected))
    };
    match made.await {
        Err(error) => host.failed(number, error),
        Ok((sender, connection, connected)) => {
            let lent = Arc::new(Lent { sender: Mutex::default(), connected });
            tokio::spawn(serve(connection, Arc::clone(&lent), Arc::downgrade(&host)));
            host.lanes.lock().opening -= 1;
            host.free(Lane { sender, lent, fresh: true, since: Instant::now() });
        }
    }
}

/// Works for a connection until it is closed by the other side, or by us: when its client is gone.
async fn serve<I>(connection: http1::Connection<I, Body>, lent: Arc<Lent>, home: Weak<Host>)
where
    I: Read + Write + Unpin,
{
    let mut connection = pin!(connection);
    let served = poll_fn(|cx| {
        let polled = connection.as_mut().poll(cx);
        if polled.is_pending() {
            let mut sender = lent.sender.lock();
            // It becomes ready while the connection is polled, never at another time.
            let ready = sender.take_if(|sender| sender.is_ready());
            drop(sender);
            // Without a host the sender is dropped, which ends the connection.
            if let (Some(sender), Some(host)) = (ready, home.upgrade()) {
                host.free(Lane { sender, lent: Arc::clone(&lent), fresh: false, since: Instant::now() });
            }
        }
        polled
    });
    if let Err(error) = served.await {
        tracing::debug!(%error, "a connection broke");
    }
}

/// Lets go of what is free for too long, until nothing is free.
async fn sweep(host: Weak<Host>, idle: Duration) {
    loop {
        tokio::time::sleep(idle / 3).await;
        let Some(host) = host.upgrade() else { return };
        let mut lanes = host.lanes.lock();
        lanes.free.retain(|lane| lane.works() && lane.since.elapsed() < idle);
        if lanes.free.is_empty() {
            lanes.swept = false;
            return;
        }
    }
}

#[cfg(test)]
mod tests;
