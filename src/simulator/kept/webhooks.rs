//! Webhooks: kept and shown, never called.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::Response;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::super::json_reply;
use super::{Ask, Kept, empty, now, time, word};
use crate::body::Body;

const EVENTS: &[&str] = &[
    "batch.succeeded",
    "batch.failed",
    "batch.expired",
    "batch.cancelled",
    "interaction.completed",
    "interaction.requires_action",
    "interaction.failed",
    "interaction.cancelled",
    "video.generated",
];

/// How long an old secret still signs, in milliseconds.
const OVERLAP: u64 = 24 * 3_600_000;

/// One webhook.
#[derive(Clone, Debug, Default)]
pub(super) struct Webhook {
    /// What its owner says of it: `name`, `uri`, `subscribed_events`, `state`.
    said: Map<String, Value>,
    made: u64,
    changed: u64,
    /// The secrets, and until when each of them signs if it was replaced.
    secrets: Vec<(String, Option<u64>)>,
}

impl Webhook {
    fn show(&self, id: &str) -> Value {
        let mut shown = self.said.clone();
        shown.insert("id".into(), id.into());
        shown.insert("create_time".into(), time(self.made).into());
        shown.insert("update_time".into(), time(self.changed).into());
        let secrets = self.secrets.iter().filter(|(_, until)| until.is_none_or(|until| now() < until));
        let secrets = secrets.map(|(secret, until)| {
            let mut shown = Map::new();
            let start = secret.get(..10).unwrap_or_default();
            shown.insert("truncated_secret".into(), format!("{start}...").into());
            if let Some(until) = until {
                shown.insert("expire_time".into(), time(*until).into());
            }
            Value::Object(shown)
        });
        shown.insert("signing_secrets".into(), secrets.collect());
        Value::Object(shown)
    }
}

pub(super) fn serve(kept: &Kept, ask: &Ask<'_>) -> Response<Body> {
    answer(kept, ask).unwrap_or_else(|refusal| refusal)
}

#[expect(clippy::result_large_err, reason = "both are the response")]
fn answer(kept: &Kept, ask: &Ask<'_>) -> Result<Response<Body>, Response<Body>> {
    let (id, rest) = ask.named();
    let missing = || word(404, "not_found", format!("Webhook {id} was not found."));
    let mut shelf = kept.webhooks.lock();
    Ok(match (ask.method.as_str(), id, rest) {
        ("POST", "", "") => {
            let mut said = wanted(ask, &["name", "uri", "subscribed_events"])?;
            for needed in ["uri", "subscribed_events"] {
                if !said.contains_key(needed) {
                    return Err(word(400, "invalid_request", format!("{needed} is required")));
                }
            }
            said.insert("state".into(), "enabled".into());
            let id = shelf.name("wh_");
            let first = secret(&id);
            let webhook = Webhook { said, made: now(), changed: now(), secrets: vec![(first.clone(), None)] };
            let mut shown = webhook.show(&id);
            shelf.put(id, webhook);
            // The one time that the secret is shown.
            if let Some(shown) = shown.as_object_mut() {
                shown.insert("new_signing_secret".into(), first.into());
            }
            json_reply(&shown)
        }
        ("GET", "", "") => {
            let page = shelf
                .page(&ask.query, ("page_size", "page_token"), "webhooks", |id, webhook| webhook.show(id));
            match page {
                Ok(page) => json_reply(&page),
                Err(refusal) => return Err(word(400, "invalid_request", refusal.message)),
            }
        }
        ("GET", id, "") => json_reply(&shelf.get(id).ok_or_else(missing)?.show(id)),
        ("PATCH", id, "") => {
            let mut said = wanted(ask, &["name", "uri", "subscribed_events", "state"])?;
            let webhook = shelf.get(id).ok_or_else(missing)?;
            if let Some(mask) = ask.query.get("update_mask").filter(|mask| !mask.is_empty()) {
                let mask = mask.replace("%2C", ",").replace("%2c", ",");
                let mask: Vec<&str> = mask.split(',').map(str::trim).collect();
                if let Some(strange) = mask.iter().find(|field| !said.contains_key(**field)) {
                    return Err(word(
                        400,
                        "invalid_request",
                        format!("update_mask names {strange}, the body does not"),
                    ));
                }
                said.retain(|field, _| mask.contains(&field.as_str()));
            }
            webhook.said.extend(said);
            webhook.changed = now();
            json_reply(&webhook.show(id))
        }
        ("DELETE", id, "") => shelf.take(id).map(|_| empty()).ok_or_else(missing)?,
        ("POST", id, "ping") => shelf.get(id).map(|_| empty()).ok_or_else(missing)?,
        ("POST", id, "rotateSigningSecret" | "rotate_secret") => {
            let at_once = match body(ask)?.get("revocation_behavior").map(Value::as_str) {
                None | Some(Some("revoke_previous_secrets_after_h24")) => false,
                Some(Some("revoke_previous_secrets_immediately")) => true,
                Some(_) => return Err(word(400, "invalid_request", "revocation_behavior is not known")),
            };
            let next = secret(&shelf.name(id));
            let webhook = shelf.get(id).ok_or_else(missing)?;
            if at_once {
                webhook.secrets.clear();
            }
            for (_, until) in &mut webhook.secrets {
                until.get_or_insert(now() + OVERLAP);
            }
            // One who rotates all day keeps the newest.
            let old = webhook.secrets.len().saturating_sub(9);
            webhook.secrets.drain(..old);
            webhook.secrets.push((next.clone(), None));
            json_reply(&json!({ "secret": next }))
        }
        _ => return Err(word(404, "not_found", "Method not found.")),
    })
}

fn secret(seed: &str) -> String {
    format!("whsec_{}", STANDARD.encode(Sha256::digest(seed)))
}

#[expect(clippy::result_large_err, reason = "a response is what the caller answers with")]
fn body(ask: &Ask<'_>) -> Result<Map<String, Value>, Response<Body>> {
    if ask.body.is_empty() {
        return Ok(Map::new());
    }
    ask.json().map_err(|refusal| word(400, "invalid_request", refusal.message))
}

/// What a body says, if it says nothing but this.
#[expect(clippy::result_large_err, reason = "a response is what the caller answers with")]
fn wanted(ask: &Ask<'_>, known: &[&str]) -> Result<Map<String, Value>, Response<Body>> {
    let said = body(ask)?;
    for (name, value) in &said {
        let text = value.as_str();
        let fine = match name.as_str() {
            _ if !known.contains(&name.as_str()) => {
                return Err(word(400, "parameter_unknown", format!("Unknown parameter: {name}")));
            }
            "uri" => text.is_some_and(|uri| uri.starts_with("https://")),
            "state" => matches!(text, Some("enabled" | "disabled")),
            "subscribed_events" => value.as_array().is_some_and(|events| {
                !events.is_empty()
                    && events.iter().all(|event| event.as_str().is_some_and(|event| EVENTS.contains(&event)))
            }),
            _ => text.is_some(),
        };
        if !fine {
            return Err(word(400, "invalid_request", format!("{name} is not what it may be")));
        }
    }
    Ok(said)
}
