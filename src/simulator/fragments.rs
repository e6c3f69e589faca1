//! Calls whose arguments are streamed: what a whole call becomes where Vertex AI was asked for pieces.
//!
//! First comes the name, then one part for each piece of a value with the path of its place, then an empty call
//! as the end. Values come in the order of the document; a text comes in several pieces.

use serde_json::{Value, json};

use super::script::Piece;
use super::usage;

/// Takes every call apart. An empty object or list has no value in it, so it is not said.
pub(super) fn spread(pieces: Vec<Piece>) -> Vec<Piece> {
    let mut out = Vec::with_capacity(pieces.len());
    for piece in pieces {
        match piece {
            Piece::Part(part) if part.get("functionCall").is_some() => call(part, &mut out),
            whole => out.push(whole),
        }
    }
    out
}

fn call(mut part: Value, out: &mut Vec<Piece>) {
    let opening = part.get_mut("functionCall").and_then(Value::as_object_mut);
    let args = opening.and_then(|call| {
        call.insert("willContinue".to_owned(), true.into());
        call.remove("args")
    });
    out.push(Piece::Part(part));
    let mut fragments = Vec::new();
    leaves(&args.unwrap_or_default(), "$", &mut fragments);
    out.extend(fragments.into_iter().map(|fragment| {
        Piece::Part(json!({ "functionCall": { "partialArgs": [fragment], "willContinue": true } }))
    }));
    out.push(Piece::Part(json!({ "functionCall": {} })));
}

fn leaves(value: &Value, path: &str, out: &mut Vec<Value>) {
    match value {
        Value::Object(members) => {
            for (name, value) in members {
                leaves(value, &format!("{path}{}", step(name)), out);
            }
        }
        Value::Array(items) => {
            for (index, value) in items.iter().enumerate() {
                leaves(value, &format!("{path}[{index}]"), out);
            }
        }
        Value::String(text) => {
            let mut rest = text.as_str();
            loop {
                let token = usage::token(rest);
                rest = rest.get(token.len()..).unwrap_or_default();
                let mut fragment = json!({ "jsonPath": path, "stringValue": token });
                if !rest.is_empty()
                    && let Some(fragment) = fragment.as_object_mut()
                {
                    fragment.insert("willContinue".to_owned(), true.into());
                }
                out.push(fragment);
                if rest.is_empty() || token.is_empty() {
                    break;
                }
            }
        }
        Value::Number(number) => out.push(json!({ "jsonPath": path, "numberValue": number })),
        Value::Bool(truth) => out.push(json!({ "jsonPath": path, "boolValue": truth })),
        Value::Null => out.push(json!({ "jsonPath": path, "nullValue": "NULL_VALUE" })),
    }
}

/// One member's place: by a dot where its name is a plain word, else in brackets.
fn step(name: &str) -> String {
    let plain = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    match name.contains('\'') {
        _ if plain => format!(".{name}"),
        false => format!("['{name}']"),
        true => format!("[\"{name}\"]"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_taken_apart() {
        let args = json!({"city": "New York", "a b": [1.5, {"deep": null}], "none": {}, "yes": true});
        let whole = json!({"functionCall": {"id": "c", "name": "f", "args": args}, "thoughtSignature": "s"});
        let parts: Vec<Value> = spread(vec![Piece::Text("x".to_owned()), Piece::Part(whole)])
            .into_iter()
            .filter_map(|piece| match piece {
                Piece::Part(part) => Some(part),
                Piece::Text(_) | Piece::Thought(_) => None,
            })
            .collect();
        let piece =
            |fragment: Value| json!({"functionCall": {"partialArgs": [fragment], "willContinue": true}});
        assert_eq!(
            parts,
            [
                json!({"functionCall": {"id": "c", "name": "f", "willContinue": true}, "thoughtSignature": "s"}),
                piece(json!({"jsonPath": "$.city", "stringValue": "New", "willContinue": true})),
                piece(json!({"jsonPath": "$.city", "stringValue": " York"})),
                piece(json!({"jsonPath": "$['a b'][0]", "numberValue": 1.5})),
                piece(json!({"jsonPath": "$['a b'][1].deep", "nullValue": "NULL_VALUE"})),
                piece(json!({"jsonPath": "$.yes", "boolValue": true})),
                json!({"functionCall": {}}),
            ]
        );
    }
}
