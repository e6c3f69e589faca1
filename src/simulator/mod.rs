//! Gemini, simulated: the upstream without credentials, the double in tests, the target of load.
//!
//! It speaks the Gemini API and Vertex AI, refuses what Google refuses, and says the same to the same
//! request. What it does wrong on purpose stands in [`FAULTS`].

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "most faults and most kinds of JSON value matter in one place only"
)]

mod embed;
mod faults;
mod fragments;
mod kept;
mod long;
mod models;
mod rules;
mod sample;
mod schema_fields;
mod script;
mod stream;
mod tuned;
mod turns;
mod usage;
mod validate;

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::BodyExt;
use serde_json::{Value, json};

pub use self::faults::FAULTS;
use self::faults::Fault;
use self::models::{Makes, Model};
use self::rules::Way;
use self::schema_fields::{Message, Side};
use self::stream::{Counters, Framing, Guard, Stream};
use self::validate::Refusal;
use crate::body::{self, Body};

/// How the simulator behaves.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// From the request to the head of the answer.
    pub time_to_first_token: Duration,
    /// Events a second after that; 0 or infinite for as fast as possible.
    pub tokens_per_second: f64,
    /// A fault for every request, by its name in [`FAULTS`].
    pub fault: Option<String>,
    /// Refuse requests without any credential, as Google does.
    pub require_key: bool,
}

/// A simulated Gemini. Clones share their counters.
#[derive(Clone, Debug)]
pub struct Simulator {
    config: Arc<Config>,
    counters: Arc<Counters>,
    kept: Arc<kept::Kept>,
}

/// The parameters behind the `?`.
pub(in crate::simulator) struct Query<'a>(&'a str);

impl<'a> Query<'a> {
    fn get(&self, name: &str) -> Option<&'a str> {
        self.0
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            // Google's own parameters may stand with a `$` in front.
            .find(|(key, _)| key.strip_prefix('$').or(key.strip_prefix("%24")).unwrap_or(key) == name)
            .map(|(_, value)| value)
    }
}

struct Route<'a> {
    vertex: bool,
    version: &'a str,
    /// Empty for the list of models.
    model: Cow<'a, str>,
    /// Empty for the description of a model.
    method: &'a str,
    /// It is one that somebody tuned.
    tuned: bool,
}

fn route(path: &str) -> Option<Route<'_>> {
    let (version, rest) = path.strip_prefix('/')?.split_once('/')?;
    if !["v1", "v1beta", "v1alpha", "v1beta1"].contains(&version) {
        return None;
    }
    let (vertex, rest) = match rest.strip_prefix("projects/") {
        None => match rest.strip_prefix("publishers/google/") {
            Some(rest) => (true, rest),
            None => (false, rest),
        },
        Some(rest) => {
            let mut segments = rest.splitn(4, '/');
            let (_, locations, _) = (segments.next()?, segments.next()?, segments.next()?);
            let rest = segments.next().filter(|_| locations == "locations")?;
            (true, rest.strip_prefix("publishers/google/").unwrap_or(rest))
        }
    };
    let placed = vertex && path.contains("/projects/");
    if let Some(named) = rest.strip_prefix("tunedModels").filter(|_| !vertex) {
        return tuned::route((vertex, version), named);
    }
    if placed && !path.contains("/publishers/") {
        let named = if rest == "models" { "" } else { rest.strip_prefix("endpoints")? };
        return tuned::route((vertex, version), named);
    }
    let rest = rest.strip_prefix("models")?;
    let named = match rest.strip_prefix('/') {
        None if rest.is_empty() => "",
        None => return None,
        Some(named) => named,
    };
    let (model, method) = named.split_once(':').unwrap_or((named, ""));
    let model = percent_encoding::percent_decode_str(model).decode_utf8_lossy();
    Some(Route { vertex, version, model, method, tuned: false })
}

/// The answer to a call of a model that is not there, or does not do this.
fn unknown(route: &Route<'_>) -> Refusal {
    if route.tuned && tuned::find(route.vertex, &route.model).is_none() {
        return tuned::denied(route.vertex, &route.model);
    }
    models::unknown(&route.model, route.version, route.method)
}

fn authorize(headers: &HeaderMap, query: &Query<'_>, required: bool) -> Result<(), Refusal> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    let key = text("x-goog-api-key").or_else(|| query.get("key")).filter(|key| !key.is_empty());
    let token = text("authorization").and_then(|value| value.split_once(' ')).map(|(_, token)| token.trim());
    match (key, token) {
        (Some(key), _) if key == "INVALID" || key.starts_with("bad") => Err(faults::bad_key()),
        (_, Some("expired")) => Err(faults::unauthenticated()),
        (None, None) if required => Err(Refusal::new(
            403,
            "PERMISSION_DENIED",
            "Method doesn't allow unregistered callers (callers without established identity). Please use API Key or \
             other form of API consumer identity to call this API.",
        )),
        _ => Ok(()),
    }
}

fn head(status: StatusCode, kind: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert("server-timing", HeaderValue::from_static("gfet4t7; dur=1"));
    response
}

/// Google's own bound on a request, roughly.
const LARGEST_REQUEST: usize = 100 << 20;
const JSON: &str = "application/json; charset=UTF-8";
const HTML: &str = "text/html; charset=UTF-8";
const BAD_GATEWAY: &str =
    "<!DOCTYPE html><html><title>Error 502 (Server Error)!!1</title><p>502. That's an error.";
const LOST: &str = "<!DOCTYPE html><html><title>Error 404 (Not Found)!!1</title><p>404. That's an error.";

fn json_reply(value: &Value) -> Response<Body> {
    head(StatusCode::OK, JSON, body::full(value.to_string()))
}

fn refused(refusal: &Refusal, in_array: bool) -> Response<Body> {
    let value = refusal.body();
    let text = if in_array { json!([value]).to_string() } else { value.to_string() };
    head(refusal.code, JSON, body::full(text))
}

impl Simulator {
    /// A simulator.
    pub fn new(config: Config) -> Self {
        Self { config: Arc::new(config), counters: Arc::default(), kept: Arc::default() }
    }

    /// Requests whose answer has not come to its end.
    pub fn in_flight(&self) -> usize {
        self.counters.in_flight.load(Ordering::SeqCst)
    }

    /// Requests that were dropped before their answer came to its end.
    pub fn cancelled(&self) -> usize {
        self.counters.cancelled.load(Ordering::SeqCst)
    }

    /// Answers one request whose body is still coming, as Google would.
    pub async fn pass(&self, request: Request<Body>) -> Response<Body> {
        if request.uri().path().starts_with("/upload/") {
            let query = Query(request.uri().query().unwrap_or_default());
            // Google takes the pieces of an upload from whoever knows its address.
            let known = query.get("upload_id").is_some();
            if let Err(refusal) = authorize(request.headers(), &query, self.config.require_key && !known) {
                return refused(&refusal, false);
            }
            let mut guard = Guard::new(&self.counters);
            let answer = self.take_upload(request).await;
            guard.finish();
            return answer;
        }
        let (parts, incoming) = request.into_parts();
        match body::read(incoming, LARGEST_REQUEST).await {
            Ok(bytes) => self.respond(Request::from_parts(parts, bytes)).await,
            Err(error) => refused(&Refusal::new(413, "INVALID_ARGUMENT", error.to_string()), false),
        }
    }

    /// Answers one request, as Google would.
    pub async fn respond(&self, request: Request<Bytes>) -> Response<Body> {
        let mut guard = Guard::new(&self.counters);
        let (parts, body) = request.into_parts();
        let query = Query(parts.uri.query().unwrap_or_default());
        if let Some(path) = kept::split(parts.uri.path()) {
            guard.finish();
            return match authorize(&parts.headers, &query, self.config.require_key) {
                Ok(()) => self.kept(path, &parts, &body, &query),
                Err(refusal) => refused(&refusal, false),
            };
        }
        let Some(route) = route(parts.uri.path()) else {
            guard.finish();
            return head(StatusCode::NOT_FOUND, HTML, body::full(LOST));
        };
        let sse = query.get("alt") == Some("sse");
        let in_array = route.method == "streamGenerateContent" && !sse;
        if let Err(refusal) = authorize(&parts.headers, &query, self.config.require_key) {
            guard.finish();
            return refused(&refusal, in_array);
        }
        let answer = if parts.method == Method::GET && route.method.is_empty() {
            let answer = if route.tuned {
                tuned::describe(&route, parts.uri.path())
            } else if route.model.is_empty() {
                models::list(&query, route.vertex)
            } else {
                models::get(&route.model, route.version, route.vertex)
            };
            answer.map(|value| json_reply(&value))
        } else if parts.method == Method::POST && !route.method.is_empty() {
            return self.call(&route, &body, sse, guard).await;
        } else {
            Ok(head(StatusCode::NOT_FOUND, HTML, body::full(LOST)))
        };
        guard.finish();
        answer.unwrap_or_else(|refusal| refused(&refusal, in_array))
    }

    async fn call(&self, route: &Route<'_>, body: &Bytes, sse: bool, mut guard: Guard) -> Response<Body> {
        let fault = match self.config.fault.as_deref() {
            Some(fault) => Fault::named(fault),
            None if route.model.starts_with("sim-") => Fault::named(&route.model),
            None => Fault::None,
        };
        let stream = route.method == "streamGenerateContent";
        let in_array = stream && (!sse || fault == Fault::Array);
        let early = match fault {
            Fault::Hang => std::future::pending().await,
            Fault::Html => Some(head(StatusCode::BAD_GATEWAY, HTML, body::full(BAD_GATEWAY))),
            Fault::Empty => Some(head(StatusCode::OK, JSON, body::empty())),
            Fault::ErrorIn200 => Some(json_reply(&faults::overloaded().body())),
            Fault::ErrorMid | Fault::ErrorFirst if stream => None,
            other => other.refusal(&route.model).map(|refusal| refused(&refusal, in_array)),
        };
        if let Some(early) = early {
            guard.finish();
            return early;
        }
        let model =
            if route.tuned { tuned::find(route.vertex, &route.model) } else { models::find(&route.model) };
        let checked = self.check(route, body, model);
        let checked = checked.and_then(|(ask, model)| Ok((self.referred(ask, model)?, model)));
        let ((ask, cached), model) = match checked {
            Ok(checked) => checked,
            Err(refusal) => {
                guard.finish();
                return refused(&refusal, in_array);
            }
        };
        match (route.method, model.makes) {
            ("generateContent" | "streamGenerateContent", Makes::Text) => {
                let mut answer = script::answer(&ask, body, model, fault);
                answer.prompt.cached += cached;
                long::cut(&mut answer, &ask, model, (fault, stream));
                if rules::streams_arguments(&ask) {
                    answer.candidates = answer.candidates.into_iter().map(fragments::spread).collect();
                }
                drop(ask);
                let framing = if in_array { Framing::Array } else { Framing::Sse };
                self.say(answer, route, stream.then_some(framing), fault, guard).await
            }
            ("computeTokens", Makes::Text) if route.vertex => {
                guard.finish();
                json_reply(&compute_tokens(&ask))
            }
            ("batchGenerateContent", Makes::Text) | ("asyncBatchEmbedContent", Makes::Vectors(_))
                if !route.vertex && !route.tuned =>
            {
                guard.finish();
                kept::create_batch(&self.kept, body, model).unwrap_or_else(|refusal| refused(&refusal, false))
            }
            ("countTokens", _) => {
                guard.finish();
                json_reply(&count_tokens(&ask, route.vertex))
            }
            ("embedContent", Makes::Vectors(size)) => {
                guard.finish();
                embed::one(&ask, model, size, route.vertex)
                    .map_or_else(|refusal| refused(&refusal, false), |value| json_reply(&value))
            }
            ("batchEmbedContents", Makes::Vectors(size)) => {
                guard.finish();
                embed::batch(&ask, (&route.model, model), size, route.vertex)
                    .map_or_else(|refusal| refused(&refusal, false), |value| json_reply(&value))
            }
            ("predict", Makes::Vectors(size)) if route.vertex && model.id != "gemini-embedding-2" => {
                guard.finish();
                embed::predict(&ask, model, size)
                    .map_or_else(|refusal| refused(&refusal, false), |value| json_reply(&value))
            }
            _ => {
                guard.finish();
                refused(&unknown(route), in_array)
            }
        }
    }

    #[expect(clippy::unused_self, reason = "reads as one step of the request's way")]
    fn check(
        &self,
        route: &Route<'_>,
        body: &[u8],
        model: Option<&'static Model>,
    ) -> Result<(Value, &'static Model), Refusal> {
        let side = if route.vertex { Side::Vertex } else { Side::Gemini };
        let message: &'static Message = match route.method {
            "generateContent" | "streamGenerateContent" => &schema_fields::GENERATE,
            "countTokens" => &schema_fields::COUNT,
            "embedContent" => &schema_fields::EMBED,
            "batchEmbedContents" => &schema_fields::BATCH_EMBED,
            "computeTokens" => &schema_fields::COMPUTE,
            // Its requests are parsed one by one.
            "batchGenerateContent" | "asyncBatchEmbedContent" => {
                let model = model.ok_or_else(|| unknown(route))?;
                return Ok((Value::Null, model));
            }
            "predict" if route.vertex => &schema_fields::PREDICT,
            _ => return Err(unknown(route)),
        };
        let ask = validate::parse(body, message, side)?;
        let model = model.filter(|model| route.vertex || !model.vertex_only).ok_or_else(|| unknown(route))?;
        if matches!(model.makes, Makes::Text) {
            let stream = route.method == "streamGenerateContent";
            match route.method {
                "generateContent" | "streamGenerateContent" => {
                    rules::check(&ask, model, Way { vertex: route.vertex, stream })?;
                    long::check(&ask, model)?;
                }
                "countTokens" => {
                    let counted = ask.get("generateContentRequest").unwrap_or(&ask);
                    if turns::items(counted, "contents").is_empty() {
                        return Err(Refusal::invalid(
                            "* CountTokensRequest.contents: contents is not specified\n",
                        ));
                    }
                }
                _ => {}
            }
        }
        Ok((ask, model))
    }

    /// Looks up what a request refers to: files must be ready; a cache is put in front of the rest. With it, the
    /// tokens that came from the cache.
    fn referred(&self, mut ask: Value, model: &Model) -> Result<(Value, u64), Refusal> {
        for part in turns::items(&ask, "contents").iter().flat_map(|content| turns::items(content, "parts")) {
            if let Some(uri) =
                part.get("fileData").and_then(|file| file.get("fileUri")).and_then(Value::as_str)
            {
                kept::check_file(&self.kept, uri)?;
            }
        }
        let Some(name) = ask.get("cachedContent").and_then(Value::as_str) else { return Ok((ask, 0)) };
        let missing =
            || Refusal::new(403, "PERMISSION_DENIED", "CachedContent not found (or permission denied)");
        let cache = kept::find_cache(&self.kept, name).ok_or_else(missing)?;
        if cache.model != model.id {
            return Err(Refusal::invalid(format!(
                "Model used by GenerateContent request (models/{}) and CachedContent (models/{}) has to be the same.",
                model.id, cache.model
            )));
        }
        if let Some(map) = ask.as_object_mut() {
            map.remove("cachedContent");
            for name in ["systemInstruction", "tools", "toolConfig"] {
                if let Some(held) = cache.holds.get(name) {
                    map.insert(name.to_owned(), held.clone());
                }
            }
            let mut contents = turns::items(&cache.holds, "contents").to_vec();
            if let Some(Value::Array(asked)) = map.remove("contents") {
                contents.extend(asked);
            }
            map.insert("contents".to_owned(), Value::Array(contents));
        }
        Ok((ask, cache.tokens))
    }

    async fn say(
        &self,
        answer: script::Answer,
        route: &Route<'_>,
        framing: Option<Framing>,
        fault: Fault,
        mut guard: Guard,
    ) -> Response<Body> {
        let (wait, pace) = if fault == Fault::Slow {
            (Duration::from_secs(1), 5.0)
        } else {
            (self.config.time_to_first_token, self.config.tokens_per_second)
        };
        let gap = if pace.is_finite() && pace > 0.0 {
            Duration::try_from_secs_f64(1.0 / pace).unwrap_or(Duration::ZERO)
        } else {
            Duration::ZERO
        };
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
        if let Some(framing) = framing {
            let kind = if framing == Framing::Sse { "text/event-stream" } else { JSON };
            let stream = Stream::events(answer, &route.model, (framing, route.vertex), fault, gap, guard);
            return head(StatusCode::OK, kind, stream.boxed_unsync());
        }
        let tokens = u32::try_from(answer.tokens + answer.thoughts).unwrap_or(u32::MAX);
        if !gap.is_zero() {
            tokio::time::sleep(gap.saturating_mul(tokens)).await;
        }
        let text = stream::whole(&answer, &route.model, fault, route.vertex).to_string();
        if fault == Fault::Garbage {
            guard.finish();
            return head(StatusCode::OK, JSON, body::full("}{ not json"));
        }
        if fault.breaks_body() {
            let half = Bytes::from(text).split_to_half();
            return head(StatusCode::OK, JSON, Stream::broken(half, fault, guard).boxed_unsync());
        }
        guard.finish();
        head(StatusCode::OK, JSON, body::full(text))
    }
}

/// The first half of some bytes.
trait Half {
    fn split_to_half(self) -> Bytes;
}

impl Half for Bytes {
    fn split_to_half(mut self) -> Bytes {
        self.truncate(self.len() / 2);
        self
    }
}

/// `computeTokens`: one list of tokens for each content.
fn compute_tokens(ask: &Value) -> Value {
    use base64::Engine as _;
    let info: Vec<Value> = turns::items(ask, "contents")
        .iter()
        .map(|content| {
            let (mut ids, mut tokens) = (Vec::new(), Vec::new());
            for part in turns::items(content, "parts") {
                let mut rest = turns::string(part, "text");
                while !rest.is_empty() {
                    let token = usage::token(rest);
                    let id =
                        token.bytes().fold(7_u32, |id, byte| id.wrapping_mul(31) ^ u32::from(byte)) % 256_000;
                    ids.push(Value::from(id.to_string()));
                    tokens.push(Value::from(base64::engine::general_purpose::STANDARD.encode(token)));
                    rest = rest.get(token.len().max(1)..).unwrap_or_default();
                }
            }
            json!({ "role": content.get("role"), "tokenIds": ids, "tokens": tokens })
        })
        .collect();
    json!({ "tokensInfo": info })
}

fn count_tokens(ask: &Value, vertex: bool) -> Value {
    let prompt = usage::Prompt::of(ask.get("generateContentRequest").unwrap_or(ask));
    let mut answer = json!({ "totalTokens": prompt.total(), "promptTokensDetails": prompt.details() });
    if vertex && let Some(map) = answer.as_object_mut() {
        let letters: usize = turns::items(ask, "contents")
            .iter()
            .flat_map(|content| turns::items(content, "parts"))
            .map(|part| turns::string(part, "text").chars().filter(|letter| !letter.is_whitespace()).count())
            .sum();
        map.insert("totalBillableCharacters".into(), letters.into());
    }
    answer
}
