//! JSON Schemas: passed on as they are where Gemini reads JSON Schema and nothing in them needs help; lightly
//! rewritten where something does. For older families see `subset`.

use memchr::memmem;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::request::read;
use crate::error::{Error, Result};
use crate::gemini::ask::Json;
use crate::wire::Unknown;

/// Sub-schemas that one rewriting may visit: inlined references can multiply.
const MOST_NODES: usize = 20_000;

/// How deep they may nest.
const DEEPEST: usize = 96;

/// References that lead to references.
const MOST_HOPS: usize = 32;

#[derive(Deserialize)]
struct Peek<'a> {
    #[serde(borrow, default, rename = "type")]
    kind: Option<&'a RawValue>,
    #[serde(borrow, default)]
    properties: Option<&'a RawValue>,
}

fn peek(raw: &RawValue) -> Option<Peek<'_>> {
    serde_json::from_str(raw.get()).ok()
}

/// Whether a schema of arguments says anything: `{}` and an object without properties do not.
pub(super) fn has_members(raw: &RawValue) -> bool {
    let Ok(members) = serde_json::from_str::<Unknown>(raw.get()) else {
        return true;
    };
    let telling = ["$ref", "anyOf", "oneOf", "allOf", "additionalProperties", "patternProperties"];
    let other = telling.iter().any(|key| {
        members.0.iter().any(|name| name == key) && !(*key == "additionalProperties" && says_false(raw))
    });
    let properties = peek(raw).and_then(|peek| peek.properties);
    let any = properties.is_some_and(|raw| raw.get().bytes().any(|byte| byte == b'"'));
    any || other
}

fn says_false(raw: &RawValue) -> bool {
    #[derive(Deserialize)]
    struct Additional {
        #[serde(rename = "additionalProperties")]
        allowed: Option<Value>,
    }
    serde_json::from_str::<Additional>(raw.get())
        .is_ok_and(|found| matches!(found.allowed, None | Some(Value::Bool(false))))
}

/// Whether a schema's root describes an object, itself or through references.
pub(super) fn is_object(raw: &RawValue) -> bool {
    let typed = peek(raw).is_some_and(|peek| match peek.kind {
        Some(kind) => kind.get().eq_ignore_ascii_case("\"object\""),
        None => peek.properties.is_some(),
    });
    if typed || memmem::find(raw.get().as_bytes(), b"\"$ref\"").is_none() {
        return typed;
    }
    let Ok(root) = read::<Value>(raw) else { return false };
    let Some(map) = root.as_object() else { return false };
    let found = Walk::over(&root).resolved(map, 0);
    found.is_ok_and(|map| {
        map.get("type").is_some_and(|kind| kind == "object") || map.contains_key("properties")
    })
}

/// The schema of a function's arguments, for the JSON Schema slot.
pub(super) fn parameters(raw: &RawValue) -> Result<Json<'_>> {
    let typed = peek(raw).is_some_and(|peek| peek.kind.is_some());
    if typed { answer(raw) } else { rewritten(raw, true) }
}

/// The schema of an answer, for the JSON Schema slot.
pub(super) fn answer(raw: &RawValue) -> Result<Json<'_>> {
    let text = raw.get().as_bytes();
    let risky: [&[u8]; 4] = [b"\"const\"", b"\"$ref\"", b"\"allOf\"", b"\"definitions\""];
    // An escaped key is no key anybody writes by hand, and reading it costs little.
    let named = |name: &[u8]| memmem::find(text, name).is_some();
    let needed = risky.iter().any(|key| named(key)) || LOUD.iter().any(|kind| named(kind.as_bytes()));
    if needed { rewritten(raw, false) } else { Ok(Json::Raw(raw)) }
}

/// Whether a schema's root plainly describes something other than an object.
pub(super) fn is_other(raw: &RawValue) -> bool {
    peek(raw).and_then(|peek| peek.kind).is_some_and(|kind| {
        kind.get().starts_with('"') && !kind.get().trim_matches('"').eq_ignore_ascii_case("object")
    })
}

fn rewritten(raw: &RawValue, object: bool) -> Result<Json<'_>> {
    let root: Value = read(raw)?;
    let mut walk = Walk { object, ..Walk::over(&root) };
    let mut out = walk.clean(&root)?;
    if object && let Value::Object(map) = &mut out {
        map.insert("type".to_owned(), json!("object"));
    }
    Ok(Json::Value(out))
}

/// A way through one schema, with its bounds.
pub(super) struct Walk<'r> {
    root: &'r Value,
    /// References that are being inlined.
    pub(super) open: Vec<String>,
    pub(super) nodes: usize,
    pub(super) depth: usize,
    /// The root must be an object, not a reference to one.
    object: bool,
}

/// Types as Google's older form of schemas writes them; some clients send that form here too.
const LOUD: [&str; 7] =
    ["\"OBJECT\"", "\"STRING\"", "\"ARRAY\"", "\"INTEGER\"", "\"NUMBER\"", "\"BOOLEAN\"", "\"NULL\""];

/// Keywords whose value is a map of schemas.
const MAPS: [&str; 5] = ["properties", "$defs", "definitions", "patternProperties", "dependentSchemas"];
/// Keywords whose value is a list of schemas.
const LISTS: [&str; 3] = ["anyOf", "oneOf", "prefixItems"];
/// Keywords whose value is a schema.
const SINGLES: [&str; 4] = ["items", "additionalProperties", "contains", "propertyNames"];

impl<'r> Walk<'r> {
    pub(super) fn over(root: &'r Value) -> Self {
        Self { root, open: Vec::new(), nodes: 0, depth: 0, object: false }
    }

    /// Enters a sub-schema; chains of references can be deeper than the text they stand in.
    pub(super) fn enter(&mut self) -> Result<()> {
        self.nodes += 1;
        self.depth += 1;
        if self.nodes > MOST_NODES || self.depth > DEEPEST {
            return Err(Error::invalid("", "The schema is too large once its references are resolved."));
        }
        Ok(())
    }

    pub(super) fn target(&self, reference: &str) -> Result<&'r Value> {
        if reference == "#" {
            return Ok(self.root);
        }
        let pointer = reference.strip_prefix('#').filter(|pointer| pointer.starts_with('/'));
        pointer.and_then(|pointer| self.root.pointer(pointer)).ok_or_else(|| {
            let shown: String = reference.chars().take(80).collect();
            Error::invalid("", format!("The schema refers to '{shown}', which is not in it."))
        })
    }

    /// Light rewriting for the JSON Schema slots.
    fn clean(&mut self, schema: &Value) -> Result<Value> {
        self.enter()?;
        let out = self.cleaned(schema);
        self.depth -= 1;
        out
    }

    fn cleaned(&mut self, schema: &Value) -> Result<Value> {
        let Value::Object(map) = schema else { return Ok(schema.clone()) };
        if let Some(Value::String(reference)) = map.get("$ref") {
            let target = self.target(reference)?;
            let root = self.object && self.depth == 1;
            let alone = !root && map.keys().all(|key| key.starts_with('$') || key == "definitions");
            if alone || self.open.iter().any(|open| open == reference) {
                let mut out = Map::new();
                out.insert("$ref".to_owned(), json!(moved(reference)));
                self.definitions(map, &mut out)?;
                return Ok(Value::Object(out));
            }
            // Words beside a reference are not read: the target takes its place and they join it.
            let mut merged = target.as_object().cloned().unwrap_or_default();
            for (key, value) in map.iter().filter(|(key, _)| *key != "$ref") {
                merged.insert(key.clone(), value.clone());
            }
            self.open.push(reference.clone());
            let out = self.clean(&Value::Object(merged));
            self.open.pop();
            return out;
        }
        if let Some(flat) = self.flat(map, 0)? {
            return self.cleaned(&Value::Object(flat));
        }
        let mut out = Map::with_capacity(map.len());
        for (key, value) in map {
            match (key.as_str(), value) {
                ("const", _) if !map.contains_key("enum") => {
                    out.insert("enum".to_owned(), json!([value]));
                }
                ("definitions", Value::Object(_)) | ("$schema" | "const", _) => {}
                ("type", Value::String(kind)) if LOUD.iter().any(|loud| loud.trim_matches('"') == kind) => {
                    out.insert(key.clone(), kind.to_ascii_lowercase().into());
                }
                (name, Value::Object(inner)) if MAPS.contains(&name) => {
                    let mut made = Map::with_capacity(inner.len());
                    for (key, value) in inner {
                        made.insert(key.clone(), self.clean(value)?);
                    }
                    out.insert(key.clone(), Value::Object(made));
                }
                (name, Value::Array(inner)) if LISTS.contains(&name) || name == "items" => {
                    let made = inner.iter().map(|one| self.clean(one)).collect::<Result<Vec<_>>>()?;
                    out.insert(key.clone(), Value::Array(made));
                }
                (name, Value::Object(_)) if SINGLES.contains(&name) => {
                    out.insert(key.clone(), self.clean(value)?);
                }
                _ => {
                    out.insert(key.clone(), value.clone());
                }
            }
        }
        self.definitions(map, &mut out)?;
        Ok(Value::Object(out))
    }

    /// `allOf` is not read: its members are joined, references among them resolved.
    pub(super) fn flat(&self, map: &Map<String, Value>, hops: usize) -> Result<Option<Map<String, Value>>> {
        let Some(Value::Array(members)) = map.get("allOf") else { return Ok(None) };
        let beside = map.iter().filter(|(key, _)| *key != "allOf");
        let mut out = Map::new();
        if let [only] = members.as_slice()
            && only.get("$ref").is_some()
        {
            // One reference with words around it is the same as a reference with words beside it.
            join(&mut out, only.as_object().into_iter().flatten());
        } else {
            for member in members.iter().filter_map(Value::as_object) {
                join(&mut out, &self.resolved(member, hops)?);
            }
        }
        join(&mut out, beside);
        Ok(Some(out))
    }

    fn resolved(&self, member: &Map<String, Value>, hops: usize) -> Result<Map<String, Value>> {
        if hops > MOST_HOPS {
            return Err(Error::invalid("", "The schema refers to itself without end."));
        }
        if let Some(Value::String(reference)) = member.get("$ref") {
            let target = self.target(reference)?.as_object();
            let target = target.map(|target| self.resolved(target, hops + 1)).transpose()?;
            let mut out = target.unwrap_or_default();
            join(&mut out, member.iter().filter(|(key, _)| *key != "$ref"));
            return Ok(out);
        }
        match self.flat(member, hops + 1)? {
            Some(flat) => self.resolved(&flat, hops + 1),
            None => Ok(member.clone()),
        }
    }

    /// `definitions` under the name that Gemini knows.
    fn definitions(&mut self, map: &Map<String, Value>, out: &mut Map<String, Value>) -> Result<()> {
        for name in ["$defs", "definitions"] {
            let Some(Value::Object(inner)) = map.get(name) else { continue };
            if name == "$defs" && out.contains_key("$defs") {
                continue;
            }
            let mut made = Map::with_capacity(inner.len());
            for (key, value) in inner {
                made.insert(key.clone(), self.clean(value)?);
            }
            let defs = out.entry("$defs").or_insert_with(|| Value::Object(Map::new()));
            if let Value::Object(defs) = defs {
                defs.extend(made);
            }
        }
        Ok(())
    }
}

fn moved(reference: &str) -> String {
    reference.replacen("#/definitions/", "#/$defs/", 1)
}

/// Adds keywords to a schema: what both say of properties and of what is required is joined, else the later wins.
fn join<'m>(out: &mut Map<String, Value>, more: impl IntoIterator<Item = (&'m String, &'m Value)>) {
    for (key, value) in more {
        match (out.get_mut(key), value) {
            (Some(Value::Object(known)), Value::Object(more)) if MAPS.contains(&key.as_str()) => {
                known.extend(more.clone());
            }
            (Some(Value::Array(known)), Value::Array(more)) if key == "required" => {
                let new: Vec<Value> = more.iter().filter(|name| !known.contains(name)).cloned().collect();
                known.extend(new);
            }
            _ => {
                out.insert(key.clone(), value.clone());
            }
        }
    }
}
