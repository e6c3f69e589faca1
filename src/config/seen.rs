//! The files that a configuration was made of, to notice when one of them changes.
//!
//! Contents are compared, not times or inodes: Kubernetes swaps a link to a folder, editors write beside and
//! rename, and both look the same from here.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::{Path, PathBuf};

use crate::upstream::Credentials;

use super::{Config, ConfigError, GoogleCredentials, Overrides, SiteKind, process_env};

/// What was read, by path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen(BTreeMap<PathBuf, u64>);

impl Seen {
    /// Whether any of the files reads otherwise than it did.
    pub fn changed(&self) -> bool {
        self.0.iter().any(|(path, seen)| print(&std::fs::read(path)) != *seen)
    }

    /// Tells one state of all the files from another.
    pub fn hash(&self) -> String {
        let mut hasher = DefaultHasher::new();
        self.0.hash(&mut hasher);
        crate::hex::write(&hasher.finish().to_be_bytes())
    }

    fn note(&mut self, path: &Path, read: &io::Result<impl AsRef<[u8]>>) {
        self.0.insert(path.to_owned(), print(read));
    }
}

/// A fingerprint of what a file held, or that it could not be read.
fn print(read: &io::Result<impl AsRef<[u8]>>) -> u64 {
    let mut hasher = DefaultHasher::new();
    read.as_ref().ok().map(AsRef::as_ref).hash(&mut hasher);
    hasher.finish()
}

impl Config {
    /// The configuration of this process, and the files it was made of: those of a wrong one too, so that mending
    /// them is noticed.
    pub fn from_process_seen(flags: &Overrides) -> (Result<Self, ConfigError>, Seen) {
        let seen = RefCell::new(Seen::default());
        let config = Self::load(flags, &process_env, &|path| {
            let read = std::fs::read_to_string(path);
            seen.borrow_mut().note(path, &read);
            read
        });
        let mut seen = seen.into_inner();
        if let Ok(config) = &config {
            let credentials = config.sites.iter().filter_map(|site| match &site.kind {
                SiteKind::Vertex { credentials: GoogleCredentials::File(path), .. } => Some(path.clone()),
                SiteKind::Vertex { credentials: GoogleCredentials::Adc, .. } => {
                    match Credentials::adc(process_env) {
                        Credentials::File(path) => Some(path),
                        Credentials::Metadata
                        | Credentials::MetadataAt(_)
                        | Credentials::Adc
                        | Credentials::ApiKey(_)
                        | Credentials::Static(_) => None,
                    }
                }
                SiteKind::Vertex { .. } | SiteKind::GeminiApi { .. } | SiteKind::Simulator => None,
            });
            for path in credentials.chain(config.catalog.clone()).chain(config.prices.clone()) {
                seen.note(&path, &std::fs::read(&path));
            }
        }
        (config, seen)
    }
}
