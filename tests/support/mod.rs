//! Gateways as processes over their simulator or over a double, and a client that sees what an SDK would. Shared by
//! the suites that start the binary.
//!
//! With `GEMWAY_TEST_TRACES` in the environment, everything that a gateway leaves behind (its log, its last metrics, its
//! databases) is kept in that folder, where the test command looks for secrets.

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;

/// A variable of the test command's.
pub(crate) fn variable(name: &str) -> Option<String> {
    std::env::vars().find_map(|(found, value)| (found == name).then_some(value))
}

fn traces() -> Option<PathBuf> {
    variable("GEMWAY_TEST_TRACES").map(PathBuf::from)
}

/// A folder that goes with the test.
pub(crate) struct Scratch(pub(crate) PathBuf);

impl Scratch {
    pub(crate) fn new() -> Self {
        static LAST: AtomicUsize = AtomicUsize::new(0);
        let number = LAST.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("gemway-test-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// Writes a file beside its place and moves it there, as editors and mounted configurations do: nobody reads half of it.
    pub(crate) fn file(&self, name: &str, text: &str) -> PathBuf {
        let (path, beside) = (self.0.join(name), self.0.join(format!(".{name}.new")));
        std::fs::write(&beside, text).unwrap();
        std::fs::rename(&beside, &path).unwrap();
        path
    }

    pub(crate) fn ledger(&self) -> String {
        format!("sqlite:{}", self.0.join("gemway.db").display())
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Some(traces) = traces() {
            for entry in std::fs::read_dir(&self.0).into_iter().flatten().flatten() {
                let name = entry.file_name().to_string_lossy().into_owned();
                if name.contains(".db") {
                    let folder = self.0.file_name().unwrap_or_default().to_string_lossy().into_owned();
                    let _ = std::fs::copy(entry.path(), traces.join(format!("{folder}-{name}")));
                }
            }
        }
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// An address that was free a moment ago.
pub(crate) fn free() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// The binary with an environment of the test's own.
pub(crate) fn gemway(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gemway"));
    command.args(arguments).env_clear().kill_on_drop(true);
    command
}

/// A running gateway; killed when dropped.
pub(crate) struct Gateway {
    pub(crate) child: Child,
    pub(crate) address: SocketAddr,
    pub(crate) admin: SocketAddr,
    log: PathBuf,
}

impl Gateway {
    /// Starts one with a configuration and waits until it is ready.
    pub(crate) async fn start(scratch: &Scratch, config: &str) -> Self {
        let file = scratch.file(&format!("{}.toml", free().port()), config);
        let mut arguments = Vec::new();
        if !config.contains("time_to_first_token") {
            arguments.extend(["--simulator-ttft", "0", "--simulator-tokens-per-second", "0"]);
        }
        Self::start_with(scratch, Some(&file), &arguments, &[]).await
    }

    /// Starts one with a file, or none, with flags and with variables.
    pub(crate) async fn start_with(
        scratch: &Scratch,
        file: Option<&Path>,
        flags: &[&str],
        variables: &[(&str, &str)],
    ) -> Self {
        let (address, admin) = (free(), free());
        let folder = traces().unwrap_or_else(|| scratch.0.clone());
        let log = folder.join(format!("{}-{}.log", std::process::id(), address.port()));
        let mut command = gemway(&["serve"]);
        // Flags go before variables, so that a test may listen elsewhere.
        command.env("GEMWAY_LISTEN", address.to_string()).env("GEMWAY_ADMIN_LISTEN", admin.to_string());
        command.args(flags);
        if let Some(file) = file {
            command.arg("--config").arg(file);
        }
        let out = || Stdio::from(std::fs::File::options().create(true).append(true).open(&log).unwrap());
        let child = command.envs(variables.iter().copied()).stdout(out()).stderr(out()).spawn().unwrap();
        let mut gateway = Self { child, address, admin, log };
        for _ in 0..400 {
            if let Ok(answer) = fetch(admin, "GET", "/readyz", &[], "").await
                && answer.status == 200
            {
                return gateway;
            }
            if let Ok(Some(status)) = gateway.child.try_wait() {
                panic!("the gateway ended with {status}: {}", gateway.log());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("the gateway did not become ready");
    }

    /// What it has logged. Lines lie for some milliseconds before they are written: it is read until no more come.
    pub(crate) fn log(&self) -> String {
        let read = || std::fs::read_to_string(&self.log).unwrap_or_default();
        let mut log = read();
        for _ in 0..20 {
            #[expect(clippy::disallowed_methods, reason = "short, and other callers cannot wait otherwise")]
            std::thread::sleep(Duration::from_millis(100));
            let before = log.len();
            log = read();
            if log.len() == before {
                break;
            }
        }
        log
    }

    /// The log's lines about requests.
    pub(crate) fn requests(&self) -> Vec<Value> {
        let lines = self.log();
        let values = lines.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        values.filter(|line| line["message"] == "request").collect()
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, name: &str) {
        let id = self.child.id().unwrap().to_string();
        let done = std::process::Command::new("kill").args([&format!("-{name}"), &id]).status();
        assert!(done.unwrap().success());
    }

    /// Its page of metrics.
    pub(crate) async fn metrics(&self) -> String {
        fetch(self.admin, "GET", "/metrics", &[], "").await.unwrap().body
    }

    /// Processor time so far, user and system.
    pub(crate) fn processor(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id().unwrap())).unwrap();
        let fields = stat.rsplit(") ").next().unwrap().split(' ').skip(11).take(2);
        // Linux counts in hundredths of a second for user programs.
        Duration::from_millis(10) * fields.map(|ticks| ticks.parse::<u32>().unwrap()).sum()
    }

    /// Ends it as an operator would, so that everything is written.
    pub(crate) async fn stop(mut self) {
        self.keep_metrics();
        self.signal("TERM");
        tokio::time::timeout(Duration::from_secs(30), self.child.wait()).await.unwrap().unwrap();
    }

    fn keep_metrics(&self) {
        if traces().is_none() {
            return;
        }
        // Whoever died in the middle of the test has none.
        let Ok(mut socket) = std::net::TcpStream::connect_timeout(&self.admin, Duration::from_secs(1)) else {
            return;
        };
        let _ = socket.set_read_timeout(Some(Duration::from_secs(2)));
        let _ = socket.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        let mut page = Vec::new();
        let _ = socket.read_to_end(&mut page);
        let _ = std::fs::write(self.log.with_extension("metrics"), page);
    }
}

impl Drop for Gateway {
    #[expect(clippy::print_stderr, reason = "whoever reads of a failed test wants the log")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let tail = log.lines().rev().take(30).collect::<Vec<_>>();
            eprintln!(
                "the gateway's log ended so:\n{}",
                tail.into_iter().rev().collect::<Vec<_>>().join("\n")
            );
        }
        if self.child.id().is_some() {
            self.keep_metrics();
        }
    }
}

/// Answers every request with the same status and JSON, and tells what was asked.
pub(crate) async fn double(
    status: &'static str,
    answer: &'static str,
) -> (SocketAddr, mpsc::UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (tell, told) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let tell = tell.clone();
            tokio::spawn(async move {
                let mut seen = Vec::new();
                while !whole(&seen) {
                    if socket.read_buf(&mut seen).await.unwrap_or(0) == 0 {
                        return;
                    }
                }
                let _ = tell.send(String::from_utf8_lossy(&seen).into_owned());
                let head =
                    format!("HTTP/1.1 {status}\r\ncontent-type: application/json\r\nconnection: close\r\n");
                let reply = format!("{head}content-length: {}\r\n\r\n{answer}", answer.len());
                let _ = socket.write_all(reply.as_bytes()).await;
            });
        }
    });
    (address, told)
}

fn whole(seen: &[u8]) -> bool {
    let text = String::from_utf8_lossy(seen);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head
        .lines()
        .find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ").map(str::to_owned));
    body.len() >= length.map_or(0, |length| length.trim().parse().unwrap())
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
    let socket = TcpStream::connect(address).await?;
    speak(socket, method, (path, headers, body), enough).await
}

/// The same on a connection that is there already: one with TLS, or a Unix socket.
pub(crate) async fn speak(
    mut socket: impl AsyncRead + AsyncWrite + Unpin,
    method: &str,
    (path, headers, body): (&str, &[(&str, &str)], &str),
    enough: usize,
) -> std::io::Result<Answer> {
    let mut text = format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n");
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
pub(crate) fn times(name: &str, otherwise: usize) -> usize {
    variable(name).and_then(|value| value.parse().ok()).unwrap_or(otherwise)
}

/// A client key. `canary` is in every secret of the suites, so that leaks can be looked for.
pub(crate) const KEY: (&str, &str) = ("authorization", "Bearer sk-canary-of-a-client-0123");

/// A chat request.
pub(crate) fn chat(model: &str, text: &str, stream: bool) -> String {
    let options = if stream { r#","stream":true,"stream_options":{"include_usage":true}"# } else { "" };
    format!(r#"{{"model":"{model}","messages":[{{"role":"user","content":"{text}"}}]{options}}}"#)
}
