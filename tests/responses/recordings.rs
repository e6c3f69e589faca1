//! Every reply that Google really gave comes through whole, streamed and not.

use std::fs;
use std::path::Path;

use bytes::Bytes;
use serde_json::Value;

use super::{events, grammar, recorded, shape, streamed, whole};

const ASKED: &[u8] = br#"{"model":"gemini-3.8-flash","input":"x","reasoning":{"summary":"auto"}}"#;

/// What must come through, read in the simplest way from what Google sent.
#[derive(Debug, Default, PartialEq)]
struct Said {
    text: String,
    thoughts: String,
    calls: Vec<(String, Value)>,
    code: Vec<String>,
    printed: Vec<String>,
    images: usize,
    cited: usize,
    counts: [u64; 4],
}

fn said(events: &[Bytes]) -> Said {
    let mut said = Said::default();
    for event in events {
        let event: Value = serde_json::from_slice(event).unwrap();
        let candidate = &event["candidates"][0];
        for part in candidate["content"]["parts"].as_array().into_iter().flatten() {
            let text = part["text"].as_str().unwrap_or_default();
            let into = if part["thought"] == true { &mut said.thoughts } else { &mut said.text };
            into.push_str(text);
            if let Some(call) = part.get("functionCall") {
                let args = call.get("args").cloned().unwrap_or_else(|| serde_json::json!({}));
                said.calls.push((call["name"].as_str().unwrap().to_owned(), args));
            }
            said.code.extend(part["executableCode"]["code"].as_str().map(str::to_owned));
            let printed = part["codeExecutionResult"]["output"].as_str();
            said.printed.extend(printed.filter(|printed| !printed.is_empty()).map(str::to_owned));
            let image = part["inlineData"]["mimeType"].as_str().unwrap_or_default().starts_with("image/");
            said.images += usize::from(image);
        }
        let supports = candidate["groundingMetadata"]["groundingSupports"].as_array();
        for support in supports.into_iter().flatten() {
            said.cited += support["groundingChunkIndices"].as_array().map_or(0, Vec::len);
        }
        let names =
            ["promptTokenCount", "candidatesTokenCount", "thoughtsTokenCount", "toolUsePromptTokenCount"];
        for (count, name) in said.counts.iter_mut().zip(names) {
            *count = event["usageMetadata"][name].as_u64().unwrap_or(*count);
        }
    }
    said
}

fn got(response: &Value) -> Said {
    let mut got = Said::default();
    for item in response["output"].as_array().unwrap() {
        match item["type"].as_str().unwrap() {
            "message" => {
                got.text.push_str(item["content"][0]["text"].as_str().unwrap());
                got.cited += item["content"][0]["annotations"].as_array().unwrap().len();
            }
            "reasoning" => {
                for part in item["summary"].as_array().unwrap() {
                    got.thoughts.push_str(part["text"].as_str().unwrap());
                }
            }
            "function_call" => {
                let args = serde_json::from_str(item["arguments"].as_str().unwrap()).unwrap();
                got.calls.push((item["name"].as_str().unwrap().to_owned(), args));
            }
            "code_interpreter_call" => {
                got.code.extend(item["code"].as_str().filter(|code| !code.is_empty()).map(str::to_owned));
                let printed = item["outputs"][0]["logs"].as_str();
                got.printed.extend(printed.filter(|printed| !printed.is_empty()).map(str::to_owned));
            }
            "image_generation_call" => got.images += 1,
            "web_search_call" => {}
            other => panic!("{other}"),
        }
    }
    got
}

fn compare(file: &Path, said: &Said, response: &Value) {
    let name = file.display();
    let mut got = got(response);
    let usage = &response["usage"];
    let [prompt, candidates, thoughts, tool_use] = said.counts;
    assert_eq!(usage["input_tokens"], prompt + tool_use, "{name}");
    assert_eq!(usage["output_tokens"], candidates + thoughts, "{name}");
    assert_eq!(usage["total_tokens"], prompt + candidates + thoughts + tool_use, "{name}");
    got.counts = said.counts;
    if said.cited == 0 {
        got.cited = 0;
    }
    assert_eq!(&got, said, "{name}");
}

/// Whether there was an answer of a model in the recording.
fn check(file: &Path) -> bool {
    let record: Value = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
    let generated = record["path"].as_str().unwrap().contains("enerateContent");
    if !generated || record["status"] != 200 {
        return false;
    }
    let body = Bytes::from(record["response"].as_str().unwrap().to_owned());
    let shape = shape(ASKED, "gemini-3.8-flash");
    let said = said(&events(&body).unwrap());
    let (frames, ended) = streamed(&shape, body.chunks(7).map(Bytes::copy_from_slice));
    let last = grammar::check(&frames);
    let whole = whole(&shape, &body);
    if body.windows(20).any(|window| window == b"UNEXPECTED_TOOL_CALL") && said.calls.is_empty() {
        // Nothing usable came from the model: an error that is worth another try, and never an empty answer.
        assert_eq!(whole.unwrap_err().explicit_code(), Some("upstream_malformed_output"));
        assert_eq!(last["status"], "failed");
        return true;
    }
    ended.unwrap();
    compare(file, &said, &last);
    compare(file, &said, &whole.unwrap());
    true
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
