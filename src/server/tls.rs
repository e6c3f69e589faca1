//! TLS on the clients' listener: certificates from PEM text, replaced while connections go on.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use secrecy::{ExposeSecret, SecretString};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::error::{Error, Kind, Origin, Result};

/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Certificate and key, as PEM text.
#[derive(Clone, Debug)]
pub struct Pem {
    /// The server's certificate and those that lead to its root.
    pub cert: String,
    /// Its private key: PKCS #8, PKCS #1 or SEC 1.
    pub key: SecretString,
    /// Who signs clients' certificates; with it a client without one is turned away.
    pub client_ca: Option<String>,
}

/// What new connections are greeted with.
#[derive(Debug)]
pub struct Tls(ArcSwap<ServerConfig>);

impl Tls {
    /// Reads certificate and key.
    ///
    /// # Errors
    /// When they cannot be read or do not belong together.
    pub fn new(pem: &Pem) -> Result<Self> {
        Ok(Self(ArcSwap::from_pointee(config(pem)?)))
    }

    /// Takes another certificate for new connections.
    ///
    /// # Errors
    /// As [`Tls::new`]; the present one stays then.
    pub fn replace(&self, pem: &Pem) -> Result<()> {
        self.0.store(Arc::new(config(pem)?));
        Ok(())
    }

    /// Shakes hands.
    pub(super) async fn accept<S>(&self, socket: S) -> std::io::Result<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let acceptor = TlsAcceptor::from(self.0.load_full());
        match tokio::time::timeout(HANDSHAKE, acceptor.accept(socket)).await {
            Ok(shaken) => shaken,
            Err(_) => {
                Err(std::io::Error::new(std::io::ErrorKind::TimedOut, "the TLS handshake took too long"))
            }
        }
    }
}

fn config(pem: &Pem) -> Result<ServerConfig> {
    let chain = certificates(&pem.cert, "certificate")?;
    // Why not is left out: the cause could repeat a part of the key.
    let Ok(key) = PrivateKeyDer::from_pem_slice(pem.key.expose_secret().as_bytes()) else {
        return Err(unusable("the TLS key is not a private key in PEM form"));
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(Error::internal)?;
    let builder = match &pem.client_ca {
        None => builder.with_no_client_auth(),
        Some(authorities) => {
            let mut roots = RootCertStore::empty();
            for authority in certificates(authorities, "client CA")? {
                roots.add(authority).map_err(|error| unusable(format!("the client CA: {error}")))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                .build()
                .map_err(|error| unusable(format!("the client CA: {error}")))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder
        .with_single_cert(chain, key)
        .map_err(|error| unusable(format!("the TLS certificate and key: {error}")))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

fn certificates(pem: &str, what: &str) -> Result<Vec<CertificateDer<'static>>> {
    let found: Vec<_> = CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<std::result::Result<_, _>>()
        .map_err(|error| unusable(format!("the TLS {what} cannot be read: {error}")))?;
    if found.is_empty() {
        return Err(unusable(format!("the TLS {what} file holds no certificate")));
    }
    Ok(found)
}

fn unusable(message: impl Into<String>) -> Error {
    Error::new(Kind::Invalid, Origin::Gateway, message.into())
}
