//! Against servers on loopback, which only tests may reach.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;

const PNG: &[u8] = b"\x89PNG\r\n\x1a\n....";

fn settings() -> Settings {
    Settings {
        allow: vec!["127.0.0.1".to_owned(), "localhost".to_owned()],
        max_bytes: 1000,
        timeout: Duration::from_secs(2),
        max_count: 3,
        loopback: true,
    }
}

fn wanted(url: impl Into<String>) -> Vec<Wanted> {
    vec![Wanted { url: url.into(), place: "messages[0].content[1].image_url".to_owned() }]
}

/// A server that gives every connection the same bytes, and counts them.
async fn server(reply: Vec<u8>, hold: bool) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let seen = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&seen);
    tokio::spawn(async move {
        loop {
            let Ok((mut socket, _)) = listener.accept().await else { return };
            counter.fetch_add(1, Ordering::Relaxed);
            let reply = reply.clone();
            tokio::spawn(async move {
                let mut head = vec![0; 4096];
                let _ = socket.read(&mut head).await;
                let _ = socket.write_all(&reply).await;
                if hold {
                    tokio::time::sleep(Duration::from_mins(1)).await;
                }
            });
        }
    });
    (address, seen)
}

fn ok(body: &[u8], more: &str) -> Vec<u8> {
    let mut reply = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n{more}\r\n", body.len()).into_bytes();
    reply.extend_from_slice(body);
    reply
}

async fn refused(settings: Settings, url: &str) -> String {
    let error = Fetcher::new(settings).unwrap().all(wanted(url)).await.unwrap_err();
    assert_eq!(error.param(), Some("messages[0].content[1].image_url"), "{url}");
    assert!(error.explicit_code().is_some_and(|code| code.starts_with("invalid_image")), "{url}");
    error.message().to_owned()
}

#[tokio::test]
async fn what_is_allowed_arrives_with_the_type_its_bytes_say() {
    let (address, _) = server(ok(PNG, "content-type: text/html\r\n"), false).await;
    let url = format!("http://{address}/a.jpg?x=1");
    let media = Fetcher::new(settings()).unwrap().all(wanted(url.clone())).await.unwrap();
    assert_eq!(media[&url].mime, "image/png");
    assert_eq!(media[&url].data, STANDARD.encode(PNG));
}

#[tokio::test]
async fn a_redirect_is_followed_and_checked_like_the_first_address() {
    let (goal, _) = server(ok(PNG, ""), false).await;
    let to = |place: String| format!("HTTP/1.1 302 Found\r\nlocation: {place}\r\ncontent-length: 0\r\n\r\n");
    let (address, _) = server(to(format!("http://{goal}/b")).into_bytes(), false).await;
    let url = format!("http://{address}/a");
    assert!(Fetcher::new(settings()).unwrap().all(wanted(url.clone())).await.is_ok());
    for place in [
        "http://169.254.169.254/latest",
        "http://10.0.0.1/",
        "http://metadata.google.internal/",
        "http://[::ffff:a9fe:a9fe]/",
        "file:///etc/passwd",
        "gopher://localhost/",
        "nowhere",
    ] {
        let (address, _) = server(to(place.to_owned()).into_bytes(), false).await;
        let mut settings = settings();
        settings.allow = vec!["*".to_owned()];
        refused(settings, &format!("http://{address}/a")).await;
    }
    let (round, seen) = server(to("/again".to_owned()).into_bytes(), false).await;
    refused(settings(), &format!("http://{round}/a")).await;
    assert_eq!(seen.load(Ordering::Relaxed), MOST_REDIRECTS + 1);
}

#[tokio::test]
async fn nothing_is_sent_to_hosts_that_are_not_named_or_not_public() {
    let (address, seen) = server(ok(PNG, ""), false).await;
    let url = format!("http://{address}/a");
    refused(Settings { allow: vec!["example.com".to_owned()], ..settings() }, &url).await;
    refused(Settings { loopback: false, ..settings() }, &url).await;
    // A name that leads inside is refused by what it resolves to.
    for host in ["localhost", "127.0.0.1", "0.0.0.0", "[::1]", "10.1.2.3", "2130706433"] {
        let open = Settings { allow: vec!["*".to_owned()], loopback: false, ..settings() };
        refused(open, &format!("https://{host}/a")).await;
    }
    refused(Settings { allow: vec!["*".to_owned()], ..settings() }, "https://user@127.0.0.1/a").await;
    assert_eq!(seen.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn sizes_count_and_time_are_bounded() {
    let large = vec![0x89; 2000];
    let (told, _) = server(ok(&large, ""), false).await;
    assert!(refused(settings(), &format!("http://{told}/")).await.contains("too large"));
    let mut untold = b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n".to_vec();
    untold.extend_from_slice(&large);
    let (untold, _) = server(untold, false).await;
    assert!(refused(settings(), &format!("http://{untold}/")).await.contains("too large"));
    let (slow, _) = server(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n\x89PNG".to_vec(), true).await;
    let begun = Instant::now();
    let brief = Settings { timeout: Duration::from_millis(200), ..settings() };
    assert!(refused(brief, &format!("http://{slow}/")).await.contains("in time"));
    assert!(begun.elapsed() < Duration::from_secs(2));
    let (short, _) = server(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n\x89PNG".to_vec(), false).await;
    refused(settings(), &format!("http://{short}/")).await;
    let many: Vec<Wanted> =
        (0..4).map(|at| Wanted { url: format!("http://{told}/{at}"), place: format!("p{at}") }).collect();
    let error = Fetcher::new(settings()).unwrap().all(many).await.unwrap_err();
    assert_eq!(error.param(), Some("p3"));
}

#[tokio::test]
async fn what_is_no_media_is_refused() {
    for reply in [
        ok(b"<html>", "content-type: image/png\r\n"),
        ok(b"", ""),
        ok(b"<svg xmlns='http://www.w3.org/2000/svg'/>", "content-type: image/svg+xml\r\n"),
        ok(PNG, "content-encoding: gzip\r\n"),
        b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".to_vec(),
        b"HTTP/1.1 302 Found\r\ncontent-length: 0\r\n\r\n".to_vec(),
        b"SSH-2.0-x\r\n".to_vec(),
    ] {
        let (address, _) = server(reply, false).await;
        refused(settings(), &format!("http://{address}/")).await;
    }
}

#[test]
fn addresses_inside_are_known() {
    let inside = [
        "127.0.0.1",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "255.255.255.255",
        "224.0.0.1",
        "198.18.0.1",
        "192.0.0.8",
        "192.0.2.1",
        "::1",
        "::",
        "fe80::1",
        "fc00::1",
        "fd00:ec2::254",
        "ff02::1",
        "::ffff:8.8.8.8",
        "64:ff9b::808:808",
        "2002:a00::1",
        "2001:0:a00::1",
        "2001:db8::1",
    ];
    for address in inside {
        assert!(!public(address.parse().unwrap()), "{address}");
    }
    for address in ["8.8.8.8", "172.32.0.1", "2a00:1450:4001:800::200e", "2001:4860:4860::8888"] {
        assert!(public(address.parse().unwrap()), "{address}");
    }
}

#[test]
fn patterns_name_hosts() {
    assert!(allows("example.com", "example.com"));
    assert!(!allows("example.com", "a.example.com"));
    assert!(!allows("example.com", "badexample.com"));
    assert!(allows("*.example.com", "a.b.example.com"));
    assert!(!allows("*.example.com", "example.com"));
    assert!(!allows("*.example.com", "badexample.com"));
    assert!(!allows("*example.com", "badexample.com"));
    assert!(allows("*", "anything.example"));
}
