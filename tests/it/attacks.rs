//! What no honest client sends: refused in words where a head could be read, cut off where it could not, and
//! the next request is served as if nothing had happened.

use super::double::{Running, Wire, call, raw, request, start};

/// The status line's code, or nothing where the connection was closed without a word.
fn status(answer: &str) -> &str {
    answer
        .strip_prefix("HTTP/1.1 ")
        .or_else(|| answer.strip_prefix("HTTP/1.0 "))
        .map_or("", |rest| &rest[..3])
}

const HEAD: &str = "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer good\r\n";

#[tokio::test]
async fn broken_heads_get_a_bare_refusal() {
    let server = start().await;
    let long = |bytes: usize| "a".repeat(bytes);
    let many = "x-a: 1\r\n".repeat(101);
    let cases: Vec<(&str, String, &[&str])> = vec![
        ("two lengths", format!("{HEAD}content-length: 2\r\ncontent-length: 3\r\n\r\n{{}}"), &["400"]),
        ("signed length", format!("{HEAD}content-length: +2\r\n\r\n{{}}"), &["400"]),
        ("listed length", format!("{HEAD}content-length: 2, 2\r\n\r\n{{}}"), &["400"]),
        ("hex length", format!("{HEAD}content-length: 0x2\r\n\r\n{{}}"), &["400"]),
        ("negative length", format!("{HEAD}content-length: -1\r\n\r\n{{}}"), &["400"]),
        ("huge length", format!("{HEAD}content-length: 99999999999999999999\r\n\r\n{{}}"), &["400"]),
        ("unknown coding", format!("{HEAD}transfer-encoding: xchunked\r\n\r\n0\r\n\r\n"), &["400"]),
        ("coding twice", format!("{HEAD}transfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n"), &["400"]),
        (
            "coding on 1.0",
            "POST /v1/chat/completions HTTP/1.0\r\nhost: x\r\nauthorization: Bearer good\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n".to_owned(),
            &["400"],
        ),
        ("space before colon", format!("{HEAD}content-length : 2\r\n\r\n{{}}"), &["400"]),
        ("folded line", format!("{HEAD}x-a: 1\r\n 2\r\ncontent-length: 2\r\n\r\n{{}}"), &["400"]),
        ("NUL in a value", format!("{HEAD}x-a: 1\0\r\ncontent-length: 2\r\n\r\n{{}}"), &["400"]),
        ("CR in a value", format!("{HEAD}x-a: 1\r2\r\ncontent-length: 2\r\n\r\n{{}}"), &["400"]),
        ("long target", format!("GET /v1/{} HTTP/1.1\r\nhost: x\r\n\r\n", long(8193)), &["414", "431"]),
        ("longer target", format!("GET /v1/{} HTTP/1.1\r\nhost: x\r\n\r\n", long(70_000)), &["414", "431"]),
        ("many headers", format!("GET /v1/models HTTP/1.1\r\nhost: x\r\n{many}\r\n"), &["431"]),
        ("long header", format!("GET /v1/models HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", long(100_000)), &["431"]),
        ("no version", "GET /v1/models\r\n\r\n".to_owned(), &["400", ""]),
        ("version 2.0", "GET /v1/models HTTP/2.0\r\nhost: x\r\n\r\n".to_owned(), &["400", ""]),
        ("proxy bytes", "PROXY TCP4 1.1.1.1 2.2.2.2 1 2\r\nGET / HTTP/1.1\r\nhost: x\r\n\r\n".to_owned(), &["400"]),
        ("long method", format!("{} / HTTP/1.1\r\nhost: x\r\n\r\n", long(30_000).to_uppercase()), &["400", "405", "431"]),
        ("trace", "TRACE /v1/models HTTP/1.1\r\nhost: x\r\nauthorization: Bearer good\r\n\r\n".to_owned(), &["405"]),
        ("propfind", "PROPFIND /v1/models HTTP/1.1\r\nhost: x\r\nauthorization: Bearer good\r\n\r\n".to_owned(), &["405"]),
        ("chunk overflow", format!("{HEAD}transfer-encoding: chunked\r\n\r\nfffffffffffffffff\r\n"), &["400", "499"]),
        ("chunk of letters", format!("{HEAD}transfer-encoding: chunked\r\n\r\nzz\r\n"), &["400", "499"]),
        ("long extension", format!("{HEAD}transfer-encoding: chunked\r\n\r\n2;{}\r\n{{}}\r\n0\r\n\r\n", long(70_000)), &["400", "499"]),
    ];
    let mut wrong = Vec::new();
    for (name, sent, allowed) in cases {
        let sent = sent.replace("host: x\r\n", "host: x\r\nconnection: close\r\n");
        let answer = raw(server.address, &sent).await;
        if !allowed.contains(&status(&answer)) {
            wrong.push(format!("{name}: {}", &answer[..answer.len().min(120)]));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(call(server.address, "POST", "/v1/chat/completions", "{}").await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let server = start().await;
    let mut all = String::new();
    for body in ["1", "22", "333"] {
        let last = if body == "333" { "connection: close\r\n" } else { "" };
        all.push_str(&request("POST", "/v1/chat/completions", body, last));
    }
    let answers = raw(server.address, all).await;
    assert_eq!(answers.matches("HTTP/1.1 200").count(), 3, "{answers}");
    let at = |n: usize| answers.find(&format!(r#""bytes":{n}"#)).unwrap_or_else(|| panic!("{n}: {answers}"));
    assert!(at(1) < at(2) && at(2) < at(3), "{answers}");
}

#[tokio::test]
async fn what_follows_a_chunked_body_is_one_request() {
    let server = start().await;
    let smuggled = format!(
        "{HEAD}transfer-encoding: chunked\r\n\r\n0\r\n\r\nGET /v1/nope HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
    );
    let answers = raw(server.address, smuggled).await;
    // Two requests in plain sight are two answers; nothing in between is invented.
    assert_eq!(answers.matches("HTTP/1.1 ").count(), 2, "{answers}");
}

#[tokio::test]
async fn a_stranger_is_refused_before_the_body_is_asked_for() {
    let server = start().await;
    let mut wire = Wire::open(server.address).await;
    wire.send(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer bad\r\nexpect: 100-continue\r\ncontent-length: 1000\r\n\r\n",
    )
    .await;
    let answer = wire.until("}}").await;
    assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
}

#[tokio::test]
async fn an_old_client_gets_a_body_without_chunks() {
    let server = start().await;
    server.say("{}");
    let Running { address, feed, .. } = server;
    drop(feed);
    let sent = "POST /v1/chat/completions HTTP/1.0\r\nhost: x\r\nauthorization: Bearer good\r\ncontent-length: 6\r\n\r\nstream";
    let answer = raw(address, sent).await;
    assert_eq!(status(&answer), "200", "{answer}");
    assert!(!answer.to_ascii_lowercase().contains("transfer-encoding"), "{answer}");
    assert!(answer.ends_with("data: [DONE]\n\n"), "{answer}");
}
