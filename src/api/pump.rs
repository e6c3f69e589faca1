//! The only way a streamed reply leaves.
//!
//! Pull, never push: the client's connection asks for a frame, the pump asks the source for what one read has
//! brought, the machine turns it into the client's events, and all of it leaves as one frame. Nothing waits for
//! time to pass, and nothing is read that nobody asked for.
//!
//! What one read has brought does not come at once: the connection to Google is a task of its own, which hands over
//! one piece of it, and the next when it has run again. So as long as there is a rest of that read, the pump steps
//! back a few times before it lets go of a frame, and what arrived together leaves together, in one write. Dropping
//! the pump drops the source (which cancels the call to Google) and the meter (which settles).

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use futures_util::future::BoxFuture;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue};
use http::{HeaderMap, Response};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;
use tokio_util::sync::CancellationToken;

use crate::api::heartbeat::{self, Alarm};
use crate::api::render;
use crate::body::{Body, BoxError};
use crate::error::{Error, Kind, Origin, Result, Retry};
use crate::meter::{Meter, Outcome};
use crate::telemetry::metrics::Streaming;
use crate::translate::Machine;
use crate::usage::Usage;
use crate::wake::{Calm, Word};

/// How often the pump steps back for the upstream's task; a handing over takes two turns, sometimes three.
const TURNS: u8 = 3;
/// Bytes that leave without another look.
const ENOUGH: usize = 32 << 10;

/// Where a stream's upstream events come from.
pub trait EventSource: Send {
    /// Appends the events that are ready to `batch`: all that one read brought, and no more.
    ///
    /// `Ok(true)`: there may be more later. `Ok(false)`: the upstream has ended cleanly; events given in the
    /// same call still count. An error: it broke; events given in the same call still count.
    fn poll_next(&mut self, cx: &mut Context<'_>, batch: &mut Vec<Bytes>) -> Poll<Result<bool>>;

    /// Whether more of what was read is on its way to here. Where that is not known, it may be.
    fn more(&self) -> bool {
        true
    }

    /// What its events came to when they were translated: a whole answer, or this failure. Not said where the
    /// client left before.
    fn ended(&mut self, _failure: Option<&Error>) {}
}

/// A streamed reply, ready to go: the first upstream event is in hand, or near.
pub struct Stream {
    /// The upstream.
    pub events: Box<dyn EventSource>,
    /// The translator.
    pub machine: Box<dyn Machine>,
    /// Headers of the engine's (`x-gemway-…`).
    pub headers: HeaderMap,
    /// What must have happened before the last events leave; begun when they are written.
    pub closing: Option<Closing>,
}

/// Something to be waited for.
pub type Closing = Box<dyn FnOnce() -> BoxFuture<'static, ()> + Send>;

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stream").field("headers", &self.headers).finish_non_exhaustive()
    }
}

/// The response that carries a stream; it is never silent for longer than `beat`.
pub fn response(
    stream: Stream,
    meter: Meter,
    cut: CancellationToken,
    open: Streaming,
    beat: Option<Duration>,
) -> Response<Body> {
    let Stream { events, machine, headers, closing } = stream;
    meter.note(|entry| entry.stream = true);
    let pump = Pump {
        live: Some(Live { events, machine }),
        closing,
        hold: None,
        cut: Word::of(cut),
        batch: Vec::new(),
        out: BytesMut::new(),
        meter,
        read: None,
        begun: false,
        // The first frame goes with the head.
        turns: TURNS,
        open,
        alarm: beat.map(Alarm::new),
    };
    let mut response = Response::new(Calm::new(pump).boxed_unsync());
    *response.headers_mut() = headers;
    dress(response.headers_mut());
    response
}

/// Nobody between may keep a stream, nor compress it, which would hold it back.
pub const UNTOUCHED: HeaderValue = HeaderValue::from_static("no-cache, no-transform");

/// The headers of every stream.
pub(super) fn dress(ours: &mut HeaderMap) {
    ours.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"));
    ours.insert(CACHE_CONTROL, UNTOUCHED);
    // nginx and its kin hold streams back unless told.
    ours.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
}

struct Live {
    events: Box<dyn EventSource>,
    machine: Box<dyn Machine>,
}

struct Pump {
    /// None once the stream has ended; the upstream is let go at that very moment.
    live: Option<Live>,
    closing: Option<Closing>,
    /// The last words of a complete answer wait for this: the ledger's word that they are written down.
    hold: Option<BoxFuture<'static, Result<()>>>,
    cut: Word,
    batch: Vec<Bytes>,
    out: BytesMut,
    meter: Meter,
    /// When the events whose translation is in `out` were read.
    read: Option<Instant>,
    /// The first frame has left.
    begun: bool,
    /// How often it has stepped back since something came.
    turns: u8,
    open: Streaming,
    alarm: Option<Alarm>,
}

/// What one look at the source came to.
enum Step {
    Waiting,
    More,
    End,
}

impl Live {
    /// Polls once and translates what came, appending to `out`.
    fn step(
        &mut self,
        cx: &mut Context<'_>,
        batch: &mut Vec<Bytes>,
        out: &mut BytesMut,
        read: &mut Option<Instant>,
    ) -> Result<Step> {
        let polled = self.events.poll_next(cx, batch);
        if !batch.is_empty() {
            read.get_or_insert_with(Instant::now);
        }
        for event in batch.drain(..) {
            self.machine.push(&event, out)?;
        }
        match polled {
            Poll::Pending => Ok(Step::Waiting),
            Poll::Ready(Ok(true)) => Ok(Step::More),
            Poll::Ready(Ok(false)) => self.machine.finish(out).map(|_| Step::End),
            Poll::Ready(Err(error)) => Err(error),
        }
    }

    /// What an answer has taken that does not come to its end: what Google counted, and an estimate of the rest.
    fn broken(&self) -> Usage {
        let mut usage = self.machine.usage();
        usage.output = usage.output.saturating_add(self.machine.uncounted());
        usage.estimated |= usage.total() > 0;
        usage
    }
}

impl Pump {
    fn end(&mut self, failure: Option<Error>) {
        let mut live = self.live.take();
        if let Some(live) = &mut live {
            live.events.ended(failure.as_ref());
        }
        match failure {
            None => {
                if let Some(live) = &live {
                    self.meter.usage(live.machine.usage());
                }
                self.complete();
            }
            Some(error) => {
                if let Some(live) = &live {
                    self.meter.usage(live.broken());
                }
                self.meter.fail(&error, render::code(&error));
                let out = &mut self.out;
                // The machine may be what failed: the usual event is then the last resort.
                let told = live.as_mut().is_some_and(|live| {
                    let tell = || render::failure(&error, |failure| live.machine.fail(failure, out));
                    catch_unwind(AssertUnwindSafe(tell)).unwrap_or(false)
                });
                if !told {
                    self.out.extend_from_slice(&render::event(&error));
                }
            }
        }
        if let Some(closing) = self.closing.take() {
            let (closed, rest) = (closing(), self.hold.take());
            self.hold = Some(Box::pin(async move {
                closed.await;
                match rest {
                    Some(rest) => rest.await,
                    None => Ok(()),
                }
            }));
        }
    }

    fn complete(&mut self) {
        if self.meter.asks_cost() {
            // A comment: no SDK reads it, whoever asked for it does.
            let mut told =
                BytesMut::from(format!(": x-gemway-cost {}\n\n", self.meter.cost_text()).as_bytes());
            told.unsplit(self.out.split());
            self.out = told;
        }
        if self.meter.commits() {
            let meter = self.meter.clone();
            self.hold = Some(Box::pin(async move { meter.complete(200).await }));
        } else {
            self.meter.end(Outcome::Complete);
        }
    }

    /// Waits for the ledger; what it does not take does not end well.
    fn held(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(hold) = &mut self.hold else { return Poll::Ready(()) };
        let Poll::Ready(written) = hold.as_mut().poll(cx) else { return Poll::Pending };
        self.hold = None;
        if let Err(error) = written {
            self.out.clear();
            self.meter.fail(&error, render::code(&error));
            self.out.extend_from_slice(&render::event(&error));
        }
        Poll::Ready(())
    }

    /// A sign of life, if it is time for one.
    fn sign(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let (Some(alarm), Some(live)) = (&mut self.alarm, &mut self.live) else { return Poll::Pending };
        ready!(alarm.poll(cx));
        let sign =
            if live.machine.alive(&mut self.out) { self.out.split().freeze() } else { heartbeat::SIGN };
        Poll::Ready(Some(Ok(Frame::data(sign))))
    }

    fn frame(&mut self) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.turns = 0;
        if let Some(alarm) = &mut self.alarm {
            alarm.heard();
        }
        if !std::mem::replace(&mut self.begun, true) {
            self.meter.first_token();
        }
        if let Some(read) = self.read.take() {
            self.open.sent(read);
        }
        Poll::Ready(Some(Ok(Frame::data(self.out.split().freeze()))))
    }
}

impl HttpBody for Pump {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        loop {
            let Some(live) = &mut this.live else {
                if this.held(cx).is_pending() {
                    return Poll::Pending;
                }
                return if this.out.is_empty() { Poll::Ready(None) } else { this.frame() };
            };
            let (batch, out, read) = (&mut this.batch, &mut this.out, &mut this.read);
            // A fault of ours must still end the stream with an error the SDK raises on, not with a cut line.
            let step = catch_unwind(AssertUnwindSafe(|| live.step(cx, batch, out, read)))
                .unwrap_or_else(|_| Err(Error::internal("a stream's machine panicked")));
            match step {
                Ok(Step::More) if this.out.len() < ENOUGH => {
                    if this.turns < TURNS {
                        this.turns = 0;
                    }
                }
                Ok(Step::More) => return this.frame(),
                Ok(Step::Waiting) if !this.out.is_empty() => {
                    if this.turns == TURNS || !live.events.more() {
                        return this.frame();
                    }
                    this.turns += 1;
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Ok(Step::Waiting) => {
                    if this.cut.poll(cx).is_pending() {
                        return this.sign(cx);
                    }
                    this.end(Some(draining()));
                }
                Ok(Step::End) => this.end(None),
                Err(error) => this.end(Some(error)),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.live.is_none() && self.hold.is_none() && self.out.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

impl Drop for Pump {
    fn drop(&mut self) {
        if let Some(live) = &self.live {
            self.meter.usage(live.broken());
            self.meter.end(Outcome::ClientGone);
        }
    }
}

/// What is said to whoever still waits when the gateway goes down.
pub fn draining() -> Error {
    Error::new(Kind::Draining, Origin::Gateway, "The gateway is shutting down; please try again.")
        .retry(Retry::Soon)
}

#[cfg(test)]
mod tests;
