//! Who may come in: keys of the file, keys of the environment.

use std::collections::{BTreeMap, HashSet};

use serde_spanned::Spanned;

use crate::keys::{KeyConfig, Proof};
use crate::limits::{self, Quota};
use crate::meter::price::NANOS;

use super::resolve::Resolver;
use super::{Amount, Budget, ConfigError, Key, KeyProof, Period, file, secret};

impl Resolver<'_> {
    /// The keys; `unless_said` is whose credential goes upstream with one that does not say.
    pub(super) fn keys(
        &mut self,
        written: &[file::Key],
        unless_said: file::KeyCredentials,
    ) -> Result<Vec<Key>, ConfigError> {
        let mut keys = Vec::new();
        let mut names = HashSet::new();
        for key in written {
            let name = key.name.get_ref();
            if name.is_empty() || !names.insert(name.clone()) {
                return Err(self.complaint(&key.name, "every key needs a name of its own"));
            }
            let budget = match &key.budget {
                None => None,
                Some(budget) => Some(self.budget(budget)?),
            };
            let credentials = key.credentials.unwrap_or(unless_said);
            keys.push(Key {
                name: name.clone(),
                proof: self.proof(key)?,
                models: key.models.clone(),
                requests_per_minute: key.requests_per_minute,
                requests_per_day: key.requests_per_day,
                tokens_per_minute: key.tokens_per_minute,
                concurrent_requests: key.concurrent_requests,
                input_tokens_per_minute: key.input_tokens_per_minute,
                output_tokens_per_minute: key.output_tokens_per_minute,
                budget,
                labels: key.labels.clone(),
                expires: key.expires.as_ref().map(|time| self.expires(time)).transpose()?,
                credentials,
            });
        }
        let listed = (self.env)("GEMWAY_API_KEYS").unwrap_or_default();
        for (index, secret) in listed.split(',').map(str::trim).filter(|key| !key.is_empty()).enumerate() {
            keys.push(Key {
                name: (index + 1..usize::MAX)
                    .map(|n| format!("env-{n}"))
                    .find(|n| !names.contains(n))
                    .unwrap_or_default(),
                proof: KeyProof::Secret(secret.to_owned().into()),
                models: Vec::new(),
                requests_per_minute: None,
                requests_per_day: None,
                tokens_per_minute: None,
                concurrent_requests: None,
                input_tokens_per_minute: None,
                output_tokens_per_minute: None,
                budget: None,
                labels: BTreeMap::new(),
                expires: None,
                credentials: unless_said,
            });
            names.extend(keys.last().map(|key| key.name.clone()));
        }
        Ok(keys)
    }

    fn proof(&self, key: &file::Key) -> Result<KeyProof, ConfigError> {
        match (&key.secret, &key.hash) {
            (Some(secret), None) => Ok(KeyProof::Secret(self.secret(secret)?)),
            (None, Some(hash)) => secret::digest(hash.get_ref())
                .map(KeyProof::Sha256)
                .ok_or_else(|| self.complaint(hash, "a hash is \"sha256:\" and 64 hexadecimal digits")),
            _ => Err(self.complaint(&key.name, "a key needs either a secret or a hash")),
        }
    }

    fn expires(&self, time: &Spanned<String>) -> Result<u64, ConfigError> {
        crate::meter::ledger::instant(time.get_ref(), 0)
            .ok()
            .and_then(|millis| u64::try_from(millis / 1000).ok())
            .ok_or_else(|| self.complaint(time, "a day (\"2027-01-31\", UTC) or a time (RFC 3339) is needed"))
    }

    fn budget(&self, budget: &Spanned<file::Budget>) -> Result<Budget, ConfigError> {
        let written = budget.get_ref();
        let amount = match (written.usd, written.tokens) {
            (Some(usd), None) if usd.is_finite() && usd >= 0.0 => Amount::Usd(usd),
            (None, Some(tokens)) => Amount::Tokens(tokens),
            _ => return Err(self.complaint(budget, "a budget has either usd or tokens, and per")),
        };
        Ok(Budget { amount, per: written.per })
    }
}

impl Budget {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "checked to be finite and not below zero; what is huge saturates"
    )]
    fn to_organ(self) -> limits::Budget {
        limits::Budget {
            amount: match self.amount {
                Amount::Usd(usd) => limits::Amount::Nanos((usd * NANOS).round() as u64),
                Amount::Tokens(tokens) => limits::Amount::Tokens(tokens),
            },
            per: match self.per {
                Period::Day => limits::Period::Day,
                Period::Month => limits::Period::Month,
            },
        }
    }
}

impl Key {
    pub(super) fn quota(&self) -> Quota {
        Quota {
            requests_per_minute: self.requests_per_minute,
            requests_per_day: self.requests_per_day,
            tokens_per_minute: self.tokens_per_minute,
            concurrent_requests: self.concurrent_requests,
            input_tokens_per_minute: self.input_tokens_per_minute,
            output_tokens_per_minute: self.output_tokens_per_minute,
        }
    }

    pub(super) fn to_organ(&self) -> KeyConfig {
        KeyConfig {
            name: self.name.clone(),
            proof: match &self.proof {
                KeyProof::Secret(secret) => Proof::Secret(secret.clone()),
                KeyProof::Sha256(digest) => Proof::Sha256(*digest),
            },
            models: self.models.clone(),
            labels: self.labels.clone(),
            expires: self.expires,
            budget: self.budget.map(Budget::to_organ),
            quota: self.quota(),
            credentials: self.credentials.into(),
        }
    }
}
