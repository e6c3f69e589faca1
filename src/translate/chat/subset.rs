//! JSON Schema → the `OpenAPI` subset of older families, and a list of what the subset has no words for.

use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::request::read;
use super::schema::Walk;
use crate::error::Result;
use crate::translate::Backend;

/// A schema in the subset.
pub(super) struct Subset {
    /// Nothing where nothing is left of it.
    pub(super) schema: Option<Value>,
    /// JSON pointers to the keywords that are lost, or that say less than they did.
    pub(super) lost: Vec<String>,
}

/// Converts a schema.
///
/// # Errors
/// When a reference leads nowhere, or the schema is too large once references are resolved.
pub(super) fn convert(raw: &RawValue, backend: Backend) -> Result<Subset> {
    let root: Value = read(raw)?;
    let mut converter = Converter { walk: Walk::over(&root), backend, path: Vec::new(), lost: Vec::new() };
    let out = converter.convert(&root)?;
    let empty = out.get("type").is_some_and(|kind| kind == "OBJECT") && out.get("properties").is_none();
    let schema = (!empty && out.as_object().is_some_and(|map| !map.is_empty())).then_some(out);
    Ok(Subset { schema, lost: converter.lost })
}

struct Converter<'r> {
    walk: Walk<'r>,
    backend: Backend,
    /// Where in the client's schema we are.
    path: Vec<String>,
    lost: Vec<String>,
}

/// Keywords that describe and do not constrain.
const SILENT: [&str; 16] = [
    "$schema",
    "$id",
    "$anchor",
    "$comment",
    "$defs",
    "definitions",
    "title",
    "description",
    "default",
    "example",
    "examples",
    "readOnly",
    "writeOnly",
    "deprecated",
    "strict",
    "nullable",
];

/// Keywords that are read whatever the type is.
const READ: [&str; 6] = ["type", "enum", "const", "anyOf", "oneOf", "format"];

/// Keywords that are read for one type.
fn read_for(kind: &str) -> &'static [&'static str] {
    match kind {
        "object" => &["properties", "required", "propertyOrdering", "minProperties", "maxProperties"],
        "array" => &["items", "minItems", "maxItems"],
        "integer" => &["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"],
        "number" => &["minimum", "maximum"],
        "string" => &["minLength", "maxLength", "pattern"],
        _ => &[],
    }
}

impl Converter<'_> {
    fn lose(&mut self, keyword: &str) {
        let mut pointer = String::new();
        for step in self.path.iter().map(String::as_str).chain((!keyword.is_empty()).then_some(keyword)) {
            pointer.push('/');
            pointer.push_str(&step.replace('~', "~0").replace('/', "~1"));
        }
        if !self.lost.contains(&pointer) && self.lost.len() < 64 {
            self.lost.push(pointer);
        }
    }

    /// Goes into a sub-schema by the steps that lead there.
    fn inner(&mut self, steps: &[&str], schema: &Value) -> Result<Value> {
        let before = self.path.len();
        self.path.extend(steps.iter().map(|step| (*step).to_owned()));
        let out = self.convert(schema);
        self.path.truncate(before);
        out
    }

    fn convert(&mut self, schema: &Value) -> Result<Value> {
        self.walk.enter()?;
        let out = self.converted(schema);
        self.walk.depth -= 1;
        out
    }

    fn converted(&mut self, schema: &Value) -> Result<Value> {
        let Value::Object(map) = schema else { return Ok(json!({"type": "STRING"})) };
        if let Some(Value::String(reference)) = map.get("$ref") {
            let target = self.walk.target(reference)?;
            if self.walk.open.iter().filter(|open| *open == reference).count() >= 2 {
                self.lose("$ref");
                return Ok(json!({"type": "STRING", "description": "JSON text of the same shape as above"}));
            }
            let mut merged = target.as_object().cloned().unwrap_or_default();
            for (key, value) in map.iter().filter(|(key, _)| !key.starts_with('$') && *key != "definitions") {
                merged.insert(key.clone(), value.clone());
            }
            self.walk.open.push(reference.clone());
            let out = self.convert(&Value::Object(merged));
            self.walk.open.pop();
            return out;
        }
        if let Some(flat) = self.walk.flat(map, 0)? {
            return self.converted(&Value::Object(flat));
        }
        let mut out = Map::new();
        for key in ["title", "description"] {
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
        let nullable = kinds.len() < before || map.get("nullable") == Some(&Value::Bool(true));
        if let Some((key, Value::Array(branches))) =
            ["anyOf", "oneOf"].iter().find_map(|key| Some((*key, map.get(*key)?)))
        {
            return self.union(key, map, branches, out, nullable);
        }
        if kinds.len() > 1 {
            return self.kinds(map, &kinds, nullable);
        }
        let kind = kinds.first().map_or_else(|| guess(map), |kind| kind.to_lowercase());
        self.one(map, &kind, out, nullable)
    }

    /// One of several schemas. It must be the only keyword: words beside it go into its branches.
    fn union(
        &mut self,
        key: &str,
        map: &Map<String, Value>,
        branches: &[Value],
        words: Map<String, Value>,
        mut nullable: bool,
    ) -> Result<Value> {
        let mut made = Vec::new();
        let mut around = map.clone();
        for name in ["anyOf", "oneOf", "title", "description", "nullable", "$defs", "definitions"] {
            around.remove(name);
        }
        for (at, branch) in branches.iter().enumerate() {
            if branch.get("type").is_some_and(|kind| kind == "null") {
                nullable = true;
                continue;
            }
            // What stands around the branches holds for each of them.
            let mut merged = branch.clone();
            if let Value::Object(inner) = &mut merged
                && !around.is_empty()
            {
                for (name, value) in &around {
                    match (inner.get_mut(name), value) {
                        (Some(Value::Object(known)), Value::Object(more)) if name == "properties" => {
                            for (name, value) in more {
                                known.entry(name.clone()).or_insert_with(|| value.clone());
                            }
                        }
                        (Some(Value::Array(known)), Value::Array(more)) if name == "required" => {
                            known.extend(more.clone());
                        }
                        (Some(_), _) => {}
                        (None, value) => {
                            inner.insert(name.clone(), value.clone());
                        }
                    }
                }
            }
            made.push(self.inner(&[key, &at.to_string()], &merged)?);
        }
        let mut made: Vec<Map<String, Value>> = made
            .into_iter()
            .filter_map(|one| if let Value::Object(one) = one { Some(one) } else { None })
            .collect();
        if made.len() == 1 {
            let mut only = words;
            for (key, value) in made.pop().unwrap_or_default() {
                only.entry(key).or_insert(value);
            }
            if nullable {
                only.insert("nullable".to_owned(), json!(true));
            }
            return Ok(Value::Object(only));
        }
        if made.is_empty() {
            let kind = guess(&around);
            return self.one(&around, &kind, words, nullable);
        }
        for branch in made.iter_mut().filter(|branch| !branch.contains_key("anyOf")) {
            for (key, value) in &words {
                branch.entry(key.clone()).or_insert_with(|| value.clone());
            }
        }
        if nullable && let Some(first) = made.iter_mut().find(|branch| !branch.contains_key("anyOf")) {
            first.insert("nullable".to_owned(), json!(true));
        }
        Ok(json!({"anyOf": made}))
    }

    /// Several types: a branch for each, with the keywords that belong to it.
    fn kinds(&mut self, map: &Map<String, Value>, kinds: &[&str], nullable: bool) -> Result<Value> {
        let all: Vec<&str> = ["object", "array", "integer", "number", "string"]
            .iter()
            .flat_map(|kind| read_for(kind))
            .copied()
            .collect();
        let mut made = Vec::with_capacity(kinds.len());
        for (at, kind) in kinds.iter().enumerate() {
            let own = read_for(kind);
            let mut one: Map<String, Value> = map
                .iter()
                .filter(|(key, _)| !all.contains(&key.as_str()) || own.contains(&key.as_str()))
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect();
            one.insert("type".to_owned(), json!(kind));
            let mut branch = self.convert(&Value::Object(one))?;
            if at == 0
                && nullable
                && let Value::Object(branch) = &mut branch
            {
                branch.insert("nullable".to_owned(), json!(true));
            }
            made.push(branch);
        }
        Ok(json!({"anyOf": made}))
    }

    /// A schema of one type.
    fn one(
        &mut self,
        map: &Map<String, Value>,
        kind: &str,
        mut out: Map<String, Value>,
        mut nullable: bool,
    ) -> Result<Value> {
        for key in map.keys().map(String::as_str) {
            let known = SILENT.contains(&key) || READ.contains(&key) || read_for(kind).contains(&key);
            let free = key == "additionalProperties" && map.get(key).is_some_and(Value::is_boolean);
            if !known && !free {
                self.lose(key);
            }
        }
        let listed = map.get("enum").and_then(Value::as_array).cloned();
        let listed = listed.or_else(|| map.get("const").map(|value| vec![value.clone()]));
        out.insert("type".to_owned(), json!(kind.to_uppercase()));
        if let Some(listed) = listed {
            nullable |= listed.iter().any(Value::is_null);
            self.listed(map, kind, &listed, &mut out);
        }
        match kind {
            "object" => self.object(map, &mut out)?,
            "array" => self.array(map, &mut out)?,
            "integer" | "number" => numbers(map, &mut out, kind == "integer"),
            "string" if !out.contains_key("enum") => {
                keep(map, &mut out, &["minLength", "maxLength"]);
                if let Some(Value::String(pattern)) = map.get("pattern") {
                    out.insert("pattern".to_owned(), json!(pattern));
                }
            }
            _ => {}
        }
        if let Some(Value::String(format)) = map.get("format") {
            if known_format(kind, format, self.backend) {
                out.insert("format".to_owned(), json!(format));
            } else {
                self.lose("format");
            }
        }
        if nullable {
            out.insert("nullable".to_owned(), json!(true));
        }
        Ok(Value::Object(out))
    }

    /// The subset lists words only; other values are described, so that they keep their type.
    fn listed(
        &mut self,
        map: &Map<String, Value>,
        kind: &str,
        listed: &[Value],
        out: &mut Map<String, Value>,
    ) {
        let name = if map.contains_key("enum") { "enum" } else { "const" };
        let some: Vec<&Value> = listed.iter().filter(|value| !value.is_null()).collect();
        if kind == "string" && some.iter().all(|value| value.is_string()) {
            let words: Vec<&str> =
                some.iter().filter_map(|value| value.as_str()).filter(|word| !word.is_empty()).collect();
            if words.len() < some.len() {
                self.lose(name);
            }
            if !words.is_empty() {
                out.insert("enum".to_owned(), json!(words));
            }
            return;
        }
        self.lose(name);
        let values: Vec<String> = some.iter().map(ToString::to_string).collect();
        let before = out
            .get("description")
            .and_then(Value::as_str)
            .map_or_else(String::new, |text| format!("{text} "));
        out.insert("description".to_owned(), json!(format!("{before}One of: {}.", values.join(", "))));
    }

    fn object(&mut self, map: &Map<String, Value>, out: &mut Map<String, Value>) -> Result<()> {
        let properties = map.get("properties").and_then(Value::as_object).filter(|all| !all.is_empty());
        let Some(properties) = properties else {
            if self.walk.nodes > 1 {
                // An object without properties is refused; its JSON as text is not.
                self.lose("type");
                out.insert("type".to_owned(), json!("STRING"));
                out.entry("description").or_insert_with(|| json!("A JSON object, as text"));
            }
            return Ok(());
        };
        let mut made = Map::with_capacity(properties.len());
        for (key, value) in properties {
            made.insert(key.clone(), self.inner(&["properties", key], value)?);
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
            (_, Some(Value::Array(many))) if !many.is_empty() => self.tuple("prefixItems", many)?,
            (Some(Value::Array(many)), _) if !many.is_empty() => {
                self.lose("items");
                self.tuple("items", many)?
            }
            (Some(one @ Value::Object(_)), _) => self.inner(&["items"], one)?,
            _ => json!({"type": "STRING"}),
        };
        out.insert("items".to_owned(), items);
        keep(map, out, &["minItems", "maxItems"]);
        Ok(())
    }

    /// Items by place become items of any of their types.
    fn tuple(&mut self, key: &str, many: &[Value]) -> Result<Value> {
        let mut made: Vec<Value> = Vec::new();
        for (at, one) in many.iter().enumerate() {
            let one = self.inner(&[key, &at.to_string()], one)?;
            if !made.contains(&one) {
                made.push(one);
            }
        }
        Ok(if made.len() == 1 { made.swap_remove(0) } else { json!({"anyOf": made}) })
    }
}

fn numbers(map: &Map<String, Value>, out: &mut Map<String, Value>, integer: bool) {
    let pairs = [("minimum", "exclusiveMinimum", 1), ("maximum", "exclusiveMaximum", -1)];
    for (plain, exclusive, step) in pairs {
        if let Some(bound) = map.get(plain).filter(|bound| bound.is_number()) {
            out.insert(plain.to_owned(), bound.clone());
        } else if let Some(bound) = map.get(exclusive).filter(|bound| bound.is_number()) {
            let moved = bound.as_i64().filter(|_| integer).and_then(|bound| bound.checked_add(step));
            out.insert(plain.to_owned(), moved.map_or_else(|| bound.clone(), |bound| json!(bound)));
        }
    }
}

fn guess(map: &Map<String, Value>) -> String {
    let has = |keys: &[&str]| keys.iter().any(|key| map.contains_key(*key));
    let listed = map.get("enum").and_then(Value::as_array).and_then(|all| all.first());
    let kind = match listed.or_else(|| map.get("const")) {
        Some(Value::Number(number)) if number.is_f64() => "number",
        Some(Value::Number(_)) => "integer",
        Some(Value::Bool(_)) => "boolean",
        None if has(&["properties", "additionalProperties"]) => "object",
        None if has(&["items", "prefixItems"]) => "array",
        None if has(&["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"]) => {
            "number"
        }
        _ => "string",
    };
    kind.to_owned()
}

fn keep(map: &Map<String, Value>, out: &mut Map<String, Value>, keys: &[&str]) {
    for key in keys {
        if let Some(value) = map.get(*key).filter(|value| value.is_u64()) {
            out.insert((*key).to_owned(), value.clone());
        }
    }
}

fn known_format(kind: &str, format: &str, backend: Backend) -> bool {
    match kind {
        "string" => {
            matches!(format, "enum" | "date-time")
                || (backend == Backend::Vertex && matches!(format, "date" | "time" | "duration"))
        }
        "integer" => matches!(format, "int32" | "int64"),
        "number" => matches!(format, "float" | "double"),
        _ => false,
    }
}
