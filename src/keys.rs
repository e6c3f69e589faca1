//! Who is asking: client keys, and the tenant each one stands for.
//!
//! Keys are kept as SHA-256 digests and compared in constant time, all of them every time, so neither a
//! memory dump nor a stopwatch tells a key.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName, HeaderValue};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

use crate::catalog::Pattern;
use crate::clock::Clock;
use crate::error::{Error, Kind, Origin, Result};
use crate::hash::ByHash;
use crate::limits::{Budget, Quota};

mod base;
pub mod stored;

const GOOGLE_KEY: HeaderName = HeaderName::from_static("x-goog-api-key");

/// Whose Google credential a tenant's requests travel with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Credentials {
    /// The gateway's own.
    #[default]
    Gateway,
    /// The caller's own goes upstream.
    Caller,
}

impl Credentials {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Caller => "caller",
        }
    }
}

/// What a client proves itself with.
#[derive(Clone)]
pub enum Proof {
    /// The key itself.
    Secret(SecretString),
    /// Its SHA-256 digest.
    Sha256([u8; 32]),
}

impl Proof {
    fn digest(&self) -> [u8; 32] {
        match self {
            Self::Secret(secret) => Sha256::digest(secret.expose_secret().as_bytes()).into(),
            Self::Sha256(digest) => *digest,
        }
    }
}

impl fmt::Debug for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Proof(***)")
    }
}

/// One client key as an operator describes it.
#[derive(Clone, Debug)]
pub struct KeyConfig {
    /// The name in logs, metrics and the ledger.
    pub name: String,
    /// The key or its digest.
    pub proof: Proof,
    /// Patterns of what may be dispatched, after aliases; empty means everything.
    pub models: Vec<String>,
    /// How much it may do.
    pub quota: Quota,
    /// Whose credential goes upstream.
    pub credentials: Credentials,
    /// What the ledger notes beside the name.
    pub labels: BTreeMap<String, String>,
    /// What it may spend.
    pub budget: Option<Budget>,
    /// From this second since 1970 on it is nobody's any more.
    pub expires: Option<u64>,
}

impl KeyConfig {
    /// A key that may do everything.
    pub fn new(name: impl Into<String>, proof: Proof) -> Self {
        Self {
            name: name.into(),
            proof,
            models: Vec::new(),
            quota: Quota::default(),
            credentials: Credentials::Gateway,
            labels: BTreeMap::new(),
            budget: None,
            expires: None,
        }
    }
}

/// A client that has been recognised. Only [`Keys::authenticate`] makes one.
#[derive(Debug)]
pub struct Tenant {
    name: Arc<str>,
    models: Vec<Pattern>,
    credentials: Credentials,
    anonymous: bool,
    quota: Quota,
    budget: Option<Budget>,
    labels: Arc<str>,
    expires: Option<u64>,
}

impl Tenant {
    fn new(key: &KeyConfig, anonymous: bool) -> Arc<Self> {
        Arc::new(Self {
            name: key.name.as_str().into(),
            models: key.models.iter().map(Pattern::new).collect(),
            credentials: key.credentials,
            anonymous,
            quota: key.quota,
            budget: key.budget,
            labels: serde_json::to_string(&key.labels).unwrap_or_else(|_| "{}".to_owned()).into(),
            expires: key.expires,
        })
    }

    /// How much it may do.
    pub fn quota(&self) -> &Quota {
        &self.quota
    }

    /// What it may spend.
    pub fn budget(&self) -> Option<&Budget> {
        self.budget.as_ref()
    }

    /// Its labels, a JSON object.
    pub fn labels(&self) -> &Arc<str> {
        &self.labels
    }

    /// The name in logs, metrics and the ledger; also the limiter's key.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Whose credential goes upstream.
    pub fn credentials(&self) -> Credentials {
        self.credentials
    }

    /// Whether this stands for everybody, because no keys are configured.
    pub fn is_anonymous(&self) -> bool {
        self.anonymous
    }

    /// Whether `model` (a bare id, after aliases) would pass [`Tenant::may_use`]; for filtering lists.
    pub fn sees(&self, model: &str) -> bool {
        self.models.is_empty() || self.models.iter().any(|pattern| pattern.matches(model))
    }

    /// Whether there is no model that it would refuse.
    pub fn sees_all(&self) -> bool {
        self.models.is_empty()
    }

    /// Refuses a model (a bare id, after aliases) that this key may not dispatch.
    pub fn may_use(&self, model: &str) -> Result<()> {
        if self.sees(model) {
            return Ok(());
        }
        Err(Error::new(
            Kind::Forbidden,
            Origin::Client,
            format!("This API key does not have access to the model '{model}'."),
        )
        .at("model")
        .code("model_not_found"))
    }
}

/// All client keys: those of the configuration, and those of the store.
#[derive(Debug)]
pub struct Keys {
    configured: Table,
    stored: Stored,
    anonymous: Option<Arc<Tenant>>,
}

/// Keys by the beginning of their digest. Finding a place by a digest tells nobody anything about a key; the
/// comparison that counts is made in constant time.
#[derive(Debug, Default)]
struct Table(ByHash<Vec<Known>>);

/// A key's digest, and who holds it.
type Known = ([u8; 32], Arc<Tenant>);

/// Where the store's keys are put in force.
#[derive(Clone, Debug, Default)]
pub struct Stored(Arc<ArcSwap<Kept>>);

impl Stored {
    /// Other keys of the store, in force at once. `any`: the store has some, if only revoked ones.
    pub fn put(&self, keys: &[KeyConfig], any: bool) {
        self.0.store(Arc::new(Kept { table: Table::new(keys), any }));
    }

    /// Nobody is let in without a key until the store was read.
    pub fn unread(&self) {
        self.put(&[], true);
    }
}

/// The store's keys, as they were read last.
#[derive(Debug, Default)]
struct Kept {
    table: Table,
    /// There are some, or were: then nobody is let in without.
    any: bool,
}

fn beginning(digest: &[u8; 32]) -> u64 {
    digest.first_chunk().map_or(0, |first| u64::from_le_bytes(*first))
}

impl Table {
    fn new(keys: &[KeyConfig]) -> Self {
        let mut table = Self::default();
        for key in keys {
            let digest = key.proof.digest();
            table.0.entry(beginning(&digest)).or_default().push((digest, Tenant::new(key, false)));
        }
        table
    }

    fn all(&self) -> impl Iterator<Item = &Arc<Tenant>> {
        self.0.values().flatten().map(|(_, tenant)| tenant)
    }

    fn find(&self, digest: &[u8; 32]) -> Option<&Arc<Tenant>> {
        let mut found = None;
        for (known, tenant) in self.0.get(&beginning(digest)).into_iter().flatten() {
            let same: Choice = known.ct_eq(digest);
            if bool::from(same) {
                found = Some(tenant);
            }
        }
        found
    }
}

impl Keys {
    /// The keys of a configuration. Without any, everybody is the tenant `local`.
    pub fn new(keys: &[KeyConfig]) -> Self {
        let everybody = || Tenant::new(&KeyConfig::new("local", Proof::Sha256([0; 32])), true);
        Self {
            configured: Table::new(keys),
            stored: Stored::default(),
            anonymous: keys.is_empty().then(everybody),
        }
    }

    /// Nobody is let in without a key, even if there is none.
    pub fn close(&mut self) {
        self.anonymous = None;
    }

    /// Where the store's keys are put in force.
    pub fn stored(&self) -> Stored {
        self.stored.clone()
    }

    /// Takes over the store's keys: those outlive a change of configuration.
    pub fn inherit(&mut self, old: &Self) {
        self.stored = old.stored.clone();
    }

    /// Whose credential goes upstream with everybody's requests, where there are no keys.
    #[must_use]
    pub fn everybody(mut self, credentials: Credentials) -> Self {
        let everybody = KeyConfig { credentials, ..KeyConfig::new("local", Proof::Sha256([0; 32])) };
        self.anonymous = self.anonymous.map(|_| Tenant::new(&everybody, true));
        self
    }

    /// The tenant of this name.
    pub fn named(&self, name: &str) -> Option<Arc<Tenant>> {
        let stored = self.stored.0.load();
        let mut all = self.configured.all().chain(stored.table.all()).chain(&self.anonymous);
        all.find(|tenant| &**tenant.name() == name).map(Arc::clone)
    }

    /// The credential for Google that a request brings along: a key or a token that is none of ours, with the
    /// project that it is to be billed to.
    pub fn foreign(&self, headers: &HeaderMap, query: Option<&str>) -> Option<HeaderMap> {
        let ours = |secret: &[u8]| self.holder(secret).is_some();
        let mut theirs = HeaderMap::new();
        if let Some(key) = headers.get(GOOGLE_KEY).filter(|key| !key.is_empty() && !ours(key.as_bytes())) {
            theirs.insert(GOOGLE_KEY, key.clone());
        } else if let Some(token) = headers.get(AUTHORIZATION).filter(|value| {
            value.as_bytes().split_at_checked(7).is_some_and(|(scheme, token)| {
                scheme.eq_ignore_ascii_case(b"bearer ") && !token.is_empty() && !ours(token)
            })
        }) {
            theirs.insert(AUTHORIZATION, token.clone());
        } else {
            let key = asked(query?)?;
            let value = HeaderValue::from_bytes(&key).ok().filter(|_| !ours(&key))?;
            theirs.insert(GOOGLE_KEY, value);
        }
        for value in theirs.values_mut() {
            value.set_sensitive(true);
        }
        if let Some(project) = headers.get("x-goog-user-project") {
            theirs.insert("x-goog-user-project", project.clone());
        }
        Some(theirs)
    }

    fn holder(&self, secret: &[u8]) -> Option<Arc<Tenant>> {
        self.holder_in(&self.stored.0.load(), secret)
    }

    fn holder_in(&self, stored: &Kept, secret: &[u8]) -> Option<Arc<Tenant>> {
        let digest: [u8; 32] = Sha256::digest(secret).into();
        let found = self.configured.find(&digest).or_else(|| stored.table.find(&digest));
        // One that has expired is as unknown as one that never was.
        let is_there = |tenant: &&Arc<Tenant>| {
            tenant.expires.is_none_or(|expires| Clock::System.unix_seconds() < expires)
        };
        found.filter(is_there).map(Arc::clone)
    }

    /// Recognises the caller by `x-gemway-key`, `Authorization: Bearer`, `api-key`, `x-api-key`, `x-goog-api-key` or the
    /// query's `key`; the first one present decides.
    pub fn authenticate(&self, headers: &HeaderMap, query: Option<&str>) -> Result<Arc<Tenant>> {
        let shown = Shown::by(headers);
        if shown.twice {
            return Err(Error::new(
                Kind::Malformed,
                Origin::Client,
                "More than one Authorization header was sent.",
            ));
        }
        let stored = self.stored.0.load();
        if let Some(local) = self.anonymous.as_ref().filter(|_| !stored.any) {
            return Ok(Arc::clone(local));
        }
        let given = shown.key(query).ok_or_else(stranger)?;
        if let Some(found) = self.holder_in(&stored, &given) {
            return Ok(found);
        }
        // Beside a token for Google, our key is in the other header; only who sends both upstream may do that.
        let beside = shown.google.and_then(|key| self.holder_in(&stored, key.as_bytes()));
        let beside = beside.filter(|tenant| tenant.credentials() == Credentials::Caller);
        beside.ok_or_else(stranger)
    }
}

/// What a request carries of credentials. One look at all headers costs less than looking each of them up.
#[derive(Default)]
struct Shown<'h> {
    gemway: Option<&'h HeaderValue>,
    authorization: Option<&'h HeaderValue>,
    azure: Option<&'h HeaderValue>,
    plain: Option<&'h HeaderValue>,
    google: Option<&'h HeaderValue>,
    /// There is more than one `Authorization`.
    twice: bool,
}

impl<'h> Shown<'h> {
    fn by(headers: &'h HeaderMap) -> Self {
        let mut shown = Self::default();
        for (name, value) in headers {
            let place = match name.as_str() {
                "x-gemway-key" => &mut shown.gemway,
                "authorization" => {
                    shown.twice = shown.authorization.is_some();
                    &mut shown.authorization
                }
                "api-key" => &mut shown.azure,
                "x-api-key" => &mut shown.plain,
                "x-goog-api-key" => &mut shown.google,
                _ => continue,
            };
            // Of several the first counts.
            place.get_or_insert(value);
        }
        shown
    }

    /// The key, if there is one in a form we know.
    fn key<'k>(&self, query: Option<&'k str>) -> Option<Cow<'k, [u8]>>
    where
        'h: 'k,
    {
        let whole = |value: &'h HeaderValue| (!value.is_empty()).then_some(Cow::Borrowed(value.as_bytes()));
        if let Some(value) = self.gemway {
            return whole(value);
        }
        if let Some(value) = self.authorization {
            let (scheme, token) = value.as_bytes().split_at_checked(7)?;
            let good = scheme.eq_ignore_ascii_case(b"bearer ") && !token.is_empty();
            return good.then_some(Cow::Borrowed(token));
        }
        if let Some(value) = self.azure.or(self.plain).or(self.google) {
            return whole(value);
        }
        asked(query?)
    }
}

/// The key in a query.
fn asked(query: &str) -> Option<Cow<'_, [u8]>> {
    let mut values = query.split('&').filter_map(|pair| pair.strip_prefix("key="));
    Some(percent_encoding::percent_decode_str(values.find(|value| !value.is_empty())?).into())
}

/// One answer for no key and for a wrong one: a guesser learns nothing.
fn stranger() -> Error {
    Error::new(
        Kind::Unauthenticated,
        Origin::Client,
        "Incorrect API key provided, or none. Send a key of this gateway as 'Authorization: Bearer KEY'.",
    )
    .code("invalid_api_key")
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn key(name: &str, secret: &str, models: &[&str]) -> KeyConfig {
        let models = models.iter().map(|&m| m.to_owned()).collect();
        KeyConfig { models, ..KeyConfig::new(name, Proof::Secret(secret.into())) }
    }

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|&(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect()
    }

    fn keys() -> Keys {
        let digest = Proof::Sha256(Sha256::digest(b"hashed").into());
        Keys::new(&[
            key("a", "sk-a", &[]),
            key("b", "sk-b", &["gemini-*-flash*"]),
            KeyConfig { proof: digest, ..key("c", "", &[]) },
        ])
    }

    #[test]
    fn every_form_is_read() {
        let keys = keys();
        for form in [
            ("authorization", "Bearer sk-a"),
            ("authorization", "bearer sk-a"),
            ("authorization", "BEARER sk-a"),
            ("api-key", "sk-a"),
            ("x-api-key", "sk-a"),
            ("x-goog-api-key", "sk-a"),
        ] {
            assert_eq!(&**keys.authenticate(&headers(&[form]), None).unwrap().name(), "a", "{form:?}");
        }
        let by_query = keys.authenticate(&HeaderMap::new(), Some("alt=sse&key=sk%2Da")).unwrap();
        assert_eq!(&**by_query.name(), "a");
        let hashed = keys.authenticate(&headers(&[("api-key", "hashed")]), None).unwrap();
        assert_eq!(&**hashed.name(), "c");
    }

    #[test]
    fn strangers_all_look_the_same() {
        let keys = keys();
        let missing = keys.authenticate(&HeaderMap::new(), None).unwrap_err();
        for form in [
            ("authorization", "Bearer nope"),
            ("authorization", "Bearer  sk-a"),
            ("authorization", "Bearer "),
            ("authorization", "Basic c2stYTo="),
            ("authorization", "sk-a"),
            ("authorization", ""),
            ("api-key", ""),
        ] {
            let error = keys.authenticate(&headers(&[form]), Some("key=")).unwrap_err();
            assert_eq!(error.kind(), Kind::Unauthenticated);
            assert_eq!(error.explicit_code(), Some("invalid_api_key"));
            assert_eq!(error.message(), missing.message());
        }
    }

    #[test]
    fn two_authorizations_are_malformed() {
        let mut two = headers(&[("authorization", "Bearer sk-a")]);
        two.append(AUTHORIZATION, HeaderValue::from_static("Bearer sk-b"));
        assert_eq!(keys().authenticate(&two, None).unwrap_err().kind(), Kind::Malformed);
    }

    #[test]
    fn without_keys_everybody_is_local() {
        let keys = Keys::new(&[]);
        let local = keys.authenticate(&headers(&[("authorization", "Bearer whatever")]), None).unwrap();
        assert!(local.is_anonymous() && local.may_use("anything").is_ok());
        assert_eq!(&**local.name(), "local");
    }

    #[test]
    fn models_are_fenced() {
        let b = keys().authenticate(&headers(&[("api-key", "sk-b")]), None).unwrap();
        assert!(b.may_use("gemini-3.8-flash").is_ok());
        let error = b.may_use("gemini-4-neon").unwrap_err();
        assert_eq!((error.kind(), error.explicit_code()), (Kind::Forbidden, Some("model_not_found")));
    }

    #[test]
    fn an_expired_key_is_a_stranger() {
        let old = KeyConfig { expires: Some(1), ..key("a", "sk-a", &[]) };
        let keys = Keys::new(&[old]);
        let error = keys.authenticate(&headers(&[("api-key", "sk-a")]), None).unwrap_err();
        assert_eq!(error.kind(), Kind::Unauthenticated);
    }

    #[test]
    fn keys_of_the_store_come_and_go_at_once() {
        let keys = Keys::new(&[]);
        let with = |secret| keys.authenticate(&headers(&[("api-key", secret)]), None);
        assert!(with("sk-new").unwrap().is_anonymous());
        keys.stored().put(&[key("new", "sk-new", &[])], true);
        assert_eq!(&**with("sk-new").unwrap().name(), "new");
        keys.stored().put(&[], true);
        // The last key is revoked: the door does not open because of it.
        assert!(with("sk-new").is_err());
    }

    #[test]
    fn nothing_prints_a_key() {
        assert!(!format!("{:?}", key("a", "sk-very-secret", &[])).contains("very"));
    }
}
