//! What Gemini wants back and the client must carry: `encrypted_content` of reasoning and compaction items.
//!
//! The text is ours alone: a version, and base64 of a list. It names the calls its signatures belong to, so an
//! item that was moved or kept alone still helps. Whatever cannot be read (another gateway's, `OpenAI`'s own)
//! counts as nothing.

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
    /// The signature of the text before.
    Text {
        /// Google's.
        signature: String,
    },
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
            Mark::Call { .. } | Mark::Text { .. } | Mark::Summary { .. } => true,
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
            Mark::Text { signature: "T".into() },
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
