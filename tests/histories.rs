//! Conversations that Google was really sent, written down as an OpenAI client would hold them, must be asked
//! of Google again as they were: texts, media, calls, results and signatures, in their order.

#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::fs;
use std::path::Path;
use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use gemway::catalog::Catalog;
use gemway::translate::chat::request::{ask, parse};
use gemway::translate::{Backend, Signatures, Target};
use gemway::wire;
use serde_json::{Map, Value, json};

#[path = "common/recordings.rs"]
mod recorded;

/// Remembers nothing: all signatures travel with the client.
#[derive(Debug)]
struct Forgetful;

impl Signatures for Forgetful {
    fn remember(&self, _: &str, _: &str) {}
    fn recall(&self, _: &str) -> Option<Arc<str>> {
        None
    }
}

const NO_SIGNATURE: &str = "skip_thought_signature_validator";

/// A name in camelCase, where Google takes both spellings.
fn camel(name: &str) -> String {
    let mut words = name.split('_');
    let first = words.next().unwrap_or_default().to_owned();
    words.fold(first, |name, word| {
        let (head, tail) = word.split_at(1.min(word.len()));
        name + &head.to_uppercase() + tail
    })
}

/// A part with its own names in camelCase; what clients put into arguments and results keeps its names.
fn part(part: &Value) -> Map<String, Value> {
    let object = part.as_object().unwrap();
    object
        .iter()
        .map(|(key, value)| {
            let inner = value.as_object().map(|inner| {
                Value::Object(inner.iter().map(|(key, value)| (camel(key), value.clone())).collect())
            });
            let value = inner.unwrap_or_else(|| value.clone());
            (camel(key), value)
        })
        .collect()
}

/// What was said, as a list: turns that one side may split or join do not matter, the order does.
fn said(contents: &Value, ids: bool) -> Vec<Value> {
    let mut out: Vec<Value> = Vec::new();
    for content in contents.as_array().unwrap() {
        let role = content["role"].as_str().unwrap_or("user");
        for one in content["parts"].as_array().unwrap() {
            let mut one = part(one);
            if one.contains_key("thought") || one.get("text").is_some_and(is_ours) {
                continue;
            }
            if one.get("thoughtSignature").is_some_and(|signature| signature == NO_SIGNATURE) {
                one.remove("thoughtSignature");
            }
            let mut media = Vec::new();
            for name in ["functionCall", "functionResponse"] {
                if let Some(Value::Object(inner)) = one.get_mut(name) {
                    if !ids {
                        inner.remove("id");
                    }
                    media =
                        inner.remove("parts").and_then(|parts| parts.as_array().cloned()).unwrap_or_default();
                    if let Some(Value::Object(response)) = inner.get_mut("response")
                        && response.get("media").is_some_and(|media| media[0].get("$ref").is_some())
                    {
                        // How Vertex AI finds the media that stand beside.
                        response.remove("media");
                    }
                    if inner.get("response").is_some_and(|response| *response == json!({"output": ""})) {
                        inner.insert("response".to_owned(), json!({}));
                    }
                }
            }
            // A signature on an empty text belongs to the text before it.
            if one.get("text").is_some_and(|text| text == "")
                && let Some(signature) = one.get("thoughtSignature").cloned()
                && let Some(last) = out.last_mut()
            {
                last["part"]["thoughtSignature"] = signature;
                continue;
            }
            out.push(json!({"role": role, "part": one}));
            out.extend(media.iter().map(|one| json!({"role": role, "part": part(one)})));
        }
    }
    for one in &mut out {
        for name in ["inlineData", "fileData"] {
            if let Some(Value::Object(media)) = one["part"].get_mut(name) {
                media.remove("displayName");
                if let Some(Value::String(data)) = media.get_mut("data") {
                    *data = data.replace('-', "+").replace('_', "/");
                }
            }
        }
    }
    out
}

fn is_ours(text: &Value) -> bool {
    text.as_str().is_some_and(|text| text.starts_with("Media in the result of "))
}

fn media(part: &Map<String, Value>) -> Option<Value> {
    if let Some(text) = part.get("text") {
        return Some(json!({"type": "text", "text": text}));
    }
    let mut made = if let Some(blob) = part.get("inlineData") {
        let (mime, data) = (blob["mimeType"].as_str()?, blob["data"].as_str()?);
        let url = format!("data:{mime};base64,{data}");
        if mime.starts_with("image/") {
            json!({"type": "image_url", "image_url": {"url": url}})
        } else {
            json!({"type": "file", "file": {"file_data": url}})
        }
    } else {
        let file = part.get("fileData")?;
        json!({"type": "file", "file": {"file_id": file["fileUri"], "format": file["mimeType"]}})
    };
    if let Some(video) = part.get("videoMetadata") {
        made["video_metadata"] = video.clone();
    }
    Some(made)
}

/// The conversation as a client holds it; nothing where Chat Completions has no words for a part of it.
fn messages(request: &Value) -> Option<Vec<Value>> {
    let mut out = Vec::new();
    let system = request.get("systemInstruction").or_else(|| request.get("system_instruction"));
    if let Some(parts) = system.and_then(|system| system["parts"].as_array()) {
        let texts: Vec<Value> =
            parts.iter().map(|one| json!({"type": "text", "text": one["text"]})).collect();
        out.push(json!({"role": "system", "content": texts}));
    }
    let mut open: Vec<String> = Vec::new();
    for content in request["contents"].as_array()? {
        let parts: Vec<_> = content["parts"].as_array()?.iter().map(part).collect();
        if content["role"] == "model" {
            let (mut texts, mut calls) = (Vec::new(), Vec::new());
            let mut message = json!({"role": "assistant", "content": null});
            for one in parts.iter().filter(|one| !one.contains_key("thought")) {
                let signed = one.get("thoughtSignature").map(|s| json!({"google": {"thought_signature": s}}));
                if let Some(call) = one.get("functionCall") {
                    let id =
                        call["id"].as_str().map_or_else(|| format!("call_{}", calls.len()), str::to_owned);
                    let function = json!({"name": call["name"], "arguments": call["args"].to_string()});
                    let mut made = json!({"id": id, "type": "function", "function": function});
                    if let Some(signed) = signed {
                        made["extra_content"] = signed;
                    }
                    open.push(id);
                    calls.push(made);
                } else {
                    texts.push(json!({"type": "text", "text": one.get("text")?}));
                    if let Some(signed) = signed {
                        message["extra_content"] = signed;
                    }
                }
            }
            if !texts.is_empty() {
                message["content"] = texts.into();
            }
            if !calls.is_empty() {
                message["tool_calls"] = calls.into();
            }
            out.push(message);
            continue;
        }
        let mut own = Vec::new();
        for one in &parts {
            let Some(response) = one.get("functionResponse") else {
                own.push(media(one)?);
                continue;
            };
            let id = if open.is_empty() { return None } else { open.remove(0) };
            let inner: Vec<_> = response["parts"].as_array().into_iter().flatten().map(part).collect();
            let empty = response["response"] == json!({});
            let text = json!({"type": "text", "text": response["response"].to_string()});
            let mut parts: Vec<Value> = if empty && !inner.is_empty() { Vec::new() } else { vec![text] };
            for one in &inner {
                parts.push(media(one)?);
            }
            out.push(json!({"role": "tool", "tool_call_id": id, "content": parts}));
        }
        if !own.is_empty() {
            out.push(json!({"role": "user", "content": own}));
        }
    }
    Some(out)
}

/// Rebuilds and asks again; whether there was a history that could be told.
fn again(path: &Path, catalog: &Catalog) -> bool {
    let recording: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    let request = &recording["request"];
    let several = request["contents"].as_array().is_some_and(|contents| contents.len() > 1);
    let Some(messages) = several.then(|| messages(request)).flatten() else { return false };
    let model = recording["path"].as_str().unwrap().rsplit('/').next().unwrap();
    let model = model.split(':').next().unwrap();
    let backend = if recording["host"].as_str().unwrap().contains("aiplatform") {
        Backend::Vertex
    } else {
        Backend::GeminiApi
    };
    let traits = catalog.traits(model);
    let target = Target { model, traits, backend, strict: false };
    let body = Bytes::from(json!({"model": model, "messages": messages}).to_string());
    let made = ask(parse(&body).unwrap(), &target, &Forgetful);
    let made = made.unwrap_or_else(|error| panic!("{}: {error:?}", path.display()));
    let sent: Value = serde_json::from_slice(&wire::encode(&made.request, &body).unwrap().join()).unwrap();
    let ids = request.to_string().contains("\"id\":") && traits.call_ids;
    let (sent, recorded) = (said(&sent["contents"], ids), said(&request["contents"], ids));
    for (sent, recorded) in sent.iter().zip(&recorded) {
        assert_eq!(sent, recorded, "{}", path.display());
    }
    assert_eq!(sent.len(), recorded.len(), "{}", path.display());
    true
}

fn check(path: &Path) -> bool {
    static CATALOG: LazyLock<Catalog> = LazyLock::new(|| Catalog::builtin().unwrap());
    again(path, &CATALOG)
}

#[test]
fn the_copies_here() {
    let told = recorded::copies().iter().filter(|file| check(file)).count();
    assert!(told >= 12, "{told} only");
}

#[test]
#[ignore = "needs the whole collection, at GEMWAY_RECORDINGS"]
fn the_whole_collection() {
    let told = recorded::collection().iter().filter(|file| check(file)).count();
    assert!(told >= 40, "{told} only");
}
