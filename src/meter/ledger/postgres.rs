//! The ledger in a Postgres that several replicas share.

use std::time::Duration;

use futures_util::future::try_join_all;
use secrecy::SecretString;
use tokio::runtime::{Builder, Runtime};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Statement};

use super::{Book, Group, Query, Row, VERSION_TABLE, insert, int, missing, unusable};
use crate::error::{Error, Result};
use crate::store::Link;

/// How long a connection may take to come about, and a group to be written.
const CONNECT: Duration = Duration::from_secs(3);
const WRITE: Duration = Duration::from_secs(4);

/// Replicas upgrade the tables one after the other.
const LOCK: &str = "SELECT pg_advisory_xact_lock(7242312)";

pub(super) struct Postgres {
    link: Link,
    /// The thread's own; connections live in it.
    runtime: Runtime,
    line: Option<(Client, Statement)>,
}

impl Postgres {
    pub(super) fn new(url: &SecretString) -> Result<Self> {
        Ok(Self { link: link(url)?, runtime: runtime()?, line: None })
    }
}

fn runtime() -> Result<Runtime> {
    Builder::new_current_thread().enable_all().build().map_err(Error::internal)
}

fn link(url: &SecretString) -> Result<Link> {
    let mut link = Link::parse(url).map_err(|error| unusable(format!("[ledger] {}", error.message())))?;
    link.config().connect_timeout(CONNECT).application_name("gemway ledger");
    Ok(link)
}

fn away(error: tokio_postgres::Error) -> Error {
    // The driver's own text is only "db error"; what the server said is behind it.
    let said = error.as_db_error().map(|said| said.message().to_owned());
    unusable(format!("the ledger's Postgres: {}", said.unwrap_or_else(|| error.to_string()))).because(error)
}

async fn connect(link: &Link) -> Result<Client> {
    let connected = tokio::time::timeout(CONNECT, link.connect()).await;
    let late =
        |error: tokio::time::error::Elapsed| unusable("the ledger's Postgres does not answer").because(error);
    let (client, connection) = connected.map_err(late)?.map_err(away)?;
    // It ends when the client goes; what breaks it also breaks the next query, which says so.
    tokio::spawn(async move { connection.await.ok() });
    Ok(client)
}

async fn ready(link: &Link) -> Result<(Client, Statement)> {
    let mut client = connect(link).await?;
    let change = client.transaction().await.map_err(away)?;
    change.execute(LOCK, &[]).await.map_err(away)?;
    change.batch_execute(VERSION_TABLE).await.map_err(away)?;
    let found =
        change.query_one("SELECT coalesce(max(version), 0) FROM ledger_schema", &[]).await.map_err(away)?;
    let version: i64 = found.try_get(0).map_err(away)?;
    for (step, sql) in (version + 1..).zip(missing(version)?) {
        change.batch_execute(sql).await.map_err(away)?;
        change.execute("INSERT INTO ledger_schema (version) VALUES ($1)", &[&step]).await.map_err(away)?;
    }
    change.commit().await.map_err(away)?;
    let statement = client.prepare(&insert('$')).await.map_err(away)?;
    Ok((client, statement))
}

async fn write(client: &mut Client, statement: &Statement, rows: &[Row]) -> Result<()> {
    let change = client.transaction().await.map_err(away)?;
    let values: Vec<_> = rows.iter().map(values).collect();
    let parameters: Vec<Vec<&(dyn ToSql + Sync)>> = values
        .iter()
        .map(|row| row.iter().map(|value| -> &(dyn ToSql + Sync) { &**value }).collect())
        .collect();
    // Sent one behind the other without waiting in between.
    try_join_all(parameters.iter().map(|row| change.execute(statement, row))).await.map_err(away)?;
    change.commit().await.map_err(away)
}

impl Book for Postgres {
    fn append(&mut self, rows: &[Row], _: bool) -> Result<()> {
        let (link, line) = (&self.link, &mut self.line);
        let written = self.runtime.block_on(async {
            let work = async {
                let (client, statement) = match line {
                    Some(line) => line,
                    None => line.insert(ready(link).await?),
                };
                write(client, statement, rows).await
            };
            tokio::time::timeout(WRITE, work)
                .await
                .unwrap_or_else(|_| Err(unusable("the ledger's Postgres does not answer")))
        });
        if written.is_err() {
            self.line = None;
        }
        written
    }
}

/// A text that Postgres takes: one row with a zero in the name of a model would keep out all behind it.
fn plain(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

fn values(row: &Row) -> [Box<dyn ToSql + Sync + Send>; 25] {
    let number = |number: u64| Box::new(int(number));
    [
        Box::new(row.id.clone()),
        Box::new(row.at),
        Box::new(plain(&row.request_id)),
        Box::new(plain(&row.key)),
        Box::new(plain(&row.labels)),
        Box::new(row.route),
        Box::new(row.asked.as_deref().map(plain)),
        Box::new(row.model.as_deref().map(plain)),
        Box::new(row.site.as_deref().map(plain)),
        Box::new(row.outcome),
        Box::new(i64::from(row.status)),
        Box::new(row.error),
        Box::new(i64::from(row.attempts)),
        Box::new(i64::from(row.stream)),
        Box::new(row.usage.tier.as_str()),
        number(row.usage.input),
        number(row.usage.cached),
        number(row.usage.output),
        number(row.usage.thoughts),
        number(row.usage.tool_use),
        Box::new(row.detail()),
        Box::new(i64::from(row.usage.estimated)),
        Box::new(row.cost.map(int)),
        Box::new(row.first_token.map(int)),
        number(row.duration),
    ]
}

pub(super) fn ask(url: &SecretString, query: &Query) -> Result<Vec<Group>> {
    let link = link(url)?;
    runtime()?.block_on(async {
        let client = connect(&link).await?;
        let (sql, values) = query.sql(true);
        let values: Vec<Box<dyn ToSql + Sync>> = values
            .into_iter()
            .map(|value| -> Box<dyn ToSql + Sync> {
                match value {
                    super::query::Value::Int(number) => Box::new(number),
                    super::query::Value::Text(text) => Box::new(text),
                }
            })
            .collect();
        let parameters: Vec<&(dyn ToSql + Sync)> = values.iter().map(|value| &**value).collect();
        let rows = client.query(&sql, &parameters).await.map_err(away)?;
        rows.iter().map(|row| group(row, query.by.len()).map_err(away)).collect()
    })
}

fn group(row: &tokio_postgres::Row, names: usize) -> Result<Group, tokio_postgres::Error> {
    let name = |at: usize| row.try_get::<_, Option<String>>(at).map(Option::unwrap_or_default);
    let count = |at: usize| row.try_get::<_, Option<i64>>(names + at);
    let number = |at: usize| count(at).map(|n| u64::try_from(n.unwrap_or(0)).unwrap_or(0));
    Ok(Group {
        names: (0..names).map(name).collect::<Result<_, _>>()?,
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
}
