//! What the gateway remembers of responses, and the endpoints that tell it.

use std::sync::{Arc, Weak};
use std::time::Duration;

use http::{HeaderMap, Method};
use parking_lot::Mutex;

use super::background::Runs;
use super::live::Lives;
use super::recent::Recent;
use super::{Gateway, items};
use crate::api::{Ctx, Incoming, Reply};
use crate::clock::Clock;
use crate::error::{Error, Kind, Origin, Result};
use crate::ids::Ids;
use crate::store::{Kept, Orphan, Response, Store};

/// How often leases are renewed and lost work is looked for.
const BEAT: Duration = Duration::from_secs(5);

/// After how many beats what is too old or too much is let go.
const SWEEP: u32 = 12;

/// What is said of work whose gateway died.
const LOST: &str = "The gateway stopped while this response was being made; please try again.";

/// State between requests: it outlives a change of configuration.
#[derive(Debug)]
pub struct State {
    store: Option<Store>,
    /// Items for references to them, where there is no store.
    pub(super) recent: Recent,
    /// What goes on in the background.
    pub(super) runs: Runs,
    /// What goes on while its client waits.
    pub(super) lives: Lives,
    /// This process, as the owner of what it works on.
    pub(super) owner: String,
    /// The gateway in force, for work that outlives its request.
    gateway: Mutex<Weak<Gateway>>,
}

impl Default for State {
    fn default() -> Self {
        Self::new(None)
    }
}

impl State {
    /// State in `store`, if there is one.
    pub fn new(store: Option<Store>) -> Self {
        Self {
            store,
            recent: Recent::default(),
            runs: Runs::default(),
            lives: Lives::default(),
            owner: Ids::Random.mint("gw_"),
            gateway: Mutex::default(),
        }
    }

    /// Names the gateway that background work goes through from now on.
    pub fn serve_with(&self, gateway: &Arc<Gateway>) {
        *self.gateway.lock() = Arc::downgrade(gateway);
    }

    /// The gateway in force.
    ///
    /// # Errors
    /// `Draining` when it is gone.
    pub(super) fn gateway(&self) -> Result<Arc<Gateway>> {
        self.gateway.lock().upgrade().ok_or_else(crate::api::pump::draining)
    }

    /// The store, if there is one.
    pub(super) fn kept(&self) -> Option<&Store> {
        self.store.as_ref()
    }

    /// The store.
    ///
    /// # Errors
    /// 400 that says how to get one.
    pub(super) fn store(&self) -> Result<&Store> {
        self.store.as_ref().ok_or_else(|| {
            Error::new(
                Kind::Unsupported,
                Origin::Client,
                "This gateway keeps no state: its operator can have it kept with `[store] url = \
                 \"sqlite:gemway.db\"` in the configuration.",
            )
            .code("store_not_configured")
        })
    }

    /// Ends what a process that died left unfinished, before anybody can ask for it. (With other processes at work
    /// on the same store, only what they do not claim.)
    pub async fn recover(&self) {
        let Some(store) = &self.store else { return };
        let until = if store.alone() { u64::MAX } else { Clock::System.unix_seconds() };
        loop {
            match self.give_up(store, until).await {
                Ok(0) => return,
                Ok(count) => tracing::warn!(count, "unfinished background responses were marked as failed"),
                Err(error) => {
                    tracing::warn!(error = ?error, "the store could not be searched for unfinished work");
                    return;
                }
            }
        }
    }

    /// Keeps the store within its bounds and its leases alive; never ends.
    pub async fn keep(&self) {
        let Some(store) = &self.store else { return std::future::pending().await };
        for beat in 0_u32.. {
            let now = Clock::System.unix_seconds();
            let mut done = self.runs.renew(store, &self.owner, now).await;
            done = done.and(self.give_up(store, now).await.map(|_| ()));
            if beat % SWEEP == 0 {
                done = done.and(store.sweep(now).await);
            }
            if let Err(error) = done {
                tracing::warn!(error = ?error, "the store could not be looked after");
            }
            tokio::time::sleep(BEAT).await;
        }
    }

    /// Waits for background work to come to its end, and after `patience` marks what is left as failed.
    pub async fn close(&self, patience: Duration) {
        self.runs.close(patience).await;
    }

    /// Marks work as failed whose lease ended before `until`; how much there was.
    async fn give_up(&self, store: &Store, until: u64) -> Result<usize> {
        let mut count = 0;
        for orphan in store.orphans(until).await? {
            if !self.runs.has(&orphan.response.id) {
                lost(store, &orphan).await?;
                count += 1;
            }
        }
        Ok(count)
    }

    /// A response that is no longer unfinished if nobody works on it any more.
    ///
    /// # Errors
    /// 404 when there is none, 503 when the store is away.
    pub(super) async fn look(&self, tenant: &str, id: &str) -> Result<Response> {
        let Some(store) = &self.store else { return Err(unknown(id)) };
        let Some(found) = store.response(tenant, id).await? else {
            return self.lives.find(tenant, id).ok_or_else(|| unknown(id));
        };
        if found.lease.is_some_and(|lease| lease < Clock::System.unix_seconds()) && !self.runs.has(id) {
            self.give_up(store, Clock::System.unix_seconds()).await?;
            return store.response(tenant, id).await?.ok_or_else(|| unknown(id));
        }
        Ok(found)
    }
}

/// Writes the end of a response that nobody works on any more.
async fn lost(store: &Store, orphan: &Orphan) -> Result<()> {
    let json = failed(&orphan.response.json, LOST);
    let kept = ended(&orphan.tenant, &orphan.response, "failed", json, orphan.next_event);
    store.advance(&kept).await.map(|_| ())
}

/// The record of a response that ends with `json`, and its last event.
pub(super) fn ended(tenant: &str, of: &Response, status: &str, json: String, next: u64) -> Kept {
    let events = if of.streams { vec![last_event(&json, next)] } else { Vec::new() };
    Kept {
        id: of.id.clone(),
        tenant: tenant.to_owned(),
        created: of.created,
        status: status.to_owned(),
        background: of.background,
        streams: of.streams,
        output: items::output(json.as_bytes()),
        json,
        events: (next, events),
        ..Kept::default()
    }
}

/// The response object of one that failed.
pub(super) fn failed(json: &str, why: &str) -> String {
    let error = format!(
        "{{\"code\":\"server_error\",\"message\":{},\"type\":\"server_error\",\"param\":null}}",
        items::quoted(why)
    );
    items::patched(json, &[("status", "\"failed\""), ("error", &error)])
}

/// The last event of a response that did not end by itself.
pub(super) fn last_event(json: &str, number: u64) -> String {
    format!(
        "event: response.failed\ndata: {{\"type\":\"response.failed\",\"sequence_number\":{number},\
         \"response\":{json}}}\n\n"
    )
}

/// No such response, or another tenant's.
pub(super) fn unknown(id: &str) -> Error {
    Error::new(Kind::NotFound, Origin::Client, format!("Response with id '{id}' not found."))
}

impl Gateway {
    /// `GET` and `DELETE /v1/responses/{id}`.
    pub(super) async fn stored_response(&self, cx: Ctx, id: String, incoming: Incoming) -> Result<Reply> {
        let tenant = cx.tenant.name();
        let found = self.state.look(tenant, &id).await?;
        if incoming.method == Method::DELETE {
            self.state.lives.delete(tenant, &id);
            self.state.store()?.delete(tenant, &id).await?;
            self.state.runs.stop(&id);
            let id = items::quoted(&id);
            return Ok(whole(format!("{{\"id\":{id},\"object\":\"response.deleted\",\"deleted\":true}}")));
        }
        let (mut stream, mut after) = (false, None);
        for (name, value) in items::query(&incoming.uri) {
            match name.as_str() {
                "stream" => stream = value == "true" || value == "1",
                "starting_after" => {
                    after = Some(value.parse::<u64>().map_err(|error| {
                        Error::invalid("starting_after", "`starting_after` must be an event's number.")
                            .because(error)
                    })?);
                }
                // `include[]` adds nothing: all there is is in the response.
                _ => {}
            }
        }
        if !stream {
            return Ok(whole(found.json));
        }
        if !found.streams {
            let message =
                "Only a response that was created with `background` and `stream` can be streamed again.";
            return Err(Error::invalid("stream", message));
        }
        cx.meter.note(|entry| entry.stream = true);
        Ok(self.follow(&cx, id, after, HeaderMap::new()))
    }

    /// `GET /v1/responses/{id}/input_items`.
    pub(super) async fn response_items(&self, cx: Ctx, id: String, incoming: Incoming) -> Result<Reply> {
        let page = items::page(&incoming.uri)?;
        let tenant = cx.tenant.name();
        self.state.look(tenant, &id).await?;
        let found = self.state.store()?.items(tenant, &id, &page).await?;
        found.map(|found| whole(items::listing(&found))).ok_or_else(|| unknown(&id))
    }

    /// `POST /v1/responses/{id}/cancel`.
    pub(super) async fn cancel_response(&self, cx: Ctx, id: String) -> Result<Reply> {
        let tenant = cx.tenant.name();
        let found = self.state.look(tenant, &id).await?;
        if !found.background {
            return Err(Error::new(
                Kind::Invalid,
                Origin::Client,
                "Cannot cancel a synchronous response: only those created with `background` can be cancelled.",
            ));
        }
        if found.lease.is_none() {
            return Ok(whole(found.json));
        }
        // Whoever works on it here ends it with what there is.
        self.state.runs.cancel(&id).await;
        let found = self.state.look(tenant, &id).await?;
        if found.lease.is_none() {
            return Ok(whole(found.json));
        }
        // Another replica does: it will notice.
        let store = self.state.store()?;
        let json = items::patched(&found.json, &[("status", "\"cancelled\"")]);
        let next = store.next_event(&id).await?;
        store.advance(&ended(tenant, &found, "cancelled", json, next)).await?;
        Ok(whole(self.state.look(tenant, &id).await?.json))
    }
}

/// A whole JSON reply.
pub(super) fn whole(json: String) -> Reply {
    Reply::Whole { body: json.into(), headers: HeaderMap::new() }
}
