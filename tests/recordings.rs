//! Every reply that Google really gave comes through both translators whole.

#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test may fail loudly")]

use std::fs;
use std::path::Path;

use bytes::{Bytes, BytesMut};
use gemway::error::Kind;
use gemway::translate::chat::{Shape, reply, stream::ChatMachine};
use gemway::translate::{Machine, fault};
use serde_json::Value;

#[path = "common/recordings.rs"]
mod recorded;
#[path = "common/streamed.rs"]
mod streams;

use self::streams::{decode, stamp, streamed};

/// What must come through, read in the simplest way from what Google sent.
#[derive(Debug, Default, PartialEq)]
struct Said {
    texts: Vec<String>,
    thoughts: String,
    calls: Vec<(String, Value)>,
    images: usize,
    cited: Vec<String>,
    counts: [u64; 4],
}

fn said(events: &[Bytes]) -> Said {
    let mut said = Said::default();
    for event in events {
        let event: Value = serde_json::from_slice(event).unwrap();
        let empty = Vec::new();
        for part in event["candidates"][0]["content"]["parts"].as_array().unwrap_or(&empty) {
            let text = part["text"].as_str().unwrap_or_default();
            if part["thought"] == true {
                said.thoughts.push_str(text);
            } else {
                said.texts.push(text.to_owned());
            }
            if let Some(call) = part.get("functionCall") {
                let args = call.get("args").cloned().unwrap_or_else(|| Value::Object(serde_json::Map::new()));
                said.calls.push((call["name"].as_str().unwrap().to_owned(), args));
            }
            for code in [&part["executableCode"]["code"], &part["codeExecutionResult"]["output"]] {
                said.texts.extend(code.as_str().map(|code| code.trim().to_owned()));
            }
            let image = part["inlineData"]["mimeType"].as_str().unwrap_or_default().starts_with("image/");
            said.images += usize::from(image);
        }
        for support in
            event["candidates"][0]["groundingMetadata"]["groundingSupports"].as_array().unwrap_or(&empty)
        {
            let segment = support["segment"]["text"].as_str().unwrap().to_owned();
            let sources = support["groundingChunkIndices"].as_array().map_or(0, Vec::len);
            said.cited.extend(std::iter::repeat_n(segment, sources));
        }
        let names =
            ["promptTokenCount", "candidatesTokenCount", "thoughtsTokenCount", "toolUsePromptTokenCount"];
        for (count, name) in said.counts.iter_mut().zip(names) {
            *count = event["usageMetadata"][name].as_u64().unwrap_or(*count);
        }
    }
    said
}

/// One message put together from a stream, as a client does it.
fn gather(frames: &str) -> Value {
    let (mut message, mut usage) = (serde_json::json!({"content": ""}), Value::Null);
    let append = |slot: &mut Value, more: &str| {
        *slot = format!("{}{more}", slot.as_str().unwrap_or_default()).into();
    };
    let mut calls: Vec<Value> = Vec::new();
    let mut images = Vec::new();
    for frame in frames.split("\n\n").filter(|frame| frame.starts_with("data: {")) {
        let chunk: Value = serde_json::from_str(frame.strip_prefix("data: ").unwrap()).unwrap();
        if !chunk["usage"].is_null() {
            usage = chunk["usage"].clone();
        }
        let delta = &chunk["choices"][0]["delta"];
        for field in ["content", "reasoning_content"] {
            append(&mut message[field], delta[field].as_str().unwrap_or_default());
        }
        for call in delta["tool_calls"].as_array().into_iter().flatten() {
            if call.get("id").is_some() {
                calls.push(call.clone());
            } else {
                let arguments = call["function"]["arguments"].as_str().unwrap();
                append(&mut calls.last_mut().unwrap()["function"]["arguments"], arguments);
            }
        }
        if let Some(annotations) = delta.get("annotations") {
            message["annotations"] = annotations.clone();
        }
        images.extend(delta["images"].as_array().into_iter().flatten().cloned());
    }
    message["tool_calls"] = calls.into();
    message["images"] = images.into();
    serde_json::json!({"choices": [{"message": message}], "usage": usage})
}

fn compare(file: &Path, said: &Said, reply: &Value) {
    let message = &reply["choices"][0]["message"];
    let content = message["content"].as_str().unwrap_or_default();
    let name = file.display();
    let code = content.contains("```");
    if !code {
        assert_eq!(content, said.texts.concat(), "{name}");
    }
    let mut rest = content;
    for text in &said.texts {
        let at =
            rest.find(text.as_str()).unwrap_or_else(|| panic!("{name}: {text:?} is missing in {rest:?}"));
        rest = &rest[at + text.len()..];
    }
    assert_eq!(message["reasoning_content"].as_str().unwrap_or_default(), said.thoughts, "{name}");
    let empty = Vec::new();
    let calls: Vec<(String, Value)> = message["tool_calls"]
        .as_array()
        .unwrap_or(&empty)
        .iter()
        .map(|call| {
            let arguments = serde_json::from_str(call["function"]["arguments"].as_str().unwrap()).unwrap();
            (call["function"]["name"].as_str().unwrap().to_owned(), arguments)
        })
        .collect();
    assert_eq!(calls, said.calls, "{name}");
    assert_eq!(message["images"].as_array().map_or(0, Vec::len), said.images, "{name}");
    let cited: Vec<String> = message["annotations"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|annotation| {
            let at =
                |name: &str| usize::try_from(annotation["url_citation"][name].as_u64().unwrap()).unwrap();
            let (start, end) = (at("start_index"), at("end_index"));
            content.chars().skip(start).take(end - start).collect()
        })
        .collect();
    if !said.cited.is_empty() {
        assert_eq!(cited, said.cited, "{name}");
    }
    let [prompt, candidates, thoughts, tool_use] = said.counts;
    assert_eq!(reply["usage"]["prompt_tokens"], prompt + tool_use, "{name}");
    assert_eq!(reply["usage"]["completion_tokens"], candidates + thoughts, "{name}");
    assert_eq!(reply["usage"]["total_tokens"], prompt + candidates + thoughts + tool_use, "{name}");
}

/// Whether there was an answer of a model in the recording.
fn check(file: &Path) -> bool {
    let record: Value = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
    if !record["path"].as_str().unwrap().contains("enerateContent") {
        return false;
    }
    let body = Bytes::from(record["response"].as_str().unwrap().to_owned());
    let status = u16::try_from(record["status"].as_u64().unwrap()).unwrap();
    if status != 200 {
        let status = gemway_status(status);
        let error = fault::from_response(status, &body, &[]);
        assert_eq!(error.kind(), Kind::Invalid);
        assert!(error.message().len() > 20);
        return true;
    }
    let pieces = || body.chunks(7).map(Bytes::copy_from_slice);
    let events = decode(pieces()).unwrap();
    let said = said(&events);
    let shape = Shape { include_usage: true, thoughts: true, choices: 1, ..Shape::default() };
    let mut machine = ChatMachine::new(shape.clone(), stamp("chatcmpl-1"));
    let mut out = BytesMut::new();
    let ended = streamed(&mut machine, pieces(), &mut out);
    let whole = reply::reply(&shape, &stamp("chatcmpl-1"), &events);
    if events.iter().any(|event| event.windows(20).any(|window| window == b"UNEXPECTED_TOOL_CALL"))
        && said.calls.is_empty()
    {
        // Nothing usable came from the model: an error that is worth another try, and never an empty answer.
        assert_eq!(ended.unwrap_err().explicit_code(), Some("upstream_malformed_output"));
        assert_eq!(whole.unwrap_err().explicit_code(), Some("upstream_malformed_output"));
        return true;
    }
    ended.unwrap();
    compare(file, &said, &gather(std::str::from_utf8(&out).unwrap()));
    let (reply, usage) = whole.unwrap();
    compare(file, &said, &serde_json::from_slice(&reply).unwrap());
    assert_eq!(usage, machine.usage());
    true
}

fn gemway_status(status: u16) -> http::StatusCode {
    http::StatusCode::from_u16(status).unwrap()
}

#[test]
fn the_copies_here() {
    let told = recorded::copies().iter().filter(|file| check(file)).count();
    assert!(told >= 35, "{told} only");
}

#[test]
#[ignore = "needs the whole collection, at GEMWAY_RECORDINGS"]
fn the_whole_collection() {
    let told = recorded::collection().iter().filter(|file| check(file)).count();
    assert!(told >= 150, "{told} only");
}
