use std::sync::atomic::Ordering;
use std::time::Duration;

use gemway::error::{Error, Kind, Origin};

use super::double::{Wire, get, request, soon, start};

#[tokio::test]
async fn each_event_leaves_at_once() {
    let server = start().await;
    let mut wire = Wire::open(server.address).await;
    wire.send(request("POST", "/v1/chat/completions", "stream", "")).await;
    server.say("1");
    let head = wire.until("data: 1\n\n").await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    for header in [
        "content-type: text/event-stream; charset=utf-8",
        "cache-control: no-cache, no-transform",
        "x-accel-buffering: no",
        "x-gemway-dropped-params: seed",
        "x-request-id: req_",
        "openai-processing-ms: ",
    ] {
        assert!(head.contains(header), "{header}: {head}");
    }
    for event in ["2", "3", "4"] {
        // The next is said only when the last has arrived: nothing can be held back.
        server.say(event);
        wire.until(&format!("data: {event}\n\n")).await;
    }
    assert_eq!(server.metrics.streams_now(), 1);
    drop(server.feed);
    wire.until("data: [DONE]\n\n").await;
    soon("gauges are back", || server.metrics.streams_now() == 0 && server.metrics.in_flight_now() == 0)
        .await;
    let metrics = get(server.admin, "/metrics").await;
    assert!(metrics.contains(r#"outcome="ok",route="chat"} 1"#), "{metrics}");
    assert!(metrics.contains(r#"gemway_tokens_total{kind="output",model="gemini-x"} 1"#), "{metrics}");
}

#[tokio::test]
async fn a_break_is_told_in_the_stream() {
    let server = start().await;
    let mut wire = Wire::open(server.address).await;
    wire.send(request("POST", "/v1/chat/completions", "stream", "connection: close\r\n")).await;
    server.say("1");
    wire.until("data: 1\n\n").await;
    let broken = Error::new(Kind::UpstreamBroken, Origin::Upstream, "Google broke off.");
    server.feed.send(Err(broken)).unwrap();
    let rest = wire.rest().await;
    assert!(
        rest.contains(r#"data: {"error":{"message":"Google broke off.","type":"server_error""#),
        "{rest}"
    );
    assert!(!rest.contains("[DONE]"), "{rest}");
}

#[tokio::test]
async fn a_client_that_leaves_ends_the_call() {
    let server = start().await;
    let mut wire = Wire::open(server.address).await;
    wire.send(request("POST", "/v1/chat/completions", "stream", "")).await;
    server.say("1");
    wire.until("data: 1\n\n").await;
    assert_eq!(server.double.sources_alive.load(Ordering::SeqCst), 1);
    drop(wire);
    soon("the source is dropped", || server.double.sources_alive.load(Ordering::SeqCst) == 0).await;
    let metrics = get(server.admin, "/metrics").await;
    assert!(metrics.contains(r#"outcome="client_cancelled",route="chat"} 1"#), "{metrics}");
}

#[tokio::test]
async fn a_client_that_leaves_while_waiting_ends_the_call() {
    let server = start().await;
    let mut wire = Wire::open(server.address).await;
    wire.send(request("POST", "/v1/chat/completions", "wait", "")).await;
    soon("the engine is asked", || server.double.waiting.load(Ordering::SeqCst) == 1).await;
    drop(wire);
    soon("the engine is let go", || server.double.waiting.load(Ordering::SeqCst) == 0).await;
    soon("nothing is in flight", || server.metrics.in_flight_now() == 0).await;
    let metrics = get(server.admin, "/metrics").await;
    assert!(metrics.contains(r#"code="499",method="POST",outcome="client_cancelled""#), "{metrics}");
}

#[tokio::test]
async fn http2_by_prior_knowledge_streams_and_cancels() {
    use http_body_util::{BodyExt, Full};
    let server = start().await;
    let socket = tokio::net::TcpStream::connect(server.address).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http2::handshake(
        hyper_util::rt::TokioExecutor::new(),
        hyper_util::rt::TokioIo::new(socket),
    )
    .await
    .unwrap();
    tokio::spawn(connection);
    let ask = http::Request::post(format!("http://{}/v1/chat/completions", server.address))
        .header("authorization", "Bearer good")
        .body(Full::new(bytes::Bytes::from_static(b"stream")))
        .unwrap();
    server.say("1");
    let mut answer = sender.send_request(ask).await.unwrap();
    assert_eq!(answer.status(), 200);
    let frame = answer.body_mut().frame().await.unwrap().unwrap();
    assert_eq!(&frame.into_data().unwrap()[..], b"data: 1\n\n");
    tokio::time::sleep(Duration::from_millis(20)).await;
    drop(answer);
    soon("the source is dropped", || server.double.sources_alive.load(Ordering::SeqCst) == 0).await;
}
