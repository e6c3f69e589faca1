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

/// `GEMWAY_TEST_MINUTES=5` is the long run. Redis is killed in the middle, stays away for some seconds, and comes back
/// without a memory of what it counted.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs redis-server; the test command runs it"]
async fn three_gateways_over_one_redis_count_as_one() {
    let minutes = times("GEMWAY_TEST_MINUTES", 0);
    let length =
        if minutes == 0 { Duration::from_secs(100) } else { Duration::from_secs(minutes as u64 * 60 + 15) };
    let scratch = Scratch::new();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut redis = Some(Redis::start(&scratch, port).await);
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
    let up = async |expected: &str| {
        for gateway in &gateways {
            let page = fetch(gateway.admin, "GET", "/metrics", &[], "").await.unwrap().body;
            if !page.contains(&format!("gemway_ratelimit_store_up {expected}")) {
                return false;
            }
        }
        true
    };
    let (began, mut admitted, mut asked) = (Instant::now(), Vec::new(), 0);
    let (away, back) = (length / 2, length / 2 + Duration::from_secs(6));
    // Three times the limit, from gateway to gateway.
    let mut pace = tokio::time::interval(Duration::from_millis(60_000 / (3 * u64::from(limit))));
    let mut noticed = false;
    while began.elapsed() < length {
        pace.tick().await;
        if began.elapsed() > back && redis.is_none() {
            noticed = up("0").await;
            redis = Some(Redis::start(&scratch, port).await);
        } else if began.elapsed() > away
            && began.elapsed() < back
            && let Some(running) = redis.take()
        {
            running.kill().await;
        }
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
    assert!(noticed, "nobody noticed that Redis was away");
    assert!(up("1").await, "counted together again");
    let mut counts = Vec::new();
    let minute = Duration::from_mins(1);
    for start in (0..length.as_secs() - 60).map(Duration::from_secs) {
        counts.push(admitted.iter().filter(|at| (start..start + minute).contains(*at)).count());
    }
    let mut late = Vec::new();
    for gateway in &gateways {
        let page = fetch(gateway.admin, "GET", "/metrics", &[], "").await.unwrap().body;
        let line = page.lines().find_map(|line| line.strip_prefix("gemway_ratelimit_store_errors_total "));
        late.push(line.unwrap_or("0").to_owned());
    }
    println!(
        "{asked} asked, {} admitted, none failed; answers of Redis that were late or missing, by gateway: {late:?}; \
         admitted in each minute, second by second, Redis away from {away:?} to {back:?}: {counts:?}",
        admitted.len()
    );
    for (start, count) in counts.iter().enumerate() {
        let (from, to) = (Duration::from_secs(start as u64), Duration::from_secs(start as u64 + 60));
        // Without Redis each gateway waits for a place of its own to come free, where any could have had it.
        let apart = to > away && from < back + Duration::from_secs(5);
        let least = if apart { 60 - gateways.len() } else { 59 };
        assert!((least..=61).contains(count), "{start}: {count} of {counts:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs redis-server; the test command runs it"]
async fn a_redis_behind_tls_is_shared_where_its_certificate_is_good() {
    let scratch = Scratch::new();
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let certificate = scratch.file("redis.crt", &made.cert.pem());
    let key = scratch.file("redis.key", &made.signing_key.serialize_pem());
    let (certificate, key) = (certificate.to_str().unwrap(), key.to_str().unwrap());
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let port = port.to_string();
    let _redis = Command::new("redis-server")
        .args([
            "--port",
            "0",
            "--tls-port",
            &port,
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--tls-auth-clients",
            "no",
        ])
        .args(["--tls-cert-file", certificate, "--tls-key-file", key, "--tls-ca-cert-file", certificate])
        .args(["--dir", scratch.0.to_str().unwrap()])
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    for _ in 0..100 {
        if tokio::net::TcpStream::connect(format!("127.0.0.1:{port}")).await.is_ok() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let config = |more: &str| {
        format!(
            "[[keys]]\nname = \"books\"\nsecret = \"sk-canary-of-a-client-0123\"\nrequests_per_minute = 3\n\
             [limits]\nredis = \"rediss://127.0.0.1:{port}\"\nreplicas = 3\nstore_timeout = \"5s\"\n{more}"
        )
    };
    let good = config(&format!("ca_file = \"{certificate}\"\n"));
    let gateways = [Gateway::start(&scratch, &good).await, Gateway::start(&scratch, &good).await];
    let mut statuses = Vec::new();
    for round in 0..6 {
        let body = chat("gemini-2.5-flash", "hi", false);
        let address = gateways[round % 2].address;
        statuses.push(fetch(address, "POST", "/v1/chat/completions", &[KEY], &body).await.unwrap().status);
    }
    assert_eq!(statuses, [200, 200, 200, 429, 429, 429]);
    // A certificate that nobody vouches for is no Redis: this one counts by itself.
    let alone = Gateway::start(&scratch, &config("")).await;
    let body = chat("gemini-2.5-flash", "hi", false);
    assert_eq!(
        fetch(alone.address, "POST", "/v1/chat/completions", &[KEY], &body).await.unwrap().status,
        200
    );
    let page = fetch(alone.admin, "GET", "/metrics", &[], "").await.unwrap().body;
    assert!(!page.contains("gemway_ratelimit_store_errors_total 0"), "{page}");
}
