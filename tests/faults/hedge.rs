//! Short whole calls that are made twice when they are late.

use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use super::stage::{Act, Gateway, Reply, Site, Step, chat, gateway, site, site_toml};

const SLOW: Duration = Duration::from_secs(3);

/// A site that answers forty times at once, so that it is known what is late, and then follows a script.
async fn warmed(script: &[Act], route: &str) -> (Site, Gateway) {
    let acts = [vec![vec![Step::Serve]; 40], script.to_vec()].concat();
    let google = site(acts).await;
    let toml = site_toml("g", google.address, "g")
        + &format!("[[routes]]\nmodels = [\"*\"]\nsites = [\"g\"]\nretries = 0\n{route}");
    let gateway = gateway(&toml).await;
    for _ in 0..40 {
        assert_eq!(ask(&gateway, "").await.header("x-gemway-attempts"), Some("1"));
    }
    (google, gateway)
}

async fn ask(gateway: &Gateway, headers: &str) -> Reply {
    chat(gateway.address, "m", false, headers).await
}

fn late() -> Act {
    vec![Step::Wait(SLOW), Step::Serve]
}

fn serve() -> Act {
    vec![Step::Serve]
}

#[tokio::test]
async fn what_is_late_is_asked_again_and_the_loser_is_let_go() {
    let (google, gateway) = warmed(&[vec![Step::Stall], serve()], "hedge_percent = 5\n").await;
    let reply = ask(&gateway, "").await;
    assert_eq!((reply.status, reply.header("x-gemway-attempts")), (200, Some("2")));
    assert!(reply.took < SLOW / 2, "{:?}", reply.took);
    assert_eq!(google.asked.load(SeqCst), 42);
    // What the client is told is the answer's own; the one that was given up is booked beside it.
    assert!(reply.body.contains(r#""total_tokens":5"#), "{}", reply.body);
    let books = String::from_utf8(gateway.metrics.render()).unwrap();
    let count = |line: &str| {
        let found = books.lines().find_map(|found| found.strip_prefix(line));
        found.unwrap_or_else(|| panic!("no {line}\n{books}")).trim().parse::<u64>().unwrap()
    };
    assert_eq!(
        count(r#"gemway_upstream_attempts_total{code="none",model="unresolved",reason="given_up",site="g"}"#),
        1
    );
    assert_eq!(count(r#"gemway_estimated_requests_total{route="chat"}"#), 1);
    // Its connection is closed: one is left, and another one at most that was idle before.
    for _ in 0..100 {
        if google.open.load(SeqCst) <= 1 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the call that was given up goes on: {} connections", google.open.load(SeqCst));
}

#[tokio::test]
async fn no_more_than_the_share_is_asked_twice() {
    // Forty calls have earned two second ones.
    let (google, gateway) = warmed(&[late(), serve(), late(), serve(), late()], "hedge_percent = 5\n").await;
    for expected in ["2", "2", "1"] {
        let reply = ask(&gateway, "").await;
        assert_eq!((reply.status, reply.header("x-gemway-attempts")), (200, Some(expected)));
        assert_eq!(reply.took < SLOW, expected == "2");
    }
    assert_eq!(google.asked.load(SeqCst), 45);
}

#[tokio::test]
async fn the_second_answer_counts_when_the_first_fails_late() {
    let fails = vec![Step::Wait(Duration::from_millis(300)), Step::Reset];
    let answers = vec![Step::Wait(Duration::from_millis(600)), Step::Serve];
    let (_google, gateway) = warmed(&[fails, answers], "hedge_percent = 5\n").await;
    let reply = ask(&gateway, "").await;
    assert_eq!((reply.status, reply.header("x-gemway-attempts")), (200, Some("2")), "{reply:?}");
}

#[tokio::test]
async fn it_is_for_those_who_want_it() {
    let (google, gateway) = warmed(&[late()], "").await;
    assert!(ask(&gateway, "").await.took >= SLOW, "off unless configured");
    assert_eq!(google.asked.load(SeqCst), 41);
    let (google, gateway) = warmed(&[late()], "hedge_percent = 5\n").await;
    assert!(ask(&gateway, "x-gemway-no-retry: 1\r\n").await.took >= SLOW);
    assert_eq!(google.asked.load(SeqCst), 41);
    let streamed = chat(gateway.address, "m", true, "").await;
    assert_eq!(streamed.header("x-gemway-attempts"), Some("1"));
}
