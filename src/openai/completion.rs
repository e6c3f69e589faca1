//! Chat Completions replies and chunks.

use std::borrow::Cow;

use serde::ser::{Serialize, SerializeStruct, Serializer};
use serde_json::value::RawValue;

use crate::wire::{self, Text};

/// `usage`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct UsageObject {
    /// Everything that went in.
    pub prompt_tokens: u64,
    /// Everything that came out, thoughts included.
    pub completion_tokens: u64,
    /// Their sum.
    pub total_tokens: u64,
    /// Parts of the first.
    pub prompt_tokens_details: PromptDetails,
    /// Parts of the second.
    pub completion_tokens_details: CompletionDetails,
}

/// Parts of the prompt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PromptDetails {
    /// From a cache.
    pub cached_tokens: u64,
    /// Sound.
    pub audio_tokens: u64,
    /// The other kinds, where Google breaks the prompt down.
    pub kinds: Kinds,
    /// What server-side tools fed back to the model; a part of the prompt that the client did not send. Zero is left
    /// out.
    pub tool_use_tokens: u64,
}

/// Tokens of kinds that not every answer has; zeros are left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kinds {
    /// Text.
    pub text_tokens: u64,
    /// Pictures.
    pub image_tokens: u64,
    /// Moving pictures.
    pub video_tokens: u64,
    /// Documents.
    pub document_tokens: u64,
}

/// Parts of the completion.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CompletionDetails {
    /// Thoughts.
    pub reasoning_tokens: u64,
    /// Sound.
    pub audio_tokens: u64,
    /// Always 0: Gemini predicts nothing.
    pub accepted_prediction_tokens: u64,
    /// Always 0.
    pub rejected_prediction_tokens: u64,
    /// The other kinds, where Google breaks the output down.
    pub kinds: Kinds,
}

// By hand, since serde writes what is flattened as a map, key by key, at three times the cost; every answer has these.
impl Kinds {
    fn fields<S: SerializeStruct>(&self, into: &mut S) -> Result<(), S::Error> {
        let Self { text_tokens, image_tokens, video_tokens, document_tokens } = self;
        counted(into, "text_tokens", *text_tokens)?;
        counted(into, "image_tokens", *image_tokens)?;
        counted(into, "video_tokens", *video_tokens)?;
        counted(into, "document_tokens", *document_tokens)
    }
}

fn counted<S: SerializeStruct>(into: &mut S, name: &'static str, count: u64) -> Result<(), S::Error> {
    if count == 0 { into.skip_field(name) } else { into.serialize_field(name, &count) }
}

impl Serialize for PromptDetails {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { cached_tokens, audio_tokens, kinds, tool_use_tokens } = self;
        let mut into = serializer.serialize_struct("PromptDetails", 7)?;
        into.serialize_field("cached_tokens", cached_tokens)?;
        into.serialize_field("audio_tokens", audio_tokens)?;
        kinds.fields(&mut into)?;
        counted(&mut into, "tool_use_tokens", *tool_use_tokens)?;
        into.end()
    }
}

impl Serialize for CompletionDetails {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self {
            reasoning_tokens,
            audio_tokens,
            accepted_prediction_tokens,
            rejected_prediction_tokens,
            kinds,
        } = self;
        let mut into = serializer.serialize_struct("CompletionDetails", 8)?;
        into.serialize_field("reasoning_tokens", reasoning_tokens)?;
        into.serialize_field("audio_tokens", audio_tokens)?;
        into.serialize_field("accepted_prediction_tokens", accepted_prediction_tokens)?;
        into.serialize_field("rejected_prediction_tokens", rejected_prediction_tokens)?;
        kinds.fields(&mut into)?;
        into.end()
    }
}

/// `annotations[]`.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Annotation<'a> {
    /// `url_citation`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// The citation.
    pub url_citation: UrlCitation<'a>,
}

/// A source and the characters that rest on it.
#[derive(Clone, Debug, serde::Serialize)]
pub struct UrlCitation<'a> {
    /// First character.
    pub start_index: usize,
    /// Character behind the last.
    pub end_index: usize,
    /// Title.
    pub title: Cow<'a, str>,
    /// Address.
    pub url: Cow<'a, str>,
}

/// The extension through which thought signatures travel.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Extra<'a> {
    /// Google's corner.
    pub google: Google<'a>,
}

/// Google's corner of the extension.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct Google<'a> {
    /// To be sent back with the call or message.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub thought_signature: Option<Text<'a>>,
    /// Google's own `finishReason`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finish_reason: Option<&'a str>,
    /// Google's `finishMessage`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finish_message: Option<&'a str>,
}

impl<'a> Extra<'a> {
    /// A signature.
    pub fn signature(signature: Text<'a>) -> Self {
        Self { google: Google { thought_signature: Some(signature), ..Google::default() } }
    }
}

/// The inside of a JSON string token: tokens joined without being decoded.
#[derive(Clone, Debug, Default)]
pub struct Token(String);

impl Token {
    /// Appends a text.
    pub fn push(&mut self, text: &Text<'_>) {
        match text {
            Text::Raw(raw) => {
                let token = raw.get();
                self.0.push_str(token.get(1..token.len().saturating_sub(1)).unwrap_or_default());
            }
            Text::Plain(plain) if wire::needs_no_escape(plain) => self.0.push_str(plain),
            Text::Plain(plain) => {
                let token = serde_json::to_string(plain).unwrap_or_default();
                self.0.push_str(token.get(1..token.len().saturating_sub(1)).unwrap_or_default());
            }
        }
    }

    /// Whether nothing was appended.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Serialize for Token {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // `wire::append` writes bytes between quotes as they stand.
        serializer.serialize_bytes(self.0.as_bytes())
    }
}

/// `choices[].logprobs`.
#[derive(Debug, serde::Serialize)]
pub struct Logprobs<C> {
    /// Of the content.
    pub content: C,
    /// Never: Gemini has none.
    pub refusal: (),
}

/// A token and its probability.
#[derive(Debug, serde::Serialize)]
pub struct TokenLogprob<'a> {
    /// The token.
    pub token: Text<'a>,
    /// As Google wrote the number.
    pub logprob: Number<'a>,
    /// The token in UTF-8.
    pub bytes: Vec<u16>,
    /// What else was likely.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_logprobs: Option<Vec<Self>>,
}

/// A number as it was written; an absent one is 0.
#[derive(Clone, Copy, Debug)]
pub struct Number<'a>(pub Option<&'a RawValue>);

impl<'de: 'a, 'a> serde::Deserialize<'de> for Number<'a> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        <&RawValue>::deserialize(deserializer).map(|raw| Self(Some(raw)))
    }
}

impl Serialize for Number<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Some(raw) if raw.get().starts_with(|c: char| c == '-' || c.is_ascii_digit()) => {
                raw.serialize(serializer)
            }
            _ => serializer.serialize_u8(0),
        }
    }
}

/// `delta`. A field that is `Some(None)` is written as `null`.
#[derive(Debug, Default, serde::Serialize)]
pub struct Delta<'a> {
    /// `assistant`, once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<&'static str>,
    /// Text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content: Option<Option<Text<'a>>>,
    /// Why nothing is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refusal: Option<Option<Text<'a>>>,
    /// Thoughts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasoning_content: Option<Text<'a>>,
    /// One call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool_calls: Option<[CallDelta<'a>; 1]>,
    /// The deprecated form.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub function_call: Option<FunctionDelta<'a>>,
    /// One picture.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub images: Option<[Image<'a>; 1]>,
    /// Sound.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audio: Option<AudioDelta<'a>>,
    /// Sources, once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub annotations: Option<&'a [Annotation<'a>]>,
    /// Signature of the text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub extra_content: Option<Extra<'a>>,
}

/// `delta.tool_calls[]`.
#[derive(Debug, Default, serde::Serialize)]
pub struct CallDelta<'a> {
    /// Which call of the message.
    pub index: usize,
    /// First delta only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<&'a str>,
    /// First delta only.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<&'static str>,
    /// A function's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub function: Option<FunctionDelta<'a>>,
    /// A custom tool's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub custom: Option<CustomDelta<'a>>,
    /// The call's signature, once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub extra_content: Option<Extra<'a>>,
}

/// A function's name, then its arguments.
#[derive(Debug, Default, serde::Serialize)]
pub struct FunctionDelta<'a> {
    /// First delta only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<Text<'a>>,
    /// JSON in a string.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub arguments: Option<Text<'a>>,
}

/// A custom tool's name, then its input.
#[derive(Debug, Default, serde::Serialize)]
pub struct CustomDelta<'a> {
    /// First delta only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<Text<'a>>,
    /// Free text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input: Option<Text<'a>>,
}

/// A picture, in the extension that routers share.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Image<'a> {
    /// So that helpers which merge lists can.
    pub index: usize,
    /// `image_url`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// The picture.
    pub image_url: ImageUrl<'a>,
    /// The picture's signature.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub extra_content: Option<Extra<'a>>,
}

/// A picture's address.
#[derive(Clone, Debug, serde::Serialize)]
pub struct ImageUrl<'a> {
    /// A `data:` URL.
    pub url: Text<'a>,
}

/// A piece of sound.
#[derive(Debug, Default, serde::Serialize)]
pub struct AudioDelta<'a> {
    /// First delta only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<&'a str>,
    /// Base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<Text<'a>>,
    /// Unix seconds; last delta only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<u64>,
}

/// A whole reply.
#[derive(Debug, serde::Serialize)]
pub struct Completion<'a> {
    /// `chatcmpl-…`
    pub id: &'a str,
    /// `chat.completion`
    pub object: &'static str,
    /// Unix seconds.
    pub created: u64,
    /// What the client asked for.
    pub model: &'a str,
    /// The answers.
    pub choices: Vec<Choice<'a>>,
    /// The counts.
    pub usage: UsageObject,
    /// The tier that served it, where Google says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_tier: Option<&'static str>,
    /// Deprecated.
    pub system_fingerprint: (),
}

/// One answer.
#[derive(Debug, serde::Serialize)]
pub struct Choice<'a> {
    /// Its number.
    pub index: usize,
    /// What was said.
    pub message: Message<'a>,
    /// Probabilities, if asked for.
    pub logprobs: Option<Logprobs<Box<RawValue>>>,
    /// Why it ended.
    pub finish_reason: &'static str,
    /// Google's own reason where it says more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub extra_content: Option<Extra<'a>>,
}

/// What was said.
#[derive(Debug, serde::Serialize)]
pub struct Message<'a> {
    /// `assistant`
    pub role: &'static str,
    /// Text; `null` when only calls were made.
    pub content: Option<&'a Token>,
    /// Why nothing is said.
    pub refusal: Option<&'a str>,
    /// Thoughts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasoning_content: Option<&'a Token>,
    /// Sources.
    pub annotations: Vec<Annotation<'a>>,
    /// Calls.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<Call<'a>>,
    /// The deprecated form.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub function_call: Option<FunctionText<'a>>,
    /// Pictures.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<Image<'a>>,
    /// Sound.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audio: Option<Audio<'a>>,
    /// Signature of the text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub extra_content: Option<Extra<'a>>,
}

/// `tool_calls[]`.
#[derive(Debug, serde::Serialize)]
pub struct Call<'a> {
    /// Its id.
    pub id: &'a str,
    /// `function` or `custom`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// A function's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub function: Option<FunctionText<'a>>,
    /// A custom tool's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub custom: Option<CustomText<'a>>,
    /// Its signature.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub extra_content: Option<Extra<'a>>,
}

/// A function call.
#[derive(Debug, serde::Serialize)]
pub struct FunctionText<'a> {
    /// The function.
    pub name: &'a str,
    /// JSON in a string.
    pub arguments: &'a Token,
}

/// A custom tool's call.
#[derive(Debug, serde::Serialize)]
pub struct CustomText<'a> {
    /// The tool.
    pub name: &'a str,
    /// Free text.
    pub input: &'a Token,
}

/// Sound, whole.
#[derive(Debug, serde::Serialize)]
pub struct Audio<'a> {
    /// Its id.
    pub id: &'a str,
    /// Base64.
    pub data: String,
    /// Unix seconds.
    pub expires_at: u64,
    /// Gemini gives none.
    pub transcript: &'static str,
}
