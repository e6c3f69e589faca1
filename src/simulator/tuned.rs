//! Models that somebody tuned. Nothing is tuned here: there are those whose name begins like a fault's (`sim-`), and
//! at Vertex AI, where they are endpoints with a number, any number.

use std::borrow::Cow;

use serde_json::{Value, json};

use super::Route;
use super::models::{self, Model};
use super::validate::Refusal;

/// What they were made of.
const BASE: &str = "gemini-2.5-flash";

/// What follows `tunedModels` or `endpoints` in a path.
pub(super) fn route<'a>((vertex, version): (bool, &'a str), named: &'a str) -> Option<Route<'a>> {
    let named = match named.strip_prefix('/') {
        None if named.is_empty() => "",
        None => return None,
        Some(named) => named,
    };
    let (model, method) = named.split_once(':').unwrap_or((named, ""));
    Some(Route { vertex, version, model: Cow::Borrowed(model), method, tuned: true })
}

/// The model behind a name.
pub(super) fn find(vertex: bool, name: &str) -> Option<&'static Model> {
    let number = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_digit());
    let known = if vertex { number } else { name.starts_with("sim-") };
    if known { models::find(BASE) } else { None }
}

/// What Google says of one that it does not show.
pub(super) fn denied(vertex: bool, name: &str) -> Refusal {
    if vertex {
        let text = format!("The Endpoint `{name}` does not exist or is not deployed.");
        return Refusal::new(404, "NOT_FOUND", text);
    }
    let text = format!("You do not have permission to access tuned model {name} or it may not exist.");
    Refusal::new(403, "PERMISSION_DENIED", text)
}

/// One of them, or the list.
pub(super) fn describe(route: &Route<'_>, path: &str) -> Result<Value, Refusal> {
    let show = |name: &str| {
        if route.vertex {
            let (_, place) = path.split_once("/projects/").unwrap_or_default();
            let place = place.split("/endpoints").next().unwrap_or_default();
            return json!({
                "name": format!("projects/{place}/endpoints/{name}"),
                "displayName": "sim-tuned",
                "deployedModels": [{ "id": "1", "model": format!("projects/{place}/models/{name}@1") }],
            });
        }
        json!({
            "name": format!("tunedModels/{name}"),
            "baseModel": format!("models/{BASE}"),
            "displayName": name,
            "state": "ACTIVE",
        })
    };
    match route.model.as_ref() {
        "" if path.ends_with("/models") => {
            let (_, place) = path.split_once("/projects/").unwrap_or_default();
            let place = place.strip_suffix("/models").unwrap_or(place);
            Ok(json!({ "models": [{
                "name": format!("projects/{place}/models/1"),
                "displayName": "sim-tuned",
                "versionId": "1",
                "deployedModels": [{ "endpoint": format!("projects/{place}/endpoints/1"), "deployedModelId": "1" }],
            }] }))
        }
        "" if route.vertex => Ok(json!({ "endpoints": [show("1")] })),
        "" => Ok(json!({ "tunedModels": [show("sim-tuned")] })),
        name => match find(route.vertex, name) {
            Some(_) => Ok(show(name)),
            None => Err(denied(route.vertex, name)),
        },
    }
}
