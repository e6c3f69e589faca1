//! A Google that follows a script byte by byte, the gateway before it, and a client that sees everything.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use gemway::config::{Config, Overrides};
use gemway::server::{self, Shutdown};
use gemway::telemetry::Metrics;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// One thing that a scripted site does after it has read a request.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// Writes these bytes.
    Say(Vec<u8>),
    /// Writes them one by one, with this much time between.
    Drip(Vec<u8>, Duration),
    /// Does nothing for a while.
    Wait(Duration),
    /// Does nothing until the gateway goes.
    Stall,
    /// Ends the connection with a reset.
    Reset,
    /// Ends the connection properly.
    Close,
    /// Answers well, streamed or whole as asked, and takes the next request.
    Serve,
    /// Nobody listens there at all; the only step of a site.
    Absent,
    /// Somebody listens and never answers the greeting of TLS; the only step of a site.
    Deaf,
}

/// What a site does with one request.
pub(crate) type Act = Vec<Step>;

/// One scripted site.
pub(crate) struct Site {
    pub(crate) address: SocketAddr,
    /// Requests read.
    pub(crate) asked: Arc<AtomicUsize>,
    /// Connections open.
    pub(crate) open: Arc<AtomicUsize>,
    /// Bytes written.
    pub(crate) said: Arc<AtomicUsize>,
    /// The last bodies of requests.
    pub(crate) heard: Arc<Mutex<Vec<String>>>,
}

/// Raises the site: request number n meets the n-th act, and the last act for ever after.
pub(crate) async fn site(acts: Vec<Act>) -> Site {
    site_at("127.0.0.1:0".parse().unwrap(), acts).await
}

/// The same, at this address.
pub(crate) async fn site_at(address: SocketAddr, acts: Vec<Act>) -> Site {
    let listener = TcpListener::bind(address).await.unwrap();
    let only = acts.first().and_then(|act| act.first()).cloned();
    let address = listener.local_addr().unwrap();
    let (asked, open, said): (Arc<AtomicUsize>, Arc<AtomicUsize>, Arc<AtomicUsize>) = Default::default();
    let heard = Arc::new(Mutex::new(Vec::new()));
    let site = Site {
        address,
        asked: Arc::clone(&asked),
        open: Arc::clone(&open),
        said: Arc::clone(&said),
        heard: Arc::clone(&heard),
    };
    let acts = Arc::new(acts);
    match only {
        // Its port is another one's some day, but not in this test.
        Some(Step::Absent) => return site,
        Some(Step::Deaf) => {
            tokio::spawn(async move {
                let _listener = listener;
                std::future::pending::<()>().await;
            });
            return site;
        }
        _ => {}
    }
    tokio::spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            let (acts, asked, open) = (Arc::clone(&acts), Arc::clone(&asked), Arc::clone(&open));
            let (said, heard) = (Arc::clone(&said), Arc::clone(&heard));
            open.fetch_add(1, SeqCst);
            tokio::spawn(async move {
                play(socket, &acts, &asked, (&said, &heard)).await;
                open.fetch_sub(1, SeqCst);
            });
        }
    });
    site
}

async fn play(
    mut socket: TcpStream,
    acts: &[Act],
    asked: &AtomicUsize,
    (counted, heard): (&AtomicUsize, &Mutex<Vec<String>>),
) {
    let mut seen = Vec::new();
    while let Some((head, body)) = request(&mut socket, &mut seen).await {
        note(heard, body);
        let number = asked.fetch_add(1, SeqCst);
        for step in &acts[number.min(acts.len() - 1)] {
            let said = match step {
                Step::Say(bytes) => {
                    counted.fetch_add(bytes.len(), SeqCst);
                    socket.write_all(bytes).await
                }
                Step::Drip(bytes, gap) => drip(&mut socket, bytes, *gap).await,
                Step::Serve => socket.write_all(&good(&head)).await,
                Step::Wait(span) => {
                    tokio::time::sleep(*span).await;
                    Ok(())
                }
                Step::Stall => {
                    let _ = socket.read(&mut [0; 16]).await;
                    return;
                }
                Step::Reset => {
                    socket.set_zero_linger().unwrap();
                    return;
                }
                Step::Close | Step::Absent | Step::Deaf => return,
            };
            if said.is_err() {
                return;
            }
        }
    }
}

fn note(heard: &Mutex<Vec<String>>, body: String) {
    let mut bodies = heard.lock().unwrap();
    if bodies.len() > 9 {
        bodies.clear();
    }
    bodies.push(body);
}

async fn drip(socket: &mut TcpStream, bytes: &[u8], gap: Duration) -> std::io::Result<()> {
    for byte in bytes {
        socket.write_all(&[*byte]).await?;
        tokio::time::sleep(gap).await;
    }
    Ok(())
}

/// Reads one request: its head and its body.
async fn request(socket: &mut TcpStream, seen: &mut Vec<u8>) -> Option<(String, String)> {
    loop {
        if let Some(end) = find(seen, b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&seen[..end]).to_lowercase();
            let length = head.split("content-length: ").nth(1).and_then(|rest| rest.lines().next());
            let length: usize = length.map_or(0, |digits| digits.trim().parse().unwrap());
            if seen.len() >= end + 4 + length {
                let body = String::from_utf8_lossy(&seen[end + 4..end + 4 + length]).into_owned();
                seen.drain(..end + 4 + length);
                return Some((head, body));
            }
        }
        if socket.read_buf(seen).await.ok()? == 0 {
            return None;
        }
    }
}

fn find(hay: &[u8], needle: &[u8]) -> Option<usize> {
    hay.windows(needle.len()).position(|window| window == needle)
}

pub(crate) const HELLO: &str =
    r#"{"candidates":[{"content":{"role":"model","parts":[{"text":"Hello"}]},"index":0}]}"#;
pub(crate) const END: &str = r#"{"candidates":[{"content":{"role":"model","parts":[{"text":" you"}]},"finishReason":"STOP","index":0}],"usageMetadata":{"promptTokenCount":3,"candidatesTokenCount":2,"totalTokenCount":5}}"#;

fn good(head: &str) -> Vec<u8> {
    if head.contains("streamgeneratecontent") { events(&[HELLO, END]) } else { whole(200, END) }
}

/// A whole answer.
pub(crate) fn whole(status: u16, json: &str) -> Vec<u8> {
    let length = json.len();
    format!("HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{json}")
        .into_bytes()
}

/// The head of a stream.
pub(crate) fn opening() -> Vec<u8> {
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n".to_vec()
}

/// One chunk of HTTP.
pub(crate) fn chunk(text: &str) -> Vec<u8> {
    format!("{:x}\r\n{text}\r\n", text.len()).into_bytes()
}

/// One event in a chunk.
pub(crate) fn event(json: &str) -> Vec<u8> {
    chunk(&format!("data: {json}\r\n\r\n"))
}

/// A complete stream of these events.
pub(crate) fn events(all: &[&str]) -> Vec<u8> {
    let mut bytes = opening();
    for json in all {
        bytes.extend(event(json));
    }
    bytes.extend(b"0\r\n\r\n");
    bytes
}

/// Google's error.
pub(crate) fn status(code: u16, name: &str, details: &str) -> Vec<u8> {
    let json = format!(
        r#"{{"error":{{"code":{code},"message":"scripted","status":"{name}","details":[{details}]}}}}"#
    );
    whole(code, &json)
}

/// A running gateway.
pub(crate) struct Gateway {
    pub(crate) address: SocketAddr,
    pub(crate) admin: SocketAddr,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) shutdown: Shutdown,
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.shutdown.now.cancel();
    }
}

/// Starts the gateway with this configuration.
pub(crate) async fn gateway(toml: &str) -> Gateway {
    gateway_in(toml, &|_| None).await
}

/// The same, in this environment.
pub(crate) async fn gateway_in(toml: &str, env: &dyn Fn(&str) -> Option<String>) -> Gateway {
    let flags = Overrides { config: Some(Path::new("test.toml").to_owned()), ..Overrides::default() };
    let read = |path: &Path| {
        if path == Path::new("test.toml") { Ok(toml.to_owned()) } else { std::fs::read_to_string(path) }
    };
    let config = Config::load(&flags, env, &read).unwrap_or_else(|error| panic!("{error}\n{toml}"));
    let (gateway, care) = gemway::app::gateway(&config).unwrap();
    let server = server::bind(server::Config {
        listen: "127.0.0.1:0".into(),
        admin_listen: "127.0.0.1:0".into(),
        heartbeat: Some(config.server.heartbeat).filter(|every| !every.is_zero()),
        ..server::Config::default()
    })
    .await
    .unwrap();
    let (metrics, shutdown) = (Arc::new(Metrics::new()), Shutdown::default());
    let (address, admin) = (server.address().unwrap(), server.admin_address().unwrap());
    tokio::spawn(server.run(Arc::new(gateway), Arc::clone(&metrics), shutdown.clone()));
    tokio::spawn(care);
    Gateway { address, admin, metrics, shutdown }
}

/// A site's entry in the configuration.
pub(crate) fn site_toml(name: &str, address: SocketAddr, group: &str) -> String {
    format!(
        "[[sites]]\nname = {name:?}\nkind = \"gemini_api\"\napi_key = \"the-key\"\nbase_url = \
         \"http://{address}\"\nquota_group = {group:?}\n"
    )
}

/// What the client saw.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
    pub(crate) took: Duration,
}

impl Reply {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let line = self.head.lines().find(|line| line.to_lowercase().starts_with(&format!("{name}: ")))?;
        Some(line.split_once(": ")?.1.trim())
    }

    /// The code of the error, in the body or in the stream.
    pub(crate) fn code(&self) -> Option<String> {
        let at = self.body.find("\"error\":")?;
        let rest = &self.body[at..];
        let code = rest.split("\"code\":\"").nth(1)?;
        Some(code.split('"').next()?.to_owned())
    }
}

/// One short chat request on a connection of its own.
pub(crate) async fn chat(gateway: SocketAddr, model: &str, stream: bool, headers: &str) -> Reply {
    exchange(gateway, &chat_request(model, stream, headers)).await
}

/// One chat request with this body.
pub(crate) async fn send(gateway: SocketAddr, body: &str, headers: &str) -> Reply {
    exchange(gateway, &request_of(body, headers)).await
}

async fn exchange(gateway: SocketAddr, request: &[u8]) -> Reply {
    let begun = Instant::now();
    let mut socket = TcpStream::connect(gateway).await.unwrap();
    socket.write_all(request).await.unwrap();
    let mut bytes = Vec::new();
    let reading = socket.read_to_end(&mut bytes);
    let _ = tokio::time::timeout(Duration::from_secs(20), reading).await.expect("the gateway hangs");
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no head: {text:?}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Reply { status, head: head.to_owned(), body: body.to_owned(), took: begun.elapsed() }
}

/// One request with this body to another endpoint.
pub(crate) async fn send_to(gateway: SocketAddr, path: &str, body: &str) -> Reply {
    exchange(gateway, &request_to(path, body, "")).await
}

/// The bytes of one chat request.
pub(crate) fn chat_request(model: &str, stream: bool, headers: &str) -> Vec<u8> {
    let body =
        format!(r#"{{"model":"{model}","stream":{stream},"messages":[{{"role":"user","content":"hi"}}]}}"#);
    request_of(&body, headers)
}

fn request_of(body: &str, headers: &str) -> Vec<u8> {
    request_to("/v1/chat/completions", body, headers)
}

fn request_to(path: &str, body: &str, headers: &str) -> Vec<u8> {
    let mut text = format!("POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n");
    write!(text, "{headers}content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}", body.len())
        .unwrap();
    text.into_bytes()
}
