//! Valid instances of a schema, of either dialect, made from what the user's text offers.

use serde_json::{Map, Number, Value, json};

use super::turns::{items, string};

/// Below this depth only what is required is made, so that recursive schemas come to an end.
const DEEP: usize = 4;
/// Where even a required cycle is cut.
const BOTTOM: usize = 24;

/// What the text offers for filling fields.
#[derive(Clone, Debug, Default)]
pub(super) struct Hints {
    pub(super) text: String,
    /// Capitalised words inside sentences; those that stand together are one.
    pub(super) places: Vec<String>,
    pub(super) numbers: Vec<f64>,
    /// What stands between quotation marks.
    pub(super) quoted: Vec<String>,
}

impl Hints {
    pub(super) fn of(text: &str) -> Self {
        let text: String = text.chars().take(2_000).collect();
        let mut places: Vec<String> = Vec::new();
        let mut numbers = Vec::new();
        let (mut opens, mut joins, mut comma) = (true, false, false);
        for word in text.split_whitespace() {
            let plain = |text: &str| text.trim_matches(|letter: char| !letter.is_alphanumeric()).to_owned();
            let pieces = word.split(['(', ')', ',', '=']).filter_map(|piece| plain(piece).parse().ok());
            numbers.extend(pieces.filter(|number: &f64| number.is_finite()));
            let bare = plain(word);
            let bare = bare.split('\'').next().unwrap_or_default();
            let proper = !opens && bare.starts_with(char::is_uppercase) && bare.chars().count() > 1;
            // "San Francisco, CA" is one place, "Oslo, Rome" are two.
            let state = bare.len() == 2 && bare.bytes().all(|letter| letter.is_ascii_uppercase());
            match places.last_mut() {
                Some(place) if proper && joins && (!comma || state) => {
                    place.push_str(if comma { ", " } else { " " });
                    place.push_str(bare);
                }
                _ if proper => places.push(bare.to_owned()),
                _ => {}
            }
            opens = word.ends_with(['.', '!', '?', ':']);
            (joins, comma) = (proper && !opens, word.ends_with(','));
        }
        let mut known: Vec<String> = Vec::new();
        for place in places {
            if !known.contains(&place) {
                known.push(place);
            }
        }
        Self { places: known, numbers, quoted: quoted(&text), text }
    }

    /// The same hints with only the `index`th place: one of several parallel calls.
    pub(super) fn only(&self, index: usize) -> Self {
        Self { places: self.places.iter().skip(index).take(1).cloned().collect(), ..self.clone() }
    }

    fn string(&self, name: &str) -> String {
        let name = name.to_ascii_lowercase();
        let any = |words: &[&str]| words.iter().any(|word| name.contains(word));
        if any(&["name", "title"])
            && let Some(quoted) = self.quoted.first()
        {
            return quoted.clone();
        }
        if is_place(&name) || any(&["name", "person", "title"]) {
            return self.places.first().cloned().unwrap_or_else(|| "Paris".to_owned());
        }
        if any(&["query", "text", "message", "prompt", "question", "answer", "input", "content", "summary"]) {
            return self.text.chars().take(200).collect();
        }
        "example".to_owned()
    }
}

/// What stands between quotation marks: a mark that follows a blank, up to one before a blank or a stop.
fn quoted(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find(['\'', '"']) {
        let (before, from) = rest.split_at(at);
        let mark = if from.starts_with('"') { '"' } else { '\'' };
        let inner = from.get(1..).unwrap_or_default();
        let begins = before.is_empty() || before.ends_with([' ', '\n', '(']);
        let ends = |end: &usize| {
            let after = inner.get(end + 1..).and_then(|after| after.chars().next());
            after.is_none_or(|after| !after.is_alphanumeric())
        };
        let end = inner.match_indices(mark).map(|(end, _)| end).find(ends).filter(|end| begins && *end > 0);
        match end {
            Some(end) => {
                found.extend(inner.get(..end).map(str::to_owned));
                rest = inner.get(end + 1..).unwrap_or_default();
            }
            None => rest = inner,
        }
    }
    found
}

/// Whether a field of this name wants a place.
pub(super) fn is_place(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    ["city", "location", "place", "town", "country", "destination", "address", "region"]
        .iter()
        .any(|word| name.contains(word))
}

/// An instance of `schema`.
pub(super) fn instance(schema: &Value, hints: &Hints) -> Value {
    Sampler { root: schema, hints }.make(schema, "", 0)
}

struct Sampler<'a> {
    root: &'a Value,
    hints: &'a Hints,
}

fn null_branch(schema: &Value) -> bool {
    string(schema, "type").eq_ignore_ascii_case("null")
}

impl Sampler<'_> {
    fn resolve(&self, reference: &str) -> Option<&Value> {
        if reference == "#" {
            return Some(self.root);
        }
        if let Some(pointer) = reference.strip_prefix('#') {
            return self.root.pointer(pointer);
        }
        None
    }

    fn make(&self, schema: &Value, name: &str, depth: usize) -> Value {
        if depth > BOTTOM {
            return Value::Null;
        }
        if let Some(reference) = schema.get("$ref").and_then(Value::as_str) {
            return self.resolve(reference).map_or(Value::Null, |target| self.make(target, name, depth + 1));
        }
        if let Some(value) = schema.get("const") {
            return value.clone();
        }
        if let Some(value) = items(schema, "enum").first() {
            return value.clone();
        }
        for choice in ["anyOf", "oneOf"] {
            let branches = items(schema, choice);
            let null = branches.iter().find(|branch| null_branch(branch));
            let first = branches.iter().find(|branch| !null_branch(branch));
            let branch = if depth > DEEP { null.or(first) } else { first.or(null) };
            if let Some(branch) = branch {
                return self.make(branch, name, depth + 1);
            }
        }
        if let Some(parts) = schema.get("allOf").and_then(Value::as_array) {
            return self.all(schema, parts, name, depth);
        }
        let kind = match schema.get("type") {
            Some(Value::String(kind)) => kind.to_ascii_lowercase(),
            Some(Value::Array(kinds)) => kinds
                .iter()
                .filter_map(Value::as_str)
                .find(|kind| *kind != "null")
                .unwrap_or("null")
                .to_owned(),
            Some(_) | None if schema.get("properties").is_some() => "object".to_owned(),
            Some(_) | None if schema.get("items").is_some() => "array".to_owned(),
            Some(_) | None => "string".to_owned(),
        };
        match kind.as_str() {
            "object" => self.object(schema, depth),
            "array" => self.array(schema, name, depth),
            "integer" => self.number(schema, true),
            "number" => self.number(schema, false),
            "boolean" => Value::Bool(true),
            "null" => Value::Null,
            _ => self.text(schema, name),
        }
    }

    fn all(&self, schema: &Value, parts: &[Value], name: &str, depth: usize) -> Value {
        let mut whole = Map::new();
        let own = schema.get("properties").map(|_| self.object(schema, depth));
        let mut last = Value::Null;
        for value in own.into_iter().chain(parts.iter().map(|part| self.make(part, name, depth + 1))) {
            match value {
                Value::Object(map) => whole.extend(map),
                other @ (Value::Null
                | Value::Bool(_)
                | Value::Number(_)
                | Value::String(_)
                | Value::Array(_)) => {
                    last = other;
                }
            }
        }
        if whole.is_empty() { last } else { Value::Object(whole) }
    }

    fn object(&self, schema: &Value, depth: usize) -> Value {
        let required: Vec<&str> = items(schema, "required").iter().filter_map(Value::as_str).collect();
        let mut map = Map::new();
        for (name, property) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
            // Of a function's arguments only the required ones are made, where any are named.
            let wanted = required.contains(&name.as_str()) || (required.is_empty() && depth <= DEEP);
            if wanted {
                map.insert(name.clone(), self.make(property, name, depth + 1));
            }
        }
        Value::Object(map)
    }

    fn array(&self, schema: &Value, name: &str, depth: usize) -> Value {
        let bound =
            |name: &str| schema.get(name).and_then(Value::as_u64).and_then(|n| usize::try_from(n).ok());
        let least = bound("minItems").unwrap_or(0).min(100);
        let most = bound("maxItems").unwrap_or(usize::MAX);
        let prefix = items(schema, "prefixItems");
        let usual = if depth > DEEP { 0 } else { 1.max(prefix.len()) };
        let count = usual.max(least).min(most);
        let free = json!({});
        let item = schema.get("items").filter(|item| item.is_object()).unwrap_or(&free);
        let made = (0..count).map(|index| self.make(prefix.get(index).unwrap_or(item), name, depth + 1));
        Value::Array(made.collect())
    }

    #[expect(clippy::cast_possible_truncation, reason = "kept within a range where floats are exact")]
    fn number(&self, schema: &Value, whole: bool) -> Value {
        let bound = |name: &str| schema.get(name).and_then(Value::as_f64);
        let step = bound("multipleOf").filter(|step| *step > 0.0);
        let nudge = if whole { 1.0 } else { 0.5 };
        let low = bound("minimum").or_else(|| bound("exclusiveMinimum").map(|low| low + nudge));
        let high = bound("maximum").or_else(|| bound("exclusiveMaximum").map(|high| high - nudge));
        let wanted = self.hints.numbers.first().copied().unwrap_or(1.0);
        let mut value = low.map_or(wanted, |low| wanted.max(low));
        value = high.map_or(value, |high| value.min(high));
        if let Some(step) = step {
            value = (value / step).ceil() * step;
            if high.is_some_and(|high| value > high) {
                value -= step;
            }
        }
        let value = value.clamp(-9e15, 9e15);
        if whole || value.fract() == 0.0 {
            return json!(value.ceil() as i64);
        }
        Number::from_f64(value).map_or(Value::Null, Value::Number)
    }

    fn text(&self, schema: &Value, name: &str) -> Value {
        let known = match string(schema, "format") {
            "date-time" => "2026-01-01T00:00:00Z",
            "date" => "2026-01-01",
            "time" => "00:00:00Z",
            "duration" => "PT1H",
            "email" => "somebody@example.com",
            "uuid" => "00000000-0000-4000-8000-000000000000",
            "uri" | "url" => "https://example.com/",
            "hostname" => "example.com",
            "ipv4" => "192.0.2.1",
            "ipv6" => "2001:db8::1",
            _ => "",
        };
        if !known.is_empty() {
            return known.into();
        }
        let mut text = self.hints.string(name);
        let bound =
            |name: &str| schema.get(name).and_then(Value::as_u64).and_then(|n| usize::try_from(n).ok());
        let length = text.chars().count();
        if let Some(least) = bound("minLength").map(|least| least.min(10_000)).filter(|least| *least > length)
        {
            text.extend(std::iter::repeat_n('x', least - length));
        }
        if let Some(most) = bound("maxLength").filter(|most| *most < length) {
            text = text.chars().take(most).collect();
        }
        text.into()
    }
}
