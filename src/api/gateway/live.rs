//! Responses that their clients are being told, and that are kept when they end.
//!
//! A client knows the id from the first event on. Whoever asks for it before the end gets the response as it
//! stands: `in_progress`.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

use super::stored::State;
use crate::store::Response;

/// All of them, by id.
#[derive(Debug, Default)]
pub(super) struct Lives(Mutex<HashMap<String, One>>);

#[derive(Debug)]
struct One {
    tenant: Arc<str>,
    created: u64,
    json: String,
    /// Deleted before its end: it will not be kept.
    deleted: bool,
}

impl Lives {
    /// One of this tenant's.
    pub(super) fn find(&self, tenant: &str, id: &str) -> Option<Response> {
        let all = self.0.lock();
        let one = all.get(id).filter(|one| &*one.tenant == tenant && !one.deleted)?;
        Some(Response {
            id: id.to_owned(),
            created: one.created,
            status: "in_progress".to_owned(),
            background: false,
            streams: false,
            json: one.json.clone(),
            lease: None,
        })
    }

    /// Deletes one of this tenant's before it is kept.
    pub(super) fn delete(&self, tenant: &str, id: &str) {
        if let Some(one) = self.0.lock().get_mut(id).filter(|one| &*one.tenant == tenant) {
            one.deleted = true;
        }
    }

    /// Whether it was deleted before its end.
    pub(super) fn deleted(&self, id: &str) -> bool {
        self.0.lock().get(id).is_some_and(|one| one.deleted)
    }
}

/// One response; until this is dropped, it can be asked for.
#[derive(Debug)]
pub(super) struct Live {
    state: Arc<State>,
    tenant: Arc<str>,
    created: u64,
    id: OnceLock<String>,
}

impl Live {
    /// A response that may begin.
    pub(super) fn new(state: &Arc<State>, tenant: &Arc<str>, created: u64) -> Arc<Self> {
        Arc::new(Self { state: Arc::clone(state), tenant: Arc::clone(tenant), created, id: OnceLock::new() })
    }

    /// Its id is known, and what it is as long as it is made.
    pub(super) fn begin(&self, id: &str, json: String) {
        if self.id.set(id.to_owned()).is_ok() {
            let one = One { tenant: Arc::clone(&self.tenant), created: self.created, json, deleted: false };
            self.state.lives.0.lock().insert(id.to_owned(), one);
        }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        if let Some(id) = self.id.get() {
            self.state.lives.0.lock().remove(id);
        }
    }
}
