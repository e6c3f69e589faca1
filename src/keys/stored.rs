//! Client keys that are kept in a database and made, changed and revoked while the gateway runs.
//!
//! Only digests are kept; a secret is shown once, when it is made. Every change raises a revision, which each
//! gateway on the database looks at twice a second: a revoked key is refused within a second everywhere, and at
//! once by the process that revoked it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use secrecy::SecretString;
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

const TABLES: [&str; 2] = [
    "CREATE TABLE IF NOT EXISTS client_keys (name TEXT PRIMARY KEY, hash TEXT NOT NULL, hint TEXT NOT NULL, \
     spec TEXT NOT NULL, created BIGINT NOT NULL, expires BIGINT, revoked BIGINT)",
    "CREATE TABLE IF NOT EXISTS client_keys_state (one BIGINT PRIMARY KEY, version BIGINT NOT NULL, \
     revision BIGINT NOT NULL)",
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
    #[serde(skip)]
    hash: [u8; 32],
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
    pub fn make() -> Self {
        let secret = Ids::Random.mint(&Ids::Random.mint("sk-gw-"));
        let hash = format!("sha256:{}", hex::write(&Sha256::digest(secret.as_bytes())));
        Self { secret, hash }
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
}

impl std::fmt::Debug for Shelf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shelf").finish_non_exhaustive()
    }
}

impl Shelf {
    /// Keys at a place; nothing is opened yet.
    pub fn new(place: Place) -> Self {
        Self { place, base: Mutex::new(None) }
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
        let fresh = Fresh::make();
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

    /// Gives a key a new secret; the old one is not let in any more.
    ///
    /// # Errors
    /// `NotFound` when there is no such key.
    pub fn rotate(&self, name: &str) -> Result<Fresh> {
        let fresh = Fresh::make();
        let change =
            "UPDATE client_keys SET hash = ?2, hint = ?3 WHERE name = ?1 AND revoked IS NULL RETURNING name";
        let values = vec![name.into(), fresh.hash.as_str().into(), fresh.hint().into()];
        let found = self.run(&[RAISE, (change, values)].map(own))?;
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
        let all = "SELECT name, hash, hint, spec, created, expires, revoked FROM client_keys ORDER BY name";
        let rows = self.run(&[(all, Vec::new())])?;
        rows.iter().map(|row| read(row)).collect()
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
        let all = self.list()?;
        let live: Vec<KeyConfig> =
            all.iter().filter(|key| key.revoked.is_none()).map(StoredKey::config).collect::<Result<_>>()?;
        stored.put(&live, !all.is_empty());
        Ok(())
    }
}

const RAISE: Statement = ("UPDATE client_keys_state SET revision = revision + 1", Vec::new());

fn own(statement: Statement) -> Statement {
    statement
}

fn int(number: Option<u64>) -> Value {
    Value::Int(number.map(|number| i64::try_from(number).unwrap_or(i64::MAX)))
}

fn missing(name: &str) -> Error {
    Error::new(Kind::NotFound, Origin::Client, format!("There is no key named '{name}' in the store."))
}

fn read(row: &[Value]) -> Result<StoredKey> {
    let [name, hash, hint, spec, created, expires, revoked] = row else {
        return Err(unusable("the store of keys has rows of another form"));
    };
    let time = |value: &Value| value.int().and_then(|number| u64::try_from(number).ok());
    let broken = |what: &str| unusable(format!("the key '{}' in the store has a broken {what}", name.text()));
    Ok(StoredKey {
        name: name.text().to_owned(),
        hint: hint.text().to_owned(),
        spec: serde_json::from_str(spec.text()).map_err(|error| broken("specification").because(error))?,
        created: time(created).unwrap_or(0),
        expires: time(expires),
        revoked: time(revoked),
        hash: hash.text().strip_prefix("sha256:").and_then(hex::read).ok_or_else(|| broken("hash"))?,
    })
}

impl StoredKey {
    fn config(&self) -> Result<KeyConfig> {
        Ok(KeyConfig {
            models: self.spec.models.clone(),
            quota: self.spec.quota(),
            credentials: Credentials::Gateway,
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
        let look = move || -> Result<i64> {
            let revision = shelf.revision()?;
            if known != Some(revision) {
                shelf.load(&stored)?;
            }
            Ok(revision)
        };
        match tokio::task::spawn_blocking(look).await {
            Ok(Ok(revision)) => {
                known = Some(revision);
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

/// The store at a URL.
///
/// # Errors
/// `Invalid` for a place that keeps nothing.
pub fn shelf(url: &SecretString) -> Result<Shelf> {
    Place::parse(url).map(Shelf::new)
}
