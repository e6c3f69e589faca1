//! The log: one line a request with all that an operator asks, and never a secret.

use serde_json::Value;

use super::reload::{SECRET, config};
use super::support::{Gateway, KEY, Scratch, chat, double, fetch, fetch_until};

/// What each line of a request holds.
const ALWAYS: &[&str] = &[
    "timestamp",
    "level",
    "request_id",
    "key",
    "route",
    "method",
    "http_version",
    "status",
    "outcome",
    "model_requested",
    "model_used",
    "provider",
    "site",
    "attempts",
    "upstream_status",
    "upstream_ms",
    "overhead_us",
    "duration_ms",
    "stream",
    "bytes_in",
    "bytes_out",
    "input_tokens",
    "output_tokens",
    "reasoning_tokens",
    "cached_tokens",
    "estimated",
    "cost_usd",
    "user_agent",
];

#[tokio::test]
async fn a_request_is_one_line_with_everything() {
    let scratch = Scratch::new();
    let gateway = Gateway::start(&scratch, &config("alias", "")).await;
    let body = chat("alias", "Hello", true).replacen('{', r#"{"logit_bias":{},"user":"u","#, 1);
    let headers = [KEY, ("user-agent", "agent/1"), ("x-request-id", "mine-1")];
    fetch(gateway.address, "POST", "/v1/chat/completions", &headers, &body).await.unwrap();
    let lines = gateway.requests();
    assert_eq!(lines.len(), 1, "{lines:?}");
    for name in ALWAYS {
        assert!(!lines[0][name].is_null(), "{name} is missing in {}", lines[0]);
    }
    for (name, value) in [
        ("request_id", "mine-1"),
        ("key", "team"),
        ("route", "chat"),
        ("outcome", "ok"),
        ("site", "simulator"),
        ("model_requested", "alias"),
        ("model_used", "gemini-2.5-flash"),
        ("user_agent", "agent/1"),
    ] {
        assert_eq!(lines[0][name], value, "{}", lines[0]);
    }
    assert!(lines[0]["ttft_ms"].is_u64() && lines[0]["output_tokens"].as_u64() > Some(0), "{}", lines[0]);
    assert!(lines[0]["dropped"].as_str().unwrap().contains("user"), "{}", lines[0]);
}

/// Every way to end has its line, and its word.
#[tokio::test]
async fn outcomes_are_told_apart() {
    let scratch = Scratch::new();
    let paced = config("alias", "").replace("tokens_per_second = 0", "tokens_per_second = 5");
    let gateway = Gateway::start(&scratch, &paced).await;
    let long = chat("gemini-2.5-flash", "one two three four five six seven eight nine ten", true);
    let ask = ("/v1/chat/completions", &[KEY][..], long.as_str());
    fetch_until(gateway.address, "POST", ask, 1).await.unwrap();
    for (model, text) in [("sim-503", "x"), ("sim-cut", "x"), ("sim-400", "x")] {
        fetch(gateway.address, "POST", "/v1/chat/completions", &[KEY], &chat(model, text, true))
            .await
            .unwrap();
    }
    let mut outcomes = Vec::new();
    for _ in 0..100 {
        outcomes =
            gateway.requests().iter().map(|line| line["outcome"].as_str().unwrap().to_owned()).collect();
        if outcomes.len() == 4 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    outcomes.sort();
    assert_eq!(outcomes, ["client_cancelled", "failed", "failed", "refused"]);
}

#[tokio::test]
async fn a_share_of_what_goes_well_is_logged_and_all_that_does_not() {
    let scratch = Scratch::new();
    let gateway = Gateway::start(&scratch, &config("alias", "[log]\nshare = 0.1\n")).await;
    for (model, times) in [("alias", 20), ("sim-400", 5)] {
        for _ in 0..times {
            let body = chat(model, "Hello", false);
            fetch(gateway.address, "POST", "/v1/chat/completions", &[KEY], &body).await.unwrap();
        }
    }
    let lines = gateway.requests();
    let well = lines.iter().filter(|line| line["outcome"] == "ok").count();
    assert_eq!((well, lines.len()), (2, 7), "{lines:?}");
}

#[tokio::test]
async fn people_get_a_line_that_people_read() {
    let scratch = Scratch::new();
    let gateway = Gateway::start(&scratch, &config("alias", "[log]\nformat = \"pretty\"\n")).await;
    let body = chat("alias", "Hello", false);
    fetch(gateway.address, "POST", "/v1/chat/completions", &[KEY], &body).await.unwrap();
    let log = gateway.log();
    assert!(
        log.contains("INFO") && log.contains("model_used=\"gemini-2.5-flash\"") && !log.contains('{'),
        "{log}"
    );
}

/// Everything secret, everything private, in every place where a request can carry it; a Google that repeats its key;
/// and a log that is as talkative as it can be.
#[tokio::test]
async fn no_secret_and_no_word_of_a_client_is_ever_told() {
    const PRIVATE: &str = "canary-of-a-prompt";
    let scratch = Scratch::new();
    let leaky = r#"{"error":{"code":403,"message":"Key AIzaCanaryOfGoogle-0123456789abcdefghijk lacks a role","status":"PERMISSION_DENIED"}}"#;
    let (upstream, _asked) = double("403 Forbidden", leaky).await;
    let (collector, mut letters) = double("200 OK", "{}").await;
    let config = format!(
        "admin_key = \"canary-of-the-operator-0123\"\n[[keys]]\nname = \"team\"\nsecret = \"{SECRET}\"\n\
         [[sites]]\nname = \"leaky\"\nkind = \"gemini_api\"\nbase_url = \"http://{upstream}\"\napi_key = \"AIzaCanaryOfGoogle-0123456789abcdefghijk\"\n\
         [[sites]]\nname = \"practice\"\nkind = \"simulator\"\n\
         [[routes]]\nmodels = [\"gemini-2.5-pro\"]\nsites = [\"leaky\"]\n[[routes]]\nmodels = [\"*\"]\nsites = [\"practice\"]\n\
         [traces]\nendpoint = \"http://{collector}\"\nheaders = {{ x-token = \"canary-of-the-collector\" }}\n\
         [log]\nlevel = \"trace\"\n[ledger]\nurl = \"{}\"\n",
        scratch.ledger()
    );
    let gateway = Gateway::start(&scratch, &config).await;
    let mut told = String::new();
    let tool = format!(
        r#"{{"model":"gemini-2.5-flash","messages":[{{"role":"system","content":"{PRIVATE}"}},{{"role":"user","content":"{PRIVATE}"}}],"tools":[{{"type":"function","function":{{"name":"f","description":"{PRIVATE}","parameters":{{"type":"object","properties":{{}}}}}}}}],"user":"{PRIVATE}"}}"#
    );
    let wrong = format!(r#"{{"model":"gemini-2.5-flash","messages":[{{"role":"{PRIVATE}","content":1}}]}}"#);
    let embedding = format!(r#"{{"model":"gemini-embedding-001","input":"{PRIVATE}"}}"#);
    let response = format!(r#"{{"model":"gemini-2.5-flash","input":"{PRIVATE}","stream":true}}"#);
    let native = format!(r#"{{"contents":[{{"role":"user","parts":[{{"text":"{PRIVATE}"}}]}}]}}"#);
    let chats = [
        chat("gemini-2.5-flash", PRIVATE, true),
        chat("gemini-2.5-pro", PRIVATE, false),
        chat("sim-error-mid", PRIVATE, true),
        chat("sim-garbage", PRIVATE, true),
        chat("sim-blocked", PRIVATE, false),
        tool,
        wrong,
        format!("{{\"model\": \"{PRIVATE}"),
    ];
    let mut asks: Vec<(String, &str)> =
        chats.iter().map(|body| ("/v1/chat/completions".to_owned(), body.as_str())).collect();
    asks.push(("/v1/embeddings".into(), &embedding));
    asks.push(("/v1/responses".into(), &response));
    asks.push(("/v1beta/models/gemini-2.5-flash:generateContent".into(), &native));
    asks.push(("/v1beta/models/gemini-2.5-pro:generateContent".into(), &native));
    asks.push((format!("/v1beta/models/gemini-2.5-flash:generateContent?key={SECRET}"), &native));
    asks.push(("/v1beta/models/gemini-2.5-flash:generateContent?key=canary-of-a-stranger".into(), &native));
    for (path, body) in &asks {
        let keys: &[(&str, &str)] = if path.contains("key=") {
            &[]
        } else {
            &[
                KEY,
                ("cookie", "canary-of-a-cookie"),
                ("x-goog-api-key", SECRET),
                ("traceparent", "canary-of-a-trace"),
            ]
        };
        let answer = fetch(gateway.address, "POST", path, keys, body).await.unwrap();
        if answer.status >= 400 {
            told.push_str(&answer.body.replace(PRIVATE, ""));
        }
        told.push_str(&answer.head);
    }
    for key in ["canary-of-the-operator-0123", "canary-of-a-stranger-0123"] {
        let bearer = format!("Bearer {key}");
        let headers = [("authorization", bearer.as_str())];
        for path in ["/admin/v1/keys", "/admin/v1/limits", "/admin/v1/sites", "/admin/v1/usage?by=key"] {
            told.push_str(&fetch(gateway.admin, "GET", path, &headers, "").await.unwrap().body);
        }
    }
    let metrics = gateway.metrics().await;
    let requests = gateway.requests();
    let answered = asks.len();
    assert!(requests.len() >= answered, "{} lines", requests.len());
    let masked = requests.iter().find(|line| line["error_code"] == "upstream_auth_error").unwrap();
    let cause = masked["error_cause"].as_str().unwrap();
    assert!(cause.contains("lacks a role"), "Google's words are lost: {cause}");
    let letter =
        tokio::time::timeout(std::time::Duration::from_secs(10), letters.recv()).await.unwrap().unwrap();
    let spans = letter.split_once("\r\n\r\n").unwrap().1.to_owned();
    let (log, ledger) = (gateway.log(), scratch.0.join("gemway.db"));
    gateway.stop().await;
    let ledger = String::from_utf8_lossy(&std::fs::read(ledger).unwrap()).into_owned();
    for (place, text) in
        [("answers", told), ("metrics", metrics), ("log", log), ("traces", spans), ("ledger", ledger)]
    {
        assert!(!text.is_empty(), "{place}");
        let at = text.to_ascii_lowercase().find("canary");
        let around = at.map(|at| text.chars().skip(at.saturating_sub(200)).take(400).collect::<String>());
        assert_eq!(around, None, "in {place}");
    }
}

/// What the crates below us say of frames, heads and statements is not ours to vouch for.
#[tokio::test]
async fn other_crates_are_heard_from_info_on_only() {
    let scratch = Scratch::new();
    let gateway = Gateway::start(&scratch, &config("alias", "[log]\nlevel = \"trace\"\n")).await;
    let socket = tokio::net::TcpStream::connect(gateway.address).await.unwrap();
    let (client, connection) = h2::client::handshake(socket).await.unwrap();
    tokio::spawn(connection);
    let mut client = client.ready().await.unwrap();
    let request = http::Request::builder()
        .method("POST")
        .uri("http://localhost/v1/chat/completions")
        .header("authorization", KEY.1)
        .header("x-api-key", "canary-of-another")
        .body(())
        .unwrap();
    let (answer, mut body) = client.send_request(request, false).unwrap();
    body.send_data(chat("alias", "canary of a prompt", false).into(), true).unwrap();
    assert_eq!(answer.await.unwrap().status(), 200);
    let log = gateway.log();
    let lines: Vec<&str> = log.lines().filter(|line| line.to_ascii_lowercase().contains("canary")).collect();
    assert!(lines.is_empty(), "{lines:#?}");
    let others = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let others: Vec<_> =
        others.filter(|line| !line["target"].as_str().unwrap_or_default().starts_with("gemway")).collect();
    assert!(others.iter().all(|line| line["level"] != "TRACE" && line["level"] != "DEBUG"), "{others:?}");
    assert!(serde_json::from_str::<Value>(log.lines().last().unwrap()).is_ok());
}
