//! Clients that leave, and clients that stay and do not read: in every phase all is let go within a second.

use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::stage::{HELLO, Step, chat_request, event, gateway, opening, site, site_toml, status};

/// Waits until something is true, for at most a second.
async fn soon(what: &str, condition: impl Fn() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < Duration::from_secs(1), "not within a second: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_client_that_leaves_takes_its_call_along() {
    let quota = r#"{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"3s"}"#;
    let streaming = vec![Step::Say(opening()), Step::Say(event(HELLO)), Step::Stall];
    let phases: [(&str, bool, Vec<Step>); 5] = [
        ("waiting for the head of a whole answer", false, vec![Step::Stall]),
        ("waiting for the head of a stream", true, vec![Step::Stall]),
        ("waiting for the first event", true, vec![Step::Say(opening()), Step::Stall]),
        ("streaming", true, streaming),
        (
            "waiting for the next try",
            false,
            vec![Step::Say(status(429, "RESOURCE_EXHAUSTED", quota)), Step::Close],
        ),
    ];
    for (phase, stream, act) in phases {
        let google = site(vec![act]).await;
        let gateway = gateway(&site_toml("g", google.address, "g")).await;
        let mut client = TcpStream::connect(gateway.address).await.unwrap();
        client.write_all(&chat_request("m", stream, "")).await.unwrap();
        soon(phase, || google.asked.load(SeqCst) == 1).await;
        if phase == "streaming" {
            let _ = client.read(&mut [0; 4096]).await.unwrap();
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert_eq!(gateway.metrics.in_flight_now(), 1, "{phase}");
        drop(client);
        soon(phase, || google.open.load(SeqCst) == 0).await;
        soon(phase, || gateway.metrics.in_flight_now() == 0 && gateway.metrics.streams_now() == 0).await;
        // Nobody is there any more for whom to try again.
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(google.asked.load(SeqCst), 1, "{phase}");
    }
}

#[tokio::test]
async fn a_client_that_leaves_while_we_connect_is_forgotten() {
    // Accepts nothing: the backlog takes the connection, and TLS is never answered.
    let deaf = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let toml = site_toml("g", deaf.local_addr().unwrap(), "g").replace("http://", "https://");
    let gateway = gateway(&toml).await;
    let mut client = TcpStream::connect(gateway.address).await.unwrap();
    client.write_all(&chat_request("m", true, "")).await.unwrap();
    soon("under way", || gateway.metrics.in_flight_now() == 1).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    drop(client);
    soon("forgotten", || gateway.metrics.in_flight_now() == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_does_not_read_slows_google_down() {
    // Sixty megabytes, if anybody takes them.
    let text = "x".repeat(60_000);
    let big = format!(
        r#"{{"candidates":[{{"content":{{"role":"model","parts":[{{"text":"{text}"}}]}},"index":0}}]}}"#
    );
    let mut act = vec![Step::Say(opening())];
    act.extend((0..1000).map(|_| Step::Say(event(&big))));
    let google = site(vec![act]).await;
    let gateway = gateway(&site_toml("g", google.address, "g")).await;
    let mut client = TcpStream::connect(gateway.address).await.unwrap();
    client.write_all(&chat_request("m", true, "")).await.unwrap();
    let _ = client.read(&mut [0; 1024]).await.unwrap();
    tokio::time::sleep(Duration::from_millis(700)).await;
    let sent = google.said.load(SeqCst);
    // What fits into four sockets' buffers and ours; far from all of it.
    assert!(sent < 24 << 20, "{sent} bytes were taken from Google for nobody");
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(google.said.load(SeqCst) - sent < 1 << 20, "it goes on being taken");
    drop(client);
    soon("let go", || google.open.load(SeqCst) == 0).await;
}
