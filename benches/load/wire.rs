//! A client that costs little: it writes requests made beforehand and reads answers without keeping them.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use memchr::{memchr, memmem};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::Fallible;
use crate::double::stamp;

pub(crate) struct Connection {
    socket: TcpStream,
    buffer: Vec<u8>,
}

/// What one request gave.
#[derive(Debug, Default)]
pub(crate) struct Came {
    pub(crate) bytes: usize,
    /// How old each event was when it came.
    pub(crate) lags: Vec<Duration>,
    pub(crate) took: Duration,
}

impl Connection {
    pub(crate) async fn open(address: SocketAddr) -> Fallible<Self> {
        let socket = TcpStream::connect(address).await?;
        socket.set_nodelay(true)?;
        Ok(Self { socket, buffer: vec![0; 16 << 10] })
    }

    /// Asks, and reads the answer to its end.
    pub(crate) async fn ask(&mut self, request: &[u8]) -> Fallible<Came> {
        let began = Instant::now();
        let mut answer = self.head(request).await?;
        let mut came = answer.came;
        let mut stamps = Stamps::default();
        stamps.see(&self.buffer[answer.body..answer.filled], &mut came.lags);
        came.bytes += answer.filled - answer.body;
        let mut ended = answer.length.see(&self.buffer[answer.body..answer.filled])?;
        while !ended {
            let read = self.socket.read(&mut self.buffer).await?;
            if read == 0 {
                return Err("an answer that breaks off".into());
            }
            stamps.see(&self.buffer[..read], &mut came.lags);
            came.bytes += read;
            ended = answer.length.see(&self.buffer[..read])?;
        }
        came.took = began.elapsed();
        Ok(came)
    }

    /// Asks for a stream that does not end, and reads until its first event.
    pub(crate) async fn hold(mut self, request: &[u8]) -> Fallible<TcpStream> {
        let answer = self.head(request).await?;
        let mut stamps = Stamps::default();
        let mut came = Vec::new();
        stamps.see(&self.buffer[answer.body..answer.filled], &mut came);
        while came.is_empty() {
            let read = self.socket.read(&mut self.buffer).await?;
            if read == 0 {
                return Err("a stream that breaks off".into());
            }
            stamps.see(&self.buffer[..read], &mut came);
        }
        Ok(self.socket)
    }

    async fn head(&mut self, request: &[u8]) -> Fallible<Answer> {
        self.socket.write_all(request).await?;
        let mut filled = 0;
        let end = loop {
            if filled == self.buffer.len() {
                return Err("a head that is too long".into());
            }
            let read = self.socket.read(&mut self.buffer[filled..]).await?;
            if read == 0 {
                return Err("hung up before an answer".into());
            }
            filled += read;
            if let Some(end) = memmem::find(&self.buffer[..filled], b"\r\n\r\n") {
                break end + 4;
            }
        };
        let head = String::from_utf8_lossy(&self.buffer[..end]).to_ascii_lowercase();
        if !head.starts_with("http/1.1 200") {
            return Err(String::from_utf8_lossy(&self.buffer[..filled]).into_owned().into());
        }
        let field = |name: &str| head.lines().find_map(|line| line.strip_prefix(name));
        let length = match field("content-length:") {
            Some(length) => Length::Known(length.trim().parse()?),
            None if field("transfer-encoding:").is_some() => Length::Chunked(Chunks::default()),
            None => return Err("an answer without a length".into()),
        };
        Ok(Answer { came: Came::default(), length, body: end, filled })
    }
}

struct Answer {
    came: Came,
    length: Length,
    body: usize,
    filled: usize,
}

enum Length {
    Known(usize),
    Chunked(Chunks),
}

impl Length {
    /// Takes what was read; whether that was the end.
    fn see(&mut self, data: &[u8]) -> Fallible<bool> {
        match self {
            Self::Known(left) => {
                *left = left.checked_sub(data.len()).ok_or("an answer that is longer than it says")?;
                Ok(*left == 0)
            }
            Self::Chunked(chunks) => Ok(chunks.see(data)),
        }
    }
}

/// Where in a chunked body we are.
#[derive(Default)]
struct Chunks {
    /// Bytes of the present chunk and of the line end behind it.
    left: usize,
    size: usize,
    in_size: bool,
    digits: bool,
    last: bool,
}

impl Chunks {
    fn see(&mut self, mut data: &[u8]) -> bool {
        while let Some((first, rest)) = data.split_first() {
            if self.left > 0 {
                let step = self.left.min(data.len());
                self.left -= step;
                data = &data[step..];
                if self.left == 0 && self.last {
                    return true;
                }
                continue;
            }
            data = rest;
            if !self.in_size {
                (self.in_size, self.digits, self.size) = (true, true, 0);
            }
            match (*first, (*first as char).to_digit(16)) {
                (b'\n', _) => {
                    self.in_size = false;
                    self.last = self.size == 0;
                    self.left = self.size + 2;
                }
                (_, Some(digit)) if self.digits => self.size = self.size * 16 + digit as usize,
                _ => self.digits = false,
            }
        }
        false
    }
}

/// Finds the double's stamps, `@` nanoseconds `@`, in what passes.
#[derive(Default)]
struct Stamps {
    digits: Option<(u64, usize)>,
}

impl Stamps {
    fn see(&mut self, mut data: &[u8], lags: &mut Vec<Duration>) {
        let mut now = None;
        loop {
            let Some((value, count)) = self.digits else {
                let Some(at) = memchr(b'@', data) else { return };
                data = &data[at + 1..];
                self.digits = Some((0, 0));
                continue;
            };
            let Some((first, rest)) = data.split_first() else { return };
            data = rest;
            self.digits = match first {
                b'0'..=b'9' => Some((value.wrapping_mul(10) + u64::from(first - b'0'), count + 1)),
                b'@' if count == 19 => {
                    let now = *now.get_or_insert_with(stamp);
                    lags.push(Duration::from_nanos(now.saturating_sub(value)));
                    None
                }
                b'@' => Some((0, 0)),
                _ => None,
            };
        }
    }
}
