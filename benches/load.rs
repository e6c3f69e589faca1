//! What the gateway adds: it over its simulator, against the simulator alone.
//!
//! `cargo bench --bench load -- [--seconds N] [--connections N] [--streams N]`
#![expect(clippy::print_stdout, reason = "a bench prints its table")]

use std::error::Error;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

type Fallible<T> = Result<T, Box<dyn Error + Send + Sync>>;

const MODEL: &str = "gemini-2.5-flash";
/// Linux counts processor time in hundredths of a second for user programs.
const TICK: Duration = Duration::from_millis(10);
/// Paced streams: as a quick model paces them.
const TOKENS_PER_SECOND: &str = "50";

/// A process of ours, ended with the bench.
struct Process {
    child: Child,
    address: SocketAddr,
}

impl Process {
    fn start(arguments: &[&str], variables: &[(&str, &str)]) -> Fallible<Self> {
        let address = free_address()?;
        let child = Command::new(env!("CARGO_BIN_EXE_gemway"))
            .args(arguments)
            .args(["--listen", &address.to_string()])
            .env_clear()
            .envs(variables.iter().copied())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        Ok(Self { child, address })
    }

    fn simulator(time_to_first_token: &str, tokens_per_second: &str) -> Fallible<Self> {
        let pace = ["--ttft", time_to_first_token, "--tokens-per-second", tokens_per_second];
        Self::start(&[&["simulate"], &pace[..]].concat(), &[])
    }

    fn gateway(over: &Self) -> Fallible<Self> {
        let admin = free_address()?.to_string();
        let base = format!("http://{}", over.address);
        let variables =
            [("GOOGLE_GEMINI_BASE_URL", base.as_str()), ("GEMINI_API_KEY", "x"), ("GEMWAY_LOG", "warn")];
        Self::start(&["serve", "--admin-listen", &admin], &variables)
    }

    /// Waits until it accepts connections.
    async fn ready(&mut self) -> Fallible<()> {
        for _ in 0..400 {
            if TcpStream::connect(self.address).await.is_ok() {
                return Ok(());
            }
            if let Some(status) = self.child.try_wait()? {
                return Err(format!("gemway ended with {status}").into());
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        Err("gemway did not listen".into())
    }

    /// Processor time so far, user and system.
    fn processor(&self) -> Fallible<Duration> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        // The second field is the program's name in parentheses and may contain spaces.
        let fields = stat.rsplit(") ").next().unwrap_or_default().split(' ');
        let ticks: u32 = fields.skip(11).take(2).filter_map(|field| field.parse::<u32>().ok()).sum();
        Ok(TICK * ticks)
    }

    /// A line of /proc/PID/status, in MiB.
    fn memory(&self, line: &str) -> Fallible<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let kib =
            status.lines().find_map(|text| text.strip_prefix(line)?.split_whitespace().next()?.parse().ok());
        Ok(kib.unwrap_or(0.0) / 1024.0)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing left to end.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_address() -> Fallible<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

/// Whom to ask, and how.
#[derive(Clone)]
struct Side {
    address: SocketAddr,
    path: &'static str,
    body: Bytes,
    /// What every line that carries text contains.
    text: &'static [u8],
}

/// The simulator, asked as Gemini is.
fn direct(process: &Process, stream: bool, prompt: &str) -> Side {
    let path = if stream {
        "/v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse"
    } else {
        "/v1beta/models/gemini-2.5-flash:generateContent"
    };
    let body = serde_json::json!({"contents": [{"role": "user", "parts": [{"text": prompt}]}]});
    Side { address: process.address, path, body: body.to_string().into(), text: b"\"text\":" }
}

/// The gateway, asked in the words of `OpenAI`.
fn through(process: &Process, stream: bool, prompt: &str) -> Side {
    let body = serde_json::json!({
        "model": MODEL,
        "stream": stream,
        "messages": [{"role": "user", "content": prompt}],
    });
    let path = "/v1/chat/completions";
    Side { address: process.address, path, body: body.to_string().into(), text: b"\"content\":\"" }
}

async fn connect(address: SocketAddr) -> Fallible<SendRequest<Full<Bytes>>> {
    let socket = TcpStream::connect(address).await?;
    socket.set_nodelay(true)?;
    let (sender, connection) = http1::handshake(TokioIo::new(socket)).await?;
    tokio::spawn(connection);
    Ok(sender)
}

/// One request; when each piece of text came, counted from when it was sent, and when it ended.
async fn ask(sender: &mut SendRequest<Full<Bytes>>, side: &Side) -> Fallible<(Vec<Duration>, Duration)> {
    let request = Request::post(side.path)
        .header("host", side.address.to_string())
        .header("content-type", "application/json")
        .header("x-goog-api-key", "x")
        .body(Full::<Bytes>::new(side.body.clone()))?;
    sender.ready().await?;
    let began = Instant::now();
    let mut answer = sender.send_request(request).await?;
    let mut pieces = Vec::new();
    let mut line = BytesMut::new();
    while let Some(frame) = answer.body_mut().frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        let now = began.elapsed();
        for byte in data {
            if byte != b'\n' {
                line.extend_from_slice(&[byte]);
                continue;
            }
            if line.windows(side.text.len()).any(|window| window == side.text) {
                pieces.push(now);
            }
            line.clear();
        }
    }
    if answer.status() != StatusCode::OK {
        return Err(
            format!("{} from {}: {}", answer.status(), side.path, String::from_utf8_lossy(&line)).into()
        );
    }
    Ok((pieces, began.elapsed()))
}

/// What a closed loop of `connections` gave.
struct Load {
    latencies: Vec<Duration>,
    pieces: usize,
    took: Duration,
}

async fn load(side: &Side, connections: usize, time: Duration) -> Fallible<Load> {
    let began = Instant::now();
    let mut all = JoinSet::new();
    for _ in 0..connections {
        let side = side.clone();
        all.spawn(async move {
            let mut sender = connect(side.address).await?;
            let (mut latencies, mut pieces) = (Vec::new(), 0);
            while began.elapsed() < time {
                let (came, took) = ask(&mut sender, &side).await?;
                latencies.push(took);
                pieces += came.len();
            }
            Fallible::Ok((latencies, pieces))
        });
    }
    let mut sum = Load { latencies: Vec::new(), pieces: 0, took: Duration::ZERO };
    while let Some(one) = all.join_next().await {
        let (latencies, pieces) = one??;
        sum.latencies.extend(latencies);
        sum.pieces += pieces;
    }
    sum.took = began.elapsed();
    sum.latencies.sort_unstable();
    Ok(sum)
}

/// `streams` at once: when each piece came in each of them.
async fn paced(side: &Side, streams: usize) -> Fallible<Vec<Vec<Duration>>> {
    let mut all = JoinSet::new();
    for _ in 0..streams {
        let side = side.clone();
        all.spawn(async move {
            let mut sender = connect(side.address).await?;
            Ok::<_, Box<dyn Error + Send + Sync>>(ask(&mut sender, &side).await?.0)
        });
    }
    let mut offsets = Vec::new();
    while let Some(one) = all.join_next().await {
        offsets.push(one??);
    }
    Ok(offsets)
}

fn quantile(sorted: &[Duration], of: f64) -> Duration {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a rank in a list that fits in memory"
    )]
    let rank = ((sorted.len().saturating_sub(1)) as f64 * of).round() as usize;
    sorted.get(rank).copied().unwrap_or_default()
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

#[expect(clippy::cast_precision_loss, reason = "counts of requests are small")]
fn per_second(count: usize, took: Duration) -> f64 {
    count as f64 / took.as_secs_f64()
}

fn row(name: &str, unit: &str, direct: f64, through: f64) {
    let ratio = if direct > 0.0 { through / direct } else { 0.0 };
    println!("{name:<44}{direct:>12.3}{through:>12.3}{:>12.3}{ratio:>9.2}x  {unit}", through - direct);
}

fn latency_rows(name: &str, direct: &Load, through: &Load) {
    for (label, of) in [("p50", 0.5), ("p99", 0.99)] {
        let (direct, through) = (quantile(&direct.latencies, of), quantile(&through.latencies, of));
        row(&format!("{name}, latency {label}"), "ms", ms(direct), ms(through));
    }
}

struct Options {
    time: Duration,
    connections: usize,
    streams: usize,
}

fn options() -> Fallible<Options> {
    let mut options = Options { time: Duration::from_secs(5), connections: 16, streams: 64 };
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        let mut value = || arguments.next().unwrap_or_default().parse::<usize>();
        match name.as_str() {
            "--seconds" => options.time = Duration::from_secs(value()? as u64),
            "--connections" => options.connections = value()?,
            "--streams" => options.streams = value()?,
            // Cargo's own.
            "--bench" => {}
            other => return Err(format!("unknown argument {other}").into()),
        }
    }
    Ok(options)
}

async fn closed_loops(options: &Options) -> Fallible<()> {
    let mut simulator = Process::simulator("0ms", "0")?;
    simulator.ready().await?;
    let mut gateway = Process::gateway(&simulator)?;
    gateway.ready().await?;
    let prompt = "The quick brown fox jumps over the lazy dog. ".repeat(4);
    let idle = gateway.memory("VmRSS:")?;
    for (stream, name) in [(false, "whole"), (true, "streamed")] {
        let (direct, through) = (direct(&simulator, stream, &prompt), through(&gateway, stream, &prompt));
        // Connections, caches and branch predictors.
        load(&through, options.connections, Duration::from_millis(500)).await?;
        let alone = (load(&direct, 1, options.time / 2).await?, load(&through, 1, options.time / 2).await?);
        latency_rows(&format!("{name}, 1 connection"), &alone.0, &alone.1);
        let straight = load(&direct, options.connections, options.time).await?;
        let before = gateway.processor()?;
        let gated = load(&through, options.connections, options.time).await?;
        let spent = gateway.processor()?.saturating_sub(before);
        let many = format!("{name}, {} connections", options.connections);
        latency_rows(&many, &straight, &gated);
        row(
            &format!("{many}, throughput"),
            "requests/s",
            per_second(straight.latencies.len(), straight.took),
            per_second(gated.latencies.len(), gated.took),
        );
        if stream {
            let (a, b) = (per_second(straight.pieces, straight.took), per_second(gated.pieces, gated.took));
            row(&format!("{many}, throughput"), "pieces/s", a, b);
        }
        let requests = u32::try_from(gated.latencies.len())?.max(1);
        println!(
            "{:<44}{:>36.3}           ms",
            format!("{name}, gateway's CPU per request"),
            ms(spent / requests)
        );
    }
    println!("{:<44}{idle:>36.1}           MiB", "gateway's RSS, idle");
    println!("{:<44}{:>36.1}           MiB", "gateway's RSS, after", gateway.memory("VmRSS:")?);
    println!("{:<44}{:>36.1}           MiB", "gateway's RSS, peak", gateway.memory("VmHWM:")?);
    Ok(())
}

async fn paced_streams(options: &Options) -> Fallible<()> {
    let mut simulator = Process::simulator("100ms", TOKENS_PER_SECOND)?;
    simulator.ready().await?;
    let mut gateway = Process::gateway(&simulator)?;
    gateway.ready().await?;
    let prompt = "The quick brown fox jumps over the lazy dog. ".repeat(10);
    let direct = paced(&direct(&simulator, true, &prompt), options.streams).await?;
    let before = gateway.processor()?;
    let through = paced(&through(&gateway, true, &prompt), options.streams).await?;
    let spent = gateway.processor()?.saturating_sub(before);
    let name = format!("{} paced streams", options.streams);

    let first = |side: &[Vec<Duration>]| {
        let mut first: Vec<_> = side.iter().filter_map(|pieces| pieces.first().copied()).collect();
        first.sort_unstable();
        first
    };
    let firsts = (first(&direct), first(&through));
    row(
        &format!("{name}, first piece p50"),
        "ms",
        ms(quantile(&firsts.0, 0.5)),
        ms(quantile(&firsts.1, 0.5)),
    );
    row(
        &format!("{name}, first piece p99"),
        "ms",
        ms(quantile(&firsts.0, 0.99)),
        ms(quantile(&firsts.1, 0.99)),
    );

    // Each piece against the median time at which the same piece comes without the gateway.
    let longest = direct.iter().map(Vec::len).max().unwrap_or(0);
    let due: Vec<Duration> = (0..longest)
        .map(|index| {
            let mut at: Vec<_> = direct.iter().filter_map(|pieces| pieces.get(index).copied()).collect();
            at.sort_unstable();
            quantile(&at, 0.5)
        })
        .collect();
    let lag = |side: &[Vec<Duration>]| {
        let mut lags: Vec<_> = side
            .iter()
            .flat_map(|pieces| pieces.iter().zip(&due).map(|(came, due)| came.saturating_sub(*due)))
            .collect();
        lags.sort_unstable();
        lags
    };
    let lags = (lag(&direct), lag(&through));
    row(&format!("{name}, lag per piece p50"), "ms", ms(quantile(&lags.0, 0.5)), ms(quantile(&lags.1, 0.5)));
    row(
        &format!("{name}, lag per piece p99"),
        "ms",
        ms(quantile(&lags.0, 0.99)),
        ms(quantile(&lags.1, 0.99)),
    );
    let pieces = |side: &[Vec<Duration>]| side.iter().map(Vec::len).sum::<usize>();
    println!("{:<44}{:>12}{:>12}", format!("{name}, pieces"), pieces(&direct), pieces(&through));
    let each = u32::try_from(pieces(&through))?.max(1);
    println!("{:<44}{:>36.3}           ms", format!("{name}, CPU per piece"), ms(spent / each));
    println!("{:<44}{:>36.1}           MiB", format!("{name}, gateway's RSS"), gateway.memory("VmRSS:")?);
    Ok(())
}

async fn run() -> Fallible<()> {
    let options = options()?;
    println!("Load, simulator and gateway share {:?} cores.", std::thread::available_parallelism().ok());
    println!("{:<44}{:>12}{:>12}{:>12}{:>10}", "", "simulator", "gateway", "added", "ratio");
    closed_loops(&options).await?;
    paced_streams(&options).await
}

fn main() -> Fallible<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(run())
}
