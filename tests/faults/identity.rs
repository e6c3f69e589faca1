//! Who we are to Google when that is somebody else's word: federation and impersonation, over real sockets.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::stage::{END, chat, gateway_in};

/// Google's token service, its IAM and its Vertex, and somebody's identity provider, all at one address.
#[derive(Clone, Default)]
struct World {
    /// Path, authorization and body of every request.
    heard: Arc<Mutex<Vec<(String, String, String)>>>,
}

impl World {
    async fn stand(&self) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let world = self.clone();
        tokio::spawn(async move {
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                let world = world.clone();
                tokio::spawn(async move {
                    let service = service_fn(move |request| {
                        let world = world.clone();
                        async move { Ok::<_, Infallible>(world.answer(request).await) }
                    });
                    hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(socket), service)
                        .await
                });
            }
        });
        address
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let path = request.uri().path().to_owned();
        let who =
            request.headers().get("authorization").map_or("", |value| value.to_str().unwrap()).to_owned();
        let body = gemway::body::read(request.into_body(), 1 << 20).await.unwrap();
        let answer = match path.as_str() {
            "/sts" => json!({ "access_token": "federated", "expires_in": 3600, "token_type": "Bearer" }),
            "/token" => json!({ "access_token": "mine", "expires_in": 3600 }),
            "/subject" => json!({ "jwt": "from-afar" }),
            path if path.ends_with(":generateAccessToken") => {
                json!({ "accessToken": "borrowed", "expireTime": "2099-01-01T00:00:00.5Z" })
            }
            _ => serde_json::from_str(END).unwrap(),
        };
        self.heard.lock().unwrap().push((path, who, String::from_utf8_lossy(&body).into_owned()));
        Response::new(Full::from(answer.to_string()))
    }

    fn said_to(&self, ending: &str) -> (String, String) {
        let heard = self.heard.lock().unwrap();
        let (_, who, body) = heard.iter().rfind(|(path, ..)| path.ends_with(ending)).unwrap();
        (who.clone(), body.clone())
    }
}

struct File(PathBuf);

impl File {
    fn new(name: &str, text: impl AsRef<[u8]>) -> Self {
        let path = std::env::temp_dir().join(format!("gemway-identity-{}-{name}", std::process::id()));
        std::fs::write(&path, text).unwrap();
        Self(path)
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// One request with this credential file; the error's code, if it came to one.
async fn ask(name: &str, world: SocketAddr, credential: &Value, programs: bool) -> Option<String> {
    let file = File::new(name, credential.to_string());
    let toml = format!(
        "[[sites]]\nname = \"v\"\nkind = \"vertex\"\nproject = \"p\"\nlocation = \"global\"\nbase_url = \
         \"http://{world}\"\ncredentials = \"file:{}\"\n",
        file.0.display()
    );
    let env = move |name: &str| {
        (programs && name == "GOOGLE_EXTERNAL_ACCOUNT_ALLOW_EXECUTABLES").then(|| "1".to_owned())
    };
    let gateway = gateway_in(&toml, &env).await;
    let reply = chat(gateway.address, "m", false, "").await;
    assert_eq!(reply.status == 200, reply.code().is_none(), "{reply:?}");
    reply.code()
}

fn federated(world: SocketAddr, source: &Value) -> Value {
    json!({
        "type": "external_account",
        "audience": "//iam.googleapis.com/projects/1/x",
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "token_url": format!("http://{world}/sts"),
        "credential_source": source,
    })
}

#[tokio::test]
async fn a_token_in_a_file_buys_one_of_googles() {
    let world = World::default();
    let address = world.stand().await;
    let subject = File::new("subject", "from-a-file\n");
    let credential = federated(address, &json!({ "file": subject.0 }));
    assert_eq!(ask("file", address, &credential, false).await, None);
    let (_, form) = world.said_to("/sts");
    for pair in [
        "subject_token=from%2Da%2Dfile&",
        "audience=%2F%2Fiam%2Egoogleapis%2Ecom%2Fprojects%2F1%2Fx",
        "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant%2Dtype%3Atoken%2Dexchange",
    ] {
        assert!(form.contains(pair), "{pair}: {form}");
    }
    assert_eq!(world.said_to(":generateContent").0, "Bearer federated");
}

#[tokio::test]
async fn a_token_at_an_address_buys_that_of_a_service_account() {
    let world = World::default();
    let address = world.stand().await;
    let mut credential = federated(
        address,
        &json!({
            "url": format!("http://{address}/subject"),
            "headers": { "Metadata": "True" },
            "format": { "type": "json", "subject_token_field_name": "jwt" },
        }),
    );
    credential["service_account_impersonation_url"] =
        format!("http://{address}/v1/sa@p.iam:generateAccessToken").into();
    assert_eq!(ask("url", address, &credential, false).await, None);
    assert!(world.said_to("/sts").1.contains("subject_token=from%2Dafar&"));
    let (who, body) = world.said_to(":generateAccessToken");
    assert_eq!(who, "Bearer federated");
    assert!(body.contains("cloud-platform"), "{body}");
    assert_eq!(world.said_to(":generateContent").0, "Bearer borrowed");
}

#[tokio::test]
async fn a_program_is_run_only_where_that_is_allowed() {
    let world = World::default();
    let address = world.stand().await;
    let script = File::new(
        "program.sh",
        "#!/bin/sh\nprintf '{\"success\":true,\"version\":1,\"id_token\":\"%s\"}' \"$1-$GOOGLE_EXTERNAL_ACCOUNT_INTERACTIVE\"\n",
    );
    let command = format!("/bin/sh {} printed", script.0.display());
    let credential = federated(address, &json!({ "executable": { "command": command } }));
    assert_eq!(ask("denied", address, &credential, false).await.as_deref(), Some("upstream_auth_error"));
    assert_eq!(ask("allowed", address, &credential, true).await, None);
    assert!(world.said_to("/sts").1.contains("subject_token=printed%2D0&"));
    let credential = federated(address, &json!({ "executable": { "command": "/bin/false" } }));
    assert_eq!(ask("failing", address, &credential, true).await.as_deref(), Some("upstream_auth_error"));
}

#[tokio::test]
async fn a_person_may_act_as_a_service_account() {
    let world = World::default();
    let address = world.stand().await;
    // A person's own token comes from the address in the file.
    let credential = json!({
        "type": "impersonated_service_account",
        "service_account_impersonation_url": format!("http://{address}/v1/sa@p.iam:generateAccessToken"),
        "delegates": ["d"],
        "source_credentials": {
            "type": "authorized_user",
            "client_id": "c",
            "client_secret": "s",
            "refresh_token": "r",
            "token_uri": format!("http://{address}/token"),
        },
    });
    assert_eq!(ask("person", address, &credential, false).await, None);
    let (who, body) = world.said_to(":generateAccessToken");
    assert_eq!(who, "Bearer mine");
    assert!(body.contains(r#""delegates":["d"]"#), "{body}");
    assert_eq!(world.said_to(":generateContent").0, "Bearer borrowed");
}

#[tokio::test]
async fn other_credentials_are_refused_in_words() {
    let world = World::default().stand().await;
    let aws = federated(world, &json!({ "environment_id": "aws1" }));
    assert_eq!(ask("aws", world, &aws, false).await.as_deref(), Some("upstream_auth_error"));
}
