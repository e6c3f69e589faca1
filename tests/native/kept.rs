//! What Google keeps: caches, files, uploads, models.

use crate::fake::{Gateway, Google, answer};

#[tokio::test]
async fn a_cache_is_made_for_an_allowed_model_only() {
    let google = Google::start(|_| answer(200, "application/json", "{}")).await;
    let gateway = Gateway::gemini(&google).await;
    let body = "{\"contents\": [], \"model\" : \"models/old-flash\", \"ttl\": \"60s\"}";
    assert_eq!(gateway.post("/v1beta/cachedContents", body).await.status, 200);
    assert_eq!(google.last().body, body.replace("old-flash", "gemini-3.8-flash"));
    let calls = google.calls();
    let body = r#"{"model":"models/gemini-4-argon"}"#;
    let got = gateway.ask("POST", "/v1beta/cachedContents", "x-goog-api-key: flash\r\n", body).await;
    assert_eq!((got.status, google.calls()), (403, calls));
    // Nor is a batch for one that it may not ask.
    let vertex = Gateway::vertex(&google, "").await;
    let jobs = "/v1/projects/p/locations/us-central1/batchPredictionJobs";
    let body = r#"{"displayName":"j","model":"publishers/google/models/gemini-4-argon"}"#;
    let got = vertex.ask("POST", jobs, "x-goog-api-key: flash\r\n", body).await;
    assert_eq!((got.status, google.calls()), (403, calls));
    assert_eq!(vertex.post(jobs, body).await.status, 200);
    assert_eq!(google.last().body, body);
    let got = gateway
        .ask(
            "PATCH",
            "/v1beta/cachedContents/c1?updateMask=ttl",
            "x-goog-api-key: good\r\n",
            "{\"ttl\":\"9s\"}",
        )
        .await;
    assert_eq!(got.status, 200);
    let seen = google.last();
    assert_eq!(
        (seen.method.as_str(), seen.uri.to_string().as_str(), &seen.body[..]),
        ("PATCH", "/v1beta/cachedContents/c1?updateMask=ttl", &b"{\"ttl\":\"9s\"}"[..])
    );
    assert_eq!(gateway.ask("DELETE", "/v1/files/f1", "x-goog-api-key: good\r\n", "").await.status, 200);
    assert_eq!(google.last().method, "DELETE");
}

#[tokio::test]
async fn an_upload_goes_on_through_us_without_a_key() {
    let google = Google::start(|seen| {
        let mut response = answer(200, "application/json", "{}");
        let headers = response.headers_mut();
        if seen.uri.path() == "/upload/v1beta/files" {
            let address = format!(
                "http://{}/upload/v1beta/files?upload_id=u%2B1&upload_protocol=resumable&key=OUR-KEY",
                seen.headers["host"].to_str().unwrap()
            );
            headers.insert("x-goog-upload-url", address.parse().unwrap());
            headers.insert("x-goog-upload-status", "active".parse().unwrap());
        } else {
            headers.insert("x-goog-upload-status", "final".parse().unwrap());
        }
        response
    })
    .await;
    let gateway = Gateway::gemini(&google).await;
    let headers =
        "x-goog-api-key: good\r\nx-goog-upload-protocol: resumable\r\nx-goog-upload-command: start\r\n";
    let begun = gateway.ask("POST", "/upload/v1beta/files", headers, "{}").await;
    assert_eq!(google.last().headers["x-goog-upload-command"], "start");
    let address = begun.header("x-goog-upload-url").unwrap().to_owned();
    let path = address.strip_prefix("http://gateway.test").unwrap();
    assert!(path.starts_with("/upload/session/") && !path.contains("OUR-KEY"), "{path}");
    // The script answers the second call at the same address; what counts is what it was sent.
    let piece = vec![7_u8; 300_000];
    let put = gateway
        .ask("POST", path, "x-goog-upload-command: upload, finalize\r\nx-goog-upload-offset: 0\r\n", &piece)
        .await;
    assert_eq!(put.status, 200);
    let seen = google.last();
    assert_eq!(seen.uri, "/upload/v1beta/files?upload_id=u%2B1&upload_protocol=resumable");
    assert_eq!(
        (seen.body.len(), &seen.headers["x-goog-upload-command"]),
        (300_000, &"upload, finalize".parse().unwrap())
    );
    let (head, tail) = path.split_at(path.len() - 3);
    let forged = format!("{head}{}", tail.chars().rev().collect::<String>());
    let calls = google.calls();
    assert_eq!(gateway.ask("POST", &forged, "", "x").await.status, 404);
    assert_eq!(google.calls(), calls);
}

#[tokio::test]
async fn a_fenced_key_sees_its_own_models() {
    let page = r#"{"models":[{"name":"models/gemini-3.8-flash","n":1},{"name":"models/gemini-4-argon"}]}"#;
    let google = Google::start(move |_| answer(200, "application/json", page)).await;
    let gateway = Gateway::gemini(&google).await;
    assert_eq!(gateway.get("/v1beta/models?pageSize=5").await.text(), page);
    assert_eq!(google.last().uri, "/v1beta/models?pageSize=5");
    assert_eq!(gateway.get("/v1/models").await.text(), page);
    let got = gateway.ask("GET", "/v1beta/models", "x-goog-api-key: flash\r\n", "").await;
    assert_eq!(got.text(), r#"{"models":[{"name":"models/gemini-3.8-flash","n":1}]}"#);
}

#[tokio::test]
async fn interactions_are_counted_and_fenced() {
    let said = r#"{"id":"v1_x","status":"completed","usage":{"total_input_tokens":7,"total_output_tokens":20,"total_thought_tokens":22,"total_tokens":49}}"#;
    let google = Google::start(move |_| answer(200, "application/json", said)).await;
    let gateway = Gateway::gemini(&google).await;
    let ask = r#"{"model":"old-flash","input":"hi"}"#;
    let got = gateway
        .ask("POST", "/v1beta/interactions", "x-goog-api-key: good\r\napi-revision: 2026-05-20\r\n", ask)
        .await;
    assert_eq!((got.status, got.text().as_str()), (200, said));
    assert_eq!(google.last().body, ask.replace("old-flash", "gemini-3.8-flash"));
    assert_eq!(google.last().headers["api-revision"], "2026-05-20");
    let ask = r#"{"agent":"deep-research-preview-04-2026","input":"hi"}"#;
    let got = gateway.ask("POST", "/v1beta/interactions", "x-goog-api-key: flash\r\n", ask).await;
    assert_eq!((got.status, &got.json()["error"]["code"]), (403, &"permission_denied".into()));
    let got = gateway.get("/v1beta/interactions/v1_x?stream=true&last_event_id=e3").await;
    assert_eq!(
        (got.status, google.last().uri.to_string().as_str()),
        (200, "/v1beta/interactions/v1_x?stream=true&last_event_id=e3")
    );
}

#[tokio::test]
async fn an_interaction_in_the_background_is_paid_for_once_when_it_has_told_its_cost() {
    let google = Google::start(|seen| {
        let said = match (seen.method.as_str(), seen.uri.query()) {
            ("POST", _) | ("GET", Some("turn=1")) => r#"{"id":"v1_slow","status":"in_progress"}"#,
            ("GET", _) => {
                r#"{"id":"v1_slow","status":"completed","usage":{"total_input_tokens":7,"total_output_tokens":20,"total_thought_tokens":22,"total_tokens":49}}"#
            }
            _ => "{}",
        };
        answer(200, "application/json", said)
    })
    .await;
    let gateway = Gateway::gemini(&google).await;
    let tokens = |kind: &str| {
        let text = String::from_utf8(gateway.metrics.render()).unwrap();
        let line = text
            .lines()
            .find(|line| line.starts_with(&format!("gemway_tokens_total{{kind=\"{kind}\"")))
            .map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap());
        line.unwrap_or(0)
    };
    let ask = r#"{"model":"gemini-3.8-flash","input":"think long","background":true}"#;
    assert_eq!(gateway.post("/v1beta/interactions", ask).await.json()["status"], "in_progress");
    // Neither its beginning nor a look at it while it runs costs anything.
    assert_eq!(gateway.get("/v1beta/interactions/v1_slow?turn=1").await.json()["status"], "in_progress");
    assert_eq!(tokens("input"), 0);
    assert_eq!(gateway.get("/v1beta/interactions/v1_slow").await.json()["status"], "completed");
    gateway.counted("gemway_tokens_total{kind=\"input\"").await;
    assert_eq!(tokens("input"), 7);
    let output = tokens("output");
    assert!(output >= 20, "{output}");
    // Whoever looks again pays nothing; nor does one that this gateway did not begin.
    assert_eq!(gateway.get("/v1beta/interactions/v1_slow").await.status, 200);
    assert_eq!(gateway.get("/v1beta/interactions/v1_other").await.status, 200);
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    assert_eq!((tokens("input"), tokens("output")), (7, output));
}
