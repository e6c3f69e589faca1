//! Answers longer than one request may give: Gemini 4 stops at a cap and goes on when it is asked again with the
//! token it gave.

use std::hash::{DefaultHasher, Hash, Hasher};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::faults::Fault;
use super::models::Model;
use super::script::{Answer, Piece};
use super::usage;
use super::validate::Refusal;

/// Tokens that one streamed request gives, thoughts included.
const CAP: u64 = 65_536;
/// The same, without streaming.
const CAP_WHOLE: u64 = 32_768;
/// The same, where it is made small on purpose.
const SMALL_CAP: u64 = 40;
/// Every so many events carry a token, as a checkpoint.
pub(super) const CHECKPOINT: u64 = 2;

/// The part of an answer that one request gives.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hop {
    request: u64,
    /// Tokens, thoughts included, that requests before this one gave.
    pub(super) from: u64,
    /// The answer goes on, or could if there were more budget.
    pub(super) open: bool,
    /// Where this request stops.
    pub(super) to: u64,
}

impl Hop {
    /// The token that continues after so many tokens of the whole answer.
    pub(super) fn token(&self, after: u64) -> String {
        STANDARD.encode(format!("continue:{:016x}:{after}", self.request))
    }
}

/// The hash of a request without what may change from hop to hop.
fn hash(ask: &Value) -> u64 {
    let mut ask = ask.clone();
    if let Some(fields) = ask.as_object_mut() {
        fields.shift_remove("continuationToken");
        if let Some(config) = fields.get_mut("generationConfig").and_then(Value::as_object_mut) {
            config.shift_remove("maxOutputTokens");
        }
    }
    let mut hasher = DefaultHasher::new();
    ask.to_string().hash(&mut hasher);
    hasher.finish()
}

fn position(ask: &Value) -> Option<u64> {
    let token = STANDARD.decode(ask.get("continuationToken")?.as_str()?).ok()?;
    let token = String::from_utf8(token).ok()?;
    let (request, after) = token.strip_prefix("continue:")?.split_once(':')?;
    (request == format!("{:016x}", hash(ask))).then(|| after.parse().ok())?
}

/// Refuses tokens that are none of ours, or that belong to another request.
pub(super) fn check(ask: &Value, model: &Model) -> Result<(), Refusal> {
    if ask.get("continuationToken").is_none() {
        return Ok(());
    }
    if model.version < 40 {
        return Err(Refusal::invalid("continuation_token is not supported for this model."));
    }
    match position(ask) {
        Some(_) => Ok(()),
        None => Err(Refusal::invalid("The continuation token is invalid for this request.")),
    }
}

/// Cuts a whole answer down to what this request gives of it.
pub(super) fn cut(answer: &mut Answer, ask: &Value, model: &Model, (fault, stream): (Fault, bool)) {
    if model.version < 40 {
        return;
    }
    let cap = match (fault, stream) {
        (Fault::Hops | Fault::HopsReset, _) => SMALL_CAP,
        (_, true) => CAP,
        (_, false) => CAP_WHOLE,
    };
    let from = position(ask).unwrap_or(0);
    let whole = answer.thoughts + answer.tokens;
    let to = whole.min(from + cap);
    let Some(pieces) = answer.candidates.first_mut() else { return };
    let mut at = answer.thoughts;
    pieces.retain_mut(|piece| match piece {
        Piece::Thought(_) => from == 0,
        Piece::Text(text) => {
            let (begin, mut kept) = (at, String::new());
            let mut rest = text.as_str();
            while !rest.is_empty() {
                let token = usage::token(rest);
                if (from..to).contains(&at) {
                    kept.push_str(token);
                }
                at += 1;
                rest = rest.get(token.len().max(1)..).unwrap_or_default();
            }
            *text = kept;
            begin == at || !text.is_empty()
        }
        Piece::Part(part) => {
            let begin = at;
            at += part.get("functionCall").map_or(0, |call| usage::count(&call.to_string()));
            (from..to).contains(&begin)
        }
    });
    let open = to < whole || answer.finish == "MAX_TOKENS";
    if to < whole {
        answer.finish = "CONTINUATION";
        answer.signature = None;
        answer.grounding = None;
    }
    // Each hop reads everything again: the prompt, and all that was said.
    answer.prompt.text += from;
    let thoughts = answer.thoughts;
    answer.thoughts = to.min(thoughts).saturating_sub(from.min(thoughts));
    answer.tokens = (to - from.min(to)) - answer.thoughts;
    answer.hop = Some(Hop { request: hash(ask), from, to, open });
}
