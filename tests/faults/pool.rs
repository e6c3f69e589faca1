//! Several sites: who is asked, who is left alone, and for how long.

use std::collections::HashSet;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use super::stage::{Act, Site, Step, chat, gateway, send, send_to, site, site_toml, status, whole};

fn asked(sites: &[&Site]) -> Vec<usize> {
    sites.iter().map(|site| site.asked.load(SeqCst)).collect()
}

async fn pair(a: Vec<Act>, b: Vec<Act>, route: &str) -> (Site, Site, super::stage::Gateway) {
    let (a, b) = (site(a).await, site(b).await);
    let toml = site_toml("a", a.address, "project-a")
        + &site_toml("b", b.address, "project-b")
        + &format!("[[routes]]\nmodels = [\"*\"]\nsites = [\"a\", \"b\"]\n{route}");
    let gateway = gateway(&toml).await;
    (a, b, gateway)
}

fn quota(wait: &str) -> Act {
    let details = format!(
        r#"{{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"{wait}"}},{{"violations":[{{"quotaId":"GenerateRequestsPerMinutePerProjectPerModel"}}]}}"#
    );
    vec![Step::Say(status(429, "RESOURCE_EXHAUSTED", &details))]
}

fn serve() -> Vec<Act> {
    vec![vec![Step::Serve]]
}

#[tokio::test]
async fn a_project_without_quota_is_left_alone_until_it_has_some() {
    let (a, b, gateway) = pair(vec![quota("1s"), vec![Step::Serve]], serve(), "").await;
    for _ in 0..3 {
        let reply = chat(gateway.address, "m", false, "").await;
        assert_eq!((reply.status, reply.header("x-gemway-served-by")), (200, Some("b")));
    }
    assert_eq!(asked(&[&a, &b]), [1, 3]);
    // Another model has a quota of its own.
    assert_eq!(chat(gateway.address, "n", false, "").await.header("x-gemway-served-by"), Some("a"));
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert_eq!(chat(gateway.address, "m", false, "").await.header("x-gemway-served-by"), Some("a"));
}

#[tokio::test]
async fn a_project_that_is_spent_for_the_day_is_not_asked_again() {
    let day = r#"{"violations":[{"quotaId":"GenerateRequestsPerDayPerProjectPerModel"}]}"#;
    let spent = vec![Step::Say(status(429, "RESOURCE_EXHAUSTED", day))];
    let (a, b, gateway) = pair(vec![spent.clone()], vec![vec![Step::Serve], spent], "").await;
    assert_eq!(chat(gateway.address, "m", true, "").await.status, 200);
    let reply = chat(gateway.address, "m", true, "").await;
    assert_eq!((reply.status, reply.code().as_deref()), (429, Some("insufficient_quota")));
    let begun = Instant::now();
    let reply = chat(gateway.address, "m", false, "").await;
    assert_eq!((reply.status, reply.code().as_deref()), (429, Some("insufficient_quota")));
    assert_eq!(reply.header("x-should-retry"), Some("false"));
    assert!(begun.elapsed() < Duration::from_millis(200));
    assert_eq!(asked(&[&a, &b]), [1, 2]);
}

#[tokio::test]
async fn when_all_projects_wait_the_client_is_told_the_shortest_wait() {
    let (a, b, gateway) = pair(vec![quota("30s")], vec![quota("20s")], "").await;
    assert_eq!(chat(gateway.address, "m", false, "").await.status, 429);
    let reply = chat(gateway.address, "m", false, "").await;
    assert_eq!((reply.status, reply.code().as_deref()), (429, Some("rate_limit_exceeded")));
    let wait: u64 = reply.header("retry-after").unwrap().parse().unwrap();
    assert!((19..=20).contains(&wait), "{wait}");
    assert_eq!(asked(&[&a, &b]), [1, 1]);
}

#[tokio::test]
async fn sites_of_one_project_cool_together() {
    let (a, b) = (site(vec![quota("30s")]).await, site(serve()).await);
    let c = site(serve()).await;
    let toml = site_toml("a", a.address, "one")
        + &site_toml("b", b.address, "one")
        + &site_toml("c", c.address, "two");
    let gateway = gateway(&toml).await;
    assert_eq!(chat(gateway.address, "m", false, "").await.header("x-gemway-served-by"), Some("c"));
    assert_eq!(asked(&[&a, &b, &c]), [1, 0, 1]);
}

#[tokio::test]
async fn a_site_that_keeps_failing_comes_last_until_a_probe_works() {
    let mut acts: Vec<Act> = vec![vec![Step::Say(status(503, "UNAVAILABLE", ""))]; 5];
    acts.push(vec![Step::Serve]);
    let (a, b, gateway) = pair(acts, serve(), "").await;
    for _ in 0..20 {
        assert_eq!(chat(gateway.address, "m", false, "").await.status, 200);
    }
    assert_eq!(asked(&[&a, &b]), [5, 20], "five failures, and then it is left alone");
    tokio::time::sleep(Duration::from_millis(600)).await;
    for _ in 0..2 {
        assert_eq!(chat(gateway.address, "m", false, "").await.header("x-gemway-served-by"), Some("a"));
    }
}

#[tokio::test]
async fn a_site_whose_streams_break_comes_last_until_one_ends_well() {
    let broken = vec![
        Step::Say(super::stage::opening()),
        Step::Say(super::stage::event(super::stage::HELLO)),
        Step::Wait(Duration::from_millis(5)),
        Step::Reset,
    ];
    let mut acts: Vec<Act> = vec![broken; 6];
    acts.push(vec![Step::Serve]);
    let (a, b, gateway) = pair(acts, serve(), "").await;
    for _ in 0..5 {
        let cut = chat(gateway.address, "m", true, "").await;
        assert_eq!((cut.status, cut.code().as_deref()), (200, Some("upstream_disconnected")));
    }
    for _ in 0..10 {
        assert_eq!(chat(gateway.address, "m", true, "").await.header("x-gemway-served-by"), Some("b"));
    }
    assert_eq!(asked(&[&a, &b]), [5, 10], "five breaks, and then it is left alone");
    tokio::time::sleep(Duration::from_millis(600)).await;
    // The probe begins well and breaks like the others.
    assert!(chat(gateway.address, "m", true, "").await.code().is_some());
    assert_eq!(chat(gateway.address, "m", true, "").await.header("x-gemway-served-by"), Some("b"));
    tokio::time::sleep(Duration::from_millis(1100)).await;
    for _ in 0..3 {
        let well = chat(gateway.address, "m", true, "").await;
        assert_eq!((well.code(), well.header("x-gemway-served-by")), (None, Some("a")));
    }
}

#[tokio::test]
async fn a_site_that_refuses_our_key_is_the_last_resort() {
    let refuse = vec![Step::Say(status(401, "UNAUTHENTICATED", ""))];
    let (a, b, gateway) = pair(vec![refuse], serve(), "").await;
    for _ in 0..4 {
        assert_eq!(chat(gateway.address, "m", false, "").await.status, 200);
    }
    assert_eq!(asked(&[&a, &b]), [1, 4]);
}

#[tokio::test]
async fn work_is_spread_and_a_conversation_stays() {
    let (a, b, gateway) = pair(serve(), serve(), "balance = \"spread\"\n").await;
    for n in 0..12 {
        let turn = |rest: &str| {
            format!(r#"{{"model":"m","messages":[{{"role":"user","content":"topic {n}"}}{rest}]}}"#)
        };
        let more = r#",{"role":"assistant","content":"x"},{"role":"user","content":"go on"}"#;
        let mut served = HashSet::new();
        for body in [turn(""), turn(more), turn(more)] {
            let reply = send(gateway.address, &body, "").await;
            served.insert(reply.header("x-gemway-served-by").unwrap().to_owned());
        }
        assert_eq!(served.len(), 1, "conversation {n} moved");
    }
    let shares = asked(&[&a, &b]);
    assert!(shares.iter().all(|share| *share >= 3), "{shares:?}");
}

#[tokio::test]
async fn a_conversation_of_responses_stays_too() {
    let (a, b, gateway) = pair(serve(), serve(), "balance = \"spread\"\n").await;
    for n in 0..12 {
        let first = format!(r#"{{"model":"m","input":"topic {n}"}}"#);
        let then = format!(
            r#"{{"model":"m","input":[{{"role":"user","content":"topic {n}"}},{{"role":"assistant","content":"x"}},{{"role":"user","content":"go on"}}]}}"#
        );
        let mut served = HashSet::new();
        for body in [&first, &then, &then] {
            let reply = send_to(gateway.address, "/v1/responses", body).await;
            served.insert(reply.header("x-gemway-served-by").unwrap().to_owned());
        }
        assert_eq!(served.len(), 1, "conversation {n} moved");
    }
    let shares = asked(&[&a, &b]);
    assert!(shares.iter().all(|share| *share >= 3), "{shares:?}");
}

#[tokio::test]
async fn a_turn_goes_back_to_the_project_that_signed_it() {
    let calling = r#"{"candidates":[{"content":{"role":"model","parts":[{"functionCall":{"id":"call-7","name":"look","args":{}},"thoughtSignature":"c2lnbmVkLWJ5LWI="}]},"finishReason":"STOP","index":0}]}"#;
    let busy = || vec![Step::Say(status(503, "UNAVAILABLE", ""))];
    let (a, b, gateway) = pair(
        vec![busy(), vec![Step::Serve]],
        vec![vec![Step::Say(whole(200, calling))], vec![Step::Serve], vec![Step::Reset]],
        "",
    )
    .await;
    let tools = r#""tools":[{"type":"function","function":{"name":"look","parameters":{"type":"object"}}}]"#;
    let first =
        format!(r#"{{"model":"gemini-3.8-flash",{tools},"messages":[{{"role":"user","content":"hi"}}]}}"#);
    let reply = send(gateway.address, &first, "").await;
    assert_eq!(reply.header("x-gemway-served-by"), Some("b"), "{reply:?}");
    let json: serde_json::Value = serde_json::from_str(&reply.body).unwrap();
    let mut call = json["choices"][0]["message"]["tool_calls"][0].clone();
    for signed in [true, false] {
        if !signed {
            // As from a client that drops what it does not know.
            call.as_object_mut().unwrap().remove("extra_content");
        }
        let id = call["id"].as_str().unwrap();
        let second = format!(
            r#"{{"model":"gemini-3.8-flash",{tools},"messages":[{{"role":"user","content":"hi"}},{{"role":"assistant","tool_calls":[{call}]}},{{"role":"tool","tool_call_id":"{id}","content":"seen"}}]}}"#
        );
        let reply = send(gateway.address, &second, "").await;
        assert_eq!(reply.status, 200, "{reply:?}");
        let heard = |site: &Site| site.heard.lock().unwrap().last().unwrap().clone();
        if signed {
            assert_eq!(reply.header("x-gemway-served-by"), Some("b"), "the turn stays");
            assert!(heard(&b).contains("c2lnbmVkLWJ5LWI="), "{}", heard(&b));
        } else {
            // B is gone by now.
            assert_eq!(reply.header("x-gemway-served-by"), Some("a"));
            assert!(heard(&b).contains("c2lnbmVkLWJ5LWI="), "{}", heard(&b));
            assert!(heard(&a).contains("skip_thought_signature_validator"), "{}", heard(&a));
            assert!(!heard(&a).contains("c2lnbmVkLWJ5LWI="), "{}", heard(&a));
        }
    }
}
