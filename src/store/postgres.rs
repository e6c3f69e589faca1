//! Postgres, for replicas that share a store: a few connections, made when they are needed and made again when
//! they were lost.

use std::collections::HashMap;
use std::time::Duration;

use bytes::BytesMut;
use futures_util::future::{BoxFuture, try_join_all};
use parking_lot::Mutex;
use tokio::sync::{OnceCell, Semaphore};
use tokio_postgres::Client;
use tokio_postgres::types::{IsNull, ToSql, Type, to_sql_checked};

use super::plan::{Database, Outcome, Row, Statement, Value, Work};
use super::{Link, away, schema, unusable};
use crate::error::{Error, Kind, Origin, Result};

/// Connections at once.
const LANES: usize = 8;

/// How long a connection may take to come about, and a plan to be carried out.
const CONNECT: Duration = Duration::from_secs(5);
const PLAN: Duration = Duration::from_secs(30);

/// All replicas upgrade the tables under this lock, one after the other.
const UPGRADE_LOCK: &str = "SELECT pg_advisory_xact_lock(7242311)";

pub(super) struct Postgres {
    link: Link,
    places: Semaphore,
    idle: Mutex<Vec<Line>>,
    upgraded: OnceCell<()>,
    steps: &'static [&'static [&'static str]],
}

impl std::fmt::Debug for Postgres {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Postgres").field("link", &self.link).finish_non_exhaustive()
    }
}

/// One connection and the statements it has prepared.
struct Line {
    client: Client,
    prepared: HashMap<&'static str, tokio_postgres::Statement>,
}

impl Postgres {
    pub(super) fn new(url: &str) -> Result<Self> {
        Self::with_steps(url, schema::STEPS)
    }

    pub(super) fn with_steps(url: &str, steps: &'static [&'static [&'static str]]) -> Result<Self> {
        let mut link = Link::parse(&url.to_owned().into())
            .map_err(|error| unusable(format!("[store] {}", error.message())))?;
        let config = link.config();
        config.connect_timeout(CONNECT);
        if config.get_application_name().is_none() {
            config.application_name("gemway");
        }
        let places = Semaphore::new(LANES);
        Ok(Self { link, places, idle: Mutex::default(), upgraded: OnceCell::new(), steps })
    }

    async fn line(&self) -> Result<Line> {
        loop {
            let Some(line) = self.idle.lock().pop() else { break };
            if !line.client.is_closed() {
                return Ok(line);
            }
        }
        let (client, connection) =
            tokio::time::timeout(CONNECT, self.link.connect()).await.map_err(away)?.map_err(away)?;
        // It lives as long as its client, and carries what the client says.
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::warn!(%error, "a connection to the store was lost");
            }
        });
        let mut line = Line { client, prepared: HashMap::new() };
        self.upgraded.get_or_try_init(|| upgrade(&mut line, self.steps)).await?;
        Ok(line)
    }

    async fn carry_out(&self, work: &Work) -> Result<Outcome> {
        let _place = self.places.acquire().await.map_err(away)?;
        let mut line = self.line().await?;
        // A plan that does not come to its end takes its connection with it, so that no transaction stays open.
        let outcome = tokio::time::timeout(PLAN, line.carry_out(work)).await.map_err(away)?.map_err(away)?;
        self.idle.lock().push(line);
        Ok(outcome)
    }
}

async fn upgrade(line: &mut Line, steps: &'static [&'static [&'static str]]) -> Result<()> {
    let transaction = line.client.transaction().await.map_err(away)?;
    transaction.batch_execute(UPGRADE_LOCK).await.map_err(away)?;
    transaction.batch_execute(schema::VERSION_TABLE).await.map_err(away)?;
    let version = transaction.query_opt(schema::VERSION, &[]).await.map_err(away)?;
    let version = version.map_or(0, |row| row.get(0));
    let missing = schema::missing(version, steps).map_err(|message| {
        tracing::error!("{message}");
        Error::new(Kind::Conflict, Origin::Gateway, message)
    })?;
    for step in missing {
        transaction.batch_execute(step).await.map_err(away)?;
    }
    let known = i64::try_from(steps.len()).unwrap_or(i64::MAX);
    let sql = schema::SET_VERSION.replace('?', "$");
    transaction.execute(&sql, &[&known]).await.map_err(away)?;
    transaction.commit().await.map_err(away)
}

impl Line {
    async fn carry_out(&mut self, work: &Work) -> Result<Outcome, tokio_postgres::Error> {
        for Statement { sql, .. } in &work.statements {
            if !self.prepared.contains_key(sql) {
                let prepared = self.client.prepare(&sql.replace('?', "$")).await?;
                self.prepared.insert(sql, prepared);
            }
        }
        let transaction = self.client.transaction().await?;
        let run = |statement: &Statement| {
            let prepared = self.prepared.get(statement.sql).cloned();
            let values: Vec<Value> = statement.values.clone();
            let transaction = &transaction;
            async move {
                let Some(prepared) = prepared else { return Ok(Vec::new()) };
                let values: Vec<&(dyn ToSql + Sync)> = values.iter().map(|value| value as _).collect();
                transaction.query(&prepared, &values).await
            }
        };
        let mut all = Vec::with_capacity(work.statements.len());
        // What need not wait for an answer is sent at once, in order: one round trip for all of it.
        for group in work.statements.chunk_by(|before, _| !before.must) {
            for (statement, rows) in group.iter().zip(try_join_all(group.iter().map(run)).await?) {
                if statement.must && rows.is_empty() {
                    transaction.rollback().await?;
                    return Ok(None);
                }
                all.push(rows.iter().map(read).collect::<Result<Vec<Row>, _>>()?);
            }
        }
        transaction.commit().await?;
        Ok(Some(all))
    }
}

fn read(row: &tokio_postgres::Row) -> Result<Row, tokio_postgres::Error> {
    let column = |(at, column): (usize, &tokio_postgres::Column)| {
        if *column.type_() == Type::INT8 {
            row.try_get::<_, Option<i64>>(at).map(|number| number.map_or(Value::Null, Value::Int))
        } else {
            row.try_get::<_, Option<String>>(at).map(|text| text.map_or(Value::Null, Value::Text))
        }
    };
    row.columns().iter().enumerate().map(column).collect()
}

impl ToSql for Value {
    fn to_sql(
        &self,
        kind: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        match self {
            Self::Null => Ok(IsNull::Yes),
            Self::Int(number) => number.to_sql(kind, out),
            Self::Text(text) => text.to_sql(kind, out),
        }
    }

    fn accepts(kind: &Type) -> bool {
        [Type::INT8, Type::TEXT].contains(kind)
    }

    to_sql_checked!();
}

impl Database for Postgres {
    fn name(&self) -> &'static str {
        "postgres"
    }

    fn run(&self, work: Work) -> BoxFuture<'_, Result<Outcome>> {
        Box::pin(async move { self.carry_out(&work).await })
    }
}
