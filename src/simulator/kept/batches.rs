//! Batches: answered one after the other when somebody looks.

use http::Response;
use serde_json::{Map, Value, json};

use super::super::faults::Fault;
use super::super::models::Model;
use super::super::rules::{self, Way};
use super::super::schema_fields::{GENERATE, Side};
use super::super::validate::{self, Refusal};
use super::super::{json_reply, script, stream};
use super::{Answered, Ask, Kept, empty, now, time, unknown};
use crate::body::Body;

/// The most requests in one batch that the simulator takes.
const MOST: usize = 1_000;
/// How long a batch waits, and how long it runs, in milliseconds.
const WAITS: u64 = 100;
const RUNS: u64 = 300;

/// One batch.
#[derive(Clone, Debug)]
pub(in crate::simulator) struct Batch {
    model: String,
    display: Value,
    input: Value,
    answers: Vec<Value>,
    failed: usize,
    made: u64,
    cancelled: bool,
}

impl Batch {
    fn state(&self) -> &'static str {
        let age = now().saturating_sub(self.made);
        match age {
            _ if self.cancelled => "BATCH_STATE_CANCELLED",
            _ if age < WAITS => "BATCH_STATE_PENDING",
            _ if age < RUNS => "BATCH_STATE_RUNNING",
            _ => "BATCH_STATE_SUCCEEDED",
        }
    }

    fn show(&self, name: &str) -> Value {
        let state = self.state();
        let over = self.cancelled || state == "BATCH_STATE_SUCCEEDED";
        let count = self.answers.len();
        let mut metadata = json!({
            "@type": "type.googleapis.com/google.ai.generativelanguage.v1beta.GenerateContentBatch",
            "name": name,
            "model": format!("models/{}", self.model),
            "displayName": self.display,
            "state": state,
            "createTime": time(self.made),
            "updateTime": time(now()),
            "inputConfig": self.input,
            "batchStats": { "requestCount": count.to_string() },
        });
        let mut operation = Map::new();
        operation.insert("name".into(), name.into());
        if over && let Some(map) = metadata.as_object_mut() {
            map.insert("endTime".into(), time(self.made + RUNS).into());
        }
        let output = json!({ "inlinedResponses": { "inlinedResponses": self.answers } });
        if state == "BATCH_STATE_SUCCEEDED" {
            if let Some(map) = metadata.as_object_mut() {
                map.insert("output".into(), output.clone());
                let good = (count - self.failed).to_string();
                map.insert(
                    "batchStats".into(),
                    json!({ "requestCount": count.to_string(), "successfulRequestCount": good }),
                );
            }
            operation.insert("metadata".into(), metadata);
            operation.insert("done".into(), true.into());
            let mut response = output;
            if let Some(map) = response.as_object_mut() {
                map.insert(
                    "@type".into(),
                    "type.googleapis.com/google.ai.generativelanguage.v1beta.GenerateContentBatchOutput"
                        .into(),
                );
            }
            operation.insert("response".into(), response);
        } else {
            operation.insert("metadata".into(), metadata);
            if self.cancelled {
                operation.insert("done".into(), true.into());
                operation.insert("error".into(), json!({ "code": 1, "message": "The batch was cancelled." }));
            }
        }
        Value::Object(operation)
    }
}

/// `models/M:batchGenerateContent`.
pub(in crate::simulator) fn create(kept: &Kept, body: &[u8], model: &'static Model) -> Answered {
    let asked: Value = serde_json::from_slice(body)
        .map_err(|error| Refusal::invalid(format!("Invalid JSON payload received. {error}")))?;
    let batch = asked.get("batch").ok_or_else(|| Refusal::invalid("* batch: batch is not specified\n"))?;
    let member =
        |value: &Value, camel: &str, snake: &str| value.get(camel).or_else(|| value.get(snake)).cloned();
    let input = member(batch, "inputConfig", "input_config")
        .ok_or_else(|| Refusal::invalid("* batch.input_config: input config is not specified\n"))?;
    if member(&input, "fileName", "file_name").is_some() {
        return Err(Refusal::new(
            501,
            "UNIMPLEMENTED",
            "The simulator takes the requests of a batch inline only.",
        ));
    }
    let requests = input.get("requests").and_then(|list| list.get("requests")).and_then(Value::as_array);
    let requests = requests.filter(|list| (1..=MOST).contains(&list.len()));
    let requests =
        requests.ok_or_else(|| Refusal::invalid("* batch.input_config.requests: must not be empty\n"))?;
    let mut answers = Vec::with_capacity(requests.len());
    let mut failed = 0;
    for item in requests {
        let mut answer = Map::new();
        if let Some(metadata) = item.get("metadata") {
            answer.insert("metadata".into(), metadata.clone());
        }
        let text = item.get("request").map(Value::to_string).unwrap_or_default();
        match one(text.as_bytes(), model) {
            Ok(response) => answer.insert("response".into(), response),
            Err(refusal) => {
                failed += 1;
                let status = json!({ "code": 3, "message": refusal.message });
                answer.insert("error".into(), status)
            }
        };
        answers.push(Value::Object(answer));
    }
    let batch = Batch {
        model: model.id.to_owned(),
        display: member(batch, "displayName", "display_name").unwrap_or_default(),
        input,
        answers,
        failed,
        made: now(),
        cancelled: false,
    };
    let mut shelf = kept.batches.lock();
    let id = shelf.name("");
    let shown = batch.show(&format!("batches/{id}"));
    shelf.put(id, batch);
    Ok(json_reply(&shown))
}

fn one(body: &[u8], model: &'static Model) -> Result<Value, Refusal> {
    let ask = validate::parse(body, &GENERATE, Side::Gemini)?;
    rules::check(&ask, model, Way { vertex: false, stream: false })?;
    let answer = script::answer(&ask, body, model, Fault::None);
    Ok(stream::whole(&answer, model.id, Fault::None, false))
}

pub(super) fn serve(kept: &Kept, ask: &Ask<'_>) -> Answered {
    let (id, rest) = ask.named();
    let missing = || Refusal::new(404, "NOT_FOUND", "Requested entity was not found.");
    let mut shelf = kept.batches.lock();
    let shown = |batch: &mut Batch| -> Response<Body> { json_reply(&batch.show(&format!("batches/{id}"))) };
    match (ask.method.as_str(), id, rest) {
        ("GET", "", "") => shelf
            .page(&ask.query, ("pageSize", "pageToken"), "operations", |id, batch| {
                batch.show(&format!("batches/{id}"))
            })
            .map(|page| json_reply(&page)),
        ("GET", id, "") => shelf.get(id).map(shown).ok_or_else(missing),
        ("POST", id, "cancel") => {
            let batch = shelf.get(id).ok_or_else(missing)?;
            batch.cancelled |= batch.state() != "BATCH_STATE_SUCCEEDED";
            Ok(empty())
        }
        ("DELETE", id, "") => shelf.take(id).map(|_| empty()).ok_or_else(missing),
        _ => Err(unknown(ask)),
    }
}
