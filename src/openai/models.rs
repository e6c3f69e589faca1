//! `/v1/models`.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

/// One model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Model {
    /// What to put in a request's `model`.
    pub id: String,
    /// Always `model`.
    pub object: ModelTag,
    /// Unix seconds; 0 where nobody knows.
    pub created: u64,
    /// Who made it.
    pub owned_by: String,
    /// The day on which it ends, if one is known.
    pub shutdown_date: Option<String>,
    /// Tokens in. `OpenAI` has no such key; clients that know it spare their users a guess.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context_window: Option<u64>,
    /// Tokens out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_output_tokens: Option<u64>,
    /// What it reads and writes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub modalities: Option<Modalities>,
    /// What it costs, as the price list of this gateway has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pricing: Option<Pricing>,
}

/// What a model reads and writes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Modalities {
    /// `text`, `image`, `audio`, `video`, `file`.
    pub input: Vec<String>,
    /// `text`, `image`, `audio`, `embedding`.
    pub output: Vec<String>,
}

/// What a model costs; more for some modalities and long prompts, which the list of prices knows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pricing {
    /// `USD`
    pub currency: Cow<'static, str>,
    /// Of how many tokens the numbers speak.
    pub per_tokens: u32,
    /// Text in.
    pub input: f64,
    /// Text that was in a cache.
    pub cached_input: f64,
    /// Text out.
    pub output: f64,
}

impl Model {
    /// A model of Google's of which nothing but the name is known.
    pub fn google(id: impl Into<String>) -> Self {
        Self {
            id: id.into(),
            object: ModelTag::Model,
            created: 0,
            owned_by: "google".to_owned(),
            shutdown_date: None,
            context_window: None,
            max_output_tokens: None,
            modalities: None,
            pricing: None,
        }
    }
}

/// The `object` of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ModelTag {
    /// `model`
    Model,
}

/// All models.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelList {
    /// Always `list`.
    pub object: ListTag,
    /// The models.
    pub data: Vec<Model>,
}

impl ModelList {
    /// A list of these.
    pub fn new(data: Vec<Model>) -> Self {
        Self { object: ListTag::List, data }
    }
}

/// The `object` of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ListTag {
    /// `list`
    List,
}
