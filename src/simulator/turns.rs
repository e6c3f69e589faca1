//! The order of a conversation, as Gemini insists on it.

use serde_json::Value;

use super::models::Model;
use super::schema_fields::DATA;
use super::validate::Refusal;

type Check = Result<(), Refusal>;

/// The elements of a list field; none when it is absent.
pub(super) fn items<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value.get(name).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// A string field; empty when it is absent.
pub(super) fn string<'a>(value: &'a Value, name: &str) -> &'a str {
    value.get(name).and_then(Value::as_str).unwrap_or_default()
}

fn having<'a>(content: &'a Value, field: &'static str) -> impl Iterator<Item = &'a Value> {
    items(content, "parts").iter().filter_map(move |part| part.get(field))
}

fn is_model(content: &Value) -> bool {
    string(content, "role").eq_ignore_ascii_case("model")
}

fn has(content: &Value, field: &'static str) -> bool {
    having(content, field).next().is_some()
}

/// Whether a content is real input of the user: it opens a turn.
pub(super) fn opens_turn(content: &Value) -> bool {
    !is_model(content) && !has(content, "functionResponse")
}

/// Checks `contents` for a model.
pub(super) fn check(contents: &[Value], model: &Model, vertex: bool) -> Check {
    if contents.is_empty() {
        return Err(Refusal::invalid("* GenerateContentRequest.contents: contents is not specified\n"));
    }
    for (index, content) in contents.iter().enumerate() {
        let role = string(content, "role");
        if !(role.is_empty() || role.eq_ignore_ascii_case("user") || role.eq_ignore_ascii_case("model")) {
            return Err(Refusal::invalid("Please use a valid role: user, model."));
        }
        parts(content, &format!("GenerateContentRequest.contents[{index}]"), vertex)?;
    }
    pairing(contents)?;
    if contents.last().is_some_and(is_model) && !model.prefill {
        return Err(Refusal::invalid(
            "Please ensure that the last turn of the conversation has the role user.",
        ));
    }
    if model.signs() { signatures(contents) } else { Ok(()) }
}

/// Checks the parts of one content.
pub(super) fn parts(content: &Value, path: &str, vertex: bool) -> Check {
    let parts = items(content, "parts");
    if parts.is_empty() {
        return Err(Refusal::invalid(format!("* {path}.parts: contents.parts must not be empty.\n")));
    }
    for (index, part) in parts.iter().enumerate() {
        let mut data = DATA.iter().filter(|field| part.get(**field).is_some());
        let Some(first) = data.next() else {
            return Err(Refusal::invalid(format!(
                "* {path}.parts[{index}].data: required oneof field 'data' must have one initialized field\n"
            )));
        };
        if let Some(second) = data.next() {
            return Err(Refusal::invalid(format!(
                "Invalid value at '{path}.parts[{index}]' (oneof), oneof field 'data' is already set ({first}). \
                 Cannot set '{second}'"
            )));
        }
        one(part, vertex)?;
    }
    Ok(())
}

fn one(part: &Value, vertex: bool) -> Check {
    if let Some(blob) = part.get("inlineData") {
        media(blob)?;
        if string(blob, "data").is_empty() {
            return Err(Refusal::invalid("Unable to process input: inline data is empty."));
        }
    }
    if let Some(file) = part.get("fileData") {
        reference(file, vertex)?;
    }
    if let Some(call) = part.get("functionCall")
        && string(call, "name").is_empty()
    {
        return Err(Refusal::invalid("* function_call.name: Name cannot be empty.\n"));
    }
    if let Some(response) = part.get("functionResponse") {
        if string(response, "name").is_empty() {
            return Err(Refusal::invalid("* function_response.name: Name cannot be empty.\n"));
        }
        if response.get("response").is_none() {
            return Err(Refusal::invalid("* function_response.response: required field is missing.\n"));
        }
        for part in items(response, "parts") {
            if let Some(blob) = part.get("inlineData") {
                media(blob)?;
            } else if let Some(file) = part.get("fileData") {
                reference(file, vertex)?;
            } else {
                return Err(Refusal::invalid(
                    "* function_response.parts.data: required oneof field 'data' must have one initialized field\n",
                ));
            }
        }
    }
    Ok(())
}

const IMAGES: &[&str] = &["png", "jpeg", "jpg", "webp", "heic", "heif"];

fn media(blob: &Value) -> Check {
    let kind = string(blob, "mimeType");
    let essence = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let known = match essence.split_once('/') {
        Some(("image", kind)) => IMAGES.contains(&kind),
        Some(("audio" | "video" | "text", kind)) => !kind.is_empty(),
        Some(("application", kind)) => {
            ["pdf", "json", "x-javascript", "javascript", "x-python", "rtf", "xml", "x-yaml", "yaml", "csv"]
                .contains(&kind)
        }
        Some(_) | None => false,
    };
    if known { Ok(()) } else { Err(Refusal::invalid(format!("Unsupported MIME type: {kind}"))) }
}

/// Hosts that the simulated fetcher may not crawl: this one refused Google's fetcher in a recorded exchange.
const NO_ROBOTS: &[&str] = &["www.gstatic.com"];

fn reference(file: &Value, vertex: bool) -> Check {
    let uri = string(file, "fileUri");
    let Some((scheme, rest)) = uri.split_once("://") else {
        return Err(Refusal::invalid(format!("Invalid or unsupported file uri: {uri}")));
    };
    let host = rest.split('/').next().unwrap_or_default();
    match scheme {
        "http" | "https" if vertex && NO_ROBOTS.contains(&host) => Err(Refusal::invalid(
            "Cannot fetch content from the provided URL. Please ensure the URL is valid and accessible by Vertex \
             AI. Status: URL_ROBOTED-ROBOTED_DENIED",
        )),
        "gs" | "http" | "https" => Ok(()),
        _ => Err(Refusal::invalid(format!("Invalid or unsupported file uri: {uri}"))),
    }
}

fn pairing(contents: &[Value]) -> Check {
    let mut before: Option<&Value> = None;
    for content in contents {
        let calls_before = before.map_or(0, |content| having(content, "functionCall").count());
        let answers = having(content, "functionResponse").count();
        if answers > 0 && calls_before == 0 {
            return Err(Refusal::invalid(
                "Please ensure that function response turn comes immediately after a function call turn.",
            ));
        }
        if answers > 0 && is_model(content) {
            return Err(Refusal::invalid("Please ensure that function response turns have the role user."));
        }
        if calls_before != answers {
            return Err(Refusal::invalid(
                "Please ensure that the number of function response parts is equal to the number of function call \
                 parts of the function call turn.",
            ));
        }
        if let Some(before) = before.filter(|_| answers > 0) {
            matching(before, content)?;
        }
        if has(content, "functionCall") && (!is_model(content) || before.is_none_or(is_model)) {
            return Err(Refusal::invalid(
                "Please ensure that function call turn comes immediately after a user turn or after a function \
                 response turn.",
            ));
        }
        before = Some(content);
    }
    Ok(())
}

/// The responses must be of the very functions that were called, and of their ids where ids are given.
fn matching(calls: &Value, responses: &Value) -> Check {
    let mut open: Vec<(&str, &str)> =
        having(calls, "functionCall").map(|call| (string(call, "name"), string(call, "id"))).collect();
    for response in having(responses, "functionResponse") {
        let (name, id) = (string(response, "name"), string(response, "id"));
        let place = open.iter().position(|(called, call_id)| {
            *called == name && (id.is_empty() || call_id.is_empty() || *call_id == id)
        });
        match place {
            Some(place) => drop(open.remove(place)),
            None => {
                return Err(Refusal::invalid(format!(
                    "Function response `{name}` does not match any function call of the preceding turn."
                )));
            }
        }
    }
    Ok(())
}

/// Every step of the current turn must bring the signature of its first call back.
fn signatures(contents: &[Value]) -> Check {
    let start = contents.iter().rposition(opens_turn).map_or(0, |last| last + 1);
    for (position, content) in contents.iter().enumerate().skip(start) {
        let first = items(content, "parts").iter().find(|part| part.get("functionCall").is_some());
        if let Some(part) = first
            && string(part, "thoughtSignature").is_empty()
        {
            let name = part.get("functionCall").map_or("", |call| string(call, "name"));
            return Err(Refusal::invalid(format!(
                "Function call is missing a thought_signature in functionCall parts. This is required for tools to \
                 work correctly, and missing thought_signature may lead to degraded model performance. Additional \
                 data, function call `default_api:{name}` , position {}. Please refer to \
                 https://ai.google.dev/gemini-api/docs/thought-signatures for more details.",
                position + 1
            )));
        }
    }
    Ok(())
}
