//! HTTP/2 to Google: connections that end, fill up and refuse, and the network's own rules.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use h2::Reason;
use h2::server::{Builder, SendResponse};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::stage::{END, HELLO, chat, gateway, site_toml};

/// How a connection behaves.
#[derive(Clone, Copy)]
enum Manner {
    Well,
    /// Says goodbye after so many requests, and finishes those.
    Goodbye(usize),
    /// Breaks off after so many requests, in the middle of the next.
    Abrupt(usize),
    /// Refuses every third request unread.
    Refusing,
}

struct Google {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    ca: PathBuf,
}

/// An HTTP/2 site with a certificate of its own making.
async fn google(manner: Manner, streams: u32) -> Google {
    let made =
        rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned(), "google.test".to_owned()]).unwrap();
    let ca = std::env::temp_dir().join(format!(
        "gemway-ca-{}-{:?}.pem",
        std::process::id(),
        std::thread::current().id()
    ));
    std::fs::write(&ca, made.cert.pem()).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&connections);
    tokio::spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            let (acceptor, counted) = (acceptor.clone(), Arc::clone(&counted));
            tokio::spawn(async move {
                let Ok(tls) = acceptor.accept(socket).await else { return };
                counted.fetch_add(1, SeqCst);
                let shaken = Builder::new().max_concurrent_streams(streams).handshake::<_, Bytes>(tls).await;
                let Ok(mut connection) = shaken else { return };
                let mut count = 0;
                while let Some(Ok((request, respond))) = connection.accept().await {
                    count += 1;
                    match manner {
                        Manner::Goodbye(after) if count == after => connection.graceful_shutdown(),
                        Manner::Abrupt(after) if count > after => {
                            connection.abrupt_shutdown(Reason::NO_ERROR);
                            continue;
                        }
                        Manner::Refusing if count % 3 == 0 => {
                            let mut respond = respond;
                            respond.send_reset(Reason::REFUSED_STREAM);
                            continue;
                        }
                        Manner::Well | Manner::Goodbye(_) | Manner::Abrupt(_) | Manner::Refusing => {}
                    }
                    tokio::spawn(answer(request, respond));
                }
            });
        }
    });
    Google { address, connections, ca }
}

async fn answer(request: http::Request<h2::RecvStream>, mut respond: SendResponse<Bytes>) {
    let streamed = request.uri().path().ends_with("streamGenerateContent");
    let (_, mut body) = request.into_parts();
    while let Some(Ok(data)) = body.data().await {
        let _ = body.flow_control().release_capacity(data.len());
    }
    tokio::time::sleep(Duration::from_millis(60)).await;
    let (media, text) = if streamed {
        ("text/event-stream", format!("data: {HELLO}\r\n\r\ndata: {END}\r\n\r\n"))
    } else {
        ("application/json", END.to_owned())
    };
    let head = http::Response::builder().header("content-type", media).body(()).unwrap();
    if let Ok(mut stream) = respond.send_response(head, false) {
        let _ = stream.send_data(text.into(), true);
    }
}

fn toml(google: &Google, more: &str) -> String {
    let site = site_toml("g", google.address, "g").replace("http://", "https://");
    format!("[upstream]\nca_file = \"{}\"\n{more}\n{site}", google.ca.display())
}

/// So many requests, half of them streamed, at once; none may fail.
async fn all_served(gateway: SocketAddr, count: usize) {
    let replies = join_all((0..count).map(|n| chat(gateway, "m", n % 2 == 0, ""))).await;
    for reply in replies {
        assert_eq!(reply.status, 200, "{reply:?}");
        assert!(reply.code().is_none() && reply.body.contains("you"), "{reply:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_share_connections_and_more_of_them_are_made_when_they_fill_up() {
    let google = google(Manner::Well, 100).await;
    let gateway = gateway(&toml(&google, "")).await;
    all_served(gateway.address, 1).await;
    all_served(gateway.address, 20).await;
    assert_eq!(google.connections.load(SeqCst), 1);
    all_served(gateway.address, 200).await;
    let connections = google.connections.load(SeqCst);
    assert!((2..=6).contains(&connections), "{connections}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_site_that_takes_one_stream_at_a_time_is_not_a_deadlock() {
    let google = google(Manner::Well, 1).await;
    let gateway = gateway(&toml(&google, "")).await;
    all_served(gateway.address, 12).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn goodbyes_fail_no_request() {
    for manner in [Manner::Goodbye(3), Manner::Abrupt(4), Manner::Refusing] {
        let google = google(manner, 100).await;
        let gateway = gateway(&toml(&google, "retries = 6")).await;
        for _ in 0..4 {
            all_served(gateway.address, 6).await;
        }
    }
}

#[tokio::test]
async fn connections_are_made_anew_after_a_while() {
    let google = google(Manner::Well, 100).await;
    let gateway = gateway(&toml(&google, "connection_max_age = \"300ms\"")).await;
    all_served(gateway.address, 2).await;
    assert!(google.connections.load(SeqCst) <= 2);
    let before = google.connections.load(SeqCst);
    tokio::time::sleep(Duration::from_millis(350)).await;
    all_served(gateway.address, 1).await;
    assert_eq!(google.connections.load(SeqCst), before + 1);
}

#[tokio::test]
async fn a_stranger_is_not_trusted() {
    let google = google(Manner::Well, 100).await;
    let site = site_toml("g", google.address, "g").replace("http://", "https://");
    let gateway = gateway(&site).await;
    let reply = chat(gateway.address, "m", false, "").await;
    assert_eq!((reply.status, reply.code().as_deref()), (502, Some("upstream_tls_error")));
    assert_eq!(reply.header("x-gemway-attempts"), Some("1"));
}

/// A proxy that joins whoever asks with the one site, and counts.
async fn proxy(to: SocketAddr) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, joined) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&joined);
    tokio::spawn(async move {
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            let counted = Arc::clone(&counted);
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(socket.read_u8().await.unwrap());
                }
                let head = String::from_utf8(head).unwrap();
                assert!(head.starts_with("CONNECT google.test:443 "), "{head}");
                // user:secret
                assert!(
                    head.to_lowercase().contains("proxy-authorization: basic dxnlcjpzzwnyzxq="),
                    "{head}"
                );
                counted.fetch_add(1, SeqCst);
                let mut google = TcpStream::connect(to).await.unwrap();
                socket.write_all(b"HTTP/1.1 200 Connected\r\n\r\n").await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut socket, &mut google).await;
            });
        }
    });
    (address, joined)
}

#[tokio::test]
async fn a_proxy_is_used_for_what_is_not_excepted() {
    let google = google(Manner::Well, 100).await;
    let (proxy, joined) = proxy(google.address).await;
    let far = "[[sites]]\nname = \"far\"\nkind = \"gemini_api\"\napi_key = \"k\"\nbase_url = \"https://google.test\"\n";
    let near = site_toml("near", google.address, "near").replace("http://", "https://");
    let routes = "[[routes]]\nmodels = [\"far\"]\nsites = [\"far\"]\n[[routes]]\nmodels = [\"near\"]\nsites = [\"near\"]\n";
    let upstream = format!(
        "[upstream]\nca_file = \"{}\"\nhttps_proxy = \"http://user:secret@{proxy}\"\nno_proxy = \"127.0.0.1\"\n",
        google.ca.display()
    );
    let gateway = gateway(&(upstream + far + &near + routes)).await;
    for (model, through) in [("far", 1), ("near", 1), ("far", 1)] {
        let reply = chat(gateway.address, model, false, "").await;
        assert_eq!(reply.status, 200, "{reply:?}");
        assert_eq!(joined.load(SeqCst), through, "{model}");
    }
}
