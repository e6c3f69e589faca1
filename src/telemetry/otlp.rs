//! Spans on their way to a collector: OTLP over HTTP, in its JSON form.
//!
//! The queue is bounded and nobody waits for it: with a dead collector spans are lost and counted, and requests go
//! on as ever.

use std::time::Duration;

use futures_util::future::BoxFuture;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::trace::attribute;

/// Spans that wait, and spans of one letter.
const QUEUE: usize = 4096;
const BATCH: usize = 512;

/// How long a span waits for company.
const GATHER: Duration = Duration::from_secs(1);

/// How long the last letter may take.
const LAST: Duration = Duration::from_secs(2);

/// Carries one letter to the collector; tells whether it was taken.
pub type Post = Box<dyn Fn(Vec<u8>) -> BoxFuture<'static, bool> + Send + Sync>;

/// Where spans are put.
#[derive(Clone, Debug)]
pub struct Spans {
    queue: mpsc::Sender<Value>,
    lost: prometheus::IntCounter,
}

impl Spans {
    /// Takes spans, or loses them when too many wait.
    pub fn put(&self, spans: Vec<Value>) {
        for span in spans {
            if self.queue.try_send(span).is_err() {
                self.lost.inc();
            }
        }
    }
}

/// What carries spans away.
pub struct Carrier {
    queue: mpsc::Receiver<Value>,
    lost: prometheus::IntCounter,
    resource: Value,
    post: Post,
}

impl std::fmt::Debug for Carrier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Carrier").finish_non_exhaustive()
    }
}

/// A queue, and what empties it. `service` is `service.name`.
pub(super) fn open(service: &str, lost: prometheus::IntCounter, post: Post) -> (Spans, Carrier) {
    let (sender, queue) = mpsc::channel(QUEUE);
    let resource = json!({ "attributes": [
        attribute("service.name", &json!(service)),
        attribute("service.version", &json!(env!("CARGO_PKG_VERSION"))),
    ] });
    (Spans { queue: sender, lost: lost.clone() }, Carrier { queue, lost, resource, post })
}

impl Carrier {
    /// Carries until every [`Spans`] is gone, or for ever.
    pub async fn run(&mut self) {
        let mut heard = true;
        loop {
            let mut batch = Vec::new();
            if self.queue.recv_many(&mut batch, BATCH).await == 0 {
                return;
            }
            if batch.len() < BATCH {
                tokio::time::sleep(GATHER).await;
                while batch.len() < BATCH
                    && let Ok(span) = self.queue.try_recv()
                {
                    batch.push(span);
                }
            }
            self.send(batch, &mut heard).await;
        }
    }

    /// Sends what is still there, within a moment.
    pub async fn finish(&mut self) {
        let mut batch = Vec::new();
        while let Ok(span) = self.queue.try_recv() {
            batch.push(span);
        }
        if !batch.is_empty() {
            // Past this moment the process has better reasons to end.
            let _ = tokio::time::timeout(LAST, self.send(batch, &mut true)).await;
        }
    }

    async fn send(&self, spans: Vec<Value>, heard: &mut bool) {
        let count = spans.len() as u64;
        let letter = json!({ "resourceSpans": [{
            "resource": self.resource,
            "scopeSpans": [{ "scope": { "name": "gemway", "version": env!("CARGO_PKG_VERSION") }, "spans": spans }],
        }] });
        let taken = (self.post)(letter.to_string().into_bytes()).await;
        if !taken {
            self.lost.inc_by(count);
        }
        if taken != *heard {
            // Once for each change, not once for each letter.
            *heard = taken;
            if taken {
                tracing::info!("the trace collector takes spans again");
            } else {
                tracing::warn!("the trace collector does not take spans: they are lost until it does");
            }
        }
    }
}
