//! Where clients come in: TLS, client certificates, a Unix socket.

use std::net::SocketAddr;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

use super::reload::{config, reload};
use super::support::{Gateway, KEY, Scratch, chat, fetch, speak};

/// A chat on a connection that is there already: its status, 0 where there was no answer.
async fn ask(socket: impl AsyncRead + AsyncWrite + Unpin) -> u16 {
    let body = chat("alias", "Hello", false);
    // A refusal may come while the request is being written.
    let answer = speak(socket, "POST", ("/v1/chat/completions", &[KEY], &body), usize::MAX).await;
    answer.map_or(0, |answer| answer.status)
}

/// A certificate for `localhost` and whoever signed it, as PEM.
struct Signed {
    cert: String,
    key: String,
}

fn self_signed() -> Signed {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    Signed { cert: made.cert.pem(), key: made.signing_key.serialize_pem() }
}

async fn shake(
    address: SocketAddr,
    trusted: &str,
    mine: Option<&Signed>,
) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(trusted.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let config = match mine {
        None => builder.with_no_client_auth(),
        Some(mine) => {
            let cert = CertificateDer::from_pem_slice(mine.cert.as_bytes()).unwrap();
            let key = PrivateKeyDer::from_pem_slice(mine.key.as_bytes()).unwrap();
            builder.with_client_auth_cert(vec![cert], key).unwrap()
        }
    };
    let socket = TcpStream::connect(address).await?;
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, socket).await
}

#[tokio::test]
async fn certificates_are_shown_asked_for_and_replaced() {
    let scratch = Scratch::new();
    let (first, second, client) = (self_signed(), self_signed(), self_signed());
    let put =
        |signed: &Signed| (scratch.file("cert.pem", &signed.cert), scratch.file("key.pem", &signed.key));
    let (cert, key) = put(&first);
    let ca = scratch.file("ca.pem", &client.cert);
    let tls = format!("[tls]\ncert = {cert:?}\nkey = {key:?}\nclient_ca = {ca:?}\n");
    let path = scratch.file("gemway.toml", &config("alias", &tls));
    let gateway = Gateway::start_with(&scratch, Some(&path), &[], &[]).await;

    let socket = shake(gateway.address, &first.cert, Some(&client)).await.unwrap();
    assert_eq!(ask(socket).await, 200);

    // Without a certificate, and with a stranger's: in TLS 1.3 the refusal comes after the client's last word.
    for mine in [None, Some(&second)] {
        if let Ok(socket) = shake(gateway.address, &first.cert, mine).await {
            assert_eq!(ask(socket).await, 0);
        }
    }
    // Nor does plain HTTP get anything.
    assert_ne!(ask(TcpStream::connect(gateway.address).await.unwrap()).await, 200);

    // A connection that is there outlives its certificate.
    let old = shake(gateway.address, &first.cert, Some(&client)).await.unwrap();
    put(&second);
    reload(&gateway, "taken").await;
    assert!(shake(gateway.address, &first.cert, Some(&client)).await.is_err());
    let socket = shake(gateway.address, &second.cert, Some(&client)).await.unwrap();
    assert_eq!((ask(socket).await, ask(old).await), (200, 200));

    // The authorities are read again too.
    scratch.file("ca.pem", &second.cert);
    reload(&gateway, "taken").await;
    let socket = shake(gateway.address, &second.cert, Some(&second)).await.unwrap();
    assert_eq!(ask(socket).await, 200);

    scratch.file("key.pem", "nonsense");
    reload(&gateway, "refused").await;
    assert!(shake(gateway.address, &second.cert, Some(&second)).await.is_ok());
}

#[tokio::test]
async fn a_unix_socket_serves_and_goes_with_the_gateway() {
    let scratch = Scratch::new();
    let path = scratch.0.join("gemway.sock");
    // What a process left that died is no obstacle.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let file = scratch.file("gemway.toml", &config("alias", ""));
    let place = format!("unix:{}", path.display());
    let gateway = Gateway::start_with(&scratch, Some(&file), &["--listen", &place], &[]).await;
    for stream in [false, true] {
        let body = chat("alias", "Hello", stream);
        let socket = UnixStream::connect(&path).await.unwrap();
        let ask = ("/v1/chat/completions", &[KEY][..], body.as_str());
        let answer = speak(socket, "POST", ask, usize::MAX).await.unwrap();
        assert!(answer.complete(), "{answer:?}");
    }
    assert!(fetch(gateway.address, "GET", "/v1/models", &[KEY], "").await.is_err(), "a port is open as well");
    gateway.stop().await;
    assert!(!path.exists());
}
