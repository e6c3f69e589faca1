//! What each model family can do, as data (`catalog.toml`).

use arc_swap::ArcSwap;
use serde::Deserialize;

use crate::error::{Error, Kind, Origin, Result};
use crate::hash::ByName;

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
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
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

impl Level {
    /// Its name in lower case.
    pub fn word(self) -> &'static str {
        match self {
            Self::Minimal => "minimal",
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Xhigh => "xhigh",
        }
    }
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
    /// seed is taken.
    pub seed: bool,
    /// stopSequences are taken.
    pub stops: bool,
    /// serviceTier is taken.
    pub tiers: bool,
    /// Largest candidateCount.
    pub max_candidates: u32,
    /// The conversation may end with the model's turn.
    pub prefill: bool,
    /// Function calls and responses carry ids.
    pub call_ids: bool,
    /// The first call of each step of the current turn must carry its thought signature.
    pub signatures: bool,
    /// Vertex AI streams the arguments of calls where asked to.
    pub streams_arguments: bool,
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
    /// The Gemini API reads media at any public https address itself; Vertex AI does for every model.
    pub remote_uris: bool,
    /// How closely to look at media can be said: for each part where results may hold media, else for all alike.
    pub media_resolution: bool,
    /// Answers are capped per request and continued by token (streams upstream always).
    pub long_decode: bool,
    /// What it reads: "text", "image", "audio", "video", "file"; empty where nobody knows.
    pub input: Vec<String>,
    /// What it can produce: "text", "image", "audio".
    pub output: Vec<String>,
    /// Tokens in.
    pub context_window: Option<u64>,
    /// Tokens out.
    pub max_output_tokens: Option<u64>,
    /// How it is asked for vectors.
    pub embedding: Embedding,
}

/// How a family is asked for vectors. The default is what is believed of a family nobody has described.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Embedding {
    /// Inputs in one `:predict` at Vertex AI; 0: that family is asked there by `:embedContent`.
    pub predict: u32,
    /// `taskType` and `title` are fields; else they are words before the text.
    pub task_type: bool,
    /// Takes text only.
    pub text_only: bool,
    /// Vectors are of length one at every size; else at the full size only.
    pub unit: bool,
    /// Numbers in a vector of full size; 0 where nobody knows.
    pub dimensions: u32,
}

impl Default for Traits {
    /// What is believed of a model nobody has described: a current Gemini text model, without the
    /// switches that current models refuse.
    fn default() -> Self {
        Self {
            thinking: Thinking::Levels(vec![Level::Low, Level::Medium, Level::High]),
            sampling: true,
            penalties: false,
            logprobs: false,
            seed: true,
            stops: true,
            tiers: true,
            max_candidates: 1,
            prefill: false,
            call_ids: true,
            signatures: true,
            streams_arguments: true,
            mixed_tools: true,
            tools_with_schema: true,
            json_schema: true,
            system_instruction: true,
            multimodal_results: true,
            remote_uris: true,
            media_resolution: true,
            long_decode: false,
            input: Vec::new(),
            output: vec!["text".to_owned()],
            context_window: None,
            max_output_tokens: None,
            embedding: Embedding::default(),
        }
    }
}

/// One concrete model that is known to exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Model {
    /// Its bare id.
    pub id: String,
    /// When it was released, in seconds since 1970, if known.
    pub created: Option<u64>,
    /// The day on which it ends (`2027-05-07`), if one is known.
    pub retires: Option<String>,
}

/// What is known of all models.
#[derive(Clone, Debug)]
pub struct Catalog {
    /// The most specific first.
    families: Vec<(Pattern, Traits)>,
    models: Vec<Model>,
    unknown: Traits,
    /// Which family each name belongs to.
    found: Found<Option<usize>>,
}

impl Catalog {
    /// The catalogue this build carries.
    pub fn builtin() -> Result<Self> {
        let nothing = Self {
            families: Vec::new(),
            models: Vec::new(),
            unknown: Traits::default(),
            found: Found::default(),
        };
        nothing.with_override(include_str!("catalog.toml"))
    }

    /// This catalogue with an operator's file laid over it. A family there starts from what is already
    /// believed of its pattern (or of the model named by `like`) and changes only what it names.
    pub fn with_override(&self, text: &str) -> Result<Self> {
        let file: File = toml::from_str(text).map_err(|error| {
            let place = error.span().map_or_else(String::new, |span| {
                let line = text.get(..span.start).map_or(1, |before| before.matches('\n').count() + 1);
                format!(" at line {line}")
            });
            wrong(format!("The model catalogue cannot be read{place}: {}", error.message()))
        })?;
        let mut next = self.clone();
        for family in &file.family {
            for models in &family.models {
                let base = family.like.as_deref().map_or_else(|| models.replace('*', ""), str::to_owned);
                let traits = family.apply(next.family(next.search(&base)).clone())?;
                let pattern = Pattern::new(models);
                next.families.retain(|(known, _)| *known != pattern);
                // Most specific first, and of two that are equally so the later one.
                let place = next.families.partition_point(|(known, _)| known.weight() > pattern.weight());
                next.families.insert(place, (pattern, traits));
            }
        }
        for entry in file.model {
            let created = entry.released.as_deref().map(unix_date).transpose()?;
            next.models.retain(|known| known.id != entry.id);
            if let Some(day) = &entry.retires {
                unix_date(day)?;
            }
            next.models.push(Model { id: entry.id, created, retires: entry.retires });
        }
        Ok(next)
    }

    /// What a model can do: the most specific pattern that matches its id decides.
    pub fn traits(&self, model: &str) -> &Traits {
        self.family(self.found.of(model, || self.search(model)))
    }

    fn search(&self, model: &str) -> Option<usize> {
        self.families.iter().position(|(pattern, _)| pattern.matches(model))
    }

    fn family(&self, at: Option<usize>) -> &Traits {
        at.and_then(|at| self.families.get(at)).map_or(&self.unknown, |(_, traits)| traits)
    }

    /// The concrete models, in the order of the file.
    pub fn models(&self) -> impl Iterator<Item = &Model> {
        self.models.iter()
    }
}

/// What a search among patterns has found for a name, kept: each request asks for the same few, several times. Names
/// come from clients, so there is an end to what is kept. A clone begins with nothing.
#[derive(Debug)]
pub struct Found<T>(ArcSwap<ByName<T>>);

impl<T> Default for Found<T> {
    fn default() -> Self {
        Self(ArcSwap::default())
    }
}

impl<T> Clone for Found<T> {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl<T: Clone> Found<T> {
    /// More names than a gateway serves models.
    const MOST: usize = 256;

    /// What was found for `name`, or is now.
    pub fn of(&self, name: &str, search: impl FnOnce() -> T) -> T {
        let known = self.0.load();
        if let Some(found) = known.get(name) {
            return found.clone();
        }
        let found = search();
        if known.len() < Self::MOST {
            self.0.rcu(|known| {
                let mut more = ByName::clone(known);
                more.insert(name.into(), found.clone());
                more
            });
        }
        found
    }
}

/// A model name in which `*` stands for any run of characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    text: String,
    /// Where the first star stands; the length, where there is none.
    head: usize,
    weight: (bool, usize),
}

impl Pattern {
    /// The pattern as written.
    pub fn new(text: impl Into<String>) -> Self {
        let text = text.into();
        let stars = text.matches('*').count();
        let head = text.find('*').unwrap_or(text.len());
        let weight = (stars == 0, text.len() - stars);
        Self { text, head, weight }
    }

    /// The text it was made from.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether the whole name fits.
    pub fn matches(&self, name: &str) -> bool {
        // Dozens of patterns are asked for each request, and nearly all end here.
        let Some((head, rest)) = self.text.split_at_checked(self.head) else { return false };
        let Some(mut name) = name.strip_prefix(head) else { return false };
        let Some(rest) = rest.strip_prefix('*') else { return name.is_empty() };
        // Most have one star, at the end.
        if rest.is_empty() {
            return true;
        }
        // What follows the last star must end the name; the pieces between are found greedily from the left.
        let (pieces, tail) = rest.rsplit_once('*').unwrap_or(("", rest));
        for piece in pieces.split('*') {
            let Some(at) = name.find(piece) else { return false };
            name = name.get(at + piece.len()..).unwrap_or_default();
        }
        name.ends_with(tail)
    }

    /// How specific it is: a full name beats every pattern, then the longer text wins.
    pub fn weight(&self) -> (bool, usize) {
        self.weight
    }
}

/// The bare id behind what a client may write as a model: `models/x`, `google/x`,
/// `publishers/google/models/x` and `x` are the same model. What is returned is safe inside a URL path.
pub fn model_id(name: &str) -> Result<String> {
    let mut id = name;
    for prefix in ["publishers/google/models/", "google/models/", "models/", "google/"] {
        if let Some(rest) = id.strip_prefix(prefix) {
            id = rest;
            break;
        }
    }
    let last = id.strip_prefix("tunedModels/").or_else(|| id.strip_prefix("endpoints/")).unwrap_or(id);
    if last.is_empty() {
        return Err(Error::invalid("model", "you must provide a model parameter"));
    }
    let fits = id.len() <= 256
        && !dotted(id)
        && last != "."
        && last
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b':' | b'@' | b'-'));
    if fits {
        Ok(id.to_owned())
    } else {
        let shown: String = name.chars().take(64).filter(|c| !c.is_control()).collect();
        Err(Error::invalid("model", format!("'{shown}' is not a model name.")))
    }
}

/// Whether two dots stand side by side, as they do in a path that leads elsewhere.
pub fn dotted(name: &str) -> bool {
    // Names are short: a search that prepares itself would cost more than looking.
    name.as_bytes().windows(2).any(|pair| pair == b"..")
}

fn wrong(message: String) -> Error {
    Error::new(Kind::Internal, Origin::Gateway, message)
}

fn unix_date(text: &str) -> Result<u64> {
    let seconds = format!("{text}T00:00:00Z")
        .parse::<jiff::Timestamp>()
        .map_err(|error| wrong(format!("The model catalogue has a date it should not have: {error}")))?
        .as_second();
    Ok(u64::try_from(seconds).unwrap_or(0))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    family: Vec<Family>,
    #[serde(default)]
    model: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    id: String,
    released: Option<String>,
    retires: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Family {
    models: Vec<String>,
    like: Option<String>,
    thinking: Option<Steering>,
    levels: Option<Vec<Level>>,
    budget: Option<Budget>,
    sampling: Option<bool>,
    penalties: Option<bool>,
    logprobs: Option<bool>,
    seed: Option<bool>,
    stops: Option<bool>,
    tiers: Option<bool>,
    max_candidates: Option<u32>,
    prefill: Option<bool>,
    call_ids: Option<bool>,
    signatures: Option<bool>,
    streams_arguments: Option<bool>,
    mixed_tools: Option<bool>,
    tools_with_schema: Option<bool>,
    json_schema: Option<bool>,
    system_instruction: Option<bool>,
    multimodal_results: Option<bool>,
    remote_uris: Option<bool>,
    media_resolution: Option<bool>,
    long_decode: Option<bool>,
    input: Option<Vec<String>>,
    output: Option<Vec<String>>,
    context_window: Option<u64>,
    max_output_tokens: Option<u64>,
    embedding: Option<Embedding>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Steering {
    None,
    Budget,
    Levels,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
struct Budget {
    min: u32,
    max: u32,
    can_be_off: bool,
}

impl Family {
    fn apply(&self, base: Traits) -> Result<Traits> {
        Ok(Traits {
            thinking: self.thinking()?.unwrap_or(base.thinking),
            sampling: self.sampling.unwrap_or(base.sampling),
            penalties: self.penalties.unwrap_or(base.penalties),
            logprobs: self.logprobs.unwrap_or(base.logprobs),
            seed: self.seed.unwrap_or(base.seed),
            stops: self.stops.unwrap_or(base.stops),
            tiers: self.tiers.unwrap_or(base.tiers),
            max_candidates: self.max_candidates.unwrap_or(base.max_candidates),
            prefill: self.prefill.unwrap_or(base.prefill),
            call_ids: self.call_ids.unwrap_or(base.call_ids),
            signatures: self.signatures.unwrap_or(base.signatures),
            streams_arguments: self.streams_arguments.unwrap_or(base.streams_arguments),
            mixed_tools: self.mixed_tools.unwrap_or(base.mixed_tools),
            tools_with_schema: self.tools_with_schema.unwrap_or(base.tools_with_schema),
            json_schema: self.json_schema.unwrap_or(base.json_schema),
            system_instruction: self.system_instruction.unwrap_or(base.system_instruction),
            multimodal_results: self.multimodal_results.unwrap_or(base.multimodal_results),
            remote_uris: self.remote_uris.unwrap_or(base.remote_uris),
            media_resolution: self.media_resolution.unwrap_or(base.media_resolution),
            long_decode: self.long_decode.unwrap_or(base.long_decode),
            input: self.input.clone().unwrap_or(base.input),
            output: self.output.clone().unwrap_or(base.output),
            context_window: self.context_window.or(base.context_window),
            max_output_tokens: self.max_output_tokens.or(base.max_output_tokens),
            embedding: self.embedding.unwrap_or(base.embedding),
        })
    }

    /// `levels` or `budget` may stand alone; `thinking` is only needed to say "none".
    fn thinking(&self) -> Result<Option<Thinking>> {
        match (self.thinking, &self.levels, self.budget) {
            (None, None, None) => Ok(None),
            (Some(Steering::None), None, None) => Ok(Some(Thinking::None)),
            (None | Some(Steering::Levels), Some(levels), None) if !levels.is_empty() => {
                let mut levels = levels.clone();
                levels.sort_unstable();
                levels.dedup();
                Ok(Some(Thinking::Levels(levels)))
            }
            (None | Some(Steering::Budget), None, Some(Budget { min, max, can_be_off })) if min <= max => {
                Ok(Some(Thinking::Budget { min, max, can_be_off }))
            }
            _ => Err(wrong(format!(
                "The model catalogue contradicts itself on thinking for {}: give levels, or budget, or thinking = \"none\".",
                self.models.join(", ")
            ))),
        }
    }
}

#[cfg(test)]
mod tests;
