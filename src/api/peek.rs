//! Reads the token counts out of an answer that passes by, without parsing the rest and without holding it up.
//!
//! A member's name stands in JSON as `"name"`, with both quotes; inside a string the quotes would be escaped, so
//! these bytes never occur in text. What follows the name is kept, up to a bound, until its braces close. Counts
//! are running totals: the last ones count.

use std::sync::LazyLock;

use bytes::{Bytes, BytesMut};
use memchr::memmem::Finder;

use super::batches;
use crate::gemini::answer::UsageMetadata;
use crate::translate::counts::Counts;
use crate::usage::Usage;

/// The longest object of counts; and how long it is at most, as a rule.
const LONGEST: usize = 16 << 10;
const USUAL: usize = 1 << 10;

/// The largest batch that is read; Google's own bound for answers in line is below.
const LARGEST_BATCH: usize = 64 << 20;

/// Which dialect's counts are looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// `generateContent` and its kin: `usageMetadata`.
    UsageMetadata,
    /// Interactions: `usage`.
    Usage,
    /// A batch: the counts of all its answers, once it has them.
    Batch,
    /// Classic predictions: `token_count` of each input, to be summed.
    TokenCount,
}

impl Told {
    const fn name(self) -> &'static [u8] {
        match self {
            Self::UsageMetadata | Self::Batch => b"\"usageMetadata\"",
            Self::Usage => b"\"usage\"",
            Self::TokenCount => b"\"token_count\"",
        }
    }

    /// Finds the name; made once.
    fn finder(self) -> &'static Finder<'static> {
        static METADATA: LazyLock<Finder<'static>> =
            LazyLock::new(|| Finder::new(Told::UsageMetadata.name()));
        static USAGE: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(Told::Usage.name()));
        static COUNT: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(Told::TokenCount.name()));
        match self {
            Self::UsageMetadata | Self::Batch => &METADATA,
            Self::Usage => &USAGE,
            Self::TokenCount => &COUNT,
        }
    }
}

/// Watches one answer.
#[derive(Debug)]
pub struct Peek {
    told: Told,
    finder: &'static Finder<'static>,
    /// The end of the last piece, where a name may have begun.
    tail: BytesMut,
    /// What follows a name, while it is incomplete.
    kept: Option<Kept>,
    counts: Counts,
    interaction: Option<Usage>,
    summed: u64,
    seen: u64,
    /// All of it, where it has to be read as a whole.
    whole: BytesMut,
}

/// The beginning of a value whose end is in a piece that has not come yet.
#[derive(Debug, Default)]
struct Kept {
    bytes: BytesMut,
    scan: Scan,
}

/// Where in a value a reader stands.
#[derive(Debug, Default)]
struct Scan {
    begun: bool,
    number: bool,
    depth: u32,
    quoted: bool,
    escaped: bool,
}

/// What a piece made of a value.
enum Grown {
    More,
    Whole,
    Strange,
}

impl Scan {
    /// How many bytes of a piece belong to the value, or stand before it, and what they made of it.
    fn pass(&mut self, piece: &[u8]) -> (usize, Grown) {
        for (at, byte) in piece.iter().enumerate() {
            if !self.begun {
                match byte {
                    b':' | b' ' | b'\t' | b'\r' | b'\n' => continue,
                    b'{' => self.depth = 1,
                    byte if byte.is_ascii_digit() => self.number = true,
                    _ => return (at, Grown::Strange),
                }
                self.begun = true;
            } else if self.number {
                if !byte.is_ascii_digit() {
                    return (at, Grown::Whole);
                }
            } else if self.quoted {
                self.quoted = self.escaped || *byte != b'"';
                self.escaped = *byte == b'\\' && !self.escaped;
            } else {
                match byte {
                    b'"' => self.quoted = true,
                    b'{' => self.depth += 1,
                    b'}' => {
                        self.depth -= 1;
                        if self.depth == 0 {
                            return (at + 1, Grown::Whole);
                        }
                    }
                    _ => {}
                }
            }
        }
        (piece.len(), Grown::More)
    }
}

impl Peek {
    /// Watches for these counts.
    pub fn new(told: Told) -> Self {
        Self {
            told,
            finder: told.finder(),
            tail: BytesMut::new(),
            kept: None,
            counts: Counts::default(),
            interaction: None,
            summed: 0,
            seen: 0,
            whole: BytesMut::new(),
        }
    }

    /// Looks at the next piece of the body.
    pub fn feed(&mut self, piece: &Bytes) {
        self.seen += piece.len() as u64;
        if self.told == Told::Batch {
            if self.whole.len() + piece.len() <= LARGEST_BATCH {
                self.whole.extend_from_slice(piece);
            }
            return;
        }
        let mut rest: &[u8] = piece;
        if self.kept.is_none() && !self.tail.is_empty() {
            match self.across(rest) {
                Some(after) => rest = after,
                None => return,
            }
        }
        loop {
            if let Some(kept) = &mut self.kept {
                let (taken, grown) = kept.scan.pass(rest);
                let (value, after) = rest.split_at(taken);
                let fits = kept.bytes.len() + taken <= LONGEST;
                match grown {
                    Grown::More if fits => {
                        kept.bytes.extend_from_slice(value);
                        return;
                    }
                    Grown::Whole if fits => {
                        let mut kept = std::mem::take(kept).bytes;
                        self.kept = None;
                        // Most values come in one piece, and are read where they are.
                        if kept.is_empty() {
                            self.take(value);
                        } else {
                            kept.extend_from_slice(value);
                            self.take(&kept);
                        }
                    }
                    Grown::More | Grown::Whole | Grown::Strange => self.kept = None,
                }
                rest = after;
            }
            let Some(at) = self.finder.find(rest) else { break };
            rest = rest.get(at + self.told.name().len()..).unwrap_or_default();
            match self.at_once(rest) {
                Some(after) => rest = after,
                None => self.kept = Some(Kept::default()),
            }
        }
        let keep = rest.len().min(self.told.name().len() - 1);
        self.tail.clear();
        self.tail.extend_from_slice(rest.get(rest.len() - keep..).unwrap_or_default());
    }

    /// Reads a value of counts that is whole in this piece, as most are, without looking for its end first; returns what
    /// stands behind it. Nothing: it is for the slower way, whatever it is.
    fn at_once<'b>(&mut self, piece: &'b [u8]) -> Option<&'b [u8]> {
        if self.told != Told::UsageMetadata {
            return None;
        }
        let value = piece.get(before(piece)..).filter(|value| value.first() == Some(&b'{'))?;
        let start = value.get(..value.len().min(USUAL))?;
        // What stands behind the counts may be cut within a letter.
        let whole = std::str::from_utf8(start).map_or_else(|cut| cut.valid_up_to(), str::len);
        let usual = start.get(..whole).and_then(|whole| std::str::from_utf8(whole).ok());
        if let Some((said, length)) = UsageMetadata::usual(usual?) {
            self.counts.take(&said);
            return value.get(length..);
        }
        let mut values = serde_json::Deserializer::from_slice(value).into_iter::<UsageMetadata<'_>>();
        let said = values.next()?.ok()?;
        let length = values.byte_offset();
        if length > LONGEST {
            return None;
        }
        self.counts.take(&said);
        value.get(length..)
    }

    /// Looks for a name that began in the last piece; returns what is still to be looked at. Nothing: the piece is
    /// too short to tell, and was added to the tail.
    fn across<'b>(&mut self, piece: &'b [u8]) -> Option<&'b [u8]> {
        let name = self.told.name().len();
        let before = self.tail.len();
        let taken = piece.len().min(name - 1);
        self.tail.extend_from_slice(piece.get(..taken).unwrap_or_default());
        match self.finder.find(&self.tail) {
            Some(at) => {
                let consumed = (at + name).saturating_sub(before);
                self.kept = Some(Kept::default());
                self.tail.clear();
                Some(piece.get(consumed..).unwrap_or_default())
            }
            None if piece.len() < name => {
                let surplus = self.tail.len().saturating_sub(name - 1);
                let _ = self.tail.split_to(surplus);
                None
            }
            None => Some(piece),
        }
    }

    fn take(&mut self, value: &[u8]) {
        let value = value.get(before(value)..).unwrap_or_default();
        match self.told {
            Told::Batch => {}
            Told::UsageMetadata => {
                if let Ok(said) = serde_json::from_slice::<UsageMetadata<'_>>(value) {
                    self.counts.take(&said);
                }
            }
            Told::Usage => {
                if let Ok(said) = serde_json::from_slice::<Interaction>(value)
                    && let Some(usage) = said.usage()
                {
                    self.interaction = Some(usage);
                }
            }
            Told::TokenCount => {
                let digits = std::str::from_utf8(value).unwrap_or_default();
                self.summed = self.summed.saturating_add(digits.parse().unwrap_or(0));
            }
        }
    }

    /// The counts as Google told them; nothing where it told none.
    pub fn usage(&self) -> Option<Usage> {
        match self.told {
            Told::UsageMetadata => self.counts.known().then(|| self.counts.usage()),
            Told::Usage => self.interaction,
            Told::Batch => batches::usage(&self.whole),
            Told::TokenCount => (self.summed > 0).then(|| Usage { input: self.summed, ..Usage::default() }),
        }
    }

    /// Bytes that passed.
    pub fn seen(&self) -> u64 {
        self.seen
    }
}

/// How much stands between a name and its value.
fn before(value: &[u8]) -> usize {
    value.iter().take_while(|byte| **byte == b':' || byte.is_ascii_whitespace()).count()
}

/// The counts of an interaction; its output leaves thoughts out, as ours does.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(default)]
struct Interaction {
    #[serde(rename = "total_input_tokens")]
    input: Option<u64>,
    #[serde(rename = "total_cached_tokens")]
    cached: u64,
    #[serde(rename = "total_output_tokens")]
    output: u64,
    /// The older name was `total_reasoning_tokens`.
    #[serde(rename = "total_thought_tokens", alias = "total_reasoning_tokens")]
    thoughts: u64,
    #[serde(rename = "total_tool_use_tokens")]
    tool_use: u64,
    #[serde(rename = "total_tokens")]
    all: Option<u64>,
}

impl Interaction {
    fn usage(&self) -> Option<Usage> {
        if self.input.is_none() && self.all.is_none() {
            return None;
        }
        let input = self.input.unwrap_or(0);
        Some(Usage {
            input,
            cached: self.cached.min(input),
            output: self.output,
            thoughts: self.thoughts,
            tool_use: self.tool_use,
            ..Usage::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peek(told: Told, pieces: &[&[u8]]) -> Option<Usage> {
        let mut peek = Peek::new(told);
        for piece in pieces {
            peek.feed(&Bytes::copy_from_slice(piece));
        }
        peek.usage()
    }

    const STREAM: &[u8] = br#"data: {"candidates":[{"content":{"parts":[{"text":"say \"usageMetadata\": {\"promptTokenCount\": 9}"}]}}],"usageMetadata":{"promptTokenCount":3,"totalTokenCount":3}}

data: {"candidates":[{}],"usageMetadata" : {"promptTokenCount":"3","candidatesTokenCount":5,"promptTokensDetails":[{"modality":"TEXT}","tokenCount":3}],"totalTokenCount":8},"modelVersion":"g"}

"#;

    #[test]
    fn the_last_counts_are_found_however_the_body_is_cut() {
        for cut in 0..=STREAM.len() {
            let (left, right) = STREAM.split_at(cut);
            let usage = peek(Told::UsageMetadata, &[left, right]).unwrap();
            assert_eq!((usage.input, usage.output), (3, 5), "cut at {cut}");
        }
        let bytes: Vec<&[u8]> = STREAM.chunks(1).collect();
        assert_eq!(peek(Told::UsageMetadata, &bytes).unwrap().total(), 8);
        let threes: Vec<&[u8]> = STREAM.chunks(3).collect();
        assert_eq!(peek(Told::UsageMetadata, &threes).unwrap().total(), 8);
    }

    #[test]
    fn interactions_and_predictions_are_counted_too() {
        let event = br#"data: {"interaction":{"usage":{"total_input_tokens":7,"total_output_tokens":20,"total_thought_tokens":22,"total_tokens":49,"input_tokens_by_modality":[{"modality":"text","tokens":7}]}}}"#;
        let usage = peek(Told::Usage, &[event]).unwrap();
        assert_eq!((usage.input, usage.output, usage.thoughts, usage.total()), (7, 20, 22, 49));
        let predictions = br#"{"predictions":[{"embeddings":{"statistics":{"token_count":6,"truncated":false}}},{"embeddings":{"statistics":{"token_count": 4}}}]}"#;
        for cut in 0..predictions.len() {
            let (left, right) = predictions.split_at(cut);
            assert_eq!(peek(Told::TokenCount, &[left, right]).unwrap().input, 10, "cut at {cut}");
        }
    }

    #[test]
    fn nonsense_is_passed_over() {
        assert_eq!(peek(Told::UsageMetadata, &[br#"{"usageMetadata":null,"usageMetadata":[1]}"#]), None);
        let long = [br#"{"usageMetadata":{"a":""#.as_slice(), &vec![b'x'; LONGEST * 2], br#""}}"#].concat();
        assert_eq!(peek(Told::UsageMetadata, &[&long]), None);
    }
}
