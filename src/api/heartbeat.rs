//! Signs of life for clients, and for proxies on the way, that give up on silence while a model thinks.
//!
//! A sign is a comment of one line, which every reader of events skips; once a response has begun, it is the
//! event that says that it is in progress. Off unless configured, for its price is this: when the first sign has
//! gone out, so has the status line, and what fails then fails within the stream.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::Response;
use http_body::{Body as HttpBody, Frame};
use http_body_util::BodyExt as _;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{pump, render};
use crate::body::{Body, BoxError};
use crate::error::Result;
use crate::meter::Meter;
use crate::wake::{self, Word};

/// No blank line after it: the line belongs to the event that follows, and is skipped with its comments.
pub(super) const SIGN: Bytes = Bytes::from_static(b": keep-alive\n");

/// Rings when nothing was said for a while.
#[derive(Debug)]
pub(super) struct Alarm {
    every: Duration,
    sleep: wake::Alarm,
}

impl Alarm {
    pub(super) fn new(every: Duration) -> Self {
        Self { every, sleep: alarm(every) }
    }

    /// Something was said.
    pub(super) fn heard(&mut self) {
        self.sleep.set(Instant::now() + self.every);
    }

    /// Whether it rings; then it is wound up again.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        std::task::ready!(self.sleep.poll(cx));
        self.heard();
        Poll::Ready(())
    }
}

/// A response whose body is still being made. It begins with a sign; the body that is made shows its own.
pub(super) fn early(
    body: BoxFuture<'static, Result<Body>>,
    every: Duration,
    meter: Meter,
    cut: CancellationToken,
) -> Response<Body> {
    let cut = Word::of(cut);
    let from = From::Making(Making { body, meter, cut });
    let alarm = Alarm { every, sleep: alarm(Duration::ZERO) };
    let beating = Beating { from, alarm };
    let mut response = Response::new(beating.boxed_unsync());
    pump::dress(response.headers_mut());
    response
}

fn alarm(after: Duration) -> wake::Alarm {
    wake::Alarm::at(Instant::now() + after)
}

struct Beating {
    from: From,
    alarm: Alarm,
}

enum From {
    Making(Making),
    Flowing(Body),
    Over,
}

struct Making {
    body: BoxFuture<'static, Result<Body>>,
    meter: Meter,
    cut: Word,
}

impl Making {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Body>> {
        let made = match self.body.as_mut().poll(cx) {
            Poll::Pending if self.cut.poll(cx).is_ready() => Err(pump::draining()),
            Poll::Pending => return Poll::Pending,
            Poll::Ready(made) => made,
        };
        if let Err(error) = &made {
            self.meter.fail(error, render::code(error));
        }
        Poll::Ready(made)
    }
}

impl HttpBody for Beating {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        loop {
            let polled = match &mut this.from {
                From::Making(making) => match making.poll(cx) {
                    Poll::Pending => Poll::Pending,
                    Poll::Ready(Ok(body)) => {
                        this.from = From::Flowing(body);
                        continue;
                    }
                    Poll::Ready(Err(error)) => {
                        this.from = From::Over;
                        Poll::Ready(Some(Ok(Frame::data(render::event(&error)))))
                    }
                },
                From::Flowing(body) => return Pin::new(body).poll_frame(cx),
                From::Over => Poll::Ready(None),
            };
            if polled.is_ready() {
                return polled;
            }
            std::task::ready!(this.alarm.poll(cx));
            return Poll::Ready(Some(Ok(Frame::data(SIGN))));
        }
    }
}
