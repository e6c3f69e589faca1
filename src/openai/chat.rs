//! Chat Completions requests.
//!
//! Borrowed from the client's body: long strings stay raw tokens, values of several possible types and free
//! JSON stay raw values until somebody asks for them. Every optional field takes `null` for "absent".

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::wire::{Text, Unknown};

fn nullable<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(from: D) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(from)?.unwrap_or_default())
}

/// A request for `/v1/chat/completions`.
#[derive(Debug, Deserialize)]
pub struct Request<'a> {
    /// The model as the client names it.
    #[serde(borrow)]
    pub model: Cow<'a, str>,
    /// The conversation, oldest first.
    #[serde(borrow)]
    pub messages: Vec<Message<'a>>,
    /// Whether the answer comes as server-sent events.
    #[serde(default, deserialize_with = "nullable")]
    pub stream: bool,
    /// Options that make sense with `stream` only.
    pub stream_options: Option<StreamOptions>,
    /// Function and custom tools.
    #[serde(borrow)]
    pub tools: Option<Vec<Tool<'a>>>,
    /// A word or an object.
    #[serde(borrow)]
    pub tool_choice: Option<&'a RawValue>,
    /// `false`: at most one call an answer.
    pub parallel_tool_calls: Option<bool>,
    /// The deprecated form of `tools`.
    #[serde(borrow)]
    pub functions: Option<Vec<Function<'a>>>,
    /// The deprecated form of `tool_choice`.
    #[serde(borrow)]
    pub function_call: Option<&'a RawValue>,
    /// Free text, JSON, or JSON of a schema.
    #[serde(borrow)]
    pub response_format: Option<ResponseFormat<'a>>,
    /// 0 to 2.
    pub temperature: Option<f64>,
    /// 0 to 1.
    pub top_p: Option<f64>,
    /// An extension that many clients send.
    pub top_k: Option<i64>,
    /// Number of choices.
    pub n: Option<i64>,
    /// A string or a list of strings.
    #[serde(borrow)]
    pub stop: Option<&'a RawValue>,
    /// The deprecated and most common name of `max_completion_tokens`.
    pub max_tokens: Option<i64>,
    /// Tokens of thinking and answer together.
    pub max_completion_tokens: Option<i64>,
    /// For repeatable sampling.
    pub seed: Option<i64>,
    /// −2 to 2.
    pub presence_penalty: Option<f64>,
    /// −2 to 2.
    pub frequency_penalty: Option<f64>,
    /// Whether log probabilities are wanted.
    pub logprobs: Option<bool>,
    /// How many alternatives for each token.
    pub top_logprobs: Option<i64>,
    /// How much to think.
    #[serde(borrow)]
    pub reasoning_effort: Option<Text<'a>>,
    /// What to produce: `text`, `audio`, `image`.
    #[serde(borrow)]
    pub modalities: Option<Vec<Text<'a>>>,
    /// Voice and format for audio output.
    #[serde(borrow)]
    pub audio: Option<AudioOut<'a>>,
    /// Which capacity to use.
    #[serde(borrow)]
    pub service_tier: Option<Text<'a>>,
    /// Switches web search on.
    #[serde(borrow)]
    pub web_search_options: Option<WebSearch<'a>>,
    /// Free pairs.
    #[serde(borrow)]
    pub metadata: Option<&'a RawValue>,
    /// Biases by token id.
    #[serde(borrow)]
    pub logit_bias: Option<&'a RawValue>,
    /// The end user, deprecated.
    #[serde(borrow)]
    pub user: Option<Text<'a>>,
    /// Whether to keep the completion.
    pub store: Option<bool>,
    /// `low`, `medium`, `high`.
    #[serde(borrow)]
    pub verbosity: Option<Text<'a>>,
    /// What much of the answer is expected to be.
    #[serde(borrow)]
    pub prediction: Option<&'a RawValue>,
    /// Groups requests that share a prompt's beginning.
    #[serde(borrow)]
    pub prompt_cache_key: Option<Text<'a>>,
    /// How long such a beginning should be kept.
    #[serde(borrow)]
    pub prompt_cache_options: Option<&'a RawValue>,
    /// The deprecated form of the same.
    #[serde(borrow)]
    pub prompt_cache_retention: Option<Text<'a>>,
    /// The end user, as a hash.
    #[serde(borrow)]
    pub safety_identifier: Option<Text<'a>>,
    /// A moderation of input and output beside the answer.
    #[serde(borrow)]
    pub moderation: Option<&'a RawValue>,
    /// An extension of other gateways: `{type: "enabled", budget_tokens}` or `{type: "disabled"}`.
    #[serde(borrow)]
    pub thinking: Option<Thinking<'a>>,
    /// Safety settings in Google's own form.
    #[serde(borrow)]
    pub safety_settings: Option<&'a RawValue>,
    /// Google's extensions, as its own layer takes them from most clients.
    #[serde(borrow)]
    pub extra_body: Option<ExtraBody<'a>>,
    /// The same one level up, as the Python SDK sends it.
    #[serde(borrow)]
    pub google: Option<Google<'a>>,
    /// Every other field that came.
    #[serde(flatten)]
    pub unknown: Unknown,
}

/// `stream_options`.
#[derive(Debug, Default, Deserialize)]
pub struct StreamOptions {
    /// One last chunk with the counts.
    pub include_usage: Option<bool>,
    /// Padding against watchers who measure chunks.
    pub include_obfuscation: Option<bool>,
}

/// One message. What SDKs put beside these fields when they replay their own objects is left unread.
#[derive(Debug, Deserialize)]
pub struct Message<'a> {
    /// Who speaks.
    #[serde(borrow)]
    pub role: Cow<'a, str>,
    /// A string or parts.
    #[serde(borrow)]
    pub content: Option<&'a RawValue>,
    /// A speaker, or the function of a `function` message.
    #[serde(borrow)]
    pub name: Option<Text<'a>>,
    /// What the assistant declined to say.
    #[serde(borrow)]
    pub refusal: Option<Text<'a>>,
    /// What the assistant called.
    #[serde(borrow)]
    pub tool_calls: Option<Vec<ToolCall<'a>>>,
    /// The call that a `tool` message answers.
    #[serde(borrow)]
    pub tool_call_id: Option<Text<'a>>,
    /// The deprecated form of `tool_calls`.
    #[serde(borrow)]
    pub function_call: Option<Called<'a>>,
    /// What the assistant spoke: `{id}`, or the whole object where a client replays it.
    #[serde(borrow)]
    pub audio: Option<&'a RawValue>,
    /// What the assistant drew, where a client replays it.
    #[serde(borrow)]
    pub images: Option<&'a RawValue>,
    /// Extensions, read leniently.
    #[serde(borrow)]
    pub extra_content: Option<&'a RawValue>,
}

/// Speech in the history.
#[derive(Debug, Deserialize)]
pub struct Spoken<'a> {
    /// Its words.
    #[serde(borrow)]
    pub transcript: Option<Text<'a>>,
}

/// A picture in the history, as replies carry them.
#[derive(Debug, Deserialize)]
pub struct Drawn<'a> {
    /// `{url}` or a bare string.
    #[serde(borrow)]
    pub image_url: Option<&'a RawValue>,
    /// Extensions, read leniently.
    #[serde(borrow)]
    pub extra_content: Option<&'a RawValue>,
}

/// A call in the history.
#[derive(Debug, Deserialize)]
pub struct ToolCall<'a> {
    /// The name that its result refers to.
    #[serde(borrow)]
    pub id: Option<Text<'a>>,
    /// A function and its arguments.
    #[serde(borrow)]
    pub function: Option<Called<'a>>,
    /// A custom tool and its input.
    #[serde(borrow)]
    pub custom: Option<CustomCalled<'a>>,
    /// Extensions, read leniently.
    #[serde(borrow)]
    pub extra_content: Option<&'a RawValue>,
    /// Where another gateway keeps signatures, read leniently.
    #[serde(borrow)]
    pub provider_specific_fields: Option<&'a RawValue>,
}

/// A called function.
#[derive(Debug, Deserialize)]
pub struct Called<'a> {
    /// Which one.
    #[serde(borrow)]
    pub name: Cow<'a, str>,
    /// A JSON object inside a string; some clients send the object itself.
    #[serde(borrow)]
    pub arguments: Option<&'a RawValue>,
    /// Extensions, read leniently: the deprecated `function_call` has no other place for them.
    #[serde(borrow)]
    pub extra_content: Option<&'a RawValue>,
}

/// A called custom tool.
#[derive(Debug, Deserialize)]
pub struct CustomCalled<'a> {
    /// Which one.
    #[serde(borrow)]
    pub name: Cow<'a, str>,
    /// Free text.
    #[serde(borrow)]
    pub input: Text<'a>,
}

/// `extra_content`, where Google's own layer keeps thought signatures.
#[derive(Debug, Default, Deserialize)]
pub struct Extra<'a> {
    /// The Gemini API's.
    #[serde(borrow)]
    pub google: Option<Signed<'a>>,
    /// Vertex AI's.
    #[serde(borrow)]
    pub vertex: Option<Signed<'a>>,
    /// Where other gateways keep it: without a level of its own.
    #[serde(borrow)]
    pub thought_signature: Option<Text<'a>>,
}

/// What holds a signature.
#[derive(Debug, Default, Deserialize)]
pub struct Signed<'a> {
    /// The signature, in base64.
    #[serde(borrow)]
    pub thought_signature: Option<Text<'a>>,
}

/// One content part. The fields of all part types side by side; `kind` says which one counts.
#[derive(Debug, Deserialize)]
pub struct Part<'a> {
    /// `text`, `image_url`, `input_audio`, `file`, `refusal`, `video_url` …
    #[serde(borrow, rename = "type")]
    pub kind: Cow<'a, str>,
    /// Text.
    #[serde(borrow)]
    pub text: Option<Text<'a>>,
    /// A refusal.
    #[serde(borrow)]
    pub refusal: Option<Text<'a>>,
    /// `{url, detail}` or a bare string.
    #[serde(borrow)]
    pub image_url: Option<&'a RawValue>,
    /// `{url}` or a bare string.
    #[serde(borrow)]
    pub video_url: Option<&'a RawValue>,
    /// Audio.
    #[serde(borrow)]
    pub input_audio: Option<InputAudio<'a>>,
    /// A document.
    #[serde(borrow)]
    pub file: Option<File<'a>>,
    /// Detail, where the part has the flat form of the Responses API.
    #[serde(borrow)]
    pub detail: Option<Text<'a>>,
    /// The fields of `file`, where the part has the flat form of the Responses API.
    #[serde(borrow)]
    pub file_data: Option<Text<'a>>,
    /// The same.
    #[serde(borrow)]
    pub file_id: Option<Text<'a>>,
    /// The same.
    #[serde(borrow)]
    pub file_url: Option<Text<'a>>,
    /// The same.
    #[serde(borrow)]
    pub filename: Option<Text<'a>>,
    /// Clip and frame rate of a video in Google's own form.
    #[serde(borrow, default, alias = "videoMetadata")]
    pub video_metadata: Option<VideoMetadata<'a>>,
}

/// The object form of `image_url` and `video_url`.
#[derive(Debug, Deserialize)]
pub struct Url<'a> {
    /// `https:`, `gs:` or `data:`.
    #[serde(borrow)]
    pub url: Text<'a>,
    /// How closely to look.
    #[serde(borrow)]
    pub detail: Option<Text<'a>>,
    /// The media type of a URL that does not show it.
    #[serde(borrow, default, alias = "mime_type")]
    pub format: Option<Text<'a>>,
}

/// Clip and frame rate of a video, in Google's own words.
#[derive(Debug, Deserialize)]
pub struct VideoMetadata<'a> {
    /// Where it begins: seconds, or `"1.5s"`.
    #[serde(borrow, default, alias = "startOffset")]
    pub start_offset: Option<&'a RawValue>,
    /// Where it ends.
    #[serde(borrow, default, alias = "endOffset")]
    pub end_offset: Option<&'a RawValue>,
    /// Frames a second, above 0 and up to 24.
    pub fps: Option<f64>,
    /// Every other field that came.
    #[serde(flatten)]
    pub unknown: Unknown,
}

/// `input_audio`.
#[derive(Debug, Deserialize)]
pub struct InputAudio<'a> {
    /// Base64, or a data URL.
    #[serde(borrow)]
    pub data: Text<'a>,
    /// `wav`, `mp3` …
    #[serde(borrow)]
    pub format: Option<Text<'a>>,
}

/// `file`.
#[derive(Debug, Deserialize)]
pub struct File<'a> {
    /// Base64, or a data URL.
    #[serde(borrow)]
    pub file_data: Option<Text<'a>>,
    /// An uploaded file.
    #[serde(borrow)]
    pub file_id: Option<Text<'a>>,
    /// A file elsewhere.
    #[serde(borrow)]
    pub file_url: Option<Text<'a>>,
    /// Its name.
    #[serde(borrow)]
    pub filename: Option<Text<'a>>,
    /// Its media type.
    #[serde(borrow, default, alias = "mime_type")]
    pub format: Option<Text<'a>>,
}

/// One tool.
#[derive(Debug, Deserialize)]
pub struct Tool<'a> {
    /// `function` or `custom`.
    #[serde(borrow, rename = "type", default)]
    pub kind: Option<Text<'a>>,
    /// A function.
    #[serde(borrow)]
    pub function: Option<Function<'a>>,
    /// A custom tool.
    #[serde(borrow)]
    pub custom: Option<Custom<'a>>,
}

/// A declared function.
#[derive(Debug, Deserialize)]
pub struct Function<'a> {
    /// Its name.
    #[serde(borrow)]
    pub name: Cow<'a, str>,
    /// What it is for.
    #[serde(borrow)]
    pub description: Option<Text<'a>>,
    /// The JSON Schema of its arguments.
    #[serde(borrow)]
    pub parameters: Option<&'a RawValue>,
    /// Whether arguments must keep to the schema.
    pub strict: Option<bool>,
}

/// A declared custom tool.
#[derive(Debug, Deserialize)]
pub struct Custom<'a> {
    /// Its name.
    #[serde(borrow)]
    pub name: Cow<'a, str>,
    /// What it is for.
    #[serde(borrow)]
    pub description: Option<Text<'a>>,
    /// The form of its input.
    #[serde(borrow)]
    pub format: Option<CustomFormat<'a>>,
}

/// The form of a custom tool's input.
#[derive(Debug, Deserialize)]
pub struct CustomFormat<'a> {
    /// A grammar, if it is not free text.
    #[serde(borrow)]
    pub grammar: Option<Grammar<'a>>,
}

/// A grammar.
#[derive(Debug, Deserialize)]
pub struct Grammar<'a> {
    /// Its text.
    #[serde(borrow)]
    pub definition: Text<'a>,
    /// `lark` or `regex`.
    #[serde(borrow)]
    pub syntax: Option<Text<'a>>,
}

/// The object form of `tool_choice`, all variants side by side.
#[derive(Debug, Deserialize)]
pub struct Choice<'a> {
    /// `function`, `custom`, `allowed_tools`, or a mode.
    #[serde(borrow, rename = "type", default)]
    pub kind: Option<Text<'a>>,
    /// The named function.
    #[serde(borrow)]
    pub function: Option<Named<'a>>,
    /// The named custom tool.
    #[serde(borrow)]
    pub custom: Option<Named<'a>>,
    /// The name, in flat forms and in the deprecated one.
    #[serde(borrow)]
    pub name: Option<Text<'a>>,
    /// A subset of the tools.
    #[serde(borrow)]
    pub allowed_tools: Option<AllowedTools<'a>>,
}

/// A reference by name.
#[derive(Debug, Deserialize)]
pub struct Named<'a> {
    /// The name.
    #[serde(borrow)]
    pub name: Text<'a>,
}

/// A subset of the tools.
#[derive(Debug, Deserialize)]
pub struct AllowedTools<'a> {
    /// `auto` or `required`.
    #[serde(borrow)]
    pub mode: Text<'a>,
    /// The tools, by reference.
    #[serde(borrow)]
    pub tools: Vec<Choice<'a>>,
}

/// `response_format`.
#[derive(Debug, Deserialize)]
pub struct ResponseFormat<'a> {
    /// `text`, `json_object` or `json_schema`.
    #[serde(borrow, rename = "type")]
    pub kind: Cow<'a, str>,
    /// The schema and its name.
    #[serde(borrow)]
    pub json_schema: Option<JsonSchema<'a>>,
}

/// A named schema.
#[derive(Debug, Deserialize)]
pub struct JsonSchema<'a> {
    /// Its name.
    #[serde(borrow)]
    pub name: Option<Text<'a>>,
    /// What it is for.
    #[serde(borrow)]
    pub description: Option<Text<'a>>,
    /// The JSON Schema.
    #[serde(borrow)]
    pub schema: Option<&'a RawValue>,
}

/// `audio`.
#[derive(Debug, Deserialize)]
pub struct AudioOut<'a> {
    /// A voice's name, or `{id}`.
    #[serde(borrow)]
    pub voice: Option<&'a RawValue>,
    /// `wav`, `pcm16`, `mp3` …
    #[serde(borrow)]
    pub format: Option<Text<'a>>,
}

/// `thinking`, as other gateways take it.
#[derive(Debug, Deserialize)]
pub struct Thinking<'a> {
    /// `enabled`, `disabled`, `adaptive`.
    #[serde(borrow, rename = "type", default)]
    pub kind: Option<Text<'a>>,
    /// Tokens.
    pub budget_tokens: Option<i64>,
}

/// `web_search_options`.
#[derive(Debug, Deserialize)]
pub struct WebSearch<'a> {
    /// How much of the web to read.
    #[serde(borrow)]
    pub search_context_size: Option<Text<'a>>,
    /// Where the user is.
    #[serde(borrow)]
    pub user_location: Option<&'a RawValue>,
}

/// `extra_body`, when it arrives literally.
#[derive(Debug, Deserialize)]
pub struct ExtraBody<'a> {
    /// Google's extensions.
    #[serde(borrow)]
    pub google: Option<Google<'a>>,
    /// Every other field that came.
    #[serde(flatten)]
    pub unknown: Unknown,
}

/// Google's extensions.
#[derive(Debug, Deserialize)]
pub struct Google<'a> {
    /// How to think, in Google's own words.
    #[serde(borrow, default, alias = "thinkingConfig")]
    pub thinking_config: Option<ThinkingConfig<'a>>,
    /// The name of a prepared context.
    #[serde(borrow, default, alias = "cachedContent")]
    pub cached_content: Option<Text<'a>>,
    /// Safety settings in Google's own form.
    #[serde(borrow, default, alias = "safetySettings")]
    pub safety_settings: Option<&'a RawValue>,
    /// Google's own tools, in its own form: `[{"google_search": {}}]`.
    #[serde(borrow)]
    pub tools: Option<Vec<BTreeMap<Cow<'a, str>, &'a RawValue>>>,
    /// How closely to look at all media.
    #[serde(borrow, default, alias = "mediaResolution")]
    pub media_resolution: Option<Text<'a>>,
    /// Arguments of calls in pieces (Vertex AI only).
    #[serde(default, alias = "streamFunctionCallArguments")]
    pub stream_function_call_arguments: Option<bool>,
    /// The shape of pictures: `16:9`.
    #[serde(borrow, default, alias = "aspectRatio")]
    pub aspect_ratio: Option<Text<'a>>,
    /// The shape and size of pictures.
    #[serde(borrow, default, alias = "imageConfig")]
    pub image_config: Option<ImageConfig<'a>>,
    /// Every other field that came.
    #[serde(flatten)]
    pub unknown: Unknown,
}

/// The shape and size of pictures, in Google's own words.
#[derive(Debug, Deserialize)]
pub struct ImageConfig<'a> {
    /// `16:9`.
    #[serde(borrow, default, alias = "aspectRatio")]
    pub aspect_ratio: Option<Text<'a>>,
    /// `1K`, `2K`, `4K`.
    #[serde(borrow, default, alias = "imageSize")]
    pub image_size: Option<Text<'a>>,
    /// Every other field that came.
    #[serde(flatten)]
    pub unknown: Unknown,
}

/// How to think, in Google's own words.
#[derive(Debug, Deserialize)]
pub struct ThinkingConfig<'a> {
    /// Tokens.
    #[serde(default, alias = "thinkingBudget")]
    pub thinking_budget: Option<i32>,
    /// A level.
    #[serde(borrow, default, alias = "thinkingLevel")]
    pub thinking_level: Option<Text<'a>>,
    /// Whether summaries of thoughts are wanted.
    #[serde(default, alias = "includeThoughts")]
    pub include_thoughts: Option<bool>,
    /// Every other field that came.
    #[serde(flatten)]
    pub unknown: Unknown,
}
