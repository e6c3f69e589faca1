//! State through the binary: what is kept, for whom, and what a sudden death leaves of it.

#![expect(clippy::unwrap_used, clippy::panic, reason = "tests fail that way")]

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
