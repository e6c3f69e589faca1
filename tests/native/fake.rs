//! A fake Google that keeps what it was sent and says what it was told, and a gateway in front of it.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gemway::body::{self, Body};
use gemway::config::{Config, Overrides};
use gemway::server::{self, Shutdown};
use gemway::telemetry::Metrics;
use http::{HeaderMap, Method, Request, Response, Uri};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// One request as Google saw it.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) method: Method,
    pub(crate) uri: Uri,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// What Google is to answer.
pub(crate) type Script = Arc<dyn Fn(&Seen) -> Response<Body> + Send + Sync>;

/// The fake.
pub(crate) struct Google {
    pub(crate) address: SocketAddr,
    pub(crate) seen: Arc<Mutex<Vec<Seen>>>,
}

impl Google {
    pub(crate) async fn start(script: impl Fn(&Seen) -> Response<Body> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let (script, kept): (Script, _) = (Arc::new(script), Arc::clone(&seen));
        tokio::spawn(async move {
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                let (script, kept) = (Arc::clone(&script), Arc::clone(&kept));
                tokio::spawn(async move {
                    let service = service_fn(move |request: Request<Incoming>| {
                        let (script, kept) = (Arc::clone(&script), Arc::clone(&kept));
                        async move {
                            let (head, incoming) = request.into_parts();
                            let body = body::read(incoming, usize::MAX).await.unwrap_or_default();
                            let seen =
                                Seen { method: head.method, uri: head.uri, headers: head.headers, body };
                            let answer = script(&seen);
                            kept.lock().push(seen);
                            Ok::<_, Infallible>(answer)
                        }
                    });
                    let _ = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new())
                        .serve_connection(TokioIo::new(socket), service)
                        .await;
                });
            }
        });
        Self { address, seen }
    }

    pub(crate) fn last(&self) -> Seen {
        self.seen.lock().last().cloned().unwrap()
    }

    pub(crate) fn calls(&self) -> usize {
        self.seen.lock().len()
    }
}

pub(crate) fn answer(status: u16, media: &str, text: impl Into<Bytes>) -> Response<Body> {
    Response::builder().status(status).header("content-type", media).body(body::full(text)).unwrap()
}

/// A running gateway.
pub(crate) struct Gateway {
    pub(crate) address: SocketAddr,
    pub(crate) metrics: Arc<Metrics>,
}

impl Gateway {
    /// Starts one from the text of a configuration file.
    pub(crate) async fn start(text: &str) -> Self {
        let flags = Overrides { config: Some("gemway.toml".into()), ..Overrides::default() };
        let text = text.to_owned();
        let config = Config::load(&flags, &|_| None, &move |_: &Path| Ok(text.clone())).unwrap();
        let (gateway, _care) = gemway::app::gateway(&config).unwrap();
        let server = server::bind(server::Config {
            listen: "127.0.0.1:0".into(),
            admin_listen: "127.0.0.1:0".into(),
            min_drain: Duration::from_millis(100),
            ..server::Config::default()
        })
        .await
        .unwrap();
        let (metrics, shutdown) = (Arc::new(Metrics::new()), Shutdown::default());
        let address = server.address().unwrap();
        tokio::spawn(server.run(Arc::new(gateway), Arc::clone(&metrics), shutdown));
        Self { address, metrics }
    }

    /// In front of a fake Gemini API, with one client key.
    pub(crate) async fn gemini(google: &Google) -> Self {
        Self::start(&format!("{}{KEYS}", studio(google))).await
    }

    /// In front of a fake Vertex AI, with one client key.
    pub(crate) async fn vertex(google: &Google, more: &str) -> Self {
        let site = format!(
            "[[sites]]\nname = \"vertex\"\nkind = \"vertex\"\nbase_url = \"http://{}\"\nproject = \"ours\"\nlocation = \
             \"us-central1\"\ncredentials = \"api_key:OUR-KEY\"\n{more}\n",
            google.address
        );
        Self::start(&format!("{site}{KEYS}")).await
    }

    /// Sends a request with a key of ours and reads the whole answer.
    pub(crate) async fn ask(
        &self,
        method: &str,
        path: &str,
        headers: &str,
        body: impl AsRef<[u8]>,
    ) -> Answer {
        let body = body.as_ref();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: gateway.test\r\nconnection: close\r\n{headers}content-length: {}\r\n\r\n",
            body.len()
        );
        let mut socket = TcpStream::connect(self.address).await.unwrap();
        socket.write_all(head.as_bytes()).await.unwrap();
        // Who refuses need not read to the end.
        let _ = socket.write_all(body).await;
        let mut bytes = Vec::new();
        let reading = socket.read_to_end(&mut bytes);
        let _ = tokio::time::timeout(Duration::from_secs(10), reading).await.expect("the connection ends");
        Answer::parse(&bytes)
    }

    /// The same as a Google client sends it.
    pub(crate) async fn post(&self, path: &str, body: impl AsRef<[u8]>) -> Answer {
        self.ask("POST", path, "x-goog-api-key: good\r\ncontent-type: application/json\r\n", body).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, "x-goog-api-key: good\r\n", "").await
    }

    /// Waits until the metrics hold a line.
    pub(crate) async fn counted(&self, line: &str) {
        for _ in 0..100 {
            if String::from_utf8(self.metrics.render()).unwrap().contains(line) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("no {line:?} in\n{}", String::from_utf8(self.metrics.render()).unwrap());
    }
}

/// The site of a fake Gemini API.
pub(crate) fn studio(google: &Google) -> String {
    format!(
        "[[sites]]\nname = \"studio\"\nkind = \"gemini_api\"\nbase_url = \"http://{}\"\napi_key = \"OUR-KEY\"\n",
        google.address
    )
}

/// Client keys: `good` may do everything, `flash` has one model and one request a minute, `own` brings its own
/// credential.
pub(crate) const KEYS: &str = r#"
[[keys]]
name = "good"
secret = "good"
[[keys]]
name = "flash"
secret = "flash"
models = ["gemini-*-flash"]
requests_per_minute = 1
[[keys]]
name = "own"
secret = "own"
credentials = "caller"
[aliases]
"old-flash" = "gemini-3.8-flash"
"#;

/// An answer of the gateway.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    fn parse(bytes: &[u8]) -> Self {
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").expect("an answer");
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
        let mut lines = head.lines();
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let mut headers = HeaderMap::new();
        for line in lines {
            let (name, value) = line.split_once(": ").unwrap();
            headers.append(http::HeaderName::try_from(name).unwrap(), value.parse().unwrap());
        }
        let rest = &bytes[end + 4..];
        let chunked = headers.get("transfer-encoding").is_some_and(|value| value == "chunked");
        let body = if chunked { unchunk(rest) } else { rest.to_vec() };
        Self { status, headers, body }
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

fn unchunk(mut rest: &[u8]) -> Vec<u8> {
    let mut whole = Vec::new();
    while let Some(end) = rest.windows(2).position(|window| window == b"\r\n") {
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..end]).unwrap(), 16).unwrap();
        if size == 0 {
            break;
        }
        whole.extend_from_slice(&rest[end + 2..end + 2 + size]);
        rest = &rest[end + 4 + size..];
    }
    whole
}
