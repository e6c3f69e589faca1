//! The operator's API, on the second listener only and behind a key of its own: client keys, limits, usage, sites.
//!
//! It is off unless `admin_key` is configured. What it serves is written down in `openapi.json`, which it serves
//! too; a test compares the two.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::header::{ALLOW, AUTHORIZATION, CONTENT_TYPE, HeaderValue, WWW_AUTHENTICATE};
use http::{Method, Request, Response, StatusCode};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::api::{Engine, Operator, render};
use crate::clock::Clock;
use crate::error::{Error, Kind, Origin, Result};
use crate::keys::stored::{self, Shelf, Spec};
use crate::keys::{KeyConfig, Stored};
use crate::limits::{Amount, Budget, Limiter, Quota};
use crate::meter::ledger::{self, Dimension, Query};
use crate::store::Place;

/// What is served, as `OpenAPI` describes it.
pub const OPENAPI: &str = include_str!("openapi.json");

/// What of the configuration the operator's API looks at.
#[derive(Debug)]
pub struct Desk {
    /// Who may ask; nobody where there is none.
    pub key: Option<SecretString>,
    /// Keys of the configuration.
    pub configured: Vec<KeyConfig>,
}

/// Everything the operator's API looks at.
pub struct Admin {
    /// The configuration in force.
    pub desk: Arc<ArcSwap<Desk>>,
    /// Keys of the store, where there is one, and where they are in force.
    pub shelf: Option<(Arc<Shelf>, Stored)>,
    /// All limits.
    pub limiter: Limiter,
    /// The ledger, where there is one.
    pub ledger: Option<Place>,
    /// The gateway.
    pub engine: Arc<dyn Engine>,
}

impl std::fmt::Debug for Admin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Admin").finish_non_exhaustive()
    }
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rotation {
    /// How long the old secret is let in beside the new one.
    #[serde(default)]
    grace: Option<String>,
}

#[derive(Deserialize)]
struct NewKey {
    name: String,
    #[serde(default)]
    expires: Option<String>,
    #[serde(flatten)]
    spec: serde_json::Map<String, Value>,
}

impl Operator for Admin {
    fn handle(&self, request: Request<Bytes>) -> BoxFuture<'_, Response<Bytes>> {
        Box::pin(async move {
            let answered = if self.knows(&request) { self.route(&request).await } else { Err(stranger()) };
            match answered {
                Ok((status, value)) => json_response(status, value.to_string().into()),
                Err(error) => {
                    let look = render::describe(error.kind());
                    let mut response = json_response(look.status, render::body(&error).into());
                    if look.status == StatusCode::METHOD_NOT_ALLOWED {
                        let path: Vec<&str> = request.uri().path().trim_matches('/').split('/').collect();
                        if let Ok(value) = HeaderValue::from_str(&allowed(&path).join(", ")) {
                            response.headers_mut().insert(ALLOW, value);
                        }
                    }
                    if look.status == StatusCode::UNAUTHORIZED {
                        response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
                    }
                    response
                }
            }
        })
    }
}

fn json_response(status: StatusCode, body: Bytes) -> Response<Bytes> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn stranger() -> Error {
    Error::new(Kind::Unauthenticated, Origin::Client, "The operator's key is missing, or it is another one.")
}

fn missing() -> Error {
    Error::new(
        Kind::NotFound,
        Origin::Client,
        "There is nothing here; /admin/openapi.json says what there is.",
    )
}

impl Admin {
    fn knows(&self, request: &Request<Bytes>) -> bool {
        let given = request.headers().get(AUTHORIZATION).map(HeaderValue::as_bytes).unwrap_or_default();
        let Some((scheme, given)) = given.split_at_checked(7) else { return false };
        let digest = |secret: &[u8]| -> [u8; 32] { Sha256::digest(secret).into() };
        let desk = self.desk.load();
        let Some(key) = &desk.key else { return false };
        let same = digest(given).ct_eq(&digest(key.expose_secret().as_bytes()));
        scheme.eq_ignore_ascii_case(b"bearer ") && bool::from(same)
    }

    async fn route(&self, request: &Request<Bytes>) -> Result<(StatusCode, Value)> {
        let path = request.uri().path();
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        let ok = |value| Ok((StatusCode::OK, value));
        match (request.method(), parts.as_slice()) {
            (&Method::GET, ["admin", "openapi.json"]) => {
                ok(serde_json::from_str(OPENAPI).map_err(Error::internal)?)
            }
            (&Method::GET, ["admin", "v1", "keys"]) => ok(json!({ "keys": self.keys().await? })),
            (&Method::GET, ["admin", "v1", "keys", name]) => {
                let name = decoded(name);
                let all = self.keys().await?;
                ok(all.into_iter().find(|key| key["name"] == *name).ok_or_else(missing)?)
            }
            (&Method::POST, ["admin", "v1", "keys"]) => {
                Ok((StatusCode::CREATED, self.create(request.body()).await?))
            }
            (&Method::POST, ["admin", "v1", "keys", name, "rotate"]) => {
                let name = decoded(name);
                let own = name.clone();
                let grace = grace(request.body())?;
                let fresh = self.on_shelf(move |shelf| shelf.rotate(&own, grace)).await?;
                ok(json!({ "name": name, "secret": fresh.secret, "hash": fresh.hash }))
            }
            (&Method::DELETE, ["admin", "v1", "keys", name]) => {
                let name = decoded(name);
                let own = name.clone();
                self.on_shelf(move |shelf| shelf.revoke(&own)).await?;
                ok(json!({ "name": name, "revoked": true }))
            }
            (&Method::GET, ["admin", "v1", "limits"]) => ok(self.limits()),
            (&Method::GET, ["admin", "v1", "usage"]) => ok(self.usage(request.uri().query()).await?),
            (&Method::GET, ["admin", "v1", "sites"]) => {
                let ready = self.engine.ready();
                let detail: serde_json::Map<_, _> =
                    ready.detail.into_iter().map(|(name, value)| (name, Value::String(value))).collect();
                ok(json!({
                    "ready": ready.ready, "simulator": ready.simulator, "detail": detail,
                    "sites": self.engine.sites(),
                }))
            }
            (method, path) if !allowed(path).is_empty() => {
                let words = format!("{method} is not served here, but {}.", allowed(path).join(" and "));
                Err(Error::new(Kind::MethodNotAllowed, Origin::Client, words))
            }
            _ => Err(missing()),
        }
    }

    /// Does something with the store's keys, and puts the change in force here at once.
    async fn on_shelf<T: Send + 'static>(
        &self,
        verb: impl FnOnce(&Shelf) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let Some((shelf, stored)) = &self.shelf else {
            let words = "No [store] is configured, so keys can be neither made nor changed here.";
            return Err(Error::new(Kind::Conflict, Origin::Client, words));
        };
        let (shelf, stored) = (Arc::clone(shelf), stored.clone());
        let work = move || {
            let done = verb(&shelf)?;
            shelf.load(&stored)?;
            Ok(done)
        };
        tokio::task::spawn_blocking(work).await.map_err(Error::internal)?
    }

    async fn create(&self, body: &Bytes) -> Result<Value> {
        let wrong = |error: serde_json::Error| {
            Error::new(
                Kind::Invalid,
                Origin::Client,
                format!("The body is not the description of a key: {error}."),
            )
        };
        let asked: NewKey = serde_json::from_slice(body).map_err(wrong)?;
        let spec: Spec = serde_json::from_value(Value::Object(asked.spec)).map_err(wrong)?;
        if self.desk.load().configured.iter().any(|key| key.name == asked.name) {
            let words = format!("The configuration has a key named '{}'.", asked.name);
            return Err(Error::new(Kind::Conflict, Origin::Client, words).at("name"));
        }
        let expires = asked.expires.as_deref().map(expiry).transpose()?;
        let name = asked.name.clone();
        let fresh = self.on_shelf(move |shelf| shelf.create(&name, &spec, expires)).await?;
        Ok(json!({ "name": asked.name, "secret": fresh.secret, "hash": fresh.hash }))
    }

    /// All keys, without their secrets.
    async fn keys(&self) -> Result<Vec<Value>> {
        let mut all: Vec<Value> = self.desk.load().configured.iter().map(|key| {
            json!({
                "name": key.name, "source": "configuration", "models": key.models, "labels": key.labels,
                "limits": quota(&key.quota), "budget": key.budget.map(|budget| self.budget(&key.name, &budget)),
                "credentials": key.credentials.as_str(), "expires": key.expires,
            })
        }).collect();
        if let Some((shelf, _)) = &self.shelf {
            let reader = Arc::clone(shelf);
            let listed =
                tokio::task::spawn_blocking(move || reader.list()).await.map_err(Error::internal)??;
            for key in listed {
                let budget = key.spec.budget()?.map(|budget| self.budget(&key.name, &budget));
                all.push(json!({
                    "name": key.name, "source": "store", "models": key.spec.models, "labels": key.spec.labels,
                    "limits": quota(&key.spec.quota()), "budget": budget, "expires": key.expires,
                    "credentials": shelf.credentials(&key.spec).as_str(),
                    "created": key.created, "revoked": key.revoked, "hint": key.hint,
                    "old_secret_until": key.old_until,
                }));
            }
        }
        Ok(all)
    }

    fn budget(&self, name: &str, budget: &Budget) -> Value {
        let (spent, reserved) = self.limiter.spent(name, budget);
        match budget.amount {
            Amount::Tokens(tokens) => json!({
                "tokens": tokens, "per": budget.per.as_str(), "spent_tokens": spent, "reserved_tokens": reserved,
            }),
            Amount::Nanos(nanos) => {
                let dollars = crate::meter::price::dollars;
                json!({
                    "usd": dollars(nanos), "per": budget.per.as_str(),
                    "spent_usd": dollars(spent), "reserved_usd": dollars(reserved),
                })
            }
        }
    }

    fn limits(&self) -> Value {
        let rules: Vec<Value> = self
            .limiter
            .rules()
            .iter()
            .map(|rule| {
                let names = |patterns: &[crate::catalog::Pattern]| -> Vec<String> {
                    patterns.iter().map(|pattern| pattern.as_str().to_owned()).collect()
                };
                let mut per = Vec::new();
                if rule.per_key {
                    per.push("key");
                }
                if rule.per_model {
                    per.push("model");
                }
                json!({
                    "name": rule.name, "keys": names(&rule.keys), "models": names(&rule.models), "per": per,
                    "limits": quota(&rule.quota),
                })
            })
            .collect();
        json!({ "rules": rules, "counts": self.limiter.counts() })
    }

    async fn usage(&self, query: Option<&str>) -> Result<Value> {
        let place = self.ledger.clone().ok_or_else(|| {
            Error::new(
                Kind::NotFound,
                Origin::Client,
                "No [ledger] is configured, so there is no usage to sum up.",
            )
        })?;
        let word = |name: &str| {
            let pairs = query.unwrap_or_default().split('&').filter_map(|pair| pair.split_once('='));
            pairs.filter(|(known, _)| *known == name).map(|(_, value)| decoded(value)).next()
        };
        let now = i64::try_from(Clock::System.unix_millis()).unwrap_or(i64::MAX);
        let by = word("by").unwrap_or_else(|| "key,model".to_owned());
        let by: Vec<Dimension> = by
            .split(',')
            .filter(|name| !name.is_empty())
            .map(Dimension::parse)
            .collect::<Result<_>>()
            .map_err(asked)?;
        let asked_for = Query {
            by: by.clone(),
            since: ledger::instant(&word("since").unwrap_or_else(|| "24h".to_owned()), now).map_err(asked)?,
            until: word("until").map(|until| ledger::instant(&until, now)).transpose().map_err(asked)?,
            key: word("key"),
        };
        let work = move || ledger::ask(&place, &asked_for);
        let groups = tokio::task::spawn_blocking(work).await.map_err(Error::internal)??;
        let data: Vec<Value> = groups.iter().map(|group| group.to_json(&by)).collect();
        Ok(json!({ "data": data }))
    }
}

/// What was asked wrongly is the client's fault here.
fn asked(error: Error) -> Error {
    Error::new(Kind::Invalid, Origin::Client, error.message().to_owned()).because(error)
}

/// The methods of a path that there is.
fn allowed(path: &[&str]) -> &'static [&'static str] {
    match path {
        ["admin", "openapi.json"] | ["admin", "v1", "limits" | "usage" | "sites"] => &["GET"],
        ["admin", "v1", "keys"] => &["GET", "POST"],
        ["admin", "v1", "keys", _] => &["GET", "DELETE"],
        ["admin", "v1", "keys", _, "rotate"] => &["POST"],
        _ => &[],
    }
}

fn grace(body: &Bytes) -> Result<Duration> {
    if body.is_empty() {
        return Ok(Duration::ZERO);
    }
    let wrong = |words: String| Error::invalid("grace", words);
    let asked: Rotation = serde_json::from_slice(body)
        .map_err(|error| wrong(format!("The body is not {{\"grace\": \"24h\"}}: {error}.")))?;
    let Some(text) = asked.grace else { return Ok(Duration::ZERO) };
    stored::grace(&text)
}

fn expiry(text: &str) -> Result<u64> {
    stored::expiry(text, Clock::System.unix_seconds())
}

fn decoded(text: &str) -> String {
    percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned()
}

fn quota(quota: &Quota) -> Value {
    let all = [
        ("requests_per_minute", quota.requests_per_minute.map(u64::from)),
        ("requests_per_day", quota.requests_per_day.map(u64::from)),
        ("tokens_per_minute", quota.tokens_per_minute),
        ("input_tokens_per_minute", quota.input_tokens_per_minute),
        ("output_tokens_per_minute", quota.output_tokens_per_minute),
        ("concurrent_requests", quota.concurrent_requests.map(u64::from)),
    ];
    let set = all.iter().filter_map(|(name, limit)| Some(((*name).to_owned(), Value::from((*limit)?))));
    Value::Object(set.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_describes_what_is_served() {
        let document: Value = serde_json::from_str(OPENAPI).unwrap();
        let paths = document["paths"].as_object().unwrap();
        // Every path that the code knows, as it is written in `route`.
        let source = include_str!("mod.rs");
        for (path, verbs) in paths {
            let parts = path
                .trim_matches('/')
                .split('/')
                .map(|part| if part == "{name}" { "name".to_owned() } else { format!("\"{part}\"") });
            let pattern = format!("[{}]", parts.collect::<Vec<_>>().join(", "));
            for verb in verbs.as_object().unwrap().keys().filter(|verb| *verb != "parameters") {
                let arm = format!("(&Method::{}, {pattern})", verb.to_uppercase());
                assert!(source.contains(&arm), "{arm} is described and not served");
            }
        }
        let described: usize = paths
            .values()
            .map(|verbs| verbs.as_object().unwrap().keys().filter(|verb| *verb != "parameters").count())
            .sum();
        let served = source.lines().filter(|line| line.starts_with("            (&Method::")).count();
        assert_eq!(served, described, "everything served is described");
    }
}
