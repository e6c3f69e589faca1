//! Writing a response: its events, its items, and the response itself.
//!
//! Every item is opened by one function, which gives an [`Opened`], and closed by one that takes it: what is
//! done without having been added, added twice or closed twice cannot be written. Events are numbered in one
//! place.

use bytes::{Bytes, BytesMut};
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::marks::{self, Mark};
use super::{Picture, Tool, calls};
use crate::error::{Error, Result};
use crate::openai::completion::Token;
use crate::translate::Stamp;
use crate::usage::Usage;
use crate::wire::{self, Text};

/// An item that was added and not yet closed.
#[must_use]
#[derive(Debug)]
pub(super) struct Opened<I> {
    pub(super) id: String,
    index: usize,
    pub(super) item: I,
}

/// How an item ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    Completed,
    Incomplete,
}

impl Ending {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Incomplete => "incomplete",
        }
    }
}

/// The model's words.
#[derive(Debug, Default)]
pub(super) struct Message {
    text: Token,
    /// Characters of all messages before this one.
    pub(super) start: usize,
    pub(super) characters: usize,
    logprobs: BytesMut,
}

/// A summary of thoughts, and what must come back.
#[derive(Debug, Default)]
pub(super) struct Reasoning {
    summary: Option<Token>,
}

/// A call that the client answers.
#[derive(Debug)]
pub(super) struct Call {
    id: String,
    tool: Tool,
    arguments: Token,
    /// The same to be read, where the client wants something else than the text.
    text: String,
    /// A signature that came late.
    pub(super) late: Option<String>,
}

/// Code that Google runs.
#[derive(Debug, Default)]
pub(super) struct Code {
    container: String,
    code: String,
}

/// A stretch of text and its source.
#[derive(Debug, Serialize)]
pub(super) struct Citation<'c> {
    #[serde(rename = "type")]
    pub(super) kind: &'static str,
    pub(super) start_index: usize,
    pub(super) end_index: usize,
    pub(super) title: &'c str,
    pub(super) url: &'c str,
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
    stamp: Stamp,
    echo: String,
    /// Only the response at the end is wanted, not the events.
    pub(super) quiet: bool,
    /// The tier that was asked for, or serves the request once Google has said so.
    pub(super) tier: Option<&'static str>,
    sequence: u64,
    /// Closed items as JSON, in order; nothing where one is still open.
    items: Vec<Option<Bytes>>,
    first_message: Option<usize>,
    searches: Vec<usize>,
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
struct At<'e> {
    item_id: &'e str,
    output_index: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    content_index: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    summary_index: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    annotation_index: Option<usize>,
}

#[derive(Serialize)]
struct With<'e, T> {
    #[serde(flatten)]
    at: At<'e>,
    #[serde(flatten)]
    more: T,
}

#[derive(Serialize)]
struct TextPart<'e> {
    #[serde(rename = "type")]
    kind: &'static str,
    text: &'e Token,
    annotations: &'e [Citation<'e>],
    logprobs: &'e RawValue,
}

#[derive(Serialize)]
struct SummaryPart<'e> {
    #[serde(rename = "type")]
    kind: &'static str,
    text: &'e Token,
}

fn raw(json: BytesMut) -> Result<Box<RawValue>> {
    let text = String::from_utf8(json.into()).map_err(Error::internal)?;
    RawValue::from_string(text).map_err(Error::internal)
}

/// `value` as JSON that was written the way the wire wants it.
fn json<T: Serialize>(value: &T) -> Result<Box<RawValue>> {
    let mut out = BytesMut::new();
    wire::append(value, &mut out).map_err(Error::internal)?;
    raw(out)
}

impl Desk {
    pub(super) fn new(stamp: Stamp, echo: String, tier: Option<&'static str>) -> Self {
        Self {
            stamp,
            echo,
            tier,
            quiet: false,
            sequence: 0,
            items: Vec::new(),
            first_message: None,
            searches: Vec::new(),
        }
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
fn counted(usage: &Usage) -> impl Serialize + use<> {
    #[derive(Serialize)]
    struct Input {
        cached_tokens: u64,
        cache_write_tokens: u64,
    }
    #[derive(Serialize)]
    struct Output {
        reasoning_tokens: u64,
    }
    #[derive(Serialize)]
    struct Counted {
        input_tokens: u64,
        input_tokens_details: Input,
        output_tokens: u64,
        output_tokens_details: Output,
        total_tokens: u64,
    }
    Counted {
        input_tokens: usage.prompt(),
        input_tokens_details: Input { cached_tokens: usage.cached, cache_write_tokens: 0 },
        output_tokens: usage.completion(),
        output_tokens_details: Output { reasoning_tokens: usage.thoughts },
        total_tokens: usage.total(),
    }
}

impl Pen<'_> {
    fn event<T: Serialize>(&mut self, kind: &'static str, body: &T) -> Result<()> {
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

    fn at(id: &str, index: usize) -> At<'_> {
        At {
            item_id: id,
            output_index: index,
            content_index: None,
            summary_index: None,
            annotation_index: None,
        }
    }

    fn add<I>(&mut self, id: String, item: I, begun: &impl Serialize) -> Result<Opened<I>> {
        let index = self.desk.items.len();
        self.desk.items.push(None);
        if !self.desk.quiet {
            let begun = json(begun)?;
            self.event("response.output_item.added", &ItemAt { output_index: index, item: &begun })?;
        }
        Ok(Opened { id, index, item })
    }

    fn done(&mut self, index: usize, item: &impl Serialize) -> Result<()> {
        let item = json(item)?;
        self.event("response.output_item.done", &ItemAt { output_index: index, item: &item })?;
        if let Some(slot) = self.desk.items.get_mut(index) {
            *slot = Some(Bytes::from(String::from(Box::<str>::from(item))));
        }
        Ok(())
    }

    // Messages

    pub(super) fn message(&mut self, start: usize) -> Result<Opened<Message>> {
        let id = self.desk.mint("msg_");
        let begun = MessageItem {
            id: &id,
            kind: "message",
            status: "in_progress",
            role: "assistant",
            content: [(); 0],
        };
        let begun = json(&begun)?;
        let opened = self.add(id, Message { start, ..Message::default() }, &begun)?;
        self.desk.first_message.get_or_insert(opened.index);
        let empty = Token::default();
        let none = no_logprobs()?;
        let part = TextPart { kind: "output_text", text: &empty, annotations: &[], logprobs: &none };
        self.part("response.content_part.added", &opened, &part)?;
        Ok(opened)
    }

    fn part<I>(&mut self, kind: &'static str, opened: &Opened<I>, part: &impl Serialize) -> Result<()> {
        #[derive(Serialize)]
        struct Part<'e, P> {
            part: &'e P,
        }
        let at = At { content_index: Some(0), ..Self::at(&opened.id, opened.index) };
        self.event(kind, &With { at, more: Part { part } })
    }

    /// Says more. `logprobs` are those of this stretch.
    pub(super) fn say(
        &mut self,
        opened: &mut Opened<Message>,
        text: &Text<'_>,
        logprobs: &[Box<RawValue>],
    ) -> Result<()> {
        #[derive(Serialize)]
        struct Delta<'e> {
            delta: &'e Text<'e>,
            logprobs: &'e [Box<RawValue>],
        }
        let message = &mut opened.item;
        message.text.push(text);
        message.characters += text.decode().chars().count();
        for entry in logprobs {
            message.logprobs.extend_from_slice(if message.logprobs.is_empty() { b"[" } else { b"," });
            message.logprobs.extend_from_slice(entry.get().as_bytes());
        }
        let at = At { content_index: Some(0), ..Self::at(&opened.id, opened.index) };
        self.event("response.output_text.delta", &With { at, more: Delta { delta: text, logprobs } })
    }

    pub(super) fn close_message(
        &mut self,
        mut opened: Opened<Message>,
        citations: &[Citation<'_>],
        ending: Ending,
    ) -> Result<String> {
        #[derive(Serialize)]
        struct Done<'e> {
            text: &'e Token,
            logprobs: &'e RawValue,
        }
        #[derive(Serialize)]
        struct Annotated<'e> {
            annotation: &'e Citation<'e>,
        }
        let mut logprobs = std::mem::take(&mut opened.item.logprobs);
        let logprobs = if logprobs.is_empty() {
            no_logprobs()?
        } else {
            logprobs.extend_from_slice(b"]");
            raw(logprobs)?
        };
        for (nth, annotation) in citations.iter().enumerate() {
            let at = At {
                content_index: Some(0),
                annotation_index: Some(nth),
                ..Self::at(&opened.id, opened.index)
            };
            let annotated = With { at, more: Annotated { annotation } };
            self.event("response.output_text.annotation.added", &annotated)?;
        }
        let text = &opened.item.text;
        let at = At { content_index: Some(0), ..Self::at(&opened.id, opened.index) };
        let done = With { at, more: Done { text, logprobs: &logprobs } };
        self.event("response.output_text.done", &done)?;
        let part = TextPart { kind: "output_text", text, annotations: citations, logprobs: &logprobs };
        self.part("response.content_part.done", &opened, &part)?;
        let item = MessageItem {
            id: &opened.id,
            kind: "message",
            status: ending.as_str(),
            role: "assistant",
            content: [part],
        };
        self.done(opened.index, &item)?;
        Ok(opened.id)
    }

    /// A whole message that says why nothing is said.
    pub(super) fn refuse(&mut self, why: &str) -> Result<()> {
        #[derive(Serialize)]
        struct Part<'e> {
            #[serde(rename = "type")]
            kind: &'static str,
            refusal: &'e str,
        }
        #[derive(Serialize)]
        struct Delta<'e> {
            delta: &'e str,
        }
        #[derive(Serialize)]
        struct Done<'e> {
            refusal: &'e str,
        }
        let id = self.desk.mint("msg_");
        let begun = MessageItem {
            id: &id,
            kind: "message",
            status: "in_progress",
            role: "assistant",
            content: [(); 0],
        };
        let begun = json(&begun)?;
        let opened = self.add(id, (), &begun)?;
        self.part("response.content_part.added", &opened, &Part { kind: "refusal", refusal: "" })?;
        let at = || At { content_index: Some(0), ..Self::at(&opened.id, opened.index) };
        self.event("response.refusal.delta", &With { at: at(), more: Delta { delta: why } })?;
        self.event("response.refusal.done", &With { at: at(), more: Done { refusal: why } })?;
        let part = Part { kind: "refusal", refusal: why };
        self.part("response.content_part.done", &opened, &part)?;
        let item = MessageItem {
            id: &opened.id,
            kind: "message",
            status: "completed",
            role: "assistant",
            content: [part],
        };
        self.done(opened.index, &item)
    }

    // Reasoning

    pub(super) fn reasoning(&mut self) -> Result<Opened<Reasoning>> {
        let id = self.desk.mint("rs_");
        let begun = ReasoningItem {
            id: &id,
            kind: "reasoning",
            status: "in_progress",
            summary: &[],
            encrypted_content: None,
        };
        let begun = json(&begun)?;
        self.add(id, Reasoning::default(), &begun)
    }

    pub(super) fn think(&mut self, opened: &mut Opened<Reasoning>, text: &Text<'_>) -> Result<()> {
        #[derive(Serialize)]
        struct Part<'e> {
            part: SummaryPart<'e>,
        }
        #[derive(Serialize)]
        struct Delta<'e> {
            delta: &'e Text<'e>,
        }
        if opened.item.summary.is_none() {
            let empty = Token::default();
            let at = At { summary_index: Some(0), ..Self::at(&opened.id, opened.index) };
            let part = Part { part: SummaryPart { kind: "summary_text", text: &empty } };
            self.event("response.reasoning_summary_part.added", &With { at, more: part })?;
        }
        opened.item.summary.get_or_insert_default().push(text);
        let at = At { summary_index: Some(0), ..Self::at(&opened.id, opened.index) };
        self.event("response.reasoning_summary_text.delta", &With { at, more: Delta { delta: text } })
    }

    pub(super) fn close_reasoning(
        &mut self,
        opened: Opened<Reasoning>,
        carried: &[Mark],
        ending: Ending,
    ) -> Result<()> {
        #[derive(Serialize)]
        struct Done<'e> {
            text: &'e Token,
        }
        #[derive(Serialize)]
        struct Part<'e> {
            part: SummaryPart<'e>,
        }
        let Opened { id, index, item } = opened;
        let summary = item.summary.as_ref();
        if let Some(text) = summary {
            let at = || At { summary_index: Some(0), ..Self::at(&id, index) };
            let done = With { at: at(), more: Done { text } };
            self.event("response.reasoning_summary_text.done", &done)?;
            let part = Part { part: SummaryPart { kind: "summary_text", text } };
            self.event("response.reasoning_summary_part.done", &With { at: at(), more: part })?;
        }
        let sealed = (!carried.is_empty()).then(|| marks::seal(carried));
        let summary: Vec<SummaryPart<'_>> =
            summary.into_iter().map(|text| SummaryPart { kind: "summary_text", text }).collect();
        let item = ReasoningItem {
            id: &id,
            kind: "reasoning",
            status: ending.as_str(),
            summary: &summary,
            encrypted_content: sealed.as_deref(),
        };
        self.done(index, &item)
    }

    // Calls

    pub(super) fn call(&mut self, call_id: String, tool: Tool) -> Result<Opened<Call>> {
        let id = self.desk.mint(match &tool {
            Tool::Function { .. } => "fc_",
            Tool::Custom { .. } => "ctc_",
            Tool::Shell => "sh_",
            Tool::LocalShell => "lsh_",
            Tool::ApplyPatch => "apc_",
        });
        let begun = called(&id, &call_id, &tool, "in_progress", &Token::default(), "")?;
        self.add(
            id,
            Call { id: call_id, tool, arguments: Token::default(), text: String::new(), late: None },
            &begun,
        )
    }

    /// Gives more of a call's arguments.
    pub(super) fn argue(&mut self, opened: &mut Opened<Call>, text: &Text<'_>) -> Result<()> {
        #[derive(Serialize)]
        struct Delta<'e> {
            delta: &'e Text<'e>,
        }
        let kind = match &opened.item.tool {
            Tool::Function { .. } => "response.function_call_arguments.delta",
            Tool::Custom { .. } => "response.custom_tool_call_input.delta",
            Tool::Shell | Tool::LocalShell | Tool::ApplyPatch => {
                opened.item.text.push_str(&text.decode());
                return Ok(());
            }
        };
        if text.is_empty() {
            return Ok(());
        }
        opened.item.arguments.push(text);
        self.event(kind, &With { at: Self::at(&opened.id, opened.index), more: Delta { delta: text } })
    }

    pub(super) fn close_call(&mut self, opened: Opened<Call>, ending: Ending) -> Result<String> {
        #[derive(Serialize)]
        struct Arguments<'e> {
            name: &'e str,
            arguments: &'e Token,
        }
        #[derive(Serialize)]
        struct Input<'e> {
            input: &'e Token,
        }
        let Opened { id, index, item: Call { id: call_id, tool, arguments, text, .. } } = opened;
        let at = || Self::at(&id, index);
        match &tool {
            Tool::Function { name, .. } => {
                let more = Arguments { name, arguments: &arguments };
                self.event("response.function_call_arguments.done", &With { at: at(), more })?;
            }
            Tool::Custom { .. } => {
                let done = With { at: at(), more: Input { input: &arguments } };
                self.event("response.custom_tool_call_input.done", &done)?;
            }
            Tool::Shell | Tool::LocalShell | Tool::ApplyPatch => {}
        }
        let item = called(&id, &call_id, &tool, ending.as_str(), &arguments, &text)?;
        self.done(index, &item)?;
        Ok(call_id)
    }

    // Google's own tools

    pub(super) fn code(&mut self, code: &str) -> Result<Opened<Code>> {
        #[derive(Serialize)]
        struct Delta<'e> {
            delta: &'e str,
        }
        #[derive(Serialize)]
        struct Done<'e> {
            code: &'e str,
        }
        let (id, container) = (self.desk.mint("ci_"), self.desk.mint("cntr_"));
        let begun = json(&CodeItem::new(&id, &container, "in_progress", "", None))?;
        let item = Code { container, code: code.to_owned() };
        let opened = self.add(id, item, &begun)?;
        let at = || Self::at(&opened.id, opened.index);
        self.event("response.code_interpreter_call.in_progress", &at())?;
        let delta = With { at: at(), more: Delta { delta: code } };
        self.event("response.code_interpreter_call_code.delta", &delta)?;
        let done = With { at: at(), more: Done { code } };
        self.event("response.code_interpreter_call_code.done", &done)?;
        self.event("response.code_interpreter_call.interpreting", &at())?;
        Ok(opened)
    }

    pub(super) fn close_code(
        &mut self,
        opened: Opened<Code>,
        printed: Option<&str>,
        status: &'static str,
    ) -> Result<()> {
        let Opened { id, index, item: Code { container, code } } = opened;
        self.event("response.code_interpreter_call.completed", &Self::at(&id, index))?;
        let item = CodeItem::new(&id, &container, status, &code, printed);
        self.done(index, &item)
    }

    /// A whole search: Google tells of it when it is over.
    pub(super) fn search(&mut self, queries: &[String], sources: Option<&[String]>) -> Result<()> {
        #[derive(Serialize)]
        struct Source<'e> {
            #[serde(rename = "type")]
            kind: &'static str,
            url: &'e str,
        }
        #[derive(Serialize)]
        struct Action<'e> {
            #[serde(rename = "type")]
            kind: &'static str,
            query: &'e str,
            queries: &'e [String],
            #[serde(skip_serializing_if = "Option::is_none")]
            sources: Option<Vec<Source<'e>>>,
        }
        #[derive(Serialize)]
        struct Item<'e> {
            id: &'e str,
            #[serde(rename = "type")]
            kind: &'static str,
            status: &'static str,
            action: Action<'e>,
        }
        let id = self.desk.mint("ws_");
        let sources =
            sources.map(|sources| sources.iter().map(|url| Source { kind: "url", url }).collect::<Vec<_>>());
        let query = queries.first().map(String::as_str).unwrap_or_default();
        let action = Action { kind: "search", query, queries, sources: None };
        let begun = json(&Item { id: &id, kind: "web_search_call", status: "in_progress", action })?;
        let opened = self.add(id, (), &begun)?;
        self.desk.searches.push(opened.index);
        let kinds = [
            "response.web_search_call.in_progress",
            "response.web_search_call.searching",
            "response.web_search_call.completed",
        ];
        for kind in kinds {
            self.event(kind, &Self::at(&opened.id, opened.index))?;
        }
        let action = Action { kind: "search", query, queries, sources };
        self.done(
            opened.index,
            &Item { id: &opened.id, kind: "web_search_call", status: "completed", action },
        )
    }

    /// A whole picture.
    pub(super) fn picture(
        &mut self,
        id: String,
        mime: &str,
        data: &str,
        asked: Option<&Picture>,
    ) -> Result<()> {
        #[derive(Serialize)]
        struct Item<'e> {
            id: &'e str,
            #[serde(rename = "type")]
            kind: &'static str,
            status: &'static str,
            result: Option<wire::Base64<'e>>,
            output_format: &'e str,
            #[serde(skip_serializing_if = "Option::is_none")]
            size: Option<&'e str>,
            #[serde(skip_serializing_if = "Option::is_none")]
            quality: Option<&'e str>,
            #[serde(skip_serializing_if = "Option::is_none")]
            background: Option<&'e str>,
        }
        fn item<'e>(
            id: &'e str,
            mime: &str,
            asked: Option<&'e Picture>,
            status: &'static str,
            result: Option<wire::Base64<'e>>,
        ) -> Item<'e> {
            let known = |value: Option<&str>, words: &[&'static str]| {
                let value = value?;
                words.iter().find(|word| **word == value).copied()
            };
            Item {
                id,
                kind: "image_generation_call",
                status,
                result,
                output_format: match mime {
                    "image/jpeg" => "jpeg",
                    "image/webp" => "webp",
                    "image/gif" => "gif",
                    _ => "png",
                },
                size: asked.and_then(|asked| asked.size.as_deref()),
                quality: known(
                    asked.and_then(|asked| asked.quality.as_deref()),
                    &["low", "medium", "high", "auto"],
                ),
                background: known(
                    asked.and_then(|asked| asked.background.as_deref()),
                    &["transparent", "opaque", "auto"],
                ),
            }
        }
        let begun = json(&item(&id, mime, asked, "in_progress", None))?;
        let opened = self.add(id, (), &begun)?;
        let kinds = [
            "response.image_generation_call.in_progress",
            "response.image_generation_call.generating",
            "response.image_generation_call.completed",
        ];
        for kind in kinds {
            self.event(kind, &Self::at(&opened.id, opened.index))?;
        }
        let whole = item(&opened.id, mime, asked, "completed", wire::Base64::new(data));
        self.done(opened.index, &whole)
    }
}

fn no_logprobs() -> Result<Box<RawValue>> {
    RawValue::from_string("[]".to_owned()).map_err(Error::internal)
}

#[derive(Serialize)]
struct MessageItem<'e, C> {
    id: &'e str,
    #[serde(rename = "type")]
    kind: &'static str,
    status: &'static str,
    role: &'static str,
    content: C,
}

#[derive(Serialize)]
struct ReasoningItem<'e> {
    id: &'e str,
    #[serde(rename = "type")]
    kind: &'static str,
    status: &'static str,
    summary: &'e [SummaryPart<'e>],
    encrypted_content: Option<&'e str>,
}

#[derive(Serialize)]
struct CodeItem<'e> {
    id: &'e str,
    #[serde(rename = "type")]
    kind: &'static str,
    status: &'static str,
    container_id: &'e str,
    code: &'e str,
    outputs: Option<Vec<Logs<'e>>>,
}

#[derive(Serialize)]
struct Logs<'e> {
    #[serde(rename = "type")]
    kind: &'static str,
    logs: &'e str,
}

impl<'e> CodeItem<'e> {
    fn new(
        id: &'e str,
        container_id: &'e str,
        status: &'static str,
        code: &'e str,
        printed: Option<&'e str>,
    ) -> Self {
        let outputs = printed.map(|logs| vec![Logs { kind: "logs", logs }]);
        Self { id, kind: "code_interpreter_call", status, container_id, code, outputs }
    }
}

/// A call's item. `arguments` as a token, and as text where they must be read.
fn called(
    id: &str,
    call_id: &str,
    tool: &Tool,
    status: &'static str,
    arguments: &Token,
    text: &str,
) -> Result<Box<RawValue>> {
    #[derive(Serialize)]
    struct Item<'e> {
        id: &'e str,
        #[serde(rename = "type")]
        kind: &'static str,
        status: &'static str,
        call_id: &'e str,
        #[serde(skip_serializing_if = "Option::is_none")]
        name: Option<&'e str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        namespace: Option<&'e str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        arguments: Option<&'e Token>,
        #[serde(skip_serializing_if = "Option::is_none")]
        input: Option<&'e Token>,
        #[serde(skip_serializing_if = "Option::is_none")]
        action: Option<Value>,
        #[serde(skip_serializing_if = "Option::is_none")]
        operation: Option<Value>,
    }
    let mut item = Item {
        id,
        kind: "function_call",
        status,
        call_id,
        name: None,
        namespace: None,
        arguments: None,
        input: None,
        action: None,
        operation: None,
    };
    // Arguments that are no object leave the fields empty; the client then says so to the model.
    let args = || -> Map<String, Value> { serde_json::from_str(text).unwrap_or_default() };
    match tool {
        Tool::Function { name, namespace } => {
            item.name = Some(name);
            item.namespace = namespace.as_deref();
            item.arguments = Some(arguments);
        }
        Tool::Custom { name, namespace } => {
            item.kind = "custom_tool_call";
            item.name = Some(name);
            item.namespace = namespace.as_deref();
            item.input = Some(arguments);
        }
        Tool::Shell => {
            item.kind = "shell_call";
            item.action = Some(calls::shell(&args()));
        }
        Tool::LocalShell => {
            item.kind = "local_shell_call";
            item.action = Some(calls::local_shell(&args()));
        }
        Tool::ApplyPatch => {
            item.kind = "apply_patch_call";
            item.operation = Some(calls::patch(&args()));
            // This kind knows no third state.
            item.status = if status == "in_progress" { status } else { "completed" };
        }
    }
    json(&item)
}
