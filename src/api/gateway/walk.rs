//! The one walk of a request to a model: key → model → site → ask → call → reply, for every front alike.
//!
//! What differs between the fronts is an [`Operation`]; what they share, limits and headers and the wait for
//! the first event among it, is here once.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use http::header::{HeaderMap, HeaderName, HeaderValue};

use super::Gateway;
use crate::api::{Ctx, EventSource, Reply, Stream};
use crate::error::{Error, Result, Retry};
use crate::limits::Permit;
use crate::telemetry::metrics::UNRESOLVED;
use crate::translate::{Backend, Machine, Signatures, Stamp, Target};
use crate::upstream::{Answer, AnswerBody, Call, Events, Method, Site};
use crate::usage::Usage;
use crate::wire::Rope;

pub(super) const DROPPED: HeaderName = HeaderName::from_static("x-gemway-dropped-params");
pub(super) const SERVED_BY: HeaderName = HeaderName::from_static("x-gemway-served-by");
pub(super) const ATTEMPTS: HeaderName = HeaderName::from_static("x-gemway-attempts");

/// The most events that are held while nothing has been said yet.
const HELD: usize = 256;

/// What one front does with one request.
pub(super) trait Operation: Send + Sync {
    /// What the answering half must know of the request.
    type Shape: Clone + Send + Sync + 'static;
    /// The translator of a streamed answer.
    type Machine: Machine;
    /// How the reply's id begins (`chatcmpl-`).
    const PREFIX: &'static str;

    /// The model, as the client calls it.
    fn model(&self) -> &str;
    /// The client wants a stream.
    fn streams(&self) -> bool;
    /// Tokens that are reserved until the truth is known.
    fn estimate(&self) -> u64;
    /// The request as one target is asked. Called again when another target must be asked instead.
    ///
    /// # Errors
    /// When the request asks for what cannot be had there; names the field.
    fn ask(&mut self, target: &Target<'_>, signatures: &dyn Signatures) -> Result<Asked<Self::Shape>>;
    /// A translator for the events of a streamed reply.
    fn machine(&self, shape: Self::Shape, stamp: Stamp) -> Self::Machine;
    /// The whole reply to a whole answer (one body, or the events of a stream).
    ///
    /// # Errors
    /// When the answer is empty, malformed or blocked.
    fn reply(&self, shape: &Self::Shape, stamp: &Stamp, answers: &[Bytes]) -> Result<(Bytes, Usage)>;
}

/// A translated request.
#[derive(Debug)]
pub(super) struct Asked<S> {
    /// The JSON for Google.
    pub(super) body: Rope,
    /// What the answering half must know.
    pub(super) shape: S,
    /// Fields that Gemini has no equal of.
    pub(super) dropped: Vec<String>,
    /// Several candidates: those never stream at Google, their whole answer becomes one event.
    pub(super) several: bool,
}

impl Gateway {
    /// Walks one request through.
    ///
    /// # Errors
    /// The operation's own, the limiter's and the upstream's.
    pub(super) async fn walk<O: Operation>(&self, cx: &Ctx, mut operation: O) -> Result<Reply> {
        let name = operation.model().to_owned();
        let model = self.dispatched(&name)?;
        cx.meter.model(&name, self.labels.get(&model).map(String::as_str));
        cx.tenant.may_use(&model)?;
        let site = self.site(&model)?;
        let traits = self.catalog.traits(&model);
        let target = Target { model: &model, traits, backend: site.backend(), strict: self.strict };
        let Asked { body, shape, dropped, several } = operation.ask(&target, &*self.signatures)?;
        let permit = self.limiter.admit(cx.tenant.name(), operation.estimate())?;
        let streams = operation.streams();
        // Families with an output cap per request are always streamed upstream.
        let live = (streams && !several) || traits.long_decode;
        let method = if live { Method::Stream } else { Method::Generate };
        let call = Call { model, method, body, preview: false };
        let mut headers = HeaderMap::new();
        for (name, value) in permit.headers() {
            headers.insert(name.clone(), value.clone());
        }
        if !dropped.is_empty()
            && let Ok(value) = HeaderValue::from_str(&dropped.join(","))
        {
            headers.insert(DROPPED, value);
        }
        headers
            .insert(SERVED_BY, HeaderValue::from_str(site.name()).unwrap_or(HeaderValue::from_static("-")));
        let stamp = Stamp {
            id: self.ids.mint(O::PREFIX),
            created: self.clock.unix_seconds(),
            model: name,
            ids: Arc::clone(&self.ids),
            signatures: Arc::clone(&self.signatures),
        };
        if streams {
            let (events, attempts) = self.events(cx, site, &call, &operation, (&shape, &stamp)).await?;
            headers.insert(ATTEMPTS, attempts.into());
            let machine = Settling { machine: operation.machine(shape, stamp), permit: Some(permit) };
            return Ok(Reply::Stream(Stream { events, machine: Box::new(machine), headers }));
        }
        let mut tries = 0;
        loop {
            tries += 1;
            let (answers, attempts) = self.whole(cx, site, &call).await?;
            match operation.reply(&shape, &stamp, &answers) {
                Ok((body, usage)) => {
                    cx.meter.usage(usage);
                    permit.settle(usage.total());
                    headers.insert(ATTEMPTS, (attempts + tries - 1).into());
                    return Ok(Reply::Whole { body, headers });
                }
                // An empty or malformed answer: the model deserves one more chance, and nothing was sent yet.
                Err(error) if error.retries() == Retry::Soon && tries < 2 => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The upstream's events, the first of them looked at: an answer that is over before it said anything is
    /// still an HTTP error, and deserves one more chance.
    async fn events<O: Operation>(
        &self,
        cx: &Ctx,
        site: &Site,
        call: &Call,
        operation: &O,
        (shape, stamp): (&O::Shape, &Stamp),
    ) -> Result<(Box<dyn EventSource>, u32)> {
        let mut tries = 0;
        loop {
            tries += 1;
            let answer = self.call(cx, site, call).await?;
            let (mut first, mut inner) = (Vec::new(), None);
            match answer.body {
                AnswerBody::Whole(bytes) => first.push(bytes),
                AnswerBody::Stream(mut events) => {
                    let mut more = true;
                    // Events without a candidate say nothing to the client; what follows decides.
                    while more && first.len() < HELD && !first.iter().any(|event| says(event, "candidates")) {
                        more = events.next(&mut first).await?;
                    }
                    if more {
                        inner = Some(events);
                    }
                }
            }
            match verdict(&first, inner.is_none(), operation, (shape, stamp)) {
                Ok(()) => return Ok((Box::new(Primed { first, inner }), answer.attempts + tries - 1)),
                Err(error) if error.retries() == Retry::Soon && tries < 2 => {}
                Err(error) => return Err(error),
            }
        }
    }

    async fn whole(&self, cx: &Ctx, site: &Site, call: &Call) -> Result<(Vec<Bytes>, u32)> {
        let answer = self.call(cx, site, call).await?;
        match answer.body {
            AnswerBody::Whole(bytes) => Ok((vec![bytes], answer.attempts)),
            AnswerBody::Stream(mut events) => {
                let mut all = Vec::new();
                while events.next(&mut all).await? {}
                Ok((all, answer.attempts))
            }
        }
    }

    /// One call, counted.
    ///
    /// # Errors
    /// As [`crate::upstream::Upstream::call`].
    pub(super) async fn call(&self, cx: &Ctx, site: &Site, call: &Call) -> Result<Answer> {
        let begun = Instant::now();
        let answer = self.upstream.call(site, call).await;
        cx.meter.waited(provider(site), begun.elapsed());
        let code = if answer.is_ok() { "ok" } else { "error" };
        let label = self.labels.get(&call.model).map_or(UNRESOLVED, String::as_str);
        cx.metrics.attempt(site.name(), label, code);
        cx.meter.attempt(site.name(), answer.is_ok().then_some(200));
        answer
    }

    /// The first site of the first route that takes the model; without a route the first of all.
    ///
    /// # Errors
    /// `Internal` for a route that names a site which does not exist.
    pub(super) fn site(&self, model: &str) -> Result<&Site> {
        let named = self
            .routes
            .iter()
            .find(|route| route.models.iter().any(|pattern| pattern.matches(model)))
            .and_then(|route| route.sites.first());
        let mut sites = self.upstream.sites();
        let found = match named {
            Some(name) => sites.find(|site| site.name() == name),
            None => sites.next(),
        };
        found.ok_or_else(|| Error::internal("a route names a site that does not exist"))
    }
}

/// A stream's machine that settles the permit when it goes: at the end, on failure, or when the client leaves.
struct Settling<M: Machine> {
    machine: M,
    permit: Option<Permit>,
}

impl<M: Machine> Machine for Settling<M> {
    fn push(&mut self, event: &[u8], out: &mut BytesMut) -> Result<()> {
        self.machine.push(event, out)
    }
    fn usage(&self) -> Usage {
        self.machine.usage()
    }
    fn finish(&mut self, out: &mut BytesMut) -> Result<Usage> {
        self.machine.finish(out)
    }
}

impl<M: Machine> Drop for Settling<M> {
    fn drop(&mut self) {
        let used = self.machine.usage().total();
        if let Some(permit) = self.permit.take() {
            // Without a word from Google the estimate stands.
            if used > 0 { permit.settle(used) } else { drop(permit) }
        }
    }
}

/// OpenTelemetry's name for a site's kind.
pub(super) fn provider(site: &Site) -> &'static str {
    match site.backend() {
        Backend::GeminiApi => "gcp.gemini",
        Backend::Vertex => "gcp.vertex_ai",
    }
}

fn says(event: &Bytes, word: &str) -> bool {
    memchr::memmem::find(event, word.as_bytes()).is_some()
}

/// Tries the first events on a machine of their own, if they may already be the end.
fn verdict<O: Operation>(
    first: &[Bytes],
    over: bool,
    operation: &O,
    (shape, stamp): (&O::Shape, &Stamp),
) -> Result<()> {
    let ended = over || first.iter().any(|event| says(event, "finishReason"));
    if !ended {
        return Ok(());
    }
    let (mut machine, mut out) = (operation.machine(shape.clone(), stamp.clone()), BytesMut::new());
    for event in first {
        machine.push(event, &mut out)?;
    }
    // Something was said, or more may come: whatever happens next happens inside the stream.
    if out.is_empty() { machine.finish(&mut out).map(|_| ()) } else { Ok(()) }
}

/// A stream whose first events are in hand.
struct Primed {
    first: Vec<Bytes>,
    inner: Option<Events>,
}

impl EventSource for Primed {
    fn poll_next(&mut self, cx: &mut Context<'_>, batch: &mut Vec<Bytes>) -> Poll<Result<bool>> {
        if !self.first.is_empty() {
            batch.append(&mut self.first);
            return Poll::Ready(Ok(self.inner.is_some()));
        }
        match &mut self.inner {
            Some(events) => events.poll_next(cx, batch),
            None => Poll::Ready(Ok(false)),
        }
    }
}
