//! JSON Schemas: passed on as they are where Gemini reads JSON Schema and nothing in them needs help; lightly
//! rewritten where something does; converted to the `OpenAPI` subset for older families.

use memchr::memmem;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::request::read;
use crate::error::{Error, Result};
use crate::gemini::ask::Json;
use crate::translate::Backend;
use crate::wire::Unknown;

/// Sub-schemas that one rewriting may visit: inlined references can multiply.
const MOST_NODES: usize = 20_000;

/// How deep they may nest.
const DEEPEST: usize = 96;

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

/// Whether a schema's root describes an object.
pub(super) fn is_object(raw: &RawValue) -> bool {
    peek(raw).is_some_and(|peek| match peek.kind {
        Some(kind) => kind.get() == "\"object\"",
        None => peek.properties.is_some(),
    })
}

/// The schema of a function's arguments, for the JSON Schema slot.
pub(super) fn parameters(raw: &RawValue) -> Result<Json<'_>> {
    let typed = peek(raw).is_some_and(|peek| peek.kind.is_some() || peek.properties.is_none());
    if typed { answer(raw) } else { rewritten(raw, true) }
}

/// The schema of an answer, for the JSON Schema slot.
pub(super) fn answer(raw: &RawValue) -> Result<Json<'_>> {
    let text = raw.get().as_bytes();
    let risky: [&[u8]; 4] = [b"\"const\"", b"\"$ref\"", b"\"allOf\"", b"\"definitions\""];
    // An escaped key is no key anybody writes by hand, and reading it costs little.
    let needed = risky.iter().any(|key| memmem::find(text, key).is_some());
    if needed { rewritten(raw, false) } else { Ok(Json::Raw(raw)) }
}

fn rewritten(raw: &RawValue, object: bool) -> Result<Json<'_>> {
    let root: Value = read(raw)?;
    let mut walk = Walk { root: &root, open: Vec::new(), nodes: 0, depth: 0, subset: None };
    let mut out = walk.clean(&root)?;
    if object && let Value::Object(map) = &mut out {
        map.insert("type".to_owned(), json!("object"));
    }
    Ok(Json::Value(out))
}

/// The schema in the `OpenAPI` subset; nothing where nothing is left of it.
pub(super) fn subset(raw: &RawValue, backend: Backend) -> Result<Option<Value>> {
    let root: Value = read(raw)?;
    let mut walk = Walk { root: &root, open: Vec::new(), nodes: 0, depth: 0, subset: Some(backend) };
    let out = walk.convert(&root)?;
    let empty = out.get("type").is_some_and(|kind| kind == "object") && out.get("properties").is_none();
    Ok((!empty && out.as_object().is_some_and(|map| !map.is_empty())).then_some(out))
}

struct Walk<'r> {
    root: &'r Value,
    /// References that are being inlined.
    open: Vec<String>,
    nodes: usize,
    depth: usize,
    subset: Option<Backend>,
}

/// Keywords whose value is a map of schemas.
const MAPS: [&str; 5] = ["properties", "$defs", "definitions", "patternProperties", "dependentSchemas"];
/// Keywords whose value is a list of schemas.
const LISTS: [&str; 3] = ["anyOf", "oneOf", "prefixItems"];
/// Keywords whose value is a schema.
const SINGLES: [&str; 4] = ["items", "additionalProperties", "contains", "propertyNames"];

impl<'r> Walk<'r> {
    /// Enters a sub-schema; chains of references can be deeper than the text they stand in.
    fn enter(&mut self) -> Result<()> {
        self.nodes += 1;
        self.depth += 1;
        if self.nodes > MOST_NODES || self.depth > DEEPEST {
            return Err(Error::invalid("", "The schema is too large once its references are resolved."));
        }
        Ok(())
    }

    fn target(&self, reference: &str) -> Result<&'r Value> {
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
            let alone = map.keys().all(|key| key.starts_with('$') || key == "definitions");
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
        let flat = flatten(map);
        let map = flat.as_ref().unwrap_or(map);
        let mut out = Map::with_capacity(map.len());
        for (key, value) in map {
            match (key.as_str(), value) {
                ("const", _) if !map.contains_key("enum") => {
                    out.insert("enum".to_owned(), json!([value]));
                }
                ("definitions", Value::Object(_)) | ("$schema" | "const", _) => {}
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

    /// Conversion to the `OpenAPI` subset.
    fn convert(&mut self, schema: &Value) -> Result<Value> {
        self.enter()?;
        let out = self.converted(schema);
        self.depth -= 1;
        out
    }

    #[expect(clippy::too_many_lines, reason = "one keyword after the other, in the order they take effect")]
    fn converted(&mut self, schema: &Value) -> Result<Value> {
        let Value::Object(map) = schema else { return Ok(json!({"type": "string"})) };
        if let Some(Value::String(reference)) = map.get("$ref") {
            let target = self.target(reference)?;
            if self.open.iter().filter(|open| *open == reference).count() >= 2 {
                return Ok(json!({"type": "string", "description": "JSON text of the same shape as above"}));
            }
            let mut merged = target.as_object().cloned().unwrap_or_default();
            for (key, value) in map.iter().filter(|(key, _)| !key.starts_with('$') && *key != "definitions") {
                merged.insert(key.clone(), value.clone());
            }
            self.open.push(reference.clone());
            let out = self.convert(&Value::Object(merged));
            self.open.pop();
            return out;
        }
        let flat = flatten(map);
        let map = flat.as_ref().unwrap_or(map);
        let mut out = Map::new();
        let mut nullable = map.get("nullable") == Some(&Value::Bool(true));
        for key in ["title", "description", "pattern"] {
            if let Some(Value::String(text)) = map.get(key) {
                out.insert(key.to_owned(), json!(text));
            }
        }
        let mut kinds: Vec<&str> = match map.get("type") {
            Some(Value::String(kind)) => vec![kind],
            Some(Value::Array(kinds)) => kinds.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        };
        let before = kinds.len();
        kinds.retain(|kind| !kind.eq_ignore_ascii_case("null"));
        nullable |= kinds.len() < before;
        if let Some(Value::Array(branches)) = map.get("anyOf").or_else(|| map.get("oneOf")) {
            let some: Vec<&Value> =
                branches.iter().filter(|one| one.get("type") != Some(&json!("null"))).collect();
            nullable |= some.len() < branches.len();
            let mut made = some.into_iter().map(|one| self.convert(one)).collect::<Result<Vec<_>>>()?;
            if made.len() == 1 {
                if let Some(Value::Object(only)) = made.pop() {
                    for (key, value) in only {
                        out.entry(key).or_insert(value);
                    }
                }
            } else if !made.is_empty() {
                // It must be the only keyword: words beside it go into its branches.
                for branch in made.iter_mut().filter_map(Value::as_object_mut) {
                    for (key, value) in &out {
                        branch.entry(key.clone()).or_insert_with(|| value.clone());
                    }
                }
                if nullable && let Some(Value::Object(first)) = made.first_mut() {
                    first.insert("nullable".to_owned(), json!(true));
                }
                return Ok(json!({"anyOf": made}));
            }
            if nullable {
                out.insert("nullable".to_owned(), json!(true));
            }
            if !out.is_empty() && out.contains_key("type") {
                return Ok(Value::Object(out));
            }
        }
        if kinds.len() > 1 {
            let mut made = Vec::new();
            for kind in kinds {
                let mut one = map.clone();
                one.insert("type".to_owned(), json!(kind));
                made.push(self.convert(&Value::Object(one))?);
            }
            return Ok(json!({"anyOf": made}));
        }
        let listed = map.get("enum").and_then(Value::as_array).cloned();
        let listed = listed.or_else(|| map.get("const").map(|value| vec![value.clone()]));
        let kind = kinds.first().map_or_else(|| guess(map, listed.is_some()), |kind| kind.to_lowercase());
        if let Some(listed) = listed {
            let words: Vec<String> = listed.iter().filter_map(word).collect();
            nullable |= listed.iter().any(Value::is_null);
            if !words.is_empty() {
                out.insert("type".to_owned(), json!("string"));
                out.insert("enum".to_owned(), json!(words));
                if nullable {
                    out.insert("nullable".to_owned(), json!(true));
                }
                return Ok(Value::Object(out));
            }
        }
        out.insert("type".to_owned(), json!(kind));
        match kind.as_str() {
            "object" => self.object(map, &mut out)?,
            "array" => self.array(map, &mut out)?,
            "integer" | "number" => numbers(map, &mut out, kind == "integer"),
            _ => keep(map, &mut out, &["minLength", "maxLength"]),
        }
        if let Some(Value::String(format)) = map.get("format")
            && known_format(&kind, format, self.subset)
        {
            out.insert("format".to_owned(), json!(format));
        }
        if nullable {
            out.insert("nullable".to_owned(), json!(true));
        }
        Ok(Value::Object(out))
    }

    fn object(&mut self, map: &Map<String, Value>, out: &mut Map<String, Value>) -> Result<()> {
        let properties = map.get("properties").and_then(Value::as_object).filter(|all| !all.is_empty());
        let Some(properties) = properties else {
            if self.nodes > 1 {
                // An object without properties is refused; its JSON as text is not.
                out.insert("type".to_owned(), json!("string"));
                out.entry("description").or_insert_with(|| json!("A JSON object, as text"));
            }
            return Ok(());
        };
        let mut made = Map::with_capacity(properties.len());
        for (key, value) in properties {
            made.insert(key.clone(), self.convert(value)?);
        }
        let order: Vec<&String> = properties.keys().collect();
        let required: Vec<&Value> = map
            .get("required")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter(|name| name.as_str().is_some_and(|name| properties.contains_key(name)))
            .collect();
        if !required.is_empty() {
            out.insert("required".to_owned(), json!(required));
        }
        out.insert("propertyOrdering".to_owned(), json!(order));
        out.insert("properties".to_owned(), Value::Object(made));
        keep(map, out, &["minProperties", "maxProperties"]);
        Ok(())
    }

    fn array(&mut self, map: &Map<String, Value>, out: &mut Map<String, Value>) -> Result<()> {
        let items = match (map.get("items"), map.get("prefixItems")) {
            (Some(one @ Value::Object(_)), _) => self.convert(one)?,
            (Some(Value::Array(many)), _) | (_, Some(Value::Array(many))) if !many.is_empty() => {
                let mut made = many.iter().map(|one| self.convert(one)).collect::<Result<Vec<_>>>()?;
                made.dedup();
                if made.len() == 1 { made.swap_remove(0) } else { json!({"anyOf": made}) }
            }
            _ => json!({"type": "string"}),
        };
        out.insert("items".to_owned(), items);
        keep(map, out, &["minItems", "maxItems"]);
        Ok(())
    }
}

fn moved(reference: &str) -> String {
    reference.replacen("#/definitions/", "#/$defs/", 1)
}

/// `allOf` is not read: its members are joined.
fn flatten(map: &Map<String, Value>) -> Option<Map<String, Value>> {
    let Some(Value::Array(members)) = map.get("allOf") else { return None };
    let mut out = Map::new();
    let beside = map.iter().filter(|(key, _)| *key != "allOf");
    let inner = members.iter().filter_map(Value::as_object).flatten();
    for (key, value) in inner.chain(beside) {
        match (out.get_mut(key), value) {
            (Some(Value::Object(known)), Value::Object(more)) if key == "properties" => {
                known.extend(more.clone());
            }
            (Some(Value::Array(known)), Value::Array(more)) if key == "required" => {
                known.extend(more.clone());
            }
            _ => {
                out.insert(key.clone(), value.clone());
            }
        }
    }
    Some(out)
}

fn guess(map: &Map<String, Value>, listed: bool) -> String {
    let kind = if map.contains_key("properties") || map.contains_key("additionalProperties") {
        "object"
    } else if map.contains_key("items") || map.contains_key("prefixItems") {
        "array"
    } else if !listed && (map.contains_key("minimum") || map.contains_key("maximum")) {
        "number"
    } else {
        "string"
    };
    kind.to_owned()
}

fn word(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => (!text.is_empty()).then(|| text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

fn keep(map: &Map<String, Value>, out: &mut Map<String, Value>, keys: &[&str]) {
    for key in keys {
        if let Some(value) = map.get(*key).filter(|value| value.is_u64()) {
            out.insert((*key).to_owned(), value.clone());
        }
    }
}

fn numbers(map: &Map<String, Value>, out: &mut Map<String, Value>, integer: bool) {
    for (plain, exclusive, step) in [("minimum", "exclusiveMinimum", 1), ("maximum", "exclusiveMaximum", -1)]
    {
        if let Some(bound) = map.get(plain).filter(|bound| bound.is_number()) {
            out.insert(plain.to_owned(), bound.clone());
        } else if let Some(bound) = map.get(exclusive).filter(|bound| bound.is_number()) {
            let moved = bound.as_i64().filter(|_| integer).and_then(|bound| bound.checked_add(step));
            out.insert(plain.to_owned(), moved.map_or_else(|| bound.clone(), |bound| json!(bound)));
        }
    }
}

fn known_format(kind: &str, format: &str, backend: Option<Backend>) -> bool {
    match kind {
        "string" => {
            matches!(format, "enum" | "date-time")
                || (backend == Some(Backend::Vertex) && matches!(format, "date" | "time" | "duration"))
        }
        "integer" | "number" => matches!(format, "float" | "double" | "int32" | "int64"),
        _ => false,
    }
}
