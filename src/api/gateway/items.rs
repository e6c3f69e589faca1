//! Items as they are kept and listed: with an id, a type, a status, and content as parts.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;

use http::Uri;
use serde::Deserialize;
use serde::de::{MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::error::{Error, Result};
use crate::ids::Ids;
use crate::store::{Item, Listed, Page};

/// The fields of an object, in order, their values as they came.
#[derive(Debug, Default)]
pub(super) struct Fields<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct All;
        impl<'de> Visitor<'de> for All {
            type Value = Fields<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields<'de>, A::Error> {
                let mut fields = Vec::new();
                while let Some(name) = map.next_key::<&'de RawValue>()? {
                    let name = name.get();
                    let bare = name.strip_prefix('"').and_then(|name| name.strip_suffix('"'));
                    let name = match bare.filter(|name| !name.contains('\\')) {
                        Some(name) => Cow::Borrowed(name),
                        None => Cow::Owned(serde_json::from_str(name).map_err(serde::de::Error::custom)?),
                    };
                    fields.push((name, map.next_value()?));
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(All)
    }
}

impl<'a> Fields<'a> {
    /// The raw value of a field that is there and not null.
    pub(super) fn get(&self, name: &str) -> Option<&'a RawValue> {
        let found = self.0.iter().rev().find(|(known, _)| known == name).map(|(_, value)| *value);
        found.filter(|value| value.get() != "null")
    }

    /// A field that holds a text.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        serde_json::from_str(self.get(name)?.get()).ok()
    }
}

/// Which prefix the id of an item has, by its type.
fn prefix(kind: &str) -> &'static str {
    match kind {
        "message" => "msg_",
        "reasoning" => "rs_",
        "function_call" => "fc_",
        "function_call_output" => "fco_",
        "custom_tool_call" => "ctc_",
        "custom_tool_call_output" => "ctco_",
        "web_search_call" => "ws_",
        "code_interpreter_call" => "ci_",
        "image_generation_call" => "ig_",
        "compaction" => "cmp_",
        _ => "item_",
    }
}

/// Ids that a database and a path can hold.
fn usable(id: &str) -> bool {
    !id.is_empty() && id.len() <= 256 && !id.chars().any(char::is_control)
}

/// The id that an item refers to, if it is nothing but a reference.
pub(super) fn reference(item: &RawValue) -> Option<String> {
    let fields: Fields<'_> = serde_json::from_str(item.get()).ok()?;
    let id = fields.text("id")?;
    match fields.text("type") {
        Some(kind) => (kind == "item_reference").then_some(id),
        None => (fields.get("role").is_none() && fields.get("content").is_none()).then_some(id),
    }
}

/// Whether a message says who speaks and what: one that does not would spoil every later turn.
fn spoken(fields: &Fields<'_>) -> Result<()> {
    let lacking = |name: &'static str, message: &'static str| {
        Err(Error::invalid(name, message).code("missing_required_parameter"))
    };
    match fields.text("role").as_deref() {
        Some("user" | "assistant" | "system" | "developer") => {}
        Some(_) => {
            let message = "Supported values are: 'user', 'assistant', 'system' and 'developer'.";
            return Err(Error::invalid("role", message));
        }
        None => return lacking("role", "An item needs a 'type', or a 'role' if it is a message."),
    }
    match fields.get("content").map(|content| content.get().as_bytes().first()) {
        Some(Some(b'"' | b'[')) => Ok(()),
        Some(_) => {
            let message = "This must be a string or an array of parts.";
            Err(Error::invalid("content", message).code("invalid_type"))
        }
        None => lacking("content", "This message needs a 'content': a string or parts."),
    }
}

/// An item in the form in which it is listed.
///
/// # Errors
/// When it is no object, or a message that lacks what makes it one.
pub(super) fn normal(item: &RawValue, ids: &Ids) -> Result<Item> {
    let fields: Fields<'_> = serde_json::from_str(item.get())
        .map_err(|error| Error::invalid("", "An item must be an object.").because(error))?;
    let kind = fields.text("type").unwrap_or_else(|| "message".to_owned());
    let id = fields.text("id").filter(|id| usable(id)).unwrap_or_else(|| ids.mint(prefix(&kind)));
    if kind == "message" {
        spoken(&fields)?;
    }
    let mut json = String::with_capacity(item.get().len() + 96);
    json.push_str("{\"id\":");
    json.push_str(&quoted(&id));
    json.push_str(",\"type\":");
    json.push_str(&quoted(&kind));
    if fields.get("status").is_none() && kind != "reasoning" && kind != "compaction" {
        json.push_str(",\"status\":\"completed\"");
    }
    let assistant = fields.text("role").as_deref() == Some("assistant");
    for (name, value) in &fields.0 {
        if matches!(&**name, "id" | "type") || (name == "status" && value.get() == "null") {
            continue;
        }
        json.push(',');
        json.push_str(&quoted(name));
        json.push(':');
        if kind == "message" && name == "content" && value.get().starts_with('"') {
            let (before, after) = if assistant {
                ("[{\"type\":\"output_text\",\"text\":", ",\"annotations\":[],\"logprobs\":[]}]")
            } else {
                ("[{\"type\":\"input_text\",\"text\":", "}]")
            };
            json.push_str(before);
            json.push_str(value.get());
            json.push_str(after);
        } else {
            json.push_str(value.get());
        }
    }
    json.push('}');
    Ok(Item { id, json })
}

/// The items of an `input`: a text is one message of the user's. References become what they refer to.
///
/// # Errors
/// When it is neither a text nor a list of objects.
pub(super) fn input(
    input: &RawValue,
    known: &HashMap<String, Box<RawValue>>,
    ids: &Ids,
) -> Result<Vec<Item>> {
    if input.get().starts_with('"') {
        let id = ids.mint("msg_");
        let json = format!(
            "{{\"id\":\"{id}\",\"type\":\"message\",\"status\":\"completed\",\"role\":\"user\",\
             \"content\":[{{\"type\":\"input_text\",\"text\":{}}}]}}",
            input.get()
        );
        return Ok(vec![Item { id, json }]);
    }
    let one = |item: &RawValue| match reference(item).and_then(|id| known.get_key_value(&id)) {
        Some((id, known)) => Ok(Item { id: id.clone(), json: known.get().to_owned() }),
        None => normal(item, ids),
    };
    let numbered = list(input, "input")?.into_iter().enumerate();
    numbered.map(|(at, item)| one(item).map_err(|error| error.within(&format!("input[{at}]")))).collect()
}

/// The items of a response's `output`.
pub(super) fn output(response: &[u8]) -> Vec<Item> {
    #[derive(Deserialize)]
    struct Made<'a> {
        #[serde(borrow)]
        output: Vec<&'a RawValue>,
    }
    #[derive(Deserialize)]
    struct Named {
        id: String,
    }
    let made = serde_json::from_slice::<Made<'_>>(response).map(|made| made.output).unwrap_or_default();
    let item = |raw: &RawValue| {
        let Named { id } = serde_json::from_str(raw.get()).ok()?;
        Some(Item { id, json: raw.get().to_owned() })
    };
    made.into_iter().filter_map(item).collect()
}

/// An object with other values in some of its fields; fields it lacks are added.
pub(super) fn patched(json: &str, changes: &[(&str, &str)]) -> String {
    let fields: Fields<'_> = serde_json::from_str(json).unwrap_or_default();
    let known = |name: &str| fields.0.iter().any(|(field, _)| field == name);
    let changed = |name: &str| changes.iter().find(|(change, _)| *change == name).map(|(_, value)| *value);
    let old = fields.0.iter().map(|(name, value)| (&**name, changed(name).unwrap_or(value.get())));
    let new = changes.iter().filter(|(name, _)| !known(name)).copied();
    let all: Vec<_> = old.chain(new).map(|(name, value)| format!("{}:{value}", quoted(name))).collect();
    format!("{{{}}}", all.join(","))
}

/// A list of raw items; `param` names it in complaints.
///
/// # Errors
/// When it is no list.
pub(super) fn list<'a>(raw: &'a RawValue, param: &'static str) -> Result<Vec<&'a RawValue>> {
    serde_json::from_str(raw.get())
        .map_err(|error| Error::invalid(param, format!("`{param}` must be a list of items.")).because(error))
}

/// A JSON string.
pub(super) fn quoted(text: &str) -> String {
    // A string cannot fail to be written.
    serde_json::to_string(text).unwrap_or_default()
}

/// `{"object":"list",…}` of items.
pub(super) fn listing(found: &Listed) -> String {
    let id = |item: Option<&Item>| quoted(item.map_or("", |item| &item.id));
    let data = found.items.iter().map(|item| item.json.as_str()).collect::<Vec<_>>().join(",");
    format!(
        "{{\"object\":\"list\",\"data\":[{data}],\"first_id\":{},\"last_id\":{},\"has_more\":{}}}",
        id(found.items.first()),
        id(found.items.last()),
        found.more
    )
}

/// The decoded values of a query.
pub(super) fn query(uri: &Uri) -> impl Iterator<Item = (String, String)> {
    let pairs = uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
    pairs.map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let plain = |text: &str| {
            let text = text.replace('+', " ");
            percent_encoding::percent_decode_str(&text).decode_utf8_lossy().into_owned()
        };
        (plain(name), plain(value))
    })
}

/// Which page a query asks for.
///
/// # Errors
/// A limit that is no number from 1 to 100, an order that is neither `asc` nor `desc`.
pub(super) fn page(uri: &Uri) -> Result<Page> {
    let mut page = Page { after: None, descending: true, limit: 20 };
    for (name, value) in query(uri) {
        match name.as_str() {
            "limit" => {
                page.limit = value
                    .parse()
                    .ok()
                    .filter(|limit| (1..=100).contains(limit))
                    .ok_or_else(|| Error::invalid("limit", "`limit` must be a number from 1 to 100."))?;
            }
            "order" => {
                page.descending = match value.as_str() {
                    "asc" => false,
                    "desc" => true,
                    _ => return Err(Error::invalid("order", "`order` must be `asc` or `desc`.")),
                };
            }
            "after" if usable(&value) => page.after = Some(value),
            // What else clients say (`include[]`) is in every item anyway.
            _ => {}
        }
    }
    Ok(page)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(json: &str) -> String {
        normal(&RawValue::from_string(json.to_owned()).unwrap(), &Ids::counted()).unwrap().json
    }

    #[test]
    fn an_item_gets_what_it_lacks_and_keeps_what_it_has() {
        assert_eq!(
            one(r#"{"role":"user","content":"h\"i"}"#),
            r#"{"id":"msg_1","type":"message","status":"completed","role":"user","content":[{"type":"input_text","text":"h\"i"}]}"#
        );
        assert_eq!(
            one(r#"{"type":"message","id":"msg_a","role":"assistant","content":"x","status":null}"#),
            r#"{"id":"msg_a","type":"message","status":"completed","role":"assistant","content":[{"type":"output_text","text":"x","annotations":[],"logprobs":[]}]}"#
        );
        assert_eq!(
            one(r#"{"type":"reasoning","id":"rs_1","summary":[],"encrypted_content":"e","new":1.50}"#),
            r#"{"id":"rs_1","type":"reasoning","summary":[],"encrypted_content":"e","new":1.50}"#
        );
        assert_eq!(
            one(r#"{"type":"function_call_output","id":"\u0000","call_id":"c","output":"o"}"#),
            r#"{"id":"fco_1","type":"function_call_output","status":"completed","call_id":"c","output":"o"}"#
        );
    }

    #[test]
    fn fields_are_replaced_in_place_and_added_at_the_end() {
        assert_eq!(
            patched(
                r#"{"id":"r","status":"queued","n":1.50}"#,
                &[("status", "\"failed\""), ("error", "null")]
            ),
            r#"{"id":"r","status":"failed","n":1.50,"error":null}"#
        );
    }

    #[test]
    fn references_are_told_from_messages() {
        let told = |json: &str| reference(&RawValue::from_string(json.to_owned()).unwrap());
        assert_eq!(told(r#"{"type":"item_reference","id":"a"}"#).as_deref(), Some("a"));
        assert_eq!(told(r#"{"id":"a","type":null}"#).as_deref(), Some("a"));
        assert_eq!(told(r#"{"id":"a","role":"user","content":"x"}"#), None);
        assert_eq!(told(r#"{"id":"a","type":"message","role":"user","content":"x"}"#), None);
    }

    #[test]
    fn a_page_is_read_and_a_wrong_one_named() {
        let read = |query: &str| page(&format!("/x?{query}").parse().unwrap());
        let good = read("limit=5&order=asc&after=msg%5F1&include%5B%5D=x").unwrap();
        assert_eq!((good.limit, good.descending, good.after.as_deref()), (5, false, Some("msg_1")));
        assert_eq!(read("limit=0").unwrap_err().param(), Some("limit"));
        assert_eq!(read("order=up").unwrap_err().param(), Some("order"));
    }
}
