//! The engine: what every front stands on, and which file answers which endpoint.

use std::collections::HashSet;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use http::HeaderMap;

use super::routes::{self, Endpoint};
use super::{Ctx, Engine, Incoming, Readiness, Reply};
use crate::catalog::{self, Catalog};
use crate::clock::Clock;
use crate::error::{Error, Kind, Origin, Result};
use crate::fetch::Fetcher;
use crate::hash::Names;
use crate::ids::Ids;
use crate::keys::{Credentials, Keys, Tenant};
use crate::limits::Limiter;
use crate::memory::Memory;
use crate::meter::price::Prices;
use crate::placed::pinned;
use crate::telemetry::{self, Metrics};
use crate::upstream::{Report, Site, Upstream};

mod adapt;
mod admit;
mod background;
mod chat;
mod completions;
mod conversations;
mod embeddings;
mod follow;
mod homes;
mod hops;
mod interactions;
mod items;
mod keeping;
mod live;
mod media;
mod models;
mod native;
mod opening;
mod patience;
mod recent;
mod responses;
mod stored;
mod walk;

pub use adapt::Learned;
pub use interactions::Unpaid;
pub use models::Listing;
pub use native::Batches;
pub use stored::State;

/// Everything the walk stands on; made by `app`.
#[derive(Debug)]
pub struct Gateway {
    /// Client keys.
    pub keys: Keys,
    /// Limits by key.
    pub limiter: Limiter,
    /// What tokens cost.
    pub prices: Arc<Prices>,
    /// Other names for models.
    pub aliases: std::collections::BTreeMap<String, String>,
    /// What models can do.
    pub catalog: Catalog,
    /// Google, or the simulator.
    pub upstream: Arc<Upstream>,
    /// What models turned out not to take.
    pub learned: Learned,
    /// The memory of thought signatures.
    pub signatures: Arc<Memory>,
    /// Names.
    pub ids: Arc<Ids>,
    /// Time.
    pub clock: Clock,
    /// What is kept between requests.
    pub state: Arc<State>,
    /// Refuse what would be dropped.
    pub strict: bool,
    /// Vertex sites where a native request chooses project and location.
    pub open_places: HashSet<String>,
    /// Interactions in the background whose cost is not booked yet.
    pub unpaid: Unpaid,
    /// Batches whose cost is not booked yet.
    pub batches: Batches,
    /// Upstream's models, and when they were read.
    pub listed: Listing,
    /// Model ids that may become metric labels: those the catalogue names.
    pub labels: Names,
    /// Fetches media that a model does not read by their address, where the operator wants that.
    pub fetcher: Option<Fetcher>,
}

impl Gateway {
    /// Takes over what must outlive a change of configuration.
    pub fn inherit(&mut self, old: &Self) {
        // Nobody else has it yet.
        if let Some(upstream) = Arc::get_mut(&mut self.upstream) {
            upstream.inherit(&old.upstream);
        }
        self.signatures = Arc::clone(&old.signatures);
        self.ids = Arc::clone(&old.ids);
        self.unpaid = old.unpaid.clone();
        self.batches = old.batches.clone();
        old.limiter.adopt(self.limiter.rules().to_vec());
        self.limiter = old.limiter.clone();
        self.keys.inherit(&old.keys);
        self.state = Arc::clone(&old.state);
    }

    /// What the client calls `name`, as Google calls it.
    fn dispatched(&self, name: &str) -> Result<String> {
        let name = self.aliases.get(name).map_or(name, String::as_str);
        let id = catalog::model_id(name)?;
        match self.aliases.get(&id) {
            Some(aliased) => catalog::model_id(aliased),
            None => Ok(id),
        }
    }
}

impl Engine for Gateway {
    fn authenticate(&self, headers: &HeaderMap, query: Option<&str>) -> Result<Arc<Tenant>> {
        self.keys.authenticate(headers, query)
    }

    fn serve(
        self: Arc<Self>,
        cx: Ctx,
        endpoint: Endpoint,
        incoming: Incoming,
    ) -> BoxFuture<'static, Result<Reply>> {
        let native = matches!(endpoint, Endpoint::Native(_) | Endpoint::Models | Endpoint::Model(_));
        if cx.tenant.credentials() == Credentials::Caller && !native {
            // Never ours in place of theirs.
            return refuse(Error::new(
                Kind::Forbidden,
                Origin::Client,
                "This key forwards its own Google credential, which Google's native endpoints do \
                 (/v1beta/models/…); OpenAI's endpoints are served with the gateway's.",
            ));
        }
        match endpoint {
            Endpoint::Chat => pinned(move || async move { self.chat(cx, incoming).await }),
            Endpoint::Completions => pinned(move || async move { self.completions(cx, incoming).await }),
            Endpoint::Responses => pinned(move || async move { self.responses(cx, incoming).await }),
            Endpoint::InputTokens => pinned(move || async move { self.input_tokens(cx, incoming).await }),
            Endpoint::Compact => pinned(move || async move { self.compact(cx, incoming).await }),
            Endpoint::Embeddings => pinned(move || async move { self.embeddings(cx, incoming).await }),
            Endpoint::Models => pinned(move || async move { self.models(cx).await }),
            Endpoint::Model(id) => pinned(move || async move { self.model(cx, id).await }),
            Endpoint::Response(id) => {
                pinned(move || async move { self.stored_response(cx, id, incoming).await })
            }
            Endpoint::CancelResponse(id) => pinned(move || async move { self.cancel_response(cx, id).await }),
            Endpoint::ResponseItems(id) => {
                pinned(move || async move { self.response_items(cx, id, incoming).await })
            }
            Endpoint::Native(native) => pinned(move || self.native(cx, native, incoming)),
            Endpoint::Conversations => {
                pinned(move || async move { self.create_conversation(cx, incoming).await })
            }
            Endpoint::Conversation(id) => {
                pinned(move || async move { self.conversation(cx, id, incoming).await })
            }
            Endpoint::ConversationItems(id) => {
                pinned(move || async move { self.conversation_items(cx, id, incoming).await })
            }
            Endpoint::ConversationItem(id, item) => {
                pinned(move || async move { self.conversation_item(cx, (id, item), incoming).await })
            }
            Endpoint::StoredChat => refuse(Error::new(
                Kind::NotFound,
                Origin::Client,
                "This gateway keeps no completions, so there is none to fetch, change or delete.",
            )),
            Endpoint::Root => {
                let (method, path) = (&incoming.method, incoming.uri.path());
                refuse(routes::unserved(method, path))
            }
        }
    }

    fn uploader(&self, token: &str) -> Result<Arc<Tenant>> {
        self.begun_by(token)
    }

    fn observe(&self, metrics: &Metrics) {
        metrics.sites(self.upstream.look().map(|look| telemetry::metrics::Site {
            name: look.site,
            in_flight: look.in_flight,
            limit: look.limit,
            half_open: look.doubtful,
            open: look.closed,
            cooling: look.cooling,
            refused: look.refused,
            denied: look.denied,
        }));
    }

    fn ready(&self) -> Readiness {
        let simulator = self.upstream.sites().any(Site::is_simulator);
        let sites: Vec<_> = self.upstream.sites().map(Site::name).collect();
        let mut detail = vec![("sites".to_owned(), sites.join(","))];
        if let Some(store) = self.state.kept() {
            detail.push(("store".to_owned(), store.name().to_owned()));
        }
        if simulator {
            let words = "answers are made up: no Google credential is configured";
            detail.push(("upstream".to_owned(), words.to_owned()));
        }
        Readiness { ready: true, simulator, detail }
    }

    fn sites(&self) -> Vec<Report> {
        self.upstream.reports()
    }
}

fn refuse(error: Error) -> BoxFuture<'static, Result<Reply>> {
    Box::pin(std::future::ready(Err(error)))
}
