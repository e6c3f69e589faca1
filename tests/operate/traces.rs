//! Traces as a collector and an upstream see them.

use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::net::TcpListener;

use super::support::{Answer, Gateway, Scratch, chat, double, fetch};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

async fn start(scratch: &Scratch, upstream: &str, collector: &str) -> Gateway {
    let variables = [
        ("GEMINI_API_KEY", "canary-of-google"),
        ("GOOGLE_GEMINI_BASE_URL", upstream),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", collector),
        ("OTEL_EXPORTER_OTLP_HEADERS", "x-token=canary-of-collector"),
    ];
    Gateway::start_with(scratch, None, &[], &variables).await
}

async fn ask(gateway: &Gateway, model: &str) -> Answer {
    let headers = [("traceparent", PARENT), ("tracestate", "a=b"), ("baggage", "user=1")];
    let body = chat(model, "canary of a prompt", false);
    fetch(gateway.address, "POST", "/v1/chat/completions", &headers, &body).await.unwrap()
}

/// An attribute of a span.
fn told<'s>(span: &'s Value, name: &str) -> &'s Value {
    let all = span["attributes"].as_array().unwrap();
    let found = all.iter().find(|each| each["key"] == name);
    found.map_or(&Value::Null, |each| each["value"].as_object().unwrap().values().next().unwrap())
}

/// The spans of a letter.
fn spans(letter: &str) -> Vec<Value> {
    let (head, body) = letter.split_once("\r\n\r\n").unwrap();
    assert!(
        head.starts_with("POST /v1/traces HTTP/1.1") && head.contains("x-token: canary-of-collector"),
        "{head}"
    );
    assert!(!body.contains("canary"), "{body}");
    let body: Value = serde_json::from_str(body).unwrap();
    let resource = &body["resourceSpans"][0];
    assert_eq!(resource["resource"]["attributes"][0]["value"]["stringValue"], "gemway");
    resource["scopeSpans"][0]["spans"].as_array().unwrap().clone()
}

const ANSWER: &str = r#"{"candidates":[{"content":{"role":"model","parts":[{"text":"canary of an answer"}]},"finishReason":"STOP"}],"usageMetadata":{"promptTokenCount":3,"candidatesTokenCount":4,"totalTokenCount":7}}"#;

#[tokio::test]
async fn a_request_and_its_call_are_spans_of_the_callers_trace() {
    let scratch = Scratch::new();
    let (upstream, mut asked) = double("200 OK", ANSWER).await;
    let (collector, mut letters) = double("200 OK", "{}").await;
    let gateway = start(&scratch, &format!("http://{upstream}"), &format!("http://{collector}")).await;
    assert_eq!(ask(&gateway, "gemini-2.5-flash").await.status, 200);

    let call = asked.recv().await.unwrap();
    let sent = call.lines().find_map(|line| line.strip_prefix("traceparent: ")).unwrap().to_owned();
    assert!(sent.starts_with(&format!("00-{TRACE}-")) && sent.ends_with("-01"), "{sent}");
    assert!(!call.contains("tracestate") && !call.contains("baggage"), "{call}");

    let letter = tokio::time::timeout(Duration::from_secs(10), letters.recv()).await.unwrap().unwrap();
    let spans = spans(&letter);
    assert_eq!(spans.len(), 2, "{spans:?}");
    assert!(spans.iter().all(|span| span["traceId"] == TRACE));
    assert_eq!((&spans[0]["kind"], &spans[0]["parentSpanId"]), (&2.into(), &"b7ad6b7169203331".into()));
    assert_eq!((&spans[1]["kind"], &spans[1]["parentSpanId"]), (&3.into(), &spans[0]["spanId"]));
    assert_eq!(spans[1]["spanId"].as_str(), sent.split('-').nth(2));
    assert_eq!(spans[1]["name"], "chat gemini-2.5-flash");
    for span in &spans {
        assert_eq!(told(span, "gen_ai.operation.name"), "chat");
        assert_eq!(told(span, "gen_ai.provider.name"), "gcp.gemini");
        assert_eq!(told(span, "gen_ai.request.model"), "gemini-2.5-flash");
        assert_eq!(told(span, "http.response.status_code"), "200");
    }
    assert_eq!(told(&spans[0], "gen_ai.usage.output_tokens"), "4");
    assert_eq!(told(&spans[0], "gen_ai.usage.input_tokens"), "3");
    // The log names the trace.
    assert_eq!(gateway.requests()[0]["trace_id"], TRACE);
}

#[tokio::test]
async fn each_attempt_is_a_span_and_says_what_it_failed_of() {
    let scratch = Scratch::new();
    let busy = r#"{"error":{"code":503,"message":"busy","status":"UNAVAILABLE"}}"#;
    let (upstream, _asked) = double("503 Service Unavailable", busy).await;
    let (collector, mut letters) = double("200 OK", "{}").await;
    let gateway = start(&scratch, &format!("http://{upstream}"), &format!("http://{collector}")).await;
    let answer = ask(&gateway, "gemini-2.5-flash").await;
    assert_eq!((answer.status, answer.header("x-gemway-attempts")), (503, Some("3")));
    let letter = tokio::time::timeout(Duration::from_secs(10), letters.recv()).await.unwrap().unwrap();
    let spans = spans(&letter);
    assert_eq!(spans.len(), 4, "{spans:?}");
    assert_eq!(told(&spans[0], "error.type"), "overloaded");
    for (resends, span) in spans[1..].iter().enumerate() {
        assert_eq!(told(span, "error.type"), "overloaded");
        assert_eq!(told(span, "http.response.status_code"), "503");
        let resends = if resends == 0 { Value::Null } else { resends.to_string().into() };
        assert_eq!(told(span, "http.request.resend_count"), &resends);
    }
    let metrics = gateway.metrics().await;
    for line in [
        r#"gemway_upstream_attempts_total{code="503",model="gemini-2.5-flash",reason="overloaded",site="gemini"} 3"#,
        r#"gemway_upstream_retries_total{reason="overloaded",site="gemini"} 2"#,
    ] {
        assert!(metrics.contains(line), "{line} is missing in\n{metrics}");
    }
    let logged = &gateway.requests()[0];
    assert_eq!((&logged["retry_reason"], &logged["upstream_status"]), (&"overloaded".into(), &503.into()));
    assert_eq!(logged["upstream_error"], "busy");
}

#[tokio::test]
async fn a_dead_collector_slows_nobody() {
    let scratch = Scratch::new();
    let (upstream, _asked) = double("200 OK", ANSWER).await;
    // Accepts and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let collector = format!("http://{}", silent.local_addr().unwrap());
    let gateway = start(&scratch, &format!("http://{upstream}"), &collector).await;
    let begun = Instant::now();
    for _ in 0..50 {
        assert_eq!(ask(&gateway, "gemini-2.5-flash").await.status, 200);
    }
    // The collector's own patience is ten seconds: nobody has waited for it.
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    assert!(gateway.metrics().await.contains("gemway_http_requests_total"));
}
