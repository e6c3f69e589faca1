//! The simulator must take what Google took, refuse what Google refuses, and break as told.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a helper that cannot go on is a failed test"
)]

use std::time::Duration;

use bytes::Bytes;
use gemway::body;
use gemway::simulator::{Config, FAULTS, Simulator};
use http::{Request, Response};
use http_body_util::BodyExt;
use serde_json::{Value, json};

#[path = "common/recordings.rs"]
mod recorded;

const MODEL: &str = "/v1beta/models/gemini-3-flash-preview";

async fn send(simulator: &Simulator, path: &str, body: &Value) -> Response<body::Body> {
    let request = Request::post(path).body(Bytes::from(body.to_string())).unwrap();
    simulator.respond(request).await
}

async fn ask(path: &str, body: Value) -> (u16, Value) {
    let response = send(&Simulator::new(Config::default()), path, &body).await;
    let status = response.status().as_u16();
    let bytes = body::read(response.into_body(), 1 << 24).await.unwrap();
    (status, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
}

async fn generate(model: &str, body: Value) -> (u16, Value) {
    ask(&format!("/v1beta/models/{model}:generateContent"), body).await
}

fn user(text: &str) -> Value {
    json!({ "role": "user", "parts": [{ "text": text }] })
}

/// The events of an SSE body, up to its end or its break.
async fn events(response: Response<body::Body>) -> (Vec<String>, bool) {
    let mut body = response.into_body();
    let mut text = Vec::new();
    let mut broken = false;
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => text.extend_from_slice(&frame.into_data().unwrap()),
            Err(_) => broken = true,
        }
        if broken {
            break;
        }
    }
    let text = String::from_utf8_lossy(&text).into_owned();
    (text.split("\r\n\r\n").filter(|event| !event.is_empty()).map(str::to_owned).collect(), broken)
}

fn parsed(event: &str) -> Value {
    serde_json::from_str(event.strip_prefix("data: ").unwrap()).unwrap()
}

#[tokio::test]
async fn judges_the_recorded_requests_as_google_did() {
    judge(recorded::copies(), 40).await;
}

#[tokio::test]
#[ignore = "needs the whole collection, at GEMWAY_RECORDINGS"]
async fn the_whole_collection() {
    judge(recorded::collection(), 150).await;
}

async fn judge(recordings: Vec<std::path::PathBuf>, least: usize) {
    let simulator = Simulator::new(Config::default());
    let mut wrong = Vec::new();
    let mut seen = 0;
    for path in recordings {
        let recording: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let target = recording["path"].as_str().unwrap();
        if !target.contains("/models/") {
            continue;
        }
        // Files of somebody else's project are not in this one, as Google would say too.
        if recording["request"].to_string().contains("/files/") {
            continue;
        }
        seen += 1;
        let response = send(&simulator, target, &recording["request"]).await;
        let status = u64::from(response.status().as_u16());
        let answer = body::read(response.into_body(), 1 << 24).await.unwrap();
        if Some(status) != recording["status"].as_u64() {
            let said = String::from_utf8_lossy(&answer).chars().take(400).collect::<String>();
            wrong.push(format!("{}: {status} {said}", path.display()));
        }
    }
    assert!(wrong.is_empty(), "{} of {seen}:\n{}", wrong.len(), wrong.join("\n"));
    assert!(seen >= least, "only {seen}");
    assert_eq!((simulator.in_flight(), simulator.cancelled()), (0, 0));
}

#[tokio::test]
async fn echoes_with_a_consistent_usage() {
    let (status, answer) = generate("gemini-2.5-flash", json!({ "contents": [user("good morning")] })).await;
    assert_eq!(status, 200);
    let candidate = &answer["candidates"][0];
    assert_eq!(candidate["content"]["parts"][0]["text"], "You said: good morning");
    assert_eq!(candidate["finishReason"], "STOP");
    let usage = &answer["usageMetadata"];
    let count = |name: &str| usage[name].as_u64().unwrap_or(0);
    assert_eq!(count("totalTokenCount"), count("promptTokenCount") + count("candidatesTokenCount"));
    let system = json!({ "contents": [user("hi"), { "role": "model", "parts": [{ "text": "hello" }] }, user("again")],
        "system_instruction": { "parts": [{ "text": "be kind" }] } });
    assert_eq!(generate("gemini-2.5-flash", system).await.0, 200);
}

#[tokio::test]
async fn refuses_what_the_parser_refuses() {
    let contents = json!([user("hi")]);
    let cases = [
        (json!({ "contents": contents, "foo": 1 }), "Unknown name \"foo\": Cannot find field."),
        (
            json!({ "contents": contents, "generationConfig": { "temperature": "hot" } }),
            "Invalid value at 'generation_config.temperature' (TYPE_FLOAT), \"hot\"",
        ),
        (
            json!({ "contents": contents, "tools": [{ "functionDeclarations": [{ "name": "f", "parameters":
                { "type": "OBJECT", "properties": { "a": { "type": "STRING", "const": "x" } } } }] }] }),
            "Unknown name \"const\" at 'tools[0].function_declarations[0].parameters.properties[0].value'",
        ),
        (json!({ "contents": [{ "role": "tool", "parts": [{ "text": "x" }] }] }), "valid role: user, model"),
        (json!({ "contents": [] }), "contents is not specified"),
        (json!({ "contents": [{ "role": "user", "parts": [] }] }), "must not be empty"),
        (json!({ "contents": [{ "role": "user", "parts": [{}] }] }), "must have one initialized field"),
        (
            json!({ "contents": [{ "parts": [{ "text": "a", "inlineData": { "mimeType": "image/png", "data": "AA==" } }] }] }),
            "already set",
        ),
        (
            json!({ "contents": contents, "generationConfig": { "frequencyPenalty": 1 } }),
            "Penalty is not enabled",
        ),
        (
            json!({ "contents": contents, "generationConfig": { "stopSequences": ["1", "2", "3", "4", "5", "6"] } }),
            "stop sequences",
        ),
        (
            json!({ "contents": contents, "generationConfig": { "responseJsonSchema": { "type": "object" } } }),
            "response mime type",
        ),
        (
            json!({ "contents": contents, "generationConfig": { "thinkingConfig":
                { "thinkingLevel": "LOW", "thinkingBudget": 5 } } }),
            "only one of",
        ),
        (
            json!({ "contents": contents, "generationConfig": { "responseMimeType": "application/json",
                "responseSchema": { "type": "OBJECT", "properties": { "a": { "type": "ARRAY" } } } } }),
            "items: missing field",
        ),
    ];
    for (body, expected) in cases {
        let (status, answer) = generate("gemini-3-flash-preview", body.clone()).await;
        let message = answer["error"]["message"].as_str().unwrap_or_default();
        assert_eq!(status, 400, "{body}");
        assert!(message.contains(expected), "{body}: {message}");
        assert_eq!(answer["error"]["status"], "INVALID_ARGUMENT");
    }
    let (_, answer) = generate("gemini-2.5-flash", json!({ "contents": contents, "foo": 1 })).await;
    assert!(answer["error"]["details"][0]["fieldViolations"][0]["description"].is_string());
    let garbage =
        Request::post(format!("{MODEL}:generateContent")).body(Bytes::from_static(b"{\"a\":")).unwrap();
    assert_eq!(Simulator::new(Config::default()).respond(garbage).await.status(), 400);
    let (status, _) = generate("gemini-nonsense", json!({ "contents": contents })).await;
    assert_eq!(status, 404);
}

fn call_turn(signature: bool) -> Value {
    let mut part = json!({ "functionCall": { "id": "a", "name": "f", "args": {} } });
    if signature {
        part["thoughtSignature"] = "skip_thought_signature_validator".into();
    }
    json!({ "role": "model", "parts": [part] })
}

fn result_turn(name: &str) -> Value {
    json!({ "role": "user", "parts": [{ "functionResponse": { "id": "a", "name": name, "response": { "r": 1 } } }] })
}

#[tokio::test]
async fn insists_on_pairs_and_signatures() {
    let cases = [
        (json!([user("x"), call_turn(true), result_turn("f")]), 200, ""),
        (json!([user("x"), call_turn(false), result_turn("f")]), 400, "missing a thought_signature"),
        (json!([user("x"), call_turn(false), result_turn("f"), user("more")]), 200, ""),
        (json!([user("x"), call_turn(true), result_turn("g")]), 400, "does not match"),
        (json!([user("x"), call_turn(true), user("y")]), 400, "equal to the number"),
        (json!([user("x"), result_turn("f")]), 400, "immediately after a function call turn"),
        (json!([call_turn(true), result_turn("f")]), 400, "immediately after a user turn"),
    ];
    for (contents, expected, text) in cases {
        let (status, answer) = generate("gemini-3-flash-preview", json!({ "contents": contents })).await;
        assert_eq!(status, expected, "{contents}: {answer}");
        assert!(answer.to_string().contains(text), "{answer}");
    }
    let prefill = json!({ "contents": [user("x"), { "role": "model", "parts": [{ "text": "so" }] }] });
    assert_eq!(generate("gemini-3.8-flash", prefill.clone()).await.0, 400);
    assert_eq!(generate("gemini-2.5-flash", prefill).await.0, 200);
}

fn weather() -> Value {
    json!([{ "functionDeclarations": [{ "name": "get_weather", "parametersJsonSchema": {
        "type": "object", "required": ["city"],
        "properties": { "city": { "type": "string" }, "unit": { "enum": ["c", "f"] } } } }] }])
}

#[tokio::test]
async fn calls_functions() {
    let body = json!({ "contents": [user("What is the weather in Paris and Rome?")], "tools": weather() });
    let (_, answer) = generate("gemini-3-flash-preview", body).await;
    let parts = answer["candidates"][0]["content"]["parts"].as_array().unwrap();
    assert_eq!(parts.len(), 2, "{answer}");
    assert_eq!(parts[0]["functionCall"]["args"], json!({ "city": "Paris" }));
    assert_eq!(parts[1]["functionCall"]["args"], json!({ "city": "Rome" }));
    assert!(parts[0]["thoughtSignature"].is_string() && parts[1].get("thoughtSignature").is_none());
    assert_ne!(parts[0]["functionCall"]["id"], parts[1]["functionCall"]["id"]);
    let results: Vec<Value> = parts
        .iter()
        .map(|part| {
            json!({ "functionResponse": { "id": part["functionCall"]["id"], "name": "get_weather",
            "response": { "result": "12C" } } })
        })
        .collect();
    let follow = json!({ "contents": [user("What is the weather in Paris and Rome?"),
        answer["candidates"][0]["content"], { "role": "user", "parts": results }], "tools": weather() });
    let (status, answer) = generate("gemini-3-flash-preview", follow).await;
    assert_eq!(status, 200, "{answer}");
    assert!(answer["candidates"][0]["content"]["parts"][0]["text"].as_str().unwrap().contains("12C"));

    let forced = json!({ "contents": [user("hello")], "tools": weather(),
        "toolConfig": { "functionCallingConfig": { "mode": "ANY" } } });
    let (_, answer) = generate("gemini-2.5-flash", forced).await;
    let call = &answer["candidates"][0]["content"]["parts"][0]["functionCall"];
    assert_eq!(call["name"], "get_weather");
    assert!(call.get("id").is_none());
}

#[tokio::test]
async fn fills_schemas() {
    let schema = json!({ "type": "object", "required": ["name", "age", "tags", "node", "kind"],
        "properties": {
            "name": { "type": "string", "minLength": 20 }, "age": { "type": "integer", "minimum": 18, "maximum": 20 },
            "tags": { "type": "array", "items": { "type": "string" }, "minItems": 2 },
            "node": { "$ref": "#/$defs/Node" }, "kind": { "const": "x" } },
        "$defs": { "Node": { "type": "object", "required": ["next"], "properties": {
            "next": { "anyOf": [{ "$ref": "#/$defs/Node" }, { "type": "null" }] } } } } });
    let body = json!({ "contents": [user("make one of 500")], "generationConfig":
        { "responseMimeType": "application/json", "responseJsonSchema": schema } });
    let (_, answer) = generate("gemini-3-flash-preview", body).await;
    let text = answer["candidates"][0]["content"]["parts"][0]["text"].as_str().unwrap();
    let made: Value = serde_json::from_str(text).unwrap();
    assert_eq!(made["age"], 20);
    assert_eq!(made["kind"], "x");
    assert_eq!(made["tags"].as_array().unwrap().len(), 2);
    assert!(made["name"].as_str().unwrap().len() >= 20);
    assert!(made["node"]["next"].is_object());
}

#[tokio::test]
async fn thinks_and_stops_and_caps() {
    let body = json!({ "contents": [user("one two three four five")], "generationConfig":
        { "maxOutputTokens": 3, "thinkingConfig": { "thinkingBudget": 0 } } });
    let (_, answer) = generate("gemini-2.5-flash", body).await;
    assert_eq!(answer["candidates"][0]["finishReason"], "MAX_TOKENS");
    assert_eq!(answer["usageMetadata"]["candidatesTokenCount"], 3);
    let body = json!({ "contents": [user("one two three")], "generationConfig": { "stopSequences": ["two"],
        "thinkingConfig": { "includeThoughts": true } } });
    let (_, answer) = generate("gemini-2.5-flash", body).await;
    let parts = &answer["candidates"][0]["content"]["parts"];
    assert_eq!(parts[0]["thought"], true);
    assert_eq!(parts[1]["text"], "You said: one ");
    assert_eq!(answer["usageMetadata"]["thoughtsTokenCount"], 16);
}

#[tokio::test]
async fn streams_in_both_forms() {
    let simulator = Simulator::new(Config::default());
    let body = json!({ "contents": [user("one two three \u{1f980}")] });
    let response = send(&simulator, &format!("{MODEL}:streamGenerateContent?alt=sse"), &body).await;
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let (events, _) = events(response).await;
    let events: Vec<Value> = events.iter().map(|event| parsed(event)).collect();
    let text: String = events
        .iter()
        .filter_map(|event| event["candidates"][0]["content"]["parts"][0]["text"].as_str())
        .collect();
    assert_eq!(text, "You said: one two three \u{1f980}");
    let last = events.last().unwrap();
    assert_eq!(last["candidates"][0]["finishReason"], "STOP");
    assert_eq!(last["usageMetadata"]["candidatesTokenCount"], 6);
    assert_eq!(events.len(), 7);

    let response = send(&simulator, &format!("{MODEL}:streamGenerateContent"), &body).await;
    let bytes = body::read(response.into_body(), 1 << 20).await.unwrap();
    let array: Vec<Value> = serde_json::from_slice(&bytes).unwrap();
    assert_eq!(array, events);
    assert_eq!((simulator.in_flight(), simulator.cancelled()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn keeps_the_pace_and_notices_who_leaves() {
    let config =
        Config { time_to_first_token: Duration::from_secs(2), tokens_per_second: 10.0, ..Config::default() };
    let simulator = Simulator::new(config);
    let start = tokio::time::Instant::now();
    let body = json!({ "contents": [user("write 20 words")] });
    let response = send(&simulator, &format!("{MODEL}:streamGenerateContent?alt=sse"), &body).await;
    assert_eq!(start.elapsed(), Duration::from_secs(2));
    let mut body = response.into_body();
    let mut frames = 0;
    while let Some(frame) = body.frame().await {
        let data = frame.unwrap().into_data().unwrap();
        assert!(data.starts_with(b"data: ") && data.ends_with(b"\r\n\r\n"));
        frames += 1;
    }
    drop(body);
    assert_eq!(frames, 21);
    assert!(start.elapsed() >= Duration::from_secs(4) && start.elapsed() < Duration::from_millis(4_100));
    assert_eq!((simulator.in_flight(), simulator.cancelled()), (0, 0));

    let body = json!({ "contents": [user("write 20 words")] });
    let response = send(&simulator, &format!("{MODEL}:streamGenerateContent?alt=sse"), &body).await;
    let mut body = response.into_body();
    body.frame().await;
    assert_eq!(simulator.in_flight(), 1);
    drop(body);
    assert_eq!((simulator.in_flight(), simulator.cancelled()), (0, 1));
}

async fn fault(name: &str, stream: bool) -> Option<(u16, Vec<String>, bool)> {
    let simulator = Simulator::new(Config::default());
    let method = if stream { "streamGenerateContent?alt=sse" } else { "generateContent" };
    let path = format!("/v1beta/models/sim-{name}:{method}");
    let body = json!({ "contents": [user("hello")] });
    let work = async {
        let response = send(&simulator, &path, &body).await;
        let status = response.status().as_u16();
        let (events, broken) = events(response).await;
        (status, events, broken)
    };
    tokio::time::timeout(Duration::from_mins(1), work).await.ok()
}

#[tokio::test(start_paused = true)]
async fn breaks_as_told() {
    for name in FAULTS {
        for stream in [false, true] {
            let silent = ["hang", "stall"].contains(name);
            assert_eq!(fault(name, stream).await.is_none(), silent, "{name}");
        }
    }
    let (status, body, _) = fault("429-60s", false).await.unwrap();
    assert_eq!(status, 429);
    assert!(body[0].contains("\"retryDelay\":\"60s\""));
    assert!(fault("429-daily", false).await.unwrap().1[0].contains("PerDay"));
    for (name, count, broken) in
        [("reset", 3, true), ("cut", 3, false), ("half", 4, false), ("garbage", 4, false)]
    {
        let (status, events, was_broken) = fault(name, true).await.unwrap();
        assert_eq!((status, events.len(), was_broken), (200, count, broken), "{name}");
        assert!(!events.concat().contains("finishReason"), "{name}");
    }
    assert!(fault("reset", false).await.unwrap().2);
    let (_, events, _) = fault("error-mid", true).await.unwrap();
    assert_eq!(parsed(&events[3])["error"]["code"], 503);
    let (_, events, _) = fault("error-first", true).await.unwrap();
    assert_eq!(parsed(&events[0])["error"]["code"], 503);
    let (_, events, _) = fault("safety", true).await.unwrap();
    assert!(events.len() > 3);
    assert_eq!(parsed(events.last().unwrap())["candidates"][0]["finishReason"], "SAFETY");
    let (_, events, _) = fault("blocked", true).await.unwrap();
    assert_eq!(events.len(), 1);
    assert!(parsed(&events[0])["promptFeedback"]["blockReason"].is_string());
    let (_, events, _) = fault("array", true).await.unwrap();
    assert!(serde_json::from_str::<Vec<Value>>(&events[0]).is_ok());
    let (_, events, _) = fault("thinkcap", false).await.unwrap();
    let answer: Value = serde_json::from_str(&events[0]).unwrap();
    assert_eq!(answer["candidates"][0]["finishReason"], "MAX_TOKENS");
    assert!(answer["candidates"][0]["content"].get("parts").is_none());
}

#[tokio::test]
async fn embeds_counts_and_lists() {
    let content = json!({ "parts": [{ "text": "a b" }] });
    let path = "/v1beta/models/gemini-embedding-001:batchEmbedContents";
    let request =
        json!({ "model": "models/gemini-embedding-001", "content": content, "outputDimensionality": 8 });
    let (status, answer) = ask(path, json!({ "requests": [request, request] })).await;
    assert_eq!(status, 200, "{answer}");
    let values = answer["embeddings"][0]["values"].as_array().unwrap();
    let length: f64 = values.iter().map(|value| value.as_f64().unwrap().powi(2)).sum();
    assert_eq!(values.len(), 8);
    assert!(length < 0.5, "the start of a vector of length one is shorter: {length}");
    assert_eq!(answer["embeddings"][0], answer["embeddings"][1]);

    let one = json!({ "content": content, "outputDimensionality": 8 });
    let (_, answer) = ask("/v1beta/models/gemini-embedding-2:embedContent", one).await;
    let values = answer["embedding"]["values"].as_array().unwrap();
    let length: f64 = values.iter().map(|value| value.as_f64().unwrap().powi(2)).sum();
    assert!((length - 1.0).abs() < 1e-6, "this model's vectors are of length one at every size: {length}");

    let counted = json!({ "generateContentRequest": { "model": "models/gemini-3-flash-preview", "contents": [user("a b c")] } });
    assert_eq!(ask(&format!("{MODEL}:countTokens"), counted).await.1["totalTokens"], 3);

    let simulator = Simulator::new(Config::default());
    let get = |path: &str| Request::get(path).body(Bytes::new()).unwrap();
    let response = simulator.respond(get("/v1beta/models?pageSize=5&pageToken=5")).await;
    let page: Value =
        serde_json::from_slice(&body::read(response.into_body(), 1 << 20).await.unwrap()).unwrap();
    assert_eq!(page["models"].as_array().unwrap().len(), 5);
    assert_eq!(page["nextPageToken"], "10");
    assert_eq!(simulator.respond(get("/v1beta/models/gemini-2.5-pro")).await.status(), 200);
    assert_eq!(simulator.respond(get("/v1beta/models/none")).await.status(), 404);
    assert_eq!(simulator.respond(get("/v1beta1/publishers/google/models")).await.status(), 200);
    assert_eq!(simulator.respond(get("/else")).await.status(), 404);
}

#[tokio::test]
async fn predicts_at_vertex_only_and_counts_instances() {
    let at =
        |model: &str| format!("/v1/projects/p/locations/global/publishers/google/models/{model}:predict");
    let body =
        |count: usize| json!({ "instances": vec![json!({ "content": "a b" }); count], "parameters": {} });
    let (status, answer) = ask(&at("gemini-embedding-001"), body(1)).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(answer["predictions"][0]["embeddings"]["statistics"]["token_count"], 2);
    assert_eq!(ask(&at("gemini-embedding-001"), body(2)).await.0, 400);
    assert_eq!(ask(&at("text-embedding-005"), body(250)).await.0, 200);
    assert_eq!(ask(&at("text-embedding-005"), body(251)).await.0, 400);
    assert_eq!(ask(&at("gemini-embedding-2"), body(1)).await.0, 404);
    assert_eq!(ask("/v1beta/models/gemini-embedding-001:predict", body(1)).await.0, 404);
    let titled = json!({ "instances": [{ "content": "a", "title": "t", "task_type": "CLUSTERING" }] });
    assert_eq!(ask(&at("text-embedding-005"), titled).await.0, 400);
    let long = "word ".repeat(3_000);
    let (_, answer) = ask(&at("text-embedding-005"), json!({ "instances": [{ "content": long }] })).await;
    assert_eq!(answer["predictions"][0]["embeddings"]["statistics"]["truncated"], true);
    let kept = json!({ "instances": [{ "content": long }], "parameters": { "autoTruncate": false } });
    assert_eq!(ask(&at("text-embedding-005"), kept).await.0, 400);
    let many = json!({ "instances": vec![json!({ "content": "word ".repeat(1_500) }); 20] });
    assert_eq!(ask(&at("text-embedding-005"), many).await.0, 400);
}

#[tokio::test]
async fn knows_credentials_and_vertex() {
    let simulator = Simulator::new(Config { require_key: true, ..Config::default() });
    let path = "/v1/projects/p/locations/global/publishers/google/models/gemini-2.5-flash:generateContent";
    let with = |name: &'static str, value: &'static str| {
        let body = json!({ "contents": [user("hi")] }).to_string();
        Request::post(path).header(name, value).body(Bytes::from(body)).unwrap()
    };
    assert_eq!(simulator.respond(with("x-other", "x")).await.status(), 403);
    assert_eq!(simulator.respond(with("x-goog-api-key", "INVALID")).await.status(), 400);
    assert_eq!(simulator.respond(with("authorization", "Bearer expired")).await.status(), 401);
    let response = simulator.respond(with("authorization", "Bearer good")).await;
    let answer: Value =
        serde_json::from_slice(&body::read(response.into_body(), 1 << 20).await.unwrap()).unwrap();
    assert_eq!(answer["usageMetadata"]["trafficType"], "ON_DEMAND");
}
