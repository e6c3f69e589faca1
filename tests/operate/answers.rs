//! What every answer says of itself, whatever it answers.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::reload::config;
use super::support::{Answer, Gateway, KEY, Scratch, chat, fetch};

/// What is asked, and the status, the site and the number of calls that answer it.
type Asked<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)], &'a str, u16, &'a str, &'a str);

/// Every answer has these, from whichever listener it comes.
fn signed(answer: &Answer, what: &str) {
    for name in [
        "x-request-id",
        "openai-processing-ms",
        "x-gemway-overhead-ms",
        "x-gemway-served-by",
        "x-gemway-attempts",
    ] {
        let count = answer.head.lines().filter(|line| line.starts_with(&format!("{name}: "))).count();
        assert_eq!(count, 1, "{what}: {name} in\n{}", answer.head);
    }
    let ours: f64 = answer.header("x-gemway-overhead-ms").unwrap().parse().unwrap();
    assert!(ours >= 0.0);
    let _whole: u64 = answer.header("openai-processing-ms").unwrap().parse().unwrap();
}

#[tokio::test]
async fn every_answer_is_signed() {
    let scratch = Scratch::new();
    let config = config("alias", "[server]\nmax_body_bytes = 4096\n");
    let path = scratch.file("gemway.toml", &config);
    let gateway = Gateway::start_with(&scratch, Some(&path), &[], &[]).await;
    let native = r#"{"contents":[{"role":"user","parts":[{"text":"Hello"}]}]}"#;
    let large = "x".repeat(5000);
    let (model, stranger) =
        (chat("gemini-2.5-flash", "Hello", false), [("authorization", "Bearer canary-of-a-stranger")]);
    let (streamed, failing) = (chat("gemini-2.5-flash", "Hello", true), chat("sim-503", "Hello", true));
    let (refused, broken) = (r#"{"model":"gemini-2.5-flash","messages":[]}"#, chat("sim-cut", "Hello", true));
    let embedding = r#"{"model":"gemini-embedding-001","input":"x"}"#;
    let response = r#"{"model":"gemini-2.5-flash","input":"x","stream":true}"#;
    let (site, own) = ("simulator", "gateway");
    let table: [Asked<'_>; 22] = [
        ("POST", "/v1/chat/completions", &[KEY], &model, 200, site, "1"),
        ("POST", "/v1/chat/completions", &[KEY], &streamed, 200, site, "1"),
        ("POST", "/v1/chat/completions", &[KEY], &broken, 200, site, "1"),
        ("POST", "/v1/chat/completions", &[KEY], &failing, 503, site, "3"),
        ("POST", "/v1/chat/completions", &[KEY], refused, 400, own, "0"),
        ("POST", "/v1/chat/completions", &[KEY], "{", 400, own, "0"),
        ("POST", "/v1/chat/completions", &[KEY], &large, 413, own, "0"),
        ("POST", "/v1/chat/completions", &stranger, &model, 401, own, "0"),
        ("GET", "/v1/chat/completions", &[KEY], "", 405, own, "0"),
        ("POST", "/v1/responses", &[KEY], response, 200, site, "1"),
        (
            "GET",
            "/v1/responses",
            &[KEY, ("upgrade", "websocket"), ("connection", "upgrade")],
            "",
            426,
            own,
            "0",
        ),
        ("POST", "/v1/embeddings", &[KEY], embedding, 200, site, "1"),
        ("GET", "/v1/models", &[KEY], "", 200, own, "0"),
        ("GET", "/v1/models/nothing-like-it", &[KEY], "", 404, own, "0"),
        ("GET", "/nowhere", &[KEY], "", 404, own, "0"),
        ("GET", "/", &[], "", 200, own, "0"),
        ("OPTIONS", "/v1/chat/completions", &[KEY], "", 405, own, "0"),
        ("POST", "/v1beta/models/gemini-2.5-flash:generateContent", &[KEY], native, 200, site, "1"),
        (
            "POST",
            "/v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse",
            &[KEY],
            native,
            200,
            site,
            "1",
        ),
        ("POST", "/v1beta/models/gemini-2.5-flash:streamGenerateContent", &[KEY], native, 200, site, "1"),
        ("POST", "/v1beta/models/sim-503:generateContent", &[KEY], native, 503, site, "3"),
        ("POST", "/v1beta/models/gemini-2.5-flash:nothing", &[KEY], native, 404, own, "0"),
    ];
    let asked = table.len();
    for (method, path, headers, body, status, site, calls) in table {
        let answer = fetch(gateway.address, method, path, headers, body).await.unwrap();
        let what = format!("{method} {path} {body:.60}");
        assert_eq!(answer.status, status, "{what}: {answer:?}");
        signed(&answer, &what);
        assert_eq!(answer.header("x-gemway-served-by"), Some(site), "{what}");
        assert_eq!(answer.header("x-gemway-attempts"), Some(calls), "{what}");
        let media = answer.header("content-type").unwrap_or_default();
        if media.starts_with("text/event-stream") {
            assert_eq!(answer.header("cache-control"), Some("no-cache, no-transform"), "{what}");
            assert_eq!(answer.header("x-accel-buffering"), Some("no"), "{what}");
            assert_eq!(answer.header("content-encoding"), None, "{what}");
            assert_eq!(answer.header("content-length"), None, "{what}");
        }
    }
    for (path, status) in [
        ("/livez", 200),
        ("/readyz", 200),
        ("/startupz", 200),
        ("/metrics", 200),
        ("/nowhere", 404),
        ("/admin/v1/keys", 404),
    ] {
        let answer = fetch(gateway.admin, "GET", path, &[("x-request-id", "mine")], "").await.unwrap();
        assert_eq!(answer.status, status, "{path}");
        signed(&answer, path);
        assert_eq!(answer.header("x-request-id"), Some("mine"), "{path}");
    }
    // One line for each request, under the id that the client was told.
    assert_eq!(gateway.requests().len(), asked);
}

/// A gateway that goes down says so in the same form.
#[tokio::test]
async fn an_answer_cut_by_the_drain_is_signed() {
    let scratch = Scratch::new();
    let path = scratch.file(
        "gemway.toml",
        "[server]\ndrain_timeout = \"300ms\"\n[simulator]\ntime_to_first_token = \"20s\"\n",
    );
    let gateway = Gateway::start_with(&scratch, Some(&path), &[], &[]).await;
    let address = gateway.address;
    let body = chat("gemini-2.5-flash", "Hello", true);
    let waiting =
        tokio::spawn(
            async move { fetch(address, "POST", "/v1/chat/completions", &[KEY], &body).await.unwrap() },
        );
    while !gateway.metrics().await.contains("gemway_inflight_requests 1") {}
    gateway.signal("TERM");
    let answer = waiting.await.unwrap();
    assert_eq!(answer.status, 503, "{answer:?}");
    signed(&answer, "a drain");
}

/// A refusal that needs no body does not lose the connection with it: the body may come late.
#[tokio::test]
async fn a_refused_request_leaves_its_connection_usable() {
    let scratch = Scratch::new();
    let gateway = Gateway::start(&scratch, &config("alias", "")).await;
    for (path, key, status) in
        [("/v1/chat/completions", "canary-of-a-stranger", "401"), ("/nowhere", "canary-of-nobody", "404")]
    {
        let mut socket = tokio::net::TcpStream::connect(gateway.address).await.unwrap();
        let body = chat("alias", "Hello", false);
        for turn in 0..3 {
            let length = body.len();
            let head = format!(
                "POST {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\ncontent-length: {length}\r\n\r\n"
            );
            socket.write_all(head.as_bytes()).await.unwrap();
            tokio::time::sleep(Duration::from_millis(100)).await;
            socket.write_all(body.as_bytes()).await.unwrap();
            let mut answer = Vec::new();
            while !answer.ends_with(b"}") {
                let read = tokio::time::timeout(Duration::from_secs(10), socket.read_buf(&mut answer)).await;
                assert!(read.unwrap().unwrap() > 0, "closed after request {turn} of {path}");
            }
            assert!(answer.starts_with(format!("HTTP/1.1 {status}").as_bytes()));
        }
    }
}
