use std::time::Duration;

use super::double::{Wire, get, raw, request, start, start_with};

fn plain(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
}

#[tokio::test]
async fn a_stream_outlives_the_signal() {
    let server = start().await;
    let mut wire = Wire::open(server.address).await;
    wire.send(request("POST", "/v1/chat/completions", "stream", "")).await;
    server.say("1");
    wire.until("data: 1\n\n").await;
    let mut kept = Wire::open(server.address).await;
    kept.send(request("GET", "/v1/models", "", "")).await;
    kept.until("\"object\":\"list\"").await;
    server.shutdown.begin.cancel();
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(raw(server.admin, plain("/readyz")).await.starts_with("HTTP/1.1 503"));
    assert!(raw(server.admin, plain("/livez")).await.starts_with("HTTP/1.1 200"));
    // New requests are still served, and their connections asked to close.
    kept.send(request("GET", "/v1/models", "", "")).await;
    assert!(kept.rest().await.contains("connection: close"));
    assert!(get(server.address, "/v1/models").await.contains("HTTP/1.1 200"));
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert!(tokio::net::TcpStream::connect(server.address).await.is_err(), "the listener is closed");
    server.say("2");
    wire.until("data: 2\n\n").await;
    drop(server.feed);
    wire.until("data: [DONE]\n\n").await;
    tokio::time::timeout(Duration::from_secs(2), server.ended).await.expect("it ends").unwrap().unwrap();
}

#[tokio::test]
async fn a_stream_that_takes_too_long_is_told() {
    let server = start_with(|config| {
        config.min_drain = Duration::from_millis(50);
        config.drain_timeout = Duration::from_millis(300);
    })
    .await;
    let mut wire = Wire::open(server.address).await;
    wire.send(request("POST", "/v1/chat/completions", "stream", "")).await;
    server.say("1");
    wire.until("data: 1\n\n").await;
    let mut waiting = Wire::open(server.address).await;
    waiting.send(request("POST", "/v1/chat/completions", "wait", "")).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    server.shutdown.begin.cancel();
    let rest = wire.rest().await;
    assert!(rest.contains("gateway_draining") && !rest.contains("[DONE]"), "{rest}");
    let answer = waiting.rest().await;
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("gateway_draining"), "{answer}");
    tokio::time::timeout(Duration::from_secs(2), server.ended).await.expect("it ends").unwrap().unwrap();
}

#[tokio::test]
async fn the_second_word_ends_at_once() {
    let server = start().await;
    let mut wire = Wire::open(server.address).await;
    wire.send(request("POST", "/v1/chat/completions", "wait", "")).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    server.shutdown.begin.cancel();
    server.shutdown.now.cancel();
    tokio::time::timeout(Duration::from_secs(1), server.ended).await.expect("it ends").unwrap().unwrap();
}

#[tokio::test]
async fn a_unix_socket_serves_and_is_cleaned_up() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let path = std::env::temp_dir().join(format!("gemway-it-{}.sock", std::process::id()));
    let config = gemway::server::Config {
        listen: format!("unix:{}", path.display()),
        admin_listen: "127.0.0.1:0".into(),
        min_drain: Duration::ZERO,
        ..gemway::server::Config::default()
    };
    let server = gemway::server::bind(config).await.unwrap();
    let shutdown = gemway::server::Shutdown::default();
    let metrics = std::sync::Arc::new(gemway::telemetry::Metrics::new());
    let ended = tokio::spawn(server.run(super::double::engine(), metrics, shutdown.clone()));
    let mut socket = tokio::net::UnixStream::connect(&path).await.unwrap();
    socket.write_all(request("GET", "/v1/models", "", "connection: close\r\n").as_bytes()).await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    shutdown.begin.cancel();
    tokio::time::timeout(Duration::from_secs(2), ended).await.expect("it ends").unwrap().unwrap();
    assert!(!path.exists());
}
