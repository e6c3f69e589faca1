//! What the gateway remembers of responses: the configured store, or a little memory for item references.

use std::time::Duration;

use crate::clock::Clock;
use crate::error::{Error, Kind, Origin, Result};
use crate::store::Store;

/// How often what is too old or too much is let go.
const SWEEP: Duration = Duration::from_mins(1);

/// State between requests.
#[derive(Debug, Default)]
pub struct State {
    store: Option<Store>,
}

impl State {
    /// State in `store`, if there is one.
    pub fn new(store: Option<Store>) -> Self {
        Self { store }
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

    /// Keeps the store within its bounds; never ends.
    pub async fn keep(&self) {
        let Some(store) = &self.store else { return std::future::pending().await };
        loop {
            if let Err(error) = store.sweep(Clock::System.unix_seconds()).await {
                tracing::warn!(error = ?error, "the store could not be swept");
            }
            tokio::time::sleep(SWEEP).await;
        }
    }
}
