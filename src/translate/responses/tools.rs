//! Tools and the choice among them.

use std::borrow::Cow;
use std::collections::HashMap;

use serde_json::Value;
use serde_json::value::RawValue;

use super::{Picture, Shape, Tool, calls};
use crate::error::{Error, Result};
use crate::gemini::ask::{Empty, FunctionCallingConfig, FunctionDeclaration, Json, Tool as GeminiTool};
use crate::openai::chat::{Custom, CustomFormat, Function, Grammar};
use crate::openai::responses::{Choice, Tool as Declared};
use crate::translate::chat::google::{self, Extension};
use crate::translate::chat::request::{Drops, read};
use crate::translate::chat::tools::{Declarations, Toolbox, beside, narrow};
use crate::translate::{Backend, Target};
use crate::wire::Text;

const MOST: usize = 512;

/// The one name of a namespace's function, which Gemini knows no namespaces for.
pub(super) fn within(namespace: &str, name: &str) -> String {
    format!("{namespace}__{name}")
}

/// Whether code is to be run by Google.
pub(super) fn runs_code(tools: &[&RawValue]) -> bool {
    tools.iter().any(|raw| {
        let tool: Option<Declared<'_>> = serde_json::from_str(raw.get()).ok();
        tool.is_some_and(|tool| tool.kind == "code_interpreter")
    })
}

/// Google's own tools that were asked for.
#[derive(Default)]
struct Hosted {
    /// Where web search was declared.
    search: Option<String>,
    /// Where code was declared.
    code: Option<String>,
    /// Where pictures were declared.
    picture: Option<String>,
}

struct Build<'a, 't, 'd> {
    declared: Declarations<'a, 't, 'd>,
    tools: HashMap<String, Tool>,
    custom: Vec<String>,
    hosted: Hosted,
    picture: Option<Picture>,
    target: &'t Target<'t>,
}

/// Builds declarations and the choice among them.
pub(super) fn build<'a>(
    tools: &[&'a RawValue],
    choice: Option<&'a RawValue>,
    extension: &mut Option<Extension<'a>>,
    target: &Target<'_>,
    shape: &mut Shape,
    drops: &mut Drops,
) -> Result<Toolbox<'a>> {
    if tools.len() > MOST {
        let message = format!("'tools' may hold {MOST} entries at most, and holds {}.", tools.len());
        return Err(Error::invalid("tools", message).code("array_above_max_length"));
    }
    let mut back = HashMap::new();
    let mut build = Build {
        declared: Declarations::new(target, drops, &mut back),
        tools: HashMap::new(),
        custom: Vec::new(),
        hosted: Hosted::default(),
        picture: None,
        target,
    };
    for (at, raw) in tools.iter().enumerate() {
        let place = format!("tools[{at}]");
        let tool: Declared<'a> = read(raw).map_err(|error| error.within(&place))?;
        build.take(tool, &place).map_err(|error| match error.param() {
            // What is refused instead of dropped says its place already.
            Some(param) if param.starts_with(&place) => error,
            _ => error.within(&place),
        })?;
    }
    let Build { declared, tools, custom, hosted, picture, .. } = build;
    let Declarations { mut all, strict, seen, drops, .. } = declared;
    shape.tools = tools;
    shape.reading.custom = custom;
    shape.picture = picture;
    let mut toolbox = Toolbox::default();
    let functions = !all.is_empty();
    let known = |name: &str| seen.contains(name);
    let mut config = match choice {
        Some(raw) => Some(chosen(raw, &known, &hosted, drops).map_err(|error| error.within("tool_choice"))?),
        None => None,
    };
    if functions {
        if strict && target.traits.json_schema && config.as_ref().is_none_or(|config| config.mode == "AUTO") {
            config = Some(FunctionCallingConfig::of("VALIDATED"));
        }
        if let Some(config) = &mut config {
            narrow(config, &mut all, target);
        }
        toolbox.tools.push(GeminiTool { function_declarations: all, ..GeminiTool::default() });
        if config.is_some() {
            *toolbox.calling() = config;
        }
    } else if config.is_some_and(|config| config.mode == "ANY") {
        if hosted.search.is_none() && hosted.code.is_none() && hosted.picture.is_none() {
            return Err(Error::invalid("tool_choice", "'tool_choice' needs 'tools' to choose from."));
        }
        drops.note("tool_choice", "Gemini decides itself when it uses Google's own tools")?;
    }
    host(&hosted, extension, functions, target, &mut toolbox, drops)?;
    // The names that were made to fit find their way back like all others.
    for (fitted, name) in back {
        shape.tools.entry(fitted).or_insert(Tool::Function { name, namespace: None });
    }
    Ok(toolbox)
}

/// Adds Google's own tools, where they can stand beside functions.
fn host<'a>(
    hosted: &Hosted,
    extension: &mut Option<Extension<'a>>,
    functions: bool,
    target: &Target<'_>,
    toolbox: &mut Toolbox<'a>,
    drops: &mut Drops,
) -> Result<()> {
    let mut own = google::tools(extension, target)?;
    let mixed = target.traits.mixed_tools && target.backend == Backend::GeminiApi;
    if let Some(place) = hosted.search.as_ref().filter(|_| !own.search) {
        if functions && !mixed {
            // Some clients declare it always, and would not work at all if that were refused.
            drops.note(place, "this model cannot search the web and call functions in one request")?;
        } else {
            own.tools.push(GeminiTool { google_search: Some(Empty {}), ..GeminiTool::default() });
        }
    }
    if let Some(place) = &hosted.code {
        if functions && !target.traits.mixed_tools {
            let message = "This model cannot run code and call functions in one request.";
            return Err(Error::unsupported(place.clone(), message));
        }
        own.tools.push(GeminiTool { code_execution: Some(Empty {}), ..GeminiTool::default() });
    }
    beside(own, target, toolbox)
}

impl<'a> Build<'a, '_, '_> {
    fn take(&mut self, tool: Declared<'a>, place: &str) -> Result<()> {
        let kind = tool.kind.clone();
        if !matches!(kind.as_ref(), "tool_search" | "programmatic_tool_calling") {
            self.unheard(&tool, place)?;
        }
        match kind.as_ref() {
            "function" | "custom" => self.function(tool, None),
            "namespace" => self.namespace(tool, place),
            "web_search"
            | "web_search_2025_08_26"
            | "web_search_preview"
            | "web_search_preview_2025_03_11" => self.search(&tool, place),
            "code_interpreter" => {
                self.hosted.code = Some(place.to_owned());
                let automatic = tool
                    .container
                    .is_none_or(|raw| raw.get().starts_with('{') && !raw.get().contains("\"file_ids\""));
                if automatic {
                    return Ok(());
                }
                let why = "Google runs code in a fresh place without files every time";
                self.declared.drops.note(&format!("{place}.container"), why)
            }
            "image_generation" => self.pictures(tool, place),
            "tool_search" | "programmatic_tool_calling" => {
                self.declared.drops.note(place, "all tools are declared at once, and called directly")
            }
            "shell" | "local_shell" | "apply_patch" => {
                if tool.environment.is_some_and(|raw| !local(raw)) {
                    let message = "Commands are run by the client here, not in a container: 'environment' must be of type 'local'.";
                    return Err(Error::unsupported("environment", message).code("unsupported_value"));
                }
                self.builtin(&kind)
            }
            "" => {
                let error = Error::invalid("type", "A tool needs its 'type'.");
                Err(error.code("missing_required_parameter"))
            }
            "file_search" | "computer" | "computer_use" | "computer_use_preview" | "mcp" => {
                let message = format!("Tools of type '{kind}' are not available with Gemini here.");
                Err(Error::unsupported("type", message).code("unsupported_value"))
            }
            other => {
                let other: String = other.chars().take(40).collect();
                let message = format!(
                    "Invalid value: '{other}'. Supported values are: 'function', 'custom', 'namespace', 'web_search', 'code_interpreter', 'image_generation', 'shell', 'local_shell' and 'apply_patch'."
                );
                Err(Error::invalid("type", message))
            }
        }
    }

    /// What a declaration says and nobody here hears.
    fn unheard(&mut self, tool: &Declared<'_>, place: &str) -> Result<()> {
        let drops = &mut *self.declared.drops;
        drops.unknown(&format!("{place}."), &tool.unknown)?;
        if tool.defer_loading == Some(true) {
            drops.note(&format!("{place}.defer_loading"), "all tools are declared at once")?;
        }
        let direct = |callers: &Vec<Text<'_>>| callers.iter().any(|caller| caller.decode() == "direct");
        if tool.allowed_callers.as_ref().is_some_and(|callers| !callers.is_empty() && !direct(callers)) {
            drops.note(&format!("{place}.allowed_callers"), "Gemini calls its functions itself")?;
        }
        if tool.later == Some(true) {
            drops.note(&format!("{place}.async"), "Gemini waits for the results of its calls")?;
        }
        Ok(())
    }

    fn namespace(&mut self, tool: Declared<'a>, outer: &str) -> Result<()> {
        let Some(namespace) = tool.name.filter(|name| !name.is_empty()) else {
            let error = Error::invalid("name", "A namespace needs its 'name'.");
            return Err(error.code("missing_required_parameter"));
        };
        for (at, inner) in tool.tools.into_iter().flatten().enumerate() {
            let place = |error: Error| error.within(&format!("tools[{at}]"));
            if !matches!(inner.kind.as_ref(), "function" | "custom") {
                let message = "A namespace holds tools of type 'function' and 'custom'.";
                return Err(place(Error::invalid("type", message)));
            }
            self.unheard(&inner, &format!("{outer}.tools[{at}]"))?;
            self.function(inner, Some(&namespace)).map_err(place)?;
        }
        Ok(())
    }

    fn function(&mut self, tool: Declared<'a>, namespace: Option<&str>) -> Result<()> {
        let Some(name) = tool.name.filter(|name| !name.is_empty()) else {
            let error = Error::invalid("name", "A tool of this type needs its 'name'.");
            return Err(error.code("missing_required_parameter"));
        };
        let full: Cow<'a, str> = match namespace {
            Some(namespace) => within(namespace, &name).into(),
            None => name.clone(),
        };
        let (name, namespace) = (name.into_owned(), namespace.map(str::to_owned));
        if tool.kind == "custom" {
            let grammar = tool
                .format
                .and_then(|format| Some(Grammar { definition: format.definition?, syntax: format.syntax }));
            let format = grammar.map(|grammar| CustomFormat { grammar: Some(grammar) });
            let custom = Custom { name: full, description: tool.description, format };
            // The front's own map knows what is custom; the reading is told by Gemini's name below.
            let mut ignored = crate::translate::chat::Shape::default();
            self.declared.custom(custom, &mut ignored)?;
            if let Some(fitted) = self.last() {
                self.custom.push(fitted.clone());
                self.tools.insert(fitted, Tool::Custom { name, namespace });
            }
            return Ok(());
        }
        let plain = namespace.is_none();
        self.declared.function(Function {
            name: full,
            description: tool.description,
            parameters: tool.parameters,
            strict: tool.strict,
        })?;
        if let Some(fitted) = self.last().filter(|fitted| !plain || *fitted != name) {
            self.tools.insert(fitted, Tool::Function { name, namespace });
        }
        Ok(())
    }

    fn last(&self) -> Option<String> {
        self.declared.all.last().map(|function| function.name.to_string())
    }

    fn builtin(&mut self, kind: &str) -> Result<()> {
        let Some(builtin) = calls::builtin(kind) else { return Ok(()) };
        if !self.declared.seen.insert(builtin.name.to_owned()) {
            let message = format!("The function '{}' is declared twice.", builtin.name);
            return Err(Error::invalid("type", message));
        }
        let modern = self.target.traits.json_schema;
        let parameters: Value = calls::parameters(&builtin.tool);
        self.declared.all.push(FunctionDeclaration {
            name: builtin.name.into(),
            description: Some(Text::plain(builtin.description)),
            parameters_json_schema: modern.then(|| Json::Value(parameters.clone())),
            parameters: (!modern).then_some(parameters),
        });
        self.tools.insert(builtin.name.to_owned(), builtin.tool);
        Ok(())
    }

    fn search(&mut self, tool: &Declared<'a>, place: &str) -> Result<()> {
        self.hosted.search = Some(place.to_owned());
        let full = |raw: Option<&RawValue>| raw.is_some_and(|raw| !matches!(raw.get(), "{}" | "[]" | "null"));
        if full(tool.filters) {
            self.declared.drops.note(&format!("{place}.filters"), "Google Search takes no list of sites")?;
        }
        if full(tool.user_location) {
            self.declared.drops.note(&format!("{place}.user_location"), "Google Search takes no location")?;
        }
        if tool.search_context_size.as_ref().is_some_and(|size| size.decode() != "medium") {
            let name = format!("{place}.search_context_size");
            self.declared.drops.note(&name, "Google Search takes no context size")?;
        }
        if tool.external_web_access == Some(false) {
            let name = format!("{place}.external_web_access");
            self.declared.drops.note(&name, "Google Search has one index, fresh or not")?;
        }
        Ok(())
    }

    fn pictures(&mut self, tool: Declared<'a>, place: &str) -> Result<()> {
        if !self.target.traits.output.iter().any(|kind| kind == "image") {
            let message = "This model cannot make pictures; choose an image model of Gemini's.";
            return Err(Error::unsupported("type", message).code("unsupported_value"));
        }
        self.hosted.picture = Some(place.to_owned());
        let text = |text: Option<Text<'_>>| text.map(|text| text.decode().into_owned());
        let picture =
            Picture { size: text(tool.size), quality: text(tool.quality), background: text(tool.background) };
        let known = picture.size.as_deref().is_none_or(|size| size == "auto" || ratio(size).is_some());
        if !known {
            self.declared.drops.note(&format!("{place}.size"), "Gemini makes pictures of other shapes")?;
        }
        for (name, value) in [("quality", &picture.quality), ("background", &picture.background)] {
            if value.as_deref().is_some_and(|value| value != "auto") {
                self.declared.drops.note(&format!("{place}.{name}"), "Gemini has no such setting")?;
            }
        }
        if tool.output_format.is_some_and(|format| format.decode() != "png") {
            self.declared
                .drops
                .note(&format!("{place}.output_format"), "Gemini chooses the format itself")?;
        }
        if tool.partial_images.is_some_and(|count| count > 0) {
            self.declared.drops.note(&format!("{place}.partial_images"), "Gemini gives no previews")?;
        }
        self.picture = Some(picture);
        Ok(())
    }
}

/// Whether a shell's environment is the client's own machine.
fn local(raw: &RawValue) -> bool {
    #[derive(serde::Deserialize)]
    struct Environment<'a> {
        #[serde(borrow, rename = "type", default)]
        kind: Cow<'a, str>,
    }
    serde_json::from_str::<Environment<'_>>(raw.get()).is_ok_and(|found| matches!(&*found.kind, "local" | ""))
}

/// The shape of a picture of this size, in Google's words.
pub(super) fn ratio(size: &str) -> Option<&'static str> {
    Some(match size {
        "1024x1024" => "1:1",
        "1536x1024" => "3:2",
        "1024x1536" => "2:3",
        "1792x1024" => "16:9",
        "1024x1792" => "9:16",
        _ => return None,
    })
}

fn odd() -> Error {
    let message =
        "Supported values are 'none', 'auto', 'required', and an object that names a declared tool.";
    Error::invalid("", message)
}

fn chosen(
    raw: &RawValue,
    known: &dyn Fn(&str) -> bool,
    hosted: &Hosted,
    drops: &mut Drops,
) -> Result<FunctionCallingConfig> {
    if raw.get().starts_with('"') {
        let word: Text<'_> = read(raw)?;
        return match word.decode().as_ref() {
            "none" => Ok(FunctionCallingConfig::of("NONE")),
            "auto" => Ok(FunctionCallingConfig::of("AUTO")),
            "required" => Ok(FunctionCallingConfig::of("ANY")),
            _ => Err(odd()),
        };
    }
    let choice: Choice<'_> = read(raw)?;
    if choice.kind != "allowed_tools" {
        if let Some(name) = named(&choice, known, hosted)? {
            return Ok(FunctionCallingConfig {
                allowed_function_names: vec![name],
                ..FunctionCallingConfig::of("ANY")
            });
        }
        drops.note("tool_choice", "Gemini decides itself when it uses Google's own tools")?;
        return Ok(FunctionCallingConfig::of("AUTO"));
    }
    let mode = match choice.mode.as_deref() {
        Some("auto") | None => "VALIDATED",
        Some("required") => "ANY",
        Some(_) => return Err(odd().within("mode")),
    };
    let mut allowed_function_names = Vec::new();
    let tools = choice.tools.unwrap_or_default();
    if tools.is_empty() {
        return Err(odd().within("tools").code("empty_array"));
    }
    for (at, tool) in tools.iter().enumerate() {
        let name = named(tool, known, hosted).map_err(|error| error.within(&format!("tools[{at}]")))?;
        allowed_function_names.extend(name);
    }
    if allowed_function_names.is_empty() {
        // Only Google's own tools are allowed: no function may be called.
        return Ok(FunctionCallingConfig::of("NONE"));
    }
    Ok(FunctionCallingConfig { allowed_function_names, ..FunctionCallingConfig::of(mode) })
}

/// The function that is named; nothing for a tool of Google's own.
fn named(choice: &Choice<'_>, known: &dyn Fn(&str) -> bool, hosted: &Hosted) -> Result<Option<String>> {
    let name: Cow<'_, str> = match choice.kind.as_ref() {
        "function" | "custom" => {
            let Some(name) = choice.name.as_deref() else {
                let error = Error::invalid("name", "A choice must name a tool.");
                return Err(error.code("missing_required_parameter"));
            };
            match choice.namespace.as_deref() {
                Some(namespace) => within(namespace, name).into(),
                None => name.into(),
            }
        }
        "shell" | "local_shell" | "apply_patch" => choice.kind.as_ref().into(),
        kind => {
            let declared = match kind {
                "web_search"
                | "web_search_2025_08_26"
                | "web_search_preview"
                | "web_search_preview_2025_03_11" => hosted.search.is_some(),
                "code_interpreter" => hosted.code.is_some(),
                "image_generation" => hosted.picture.is_some(),
                _ => return Err(odd()),
            };
            if declared {
                return Ok(None);
            }
            let message = format!("The tool '{kind}' is not among the declared tools.");
            return Err(Error::invalid("type", message));
        }
    };
    if !known(&name) {
        let shown: String = name.chars().take(80).collect();
        return Err(Error::invalid("name", format!("The tool '{shown}' is not among the declared tools.")));
    }
    Ok(Some(crate::translate::chat::names::fit(&name).into_owned()))
}
