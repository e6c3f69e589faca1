//! Answers that take more than one request: continued, resumed, fanned out, asked again without what was refused.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test may fail loudly")]

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use gemway::body::{self, Body};
use gemway::config::{Config, Overrides};
use gemway::server::{self, Shutdown};
use gemway::simulator::{self, Simulator};
use gemway::telemetry::Metrics;
use http::{Request, Response};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

type Hook = fn(&Value) -> Option<Response<Body>>;

/// The simulator behind a socket, with a hook before it; it keeps what it was asked.
struct Google {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<Value>>>,
    paths: Arc<Mutex<Vec<String>>>,
}

impl Google {
    async fn with(fault: Option<&str>, hook: Hook) -> Self {
        Self::slow(fault, hook, Duration::ZERO).await
    }

    /// It thinks for so long before every answer.
    async fn slow(fault: Option<&str>, hook: Hook, time_to_first_token: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let fault = fault.map(str::to_owned);
        let config = simulator::Config { fault, time_to_first_token, ..simulator::Config::default() };
        let (simulator, asked) = (Simulator::new(config), Arc::<Mutex<Vec<Value>>>::default());
        let paths = Arc::<Mutex<Vec<String>>>::default();
        let google = Self { address, asked: Arc::clone(&asked), paths: Arc::clone(&paths) };
        tokio::spawn(async move {
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                let (simulator, asked) = (simulator.clone(), Arc::clone(&asked));
                let paths = Arc::clone(&paths);
                let service = service_fn(move |request: Request<hyper::body::Incoming>| {
                    let (simulator, asked) = (simulator.clone(), Arc::clone(&asked));
                    paths.lock().unwrap().push(request.uri().path().to_owned());
                    async move {
                        let (head, sent) = request.into_parts();
                        let sent = body::read(sent, 1 << 20).await.unwrap();
                        let ask: Value = serde_json::from_slice(&sent).unwrap();
                        let hooked = hook(&ask);
                        asked.lock().unwrap().push(ask);
                        let response = match hooked {
                            Some(response) => response,
                            None => simulator.respond(Request::from_parts(head, sent)).await,
                        };
                        Ok::<_, Infallible>(response)
                    }
                });
                let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                tokio::spawn(async move {
                    // A connection that is broken on purpose is no failure of the test.
                    let _ = server.serve_connection(TokioIo::new(socket), service).await;
                });
            }
        });
        google
    }

    async fn plain(fault: &str) -> Self {
        Self::with(Some(fault), |_| None).await
    }

    fn asked(&self) -> Vec<Value> {
        self.asked.lock().unwrap().clone()
    }

    fn paths(&self) -> Vec<String> {
        self.paths.lock().unwrap().clone()
    }

    fn site(&self) -> String {
        let kind = "kind = \"gemini_api\"\napi_key = \"the-key\"";
        format!("[[sites]]\nname = \"g\"\n{kind}\nbase_url = \"http://{}\"\n", self.address)
    }

    /// The same place as Vertex AI.
    fn vertex(&self) -> String {
        let kind = "kind = \"vertex\"\nproject = \"p\"\nlocation = \"global\"\ncredentials = \"api_key:k\"";
        format!("[[sites]]\nname = \"v\"\n{kind}\nbase_url = \"http://{}\"\n", self.address)
    }
}

struct Gateway {
    address: SocketAddr,
    shutdown: Shutdown,
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.shutdown.now.cancel();
    }
}

impl Gateway {
    async fn before(google: &Google) -> Self {
        Self::configured(google.site()).await
    }

    async fn configured(toml: String) -> Self {
        let flags = Overrides { config: Some(Path::new("test.toml").to_owned()), ..Overrides::default() };
        let read = |path: &Path| {
            if path == Path::new("test.toml") { Ok(toml.clone()) } else { std::fs::read_to_string(path) }
        };
        let config = Config::load(&flags, &|_| None, &read).unwrap();
        let (gateway, care) = gemway::app::gateway(&config).unwrap();
        let local = server::Config {
            listen: "127.0.0.1:0".into(),
            admin_listen: "127.0.0.1:0".into(),
            ..server::Config::default()
        };
        let server = server::bind(local).await.unwrap();
        let shutdown = Shutdown::default();
        let address = server.address().unwrap();
        tokio::spawn(server.run(Arc::new(gateway), Arc::new(Metrics::new()), shutdown.clone()));
        tokio::spawn(care);
        Self { address, shutdown }
    }

    async fn chat(&self, request: &Value) -> Reply {
        self.chat_with(request, "").await
    }

    async fn chat_with(&self, request: &Value, headers: &str) -> Reply {
        let body = request.to_string();
        let mut socket = TcpStream::connect(self.address).await.unwrap();
        let head = format!(
            "POST /v1/chat/completions HTTP/1.0\r\nhost: x\r\ncontent-type: application/json\r\n{headers}content-length: \
             {}\r\n\r\n",
            body.len()
        );
        socket.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
        let mut bytes = Vec::new();
        let reading = socket.read_to_end(&mut bytes);
        tokio::time::timeout(Duration::from_secs(30), reading).await.unwrap().unwrap();
        let text = String::from_utf8(bytes).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        Reply { head: head.to_lowercase(), body: body.to_owned() }
    }
}

struct Reply {
    head: String,
    body: String,
}

impl Reply {
    fn status(&self) -> u16 {
        self.head.split(' ').nth(1).unwrap().parse().unwrap()
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("{}\n{}", self.head, self.body))
    }

    /// Texts and reasons of all choices, and the usage, of a stream that ended well or of a whole reply.
    fn said(&self) -> (Vec<String>, Vec<String>, Value) {
        let (mut texts, mut reasons, mut usage) = (Vec::new(), Vec::new(), Value::Null);
        let whole = !self.body.starts_with("data: ");
        assert!(whole || self.body.ends_with("data: [DONE]\n\n"), "{}", self.body);
        let chunks: Vec<Value> = if whole {
            vec![self.json()]
        } else {
            let frames = self.body.split("\n\n").filter_map(|frame| frame.strip_prefix("data: {"));
            frames.map(|frame| serde_json::from_str(&format!("{{{frame}")).unwrap()).collect()
        };
        for chunk in &chunks {
            for choice in chunk["choices"].as_array().unwrap() {
                let index = usize::try_from(choice["index"].as_u64().unwrap()).unwrap();
                texts.resize(texts.len().max(index + 1), String::new());
                reasons.resize(texts.len(), String::new());
                let message = if whole { &choice["message"] } else { &choice["delta"] };
                texts[index].push_str(message["content"].as_str().unwrap_or_default());
                reasons[index].push_str(choice["finish_reason"].as_str().unwrap_or_default());
            }
            if chunk["usage"].is_object() {
                usage = chunk["usage"].clone();
            }
        }
        assert_eq!(
            usage["prompt_tokens"].as_u64().unwrap() + usage["completion_tokens"].as_u64().unwrap(),
            usage["total_tokens"].as_u64().unwrap()
        );
        (texts, reasons, usage)
    }
}

fn request(model: &str, stream: bool, content: &str, more: &Value) -> Value {
    let mut request = json!({"model": model, "stream": stream,
        "messages": [{"role": "user", "content": content}]});
    if stream {
        request["stream_options"] = json!({"include_usage": true});
    }
    for (name, value) in more.as_object().unwrap() {
        request[name] = value.clone();
    }
    request
}

fn words(count: usize) -> String {
    (1..=count).map(|word| format!("word{word}")).collect::<Vec<_>>().join(" ")
}

fn refusal(message: &str) -> Response<Body> {
    let error = json!({"error": {"code": 400, "status": "INVALID_ARGUMENT", "message": message}});
    Response::builder()
        .status(400)
        .header("content-type", "application/json")
        .body(body::full(error.to_string()))
        .unwrap()
}

fn answer(body: &Value) -> Response<Body> {
    Response::builder()
        .header("content-type", "application/json")
        .header("x-gemini-service-tier", "flex")
        .body(body::full(Bytes::from(body.to_string())))
        .unwrap()
}

#[tokio::test]
async fn a_long_answer_is_one_answer() {
    for (fault, stream) in [("hops", true), ("hops", false), ("hops-reset", true), ("hops-reset", false)] {
        let google = Google::plain(fault).await;
        let gateway = Gateway::before(&google).await;
        let more = json!({"max_tokens": 100_000, "reasoning_effort": "high"});
        let count = if fault == "hops" { 90 } else { 20 };
        let reply =
            gateway.chat(&request("gemini-4-argon", stream, &format!("write {count} words"), &more)).await;
        assert_eq!(reply.status(), 200, "{}", reply.body);
        let (texts, reasons, usage) = reply.said();
        let filler = " And this goes on for long enough that something can go wrong in the middle of it.";
        let rest = if fault == "hops" { "" } else { filler };
        assert_eq!(texts, [words(count) + rest], "{fault} {stream}");
        assert_eq!(reasons, ["stop"]);
        let asked = google.asked();
        assert!(asked.len() >= 4, "{}", asked.len());
        for hop in &asked[1..] {
            let mut hop = hop.clone();
            assert!(hop.as_object_mut().unwrap().remove("continuationToken").is_some());
            assert_eq!(hop, asked[0], "the very same request");
        }
        if fault == "hops" {
            // 32 thoughts and 90 words, in requests of 40 tokens, each of which reads the prompt and all before.
            assert_eq!(usage["completion_tokens"], 122);
            assert_eq!(usage["completion_tokens_details"]["reasoning_tokens"], 32);
            assert_eq!(asked.len(), 4);
            let once = usage["prompt_tokens"].as_u64().unwrap() - 40 - 80 - 120;
            assert_eq!(once % 4, 0, "the prompt is billed with each request");
        }
    }
}

#[tokio::test]
async fn a_budget_ends_a_long_answer() {
    for stream in [true, false] {
        let google = Google::plain("hops").await;
        let gateway = Gateway::before(&google).await;
        let more = json!({"max_completion_tokens": 100});
        let reply = gateway.chat(&request("gemini-4-argon", stream, "write 500 words", &more)).await;
        let (texts, reasons, usage) = reply.said();
        assert_eq!(reasons, ["length"]);
        assert_eq!(usage["completion_tokens"], 100);
        assert!(words(500).starts_with(&texts[0]) && texts[0].len() > 300);
    }
}

#[tokio::test]
async fn all_requests_of_a_long_answer_share_one_deadline() {
    for stream in [true, false] {
        let google = Google::slow(Some("hops"), |_| None, Duration::from_millis(300)).await;
        let gateway = Gateway::before(&google).await;
        // Fourteen requests at a third of a second each; each alone is quick enough.
        let request = request("gemini-4-argon", stream, "write 500 words", &json!({"max_tokens": 100_000}));
        let begun = Instant::now();
        let reply = gateway.chat_with(&request, "x-request-timeout-ms: 1000\r\n").await;
        assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
        if stream {
            assert_eq!(reply.status(), 200);
            assert!(reply.body.contains(r#""code":"request_timeout""#), "{}", reply.body);
            assert!(!reply.body.contains("[DONE]") && reply.body.contains("word1"));
        } else {
            assert_eq!(
                (reply.status(), reply.json()["error"]["code"].as_str()),
                (504, Some("request_timeout"))
            );
        }
        assert!((2..=5).contains(&google.asked().len()), "{}", google.asked().len());
    }
}

#[tokio::test]
async fn arguments_come_in_pieces_where_vertex_streams_them() {
    let google = Google::with(None, |_| None).await;
    let gateway = Gateway::configured(google.vertex()).await;
    let schema = json!({"type": "object", "required": ["city", "text", "days", "tags", "at"], "properties": {
        "city": {"type": "string"}, "text": {"type": "string"}, "days": {"type": "integer"}, "tags": {"type": "array", "minItems": 1,
        "items": {"type": "string"}}, "at": {"type": "object", "required": ["a b"], "properties":
        {"a b": {"type": "boolean"}}}}});
    let tools = json!([{"type": "function", "function": {"name": "get weather", "parameters": schema}}]);
    let more = json!({"tools": tools, "google": {"stream_function_call_arguments": true}});
    let content = "Use a tool: what is the weather in Oslo and in Paris?";
    let reply = gateway.chat(&request("gemini-3.8-flash", true, content, &more)).await;
    assert_eq!((reply.status(), reply.header("x-gemway-dropped-params")), (200, None), "{}", reply.body);
    let config = &google.asked()[0]["toolConfig"]["functionCallingConfig"];
    assert_eq!(config["streamFunctionCallArguments"], true);
    let deltas: Vec<Value> = reply
        .body
        .split("\n\n")
        .filter_map(|frame| serde_json::from_str(frame.strip_prefix("data: ")?).ok())
        .filter_map(|chunk: Value| chunk["choices"][0]["delta"]["tool_calls"].as_array().cloned())
        .map(|calls| calls[0].clone())
        .collect();
    let of = |index: u64| deltas.iter().filter(move |delta| delta["index"] == index);
    for (index, city) in ["Oslo", "Paris"].into_iter().enumerate() {
        let index = u64::try_from(index).unwrap();
        assert_eq!(of(index).next().unwrap()["function"]["name"], "get weather");
        assert_eq!(of(index).filter(|delta| delta.get("id").is_some()).count(), 1);
        assert!(of(index).count() > 12, "they come piece by piece");
        let text: String = of(index).filter_map(|delta| delta["function"]["arguments"].as_str()).collect();
        let arguments: Value = serde_json::from_str(&text).unwrap();
        assert_eq!((&arguments["city"], &arguments["text"]), (&city.into(), &content.into()), "{text}");
        assert!(arguments["days"].is_i64() && arguments["tags"][0].is_string());
        assert!(arguments["at"]["a b"].is_boolean());
    }
    assert!(
        reply.body.contains(r#""finish_reason":"tool_calls""#) && reply.body.ends_with("data: [DONE]\n\n")
    );
    // Where it is not streamed there is nothing to stream, and where the model cannot, Google would refuse.
    for (model, stream) in [("gemini-3.8-flash", false), ("gemini-3.1-flash-lite", true)] {
        let reply = gateway.chat(&request(model, stream, content, &more)).await;
        let dropped = reply.header("x-gemway-dropped-params");
        assert_eq!((reply.status(), dropped), (200, Some("google.stream_function_call_arguments")));
    }
}

#[tokio::test]
async fn names_of_models_have_one_form_and_none_leaves_the_path() {
    let google = Google::with(None, |_| None).await;
    let gateway = Gateway::before(&google).await;
    let hello = |model: &str| request(model, false, "hi", &json!({}));
    for model in [
        "gemini-3.8-flash",
        "models/gemini-3.8-flash",
        "google/gemini-3.8-flash",
        "publishers/google/models/gemini-3.8-flash",
    ] {
        assert_eq!(gateway.chat(&hello(model)).await.status(), 200, "{model}");
    }
    assert_eq!(gateway.chat(&hello("gemini-flash-latest")).await.status(), 200);
    let expected = ["3.8-flash"; 4].into_iter().chain(["flash-latest"]);
    let expected: Vec<String> =
        expected.map(|model| format!("/v1beta/models/gemini-{model}:generateContent")).collect();
    assert_eq!(google.paths(), expected);
    gateway.chat(&hello("tunedModels/mine-1")).await;
    assert_eq!(google.paths()[5], "/v1beta/tunedModels/mine-1:generateContent");
    for model in [
        "x:generateContent?y=",
        "../gemini-3.8-flash",
        "gemini-3.8-flash/../../files",
        "..%2f..%2ffiles",
        "a/b",
        "gemini 3",
        "gemini-3.8-flash#x",
        "gemini\u{0}",
        "",
    ] {
        let reply = gateway.chat(&hello(model)).await;
        assert_eq!(reply.status(), 400, "{model}");
        assert_eq!(reply.json()["error"]["param"], "model", "{model}");
    }
    assert_eq!(google.paths().len(), 6, "none of these was asked for");
}

#[tokio::test]
async fn a_model_that_google_does_not_know_is_not_found() {
    for stream in [false, true] {
        let google = Google::with(None, |_| None).await;
        let gateway = Gateway::before(&google).await;
        let reply = gateway.chat(&request("gemini-99-ultra", stream, "hi", &json!({}))).await;
        let error = &reply.json()["error"];
        assert_eq!(
            (reply.status(), error["code"].as_str()),
            (404, Some("model_not_found")),
            "{}",
            reply.body
        );
        assert_eq!(error["type"], "invalid_request_error");
        assert_eq!(google.asked().len(), 1, "and no other model answers in its place");
    }
}

#[tokio::test]
async fn several_answers_from_a_model_that_gives_one() {
    for stream in [true, false] {
        let google = Google::with(None, |_| None).await;
        let gateway = Gateway::before(&google).await;
        let one = gateway.chat(&request("gemini-3.8-flash", stream, "hello there", &json!({}))).await.said();
        let more = json!({"n": 3});
        let reply = gateway.chat(&request("gemini-3.8-flash", stream, "hello there", &more)).await;
        assert_eq!(reply.status(), 200, "{}", reply.body);
        let (texts, reasons, usage) = reply.said();
        assert_eq!(texts, [one.0[0].clone(), one.0[0].clone(), one.0[0].clone()]);
        assert_eq!(reasons, ["stop"; 3]);
        for name in ["prompt_tokens", "completion_tokens"] {
            assert_eq!(usage[name].as_u64().unwrap(), 3 * one.2[name].as_u64().unwrap());
        }
        assert_eq!(google.asked().len(), 4);
        assert!(google.asked().iter().all(|ask| ask["generationConfig"]["candidateCount"].is_null()));
    }
    let google = Google::with(None, |_| None).await;
    let gateway = Gateway::before(&google).await;
    let reply = gateway.chat(&request("gemini-3.8-flash", false, "hi", &json!({"n": 9}))).await;
    assert_eq!((reply.status(), reply.json()["error"]["param"].as_str()), (400, Some("n")));
}

#[tokio::test]
async fn what_a_model_does_not_take_is_left_out_and_remembered() {
    let google = Google::with(None, |ask| {
        ask["generationConfig"]["presencePenalty"]
            .is_number()
            .then(|| refusal("Penalty is not enabled for models/gemini-2.5-flash"))
    })
    .await;
    let gateway = Gateway::before(&google).await;
    for (stream, asked) in [(false, 2), (true, 3)] {
        let more = json!({"presence_penalty": 0.5, "temperature": 0.5});
        let reply = gateway.chat(&request("gemini-2.5-flash", stream, "hi", &more)).await;
        assert_eq!(reply.status(), 200, "{}", reply.body);
        assert!(reply.header("x-gemway-dropped-params").unwrap().contains("presence_penalty"));
        assert_eq!(google.asked().len(), asked, "the first time Google says so, then it is known");
    }
    assert_eq!(google.asked()[2]["generationConfig"]["temperature"], 0.5);
}

#[tokio::test]
async fn each_parameter_that_a_model_refuses_is_left_out_once() {
    let image = json!([{"type": "image_url", "image_url":
        {"url": "data:image/png;base64,iVBORw0KGgo=", "detail": "low"}}]);
    let cases: [(&str, Hook, Value, &str); 5] = [
        (
            "gemini-3.1-pro-preview",
            |ask| {
                let seed = ask["generationConfig"]["seed"].is_number();
                seed.then(|| refusal("Seed is not enabled for models/gemini-3.1-pro-preview"))
            },
            json!({"seed": 3}),
            "seed",
        ),
        (
            "gemini-3.5-flash",
            |ask| {
                let stops = ask["generationConfig"]["stopSequences"].is_array();
                stops.then(|| refusal("Stop sequences is not enabled for models/gemini-3.5-flash"))
            },
            json!({"stop": "z"}),
            "stop",
        ),
        (
            "gemini-3.5-flash",
            |ask| {
                let tier = ask["serviceTier"].is_string();
                tier.then(|| refusal("Service tier flex is not supported for models/gemini-3.5-flash"))
            },
            json!({"service_tier": "flex"}),
            "service_tier",
        ),
        (
            "gemini-3-flash-preview",
            |ask| {
                let said = ask.to_string().contains("mediaResolution");
                said.then(|| refusal("media_resolution is not supported for models/gemini-3-flash-preview"))
            },
            json!({"messages": [{"role": "user", "content": image}]}),
            "detail",
        ),
        (
            "gemini-3.6-flash",
            |ask| {
                let minimal = ask["generationConfig"]["thinkingConfig"]["thinkingLevel"] == "MINIMAL";
                minimal.then(|| refusal("Thinking level MINIMAL is not supported for this model."))
            },
            json!({"reasoning_effort": "minimal"}),
            "reasoning_effort",
        ),
    ];
    for (model, hook, more, name) in cases {
        let google = Google::with(None, hook).await;
        let gateway = Gateway::before(&google).await;
        for asked in [2, 3] {
            let reply = gateway.chat(&request(model, false, "hi", &more)).await;
            assert_eq!(reply.status(), 200, "{name}: {}", reply.body);
            assert_eq!(reply.header("x-gemway-dropped-params"), Some(name));
            assert_eq!(google.asked().len(), asked, "{name}");
        }
        if name == "reasoning_effort" {
            let level = &google.asked()[2]["generationConfig"]["thinkingConfig"]["thinkingLevel"];
            assert_eq!(level, "LOW", "the nearest that is left");
        }
    }
}

#[tokio::test]
async fn another_refusal_is_the_clients() {
    let google = Google::with(None, |_| Some(refusal("Function calling is not enabled for models/x"))).await;
    let gateway = Gateway::before(&google).await;
    let reply = gateway.chat(&request("gemini-2.5-flash", false, "hi", &json!({}))).await;
    assert_eq!((reply.status(), google.asked().len()), (400, 1));
}

#[tokio::test]
async fn a_foreign_signature_is_replaced_once() {
    let google = Google::with(None, |ask| {
        ask.to_string().contains("Zm9yZWlnbg==").then(|| refusal("Corrupted thought signature."))
    })
    .await;
    let gateway = Gateway::before(&google).await;
    let call = json!({"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"},
        "extra_content": {"google": {"thought_signature": "Zm9yZWlnbg=="}}});
    let messages = json!([{"role": "user", "content": "go"}, {"role": "assistant", "tool_calls": [call],
        "extra_content": {"google": {"thought_signature": "Zm9yZWlnbg=="}}},
        {"role": "tool", "tool_call_id": "c1", "content": "done"}]);
    let tools = json!([{"type": "function", "function": {"name": "f"}}]);
    let asked = json!({"model": "gemini-3.8-flash", "messages": messages, "tools": tools});
    let reply = gateway.chat(&asked).await;
    assert_eq!(reply.status(), 200, "{}", reply.body);
    let asked = google.asked();
    assert_eq!(asked.len(), 2);
    let part = &asked[1]["contents"][1]["parts"][0];
    assert_eq!(part["thoughtSignature"], "skip_thought_signature_validator");
}

/// A signature of one project is not shown to another: the call gets Google's documented value there.
#[tokio::test]
async fn a_conversation_that_moves_leaves_its_signatures_behind() {
    let (first, second) = (Google::with(None, |_| None).await, Google::with(None, |_| None).await);
    let down = |_: &Value| {
        let error = json!({"error": {"code": 503, "status": "UNAVAILABLE", "message": "overloaded"}});
        Some(Response::builder().status(503).body(body::full(error.to_string())).unwrap())
    };
    let third = Google::with(None, down).await;
    let site = |name: &str, google: &Google| {
        format!(
            "[[sites]]\nname = \"{name}\"\nkind = \"gemini_api\"\napi_key = \"{name}-key\"\nbase_url = \
             \"http://{}\"\nquota_group = \"{name}\"\n",
            google.address
        )
    };
    let routes =
        |model: &str, sites: &str| format!("[[routes]]\nmodels = [\"{model}\"]\nsites = [{sites}]\n");
    let toml = site("a", &first)
        + &site("b", &second)
        + &site("c", &third)
        + &routes("gemini-3.8-flash", "\"a\"")
        + &routes("gemini-3.7-flash", "\"c\", \"b\"");
    let gateway = Gateway::configured(toml).await;
    let tools = json!([{"type": "function", "function": {"name": "get_weather"}}]);
    let mut asked = request("gemini-3.8-flash", false, "get_weather please", &json!({"tools": tools}));
    let reply = gateway.chat(&asked).await.json();
    let message = reply["choices"][0]["message"].clone();
    let signature = message["tool_calls"][0]["extra_content"]["google"]["thought_signature"].clone();
    assert!(signature.as_str().is_some_and(|signature| signature.len() > 20), "{reply}");
    let result =
        json!({"role": "tool", "tool_call_id": message["tool_calls"][0]["id"], "content": "12 degrees"});
    asked["messages"].as_array_mut().unwrap().extend([message, result]);
    // At home it comes back as it was made.
    assert_eq!(gateway.chat(&asked).await.status(), 200);
    assert_eq!(first.asked()[1]["contents"][1]["parts"][0]["thoughtSignature"], signature);
    // Elsewhere it does not leave, though the client sends it.
    asked["model"] = "gemini-3.7-flash".into();
    let moved = gateway.chat(&asked).await;
    assert_eq!(moved.status(), 200, "{}", moved.body);
    let part = &second.asked()[0]["contents"][1]["parts"][0];
    assert_eq!(part["thoughtSignature"], "skip_thought_signature_validator");
    let everything = [second.asked(), third.asked()].concat();
    assert!(everything.iter().all(|ask| !ask.to_string().contains(signature.as_str().unwrap())));
}

#[tokio::test]
async fn an_answer_without_use_is_tried_again_and_then_an_error() {
    const EMPTY: Hook = |_| {
        Some(answer(&json!({"candidates": [{"content": {"role": "model", "parts": [{"text": ""}]},
            "finishReason": "STOP"}], "usageMetadata": {"promptTokenCount": 3, "totalTokenCount": 3}})))
    };
    const NOTHING: Hook = |_| Some(answer(&json!({"usageMetadata": {"promptTokenCount": 3}})));
    let cases: [(Option<&str>, Hook, &str); 4] = [
        (Some("malformed"), |_| None, "upstream_malformed_output"),
        (Some("nocandidates"), |_| None, "upstream_invalid_response"),
        (None, EMPTY, "upstream_empty_answer"),
        (None, NOTHING, "upstream_invalid_response"),
    ];
    for (fault, hook, code) in cases {
        for stream in [false, true] {
            let google = Google::with(fault, hook).await;
            let gateway = Gateway::before(&google).await;
            let reply = gateway.chat(&request("gemini-2.5-flash", stream, "hi", &json!({}))).await;
            assert_eq!(reply.status(), 502, "{fault:?} {stream}: {}", reply.body);
            assert_eq!(reply.json()["error"]["code"], code);
            assert_eq!(google.asked().len(), 2, "{fault:?} {stream}");
        }
    }
}

#[tokio::test]
async fn the_tier_that_served_is_told() {
    let google = Google::with(None, |_| {
        Some(answer(&json!({"candidates": [{"content": {"parts": [{"text": "x"}]}, "finishReason": "STOP"}],
            "usageMetadata": {"promptTokenCount": 3, "candidatesTokenCount": 1}})))
    })
    .await;
    let gateway = Gateway::before(&google).await;
    let whole = gateway.chat(&request("gemini-2.5-flash", false, "hi", &json!({}))).await;
    assert_eq!(whole.json()["service_tier"], "flex");
    let stream = gateway.chat(&request("gemini-2.5-flash", true, "hi", &json!({}))).await;
    let frames = stream.body.matches("chat.completion.chunk").count();
    assert_eq!(stream.body.matches(r#""service_tier":"flex""#).count(), frames);
}
