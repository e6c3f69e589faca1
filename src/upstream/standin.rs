//! Stand-ins until the real decoder and the error mapping are merged.

use bytes::{Bytes, BytesMut};
use http::StatusCode;

use super::fail;
use crate::error::{Error, Kind, Origin, Result, Retry};

/// `data:` lines only.
pub(super) struct Decoder {
    cap: usize,
    buffer: BytesMut,
}

impl Decoder {
    pub(super) fn new(cap: usize) -> Self {
        Self { cap, buffer: BytesMut::new() }
    }

    pub(super) fn push(&mut self, data: Bytes, out: &mut Vec<Bytes>) -> Result<()> {
        self.buffer.extend_from_slice(&data);
        while let Some(end) = memchr::memchr(b'\n', &self.buffer) {
            let line = self.buffer.split_to(end + 1).freeze();
            let text = line.trim_ascii_end();
            if let Some(event) = text.strip_prefix(b"data:") {
                out.push(line.slice_ref(event.trim_ascii_start()));
            }
        }
        if self.buffer.len() > self.cap {
            return Err(fail::invalid("An event of Google's answer is too long."));
        }
        Ok(())
    }

    pub(super) fn finish(&mut self, out: &mut Vec<Bytes>) -> Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let _ = out;
        Err(fail::disconnected("the body ended inside an event"))
    }
}

#[derive(serde::Deserialize)]
struct Status {
    code: u16,
    #[serde(default)]
    message: String,
}

pub(super) fn from_event(event: &[u8]) -> Error {
    read(event).unwrap_or_else(|| fail::invalid("Google's answer could not be read."))
}

fn read(event: &[u8]) -> Option<Error> {
    #[derive(serde::Deserialize)]
    struct Envelope {
        error: Status,
    }
    let status = serde_json::from_slice::<Envelope>(event).ok()?.error;
    let kind = match status.code {
        400 => Kind::Invalid,
        401 | 403 => Kind::UpstreamRefused,
        404 => Kind::NotFound,
        429 => Kind::RateLimited,
        503 => Kind::Overloaded,
        _ => Kind::UpstreamFailed,
    };
    Some(Error::new(kind, Origin::Upstream, status.message).retry(Retry::Soon))
}

pub(super) fn from_response(status: StatusCode, body: &[u8], secrets: &[&str]) -> Error {
    let text = String::from_utf8_lossy(body).into_owned();
    let text = secrets.iter().fold(text, |text, secret| text.replace(secret, "[masked]"));
    read(text.as_bytes()).unwrap_or_else(|| {
        Error::new(Kind::UpstreamFailed, Origin::Upstream, format!("Google answered {}.", status.as_u16()))
    })
}
