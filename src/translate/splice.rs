//! Small changes to an event of Google's that else stays as it came: no tree is built, nothing is read twice.

use bytes::{Bytes, BytesMut};
use serde_json::value::RawValue;

use crate::gemini::answer::List;
use crate::wire::Text;

/// What is looked at in an event, each value as the piece of the event that it is.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Event<'a> {
    #[serde(borrow)]
    pub(super) candidates: List<&'a RawValue>,
    #[serde(borrow)]
    pub(super) usage_metadata: Option<&'a RawValue>,
}

/// What is looked at in a candidate.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Candidate<'a> {
    #[serde(borrow)]
    pub(super) index: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) finish_reason: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) continuation_token: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) content: Option<Content<'a>>,
}

/// What is looked at in a content.
#[derive(Debug, Default, serde::Deserialize)]
pub(super) struct Content<'a> {
    #[serde(borrow)]
    pub(super) parts: Option<&'a RawValue>,
}

/// Reads an event; what cannot be read is for the translator to complain of.
pub(super) fn read(event: &[u8]) -> Option<(&str, Event<'_>)> {
    let text = std::str::from_utf8(event).ok()?;
    Some((text, serde_json::from_str(text).ok()?))
}

/// Changes to one text, put in when all are known.
#[derive(Debug)]
pub(super) struct Splice<'t> {
    whole: &'t str,
    changes: Vec<(usize, usize, String)>,
}

impl<'t> Splice<'t> {
    pub(super) fn new(whole: &'t str) -> Self {
        Self { whole, changes: Vec::new() }
    }

    /// Where a piece stands, which must have been borrowed from the text.
    fn place(&self, piece: &str) -> Option<(usize, usize)> {
        let from = (piece.as_ptr() as usize).checked_sub(self.whole.as_ptr() as usize)?;
        let to = from.checked_add(piece.len())?;
        (to <= self.whole.len()).then_some((from, to))
    }

    /// Puts other text in the place of a piece.
    pub(super) fn replace(&mut self, piece: &str, with: String) {
        if let Some((from, to)) = self.place(piece) {
            self.changes.push((from, to, with));
        }
    }

    /// Puts a field in front of those of an object.
    pub(super) fn insert(&mut self, object: &str, field: &str) {
        if let Some((from, to)) = self.place(object) {
            let empty = object.trim_start_matches('{').trim_start().starts_with('}');
            let at = (from + 1).min(to);
            self.changes.push((at, at, format!("{field}{}", if empty { "" } else { "," })));
        }
    }

    /// Puts another field in the place of one, of which the value is given.
    pub(super) fn rename(&mut self, name: &str, value: &str, with: String) {
        let Some((from, to)) = self.place(value) else { return };
        let before = self.whole.get(..from).unwrap_or_default();
        let quoted = format!("\"{name}\"");
        if let Some(key) = before.rfind(&quoted) {
            self.changes.push((key, to, with));
        }
    }

    /// The text with all changes, or nothing where there is none.
    pub(super) fn done(mut self) -> Option<Bytes> {
        if self.changes.is_empty() {
            return None;
        }
        self.changes.sort_by_key(|(from, to, _)| (*from, *to));
        let mut out = BytesMut::with_capacity(self.whole.len() + 64);
        let mut at = 0;
        for (from, to, with) in &self.changes {
            out.extend_from_slice(self.whole.get(at..*from).unwrap_or_default().as_bytes());
            out.extend_from_slice(with.as_bytes());
            at = *to;
        }
        out.extend_from_slice(self.whole.get(at..).unwrap_or_default().as_bytes());
        Some(out.freeze())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_meant_is_changed() {
        let text =
            r#"{ "candidates" : [ {"finishReason" :  "STOP", "x": [1, 2]} , {} ],"usageMetadata":{"a":1 } }"#;
        let (whole, event) = read(text.as_bytes()).unwrap();
        let candidates = event.candidates.unwrap();
        let first: Candidate<'_> = serde_json::from_str(candidates[0].unwrap().get()).unwrap();
        let mut splice = Splice::new(whole);
        splice.rename("finishReason", first.finish_reason.unwrap().get(), "\"y\":0".into());
        splice.insert(candidates[0].unwrap().get(), "\"index\":3");
        splice.insert(candidates[1].unwrap().get(), "\"index\":4");
        splice.replace(event.usage_metadata.unwrap().get(), "{}".into());
        let done = splice.done().unwrap();
        assert_eq!(
            std::str::from_utf8(&done).unwrap(),
            r#"{ "candidates" : [ {"index":3,"y":0, "x": [1, 2]} , {"index":4} ],"usageMetadata":{} }"#
        );
        assert!(Splice::new(whole).done().is_none());
    }
}
