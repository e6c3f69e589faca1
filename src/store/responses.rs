//! Responses: saved whole when they end, or step by step while background work goes on.

use super::conversations::{STATUS, grow};
use super::plan::{Row, Statement, Value, maybe, number, text};
use super::{Item, Store, int};
use crate::error::Result;

/// Output items lie behind this place, input items before it.
pub(super) const OUTPUT: i64 = 1 << 40;

/// How many links of `previous_response_id` are followed.
const LINKS: i64 = 10_000;

/// How long a response is kept that is only kept to be fetched, in seconds.
const BRIEF: u64 = 600;

/// How many events one look brings.
const EVENTS: usize = 256;

/// A response as it is to be kept.
#[derive(Clone, Debug, Default)]
pub struct Kept {
    /// Its id.
    pub id: String,
    /// Whose it is.
    pub tenant: String,
    /// When it was asked for, in seconds since 1970.
    pub created: u64,
    /// Its status, as in `json`.
    pub status: String,
    /// It runs on without its client.
    pub background: bool,
    /// Its events are kept.
    pub streams: bool,
    /// It is kept for ten minutes only.
    pub brief: bool,
    /// The response it continues.
    pub previous: Option<String>,
    /// The conversation it belongs to.
    pub conversation: Option<String>,
    /// The response object.
    pub json: String,
    /// Thought signatures that its items cannot carry; opaque here.
    pub marks: Option<String>,
    /// What it was asked; only with the first save.
    pub input: Vec<Item>,
    /// What was answered; only with the last save.
    pub output: Vec<Item>,
    /// What its conversation gains; only with the last save.
    pub gained: Vec<Item>,
    /// Its latest events, and the number of the first of them.
    pub events: (u64, Vec<String>),
    /// Who works on it, and until when that is believed; absent when it is done.
    pub owner: Option<(String, u64)>,
}

/// A response as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// Its id.
    pub id: String,
    /// When it was asked for, in seconds since 1970.
    pub created: u64,
    /// Its status.
    pub status: String,
    /// It runs on without its client.
    pub background: bool,
    /// Its events are kept.
    pub streams: bool,
    /// The response object.
    pub json: String,
    /// Until when its owner's word is believed; absent when it is done.
    pub lease: Option<u64>,
}

/// What was said before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// Inputs and outputs, oldest first.
    pub items: Vec<Item>,
    /// [`Kept::marks`] of the responses among them.
    pub marks: Vec<String>,
}

/// What `previous_response_id` leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Chain {
    /// All of it.
    Found(History),
    /// No response has this id (any more).
    Missing(String),
    /// A response in it belongs to this conversation, which knows more than it does.
    Conversation(String),
    /// A response in it is not done yet.
    Unfinished(String),
}

/// Unfinished work that nobody works on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Orphan {
    /// Whose it is.
    pub tenant: String,
    /// What is known of it.
    pub response: Response,
    /// The number that its next event would have.
    pub next_event: u64,
}

const SAVE: &str = "INSERT INTO state_heads (id, tenant, created, touched, status, background, streams, \
    previous, conversation, body, marks, owner, lease, next, bytes) \
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, 0, ?14) \
    ON CONFLICT (id) DO UPDATE SET status = excluded.status, body = excluded.body, marks = excluded.marks, \
    owner = excluded.owner, lease = excluded.lease, \
    bytes = state_heads.bytes + excluded.bytes \
    WHERE state_heads.owner IS NOT NULL AND state_heads.tenant = excluded.tenant RETURNING id";

const ITEM: &str = "INSERT INTO state_items (holder, place, tenant, id, item) VALUES (?1, ?2, ?3, ?4, ?5) \
    ON CONFLICT (holder, place) DO NOTHING";

const EVENT: &str = "INSERT INTO state_events (holder, number, event) VALUES (?1, ?2, ?3) \
    ON CONFLICT (holder, number) DO NOTHING";

const COLUMNS: &str = "SELECT id, created, status, background, streams, body, lease FROM state_heads \
    WHERE id = ?1 AND tenant = ?2 AND status <> 'conversation'";

impl Kept {
    fn statements(&self, max_age: u64) -> (Vec<Statement>, u64) {
        // What nobody asked to keep is as good as old from the beginning.
        let touched = if self.brief { (self.created + BRIEF).saturating_sub(max_age) } else { self.created };
        let sizes = |items: &[Item]| items.iter().map(|item| item.json.len() + item.id.len()).sum::<usize>();
        let events: usize = self.events.1.iter().map(String::len).sum();
        let marks = self.marks.as_ref().map_or(0, String::len);
        let bytes = self.json.len() + marks + sizes(&self.input) + sizes(&self.output) + events + 256;
        let bytes = bytes as u64;
        let mut all = vec![Statement::must(
            SAVE,
            vec![
                self.id.as_str().into(),
                self.tenant.as_str().into(),
                Value::Int(int(self.created)),
                Value::Int(int(touched)),
                self.status.as_str().into(),
                Value::Int(self.background.into()),
                Value::Int(self.streams.into()),
                self.previous.as_deref().into(),
                self.conversation.as_deref().into(),
                self.json.as_str().into(),
                self.marks.as_deref().into(),
                self.owner.as_ref().map(|(owner, _)| owner.as_str()).into(),
                self.owner.as_ref().map_or(Value::Null, |(_, until)| Value::Int(int(*until))),
                Value::Int(int(bytes)),
            ],
        )];
        let item = |place: i64, item: &Item| {
            let (id, json) = (item.id.as_str().into(), item.json.as_str().into());
            let values =
                vec![self.id.as_str().into(), Value::Int(place), self.tenant.as_str().into(), id, json];
            Statement::new(ITEM, values)
        };
        all.extend((0..).zip(&self.input).map(|(place, input)| item(place, input)));
        all.extend((OUTPUT..).zip(&self.output).map(|(place, output)| item(place, output)));
        all.extend(events_of(&self.id, self.events.0, &self.events.1));
        if let Some(conversation) = &self.conversation
            && !self.gained.is_empty()
        {
            let marks = self.marks.as_deref();
            all.extend(grow(&self.tenant, conversation, self.created, &self.gained, marks));
        }
        (all, bytes)
    }
}

fn events_of(id: &str, first: u64, events: &[String]) -> impl Iterator<Item = Statement> {
    (first..).zip(events).map(move |(number, event)| {
        Statement::new(EVENT, vec![id.into(), Value::Int(int(number)), event.as_str().into()])
    })
}

impl Store {
    /// Keeps a response, or the next state of one that is not done yet; `false` when it is done already (somebody
    /// cancelled or deleted it, or gave it up for lost) and nothing was changed.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn save(&self, kept: &Kept) -> Result<bool> {
        let (statements, bytes) = kept.statements(self.bounds.max_age.as_secs());
        Ok(self.write(statements, bytes).await?.is_some())
    }

    /// Keeps an unfinished response alive in its next state only if it still exists; `false` when it is gone.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn advance(&self, kept: &Kept) -> Result<bool> {
        let still = Statement::must(
            "SELECT id FROM state_heads WHERE id = ?1 AND tenant = ?2 AND owner IS NOT NULL",
            vec![kept.id.as_str().into(), kept.tenant.as_str().into()],
        );
        let (mut statements, bytes) = kept.statements(self.bounds.max_age.as_secs());
        statements.insert(0, still);
        Ok(self.write(statements, bytes).await?.is_some())
    }

    /// One response.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn response(&self, tenant: &str, id: &str) -> Result<Option<Response>> {
        let statement = Statement::must(COLUMNS, vec![id.into(), tenant.into()]);
        let found = self.read(vec![statement]).await?;
        found.into_iter().flatten().flatten().next().map(response).transpose()
    }

    /// The response with its events behind number `after` (all with `None`), as many as one look brings, and
    /// whether there are more at once.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn events(
        &self,
        tenant: &str,
        id: &str,
        after: Option<u64>,
    ) -> Result<Option<(Response, Vec<(u64, String)>, bool)>> {
        // The state is looked at first: if it says done, all events are there.
        let head = Statement::must(COLUMNS, vec![id.into(), tenant.into()]);
        let events = Statement::new(
            "SELECT number, event FROM state_events WHERE holder = ?1 AND number > ?2 ORDER BY number LIMIT ?3",
            vec![id.into(), Value::Int(after.map_or(-1, int)), Value::Int(int(EVENTS as u64))],
        );
        let Some(mut found) = self.read(vec![head, events]).await? else { return Ok(None) };
        let rows = found.pop().unwrap_or_default();
        let Some(head) = found.into_iter().flatten().next() else { return Ok(None) };
        let event = |row: Row| {
            let mut row = row.into_iter();
            Ok((number(&mut row)?.unsigned_abs(), text(&mut row)?))
        };
        let events: Vec<_> = rows.into_iter().map(event).collect::<Result<_>>()?;
        let more = events.len() == EVENTS;
        Ok(Some((response(head)?, events, more)))
    }

    /// Adds events to unfinished work; `false` when it is done or gone, and whoever works on it should stop.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn record(&self, id: &str, first: u64, events: &[String]) -> Result<bool> {
        let bytes = events.iter().map(String::len).sum::<usize>() as u64;
        let mut all = vec![Statement::must(
            "UPDATE state_heads SET bytes = bytes + ?2 WHERE id = ?1 AND owner IS NOT NULL RETURNING id",
            vec![id.into(), Value::Int(int(bytes))],
        )];
        all.extend(events_of(id, first, events));
        Ok(self.write(all, bytes).await?.is_some())
    }

    /// The number that the next event of a response would have.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn next_event(&self, id: &str) -> Result<u64> {
        let statement = Statement::must(
            "SELECT COALESCE(MAX(number), -1) + 1 FROM state_events WHERE holder = ?1",
            vec![id.into()],
        );
        let found = self.read(vec![statement]).await?;
        let row = found.into_iter().flatten().flatten().next().unwrap_or_default();
        Ok(number(&mut row.into_iter())?.unsigned_abs())
    }

    /// Renews the leases of all that `owner` works on; says what that is.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn renew(&self, owner: &str, until: u64) -> Result<Vec<String>> {
        let statement = Statement::new(
            "UPDATE state_heads SET lease = ?2 WHERE owner = ?1 RETURNING id",
            vec![owner.into(), Value::Int(int(until))],
        );
        let found = self.run(vec![statement], true).await?.unwrap_or_default();
        found.into_iter().flatten().map(|row| text(&mut row.into_iter())).collect()
    }

    /// Unfinished work whose lease ended before `now`, a handful at a time.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn orphans(&self, now: u64) -> Result<Vec<Orphan>> {
        let statement = Statement::new(
            "SELECT tenant, (SELECT COALESCE(MAX(number), -1) + 1 FROM state_events WHERE holder = state_heads.id), \
             id, created, status, background, streams, body, lease FROM state_heads \
             WHERE owner IS NOT NULL AND lease < ?1 LIMIT 100",
            vec![Value::Int(int(now))],
        );
        let found = self.read(vec![statement]).await?.unwrap_or_default();
        let orphan = |row: Row| {
            let mut row = row.into_iter();
            let (tenant, next) = (text(&mut row)?, number(&mut row)?);
            Ok(Orphan { tenant, next_event: next.unsigned_abs(), response: response(row.collect())? })
        };
        found.into_iter().flatten().map(orphan).collect()
    }

    /// What a response continues: everything from the beginning up to and including it.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn chain(&self, tenant: &str, id: &str) -> Result<Chain> {
        let values = || vec![id.into(), tenant.into(), Value::Int(LINKS)];
        let heads = Statement::must(
            "WITH RECURSIVE chain (id, depth) AS (\
             SELECT CAST(?1 AS TEXT), CAST(0 AS BIGINT) UNION ALL \
             SELECT h.previous, c.depth + 1 FROM chain c JOIN state_heads h ON h.id = c.id AND h.tenant = ?2 \
             WHERE h.previous IS NOT NULL AND c.depth < ?3) \
             SELECT c.id, h.status, h.marks, h.conversation, h.owner FROM chain c \
             LEFT JOIN state_heads h ON h.id = c.id AND h.tenant = ?2 ORDER BY c.depth DESC",
            values(),
        );
        let items = Statement::new(
            "WITH RECURSIVE chain (id, depth) AS (\
             SELECT CAST(?1 AS TEXT), CAST(0 AS BIGINT) UNION ALL \
             SELECT h.previous, c.depth + 1 FROM chain c JOIN state_heads h ON h.id = c.id AND h.tenant = ?2 \
             WHERE h.previous IS NOT NULL AND c.depth < ?3) \
             SELECT i.id, i.item FROM chain c JOIN state_items i ON i.holder = c.id AND i.tenant = ?2 \
             ORDER BY c.depth DESC, i.place",
            values(),
        );
        let mut found = self.read(vec![heads, items]).await?.unwrap_or_default();
        let items = found.pop().unwrap_or_default().into_iter().map(super::item).collect::<Result<_>>()?;
        let mut marks = Vec::new();
        for row in found.into_iter().flatten() {
            let mut row = row.into_iter();
            let (id, status) = (text(&mut row)?, maybe(&mut row)?);
            if status.is_none_or(|status| status == STATUS) {
                return Ok(Chain::Missing(id));
            }
            marks.extend(maybe(&mut row)?);
            if let Some(conversation) = maybe(&mut row)? {
                return Ok(Chain::Conversation(conversation));
            }
            if maybe(&mut row)?.is_some() {
                return Ok(Chain::Unfinished(id));
            }
        }
        Ok(Chain::Found(History { items, marks }))
    }
}

fn response(row: Row) -> Result<Response> {
    let mut row = row.into_iter();
    let row = &mut row;
    Ok(Response {
        id: text(row)?,
        created: number(row)?.unsigned_abs(),
        status: text(row)?,
        background: number(row)? != 0,
        streams: number(row)? != 0,
        json: text(row)?,
        lease: match row.next() {
            Some(Value::Int(until)) => Some(until.unsigned_abs()),
            Some(Value::Null | Value::Text(_)) | None => None,
        },
    })
}
