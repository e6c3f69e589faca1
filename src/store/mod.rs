//! What the gateway keeps: stored responses, conversations, and the events of background work.
//!
//! The verbs of [`Store`] are written once, as plans of SQL statements; a `Database` is whatever can carry out a
//! plan in one transaction: `SQLite` (a file, or memory alone) or Postgres, when several replicas share a store.
//! Nothing here blocks the runtime, and nothing here knows HTTP. Time comes from the caller, in seconds since 1970.
//!
//! Invariants: everything is looked up together with its tenant, so another tenant's id is no id at all; whatever
//! has an `owner` is unfinished and has a lease, which its owner renews while it lives; once the owner is gone from
//! a record, its state never changes again.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::error::{Error, Kind, Origin, Result, Retry};

mod conversations;
mod link;
mod place;
mod plan;
mod postgres;
mod responses;
mod schema;
mod sqlite;
#[cfg(test)]
mod tests;

pub use conversations::Conversation;
pub use link::Link;
pub use place::Place;
pub use responses::{Chain, History, Kept, Orphan, Response};

use plan::{Database, Row, Statement, Value, Work};

/// How long an owner's word is believed before its unfinished work counts as lost.
pub const LEASE: Duration = Duration::from_secs(15);

/// Where state is kept, and how much of it.
#[derive(Clone, Debug)]
pub struct Config {
    /// `sqlite:PATH`, `memory:` or `postgres://…`.
    pub url: secrecy::SecretString,
    /// Older than this goes: responses by their creation, conversations by their last use.
    pub max_age: Duration,
    /// When more than this is kept, the oldest goes first.
    pub max_bytes: u64,
}

/// One item of a list: a message, a call, a call's output, …
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// Its id.
    pub id: String,
    /// Its JSON.
    pub json: String,
}

/// Which part of a list is wanted.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// Behind this item, in the chosen order.
    pub after: Option<String>,
    /// Newest first.
    pub descending: bool,
    /// At most so many.
    pub limit: u32,
}

/// A part of a list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listed {
    /// The items.
    pub items: Vec<Item>,
    /// Whether there are more.
    pub more: bool,
}

/// The store; clones share it.
#[derive(Clone)]
pub struct Store {
    database: Arc<dyn Database>,
    bounds: Bounds,
    /// Bytes written since the size was last looked at.
    written: Arc<AtomicU64>,
    /// Nobody else held the database when it was opened: whatever it calls unfinished is lost.
    alone: bool,
}

#[derive(Clone, Copy, Debug)]
struct Bounds {
    max_age: Duration,
    max_bytes: u64,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store")
            .field("database", &self.database.name())
            .field("bounds", &self.bounds)
            .finish_non_exhaustive()
    }
}

impl Store {
    /// Opens the store, creating or upgrading its tables. (Postgres is reached at first use and again whenever it
    /// was lost, so that the gateway starts without it.)
    ///
    /// # Errors
    /// When the address is none of ours, the file cannot be opened, or a newer gateway wrote it.
    pub fn open(config: &Config) -> Result<Self> {
        use secrecy::ExposeSecret;
        let url = config.url.expose_secret();
        let (database, alone): (Arc<dyn Database>, bool) = if url == "memory:" || url == "memory" {
            (Arc::new(sqlite::Sqlite::memory()?), true)
        } else if let Some(path) = url.strip_prefix("sqlite:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            let sqlite = sqlite::Sqlite::open(std::path::Path::new(path))?;
            let alone = sqlite.alone();
            (Arc::new(sqlite), alone)
        } else if url.starts_with("postgres://") || url.starts_with("postgresql://") {
            (Arc::new(postgres::Postgres::new(url)?), false)
        } else {
            return Err(Error::new(
                Kind::Invalid,
                Origin::Gateway,
                "[store] url must be \"sqlite:PATH\", \"memory:\" or \"postgres://…\"",
            ));
        };
        let bounds = Bounds { max_age: config.max_age, max_bytes: config.max_bytes };
        Ok(Self { database, bounds, written: Arc::default(), alone })
    }

    /// What it is, for people: `sqlite`, `memory`, `postgres`.
    pub fn name(&self) -> &'static str {
        self.database.name()
    }

    /// Whether it was opened by this process alone, so that unfinished work in it belongs to nobody.
    pub fn alone(&self) -> bool {
        self.alone
    }

    /// Carries out a plan; `None` when a statement that had to find something found nothing.
    async fn run(&self, statements: Vec<Statement>, writes: bool) -> Result<Option<Vec<Vec<Row>>>> {
        self.database.run(Work { statements, writes }).await
    }

    async fn read(&self, statements: Vec<Statement>) -> Result<Option<Vec<Vec<Row>>>> {
        self.run(statements, false).await
    }

    /// Writes, and from time to time makes room.
    async fn write(&self, statements: Vec<Statement>, bytes: u64) -> Result<Option<Vec<Vec<Row>>>> {
        let done = self.run(statements, true).await?;
        let written = self.written.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if written > self.bounds.max_bytes / 16 {
            self.written.store(0, Ordering::Relaxed);
            self.run(vec![self.over_size()], true).await?;
        }
        Ok(done)
    }

    fn over_size(&self) -> Statement {
        Statement::new(
            "DELETE FROM state_heads WHERE owner IS NULL AND id IN (SELECT id FROM (SELECT id, CAST(SUM(bytes) \
             OVER (ORDER BY touched DESC, id) AS BIGINT) AS total FROM state_heads) sized WHERE total > ?1)",
            vec![Value::Int(int(self.bounds.max_bytes))],
        )
    }

    /// Lets go of what is too old or too much.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn sweep(&self, now: u64) -> Result<()> {
        let before = now.saturating_sub(self.bounds.max_age.as_secs());
        let old = Statement::new(
            "DELETE FROM state_heads WHERE owner IS NULL AND touched < ?1",
            vec![Value::Int(int(before))],
        );
        self.run(vec![old, self.over_size()], true).await.map(|_| ())
    }

    /// Deletes a response or a conversation with everything it holds; whether there was one.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn delete(&self, tenant: &str, id: &str) -> Result<bool> {
        let statement = Statement::must(
            "DELETE FROM state_heads WHERE id = ?1 AND tenant = ?2 RETURNING id",
            vec![id.into(), tenant.into()],
        );
        Ok(self.run(vec![statement], true).await?.is_some())
    }

    /// Items by their ids, wherever they are, with the marks of where they are; those that nobody knows are
    /// missing from the answer.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn find(&self, tenant: &str, ids: &[String]) -> Result<History> {
        let one = |id: &String| {
            Statement::new(
                "SELECT COALESCE(i.marks, h.marks), i.id, i.item FROM state_items i \
                 JOIN state_heads h ON h.id = i.holder WHERE i.tenant = ?1 AND i.id = ?2 LIMIT 1",
                vec![tenant.into(), id.as_str().into()],
            )
        };
        let found = self.read(ids.iter().map(one).collect()).await?.unwrap_or_default();
        let mut history = History::default();
        for row in found.into_iter().flatten() {
            let mut row = row.into_iter();
            if let Some(marks) = plan::maybe(&mut row)?
                && !history.marks.contains(&marks)
            {
                history.marks.push(marks);
            }
            history.items.push(item(row.collect())?);
        }
        Ok(history)
    }

    /// A page of what a response took in, or of what a conversation holds; `None` when there is no such thing.
    ///
    /// # Errors
    /// When the item to go on behind is unknown, or the database cannot be reached.
    pub async fn items(&self, tenant: &str, holder: &str, page: &Page) -> Result<Option<Listed>> {
        let head = Statement::must(
            "SELECT id FROM state_heads WHERE id = ?1 AND tenant = ?2",
            vec![holder.into(), tenant.into()],
        );
        let after = page.after.clone().unwrap_or_default();
        let place = Statement::new(
            "SELECT place FROM state_items WHERE holder = ?1 AND id = ?2 AND place < ?3 LIMIT 1",
            vec![holder.into(), after.as_str().into(), Value::Int(responses::OUTPUT)],
        );
        // Output items are no part of the list: they lie behind a place that no input reaches.
        let sql = if page.descending {
            "SELECT id, item FROM state_items WHERE holder = ?1 AND place < COALESCE((SELECT MIN(place) FROM \
             state_items WHERE holder = ?1 AND id = ?2 AND place < ?3), CAST(?3 AS BIGINT)) ORDER BY place DESC \
             LIMIT ?4"
        } else {
            "SELECT id, item FROM state_items WHERE holder = ?1 AND place > COALESCE((SELECT MIN(place) FROM \
             state_items WHERE holder = ?1 AND id = ?2 AND place < ?3), -1) AND place < ?3 ORDER BY place LIMIT ?4"
        };
        let values = vec![
            holder.into(),
            after.as_str().into(),
            Value::Int(responses::OUTPUT),
            Value::Int(i64::from(page.limit) + 1),
        ];
        let Some(mut found) = self.read(vec![head, place, Statement::new(sql, values)]).await? else {
            return Ok(None);
        };
        let rows = found.pop().unwrap_or_default();
        let known = found.pop().is_some_and(|rows| !rows.is_empty());
        if page.after.is_some() && !known {
            return Err(Error::invalid("after", format!("Item with id '{after}' not found.")));
        }
        let mut items: Vec<Item> = rows.into_iter().map(item).collect::<Result<_>>()?;
        let limit = usize::try_from(page.limit).unwrap_or(usize::MAX);
        let more = items.len() > limit;
        items.truncate(limit);
        Ok(Some(Listed { items, more }))
    }
}

fn item(row: Row) -> Result<Item> {
    let mut values = row.into_iter();
    Ok(Item { id: plan::text(&mut values)?, json: plan::text(&mut values)? })
}

/// Numbers of ours are far below 2⁶³.
fn int(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// What a client is told while the database is away; the cause goes to the log.
fn away(cause: impl Into<crate::error::Source>) -> Error {
    Error::new(
        Kind::Overloaded,
        Origin::Gateway,
        "The gateway's store of responses is not available; please try again.",
    )
    .code("store_unavailable")
    .retry(Retry::Soon)
    .because(cause)
}

/// What an operator is told when a database cannot be used at all.
fn unusable(message: String) -> Error {
    Error::new(Kind::Conflict, Origin::Gateway, message)
}
