//! The one place where a native request leaves and its answer comes back.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue};
use http::{HeaderMap, Method, Response, StatusCode};
use tokio_util::sync::CancellationToken;

use super::journey::{Held, Journey, Way};
use super::sift;
use crate::api::Ctx;
use crate::api::gateway::Gateway;
use crate::api::gateway::walk::{ATTEMPTS, SERVED_BY, provider};
use crate::api::passage::{Down, Framing, Rise, Settlement, Told as Paid};
use crate::api::peek::{Peek, Told};
use crate::api::pump::UNTOUCHED;
use crate::api::render_google::Shape;
use crate::body::{self, Body};
use crate::error::{Error, Result};
use crate::meter::Outcome;
use crate::placed::boxed;
use crate::upstream::{Credential, Payload, Raw, Site, refusal};
use crate::usage::Tier;

/// How much of an error is read, and for how long: all of it is looked through for secrets of ours.
const LARGEST_ERROR: usize = 1 << 20;
const ERROR_WITHIN: Duration = Duration::from_secs(10);

/// The media type of server-sent events.
const EVENTS: &[u8] = b"text/event-stream";

/// One native request, admitted and ready to be sent.
pub(in crate::api::gateway) struct Sending<'s> {
    pub(in crate::api::gateway) way: Way<'s>,
    pub(in crate::api::gateway) method: Method,
    pub(in crate::api::gateway) query: Option<&'s str>,
    pub(in crate::api::gateway) payload: Payload,
    pub(in crate::api::gateway) credential: Credential,
    pub(in crate::api::gateway) billing: Billing,
    /// How the body on its way up fares.
    pub(in crate::api::gateway) rise: Option<Rise>,
    /// The model, as a metric label.
    pub(in crate::api::gateway) label: &'s str,
    /// Called when Google has said what it cost.
    pub(in crate::api::gateway) paid: Option<Paid>,
}

/// How the answer is read and settled.
#[derive(Clone, Copy, Debug)]
pub(in crate::api::gateway) struct Billing {
    /// Where it says what it cost; nothing where it costs nothing.
    pub(in crate::api::gateway) told: Option<Told>,
    /// Tokens of the prompt, if it should not say; without it, silence costs nothing.
    pub(in crate::api::gateway) estimate: Option<u64>,
    /// How its errors look.
    pub(in crate::api::gateway) shape: Shape,
    /// How its pieces are framed, unless its head says that they are events.
    pub(in crate::api::gateway) framing: Framing,
}

impl Billing {
    /// An answer that costs no tokens.
    pub(in crate::api::gateway) const FREE: Self =
        Self { told: None, estimate: None, shape: Shape::Rpc, framing: Framing::Plain };
}

impl Gateway {
    /// Sends a request on, again and elsewhere where that can help, and makes a response of the answer, whatever
    /// its status.
    ///
    /// # Errors
    /// When there was no answer.
    pub(in crate::api::gateway) fn send<'s>(
        &'s self,
        cx: &'s Ctx,
        sending: Sending<'s>,
        cut: CancellationToken,
    ) -> impl Future<Output = Result<Response<Body>>> + Send {
        // Taken apart outside of the future, which would else have room for the whole and for the parts.
        let Sending { way, method, query, payload, credential, billing, rise, label, paid } = sending;
        let mut journey = Journey::new(way);
        let mut held = Held::of(payload);
        async move {
            // What Google said when it did not serve: told when nobody else serves either.
            let mut said: Option<Box<Response<Body>>> = None;
            let response = loop {
                // The pause before another try is Google's doing, not ours.
                let paused = (journey.sent() > 0).then(Instant::now);
                let (site, to) = match journey.next(self, &credential).await {
                    Ok(next) => next,
                    Err(error) => {
                        return said.map_or(Err(error), |said| Ok(ended(cx, *said, journey.sent())));
                    }
                };
                if let Some(paused) = paused {
                    cx.meter.waited(provider(site), paused);
                }
                let payload = held.next();
                let mut raw = Raw {
                    method: &method,
                    path: to.raw(),
                    query,
                    headers: sift::headers(&cx.headers, matches!(payload, Payload::Whole(_))),
                    payload,
                    credential: &credential,
                    trace: cx.meter.traceparent(),
                };
                let begun = Instant::now();
                let answered = self.upstream.raw(site, journey.leg(), &mut raw).await;
                // A body that nobody took comes back by being dropped.
                drop(raw);
                cx.meter.waited(provider(site), begun);
                cx.called(site.name(), label, answered.as_ref().map(|response| response.status().as_u16()));
                let error = match answered {
                    Ok(response) if serves(response.status()) => break response,
                    Ok(response) => {
                        let (answer, error) = Box::pin(refused(response, site)).await;
                        // A quota tells more than whatever befell another site.
                        if said.as_ref().is_none_or(|said| said.status() != StatusCode::TOO_MANY_REQUESTS) {
                            said = Some(Box::new(answer));
                        }
                        error
                    }
                    // A body that the client broke off ends the call to Google too: the first cause is told.
                    Err(error) => match rise.as_ref().and_then(Rise::fault) {
                        Some(fault) => return Err(fault),
                        None => error,
                    },
                };
                if !held.is_there(rise.as_ref(), &cx.meter) {
                    journey.stay();
                }
                if let Err(error) = journey.failed(self, error) {
                    return said.map_or(Err(error), |said| Ok(ended(cx, *said, journey.sent())));
                }
            };
            let course = journey.worked();
            let settlement = Settlement {
                peek: billing.told.map(|told| boxed(|| Peek::new(told))),
                meter: cx.meter.clone(),
                estimate: billing.estimate,
                told: paid,
                course,
            };
            Ok(served(cx, response, (billing, settlement, cut)))
        }
    }
}

/// Google's answer as it is passed on. Who gave it, after how many calls, is said on its way out.
fn served(
    cx: &Ctx,
    response: Response<Body>,
    (billing, settlement, cut): (Billing, Settlement, CancellationToken),
) -> Response<Body> {
    let (mut head, body) = response.into_parts();
    let tier = head.headers.get("x-gemini-service-tier").and_then(|tier| tier.to_str().ok());
    let tier = tier.map(Tier::from_google);
    sift::answer(&mut head.headers);
    let framing = framing(&head.headers, billing.framing);
    if framing != Framing::Plain {
        // An error may have to follow what was announced.
        head.headers.remove(CONTENT_LENGTH);
        head.headers.insert(CACHE_CONTROL, UNTOUCHED);
        head.headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    }
    cx.meter.note(|entry| {
        entry.served(tier);
        entry.stream = framing != Framing::Plain;
        entry.passed = true;
    });
    let open = (framing != Framing::Plain).then(|| cx.stream());
    let body = Down::wrap(body, (framing, billing.shape), settlement, cut, open);
    Response::from_parts(head, body)
}

/// A refusal of Google's, to be passed on, and what it says.
async fn refused(response: Response<Body>, site: &Site) -> (Response<Body>, Error) {
    let (mut head, body) = response.into_parts();
    let text = error_text(body).await;
    let error = refusal(&head, &text, site);
    sift::answer(&mut head.headers);
    let name = HeaderValue::from_str(site.name());
    head.headers.insert(SERVED_BY, name.unwrap_or(HeaderValue::from_static("-")));
    let text = site.mask(text);
    head.headers.insert(CONTENT_LENGTH, text.len().into());
    (Response::from_parts(head, body::full(text)), error)
}

/// Whether this is what was asked for, rather than a refusal.
fn serves(status: StatusCode) -> bool {
    status.is_success() || status == StatusCode::NOT_MODIFIED
}

/// A refusal of Google's as the end of the request.
fn ended(cx: &Ctx, mut said: Response<Body>, calls: u32) -> Response<Body> {
    let failed = said.status().is_server_error();
    cx.meter.end(if failed { Outcome::Failed } else { Outcome::Refused });
    said.headers_mut().insert(ATTEMPTS, HeaderValue::from(calls));
    said
}

fn framing(headers: &HeaderMap, otherwise: Framing) -> Framing {
    let encoded = headers.get(CONTENT_ENCODING).is_some_and(|value| value != "identity");
    let events = headers.get(CONTENT_TYPE).is_some_and(|value| {
        let media = value.as_bytes().trim_ascii_start();
        media.get(..EVENTS.len()).is_some_and(|start| start.eq_ignore_ascii_case(EVENTS))
    });
    match (encoded, events) {
        (true, _) => Framing::Plain,
        (false, true) => Framing::Sse,
        (false, false) => otherwise,
    }
}

/// An error's body; one that cannot be read is empty, for the status is an error all the same.
async fn error_text(body: Body) -> Bytes {
    match tokio::time::timeout(ERROR_WITHIN, body::read(body, LARGEST_ERROR)).await {
        Ok(Ok(text)) => text,
        Ok(Err(_)) | Err(_) => Bytes::new(),
    }
}
