//! The conversation: items → Gemini's turns.
//!
//! Outputs are gathered behind the turn that made the calls, in the order of the calls, wherever the client put
//! them; everything else keeps its order.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use serde_json::json;
use serde_json::value::RawValue;

use super::marks::{self, Mark, Marks};
use super::{History, calls, content};
use crate::error::{Error, Kind, Origin, Result};
use crate::gemini::ask::{Args, Content, FunctionCall, FunctionResponse, Json, Outcome, Part, Role};
use crate::openai::responses::{Item, Reasoning, Request, TextConfig};
use crate::translate::chat::messages;
use crate::translate::chat::request::{Drops, read};
use crate::translate::chat::unsigned::Unsigned;
use crate::translate::chat::{media, names};
use crate::translate::{Signatures, Target};
use crate::wire::Text;

/// Items of one request, history included.
const MOST: usize = 10_000;

/// Whether an item is only the name of another, and which.
pub(super) fn reference<'a>(item: &Item<'a>) -> Option<Text<'a>> {
    let named = match item.kind.as_deref() {
        Some("item_reference") => true,
        Some(_) => false,
        None => item.role.is_none() && item.content.is_none(),
    };
    if named { item.id.clone() } else { None }
}

/// The items of `input`; a string has none.
pub(super) fn items(input: &RawValue) -> Result<Vec<&RawValue>> {
    match input.get().as_bytes().first() {
        Some(b'"') => Ok(Vec::new()),
        Some(b'[') => read(input).map_err(|error| error.within("input")),
        _ => {
            let message = "'input' must be a string or an array of items.";
            Err(Error::invalid("input", message).code("invalid_type"))
        }
    }
}

/// What was said, and what it changes.
pub(super) struct Told<'a> {
    pub(super) system: Vec<Part<'a>>,
    pub(super) contents: Vec<Content<'a>>,
    /// Tools that items bring along.
    pub(super) tools: Vec<&'a RawValue>,
    /// The last word on thinking and on the form of the answer, where items have one.
    pub(super) reasoning: Option<Reasoning<'a>>,
    pub(super) text: Option<TextConfig<'a>>,
}

pub(super) enum Turn<'a> {
    User(Vec<Part<'a>>),
    Model(Vec<Part<'a>>, Place),
    /// The results of a group of calls.
    Results(usize),
}

/// Which item something came from; nothing for items of earlier turns.
pub(super) type Place = Option<usize>;

fn param(place: Place) -> String {
    place.map_or_else(|| "input".to_owned(), |index| format!("input[{index}]"))
}

/// Says of parts that must be fetched first where they stand.
fn waiting(parts: &mut [Part<'_>], place: Place) {
    for waits in parts.iter_mut().filter_map(media::fetched_at) {
        *waits = format!("{}.{waits}", param(place));
    }
}

struct Call<'a> {
    id: Cow<'a, str>,
    name: Cow<'a, str>,
    place: Place,
    answer: Option<FunctionResponse<'a>>,
    /// Media of the result that the model takes only outside of it.
    beside: Vec<Part<'a>>,
}

pub(super) struct Builder<'a, 't> {
    pub(super) target: &'t Target<'t>,
    pub(super) signatures: &'t dyn Signatures,
    pub(super) history: &'a History,
    drops: &'t mut Drops,
    /// Code that Google ran goes back as such; to a model without the tool it is told as text.
    pub(super) runs_code: bool,
    /// What reasoning items brought along.
    pub(super) marks: Marks,
    /// Messages whose signatures were found by their ids.
    pub(super) signed: HashSet<String>,
    told: Told<'a>,
    pub(super) turns: Vec<Turn<'a>>,
    groups: Vec<Vec<Call<'a>>>,
    /// Where calls are, by call id and by item id: group and place in it.
    by_id: HashMap<Cow<'a, str>, Vec<(usize, usize)>>,
    steps: usize,
}

/// Translates everything that was said, oldest first.
pub(super) fn build<'a>(
    request: &Request<'a>,
    history: &'a History,
    target: &Target<'_>,
    signatures: &dyn Signatures,
    runs_code: bool,
    drops: &mut Drops,
) -> Result<Told<'a>> {
    let mut builder = Builder {
        target,
        signatures,
        history,
        drops,
        runs_code,
        marks: Marks::default(),
        signed: HashSet::new(),
        told: Told {
            system: Vec::new(),
            contents: Vec::new(),
            tools: Vec::new(),
            reasoning: None,
            text: None,
        },
        turns: Vec::new(),
        groups: Vec::new(),
        by_id: HashMap::new(),
        steps: 0,
    };
    if let Some(raw) = request.instructions {
        if !raw.get().starts_with('"') {
            let message = "'instructions' must be a string.";
            return Err(Error::invalid("instructions", message).code("invalid_type"));
        }
        let text: Text<'a> = read(raw).map_err(|error| error.within("instructions"))?;
        if !text.is_empty() {
            builder.told.system.push(Part::text(text));
        }
    }
    let given = match request.input {
        Some(input) => items(input)?,
        None => Vec::new(),
    };
    builder.gather_marks(given.iter().copied());
    for item in &history.items {
        builder.take(None, item).map_err(|error| error.within("input"))?;
    }
    if let Some(input) = request.input.filter(|input| input.get().starts_with('"')) {
        let text: Text<'a> = read(input).map_err(|error| error.within("input"))?;
        builder.user(if text.is_empty() { Vec::new() } else { vec![Part::text(text)] });
    }
    for (index, item) in given.into_iter().enumerate() {
        let place = |error: Error| match error.param() {
            Some("input") => error,
            _ => error.within(&format!("input[{index}]")),
        };
        builder.take(Some(index), item).map_err(place)?;
    }
    builder.finish()
}

impl<'a> Builder<'a, '_> {
    fn take(&mut self, place: Place, raw: &'a RawValue) -> Result<()> {
        self.steps += 1;
        if self.steps > MOST {
            let message = format!("A conversation may hold {MOST} items at most.");
            return Err(Error::invalid("", message).code("array_above_max_length"));
        }
        let item: Item<'a> = read(raw)?;
        if let Some(id) = reference(&item) {
            return self.refer(place, &id.decode());
        }
        let kind = item.kind.clone().unwrap_or(Cow::Borrowed("message"));
        match kind.as_ref() {
            "message" | "" => self.message(place, &item),
            "reasoning" => {
                self.reasoning(place, item);
                Ok(())
            }
            "function_call" | "custom_tool_call" | "shell_call" | "local_shell_call" | "apply_patch_call" => {
                self.call(place, &kind, item)
            }
            "function_call_output"
            | "custom_tool_call_output"
            | "shell_call_output"
            | "local_shell_call_output"
            | "apply_patch_call_output" => self.output(place, &kind, item),
            // What a search found is in the words behind it; Google's own record of it is among the marks.
            "web_search_call" => Ok(()),
            "code_interpreter_call" => {
                self.code(place, item);
                Ok(())
            }
            "image_generation_call" => self.picture(place, item),
            "compaction" | "compaction_summary" => self.compaction(item),
            "additional_tools" => {
                self.told.tools.extend(item.tools.unwrap_or_default());
                Ok(())
            }
            "configuration_update" => self.configure(&item),
            "item_reference" => Err(Error::invalid("id", "A reference needs the 'id' of an item.")
                .code("missing_required_parameter")),
            other => {
                let why = "items of this type cannot be told to Gemini";
                let named = |c: &char| c.is_ascii_alphanumeric() || *c == '_';
                let shown: String = other.chars().filter(named).take(40).collect();
                let name = format!("{}.type", param(place));
                let noted = self.drops.note(&format!("{name}({shown})"), why);
                noted.map_err(|error| error.at(if place.is_some() { "type" } else { "" }))
            }
        }
    }

    fn refer(&mut self, place: Place, id: &str) -> Result<()> {
        if let Some(item) = self.history.referenced.get(id) {
            let found: Item<'a> = read(item)?;
            if reference(&found).is_none() {
                return self.take(place, item);
            }
        }
        // What the history brings in anyway need not be repeated.
        let known = |item: &RawValue| {
            let item: Option<Item<'_>> = serde_json::from_str(item.get()).ok();
            item.is_some_and(|item| item.id.is_some_and(|known| known.decode() == id))
        };
        if self.history.items.iter().any(|item| known(item)) {
            return Ok(());
        }
        let shown: String = id.chars().take(80).collect();
        let message = format!(
            "Item with id '{shown}' not found. Items are only known while their response is kept: send the item itself, or keep responses with 'store'."
        );
        Err(Error::new(Kind::NotFound, Origin::Client, message).at("input"))
    }

    fn message(&mut self, place: Place, item: &Item<'a>) -> Result<()> {
        let content = || {
            item.content.ok_or_else(|| {
                Error::invalid("content", "This message needs a 'content': a string or parts.")
                    .code("missing_required_parameter")
            })
        };
        match item.role.as_deref() {
            Some("user") => {
                let mut parts = content::user(content()?, "content", self.target, self.drops)?;
                waiting(&mut parts, place);
                self.user(parts);
            }
            Some("system" | "developer") => self.told.system.extend(content::system(content()?)?),
            Some("assistant") => {
                let parts = content::assistant(content()?)?;
                let parts = match &item.id {
                    Some(id) => self.signed(parts, &id.decode()),
                    None => parts,
                };
                self.model(place, parts);
            }
            Some(other) => {
                let message = format!(
                    "Invalid value: '{}'. Supported values are: 'user', 'assistant', 'system' and 'developer'.",
                    other.chars().take(40).collect::<String>()
                );
                return Err(Error::invalid("role", message));
            }
            None => {
                let message = "An item needs a 'type', or a 'role' if it is a message.";
                return Err(Error::invalid("role", message).code("missing_required_parameter"));
            }
        }
        Ok(())
    }

    fn compaction(&mut self, item: Item<'a>) -> Result<()> {
        let sealed = item.encrypted_content.map(|sealed| sealed.decode()).unwrap_or_default();
        let mut found = false;
        for mark in marks::open(&sealed) {
            if let Mark::Summary { text } = mark {
                found = true;
                let text = format!("What was said before, in short:\n\n{text}");
                self.user(vec![Part::text(Text::plain(text))]);
            }
        }
        if found {
            return Ok(());
        }
        let message = "This compacted conversation was not made by this gateway and cannot be read here.";
        Err(Error::invalid("encrypted_content", message).code("invalid_encrypted_content"))
    }

    fn configure(&mut self, item: &Item<'a>) -> Result<()> {
        if let Some(raw) = item.reasoning.filter(|raw| raw.get().starts_with('{')) {
            self.told.reasoning = Some(read(raw).map_err(|error| error.within("reasoning"))?);
        }
        if let Some(raw) = item.text.filter(|raw| raw.get().starts_with('{')) {
            self.told.text = Some(read(raw).map_err(|error| error.within("text"))?);
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

    /// Adds to the model's turn; calls that nobody has answered yet do not end it.
    pub(super) fn model(&mut self, place: Place, parts: Vec<Part<'a>>) {
        if parts.is_empty() {
            return;
        }
        let waiting = match self.turns.last() {
            Some(Turn::Results(group)) => {
                self.groups.get(*group).is_some_and(|calls| calls.iter().all(|call| call.answer.is_none()))
            }
            _ => false,
        };
        let results = if waiting { self.turns.pop() } else { None };
        match self.turns.last_mut() {
            Some(Turn::Model(open, last)) => {
                open.extend(parts);
                *last = place;
            }
            _ => self.turns.push(Turn::Model(parts, place)),
        }
        self.turns.extend(results);
    }

    fn call(&mut self, place: Place, kind: &str, item: Item<'a>) -> Result<()> {
        let built = |raw: Option<&'a RawValue>, name: &'static str| {
            let fields = raw.and_then(|raw| serde_json::from_str(raw.get()).ok());
            let fields: serde_json::Map<_, _> = fields
                .ok_or_else(|| Error::invalid(name, format!("This call needs its '{name}': an object.")))?;
            Ok::<_, Error>(Args::Json(Json::Value(calls::arguments(kind, &fields))))
        };
        let (name, args): (Cow<'a, str>, Args<'a>) = match kind {
            "shell_call" => ("shell".into(), built(item.action, "action")?),
            "local_shell_call" => ("local_shell".into(), built(item.action, "action")?),
            "apply_patch_call" => ("apply_patch".into(), built(item.operation, "operation")?),
            _ => {
                let Some(name) = item.name.filter(|name| !name.is_empty()) else {
                    let error = Error::invalid("name", "A call needs the 'name' of its function.");
                    return Err(error.code("missing_required_parameter"));
                };
                let name = match item.namespace.filter(|namespace| !namespace.is_empty()) {
                    Some(namespace) => super::tools::within(&namespace, &name).into(),
                    None => name,
                };
                let args = if kind == "custom_tool_call" {
                    Args::Input { input: item.input.unwrap_or(Text::plain("")) }
                } else {
                    messages::arguments(item.arguments)?
                };
                (name, args)
            }
        };
        let own = item.id.map(|id| id.decode()).filter(|id| !id.is_empty());
        let given = item.call_id.map(|id| id.decode()).filter(|id| !id.is_empty());
        let Some(id) = given.or_else(|| own.clone()) else {
            let error = Error::invalid("call_id", "A call needs the 'call_id' that its output refers to.");
            return Err(error.code("missing_required_parameter"));
        };
        let call = FunctionCall {
            id: Some(id.clone()).filter(|_| self.target.traits.call_ids),
            name: names::fit(&name).into_owned().into(),
            args,
        };
        let signature = self.signature(&id);
        let part = Part { function_call: Some(call), thought_signature: signature, ..Part::default() };
        self.model(place, vec![part]);
        let group = if let Some(Turn::Results(group)) = self.turns.last() {
            *group
        } else {
            self.groups.push(Vec::new());
            let group = self.groups.len().saturating_sub(1);
            self.turns.push(Turn::Results(group));
            group
        };
        if let Some(calls) = self.groups.get_mut(group) {
            let at = (group, calls.len());
            if let Some(own) = own.filter(|own| *own != id) {
                self.by_id.entry(own).or_default().push(at);
            }
            self.by_id.entry(id.clone()).or_default().push(at);
            calls.push(Call { id, name, place, answer: None, beside: Vec::new() });
        }
        Ok(())
    }

    /// What a tool of the client's says without having been called: Codex tells its goals in this way. Gemini
    /// takes results of its own calls only, so it is told like a message.
    fn report(&mut self, place: Place, tool: &str, item: Item<'a>) -> Result<()> {
        let namespace = item.namespace.map(|namespace| format!("{namespace}.")).unwrap_or_default();
        let mut parts = vec![Part::text(Text::plain(format!("Output of the tool {namespace}{tool}:")))];
        match item.output {
            // A result may be an object, a message may not.
            Some(raw) if raw.get().starts_with('{') => parts.push(Part::text(Text::plain(raw.get()))),
            Some(raw) => parts.extend(content::user(raw, "output", self.target, self.drops)?),
            None => {}
        }
        waiting(&mut parts, place);
        self.user(parts);
        Ok(())
    }

    fn output(&mut self, place: Place, kind: &str, mut item: Item<'a>) -> Result<()> {
        let called = |id: &Text<'_>| self.by_id.contains_key(id.decode().as_ref());
        if item.call_id.is_none()
            && !item.id.as_ref().is_some_and(called)
            && let Some(tool) = item.name.take()
        {
            return self.report(place, &tool, item);
        }
        let given = item.call_id.or(item.id).map(|id| id.decode()).filter(|id| !id.is_empty());
        let Some(id) = given else {
            let error = Error::invalid("call_id", "An output needs the 'call_id' of the call it answers.");
            return Err(error.code("missing_required_parameter"));
        };
        let shown = || id.chars().take(80).collect::<String>();
        let places = self.by_id.get(&id).map(Vec::as_slice).unwrap_or_default();
        let open = |place: &&(usize, usize)| {
            self.groups
                .get(place.0)
                .and_then(|calls| calls.get(place.1))
                .is_some_and(|call| call.answer.is_none())
        };
        let Some(&(group, at)) = places.iter().find(open) else {
            let text = if places.is_empty() {
                format!("No tool call found for function call output with call_id {}.", shown())
            } else {
                format!("The tool call with call_id {} is answered more than once.", shown())
            };
            return Err(Error::invalid("input", text));
        };
        let mut said = outcome(kind, item.output, item.status.as_ref(), self.target, self.drops)?;
        waiting(&mut said.1, place);
        let Some(call) = self.groups.get_mut(group).and_then(|calls| calls.get_mut(at)) else {
            return Ok(());
        };
        let (response, beside) = messages::result(Some(call.id.clone()), &call.name, said, self.target);
        call.answer = Some(response);
        call.beside = beside;
        Ok(())
    }

    fn finish(mut self) -> Result<Told<'a>> {
        let mut unsigned = Unsigned::new(self.target, self.signatures);
        let last_user = self.turns.iter().rposition(|turn| matches!(turn, Turn::User(_)));
        let last = self.turns.len().saturating_sub(1);
        let mut contents = Vec::with_capacity(self.turns.len());
        for (at, turn) in self.turns.into_iter().enumerate() {
            match turn {
                Turn::User(parts) => contents.push(Content { role: Role::User, parts }),
                Turn::Model(mut parts, place) => {
                    if at == last && !self.target.traits.prefill {
                        let text = "This model cannot go on with an assistant's item: the input must end with a user's message or the output of a call.";
                        return Err(Error::unsupported(param(place), text).code("unsupported_value"));
                    }
                    let current = last_user.is_none_or(|user| at > user);
                    unsigned.step(&contents, &mut parts, current);
                    contents.push(Content { role: Role::Model, parts });
                }
                Turn::Results(group) => {
                    let calls = self.groups.get_mut(group).map(std::mem::take).unwrap_or_default();
                    close(calls, &mut contents)?;
                }
            }
        }
        self.told.contents = contents;
        Ok(self.told)
    }
}

/// Writes the results of one turn's calls; all of them must be there.
fn close<'a>(calls: Vec<Call<'a>>, contents: &mut Vec<Content<'a>>) -> Result<()> {
    let mut results = Vec::with_capacity(calls.len());
    let mut beside = Vec::new();
    for call in calls {
        let Some(answer) = call.answer else {
            let id: String = call.id.chars().take(80).collect();
            let text = format!("No tool output found for function call {id}.");
            return Err(Error::invalid(param(call.place), text));
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

/// What came of a call, by the kind of its output.
fn outcome<'a>(
    kind: &str,
    output: Option<&'a RawValue>,
    status: Option<&Text<'a>>,
    target: &Target<'_>,
    drops: &mut Drops,
) -> Result<(Outcome<'a>, Vec<Part<'a>>)> {
    let mut plain = |output: Option<&'a RawValue>| match output {
        None => Ok(Vec::new()),
        Some(raw) => content::user(raw, "output", target, drops),
    };
    match kind {
        "shell_call_output" => {
            let Some(raw) = output.filter(|raw| raw.get().starts_with('[')) else {
                return Ok(messages::gathered(plain(output)?));
            };
            let json = format!("{{\"output\":{}}}", raw.get());
            let json = RawValue::from_string(json).map_err(Error::internal)?;
            Ok((Outcome::Json(Json::Owned(json)), Vec::new()))
        }
        "apply_patch_call_output" => {
            let status = status.map_or(Cow::Borrowed("completed"), Text::decode);
            let said = match output {
                Some(raw) if raw.get().starts_with('"') => {
                    read::<Text<'a>>(raw).map_err(|error| error.within("output"))?.decode()
                }
                _ => Cow::Borrowed(""),
            };
            Ok((Outcome::Json(Json::Value(json!({"status": status, "output": said}))), Vec::new()))
        }
        _ if output.is_some_and(|raw| raw.get().starts_with('{')) => messages::outcome(output, target, drops),
        _ => Ok(messages::gathered(plain(output)?)),
    }
}
