//! `/v1/embeddings`.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::wire::{Text, Unknown};

/// A request for vectors.
#[derive(Debug, Deserialize)]
pub struct Request<'a> {
    /// The model as the client names it; may be left out where an Azure deployment in the path stands for it.
    #[serde(borrow)]
    pub model: Option<Cow<'a, str>>,
    /// A string, a list of strings, a list of tokens, a list of lists of tokens; as an extension also content
    /// parts, alone or in lists, each list of parts being one input.
    #[serde(borrow)]
    pub input: &'a RawValue,
    /// `float` or `base64`.
    #[serde(borrow)]
    pub encoding_format: Option<Text<'a>>,
    /// How many numbers a vector has.
    pub dimensions: Option<i64>,
    /// The end user.
    #[serde(borrow)]
    pub user: Option<Text<'a>>,
    /// An extension: which of OpenAI's encodings token arrays are in (`cl100k_base`, `o200k_base` …).
    #[serde(borrow)]
    pub encoding: Option<Text<'a>>,
    /// An extension: what the vectors are for, in Google's words.
    #[serde(borrow, default, alias = "taskType")]
    pub task_type: Option<Text<'a>>,
    /// An extension: the title of the document, or one for each input.
    #[serde(borrow)]
    pub title: Option<&'a RawValue>,
    /// Google's extensions, as its own layer takes them.
    #[serde(borrow)]
    pub extra_body: Option<ExtraBody<'a>>,
    /// The same one level up, as the Python SDK sends it.
    #[serde(borrow)]
    pub google: Option<Google<'a>>,
    /// Every other field that came.
    #[serde(flatten)]
    pub unknown: Unknown,
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
    /// What the vectors are for.
    #[serde(borrow, default, alias = "taskType")]
    pub task_type: Option<Text<'a>>,
    /// The title of the document, or one for each input.
    #[serde(borrow)]
    pub title: Option<&'a RawValue>,
    /// `false`: refuse what is too long instead of cutting it (Vertex AI).
    #[serde(default, alias = "autoTruncate")]
    pub auto_truncate: Option<bool>,
    /// Read the text in a document's pictures (Vertex AI).
    #[serde(default, alias = "documentOcr")]
    pub document_ocr: Option<bool>,
    /// Hear a video's sound (Vertex AI).
    #[serde(default, alias = "audioTrackExtraction")]
    pub audio_track_extraction: Option<bool>,
    /// Every other field that came.
    #[serde(flatten)]
    pub unknown: Unknown,
}
