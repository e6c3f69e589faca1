//! Legacy completions ↔ generateContent.
//!
//! Every choice is a call of its own: a prompt is a user's turn, and what the model says is the text. So several
//! prompts, and several choices of models that give one only, all work, whole and streamed.

use std::sync::Arc;

use crate::translate::chat;

mod request;
mod text;

#[cfg(test)]
mod tests;

pub use request::{Prompt, Setup, ask, encoding, parse, setup};
pub use text::{CompletionMachine, closing, reply, whole};

/// What the answering half must know of one choice.
#[derive(Clone, Debug, Default)]
pub struct Shape {
    /// What it shares with a chat.
    pub chat: chat::Shape,
    /// The prompt, where it is to be given again.
    pub echo: Option<Arc<str>>,
    /// The number of the choice among all.
    pub index: usize,
    /// It is one of several: whoever puts them together writes what surrounds them.
    pub among: bool,
}
