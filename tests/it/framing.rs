use std::time::Duration;

use super::double::{Wire, call, raw, request, start, start_with};

#[tokio::test]
async fn ambiguous_requests_are_refused() {
    let server = start().await;
    let head = "POST /v1/chat/completions HTTP/1.1\r\nauthorization: Bearer good\r\n";
    let cases = [
        (
            format!("{head}host: x\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
            "400",
            "invalid_framing",
        ),
        (
            format!("{head}host: x\r\ntransfer-encoding: chunked\r\ncontent-length: 2\r\n\r\n0\r\n\r\n"),
            "400",
            "invalid_framing",
        ),
        (format!("{head}content-length: 2\r\n\r\n{{}}"), "400", "invalid_host"),
        (format!("{head}host: x\r\nhost: x\r\ncontent-length: 2\r\n\r\n{{}}"), "400", "invalid_host"),
        ("GET http://a/v1/models HTTP/1.1\r\nhost: b\r\n\r\n".to_owned(), "400", "invalid_host"),
        ("CONNECT a:443 HTTP/1.1\r\nhost: a:443\r\n\r\n".to_owned(), "405", "method_not_supported"),
        (
            format!("{head}host: x\r\nexpect: 200-maybe\r\ncontent-length: 2\r\n\r\n{{}}"),
            "417",
            "expectation_failed",
        ),
    ];
    for (sent, status, code) in cases {
        let answer = raw(server.address, &sent).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{sent}\n{answer}");
        assert!(answer.contains(&format!(r#""code":"{code}""#)), "{sent}\n{answer}");
    }
    assert!(call(server.address, "POST", "/v1/chat/completions", "{}").await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn bodies_are_bounded_and_plain() {
    let server = start().await;
    let answer = call(server.address, "POST", "/v1/chat/completions", &"x".repeat(3 << 20)).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{}", &answer[..answer.len().min(300)]);
    for extra in ["content-encoding: gzip\r\n", "content-type: multipart/form-data; boundary=x\r\n"] {
        let extra = format!("connection: close\r\n{extra}");
        let answer = raw(server.address, request("POST", "/v1/chat/completions", "{}", &extra)).await;
        assert!(answer.starts_with("HTTP/1.1 415"), "{answer}");
    }
}

#[tokio::test]
async fn silence_and_slowness_are_ended() {
    let server = start_with(|config| {
        config.patience.head = Duration::from_millis(200);
        config.patience.idle = Duration::from_millis(600);
        config.intake.idle = Duration::from_millis(200);
    })
    .await;
    for first in ["", "P", "PRI * HTT", "GET / HT"] {
        assert_eq!(raw(server.address, first).await, "", "{first:?}");
    }
    let stalled = "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer good\r\ncontent-length: 9\r\n\r\n{";
    let answer = raw(server.address, stalled).await;
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    // Between two requests there is more patience than inside a head.
    let mut wire = Wire::open(server.address).await;
    wire.send(request("GET", "/v1/models", "", "")).await;
    wire.until("\r\n\r\n").await;
    tokio::time::sleep(Duration::from_millis(350)).await;
    wire.send(request("GET", "/v1/models", "", "")).await;
    wire.until("HTTP/1.1 200").await;
    wire.rest().await;
}

#[tokio::test]
async fn a_head_in_pieces_and_a_long_body_are_fine() {
    let server = start().await;
    let mut wire = Wire::open(server.address).await;
    let whole = request("POST", "/v1/chat/completions", &"y".repeat(300_000), "connection: close\r\n");
    for piece in whole.as_bytes().chunks(40_000) {
        wire.send(piece).await;
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let answer = wire.rest().await;
    assert!(answer.contains(r#""bytes":300000"#), "{answer}");
    let answer = raw(server.address, "\u{16}\u{3}\u{1}not http at all\r\n\r\n").await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400"), "{answer}");
}
