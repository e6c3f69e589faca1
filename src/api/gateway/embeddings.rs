//! Embeddings: one request, split into as many calls as Google needs, a few of them at a time. All or nothing.

use std::ops::Range;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use http::{HeaderMap, Response};
use parking_lot::Mutex;

use super::Gateway;
use super::walk::{ATTEMPTS, DROPPED, SERVED_BY};
use crate::api::{Ctx, Incoming, Reply};
use crate::body;
use crate::error::{Error, Result};
use crate::limits::Permit;
use crate::openai::embeddings::Request;
use crate::translate::Target;
use crate::translate::embeddings::{self, Plan, Vectors, Way};
use crate::translate::tokens;
use crate::upstream::{AnswerBody, Call, Method, Site};
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
    plan: &'w Plan<'w>,
    site: &'w Site,
    model: &'w str,
    /// What has been used so far: told at once, for Google bills it even if another call fails.
    used: Mutex<Usage>,
}

impl Gateway {
    /// `POST /v1/embeddings`.
    pub(super) async fn embeddings(&self, cx: Ctx, incoming: Incoming) -> Result<Reply> {
        let source = incoming.json(&cx).await?;
        let request = embeddings::parse(&source)?;
        let name = named(&request, &cx)?;
        let model = self.dispatched(&name)?;
        cx.meter.model(&name, self.labels.get(&model).map(String::as_str));
        cx.tenant.may_use(&model)?;
        let encoding = embeddings::encoding(&request, &name)?;
        if tokens::are_tokens(request.input) {
            let loading = tokio::task::spawn_blocking(move || encoding.load().map(|_| ()));
            loading.await.map_err(Error::internal)??;
        }
        let site = self.site(&model)?;
        let target = Target {
            model: &model,
            traits: self.catalog.traits(&model),
            backend: site.backend(),
            strict: self.strict,
        };
        let plan = embeddings::plan(&request, &name, &target)?;
        let all = 0..plan.calls().last().map_or(0, |call| call.end);
        let permit = self.limiter.admit(cx.tenant.name(), plan.estimate(&all))?;
        let work = Work {
            cx: &cx,
            source: &source,
            plan: &plan,
            site,
            model: &model,
            used: Mutex::new(Usage::default()),
        };
        let calls = stream::iter(plan.calls().to_vec()).map(|call| self.embed(&work, call));
        let done: Vec<(Vectors, u32)> = calls.buffered(AT_ONCE).try_collect().await?;
        let usage = *work.used.lock();
        replied(&name, &work, done, &usage, permit)
    }

    /// One call.
    async fn embed(&self, work: &Work<'_>, call: Range<usize>) -> Result<(Vectors, u32)> {
        let method = match work.plan.way(&call) {
            Way::One => Method::Embed,
            Way::Batch => Method::BatchEmbed,
            Way::Predict => Method::Predict,
        };
        let body = work.plan.body(&call, work.source)?;
        let ask = Call { model: work.model.to_owned(), method, body, preview: false };
        let answer = self.call(work.cx, work.site, &ask).await?;
        let AnswerBody::Whole(bytes) = answer.body else {
            return Err(Error::internal("an answer that is not streamed came as a stream"));
        };
        let vectors = Vectors::read(work.plan.shape(), &call, &bytes)?;
        let guessed = || Usage { input: work.plan.estimate(&call), estimated: true, ..Usage::default() };
        let mut used = work.used.lock();
        used.add(&vectors.usage.unwrap_or_else(guessed));
        work.cx.meter.usage(*used);
        Ok((vectors, answer.attempts))
    }
}

/// The model's name: the body's, or the Azure deployment's.
fn named(request: &Request<'_>, cx: &Ctx) -> Result<String> {
    let deployment = || cx.deployment.as_deref().map(str::to_owned);
    request.model.as_deref().map(str::to_owned).or_else(deployment).ok_or_else(|| {
        Error::invalid("model", "Missing required parameter: 'model'.").code("missing_required_parameter")
    })
}

fn replied(
    name: &str,
    work: &Work<'_>,
    done: Vec<(Vectors, u32)>,
    usage: &Usage,
    permit: Permit,
) -> Result<Reply> {
    let mut headers = HeaderMap::new();
    for (name, value) in permit.headers() {
        headers.insert(name.clone(), value.clone());
    }
    permit.settle(usage.total());
    let mut tell = |name: HeaderName, text: &str| {
        headers.insert(name, HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static("-")))
    };
    if !work.plan.dropped().is_empty() {
        tell(DROPPED, &work.plan.dropped().join(","));
    }
    tell(SERVED_BY, work.site.name());
    tell(ATTEMPTS, &done.iter().map(|(_, attempts)| attempts).sum::<u32>().to_string());
    let cut = done.iter().flat_map(|(vectors, _)| &vectors.truncated).take(MOST_TOLD);
    let cut: Vec<_> = cut.map(usize::to_string).collect();
    if !cut.is_empty() {
        tell(TRUNCATED, &cut.join(","));
    }
    if usage.estimated {
        tell(USAGE, "estimated");
    }
    tell(CONTENT_TYPE, "application/json");
    let vectors = done.into_iter().map(|(vectors, _)| vectors).collect();
    let mut response = Response::new(body::rope(embeddings::reply(name, vectors, usage)?));
    *response.headers_mut() = headers;
    Ok(Reply::Raw(response))
}
