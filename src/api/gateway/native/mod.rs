//! Google's own endpoints behind the same keys: the same bytes in both directions, our credential in place of
//! the client's, limits and metering by peeking.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::{Either, ready};
use http::Method;

use super::Gateway;
use crate::api::gateway::admit::Size;
use crate::api::native_routes::{Native, Place, Surface, Thing, segment};
use crate::api::passage::{Framing, Rise, Up};
use crate::api::peek::Told;
use crate::api::render_google::Shape;
use crate::api::{Ctx, Incoming, Reply};
use crate::error::{Error, Kind, Origin, Result};
use crate::keys::Credentials;
use crate::telemetry::metrics::UNRESOLVED;
use crate::translate::Backend;
use crate::upstream::{Credential, Payload, RawPath, Site};

mod batches;
pub(super) mod journey;
mod kept;
pub(super) mod send;
mod session;
pub(super) mod sift;

pub use batches::Batches;
use journey::{Again, Way};
use send::{Billing, Sending};

/// A body up to this size is read before it is sent, so that it can be sent again: elsewhere, or with a new token.
const REPLAYABLE: u64 = 1 << 20;

/// Methods of a model that leave something behind at Google: sent twice, there would be two of it.
const MAKING: [&str; 3] = ["batchGenerateContent", "asyncBatchEmbedContent", "predictLongRunning"];

/// Methods whose bodies name the model of the path once more.
const NAMING: [&str; 5] =
    ["embedContent", "batchEmbedContents", "countTokens", "batchGenerateContent", "asyncBatchEmbedContent"];

/// Where a request goes at a site.
#[derive(Debug)]
pub(super) struct Address {
    /// The caller's version; none is the site's own.
    version: Option<&'static str>,
    /// Whether a project and a location stand in front of the rest.
    placed: bool,
    /// The caller's own, where the site does not decide.
    project: Option<String>,
    location: Option<String>,
    rest: String,
}

impl Address {
    pub(super) fn raw(&self) -> RawPath<'_> {
        let Self { version, placed, project, location, rest } = self;
        if *placed {
            let place = (project.as_deref(), location.as_deref());
            RawPath::Placed { version: *version, place, rest }
        } else {
            RawPath::Bare { version: *version, rest }
        }
    }
}

/// What an address points at.
#[derive(Clone, Copy, Debug)]
pub(super) enum Goal<'t> {
    /// A model: its family, its dispatched name, its method.
    Call(&'t str, &'t str, &'t str),
    /// The description of a model, or the list of them.
    Models(&'t str),
    /// Anything else below version and place.
    Below(&'t str),
}

/// One native request on its way: what all of the handlers need.
pub(super) struct Walk<'w> {
    pub(super) cx: &'w Ctx,
    pub(super) native: &'w Native,
    pub(super) incoming: Incoming,
    pub(super) credential: Credential,
    /// The query without credentials.
    pub(super) query: Option<String>,
}

impl Gateway {
    /// Answers a native request.
    ///
    /// # Errors
    /// When the caller may not, the limits say no, no site speaks this surface, or there is no answer.
    #[expect(clippy::manual_async_fn, reason = "an async fn has room for its arguments twice")]
    pub(super) fn native(
        self: Arc<Self>,
        cx: Ctx,
        native: Native,
        incoming: Incoming,
    ) -> impl Future<Output = Result<Reply>> + Send {
        async move {
            let credential = self.credential(&cx, &native, incoming.uri.query())?;
            let query = sift::query(incoming.uri.query());
            let walk = Walk { cx: &cx, native: &native, incoming, credential, query };
            // Most are calls of a model. The others wait in boxes, or all had to carry the largest of them.
            let response = match &native.thing {
                Thing::Call { family, model, method } => self.call_model(walk, (family, model, method)).await,
                Thing::Model { family, model } => Box::pin(self.describe_model(walk, family, model)).await,
                Thing::Models(path) => Box::pin(self.list_models(walk, path)).await,
                Thing::Kept { collection: "interactions", path } => {
                    Box::pin(self.interactions(walk, path)).await
                }
                Thing::Kept { collection, path } => Box::pin(self.kept(walk, collection, path)).await,
                Thing::Upload(path) => Box::pin(self.upload(walk, path)).await,
                Thing::Session(token) => Box::pin(self.continue_upload(walk, token)).await,
            };
            response.map(Reply::Raw)
        }
    }

    fn call_model<'w>(
        &'w self,
        walk: Walk<'w>,
        (family, model, method): (&'w str, &'w str, &'static str),
    ) -> impl Future<Output = Result<http::Response<crate::body::Body>>> + Send {
        let Walk { cx, native, incoming, credential, query } = walk;
        async move {
            let asked = match family {
                "tunedModels" | "endpoints" => Cow::from(format!("{family}/{model}")),
                _ => Cow::from(model),
            };
            let model = self.dispatched(&asked)?;
            cx.meter.resolved(&asked, self.labels.get(&model).map(String::as_str), &model);
            cx.tenant.may_use(&model)?;
            let length = sift::length(&cx.headers);
            let told = told(method);
            let batch = matches!(method, "batchGenerateContent" | "asyncBatchEmbedContent");
            let estimate = if told.is_some() || batch { length.unwrap_or(0) / 4 } else { 0 };
            let size = match told {
                Some(_) => Size::about(estimate).unread(),
                // It costs when it is done; whoever has nothing left is not to begin it.
                None if batch => Size::about(estimate),
                None => Size::FREE,
            };
            self.admit(cx, &model, size).await?;
            let cut = incoming.cut.clone();
            // An alias has to be replaced in the body too, where these methods name the model once more.
            let named = model != asked && NAMING.contains(&method);
            let replay = named || length.is_some_and(|length| length <= REPLAYABLE);
            let (payload, rise) = payload(cx, incoming, replay).await?;
            let payload = match payload {
                Payload::Whole(body) if named => Payload::Whole(renamed(&body, &asked, &model)),
                other @ (Payload::Whole(_) | Payload::Stream(_)) => other,
            };
            let near = self.speaker(native, Some(&model))?;
            let address;
            let way = if MAKING.contains(&method) || matches!(credential, Credential::Caller(_)) {
                address = self.address(native, near, &credential, Goal::Call(family, &model, method))?;
                // What the caller's own quota and credential do says nothing of ours.
                let alike = if MAKING.contains(&method) { Method::POST } else { Method::GET };
                let again = Again::of(cx, &alike)?;
                Way::To(near, address.raw(), again)
            } else {
                self.way(cx, native, near, (family, &model, method), &payload)?
            };
            let sse = query.as_deref().is_some_and(|query| query.split('&').any(|pair| pair == "alt=sse"));
            let framing =
                if method == "streamGenerateContent" && !sse { Framing::Array } else { Framing::Plain };
            let sending = Sending {
                way,
                method: Method::POST,
                query: query.as_deref(),
                payload,
                credential,
                billing: Billing { told, estimate: Some(estimate), shape: Shape::Rpc, framing },
                rise,
                label: self.labels.get(&model).map_or(UNRESOLVED, String::as_str),
                paid: None,
            };
            let response = self.send(cx, sending, cut).await?;
            if batch && response.status().is_success() {
                return Box::pin(self.batch_made(response, &model)).await;
            }
            Ok(response)
        }
    }

    /// Whose credential goes upstream.
    fn credential(&self, cx: &Ctx, native: &Native, query: Option<&str>) -> Result<Credential> {
        match cx.tenant.credentials() {
            Credentials::Gateway => Ok(Credential::Site),
            Credentials::Caller => match self.keys.foreign(&cx.headers, query) {
                Some(theirs) => Ok(Credential::Caller(theirs)),
                // The address of an upload is its credential.
                None if matches!(native.thing, Thing::Session(_)) => Ok(Credential::None),
                None => Err(Error::new(
                    Kind::Unauthenticated,
                    Origin::Client,
                    "This gateway forwards your own Google credential, and the request carries none. Send a Google \
                     API key in x-goog-api-key or an access token in Authorization, and the gateway's key, if it \
                     asks for one, in x-gemway-key.",
                )),
            },
        }
    }

    /// The site for a native request: of those that the model's route names, the first that speaks this surface,
    /// preferably at the location that the path names; else the first of them at all.
    pub(super) fn speaker(&self, native: &Native, model: Option<&str>) -> Result<&Site> {
        let mut sites = self.upstream.on_route(model);
        let wanted = if native.surface == Surface::Gemini { Backend::GeminiApi } else { Backend::Vertex };
        let speaks = |site: &&Site| site.is_simulator() || site.backend() == wanted;
        let near = |site: &&Site| match &native.surface {
            Surface::Vertex(Some(place)) => site.serves(&place.location),
            Surface::Vertex(None) | Surface::Gemini => false,
        };
        let found = sites.clone().filter(speaks).find(near);
        let found = found.or_else(|| sites.clone().find(speaks)).or_else(|| sites.next());
        found.ok_or_else(|| Error::internal("no site"))
    }

    /// What the address of a request is at a site. A call to a model is understood on both surfaces; everything
    /// else lives on one.
    pub(super) fn address(
        &self,
        native: &Native,
        site: &Site,
        credential: &Credential,
        goal: Goal<'_>,
    ) -> Result<Address> {
        let vertex = native.surface != Surface::Gemini;
        let simulated = site.is_simulator();
        let at_vertex = if simulated { vertex } else { site.backend() == Backend::Vertex };
        if at_vertex != vertex && !matches!(goal, Goal::Call("models" | "publishers/google/models", ..)) {
            let (want, have) =
                if vertex { ("Vertex AI", "the Gemini API") } else { ("the Gemini API", "Vertex AI") };
            let words = format!("This path belongs to {want}, and the sites of this gateway speak {have}.");
            return Err(Error::new(Kind::NotFound, Origin::Client, words).code("unsupported_endpoint"));
        }
        // Where the surface changes, so does the version: the site's own is right there.
        let version = (at_vertex == vertex).then_some(native.version);
        let rest = match goal {
            Goal::Call("models" | "publishers/google/models", model, method) => {
                let family = if at_vertex { "publishers/google/models" } else { "models" };
                [family, "/", &segment(model), ":", method].concat()
            }
            Goal::Call(family, model, method) => {
                [family, "/", &segment(model.rsplit('/').next().unwrap_or(model)), ":", method].concat()
            }
            Goal::Models(path) | Goal::Below(path) => path.to_owned(),
        };
        let bare = |rest| Address { version, placed: false, project: None, location: None, rest };
        Ok(match (&native.surface, goal) {
            // The simulator has no place of its own: it is told the caller's.
            (Surface::Vertex(Some(Place { project, location })), _) if simulated => {
                bare(format!("projects/{project}/locations/{location}/{rest}"))
            }
            _ if simulated || !at_vertex => bare(rest),
            // The publishers' models are the same everywhere.
            (Surface::Vertex(None) | Surface::Gemini, Goal::Models(_) | Goal::Below(_)) => bare(rest),
            (Surface::Vertex(None) | Surface::Gemini, Goal::Call(..)) => {
                Address { version, placed: true, project: None, location: None, rest }
            }
            (Surface::Vertex(Some(place)), _) => {
                // Our credential works where the operator says, unless they leave it to the caller.
                let theirs =
                    matches!(credential, Credential::Caller(_)) || self.open_places.contains(site.name());
                let place = theirs.then_some(place);
                Address {
                    version,
                    placed: true,
                    project: place.map(|place| place.project.clone()),
                    location: place.map(|place| place.location.clone()),
                    rest,
                }
            }
        })
    }
}

/// A body with another model in its members `model`; nothing else of it changes.
fn renamed(body: &Bytes, asked: &str, model: &str) -> Bytes {
    let finder = memchr::memmem::Finder::new(b"\"model\"");
    let wanted = [format!("\"models/{asked}\""), format!("\"{asked}\"")];
    let mut out = Vec::with_capacity(body.len() + 64);
    let mut rest: &[u8] = body;
    while let Some(at) = finder.find(rest) {
        let (before, after) = rest.split_at(at + finder.needle().len());
        out.extend_from_slice(before);
        let gap = after.iter().take_while(|byte| **byte == b':' || byte.is_ascii_whitespace()).count();
        let (gap, value) = after.split_at(gap);
        out.extend_from_slice(gap);
        rest = value;
        if let Some(name) = wanted.iter().find(|name| value.starts_with(name.as_bytes())) {
            out.extend_from_slice(format!("\"models/{model}\"").as_bytes());
            rest = value.get(name.len()..).unwrap_or_default();
        }
    }
    out.extend_from_slice(rest);
    out.into()
}

/// The body, in hand where it may have to be sent twice.
fn payload(
    cx: &Ctx,
    incoming: Incoming,
    replay: bool,
) -> impl Future<Output = Result<(Payload, Option<Rise>)>> + Send {
    if replay {
        return Either::Left(incoming.whole(cx).map(|whole| Ok((Payload::Whole(whole?), None))));
    }
    let (body, rise) = Up::wrap(incoming.body, incoming.intake, cx.meter.clone());
    Either::Right(ready(Ok((Payload::Stream(body), Some(rise)))))
}

/// Where the counts of a method's answer stand; nothing where it costs no tokens, or not yet.
fn told(method: &str) -> Option<Told> {
    match method {
        "generateContent" | "streamGenerateContent" | "embedContent" | "batchEmbedContents" => {
            Some(Told::UsageMetadata)
        }
        "predict" => Some(Told::TokenCount),
        _ => None,
    }
}
