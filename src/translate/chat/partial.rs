//! Arguments of a call that come in fragments, each with a JSON path.

use std::borrow::Cow;
use std::fmt::Write as _;

use crate::gemini::answer::PartialArg;
use crate::wire::Text;

/// An index this far beyond the end of a list is nonsense, and would cost memory.
const MAX_GAP: usize = 1024;
/// Deeper paths are nonsense, and would cost stack.
const MAX_DEPTH: usize = 64;

/// The arguments so far. Numbers keep their digits.
#[derive(Debug, Default)]
pub(super) struct Tree(Node);

#[derive(Debug, Default)]
enum Node {
    #[default]
    Null,
    Raw(String),
    Text(String),
    Object(Vec<(String, Self)>),
    List(Vec<Self>),
}

impl Tree {
    /// Takes whole arguments.
    pub(super) fn replace(&mut self, json: &str) {
        self.0 = Node::Raw(compact(json).into_owned());
    }

    /// Takes a fragment.
    pub(super) fn apply(&mut self, fragment: &PartialArg<'_>) {
        let path = fragment.json_path.as_ref().map(Text::decode).unwrap_or_default();
        let Some(node) = self.0.reach(&steps(&path)) else { return };
        if let Some(piece) = &fragment.string_value {
            if let Node::Text(text) = node {
                text.push_str(&piece.decode());
            } else {
                *node = Node::Text(piece.decode().into_owned());
            }
        } else if let Some(number) = fragment.number_value {
            *node = Node::Raw(number.get().to_owned());
        } else if let Some(truth) = fragment.bool_value {
            *node = Node::Raw(truth.to_string());
        }
    }

    /// The arguments as JSON.
    pub(super) fn to_json(&self) -> String {
        let mut out = String::new();
        if let Node::Null = &self.0 {
            out.push_str("{}");
        } else {
            self.0.write(&mut out);
        }
        out
    }
}

impl Node {
    fn reach(&mut self, steps: &[Step]) -> Option<&mut Self> {
        if steps.len() > MAX_DEPTH {
            return None;
        }
        let mut node = self;
        for step in steps {
            node = match step {
                Step::Key(key) => {
                    if !matches!(node, Self::Object(_)) {
                        *node = Self::Object(Vec::new());
                    }
                    let Self::Object(fields) = node else { return None };
                    let found = fields.iter().position(|(name, _)| name == key).unwrap_or_else(|| {
                        fields.push((key.clone(), Self::Null));
                        fields.len() - 1
                    });
                    &mut fields.get_mut(found)?.1
                }
                Step::Index(index) => {
                    if !matches!(node, Self::List(_)) {
                        *node = Self::List(Vec::new());
                    }
                    let Self::List(items) = node else { return None };
                    if *index > items.len() + MAX_GAP {
                        return None;
                    }
                    if items.len() <= *index {
                        items.resize_with(index + 1, Self::default);
                    }
                    items.get_mut(*index)?
                }
            };
        }
        Some(node)
    }

    fn write(&self, out: &mut String) {
        match self {
            Self::Null => out.push_str("null"),
            Self::Raw(raw) => out.push_str(raw),
            Self::Text(text) => quote(text, out),
            Self::Object(fields) => {
                out.push('{');
                for (nth, (name, node)) in fields.iter().enumerate() {
                    if nth > 0 {
                        out.push(',');
                    }
                    quote(name, out);
                    out.push(':');
                    node.write(out);
                }
                out.push('}');
            }
            Self::List(items) => {
                out.push('[');
                for (nth, node) in items.iter().enumerate() {
                    if nth > 0 {
                        out.push(',');
                    }
                    node.write(out);
                }
                out.push(']');
            }
        }
    }
}

fn quote(text: &str, out: &mut String) {
    let _ = write!(out, "{}", serde_json::Value::from(text));
}

#[derive(Debug, PartialEq)]
enum Step {
    Key(String),
    Index(usize),
}

/// Reads `$.a.b[0]['c d']`.
fn steps(path: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut rest = path.strip_prefix('$').unwrap_or(path);
    while !rest.is_empty() && steps.len() <= MAX_DEPTH {
        if let Some(inner) = rest.strip_prefix('[') {
            let quote = inner.chars().next().filter(|c| matches!(c, '\'' | '"'));
            if let Some(quote) = quote {
                let inner = inner.get(1..).unwrap_or_default();
                let (key, after) = inner.split_once(quote).unwrap_or((inner, ""));
                steps.push(Step::Key(key.to_owned()));
                rest = after.strip_prefix(']').unwrap_or(after);
            } else {
                let (index, after) = inner.split_once(']').unwrap_or((inner, ""));
                steps.push(match index.trim().parse() {
                    Ok(index) => Step::Index(index),
                    Err(_) => Step::Key(index.to_owned()),
                });
                rest = after;
            }
        } else {
            let name = rest.strip_prefix('.').unwrap_or(rest);
            let end = name.find(['.', '[']).unwrap_or(name.len());
            let (key, after) = name.split_at(end);
            if !key.is_empty() {
                steps.push(Step::Key(key.to_owned()));
            } else if after.len() == rest.len() {
                break;
            }
            rest = after;
        }
    }
    steps
}

/// JSON without the white space between its tokens; digits and strings stay as they are.
pub(super) fn compact(json: &str) -> Cow<'_, str> {
    let blank = |byte: u8| matches!(byte, b' ' | b'\n' | b'\r' | b'\t');
    if !json.bytes().any(blank) {
        return Cow::Borrowed(json);
    }
    let mut out = String::with_capacity(json.len());
    let mut rest = json;
    while let Some(at) = rest.find(['"', ' ', '\n', '\r', '\t']) {
        let (before, from) = rest.split_at(at);
        out.push_str(before);
        let end = if from.starts_with('"') { string_end(from) } else { 1 };
        let (token, after) = from.split_at(end);
        if token.starts_with('"') {
            out.push_str(token);
        }
        rest = after;
    }
    out.push_str(rest);
    Cow::Owned(out)
}

/// The length of the string token that `json` begins with.
fn string_end(json: &str) -> usize {
    let bytes = json.as_bytes();
    let mut at = 1;
    while let Some(found) = bytes.get(at..).and_then(|rest| memchr::memchr2(b'"', b'\\', rest)) {
        at += found + 1;
        if bytes.get(at - 1) == Some(&b'"') {
            return at;
        }
        at += 1;
    }
    json.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assembled(fragments: &[&str]) -> String {
        let mut tree = Tree::default();
        for fragment in fragments {
            tree.apply(&serde_json::from_str(fragment).unwrap());
        }
        tree.to_json()
    }

    #[test]
    fn fragments_become_one_object() {
        let json = assembled(&[
            r#"{"jsonPath":"$.city","stringValue":"Os","willContinue":true}"#,
            r#"{"jsonPath":"$.city","stringValue":"lo\n"}"#,
            r#"{"jsonPath":"$.list[1]['a b']","numberValue":1.0}"#,
            r#"{"jsonPath":"$.list[0]","boolValue":true}"#,
            r#"{"jsonPath":"$.none","nullValue":"NULL_VALUE"}"#,
            r#"{"jsonPath":"$.list[999999999]","boolValue":true}"#,
        ]);
        assert_eq!(json, r#"{"city":"Oslo\n","list":[true,{"a b":1.0}],"none":null}"#);
        assert!(serde_json::from_str::<serde_json::Value>(&json).is_ok());
        assert_eq!(assembled(&[]), "{}");
    }

    #[test]
    fn white_space_between_tokens_goes() {
        assert_eq!(compact("{\n \"a b\\\" \" : [ 1.0,\t2 ] }"), r#"{"a b\" ":[1.0,2]}"#);
        assert_eq!(compact("{}"), "{}");
    }
}
