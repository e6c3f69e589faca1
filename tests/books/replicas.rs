//! Three gateways over one Redis, which goes away in the middle and comes back.

use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::process::{Child, Command};

use super::support::{Gateway, KEY, Scratch, chat, fetch, times};

struct Redis {
    child: Child,
    port: u16,
}

impl Redis {
    async fn start(scratch: &Scratch, port: u16) -> Self {
        let child = Command::new("redis-server")
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .args(["--dir", scratch.0.to_str().unwrap()])
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        for _ in 0..100 {
            if tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
                return Self { child, port };
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("redis-server did not start");
    }

    async fn kill(mut self) -> u16 {
        self.child.start_kill().unwrap();
        self.child.wait().await.unwrap();
        self.port
    }
}

/// Half a minute for each window that is looked at in the test command; `GEMWAY_TEST_MINUTES=5` is the long run.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs redis-server; the test command runs it"]
async fn three_gateways_over_one_redis_count_as_one() {
    let minutes = times("GEMWAY_TEST_MINUTES", 0);
    let length =
        if minutes == 0 { Duration::from_secs(75) } else { Duration::from_secs(minutes as u64 * 60 + 15) };
    let scratch = Scratch::new();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let redis = Redis::start(&scratch, port).await;
    let limit: u32 = 60;
    let config = format!(
        "[[keys]]\nname = \"books\"\nsecret = \"sk-canary-of-a-client-0123\"\nrequests_per_minute = {limit}\n\
         [limits]\nredis = \"redis://127.0.0.1:{port}\"\nreplicas = 3\n"
    );
    let gateways = [
        Gateway::start(&scratch, &config).await,
        Gateway::start(&scratch, &config).await,
        Gateway::start(&scratch, &config).await,
    ];
    let (began, mut admitted, mut asked) = (Instant::now(), Vec::new(), 0);
    // Three times the limit, from gateway to gateway.
    let mut pace = tokio::time::interval(Duration::from_millis(60_000 / (3 * u64::from(limit))));
    while began.elapsed() < length {
        pace.tick().await;
        let address = gateways[asked % 3].address;
        asked += 1;
        let answer =
            fetch(address, "POST", "/v1/chat/completions", &[KEY], &chat("gemini-2.5-flash", "hi", false))
                .await
                .unwrap();
        match answer.status {
            200 => admitted.push(began.elapsed()),
            429 => {}
            other => panic!("{other}: {}", answer.body),
        }
    }
    let mut counts = Vec::new();
    let minute = Duration::from_mins(1);
    for start in (0..length.as_secs() - 60).map(Duration::from_secs) {
        counts.push(admitted.iter().filter(|at| (start..start + minute).contains(at)).count());
    }
    let mut late = Vec::new();
    for gateway in &gateways {
        let page = fetch(gateway.admin, "GET", "/metrics", &[], "").await.unwrap().body;
        let line = page.lines().find_map(|line| line.strip_prefix("gemway_ratelimit_store_errors_total "));
        late.push(line.unwrap_or("0").to_owned());
    }
    println!(
        "{asked} asked, {} admitted, answers of Redis that came too late by gateway: {late:?}; \
         in each minute, second by second: {counts:?}",
        admitted.len()
    );
    assert!(counts.iter().all(|count| count.abs_diff(60) <= 1), "{counts:?}");
    // Redis goes away and comes back: nobody is told of it.
    let mut failed = 0;
    let mut ask = async |gateway: usize| {
        let body = chat("gemini-2.5-flash", "hi", false);
        let answer = fetch(gateways[gateway % 3].address, "POST", "/v1/chat/completions", &[KEY], &body)
            .await
            .unwrap();
        failed += usize::from(answer.status >= 500);
    };
    let port = redis.kill().await;
    for number in 0..30 {
        ask(number).await;
    }
    let _again = Redis::start(&scratch, port).await;
    for number in 0..30 {
        ask(number).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(failed, 0);
    for gateway in &gateways {
        let page = fetch(gateway.admin, "GET", "/metrics", &[], "").await.unwrap().body;
        assert!(page.contains("gemway_ratelimit_store_up 1"), "shared again");
    }
}
