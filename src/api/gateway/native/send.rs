//! The one place where a native request leaves and its answer comes back.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{
    CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue, USER_AGENT,
};
use http::{HeaderMap, Method, Response, StatusCode};
use tokio_util::sync::CancellationToken;

use super::sift;
use crate::api::Ctx;
use crate::api::gateway::Gateway;
use crate::api::gateway::walk::{ATTEMPTS, SERVED_BY, provider};
use crate::api::passage::{Down, Framing, Rise, Settlement, Told as Paid};
use crate::api::peek::{Peek, Told};
use crate::api::pump::UNTOUCHED;
use crate::api::render_google::Shape;
use crate::body::{self, Body};
use crate::error::Result;
use crate::meter::Outcome;
use crate::upstream::{Credential, Payload, Raw, RawPath, Site};
use crate::usage::Tier;

/// How much of an error is read, and for how long: all of it is looked through for secrets of ours.
const LARGEST_ERROR: usize = 1 << 20;
const ERROR_WITHIN: Duration = Duration::from_secs(10);
const AGENT: HeaderValue = HeaderValue::from_static(concat!("gemway/", env!("CARGO_PKG_VERSION")));

/// One native request, admitted and ready to be sent.
pub(in crate::api::gateway) struct Sending<'s> {
    pub(in crate::api::gateway) site: &'s Site,
    pub(in crate::api::gateway) method: Method,
    pub(in crate::api::gateway) path: RawPath<'s>,
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
    /// Sends a request on and makes a response of the answer, whatever its status.
    ///
    /// # Errors
    /// When there was no answer.
    pub(in crate::api::gateway) async fn send(
        &self,
        cx: &Ctx,
        sending: Sending<'_>,
        cut: CancellationToken,
    ) -> Result<Response<Body>> {
        let Sending { site, method, path, query, payload, credential, billing, rise, label, paid } = sending;
        let mut headers = sift::headers(&cx.headers);
        if matches!(payload, Payload::Whole(_)) {
            headers.remove(CONTENT_LENGTH);
        }
        headers.insert(USER_AGENT, AGENT);
        let raw = Raw { method, path, query, headers, payload, credential };
        let begun = Instant::now();
        let answered = self.upstream.raw(site, raw).await;
        cx.meter.waited(provider(site), begun.elapsed());
        cx.called(site.name(), label, answered.as_ref().map(|response| response.status().as_u16()));
        let (mut head, body) = match answered {
            Ok(response) => response.into_parts(),
            // A body that the client broke off ends the call to Google too: the first cause is told.
            Err(error) => return Err(rise.and_then(|rise| rise.fault()).unwrap_or(error)),
        };
        let tier = head.headers.get("x-gemini-service-tier").and_then(|tier| tier.to_str().ok());
        cx.meter.served(tier.map(Tier::from_google));
        sift::answer(&mut head.headers);
        let served = HeaderValue::from_str(site.name()).unwrap_or(HeaderValue::from_static("-"));
        head.headers.insert(SERVED_BY, served);
        head.headers.insert(ATTEMPTS, HeaderValue::from(1));
        if !head.status.is_success() && head.status != StatusCode::NOT_MODIFIED {
            let ours = head.status.is_server_error();
            cx.meter.end(if ours { Outcome::Failed } else { Outcome::Refused });
            let text = site.mask(error_text(body).await);
            head.headers.insert(CONTENT_LENGTH, text.len().into());
            return Ok(Response::from_parts(head, body::full(text)));
        }
        let framing = framing(&head.headers, billing.framing);
        if framing != Framing::Plain {
            // An error may have to follow what was announced.
            head.headers.remove(CONTENT_LENGTH);
            head.headers.insert(CACHE_CONTROL, UNTOUCHED);
            head.headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
        }
        cx.meter.note(|entry| {
            entry.stream = framing != Framing::Plain;
            entry.passed = true;
        });
        let open = (framing != Framing::Plain).then(|| cx.stream());
        let settlement = Settlement {
            peek: billing.told.map(Peek::new),
            meter: cx.meter.clone(),
            estimate: billing.estimate,
            told: paid,
        };
        let body = Down::wrap(body, (framing, billing.shape), settlement, cut, open);
        Ok(Response::from_parts(head, body))
    }
}

fn framing(headers: &HeaderMap, otherwise: Framing) -> Framing {
    let encoded = headers.get(CONTENT_ENCODING).is_some_and(|value| value != "identity");
    let events = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| value.trim_start().to_ascii_lowercase().starts_with("text/event-stream"));
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
