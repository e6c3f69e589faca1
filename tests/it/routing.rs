use super::double::{call, get, raw, request, start};

fn body(answer: &str) -> serde_json::Value {
    serde_json::from_str(answer.split_once("\r\n\r\n").expect("a head").1).expect("JSON")
}

#[tokio::test]
async fn every_alias_answers() {
    let server = start().await;
    for path in [
        "/v1/chat/completions",
        "/chat/completions",
        "/v1/chat/completions/",
        "/v1beta/openai/chat/completions",
        "/openai/deployments/dep%2Fa/chat/completions?api-version=1",
    ] {
        let answer = call(server.address, "POST", path, "{}").await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{path}: {answer}");
        assert!(answer.contains("x-request-id: req_"), "{answer}");
        assert!(answer.contains("openai-processing-ms: "), "{answer}");
        assert_eq!(body(&answer)["key"], "team-a");
    }
    let answer = get(server.address, "/v1/models").await;
    assert_eq!(body(&answer)["data"][0]["id"], "gemini-x");
    assert_eq!(body(&answer)["object"], "list");
    let answer = get(server.address, "/v1/models/models%2Fgemini-x").await;
    assert_eq!(body(&answer)["id"], "models/gemini-x");
    let answer = get(server.address, "/").await;
    assert_eq!(body(&answer)["name"], "gemway");
}

#[tokio::test]
async fn wrong_ways_look_like_openais() {
    let server = start().await;
    let answer = get(server.address, "/v1/chat/completions").await;
    assert!(answer.starts_with("HTTP/1.1 405"), "{answer}");
    assert!(answer.contains("allow: POST\r\n"), "{answer}");
    assert_eq!(body(&answer)["error"]["code"], "method_not_supported");
    let answer = call(server.address, "POST", "/v1/nope", "{}").await;
    assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
    let error = &body(&answer)["error"];
    assert!(error["message"].as_str().unwrap().starts_with("Invalid URL (POST /v1/nope)"), "{error}");
    assert_eq!(error["type"], "invalid_request_error");
    let answer = call(server.address, "POST", "/v1/embeddings", "{}").await;
    assert!(body(&answer)["error"]["message"].as_str().unwrap().contains("Embeddings"));
    let answer = get(server.address, "/v1/chat/completions/abc").await;
    assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
    // What belongs to the operator is not to be had here.
    assert!(get(server.address, "/metrics").await.starts_with("HTTP/1.1 404"));
}

#[tokio::test]
async fn a_stranger_is_a_401() {
    let server = start().await;
    let answer = raw(
        server.address,
        "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}",
    )
    .await;
    assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
    assert!(answer.contains("www-authenticate: Bearer\r\n"), "{answer}");
    assert_eq!(body(&answer)["error"]["code"], "invalid_api_key");
}

#[tokio::test]
async fn errors_carry_their_wait_and_their_id() {
    let server = start().await;
    let extra = "connection: close\r\nx-request-id: my-id.1\r\n";
    let answer = raw(server.address, request("POST", "/v1/chat/completions", "busy", extra)).await;
    assert!(answer.starts_with("HTTP/1.1 429"), "{answer}");
    assert!(answer.contains("retry-after: 3\r\n"), "{answer}");
    assert!(answer.contains("retry-after-ms: 2500\r\n"), "{answer}");
    assert!(answer.contains("x-request-id: my-id.1\r\n"), "{answer}");
    let extra = "connection: close\r\nx-request-id: no good\r\n";
    let answer = raw(server.address, request("POST", "/v1/chat/completions", "{}", extra)).await;
    assert!(answer.contains("x-request-id: req_"), "{answer}");
}

#[tokio::test]
async fn a_panic_is_a_500_and_the_next_request_is_fine() {
    let server = start().await;
    let answer = call(server.address, "POST", "/v1/chat/completions", "panic").await;
    assert!(answer.starts_with("HTTP/1.1 500"), "{answer}");
    assert_eq!(body(&answer)["error"]["type"], "server_error");
    assert!(answer.contains("x-request-id: req_"), "{answer}");
    assert!(call(server.address, "POST", "/v1/chat/completions", "{}").await.starts_with("HTTP/1.1 200"));
    let metrics = get(server.admin, "/metrics").await;
    assert!(metrics.contains(r#"code="500",method="POST",outcome="failed",route="chat"} 1"#), "{metrics}");
}

#[tokio::test]
async fn the_operators_side_answers() {
    let server = start().await;
    let closing = |path: &str| format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    assert!(raw(server.admin, closing("/livez")).await.starts_with("HTTP/1.1 200"));
    let ready = raw(server.admin, closing("/readyz")).await;
    assert!(ready.starts_with("HTTP/1.1 200"), "{ready}");
    assert_eq!(body(&ready)["simulator"], true);
    assert!(raw(server.admin, closing("/metrics")).await.contains("gemway_build_info"));
}
