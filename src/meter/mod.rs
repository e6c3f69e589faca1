//! What a request cost and how it ended, booked exactly once.
//!
//! A [`Meter`] is a handle; all handles of one request share one entry, and the entry is settled when the last
//! handle goes. So whatever happens (an answer, an error, a panic, a client that left), there is one settlement
//! and never two: the language counts, not we. Whoever knows how the request ended says so with [`Meter::end`];
//! the first word stands. When nobody said anything, the client left.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use futures_util::future::BoxFuture;
use http::{HeaderName, HeaderValue, StatusCode};
use parking_lot::Mutex;

use crate::clock::Clock;
use crate::cork::{Settled, settle_later};
use crate::error::{Error, Kind, Origin, Result};
use crate::ids::Ids;
use crate::limits::{Permit, Tokens, Used};
use crate::telemetry::metrics::{Finished, Metrics, UNRESOLVED, operation};
use crate::telemetry::otlp::Spans;
use crate::telemetry::trace::{Attributes, Trace};
use crate::telemetry::{clip, mask};
use crate::usage::{Tier, Usage};

mod access;
pub mod ledger;
pub mod price;

use ledger::{Ledger, Row};
use price::Prices;

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The client has its whole answer.
    Complete,
    /// The request was at fault, or more than its key may ask for.
    Refused,
    /// We or Google were at fault.
    Failed,
    /// The client left first.
    ClientGone,
    /// The gateway went down first.
    Drained,
}

impl Outcome {
    /// The metric and log label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Complete => "ok",
            Self::Refused => "refused",
            Self::Failed => "failed",
            Self::ClientGone => "client_cancelled",
            Self::Drained => "drained",
        }
    }

    /// What an error makes of a request.
    pub fn of(error: &Error) -> Self {
        if error.kind() == Kind::Draining {
            return Self::Drained;
        }
        if error.kind() == Kind::ClientGone {
            return Self::ClientGone;
        }
        if matches!(error.kind(), Kind::RateLimited | Kind::QuotaSpent) && error.origin() == Origin::Gateway {
            // The operator wants it so.
            return Self::Refused;
        }
        match error.origin() {
            Origin::Client => Self::Refused,
            Origin::Gateway | Origin::Upstream => Self::Failed,
        }
    }
}

/// What is known of one request.
#[derive(Clone, Debug, Default)]
pub struct Entry {
    /// The request's id.
    pub request_id: Arc<str>,
    /// When it came, in milliseconds since 1970.
    pub at: u64,
    /// The client key's name.
    pub key: Option<Arc<str>>,
    /// The key's labels, a JSON object.
    pub labels: Option<Arc<str>>,
    /// The route's name.
    pub route: &'static str,
    /// The method, from a closed set.
    pub method: &'static str,
    /// `HTTP/1.1`, `HTTP/2.0`.
    pub version: &'static str,
    /// What the client runs.
    pub user_agent: Option<String>,
    /// The model as the client named it.
    pub asked: Option<String>,
    /// The model as it was resolved: a bounded label.
    pub model: Option<String>,
    /// The model that was dispatched: whatever the client named, after aliases.
    pub dispatched: Option<String>,
    /// The site that answered.
    pub site: Option<String>,
    /// Calls made to Google.
    pub attempts: u32,
    /// Google's last status.
    pub upstream_status: Option<u16>,
    /// OpenTelemetry's name for who was asked: `gcp.gemini`, `gcp.vertex_ai`.
    pub provider: Option<&'static str>,
    /// The wait for Google, up to its first event or its whole answer.
    pub upstream: Duration,
    /// The last part of it.
    pub last_wait: Duration,
    /// What passed before Google was asked.
    pub before: Option<Duration>,
    /// What the last call failed of, where it did.
    pub failing: Option<&'static str>,
    /// Why there was more than one call.
    pub retried: Option<&'static str>,
    /// Tokens that limits reserved.
    pub reserved: Option<u64>,
    /// What it took us, beside that wait, to begin the reply.
    pub overhead: Option<Duration>,
    /// What the request asked for in vain, as the client was told.
    pub dropped: Option<String>,
    /// The trace that it belongs to, where requests are traced.
    pub trace: Option<Box<Trace>>,
    /// The reply is streamed.
    pub stream: bool,
    /// The reply's body is Google's, passed on as it comes: how it ends is not known when its head goes out.
    pub passed: bool,
    /// The status that was sent; 0 before one was.
    pub status: u16,
    /// How it ended.
    pub outcome: Option<Outcome>,
    /// What went wrong.
    pub error: Option<Fault>,
    /// To the first streamed event.
    pub first_token: Option<Duration>,
    /// The whole time; set when settled.
    pub duration: Duration,
    /// Bytes of the request's body.
    pub bytes_in: u64,
    /// Bytes of the reply's body.
    pub bytes_out: u64,
    /// Tokens.
    pub usage: Usage,
    /// The tier that Google's headers name.
    pub tier: Option<Tier>,
    /// Nano-dollars, where the price is known; set when settled.
    pub cost: Option<u64>,
    /// Whoever asked wants to know what it cost.
    pub cost_asked: bool,
    /// The ledger's row of this request, where there is a ledger; made when the meter starts.
    pub row: String,
    /// The ledger has it already.
    pub booked: bool,
}

/// An error, as it is logged.
#[derive(Clone, Debug)]
pub struct Fault {
    /// What happened.
    pub kind: Kind,
    /// Where.
    pub origin: Origin,
    /// The code the client sees.
    pub code: Option<String>,
    /// The field at fault.
    pub param: Option<String>,
    /// The causes, for the operator only.
    pub cause: Option<String>,
    /// What Google said, secrets masked.
    pub said: Option<String>,
}

/// Who is told of each settled request.
pub trait Sink: Send + Sync + fmt::Debug {
    /// Takes the final entry. Must neither block nor fail.
    fn settle(&self, entry: &Entry);

    /// Whether requests become rows, which need names.
    fn has_rows(&self) -> bool {
        false
    }

    /// Whether a complete answer must be told through [`Sink::commit`] before its end goes out.
    fn commits(&self) -> bool {
        false
    }

    /// Makes the row of a complete answer safe.
    fn commit(&self, entry: &Entry) -> BoxFuture<'static, Result<()>> {
        let _ = entry;
        Box::pin(std::future::ready(Ok(())))
    }

    /// Whether every reply tells what it cost.
    fn shows_cost(&self) -> bool {
        false
    }

    /// What the tokens of an entry cost, in nano-dollars, if that is known.
    fn cost(&self, entry: &Entry) -> Option<u64> {
        let _ = entry;
        None
    }
}

/// What tokens cost and who is told, as long as a configuration is in force.
#[derive(Clone, Debug, Default)]
pub struct Terms {
    /// The prices.
    pub prices: Arc<Prices>,
    /// Every reply tells what it cost.
    pub shows_cost: bool,
}

/// Metrics, one line in the log, and the ledger where there is one.
#[derive(Debug)]
pub struct Books {
    metrics: Arc<Metrics>,
    ledger: Option<Ledger>,
    terms: Arc<ArcSwap<Terms>>,
    /// Which part of the requests that went well is logged, and how many there were.
    logged: f64,
    well: AtomicU64,
    spans: Option<Spans>,
}

impl Books {
    /// Metrics and the log alone.
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self {
            metrics,
            ledger: None,
            terms: Arc::default(),
            logged: 1.0,
            well: AtomicU64::new(0),
            spans: None,
        }
    }

    /// The same with terms, which may be replaced while it runs, and with a ledger where there is one.
    pub fn with(metrics: Arc<Metrics>, terms: Arc<ArcSwap<Terms>>, ledger: Option<Ledger>) -> Self {
        Self { ledger, terms, ..Self::new(metrics) }
    }

    /// The same, and each traced request's spans go there.
    #[must_use]
    pub fn tracing(mut self, spans: Option<Spans>) -> Self {
        self.spans = spans;
        self
    }

    /// The same, and only this share of the requests that go well has a line in the log.
    #[must_use]
    pub fn logging(mut self, share: f64) -> Self {
        self.logged = share;
        self
    }

    /// Whether a request that went well has a line: evenly spread, so that a share of a tenth is every tenth.
    fn is_logged(&self) -> bool {
        if self.logged >= 1.0 {
            return true;
        }
        #[expect(
            clippy::cast_precision_loss,
            reason = "after 2^52 requests a line more or less is no matter"
        )]
        let turn = self.well.fetch_add(1, Ordering::Relaxed) as f64;
        (turn * self.logged).floor() < ((turn + 1.0) * self.logged).floor()
    }
}

impl Entry {
    /// The ledger's row.
    fn row(&self, cost: Option<u64>) -> Option<Row> {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        // Whoever has no key has no row: strangers must not be able to fill the ledger.
        let key = self.key.as_deref()?.to_owned();
        Some(Row {
            id: self.row.clone(),
            at: i64::try_from(self.at).unwrap_or(i64::MAX),
            request_id: self.request_id.to_string(),
            key,
            labels: self.labels.clone().unwrap_or_else(|| Arc::from("{}")),
            route: self.route,
            asked: self.asked.as_deref().map(|asked| clip(asked, 200)),
            model: self.dispatched.as_deref().map(|model| clip(model, 200)),
            site: self.site.clone(),
            outcome: self.outcome.unwrap_or(Outcome::ClientGone).as_str(),
            status: self.status,
            error: self.error.as_ref().map(|fault| fault.kind.as_str()),
            attempts: self.attempts,
            stream: self.stream,
            usage: self.usage,
            cost,
            first_token: self.first_token.map(millis),
            duration: millis(self.duration),
        })
    }
}

impl Entry {
    /// As [`Meter::served`].
    pub fn served(&mut self, tier: Option<Tier>) {
        self.tier = tier;
        self.usage.tier = tier.unwrap_or_default();
    }

    /// What the spans of the request and of its calls tell.
    fn attributes(&self) -> (Attributes, Attributes) {
        use serde_json::json;
        let model = self.dispatched.as_deref().or(self.asked.as_deref());
        let operation = operation(self.route);
        let mut call = Attributes { name: operation.to_owned(), ..Attributes::default() };
        call.values.push(("gen_ai.operation.name", json!(operation)));
        if let Some(model) = model {
            call.name = format!("{operation} {}", clip(model, 80));
            call.values.push(("gen_ai.request.model", json!(clip(model, 80))));
        }
        if let Some(provider) = self.provider {
            call.values.push(("gen_ai.provider.name", json!(provider)));
        }
        let mut request = Attributes {
            name: format!("{} {}", self.method, self.route),
            values: call.values.clone(),
            error: self.error.as_ref().map(|fault| fault.kind.as_str().to_owned()),
        };
        request.values.extend([
            ("http.request.method", json!(self.method)),
            ("http.route", json!(self.route)),
            ("http.response.status_code", json!(self.status)),
            ("gemway.request_id", json!(self.request_id)),
            ("gemway.outcome", json!(self.outcome.map(Outcome::as_str))),
            ("gen_ai.request.stream", json!(self.stream)),
        ]);
        if let Some(key) = &self.key {
            request.values.push(("gemway.key", json!(key)));
        }
        if let Some(first) = self.first_token {
            request.values.push(("gen_ai.response.time_to_first_chunk", json!(first.as_secs_f64())));
        }
        if self.usage.total() > 0 {
            request.values.extend([
                ("gen_ai.usage.input_tokens", json!(self.usage.prompt())),
                ("gen_ai.usage.output_tokens", json!(self.usage.completion())),
                ("gen_ai.usage.cache_read.input_tokens", json!(self.usage.cached)),
                ("gen_ai.usage.reasoning.output_tokens", json!(self.usage.thoughts)),
            ]);
        }
        (request, call)
    }
}

impl Sink for Books {
    fn has_rows(&self) -> bool {
        self.ledger.is_some()
    }

    fn commits(&self) -> bool {
        self.ledger.as_ref().is_some_and(Ledger::before_end)
    }

    fn commit(&self, entry: &Entry) -> BoxFuture<'static, Result<()>> {
        match (&self.ledger, entry.row(self.cost(entry))) {
            (Some(ledger), Some(row)) => Box::pin(ledger.commit(row)),
            (None, _) | (_, None) => Box::pin(std::future::ready(Ok(()))),
        }
    }

    fn shows_cost(&self) -> bool {
        self.terms.load().shows_cost
    }

    fn cost(&self, entry: &Entry) -> Option<u64> {
        if entry.usage.total() == 0 {
            return Some(0);
        }
        let terms = self.terms.load();
        let price = terms.prices.of(entry.dispatched.as_deref()?, entry.at / 1000)?;
        price.nanos(&entry.usage, entry.usage.tier)
    }

    fn settle(&self, entry: &Entry) {
        let outcome = entry.outcome.unwrap_or(Outcome::ClientGone);
        if let (Some(spans), Some(trace)) = (&self.spans, &entry.trace)
            && trace.sampled()
        {
            let (request, call) = entry.attributes();
            spans.put(trace.spans(entry.at, entry.duration, &request, &call));
        }
        if let Some(key) = &entry.key
            && entry.usage.total() > 0
        {
            let model = entry.model.as_deref().unwrap_or(UNRESOLVED);
            self.metrics.accounts().used(key, model, &entry.usage, entry.cost.map(price::dollars));
        }
        if let Some(ledger) = &self.ledger
            && !entry.booked
            && let Some(row) = entry.row(entry.cost)
        {
            ledger.record(row);
        }
        self.metrics.finished(&Finished {
            route: entry.route,
            method: entry.method,
            status: entry.status,
            outcome: outcome.as_str(),
            error: entry.error.as_ref().map(|fault| fault.kind.as_str()),
            model: entry.model.as_deref(),
            provider: entry.provider,
            stream: entry.stream,
            duration: entry.duration,
            first_token: entry.first_token,
            overhead: entry.overhead,
            before: entry.before,
            shed: shed(entry),
            reserved: entry.reserved,
            upstream: entry.upstream,
            usage: entry.usage,
        });
        if outcome != Outcome::Complete || self.is_logged() {
            access::log(entry, outcome);
        }
    }
}

/// One request's meter; clones share one entry.
#[derive(Clone, Debug)]
pub struct Meter(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    started: Instant,
    traced: bool,
    /// In a box: it is large, and would be copied into its place.
    entry: Mutex<Box<Entry>>,
    permit: Mutex<Option<(Permit, Tokens)>>,
    told: Mutex<Vec<(HeaderName, HeaderValue)>>,
    sink: Arc<dyn Sink>,
}

impl Meter {
    /// Starts the clock.
    pub fn start(sink: Arc<dyn Sink>, entry: impl Into<Box<Entry>>) -> Self {
        let mut entry: Box<Entry> = entry.into();
        entry.cost_asked |= sink.shows_cost();
        entry.at = Clock::System.unix_millis();
        if sink.has_rows() {
            // Sorted by time, and nobody's to guess or to repeat.
            entry.row = Ids::Random.mint(&format!("{:011x}", entry.at));
        }
        Self(Arc::new(Inner {
            started: Instant::now(),
            traced: entry.trace.is_some(),
            entry: Mutex::new(entry),
            permit: Mutex::default(),
            told: Mutex::default(),
            sink,
        }))
    }

    /// How long ago the request came in.
    pub fn elapsed(&self) -> Duration {
        self.0.started.elapsed()
    }

    /// Changes the entry; keep it short, no waiting inside.
    pub fn note(&self, change: impl FnOnce(&mut Entry)) {
        change(&mut self.0.entry.lock());
    }

    /// Whether the reply is, or will be, a stream.
    pub fn streams(&self) -> bool {
        self.0.entry.lock().stream
    }

    /// Names the model: as asked, and as resolved. Give `resolved` only for names that cannot be made up by a
    /// client: it becomes a metric label.
    pub fn model(&self, asked: &str, resolved: Option<&str>) {
        self.note(|entry| {
            entry.asked = Some(asked.to_owned());
            entry.model = resolved.map(str::to_owned);
        });
    }

    /// Names the model as asked and as resolved, and the one that is dispatched.
    pub fn resolved(&self, asked: &str, resolved: Option<&str>, dispatched: &str) {
        self.note(|entry| {
            entry.asked = Some(asked.to_owned());
            entry.model = resolved.map(str::to_owned);
            entry.dispatched = Some(dispatched.to_owned());
        });
    }

    /// Names the model that is dispatched: for the ledger and the price, not for labels.
    pub fn dispatched(&self, model: &str) {
        self.note(|entry| entry.dispatched = Some(model.to_owned()));
    }

    /// Whether an answer's end must wait for [`Meter::complete`].
    pub fn commits(&self) -> bool {
        self.0.sink.commits()
    }

    /// The client is about to have its whole answer: where the ledger wants it, waits until that is written down.
    ///
    /// # Errors
    /// `Overloaded` with the code `ledger_unavailable`: then the answer must not end as if all were well.
    pub async fn complete(&self, status: u16) -> Result<()> {
        if self.commits() {
            // In a box: most requests have no ledger to wait for.
            Box::pin(self.commit(status)).await?;
        }
        self.end(Outcome::Complete);
        Ok(())
    }

    async fn commit(&self, status: u16) -> Result<()> {
        let mut entry = self.entry();
        if !entry.booked {
            entry.outcome = Some(Outcome::Complete);
            entry.status = status;
            entry.duration = self.elapsed();
            self.0.sink.commit(&entry).await?;
            self.note(|entry| entry.booked = true);
        }
        Ok(())
    }

    /// A meter of its own for what goes on behind the reply to this request: that one has the row in the ledger,
    /// under `route`, and this one none.
    #[must_use]
    pub fn detach(&self, route: &'static str) -> Self {
        let mut entry = self.entry();
        self.note(|entry| entry.booked = true);
        entry.route = route;
        entry.status = 200;
        let detached = Self::start(Arc::clone(&self.0.sink), entry);
        *detached.0.permit.lock() = self.0.permit.lock().take();
        detached
    }

    /// Whether what the request cost is to be told.
    pub fn asks_cost(&self) -> bool {
        self.0.entry.lock().cost_asked
    }

    /// [`Meter::cost`] in dollars, or `unknown`.
    pub fn cost_text(&self) -> String {
        self.cost().map_or_else(|| "unknown".to_owned(), price::decimal)
    }

    /// What the tokens that are known by now cost, in nano-dollars, if the price is known.
    pub fn cost(&self) -> Option<u64> {
        self.0.sink.cost(&self.0.entry.lock())
    }

    /// Tells of one call to Google that ended with `status`, if it came to one, and from a closed set why it failed,
    /// if it did. Gives what the call before it had failed of: then this one was a retry.
    pub fn attempt(
        &self,
        site: &str,
        status: Option<u16>,
        reason: Option<&'static str>,
    ) -> Option<&'static str> {
        let mut before = None;
        self.note(|entry| {
            before = std::mem::replace(&mut entry.failing, reason);
            entry.retried = before.or(entry.retried);
            entry.attempts += 1;
            entry.site = Some(site.to_owned());
            entry.upstream_status = status;
            if let Some(trace) = &mut entry.trace {
                let ended = self.elapsed();
                trace.called(site, status, reason, ended.saturating_sub(entry.last_wait), ended);
            }
        });
        before
    }

    /// The `traceparent` of the call that is about to be made, where requests are traced.
    pub fn traceparent(&self) -> Option<HeaderValue> {
        if !self.0.traced {
            return None;
        }
        let mut header = None;
        self.note(|entry| header = entry.trace.as_ref().map(|trace| trace.outgoing()));
        header.and_then(|header| HeaderValue::try_from(header).ok())
    }

    /// Tells that `provider` was waited for, since then and until now.
    pub fn waited(&self, provider: &'static str, since: Instant) {
        let wait = since.elapsed();
        self.note(|entry| {
            entry.before.get_or_insert(since.saturating_duration_since(self.0.started));
            entry.provider = Some(provider);
            entry.upstream += wait;
            entry.last_wait = wait;
        });
    }

    /// The reply's head is ready, but for what `tell` says of the request: tells how long that took, and what of it was not
    /// spent waiting for Google. Unless the reply goes on after its head, and its end is told by whoever brings the rest, the
    /// request has ended.
    pub fn headed(
        &self,
        status: StatusCode,
        dropped: Option<String>,
        tell: impl FnOnce(&Entry),
    ) -> (Duration, Duration) {
        let elapsed = self.elapsed();
        let mut entry = self.0.entry.lock();
        let ours = elapsed.saturating_sub(entry.upstream);
        entry.status = status.as_u16();
        entry.overhead = Some(ours);
        entry.dropped = dropped;
        if !entry.stream && !entry.passed {
            // An error has said its own word already; this one counts for the rest.
            let end = if status.is_client_error() { Outcome::Refused } else { Outcome::Complete };
            entry.outcome.get_or_insert(end);
        }
        tell(&entry);
        (elapsed, ours)
    }

    /// The token counts as known by now; the last word stands. Their tier is what they say, or what the headers did.
    pub fn usage(&self, mut usage: Usage) {
        self.note(|entry| {
            if usage.tier == Tier::Standard {
                usage.tier = entry.tier.unwrap_or_default();
            }
            entry.usage = usage;
        });
    }

    /// An answer has begun; its headers name the tier that serves it, or none.
    pub fn served(&self, tier: Option<Tier>) {
        self.note(|entry| entry.served(tier));
    }

    /// The first event went out; later calls change nothing.
    pub fn first_token(&self) {
        let elapsed = self.elapsed();
        self.note(|entry| {
            entry.first_token.get_or_insert(elapsed);
        });
    }

    /// Says how the request ended. The first word stands.
    pub fn end(&self, outcome: Outcome) {
        self.note(|entry| {
            entry.outcome.get_or_insert(outcome);
        });
    }

    /// Says that the request ended in an error, which the client sees under `code`. The first word stands.
    pub fn fail(&self, error: &Error, code: Option<&str>) {
        let fault = Fault {
            kind: error.kind(),
            origin: error.origin(),
            code: code.map(str::to_owned),
            param: error.param().map(|param| clip(param, 80)),
            cause: causes(error),
            said: (error.origin() == Origin::Upstream).then(|| clip(&hide_keys(error.message()), 500)),
        };
        self.note(|entry| {
            if entry.outcome.is_none() {
                entry.outcome = Some(Outcome::of(error));
                entry.error = Some(fault);
            }
        });
    }

    /// The request was let in: its permit lives as long as the request does, and is settled with it. `estimate` is
    /// what a client that leaves before Google has said anything is charged.
    pub fn admitted(&self, mut permit: Permit, estimate: Tokens) {
        self.tell(permit.take_headers());
        *self.0.permit.lock() = Some((permit, estimate));
    }

    /// Headers that the reply, or the error, is to have.
    pub fn tell(&self, headers: Vec<(HeaderName, HeaderValue)>) {
        let mut told = self.0.told.lock();
        if told.is_empty() {
            *told = headers;
        } else {
            told.extend(headers);
        }
    }

    /// Those headers, once.
    pub fn told(&self) -> Vec<(HeaderName, HeaderValue)> {
        std::mem::take(&mut *self.0.told.lock())
    }

    /// Lets this handle go before the thread writes the next time, which costs less than at once. See [`settle_later`].
    pub fn leave(self) {
        settle_later(self.0);
    }

    /// The entry as it stands.
    pub fn entry(&self) -> Entry {
        Entry::clone(&self.0.entry.lock())
    }
}

impl Settled for Inner {}

impl Drop for Inner {
    fn drop(&mut self) {
        let duration = self.started.elapsed();
        let entry = self.entry.get_mut();
        entry.duration = duration;
        let outcome = *entry.outcome.get_or_insert(Outcome::ClientGone);
        if entry.status == 0 {
            // Nothing was sent; nginx's number says so in one figure.
            entry.status = if outcome == Outcome::ClientGone { 499 } else { 500 };
        }
        let permit = self.permit.get_mut().take();
        entry.reserved = permit.as_ref().map(|(_, estimate)| estimate.input.saturating_add(estimate.output));
        if let Some((_, estimate)) = &permit
            && outcome == Outcome::ClientGone
        {
            // What Google had said by then stands; what it did after is not known.
            entry.usage.estimated = true;
            if entry.usage.total() == 0 {
                entry.usage.input = estimate.input;
            }
        }
        // An answer that broke was billed as far as it had come, and nobody says how far that was.
        let broke = matches!(outcome, Outcome::Failed | Outcome::Drained) && entry.first_token.is_some();
        entry.usage.estimated |= broke && entry.usage.total() > 0;
        entry.cost = self.sink.cost(entry);
        if let Some((permit, _)) = permit {
            let tokens = Tokens { input: entry.usage.prompt(), output: entry.usage.completion() };
            permit.settle(&Used { tokens, nanos: entry.cost });
        }
        self.sink.settle(entry);
    }
}

/// Why there was no capacity for a request, if that is what it failed of.
fn shed(entry: &Entry) -> Option<&'static str> {
    let fault = entry.error.as_ref()?;
    if fault.kind != Kind::Overloaded || fault.origin != Origin::Gateway {
        return None;
    }
    let known = ["gateway_overloaded", "upstream_circuit_open", "ledger_unavailable"];
    Some(known.into_iter().find(|known| fault.code.as_deref() == Some(known)).unwrap_or("other"))
}

fn causes(error: &Error) -> Option<String> {
    let mut text = String::new();
    let mut next = std::error::Error::source(error);
    while let Some(cause) = next {
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    if text.is_empty() { None } else { Some(clip(&hide_keys(&text), 500)) }
}

/// Masks what looks like a Google key or token: other people's error texts may quote the URL or header.
fn hide_keys(text: &str) -> String {
    let secret =
        |word: &str| word.starts_with("AIza") || word.starts_with("ya29.") || word.starts_with("sk-");
    let mut clean = String::with_capacity(text.len());
    for piece in text.split_inclusive(|c: char| !(c.is_ascii_alphanumeric() || "-_.".contains(c))) {
        let word = piece.trim_end_matches(|c: char| !(c.is_ascii_alphanumeric() || "-_.".contains(c)));
        if secret(word) {
            clean.push_str(&mask(word));
            clean.push_str(piece.strip_prefix(word).unwrap_or_default());
        } else {
            clean.push_str(piece);
        }
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default)]
    struct Kept(Mutex<Vec<Entry>>);

    impl Sink for Kept {
        fn settle(&self, entry: &Entry) {
            self.0.lock().push(entry.clone());
        }
    }

    #[test]
    fn it_settles_once_when_the_last_handle_goes() {
        let kept = Arc::new(Kept::default());
        let sink: Arc<dyn Sink> = Arc::<Kept>::clone(&kept);
        let meter = Meter::start(sink, Entry::default());
        let other = meter.clone();
        meter.end(Outcome::Complete);
        drop(meter);
        assert!(kept.0.lock().is_empty());
        other.fail(&Error::internal("late"), None);
        drop(other);
        let entries = kept.0.lock();
        assert_eq!(entries.len(), 1);
        assert_eq!(entries[0].outcome, Some(Outcome::Complete));
    }

    #[test]
    fn the_headers_tier_stands_unless_the_counts_name_one() {
        let meter = Meter::start(Arc::new(Kept::default()), Entry::default());
        meter.served(Some(Tier::Flex));
        assert_eq!(meter.entry().usage.tier, Tier::Flex);
        meter.usage(Usage { input: 1, ..Usage::default() });
        assert_eq!(meter.entry().usage.tier, Tier::Flex);
        meter.usage(Usage { input: 1, tier: Tier::Priority, ..Usage::default() });
        assert_eq!(meter.entry().usage.tier, Tier::Priority);
        // Another site answers in the end, and says nothing.
        meter.served(None);
        assert_eq!(meter.entry().usage.tier, Tier::Standard);
    }

    #[test]
    fn a_share_of_the_log_is_evenly_spread() {
        let books = |share| Books::new(Arc::new(Metrics::new())).logging(share);
        let logged = |share| {
            let books = books(share);
            (0..100).filter(|_| books.is_logged()).count()
        };
        assert_eq!([logged(0.0), logged(0.1), logged(0.25), logged(1.0)], [0, 10, 25, 100]);
    }

    #[test]
    fn a_limit_of_ours_is_no_failure_and_a_quota_of_googles_is() {
        let outcome = |kind, origin| Outcome::of(&Error::new(kind, origin, "no"));
        for kind in [Kind::RateLimited, Kind::QuotaSpent] {
            assert_eq!(outcome(kind, Origin::Gateway), Outcome::Refused);
            assert_eq!(outcome(kind, Origin::Upstream), Outcome::Failed);
        }
        assert_eq!(outcome(Kind::Overloaded, Origin::Gateway), Outcome::Failed);
    }

    #[test]
    fn silence_means_the_client_left() {
        let kept = Arc::new(Kept::default());
        let sink: Arc<dyn Sink> = Arc::<Kept>::clone(&kept);
        drop(Meter::start(sink, Entry::default()));
        let entries = kept.0.lock();
        assert_eq!(entries[0].outcome, Some(Outcome::ClientGone));
        assert_eq!(entries[0].status, 499);
    }

    #[test]
    fn keys_in_foreign_errors_are_masked() {
        let shown = hide_keys("no route to https://x/?key=AIzaSyA1234567890abcd&x=1");
        assert!(!shown.contains("AIzaSyA1234567890abcd"), "{shown}");
        assert!(shown.contains("&x=1"), "{shown}");
    }
}
