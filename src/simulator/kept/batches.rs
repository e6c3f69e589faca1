//! Batches: answered one after the other when somebody looks.

use http::Response;
use serde_json::{Map, Value, json};

use super::super::faults::Fault;
use super::super::models::{Makes, Model};
use super::super::rules::{self, Way};
use super::super::schema_fields::{EMBED, GENERATE, Side};
use super::super::validate::{self, Refusal};
use super::super::{embed, json_reply, script, stream};
use super::{Answered, Ask, Kept, empty, files, now, time, unknown};
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
    /// Where the answers are: in a file, or here.
    output: Value,
    count: usize,
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
        let count = self.count;
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
        if state == "BATCH_STATE_SUCCEEDED" {
            if let Some(map) = metadata.as_object_mut() {
                map.insert("output".into(), self.output.clone());
                let good = (count - self.failed).to_string();
                let mut stats = json!({ "requestCount": count.to_string(), "successfulRequestCount": good });
                if self.failed > 0
                    && let Some(stats) = stats.as_object_mut()
                {
                    stats.insert("failedRequestCount".into(), self.failed.to_string().into());
                }
                map.insert("batchStats".into(), stats);
            }
            operation.insert("metadata".into(), metadata);
            operation.insert("done".into(), true.into());
            let mut response = self.output.clone();
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

/// `models/M:batchGenerateContent` and `models/M:asyncBatchEmbedContent`.
pub(in crate::simulator) fn create(kept: &Kept, body: &[u8], model: &'static Model) -> Answered {
    let asked: Value = serde_json::from_slice(body)
        .map_err(|error| Refusal::invalid(format!("Invalid JSON payload received. {error}")))?;
    let batch = asked.get("batch").ok_or_else(|| Refusal::invalid("* batch: batch is not specified\n"))?;
    let member =
        |value: &Value, camel: &str, snake: &str| value.get(camel).or_else(|| value.get(snake)).cloned();
    let input = member(batch, "inputConfig", "input_config")
        .ok_or_else(|| Refusal::invalid("* batch.input_config: input config is not specified\n"))?;
    let file = member(&input, "fileName", "file_name");
    let from_file = file.is_some();
    // In a file each line is a request with its key; inline each has what it pleases.
    let (requests, mark) = if let Some(name) = &file {
        (read(kept, name.as_str().unwrap_or_default())?, "key")
    } else {
        let list = input.get("requests").and_then(|list| list.get("requests")).and_then(Value::as_array);
        (list.cloned().unwrap_or_default(), "metadata")
    };
    if !(1..=MOST).contains(&requests.len()) {
        return Err(Refusal::invalid(format!("* batch.input_config.requests: must be 1 to {MOST}\n")));
    }
    let (count, mut failed) = (requests.len(), 0);
    let answers = requests.iter().map(|item| {
        let mut answer = Map::new();
        if let Some(marked) = item.get(mark) {
            answer.insert(mark.into(), marked.clone());
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
        Value::Object(answer)
    });
    let output = if from_file {
        let mut lines = Vec::new();
        for answer in answers {
            lines.extend_from_slice(answer.to_string().as_bytes());
            lines.push(b'\n');
        }
        json!({ "responsesFile": files::generate(kept, lines) })
    } else {
        json!({ "inlinedResponses": { "inlinedResponses": answers.collect::<Vec<_>>() } })
    };
    let batch = Batch {
        model: model.id.to_owned(),
        display: member(batch, "displayName", "display_name").unwrap_or_default(),
        input,
        output,
        count,
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

/// The requests of a file; a line that is none becomes one that fails.
fn read(kept: &Kept, name: &str) -> Result<Vec<Value>, Refusal> {
    let text = files::lines(kept, name)?;
    let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty());
    Ok(lines.map(|line| serde_json::from_slice(line).unwrap_or_default()).collect())
}

fn one(body: &[u8], model: &'static Model) -> Result<Value, Refusal> {
    if let Makes::Vectors(size) = model.makes {
        let ask = validate::parse(body, &EMBED, Side::Gemini)?;
        return embed::one(&ask, model, size, false);
    }
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
