//! What every sequence of events must obey, whatever it says: the order, the numbers, and that what is done was
//! added, and that the parts make the whole.

use std::collections::BTreeMap;

use serde_json::Value;

/// An item as a client puts it together.
#[derive(Debug, Default)]
struct Item {
    added: Value,
    done: Option<Value>,
    /// Open text parts, by the field that counts them.
    part: Option<String>,
    parts_closed: usize,
    text: String,
    text_done: Option<String>,
    states: Vec<String>,
}

/// Reads frames: both lines, and that they agree.
pub(crate) fn frames(text: &str) -> Vec<Value> {
    let mut out = Vec::new();
    for frame in text.split("\n\n").filter(|frame| !frame.is_empty()) {
        let (event, data) = frame.split_once('\n').expect("two lines");
        let event = event.strip_prefix("event: ").expect("an event line");
        assert!(!data.contains(['\n', '\r']), "an event is one line: {data}");
        let data: Value = serde_json::from_str(data.strip_prefix("data: ").expect("data")).expect("JSON");
        assert_eq!(data["type"], event);
        out.push(data);
    }
    out
}

/// Checks a whole stream and gives its last response.
#[expect(clippy::too_many_lines, reason = "one grammar, in one place")]
pub(crate) fn check(text: &str) -> Value {
    let events = frames(text);
    let mut items: BTreeMap<u64, Item> = BTreeMap::new();
    let mut last = None;
    for (nth, event) in events.iter().enumerate() {
        let kind = event["type"].as_str().unwrap();
        assert_eq!(event["sequence_number"], nth, "no gap before {kind}");
        assert!(last.is_none(), "{kind} behind the end");
        match (nth, kind) {
            (0, "response.created") | (1, "response.in_progress") => {
                assert_eq!(event["response"]["status"], "in_progress");
                assert_eq!(event["response"]["output"], serde_json::json!([]));
                continue;
            }
            (0 | 1, other) => panic!("{other} at {nth}"),
            _ => {}
        }
        if let "response.completed" | "response.incomplete" | "response.failed" = kind {
            assert_eq!(event["response"]["status"], kind.strip_prefix("response.").unwrap());
            last = Some(event["response"].clone());
            continue;
        }
        let index = event["output_index"].as_u64().unwrap_or_else(|| panic!("{kind} has no place"));
        if kind == "response.output_item.added" {
            assert_eq!(index, items.len() as u64, "items come in order");
            items.insert(index, Item { added: event["item"].clone(), ..Item::default() });
            continue;
        }
        let item = items.get_mut(&index).unwrap_or_else(|| panic!("{kind} before its item"));
        assert!(item.done.is_none(), "{kind} behind its item's end");
        let of = item.added["type"].as_str().unwrap();
        if kind == "response.output_item.done" {
            let done = &event["item"];
            assert_eq!(done["id"], item.added["id"]);
            assert_eq!(done["type"], item.added["type"]);
            assert!(item.part.is_none(), "a part of {of} is open");
            assert_ne!(done["status"], "in_progress");
            close(item, of, done);
            item.done = Some(done.clone());
            continue;
        }
        assert_eq!(event["item_id"], item.added["id"], "{kind}");
        let word = kind.strip_prefix("response.").unwrap();
        match (of, word) {
            ("message", "content_part.added") => {
                assert_eq!(event["content_index"], item.parts_closed);
                let part = event["part"]["type"].as_str().unwrap().to_owned();
                assert!(item.part.replace(part).is_none());
            }
            ("message", "output_text.delta" | "refusal.delta") => {
                assert!(item.part.is_some() && item.text_done.is_none());
                item.text.push_str(event["delta"].as_str().unwrap());
                assert!(word == "refusal.delta" || event["logprobs"].is_array());
            }
            ("message", "output_text.annotation.added") => {
                assert!(item.part.is_some() && item.text_done.is_none());
                let (start, end) = (&event["annotation"]["start_index"], &event["annotation"]["end_index"]);
                let length = item.text.chars().count() as u64;
                assert!(start.as_u64().unwrap() <= end.as_u64().unwrap());
                assert!(end.as_u64().unwrap() <= length);
            }
            ("message", "output_text.done" | "refusal.done") => {
                let field = if word == "refusal.done" { "refusal" } else { "text" };
                assert_eq!(event[field], item.text.as_str());
                item.text_done = Some(item.text.clone());
            }
            ("message", "content_part.done") => {
                let kind = item.part.take().expect("an open part");
                assert_eq!(event["part"]["type"], kind.as_str());
                assert!(item.text_done.is_some());
                item.parts_closed += 1;
            }
            ("reasoning", "reasoning_summary_part.added") => {
                assert_eq!(event["summary_index"], item.parts_closed);
                assert!(item.part.replace("summary".to_owned()).is_none());
            }
            ("reasoning", "reasoning_summary_text.delta") => {
                assert!(item.part.is_some() && item.text_done.is_none());
                item.text.push_str(event["delta"].as_str().unwrap());
            }
            ("reasoning", "reasoning_summary_text.done") => {
                assert_eq!(event["text"], item.text.as_str());
                item.text_done = Some(item.text.clone());
            }
            ("reasoning", "reasoning_summary_part.done") => {
                assert!(item.part.take().is_some() && item.text_done.is_some());
                assert_eq!(event["part"]["text"], item.text.as_str());
                item.parts_closed += 1;
            }
            ("function_call", "function_call_arguments.delta")
            | ("custom_tool_call", "custom_tool_call_input.delta")
            | ("code_interpreter_call", "code_interpreter_call_code.delta") => {
                assert!(item.text_done.is_none());
                item.text.push_str(event["delta"].as_str().unwrap());
            }
            ("function_call", "function_call_arguments.done") => {
                assert_eq!(event["arguments"], item.text.as_str());
                item.text_done = Some(item.text.clone());
            }
            ("custom_tool_call", "custom_tool_call_input.done") => {
                assert_eq!(event["input"], item.text.as_str());
                item.text_done = Some(item.text.clone());
            }
            ("code_interpreter_call", "code_interpreter_call_code.done") => {
                assert_eq!(event["code"], item.text.as_str());
                item.text_done = Some(item.text.clone());
            }
            (of, word) => {
                let state = word.strip_prefix(of).and_then(|rest| rest.strip_prefix('.'));
                let state = state.unwrap_or_else(|| panic!("{word} in a {of}"));
                item.states.push(state.to_owned());
            }
        }
    }
    let last = last.expect("an end");
    let done: Vec<&Value> =
        items.values().map(|item| item.done.as_ref().expect("every item is closed")).collect();
    assert_eq!(last["output"].as_array().unwrap().iter().collect::<Vec<_>>(), done);
    last
}

/// What an item must be when it is done.
fn close(item: &Item, of: &str, done: &Value) {
    let text = item.text_done.as_deref();
    match of {
        "message" => {
            assert_eq!(item.parts_closed, 1);
            let part = &done["content"][0];
            let said = part["text"].as_str().or(part["refusal"].as_str());
            assert_eq!(said, text);
        }
        "reasoning" => {
            let summary = done["summary"].as_array().unwrap();
            assert_eq!(summary.len(), item.parts_closed);
            assert_eq!(summary.first().and_then(|part| part["text"].as_str()), text);
        }
        "function_call" => assert_eq!(done["arguments"].as_str(), text),
        "custom_tool_call" => assert_eq!(done["input"].as_str(), text),
        "code_interpreter_call" => {
            assert_eq!(done["code"].as_str(), text);
            assert_eq!(item.states, ["in_progress", "interpreting", "completed"]);
        }
        "web_search_call" => assert_eq!(item.states, ["in_progress", "searching", "completed"]),
        "image_generation_call" => {
            assert_eq!(item.states, ["in_progress", "generating", "completed"]);
            assert!(done["result"].is_string());
        }
        "shell_call" | "local_shell_call" | "apply_patch_call" => assert!(item.states.is_empty()),
        other => panic!("an item of type {other}"),
    }
}
