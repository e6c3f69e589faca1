//! Instructions that the gateway spends on one request, one event of a stream, one large prompt: counted by
//! valgrind, so that neighbours on the machine do not matter.
//!
//! `cargo bench --bench instructions` compares with the table in `benches/README.md` and fails where one is a
//! twentieth above it. Each count is a difference of two runs, so that the start of the process is in neither.
#![expect(clippy::print_stdout, reason = "a bench prints its table")]

use std::error::Error;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

type Fallible<T> = Result<T, Box<dyn Error + Send + Sync>>;

const KEY: &str = "sk-instructions";
/// How far above the table a count may be, in hundredths.
const SLACK: u64 = 5;

/// What is asked, how often in the shorter and in the longer run.
struct Scenario {
    name: &'static str,
    path: &'static str,
    body: fn() -> Bytes,
    /// What is counted in an answer; empty counts answers.
    unit: &'static [u8],
    times: (usize, usize),
}

const SCENARIOS: [Scenario; 5] = [
    Scenario {
        name: "small request",
        path: "/v1/chat/completions",
        body: || chat(false, &"The quick brown fox jumps over the lazy dog. ".repeat(4)),
        unit: b"",
        times: (50, 550),
    },
    Scenario {
        name: "short stream",
        path: "/v1/chat/completions",
        body: || chat(true, "write 10 words"),
        unit: b"",
        times: (30, 230),
    },
    Scenario {
        name: "event of a long stream",
        path: "/v1/chat/completions",
        body: || chat(true, "write 2000 words"),
        unit: b"\ndata: ",
        times: (1, 6),
    },
    Scenario {
        name: "prompt of 1 MiB",
        path: "/v1/chat/completions",
        body: || chat(false, &"A line with \"quotes\", a tab\t and an end.\n".repeat((1 << 20) / 44)),
        unit: b"",
        times: (2, 12),
    },
    Scenario {
        name: "100 embeddings of 768 numbers",
        path: "/v1/embeddings",
        body: || {
            let texts: Vec<String> = (0..100).map(|at| format!("text number {at}")).collect();
            let body =
                serde_json::json!({"model": "gemini-embedding-001", "dimensions": 768, "input": texts});
            body.to_string().into()
        },
        unit: b"",
        times: (2, 12),
    },
];

fn chat(stream: bool, prompt: &str) -> Bytes {
    let messages = [
        serde_json::json!({"role": "system", "content": "Be brief."}),
        serde_json::json!({"role": "user", "content": prompt}),
    ];
    serde_json::json!({"model": "gemini-2.5-flash", "stream": stream, "messages": messages})
        .to_string()
        .into()
}

/// A process of ours, ended with the bench.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing left to end.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn free_address() -> Fallible<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

fn simulator() -> Fallible<(Process, SocketAddr)> {
    let address = free_address()?;
    let child = Command::new(env!("CARGO_BIN_EXE_gemway"))
        .args(["simulate", "--ttft", "0ms", "--tokens-per-second", "0", "--listen", &address.to_string()])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    Ok((Process(child), address))
}

/// Asks the same thing so often; how many units came.
async fn asked(address: SocketAddr, scenario: &Scenario, times: usize) -> Fallible<u64> {
    let mut sender = connect(address).await?;
    let body = (scenario.body)();
    let mut units = 0;
    for _ in 0..times {
        sender.ready().await?;
        let request = Request::post(scenario.path)
            .header("host", address.to_string())
            .header("content-type", "application/json")
            .header("authorization", format!("Bearer {KEY}"))
            .body(Full::<Bytes>::new(body.clone()))?;
        let mut answer = sender.send_request(request).await?;
        let mut text = Vec::new();
        while let Some(frame) = answer.body_mut().frame().await {
            if let Ok(data) = frame?.into_data() {
                text.extend_from_slice(&data);
            }
        }
        if answer.status() != StatusCode::OK {
            return Err(format!("{}: {}", answer.status(), String::from_utf8_lossy(&text)).into());
        }
        units += if scenario.unit.is_empty() {
            1
        } else {
            text.windows(scenario.unit.len()).filter(|window| *window == scenario.unit).count() as u64
        };
    }
    Ok(units)
}

async fn connect(address: SocketAddr) -> Fallible<SendRequest<Full<Bytes>>> {
    // Under valgrind it takes its time to listen.
    for _ in 0..1200 {
        if let Ok(socket) = TcpStream::connect(address).await {
            socket.set_nodelay(true)?;
            let (sender, connection) = http1::handshake(TokioIo::new(socket)).await?;
            tokio::spawn(connection);
            return Ok(sender);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Err("the gateway did not listen".into())
}

/// Instructions and units of one run, start and end of the process included.
async fn run(scenario: &Scenario, times: usize, simulator: SocketAddr) -> Fallible<(u64, u64)> {
    let (address, admin) = (free_address()?, free_address()?);
    let gateway = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null", env!("CARGO_BIN_EXE_gemway"), "serve"])
        .args(["--listen", &address.to_string(), "--admin-listen", &admin.to_string()])
        .env("GOOGLE_GEMINI_BASE_URL", format!("http://{simulator}"))
        .env("GEMINI_API_KEY", "x")
        .env("GEMWAY_API_KEYS", KEY)
        .env("TOKIO_WORKER_THREADS", "1")
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("valgrind cannot be started: {error}"))?;
    let mut gateway = Process(gateway);
    let mut log = gateway.0.stderr.take().ok_or("no standard error")?;
    // Read as it comes: a full pipe would stop the gateway.
    let reading = std::thread::spawn(move || {
        let mut said = String::new();
        std::io::Read::read_to_string(&mut log, &mut said).map(|_| said)
    });
    let units = asked(address, scenario, times).await?;
    let pid = gateway.0.id().to_string();
    // Twice: the second says that there is nothing to wait for.
    for _ in 0..2 {
        Command::new("kill").args(["-TERM", &pid]).status()?;
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    gateway.0.wait()?;
    let said = reading.join().map_err(|_panic| "the reader ended badly")??;
    let collected = said.lines().filter_map(|line| line.split("Collected : ").nth(1)).next_back();
    let count = collected.and_then(|count| count.trim().parse().ok());
    Ok((count.ok_or_else(|| format!("valgrind said no count:\n{said}"))?, units))
}

/// The count that the table gives.
fn baseline(name: &str) -> Option<u64> {
    let table = include_str!("README.md");
    let row =
        table.lines().find_map(|line| line.strip_prefix("| ")?.strip_prefix(name)?.strip_prefix(" | "))?;
    row.split(" |").next()?.replace(' ', "").parse().ok()
}

#[tokio::main]
async fn main() -> Fallible<()> {
    let (_simulator, address) = simulator()?;
    let mut worse = Vec::new();
    println!("{:<32}{:>14}{:>14}{:>9}", "instructions", "now", "table", "ratio");
    for scenario in &SCENARIOS {
        let (short, long) = scenario.times;
        let before = run(scenario, short, address).await?;
        let after = run(scenario, long, address).await?;
        let now = after.0.saturating_sub(before.0) / after.1.saturating_sub(before.1).max(1);
        let table = baseline(scenario.name).unwrap_or(0);
        let hundredths = now * 100 / table.max(1);
        println!("{:<32}{now:>14}{table:>14}{:>8}%", scenario.name, hundredths);
        if hundredths > 100 + SLACK {
            worse.push(scenario.name);
        }
    }
    if worse.is_empty() {
        Ok(())
    } else {
        Err(format!("more than the table allows: {}", worse.join(", ")).into())
    }
}
