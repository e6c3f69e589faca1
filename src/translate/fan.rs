//! Several answers from a model that gives one: the same request several times, for the client one reply.

use bytes::Bytes;

use super::counts::{self, Counts};
use super::splice::{Candidate, Splice, read};
use crate::gemini::answer::each;
use crate::usage::Usage;

/// Makes the events of several requests those of one with several candidates.
#[derive(Debug)]
pub struct Fan {
    counts: Vec<Counts>,
}

impl Fan {
    /// For so many requests.
    pub fn new(branches: usize) -> Self {
        Self { counts: vec![Counts::default(); branches] }
    }

    /// An event (or the whole answer) of one request as the translator is to read it: its candidate has the
    /// request's number, and its counts are those of all requests so far, for each of them is billed.
    pub fn event(&mut self, branch: usize, event: Bytes) -> Bytes {
        let Some((text, read)) = read(&event) else { return event };
        let mut splice = Splice::new(text);
        if let Some(raw) = read.usage_metadata
            && let Ok(said) = serde_json::from_str(raw.get())
            && let Some(counts) = self.counts.get_mut(branch)
        {
            counts.take(&said);
            let mut sum = Counts::default();
            for counts in self.counts.iter().filter(|counts| counts.known()) {
                sum.join(counts);
            }
            splice.replace(raw.get(), counts::metadata(&sum));
        }
        for raw in each(&read.candidates) {
            match serde_json::from_str::<Candidate<'_>>(raw.get()).ok().and_then(|candidate| candidate.index)
            {
                Some(index) => splice.replace(index.get(), branch.to_string()),
                None => splice.insert(raw.get(), &format!("\"index\":{branch}")),
            }
        }
        splice.done().unwrap_or(event)
    }
}

/// Makes the counts of one request those of it and of others before it, whose answers said nothing.
#[derive(Debug)]
pub struct Added {
    before: Counts,
    own: Counts,
}

impl Added {
    /// For what was counted before.
    pub fn new(before: &Usage) -> Self {
        Self { before: Counts::from(before), own: Counts::default() }
    }

    /// An event as the translator is to read it.
    pub fn event(&mut self, event: Bytes) -> Bytes {
        let Some((text, read)) = read(&event) else { return event };
        let Some(raw) = read.usage_metadata else { return event };
        let Ok(said) = serde_json::from_str(raw.get()) else { return event };
        self.own.take(&said);
        let mut sum = self.before;
        sum.join(&self.own);
        let mut splice = Splice::new(text);
        splice.replace(raw.get(), counts::metadata(&sum));
        splice.done().unwrap_or(event)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn what_was_answered_in_vain_is_counted_too() {
        let before = Usage { input: 5, output: 1, ..Usage::default() };
        let mut added = Added::new(&before);
        let event = json!({"candidates": [{"index": 1}], "usageMetadata":
            {"promptTokenCount": 5, "candidatesTokenCount": 2, "totalTokenCount": 7}});
        for _ in 0..2 {
            let event: Value = serde_json::from_slice(&added.event(event.to_string().into())).unwrap();
            assert_eq!(event["candidates"][0]["index"], 1);
            let counts = &event["usageMetadata"];
            assert_eq!(
                (&counts["promptTokenCount"], &counts["candidatesTokenCount"]),
                (&10.into(), &3.into())
            );
            assert_eq!(counts["totalTokenCount"], 13);
        }
    }

    #[test]
    fn candidates_get_numbers_and_counts_add_up() {
        let mut fan = Fan::new(2);
        let mut take = |branch: usize, event: Value| -> Value {
            serde_json::from_slice(&fan.event(branch, event.to_string().into())).unwrap()
        };
        let first = json!({"candidates": [{"finishReason": "STOP", "index": 0}], "usageMetadata":
            {"promptTokenCount": 5, "candidatesTokenCount": 2, "totalTokenCount": 7}});
        assert_eq!(take(0, first.clone())["candidates"][0]["index"], 0);
        let second = json!({"candidates": [{"finishReason": "STOP"}], "usageMetadata":
            {"promptTokenCount": 5, "candidatesTokenCount": 4, "thoughtsTokenCount": 1, "totalTokenCount": 10}});
        let second = take(1, second);
        assert_eq!(second["candidates"][0]["index"], 1);
        let counts = &second["usageMetadata"];
        assert_eq!((&counts["promptTokenCount"], &counts["totalTokenCount"]), (&10.into(), &17.into()));
        assert_eq!(take(0, first)["usageMetadata"]["totalTokenCount"], 17, "a total that is told again");
        assert_eq!(fan.event(0, Bytes::from_static(b"[]")), "[]");
    }
}
