//! Golden answers: what Gemini said, and what the client is told, whole and streamed.
//!
//! A case is a folder in `tests/golden/answer` with `response.gemini.json` (one whole answer) or
//! `response.gemini.sse` (a stream) and, if need be, `shape.json`. Both translators run on either. `BLESS=1` writes
//! the expectations anew.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test may fail loudly"
)]

use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

use bytes::{Bytes, BytesMut};
use gemway::error::Error;
use gemway::translate::chat::{Shape, reply, stream::ChatMachine};
use gemway::translate::{Machine, Stamp};
use gemway::usage::{Modality, Usage};
use serde_json::{Value, json};

#[path = "common/streamed.rs"]
mod streams;

fn stamp() -> Stamp {
    streams::stamp("chatcmpl-1")
}

fn shape(case: &Path) -> Shape {
    let Ok(text) = fs::read_to_string(case.join("shape.json")) else {
        return Shape { choices: 1, ..Shape::default() };
    };
    let value: Value = serde_json::from_str(&text).unwrap();
    let flag = |name: &str| value[name].as_bool().unwrap_or(false);
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let names = value["names"].as_object().into_iter().flatten();
    Shape {
        include_usage: flag("include_usage"),
        legacy_functions: flag("legacy_functions"),
        single_call: flag("single_call"),
        names: names.map(|(from, to)| (from.clone(), text(to))).collect::<HashMap<_, _>>(),
        custom: value["custom"].as_array().into_iter().flatten().map(text).collect(),
        choices: u32::try_from(value["choices"].as_u64().unwrap_or(1)).unwrap(),
        thoughts: flag("thoughts"),
        answer_function: value["answer_function"].as_str().map(str::to_owned),
        may_be_empty: flag("may_be_empty"),
        wav: flag("wav"),
        fan: 0,
        tier: None,
    }
}

fn told(error: &Error) -> Value {
    json!({
        "kind": error.kind().as_str(),
        "code": error.explicit_code(),
        "param": error.param(),
        "retry": format!("{:?}", error.retries()),
        "message": error.message(),
    })
}

fn counted(usage: &Usage) -> Value {
    let by = |counts: &gemway::usage::ByModality| {
        let each = Modality::ALL.iter().filter(|&&modality| counts[modality] > 0);
        each.map(|&modality| (modality.as_str().to_owned(), json!(counts[modality])))
            .collect::<serde_json::Map<_, _>>()
    };
    json!({
        "input": usage.input, "cached": usage.cached, "output": usage.output, "thoughts": usage.thoughts,
        "tool_use": usage.tool_use, "input_by": by(&usage.input_by), "output_by": by(&usage.output_by),
        "estimated": usage.estimated,
    })
}

/// Frames, and behind them the error or the counts.
fn streamed(case: &Path, pieces: impl Iterator<Item = Bytes>) -> (String, Value) {
    let (mut machine, mut out) = (ChatMachine::new(shape(case), stamp()), BytesMut::new());
    let result = streams::streamed(&mut machine, pieces, &mut out);
    let mut text = String::from_utf8(out.to_vec()).unwrap();
    if let Err(error) = result {
        writeln!(text, "error: {}", told(&error)).unwrap();
    }
    (text, counted(&machine.usage()))
}

fn expect(path: &Path, got: &str, wrong: &mut Vec<String>) {
    if env::vars().any(|(name, value)| name == "BLESS" && value == "1") {
        fs::write(path, got).unwrap();
        return;
    }
    let expected = fs::read_to_string(path).unwrap_or_default();
    if expected != got {
        let diff = similar_asserts::SimpleDiff::from_str(&expected, got, "expected", "got").to_string();
        wrong.push(format!("{}\n{diff}", path.display()));
    }
}

fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}

/// Cuts of 1..=9 bytes, the same in every run.
fn shreds(bytes: &Bytes) -> Vec<Bytes> {
    let (mut pieces, mut rest, mut state) = (Vec::new(), bytes.clone(), 7_usize);
    while !rest.is_empty() {
        state = state.wrapping_mul(1_103_515_245).wrapping_add(12345) % (1 << 31);
        pieces.push(rest.split_to(rest.len().min(1 + (state >> 8) % 9)));
    }
    pieces
}

fn run(case: &Path, wrong: &mut Vec<String>) {
    let sse = fs::read(case.join("response.gemini.sse")).map(Bytes::from);
    let input = sse.as_ref().map_or_else(
        |_| Bytes::from(fs::read(case.join("response.gemini.json")).expect("a case needs a response")),
        Clone::clone,
    );
    let (frames, usage) = streamed(case, std::iter::once(input.clone()));
    check_frames(case, &frames);
    expect(&case.join("response.openai.sse"), &frames, wrong);
    expect(&case.join("usage.json"), &pretty(&usage), wrong);

    let bytes = streamed(case, input.chunks(1).map(Bytes::copy_from_slice));
    assert_eq!(bytes, (frames.clone(), usage.clone()), "{}: byte by byte", case.display());
    let shredded = streamed(case, shreds(&input).into_iter());
    assert_eq!(shredded, (frames.clone(), usage.clone()), "{}: shredded", case.display());
    if sse.is_ok() {
        let text = String::from_utf8(input.to_vec()).unwrap().replace("\r\n", "\n");
        for ending in ["\n", "\r\n", "\r"] {
            let text = Bytes::from(text.replace('\n', ending));
            let other = streamed(case, shreds(&text).into_iter());
            assert_eq!(other, (frames.clone(), usage.clone()), "{}: {ending:?}", case.display());
        }
    }

    let whole = streams::decode(std::iter::once(input))
        .and_then(|events| reply::reply(&shape(case), &stamp(), &events));
    let whole = match whole {
        Ok((body, counts)) => {
            assert_eq!(counted(&counts), usage, "{}: counts of both ways", case.display());
            serde_json::from_slice(&body).unwrap()
        }
        Err(error) => json!({ "error": told(&error) }),
    };
    expect(&case.join("response.openai.json"), &pretty(&whole), wrong);
}

const REASONS: [&str; 5] = ["stop", "length", "tool_calls", "content_filter", "function_call"];
const DELTA: &[&str] = &[
    "role",
    "content",
    "refusal",
    "reasoning_content",
    "tool_calls",
    "function_call",
    "images",
    "audio",
    "annotations",
    "extra_content",
];

fn keys(case: &Path, value: &Value, known: &[&str]) {
    for key in value.as_object().unwrap().keys() {
        assert!(known.contains(&key.as_str()), "{}: {key}", case.display());
    }
}

/// What every stream must obey, whatever it says.
fn check_frames(case: &Path, frames: &str) {
    let (mut opened, mut finished, mut calls) = (Vec::new(), Vec::new(), HashMap::<u64, u64>::new());
    let failed = frames.contains("\nerror: ") || frames.starts_with("error: ");
    for frame in frames.split("\n\n").filter(|frame| frame.starts_with("data: {")) {
        let chunk: Value = serde_json::from_str(frame.strip_prefix("data: ").unwrap()).unwrap();
        let said = |from: &Value, name: &str| from.get(name).cloned();
        assert_eq!(chunk["object"], "chat.completion.chunk");
        assert_eq!(
            (&chunk["id"], &chunk["created"], &chunk["model"]),
            (&json!("chatcmpl-1"), &json!(1_795_256_380), &json!("gemini-test"))
        );
        keys(
            case,
            &chunk,
            &["id", "object", "created", "model", "system_fingerprint", "choices", "usage", "service_tier"],
        );
        assert!(matches!(
            chunk["service_tier"].as_str(),
            None | Some("default" | "flex" | "priority" | "scale" | "auto")
        ));
        let wanted = shape(case).include_usage;
        assert_eq!(said(&chunk, "usage").is_some(), wanted, "{}: usage if asked for", case.display());
        if chunk["choices"].as_array().unwrap().is_empty() {
            let usage = &chunk["usage"];
            let sum = usage["prompt_tokens"].as_u64().unwrap() + usage["completion_tokens"].as_u64().unwrap();
            assert_eq!(usage["total_tokens"], sum);
            assert_eq!(finished.len(), opened.len(), "{}: usage comes last", case.display());
        } else {
            assert!(chunk["usage"].is_null());
        }
        for choice in chunk["choices"].as_array().unwrap() {
            let index = choice["index"].as_u64().unwrap();
            let delta = &choice["delta"];
            keys(case, choice, &["index", "delta", "logprobs", "finish_reason", "extra_content"]);
            keys(case, delta, DELTA);
            let reason = said(choice, "finish_reason").expect("always there");
            assert!(
                reason.is_null() || REASONS.contains(&reason.as_str().unwrap()),
                "{}: {reason}",
                case.display()
            );
            assert!(reason.is_null() || delta.as_object().unwrap().is_empty());
            assert!(delta["tool_calls"].as_array().is_none_or(|calls| calls.len() == 1));
            if delta.get("role").is_some() {
                assert_eq!(index, opened.len() as u64, "{}: choices open in order", case.display());
                opened.push(index);
            }
            assert!(opened.contains(&index), "{}: role first", case.display());
            assert!(!finished.contains(&index), "{}: nothing after the finish", case.display());
            for call in delta["tool_calls"].as_array().into_iter().flatten() {
                let next = calls.entry(index).or_default();
                if call.get("id").is_some() {
                    assert_eq!(call["index"], *next, "{}: contiguous calls", case.display());
                    *next += 1;
                    assert!(["function", "custom"].contains(&call["type"].as_str().unwrap()));
                } else {
                    assert_eq!(call["index"].as_u64().unwrap() + 1, *next);
                    keys(case, call, &["index", "function", "custom", "extra_content"]);
                    assert!(call["function"].get("name").is_none() && call["custom"].get("name").is_none());
                }
            }
            if !choice["finish_reason"].is_null() {
                finished.push(index);
            }
        }
    }
    if failed {
        assert!(!frames.contains("[DONE]"));
    } else {
        assert!(frames.ends_with("data: [DONE]\n\n"));
        assert_eq!(opened.len(), finished.len(), "{}: every choice ends", case.display());
    }
}

#[test]
fn answers() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/answer");
    let mut cases: Vec<PathBuf> = fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.sort();
    assert!(cases.len() >= 120, "cases are missing");
    let mut wrong = Vec::new();
    for case in &cases {
        run(case, &mut wrong);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
