//! Batches cost when their answers are made, and what they cost is known when these are fetched: then, once, they are
//! booked, at the price of batches, to whoever fetches them.

use std::collections::VecDeque;
use std::sync::Arc;

use http::Response;
use parking_lot::Mutex;
use serde::Deserialize;

use crate::api::gateway::Gateway;
use crate::body::{self, Body};
use crate::error::{Error, Kind, Origin, Result};

/// How many batches that have not been fetched are remembered.
const ROOM: usize = 10_000;
/// The largest answer that only gives a batch its name; it repeats what was asked.
const LARGEST: usize = 64 << 20;

/// Batches that were made here and are not booked yet, with their models; the oldest first.
#[derive(Clone, Debug, Default)]
pub struct Batches(Arc<Mutex<VecDeque<(String, String)>>>);

impl Batches {
    fn add(&self, name: String, model: String) {
        let mut all = self.0.lock();
        if all.len() >= ROOM {
            all.pop_front();
        }
        all.push_back((name, model));
    }

    /// The model of a batch that is not booked yet.
    pub(super) fn model(&self, name: &str) -> Option<String> {
        self.0.lock().iter().find(|(known, _)| known == name).map(|(_, model)| model.clone())
    }

    /// It is booked.
    pub(super) fn paid(&self, name: &str) {
        self.0.lock().retain(|(known, _)| known != name);
    }
}

impl Gateway {
    /// Remembers a batch that was made, by the answer that gives it its name.
    pub(super) async fn batch_made(&self, response: Response<Body>, model: &str) -> Result<Response<Body>> {
        #[derive(Deserialize)]
        struct Made {
            name: String,
        }
        let (head, body) = response.into_parts();
        let bytes = body::read(body, LARGEST).await.map_err(|error| {
            Error::new(Kind::UpstreamBroken, Origin::Upstream, "Google's answer cannot be read.")
                .because(error)
        })?;
        if let Ok(Made { name }) = serde_json::from_slice(&bytes) {
            self.batches.add(name, model.to_owned());
        }
        Ok(Response::from_parts(head, body::full(bytes)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_owed_until_it_is_paid() {
        let batches = Batches::default();
        batches.add("batches/x".to_owned(), "m".to_owned());
        assert_eq!(batches.model("batches/x").as_deref(), Some("m"));
        batches.paid("batches/x");
        assert_eq!(batches.model("batches/x"), None);
    }
}
