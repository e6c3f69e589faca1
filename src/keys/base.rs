//! The few statements that the store's keys need, in `SQLite` or Postgres.

use std::time::Duration;

use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, ToSql, TransactionBehavior, params_from_iter};
use secrecy::SecretString;
use tokio::runtime::{Builder, Runtime};
use tokio_postgres::Client;

use super::stored::unusable;
use crate::error::{Error, Result};
use crate::store::Link;

/// How long a server may take to answer, and another process may hold a file.
const PATIENCE: Duration = Duration::from_secs(3);

/// What goes in and comes out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Int(Option<i64>),
    Text(String),
}

impl Value {
    pub(super) fn int(&self) -> Option<i64> {
        match self {
            Self::Int(number) => *number,
            Self::Text(_) => None,
        }
    }

    pub(super) fn text(&self) -> &str {
        match self {
            Self::Text(text) => text,
            Self::Int(_) => "",
        }
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl ToSql for Value {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        match self {
            Self::Int(number) => number.to_sql(),
            Self::Text(text) => text.to_sql(),
        }
    }
}

/// One statement with its values, which stand in it as `?1`, `?2`.
pub(super) type Statement = (&'static str, Vec<Value>);

/// A database. Statements that are given together happen together; the rows of the last one come back.
pub(super) trait Base: Send {
    fn run(&mut self, statements: &[Statement]) -> Result<Vec<Vec<Value>>>;
}

impl Base for Connection {
    fn run(&mut self, statements: &[Statement]) -> Result<Vec<Vec<Value>>> {
        let work = |connection: &mut Self| -> rusqlite::Result<Vec<Vec<Value>>> {
            let change = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let mut found = Vec::new();
            for (sql, values) in statements {
                let mut statement = change.prepare_cached(sql)?;
                let columns = statement.column_count();
                let rows = statement.query_map(params_from_iter(values), |row| {
                    let value = |at| {
                        Ok(match row.get_ref(at)? {
                            ValueRef::Integer(number) => Value::Int(Some(number)),
                            ValueRef::Text(text) => Value::Text(String::from_utf8_lossy(text).into_owned()),
                            ValueRef::Null | ValueRef::Real(_) | ValueRef::Blob(_) => Value::Int(None),
                        })
                    };
                    (0..columns).map(value).collect()
                })?;
                found = rows.collect::<rusqlite::Result<_>>()?;
            }
            change.commit()?;
            Ok(found)
        };
        work(self).map_err(|error| unusable(format!("the store of keys: {error}")).because(error))
    }
}

pub(super) fn sqlite(path: &std::path::Path) -> Result<Connection> {
    let failed = |error: rusqlite::Error| {
        unusable(format!("cannot open the store of keys {}: {error}", path.display())).because(error)
    };
    let connection = Connection::open(path).map_err(failed)?;
    connection.busy_timeout(PATIENCE).map_err(failed)?;
    connection.pragma_update(None, "journal_mode", "wal").map_err(failed)?;
    Ok(connection)
}

pub(super) struct Postgres {
    runtime: Runtime,
    client: Client,
}

impl Postgres {
    pub(super) fn connect(url: &SecretString) -> Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build().map_err(Error::internal)?;
        let mut link = Link::parse(url)?;
        link.config().application_name("gemway keys").connect_timeout(PATIENCE);
        let connected = runtime.block_on(async { tokio::time::timeout(PATIENCE, link.connect()).await });
        let (client, connection) = connected.map_err(late)?.map_err(away)?;
        // It ends when the client goes.
        runtime.spawn(async move { connection.await.ok() });
        Ok(Self { runtime, client })
    }
}

fn late(error: tokio::time::error::Elapsed) -> Error {
    unusable("the Postgres that keeps the keys does not answer").because(error)
}

fn away(error: tokio_postgres::Error) -> Error {
    let said = error.as_db_error().map(|said| said.message().to_owned());
    unusable(format!("the Postgres that keeps the keys: {}", said.unwrap_or_else(|| error.to_string())))
        .because(error)
}

impl Base for Postgres {
    fn run(&mut self, statements: &[Statement]) -> Result<Vec<Vec<Value>>> {
        let client = &mut self.client;
        self.runtime.block_on(async {
            let work = async {
                let change = client.transaction().await.map_err(away)?;
                let mut found = Vec::new();
                for (sql, values) in statements {
                    let values: Vec<Box<dyn tokio_postgres::types::ToSql + Sync>> = values
                        .iter()
                        .map(|value| -> Box<dyn tokio_postgres::types::ToSql + Sync> {
                            match value {
                                Value::Int(number) => Box::new(*number),
                                Value::Text(text) => Box::new(text.clone()),
                            }
                        })
                        .collect();
                    let values: Vec<&(dyn tokio_postgres::types::ToSql + Sync)> =
                        values.iter().map(|value| &**value).collect();
                    let rows = change.query(&sql.replace('?', "$"), &values).await.map_err(away)?;
                    found = rows.iter().map(row).collect();
                }
                change.commit().await.map_err(away)?;
                Ok(found)
            };
            tokio::time::timeout(PATIENCE, work).await.map_err(late)?
        })
    }
}

fn row(row: &tokio_postgres::Row) -> Vec<Value> {
    let value = |at| match row.try_get::<_, String>(at) {
        Ok(text) => Value::Text(text),
        // Not a text, so a number or nothing.
        Err(_) => Value::Int(row.try_get::<_, Option<i64>>(at).unwrap_or(None)),
    };
    (0..row.len()).map(value).collect()
}
