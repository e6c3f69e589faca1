//! What the goldens do not show.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use serde_json::Value;

use super::{Finished, ResponsesMachine, Shape, Status};
use crate::ids::Ids;
use crate::memory::Memory;
use crate::translate::{Failure, Machine, Stamp};

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
