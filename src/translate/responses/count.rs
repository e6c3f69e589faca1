//! How many tokens a request would send.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Kind, Origin, Result};
use crate::gemini::answer::Count;
use crate::gemini::ask::{Content, GenerateRequest, GenerationConfig, SystemInstruction, Tool};
use crate::translate::{Backend, Target};

/// `CountTokensRequest`: each surface has its own form.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum Question<'q, 'a> {
    /// The Gemini API takes the request whole.
    Whole {
        /// The request.
        #[serde(rename = "generateContentRequest")]
        request: Named<'q, 'a>,
    },
    /// Vertex AI takes what counts.
    Parts(Parts<'q, 'a>),
}

/// A request that names its model.
#[derive(Debug, Serialize)]
pub struct Named<'q, 'a> {
    /// `models/…`
    pub model: String,
    /// The request.
    #[serde(flatten)]
    pub request: &'q GenerateRequest<'a>,
}

/// What counts.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Parts<'q, 'a> {
    /// The system's words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub system_instruction: Option<&'q SystemInstruction<'a>>,
    /// The tools.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub tools: &'q [Tool<'a>],
    /// How to answer: a schema counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generation_config: Option<&'q GenerationConfig<'a>>,
    /// The turns.
    pub contents: &'q [Content<'a>],
}

impl<'q, 'a> Question<'q, 'a> {
    /// The question about a request for one target.
    pub fn new(request: &'q GenerateRequest<'a>, target: &Target<'_>) -> Self {
        match target.backend {
            Backend::GeminiApi => {
                Self::Whole { request: Named { model: format!("models/{}", target.model), request } }
            }
            Backend::Vertex => Self::Parts(Parts {
                system_instruction: request.system_instruction.as_ref(),
                tools: &request.tools,
                generation_config: request.generation_config.as_ref(),
                contents: &request.contents,
            }),
        }
    }
}

/// The client's reply to Google's answer.
///
/// # Errors
/// When the answer cannot be read.
pub fn reply(answer: &[u8]) -> Result<Vec<u8>> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Counted {
        #[serde(default)]
        total_tokens: Option<Count>,
    }
    #[derive(Serialize)]
    struct Reply {
        object: &'static str,
        input_tokens: u64,
    }
    let counted: Counted = serde_json::from_slice(answer).map_err(|error| {
        Error::new(Kind::UpstreamBroken, Origin::Upstream, "Google's count could not be read.").because(error)
    })?;
    let input_tokens = counted.total_tokens.unwrap_or_default().0;
    serde_json::to_vec(&Reply { object: "response.input_tokens", input_tokens }).map_err(Error::internal)
}
