//! What the hot functions cost, each alone: requests in, answers out, streams piece by piece, schemas, embeddings,
//! and what every request passes beside translation, admission and the meter.

use std::error::Error;
use std::hint::black_box;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use criterion::{BatchSize, Criterion, Throughput};
use futures_util::FutureExt as _;
use gemway::catalog::{Catalog, Pattern};
use gemway::ids::Ids;
use gemway::limits::{Claim, Limiter, Quota, Rule, Tokens, Used};
use gemway::meter::{Books, Entry, Meter, Outcome, Sink, Terms, price::Prices};
use gemway::sse::Decoder;
use gemway::telemetry::{Accounts, Metrics};
use gemway::translate::chat::{Shape, reply, request, stream::ChatMachine};
use gemway::translate::embeddings;
use gemway::translate::{Backend, Machine, Signatures, Stamp, Target};
use gemway::usage::Usage;
use gemway::wire;

const MODEL: &str = "gemini-3.8-flash";

/// No memory: benches measure translation alone.
#[derive(Debug)]
struct Forgetful;

impl Signatures for Forgetful {
    fn remember(&self, _: &str, _: &str) {}

    fn recall(&self, _: &str) -> Option<Arc<str>> {
        None
    }
}

fn stamp() -> Stamp {
    Stamp {
        id: "chatcmpl-bench".to_owned(),
        created: 1_790_000_000,
        model: MODEL.to_owned(),
        ids: Arc::new(Ids::counted()),
        signatures: Arc::new(Forgetful),
    }
}

/// What most requests are.
fn question() -> Bytes {
    let body = serde_json::json!({
        "model": MODEL,
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "The quick brown fox jumps over the lazy dog. ".repeat(4)},
        ],
    });
    body.to_string().into()
}

/// A document in the prompt, with escapes on every line.
fn document() -> Bytes {
    let text = "A line with \"quotes\", a tab\t and an end.\n".repeat((1 << 20) / 44);
    serde_json::json!({"model": MODEL, "messages": [{"role": "user", "content": text}]}).to_string().into()
}

/// Twenty tools with schemas as deep as people write them, and a schema for the answer.
fn schemas() -> Bytes {
    let parameters = |at: usize| {
        serde_json::json!({
            "type": "object",
            "properties": {
                "query": {"type": "string", "description": "What to look for.", "minLength": 1},
                "limit": {"type": "integer", "minimum": 1, "maximum": 100 + at, "default": 10},
                "filters": {"type": "array", "items": {"anyOf": [
                    {"type": "object", "properties": {"field": {"enum": ["a", "b", "c"]}, "value": {"type": "string"}}},
                    {"type": "null"},
                ]}},
            },
            "required": ["query"],
            "additionalProperties": false,
        })
    };
    let tools: Vec<_> = (0..20)
        .map(|at| {
            let name = format!("tool_{at}");
            let function =
                serde_json::json!({"name": name, "description": "Looks.", "parameters": parameters(at)});
            serde_json::json!({"type": "function", "function": function})
        })
        .collect();
    let format = serde_json::json!({"type": "json_schema", "json_schema": {
        "name": "answer", "strict": true, "schema": parameters(0),
    }});
    let body = serde_json::json!({
        "model": MODEL,
        "messages": [{"role": "user", "content": "Look."}],
        "tools": tools,
        "response_format": format,
    });
    body.to_string().into()
}

/// A conversation of twenty turns with two tools.
fn conversation() -> Bytes {
    let turns: Vec<_> = (0..20)
        .map(|turn| {
            let role = if turn % 2 == 0 { "user" } else { "assistant" };
            serde_json::json!({"role": role, "content": "The quick brown fox jumps over the lazy dog. ".repeat(8)})
        })
        .chain([serde_json::json!({"role": "user", "content": "And now?"})])
        .collect();
    let tool = |name: &str| {
        serde_json::json!({"type": "function", "function": {
            "name": name,
            "description": "Does one thing.",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        }})
    };
    let body = serde_json::json!({
        "model": MODEL,
        "messages": turns,
        "tools": [tool("get_weather"), tool("get_time")],
        "temperature": 0.3,
        "max_tokens": 500,
    });
    body.to_string().into()
}

/// One picture of ten megabytes.
fn picture() -> Bytes {
    let url = format!("data:image/png;base64,{}", "iVBORw0K".repeat(10 * 1024 * 1024 / 8));
    let body = serde_json::json!({
        "model": MODEL,
        "messages": [{"role": "user", "content": [
            {"type": "text", "text": "What is this?"},
            {"type": "image_url", "image_url": {"url": url}},
        ]}],
    });
    body.to_string().into()
}

fn event(text: &str, last: bool) -> Bytes {
    let finish = last.then_some("STOP");
    let candidate = serde_json::json!({
        "index": 0, "content": {"role": "model", "parts": [{"text": text}]}, "finishReason": finish
    });
    let event = serde_json::json!({
        "candidates": [candidate],
        "usageMetadata": {"promptTokenCount": 12, "candidatesTokenCount": 34, "totalTokenCount": 46},
        "modelVersion": MODEL,
        "responseId": "bench",
    });
    event.to_string().into()
}

/// What a request goes through: parsed, translated, written as Gemini's JSON.
fn ask(body: &Bytes, target: &Target<'_>) -> gemway::error::Result<usize> {
    let asked = request::ask(request::parse(body)?, target, &Forgetful)?;
    let rope = wire::encode(&asked.request, body).map_err(gemway::error::Error::internal)?;
    Ok(rope.len())
}

fn requests(bench: &mut Criterion, target: &Target<'_>) -> Result<(), Box<dyn Error>> {
    let mut group = bench.benchmark_group("request");
    for (name, body) in [
        ("question", question()),
        ("conversation", conversation()),
        ("20 tools and a schema", schemas()),
        ("prompt of 1 MiB", document()),
        ("picture of 10 MiB", picture()),
    ] {
        ask(&body, target)?;
        group.throughput(Throughput::Bytes(body.len() as u64));
        group.bench_function(name, |bencher| bencher.iter(|| ask(black_box(&body), target)));
    }
    group.finish();
    Ok(())
}

fn answers(bench: &mut Criterion) -> Result<(), Box<dyn Error>> {
    for (name, times) in [("short", 4), ("long", 40), ("of 1 MiB", 23_000)] {
        let whole = [event(&"The quick brown fox jumps over the \"lazy\" dog.\n".repeat(times), true)];
        reply::reply(&Shape::default(), &stamp(), &whole)?;
        bench.bench_function(&format!("reply/{name}"), |bencher| {
            bencher.iter_batched(
                stamp,
                |stamp| reply::reply(&Shape::default(), &stamp, black_box(&whole)),
                BatchSize::SmallInput,
            );
        });
    }

    let mut events = vec![event("The quick brown fox jumps ", false); 199];
    events.push(event("over the lazy dog.", true));
    let mut group = bench.benchmark_group("stream of 200 events");
    group.throughput(Throughput::Elements(events.len() as u64));
    group.bench_function("rewrite", |bencher| {
        bencher.iter_batched(
            || (ChatMachine::new(Shape::default(), stamp()), BytesMut::with_capacity(64 * 1024)),
            |(mut machine, mut out)| -> gemway::error::Result<usize> {
                for event in &events {
                    machine.push(event, &mut out)?;
                }
                machine.finish(&mut out)?;
                Ok(out.len())
            },
            BatchSize::SmallInput,
        );
    });

    let mut wire = BytesMut::new();
    for event in &events {
        wire.extend_from_slice(b"data: ");
        wire.extend_from_slice(event);
        wire.extend_from_slice(b"\r\n\r\n");
    }
    let wire = wire.freeze();
    for size in [64, 1460, 16 * 1024] {
        group.bench_function(format!("decode, {size} bytes a read"), |bencher| {
            bencher.iter(|| -> gemway::error::Result<usize> {
                let mut decoder = Decoder::new(1 << 20);
                let mut out = Vec::with_capacity(events.len());
                for at in (0..wire.len()).step_by(size) {
                    let end = wire.len().min(at + size);
                    decoder.push(black_box(wire.slice(at..end)), &mut out)?;
                }
                Ok(out.len())
            });
        });
    }
    group.finish();
    Ok(())
}

/// A hundred vectors of 768 numbers, as Google writes them: each number on a line of its own, or not.
fn vectors(bench: &mut Criterion) -> Result<(), Box<dyn Error>> {
    let values: Vec<f64> =
        (0..768).map(|at| ((f64::from(at) * 0.731).sin() * 0.04 * 1e9).round() / 1e9).collect();
    let answer = serde_json::json!({"embeddings": vec![serde_json::json!({"values": values}); 100]});
    let shape = |base64, rescale| embeddings::Shape { base64, rescale, dimensions: None };
    let mut group = bench.benchmark_group("embeddings 100x768");
    for (form, text) in [("compact", answer.to_string()), ("pretty", serde_json::to_string_pretty(&answer)?)]
    {
        group.throughput(Throughput::Bytes(text.len() as u64));
        let text = Bytes::from(text);
        for (name, shape) in [
            ("float", shape(false, false)),
            ("base64", shape(true, false)),
            ("float, rescaled", shape(false, true)),
            ("base64, rescaled", shape(true, true)),
        ] {
            let read = || embeddings::Vectors::read(shape, &(0..100), black_box(&text));
            read()?;
            group.bench_function(format!("{form}, {name}"), |bencher| bencher.iter(read));
        }
    }
    group.finish();
    Ok(())
}

/// What every request passes beside translation: admission under a few limits, and the meter with metrics and price.
fn books(bench: &mut Criterion) -> Result<(), Box<dyn Error>> {
    let quota = Quota {
        requests_per_minute: Some(u32::MAX),
        tokens_per_minute: Some(u64::MAX / 4),
        concurrent_requests: Some(u32::MAX),
        ..Quota::default()
    };
    let rule =
        Rule { name: "all".to_owned(), models: vec![Pattern::new("gemini-*")], quota, ..Rule::default() };
    let tokens = Tokens { input: 12, output: 34 };
    for (name, rules, quota) in [("none", Vec::new(), Quota::default()), ("six limits", vec![rule], quota)] {
        let limiter = Limiter::new(rules, Accounts::new());
        let claim = Claim {
            key: "default",
            model: MODEL,
            quota: &quota,
            budget: None,
            estimate: tokens,
            worst: None,
            bounded: false,
        };
        bench.bench_function(&format!("limits/{name}"), |bencher| {
            bencher.iter(|| {
                if let Some(Ok(permit)) = limiter.admit(black_box(&claim)).now_or_never() {
                    permit.settle(&Used { tokens, nanos: None });
                }
            });
        });
    }
    let terms = Terms { prices: Arc::new(Prices::builtin()?), ..Terms::default() };
    let terms = Arc::new(arc_swap::ArcSwap::from_pointee(terms));
    let sink: Arc<dyn Sink> = Arc::new(Books::with(Arc::new(Metrics::new()), terms, None));
    bench.bench_function("meter", |bencher| {
        bencher.iter(|| {
            let entry =
                Entry { request_id: "req_bench".into(), route: "chat", method: "POST", ..Entry::default() };
            let meter = Meter::start(Arc::clone(&sink), entry);
            meter.note(|entry| entry.key = Some("default".into()));
            meter.model(MODEL, Some(MODEL));
            meter.dispatched(MODEL);
            meter.attempt("default", Some(200), None);
            meter.waited("gcp.gemini", std::time::Instant::now());
            meter.usage(Usage { input: 12, output: 34, ..Usage::default() });
            meter.headed(http::StatusCode::OK, None, |_| ());
            meter.end(Outcome::Complete);
        });
    });
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let catalog = Catalog::builtin()?;
    let target =
        Target { model: MODEL, traits: catalog.traits(MODEL), backend: Backend::GeminiApi, strict: false };
    let mut bench = Criterion::default().configure_from_args();
    requests(&mut bench, &target)?;
    answers(&mut bench)?;
    vectors(&mut bench)?;
    books(&mut bench)?;
    bench.final_summary();
    Ok(())
}
