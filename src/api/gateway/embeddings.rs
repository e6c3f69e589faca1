//! Embeddings: one request, split into as many calls as Google needs, a few of them at a time. All or nothing.

use std::ops::Range;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use http::{HeaderMap, Response};
use parking_lot::Mutex;

use super::walk::{ATTEMPTS, DROPPED, SERVED_BY, with_lost};
use super::{Gateway, patience};
use crate::api::gateway::admit::Size;
use crate::api::{Ctx, Incoming, Reply};
use crate::body;
use crate::error::{Error, Kind, Origin, Result, Retry};
use crate::openai::embeddings::Request;
use crate::translate::embeddings::{self, Plan, Vectors, Way};
use crate::translate::tokens;
use crate::translate::{Backend, Target};
use crate::upstream::{AnswerBody, Call, Leg, Method, Repeat, Wish};
use crate::usage::Usage;

/// Inputs that Google has cut because they were too long, by index.
const TRUNCATED: HeaderName = HeaderName::from_static("x-gemway-truncated-inputs");
/// The counts are guessed.
const USAGE: HeaderName = HeaderName::from_static("x-gemway-usage");

/// Calls of one request at once.
const AT_ONCE: usize = 8;
/// Indexes that are told; more help nobody.
const MOST_TOLD: usize = 100;

/// What the calls of one request have in common.
struct Work<'w> {
    cx: &'w Ctx,
    source: &'w Bytes,
    request: &'w Request<'w>,
    /// The model as the client calls it, and as it is dispatched.
    names: (&'w str, &'w str),
    /// The plan for the first choice among the sites.
    plan: &'w Plan<'w>,
    backend: Backend,
    /// What has been used so far, as the client is told and as it is booked: the latter at once, for Google bills it
    /// even if another call fails.
    used: Mutex<(Usage, Usage)>,
}

/// What came of one call.
struct Done {
    /// The first input's index.
    first: usize,
    vectors: Vec<Vectors>,
    sent: u32,
    site: String,
}

impl Gateway {
    /// `POST /v1/embeddings`.
    pub(super) async fn embeddings(&self, cx: Ctx, incoming: Incoming) -> Result<Reply> {
        let source = incoming.json(&cx).await?;
        let request = embeddings::parse(&source)?;
        let name = named(&request, &cx)?;
        let model = self.dispatched(&name)?;
        cx.meter.resolved(&name, self.labels.get(&model).map(String::as_str), &model);
        cx.tenant.may_use(&model)?;
        let encoding = embeddings::encoding(&request, &name)?;
        if tokens::are_tokens(request.input) {
            let loading = tokio::task::spawn_blocking(move || encoding.load());
            loading.await.map_err(Error::internal)?;
        }
        let backend = self.site(&model)?.backend();
        let plan = embeddings::plan(&request, &name, &self.target(&model, backend))?;
        let all = 0..plan.calls().last().map_or(0, |call| call.end);
        // Nothing is generated.
        self.admit(&cx, &model, Size::about(plan.estimate(&all)).bounded(Some(0))).await?;
        let work = Work {
            cx: &cx,
            source: &source,
            request: &request,
            names: (&name, &model),
            plan: &plan,
            backend,
            used: Mutex::default(),
        };
        let deadline = self.upstream.trip(&wish(&work)?).deadline();
        // Whichever fails first ends all others, so nobody waits for a slow one of a request that has failed.
        let calls = stream::iter(plan.calls().to_vec()).map(|call| self.embed(&work, call));
        let done = tokio::time::timeout_at(deadline, calls.buffer_unordered(AT_ONCE).try_collect::<Vec<_>>());
        let mut done = done.await.map_err(|_elapsed| late())??;
        done.sort_unstable_by_key(|done| done.first);
        let (usage, _) = *work.used.lock();
        replied(&work, done, &usage)
    }

    fn target<'t>(&'t self, model: &'t str, backend: Backend) -> Target<'t> {
        Target { model, traits: self.catalog.traits(model), backend, strict: self.strict }
    }

    /// The vectors of some inputs, from site to site until one gives them.
    async fn embed(&self, work: &Work<'_>, call: Range<usize>) -> Result<Done> {
        let mut trip = self.upstream.trip(&wish(work)?);
        loop {
            let leg = trip.next().await?;
            match self.embed_at(work, &leg, &call).await {
                Ok((vectors, again)) => {
                    let done = Done {
                        first: call.start,
                        vectors,
                        sent: trip.sent() + again,
                        site: leg.site().name().to_owned(),
                    };
                    trip.worked(leg);
                    return Ok(done);
                }
                Err(error) => trip.failed(leg, error)?,
            }
        }
    }

    /// The vectors of some inputs from one site; and how many calls it took beyond one.
    async fn embed_at(
        &self,
        work: &Work<'_>,
        leg: &Leg<'_>,
        call: &Range<usize>,
    ) -> Result<(Vec<Vectors>, u32)> {
        let backend = leg.site().backend();
        let other;
        let plan = if backend == work.backend {
            work.plan
        } else {
            // The other surface takes other numbers of inputs, in another form.
            other = embeddings::plan(work.request, work.names.0, &self.target(work.names.1, backend))?;
            &other
        };
        let (mut all, mut sent) = (Vec::new(), 0);
        for call in plan.within(call) {
            let method = match plan.way(&call) {
                Way::One => Method::Embed,
                Way::Batch => Method::BatchEmbed,
                Way::Predict => Method::Predict,
            };
            let body = plan.body(&call, work.source)?;
            let ask = Call {
                model: leg.model().to_owned(),
                method,
                body,
                preview: false,
                trace: work.cx.meter.traceparent(),
            };
            let answer = self.call_on(work.cx, leg, &ask, true).await?;
            sent += answer.attempts;
            let AnswerBody::Whole(bytes) = answer.body else {
                return Err(Error::internal("an answer that is not streamed came as a stream"));
            };
            let vectors = Vectors::read(plan.shape(), &call, &bytes)?;
            let guessed = || Usage { input: plan.estimate(&call), estimated: true, ..Usage::default() };
            let usage = vectors.usage.unwrap_or_else(guessed);
            let (told, booked) = &mut *work.used.lock();
            told.add(&usage);
            booked.add(&with_lost(usage, answer.lost));
            work.cx.meter.usage(*booked);
            all.push(vectors);
        }
        Ok((all, sent.saturating_sub(1)))
    }
}

/// No other model may help out: its vectors would not compare with the ones the client has.
fn wish<'w>(work: &Work<'w>) -> Result<Wish<'w>> {
    let mut wish = patience::read(&work.cx.headers, work.names.1, false)?;
    if wish.repeat == Repeat::All {
        wish.repeat = Repeat::SameModel;
    }
    Ok(wish)
}

fn late() -> Error {
    Error::new(Kind::Timeout, Origin::Upstream, "Google took too long to embed all inputs.")
        .retry(Retry::Soon)
}

/// The model's name: the body's, or the Azure deployment's.
fn named(request: &Request<'_>, cx: &Ctx) -> Result<String> {
    let deployment = || cx.deployment.as_deref().map(str::to_owned);
    request.model.as_deref().map(str::to_owned).or_else(deployment).ok_or_else(|| {
        Error::invalid("model", "Missing required parameter: 'model'.").code("missing_required_parameter")
    })
}

fn replied(work: &Work<'_>, done: Vec<Done>, usage: &Usage) -> Result<Reply> {
    let mut headers = HeaderMap::new();
    let mut tell = |name: HeaderName, text: &str| {
        headers.insert(name, HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static("-")))
    };
    if !work.plan.dropped().is_empty() {
        tell(DROPPED, &work.plan.dropped().join(","));
    }
    let mut sites: Vec<&str> = Vec::new();
    for site in done.iter().map(|done| done.site.as_str()) {
        if !sites.contains(&site) {
            sites.push(site);
        }
    }
    tell(SERVED_BY, &sites.join(","));
    tell(ATTEMPTS, &done.iter().map(|done| done.sent).sum::<u32>().to_string());
    let cut = done.iter().flat_map(|done| &done.vectors).flat_map(|vectors| &vectors.truncated);
    let cut: Vec<_> = cut.take(MOST_TOLD).map(usize::to_string).collect();
    if !cut.is_empty() {
        tell(TRUNCATED, &cut.join(","));
    }
    if usage.estimated {
        tell(USAGE, "estimated");
    }
    tell(CONTENT_TYPE, "application/json");
    let vectors = done.into_iter().flat_map(|done| done.vectors).collect();
    let mut response = Response::new(body::rope(embeddings::reply(work.names.0, vectors, usage)?));
    *response.headers_mut() = headers;
    Ok(Reply::Raw(response))
}
