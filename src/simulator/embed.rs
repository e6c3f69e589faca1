//! Embeddings: vectors that depend on the text and on nothing else.

use std::hash::{DefaultHasher, Hash, Hasher};

use serde_json::{Value, json};

use super::models::Model;
use super::turns::{self, items};
use super::usage::{self, Prompt};
use super::validate::Refusal;

/// Vectors of this model are of length one at their full size only; the start of one is shorter.
const CUT: &str = "gemini-embedding-001";
/// What one text may have before its end is cut off.
const MOST_TOKENS: u64 = 2_048;

/// What is asked of all inputs alike.
#[derive(Clone, Copy)]
struct Wish {
    size: usize,
    full: usize,
    unit: bool,
}

impl Wish {
    fn new(model: &Model, full: usize, wanted: Option<&Value>) -> Result<Self, Refusal> {
        let size = match wanted.map(|wanted| wanted.as_u64().and_then(|size| usize::try_from(size).ok())) {
            None => full,
            Some(Some(size)) if (1..=full).contains(&size) => size,
            Some(_) => {
                return Err(Refusal::invalid(format!(
                    "The output dimensionality must be in the range from 1 to {full} (inclusive)."
                )));
            }
        };
        Ok(Self { size, full, unit: model.id != CUT })
    }
}

/// `embedContent`.
pub(super) fn one(ask: &Value, model: &Model, size: usize, vertex: bool) -> Result<Value, Refusal> {
    let mut prompt = Prompt::default();
    let vector = embedded(ask, model, size, &mut prompt, vertex)?;
    let mut answer = json!({ "embedding": { "values": vector }, "usageMetadata": counts(&prompt) });
    if vertex && let Some(map) = answer.as_object_mut() {
        map.insert("truncated".into(), (prompt.total() > 4 * MOST_TOKENS).into());
    }
    Ok(answer)
}

/// `batchEmbedContents`.
pub(super) fn batch(
    ask: &Value,
    (name, model): (&str, &Model),
    size: usize,
    vertex: bool,
) -> Result<Value, Refusal> {
    let requests = items(ask, "requests");
    if requests.is_empty() {
        return Err(Refusal::invalid("* BatchEmbedContentsRequest.requests: requests must not be empty\n"));
    }
    if requests.len() > 100 {
        return Err(Refusal::invalid(
            "* BatchEmbedContentsRequest.requests: at most 100 requests can be in one batch\n",
        ));
    }
    let mut prompt = Prompt::default();
    let mut vectors = Vec::with_capacity(requests.len());
    for (index, request) in requests.iter().enumerate() {
        let named = turns::string(request, "model");
        if !vertex && named.strip_prefix("models/").unwrap_or(named) != name {
            return Err(Refusal::invalid(format!(
                "* BatchEmbedContentsRequest.requests[{index}].model: must match the model of the batch\n"
            )));
        }
        vectors.push(json!({ "values": embedded(request, model, size, &mut prompt, vertex)? }));
    }
    Ok(json!({ "embeddings": vectors, "usageMetadata": counts(&prompt) }))
}

/// `predict`, the older way of Vertex AI: texts only, and a number of them that depends on the model.
pub(super) fn predict(ask: &Value, model: &Model, size: usize) -> Result<Value, Refusal> {
    let instances = items(ask, "instances");
    let most = if model.id == CUT { 1 } else { 250 };
    if instances.is_empty() || instances.len() > most {
        return Err(Refusal::invalid(format!(
            "{} instance(s) is allowed per prediction. Actual: {}",
            most,
            instances.len()
        )));
    }
    let parameters = ask.get("parameters");
    let parameter = |name: &str| parameters.and_then(|parameters| parameters.get(name));
    let wish = Wish::new(model, size, parameter("outputDimensionality"))?;
    let cuts = parameter("autoTruncate").and_then(Value::as_bool).unwrap_or(true);
    let (mut predictions, mut all, mut letters) = (Vec::with_capacity(instances.len()), 0, 0);
    for instance in instances {
        let text = turns::string(instance, "content");
        if text.is_empty() {
            return Err(Refusal::invalid("The text content is empty."));
        }
        fits_title(instance)?;
        let tokens = usage::count(text);
        if tokens > MOST_TOKENS && !cuts {
            return Err(Refusal::invalid(format!(
                "The input token count ({tokens}) exceeds the maximum number of tokens allowed ({MOST_TOKENS})."
            )));
        }
        all += tokens;
        letters += text.chars().filter(|letter| !letter.is_whitespace()).count();
        let values = vector(&json!({ "parts": [{ "text": text }] }), wish);
        let statistics = json!({ "token_count": tokens.min(MOST_TOKENS), "truncated": tokens > MOST_TOKENS });
        predictions.push(json!({ "embeddings": { "values": values, "statistics": statistics } }));
    }
    if all > 20_000 {
        return Err(Refusal::invalid(format!(
            "Unable to submit request because the input token count is {all} but the model supports up to 20000. \
             Reduce the input token count and try again."
        )));
    }
    Ok(json!({ "predictions": predictions, "metadata": { "billableCharacterCount": letters } }))
}

fn fits_title(ask: &Value) -> Result<(), Refusal> {
    let task = turns::string(ask, "taskType");
    if ask.get("title").is_some() && task != "RETRIEVAL_DOCUMENT" {
        return Err(Refusal::invalid(
            "A title can be given for task type RETRIEVAL_DOCUMENT only; it must be left out for others.",
        ));
    }
    Ok(())
}

fn counts(prompt: &Prompt) -> Value {
    json!({ "promptTokenCount": prompt.total(), "promptTokenDetails": prompt.details() })
}

fn embedded(
    ask: &Value,
    model: &Model,
    size: usize,
    prompt: &mut Prompt,
    vertex: bool,
) -> Result<Vec<f64>, Refusal> {
    let Some(content) = ask.get("content") else {
        return Err(Refusal::invalid("* EmbedContentRequest.content: contents is not specified\n"));
    };
    turns::parts(content, "EmbedContentRequest.content", vertex)?;
    let media = |part: &Value| part.get("inlineData").or_else(|| part.get("fileData")).is_some();
    if model.id == CUT && items(content, "parts").iter().any(media) {
        return Err(Refusal::invalid("The model does not support inputs other than text."));
    }
    let config = ask.get("embedContentConfig");
    fits_title(config.unwrap_or(ask))?;
    prompt.add(content);
    let wanted = ask
        .get("outputDimensionality")
        .or_else(|| config.and_then(|config| config.get("outputDimensionality")));
    Ok(vector(content, Wish::new(model, size, wanted)?))
}

fn vector(content: &Value, wish: Wish) -> Vec<f64> {
    let mut hasher = DefaultHasher::new();
    content.to_string().hash(&mut hasher);
    let mut state = hasher.finish() | 1;
    let mut values: Vec<f64> = (0..wish.full)
        .map(|_| {
            // xorshift: cheap, and the same everywhere.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            f64::from(u32::try_from(state >> 32).unwrap_or(0)) / f64::from(u32::MAX) - 0.5
        })
        .collect();
    let length = |values: &[f64]| values.iter().map(|value| value * value).sum::<f64>().sqrt();
    let all = length(&values);
    values.truncate(wish.size);
    let by = if wish.unit { length(&values) } else { all }.max(f64::MIN_POSITIVE);
    for value in &mut values {
        // Nine places, as Google writes them.
        *value = (*value / by * 1e9).round() / 1e9;
    }
    values
}
