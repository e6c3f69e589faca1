//! Google's Interactions API: passed on like every native endpoint, with the model of a new interaction checked
//! and its tokens booked.

use bytes::Bytes;
use http::{Method, Response};
use serde::Deserialize;

use super::Gateway;
use super::native::send::{Billing, Sending};
use super::native::{Goal, Walk, sift};
use crate::api::Ctx;
use crate::api::gateway::admit::Size;
use crate::api::passage::Framing;
use crate::api::peek::Told;
use crate::api::render_google::Shape;
use crate::body::{Body, Rope};
use crate::error::{Error, Kind, Origin, Result};
use crate::telemetry::metrics::UNRESOLVED;
use crate::upstream::Payload;

/// What a new interaction says of itself.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Asked {
    model: Option<serde::de::IgnoredAny>,
    agent: Option<String>,
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
        let body = match (creates, method == Method::POST || method == Method::PATCH) {
            (true, _) => self.new_interaction(cx, incoming.whole(cx).await?)?,
            (false, true) => incoming.whole(cx).await?.into(),
            (false, false) => Rope::default(),
        };
        let size = if creates { Size::about(estimate) } else { Size::FREE };
        let model = cx.meter.entry().asked.unwrap_or_default();
        self.admit(cx, &model, size).await?;
        let sending = Sending {
            site,
            method,
            path: address.raw(),
            query: query.as_deref(),
            payload: Payload::Whole(body.join()),
            credential,
            billing: Billing {
                told: creates.then_some(Told::Usage),
                estimate,
                shape: Shape::Word,
                framing: Framing::Plain,
            },
            rise: None,
            label: UNRESOLVED,
        };
        self.send(cx, sending, cut).await
    }

    /// Checks the model or the agent of a new interaction.
    fn new_interaction(&self, cx: &Ctx, body: Bytes) -> Result<Rope> {
        let asked: Asked = serde_json::from_slice(&body).map_err(|error| {
            Error::new(Kind::Malformed, Origin::Client, format!("The body cannot be read: {error}."))
        })?;
        if let Some(agent) = asked.agent.as_deref().filter(|_| asked.model.is_none()) {
            cx.meter.model(agent, None);
            cx.tenant.may_use(agent)?;
            return Ok(body.into());
        }
        self.allowed_model(cx, body, "model")
    }
}
