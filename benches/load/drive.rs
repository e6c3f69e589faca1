//! Load: closed loops, an open one, paced streams, streams that are only held.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::Fallible;
use crate::double::PACE;
use crate::process::Process;
use crate::wire::{Came, Connection};
use crate::work::{Side, Work};

/// What a run gave.
#[derive(Debug, Default)]
pub(crate) struct Run {
    pub(crate) requests: usize,
    pub(crate) bytes: usize,
    pub(crate) latencies: Vec<Duration>,
    /// How old each event of a stream was when it came.
    pub(crate) lags: Vec<Duration>,
    /// Of these, those of the events that opened a stream.
    pub(crate) first_lags: Vec<Duration>,
    /// And the others.
    pub(crate) later_lags: Vec<Duration>,
    pub(crate) took: Duration,
    /// What the process under test spent.
    pub(crate) spent: Duration,
}

impl Run {
    fn add(&mut self, came: Came) {
        self.requests += 1;
        self.bytes += came.bytes;
        self.latencies.push(came.took);
        self.first_lags.extend(came.lags.first());
        self.later_lags.extend(came.lags.iter().skip(1));
        self.lags.extend(came.lags);
    }

    fn merge(&mut self, other: Self) {
        self.requests += other.requests;
        self.bytes += other.bytes;
        self.latencies.extend(other.latencies);
        self.lags.extend(other.lags);
        self.first_lags.extend(other.first_lags);
        self.later_lags.extend(other.later_lags);
    }

    fn sorted(mut self) -> Self {
        for times in [&mut self.latencies, &mut self.lags, &mut self.first_lags, &mut self.later_lags] {
            times.sort_unstable();
        }
        self
    }
}

fn spent(process: Option<&Process>) -> Fallible<Duration> {
    process.map_or(Ok(Duration::ZERO), Process::processor)
}

/// `connections` clients, each asking again as soon as it is answered. Connecting and the first request of each are
/// not measured.
pub(crate) async fn closed(
    (side, process): (&Side, Option<&Process>),
    work: Work,
    connections: usize,
    time: Duration,
) -> Fallible<Run> {
    let request = work.request(side);
    let mut opening = JoinSet::new();
    for _ in 0..connections {
        opening.spawn(open(side.address, request.clone()));
    }
    let mut ready = Vec::new();
    while let Some(one) = opening.join_next().await {
        ready.push(one??);
    }
    let (before, began) = (spent(process)?, Instant::now());
    let mut all = JoinSet::new();
    for mut connection in ready {
        let request = request.clone();
        all.spawn(async move {
            let mut run = Run::default();
            while began.elapsed() < time {
                run.add(connection.ask(&request).await?);
            }
            Fallible::Ok(run)
        });
    }
    let mut sum = Run::default();
    while let Some(one) = all.join_next().await {
        sum.merge(one??);
    }
    sum.took = began.elapsed();
    sum.spent = spent(process)?.saturating_sub(before);
    Ok(sum.sorted())
}

async fn open(address: std::net::SocketAddr, request: Bytes) -> Fallible<Connection> {
    let mut connection = Connection::open(address).await?;
    connection.ask(&request).await?;
    Ok(connection)
}

/// `rate` requests a second, whether answered or not; each latency counts from the moment at which the request was
/// due, so that a target that stalls pays for all who had to wait.
pub(crate) async fn open_loop(
    (side, process): (&Side, Option<&Process>),
    work: Work,
    rate: u32,
    time: Duration,
) -> Fallible<Run> {
    let request = work.request(side);
    let idle: Arc<Mutex<Vec<Connection>>> = Arc::default();
    for _ in 0..16 {
        let connection = open(side.address, request.clone()).await?;
        idle.lock().push(connection);
    }
    let before = spent(process)?;
    let (due, mut dues) = mpsc::unbounded_channel();
    let began = Instant::now() + Duration::from_millis(5);
    // A thread: the runtime's timers are a millisecond coarse.
    let clock = std::thread::spawn(move || {
        let every = Duration::from_secs(1) / rate;
        let mut at = began;
        while at < began + time {
            #[expect(clippy::disallowed_methods, reason = "a thread of its own")]
            std::thread::sleep(at.saturating_duration_since(Instant::now()));
            if due.send(at).is_err() {
                return;
            }
            at += every;
        }
    });
    let mut all = JoinSet::new();
    while let Some(due) = dues.recv().await {
        let (request, idle, address) = (request.clone(), Arc::clone(&idle), side.address);
        all.spawn(async move {
            let free = idle.lock().pop();
            let mut connection = match free {
                Some(connection) => connection,
                None => Connection::open(address).await?,
            };
            let mut came = connection.ask(&request).await?;
            came.took = due.elapsed();
            idle.lock().push(connection);
            Fallible::Ok(came)
        });
    }
    let mut sum = Run::default();
    while let Some(one) = all.join_next().await {
        sum.add(one??);
    }
    sum.took = began.elapsed();
    sum.spent = spent(process)?.saturating_sub(before);
    if clock.join().is_err() {
        return Err("the clock broke".into());
    }
    Ok(sum.sorted())
}

/// Streams side by side, begun one after the other within the time of one event.
pub(crate) async fn paced((side, process): (&Side, Option<&Process>), streams: u32) -> Fallible<Run> {
    let request = Work::Paced.request(side);
    let (before, began) = (spent(process)?, Instant::now());
    let mut all = JoinSet::new();
    for stream in 0..streams {
        let (request, address) = (request.clone(), side.address);
        all.spawn(async move {
            tokio::time::sleep(PACE * stream / streams).await;
            Connection::open(address).await?.ask(&request).await
        });
    }
    let mut sum = Run::default();
    while let Some(one) = all.join_next().await {
        sum.add(one??);
    }
    sum.took = began.elapsed();
    sum.spent = spent(process)?.saturating_sub(before);
    Ok(sum.sorted())
}

/// Opens streams that stay open, until there are `wanted`.
pub(crate) async fn hold(side: &Side, held: &mut Vec<TcpStream>, wanted: usize) -> Fallible<()> {
    let request = Work::Held.request(side);
    while held.len() < wanted {
        let mut some = JoinSet::new();
        for _ in 0..(wanted - held.len()).min(100) {
            let (request, address) = (request.clone(), side.address);
            some.spawn(async move { Connection::open(address).await?.hold(&request).await });
        }
        while let Some(one) = some.join_next().await {
            held.push(one??);
        }
    }
    Ok(())
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "a rank in a list that fits in memory"
)]
pub(crate) fn quantile(sorted: &[Duration], of: f64) -> Duration {
    let rank = (sorted.len().saturating_sub(1) as f64 * of).round() as usize;
    sorted.get(rank).copied().unwrap_or_default()
}
