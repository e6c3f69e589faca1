//! The usual answer, read by hand.
//!
//! Nearly every event of every stream has the same few fields: a piece of text, counts, a name, an id. A parser that is
//! made for all that Google may say spends most of its time on what is not there. So this one knows only these
//! fields, and gives up at anything else, be it new, rare or wrong: what it gives up is read by `serde`, which also
//! says what is wrong with it.

use super::answer::{Candidate, Content, Count, GenerateResponse, List, ModalityCount, Part, UsageMetadata};
use crate::wire::{self, Text};

/// Reads an answer, if it is a usual one. What comes out is what `serde` would have read.
pub(super) fn read(text: &str) -> Option<GenerateResponse<'_>> {
    let (mut rest, mut answer) = (Rest { text, at: 0 }, GenerateResponse::default());
    rest.object(|rest, name| match name {
        b"candidates" => rest.list(&mut answer.candidates, candidate),
        b"usageMetadata" if answer.usage_metadata.is_none() => {
            counts(rest, answer.usage_metadata.insert(UsageMetadata::default()))
        }
        b"responseId" => once(&mut answer.response_id, rest.text()?),
        b"modelVersion" => rest.bare().map(|_| ()),
        _ => None,
    })?;
    rest.space();
    rest.first().is_none().then_some(answer)
}

/// Reads the counts that a text begins with, if they are usual ones, and tells how long they are.
pub(super) fn metadata(text: &str) -> Option<(UsageMetadata<'_>, usize)> {
    let (mut rest, mut said) = (Rest { text, at: 0 }, UsageMetadata::default());
    counts(&mut rest, &mut said)?;
    Some((said, rest.at))
}

fn candidate<'a>(rest: &mut Rest<'a>, candidate: &mut Candidate<'a>) -> Option<()> {
    rest.object(|rest, name| match name {
        b"content" if candidate.content.is_none() => {
            content(rest, candidate.content.insert(Content::default()))
        }
        b"index" => once(&mut candidate.index, rest.count()?),
        b"finishReason" => once(&mut candidate.finish_reason, rest.text()?),
        _ => None,
    })
}

fn content<'a>(rest: &mut Rest<'a>, content: &mut Content<'a>) -> Option<()> {
    rest.object(|rest, name| match name {
        b"parts" => rest.list(&mut content.parts, part),
        b"role" => rest.bare().map(|_| ()),
        _ => None,
    })
}

fn part<'a>(rest: &mut Rest<'a>, part: &mut Part<'a>) -> Option<()> {
    rest.object(|rest, name| match name {
        b"text" => once(&mut part.text, rest.text()?),
        b"thoughtSignature" => once(&mut part.thought_signature, rest.text()?),
        b"thought" => once(&mut part.thought, rest.truth()?),
        _ => None,
    })
}

fn counts<'a>(rest: &mut Rest<'a>, counts: &mut UsageMetadata<'a>) -> Option<()> {
    rest.object(|rest, name| match name {
        b"promptTokenCount" => once(&mut counts.prompt_token_count, rest.count()?),
        b"cachedContentTokenCount" => once(&mut counts.cached_content_token_count, rest.count()?),
        b"candidatesTokenCount" => once(&mut counts.candidates_token_count, rest.count()?),
        b"thoughtsTokenCount" => once(&mut counts.thoughts_token_count, rest.count()?),
        b"toolUsePromptTokenCount" => once(&mut counts.tool_use_prompt_token_count, rest.count()?),
        b"totalTokenCount" => once(&mut counts.total_token_count, rest.count()?),
        b"promptTokensDetails" => rest.list(&mut counts.prompt_tokens_details, modality),
        b"cacheTokensDetails" => rest.list(&mut counts.cache_tokens_details, modality),
        b"candidatesTokensDetails" => rest.list(&mut counts.candidates_tokens_details, modality),
        b"toolUsePromptTokensDetails" => rest.list(&mut counts.tool_use_prompt_tokens_details, modality),
        b"serviceTier" => once(&mut counts.service_tier, rest.text()?),
        b"trafficType" => once(&mut counts.traffic_type, rest.text()?),
        _ => None,
    })
}

fn modality<'a>(rest: &mut Rest<'a>, count: &mut ModalityCount<'a>) -> Option<()> {
    rest.object(|rest, name| match name {
        b"modality" => once(&mut count.modality, rest.text()?),
        b"tokenCount" => once(&mut count.token_count, rest.count()?),
        _ => None,
    })
}

/// Sets a field. One that comes twice is an error, and those are not for us.
#[inline]
fn once<T>(field: &mut Option<T>, value: T) -> Option<()> {
    field.replace(value).is_none().then_some(())
}

/// A text, and how much of it was read.
struct Rest<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Rest<'a> {
    #[inline]
    fn first(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    #[inline]
    fn left(&self) -> &'a [u8] {
        self.text.as_bytes().get(self.at..).unwrap_or_default()
    }

    #[inline]
    fn space(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.first() {
            self.at += 1;
        }
    }

    /// The next byte that is no white space.
    #[inline]
    fn next(&mut self) -> Option<u8> {
        self.space();
        let byte = self.first()?;
        self.at += 1;
        Some(byte)
    }

    #[inline]
    fn eat(&mut self, byte: u8) -> Option<()> {
        (self.next()? == byte).then_some(())
    }

    #[inline]
    fn object(&mut self, mut field: impl FnMut(&mut Self, &'a [u8]) -> Option<()>) -> Option<()> {
        self.eat(b'{')?;
        self.space();
        if self.first() == Some(b'}') {
            self.at += 1;
            return Some(());
        }
        loop {
            let name = self.name()?;
            self.eat(b':')?;
            self.space();
            field(self, name)?;
            match self.next()? {
                b',' => {}
                b'}' => return Some(()),
                _ => return None,
            }
        }
    }

    #[inline]
    fn list<T: Default>(
        &mut self,
        into: &mut List<T>,
        one: impl Fn(&mut Self, &mut T) -> Option<()>,
    ) -> Option<()> {
        if into.is_some() {
            return None;
        }
        self.eat(b'[')?;
        self.space();
        if self.first() == Some(b']') {
            *into = Some(Vec::new());
            self.at += 1;
            return Some(());
        }
        // There is one of most things. What is read is read into its place: a part is large.
        let list = into.insert(Vec::with_capacity(1));
        loop {
            list.push(Some(T::default()));
            one(self, list.last_mut()?.as_mut()?)?;
            match self.next()? {
                b',' => {}
                b']' => return Some(()),
                _ => return None,
            }
        }
    }

    /// The name of a field. What is not a name that we know is not looked at any closer.
    #[inline]
    fn name(&mut self) -> Option<&'a [u8]> {
        self.eat(b'"')?;
        let end = memchr::memchr(b'"', self.left())?;
        let name = self.left().get(..end)?;
        self.at += end + 1;
        Some(name)
    }

    /// A string without escapes.
    #[inline]
    fn bare(&mut self) -> Option<&'a str> {
        (self.first()? == b'"').then_some(())?;
        let from = self.at + 1;
        let end = from + memchr::memchr2(b'"', b'\\', self.text.as_bytes().get(from..)?)?;
        let inside = self.text.get(from..end)?;
        self.at = end + 1;
        (self.text.as_bytes().get(end) == Some(&b'"')).then_some(())?;
        wire::all(inside.as_bytes(), |byte| byte >= 0x20).then_some(inside)
    }

    /// A string.
    fn text(&mut self) -> Option<Text<'a>> {
        let from = self.at;
        if let Some(text) = self.bare() {
            return Some(Text::plain(text));
        }
        // What is escaped is checked by those who know all about escapes, and leaves as it came.
        let mut end = from + 1;
        loop {
            let at = end + memchr::memchr2(b'"', b'\\', self.text.as_bytes().get(end..)?)?;
            if self.text.as_bytes().get(at) == Some(&b'"') {
                self.at = at + 1;
                break;
            }
            end = at + 2;
        }
        let token = self.text.get(from..self.at).filter(|token| token.starts_with('"'))?;
        Text::from_raw(serde_json::from_str(token).ok()?).ok()
    }

    /// A whole number of ordinary size.
    #[inline]
    fn count(&mut self) -> Option<Count> {
        let (mut number, mut digits) = (0_u64, 0);
        while let Some(byte @ b'0'..=b'9') = self.left().get(digits)
            && digits < 16
        {
            number = number * 10 + u64::from(byte - b'0');
            digits += 1;
        }
        if digits == 0 || digits == 16 || (digits > 1 && self.first() == Some(b'0')) {
            return None;
        }
        // A point or an exponent is not what a list or an object goes on with.
        self.at += digits;
        Some(Count(number))
    }

    fn truth(&mut self) -> Option<bool> {
        let (word, truth) =
            if self.first()? == b't' { (b"true".as_slice(), true) } else { (b"false".as_slice(), false) };
        self.left().starts_with(word).then_some(())?;
        self.at += word.len();
        Some(truth)
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use proptest::prelude::*;
    use proptest::sample::{Index, select};

    use super::*;

    /// All that an answer says which can be read here, and each string as it would be written.
    fn told(answer: &GenerateResponse<'_>) -> String {
        let text = |text: &Option<Text<'_>>| {
            text.as_ref().map(|text| {
                let mut out = BytesMut::new();
                wire::append(text, &mut out).unwrap();
                (
                    String::from_utf8(out.to_vec()).unwrap(),
                    text.decode().into_owned(),
                    text.size(),
                    text.is_empty(),
                )
            })
        };
        let part = |part: &Part<'_>| (text(&part.text), part.thought, text(&part.thought_signature));
        let some = |there: &Option<_>| there.is_some();
        let details = |list: &List<ModalityCount<'_>>| -> Option<Vec<_>> {
            list.as_ref().map(|list| {
                list.iter()
                    .map(|one| one.as_ref().map(|one| (text(&one.modality), one.token_count)))
                    .collect()
            })
        };
        let candidates: Option<Vec<_>> = answer.candidates.as_ref().map(|candidates| {
            let candidates = candidates.iter().map(|candidate| {
                let candidate = candidate.as_ref()?;
                let parts = candidate.content.as_ref().map(|content| {
                    let parts = content.parts.as_ref();
                    parts.map(|parts| parts.iter().map(|one| one.as_ref().map(part)).collect::<Vec<_>>())
                });
                let others = (
                    candidate.finish_message.is_some(),
                    candidate.logprobs_result.is_some(),
                    candidate.grounding_metadata.is_some(),
                    candidate.citation_metadata.is_some(),
                );
                Some((candidate.index, parts, text(&candidate.finish_reason), others))
            });
            candidates.collect()
        });
        let counts = answer.usage_metadata.as_ref().map(|counts| {
            let numbers = [
                counts.prompt_token_count,
                counts.cached_content_token_count,
                counts.candidates_token_count,
                counts.thoughts_token_count,
                counts.tool_use_prompt_token_count,
                counts.total_token_count,
            ];
            let details = [
                details(&counts.prompt_tokens_details),
                details(&counts.cache_tokens_details),
                details(&counts.candidates_tokens_details),
                details(&counts.tool_use_prompt_tokens_details),
            ];
            (numbers, details, text(&counts.service_tier), text(&counts.traffic_type))
        });
        let rest = (text(&answer.response_id), some(&answer.error), answer.prompt_feedback.is_some());
        format!("{candidates:?} {counts:?} {rest:?}")
    }

    /// What was read here, `serde` reads too, and as the same.
    fn agrees(json: &str) -> bool {
        let Some(read) = read(json) else { return false };
        let usual: GenerateResponse<'_> =
            serde_json::from_str(json).unwrap_or_else(|error| panic!("{error}: {json}"));
        assert_eq!(told(&read), told(&usual), "{json}");
        true
    }

    const USUAL: &str = r#"{"candidates": [{"content": {"parts": [{"text": "A \"fox\"\u00e9 – \n", "thought": true,
        "thoughtSignature": "QUJD"}, {"text":""}], "role": "model"}, "finishReason": "STOP", "index": 10}, {}],
        "usageMetadata": {"promptTokenCount": 40, "candidatesTokenCount": 0, "totalTokenCount": 48,
        "cachedContentTokenCount":1,"thoughtsTokenCount":2,"toolUsePromptTokenCount":3,"serviceTier":"standard",
        "trafficType":"ON_DEMAND", "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 40}, {}],
        "cacheTokensDetails":[],"candidatesTokensDetails":[{}],"toolUsePromptTokensDetails":[{"tokenCount":7}]},
        "modelVersion": "gemini-2.5-flash", "responseId": "pYQ"}"#;

    #[test]
    fn the_usual_answer_is_read_here_and_anything_else_is_not() {
        assert!(agrees(USUAL));
        assert!(agrees(" {} "));
        for other in [
            "",
            "{",
            "{}}",
            "{},",
            "{\"candidates\":null}",
            "{\"candidates\":[null]}",
            "{\"candidates\":[],\"candidates\":[]}",
            "{\"error\":{\"code\":503}}",
            "{\"promptFeedback\":{}}",
            "{\"modelVersion\":\"a\tb\"}",
            "{\"responseId\":\"a\tb\"}",
            "{\"responseId\":\"\\ud800\"}",
            "{\"responseId\":\"\\x\"}",
            "{\"responseId\":\"\\",
            "{\"usageMetadata\":{\"totalTokenCount\":01}}",
            "{\"usageMetadata\":{\"totalTokenCount\":1.0}}",
            "{\"usageMetadata\":{\"totalTokenCount\":1e3}}",
            "{\"usageMetadata\":{\"totalTokenCount\":-1}}",
            "{\"usageMetadata\":{\"totalTokenCount\":\"1\"}}",
            "{\"usageMetadata\":{\"totalTokenCount\":1234567890123456}}",
            "{\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"a\",\"thought\":tru}]}}]}",
            "{\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"a\"},]}}]}",
            "{\"candidates\":[{\"content\":{\"parts\":[{\"functionCall\":{}}]}}]}",
        ] {
            assert!(read(other).is_none(), "{other}");
        }
    }

    proptest! {
        /// However an answer is changed: what is still read here means the same to `serde`.
        #[test]
        fn whatever_is_read_means_the_same_to_serde(
            changes in proptest::collection::vec((any::<Index>(), select(&[
                "", "\"", "\\", "{", "}", "[", "]", ",", ":", " ", "0", "1", "-", ".", "e", "é", "\u{2028}", "\n", "\t",
                "\\n", "\\u00e9", "\\ud83d\\ude00", "\\ud83d", "\u{1}", "null", "true", "false", "\"text\":\"\",",
                "\"index\":0,", "\"thought\":false,", "{\"text\":\"x\"},", "\"new\":{},",
            ][..]), 0..3_usize), 0..4)
        ) {
            let mut json = USUAL.to_owned();
            for (at, new, gone) in changes {
                let places: Vec<usize> = json.char_indices().map(|(at, _)| at).chain([json.len()]).collect();
                let from = at.index(places.len());
                let to = (from + gone).min(places.len() - 1);
                json.replace_range(places[from]..places[to], new);
            }
            agrees(&json);
        }

        #[test]
        fn any_text_comes_through(text: String, escaped: bool) {
            let mut token = serde_json::to_string(&text).unwrap();
            if escaped {
                let units: Vec<_> = text.encode_utf16().map(|unit| format!("\\u{unit:04x}")).collect();
                token = format!("\"{}\"", units.concat());
            }
            let event = r#"{"candidates":[{"content":{"parts":[{"text":T}],"role":"model"},"index":0}],
                "usageMetadata":{"totalTokenCount":4}}"#.replace('T', &token);
            // The letter stands in other words too.
            let event = event.replace(&format!("total{token}oken"), "totalToken");
            prop_assert!(agrees(&event));
        }
    }
}
