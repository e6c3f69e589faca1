//! The requests that the systems this product was conceived from send, and the answers they were promised: Google's
//! classic page of the Vertex AI API, Elastic's connector, Instill's component. Played back byte for byte by a
//! fake Google, and answered by the simulator where the model still exists.

use serde_json::Value;

use crate::fake::{Gateway, Google, KEYS, answer};

const REGION: &str = "/v1/projects/PROJECT_ID/locations/us-central1/publishers/google/models";

/// What the classic page asks, where, and what it answers: the last text or call, and the prompt's tokens.
const CLASSIC: &[(&str, &str, &str, u64)] = &[
    (
        "gemini-pro",
        include_str!("../seeds/classic-text.request.json"),
        include_str!("../seeds/classic-text.answer.json"),
        8,
    ),
    (
        "gemini-pro",
        include_str!("../seeds/classic-chat.request.json"),
        include_str!("../seeds/classic-chat.answer.json"),
        23,
    ),
    (
        "gemini-pro-vision",
        include_str!("../seeds/classic-multimodal.request.json"),
        include_str!("../seeds/classic-multimodal.answer.json"),
        262,
    ),
    (
        "gemini-pro",
        include_str!("../seeds/classic-function.request.json"),
        include_str!("../seeds/classic-function.answer.json"),
        9,
    ),
];

#[tokio::test]
async fn the_classic_page_works_as_it_is_written() {
    for (model, request, promised, prompt) in CLASSIC {
        let google = Google::start(move |_| answer(200, "application/json; charset=UTF-8", *promised)).await;
        let gateway = Gateway::vertex(&google, "native_place = \"caller\"").await;
        let path = format!("{REGION}/{model}:streamGenerateContent");
        let headers = "authorization: Bearer good\r\ncontent-type: application/json; charset=utf-8\r\n";
        let got = gateway.ask("POST", &path, headers, request).await;
        assert_eq!((got.status, got.text().as_str()), (200, *promised));
        let seen = google.last();
        assert_eq!((seen.uri.path(), &seen.body[..]), (path.as_str(), request.as_bytes()));
        assert_eq!(seen.headers["content-type"], "application/json; charset=utf-8");
        gateway
            .counted(&format!("gemway_tokens_total{{kind=\"input\",model=\"unresolved\"}} {prompt}"))
            .await;
    }
}

#[tokio::test]
async fn an_array_that_ends_in_an_error_is_passed_on_and_paid_for() {
    let (_, _, promised, _) = CLASSIC[2];
    let elements: Vec<Value> = serde_json::from_str(promised).unwrap();
    assert_eq!(elements.last().unwrap()["error"]["status"], "CANCELLED");
    let google = Google::start(move |_| answer(200, "application/json", promised)).await;
    let gateway = Gateway::gemini(&google).await;
    let got = gateway.post("/v1/models/old-flash:streamGenerateContent", "{}").await;
    assert_eq!(got.text(), promised);
}

#[tokio::test]
async fn elastics_connector_reaches_vertex_and_the_simulator() {
    let body = include_str!("../seeds/elastic.request.json").trim();
    let google = Google::start(|_| answer(200, "application/json", "{}")).await;
    let played = Gateway::vertex(&google, "").await;
    let simulated = Gateway::start(&format!("{SIMULATOR}{KEYS}")).await;
    for method in ["generateContent", "streamGenerateContent?alt=sse"] {
        let path = format!("{REGION}/gemini-2.5-pro:{method}");
        let headers = "authorization: Bearer good\r\ncontent-type: application/json\r\n";
        assert_eq!(played.ask("POST", &path, headers, body).await.status, 200);
        assert_eq!(google.last().body, body);
        let got = simulated.ask("POST", &path, headers, body).await;
        assert!(got.status == 200 && got.text().contains("world!"), "{}", got.text());
    }
}

const SIMULATOR: &str = "[[sites]]\nname = \"simulator\"\nkind = \"simulator\"\n[simulator]\ntime_to_first_token = \"0\"\ntokens_per_second = 1000000\n";

#[tokio::test]
async fn instills_component_chats_caches_and_embeds() {
    let google = Google::start(|_| answer(200, "application/json", "{}")).await;
    let played = Gateway::gemini(&google).await;
    let simulated = Gateway::start(&format!("{SIMULATOR}{KEYS}")).await;
    let chat = include_str!("../seeds/instill-chat.request.json").trim();
    let cache = include_str!("../seeds/instill-cache.request.json").trim();
    let embedding = include_str!("../seeds/instill-embedding.request.json").trim();
    for (path, body, promised) in [
        ("/v1beta/models/gemini-2.5-pro:generateContent", chat, "What is in it?"),
        ("/v1beta/models/gemini-2.5-pro:streamGenerateContent?alt=sse", chat, "usageMetadata"),
        ("/v1beta/cachedContents", cache, "\"name\":\"cachedContents/"),
        ("/v1beta/models/gemini-embedding-001:batchEmbedContents", embedding, "\"values\":["),
    ] {
        assert_eq!(played.post(path, body).await.status, 200);
        let seen = google.last();
        assert_eq!((seen.uri.to_string().as_str(), &seen.body[..]), (path, body.as_bytes()));
        let got = simulated.post(path, body).await;
        assert!(got.status == 200 && got.text().contains(promised), "{path}: {} {}", got.status, got.text());
    }
    // What a stored cache is used for: the model and the text, and nothing that the cache already holds.
    let made = simulated.post("/v1beta/cachedContents", cache).await.json();
    let ask = format!(
        r#"{{"cachedContent":{},"contents":[{{"role":"user","parts":[{{"text":"Summary?"}}]}}]}}"#,
        made["name"]
    );
    let got = simulated.post("/v1beta/models/gemini-2.5-flash:generateContent", ask).await.json();
    assert_eq!(got["usageMetadata"]["cachedContentTokenCount"], made["usageMetadata"]["totalTokenCount"]);
}

#[tokio::test]
async fn the_interactions_page_works_against_the_simulator() {
    let gateway = Gateway::start(&format!("{SIMULATOR}{KEYS}")).await;
    let simple = r#"{"model":"gemini-2.5-flash","input":"Hello, how are you?"}"#;
    let made = gateway.post("/v1beta/interactions", simple).await.json();
    assert_eq!((&made["status"], &made["object"]), (&"completed".into(), &"interaction".into()));
    let id = made["id"].as_str().unwrap();
    let turns = r#"{"model":"gemini-2.5-flash","input":[{"role":"user","content":"Hello!"},{"role":"model","content":"Hi there! How can I help you today?"},{"role":"user","content":"What is the capital of France?"}]}"#;
    assert_eq!(gateway.post("/v1beta/interactions", turns).await.json()["status"], "completed");
    let function = r#"{"model":"gemini-2.5-flash","tools":[{"type":"function","name":"get_weather","description":"Get the current weather in a given location","parameters":{"type":"object","properties":{"location":{"type":"string"}},"required":["location"]}}],"input":"What is the weather like in Boston, MA?"}"#;
    assert_eq!(gateway.post("/v1beta/interactions", function).await.json()["status"], "requires_action");
    let agent =
        r#"{"agent":"deep-research-pro-preview-12-2025","input":"find a cure to cancer","background":true}"#;
    let research = gateway.post("/v1beta/interactions", agent).await.json();
    assert_eq!(research["status"], "in_progress");
    let cancel = format!("/v1beta/interactions/{}/cancel", research["id"].as_str().unwrap());
    assert_eq!(gateway.post(&cancel, "").await.json()["status"], "cancelled");
    // A stream that broke off goes on behind the last event that was seen.
    let whole = gateway.get(&format!("/v1beta/interactions/{id}?stream=true")).await.text();
    let rest = gateway.get(&format!("/v1beta/interactions/{id}?stream=true&last_event_id=e2")).await.text();
    assert!(whole.ends_with(&rest) && rest.len() < whole.len(), "{rest}");
    let got =
        gateway.ask("DELETE", &format!("/v1beta/interactions/{id}"), "x-goog-api-key: good\r\n", "").await;
    assert_eq!(got.status, 200);
    let lost = gateway.get(&format!("/v1beta/interactions/{id}")).await;
    assert_eq!((lost.status, &lost.json()["error"]["code"]), (404, &"not_found".into()));
}

#[tokio::test]
async fn webhooks_are_made_changed_and_removed() {
    let gateway = Gateway::start(&format!("{SIMULATOR}{KEYS}")).await;
    let new =
        r#"{"name":"mine","uri":"https://example.com/hook","subscribed_events":["interaction.completed"]}"#;
    let made = gateway.post("/v1beta/webhooks", new).await.json();
    let first = made["new_signing_secret"].as_str().unwrap();
    assert!(first.starts_with("whsec_") && made["name"] == "mine" && made["state"] == "enabled");
    assert!(
        first.starts_with(
            made["signing_secrets"][0]["truncated_secret"].as_str().unwrap().trim_end_matches('.')
        )
    );
    let path = format!("/v1beta/webhooks/{}", made["id"].as_str().unwrap());
    assert!(gateway.get(&path).await.json().get("new_signing_secret").is_none());
    assert_eq!(
        gateway.get("/v1beta/webhooks?page_size=5").await.json()["webhooks"].as_array().unwrap().len(),
        1
    );
    let change = r#"{"subscribed_events":["batch.failed"],"state":"disabled"}"#;
    let got = gateway
        .ask("PATCH", &format!("{path}?update_mask=subscribed_events"), "x-goog-api-key: good\r\n", change)
        .await;
    assert_eq!(
        (&got.json()["subscribed_events"][0], &got.json()["state"]),
        (&"batch.failed".into(), &"enabled".into())
    );
    assert_eq!(gateway.post(&format!("{path}:ping"), "{}").await.status, 200);
    let rotated = gateway.post(&format!("{path}:rotateSigningSecret"), "{}").await.json();
    assert!(rotated["secret"].as_str().unwrap().starts_with("whsec_"));
    let secrets = gateway.get(&path).await.json()["signing_secrets"].clone();
    assert!(secrets[0]["expire_time"].is_string() && secrets[1].get("expire_time").is_none(), "{secrets}");
    let now = r#"{"revocation_behavior":"revoke_previous_secrets_immediately"}"#;
    assert_eq!(gateway.post(&format!("{path}:rotateSigningSecret"), now).await.status, 200);
    assert_eq!(gateway.get(&path).await.json()["signing_secrets"].as_array().unwrap().len(), 1);
    let wrong =
        gateway.post("/v1beta/webhooks", r#"{"uri":"http://example.com","subscribed_events":["x"]}"#).await;
    assert_eq!((wrong.status, &wrong.json()["error"]["code"]), (400, &"invalid_request".into()));
    assert_eq!(gateway.ask("DELETE", &path, "x-goog-api-key: good\r\n", "").await.status, 200);
    assert_eq!(gateway.get(&path).await.status, 404);
}
