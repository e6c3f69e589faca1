//! The front: finds the route, knows the caller, reads the body, asks the engine, renders what comes back.
//!
//! Everything behind the front is the [`Engine`]; the front knows nothing of Google.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Either, ready, select};
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue};
use http::request::Parts;
use http::{HeaderMap, Method, Request, Response, Uri};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::body::{self, Body};
use crate::error::{Error, Kind, Result};
use crate::keys::Tenant;
use crate::meter::Meter;
use crate::telemetry::Metrics;
use crate::telemetry::metrics::Streaming;
use crate::upstream::Report;

mod batches;
pub mod gateway;
mod heartbeat;
pub mod intake;
pub mod native_routes;
pub mod passage;
pub mod peek;
pub mod pump;
pub mod render;
pub mod render_google;
pub mod routes;

pub use intake::Intake;
pub use pump::{EventSource, Stream};

use native_routes::Native;
use routes::Endpoint;

/// Who answers. Futures may be dropped at any point (the client left): whatever they hold must be let go then.
pub trait Engine: Send + Sync + 'static {
    /// Who is calling: the name of the key, from `Authorization: Bearer`, `api-key`, `x-goog-api-key`, `?key=`.
    ///
    /// # Errors
    /// `Unauthenticated`, in the same words for every reason.
    fn authenticate(&self, headers: &HeaderMap, query: Option<&str>) -> Result<Arc<Tenant>>;

    /// Answers one request of a caller who is known. A stream is returned when its first upstream event is in
    /// hand, so that early failures are real HTTP errors. The future keeps what answers, whatever takes its place meanwhile.
    fn serve(
        self: Arc<Self>,
        cx: Ctx,
        endpoint: Endpoint,
        incoming: Incoming,
    ) -> BoxFuture<'static, Result<Reply>>;

    /// Who began the native upload that this token continues; the token is all that its pieces bring along.
    ///
    /// # Errors
    /// 404 for a token that is not of this gateway.
    fn uploader(&self, token: &str) -> Result<Arc<Tenant>>;

    /// Whether requests can be served.
    fn ready(&self) -> Readiness;

    /// How the places to call stand.
    fn sites(&self) -> Vec<Report> {
        Vec::new()
    }

    /// Tells what only shows when somebody looks; called for each scrape.
    fn observe(&self, metrics: &Metrics) {
        let _ = metrics;
    }
}

/// Who answers the operator. The listener brings the request, its body read whole; what comes back goes out as it is.
pub trait Operator: std::fmt::Debug + Send + Sync + 'static {
    /// Answers one request below `/admin/`.
    fn handle(&self, request: Request<Bytes>) -> BoxFuture<'_, Response<Bytes>>;
}

/// What one request carries through the house.
#[derive(Clone, Debug)]
pub struct Ctx {
    /// The request's id, in every log line and on the reply.
    pub request_id: Arc<str>,
    /// The caller.
    pub tenant: Arc<Tenant>,
    /// The Azure deployment in the path: the model, unless the body names one.
    pub deployment: Option<Arc<str>>,
    /// The request's headers.
    pub headers: Arc<HeaderMap>,
    /// Where costs and outcome are told.
    pub meter: Meter,
    /// Counters shared by all requests.
    pub metrics: Arc<Metrics>,
}

impl Ctx {
    /// Tells meter and metrics of one call to a site: its status, or what it failed of. `label` is the model's.
    pub fn called(&self, site: &str, label: &str, outcome: Result<u16, &Error>) {
        let (status, reason) = match outcome {
            Ok(status) => (Some(status), reason(status)),
            Err(error) => (error.status(), Some(error.kind().as_str())),
        };
        self.metrics.attempt(site, label, status, reason);
        if let Some(cause) = self.meter.attempt(site, status, reason) {
            self.metrics.retry(site, cause);
        }
    }

    /// Counts this request's stream as open.
    pub fn stream(&self) -> Streaming {
        streaming(&self.metrics, &self.meter)
    }
}

/// What a status that was passed on says went wrong, in the words of [`Kind`].
fn reason(status: u16) -> Option<&'static str> {
    let kind = match status {
        ..400 => return None,
        401 | 403 => Kind::UpstreamRefused,
        404 => Kind::NotFound,
        429 => Kind::RateLimited,
        503 => Kind::Overloaded,
        408 | 504 => Kind::Timeout,
        400..500 => Kind::Invalid,
        500.. => Kind::UpstreamFailed,
    };
    Some(kind.as_str())
}

/// A stream of the request that `meter` knows, counted as open.
fn streaming(metrics: &Metrics, meter: &Meter) -> Streaming {
    let (mut route, mut provider, mut model) = ("none", None, None);
    meter.note(|entry| (route, provider, model) = (entry.route, entry.provider, entry.model.clone()));
    metrics.stream(route, provider, model.as_deref())
}

/// What the client sent, its body still on the way.
#[derive(Debug)]
pub struct Incoming {
    /// The method, which several endpoints share a path under.
    pub method: Method,
    /// Path and query.
    pub uri: Uri,
    /// The body, unread.
    pub body: Body,
    /// How much of it may be read.
    pub intake: Intake,
    /// Cancelled when what still runs has to end.
    pub cut: CancellationToken,
}

impl Incoming {
    /// Reads a JSON body whole.
    ///
    /// # Errors
    /// 415 for what is not plain JSON, 413 over the limit, 408 when it comes too slowly, `ClientGone` when it
    /// breaks off.
    pub fn json(self, cx: &Ctx) -> impl Future<Output = Result<Bytes>> + Send {
        match intake::check(&cx.headers) {
            Ok(()) => Either::Left(self.whole(cx)),
            Err(error) => Either::Right(ready(Err(error))),
        }
    }

    /// Reads any body whole.
    ///
    /// # Errors
    /// 413 over the limit, 408 when it comes too slowly, `ClientGone` when it breaks off.
    pub fn whole(self, cx: &Ctx) -> impl Future<Output = Result<Bytes>> + Send {
        intake::read(&cx.headers, self.body, self.intake).map(|body| {
            let body = body?;
            cx.meter.note(|entry| entry.bytes_in = body.len() as u64);
            Ok(body)
        })
    }
}

/// What the engine answers.
#[derive(Debug)]
pub enum Reply {
    /// A whole JSON body. The engine has told the meter the usage.
    Whole {
        /// The JSON.
        body: Bytes,
        /// Headers of the engine's (`x-gemway-…`).
        headers: HeaderMap,
    },
    /// A stream.
    Stream(Stream),
    /// A response that is passed on as it is.
    Raw(Response<Body>),
}

impl Reply {
    /// A value as a whole JSON body.
    ///
    /// # Errors
    /// When it cannot be written as JSON.
    pub fn json<T: Serialize>(value: &T) -> Result<Self> {
        let body = serde_json::to_vec(value).map_err(Error::internal)?;
        Ok(Self::Whole { body: body.into(), headers: HeaderMap::new() })
    }
}

/// Whether requests can be served, for `/readyz`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Readiness {
    /// They can.
    pub ready: bool,
    /// The answers are made up by the simulator.
    pub simulator: bool,
    /// What an operator wants to know, by name.
    pub detail: Vec<(String, String)>,
}

/// What a request brings along from the outer layers of the server.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// The request's id.
    pub request_id: Arc<str>,
    /// The request's meter.
    pub meter: Meter,
}

/// What a caller proves itself with, and what else is nobody's to read.
fn is_secret(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "authorization" | "api-key" | "x-api-key" | "x-goog-api-key" | "x-gemway-key" | "cookie"
    )
}

/// So many headers the outer layers add to a reply.
const ADDED: usize = 6;

/// Asks for, and tells, what a request cost in dollars.
const COST: HeaderName = HeaderName::from_static("x-gemway-cost");

/// The front itself; one for the whole process.
pub struct Front {
    engine: Arc<dyn Engine>,
    metrics: Arc<Metrics>,
    intake: Intake,
    cut: CancellationToken,
    heartbeat: Option<Duration>,
}

impl std::fmt::Debug for Front {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Front").field("intake", &self.intake).finish_non_exhaustive()
    }
}

impl Front {
    /// A front before an engine. When `cut` is cancelled, whatever still runs is ended with `gateway_draining`.
    pub fn new(
        engine: Arc<dyn Engine>,
        metrics: Arc<Metrics>,
        intake: Intake,
        cut: CancellationToken,
    ) -> Self {
        Self { engine, metrics, intake, cut, heartbeat: None }
    }

    /// Streams are never silent for longer than this.
    #[must_use]
    pub fn heartbeat(mut self, every: Option<Duration>) -> Self {
        self.heartbeat = every;
        self
    }

    /// Handles one request; every failure comes back rendered.
    pub fn handle(
        &self,
        request: Request<Body>,
        arrival: Arrival,
    ) -> impl Future<Output = Response<Body>> + Send {
        let uri = request.uri().clone();
        let native = native_routes::find(request.method(), uri.path(), uri.query(), request.headers());
        let is_native = native.is_some();
        async move {
            let Arrival { request_id, meter } = &arrival;
            let answered = {
                let walk = std::pin::pin!(self.walk(request, native, &arrival));
                let cut = std::pin::pin!(self.cut.cancelled());
                match select(walk, cut).await {
                    Either::Left((answered, _)) => answered,
                    Either::Right(((), _)) => Err(pump::draining()),
                }
            };
            let mut response = match answered {
                Ok(response) => response,
                Err(error) => {
                    meter.fail(&error, render::code(&error));
                    failed(&error, &uri, is_native, request_id)
                }
            };
            let told = meter.told();
            let headers = response.headers_mut();
            // With what the layers around this add, once.
            headers.reserve(told.len() + ADDED);
            for (name, value) in told {
                headers.insert(name, value);
            }
            response
        }
    }

    fn walk(
        &self,
        request: Request<Body>,
        native: Option<Result<Native>>,
        arrival: &Arrival,
    ) -> impl Future<Output = Result<Response<Body>>> + Send {
        let (mut head, body) = request.into_parts();
        for (name, value) in &mut head.headers {
            if is_secret(name) {
                // Whoever prints these headers prints `Sensitive` in their place.
                value.set_sensitive(true);
            }
        }
        let found = match native {
            Some(native) => native.map(Into::into),
            None => routes::find(&head.method, head.uri.path()),
        };
        let Parts { method, uri, headers, .. } = head;
        async move {
            let meter = &arrival.meter;
            let found = match found {
                Ok(found) => found,
                Err(error) => {
                    Box::pin(intake::spare(&headers, body)).await;
                    return Err(error);
                }
            };
            meter.note(|entry| entry.route = found.name);
            if found.endpoint == Endpoint::Root {
                return Ok(greeting());
            }
            let tenant = match found.endpoint.upload() {
                Some(token) => self.engine.uploader(token),
                None => self.engine.authenticate(&headers, uri.query()),
            };
            let tenant = match tenant {
                Ok(tenant) => tenant,
                Err(error) => {
                    Box::pin(intake::spare(&headers, body)).await;
                    return Err(error);
                }
            };
            meter.note(|entry| {
                entry.key = Some(Arc::clone(tenant.name()));
                entry.labels = Some(Arc::clone(tenant.labels()));
                entry.cost_asked |= headers.contains_key(&COST);
            });
            let cx = Ctx {
                request_id: Arc::clone(&arrival.request_id),
                tenant,
                deployment: found.deployment.map(Arc::from),
                headers: Arc::new(headers),
                meter: meter.clone(),
                metrics: Arc::clone(&self.metrics),
            };
            let incoming = Incoming { method, uri, body, intake: self.intake, cut: self.cut.clone() };
            let reply = match (self.heartbeat, &found.endpoint) {
                (Some(every), Endpoint::Chat | Endpoint::Completions | Endpoint::Responses) => {
                    let mut serving = Arc::clone(&self.engine).serve(cx, found.endpoint, incoming);
                    match tokio::time::timeout(every, &mut serving).await {
                        Ok(reply) => reply?,
                        Err(_) if meter.streams() => return Ok(self.early(serving, every, meter.clone())),
                        Err(_) => serving.await?,
                    }
                }
                _ => Arc::clone(&self.engine).serve(cx, found.endpoint, incoming).await?,
            };
            match reply {
                Reply::Whole { body: bytes, headers } => {
                    meter.complete(200).await?;
                    let mut response = Response::new(body::full(bytes));
                    *response.headers_mut() = headers;
                    let ours = response.headers_mut();
                    ours.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
                    ours.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
                    if meter.asks_cost()
                        && let Ok(cost) = HeaderValue::from_str(&meter.cost_text())
                    {
                        ours.insert(COST, cost);
                    }
                    Ok(response)
                }
                Reply::Stream(stream) => {
                    let open = streaming(&self.metrics, meter);
                    Ok(pump::response(stream, meter.clone(), self.cut.clone(), open, self.heartbeat))
                }
                Reply::Raw(response) => Ok(response),
            }
        }
    }

    /// The status line goes out before the engine has anything to say.
    fn early(
        &self,
        serving: BoxFuture<'static, Result<Reply>>,
        every: Duration,
        meter: Meter,
    ) -> Response<Body> {
        let (told, cut, metrics) = (meter.clone(), self.cut.clone(), Arc::clone(&self.metrics));
        let making = async move {
            match serving.await? {
                Reply::Stream(stream) => {
                    let open = streaming(&metrics, &told);
                    Ok(pump::response(stream, told, cut, open, Some(every)).into_body())
                }
                // A response in the background, followed.
                Reply::Raw(response) if response.status().is_success() => Ok(response.into_body()),
                Reply::Whole { .. } | Reply::Raw(_) => Err(Error::internal("a stream became something else")),
            }
        };
        heartbeat::early(Box::pin(making), every, meter, self.cut.clone())
    }
}

/// An error in the form that this address speaks.
fn failed(error: &Error, uri: &Uri, is_native: bool, request_id: &str) -> Response<Body> {
    if is_native {
        return render_google::response(error, native_routes::shape(uri.path()), request_id);
    }
    let mut response = render::response(error, request_id);
    if error.kind() == Kind::MethodNotAllowed
        && let Some(allowed) = routes::allow(uri.path())
        && let Ok(allowed) = HeaderValue::from_str(&allowed)
    {
        response.headers_mut().insert(ALLOW, allowed);
    }
    response
}

fn greeting() -> Response<Body> {
    let text = concat!(
        r#"{"name":"gemway","version":""#,
        env!("CARGO_PKG_VERSION"),
        r#"","endpoints":["/v1/chat/completions","/v1/responses","/v1/conversations","/v1/embeddings","/v1/completions","/v1/models"]}"#
    );
    let mut response = Response::new(body::full(text));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// How long a reply was in the making, for `openai-processing-ms`.
pub fn processing_ms(elapsed: Duration) -> u64 {
    u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
