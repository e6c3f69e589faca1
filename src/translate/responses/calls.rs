//! The client's own kinds of calls (shell, patches) as functions of Gemini's, and back.

use serde_json::{Map, Value, json};

use super::Tool;

/// The function behind a built-in tool of the client's.
pub(super) struct Builtin {
    pub(super) name: &'static str,
    pub(super) description: &'static str,
    pub(super) tool: Tool,
}

/// The built-in tools that a client runs itself.
pub(super) fn builtin(kind: &str) -> Option<Builtin> {
    Some(match kind {
        "shell" => Builtin {
            name: "shell",
            description: "Runs shell commands on the user's machine, one after the other, and gives what they print.",
            tool: Tool::Shell,
        },
        "local_shell" => Builtin {
            name: "local_shell",
            description: "Runs one command on the user's machine and gives what it prints.",
            tool: Tool::LocalShell,
        },
        "apply_patch" => Builtin {
            name: "apply_patch",
            description: "Creates, changes or deletes one file of the user's. A change is given as a diff in the V4A format: context lines, lines to take out that begin with '-', lines to put in that begin with '+', under '@@' headers; for a new file every line begins with '+', and for a deletion the diff is empty.",
            tool: Tool::ApplyPatch,
        },
        _ => return None,
    })
}

/// What the function takes.
pub(super) fn parameters(tool: &Tool) -> Value {
    let strings = || json!({"type": "array", "items": {"type": "string"}});
    match tool {
        Tool::Shell => json!({"type": "object", "properties": {
            "commands": strings(),
            "timeout_ms": {"type": "integer"},
            "max_output_length": {"type": "integer"},
        }, "required": ["commands"]}),
        Tool::LocalShell => json!({"type": "object", "properties": {
            "command": strings(),
            "working_directory": {"type": "string"},
            "timeout_ms": {"type": "integer"},
        }, "required": ["command"]}),
        Tool::ApplyPatch => json!({"type": "object", "properties": {
            "type": {"type": "string", "enum": ["create_file", "update_file", "delete_file"]},
            "path": {"type": "string"},
            "diff": {"type": "string"},
        }, "required": ["type", "path", "diff"]}),
        Tool::Function { .. } | Tool::Custom { .. } => json!({"type": "object"}),
    }
}

fn strings(value: Option<&Value>) -> Vec<String> {
    match value {
        Some(Value::String(one)) => vec![one.clone()],
        Some(Value::Array(all)) => all.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        _ => Vec::new(),
    }
}

fn keep(from: &Map<String, Value>, name: &str, fits: fn(&Value) -> bool, into: &mut Value) {
    if let Some(value) = from.get(name).filter(|value| fits(value))
        && let Some(into) = into.as_object_mut()
    {
        into.insert(name.to_owned(), value.clone());
    }
}

/// `action` of a `shell_call`, from the function's arguments.
pub(super) fn shell(args: &Map<String, Value>) -> Value {
    let mut commands = strings(args.get("commands"));
    commands.extend(strings(args.get("command")));
    let mut action = json!({"commands": commands, "timeout_ms": null, "max_output_length": null});
    keep(args, "timeout_ms", Value::is_u64, &mut action);
    keep(args, "max_output_length", Value::is_u64, &mut action);
    action
}

/// `action` of a `local_shell_call`, from the function's arguments.
pub(super) fn local_shell(args: &Map<String, Value>) -> Value {
    let mut action = json!({"type": "exec", "command": strings(args.get("command")), "env": {}});
    keep(args, "working_directory", Value::is_string, &mut action);
    keep(args, "timeout_ms", Value::is_u64, &mut action);
    action
}

/// `operation` of an `apply_patch_call`, from the function's arguments.
pub(super) fn patch(args: &Map<String, Value>) -> Value {
    let text = |name: &str| args.get(name).and_then(Value::as_str).unwrap_or_default();
    match text("type") {
        "delete_file" => json!({"type": "delete_file", "path": text("path")}),
        "create_file" => json!({"type": "create_file", "path": text("path"), "diff": text("diff")}),
        _ => json!({"type": "update_file", "path": text("path"), "diff": text("diff")}),
    }
}

/// A field, and what it must be.
type Field = (&'static str, fn(&Value) -> bool);

/// The function's arguments again, from the `action` or `operation` of a call's item: what the model said, without
/// what was filled in for the client.
pub(super) fn arguments(kind: &str, fields: &Map<String, Value>) -> Value {
    let mut args = json!({});
    let known: &[Field] = match kind {
        "shell_call" => &[
            ("commands", Value::is_array),
            ("timeout_ms", Value::is_u64),
            ("max_output_length", Value::is_u64),
        ],
        "local_shell_call" => &[
            ("command", Value::is_array),
            ("working_directory", Value::is_string),
            ("timeout_ms", Value::is_u64),
        ],
        _ => &[
            ("type", Value::is_string),
            ("path", Value::is_string),
            ("diff", |diff| diff.as_str().is_some_and(|diff| !diff.is_empty())),
        ],
    };
    for (name, fits) in known {
        keep(fields, name, *fits, &mut args);
    }
    args
}
