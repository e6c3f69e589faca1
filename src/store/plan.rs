//! What a database is asked to do: statements that happen together, or not at all.

use futures_util::future::BoxFuture;

use crate::error::{Error, Result};

/// A value that goes in or comes out. JSON is text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    /// Nothing.
    Null,
    /// A number.
    Int(i64),
    /// A text.
    Text(String),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<Option<&str>> for Value {
    fn from(text: Option<&str>) -> Self {
        text.map_or(Self::Null, Self::from)
    }
}

/// One row that came back.
pub(super) type Row = Vec<Value>;

/// One statement, in SQL that both databases understand; parameters are written `?1`, `?2`, ….
#[derive(Clone, Debug)]
pub(super) struct Statement {
    pub(super) sql: &'static str,
    pub(super) values: Vec<Value>,
    /// Finding no row undoes the whole plan.
    pub(super) must: bool,
}

impl Statement {
    pub(super) fn new(sql: &'static str, values: Vec<Value>) -> Self {
        Self { sql, values, must: false }
    }

    pub(super) fn must(sql: &'static str, values: Vec<Value>) -> Self {
        Self { sql, values, must: true }
    }
}

/// Statements that happen together.
#[derive(Clone, Debug)]
pub(super) struct Work {
    pub(super) statements: Vec<Statement>,
    /// Whether anything is changed.
    pub(super) writes: bool,
}

/// The rows of each statement, or nothing when one that had to find something did not.
pub(super) type Outcome = Option<Vec<Vec<Row>>>;

/// What can carry out a plan.
pub(super) trait Database: Send + Sync + std::fmt::Debug {
    /// What it is, for people.
    fn name(&self) -> &'static str;

    /// Carries out all statements in one transaction.
    fn run(&self, work: Work) -> BoxFuture<'_, Result<Outcome>>;
}

fn odd() -> Error {
    Error::internal("the store gave a column of another type than was asked for")
}

/// The next value of a row, as a text.
pub(super) fn text(row: &mut impl Iterator<Item = Value>) -> Result<String> {
    match row.next() {
        Some(Value::Text(text)) => Ok(text),
        Some(Value::Null | Value::Int(_)) | None => Err(odd()),
    }
}

/// The next value of a row, as a text that may be absent.
pub(super) fn maybe(row: &mut impl Iterator<Item = Value>) -> Result<Option<String>> {
    match row.next() {
        Some(Value::Text(text)) => Ok(Some(text)),
        Some(Value::Null) => Ok(None),
        Some(Value::Int(_)) | None => Err(odd()),
    }
}

/// The next value of a row, as a number.
pub(super) fn number(row: &mut impl Iterator<Item = Value>) -> Result<i64> {
    match row.next() {
        Some(Value::Int(number)) => Ok(number),
        Some(Value::Null | Value::Text(_)) | None => Err(odd()),
    }
}
