//! The ledger: one row for each request of a known key, in `SQLite` or Postgres.
//!
//! Never on the request's path: rows go through a bounded queue to one thread, which commits all that wait as
//! one group. Whoever must know that a row is safe waits for its group ([`Ledger::commit`]). When the database
//! is away, rows wait in memory up to a bound; what does not fit is lost, counted, and said once in the log.
//! A row has an id of its own and is written over, never twice.

mod postgres;
mod query;
mod sqlite;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::error::{Error, Kind, Origin, Result, Retry};
use crate::store::Place;
use crate::telemetry::Accounts;
use crate::usage::Usage;

pub use query::{Dimension, Format, Group, Query, csv, instant, render};

/// Rows that may wait for the thread, and as many again for a database that is away.
const QUEUE: usize = 16_384;

/// Rows in one group.
const GROUP: usize = 512;

/// How long a lost database is left alone between two tries.
const PAUSE: Duration = Duration::from_secs(1);

/// How long an answer waits for its row before it ends as an error.
const PATIENCE: Duration = Duration::from_secs(5);

/// One request, as it is kept.
#[derive(Clone, Debug, Default)]
pub struct Row {
    /// Its own, sorted by time.
    pub id: String,
    /// When the request came, in milliseconds since 1970.
    pub at: i64,
    /// The request's id, which a client may have chosen.
    pub request_id: String,
    /// The key's name.
    pub key: String,
    /// The key's labels, a JSON object.
    pub labels: Arc<str>,
    /// The route's name.
    pub route: &'static str,
    /// The model, as the client called it.
    pub asked: Option<String>,
    /// The model that was dispatched.
    pub model: Option<String>,
    /// The site that answered.
    pub site: Option<String>,
    /// How it ended.
    pub outcome: &'static str,
    /// The status that was sent.
    pub status: u16,
    /// What went wrong.
    pub error: Option<&'static str>,
    /// Calls made to Google.
    pub attempts: u32,
    /// The reply was streamed.
    pub stream: bool,
    /// Tokens.
    pub usage: Usage,
    /// Nano-dollars, where the price is known.
    pub cost: Option<u64>,
    /// To the first streamed event, in milliseconds.
    pub first_token: Option<u64>,
    /// The whole time, in milliseconds.
    pub duration: u64,
}

impl Row {
    /// Counts other than text by modality, as a JSON object; empty where Google told none.
    fn detail(&self) -> String {
        use crate::usage::Modality;
        let mut all = serde_json::Map::new();
        let counts = [
            ("input", &self.usage.input_by),
            ("cached", &self.usage.cached_by),
            ("output", &self.usage.output_by),
            ("tool_use", &self.usage.tool_use_by),
        ];
        for (kind, by) in counts {
            let told = Modality::ALL.iter().filter(|m| **m != Modality::Text && by[**m] > 0);
            let told: serde_json::Map<_, _> = told.map(|m| (m.as_str().to_owned(), by[*m].into())).collect();
            if !told.is_empty() {
                all.insert(kind.to_owned(), told.into());
            }
        }
        if all.is_empty() { String::new() } else { serde_json::Value::Object(all).to_string() }
    }
}

fn open(place: &Place) -> Result<Box<dyn Book>> {
    Ok(match place {
        Place::Sqlite(path) => Box::new(sqlite::Sqlite::open(path)?),
        Place::Postgres(url) => Box::new(postgres::Postgres::new(url)?),
    })
}

/// Sums over what has been written. Opens a connection of its own; the writer is not disturbed. Blocks.
///
/// # Errors
/// When the ledger cannot be read.
pub fn ask(place: &Place, query: &Query) -> Result<Vec<Group>> {
    match place {
        Place::Sqlite(path) => sqlite::ask(path, query),
        Place::Postgres(url) => postgres::ask(url, query),
    }
}

/// A database that takes rows.
trait Book: Send {
    /// Makes the rows safe: all of them or none. `durable`: against a loss of power too.
    fn append(&mut self, rows: &[Row], durable: bool) -> Result<()>;
}

/// When a row must be safe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Soon.
    Process,
    /// Before the answer ends.
    BeforeEnd,
}

/// The way to the thread that writes.
#[derive(Clone, Debug)]
pub struct Ledger {
    sender: SyncSender<Message>,
    accounts: Accounts,
    durability: Durability,
}

enum Message {
    Row(Box<Row>),
    Commit(Box<Row>, oneshot::Sender<bool>),
    Close(oneshot::Sender<()>),
}

impl Ledger {
    /// Opens the ledger and starts its thread. A Postgres that is away is waited for in the background.
    ///
    /// # Errors
    /// When a file cannot be opened, or was written by a newer release.
    pub fn open(place: &Place, durability: Durability, accounts: Accounts) -> Result<Self> {
        let book = open(place)?;
        let (sender, receiver) = sync_channel(QUEUE);
        let mut writer = Writer {
            book,
            waiting: VecDeque::new(),
            away: None,
            durable: durability == Durability::BeforeEnd,
            accounts: accounts.clone(),
        };
        std::thread::Builder::new()
            .name("ledger".to_owned())
            .spawn(move || writer.run(&receiver))
            .map_err(Error::internal)?;
        Ok(Self { sender, accounts, durability })
    }

    /// Whether answers wait for their rows.
    pub fn before_end(&self) -> bool {
        self.durability == Durability::BeforeEnd
    }

    /// Hands a row over. Never waits; a row that finds no room is lost and counted.
    pub fn record(&self, row: Row) {
        match self.sender.try_send(Message::Row(Box::new(row))) {
            Ok(()) => self.accounts.ledger_queued(1),
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => self.accounts.ledger_lost(1),
        }
    }

    /// Hands a row over and waits until it is safe.
    ///
    /// # Errors
    /// `Overloaded` with the code `ledger_unavailable`, when the row could not be made safe in time.
    pub fn commit(&self, row: Row) -> impl Future<Output = Result<()>> + Send + use<> {
        let (done, committed) = oneshot::channel();
        let sent = self.sender.try_send(Message::Commit(Box::new(row), done)).is_ok();
        if sent {
            self.accounts.ledger_queued(1);
        }
        async move {
            let safe = sent && matches!(tokio::time::timeout(PATIENCE, committed).await, Ok(Ok(true)));
            if safe { Ok(()) } else { Err(unavailable()) }
        }
    }

    /// Writes what still waits and ends the thread; gives up after a while.
    pub async fn close(&self) {
        let (done, closed) = oneshot::channel();
        let mut message = Message::Close(done);
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            match self.sender.try_send(message) {
                Ok(()) => {
                    if tokio::time::timeout(PATIENCE, closed).await.is_err() {
                        tracing::error!("the ledger could not be closed in time");
                    }
                    return;
                }
                Err(TrySendError::Disconnected(_)) => return,
                Err(TrySendError::Full(back)) => message = back,
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

fn unavailable() -> Error {
    Error::new(
        Kind::Overloaded,
        Origin::Gateway,
        "The answer could not be written to the ledger, so it is withheld; please try again.",
    )
    .code("ledger_unavailable")
    .retry(Retry::Soon)
}

/// When a row came to the ledger, in milliseconds since 1970.
fn handed_over(row: &Row) -> u64 {
    u64::try_from(row.at).unwrap_or_default().saturating_add(row.duration)
}

struct Writer {
    book: Box<dyn Book>,
    /// Rows that a lost database has not taken yet.
    waiting: VecDeque<Row>,
    /// Since when it is away, and when it was tried last.
    away: Option<(Instant, Instant)>,
    durable: bool,
    accounts: Accounts,
}

impl Writer {
    fn run(&mut self, receiver: &Receiver<Message>) {
        loop {
            let first = match receiver.recv_timeout(PAUSE) {
                Ok(message) => Some(message),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            let (mut rows, mut waiters, mut closing) = (Vec::new(), Vec::new(), None);
            let rest = std::iter::from_fn(|| receiver.try_recv().ok());
            for message in first.into_iter().chain(rest.take(GROUP - 1)) {
                match message {
                    Message::Row(row) => rows.push(*row),
                    Message::Commit(row, done) => waiters.push((*row, done)),
                    Message::Close(done) => closing = Some(done),
                }
            }
            self.accounts.ledger_taken(rows.len() + waiters.len());
            self.group(rows, waiters);
            self.accounts.ledger_oldest(self.waiting.front().map_or(0, handed_over));
            if let Some(done) = closing {
                while !self.waiting.is_empty() && self.away.is_none() {
                    self.group(Vec::new(), Vec::new());
                }
                // Whoever closes may have given up by now.
                let _ = done.send(());
                return;
            }
        }
    }

    /// Writes one group: what waited before, what came, and what somebody waits for.
    fn group(&mut self, rows: Vec<Row>, waiters: Vec<(Row, oneshot::Sender<bool>)>) {
        self.waiting.extend(rows);
        let oldest = self.waiting.front().or_else(|| waiters.first().map(|(row, _)| row));
        self.accounts.ledger_oldest(oldest.map_or(0, handed_over));
        let lone = waiters.is_empty();
        if self.waiting.is_empty() && lone {
            return;
        }
        let resting = self.away.is_some_and(|(_, tried)| tried.elapsed() < PAUSE);
        let old = self.waiting.len().min(GROUP);
        let (awaited, told): (Vec<Row>, Vec<_>) = waiters.into_iter().unzip();
        let written = if resting {
            Err(None)
        } else {
            let mut group: Vec<Row> = self.waiting.drain(..old).collect();
            group.extend(awaited);
            match self.book.append(&group, self.durable) {
                Ok(()) => {
                    for row in &group {
                        self.accounts.ledger_written(row.outcome);
                    }
                    Ok(())
                }
                Err(error) => {
                    // What nobody waits for is tried again; whoever waits is told, and books a failure instead.
                    group.truncate(old);
                    for row in group.into_iter().rev() {
                        self.waiting.push_front(row);
                    }
                    Err(Some(error))
                }
            }
        };
        match &written {
            Ok(()) => self.back(old),
            Err(error) => self.lost(error.as_ref()),
        }
        for done in told {
            // A client that has left does not listen any more.
            let _ = done.send(written.is_ok());
        }
    }

    /// A group was written, of which so many rows nobody waited for.
    fn back(&mut self, rows: usize) {
        if let Some((since, _)) = self.away.take() {
            self.accounts.ledger_recovered(rows);
            self.accounts.ledger_up(true);
            tracing::info!(seconds = since.elapsed().as_secs(), "the ledger is back");
        }
    }

    fn lost(&mut self, error: Option<&Error>) {
        if let Some(error) = error {
            self.accounts.ledger_error();
            let now = Instant::now();
            if let Some((_, tried)) = &mut self.away {
                *tried = now;
            } else {
                self.away = Some((now, now));
                self.accounts.ledger_up(false);
                tracing::error!(%error, "the ledger cannot be written; rows wait in memory");
            }
        }
        let over = self.waiting.len().saturating_sub(QUEUE);
        if over > 0 {
            self.waiting.drain(..over);
            self.accounts.ledger_lost(over);
        }
    }
}

/// An operator's fault, in words.
fn unusable(text: impl Into<String>) -> Error {
    Error::new(Kind::Invalid, Origin::Gateway, text.into())
}

fn int(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// The tables; the number of steps is the version. Steps that were released are followed, never changed.
const STEPS: &[&str] = &["CREATE TABLE ledger (
        id TEXT PRIMARY KEY, at BIGINT NOT NULL, request_id TEXT NOT NULL, client TEXT NOT NULL,
        labels TEXT NOT NULL, route TEXT NOT NULL, asked TEXT, model TEXT, site TEXT, outcome TEXT NOT NULL,
        status BIGINT NOT NULL, error TEXT, attempts BIGINT NOT NULL, stream BIGINT NOT NULL,
        tier TEXT NOT NULL, input_tokens BIGINT NOT NULL, cached_tokens BIGINT NOT NULL,
        output_tokens BIGINT NOT NULL, reasoning_tokens BIGINT NOT NULL, tool_use_tokens BIGINT NOT NULL,
        detail TEXT NOT NULL, estimated BIGINT NOT NULL, cost_nanos BIGINT, first_token_ms BIGINT,
        duration_ms BIGINT NOT NULL);
    CREATE INDEX ledger_at ON ledger (at);
    CREATE INDEX ledger_client_at ON ledger (client, at)"];

/// The version is in a table of the ledger's own: other parts may keep theirs in the same database.
const VERSION_TABLE: &str = "CREATE TABLE IF NOT EXISTS ledger_schema (version BIGINT NOT NULL)";

const COLUMNS: [&str; 25] = [
    "id",
    "at",
    "request_id",
    "client",
    "labels",
    "route",
    "asked",
    "model",
    "site",
    "outcome",
    "status",
    "error",
    "attempts",
    "stream",
    "tier",
    "input_tokens",
    "cached_tokens",
    "output_tokens",
    "reasoning_tokens",
    "tool_use_tokens",
    "detail",
    "estimated",
    "cost_nanos",
    "first_token_ms",
    "duration_ms",
];

/// Writes one row; a second word about the same request replaces the first.
fn insert(mark: char) -> String {
    let marks: Vec<_> = (1..=COLUMNS.len()).map(|n| format!("{mark}{n}")).collect();
    let changed: Vec<_> = COLUMNS.iter().skip(1).map(|name| format!("{name} = excluded.{name}")).collect();
    format!(
        "INSERT INTO ledger ({}) VALUES ({}) ON CONFLICT (id) DO UPDATE SET {}",
        COLUMNS.join(", "),
        marks.join(", "),
        changed.join(", ")
    )
}

/// The steps that a ledger of this version lacks.
///
/// # Errors
/// When a newer release has written it.
fn missing(version: i64) -> Result<&'static [&'static str]> {
    let done = usize::try_from(version).unwrap_or_default();
    STEPS.get(done..).ok_or_else(|| {
        unusable(format!(
            "the ledger was written by a newer gateway (version {version}, this one knows {}): run that \
             version, or name another [ledger] url",
            STEPS.len()
        ))
    })
}
