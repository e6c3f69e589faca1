//! Where a native request goes, and whether it goes again: all of it before the client has seen a byte.
//!
//! A call of a model leaves nothing behind, so it goes from site to site as a chat does. What only reads is
//! repeated at its one site. What makes or changes something is repeated only if it cannot have arrived.

use std::time::Duration;

use bytes::Bytes;
use http::Method;

use super::{Address, Gateway};
use crate::api::Ctx;
use crate::api::gateway::patience;
use crate::api::native_routes::{Native, Surface};
use crate::api::passage::Rise;
use crate::error::{Error, Result};
use crate::meter::Meter;
use crate::upstream::{Course, Credential, Leg, Payload, RawPath, Repeat, Site, Trip, is_unsent};

/// What a body that belongs to one project says: a cache or a file of that project.
const BOUND: [&[u8]; 3] = [b"\"cachedContent\"", b"\"cached_content\"", b"/files/"];

/// The beginning of a conversation, by which its turns are known; shorter ones are not cached at Google either.
const BEGINNING: usize = 4096;

/// Where a request may go.
pub(in crate::api::gateway) enum Way<'s> {
    /// A call of a model: its family, its dispatched name and its method say the address at each site.
    Over(Box<Trip<'s>>, &'s Native, (&'s str, &'s str, &'s str)),
    /// One site.
    To(&'s Site, RawPath<'s>, Again),
}

/// What may be repeated at one site.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::api::gateway) enum Again {
    /// Whatever may pass: it only reads.
    Read,
    /// What found nobody.
    Unsent,
    /// Nothing.
    Never,
}

impl Again {
    /// What a request says of itself: its method, and its headers (`x-gemway-no-retry`).
    pub(in crate::api::gateway) fn of(cx: &Ctx, method: &Method) -> Result<Self> {
        Ok(match patience::read(&cx.headers, "", false)?.repeat {
            Repeat::Never => Self::Never,
            Repeat::All | Repeat::SameModel => match *method {
                Method::GET | Method::HEAD => Self::Read,
                _ => Self::Unsent,
            },
        })
    }
}

/// One request's way, and how far it has come.
pub(super) struct Journey<'s> {
    way: Way<'s>,
    leg: Option<Leg<'s>>,
    sent: u32,
    wait: Option<Duration>,
}

/// The address of one call.
pub(super) enum To<'s> {
    Made(Address),
    Given(RawPath<'s>),
}

impl To<'_> {
    pub(super) fn raw(&self) -> RawPath<'_> {
        match self {
            Self::Made(address) => address.raw(),
            Self::Given(path) => *path,
        }
    }
}

impl<'s> Journey<'s> {
    pub(super) fn new(way: Way<'s>) -> Self {
        Self { way, leg: None, sent: 0, wait: None }
    }

    /// How many calls were made.
    pub(super) fn sent(&self) -> u32 {
        match &self.way {
            Way::Over(trip, ..) => trip.sent(),
            Way::To(..) => self.sent,
        }
    }

    /// The leg that is being travelled, where there is a choice of ways.
    pub(super) fn leg(&self) -> Option<&Leg<'s>> {
        self.leg.as_ref()
    }

    /// The next call to make. Waits where waiting helps.
    ///
    /// # Errors
    /// When there is nowhere to go, or no address.
    pub(super) async fn next(
        &mut self,
        gateway: &'s Gateway,
        credential: &Credential,
    ) -> Result<(&'s Site, To<'s>)> {
        match &mut self.way {
            Way::Over(trip, native, (family, model, method)) => {
                let leg = trip.next().await?;
                let site = leg.site();
                let goal = super::Goal::Call(family, model, method);
                let address = gateway.address(native, site, credential, goal)?;
                self.leg = Some(leg);
                Ok((site, To::Made(address)))
            }
            Way::To(site, path, _) => {
                if let Some(wait) = self.wait.take() {
                    tokio::time::sleep(wait).await;
                }
                self.sent += 1;
                Ok((site, To::Given(*path)))
            }
        }
    }

    /// Nothing can be sent again.
    pub(super) fn stay(&mut self) {
        match &mut self.way {
            Way::Over(trip, ..) => trip.stay(),
            Way::To(.., again) => *again = Again::Never,
        }
    }

    /// The call was answered. What comes back has to live as long as the answer.
    pub(super) fn worked(&mut self) -> Option<Course> {
        let Way::Over(trip, ..) = &mut self.way else { return None };
        Some(trip.began(self.leg.take()?))
    }

    /// The call failed.
    ///
    /// # Errors
    /// With the failure itself, where it stays at that.
    pub(super) fn failed(&mut self, gateway: &Gateway, error: Error) -> Result<()> {
        match (&mut self.way, self.leg.take()) {
            (Way::Over(trip, ..), Some(leg)) => trip.failed(leg, error),
            (Way::Over(..), None) => Err(error),
            (Way::To(site, _, again), _) => {
                let may = match again {
                    Again::Read => true,
                    Again::Unsent => is_unsent(&error),
                    Again::Never => false,
                };
                let wait = if may { gateway.upstream.again(site, self.sent, &error) } else { None };
                self.wait = wait;
                if wait.is_some() { Ok(()) } else { Err(error.attempts(self.sent)) }
            }
        }
    }
}

/// A body, as often as it can be had.
pub(super) enum Held {
    Whole(Bytes),
    /// On its way; it comes back if nobody touched it.
    Stream(Option<crate::body::Body>),
}

impl Held {
    pub(super) fn of(payload: Payload) -> Self {
        match payload {
            Payload::Whole(bytes) => Self::Whole(bytes),
            Payload::Stream(body) => Self::Stream(Some(body)),
        }
    }

    /// The body for the next call.
    pub(super) fn next(&mut self) -> Payload {
        match self {
            Self::Whole(bytes) => Payload::Whole(bytes.clone()),
            Self::Stream(body) => body.take().map_or(Payload::Whole(Bytes::new()), Payload::Stream),
        }
    }

    /// Whether there is a body for one call more.
    pub(super) fn is_there(&mut self, rise: Option<&Rise>, meter: &Meter) -> bool {
        match self {
            Self::Whole(_) => true,
            Self::Stream(body) => {
                *body = rise.and_then(|rise| rise.again(meter));
                body.is_some()
            }
        }
    }
}

impl Gateway {
    /// The way of a call of a model: over all sites of its route that speak this surface. Where the path names a
    /// location that one of them serves, over those; and what refers to a cache or a file stays in the project that
    /// has it.
    pub(super) fn way<'s>(
        &'s self,
        cx: &Ctx,
        native: &'s Native,
        near: &'s Site,
        call: (&'s str, &'s str, &'s str),
        payload: &Payload,
    ) -> Result<Way<'s>> {
        let (family, model, method) = call;
        let mut wish = patience::read(&cx.headers, model, false)?;
        // A tuned model and an operation under way are where they are.
        let alone =
            !matches!(family, "models" | "publishers/google/models") || method == "fetchPredictOperation";
        let mut sites = if alone {
            vec![near]
        } else {
            let place = match &native.surface {
                Surface::Vertex(Some(place)) if near.serves(&place.location) => Some(&place.location),
                Surface::Vertex(_) | Surface::Gemini => None,
            };
            let like = |site: &&Site| {
                site.backend() == near.backend()
                    && site.is_simulator() == near.is_simulator()
                    && place.is_none_or(|place| site.serves(place))
            };
            self.upstream.on_route(Some(model)).filter(like).collect()
        };
        if let Payload::Whole(body) = payload
            && sites.len() > 1
        {
            if BOUND.iter().any(|word| memchr::memmem::find(body, word).is_some()) {
                let home = self.speaker(native, None)?.group();
                let home = if sites.iter().any(|site| site.group() == home) { home } else { near.group() };
                sites.retain(|site| site.group() == home);
            }
            wish.session = body.get(..BEGINNING).map(crate::upstream::hash);
        }
        Ok(Way::Over(Box::new(self.upstream.trip_among(&wish, &sites)), native, call))
    }
}
