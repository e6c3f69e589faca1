//! Interactions: the same answers as `generateContent` gives, as steps.

use std::fmt::Write as _;

use http::Response;
use serde_json::{Map, Value, json};

use super::super::faults::Fault;
use super::super::rules::{self, Way};
use super::super::schema_fields::{GENERATE, Side};
use super::super::script::Piece;
use super::super::{JSON, Simulator, json_reply, models, script, validate};
use super::{Ask, Kept, empty, now, time, word};
use crate::body::{self, Body};

/// How long one in the background takes, in milliseconds.
const TAKES: u64 = 300;
/// The revision since which answers are made of steps.
const STEPS_SINCE: &str = "2026-05-20";

const KNOWN: &[&str] = &[
    "model",
    "agent",
    "input",
    "system_instruction",
    "tools",
    "generation_config",
    "response_format",
    "previous_interaction_id",
    "store",
    "background",
    "stream",
    "service_tier",
    "safety_settings",
    "labels",
    "environment",
    "agent_config",
    "continuation_token",
    "webhook_config",
    "response_mime_type",
    "response_modalities",
    "cached_content",
];

/// One interaction.
#[derive(Clone, Debug)]
pub(super) struct Interaction {
    /// What is shown of it at its end, with its steps.
    shown: Map<String, Value>,
    /// The turns so far, as `generateContent` takes them.
    contents: Vec<Value>,
    input: Vec<Value>,
    /// When it is over.
    ends: u64,
    cancelled: bool,
}

impl Interaction {
    fn show(&self, with_input: bool) -> Value {
        let mut shown = self.shown.clone();
        if self.cancelled {
            shown.insert("status".into(), "cancelled".into());
        } else if now() < self.ends {
            shown.insert("status".into(), "in_progress".into());
        }
        if self.cancelled || now() < self.ends {
            shown.remove("steps");
            shown.remove("usage");
        } else if with_input && let Some(Value::Array(steps)) = shown.get_mut("steps") {
            let made = std::mem::take(steps);
            *steps = self.input.iter().cloned().chain(made).collect();
        }
        Value::Object(shown)
    }
}

pub(super) fn serve(simulator: &Simulator, ask: &Ask<'_>) -> Response<Body> {
    let kept = &simulator.kept;
    let (id, rest) = ask.named();
    let missing = || word(404, "not_found", format!("Interaction {id} was not found."));
    match (ask.method.as_str(), id, rest) {
        ("POST", "", "") => create(kept, ask).unwrap_or_else(|refusal| *refusal),
        ("GET", id, "") => {
            let found = kept.interactions.lock().get(id).cloned();
            let Some(found) = found else { return missing() };
            if ask.query.get("stream") == Some("true") {
                return events(&found, id, ask.query.get("last_event_id"));
            }
            json_reply(&found.show(ask.query.get("include_input") == Some("true")))
        }
        ("POST", id, "cancel") => {
            let mut shelf = kept.interactions.lock();
            let Some(found) = shelf.get(id) else { return missing() };
            if now() >= found.ends {
                return word(400, "failed_precondition", "Only an interaction in progress can be cancelled.");
            }
            found.cancelled = true;
            json_reply(&found.show(false))
        }
        ("DELETE", id, "") => kept.interactions.lock().take(id).map_or_else(missing, |_| empty()),
        _ => word(404, "not_found", "Method not found."),
    }
}

type Made = Result<Response<Body>, Box<Response<Body>>>;

fn refuse<T>(code: &str, message: impl Into<String>) -> Result<T, Box<Response<Body>>> {
    Err(Box::new(word(if code.ends_with("not_found") { 404 } else { 400 }, code, message)))
}

fn create(kept: &Kept, ask: &Ask<'_>) -> Made {
    let asked = ask.json().or_else(|refusal| refuse("invalid_request", refusal.message))?;
    if let Some(name) = asked.keys().find(|name| !KNOWN.contains(&name.as_str())) {
        return refuse("parameter_unknown", format!("Unknown parameter: {name}"));
    }
    let text = |name: &str| asked.get(name).and_then(Value::as_str);
    let flag = |name: &str| asked.get(name).and_then(Value::as_bool).unwrap_or(false);
    let stores = asked.get("store").and_then(Value::as_bool).unwrap_or(true);
    let background = flag("background");
    if background && !stores {
        return refuse("invalid_request", "store=false cannot be used with background=true.");
    }
    let agent = text("agent");
    let model = match (text("model"), agent) {
        (Some(model), None) => model,
        (None, Some(_)) if !background => {
            return refuse("invalid_request", "Agents run in the background: set background=true.");
        }
        // An agent thinks with some model of its own.
        (None, Some(_)) => "gemini-3.8-flash",
        _ => return refuse("invalid_request", "Exactly one of model and agent must be set."),
    };
    let Some(family) = models::find(model.trim_start_matches("models/")) else {
        return refuse("model_not_found", format!("Model {model} was not found."));
    };
    let input = steps(asked.get("input"))?;
    let mut contents = Vec::new();
    if let Some(previous) = text("previous_interaction_id") {
        let found = kept.interactions.lock().get(previous).cloned();
        let Some(found) = found else {
            return refuse("not_found", format!("Interaction {previous} was not found."));
        };
        if now() < found.ends {
            return refuse("failed_precondition", format!("Interaction {previous} is in progress."));
        }
        contents = found.contents;
    }
    contents.extend(input.iter().filter_map(content));
    let generate = generate(&asked, &contents);
    let body = generate.to_string();
    let checked = validate::parse(body.as_bytes(), &GENERATE, Side::Gemini)
        .and_then(|ask| rules::check(&ask, family, Way { vertex: false, stream: true }).map(|()| ask));
    let checked = checked.or_else(|refusal| refuse("invalid_request", refusal.message))?;
    let answer = script::answer(&checked, body.as_bytes(), family, Fault::None);
    let mut shelf = kept.interactions.lock();
    let id = shelf.name("v1_");
    let mut shown = Map::new();
    shown.insert("id".into(), id.as_str().into());
    shown.insert("object".into(), "interaction".into());
    match agent {
        Some(agent) => shown.insert("agent".into(), agent.into()),
        None => shown.insert("model".into(), model.into()),
    };
    let (made, turn, calls) = said(&answer);
    let status = match (calls, answer.finish) {
        (true, _) => "requires_action",
        (false, "MAX_TOKENS") => "incomplete",
        (false, _) => "completed",
    };
    shown.insert("status".into(), status.into());
    shown.insert("created".into(), time(now()).into());
    shown.insert("updated".into(), time(now()).into());
    let old = ask
        .headers
        .get("api-revision")
        .and_then(|value| value.to_str().ok())
        .is_some_and(|r| r < STEPS_SINCE);
    if old {
        shown.insert("outputs".into(), outputs(&made));
    } else {
        shown.insert("steps".into(), Value::Array(made));
    }
    let (input_tokens, all) =
        (answer.prompt.total(), answer.prompt.total() + answer.tokens + answer.thoughts);
    shown.insert(
        "usage".into(),
        json!({
            "total_input_tokens": input_tokens,
            "input_tokens_by_modality": [{ "modality": "text", "tokens": input_tokens }],
            "total_cached_tokens": 0,
            "total_output_tokens": answer.tokens,
            "total_thought_tokens": answer.thoughts,
            "total_tool_use_tokens": 0,
            "total_tokens": all,
        }),
    );
    if let Some(previous) = text("previous_interaction_id") {
        shown.insert("previous_interaction_id".into(), previous.into());
    }
    contents.push(turn);
    let ends = if background { now() + TAKES } else { 0 };
    let interaction = Interaction { shown, contents, input, ends, cancelled: false };
    let reply =
        if flag("stream") { events(&interaction, &id, None) } else { json_reply(&interaction.show(false)) };
    if stores {
        shelf.put(id, interaction);
    }
    Ok(reply)
}

/// The input as steps: a text, one content, contents, steps, or turns with a role as they were once written.
fn steps(input: Option<&Value>) -> Result<Vec<Value>, Box<Response<Body>>> {
    const CONTENTS: [&str; 5] = ["text", "image", "audio", "video", "document"];
    let user = |content: Value| json!({ "type": "user_input", "content": content });
    match input {
        Some(Value::String(text)) => Ok(vec![user(json!([{ "type": "text", "text": text }]))]),
        Some(content @ Value::Object(_)) => Ok(vec![user(json!([content]))]),
        Some(Value::Array(items)) if !items.is_empty() => {
            let kind = |item: &Value| item.get("type").and_then(Value::as_str).unwrap_or_default().to_owned();
            if items.iter().all(|item| CONTENTS.contains(&kind(item).as_str())) {
                return Ok(vec![user(Value::Array(items.clone()))]);
            }
            let step = |item: &Value| match item.get("role").and_then(Value::as_str) {
                Some(role) => {
                    let content = match item.get("content") {
                        Some(Value::String(text)) => json!([{ "type": "text", "text": text }]),
                        Some(content @ Value::Array(_)) => content.clone(),
                        other => json!([other]),
                    };
                    json!({ "type": if role == "model" { "model_output" } else { "user_input" }, "content": content })
                }
                None => item.clone(),
            };
            Ok(items.iter().map(step).collect())
        }
        _ => refuse("invalid_request", "input must not be empty."),
    }
}

/// A step as a content; nothing for what only the model makes of it.
fn content(step: &Value) -> Option<Value> {
    let text =
        |value: &Value, name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (role, parts) = match text(step, "type").as_str() {
        kind @ ("user_input" | "model_output") => {
            let items = step.get("content").and_then(Value::as_array).cloned().unwrap_or_default();
            let part = |item: &Value| match (item.get("data"), item.get("uri")) {
                (Some(data), _) => {
                    json!({ "inlineData": { "mimeType": text(item, "mime_type"), "data": data } })
                }
                (None, Some(uri)) => {
                    json!({ "fileData": { "mimeType": text(item, "mime_type"), "fileUri": uri } })
                }
                (None, None) => json!({ "text": text(item, "text") }),
            };
            let role = if kind == "user_input" { "user" } else { "model" };
            (role, items.iter().map(part).collect::<Vec<_>>())
        }
        "function_call" => {
            let call =
                json!({ "name": step.get("name"), "args": step.get("arguments"), "id": step.get("id") });
            // Steps carry no signature of their own; the simulator takes Google's word for "unchecked".
            let part =
                json!({ "functionCall": call, "thoughtSignature": "skip_thought_signature_validator" });
            ("model", vec![part])
        }
        "function_result" => {
            let response = match step.get("result") {
                Some(result @ Value::Object(_)) => result.clone(),
                other => json!({ "result": other }),
            };
            let name = text(step, "name");
            let answer = json!({ "name": name, "id": step.get("call_id"), "response": response });
            ("user", vec![json!({ "functionResponse": answer })])
        }
        _ => return None,
    };
    Some(json!({ "role": role, "parts": parts }))
}

/// What `generateContent` would be asked.
fn generate(asked: &Map<String, Value>, contents: &[Value]) -> Value {
    // One turn may have come as several steps.
    let mut turns: Vec<Value> = Vec::new();
    for content in contents {
        let role = |value: &Value| value.get("role").cloned();
        match turns.last_mut() {
            Some(last) if role(last) == role(content) => {
                let more = content.get("parts").and_then(Value::as_array).cloned().unwrap_or_default();
                if let Some(Value::Array(parts)) = last.get_mut("parts") {
                    parts.extend(more);
                }
            }
            _ => turns.push(content.clone()),
        }
    }
    let mut generate = json!({ "contents": turns });
    let Some(map) = generate.as_object_mut() else { return generate };
    if let Some(system) = asked.get("system_instruction") {
        map.insert("systemInstruction".into(), json!({ "parts": [{ "text": system }] }));
    }
    let functions: Vec<Value> = asked
        .get("tools")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter(|tool| tool.get("type").and_then(Value::as_str) == Some("function"))
        .map(|tool| {
            json!({
                "name": tool.get("name"),
                "description": tool.get("description"),
                "parametersJsonSchema": tool.get("parameters"),
            })
        })
        .collect();
    if !functions.is_empty() {
        map.insert("tools".into(), json!([{ "functionDeclarations": functions }]));
    }
    let format = asked.get("response_format").and_then(|format| format.get("schema"));
    let most = asked.get("generation_config").and_then(|config| config.get("max_output_tokens"));
    let mut config = Map::new();
    if let Some(schema) = format {
        config.insert("responseMimeType".into(), JSON.split(';').next().unwrap_or(JSON).into());
        config.insert("responseJsonSchema".into(), schema.clone());
    }
    if let Some(most) = most {
        config.insert("maxOutputTokens".into(), most.clone());
    }
    map.insert("generationConfig".into(), Value::Object(config));
    generate
}

/// The answer as steps and as a turn, and whether it calls functions.
fn said(answer: &script::Answer) -> (Vec<Value>, Value, bool) {
    let (mut steps, mut parts, mut calls) = (Vec::new(), Vec::new(), false);
    if let Some(signature) = &answer.signature {
        steps.push(json!({ "type": "thought", "signature": signature }));
    }
    for piece in answer.candidates.first().into_iter().flatten() {
        match piece {
            Piece::Thought(_) => {}
            Piece::Text(text) => {
                steps.push(json!({ "type": "model_output", "content": [{ "type": "text", "text": text }] }));
                parts.push(json!({ "text": text }));
            }
            Piece::Part(part) => {
                if let Some(call) = part.get("functionCall") {
                    calls = true;
                    steps.push(json!({
                        "type": "function_call",
                        "id": call.get("id").cloned().unwrap_or_else(|| "call_0".into()),
                        "name": call.get("name"),
                        "arguments": call.get("args"),
                    }));
                }
                parts.push(part.clone());
            }
        }
    }
    (steps, json!({ "role": "model", "parts": parts }), calls)
}

/// Steps as they were shown once.
fn outputs(steps: &[Value]) -> Value {
    let flat = steps.iter().flat_map(|step| match step.get("content") {
        Some(Value::Array(contents)) => contents.clone(),
        _ => vec![step.clone()],
    });
    Value::Array(flat.collect())
}

/// The interaction as events; those up to and with `after` are left out.
fn events(interaction: &Interaction, id: &str, after: Option<&str>) -> Response<Body> {
    let mut all: Vec<Value> = Vec::new();
    let whole = interaction.show(false);
    let mut brief = whole.clone();
    if let Some(map) = brief.as_object_mut() {
        map.remove("steps");
        map.remove("usage");
        map.insert("status".into(), "in_progress".into());
    }
    all.push(json!({ "interaction": brief, "event_type": "interaction.created" }));
    all.push(
        json!({ "interaction_id": id, "status": "in_progress", "event_type": "interaction.status_update" }),
    );
    let steps = interaction.shown.get("steps").and_then(Value::as_array).cloned().unwrap_or_default();
    for (index, step) in steps.iter().enumerate() {
        let kind = step.get("type").and_then(Value::as_str).unwrap_or_default();
        let (start, deltas) = match kind {
            "model_output" => {
                let text = step.pointer("/content/0/text").and_then(Value::as_str).unwrap_or_default();
                let words = text.split_inclusive(' ').map(|word| json!({ "type": "text", "text": word }));
                (json!({ "type": kind }), words.collect())
            }
            "function_call" => {
                let mut start = step.clone();
                if let Some(map) = start.as_object_mut() {
                    map.insert("arguments".into(), json!({}));
                }
                let arguments = step.get("arguments").map(Value::to_string);
                (start, vec![json!({ "type": "arguments_delta", "arguments": arguments })])
            }
            _ => {
                let signature = step.get("signature");
                (
                    json!({ "type": kind }),
                    vec![json!({ "type": "thought_signature", "signature": signature })],
                )
            }
        };
        all.push(json!({ "index": index, "step": start, "event_type": "step.start" }));
        all.extend(
            deltas
                .into_iter()
                .map(|delta| json!({ "index": index, "delta": delta, "event_type": "step.delta" })),
        );
        all.push(json!({ "index": index, "event_type": "step.stop" }));
    }
    let mut end = whole;
    if let Some(map) = end.as_object_mut() {
        map.remove("steps");
    }
    all.push(json!({ "interaction": end, "event_type": "interaction.completed" }));
    let mut text = String::new();
    let skip = after
        .and_then(|after| after.strip_prefix('e'))
        .and_then(|n| n.parse::<usize>().ok())
        .map_or(0, |n| n + 1);
    for (number, mut event) in all.into_iter().enumerate().skip(skip) {
        if let Some(map) = event.as_object_mut() {
            map.insert("event_id".into(), format!("e{number}").into());
        }
        let name = event.get("event_type").and_then(Value::as_str).unwrap_or_default();
        // Writing to a string cannot fail.
        let _ = write!(text, "event: {name}\ndata: {event}\n\n");
    }
    text.push_str("event: done\ndata: [DONE]\n\n");
    super::super::head(http::StatusCode::OK, "text/event-stream", body::full(text))
}
