//! Recorded cases. `BLESS=1` writes what comes out, to be read before it is kept.
//!
//! `request/<case>`: `request.json`, and if need be `target.json` and `history.json`. `answer/<case>`:
//! `gemini.sse` or `gemini.json`, and if need be the `request.json` that was asked.

use std::path::{Path, PathBuf};
use std::{env, fs};

use bytes::Bytes;
use gemway::catalog::Catalog;
use gemway::translate::responses::{History, Marks, request};
use gemway::translate::{Backend, Target};
use gemway::wire;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::{grammar, shape, stamp, streamed, told, whole};

fn cases(kind: &str, least: usize) -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/responses").join(kind);
    let mut cases: Vec<PathBuf> = fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.sort();
    assert!(cases.len() >= least, "{} cases only", cases.len());
    cases
}

fn expect(path: &Path, got: &str, wrong: &mut Vec<String>) {
    if env::var_os("BLESS").is_some() {
        fs::write(path, got).unwrap();
        return;
    }
    let kept = fs::read_to_string(path).unwrap_or_default();
    if kept != got {
        let diff = similar_asserts::SimpleDiff::from_str(&kept, got, "kept", "got").to_string();
        wrong.push(format!("{}\n{diff}", path.display()));
    }
}

fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}

fn history(case: &Path) -> History {
    let Ok(text) = fs::read_to_string(case.join("history.json")) else { return History::default() };
    let value: Value = serde_json::from_str(&text).unwrap();
    let raw = |item: &Value| RawValue::from_string(item.to_string()).unwrap();
    let all = |name: &str| value[name].as_array().cloned().unwrap_or_default();
    let id = |item: &Value| item["id"].as_str().unwrap().to_owned();
    History {
        items: all("items").iter().map(raw).collect(),
        referenced: all("referenced").iter().map(|item| (id(item), raw(item))).collect(),
        marks: Marks::read([value["marks"].to_string().as_str()]),
    }
}

#[test]
fn requests_come_out_as_recorded() {
    let catalog = Catalog::builtin().unwrap();
    let mut wrong = Vec::new();
    for case in cases("request", 40) {
        let body = Bytes::from(fs::read(case.join("request.json")).unwrap());
        let target = fs::read(case.join("target.json"))
            .map_or(Value::Null, |text| serde_json::from_slice(&text).unwrap());
        let model = target["model"].as_str().unwrap_or("gemini-3.8-flash");
        let backend = if target["backend"] == "vertex" { Backend::Vertex } else { Backend::GeminiApi };
        let strict = target["strict"] == true;
        let target = Target { model, traits: catalog.traits(model), backend, strict };
        let history = history(&case);
        let signatures = stamp().signatures;
        signatures.remember("call_remembered", "cmVtZW1iZXJlZA==");
        let made = request::parse(&body).and_then(|asked| {
            request::ask(asked, &history, &target, &*signatures).map(|ask| {
                let json = wire::encode(&ask.request, &body).unwrap().join();
                let json: Value = serde_json::from_slice(&json).unwrap();
                let echo: Value = serde_json::from_str(&format!("{{{}}}", ask.shape.echo)).unwrap();
                json!({"asked": json, "dropped": ask.dropped, "echo": echo})
            })
        });
        let made = made.unwrap_or_else(|error| json!({"error": told(&error)}));
        expect(&case.join("made.json"), &pretty(&made), &mut wrong);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
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

#[test]
fn answers_come_out_as_recorded() {
    let mut wrong = Vec::new();
    for case in cases("answer", 25) {
        let name = case.display();
        let asked = fs::read(case.join("request.json"))
            .unwrap_or_else(|_| br#"{"model":"gemini-3.8-flash","input":"x"}"#.to_vec());
        let model: Value = serde_json::from_slice(&asked).unwrap();
        let shape = shape(&asked, model["model"].as_str().unwrap());
        let sse = fs::read(case.join("gemini.sse")).map(Bytes::from);
        let input = match &sse {
            Ok(sse) => sse.clone(),
            Err(_) => Bytes::from(fs::read(case.join("gemini.json")).expect("a case needs an answer")),
        };
        let (frames, result) = streamed(&shape, std::iter::once(input.clone()));
        let last = grammar::check(&frames);
        expect(&case.join("events.sse"), &frames, &mut wrong);
        let (bytes, _) = streamed(&shape, input.chunks(1).map(Bytes::copy_from_slice));
        assert_eq!(bytes, frames, "{name}: byte by byte");
        if sse.is_ok() {
            let text = String::from_utf8(input.to_vec()).unwrap().replace("\r\n", "\n");
            for ending in ["\n", "\r\n", "\r"] {
                let text = Bytes::from(text.replace('\n', ending));
                let (other, _) = streamed(&shape, shreds(&text).into_iter());
                assert_eq!(other, frames, "{name}: {ending:?}");
            }
        }
        let made = whole(&shape, &input);
        assert_eq!(made.is_ok(), result.is_ok(), "{name}");
        if let Ok(made) = &made {
            let sorted = |response: &Value| {
                let mut items = response["output"].as_array().unwrap().clone();
                items.sort_by_key(|item| item["id"].to_string());
                items
            };
            assert_eq!(sorted(made), sorted(&last), "{name}: whole and streamed");
            assert_eq!(made["usage"], last["usage"], "{name}");
        }
        let made = made.unwrap_or_else(|error| json!({"error": told(&error)}));
        expect(&case.join("response.json"), &pretty(&made), &mut wrong);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
