//! Keys from the command line and over the operator's API, in force while gateways run.

use std::time::Duration;

use serde_json::Value;

use super::support::{Gateway, Scratch, chat, fetch, gemway};

async fn command(arguments: &[&str]) -> (bool, String) {
    let output = gemway(arguments).output().await.unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(text).unwrap())
}

async fn status(gateway: &Gateway, secret: &str) -> u16 {
    let key = format!("Bearer {secret}");
    let body = chat("gemini-2.5-flash", "hi", false);
    fetch(gateway.address, "POST", "/v1/chat/completions", &[("authorization", &key)], &body)
        .await
        .unwrap()
        .status
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_made_rotated_and_revoked_while_two_gateways_run() {
    let scratch = Scratch::new();
    let config = format!("[store]\nurl = \"{}\"\n", scratch.ledger());
    let file = scratch.file("keys.toml", &config);
    let file = file.to_str().unwrap();
    let (one, two) = (Gateway::start(&scratch, &config).await, Gateway::start(&scratch, &config).await);
    let create = [
        "keys",
        "create",
        "team-b",
        "--config",
        file,
        "--models",
        "gemini-2.5-*",
        "--requests-per-minute",
        "2",
    ];
    let (made, text) = command(&[&create[..], &["--label", "team=b", "--format", "json"]].concat()).await;
    assert!(made, "{text}");
    let fresh: Value = serde_json::from_str(&text).unwrap();
    let secret = fresh["secret"].as_str().unwrap();
    assert!(secret.starts_with("sk-gw-") && fresh["hash"].as_str().unwrap().starts_with("sha256:"));
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(
        (status(&one, secret).await, status(&two, secret).await, status(&two, "wrong").await),
        (200, 200, 401)
    );
    let (listed, text) = command(&["keys", "list", "--config", file]).await;
    assert!(listed && text.contains("team-b") && !text.contains(secret), "{text}");
    let (again, text) = command(&create).await;
    assert!(!again && text.contains("already"), "{text}");
    let (_, text) = command(&["keys", "rotate", "team-b", "--config", file, "--format", "json"]).await;
    let rotated: Value = serde_json::from_str(&text).unwrap();
    let rotated = rotated["secret"].as_str().unwrap();
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!((status(&one, secret).await, status(&one, rotated).await), (401, 200));
    // Two a minute, and the first process has served two.
    assert_eq!(status(&one, rotated).await, 429);
    assert!(command(&["keys", "revoke", "team-b", "--config", file]).await.0);
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(
        (status(&one, rotated).await, status(&two, rotated).await, status(&two, "").await),
        (401, 401, 401)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operators_api_needs_its_key_and_changes_keys_at_once() {
    let scratch = Scratch::new();
    let config = format!(
        "admin_key = \"operator\"\n[[keys]]\nname = \"books\"\nsecret = \"sk-canary-of-a-client-0123\"\nbudget = {{ tokens = 100000, per = \"day\" }}\n\
         [store]\nurl = \"{0}\"\n[ledger]\nurl = \"{0}\"\n",
        scratch.ledger()
    );
    let gateway = Gateway::start(&scratch, &config).await;
    let admin = async |method: &str, path: &str, body: &str| {
        fetch(gateway.admin, method, path, &[("authorization", "Bearer operator")], body).await.unwrap()
    };
    for key in ["Bearer sk-canary-of-a-client-0123", "Bearer ", "operator"] {
        let answer =
            fetch(gateway.admin, "GET", "/admin/v1/keys", &[("authorization", key)], "").await.unwrap();
        assert_eq!(answer.status, 401);
    }
    assert_eq!(
        fetch(gateway.address, "GET", "/admin/v1/keys", &[("authorization", "Bearer operator")], "")
            .await
            .unwrap()
            .status,
        404
    );
    let made = admin("POST", "/admin/v1/keys", r#"{"name":"new","requests_per_minute":5}"#).await;
    assert_eq!(made.status, 201, "{}", made.body);
    let secret = made.json()["secret"].as_str().unwrap().to_owned();
    assert_eq!(
        (status(&gateway, &secret).await, status(&gateway, "sk-canary-of-a-client-0123").await),
        (200, 200)
    );
    assert_eq!(admin("POST", "/admin/v1/keys", r#"{"name":"x","requests_per_minut":5}"#).await.status, 400);
    assert_eq!(admin("POST", "/admin/v1/keys", r#"{"name":"books"}"#).await.status, 409);
    let keys = admin("GET", "/admin/v1/keys", "").await;
    assert!(
        !keys.body.contains(&secret) && keys.json()["keys"].as_array().unwrap().len() == 2,
        "{}",
        keys.body
    );
    let books = admin("GET", "/admin/v1/keys/books", "").await.json();
    assert!(books["budget"]["spent_tokens"].as_u64().unwrap() > 0, "{books}");
    assert_eq!(admin("DELETE", "/admin/v1/keys/new", "").await.status, 200);
    assert_eq!(
        (status(&gateway, &secret).await, admin("DELETE", "/admin/v1/keys/new", "").await.status),
        (401, 404)
    );
    assert_eq!(admin("GET", "/admin/v1/sites", "").await.json()["simulator"], true);
    assert_eq!(admin("GET", "/admin/openapi.json", "").await.json()["openapi"], "3.1.0");
    tokio::time::sleep(Duration::from_millis(300)).await;
    let usage = admin("GET", "/admin/v1/usage?by=key&since=1h", "").await.json();
    assert_eq!(usage["data"].as_array().unwrap().len(), 2, "{usage}");
    assert_eq!(admin("GET", "/admin/v1/usage?by=colour", "").await.status, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_secret_may_live_on_for_a_while_and_a_broken_key_harms_no_other() {
    let scratch = Scratch::new();
    let config = format!("[store]\nurl = \"{}\"\n", scratch.ledger());
    let file = scratch.file("keys.toml", &config);
    let file = file.to_str().unwrap();
    let gateway = Gateway::start(&scratch, &config).await;
    let make = async |arguments: &[&str]| -> Value {
        let (made, text) =
            command(&[&["keys", "--config", file, "--format", "json"], arguments].concat()).await;
        assert!(made, "{text}");
        serde_json::from_str(&text).unwrap()
    };
    let secret = |made: &Value| made["secret"].as_str().unwrap().to_owned();
    let first = secret(&make(&["create", "team-b", "--expires", "90d"]).await);
    let other = secret(&make(&["create", "team-c", "--credentials", "caller"]).await);
    let second = secret(&make(&["rotate", "team-b", "--grace", "5s"]).await);
    tokio::time::sleep(Duration::from_millis(1200)).await;
    assert_eq!((status(&gateway, &first).await, status(&gateway, &second).await), (200, 200));
    // Its own credential goes to Google, which OpenAI's endpoints cannot do.
    assert_eq!(status(&gateway, &other).await, 403);
    tokio::time::sleep(Duration::from_millis(4500)).await;
    assert_eq!((status(&gateway, &first).await, status(&gateway, &second).await), (401, 200));
    let third = secret(&make(&["rotate", "team-b"]).await);
    // What a newer release may have written.
    let base = rusqlite::Connection::open(scratch.0.join("gemway.db")).unwrap();
    base.execute("UPDATE client_keys SET spec = '{\"colour\":1}' WHERE name = 'team-c'", []).unwrap();
    base.execute("UPDATE client_keys_state SET revision = revision + 1", []).unwrap();
    tokio::time::sleep(Duration::from_millis(1200)).await;
    let seen =
        (status(&gateway, &second).await, status(&gateway, &third).await, status(&gateway, &other).await);
    assert_eq!(seen, (401, 200, 401));
    base.execute("DELETE FROM client_keys WHERE name = 'team-b'", []).unwrap();
    base.execute("UPDATE client_keys_state SET revision = revision + 1", []).unwrap();
    tokio::time::sleep(Duration::from_millis(1200)).await;
    assert_eq!(status(&gateway, "").await, 401, "a store of broken keys lets nobody in without one");
    for wrong in [["create", "x", "--expires", "2020-01-01"], ["rotate", "team-b", "--grace", "ages"]] {
        assert!(!command(&[&["keys", "--config", file][..], &wrong].concat()).await.0, "{wrong:?}");
    }
}
