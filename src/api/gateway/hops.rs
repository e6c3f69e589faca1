//! Answers that take several requests: long ones, continued by token, and several candidates from models that
//! give one. What reads the events sees one answer.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{BoxFuture, try_join_all};

use super::Gateway;
use crate::api::{Ctx, EventSource};
use crate::error::{Error, Result, Retry};
use crate::telemetry::metrics::UNRESOLVED;
use crate::translate::fan::{Added, Fan};
use crate::translate::fault::from_event;
use crate::translate::hops::{Hops, Next};
use crate::upstream::{AnswerBody, Call, Events, Leg, Patience, Upstream};
use crate::usage::Usage;
use crate::wire::Rope;

/// The longest pause before an answer is resumed; Google asking for more ends it instead.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// A quarter of the pause after the second break in a row; each further one doubles it.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// An answer that has begun.
pub(super) struct Opened {
    /// Its events; a whole answer is one.
    pub(super) source: Box<dyn EventSource>,
    /// Calls beyond one.
    pub(super) again: u32,
    /// Calls that were given up for others, see [`crate::upstream::Answer::lost`].
    pub(super) lost: u32,
    /// `x-gemini-service-tier`.
    pub(super) tier: Option<String>,
}

impl Gateway {
    /// Makes the calls that one answer takes: as many at once as it has branches. Those that continue it are made
    /// when it comes to that.
    ///
    /// # Errors
    /// As [`crate::upstream::Upstream::call`], if any of them fails.
    pub(super) async fn begin(
        &self,
        cx: &Ctx,
        leg: &Leg<'_>,
        call: &Call,
        branches: usize,
    ) -> Result<Opened> {
        if branches < 2 {
            return self.begin_one(cx, leg, call, true).await;
        }
        let opened = try_join_all((0..branches).map(|_| self.begin_one(cx, leg, call, false))).await?;
        let again = opened.iter().map(|opened| opened.again + 1).sum::<u32>().saturating_sub(1);
        let tier = opened.first().and_then(|opened| opened.tier.clone());
        let branches: Vec<_> = opened.into_iter().map(|opened| Some(opened.source)).collect();
        let source = Fanned { fan: Fan::new(branches.len()), branches, batch: Vec::new() };
        Ok(Opened { source: Box::new(source), again, lost: 0, tier })
    }

    async fn begin_one(&self, cx: &Ctx, leg: &Leg<'_>, call: &Call, hedged: bool) -> Result<Opened> {
        let answer = self.call_on(cx, leg, call, hedged).await?;
        let lost = answer.lost;
        let source: Box<dyn EventSource> = match answer.body {
            AnswerBody::Whole(bytes) => Box::new(Whole(Some(bytes))),
            AnswerBody::Stream(events) if self.catalog.traits(&call.model).long_decode => Box::new(Long {
                hops: Hops::default(),
                upstream: Arc::clone(&self.upstream),
                site: answer.site,
                label: self.labels.get(&call.model).cloned(),
                call: call.clone(),
                patience: leg.patience().continued(),
                // Without the request's headers: they are windows into the buffer that the request was read into, and
                // would keep it for as long as the stream is open.
                cx: Ctx { headers: Arc::default(), ..cx.clone() },
                state: State::Reading(Box::new(events)),
                batch: Vec::new(),
            }),
            AnswerBody::Stream(events) => Box::new(events),
        };
        Ok(Opened { source, again: answer.attempts.saturating_sub(1), lost, tier: answer.service_tier })
    }
}

/// Waits for the next events of a source.
///
/// # Errors
/// The source's.
pub(super) async fn next(source: &mut dyn EventSource, batch: &mut Vec<Bytes>) -> Result<bool> {
    poll_fn(|cx| source.poll_next(cx, batch)).await
}

impl EventSource for Events {
    fn poll_next(&mut self, cx: &mut Context<'_>, batch: &mut Vec<Bytes>) -> Poll<Result<bool>> {
        Self::poll_next(self, cx, batch)
    }

    fn more(&self) -> bool {
        Self::more(self)
    }
}

struct Whole(Option<Bytes>);

impl EventSource for Whole {
    fn poll_next(&mut self, _: &mut Context<'_>, batch: &mut Vec<Bytes>) -> Poll<Result<bool>> {
        batch.extend(self.0.take());
        Poll::Ready(Ok(false))
    }
}

/// An answer after others that came to nothing: its counts are told with theirs.
pub(super) struct After {
    inner: Box<dyn EventSource>,
    added: Added,
}

impl After {
    pub(super) fn new(inner: Box<dyn EventSource>, before: &Usage) -> Self {
        Self { inner, added: Added::new(before) }
    }
}

impl EventSource for After {
    fn poll_next(&mut self, cx: &mut Context<'_>, batch: &mut Vec<Bytes>) -> Poll<Result<bool>> {
        let before = batch.len();
        let polled = self.inner.poll_next(cx, batch);
        for event in batch.iter_mut().skip(before) {
            *event = self.added.event(std::mem::take(event));
        }
        polled
    }

    fn more(&self) -> bool {
        self.inner.more()
    }
}

/// Several requests at once, each with its candidate.
struct Fanned {
    fan: Fan,
    /// Those that have not ended.
    branches: Vec<Option<Box<dyn EventSource>>>,
    batch: Vec<Bytes>,
}

impl EventSource for Fanned {
    fn poll_next(&mut self, cx: &mut Context<'_>, batch: &mut Vec<Bytes>) -> Poll<Result<bool>> {
        let before = batch.len();
        for (index, branch) in self.branches.iter_mut().enumerate() {
            let Some(source) = branch else { continue };
            let polled = source.poll_next(cx, &mut self.batch);
            batch.extend(self.batch.drain(..).map(|event| self.fan.event(index, event)));
            match polled {
                Poll::Pending | Poll::Ready(Ok(true)) => {}
                Poll::Ready(Ok(false)) => *branch = None,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            }
        }
        if self.branches.iter().all(Option::is_none) {
            return Poll::Ready(Ok(false));
        }
        if batch.len() > before { Poll::Ready(Ok(true)) } else { Poll::Pending }
    }

    fn more(&self) -> bool {
        self.branches.iter().flatten().any(|branch| branch.more())
    }
}

/// One long answer.
struct Long {
    hops: Hops,
    upstream: Arc<Upstream>,
    site: Arc<str>,
    label: Option<String>,
    call: Call,
    /// The whole answer has the time that its first request was given.
    patience: Patience,
    cx: Ctx,
    state: State,
    batch: Vec<Bytes>,
}

enum State {
    Reading(Box<Events>),
    Asking(BoxFuture<'static, Result<Events>>),
    Over,
}

impl Long {
    /// Takes what one request has brought. `Some`: it has failed.
    fn take(&mut self, batch: &mut Vec<Bytes>) -> Result<Option<Error>> {
        let mut failure = None;
        for event in self.batch.drain(..) {
            if is_error(&event) {
                failure = Some(from_event(&event));
                break;
            }
            batch.push(self.hops.event(event)?);
        }
        self.batch.clear();
        Ok(failure)
    }

    fn failed(&mut self, error: Error) -> Result<()> {
        let asked = match error.retries() {
            Retry::After(pause) => pause,
            Retry::Soon | Retry::Never => Duration::ZERO,
        };
        if asked > LONGEST_PAUSE || asked >= self.patience.left() {
            return Err(error);
        }
        let token = self.hops.failed(error)?;
        // What broke after it had said something is taken up at once.
        let pause = match self.hops.breaks() {
            0 | 1 => asked,
            breaks => FIRST_PAUSE.saturating_mul(1 << breaks.min(8)).max(asked),
        };
        self.ask(&token, pause);
        Ok(())
    }

    fn ask(&mut self, token: &str, pause: Duration) {
        self.hops.begin();
        let call = Call { body: with_token(&self.call.body, token), ..self.call.clone() };
        let upstream = Arc::clone(&self.upstream);
        let (site, cx, label) = (Arc::clone(&self.site), self.cx.clone(), self.label.clone());
        let patience = self.patience;
        self.state = State::Asking(Box::pin(async move {
            if !pause.is_zero() {
                tokio::time::sleep(pause.min(patience.left())).await;
            }
            // The token belongs to the project that gave it, so the answer goes on where it began.
            let place = upstream.sites().find(|place| place.name() == &*site);
            let place = place.ok_or_else(|| Error::internal("a site is gone"))?;
            let answer = upstream.call_within(place, &call, patience).await;
            cx.called(&site, label.as_deref().unwrap_or(UNRESOLVED), answer.as_ref().map(|_| 200));
            match answer?.body {
                AnswerBody::Stream(events) => Ok(events),
                AnswerBody::Whole(_) => Err(Error::internal("a stream came whole")),
            }
        }));
    }

    /// One step: `None` when the state has changed and there is more to do.
    fn step(&mut self, cx: &mut Context<'_>, batch: &mut Vec<Bytes>) -> Poll<Result<Option<bool>>> {
        match &mut self.state {
            State::Over => Poll::Ready(Ok(Some(false))),
            State::Asking(asking) => {
                match ready!(asking.as_mut().poll(cx)) {
                    Ok(events) => self.state = State::Reading(Box::new(events)),
                    Err(error) => self.failed(error)?,
                }
                Poll::Ready(Ok(None))
            }
            State::Reading(events) => {
                let polled = events.poll_next(cx, &mut self.batch);
                let failure = self.take(batch)?;
                match (failure, polled) {
                    (Some(error), _) | (None, Poll::Ready(Err(error))) => self.failed(error)?,
                    (None, Poll::Pending) => return Poll::Pending,
                    (None, Poll::Ready(Ok(true))) => return Poll::Ready(Ok(Some(true))),
                    (None, Poll::Ready(Ok(false))) => match self.hops.ended() {
                        Next::Again(token) => self.ask(&token, Duration::ZERO),
                        Next::Over(last) => {
                            batch.extend(last);
                            return Poll::Ready(Ok(Some(false)));
                        }
                    },
                }
                Poll::Ready(Ok((!batch.is_empty()).then_some(true)))
            }
        }
    }
}

impl EventSource for Long {
    fn poll_next(&mut self, cx: &mut Context<'_>, batch: &mut Vec<Bytes>) -> Poll<Result<bool>> {
        loop {
            match ready!(self.step(cx, batch)) {
                Ok(None) => {}
                Ok(Some(more)) => {
                    if !more {
                        self.state = State::Over;
                    }
                    return Poll::Ready(Ok(more));
                }
                Err(error) => {
                    self.state = State::Over;
                    return Poll::Ready(Err(error));
                }
            }
        }
    }

    fn more(&self) -> bool {
        matches!(&self.state, State::Reading(events) if events.more())
    }
}

/// An error object in place of an answer.
fn is_error(event: &Bytes) -> bool {
    #[derive(serde::Deserialize)]
    struct Peek {
        error: Option<serde::de::IgnoredAny>,
    }
    memchr::memmem::find(event, b"\"error\"").is_some()
        && serde_json::from_slice::<Peek>(event).is_ok_and(|peek| peek.error.is_some())
}

/// The same request, byte for byte, with a token before its fields.
fn with_token(body: &Rope, token: &str) -> Rope {
    let mut pieces: VecDeque<Bytes> = body.0.clone();
    let Some(first) = pieces.front_mut().filter(|first| first.first() == Some(&b'{')) else {
        return body.clone();
    };
    *first = first.slice(1..);
    let mut out = Rope::default();
    out.push(format!("{{\"continuationToken\":{},", serde_json::Value::from(token)).into());
    for piece in pieces {
        out.push(piece);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_put_before_everything_else() {
        let mut body = Rope::default();
        body.push(Bytes::from_static(b"{"));
        body.push(Bytes::from_static(b"\"contents\":[]}"));
        let with = with_token(&body, "a\"b").join();
        assert_eq!(with, r#"{"continuationToken":"a\"b","contents":[]}"#);
        assert_eq!(body.join(), r#"{"contents":[]}"#);
    }

    #[test]
    fn errors_are_told_from_answers_that_speak_of_them() {
        assert!(is_error(&Bytes::from_static(br#"{"error":{"code":503}}"#)));
        assert!(!is_error(&Bytes::from_static(br#"{"candidates":[{"text":"\"error\""}],"error":null}"#)));
    }
}
