//! What Google keeps (caches, files, batches, operations …) and what it tells of its models.

use bytes::Bytes;
use http::{Method, Response};
use serde_json::value::RawValue;

use super::journey::{Again, Way};
use super::send::{Billing, Sending};
use super::{Goal, Walk, payload};
use crate::api::Ctx;
use crate::api::gateway::Gateway;
use crate::api::gateway::admit::Size;
use crate::api::native_routes::segment;
use crate::api::passage::{Framing, Told as Paid};
use crate::api::peek::Told;
use crate::api::render_google::Shape;
use crate::body::{self, Body, Rope};
use crate::error::{Error, Kind, Origin, Result};
use crate::telemetry::metrics::UNRESOLVED;
use crate::upstream::Payload;

/// The largest page of models.
const LARGEST_LIST: usize = 16 << 20;

impl Gateway {
    /// A thing that Google keeps, or a collection of them.
    pub(in crate::api::gateway) async fn kept(
        &self,
        walk: Walk<'_>,
        collection: &str,
        path: &str,
    ) -> Result<Response<Body>> {
        let Walk { cx, native, mut incoming, credential, query } = walk;
        let method = incoming.method.clone();
        // A cache or a batch is made for a model, which is named in the body and has to be allowed.
        let creates = method == Method::POST
            && path == collection
            && ["cachedContents", "batchPredictionJobs"].contains(&path);
        let site = self.speaker(native, None)?;
        let address = self.address(native, site, &credential, Goal::Below(path))?;
        self.admit(cx, "", Size::FREE).await?;
        let cut = incoming.cut.clone();
        let (payload, rise) = if creates {
            (Payload::Whole(self.allowed_model(cx, incoming.whole(cx).await?, "model")?.join()), None)
        } else if method == Method::GET || method == Method::HEAD || method == Method::DELETE {
            incoming.body = body::empty();
            payload(cx, incoming, true).await?
        } else {
            let replay = super::sift::length(&cx.headers).is_some_and(|length| length <= super::REPLAYABLE);
            payload(cx, incoming, replay).await?
        };
        let owed = if method == Method::GET { self.batches.model(path) } else { None };
        if let Some(model) = &owed {
            cx.meter.resolved(model, self.labels.get(model).map(String::as_str), model);
        }
        let (batches, name) = (self.batches.clone(), path.to_owned());
        let told = owed.is_some().then_some(Told::Batch);
        let shape = if collection == "webhooks" { Shape::Word } else { Shape::Rpc };
        let sending = Sending {
            way: Way::To(site, address.raw(), Again::of(cx, &method)?),
            method,
            query: query.as_deref(),
            payload,
            credential,
            billing: Billing { told, shape, framing: Framing::Plain, ..Billing::FREE },
            rise,
            label: UNRESOLVED,
            paid: owed.map(|_| Paid(Box::new(move || batches.paid(&name)))),
        };
        self.send(cx, sending, cut).await
    }

    /// The description of one model.
    pub(in crate::api::gateway) async fn describe_model(
        &self,
        walk: Walk<'_>,
        family: &str,
        model: &str,
    ) -> Result<Response<Body>> {
        let dispatched = match family {
            "tunedModels" | "endpoints" => self.dispatched(&format!("{family}/{model}"))?,
            _ => self.dispatched(model)?,
        };
        walk.cx.tenant.may_use(&dispatched)?;
        let last = dispatched.rsplit('/').next().unwrap_or(&dispatched);
        let path = format!("{family}/{}", segment(last));
        self.look_up(walk, Some(&dispatched), &path).await
    }

    /// The list of models. A key that may not use all of them does not see all of them.
    pub(in crate::api::gateway) async fn list_models(
        &self,
        walk: Walk<'_>,
        path: &str,
    ) -> Result<Response<Body>> {
        let tenant = std::sync::Arc::clone(&walk.cx.tenant);
        let response = self.look_up(walk, None, path).await?;
        if tenant.sees_all() || !response.status().is_success() {
            return Ok(response);
        }
        let (mut head, body) = response.into_parts();
        let bytes = body::read(body, LARGEST_LIST).await.map_err(|error| {
            Error::new(Kind::UpstreamBroken, Origin::Upstream, "Google's list of models cannot be read.")
                .because(error)
        })?;
        let visible = visible(&bytes, |name| self.dispatched(name).is_ok_and(|id| tenant.sees(&id)))?;
        head.headers.insert(http::header::CONTENT_LENGTH, visible.len().into());
        Ok(Response::from_parts(head, body::full(visible)))
    }

    async fn look_up(&self, walk: Walk<'_>, model: Option<&str>, path: &str) -> Result<Response<Body>> {
        let Walk { cx, native, incoming, credential, query } = walk;
        let site = self.speaker(native, model)?;
        let address = self.address(native, site, &credential, Goal::Models(path))?;
        self.admit(cx, "", Size::FREE).await?;
        let sending = Sending {
            way: Way::To(site, address.raw(), Again::of(cx, &incoming.method)?),
            method: incoming.method.clone(),
            query: query.as_deref(),
            payload: Payload::Whole(Bytes::new()),
            credential,
            billing: Billing::FREE,
            rise: None,
            label: UNRESOLVED,
            paid: None,
        };
        self.send(cx, sending, incoming.cut).await
    }

    /// Checks the model (or whatever else `member` names) at the top of a JSON body. An alias is replaced where it
    /// stands; nothing else of the body is touched.
    ///
    /// # Errors
    /// When the body is not a JSON object, or the caller may not use the model.
    pub(in crate::api::gateway) fn allowed_model(
        &self,
        cx: &Ctx,
        body: Bytes,
        member: &'static str,
    ) -> Result<Rope> {
        let top: std::collections::HashMap<&str, &RawValue> =
            serde_json::from_slice(&body).map_err(|error| {
                Error::new(
                    Kind::Malformed,
                    Origin::Client,
                    format!("The body is not a JSON object: {error}."),
                )
            })?;
        let Some(token) = top.get(member) else { return Ok(body.into()) };
        let Ok(named) = serde_json::from_str::<String>(token.get()) else {
            return Err(Error::invalid(member, "The model must be a string."));
        };
        // `models/x`, `projects/…/publishers/google/models/x` and `x` are the same model.
        let (before, name) = match named.rfind("models/") {
            Some(at) => named.split_at(at + "models/".len()),
            None => ("", named.as_str()),
        };
        let model = self.dispatched(name)?;
        cx.meter.resolved(name, self.labels.get(&model).map(String::as_str), &model);
        cx.tenant.may_use(&model)?;
        if model == name {
            return Ok(body.into());
        }
        let at = token.get().as_ptr().addr().saturating_sub(body.as_ptr().addr());
        let replaced = serde_json::to_vec(&format!("{before}{model}")).map_err(Error::internal)?;
        let mut rope = Rope::default();
        rope.push(body.slice(..at));
        rope.push(replaced.into());
        rope.push(body.slice(at + token.get().len()..));
        Ok(rope)
    }
}

/// A page of models without those that a key does not see; the order stays.
fn visible(page: &[u8], sees: impl Fn(&str) -> bool) -> Result<Vec<u8>> {
    let unread = |error: serde_json::Error| {
        Error::new(Kind::UpstreamBroken, Origin::Upstream, "Google's list of models cannot be read.")
            .because(error)
    };
    let page: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(page).map_err(unread)?;
    let mut kept = serde_json::Map::new();
    for (member, mut value) in page {
        if let Some(models) = value.as_array_mut() {
            models.retain(|model| model.get("name").and_then(serde_json::Value::as_str).is_some_and(&sees));
        }
        kept.insert(member, value);
    }
    serde_json::to_vec(&kept).map_err(Error::internal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_loses_what_is_not_seen_and_nothing_else() {
        let page = br#"{"models":[{"name":"models/a","x":1},{"name":"models/b"}],"nextPageToken":"t"}"#;
        let left = visible(page, |name| name == "models/a").unwrap();
        assert_eq!(
            String::from_utf8(left).unwrap(),
            r#"{"models":[{"name":"models/a","x":1}],"nextPageToken":"t"}"#
        );
    }
}
