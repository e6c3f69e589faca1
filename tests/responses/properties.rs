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
        1 => "[a-z\n]{1,9}".prop_map(|code| json!({"executableCode": {"language": "PYTHON", "code": code}})),
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

/// The same bytes in pieces.
fn pieces(input: &Bytes, cuts: Vec<prop::sample::Index>) -> Vec<Bytes> {
    let mut at: Vec<usize> = cuts.into_iter().map(|cut| cut.index(input.len())).collect();
    at.extend([0, input.len()]);
    at.sort_unstable();
    at.windows(2).map(|ends| input.slice(ends[0]..ends[1])).collect()
}

/// Adds words to those that come right before them.
fn say(said: &mut Vec<String>, kind: &str, text: &str) {
    let kind = format!("{kind}: ");
    match said.last_mut().filter(|last| last.starts_with(&kind)) {
        Some(last) => last.push_str(text),
        None => said.push(format!("{kind}{text}")),
    }
}

const ASKED: &[u8] = br#"{"model":"gemini-3.8-flash","input":"x","reasoning":{"summary":"auto"},
    "include":["reasoning.encrypted_content"],"tools":[{"type":"function","name":"f"},
    {"type":"custom","name":"c"},{"type":"namespace","name":"n","description":"d","tools":[
    {"type":"function","name":"g"}]},{"type":"shell"}]}"#;

proptest! {
    #[test]
    fn the_grammar_is_kept_and_nothing_is_lost(
        answer in answer(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
    ) {
        let shape = shape(ASKED, "gemini-3.8-flash");
        let input = sse(&answer);
        let (frames, result) = streamed(&shape, std::iter::once(input.clone()));
        let (torn, _) = streamed(&shape, pieces(&input, cuts).into_iter());
        prop_assert_eq!(&torn, &frames, "wherever it is cut");
        let last = grammar::check(&frames);

        // What was said, in its order: words as they are, everything else by its kind.
        let mut said = Vec::new();
        for event in &answer {
            for part in event["candidates"][0]["content"]["parts"].as_array().unwrap() {
                let text = part["text"].as_str().unwrap_or_default();
                match part["functionCall"]["name"].as_str() {
                    Some("c") => said.push("custom_tool_call".to_owned()),
                    Some(_) => said.push("function_call".to_owned()),
                    None if part.get("inlineData").is_some() => said.push("image_generation_call".to_owned()),
                    None if part.get("executableCode").is_some() => said.push("code_interpreter_call".to_owned()),
                    None if text.is_empty() => {}
                    None => say(&mut said, if part["thought"] == true { "thought" } else { "text" }, text),
                }
            }
        }
        let items = last["output"].as_array().unwrap();
        let mut got = Vec::new();
        for item in items {
            match item["type"].as_str().unwrap() {
                "message" => say(&mut got, "text", item["content"][0]["text"].as_str().unwrap()),
                "reasoning" => {
                    for part in item["summary"].as_array().unwrap() {
                        say(&mut got, "thought", part["text"].as_str().unwrap());
                    }
                }
                // Google tells of a search beside its parts; and a result may come without its code.
                "web_search_call" => {}
                "code_interpreter_call" if item["code"] == "" => {}
                kind => got.push(kind.to_owned()),
            }
        }
        prop_assert_eq!(got, said);

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
