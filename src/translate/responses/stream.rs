//! Gemini's answer → a response, as events or whole.

use bytes::{Bytes, BytesMut};
use serde_json::value::RawValue;

use super::desk::{Desk, Ending, Failed, Opened, Pen, Standing};
use super::hosted::Code;
use super::items::{Call, Citation, Message, Reasoning};
use super::marks::{self, CodeMark, Mark, TextMark};
use super::{Done, Finished, Shape, Status, Tool};
use crate::error::Result;
use crate::gemini::answer::{GroundingMetadata, each};
use crate::openai::completion::TokenLogprob;
use crate::translate::chat::state::{Choice, Hosted, Piece, Session, Sink};
use crate::translate::{Failure, Machine, Stamp};
use crate::usage::Usage;
use crate::wire::Text;

/// Sources of one search that are told.
const MOST_SOURCES: usize = 256;

/// One response's translator.
pub struct ResponsesMachine {
    session: Session,
    desk: Desk,
    state: State,
    shape: Shape,
    done: Option<Done>,
    ended: bool,
}

impl std::fmt::Debug for ResponsesMachine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ResponsesMachine").field("state", &self.state).finish_non_exhaustive()
    }
}

/// What is open, and what has been learnt for later.
#[derive(Debug, Default)]
struct State {
    begun: bool,
    open: Open,
    /// A call whose arguments have not come yet; words may come before them.
    call: Option<Opened<Call>>,
    /// Parts of Google's tools that wait for an item to carry them.
    waiting: Vec<Mark>,
    /// Characters of all messages so far.
    characters: usize,
    /// The message that was closed last, if nothing of it was signed.
    last_message: Option<String>,
    searched: bool,
    queries: Vec<String>,
    sources: Vec<String>,
    /// Probabilities of the words that come next.
    logprobs: Vec<Box<RawValue>>,
    marks: Vec<Mark>,
    /// What stood on the parts of the code that is open.
    code: CodeMark,
    /// The last signature that no part of text came with, while no message was open.
    floating: Option<String>,
}

#[derive(Debug, Default)]
enum Open {
    #[default]
    Nothing,
    Message(Opened<Message>),
    Reasoning(Opened<Reasoning>),
    Code(Opened<Code>),
}

impl ResponsesMachine {
    /// A translator for one stream.
    pub fn new(shape: Shape, stamp: Stamp) -> Self {
        Self {
            desk: Desk::new(stamp.clone(), &shape),
            session: Session::new(shape.reading.clone(), stamp),
            state: State::default(),
            shape,
            done: None,
            ended: false,
        }
    }

    /// Tells `done` how the response ended.
    #[must_use]
    pub fn telling(mut self, done: Option<Done>) -> Self {
        self.done = done;
        self
    }

    /// The response as it is while it is made.
    ///
    /// # Errors
    /// `Internal` only.
    pub fn standing(&self) -> Result<String> {
        let standing = Standing { status: "in_progress", ..Standing::default() };
        Ok(String::from(Box::<str>::from(self.desk.response(&standing)?)))
    }

    /// Begins the response, if nothing has begun it yet: before Google has said anything.
    ///
    /// # Errors
    /// `Internal` only.
    pub fn begin(&mut self, out: &mut BytesMut) -> Result<()> {
        self.writer(out).begin()
    }

    fn writer<'w>(&'w mut self, out: &'w mut BytesMut) -> Writer<'w> {
        let pen = Pen { desk: &mut self.desk, out };
        Writer { pen, state: &mut self.state, shape: &self.shape }
    }

    /// Ends the response: the last event, and the word to whoever keeps it.
    fn end(&mut self, status: Status, standing: &Standing<'_>, out: &mut BytesMut) -> Result<Box<RawValue>> {
        self.ended = true;
        let response = self.desk.response(standing)?;
        let kind = match status {
            Status::Completed => "response.completed",
            Status::Incomplete => "response.incomplete",
            Status::Failed | Status::Gone => "response.failed",
        };
        Pen { desk: &mut self.desk, out }.lifecycle(kind, &response)?;
        if let Some(done) = self.done.take() {
            done(Finished {
                id: self.session.stamp.id.clone(),
                status,
                response: Bytes::copy_from_slice(response.get().as_bytes()),
                marks: marks::kept(&self.state.marks),
            });
        }
        Ok(response)
    }

    fn complete(&mut self, out: &mut BytesMut) -> Result<(Status, Box<RawValue>, Usage)> {
        self.session.check()?;
        let pen = Pen { desk: &mut self.desk, out };
        let mut writer = Writer { pen, state: &mut self.state, shape: &self.shape };
        let end = self.session.close(&mut writer)?.into_iter().next();
        writer.begin()?;
        let (reason, refusal) = end.map_or(("stop", None), |end| (end.reason, end.refusal));
        let (status, incomplete) = match reason {
            "length" => (Status::Incomplete, Some("max_output_tokens")),
            "content_filter" => (Status::Incomplete, Some("content_filter")),
            _ => (Status::Completed, None),
        };
        let ending = if incomplete.is_some() { Ending::Incomplete } else { Ending::Completed };
        let choice = self.session.choices.first();
        let annotations = choice.map(Choice::annotations).unwrap_or_default();
        writer.sign_last();
        writer.close(ending, &annotations)?;
        writer.search_told()?;
        if let Some(refusal) = &refusal {
            writer.pen.refuse(refusal)?;
        }
        let usage = self.session.counts.usage();
        if self.desk.quiet {
            self.desk.searches_first();
        }
        let standing = Standing { status: status.as_str(), incomplete, error: None, usage: Some(usage) };
        Ok((status, self.end(status, &standing, out)?, usage))
    }
}

/// A response that was made whole.
#[derive(Debug)]
pub struct Whole {
    /// The response object, and what is kept of it.
    pub finished: Finished,
    /// The counts.
    pub usage: Usage,
}

/// Builds the response from one whole answer, or from all events of a stream.
///
/// # Errors
/// When Google answered with an error, with nothing, or broke off.
pub fn reply(shape: &Shape, stamp: &Stamp, answers: &[Bytes]) -> Result<Whole> {
    let mut machine = ResponsesMachine::new(shape.clone(), stamp.clone());
    machine.desk.quiet = true;
    let mut nowhere = BytesMut::new();
    for answer in answers {
        machine.push(answer, &mut nowhere)?;
    }
    let (status, response, usage) = machine.complete(&mut nowhere)?;
    let finished = Finished {
        id: stamp.id.clone(),
        status,
        response: Bytes::from(String::from(Box::<str>::from(response))),
        marks: marks::kept(&machine.state.marks),
    };
    Ok(Whole { finished, usage })
}

impl Machine for ResponsesMachine {
    fn push(&mut self, event: &[u8], out: &mut BytesMut) -> Result<()> {
        let pen = Pen { desk: &mut self.desk, out };
        let mut writer = Writer { pen, state: &mut self.state, shape: &self.shape };
        self.session.take(event, &mut writer)?;
        // An answer that may still turn out to be nothing at all begins with its first word.
        if self.session.choices.iter().any(|choice| choice.native.is_none()) {
            writer.begin()?;
        }
        Ok(())
    }

    fn usage(&self) -> Usage {
        self.session.counts.usage()
    }

    fn uncounted(&self) -> u64 {
        self.session.counts.uncounted()
    }

    fn finish(&mut self, out: &mut BytesMut) -> Result<Usage> {
        if self.ended {
            return Ok(self.usage());
        }
        self.complete(out).map(|(_, _, usage)| usage)
    }

    /// Some clients count real events only. Before the first one of a response there is none to say it with; and
    /// while an item is open the object in the event would lack it, which SDKs take for the whole state.
    fn alive(&mut self, out: &mut BytesMut) -> bool {
        if !self.state.begun || self.ended || self.desk.quiet || !self.desk.is_level() {
            return false;
        }
        let before = out.len();
        let standing = Standing { status: "in_progress", ..Standing::default() };
        let response = self.desk.response(&standing);
        let told =
            response.and_then(|response| self.writer(out).pen.lifecycle("response.in_progress", &response));
        if told.is_err() {
            out.truncate(before);
        }
        told.is_ok()
    }

    fn fail(&mut self, failure: &Failure<'_>, out: &mut BytesMut) -> bool {
        if self.ended {
            return true;
        }
        let usage = self.session.counts.known().then(|| self.session.counts.usage());
        let before = out.len();
        let mut run = || -> Result<()> {
            let mut writer = self.writer(out);
            writer.begin()?;
            writer.close(Ending::Incomplete, &[])?;
            let error = Failed {
                code: code(failure),
                message: failure.message,
                kind: failure.kind,
                param: failure.param,
            };
            let standing = Standing { status: "failed", incomplete: None, error: Some(error), usage };
            self.end(Status::Failed, &standing, out).map(|_| ())
        };
        if run().is_err() {
            out.truncate(before);
            return false;
        }
        true
    }
}

/// The client's word for what went wrong: one that it knows, for its type is closed.
fn code(failure: &Failure<'_>) -> &'static str {
    match failure.code.unwrap_or_default() {
        "rate_limit_exceeded" => "rate_limit_exceeded",
        // These two are not in the SDKs' list, but Codex stops on them instead of trying again in vain.
        "insufficient_quota" => "insufficient_quota",
        "context_length_exceeded" => "context_length_exceeded",
        "content_policy_violation" => "invalid_prompt",
        _ if failure.kind == "invalid_request_error" => "invalid_prompt",
        _ => "server_error",
    }
}

impl Drop for ResponsesMachine {
    fn drop(&mut self) {
        // Of a response that has not begun, nobody knows.
        if self.done.is_none() || !self.state.begun {
            return;
        }
        // Nobody reads any more; what there was is kept.
        self.desk.quiet = true;
        let mut nowhere = BytesMut::new();
        let usage = self.session.counts.known().then(|| self.session.counts.usage());
        let standing = Standing { status: Status::Gone.as_str(), incomplete: None, error: None, usage };
        let closed = self.writer(&mut nowhere).close(Ending::Incomplete, &[]);
        // Without the object there is nothing to keep.
        let _ = closed.and_then(|()| self.end(Status::Gone, &standing, &mut nowhere));
    }
}

struct Writer<'w> {
    pen: Pen<'w>,
    state: &'w mut State,
    shape: &'w Shape,
}

impl Writer<'_> {
    fn begin(&mut self) -> Result<()> {
        if std::mem::replace(&mut self.state.begun, true) || self.pen.desk.quiet {
            return Ok(());
        }
        let standing = |status| Standing { status, ..Standing::default() };
        if self.shape.background {
            let queued = self.pen.desk.response(&standing("queued"))?;
            self.pen.lifecycle("response.created", &queued)?;
            self.pen.lifecycle("response.queued", &queued)?;
        }
        let response = self.pen.desk.response(&standing("in_progress"))?;
        if !self.shape.background {
            self.pen.lifecycle("response.created", &response)?;
        }
        self.pen.lifecycle("response.in_progress", &response)
    }

    /// Closes whatever is open.
    fn close(
        &mut self,
        ending: Ending,
        annotations: &[crate::openai::completion::Annotation<'_>],
    ) -> Result<()> {
        if let Some(call) = self.state.call.take() {
            self.pen.close_call(call, Ending::Incomplete)?;
        }
        let carried = std::mem::take(&mut self.state.waiting);
        self.shut(ending, annotations, &carried)
    }

    /// Closes the open item, with what must come back before the next.
    fn shut(
        &mut self,
        ending: Ending,
        annotations: &[crate::openai::completion::Annotation<'_>],
        carried: &[Mark],
    ) -> Result<()> {
        match std::mem::take(&mut self.state.open) {
            Open::Reasoning(open) => return self.pen.close_reasoning(open, carried, ending),
            Open::Nothing => {}
            Open::Message(mut open) => {
                let start = open.item.start;
                let end = start + open.item.characters;
                let citations: Vec<Citation<'_>> = annotations
                    .iter()
                    .map(|annotation| &annotation.url_citation)
                    // Those of words that have left in an earlier message come too late.
                    .filter(|cited| cited.start_index >= start && cited.start_index <= end)
                    .map(|cited| Citation {
                        kind: "url_citation",
                        start_index: cited.start_index - start,
                        end_index: cited.end_index.min(end) - start,
                        title: &cited.title,
                        url: &cited.url,
                    })
                    .collect();
                let (characters, signed) = (open.item.characters, std::mem::take(&mut open.item.signed));
                let id = self.pen.close_message(open, &citations, ending)?;
                self.state.last_message = signed.is_empty().then(|| id.clone());
                for mark in signed {
                    let to = mark.to.filter(|end| *end < characters);
                    self.signed_text(TextMark { id: Some(id.clone()), to, ..mark });
                }
            }
            Open::Code(open) => {
                let status = if ending == Ending::Completed { "completed" } else { "incomplete" };
                self.close_code(open, None, status)?;
            }
        }
        // What was just closed comes first.
        let mut all = self.carried();
        all.extend_from_slice(carried);
        if all.is_empty() {
            return Ok(());
        }
        let open = self.pen.reasoning()?;
        self.pen.close_reasoning(open, &all, Ending::Completed)
    }

    fn close_code(&mut self, open: Opened<Code>, printed: Option<&str>, status: &'static str) -> Result<()> {
        let mark = CodeMark { id: open.id.clone(), ..std::mem::take(&mut self.state.code) };
        if mark.tells() {
            let mark = Mark::Code(mark);
            if self.shape.encrypted {
                self.state.waiting.push(mark.clone());
            }
            self.state.marks.push(mark);
        }
        self.pen.close_code(open, printed, status)
    }

    /// What must come back with the next item.
    fn carried(&mut self) -> Vec<Mark> {
        std::mem::take(&mut self.state.waiting)
    }

    /// Makes room for another item.
    fn next(&mut self, more: Option<Mark>) -> Result<()> {
        let mut carried = self.carried();
        carried.extend(more);
        self.shut(Ending::Completed, &[], &carried)
    }

    fn search_told(&mut self) -> Result<()> {
        if self.state.searched || (self.state.queries.is_empty() && self.state.sources.is_empty()) {
            return Ok(());
        }
        self.state.searched = true;
        let sources = self.shape.sources.then_some(self.state.sources.as_slice());
        self.pen.search(&self.state.queries, sources)
    }

    /// A signature that came alone, behind the last words: theirs, if nobody signed them.
    fn sign_last(&mut self) {
        let (Some(signature), Some(id)) = (self.state.floating.take(), self.state.last_message.take()) else {
            return;
        };
        self.signed_text(TextMark { id: Some(id), signature, ..TextMark::default() });
    }

    /// Keeps the signature of a text: for those who send the message back, and for those who asked for that, in
    /// what the client carries.
    fn signed_text(&mut self, mark: TextMark) {
        if let Some(id) = &mark.id {
            self.pen.desk.stamp.signatures.remember(id, &mark.signature);
        }
        let mark = Mark::Text(mark);
        if self.shape.encrypted {
            self.state.waiting.push(mark.clone());
        }
        self.state.marks.push(mark);
    }

    fn text(&mut self, text: &Text<'_>) -> Result<()> {
        if !matches!(self.state.open, Open::Message(_)) {
            self.next(None)?;
            let open = self.pen.message(self.state.characters)?;
            self.state.open = Open::Message(open);
        }
        let Open::Message(open) = &mut self.state.open else { return Ok(()) };
        let before = open.item.characters;
        let entries = std::mem::take(&mut self.state.logprobs);
        self.pen.say(open, text, &entries)?;
        self.state.characters += open.item.characters - before;
        Ok(())
    }

    fn thought(&mut self, text: &Text<'_>) -> Result<()> {
        if !matches!(self.state.open, Open::Reasoning(_)) {
            self.next(None)?;
            self.state.open = Open::Reasoning(self.pen.reasoning()?);
        }
        let Open::Reasoning(open) = &mut self.state.open else { return Ok(()) };
        self.pen.think(open, text)
    }

    fn signed(&mut self, id: &str, signature: &Text<'_>) -> Mark {
        let signature = signature.decode().into_owned();
        let mark = Mark::Call { id: id.to_owned(), signature };
        self.state.marks.push(mark.clone());
        mark
    }

    fn arguments(&mut self, text: &Text<'_>, signature: Option<&Text<'_>>) -> Result<()> {
        let Some(call) = &mut self.state.call else { return Ok(()) };
        if let Some(signature) = signature {
            call.item.late = Some(signature.decode().into_owned());
        }
        self.pen.argue(call, text)
    }

    fn call_done(&mut self) -> Result<()> {
        let Some(mut call) = self.state.call.take() else { return Ok(()) };
        let late = call.item.late.take();
        let id = self.pen.close_call(call, Ending::Completed)?;
        let Some(late) = late else { return Ok(()) };
        let mark = self.signed(&id, &Text::plain(late));
        self.next(Some(mark))
    }

    fn picture(&mut self, url: &str, signature: Option<&Text<'_>>) -> Result<()> {
        let head = url.strip_prefix("data:").and_then(|rest| rest.split_once(";base64,"));
        let (mime, data) = head.unwrap_or(("image/png", ""));
        let id = self.pen.desk.mint("ig_");
        let mark = signature.map(|signature| self.signed(&id, signature));
        self.next(mark)?;
        self.pen.picture(id, mime, data, self.shape.picture.as_ref())
    }

    fn echo(
        &mut self,
        call: Option<&RawValue>,
        result: Option<&RawValue>,
        signature: Option<&Text<'_>>,
    ) -> Result<()> {
        let text = |raw: Option<&RawValue>| raw.map(|raw| raw.get().to_owned());
        let mut signature = signature.map(|signature| signature.decode().into_owned());
        if let Some(call) = call {
            self.search_called(call)?;
            self.state.waiting.push(Mark::Echo {
                call: text(Some(call)),
                result: None,
                signature: signature.take(),
            });
        }
        if let Some(result) = result {
            self.state.waiting.push(Mark::Echo { call: None, result: text(Some(result)), signature });
        }
        Ok(())
    }

    /// A search that is told when it is made, and not only by its sources.
    fn search_called(&mut self, call: &RawValue) -> Result<()> {
        #[derive(serde::Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Called {
            #[serde(default)]
            tool_type: String,
            #[serde(default)]
            args: Args,
        }
        #[derive(Default, serde::Deserialize)]
        struct Args {
            #[serde(default)]
            queries: Vec<String>,
            #[serde(default)]
            query: Option<String>,
        }
        // What cannot be read is carried all the same.
        let Ok(called) = serde_json::from_str::<Called>(call.get()) else { return Ok(()) };
        if !called.tool_type.contains("SEARCH") {
            return Ok(());
        }
        let mut queries = called.args.queries;
        queries.extend(called.args.query);
        self.next(None)?;
        self.state.searched = true;
        self.pen.search(&queries, None)
    }
}

impl Sink for Writer<'_> {
    fn piece(&mut self, _: usize, piece: Piece<'_>) -> Result<()> {
        self.begin()?;
        match piece {
            Piece::Text(text) => self.text(&text),
            Piece::Thought(text) => self.thought(&text),
            Piece::Call { id, name, signature, .. } => {
                let mark = signature.as_ref().map(|signature| self.signed(id, signature));
                self.next(mark)?;
                let name = name.decode();
                let tool = self.shape.tools.get(&*name).cloned();
                let tool =
                    tool.unwrap_or_else(|| Tool::Function { name: name.into_owned(), namespace: None });
                self.state.call = Some(self.pen.call(id.to_owned(), tool)?);
                Ok(())
            }
            Piece::Arguments { text, signature, .. } => self.arguments(&text, signature.as_ref()),
            Piece::Image { url, signature, .. } => self.picture(&url, signature.as_ref()),
            // No request of this front asks for sound; what comes unasked is still not lost.
            Piece::Audio { data, .. } => {
                let text = format!("[audio](data:audio/L16;base64,{})", data.decode());
                self.text(&Text::plain(text))
            }
        }
    }

    fn logprobs(&mut self, _: usize, logprobs: Vec<TokenLogprob<'_>>) -> Result<()> {
        for entry in &logprobs {
            let entry = serde_json::value::to_raw_value(entry).map_err(crate::error::Error::internal)?;
            self.state.logprobs.push(entry);
        }
        Ok(())
    }

    fn tier(&mut self, tier: &'static str) {
        self.pen.desk.tier = Some(tier);
    }

    fn signed(&mut self, _: usize, signature: &Text<'_>, characters: usize) -> Result<()> {
        let signature = signature.decode().into_owned();
        match &mut self.state.open {
            Open::Message(open) => {
                let (end, signed) = (open.item.characters, &mut open.item.signed);
                let before = signed.last().and_then(|last| last.to).unwrap_or_default();
                // A part of nothing but a signature signs the words before it.
                let from = if characters == 0 { before } else { end.saturating_sub(characters) };
                if from < end {
                    signed.push(TextMark { id: None, from, to: Some(end), signature });
                }
            }
            Open::Nothing | Open::Reasoning(_) | Open::Code(_) => self.state.floating = Some(signature),
        }
        Ok(())
    }

    fn called(&mut self, _: usize) -> Result<()> {
        self.call_done()
    }

    fn hosted(&mut self, _: usize, hosted: Hosted<'_, '_>) -> Result<bool> {
        self.begin()?;
        match hosted {
            Hosted::Code(code, signature) => {
                self.next(None)?;
                let own = |text: Option<&Text<'_>>| text.map(|text| text.decode().into_owned());
                self.state.code =
                    CodeMark { code_id: own(code.id.as_ref()), code: own(signature), ..CodeMark::default() };
                let code = code.code.as_ref().map(Text::decode).unwrap_or_default();
                self.state.open = Open::Code(self.pen.code(&code)?);
            }
            Hosted::Printed(result, signature) => {
                let open = match std::mem::take(&mut self.state.open) {
                    Open::Code(open) => open,
                    other @ (Open::Nothing | Open::Message(_) | Open::Reasoning(_)) => {
                        self.state.open = other;
                        self.next(None)?;
                        self.pen.code("")?
                    }
                };
                let printed = result.output.as_ref().map(Text::decode).unwrap_or_default();
                let outcome = result.outcome.as_ref().map(Text::decode).unwrap_or_default();
                let own = |text: Option<&Text<'_>>| text.map(|text| text.decode().into_owned());
                self.state.code.result_id = own(result.id.as_ref());
                self.state.code.result = own(signature);
                self.state.code.late = outcome == "OUTCOME_DEADLINE_EXCEEDED";
                let fine = outcome.is_empty() || outcome == "OUTCOME_OK";
                self.close_code(open, Some(&printed), if fine { "completed" } else { "failed" })?;
            }
            Hosted::Echo { call, result, signature } => self.echo(call, result, signature)?,
        }
        Ok(true)
    }

    fn grounded(&mut self, _: usize, said: &GroundingMetadata<'_>) {
        let known = &mut self.state.queries;
        for query in each(&said.web_search_queries) {
            let query = query.decode();
            if known.len() < MOST_SOURCES && !known.iter().any(|known| *known == query) {
                known.push(query.into_owned());
            }
        }
        for page in each(&said.grounding_chunks).filter_map(|chunk| chunk.web.as_ref()?.uri.as_ref()) {
            let page = page.decode();
            let known = &mut self.state.sources;
            if known.len() < MOST_SOURCES && !known.iter().any(|known| *known == page) {
                known.push(page.into_owned());
            }
        }
    }
}
