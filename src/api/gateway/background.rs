//! Responses that are made while nobody waits.
//!
//! Each is a task of its own that walks the same way as a request whose client waits, and writes what comes into
//! the store, where any number of clients may follow it. The client that leaves ends nothing; a cancel, a delete
//! and the end of the process do.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http::header::HeaderValue;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Gateway;
use super::items;
use super::keeping::{Keeping, Prepared, Slot};
use super::responses::Responses;
use super::stored::{self, State};
use super::walk::{Asked, DROPPED, Operation};
use crate::api::gateway::admit::Size;
use crate::api::{Ctx, Reply, Stream, pump, render};
use crate::clock::Clock;
use crate::error::{Error, Kind, Origin, Result, Retry};
use crate::meter::Outcome;
use crate::openai::responses::Request;
use crate::store::{LEASE, Store};
use crate::translate::responses::{Finished, History, ResponsesMachine, Shape, Status, request};
use crate::translate::{Machine, Stamp, Target};

/// How many are made at once; the others are queued.
const AT_ONCE: usize = 64;

/// How many there may be, queued ones included, and how many bytes their requests may have together.
const MOST: usize = 1024;
const MOST_BYTES: usize = 256 << 20;

/// How long a cancel waits for the end of what it cancels.
const CANCEL: Duration = Duration::from_secs(5);

/// How long the ends of responses may take to be kept when the process goes down.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// How long the end of a response may wait for a store that is away.
const STUBBORN: Duration = Duration::from_mins(2);

/// What goes on.
#[derive(Debug)]
pub(super) struct Runs {
    all: Mutex<HashMap<String, Run>>,
    places: Arc<Semaphore>,
    tasks: TaskTracker,
    /// The process goes down.
    closing: CancellationToken,
}

impl Default for Runs {
    fn default() -> Self {
        Self {
            all: Mutex::default(),
            places: Arc::new(Semaphore::new(AT_ONCE)),
            tasks: TaskTracker::new(),
            closing: CancellationToken::new(),
        }
    }
}

#[derive(Debug)]
struct Run {
    stop: CancellationToken,
    /// Changes whenever there is something new; closed at the end.
    news: watch::Receiver<u64>,
    bytes: usize,
}

impl Runs {
    pub(super) fn has(&self, id: &str) -> bool {
        self.all.lock().contains_key(id)
    }

    /// Does something that must not end with a request, but may hold up the end of the process for a moment.
    pub(super) fn spawn(
        &self,
        work: impl Future<Output = ()> + Send + 'static,
        runtime: &Handle,
    ) -> JoinHandle<()> {
        self.tasks.spawn_on(work, runtime)
    }

    /// Tells whoever works on it here to stop, and does not wait.
    pub(super) fn stop(&self, id: &str) {
        if let Some(run) = self.all.lock().get(id) {
            run.stop.cancel();
        }
    }

    /// Tells whoever works on it here to stop, and waits for that.
    pub(super) async fn cancel(&self, id: &str) {
        self.stop(id);
        let news = self.news(id);
        if let Some(mut news) = news {
            let over = async { while news.changed().await.is_ok() {} };
            // The store may be slow: then the caller sees what is there.
            let _ = tokio::time::timeout(CANCEL, over).await;
        }
    }

    /// Says that this process still works on its responses, and stops those that are over already: cancelled or
    /// deleted through another replica.
    pub(super) async fn renew(&self, store: &Store, owner: &str, now: u64) -> Result<()> {
        let mine: Vec<String> = self.all.lock().keys().cloned().collect();
        if mine.is_empty() {
            return Ok(());
        }
        let alive = store.renew(owner, now + LEASE.as_secs()).await?;
        for id in mine.iter().filter(|id| !alive.contains(id)) {
            self.stop(id);
        }
        Ok(())
    }

    /// Waits for what goes on to come to its end, and after `patience` ends it.
    pub(super) async fn close(&self, patience: Duration) {
        self.tasks.close();
        if tokio::time::timeout(patience, self.tasks.wait()).await.is_err() {
            tracing::warn!(runs = self.all.lock().len(), "background responses are ended");
            self.closing.cancel();
            if tokio::time::timeout(LAST_WORDS, self.tasks.wait()).await.is_err() {
                tracing::warn!("the ends of some background responses are not kept");
            }
        }
    }

    /// What changes whenever there is something new of a response that is made here.
    pub(super) fn news(&self, id: &str) -> Option<watch::Receiver<u64>> {
        self.all.lock().get(id).map(|run| run.news.clone())
    }

    fn admit(&self, bytes: usize) -> Result<()> {
        if self.closing.is_cancelled() {
            return Err(pump::draining());
        }
        let all = self.all.lock();
        let held: usize = all.values().map(|run| run.bytes).sum();
        if all.len() >= MOST || held + bytes > MOST_BYTES {
            let message = "Too many responses are being made in the background; please try again.";
            return Err(Error::new(Kind::Overloaded, Origin::Gateway, message).retry(Retry::Soon));
        }
        Ok(())
    }
}

/// How a run ended before its answer did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stopped {
    /// A client cancelled or deleted it.
    Cancelled,
    /// The process goes down.
    Closing,
}

/// One response to be made.
struct Job {
    cx: Ctx,
    body: Bytes,
    history: Arc<History>,
    keeping: Keeping,
    id: String,
    /// The response object while it is made.
    doing: String,
    /// Speaks for the response until its answer begins, and tells `unheard` how it ended without one.
    herald: ResponsesMachine,
    unheard: Slot,
    /// How the answer ended.
    heard: Slot,
    stop: CancellationToken,
    news: watch::Sender<u64>,
    /// Its place among those that are made at once.
    place: Option<OwnedSemaphorePermit>,
    /// How many events are kept.
    kept: u64,
    /// How many events the answer has given; the first of them repeat what the herald has said.
    given: u64,
}

/// What came of a job: its last events, which are kept together with its end.
struct Made {
    failure: Option<Error>,
    last: Vec<String>,
}

impl Gateway {
    /// `POST /v1/responses` with `background`.
    pub(super) async fn in_background(
        &self,
        cx: Ctx,
        body: &Bytes,
        asked: Request<'_>,
        prepared: Prepared,
    ) -> Result<Reply> {
        let Prepared { history, keeping } = prepared;
        let store = self.state.store()?;
        self.state.runs.admit(body.len())?;
        let mut operation = Responses::new(&cx, body, asked, Arc::clone(&history), None)?;
        // Whatever is wrong with the request is said now, and not when nobody listens.
        let (shape, dropped) = self.rehearse(&cx, &mut operation)?;
        let model = self.dispatched(operation.model())?;
        let before: usize = history.items.iter().map(|item| item.get().len()).sum();
        let size = Size::about((body.len() + before) as u64 / 4).unread().bounded(operation.most());
        // The meter holds the permit, and takes it along when it is detached.
        self.admit(&cx, &model, size).await?;
        let id = self.ids.mint(Responses::PREFIX);
        let stamp = Stamp {
            id: id.clone(),
            created: keeping.created,
            model: operation.model().to_owned(),
            ids: Arc::clone(&self.ids),
            signatures: self.signatures.view(cx.tenant.name()),
        };
        let unheard = Slot::default();
        let mut herald = ResponsesMachine::new(shape, stamp).telling(Some(unheard.done()));
        let mut out = BytesMut::new();
        herald.begin(&mut out)?;
        let begun = events(&mut out);
        let (queued, doing) = (response_in(begun.first())?, response_in(begun.last())?);
        let mut kept = keeping.record(&id, "queued", queued.clone());
        kept.input.clone_from(&keeping.input);
        kept.owner = Some((self.state.owner.clone(), self.clock.unix_seconds() + LEASE.as_secs()));
        if keeping.streams {
            kept.events = (0, begun.clone());
        }
        let (news, watch) = watch::channel(0);
        let stop = CancellationToken::new();
        let run = Run { stop: stop.clone(), news: watch, bytes: body.len() };
        // Known here before anybody can find it in the store.
        self.state.runs.all.lock().insert(id.clone(), run);
        if let Err(error) = store.save(&kept).await {
            self.state.runs.all.lock().remove(&id);
            return Err(error);
        }
        let job = Job {
            cx: Ctx { meter: cx.meter.detach("background"), ..cx.clone() },
            body: body.clone(),
            history,
            id: id.clone(),
            doing,
            herald,
            unheard,
            heard: Slot::default(),
            stop,
            news,
            place: None,
            kept: begun.len() as u64,
            given: 0,
            keeping,
        };
        let streams = job.keeping.streams;
        let state = Arc::clone(&self.state);
        self.state.runs.tasks.spawn(async move {
            let id = job.id.clone();
            job.run(&state).await;
            state.runs.all.lock().remove(&id);
        });
        let mut headers = HeaderMap::new();
        if !dropped.is_empty()
            && let Ok(value) = HeaderValue::from_str(&dropped.join(","))
        {
            headers.insert(DROPPED, value);
        }
        if streams {
            cx.meter.note(|entry| entry.stream = true);
            return Ok(self.follow(&cx, id, None, headers));
        }
        Ok(Reply::Whole { body: queued.into(), headers })
    }

    /// Translates without asking anybody.
    pub(super) fn rehearse(&self, cx: &Ctx, operation: &mut Responses<'_>) -> Result<(Shape, Vec<String>)> {
        let model = self.dispatched(operation.model())?;
        cx.tenant.may_use(&model)?;
        let backend = self.site(&model)?.backend();
        let traits = self.catalog.traits(&model);
        let target = Target { model: &model, traits, backend, strict: self.strict };
        let Asked { shape, dropped, .. } =
            operation.ask(&target, &*self.signatures.view(cx.tenant.name()))?;
        self.fetches(operation.wanted())?;
        Ok((shape, dropped))
    }
}

impl Job {
    async fn run(mut self, state: &Arc<State>) {
        let Ok(store) = state.store() else { return };
        let (stop, closing) = (self.stop.clone(), state.runs.closing.clone());
        let outcome = tokio::select! {
            biased;
            () = stop.cancelled() => Err(Stopped::Cancelled),
            () = closing.cancelled() => Err(Stopped::Closing),
            made = self.make(state, store) => Ok(made),
        };
        let Self { cx, keeping, id, doing, herald, unheard, heard, news, kept, .. } = self;
        // What was dropped in the middle has told how far it came; if nothing had begun, the herald does.
        drop(herald);
        let mut finished = heard.take().or_else(|| unheard.take()).unwrap_or_else(|| Finished {
            id: id.clone(),
            status: Status::Gone,
            response: items::patched(&doing, &[("status", "\"cancelled\"")]).into(),
            marks: None,
        });
        let mut last = Vec::new();
        match outcome {
            Ok(Made { failure: None, last: told }) => {
                last = told;
                if let Err(error) = cx.meter.complete(200).await {
                    // Nobody waits for this answer's end, so there is nobody to be told.
                    tracing::warn!(error = ?error, id, "a background response is not in the ledger");
                    cx.meter.end(Outcome::Complete);
                }
            }
            Ok(Made { failure: Some(error), last: told }) => {
                last = told;
                cx.meter.fail(&error, render::code(&error));
            }
            Err(Stopped::Cancelled) => cx.meter.end(Outcome::ClientGone),
            Err(Stopped::Closing) => {
                let json = String::from_utf8_lossy(&finished.response).into_owned();
                let why = "The gateway was shut down while this response was being made; please try again.";
                finished.response = stored::failed(&json, why).into();
                finished.status = Status::Failed;
                cx.meter.fail(&pump::draining(), Some("gateway_draining"));
            }
        }
        let mut end = keeping.end(&finished);
        if keeping.streams {
            if last.is_empty() {
                last.push(stored::last_event(&end.json, kept));
            }
            end.events = (kept, last);
        }
        let begun = Instant::now();
        while let Err(error) = store.advance(&end).await {
            tracing::warn!(error = ?error, id, "the end of a background response could not be kept");
            if begun.elapsed() > STUBBORN || state.runs.closing.is_cancelled() {
                break;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        drop(news);
    }

    async fn make(&mut self, state: &Arc<State>, store: &Store) -> Made {
        let stream = match self.ask(state, store).await {
            Ok(stream) => stream,
            Err(error) => {
                let mut out = BytesMut::new();
                render::failure(&error, |failure| self.herald.fail(failure, &mut out));
                return Made { failure: Some(error), last: events(&mut out) };
            }
        };
        self.drain(store, stream).await
    }

    /// Waits for its turn and walks the way of every request, up to the first words of the answer.
    async fn ask(&mut self, state: &Arc<State>, store: &Store) -> Result<Stream> {
        let places = Arc::clone(&state.runs.places);
        self.place = Some(places.acquire_owned().await.map_err(Error::internal)?);
        let mut kept = self.keeping.record(&self.id, "in_progress", self.doing.clone());
        kept.owner = Some((state.owner.clone(), Clock::System.unix_seconds() + LEASE.as_secs()));
        if !store.advance(&kept).await? {
            return self.gone().await;
        }
        self.news.send_modify(|count| *count += 1);
        let gateway = state.gateway()?;
        let body = self.body.clone();
        let mut asked = request::parse(&body)?;
        asked.stream = true;
        let done = Some(self.heard.done());
        let mut operation = Responses::new(&self.cx, &body, asked, Arc::clone(&self.history), done)?;
        operation.named = Some((self.id.clone(), self.keeping.created));
        let reply = Box::pin(gateway.walk_with(&self.cx, operation, true)).await?;
        match reply {
            Reply::Stream(stream) => Ok(stream),
            Reply::Whole { .. } | Reply::Raw(_) => Err(Error::internal("what streams did not give a stream")),
        }
    }

    /// Somebody ended the response elsewhere: there is nothing left to do, and nothing to be told.
    async fn gone<T>(&mut self) -> T {
        self.stop.cancel();
        std::future::pending().await
    }

    /// Reads the answer to its end and keeps its events.
    async fn drain(&mut self, store: &Store, stream: Stream) -> Made {
        let Stream { events: mut source, mut machine, .. } = stream;
        let (mut batch, mut out) = (Vec::new(), BytesMut::new());
        loop {
            let polled = std::future::poll_fn(|cx| source.poll_next(cx, &mut batch)).await;
            let pushed = batch.drain(..).try_for_each(|event| machine.push(&event, &mut out));
            let step = match pushed.and(polled) {
                Ok(false) => machine.finish(&mut out).map(|_| false),
                step => step,
            };
            self.cx.meter.usage(machine.usage());
            let failure = match step {
                Ok(true) => {
                    let new = self.unkept(events(&mut out));
                    match self.told(store, new).await {
                        Ok(()) => continue,
                        Err(error) => error,
                    }
                }
                Ok(false) => {
                    source.ended(None);
                    return Made { failure: None, last: self.unkept(events(&mut out)) };
                }
                Err(error) => error,
            };
            source.ended(Some(&failure));
            render::failure(&failure, |failure| machine.fail(failure, &mut out));
            return Made { failure: Some(failure), last: self.unkept(events(&mut out)) };
        }
    }

    /// Those events that are not kept yet.
    fn unkept(&mut self, events: Vec<String>) -> Vec<String> {
        let known = self.kept.saturating_sub(self.given);
        self.given += events.len() as u64;
        events.into_iter().skip(usize::try_from(known).unwrap_or(usize::MAX)).collect()
    }

    /// Keeps events, and wakes whoever waits for them.
    async fn told(&mut self, store: &Store, events: Vec<String>) -> Result<()> {
        if events.is_empty() {
            return Ok(());
        }
        if self.keeping.streams && !store.record(&self.id, self.kept, &events).await? {
            return self.gone().await;
        }
        self.kept += events.len() as u64;
        self.cx.meter.first_token();
        self.news.send_modify(|count| *count += 1);
        Ok(())
    }
}

/// Takes apart what a machine has written, event by event.
fn events(out: &mut BytesMut) -> Vec<String> {
    let text = String::from_utf8_lossy(out).into_owned();
    out.clear();
    text.split_inclusive("\n\n").map(str::to_owned).collect()
}

/// The response object in one of its own events.
fn response_in(event: Option<&String>) -> Result<String> {
    #[derive(serde::Deserialize)]
    struct Told<'a> {
        #[serde(borrow)]
        response: &'a serde_json::value::RawValue,
    }
    let data = event.and_then(|event| event.split_once("data: ")).map(|(_, data)| data.trim_end());
    let told: Told<'_> = serde_json::from_str(data.unwrap_or_default()).map_err(Error::internal)?;
    Ok(told.response.get().to_owned())
}
