//! The proto parser in front of Gemini: unknown names and ill-typed values are refused here, and what passes
//! comes out with one spelling (camelCase, capital enums, lists where lists belong).

use http::StatusCode;
use serde_json::{Map, Value, json};

use super::schema_fields::{Field, Kind, Many, Message, Side};

/// A refusal in Google's shape.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) code: StatusCode,
    pub(super) status: &'static str,
    pub(super) message: String,
    pub(super) details: Vec<Value>,
}

impl Refusal {
    pub(super) fn new(code: u16, status: &'static str, message: impl Into<String>) -> Self {
        let code = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self { code, status, message: message.into(), details: Vec::new() }
    }

    /// 400 `INVALID_ARGUMENT`.
    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self::new(400, "INVALID_ARGUMENT", message)
    }

    pub(super) fn detail(mut self, detail: Value) -> Self {
        self.details.push(detail);
        self
    }

    /// The error object as Google writes it.
    pub(super) fn body(&self) -> Value {
        let mut error = json!({
            "code": self.code.as_u16(),
            "message": self.message,
            "status": self.status,
        });
        if !self.details.is_empty()
            && let Some(map) = error.as_object_mut()
        {
            map.insert("details".into(), Value::Array(self.details.clone()));
        }
        json!({ "error": error })
    }
}

/// Reads a body as a message of Google's; what comes back has one spelling.
pub(super) fn parse(body: &[u8], message: &'static Message, side: Side) -> Result<Value, Refusal> {
    let value = match serde_json::from_slice::<Value>(body).or_else(|error| {
        // Google's parser lets a comma stand before a closing brace, and its own examples have some.
        serde_json::from_slice(&without_trailing_commas(body)).map_err(|_again| error)
    }) {
        Ok(value) => value,
        Err(error) => {
            let near: String = String::from_utf8_lossy(body).chars().take(40).collect();
            return Err(Refusal::invalid(format!(
                "Invalid JSON payload received. Unexpected token or end of input ({error}).\n{near}\n^"
            )));
        }
    };
    let mut checker = Checker { side, violations: Vec::new(), path: String::new() };
    let value = checker.message(value, message);
    if checker.violations.is_empty() {
        return Ok(value);
    }
    let text: Vec<&str> = checker.violations.iter().map(|(_, text)| text.as_str()).collect();
    let fields: Vec<Value> = checker
        .violations
        .iter()
        .map(|(field, text)| json!({ "field": field, "description": text }))
        .collect();
    Err(Refusal::invalid(text.join("\n")).detail(json!({
        "@type": "type.googleapis.com/google.rpc.BadRequest",
        "fieldViolations": fields,
    })))
}

fn without_trailing_commas(body: &[u8]) -> Vec<u8> {
    let mut clean = Vec::with_capacity(body.len());
    let (mut quoted, mut escaped) = (false, false);
    for (at, byte) in body.iter().enumerate() {
        if quoted {
            quoted = escaped || *byte != b'"';
            escaped = *byte == b'\\' && !escaped;
        } else {
            quoted = *byte == b'"';
            let next = || body.iter().skip(at + 1).find(|next| !next.is_ascii_whitespace());
            if *byte == b',' && next().is_some_and(|next| b"}]".contains(next)) {
                continue;
            }
        }
        clean.push(*byte);
    }
    clean
}

struct Checker {
    side: Side,
    violations: Vec<(String, String)>,
    path: String,
}

/// Violations after which nothing more is collected, so that a hostile body has no hostile answer.
const ENOUGH: usize = 20;

impl Checker {
    fn violation(&mut self, text: String) {
        if self.violations.len() < ENOUGH {
            self.violations.push((self.path.clone(), text));
        }
    }

    fn wrong(&mut self, kind: &str, value: &Value) {
        let shown = match value {
            Value::Array(_) | Value::Object(_) => "Starting an object or list on a scalar field".to_owned(),
            scalar @ (Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_)) => {
                scalar.to_string().chars().take(120).collect()
            }
        };
        let text = format!("Invalid value at '{}' ({kind}), {shown}", self.path);
        self.violation(text);
    }

    fn within<T>(&mut self, segment: &str, work: impl FnOnce(&mut Self) -> T) -> T {
        let length = self.path.len();
        if length > 0 && !segment.starts_with('[') {
            self.path.push('.');
        }
        self.path.push_str(segment);
        let result = work(self);
        self.path.truncate(length);
        result
    }

    fn message(&mut self, value: Value, message: &'static Message) -> Value {
        let Value::Object(map) = value else {
            let kind = format!("type.googleapis.com/google.ai.generativelanguage.v1beta.{}", message.name);
            self.wrong(&kind, &value);
            return Value::Null;
        };
        let mut clean = Map::with_capacity(map.len());
        for (name, value) in map {
            let spelled = camel(&name);
            let field = message
                .fields
                .iter()
                .find(|field| field.name == spelled && (field.side == Side::Both || field.side == self.side));
            let Some(field) = field else {
                let text = if self.path.is_empty() {
                    format!("Invalid JSON payload received. Unknown name \"{name}\": Cannot find field.")
                } else {
                    format!(
                        "Invalid JSON payload received. Unknown name \"{name}\" at '{}': Cannot find field.",
                        self.path
                    )
                };
                self.violation(text);
                continue;
            };
            if value.is_null() && !matches!(field.kind, Kind::Any) {
                continue;
            }
            let value = self.within(&snake(field.name), |checker| checker.field(value, field));
            clean.insert(field.name.to_owned(), value);
        }
        Value::Object(clean)
    }

    fn field(&mut self, value: Value, field: &'static Field) -> Value {
        match field.many {
            Many::One => self.single(value, field.kind),
            Many::List => {
                // One bare value passes for a list of one.
                let Value::Array(items) = value else {
                    return Value::Array(vec![self.single(value, field.kind)]);
                };
                let items = items.into_iter().enumerate();
                Value::Array(
                    items
                        .map(|(index, item)| {
                            self.within(&format!("[{index}]"), |checker| checker.single(item, field.kind))
                        })
                        .collect(),
                )
            }
            Many::Map => {
                let Value::Object(map) = value else {
                    self.wrong("Map", &value);
                    return Value::Null;
                };
                let entries = map.into_iter().enumerate();
                Value::Object(
                    entries
                        .map(|(index, (key, item))| {
                            let item = self.within(&format!("[{index}].value"), |checker| {
                                checker.single(item, field.kind)
                            });
                            (key, item)
                        })
                        .collect(),
                )
            }
        }
    }

    fn single(&mut self, value: Value, kind: Kind) -> Value {
        match kind {
            Kind::Any => return value,
            Kind::Message(message) => return self.message(value, message),
            Kind::Object if value.is_object() => return value,
            Kind::Str if value.is_string() => return value,
            Kind::Bool if value.is_boolean() => return value,
            Kind::Bytes => {
                let Some(text) = value.as_str() else {
                    self.wrong("TYPE_BYTES", &value);
                    return value;
                };
                if !base64_formed(text) {
                    let near: String = text.chars().take(40).collect();
                    let text = format!(
                        "Invalid value at '{}' (TYPE_BYTES), Base64 decoding failed for \"{near}\"",
                        self.path
                    );
                    self.violation(text);
                }
                return value;
            }
            Kind::Int => {
                if let Some(whole) = integer(&value) {
                    return whole.into();
                }
            }
            Kind::Float => {
                let number = value.as_f64().or_else(|| value.as_str().and_then(|text| text.parse().ok()));
                if let Some(number) = number {
                    return if value.is_number() { value } else { json!(number) };
                }
            }
            Kind::Enum(names) => {
                if let Some(text) = value.as_str() {
                    let upper = text.to_ascii_uppercase();
                    if names.contains(&upper.as_str()) {
                        return upper.into();
                    }
                } else if let Some(name) =
                    value.as_u64().and_then(|index| names.get(usize::try_from(index).unwrap_or(usize::MAX)))
                {
                    return (*name).into();
                }
            }
            Kind::Object | Kind::Str | Kind::Bool => {}
        }
        let name = match kind {
            Kind::Str => "TYPE_STRING",
            Kind::Bool => "TYPE_BOOL",
            Kind::Int => "TYPE_INT32",
            Kind::Float => "TYPE_FLOAT",
            Kind::Enum(_) => "TYPE_ENUM",
            Kind::Object => "type.googleapis.com/google.protobuf.Struct",
            Kind::Bytes | Kind::Any | Kind::Message(_) => "TYPE_MESSAGE",
        };
        self.wrong(name, &value);
        value
    }
}

/// Whole numbers come as 40, 40.0 or "40".
#[expect(clippy::cast_possible_truncation, reason = "checked to be whole and small right before")]
fn integer(value: &Value) -> Option<i64> {
    if let Some(whole) = value.as_i64() {
        return Some(whole);
    }
    if let Some(float) = value.as_f64() {
        return (float.fract() == 0.0 && float.abs() < 9e15).then_some(float as i64);
    }
    value.as_str().and_then(|text| text.parse().ok())
}

/// Either alphabet of base64, with or without padding.
pub(super) fn base64_formed(text: &str) -> bool {
    let bytes = text.as_bytes();
    let padding = bytes.iter().rev().take_while(|byte| **byte == b'=').count();
    let core = bytes.len() - padding;
    padding <= 2
        && (padding == 0 || bytes.len().is_multiple_of(4))
        && core % 4 != 1
        && bytes.iter().take(core).all(|byte| byte.is_ascii_alphanumeric() || b"+/-_".contains(byte))
}

/// `function_call` → `functionCall`; a leading underscore stays.
fn camel(name: &str) -> std::borrow::Cow<'_, str> {
    if !name.bytes().skip(1).any(|byte| byte == b'_') {
        return name.into();
    }
    let mut spelled = String::with_capacity(name.len());
    let mut raise = false;
    for (index, letter) in name.chars().enumerate() {
        if letter == '_' && index > 0 {
            raise = true;
        } else if std::mem::take(&mut raise) {
            spelled.push(letter.to_ascii_uppercase());
        } else {
            spelled.push(letter);
        }
    }
    spelled.into()
}

fn snake(name: &str) -> String {
    let mut spelled = String::with_capacity(name.len() + 4);
    for letter in name.chars() {
        if letter.is_ascii_uppercase() {
            spelled.push('_');
        }
        spelled.push(letter.to_ascii_lowercase());
    }
    spelled
}
