//! What a batch took, read from what Google shows of it.

use serde::Deserialize;

use crate::gemini::answer::UsageMetadata;
use crate::translate::counts::Counts;
use crate::usage::{Tier, Usage};

/// What all answers of a batch took; nothing before there are any.
pub(super) fn usage(shown: &[u8]) -> Option<Usage> {
    serde_json::from_slice::<Shown<'_>>(shown).ok()?.usage()
}

/// A batch, as far as it tells what it took. Google tells the same twice; one of them counts.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Shown<'b> {
    #[serde(borrow)]
    response: Option<Output<'b>>,
    #[serde(borrow)]
    metadata: Option<Metadata<'b>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Metadata<'b> {
    #[serde(borrow)]
    output: Option<Output<'b>>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Output<'b> {
    #[serde(borrow)]
    inlined_responses: Option<Inlined<'b>>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Inlined<'b> {
    #[serde(borrow)]
    inlined_responses: Vec<One<'b>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct One<'b> {
    #[serde(borrow)]
    response: Option<Answer<'b>>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Answer<'b> {
    #[serde(borrow)]
    usage_metadata: Option<UsageMetadata<'b>>,
}

impl Shown<'_> {
    fn usage(&self) -> Option<Usage> {
        let told = self.metadata.as_ref().and_then(|metadata| metadata.output.as_ref());
        let output = self.response.as_ref().or(told)?;
        let mut sum = Usage::default();
        for one in &output.inlined_responses.as_ref()?.inlined_responses {
            if let Some(said) = one.response.as_ref().and_then(|answer| answer.usage_metadata.as_ref()) {
                let mut counts = Counts::default();
                counts.take(said);
                sum.add(&counts.usage());
            }
        }
        sum.tier = Tier::Batch;
        Some(sum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_counted_once_though_google_tells_it_twice() {
        let one = r#"{"response":{"candidates":[{}],"usageMetadata":{"promptTokenCount":5,"candidatesTokenCount":2}}}"#;
        let output = format!(
            r#"{{"inlinedResponses":{{"inlinedResponses":[{one},{one},{{"error":{{"code":3}}}}]}}}}"#
        );
        let text = format!(
            r#"{{"name":"batches/x","metadata":{{"state":"BATCH_STATE_SUCCEEDED","output":{output}}},"done":true,"response":{output}}}"#
        );
        let usage = usage(text.as_bytes()).unwrap();
        assert_eq!((usage.input, usage.output, usage.tier), (10, 4, Tier::Batch));
        let begun = br#"{"name":"batches/x","metadata":{"state":"BATCH_STATE_PENDING"}}"#;
        assert_eq!(super::usage(begun), None);
    }
}
