//! Conversations: made, read, described and deleted, with their items.

use http::Method;
use serde_json::value::RawValue;

use super::Gateway;
use super::items::{self, Fields};
use crate::api::{Ctx, Incoming, Reply};
use crate::error::{Error, Kind, Origin, Result};
use crate::store::{Conversation, Item, Listed};

/// How many items one request may add.
const ITEMS: usize = 20;

impl Gateway {
    /// `POST /v1/conversations`.
    pub(super) async fn create_conversation(&self, cx: Ctx, incoming: Incoming) -> Result<Reply> {
        let store = self.state.store()?;
        let body = incoming.json(&cx).await?;
        let body = if body.is_empty() { b"{}" } else { &body[..] };
        let fields = fields(body)?;
        let new = Conversation {
            id: self.ids.mint("conv_"),
            tenant: cx.tenant.name().to_string(),
            created: self.clock.unix_seconds(),
            metadata: metadata(&fields)?,
        };
        let first = match fields.get("items") {
            Some(items) => self.taken(&cx, items).await?,
            None => Vec::new(),
        };
        store.create_conversation(&new, &first).await?;
        Ok(whole(object(&new)))
    }

    /// `GET`, `POST` and `DELETE /v1/conversations/{id}`.
    pub(super) async fn conversation(&self, cx: Ctx, id: String, incoming: Incoming) -> Result<Reply> {
        let store = self.state.store()?;
        let tenant = cx.tenant.name();
        if incoming.method == Method::DELETE {
            store.conversation(tenant, &id).await?.ok_or_else(|| unknown(&id))?;
            store.delete(tenant, &id).await?;
            let id = items::quoted(&id);
            return Ok(whole(format!(
                "{{\"id\":{id},\"object\":\"conversation.deleted\",\"deleted\":true}}"
            )));
        }
        let found = if incoming.method == Method::POST {
            let body = incoming.json(&cx).await?;
            let fields = fields(&body)?;
            if fields.get("metadata").is_none() {
                let error = Error::invalid("metadata", "Missing required parameter: 'metadata'.");
                return Err(error.code("missing_required_parameter"));
            }
            let metadata = metadata(&fields)?;
            store.describe(tenant, &id, &metadata, self.clock.unix_seconds()).await?
        } else {
            store.conversation(tenant, &id).await?
        };
        found.map(|found| whole(object(&found))).ok_or_else(|| unknown(&id))
    }

    /// `GET` and `POST /v1/conversations/{id}/items`.
    pub(super) async fn conversation_items(&self, cx: Ctx, id: String, incoming: Incoming) -> Result<Reply> {
        let store = self.state.store()?;
        let tenant = cx.tenant.name();
        if incoming.method == Method::POST {
            let body = incoming.json(&cx).await?;
            let fields = fields(&body)?;
            let items = fields.get("items").ok_or_else(|| {
                Error::invalid("items", "`items` is missing: the items to add.")
                    .code("missing_required_parameter")
            })?;
            let items = self.taken(&cx, items).await?;
            let now = self.clock.unix_seconds();
            if !store.add((tenant, &id), now, &items, None).await? {
                return Err(unknown(&id));
            }
            return Ok(whole(items::listing(&Listed { items, more: false })));
        }
        let page = items::page(&incoming.uri)?;
        store.conversation(tenant, &id).await?.ok_or_else(|| unknown(&id))?;
        let found = store.items(tenant, &id, &page).await?.ok_or_else(|| unknown(&id))?;
        Ok(whole(items::listing(&found)))
    }

    /// `GET` and `DELETE /v1/conversations/{id}/items/{item}`.
    pub(super) async fn conversation_item(
        &self,
        cx: Ctx,
        (id, item): (String, String),
        incoming: Incoming,
    ) -> Result<Reply> {
        let store = self.state.store()?;
        let tenant = cx.tenant.name();
        let conversation = store.conversation(tenant, &id).await?.ok_or_else(|| unknown(&id))?;
        if incoming.method == Method::DELETE {
            if !store.remove(tenant, &id, &item).await? {
                return Err(unknown_item(&item));
            }
            return Ok(whole(object(&conversation)));
        }
        let found = store.item(tenant, &id, &item).await?.ok_or_else(|| unknown_item(&item))?;
        Ok(whole(found.json))
    }

    /// Items that a client hands in; references become what they refer to.
    async fn taken(&self, cx: &Ctx, raw: &RawValue) -> Result<Vec<Item>> {
        let list = items::list(raw, "items")?;
        if list.len() > ITEMS {
            let message = format!("At most {ITEMS} items can be added at a time.");
            return Err(Error::invalid("items", message));
        }
        let wanted: Vec<String> = list.iter().filter_map(|item| items::reference(item)).collect();
        let known = if wanted.is_empty() {
            Vec::new()
        } else {
            self.state.store()?.find(cx.tenant.name(), &wanted).await?.items
        };
        let taken = |(at, item): (usize, &&RawValue)| match items::reference(item) {
            Some(id) => known.iter().find(|known| known.id == id).cloned().ok_or_else(|| unknown_item(&id)),
            None => items::normal(item, &self.ids).map_err(|error| error.within(&format!("items[{at}]"))),
        };
        list.iter().enumerate().map(taken).collect()
    }
}

fn fields(body: &[u8]) -> Result<Fields<'_>> {
    serde_json::from_slice(body).map_err(|error| {
        Error::new(Kind::Malformed, Origin::Client, "The request body is not a JSON object.").because(error)
    })
}

/// `metadata` as it came: at most 16 texts with short names.
fn metadata(fields: &Fields<'_>) -> Result<String> {
    let Some(raw) = fields.get("metadata") else { return Ok("{}".to_owned()) };
    let wrong = |message: &'static str| Error::invalid("metadata", message);
    let map: std::collections::BTreeMap<String, String> = serde_json::from_str(raw.get())
        .map_err(|error| wrong("`metadata` must be an object of strings.").because(error))?;
    let long = |(name, value): (&String, &String)| name.chars().count() > 64 || value.chars().count() > 512;
    if map.len() > 16 || map.iter().any(long) {
        return Err(wrong("`metadata` may hold 16 pairs, with names of 64 and values of 512 characters."));
    }
    Ok(raw.get().to_owned())
}

fn object(conversation: &Conversation) -> String {
    let Conversation { id, created, metadata, .. } = conversation;
    let id = items::quoted(id);
    format!("{{\"id\":{id},\"object\":\"conversation\",\"created_at\":{created},\"metadata\":{metadata}}}")
}

fn whole(json: String) -> Reply {
    Reply::Whole { body: json.into(), headers: http::HeaderMap::new() }
}

/// No such conversation, or another tenant's.
pub(super) fn unknown(id: &str) -> Error {
    Error::new(Kind::NotFound, Origin::Client, format!("Conversation with id '{id}' not found."))
}

/// No such item, or another tenant's.
pub(super) fn unknown_item(id: &str) -> Error {
    Error::new(Kind::NotFound, Origin::Client, format!("Item with id '{id}' not found."))
}
