//! `[tls]`: the certificate that clients see.

use std::fmt;
use std::path::{Path, PathBuf};

use secrecy::SecretString;
use serde::Deserialize;
use serde_spanned::Spanned;

use super::ConfigError;
use super::resolve::Resolver;

/// As it is written: paths of PEM files.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Written {
    cert: Spanned<String>,
    key: Spanned<String>,
    client_ca: Option<Spanned<String>>,
}

/// The certificate that clients see, and the key to it.
#[derive(Clone)]
pub struct Tls {
    /// Where the certificate is.
    pub cert: PathBuf,
    /// Where its key is.
    pub key: PathBuf,
    /// Where the certificates are that sign clients' own, if those are asked for.
    pub client_ca: Option<PathBuf>,
    /// What the files hold.
    pub pem: crate::server::Pem,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("cert", &self.cert).field("key", &self.key).finish_non_exhaustive()
    }
}

impl Resolver<'_> {
    pub(super) fn tls(&self, written: Option<&Written>) -> Result<Option<Tls>, ConfigError> {
        let Some(written) = written else { return Ok(None) };
        let read = |path: &Spanned<String>| {
            (self.read)(Path::new(path.get_ref()))
                .map_err(|error| self.complaint(path, &format!("cannot read {}: {error}", path.get_ref())))
        };
        let client_ca = written.client_ca.as_ref();
        let pem = crate::server::Pem {
            cert: read(&written.cert)?,
            key: SecretString::from(read(&written.key)?),
            client_ca: client_ca.map(read).transpose()?,
        };
        if let Err(error) = crate::server::Tls::new(&pem) {
            return Err(self.complaint(&written.cert, error.message()));
        }
        let path = |text: &Spanned<String>| PathBuf::from(text.get_ref());
        let (cert, key) = (path(&written.cert), path(&written.key));
        Ok(Some(Tls { cert, key, client_ca: client_ca.map(path), pem }))
    }
}
