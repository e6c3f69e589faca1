//! kill -9 at any moment: no answer that a client has whole is missing from the ledger, and none is there twice.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::support::{Gateway, KEY, Scratch, chat, fetch, times};

#[tokio::test(flavor = "multi_thread")]
async fn what_was_delivered_is_in_the_ledger_after_a_kill() {
    let moments = times("GEMWAY_TEST_KILLS", 8);
    let scratch = Scratch::new();
    let config = format!(
        "[[keys]]\nname = \"books\"\nsecret = \"sk-canary-of-a-client-0123\"\n[ledger]\nurl = \"{}\"\ndurability = \"before_end\"\n",
        scratch.ledger()
    );
    let complete: Arc<Mutex<HashSet<String>>> = Arc::default();
    let mut asked = 0;
    for moment in 0..moments {
        let mut gateway = Gateway::start(&scratch, &config).await;
        let address = gateway.address;
        let workers: Vec<_> = (0..8)
            .map(|worker| {
                let complete = Arc::clone(&complete);
                tokio::spawn(async move {
                    let mut count = 0;
                    loop {
                        let id = format!("kill-{moment}-{worker}-{count}");
                        count += 1;
                        let body = chat("gemini-2.5-flash", "hello there", count % 3 != 0);
                        let headers = [KEY, ("x-request-id", id.as_str())];
                        match fetch(address, "POST", "/v1/chat/completions", &headers, &body).await {
                            Ok(answer) if answer.complete() => drop(complete.lock().insert(id)),
                            Ok(_) => {}
                            Err(_) => return count,
                        }
                    }
                })
            })
            .collect();
        // Spread over the time in which requests run, without a random number that a failure could not repeat.
        tokio::time::sleep(Duration::from_millis(60 + (moment as u64 * 137) % 400)).await;
        gateway.child.start_kill().unwrap();
        gateway.child.wait().await.unwrap();
        for worker in workers {
            asked += worker.await.unwrap();
        }
    }
    let file = rusqlite::Connection::open(scratch.0.join("gemway.db")).unwrap();
    let mut statement = file.prepare("SELECT request_id, outcome FROM ledger").unwrap();
    let rows =
        statement.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?))).unwrap();
    let rows: Vec<(String, String)> = rows.collect::<Result<_, _>>().unwrap();
    let well: Vec<&String> = rows.iter().filter(|(_, outcome)| outcome == "ok").map(|(id, _)| id).collect();
    let distinct: HashSet<&String> = rows.iter().map(|(id, _)| id).collect();
    let seen = complete.lock();
    let missing: Vec<&String> = seen.iter().filter(|id| !well.contains(id)).collect();
    println!(
        "{moments} kills, {asked} asked, {} seen complete, {} rows ({} ok), {} missing, {} twice",
        seen.len(),
        rows.len(),
        well.len(),
        missing.len(),
        rows.len() - distinct.len()
    );
    assert!(!seen.is_empty());
    assert_eq!(missing, Vec::<&String>::new());
    assert_eq!(rows.len(), distinct.len());
}
