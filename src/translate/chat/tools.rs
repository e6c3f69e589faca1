//! Tools, the choice among them, and the form of the answer.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use serde_json::json;
use serde_json::value::RawValue;

use super::google::{self, Extension};
use super::request::{Drops, read};
use super::{Shape, names, schema, subset};
use crate::error::{Error, Result};
use crate::gemini::ask::{
    Empty, FunctionCallingConfig, FunctionDeclaration, GenerationConfig, Json, Tool, ToolConfig,
};
use crate::openai::chat::{Choice, Custom, Function, Request};
use crate::translate::{Backend, Target};
use crate::wire::Text;

const MOST: usize = 128;

/// The hidden function that carries a structured answer.
const ANSWER: &str = "give_final_answer";

/// What goes into `tools` and `toolConfig`.
#[derive(Debug, Default)]
pub(in crate::translate) struct Toolbox<'a> {
    pub(in crate::translate) tools: Vec<Tool<'a>>,
    pub(in crate::translate) config: Option<ToolConfig>,
}

impl<'a> Toolbox<'a> {
    pub(in crate::translate) fn functions(&mut self) -> Option<&mut Vec<FunctionDeclaration<'a>>> {
        self.tools.iter_mut().map(|tool| &mut tool.function_declarations).find(|all| !all.is_empty())
    }

    pub(in crate::translate) fn calling(&mut self) -> &mut Option<FunctionCallingConfig> {
        let empty = ToolConfig { function_calling_config: None, include_server_side_tool_invocations: None };
        &mut self.config.get_or_insert(empty).function_calling_config
    }
}

/// Functions being declared.
pub(in crate::translate) struct Declarations<'a, 't, 'd> {
    target: &'t Target<'t>,
    pub(in crate::translate) drops: &'d mut Drops,
    back: &'t mut HashMap<String, String>,
    pub(in crate::translate) seen: HashSet<String>,
    pub(in crate::translate) all: Vec<FunctionDeclaration<'a>>,
    pub(in crate::translate) strict: bool,
}

impl<'a, 't, 'd> Declarations<'a, 't, 'd> {
    /// None yet; `back` takes the way back to names that had to be changed.
    pub(in crate::translate) fn new(
        target: &'t Target<'t>,
        drops: &'d mut Drops,
        back: &'t mut HashMap<String, String>,
    ) -> Self {
        Self { target, drops, back, seen: HashSet::new(), all: Vec::new(), strict: false }
    }

    fn name(&mut self, name: &str) -> Result<String> {
        if name.is_empty() {
            return Err(Error::invalid("name", "A function's name must not be empty."));
        }
        if !self.seen.insert(name.to_owned()) {
            let shown: String = name.chars().take(80).collect();
            return Err(Error::invalid("name", format!("The function '{shown}' is declared twice.")));
        }
        Ok(names::keep(name, self.back))
    }

    pub(in crate::translate) fn function(&mut self, function: Function<'a>) -> Result<()> {
        let name = self.name(&function.name)?;
        self.strict |= function.strict == Some(true);
        let mut declaration = FunctionDeclaration {
            name: name.into(),
            description: function.description.filter(|text| !text.is_empty()),
            parameters_json_schema: None,
            parameters: None,
        };
        if let Some(raw) = function.parameters {
            let place = |error: Error| error.within("parameters").code("invalid_function_parameters");
            if !raw.get().starts_with('{') || schema::is_other(raw) {
                return Err(place(Error::invalid(
                    "",
                    "The parameters must be a JSON Schema of type 'object'.",
                )));
            }
            if schema::has_members(raw) {
                if self.target.traits.json_schema {
                    declaration.parameters_json_schema = Some(schema::parameters(raw).map_err(place)?);
                } else {
                    let subset = subset::convert(raw, self.target.backend).map_err(place)?;
                    let label = format!("{}.parameters", function.name);
                    self.drops.lost("parameters", &label, &subset.lost)?;
                    declaration.parameters = subset.schema;
                }
            }
        }
        self.all.push(declaration);
        Ok(())
    }

    pub(in crate::translate) fn custom(&mut self, custom: Custom<'a>, shape: &mut Shape) -> Result<()> {
        let name = self.name(&custom.name)?;
        shape.custom.push(custom.name.into_owned());
        let mut description = custom.description;
        if let Some(grammar) = custom.format.and_then(|format| format.grammar) {
            let kind = grammar.syntax.map_or(Cow::Borrowed("given"), |syntax| syntax.decode());
            let before = description.as_ref().map(Text::decode).unwrap_or_default();
            let text = format!(
                "{before}\nThe input must match this {kind} grammar:\n{}",
                grammar.definition.decode()
            );
            description = Some(Text::plain(text.trim_start().to_owned()));
        }
        let input =
            json!({"type": "object", "properties": {"input": {"type": "string"}}, "required": ["input"]});
        let modern = self.target.traits.json_schema;
        self.all.push(FunctionDeclaration {
            name: name.into(),
            description,
            parameters_json_schema: modern.then_some(Json::Value(input)),
            parameters: (!modern)
                .then(|| json!({"type": "OBJECT", "properties": {"input": {"type": "STRING"}}, "required": ["input"]})),
        });
        Ok(())
    }
}

/// Builds declarations and the choice among them.
pub(super) fn build<'a>(
    request: &mut Request<'a>,
    extension: &mut Option<Extension<'a>>,
    target: &Target<'_>,
    shape: &mut Shape,
    drops: &mut Drops,
) -> Result<Toolbox<'a>> {
    let tools = request.tools.take().unwrap_or_default();
    let functions = request.functions.take().unwrap_or_default();
    for (name, length) in [("tools", tools.len()), ("functions", functions.len())] {
        if length > MOST {
            let message = format!("'{name}' may hold {MOST} entries at most, and holds {length}.");
            return Err(Error::invalid(name, message).code("array_above_max_length"));
        }
    }
    let tooled = !tools.is_empty();
    shape.legacy_functions = !tooled && !functions.is_empty();
    let mut back = std::mem::take(&mut shape.names);
    let mut declared = Declarations::new(target, drops, &mut back);
    let mut search = request.web_search_options.is_some();
    for (at, tool) in tools.into_iter().enumerate() {
        let within = |error: Error| error.within(&format!("tools[{at}]"));
        let kind = tool.kind.as_ref().map(Text::decode).unwrap_or_default();
        match (kind.as_ref(), tool.function, tool.custom) {
            ("function" | "", Some(function), _) => {
                declared.function(function).map_err(|error| within(error.within("function")))?;
            }
            ("custom", _, Some(custom)) => {
                declared.custom(custom, shape).map_err(|error| within(error.within("custom")))?;
            }
            ("web_search" | "web_search_preview", ..) => search = true,
            ("function" | "custom" | "", ..) => {
                let name = if kind == "custom" { "custom" } else { "function" };
                let error = Error::invalid(name, format!("A tool of this type needs its '{name}'."));
                return Err(within(error.code("missing_required_parameter")));
            }
            (other, ..) => {
                let other: String = other.chars().take(40).collect();
                let message =
                    format!("Invalid value: '{other}'. Supported values are: 'function' and 'custom'.");
                return Err(within(Error::invalid("type", message)));
            }
        }
    }
    for (at, function) in functions.into_iter().enumerate() {
        // Some clients say everything twice, for servers of both ages.
        if tooled && declared.seen.contains(function.name.as_ref()) {
            continue;
        }
        declared.function(function).map_err(|error| error.within(&format!("functions[{at}]")))?;
    }
    let Declarations { mut all, strict, seen, drops, .. } = declared;
    shape.names = back;
    let mut toolbox = Toolbox::default();
    if all.is_empty()
        && let Some(raw) = request.tool_choice
    {
        // `none` and `auto` ask for nothing; anything else asks for a tool that is not there.
        let chosen = choice(raw, &seen).map_err(|error| error.within("tool_choice"))?;
        if chosen.mode == "ANY" {
            return Err(Error::invalid("tool_choice", "'tool_choice' needs 'tools' to choose from."));
        }
    }
    if !all.is_empty() {
        let (param, raw) = match (request.tool_choice, request.function_call) {
            (Some(raw), _) => ("tool_choice", Some(raw)),
            (None, raw) => ("function_call", raw),
        };
        let mut config = match raw {
            Some(raw) => Some(choice(raw, &seen).map_err(|error| error.within(param))?),
            None => None,
        };
        if strict && target.traits.json_schema && config.as_ref().is_none_or(|config| config.mode == "AUTO") {
            config = Some(FunctionCallingConfig::of("VALIDATED"));
        }
        if let Some(config) = &mut config {
            narrow(config, &mut all, target);
        }
        toolbox.tools.push(Tool { function_declarations: all, ..Tool::default() });
        if config.is_some() {
            *toolbox.calling() = config;
        }
    }
    let mut own = google::tools(extension, target)?;
    if search {
        searching(request, drops)?;
        if !own.search {
            own.tools.push(Tool { google_search: Some(Empty {}), ..Tool::default() });
        }
        own.exclusive.get_or_insert_with(|| "web_search_options".to_owned());
    }
    beside(own, target, &mut toolbox)?;
    if extension.as_ref().is_some_and(|found| found.google.stream_function_call_arguments == Some(true)) {
        let able = target.backend == Backend::Vertex && target.traits.streams_arguments;
        if able && request.stream && toolbox.functions().is_some() {
            toolbox
                .calling()
                .get_or_insert_with(|| FunctionCallingConfig::of("AUTO"))
                .stream_function_call_arguments = Some(true);
        } else {
            let why = "only Vertex AI streams arguments, and only of functions, where the answer is streamed";
            drops.note("google.stream_function_call_arguments", why)?;
        }
    }
    Ok(toolbox)
}

/// Older families know no subset without a call: what may not be called is not declared.
pub(in crate::translate) fn narrow(
    config: &mut FunctionCallingConfig,
    all: &mut Vec<FunctionDeclaration<'_>>,
    target: &Target<'_>,
) {
    if config.mode != "VALIDATED" || target.traits.json_schema {
        return;
    }
    let allowed = std::mem::take(&mut config.allowed_function_names);
    all.retain(|function| allowed.is_empty() || allowed.iter().any(|name| function.name == *name));
    config.mode = "AUTO";
}

/// Puts Google's own tools beside the functions, where the model takes both.
pub(in crate::translate) fn beside<'a>(
    own: google::Own<'a>,
    target: &Target<'_>,
    toolbox: &mut Toolbox<'a>,
) -> Result<()> {
    if own.tools.is_empty() {
        return Ok(());
    }
    if toolbox.functions().is_some() {
        let mixed = target.traits.mixed_tools && target.backend == Backend::GeminiApi;
        if let Some(param) = own.exclusive.filter(|_| !mixed) {
            let message = "This model cannot use this tool and call functions in one request.";
            return Err(Error::unsupported(param, message));
        }
        if mixed {
            let calling = toolbox.calling();
            if calling.as_ref().is_none_or(|config| config.mode == "AUTO") {
                *calling = Some(FunctionCallingConfig::of("VALIDATED"));
            }
            if let Some(config) = &mut toolbox.config {
                config.include_server_side_tool_invocations = Some(true);
            }
        }
    }
    toolbox.tools.extend(own.tools);
    Ok(())
}

fn searching(request: &Request<'_>, drops: &mut Drops) -> Result<()> {
    let Some(options) = &request.web_search_options else { return Ok(()) };
    if options.user_location.is_some() {
        drops.note("web_search_options.user_location", "Google Search takes no location")?;
    }
    if let Some(size) = &options.search_context_size {
        match size.decode().as_ref() {
            "medium" => {}
            "low" | "high" => {
                drops
                    .note("web_search_options.search_context_size", "Google Search takes no context size")?;
            }
            _ => {
                let message = "Supported values are: 'low', 'medium' and 'high'.";
                return Err(Error::invalid("web_search_options.search_context_size", message));
            }
        }
    }
    Ok(())
}

fn mode(word: &str) -> Option<&'static str> {
    Some(match word {
        "none" => "NONE",
        "auto" => "AUTO",
        "required" | "any" => "ANY",
        "validated" => "VALIDATED",
        _ => return None,
    })
}

fn choice(raw: &RawValue, declared: &HashSet<String>) -> Result<FunctionCallingConfig> {
    let plain = FunctionCallingConfig::of;
    let odd = || {
        let message =
            "Supported values are 'none', 'auto', 'required', and an object that names a declared tool.";
        Error::invalid("", message)
    };
    if raw.get().starts_with('"') {
        let word: Text<'_> = read(raw)?;
        return mode(&word.decode()).map(plain).ok_or_else(odd);
    }
    let choice: Choice<'_> = read(raw)?;
    let kind = choice.kind.as_ref().map(Text::decode).unwrap_or_default();
    if let Some(allowed) = choice.allowed_tools {
        let mode = match allowed.mode.decode().as_ref() {
            "auto" => "VALIDATED",
            "required" => "ANY",
            _ => return Err(odd().within("allowed_tools.mode")),
        };
        let mut allowed_function_names = Vec::with_capacity(allowed.tools.len());
        for (at, tool) in allowed.tools.into_iter().enumerate() {
            let place = format!("allowed_tools.tools[{at}]");
            allowed_function_names.push(named(tool, declared).map_err(|error| error.within(&place))?);
        }
        if allowed_function_names.is_empty() {
            return Err(odd().within("allowed_tools.tools").code("empty_array"));
        }
        return Ok(FunctionCallingConfig { allowed_function_names, ..plain(mode) });
    }
    if let Some(mode) = mode(&kind) {
        return Ok(plain(mode));
    }
    let name = named(choice, declared)?;
    Ok(FunctionCallingConfig { allowed_function_names: vec![name], ..plain("ANY") })
}

fn named(choice: Choice<'_>, declared: &HashSet<String>) -> Result<String> {
    let (place, name) = match (choice.function, choice.custom, choice.name) {
        (Some(named), ..) => ("function.name", named.name),
        (None, Some(named), _) => ("custom.name", named.name),
        (None, None, Some(name)) => ("name", name),
        (None, None, None) => {
            return Err(Error::invalid("", "A choice must name a tool.").code("missing_required_parameter"));
        }
    };
    let name = name.decode();
    if !declared.contains(name.as_ref()) {
        let shown: String = name.chars().take(80).collect();
        return Err(Error::invalid(place, format!("The tool '{shown}' is not among the declared tools.")));
    }
    Ok(names::fit(&name).into_owned())
}

/// The form of the answer; beside functions, on models that refuse both together, a hidden function has it.
pub(super) fn answer_format<'a>(
    request: &mut Request<'a>,
    toolbox: &mut Toolbox<'a>,
    generation: &mut Option<GenerationConfig<'a>>,
    target: &Target<'_>,
    shape: &mut Shape,
    drops: &mut Drops,
) -> Result<()> {
    let Some(format) = request.response_format.take() else { return Ok(()) };
    let raw = match format.kind.as_ref() {
        "text" => return Ok(()),
        "json_object" => None,
        "json_schema" => {
            let Some(named) = format.json_schema else {
                let message = "Missing required parameter: 'response_format.json_schema'.";
                let error = Error::invalid("response_format.json_schema", message);
                return Err(error.code("missing_required_parameter"));
            };
            named.schema.filter(|raw| raw.get().trim() != "{}")
        }
        other => {
            let other: String = other.chars().take(40).collect();
            let message = format!(
                "Invalid value: '{other}'. Supported values are: 'text', 'json_object' and 'json_schema'."
            );
            return Err(Error::invalid("response_format.type", message));
        }
    };
    let names = ("response_format", "response_format.json_schema.schema");
    form(raw, names, (toolbox, generation), target, shape, drops)
}

/// The form of the answer: JSON of any kind, or after a schema. `param` names the field that asks for it,
/// `within` the schema in it.
pub(in crate::translate) fn form<'a>(
    raw: Option<&'a RawValue>,
    (param, within): (&'static str, &'static str),
    (toolbox, generation): (&mut Toolbox<'a>, &mut Option<GenerationConfig<'a>>),
    target: &Target<'_>,
    shape: &mut Shape,
    drops: &mut Drops,
) -> Result<()> {
    let place = |error: Error| error.within(within).code("invalid_json_schema");
    if raw.is_some_and(|raw| !raw.get().starts_with('{')) {
        return Err(place(Error::invalid("", "A JSON Schema must be an object.")));
    }
    let traits = target.traits;
    let calling = toolbox.config.as_ref().and_then(|config| config.function_calling_config.as_ref());
    let mode = calling.map_or("AUTO", |config| config.mode);
    if !traits.tools_with_schema && toolbox.functions().is_some() {
        match (mode, raw) {
            // Nothing may be called: without its tools the model can keep to the schema.
            ("NONE", _) => *toolbox = Toolbox::default(),
            // A call is forced, so there will be no answer that could have a form.
            ("ANY", _) => return Ok(()),
            (_, None) => {
                return drops.note(param, "this model takes no JSON mode beside functions");
            }
            (_, Some(raw)) => return hide(raw, param, toolbox, target, shape, drops).map_err(place),
        }
    }
    if !traits.tools_with_schema && !toolbox.tools.is_empty() {
        let message = "This model gives no JSON beside Google's own tools.";
        return Err(Error::unsupported(param, message));
    }
    let generation = generation.get_or_insert_default();
    generation.response_mime_type = Some("application/json");
    if let Some(raw) = raw {
        if traits.json_schema {
            generation.response_json_schema = Some(schema::answer(raw).map_err(place)?);
        } else {
            let subset = subset::convert(raw, target.backend).map_err(place)?;
            drops.lost(within, param, &subset.lost)?;
            generation.response_schema = subset.schema;
        }
    }
    Ok(())
}

fn hide<'a>(
    raw: &'a RawValue,
    param: &str,
    toolbox: &mut Toolbox<'a>,
    target: &Target<'_>,
    shape: &mut Shape,
    drops: &mut Drops,
) -> Result<()> {
    let modern = target.traits.json_schema;
    let Some(functions) = toolbox.functions() else { return Ok(()) };
    let mut name = ANSWER.to_owned();
    while functions.iter().any(|function| function.name == name) {
        name.push('_');
    }
    if !schema::is_object(raw) {
        let message = "Beside functions this model gives structured answers only as objects.";
        return Err(Error::unsupported("", message));
    }
    let old = if modern { None } else { Some(subset::convert(raw, target.backend)?) };
    let old = old.map(|subset| drops.lost("", param, &subset.lost).map(|()| subset.schema));
    functions.push(FunctionDeclaration {
        name: name.clone().into(),
        description: Some(Text::plain(
            "Gives the final answer to the user. Call it once nothing else needs to be called.",
        )),
        parameters_json_schema: if modern { Some(schema::parameters(raw)?) } else { None },
        parameters: old.transpose()?.flatten(),
    });
    let calling = toolbox.calling();
    let mut allowed = calling.take().map(|config| config.allowed_function_names).unwrap_or_default();
    if !allowed.is_empty() {
        allowed.push(name.clone());
    }
    *calling =
        Some(FunctionCallingConfig { allowed_function_names: allowed, ..FunctionCallingConfig::of("ANY") });
    shape.answer_function = Some(name);
    Ok(())
}
