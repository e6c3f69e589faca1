//! What outlives a change of configuration: what is known of the sites that stay, their tokens and connections.
//!
//! A site stays if its name, its address and its credential do. What it was made of is compared by fingerprint, the
//! content of credential files among it, so that no second copy of a secret is kept.

use std::fmt::Debug;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};

use super::Upstream;
use super::settings::{Credentials, Network, SiteKind};

/// A fingerprint of settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Print([u8; 32]);

impl Upstream {
    /// Takes over from an older self what is still true. To be called before anything else is.
    pub fn inherit(&mut self, old: &Self) {
        self.epoch = old.epoch;
        let connections = self.network == old.network;
        if connections {
            self.client = old.client.clone();
        }
        for (site, health) in self.sites.iter_mut().zip(&mut self.health) {
            let before = old.sites.iter().zip(&old.health).find(|(before, _)| site.is(before));
            if let Some((before, known)) = before {
                site.succeed(before, connections);
                *health = Arc::clone(known);
                health.throttle.bound(self.max_in_flight);
            }
        }
        for group in &mut self.groups {
            if let Some(before) = old.groups.iter().find(|before| before.name == group.name) {
                group.quotas = Arc::clone(&before.quotas);
            }
        }
    }
}

/// Pieces of settings, hashed one after the other.
struct Ink(Sha256);

impl Ink {
    fn new() -> Self {
        Self(Sha256::new())
    }

    fn plain(mut self, piece: &impl Debug) -> Self {
        self.0.update(format!("{piece:?}\0"));
        self
    }

    fn secret(mut self, piece: &SecretString) -> Self {
        self.0.update(Sha256::digest(piece.expose_secret()));
        self
    }

    /// A file: where it is, and what is in it now.
    fn file(mut self, path: &Path) -> Self {
        self = self.plain(&path);
        if let Ok(content) = std::fs::read(path) {
            self.0.update(Sha256::digest(content));
        }
        self
    }

    fn dry(self) -> Print {
        Print(self.0.finalize().into())
    }
}

/// Of everything that decides how connections are made.
pub(super) fn network(connect: Duration, network: &Network) -> Print {
    let Network { https_proxy, no_proxy, ca_file, max_age, names } = network;
    let mut ink = Ink::new().plain(&connect).plain(no_proxy).plain(max_age).plain(names);
    if let Some(proxy) = https_proxy {
        ink = ink.secret(proxy);
    }
    if let Some(path) = ca_file {
        ink = ink.file(path);
    }
    ink.dry()
}

/// Of where a site is and who we are to it.
pub(super) fn site(kind: &SiteKind, programs: bool) -> Print {
    match kind {
        SiteKind::GeminiApi { base_url, api_version, api_key } => {
            Ink::new().plain(&("gemini", base_url, api_version)).secret(api_key)
        }
        SiteKind::Vertex { base_url, api_version, project, location, credentials, quota_project } => {
            let place = ("vertex", base_url, api_version, project, location, quota_project);
            let ink = Ink::new().plain(&place);
            match credentials {
                Credentials::ApiKey(key) => ink.plain(&"key").secret(key),
                Credentials::Static(token) => ink.plain(&"token").secret(token),
                Credentials::File(path) => ink.plain(&programs).file(path),
                Credentials::Adc => ink.plain(&"adc"),
                Credentials::Metadata => ink.plain(&"metadata"),
                Credentials::MetadataAt(host) => ink.plain(&("metadata", host)),
            }
        }
        SiteKind::Local(_) => Ink::new().plain(&"local"),
    }
    .dry()
}
