//! `SQLite`: a file that survives kill -9, or memory alone. One thread writes, another reads.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::future::BoxFuture;
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, ToSql, TransactionBehavior};
use tokio::sync::{mpsc, oneshot};

use super::plan::{Database, Outcome, Row, Statement, Value, Work};
use super::{away, schema, unusable};
use crate::error::{Error, Result};

/// How much may wait for a thread before callers wait to hand in more.
const QUEUE: usize = 256;

/// How long another process may hold the file.
const PATIENCE: Duration = Duration::from_secs(10);

struct Job {
    work: Work,
    answer: oneshot::Sender<rusqlite::Result<Outcome>>,
}

#[derive(Clone, Debug)]
struct Lane(mpsc::Sender<Job>);

#[derive(Debug)]
pub(super) struct Sqlite {
    name: &'static str,
    write: Lane,
    read: Lane,
    alone: bool,
    /// Held for life: tells other processes that somebody works on this file.
    _presence: Option<File>,
}

impl Sqlite {
    pub(super) fn memory() -> Result<Self> {
        let failed = |error: rusqlite::Error| unusable(format!("cannot keep state in memory: {error}"));
        let mut connection = Connection::open_in_memory().map_err(failed)?;
        prepare(&mut connection, schema::STEPS)?;
        let lane = lane(connection)?;
        Ok(Self { name: "memory", write: lane.clone(), read: lane, alone: true, _presence: None })
    }

    pub(super) fn open(path: &Path) -> Result<Self> {
        Self::open_at(path, schema::STEPS)
    }

    pub(super) fn open_at(path: &Path, steps: &'static [&'static [&'static str]]) -> Result<Self> {
        if path.as_os_str().is_empty() {
            return Err(unusable("[store] url = \"sqlite:PATH\" needs a path".to_owned()));
        }
        let shown = path.display();
        let failed = |error: rusqlite::Error| unusable(format!("cannot open the store {shown}: {error}"));
        let mut write = Connection::open(path).map_err(failed)?;
        write.busy_timeout(PATIENCE).map_err(failed)?;
        // Commits survive the death of the process without a sync each; a power cut may take the last ones, and
        // never the file.
        write
            .execute_batch(
                "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA foreign_keys = ON;",
            )
            .map_err(failed)?;
        prepare(&mut write, steps)
            .map_err(|error| unusable(format!("cannot use the store {shown}: {}", error.message())))?;
        let read = Connection::open(path).map_err(failed)?;
        read.busy_timeout(PATIENCE).map_err(failed)?;
        let (alone, presence) = presence(path)?;
        Ok(Self { name: "sqlite", write: lane(write)?, read: lane(read)?, alone, _presence: Some(presence) })
    }

    pub(super) fn alone(&self) -> bool {
        self.alone
    }
}

/// Whether no other process has the file open, and the mark that we do. The system drops the mark when we die,
/// however we die.
fn presence(path: &Path) -> Result<(bool, File)> {
    let mut name = path.as_os_str().to_owned();
    name.push("-live");
    let name = PathBuf::from(name);
    let failed =
        |error: std::io::Error| unusable(format!("cannot mark the store {}: {error}", name.display()));
    let file = File::options().create(true).truncate(false).write(true).open(&name).map_err(failed)?;
    let alone = file.try_lock().is_ok();
    if alone {
        file.unlock().map_err(failed)?;
    }
    file.lock_shared().map_err(failed)?;
    Ok((alone, file))
}

fn prepare(connection: &mut Connection, steps: &'static [&'static [&'static str]]) -> Result<()> {
    let failed = |error: rusqlite::Error| unusable(error.to_string());
    connection.set_prepared_statement_cache_capacity(64);
    connection.pragma_update(None, "foreign_keys", true).map_err(failed)?;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
    transaction.execute(schema::VERSION_TABLE, ()).map_err(failed)?;
    let version = match transaction.query_row(schema::VERSION, (), |row| row.get(0)) {
        Ok(version) => version,
        Err(rusqlite::Error::QueryReturnedNoRows) => 0,
        Err(error) => return Err(failed(error)),
    };
    for step in schema::missing(version, steps).map_err(unusable)? {
        transaction.execute(step, ()).map_err(failed)?;
    }
    transaction
        .execute(schema::SET_VERSION, (i64::try_from(steps.len()).unwrap_or(i64::MAX),))
        .map_err(failed)?;
    transaction.commit().map_err(failed)
}

/// A thread of its own for a connection; it ends when nobody can ask it anything any more.
fn lane(mut connection: Connection) -> Result<Lane> {
    let (sender, mut jobs) = mpsc::channel::<Job>(QUEUE);
    std::thread::Builder::new()
        .name("store".to_owned())
        .spawn(move || {
            while let Some(Job { work, answer }) = jobs.blocking_recv() {
                // Whoever asked may have left; what was to be written is written all the same.
                let _ = answer.send(carry_out(&mut connection, &work));
            }
        })
        .map_err(Error::internal)?;
    Ok(Lane(sender))
}

fn carry_out(connection: &mut Connection, work: &Work) -> rusqlite::Result<Outcome> {
    let behavior = if work.writes { TransactionBehavior::Immediate } else { TransactionBehavior::Deferred };
    let transaction = connection.transaction_with_behavior(behavior)?;
    let mut all = Vec::with_capacity(work.statements.len());
    for Statement { sql, values, must } in &work.statements {
        let mut statement = transaction.prepare_cached(sql)?;
        let columns = statement.column_count();
        let mut found = statement.query(rusqlite::params_from_iter(values))?;
        let mut rows = Vec::new();
        while let Some(row) = found.next()? {
            rows.push((0..columns).map(|at| row.get_ref(at).map(read)).collect::<rusqlite::Result<Row>>()?);
        }
        if *must && rows.is_empty() {
            return Ok(None);
        }
        all.push(rows);
    }
    transaction.commit()?;
    Ok(Some(all))
}

fn read(value: ValueRef<'_>) -> Value {
    match value {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(number) => Value::Int(number),
        // No column of ours is a float.
        #[expect(clippy::cast_possible_truncation, reason = "no column of ours is a float")]
        ValueRef::Real(number) => Value::Int(number as i64),
        ValueRef::Text(text) | ValueRef::Blob(text) => {
            Value::Text(String::from_utf8_lossy(text).into_owned())
        }
    }
}

impl ToSql for Value {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Self::Null => ValueRef::Null,
            Self::Int(number) => ValueRef::Integer(*number),
            Self::Text(text) => ValueRef::Text(text.as_bytes()),
        }))
    }
}

impl Database for Sqlite {
    fn name(&self) -> &'static str {
        self.name
    }

    fn run(&self, work: Work) -> BoxFuture<'_, Result<Outcome>> {
        let lane = if work.writes { &self.write } else { &self.read };
        Box::pin(async move {
            let (answer, answered) = oneshot::channel();
            lane.0.send(Job { work, answer }).await.map_err(|error| away(error.to_string()))?;
            answered.await.map_err(away)?.map_err(away)
        })
    }
}
