//! Embeddings: unit vectors that depend on the text and on nothing else.

use std::hash::{DefaultHasher, Hash, Hasher};

use serde_json::{Value, json};

use super::turns::{self, items};
use super::usage::Prompt;
use super::validate::Refusal;

/// `embedContent`.
pub(super) fn one(ask: &Value, size: usize, vertex: bool) -> Result<Value, Refusal> {
    let mut prompt = Prompt::default();
    let vector = vector(ask, size, &mut prompt, vertex)?;
    let mut answer = json!({ "embedding": { "values": vector }, "usageMetadata": usage(&prompt) });
    if vertex && let Some(map) = answer.as_object_mut() {
        map.insert("truncated".into(), false.into());
    }
    Ok(answer)
}

/// `batchEmbedContents`.
pub(super) fn batch(ask: &Value, model: &str, size: usize, vertex: bool) -> Result<Value, Refusal> {
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
        if !vertex && named.strip_prefix("models/").unwrap_or(named) != model {
            return Err(Refusal::invalid(format!(
                "* BatchEmbedContentsRequest.requests[{index}].model: must match the model of the batch\n"
            )));
        }
        vectors.push(json!({ "values": vector(request, size, &mut prompt, vertex)? }));
    }
    Ok(json!({ "embeddings": vectors, "usageMetadata": usage(&prompt) }))
}

fn usage(prompt: &Prompt) -> Value {
    json!({ "promptTokenCount": prompt.total(), "promptTokenDetails": prompt.details() })
}

fn vector(ask: &Value, size: usize, prompt: &mut Prompt, vertex: bool) -> Result<Vec<f64>, Refusal> {
    let Some(content) = ask.get("content") else {
        return Err(Refusal::invalid("* EmbedContentRequest.content: contents is not specified\n"));
    };
    turns::parts(content, "EmbedContentRequest.content", vertex)?;
    prompt.add(content);
    let wanted = ask
        .get("outputDimensionality")
        .or_else(|| ask.get("embedContentConfig").and_then(|config| config.get("outputDimensionality")))
        .and_then(Value::as_u64);
    let size = match wanted.map(usize::try_from) {
        None => size,
        Some(Ok(wanted)) if (1..=size).contains(&wanted) => wanted,
        Some(_) => {
            return Err(Refusal::invalid(format!(
                "The output dimensionality must be in the range from 1 to {size} (inclusive)."
            )));
        }
    };
    let mut hasher = DefaultHasher::new();
    content.to_string().hash(&mut hasher);
    let mut state = hasher.finish() | 1;
    let mut values: Vec<f64> = (0..size)
        .map(|_| {
            // xorshift: cheap, and the same everywhere.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            f64::from(u32::try_from(state >> 32).unwrap_or(0)) / f64::from(u32::MAX) - 0.5
        })
        .collect();
    let length = values.iter().map(|value| value * value).sum::<f64>().sqrt().max(f64::MIN_POSITIVE);
    for value in &mut values {
        *value /= length;
    }
    Ok(values)
}
