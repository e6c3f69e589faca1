//! Translation between the dialects: pure. No I/O, no clock, no logging; ids, time and the memory of thought
//! signatures arrive as arguments.

use std::sync::Arc;

use bytes::BytesMut;

use crate::catalog::Traits;
use crate::error::Result;
use crate::ids::Ids;
use crate::usage::Usage;

pub mod chat;
pub mod citations;
pub mod completions;
pub mod counts;
pub mod embeddings;
pub mod fan;
pub mod fault;
pub mod finish;
pub mod hops;
pub mod responses;
mod splice;
pub mod tokens;

/// Which Google surface a request goes to; a few fields exist on one of them only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// generativelanguage.googleapis.com, and the simulator.
    GeminiApi,
    /// aiplatform.googleapis.com.
    Vertex,
}

/// Where a request goes and what may be said there.
#[derive(Clone, Copy, Debug)]
pub struct Target<'t> {
    /// The bare model id that is dispatched (`gemini-3.8-flash`), after aliases and prefixes.
    pub model: &'t str,
    /// What that model can do.
    pub traits: &'t Traits,
    /// The surface.
    pub backend: Backend,
    /// Refuse what would be dropped.
    pub strict: bool,
}

/// Media at an address that the model does not read itself: whoever sends the request fetches them, or refuses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Where they are.
    pub url: String,
    /// The path of the client's part, for refusals.
    pub place: String,
}

/// Fetched media.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Media {
    /// What they are, by their first bytes.
    pub mime: &'static str,
    /// Their bytes in base64.
    pub data: String,
}

/// The memory of thought signatures by tool call id, for clients that drop unknown fields.
pub trait Signatures: Send + Sync + std::fmt::Debug {
    /// Keeps the signature that came with a call.
    fn remember(&self, call_id: &str, signature: &str);
    /// The signature that came with a call, if it is still known.
    fn recall(&self, call_id: &str) -> Option<Arc<str>>;
    /// Whether a signature that came with this call is good where the request goes. One that is known to come
    /// from another project is not, wherever it was kept.
    fn native(&self, _call_id: &str) -> bool {
        true
    }
    /// Whether signatures are to be sent at all; Google may have refused them as foreign.
    fn believed(&self) -> bool {
        true
    }
}

/// What a reply needs and no translation may invent.
#[derive(Clone, Debug)]
pub struct Stamp {
    /// The reply's id (`chatcmpl-…`).
    pub id: String,
    /// Unix seconds.
    pub created: u64,
    /// The model name that the client is told: what it asked for.
    pub model: String,
    /// Names for calls that came without one.
    pub ids: Arc<Ids>,
    /// Where signatures are kept.
    pub signatures: Arc<dyn Signatures>,
}

/// One stream's translator: upstream events in, the client's frames out.
pub trait Machine: Send + 'static {
    /// Takes one upstream event (the JSON of a `GenerateContentResponse`, or of Google's error object) and
    /// appends whole SSE frames to `out`.
    ///
    /// # Errors
    /// When the event is Google's error, or cannot be read.
    fn push(&mut self, event: &[u8], out: &mut BytesMut) -> Result<()>;

    /// The counts seen so far.
    fn usage(&self) -> Usage;

    /// Tokens that were given to the client since Google counted last, about: what a broken answer took beyond its
    /// counts.
    fn uncounted(&self) -> u64 {
        0
    }

    /// The upstream has ended: appends finish chunks, the usage chunk if asked for, and `[DONE]`.
    ///
    /// # Errors
    /// When the answer is not complete (no `finishReason`, nothing at all): nothing is appended then.
    fn finish(&mut self, out: &mut BytesMut) -> Result<Usage>;

    /// Nothing has come for a while: appends how this front says that it is still at work. `false`: it has no way of
    /// its own to say so now, and nothing was appended.
    fn alive(&mut self, _out: &mut BytesMut) -> bool {
        false
    }

    /// The stream cannot go on: appends how this front says so. `false`: it has no way of its own, and nothing
    /// was appended.
    fn fail(&mut self, _failure: &Failure<'_>, _out: &mut BytesMut) -> bool {
        false
    }
}

/// Why a stream cannot go on, in the client's words.
#[derive(Clone, Copy, Debug)]
pub struct Failure<'f> {
    /// The sentence.
    pub message: &'f str,
    /// The error's `type`.
    pub kind: &'static str,
    /// The error's `code`.
    pub code: Option<&'f str>,
    /// The field at fault, if one is.
    pub param: Option<&'f str>,
}
