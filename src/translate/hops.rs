//! Long answers: Google ends a request at its cap and continues the answer in the next one; for the client it is
//! one answer.
//!
//! Families with a cap per request end with `CONTINUATION` and a token; the same request with that token goes on
//! where the last one stopped. Tokens also come in between, as checkpoints: after a connection that broke, the
//! newest one resumes the answer, and what came after it is said again. [`Hops`] reads the events of all these
//! requests and makes them the events of one: tokens and inner ends are hidden, what the client has seen already
//! is left out, and the counts are the sum of what each request is billed.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};

use bytes::Bytes;
use serde_json::value::RawValue;

use super::counts::{self, Counts};
use super::splice::{Candidate, Splice, read};
use crate::error::{Error, Kind, Origin, Result, Retry};
use crate::gemini::answer::each;
use crate::wire::Text;

/// More requests than a window of a million tokens can need.
const MOST_REQUESTS: u32 = 64;
/// Broken connections in a row without a word in between.
const MOST_BREAKS: u32 = 3;
/// Text behind a checkpoint that is kept to be recognised, in bytes; behind a longer one nothing is resumed.
const MOST_KEPT: usize = 8 << 20;

/// What comes after a request has ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// The answer is over; the last event, if there is one, is still to be translated.
    Over(Option<Bytes>),
    /// The same request again, with this `continuationToken`.
    Again(String),
}

/// The state of one long answer.
#[derive(Debug, Default)]
pub struct Hops {
    counts: Counts,
    /// The newest token, and the one that the present request was made with.
    token: Option<String>,
    used: Option<String>,
    requests: u32,
    breaks: u32,
    /// The present request ended with `CONTINUATION`.
    continues: bool,
    /// The answer has its real end.
    over: bool,
    seen: Seen,
}

impl Hops {
    /// Takes one event of the present request; gives what the client's translator is to read of it.
    ///
    /// # Errors
    /// When a resumed answer says something else than before: what the client has seen cannot be taken back.
    pub fn event(&mut self, event: Bytes) -> Result<Bytes> {
        let Some((text, read)) = read(&event) else { return Ok(event) };
        let mut splice = Splice::new(text);
        if let Some(raw) = read.usage_metadata
            && let Ok(said) = serde_json::from_str(raw.get())
        {
            self.counts.take(&said);
            if self.requests > 0 {
                splice.replace(raw.get(), counts::metadata(&self.counts));
            }
        }
        // Candidates of such families come alone.
        if let Some(candidate) = each(&read.candidates).next()
            && let Ok(candidate) = serde_json::from_str::<Candidate<'_>>(candidate.get())
        {
            self.candidate(&candidate, &mut splice)?;
        }
        Ok(splice.done().unwrap_or(event))
    }

    fn candidate(&mut self, candidate: &Candidate<'_>, splice: &mut Splice<'_>) -> Result<()> {
        if let Some(parts) = candidate.content.as_ref().and_then(|content| content.parts)
            && (self.token.is_some() || candidate.continuation_token.is_some())
        {
            let (left, new) = self.seen.take(parts)?;
            if new {
                self.breaks = 0;
            }
            if let Some(left) = left {
                splice.replace(parts.get(), left);
            }
        }
        if let Some(token) = candidate.continuation_token.as_ref().filter(|token| !token.is_empty()) {
            self.token = Some(token.decode().into_owned());
            self.seen.checkpoint();
        }
        let reason = candidate.finish_reason.map(RawValue::get).unwrap_or_default();
        match reason.trim_matches('"') {
            "" | "FINISH_REASON_UNSPECIFIED" => {}
            "CONTINUATION" => {
                self.continues = true;
                splice.rename("finishReason", reason, "\"continues\":true".to_owned());
            }
            _ => self.over = true,
        }
        Ok(())
    }

    /// The present request has ended properly.
    pub fn ended(&mut self) -> Next {
        if self.over {
            return Next::Over(None);
        }
        if !self.continues {
            // Cut off, though politely.
            return self.resume().map_or(Next::Over(None), Next::Again);
        }
        let fresh = self.token != self.used && self.requests < MOST_REQUESTS;
        if let Some(token) = self.token.clone().filter(|_| fresh) {
            return Next::Again(token);
        }
        let end = br#"{"candidates":[{"index":0,"finishReason":"CONTINUATION"}]}"#;
        Next::Over(Some(Bytes::from_static(end)))
    }

    /// The present request, or the attempt to make it, has failed.
    ///
    /// # Errors
    /// The same failure, where it is not worth another try or there is no checkpoint to go on from.
    pub fn failed(&mut self, error: Error) -> Result<String> {
        if self.over || error.retries() == Retry::Never {
            return Err(error);
        }
        self.resume().ok_or(error)
    }

    fn resume(&mut self) -> Option<String> {
        self.breaks += 1;
        if self.breaks > MOST_BREAKS || self.requests >= MOST_REQUESTS || self.seen.overflown() {
            return None;
        }
        self.token.clone()
    }

    /// How often in a row it broke.
    pub fn breaks(&self) -> u32 {
        self.breaks
    }

    /// The next request is made.
    pub fn begin(&mut self) {
        self.counts.next_hop();
        self.requests += 1;
        self.continues = false;
        self.used.clone_from(&self.token);
        self.seen.rewind();
    }
}

/// What the client has seen since the last checkpoint, and how much of it the present request has said again.
#[derive(Debug, Default)]
struct Seen {
    pieces: VecDeque<Piece>,
    bytes: usize,
    /// The piece that comes next, and how much of it was said.
    at: (usize, usize),
}

#[derive(Debug)]
enum Piece {
    Text {
        thought: bool,
        text: String,
    },
    /// Anything else, by its hash.
    Other(u64),
}

#[derive(Default, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct Part<'a> {
    #[serde(borrow)]
    text: Option<Text<'a>>,
    thought: Option<bool>,
    #[serde(borrow)]
    function_call: Option<Call<'a>>,
    #[serde(borrow)]
    thought_signature: Option<Text<'a>>,
}

/// What makes two calls the same; ids are given anew.
#[derive(Default, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct Call<'a> {
    #[serde(borrow)]
    name: Option<&'a RawValue>,
    #[serde(borrow)]
    args: Option<&'a RawValue>,
    #[serde(borrow)]
    partial_args: Option<&'a RawValue>,
    will_continue: Option<bool>,
}

impl Part<'_> {
    fn hash(&self, raw: &str) -> u64 {
        let mut hasher = DefaultHasher::new();
        match &self.function_call {
            Some(call) => {
                let raw = |value: Option<&RawValue>| value.map(RawValue::get).map(str::to_owned);
                (raw(call.name), raw(call.args), raw(call.partial_args), call.will_continue)
                    .hash(&mut hasher);
            }
            None => raw.hash(&mut hasher),
        }
        hasher.finish()
    }
}

impl Seen {
    /// Everything up to here need not be said again.
    fn checkpoint(&mut self) {
        let (piece, within) = self.at;
        self.pieces.drain(..piece.min(self.pieces.len()));
        if let Some(Piece::Text { text, .. }) = self.pieces.front_mut() {
            text.drain(..within);
        }
        self.bytes = self.pieces.iter().map(Piece::len).sum();
        self.at = (0, 0);
    }

    /// A new request begins at the checkpoint.
    fn rewind(&mut self) {
        self.at = (0, 0);
    }

    fn overflown(&self) -> bool {
        self.bytes > MOST_KEPT
    }

    /// Takes the parts of one event: those that are left for the client where some are not, and whether any of
    /// them says something that was not said before.
    fn take(&mut self, parts: &RawValue) -> Result<(Option<String>, bool)> {
        let Ok(list) = serde_json::from_str::<Vec<Option<&RawValue>>>(parts.get()) else {
            return Ok((None, false));
        };
        let again = self.at.0 < self.pieces.len();
        let (mut left, mut new) = (Vec::new(), false);
        for raw in list.into_iter().flatten() {
            // A part that cannot be read is for the translator to complain of.
            let part: Part<'_> = serde_json::from_str(raw.get()).unwrap_or_default();
            match part.text.as_ref().filter(|_| part.function_call.is_none()) {
                Some(text) => {
                    let said = text.decode();
                    let rest = self.text(&said, part.thought == Some(true))?;
                    new |= !rest.is_empty();
                    if rest.len() == said.len() {
                        left.push(raw.get().to_owned());
                    } else if !rest.is_empty() || part.thought_signature.is_some() {
                        left.push(shortened(raw, text, rest));
                    }
                }
                None => {
                    if self.other(part.hash(raw.get()))? {
                        new = true;
                        left.push(raw.get().to_owned());
                    }
                }
            }
        }
        Ok((again.then(|| format!("[{}]", left.join(","))), new))
    }

    /// The rest of a text that was not said before.
    fn text<'t>(&mut self, said: &'t str, thinking: bool) -> Result<&'t str> {
        let mut rest = said;
        while !rest.is_empty() && self.at.0 < self.pieces.len() {
            let Some(Piece::Text { thought, text }) = self.pieces.get(self.at.0) else {
                return Err(diverged());
            };
            let old = text.get(self.at.1..).unwrap_or_default();
            let same = old.len().min(rest.len());
            let (Some(head), true) = (old.get(..same), *thought == thinking) else { return Err(diverged()) };
            rest = rest.strip_prefix(head).ok_or_else(diverged)?;
            self.at = if same == old.len() { (self.at.0 + 1, 0) } else { (self.at.0, self.at.1 + same) };
        }
        if !rest.is_empty() && !self.overflown() {
            self.bytes += rest.len();
            match self.pieces.back_mut() {
                Some(Piece::Text { thought, text }) if *thought == thinking => text.push_str(rest),
                Some(Piece::Text { .. } | Piece::Other(_)) | None => {
                    self.pieces.push_back(Piece::Text { thought: thinking, text: rest.to_owned() });
                }
            }
            self.at = (self.pieces.len(), 0);
        }
        Ok(rest)
    }

    /// Whether a part that is not text was not there before.
    fn other(&mut self, hash: u64) -> Result<bool> {
        if let Some(piece) = self.pieces.get(self.at.0) {
            return match piece {
                Piece::Other(old) if *old == hash => {
                    self.at = (self.at.0 + 1, 0);
                    Ok(false)
                }
                Piece::Other(_) | Piece::Text { .. } => Err(diverged()),
            };
        }
        if !self.overflown() {
            self.bytes += 1;
            self.pieces.push_back(Piece::Other(hash));
            self.at = (self.pieces.len(), 0);
        }
        Ok(true)
    }
}

impl Piece {
    fn len(&self) -> usize {
        match self {
            Self::Text { text, .. } => text.len(),
            Self::Other(_) => 1,
        }
    }
}

/// A text part with the rest of its text.
fn shortened(raw: &RawValue, text: &Text<'_>, rest: &str) -> String {
    let mut splice = Splice::new(raw.get());
    if let Text::Raw(token) = text {
        splice.replace(token.get(), serde_json::Value::from(rest).to_string());
    }
    let done = splice.done().map(|bytes| bytes.to_vec());
    done.and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_else(|| raw.get().to_owned())
}

fn diverged() -> Error {
    let message =
        "The connection to Google broke off, and the answer could not be taken up where it stopped.";
    Error::new(Kind::UpstreamBroken, Origin::Upstream, message).code("upstream_disconnected")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn event(text: &str, extra: &[(&str, Value)]) -> Bytes {
        let mut candidate = json!({"content": {"role": "model", "parts": [{"text": text}]}});
        for (name, value) in extra {
            candidate[*name] = value.clone();
        }
        json!({"candidates": [candidate], "responseId": "r"}).to_string().into()
    }

    fn said(event: &Bytes) -> String {
        let event: Value = serde_json::from_slice(event).unwrap();
        let parts = event["candidates"][0]["content"]["parts"].as_array().cloned().unwrap_or_default();
        parts.iter().filter_map(|part| part["text"].as_str()).collect()
    }

    fn broken() -> Error {
        Error::new(Kind::UpstreamBroken, Origin::Upstream, "broken").retry(Retry::Soon)
    }

    #[test]
    fn hops_are_one_answer_and_their_counts_add_up() {
        let mut hops = Hops::default();
        let usage = |prompt: u64, out: u64| json!({"promptTokenCount": prompt, "candidatesTokenCount": out});
        let first = json!({"candidates": [{"finishReason": "CONTINUATION", "continuationToken": "T1",
            "content": {"parts": [{"text": "a", "thought": true}]}}], "usageMetadata": usage(10, 5)});
        let out = hops.event(first.to_string().into()).unwrap();
        let out: Value = serde_json::from_slice(&out).unwrap();
        assert!(out["candidates"][0].get("finishReason").is_none(), "the inner end is hidden");
        assert_eq!(hops.ended(), Next::Again("T1".into()));
        hops.begin();
        let last = json!({"candidates": [{"finishReason": "STOP", "content": {"parts": [{"text": "b"}]}}],
            "usageMetadata": usage(15, 7)});
        let out: Value = serde_json::from_slice(&hops.event(last.to_string().into()).unwrap()).unwrap();
        let counts = &out["usageMetadata"];
        assert_eq!((&counts["promptTokenCount"], &counts["candidatesTokenCount"]), (&25.into(), &12.into()));
        assert_eq!(counts["totalTokenCount"], 37);
        assert_eq!(hops.ended(), Next::Over(None));
    }

    #[test]
    fn an_end_of_budget_and_a_token_that_comes_twice_are_ends() {
        let mut hops = Hops::default();
        let spent = [("finishReason", json!("MAX_TOKENS")), ("continuationToken", json!("T"))];
        let out = hops.event(event("x", &spent)).unwrap();
        assert!(said(&out) == "x" && hops.ended() == Next::Over(None));
        let mut hops = Hops::default();
        let more = [("finishReason", json!("CONTINUATION")), ("continuationToken", json!("T"))];
        hops.event(event("x", &more)).unwrap();
        assert_eq!(hops.ended(), Next::Again("T".into()));
        hops.begin();
        hops.event(event("y", &more)).unwrap();
        let Next::Over(Some(end)) = hops.ended() else { panic!("it goes on for ever") };
        assert!(std::str::from_utf8(&end).unwrap().contains("CONTINUATION"));
        let mut hops = Hops::default();
        hops.event(event("x", &[("finishReason", json!("CONTINUATION"))])).unwrap();
        assert!(matches!(hops.ended(), Next::Over(Some(_))), "without a token nothing can be continued");
    }

    #[test]
    fn without_a_checkpoint_a_break_is_a_break() {
        let mut hops = Hops::default();
        hops.event(event("x", &[])).unwrap();
        assert!(hops.failed(broken()).is_err());
        let mut hops = Hops::default();
        hops.event(event("x", &[("continuationToken", json!("T"))])).unwrap();
        for _ in 0..MOST_BREAKS {
            assert_eq!(hops.failed(broken()).unwrap(), "T");
            hops.begin();
        }
        assert!(hops.failed(broken()).is_err(), "no progress");
        let refused = Error::new(Kind::Invalid, Origin::Upstream, "no");
        assert!(Hops::default().failed(refused).is_err());
    }

    #[test]
    fn another_text_after_a_break_is_an_error() {
        let mut hops = Hops::default();
        hops.event(event("one", &[("continuationToken", json!("T"))])).unwrap();
        hops.event(event(" two", &[])).unwrap();
        hops.failed(broken()).unwrap();
        hops.begin();
        assert_eq!(said(&hops.event(event(" t", &[])).unwrap()), "");
        assert!(hops.event(event("hree", &[])).is_err());
    }

    #[test]
    fn calls_that_come_again_are_left_out_whatever_their_id() {
        let call = |id: &str| {
            let parts = json!([{"functionCall": {"id": id, "name": "f", "args": {"a": 1}}}]);
            Bytes::from(json!({"candidates": [{"content": {"parts": parts}}]}).to_string())
        };
        let mut hops = Hops::default();
        hops.event(event("", &[("continuationToken", json!("T"))])).unwrap();
        hops.event(call("1")).unwrap();
        hops.failed(broken()).unwrap();
        hops.begin();
        let again: Value = serde_json::from_slice(&hops.event(call("2")).unwrap()).unwrap();
        assert_eq!(again["candidates"][0]["content"]["parts"], json!([]));
        let more: Value = serde_json::from_slice(&hops.event(call("3")).unwrap()).unwrap();
        assert_eq!(more["candidates"][0]["content"]["parts"][0]["functionCall"]["id"], "3");
    }

    proptest! {
        /// A model that says one text; its connection breaks anywhere, it resumes at its last checkpoint and
        /// cuts its text into other pieces than before.
        #[test]
        fn nothing_is_lost_and_nothing_comes_twice(
            text in "\\PC{1,60}",
            cuts in prop::collection::vec(1_usize..7, 1..40),
            marks in prop::collection::vec(any::<bool>(), 40),
            breaks in prop::collection::vec(1_usize..12, 0..9),
        ) {
            let letters: Vec<char> = text.chars().collect();
            let (mut hops, mut heard) = (Hops::default(), String::new());
            let mut cuts = cuts.iter().cycle();
            let mut marks = marks.iter().cycle();
            let mut breaks = breaks.into_iter();
            let mut from = 0;
            loop {
                let (mut at, mut events, lasts) = (from, 0, breaks.next().unwrap_or(usize::MAX));
                let mut over = false;
                while events < lasts {
                    let to = (at + cuts.next().unwrap()).min(letters.len());
                    let piece: String = letters[at..to].iter().collect();
                    let mut extra = Vec::new();
                    // The first event of all carries a checkpoint, so that every break can be mended.
                    if *marks.next().unwrap() || heard.is_empty() {
                        extra.push(("continuationToken", json!(format!("T{to}"))));
                        from = to;
                    }
                    if to == letters.len() {
                        extra.push(("finishReason", json!("STOP")));
                    }
                    heard.push_str(&said(&hops.event(event(&piece, &extra)).unwrap()));
                    (at, events) = (to, events + 1);
                    if to == letters.len() {
                        over = true;
                        break;
                    }
                }
                if over {
                    prop_assert_eq!(hops.ended(), Next::Over(None));
                    break;
                }
                let Ok(token) = hops.failed(broken()) else {
                    // Too often in a row without a new word.
                    prop_assert!(text.starts_with(&heard));
                    return Ok(());
                };
                prop_assert_eq!(token, format!("T{from}"));
                hops.begin();
            }
            prop_assert_eq!(heard, text);
        }
    }
}
