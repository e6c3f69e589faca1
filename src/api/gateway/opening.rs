//! What a conversation is known by where it has no name: the first thing that its user said. That stays the same
//! while it grows, whether the client sends all of it each time or goes on from the last response.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::upstream;

/// One item, as far as it matters here.
#[derive(Deserialize)]
struct Item<'i> {
    #[serde(borrow, default)]
    role: Option<Cow<'i, str>>,
    #[serde(borrow, default)]
    content: Option<&'i RawValue>,
}

/// One part of a message.
#[derive(Deserialize)]
struct Part<'p> {
    #[serde(borrow, default)]
    text: Option<Cow<'p, str>>,
}

/// A number for what the user said first, in the turns before or now.
pub(super) fn of(history: &[Box<RawValue>], input: Option<&RawValue>) -> Option<u64> {
    if let Some(said) = history.iter().find_map(|item| said(item)) {
        return Some(said);
    }
    let input = input?.get();
    match serde_json::from_str::<Cow<'_, str>>(input) {
        Ok(text) => Some(upstream::hash(text.as_bytes())),
        Err(_) => serde_json::from_str::<Vec<&RawValue>>(input).ok()?.into_iter().find_map(said),
    }
}

/// The id of a conversation, which is written bare or in an object.
pub(super) fn id(conversation: &RawValue) -> Cow<'_, str> {
    #[derive(Deserialize)]
    struct Named<'n> {
        #[serde(borrow)]
        id: Cow<'n, str>,
    }
    let text = conversation.get();
    let bare = serde_json::from_str::<String>(text).map(Cow::Owned);
    bare.or_else(|_| serde_json::from_str::<Named<'_>>(text).map(|named| named.id))
        .unwrap_or(Cow::Borrowed(text))
}

fn said(item: &RawValue) -> Option<u64> {
    let item: Item<'_> = serde_json::from_str(item.get()).ok()?;
    let content = item.content.filter(|_| item.role.as_deref() == Some("user"))?.get();
    if let Ok(text) = serde_json::from_str::<String>(content) {
        return Some(upstream::hash(text.as_bytes()));
    }
    let parts: Vec<Part<'_>> = serde_json::from_str(content).ok()?;
    let texts: Vec<_> = parts.into_iter().filter_map(|part| part.text).collect();
    Some(upstream::hash(texts.concat().as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(text: &str) -> Box<RawValue> {
        RawValue::from_string(text.to_owned()).unwrap()
    }

    #[test]
    fn a_conversation_is_known_again_however_it_is_sent() {
        let first = of(&[], Some(&raw(r#""topic\n""#)));
        assert!(first.is_some());
        for input in [
            r#"[{"role":"user","content":"topic\n"}]"#,
            r#"[{"role":"developer","content":"x"},{"type":"message","role":"user","content":"topic\n"},{"role":"assistant","content":"y"},{"role":"user","content":"go on"}]"#,
        ] {
            assert_eq!(of(&[], Some(&raw(input))), first, "{input}");
        }
        let kept = raw(
            r#"{"id":"msg_1","type":"message","role":"user","content":[{"type":"input_text","text":"topic\n"}]}"#,
        );
        assert_eq!(of(&[raw(r#"{"type":"reasoning"}"#), kept], Some(&raw(r#""go on""#))), first);
        assert_ne!(of(&[], Some(&raw(r#""another""#))), first);
        assert_eq!(of(&[], Some(&raw(r#"[{"type":"function_call_output","call_id":"c"}]"#))), None);
        assert_eq!(of(&[], None), None);
        assert_eq!(id(&raw(r#""conv_1""#)), id(&raw(r#"{"id":"conv_1"}"#)));
    }
}
