//! The layers around the front: identity and meter, framing checks, the panic guard.

use std::any::Any;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::header::{ALLOW, CONNECTION, EXPECT, HOST, HeaderName, HeaderValue, USER_AGENT};
use http::{HeaderMap, Method, Request, Response, Version};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;
use tokio_util::sync::CancellationToken;
use tower::util::MapResponse;
use tower::{Layer, Service, ServiceBuilder};
use tower_http::catch_panic::{CatchPanic, CatchPanicLayer};

use super::io::{Busy, Line};
use crate::api::{Arrival, Front, processing_ms, render, routes};
use crate::body::{Body, BoxError};
use crate::error::{Error, Kind, Origin};
use crate::ids::Ids;
use crate::meter::{Entry, Meter, Outcome, Sink};
use crate::telemetry::Metrics;
use crate::telemetry::metrics::Held;
use crate::telemetry::trace::Trace;

type Answer = BoxFuture<'static, Result<Response<Body>, Infallible>>;

/// What all requests share in the stack.
#[derive(Clone, Debug)]
pub(super) struct Shared {
    pub(super) metrics: Arc<Metrics>,
    pub(super) sink: Arc<dyn Sink>,
    pub(super) ids: Arc<Ids>,
    pub(super) draining: CancellationToken,
    pub(super) trace_share: Option<f64>,
}

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const DROPPED: HeaderName = HeaderName::from_static("x-gemway-dropped-params");
const PROCESSING: HeaderName = HeaderName::from_static("openai-processing-ms");
const SERVED_BY: HeaderName = HeaderName::from_static("x-gemway-served-by");
const ATTEMPTS: HeaderName = HeaderName::from_static("x-gemway-attempts");
const OVERHEAD: HeaderName = HeaderName::from_static("x-gemway-overhead-ms");

/// Bytes of path and query; nothing that is served comes near it.
const LONGEST_TARGET: usize = 8192;

/// How the panic guard renders.
type Render = fn(Box<dyn Any + Send>) -> Response<Body>;

/// How the panic guard's own body type becomes ours again.
type Unwrap = fn(Response<tower_http::body::UnsyncBoxBody<Bytes, BoxError>>) -> Response<Body>;

/// The whole request path as one service.
pub(super) type Stack = Observe<Framing<MapResponse<CatchPanic<Door, Render>, Unwrap>>>;

/// Puts the layers around the front.
pub(super) fn stack(front: Arc<Front>, shared: Shared) -> Stack {
    ServiceBuilder::new()
        .layer(ObserveLayer(shared))
        .layer(FramingLayer)
        .map_response(unwrap as Unwrap)
        .layer(CatchPanicLayer::custom(panicked as Render))
        .service(Door(front))
}

fn unwrap(response: Response<tower_http::body::UnsyncBoxBody<Bytes, BoxError>>) -> Response<Body> {
    response.map(BodyExt::boxed_unsync)
}

/// Marks the response that stands for a panic, for the meter.
#[derive(Clone, Copy)]
struct Panicked;

#[expect(clippy::needless_pass_by_value, reason = "the panic guard hands the payload over")]
fn panicked(payload: Box<dyn Any + Send>) -> Response<Body> {
    let text = payload
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| payload.downcast_ref::<&str>().copied())
        .unwrap_or("no text");
    tracing::error!(panic = %crate::telemetry::clip(text, 200), "a request panicked");
    let mut response = render::response(&Error::internal("a panic"), "");
    response.headers_mut().remove("x-request-id");
    response.extensions_mut().insert(Panicked);
    response
}

/// The innermost service: hands the request to the front.
#[derive(Clone)]
pub(super) struct Door(Arc<Front>);

impl Service<Request<Body>> for Door {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answer;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<Body>) -> Answer {
        let front = Arc::clone(&self.0);
        let arrival = request.extensions_mut().remove::<Arrival>();
        Box::pin(async move {
            let Some(arrival) = arrival else {
                return Ok(render::response(&Error::internal("a request without an arrival"), ""));
            };
            Ok(front.handle(request, arrival).await)
        })
    }
}

#[derive(Clone)]
struct FramingLayer;

impl<S> Layer<S> for FramingLayer {
    type Service = Framing<S>;
    fn layer(&self, inner: S) -> Framing<S> {
        Framing(inner)
    }
}

/// Refuses what hyper lets pass and no honest client sends.
#[derive(Clone)]
pub(super) struct Framing<S>(S);

impl<S> Service<Request<Body>> for Framing<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answer;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Answer {
        let Err(error) = framing(&request) else { return Box::pin(self.0.call(request)) };
        let arrival = request.extensions().get::<Arrival>();
        let mut response = render::response(&error, arrival.map_or("", |arrival| &arrival.request_id));
        if let Some(arrival) = arrival {
            arrival.meter.fail(&error, render::code(&error));
        }
        if error.kind() == Kind::MethodNotAllowed {
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD, POST"));
        }
        if request.version() < Version::HTTP_2 {
            // Whatever follows on this connection cannot be trusted to begin where we think.
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        Box::pin(std::future::ready(Ok(response)))
    }
}

fn framing(request: &Request<Body>) -> Result<(), Error> {
    let refuse = |kind, code, message| Err(Error::new(kind, Origin::Client, message).code(code));
    if request.method() == Method::CONNECT {
        return Err(Error::new(Kind::MethodNotAllowed, Origin::Client, "CONNECT is not served here."));
    }
    if request.extensions().get::<Arc<Line>>().is_some_and(|line| line.conflict() && !line.is_h2()) {
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
    if let Some(host) = wrong_host(request) {
        return refuse(Kind::Malformed, "invalid_host", host);
    }
    let expectation = request.headers().get(EXPECT);
    if expectation.is_some_and(|value| !value.as_bytes().eq_ignore_ascii_case(b"100-continue")) {
        return Err(Error::new(
            Kind::ExpectationFailed,
            Origin::Client,
            "The only expectation that can be met is 100-continue.",
        ));
    }
    Ok(())
}

fn wrong_host(request: &Request<Body>) -> Option<&'static str> {
    let mut hosts = request.headers().get_all(HOST).iter();
    let authority = request.uri().authority().map(http::uri::Authority::as_str);
    match (hosts.next(), hosts.next()) {
        (Some(_), Some(_)) => Some("The request has more than one Host header."),
        (None, _) if request.version() == Version::HTTP_11 => Some("The request has no Host header."),
        (Some(host), None)
            if authority
                .is_some_and(|authority| !host.as_bytes().eq_ignore_ascii_case(authority.as_bytes())) =>
        {
            Some("The Host header and the request's target differ.")
        }
        (_, None) | (None, Some(_)) => None,
    }
}

#[derive(Clone)]
struct ObserveLayer(Shared);

impl<S> Layer<S> for ObserveLayer {
    type Service = Observe<S>;
    fn layer(&self, inner: S) -> Observe<S> {
        Observe { inner, shared: self.0.clone() }
    }
}

/// The outermost layer: names the request, counts it while it is in flight, and settles it.
#[derive(Clone)]
pub(super) struct Observe<S> {
    inner: S,
    shared: Shared,
}

impl<S> Service<Request<Body>> for Observe<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future = Answer>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answer;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Answer {
        let busy = request.extensions().get::<Arc<Line>>().map(Line::begin);
        let in_flight = self.shared.metrics.in_flight();
        let request_id: Arc<str> = request_id(request.headers(), &self.shared.ids);
        let mut entry = entry(&request, &request_id);
        let traceparent = request.headers().get(TRACEPARENT).and_then(|value| value.to_str().ok());
        // A caller's trace goes on through us even where our own spans go nowhere.
        if traceparent.is_some() || self.shared.trace_share.is_some() {
            entry.trace = Some(Box::new(Trace::begin(traceparent, self.shared.trace_share.unwrap_or(0.0))));
        }
        let meter = Meter::start(Arc::clone(&self.shared.sink), entry);
        request
            .extensions_mut()
            .insert(Arrival { request_id: Arc::clone(&request_id), meter: meter.clone() });
        let version = request.version();
        let draining = self.shared.draining.clone();
        let answered = self.inner.call(request);
        Box::pin(async move {
            let Ok(mut response) = answered.await;
            let status = response.status();
            if response.extensions_mut().remove::<Panicked>().is_some() {
                meter.fail(&Error::internal("a panic"), Some("server_error"));
            }
            let dropped = response.headers().get(DROPPED);
            let ours = meter.headed(status.as_u16(), dropped.and_then(|dropped| dropped.to_str().ok()));
            if !meter.goes_on() {
                // An error has said its own word already; this one counts for the rest.
                meter.end(if status.is_client_error() { Outcome::Refused } else { Outcome::Complete });
            }
            let headers = response.headers_mut();
            sign(headers, &request_id, meter.elapsed(), ours);
            let (attempts, site) = meter.tried();
            tried(headers, attempts, site.as_deref());
            if draining.is_cancelled() && version < Version::HTTP_2 {
                headers.insert(CONNECTION, HeaderValue::from_static("close"));
            }
            let guard = Guard { meter, sent: 0, _in_flight: in_flight, _busy: busy };
            Ok(response.map(|inner| Counted { inner, guard }.boxed_unsync()))
        })
    }
}

/// What every answer says of itself: which request it answers, how long that took, and what of it was ours.
pub(super) fn sign(headers: &mut HeaderMap, request_id: &str, elapsed: Duration, ours: Duration) {
    if let Ok(id) = HeaderValue::from_str(request_id) {
        headers.insert(REQUEST_ID, id);
    }
    let millis = HeaderValue::from(processing_ms(elapsed));
    headers.insert(PROCESSING, millis);
    if let Ok(ours) = HeaderValue::try_from(format!("{:.3}", ours.as_secs_f64() * 1000.0)) {
        headers.insert(OVERHEAD, ours);
    }
}

/// Says how many calls it took and which site answered, where nothing better is said already. What no site was asked
/// for, the gateway answered itself.
pub(super) fn tried(headers: &mut HeaderMap, attempts: u32, site: Option<&str>) {
    let site = HeaderValue::from_str(site.unwrap_or("gateway")).unwrap_or(HeaderValue::from_static("-"));
    headers.entry(SERVED_BY).or_insert(site);
    headers.entry(ATTEMPTS).or_insert(attempts.into());
}

/// The caller's own id where it has a harmless form, else one of ours.
pub(super) fn request_id(headers: &HeaderMap, ids: &Ids) -> Arc<str> {
    let given = headers.get(REQUEST_ID).and_then(|id| id.to_str().ok());
    let harmless = |id: &&str| {
        (1..=128).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
    };
    match given.filter(harmless) {
        Some(id) => Arc::from(id),
        None => Arc::from(ids.mint("req_")),
    }
}

fn entry(request: &Request<Body>, request_id: &str) -> Entry {
    let agent = request.headers().get(USER_AGENT);
    Entry {
        request_id: request_id.to_owned(),
        route: "none",
        method: routes::method_label(request.method()),
        version: if request.version() == Version::HTTP_2 { "2" } else { "1.1" },
        user_agent: agent.map(|agent| String::from_utf8_lossy(agent.as_bytes()).into_owned()),
        ..Entry::default()
    }
}

/// Lives as long as the reply's body: only then is the request over.
struct Guard {
    meter: Meter,
    sent: u64,
    _in_flight: Held,
    _busy: Option<Busy>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        let sent = self.sent;
        self.meter.note(|entry| entry.bytes_out = sent);
    }
}

struct Counted {
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
