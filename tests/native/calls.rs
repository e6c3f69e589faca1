//! Calls of a model: bytes, addresses, credentials, streams.

use std::time::Duration;

use bytes::Bytes;
use gemway::body::BoxError;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};

use crate::fake::{Gateway, Google, answer};

const SAID: &str = "{\n  \"candidates\": [{\"content\": {\"parts\": [{\"text\": \"hi\"}], \"role\": \"model\"}}],\n  \
                    \"usageMetadata\": {\"promptTokenCount\": 4, \"candidatesTokenCount\": 2, \"totalTokenCount\": 6}\n}\n";
const MODEL: &str = "/v1beta/models/gemini-3.8-flash";

async fn saying() -> Google {
    Google::start(|_| answer(200, "application/json; charset=UTF-8", SAID)).await
}

#[tokio::test]
async fn bytes_pass_unchanged_and_our_key_takes_the_place_of_theirs() {
    let google = saying().await;
    let gateway = Gateway::gemini(&google).await;
    let odd = "{ \"contents\" :[{\"parts\":{\"text\":\"\\u00e9 \u{2028}\"}}],\n\n\"weird\": 1e2 , }";
    let path = format!("{MODEL}:generateContent?key=theirs&%24alt=json&prettyPrint=false");
    let headers = "authorization: Bearer good\r\ncookie: a=b\r\nx-goog-api-client: sdk/1\r\nx-goog-user-project: \
                   somebody\r\nx-forwarded-for: 10.0.0.1\r\naccept-encoding: gzip\r\ncontent-type: application/json\r\n";
    let got = gateway.ask("POST", &path, headers, odd).await;
    assert_eq!((got.status, got.text().as_str()), (200, SAID));
    assert_eq!(got.header("content-type"), Some("application/json; charset=UTF-8"));
    assert_eq!(got.header("x-gemway-served-by"), Some("studio"));
    let seen = google.last();
    assert_eq!(seen.body, odd);
    assert_eq!(seen.uri, format!("{MODEL}:generateContent?%24alt=json&prettyPrint=false").as_str());
    assert_eq!(seen.headers["x-goog-api-key"], "OUR-KEY");
    assert_eq!(seen.headers["x-goog-api-client"], "sdk/1");
    assert_eq!(seen.headers["accept-encoding"], "identity");
    for absent in ["authorization", "cookie", "x-goog-user-project", "x-forwarded-for"] {
        assert!(!seen.headers.contains_key(absent), "{absent}");
    }
    gateway.counted("gemway_tokens_total").await;
}

#[tokio::test]
async fn every_way_to_bring_a_key_works_and_no_key_does_not() {
    let google = saying().await;
    let gateway = Gateway::gemini(&google).await;
    let path = format!("{MODEL}:generateContent");
    for (headers, query) in
        [("x-goog-api-key: good\r\n", ""), ("authorization: Bearer good\r\n", ""), ("", "?key=good")]
    {
        let got = gateway.ask("POST", &format!("{path}{query}"), headers, "{}").await;
        assert_eq!(got.status, 200, "{headers}{query}");
        assert_eq!(google.last().uri.query(), None);
    }
    let calls = google.calls();
    let got = gateway.ask("POST", &path, "x-goog-api-key: wrong\r\n", "{}").await;
    assert_eq!((got.status, &got.json()["error"]["status"]), (401, &"UNAUTHENTICATED".into()));
    assert_eq!(got.json()["error"]["code"], 401);
    assert_eq!(google.calls(), calls);
}

#[tokio::test]
async fn addresses_of_one_surface_work_at_the_other() {
    let google = saying().await;
    let studio = Gateway::gemini(&google).await;
    let placed = "/v1/projects/p/locations/us-central1/publishers/google/models/gemini-pro:generateContent";
    assert_eq!(studio.post(placed, "{}").await.status, 200);
    assert_eq!(google.last().uri.path(), "/v1beta/models/gemini-pro:generateContent");
    let refused = studio.get("/v1/projects/p/locations/l/cachedContents").await;
    assert_eq!((refused.status, &refused.json()["error"]["status"]), (404, &"NOT_FOUND".into()));

    let vertex = Gateway::vertex(&google, "").await;
    assert_eq!(vertex.post(placed, "{}").await.status, 200);
    let ours = "/v1/projects/ours/locations/us-central1/publishers/google/models/gemini-pro:generateContent";
    assert_eq!(google.last().uri.path(), ours);
    assert_eq!(vertex.post("/v1beta/models/gemini-pro:generateContent", "{}").await.status, 200);
    let ours = ours.replace("/v1/", "/v1beta1/");
    assert_eq!(google.last().uri.path(), ours);
    let express = "/v1/publishers/google/models/gemini-pro:generateContent";
    assert_eq!(vertex.post(express, "{}").await.status, 200);
    assert_eq!(google.last().uri.path(), ours.replace("/v1beta1/", "/v1/"));

    let open = Gateway::vertex(&google, "native_place = \"caller\"").await;
    assert_eq!(open.post(placed, "{}").await.status, 200);
    assert_eq!(google.last().uri.path(), placed);
}

#[tokio::test]
async fn an_alias_changes_the_path_and_a_fence_is_kept() {
    let google = saying().await;
    let gateway = Gateway::gemini(&google).await;
    // The body names the model as well, and what the text says of it is text.
    let body = r#"{"requests":[{"model" : "models/old-flash","content":{"parts":[{"text":"\"model\": \"models/old-flash\""}]}},{"model":"old-flash"}]}"#;
    assert_eq!(gateway.post("/v1beta/models/old-flash:batchEmbedContents", body).await.status, 200);
    let new = "models/gemini-3.8-flash";
    assert_eq!(
        google.last().body,
        body.replacen("models/old-flash", new, 1).replace(r#""old-flash""#, &format!("\"{new}\""))
    );
    assert_eq!(gateway.post("/v1beta/models/old-flash:countTokens", "{}").await.status, 200);
    assert_eq!(google.last().uri.path(), format!("{MODEL}:countTokens"));
    let calls = google.calls();
    let got = gateway
        .ask("POST", "/v1/models/gemini-4-argon:generateContent", "x-goog-api-key: flash\r\n", "{}")
        .await;
    assert_eq!((got.status, &got.json()["error"]["status"]), (403, &"PERMISSION_DENIED".into()));
    assert_eq!(google.calls(), calls);
}

#[tokio::test]
async fn a_stream_comes_piece_by_piece_and_is_counted() {
    let google = Google::start(|seen| {
        assert_eq!(seen.uri.query(), Some("alt=sse"));
        let (sender, receiver) = tokio::sync::mpsc::channel::<Result<Bytes, BoxError>>(4);
        tokio::spawn(async move {
            for piece in [
                "data: {\"a\":1}\r\n\r\n",
                "data: {\"usageMetadata\":{\"promptTokenCount\":3,",
                "\"totalTokenCount\":3}}\r\n\r\n",
            ] {
                sender.send(Ok(Bytes::from_static(piece.as_bytes()))).await.unwrap();
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        let stream = futures_util::stream::unfold(receiver, |mut receiver| async move {
            let piece = receiver.recv().await?;
            Some((piece.map(Frame::data), receiver))
        });
        let mut response = http::Response::new(StreamBody::new(stream).boxed_unsync());
        response.headers_mut().insert("content-type", "text/event-stream".parse().unwrap());
        response
    })
    .await;
    let gateway = Gateway::gemini(&google).await;
    let got = gateway.post(&format!("{MODEL}:streamGenerateContent?alt=sse"), "{}").await;
    assert_eq!(got.header("content-type"), Some("text/event-stream"));
    let whole = "data: {\"a\":1}\r\n\r\ndata: {\"usageMetadata\":{\"promptTokenCount\":3,\"totalTokenCount\":3}}\r\n\r\n";
    assert_eq!(got.text(), whole);
}

/// An answer that breaks off after these pieces.
fn broken(media: &str, pieces: &'static [&'static str]) -> http::Response<gemway::body::Body> {
    let (sender, receiver) = tokio::sync::mpsc::channel::<Result<Bytes, BoxError>>(4);
    tokio::spawn(async move {
        for piece in pieces {
            sender.send(Ok(Bytes::from_static(piece.as_bytes()))).await.unwrap();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        sender.send(Err("cut".into())).await.unwrap();
    });
    let stream = futures_util::stream::unfold(receiver, |mut receiver| async move {
        let piece = receiver.recv().await?;
        Some((piece.map(Frame::data), receiver))
    });
    let mut response = http::Response::new(StreamBody::new(stream).boxed_unsync());
    response.headers_mut().insert("content-type", media.parse().unwrap());
    response
}

#[tokio::test]
async fn a_broken_stream_ends_with_an_error_in_its_own_framing() {
    let google = Google::start(|seen| {
        if seen.uri.query() == Some("alt=sse") {
            broken("text/event-stream", &["data: {\"a\":1}\r\n\r\n"])
        } else {
            broken("application/json; charset=UTF-8", &["[{\"a\":1}\n"])
        }
    })
    .await;
    let gateway = Gateway::gemini(&google).await;
    let got = gateway.post(&format!("{MODEL}:streamGenerateContent?alt=sse"), "{}").await;
    let last = got.text().trim().rsplit("data: ").next().unwrap().to_owned();
    let error: serde_json::Value = serde_json::from_str(&last).unwrap();
    assert_eq!((&error["error"]["code"], &error["error"]["status"]), (&502.into(), &"UNAVAILABLE".into()));
    let got = gateway.post(&format!("{MODEL}:streamGenerateContent"), "{}").await.json();
    assert_eq!((&got[0]["a"], &got[1]["error"]["code"]), (&1.into(), &502.into()));
}

#[tokio::test]
async fn googles_own_errors_pass_but_no_secret_in_them() {
    let said =
        r#"[{"error": {"code": 429, "message": "key OUR-KEY is spent", "status": "RESOURCE_EXHAUSTED"}}]"#;
    let google = Google::start(move |_| answer(429, "application/json", said)).await;
    let gateway = Gateway::gemini(&google).await;
    let got = gateway.post(&format!("{MODEL}:streamGenerateContent"), "{}").await;
    assert_eq!((got.status, got.text()), (429, said.replace("OUR-KEY", "***")));
    // It was asked again, for the next moment may be a better one.
    assert_eq!(google.calls(), 3);
}

#[tokio::test]
async fn a_caller_with_a_credential_of_their_own_sends_that() {
    let google = saying().await;
    let gateway = Gateway::gemini(&google).await;
    let path = format!("{MODEL}:generateContent");
    let both = "x-gemway-key: own\r\nx-goog-api-key: THEIRS\r\n";
    assert_eq!(gateway.ask("POST", &path, both, "{}").await.status, 200);
    assert_eq!(google.last().headers["x-goog-api-key"], "THEIRS");
    assert!(!google.last().headers.contains_key("x-gemway-key"));
    let both = "authorization: Bearer ya29.t\r\nx-goog-api-key: own\r\nx-goog-user-project: mine\r\n";
    assert_eq!(gateway.ask("POST", &path, both, "{}").await.status, 200);
    let seen = google.last().headers;
    assert_eq!(
        (&seen["authorization"], &seen["x-goog-user-project"]),
        (&"Bearer ya29.t".parse().unwrap(), &"mine".parse().unwrap())
    );
    assert!(!seen.contains_key("x-goog-api-key"));
    let calls = google.calls();
    assert_eq!(gateway.ask("POST", &path, "x-goog-api-key: own\r\n", "{}").await.status, 401);
    let chat = r#"{"model":"gemini-3.8-flash","messages":[{"role":"user","content":"hi"}]}"#;
    assert_eq!(
        gateway.ask("POST", "/v1/chat/completions", "authorization: Bearer own\r\n", chat).await.status,
        403
    );
    assert_eq!(google.calls(), calls);
}

#[tokio::test]
async fn a_listener_can_pass_everybodys_credential_on() {
    let google = saying().await;
    let gateway =
        Gateway::start(&format!("credentials = \"caller\"\n{}", crate::fake::studio(&google))).await;
    let got = gateway.ask("POST", &format!("{MODEL}:generateContent?key=THEIRS"), "", "{}").await;
    assert_eq!(got.status, 200);
    let seen = google.last();
    assert_eq!((seen.uri.query(), &seen.headers["x-goog-api-key"]), (None, &"THEIRS".parse().unwrap()));
    assert_eq!(gateway.ask("POST", &format!("{MODEL}:generateContent"), "", "{}").await.status, 401);
}

#[tokio::test]
async fn what_is_not_googles_stays_openais() {
    let google = saying().await;
    let gateway = Gateway::gemini(&google).await;
    let lost = gateway.ask("GET", "/v1/nothing", "x-goog-api-key: good\r\n", "").await.json();
    assert_eq!(lost["error"]["type"], "invalid_request_error");
    let lost = gateway.get("/v1beta/nothing").await;
    assert_eq!((lost.status, &lost.json()["error"]["status"]), (404, &"NOT_FOUND".into()));
}
