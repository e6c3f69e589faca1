//! The events of a response in the background, for whoever follows it: from any number on, from any replica.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::stream;
use http::HeaderMap;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use tokio::time::Instant;

use super::Gateway;
use super::stored::{self, State};
use crate::api::pump::UNTOUCHED;
use crate::api::{Ctx, Reply, render};
use crate::body::BoxError;
use crate::error::Result;
use crate::meter::Outcome;

/// How often a follower looks at a response that is made elsewhere, and at one that is made here if nobody wakes
/// it.
const ELSEWHERE: Duration = Duration::from_millis(300);
const HERE: Duration = Duration::from_secs(5);

/// After so much silence a follower's line is kept open with a comment.
const SILENCE: Duration = Duration::from_secs(15);

impl Gateway {
    /// The events of a response behind number `after`, those that are there and those that come.
    pub(super) fn follow(&self, cx: &Ctx, id: String, after: Option<u64>, mut headers: HeaderMap) -> Reply {
        let follower = Follower {
            state: Arc::clone(&self.state),
            tenant: Arc::clone(cx.tenant.name()),
            cx: cx.clone(),
            id,
            after,
            over: false,
        };
        let body = StreamBody::new(stream::unfold(follower, |mut follower| async move {
            let frame = follower.next().await?;
            Some((Ok::<_, BoxError>(Frame::data(frame)), follower))
        }));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"));
        headers.insert(CACHE_CONTROL, UNTOUCHED);
        headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
        let mut response = http::Response::new(body.boxed_unsync());
        *response.headers_mut() = headers;
        Reply::Raw(response)
    }
}

/// Reads a response's events from the store as they come.
struct Follower {
    state: Arc<State>,
    tenant: Arc<str>,
    cx: Ctx,
    id: String,
    after: Option<u64>,
    over: bool,
}

impl Follower {
    async fn next(&mut self) -> Option<Bytes> {
        let quiet = Instant::now();
        while !self.over {
            let news = self.state.runs.news(&self.id);
            let (mut news, patience) = match news {
                Some(mut news) => {
                    news.mark_unchanged();
                    (Some(news), HERE)
                }
                None => (None, ELSEWHERE),
            };
            match self.look().await {
                Ok(frame) if !frame.is_empty() => {
                    self.cx.meter.first_token();
                    return Some(frame);
                }
                Ok(_) if self.over => break,
                Ok(_) => {}
                Err(error) => {
                    self.over = true;
                    self.cx.meter.fail(&error, render::code(&error));
                    return Some(render::event(&error));
                }
            }
            if quiet.elapsed() > SILENCE {
                return Some(Bytes::from_static(b": still at work\n\n"));
            }
            let wake = async {
                match &mut news {
                    // An end is news too.
                    Some(news) => drop(news.changed().await),
                    None => std::future::pending().await,
                }
            };
            let _ = tokio::time::timeout(patience, wake).await;
        }
        self.cx.meter.end(Outcome::Complete);
        None
    }

    /// The events there are by now.
    async fn look(&mut self) -> Result<Bytes> {
        self.state.look(&self.tenant, &self.id).await?;
        let found = self.state.store()?.events(&self.tenant, &self.id, self.after).await?;
        let (response, events, more) = found.ok_or_else(|| stored::unknown(&self.id))?;
        let mut frame = BytesMut::new();
        for (number, event) in events {
            self.after = Some(number);
            frame.extend_from_slice(event.as_bytes());
        }
        self.over = response.lease.is_none() && !more;
        Ok(frame.freeze())
    }
}
