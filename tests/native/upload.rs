//! A large upload through the binary: it is passed on as it comes, whatever its size.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::fake::KEYS;

/// Mebibytes to send; `GEMWAY_TEST_UPLOAD_MIB=1024` sends a whole gibibyte.
const MIB: usize = 128;
/// By how much the process may grow, in kibibytes, while it passes the upload on.
const GROWTH_KIB: u64 = 40 << 10;

/// Takes one upload without keeping it, and says how many bytes of body there were.
async fn drain(listener: TcpListener, size: usize) -> usize {
    let (mut socket, _) = listener.accept().await.unwrap();
    let (mut head, mut block) = (Vec::new(), vec![0; 256 << 10]);
    let (mut taken, mut begun) = (0, false);
    while taken < size {
        let read = socket.read(&mut block).await.unwrap();
        assert!(read > 0, "the upload broke off after {taken} bytes");
        if begun {
            taken += read;
            continue;
        }
        head.extend_from_slice(&block[..read]);
        if let Some(end) = head.windows(4).position(|window| window == b"\r\n\r\n") {
            begun = true;
            let text = String::from_utf8_lossy(&head[..end]).to_ascii_lowercase();
            assert!(text.contains(&format!("content-length: {size}")), "{text}");
            taken = head.len() - end - 4;
        }
    }
    socket
        .write_all(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}")
        .await
        .unwrap();
    // Whoever closes first may cut off the answer.
    let _ = socket.read(&mut block).await;
    taken
}

/// The binary, killed with the test.
struct Binary {
    child: Child,
    address: SocketAddr,
    config: PathBuf,
}

impl Drop for Binary {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_file(&self.config);
    }
}

impl Binary {
    async fn start(google: SocketAddr) -> Self {
        let free = || std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let (address, admin) = (free(), free());
        let config = std::env::temp_dir().join(format!("gemway-upload-{}.toml", std::process::id()));
        let site = format!(
            "[[sites]]\nname = \"studio\"\nkind = \"gemini_api\"\nbase_url = \"http://{google}\"\napi_key = \"OUR-KEY\"\n"
        );
        std::fs::write(&config, format!("{site}{KEYS}")).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_gemway"))
            .args(["serve", "--config"])
            .arg(&config)
            .args(["--listen", &address.to_string(), "--admin-listen", &admin.to_string()])
            .env_clear()
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let this = Self { child, address, config };
        for _ in 0..400 {
            if TcpStream::connect(address).await.is_ok() {
                return this;
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        panic!("the gateway did not start");
    }

    /// A line of the kernel's account of the process, in kibibytes.
    fn memory(&self, line: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let found = status.lines().find_map(|found| found.strip_prefix(line)).unwrap();
        found.trim_matches([':', ' ', '\t', 'k', 'B']).parse().unwrap()
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_large_upload_takes_no_memory() {
    let mib = std::env::vars()
        .find(|(name, _)| name == "GEMWAY_TEST_UPLOAD_MIB")
        .map_or(MIB, |(_, mib)| mib.parse().unwrap());
    let size = mib << 20;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gateway = Binary::start(listener.local_addr().unwrap()).await;
    let taken = tokio::spawn(drain(listener, size));
    let before = gateway.memory("VmRSS");
    let mut socket = TcpStream::connect(gateway.address).await.unwrap();
    let head = format!(
        "POST /upload/v1beta/files HTTP/1.1\r\nhost: x\r\nx-goog-api-key: good\r\nx-goog-upload-protocol: raw\r\n\
         content-type: video/mp4\r\ncontent-length: {size}\r\n\r\n"
    );
    socket.write_all(head.as_bytes()).await.unwrap();
    let block = vec![7; 1 << 20];
    for _ in 0..mib {
        tokio::time::timeout(Duration::from_secs(30), socket.write_all(&block)).await.unwrap().unwrap();
    }
    let mut answer = [0; 12];
    tokio::time::timeout(Duration::from_secs(30), socket.read_exact(&mut answer)).await.unwrap().unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
    // The most that it ever held.
    let most = gateway.memory("VmHWM");
    drop(gateway);
    assert_eq!(taken.await.unwrap(), size);
    let grown = most.saturating_sub(before);
    assert!(grown < GROWTH_KIB && most < 100 << 10, "{most} KiB at most, {grown} KiB more than before");
}
