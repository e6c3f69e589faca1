//! Too much to do: what is said at once to whoever comes, what goes on, and that the gateway still says it lives.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use futures_util::future::join_all;

use super::stage::{END, HELLO, Step, chat, event, gateway, opening, site, site_toml, status};

/// What somebody answers within half a second, and how soon.
fn get(address: SocketAddr, path: &str) -> Option<(String, Duration)> {
    let begun = Instant::now();
    let mut socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    write!(socket, "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    socket.read_to_string(&mut text).ok()?;
    Some((text, begun.elapsed()))
}

#[test]
#[expect(clippy::disallowed_methods, reason = "threads are to be stuck, not to wait politely")]
fn it_says_that_it_lives_while_its_runtime_is_stuck() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let gateway = runtime.block_on(async {
        let google = site(vec![vec![Step::Serve]]).await;
        gateway(&site_toml("g", google.address, "g")).await
    });
    for _ in 0..2 {
        runtime.spawn(async { std::thread::sleep(Duration::from_secs(3)) });
    }
    std::thread::sleep(Duration::from_millis(50));
    assert!(get(gateway.address, "/v1/models").is_none(), "it is not stuck at all");
    for path in ["/livez", "/readyz", "/metrics"] {
        let (text, took) = get(gateway.admin, path).expect(path);
        assert!(text.starts_with("HTTP/1.1 200"), "{text}");
        assert!(took < Duration::from_millis(400), "{path}: {took:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_comes_too_many_is_told_at_once_and_the_others_go_on() {
    let mut act = vec![Step::Say(opening())];
    for _ in 0..10 {
        act.extend([Step::Say(event(HELLO)), Step::Wait(Duration::from_millis(150))]);
    }
    act.extend([Step::Say(event(END)), Step::Say(b"0\r\n\r\n".to_vec())]);
    let google = site(vec![act]).await;
    let toml = format!("[upstream]\nmax_in_flight = 4\n{}", site_toml("g", google.address, "g"));
    let gateway = gateway(&toml).await;
    let running = tokio::spawn(join_all((0..4).map(|_| chat(gateway.address, "m", true, ""))));
    while google.asked.load(SeqCst) < 4 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let mut took = Vec::new();
    for n in 0..40 {
        let reply = chat(gateway.address, "m", n % 2 == 0, "").await;
        assert_eq!((reply.status, reply.code().as_deref()), (503, Some("gateway_overloaded")));
        assert_eq!(reply.header("retry-after"), Some("1"));
        took.push(reply.took);
    }
    took.sort_unstable();
    // The median, for other tests share this machine; a tenth of it in a release build.
    assert!(took[20] < Duration::from_millis(10), "{took:?}");
    for reply in running.await.unwrap() {
        assert_eq!(reply.body.matches("Hello").count(), 10);
        assert!(reply.body.contains("[DONE]") && reply.code().is_none());
    }
    assert_eq!(google.asked.load(SeqCst), 4);
    assert_eq!(chat(gateway.address, "m", true, "").await.status, 200, "there is room again");
}

/// A thousand requests while Google is down: its load does not grow, and ours is soon answered without asking it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_is_not_made_worse() {
    let google = site(vec![vec![Step::Say(status(503, "UNAVAILABLE", ""))]]).await;
    let gateway = gateway(&site_toml("g", google.address, "g")).await;
    let mut closed = Vec::new();
    for _ in 0..20 {
        let replies = join_all((0..50).map(|_| chat(gateway.address, "m", false, ""))).await;
        for reply in replies {
            assert_eq!(reply.status, 503, "{reply:?}");
            if reply.code().as_deref() == Some("upstream_circuit_open") {
                assert!(reply.header("retry-after").is_some());
                closed.push(reply.took);
            }
        }
    }
    let asked = google.asked.load(SeqCst);
    assert!(asked <= 1200, "{asked} calls for a thousand requests");
    assert!(closed.len() > 500, "{} of a thousand were spared the call ({asked} calls)", closed.len());
    let begun = Instant::now();
    let reply = chat(gateway.address, "m", false, "").await;
    assert_eq!(reply.code().as_deref(), Some("upstream_circuit_open"));
    assert!(begun.elapsed() < Duration::from_millis(50), "{:?}", begun.elapsed());
    assert_eq!(google.asked.load(SeqCst), asked);
    // Another model is none the worse for it.
    assert_eq!(chat(gateway.address, "n", false, "").await.code().as_deref(), Some("upstream_overloaded"));
}
