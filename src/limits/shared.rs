//! Counts that all replicas on one Redis share: one script looks at all limits of a request and charges them, or
//! charges none. The only clock is Redis's own. Keys hold hashes, and one hash tag, so that a cluster keeps them in
//! one slot, where the script can see them together.
//!
//! Redis is never waited for: a call has a time budget, and after a few failures it is left alone but for a
//! probe each second. What then happens is the operator's choice ([`OnFailure`]). What was settled meanwhile is
//! told to it when it is back.

use std::collections::{HashMap, VecDeque};
use std::fmt::{self, Write as _};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{Client, Script};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use tokio::sync::Notify;

use super::{Charge, Refused, State, Verdict, What};
use crate::error::{Error, Kind, Origin, Result};
use crate::ids::Ids;
use crate::telemetry::Accounts;

/// A place is believed for so long after its gateway spoke of it last, and renewed well before.
const LEASE: Duration = Duration::from_mins(1);
const RENEW: Duration = Duration::from_secs(20);

/// After so many failures in a row Redis is left alone, for so long at a time.
const FAILURES: u32 = 3;
const REST: Duration = Duration::from_secs(1);

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
    /// `redis://…`; may hold a password.
    pub url: SecretString,
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
    admit: Script,
    settle: Script,
    sharing: Sharing,
    health: Mutex<Health>,
    live: Mutex<HashMap<String, Vec<Charge>>>,
    backlog: Mutex<VecDeque<Settlement>>,
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
    /// Since it is left alone; and when it was tried last.
    open: Option<(Instant, Instant)>,
}

struct Settlement {
    lease: String,
    charges: Vec<Charge>,
    actual: Vec<u64>,
}

impl Shared {
    pub(super) fn new(sharing: &Sharing, accounts: Accounts) -> Result<Self> {
        let client = Client::open(sharing.url.expose_secret()).map_err(|error| {
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
            admit: Script::new(include_str!("shared.lua")),
            settle: Script::new(include_str!("settle.lua")),
            sharing: sharing.clone(),
            health: Mutex::default(),
            live: Mutex::default(),
            backlog: Mutex::default(),
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
        charges: &[Charge],
        seeds: &[u64],
    ) -> Result<(Verdict, String), OnFailure> {
        if !self.may_try() {
            return Err(self.sharing.on_failure);
        }
        let lease = Ids::Random.mint("");
        let words = charges.iter().zip(seeds).map(|(charge, seed)| match &charge.what {
            What::Budget { bounded, .. } => format!("{seed}:{}", u8::from(*bounded)),
            What::Minute | What::Day | What::Input | What::Output | What::Total | What::Flights => {
                "-".to_owned()
            }
        });
        let call = self.call(&self.admit, &lease, charges, words.collect());
        let asked = Instant::now();
        let answered = tokio::time::timeout(self.sharing.timeout, call).await;
        self.accounts.store_took(asked.elapsed());
        let verdict = match answered {
            Ok(Ok(numbers)) => verdict(charges, &numbers),
            Ok(Err(error)) => Err(error.to_string()),
            Err(late) => Err(late.to_string()),
        };
        match verdict {
            Ok(verdict) => {
                self.works();
                if verdict.is_ok() && charges.iter().any(|charge| held(&charge.what)) {
                    self.live.lock().insert(lease.clone(), charges.to_vec());
                }
                Ok((verdict, lease))
            }
            Err(error) => {
                self.fails(&error);
                // It may have been taken all the same: then it is given back when Redis listens again.
                let undone =
                    charges.iter().map(|charge| if held(&charge.what) { 0 } else { charge.cost }).collect();
                self.queue(Settlement { lease, charges: charges.to_vec(), actual: undone });
                Err(self.sharing.on_failure)
            }
        }
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

    /// Tells Redis what was settled, and renews the places of live requests.
    pub(super) async fn care(&self) {
        let mut renewed = Instant::now();
        loop {
            tokio::select! {
                () = self.wake.notified() => {}
                () = tokio::time::sleep(REST) => {}
            }
            while let Some(next) = self.next() {
                let words = next.actual.iter().map(u64::to_string).collect();
                let call = self.call(&self.settle, &next.lease, &next.charges, words);
                let told: Result<Vec<String>, _> = call.await;
                if told.is_err() {
                    self.backlog.lock().push_front(next);
                    tokio::time::sleep(REST).await;
                    break;
                }
            }
            if renewed.elapsed() >= RENEW {
                renewed = Instant::now();
                self.renew().await;
            }
        }
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
        script: &Script,
        lease: &str,
        charges: &[Charge],
        words: Vec<String>,
    ) -> redis::RedisResult<Vec<String>> {
        let mut connection = self.connection()?;
        let mut invocation = script.prepare_invoke();
        for charge in charges {
            let [first, second] = keys(charge);
            invocation.key(first).key(second);
        }
        invocation.arg(lease).arg(u64::try_from(LEASE.as_millis()).unwrap_or(u64::MAX));
        for (charge, word) in charges.iter().zip(words) {
            let (kind, span) = match &charge.what {
                What::Minute | What::Day => ("r", charge.what.span()),
                What::Input | What::Output | What::Total => ("t", charge.what.span()),
                What::Flights => ("c", charge.what.span()),
                What::Budget { until_reset, .. } => {
                    ("b", u64::try_from(until_reset.as_millis()).unwrap_or(u64::MAX))
                }
            };
            invocation.arg(kind).arg(charge.limit).arg(charge.cost).arg(span).arg(word);
        }
        invocation.invoke_async(&mut connection).await
    }

    fn connection(&self) -> redis::RedisResult<ConnectionManager> {
        let mut connection = self.connection.lock();
        if let Some(connection) = &*connection {
            return Ok(connection.clone());
        }
        let made = ConnectionManager::new_lazy_with_config(self.client.clone(), self.config.clone())?;
        Ok(connection.insert(made).clone())
    }

    /// Whether Redis is asked; one request a second tries when it is left alone.
    fn may_try(&self) -> bool {
        match &mut self.health.lock().open {
            None => true,
            Some((_, tried)) if tried.elapsed() >= REST => {
                *tried = Instant::now();
                true
            }
            Some(_) => false,
        }
    }

    fn works(&self) {
        let mut health = self.health.lock();
        health.failures = 0;
        if let Some((since, _)) = health.open.take() {
            self.accounts.store_up(true);
            tracing::info!(seconds = since.elapsed().as_secs(), "the store of shared limits is back");
        }
    }

    fn fails(&self, error: &str) {
        self.accounts.store_error();
        let mut health = self.health.lock();
        health.failures = health.failures.saturating_add(1);
        let now = Instant::now();
        if let Some((_, tried)) = &mut health.open {
            *tried = now;
        } else if health.failures >= FAILURES {
            health.open = Some((now, now));
            self.accounts.store_up(false);
            tracing::warn!(error, then = ?self.sharing.on_failure, "the store of shared limits is away");
        }
    }
}

/// What must be given back when the request ends.
fn held(what: &What) -> bool {
    matches!(what, What::Flights | What::Budget { .. })
}

/// The same subject gives the same keys in every replica; a budget's name its period.
fn keys(charge: &Charge) -> [String; 2] {
    let digest = Sha256::digest(charge.subject.as_bytes());
    let mut name = format!("gemway:{VERSION}:{{limits}}:");
    for byte in digest.iter().take(16) {
        let _ = write!(name, "{byte:02x}");
    }
    if let What::Budget { period, .. } = &charge.what {
        let _ = write!(name, ":{period}");
    }
    let second = format!("{name}:b");
    [name, second]
}

fn verdict(charges: &[Charge], answer: &[String]) -> Result<Verdict, String> {
    let numbers: Vec<u64> = answer.iter().filter_map(|word| word.parse().ok()).collect();
    let (Some((all, rest)), true) = (numbers.split_first(), numbers.len() == 1 + charges.len() * 5) else {
        return Err("an answer of another form".to_owned());
    };
    let (parts, _) = rest.as_chunks::<5>();
    let state = |[_, remaining, millis, spent, reserved]: &[u64; 5]| State {
        remaining: *remaining,
        millis: *millis,
        spent: *spent,
        reserved: *reserved,
    };
    if *all == 1 {
        return Ok(Ok(parts.iter().map(state).collect()));
    }
    let refusing = parts.iter().enumerate().filter(|(_, part)| part[0] == 0);
    let longest = refusing.max_by_key(|(_, part)| part[2]);
    let Some((at, part)) = longest else { return Err("a refusal without a reason".to_owned()) };
    Ok(Err(Refused { at, state: state(part) }))
}
