//! What Gemini is asked.
//!
//! Fields are written in the order they stand here. What stays the same from turn to turn comes before
//! `contents`, so that a conversation that grew by a turn begins with the bytes it had before and Google's
//! implicit cache can find it.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Serialize, Serializer};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::wire::{Base64, Text};

/// JSON that is passed on: as it came, or as we made it.
#[derive(Clone, Debug)]
pub enum Json<'a> {
    /// A piece of the client's body.
    Raw(&'a RawValue),
    /// A text that was checked to be JSON.
    Owned(Box<RawValue>),
    /// Built or changed by us.
    Value(Value),
}

impl Serialize for Json<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Raw(raw) => raw.serialize(serializer),
            Self::Owned(raw) => raw.serialize(serializer),
            Self::Value(value) => value.serialize(serializer),
        }
    }
}

/// `GenerateContentRequest`.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GenerateRequest<'a> {
    /// A prepared context.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cached_content: Option<Text<'a>>,
    /// What holds for the whole conversation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub system_instruction: Option<SystemInstruction<'a>>,
    /// What the model may call.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tools: Vec<Tool<'a>>,
    /// Whether it must.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool_config: Option<ToolConfig>,
    /// What is blocked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub safety_settings: Option<Vec<SafetySetting>>,
    /// How to answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generation_config: Option<GenerationConfig<'a>>,
    /// `standard`, `flex`, `priority`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_tier: Option<&'static str>,
    /// The turns, oldest first.
    pub contents: Vec<Content<'a>>,
    /// Goes on with an answer that was capped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub continuation_token: Option<String>,
}

/// What is blocked, for one category of harm.
#[derive(Clone, Debug, Serialize)]
pub struct SafetySetting {
    /// `HARM_CATEGORY_…`
    pub category: String,
    /// `BLOCK_…` or `OFF`.
    pub threshold: String,
    /// `SEVERITY` or `PROBABILITY` (Vertex AI only).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
}

/// The system's words; the role is left out, nobody reads it.
#[derive(Clone, Debug, Serialize)]
pub struct SystemInstruction<'a> {
    /// Texts.
    pub parts: Vec<Part<'a>>,
}

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The user, and the results of calls.
    User,
    /// The model.
    Model,
}

/// One turn.
#[derive(Clone, Debug, Serialize)]
pub struct Content<'a> {
    /// Who speaks.
    pub role: Role,
    /// At least one.
    pub parts: Vec<Part<'a>>,
}

/// One piece of a turn: exactly one of the data fields, and what belongs to it.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Part<'a> {
    /// Text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<Text<'a>>,
    /// Media inside the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inline_data: Option<Blob<'a>>,
    /// Media elsewhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file_data: Option<FileData<'a>>,
    /// A call the model made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub function_call: Option<FunctionCall<'a>>,
    /// What came of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub function_response: Option<FunctionResponse<'a>>,
    /// Code that Google ran.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub executable_code: Option<ExecutableCode<'a>>,
    /// What it printed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code_execution_result: Option<CodeExecutionResult<'a>>,
    /// A call of a tool on Google's side, sent back as it came.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool_call: Option<Json<'a>>,
    /// The result of a tool on Google's side, sent back as it came.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool_response: Option<Json<'a>>,
    /// Clip and frame rate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub video_metadata: Option<VideoMetadata>,
    /// How closely to look.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub media_resolution: Option<MediaResolution>,
    /// The model's own mark on this part.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub thought_signature: Option<Text<'a>>,
}

impl<'a> Part<'a> {
    /// A part of text.
    pub fn text(text: Text<'a>) -> Self {
        Self { text: Some(text), ..Self::default() }
    }
}

/// Media inside the request.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Blob<'a> {
    /// Its type.
    pub mime_type: Cow<'a, str>,
    /// Its bytes.
    pub data: Base64<'a>,
    /// The name that a function's response refers to it by.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
}

/// Clip and frame rate of a video.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct VideoMetadata {
    /// Where it begins: `1.5s`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_offset: Option<String>,
    /// Where it ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end_offset: Option<String>,
    /// Frames a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fps: Option<f64>,
}

/// Media elsewhere.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FileData<'a> {
    /// Its type, if it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mime_type: Option<Cow<'a, str>>,
    /// Where it is.
    pub file_uri: Cow<'a, str>,
    /// The name that a function's response refers to it by.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// The model does not read this address itself: whoever sends the request must fetch what is there and
    /// put it in this place, or refuse. The path of the client's part, for the refusal.
    #[serde(skip)]
    pub fetch: Option<String>,
}

/// Code that Google ran.
#[derive(Clone, Debug, Serialize)]
pub struct ExecutableCode<'a> {
    /// Its id, if it had one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<Text<'a>>,
    /// `PYTHON`
    pub language: &'static str,
    /// The code.
    pub code: Text<'a>,
}

/// What code printed.
#[derive(Clone, Debug, Serialize)]
pub struct CodeExecutionResult<'a> {
    /// The id of the code, if it had one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<Text<'a>>,
    /// `OUTCOME_OK`, `OUTCOME_FAILED`, `OUTCOME_DEADLINE_EXCEEDED`
    pub outcome: &'static str,
    /// Standard output, or the failure.
    pub output: Text<'a>,
}

/// How closely to look at one part.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct MediaResolution {
    /// `MEDIA_RESOLUTION_…`
    pub level: &'static str,
}

/// A call the model made.
#[derive(Clone, Debug, Serialize)]
pub struct FunctionCall<'a> {
    /// Its id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<Cow<'a, str>>,
    /// The function.
    pub name: Cow<'a, str>,
    /// Always an object.
    pub args: Args<'a>,
}

/// Arguments.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub enum Args<'a> {
    /// A function's.
    Json(Json<'a>),
    /// A wrapped custom tool's.
    Input {
        /// The free text.
        input: Text<'a>,
    },
}

/// What came of a call.
#[derive(Clone, Debug, Serialize)]
pub struct FunctionResponse<'a> {
    /// The call's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<Cow<'a, str>>,
    /// The function.
    pub name: Cow<'a, str>,
    /// Always an object.
    pub response: Outcome<'a>,
    /// Media of the result.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<Part<'a>>,
}

/// A result.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub enum Outcome<'a> {
    /// An object of the client's.
    Json(Json<'a>),
    /// Anything else, wrapped.
    Output {
        /// The text.
        output: Text<'a>,
        /// References to the media beside it.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        media: Vec<MediaRef>,
    },
}

/// A reference to a piece of media by its display name.
#[derive(Clone, Debug, Serialize)]
pub struct MediaRef {
    /// The display name.
    #[serde(rename = "$ref")]
    pub name: String,
}

/// One tool: one field is set.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Tool<'a> {
    /// Functions.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub function_declarations: Vec<FunctionDeclaration<'a>>,
    /// Web search.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub google_search: Option<Empty>,
    /// Code that Google runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code_execution: Option<Empty>,
    /// Another tool of Google's, by its name there.
    #[serde(flatten)]
    pub own: BTreeMap<&'static str, &'a RawValue>,
}

/// `{}`.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Empty {}

/// A function the model may call.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FunctionDeclaration<'a> {
    /// Its name, within Gemini's grammar.
    pub name: Cow<'a, str>,
    /// What it is for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<Text<'a>>,
    /// Its arguments, as JSON Schema.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parameters_json_schema: Option<Json<'a>>,
    /// Its arguments, in the older subset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parameters: Option<Value>,
}

/// Rules for calling.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ToolConfig {
    /// Whether and what to call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub function_calling_config: Option<FunctionCallingConfig>,
    /// Server-side tools beside functions (Gemini API only).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub include_server_side_tool_invocations: Option<bool>,
}

/// Whether and what to call.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FunctionCallingConfig {
    /// `AUTO`, `ANY`, `NONE`, `VALIDATED`.
    pub mode: &'static str,
    /// A subset, with `ANY` and `VALIDATED` only.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allowed_function_names: Vec<String>,
    /// Arguments in pieces, where answers are streamed (Vertex AI only).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream_function_call_arguments: Option<bool>,
}

impl FunctionCallingConfig {
    /// A mode for all functions.
    pub fn of(mode: &'static str) -> Self {
        Self { mode, allowed_function_names: Vec::new(), stream_function_call_arguments: None }
    }
}

/// How to answer.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GenerationConfig<'a> {
    /// 0 to 2.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
    /// 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_p: Option<f64>,
    /// How many candidates for each token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_k: Option<i64>,
    /// Number of answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub candidate_count: Option<u32>,
    /// Tokens of thinking and answer together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_output_tokens: Option<i64>,
    /// At most five.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub stop_sequences: Vec<Text<'a>>,
    /// For repeatable sampling.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<i32>,
    /// −2 to 2.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub presence_penalty: Option<f64>,
    /// −2 to 2.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frequency_penalty: Option<f64>,
    /// Whether log probabilities are wanted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_logprobs: Option<bool>,
    /// How many alternatives for each token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logprobs: Option<i64>,
    /// `application/json`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_mime_type: Option<&'static str>,
    /// The answer's JSON Schema.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_json_schema: Option<Json<'a>>,
    /// The same in the older subset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_schema: Option<Value>,
    /// `TEXT`, `IMAGE`, `AUDIO`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub response_modalities: Vec<&'static str>,
    /// How closely to look at all media: `MEDIA_RESOLUTION_…`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub media_resolution: Option<&'static str>,
    /// The shape and size of pictures.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_config: Option<ImageConfig>,
    /// The voice.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub speech_config: Option<Value>,
    /// How to think.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub thinking_config: Option<ThinkingConfig>,
}

impl GenerationConfig<'_> {
    /// Whether it says nothing, and would be written as `{}`.
    pub fn is_empty(&self) -> bool {
        // Taken apart by name, so that a field of tomorrow is not forgotten here.
        let Self {
            temperature,
            top_p,
            top_k,
            candidate_count,
            max_output_tokens,
            stop_sequences,
            seed,
            presence_penalty,
            frequency_penalty,
            response_logprobs,
            logprobs,
            response_mime_type,
            response_json_schema,
            response_schema,
            response_modalities,
            media_resolution,
            image_config,
            speech_config,
            thinking_config,
        } = self;
        let numbers = temperature.is_none() && top_p.is_none() && top_k.is_none() && seed.is_none();
        let penalties = presence_penalty.is_none() && frequency_penalty.is_none();
        let lengths = candidate_count.is_none() && max_output_tokens.is_none() && stop_sequences.is_empty();
        let probabilities = response_logprobs.is_none() && logprobs.is_none();
        let form =
            response_mime_type.is_none() && response_json_schema.is_none() && response_schema.is_none();
        let media = response_modalities.is_empty() && media_resolution.is_none() && image_config.is_none();
        let rest = speech_config.is_none() && thinking_config.is_none();
        numbers && penalties && lengths && probabilities && form && media && rest
    }
}

/// The shape and size of pictures.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ImageConfig {
    /// `16:9`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aspect_ratio: Option<String>,
    /// `2K`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_size: Option<String>,
}

/// How to think: a level or a budget, never both.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ThinkingConfig {
    /// Whether summaries are wanted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub include_thoughts: Option<bool>,
    /// A level.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub thinking_level: Option<Cow<'static, str>>,
    /// Tokens; −1 lets the model choose.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub thinking_budget: Option<i32>,
}
