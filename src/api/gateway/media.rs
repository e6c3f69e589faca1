//! Media that a model does not read by their address, put into the request before it is asked.

use std::collections::BTreeMap;

use super::Gateway;
use super::walk::{Asked, Operation};
use crate::api::Ctx;
use crate::error::{Error, Result};
use crate::translate::{Media, Stamp, Wanted};
use crate::upstream::Leg;

impl Gateway {
    /// Whether what a request waits for can be had at all: before anything is admitted or paid for.
    pub(super) fn fetches(&self, wanted: &[Wanted]) -> Result<()> {
        match wanted.first() {
            Some(first) if self.fetcher.is_none() => {
                let message = "This model does not read media by their address, and this gateway does not fetch \
                               them: send the data itself, as a data URL.";
                Err(Error::invalid(first.place.clone(), message).code("invalid_image_url"))
            }
            _ => Ok(()),
        }
    }

    /// What was asked, with the media that it waited for.
    ///
    /// # Errors
    /// The fetcher's, with the path of the part.
    pub(super) async fn supplied<O: Operation>(
        &self,
        cx: &Ctx,
        leg: &Leg<'_>,
        operation: &mut O,
        asked: Asked<O::Shape>,
        stamp: &Stamp,
    ) -> Result<Asked<O::Shape>> {
        if operation.wanted().is_empty() {
            return Ok(asked);
        }
        let media = self.fetched(operation.wanted()).await?;
        operation.given(media);
        self.ask(cx, leg, operation, &*stamp.signatures)
    }

    /// What stands at addresses.
    ///
    /// # Errors
    /// The fetcher's, with the path of the part.
    pub(super) async fn fetched(&self, wanted: &[Wanted]) -> Result<BTreeMap<String, Media>> {
        match &self.fetcher {
            Some(fetcher) if !wanted.is_empty() => fetcher.all(wanted.to_vec()).await,
            _ => Ok(BTreeMap::new()),
        }
    }
}
