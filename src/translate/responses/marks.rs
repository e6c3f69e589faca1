//! What Gemini said that items have no place for, and wants back: signatures, and which part each stood on.
//!
//! It travels in `encrypted_content` of reasoning and compaction items, and is kept beside stored responses. The
//! text is ours alone: a version, and base64 of a list. It names the items its signatures belong to, so an item
//! that was moved or kept alone still helps. Whatever cannot be read (another gateway's, `OpenAI`'s own) counts as
//! nothing.

use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use crate::translate::chat::request::fits;

const VERSION: &str = "gw1.";

/// One thing to carry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Mark {
    /// The signature of a call, or of a picture by its item's id.
    Call {
        /// `call_…`, `ig_…`
        id: String,
        /// Google's.
        signature: String,
    },
    /// The signature of a text.
    Text(TextMark),
    /// What code and its result had beside what the item tells.
    Code(CodeMark),
    /// A part of Google's own tools, as it came: its kind, its JSON and its signature.
    Echo {
        /// `toolCall`
        #[serde(default, skip_serializing_if = "Option::is_none")]
        call: Option<String>,
        /// `toolResponse`
        #[serde(default, skip_serializing_if = "Option::is_none")]
        result: Option<String>,
        /// Google's.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        signature: Option<String>,
    },
    /// What a compacted conversation was about.
    Summary {
        /// The model's words.
        text: String,
    },
}

/// The signature of a text, and of which part of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct TextMark {
    /// `msg_…`; without it the text before is meant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) id: Option<String>,
    /// Where the signed part begins, in characters of that message.
    #[serde(skip_serializing_if = "zero")]
    pub(super) from: usize,
    /// Where it ends, if that is not the message's end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) to: Option<usize>,
    /// Google's.
    pub(super) signature: String,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn zero(number: &usize) -> bool {
    *number == 0
}

/// What stood on the two parts behind a `code_interpreter_call`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct CodeMark {
    /// `ci_…`
    pub(super) id: String,
    /// The code's own id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) code_id: Option<String>,
    /// Its signature.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) code: Option<String>,
    /// The result's own id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) result_id: Option<String>,
    /// Its signature.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) result: Option<String>,
    /// The code ran out of time, which an item cannot tell from any other failure.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) late: bool,
}

impl CodeMark {
    /// Whether it says anything.
    pub(super) fn tells(&self) -> bool {
        let Self { id: _, code_id, code, result_id, result, late } = self;
        *late || [code_id, code, result_id, result].into_iter().any(Option::is_some)
    }
}

/// Marks by the item that they belong to.
#[derive(Clone, Debug, Default)]
pub struct Marks {
    calls: HashMap<String, String>,
    texts: HashMap<String, Vec<TextMark>>,
    codes: HashMap<String, CodeMark>,
}

impl Marks {
    /// Those that were kept beside earlier responses ([`super::Finished::marks`]). What cannot be read costs a
    /// signature, not the request.
    pub fn read<'k>(kept: impl IntoIterator<Item = &'k str>) -> Self {
        let mut marks = Self::default();
        for text in kept {
            for mark in serde_json::from_str::<Vec<Mark>>(text).unwrap_or_default() {
                marks.take(mark);
            }
        }
        marks
    }

    /// Sorts one in; what belongs to no item by name is for the reader of its place.
    pub(super) fn take(&mut self, mark: Mark) {
        match mark {
            Mark::Call { id, signature } => {
                self.calls.insert(id, signature);
            }
            Mark::Text(mark) => {
                let Some(id) = mark.id.clone() else { return };
                let known = self.texts.entry(id).or_default();
                // The same may come twice: with the item, and from the store.
                if known.last().is_none_or(|last| last.to.is_some_and(|end| end <= mark.from)) {
                    known.push(mark);
                }
            }
            Mark::Code(code) => {
                self.codes.insert(code.id.clone(), code);
            }
            Mark::Echo { .. } | Mark::Summary { .. } => {}
        }
    }

    /// The signature of a call or a picture.
    pub(super) fn call(&self, id: &str) -> Option<&str> {
        self.calls.get(id).map(String::as_str)
    }

    /// The signatures of a message, in the order of its parts.
    pub(super) fn text(&self, id: &str) -> &[TextMark] {
        self.texts.get(id).map(Vec::as_slice).unwrap_or_default()
    }

    /// What stood on the parts of a code item.
    pub(super) fn code(&self, id: &str) -> Option<&CodeMark> {
        self.codes.get(id)
    }
}

/// What is kept beside a response: nothing when there is nothing.
pub(super) fn kept(marks: &[Mark]) -> Option<String> {
    // Strings in structs cannot fail to serialize.
    (!marks.is_empty()).then(|| serde_json::to_string(marks).unwrap_or_default())
}

/// Makes the text for the client.
pub(super) fn seal(marks: &[Mark]) -> String {
    // Strings in structs cannot fail to serialize.
    let json = serde_json::to_vec(marks).unwrap_or_default();
    format!("{VERSION}{}", URL_SAFE_NO_PAD.encode(json))
}

/// Reads it again; nothing if it is not ours.
pub(super) fn open(text: &str) -> Vec<Mark> {
    let Some(body) = text.strip_prefix(VERSION) else { return Vec::new() };
    // A foreign text is no fault of the client's: it may come from before a change of gateways.
    let Ok(json) = URL_SAFE_NO_PAD.decode(body) else { return Vec::new() };
    let marks: Vec<Mark> = serde_json::from_slice(&json).unwrap_or_default();
    let sound = |json: &Option<String>| {
        json.as_deref().is_none_or(|json| {
            json.starts_with('{')
                && fits(json.as_bytes()).is_ok()
                && serde_json::from_str::<serde::de::IgnoredAny>(json).is_ok()
        })
    };
    marks
        .into_iter()
        .filter(|mark| match mark {
            Mark::Echo { call, result, .. } => {
                sound(call) && sound(result) && call.is_some() != result.is_some()
            }
            Mark::Call { .. } | Mark::Text(_) | Mark::Code(_) | Mark::Summary { .. } => true,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_comes_back_and_strangers_are_nothing() {
        let marks = vec![
            Mark::Call { id: "call_1".into(), signature: "S+/=".into() },
            Mark::Text(TextMark { signature: "T".into(), ..TextMark::default() }),
            Mark::Text(TextMark { id: Some("msg_1".into()), from: 3, to: Some(5), signature: "T".into() }),
            Mark::Code(CodeMark {
                id: "ci_1".into(),
                code: Some("C".into()),
                late: true,
                ..CodeMark::default()
            }),
            Mark::Echo { call: Some("{}".into()), result: None, signature: None },
        ];
        assert_eq!(open(&seal(&marks)), marks);
        for odd in ["", "gAAAAABo", "gw1.", "gw1.%%%", "gw1.e30", "gw2.W10"] {
            assert_eq!(open(odd), Vec::new());
        }
        let bad = seal(&[Mark::Echo { call: Some("{".into()), result: None, signature: None }]);
        assert_eq!(open(&bad), Vec::new());
    }
}
