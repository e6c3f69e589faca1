//! Token counts, one type for every front, meter, metric and ledger.

use std::ops::{Index, IndexMut};

/// What a token stood for. Google's modality names; `Other` is whatever comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Modality {
    /// Text, and whatever Google does not break down.
    Text,
    /// Images (and PDF pages, which Google counts here).
    Image,
    /// Audio.
    Audio,
    /// Video.
    Video,
    /// Documents.
    Document,
    /// A modality newer than this release.
    Other,
}

impl Modality {
    /// All of them, in label order.
    pub const ALL: [Self; 6] =
        [Self::Text, Self::Image, Self::Audio, Self::Video, Self::Document, Self::Other];

    /// The metric label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Image => "image",
            Self::Audio => "audio",
            Self::Video => "video",
            Self::Document => "document",
            Self::Other => "unknown",
        }
    }

    /// Google's enum name (`TEXT`, `IMAGE`, …), any case.
    pub fn from_google(name: &str) -> Self {
        match name.to_ascii_uppercase().as_str() {
            "TEXT" => Self::Text,
            "IMAGE" => Self::Image,
            "AUDIO" => Self::Audio,
            "VIDEO" => Self::Video,
            "DOCUMENT" => Self::Document,
            _ => Self::Other,
        }
    }
}

/// At which of its prices Google served a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Tier {
    /// The list price.
    #[default]
    Standard,
    /// Batch jobs.
    Batch,
    /// Slow and cheap.
    Flex,
    /// Quick and dear.
    Priority,
}

impl Tier {
    /// The word in the ledger.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Standard => "standard",
            Self::Batch => "batch",
            Self::Flex => "flex",
            Self::Priority => "priority",
        }
    }

    /// What is dearer is higher.
    const fn rank(self) -> u8 {
        match self {
            Self::Batch => 0,
            Self::Flex => 1,
            Self::Standard => 2,
            Self::Priority => 3,
        }
    }

    /// Google's words: `trafficType` (`ON_DEMAND_FLEX`), `serviceTier` and the header of that name (`flex`).
    pub fn from_google(word: &str) -> Self {
        let word = word.to_ascii_uppercase();
        if word.ends_with("FLEX") || word.ends_with("OFFPEAK") {
            Self::Flex
        } else if word.ends_with("PRIORITY") {
            Self::Priority
        } else {
            Self::Standard
        }
    }
}

/// Counts by modality; zero where Google gave no breakdown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ByModality([u64; 6]);

impl ByModality {
    /// The sum over all modalities.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    fn add(&mut self, other: &Self) {
        for (mine, theirs) in self.0.iter_mut().zip(other.0) {
            *mine = mine.saturating_add(theirs);
        }
    }
}

impl Index<Modality> for ByModality {
    type Output = u64;
    fn index(&self, modality: Modality) -> &u64 {
        let [text, image, audio, video, document, other] = &self.0;
        match modality {
            Modality::Text => text,
            Modality::Image => image,
            Modality::Audio => audio,
            Modality::Video => video,
            Modality::Document => document,
            Modality::Other => other,
        }
    }
}

impl IndexMut<Modality> for ByModality {
    fn index_mut(&mut self, modality: Modality) -> &mut u64 {
        let [text, image, audio, video, document, other] = &mut self.0;
        match modality {
            Modality::Text => text,
            Modality::Image => image,
            Modality::Audio => audio,
            Modality::Video => video,
            Modality::Document => document,
            Modality::Other => other,
        }
    }
}

/// Tokens of one request, as Google bills them.
///
/// `input` includes `cached` (a subset, never added) and excludes `tool_use`; `output` excludes `thoughts`.
/// OpenAI's view is [`Usage::prompt`], [`Usage::completion`] and [`Usage::total`]: they always add up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// `promptTokenCount`: the whole prompt, cached part included.
    pub input: u64,
    /// `cachedContentTokenCount`: the part of `input` served from a cache.
    pub cached: u64,
    /// `candidatesTokenCount`: visible output, thoughts excluded.
    pub output: u64,
    /// `thoughtsTokenCount`.
    pub thoughts: u64,
    /// `toolUsePromptTokenCount`: what server-side tools fed back to the model.
    pub tool_use: u64,
    /// `promptTokensDetails`.
    pub input_by: ByModality,
    /// `cacheTokensDetails`.
    pub cached_by: ByModality,
    /// `candidatesTokensDetails`.
    pub output_by: ByModality,
    /// `toolUsePromptTokensDetails`.
    pub tool_use_by: ByModality,
    /// True when no `usageMetadata` was seen, or a part of this had to be estimated.
    pub estimated: bool,
    /// An answer ended for a reason that this release does not know, and was taken to be whole.
    pub odd_end: bool,
    /// At which of its prices Google served it.
    pub tier: Tier,
}

impl Usage {
    /// OpenAI's `prompt_tokens`: prompt plus what server-side tools fed back.
    pub fn prompt(&self) -> u64 {
        self.input.saturating_add(self.tool_use)
    }

    /// OpenAI's `completion_tokens`: visible output plus thoughts.
    pub fn completion(&self) -> u64 {
        self.output.saturating_add(self.thoughts)
    }

    /// OpenAI's `total_tokens`.
    pub fn total(&self) -> u64 {
        self.prompt().saturating_add(self.completion())
    }

    /// Adds another call's counts: hops of one long answer, or fanned-out candidates. Where those were served at
    /// several prices, the sum has the dearest: it must not be too small.
    pub fn add(&mut self, other: &Self) {
        if self.total() == 0 || other.total() > 0 && other.tier.rank() > self.tier.rank() {
            self.tier = other.tier;
        }
        self.input = self.input.saturating_add(other.input);
        self.cached = self.cached.saturating_add(other.cached);
        self.output = self.output.saturating_add(other.output);
        self.thoughts = self.thoughts.saturating_add(other.thoughts);
        self.tool_use = self.tool_use.saturating_add(other.tool_use);
        self.input_by.add(&other.input_by);
        self.cached_by.add(&other.cached_by);
        self.output_by.add(&other.output_by);
        self.tool_use_by.add(&other.tool_use_by);
        self.estimated |= other.estimated;
        self.odd_end |= other.odd_end;
    }
}
