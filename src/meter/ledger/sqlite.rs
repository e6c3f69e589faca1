//! The ledger as an `SQLite` file.

use std::path::Path;
use std::time::Duration;

use rusqlite::types::Value;
use rusqlite::{Connection, OpenFlags, TransactionBehavior, params_from_iter};

use super::{Book, Group, Query, Row, VERSION_TABLE, insert, int, missing, unusable};
use crate::error::Result;

/// How long another process may hold the file.
const BUSY: Duration = Duration::from_secs(5);

pub(super) struct Sqlite {
    connection: Connection,
    insert: String,
    durable: Option<bool>,
}

impl Sqlite {
    pub(super) fn open(path: &Path) -> Result<Self> {
        let shown = path.display();
        let failed = |error: rusqlite::Error| unusable(format!("cannot open the ledger {shown}: {error}"));
        let mut connection = Connection::open(path).map_err(failed)?;
        connection.busy_timeout(BUSY).map_err(failed)?;
        // Readers and the writer do not wait for each other, and a commit is one append.
        connection.pragma_update(None, "journal_mode", "wal").map_err(failed)?;
        let change = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
        change.execute_batch(VERSION_TABLE).map_err(failed)?;
        let version: i64 = change
            .query_row("SELECT coalesce(max(version), 0) FROM ledger_schema", [], |row| row.get(0))
            .map_err(failed)?;
        for (step, sql) in (version + 1..).zip(missing(version)?) {
            change.execute_batch(sql).map_err(failed)?;
            change.execute("INSERT INTO ledger_schema (version) VALUES (?1)", [step]).map_err(failed)?;
        }
        change.commit().map_err(failed)?;
        Ok(Self { connection, insert: insert('?'), durable: None })
    }

    fn write(&mut self, rows: &[Row], durable: bool) -> rusqlite::Result<()> {
        if self.durable != Some(durable) {
            let level = if durable { "full" } else { "normal" };
            self.connection.pragma_update(None, "synchronous", level)?;
            self.durable = Some(durable);
        }
        let change = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        {
            let mut statement = change.prepare_cached(&self.insert)?;
            for row in rows {
                statement.execute(params_from_iter(values(row)))?;
            }
        }
        change.commit()
    }
}

impl Book for Sqlite {
    fn append(&mut self, rows: &[Row], durable: bool) -> Result<()> {
        self.write(rows, durable)
            .map_err(|error| unusable(format!("a write to the ledger failed: {error}")).because(error))
    }
}

fn values(row: &Row) -> [Value; 25] {
    let text = |text: &str| Value::Text(text.to_owned());
    let maybe = |found: Option<&str>| found.map_or(Value::Null, text);
    let number = |number: u64| Value::Integer(int(number));
    [
        text(&row.id),
        Value::Integer(row.at),
        text(&row.request_id),
        text(&row.key),
        text(&row.labels),
        text(row.route),
        maybe(row.asked.as_deref()),
        maybe(row.model.as_deref()),
        maybe(row.site.as_deref()),
        text(row.outcome),
        Value::Integer(row.status.into()),
        maybe(row.error),
        Value::Integer(row.attempts.into()),
        Value::Integer(row.stream.into()),
        text(row.usage.tier.as_str()),
        number(row.usage.input),
        number(row.usage.cached),
        number(row.usage.output),
        number(row.usage.thoughts),
        number(row.usage.tool_use),
        Value::Text(row.detail()),
        Value::Integer(row.usage.estimated.into()),
        row.cost.map_or(Value::Null, number),
        row.first_token.map_or(Value::Null, number),
        number(row.duration),
    ]
}

pub(super) fn ask(path: &Path, query: &Query) -> Result<Vec<Group>> {
    let shown = path.display();
    let failed = |error: rusqlite::Error| unusable(format!("cannot read the ledger {shown}: {error}"));
    if !path.exists() {
        return Err(unusable(format!("there is no ledger {shown} yet")));
    }
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(failed)?;
    connection.busy_timeout(BUSY).map_err(failed)?;
    let (sql, values) = query.sql(false);
    let values = values.into_iter().map(|value| match value {
        super::query::Value::Int(number) => Value::Integer(number),
        super::query::Value::Text(text) => Value::Text(text),
    });
    let mut statement = connection.prepare(&sql).map_err(failed)?;
    let names = query.by.len();
    let rows = statement.query_map(params_from_iter(values), |row| {
        let name = |at: usize| row.get::<_, Option<String>>(at).map(Option::unwrap_or_default);
        let count = |at: usize| row.get::<_, Option<i64>>(names + at);
        let number = |at: usize| count(at).map(|n| u64::try_from(n.unwrap_or(0)).unwrap_or(0));
        Ok(Group {
            names: (0..names).map(name).collect::<rusqlite::Result<_>>()?,
            requests: number(0)?,
            input: number(1)?,
            cached: number(2)?,
            output: number(3)?,
            thoughts: number(4)?,
            tool_use: number(5)?,
            cost: count(6)?.and_then(|n| u64::try_from(n).ok()),
            unpriced: number(7)?,
            estimated: number(8)?,
        })
    });
    rows.and_then(Iterator::collect).map_err(failed)
}
