//! The way out: one client for all of Google's places, credentials, deadlines, and answers as they arrive.
//!
//! A call returns when the status line and, for a stream, the first event are in hand, so that early failures
//! can still become HTTP errors. Dropping a call or its [`Events`] cancels it at Google.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, Response, StatusCode, Uri, Version, header};
use tokio::time::{Instant, timeout_at};

// The integrator points this at `crate::translate::fault`.
use crate::translate::fault::from_response;

use gauge::{Gauge, Rest};

use crate::body::{self, Body, Rope};
use crate::clock::Clock;
use crate::error::{Error, Result, Retry};
use crate::placed::pinned;

mod breaker;
mod connect;
mod course;
mod credential;
mod events;
mod fail;
mod federation;
mod gauge;
mod health;
mod hedge;
mod inherit;
mod lanes;
mod letter;
mod look;
mod origin;
mod raw;
mod report;
mod retry;
mod route;
mod settings;
mod site;
#[cfg(test)]
mod tests;
mod throttle;
mod token;
mod trip;

pub use course::Course;
pub use events::Events;
pub use fail::is_unsent;
pub use look::Look;
pub use raw::{Credential, Payload, Raw, RawPath};
pub use report::{ModelReport, Report};
pub use route::{Balance, RouteConfig, Times, hash};
pub use settings::{Config, Credentials, Local, Names, Network, SiteConfig, SiteKind, Timeouts};
pub use site::Site;
pub use trip::{Leg, Repeat, Trip, Wish};

/// The largest whole answer (image models send several pictures in one).
const LARGEST_ANSWER: usize = 64 << 20;
/// How much of an error's body is read, and for how long.
const LARGEST_ERROR: usize = 1 << 20;
const ERROR_WITHIN: Duration = Duration::from_secs(10);
const AGENT: HeaderValue = HeaderValue::from_static(concat!("gemway/", env!("CARGO_PKG_VERSION")));
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const EVENT_STREAM: HeaderValue = HeaderValue::from_static("text/event-stream");
const SERVICE_TIER: HeaderName = HeaderName::from_static("x-gemini-service-tier");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const IDENTITY: HeaderValue = HeaderValue::from_static("identity");

/// One call to a model.
#[derive(Clone, Debug)]
pub struct Call {
    /// The model's name as it is dispatched.
    pub model: String,
    /// What is asked of it.
    pub method: Method,
    /// The request, as JSON.
    pub body: Rope,
    /// Uses a field that Vertex AI knows in v1beta1 only.
    pub preview: bool,
    /// `traceparent`, where the request is traced.
    pub trace: Option<HeaderValue>,
}

/// What can be asked of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Method {
    /// `generateContent`
    Generate,
    /// `streamGenerateContent`
    Stream,
    /// `countTokens`
    CountTokens,
    /// `embedContent`
    Embed,
    /// `batchEmbedContents`
    BatchEmbed,
    /// `predict`, the older way to embed at Vertex AI
    Predict,
}

/// What came back from a call that worked.
#[derive(Debug)]
pub struct Answer {
    /// The site that answered.
    pub site: Arc<str>,
    /// How often the request was sent.
    pub attempts: u32,
    /// How many of those calls were given up for this one while they were under way: Google may bill them too.
    pub lost: u32,
    /// The tier that really served it (`x-gemini-service-tier`).
    pub service_tier: Option<String>,
    /// The answer.
    pub body: AnswerBody,
}

/// A whole answer, or one that is still coming.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "one lives for a moment in each request; a box would cost more"
)]
pub enum AnswerBody {
    /// All of it, as JSON.
    Whole(Bytes),
    /// Its events, the first of them already here.
    Stream(Events),
}

/// The way out.
#[derive(Debug)]
pub struct Upstream {
    sites: Vec<Site>,
    /// For token exchanges; the sites have their own.
    client: connect::Client,
    timeouts: Timeouts,
    routes: route::Routes,
    /// The sites' names, health and projects, in the sites' order.
    names: Vec<Arc<str>>,
    health: Vec<Arc<health::Health>>,
    group_of: Vec<usize>,
    groups: Vec<Group>,
    /// What stands between us and Google, for comparing.
    network: inherit::Print,
    max_in_flight: u32,
    longest_wait: Duration,
    slow_start: Option<Duration>,
    /// All times of health are milliseconds since then.
    epoch: Instant,
    clock: Clock,
    dice: AtomicU64,
}

/// A project whose quota its sites share.
#[derive(Debug)]
struct Group {
    name: Arc<str>,
    quotas: Arc<health::ByModel<health::Quota>>,
}

/// How long one call may take, in all its phases. The calls that continue an answer have the first one's.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    times: Timeouts,
    deadline: Instant,
    /// Before this the first byte must be there, whatever the phase's own limit.
    first_by: Option<Instant>,
    /// Calls under way at the site.
    flying: u32,
    /// When the first call was about to be made.
    begun: Instant,
}

impl Patience {
    /// For a call that continues an answer: its first byte is there already, its end stays where it was.
    #[must_use]
    pub fn continued(self) -> Self {
        Self { first_by: None, ..self }
    }

    /// How much of the whole is left.
    pub fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// Until when to wait, from `begun` on, for something that may take `span`, and what to say when it does not come.
    fn until(&self, begun: Instant, span: Duration, late: fn() -> Error) -> (Instant, fn() -> Error) {
        let own = begun + span;
        let hard = self.first_by.map_or(self.deadline, |by| by.min(self.deadline));
        if own < hard { (own, late) } else { (hard, fail::out_of_time) }
    }
}

impl Upstream {
    /// Checks the settings and builds the client; connects to nothing yet.
    ///
    /// # Errors
    /// When a URL, a key or a credential file cannot be used.
    pub fn new(config: Config) -> Result<Self> {
        let client = connect::Client::new(config.timeouts.connect, &config.network)?;
        let defaults = config.defaults();
        let network = inherit::network(config.timeouts.connect, &config.network);
        let sites = config.sites.into_iter();
        let sites =
            sites.map(|site| Site::new(site, config.programs, &client)).collect::<Result<Vec<_>>>()?;
        let names: Vec<_> = sites.iter().map(Site::shared_name).collect();
        let routes = route::Routes::new(config.routes, &names, &defaults)?;
        let mut known: Vec<&str> = Vec::new();
        let mut group_of = Vec::new();
        for site in &sites {
            let place = known.iter().position(|group| *group == site.group());
            group_of.push(place.unwrap_or(known.len()));
            if place.is_none() {
                known.push(site.group());
            }
        }
        let mut seed = [0; 8];
        crate::ids::fill(&mut seed);
        Ok(Self {
            groups: known.iter().map(|name| Group { name: (*name).into(), quotas: Arc::default() }).collect(),
            health: sites.iter().map(|_| Arc::new(health::Health::new(config.max_in_flight))).collect(),
            network,
            max_in_flight: config.max_in_flight,
            sites,
            client,
            timeouts: config.timeouts,
            routes,
            names,
            group_of,
            longest_wait: config.longest_wait,
            slow_start: config.slow_start,
            epoch: Instant::now(),
            clock: Clock::System,
            dice: AtomicU64::new(u64::from_ne_bytes(seed)),
        })
    }

    /// The places that can be called, in order of preference.
    pub fn sites(&self) -> impl Iterator<Item = &Site> {
        self.sites.iter()
    }

    /// Keeps every site's access token fresh; to be spawned once, and dropped at the end.
    pub fn background(&self) -> impl Future<Output = ()> + Send + use<> {
        let tokens: Vec<_> = self.sites.iter().filter_map(|site| site.tokens().map(Arc::clone)).collect();
        let client = self.client.clone();
        async move {
            futures_util::future::join_all(tokens.iter().map(|tokens| tokens.keep_fresh(&client))).await;
        }
    }

    /// The first site that a route names for the model; the first of all where no route does.
    pub fn first(&self, model: &str) -> Option<&Site> {
        self.routes.find(model).sites.first().and_then(|at| self.sites.get(*at))
    }

    /// Calls a model at one site, once, within the ordinary deadlines.
    ///
    /// # Errors
    /// When the site cannot be reached, refuses, or answers with what cannot be used.
    pub async fn call(&self, site: &Site, call: &Call) -> Result<Answer> {
        self.call_within(site, call, self.patience()).await
    }

    /// Makes the call of one leg of a trip.
    ///
    /// # Errors
    /// As [`Upstream::call`]; tell [`Trip::failed`].
    pub async fn call_on(&self, leg: &Leg<'_>, call: &Call) -> Result<Answer> {
        pinned(|| self.call_within(leg.site(), call, leg.patience())).await
    }

    /// Calls a model at one site, once, within what another call has left.
    ///
    /// # Errors
    /// As [`Upstream::call`].
    pub async fn call_within(&self, site: &Site, call: &Call, patience: Patience) -> Result<Answer> {
        let streams = call.method == Method::Stream;
        let times = patience.times;
        let head = if streams { times.head } else { times.first_event };
        let head = patience.until(Instant::now(), head, fail::silent);
        let uri = site.uri(call, &self.client).await?;
        let ask = Ask { uri, streams, body: Some(&call.body), trace: call.trace.as_ref() };
        let (response, attempts) = self.send(site, &ask, head, patience.flying).await?;
        let (parts, body) = accepted(response, site).await?.into_parts();
        let service_tier = parts.headers.get(SERVICE_TIER);
        let service_tier = service_tier.and_then(|tier| tier.to_str().ok()).map(str::to_owned);
        // Over HTTP/2 all of a read is there when the first of it is.
        let shared = parts.version == Version::HTTP_2;
        let rest = parts.extensions.get::<Gauge>().filter(|_| !shared).cloned().map(Rest::new);
        let body = if streams {
            AnswerBody::Stream(Events::open(body, rest, patience).await?)
        } else {
            let deadline = patience.first_by.map_or(patience.deadline, |by| by.min(patience.deadline));
            AnswerBody::Whole(self.whole(body, times.idle, deadline).await?)
        };
        Ok(Answer { site: site.shared_name(), attempts, lost: 0, service_tier, body })
    }

    /// Reads a list or a thing; `path` is what follows the API version (`models?pageSize=1000`).
    ///
    /// # Errors
    /// As [`Upstream::call`].
    pub async fn get(&self, site: &Site, path: &str) -> Result<Bytes> {
        let ask = Ask { uri: site.resource(path)?, streams: false, body: None, trace: None };
        let patience = self.patience();
        let (response, _) = self
            .send(site, &ask, patience.until(patience.begun, self.timeouts.head, fail::silent), 0)
            .await?;
        let body = accepted(response, site).await?.into_body();
        self.whole(body, self.timeouts.idle, patience.deadline).await
    }

    fn patience(&self) -> Patience {
        let (times, begun) = (self.timeouts, Instant::now());
        Patience { times, deadline: begun + times.total, first_by: None, flying: 0, begun }
    }

    /// Sends a request until there is a status line; once more with a new token if Google refuses the old one.
    async fn send(
        &self,
        site: &Site,
        ask: &Ask<'_>,
        (until, late): (Instant, fn() -> Error),
        flying: u32,
    ) -> Result<(Response<Body>, u32)> {
        let mut attempts = 1;
        loop {
            let token = match timeout_at(until, site.token(&self.client)).await {
                Ok(token) => token?,
                Err(_) => return Err(late()),
            };
            let mut request = ask.request(site);
            if let Some(token) = &token {
                request.headers_mut().insert(header::AUTHORIZATION, token.header.clone());
            }
            let response = match timeout_at(until, self.exchange(site, request, flying)).await {
                Ok(response) => response?,
                Err(_) => return Err(late()),
            };
            match (response.status(), site.tokens(), token) {
                (StatusCode::UNAUTHORIZED, Some(tokens), Some(token)) if attempts == 1 => {
                    tokens.invalidate(&token);
                    attempts += 1;
                }
                _ => return Ok((response, attempts)),
            }
        }
    }

    async fn exchange(&self, site: &Site, request: Request<Rope>, flying: u32) -> Result<Response<Body>> {
        match site.local() {
            Some(local) => Ok(local.respond(request.map(Rope::join)).await),
            None => site.client().request(request.map(body::rope), flying).await.map_err(fail::unanswered),
        }
    }

    async fn whole(&self, body: Body, idle: Duration, deadline: Instant) -> Result<Bytes> {
        let body = events::Watched::new(body, idle, deadline);
        let bytes = body::read(body, LARGEST_ANSWER).await.map_err(fail::unread)?;
        if bytes.trim_ascii().is_empty() {
            return Err(fail::invalid("Google's answer was empty."));
        }
        Ok(bytes)
    }
}

/// One request before it has credentials.
struct Ask<'a> {
    uri: Uri,
    /// Whether the answer is to come as events.
    streams: bool,
    /// What to post; nothing is a `GET`.
    body: Option<&'a Rope>,
    trace: Option<&'a HeaderValue>,
}

impl Ask<'_> {
    /// Builds the request.
    fn request(&self, site: &Site) -> Request<Rope> {
        let mut request = Request::new(self.body.cloned().unwrap_or_default());
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = site.posts(self.streams).clone();
        if let Some(trace) = self.trace {
            request.headers_mut().insert(TRACEPARENT, trace.clone());
        }
        if self.body.is_some() {
            *request.method_mut() = http::Method::POST;
        } else {
            request.headers_mut().remove(header::CONTENT_TYPE);
        }
        request
    }
}

/// What an answer that is not a success means, its body read.
pub fn refusal(parts: &http::response::Parts, body: &[u8], site: &Site) -> Error {
    let wait = parts.headers.get(header::RETRY_AFTER);
    let wait = wait.and_then(|wait| wait.to_str().ok()?.trim().parse().ok()).map(Duration::from_secs);
    let error = from_response(parts.status, body, &site.secrets()).answered(parts.status.as_u16());
    // Google says it in the body; what stands before Google says it in a header.
    match (error.retries(), wait) {
        (Retry::Soon, Some(wait)) => error.retry(Retry::After(wait)),
        (Retry::Soon, None) | (Retry::Never | Retry::After(_), _) => error,
    }
}

/// Lets a usable status line through; everything else becomes an error.
async fn accepted(response: Response<Body>, site: &Site) -> Result<Response<Body>> {
    let status = response.status();
    if status.is_redirection() {
        return Err(fail::invalid("Google answered with a redirect.")
            .code("upstream_error")
            .retry(Retry::Never));
    }
    if !status.is_success() {
        let (parts, body) = response.into_parts();
        let reading = body::read(body, LARGEST_ERROR);
        // An error without a readable body is still an error with a status.
        let body = match tokio::time::timeout(ERROR_WITHIN, reading).await {
            Ok(Ok(body)) => body,
            Ok(Err(_)) | Err(_) => Bytes::new(),
        };
        return Err(refusal(&parts, &body, site));
    }
    let starts = |name: HeaderName, what: &str| {
        response.headers().get(name).and_then(|value| value.to_str().ok()).is_some_and(|value| {
            value.get(..what.len()).is_some_and(|start| start.eq_ignore_ascii_case(what))
        })
    };
    if starts(header::CONTENT_TYPE, "text/html") {
        return Err(fail::invalid("Google's answer was a web page."));
    }
    if response.headers().contains_key(header::CONTENT_ENCODING)
        && !starts(header::CONTENT_ENCODING, "identity")
    {
        return Err(fail::invalid("Google's answer was compressed, which was not asked for."));
    }
    Ok(response)
}
