//! Explicit caches.

use serde_json::{Map, Value, json};

use super::super::schema_fields::{CACHE, Side};
use super::super::usage::Prompt;
use super::super::validate::{self, Refusal};
use super::super::{json_reply, models};
use super::{Answered, Ask, Kept, empty, now, time, unknown};

/// A cache that nobody set a life for lives this long.
const DEFAULT_LIFE: u64 = 3_600_000;

/// One cache.
#[derive(Clone, Debug)]
pub(in crate::simulator) struct Cache {
    /// The bare id of its model.
    pub(in crate::simulator) model: String,
    pub(in crate::simulator) tokens: u64,
    /// What it was made of: contents, system instruction, tools.
    pub(in crate::simulator) holds: Value,
    name: String,
    written: String,
    display: Option<Value>,
    made: u64,
    changed: u64,
    ends: u64,
}

/// A cache that is there and has not expired.
pub(in crate::simulator) fn find(kept: &Kept, name: &str) -> Option<Cache> {
    let id = name.rsplit('/').next().unwrap_or(name);
    kept.caches.lock().get(id).filter(|cache| cache.ends > now()).cloned()
}

fn missing() -> Refusal {
    Refusal::new(403, "PERMISSION_DENIED", "CachedContent not found (or permission denied)")
}

pub(super) fn serve(kept: &Kept, ask: &Ask<'_>) -> Answered {
    kept.caches.lock().retain(|cache| cache.ends > now());
    let (id, rest) = ask.named();
    if !rest.is_empty() {
        return Err(unknown(ask));
    }
    match (ask.method.as_str(), id.is_empty()) {
        ("POST", true) => create(kept, ask),
        ("GET", true) => {
            let shelf = kept.caches.lock();
            shelf
                .page(&ask.query, ("pageSize", "pageToken"), "cachedContents", |_, cache| show(cache, ask))
                .map(|page| json_reply(&page))
        }
        ("GET", false) => {
            let mut shelf = kept.caches.lock();
            shelf.get(id).map(|cache| json_reply(&show(cache, ask))).ok_or_else(missing)
        }
        ("PATCH", false) => {
            let change = validate::parse(ask.body, &CACHE, side(ask))?;
            let mask = ask.query.get("updateMask").unwrap_or("ttl");
            if mask.split(',').any(|field| !["ttl", "expireTime", "expire_time"].contains(&field)) {
                return Err(Refusal::invalid("Only ttl and expire_time of a CachedContent can be updated."));
            }
            let mut shelf = kept.caches.lock();
            let cache = shelf.get(id).ok_or_else(missing)?;
            cache.ends = end(&change)?;
            cache.changed = now();
            Ok(json_reply(&show(cache, ask)))
        }
        ("DELETE", false) => kept.caches.lock().take(id).map(|_| empty()).ok_or_else(missing),
        _ => Err(unknown(ask)),
    }
}

fn side(ask: &Ask<'_>) -> Side {
    if ask.place.is_empty() { Side::Gemini } else { Side::Vertex }
}

fn create(kept: &Kept, ask: &Ask<'_>) -> Answered {
    let asked = validate::parse(ask.body, &CACHE, side(ask))?;
    let written = asked.get("model").and_then(Value::as_str).unwrap_or_default();
    let wanted = if ask.place.is_empty() { "models/" } else { "projects/" };
    if !written.starts_with(wanted) || !written.contains("models/") {
        return Err(Refusal::invalid("* CreateCachedContentRequest.model: unexpected model name format\n"));
    }
    let id = written.rsplit('/').next().unwrap_or_default();
    let unknown = || models::unknown(id, ask.version, "createCachedContent");
    let model = models::find(id).ok_or_else(unknown)?;
    let least = match model.version {
        0..=29 => 1_024,
        30..=39 => 4_096,
        // Only implicit caching.
        _ => return Err(unknown()),
    };
    let tokens = Prompt::of(&asked).total();
    if tokens < least {
        return Err(Refusal::invalid(format!(
            "Cached content is too small. total_token_count={tokens}, min_total_token_count={least}"
        )));
    }
    let mut shelf = kept.caches.lock();
    let id = shelf.name("");
    let cache = Cache {
        model: model.id.to_owned(),
        tokens,
        name: format!("{}cachedContents/{id}", ask.place),
        written: written.to_owned(),
        display: asked.get("displayName").cloned(),
        made: now(),
        changed: now(),
        ends: end(&asked)?,
        holds: asked,
    };
    let shown = show(&cache, ask);
    shelf.put(id, cache);
    Ok(json_reply(&shown))
}

/// When it ends, from `ttl` or `expireTime`.
fn end(asked: &Value) -> Result<u64, Refusal> {
    let text = |name: &str| asked.get(name).and_then(Value::as_str);
    match (text("ttl"), text("expireTime")) {
        (Some(_), Some(_)) => Err(Refusal::invalid("Only one of ttl and expire_time can be set.")),
        (None, None) => Ok(now() + DEFAULT_LIFE),
        (Some(ttl), None) => {
            let seconds = ttl.strip_suffix('s').and_then(|seconds| seconds.parse::<f64>().ok());
            let life = seconds.and_then(|seconds| std::time::Duration::try_from_secs_f64(seconds).ok());
            let life = life.ok_or_else(|| {
                Refusal::invalid(format!("Invalid value at 'cached_content.ttl' (type.googleapis.com/google.protobuf.Duration), \"{ttl}\""))
            })?;
            Ok(now().saturating_add(u64::try_from(life.as_millis()).unwrap_or(u64::MAX)))
        }
        (None, Some(time)) => {
            let wrong = |_| {
                Refusal::invalid(
                    "Invalid value at 'cached_content.expire_time' (type.googleapis.com/google.protobuf.Timestamp)",
                )
            };
            let end = time.parse::<jiff::Timestamp>().map_err(wrong)?.as_millisecond();
            let end = u64::try_from(end).unwrap_or(0);
            if end <= now() {
                return Err(Refusal::invalid("expire_time must be in the future."));
            }
            Ok(end)
        }
    }
}

fn show(cache: &Cache, ask: &Ask<'_>) -> Value {
    let mut shown = Map::new();
    shown.insert("name".into(), cache.name.as_str().into());
    shown.insert("model".into(), cache.written.as_str().into());
    if let Some(display) = &cache.display {
        shown.insert("displayName".into(), display.clone());
    }
    shown.insert("createTime".into(), time(cache.made).into());
    shown.insert("updateTime".into(), time(cache.changed).into());
    shown.insert("expireTime".into(), time(cache.ends).into());
    let mut usage = json!({ "totalTokenCount": cache.tokens });
    if !ask.place.is_empty()
        && let Some(map) = usage.as_object_mut()
    {
        map.insert("textCount".into(), cache.tokens.into());
    }
    shown.insert("usageMetadata".into(), usage);
    Value::Object(shown)
}
