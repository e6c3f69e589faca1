//! What the ledger can be asked, and how the answer looks.

use std::fmt::Write as _;
use std::time::Duration;

use super::unusable;
use crate::error::Result;
use crate::meter::price::{decimal, dollars};

/// By what usage is told apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dimension {
    /// A column.
    Column(&'static str, &'static str),
    /// The hour, day or month, UTC, by how many characters of the time are shown.
    Time(&'static str, u8),
    /// One of the key's labels.
    Label(String),
}

/// What can be asked by: the name, and the column.
const COLUMNS: [(&str, &str); 8] = [
    ("key", "client"),
    ("model", "model"),
    ("site", "site"),
    ("route", "route"),
    ("outcome", "outcome"),
    ("tier", "tier"),
    ("asked", "asked"),
    ("error", "error"),
];

impl Dimension {
    /// Reads one name: `key`, `model`, `site`, `route`, `outcome`, `tier`, `asked`, `error`, `hour`, `day`,
    /// `month`, or `label.NAME`.
    ///
    /// # Errors
    /// `Invalid` with the known names.
    pub fn parse(name: &str) -> Result<Self> {
        if let Some(label) = name.strip_prefix("label.") {
            let plain = |c: char| c.is_ascii_alphanumeric() || "_-".contains(c);
            if !label.is_empty() && label.chars().all(plain) {
                return Ok(Self::Label(label.to_owned()));
            }
        }
        for (time, length) in [("hour", 13), ("day", 10), ("month", 7)] {
            if name == time {
                return Ok(Self::Time(time, length));
            }
        }
        let found = COLUMNS.iter().find(|(known, _)| *known == name);
        found.map(|&(name, column)| Self::Column(name, column)).ok_or_else(|| {
            let known: Vec<_> = COLUMNS.iter().map(|(name, _)| *name).collect();
            let known = known.join(", ");
            unusable(format!("usage is told by {known}, hour, day, month and label.NAME, not by \"{name}\""))
        })
    }

    /// The name, as it was asked by.
    pub fn name(&self) -> String {
        match self {
            Self::Column(name, _) | Self::Time(name, _) => (*name).to_owned(),
            Self::Label(name) => format!("label.{name}"),
        }
    }

    fn sql(&self, postgres: bool) -> String {
        match self {
            Self::Column(_, column) => (*column).to_owned(),
            Self::Time(_, length) if postgres => {
                format!(
                    "substr(to_char(to_timestamp(at / 1000) AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24'), 1, {length})"
                )
            }
            Self::Time(_, length) => {
                format!("substr(strftime('%Y-%m-%d %H', at / 1000, 'unixepoch'), 1, {length})")
            }
            Self::Label(name) if postgres => format!("labels::json ->> '{name}'"),
            Self::Label(name) => format!("json_extract(labels, '$.\"{name}\"')"),
        }
    }
}

/// A question: sums over a time, told apart.
#[derive(Clone, Debug, Default)]
pub struct Query {
    /// By what; nothing gives one sum.
    pub by: Vec<Dimension>,
    /// From this moment on, in milliseconds since 1970.
    pub since: i64,
    /// Before this moment.
    pub until: Option<i64>,
    /// Only this key.
    pub key: Option<String>,
}

/// A value in a question.
pub(super) enum Value {
    Int(i64),
    Text(String),
}

impl Query {
    pub(super) fn sql(&self, postgres: bool) -> (String, Vec<Value>) {
        let mark = if postgres { '$' } else { '?' };
        let mut values = vec![Value::Int(self.since)];
        let mut text = "SELECT ".to_owned();
        for by in &self.by {
            // Columns that are sums or integers never stand here, so everything is text.
            let _ = write!(text, "{}, ", by.sql(postgres));
        }
        let sums = ["input_tokens", "cached_tokens", "output_tokens", "reasoning_tokens", "tool_use_tokens"]
            .map(|column| format!("CAST(sum({column}) AS BIGINT)"));
        let _ = write!(
            text,
            "count(*), {}, CAST(sum(cost_nanos) AS BIGINT), \
             CAST(sum(CASE WHEN cost_nanos IS NULL AND input_tokens + output_tokens > 0 THEN 1 ELSE 0 END) AS BIGINT), \
             CAST(sum(estimated) AS BIGINT) FROM ledger WHERE at >= {mark}1",
            sums.join(", ")
        );
        if let Some(until) = self.until {
            values.push(Value::Int(until));
            let _ = write!(text, " AND at < {mark}{}", values.len());
        }
        if let Some(key) = &self.key {
            values.push(Value::Text(key.clone()));
            let _ = write!(text, " AND client = {mark}{}", values.len());
        }
        let places: Vec<_> = (1..=self.by.len()).map(|place| place.to_string()).collect();
        if !places.is_empty() {
            let places = places.join(", ");
            let _ = write!(text, " GROUP BY {places} ORDER BY {places}");
        }
        (text, values)
    }
}

/// One line of the answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Group {
    /// The values of what was asked by, in that order; empty where a request had none.
    pub names: Vec<String>,
    /// How many requests.
    pub requests: u64,
    /// The prompts, cached parts included.
    pub input: u64,
    /// The cached parts.
    pub cached: u64,
    /// Visible output.
    pub output: u64,
    /// Thoughts.
    pub thoughts: u64,
    /// What server-side tools fed back.
    pub tool_use: u64,
    /// Nano-dollars of all requests whose price is known; nothing where none is.
    pub cost: Option<u64>,
    /// Requests that used tokens at an unknown price.
    pub unpriced: u64,
    /// Requests of which something was estimated.
    pub estimated: u64,
}

/// How usage is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Table,
    /// Comma-separated, with a line of names.
    Csv,
    /// An array of objects.
    Json,
}

/// The answer as text. Token names follow `OpenAI`: input includes what tools fed back, output includes thoughts.
pub fn render(by: &[Dimension], groups: &[Group], format: Format) -> String {
    match format {
        Format::Json => json(by, groups),
        Format::Csv => {
            let mut text = String::new();
            for line in lines(by, groups, "") {
                let cells: Vec<_> = line.iter().map(|cell| csv(cell)).collect();
                let _ = writeln!(text, "{}", cells.join(","));
            }
            text
        }
        Format::Table => table(by.len(), &lines(by, groups, "unknown")),
    }
}

const COUNTS: [&str; 6] =
    ["requests", "input_tokens", "cached_tokens", "output_tokens", "reasoning_tokens", "cost_usd"];

impl Group {
    fn counts(&self) -> [u64; 5] {
        [self.requests, self.input + self.tool_use, self.cached, self.output + self.thoughts, self.thoughts]
    }

    /// What it cost: nothing is said where any of it has no known price.
    fn priced(&self) -> Option<u64> {
        if self.unpriced > 0 { None } else { Some(self.cost.unwrap_or(0)) }
    }

    /// The line as a JSON object.
    pub fn to_json(&self, by: &[Dimension]) -> serde_json::Value {
        let mut object = serde_json::Map::new();
        for (dimension, name) in by.iter().zip(&self.names) {
            let value = if name.is_empty() { serde_json::Value::Null } else { name.as_str().into() };
            object.insert(dimension.name(), value);
        }
        for (name, count) in COUNTS.iter().zip(self.counts()) {
            object.insert((*name).to_owned(), count.into());
        }
        object.insert("cost_usd".to_owned(), self.priced().map(dollars).into());
        object.insert("unpriced_requests".to_owned(), self.unpriced.into());
        object.insert("estimated_requests".to_owned(), self.estimated.into());
        object.into()
    }
}

fn json(by: &[Dimension], groups: &[Group]) -> String {
    let objects: Vec<_> = groups.iter().map(|group| group.to_json(by)).collect();
    let mut text = serde_json::to_string_pretty(&objects).unwrap_or_default();
    text.push('\n');
    text
}

fn lines(by: &[Dimension], groups: &[Group], unknown: &str) -> Vec<Vec<String>> {
    let head = by.iter().map(Dimension::name).chain(COUNTS.iter().map(|&name| name.to_owned()));
    let mut lines = vec![head.collect::<Vec<_>>()];
    for group in groups {
        let mut line = group.names.clone();
        line.extend(group.counts().iter().map(u64::to_string));
        line.push(group.priced().map_or_else(|| unknown.to_owned(), decimal));
        lines.push(line);
    }
    lines
}

/// A cell of comma-separated text.
pub fn csv(cell: &str) -> String {
    if cell.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", cell.replace('"', "\"\""))
    } else {
        cell.to_owned()
    }
}

/// Names to the left, numbers to the right.
fn table(names: usize, lines: &[Vec<String>]) -> String {
    let mut widths = Vec::new();
    for line in lines {
        widths.resize(line.len(), 0);
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for line in lines {
        let cells = line.iter().zip(&widths).enumerate().map(|(at, (cell, width))| {
            if at < names { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
        });
        let _ = writeln!(text, "{}", cells.collect::<Vec<_>>().join("  ").trim_end());
    }
    text
}

/// A moment in milliseconds since 1970: `24h`, `7d` ago, a day (`2026-11-01`, UTC) or a time (RFC 3339).
///
/// # Errors
/// `Invalid` for anything else.
pub fn instant(text: &str, now_millis: i64) -> Result<i64> {
    if let Ok(ago) = humantime::parse_duration(text) {
        return Ok(now_millis.saturating_sub(millis(ago)));
    }
    if let Ok(time) = text.parse::<jiff::Timestamp>() {
        return Ok(time.as_millisecond());
    }
    let day = text.parse::<jiff::civil::Date>().and_then(|day| day.to_zoned(jiff::tz::TimeZone::UTC));
    day.map(|day| day.timestamp().as_millisecond()).map_err(|error| {
        unusable(format!("\"{text}\" is neither a time ago such as \"24h\" or \"7d\", nor a date: {error}"))
    })
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
