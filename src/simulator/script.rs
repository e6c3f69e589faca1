//! What the simulated model says: the same for the same request, always.

use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hash, Hasher};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::faults::Fault;
use super::long::Hop;
use super::models::{Model, Thinking};
use super::sample::{self, Hints};
use super::turns::{self, items, string};
use super::usage::{self, Prompt};

/// A piece of an answer.
#[derive(Clone, Debug)]
pub(super) enum Piece {
    Thought(String),
    Text(String),
    /// A whole part, as JSON.
    Part(Value),
}

/// An answer, before it is put on the wire.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) candidates: Vec<Vec<Piece>>,
    pub(super) finish: &'static str,
    /// The signature that stands on the last, empty text part.
    pub(super) signature: Option<String>,
    pub(super) grounding: Option<Value>,
    pub(super) blocked: bool,
    pub(super) logprobs: bool,
    pub(super) prompt: Prompt,
    /// Tokens of all candidates.
    pub(super) tokens: u64,
    pub(super) thoughts: u64,
    pub(super) id: String,
    /// Where a longer answer was cut.
    pub(super) hop: Option<Hop>,
}

fn seed(body: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    body.hash(&mut hasher);
    hasher.finish()
}

fn signature(seed: u64, index: usize) -> String {
    STANDARD.encode(format!("simulated thought signature {seed:016x}.{index:04}"))
}

/// Answers a checked request.
pub(super) fn answer(ask: &Value, body: &[u8], model: &Model, fault: Fault) -> Answer {
    let seed = seed(body);
    let nothing = Value::Null;
    let config = ask.get("generationConfig").unwrap_or(&nothing);
    let contents = items(ask, "contents");
    let text = last_text(contents);
    let mut thoughts = thinking(config, model);
    let mut pieces = Vec::new();
    let mut called = false;
    if fault == Fault::ThinkCap {
        thoughts = thoughts.max(16);
    }
    let wants_thoughts = config
        .get("thinkingConfig")
        .and_then(|config| config.get("includeThoughts"))
        .and_then(Value::as_bool);
    if wants_thoughts == Some(true) && thoughts > 0 {
        pieces.push(Piece::Thought(format!(
            "**Reading the request** The user said {} words. I answer them.",
            text.split_whitespace().count()
        )));
    }
    let calls = calls(ask, contents, &text);
    if calls.is_empty() {
        pieces.push(Piece::Text(reply(ask, config, contents, &text, fault)));
    } else {
        called = true;
        for (index, (name, args)) in calls.into_iter().enumerate() {
            let mut call = json!({ "name": name, "args": args });
            let mut part = serde_json::Map::new();
            if model.signs()
                && let Some(map) = call.as_object_mut()
            {
                map.insert("id".into(), format!("call{:08x}{index:x}", seed & 0xffff_ffff).into());
            }
            part.insert("functionCall".into(), call);
            if model.signs() && index == 0 {
                part.insert("thoughtSignature".into(), signature(seed, 0).into());
            }
            pieces.push(Piece::Part(Value::Object(part)));
        }
    }
    let mut finish = "STOP";
    let stops: Vec<&str> = items(config, "stopSequences").iter().filter_map(Value::as_str).collect();
    stop_at(&mut pieces, &stops);
    let count = config.get("candidateCount").and_then(Value::as_u64).unwrap_or(1).clamp(1, 8);
    let mut tokens = length(&pieces);
    if let Some(most) = config.get("maxOutputTokens").and_then(Value::as_u64)
        && thoughts + tokens > most
    {
        finish = "MAX_TOKENS";
        thoughts = thoughts.min(most);
        cap(&mut pieces, most - thoughts);
        tokens = length(&pieces);
    }
    if fault == Fault::ThinkCap {
        finish = "MAX_TOKENS";
        pieces.retain(|piece| matches!(piece, Piece::Thought(_)));
    } else if fault == Fault::Safety {
        finish = "SAFETY";
    } else if fault == Fault::Malformed {
        finish = "MALFORMED_FUNCTION_CALL";
        pieces.clear();
    }
    if matches!(fault, Fault::ThinkCap | Fault::Malformed) {
        tokens = 0;
    }
    let grounded = items(ask, "tools").iter().any(|tool| tool.get("googleSearch").is_some());
    let grounding = (grounded && !called).then(|| grounding(&pieces, &text));
    let candidates = vec![pieces; usize::try_from(count).unwrap_or(1)];
    Answer {
        candidates,
        finish,
        signature: (model.signs() && !called).then(|| signature(seed, 1)),
        grounding,
        blocked: fault == Fault::Blocked,
        logprobs: config.get("responseLogprobs").and_then(Value::as_bool) == Some(true),
        prompt: Prompt::of(ask),
        tokens: tokens * count,
        thoughts,
        id: format!("sim{seed:016x}"),
        hop: None,
    }
}

fn last_text(contents: &[Value]) -> String {
    let last = contents.iter().rev().find(|content| turns::opens_turn(content));
    let texts = last.into_iter().flat_map(|content| items(content, "parts")).map(|part| string(part, "text"));
    let texts: Vec<&str> = texts.filter(|text| !text.is_empty()).collect();
    texts.join("\n")
}

fn thinking(config: &Value, model: &Model) -> u64 {
    let Some(config) = config.get("thinkingConfig").filter(|_| model.thinking != Thinking::None) else {
        return 0;
    };
    if let Some(budget) = config.get("thinkingBudget").and_then(Value::as_i64) {
        return u64::try_from(budget).unwrap_or(24).min(24);
    }
    match string(config, "thinkingLevel") {
        "MINIMAL" => 0,
        "LOW" => 8,
        "HIGH" => 32,
        "XHIGH" => 64,
        _ => 16,
    }
}

fn length(pieces: &[Piece]) -> u64 {
    pieces
        .iter()
        .map(|piece| match piece {
            Piece::Thought(_) => 0,
            Piece::Text(text) => usage::count(text),
            Piece::Part(part) => part.get("functionCall").map_or(0, |call| usage::count(&call.to_string())),
        })
        .sum()
}

fn stop_at(pieces: &mut [Piece], stops: &[&str]) {
    for piece in pieces {
        if let Piece::Text(text) = piece
            && let Some(at) = stops.iter().filter_map(|stop| text.find(stop)).min()
        {
            text.truncate(at);
        }
    }
}

fn cap(pieces: &mut Vec<Piece>, mut most: u64) {
    pieces.retain_mut(|piece| match piece {
        Piece::Thought(_) => true,
        Piece::Part(_) => false,
        Piece::Text(text) => {
            let mut end = 0;
            while most > 0 && end < text.len() {
                end += usage::token(text.get(end..).unwrap_or_default()).len().max(1);
                most -= 1;
            }
            text.truncate(end);
            !text.is_empty()
        }
    });
}

/// What is long enough for a fault to strike in its middle.
const FILLER: &str = " And this goes on for long enough that something can go wrong in the middle of it.";

fn reply(ask: &Value, config: &Value, contents: &[Value], text: &str, fault: Fault) -> String {
    let free = config.get("responseJsonSchema").or_else(|| config.get("_responseJsonSchema"));
    let mime = string(config, "responseMimeType");
    if let Some(schema) = free.or_else(|| config.get("responseSchema")) {
        let value = sample::instance(schema, &Hints::of(text));
        let bare = value.as_str().filter(|_| mime == "text/x.enum").map(str::to_owned);
        return bare.unwrap_or_else(|| value.to_string());
    }
    let results = contents.last().into_iter().flat_map(|content| items(content, "parts"));
    let results: Vec<String> = results
        .filter_map(|part| part.get("functionResponse"))
        .map(|response| {
            let value = response.get("response").map_or_else(String::new, Value::to_string);
            format!("{} answered {value}", string(response, "name"))
        })
        .collect();
    let mut said = if results.is_empty() { echo(contents, text) } else { format!("{}.", results.join("; ")) };
    if fault.breaks_body() || fault == Fault::Safety || fault == Fault::Slow {
        said.push_str(FILLER);
    }
    if mime == "application/json" {
        let keys = Hints::of(text).quoted;
        let named = text.to_ascii_lowercase().contains("key") && !keys.is_empty();
        if named && results.is_empty() {
            return Value::Object(keys.into_iter().map(|key| (key, "example".into())).collect()).to_string();
        }
        return json!({ "answer": said }).to_string();
    }
    if text.is_empty() && results.is_empty() && ask.get("systemInstruction").is_some() && said.is_empty() {
        "Hello!".clone_into(&mut said);
    }
    said
}

fn echo(contents: &[Value], text: &str) -> String {
    if let Some(words) = length_asked(text) {
        let mut said = String::with_capacity(words * 8);
        for word in 1..=words {
            if word > 1 {
                said.push(' ');
            }
            said.push_str("word");
            said.push_str(&word.to_string());
        }
        return said;
    }
    let mut media: Vec<(&str, usize, Vec<&str>)> = Vec::new();
    let last = contents.iter().rev().find(|content| turns::opens_turn(content));
    for part in last.into_iter().flat_map(|content| items(content, "parts")) {
        let Some(data) = part.get("inlineData").or_else(|| part.get("fileData")) else { continue };
        let mime = string(data, "mimeType");
        let kind = match mime.split('/').next().unwrap_or_default() {
            "image" => "image",
            "audio" => "audio file",
            "video" => "video",
            _ => "document",
        };
        match media.iter_mut().find(|(known, _, _)| *known == kind) {
            Some((_, count, mimes)) => {
                *count += 1;
                mimes.push(mime);
            }
            None => media.push((kind, 1, vec![mime])),
        }
    }
    let mut said = if text.is_empty() && media.is_empty() {
        "Hello! You said nothing.".to_owned()
    } else if text.is_empty() {
        String::new()
    } else {
        format!("You said: {text}")
    };
    for (kind, count, mimes) in media {
        if !said.is_empty() {
            said.push('\n');
        }
        let plural = if count == 1 { "" } else { "s" };
        // Writing to a string cannot fail.
        let _ = write!(said, "I see {count} {kind}{plural}, {}.", mimes.join(", "));
    }
    said
}

/// "write 500 words": a long answer, for load.
fn length_asked(text: &str) -> Option<usize> {
    let mut before: Option<usize> = None;
    for word in text.split_whitespace().take(100) {
        let bare = word.trim_matches(|letter: char| !letter.is_alphanumeric());
        if ["words", "tokens"].contains(&bare)
            && let Some(count) = before
        {
            return Some(count.min(100_000));
        }
        before = bare.parse().ok();
    }
    None
}

fn grounding(pieces: &[Piece], text: &str) -> Value {
    let said = pieces.iter().find_map(|piece| match piece {
        Piece::Text(text) => Some(text.as_str()),
        Piece::Thought(_) | Piece::Part(_) => None,
    });
    let said = said.unwrap_or_default();
    json!({
        "webSearchQueries": [text.chars().take(100).collect::<String>()],
        "searchEntryPoint": { "renderedContent": "<div>simulated search</div>" },
        "groundingChunks": [{ "web": {
            "uri": "https://vertexaisearch.cloud.google.com/grounding-api-redirect/simulated",
            "title": "example.com",
        } }],
        "groundingSupports": [{
            "segment": { "endIndex": said.len(), "text": said },
            "groundingChunkIndices": [0],
        }],
    })
}

/// The functions to call now, with their arguments.
fn calls(ask: &Value, contents: &[Value], text: &str) -> Vec<(String, Value)> {
    let declared: Vec<&Value> =
        items(ask, "tools").iter().flat_map(|tool| items(tool, "functionDeclarations")).collect();
    let config = ask.get("toolConfig").and_then(|config| config.get("functionCallingConfig"));
    let mode = config.map_or("", |config| string(config, "mode"));
    let allowed: Vec<&str> = config
        .map_or(&[][..], |config| items(config, "allowedFunctionNames"))
        .iter()
        .filter_map(Value::as_str)
        .collect();
    let answered = contents.last().is_some_and(|content| !turns::opens_turn(content));
    let may = |name: &str| allowed.is_empty() || allowed.contains(&name);
    let chosen: Vec<&Value> = match mode {
        "NONE" => Vec::new(),
        "ANY" => {
            // Forced again after a result, it goes on to a function it has not called yet in this turn.
            let start = contents.iter().rposition(turns::opens_turn).unwrap_or(0);
            let done: Vec<&str> = contents
                .iter()
                .skip(start)
                .flat_map(|content| items(content, "parts"))
                .filter_map(|part| part.get("functionCall"))
                .map(|call| string(call, "name"))
                .collect();
            let open: Vec<&Value> =
                declared.iter().copied().filter(|function| may(string(function, "name"))).collect();
            let mentioned =
                open.iter().copied().find(|f| mentions(text, f) && !done.contains(&string(f, "name")));
            let fresh = open.iter().copied().find(|function| !done.contains(&string(function, "name")));
            mentioned.or(fresh).or_else(|| open.first().copied()).into_iter().collect()
        }
        _ if answered => Vec::new(),
        _ => {
            let open = declared.iter().copied().filter(|function| may(string(function, "name")));
            let mentioned: Vec<&Value> = open.filter(|function| mentions(text, function)).collect();
            if mentioned.is_empty() && asks_for_tool(text) {
                declared.iter().copied().filter(|function| may(string(function, "name"))).take(1).collect()
            } else {
                mentioned
            }
        }
    };
    let hints = Hints::of(text);
    let mut calls = Vec::new();
    for function in chosen {
        let name = string(function, "name").to_owned();
        let schema = function.get("parameters").or_else(|| function.get("parametersJsonSchema"));
        let Some(schema) = schema else {
            calls.push((name, json!({})));
            continue;
        };
        let placed = schema
            .get("properties")
            .and_then(Value::as_object)
            .is_some_and(|properties| properties.keys().any(|name| sample::is_place(name)));
        let times = if placed && hints.places.len() > 1 { hints.places.len().min(8) } else { 1 };
        for index in 0..times {
            let hints = if times > 1 { hints.only(index) } else { hints.clone() };
            calls.push((name.clone(), sample::instance(schema, &hints)));
        }
    }
    calls
}

fn asks_for_tool(text: &str) -> bool {
    let text = text.to_lowercase();
    (text.contains("call") || text.contains("use")) && (text.contains("tool") || text.contains("function"))
}

/// Verbs that say nothing about what a function is for.
const VERBS: &[&str] =
    &["get", "fetch", "find", "lookup", "look", "up", "list", "current", "do", "the", "a", "tool"];

/// Whether the text speaks of a function: by its name, or by all the words its name is made of.
fn mentions(text: &str, function: &Value) -> bool {
    let text = text.to_lowercase();
    let name = string(function, "name");
    if text.contains(&name.to_lowercase()) {
        return true;
    }
    let mut spaced = String::with_capacity(name.len() + 4);
    for letter in name.chars() {
        if letter.is_uppercase() {
            spaced.push(' ');
        }
        spaced.extend(letter.to_lowercase());
    }
    let words: Vec<&str> =
        spaced.split(|letter: char| !letter.is_alphanumeric()).filter(|word| !word.is_empty()).collect();
    let mut telling = words.iter().filter(|word| !VERBS.contains(word)).peekable();
    telling.peek().is_some() && telling.all(|word| text.contains(word))
}
