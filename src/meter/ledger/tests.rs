use std::path::{Path, PathBuf};

use super::*;
use crate::usage::{Modality, Tier};

fn row(id: &str, key: &str, at: i64) -> Row {
    let mut usage = Usage { input: 10, cached: 4, output: 5, thoughts: 2, tool_use: 1, ..Usage::default() };
    usage.input_by[Modality::Image] = 3;
    usage.tier = Tier::Flex;
    Row {
        id: id.to_owned(),
        at,
        request_id: "req".to_owned(),
        key: key.to_owned(),
        labels: r#"{"team":"a, \"b\""}"#.into(),
        route: "chat",
        model: Some("m".to_owned()),
        outcome: "ok",
        status: 200,
        usage,
        cost: Some(1_500_000),
        duration: 12,
        ..Row::default()
    }
}

/// A file of its own, gone with the test.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("gemway-{name}-{}.db", std::process::id()));
        let scratch = Self(path);
        scratch.clear();
        scratch
    }
    fn place(&self) -> Place {
        Place::parse(&format!("sqlite:{}", self.0.display()).into()).unwrap()
    }
    fn clear(&self) {
        for suffix in ["", "-wal", "-shm"] {
            let _ = std::fs::remove_file(format!("{}{suffix}", self.0.display()));
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        self.clear();
    }
}

fn by(names: &[&str]) -> Vec<Dimension> {
    names.iter().map(|name| Dimension::parse(name).unwrap()).collect()
}

/// What every database must do.
async fn exercise(place: &Place) {
    let ledger = Ledger::open(place, Durability::BeforeEnd, Accounts::new()).unwrap();
    ledger.record(row("1", "a", 1000));
    ledger.record(row("2", "b", 2000));
    ledger.commit(row("3", "a", 3_600_000)).await.unwrap();
    // A second word about the same request replaces the first.
    ledger.commit(Row { outcome: "failed", ..row("3", "a", 3_600_000) }).await.unwrap();
    // A name that a client made up; Postgres takes no zeros.
    ledger.record(Row { cost: None, asked: Some("a\0b".to_owned()), ..row("4", "c", 3000) });
    ledger.close().await;
    let asking = |query: Query| {
        let place = place.clone();
        tokio::task::spawn_blocking(move || ask(&place, &query).unwrap())
    };
    let groups = asking(Query { by: by(&["key"]), ..Query::default() }).await.unwrap();
    assert_eq!(
        groups.iter().map(|g| (&*g.names[0], g.requests)).collect::<Vec<_>>(),
        [("a", 2), ("b", 1), ("c", 1)]
    );
    assert_eq!((groups[0].input, groups[0].cost, groups[2].cost), (20, Some(3_000_000), None));
    assert_eq!((groups[0].unpriced, groups[2].unpriced), (0, 1));
    let groups = asking(Query { by: by(&["outcome", "hour", "label.team", "tier"]), ..Query::default() })
        .await
        .unwrap();
    assert_eq!(groups[0].names, ["failed", "1970-01-01 01", "a, \"b\"", "flex"]);
    assert_eq!(groups[1].requests, 3);
    let one = Query { since: 1500, until: Some(2500), key: Some("b".to_owned()), ..Query::default() };
    assert_eq!(asking(one).await.unwrap()[0].requests, 1);
}

#[tokio::test]
async fn sqlite_keeps_and_sums() {
    let scratch = Scratch::new("sums");
    exercise(&scratch.place()).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "the test command starts a Postgres for it"]
async fn postgres_keeps_and_sums() {
    #[expect(clippy::disallowed_methods, reason = "a test learns from the test command where the server is")]
    let url = std::env::var("GEMWAY_TEST_POSTGRES").expect("GEMWAY_TEST_POSTGRES names a server");
    let schema = format!("ledger_test_{}", std::process::id());
    let admin = connect(&url).await;
    admin
        .batch_execute(&format!("DROP SCHEMA IF EXISTS {schema} CASCADE; CREATE SCHEMA {schema}"))
        .await
        .unwrap();
    let joint = if url.contains('?') { '&' } else { '?' };
    let place = Place::parse(&format!("{url}{joint}options=-c%20search_path%3D{schema}").into()).unwrap();
    let at = place.clone();
    // The driver of a thread of its own must not be dropped inside this runtime.
    exercise(&at).await;
    admin.batch_execute(&format!("DROP SCHEMA {schema} CASCADE")).await.unwrap();
}

async fn connect(url: &str) -> tokio_postgres::Client {
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(async move { connection.await.ok() });
    client
}

#[test]
fn a_newer_file_is_refused_and_an_older_one_upgraded() {
    let scratch = Scratch::new("versions");
    drop(sqlite::Sqlite::open(&scratch.0).unwrap());
    // Opening again changes nothing.
    drop(sqlite::Sqlite::open(&scratch.0).unwrap());
    let file = rusqlite::Connection::open(&scratch.0).unwrap();
    file.execute("INSERT INTO ledger_schema (version) VALUES (99)", []).unwrap();
    let error = sqlite::Sqlite::open(&scratch.0).err().unwrap();
    assert!(error.message().contains("newer gateway (version 99"), "{}", error.message());
    assert!(sqlite::Sqlite::open(Path::new("/nonexistent/x.db")).is_err());
}

/// A database that is away until told.
struct Moody(Arc<std::sync::atomic::AtomicBool>, Arc<parking_lot::Mutex<Vec<String>>>);

impl Book for Moody {
    fn append(&mut self, rows: &[Row], _: bool) -> Result<()> {
        if !self.0.load(std::sync::atomic::Ordering::SeqCst) {
            return Err(unusable("away"));
        }
        self.1.lock().extend(rows.iter().map(|row| row.id.clone()));
        Ok(())
    }
}

#[test]
fn a_lost_database_keeps_rows_waiting_and_fails_whoever_waits() {
    let (up, kept) = (Arc::<std::sync::atomic::AtomicBool>::default(), Arc::default());
    let mut writer = Writer {
        book: Box::new(Moody(Arc::clone(&up), Arc::clone(&kept))),
        waiting: VecDeque::new(),
        away: None,
        durable: false,
        accounts: Accounts::new(),
    };
    let (done, mut told) = oneshot::channel();
    writer.group(vec![row("1", "a", 0)], vec![(row("2", "a", 0), done)]);
    assert_eq!(told.try_recv(), Ok(false));
    assert_eq!(writer.waiting.len(), 1);
    writer.group((0..QUEUE).map(|n| row(&format!("x{n}"), "a", 0)).collect(), Vec::new());
    assert_eq!(writer.waiting.len(), QUEUE);
    up.store(true, std::sync::atomic::Ordering::SeqCst);
    writer.away = writer.away.map(|(since, _)| (since, Instant::now().checked_sub(PAUSE).unwrap()));
    while !writer.waiting.is_empty() {
        writer.group(Vec::new(), Vec::new());
    }
    // The oldest made room; what was told to have failed is not written behind the client's back.
    assert_eq!(kept.lock().len(), QUEUE);
    assert!(!kept.lock().iter().any(|id| id == "1" || id == "2"));
}

#[test]
fn usage_is_shown_in_three_forms() {
    let by = by(&["key", "label.team"]);
    let names = vec!["a".to_owned(), "x,\"y\"".to_owned()];
    let group =
        Group { names, requests: 2, input: 10, tool_use: 1, output: 3, thoughts: 4, ..Group::default() };
    let group = Group { cost: Some(2_500_000), cached: 5, ..group };
    let strange =
        Group { names: vec!["b".to_owned(), String::new()], unpriced: 1, cost: Some(1), ..Group::default() };
    let groups = [group, strange];
    let json: serde_json::Value = serde_json::from_str(&render(&by, &groups, Format::Json)).unwrap();
    assert_eq!(json[0]["input_tokens"], 11);
    assert_eq!(json[0]["output_tokens"], 7);
    assert_eq!(json[0]["reasoning_tokens"], 4);
    assert_eq!(json[0]["cost_usd"], 0.0025);
    assert!(json[1]["cost_usd"].is_null() && json[1]["label.team"].is_null());
    let csv = render(&by, &groups, Format::Csv);
    assert_eq!(
        csv.lines().next(),
        Some("key,label.team,requests,input_tokens,cached_tokens,output_tokens,reasoning_tokens,cost_usd")
    );
    assert_eq!(csv.lines().nth(1), Some("a,\"x,\"\"y\"\"\",2,11,5,7,4,0.0025"));
    let table = render(&by, &groups, Format::Table);
    assert!(table.lines().nth(2).unwrap().ends_with("unknown"), "{table}");
}

#[test]
fn times_are_read() {
    let now = 1_795_219_200_000;
    assert_eq!(instant("24h", now).unwrap(), now - 86_400_000);
    assert_eq!(instant("7d", now).unwrap(), now - 7 * 86_400_000);
    assert_eq!(instant("2026-11-21", 0).unwrap(), now);
    assert_eq!(instant("2026-11-21T01:00:00+01:00", 0).unwrap(), now);
    assert!(instant("yesterday", now).is_err());
    assert!(Dimension::parse("label.a'b").is_err() && Dimension::parse("cost").is_err());
}
