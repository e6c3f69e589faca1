//! What holds for every answer: nothing is lost, whole and streamed agree, and nothing panics.

#![expect(clippy::indexing_slicing, reason = "a test may fail loudly")]

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use gemway::ids::Ids;
use gemway::memory::Memory;
use gemway::sse::Decoder;
use gemway::translate::chat::{Shape, reply, stream::ChatMachine};
use gemway::translate::{Machine, Stamp};
use proptest::prelude::*;
use serde_json::{Value, json};

fn stamp() -> Stamp {
    Stamp {
        id: "chatcmpl-1".to_owned(),
        created: 1,
        model: "gemini".to_owned(),
        ids: Arc::new(Ids::counted()),
        signatures: Arc::new(Memory::default()).view("test"),
    }
}

fn shape() -> Shape {
    Shape { thoughts: true, choices: 1, may_be_empty: true, ..Shape::default() }
}

fn part() -> impl Strategy<Value = Value> {
    prop_oneof![
        4 => "\\PC{0,12}|[\"\\\\\n\u{2028}é😀]{0,5}".prop_map(|text| json!({"text": text})),
        1 => "[a-z ]{0,9}".prop_map(|text| json!({"text": text, "thought": true})),
        1 => ("[a-z]{1,4}", "\\PC{0,6}", any::<Option<i64>>()).prop_map(|(name, text, number)| {
            json!({"functionCall": {"name": name, "args": {"text": text, "number": number}}})
        }),
        1 => Just(json!({"text": "", "thoughtSignature": "SIG"})),
    ]
}

fn events() -> impl Strategy<Value = Vec<Value>> {
    prop::collection::vec(prop::collection::vec(part(), 0..4), 1..8).prop_map(|events| {
        let last = events.len() - 1;
        let event = |(nth, parts): (usize, Vec<Value>)| {
            let mut candidate = json!({"content": {"role": "model", "parts": parts}});
            if nth == last {
                candidate["finishReason"] = "STOP".into();
            }
            json!({"candidates": [candidate], "usageMetadata": {"promptTokenCount": 3,
                "candidatesTokenCount": nth}})
        };
        events.into_iter().enumerate().map(event).collect()
    })
}

proptest! {
    #[test]
    fn whole_and_streamed_say_the_same(events in events()) {
        let events: Vec<Bytes> = events.iter().map(|event| Bytes::from(event.to_string())).collect();
        let (mut text, mut thoughts, mut calls) = (String::new(), String::new(), Vec::new());
        for event in &events {
            let event: Value = serde_json::from_slice(event).unwrap();
            for part in event["candidates"][0]["content"]["parts"].as_array().unwrap() {
                let said = part["text"].as_str().unwrap_or_default();
                if part["thought"] == true { thoughts.push_str(said) } else { text.push_str(said) }
                if let Some(call) = part.get("functionCall") {
                    calls.push((call["name"].clone(), call["args"].clone()));
                }
            }
        }

        let (body, usage) = reply::reply(&shape(), &stamp(), &events).unwrap();
        let body: Value = serde_json::from_slice(&body).unwrap();
        let message = &body["choices"][0]["message"];
        prop_assert_eq!(message["content"].as_str().unwrap_or_default(), &text);
        prop_assert_eq!(message["reasoning_content"].as_str().unwrap_or_default(), &thoughts);
        let whole: Vec<(Value, Value)> = message["tool_calls"].as_array().into_iter().flatten().map(|call| {
            let arguments = call["function"]["arguments"].as_str().unwrap();
            (call["function"]["name"].clone(), serde_json::from_str(arguments).unwrap())
        }).collect();
        prop_assert_eq!(&whole, &calls);
        prop_assert_eq!(usage.total(), usage.prompt() + usage.completion());

        let mut machine = ChatMachine::new(shape(), stamp());
        let mut out = BytesMut::new();
        for event in &events {
            machine.push(event, &mut out).unwrap();
        }
        prop_assert_eq!(machine.finish(&mut out).unwrap(), usage);
        let (mut streamed, mut arguments, mut reason) = (String::new(), Vec::<String>::new(), Value::Null);
        for frame in std::str::from_utf8(&out).unwrap().split("\n\n").filter(|frame| frame.starts_with("data: {")) {
            let chunk: Value = serde_json::from_str(frame.strip_prefix("data: ").unwrap()).unwrap();
            let choice = &chunk["choices"][0];
            streamed.push_str(choice["delta"]["content"].as_str().unwrap_or_default());
            for call in choice["delta"]["tool_calls"].as_array().into_iter().flatten() {
                let index = usize::try_from(call["index"].as_u64().unwrap()).unwrap();
                arguments.resize(arguments.len().max(index + 1), String::new());
                arguments[index].push_str(call["function"]["arguments"].as_str().unwrap());
            }
            if !choice["finish_reason"].is_null() {
                prop_assert!(reason.is_null());
                reason = choice["finish_reason"].clone();
            }
        }
        prop_assert_eq!(streamed, text);
        prop_assert_eq!(&reason, &body["choices"][0]["finish_reason"]);
        let arguments: Vec<Value> = arguments.iter().map(|text| serde_json::from_str(text).unwrap()).collect();
        prop_assert_eq!(arguments, calls.into_iter().map(|(_, args)| args).collect::<Vec<_>>());
    }

    #[test]
    fn damage_never_panics(case in 0_usize..1000, flips in prop::collection::vec((any::<u16>(), any::<u8>()), 1..6)) {
        let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/answer");
        let mut cases: Vec<PathBuf> = fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()).collect();
        cases.sort();
        let folder = &cases[case % cases.len()];
        let mut bytes = fs::read(folder.join("response.gemini.sse"))
            .or_else(|_| fs::read(folder.join("response.gemini.json")))
            .unwrap();
        for (at, byte) in flips {
            if !bytes.is_empty() {
                let at = usize::from(at) % bytes.len();
                bytes[at] = byte;
            }
        }
        let (mut decoder, mut events, mut out) = (Decoder::new(1 << 16), Vec::new(), BytesMut::new());
        let mut machine = ChatMachine::new(shape(), stamp());
        let fine = decoder.push(Bytes::from(bytes), &mut events).and_then(|()| decoder.finish(&mut events)).is_ok();
        let fine = fine && events.iter().all(|event| machine.push(event, &mut out).is_ok());
        let before = out.len();
        if fine && machine.finish(&mut out).is_err() {
            // An error at the end comes instead of the end, never after a part of it.
            prop_assert_eq!(out.len(), before);
        }
        let _ = reply::reply(&shape(), &stamp(), &events);
    }
}
