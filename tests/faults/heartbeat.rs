//! Silence while a model thinks, with and without signs of life.

use std::time::Duration;

use super::stage::{
    Act, END, HELLO, Reply, Step, chat, event, gateway, opening, send_to, site, site_toml, status,
};

async fn ask(act: Act, stream: bool) -> Reply {
    let google = site(vec![act]).await;
    let toml = format!("[server]\nheartbeat = \"150ms\"\n{}", site_toml("g", google.address, "g"));
    let gateway = gateway(&toml).await;
    chat(gateway.address, "m", stream, "x-gemway-no-retry: 1\r\n").await
}

fn thinking() -> Step {
    Step::Wait(Duration::from_millis(500))
}

#[tokio::test]
async fn a_stream_shows_life_before_and_between_its_events() {
    let end = vec![Step::Say(event(END)), Step::Say(b"0\r\n\r\n".to_vec())];
    let late = [vec![thinking(), Step::Say(opening()), Step::Say(event(HELLO))], end.clone()].concat();
    let between = [vec![Step::Say(opening()), Step::Say(event(HELLO)), thinking()], end].concat();
    // Where the head goes out first, no site has answered yet.
    for (act, served_by) in [(late, "gateway"), (between, "g")] {
        let reply = ask(act, true).await;
        assert_eq!(reply.status, 200);
        assert_eq!(reply.header("x-gemway-served-by"), Some(served_by));
        assert!(reply.header("content-type").unwrap().starts_with("text/event-stream"));
        let signs = reply.body.matches(": keep-alive\n").count();
        assert!((2..=4).contains(&signs), "{signs}: {}", reply.body);
        assert!(reply.body.contains("Hello") && reply.body.contains("[DONE]"), "{}", reply.body);
    }
}

/// Clients that count real events hear one; not before the response has begun, for it must be the first, and not
/// while an item is open, for SDKs take the object in it for all there is.
#[tokio::test]
async fn a_response_says_that_it_is_in_progress() {
    let call = r#"{"candidates":[{"content":{"role":"model","parts":[{"functionCall":{"id":"c","name":"f","args":{}}}]},"index":0}]}"#;
    let act = vec![
        thinking(),
        Step::Say(opening()),
        Step::Say(event(call)),
        thinking(),
        Step::Say(event(HELLO)),
        thinking(),
        Step::Say(event(END)),
        Step::Say(b"0\r\n\r\n".to_vec()),
    ];
    let google = site(vec![act]).await;
    let toml = format!("[server]\nheartbeat = \"150ms\"\n{}", site_toml("g", google.address, "g"));
    let gateway = gateway(&toml).await;
    let body = r#"{"model":"m","input":"hi","stream":true,"tools":[{"type":"function","name":"f","parameters":{"type":"object"}}]}"#;
    let reply = send_to(gateway.address, "/v1/responses", body).await;
    let (before, after) = reply.body.split_once("event: response.created").unwrap();
    assert!((2..=4).contains(&before.matches(": keep-alive\n").count()), "{before}");
    assert!(!before.contains("event:"), "{before}");
    let (called, said) = after.split_once(r#""type":"message""#).unwrap();
    // One of its own, and those after the call, which they hold.
    assert!((3..=5).contains(&called.matches("event: response.in_progress").count()), "{called}");
    let last = called.rsplit("event: response.in_progress").next().unwrap();
    assert!(
        last.contains(r#""output":[{"type":"function_call""#) || last.contains(r#""call_id":"#),
        "{last}"
    );
    assert!(!called.contains("keep-alive"), "{called}");
    assert!((2..=4).contains(&said.matches(": keep-alive\n").count()), "{said}");
    assert!(!said.contains("response.in_progress"), "{said}");
    let numbers = reply.body.split("\"sequence_number\":").skip(1);
    let numbers: Vec<usize> =
        numbers.map(|rest| rest[..rest.find([',', '}']).unwrap()].parse().unwrap()).collect();
    assert!(numbers.iter().copied().eq(0..numbers.len()), "{numbers:?}");
    assert!(after.contains("event: response.completed"));
}

#[tokio::test]
async fn what_fails_after_a_sign_fails_in_the_stream() {
    let act = || vec![thinking(), Step::Say(status(503, "UNAVAILABLE", ""))];
    let reply = ask(act(), true).await;
    assert_eq!((reply.status, reply.code().as_deref()), (200, Some("upstream_overloaded")));
    assert!(!reply.body.contains("[DONE]"));
    // A whole reply has no place for signs.
    let reply = ask(act(), false).await;
    assert_eq!((reply.status, reply.code().as_deref()), (503, Some("upstream_overloaded")));
}

#[tokio::test]
async fn what_is_quick_is_as_it_was() {
    let reply = ask(vec![Step::Serve], true).await;
    assert!(!reply.body.contains("keep-alive") && reply.body.contains("[DONE]"), "{}", reply.body);
    let reply = ask(vec![Step::Say(status(400, "INVALID_ARGUMENT", ""))], true).await;
    assert_eq!(reply.status, 400);
}
