//! The fields of a response that repeat its request.
//!
//! Clients validate them: what they left out is filled in with the defaults, and what their types do not know is
//! left out.

use serde::Serialize;
use serde_json::value::RawValue;

use crate::openai::responses::{Format, Reasoning, Request, TextConfig, Tool};
use crate::translate::chat::partial::compact;
use crate::wire::Text;

#[derive(Serialize)]
struct Echo<'e> {
    background: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    conversation: Option<Conversation<'e>>,
    instructions: Option<&'e RawValue>,
    max_output_tokens: Option<i64>,
    max_tool_calls: Option<i64>,
    metadata: Option<&'e RawValue>,
    parallel_tool_calls: bool,
    previous_response_id: Option<&'e Text<'e>>,
    prompt_cache_key: Option<&'e Text<'e>>,
    reasoning: Thinking,
    safety_identifier: Option<&'e Text<'e>>,
    store: bool,
    temperature: Option<f64>,
    text: Form<'e>,
    tool_choice: Option<&'e RawValue>,
    tools: Vec<Told<'e>>,
    top_logprobs: i64,
    top_p: Option<f64>,
    truncation: &'static str,
    user: Option<&'e Text<'e>>,
}

#[derive(Serialize)]
struct Conversation<'e> {
    id: Text<'e>,
}

#[derive(Serialize)]
struct Thinking {
    effort: Option<&'static str>,
    summary: Option<&'static str>,
}

#[derive(Serialize)]
struct Form<'e> {
    format: Shape<'e>,
    verbosity: &'static str,
}

#[derive(Serialize)]
struct Shape<'e> {
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<Text<'e>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'e Text<'e>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    schema: Option<&'e RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    strict: Option<bool>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Told<'e> {
    AsItCame(&'e RawValue),
    Function(Function<'e>),
}

#[derive(Serialize)]
struct Function<'e> {
    #[serde(rename = "type")]
    kind: &'static str,
    name: String,
    description: Option<Text<'e>>,
    parameters: Option<&'e RawValue>,
    strict: bool,
}

fn word(text: Option<&Text<'_>>, known: &[&'static str]) -> Option<&'static str> {
    let text = text?.decode();
    known.iter().find(|known| **known == text).copied()
}

fn told(raw: &RawValue) -> Told<'_> {
    // A function's optional fields are not optional in what the SDKs expect back.
    match serde_json::from_str::<Tool<'_>>(raw.get()) {
        Ok(tool) if tool.kind == "function" && (tool.strict.is_none() || tool.parameters.is_none()) => {
            Told::Function(Function {
                kind: "function",
                name: tool.name.unwrap_or_default().into_owned(),
                description: tool.description,
                parameters: tool.parameters,
                strict: tool.strict.unwrap_or(false),
            })
        }
        _ => Told::AsItCame(raw),
    }
}

fn form<'e>(config: Option<&'e TextConfig<'e>>, empty: &'e RawValue) -> Form<'e> {
    let format: Option<&Format<'_>> = config.and_then(|config| config.format.as_ref());
    let plain = |kind| Shape { kind, name: None, description: None, schema: None, strict: None };
    let format = match format {
        Some(format) if format.kind == "json_schema" => Shape {
            kind: "json_schema",
            name: Some(format.name.clone().unwrap_or(Text::plain("answer"))),
            description: format.description.as_ref(),
            schema: Some(format.schema.unwrap_or(empty)),
            strict: Some(format.strict.unwrap_or(false)),
        },
        Some(format) if format.kind == "json_object" => plain("json_object"),
        _ => plain("text"),
    };
    let verbosity = word(config.and_then(|config| config.verbosity.as_ref()), &["low", "medium", "high"]);
    Form { format, verbosity: verbosity.unwrap_or("medium") }
}

fn thinking(reasoning: Option<&Reasoning<'_>>) -> Thinking {
    const EFFORTS: &[&str] = &["none", "minimal", "low", "medium", "high", "xhigh", "max"];
    let summary = reasoning.and_then(|said| said.summary.as_ref().or(said.generate_summary.as_ref()));
    Thinking {
        effort: word(reasoning.and_then(|said| said.effort.as_ref()), EFFORTS),
        summary: word(summary, &["auto", "concise", "detailed"]),
    }
}

/// The tier that was asked for, if Google has it.
pub(super) fn tier(request: &Request<'_>) -> Option<&'static str> {
    word(request.service_tier.as_ref(), &["default", "flex", "priority"])
}

/// The id in `conversation`, which is a string or an object.
pub(super) fn conversation(raw: &RawValue) -> Option<Text<'_>> {
    #[derive(serde::Deserialize)]
    struct Named<'a> {
        #[serde(borrow)]
        id: Text<'a>,
    }
    if raw.get().starts_with('"') {
        return Text::from_raw(raw).ok();
    }
    serde_json::from_str::<Named<'_>>(raw.get()).ok().map(|named| named.id)
}

/// The fields without the braces around them.
pub(super) fn of(request: &Request<'_>) -> String {
    let Ok(empty) = RawValue::from_string("{}".to_owned()) else { return String::new() };
    let Ok(auto) = RawValue::from_string("\"auto\"".to_owned()) else { return String::new() };
    let echo = Echo {
        background: request.background.unwrap_or(false),
        conversation: request.conversation.and_then(conversation).map(|id| Conversation { id }),
        instructions: request.instructions,
        max_output_tokens: request.max_output_tokens,
        max_tool_calls: request.max_tool_calls,
        metadata: Some(request.metadata.unwrap_or(&empty)),
        parallel_tool_calls: request.parallel_tool_calls.unwrap_or(true),
        previous_response_id: request.previous_response_id.as_ref(),
        prompt_cache_key: request.prompt_cache_key.as_ref(),
        reasoning: thinking(request.reasoning.as_ref()),
        safety_identifier: request.safety_identifier.as_ref(),
        store: request.store.unwrap_or(true),
        temperature: request.temperature.or(Some(1.0)),
        text: form(request.text.as_ref(), &empty),
        tool_choice: Some(request.tool_choice.unwrap_or(&auto)),
        tools: request.tools.iter().flatten().map(|raw| told(raw)).collect(),
        top_logprobs: request.top_logprobs.unwrap_or(0),
        top_p: request.top_p.or(Some(1.0)),
        truncation: word(request.truncation.as_ref(), &["auto"]).unwrap_or("disabled"),
        user: request.user.as_ref(),
    };
    // Raw values and strings cannot fail to serialize.
    let json = serde_json::to_string(&echo).unwrap_or_default();
    // The client's own line breaks would end an event.
    let json = compact(&json);
    json.strip_prefix('{').and_then(|json| json.strip_suffix('}')).unwrap_or_default().to_owned()
}
