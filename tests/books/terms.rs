//! What changes while a gateway runs, and what a request costs that did not go well.

use std::time::Duration;

use serde_json::Value;

use super::support::{Gateway, KEY, Scratch, chat, fetch, fetch_until, usage};

const PRICES: &str =
    "version = \"mine\"\n[[price]]\nmodels = [\"gemini-2.5-flash\"]\ninput = 1.0\noutput = IT\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_prices_and_operators_keys_is_in_force_without_a_restart() {
    let scratch = Scratch::new();
    let prices = scratch.file("prices.toml", &PRICES.replace("IT", "1.0"));
    let config = format!(
        "admin_key = \"operator\"\ncost_header = COST\nprices = \"{}\"\n[[keys]]\nname = \"books\"\nsecret = \"sk-canary-of-a-client-0123\"\n\
         [ledger]\nurl = \"{}\"\n",
        prices.display(),
        scratch.ledger()
    );
    let file = scratch.file("gateway.toml", &config.replace("COST", "true"));
    let pace = ["--simulator-ttft", "0", "--simulator-tokens-per-second", "0"];
    let gateway = Gateway::start_with(&scratch, Some(&file), &pace, &[]).await;
    let cost = async || {
        let body = chat("gemini-2.5-flash", "one two three four", false);
        let answer = fetch(gateway.address, "POST", "/v1/chat/completions", &[KEY], &body).await.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.body);
        (answer.header("x-gemway-cost").map(str::to_owned), answer.usage().unwrap())
    };
    let (before, told) = cost().await;
    let dollars = |told: &Value, output: f64| {
        let count = |name: &str| told[name].as_f64().unwrap();
        (count("prompt_tokens") + output * count("completion_tokens")) / 1e6
    };
    let near = |text: &Option<String>, dollars: f64| {
        (text.as_ref().unwrap().parse::<f64>().unwrap() - dollars).abs() < 1e-9
    };
    assert!(near(&before, dollars(&told, 1.0)), "{before:?}");
    // The file alone changes: it is noticed.
    scratch.file("prices.toml", &PRICES.replace("IT", "3.0"));
    let mut after = cost().await.0;
    for _ in 0..100 {
        if after != before {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        after = cost().await.0;
    }
    assert!(near(&after, dollars(&told, 3.0)), "{after:?}");
    // The header and the keys that operators see follow too.
    let more = "[[keys]]\nname = \"second\"\nsecret = \"sk-second\"\n[ledger]";
    let text =
        config.replace("COST", "false").replace("\"operator\"", "\"another\"").replace("[ledger]", more);
    scratch.file("gateway.toml", &text);
    gateway.signal("HUP");
    let operator = async |key: &str| {
        let headers = [("authorization", key)];
        fetch(gateway.admin, "GET", "/admin/v1/keys", &headers, "").await.unwrap()
    };
    for _ in 0..100 {
        if operator("Bearer another").await.status == 200 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(operator("Bearer operator").await.status, 401);
    assert!(operator("Bearer another").await.body.contains("second"));
    assert_eq!(cost().await.0, None);
    gateway.stop().await;
    let rows = usage(&scratch.ledger(), "key").await;
    let count = rows[0]["requests"].as_f64().unwrap();
    let sum = rows[0]["cost_usd"].as_f64().unwrap();
    // All but those before the change cost the new price.
    let (old, new) = (dollars(&told, 1.0), dollars(&told, 3.0));
    assert!(sum > old * count && sum < new * count, "{rows:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_in_vain_and_broken_ones_are_booked() {
    let scratch = Scratch::new();
    let config = format!(
        "[[keys]]\nname = \"books\"\nsecret = \"sk-canary-of-a-client-0123\"\n[ledger]\nurl = \"{}\"\n",
        scratch.ledger()
    );
    let gateway = Gateway::start(&scratch, &config).await;
    let ask = async |model: &str, stream: bool, enough: usize| {
        let body = chat(model, "one two three four five six", stream);
        fetch_until(gateway.address, "POST", ("/v1/chat/completions", &[KEY], &body), enough).await.unwrap()
    };
    // Two answers without a candidate: Google bills the prompt of each.
    assert!(ask("sim-nocandidates", false, usize::MAX).await.status >= 500);
    // One that is cut in the middle, and one whose client leaves in the middle.
    assert!(!ask("sim-cut", true, usize::MAX).await.complete());
    ask("sim-stall", true, 900).await;
    for _ in 0..100 {
        let page = fetch(gateway.admin, "GET", "/metrics", &[], "").await.unwrap().body;
        if page.contains("gemway_inflight_requests 0") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    gateway.stop().await;
    let rows = usage(&scratch.ledger(), "asked").await;
    let row = |asked: &str| rows.iter().find(|row| row["asked"] == asked).unwrap().clone();
    let (vain, cut, left) = (row("sim-nocandidates"), row("sim-cut"), row("sim-stall"));
    let once = cut["input_tokens"].as_u64().unwrap();
    assert!(once > 0 && vain["input_tokens"].as_u64() == Some(2 * once), "{rows:?}");
    for broken in [cut, left] {
        assert!(broken["output_tokens"].as_u64().unwrap() > 0, "{broken}");
        assert_eq!(broken["estimated_requests"], 1, "{broken}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_see_which_site_is_in_trouble() {
    let scratch = Scratch::new();
    let config =
        "admin_key = \"operator\"\n[[keys]]\nname = \"books\"\nsecret = \"sk-canary-of-a-client-0123\"\n";
    let gateway = Gateway::start(&scratch, config).await;
    let sites = async || {
        let headers = [("authorization", "Bearer operator")];
        fetch(gateway.admin, "GET", "/admin/v1/sites", &headers, "").await.unwrap().json()["sites"].clone()
    };
    assert_eq!(sites().await[0]["models"], serde_json::json!({}));
    for _ in 0..6 {
        let body = chat("sim-500", "hi", false);
        let headers = [KEY, ("x-gemway-no-retry", "1")];
        assert!(
            fetch(gateway.address, "POST", "/v1/chat/completions", &headers, &body).await.unwrap().status
                >= 500
        );
    }
    let body = chat("sim-429-daily", "hi", false);
    fetch(gateway.address, "POST", "/v1/chat/completions", &[KEY], &body).await.unwrap();
    let told = sites().await[0].clone();
    assert_eq!(told["models"]["sim-500"]["breaker"], "doubtful", "{told}");
    assert!(told["models"]["sim-500"]["next_probe_in_ms"].is_u64(), "{told}");
    assert_eq!(told["models"]["sim-429-daily"]["daily_quota_spent"], true, "{told}");
    assert_eq!(told["kind"], "simulator");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_booked_once_when_its_answers_are_fetched() {
    let scratch = Scratch::new();
    let config = format!(
        "[[keys]]\nname = \"books\"\nsecret = \"sk-canary-of-a-client-0123\"\n[ledger]\nurl = \"{}\"\ndurability = \"before_end\"\n",
        scratch.ledger()
    );
    let gateway = Gateway::start(&scratch, &config).await;
    let headers = [("x-goog-api-key", "sk-canary-of-a-client-0123")];
    let request = r#"{"request":{"contents":[{"role":"user","parts":[{"text":"one two three"}]}]}}"#;
    let body = format!(
        r#"{{"batch":{{"displayName":"b","inputConfig":{{"requests":{{"requests":[{request},{request}]}}}}}}}}"#
    );
    let path = "/v1beta/models/gemini-2.5-flash:batchGenerateContent";
    let made = fetch(gateway.address, "POST", path, &headers, &body).await.unwrap();
    assert_eq!(made.status, 200, "{}", made.body);
    let path = format!("/v1beta/{}", made.json()["name"].as_str().unwrap());
    let mut told = Value::Null;
    for _ in 0..20 {
        told = fetch(gateway.address, "GET", &path, &headers, "").await.unwrap().json();
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let responses = told["response"]["inlinedResponses"]["inlinedResponses"].as_array().unwrap();
    let count = |one: &Value| one["response"]["usageMetadata"]["promptTokenCount"].as_u64().unwrap();
    let prompts: u64 = responses.iter().map(count).sum();
    gateway.stop().await;
    let rows = usage(&scratch.ledger(), "tier,model").await;
    let batch = rows.iter().find(|row| row["tier"] == "batch").unwrap();
    assert_eq!((&batch["requests"], &batch["model"]), (&1.into(), &"gemini-2.5-flash".into()), "{rows:?}");
    assert_eq!(batch["input_tokens"].as_u64(), Some(prompts), "{rows:?}");
    assert!(batch["cost_usd"].as_f64().unwrap() > 0.0, "{rows:?}");
}
