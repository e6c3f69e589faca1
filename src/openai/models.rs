//! `/v1/models`.

use serde::{Deserialize, Serialize};

/// One model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Model {
    /// What to put in a request's `model`.
    pub id: String,
    /// Always `model`.
    pub object: ModelTag,
    /// Unix seconds; 0 where nobody knows.
    pub created: u64,
    /// Who made it.
    pub owned_by: String,
    /// Tokens in. `OpenAI` has no such key; clients that know it spare their users a guess.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context_window: Option<u64>,
    /// Tokens out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_output_tokens: Option<u64>,
}

impl Model {
    /// A model of Google's of which nothing but the name is known.
    pub fn google(id: impl Into<String>) -> Self {
        Self {
            id: id.into(),
            object: ModelTag::Model,
            created: 0,
            owned_by: "google".to_owned(),
            context_window: None,
            max_output_tokens: None,
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
