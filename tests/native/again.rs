//! What is repeated, where, and what never is.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use crate::fake::{Gateway, Google, KEYS, answer};

const GENERATE: &str = "/v1beta/models/gemini-3.8-flash:generateContent";
const BUSY: &str =
    r#"{"error": {"code": 503, "message": "The model is overloaded.", "status": "UNAVAILABLE"}}"#;
const JSON: &str = "application/json";

/// Answers the first `failing` calls with an error, the rest with `{}`.
async fn failing(failing: usize, status: u16) -> Google {
    let calls = AtomicUsize::new(0);
    Google::start(move |_| match calls.fetch_add(1, SeqCst) {
        n if n < failing => answer(status, JSON, BUSY),
        _ => answer(200, JSON, "{}"),
    })
    .await
}

/// A place where nobody listens.
async fn nobody() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap().to_string()
}

fn site(name: &str, address: &str, key: &str) -> String {
    format!(
        "[[sites]]\nname = \"{name}\"\nkind = \"gemini_api\"\nbase_url = \"http://{address}\"\napi_key = \"{key}\"\n"
    )
}

const ROUTE: &str = "[[routes]]\nmodels = [\"gemini-*\"]\nsites = [\"one\", \"two\"]\n";

/// Two sites of different projects, in this order.
async fn both(one: &str, two: &Google) -> Gateway {
    let (one, two) = (site("one", one, "KEY-ONE"), site("two", &two.address.to_string(), "KEY-TWO"));
    Gateway::start(&format!("{one}{two}{ROUTE}{KEYS}")).await
}

#[tokio::test]
async fn a_call_of_a_model_is_repeated_before_its_first_byte() {
    for method in ["generateContent", "streamGenerateContent?alt=sse", "countTokens", "embedContent"] {
        let google = failing(1, 503).await;
        let gateway = Gateway::gemini(&google).await;
        let path = format!("/v1beta/models/gemini-3.8-flash:{method}");
        let got = gateway.post(&path, "{\"contents\":[]}").await;
        assert_eq!((got.status, got.text().as_str(), google.calls()), (200, "{}", 2), "{method}");
        assert_eq!(got.header("x-gemway-attempts"), Some("2"));
        let seen = google.seen.lock();
        assert!(
            seen.iter()
                .all(|seen| seen.body == "{\"contents\":[]}" && seen.headers["content-length"] == "15")
        );
    }
}

#[tokio::test]
async fn a_client_that_repeats_by_itself_says_so() {
    let google = failing(9, 503).await;
    let gateway = Gateway::gemini(&google).await;
    let headers = "x-goog-api-key: good\r\nx-gemway-no-retry: 1\r\n";
    for (method, path) in
        [("POST", GENERATE), ("GET", "/v1beta/files/f1"), ("GET", "/v1beta/models/gemini-x")]
    {
        let calls = google.calls();
        let got = gateway.ask(method, path, headers, "{}").await;
        assert_eq!((got.status, got.text().as_str(), google.calls() - calls), (503, BUSY, 1), "{path}");
        assert_eq!(got.header("x-gemway-attempts"), Some("1"));
    }
}

#[tokio::test]
async fn what_google_says_in_the_end_is_the_answer() {
    let google = failing(99, 503).await;
    let gateway = Gateway::gemini(&google).await;
    let got = gateway.post(GENERATE, "{}").await;
    assert_eq!((got.status, got.text().as_str(), google.calls()), (503, BUSY, 3));
    assert_eq!(
        (got.header("x-gemway-attempts"), got.header("x-gemway-served-by")),
        (Some("3"), Some("studio"))
    );
    // Nothing helps against a request that is wrong.
    let google = failing(9, 400).await;
    let gateway = Gateway::gemini(&google).await;
    assert_eq!((gateway.post(GENERATE, "{}").await.status, google.calls()), (400, 1));
}

#[tokio::test]
async fn another_site_serves_what_one_does_not() {
    let (busy, well) = (failing(99, 503).await, failing(0, 0).await);
    let gateway = both(&busy.address.to_string(), &well).await;
    let got = gateway.post(GENERATE, "{}").await;
    assert_eq!((got.status, got.header("x-gemway-served-by"), busy.calls()), (200, Some("two"), 1));
    assert_eq!(well.last().headers["x-goog-api-key"], "KEY-TWO");
    // A body too large to be held goes on as long as nobody has read of it.
    let gateway = both(&nobody().await, &well).await;
    let large = vec![b'x'; 3 << 20];
    let got = gateway.post(GENERATE, &large).await;
    assert_eq!((got.status, well.last().body.len()), (200, large.len()));
    // With "no retry" one call is one call.
    let headers = "x-goog-api-key: good\r\nx-gemway-no-retry: true\r\n";
    let calls = well.calls();
    let got = gateway.ask("POST", GENERATE, headers, "{}").await;
    assert_eq!(
        (got.status, &got.json()["error"]["status"], well.calls()),
        (502, &"UNAVAILABLE".into(), calls)
    );
    assert_eq!(got.header("x-gemway-attempts"), Some("1"));
}

#[tokio::test]
async fn what_was_read_once_cannot_be_sent_again() {
    let (busy, well) = (failing(99, 503).await, failing(0, 0).await);
    let gateway = both(&busy.address.to_string(), &well).await;
    let got = gateway.post(GENERATE, vec![b'x'; 3 << 20]).await;
    assert_eq!((got.status, got.text().as_str(), busy.calls(), well.calls()), (503, BUSY, 1, 0));
}

#[tokio::test]
async fn what_belongs_to_a_project_stays_there() {
    let (busy, well) = (failing(99, 503).await, failing(0, 0).await);
    let gateway = both(&busy.address.to_string(), &well).await;
    for body in [
        r#"{"cachedContent":"cachedContents/c1","contents":[]}"#,
        r#"{"contents":[{"parts":[{"fileData":{"fileUri":"https://generativelanguage.googleapis.com/v1beta/files/f"}}]}]}"#,
    ] {
        assert_eq!((gateway.post(GENERATE, body).await.status, well.calls()), (503, 0), "{body}");
    }
    assert_eq!(
        (gateway.post("/v1beta/tunedModels/mine:generateContent", "{}").await.status, well.calls()),
        (503, 0)
    );
}

#[tokio::test]
async fn a_location_in_the_path_is_kept() {
    let (busy, well) = (failing(99, 503).await, failing(0, 0).await);
    let vertex = |name: &str, location: &str, google: &Google| {
        format!(
            "[[sites]]\nname = \"{name}\"\nkind = \"vertex\"\nbase_url = \"http://{}\"\nproject = \"ours\"\nlocation = \
             \"{location}\"\ncredentials = \"api_key:K\"\n",
            google.address
        )
    };
    let sites = [vertex("one", "europe-west1", &busy), vertex("two", "us-central1", &well)].concat();
    let gateway = Gateway::start(&format!("{sites}{ROUTE}{KEYS}")).await;
    let path = |location: &str| {
        format!(
            "/v1/projects/p/locations/{location}/publishers/google/models/gemini-3.8-flash:generateContent"
        )
    };
    assert_eq!((gateway.post(&path("europe-west1"), "{}").await.status, well.calls()), (503, 0));
    assert_eq!(gateway.post(&path("us-central1"), "{}").await.status, 200);
    // Nobody serves this one, so it says nothing.
    assert_eq!(gateway.post(&path("asia-east1"), "{}").await.status, 200);
    assert!(well.last().uri.path().contains("/locations/us-central1/"));
}

#[tokio::test]
async fn reading_is_repeated_and_making_is_not() {
    for (method, path, calls) in [
        ("GET", "/v1beta/files/f1", 2),
        ("GET", "/v1beta/cachedContents?pageSize=2", 2),
        ("GET", "/v1beta/models", 2),
        ("GET", "/v1beta/interactions/v1_x", 2),
        ("POST", "/v1beta/cachedContents", 1),
        ("POST", "/v1beta/models/gemini-3.8-flash:batchGenerateContent", 1),
        ("POST", "/v1beta/interactions", 1),
        ("PATCH", "/v1beta/cachedContents/c1?updateMask=ttl", 1),
        ("DELETE", "/v1beta/files/f1", 1),
        ("POST", "/upload/v1beta/files", 1),
    ] {
        let google = failing(1, 503).await;
        let gateway = Gateway::gemini(&google).await;
        let got = gateway.ask(method, path, "x-goog-api-key: good\r\n", "{}").await;
        let wanted = if calls == 2 { 200 } else { 503 };
        assert_eq!((got.status, google.calls()), (wanted, calls), "{method} {path}");
    }
}

#[tokio::test]
async fn a_wait_that_nobody_sits_through_is_the_clients() {
    let said = r#"{"error":{"code":429,"message":"slow","status":"RESOURCE_EXHAUSTED","details":[{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"59s"}]}}"#;
    let google = Google::start(move |_| answer(429, JSON, said)).await;
    let gateway = Gateway::gemini(&google).await;
    let got = gateway.post(GENERATE, "{}").await;
    assert_eq!((got.status, got.text().as_str(), google.calls()), (429, said, 1));
    // One that it sits through is not counted as its own work.
    let brief = said.replace("59s", "1s");
    let calls = AtomicUsize::new(0);
    let google_soon = Google::start(move |_| match calls.fetch_add(1, SeqCst) {
        0 => answer(429, JSON, brief.clone()),
        _ => answer(200, JSON, "{}"),
    })
    .await;
    let got = Gateway::gemini(&google_soon).await.post(GENERATE, "{}").await;
    let ours: f64 = got.header("x-gemway-overhead-ms").unwrap().parse().unwrap();
    assert!(got.status == 200 && ours < 900.0, "{} {ours}", got.status);
    // Another project may have some left.
    let well = failing(0, 0).await;
    let gateway = both(&google.address.to_string(), &well).await;
    let got = gateway.post(GENERATE, "{}").await;
    assert_eq!((got.status, got.header("x-gemway-served-by")), (200, Some("two")));
}

#[tokio::test]
async fn a_callers_credential_says_nothing_of_ours() {
    let refused = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&refused);
    let google = Google::start(move |request| {
        if request.headers["x-goog-api-key"] == "THEIRS" {
            seen.fetch_add(1, SeqCst);
            return answer(
                403,
                JSON,
                r#"{"error":{"code":403,"message":"no","status":"PERMISSION_DENIED"}}"#,
            );
        }
        answer(200, JSON, "{}")
    })
    .await;
    let well = failing(0, 0).await;
    let gateway = both(&google.address.to_string(), &well).await;
    for _ in 0..8 {
        let both = "x-gemway-key: own\r\nx-goog-api-key: THEIRS\r\n";
        assert_eq!(gateway.ask("POST", GENERATE, both, "{}").await.status, 403);
    }
    assert_eq!((refused.load(SeqCst), well.calls()), (8, 0));
    assert_eq!(gateway.post(GENERATE, "{}").await.header("x-gemway-served-by"), Some("one"));
}
