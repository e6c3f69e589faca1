//! The layers around the front: identity and meter, framing checks, the panic guard. They are steps of one future, in one
//! allocation: as services of their own each would have a box, and would be moved into the next.

use std::any::Any;
use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::header::{ALLOW, CONNECTION, Entry as HeaderEntry, HeaderName, HeaderValue};
use http::{HeaderMap, Method, Request, Response, Version};
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio_util::sync::CancellationToken;

use super::io::{Busy, Line};
use crate::api::{Arrival, Front, processing_ms, render, routes};
use crate::body::{Body, BoxError};
use crate::decimal::Short;
use crate::error::{Error, Kind, Origin};
use crate::ids::Ids;
use crate::meter::{Entry, Meter, Sink};
use crate::placed::{boxed, pinned};
use crate::telemetry::Metrics;
use crate::telemetry::metrics::Held;
use crate::telemetry::trace::Trace;

type Answer = BoxFuture<'static, Result<Response<Counted>, Infallible>>;

/// What all requests share in the stack.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) metrics: Arc<Metrics>,
    pub(super) sink: Arc<dyn Sink>,
    pub(super) ids: Arc<Ids>,
    pub(super) draining: CancellationToken,
    pub(super) trace_share: Option<f64>,
}

pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const DROPPED: HeaderName = HeaderName::from_static("x-gemway-dropped-params");
const PROCESSING: HeaderName = HeaderName::from_static("openai-processing-ms");
const SERVED_BY: HeaderName = HeaderName::from_static("x-gemway-served-by");
const ATTEMPTS: HeaderName = HeaderName::from_static("x-gemway-attempts");
const OVERHEAD: HeaderName = HeaderName::from_static("x-gemway-overhead-ms");

/// Bytes of path and query; nothing that is served comes near it.
const LONGEST_TARGET: usize = 8192;

/// The whole request path as one service; one for all connections.
#[derive(Debug)]
pub(super) struct Stack {
    front: Front,
    shared: Shared,
}

impl Stack {
    /// Puts the layers around the front.
    pub(super) fn new(front: Front, shared: Shared) -> Arc<Self> {
        Arc::new(Self { front, shared })
    }

    /// Answers a request that came on this line: names it, counts it while it is in flight, and settles it.
    pub(super) fn call(self: &Arc<Self>, request: Request<Body>, line: &Arc<Line>) -> Answer {
        let busy = line.begin();
        let in_flight = self.shared.metrics.in_flight();
        let said = Said::by(request.headers());
        let request_id = request_id(said.request_id, &self.shared.ids);
        let mut entry = entry(&request, &said, &request_id);
        let traceparent = said.traceparent.and_then(|value| value.to_str().ok());
        // A caller's trace goes on through us even where our own spans go nowhere.
        if traceparent.is_some() || self.shared.trace_share.is_some() {
            entry.trace = Some(Box::new(Trace::begin(traceparent, self.shared.trace_share.unwrap_or(0.0))));
        }
        let meter = Meter::start(Arc::clone(&self.shared.sink), entry);
        let refused = framing(&request, &said, line).err().map(Box::new);
        let (stack, version) = (Arc::clone(self), request.version());
        pinned(move || async move {
            let response = match refused {
                Some(error) => refusal(&error, &request_id, &meter, version),
                None => stack.guarded(request, &request_id, &meter).await,
            };
            let guard = Guard { meter, sent: 0, _in_flight: in_flight, busy };
            Ok(stack.signed(response, &request_id, version, guard))
        })
    }

    /// The front's answer, or what stands for a panic.
    fn guarded(
        &self,
        request: Request<Body>,
        request_id: &Arc<str>,
        meter: &Meter,
    ) -> impl Future<Output = Response<Body>> {
        let arrival = Arrival { request_id: Arc::clone(request_id), meter: meter.clone() };
        // What a panic leaves behind is dropped with the future.
        AssertUnwindSafe(self.front.handle(request, arrival))
            .catch_unwind()
            .map(|answered| answered.unwrap_or_else(|payload| panicked(&*payload, meter)))
    }

    /// The reply with what every reply says of itself. Its body settles the request when it goes.
    fn signed(
        &self,
        mut response: Response<Body>,
        request_id: &str,
        version: Version,
        guard: Guard,
    ) -> Response<Counted> {
        let status = response.status();
        let headers = response.headers_mut();
        let dropped = headers.get(DROPPED).and_then(|dropped| dropped.to_str().ok()).map(str::to_owned);
        let (elapsed, ours) = guard.meter.headed(status, dropped, |entry| {
            tried(headers, entry.attempts, entry.site.as_deref());
        });
        sign(headers, request_id, elapsed, ours);
        if self.shared.draining.is_cancelled() && version < Version::HTTP_2 {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response.map(|inner| Counted { inner, guard })
    }
}

fn panicked(payload: &(dyn Any + Send), meter: &Meter) -> Response<Body> {
    let text = payload
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| payload.downcast_ref::<&str>().copied())
        .unwrap_or("no text");
    tracing::error!(panic = %crate::telemetry::clip(text, 200), "a request panicked");
    let error = Error::internal("a panic");
    meter.fail(&error, Some("server_error"));
    render::response(&error, "")
}

/// The answer to what hyper lets pass and no honest client sends.
fn refusal(error: &Error, request_id: &str, meter: &Meter, version: Version) -> Response<Body> {
    let mut response = render::response(error, request_id);
    meter.fail(error, render::code(error));
    if error.kind() == Kind::MethodNotAllowed {
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD, POST"));
    }
    if version < Version::HTTP_2 {
        // Whatever follows on this connection cannot be trusted to begin where we think.
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// What of a request's headers matters here. One look at all of them costs less than looking each of them up.
#[derive(Default)]
struct Said<'h> {
    request_id: Option<&'h HeaderValue>,
    traceparent: Option<&'h HeaderValue>,
    user_agent: Option<&'h HeaderValue>,
    expect: Option<&'h HeaderValue>,
    host: Option<&'h HeaderValue>,
    /// There is more than one `Host`.
    hosts: bool,
}

impl<'h> Said<'h> {
    fn by(headers: &'h HeaderMap) -> Self {
        let mut said = Self::default();
        for (name, value) in headers {
            let place = match name.as_str() {
                "x-request-id" => &mut said.request_id,
                "traceparent" => &mut said.traceparent,
                "user-agent" => &mut said.user_agent,
                "expect" => &mut said.expect,
                "host" => {
                    said.hosts = said.host.is_some();
                    &mut said.host
                }
                _ => continue,
            };
            // Of several the first counts.
            place.get_or_insert(value);
        }
        said
    }
}

fn framing(request: &Request<Body>, said: &Said<'_>, line: &Line) -> Result<(), Error> {
    let refuse = |kind, code, message| Err(Error::new(kind, Origin::Client, message).code(code));
    if request.method() == Method::CONNECT {
        return Err(Error::new(Kind::MethodNotAllowed, Origin::Client, "CONNECT is not served here."));
    }
    if line.conflict() && !line.is_h2() {
        return refuse(
            Kind::Malformed,
            "invalid_framing",
            "The request has both Content-Length and Transfer-Encoding.",
        );
    }
    if request.uri().path_and_query().is_some_and(|target| target.as_str().len() > LONGEST_TARGET) {
        return refuse(
            Kind::TargetTooLong,
            "uri_too_long",
            "The request's target is longer than 8192 bytes.",
        );
    }
    if let Some(host) = wrong_host(request, said) {
        return refuse(Kind::Malformed, "invalid_host", host);
    }
    if said.expect.is_some_and(|value| !value.as_bytes().eq_ignore_ascii_case(b"100-continue")) {
        return Err(Error::new(
            Kind::ExpectationFailed,
            Origin::Client,
            "The only expectation that can be met is 100-continue.",
        ));
    }
    Ok(())
}

fn wrong_host(request: &Request<Body>, said: &Said<'_>) -> Option<&'static str> {
    let authority = request.uri().authority().map(http::uri::Authority::as_str);
    match said.host {
        Some(_) if said.hosts => Some("The request has more than one Host header."),
        None if request.version() == Version::HTTP_11 => Some("The request has no Host header."),
        Some(host)
            if authority
                .is_some_and(|authority| !host.as_bytes().eq_ignore_ascii_case(authority.as_bytes())) =>
        {
            Some("The Host header and the request's target differ.")
        }
        Some(_) | None => None,
    }
}

/// What every answer says of itself: which request it answers, how long that took, and what of it was ours.
pub(super) fn sign(headers: &mut HeaderMap, request_id: &str, elapsed: Duration, ours: Duration) {
    if let Ok(id) = HeaderValue::from_str(request_id) {
        headers.insert(REQUEST_ID, id);
    }
    let micros =
        u64::try_from(ours.saturating_add(Duration::from_nanos(500)).as_micros()).unwrap_or(u64::MAX);
    let ours = Short::of(micros / 1000).word(".").padded(micros % 1000, 3);
    for (name, value) in [(PROCESSING, Short::of(processing_ms(elapsed))), (OVERHEAD, ours)] {
        if let Ok(value) = HeaderValue::from_bytes(value.as_bytes()) {
            headers.insert(name, value);
        }
    }
}

/// Says how many calls it took and which site answered, where nothing better is said already. What no site was asked
/// for, the gateway answered itself.
pub(super) fn tried(headers: &mut HeaderMap, attempts: u32, site: Option<&str>) {
    if let HeaderEntry::Vacant(place) = headers.entry(SERVED_BY) {
        let name = site.map_or(Ok(HeaderValue::from_static("gateway")), HeaderValue::from_str);
        place.insert(name.unwrap_or(HeaderValue::from_static("-")));
    }
    if let HeaderEntry::Vacant(place) = headers.entry(ATTEMPTS) {
        // Nearly always.
        place.insert(if attempts == 1 { HeaderValue::from_static("1") } else { attempts.into() });
    }
}

/// The caller's own id where it has a harmless form, else one of ours.
pub(super) fn request_id(given: Option<&HeaderValue>, ids: &Ids) -> Arc<str> {
    let given = given.and_then(|id| id.to_str().ok());
    let harmless = |id: &&str| {
        (1..=128).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
    };
    match given.filter(harmless) {
        Some(id) => Arc::from(id),
        None => ids.mint("req_").into(),
    }
}

fn entry(request: &Request<Body>, said: &Said<'_>, request_id: &Arc<str>) -> Box<Entry> {
    boxed(|| Entry {
        request_id: Arc::clone(request_id),
        route: "none",
        method: routes::method_label(request.method()),
        version: if request.version() == Version::HTTP_2 { "2" } else { "1.1" },
        user_agent: said.user_agent.map(|agent| String::from_utf8_lossy(agent.as_bytes()).into_owned()),
        ..Entry::default()
    })
}

/// Lives as long as the reply's body: only then is the request over.
#[derive(Debug)]
struct Guard {
    meter: Meter,
    sent: u64,
    _in_flight: Held,
    busy: Busy,
}

impl Drop for Guard {
    fn drop(&mut self) {
        let sent = self.sent;
        self.meter.note(|entry| entry.bytes_out = sent);
        // Over HTTP/2 the last words may be written by another thread, and all is to be settled before they are.
        if !self.busy.is_h2() {
            self.meter.clone().leave();
        }
    }
}

/// A reply's body, whose bytes are counted.
#[derive(Debug)]
pub(super) struct Counted {
    inner: Body,
    guard: Guard,
}

impl HttpBody for Counted {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let polled = Pin::new(&mut self.inner).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &polled {
            self.guard.sent += frame.data_ref().map_or(0, Bytes::len) as u64;
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
