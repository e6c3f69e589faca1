//! Gateways as processes over their simulator, and a client that sees what an SDK would.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

/// A folder that goes with the test.
pub(crate) struct Scratch(pub(crate) PathBuf);

impl Scratch {
    pub(crate) fn new() -> Self {
        static LAST: AtomicUsize = AtomicUsize::new(0);
        let number = LAST.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("gemway-books-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        std::fs::File::create(&path).unwrap().write_all(text.as_bytes()).unwrap();
        path
    }

    pub(crate) fn ledger(&self) -> String {
        format!("sqlite:{}", self.0.join("gemway.db").display())
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A running gateway; killed when dropped.
pub(crate) struct Gateway {
    pub(crate) child: Child,
    pub(crate) address: SocketAddr,
    pub(crate) admin: SocketAddr,
}

fn free() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// The binary with an environment of the test's own.
pub(crate) fn gemway(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gemway"));
    command.args(arguments).env_clear().env("GEMWAY_LOG", "warn").kill_on_drop(true);
    command
}

impl Gateway {
    /// Starts one with a configuration and waits until it is ready.
    pub(crate) async fn start(scratch: &Scratch, config: &str) -> Self {
        let (address, admin) = (free(), free());
        let file = scratch.file(&format!("{}.toml", address.port()), config);
        let addresses = [address.to_string(), admin.to_string()];
        let mut arguments = vec!["serve", "--config", file.to_str().unwrap()];
        arguments.extend(["--listen", &addresses[0], "--admin-listen", &addresses[1]]);
        if !config.contains("time_to_first_token") {
            arguments.extend(["--simulator-ttft", "0", "--simulator-tokens-per-second", "0"]);
        }
        let child = gemway(&arguments).stdout(Stdio::null()).stderr(Stdio::inherit()).spawn().unwrap();
        let gateway = Self { child, address, admin };
        for _ in 0..400 {
            if let Ok(answer) = fetch(admin, "GET", "/readyz", &[], "").await
                && answer.status == 200
            {
                return gateway;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("the gateway did not become ready");
    }

    /// Ends it as an operator would, so that everything is written.
    pub(crate) async fn stop(mut self) {
        let id = self.child.id().unwrap().to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().await.unwrap().success());
        tokio::time::timeout(Duration::from_secs(30), self.child.wait()).await.unwrap().unwrap();
    }
}

/// An answer, as far as it came.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
    /// The body came to its proper end.
    pub(crate) whole: bool,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let wanted = format!("{name}: ");
        self.head.lines().find_map(|line| line.strip_prefix(wanted.as_str()))
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    /// The usage that the client was told, in a whole reply or at the end of a stream.
    pub(crate) fn usage(&self) -> Option<Value> {
        if self.body.starts_with("data:") || self.body.starts_with(':') {
            let events = self.body.lines().filter_map(|line| line.strip_prefix("data: "));
            let values = events.filter_map(|event| serde_json::from_str::<Value>(event).ok());
            return values.map(|event| event["usage"].clone()).rfind(|usage| !usage.is_null());
        }
        Some(serde_json::from_str::<Value>(&self.body).ok()?["usage"].clone())
            .filter(|usage| !usage.is_null())
    }

    /// The client has its whole answer, and knows it.
    pub(crate) fn complete(&self) -> bool {
        let stream = self.body.contains("data: ");
        self.status == 200 && self.whole && (!stream || self.body.contains("data: [DONE]"))
    }
}

/// One request on a connection of its own.
pub(crate) async fn fetch(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> std::io::Result<Answer> {
    fetch_until(address, method, (path, headers, body), usize::MAX).await
}

/// The same, but the client leaves when it has read so many bytes.
pub(crate) async fn fetch_until(
    address: SocketAddr,
    method: &str,
    (path, headers, body): (&str, &[(&str, &str)], &str),
    enough: usize,
) -> std::io::Result<Answer> {
    let mut socket = TcpStream::connect(address).await?;
    let mut text = format!("{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n");
    for (name, value) in headers {
        let _ = write!(text, "{name}: {value}\r\n");
    }
    let _ = write!(text, "content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    socket.write_all(text.as_bytes()).await?;
    let mut bytes = Vec::new();
    let mut buffer = [0; 8192];
    while bytes.len() < enough {
        match socket.read(&mut buffer).await {
            // A connection that was torn down is an answer that has no end.
            Ok(0) | Err(_) => break,
            Ok(count) => bytes.extend_from_slice(&buffer[..count]),
        }
    }
    Ok(read(&String::from_utf8_lossy(&bytes)))
}

fn read(text: &str) -> Answer {
    let Some((head, rest)) = text.split_once("\r\n\r\n") else { return Answer::default() };
    let head = head.to_ascii_lowercase();
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    let mut answer = Answer { status, head, ..Answer::default() };
    if answer.header("transfer-encoding") == Some("chunked") {
        let mut rest = rest;
        while let Some((size, after)) = rest.split_once("\r\n") {
            let Ok(size) = usize::from_str_radix(size, 16) else { break };
            if size == 0 {
                answer.whole = true;
                break;
            }
            let Some(chunk) = after.get(..size) else { break };
            answer.body.push_str(chunk);
            rest = after.get(size + 2..).unwrap_or("");
        }
    } else {
        let length = answer.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
        answer.whole = rest.len() == length;
        rest.clone_into(&mut answer.body);
    }
    answer
}

/// What `gemway usage` says, as JSON.
pub(crate) async fn usage(ledger: &str, by: &str) -> Vec<Value> {
    let arguments = ["usage", "--ledger", ledger, "--by", by, "--since", "1h", "--format", "json"];
    let output = gemway(&arguments).output().await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// How often a test with a switch does what it does.
pub(crate) fn times(variable: &str, otherwise: usize) -> usize {
    let found = std::env::vars().find(|(name, _)| name == variable);
    found.and_then(|(_, value)| value.parse().ok()).unwrap_or(otherwise)
}

pub(crate) const KEY: (&str, &str) = ("authorization", "Bearer sk-books");

/// A chat request.
pub(crate) fn chat(model: &str, text: &str, stream: bool) -> String {
    let options = if stream { r#","stream":true,"stream_options":{"include_usage":true}"# } else { "" };
    format!(r#"{{"model":"{model}","messages":[{{"role":"user","content":"{text}"}}]{options}}}"#)
}
