//! Conversations and what they hold.

use super::plan::{Row, Statement, Value, maybe, number, text};
use super::{History, Item, Store, int};
use crate::error::Result;

/// What stands in the place of a response's status.
pub(super) const STATUS: &str = "conversation";

/// A conversation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conversation {
    /// Its id.
    pub id: String,
    /// Whose it is.
    pub tenant: String,
    /// When it was made, in seconds since 1970.
    pub created: u64,
    /// Its metadata, a JSON object.
    pub metadata: String,
}

/// What adds items behind those a conversation holds; `marks` stay with the last of them.
pub(super) fn grow(tenant: &str, id: &str, now: u64, items: &[Item], marks: Option<&str>) -> Vec<Statement> {
    let count = int(items.len() as u64);
    let bytes: usize = items.iter().map(|item| item.json.len() + item.id.len()).sum();
    let mut all = vec![Statement::new(
        "UPDATE state_heads SET next = next + ?3, touched = ?4, bytes = bytes + ?5 \
         WHERE id = ?1 AND tenant = ?2 AND status = 'conversation' RETURNING next",
        vec![
            id.into(),
            tenant.into(),
            Value::Int(count),
            Value::Int(int(now)),
            Value::Int(int(bytes as u64)),
        ],
    )];
    all.extend((0..).zip(items).map(|(at, item)| {
        Statement::new(
            "INSERT INTO state_items (holder, place, tenant, id, item, marks) \
             SELECT id, next - CAST(?3 AS BIGINT), tenant, CAST(?4 AS TEXT), CAST(?5 AS TEXT), CAST(?6 AS TEXT) \
             FROM state_heads WHERE id = ?1 AND tenant = ?2 AND status = 'conversation'",
            vec![
                id.into(),
                tenant.into(),
                Value::Int(count - at),
                item.id.as_str().into(),
                item.json.as_str().into(),
                marks.filter(|_| at + 1 == count).into(),
            ],
        )
    }));
    all
}

impl Store {
    /// Makes a conversation with its first items.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn create_conversation(&self, new: &Conversation, items: &[Item]) -> Result<()> {
        let bytes = 256 + new.metadata.len() as u64;
        let mut all = vec![Statement::new(
            "INSERT INTO state_heads (id, tenant, created, touched, status, background, streams, body, \
             next, bytes) VALUES (?1, ?2, ?3, ?3, 'conversation', 0, 0, ?4, 0, ?5)",
            vec![
                new.id.as_str().into(),
                new.tenant.as_str().into(),
                Value::Int(int(new.created)),
                new.metadata.as_str().into(),
                Value::Int(int(bytes)),
            ],
        )];
        if !items.is_empty() {
            all.extend(grow(&new.tenant, &new.id, new.created, items, None));
        }
        self.write(all, bytes).await.map(|_| ())
    }

    /// One conversation.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn conversation(&self, tenant: &str, id: &str) -> Result<Option<Conversation>> {
        let statement = Statement::must(
            "SELECT id, tenant, created, body FROM state_heads WHERE id = ?1 AND tenant = ?2 \
             AND status = 'conversation'",
            vec![id.into(), tenant.into()],
        );
        one(self.read(vec![statement]).await?)
    }

    /// Gives a conversation other metadata; `None` when there is no such conversation.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn describe(
        &self,
        tenant: &str,
        id: &str,
        metadata: &str,
        now: u64,
    ) -> Result<Option<Conversation>> {
        let statement = Statement::must(
            "UPDATE state_heads SET body = ?3, touched = ?4 WHERE id = ?1 AND tenant = ?2 \
             AND status = 'conversation' RETURNING id, tenant, created, body",
            vec![id.into(), tenant.into(), metadata.into(), Value::Int(int(now))],
        );
        one(self.run(vec![statement], true).await?)
    }

    /// Adds items behind those a conversation holds, with the marks of a response they came from; `false` when
    /// there is no such conversation.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn add(
        &self,
        (tenant, id): (&str, &str),
        now: u64,
        items: &[Item],
        marks: Option<&str>,
    ) -> Result<bool> {
        let bytes: usize = items.iter().map(|item| item.json.len()).sum();
        let mut all = grow(tenant, id, now, items, marks);
        if let Some(first) = all.first_mut() {
            first.must = true;
        }
        Ok(self.write(all, bytes as u64).await?.is_some())
    }

    /// One item of a conversation.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn item(&self, tenant: &str, holder: &str, id: &str) -> Result<Option<Item>> {
        let statement = Statement::must(
            "SELECT id, item FROM state_items WHERE holder = ?1 AND tenant = ?2 AND id = ?3 ORDER BY place LIMIT 1",
            vec![holder.into(), tenant.into(), id.into()],
        );
        let found = self.read(vec![statement]).await?;
        found.into_iter().flatten().flatten().next().map(super::item).transpose()
    }

    /// Takes an item out of a conversation; whether it was there.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn remove(&self, tenant: &str, holder: &str, id: &str) -> Result<bool> {
        let statement = Statement::must(
            "DELETE FROM state_items WHERE holder = ?1 AND tenant = ?2 AND id = ?3 RETURNING id",
            vec![holder.into(), tenant.into(), id.into()],
        );
        Ok(self.run(vec![statement], true).await?.is_some())
    }

    /// All that was said in a conversation, oldest first; `None` when there is no such conversation.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn said(&self, tenant: &str, id: &str) -> Result<Option<History>> {
        let head = Statement::must(
            "SELECT id FROM state_heads WHERE id = ?1 AND tenant = ?2 AND status = 'conversation'",
            vec![id.into(), tenant.into()],
        );
        let items = Statement::new(
            "SELECT marks, id, item FROM state_items WHERE holder = ?1 AND tenant = ?2 ORDER BY place",
            vec![id.into(), tenant.into()],
        );
        let Some(mut found) = self.read(vec![head, items]).await? else { return Ok(None) };
        let mut history = History::default();
        for row in found.pop().unwrap_or_default() {
            let mut row = row.into_iter();
            history.marks.extend(maybe(&mut row)?);
            history.items.push(super::item(row.collect())?);
        }
        Ok(Some(history))
    }
}

fn one(found: Option<Vec<Vec<Row>>>) -> Result<Option<Conversation>> {
    let conversation = |row: Row| {
        let mut row = row.into_iter();
        let row = &mut row;
        Ok(Conversation {
            id: text(row)?,
            tenant: text(row)?,
            created: number(row)?.unsigned_abs(),
            metadata: text(row)?,
        })
    };
    found.into_iter().flatten().flatten().next().map(conversation).transpose()
}
