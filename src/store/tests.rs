//! One suite over every database, and what is each one's own.

use super::*;

const DAY: u64 = 86_400;

fn open(url: &str, max_bytes: u64) -> Store {
    let max_age = Duration::from_secs(30 * DAY);
    Store::open(&Config { url: url.into(), max_age, max_bytes }).unwrap()
}

fn items(ids: &[&str]) -> Vec<Item> {
    ids.iter().map(|id| Item { id: (*id).to_owned(), json: format!("{{\"id\":\"{id}\"}}") }).collect()
}

fn ids(items: &[Item]) -> Vec<&str> {
    items.iter().map(|item| item.id.as_str()).collect()
}

fn done(id: &str, previous: Option<&str>, input: &[&str], output: &[&str]) -> Kept {
    Kept {
        id: id.to_owned(),
        tenant: "a".to_owned(),
        created: 1000,
        status: "completed".to_owned(),
        previous: previous.map(str::to_owned),
        json: format!("{{\"id\":\"{id}\"}}"),
        marks: Some(format!("[\"{id}\"]")),
        input: items(input),
        output: items(output),
        ..Kept::default()
    }
}

async fn suite(store: &Store) {
    responses(store).await;
    conversations(store).await;
    background(store).await;
    room(store).await;
}

async fn responses(store: &Store) {
    assert!(store.save(&done("resp_1", None, &["i1", "i2"], &["o1"])).await.unwrap());
    assert!(store.save(&done("resp_2", Some("resp_1"), &["i3"], &["o2", "o3"])).await.unwrap());
    // What is done stays as it is.
    assert!(!store.save(&done("resp_1", None, &[], &["other"])).await.unwrap());

    let found = store.response("a", "resp_2").await.unwrap().unwrap();
    assert_eq!((found.status.as_str(), found.json.as_str()), ("completed", "{\"id\":\"resp_2\"}"));
    assert_eq!((found.created, found.lease, found.background), (1000, None, false));

    // Another tenant's id is no id at all, whatever is asked of it.
    assert_eq!(store.response("b", "resp_2").await.unwrap(), None);
    assert_eq!(store.items("b", "resp_2", &Page { limit: 5, ..Page::default() }).await.unwrap(), None);
    assert_eq!(store.chain("b", "resp_2").await.unwrap(), Chain::Missing("resp_2".to_owned()));
    assert!(store.find("b", &["i1".to_owned()]).await.unwrap().items.is_empty());
    assert!(!store.delete("b", "resp_2").await.unwrap());

    let Chain::Found(history) = store.chain("a", "resp_2").await.unwrap() else { panic!() };
    assert_eq!(ids(&history.items), ["i1", "i2", "o1", "i3", "o2", "o3"]);
    assert_eq!(history.marks, ["[\"resp_1\"]", "[\"resp_2\"]"]);

    // The input is listed, the output is not.
    let page =
        |after: Option<&str>, descending, limit| Page { after: after.map(str::to_owned), descending, limit };
    let list = store.items("a", "resp_1", &page(None, true, 1)).await.unwrap().unwrap();
    assert_eq!((ids(&list.items), list.more), (vec!["i2"], true));
    let list = store.items("a", "resp_1", &page(Some("i2"), true, 1)).await.unwrap().unwrap();
    assert_eq!((ids(&list.items), list.more), (vec!["i1"], false));
    let list = store.items("a", "resp_1", &page(Some("i1"), false, 9)).await.unwrap().unwrap();
    assert_eq!((ids(&list.items), list.more), (vec!["i2"], false));
    assert_eq!(
        store.items("a", "resp_1", &page(Some("o1"), false, 9)).await.unwrap_err().param(),
        Some("after")
    );

    let wanted = ["o3", "nobody", "i1"].map(str::to_owned);
    let found = store.find("a", &wanted).await.unwrap();
    assert_eq!((ids(&found.items), found.marks.len()), (vec!["o3", "i1"], 2));

    assert!(store.delete("a", "resp_1").await.unwrap());
    assert_eq!(store.chain("a", "resp_2").await.unwrap(), Chain::Missing("resp_1".to_owned()));
    assert!(
        store.find("a", &["i1".to_owned()]).await.unwrap().items.is_empty(),
        "items go with their response"
    );
    assert!(store.delete("a", "resp_2").await.unwrap());
}

async fn conversations(store: &Store) {
    let new = Conversation {
        id: "conv_1".to_owned(),
        tenant: "a".to_owned(),
        created: 1000,
        metadata: "{}".to_owned(),
    };
    store.create_conversation(&new, &items(&["c1", "c2"])).await.unwrap();
    assert_eq!(store.conversation("a", "conv_1").await.unwrap(), Some(new));
    assert_eq!(store.conversation("b", "conv_1").await.unwrap(), None);
    assert_eq!(store.response("a", "conv_1").await.unwrap(), None, "a conversation is no response");
    assert_eq!(store.chain("a", "conv_1").await.unwrap(), Chain::Missing("conv_1".to_owned()));
    assert!(store.add(("a", "conv_1"), 1001, &items(&["c3"]), None).await.unwrap());
    assert!(!store.add(("b", "conv_1"), 1001, &items(&["x"]), None).await.unwrap());
    let described = store.describe("a", "conv_1", "{\"k\":\"v\"}", 1002).await.unwrap().unwrap();
    assert_eq!(described.metadata, "{\"k\":\"v\"}");
    assert_eq!(store.describe("b", "conv_1", "{}", 1002).await.unwrap(), None);

    // A response's input and output go to its conversation, at once and in order.
    let kept = Kept {
        conversation: Some("conv_1".to_owned()),
        gained: items(&["q", "r", "s"]),
        ..done("resp_c", None, &["q"], &["r", "s"])
    };
    assert!(store.save(&kept).await.unwrap());
    let all = Page { limit: 100, ..Page::default() };
    let list = store.items("a", "conv_1", &all).await.unwrap().unwrap();
    assert_eq!(ids(&list.items), ["c1", "c2", "c3", "q", "r", "s"]);
    let said = store.said("a", "conv_1").await.unwrap().unwrap();
    assert_eq!((said.items.len(), said.marks.len()), (6, 1));
    assert_eq!(store.chain("a", "resp_c").await.unwrap(), Chain::Conversation("conv_1".to_owned()));

    assert!(store.remove("a", "conv_1", "r").await.unwrap());
    assert!(!store.remove("a", "conv_1", "r").await.unwrap());
    assert!(!store.remove("b", "conv_1", "s").await.unwrap());
    assert_eq!(store.item("a", "conv_1", "r").await.unwrap(), None);
    assert_eq!(store.item("a", "conv_1", "s").await.unwrap().unwrap().id, "s");
    assert_eq!(ids(&store.said("a", "conv_1").await.unwrap().unwrap().items), ["c1", "c2", "c3", "q", "s"]);
    // What a conversation holds stays when the response goes.
    assert_eq!(store.said("b", "conv_1").await.unwrap(), None);
    assert!(store.delete("a", "resp_c").await.unwrap());
    assert!(store.delete("a", "conv_1").await.unwrap());
    assert_eq!(store.said("a", "conv_1").await.unwrap(), None);
}

async fn background(store: &Store) {
    let event = |text: &str| vec![text.to_owned()];
    let kept = Kept {
        status: "queued".to_owned(),
        background: true,
        streams: true,
        owner: Some(("me".to_owned(), 1015)),
        events: (0, event("e0")),
        marks: None,
        ..done("resp_b", None, &["i"], &[])
    };
    assert!(store.save(&kept).await.unwrap());
    assert_eq!(store.chain("a", "resp_b").await.unwrap(), Chain::Unfinished("resp_b".to_owned()));
    assert!(store.record("resp_b", 1, &["e1".to_owned(), "e2".to_owned()]).await.unwrap());
    let (found, events, more) = store.events("a", "resp_b", Some(0)).await.unwrap().unwrap();
    assert_eq!((found.lease, found.streams, more), (Some(1015), true, false));
    assert_eq!(events, [(1, "e1".to_owned()), (2, "e2".to_owned())]);

    // While its owner renews it, nobody calls it lost.
    assert_eq!(store.renew("me", 1030).await.unwrap(), ["resp_b"]);
    assert!(store.renew("you", 1030).await.unwrap().is_empty());
    assert!(store.orphans(1029).await.unwrap().is_empty());
    let orphans = store.orphans(1031).await.unwrap();
    assert_eq!((orphans.len(), orphans[0].next_event, orphans[0].tenant.as_str()), (1, 3, "a"));

    let end = Kept {
        background: true,
        streams: true,
        events: (3, event("e3")),
        ..done("resp_b", None, &[], &["o"])
    };
    assert!(store.advance(&end).await.unwrap());
    let late = Kept { status: "failed".to_owned(), ..end.clone() };
    assert!(!store.advance(&late).await.unwrap(), "the first end stands");
    assert!(!store.save(&late).await.unwrap());
    assert!(!store.record("resp_b", 4, &event("e4")).await.unwrap());
    let (found, events, _) = store.events("a", "resp_b", None).await.unwrap().unwrap();
    assert_eq!((found.status.as_str(), found.lease, events.len()), ("completed", None, 4));
    assert!(store.renew("me", 1060).await.unwrap().is_empty());
    assert!(
        matches!(store.chain("a", "resp_b").await.unwrap(), Chain::Found(history) if history.items.len() == 2)
    );

    assert!(store.delete("a", "resp_b").await.unwrap());
    assert!(!store.advance(&end).await.unwrap(), "what was deleted does not come back");
    assert_eq!(store.events("a", "resp_b", None).await.unwrap(), None);
}

/// The store was opened with room for 100 000 bytes.
async fn room(store: &Store) {
    let old = Kept { created: 10, ..done("resp_old", None, &[], &[]) };
    let running =
        Kept { created: 10, owner: Some(("me".to_owned(), 20)), ..done("resp_running", None, &[], &[]) };
    let new = Kept { created: 31 * DAY, ..done("resp_new", None, &[], &[]) };
    for kept in [&old, &running, &new] {
        store.save(kept).await.unwrap();
    }
    store.sweep(31 * DAY).await.unwrap();
    assert_eq!(store.response("a", "resp_old").await.unwrap(), None);
    assert!(store.response("a", "resp_running").await.unwrap().is_some(), "work in progress is not swept");
    assert!(store.response("a", "resp_new").await.unwrap().is_some());
    store.delete("a", "resp_running").await.unwrap();

    for number in 0..40_u64 {
        let json = "x".repeat(5000);
        let id = format!("resp_{number:02}");
        let kept = Kept { created: 32 * DAY + number, json, ..done(&id, None, &[], &[]) };
        store.save(&kept).await.unwrap();
    }
    assert_eq!(store.response("a", "resp_00").await.unwrap(), None, "the oldest made room");
    assert!(store.response("a", "resp_39").await.unwrap().is_some());
    store.sweep(33 * DAY).await.unwrap();
    let mut left = 0;
    for number in 0..40 {
        left += usize::from(store.response("a", &format!("resp_{number:02}")).await.unwrap().is_some());
    }
    assert!((10..20).contains(&left), "{left}");
}

/// A folder of its own for one test.
fn folder(name: &str) -> std::path::PathBuf {
    let folder = std::env::temp_dir().join(format!("gemway-store-{name}-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

#[tokio::test]
async fn memory_keeps_all_the_promises() {
    suite(&open("memory:", 100_000)).await;
}

#[tokio::test]
async fn a_file_keeps_all_the_promises() {
    let folder = folder("suite");
    suite(&open(&format!("sqlite:{}", folder.join("a.db").display()), 100_000)).await;
    std::fs::remove_dir_all(folder).unwrap();
}

#[tokio::test]
async fn a_file_is_still_there_after_a_restart_and_shared_while_it_is_open() {
    let folder = folder("restart");
    let url = format!("sqlite:{}", folder.join("a.db").display());
    let first = open(&url, 1 << 20);
    assert!(first.alone());
    first.save(&done("resp_1", None, &["i"], &["o"])).await.unwrap();
    let second = open(&url, 1 << 20);
    assert!(!second.alone(), "the first one still works on it");
    assert!(second.response("a", "resp_1").await.unwrap().is_some());
    drop((first, second));
    // The threads let go of the file a moment after the last handle went.
    let third = loop {
        let third = open(&url, 1 << 20);
        if third.alone() {
            break third;
        }
        drop(third);
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    assert!(third.response("a", "resp_1").await.unwrap().is_some());
    std::fs::remove_dir_all(folder).unwrap();
}

const OLDER: &[&[&str]] = &[schema::STEPS[0]];
const NEWER: &[&[&str]] = &[schema::STEPS[0], &["ALTER TABLE state_items ADD COLUMN more TEXT"]];

#[tokio::test]
async fn an_old_file_is_upgraded_and_a_newer_one_refused() {
    let folder = folder("versions");
    let path = folder.join("a.db");
    let url = format!("sqlite:{}", path.display());
    drop(sqlite::Sqlite::open_at(&path, OLDER).unwrap());
    open(&url, 1 << 20).save(&done("resp_1", None, &["i"], &["o"])).await.unwrap();
    drop(sqlite::Sqlite::open_at(&path, NEWER).unwrap());
    let error = Store::open(&Config { url: url.into(), max_age: Duration::MAX, max_bytes: 1 }).unwrap_err();
    assert!(error.message().contains("written by a newer gateway"), "{}", error.message());
    // Refused means untouched.
    let check = rusqlite::Connection::open(&path).unwrap();
    let kept: i64 = check
        .query_row("SELECT count(*) FROM state_heads WHERE id = 'resp_1'", (), |row| row.get(0))
        .unwrap();
    assert_eq!(kept, 1);
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn what_cannot_be_a_store_is_refused_in_words() {
    let folder = folder("refused");
    let file = folder.join("text.db");
    std::fs::write(&file, "this is no database, it is a text of some length, really").unwrap();
    let cases = [
        (format!("sqlite:{}", file.display()), "not a database"),
        (format!("sqlite:{}/no/such/a.db", folder.display()), "cannot open the store"),
        ("sqlite:".to_owned(), "needs a path"),
        ("mysql://x".to_owned(), "[store] url must be"),
        ("postgres://u:very-secret@h/db?sslmode=sometimes".to_owned(), "sslmode"),
        ("postgres://u:very-secret@h:port/db".to_owned(), "cannot be read"),
    ];
    for (url, says) in cases {
        let config = Config { url: url.as_str().into(), max_age: Duration::MAX, max_bytes: 1 };
        let error = Store::open(&config).unwrap_err();
        assert!(error.message().contains(says), "{url}: {}", error.message());
        assert!(!format!("{error:?}").contains("very-secret"), "{url}");
    }
    std::fs::remove_dir_all(folder).unwrap();
}

#[tokio::test]
async fn an_absent_postgres_is_a_503_and_not_a_hang() {
    let store = open("postgres://nobody@127.0.0.1:1/none", 1 << 20);
    let error = store.response("a", "resp_1").await.unwrap_err();
    assert_eq!(error.kind(), Kind::Overloaded);
}

/// A schema of its own on the server that `GEMWAY_TEST_POSTGRES` names.
async fn schema(name: &str) -> String {
    let url =
        crate::config::process_env("GEMWAY_TEST_POSTGRES").expect("GEMWAY_TEST_POSTGRES names a server");
    let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await.unwrap();
    let connection = tokio::spawn(connection);
    let schema = format!("gemway_{name}_{}", std::process::id());
    client
        .batch_execute(&format!("DROP SCHEMA IF EXISTS {schema} CASCADE; CREATE SCHEMA {schema}"))
        .await
        .unwrap();
    drop(client);
    connection.await.unwrap().unwrap();
    let sign = if url.contains('?') { '&' } else { '?' };
    format!("{url}{sign}options=-csearch_path%3D{schema}")
}

#[tokio::test]
#[ignore = "needs GEMWAY_TEST_POSTGRES; scripts/test starts a server"]
async fn postgres_keeps_all_the_promises() {
    suite(&open(&schema("suite").await, 100_000)).await;
}

#[tokio::test]
#[ignore = "needs GEMWAY_TEST_POSTGRES; scripts/test starts a server"]
async fn postgres_is_upgraded_once_by_many_and_a_newer_one_is_refused() {
    let url = schema("versions").await;
    let stores: Vec<_> = (0..4).map(|_| open(&url, 1 << 20)).collect();
    let opened = stores.iter().map(|store| store.response("a", "resp_1"));
    for opened in futures_util::future::join_all(opened).await {
        assert_eq!(opened.unwrap(), None);
    }
    let newer = postgres::Postgres::with_steps(&url, NEWER).unwrap();
    let nothing = Work { statements: Vec::new(), writes: false };
    newer.run(nothing).await.unwrap();
    let error = open(&url, 1 << 20).response("a", "resp_1").await.unwrap_err();
    assert!(error.message().contains("written by a newer gateway"), "{}", error.message());
}

#[tokio::test]
#[ignore = "needs GEMWAY_TEST_POSTGRES; scripts/test starts a server"]
async fn postgres_is_reached_again_after_a_lost_connection() {
    let url = format!("{}&application_name=gemway-lost", schema("lost").await);
    let store = open(&url, 1 << 20);
    store.save(&done("resp_1", None, &["i"], &["o"])).await.unwrap();
    let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await.unwrap();
    let _connection = tokio::spawn(connection);
    let others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                  WHERE application_name = 'gemway-lost' AND pid <> pg_backend_pid()";
    client.batch_execute(others).await.unwrap();
    let mut tries = 0;
    while store.response("a", "resp_1").await.is_err() {
        tries += 1;
        assert!(tries < 50, "the store did not come back");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(store.response("a", "resp_1").await.unwrap().is_some());
}
