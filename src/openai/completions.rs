//! Legacy completions: `/v1/completions`.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::completion::{Number, Token, UsageObject};
use crate::wire::{Text, Unknown};

/// A request for text that follows a text.
#[derive(Debug, Deserialize)]
pub struct Request<'a> {
    /// The model as the client names it; may be left out where an Azure deployment in the path stands for it.
    #[serde(borrow)]
    pub model: Option<Cow<'a, str>>,
    /// A string, a list of strings, a list of tokens, a list of lists of tokens.
    #[serde(borrow)]
    pub prompt: Option<&'a RawValue>,
    /// Text that follows the completion.
    #[serde(borrow)]
    pub suffix: Option<Text<'a>>,
    /// Of how many completions the best are given.
    pub best_of: Option<i64>,
    /// Whether the prompt is given again before the completion.
    pub echo: Option<bool>,
    /// 0 to 5: how many alternatives for each token.
    pub logprobs: Option<i64>,
    /// 16, where nothing is said.
    pub max_tokens: Option<i64>,
    /// Choices for each prompt.
    pub n: Option<i64>,
    /// A string or a list of strings.
    #[serde(borrow)]
    pub stop: Option<&'a RawValue>,
    /// Whether the answer comes as server-sent events.
    pub stream: Option<bool>,
    /// Options that make sense with `stream` only.
    #[serde(borrow)]
    pub stream_options: Option<&'a RawValue>,
    /// For repeatable sampling.
    pub seed: Option<i64>,
    /// 0 to 2.
    pub temperature: Option<f64>,
    /// 0 to 1.
    pub top_p: Option<f64>,
    /// An extension that many clients send.
    pub top_k: Option<i64>,
    /// −2 to 2.
    pub presence_penalty: Option<f64>,
    /// −2 to 2.
    pub frequency_penalty: Option<f64>,
    /// Biases by token id.
    #[serde(borrow)]
    pub logit_bias: Option<&'a RawValue>,
    /// The end user.
    #[serde(borrow)]
    pub user: Option<Text<'a>>,
    /// An extension: how much to think; as little as the model can, where nothing is said.
    #[serde(borrow)]
    pub reasoning_effort: Option<Text<'a>>,
    /// An extension: which of OpenAI's encodings token arrays are in.
    #[serde(borrow)]
    pub encoding: Option<Text<'a>>,
    /// Safety settings in Google's own form.
    #[serde(borrow)]
    pub safety_settings: Option<&'a RawValue>,
    /// Google's extensions, as in Chat Completions.
    #[serde(borrow)]
    pub extra_body: Option<&'a RawValue>,
    /// The same one level up.
    #[serde(borrow)]
    pub google: Option<&'a RawValue>,
    /// Every other field that came.
    #[serde(flatten)]
    pub unknown: Unknown,
}

/// `text_completion`, whole or a piece of a stream.
#[derive(Debug, Serialize)]
pub struct Completion<'a, C> {
    /// `cmpl-…`
    pub id: &'a str,
    /// `text_completion`
    pub object: &'static str,
    /// Unix seconds.
    pub created: u64,
    /// As the client named it.
    pub model: &'a str,
    /// The choices, prompt by prompt.
    pub choices: C,
    /// The counts.
    pub usage: UsageObject,
}

/// One choice.
#[derive(Debug, Serialize)]
pub struct Choice<'a> {
    /// Its number among all.
    pub index: usize,
    /// The text.
    pub text: &'a Token,
    /// Probabilities, where they were asked for.
    pub logprobs: Option<&'a Logprobs<'a>>,
    /// Why it ended; nothing before it has.
    pub finish_reason: Option<&'static str>,
}

/// Probabilities, side by side.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Logprobs<'a> {
    /// The tokens.
    #[serde(borrow)]
    pub tokens: Vec<Text<'a>>,
    /// How likely each was.
    #[serde(borrow)]
    pub token_logprobs: Vec<Number<'a>>,
    /// What else was likely, by token; nothing where no alternatives were asked for.
    #[serde(borrow)]
    pub top_logprobs: Option<Vec<Alternatives<'a>>>,
    /// Where each token begins, in characters of the text.
    pub text_offset: Vec<usize>,
}

/// An object of tokens and their probabilities.
#[derive(Debug, Default)]
pub struct Alternatives<'a>(pub Vec<(Text<'a>, Number<'a>)>);

impl Serialize for Alternatives<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(token, number)| (token.decode(), number)))
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Alternatives<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = Alternatives<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("tokens and numbers")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut pairs = Vec::new();
                while let Some((token, number)) = map.next_entry::<String, Number<'de>>()? {
                    pairs.push((Text::plain(token), number));
                }
                Ok(Alternatives(pairs))
            }
        }
        deserializer.deserialize_map(Pairs)
    }
}
