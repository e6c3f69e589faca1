//! The models the simulator knows. A table of its own, on purpose: it must catch a mistake in the gateway's
//! catalogue, so it may not be made from it.

use serde_json::{Value, json};

use super::validate::Refusal;

/// How a model is told to think.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Thinking {
    None,
    Budget { min: i64, max: i64, off: bool },
    Levels(&'static [&'static str]),
}

/// What a model answers with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Makes {
    Text,
    /// Vectors, of this many numbers unless told otherwise.
    Vectors(usize),
}

/// One model.
#[derive(Clone, Copy, Debug)]
pub(super) struct Model {
    pub(super) id: &'static str,
    /// 3.5 is 35.
    pub(super) version: u8,
    pub(super) thinking: Thinking,
    pub(super) makes: Makes,
    pub(super) output: i64,
    /// The conversation may end with the model's turn.
    pub(super) prefill: bool,
    pub(super) logprobs: bool,
    /// The Gemini API does not know it.
    pub(super) vertex_only: bool,
}

impl Model {
    /// Calls carry ids, and signatures that must come back.
    pub(super) fn signs(&self) -> bool {
        self.version >= 30
    }
}

const ALL: &[&str] = &["MINIMAL", "LOW", "MEDIUM", "HIGH"];
const NO_MINIMAL: &[&str] = &["LOW", "MEDIUM", "HIGH"];
const EXTRA: &[&str] = &["LOW", "MEDIUM", "HIGH", "XHIGH"];
const PRO: Thinking = Thinking::Budget { min: 128, max: 32_768, off: false };
const FLASH: Thinking = Thinking::Budget { min: 1, max: 24_576, off: true };
const LITE: Thinking = Thinking::Budget { min: 512, max: 24_576, off: true };

const fn text(id: &'static str, version: u8, thinking: Thinking) -> Model {
    let old = version < 25;
    let output = if old { 8_192 } else { 65_536 };
    let logprobs = matches!(thinking, FLASH | LITE) || old;
    Model {
        id,
        version,
        thinking,
        makes: Makes::Text,
        output,
        prefill: version <= 35,
        logprobs,
        vertex_only: false,
    }
}

const fn no_prefill(model: Model) -> Model {
    Model { prefill: false, ..model }
}

const fn vectors(id: &'static str, size: usize) -> Model {
    let base = text(id, 20, Thinking::None);
    Model { makes: Makes::Vectors(size), ..base }
}

/// Every model the simulator answers for.
pub(super) static MODELS: &[Model] = &[
    text("gemini-4-argon", 40, Thinking::Levels(NO_MINIMAL)),
    text("gemini-4-carbon", 40, Thinking::Levels(NO_MINIMAL)),
    text("gemini-4-hydrogen", 40, Thinking::Levels(EXTRA)),
    text("gemini-4-neon", 40, Thinking::Levels(EXTRA)),
    text("gemini-3.8-flash", 38, Thinking::Levels(NO_MINIMAL)),
    text("gemini-flash-latest", 38, Thinking::Levels(NO_MINIMAL)),
    text("gemini-3.7-flash", 37, Thinking::Levels(NO_MINIMAL)),
    text("gemini-3.6-flash", 36, Thinking::Levels(ALL)),
    text("gemini-3.5-flash", 35, Thinking::Levels(ALL)),
    no_prefill(text("gemini-3.5-flash-lite", 35, Thinking::Levels(ALL))),
    no_prefill(text("gemini-flash-lite-latest", 35, Thinking::Levels(ALL))),
    text("gemini-3.1-pro-preview", 31, Thinking::Levels(NO_MINIMAL)),
    text("gemini-3.1-pro-preview-customtools", 31, Thinking::Levels(NO_MINIMAL)),
    text("gemini-pro-latest", 31, Thinking::Levels(NO_MINIMAL)),
    text("gemini-3.1-flash-lite", 31, Thinking::Levels(ALL)),
    text("gemini-3.1-flash-lite-preview", 31, Thinking::Levels(ALL)),
    text("gemini-3-flash-preview", 30, Thinking::Levels(ALL)),
    text("gemini-3-pro-preview", 30, Thinking::Levels(NO_MINIMAL)),
    text("gemini-2.5-pro", 25, PRO),
    text("gemini-2.5-pro-preview-03-25", 25, PRO),
    text("gemini-2.5-flash", 25, FLASH),
    text("gemini-2.5-flash-preview-09-2025", 25, FLASH),
    text("gemini-2.5-flash-lite", 25, LITE),
    text("gemini-2.0-flash", 20, Thinking::None),
    text("gemini-2.0-flash-exp", 20, Thinking::None),
    text("gemini-2.0-flash-lite", 20, Thinking::None),
    text("gemini-1.5-flash", 15, Thinking::None),
    text("gemma-4-31b-it", 26, Thinking::None),
    text("gemma-4-26b-a4b-it", 26, Thinking::None),
    vectors("gemini-embedding-001", 3_072),
    vectors("gemini-embedding-2", 3_072),
    Model { vertex_only: true, ..vectors("text-embedding-005", 768) },
    Model { vertex_only: true, ..vectors("text-multilingual-embedding-002", 768) },
];

/// Stands for every `sim-…` name: takes anything any family takes.
static FAULTY: Model = Model { prefill: true, logprobs: true, ..text("sim", 26, FLASH) };

/// Looks a model up by its name in the path.
pub(super) fn find(name: &str) -> Option<&'static Model> {
    if name.starts_with("sim-") {
        return Some(&FAULTY);
    }
    MODELS.iter().find(|model| model.id == name)
}

/// Google's word on a name it does not know.
pub(super) fn unknown(name: &str, version: &str, method: &str) -> Refusal {
    Refusal::new(
        404,
        "NOT_FOUND",
        format!(
            "models/{name} is not found for API version {version}, or is not supported for {method}. Call \
             ListModels to see the list of available models and their supported methods."
        ),
    )
}

fn describe(model: &Model) -> Value {
    let methods: &[&str] = match model.makes {
        Makes::Text => &["generateContent", "streamGenerateContent", "countTokens"],
        Makes::Vectors(_) => &["embedContent", "batchEmbedContents", "countTokens"],
    };
    json!({
        "name": format!("models/{}", model.id),
        "version": "001",
        "displayName": model.id,
        "description": "Simulated.",
        "inputTokenLimit": if matches!(model.makes, Makes::Text) { 1_048_576 } else { 2_048 },
        "outputTokenLimit": model.output,
        "supportedGenerationMethods": methods,
        "temperature": 1,
        "topP": 0.95,
        "topK": 64,
        "maxTemperature": 2,
        "thinking": model.thinking != Thinking::None,
    })
}

/// The same at Vertex AI, which tells less.
fn publisher(model: &Model) -> Value {
    json!({ "name": format!("publishers/google/models/{}", model.id), "versionId": "default", "launchStage": "GA" })
}

/// `GET models/{m}`.
pub(super) fn get(name: &str, version: &str, vertex: bool) -> Result<Value, Refusal> {
    match MODELS.iter().find(|model| model.id == name && (vertex || !model.vertex_only)) {
        Some(model) if vertex => Ok(publisher(model)),
        Some(model) => Ok(describe(model)),
        None => Err(unknown(name, version, "generateContent")),
    }
}

/// `GET models`: a page of them.
pub(super) fn list(query: &super::Query, vertex: bool) -> Result<Value, Refusal> {
    let size = match query.get("pageSize").map(str::parse::<usize>) {
        None | Some(Ok(0)) => 50,
        Some(Ok(size)) => size.min(1_000),
        Some(Err(_)) => {
            let message = "Invalid value at 'page_size' (TYPE_INT32)";
            return Err(Refusal::invalid(message));
        }
    };
    let start = match query.get("pageToken").filter(|token| !token.is_empty()).map(str::parse::<usize>) {
        None => 0,
        Some(Ok(start)) if start < MODELS.len() => start,
        Some(_) => return Err(Refusal::invalid("Request contains an invalid argument: page token")),
    };
    let page = MODELS.iter().filter(|model| vertex || !model.vertex_only).skip(start).take(size);
    let models: Vec<Value> =
        if vertex { page.map(publisher).collect() } else { page.map(describe).collect() };
    let mut answer = json!({ (if vertex { "publisherModels" } else { "models" }): models });
    let next = start.saturating_add(size);
    if next < MODELS.len()
        && let Some(map) = answer.as_object_mut()
    {
        map.insert("nextPageToken".into(), next.to_string().into());
    }
    Ok(answer)
}
