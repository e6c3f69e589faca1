//! State through the binary: what is kept, for whom, and what a sudden death leaves of it.

#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests fail that way")]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

const CONFIG: &str = r#"
[[keys]]
name = "a"
secret = "sk-a-0123456789abcdef"

[[keys]]
name = "b"
secret = "sk-b-0123456789abcdef"
"#;

const A: &str = "sk-a-0123456789abcdef";
const B: &str = "sk-b-0123456789abcdef";

/// A running gateway; killed when dropped.
struct Gateway {
    child: Child,
    address: String,
    folder: PathBuf,
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn folder(name: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("gemway-state-{name}-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

fn port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn launch(folder: &Path, more: &str) -> Gateway {
    std::fs::write(folder.join("gemway.toml"), format!("{CONFIG}{more}")).unwrap();
    let (address, admin) = (format!("127.0.0.1:{}", port()), format!("127.0.0.1:{}", port()));
    let log = std::fs::File::options().create(true).append(true).open(folder.join("log")).unwrap();
    let child = Command::new(env!("CARGO_BIN_EXE_gemway"))
        .arg("serve")
        .env_clear()
        .envs([
            ("GEMWAY_CONFIG", "gemway.toml"),
            ("GEMWAY_LISTEN", &address),
            ("GEMWAY_ADMIN_LISTEN", &admin),
        ])
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap();
    let gateway = Gateway { child, address, folder: folder.to_owned() };
    let began = Instant::now();
    while TcpStream::connect(&gateway.address).is_err() {
        assert!(
            began.elapsed() < Duration::from_secs(20),
            "it did not start: {}",
            std::fs::read_to_string(folder.join("log")).unwrap()
        );
        std::thread::yield_now();
    }
    gateway
}

impl Gateway {
    fn raw(&self, key: &str, method: &str, path: &str, body: &str) -> String {
        let mut socket = TcpStream::connect(&self.address).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\nconnection: close\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        socket.write_all(head.as_bytes()).unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        answer
    }

    fn call(&self, key: &str, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let answer = self.raw(key, method, path, &body);
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {answer}")))
    }

    fn ok(&self, key: &str, method: &str, path: &str, body: &Value) -> Value {
        let (status, answer) = self.call(key, method, path, body);
        assert_eq!(status, 200, "{method} {path}: {answer}");
        answer
    }

    /// As by the kernel: no goodbye.
    fn kill(mut self) -> PathBuf {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.folder.clone()
    }
}

const SQLITE: &str = "[store]\nurl = \"sqlite:state.db\"\n";

#[test]
fn conversations_live_through_a_sudden_death_and_belong_to_one_key() {
    let gateway = launch(&folder("conversations"), SQLITE);
    let body = json!({"metadata": {"k": "v"}, "items": [{"role": "user", "content": "one"}]});
    let made = gateway.ok(A, "POST", "/v1/conversations", &body);
    assert_eq!((&made["object"], &made["metadata"]["k"]), (&json!("conversation"), &json!("v")));
    let path = format!("/v1/conversations/{}", made["id"].as_str().unwrap());
    let more = json!({"items": [
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "two"}]},
        {"type": "function_call_output", "call_id": "call_1", "output": "three"},
    ]});
    let added = gateway.ok(A, "POST", &format!("{path}/items"), &more);
    assert_eq!(added["data"].as_array().unwrap().len(), 2);
    let gateway = launch(&gateway.kill(), SQLITE);

    let list = gateway.ok(A, "GET", &format!("{path}/items?order=asc&limit=2"), &Value::Null);
    assert_eq!(
        (list["data"][0]["content"][0]["text"].as_str(), &list["has_more"]),
        (Some("one"), &json!(true))
    );
    let last = list["last_id"].as_str().unwrap();
    let rest = gateway.ok(A, "GET", &format!("{path}/items?order=asc&after={last}"), &Value::Null);
    assert_eq!((rest["data"][0]["output"].as_str(), &rest["has_more"]), (Some("three"), &json!(false)));
    let item = rest["data"][0]["id"].as_str().unwrap();
    assert!(item.starts_with("fco_"), "{item}");

    // Another key's conversation does not exist, and its items do not either.
    for (method, path) in [
        ("GET", path.clone()),
        ("DELETE", path.clone()),
        ("GET", format!("{path}/items")),
        ("GET", format!("{path}/items/{item}")),
        ("DELETE", format!("{path}/items/{item}")),
    ] {
        let (status, answer) = gateway.call(B, method, &path, &Value::Null);
        assert_eq!(
            (status, &answer["error"]["type"]),
            (404, &json!("invalid_request_error")),
            "{method} {path}"
        );
    }
    assert_eq!(gateway.call(B, "POST", &format!("{path}/items"), &more).0, 404);
    assert_eq!(gateway.call(B, "POST", &path, &json!({"metadata": {}})).0, 404);

    assert_eq!(gateway.ok(A, "POST", &path, &json!({"metadata": {"k": "w"}}))["metadata"]["k"], "w");
    assert_eq!(gateway.ok(A, "GET", &format!("{path}/items/{item}"), &Value::Null)["output"], "three");
    assert_eq!(gateway.ok(A, "DELETE", &format!("{path}/items/{item}"), &Value::Null)["metadata"]["k"], "w");
    assert_eq!(gateway.call(A, "GET", &format!("{path}/items/{item}"), &Value::Null).0, 404);
    assert_eq!(gateway.ok(A, "DELETE", &path, &Value::Null)["deleted"], true);
    assert_eq!(gateway.call(A, "GET", &path, &Value::Null).0, 404);

    for (wrong, param) in [
        (json!({"metadata": {"k": 1}}), "metadata"),
        (json!({"items": "x"}), "items"),
        (json!({"items": [1]}), "items[0]"),
        (json!({"items": vec![json!({"role": "user", "content": "x"}); 21]}), "items"),
    ] {
        let (status, answer) = gateway.call(A, "POST", "/v1/conversations", &wrong);
        assert_eq!((status, &answer["error"]["param"]), (400, &json!(param)), "{answer}");
    }
    let folder = gateway.kill();
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn without_a_store_a_conversation_is_a_400_that_says_how_to_get_one() {
    let gateway = launch(&folder("none"), "");
    let (status, answer) = gateway.call(A, "POST", "/v1/conversations", &json!({}));
    assert_eq!((status, &answer["error"]["code"]), (400, &json!("store_not_configured")));
    assert!(answer["error"]["message"].as_str().unwrap().contains("[store]"), "{answer}");
    let folder = gateway.kill();
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_store_that_cannot_be_used_ends_the_start() {
    let folder = folder("unusable");
    std::fs::write(folder.join("state.db"), "no database at all, but a text of some length").unwrap();
    std::fs::write(folder.join("gemway.toml"), SQLITE).unwrap();
    let ended = Command::new(env!("CARGO_BIN_EXE_gemway"))
        .arg("serve")
        .env_clear()
        .envs([("GEMWAY_CONFIG", "gemway.toml"), ("GEMWAY_LISTEN", "127.0.0.1:0")])
        .env("GEMWAY_ADMIN_LISTEN", "127.0.0.1:0")
        .current_dir(&folder)
        .output()
        .unwrap();
    assert!(!ended.status.success());
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(said.contains("not a database"), "{said}");
    std::fs::remove_dir_all(folder).unwrap();
}

/// Slow enough that a test can do something in the middle.
const SLOW: &str = "[simulator]\ntime_to_first_token = \"20ms\"\ntokens_per_second = 40\n";

/// What takes the simulator, which repeats it, some ten seconds.
fn long() -> String {
    "Count slowly from one to one hundred, with a sentence for each number, please. ".repeat(25)
}

fn path(response: &Value) -> String {
    format!("/v1/responses/{}", response["id"].as_str().unwrap())
}

impl Gateway {
    fn background(&self, more: &Value) -> Value {
        let mut body = json!({"model": "gemini-3.8-flash", "input": long(), "background": true});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let queued = self.ok(A, "POST", "/v1/responses", &body);
        assert_eq!((&queued["status"], &queued["background"]), (&json!("queued"), &json!(true)), "{queued}");
        queued
    }

    /// Polls as clients do.
    fn until(&self, path: &str, done: impl Fn(&Value) -> bool) -> Value {
        let began = Instant::now();
        loop {
            let response = self.ok(A, "GET", path, &Value::Null);
            if done(&response) {
                return response;
            }
            assert!(began.elapsed() < Duration::from_secs(30), "{response}");
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }
}

fn over(response: &Value) -> bool {
    !matches!(response["status"].as_str(), Some("queued" | "in_progress"))
}

fn numbers(answer: &str) -> Vec<u64> {
    let data = answer.lines().filter_map(|line| line.strip_prefix("data: "));
    data.map(|data| serde_json::from_str::<Value>(data).unwrap()["sequence_number"].as_u64().unwrap())
        .collect()
}

#[test]
fn responses_are_kept_continued_listed_and_deleted() {
    let gateway = launch(&folder("responses"), SQLITE);
    let body = json!({"model": "gemini-3.8-flash", "input": "My name is Ada.", "metadata": {"k": "v"}});
    let first = gateway.ok(A, "POST", "/v1/responses", &body);
    assert_eq!((&first["store"], &first["status"]), (&json!(true), &json!("completed")));
    assert_eq!(gateway.ok(A, "GET", &path(&first), &Value::Null), first);
    let id = first["id"].as_str().unwrap();
    let next = json!({
        "model": "gemini-3.8-flash", "input": [{"role": "user", "content": "Who am I?"}], "stream": true,
        "previous_response_id": id,
    });
    let streamed = gateway.raw(A, "POST", "/v1/responses", &next.to_string());
    let last = streamed.lines().rfind(|line| line.starts_with("data: ")).unwrap();
    let last: Value = serde_json::from_str(&last[6..]).unwrap();
    assert_eq!(last["type"], "response.completed", "{streamed}");
    let second = last["response"].clone();
    // It is kept before its end is told, so it is there at once; and after a sudden death.
    assert_eq!(gateway.ok(A, "GET", &path(&second), &Value::Null), second);
    let gateway = launch(&gateway.kill(), SQLITE);
    assert_eq!(gateway.ok(A, "GET", &path(&second), &Value::Null), second);
    let whole = |response: &Value| response["usage"]["input_tokens"].as_u64().unwrap();
    assert!(whole(&second) > whole(&first), "the second stands on the first");

    let list = gateway.ok(A, "GET", &format!("{}/input_items", path(&second)), &Value::Null);
    assert_eq!(list["data"][0]["content"][0]["text"], "Who am I?");
    assert_eq!(list["data"].as_array().unwrap().len(), 1);

    // An item can be named instead of being sent.
    let item = first["output"].as_array().unwrap().last().unwrap()["id"].clone();
    let named = json!({"model": "gemini-3.8-flash", "input": [
        {"role": "user", "content": "Hello"}, {"type": "item_reference", "id": item}, {"role": "user", "content": "And?"},
    ]});
    let third = gateway.ok(A, "POST", "/v1/responses", &named);
    let list = gateway.ok(A, "GET", &format!("{}/input_items?order=asc", path(&third)), &Value::Null);
    assert_eq!(list["data"][1]["id"], item);

    for (method, path) in [
        ("GET", path(&first)),
        ("DELETE", path(&first)),
        ("GET", format!("{}/input_items", path(&first))),
        ("POST", format!("{}/cancel", path(&first))),
    ] {
        assert_eq!(gateway.call(B, method, &path, &Value::Null).0, 404, "{method} {path}");
    }
    let (status, answer) = gateway.call(B, "POST", "/v1/responses", &next);
    assert_eq!((status, &answer["error"]["code"]), (400, &json!("previous_response_not_found")));
    assert_eq!(gateway.call(B, "POST", "/v1/responses", &named).0, 404);
    let (status, answer) = gateway.call(A, "POST", &format!("{}/cancel", path(&first)), &Value::Null);
    assert_eq!((status, answer["error"]["message"].as_str().unwrap().contains("synchronous")), (400, true));

    assert_eq!(gateway.ok(A, "DELETE", &path(&first), &Value::Null)["deleted"], true);
    assert_eq!(gateway.call(A, "GET", &path(&first), &Value::Null).0, 404);
    let (status, answer) = gateway.call(A, "POST", "/v1/responses", &next);
    assert_eq!((status, &answer["error"]["code"]), (400, &json!("previous_response_not_found")), "{answer}");

    let body = json!({"model": "gemini-3.8-flash", "input": "x", "store": false});
    let unkept = gateway.ok(A, "POST", "/v1/responses", &body);
    assert_eq!(unkept["store"], false);
    assert_eq!(gateway.call(A, "GET", &path(&unkept), &Value::Null).0, 404);
    std::fs::remove_dir_all(gateway.kill()).unwrap();
}

#[test]
fn a_conversation_grows_with_its_responses() {
    let gateway = launch(&folder("grows"), "[store]\nurl = \"memory:\"\n");
    let made =
        gateway.ok(A, "POST", "/v1/conversations", &json!({"items": [{"role": "user", "content": "one"}]}));
    let items = format!("/v1/conversations/{}/items?order=asc", made["id"].as_str().unwrap());
    let body = json!({"model": "gemini-3.8-flash", "input": "two", "conversation": made["id"]});
    let first = gateway.ok(A, "POST", "/v1/responses", &body);
    assert_eq!(first["conversation"]["id"], made["id"]);
    let body = json!({
        "model": "gemini-3.8-flash", "input": "three", "conversation": {"id": made["id"]}, "store": false,
    });
    gateway.ok(A, "POST", "/v1/responses", &body);
    let list = gateway.ok(A, "GET", &items, &Value::Null);
    let said: Vec<_> =
        list["data"].as_array().unwrap().iter().filter(|item| item["role"] == "user").collect();
    assert_eq!(said.len(), 3, "{list}");
    assert!(list["data"].as_array().unwrap().iter().any(|item| item["id"] == first["output"][0]["id"]));
    let (status, _) = gateway.call(B, "POST", "/v1/responses", &body);
    assert_eq!(status, 404);
    let both = json!({
        "model": "gemini-3.8-flash", "input": "x", "conversation": made["id"], "previous_response_id": first["id"],
    });
    let (status, answer) = gateway.call(A, "POST", "/v1/responses", &both);
    assert_eq!((status, &answer["error"]["code"]), (400, &json!("mutually_exclusive_parameters")));
    std::fs::remove_dir_all(gateway.kill()).unwrap();
}

#[test]
fn background_work_is_polled_followed_and_cancelled() {
    let gateway = launch(&folder("background"), &format!("{SQLITE}{SLOW}"));
    let queued = gateway.background(&json!({"max_output_tokens": 20}));
    let done = gateway.until(&path(&queued), over);
    assert!(["completed", "incomplete"].contains(&done["status"].as_str().unwrap()), "{done}");
    assert!(done["usage"]["output_tokens"].as_u64().unwrap() > 0);
    let (status, answer) = gateway.call(A, "GET", &format!("{}?stream=true", path(&queued)), &Value::Null);
    assert_eq!((status, &answer["error"]["param"]), (400, &json!("stream")), "it was made without a stream");

    // A stream that is left goes on, and is found again at any number.
    let body = json!({"model": "gemini-3.8-flash", "input": long(), "background": true, "stream": true, "max_output_tokens": 40});
    let whole = gateway.raw(A, "POST", "/v1/responses", &body.to_string());
    let all = numbers(&whole);
    assert!(all.len() > 8 && all.iter().copied().eq(0..all.len() as u64), "{whole}");
    let created: Value =
        serde_json::from_str(&whole.lines().find(|line| line.starts_with("data: ")).unwrap()[6..]).unwrap();
    assert_eq!(
        (&created["type"], &created["response"]["status"]),
        (&json!("response.created"), &json!("queued"))
    );
    let resumed = format!("{}?stream=true&starting_after=4", path(&created["response"]));
    let rest = gateway.raw(A, "GET", &resumed, "");
    assert_eq!(numbers(&rest), all[5..], "{rest}");
    let again = gateway.raw(A, "GET", &format!("{}?stream=true", path(&created["response"])), "");
    assert_eq!(numbers(&again), all);
    assert_eq!(gateway.raw(B, "GET", &resumed, "").split(' ').nth(1), Some("404"));

    let queued = gateway.background(&json!({"stream": false}));
    gateway.until(&path(&queued), |response| response["status"] == "in_progress");
    let cancelled = gateway.ok(A, "POST", &format!("{}/cancel", path(&queued)), &Value::Null);
    assert_eq!(cancelled["status"], "cancelled");
    assert_eq!(gateway.ok(A, "POST", &format!("{}/cancel", path(&queued)), &Value::Null), cancelled);
    assert_eq!(gateway.ok(A, "GET", &path(&queued), &Value::Null), cancelled);

    let queued = gateway.background(&json!({}));
    assert_eq!(gateway.ok(A, "DELETE", &path(&queued), &Value::Null)["deleted"], true);
    assert_eq!(gateway.call(A, "GET", &path(&queued), &Value::Null).0, 404);

    // What is wrong is said at once.
    let wrong = json!({"model": "gemini-3.8-flash", "input": "x", "background": true, "temperature": 9});
    assert_eq!(gateway.call(A, "POST", "/v1/responses", &wrong).0, 400);
    std::fs::remove_dir_all(gateway.kill()).unwrap();
}

#[test]
fn a_sudden_death_fails_background_work_and_nothing_hangs() {
    let config = format!("{SQLITE}{SLOW}");
    let gateway = launch(&folder("death"), &config);
    let plain = gateway.background(&json!({}));
    gateway.until(&path(&plain), |response| response["status"] == "in_progress");
    let mut socket = TcpStream::connect(&gateway.address).unwrap();
    let body =
        json!({"model": "gemini-3.8-flash", "input": long(), "background": true, "stream": true}).to_string();
    let head = format!(
        "POST /v1/responses HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {A}\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    socket.write_all(head.as_bytes()).unwrap();
    let mut seen = String::new();
    while !seen.contains("output_text.delta") {
        let mut piece = [0; 4096];
        let count = socket.read(&mut piece).unwrap();
        assert!(count > 0, "{seen}");
        seen.push_str(&String::from_utf8_lossy(&piece[..count]));
    }
    let id = seen.split("\"id\":\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
    let gateway = launch(&gateway.kill(), &config);

    let failed = gateway.ok(A, "GET", &path(&plain), &Value::Null);
    assert_eq!(
        (&failed["status"], &failed["error"]["code"]),
        (&json!("failed"), &json!("server_error")),
        "{failed}"
    );
    let answer = gateway.raw(A, "GET", &format!("/v1/responses/{id}?stream=true"), "");
    let all = numbers(&answer);
    assert!(all.len() > 5 && all.iter().copied().eq(0..all.len() as u64), "{answer}");
    assert!(answer.contains("event: response.failed"), "{answer}");
    std::fs::remove_dir_all(gateway.kill()).unwrap();
}

#[test]
fn a_shutdown_waits_for_background_work_and_then_marks_it() {
    let config = format!("{SQLITE}{SLOW}[server]\ndrain_timeout = \"1s\"\n");
    let mut gateway = launch(&folder("shutdown"), &config);
    let short = gateway.background(&json!({"max_output_tokens": 8}));
    let long = gateway.background(&json!({}));
    gateway.until(&path(&long), |response| response["status"] == "in_progress");
    let told = Command::new("kill").arg("-TERM").arg(gateway.child.id().to_string()).status().unwrap();
    assert!(told.success());
    assert!(gateway.child.wait().unwrap().success());
    let gateway = launch(&gateway.folder.clone(), &config);
    let short = gateway.ok(A, "GET", &path(&short), &Value::Null);
    assert!(["completed", "incomplete"].contains(&short["status"].as_str().unwrap()), "{short}");
    let long = gateway.ok(A, "GET", &path(&long), &Value::Null);
    assert_eq!(long["status"], "failed", "{long}");
    assert!(long["error"]["message"].as_str().unwrap().contains("shut down"), "{long}");
    std::fs::remove_dir_all(gateway.kill()).unwrap();
}

#[test]
fn without_a_store_items_are_remembered_and_the_rest_is_refused_in_words() {
    let gateway = launch(&folder("storeless"), "");
    let first = gateway.ok(A, "POST", "/v1/responses", &json!({"model": "gemini-3.8-flash", "input": "Hi"}));
    assert_eq!(first["store"], false, "nothing is kept, and that is said");
    let item = first["output"].as_array().unwrap().last().unwrap()["id"].clone();
    let named = json!({"model": "gemini-3.8-flash", "input": [
        {"role": "user", "content": "Hi"}, {"type": "item_reference", "id": item}, {"role": "user", "content": "And?"},
    ]});
    gateway.ok(A, "POST", "/v1/responses", &named);
    let (status, answer) = gateway.call(B, "POST", "/v1/responses", &named);
    assert_eq!((status, answer["error"]["message"].as_str().unwrap().contains("not found")), (404, true));
    let previous = json!({"model": "gemini-3.8-flash", "input": "x", "previous_response_id": first["id"]});
    let (status, answer) = gateway.call(A, "POST", "/v1/responses", &previous);
    assert_eq!((status, &answer["error"]["code"]), (400, &json!("previous_response_not_found")));
    assert!(answer["error"]["message"].as_str().unwrap().contains("[store]"), "{answer}");
    for (field, value) in [("background", json!(true)), ("conversation", json!("conv_1"))] {
        let body = json!({"model": "gemini-3.8-flash", "input": "x", field: value});
        let (status, answer) = gateway.call(A, "POST", "/v1/responses", &body);
        assert_eq!((status, &answer["error"]["param"]), (400, &json!(field)), "{answer}");
    }
    assert_eq!(gateway.call(A, "GET", &path(&first), &Value::Null).0, 404);
    std::fs::remove_dir_all(gateway.kill()).unwrap();
}

/// A schema of this test's own on the server that `GEMWAY_TEST_POSTGRES` names, as a `[store]`.
fn postgres(name: &str) -> String {
    let url = std::env::vars().find(|(variable, _)| variable == "GEMWAY_TEST_POSTGRES");
    let Some((_, url)) = url else { panic!("GEMWAY_TEST_POSTGRES names no server") };
    let schema = format!("gemway_{name}_{}", std::process::id());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(connection);
        client
            .batch_execute(&format!("DROP SCHEMA IF EXISTS {schema} CASCADE; CREATE SCHEMA {schema}"))
            .await
            .unwrap();
    });
    let sign = if url.contains('?') { '&' } else { '?' };
    format!("[store]\nurl = \"{url}{sign}options=-csearch_path%3D{schema}\"\n")
}

#[test]
#[ignore = "needs GEMWAY_TEST_POSTGRES; scripts/test starts a server"]
fn two_replicas_share_postgres() {
    let config = format!("{}{SLOW}", postgres("replicas"));
    let one = launch(&folder("replica-one"), &config);
    let two = launch(&folder("replica-two"), &config);
    let first = one.ok(A, "POST", "/v1/responses", &json!({"model": "gemini-3.8-flash", "input": "Hi"}));
    assert_eq!(two.ok(A, "GET", &path(&first), &Value::Null), first);
    let next = json!({"model": "gemini-3.8-flash", "input": "And?", "previous_response_id": first["id"]});
    two.ok(A, "POST", "/v1/responses", &next);

    // What one makes, the other follows.
    let queued = one.background(&json!({"max_output_tokens": 20}));
    two.until(&path(&queued), over);
    let body = json!({
        "model": "gemini-3.8-flash", "input": long(), "background": true, "stream": true, "max_output_tokens": 40,
    });
    let whole = one.raw(A, "POST", "/v1/responses", &body.to_string());
    let id = whole.split("\"id\":\"").nth(1).unwrap().split('"').next().unwrap();
    let seen = two.raw(A, "GET", &format!("/v1/responses/{id}?stream=true"), "");
    assert_eq!(numbers(&seen), numbers(&whole));

    // A cancel reaches whoever works on it.
    let queued = one.background(&json!({}));
    one.until(&path(&queued), |response| response["status"] == "in_progress");
    let cancelled = two.ok(A, "POST", &format!("{}/cancel", path(&queued)), &Value::Null);
    assert_eq!(cancelled["status"], "cancelled");
    assert_eq!(one.ok(A, "GET", &path(&queued), &Value::Null)["status"], "cancelled");

    // And a death is noticed when the lease ends.
    let queued = one.background(&json!({"input": long().repeat(5)}));
    one.until(&path(&queued), |response| response["status"] == "in_progress");
    std::fs::remove_dir_all(one.kill()).unwrap();
    let failed = two.until(&path(&queued), over);
    assert_eq!(failed["status"], "failed", "{failed}");
    std::fs::remove_dir_all(two.kill()).unwrap();
}
