//! Embeddings: what Gemini is asked, and what it answers. Numbers stay text.

use std::borrow::Cow;

use serde::ser::SerializeStruct as _;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::RawValue;

use super::answer::{Count, List, ModalityCount};
use super::ask::Part;
use crate::wire::Text;

/// What one vector is made of.
#[derive(Clone, Debug)]
pub enum Content<'a> {
    /// One text.
    Text(Text<'a>),
    /// Several parts; they give one vector together.
    Parts(Vec<Part<'a>>),
}

impl Serialize for Content<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Said<'t> {
            text: &'t Text<'t>,
        }
        let mut content = serializer.serialize_struct("Content", 1)?;
        match self {
            Self::Text(text) => content.serialize_field("parts", &[Said { text }])?,
            Self::Parts(parts) => content.serialize_field("parts", parts)?,
        }
        content.end()
    }
}

/// `EmbedContentRequest` of the Gemini API.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EmbedRequest<'a> {
    /// `models/…`, the same as in the path.
    pub model: &'a str,
    /// What to embed.
    pub content: &'a Content<'a>,
    /// What for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task_type: Option<&'static str>,
    /// The document's title.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub title: Option<&'a Text<'a>>,
    /// Numbers in a vector.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_dimensionality: Option<u32>,
}

/// `BatchEmbedContentsRequest`.
#[derive(Clone, Debug, Serialize)]
pub struct BatchEmbedRequest<'a> {
    /// One for each vector.
    pub requests: Vec<EmbedRequest<'a>>,
}

/// `EmbedContentRequest` of Vertex AI.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct VertexEmbedRequest<'a> {
    /// What to embed.
    pub content: &'a Content<'a>,
    /// How.
    #[serde(skip_serializing_if = "EmbedConfig::is_empty")]
    pub embed_content_config: EmbedConfig<'a>,
}

/// `EmbedContentConfig`.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EmbedConfig<'a> {
    /// What for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task_type: Option<&'static str>,
    /// The document's title.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub title: Option<&'a Text<'a>>,
    /// Numbers in a vector.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_dimensionality: Option<u32>,
    /// Whether what is too long is cut.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auto_truncate: Option<bool>,
    /// Whether text in pictures is read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub document_ocr: Option<bool>,
    /// Whether a video is heard.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audio_track_extraction: Option<bool>,
}

impl EmbedConfig<'_> {
    fn is_empty(&self) -> bool {
        self.task_type.is_none()
            && self.title.is_none()
            && self.output_dimensionality.is_none()
            && self.auto_truncate.is_none()
            && self.document_ocr.is_none()
            && self.audio_track_extraction.is_none()
    }
}

/// The older `:predict` of Vertex AI.
#[derive(Clone, Debug, Serialize)]
pub struct PredictRequest<'a> {
    /// One for each vector.
    pub instances: Vec<Instance<'a>>,
    /// What holds for all.
    #[serde(skip_serializing_if = "Parameters::is_empty")]
    pub parameters: Parameters,
}

/// One text of a [`PredictRequest`]; these names are in snake case.
#[derive(Clone, Debug, Serialize)]
pub struct Instance<'a> {
    /// The text.
    pub content: &'a Text<'a>,
    /// What for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task_type: Option<&'static str>,
    /// The document's title.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub title: Option<&'a Text<'a>>,
}

/// The parameters of a [`PredictRequest`].
#[derive(Clone, Copy, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Parameters {
    /// Numbers in a vector.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_dimensionality: Option<u32>,
    /// Whether what is too long is cut.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auto_truncate: Option<bool>,
}

impl Parameters {
    fn is_empty(&self) -> bool {
        self.output_dimensionality.is_none() && self.auto_truncate.is_none()
    }
}

/// Any of the three answers: one vector, several, or predictions.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EmbedResponse<'a> {
    /// Of `embedContent`.
    #[serde(borrow)]
    pub embedding: Option<Vector<'a>>,
    /// Of `batchEmbedContents`.
    #[serde(borrow)]
    pub embeddings: Option<Vec<Vector<'a>>>,
    /// Of `predict`.
    #[serde(borrow)]
    pub predictions: Option<Vec<Prediction<'a>>>,
    /// The counts.
    #[serde(borrow)]
    pub usage_metadata: Option<EmbedUsage<'a>>,
    /// Whether the input of `embedContent` was cut.
    pub truncated: Option<bool>,
    /// Google's error in place of an answer.
    #[serde(borrow)]
    pub error: Option<&'a RawValue>,
}

/// One vector.
#[derive(Debug, Deserialize)]
pub struct Vector<'a> {
    /// A list of numbers, as it came.
    #[serde(borrow)]
    pub values: &'a RawValue,
    /// Counts, where `predict` answers.
    pub statistics: Option<Statistics>,
}

/// One prediction.
#[derive(Debug, Deserialize)]
pub struct Prediction<'a> {
    /// Its vector.
    #[serde(borrow)]
    pub embeddings: Vector<'a>,
}

/// What is told of one prediction.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Statistics {
    /// Tokens of the input.
    #[serde(default, alias = "tokenCount")]
    pub token_count: Option<Count>,
    /// Whether it was cut.
    pub truncated: Option<bool>,
}

/// The counts of an embedding; Google writes the breakdown's name in two ways.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EmbedUsage<'a> {
    /// Tokens in.
    pub prompt_token_count: Option<Count>,
    /// Tokens in, where that is all that is told.
    pub total_token_count: Option<Count>,
    /// Tokens in, by modality.
    #[serde(borrow, default, alias = "promptTokenDetails")]
    pub prompt_tokens_details: List<ModalityCount<'a>>,
}

/// A model's name as the Gemini API writes it in bodies.
pub fn model_name(model: &str) -> Cow<'_, str> {
    if model.contains('/') { Cow::Borrowed(model) } else { Cow::Owned(format!("models/{model}")) }
}
