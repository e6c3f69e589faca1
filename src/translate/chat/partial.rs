//! Arguments of a call that come in fragments, each with a JSON path, written as JSON while they come.

use std::borrow::Cow;

use crate::gemini::answer::PartialArg;
use crate::wire::Text;

/// An index this far beyond the end of a list is nonsense, and would cost memory.
const MAX_GAP: usize = 1024;
/// Deeper paths are nonsense.
const MAX_DEPTH: usize = 64;

/// Writes the one object that fragments make. Google sends them in the order of the document, as the model writes
/// it, so that what is finished can go to the client at once; a fragment that comes back to a place that is closed
/// cannot be told any more. Numbers keep their digits.
#[derive(Debug, Default)]
pub(super) struct Writer {
    /// The containers that are open, outermost first, each with its member that is being written.
    open: Vec<Level>,
    /// The last value is a string that may go on.
    in_string: bool,
    begun: bool,
    /// Whole arguments were given; nothing can follow.
    whole: bool,
}

#[derive(Debug)]
struct Level {
    at: Step,
    /// Names that this object has had; unused in a list.
    names: Vec<String>,
}

/// A fragment belongs to a place that is closed, or makes no sense.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct OutOfOrder;

impl Writer {
    /// Takes whole arguments.
    pub(super) fn replace(&mut self, json: &str, out: &mut String) -> Result<(), OutOfOrder> {
        if self.begun || self.whole {
            return Err(OutOfOrder);
        }
        self.whole = true;
        out.push_str(&compact(json));
        Ok(())
    }

    /// Takes a fragment and appends what it adds to the text of the object.
    pub(super) fn apply(&mut self, fragment: &PartialArg<'_>, out: &mut String) -> Result<(), OutOfOrder> {
        let path = fragment.json_path.as_ref().map(Text::decode).unwrap_or_default();
        let steps = steps(&path);
        if steps.is_empty() || steps.len() > MAX_DEPTH || self.whole {
            return Err(OutOfOrder);
        }
        let shared = self.open.iter().zip(&steps).take_while(|(level, step)| level.at == **step).count();
        if shared == steps.len() || (shared == self.open.len() && self.begun) {
            // The same place again: only a string that is still open can go on.
            return match &fragment.string_value {
                Some(piece) if self.in_string && shared == self.open.len() && shared == steps.len() => {
                    escaped(&piece.decode(), out);
                    Ok(())
                }
                _ => Err(OutOfOrder),
            };
        }
        self.leave(shared + 1, out);
        for (depth, step) in steps.into_iter().enumerate().skip(shared) {
            self.enter(depth, step, out)?;
        }
        if let Some(piece) = &fragment.string_value {
            out.push('"');
            escaped(&piece.decode(), out);
            self.in_string = true;
        } else if let Some(number) = fragment.number_value {
            out.push_str(number.get());
        } else if let Some(truth) = fragment.bool_value {
            out.push_str(if truth { "true" } else { "false" });
        } else {
            out.push_str("null");
        }
        Ok(())
    }

    /// Appends what closes the object.
    pub(super) fn close(&mut self, out: &mut String) {
        if !self.begun && !self.whole {
            out.push_str("{}");
        }
        self.leave(0, out);
        self.whole = true;
    }

    /// Closes the string and all containers deeper than `depth`.
    fn leave(&mut self, depth: usize, out: &mut String) {
        if std::mem::take(&mut self.in_string) {
            out.push('"');
        }
        while self.open.len() > depth {
            if let Some(level) = self.open.pop() {
                out.push(match level.at {
                    Step::Key(_) => '}',
                    Step::Index(_) => ']',
                });
            }
        }
    }

    /// Goes to a member of the container at `depth`: to the next one of an open container, or into a new one.
    fn enter(&mut self, depth: usize, step: Step, out: &mut String) -> Result<(), OutOfOrder> {
        let fresh = depth >= self.open.len();
        if fresh {
            match &step {
                Step::Index(_) if depth == 0 => return Err(OutOfOrder),
                Step::Key(_) => out.push('{'),
                Step::Index(_) => out.push('['),
            }
            self.begun = true;
            self.open.push(Level { at: Step::Index(0), names: Vec::new() });
        }
        let Some(level) = self.open.get_mut(depth) else { return Err(OutOfOrder) };
        match &step {
            Step::Key(name) => {
                if !fresh && !matches!(level.at, Step::Key(_)) || level.names.contains(name) {
                    return Err(OutOfOrder);
                }
                if !fresh {
                    out.push(',');
                }
                level.names.push(name.clone());
                out.push('"');
                escaped(name, out);
                out.push_str("\":");
            }
            Step::Index(index) => {
                let next = match (&level.at, fresh) {
                    (_, true) => 0,
                    (Step::Index(last), false) => last + 1,
                    (Step::Key(_), false) => return Err(OutOfOrder),
                };
                if *index < next || *index > next + MAX_GAP {
                    return Err(OutOfOrder);
                }
                for at in next..=*index {
                    if at > 0 {
                        out.push(',');
                    }
                    if at < *index {
                        out.push_str("null");
                    }
                }
            }
        }
        level.at = step;
        Ok(())
    }
}

fn escaped(text: &str, out: &mut String) {
    let token = serde_json::Value::from(text).to_string();
    out.push_str(token.get(1..token.len() - 1).unwrap_or_default());
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
pub(in crate::translate) fn compact(json: &str) -> Cow<'_, str> {
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

    /// What is given out after each fragment, and at the end.
    fn written(fragments: &[&str]) -> Result<Vec<String>, OutOfOrder> {
        let (mut writer, mut given) = (Writer::default(), Vec::new());
        for fragment in fragments {
            let mut out = String::new();
            writer.apply(&serde_json::from_str(fragment).unwrap(), &mut out)?;
            given.push(out);
        }
        let mut out = String::new();
        writer.close(&mut out);
        given.push(out);
        Ok(given)
    }

    #[test]
    fn fragments_are_given_out_as_they_come() {
        let given = written(&[
            r#"{"jsonPath":"$.city","stringValue":"Os","willContinue":true}"#,
            r#"{"jsonPath":"$.city","stringValue":"lo\n"}"#,
            r#"{"jsonPath":"$.list[0]","boolValue":true}"#,
            r#"{"jsonPath":"$.list[2]['a b']","numberValue":1.0}"#,
            r#"{"jsonPath":"$.list[2].c","stringValue":""}"#,
            r#"{"jsonPath":"$.none","nullValue":"NULL_VALUE"}"#,
        ]);
        assert_eq!(
            given.unwrap(),
            [
                r#"{"city":"Os"#,
                r"lo\n",
                r#"","list":[true"#,
                r#",null,{"a b":1.0"#,
                r#","c":""#,
                r#""}],"none":null"#,
                "}"
            ]
        );
        assert_eq!(written(&[]).unwrap(), ["{}"]);
    }

    #[test]
    fn what_cannot_be_told_any_more_is_not_swallowed() {
        let text = |path: &str| format!(r#"{{"jsonPath":"{path}","stringValue":"x"}}"#);
        for path in [
            ["$.a", "$.b", "$.a"],
            ["$.a.b", "$.c", "$.a.d"],
            ["$.a[1]", "$.a[0]", "$.b"],
            ["$.a", "$.a.b", "$.c"],
            ["$.a.b", "$.a", "$.c"],
            ["$.a[0]", "$.a.b", "$.c"],
            ["$[0]", "$.a", "$.b"],
            ["$", "$.a", "$.b"],
            ["$.a[999999999]", "$.a", "$.b"],
        ] {
            let fragments = path.map(text);
            let fragments: Vec<&str> = fragments.iter().map(String::as_str).collect();
            assert_eq!(written(&fragments), Err(OutOfOrder), "{path:?}");
        }
        let number = r#"{"jsonPath":"$.n","numberValue":1}"#;
        assert_eq!(written(&[number, number]), Err(OutOfOrder));
    }

    #[test]
    fn white_space_between_tokens_goes() {
        assert_eq!(compact("{\n \"a b\\\" \" : [ 1.0,\t2 ] }"), r#"{"a b\" ":[1.0,2]}"#);
        assert_eq!(compact("{}"), "{}");
    }
}
