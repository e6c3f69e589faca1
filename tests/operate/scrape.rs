//! What a scrape shows, to whom it is bound, and what it costs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::reload::{SECRET, config};
use super::support::{Gateway, KEY, Scratch, chat, fetch, fetch_until, times};

/// Requests that try to put their own words into a label.
fn hostile(turn: u32) -> String {
    let body =
        |model: &str| format!(r#"{{"model":"{model}","messages":[{{"role":"user","content":"{turn}"}}]}}"#);
    let (head, body) = match turn % 5 {
        0 => ("POST /v1/chat/completions".to_owned(), body(&format!("made-up-{turn}"))),
        1 => (format!("POST /v1/made-up-{turn}/x{}", turn / 3), String::new()),
        2 => (format!("M{turn} /v1/models"), String::new()),
        3 => (format!("GET /v1/models/made-up-{turn}"), String::new()),
        _ => ("POST /v1/embeddings".to_owned(), format!(r#"{{"model":"made-up-{turn}","input":"x"}}"#)),
    };
    let key = if turn.is_multiple_of(7) { format!("made-up-key-{turn}") } else { SECRET.to_owned() };
    format!(
        "{head} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\nuser-agent: made-up-{turn}\r\nx-request-id: made-up-{turn}\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

#[tokio::test]
async fn ten_thousand_hostile_requests_make_no_series_of_their_own() {
    let scratch = Scratch::new();
    let gateway = Gateway::start(&scratch, &config("alias", "[log]\nlevel = \"warn\"\n")).await;
    let mut sizes = Vec::new();
    for round in 0..2_u32 {
        for batch in 0..50_u32 {
            let mut socket = TcpStream::connect(gateway.address).await.unwrap();
            let mut all = String::new();
            for turn in 0..100 {
                all.push_str(&hostile(round * 5000 + batch * 100 + turn));
            }
            all.push_str("GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
            // What matters is what came back, however the connection ends.
            let mut answers = Vec::new();
            let _ = socket.write_all(all.as_bytes()).await;
            let _ = socket.read_to_end(&mut answers).await;
            let answers = String::from_utf8_lossy(&answers);
            assert!(answers.matches("HTTP/1.1 ").count() > 90, "{answers}");
        }
        let scrape = gateway.metrics().await;
        assert!(!scrape.contains("made-up"), "{scrape}");
        sizes.push(scrape.lines().filter(|line| !line.starts_with('#')).count());
    }
    assert!(sizes[1] < 5000 && sizes[1] <= sizes[0] + 5, "{sizes:?}");
}

/// Every metric that the gateway has shows once something has happened that it counts; what needs a broken
/// neighbour (a ledger, a store, a collector that is away) is named here.
#[tokio::test]
async fn every_metric_shows() {
    const NEEDS_A_BROKEN_NEIGHBOUR: &[&str] = &[
        "gemway_trace_spans_lost_total",
        "gemway_ledger_lost_rows_total",
        "gemway_ledger_errors_total",
        "gemway_ledger_recovered_rows_total",
        "gemway_ratelimit_store_errors_total",
        "gemway_unknown_finish_reasons_total",
        "gemway_shed_total",
    ];
    let scratch = Scratch::new();
    let rest = format!("[ledger]\nurl = \"{}\"\n", scratch.ledger());
    let limited = config("alias", &rest)
        .replace("[aliases]", "requests_per_minute = 40\n[aliases]")
        .replace("tokens_per_second = 0", "tokens_per_second = 2000");
    let path = scratch.file("gemway.toml", &limited);
    let gateway = Gateway::start_with(&scratch, Some(&path), &[], &[]).await;
    let long = chat("gemini-2.5-flash", &"word ".repeat(3000), true);
    fetch_until(gateway.address, "POST", ("/v1/chat/completions", &[KEY], &long), 1).await.unwrap();
    let thinking = chat("gemini-2.5-flash", "Hello", true).replacen('{', r#"{"reasoning_effort":"high","#, 1);
    let kept = format!(
        r#"{{"model":"models/gemini-2.5-flash","contents":[{{"role":"user","parts":[{{"text":"{}"}}]}}]}}"#,
        "word ".repeat(3000)
    );
    let kept = fetch(gateway.address, "POST", "/v1beta/cachedContents", &[KEY], &kept).await.unwrap().json();
    let cached = format!(r#"{{"google":{{"cached_content":{}}},"#, kept["name"]);
    let cached = chat("gemini-2.5-flash", "Hello", false).replacen('{', &cached, 1);
    for body in [
        &thinking,
        &cached,
        &chat("sim-503", "x", false),
        &chat("sim-cut", "x", true),
        &chat("made-up", "x", false),
    ] {
        fetch(gateway.address, "POST", "/v1/chat/completions", &[KEY], body).await.unwrap();
    }
    for _ in 0..40 {
        fetch(gateway.address, "POST", "/v1/chat/completions", &[KEY], &chat("sim-400", "x", false))
            .await
            .unwrap();
    }
    super::reload::reload(&gateway, "taken").await;
    let mut missing = Vec::new();
    for _ in 0..50 {
        let page = gateway.metrics().await;
        let shows = |name: &&str| {
            page.lines().any(|line| {
                let found = line.strip_prefix(*name).unwrap_or_default();
                found.starts_with(['{', ' ']) || found.starts_with("_bucket{") || found.starts_with("_count")
            })
        };
        let names = gemway::telemetry::metrics::ALL.iter().map(|family| family.name);
        let process = ["process_cpu_seconds_total", "process_resident_memory_bytes", "process_open_fds"];
        missing = names.chain(process).filter(|name| !NEEDS_A_BROKEN_NEIGHBOUR.contains(name)).collect();
        missing.retain(|name| !shows(name));
        if missing.is_empty() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("not in the scrape: {missing:?}");
}

/// A scrape every fifteen seconds costs less than a hundredth of one processor, with as many series as a busy gateway
/// has. Only processor time of the process is looked at, so that a slow or a shared machine is as good as a quick one:
/// a gateway under full load has one processor at least. `GEMWAY_TEST_LOAD_SECONDS` prolongs the load.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scrape_under_load_costs_next_to_nothing() {
    const EVERY: Duration = Duration::from_secs(15);
    const SCRAPES: u32 = 200;
    let length = Duration::from_secs(times("GEMWAY_TEST_LOAD_SECONDS", 3) as u64);
    let scratch = Scratch::new();
    let gateway = Arc::new(Gateway::start(&scratch, &config("alias", "[log]\nlevel = \"warn\"\n")).await);
    // Series for every model that is known, on several routes.
    let listed = fetch(gateway.address, "GET", "/v1/models", &[KEY], "").await.unwrap().json();
    for model in listed["data"].as_array().unwrap() {
        for stream in [false, true] {
            let body = chat(model["id"].as_str().unwrap(), "Hello", stream);
            fetch(gateway.address, "POST", "/v1/chat/completions", &[KEY], &body).await.unwrap();
        }
    }
    let (stop, served) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let clients: Vec<_> = (0..8)
        .map(|_| {
            let (gateway, stop, served) = (Arc::clone(&gateway), Arc::clone(&stop), Arc::clone(&served));
            tokio::spawn(async move {
                let body = chat("gemini-2.5-flash", "one two three four five six seven", true);
                while !stop.load(Relaxed) {
                    let answer =
                        fetch(gateway.address, "POST", "/v1/chat/completions", &[KEY], &body).await.unwrap();
                    assert!(answer.complete(), "{answer:?}");
                    served.fetch_add(1, Relaxed);
                }
            })
        })
        .collect();
    let before = gateway.processor();
    tokio::time::sleep(length).await;
    let page = gateway.metrics().await;
    assert!(page.contains("gemway_inflight_requests"), "no scrape under load");
    stop.store(true, Relaxed);
    for client in clients {
        client.await.unwrap();
    }
    let served = served.load(Relaxed);
    let load = gateway.processor().saturating_sub(before);
    let request = load / u32::try_from(served).unwrap().max(1);
    // The scrapes alone: in the load they would not be seen.
    let before = gateway.processor();
    let mut series = 0;
    for _ in 0..SCRAPES {
        let page = gateway.metrics().await;
        series = page.lines().filter(|line| !line.starts_with('#')).count();
    }
    let scrape = gateway.processor().saturating_sub(before) / SCRAPES;
    let share = scrape.as_secs_f64() / EVERY.as_secs_f64();
    println!(
        "{served} requests took {load:?} of processor time, {request:?} each; a scrape of {series} series takes {scrape:?}: \
         at one every {EVERY:?}, {:.4} % of one processor",
        share * 100.0
    );
    assert!(series > 1000, "{series}");
    assert!(share < 0.01, "{share}");
}
