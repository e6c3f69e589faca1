//! Many requests, a tenth of them with a fault: what is left behind must be nothing.

use std::time::Duration;

use futures_util::stream::{self, StreamExt as _};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::stage::{HELLO, Step, chat_request, event, gateway, opening, site, site_toml, status};

/// `GEMWAY_SOAK=200000 cargo nextest run soak` for the long one.
fn requests() -> usize {
    #[expect(clippy::disallowed_methods, reason = "how long the test runs is for whoever runs it")]
    std::env::var("GEMWAY_SOAK").ok().and_then(|count| count.parse().ok()).unwrap_or(4000)
}

const AT_ONCE: usize = 24;

#[derive(Debug)]
struct Held {
    kilobytes: usize,
    files: usize,
    tasks: usize,
}

fn held() -> Held {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    Held {
        kilobytes: line.split_whitespace().nth(1).unwrap().parse().unwrap(),
        files: std::fs::read_dir("/proc/self/fd").unwrap().count(),
        tasks: tokio::runtime::Handle::current().metrics().num_alive_tasks(),
    }
}

/// Waits for what is being cleaned up.
async fn settled() -> Held {
    let mut before = held();
    for _ in 0..50 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let now = held();
        if now.files == before.files && now.tasks == before.tasks {
            return now;
        }
        before = now;
    }
    before
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_left_behind() {
    let mut script = Vec::new();
    for n in 0..40 {
        script.push(match n {
            5 => vec![Step::Say(status(503, "UNAVAILABLE", ""))],
            15 => vec![Step::Reset],
            25 => vec![Step::Say(opening()), Step::Say(event(HELLO)), Step::Reset],
            35 => vec![Step::Say(status(400, "INVALID_ARGUMENT", ""))],
            _ => vec![Step::Serve],
        });
    }
    let google = site(std::iter::repeat_n(script, requests() / 40 + 2).flatten().collect()).await;
    let gateway = gateway(&site_toml("g", google.address, "g")).await;
    let total = requests();
    run(gateway.address, total / 4).await;
    let first = settled().await;
    run(gateway.address, total - total / 4).await;
    let mut last = settled().await;
    // Other tests of this process have files and tasks of their own, for as long as they run; what leaks stays.
    for _ in 0..300 {
        if last.files <= first.files + 2 * AT_ONCE {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        last = held();
    }
    println!("{total} requests: {first:?} and then {last:?}");
    assert_eq!(gateway.metrics.in_flight_now(), 0);
    // Both ends of every idle connection that the pool keeps; there are as many as ran at once, at most.
    assert!(last.tasks <= first.tasks + 2 * AT_ONCE, "{first:?} {last:?}");
    assert!(last.files <= first.files + 2 * AT_ONCE, "{first:?} {last:?}");
    // The allocator keeps some; a leak of a kilobyte a request would show many times over.
    assert!(last.kilobytes <= first.kilobytes + 12_000, "{first:?} {last:?}");
}

async fn run(gateway: std::net::SocketAddr, count: usize) {
    stream::iter(0..count)
        .for_each_concurrent(AT_ONCE, |n| async move {
            let mut client = TcpStream::connect(gateway).await.unwrap();
            client.write_all(&chat_request("m", n % 2 == 0, "")).await.unwrap();
            let mut text = Vec::new();
            if n % 40 == 39 {
                // One that leaves.
                let _ = client.read(&mut [0; 64]).await;
                return;
            }
            client.read_to_end(&mut text).await.unwrap();
            assert!(text.starts_with(b"HTTP/1.1 "), "{:?}", String::from_utf8_lossy(&text));
        })
        .await;
}
