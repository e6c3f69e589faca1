//! Traces as a collector and an upstream see them.

#![expect(clippy::unwrap_used, clippy::panic, reason = "tests fail that way")]

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

/// Answers every request with the same JSON, and tells what was asked.
async fn double(answer: &'static str) -> (SocketAddr, mpsc::UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (tell, told) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let tell = tell.clone();
            tokio::spawn(async move {
                let mut seen = Vec::new();
                while !whole(&seen) {
                    if socket.read_buf(&mut seen).await.unwrap_or(0) == 0 {
                        return;
                    }
                }
                let _ = tell.send(String::from_utf8_lossy(&seen).into_owned());
                let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n";
                let reply = format!("{head}content-length: {}\r\n\r\n{answer}", answer.len());
                let _ = socket.write_all(reply.as_bytes()).await;
            });
        }
    });
    (address, told)
}

fn whole(seen: &[u8]) -> bool {
    let text = String::from_utf8_lossy(seen);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head
        .lines()
        .find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ").map(str::to_owned));
    body.len() >= length.map_or(0, |length| length.trim().parse().unwrap())
}

struct Gemway(Child);

impl Drop for Gemway {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn start(upstream: SocketAddr, collector: &str) -> (Gemway, SocketAddr, SocketAddr) {
    let free = || std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (address, admin) = (free(), free());
    let child = Command::new(env!("CARGO_BIN_EXE_gemway"))
        .args(["serve", "--listen", &address.to_string(), "--admin-listen", &admin.to_string()])
        .env_clear()
        .env("GEMINI_API_KEY", "canary-of-google")
        .env("GOOGLE_GEMINI_BASE_URL", format!("http://{upstream}"))
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", collector)
        .env("OTEL_EXPORTER_OTLP_HEADERS", "x-token=canary-of-collector")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let gemway = Gemway(child);
    for _ in 0..200 {
        if TcpStream::connect(admin).await.is_ok() {
            return (gemway, address, admin);
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("the gateway did not start");
}

async fn ask(address: SocketAddr) -> String {
    let body = r#"{"model":"gemini-2.5-flash","messages":[{"role":"user","content":"canary of a prompt"}]}"#;
    let request = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\ntraceparent: 00-{TRACE}-b7ad6b7169203331-01\r\ntracestate: a=b\r\nbaggage: user=1\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    say(address, &request).await
}

async fn say(address: SocketAddr, request: &str) -> String {
    let mut socket = TcpStream::connect(address).await.unwrap();
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    answer
}

const ANSWER: &str = r#"{"candidates":[{"content":{"role":"model","parts":[{"text":"canary of an answer"}]},"finishReason":"STOP"}],"usageMetadata":{"promptTokenCount":3,"candidatesTokenCount":4,"totalTokenCount":7}}"#;

#[tokio::test]
async fn a_request_and_its_call_are_spans_of_the_callers_trace() {
    let (upstream, mut asked) = double(ANSWER).await;
    let (collector, mut letters) = double("{}").await;
    let (_gemway, address, _) = start(upstream, &format!("http://{collector}")).await;
    assert!(ask(address).await.starts_with("HTTP/1.1 200"));

    let call = asked.recv().await.unwrap();
    let sent = call.lines().find_map(|line| line.strip_prefix("traceparent: ")).unwrap().to_owned();
    assert!(sent.starts_with(&format!("00-{TRACE}-")) && sent.ends_with("-01"), "{sent}");
    assert!(!call.contains("tracestate") && !call.contains("baggage"), "{call}");

    let letter = tokio::time::timeout(Duration::from_secs(10), letters.recv()).await.unwrap().unwrap();
    let (head, body) = letter.split_once("\r\n\r\n").unwrap();
    assert!(
        head.starts_with("POST /v1/traces HTTP/1.1") && head.contains("x-token: canary-of-collector"),
        "{head}"
    );
    assert!(!body.contains("canary"), "{body}");
    let body: Value = serde_json::from_str(body).unwrap();
    let resource = &body["resourceSpans"][0];
    assert_eq!(resource["resource"]["attributes"][0]["value"]["stringValue"], "gemway");
    let spans = resource["scopeSpans"][0]["spans"].as_array().unwrap();
    assert_eq!(spans.len(), 2, "{spans:?}");
    assert!(spans.iter().all(|span| span["traceId"] == TRACE));
    assert_eq!((&spans[0]["kind"], &spans[0]["parentSpanId"]), (&2.into(), &"b7ad6b7169203331".into()));
    assert_eq!((&spans[1]["kind"], &spans[1]["parentSpanId"]), (&3.into(), &spans[0]["spanId"]));
    assert_eq!(spans[1]["spanId"].as_str(), sent.split('-').nth(2));
    let told = |name: &str| {
        let all = spans[0]["attributes"].as_array().unwrap();
        all.iter().find(|each| each["key"] == name).unwrap_or_else(|| panic!("{name}"))["value"].clone()
    };
    assert_eq!(told("gen_ai.usage.output_tokens")["intValue"], "4");
    assert_eq!(told("gen_ai.request.model")["stringValue"], "gemini-2.5-flash");
    assert_eq!(told("http.response.status_code")["intValue"], "200");
}

#[tokio::test]
async fn a_dead_collector_slows_nobody() {
    let (upstream, _asked) = double(ANSWER).await;
    // Accepts and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (_gemway, address, admin) =
        start(upstream, &format!("http://{}", silent.local_addr().unwrap())).await;
    let begun = Instant::now();
    for _ in 0..50 {
        assert!(ask(address).await.starts_with("HTTP/1.1 200"));
    }
    // The collector's own patience is ten seconds: nobody has waited for it.
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    let metrics = say(admin, "GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
    assert!(metrics.contains("gemway_http_requests_total"), "{metrics}");
}
