//! The way to a Postgres: where it is, whether the way is encrypted, and whom it is believed to lead to.
//!
//! Without `sslmode`, or with `disable`, `allow` or `prefer`, nothing is encrypted, as over a Unix socket or a private network.
//! `require` and `verify-full` encrypt, and the server's certificate must be good for its name; `verify-ca` leaves the
//! name out. Certificates are checked against `sslrootcert` (a PEM file), else the machine's roots, else Mozilla's.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::future::BoxFuture;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use secrecy::{ExposeSecret, SecretString};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::config::SslMode;
use tokio_postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect};
use tokio_postgres::{Client, Config, Socket};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::error::{Error, Kind, Origin, Result};

/// How a Postgres is reached.
#[derive(Clone)]
pub struct Link {
    config: Config,
    tls: Option<Arc<ClientConfig>>,
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (hosts, tls) = (self.config.get_hosts(), self.tls.is_some());
        f.debug_struct("Link").field("hosts", &hosts).field("tls", &tls).finish_non_exhaustive()
    }
}

impl Link {
    /// Reads a URL; connects to nothing yet.
    ///
    /// # Errors
    /// `Invalid` when it cannot be read, or its `sslrootcert` cannot.
    pub fn parse(url: &SecretString) -> Result<Self> {
        let (plain, mode, roots) = split(url.expose_secret());
        // Postgres's own words never quote the password.
        let mut config: Config =
            plain.parse().map_err(|error| wrong(format!("the Postgres url cannot be read: {error}")))?;
        let named = match mode.as_deref() {
            None | Some("disable" | "allow" | "prefer") => {
                config.ssl_mode(SslMode::Disable);
                return Ok(Self { config, tls: None });
            }
            Some("require" | "verify-full") => true,
            Some("verify-ca") => false,
            Some(other) => {
                return Err(wrong(format!(
                    "sslmode of the Postgres url is disable, require, verify-ca or verify-full, not \"{other}\""
                )));
            }
        };
        config.ssl_mode(SslMode::Require);
        let roots = self::roots(roots.as_deref())?;
        Ok(Self { config, tls: Some(client(roots, named)?) })
    }

    /// What it has to say at the start of each connection.
    pub fn config(&mut self) -> &mut Config {
        &mut self.config
    }

    /// Connects. The second part carries what the first says, and has to be run for that.
    ///
    /// # Errors
    /// When the server cannot be reached, is not who it should be, or refuses.
    pub async fn connect(
        &self,
    ) -> Result<(Client, BoxFuture<'static, Result<(), tokio_postgres::Error>>), tokio_postgres::Error> {
        match &self.tls {
            None => {
                let (client, connection) = self.config.connect(tokio_postgres::NoTls).await?;
                Ok((client, Box::pin(connection)))
            }
            Some(tls) => {
                let (client, connection) = self.config.connect(Maker(Arc::clone(tls))).await?;
                Ok((client, Box::pin(connection)))
            }
        }
    }
}

/// The URL without what only we read in it, and that: `sslmode` and `sslrootcert`.
fn split(url: &str) -> (String, Option<String>, Option<PathBuf>) {
    let Some((base, query)) = url.split_once('?') else { return (url.to_owned(), None, None) };
    let (mut mode, mut roots) = (None, None);
    let mut rest = Vec::new();
    for pair in query.split('&') {
        let value = |text: &str| percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned();
        match pair.split_once('=') {
            Some(("sslmode", text)) => mode = Some(value(text)),
            Some(("sslrootcert", text)) => roots = Some(PathBuf::from(value(text))),
            _ => rest.push(pair),
        }
    }
    let plain = if rest.is_empty() { base.to_owned() } else { format!("{base}?{}", rest.join("&")) };
    (plain, mode, roots.filter(|path| path != Path::new("system")))
}

/// Whom we trust: those of a file, else the machine's, else Mozilla's.
fn roots(file: Option<&Path>) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    if let Some(path) = file {
        let bad =
            |why: String| wrong(format!("the certificates in {} cannot be used: {why}", path.display()));
        for certificate in CertificateDer::pem_file_iter(path).map_err(|error| bad(error.to_string()))? {
            let certificate = certificate.map_err(|error| bad(error.to_string()))?;
            roots.add(certificate).map_err(|error| bad(error.to_string()))?;
        }
        return if roots.is_empty() { Err(bad("there are none".to_owned())) } else { Ok(roots) };
    }
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    Ok(roots)
}

fn client(roots: RootCertStore, named: bool) -> Result<Arc<ClientConfig>> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .build()
        .map_err(Error::internal)?;
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(Error::internal)?;
    let verifier: Arc<dyn ServerCertVerifier> = if named { verifier } else { Arc::new(Nameless(verifier)) };
    // "Dangerous" is the library's word for a verifier of one's own; ours checks all but, at most, the name.
    let mut config = config.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
    // A server that speaks TLS from the first byte on (`sslnegotiation=direct`) asks for this name.
    config.alpn_protocols = vec![b"postgresql".to_vec()];
    Ok(Arc::new(config))
}

fn wrong(words: String) -> Error {
    Error::new(Kind::Invalid, Origin::Gateway, words)
}

/// Checks everything but the name, as `verify-ca` wants it: managed servers are reached by addresses that their
/// certificates do not have.
#[derive(Debug)]
struct Nameless(Arc<WebPkiServerVerifier>);

impl ServerCertVerifier for Nameless {
    fn verify_server_cert(
        &self,
        end: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        // The name is what is looked at last: whoever fails on it has passed the rest.
        match self.0.verify_server_cert(end, between, name, ocsp, now) {
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

#[derive(Clone)]
struct Maker(Arc<ClientConfig>);

impl MakeTlsConnect<Socket> for Maker {
    type Stream = Secured;
    type TlsConnect = Connect;
    type Error = io::Error;

    fn make_tls_connect(&mut self, host: &str) -> io::Result<Connect> {
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        Ok(Connect(TlsConnector::from(Arc::clone(&self.0)), name))
    }
}

struct Connect(TlsConnector, ServerName<'static>);

impl TlsConnect<Socket> for Connect {
    type Stream = Secured;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Secured>>;

    fn connect(self, socket: Socket) -> Self::Future {
        Box::pin(async move { Ok(Secured(Box::new(self.0.connect(self.1, socket).await?))) })
    }
}

/// An encrypted connection.
struct Secured(Box<TlsStream<Socket>>);

impl tokio_postgres::tls::TlsStream for Secured {
    fn channel_binding(&self) -> ChannelBinding {
        ChannelBinding::none()
    }
}

impl AsyncRead for Secured {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Secured {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_ours_in_a_url_is_taken_out_of_it() {
        let url = "postgres://u:p@h/db?sslmode=verify-ca&application_name=x&sslrootcert=%2Fetc%2Fca.pem";
        let (plain, mode, roots) = split(url);
        assert_eq!(plain, "postgres://u:p@h/db?application_name=x");
        assert_eq!((mode.as_deref(), roots), (Some("verify-ca"), Some(PathBuf::from("/etc/ca.pem"))));
        assert_eq!(split("postgres://h/db?sslmode=require").0, "postgres://h/db");
        assert_eq!(split("postgres://h/db?sslrootcert=system").2, None);
    }

    #[test]
    fn only_modes_that_verify_encrypt() {
        let link = |mode: &str| Link::parse(&format!("postgres://h/db?sslmode={mode}").into());
        for mode in ["disable", "prefer"] {
            assert!(link(mode).unwrap().tls.is_none(), "{mode}");
        }
        for mode in ["require", "verify-ca", "verify-full"] {
            assert!(link(mode).unwrap().tls.is_some(), "{mode}");
        }
        assert!(link("maybe").is_err());
        assert!(Link::parse(&"postgres://h/db?sslmode=require&sslrootcert=/nowhere.pem".into()).is_err());
    }

    #[tokio::test]
    #[ignore = "needs GEMWAY_TEST_POSTGRES_TLS; scripts/test starts a server"]
    async fn postgres_over_tls_is_who_its_certificate_says() {
        #[expect(
            clippy::disallowed_methods,
            reason = "a test learns from the test command where the server is"
        )]
        let url = std::env::var("GEMWAY_TEST_POSTGRES_TLS").unwrap();
        // Its certificate is for 127.0.0.1, and vouches for itself.
        let encrypted = async |url: String| {
            let (client, connection) = Link::parse(&url.into()).unwrap().connect().await.ok()?;
            let running = tokio::spawn(connection);
            let asked = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
            let told = client.query_one(asked, &[]).await.unwrap().get::<_, bool>(0);
            drop(client);
            running.await.unwrap().unwrap();
            Some(told)
        };
        let (at, roots) = url.split_once('?').unwrap();
        let elsewhere = at.replace("127.0.0.1", "localhost");
        assert_eq!(encrypted(format!("{at}?{roots}&sslmode=verify-full")).await, Some(true));
        assert_eq!(encrypted(format!("{at}?{roots}&sslmode=require")).await, Some(true));
        assert_eq!(encrypted(format!("{elsewhere}?{roots}&sslmode=verify-ca")).await, Some(true));
        assert_eq!(encrypted(format!("{elsewhere}?{roots}&sslmode=verify-full")).await, None);
        assert_eq!(encrypted(format!("{at}?sslmode=verify-full")).await, None);
        assert_eq!(encrypted(format!("{at}?{roots}")).await, Some(false));
    }
}
