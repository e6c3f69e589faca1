//! Responses requests.
//!
//! Borrowed from the client's body like those of Chat Completions; items, tools and other unions stay raw until
//! their `type` is known.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::chat::{ExtraBody, File, Google, InputAudio};
use crate::wire::{Text, Unknown};

fn nullable<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(from: D) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(from)?.unwrap_or_default())
}

/// A request for `/v1/responses`; `/input_tokens` and `/compact` take a part of it.
#[derive(Debug, Deserialize)]
pub struct Request<'a> {
    /// The model as the client names it; may be missing where a deployment or a template names it.
    #[serde(borrow, default, deserialize_with = "nullable")]
    pub model: Cow<'a, str>,
    /// A string or items.
    #[serde(borrow)]
    pub input: Option<&'a RawValue>,
    /// What holds for this response only.
    #[serde(borrow)]
    pub instructions: Option<&'a RawValue>,
    /// Whether the answer comes as server-sent events.
    #[serde(default, deserialize_with = "nullable")]
    pub stream: bool,
    /// Options that make sense with `stream` only.
    pub stream_options: Option<StreamOptions>,
    /// Whether the response is kept; absent means yes.
    pub store: Option<bool>,
    /// Whether it is made while nobody waits.
    pub background: Option<bool>,
    /// The response that this one goes on from.
    #[serde(borrow)]
    pub previous_response_id: Option<Text<'a>>,
    /// An id, or an object with one.
    #[serde(borrow)]
    pub conversation: Option<&'a RawValue>,
    /// What else to tell.
    #[serde(borrow)]
    pub include: Option<Vec<Text<'a>>>,
    /// Tokens of thinking and answer together.
    pub max_output_tokens: Option<i64>,
    /// Calls of hosted tools.
    pub max_tool_calls: Option<i64>,
    /// 0 to 2.
    pub temperature: Option<f64>,
    /// 0 to 1.
    pub top_p: Option<f64>,
    /// 0 to 20.
    pub top_logprobs: Option<i64>,
    /// Tools.
    #[serde(borrow)]
    pub tools: Option<Vec<&'a RawValue>>,
    /// A word or an object.
    #[serde(borrow)]
    pub tool_choice: Option<&'a RawValue>,
    /// `false`: at most one call.
    pub parallel_tool_calls: Option<bool>,
    /// The form of the answer.
    #[serde(borrow)]
    pub text: Option<TextConfig<'a>>,
    /// How to think.
    #[serde(borrow)]
    pub reasoning: Option<Reasoning<'a>>,
    /// `auto`, `disabled`.
    #[serde(borrow)]
    pub truncation: Option<Text<'a>>,
    /// Up to 16 pairs, given back.
    #[serde(borrow)]
    pub metadata: Option<&'a RawValue>,
    /// A stored template.
    #[serde(borrow)]
    pub prompt: Option<&'a RawValue>,
    /// A hint.
    #[serde(borrow)]
    pub prompt_cache_key: Option<Text<'a>>,
    /// A hint.
    #[serde(borrow)]
    pub prompt_cache_retention: Option<Text<'a>>,
    /// A hint.
    #[serde(borrow)]
    pub prompt_cache_options: Option<&'a RawValue>,
    /// A label.
    #[serde(borrow)]
    pub safety_identifier: Option<Text<'a>>,
    /// A label.
    #[serde(borrow)]
    pub user: Option<Text<'a>>,
    /// Speed and price.
    #[serde(borrow)]
    pub service_tier: Option<Text<'a>>,
    /// When to compact by itself.
    #[serde(borrow)]
    pub context_management: Option<&'a RawValue>,
    /// Labels that Codex sends with every request.
    #[serde(borrow)]
    pub client_metadata: Option<&'a RawValue>,
    /// Google's own settings.
    #[serde(borrow)]
    pub google: Option<Google<'a>>,
    /// The same in the place where Google's own layer has them.
    #[serde(borrow)]
    pub extra_body: Option<ExtraBody<'a>>,
    /// Everything else.
    #[serde(flatten)]
    pub unknown: Unknown,
}

/// `stream_options`.
#[derive(Debug, Default, Deserialize)]
pub struct StreamOptions {
    /// Padding against eavesdroppers who measure lengths.
    pub include_obfuscation: Option<bool>,
    /// Everything else.
    #[serde(flatten)]
    pub unknown: Unknown,
}

/// `text`.
#[derive(Debug, Deserialize)]
pub struct TextConfig<'a> {
    /// The form.
    #[serde(borrow)]
    pub format: Option<Format<'a>>,
    /// `low`, `medium`, `high`.
    #[serde(borrow)]
    pub verbosity: Option<Text<'a>>,
    /// Everything else.
    #[serde(flatten)]
    pub unknown: Unknown,
}

/// `text.format`.
#[derive(Debug, Deserialize)]
pub struct Format<'a> {
    /// `text`, `json_object`, `json_schema`.
    #[serde(borrow, rename = "type")]
    pub kind: Cow<'a, str>,
    /// The schema's name.
    #[serde(borrow)]
    pub name: Option<Text<'a>>,
    /// What it is for.
    #[serde(borrow)]
    pub description: Option<Text<'a>>,
    /// The schema.
    #[serde(borrow)]
    pub schema: Option<&'a RawValue>,
    /// Whether it must be kept to.
    pub strict: Option<bool>,
    /// Everything else.
    #[serde(flatten)]
    pub unknown: Unknown,
}

/// `reasoning`.
#[derive(Debug, Default, Deserialize)]
pub struct Reasoning<'a> {
    /// How much.
    #[serde(borrow)]
    pub effort: Option<Text<'a>>,
    /// Whether a summary is wanted.
    #[serde(borrow)]
    pub summary: Option<Text<'a>>,
    /// The deprecated name of the same.
    #[serde(borrow)]
    pub generate_summary: Option<Text<'a>>,
    /// Which earlier reasoning is used again: `auto`, `current_turn`, `all_turns`.
    #[serde(borrow)]
    pub context: Option<Text<'a>>,
    /// `standard`, `pro`.
    #[serde(borrow)]
    pub mode: Option<Text<'a>>,
    /// Everything else.
    #[serde(flatten)]
    pub unknown: Unknown,
}

/// An item, of whatever type.
#[derive(Debug, Deserialize)]
pub struct Item<'a> {
    /// The type; may be missing on messages and references.
    #[serde(borrow, rename = "type", default)]
    pub kind: Option<Cow<'a, str>>,
    /// The item's own name.
    #[serde(borrow)]
    pub id: Option<Text<'a>>,
    /// Who speaks.
    #[serde(borrow)]
    pub role: Option<Cow<'a, str>>,
    /// A string or parts.
    #[serde(borrow)]
    pub content: Option<&'a RawValue>,
    /// What pairs a call with its output.
    #[serde(borrow)]
    pub call_id: Option<Text<'a>>,
    /// The function.
    #[serde(borrow)]
    pub name: Option<Cow<'a, str>>,
    /// The namespace that the function is in.
    #[serde(borrow)]
    pub namespace: Option<Cow<'a, str>>,
    /// A function's arguments as a text.
    #[serde(borrow)]
    pub arguments: Option<&'a RawValue>,
    /// A custom tool's input.
    #[serde(borrow)]
    pub input: Option<Text<'a>>,
    /// What came of a call.
    #[serde(borrow)]
    pub output: Option<&'a RawValue>,
    /// What a shell is to do, or was searched for.
    #[serde(borrow)]
    pub action: Option<&'a RawValue>,
    /// What a patch does.
    #[serde(borrow)]
    pub operation: Option<&'a RawValue>,
    /// How it stands.
    #[serde(borrow)]
    pub status: Option<Text<'a>>,
    /// What only the gateway can read.
    #[serde(borrow)]
    pub encrypted_content: Option<Text<'a>>,
    /// Code that was run.
    #[serde(borrow)]
    pub code: Option<Text<'a>>,
    /// What the code printed.
    #[serde(borrow)]
    pub outputs: Option<Vec<Printed<'a>>>,
    /// A picture in base64.
    #[serde(borrow)]
    pub result: Option<Text<'a>>,
    /// The picture's format.
    #[serde(borrow)]
    pub output_format: Option<Text<'a>>,
    /// Tools that are added from here on.
    #[serde(borrow)]
    pub tools: Option<Vec<&'a RawValue>>,
    /// Thinking that changes from here on.
    #[serde(borrow)]
    pub reasoning: Option<&'a RawValue>,
    /// A form of the answer that changes from here on.
    #[serde(borrow)]
    pub text: Option<&'a RawValue>,
}

/// One output of code.
#[derive(Debug, Deserialize)]
pub struct Printed<'a> {
    /// What was printed.
    #[serde(borrow)]
    pub logs: Option<Text<'a>>,
}

/// A part of a message or an output.
#[derive(Debug, Deserialize)]
pub struct Part<'a> {
    /// The type.
    #[serde(borrow, rename = "type")]
    pub kind: Cow<'a, str>,
    /// Text.
    #[serde(borrow)]
    pub text: Option<Text<'a>>,
    /// A refusal's text.
    #[serde(borrow)]
    pub refusal: Option<Text<'a>>,
    /// An address; an object with one in the other front's form.
    #[serde(borrow)]
    pub image_url: Option<&'a RawValue>,
    /// How closely to look.
    #[serde(borrow)]
    pub detail: Option<Text<'a>>,
    /// An uploaded file.
    #[serde(borrow)]
    pub file_id: Option<Text<'a>>,
    /// Base64, or a data URL.
    #[serde(borrow)]
    pub file_data: Option<Text<'a>>,
    /// An address.
    #[serde(borrow)]
    pub file_url: Option<Text<'a>>,
    /// The file's name.
    #[serde(borrow)]
    pub filename: Option<Text<'a>>,
    /// The other front's form of a file.
    #[serde(borrow)]
    pub file: Option<File<'a>>,
    /// Sound.
    #[serde(borrow)]
    pub input_audio: Option<InputAudio<'a>>,
}

/// A tool, of whatever type.
#[derive(Debug, Deserialize)]
pub struct Tool<'a> {
    /// The type.
    #[serde(borrow, rename = "type", default)]
    pub kind: Cow<'a, str>,
    /// Its name.
    #[serde(borrow)]
    pub name: Option<Cow<'a, str>>,
    /// What it is for.
    #[serde(borrow)]
    pub description: Option<Text<'a>>,
    /// A function's arguments as JSON Schema.
    #[serde(borrow)]
    pub parameters: Option<&'a RawValue>,
    /// Whether the schema must be kept to.
    pub strict: Option<bool>,
    /// The form of a custom tool's input.
    #[serde(borrow)]
    pub format: Option<ToolFormat<'a>>,
    /// A namespace's tools.
    #[serde(borrow)]
    pub tools: Option<Vec<Self>>,
    /// Web search: which sites.
    #[serde(borrow)]
    pub filters: Option<&'a RawValue>,
    /// Web search: how much to read.
    #[serde(borrow)]
    pub search_context_size: Option<Text<'a>>,
    /// Web search: where the user is.
    #[serde(borrow)]
    pub user_location: Option<&'a RawValue>,
    /// Web search: `false` forbids fresh pages.
    pub external_web_access: Option<bool>,
    /// Code: an id, or `{"type": "auto"}`.
    #[serde(borrow)]
    pub container: Option<&'a RawValue>,
    /// Pictures: `1024x1024`.
    #[serde(borrow)]
    pub size: Option<Text<'a>>,
    /// Pictures.
    #[serde(borrow)]
    pub quality: Option<Text<'a>>,
    /// Pictures.
    #[serde(borrow)]
    pub background: Option<Text<'a>>,
    /// Pictures.
    #[serde(borrow)]
    pub output_format: Option<Text<'a>>,
    /// Pictures: previews on the way.
    pub partial_images: Option<i64>,
    /// Found by a search for tools; here it is there from the beginning.
    pub defer_loading: Option<bool>,
    /// The client may answer later; here nothing is said before it has.
    #[serde(default, rename = "async")]
    pub later: Option<bool>,
    /// Who may call: `direct`, `programmatic`.
    #[serde(borrow)]
    pub allowed_callers: Option<Vec<Text<'a>>>,
    /// Shell: `{"type": "local"}`, or a container of `OpenAI`'s.
    #[serde(borrow)]
    pub environment: Option<&'a RawValue>,
    /// Everything else.
    #[serde(flatten)]
    pub unknown: Unknown,
}

/// The form of a custom tool's input.
#[derive(Debug, Deserialize)]
pub struct ToolFormat<'a> {
    /// A grammar.
    #[serde(borrow)]
    pub definition: Option<Text<'a>>,
    /// Its kind.
    #[serde(borrow)]
    pub syntax: Option<Text<'a>>,
}

/// `tool_choice` as an object.
#[derive(Debug, Deserialize)]
pub struct Choice<'a> {
    /// The tool's type, or `allowed_tools`.
    #[serde(borrow, rename = "type", default)]
    pub kind: Cow<'a, str>,
    /// The tool.
    #[serde(borrow)]
    pub name: Option<Cow<'a, str>>,
    /// The namespace it is in.
    #[serde(borrow)]
    pub namespace: Option<Cow<'a, str>>,
    /// `auto`, `required`.
    #[serde(borrow)]
    pub mode: Option<Cow<'a, str>>,
    /// The tools that are allowed.
    #[serde(borrow)]
    pub tools: Option<Vec<Self>>,
}
