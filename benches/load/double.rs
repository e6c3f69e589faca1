//! What stands in for Google under load: it reads what comes, understands nothing of it, and says bytes that were made
//! beforehand. The simulator parses and checks every request, which costs more than what is measured here.
//!
//! Each event of a stream carries the moment at which it was handed to the socket, so that whoever reads it at the far
//! end of a gateway knows how long it was on its way.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Either, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::time::{Instant, Sleep};

use crate::Fallible;
use crate::work::{BURST, HELD, PACED};

/// Events in a stream.
const BURST_EVENTS: usize = 50;
const PACED_EVENTS: usize = 100;
/// Between two events of a paced stream.
pub(crate) const PACE: Duration = Duration::from_millis(20);

const SAID: &str = "The quick brown fox jumps over the lazy dog, and then it does so again, and again, until the dog \
    gets up and walks away to where it is quiet. ";

/// Bytes that are said over and over.
struct Scripts {
    chat: Bytes,
    vectors: Bytes,
}

pub(crate) async fn run(address: SocketAddr) -> Fallible<()> {
    let listener = TcpListener::bind(address).await?;
    let scripts = Arc::new(Scripts { chat: chat(), vectors: vectors() });
    loop {
        let (socket, _) = listener.accept().await?;
        socket.set_nodelay(true)?;
        let scripts = Arc::clone(&scripts);
        tokio::spawn(async move {
            let service = service_fn(move |request| answer(Arc::clone(&scripts), request));
            // A gateway that hangs up is none of our business.
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(socket), service)
                .await;
        });
    }
}

type Said = Either<Full<Bytes>, Events>;

async fn answer(scripts: Arc<Scripts>, request: Request<Incoming>) -> Result<Response<Said>, Infallible> {
    let path = request.uri().path().to_owned();
    let mut body = request.into_body();
    while let Some(Ok(_)) = body.frame().await {}
    let events = |pace, events, held| {
        Either::Right(Events { left: events, pace, held, sleep: None, at: Instant::now() })
    };
    let (kind, said) = if path.ends_with(":batchEmbedContents") {
        (JSON, Either::Left(Full::new(scripts.vectors.clone())))
    } else if !path.ends_with(":streamGenerateContent") {
        (JSON, Either::Left(Full::new(scripts.chat.clone())))
    } else if path.contains(PACED) {
        (EVENTS, events(Some(PACE), PACED_EVENTS, false))
    } else if path.contains(HELD) {
        (EVENTS, events(None, 1, true))
    } else {
        debug_assert!(path.contains(BURST), "a path that no work asks for");
        (EVENTS, events(None, BURST_EVENTS, false))
    };
    let mut response = Response::new(said);
    response.headers_mut().insert("content-type", http::HeaderValue::from_static(kind));
    Ok(response)
}

const JSON: &str = "application/json; charset=UTF-8";
const EVENTS: &str = "text/event-stream";

fn chat() -> Bytes {
    let answer = serde_json::json!({
        "candidates": [{
            "content": { "parts": [{ "text": SAID }], "role": "model" },
            "finishReason": "STOP",
            "index": 0,
        }],
        "usageMetadata": { "promptTokenCount": 40, "candidatesTokenCount": 32, "totalTokenCount": 72,
            "promptTokensDetails": [{ "modality": "TEXT", "tokenCount": 40 }] },
        "modelVersion": "gemini-2.5-flash",
        "responseId": "pYQpaYzvGbGmvdIPr7XB0AQ",
    });
    answer.to_string().into()
}

/// A hundred vectors of 768 numbers, as long as Google writes them.
fn vectors() -> Bytes {
    let mut seed: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut text = String::from("{\"embeddings\":[");
    for vector in 0..100 {
        text.push_str(if vector > 0 { ",{\"values\":[" } else { "{\"values\":[" });
        for number in 0..768 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let sign = if seed >> 63 == 1 { "-" } else { "" };
            let comma = if number > 0 { "," } else { "" };
            let digits = (seed >> 33) % 100_000_000;
            // Writing to a string does not fail.
            let _ = write!(text, "{comma}{sign}0.0{digits:08}");
        }
        text.push_str("]}");
    }
    text.push_str("]}");
    text.into()
}

/// Nanoseconds since 1970: the one clock that processes share.
pub(crate) fn stamp() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}

/// A stream, made event by event.
struct Events {
    left: usize,
    pace: Option<Duration>,
    /// After the last event nothing comes, and no end.
    held: bool,
    sleep: Option<Pin<Box<Sleep>>>,
    at: Instant,
}

impl Body for Events {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.left == 0 {
            return if self.held { Poll::Pending } else { Poll::Ready(None) };
        }
        if let Some(pace) = self.pace {
            let at = self.at;
            let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at)));
            std::task::ready!(sleep.as_mut().poll(cx));
            sleep.as_mut().reset(at + pace);
            self.at = at + pace;
        }
        self.left -= 1;
        let end = if self.left == 0 && !self.held { ",\"finishReason\":\"STOP\"" } else { "" };
        let event = format!(
            "data: {{\"candidates\":[{{\"content\":{{\"parts\":[{{\"text\":\"@{}@ over the lazy dog\"}}],\
             \"role\":\"model\"}}{end},\"index\":0}}],\"usageMetadata\":{{\"promptTokenCount\":40,\
             \"candidatesTokenCount\":8,\"totalTokenCount\":48}},\"modelVersion\":\"gemini-2.5-flash\",\
             \"responseId\":\"pYQpaYzvGbGmvdIPr7XB0AQ\"}}\r\n\r\n",
            stamp()
        );
        Poll::Ready(Some(Ok(Frame::data(event.into()))))
    }
}
