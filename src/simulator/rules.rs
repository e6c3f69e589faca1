//! What a model refuses although the parser took it: ranges, combinations, schemas, tools.

use serde_json::Value;

use super::models::{Model, Thinking};
use super::schema_fields::SEARCH_TOOLS;
use super::turns::{self, items, string};
use super::validate::Refusal;

type Check = Result<(), Refusal>;

/// How the request came.
#[derive(Clone, Copy, Debug)]
pub(super) struct Way {
    pub(super) vertex: bool,
    pub(super) stream: bool,
}

fn refuse(message: impl Into<String>) -> Check {
    Err(Refusal::invalid(message))
}

fn int(value: &Value, name: &str) -> Option<i64> {
    value.get(name).and_then(Value::as_i64)
}

/// Checks a `generateContent` body that passed the parser.
pub(super) fn check(ask: &Value, model: &Model, way: Way) -> Check {
    let vertex = way.vertex;
    if let Some(name) = ask.get("cachedContent").and_then(Value::as_str) {
        if ["systemInstruction", "tools", "toolConfig"].iter().any(|field| ask.get(*field).is_some()) {
            return refuse(
                "CachedContent can not be used with GenerateContent request setting system_instruction, tools or \
                 tool_config.",
            );
        }
        if !name.contains("cachedContents/") {
            return Err(Refusal::new(
                403,
                "PERMISSION_DENIED",
                "CachedContent not found (or permission denied)",
            ));
        }
    }
    if let Some(system) = ask.get("systemInstruction") {
        turns::parts(system, "GenerateContentRequest.system_instruction", vertex)?;
    }
    let nothing = Value::Null;
    let generation = ask.get("generationConfig").unwrap_or(&nothing);
    generation_config(generation, model, way)?;
    thinking(generation.get("thinkingConfig").unwrap_or(&nothing), model)?;
    tools(ask, generation, model, way)?;
    for (index, setting) in items(ask, "safetySettings").iter().enumerate() {
        let category = string(setting, "category");
        if items(ask, "safetySettings")
            .iter()
            .skip(index + 1)
            .any(|other| string(other, "category") == category)
        {
            return refuse(format!("Duplicate safety setting for category {category}."));
        }
    }
    turns::check(items(ask, "contents"), model, vertex)
}

fn within(config: &Value, name: &str, low: f64, high: f64) -> Check {
    match config.get(name).and_then(Value::as_f64) {
        Some(value) if !(low..=high).contains(&value) => refuse(format!(
            "* GenerateContentRequest.generation_config.{name}: {value} is outside of the supported range from {low} \
             to {high} (inclusive)\n"
        )),
        Some(_) | None => Ok(()),
    }
}

fn generation_config(config: &Value, model: &Model, way: Way) -> Check {
    within(config, "temperature", 0.0, 2.0)?;
    within(config, "topP", 0.0, 1.0)?;
    within(config, "topK", 1.0, 1_000_000.0)?;
    within(config, "presencePenalty", -2.0, 2.0)?;
    within(config, "frequencyPenalty", -2.0, 2.0)?;
    within(config, "seed", f64::from(i32::MIN), f64::from(i32::MAX))?;
    let penalty = ["presencePenalty", "frequencyPenalty"].iter().any(|name| config.get(*name).is_some());
    if penalty && model.version >= 30 {
        return refuse(format!("Penalty is not enabled for models/{}", model.id));
    }
    if let Some(count) = int(config, "candidateCount") {
        if !(1..=8).contains(&count) {
            return refuse("The specified candidate count must be in the range from 1 to 8 (inclusive).");
        }
        if count > 1 && way.stream {
            return refuse("Multiple candidates are not supported for streaming requests.");
        }
        if count > 1 && (model.version >= 40 || matches!(model.version, 35..=38) && !model.prefill) {
            return refuse(format!("Multiple candidates is not enabled for models/{}", model.id));
        }
    }
    if let Some(most) = int(config, "maxOutputTokens") {
        let long = model.version >= 40;
        let limit = match (long, way.stream) {
            (true, false) => 32_768,
            (true, true) => 1_048_576,
            (false, _) => model.output,
        };
        if !(1..=limit).contains(&most) {
            return refuse(format!(
                "max_output_tokens must be in the range from 1 (inclusive) to {} (exclusive), but is {most}.",
                limit + 1
            ));
        }
    }
    let stops = items(config, "stopSequences");
    if stops.len() > 5 {
        return refuse("The number of stop sequences must not be greater than 5.");
    }
    if stops.iter().any(|stop| stop.as_str() == Some("")) {
        return refuse("Stop sequences must not be empty.");
    }
    let logprobs = config.get("responseLogprobs").and_then(Value::as_bool) == Some(true);
    if logprobs && !model.logprobs {
        return refuse(format!("Logprobs is not enabled for models/{}", model.id));
    }
    if let Some(count) = int(config, "logprobs") {
        if !logprobs {
            return refuse("logprobs can only be set when response_logprobs is true.");
        }
        if !(0..=20).contains(&count) {
            return refuse("logprobs must be in the range from 0 to 20 (inclusive).");
        }
    }
    if items(config, "responseModalities").iter().any(|wanted| wanted.as_str() != Some("TEXT")) {
        return refuse(format!(
            "The requested combination of response modalities is not supported by models/{}.",
            model.id
        ));
    }
    output_schema(config, model)
}

fn output_schema(config: &Value, model: &Model) -> Check {
    let mime = string(config, "responseMimeType");
    if !["", "text/plain", "application/json", "text/x.enum"].contains(&mime) {
        return refuse(format!(
            "* GenerateContentRequest.generation_config.response_mime_type: allowed mimetypes are `text/plain`, \
             `application/json`, `application/xml`, `application/yaml` and `text/x.enum`, not `{mime}`.\n"
        ));
    }
    let free = config.get("responseJsonSchema").or_else(|| config.get("_responseJsonSchema"));
    let proto = config.get("responseSchema");
    if free.is_some() && proto.is_some() {
        return refuse(
            "response_schema and response_json_schema are mutually exclusive; set only one of them.",
        );
    }
    if (free.is_some() || proto.is_some()) && !["application/json", "text/x.enum"].contains(&mime) {
        return refuse(
            "* GenerateContentRequest.generation_config.response_schema: response mime type must be \
             application/json or text/x.enum when a schema is set.\n",
        );
    }
    if let Some(schema) = proto {
        proto_schema(schema, "GenerateContentRequest.generation_config.response_schema", false)?;
    }
    match free {
        Some(_) if model.version < 20 => refuse("JSON schema is not enabled for this model."),
        Some(schema) if !schema.is_object() => refuse("response_json_schema must be a JSON object."),
        Some(_) | None => Ok(()),
    }
}

/// What the OpenAPI-like `Schema` must fulfil. The properties of a function may be declared empty.
fn proto_schema(schema: &Value, path: &str, may_be_empty: bool) -> Check {
    let kind = string(schema, "type");
    let format = string(schema, "format");
    let formats: &[&str] = match kind {
        "STRING" => &["", "enum", "date-time"],
        "NUMBER" => &["", "float", "double"],
        "INTEGER" => &["", "int32", "int64"],
        _ => &[],
    };
    if !formats.is_empty() && !formats.contains(&format) {
        let (_, named) = formats.split_at(1);
        return refuse(format!(
            "* {path}.format: only '{}' are supported for {kind} type\n",
            named.join("' and '")
        ));
    }
    if items(schema, "enum").iter().any(|value| value.as_str() == Some("")) {
        return refuse(format!("* {path}.enum: cannot be empty\n"));
    }
    let properties = schema.get("properties").and_then(Value::as_object);
    if kind == "OBJECT" && !may_be_empty && properties.is_none_or(serde_json::Map::is_empty) {
        return refuse(format!("* {path}.properties: should be non-empty for OBJECT type\n"));
    }
    if kind == "ARRAY" && schema.get("items").is_none() {
        return refuse(format!("* {path}.items: missing field.\n"));
    }
    for (index, name) in items(schema, "required").iter().enumerate() {
        let name = name.as_str().unwrap_or_default();
        if properties.is_none_or(|properties| !properties.contains_key(name)) {
            return refuse(format!("* {path}.required[{index}]: property is not defined\n"));
        }
    }
    for (name, property) in properties.into_iter().flatten() {
        proto_schema(property, &format!("{path}.properties[{name}]"), false)?;
    }
    if let Some(item) = schema.get("items") {
        proto_schema(item, &format!("{path}.items"), false)?;
    }
    for (index, branch) in items(schema, "anyOf").iter().enumerate() {
        proto_schema(branch, &format!("{path}.any_of[{index}]"), false)?;
    }
    Ok(())
}

fn thinking(config: &Value, model: &Model) -> Check {
    let level = string(config, "thinkingLevel");
    let level = if level == "THINKING_LEVEL_UNSPECIFIED" { "" } else { level };
    let budget = int(config, "thinkingBudget");
    if !level.is_empty() && budget.is_some() {
        return refuse("You can only set only one of thinking budget and thinking level.");
    }
    let thoughts = config.get("includeThoughts").and_then(Value::as_bool) == Some(true);
    match (model.thinking, level, budget) {
        (Thinking::None, "", None) if thoughts => {
            refuse("Unable to submit request because thinking is not supported by this model.")
        }
        (_, "", None) | (Thinking::None, "", Some(0)) => Ok(()),
        (Thinking::None, "", Some(_)) => {
            refuse("Unable to submit request because thinking is not supported by this model.")
        }
        (Thinking::None | Thinking::Budget { .. }, _, None) => {
            refuse("Thinking level is not supported for this model.")
        }
        (Thinking::Budget { off, .. }, _, Some(0)) => {
            if off {
                Ok(())
            } else {
                refuse("Budget 0 is invalid. This model only works in thinking mode.")
            }
        }
        (Thinking::Budget { min, max, .. }, _, Some(budget)) => {
            if budget == -1 || (min..=max).contains(&budget) {
                Ok(())
            } else {
                refuse(format!(
                    "The thinking budget {budget} is invalid. Please choose a value between {min} and {max}."
                ))
            }
        }
        (Thinking::Levels(_), _, Some(_)) if model.version >= 40 => {
            refuse("Thinking budget is not supported for this model.")
        }
        (Thinking::Levels(_) | Thinking::None, _, Some(_)) => Ok(()),
        (Thinking::Levels(levels), level, None) => {
            if levels.contains(&level) {
                Ok(())
            } else {
                refuse(format!("Thinking level {level} is not supported for this model."))
            }
        }
    }
}

fn name_fits(name: &str) -> bool {
    let mut bytes = name.bytes();
    name.len() <= 128
        && bytes.next().is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || b"_.:-".contains(&byte))
}

/// The arguments of calls are to come in pieces; the parser lets only Vertex AI's requests say so.
pub(super) fn streams_arguments(ask: &Value) -> bool {
    let config = ask.get("toolConfig").and_then(|config| config.get("functionCallingConfig"));
    let wish = config.and_then(|config| config.get("streamFunctionCallArguments"));
    wish.and_then(Value::as_bool) == Some(true)
}

fn tools(ask: &Value, generation: &Value, model: &Model, Way { vertex, stream }: Way) -> Check {
    let tools = items(ask, "tools");
    let mut names: Vec<&str> = Vec::new();
    for (tool_index, tool) in tools.iter().enumerate() {
        for (index, declaration) in items(tool, "functionDeclarations").iter().enumerate() {
            let path = format!("GenerateContentRequest.tools[{tool_index}].function_declarations[{index}]");
            let name = string(declaration, "name");
            if !name_fits(name) {
                return refuse(format!(
                    "* {path}.name: Invalid function name. Must start with a letter or an underscore. Must be \
                     alphameric (a-z, A-Z, 0-9), underscores (_), dots (.), colons (:), or dashes (-), with a maximum \
                     length of 128.\n"
                ));
            }
            if names.contains(&name) {
                return refuse(format!("Duplicate function declaration found: {name}"));
            }
            names.push(name);
            let free = declaration.get("parametersJsonSchema");
            if let Some(schema) = declaration.get("parameters") {
                if free.is_some() {
                    return refuse(format!(
                        "* {path}: parameters and parameters_json_schema are mutually exclusive\n"
                    ));
                }
                let path = format!("{path}.parameters");
                if string(schema, "type") != "OBJECT" {
                    return refuse(format!("* {path}: schema should be of OBJECT type\n"));
                }
                proto_schema(schema, &path, model.version >= 20 && schema.get("properties").is_some())?;
            }
            if let Some(schema) = free
                && (!schema.is_object()
                    || schema.get("type").is_some_and(|kind| kind.as_str() != Some("object")))
            {
                return refuse(format!("* {path}.parameters_json_schema: schema should be of OBJECT type\n"));
            }
        }
    }
    if names.len() > 512 {
        return refuse("At most 512 function declarations are supported.");
    }
    let config = ask.get("toolConfig").unwrap_or(&Value::Null);
    calling(config.get("functionCallingConfig").unwrap_or(&Value::Null), &names)?;
    if streams_arguments(ask)
        && (!stream || model.version < 30 || model.id.starts_with("gemini-3.1-flash-lite"))
    {
        return refuse("Streaming function call arguments is not supported for this model or method.");
    }
    let search = SEARCH_TOOLS.iter().any(|name| tools.iter().any(|tool| tool.get(*name).is_some()));
    let json = string(generation, "responseMimeType") == "application/json";
    let old = model.version < 30;
    let faulty = model.id == "sim";
    if search && !names.is_empty() {
        if old && !faulty {
            return refuse("Tool use with function calling is unsupported");
        }
        let echoed = config.get("includeServerSideToolInvocations").and_then(Value::as_bool) == Some(true);
        if !vertex && !echoed && !faulty {
            return refuse(
                "Please enable tool_config.include_server_side_tool_invocations to use built-in tools with function \
                 calling.",
            );
        }
    }
    if json && old && !faulty && (search || !names.is_empty()) {
        let what = if search { "Tool use" } else { "Function calling" };
        return refuse(format!("{what} with a response mime type: 'application/json' is unsupported"));
    }
    Ok(())
}

fn calling(config: &Value, names: &[&str]) -> Check {
    let mode = string(config, "mode");
    let allowed = items(config, "allowedFunctionNames");
    if !allowed.is_empty() && !["ANY", "VALIDATED"].contains(&mode) {
        return refuse(
            "Allowed function names should only be set when the function calling mode is ANY or VALIDATED.",
        );
    }
    for name in allowed {
        let name = name.as_str().unwrap_or_default();
        if !names.contains(&name) {
            return refuse(format!("allowed_function_names: function `{name}` is not declared."));
        }
    }
    if mode == "ANY" && names.is_empty() {
        return refuse("Function calling config is set without function_declarations.");
    }
    Ok(())
}
