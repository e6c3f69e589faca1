//! Reading a request's body: bounded in size and in time.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, EXPECT};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;
use tokio::time::{Instant, Sleep};

use crate::body::{self, Body, BoxError, ReadError};
use crate::error::{Error, Kind, Origin, Result, Retry};

/// How much, and how slowly, a client may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Intake {
    /// Bytes of a body.
    pub limit: usize,
    /// The longest pause inside a body.
    pub idle: Duration,
    /// The longest a body may take.
    pub total: Duration,
}

impl Default for Intake {
    fn default() -> Self {
        Self { limit: 20 << 20, idle: Duration::from_secs(30), total: Duration::from_mins(5) }
    }
}

/// How the media type of a form begins.
const FORM: &[u8] = b"multipart/";

/// Refuses, before any byte of the body is read, what could not be understood anyway.
///
/// # Errors
/// 415 for compressed bodies and for forms.
pub fn check(headers: &HeaderMap) -> Result<()> {
    let plain =
        |encoding: &http::HeaderValue| encoding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"identity");
    if !headers.get_all(CONTENT_ENCODING).iter().all(plain) {
        return Err(Error::new(
            Kind::UnsupportedMedia,
            Origin::Client,
            "Compressed request bodies are not taken; send the JSON as it is.",
        )
        .code("unsupported_content_encoding"));
    }
    let form = |media: &http::HeaderValue| {
        let start = media.as_bytes().trim_ascii_start().get(..FORM.len());
        start.is_some_and(|start| start.eq_ignore_ascii_case(FORM))
    };
    if headers.get(CONTENT_TYPE).is_some_and(form) {
        return Err(Error::new(
            Kind::UnsupportedMedia,
            Origin::Client,
            "This endpoint takes application/json, not a multipart form.",
        ));
    }
    Ok(())
}

/// Reads the whole body.
///
/// # Errors
/// 413 over the limit, 408 when it comes too slowly, `ClientGone` when it breaks off.
pub fn read(headers: &HeaderMap, body: Body, intake: Intake) -> impl Future<Output = Result<Bytes>> + Send {
    let mut body = Timed::new(body, intake.idle, intake.total);
    async move {
        match body::read(&mut body, intake.limit).await {
            Ok(bytes) => Ok(bytes),
            Err(ReadError::TooLarge(limit)) => {
                // Who was asked for a 100-continue has not begun to send; anyone else must get rid of what is on its
                // way, or the kernel resets the connection and our answer is lost.
                if !headers.contains_key(EXPECT) {
                    Box::pin(discard(body)).await;
                }
                let words = format!("The request body is larger than the {limit} bytes that are allowed.");
                Err(Error::new(Kind::TooLarge, Origin::Client, words))
            }
            Err(ReadError::Broken(error)) if error.is::<TooSlow>() => {
                let words = "The request body took too long to arrive.";
                Err(Error::new(Kind::RequestTimeout, Origin::Client, words).retry(Retry::Soon))
            }
            Err(ReadError::Broken(error)) => {
                let words = "The request body broke off.";
                Err(Error::new(Kind::ClientGone, Origin::Client, words).because(error))
            }
        }
    }
}

/// Takes the body of a request that is refused unread, for as long as a refusal may wait: a connection with a body
/// left in it can only be closed, and the client's next request, or even this answer, would be lost with it.
pub(super) async fn spare(headers: &HeaderMap, body: Body) {
    // Who was asked for a 100-continue has not begun to send.
    if !body.is_end_stream() && !headers.contains_key(EXPECT) {
        discard(Timed::new(body, Duration::from_secs(1), Duration::from_secs(1))).await;
    }
}

/// Throws away what still comes, for a moment.
async fn discard(mut body: Timed) {
    let rest = async { while let Some(Ok(_)) = body.frame().await {} };
    // Past this moment the client is not one that will read an answer.
    let _ = tokio::time::timeout(Duration::from_secs(1), rest).await;
}

#[derive(Debug, thiserror::Error)]
#[error("the body came too slowly")]
pub(super) struct TooSlow;

/// A body that must keep coming.
pub(super) struct Timed {
    inner: Body,
    idle: Duration,
    deadline: Instant,
    /// Set when there is something to wait for: a body that comes with its head needs none.
    alarm: Option<Pin<Box<Sleep>>>,
    /// Since when nothing came.
    waiting: Option<Instant>,
}

impl Timed {
    pub(super) fn new(inner: Body, idle: Duration, total: Duration) -> Self {
        Self { inner, idle, deadline: Instant::now() + total, alarm: None, waiting: None }
    }

    /// Looks at the clock. The alarm is not moved at every piece; when it rings it is checked against the start of
    /// the present wait, and set again if that was recent.
    fn poll_alarm(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let since = *self.waiting.get_or_insert_with(Instant::now);
        let late = self.deadline.min(since + self.idle);
        let alarm = self.alarm.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(late)));
        loop {
            std::task::ready!(alarm.as_mut().poll(cx));
            if alarm.deadline() >= late {
                return Poll::Ready(());
            }
            alarm.as_mut().reset(late);
        }
    }
}

impl HttpBody for Timed {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        match Pin::new(&mut this.inner).poll_frame(cx) {
            Poll::Ready(frame) => {
                this.waiting = None;
                // Whoever always has more never gets to the branch below.
                let more = matches!(frame, Some(Ok(_))) && !this.inner.is_end_stream();
                if more && Instant::now() >= this.deadline {
                    return Poll::Ready(Some(Err(TooSlow.into())));
                }
                Poll::Ready(frame)
            }
            Poll::Pending => this.poll_alarm(cx).map(|()| Some(Err(TooSlow.into()))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Stalled;

    impl HttpBody for Stalled {
        type Data = Bytes;
        type Error = BoxError;
        fn poll_frame(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
            Poll::Pending
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_stalled_body_is_a_408() {
        let error = read(&HeaderMap::new(), Stalled.boxed_unsync(), Intake::default()).await.unwrap_err();
        assert_eq!(error.kind(), Kind::RequestTimeout);
    }

    #[tokio::test]
    async fn too_much_is_a_413() {
        let intake = Intake { limit: 3, ..Intake::default() };
        let error = read(&HeaderMap::new(), body::full("four"), intake).await.unwrap_err();
        assert_eq!(error.kind(), Kind::TooLarge);
        assert_eq!(&read(&HeaderMap::new(), body::full("abc"), intake).await.unwrap()[..], b"abc");
    }
}
