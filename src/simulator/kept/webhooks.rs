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

/// One webhook, as it is shown.
pub(super) type Webhook = Map<String, Value>;

pub(super) fn serve(kept: &Kept, ask: &Ask<'_>) -> Response<Body> {
    let (id, rest) = ask.named();
    let missing = || word(404, "not_found", format!("Webhook {id} was not found."));
    let mut shelf = kept.webhooks.lock();
    match (ask.method.as_str(), id, rest) {
        ("POST", "", "") => {
            let (uri, events) = match wanted(ask, true) {
                Ok(wanted) => wanted,
                Err(refusal) => return refusal,
            };
            let id = shelf.name("wh_");
            let mut webhook = Map::new();
            webhook.insert("id".into(), id.as_str().into());
            webhook.insert("name".into(), format!("webhooks/{id}").into());
            webhook.insert("uri".into(), uri.unwrap_or_default());
            webhook.insert("subscribed_events".into(), events.unwrap_or_default());
            webhook.insert("state".into(), "enabled".into());
            webhook.insert("create_time".into(), time(now()).into());
            webhook.insert("update_time".into(), time(now()).into());
            shelf.put(id.clone(), webhook.clone());
            // The one time that the secret is shown.
            webhook.insert("new_signing_secret".into(), secret(&id).into());
            json_reply(&Value::Object(webhook))
        }
        ("GET", "", "") => {
            let show = |_: &str, webhook: &Webhook| Value::Object(webhook.clone());
            match shelf.page(&ask.query, ("page_size", "page_token"), "webhooks", show) {
                Ok(page) => json_reply(&page),
                Err(refusal) => word(400, "invalid_request", refusal.message),
            }
        }
        ("GET", id, "") => {
            shelf.get(id).map_or_else(missing, |webhook| json_reply(&Value::Object(webhook.clone())))
        }
        ("PATCH", id, "") => {
            let (uri, events) = match wanted(ask, false) {
                Ok(wanted) => wanted,
                Err(refusal) => return refusal,
            };
            let Some(webhook) = shelf.get(id) else { return missing() };
            if let Some(uri) = uri {
                webhook.insert("uri".into(), uri);
            }
            if let Some(events) = events {
                webhook.insert("subscribed_events".into(), events);
            }
            webhook.insert("update_time".into(), time(now()).into());
            json_reply(&Value::Object(webhook.clone()))
        }
        ("DELETE", id, "") => shelf.take(id).map_or_else(missing, |_| empty()),
        ("POST", id, "ping") => shelf.get(id).map_or_else(missing, |_| empty()),
        ("POST", id, "rotateSigningSecret" | "rotate_secret") => {
            let known = shelf.get(id).is_some();
            let salt = shelf.name(id);
            if known { json_reply(&json!({ "secret": secret(&salt) })) } else { missing() }
        }
        _ => word(404, "not_found", "Method not found."),
    }
}

fn secret(seed: &str) -> String {
    format!("whsec_{}", STANDARD.encode(Sha256::digest(seed)))
}

/// The address and the events of a body.
#[expect(clippy::result_large_err, reason = "a response is what the caller answers with")]
fn wanted(ask: &Ask<'_>, whole: bool) -> Result<(Option<Value>, Option<Value>), Response<Body>> {
    let body = ask.json().map_err(|refusal| word(400, "invalid_request", refusal.message))?;
    let known = ["name", "uri", "subscribed_events", "state"];
    if let Some(name) = body.keys().find(|name| !known.contains(&name.as_str())) {
        return Err(word(400, "parameter_unknown", format!("Unknown parameter: {name}")));
    }
    let uri = body.get("uri").cloned();
    let events = body.get("subscribed_events").cloned();
    let fine = uri.as_ref().and_then(Value::as_str).is_some_and(|uri| uri.starts_with("https://"));
    if uri.is_some() && !fine || whole && uri.is_none() {
        return Err(word(400, "invalid_request", "uri must be an https address"));
    }
    let named = events.as_ref().and_then(Value::as_array).is_some_and(|events| {
        !events.is_empty()
            && events.iter().all(|event| event.as_str().is_some_and(|event| EVENTS.contains(&event)))
    });
    if events.is_some() && !named || whole && events.is_none() {
        return Err(word(400, "invalid_request", "subscribed_events must name known events"));
    }
    Ok((uri, events))
}
