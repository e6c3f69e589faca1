//! Counts that all replicas on one Redis share: one script looks at all limits of a request and charges them, or
//! charges none. The only clock is Redis's own. Keys hold hashes, and one hash tag, so that a cluster keeps them in
//! one slot, where the script can see them together.
//!
//! Redis is never waited for: a call has a time budget, and after a few failures it is left alone but for a
//! probe beside the requests. What then happens is the operator's choice ([`OnFailure`]). When it is back it is told
//! what it missed before it is asked again; one that has lost its counts, what each replica let through in all
//! windows that still count, and it is asked again when all have had the time to tell.
//!
//! An answer that comes too late is heard all the same, so that what a request was charged there and what
//! became of it here do not drift apart.

use std::collections::{HashMap, VecDeque};
use std::fmt::{self, Write as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{Client, Script, TlsCertificates};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use tokio::sync::Notify;

use super::local::Local;
use super::{Charge, Refused, State, Verdict, What};
use crate::error::{Error, Kind, Origin, Result};
use crate::ids::Ids;
use crate::telemetry::Accounts;

/// A place is believed for so long after its gateway spoke of it last, and renewed well before.
const LEASE: Duration = Duration::from_mins(1);
const RENEW: Duration = Duration::from_secs(20);

/// After so many failures in a row Redis is left alone, but for a look this often.
const FAILURES: u32 = 3;
const PROBE: Duration = Duration::from_millis(250);

/// How long to wait before something is told again, and how long at most for an answer that is late.
const REST: Duration = Duration::from_secs(1);
const LATE: Duration = Duration::from_secs(2);

/// A Redis that has lost its counts is asked again when it is so old: by then every replica has told it.
const YOUNG: u64 = 2000;

/// Settlements that wait for a Redis that is away; the oldest go first.
const BACKLOG: usize = 100_000;

/// In every key: another form of counts gets another number, so that releases side by side never mix them.
const VERSION: u32 = 1;

/// What a limit does while its shared store is away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFailure {
    /// Count in this process, with an equal part of the limit.
    Local,
    /// Refuse.
    Deny,
    /// Let through.
    Allow,
}

/// How replicas share limits.
#[derive(Clone, Debug)]
pub struct Sharing {
    /// `redis://…`, or `rediss://…` for TLS; may hold a password.
    pub url: SecretString,
    /// Whom its certificate is checked against, in place of the machine's roots: a PEM file.
    pub ca_file: Option<PathBuf>,
    /// What happens while it is away.
    pub on_failure: OnFailure,
    /// How many replicas there are, for `Local`.
    pub replicas: u32,
    /// How long a request waits for it.
    pub timeout: Duration,
}

pub(super) struct Shared {
    connection: Mutex<Option<ConnectionManager>>,
    client: Client,
    config: ConnectionManagerConfig,
    admit: Arc<Script>,
    settle: Arc<Script>,
    replay: Arc<Script>,
    /// When the counts there began, by its own clock; 0 before that is known.
    born: AtomicU64,
    sharing: Sharing,
    health: Mutex<Health>,
    live: Mutex<HashMap<String, Vec<Charge>>>,
    backlog: Mutex<VecDeque<Settlement>>,
    /// What is to be put right there: requests that it counted and that were not let through.
    wrong: Mutex<Vec<Word>>,
    wake: Notify,
    accounts: Accounts,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("on_failure", &self.sharing.on_failure).finish_non_exhaustive()
    }
}

#[derive(Debug, Default)]
struct Health {
    failures: u32,
    /// Since when it is left alone.
    open: Option<Instant>,
    /// It has lost its counts, and other replicas may not have told theirs yet.
    reborn: bool,
}

/// A count's name in the store, before it is spelled out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Name([u8; 16]);

impl Name {
    pub(super) fn of(charge: &Charge) -> Self {
        let digest: [u8; 32] =
            Sha256::digest(charge.subject.as_deref().unwrap_or_default().as_bytes()).into();
        Self(digest.first_chunk().copied().unwrap_or_default())
    }

    fn spell(self) -> String {
        let mut name = format!("gemway:{VERSION}:{{limits}}:");
        for byte in self.0 {
            let _ = write!(name, "{byte:02x}");
        }
        name
    }
}

/// What a replica tells of one count.
#[derive(Clone, Debug)]
pub(super) struct Word {
    pub(super) name: Name,
    pub(super) said: Said,
}

#[derive(Clone, Debug)]
pub(super) enum Said {
    /// So many requests at these times, in a window so long (ms).
    Requests(u64, Vec<(u64, u64)>),
    /// The last request was not let through after all; the window.
    NotThis(u64),
    /// When the bucket is full again.
    Tokens(f64),
}

/// Why Redis did not decide.
pub(super) struct Missed {
    pub(super) then: OnFailure,
    /// Its answer may still come.
    pub(super) late: Option<Late>,
}

/// An answer that is late.
pub(super) struct Late {
    answer: BoxFuture<'static, redis::RedisResult<Vec<String>>>,
    lease: String,
}

struct Settlement {
    lease: String,
    charges: Vec<Charge>,
    actual: Vec<u64>,
}

impl Shared {
    pub(super) fn new(sharing: &Sharing, accounts: Accounts) -> Result<Self> {
        let roots = sharing.ca_file.as_ref().map(|path| {
            std::fs::read(path).map_err(|error| {
                let words = format!("limits.ca_file {} cannot be read: {error}", path.display());
                Error::new(Kind::Invalid, Origin::Gateway, words)
            })
        });
        let roots = roots.transpose()?;
        let url = sharing.url.expose_secret();
        let opened = if url.starts_with("rediss://") {
            Client::build_with_tls(url, TlsCertificates { client_tls: None, root_cert: roots })
        } else {
            Client::open(url)
        };
        let client = opened.map_err(|error| {
            Error::new(
                Kind::Invalid,
                Origin::Gateway,
                "limits.redis is not a URL such as \"redis://HOST:6379\"",
            )
            .because(error)
        })?;
        let config = ConnectionManagerConfig::new()
            .set_number_of_retries(1)
            .set_connection_timeout(Some(Duration::from_secs(1)))
            .set_response_timeout(Some(Duration::from_secs(1)));
        Ok(Self {
            connection: Mutex::default(),
            client,
            config,
            admit: Arc::new(Script::new(include_str!("shared.lua"))),
            settle: Arc::new(Script::new(include_str!("settle.lua"))),
            replay: Arc::new(Script::new(include_str!("replay.lua"))),
            born: AtomicU64::new(0),
            sharing: sharing.clone(),
            health: Mutex::default(),
            live: Mutex::default(),
            backlog: Mutex::default(),
            wrong: Mutex::default(),
            wake: Notify::new(),
            accounts,
        })
    }

    pub(super) fn replicas(&self) -> u64 {
        u64::from(self.sharing.replicas.max(1))
    }

    /// Looks at all charges and takes them, or takes none; gives the name of the request's place as well.
    pub(super) async fn admit(
        &self,
        key: &str,
        charges: &[Charge],
        seeds: &[u64],
    ) -> Result<(Verdict, String), Missed> {
        let missed = |late| Missed { then: self.sharing.on_failure, late };
        if self.is_away() {
            return Err(missed(None));
        }
        let lease = Ids::Random.mint("");
        let mine = Name(Sha256::digest(key.as_bytes()).first_chunk().copied().unwrap_or_default()).spell();
        let words = charges.iter().zip(seeds).map(|(charge, seed)| match &charge.what {
            What::Budget { bounded, .. } => format!("{seed}:{}", u8::from(*bounded)),
            What::Minute if charge.common => mine.clone(),
            What::Minute | What::Day | What::Input | What::Output | What::Total | What::Flights => {
                "-".to_owned()
            }
        });
        let asked = Instant::now();
        let mut answer = self.ask(&lease, charges, words.collect());
        let answered = tokio::time::timeout(self.sharing.timeout, &mut answer).await;
        self.accounts.store_took(asked.elapsed());
        let verdict = match answered {
            Ok(Ok(numbers)) => read(charges, &numbers),
            Ok(Err(error)) => Err(error.to_string()),
            Err(late) => {
                self.fails(&late.to_string());
                return Err(missed(Some(Late { answer, lease })));
            }
        };
        match verdict {
            Ok(Heard::Said(born, verdict)) => {
                self.born.store(born, Ordering::Relaxed);
                self.works();
                if verdict.is_ok() && charges.iter().any(|charge| held(&charge.what)) {
                    self.live.lock().insert(lease.clone(), charges.to_vec());
                }
                Ok((verdict, lease))
            }
            Ok(Heard::Lost) => {
                self.lost();
                Err(missed(None))
            }
            Err(error) => {
                self.fails(&error);
                self.undo(lease, charges, true);
                Err(missed(None))
            }
        }
    }

    /// Hears what an answer that was late says, and makes it and what became of the request agree. `took`: it was let
    /// through, at that time by the clock of this replica's counts.
    pub(super) async fn reconcile(&self, late: Late, charges: &[Charge], took: Option<u64>, local: &Local) {
        let Late { answer, lease } = late;
        let heard = tokio::time::timeout(LATE, answer).await;
        let charged = match heard {
            Ok(Ok(numbers)) => matches!(read(charges, &numbers), Ok(Heard::Said(_, Ok(_)))),
            Ok(Err(_)) | Err(_) => false,
        };
        self.undo(lease, charges, took.is_some());
        match took {
            Some(at) if !charged => charges.iter().for_each(|charge| local.untold(charge, at)),
            None if charged => {
                let requests = charges.iter().filter(|c| matches!(c.what, What::Minute | What::Day));
                let words = requests
                    .map(|charge| Word { name: Name::of(charge), said: Said::NotThis(charge.what.span()) });
                self.wrong.lock().extend(words);
            }
            Some(_) | None => {}
        }
        self.wake.notify_one();
    }

    /// Gives back what may have been taken for a request that is not settled there. Tokens stay if it `took` them here.
    fn undo(&self, lease: String, charges: &[Charge], took: bool) {
        let kept = |charge: &Charge| if held(&charge.what) || !took { 0 } else { charge.cost };
        let actual = charges.iter().map(kept).collect();
        self.queue(Settlement { lease, charges: charges.to_vec(), actual });
    }

    pub(super) fn settle(&self, lease: &str, charges: &[Charge], actual: &[u64]) {
        self.live.lock().remove(lease);
        self.queue(Settlement {
            lease: lease.to_owned(),
            charges: charges.to_vec(),
            actual: actual.to_vec(),
        });
    }

    fn queue(&self, settlement: Settlement) {
        let mut backlog = self.backlog.lock();
        if backlog.len() >= BACKLOG {
            backlog.pop_front();
        }
        backlog.push_back(settlement);
        drop(backlog);
        self.wake.notify_one();
    }

    /// Tells Redis what was settled and what it does not know, and renews the places of live requests.
    pub(super) async fn care(&self, local: &Local) {
        let mut renewed = Instant::now();
        // What a Redis that is back is still to be told.
        let mut news = VecDeque::new();
        loop {
            if self.is_away() {
                tokio::time::sleep(PROBE).await;
                if !self.returned(local, &mut news).await {
                    continue;
                }
            }
            if !self.tell(local).await {
                tokio::time::sleep(REST).await;
            }
            if renewed.elapsed() >= RENEW {
                renewed = Instant::now();
                self.renew().await;
            }
            tokio::select! {
                () = self.wake.notified() => {}
                () = tokio::time::sleep(if self.is_away() { PROBE } else { REST }) => {}
            }
        }
    }

    /// Whether Redis is back, has been told what it missed, and has been there long enough for the other replicas to
    /// have told theirs.
    async fn returned(&self, local: &Local, news: &mut VecDeque<Word>) -> bool {
        if !matches!(tokio::time::timeout(REST, self.ask("", &[], Vec::new())).await, Ok(Ok(_))) {
            // The next look makes a connection of its own.
            *self.connection.lock() = None;
            return false;
        }
        // With the connection made, it must be as fast as requests want it.
        let answer = tokio::time::timeout(self.sharing.timeout, self.ask("", &[], Vec::new())).await;
        let Some((born, age)) = answer.ok().and_then(Result::ok).and_then(|answer| birth(&answer)) else {
            return false;
        };
        let known = self.born.swap(born, Ordering::Relaxed);
        if known != 0 && known != born {
            self.health.lock().reborn = true;
            news.clear();
            news.extend(local.everything());
            self.renew().await;
        }
        news.extend(local.take_untold());
        while let Some(word) = news.pop_front() {
            if self.replay(&word, local.now()).await.is_err() {
                news.push_front(word);
                return false;
            }
        }
        if self.health.lock().reborn && age < YOUNG {
            return false;
        }
        self.works();
        true
    }

    /// Tells what waits to be told; `false` when that did not work.
    async fn tell(&self, local: &Local) -> bool {
        while let Some(next) = self.next() {
            let words = next.actual.iter().map(u64::to_string).collect();
            if self.call(&self.settle, &next.lease, &next.charges, words).await.is_err() {
                self.backlog.lock().push_front(next);
                return false;
            }
        }
        let mut words = std::mem::take(&mut *self.wrong.lock());
        if !self.is_away() {
            words.extend(local.take_untold());
        }
        for word in words {
            // One that is lost is one request in a window, and Redis is away again.
            if self.replay(&word, local.now()).await.is_err() {
                return false;
            }
        }
        true
    }

    async fn replay(&self, word: &Word, now: u64) -> redis::RedisResult<()> {
        let mut connection = self.connection()?;
        let name = word.name.spell();
        let mut call = self.replay.key(&name);
        call.key(format!("{name}:b"));
        match &word.said {
            Said::Requests(span, cells) => {
                call.arg("r").arg(*span);
                for (at, count) in cells {
                    call.arg(now.saturating_sub(*at)).arg(*count);
                }
            }
            Said::NotThis(span) => {
                call.arg("r").arg(*span).arg(0).arg(-1);
            }
            Said::Tokens(full_at) => {
                call.arg("t").arg((full_at - super::bucket::float(now)).max(0.0));
            }
        }
        call.invoke_async(&mut connection).await
    }

    fn next(&self) -> Option<Settlement> {
        self.backlog.lock().pop_front()
    }

    async fn renew(&self) {
        let live: Vec<_> =
            self.live.lock().iter().map(|(lease, charges)| (lease.clone(), charges.clone())).collect();
        for (lease, charges) in live {
            // One that has ended in the meantime must not be brought back.
            if !self.live.lock().contains_key(&lease) {
                continue;
            }
            let words = charges.iter().map(|_| "keep".to_owned()).collect();
            if self.call(&self.settle, &lease, &charges, words).await.is_err() {
                return;
            }
        }
    }

    async fn call(
        &self,
        script: &Arc<Script>,
        lease: &str,
        charges: &[Charge],
        words: Vec<String>,
    ) -> redis::RedisResult<Vec<String>> {
        let lease_ms = u64::try_from(LEASE.as_millis()).unwrap_or(u64::MAX);
        let head = vec![lease.to_owned(), lease_ms.to_string()];
        self.invoke(script, keys_of(charges), head, charges, words).await
    }

    /// Asks for a verdict. The answer is worth waiting for whoever asked.
    fn ask(
        &self,
        lease: &str,
        charges: &[Charge],
        words: Vec<String>,
    ) -> BoxFuture<'static, redis::RedisResult<Vec<String>>> {
        let mut keys = keys_of(charges);
        keys.push(format!("gemway:{VERSION}:{{limits}}:born"));
        let lease_ms = u64::try_from(LEASE.as_millis()).unwrap_or(u64::MAX);
        // Whoever only looks wants to know, whatever it is.
        let known = if charges.is_empty() { 0 } else { self.born.load(Ordering::Relaxed) };
        let head = vec![lease.to_owned(), lease_ms.to_string(), known.to_string()];
        self.invoke(&self.admit, keys, head, charges, words)
    }

    fn invoke(
        &self,
        script: &Arc<Script>,
        keys: Vec<String>,
        mut arguments: Vec<String>,
        charges: &[Charge],
        words: Vec<String>,
    ) -> BoxFuture<'static, redis::RedisResult<Vec<String>>> {
        for (charge, word) in charges.iter().zip(words) {
            let (kind, span) = match &charge.what {
                What::Minute | What::Day => ("r", charge.what.span()),
                What::Input | What::Output | What::Total => ("t", charge.what.span()),
                What::Flights => ("c", charge.what.span()),
                What::Budget { until_reset, .. } => {
                    ("b", u64::try_from(until_reset.as_millis()).unwrap_or(u64::MAX))
                }
            };
            let (limit, cost) = (charge.limit.to_string(), charge.cost.to_string());
            arguments.extend([kind.to_owned(), limit, cost, span.to_string(), word]);
        }
        let (script, connection) = (Arc::clone(script), self.connection());
        Box::pin(async move {
            let mut call = script.prepare_invoke();
            for key in keys {
                call.key(key);
            }
            for argument in arguments {
                call.arg(argument);
            }
            call.invoke_async(&mut connection?).await
        })
    }

    fn connection(&self) -> redis::RedisResult<ConnectionManager> {
        let mut connection = self.connection.lock();
        if let Some(connection) = &*connection {
            return Ok(connection.clone());
        }
        let made = ConnectionManager::new_lazy_with_config(self.client.clone(), self.config.clone())?;
        Ok(connection.insert(made).clone())
    }

    /// Whether it is left alone.
    fn is_away(&self) -> bool {
        self.health.lock().open.is_some()
    }

    fn works(&self) {
        let mut health = self.health.lock();
        (health.failures, health.reborn) = (0, false);
        if let Some(since) = health.open.take() {
            self.accounts.store_up(true);
            tracing::info!(seconds = since.elapsed().as_secs(), "the store of shared limits is back");
        }
    }

    fn fails(&self, error: &str) {
        self.accounts.store_error();
        let mut health = self.health.lock();
        health.failures = health.failures.saturating_add(1);
        if health.open.is_none() && health.failures >= FAILURES {
            health.open = Some(Instant::now());
            self.accounts.store_up(false);
            tracing::warn!(error, then = ?self.sharing.on_failure, "the store of shared limits is away");
            self.wake.notify_one();
        }
    }

    /// It answers, and has lost what it counted.
    fn lost(&self) {
        let mut health = self.health.lock();
        if health.open.is_none() {
            health.open = Some(Instant::now());
            self.accounts.store_up(false);
            tracing::warn!("the store of shared limits has lost its counts; it is told them");
            self.wake.notify_one();
        }
    }
}

/// What must be given back when the request ends.
fn held(what: &What) -> bool {
    matches!(what, What::Flights | What::Budget { .. })
}

/// The same subject gives the same keys in every replica; a budget's name its period.
fn keys_of(charges: &[Charge]) -> Vec<String> {
    let mut keys = Vec::with_capacity(3 * charges.len() + 1);
    for charge in charges {
        let mut name = Name::of(charge).spell();
        if let What::Budget { period, .. } = &charge.what {
            let _ = write!(name, ":{period}");
        }
        keys.extend([format!("{name}:b"), format!("{name}:f")]);
        keys.insert(keys.len() - 2, name);
    }
    keys
}

/// What the script said.
enum Heard {
    /// A verdict, and when its counts began.
    Said(u64, Verdict),
    /// It has lost what it counted before.
    Lost,
}

/// When the counts began, and how long ago that is.
fn birth(answer: &[String]) -> Option<(u64, u64)> {
    Some((answer.get(1)?.parse().ok()?, answer.get(2)?.parse().ok()?))
}

fn read(charges: &[Charge], answer: &[String]) -> Result<Heard, String> {
    let numbers: Vec<u64> = answer.iter().filter_map(|word| word.parse().ok()).collect();
    let ([all, born, _], rest) = numbers.split_first_chunk::<3>().ok_or("an answer of another form")?;
    if *all == 2 {
        return Ok(Heard::Lost);
    }
    let (parts, over) = rest.as_chunks::<5>();
    if parts.len() != charges.len() || !over.is_empty() {
        return Err("an answer of another form".to_owned());
    }
    let state = |[_, remaining, millis, spent, reserved]: &[u64; 5]| State {
        remaining: *remaining,
        millis: *millis,
        spent: *spent,
        reserved: *reserved,
    };
    if *all == 1 {
        return Ok(Heard::Said(*born, Ok(parts.iter().map(state).collect())));
    }
    let refusing = parts.iter().enumerate().filter(|(_, part)| part[0] == 0);
    let longest = refusing.max_by_key(|(_, part)| part[2]);
    let Some((at, part)) = longest else { return Err("a refusal without a reason".to_owned()) };
    Ok(Heard::Said(*born, Err(Refused { at, state: state(part) })))
}
