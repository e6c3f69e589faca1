//! Legacy completions on the walk: each choice is a walk of its own, and several are put together here.

use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use http::HeaderMap;
use parking_lot::Mutex;

use super::Gateway;
use super::admit::Size;
use super::walk::{ATTEMPTS, Asked, Operation};
use crate::api::{Ctx, EventSource, Incoming, Reply, Stream};
use crate::error::{Error, Result};
use crate::openai::completions::Request;
use crate::translate::completions::{self, CompletionMachine, Setup, Shape};
use crate::translate::{Machine, Signatures, Stamp, Target, tokens};
use crate::usage::Usage;
use crate::wire;

/// Choices of one request that are asked for at once.
const AT_ONCE: usize = 8;

impl Gateway {
    /// `POST /v1/completions`.
    pub(super) async fn completions(&self, cx: Ctx, incoming: Incoming) -> Result<Reply> {
        let body = incoming.json(&cx).await?;
        let request = completions::parse(&body)?;
        let deployment = || cx.deployment.as_deref().map(str::to_owned);
        let model = request.model.as_deref().map(str::to_owned).or_else(deployment).ok_or_else(|| {
            Error::invalid("model", "Missing required parameter: 'model'.").code("missing_required_parameter")
        })?;
        let encoding = completions::encoding(&request, &model)?;
        if request.prompt.is_some_and(tokens::are_tokens) {
            let loading = tokio::task::spawn_blocking(move || encoding.load());
            loading.await.map_err(Error::internal)?;
        }
        let setup = completions::setup(&request, &model)?;
        let stamp = Stamp {
            id: self.ids.mint(Choice::PREFIX),
            created: self.clock.unix_seconds(),
            model: model.clone(),
            ids: Arc::clone(&self.ids),
            signatures: self.signatures.view(cx.tenant.name()),
        };
        let used = Mutex::new(Usage::default());
        let choice = |number| Choice {
            body: &body,
            request: &request,
            setup: &setup,
            model: &model,
            number,
            stamp: &stamp,
            used: &used,
        };
        let count = setup.prompts.len() * setup.each;
        if count == 1 {
            return self.walk(&cx, choice(0)).await;
        }
        // All choices are one request of the key's.
        let dispatched = self.dispatched(&model)?;
        cx.tenant.may_use(&dispatched)?;
        let input = (body.len() * setup.each) as u64 / 4;
        let most = choice(0).most().map(|most| most.saturating_mul(count as u64));
        let size = Size::about(input).times(1, count as u64).bounded(most);
        self.admit(&cx, &dispatched, size).await?;
        let walks = stream::iter(0..count).map(|number| self.walk_with(&cx, choice(number), true));
        let replies: Result<Vec<Reply>> = walks.buffered(AT_ONCE).try_collect().await;
        let usage = *used.lock();
        cx.meter.usage(usage);
        let replies = replies?;
        if setup.stream {
            return merged(replies, stamp, setup.include_usage);
        }
        let (mut choices, mut headers) = (Vec::with_capacity(count), Together::default());
        for reply in replies {
            let Reply::Whole { body, headers: next } = reply else { return Err(odd()) };
            choices.push(body);
            headers.add(next);
        }
        let body = completions::whole(&stamp, &choices, &usage)?;
        Ok(Reply::Whole { body, headers: headers.done() })
    }
}

fn odd() -> Error {
    Error::internal("a choice came in another form than it was asked for")
}

/// One choice of one prompt.
struct Choice<'b> {
    body: &'b Bytes,
    request: &'b Request<'b>,
    setup: &'b Setup<'b>,
    model: &'b str,
    number: usize,
    /// What all choices of the reply share.
    stamp: &'b Stamp,
    used: &'b Mutex<Usage>,
}

impl Operation for Choice<'_> {
    type Shape = Shape;
    type Machine = CompletionMachine;
    const PREFIX: &'static str = "cmpl-";

    fn model(&self) -> &str {
        self.model
    }

    fn streams(&self) -> bool {
        self.setup.stream
    }

    fn most(&self) -> Option<u64> {
        self.request.max_tokens.and_then(|most| u64::try_from(most).ok())
    }

    fn ask(&mut self, target: &Target<'_>, signatures: &dyn Signatures) -> Result<Asked<Shape>> {
        let (ask, shape) = completions::ask(self.request, self.setup, self.number, target, signatures)?;
        let body = wire::encode(&ask.request, self.body).map_err(Error::internal)?;
        Ok(Asked { body, shape, dropped: ask.dropped, several: false })
    }

    fn machine(&self, shape: Shape, _: Stamp) -> CompletionMachine {
        CompletionMachine::new(shape, self.stamp.clone())
    }

    fn reply(&self, shape: &Shape, _: &Stamp, answers: &[Bytes]) -> Result<(Bytes, Usage)> {
        let (reply, usage) = completions::reply(shape, self.stamp, answers)?;
        // Each walk tells the meter its own counts; the last word, the sum, is the front's.
        self.used.lock().add(&usage);
        Ok((reply, usage))
    }
}

/// The headers of several replies as one's: the first one's, and all attempts.
#[derive(Default)]
struct Together {
    headers: Option<HeaderMap>,
    attempts: u32,
}

impl Together {
    fn add(&mut self, headers: HeaderMap) {
        let attempts = headers.get(ATTEMPTS).and_then(|value| value.to_str().ok()?.parse::<u32>().ok());
        self.attempts = self.attempts.saturating_add(attempts.unwrap_or(0));
        self.headers.get_or_insert(headers);
    }

    fn done(self) -> HeaderMap {
        let mut headers = self.headers.unwrap_or_default();
        headers.insert(ATTEMPTS, self.attempts.into());
        headers
    }
}

/// Several streams as one: whatever comes of any of them leaves at once.
fn merged(replies: Vec<Reply>, stamp: Stamp, include_usage: bool) -> Result<Reply> {
    let mut headers = Together::default();
    let mut streams = Vec::with_capacity(replies.len());
    for reply in replies {
        // Nothing is kept of completions, so nothing has to be waited for at the end.
        let Reply::Stream(Stream { events, machine, headers: next, closing: _ }) = reply else {
            return Err(odd());
        };
        headers.add(next);
        streams.push(Live { events, machine: Some(machine), usage: Usage::default() });
    }
    let used = Arc::default();
    let events = Merged { streams, next: 0, batch: Vec::new(), used: Arc::clone(&used) };
    let machine = Joint { stamp, include_usage, used };
    Ok(Reply::Stream(Stream {
        events: Box::new(events),
        machine: Box::new(machine),
        headers: headers.done(),
        closing: None,
    }))
}

struct Live {
    events: Box<dyn EventSource>,
    /// None once the stream has ended.
    machine: Option<Box<dyn Machine>>,
    usage: Usage,
}

struct Merged {
    streams: Vec<Live>,
    /// Who is looked at first the next time, so that nobody is kept waiting.
    next: usize,
    batch: Vec<Bytes>,
    used: Arc<Mutex<Counted>>,
}

/// What Google has counted of all choices, and what of them it has not, about.
type Counted = (Usage, u64);

impl Live {
    /// Looks once at what came, and appends it as the client will see it. Whether there was anything.
    fn step(&mut self, cx: &mut Context<'_>, batch: &mut Vec<Bytes>, out: &mut BytesMut) -> Result<bool> {
        let step = self.look(cx, batch, out);
        if let Err(error) = &step {
            self.events.ended(Some(error));
        }
        step
    }

    fn look(&mut self, cx: &mut Context<'_>, batch: &mut Vec<Bytes>, out: &mut BytesMut) -> Result<bool> {
        let Some(machine) = &mut self.machine else { return Ok(false) };
        let polled = self.events.poll_next(cx, batch);
        for event in batch.drain(..) {
            machine.push(&event, out)?;
        }
        self.usage = machine.usage();
        match polled {
            Poll::Pending => Ok(false),
            Poll::Ready(Ok(true)) => Ok(true),
            Poll::Ready(Ok(false)) => {
                machine.finish(out)?;
                self.machine = None;
                self.events.ended(None);
                Ok(true)
            }
            Poll::Ready(Err(error)) => Err(error),
        }
    }
}

impl EventSource for Merged {
    fn poll_next(&mut self, cx: &mut Context<'_>, batch: &mut Vec<Bytes>) -> Poll<Result<bool>> {
        let (mut out, mut moved) = (BytesMut::new(), false);
        let count = self.streams.len();
        for at in 0..count {
            let Some(live) = self.streams.get_mut((self.next + at) % count) else { continue };
            match live.step(cx, &mut self.batch, &mut out) {
                Ok(step) => moved |= step,
                Err(error) => {
                    batch.push(out.freeze());
                    return Poll::Ready(Err(error));
                }
            }
        }
        self.next = (self.next + 1) % count.max(1);
        let mut used = Usage::default();
        for live in &self.streams {
            used.add(&live.usage);
        }
        let left = self.streams.iter().filter_map(|live| live.machine.as_ref());
        *self.used.lock() = (used, left.map(|machine| machine.uncounted()).sum());
        let over = self.streams.iter().all(|live| live.machine.is_none());
        if !out.is_empty() {
            moved = true;
            batch.push(out.freeze());
        }
        if over {
            Poll::Ready(Ok(false))
        } else if moved {
            Poll::Ready(Ok(true))
        } else {
            Poll::Pending
        }
    }

    fn more(&self) -> bool {
        self.streams.iter().any(|live| live.machine.is_some() && live.events.more())
    }
}

/// The machine behind [`Merged`], whose events are the client's already.
struct Joint {
    stamp: Stamp,
    include_usage: bool,
    used: Arc<Mutex<Counted>>,
}

impl Machine for Joint {
    fn push(&mut self, event: &[u8], out: &mut BytesMut) -> Result<()> {
        out.extend_from_slice(event);
        Ok(())
    }

    fn usage(&self) -> Usage {
        self.used.lock().0
    }

    fn uncounted(&self) -> u64 {
        self.used.lock().1
    }

    fn finish(&mut self, out: &mut BytesMut) -> Result<Usage> {
        let usage = self.usage();
        completions::closing(&self.stamp, self.include_usage, &usage, out)?;
        Ok(usage)
    }
}
