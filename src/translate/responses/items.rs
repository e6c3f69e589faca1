//! What the model says: messages, thoughts, and calls for the client to answer.

use bytes::BytesMut;
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::desk::{At, Ending, Opened, Pen, With, json, raw};
use super::marks::{self, Mark, TextMark};
use super::{Tool, calls};
use crate::error::{Error, Result};
use crate::openai::completion::Token;
use crate::wire::Text;

/// The model's words.
#[derive(Debug, Default)]
pub(super) struct Message {
    text: Token,
    /// Characters of all messages before this one.
    pub(super) start: usize,
    pub(super) characters: usize,
    /// Signatures of its parts.
    pub(super) signed: Vec<TextMark>,
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

impl Pen<'_> {
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
        let Opened { id, index, item, .. } = opened;
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
        let Opened { id, index, item: Call { id: call_id, tool, arguments, text, .. }, .. } = opened;
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
