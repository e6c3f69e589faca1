use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;

use super::*;
use crate::meter::{Entry, Sink};
use crate::telemetry::Metrics;
use crate::usage::Usage;

#[derive(Debug, Default)]
struct Kept(Mutex<Vec<Entry>>);

impl Sink for Kept {
    fn settle(&self, entry: &Entry) {
        self.0.lock().push(entry.clone());
    }
}

/// Says each of its turns once, then waits for ever.
struct Script(VecDeque<(Vec<&'static str>, Result<bool>)>);

impl EventSource for Script {
    fn poll_next(&mut self, _: &mut Context<'_>, batch: &mut Vec<Bytes>) -> Poll<Result<bool>> {
        let Some((events, word)) = self.0.pop_front() else { return Poll::Pending };
        batch.extend(events.into_iter().map(|event: &str| Bytes::from_static(event.as_bytes())));
        Poll::Ready(word)
    }
}

struct Echo(u64);

impl Machine for Echo {
    fn push(&mut self, event: &[u8], out: &mut BytesMut) -> Result<()> {
        assert_ne!(event, b"panic", "as told");
        self.0 += 1;
        out.extend_from_slice(b"data: ");
        out.extend_from_slice(event);
        out.extend_from_slice(b"\n\n");
        Ok(())
    }
    fn usage(&self) -> Usage {
        Usage { output: self.0, ..Usage::default() }
    }
    fn finish(&mut self, out: &mut BytesMut) -> Result<Usage> {
        out.extend_from_slice(b"data: [DONE]\n\n");
        Ok(self.usage())
    }
}

struct Bench {
    body: Body,
    kept: Arc<Kept>,
    cut: CancellationToken,
}

fn bench(script: Vec<(Vec<&'static str>, Result<bool>)>) -> Bench {
    let kept = Arc::new(Kept::default());
    let sink: Arc<dyn Sink> = Arc::<Kept>::clone(&kept);
    let stream = Stream {
        events: Box::new(Script(script.into())),
        machine: Box::new(Echo(0)),
        headers: HeaderMap::new(),
        closing: None,
    };
    let cut = CancellationToken::new();
    let meter = Meter::start(sink, Entry::default());
    let response = response(stream, meter, cut.clone(), Metrics::new().stream("chat", None, None), None);
    Bench { body: response.into_body(), kept, cut }
}

impl Bench {
    async fn frame(&mut self) -> Option<String> {
        let frame = self.body.frame().await?.unwrap();
        Some(String::from_utf8(frame.into_data().unwrap().to_vec()).unwrap())
    }
    fn settled(self) -> Entry {
        drop(self.body);
        let entries = self.kept.0.lock();
        assert_eq!(entries.len(), 1);
        entries[0].clone()
    }
}

#[tokio::test]
async fn what_one_read_brought_leaves_as_one_frame() {
    let mut bench = bench(vec![(vec!["1", "2"], Ok(true)), (vec![], Ok(true)), (vec!["3"], Ok(false))]);
    assert_eq!(bench.frame().await.unwrap(), "data: 1\n\ndata: 2\n\ndata: 3\n\ndata: [DONE]\n\n");
    assert_eq!(bench.frame().await, None);
    let entry = bench.settled();
    assert_eq!(entry.outcome, Some(Outcome::Complete));
    assert_eq!(entry.usage.output, 3);
    assert!(entry.first_token.is_some());
}

/// Hands over one event at a time, each when it has been asked so often in vain.
struct Slow {
    turns: usize,
    asked: usize,
    left: VecDeque<&'static str>,
}

impl EventSource for Slow {
    fn poll_next(&mut self, cx: &mut Context<'_>, batch: &mut Vec<Bytes>) -> Poll<Result<bool>> {
        if self.asked < self.turns {
            self.asked += 1;
            // Nobody asks again who has not been told to.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.asked = 0;
        let Some(event) = self.left.pop_front() else { return Poll::Pending };
        batch.push(Bytes::from_static(event.as_bytes()));
        Poll::Ready(Ok(true))
    }
}

/// What each frame holds when events take so many turns to be handed over.
fn frames(turns: usize) -> Vec<String> {
    let left = ["1", "2", "3"].into();
    let stream = Stream {
        events: Box::new(Slow { turns, asked: turns, left }),
        machine: Box::new(Echo(0)),
        headers: HeaderMap::new(),
        closing: None,
    };
    let sink: Arc<dyn Sink> = Arc::new(Kept::default());
    let meter = Meter::start(sink, Entry::default());
    let open = Metrics::new().stream("chat", None, None);
    let mut body = response(stream, meter, CancellationToken::new(), open, None).into_body();
    let mut frames = Vec::new();
    let mut cx = Context::from_waker(std::task::Waker::noop());
    for _ in 0..100 {
        if let Poll::Ready(Some(frame)) = Pin::new(&mut body).poll_frame(&mut cx) {
            frames.push(String::from_utf8(frame.unwrap().into_data().unwrap().to_vec()).unwrap());
        }
    }
    frames
}

#[test]
fn what_is_handed_over_in_a_few_turns_leaves_together_and_the_first_at_once() {
    let rest = "data: 2\n\ndata: 3\n\n".to_owned();
    for turns in 1..=usize::from(TURNS) {
        assert_eq!(frames(turns), ["data: 1\n\n".to_owned(), rest.clone()], "{turns}");
    }
    assert_eq!(frames(usize::from(TURNS) + 1).len(), 3);
}

#[tokio::test]
async fn a_break_is_an_error_event_and_no_done() {
    let broken = Error::new(Kind::UpstreamBroken, Origin::Upstream, "cut").code("upstream_disconnected");
    let mut bench = bench(vec![(vec!["1"], Err(broken))]);
    let text = bench.frame().await.unwrap();
    assert_eq!(
        text,
        "data: 1\n\ndata: {\"error\":{\"message\":\"cut\",\"type\":\"server_error\",\"param\":null,\
         \"code\":\"upstream_disconnected\"}}\n\n"
    );
    assert_eq!(bench.frame().await, None);
    assert_eq!(bench.settled().outcome, Some(Outcome::Failed));
}

#[tokio::test]
async fn a_panicking_machine_is_an_error_event() {
    let mut bench = bench(vec![(vec!["panic"], Ok(true))]);
    assert!(bench.frame().await.unwrap().contains("\"code\":\"server_error\""));
    assert_eq!(bench.settled().outcome, Some(Outcome::Failed));
}

#[tokio::test]
async fn going_down_is_said_in_the_stream() {
    let mut bench = bench(vec![(vec!["1"], Ok(true))]);
    assert_eq!(bench.frame().await.unwrap(), "data: 1\n\n");
    bench.cut.cancel();
    assert!(bench.frame().await.unwrap().contains("gateway_draining"));
    assert_eq!(bench.frame().await, None);
    assert_eq!(bench.settled().outcome, Some(Outcome::Drained));
}

#[tokio::test]
async fn a_client_that_leaves_pays_for_what_it_saw() {
    let mut bench = bench(vec![(vec!["1"], Ok(true))]);
    bench.frame().await.unwrap();
    let entry = bench.settled();
    assert_eq!(entry.outcome, Some(Outcome::ClientGone));
    assert_eq!(entry.usage.output, 1);
}
