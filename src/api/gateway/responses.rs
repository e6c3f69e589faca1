//! Responses on the walk.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use http::Method;
use http::header::{HeaderMap, HeaderValue, UPGRADE};
use parking_lot::Mutex;

use super::Gateway;
use super::admit::Size;
use super::keeping::{Prepared, Slot};
use super::live::Live;
use super::opening;
use super::walk::{ATTEMPTS, Asked, DROPPED, Operation};
use crate::api::{Ctx, Incoming, Reply};
use crate::catalog::Traits;
use crate::clock::Clock;
use crate::error::{Error, Kind, Origin, Result};
use crate::openai::responses::Request;
use crate::translate::chat::fill;
use crate::translate::responses::count::{self, Question};
use crate::translate::responses::{
    self, Ask, Done, History, ResponsesMachine, Shape, Whole, compact, request,
};
use crate::translate::{Media, Signatures, Stamp, Target, Wanted};
use crate::upstream::{self, AnswerBody, Call};
use crate::usage::Usage;
use crate::wire;

impl Gateway {
    /// `POST /v1/responses`.
    pub(super) async fn responses(&self, cx: Ctx, incoming: Incoming) -> Result<Reply> {
        if incoming.method == Method::GET {
            return Err(no_socket(&cx));
        }
        let body = incoming.json(&cx).await?;
        let asked = request::parse(&body)?;
        let prepared = self.prepare(&cx, &asked).await?;
        if prepared.keeping.background {
            return self.in_background(cx, &body, asked, prepared).await;
        }
        let Prepared { history, keeping } = prepared;
        let (slot, keeping) = (Slot::default(), Arc::new(keeping));
        let live = Live::new(&self.state, &keeping.tenant, keeping.created);
        let done = slot.done_or_left(&self.state, &keeping, &live);
        let mut operation = Responses::new(&cx, &body, asked, history, Some(done))?;
        operation.store = keeping.stored && self.state.kept().is_some();
        operation.live = operation.store.then(|| Arc::clone(&live));
        let state = Arc::clone(&self.state);
        Ok(match self.walk(&cx, operation).await? {
            Reply::Stream(mut stream) => {
                // Kept before its end is told, so that whoever hears of the end finds it.
                stream.closing = Some(Box::new(move || {
                    Box::pin(async move {
                        let kept = slot.take().and_then(|finished| state.keep_apart(keeping, finished, live));
                        if let Some(kept) = kept {
                            // Its failure is in the log.
                            let _ = kept.await;
                        }
                    })
                }));
                Reply::Stream(stream)
            }
            reply @ (Reply::Whole { .. } | Reply::Raw(_)) => {
                if let Some(finished) = slot.take() {
                    state.keep_finished(&keeping, finished).await;
                }
                reply
            }
        })
    }
}

impl Gateway {
    /// `POST /v1/responses/compact`.
    pub(super) async fn compact(&self, cx: Ctx, incoming: Incoming) -> Result<Reply> {
        let body = incoming.json(&cx).await?;
        let asked = request::parse(&body)?;
        let Prepared { history, .. } = self.prepare(&cx, &asked).await?;
        let operation = Responses::new(&cx, &body, asked, history, None)?;
        self.walk(&cx, Compact(operation)).await
    }

    /// `POST /v1/responses/input_tokens`.
    pub(super) async fn input_tokens(&self, cx: Ctx, incoming: Incoming) -> Result<Reply> {
        let body = incoming.json(&cx).await?;
        let asked = request::parse(&body)?;
        let Prepared { history, .. } = self.prepare(&cx, &asked).await?;
        let mut operation = Responses::new(&cx, &body, asked, history, None)?;
        self.count(&cx, &mut operation).await
    }

    /// Asks Google how many tokens a request would send: free, and without any answer.
    async fn count(&self, cx: &Ctx, operation: &mut Responses<'_>) -> Result<Reply> {
        let model = self.dispatched(&operation.model)?;
        cx.meter.model(&operation.model, self.labels.get(&model).map(String::as_str));
        cx.tenant.may_use(&model)?;
        self.admit(cx, &model, Size::FREE).await?;
        let signatures = self.signatures.view(cx.tenant.name());
        // What ends with an answer cannot be asked, but counted.
        let traits = |model: &str| Traits { prefill: true, ..self.catalog.traits(model).clone() };
        let known = traits(&model);
        let backend = self.site(&model)?.backend();
        let target = Target { model: &model, traits: &known, backend, strict: self.strict };
        // Media count as what they are, not as their address.
        operation.ask(&target, &*signatures)?;
        self.fetches(&operation.wanted)?;
        let media = self.fetched(&operation.wanted).await?;
        operation.given(media);
        let mut dropped = Vec::new();
        let (answer, attempts) = self
            .reach(cx, &model, |leg| {
                let model = leg.model();
                cx.tenant.may_use(model)?;
                let (known, backend) = (traits(model), leg.site().backend());
                let target = Target { model, traits: &known, backend, strict: self.strict };
                let asked = request::parse(operation.body)?;
                let mut ask = request::ask(asked, &operation.history, &target, &*signatures)?;
                self.fetches(&fill(&mut ask.request, &operation.media))?;
                let body = wire::encode(&Question::new(&ask.request, &target), operation.body);
                dropped = ask.dropped;
                let (model, method) = (model.to_owned(), upstream::Method::CountTokens);
                Ok(Call {
                    model,
                    method,
                    body: body.map_err(Error::internal)?,
                    preview: false,
                    trace: cx.meter.traceparent(),
                })
            })
            .await?;
        let AnswerBody::Whole(answer) = answer.body else {
            return Err(Error::internal("a count came as a stream"));
        };
        let body = count::reply(&answer)?;
        let mut headers = HeaderMap::new();
        headers.insert(ATTEMPTS, attempts.into());
        if let Ok(value) = HeaderValue::from_str(&dropped.join(","))
            && !value.is_empty()
        {
            headers.insert(DROPPED, value);
        }
        Ok(Reply::Whole { body: body.into(), headers })
    }
}

/// Clients that try a WebSocket first fall back to POST at once when they are told so in this way.
fn no_socket(cx: &Ctx) -> Error {
    let wanted = cx.headers.get(UPGRADE).is_some();
    let kind = if wanted { Kind::UpgradeRequired } else { Kind::MethodNotAllowed };
    let message = "Responses are made with POST; the WebSocket form is not available here.";
    Error::new(kind, Origin::Client, message)
}

/// One response being made.
pub(super) struct Responses<'b> {
    body: &'b Bytes,
    asked: Request<'b>,
    /// What stood before; shared, for what is asked borrows from it.
    history: Arc<History>,
    model: String,
    /// Whether the response will be kept for its client, as it says itself.
    pub(super) store: bool,
    /// Its id and time, where they are known before.
    pub(super) named: Option<(String, u64)>,
    /// Where it can be found before its end, if it is kept.
    live: Option<Arc<Live>>,
    /// Who hears of the end.
    done: Mutex<Option<Done>>,
    /// Media that the request still waits for.
    wanted: Vec<Wanted>,
    media: BTreeMap<String, Media>,
}

impl<'b> Responses<'b> {
    /// A response to `asked`, which was read from `body`.
    ///
    /// # Errors
    /// When no model is named.
    pub(super) fn new(
        cx: &Ctx,
        body: &'b Bytes,
        asked: Request<'b>,
        history: Arc<History>,
        done: Option<Done>,
    ) -> Result<Self> {
        let model = match &cx.deployment {
            Some(deployment) if asked.model.is_empty() => deployment.to_string(),
            _ => asked.model.to_string(),
        };
        if model.is_empty() {
            let error = Error::invalid("model", "Missing required parameter: 'model'.");
            return Err(error.code("missing_required_parameter"));
        }
        let store = asked.store != Some(false);
        let (wanted, media) = (Vec::new(), BTreeMap::new());
        let (named, live, done) = (None, None, Mutex::new(done));
        Ok(Self { body, asked, history, model, store, named, live, done, wanted, media })
    }
}

impl Operation for Responses<'_> {
    type Shape = Shape;
    type Machine = ResponsesMachine;
    const PREFIX: &'static str = "resp_";

    fn model(&self) -> &str {
        &self.model
    }

    fn streams(&self) -> bool {
        self.asked.stream
    }

    fn named(&self) -> Option<(String, u64)> {
        self.named.clone()
    }

    fn session(&self) -> Option<u64> {
        if let Some(key) = &self.asked.prompt_cache_key {
            return Some(upstream::hash(key.decode().as_bytes()));
        }
        if let Some(conversation) = self.asked.conversation {
            return Some(upstream::hash(opening::id(conversation).as_bytes()));
        }
        opening::of(&self.history.items, self.asked.input)
    }

    fn most(&self) -> Option<u64> {
        self.asked.max_output_tokens.and_then(|most| u64::try_from(most).ok())
    }

    fn ask(&mut self, target: &Target<'_>, signatures: &dyn Signatures) -> Result<Asked<Shape>> {
        // Read again, since what is asked takes the request apart; nothing is copied by that.
        let mut asked = request::parse(self.body)?;
        asked.store = Some(self.store);
        let Ask { mut request, mut shape, dropped } = request::ask(asked, &self.history, target, signatures)?;
        shape.clock = Some(Clock::System);
        self.wanted = fill(&mut request, &self.media);
        let body = wire::encode(&request, self.body).map_err(Error::internal)?;
        Ok(Asked { body, shape, dropped, several: false })
    }

    fn wanted(&self) -> &[Wanted] {
        &self.wanted
    }

    fn given(&mut self, media: BTreeMap<String, Media>) {
        self.media.extend(media);
    }

    fn machine(&self, shape: Shape, stamp: Stamp) -> ResponsesMachine {
        let id = stamp.id.clone();
        let machine = ResponsesMachine::new(shape, stamp).telling(self.done.lock().take());
        if let Some(live) = &self.live
            && let Ok(json) = machine.standing()
        {
            live.begin(&id, json);
        }
        machine
    }

    fn trial(&self, shape: Shape, stamp: Stamp) -> ResponsesMachine {
        ResponsesMachine::new(shape, stamp)
    }

    fn reply(&self, shape: &Shape, stamp: &Stamp, answers: &[Bytes]) -> Result<(Bytes, Usage)> {
        let Whole { finished, usage } = responses::reply(shape, stamp, answers)?;
        let body = finished.response.clone();
        if let Some(done) = self.done.lock().take() {
            done(finished);
        }
        Ok((body, usage))
    }
}

/// A conversation being summed up.
struct Compact<'b>(Responses<'b>);

impl Operation for Compact<'_> {
    type Shape = Shape;
    type Machine = ResponsesMachine;
    const PREFIX: &'static str = "resp_";

    fn model(&self) -> &str {
        self.0.model()
    }

    fn streams(&self) -> bool {
        false
    }

    fn session(&self) -> Option<u64> {
        self.0.session()
    }

    fn most(&self) -> Option<u64> {
        self.0.most()
    }

    fn ask(&mut self, target: &Target<'_>, signatures: &dyn Signatures) -> Result<Asked<Shape>> {
        let asked = request::parse(self.0.body)?;
        let Ask { mut request, shape, dropped } = compact::ask(asked, &self.0.history, target, signatures)?;
        self.0.wanted = fill(&mut request, &self.0.media);
        let body = wire::encode(&request, self.0.body).map_err(Error::internal)?;
        Ok(Asked { body, shape, dropped, several: false })
    }

    fn wanted(&self) -> &[Wanted] {
        self.0.wanted()
    }

    fn given(&mut self, media: BTreeMap<String, Media>) {
        self.0.given(media);
    }

    fn machine(&self, shape: Shape, stamp: Stamp) -> ResponsesMachine {
        self.0.trial(shape, stamp)
    }

    fn reply(&self, shape: &Shape, stamp: &Stamp, answers: &[Bytes]) -> Result<(Bytes, Usage)> {
        compact::reply(shape, stamp, answers)
    }
}
