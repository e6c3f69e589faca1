//! The conversation: the client's messages → Gemini's turns.
//!
//! Results are gathered behind the turn that made the calls, in the order of the calls, wherever the client
//! put them; everything else keeps its order.

use std::borrow::Cow;
use std::collections::{HashMap, VecDeque};

use serde_json::value::RawValue;

use super::request::{Drops, fits, read};
use super::unsigned::Unsigned;
use super::{media, names, parts};
use crate::error::{Error, Result};
use crate::gemini::ask::{
    Args, Content, FunctionCall, FunctionResponse, Json, MediaRef, Outcome, Part, Role,
};
use crate::openai::chat::{Called, Extra, Message, Spoken, ToolCall};
use crate::translate::{Backend, Signatures, Target};
use crate::wire::Text;

/// What was said.
pub(super) struct Conversation<'a> {
    pub(super) system: Vec<Part<'a>>,
    pub(super) contents: Vec<Content<'a>>,
}

enum Turn<'a> {
    User(Vec<Part<'a>>),
    Model {
        parts: Vec<Part<'a>>,
        message: usize,
    },
    /// The results of a group of calls.
    Results(usize),
}

/// The calls of one turn of the model.
#[derive(Default)]
struct Group<'a> {
    calls: Vec<Call<'a>>,
    /// How many of them have a result.
    answered: usize,
    /// All before this one have.
    first_open: usize,
}

/// The calls of the last turn that used an id, in their order: those that may still be answered by it.
struct SameId {
    group: usize,
    open: VecDeque<usize>,
}

struct Call<'a> {
    id: Option<Cow<'a, str>>,
    name: Cow<'a, str>,
    place: (usize, usize),
    answer: Option<FunctionResponse<'a>>,
    /// Media of the result that the model takes only outside of it.
    beside: Vec<Part<'a>>,
}

struct Builder<'a, 't> {
    target: &'t Target<'t>,
    signatures: &'t dyn Signatures,
    back: &'t mut HashMap<String, String>,
    drops: &'t mut Drops,
    system: Vec<Part<'a>>,
    turns: Vec<Turn<'a>>,
    groups: Vec<Group<'a>>,
    by_id: HashMap<Cow<'a, str>, SameId>,
}

/// Translates all messages.
pub(super) fn build<'a>(
    messages: Vec<Message<'a>>,
    target: &Target<'_>,
    signatures: &dyn Signatures,
    back: &mut HashMap<String, String>,
    drops: &mut Drops,
) -> Result<Conversation<'a>> {
    if messages.is_empty() {
        let message = "'messages' must hold at least one message.";
        return Err(Error::invalid("messages", message).code("empty_array"));
    }
    let mut builder = Builder {
        target,
        signatures,
        back,
        drops,
        system: Vec::new(),
        turns: Vec::new(),
        groups: Vec::new(),
        by_id: HashMap::new(),
    };
    for (index, message) in messages.into_iter().enumerate() {
        builder.take(index, message).map_err(|error| error.within(&format!("messages[{index}]")))?;
    }
    builder.finish()
}

impl<'a> Builder<'a, '_> {
    fn take(&mut self, index: usize, message: Message<'a>) -> Result<()> {
        let speaker = !matches!(message.role.as_ref(), "tool" | "function");
        if speaker && message.name.as_ref().is_some_and(|name| !name.is_empty()) {
            self.drops.note("messages.name", "Gemini keeps no speakers apart")?;
        }
        match message.role.as_ref() {
            "system" | "developer" => {
                self.system.extend(parts::texts(needed(message.content)?)?);
            }
            "user" => {
                let mut parts = parts::user(needed(message.content)?, self.target, self.drops)?;
                for place in parts.iter_mut().filter_map(media::fetched_at) {
                    *place = format!("messages[{index}].{place}");
                }
                self.user(parts);
            }
            "assistant" | "model" => self.assistant(index, message)?,
            "tool" => self.result(index, message)?,
            "function" => self.legacy_result(index, message)?,
            other => {
                let message = format!(
                    "Invalid value: '{}'. Supported values are: 'system', 'developer', 'user', 'assistant', 'tool' and 'function'.",
                    other.chars().take(40).collect::<String>()
                );
                return Err(Error::invalid("role", message));
            }
        }
        Ok(())
    }

    fn user(&mut self, parts: Vec<Part<'a>>) {
        if parts.is_empty() {
            return;
        }
        match self.turns.last_mut() {
            Some(Turn::User(open)) => open.extend(parts),
            _ => self.turns.push(Turn::User(parts)),
        }
    }

    fn assistant(&mut self, index: usize, message: Message<'a>) -> Result<()> {
        let mut parts = match message.content {
            Some(content) => parts::assistant(content, self.target, self.drops)?,
            None => Vec::new(),
        };
        if let Some(audio) = message.audio {
            // Sound is not kept here; its words can stand for it where the client has them.
            let words =
                serde_json::from_str::<Spoken<'a>>(audio.get()).ok().and_then(|audio| audio.transcript);
            match words.filter(|words| parts.is_empty() && !words.is_empty()) {
                Some(words) => parts.push(Part::text(words)),
                None if parts.is_empty() => {
                    self.drops.note("messages.audio", "what an assistant spoke is not kept")?;
                }
                None => {}
            }
        }
        if let Some(refusal) = message.refusal.filter(|text| !text.is_empty()) {
            parts.push(Part::text(refusal));
        }
        let spoken = parts.len();
        if let Some(images) = message.images {
            for (mut part, extra) in parts::drawn(images, self.target)? {
                part.thought_signature = extra.and_then(signature).filter(|_| self.signatures.believed());
                parts.push(part);
            }
        }
        for place in parts.iter_mut().filter_map(media::fetched_at) {
            *place = format!("messages[{index}].{place}");
        }
        let mut calls = self.calls(index, message.tool_calls, message.function_call)?;
        let mark = message.extra_content.and_then(signature).filter(|_| self.signatures.believed());
        if let Some(signature) = mark {
            // The mark of the whole message belongs to its last text; without text, to its first call.
            if let Some(last) = parts.get_mut(..spoken).and_then(<[_]>::last_mut) {
                last.thought_signature = Some(signature);
            } else if let Some((_, part)) = calls.first_mut() {
                part.thought_signature.get_or_insert(signature);
            }
        }
        if calls.is_empty() {
            self.model(index, parts);
            return Ok(());
        }
        // Calls split over several messages without a result between them are one turn of the model.
        let open = matches!(self.turns.last(), Some(Turn::Results(_)))
            && self.groups.last().is_some_and(|group| group.answered == 0);
        let results = if open { self.turns.pop() } else { None };
        let (calls, called): (Vec<_>, Vec<_>) = calls.into_iter().unzip();
        parts.extend(called);
        self.model(index, parts);
        if results.is_none() {
            self.groups.push(Group::default());
        }
        let group = self.groups.len().saturating_sub(1);
        self.turns.push(results.unwrap_or(Turn::Results(group)));
        if let Some(open) = self.groups.last_mut() {
            for call in calls {
                if let Some(id) = &call.id {
                    let none = || SameId { group, open: VecDeque::new() };
                    let same = self.by_id.entry(id.clone()).or_insert_with(none);
                    if same.group != group {
                        *same = none();
                    }
                    same.open.push_back(open.calls.len());
                }
                open.calls.push(call);
            }
        }
        Ok(())
    }

    fn model(&mut self, index: usize, parts: Vec<Part<'a>>) {
        if parts.is_empty() {
            return;
        }
        match self.turns.last_mut() {
            Some(Turn::Model { parts: open, message }) => {
                open.extend(parts);
                *message = index;
            }
            _ => self.turns.push(Turn::Model { parts, message: index }),
        }
    }

    fn calls(
        &mut self,
        index: usize,
        calls: Option<Vec<ToolCall<'a>>>,
        legacy: Option<Called<'a>>,
    ) -> Result<Vec<(Call<'a>, Part<'a>)>> {
        let mut out = Vec::new();
        for (at, call) in calls.into_iter().flatten().enumerate() {
            let within = |error: Error| error.within(&format!("tool_calls[{at}]"));
            let id = call.id.map(|id| id.decode()).filter(|id| !id.is_empty());
            let inner = call.function.as_ref().and_then(|function| function.extra_content);
            let (name, args) = match (call.function, call.custom) {
                (Some(function), _) => {
                    let args = arguments(function.arguments).map_err(|e| within(e.within("function")))?;
                    (function.name, args)
                }
                (None, Some(custom)) => (custom.name, Args::Input { input: custom.input }),
                (None, None) => {
                    let error = Error::invalid("function", "A tool call needs its 'function'.");
                    return Err(within(error.code("missing_required_parameter")));
                }
            };
            let given = [call.extra_content, inner, call.provider_specific_fields];
            let mark = given.into_iter().flatten().find_map(signature);
            let mark = mark.or_else(|| id.as_deref().and_then(in_id)).or_else(|| {
                let found = self.signatures.recall(id.as_deref()?)?;
                Some(Text::plain(found.to_string()))
            });
            // A foreign one is as good as none: the current turn gets the documented value in its place.
            let native = id.as_deref().is_none_or(|id| self.signatures.native(id));
            let mark = mark.filter(|_| native && self.signatures.believed());
            out.push(self.call(id, name, args, mark, (index, at)).map_err(within)?);
        }
        if out.is_empty()
            && let Some(legacy) = legacy
        {
            let args = arguments(legacy.arguments).map_err(|error| error.within("function_call"))?;
            let mark = legacy.extra_content.and_then(signature);
            out.push(self.call(None, legacy.name, args, mark, (index, 0))?);
        }
        Ok(out)
    }

    fn call(
        &mut self,
        id: Option<Cow<'a, str>>,
        name: Cow<'a, str>,
        args: Args<'a>,
        mark: Option<Text<'a>>,
        place: (usize, usize),
    ) -> Result<(Call<'a>, Part<'a>)> {
        if name.is_empty() {
            return Err(Error::invalid("function.name", "A function's name must not be empty."));
        }
        let fitted: Cow<'a, str> = match names::keep(&name, self.back) {
            same if same == name => name.clone(),
            fitted => fitted.into(),
        };
        let sent = id.clone().filter(|_| self.target.traits.call_ids);
        let call = FunctionCall { id: sent, name: fitted, args };
        let part = Part { function_call: Some(call), thought_signature: mark, ..Part::default() };
        Ok((Call { id, name, place, answer: None, beside: Vec::new() }, part))
    }

    fn result(&mut self, index: usize, message: Message<'a>) -> Result<()> {
        let Some(id) = message.tool_call_id.map(|id| id.decode()).filter(|id| !id.is_empty()) else {
            let text = "A message with role 'tool' needs the 'tool_call_id' of the call it answers.";
            return Err(Error::invalid("tool_call_id", text).code("missing_required_parameter"));
        };
        let shown = || id.chars().take(80).collect::<String>();
        let Some(same) = self.by_id.get_mut(&id) else {
            let text = format!("No earlier message has a tool call with the id '{}'.", shown());
            return Err(Error::invalid("tool_call_id", text));
        };
        // The nearest turn that used the id; several equal ids within it are answered in order.
        let calls = self.groups.get(same.group).map_or(&[][..], |group| &group.calls);
        let open = |at: &usize| calls.get(*at).is_some_and(|call| call.answer.is_none());
        let free = std::iter::from_fn(|| same.open.pop_front()).find(open);
        let (Some(at), group) = (free, same.group) else {
            let text = format!("The tool call '{}' is answered more than once.", shown());
            return Err(Error::invalid("tool_call_id", text));
        };
        self.answer((group, at), index, message.content)
    }

    fn legacy_result(&mut self, index: usize, message: Message<'a>) -> Result<()> {
        let name = message.name.map(|name| name.decode()).unwrap_or_default();
        let group = self.groups.len().saturating_sub(1);
        let at = self.groups.last().and_then(|group| {
            let mut open = group.calls.iter().enumerate().skip(group.first_open);
            open.find(|(_, call)| call.name == name && call.answer.is_none()).map(|(at, _)| at)
        });
        let Some(at) = at else {
            return Err(Error::invalid("name", "No function of this name was called just before."));
        };
        self.answer((group, at), index, message.content)
    }

    fn answer(&mut self, place: (usize, usize), index: usize, content: Option<&'a RawValue>) -> Result<()> {
        let Some(group) = self.groups.get_mut(place.0) else { return Ok(()) };
        let Some(call) = group.calls.get_mut(place.1) else { return Ok(()) };
        let mut said = outcome(content, self.target, self.drops)?;
        for waits in said.1.iter_mut().filter_map(media::fetched_at) {
            *waits = format!("messages[{index}].{waits}");
        }
        let (response, beside) = result(call.id.clone(), &call.name, said, self.target);
        call.beside = beside;
        call.answer = Some(response);
        group.answered += 1;
        while group.calls.get(group.first_open).is_some_and(|call| call.answer.is_some()) {
            group.first_open += 1;
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Conversation<'a>> {
        let mut unsigned = Unsigned::new(self.target, self.signatures);
        let last_user = self.turns.iter().rposition(|turn| matches!(turn, Turn::User(_)));
        let mut contents = Vec::with_capacity(self.turns.len());
        let last = self.turns.len().saturating_sub(1);
        for (at, turn) in self.turns.into_iter().enumerate() {
            match turn {
                Turn::User(parts) => contents.push(Content { role: Role::User, parts }),
                Turn::Model { mut parts, message } => {
                    if at == last && !self.target.traits.prefill {
                        let text = "This model cannot go on with an assistant message: the conversation must end with a user or tool message.";
                        return Err(Error::unsupported(format!("messages[{message}]"), text)
                            .code("unsupported_value"));
                    }
                    let current = last_user.is_none_or(|user| at > user);
                    unsigned.step(&contents, &mut parts, current);
                    contents.push(Content { role: Role::Model, parts });
                }
                Turn::Results(group) => {
                    let group = self.groups.get_mut(group).map(std::mem::take).unwrap_or_default();
                    close(group, &mut contents)?;
                }
            }
        }
        Ok(Conversation { system: self.system, contents })
    }
}

/// Writes the results of one turn's calls; all of them must be there.
fn close<'a>(group: Group<'a>, contents: &mut Vec<Content<'a>>) -> Result<()> {
    let mut results = Vec::with_capacity(group.calls.len());
    let mut beside = Vec::new();
    for call in group.calls {
        let Some(answer) = call.answer else {
            let (message, at) = call.place;
            let id = call.id.as_deref().unwrap_or(&call.name);
            let text = format!(
                "The tool call '{}' has no result: every call needs a message with role 'tool' that answers it.",
                id.chars().take(80).collect::<String>()
            );
            return Err(Error::invalid(format!("messages[{message}].tool_calls[{at}].id"), text));
        };
        if !call.beside.is_empty() {
            beside.push(Part::text(Text::plain(format!("Media in the result of {}:", call.name))));
            beside.extend(call.beside);
        }
        results.push(Part { function_response: Some(answer), ..Part::default() });
    }
    contents.push(Content { role: Role::User, parts: results });
    if !beside.is_empty() {
        contents.push(Content { role: Role::User, parts: beside });
    }
    Ok(())
}

fn needed(content: Option<&RawValue>) -> Result<&RawValue> {
    content.ok_or_else(|| Error::invalid("content", "This message needs a 'content': a string or parts."))
}

/// The signature in `extra_content`; anything odd there counts as none.
fn signature(extra: &RawValue) -> Option<Text<'_>> {
    let extra: Extra<'_> = serde_json::from_str(extra.get()).ok()?;
    let found = extra.google.and_then(|signed| signed.thought_signature);
    let found = found.or_else(|| extra.vertex?.thought_signature).or(extra.thought_signature);
    found.filter(|text| !text.is_empty())
}

/// The signature that another gateway wrote into a call's id.
fn in_id(id: &str) -> Option<Text<'static>> {
    let (_, mark) = id.split_once("__thought__")?;
    let plain = mark.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+/=-_".contains(&byte));
    (plain && mark.len() >= 8).then(|| Text::plain(mark.to_owned()))
}

/// What came of a call, for Gemini: with its media inside where the model takes them there, else beside it.
pub(in crate::translate) fn result<'a>(
    id: Option<Cow<'a, str>>,
    name: &str,
    (mut response, media): (Outcome<'a>, Vec<Part<'a>>),
    target: &Target<'_>,
) -> (FunctionResponse<'a>, Vec<Part<'a>>) {
    let (mut inside, mut beside) = (Vec::new(), Vec::new());
    for mut part in media {
        if !target.traits.multimodal_results || !fits_inside(&part, target.backend) {
            beside.push(part);
            continue;
        }
        // A place of its own for this has a part of the conversation only.
        part.media_resolution = None;
        // Only Vertex AI knows names for media, and references to them.
        if target.backend == Backend::Vertex {
            let name = format!("media_{}", inside.len() + 1);
            if let Outcome::Output { media, .. } = &mut response {
                media.push(MediaRef { name: name.clone() });
            }
            if let Some(blob) = &mut part.inline_data {
                blob.display_name = Some(name.clone());
            }
            if let Some(file) = &mut part.file_data {
                file.display_name = Some(name);
            }
        }
        inside.push(part);
    }
    let name = Cow::Owned(names::fit(name).into_owned());
    let id = id.filter(|_| target.traits.call_ids);
    (FunctionResponse { id, name, response, parts: inside }, beside)
}

/// What may stand inside a function's response: a few kinds of documents, and addresses on Vertex AI only.
fn fits_inside(part: &Part<'_>, backend: Backend) -> bool {
    let kind = match (&part.inline_data, &part.file_data) {
        (Some(blob), _) => Some(blob.mime_type.as_ref()),
        (None, Some(file)) if backend == Backend::Vertex || file.fetch.is_some() => file.mime_type.as_deref(),
        _ => None,
    };
    let known = ["image/png", "image/jpeg", "image/webp", "application/pdf", "text/plain"];
    part.video_metadata.is_none() && kind.is_some_and(|kind| known.contains(&kind))
}

/// Arguments must be an object; an empty text stands for one without members.
pub(in crate::translate) fn arguments(raw: Option<&RawValue>) -> Result<Args<'_>> {
    let refuse = |what: &str| {
        Err(Error::invalid("arguments", format!("The arguments of a call must be a JSON object: {what}.")))
    };
    let empty = || Args::Json(Json::Value(serde_json::Value::Object(serde_json::Map::new())));
    let Some(raw) = raw else { return Ok(empty()) };
    if raw.get().starts_with('{') {
        return Ok(Args::Json(Json::Raw(raw)));
    }
    let Ok(text) = Text::from_raw(raw) else { return refuse("this is not a text") };
    let text = text.decode();
    let text = text.trim();
    if text.is_empty() {
        return Ok(empty());
    }
    fits(text.as_bytes()).map_err(|error| error.at("arguments"))?;
    match RawValue::from_string(text.to_owned()) {
        Ok(json) if json.get().starts_with('{') => Ok(Args::Json(Json::Owned(json))),
        Ok(_) => refuse("this is another JSON value"),
        Err(error) => refuse(&format!("this is not JSON ({error})")),
    }
}

/// What a tool said: an object stays itself, all else is wrapped. Media come apart.
pub(in crate::translate) fn outcome<'a>(
    content: Option<&'a RawValue>,
    target: &Target<'_>,
    drops: &mut Drops,
) -> Result<(Outcome<'a>, Vec<Part<'a>>)> {
    let Some(raw) = content else { return Ok((wrapped(Text::plain("")), Vec::new())) };
    match raw.get().as_bytes().first() {
        Some(b'"') => {
            let text: Text<'a> = read(raw).map_err(|error| error.within("content"))?;
            Ok((spoken(text), Vec::new()))
        }
        Some(b'{') if !refers(raw.get()) => Ok((Outcome::Json(Json::Raw(raw)), Vec::new())),
        Some(b'{') => Ok((wrapped(Text::plain(raw.get())), Vec::new())),
        _ => Ok(gathered(parts::user(raw, target, drops)?)),
    }
}

/// The texts of a result as one, and its media.
pub(in crate::translate) fn gathered(all: Vec<Part<'_>>) -> (Outcome<'_>, Vec<Part<'_>>) {
    let (mut texts, mut media) = (Vec::new(), Vec::new());
    for part in all {
        match part.text {
            Some(text) => texts.push(text),
            None => media.push(part),
        }
    }
    let text = match texts.len() {
        0 => Text::plain(""),
        1 => texts.swap_remove(0),
        _ => Text::plain(texts.iter().map(Text::decode).collect::<Vec<_>>().join("\n")),
    };
    (if media.is_empty() { spoken(text) } else { wrapped(text) }, media)
}

fn wrapped(output: Text<'_>) -> Outcome<'_> {
    Outcome::Output { output, media: Vec::new() }
}

/// `$ref` inside a response is a reference of Google's.
fn refers(json: &str) -> bool {
    memchr::memmem::find(json.as_bytes(), b"\"$ref\"").is_some()
}

fn spoken(text: Text<'_>) -> Outcome<'_> {
    // Looked at before anything is decoded: most results are prose.
    let token = match &text {
        Text::Raw(raw) => raw.get().trim_start_matches('"'),
        Text::Plain(plain) => plain,
    };
    let mut start = token.trim_start();
    while let Some(rest) = ["\\n", "\\r", "\\t"].iter().find_map(|white| start.strip_prefix(white)) {
        start = rest.trim_start();
    }
    if !start.starts_with('{') {
        return wrapped(text);
    }
    let json = text.decode();
    match RawValue::from_string(json.trim().to_owned()) {
        Ok(json) if !refers(json.get()) && fits(json.get().as_bytes()).is_ok() => {
            Outcome::Json(Json::Owned(json))
        }
        _ => wrapped(text),
    }
}
