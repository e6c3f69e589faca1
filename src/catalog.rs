//! What each model family can do, as data (`catalog.toml`).

/// How thinking is steered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Thinking {
    /// The model does not think.
    None,
    /// By `thinkingBudget`, in tokens.
    Budget {
        /// Smallest budget other than off.
        min: u32,
        /// Largest budget.
        max: u32,
        /// 0 switches thinking off.
        can_be_off: bool,
    },
    /// By `thinkingLevel`, from least to most.
    Levels(Vec<Level>),
}

/// A `thinkingLevel`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// `MINIMAL`
    Minimal,
    /// `LOW`
    Low,
    /// `MEDIUM`
    Medium,
    /// `HIGH`
    High,
    /// `XHIGH`
    Xhigh,
}

/// What one model family can do. Unknown models get safe defaults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Traits {
    /// How thinking is steered.
    pub thinking: Thinking,
    /// temperature, topP and topK have an effect.
    pub sampling: bool,
    /// presencePenalty and frequencyPenalty are taken.
    pub penalties: bool,
    /// responseLogprobs is taken.
    pub logprobs: bool,
    /// Largest candidateCount.
    pub max_candidates: u32,
    /// The conversation may end with the model's turn.
    pub prefill: bool,
    /// Function calls and responses carry ids.
    pub call_ids: bool,
    /// The first call of each step of the current turn must carry its thought signature.
    pub signatures: bool,
    /// Function tools may be mixed with server-side tools.
    pub mixed_tools: bool,
    /// Function tools may be combined with a response schema.
    pub tools_with_schema: bool,
    /// parametersJsonSchema and responseJsonSchema are understood.
    pub json_schema: bool,
    /// systemInstruction is understood.
    pub system_instruction: bool,
    /// Media inside functionResponse.parts is understood.
    pub multimodal_results: bool,
    /// Answers are capped per request and continued by token (streams upstream always).
    pub long_decode: bool,
    /// What it can produce: "text", "image", "audio".
    pub output: Vec<String>,
    /// Tokens in.
    pub context_window: Option<u64>,
    /// Tokens out.
    pub max_output_tokens: Option<u64>,
}
