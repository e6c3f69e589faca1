//! `tests/golden/completions`: `BLESS=1` writes what comes out, to be read before it is kept.
//!
//! One choice takes all answers of a case, each as an event; of several choices each takes one.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use serde_json::{Value, json};

use super::{CompletionMachine, Shape, ask, closing, parse, reply, setup, whole};
use crate::catalog::Catalog;
use crate::error::Result;
use crate::ids::Ids;
use crate::memory::Memory;
use crate::translate::{Backend, Machine, Signatures, Stamp, Target};
use crate::usage::Usage;
use crate::wire;

fn stamp(model: &str, signatures: &Arc<dyn Signatures>) -> Stamp {
    Stamp {
        id: "cmpl-1".to_owned(),
        created: 1,
        model: model.to_owned(),
        ids: Arc::new(Ids::counted()),
        signatures: Arc::clone(signatures),
    }
}

fn streamed(shapes: &[Shape], stamp: &Stamp, answers: &[Bytes], usage: bool, out: &mut String) -> Result<()> {
    let (mut frames, mut used) = (BytesMut::new(), Usage::default());
    for (at, shape) in shapes.iter().enumerate() {
        let mut machine = CompletionMachine::new(shape.clone(), stamp.clone());
        let mine = if shape.among { answers.get(at..=at).unwrap_or_default() } else { answers };
        let spoken = mine.iter().try_for_each(|event| machine.push(event, &mut frames));
        let ended = spoken.and_then(|()| machine.finish(&mut frames));
        used.add(&machine.usage());
        ended?;
    }
    if shapes.len() > 1 {
        closing(stamp, usage, &used, &mut frames)?;
    }
    out.push_str(std::str::from_utf8(&frames).unwrap());
    Ok(())
}

fn walked(body: &Bytes, target: &Value, answers: &[Bytes], out: &mut String) -> Result<()> {
    let catalog = Catalog::builtin()?;
    let signatures = Arc::new(Memory::default()).view("t");
    let request = parse(body)?;
    let asked = request.model.clone().unwrap_or_default().into_owned();
    let model = target["model"].as_str().unwrap_or(&asked);
    let target = Target { model, traits: catalog.traits(model), backend: Backend::GeminiApi, strict: false };
    let setup = setup(&request, &asked)?;
    let mut shapes = Vec::new();
    for number in 0..setup.prompts.len() * setup.each {
        let (made, shape) = ask(&request, &setup, number, &target, &*signatures)?;
        let rope = wire::encode(&made.request, body).unwrap().join();
        writeln!(out, "ask {}", String::from_utf8(rope.to_vec()).unwrap()).unwrap();
        if !made.dropped.is_empty() {
            writeln!(out, "dropped {}", made.dropped.join(",")).unwrap();
        }
        shapes.push(shape);
    }
    if answers.is_empty() {
        return Ok(());
    }
    let stamp = stamp(&asked, &signatures);
    if setup.stream {
        return streamed(&shapes, &stamp, answers, setup.include_usage, out);
    }
    let (mut used, mut choices) = (Usage::default(), Vec::new());
    for (at, shape) in shapes.iter().enumerate() {
        let mine = if shape.among { answers.get(at..=at).unwrap_or_default() } else { answers };
        let (choice, usage) = reply(shape, &stamp, mine)?;
        used.add(&usage);
        choices.push(choice);
    }
    let reply = if let [one] = choices.as_slice() { one.clone() } else { whole(&stamp, &choices, &used)? };
    let _: Value = serde_json::from_slice(&reply).unwrap();
    writeln!(out, "reply {}", String::from_utf8(reply.to_vec()).unwrap()).unwrap();
    Ok(())
}

#[test]
fn requests_and_answers_come_out_as_recorded() {
    let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/completions"));
    let bless = std::env::var_os("BLESS").is_some();
    let mut cases: Vec<_> = fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.sort();
    assert!(cases.len() >= 30, "{} cases only", cases.len());
    let mut wrong = Vec::new();
    for case in cases {
        let body = Bytes::from(fs::read(case.join("request.json")).unwrap());
        let target = fs::read(case.join("target.json")).unwrap_or_else(|_| b"{}".to_vec());
        let target: Value = serde_json::from_slice(&target).unwrap();
        let answers: Vec<Bytes> = (0..)
            .map_while(|at| fs::read(case.join(format!("answer.{at}.json"))).ok())
            .map(Bytes::from)
            .collect();
        let mut out = String::new();
        if let Err(error) = walked(&body, &target, &answers, &mut out) {
            let told = json!({
                "kind": error.kind().as_str(),
                "code": error.explicit_code(),
                "param": error.param(),
                "message": error.message(),
            });
            writeln!(out, "error {told}").unwrap();
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
