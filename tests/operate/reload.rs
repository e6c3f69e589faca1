//! A configuration that changes under load.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use super::support::{Gateway, KEY, Scratch, chat, fetch, times};

pub(crate) const SECRET: &str = "sk-canary-of-a-client-0123";

pub(crate) fn config(alias: &str, rest: &str) -> String {
    format!(
        "[[keys]]\nname = \"team\"\nsecret = \"{SECRET}\"\n[aliases]\n\"{alias}\" = \"gemini-2.5-flash\"\n[simulator]\ntime_to_first_token = \"0ms\"\ntokens_per_second = 0\n{rest}"
    )
}

/// How many reloads had this result.
pub(crate) async fn reloads(gateway: &Gateway, result: &str) -> u64 {
    let line = format!(r#"gemway_config_reloads_total{{result="{result}"}} "#);
    let text = gateway.metrics().await;
    let count = text.lines().find_map(|found| found.strip_prefix(&line));
    count.map_or(0, |count| count.trim().parse().unwrap())
}

/// SIGHUP, and the wait until it was heeded.
pub(crate) async fn reload(gateway: &Gateway, result: &str) {
    let before = reloads(gateway, result).await;
    gateway.signal("HUP");
    for _ in 0..1000 {
        if reloads(gateway, result).await > before {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("not {result} within ten seconds");
}

async fn status(gateway: &Gateway, model: &str) -> u16 {
    let body = chat(model, "Hello", false);
    fetch(gateway.address, "POST", "/v1/chat/completions", &[KEY], &body).await.unwrap().status
}

/// A hundred right configurations and a hundred wrong ones, while four clients ask, half of them for streams that
/// outlast several reloads.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_reloads_fail_no_request() {
    // Forty words take a third of a second.
    let paced = |alias: &str| config(alias, "").replace("tokens_per_second = 0", "tokens_per_second = 120");
    let rounds = times("GEMWAY_TEST_RELOADS", 100);
    let scratch = Scratch::new();
    let path = scratch.file("gemway.toml", &paced("always"));
    let gateway = Arc::new(Gateway::start_with(&scratch, Some(&path), &[], &[]).await);
    let (stop, served) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
    let clients = (0..4).map(|client| {
        let (gateway, stop, served) = (Arc::clone(&gateway), Arc::clone(&stop), Arc::clone(&served));
        tokio::spawn(async move {
            let mut failed = Vec::new();
            while !stop.load(Relaxed) {
                let body = chat("gemini-2.5-flash", &"word ".repeat(40), client % 2 == 0);
                match fetch(gateway.address, "POST", "/v1/chat/completions", &[KEY], &body).await {
                    Ok(answer) if answer.complete() => _ = served.fetch_add(1, Relaxed),
                    other => failed.push(format!("{other:?}")),
                }
            }
            failed
        })
    });
    let clients: Vec<_> = clients.collect();
    for turn in 0..rounds {
        let alias = format!("alias-{turn}");
        scratch.file("gemway.toml", &paced(&alias));
        reload(&gateway, "taken").await;
        assert_eq!(status(&gateway, &alias).await, 200, "{alias} is not in force");
        scratch.file("gemway.toml", &config("other", "[sites]\nnonsense = 1\n"));
        reload(&gateway, "refused").await;
        assert_eq!(status(&gateway, &alias).await, 200, "{alias} was lost");
    }
    stop.store(true, Relaxed);
    let mut failed = Vec::new();
    for client in clients {
        failed.extend(client.await.unwrap());
    }
    let served = served.load(Relaxed);
    println!("{rounds} reloads taken, {rounds} refused, {served} requests served, {} failed", failed.len());
    assert!(failed.is_empty(), "{} of {served} failed, the first: {}", failed.len(), failed[0]);
    assert!(served > 50, "only {served} requests beside the reloads");
    let log = gateway.log();
    assert!(log.matches("the old one stays").count() >= rounds, "a refusal was not said");
}

/// A stream that has begun keeps what it began with: its key is gone in the middle, its site too.
#[tokio::test]
async fn a_request_keeps_the_configuration_that_it_began_with() {
    let scratch = Scratch::new();
    let slow = |key: &str, site: &str| {
        format!(
            "[[keys]]\nname = \"team\"\nsecret = \"{key}\"\n[[sites]]\nname = \"{site}\"\nkind = \"simulator\"\n[simulator]\ntime_to_first_token = \"50ms\"\ntokens_per_second = 8\n"
        )
    };
    let path = scratch.file("gemway.toml", &slow(SECRET, "before"));
    let gateway = Gateway::start_with(&scratch, Some(&path), &[], &[]).await;
    let address = gateway.address;
    let words = "one two three four five six seven eight nine ten eleven twelve";
    let stream = tokio::spawn(async move {
        let body = chat("gemini-2.5-flash", words, true);
        fetch(address, "POST", "/v1/chat/completions", &[KEY], &body).await.unwrap()
    });
    tokio::time::sleep(Duration::from_millis(400)).await;
    scratch.file("gemway.toml", &slow("sk-canary-of-a-second-client", "after"));
    reload(&gateway, "taken").await;
    assert!(!stream.is_finished());
    assert_eq!(status(&gateway, "gemini-2.5-flash").await, 401, "the old key is still let in");
    let answer = stream.await.unwrap();
    assert!(answer.complete(), "{answer:?}");
    assert_eq!(answer.header("x-gemway-served-by"), Some("before"));
}

#[tokio::test]
async fn a_changed_file_is_noticed_through_a_link() {
    let scratch = Scratch::new();
    for (version, alias) in [("v1", "first"), ("v2", "second")] {
        std::fs::create_dir_all(scratch.0.join(version)).unwrap();
        std::fs::write(scratch.0.join(version).join("gemway.toml"), config(alias, "")).unwrap();
    }
    // A ConfigMap's volume: the file is a link into a folder that is itself a link, which is swapped.
    let data = scratch.0.join("..data");
    std::os::unix::fs::symlink("v1", &data).unwrap();
    std::os::unix::fs::symlink("..data/gemway.toml", scratch.0.join("mounted.toml")).unwrap();
    let gateway = Gateway::start_with(&scratch, Some(&scratch.0.join("mounted.toml")), &[], &[]).await;
    assert_eq!(status(&gateway, "first").await, 200);
    std::os::unix::fs::symlink("v2", scratch.0.join("..new")).unwrap();
    std::fs::rename(scratch.0.join("..new"), &data).unwrap();
    for _ in 0..200 {
        if reloads(&gateway, "taken").await > 0 {
            assert_eq!(status(&gateway, "second").await, 200);
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("the change was not noticed");
}

/// A secret's file that is mended is read again, and its new words count at once.
#[tokio::test]
async fn a_secrets_file_is_watched_too() {
    let scratch = Scratch::new();
    let secret = scratch.file("key", "sk-canary-of-a-first-client\n");
    let config = format!("[[keys]]\nname = \"team\"\nsecret = \"file:{}\"\n", secret.display());
    let gateway = Gateway::start(&scratch, &config).await;
    assert_eq!(status(&gateway, "gemini-2.5-flash").await, 401);
    scratch.file("key", &format!("{SECRET}\n"));
    for _ in 0..200 {
        if status(&gateway, "gemini-2.5-flash").await == 200 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("the change was not noticed");
}

/// Prices and the operator's key are of the configuration too.
#[tokio::test]
async fn prices_and_the_operators_key_are_replaced() {
    let scratch = Scratch::new();
    let priced = |dollars: u32| {
        let text = format!(
            "version = \"mine\"\n[[price]]\nmodels = [\"gemini-2.5-flash\"]\ninput = {dollars}.0\noutput = {dollars}.0\n"
        );
        scratch.file("prices.toml", &text)
    };
    let path = priced(1);
    let configured = |key: &str, name: &str| {
        format!(
            "admin_key = \"{key}\"\nprices = {path:?}\n[[keys]]\nname = \"{name}\"\nsecret = \"{SECRET}\"\n"
        )
    };
    let file = scratch.file("gemway.toml", &configured("canary-of-the-operator-1", "before"));
    let gateway = Gateway::start_with(&scratch, Some(&file), &["--simulator-ttft", "0"], &[]).await;
    let cost = async || {
        let body = chat("gemini-2.5-flash", "Hello", false);
        let asks = [KEY, ("x-gemway-cost", "1")];
        let answer = fetch(gateway.address, "POST", "/v1/chat/completions", &asks, &body).await.unwrap();
        answer.header("x-gemway-cost").unwrap().parse::<f64>().unwrap()
    };
    let operate = async |key: &str| {
        let bearer = format!("Bearer {key}");
        fetch(gateway.admin, "GET", "/admin/v1/keys", &[("authorization", &bearer)], "").await.unwrap()
    };
    let before = cost().await;
    assert!(before > 0.0);
    // The file of prices alone: it is watched as well.
    priced(10);
    let mut after = before;
    for _ in 0..200 {
        after = cost().await;
        if after > before {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!((after - 10.0 * before).abs() < before / 100.0, "{before} became {after}");
    assert!(operate("canary-of-the-operator-1").await.body.contains("before"));
    scratch.file("gemway.toml", &configured("canary-of-the-operator-2", "after"));
    reload(&gateway, "taken").await;
    assert_eq!(operate("canary-of-the-operator-1").await.status, 401);
    let listed = operate("canary-of-the-operator-2").await.body;
    assert!(listed.contains("after") && !listed.contains("before"), "{listed}");
    scratch.file("prices.toml", "nonsense");
    reload(&gateway, "refused").await;
    assert!((cost().await - after).abs() < before / 100.0);
}
