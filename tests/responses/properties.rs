//! What holds for every answer: nothing is lost, whole and streamed agree, the grammar is kept, nothing panics.

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{grammar, shape, streamed, whole};

fn part() -> impl Strategy<Value = Value> {
    prop_oneof![
        4 => "\\PC{0,12}|[\"\\\\\n\u{2028}é😀]{0,5}".prop_map(|text| json!({"text": text})),
        2 => "[a-z ]{0,9}".prop_map(|text| json!({"text": text, "thought": true})),
        2 => ("[fgc]", "\\PC{0,6}", any::<Option<i64>>(), any::<bool>()).prop_map(|(name, text, number, signed)| {
            let mut part = json!({"functionCall": {"name": name, "args": {"input": text, "number": number}}});
            if signed { part["thoughtSignature"] = "SIG".into(); }
            part
        }),
        1 => Just(json!({"text": "", "thoughtSignature": "SIG"})),
        1 => "[a-z\n]{0,9}".prop_map(|code| json!({"executableCode": {"language": "PYTHON", "code": code}})),
        1 => Just(json!({"codeExecutionResult": {"outcome": "OUTCOME_OK", "output": "1\n"}})),
        1 => Just(json!({"toolCall": {"toolType": "GOOGLE_SEARCH_WEB", "args": {"queries": ["q"]}, "id": "t"}})),
        1 => Just(json!({"toolResponse": {"toolType": "GOOGLE_SEARCH_WEB", "id": "t"}, "thoughtSignature": "S"})),
        1 => Just(json!({"inlineData": {"mimeType": "image/png", "data": "iVBORw0KGgo="}})),
    ]
}

fn answer() -> impl Strategy<Value = Vec<Value>> {
    let ends = prop_oneof![
        4 => Just(Some("STOP")),
        1 => Just(Some("MAX_TOKENS")),
        1 => Just(Some("SAFETY")),
        1 => Just(None),
    ];
    let grounded = any::<bool>();
    (prop::collection::vec(prop::collection::vec(part(), 0..4), 1..8), ends, grounded).prop_map(
        |(events, end, grounded)| {
            let last = events.len() - 1;
            let event = |(nth, parts): (usize, Vec<Value>)| {
                let mut candidate = json!({"content": {"role": "model", "parts": parts}});
                if nth == last {
                    if let Some(end) = end {
                        candidate["finishReason"] = end.into();
                    }
                    if grounded {
                        candidate["groundingMetadata"] = json!({"webSearchQueries": ["q"],
                            "groundingChunks": [{"web": {"uri": "https://a.example", "title": "A"}}],
                            "groundingSupports": [{"segment": {"startIndex": 1, "endIndex": 4},
                                "groundingChunkIndices": [0]}]});
                    }
                }
                json!({"candidates": [candidate], "usageMetadata": {"promptTokenCount": 3}})
            };
            events.into_iter().enumerate().map(event).collect()
        },
    )
}

fn sse(events: &[Value]) -> Bytes {
    let mut text = String::new();
    for event in events {
        text.push_str("data: ");
        text.push_str(&event.to_string());
        text.push_str("\n\n");
    }
    text.into()
}

const ASKED: &[u8] = br#"{"model":"gemini-3.8-flash","input":"x","reasoning":{"summary":"auto"},
    "include":["reasoning.encrypted_content"],"tools":[{"type":"function","name":"f"},
    {"type":"custom","name":"c"},{"type":"namespace","name":"n","description":"d","tools":[
    {"type":"function","name":"g"}]},{"type":"shell"}]}"#;

proptest! {
    #[test]
    fn the_grammar_is_kept_and_nothing_is_lost(answer in answer()) {
        let shape = shape(ASKED, "gemini-3.8-flash");
        let input = sse(&answer);
        let (frames, result) = streamed(&shape, std::iter::once(input.clone()));
        let last = grammar::check(&frames);

        let (mut text, mut calls) = (String::new(), 0);
        for event in &answer {
            for part in event["candidates"][0]["content"]["parts"].as_array().unwrap() {
                if part["thought"] != true {
                    text.push_str(part["text"].as_str().unwrap_or_default());
                }
                calls += usize::from(part.get("functionCall").is_some());
            }
        }
        let items = last["output"].as_array().unwrap();
        let of = |kind: &str| items.iter().filter(|item| item["type"] == kind).count();
        let said: String = items.iter().filter(|item| item["type"] == "message")
            .map(|item| item["content"][0]["text"].as_str().unwrap()).collect();
        prop_assert_eq!(said, text);
        prop_assert_eq!(of("function_call") + of("custom_tool_call"), calls);

        if let Ok(made) = whole(&shape, &input) {
            prop_assert!(result.is_ok());
            prop_assert_eq!(made["output"].as_array().unwrap().len(), items.len());
            prop_assert_eq!(&made["status"], &last["status"]);
        } else {
            prop_assert_eq!(&last["status"], "failed");
        }
    }

    #[test]
    fn damage_never_panics(answer in answer(), flips in prop::collection::vec((any::<u16>(), any::<u8>()), 1..6)) {
        let shape = shape(ASKED, "gemini-3.8-flash");
        let mut bytes = sse(&answer).to_vec();
        for (at, byte) in flips {
            let at = usize::from(at) % bytes.len();
            bytes[at] = byte;
        }
        let (frames, _) = streamed(&shape, std::iter::once(Bytes::from(bytes.clone())));
        grammar::check(&frames);
        let _ = whole(&shape, &Bytes::from(bytes));
    }
}
