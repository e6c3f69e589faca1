//! The running binary as an operator sees it: TLS, client certificates, and a configuration that changes under
//! load.

#![expect(clippy::unwrap_used, clippy::panic, reason = "tests fail that way")]

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

const SECRET: &str = "a-client-key-of-some-length";

/// A folder that goes with the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("gemway-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        // Beside and renamed, as editors and ConfigMaps do: nobody reads half a file.
        let (path, beside) = (self.0.join(name), self.0.join(format!(".{name}.new")));
        std::fs::write(&beside, text).unwrap();
        std::fs::rename(&beside, &path).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// The binary, killed with the test.
struct Gemway {
    child: Child,
    address: SocketAddr,
    admin: SocketAddr,
}

impl Gemway {
    async fn start(config: &Path) -> Self {
        let (address, admin) = (free(), free());
        let child = Command::new(env!("CARGO_BIN_EXE_gemway"))
            .args(["serve", "--config"])
            .arg(config)
            .args(["--listen", &address.to_string(), "--admin-listen", &admin.to_string()])
            .env_clear()
            .env("GEMWAY_SIMULATOR_TTFT", "0ms")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let this = Self { child, address, admin };
        for _ in 0..200 {
            if TcpStream::connect(this.admin).await.is_ok() {
                return this;
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        panic!("the gateway did not start");
    }

    fn signal(&self, name: &str) {
        let done = Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status();
        assert!(done.unwrap().success());
    }

    async fn metrics(&self) -> String {
        let mut socket = TcpStream::connect(self.admin).await.unwrap();
        say(&mut socket, "GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await
    }

    async fn reloads(&self, result: &str) -> u64 {
        let line = format!(r#"gemway_config_reloads_total{{result="{result}"}} "#);
        let text = self.metrics().await;
        let count = text.lines().find_map(|found| found.strip_prefix(&line));
        count.map_or(0, |count| count.trim().parse().unwrap())
    }

    /// SIGHUP, and the wait until it was heeded.
    async fn reload(&self, result: &str) {
        let before = self.reloads(result).await;
        self.signal("HUP");
        for _ in 0..400 {
            if self.reloads(result).await > before {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("not {result} within four seconds");
    }

    async fn ask(&self, model: &str) -> String {
        ask(TcpStream::connect(self.address).await.unwrap(), model).await
    }
}

impl Drop for Gemway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn ask(mut socket: impl AsyncRead + AsyncWrite + Unpin, model: &str) -> String {
    let body = format!(r#"{{"model":"{model}","messages":[{{"role":"user","content":"Hello"}}]}}"#);
    let request = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\nauthorization: Bearer {SECRET}\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    say(&mut socket, &request).await
}

async fn say(socket: &mut (impl AsyncRead + AsyncWrite + Unpin), request: &str) -> String {
    let mut answer = Vec::new();
    // What matters is what came back, however the connection ends.
    let _ = socket.write_all(request.as_bytes()).await;
    let _ = socket.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

fn config(alias: &str, rest: &str) -> String {
    format!(
        "[[keys]]\nname = \"team\"\nsecret = \"{SECRET}\"\n[aliases]\n\"{alias}\" = \"gemini-2.5-flash\"\n[simulator]\ntime_to_first_token = \"0ms\"\ntokens_per_second = 0\n{rest}"
    )
}

#[tokio::test]
async fn a_hundred_reloads_fail_no_request() {
    let folder = Folder::new("reload");
    let path = folder.write("gemway.toml", &config("always", ""));
    let gateway = Arc::new(Gemway::start(&path).await);
    let load = {
        let gateway = Arc::clone(&gateway);
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let running = tokio::spawn(async move {
            let mut stopped = stopped;
            let (mut served, mut failed) = (0_u32, Vec::new());
            while stopped.try_recv().is_err() {
                let answer = gateway.ask("gemini-2.5-flash").await;
                if answer.starts_with("HTTP/1.1 200") { served += 1 } else { failed.push(answer) }
            }
            (served, failed)
        });
        (stop, running)
    };
    for turn in 0..50 {
        let alias = format!("alias-{turn}");
        folder.write("gemway.toml", &config(&alias, ""));
        gateway.reload("taken").await;
        assert!(gateway.ask(&alias).await.starts_with("HTTP/1.1 200"), "{alias} is not in force");
        folder.write("gemway.toml", &config("other", "[sites]\nnonsense = 1\n"));
        gateway.reload("refused").await;
        assert!(gateway.ask(&alias).await.starts_with("HTTP/1.1 200"), "{alias} was lost");
    }
    let (stop, running) = load;
    stop.send(()).unwrap();
    let (served, failed) = running.await.unwrap();
    assert!(failed.is_empty(), "{} of {served} failed, the first: {}", failed.len(), failed[0]);
    assert!(served > 50, "only {served} requests beside the reloads");
}

#[tokio::test]
async fn a_changed_file_is_noticed_through_a_link() {
    let folder = Folder::new("watch");
    for (version, alias) in [("v1", "first"), ("v2", "second")] {
        std::fs::create_dir_all(folder.0.join(version)).unwrap();
        folder.write(&format!("{version}/gemway.toml").replace('/', "-"), "");
        std::fs::write(folder.0.join(version).join("gemway.toml"), config(alias, "")).unwrap();
    }
    // A ConfigMap's volume: the file is reached through a link that is swapped.
    let data = folder.0.join("..data");
    std::os::unix::fs::symlink("v1", &data).unwrap();
    let gateway = Gemway::start(&data.join("gemway.toml")).await;
    assert!(gateway.ask("first").await.starts_with("HTTP/1.1 200"));
    std::os::unix::fs::symlink("v2", folder.0.join("..new")).unwrap();
    std::fs::rename(folder.0.join("..new"), &data).unwrap();
    for _ in 0..100 {
        if gateway.reloads("taken").await > 0 {
            assert!(gateway.ask("second").await.starts_with("HTTP/1.1 200"));
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("the change was not noticed");
}

/// A certificate for `localhost` and whoever signed it, as PEM.
struct Signed {
    cert: String,
    key: String,
}

fn self_signed() -> Signed {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    Signed { cert: made.cert.pem(), key: made.signing_key.serialize_pem() }
}

async fn shake(
    address: SocketAddr,
    trusted: &str,
    mine: Option<&Signed>,
) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(trusted.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let config = match mine {
        None => builder.with_no_client_auth(),
        Some(mine) => {
            let cert = CertificateDer::from_pem_slice(mine.cert.as_bytes()).unwrap();
            let key = PrivateKeyDer::from_pem_slice(mine.key.as_bytes()).unwrap();
            builder.with_client_auth_cert(vec![cert], key).unwrap()
        }
    };
    let socket = TcpStream::connect(address).await?;
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, socket).await
}

#[tokio::test]
async fn certificates_are_shown_asked_for_and_replaced() {
    let folder = Folder::new("tls");
    let (first, second, client) = (self_signed(), self_signed(), self_signed());
    let put =
        |signed: &Signed| (folder.write("cert.pem", &signed.cert), folder.write("key.pem", &signed.key));
    let (cert, key) = put(&first);
    let ca = folder.write("ca.pem", &client.cert);
    let tls = format!("[tls]\ncert = {cert:?}\nkey = {key:?}\nclient_ca = {ca:?}\n");
    let path = folder.write("gemway.toml", &config("alias", &tls));
    let gateway = Gemway::start(&path).await;

    let socket = shake(gateway.address, &first.cert, Some(&client)).await.unwrap();
    let answer = ask(socket, "alias").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");

    // Without a certificate, and with a stranger's: in TLS 1.3 the refusal comes after the client's last word.
    for mine in [None, Some(&second)] {
        if let Ok(socket) = shake(gateway.address, &first.cert, mine).await {
            assert_eq!(ask(socket, "alias").await, "");
        }
    }
    // Nor does plain HTTP get anything.
    assert!(!gateway.ask("alias").await.contains("200"));

    put(&second);
    gateway.reload("taken").await;
    assert!(shake(gateway.address, &first.cert, Some(&client)).await.is_err());
    let socket = shake(gateway.address, &second.cert, Some(&client)).await.unwrap();
    assert!(ask(socket, "alias").await.starts_with("HTTP/1.1 200"));

    folder.write("key.pem", "nonsense");
    gateway.reload("refused").await;
    assert!(shake(gateway.address, &second.cert, Some(&client)).await.is_ok());
}

/// Requests that try to put their own words into a label.
fn hostile(turn: u32) -> String {
    let body =
        |model: &str| format!(r#"{{"model":"{model}","messages":[{{"role":"user","content":"{turn}"}}]}}"#);
    let (head, body) = match turn % 5 {
        0 => ("POST /v1/chat/completions".to_owned(), body(&format!("made-up-{turn}"))),
        1 => (format!("POST /v1/made-up-{turn}/x{}", turn / 3), String::new()),
        2 => (format!("M{turn} /v1/models"), String::new()),
        3 => (format!("GET /v1/models/made-up-{turn}"), String::new()),
        _ => ("POST /v1/embeddings".to_owned(), format!(r#"{{"model":"made-up-{turn}","input":"x"}}"#)),
    };
    let key = if turn.is_multiple_of(7) { format!("made-up-key-{turn}") } else { SECRET.to_owned() };
    format!(
        "{head} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\nuser-agent: made-up-{turn}\r\nx-request-id: made-up-{turn}\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

#[tokio::test]
async fn ten_thousand_hostile_requests_make_no_series_of_their_own() {
    let folder = Folder::new("series");
    let gateway = Gemway::start(&folder.write("gemway.toml", &config("alias", ""))).await;
    let mut sizes = Vec::new();
    for round in 0..2_u32 {
        for batch in 0..50_u32 {
            let mut socket = TcpStream::connect(gateway.address).await.unwrap();
            let mut all = String::new();
            for turn in 0..100 {
                all.push_str(&hostile(round * 5000 + batch * 100 + turn));
            }
            all.push_str("GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
            let answers = say(&mut socket, &all).await;
            assert!(answers.matches("HTTP/1.1 ").count() > 90, "{answers}");
        }
        let scrape = gateway.metrics().await;
        assert!(!scrape.contains("made-up"), "{scrape}");
        sizes.push(scrape.lines().filter(|line| !line.starts_with('#')).count());
    }
    assert!(sizes[1] < 5000 && sizes[1] <= sizes[0] + 5, "{sizes:?}");
}
