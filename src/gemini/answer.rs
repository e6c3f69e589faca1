//! What Gemini answers.
//!
//! Everything is optional and nothing is trusted: `null` stands for absent, proto3 zeros are left out by Google,
//! numbers may come as strings, and fields or enum members of tomorrow are read over.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::plain;
use crate::wire::Text;

/// A list in which any element, and the list itself, may be `null`.
pub type List<T> = Option<Vec<Option<T>>>;

/// The elements of a [`List`] that are there.
pub fn each<T>(list: &List<T>) -> impl Iterator<Item = &T> {
    list.iter().flatten().flatten()
}

/// `GenerateContentResponse`, or one event of its stream.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GenerateResponse<'a> {
    /// The answers; missing when the prompt was blocked, or in events that only count.
    #[serde(borrow)]
    pub candidates: List<Candidate<'a>>,
    /// Why the prompt was blocked.
    #[serde(borrow)]
    pub prompt_feedback: Option<PromptFeedback<'a>>,
    /// The counts so far.
    #[serde(borrow)]
    pub usage_metadata: Option<UsageMetadata<'a>>,
    /// Which HTTP answer this belongs to.
    #[serde(borrow)]
    pub response_id: Option<Text<'a>>,
    /// Google's error in place of an answer.
    #[serde(borrow)]
    pub error: Option<&'a RawValue>,
}

impl<'a> GenerateResponse<'a> {
    /// Reads an answer: a usual one by hand, any other by `serde`.
    ///
    /// # Errors
    /// When it is not JSON, or a field is not what it should be.
    pub fn read(text: &'a str) -> Result<Self, serde_json::Error> {
        match plain::read(text) {
            Some(answer) => Ok(answer),
            None => serde_json::from_str(text),
        }
    }
}

/// One of the answers.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Candidate<'a> {
    /// Its number; absent means 0.
    pub index: Option<Count>,
    /// The parts, new ones only in a stream.
    #[serde(borrow)]
    pub content: Option<Content<'a>>,
    /// Why it ended.
    #[serde(borrow)]
    pub finish_reason: Option<Text<'a>>,
    /// More about why it ended.
    #[serde(borrow)]
    pub finish_message: Option<Text<'a>>,
    /// Probabilities of the tokens.
    #[serde(borrow)]
    pub logprobs_result: Option<LogprobsResult<'a>>,
    /// Sources.
    #[serde(borrow)]
    pub grounding_metadata: Option<GroundingMetadata<'a>>,
    /// What was said nearly as somebody else had said it.
    #[serde(borrow)]
    pub citation_metadata: Option<CitationMetadata<'a>>,
}

/// A turn.
#[derive(Debug, Default, serde::Deserialize)]
pub struct Content<'a> {
    /// What it is made of.
    #[serde(borrow)]
    pub parts: List<Part<'a>>,
}

/// A piece of a turn. Not an enum: text, thought and signature combine.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Part<'a> {
    /// Text, a delta in streams.
    #[serde(borrow)]
    pub text: Option<Text<'a>>,
    /// The text is a summary of thoughts.
    pub thought: Option<bool>,
    /// To be sent back with this part.
    #[serde(borrow)]
    pub thought_signature: Option<Text<'a>>,
    /// A call.
    #[serde(borrow)]
    pub function_call: Option<FunctionCall<'a>>,
    /// An image or sound.
    #[serde(borrow)]
    pub inline_data: Option<Blob<'a>>,
    /// A file somewhere.
    #[serde(borrow)]
    pub file_data: Option<FileData<'a>>,
    /// Code that Google ran.
    #[serde(borrow)]
    pub executable_code: Option<ExecutableCode<'a>>,
    /// What that code printed.
    #[serde(borrow)]
    pub code_execution_result: Option<CodeExecutionResult<'a>>,
    /// A server-side tool's call, to be sent back as it is.
    #[serde(borrow)]
    pub tool_call: Option<&'a RawValue>,
    /// A server-side tool's result, to be sent back as it is.
    #[serde(borrow)]
    pub tool_response: Option<&'a RawValue>,
}

/// A call, whole or (Vertex, on request) in fragments.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FunctionCall<'a> {
    /// Its id, from Gemini 3 on.
    #[serde(borrow)]
    pub id: Option<Text<'a>>,
    /// The function.
    #[serde(borrow)]
    pub name: Option<Text<'a>>,
    /// The arguments as they came, digits and all.
    #[serde(borrow)]
    pub args: Option<&'a RawValue>,
    /// Fragments of arguments.
    #[serde(borrow)]
    pub partial_args: List<PartialArg<'a>>,
    /// More fragments follow.
    pub will_continue: Option<bool>,
}

/// A fragment of a call's arguments.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PartialArg<'a> {
    /// Where it belongs (`$.a.b[0]`).
    #[serde(borrow)]
    pub json_path: Option<Text<'a>>,
    /// A piece of a string.
    #[serde(borrow)]
    pub string_value: Option<Text<'a>>,
    /// A number.
    #[serde(borrow)]
    pub number_value: Option<&'a RawValue>,
    /// A truth value.
    pub bool_value: Option<bool>,
}

/// Bytes in base64.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Blob<'a> {
    /// Media type.
    #[serde(borrow)]
    pub mime_type: Option<Text<'a>>,
    /// Base64.
    #[serde(borrow)]
    pub data: Option<Text<'a>>,
}

/// A file by address.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FileData<'a> {
    /// Media type.
    #[serde(borrow)]
    pub mime_type: Option<Text<'a>>,
    /// Address.
    #[serde(borrow)]
    pub file_uri: Option<Text<'a>>,
}

/// Code.
#[derive(Debug, Default, serde::Deserialize)]
pub struct ExecutableCode<'a> {
    /// Its id, from Gemini 3 on.
    #[serde(borrow)]
    pub id: Option<Text<'a>>,
    /// `PYTHON`.
    #[serde(borrow)]
    pub language: Option<Text<'a>>,
    /// The code.
    #[serde(borrow)]
    pub code: Option<Text<'a>>,
}

/// What code printed.
#[derive(Debug, Default, serde::Deserialize)]
pub struct CodeExecutionResult<'a> {
    /// The id of the code that it came of.
    #[serde(borrow)]
    pub id: Option<Text<'a>>,
    /// `OUTCOME_OK` and others.
    #[serde(borrow)]
    pub outcome: Option<Text<'a>>,
    /// Standard output, or the failure.
    #[serde(borrow)]
    pub output: Option<Text<'a>>,
}

/// Why a prompt was blocked.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PromptFeedback<'a> {
    /// The reason; absent when nothing was blocked.
    #[serde(borrow)]
    pub block_reason: Option<Text<'a>>,
    /// More about it.
    #[serde(borrow)]
    pub block_reason_message: Option<Text<'a>>,
}

/// Token counts: running totals of one HTTP request.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UsageMetadata<'a> {
    /// The prompt, cached part included.
    pub prompt_token_count: Option<Count>,
    /// The cached part.
    pub cached_content_token_count: Option<Count>,
    /// Visible output.
    pub candidates_token_count: Option<Count>,
    /// Thoughts.
    pub thoughts_token_count: Option<Count>,
    /// What server tools fed back.
    pub tool_use_prompt_token_count: Option<Count>,
    /// All of them.
    pub total_token_count: Option<Count>,
    /// The prompt by modality.
    #[serde(borrow)]
    pub prompt_tokens_details: List<ModalityCount<'a>>,
    /// The cached part by modality.
    #[serde(borrow)]
    pub cache_tokens_details: List<ModalityCount<'a>>,
    /// The output by modality.
    #[serde(borrow)]
    pub candidates_tokens_details: List<ModalityCount<'a>>,
    /// Tool results by modality.
    #[serde(borrow)]
    pub tool_use_prompt_tokens_details: List<ModalityCount<'a>>,
    /// Gemini API: the tier that served it.
    #[serde(borrow)]
    pub service_tier: Option<Text<'a>>,
    /// Vertex AI: the same in other words.
    #[serde(borrow)]
    pub traffic_type: Option<Text<'a>>,
}

impl<'a> UsageMetadata<'a> {
    /// Reads the counts that a text begins with, and tells how long they are; nothing where they are not the usual ones,
    /// which is for `serde` to read.
    pub fn usual(text: &'a str) -> Option<(Self, usize)> {
        plain::metadata(text)
    }
}

/// A count of one modality.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ModalityCount<'a> {
    /// `TEXT`, `IMAGE`, …
    #[serde(borrow)]
    pub modality: Option<Text<'a>>,
    /// How many.
    pub token_count: Option<Count>,
}

/// Probabilities.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LogprobsResult<'a> {
    /// What was chosen, step by step.
    #[serde(borrow)]
    pub chosen_candidates: List<LogprobsCandidate<'a>>,
    /// What else was likely, step by step.
    #[serde(borrow)]
    pub top_candidates: List<TopCandidates<'a>>,
}

/// The likeliest tokens of one step.
#[derive(Debug, Default, serde::Deserialize)]
pub struct TopCandidates<'a> {
    /// Them.
    #[serde(borrow)]
    pub candidates: List<LogprobsCandidate<'a>>,
}

/// A token and its probability.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LogprobsCandidate<'a> {
    /// The token; absent means empty.
    #[serde(borrow)]
    pub token: Option<Text<'a>>,
    /// Absent means 0, which is certainty.
    #[serde(borrow)]
    pub log_probability: Option<&'a RawValue>,
}

/// Recitations: the Gemini API lists them under one name, Vertex AI under the other.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CitationMetadata<'a> {
    /// Them.
    #[serde(borrow, alias = "citationSources")]
    pub citations: List<Citation<'a>>,
}

/// A stretch of the answer, in UTF-8 bytes, and where it stands elsewhere.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Citation<'a> {
    /// First byte; absent means 0.
    pub start_index: Option<Count>,
    /// Byte behind the last.
    pub end_index: Option<Count>,
    /// Address; code and books may have none.
    #[serde(borrow)]
    pub uri: Option<Text<'a>>,
    /// Title.
    #[serde(borrow)]
    pub title: Option<Text<'a>>,
}

/// Sources of an answer.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GroundingMetadata<'a> {
    /// What was searched for.
    #[serde(borrow)]
    pub web_search_queries: List<Text<'a>>,
    /// The sources.
    #[serde(borrow)]
    pub grounding_chunks: List<GroundingChunk<'a>>,
    /// Which stretch of text rests on which source.
    #[serde(borrow)]
    pub grounding_supports: List<GroundingSupport<'a>>,
}

/// One source.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GroundingChunk<'a> {
    /// A page.
    #[serde(borrow)]
    pub web: Option<SourcePage<'a>>,
    /// A document of the caller.
    #[serde(borrow)]
    pub retrieved_context: Option<SourcePage<'a>>,
    /// A place.
    #[serde(borrow)]
    pub maps: Option<SourcePage<'a>>,
    /// A picture.
    #[serde(borrow)]
    pub image: Option<SourcePage<'a>>,
}

/// Where a source is.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SourcePage<'a> {
    /// Address.
    #[serde(borrow, alias = "sourceUri")]
    pub uri: Option<Text<'a>>,
    /// Title.
    #[serde(borrow)]
    pub title: Option<Text<'a>>,
    /// A document's name, where there is no address.
    #[serde(borrow)]
    pub document_name: Option<Text<'a>>,
    /// The store it was found in.
    #[serde(borrow)]
    pub file_search_store: Option<Text<'a>>,
    /// Site.
    #[serde(borrow)]
    pub domain: Option<Text<'a>>,
}

/// A stretch of text and its sources.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GroundingSupport<'a> {
    /// The stretch.
    #[serde(borrow)]
    pub segment: Option<Segment<'a>>,
    /// Numbers of its sources.
    pub grounding_chunk_indices: List<Count>,
}

/// A stretch of text, in UTF-8 bytes of its part.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Segment<'a> {
    /// The part.
    pub part_index: Option<Count>,
    /// First byte.
    pub start_index: Option<Count>,
    /// Byte behind the last.
    pub end_index: Option<Count>,
    /// The stretch itself.
    #[serde(borrow)]
    pub text: Option<Text<'a>>,
}

/// A whole number from whatever came: number, float, text; negative ones and nonsense are 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count(pub u64);

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Count;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number")
            }
            fn visit_u64<E: de::Error>(self, value: u64) -> Result<Count, E> {
                Ok(Count(value))
            }
            fn visit_i64<E: de::Error>(self, value: i64) -> Result<Count, E> {
                Ok(Count(u64::try_from(value).unwrap_or(0)))
            }
            fn visit_f64<E: de::Error>(self, value: f64) -> Result<Count, E> {
                Ok(Count(whole(value)))
            }
            fn visit_str<E: de::Error>(self, value: &str) -> Result<Count, E> {
                let value = value.trim();
                Ok(Count(value.parse().unwrap_or_else(|_| value.parse().map_or(0, whole))))
            }
            fn visit_bool<E: de::Error>(self, _: bool) -> Result<Count, E> {
                Ok(Count(0))
            }
            fn visit_unit<E: de::Error>(self) -> Result<Count, E> {
                Ok(Count(0))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Count, A::Error> {
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Count(0))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Count, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Count(0))
            }
        }
        deserializer.deserialize_any(Any)
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a float cast saturates, and not-a-number is 0: what is wanted"
)]
fn whole(value: f64) -> u64 {
    value as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nulls_and_strangers_are_read_over() {
        let json = r#"{"candidates":[null,{"index":null,"content":{"parts":[null,{"text":null,"new":{"a":1}}],
            "role":null},"finishReason":"TOMORROW","safetyRatings":null}],"usageMetadata":
            {"promptTokenCount":"12","candidatesTokenCount":-3,"thoughtsTokenCount":1.0,"totalTokenCount":{}},
            "promptFeedback":null,"later":[]}"#;
        let read: GenerateResponse<'_> = serde_json::from_str(json).unwrap();
        let candidate = each(&read.candidates).next().unwrap();
        assert_eq!(candidate.finish_reason.as_ref().unwrap(), "TOMORROW");
        let usage = read.usage_metadata.unwrap();
        assert_eq!(usage.prompt_token_count, Some(Count(12)));
        assert_eq!(usage.candidates_token_count, Some(Count(0)));
        assert_eq!(usage.thoughts_token_count, Some(Count(1)));
        assert_eq!(usage.total_token_count, Some(Count(0)));
        assert!(serde_json::from_str::<GenerateResponse<'_>>("{}").is_ok());
    }
}
