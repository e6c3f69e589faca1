//! What the goldens do not show.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use serde_json::Value;

use super::{Finished, History, ResponsesMachine, Shape, Status, compact, request};
use crate::catalog::Traits;
use crate::ids::Ids;
use crate::memory::Memory;
use crate::translate::chat::fill;
use crate::translate::{Backend, Failure, Machine, Media, Stamp, Target};
use crate::wire;

fn machine() -> (ResponsesMachine, Arc<Mutex<Vec<Finished>>>) {
    let stamp = Stamp {
        id: "resp_1".to_owned(),
        created: 1,
        model: "m".to_owned(),
        ids: Arc::new(Ids::counted()),
        signatures: Arc::new(Memory::default()).view("t"),
    };
    let told = Arc::new(Mutex::new(Vec::new()));
    let ear = Arc::clone(&told);
    let shape = Shape { echo: "\"store\":true".to_owned(), ..Shape::default() };
    let done = Box::new(move |finished| ear.lock().push(finished));
    (ResponsesMachine::new(shape, stamp).telling(Some(done)), told)
}

const WORDS: &[u8] = br#"{"candidates":[{"content":{"parts":[{"text":"half a "}]}}]}"#;

fn status(told: &Mutex<Vec<Finished>>) -> (Status, String) {
    let told = told.lock();
    assert_eq!(told.len(), 1);
    let response: Value = serde_json::from_slice(&told[0].response).unwrap();
    assert_eq!(response["output"][0]["content"][0]["text"], "half a ");
    (told[0].status, response["status"].as_str().unwrap().to_owned())
}

#[test]
fn a_client_that_leaves_leaves_what_there_was() {
    let (mut machine, told) = machine();
    machine.push(WORDS, &mut BytesMut::new()).unwrap();
    drop(machine);
    assert_eq!(status(&told), (Status::Gone, "cancelled".to_owned()));
}

#[test]
fn a_failure_closes_what_is_open_and_ends_the_stream_in_its_own_way() {
    let (mut machine, told) = machine();
    let mut out = BytesMut::new();
    machine.push(WORDS, &mut out).unwrap();
    let failure =
        Failure { message: "gone", kind: "server_error", code: Some("upstream_disconnected"), param: None };
    assert!(machine.fail(&failure, &mut out));
    let text = String::from_utf8(out.to_vec()).unwrap();
    assert!(text.contains(r#""status":"incomplete""#));
    let last = text.trim_end().rsplit("\n\n").next().unwrap();
    assert!(last.starts_with("event: response.failed\n"), "{last}");
    assert!(
        last.contains(
            r#""error":{"code":"server_error","message":"gone","type":"server_error","param":null}"#
        )
    );
    drop(machine);
    assert_eq!(status(&told), (Status::Failed, "failed".to_owned()));
    assert_eq!(Bytes::from(text.clone()).len(), out.len(), "nothing is written twice");
}

#[test]
fn addresses_that_the_model_does_not_read_are_wanted_and_filled() {
    let body = Bytes::from_static(
        br#"{"model":"m","input":[
            {"role":"user","content":[{"type":"input_text","text":"a"},{"type":"input_image","image_url":"https://example.com/a.png"},{"type":"input_file","file_url":"https://example.com/b.pdf"}]},
            {"type":"function_call","call_id":"c","name":"f","arguments":"{}"},
            {"type":"function_call_output","call_id":"c","output":[{"type":"input_image","image_url":"https://example.com/c.png"}]}]}"#,
    );
    let traits = Traits { remote_uris: false, output: vec!["text".to_owned()], ..Traits::default() };
    let target = Target { model: "m", traits: &traits, backend: Backend::GeminiApi, strict: false };
    let (history, memory) = (History::default(), Arc::new(Memory::default()).view("t"));
    let nothing = BTreeMap::new();
    for ask in [request::ask, compact::ask] {
        let mut made = ask(request::parse(&body).unwrap(), &history, &target, &*memory).unwrap();
        let wanted = fill(&mut made.request, &nothing);
        let places: Vec<&str> = wanted.iter().map(|wanted| wanted.place.as_str()).collect();
        assert_eq!(
            places,
            ["input[0].content[1].image_url", "input[0].content[2].file_url", "input[2].output[0].image_url"]
        );
        let got = |url: String| (url, Media { mime: "image/png", data: "iVBORw0KGgo=".to_owned() });
        let media = wanted.into_iter().map(|wanted| got(wanted.url)).collect();
        let mut made = ask(request::parse(&body).unwrap(), &history, &target, &*memory).unwrap();
        assert!(fill(&mut made.request, &media).is_empty());
        let sent = String::from_utf8(wire::encode(&made.request, &body).unwrap().join().to_vec()).unwrap();
        assert_eq!(sent.matches(r#""data":"iVBORw0KGgo=""#).count(), 3, "{sent}");
        assert!(!sent.contains("fileData"), "{sent}");
    }
}

#[test]
fn an_output_of_no_call_is_told_and_one_of_an_unknown_call_is_refused() {
    let traits = Traits { output: vec!["text".to_owned()], ..Traits::default() };
    let target = Target { model: "m", traits: &traits, backend: Backend::GeminiApi, strict: false };
    let (history, memory) = (History::default(), Arc::new(Memory::default()).view("t"));
    let body = Bytes::from_static(
        br#"{"model":"m","input":[{"role":"user","content":"a"},
            {"type":"function_call_output","id":"fco_2","name":"goal_objective","namespace":"agent","output":"example"}]}"#,
    );
    let made = request::ask(request::parse(&body).unwrap(), &history, &target, &*memory).unwrap();
    let sent = String::from_utf8(wire::encode(&made.request, &body).unwrap().join().to_vec()).unwrap();
    assert!(sent.contains("Output of the tool agent.goal_objective:"), "{sent}");
    assert!(sent.contains("example") && !sent.contains("functionResponse"), "{sent}");
    let body =
        br#"{"model":"m","input":[{"type":"function_call_output","call_id":"c","name":"f","output":"x"}]}"#;
    let refused = request::ask(request::parse(body).unwrap(), &history, &target, &*memory);
    assert!(refused.unwrap_err().message().contains("call_id c"));
}
