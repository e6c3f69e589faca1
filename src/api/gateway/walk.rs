//! The one walk of a request to a model: key → model → site → ask → call → reply, for every front alike.
//!
//! What differs between the fronts is an [`Operation`]; what they share, limits and headers and the wait for
//! the first event among it, is here once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use http::header::{HeaderMap, HeaderName, HeaderValue};

use super::adapt::Attempt;
use super::admit::Size;
use super::homes::Homed;
use super::hops::{self, Opened};
use super::{Gateway, patience};
use crate::api::peek::{self, Peek};
use crate::api::{Ctx, EventSource, Reply, Stream};
use crate::error::{Error, Result, Retry};
use crate::telemetry::metrics::UNRESOLVED;
use crate::translate::{Backend, Machine, Media, Signatures, Stamp, Target, Wanted};
use crate::upstream::{Answer, Call, Course, Leg, Method, Repeat, Site, Trip};
use crate::usage::{Tier, Usage};
use crate::wire::Rope;

pub(super) const DROPPED: HeaderName = HeaderName::from_static("x-gemway-dropped-params");
pub(super) const SERVED_BY: HeaderName = HeaderName::from_static("x-gemway-served-by");
pub(super) const ATTEMPTS: HeaderName = HeaderName::from_static("x-gemway-attempts");

/// The model that answered, where it is not the one asked for.
pub(super) const MODEL: HeaderName = HeaderName::from_static("x-gemway-model");

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
    /// The reply's id and time, where they are known before.
    fn named(&self) -> Option<(String, u64)> {
        None
    }
    /// A number that the requests of one conversation share, and no others.
    fn session(&self) -> Option<u64> {
        None
    }
    /// The most tokens that the client wants in answer, where it said so.
    fn most(&self) -> Option<u64> {
        None
    }
    /// The request as one target is asked. Called again when another target must be asked instead.
    ///
    /// # Errors
    /// When the request asks for what cannot be had there; names the field.
    fn ask(&mut self, target: &Target<'_>, signatures: &dyn Signatures) -> Result<Asked<Self::Shape>>;
    /// Media that what was asked last still waits for.
    fn wanted(&self) -> &[Wanted] {
        &[]
    }
    /// Takes what was fetched, by address, before it is asked again.
    fn given(&mut self, _media: BTreeMap<String, Media>) {}
    /// How many candidates the client wants.
    fn choices(&self) -> u64 {
        1
    }
    /// How many requests with one candidate each make the answer.
    fn branches(&self, _: &Self::Shape) -> usize {
        1
    }
    /// The tier that serves the request is known, in Google's words.
    fn served(&self, _: &mut Self::Shape, _: &str) {}
    /// A translator for the events of a streamed reply.
    fn machine(&self, shape: Self::Shape, stamp: Stamp) -> Self::Machine;
    /// A translator that only tries the first events: nobody hears of its end.
    fn trial(&self, shape: Self::Shape, stamp: Stamp) -> Self::Machine {
        self.machine(shape, stamp)
    }
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
    /// Walks one request through: from site to site until one serves, as long as nothing was sent to the client.
    ///
    /// # Errors
    /// The operation's own, the limiter's and the upstream's.
    pub(super) async fn walk<O: Operation>(&self, cx: &Ctx, operation: O) -> Result<Reply> {
        self.walk_with(cx, operation, false).await
    }

    /// [`Gateway::walk`] for a request that may have been admitted already.
    ///
    /// # Errors
    /// As there.
    pub(super) async fn walk_with<O: Operation>(
        &self,
        cx: &Ctx,
        mut operation: O,
        mut admitted: bool,
    ) -> Result<Reply> {
        let name = operation.model().to_owned();
        let model = self.dispatched(&name)?;
        cx.meter.resolved(&name, self.labels.get(&model).map(String::as_str), &model);
        cx.tenant.may_use(&model)?;
        let streams = operation.streams();
        cx.meter.note(|entry| entry.stream = streams);
        let mut wish = patience::read(&cx.headers, &model, streams)?;
        if self.upstream.spreads(&model) {
            wish.session = operation.session();
        }
        let mut trip = self.upstream.trip(&wish);
        let signatures = self.signatures.view(cx.tenant.name());
        let named = operation.named();
        let (id, created) = named.unwrap_or_else(|| (self.ids.mint(O::PREFIX), self.clock.unix_seconds()));
        let stamp = Stamp { id, created, model: name, ids: Arc::clone(&self.ids), signatures };
        // What was answered in vain is billed too, and told with the rest.
        let mut vain: Option<Box<Usage>> = None;
        let mut settled = !trip.has_choice();
        loop {
            let paused = Instant::now();
            let leg = trip.next().await?;
            if trip.sent() > 1 {
                // The pause before another try is Google's doing, not ours.
                cx.meter.waited(provider(leg.site()), paused);
            }
            let homed = Arc::new(Homed::new(&stamp.signatures, leg.site().group()));
            let asked = match self.ask(cx, &leg, &mut operation, &*homed) {
                Ok(asked) => asked,
                // What was asked for suits the model it was asked of, so its failure is what the client is told.
                Err(_unfit) if trip.moved() => {
                    trip.pass_over(leg);
                    continue;
                }
                Err(error) => return Err(error),
            };
            if !settled {
                settled = true;
                if let Some(home) = homed.foreign()
                    && trip.prefer(&home)
                {
                    // The turn began elsewhere; it goes on there if it can.
                    trip.give_back(leg);
                    continue;
                }
            }
            let stamp = Stamp { signatures: homed, ..stamp.clone() };
            if !admitted {
                let sent = operation.branches(&asked.shape) as u64;
                let size = Size::of(&asked.body).weighed(cx, &asked.body);
                let size = size.times(sent, operation.choices()).bounded(operation.most());
                self.admit(cx, leg.model(), size).await?;
                admitted = true;
            }
            let asked = self.supplied(cx, &leg, &mut operation, asked, &stamp).await?;
            let Attempt { heard, shape, dropped } =
                match self.attempt(cx, &leg, &mut operation, asked, (&stamp, vain.as_deref())).await {
                    Ok(attempt) => attempt,
                    Err(Unheard::Call(error)) => {
                        trip.failed(leg, error)?;
                        continue;
                    }
                    // An empty or malformed answer: the model deserves one more chance, and nothing was sent yet.
                    Err(Unheard::Answer(error)) => {
                        if vain.is_some() || error.retries() != Retry::Soon || wish.repeat == Repeat::Never {
                            return Err(error.attempts(trip.sent()));
                        }
                        vain = Some(Box::new(cx.meter.entry().usage));
                        trip.failed(leg, error)?;
                        continue;
                    }
                };
            let mut headers = headers(&trip, &leg, &dropped);
            // The one that serves is the one that is paid.
            cx.meter.dispatched(leg.model());
            match heard {
                Heard::Events((mut events, again)) => {
                    headers.insert(ATTEMPTS, (trip.sent() + again).into());
                    events.course = Some(trip.began(leg));
                    let machine = operation.machine(shape, stamp);
                    return Ok(Reply::Stream(Stream {
                        events: Box::new(events),
                        machine: Box::new(machine),
                        headers,
                        closing: None,
                    }));
                }
                Heard::Reply((Told { body, usage, lost }, again)) => {
                    trip.worked(leg);
                    headers.insert(ATTEMPTS, (trip.sent() + again).into());
                    cx.meter.usage(with_lost(usage, lost));
                    return Ok(Reply::Whole { body, headers });
                }
            }
        }
    }

    /// Asks one leg, and waits until it is known whether there will be an answer.
    ///
    /// # Errors
    /// When there is none, or one that says nothing.
    pub(super) async fn hear<O: Operation>(
        &self,
        cx: &Ctx,
        leg: &Leg<'_>,
        operation: &O,
        asked: &mut Asked<O::Shape>,
        (stamp, vain): (&Stamp, Option<&Usage>),
    ) -> Result<Heard, Unheard> {
        // Families with an output cap per request are always streamed upstream.
        let streams = operation.streams();
        let live = (streams && !asked.several) || self.catalog.traits(leg.model()).long_decode;
        let method = if live { Method::Stream } else { Method::Generate };
        let call = Call {
            model: leg.model().to_owned(),
            method,
            body: std::mem::take(&mut asked.body),
            preview: false,
            trace: cx.meter.traceparent(),
        };
        let branches = operation.branches(&asked.shape);
        let Opened { mut source, again, lost, tier } =
            self.begin(cx, leg, &call, branches).await.map_err(Unheard::Call)?;
        if let Some(tier) = tier {
            operation.served(&mut asked.shape, &tier);
        }
        if let Some(vain) = vain {
            source = Box::new(hops::After::new(source, vain));
        }
        let (mut first, mut more) = (Vec::new(), true);
        // Events without a candidate say nothing to the client; what follows decides.
        while more
            && (!streams || first.len() < HELD && !first.iter().any(|event| says(event, r#""candidates""#)))
        {
            more = hops::next(&mut *source, &mut first).await.map_err(Unheard::Call)?;
        }
        if streams {
            let inner = more.then_some(source);
            verdict(&first, inner.is_none(), operation, (&asked.shape, stamp))
                .map_err(|error| billed(cx, &first, error))?;
            return Ok(Heard::Events((Primed { first, inner, course: None }, again)));
        }
        let (body, usage) =
            operation.reply(&asked.shape, stamp, &first).map_err(|error| billed(cx, &first, error))?;
        Ok(Heard::Reply((Told { body, usage, lost }, again)))
    }

    /// The call of one leg, counted. `hedged`: it may be made twice where the route allows that.
    ///
    /// # Errors
    /// As [`crate::upstream::Upstream::call`].
    pub(super) async fn call_on(&self, cx: &Ctx, leg: &Leg<'_>, call: &Call, hedged: bool) -> Result<Answer> {
        let begun = Instant::now();
        let answer = if hedged {
            self.upstream.call_hedged(leg, call).await
        } else {
            self.upstream.call_on(leg, call).await
        };
        cx.meter.waited(provider(leg.site()), begun);
        let label = self.labels.get(&call.model).map_or(UNRESOLVED, String::as_str);
        cx.called(leg.site().name(), label, answer.as_ref().map(|_| 200));
        if let Ok(answer) = &answer {
            for _ in 0..answer.lost {
                cx.metrics.attempt(leg.site().name(), label, None, Some("given_up"));
            }
            cx.meter.served(answer.service_tier.as_deref().map(Tier::from_google));
        }
        answer
    }

    /// One call without translation (lists, embeddings, counts), from site to site until one serves.
    ///
    /// `call` builds what one site is asked.
    ///
    /// # Errors
    /// As [`crate::upstream::Upstream::call`], and what `call` refuses.
    pub(super) async fn reach(
        &self,
        cx: &Ctx,
        model: &str,
        mut call: impl FnMut(&Leg<'_>) -> Result<Call> + Send,
    ) -> Result<(Answer, u32)> {
        let mut trip = self.upstream.trip(&patience::read(&cx.headers, model, false)?);
        loop {
            let leg = trip.next().await?;
            let asked = call(&leg)?;
            match self.call_on(cx, &leg, &asked, true).await {
                Ok(answer) => {
                    let sent = trip.sent() + answer.attempts.saturating_sub(1);
                    trip.worked(leg);
                    return Ok((answer, sent));
                }
                Err(error) => trip.failed(leg, error)?,
            }
        }
    }

    /// The first site of the first route that takes the model; without a route the first of all.
    ///
    /// # Errors
    /// `Internal` where there is none, which the configuration makes impossible.
    pub(super) fn site(&self, model: &str) -> Result<&Site> {
        self.upstream.first(model).ok_or_else(|| Error::internal("there is no site"))
    }
}

/// What the client is told beside the reply.
fn headers(trip: &Trip<'_>, leg: &Leg<'_>, dropped: &[String]) -> HeaderMap {
    // With room for what is added on the way out.
    let mut headers = HeaderMap::with_capacity(16);
    let mut tell = |name: HeaderName, text: &str| {
        headers.insert(name, HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static("-")))
    };
    if !dropped.is_empty() {
        tell(DROPPED, &dropped.join(","));
    }
    tell(SERVED_BY, leg.site().name());
    if trip.moved() {
        tell(MODEL, leg.model());
    }
    headers
}

/// What came of one leg, and how many calls it took beyond one.
pub(super) enum Heard {
    Events((Primed, u32)),
    Reply((Told, u32)),
}

/// A whole reply.
pub(super) struct Told {
    body: Bytes,
    usage: Usage,
    /// Calls that were given up for the one which brought it.
    lost: u32,
}

/// What is booked where calls were given up on the way: they may have used as much, and nobody will say.
pub(super) fn with_lost(usage: Usage, lost: u32) -> Usage {
    let mut all = usage;
    for _ in 0..lost {
        all.add(&Usage { estimated: true, ..usage });
    }
    all
}

impl Heard {
    /// It took so many calls more.
    pub(super) fn again(&mut self, calls: u32) {
        match self {
            Self::Events((_, again)) | Self::Reply((_, again)) => *again += calls,
        }
    }
}

/// What did not.
pub(super) enum Unheard {
    /// There was no answer.
    Call(Error),
    /// There was one, and it says nothing.
    Answer(Error),
}

/// An answer that says nothing to the client has its price all the same.
fn billed(cx: &Ctx, events: &[Bytes], error: Error) -> Unheard {
    let mut counts = Peek::new(peek::Told::UsageMetadata);
    for event in events {
        counts.feed(event);
    }
    if let Some(usage) = counts.usage() {
        cx.meter.usage(usage);
    }
    Unheard::Answer(error)
}

/// OpenTelemetry's name for a site's kind.
pub(super) fn provider(site: &Site) -> &'static str {
    match site.backend() {
        Backend::GeminiApi => "gcp.gemini",
        Backend::Vertex => "gcp.vertex_ai",
    }
}

/// Whether an event has this member, its name with the quotes: `candidatesTokenCount` is no candidate.
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
    let ended = over || first.iter().any(|event| says(event, r#""finishReason""#));
    if !ended {
        return Ok(());
    }
    let (mut machine, mut out) = (operation.trial(shape.clone(), stamp.clone()), BytesMut::new());
    for event in first {
        machine.push(event, &mut out)?;
    }
    // Something was said, or more may come: whatever happens next happens inside the stream.
    if out.is_empty() { machine.finish(&mut out).map(|_| ()) } else { Ok(()) }
}

/// A stream whose first events are in hand.
pub(super) struct Primed {
    first: Vec<Bytes>,
    inner: Option<Box<dyn EventSource>>,
    /// The call's place at its site, given back with the stream.
    course: Option<Course>,
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

    fn more(&self) -> bool {
        self.inner.as_ref().is_some_and(|events| events.more())
    }

    fn ended(&mut self, failure: Option<&Error>) {
        if let Some(course) = &mut self.course {
            course.ended(failure);
        }
    }
}
