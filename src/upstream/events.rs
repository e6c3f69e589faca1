//! Answers as they arrive: bodies under deadlines, and the events in them.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::Instant;

use crate::sse::Decoder;
use crate::translate::fault::from_event;

use super::gauge::Rest;
use super::{Patience, fail};
use crate::body::{self, Body};
use crate::error::{Error, Result};
use crate::wake::Alarm;

/// The longest single event (image models send megabytes in one).
const LONGEST_EVENT: usize = 64 << 20;

/// A body that fails when it stalls or when the call has taken too long.
pub(super) struct Watched {
    body: Body,
    /// Made when there is something to wait for: what is short has come with its head.
    alarm: Option<Alarm>,
    /// Since when we wait, if we do; the time in which nobody asks for more is the reader's, not Google's.
    since: Option<Instant>,
    idle: Duration,
    deadline: Instant,
    stalled: fn() -> Error,
}

impl Watched {
    pub(super) fn new(body: Body, idle: Duration, deadline: Instant) -> Self {
        Self { body, alarm: None, since: None, idle, deadline, stalled }
    }

    /// Until the next read, waits this long instead, and fails with this.
    fn expect_within(&mut self, idle: Duration, stalled: fn() -> Error) {
        (self.idle, self.stalled) = (idle, stalled);
        let since = self.since.unwrap_or_else(Instant::now);
        let due = self.due(since);
        if let Some(alarm) = &mut self.alarm {
            alarm.set(due);
        }
    }

    /// When the present wait has lasted too long.
    fn due(&self, since: Instant) -> Instant {
        self.deadline.min(since + self.idle)
    }

    /// Looks at the clock. The alarm is not moved at every read; when it rings it is checked against the
    /// start of the present wait, and set again if that was recent.
    fn poll_alarm(&mut self, cx: &mut Context<'_>) -> Poll<Error> {
        let since = *self.since.get_or_insert_with(Instant::now);
        loop {
            let due = self.due(since);
            let alarm = self.alarm.get_or_insert_with(|| Alarm::at(due));
            std::task::ready!(alarm.poll(cx));
            let now = Instant::now();
            if now >= self.deadline {
                return Poll::Ready(fail::out_of_time());
            }
            if now >= since + self.idle {
                return Poll::Ready((self.stalled)());
            }
            alarm.set(due);
        }
    }
}

fn stalled() -> Error {
    fail::timeout("upstream_stalled", "Google stopped sending in the middle of its answer.")
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>>>> {
        let this = self.get_mut();
        match Pin::new(&mut this.body).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                this.since = None;
                // A server that always has more never gets to the branch below, so the end is checked here too.
                if !this.body.is_end_stream()
                    && Instant::now() >= this.deadline
                    && let Poll::Ready(error) = this.poll_alarm(cx)
                {
                    return Poll::Ready(Some(Err(error)));
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(fail::broken(error)))),
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending => this.poll_alarm(cx).map(|error| Some(Err(error))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The events of one streamed answer. Dropping it cancels the call at Google.
pub struct Events {
    body: Watched,
    /// What of the last read is still to come; none where nothing is.
    rest: Option<Rest>,
    decoder: Decoder,
    held: Vec<Bytes>,
    end: End,
}

/// Just enough of an event to see whether it is an answer.
#[derive(serde::Deserialize)]
struct Peek {
    error: Option<serde::de::IgnoredAny>,
}

enum End {
    /// More may come.
    Open,
    /// The body ended as it should.
    Clean,
    /// The failure that comes after the events already handed out.
    Failing(Error),
    /// The failure has been told.
    Failed,
}

impl Events {
    /// Waits until the first events are there, and keeps them for the first [`Events::next`].
    pub(super) async fn open(body: Body, rest: Option<Rest>, patience: Patience) -> Result<Self> {
        let Patience { times, deadline, .. } = patience;
        let now = Instant::now();
        let (first_by, late) = patience.until(now, times.first_event, fail::no_event);
        let mut body = Watched::new(body, times.idle, deadline);
        body.expect_within(first_by.saturating_duration_since(now), late);
        let mut events =
            Self { body, rest, decoder: Decoder::new(LONGEST_EVENT), held: Vec::new(), end: End::Open };
        let mut held = Vec::new();
        events.next(&mut held).await?;
        match held.first() {
            None => return Err(fail::invalid("Google's answer was empty.")),
            Some(event) => match serde_json::from_slice::<Peek>(event) {
                Ok(Peek { error: None }) => {}
                // An error object, one inside an array, or nothing that can be read: the mapping tells them apart.
                Ok(Peek { error: Some(_) }) | Err(_) => return Err(from_event(event)),
            },
        }
        events.body.expect_within(times.idle, stalled);
        events.held = held;
        Ok(events)
    }

    /// Whether more of what was read is on its way, so that it comes without another read.
    pub fn more(&self) -> bool {
        self.rest.as_ref().is_some_and(Rest::is_some)
    }

    /// Appends all events that one read of the connection completed. `false`: the body ended properly and there
    /// is nothing more.
    ///
    /// # Errors
    /// When the connection broke, a deadline passed, or what came cannot be decoded. Events that came whole
    /// before the failure are handed out first.
    pub async fn next(&mut self, batch: &mut Vec<Bytes>) -> Result<bool> {
        poll_fn(|cx| self.poll_next(cx, batch)).await
    }

    /// The same as [`Events::next`], for callers that want to take what is ready without waiting for more.
    ///
    /// # Errors
    /// As [`Events::next`].
    pub fn poll_next(&mut self, cx: &mut Context<'_>, batch: &mut Vec<Bytes>) -> Poll<Result<bool>> {
        if !self.held.is_empty() {
            batch.append(&mut self.held);
            return Poll::Ready(Ok(true));
        }
        let before = batch.len();
        loop {
            match std::mem::replace(&mut self.end, End::Failed) {
                End::Open => self.end = End::Open,
                End::Clean => {
                    self.end = End::Clean;
                    return Poll::Ready(Ok(false));
                }
                End::Failing(error) => return Poll::Ready(Err(error)),
                End::Failed => return Poll::Ready(Err(fail::disconnected("read after a failure"))),
            }
            let step = match std::task::ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => {
                        if let Some(rest) = &mut self.rest {
                            rest.took(data.len());
                        }
                        self.decoder.push(data, batch)
                    }
                    Err(_trailers) => Ok(()),
                },
                Some(Err(error)) => Err(error),
                None => {
                    let rest = self.decoder.finish(batch);
                    self.end = End::Clean;
                    rest
                }
            };
            if let Err(error) = step {
                self.end = End::Failing(error);
                // Lets go of the connection now, not when the reader gets round to it.
                self.body.body = body::empty();
            }
            if batch.len() > before {
                return Poll::Ready(Ok(true));
            }
        }
    }
}

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Events").field("held", &self.held.len()).finish_non_exhaustive()
    }
}
