//! Responses ↔ generateContent.
//!
//! The asking half takes the request and what stood before it ([`History`]); the answering half is one machine,
//! which writes events for a stream and, without writing them, the whole response. What a finished response
//! leaves behind is told through [`Finished`].

use std::collections::HashMap;

use bytes::Bytes;
use serde_json::value::RawValue;

use super::chat;
use crate::clock::Clock;
use crate::gemini::ask::GenerateRequest;

mod calls;
pub mod compact;
mod content;
pub mod count;
mod desk;
mod echo;
mod hosted;
mod input;
mod items;
mod marks;
mod replay;
pub mod request;
pub mod stream;
mod tools;

#[cfg(test)]
mod tests;

pub use marks::Marks;
pub use stream::{ResponsesMachine, Whole, reply};

/// What stood before the input: found by whoever keeps responses, before anything is asked.
#[derive(Debug, Default)]
pub struct History {
    /// Items of earlier turns, inputs and outputs, oldest first.
    pub items: Vec<Box<RawValue>>,
    /// Items that the input refers to by id (see [`request::references`]).
    pub referenced: HashMap<String, Box<RawValue>>,
    /// What items have no place for ([`Finished::marks`] of earlier turns).
    pub marks: Marks,
}

/// How a response ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// `completed`.
    Completed,
    /// `incomplete`: a limit or a filter.
    Incomplete,
    /// `failed`.
    Failed,
    /// The client left: `cancelled`, with what there was.
    Gone,
}

impl Status {
    /// The word on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Incomplete => "incomplete",
            Self::Failed => "failed",
            Self::Gone => "cancelled",
        }
    }
}

/// A response that is over.
#[derive(Clone, Debug)]
pub struct Finished {
    /// `resp_…`
    pub id: String,
    /// How it ended.
    pub status: Status,
    /// The response object, as the client saw it last: its `output` holds the items.
    pub response: Bytes,
    /// What Gemini wants back and the items do not tell, for [`Marks::read`]: those of calls are in the reasoning
    /// items too, those of texts and code are only there when the client asked for them.
    pub marks: Option<String>,
}

/// Whoever keeps finished responses. Called at most once, whatever the end is.
pub type Done = Box<dyn FnOnce(Finished) + Send>;

/// What a function that Gemini knows is to the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tool {
    /// A function, possibly in a namespace.
    Function {
        /// Its name there.
        name: String,
        /// The namespace.
        namespace: Option<String>,
    },
    /// A custom tool.
    Custom {
        /// Its name.
        name: String,
        /// The namespace.
        namespace: Option<String>,
    },
    /// `shell`.
    Shell,
    /// `local_shell`.
    LocalShell,
    /// `apply_patch`.
    ApplyPatch,
}

/// What the answering half must know of the request.
#[derive(Clone, Debug, Default)]
pub struct Shape {
    /// What the reading of Gemini's parts must know.
    pub reading: chat::Shape,
    /// Functions that are something else to the client than to Gemini.
    pub tools: HashMap<String, Tool>,
    /// Fields of the response that repeat the request: `"background":false,…`, without braces.
    pub echo: String,
    /// The `service_tier` that was asked for, as the response repeats it until Google says which it was.
    pub tier: Option<&'static str>,
    /// The response began in the queue.
    pub background: bool,
    /// Signatures of texts are wanted too (`reasoning.encrypted_content`).
    pub encrypted: bool,
    /// The sources of a search are wanted (`web_search_call.action.sources`).
    pub sources: bool,
    /// Whether the response says when it was completed, and by which clock.
    pub clock: Option<Clock>,
    /// Pictures were asked for, in this way; the item repeats it.
    pub picture: Option<Picture>,
}

/// How a picture was asked for.
#[derive(Clone, Debug, Default)]
pub struct Picture {
    /// `1024x1024`.
    pub size: Option<String>,
    /// `auto` and others.
    pub quality: Option<String>,
    /// `auto` and others.
    pub background: Option<String>,
}

/// A translated request.
#[derive(Debug)]
pub struct Ask<'a> {
    /// What Gemini is asked.
    pub request: GenerateRequest<'a>,
    /// What the answering half must know.
    pub shape: Shape,
    /// Fields that Gemini has no equal of.
    pub dropped: Vec<String>,
}
