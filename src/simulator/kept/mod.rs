//! What Google keeps for its callers: caches, files, batches, interactions, webhooks. In memory, and bounded: the
//! oldest goes when a shelf is full.

mod batches;
mod caches;
mod files;
mod interactions;
mod webhooks;

use std::collections::VecDeque;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use parking_lot::Mutex;
use serde_json::{Map, Value, json};

use super::validate::Refusal;
use super::{Query, Simulator, json_reply, refused};
use crate::body::{self, Body};
use crate::clock::Clock;

pub(super) use self::batches::create as create_batch;
pub(super) use self::caches::{Cache, find as find_cache};
pub(super) use self::files::check as check_file;

/// How many things of one kind are kept.
const ROOM: usize = 1_000;

/// Everything that is kept.
#[derive(Debug, Default)]
pub(super) struct Kept {
    caches: Mutex<Shelf<Cache>>,
    files: Mutex<Shelf<files::File>>,
    uploads: Mutex<Shelf<files::Upload>>,
    batches: Mutex<Shelf<batches::Batch>>,
    interactions: Mutex<Shelf<interactions::Interaction>>,
    webhooks: Mutex<Shelf<webhooks::Webhook>>,
}

/// Things by name, the oldest first.
#[derive(Debug)]
struct Shelf<T> {
    things: VecDeque<(String, T)>,
    made: u64,
}

impl<T> Default for Shelf<T> {
    fn default() -> Self {
        Self { things: VecDeque::new(), made: 0 }
    }
}

impl<T> Shelf<T> {
    /// A new name that begins like this.
    fn name(&mut self, prefix: &str) -> String {
        self.made += 1;
        // Names look random at Google; nothing may be read out of their order.
        let mixed = self.made.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ now().rotate_left(20);
        format!("{prefix}{mixed:016x}")
    }

    fn put(&mut self, name: String, thing: T) {
        if self.things.len() >= ROOM {
            self.things.pop_front();
        }
        self.things.push_back((name, thing));
    }

    fn get(&mut self, name: &str) -> Option<&mut T> {
        self.things.iter_mut().find(|(known, _)| known == name).map(|(_, thing)| thing)
    }

    fn take(&mut self, name: &str) -> Option<T> {
        let at = self.things.iter().position(|(known, _)| known == name)?;
        self.things.remove(at).map(|(_, thing)| thing)
    }

    fn retain(&mut self, keep: impl Fn(&T) -> bool) {
        self.things.retain(|(_, thing)| keep(thing));
    }

    /// A page, newest first, and the token of the next one.
    fn page(
        &self,
        query: &Query<'_>,
        names: (&str, &str),
        member: &str,
        show: impl Fn(&str, &T) -> Value,
    ) -> Result<Value, Refusal> {
        let size = match query.get(names.0).map(str::parse::<usize>) {
            None | Some(Ok(0)) => 50,
            Some(Ok(size)) => size.min(100),
            Some(Err(_)) => {
                return Err(Refusal::invalid(format!("Invalid value at '{}' (TYPE_INT32)", names.0)));
            }
        };
        let start = match query.get(names.1).filter(|token| !token.is_empty()).map(str::parse::<usize>) {
            None => 0,
            Some(Ok(start)) => start,
            Some(Err(_)) => return Err(Refusal::invalid("Request contains an invalid argument: page token")),
        };
        let page = self.things.iter().rev().skip(start).take(size);
        let shown: Vec<Value> = page.map(|(name, thing)| show(name, thing)).collect();
        let mut answer = Map::new();
        // An empty list is left out, as proto JSON does.
        if !shown.is_empty() {
            answer.insert(member.to_owned(), Value::Array(shown));
        }
        let next = start.saturating_add(size);
        if next < self.things.len() {
            let token = if names.1 == "pageToken" { "nextPageToken" } else { "next_page_token" };
            answer.insert(token.to_owned(), next.to_string().into());
        }
        Ok(Value::Object(answer))
    }
}

/// Milliseconds since 1970.
fn now() -> u64 {
    Clock::System.unix_millis()
}

/// A time as Google writes it.
fn time(millis: u64) -> String {
    let millis = i64::try_from(millis).unwrap_or(i64::MAX);
    jiff::Timestamp::from_millisecond(millis).map_or_else(|_| String::new(), |time| time.to_string())
}

/// A request for something that is kept.
struct Ask<'a> {
    method: &'a Method,
    version: &'a str,
    /// `projects/p/locations/l/` on Vertex AI, else nothing.
    place: &'a str,
    /// Below version and place, `cachedContents/x`.
    path: &'a str,
    query: Query<'a>,
    headers: &'a HeaderMap,
    body: &'a Bytes,
}

impl Ask<'_> {
    /// What stands behind the collection: a name, and a method after a colon or a slash.
    fn named(&self) -> (&str, &str) {
        let rest = self.path.split_once('/').map_or("", |(_, rest)| rest);
        rest.split_once([':', '/']).unwrap_or((rest, ""))
    }

    fn json(&self) -> Result<Map<String, Value>, Refusal> {
        if self.body.is_empty() {
            return Ok(Map::new());
        }
        match serde_json::from_slice(self.body) {
            Ok(Value::Object(map)) => Ok(map),
            Ok(_) => Err(Refusal::invalid("Invalid JSON payload received. An object was expected.")),
            Err(error) => Err(Refusal::invalid(format!("Invalid JSON payload received. {error}"))),
        }
    }
}

type Answered = Result<Response<Body>, Refusal>;

/// Splits a path into version, place and the rest, where the rest names something that is kept.
pub(super) fn split(path: &str) -> Option<(&str, &str, &str)> {
    let (version, rest) = path.strip_prefix('/')?.split_once('/')?;
    if !["v1", "v1beta", "v1alpha", "v1beta1"].contains(&version) {
        return None;
    }
    let (place, rest) = match rest.strip_prefix("projects/") {
        None => ("", rest),
        Some(placed) => {
            let mut segments = placed.splitn(4, '/');
            let (_, locations, _) = (segments.next()?, segments.next()?, segments.next()?);
            let below = segments.next().filter(|_| locations == "locations")?;
            (rest.get(..rest.len() - below.len())?, below)
        }
    };
    let word = rest.split(['/', ':']).next().unwrap_or_default();
    ["cachedContents", "files", "batches", "operations", "interactions", "webhooks"]
        .contains(&word)
        .then_some((version, place, rest))
}

impl Simulator {
    /// Answers a request for something that is kept, its path split.
    pub(super) fn kept(
        &self,
        (version, place, path): (&str, &str, &str),
        head: &http::request::Parts,
        body: &Bytes,
        query: &Query<'_>,
    ) -> Response<Body> {
        let word = path.split(['/', ':']).next().unwrap_or_default();
        let ask = Ask {
            method: &head.method,
            version,
            place,
            path,
            query: Query(query.0),
            headers: &head.headers,
            body,
        };
        let only_gemini = ["files", "batches", "webhooks"].contains(&word) && !place.is_empty();
        let answered = match word {
            _ if only_gemini => Err(unknown(&ask)),
            "cachedContents" => caches::serve(&self.kept, &ask),
            "files" => files::serve(&self.kept, &ask),
            "batches" | "operations" => batches::serve(&self.kept, &ask),
            "interactions" => return interactions::serve(self, &ask),
            "webhooks" => return webhooks::serve(&self.kept, &ask),
            _ => Err(unknown(&ask)),
        };
        answered.unwrap_or_else(|refusal| refused(&refusal, false))
    }

    /// Takes a piece of an upload as it comes; what it holds is measured, never kept.
    pub(super) async fn take_upload(&self, request: Request<Body>) -> Response<Body> {
        files::upload(&self.kept, request).await.unwrap_or_else(|refusal| refused(&refusal, false))
    }
}

fn unknown(ask: &Ask<'_>) -> Refusal {
    Refusal::new(404, "NOT_FOUND", format!("Method not found: {} {}", ask.method, ask.path))
}

/// An error of the Interactions API.
fn word(status: u16, code: &str, message: impl Into<String>) -> Response<Body> {
    let error = json!({ "error": { "code": code, "message": message.into() } });
    let mut response = json_reply(&error);
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST);
    response
}

fn empty() -> Response<Body> {
    super::head(StatusCode::OK, super::JSON, body::full("{}\n"))
}
