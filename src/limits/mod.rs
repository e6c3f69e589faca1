//! How much a client may do: requests by minute and day, tokens by minute, requests at once, money by period.
//!
//! [`Limiter::admit`] either refuses or gives a [`Permit`]. All limits that a request touches are looked at and
//! charged together: either all take it or none does, so a refusal costs nothing. The permit holds the place
//! among the concurrent requests, the token estimate and the budget's worst case until it is settled.
//!
//! Requests are counted exactly, in a window that slides: at no time are there more than the limit in the last
//! minute or day. Tokens go through a bucket that may fall into debt, for what an answer takes is known when it
//! ends. Counts are this process's own, or those of all replicas on one Redis; see [`Sharing`].

mod bucket;
mod budget;
mod fair;
mod local;
mod shared;
#[cfg(test)]
mod tests;
mod window;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use http::{HeaderName, HeaderValue};

use crate::catalog::Pattern;
use crate::clock::Clock;
use crate::decimal::Short;
use crate::error::{Error, Kind, Origin, Result, Retry};
use crate::telemetry::Accounts;

pub use budget::{Amount, Budget, Period, Spent};
pub use shared::{OnFailure, Sharing};

use local::Local;
use shared::{Missed, Shared};

/// How much may be done; an absent number is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quota {
    /// Requests in a minute.
    pub requests_per_minute: Option<u32>,
    /// Requests in a day.
    pub requests_per_day: Option<u32>,
    /// Tokens in a minute, of prompt and answer together.
    pub tokens_per_minute: Option<u64>,
    /// Prompt tokens in a minute.
    pub input_tokens_per_minute: Option<u64>,
    /// Answer tokens in a minute, reasoning included.
    pub output_tokens_per_minute: Option<u64>,
    /// Requests at once.
    pub concurrent_requests: Option<u32>,
}

/// A limit that is not one key's own.
#[derive(Clone, Debug, Default)]
pub struct Rule {
    /// What refusals call it.
    pub name: String,
    /// Keys it applies to; none means all.
    pub keys: Vec<Pattern>,
    /// Models it applies to; none means all.
    pub models: Vec<Pattern>,
    /// Each key has a count of its own.
    pub per_key: bool,
    /// Each model has a count of its own.
    pub per_model: bool,
    /// How much.
    pub quota: Quota,
}

impl Rule {
    fn applies(&self, key: &str, model: &str) -> bool {
        let fits =
            |patterns: &[Pattern], name| patterns.is_empty() || patterns.iter().any(|p| p.matches(name));
        fits(&self.keys, key) && fits(&self.models, model)
    }
}

/// Where the limiter's steady time comes from.
#[derive(Clone, Debug)]
pub enum Timer {
    /// The machine's steady clock.
    Steady(Instant),
    /// Milliseconds moved by hand.
    Hand(Arc<AtomicU64>),
}

impl Timer {
    /// A steady clock that starts now.
    pub fn steady() -> Self {
        Self::Steady(Instant::now())
    }

    /// Milliseconds since the timer was made.
    fn millis(&self) -> u64 {
        match self {
            Self::Steady(start) => u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX),
            Self::Hand(millis) => millis.load(Ordering::Relaxed),
        }
    }
}

/// Tokens, as estimated before a call or as known after it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tokens {
    /// Of the prompt.
    pub input: u64,
    /// Of the answer.
    pub output: u64,
}

/// What a request is going to take, as far as can be known before.
#[derive(Clone, Copy, Debug)]
pub struct Claim<'a> {
    /// The key's name.
    pub key: &'a str,
    /// The model that will be dispatched.
    pub model: &'a str,
    /// The key's own limits.
    pub quota: &'a Quota,
    /// The key's budget.
    pub budget: Option<&'a Budget>,
    /// What the request will probably take.
    pub estimate: Tokens,
    /// The most it can take, in the budget's unit (nano-dollars or tokens); nothing where that is not known.
    pub worst: Option<u64>,
    /// The client itself named the bound that `worst` follows from.
    pub bounded: bool,
}

/// What was really used.
#[derive(Clone, Copy, Debug, Default)]
pub struct Used {
    /// Tokens.
    pub tokens: Tokens,
    /// Nano-dollars; nothing where the price is not known.
    pub nanos: Option<u64>,
}

/// All limits.
#[derive(Clone, Debug)]
pub struct Limiter(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    rules: ArcSwap<Vec<Rule>>,
    local: Local,
    shared: Option<Shared>,
    clock: Clock,
    accounts: Accounts,
}

/// Which limit is charged, and by how much.
#[derive(Clone, Debug)]
struct Charge {
    what: What,
    /// Whose limit: a metric label.
    scope: &'static str,
    /// The count it goes to, in words that are the same in every replica; only there where replicas share counts.
    subject: Option<Arc<str>>,
    /// The same as a number of this process.
    id: u64,
    limit: u64,
    cost: u64,
    /// Several keys draw on this count.
    common: bool,
}

/// What is counted.
#[derive(Clone, Debug, PartialEq, Eq)]
enum What {
    Minute,
    Day,
    Input,
    Output,
    Total,
    Flights,
    Budget { budget: Budget, bounded: bool, period: u64, until_reset: Duration },
}

const MINUTE: u64 = 60_000;
const DAY: u64 = 86_400_000;

impl What {
    const fn label(&self) -> &'static str {
        match self {
            Self::Minute => "rpm",
            Self::Day => "rpd",
            Self::Input => "input_tpm",
            Self::Output => "output_tpm",
            Self::Total => "tpm",
            Self::Flights => "concurrency",
            Self::Budget { .. } => "budget",
        }
    }

    /// Tells the counts of one subject apart.
    const fn number(&self) -> u64 {
        match self {
            Self::Minute => 0,
            Self::Day => 1,
            Self::Input => 2,
            Self::Output => 3,
            Self::Total => 4,
            Self::Flights => 5,
            Self::Budget { budget: Budget { per: Period::Day, .. }, .. } => 6,
            Self::Budget { budget: Budget { per: Period::Month, .. }, .. } => 7,
        }
    }

    /// Its window in milliseconds.
    const fn span(&self) -> u64 {
        match self {
            Self::Day => DAY,
            Self::Minute | Self::Input | Self::Output | Self::Total | Self::Flights | Self::Budget { .. } => {
                MINUTE
            }
        }
    }
}

/// Where a limit stands: after a request was counted, or when it was refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct State {
    remaining: u64,
    /// Until it is full again; when refused, until the request fits.
    millis: u64,
    /// A budget's: spent, and reserved by requests under way.
    spent: u64,
    reserved: u64,
}

/// What came of one look at all charges.
type Verdict = Result<Vec<State>, Refused>;

/// The charge that refused, by its place, and why.
#[derive(Clone, Copy, Debug)]
struct Refused {
    at: usize,
    state: State,
}

impl Limiter {
    /// Limits that are counted in this process alone.
    pub fn new(rules: Vec<Rule>, accounts: Accounts) -> Self {
        Self::build(rules, Timer::steady(), Clock::System, None, accounts)
    }

    /// The same, with time from elsewhere.
    pub fn with_timer(rules: Vec<Rule>, timer: Timer, clock: Clock) -> Self {
        Self::build(rules, timer, clock, None, Accounts::new())
    }

    /// Limits that all replicas on one Redis count together.
    ///
    /// # Errors
    /// `Invalid` when the address cannot be read; a Redis that is away is no error.
    pub fn sharing(rules: Vec<Rule>, sharing: &Sharing, accounts: Accounts) -> Result<Self> {
        let shared = Shared::new(sharing, accounts.clone())?;
        Ok(Self::build(rules, Timer::steady(), Clock::System, Some(shared), accounts))
    }

    fn build(
        rules: Vec<Rule>,
        timer: Timer,
        clock: Clock,
        shared: Option<Shared>,
        accounts: Accounts,
    ) -> Self {
        let rules = ArcSwap::from_pointee(rules);
        Self(Arc::new(Inner { rules, local: Local::new(timer), shared, clock, accounts }))
    }

    /// Other rules from now on; what was counted stays.
    pub fn adopt(&self, rules: Vec<Rule>) {
        self.0.rules.store(Arc::new(rules));
    }

    /// The rules in force.
    pub fn rules(&self) -> Arc<Vec<Rule>> {
        self.0.rules.load_full()
    }

    /// What a key has spent already, as the ledger knows it: budgets begin there.
    pub fn remember(&self, key: &str, period: Period, spent: Spent) {
        let now = self.0.clock.unix_seconds();
        self.0.local.remember(key, period, period.index(now), spent);
    }

    /// Lets one request in, or says when to come back.
    ///
    /// # Errors
    /// `RateLimited`, `QuotaSpent` for a budget, `Overloaded` when the shared store is away and that is how it
    /// is to be.
    pub async fn admit(&self, claim: &Claim<'_>) -> Result<Permit, Refusal> {
        let key = hash(claim.key);
        let charges = self.charges(claim, key)?;
        if charges.is_empty() {
            return Ok(Permit::free());
        }
        if let Some(shared) = &self.0.shared {
            let seeds: Vec<u64> = charges.iter().map(|charge| self.0.local.seed(charge, key)).collect();
            return match shared.admit(claim.key, &charges, &seeds).await {
                Ok((verdict, lease)) => {
                    self.learn(shared, &charges, &verdict);
                    self.verdict(charges, verdict, Some(lease), (claim, key))
                }
                Err(missed) => self.without(shared, missed, charges, (claim, key)),
            };
        }
        let verdict = self.0.local.admit(&charges, key);
        self.verdict(charges, verdict, None, (claim, key))
    }

    /// Keeps what the shared store said, for the time without it.
    fn learn(&self, shared: &Shared, charges: &[Charge], verdict: &Verdict) {
        let replicas = shared.replicas();
        match verdict {
            Ok(states) => {
                for (charge, state) in charges.iter().zip(states) {
                    self.0.local.learn(charge, state, true, replicas);
                }
            }
            Err(refused) => {
                if let Some(charge) = charges.get(refused.at) {
                    let none = State { remaining: 0, ..refused.state };
                    self.0.local.learn(charge, &none, false, replicas);
                }
            }
        }
    }

    /// Decides without the shared store, as the operator wants it.
    fn without(
        &self,
        shared: &Shared,
        missed: Missed,
        charges: Vec<Charge>,
        (claim, key): (&Claim<'_>, u64),
    ) -> Result<Permit, Refusal> {
        let at = self.0.local.now();
        let parts = |charge: &Charge| match &charge.what {
            What::Budget { .. } => charge.clone(),
            What::Minute | What::Day | What::Input | What::Output | What::Total | What::Flights => {
                Charge { limit: self.0.local.part(charge, shared.replicas()), ..charge.clone() }
            }
        };
        let (took, decided) = match missed.then {
            OnFailure::Local => {
                let charges: Vec<Charge> = charges.iter().map(parts).collect();
                let verdict = self.0.local.admit(&charges, key);
                let took = verdict.is_ok();
                (took, self.verdict(charges, verdict, None, (claim, key)))
            }
            OnFailure::Allow => (true, Ok(Permit::free())),
            OnFailure::Deny => {
                self.0.accounts.refused("store", "store");
                (false, Err(Refusal { error: store_away(), headers: Vec::new() }))
            }
        };
        match missed.late {
            Some(late) => {
                let limiter = self.clone();
                tokio::spawn(async move {
                    if let Some(shared) = &limiter.0.shared {
                        shared.reconcile(late, &charges, took.then_some(at), &limiter.0.local).await;
                    }
                });
            }
            None if took => charges.iter().for_each(|charge| self.0.local.untold(charge, at)),
            None => {}
        }
        decided
    }

    fn verdict(
        &self,
        charges: Vec<Charge>,
        verdict: Verdict,
        lease: Option<String>,
        (claim, key): (&Claim<'_>, u64),
    ) -> Result<Permit, Refusal> {
        match verdict {
            Ok(states) => {
                self.0.accounts.admitted();
                let headers = headers(&charges, &states);
                Ok(Permit { held: Some(Held { limiter: self.clone(), charges, lease, key }), headers })
            }
            Err(Refused { at, state }) => {
                let Some(charge) = charges.get(at) else {
                    return Err(Refusal {
                        error: Error::internal("a limit that was not asked"),
                        headers: Vec::new(),
                    });
                };
                self.0.accounts.refused(charge.what.label(), charge.scope);
                Err(Refusal {
                    error: refused(charge, &state, claim),
                    headers: headers(std::slice::from_ref(charge), &[State { spent: 0, ..state }]),
                })
            }
        }
    }

    /// Every limit that a request touches. `key` is the hash of the key's name.
    fn charges(&self, claim: &Claim<'_>, key: u64) -> Result<Vec<Charge>, Refusal> {
        let shares = self.0.shared.is_some();
        // A key's own limits, as a rule.
        let mut charges = Vec::with_capacity(6);
        let own = Subject::of_key(key);
        let named = || ["key\0", claim.key].concat();
        quota(&mut charges, claim.quota, "key", &own.named(shares, named), claim.estimate);
        for (index, rule) in self.0.rules.load().iter().enumerate() {
            if !rule.applies(claim.key, claim.model) {
                continue;
            }
            let key = if rule.per_key { claim.key } else { "" };
            let model = if rule.per_model { claim.model } else { "" };
            let scope = match (rule.per_key, rule.per_model) {
                (false, false) => "global",
                (true, false) => "each_key",
                (false, true) => "model",
                (true, true) => "key_and_model",
            };
            let before = charges.len();
            let subject = Subject { id: hash(&(index, &rule.name, key, model)), words: None };
            let named = || format!("rule\0{index}\0{}\0{key}\0{model}", rule.name);
            quota(&mut charges, &rule.quota, scope, &subject.named(shares, named), claim.estimate);
            for charge in charges.iter_mut().skip(before) {
                charge.common = !rule.per_key;
            }
        }
        if let Some(budget) = claim.budget {
            let now = self.0.clock.unix_seconds();
            let Some(worst) = claim.worst else {
                return Err(Refusal { error: unpriced(claim.model), headers: Vec::new() });
            };
            let period = budget.per.index(now);
            let until_reset = Duration::from_secs(budget.per.end(period).saturating_sub(now));
            let what = What::Budget { budget: *budget, bounded: claim.bounded, period, until_reset };
            let named = || ["key\0", claim.key, "\0", budget.per.as_str()].concat();
            charges.push(Charge::new(what, "key", &own.named(shares, named), budget.amount.count(), worst));
        }
        Ok(charges)
    }

    /// Keeps the limiter in order: expired counts go, places of live requests are renewed, what was settled is
    /// told to the shared store. Runs for ever; drop it to stop.
    pub async fn care(&self) {
        let sweep = async {
            loop {
                tokio::time::sleep(Duration::from_secs(15)).await;
                self.0.local.sweep();
            }
        };
        match &self.0.shared {
            None => sweep.await,
            Some(shared) => {
                tokio::join!(sweep, shared.care(&self.0.local));
            }
        }
    }

    /// How many counts are held in memory.
    pub fn counts(&self) -> usize {
        self.0.local.len()
    }

    /// Drops counts that say nothing any more.
    pub fn sweep(&self) {
        self.0.local.sweep();
    }

    /// What a key has spent of its budget and what is reserved, as far as this process knows.
    pub fn spent(&self, key: &str, budget: &Budget) -> (u64, u64) {
        let now = self.0.clock.unix_seconds();
        self.0.local.spent(key, budget, budget.per.index(now))
    }
}

/// Whose counts are charged.
#[derive(Clone, Debug)]
struct Subject {
    id: u64,
    /// In words, where somebody else has to understand them.
    words: Option<String>,
}

impl Subject {
    /// The key whose name has this hash.
    fn of_key(hash: u64) -> Self {
        // No rule's hash is meant by it.
        Self { id: hash.rotate_left(32) ^ 0x9e37_79b9_7f4a_7c15, words: None }
    }

    /// The same with its words, if they are asked for.
    fn named(&self, asked: bool, words: impl FnOnce() -> String) -> Self {
        Self { id: self.id, words: asked.then(words) }
    }

    /// The number of one of its counts. All of them lie in one shard.
    fn count(&self, what: &What) -> u64 {
        (self.id & !(7 << KIND)) | (what.number() << KIND)
    }
}

/// Where in a count's number its kind stands; and where its shard does, whose bits no table of a shard goes by.
const KIND: u32 = 40;
const SHARD: u32 = 32;

impl Charge {
    fn new(what: What, scope: &'static str, subject: &Subject, limit: u64, cost: u64) -> Self {
        let id = subject.count(&what);
        let subject = subject.words.as_ref().map(|words| [what.label(), "\0", words].concat().into());
        Self { what, scope, subject, id, limit, cost, common: false }
    }

    /// What was really used, in this charge's unit.
    fn actual(&self, used: &Used) -> u64 {
        match &self.what {
            What::Minute | What::Day | What::Flights => self.cost,
            What::Input => used.tokens.input,
            What::Output => used.tokens.output,
            What::Total => used.tokens.input.saturating_add(used.tokens.output),
            What::Budget { budget, .. } => match budget.amount {
                Amount::Tokens(_) => used.tokens.input.saturating_add(used.tokens.output),
                // A price that became unknown on the way costs what was reserved: never nothing.
                Amount::Nanos(_) => used.nanos.unwrap_or(self.cost),
            },
        }
    }
}

fn quota(charges: &mut Vec<Charge>, quota: &Quota, scope: &'static str, subject: &Subject, tokens: Tokens) {
    let total = tokens.input.saturating_add(tokens.output);
    let all = [
        (What::Flights, quota.concurrent_requests.map(u64::from), 1),
        (What::Minute, quota.requests_per_minute.map(u64::from), 1),
        (What::Day, quota.requests_per_day.map(u64::from), 1),
        (What::Input, quota.input_tokens_per_minute, tokens.input),
        (What::Output, quota.output_tokens_per_minute, tokens.output),
        (What::Total, quota.tokens_per_minute, total),
    ];
    for (what, limit, cost) in all {
        if let Some(limit) = limit {
            charges.push(Charge::new(what, scope, subject, limit, cost));
        }
    }
}

/// Spread well, and the same for the same words within one process.
fn hash<W: std::hash::Hash + ?Sized>(words: &W) -> u64 {
    use std::hash::{BuildHasher, RandomState};
    use std::sync::LazyLock;
    static STATE: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    STATE.hash_one(words)
}

/// A request that was not let in.
#[derive(Debug)]
pub struct Refusal {
    /// Why.
    pub error: Error,
    /// The `x-ratelimit-*` headers of the limit that refused.
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        refusal.error
    }
}

/// The right to run one request.
#[must_use = "dropping the permit ends the request's place"]
pub struct Permit {
    held: Option<Held>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

struct Held {
    limiter: Limiter,
    charges: Vec<Charge>,
    /// The name of the place in the shared store; absent when this process counts.
    lease: Option<String>,
    key: u64,
}

impl Permit {
    fn free() -> Self {
        Self { held: None, headers: Vec::new() }
    }

    /// Ends the request's place and replaces what was estimated by what was really used.
    pub fn settle(mut self, used: &Used) {
        if let Some(held) = self.held.take() {
            held.end(|charge| charge.actual(used));
        }
    }

    /// The `x-ratelimit-*` headers of the limits that exist.
    pub fn headers(&self) -> &[(HeaderName, HeaderValue)] {
        &self.headers
    }

    /// The same, to be kept.
    pub fn take_headers(&mut self) -> Vec<(HeaderName, HeaderValue)> {
        std::mem::take(&mut self.headers)
    }
}

impl Held {
    fn end(self, actual: impl Fn(&Charge) -> u64) {
        let inner = &self.limiter.0;
        match (&self.lease, &inner.shared) {
            (Some(lease), Some(shared)) => {
                let actual: Vec<u64> = self.charges.iter().map(actual).collect();
                for (charge, actual) in self.charges.iter().zip(&actual) {
                    inner.local.learn_settled(charge, *actual, self.key);
                }
                shared.settle(lease, &self.charges, &actual);
            }
            (_, _) => inner.local.settle(&self.charges, actual, self.key),
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        // Without a word about what was used the estimate stands.
        if let Some(held) = self.held.take() {
            held.end(|charge| charge.cost);
        }
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let charges = self.held.as_ref().map(|held| &held.charges);
        f.debug_struct("Permit").field("charges", &charges).finish_non_exhaustive()
    }
}

/// Limit, what remains of it, and when it is full again: of requests and of tokens.
const REQUESTS: [HeaderName; 3] = [
    HeaderName::from_static("x-ratelimit-limit-requests"),
    HeaderName::from_static("x-ratelimit-remaining-requests"),
    HeaderName::from_static("x-ratelimit-reset-requests"),
];
const TOKENS: [HeaderName; 3] = [
    HeaderName::from_static("x-ratelimit-limit-tokens"),
    HeaderName::from_static("x-ratelimit-remaining-tokens"),
    HeaderName::from_static("x-ratelimit-reset-tokens"),
];

/// The six headers, each group from the limit that has the least left.
fn headers(charges: &[Charge], states: &[State]) -> Vec<(HeaderName, HeaderValue)> {
    let mut headers = Vec::with_capacity(6);
    for (names, of_tokens) in [(REQUESTS, false), (TOKENS, true)] {
        let counted = charges.iter().zip(states).filter(|(charge, _)| match charge.what {
            What::Minute | What::Day => !of_tokens,
            What::Input | What::Output | What::Total => of_tokens,
            What::Flights | What::Budget { .. } => false,
        });
        let Some((charge, state)) = counted.min_by(|one, other| by_share(*one, *other)) else { continue };
        let values = [
            Short::of(charge.limit),
            Short::of(state.remaining),
            go_duration(Duration::from_millis(state.millis)),
        ];
        for (name, value) in names.into_iter().zip(values) {
            if let Ok(value) = HeaderValue::from_bytes(value.as_bytes()) {
                headers.push((name, value));
            }
        }
    }
    headers
}

/// Of which of two limits less is left, in proportion; a limit of nothing counts as one.
fn by_share(one: (&Charge, &State), other: (&Charge, &State)) -> std::cmp::Ordering {
    // a / b < c / d where a * d < c * b, which needs no division.
    let (left, right) = (u128::from(one.1.remaining), u128::from(other.1.remaining));
    let (of_left, of_right) = (u128::from(one.0.limit.max(1)), u128::from(other.0.limit.max(1)));
    (left * of_right).cmp(&(right * of_left))
}

/// A duration as Go prints it (`12ms`, `1.5s`, `6m0s`, `1h2m3s`): the form that clients of `OpenAI` expect.
fn go_duration(duration: Duration) -> Short {
    if duration < Duration::from_secs(1) {
        let millis = u64::from(duration.subsec_micros().div_ceil(1000));
        return if millis == 1000 { Short::default().word("1s") } else { Short::of(millis).word("ms") };
    }
    let (seconds, millis) = (duration.as_secs(), duration.subsec_millis().into());
    if seconds < 60 {
        let text = Short::of(seconds);
        return if millis == 0 { text } else { text.word(".").padded(millis, 3).without(b'0') }.word("s");
    }
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let text = if hours > 0 { Short::of(hours).word("h") } else { Short::default() };
    text.number(minutes).word("m").number(seconds).word("s")
}

fn refused(charge: &Charge, state: &State, claim: &Claim<'_>) -> Error {
    let wait = Duration::from_millis(state.millis.max(1));
    let limit = charge.limit;
    let words = match &charge.what {
        What::Budget { budget, period, .. } => return budget::refused(budget, *period, state, charge, claim),
        What::Minute => format!("{limit} requests a minute"),
        What::Day => format!("{limit} requests a day"),
        What::Input => format!("{limit} input tokens a minute"),
        What::Output => format!("{limit} output tokens a minute"),
        What::Total => format!("{limit} tokens a minute"),
        What::Flights => format!("at most {limit} requests at once"),
    };
    let whose = match charge.scope {
        "key" | "each_key" => "for this API key".to_owned(),
        "key_and_model" => format!("for this API key and the model '{}'", claim.model),
        "model" => format!("for the model '{}'", claim.model),
        _ => "for this gateway".to_owned(),
    };
    let error = Error::new(
        Kind::RateLimited,
        Origin::Gateway,
        format!("Rate limit reached {whose}: {words}. Please try again in {}.", go_duration(wait).as_str()),
    );
    let error = error.code("rate_limit_exceeded").retry(Retry::After(wait));
    match &charge.what {
        What::Input | What::Output | What::Total => error.of_tokens(),
        What::Minute | What::Day | What::Flights | What::Budget { .. } => error,
    }
}

fn unpriced(model: &str) -> Error {
    Error::new(
        Kind::Forbidden,
        Origin::Gateway,
        format!(
            "This API key has a budget in money, and the price of the model '{model}' is not known here."
        ),
    )
    .at("model")
    .code("unknown_price")
}

fn store_away() -> Error {
    Error::new(Kind::Overloaded, Origin::Gateway, "The store of the rate limits is away; please try again.")
        .code("rate_limit_store_unavailable")
        .retry(Retry::After(Duration::from_secs(1)))
}
