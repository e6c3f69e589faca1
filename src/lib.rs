//! Gemway: the OpenAI-compatible gateway in front of Google Gemini.

pub mod body;
pub mod clock;
pub mod error;
pub mod ids;
pub mod usage;
pub mod wire;
