//! The way out, over real sockets.

#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use gemway::body::{self, Body, BoxError};
use gemway::error::{Error, Kind};
use gemway::upstream::{
    Answer, AnswerBody, Call, Config, Credentials, Local, Method, SiteConfig, SiteKind, Timeouts, Upstream,
};
use http::{HeaderMap, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};

/// A server on the loopback that answers with `handler`.
async fn serve<H, F>(handler: H) -> SocketAddr
where
    H: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            let handler = handler.clone();
            tokio::spawn(async move {
                let service = service_fn(move |request| {
                    let answer = handler(request);
                    async move { Ok::<_, Infallible>(answer.await) }
                });
                let _ = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(socket), service)
                    .await;
            });
        }
    });
    address
}

/// A server that writes these bytes to whoever connects, after reading something, and closes.
async fn serve_raw(reply: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut buffer = [0; 4096];
                let _ = socket.read(&mut buffer).await;
                let _ = socket.write_all(reply).await;
            });
        }
    });
    address
}

fn reply(status: u16, media: &str, text: impl Into<Bytes>) -> Response<Body> {
    Response::builder().status(status).header("content-type", media).body(body::full(text)).unwrap()
}

type Feeder = mpsc::Sender<Result<Bytes, BoxError>>;

/// A body that is fed by hand.
fn fed() -> (Feeder, Body) {
    let (sender, receiver) = mpsc::channel::<Result<Bytes, BoxError>>(8);
    let stream = futures_util::stream::unfold(receiver, |mut receiver| async move {
        let piece = receiver.recv().await?;
        Some((piece.map(Frame::data), receiver))
    });
    (sender, StreamBody::new(stream).boxed_unsync())
}

/// A server that sends one event and hands over the rest of the stream.
async fn serve_fed() -> (SocketAddr, oneshot::Receiver<Feeder>) {
    let (hand, taken) = oneshot::channel();
    let hand = Arc::new(std::sync::Mutex::new(Some(hand)));
    let address = serve(move |_| {
        let (sender, body) = fed();
        let hand = hand.lock().unwrap().take().unwrap();
        async move {
            sender.send(Ok(Bytes::from_static(b"data: {}\n\n"))).await.unwrap();
            let _ = hand.send(sender);
            Response::new(body)
        }
    })
    .await;
    (address, taken)
}

fn impatient() -> Timeouts {
    Timeouts {
        connect: Duration::from_secs(2),
        head: Duration::from_millis(600),
        first_event: Duration::from_millis(600),
        idle: Duration::from_millis(300),
        total: Duration::from_secs(5),
    }
}

fn gemini_at(base_url: String, timeouts: Timeouts) -> Upstream {
    let kind = SiteKind::GeminiApi { base_url, api_version: "v1beta".into(), api_key: "the-key".into() };
    let sites = vec![SiteConfig { name: "g".into(), kind, quota_group: None }];
    Upstream::new(Config { sites, timeouts, ..Config::default() }).unwrap()
}

fn gemini(address: SocketAddr) -> Upstream {
    gemini_at(format!("http://{address}"), Timeouts::default())
}

fn vertex(address: SocketAddr, project: Option<&str>, credentials: Credentials) -> Upstream {
    let kind = SiteKind::Vertex {
        base_url: Some(format!("http://{address}/")),
        api_version: "v1".into(),
        project: project.map(Into::into),
        location: "global".into(),
        credentials,
        quota_project: None,
    };
    let sites = vec![SiteConfig { name: "v".into(), kind, quota_group: None }];
    Upstream::new(Config { sites, ..Config::default() }).unwrap()
}

async fn call(upstream: &Upstream, method: Method) -> Result<Answer, Error> {
    let site = upstream.sites().next().unwrap();
    let body = Bytes::from_static(b"{\"contents\":[]}").into();
    upstream.call(site, &Call { model: "gem-1".into(), method, body, preview: false, trace: None }).await
}

async fn failure(upstream: &Upstream, method: Method) -> (Kind, Option<String>) {
    let error = call(upstream, method).await.unwrap_err();
    assert!(!format!("{error} {error:?}").contains("the-key"), "{error:?}");
    (error.kind(), error.explicit_code().map(str::to_owned))
}

fn broken(code: &str) -> (Kind, Option<String>) {
    (Kind::UpstreamBroken, Some(code.to_owned()))
}

fn late(code: &str) -> (Kind, Option<String>) {
    (Kind::Timeout, Some(code.to_owned()))
}

async fn all(answer: Answer) -> Result<Vec<Bytes>, (Vec<Bytes>, Error)> {
    let AnswerBody::Stream(mut events) = answer.body else { panic!("not a stream") };
    let mut batch = Vec::new();
    loop {
        match events.next(&mut batch).await {
            Ok(true) => {}
            Ok(false) => return Ok(batch),
            Err(error) => return Err((batch, error)),
        }
    }
}

#[tokio::test]
async fn a_whole_answer_and_the_headers_of_its_request() {
    let (sender, mut seen) = mpsc::unbounded_channel::<(String, HeaderMap, Bytes)>();
    let address = serve(move |request: Request<Incoming>| {
        let sender = sender.clone();
        async move {
            let (parts, incoming) = request.into_parts();
            let sent = body::read(incoming, 1 << 20).await.unwrap();
            sender.send((parts.uri.to_string(), parts.headers, sent)).unwrap();
            let mut response = reply(200, "application/json", "{\"a\":1}");
            response.headers_mut().insert("x-gemini-service-tier", "priority".parse().unwrap());
            response
        }
    })
    .await;
    let answer = call(&gemini(address), Method::Generate).await.unwrap();
    assert_eq!((&*answer.site, answer.attempts), ("g", 1));
    assert_eq!(answer.service_tier.as_deref(), Some("priority"));
    assert!(matches!(answer.body, AnswerBody::Whole(bytes) if bytes == "{\"a\":1}"));
    let (uri, headers, sent) = seen.recv().await.unwrap();
    assert_eq!(uri, "/v1beta/models/gem-1:generateContent");
    assert_eq!(sent, "{\"contents\":[]}");
    let mut names: Vec<_> = headers.keys().map(http::HeaderName::as_str).collect();
    names.sort_unstable();
    let expected = "accept accept-encoding content-length content-type host user-agent x-goog-api-key";
    assert_eq!(names.join(" "), expected);
    assert_eq!(headers["x-goog-api-key"], "the-key");
    assert_eq!(headers["accept-encoding"], "identity");
    assert!(headers["user-agent"].to_str().unwrap().starts_with("gemway/"));

    let upstream = gemini(address);
    let site = upstream.sites().next().unwrap();
    assert_eq!(upstream.get(site, "models?pageSize=5").await.unwrap(), "{\"a\":1}");
    assert_eq!(seen.recv().await.unwrap().0, "/v1beta/models?pageSize=5");
}

#[tokio::test]
async fn events_are_the_same_wherever_the_reads_fall() {
    const TEXT: &str = "data: {\"n\":1}\r\n\r\ndata: {\"t\":\"ü\"}\r\n\r\ndata: {\"n\":3}\r\n\r\n";
    let address = serve(|_| async {
        let (sender, body) = fed();
        tokio::spawn(async move {
            for byte in TEXT.as_bytes() {
                if sender.send(Ok(Bytes::copy_from_slice(&[*byte]))).await.is_err() {
                    return;
                }
                tokio::task::yield_now().await;
            }
        });
        Response::builder().header("content-type", "text/event-stream").body(body).unwrap()
    })
    .await;
    let events = all(call(&gemini(address), Method::Stream).await.unwrap()).await.unwrap();
    assert_eq!(events, ["{\"n\":1}", "{\"t\":\"ü\"}", "{\"n\":3}"]);
}

#[tokio::test]
async fn refusals_become_errors_before_and_at_the_first_event() {
    const QUOTA: &str =
        "{\"error\":{\"code\":429,\"message\":\"slow down\",\"status\":\"RESOURCE_EXHAUSTED\"}}";
    let status = serve(|_| async { reply(429, "application/json", QUOTA) }).await;
    let event = serve(|_| async { reply(200, "text/event-stream", format!("data: {QUOTA}\n\n")) }).await;
    for address in [status, event] {
        let error = call(&gemini(address), Method::Stream).await.unwrap_err();
        assert_eq!(error.kind(), Kind::RateLimited);
        assert!(error.message().contains("slow down"));
    }
    assert_eq!(failure(&gemini(status), Method::Generate).await.0, Kind::RateLimited);
    let text = format!("data: {{}}\n\ndata: {QUOTA}\n\n");
    let later = serve(move |_| {
        let text = text.clone();
        async move { reply(200, "text/event-stream", text) }
    })
    .await;
    assert_eq!(all(call(&gemini(later), Method::Stream).await.unwrap()).await.unwrap()[1], QUOTA);
}

#[tokio::test]
async fn a_refusal_that_repeats_our_key_does_not_spread_it() {
    let address = serve(|request: Request<Incoming>| async move {
        let key = request.headers()["x-goog-api-key"].to_str().unwrap().to_owned();
        let text = format!("key {key} is not valid");
        let error =
            serde_json::json!({"error": {"code": 400, "message": text, "status": "INVALID_ARGUMENT"}});
        reply(400, "application/json", error.to_string())
    })
    .await;
    failure(&gemini(address), Method::Stream).await;
}

#[tokio::test]
async fn answers_that_are_none() {
    let html = serve(|_| async { reply(200, "text/html; charset=utf-8", "<html>log in</html>") }).await;
    let empty = serve(|_| async { reply(200, "application/json", "") }).await;
    let nothing = serve(|_| async { reply(204, "application/json", "") }).await;
    let garbage = serve(|_| async { reply(200, "text/event-stream", "data: {nope\n\n") }).await;
    let packed = serve(|_| async {
        let mut response = reply(200, "application/json", "x");
        response.headers_mut().insert("content-encoding", "gzip".parse().unwrap());
        response
    })
    .await;
    for address in [html, empty, nothing, garbage, packed] {
        assert_eq!(failure(&gemini(address), Method::Stream).await, broken("upstream_invalid_response"));
    }
    for address in [html, empty, nothing, packed] {
        assert_eq!(failure(&gemini(address), Method::Generate).await, broken("upstream_invalid_response"));
    }
    let moved = serve(|_| async {
        let mut response = reply(302, "text/html", "");
        response.headers_mut().insert("location", "http://127.0.0.1:1/".parse().unwrap());
        response
    })
    .await;
    assert_eq!(failure(&gemini(moved), Method::Stream).await, broken("upstream_error"));
    let noise = serve_raw(b"220 smtp ready\r\n").await;
    assert_eq!(failure(&gemini(noise), Method::Stream).await, broken("upstream_invalid_response"));
    let short = serve_raw(b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\n{").await;
    assert_eq!(failure(&gemini(short), Method::Generate).await, broken("upstream_disconnected"));
    let gone = serve_raw(b"").await;
    assert_eq!(failure(&gemini(gone), Method::Generate).await, broken("upstream_disconnected"));
}

#[tokio::test]
async fn a_broken_stream_gives_its_events_and_then_the_failure() {
    let address =
        serve_raw(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n14\r\ndata: {}\n\ndata: {\"a\"\r\n")
            .await;
    let (events, error) = all(call(&gemini(address), Method::Stream).await.unwrap()).await.unwrap_err();
    assert_eq!(events, ["{}"]);
    assert_eq!(error.explicit_code(), Some("upstream_disconnected"));
}

#[tokio::test]
async fn connecting_fails_in_its_own_words() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let closed = listener.local_addr().unwrap();
    drop(listener);
    let unreachable = (Kind::UpstreamUnreachable, Some("upstream_unreachable".to_owned()));
    assert_eq!(failure(&gemini(closed), Method::Stream).await, unreachable);

    let quick = Timeouts { connect: Duration::from_millis(300), ..Timeouts::default() };
    // Accepts the connection and never answers the TLS greeting.
    let deaf = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let upstream = gemini_at(format!("https://{}", deaf.local_addr().unwrap()), quick);
    assert_eq!(failure(&upstream, Method::Stream).await, late("upstream_connect_timeout"));
    // Answers the TLS greeting with something else.
    let plain = serve_raw(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
    let upstream = gemini_at(format!("https://{plain}"), quick);
    assert_eq!(failure(&upstream, Method::Stream).await.1.as_deref(), Some("upstream_tls_error"));
}

#[tokio::test]
async fn every_phase_has_its_deadline() {
    let mute = serve(|_| std::future::pending()).await;
    let patience = |address| gemini_at(format!("http://{address}"), impatient());
    assert_eq!(failure(&patience(mute), Method::Stream).await, late("upstream_timeout"));
    assert_eq!(failure(&patience(mute), Method::Generate).await, late("upstream_timeout"));

    let stalling = |first: &'static [u8]| {
        serve(move |_| async move {
            let (sender, body) = fed();
            if !first.is_empty() {
                sender.send(Ok(Bytes::from_static(first))).await.unwrap();
            }
            tokio::spawn(async move { sender.closed().await });
            Response::new(body)
        })
    };
    let silent = patience(stalling(b"").await);
    assert_eq!(failure(&silent, Method::Stream).await, late("upstream_first_event_timeout"));
    let stalled = patience(stalling(b"data: {}\n\n").await);
    let (events, error) = all(call(&stalled, Method::Stream).await.unwrap()).await.unwrap_err();
    assert_eq!((events.len(), error.explicit_code()), (1, Some("upstream_stalled")));
    assert_eq!(failure(&stalled, Method::Generate).await, late("upstream_stalled"));

    // Drips for ever: no single wait is too long, all of it is.
    let dripping = serve(|_| async {
        let (sender, body) = fed();
        tokio::spawn(async move {
            while sender.send(Ok(Bytes::from_static(b"data: {}\n\n"))).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
        Response::new(body)
    })
    .await;
    let brief = Timeouts { total: Duration::from_millis(400), ..impatient() };
    let upstream = gemini_at(format!("http://{dripping}"), brief);
    let (events, error) = all(call(&upstream, Method::Stream).await.unwrap()).await.unwrap_err();
    assert!(events.len() > 2);
    assert_eq!(error.explicit_code(), Some("request_timeout"));
}

#[tokio::test]
async fn a_slow_reader_is_not_a_stalled_upstream() {
    let (address, taken) = serve_fed().await;
    let answer = call(&gemini_at(format!("http://{address}"), impatient()), Method::Stream).await.unwrap();
    let sender = taken.await.unwrap();
    let AnswerBody::Stream(mut events) = answer.body else { panic!("not a stream") };
    let mut batch = Vec::new();
    assert!(events.next(&mut batch).await.unwrap());
    tokio::time::sleep(Duration::from_millis(700)).await;
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(100)).await;
        sender.send(Ok(Bytes::from_static(b"data: {\"late\":1}\n\n"))).await.unwrap();
    });
    assert!(events.next(&mut batch).await.unwrap());
    assert_eq!(batch.len(), 2);
}

#[tokio::test]
async fn dropping_a_call_in_any_phase_cancels_it_at_the_other_end() {
    // While waiting for the status line: the handler's future holds a sender, which is dropped with it.
    let (alive, mut handlers) = mpsc::unbounded_channel();
    let alive = Arc::new(std::sync::Mutex::new(Some(alive)));
    let address = serve(move |_| {
        let alive = alive.lock().unwrap().take().unwrap();
        async move {
            alive.send(()).unwrap();
            std::future::pending().await
        }
    })
    .await;
    let waiting = tokio::spawn(async move { call(&gemini(address), Method::Stream).await });
    handlers.recv().await.unwrap();
    waiting.abort();
    let gone = tokio::time::timeout(Duration::from_secs(1), handlers.recv()).await;
    assert_eq!(gone.expect("within a second"), None);

    // While streaming.
    let (address, taken) = serve_fed().await;
    let upstream = gemini(address);
    let answer = call(&upstream, Method::Stream).await.unwrap();
    let sender = taken.await.unwrap();
    drop(answer);
    tokio::time::timeout(Duration::from_secs(1), sender.closed()).await.expect("within a second");
}

/// A key made for these tests, which opens nothing.
const PRIVATE_KEY: &str = "\
-----BEGIN PRIVATE KEY-----
MIIEvgIBADANBgkqhkiG9w0BAQEFAASCBKgwggSkAgEAAoIBAQDa8lUDVgyfAVPn
stpp+gOfSO3rOsWGaf8Mv9yz7ruV6Xef1gZz8ggWCON2oqcib9E+oqeqNhQ/IetL
wBgprvzjD03GDucytPsY/safX4dqGfnrsAKW429nwHwif/9Qoh5FZOHvWVwvOixM
gKfwIdq8QbY/Vr4nnHfKZ2ZODpLYogB3DGkr0gD3nu4SC1t/WeAOYOryoLxDehZ7
kzlPe8a1VNaGBu+uuy8SzTCPFmp+a748fmjW5XXqS/yzUIL3izYGXthF697uSCm+
5DMcovYia7/62IzQyjofM4qPrYB1ziI1IXPMZOGXsCodR5bGhbz9yWMHHAdeSwEi
6gFz3vHRAgMBAAECggEABXUpBaxvAaPMqpjskOzYJLyuODyi6C3wsJii0MlE5ECn
W4xRIMt/RG++ni+bKfFbaANCrwGZXBGlaky+S1DFYbroB38430YkO87WR8hGDsHq
ikoJzFo2IZumJQkUXTc4hcAbhQCw8CPFL0A1Fd501fGilri72bdBzIGEdbIeK7Jm
SpfUcA41rr34VV1d5H9dOPReCMrcPI9845zKTDHf9BoatwE7xySCgKf2qKTKf5nz
AZi5qMjsp6pScGUzVFrCY9a2OdAUS4fA2wawAMS5C0ArRvUIUVXiupUXC41KAv3e
tX7I/6OTphyaVumRytMwmMkNwXMtv/LGpKpDghUYzwKBgQDy6WmSlVfmIrJta6Iw
eLZHsbsreQosAnPBtn9OLRv8i4VjZt2YHLHaedJ3kgoefnECNtB2ZZnxIZ3dzVnm
8hvcBwI7X9Lq7YtAozCMkMojy7COay+5rFJS49VaIHWmwvF22AoauVLxpx24dLtu
39SEG3QOM1OZtY7EgYwR0P8axwKBgQDmvlucTlJ3yWspS/XKzbxHR4JpmegujMHC
YV57mTwVovNb3CLSEjqiLXVVC6faK4E+kRMs7x83h40zifnZcPqP5kCBYfOpP1hF
YpVi1y6QXqiT6ogedIIMNttomLQLp4DxsDF6HWFE2ETwjRyyCHXBDhPjx3CG3m3d
Q1z6qT22pwKBgQC+0TDHn12PQQ5c+kJMRWcbZriba9fbvolkUJIsvS7Q8mD0Nug4
B8KG10/H8gbU8YqgrKKRfzqwuzGh/SB0VRghfbf5IEs1lSjgu9D1ev/voqCtH/I7
rux0hNkilYEWYOkB7K/zUkWf4yFrtvdOH7J3nIFMbnFru73NC98WV9EuHQKBgG1x
yugXqjwQ+FgtJFdeQDia7XuDOcKiluDI6FS9uOcWVFG013tGlDMKVsXQ8nuj+Pih
PTQp82eWTt4sSqrdUKtibiQwPq9/UTIP8YVhRT/K9jC6pHe1kV2Tw3wYOgXxHFMG
3GDsgI9z+TcT55F2O8wnDj4TAgemhvvVEMv/7DqvAoGBANv/bjJoijz7SM+uRFkj
btn8z6A84jJfOJ2G3yxTi9XwCLlWIHpuIeEB1Xzrcapc12S2OFOs2QKeEL5D3J3g
35boTpnF6bq9TjYlHPRRWncW9QT5UDcVLzFpLZ4qq10iuGP7y2qgK50y+ZXyyGrC
lgGGARDohRnTS2uJQtDx0ZWR
-----END PRIVATE KEY-----
";

/// A token endpoint, a metadata server and Vertex AI in one.
struct Google {
    address: SocketAddr,
    fetches: Arc<AtomicUsize>,
    seen: Arc<std::sync::Mutex<Vec<(String, HeaderMap)>>>,
}

/// Tokens are numbered; only those from `valid_from` on are taken, and none is given out if `refuses`.
async fn google(valid_from: usize, refuses: bool) -> Google {
    let fetches = Arc::new(AtomicUsize::new(0));
    let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
    let state = (Arc::clone(&fetches), Arc::clone(&seen));
    let address = serve(move |request: Request<Incoming>| {
        let (fetches, seen) = state.clone();
        async move {
            let (parts, incoming) = request.into_parts();
            let sent = body::read(incoming, 1 << 20).await.unwrap();
            let path = parts.uri.path().to_owned();
            if path.ends_with("/project/project-id") {
                return reply(200, "application/text", "meta-project\n");
            }
            if path.ends_with("/token") {
                tokio::time::sleep(Duration::from_millis(50)).await;
                let number = fetches.fetch_add(1, SeqCst) + 1;
                let metadata =
                    parts.headers.get("metadata-flavor").is_some_and(|flavour| flavour == "Google");
                let user = sent.starts_with(b"{");
                let text = String::from_utf8(sent.to_vec()).unwrap();
                let robot = text.split_once("&assertion=").is_some_and(|(_, assertion)| {
                    assertion.split('.').filter(|part| part.len() > 20).count() == 3
                });
                if refuses || !(metadata || user || robot) {
                    return reply(400, "application/json", "{\"error\":\"invalid_grant\"}");
                }
                let token = format!("{{\"access_token\":\"tok-{number}\",\"expires_in\":3599}}");
                return reply(200, "application/json", token);
            }
            seen.lock().unwrap().push((path, parts.headers.clone()));
            let given = parts.headers["authorization"].to_str().unwrap().trim_start_matches("Bearer tok-");
            if given.parse::<usize>().unwrap() < valid_from {
                return reply(401, "application/json", "{\"error\":{\"code\":401,\"message\":\"stale\"}}");
            }
            reply(200, "application/json", "{}")
        }
    })
    .await;
    Google { address, fetches, seen }
}

/// A credential file that is gone after the test.
struct KeyFile(std::path::PathBuf);

impl KeyFile {
    fn new(name: &str, content: &serde_json::Value) -> Self {
        let path = std::env::temp_dir().join(format!("gemway-{}-{name}.json", std::process::id()));
        std::fs::write(&path, content.to_string()).unwrap();
        Self(path)
    }

    fn service_account(name: &str, google: &Google) -> Self {
        let content = serde_json::json!({
            "type": "service_account",
            "project_id": "file-project",
            "private_key_id": "k1",
            "private_key": PRIVATE_KEY,
            "client_email": "robot@file-project.iam.gserviceaccount.com",
            "token_uri": format!("http://{}/token", google.address),
        });
        Self::new(name, &content)
    }

    fn credentials(&self) -> Credentials {
        Credentials::File(self.0.clone())
    }
}

impl Drop for KeyFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[tokio::test]
async fn a_hundred_callers_wait_for_one_token() {
    let google = google(1, false).await;
    let file = KeyFile::service_account("hundred", &google);
    let upstream = vertex(google.address, None, file.credentials());
    for answer in join_all((0..100).map(|_| call(&upstream, Method::Generate))).await {
        assert_eq!(answer.unwrap().attempts, 1);
    }
    assert_eq!(google.fetches.load(SeqCst), 1);
    let seen = google.seen.lock().unwrap();
    assert!(
        seen[0].0.starts_with("/v1/projects/file-project/locations/global/publishers/google/models/gem-1:")
    );
    assert_eq!(seen[0].1["authorization"], "Bearer tok-1");
    assert!(!seen[0].1.contains_key("x-goog-user-project"));
}

#[tokio::test]
async fn a_hundred_callers_share_one_failure() {
    let google = google(1, true).await;
    let file = KeyFile::service_account("failing", &google);
    let upstream = vertex(google.address, None, file.credentials());
    for answer in join_all((0..100).map(|_| call(&upstream, Method::Generate))).await {
        let error = answer.unwrap_err();
        assert_eq!(
            (error.kind(), error.explicit_code()),
            (Kind::UpstreamRefused, Some("upstream_auth_error"))
        );
        assert!(format!("{error:?}").contains("invalid_grant"));
    }
    assert_eq!(google.fetches.load(SeqCst), 1);
}

#[tokio::test]
async fn a_refused_token_is_renewed_once_and_the_call_repeated_once() {
    let stale = google(2, false).await;
    let file = KeyFile::service_account("stale", &stale);
    let upstream = vertex(stale.address, Some("mine"), file.credentials());
    assert_eq!(call(&upstream, Method::Generate).await.unwrap().attempts, 2);
    assert_eq!(call(&upstream, Method::Generate).await.unwrap().attempts, 1);
    assert_eq!(stale.fetches.load(SeqCst), 2);

    let shut = google(99, false).await;
    let file = KeyFile::service_account("shut", &shut);
    let upstream = vertex(shut.address, Some("mine"), file.credentials());
    assert_eq!(failure(&upstream, Method::Stream).await.0, Kind::UpstreamRefused);
    assert_eq!((shut.fetches.load(SeqCst), shut.seen.lock().unwrap().len()), (2, 2));
}

#[tokio::test]
async fn the_metadata_server_gives_token_and_project() {
    let google = google(1, false).await;
    let upstream = vertex(google.address, None, Credentials::MetadataAt(google.address.to_string()));
    call(&upstream, Method::Generate).await.unwrap();
    assert!(google.seen.lock().unwrap()[0].0.starts_with("/v1/projects/meta-project/locations/global/"));
}

#[tokio::test]
async fn a_users_credential_names_who_pays() {
    let google = google(1, false).await;
    let content = serde_json::json!({
        "type": "authorized_user",
        "client_id": "c",
        "client_secret": "s",
        "refresh_token": "r",
        "quota_project_id": "payer",
        "token_uri": format!("http://{}/token", google.address),
    });
    let file = KeyFile::new("user", &content);
    let upstream = vertex(google.address, Some("mine"), file.credentials());
    call(&upstream, Method::Generate).await.unwrap();
    assert_eq!(google.seen.lock().unwrap()[0].1["x-goog-user-project"], "payer");
}

#[tokio::test]
async fn the_background_has_a_token_ready() {
    let google = google(1, false).await;
    let file = KeyFile::service_account("ready", &google);
    let upstream = vertex(google.address, None, file.credentials());
    let keeper = tokio::spawn(upstream.background());
    while google.fetches.load(SeqCst) == 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    call(&upstream, Method::Generate).await.unwrap();
    assert_eq!(google.fetches.load(SeqCst), 1);
    keeper.abort();
}

#[tokio::test]
async fn an_express_key_goes_into_the_header() {
    let address = serve(|request: Request<Incoming>| async move {
        let fine = request.headers()["x-goog-api-key"] == "the-key"
            && !request.headers().contains_key("authorization")
            && request.uri().path() == "/v1/publishers/google/models/gem-1:generateContent"
            && request.uri().query().is_none();
        reply(if fine { 200 } else { 400 }, "application/json", "{}")
    })
    .await;
    call(&vertex(address, None, Credentials::ApiKey("the-key".into())), Method::Generate).await.unwrap();
}

/// A site in this process that breaks off after its first event.
#[derive(Debug)]
struct Inside;

impl Local for Inside {
    fn respond(&self, request: Request<Bytes>) -> Pin<Box<dyn Future<Output = Response<Body>> + Send>> {
        Box::pin(async move {
            assert_eq!(request.uri().path(), "/v1beta/models/gem-1:streamGenerateContent");
            assert_eq!(request.uri().query(), Some("alt=sse"));
            assert_eq!(request.body(), "{\"contents\":[]}");
            let (sender, body) = fed();
            sender.send(Ok(Bytes::from_static(b"data: {}\n\n"))).await.unwrap();
            sender.send(Err("cut".into())).await.unwrap();
            Response::new(body)
        })
    }

    fn pass(&self, request: Request<Body>) -> Pin<Box<dyn Future<Output = Response<Body>> + Send>> {
        Box::pin(async move { Response::new(request.into_body()) })
    }
}

#[tokio::test]
async fn a_site_inside_the_process_is_called_like_any_other() {
    let sites = vec![SiteConfig {
        name: "simulator".into(),
        kind: SiteKind::Local(Arc::new(Inside)),
        quota_group: None,
    }];
    let upstream = Upstream::new(Config { sites, ..Config::default() }).unwrap();
    assert!(upstream.sites().next().unwrap().is_simulator());
    let (events, error) = all(call(&upstream, Method::Stream).await.unwrap()).await.unwrap_err();
    assert_eq!((events.len(), error.explicit_code()), (1, Some("upstream_disconnected")));
}

/// Over HTTP/1 each call has a connection of its own, none waits for another's, and what is free is used again.
#[tokio::test]
async fn two_hundred_calls_at_once_have_two_hundred_connections() {
    const CALLS: usize = 200;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let accepted = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&accepted);
    let here = Arc::new(tokio::sync::Barrier::new(CALLS));
    let all_here = Arc::clone(&here);
    tokio::spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            count.fetch_add(1, SeqCst);
            let here = Arc::clone(&all_here);
            let service = service_fn(move |_| {
                let here = Arc::clone(&here);
                async move {
                    // Nobody is answered before all have come.
                    here.wait().await;
                    Ok::<_, Infallible>(reply(200, "application/json", "{}"))
                }
            });
            tokio::spawn(
                hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(socket), service),
            );
        }
    });
    let upstream = gemini(address);
    for _ in 0..2 {
        let calls = join_all((0..CALLS).map(|_| call(&upstream, Method::Generate)));
        let answers = tokio::time::timeout(Duration::from_secs(20), calls).await.unwrap();
        assert!(answers.iter().all(Result::is_ok));
        // The answer is read before its connection is back in the pool.
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(accepted.load(SeqCst), CALLS);
}
