//! Google's Interactions API: passed on like every native endpoint, with the model of a new interaction checked
//! and its tokens booked.
//!
//! One that runs in the background is answered before it has cost anything; what it cost is seen when somebody
//! looks at it. So the names of those are remembered, and the first look that tells the cost is booked.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Response};
use parking_lot::Mutex;
use serde::Deserialize;

use super::Gateway;
use super::native::journey::{Again, Way};
use super::native::send::{Billing, Sending};
use super::native::{Goal, Walk, sift};
use crate::api::Ctx;
use crate::api::gateway::admit::Size;
use crate::api::passage::{Framing, Told as Paid};
use crate::api::peek::Told;
use crate::api::render_google::Shape;
use crate::body::{self, Body, Rope};
use crate::error::{Error, Kind, Origin, Result};
use crate::telemetry::metrics::UNRESOLVED;
use crate::upstream::Payload;

/// How many interactions in the background are remembered.
const ROOM: usize = 10_000;
/// The largest answer that only says that work has begun.
const LARGEST_BEGUN: usize = 4 << 20;

/// Interactions that have cost what nobody has booked yet, the oldest first.
#[derive(Clone, Debug, Default)]
pub struct Unpaid(Arc<Mutex<VecDeque<String>>>);

impl Unpaid {
    fn add(&self, id: String) {
        let mut ids = self.0.lock();
        if ids.len() >= ROOM {
            ids.pop_front();
        }
        ids.push_back(id);
    }

    fn has(&self, id: &str) -> bool {
        self.0.lock().iter().any(|known| known == id)
    }

    fn remove(&self, id: &str) {
        self.0.lock().retain(|known| known != id);
    }
}

/// What a new interaction says of itself.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Asked {
    model: Option<serde::de::IgnoredAny>,
    agent: Option<String>,
    background: bool,
    stream: bool,
}

impl Gateway {
    /// Creates an interaction, looks at one, cancels or deletes one.
    pub(super) async fn interactions(&self, walk: Walk<'_>, path: &str) -> Result<Response<Body>> {
        let Walk { cx, native, incoming, credential, query } = walk;
        let method = incoming.method.clone();
        let creates = method == Method::POST && path == "interactions";
        let site = self.speaker(native, None)?;
        let address = self.address(native, site, &credential, Goal::Below(path))?;
        let estimate = if creates { sift::length(&cx.headers).unwrap_or(0) / 4 } else { 0 };
        let cut = incoming.cut.clone();
        let (body, quiet) = match (creates, method == Method::POST || method == Method::PATCH) {
            (true, _) => self.new_interaction(cx, incoming.whole(cx).await?)?,
            (false, true) => (incoming.whole(cx).await?.into(), false),
            (false, false) => (Rope::default(), false),
        };
        let id = path.split(['/', ':']).nth(1).unwrap_or_default().to_owned();
        let owed = method == Method::GET && self.unpaid.has(&id);
        let unpaid = self.unpaid.clone();
        let size = if creates { Size::about(estimate).unread() } else { Size::FREE };
        let model = cx.meter.entry().asked.unwrap_or_default();
        self.admit(cx, &model, size).await?;
        let sending = Sending {
            way: Way::To(site, address.raw(), Again::of(cx, &method)?),
            method,
            query: query.as_deref(),
            payload: Payload::Whole(body.join()),
            credential,
            billing: Billing {
                told: (creates || owed).then_some(Told::Usage),
                estimate: (creates && !quiet).then_some(estimate),
                shape: Shape::Word,
                framing: Framing::Plain,
            },
            rise: None,
            label: UNRESOLVED,
            paid: owed.then(|| Paid(Box::new(move || unpaid.remove(&id)))),
        };
        let response = self.send(cx, sending, cut).await?;
        if quiet && response.status().is_success() { self.begun(response).await } else { Ok(response) }
    }

    /// Remembers what has begun in the background. The answer is small: it only gives it a name.
    async fn begun(&self, response: Response<Body>) -> Result<Response<Body>> {
        #[derive(Deserialize)]
        struct Begun {
            id: String,
            usage: Option<serde::de::IgnoredAny>,
        }
        let (head, body) = response.into_parts();
        let bytes = body::read(body, LARGEST_BEGUN).await.map_err(|error| {
            Error::new(Kind::UpstreamBroken, Origin::Upstream, "Google's answer cannot be read.")
                .because(error)
        })?;
        if let Ok(Begun { id, usage: None }) = serde_json::from_slice(&bytes) {
            self.unpaid.add(id);
        }
        Ok(Response::from_parts(head, body::full(bytes)))
    }

    /// Checks the model or the agent of a new interaction.
    ///
    /// The second of the pair: it only begins now, and will cost later.
    fn new_interaction(&self, cx: &Ctx, body: Bytes) -> Result<(Rope, bool)> {
        let asked: Asked = serde_json::from_slice(&body).map_err(|error| {
            Error::new(Kind::Malformed, Origin::Client, format!("The body cannot be read: {error}."))
        })?;
        let quiet = asked.background && !asked.stream;
        if let Some(agent) = asked.agent.as_deref().filter(|_| asked.model.is_none()) {
            cx.meter.model(agent, None);
            cx.tenant.may_use(agent)?;
            return Ok((body.into(), quiet));
        }
        self.allowed_model(cx, body, "model").map(|body| (body, quiet))
    }
}
