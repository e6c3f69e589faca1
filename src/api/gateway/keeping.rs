//! What a response stands on, and how it is kept when it is over.

use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::value::RawValue;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use super::items;
use super::live::Live;
use super::stored::State;
use super::{Gateway, conversations};
use crate::api::Ctx;
use crate::error::{Error, Result};
use crate::openai::responses::Request;
use crate::store::{self, Chain, Item, Kept};
use crate::translate::responses::{Done, Finished, History, Marks, Status, request};

/// Where a response's end is told.
#[derive(Clone, Debug, Default)]
pub(super) struct Slot(Arc<Mutex<Option<Finished>>>);

impl Slot {
    /// What tells it.
    pub(super) fn done(&self) -> Done {
        let slot = Arc::clone(&self.0);
        Box::new(move |finished| *slot.lock() = Some(finished))
    }

    /// The same for a client that may leave before the end: what there was by then is kept at once, for the client
    /// knows the response's id.
    pub(super) fn done_or_left(&self, state: &Arc<State>, keeping: &Arc<Keeping>, live: &Arc<Live>) -> Done {
        let (told, state) = (self.done(), Arc::clone(state));
        let (keeping, live) = (Arc::clone(keeping), Arc::clone(live));
        Box::new(move |finished| {
            if finished.status == Status::Gone {
                drop(state.keep_apart(keeping, finished, live));
            } else {
                told(finished);
            }
        })
    }

    /// What was told, if anything was.
    pub(super) fn take(&self) -> Option<Finished> {
        self.0.lock().take()
    }
}

/// How a response will be kept.
#[derive(Clone, Debug)]
pub(super) struct Keeping {
    pub(super) tenant: Arc<str>,
    pub(super) created: u64,
    pub(super) previous: Option<String>,
    pub(super) conversation: Option<String>,
    pub(super) input: Vec<Item>,
    /// Not only what it needs itself: the client may come back for it.
    pub(super) stored: bool,
    pub(super) background: bool,
    pub(super) streams: bool,
}

/// What is known before anything is asked.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) history: Arc<History>,
    pub(super) keeping: Keeping,
}

impl Gateway {
    /// Finds what a response continues and refers to.
    ///
    /// # Errors
    /// 400 for a response or conversation that is not there, 404 for an item; 400 that says how to have a store
    /// where one is needed.
    pub(super) async fn prepare(&self, cx: &Ctx, asked: &Request<'_>) -> Result<Prepared> {
        let tenant = cx.tenant.name();
        let previous = asked.previous_response_id.as_ref().map(|id| id.decode().into_owned());
        let conversation = request::conversation(asked)?;
        let background = asked.background == Some(true);
        let before = match (&previous, &conversation) {
            (Some(_), Some(_)) => {
                let message = "Only one of `previous_response_id` and `conversation` can be given.";
                return Err(
                    Error::invalid("previous_response_id", message).code("mutually_exclusive_parameters")
                );
            }
            (Some(id), None) => self.chain(tenant, id).await?,
            (None, Some(id)) => {
                let store = self.state.store().map_err(|error| error.at("conversation"))?;
                let said = store.said(tenant, id).await?;
                said.ok_or_else(|| conversations::unknown(id).at("conversation"))?
            }
            (None, None) => store::History::default(),
        };
        if background {
            self.state.store().map_err(|error| error.at("background"))?;
        }
        let wanted = request::references(asked)?;
        let found = match self.state.kept() {
            _ if wanted.is_empty() => store::History::default(),
            Some(store) => store.find(tenant, &wanted).await?,
            None => self.state.recent.find(tenant, &wanted),
        };
        let marks = Marks::read(before.marks.iter().chain(&found.marks).map(String::as_str));
        let mut history = History { marks, ..History::default() };
        history.items = before.items.into_iter().map(raw).collect::<Result<_>>()?;
        for item in found.items {
            history.referenced.insert(item.id.clone(), raw(item)?);
        }
        if let Some(missing) = wanted.iter().find(|id| !history.referenced.contains_key(*id)) {
            return Err(conversations::unknown_item(missing).at("input"));
        }
        let stored = asked.store != Some(false);
        let input = match asked.input {
            Some(input) if stored || background || conversation.is_some() => {
                items::input(input, &history.referenced, &self.ids)?
            }
            _ => Vec::new(),
        };
        let keeping = Keeping {
            tenant: Arc::clone(tenant),
            created: self.clock.unix_seconds(),
            previous,
            conversation,
            input,
            stored,
            background,
            streams: background && asked.stream,
        };
        Ok(Prepared { history: Arc::new(history), keeping })
    }

    async fn chain(&self, tenant: &str, id: &str) -> Result<store::History> {
        let wrong = |message: String| {
            Error::invalid("previous_response_id", message).code("previous_response_not_found")
        };
        let shown: String = id.chars().take(80).collect();
        let Some(store) = self.state.kept() else {
            return Err(wrong(format!(
                "Previous response with id '{shown}' not found: this gateway keeps no responses. Send the whole \
                 input, or have its operator configure `[store] url = \"sqlite:gemway.db\"`."
            )));
        };
        if self.state.lives.find(tenant, id).is_some() {
            return Err(unfinished(id));
        }
        match store.chain(tenant, id).await? {
            Chain::Found(history) => Ok(history),
            Chain::Missing(missing) if missing == id => {
                Err(wrong(format!("Previous response with id '{shown}' not found.")))
            }
            Chain::Missing(missing) => Err(wrong(format!(
                "Previous response with id '{shown}' continues '{missing}', which was not found: it was deleted, \
                 or is too old."
            ))),
            Chain::Conversation(conversation) => Err(Error::invalid(
                "previous_response_id",
                format!(
                    "The response '{shown}' belongs to the conversation '{conversation}': continue it with \
                     `conversation`."
                ),
            )),
            Chain::Unfinished(id) => Err(unfinished(&id)),
        }
    }
}

fn unfinished(id: &str) -> Error {
    Error::invalid("previous_response_id", format!("The response '{id}' is not finished yet."))
}

fn raw(item: Item) -> Result<Box<RawValue>> {
    RawValue::from_string(item.json).map_err(Error::internal)
}

impl Keeping {
    /// The record of a response with this id, without its end.
    pub(super) fn record(&self, id: &str, status: &str, json: String) -> Kept {
        Kept {
            id: id.to_owned(),
            tenant: self.tenant.to_string(),
            created: self.created,
            status: status.to_owned(),
            background: self.background,
            streams: self.streams,
            brief: !self.stored,
            previous: self.previous.clone(),
            conversation: self.conversation.clone(),
            json,
            ..Kept::default()
        }
    }

    /// The record of a response that is over; its input goes along where it was not kept before.
    pub(super) fn end(&self, finished: &Finished) -> Kept {
        let json = String::from_utf8_lossy(&finished.response).into_owned();
        let mut kept = self.record(&finished.id, finished.status.as_str(), json);
        kept.output = items::output(&finished.response);
        kept.marks.clone_from(&finished.marks);
        if self.conversation.is_some() && said(finished) {
            kept.gained = self.input.iter().chain(&kept.output).cloned().collect();
        }
        kept
    }
}

/// A conversation gains only what was really said.
fn said(finished: &Finished) -> bool {
    matches!(finished.status, Status::Completed | Status::Incomplete)
}

impl State {
    /// Keeps a response whether or not somebody waits for that. Nothing if there is no runtime any more.
    pub(super) fn keep_apart(
        self: &Arc<Self>,
        keeping: Arc<Keeping>,
        finished: Finished,
        live: Arc<Live>,
    ) -> Option<JoinHandle<()>> {
        let runtime = Handle::try_current().ok()?;
        let state = Arc::clone(self);
        let keep = async move {
            if !state.lives.deleted(&finished.id) {
                state.keep_finished(&keeping, finished).await;
            }
            drop(live);
        };
        Some(self.runs.spawn(keep, &runtime))
    }

    /// Keeps a response that was made while its client waited.
    pub(super) async fn keep_finished(&self, keeping: &Keeping, finished: Finished) {
        let kept = match self.kept() {
            None => {
                if keeping.stored {
                    let mut items = keeping.input.clone();
                    items.extend(items::output(&finished.response));
                    self.recent.put(&keeping.tenant, items);
                }
                return;
            }
            Some(store) if keeping.stored => {
                let mut kept = keeping.end(&finished);
                kept.input.clone_from(&keeping.input);
                store.save(&kept).await.map(|_| ())
            }
            Some(store) => match &keeping.conversation {
                Some(conversation) if said(&finished) => {
                    let mut gained = keeping.input.clone();
                    gained.extend(items::output(&finished.response));
                    let of = (&*keeping.tenant, conversation.as_str());
                    store.add(of, keeping.created, &gained, finished.marks.as_deref()).await.map(|_| ())
                }
                _ => Ok(()),
            },
        };
        if let Err(error) = kept {
            // The client has its answer; only later requests that name it will miss it.
            tracing::error!(id = finished.id, error = ?error, "a response could not be kept");
        }
    }
}
