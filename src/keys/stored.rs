//! Client keys that are kept in a database and made, changed and revoked while the gateway runs.
//!
//! Only digests are kept; a secret is shown once, when it is made. Every change raises a revision, which each
//! gateway on the database looks at twice a second: a revoked key is refused within a second everywhere, and at
//! once by the process that revoked it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::base::{self, Base, Statement, Value};
use super::{Credentials, KeyConfig, Proof, Stored};
use crate::clock::Clock;
use crate::error::{Error, Kind, Origin, Result};
use crate::hex;
use crate::ids::Ids;
use crate::limits::{Amount, Budget, Period, Quota};
use crate::store::Place;

/// How often changes by other processes are looked for.
const LOOK: Duration = Duration::from_millis(500);

/// The form of the tables; a newer one is refused.
const VERSION: i64 = 1;

const TABLES: [&str; 3] = [
    "CREATE TABLE IF NOT EXISTS client_keys (name TEXT PRIMARY KEY, hash TEXT NOT NULL, hint TEXT NOT NULL, \
     spec TEXT NOT NULL, created BIGINT NOT NULL, expires BIGINT, revoked BIGINT)",
    "CREATE TABLE IF NOT EXISTS client_keys_state (one BIGINT PRIMARY KEY, version BIGINT NOT NULL, \
     revision BIGINT NOT NULL)",
    // Secrets that are let in for a while beside the one that replaced them.
    "CREATE TABLE IF NOT EXISTS client_keys_old (name TEXT PRIMARY KEY, hash TEXT NOT NULL, until BIGINT NOT NULL)",
];

/// What a key may do, in the words of the configuration.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Spec {
    /// Patterns of models; none means all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub models: Vec<String>,
    /// What the ledger notes beside the name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests_per_minute: Option<u32>,
    /// Limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests_per_day: Option<u32>,
    /// Limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens_per_minute: Option<u64>,
    /// Limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input_tokens_per_minute: Option<u64>,
    /// Limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_tokens_per_minute: Option<u64>,
    /// Limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub concurrent_requests: Option<u32>,
    /// What it may spend.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub budget: Option<SpecBudget>,
    /// Whose credential goes upstream; unless it says, as the configuration says for everybody.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credentials: Option<SpecCredentials>,
}

/// Whose credential goes upstream, in the words of the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SpecCredentials {
    /// The gateway's own.
    Gateway,
    /// The caller's own.
    Caller,
}

impl From<SpecCredentials> for Credentials {
    fn from(written: SpecCredentials) -> Self {
        match written {
            SpecCredentials::Gateway => Self::Gateway,
            SpecCredentials::Caller => Self::Caller,
        }
    }
}

/// A budget, in the words of the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SpecBudget {
    /// Dollars.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usd: Option<f64>,
    /// Or tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<u64>,
    /// In which span.
    pub per: SpecPeriod,
}

/// The span of a budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SpecPeriod {
    /// A calendar day, UTC.
    Day,
    /// A calendar month, UTC.
    Month,
}

impl Spec {
    /// The limits.
    pub fn quota(&self) -> Quota {
        Quota {
            requests_per_minute: self.requests_per_minute,
            requests_per_day: self.requests_per_day,
            tokens_per_minute: self.tokens_per_minute,
            input_tokens_per_minute: self.input_tokens_per_minute,
            output_tokens_per_minute: self.output_tokens_per_minute,
            concurrent_requests: self.concurrent_requests,
        }
    }

    /// The budget.
    ///
    /// # Errors
    /// `Invalid` when it names neither dollars nor tokens, or both.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "checked to be finite and not below zero"
    )]
    pub fn budget(&self) -> Result<Option<Budget>> {
        let Some(budget) = self.budget else { return Ok(None) };
        let amount = match (budget.usd, budget.tokens) {
            (Some(usd), None) if usd.is_finite() && usd >= 0.0 => Amount::Nanos((usd * 1e9).round() as u64),
            (None, Some(tokens)) => Amount::Tokens(tokens),
            _ => return Err(Error::invalid("budget", "A budget has either usd or tokens, and per.")),
        };
        let per = match budget.per {
            SpecPeriod::Day => Period::Day,
            SpecPeriod::Month => Period::Month,
        };
        Ok(Some(Budget { amount, per }))
    }
}

/// A key as it is kept.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StoredKey {
    /// Its name.
    pub name: String,
    /// The end of its secret, by which its owner knows it.
    pub hint: String,
    /// What it may do.
    #[serde(flatten)]
    pub spec: Spec,
    /// When it was made, in seconds since 1970.
    pub created: u64,
    /// From when on it is not let in any more.
    pub expires: Option<u64>,
    /// When it was revoked.
    pub revoked: Option<u64>,
    /// Until when the secret before this one is let in too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub old_until: Option<u64>,
    #[serde(skip)]
    hash: [u8; 32],
    #[serde(skip)]
    old_hash: Option<[u8; 32]>,
}

/// A new secret, to be shown once.
#[derive(Clone)]
pub struct Fresh {
    /// The secret.
    pub secret: String,
    /// Its digest, as the configuration takes it: `sha256:…`.
    pub hash: String,
}

impl std::fmt::Debug for Fresh {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fresh").field("hash", &self.hash).finish_non_exhaustive()
    }
}

impl Fresh {
    /// A secret that nobody can guess.
    ///
    /// # Errors
    /// `Internal` on a machine without randomness.
    pub fn make() -> Result<Self> {
        getrandom::fill(&mut [0; 8]).map_err(Error::internal)?;
        let secret = Ids::Random.mint(&Ids::Random.mint("sk-gw-"));
        let hash = format!("sha256:{}", hex::write(&Sha256::digest(secret.as_bytes())));
        Ok(Self { secret, hash })
    }

    fn hint(&self) -> &str {
        self.secret.get(self.secret.len().saturating_sub(4)..).unwrap_or_default()
    }
}

/// An operator's fault, in words.
pub(super) fn unusable(text: impl Into<String>) -> Error {
    Error::new(Kind::Overloaded, Origin::Gateway, text.into()).code("key_store_unavailable")
}

/// Where keys are kept. Its verbs block: call them where that is allowed.
pub struct Shelf {
    place: Place,
    base: Mutex<Option<Box<dyn Base>>>,
    /// Keys that do not say forward their caller's own credential.
    forward: AtomicBool,
}

impl std::fmt::Debug for Shelf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shelf").finish_non_exhaustive()
    }
}

impl Shelf {
    /// Keys at a place; nothing is opened yet.
    pub fn new(place: Place) -> Self {
        Self { place, base: Mutex::new(None), forward: AtomicBool::new(false) }
    }

    /// Whose credential goes upstream with keys that do not say; in force when the keys are read the next time.
    pub fn unless_said(&self, credentials: Credentials) {
        self.forward.store(credentials == Credentials::Caller, Ordering::Relaxed);
    }

    /// Whose credential goes upstream with a key.
    pub fn credentials(&self, spec: &Spec) -> Credentials {
        let unsaid = || {
            if self.forward.load(Ordering::Relaxed) { Credentials::Caller } else { Credentials::Gateway }
        };
        spec.credentials.map_or_else(unsaid, Credentials::from)
    }

    fn open(&self) -> Result<Box<dyn Base>> {
        let mut base: Box<dyn Base> = match &self.place {
            Place::Sqlite(path) => Box::new(base::sqlite(path)?),
            Place::Postgres(url) => Box::new(base::Postgres::connect(url)?),
        };
        for table in TABLES {
            base.run(&[(table, Vec::new())])?;
        }
        let first = "INSERT INTO client_keys_state (one, version, revision) VALUES (1, ?1, 0) ON CONFLICT (one) DO NOTHING";
        base.run(&[(first, vec![Value::Int(Some(VERSION))])])?;
        let found = base.run(&[("SELECT version FROM client_keys_state", Vec::new())])?;
        let version = found.first().and_then(|row| row.first()?.int()).unwrap_or(VERSION);
        if version > VERSION {
            return Err(unusable(format!(
                "the store of keys was written by a newer gateway (version {version}, this one knows {VERSION})"
            )));
        }
        Ok(base)
    }

    fn run(&self, statements: &[Statement]) -> Result<Vec<Vec<Value>>> {
        let mut slot = self.base.lock();
        let base = match &mut *slot {
            Some(base) => base,
            None => slot.insert(self.open()?),
        };
        let done = base.run(statements);
        if done.is_err() {
            // A connection that broke is made anew.
            *slot = None;
        }
        done
    }

    /// Makes a key.
    ///
    /// # Errors
    /// `Conflict` when there is one of that name, or was; `Invalid` for a name or a budget that is none.
    pub fn create(&self, name: &str, spec: &Spec, expires: Option<u64>) -> Result<Fresh> {
        let plain = |c: char| !c.is_control() && !c.is_whitespace();
        if name.is_empty() || name.len() > 100 || !name.chars().all(plain) {
            return Err(Error::invalid("name", "A name has 1 to 100 characters and no spaces."));
        }
        spec.budget()?;
        let fresh = Fresh::make()?;
        let spec = serde_json::to_string(spec).map_err(Error::internal)?;
        let add = "INSERT INTO client_keys (name, hash, hint, spec, created, expires) VALUES (?1, ?2, ?3, ?4, ?5, ?6) \
                   ON CONFLICT (name) DO NOTHING RETURNING name";
        let values = vec![
            name.into(),
            fresh.hash.as_str().into(),
            fresh.hint().into(),
            Value::Text(spec),
            int(Some(Clock::System.unix_seconds())),
            int(expires),
        ];
        if self.run(&[RAISE, (add, values)].map(own))?.is_empty() {
            return Err(Error::new(
                Kind::Conflict,
                Origin::Client,
                format!("There is a key named '{name}' already, or there was: names are not given twice."),
            )
            .at("name"));
        }
        Ok(fresh)
    }

    /// Gives a key a new secret. The old one is let in for `grace` more, and never one before that.
    ///
    /// # Errors
    /// `NotFound` when there is no such key.
    pub fn rotate(&self, name: &str, grace: Duration) -> Result<Fresh> {
        let fresh = Fresh::make()?;
        let forget = "DELETE FROM client_keys_old WHERE name = ?1";
        let mut statements = vec![RAISE, (forget, vec![name.into()])];
        if !grace.is_zero() {
            let keep = "INSERT INTO client_keys_old (name, hash, until) SELECT name, hash, CAST(?2 AS BIGINT) \
                        FROM client_keys WHERE name = ?1 AND revoked IS NULL";
            let until = Clock::System.unix_seconds().saturating_add(grace.as_secs().max(1));
            statements.push((keep, vec![name.into(), int(Some(until))]));
        }
        let change =
            "UPDATE client_keys SET hash = ?2, hint = ?3 WHERE name = ?1 AND revoked IS NULL RETURNING name";
        let values = vec![name.into(), fresh.hash.as_str().into(), fresh.hint().into()];
        statements.push((change, values));
        let found = self.run(&statements)?;
        if found.is_empty() { Err(missing(name)) } else { Ok(fresh) }
    }

    /// Ends a key for good.
    ///
    /// # Errors
    /// `NotFound` when there is no such key.
    pub fn revoke(&self, name: &str) -> Result<()> {
        let change = "UPDATE client_keys SET revoked = ?2 WHERE name = ?1 AND revoked IS NULL RETURNING name";
        let values = vec![name.into(), int(Some(Clock::System.unix_seconds()))];
        let found = self.run(&[RAISE, (change, values)].map(own))?;
        if found.is_empty() { Err(missing(name)) } else { Ok(()) }
    }

    /// All keys, revoked ones included.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn list(&self) -> Result<Vec<StoredKey>> {
        self.read_all().map(|(keys, _)| keys)
    }

    /// All keys that can be read, and whether there are any at all.
    fn read_all(&self) -> Result<(Vec<StoredKey>, bool)> {
        let all = "SELECT k.name, k.hash, k.hint, k.spec, k.created, k.expires, k.revoked, o.hash, o.until \
                   FROM client_keys k LEFT JOIN client_keys_old o ON o.name = k.name ORDER BY k.name";
        let rows = self.run(&[(all, Vec::new())])?;
        let mut keys = Vec::with_capacity(rows.len());
        for row in &rows {
            match read(row) {
                Ok(key) => keys.push(key),
                // One that cannot be read is nobody's; the others are not to suffer for it.
                Err(error) => tracing::error!(error = error.message(), "a key of the store is passed over"),
            }
        }
        Ok((keys, !rows.is_empty()))
    }

    /// How often the keys were changed.
    fn revision(&self) -> Result<i64> {
        let rows = self.run(&[("SELECT revision FROM client_keys_state", Vec::new())])?;
        Ok(rows.first().and_then(|row| row.first()?.int()).unwrap_or(0))
    }

    /// Puts what is kept in force in this process.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn load(&self, stored: &Stored) -> Result<()> {
        let (all, any) = self.read_all()?;
        let mut live = Vec::with_capacity(all.len());
        for key in all.iter().filter(|key| key.revoked.is_none()) {
            let config = key.config(self.credentials(&key.spec))?;
            if let (Some(hash), Some(until)) = (key.old_hash, key.old_until) {
                let expires = Some(key.expires.map_or(until, |expires| expires.min(until)));
                live.push(KeyConfig { proof: Proof::Sha256(hash), expires, ..config.clone() });
            }
            live.push(config);
        }
        stored.put(&live, any);
        Ok(())
    }
}

const RAISE: Statement = ("UPDATE client_keys_state SET revision = revision + 1", Vec::new());

fn own(statement: Statement) -> Statement {
    statement
}

/// How long an old secret is let in beside the new one: `24h`, at most a year.
///
/// # Errors
/// `Invalid` for anything else.
pub fn grace(text: &str) -> Result<Duration> {
    let most = Duration::from_hours(24 * 365);
    humantime::parse_duration(text)
        .ok()
        .filter(|grace| *grace <= most)
        .ok_or_else(|| Error::invalid("grace", "A span such as \"24h\" is needed, of at most a year."))
}

/// When a key ends, in seconds since 1970: a day (`2027-01-31`, UTC), a time (RFC 3339), or a span from now (`90d`).
///
/// # Errors
/// `Invalid` for anything else, and for what has passed.
pub fn expiry(text: &str, now: u64) -> Result<u64> {
    let wrong = |words: String| Error::invalid("expires", words);
    let seconds = if let Ok(span) = humantime::parse_duration(text) {
        now.checked_add(span.as_secs())
    } else if let Ok(time) = text.parse::<jiff::Timestamp>() {
        u64::try_from(time.as_second()).ok()
    } else {
        let day = text.parse::<jiff::civil::Date>().and_then(|day| day.to_zoned(jiff::tz::TimeZone::UTC));
        let day = day.map_err(|error| {
            wrong(format!("A day (2027-01-31, UTC), a time (RFC 3339) or a span (90d) is needed: {error}."))
        })?;
        u64::try_from(day.timestamp().as_second()).ok()
    };
    seconds
        .filter(|at| *at > now && i64::try_from(*at).is_ok())
        .ok_or_else(|| wrong("This is a time that has passed, or none.".to_owned()))
}

fn int(number: Option<u64>) -> Value {
    Value::Int(number.map(|number| i64::try_from(number).unwrap_or(i64::MAX)))
}

fn missing(name: &str) -> Error {
    Error::new(Kind::NotFound, Origin::Client, format!("There is no key named '{name}' in the store."))
}

fn read(row: &[Value]) -> Result<StoredKey> {
    let [name, hash, hint, spec, created, expires, revoked, old_hash, old_until] = row else {
        return Err(unusable("the store of keys has rows of another form"));
    };
    let time = |value: &Value| value.int().and_then(|number| u64::try_from(number).ok());
    let broken = |what: &str| unusable(format!("the key '{}' in the store has a broken {what}", name.text()));
    let digest = |value: &Value| value.text().strip_prefix("sha256:").and_then(hex::read);
    let key = StoredKey {
        name: name.text().to_owned(),
        hint: hint.text().to_owned(),
        spec: serde_json::from_str(spec.text()).map_err(|error| broken("specification").because(error))?,
        created: time(created).unwrap_or(0),
        expires: time(expires),
        revoked: time(revoked),
        old_until: time(old_until),
        hash: digest(hash).ok_or_else(|| broken("hash"))?,
        old_hash: digest(old_hash),
    };
    key.spec.budget().map_err(|error| broken("budget").because(error))?;
    Ok(key)
}

impl StoredKey {
    fn config(&self, credentials: Credentials) -> Result<KeyConfig> {
        Ok(KeyConfig {
            models: self.spec.models.clone(),
            quota: self.spec.quota(),
            credentials,
            labels: self.spec.labels.clone(),
            budget: self.spec.budget()?,
            expires: self.expires,
            ..KeyConfig::new(self.name.as_str(), Proof::Sha256(self.hash))
        })
    }
}

/// Follows what other processes change. Runs for ever; drop it to stop.
pub async fn follow(shelf: Arc<Shelf>, stored: Stored) {
    let (mut known, mut away) = (None, false);
    loop {
        tokio::time::sleep(LOOK).await;
        let (shelf, stored) = (Arc::clone(&shelf), stored.clone());
        let look = move || -> Result<(i64, bool)> {
            let now = (shelf.revision()?, shelf.forward.load(Ordering::Relaxed));
            if known != Some(now) {
                shelf.load(&stored)?;
            }
            Ok(now)
        };
        match tokio::task::spawn_blocking(look).await {
            Ok(Ok(now)) => {
                known = Some(now);
                if std::mem::take(&mut away) {
                    tracing::info!("the store of keys is back");
                }
            }
            Ok(Err(error)) if !away => {
                away = true;
                tracing::error!(%error, "the store of keys cannot be read; the keys known so far stay in force");
            }
            Ok(Err(_)) => {}
            Err(error) => tracing::error!(%error, "a look at the store of keys failed"),
        }
    }
}
