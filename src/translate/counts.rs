//! Token counts in both dialects.

use super::finish::Finish;
use crate::gemini::answer::{Count, List, ModalityCount, UsageMetadata, each};
use crate::openai::completion::{CompletionDetails, Kinds, PromptDetails, UsageObject};
use crate::usage::{ByModality, Modality, Tier, Usage};
use crate::wire::Text;

/// The counts of one stream. Every event may repeat the running totals, whole or in part: the last word on each
/// number counts, and nothing is ever summed but the hops of a long answer, which are requests of their own.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    prompt: Option<u64>,
    cached: Option<u64>,
    candidates: Option<u64>,
    thoughts: Option<u64>,
    tool_use: Option<u64>,
    total: Option<u64>,
    by: Usage,
    tier: Option<&'static str>,
    hops: Option<Usage>,
    /// Bytes of what was said since the candidates were counted last.
    said: u64,
}

impl From<&Usage> for Counts {
    /// What was counted before.
    fn from(usage: &Usage) -> Self {
        Self { hops: Some(*usage), ..Self::default() }
    }
}

impl Counts {
    /// Takes what one event says.
    pub fn take(&mut self, said: &UsageMetadata<'_>) {
        let tier = said.service_tier.as_ref().or(said.traffic_type.as_ref()).map(Text::decode);
        if let Some(tier) = tier {
            self.by.tier = Tier::from_google(&tier);
            self.tier = service_tier(&tier).or(self.tier);
        }
        if said.candidates_token_count.is_some() {
            self.said = 0;
        }
        latest(&mut self.prompt, said.prompt_token_count);
        latest(&mut self.cached, said.cached_content_token_count);
        latest(&mut self.candidates, said.candidates_token_count);
        latest(&mut self.thoughts, said.thoughts_token_count);
        latest(&mut self.tool_use, said.tool_use_prompt_token_count);
        latest(&mut self.total, said.total_token_count);
        breakdown(&mut self.by.input_by, &said.prompt_tokens_details);
        breakdown(&mut self.by.cached_by, &said.cache_tokens_details);
        breakdown(&mut self.by.output_by, &said.candidates_tokens_details);
        breakdown(&mut self.by.tool_use_by, &said.tool_use_prompt_tokens_details);
    }

    /// Takes the reason why a candidate ended: those that nobody knows are counted.
    pub fn ended(&mut self, native: &str) {
        self.by.odd_end |= !Finish::known(native);
    }

    /// So many bytes of an answer came along, in an event whose own counts are told after this.
    pub fn said(&mut self, bytes: usize) {
        self.said = self.said.saturating_add(bytes as u64);
    }

    /// Tokens of what was said and not counted, about: four bytes each.
    pub fn uncounted(&self) -> u64 {
        self.said.div_ceil(4)
    }

    /// The tier that served it, in the client's words.
    pub fn tier(&self) -> Option<&'static str> {
        self.tier
    }

    /// What follows belongs to another request that continues the answer.
    pub fn next_hop(&mut self) {
        *self = Self { hops: Some(self.usage()), tier: self.tier, ..Self::default() };
    }

    /// Adds the counts of another request to these.
    pub fn join(&mut self, other: &Self) {
        let mut sum = other.usage();
        if self.known() {
            sum.add(&self.usage());
        }
        *self = Self { hops: Some(sum), tier: other.tier.or(self.tier), ..Self::default() };
    }

    /// Whether Google has said anything.
    pub fn known(&self) -> bool {
        self.hops.is_some() || self.prompt.is_some() || self.total.is_some() || self.candidates.is_some()
    }

    /// The counts as the gateway keeps them.
    pub fn usage(&self) -> Usage {
        let input = self.prompt.unwrap_or(0);
        let thoughts = self.thoughts.unwrap_or(0);
        let tool_use = self.tool_use.unwrap_or(0);
        let candidates = self.candidates.unwrap_or(0);
        // Some reports count thoughts as visible output too; then the total betrays it.
        let without_thoughts = input.saturating_add(candidates).saturating_add(tool_use);
        let inclusive = thoughts > 0 && candidates >= thoughts && self.total == Some(without_thoughts);
        let mut usage = Usage {
            input,
            cached: self.cached.unwrap_or(0).min(input),
            output: if inclusive { candidates - thoughts } else { candidates },
            thoughts,
            tool_use,
            estimated: !self.known(),
            ..self.by
        };
        if let Some(before) = &self.hops {
            usage.add(before);
        }
        usage
    }
}

fn latest(kept: &mut Option<u64>, said: Option<Count>) {
    // Beyond this no sum of ours is safe, and no model is near.
    const MOST: u64 = 1 << 48;
    if let Some(Count(count)) = said {
        *kept = Some(count.min(MOST));
    }
}

#[expect(clippy::ref_option, reason = "the alias for lists is an option")]
fn breakdown(kept: &mut ByModality, said: &List<ModalityCount<'_>>) {
    if said.as_ref().is_none_or(Vec::is_empty) {
        return;
    }
    *kept = ByModality::default();
    for count in each(said) {
        let modality =
            count.modality.as_ref().map_or(Modality::Other, |m| Modality::from_google(&m.decode()));
        let slot = &mut kept[modality];
        *slot = slot.saturating_add(count.token_count.unwrap_or_default().0.min(1 << 48));
    }
}

/// The client's `usage`: the parts always add up to the total.
pub fn object(usage: &Usage) -> UsageObject {
    UsageObject {
        prompt_tokens: usage.prompt(),
        completion_tokens: usage.completion(),
        total_tokens: usage.total(),
        prompt_tokens_details: PromptDetails {
            cached_tokens: usage.cached,
            audio_tokens: usage.input_by[Modality::Audio],
            kinds: kinds(&usage.input_by),
            tool_use_tokens: usage.tool_use,
        },
        completion_tokens_details: CompletionDetails {
            reasoning_tokens: usage.thoughts,
            audio_tokens: usage.output_by[Modality::Audio],
            accepted_prediction_tokens: 0,
            rejected_prediction_tokens: 0,
            kinds: kinds(&usage.output_by),
        },
    }
}

/// Counts as Google writes them, for events of which the translator must believe that they come from one request.
pub fn metadata(counts: &Counts) -> String {
    let usage = counts.usage();
    let details = |by: &ByModality| {
        let each = Modality::ALL.iter().filter(|modality| by[**modality] > 0);
        let each = each.map(|modality| {
            let name = modality.as_str().to_ascii_uppercase();
            serde_json::json!({ "modality": name, "tokenCount": by[*modality] })
        });
        each.collect::<serde_json::Value>()
    };
    serde_json::json!({
        "promptTokenCount": usage.input,
        "cachedContentTokenCount": usage.cached,
        "candidatesTokenCount": usage.output,
        "thoughtsTokenCount": usage.thoughts,
        "toolUsePromptTokenCount": usage.tool_use,
        "totalTokenCount": usage.total(),
        "promptTokensDetails": details(&usage.input_by),
        "cacheTokensDetails": details(&usage.cached_by),
        "candidatesTokensDetails": details(&usage.output_by),
        "toolUsePromptTokensDetails": details(&usage.tool_use_by),
        "serviceTier": counts.tier(),
    })
    .to_string()
}

fn kinds(by: &ByModality) -> Kinds {
    Kinds {
        text_tokens: by[Modality::Text],
        image_tokens: by[Modality::Image],
        video_tokens: by[Modality::Video],
        document_tokens: by[Modality::Document],
    }
}

/// The client's `service_tier`, from what Google says in the counts or in `x-gemini-service-tier`.
/// A word that is new says nothing: the client's set is closed.
pub fn service_tier(said: &str) -> Option<&'static str> {
    let said = said.to_ascii_lowercase();
    Some(match said.strip_prefix("service_tier_").unwrap_or(&said) {
        "standard" | "default" | "on_demand" => "default",
        "flex" | "on_demand_flex" => "flex",
        "priority" | "on_demand_priority" => "priority",
        "provisioned_throughput" | "scale" => "scale",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(events: &[&str]) -> Usage {
        let mut counts = Counts::default();
        for event in events {
            counts.take(&serde_json::from_str(event).unwrap());
        }
        counts.usage()
    }

    #[test]
    fn tool_tokens_are_prompt_and_thoughts_are_completion() {
        let usage =
            counts(&[r#"{"promptTokenCount":100,"cachedContentTokenCount":60,"candidatesTokenCount":5,
            "thoughtsTokenCount":20,"toolUsePromptTokenCount":30,"totalTokenCount":155}"#]);
        assert_eq!((usage.prompt(), usage.completion(), usage.total()), (130, 25, 155));
        assert_eq!(usage.cached, 60);
    }

    #[test]
    fn thoughts_inside_the_candidates_are_taken_out() {
        let usage = counts(&[r#"{"promptTokenCount":10,"candidatesTokenCount":30,"thoughtsTokenCount":20,
            "totalTokenCount":40}"#]);
        assert_eq!((usage.output, usage.thoughts, usage.total()), (10, 20, 40));
    }

    #[test]
    fn the_tier_that_served_sets_the_price() {
        let tier = |said: &str| counts(&[said, r#"{"promptTokenCount":10,"candidatesTokenCount":3}"#]).tier;
        assert_eq!(tier(r#"{"trafficType":"ON_DEMAND_FLEX"}"#), Tier::Flex);
        assert_eq!(tier(r#"{"trafficType":"ON_DEMAND_PRIORITY"}"#), Tier::Priority);
        assert_eq!(tier(r#"{"serviceTier":"priority"}"#), Tier::Priority);
        assert_eq!(tier(r#"{"trafficType":"PROVISIONED_THROUGHPUT"}"#), Tier::Standard);
        assert_eq!(tier("{}"), Tier::Standard);
    }

    #[test]
    fn a_hop_keeps_the_tier_and_a_mixture_has_the_dearest() {
        let mut all = Counts::default();
        all.take(&serde_json::from_str(r#"{"promptTokenCount":1,"serviceTier":"flex"}"#).unwrap());
        all.next_hop();
        assert_eq!(all.usage().tier, Tier::Flex);
        all.take(&serde_json::from_str(r#"{"promptTokenCount":1,"serviceTier":"standard"}"#).unwrap());
        assert_eq!(all.usage().tier, Tier::Standard);
        let (mut again, told) = (Counts::default(), metadata(&all));
        again.take(&serde_json::from_str(&told).unwrap());
        assert_eq!(again.tier(), Some("default"));
    }

    #[test]
    fn the_last_word_counts_even_when_it_is_smaller() {
        let usage = counts(&[
            r#"{"promptTokenCount":10,"candidatesTokenCount":30,"thoughtsTokenCount":7}"#,
            r#"{"promptTokenCount":10,"candidatesTokenCount":8,"thoughtsTokenCount":null}"#,
        ]);
        assert_eq!((usage.output, usage.thoughts), (8, 7));
    }

    #[test]
    fn what_was_said_after_the_last_count_is_estimated() {
        let mut counts = Counts::default();
        let take = |counts: &mut Counts, text: &str| counts.take(&serde_json::from_str(text).unwrap());
        counts.said(10);
        take(&mut counts, r#"{"promptTokenCount":5,"totalTokenCount":5}"#);
        counts.said(6);
        assert_eq!((counts.usage().output, counts.uncounted()), (0, 4));
        counts.said(6);
        take(&mut counts, r#"{"promptTokenCount":5,"candidatesTokenCount":4}"#);
        assert_eq!((counts.usage().output, counts.uncounted()), (4, 0));
    }
}
