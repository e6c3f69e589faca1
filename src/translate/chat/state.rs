//! What one answer has said so far, candidate by candidate: the one reading of Gemini's parts that both the
//! whole reply and the stream are written from.

use std::borrow::Cow;
use std::collections::HashSet;

use serde_json::value::RawValue;

use crate::error::{Error, Kind, Origin, Result, Retry};
use crate::gemini::answer::{
    Blob, Candidate, FunctionCall, GenerateResponse, LogprobsResult, Part, PromptFeedback, each,
};
use crate::openai::completion::{Number, TokenLogprob};
use crate::translate::citations::{Characters, Sources};
use crate::translate::counts::Counts;
use crate::translate::finish::{Called, Finish};
use crate::translate::{Stamp, fault};
use crate::wire::Text;

use super::Shape;
use super::partial::{Tree, compact};

/// More candidates than any model gives; a larger index is nonsense and would cost memory.
const MAX_CHOICES: usize = 128;

/// One thing for the client to see.
#[derive(Debug)]
pub(super) enum Piece<'p> {
    /// Visible text.
    Text(Text<'p>),
    /// A summary of thoughts.
    Thought(Text<'p>),
    /// A call begins.
    Call { index: usize, id: &'p str, name: Text<'p>, custom: bool, signature: Option<Text<'p>> },
    /// All arguments of the call that began last.
    Arguments { index: usize, custom: bool, text: Text<'p>, signature: Option<Text<'p>> },
    /// A picture as a `data:` URL.
    Image { index: usize, url: String, signature: Option<Text<'p>> },
    /// A piece of sound; the id comes with the first.
    Audio { id: Option<&'p str>, data: Text<'p> },
}

/// Who shows pieces to the client.
pub(super) trait Sink {
    fn piece(&mut self, choice: usize, piece: Piece<'_>) -> Result<()>;
    fn logprobs(&mut self, choice: usize, logprobs: Vec<TokenLogprob<'_>>) -> Result<()>;
}

/// One candidate.
#[derive(Debug, Default)]
pub(super) struct Choice {
    seen: bool,
    finish: Option<Finish>,
    /// Google's own reason, and its sentence.
    pub(super) native: Option<String>,
    pub(super) native_message: Option<String>,
    /// The last signature that belonged to text.
    pub(super) signature: Option<String>,
    sources: Sources,
    text: Characters,
    parts: Vec<usize>,
    events: usize,
    visible: bool,
    calls: usize,
    ids: HashSet<String>,
    open: Option<Open>,
    images: usize,
    audio: Option<String>,
}

/// A call that comes in fragments.
#[derive(Debug)]
struct Open {
    tree: Tree,
    google_id: Option<String>,
    role: Role,
    signed: bool,
}

/// What a call is to the client.
#[derive(Clone, Debug, PartialEq)]
enum Role {
    /// Not given: only one call was wanted.
    Hidden,
    /// The hidden function that carries the structured answer.
    Answer,
    /// A call.
    Tool { index: usize, id: String, custom: bool },
}

/// How a choice ended.
#[derive(Debug)]
pub(super) struct End {
    pub(super) reason: &'static str,
    pub(super) refusal: Option<String>,
}

/// The whole conversation with Gemini about one request.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) shape: Shape,
    pub(super) stamp: Stamp,
    pub(super) counts: Counts,
    pub(super) choices: Vec<Choice>,
    blocked: Option<String>,
    /// The id of an answer that ended with `CONTINUATION`.
    hop: Option<String>,
}

impl Session {
    pub(super) fn new(shape: Shape, stamp: Stamp) -> Self {
        Self { shape, stamp, counts: Counts::default(), choices: Vec::new(), blocked: None, hop: None }
    }

    /// Reads one event (or one whole answer).
    pub(super) fn take(&mut self, event: &[u8], sink: &mut impl Sink) -> Result<()> {
        let text = std::str::from_utf8(event).map_err(unreadable)?;
        let answer: GenerateResponse<'_> = match serde_json::from_str(text) {
            Ok(answer) => answer,
            Err(_) if text.trim_start().starts_with('[') => return Err(fault::from_event(event)),
            Err(error) => return Err(unreadable(error)),
        };
        if answer.error.is_some() {
            return Err(fault::from_event(event));
        }
        let id = answer.response_id.as_ref().map(Text::decode);
        if let Some(id) = &id
            && self.hop.as_ref().is_some_and(|before| before != id)
        {
            self.counts.next_hop();
            self.hop = None;
        }
        if let Some(usage) = &answer.usage_metadata {
            self.counts.take(usage);
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
                self.choices.resize_with(index + 1, Choice::default);
            }
            if let Some(choice) = self.choices.get_mut(index) {
                choice.take(index, candidate, &self.shape, &self.stamp, sink)?;
                if choice.continues() {
                    self.hop = id.as_deref().map(str::to_owned);
                }
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
    pub(super) fn check(&self) -> Result<()> {
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
    pub(super) fn close(&mut self, sink: &mut impl Sink) -> Result<Vec<End>> {
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
    pub(super) fn annotations(&self) -> Vec<crate::openai::completion::Annotation<'_>> {
        // Offsets count within a part. A stream cuts one part into many, so only a whole answer has part starts.
        let parts = if self.events == 1 { self.parts.as_slice() } else { &[] };
        self.sources.annotations(&self.text, parts)
    }

    fn continues(&self) -> bool {
        self.native.as_deref() == Some("CONTINUATION")
    }

    /// Whether calls were given to the client.
    pub(super) fn called(&self) -> bool {
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
        }
        if let Some(native) = &candidate.finish_reason
            && let Some(finish) = Finish::read(&native.decode())
            && (self.finish.is_none_or(|before| before == Finish::Stop) || self.continues())
        {
            // Some models say STOP in every event; a worse reason is never taken back, but a continued answer
            // ends anew.
            self.finish = Some(finish);
            self.native = Some(native.decode().into_owned());
        }
        if let Some(message) = candidate.finish_message.as_ref().filter(|message| !message.is_empty()) {
            self.native_message = Some(message.decode().into_owned());
        }
        Ok(())
    }

    /// Gives the arguments of the call that comes in fragments, if one is open.
    fn close_call(&mut self, index: usize, sink: &mut impl Sink) -> Result<()> {
        let Some(open) = self.open.take() else { return Ok(()) };
        self.arguments(index, &open.role, &open.tree.to_json(), None, sink)
    }

    fn arguments(
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

/// One candidate being read.
struct Reader<'r, S> {
    choice: &'r mut Choice,
    index: usize,
    shape: &'r Shape,
    stamp: &'r Stamp,
    sink: &'r mut S,
}

impl<S: Sink> Reader<'_, S> {
    fn part(&mut self, part: &Part<'_>) -> Result<()> {
        let thought = part.thought == Some(true);
        if self.choice.events == 1 {
            self.choice.parts.push(self.choice.text.bytes());
        }
        if let Some(text) = part.text.as_ref().filter(|text| !text.is_empty()) {
            if !thought {
                self.text(text.clone())?;
            } else if self.shape.thoughts {
                self.sink.piece(self.index, Piece::Thought(text.clone()))?;
            }
        }
        let signature = part.thought_signature.as_ref().filter(|signature| !signature.is_empty());
        if let Some(call) = &part.function_call {
            self.call(call, signature)?;
        } else if let Some(blob) = &part.inline_data {
            if !thought {
                self.blob(blob, signature)?;
            }
        } else if let Some(signature) = signature
            && part.tool_call.is_none()
        {
            self.late(signature)?;
        }
        if let Some(code) = &part.executable_code {
            let language =
                code.language.as_ref().map(|l| l.decode().to_ascii_lowercase()).unwrap_or_default();
            let language = if language.starts_with("language_") { String::new() } else { language };
            let code = code.code.as_ref().map(Text::decode).unwrap_or_default();
            self.fenced(&language, &code)?;
        }
        if let Some(result) = &part.code_execution_result {
            self.fenced("", &result.output.as_ref().map(Text::decode).unwrap_or_default())?;
        }
        if let Some(uri) =
            part.file_data.as_ref().and_then(|file| file.file_uri.as_ref()).filter(|_| !thought)
        {
            self.text(Text::plain(format!("[file]({})", uri.decode())))?;
        }
        Ok(())
    }

    fn text(&mut self, text: Text<'_>) -> Result<()> {
        self.choice.visible = true;
        self.choice.text.push(&text.decode());
        self.sink.piece(self.index, Piece::Text(text))
    }

    fn fenced(&mut self, language: &str, body: &str) -> Result<()> {
        // The fence must be longer than any run of backticks inside.
        let run = body.split(|c| c != '`').map(str::len).max().unwrap_or(0);
        let fence = "`".repeat((run + 1).max(3));
        let end = if body.ends_with('\n') { "" } else { "\n" };
        self.text(Text::plain(format!("\n{fence}{language}\n{body}{end}{fence}\n")))
    }

    /// A signature without content: it belongs to the call still open, or to the text.
    fn late(&mut self, signature: &Text<'_>) -> Result<()> {
        if self.choice.open.is_some() {
            return self.sign_open(signature);
        }
        self.choice.signature = Some(signature.decode().into_owned());
        Ok(())
    }

    fn sign_open(&mut self, signature: &Text<'_>) -> Result<()> {
        let Some(open) = self.choice.open.as_mut().filter(|open| !open.signed) else { return Ok(()) };
        open.signed = true;
        let Role::Tool { index, id, custom } = &open.role else { return Ok(()) };
        self.stamp.signatures.remember(id, &signature.decode());
        let piece = Piece::Arguments {
            index: *index,
            custom: *custom,
            text: Text::plain(""),
            signature: Some(signature.clone()),
        };
        self.sink.piece(self.index, piece)
    }

    fn call(&mut self, call: &FunctionCall<'_>, signature: Option<&Text<'_>>) -> Result<()> {
        let name = call.name.as_ref().filter(|name| !name.is_empty());
        let google_id = call.id.as_ref().filter(|id| !id.is_empty()).map(Text::decode);
        let more = call.will_continue == Some(true);
        let continues = self.choice.open.as_ref().is_some_and(|open| {
            name.is_none() || (google_id.is_some() && open.google_id.as_deref() == google_id.as_deref())
        });
        if !continues {
            self.choice.close_call(self.index, self.sink)?;
            if name.is_none() && call.args.is_none() && google_id.is_none() {
                // The closing mark of a call that is closed already.
                return Ok(());
            }
            let signed = signature.is_some();
            let role = self.begin(name, google_id.as_deref(), signature)?;
            if !more && call.partial_args.is_none() {
                let json = call.args.map_or(Cow::Borrowed("{}"), |args| compact(args.get()));
                return self.choice.arguments(self.index, &role, &json, None, self.sink);
            }
            let google_id = google_id.map(Cow::into_owned);
            self.choice.open = Some(Open { tree: Tree::default(), google_id, role, signed });
        } else if let Some(signature) = signature {
            self.sign_open(signature)?;
        }
        if let Some(open) = &mut self.choice.open {
            if let Some(args) = call.args.filter(|args| args.get().len() > 2) {
                open.tree.replace(args.get());
            }
            for fragment in each(&call.partial_args) {
                open.tree.apply(fragment);
            }
        }
        if more { Ok(()) } else { self.choice.close_call(self.index, self.sink) }
    }

    /// Tells the client that a call begins.
    fn begin(
        &mut self,
        name: Option<&Text<'_>>,
        google_id: Option<&str>,
        signature: Option<&Text<'_>>,
    ) -> Result<Role> {
        let google_name = name.map_or(Cow::Borrowed("unnamed"), Text::decode);
        if self.shape.answer_function.as_deref() == Some(&*google_name) {
            return Ok(Role::Answer);
        }
        if (self.shape.single_call || self.shape.legacy_functions) && self.choice.calls > 0 {
            return Ok(Role::Hidden);
        }
        let id = match google_id {
            Some(id) if !self.choice.ids.contains(id) => id.to_owned(),
            _ => self.stamp.ids.mint("call_"),
        };
        self.choice.ids.insert(id.clone());
        let client_name = self.shape.names.get(&*google_name).map(String::as_str);
        let custom = !self.shape.legacy_functions
            && self.shape.custom.iter().any(|custom| custom == client_name.unwrap_or(&google_name));
        let shown = match (client_name, name) {
            (Some(name), _) => Text::plain(name),
            (None, Some(name)) => name.clone(),
            (None, None) => Text::plain("unnamed"),
        };
        if let Some(signature) = signature {
            self.stamp.signatures.remember(&id, &signature.decode());
        }
        let index = self.choice.calls;
        self.choice.calls += 1;
        self.choice.visible = true;
        let piece = Piece::Call { index, id: &id, name: shown, custom, signature: signature.cloned() };
        self.sink.piece(self.index, piece)?;
        Ok(Role::Tool { index, id, custom })
    }

    fn blob(&mut self, blob: &Blob<'_>, signature: Option<&Text<'_>>) -> Result<()> {
        let Some(data) = blob.data.as_ref().filter(|data| !data.is_empty()) else { return Ok(()) };
        let mime = blob.mime_type.as_ref().map(Text::decode).unwrap_or_default();
        self.choice.visible = true;
        if mime.starts_with("audio/") {
            let id = if self.choice.audio.is_none() {
                Some(&*self.choice.audio.insert(self.stamp.ids.mint("audio_")))
            } else {
                None
            };
            return self
                .sink
                .piece(self.index, Piece::Audio { id: id.map(String::as_str), data: data.clone() });
        }
        let url = format!("data:{mime};base64,{}", data.decode());
        if !mime.starts_with("image/") {
            return self.text(Text::plain(format!("[file]({url})")));
        }
        let index = self.choice.images;
        self.choice.images += 1;
        self.sink.piece(self.index, Piece::Image { index, url, signature: signature.cloned() })
    }
}

/// A custom tool's input: the one string of its wrapping function.
fn input_of(json: &str) -> Option<Text<'_>> {
    #[derive(serde::Deserialize)]
    struct Wrapped<'a> {
        #[serde(borrow)]
        input: &'a RawValue,
    }
    let wrapped: Wrapped<'_> = serde_json::from_str(json).ok()?;
    if wrapped.input.get().starts_with('"') { Text::from_raw(wrapped.input).ok() } else { None }
}

fn entries<'a>(result: &LogprobsResult<'a>) -> Vec<TokenLogprob<'a>> {
    let token = |candidate: &crate::gemini::answer::LogprobsCandidate<'a>, top| {
        let token = candidate.token.clone().unwrap_or(Text::plain(""));
        let bytes = token.decode().bytes().map(u16::from).collect();
        TokenLogprob { token, logprob: Number(candidate.log_probability), bytes, top_logprobs: top }
    };
    let tops = result.top_candidates.as_deref().unwrap_or_default();
    each(&result.chosen_candidates)
        .enumerate()
        .map(|(step, chosen)| {
            let top = tops.get(step).and_then(Option::as_ref);
            let top = top.map(|top| each(&top.candidates).map(|other| token(other, None)).collect());
            token(chosen, Some(top.unwrap_or_default()))
        })
        .collect()
}

fn unreadable(cause: impl Into<crate::error::Source>) -> Error {
    Error::new(Kind::UpstreamBroken, Origin::Upstream, "Google's answer could not be read.")
        .code("upstream_invalid_response")
        .retry(Retry::Soon)
        .because(cause)
}
