//! `tests/golden/embeddings`: `BLESS=1` writes what comes out, to be read before it is kept.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use bytes::Bytes;
use serde_json::{Value, json};

use super::{Plan, Vectors, parse, plan, reply};
use crate::catalog::Catalog;
use crate::error::{Error, Result};
use crate::translate::{Backend, Target};
use crate::usage::Usage;

fn failed(error: &Error) -> String {
    let told = json!({
        "kind": error.kind().as_str(),
        "code": error.explicit_code(),
        "param": error.param(),
        "message": error.message(),
    });
    format!("error {told}\n")
}

fn answered(plan: &Plan<'_>, model: &str, answers: &[String], out: &mut String) -> Result<()> {
    let (mut usage, mut all) = (Usage::default(), Vec::new());
    for (call, answer) in plan.calls().iter().zip(answers) {
        let vectors = Vectors::read(plan.shape(), call, &Bytes::from(answer.clone()))?;
        let guessed = Usage { input: plan.estimate(call), estimated: true, ..Usage::default() };
        usage.add(&vectors.usage.unwrap_or(guessed));
        if !vectors.truncated.is_empty() {
            writeln!(out, "truncated {:?}", vectors.truncated).unwrap();
        }
        all.push(vectors);
    }
    let rope = reply(model, all, &usage)?.join();
    let _: Value = serde_json::from_slice(&rope).unwrap();
    writeln!(out, "reply {}", String::from_utf8(rope.to_vec()).unwrap()).unwrap();
    Ok(())
}

fn walked(body: &Bytes, target: &Value, answers: &[String], out: &mut String) -> Result<()> {
    let catalog = Catalog::builtin()?;
    let backend = if target["backend"] == "vertex" { Backend::Vertex } else { Backend::GeminiApi };
    let request = parse(body)?;
    let asked = request.model.clone().unwrap_or_default().into_owned();
    let model = target["model"].as_str().unwrap_or(&asked);
    let target = Target { model, traits: catalog.traits(model), backend, strict: target["strict"] == true };
    let plan = plan(&request, &asked, &target)?;
    for call in plan.calls() {
        let rope = plan.body(call, body)?.join();
        let _: Value = serde_json::from_slice(&rope).unwrap();
        writeln!(out, "{:?} {call:?} {}", plan.way(call), String::from_utf8(rope.to_vec()).unwrap()).unwrap();
    }
    if !plan.dropped().is_empty() {
        writeln!(out, "dropped {}", plan.dropped().join(",")).unwrap();
    }
    if answers.is_empty() { Ok(()) } else { answered(&plan, &asked, answers, out) }
}

#[test]
fn requests_and_answers_come_out_as_recorded() {
    let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/embeddings"));
    let bless = std::env::var_os("BLESS").is_some();
    let mut cases: Vec<_> = fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.sort();
    assert!(cases.len() >= 30, "{} cases only", cases.len());
    let mut wrong = Vec::new();
    for case in cases {
        let body = Bytes::from(fs::read(case.join("request.json")).unwrap());
        let target = fs::read(case.join("target.json")).unwrap_or_else(|_| b"{}".to_vec());
        let target: Value = serde_json::from_slice(&target).unwrap();
        let answers: Vec<String> =
            (0..).map_while(|at| fs::read_to_string(case.join(format!("answer.{at}.json"))).ok()).collect();
        let mut out = String::new();
        if let Err(error) = walked(&body, &target, &answers, &mut out) {
            out.push_str(&failed(&error));
        }
        let kept = case.join("out.txt");
        if bless {
            fs::write(&kept, out).unwrap();
        } else if fs::read_to_string(&kept).unwrap_or_default() != out {
            wrong.push(format!("{}\n{out}", case.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn planned(body: &Value, backend: Backend) -> Vec<usize> {
    let body = body.to_string();
    let request = parse(body.as_bytes()).unwrap();
    let catalog = Catalog::builtin().unwrap();
    let model = request.model.clone().unwrap();
    let target = Target { model: &model, traits: catalog.traits(&model), backend, strict: false };
    let plan = plan(&request, &model, &target).unwrap();
    let mut next = 0;
    for call in plan.calls() {
        assert_eq!(call.start, next, "calls follow each other");
        assert!(call.end > call.start, "no call is empty");
        next = call.end;
    }
    plan.calls().iter().map(ExactSizeIterator::len).collect()
}

#[test]
fn calls_keep_to_googles_limits() {
    let many = |count: usize, text: &str, model: &str| json!({"model": model, "input": vec![text; count]});
    let (gemini, vertex) = (Backend::GeminiApi, Backend::Vertex);
    assert_eq!(planned(&many(100, "a", "gemini-embedding-001"), gemini), [100]);
    assert_eq!(planned(&many(101, "a", "gemini-embedding-001"), gemini), [100, 1]);
    assert_eq!(planned(&many(2048, "a", "gemini-embedding-2"), gemini).len(), 21);
    assert_eq!(planned(&many(3, "a", "gemini-embedding-001"), vertex), [1, 1, 1]);
    assert_eq!(planned(&many(3, "a", "gemini-embedding-2"), vertex), [1, 1, 1]);
    assert_eq!(planned(&many(600, "a", "text-embedding-005"), vertex), [250, 250, 100]);
    // Ten thousand letters are at most five thousand tokens.
    assert_eq!(planned(&many(8, &"a".repeat(9_990), "text-embedding-005"), vertex), [4, 4]);
    // A figure is a token.
    assert_eq!(planned(&many(4, &"7".repeat(9_990), "text-embedding-005"), vertex), [2, 2]);
    // Megabytes are split too, and what is too much alone goes alone.
    assert_eq!(planned(&many(4, &"a".repeat(1 << 20), "gemini-embedding-001"), gemini), [3, 1]);
    assert_eq!(planned(&many(2, &"a".repeat(5 << 20), "gemini-embedding-001"), gemini), [1, 1]);
}

#[test]
fn too_many_inputs_are_counted_and_not_kept() {
    let body = json!({"model": "m", "input": vec!["a"; 2049]}).to_string();
    let catalog = Catalog::builtin().unwrap();
    let target =
        Target { model: "m", traits: catalog.traits("m"), backend: Backend::GeminiApi, strict: false };
    let error = plan(&parse(body.as_bytes()).unwrap(), "m", &target).unwrap_err();
    assert_eq!(error.param(), Some("input"));
    assert!(error.message().contains("2049"), "{}", error.message());
}
