//! What one answer has said so far, candidate by candidate: the one reading of Gemini's parts that both the
//! whole reply and the stream are written from.

use std::collections::HashSet;

use serde_json::value::RawValue;

use crate::error::{Error, Kind, Origin, Result, Retry};
use crate::gemini::answer::{
    Candidate, CodeExecutionResult, ExecutableCode, GenerateResponse, GroundingMetadata, PromptFeedback, each,
};
use crate::openai::completion::TokenLogprob;
use crate::translate::citations::{Characters, Sources};
use crate::translate::counts::Counts;
use crate::translate::finish::{Called, Finish};
use crate::translate::{Stamp, fault};
use crate::wire::Text;

use super::Shape;
use super::partial::Writer;
use super::pieces::{Reader, entries, input_of};

/// More candidates than any model gives; a larger index is nonsense and would cost memory.
const MAX_CHOICES: usize = 128;

/// One thing for the client to see.
#[derive(Debug)]
pub(in crate::translate) enum Piece<'p> {
    /// Visible text.
    Text(Text<'p>),
    /// A summary of thoughts.
    Thought(Text<'p>),
    /// A call begins.
    Call { index: usize, id: &'p str, name: Text<'p>, custom: bool, signature: Option<Text<'p>> },
    /// Arguments of the call that began last, or more of them.
    Arguments { index: usize, custom: bool, text: Text<'p>, signature: Option<Text<'p>> },
    /// A picture as a `data:` URL.
    Image { index: usize, url: String, signature: Option<Text<'p>> },
    /// A piece of sound; the id comes with the first.
    Audio { id: Option<&'p str>, data: Text<'p> },
}

/// Who shows pieces to the client.
pub(in crate::translate) trait Sink {
    fn piece(&mut self, choice: usize, piece: Piece<'_>) -> Result<()>;
    fn logprobs(&mut self, choice: usize, logprobs: Vec<TokenLogprob<'_>>) -> Result<()>;
    /// Google has said which tier serves the request.
    fn tier(&mut self, tier: &'static str);

    /// The call that began last has all its arguments.
    fn called(&mut self, _choice: usize) -> Result<()> {
        Ok(())
    }

    /// What a tool of Google's did. `false`: this front has no place for it; code and what it printed are then
    /// shown as text.
    fn hosted(&mut self, _choice: usize, _hosted: Hosted<'_, '_>) -> Result<bool> {
        Ok(false)
    }

    /// The text part that came last, of so many characters, had a signature.
    fn signed(&mut self, _choice: usize, _signature: &Text<'_>, _characters: usize) -> Result<()> {
        Ok(())
    }

    /// Sources, as Google tells of them.
    fn grounded(&mut self, _choice: usize, _said: &GroundingMetadata<'_>) {}
}

/// What a tool of Google's did.
#[derive(Clone, Copy, Debug)]
pub(in crate::translate) enum Hosted<'h, 'a> {
    /// Code that it runs, and the part's signature.
    Code(&'h ExecutableCode<'a>, Option<&'h Text<'a>>),
    /// What that code printed, and the part's signature.
    Printed(&'h CodeExecutionResult<'a>, Option<&'h Text<'a>>),
    /// A call or a result of a tool on Google's side, and the part's signature: to be sent back as they are.
    Echo { call: Option<&'a RawValue>, result: Option<&'a RawValue>, signature: Option<&'h Text<'a>> },
}

/// One candidate.
#[derive(Debug, Default)]
pub(in crate::translate) struct Choice {
    seen: bool,
    finish: Option<Finish>,
    /// Google's own reason, and its sentence.
    pub(in crate::translate) native: Option<String>,
    pub(in crate::translate) native_message: Option<String>,
    /// The last signature that belonged to text.
    pub(in crate::translate) signature: Option<String>,
    sources: Sources,
    pub(in crate::translate) text: Characters,
    pub(super) parts: Vec<usize>,
    pub(super) events: usize,
    pub(in crate::translate) visible: bool,
    pub(in crate::translate) calls: usize,
    pub(super) ids: HashSet<String>,
    pub(super) open: Option<Open>,
    pub(super) images: usize,
    pub(super) audio: Option<String>,
}

/// A call that comes in fragments.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) writer: Writer,
    /// Arguments that cannot be given before the call is complete.
    pub(super) held: String,
    pub(super) google_id: Option<String>,
    pub(super) role: Role,
    pub(super) signed: bool,
}

/// What a call is to the client.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Role {
    /// Not given: only one call was wanted.
    Hidden,
    /// The hidden function that carries the structured answer.
    Answer,
    /// A call.
    Tool { index: usize, id: String, custom: bool },
}

/// Bytes of what an event says to the client: of the text and the calls that the model wrote.
fn said(answer: &GenerateResponse<'_>) -> usize {
    let contents = each(&answer.candidates).filter_map(|candidate| candidate.content.as_ref());
    let parts = contents.flat_map(|content| each(&content.parts));
    let bytes = parts.map(|part| {
        let call = part.function_call.as_ref().and_then(|call| call.args).map_or(0, |args| args.get().len());
        part.text.as_ref().map_or(0, Text::size) + call
    });
    bytes.sum()
}

/// How a choice ended.
#[derive(Debug)]
pub(in crate::translate) struct End {
    pub(in crate::translate) reason: &'static str,
    pub(in crate::translate) refusal: Option<String>,
}

/// The whole conversation with Gemini about one request.
#[derive(Debug)]
pub(in crate::translate) struct Session {
    pub(in crate::translate) shape: Shape,
    pub(in crate::translate) stamp: Stamp,
    pub(in crate::translate) counts: Counts,
    pub(in crate::translate) choices: Vec<Choice>,
    blocked: Option<String>,
}

impl Session {
    pub(in crate::translate) fn new(shape: Shape, stamp: Stamp) -> Self {
        Self { shape, stamp, counts: Counts::default(), choices: Vec::new(), blocked: None }
    }

    /// Reads one event (or one whole answer).
    pub(in crate::translate) fn take(&mut self, event: &[u8], sink: &mut impl Sink) -> Result<()> {
        let text = std::str::from_utf8(event).map_err(unreadable)?;
        let answer = match GenerateResponse::read(text) {
            Ok(answer) => answer,
            Err(_) if text.trim_start().starts_with('[') => return Err(fault::from_event(event)),
            Err(error) => return Err(unreadable(error)),
        };
        if answer.error.is_some() {
            return Err(fault::from_event(event));
        }
        self.counts.said(said(&answer));
        if let Some(usage) = &answer.usage_metadata {
            self.counts.take(usage);
            if let Some(tier) = self.counts.tier() {
                sink.tier(tier);
            }
        }
        if let Some(feedback) = &answer.prompt_feedback {
            self.block(feedback);
        }
        for candidate in each(&answer.candidates) {
            let index = usize::try_from(candidate.index.unwrap_or_default().0).unwrap_or(usize::MAX);
            if index >= MAX_CHOICES {
                return Err(unreadable("a candidate's index is beyond all bounds"));
            }
            if self.choices.len() <= index {
                // Exactly: left to itself, the list of a stream with one choice would have room for four.
                self.choices.reserve_exact(index + 1 - self.choices.len());
                self.choices.resize_with(index + 1, Choice::default);
            }
            if let Some(reason) = &candidate.finish_reason {
                self.counts.ended(&reason.decode());
            }
            if let Some(choice) = self.choices.get_mut(index) {
                choice.take(index, candidate, &self.shape, &self.stamp, sink)?;
            }
        }
        Ok(())
    }

    fn block(&mut self, feedback: &PromptFeedback<'_>) {
        let Some(reason) = &feedback.block_reason else { return };
        let reason = reason.decode();
        if reason.is_empty() || reason.ends_with("UNSPECIFIED") {
            return;
        }
        let message =
            feedback.block_reason_message.as_ref().map(Text::decode).filter(|text| !text.is_empty());
        self.blocked = Some(match message {
            Some(message) => format!("The prompt was blocked ({reason}): {message}"),
            None => format!("The prompt was blocked ({reason})."),
        });
    }

    /// Whether the answer is whole. Called before anything of the end is written.
    pub(in crate::translate) fn check(&self) -> Result<()> {
        let seen = || self.choices.iter().filter(|choice| choice.seen);
        if seen().next().is_none() {
            if self.blocked.is_some() {
                return Ok(());
            }
            return Err(Error::new(Kind::UpstreamBroken, Origin::Upstream, "Google gave no answer.")
                .code("upstream_invalid_response")
                .retry(Retry::Soon));
        }
        if self.blocked.is_none() && seen().any(|choice| choice.finish.is_none()) {
            return Err(Error::new(
                Kind::UpstreamBroken,
                Origin::Upstream,
                "Google broke off before the answer was complete.",
            )
            .code("upstream_disconnected")
            .retry(Retry::Soon));
        }
        if !self.shape.may_be_empty
            && self.blocked.is_none()
            && seen().all(|choice| choice.finish == Some(Finish::Stop) && !choice.visible)
        {
            let message = "The model ended its answer without saying anything.";
            return Err(Error::new(Kind::UpstreamBroken, Origin::Upstream, message)
                .code("upstream_empty_answer")
                .retry(Retry::Soon));
        }
        if seen().all(|choice| choice.finish == Some(Finish::Faulty) && !choice.visible) {
            let first = seen().next();
            let native = first.and_then(|choice| choice.native.as_deref()).unwrap_or_default();
            let said = first.and_then(|choice| choice.native_message.as_deref()).unwrap_or_default();
            let message =
                format!("The model's output could not be used ({native}). {}", fault::mask(said, &[]));
            return Err(Error::new(Kind::UpstreamBroken, Origin::Upstream, message.trim_end().to_owned())
                .code("upstream_malformed_output")
                .retry(Retry::Soon));
        }
        Ok(())
    }

    /// Ends every choice, also those that were asked for and never came.
    pub(in crate::translate) fn close(&mut self, sink: &mut impl Sink) -> Result<Vec<End>> {
        let asked = usize::try_from(self.shape.choices).unwrap_or(1).clamp(1, MAX_CHOICES);
        let mut ends = Vec::new();
        for index in 0..asked.max(self.choices.len()) {
            if self.choices.len() <= index {
                self.choices.push(Choice::default());
            }
            let Some(choice) = self.choices.get_mut(index) else { continue };
            choice.close_call(index, sink)?;
            let called = (choice.calls > 0).then_some(if self.shape.legacy_functions {
                Called::Function
            } else {
                Called::Tool
            });
            let refusal = self.blocked.clone().filter(|_| !choice.visible);
            let reason = match choice.finish {
                _ if self.blocked.is_some() && called.is_none() => "content_filter",
                Some(finish) => finish.openai(called),
                // Google leaves out candidates that it does not want to give.
                None => "content_filter",
            };
            ends.push(End { reason, refusal });
        }
        Ok(ends)
    }
}

impl Choice {
    /// The sources as annotations.
    pub(in crate::translate) fn annotations(&self) -> Vec<crate::openai::completion::Annotation<'_>> {
        // Offsets count within a part. A stream cuts one part into many, so only a whole answer has part starts.
        let parts = if self.events == 1 { self.parts.as_slice() } else { &[] };
        self.sources.annotations(&self.text, parts)
    }

    /// Whether calls were given to the client.
    pub(in crate::translate) fn called(&self) -> bool {
        self.calls > 0
    }

    fn take(
        &mut self,
        index: usize,
        candidate: &Candidate<'_>,
        shape: &Shape,
        stamp: &Stamp,
        sink: &mut impl Sink,
    ) -> Result<()> {
        self.seen = true;
        if let Some(logprobs) = &candidate.logprobs_result {
            let entries = entries(logprobs);
            if !entries.is_empty() {
                sink.logprobs(index, entries)?;
            }
        }
        let mut reader = Reader { choice: self, index, shape, stamp, sink };
        if let Some(content) = &candidate.content {
            reader.choice.events +=
                usize::from(content.parts.as_ref().is_some_and(|parts| !parts.is_empty()));
            for part in each(&content.parts) {
                reader.part(part)?;
            }
        }
        if let Some(grounding) = &candidate.grounding_metadata {
            self.sources.take(grounding);
            sink.grounded(index, grounding);
        }
        if let Some(recited) = &candidate.citation_metadata {
            self.sources.recite(recited);
        }
        if let Some(native) = &candidate.finish_reason
            && let Some(finish) = Finish::read(&native.decode())
            && self.finish.is_none_or(|before| before == Finish::Stop)
        {
            // Some models say STOP in every event; a worse reason is never taken back.
            self.finish = Some(finish);
            self.native = Some(native.decode().into_owned());
        }
        if let Some(message) = candidate.finish_message.as_ref().filter(|message| !message.is_empty()) {
            self.native_message = Some(message.decode().into_owned());
        }
        Ok(())
    }

    /// Gives the arguments of the call that comes in fragments, if one is open.
    pub(super) fn close_call(&mut self, index: usize, sink: &mut impl Sink) -> Result<()> {
        let Some(mut open) = self.open.take() else { return Ok(()) };
        let mut json = open.held;
        open.writer.close(&mut json);
        if !json.is_empty() {
            self.arguments(index, &open.role, &json, None, sink)?;
        }
        if matches!(open.role, Role::Tool { .. }) { sink.called(index) } else { Ok(()) }
    }

    pub(super) fn arguments(
        &mut self,
        choice: usize,
        role: &Role,
        json: &str,
        signature: Option<Text<'_>>,
        sink: &mut impl Sink,
    ) -> Result<()> {
        match role {
            Role::Hidden => Ok(()),
            Role::Answer => {
                self.visible = true;
                self.text.push(json);
                sink.piece(choice, Piece::Text(Text::plain(json)))
            }
            &Role::Tool { index, custom, .. } => {
                let input = if custom { input_of(json) } else { None };
                let text = input.unwrap_or_else(|| Text::plain(json));
                sink.piece(choice, Piece::Arguments { index, custom, text, signature })
            }
        }
    }
}

fn unreadable(cause: impl Into<crate::error::Source>) -> Error {
    Error::new(Kind::UpstreamBroken, Origin::Upstream, "Google's answer could not be read.")
        .code("upstream_invalid_response")
        .retry(Retry::Soon)
        .because(cause)
}
