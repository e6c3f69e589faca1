//! Ledger, metrics and clients agree to the token.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use serde_json::Value;

use super::support::{Gateway, KEY, Scratch, chat, fetch, fetch_until, times, usage};

#[derive(Default)]
struct Seen {
    /// What complete answers said they took, by the request's id.
    complete: Mutex<HashMap<String, (u64, u64)>>,
    left: AtomicUsize,
    failed: AtomicUsize,
}

/// One request of the mixture.
async fn one(address: std::net::SocketAddr, number: usize, seen: &Seen) {
    let text = "word ".repeat(1 + number % 37);
    let model = ["gemini-2.5-flash", "gemini-3.8-flash", "gemini-2.5-pro"][number % 3];
    let native = "/v1beta/models/gemini-2.5-flash:generateContent";
    let (path, body, enough) = match number % 20 {
        // Five in a hundred fail, five leave.
        0 => (
            "/v1/chat/completions",
            chat(
                ["sim-500", "sim-cut", "sim-error-mid", "sim-400"][number / 20 % 4],
                &text,
                number.is_multiple_of(40),
            ),
            usize::MAX,
        ),
        // One that stalls is certainly left in the middle; another may be over before its client goes.
        1 if number % 40 == 1 => ("/v1/chat/completions", chat("sim-stall", &text, true), 900),
        1 => ("/v1/chat/completions", chat(model, &text, true), 600),
        2 | 3 => {
            ("/v1/embeddings", format!(r#"{{"model":"gemini-embedding-001","input":"{text}"}}"#), usize::MAX)
        }
        4 | 5 => (
            native,
            format!(r#"{{"contents":[{{"role":"user","parts":[{{"text":"{text}"}}]}}]}}"#),
            usize::MAX,
        ),
        even if even % 2 == 0 => ("/v1/chat/completions", chat(model, &text, false), usize::MAX),
        _ => ("/v1/chat/completions", chat(model, &text, true), usize::MAX),
    };
    let id = format!("agree-{number}");
    let headers = [KEY, ("x-request-id", id.as_str())];
    let answer = fetch_until(address, "POST", (path, &headers, &body), enough).await.unwrap();
    if !answer.complete() {
        let count = if enough == usize::MAX { &seen.failed } else { &seen.left };
        count.fetch_add(1, Ordering::Relaxed);
        return;
    }
    let number = |value: &Value| value.as_u64().unwrap_or(0);
    let (input, output) = if path == native {
        let told = &answer.json()["usageMetadata"];
        let input = number(&told["promptTokenCount"]) + number(&told["toolUsePromptTokenCount"]);
        (input, number(&told["candidatesTokenCount"]) + number(&told["thoughtsTokenCount"]))
    } else {
        let told = answer.usage().unwrap_or_else(|| panic!("no usage in {}", answer.body));
        assert_eq!(
            number(&told["prompt_tokens"]) + number(&told["completion_tokens"]),
            number(&told["total_tokens"])
        );
        (number(&told["prompt_tokens"]), number(&told["completion_tokens"]))
    };
    seen.complete.lock().insert(id, (input, output));
}

fn count(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<u64> {
    row.get::<_, i64>(column).map(i64::cast_unsigned)
}

fn sum(groups: &[Value], name: &str) -> u64 {
    groups.iter().filter_map(|group| group[name].as_u64()).sum()
}

/// The sum of a metric's series whose labels contain a text.
fn metric(page: &str, name: &str, label: &str) -> u64 {
    let series = page.lines().filter(|line| line.starts_with(&format!("{name}{{")) && line.contains(label));
    series.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn ledger_metrics_and_clients_agree_to_the_token() {
    let requests = times("GEMWAY_TEST_REQUESTS", 1000);
    let scratch = Scratch::new();
    let config = format!(
        "[[keys]]\nname = \"books\"\nsecret = \"sk-canary-of-a-client-0123\"\n[ledger]\nurl = \"{}\"\n",
        scratch.ledger()
    );
    let gateway = Gateway::start(&scratch, &config).await;
    let (seen, next, address) = (Arc::new(Seen::default()), Arc::new(AtomicUsize::new(0)), gateway.address);
    let workers: Vec<_> = (0..16)
        .map(|_| {
            let (seen, next) = (Arc::clone(&seen), Arc::clone(&next));
            tokio::spawn(async move {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= requests {
                        return;
                    }
                    one(address, number, &seen).await;
                }
            })
        })
        .collect();
    for worker in workers {
        worker.await.unwrap();
    }
    // Whoever left has to be noticed first.
    let mut page = String::new();
    for _ in 0..200 {
        page = fetch(gateway.admin, "GET", "/metrics", &[], "").await.unwrap().body;
        if page.contains("gemway_inflight_requests 0") {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    gateway.stop().await;
    let groups = usage(&scratch.ledger(), "outcome").await;
    let complete = seen.complete.lock();
    let total = complete.values().fold((0, 0), |sum, (input, output)| (sum.0 + input, sum.1 + output));
    println!(
        "{requests} requests: {} complete, {} failed, {} left; {total:?} input and output tokens seen",
        complete.len(),
        seen.failed.load(Ordering::Relaxed),
        seen.left.load(Ordering::Relaxed)
    );
    println!("ledger: {groups:?}");
    assert_eq!(sum(&groups, "requests"), requests as u64, "a row for each request");
    let file = rusqlite::Connection::open(scratch.0.join("gemway.db")).unwrap();
    let columns = "request_id, input_tokens + tool_use_tokens, output_tokens + reasoning_tokens, outcome";
    let mut statement = file.prepare(&format!("SELECT {columns} FROM ledger")).unwrap();
    let rows = statement.query_map([], |row| {
        Ok((row.get::<_, String>(0)?, (count(row, 1)?, count(row, 2)?), row.get::<_, String>(3)?))
    });
    let rows: Vec<_> = rows.unwrap().map(Result::unwrap).collect();
    for (id, tokens, outcome) in &rows {
        if let Some(told) = complete.get(id) {
            assert_eq!((told, "ok"), (tokens, outcome.as_str()), "{id}: its client and the ledger");
        }
    }
    let counted = rows.iter().filter(|(id, ..)| complete.contains_key(id)).count();
    assert_eq!(counted, complete.len(), "every answer that a client has is in the ledger, once");
    assert!(rows.iter().any(|(_, tokens, outcome)| outcome == "client_cancelled" && tokens.0 > 0));
    let mine = "key=\"books\"";
    let counted = |kind: &str| {
        let lines: Vec<&str> = page.lines().filter(|line| line.contains(mine)).collect();
        metric(&lines.join("\n"), "gemway_key_tokens_total", &format!("kind=\"{kind}\""))
    };
    for (kind, column) in [
        ("input", "input_tokens"),
        ("output", "output_tokens"),
        ("cached", "cached_tokens"),
        ("reasoning", "reasoning_tokens"),
    ] {
        assert_eq!(counted(kind), sum(&groups, column), "metrics and ledger: {kind}");
    }
    let models = |kind: &str| metric(&page, "gemway_tokens_total", &format!("kind=\"{kind}\""));
    assert_eq!(models("input") + models("tool_use"), sum(&groups, "input_tokens"));
    assert_eq!(models("output") + models("reasoning"), sum(&groups, "output_tokens"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_concurrent_first_requests_cannot_overrun_a_budget() {
    let scratch = Scratch::new();
    let config = format!(
        "cost_header = true\n[[keys]]\nname = \"books\"\nsecret = \"sk-canary-of-a-client-0123\"\nbudget = {{ usd = 0.01, per = \"day\" }}\n\
         [simulator]\ntime_to_first_token = \"300ms\"\n[ledger]\nurl = \"{}\"\n",
        scratch.ledger()
    );
    let gateway = Gateway::start(&scratch, &config).await;
    let address = gateway.address;
    // 1000 tokens at 2.5 dollars a million: four at once are too many.
    let body =
        r#"{"model":"gemini-2.5-flash","max_tokens":1000,"messages":[{"role":"user","content":"hello"}]}"#;
    let all: Vec<_> = (0..100).map(|_| tokio::spawn(fetch_owned(address, body))).collect();
    let (mut served, mut refused, mut spent) = (0, 0, 0.0);
    for one in all {
        let answer = one.await.unwrap();
        match answer.status {
            200 => {
                served += 1;
                spent += answer.header("x-gemway-cost").unwrap().parse::<f64>().unwrap();
            }
            429 => {
                refused += 1;
                let error = &answer.json()["error"];
                assert_eq!(
                    (&error["type"], &error["code"]),
                    (&"insufficient_quota".into(), &"insufficient_quota".into())
                );
                assert_eq!(answer.header("x-should-retry"), Some("false"));
                assert!(error["message"].as_str().unwrap().contains("$0.01 a day"), "{error}");
            }
            other => panic!("{other}: {}", answer.body),
        }
    }
    println!("{served} served for {spent:.6} dollars, {refused} refused");
    assert!(served >= 3 && refused > 0 && spent <= 0.01);
    gateway.stop().await;
    // After a restart the budget stands where the ledger says.
    let rows = usage(&scratch.ledger(), "key").await;
    assert!((rows[0]["cost_usd"].as_f64().unwrap() - spent).abs() < 1e-9);
    let small = config.replace("0.01", &format!("{:.9}", spent + 0.000_001));
    let gateway = Gateway::start(&scratch, &small).await;
    let answer = fetch(gateway.address, "POST", "/v1/chat/completions", &[KEY], body).await.unwrap();
    assert_eq!(answer.status, 429, "{}", answer.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tier_that_served_sets_the_price_and_is_in_the_ledger() {
    let scratch = Scratch::new();
    let config = format!(
        "cost_header = true\n[[keys]]\nname = \"books\"\nsecret = \"sk-canary-of-a-client-0123\"\n[ledger]\nurl = \"{}\"\n",
        scratch.ledger()
    );
    let gateway = Gateway::start(&scratch, &config).await;
    let model = "gemini-3.5-flash-lite";
    for (tier, google) in [("default", "standard"), ("flex", "flex"), ("priority", "priority")] {
        for stream in [false, true] {
            let body = format!(
                r#"{{"model":"{model}","service_tier":"{tier}","stream":{stream},"messages":[{{"role":"user","content":"one two three"}}]}}"#
            );
            let answer = fetch(gateway.address, "POST", "/v1/chat/completions", &[KEY], &body).await.unwrap();
            assert!(answer.complete() && answer.body.contains(&format!("\"{tier}\"")), "{}", answer.body);
        }
        let native = format!("/v1beta/models/{model}:generateContent");
        let body =
            format!(r#"{{"serviceTier":"{google}","contents":[{{"parts":[{{"text":"one two three"}}]}}]}}"#);
        assert!(fetch(gateway.address, "POST", &native, &[KEY], &body).await.unwrap().complete());
    }
    gateway.stop().await;
    let groups = usage(&scratch.ledger(), "tier").await;
    let group = |tier: &str| groups.iter().find(|group| group["tier"] == tier).unwrap_or(&Value::Null);
    let cost = |tier: &str| group(tier)["cost_usd"].as_f64().unwrap_or(0.0);
    for tier in ["standard", "flex", "priority"] {
        assert_eq!(group(tier)["requests"], 3, "{groups:?}");
        assert_eq!(group(tier)["input_tokens"], group("standard")["input_tokens"]);
    }
    let near = |cost: f64, factor: f64, list: f64| cost > 0.0 && (cost - list * factor).abs() < 1e-8;
    assert!(near(cost("flex"), 0.5, cost("standard")), "{groups:?}");
    assert!(near(cost("priority"), 1.8, cost("standard")), "{groups:?}");
}

async fn fetch_owned(address: std::net::SocketAddr, body: &'static str) -> super::support::Answer {
    fetch(address, "POST", "/v1/chat/completions", &[KEY], body).await.unwrap()
}
