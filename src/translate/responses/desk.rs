//! Writing a response: its events, its items, and the response itself.
//!
//! Every item is opened by one function, which gives an [`Opened`], and closed by one that takes it: what is
//! done without having been added, added twice or closed twice cannot be written. Events are numbered in one
//! place.

use bytes::{Bytes, BytesMut};
use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::Shape;
use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::translate::Stamp;
use crate::usage::Usage;
use crate::wire;

/// An item that was added and not yet closed.
#[must_use]
#[derive(Debug)]
pub(super) struct Opened<I> {
    pub(super) id: String,
    pub(super) index: usize,
    pub(super) item: I,
    /// Only the desk makes one.
    _made: (),
}

/// How an item ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    Completed,
    Incomplete,
}

impl Ending {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Incomplete => "incomplete",
        }
    }
}

/// What the response says of itself beside its output.
#[derive(Debug, Default)]
pub(super) struct Standing<'s> {
    pub(super) status: &'static str,
    pub(super) incomplete: Option<&'static str>,
    pub(super) error: Option<Failed<'s>>,
    pub(super) usage: Option<Usage>,
}

/// `response.error`.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Failed<'s> {
    pub(super) code: &'s str,
    pub(super) message: &'s str,
    #[serde(rename = "type")]
    pub(super) kind: &'s str,
    pub(super) param: Option<&'s str>,
}

/// What is written on.
#[derive(Debug)]
pub(super) struct Desk {
    pub(super) stamp: Stamp,
    echo: String,
    clock: Option<Clock>,
    /// Only the response at the end is wanted, not the events.
    pub(super) quiet: bool,
    /// The tier that was asked for, or serves the request once Google has said so.
    pub(super) tier: Option<&'static str>,
    sequence: u64,
    /// Closed items as JSON, in order; nothing where one is still open.
    items: Vec<Option<Bytes>>,
    pub(super) first_message: Option<usize>,
    pub(super) searches: Vec<usize>,
}

/// One writing: the desk, and where the events go.
pub(super) struct Pen<'p> {
    pub(super) desk: &'p mut Desk,
    pub(super) out: &'p mut BytesMut,
}

#[derive(Serialize)]
struct Event<'e, T> {
    #[serde(rename = "type")]
    kind: &'static str,
    sequence_number: u64,
    #[serde(flatten)]
    body: &'e T,
}

#[derive(Serialize)]
struct Lifecycle<'e> {
    response: &'e RawValue,
}

#[derive(Serialize)]
struct ItemAt<'e> {
    output_index: usize,
    item: &'e RawValue,
}

/// Where an event belongs, and the one field that it brings.
#[derive(Serialize)]
pub(super) struct At<'e> {
    pub(super) item_id: &'e str,
    pub(super) output_index: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) content_index: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) summary_index: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) annotation_index: Option<usize>,
}

#[derive(Serialize)]
pub(super) struct With<'e, T> {
    #[serde(flatten)]
    pub(super) at: At<'e>,
    #[serde(flatten)]
    pub(super) more: T,
}

pub(super) fn raw(json: BytesMut) -> Result<Box<RawValue>> {
    let text = String::from_utf8(json.into()).map_err(Error::internal)?;
    RawValue::from_string(text).map_err(Error::internal)
}

/// `value` as JSON that was written the way the wire wants it.
pub(super) fn json<T: Serialize>(value: &T) -> Result<Box<RawValue>> {
    let mut out = BytesMut::new();
    wire::append(value, &mut out).map_err(Error::internal)?;
    raw(out)
}

impl Desk {
    pub(super) fn new(stamp: Stamp, shape: &Shape) -> Self {
        Self {
            stamp,
            echo: shape.echo.clone(),
            clock: shape.clock,
            tier: shape.tier,
            quiet: false,
            sequence: 0,
            items: Vec::new(),
            first_message: None,
            searches: Vec::new(),
        }
    }

    /// Whether the response object says all that its events have: no item is open.
    pub(super) fn is_level(&self) -> bool {
        self.items.iter().all(Option::is_some)
    }

    /// The response object as it stands.
    pub(super) fn response(&self, standing: &Standing<'_>) -> Result<Box<RawValue>> {
        #[derive(Serialize)]
        struct Reason {
            reason: &'static str,
        }
        #[derive(Serialize)]
        struct Head<'h> {
            id: &'h str,
            object: &'static str,
            created_at: u64,
            status: &'static str,
            #[serde(skip_serializing_if = "Option::is_none")]
            completed_at: Option<Value>,
            error: Option<Failed<'h>>,
            incomplete_details: Option<Reason>,
            model: &'h str,
            service_tier: &'static str,
        }
        let head = Head {
            id: &self.stamp.id,
            object: "response",
            created_at: self.stamp.created,
            status: standing.status,
            completed_at: self.clock.map(|clock| match standing.status {
                "completed" => Value::from(clock.unix_seconds()),
                _ => Value::Null,
            }),
            error: standing.error,
            incomplete_details: standing.incomplete.map(|reason| Reason { reason }),
            model: &self.stamp.model,
            service_tier: self.tier.unwrap_or("default"),
        };
        let mut out = BytesMut::with_capacity(512 + self.echo.len());
        wire::append(&head, &mut out).map_err(Error::internal)?;
        out.truncate(out.len().saturating_sub(1));
        out.extend_from_slice(b",\"output\":[");
        for (nth, item) in self.items.iter().flatten().enumerate() {
            if nth > 0 {
                out.extend_from_slice(b",");
            }
            out.extend_from_slice(item);
        }
        out.extend_from_slice(b"],");
        out.extend_from_slice(self.echo.as_bytes());
        out.extend_from_slice(b",\"usage\":");
        match &standing.usage {
            Some(usage) => wire::append(&counted(usage), &mut out).map_err(Error::internal)?,
            None => out.extend_from_slice(b"null"),
        }
        out.extend_from_slice(b"}");
        raw(out)
    }

    /// Puts searches before the words that cite them, as nobody has seen them in another order.
    pub(super) fn searches_first(&mut self) {
        let Some(first) = self.first_message else { return };
        for at in self.searches.iter().copied().filter(|at| *at > first) {
            if at < self.items.len() {
                let item = self.items.remove(at);
                self.items.insert(first, item);
            }
        }
    }

    pub(super) fn mint(&self, prefix: &str) -> String {
        self.stamp.ids.mint(prefix)
    }
}

/// `usage`: the parts add up.
#[derive(Serialize)]
pub(super) struct Counted {
    input_tokens: u64,
    input_tokens_details: InputCounted,
    output_tokens: u64,
    output_tokens_details: OutputCounted,
    total_tokens: u64,
}

#[derive(Serialize)]
struct InputCounted {
    cached_tokens: u64,
    cache_write_tokens: u64,
}

#[derive(Serialize)]
struct OutputCounted {
    reasoning_tokens: u64,
}

/// The client's view of the counts.
pub(super) fn counted(usage: &Usage) -> Counted {
    Counted {
        input_tokens: usage.prompt(),
        input_tokens_details: InputCounted { cached_tokens: usage.cached, cache_write_tokens: 0 },
        output_tokens: usage.completion(),
        output_tokens_details: OutputCounted { reasoning_tokens: usage.thoughts },
        total_tokens: usage.total(),
    }
}

impl Pen<'_> {
    pub(super) fn event<T: Serialize>(&mut self, kind: &'static str, body: &T) -> Result<()> {
        if self.desk.quiet {
            return Ok(());
        }
        let sequence_number = self.desk.sequence;
        self.desk.sequence += 1;
        self.out.extend_from_slice(b"event: ");
        self.out.extend_from_slice(kind.as_bytes());
        self.out.extend_from_slice(b"\ndata: ");
        wire::append(&Event { kind, sequence_number, body }, self.out).map_err(Error::internal)?;
        self.out.extend_from_slice(b"\n\n");
        Ok(())
    }

    /// `response.created` and its kin.
    pub(super) fn lifecycle(&mut self, kind: &'static str, response: &RawValue) -> Result<()> {
        self.event(kind, &Lifecycle { response })
    }

    pub(super) fn at(id: &str, index: usize) -> At<'_> {
        At {
            item_id: id,
            output_index: index,
            content_index: None,
            summary_index: None,
            annotation_index: None,
        }
    }

    pub(super) fn add<I>(&mut self, id: String, item: I, begun: &impl Serialize) -> Result<Opened<I>> {
        let index = self.desk.items.len();
        self.desk.items.push(None);
        if !self.desk.quiet {
            let begun = json(begun)?;
            self.event("response.output_item.added", &ItemAt { output_index: index, item: &begun })?;
        }
        Ok(Opened { id, index, item, _made: () })
    }

    pub(super) fn done(&mut self, index: usize, item: &impl Serialize) -> Result<()> {
        let item = json(item)?;
        self.event("response.output_item.done", &ItemAt { output_index: index, item: &item })?;
        if let Some(slot) = self.desk.items.get_mut(index) {
            *slot = Some(Bytes::from(String::from(Box::<str>::from(item))));
        }
        Ok(())
    }
}
