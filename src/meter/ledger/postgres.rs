//! The ledger in a Postgres that several replicas share.

use std::time::Duration;

use futures_util::future::try_join_all;
use secrecy::{ExposeSecret, SecretString};
use tokio::runtime::{Builder, Runtime};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Config, NoTls, Statement};

use super::{Book, Group, Query, Row, VERSION_TABLE, insert, int, missing, unusable};
use crate::error::{Error, Result};

/// How long a connection may take to come about, and a group to be written.
const CONNECT: Duration = Duration::from_secs(3);
const WRITE: Duration = Duration::from_secs(4);

/// Replicas upgrade the tables one after the other.
const LOCK: &str = "SELECT pg_advisory_xact_lock(7242312)";

pub(super) struct Postgres {
    config: Config,
    /// The thread's own; connections live in it.
    runtime: Runtime,
    line: Option<(Client, Statement)>,
}

impl Postgres {
    pub(super) fn new(url: &SecretString) -> Result<Self> {
        Ok(Self { config: config(url)?, runtime: runtime()?, line: None })
    }
}

fn runtime() -> Result<Runtime> {
    Builder::new_current_thread().enable_all().build().map_err(Error::internal)
}

fn config(url: &SecretString) -> Result<Config> {
    let mut config: Config = url
        .expose_secret()
        .parse()
        .map_err(|error| unusable(format!("[ledger] url cannot be read: {error}")))?;
    config.connect_timeout(CONNECT).application_name("gemway ledger");
    Ok(config)
}

fn away(error: tokio_postgres::Error) -> Error {
    // The driver's own text is only "db error"; what the server said is behind it.
    let said = error.as_db_error().map(|said| said.message().to_owned());
    unusable(format!("the ledger's Postgres: {}", said.unwrap_or_else(|| error.to_string()))).because(error)
}

async fn connect(config: &Config) -> Result<Client> {
    let connected = tokio::time::timeout(CONNECT, config.connect(NoTls)).await;
    let late =
        |error: tokio::time::error::Elapsed| unusable("the ledger's Postgres does not answer").because(error);
    let (client, connection) = connected.map_err(late)?.map_err(away)?;
    // It ends when the client goes; what breaks it also breaks the next query, which says so.
    tokio::spawn(async move { connection.await.ok() });
    Ok(client)
}

async fn ready(config: &Config) -> Result<(Client, Statement)> {
    let mut client = connect(config).await?;
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
        let (config, line) = (&self.config, &mut self.line);
        let written = self.runtime.block_on(async {
            let work = async {
                let (client, statement) = match line {
                    Some(line) => line,
                    None => line.insert(ready(config).await?),
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

fn values(row: &Row) -> [Box<dyn ToSql + Sync + Send>; 25] {
    let number = |number: u64| Box::new(int(number));
    [
        Box::new(row.id.clone()),
        Box::new(row.at),
        Box::new(row.request_id.clone()),
        Box::new(row.key.clone()),
        Box::new(row.labels.to_string()),
        Box::new(row.route),
        Box::new(row.asked.clone()),
        Box::new(row.model.clone()),
        Box::new(row.site.clone()),
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
    let config = config(url)?;
    runtime()?.block_on(async {
        let client = connect(&config).await?;
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
