//! Bodies that pass through: the client's on its way up, Google's on its way down.
//!
//! Frames are handed on as they come; nothing is joined, copied or held back. On the way down the token counts
//! are read as they pass, and when the body ends, breaks or is dropped, the permit and the meter are settled.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::intake::{Intake, Timed, TooSlow};
use super::peek::Peek;
use super::render_google::{self, Shape};
use super::{pump, render};
use crate::body::{Body, BoxError};
use crate::error::{Error, Kind, Origin, Result, Retry};
use crate::meter::{Meter, Outcome};
use crate::telemetry::metrics::Streaming;
use crate::upstream::Course;
use crate::usage::Usage;
use crate::wake::{Calm, Word};

/// How the pieces of an answer are framed, for the error that may have to follow them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// Nothing can be added: a body that breaks stays broken.
    Plain,
    /// Server-sent events.
    Sse,
    /// A JSON array; an error may follow only between two elements.
    Array,
}

/// What is to be settled at the end of an answer.
#[derive(Debug)]
pub struct Settlement {
    /// Reads the counts; nothing is read where nothing is billed.
    pub peek: Option<Box<Peek>>,
    /// The request's meter.
    pub meter: Meter,
    /// Tokens of the prompt, if Google should not say; without it, silence costs nothing.
    pub estimate: Option<u64>,
    /// Called when Google has said what it cost.
    pub told: Option<Told>,
    /// The call, which ends with the answer.
    pub course: Option<Course>,
}

/// What is done when Google has said what something cost.
pub struct Told(pub Box<dyn FnOnce() + Send>);

impl std::fmt::Debug for Told {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Told")
    }
}

/// The ledger's word that is waited for, and the last piece that waits with it.
struct Hold {
    written: BoxFuture<'static, Result<()>>,
    last: Option<Frame<Bytes>>,
}

/// An answer on its way down.
pub(super) struct Down {
    /// None once it has ended.
    inner: Option<Body>,
    framing: Framing,
    shape: Shape,
    place: Position,
    settlement: Option<Settlement>,
    meter: Meter,
    /// The end, or the last piece, waits for this: the ledger's word that it is written down.
    hold: Option<Box<Hold>>,
    cut: Word,
    /// The first piece has passed.
    begun: bool,
    /// What the answer's end says of its site.
    course: Option<Course>,
    open: Option<Streaming>,
}

impl Down {
    /// Wraps an answer's body.
    pub(super) fn wrap(
        inner: Body,
        (framing, shape): (Framing, Shape),
        mut settlement: Settlement,
        cut: CancellationToken,
        open: Option<Streaming>,
    ) -> Body {
        let (meter, course) = (settlement.meter.clone(), settlement.course.take());
        let down = Self {
            inner: Some(inner),
            framing,
            shape,
            place: Position::default(),
            settlement: Some(settlement),
            meter,
            hold: None,
            cut: Word::of(cut),
            begun: false,
            course,
            open,
        };
        Calm::new(down).boxed_unsync()
    }

    fn settle(&mut self, outcome: Outcome) {
        if let Some(settlement) = self.settlement.take() {
            settlement.settle();
        }
        self.meter.end(outcome);
    }

    /// The body is whole. `last` is its last piece, where that was known before it was passed on.
    fn complete(&mut self, last: Option<Frame<Bytes>>) {
        self.inner = None;
        if let Some(mut course) = self.course.take() {
            course.ended(None);
        }
        if !self.meter.commits() {
            self.settle(Outcome::Complete);
            return;
        }
        if let Some(settlement) = self.settlement.take() {
            settlement.settle();
        }
        let meter = self.meter.clone();
        let written = Box::pin(async move { meter.complete(200).await });
        self.hold = Some(Box::new(Hold { written, last }));
    }

    /// Ends a broken body: with an error that the client's parser finds, where there is a place for it.
    fn fail(&mut self, error: Error) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.inner = None;
        if let Some(mut course) = self.course.take() {
            course.ended(Some(&error));
        }
        self.meter.fail(&error, render::code(&error));
        self.settle(Outcome::of(&error));
        let last = match self.framing {
            Framing::Sse => Some(render_google::event(&error, self.shape)),
            Framing::Array => self.place.element(&render_google::body(&error, self.shape).to_string()),
            Framing::Plain => None,
        };
        Poll::Ready(Some(match last {
            Some(event) => Ok(Frame::data(event)),
            None => Err(error.into()),
        }))
    }
}

impl Settlement {
    fn settle(self) {
        let Some(peek) = self.peek else { return };
        let usage = match (peek.usage(), self.estimate) {
            (Some(usage), _) => {
                if let Some(Told(tell)) = self.told {
                    tell();
                }
                usage
            }
            // Four bytes a token, when Google said nothing or was cut off before it could.
            (None, Some(input)) => {
                Usage { input, output: peek.seen() / 4, estimated: true, ..Usage::default() }
            }
            (None, None) => return,
        };
        self.meter.usage(usage);
    }
}

impl HttpBody for Down {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        if let Some(hold) = &mut this.hold {
            let Poll::Ready(written) = hold.written.as_mut().poll(cx) else { return Poll::Pending };
            let last = hold.last.take();
            this.hold = None;
            return match written {
                Ok(()) => Poll::Ready(last.map(Ok)),
                Err(error) => this.fail(error),
            };
        }
        let Some(inner) = &mut this.inner else { return Poll::Ready(None) };
        match Pin::new(inner).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(data) = frame.data_ref() {
                    if let Some(peek) =
                        this.settlement.as_mut().and_then(|settlement| settlement.peek.as_mut())
                    {
                        peek.feed(data);
                    }
                    if this.framing == Framing::Array {
                        this.place.pass(data);
                    }
                    if this.framing != Framing::Plain {
                        if !this.begun {
                            this.begun = true;
                            this.meter.first_token();
                        }
                        if let Some(open) = &mut this.open {
                            open.came(Instant::now());
                        }
                    }
                }
                // Where the length was told, the last piece is the end.
                if this.meter.commits() && this.inner.as_ref().is_some_and(HttpBody::is_end_stream) {
                    this.complete(Some(frame));
                    return self.poll_frame(cx);
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(None) => {
                this.complete(None);
                if this.hold.is_some() { self.poll_frame(cx) } else { Poll::Ready(None) }
            }
            Poll::Ready(Some(Err(error))) => {
                let error = error.downcast::<Error>().map_or_else(
                    |other| {
                        let words = "The connection to Google broke off.";
                        Error::new(Kind::UpstreamBroken, Origin::Upstream, words)
                            .code("upstream_disconnected")
                            .retry(Retry::Soon)
                            .because(other)
                    },
                    |ours| *ours,
                );
                this.fail(error)
            }
            Poll::Pending => match this.cut.poll(cx) {
                Poll::Ready(()) => this.fail(pump::draining()),
                Poll::Pending => Poll::Pending,
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        self.hold.is_none() && self.inner.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        match (&self.inner, self.framing) {
            (Some(inner), Framing::Plain) => inner.size_hint(),
            _ => SizeHint::default(),
        }
    }
}

impl Drop for Down {
    fn drop(&mut self) {
        let over = self.is_end_stream();
        // Where the length was told nobody asks for the end.
        if let Some(mut course) = self.course.take().filter(|_| over) {
            course.ended(None);
        }
        self.settle(if over { Outcome::Complete } else { Outcome::ClientGone });
    }
}

/// Where in a JSON array of objects a stream stands.
#[derive(Debug, Default)]
struct Position {
    depth: u32,
    quoted: bool,
    escaped: bool,
    elements: bool,
    /// A comma was the last thing between two elements.
    comma: bool,
}

impl Position {
    fn pass(&mut self, piece: &[u8]) {
        for byte in piece {
            if self.quoted {
                self.quoted = self.escaped || *byte != b'"';
                self.escaped = *byte == b'\\' && !self.escaped;
                continue;
            }
            match byte {
                b'"' => self.quoted = true,
                b',' if self.depth == 1 => self.comma = true,
                b'{' | b'[' => {
                    self.depth += 1;
                    self.comma = false;
                }
                b'}' | b']' => {
                    self.depth = self.depth.saturating_sub(1);
                    self.elements |= self.depth == 1;
                }
                _ => {}
            }
        }
    }

    /// One more element and the end of the array, where it can have one here.
    fn element(&self, value: &str) -> Option<Bytes> {
        match (self.depth, self.elements) {
            (0, false) => Some(format!("[{value}]").into()),
            (1, false) => Some(format!("{value}]").into()),
            (1, true) if self.comma => Some(format!("{value}]").into()),
            (1, true) => Some(format!("\n,\n{value}]").into()),
            _ => None,
        }
    }
}

const SLOW: u8 = 1;
const BROKEN: u8 = 2;

/// How a body on its way up fares.
#[derive(Clone, Default)]
pub struct Rise(Arc<Rising>);

#[derive(Default)]
struct Rising {
    fault: AtomicU8,
    /// The body, once it came back without having been touched.
    back: Mutex<Option<Timed>>,
}

impl std::fmt::Debug for Rise {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rise").field("fault", &self.0.fault).finish_non_exhaustive()
    }
}

impl Rise {
    /// The body once more, where nobody has read of it: no connection was made that could have taken it.
    pub(super) fn again(&self, meter: &Meter) -> Option<Body> {
        let inner = self.0.back.lock().take()?;
        Some(
            Up { inner: Some(inner), rise: self.clone(), meter: meter.clone(), seen: 0, touched: false }
                .boxed_unsync(),
        )
    }

    /// What the client did wrong, if it did.
    pub fn fault(&self) -> Option<Error> {
        match self.0.fault.load(Ordering::Acquire) {
            SLOW => Some(
                Error::new(Kind::RequestTimeout, Origin::Client, "The request body took too long to arrive.")
                    .retry(Retry::Soon),
            ),
            BROKEN => Some(Error::new(Kind::ClientGone, Origin::Client, "The request body broke off.")),
            _ => None,
        }
    }
}

/// A body on its way up: it must keep coming, and its bytes are counted.
pub(super) struct Up {
    /// There until it is dropped.
    inner: Option<Timed>,
    rise: Rise,
    meter: Meter,
    seen: u64,
    touched: bool,
}

impl Up {
    /// Wraps a request's body. It may take as long as it likes as long as it moves.
    pub(super) fn wrap(inner: Body, intake: Intake, meter: Meter) -> (Body, Rise) {
        let rise = Rise::default();
        let inner = Timed::new(inner, intake.idle, std::time::Duration::from_hours(24));
        let up = Self { inner: Some(inner), rise: rise.clone(), meter, seen: 0, touched: false };
        (up.boxed_unsync(), rise)
    }
}

impl HttpBody for Up {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        this.touched = true;
        let Some(inner) = &mut this.inner else { return Poll::Ready(None) };
        let polled = Pin::new(inner).poll_frame(cx);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => this.seen += frame.data_ref().map_or(0, Bytes::len) as u64,
            Poll::Ready(Some(Err(error))) => {
                let what = if error.is::<TooSlow>() { SLOW } else { BROKEN };
                this.rise.0.fault.store(what, Ordering::Release);
            }
            Poll::Ready(None) | Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.as_ref().map_or_else(SizeHint::default, HttpBody::size_hint)
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        if !self.touched {
            *self.rise.0.back.lock() = self.inner.take();
            return;
        }
        let seen = self.seen;
        self.meter.note(|entry| entry.bytes_in = seen);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_array_takes_an_error_between_its_elements_only() {
        let text = br#"[{"a":"}]\"["},{"b":[{}]}"#;
        let mut place = Position::default();
        let mut taken = Vec::new();
        for (at, byte) in text.iter().enumerate() {
            if let Some(end) = place.element("{}") {
                let whole = [text.get(..at).unwrap(), &end].concat();
                assert!(serde_json::from_slice::<serde_json::Value>(&whole).is_ok() || *byte == b'{', "{at}");
                taken.push(at);
            }
            place.pass(&[*byte]);
        }
        assert_eq!(taken, [0, 1, 14, 15]);
        assert_eq!(place.element("{}").unwrap(), "\n,\n{}]");
    }
}
