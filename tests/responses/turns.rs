//! What Gemini said is what it is told in the next turn: part by part, each signature where it stood. Whether the
//! gateway keeps the response, or the client carries its items.

use bytes::{Bytes, BytesMut};
use gemway::catalog::Catalog;
use gemway::translate::responses::{History, Marks, ResponsesMachine, Whole, reply, request};
use gemway::translate::{Backend, Machine, Target};
use gemway::wire;
use parking_lot::Mutex;
use proptest::prelude::*;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::sync::Arc;

use super::{shape, stamp};

const MODEL: &str = "gemini-3.8-flash";

fn asked(input: &Value) -> Value {
    json!({"model": MODEL, "input": input, "reasoning": {"summary": "auto"},
        "include": ["reasoning.encrypted_content"], "tools": [
            {"type": "function", "name": "f"}, {"type": "custom", "name": "c"},
            {"type": "namespace", "name": "n", "description": "d", "tools": [{"type": "function", "name": "g"}]},
            {"type": "shell"}, {"type": "local_shell"}, {"type": "apply_patch"},
            {"type": "code_interpreter", "container": {"type": "auto"}}]})
}

/// A run of parts that belong together.
fn run() -> impl Strategy<Value = Vec<Value>> {
    let signature = || prop::option::weighted(0.4, "[A-Z]{4}");
    let call = |name: &'static str, args: Value| {
        signature().prop_map(move |signature| {
            vec![signed(json!({"functionCall": {"name": name, "args": args}}), signature)]
        })
    };
    prop_oneof![
        5 => ("[a-zé😀 ]{1,9}", signature()).prop_map(|(text, signature)| vec![signed(json!({"text": text}), signature)]),
        2 => "[a-z]{1,5}".prop_map(|text| vec![json!({"text": text, "thought": true})]),
        1 => call("f", json!({"b": [1.50, {"x": null}], "a": "é"})),
        1 => call("c", json!({"input": "free \"text\""})),
        1 => call("n__g", json!({})),
        1 => call("shell", json!({"commands": ["a", "b"], "timeout_ms": 5})),
        1 => call("local_shell", json!({"command": ["a"], "working_directory": "/w"})),
        1 => call("apply_patch", json!({"type": "update_file", "path": "p", "diff": "+a"})),
        1 => call("apply_patch", json!({"type": "delete_file", "path": "p"})),
        2 => (signature(), signature(), 0..3_usize, any::<bool>()).prop_map(|(code, result, outcome, ids)| {
            let outcome = ["OUTCOME_OK", "OUTCOME_FAILED", "OUTCOME_DEADLINE_EXCEEDED"][outcome];
            let mut pair = vec![
                json!({"executableCode": {"language": "PYTHON", "code": "print(1)"}}),
                json!({"codeExecutionResult": {"outcome": outcome, "output": "1\n"}}),
            ];
            if ids {
                pair[0]["executableCode"]["id"] = "x1".into();
                pair[1]["codeExecutionResult"]["id"] = "x1".into();
            }
            let mut signatures = [code, result].into_iter();
            pair.into_iter().map(|part| signed(part, signatures.next().unwrap())).collect()
        }),
        1 => signature().prop_map(|signature| {
            let blob = json!({"inlineData": {"mimeType": "image/jpeg", "data": "/9j/AAAA"}});
            vec![signed(blob, signature)]
        }),
        1 => signature().prop_map(|signature| {
            let kind = "GOOGLE_SEARCH_WEB";
            vec![
                json!({"toolCall": {"id": "t", "toolType": kind, "args": {"queries": ["q"]}}}),
                signed(json!({"toolResponse": {"id": "t", "toolType": kind, "response": {"a": 1}}}), signature),
            ]
        }),
    ]
}

fn signed(mut part: Value, signature: Option<String>) -> Value {
    if let Some(signature) = signature {
        part["thoughtSignature"] = signature.into();
    }
    part
}

fn answer() -> impl Strategy<Value = Vec<Value>> {
    let last = prop::option::weighted(0.5, "[A-Z]{4}");
    (prop::collection::vec(run(), 1..7), last).prop_map(|(runs, last)| {
        let mut parts: Vec<Value> = runs.into_iter().flatten().collect();
        for (nth, part) in parts.iter_mut().enumerate() {
            if part.get("functionCall").is_some() {
                part["functionCall"]["id"] = format!("id{nth}").into();
            }
        }
        // The end of a stream: a part that holds nothing but the signature of the words before.
        let words = parts.last().is_some_and(|part| {
            part.get("text").is_some()
                && part.get("thought").is_none()
                && part.get("thoughtSignature").is_none()
        });
        if let Some(signature) = last.filter(|_| words) {
            parts.push(json!({"text": "", "thoughtSignature": signature}));
        }
        parts
    })
}

/// Words that nothing parts, in one part; a part of nothing but a signature signs those before it.
fn merged(parts: &[Value]) -> Vec<Value> {
    let mut out: Vec<Value> = Vec::new();
    let words = |part: &Value| part.get("text").is_some() && part.get("thought").is_none();
    for part in parts {
        let unsigned = |part: &Value| words(part) && part.get("thoughtSignature").is_none();
        match out.last_mut().filter(|last| unsigned(last) && words(part)) {
            Some(open) if part["text"] == "" => open["thoughtSignature"] = part["thoughtSignature"].clone(),
            Some(open) if unsigned(part) => {
                let both = format!("{}{}", open["text"].as_str().unwrap(), part["text"].as_str().unwrap());
                open["text"] = both.into();
            }
            _ => out.push(part.clone()),
        }
    }
    out
}

/// The same without thoughts, which are not sent back: they part words, and leave no trace.
fn plain(parts: &[Value]) -> Vec<Value> {
    let spoken: Vec<Value> = merged(parts).into_iter().filter(|part| part["thought"] != true).collect();
    merged(&spoken)
}

/// The outputs of a response's calls.
fn outputs(items: &[Value]) -> Vec<Value> {
    let output = |item: &Value| {
        let kind = item["type"].as_str()?.strip_suffix("_call").filter(|_| item.get("call_id").is_some())?;
        let output = if kind == "shell" { json!([]) } else { json!("done") };
        let kind = format!("{kind}_call_output");
        Some(json!({"type": kind, "call_id": item["call_id"], "output": output, "status": "completed"}))
    };
    items.iter().filter_map(output).collect()
}

/// The model's turn as Gemini is told of it in the next request.
fn told(input: Vec<Value>, history: &History) -> Vec<Value> {
    let body = Bytes::from(asked(&Value::Array(input)).to_string());
    let catalog = Catalog::builtin().unwrap();
    let target =
        Target { model: MODEL, traits: catalog.traits(MODEL), backend: Backend::GeminiApi, strict: true };
    let stamp = stamp();
    let ask = request::ask(request::parse(&body).unwrap(), history, &target, &*stamp.signatures).unwrap();
    let sent = wire::encode(&ask.request, &body).unwrap().join();
    let sent: Value = serde_json::from_slice(&sent).unwrap();
    let turns = sent["contents"].as_array().unwrap();
    let model: Vec<&Value> = turns.iter().filter(|turn| turn["role"] == "model").collect();
    assert!(model.len() <= 1, "one turn: {sent}");
    let mut parts = model.first().map_or_else(Vec::new, |turn| turn["parts"].as_array().unwrap().clone());
    for part in &mut parts {
        // The first call of the newest turn needs one; Google's word for a call that had none.
        if part["thoughtSignature"] == "skip_thought_signature_validator" {
            part.as_object_mut().unwrap().remove("thoughtSignature");
        }
    }
    parts
}

fn check(parts: &[Value], whole: &Whole) {
    let response: Value = serde_json::from_slice(&whole.finished.response).unwrap();
    let items = response["output"].as_array().unwrap().clone();
    let said = json!({"role": "user", "content": "hello"});
    let mut next = outputs(&items);
    next.push(json!({"role": "user", "content": "go on"}));
    // Kept: the items and marks of the response before, without what only a client carries.
    let raw = |item: &Value| RawValue::from_string(item.to_string()).unwrap();
    let before = std::iter::once(&said).chain(items.iter());
    let history = History {
        items: before.map(raw).collect(),
        marks: Marks::read(whole.finished.marks.as_deref()),
        ..History::default()
    };
    assert_eq!(plain(&told(next.clone(), &history)), plain(parts), "kept: {items:#?}");
    // Carried: the client sends all of it.
    let carried = std::iter::once(said).chain(items.iter().cloned()).chain(next).collect();
    assert_eq!(plain(&told(carried, &History::default())), plain(parts), "carried: {items:#?}");
}

fn event(parts: &[Value], end: bool) -> Bytes {
    let mut candidate = json!({"content": {"role": "model", "parts": parts}});
    if end {
        candidate["finishReason"] = "STOP".into();
    }
    json!({"candidates": [candidate], "usageMetadata": {"promptTokenCount": 3}}).to_string().into()
}

proptest! {
    #[test]
    fn gemini_is_told_what_it_said(parts in answer()) {
        // An answer of nothing that the client could see is none.
        let unseen = ["toolCall", "toolResponse"];
        let seen = |part: &Value| part["thought"] != true && unseen.iter().all(|kind| part.get(kind).is_none());
        prop_assume!(parts.iter().any(seen));
        let shape = shape(asked(&json!("x")).to_string().as_bytes(), MODEL);
        let whole = reply(&shape, &stamp(), &[event(&parts, true)]).unwrap();
        check(&parts, &whole);

        let kept = Arc::new(Mutex::new(None));
        let ear = Arc::clone(&kept);
        let done = Box::new(move |finished| *ear.lock() = Some(finished));
        let mut machine = ResponsesMachine::new(shape, stamp()).telling(Some(done));
        let mut out = BytesMut::new();
        for (nth, part) in parts.iter().enumerate() {
            machine.push(&event(std::slice::from_ref(part), nth + 1 == parts.len()), &mut out).unwrap();
        }
        let usage = machine.finish(&mut out).unwrap();
        let finished = kept.lock().take().unwrap();
        check(&parts, &Whole { finished, usage });
    }
}
