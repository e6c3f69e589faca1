//! Google's answers → the list of vectors.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::ops::Range;

use bytes::{Bytes, BytesMut};
use serde::Serialize;

use super::Shape;
use super::numbers::{self, Numbers, broken};
use crate::error::{Error, Result};
use crate::gemini::answer::each;
use crate::gemini::embed::{EmbedResponse, EmbedUsage, Vector};
use crate::translate::fault;
use crate::usage::{Modality, Usage};
use crate::wire::{self, Rope};

/// The vectors of one call, written as they will leave.
#[derive(Clone, Debug)]
pub struct Vectors {
    /// `{"object":"embedding",…}`, separated by commas.
    json: Rope,
    /// What Google counted; nothing where it did not.
    pub usage: Option<Usage>,
    /// The inputs that Google says it has cut.
    pub truncated: Vec<usize>,
}

impl Vectors {
    /// Reads the answer to the call that carried these inputs.
    ///
    /// # Errors
    /// When it is Google's error, cannot be read, or has another number of vectors than there were inputs.
    pub fn read(shape: Shape, call: &Range<usize>, answer: &Bytes) -> Result<Self> {
        let text = std::str::from_utf8(answer).map_err(|error| unreadable().because(error))?;
        let (left, lists) = without_lists(text);
        let response: EmbedResponse<'_> =
            serde_json::from_str(&left).map_err(|error| unreadable().because(error))?;
        if response.error.is_some() {
            return Err(fault::from_event(answer));
        }
        let mut usage = response.usage_metadata.as_ref().and_then(counted);
        let mut truncated = Vec::new();
        if response.truncated == Some(true) {
            truncated.push(call.start);
        }
        let mut vectors = response.embeddings.unwrap_or_default();
        vectors.extend(response.embedding);
        for (at, prediction) in response.predictions.into_iter().flatten().enumerate() {
            if let Some(statistics) = prediction.embeddings.statistics {
                if let Some(tokens) = statistics.token_count {
                    let usage = usage.get_or_insert_default();
                    usage.input = usage.input.saturating_add(tokens.0);
                    usage.input_by[Modality::Text] = usage.input;
                }
                if statistics.truncated == Some(true) {
                    truncated.push(call.start + at);
                }
            }
            vectors.push(prediction.embeddings);
        }
        if vectors.len() != call.len() {
            let message = format!("Google gave {} vectors for {} inputs.", vectors.len(), call.len());
            return Err(broken(message));
        }
        Ok(Self { json: written(shape, call, &vectors, &lists, answer)?, usage, truncated })
    }
}

fn unreadable() -> Error {
    broken("Google's answer could not be read.")
}

/// A list shorter than this is read with the rest.
const LONG: usize = 256;

/// An answer without its long lists of numbers, and those, of which it is not known yet whether all in them is
/// numbers. In the place of each stands `"#index"`: nearly all of an answer is numbers, and to know where they end nobody
/// needs to parse them.
fn without_lists(answer: &str) -> (Cow<'_, str>, Vec<&str>) {
    let (mut left, mut lists, mut kept, mut at) = (String::new(), Vec::new(), 0, 0);
    while let Some(open) = answer.get(at..).and_then(|rest| memchr::memchr(b'[', rest.as_bytes())) {
        let start = at + open + 1;
        at = start;
        let Some(inside) =
            answer.get(start..).and_then(|rest| rest.get(..memchr::memchr(b']', rest.as_bytes())?))
        else {
            break;
        };
        let begins =
            |inside: &str| inside.trim_ascii_start().starts_with(|c: char| c == '-' || c.is_ascii_digit());
        if inside.len() >= LONG && begins(inside) && named(answer.get(..start - 1).unwrap_or_default()) {
            left.push_str(answer.get(kept..start - 1).unwrap_or_default());
            // Writing to a string cannot fail.
            let _ = write!(left, "\"#{}\"", lists.len());
            lists.push(inside);
            at = start + inside.len() + 1;
            kept = at;
        }
    }
    if lists.is_empty() {
        return (answer.into(), lists);
    }
    left.push_str(answer.get(kept..).unwrap_or_default());
    (left.into(), lists)
}

/// Whether a text ends with the name of the field that numbers stand in. No string has that in it: there its quotes
/// would be escaped.
fn named(before: &str) -> bool {
    let name = before.trim_ascii_end().strip_suffix(':').map(str::trim_ascii_end);
    name.is_some_and(|name| name.ends_with("\"values\""))
}

fn written(
    shape: Shape,
    call: &Range<usize>,
    vectors: &[Vector<'_>],
    lists: &[&str],
    answer: &Bytes,
) -> Result<Rope> {
    let mut most = vectors.iter().map(|vector| vector.values.get().len() + 64).sum::<usize>();
    if shape.base64 || shape.rescale {
        // What is being written is as long as what was read, or shorter, but for the vector at hand.
        let longest = lists.iter().map(|list| list.len()).max().unwrap_or(0);
        most += lists.iter().map(|list| list.len()).sum::<usize>() + 4 * longest;
    }
    let mut rope = Rope::default();
    let (mut out, mut scratch, mut values) = (BytesMut::with_capacity(most), Vec::new(), Vec::new());
    for (vector, index) in vectors.iter().zip(call.clone()) {
        let place =
            vector.values.get().strip_prefix("\"#").and_then(|rest| rest.strip_suffix('"')?.parse().ok());
        let numbers = match place.and_then(|place: usize| lists.get(place)) {
            Some(list) => Numbers::inside(list),
            None => Numbers::new(vector.values.get())?,
        };
        let read = shape.base64 || shape.rescale;
        let squares = if read { numbers.read(&mut values)? } else { 1.0 };
        if let Some(wanted) = shape.dimensions {
            let got = if read { values.len() } else { numbers.len() };
            if got != wanted {
                return Err(broken(format!("Google gave {got} numbers where {wanted} were asked for.")));
            }
        }
        if index > call.start {
            out.extend_from_slice(b",");
        }
        out.extend_from_slice(br#"{"object":"embedding","index":"#);
        wire::append(&index, &mut out).map_err(Error::internal)?;
        out.extend_from_slice(br#","embedding":"#);
        let scale = if shape.rescale { numbers::scale(squares) } else { 1.0 };
        if shape.base64 {
            numbers::base64(&values, scale, &mut scratch, &mut out)?;
        } else if scale.to_bits() == 1.0_f64.to_bits() {
            numbers.splice(answer, &mut out, &mut rope)?;
        } else {
            numbers::scaled(&values, scale, &mut out)?;
        }
        out.extend_from_slice(b"}");
    }
    rope.push(out.freeze());
    Ok(rope)
}

fn counted(said: &EmbedUsage<'_>) -> Option<Usage> {
    let input = said.prompt_token_count.or(said.total_token_count)?.0.min(1 << 48);
    let mut usage = Usage { input, ..Usage::default() };
    for count in each(&said.prompt_tokens_details) {
        let modality =
            count.modality.as_ref().map_or(Modality::Other, |m| Modality::from_google(&m.decode()));
        let slot = &mut usage.input_by[modality];
        *slot = slot.saturating_add(count.token_count.unwrap_or_default().0.min(1 << 48));
    }
    Some(usage)
}

/// Puts the vectors of all calls, in order, into one reply.
///
/// # Errors
/// Only if JSON cannot be written.
pub fn reply(model: &str, calls: Vec<Vectors>, usage: &Usage) -> Result<Rope> {
    #[derive(Serialize)]
    struct Counted {
        prompt_tokens: u64,
        total_tokens: u64,
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        estimated: bool,
    }
    let mut rope = Rope::default();
    rope.push(Bytes::from_static(br#"{"object":"list","data":["#));
    for (at, call) in calls.into_iter().enumerate() {
        if at > 0 {
            rope.push(Bytes::from_static(b","));
        }
        rope.append(call.json);
    }
    let mut tail = BytesMut::from(&br#"],"model":"#[..]);
    wire::append(model, &mut tail).map_err(Error::internal)?;
    tail.extend_from_slice(br#","usage":"#);
    let counted =
        Counted { prompt_tokens: usage.prompt(), total_tokens: usage.total(), estimated: usage.estimated };
    wire::append(&counted, &mut tail).map_err(Error::internal)?;
    tail.extend_from_slice(b"}");
    rope.push(tail.freeze());
    Ok(rope)
}
