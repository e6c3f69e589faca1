//! Chat Completions ↔ generateContent.

use std::collections::HashMap;

use crate::gemini::ask::GenerateRequest;

pub(in crate::translate) mod google;
pub(in crate::translate) mod media;
pub(in crate::translate) mod messages;
pub(in crate::translate) mod names;
pub(in crate::translate) mod partial;
pub(in crate::translate) mod parts;
mod pieces;
pub mod reply;
pub mod request;
pub(in crate::translate) mod sampling;
mod schema;
mod sound;
pub(in crate::translate) mod state;
pub mod stream;
mod subset;
pub(in crate::translate) mod tools;
pub(in crate::translate) mod unsigned;

pub use self::media::fill;

#[cfg(test)]
mod tests;

/// What the answering half must know of the request.
#[derive(Clone, Debug, Default)]
pub struct Shape {
    /// `stream_options.include_usage`.
    pub include_usage: bool,
    /// The request used the deprecated `functions`: answer with `function_call`.
    pub legacy_functions: bool,
    /// `parallel_tool_calls: false`: only the first call is given.
    pub single_call: bool,
    /// Function names as Gemini knows them → as the client declared them, where they differ.
    pub names: HashMap<String, String>,
    /// Custom tools (by the client's name), wrapped as functions with one string `input`.
    pub custom: Vec<String>,
    /// How many choices were asked for (`n`).
    pub choices: u32,
    /// Thoughts are wanted as `reasoning_content`.
    pub thoughts: bool,
    /// The request names stop sequences: an answer may rightly end before it began.
    pub may_be_empty: bool,
    /// Sound is wanted as a WAV file; Google gives bare samples.
    pub wav: bool,
    /// The candidates come from so many requests with one each; 0 or 1 where one request gives them all.
    pub fan: u32,
    /// The tier that serves the request, where it is known before the answer.
    pub tier: Option<&'static str>,
    /// A hidden function carries the structured answer: its arguments become the content.
    pub answer_function: Option<String>,
}

/// A translated request.
#[derive(Debug)]
pub struct Ask<'a> {
    /// What Gemini is asked.
    pub request: GenerateRequest<'a>,
    /// What the answering half must know.
    pub shape: Shape,
    /// Fields that Gemini has no equal of, for `x-gemway-dropped-params`.
    pub dropped: Vec<String>,
}
