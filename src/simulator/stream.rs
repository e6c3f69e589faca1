//! Answers on the wire: whole, or event by event at the configured pace.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame};
use serde_json::{Value, json};
use tokio::time::{Instant, Sleep};

use super::faults::{self, Fault};
use super::long::{CHECKPOINT, Hop};
use super::script::{Answer, Piece};
use super::usage;
use crate::body::BoxError;

/// Requests on their way, and those that were dropped before their end.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) in_flight: AtomicUsize,
    pub(super) cancelled: AtomicUsize,
}

/// Counts one request from its arrival to the last byte of its answer.
#[derive(Debug)]
pub(super) struct Guard {
    counters: Arc<Counters>,
    finished: bool,
}

impl Guard {
    pub(super) fn new(counters: &Arc<Counters>) -> Self {
        counters.in_flight.fetch_add(1, Ordering::SeqCst);
        Self { counters: Arc::clone(counters), finished: false }
    }

    pub(super) fn finish(&mut self) {
        self.finished = true;
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if !self.finished {
            self.counters.cancelled.fetch_add(1, Ordering::SeqCst);
        }
        self.counters.in_flight.fetch_sub(1, Ordering::SeqCst);
    }
}

fn part(piece: &Piece) -> Value {
    match piece {
        Piece::Thought(text) => json!({ "text": text, "thought": true }),
        Piece::Text(text) => json!({ "text": text }),
        Piece::Part(part) => part.clone(),
    }
}

fn safety(candidate: &mut serde_json::Map<String, Value>) {
    candidate.insert(
        "safetyRatings".into(),
        json!([{ "category": "HARM_CATEGORY_DANGEROUS_CONTENT", "probability": "HIGH", "blocked": true }]),
    );
}

fn logprobs(pieces: &[Piece]) -> Value {
    let mut chosen = Vec::new();
    for piece in pieces {
        let Piece::Text(text) = piece else { continue };
        let mut rest = text.as_str();
        while !rest.is_empty() {
            let token = usage::token(rest);
            chosen.push(json!({ "token": token, "tokenId": token.len(), "logProbability": -0.1 }));
            rest = rest.get(token.len().max(1)..).unwrap_or_default();
        }
    }
    let top: Vec<Value> = chosen.iter().map(|chosen| json!({ "candidates": [chosen] })).collect();
    json!({ "topCandidates": top, "chosenCandidates": chosen })
}

/// The answer in one piece.
pub(super) fn whole(answer: &Answer, model: &str, fault: Fault, vertex: bool) -> Value {
    let mut body = serde_json::Map::new();
    let mut tokens = answer.tokens;
    if answer.blocked || fault == Fault::NoCandidates {
        tokens = 0;
        if answer.blocked {
            body.insert("promptFeedback".into(), json!({ "blockReason": "PROHIBITED_CONTENT" }));
        }
    } else {
        let candidates = answer.candidates.iter().enumerate();
        let candidates = candidates.map(|(index, pieces)| candidate(answer, pieces, index));
        body.insert("candidates".into(), candidates.collect());
    }
    let thoughts = if tokens == 0 && answer.blocked { 0 } else { answer.thoughts };
    body.insert("usageMetadata".into(), usage::metadata(&answer.prompt, tokens, thoughts, vertex));
    body.insert("modelVersion".into(), model.into());
    body.insert("responseId".into(), answer.id.as_str().into());
    Value::Object(body)
}

fn candidate(answer: &Answer, pieces: &[Piece], index: usize) -> Value {
    let mut candidate = serde_json::Map::new();
    let mut parts: Vec<Value> = pieces.iter().map(part).collect();
    if let Some(signature) = &answer.signature
        && let Some(last) = parts.last_mut().and_then(Value::as_object_mut)
        && !last.contains_key("thought")
    {
        last.insert("thoughtSignature".into(), signature.as_str().into());
    }
    let mut content = serde_json::Map::new();
    if !parts.is_empty() {
        content.insert("parts".into(), Value::Array(parts));
    }
    content.insert("role".into(), "model".into());
    candidate.insert("content".into(), Value::Object(content));
    candidate.insert("finishReason".into(), answer.finish.into());
    candidate.insert("index".into(), index.into());
    match answer.finish {
        "MALFORMED_FUNCTION_CALL" => {
            candidate.insert("finishMessage".into(), "Malformed function call: print(".into());
        }
        "SAFETY" => safety(&mut candidate),
        _ => {}
    }
    if answer.logprobs {
        candidate.insert("logprobsResult".into(), logprobs(pieces));
        candidate.insert("avgLogprobs".into(), json!(-0.1));
    }
    if let Some(hop) = answer.hop.filter(|hop| hop.open) {
        candidate.insert("continuationToken".into(), hop.token(hop.to).into());
    }
    if let Some(grounding) = &answer.grounding {
        candidate.insert("groundingMetadata".into(), grounding.clone());
    }
    Value::Object(candidate)
}

/// The events of a streamed answer, made one after the other.
#[derive(Debug)]
struct Events {
    pieces: VecDeque<Piece>,
    /// How far the first piece has been said.
    said: usize,
    tokens: u64,
    thoughts: u64,
    prompt: u64,
    hop: Option<Hop>,
    /// What ends every event but the last: model and id.
    tail: String,
    /// The last event.
    last: Option<Value>,
}

impl Events {
    fn new(mut answer: Answer, model: &str, fault: Fault, vertex: bool) -> Self {
        let tail = format!(
            "}},\"modelVersion\":{},\"responseId\":{}}}",
            Value::from(model),
            Value::from(answer.id.as_str())
        );
        let mut last = whole(&Answer { candidates: vec![Vec::new()], ..copy(&answer) }, model, fault, vertex);
        let mut pieces: VecDeque<Piece> =
            std::mem::take(&mut answer.candidates).into_iter().next().unwrap_or_default().into();
        if answer.blocked || matches!(fault, Fault::NoCandidates) {
            pieces.clear();
        }
        let bare = matches!(answer.finish, "SAFETY" | "MALFORMED_FUNCTION_CALL");
        if let Some(candidate) = last.pointer_mut("/candidates/0").and_then(Value::as_object_mut) {
            if bare {
                candidate.remove("content");
            } else if let Some(signature) = &answer.signature {
                let part = json!([{ "text": "", "thoughtSignature": signature }]);
                candidate.insert("content".into(), json!({ "parts": part, "role": "model" }));
            } else {
                candidate.insert("content".into(), json!({ "parts": [{ "text": "" }], "role": "model" }));
            }
            if answer.logprobs {
                candidate.insert("logprobsResult".into(), logprobs(pieces.make_contiguous()));
            }
        }
        Self {
            pieces,
            said: 0,
            tokens: 0,
            thoughts: answer.thoughts,
            prompt: answer.prompt.total(),
            hop: answer.hop,
            tail,
            last: Some(last),
        }
    }

    /// Writes the next event's object; false when there is none.
    fn next(&mut self, out: &mut Vec<u8>) -> bool {
        let Some(piece) = self.pieces.front() else {
            let Some(last) = self.last.take() else { return false };
            // Writing into memory cannot fail, and a value of ours has no keys that cannot be written.
            let _ = serde_json::to_writer(out, &last);
            return true;
        };
        out.extend_from_slice(b"{\"candidates\":[{\"content\":{\"parts\":[");
        let done = match piece {
            Piece::Text(text) | Piece::Thought(text) => {
                let rest = text.get(self.said..).unwrap_or_default();
                let token = usage::token(rest);
                out.extend_from_slice(b"{\"text\":");
                let _ = serde_json::to_writer(&mut *out, token);
                self.said += token.len();
                if matches!(piece, Piece::Thought(_)) {
                    out.extend_from_slice(b",\"thought\":true");
                } else {
                    self.tokens += 1;
                }
                out.push(b'}');
                self.said >= text.len()
            }
            Piece::Part(part) => {
                self.tokens += part.get("functionCall").map_or(0, |call| usage::count(&call.to_string()));
                let _ = serde_json::to_writer(&mut *out, part);
                true
            }
        };
        out.extend_from_slice(b"],\"role\":\"model\"},\"index\":0");
        if let Some(hop) = self.hop.filter(|_| self.tokens > 0 && self.tokens.is_multiple_of(CHECKPOINT)) {
            let token = hop.token(hop.from + self.thoughts + self.tokens);
            out.extend_from_slice(format!(",\"continuationToken\":\"{token}\"").as_bytes());
        }
        out.extend_from_slice(b"}],\"usageMetadata\":{\"promptTokenCount\":");
        let numbers = [
            ("", self.prompt),
            (",\"candidatesTokenCount\":", self.tokens),
            (",\"thoughtsTokenCount\":", self.thoughts),
            (",\"totalTokenCount\":", self.prompt + self.tokens + self.thoughts),
        ];
        for (name, number) in numbers {
            if number > 0 || name.is_empty() {
                out.extend_from_slice(name.as_bytes());
                let _ = serde_json::to_writer(&mut *out, &number);
            }
        }
        out.extend_from_slice(self.tail.as_bytes());
        if done {
            self.pieces.pop_front();
            self.said = 0;
        }
        true
    }
}

fn copy(answer: &Answer) -> Answer {
    Answer {
        candidates: Vec::new(),
        finish: answer.finish,
        signature: None,
        grounding: answer.grounding.clone(),
        blocked: answer.blocked,
        logprobs: answer.logprobs,
        prompt: answer.prompt,
        tokens: answer.tokens,
        thoughts: answer.thoughts,
        id: answer.id.clone(),
        hop: answer.hop,
    }
}

/// How events are put into bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    Sse,
    Array,
}

#[derive(Debug)]
enum Source {
    Events(Box<Events>),
    Ready(Option<Bytes>),
}

type Polled = Poll<Option<Result<Frame<Bytes>, BoxError>>>;

/// A body that is being said.
#[derive(Debug)]
pub(super) struct Stream {
    source: Source,
    framing: Framing,
    fault: Fault,
    /// Time between two events; none where there is no pace.
    gap: Duration,
    timer: Option<Pin<Box<Sleep>>>,
    started: Instant,
    /// Before a reset, so that what was said has left: a broken body takes along what is still in a buffer.
    rest: Option<Pin<Box<Sleep>>>,
    emitted: u32,
    ended: bool,
    guard: Guard,
}

/// Events before a fault strikes.
const BEFORE_FAULT: u32 = 3;
/// How long a stream is silent before it is reset in the middle of a long answer.
const REST: Duration = Duration::from_millis(20);
/// Without a pace, events share frames of about this size.
const BATCH: usize = 8 * 1024;

impl Stream {
    /// An answer, event by event.
    pub(super) fn events(
        answer: Answer,
        model: &str,
        (framing, vertex): (Framing, bool),
        fault: Fault,
        gap: Duration,
        guard: Guard,
    ) -> Self {
        let events = Events::new(answer, model, fault, vertex);
        Self::new(Source::Events(Box::new(events)), framing, fault, gap, guard)
    }

    /// Bytes, after which the fault strikes.
    pub(super) fn broken(bytes: Bytes, fault: Fault, guard: Guard) -> Self {
        Self::new(Source::Ready(Some(bytes)), Framing::Sse, fault, Duration::ZERO, guard)
    }

    fn new(source: Source, framing: Framing, fault: Fault, gap: Duration, guard: Guard) -> Self {
        let started = Instant::now();
        Self {
            source,
            framing,
            fault,
            gap,
            timer: None,
            started,
            rest: None,
            emitted: 0,
            ended: false,
            guard,
        }
    }

    fn end(&mut self) {
        self.ended = true;
        self.guard.finish();
    }

    /// One event with its framing; false when there was none left.
    fn write(&mut self, out: &mut Vec<u8>) -> bool {
        let Source::Events(events) = &mut self.source else { return false };
        match self.framing {
            Framing::Sse => {
                let length = out.len();
                out.extend_from_slice(b"data: ");
                if !events.next(out) {
                    out.truncate(length);
                    return false;
                }
                out.extend_from_slice(b"\r\n\r\n");
            }
            Framing::Array => {
                out.extend_from_slice(if self.emitted == 0 { b"[" } else { b"\n,\n" });
                // Only asked while there is an event left, so the comma is never the last.
                if !events.next(out) {
                    return false;
                }
                if events.last.is_none() {
                    out.extend_from_slice(b"\n]");
                }
            }
        }
        self.emitted += 1;
        true
    }

    fn framed(&self, object: &Value) -> Bytes {
        match self.framing {
            Framing::Sse => format!("data: {object}\r\n\r\n").into(),
            Framing::Array if self.emitted == 0 => format!("[{object}\n]").into(),
            Framing::Array => format!("\n,\n{object}\n]").into(),
        }
    }

    /// What the fault does now; `None` where it is not yet its time.
    fn strike(&mut self) -> Option<Polled> {
        let due = match self.source {
            Source::Events(_) => {
                self.fault.breaks_body() && self.emitted >= BEFORE_FAULT || self.fault == Fault::ErrorFirst
            }
            Source::Ready(ref bytes) => bytes.is_none(),
        };
        if !due {
            return None;
        }
        let tail = if matches!(self.fault, Fault::Reset | Fault::HopsReset) {
            self.end();
            return Some(Poll::Ready(Some(Err("connection reset by the simulator".into()))));
        } else if self.fault == Fault::Stall {
            // Nothing wakes this body again: only dropping it ends it.
            return Some(Poll::Pending);
        } else if self.fault == Fault::Half && matches!(self.source, Source::Events(_)) {
            Some(Bytes::from_static(b"data: {\"candidates\":[{\"content\":{\"parts\":[{\"te"))
        } else if self.fault == Fault::Garbage {
            Some(Bytes::from_static(b"data: {]\xff\xfe not json\r\n\r\n"))
        } else if matches!(self.fault, Fault::ErrorMid | Fault::ErrorFirst) {
            Some(self.framed(&faults::overloaded().body()))
        } else {
            None
        };
        self.end();
        Some(Poll::Ready(tail.map(|bytes| Ok(Frame::data(bytes)))))
    }
}

impl HttpBody for Stream {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        if this.ended {
            return Poll::Ready(None);
        }
        if let Source::Ready(bytes) = &mut this.source
            && let Some(bytes) = bytes.take()
        {
            return Poll::Ready(Some(Ok(Frame::data(bytes))));
        }
        if this.emitted > 0 && !this.gap.is_zero() {
            // Against the start, not against the last event: lateness does not add up.
            let due = this.started + this.gap.saturating_mul(this.emitted);
            if Instant::now() < due {
                let timer = this.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(due)));
                if timer.deadline() != due {
                    timer.as_mut().reset(due);
                }
                if timer.as_mut().poll(context).is_pending() {
                    return Poll::Pending;
                }
            }
        }
        if this.fault == Fault::HopsReset && this.emitted >= BEFORE_FAULT {
            let rest = this.rest.get_or_insert_with(|| Box::pin(tokio::time::sleep(REST)));
            if rest.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
        }
        if let Some(struck) = this.strike() {
            return struck;
        }
        let single = !this.gap.is_zero() || this.fault.breaks_body();
        let mut out = Vec::with_capacity(if single { 512 } else { BATCH + 1024 });
        loop {
            if !this.write(&mut out) {
                break;
            }
            let over = matches!(&this.source, Source::Events(events) if events.last.is_none());
            if over {
                this.end();
                break;
            }
            if single || out.len() >= BATCH {
                break;
            }
        }
        if out.is_empty() {
            this.end();
            return Poll::Ready(None);
        }
        Poll::Ready(Some(Ok(Frame::data(out.into()))))
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }
}
