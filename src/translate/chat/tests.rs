//! Requests against `tests/golden/request`: `BLESS=1` writes what comes out, to be read before it is kept.

use std::fs;
use std::path::Path;
use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use serde_json::{Value, json};

use super::request::{ask, parse};
use crate::catalog::{Catalog, Traits};
use crate::translate::{Backend, Signatures, Target};
use crate::wire;

/// Remembers one call.
#[derive(Debug)]
struct Memory;

impl Signatures for Memory {
    fn remember(&self, _: &str, _: &str) {}
    fn recall(&self, call_id: &str) -> Option<Arc<str>> {
        (call_id == "call_remembered").then(|| "cmVtZW1iZXJlZA==".into())
    }
}

/// What the catalogue says; a name that nobody gives stands for a recent model.
fn traits(model: &str) -> Traits {
    static CATALOG: LazyLock<Catalog> = LazyLock::new(|| Catalog::builtin().unwrap());
    let model = if matches!(model, "m" | "gemini") { "gemini-3.8-flash" } else { model };
    CATALOG.traits(model).clone()
}

/// JSON with line breaks, every token as it is.
fn pretty(compact: &str) -> String {
    let (mut out, mut depth, mut inside, mut escaped) = (String::new(), 0_usize, false, false);
    let mut before = ' ';
    for c in compact.chars() {
        if inside {
            out.push(c);
            inside = escaped || c != '"';
            escaped = !escaped && c == '\\';
        } else {
            if matches!(c, '}' | ']') {
                depth = depth.saturating_sub(1);
                if !matches!(before, '{' | '[') {
                    out.push('\n');
                    out.push_str(&"  ".repeat(depth));
                }
            } else if matches!(before, '{' | '[' | ',') && !c.is_whitespace() {
                out.push('\n');
                out.push_str(&"  ".repeat(depth));
            }
            match c {
                '{' | '[' => depth += 1,
                '"' => inside = true,
                _ => {}
            }
            if !c.is_whitespace() {
                out.push(c);
                before = c;
            }
            if c == ':' {
                out.push(' ');
            }
            continue;
        }
        before = c;
    }
    out.push('\n');
    out
}

struct Outcome {
    body: Option<String>,
    report: Value,
}

fn translate(body: &Bytes, target: &Value) -> Outcome {
    let model = target["model"].as_str().unwrap_or("gemini-3.8-flash");
    let backend = if target["backend"] == "vertex" { Backend::Vertex } else { Backend::GeminiApi };
    let strict = target["strict"] == true;
    let traits = traits(model);
    let target = Target { model, traits: &traits, backend, strict };
    match parse(body).and_then(|request| ask(request, &target, &Memory)) {
        Ok(made) => {
            let rope = wire::encode(&made.request, body).unwrap().join();
            let text = String::from_utf8(rope.to_vec()).unwrap();
            let _: Value = serde_json::from_str(&text).unwrap();
            let shape = &made.shape;
            let mut report = serde_json::Map::new();
            let mut add = |name: &str, there: bool, value: Value| {
                if there {
                    report.insert(name.to_owned(), value);
                }
            };
            add("dropped", !made.dropped.is_empty(), json!(made.dropped));
            let names: std::collections::BTreeMap<_, _> = shape.names.iter().collect();
            add("names", !names.is_empty(), json!(names));
            add("custom", !shape.custom.is_empty(), json!(shape.custom));
            add("legacy_functions", shape.legacy_functions, json!(true));
            add("single_call", shape.single_call, json!(true));
            add("include_usage", shape.include_usage, json!(true));
            add("thoughts", shape.thoughts, json!(true));
            add("answer_function", shape.answer_function.is_some(), json!(shape.answer_function));
            add("choices", shape.choices > 1, json!(shape.choices));
            Outcome { body: Some(pretty(&text)), report: Value::Object(report) }
        }
        Err(error) => {
            let report = json!({"error": {
                "kind": error.kind().as_str(),
                "code": error.explicit_code(),
                "param": error.param(),
                "message": error.message(),
            }});
            Outcome { body: None, report }
        }
    }
}

fn agree(path: &Path, made: Option<&str>, bless: bool, wrong: &mut Vec<String>) {
    let kept = fs::read_to_string(path).ok();
    if kept.as_deref() == made {
        return;
    }
    match made {
        Some(text) if bless => fs::write(path, text).unwrap(),
        None if bless => fs::remove_file(path).unwrap(),
        _ => {
            let kept = kept.unwrap_or_else(|| "(no file)".to_owned());
            let made = made.unwrap_or("(nothing)");
            wrong.push(format!("{}\n--- kept\n{kept}\n--- made\n{made}", path.display()));
        }
    }
}

#[test]
fn requests_come_out_as_recorded() {
    let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/request"));
    let bless = std::env::var_os("BLESS").is_some();
    let mut wrong = Vec::new();
    let mut cases: Vec<_> = fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.sort();
    assert!(cases.len() >= 60, "{} cases only", cases.len());
    for case in &cases {
        let body = Bytes::from(fs::read(case.join("request.openai.json")).unwrap());
        let target = fs::read(case.join("target.json"))
            .map_or(Value::Null, |text| serde_json::from_slice(&text).unwrap());
        let Outcome { body, report } = translate(&body, &target);
        let report =
            (report != json!({})).then(|| format!("{}\n", serde_json::to_string_pretty(&report).unwrap()));
        agree(&case.join("request.gemini.json"), body.as_deref(), bless, &mut wrong);
        agree(&case.join("report.json"), report.as_deref(), bless, &mut wrong);
    }
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
}

fn refused(body: &str) -> (String, Option<String>, Option<String>) {
    let made = translate(&Bytes::from(body.to_owned()), &Value::Null);
    assert!(made.body.is_none(), "{body}");
    let error = &made.report["error"];
    let text = |name: &str| error[name].as_str().map(str::to_owned);
    (text("kind").unwrap(), text("code"), text("param"))
}

#[test]
fn what_is_no_json_object_is_malformed() {
    for body in [
        "",
        "{",
        r#"{"a":1,}"#,
        "// x\n{}",
        r#"{"a":NaN}"#,
        "\u{feff}{}",
        "{'a':1}",
        "[]",
        "1",
        "null",
        "\"x\"",
    ] {
        let (kind, code, _) = refused(body);
        assert_eq!((kind.as_str(), code), ("malformed", None), "{body}");
    }
    assert_eq!(parse(b"{\"model\":\"\xff\"}").unwrap_err().kind(), crate::error::Kind::Malformed);
}

#[test]
fn bombs_are_refused_by_shape() {
    let deep = format!(r#"{{"model":"m","x":{}"#, "[".repeat(100_000));
    assert_eq!(refused(&deep).1.as_deref(), Some("json_too_deep"));
    let many = format!(r#"{{"model":"m","messages":[{}{{}}]}}"#, "{},".repeat(200_000));
    assert_eq!(refused(&many).1.as_deref(), Some("json_too_large"));
    let hidden = format!(
        r#"{{"model":"m","messages":[{{"role":"assistant","tool_calls":[{{"id":"a","function":{{"name":"f","arguments":"{}"}}}}]}}]}}"#,
        r#"{\"a\":"#.repeat(70)
    );
    assert_eq!(refused(&hidden).1.as_deref(), Some("json_too_deep"));
}

#[test]
fn wrong_values_are_named() {
    let cases = [
        (r#"{"messages":[]}"#, "missing_required_parameter", "model"),
        (r#"{"model":"m"}"#, "missing_required_parameter", "messages"),
        (r#"{"model":"m","messages":[]}"#, "empty_array", "messages"),
        (r#"{"model":"m","messages":{}}"#, "invalid_type", "messages"),
        (r#"{"model":5,"messages":[]}"#, "invalid_type", "model"),
        (r#"{"model":"","messages":[]}"#, "invalid_value", "model"),
        (r#"{"model":"../../x","messages":[]}"#, "invalid_value", "model"),
        (r#"{"model":"x:generateContent?y=","messages":[]}"#, "invalid_value", "model"),
        (r#"{"model":"m","model":"n","messages":[]}"#, "duplicate_parameter", "model"),
        (r#"{"model":"m","messages":[{"content":"x"}]}"#, "missing_required_parameter", "messages[0].role"),
        (r#"{"model":"m","messages":[{"role":"king","content":"x"}]}"#, "invalid_value", "messages[0].role"),
        (r#"{"model":"m","messages":[{"role":5,"content":"x"}]}"#, "invalid_type", "messages[0].role"),
        (
            r#"{"model":"m","messages":[{"role":"user","content":null}]}"#,
            "invalid_value",
            "messages[0].content",
        ),
        (r#"{"model":"m","messages":[{"role":"user","content":7}]}"#, "invalid_type", "messages[0].content"),
        (
            r#"{"model":"m","messages":[{"role":"user","content":[{"type":"x"}]}]}"#,
            "invalid_value",
            "messages[0].content[0].type",
        ),
        (
            r#"{"model":"m","messages":[{"role":"user","content":[{"type":"text"}]}]}"#,
            "missing_required_parameter",
            "messages[0].content[0].text",
        ),
        (
            r#"{"model":"m","messages":[{"role":"user","content":[{"type":"text","text":1}]}]}"#,
            "invalid_type",
            "messages[0].content[0].text",
        ),
        (r#"{"model":"m","stream":"true","messages":[]}"#, "invalid_type", "stream"),
        (r#"{"model":"m","temperature":1e400,"messages":[]}"#, "invalid_value", "temperature"),
        (r#"{"model":"m","max_tokens":100.0,"messages":[]}"#, "invalid_type", "max_tokens"),
        (
            r#"{"model":"m","messages":[{"role":"user","content":"\ud800"}]}"#,
            "invalid_value",
            "messages[0].content",
        ),
    ];
    for (body, code, param) in cases {
        let (kind, got, place) = refused(body);
        assert_eq!(
            (kind.as_str(), got.as_deref(), place.as_deref()),
            ("invalid", Some(code), Some(param)),
            "{body}"
        );
    }
    let user = "\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]";
    let fields = [
        (r#""temperature":3"#, "decimal_above_max_value", "temperature"),
        (r#""temperature":-1"#, "decimal_below_min_value", "temperature"),
        (r#""temperature":"hot""#, "invalid_type", "temperature"),
        (r#""top_p":1.5"#, "decimal_above_max_value", "top_p"),
        (r#""max_tokens":0"#, "integer_below_min_value", "max_tokens"),
        (r#""max_tokens":-1"#, "integer_below_min_value", "max_tokens"),
        (r#""max_tokens":99999999999"#, "integer_above_max_value", "max_tokens"),
        (r#""n":129"#, "integer_above_max_value", "n"),
        (r#""stop":["a",""]"#, "invalid_value", "stop[1]"),
        (r#""stop":5"#, "invalid_type", "stop"),
        (r#""stream_options":{}"#, "invalid_value", "stream_options"),
        (
            r#""tools":[{"type":"function","function":{}}]"#,
            "missing_required_parameter",
            "tools[0].function.name",
        ),
        (
            r#""tools":[{"type":"function","function":{"name":"a"}},{"type":"function","function":{"name":"a"}}]"#,
            "invalid_value",
            "tools[1].function.name",
        ),
        (
            r#""tools":[{"type":"function","function":{"name":"a","parameters":{"type":"object","properties":{"x":{"$ref":"http://a.example/s.json"}}}}}]"#,
            "invalid_function_parameters",
            "tools[0].function.parameters",
        ),
        (r#""response_format":{"type":"xml"}"#, "invalid_value", "response_format.type"),
    ];
    for (field, code, param) in fields {
        let (_, got, place) = refused(&format!("{{\"model\":\"m\",{field},{user}}}"));
        assert_eq!((got.as_deref(), place.as_deref()), (Some(code), Some(param)), "{field}");
    }
}

/// OpenAI's words, and nothing of what the client sent: it might be long, or a secret in the wrong place.
#[test]
fn a_wrong_type_is_told_without_its_value() {
    let cases = [
        (
            r#""temperature":"hot""#,
            "Invalid type for 'temperature': expected a number, but got a string instead.",
        ),
        (r#""n":true"#, "Invalid type for 'n': expected an integer, but got a boolean instead."),
        (r#""tools":{}"#, "Invalid type for 'tools': expected an array, but got an object instead."),
        (r#""stream":5"#, "Invalid type for 'stream': expected a boolean, but got an integer instead."),
        (r#""user":[1]"#, "Invalid type for 'user': expected a string, but got an array instead."),
    ];
    for (field, told) in cases {
        let body = format!(r#"{{"model":"m",{field},"messages":[{{"role":"user","content":"x"}}]}}"#);
        let error = parse(body.as_bytes()).unwrap_err();
        assert_eq!(error.message(), told);
        assert!(std::error::Error::source(&error).is_none());
    }
}

#[test]
fn a_large_image_leaves_as_a_slice_of_the_body() {
    let data = "iVBORw0KGgo".to_owned() + &"A".repeat(1_000_001);
    let body = Bytes::from(format!(
        r#"{{"model":"m","messages":[{{"role":"user","content":[{{"type":"image_url","image_url":{{"url":"data:image/png;base64,{data}"}}}}]}}]}}"#
    ));
    let traits = traits("m");
    let target = Target { model: "m", traits: &traits, backend: Backend::GeminiApi, strict: false };
    let made = ask(parse(&body).unwrap(), &target, &Memory).unwrap();
    let rope = wire::encode(&made.request, &body).unwrap();
    let inside = body.as_ptr_range();
    assert!(rope.0.iter().any(|piece| piece.len() == data.len() && inside.contains(&piece.as_ptr())));
}

#[test]
fn a_longer_conversation_begins_with_the_same_bytes() {
    let body = |more: &str| {
        Bytes::from(format!(
            r#"{{"model":"m","tools":[{{"type":"function","function":{{"name":"f","parameters":{{"type":"object","properties":{{"a":{{"type":"string"}}}}}}}}}}],"messages":[{{"role":"system","content":"s"}},{{"role":"user","content":"u"}}{more}],"max_tokens":9}}"#
        ))
    };
    let short = translate(&body(""), &Value::Null).body.unwrap();
    let long = translate(
        &body(r#",{"role":"assistant","content":"a"},{"role":"user","content":"v"}"#),
        &Value::Null,
    );
    let common = short.trim_end().trim_end_matches(['}', ']', '\n', ' ']);
    assert!(long.body.unwrap().starts_with(common), "{short}");
}

#[test]
fn chains_of_references_do_not_exhaust_the_stack() {
    let defs: Vec<String> = (0..5_000)
        .map(|at| format!(r##""d{at}":{{"$ref":"#/$defs/d{}","description":"x"}}"##, at + 1))
        .collect();
    let body = Bytes::from(format!(
        r##"{{"model":"m","messages":[{{"role":"user","content":"x"}}],"response_format":{{"type":"json_schema","json_schema":{{"schema":{{"$ref":"#/$defs/d0","description":"y","$defs":{{{},"d5000":{{"type":"string"}}}}}}}}}}}}"##,
        defs.join(",")
    ));
    for model in ["gemini-3.8-flash", "gemini-1.5-flash"] {
        let report = translate(&body, &json!({"model": model})).report;
        assert_eq!(report["error"]["code"], "invalid_json_schema");
    }
}

#[test]
fn damaged_bodies_are_answered_and_never_panic() {
    let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/request"));
    for case in fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()) {
        let body = fs::read(case.join("request.openai.json")).unwrap().trim_ascii_end().to_vec();
        for at in (0..body.len()).step_by(13) {
            let mut cut = body.clone();
            cut.truncate(at);
            let whole = cut.len() >= body.trim_ascii_end().len();
            assert!(translate(&Bytes::from(cut), &Value::Null).body.is_none() || whole);
            for byte in *b"\"[{0n" {
                let mut odd = body.clone();
                odd[at] = byte;
                translate(&Bytes::from(odd), &Value::Null);
            }
        }
    }
}

#[test]
fn a_conversation_that_grows_keeps_its_bytes() {
    let image = r#"{"type":"image_url","image_url":{"url":"data:image/png;base64,iVBORw0KGgo="}}"#;
    let tools = r##"[{"type":"function","function":{"name":"my tool","parameters":{"$defs":{"a":{"const":1}},"properties":{"z":{"$ref":"#/$defs/a","title":"t"},"a":{"type":"string"}}}}},{"type":"custom","custom":{"name":"c"}}]"##;
    let google = r#"{"tools":[{"code_execution":{}}],"safety_settings":[{"category":"HARM_CATEGORY_HARASSMENT","threshold":"OFF"}]}"#;
    let turns = [
        format!(r#"{{"role":"system","content":"s"}},{{"role":"user","content":[{{"type":"text","text":"look"}},{image}]}}"#),
        r#",{"role":"assistant","content":"calling","tool_calls":[{"id":"call_remembered","type":"function","function":{"name":"my tool","arguments":"{\"b\": 1, \"a\": 2}"}},{"id":"c2","type":"function","function":{"name":"my tool","arguments":"{}"},"extra_content":{"google":{"thought_signature":"U0lH"}}}]},{"role":"tool","tool_call_id":"c2","content":"2"},{"role":"tool","tool_call_id":"call_remembered","content":"{\"z\":1,\"a\":2}"}"#.to_owned(),
        r#",{"role":"assistant","content":"seen","extra_content":{"google":{"thought_signature":"VEVYVA=="}}},{"role":"user","content":"and now?"}"#.to_owned(),
        r#",{"role":"assistant","content":"this"},{"role":"user","content":"thanks"}"#.to_owned(),
    ];
    let mut before: Option<String> = None;
    for upto in 1..=turns.len() {
        let messages: String = turns.iter().take(upto).map(String::as_str).collect();
        let body = Bytes::from(format!(
            r#"{{"model":"m","tools":{tools},"google":{google},"max_tokens":9,"messages":[{messages}]}}"#
        ));
        let traits = traits("m");
        let target = Target { model: "m", traits: &traits, backend: Backend::GeminiApi, strict: false };
        let made = ask(parse(&body).unwrap(), &target, &Memory).unwrap();
        let sent = wire::encode(&made.request, &body).unwrap().join();
        let sent = String::from_utf8(sent.to_vec()).unwrap();
        // The last turn ends, and with it the list and the request; all before that comes again.
        let open = sent.strip_suffix("]}").unwrap().to_owned();
        if let Some(before) = before.replace(open) {
            assert!(sent.starts_with(&before), "{before}\n{sent}");
        }
        let again = ask(parse(&body).unwrap(), &target, &Memory).unwrap();
        assert_eq!(wire::encode(&again.request, &body).unwrap().join(), sent.as_bytes());
    }
}

/// Keeps what it is told.
#[derive(Debug, Default)]
struct Keeper(std::sync::Mutex<std::collections::HashMap<String, Arc<str>>>);

impl Signatures for Keeper {
    fn remember(&self, call_id: &str, signature: &str) {
        self.0.lock().unwrap().insert(call_id.to_owned(), signature.into());
    }
    fn recall(&self, call_id: &str) -> Option<Arc<str>> {
        self.0.lock().unwrap().get(call_id).cloned()
    }
}

#[test]
fn calls_that_never_had_a_signature_keep_their_bytes() {
    let (traits, keeper) = (traits("m"), Keeper::default());
    let sent = |messages: &str, memory: &dyn Signatures| {
        let body = Bytes::from(format!(r#"{{"model":"m","messages":[{messages}]}}"#));
        let target = Target { model: "m", traits: &traits, backend: Backend::GeminiApi, strict: false };
        let made = ask(parse(&body).unwrap(), &target, memory).unwrap();
        String::from_utf8(wire::encode(&made.request, &body).unwrap().join().to_vec()).unwrap()
    };
    let call = |id: &str| {
        format!(
            r#",{{"role":"assistant","tool_calls":[{{"id":"{id}","type":"function","function":{{"name":"f","arguments":"{{}}"}}}}]}},{{"role":"tool","tool_call_id":"{id}","content":"1"}}"#
        )
    };
    let older = format!(r#"{{"role":"user","content":"a"}}{}"#, call("foreign"));
    let now = format!(
        r#"{older},{{"role":"assistant","content":"b"}},{{"role":"user","content":"c"}}{}"#,
        call("new")
    );
    let next = format!(r#"{now},{{"role":"assistant","content":"d"}},{{"role":"user","content":"e"}}"#);
    let first = sent(&now, &keeper);
    assert_eq!(
        first.matches("skip_thought_signature_validator").count(),
        1,
        "only the current turn's: {first}"
    );
    let later = sent(&next, &keeper);
    assert!(later.starts_with(first.strip_suffix("]}").unwrap()), "{first}\n{later}");
    assert_eq!(
        sent(&next, &Memory).matches("skip_thought").count(),
        0,
        "what was never asked with it goes without"
    );
    let other = next.replace(r#""content":"a""#, r#""content":"z""#);
    assert_eq!(
        sent(&other, &keeper).matches("skip_thought").count(),
        0,
        "nor another conversation with its ids"
    );
    // A real one is better.
    keeper.remember("new", "cmVhbA==");
    assert!(sent(&now, &keeper).contains("cmVhbA=="));
}

#[test]
fn thousands_of_equal_ids_take_no_time() {
    let calls: Vec<&str> =
        vec![r#"{"id":"c","type":"function","function":{"name":"f","arguments":"{}"}}"#; 6_000];
    let together = format!(r#"{{"role":"assistant","tool_calls":[{}]}}"#, calls.join(","));
    let apart = calls.iter().map(|call| format!(r#"{{"role":"assistant","tool_calls":[{call}]}}"#));
    let apart = apart.collect::<Vec<_>>().join(",");
    let results = vec![r#"{"role":"tool","tool_call_id":"c","content":"1"}"#; 6_000].join(",");
    let old = vec![r#"{"role":"assistant","function_call":{"name":"f","arguments":"{}"}}"#; 6_000].join(",");
    let old_results = vec![r#"{"role":"function","name":"f","content":"1"}"#; 6_000].join(",");
    let traits = traits("m");
    let target = Target { model: "m", traits: &traits, backend: Backend::GeminiApi, strict: false };
    for (calls, results) in [(&together, &results), (&apart, &results), (&old, &old_results)] {
        let body = Bytes::from(format!(r#"{{"model":"m","messages":[{calls},{results}]}}"#));
        let begun = std::time::Instant::now();
        let made = ask(parse(&body).unwrap(), &target, &Memory).unwrap();
        let spent = begun.elapsed();
        assert_eq!(made.request.contents.last().unwrap().parts.len(), 6_000);
        // Quadratic time is many times this, also in a build without optimization.
        assert!(spent < std::time::Duration::from_secs(3), "{spent:?}");
    }
}

#[test]
fn addresses_are_fetched_only_where_google_does_not_read_them() {
    let body = Bytes::from_static(
        br#"{"model":"m","messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"https://example.com/a.png"}}]}]}"#,
    );
    for (model, backend, fetched) in [
        ("gemini-2.0-flash", Backend::GeminiApi, true),
        ("gemini-2.0-flash", Backend::Vertex, false),
        ("gemini-2.5-flash", Backend::GeminiApi, false),
        ("gemini-3.8-flash", Backend::Vertex, false),
    ] {
        let traits = traits(model);
        let target = Target { model, traits: &traits, backend, strict: false };
        let mut made = ask(parse(&body).unwrap(), &target, &Memory).unwrap();
        let wanted = super::fill(&mut made.request, &std::collections::BTreeMap::new());
        assert_eq!(!wanted.is_empty(), fetched, "{model} {backend:?}");
    }
}

#[test]
fn fetched_media_take_the_place_of_their_address() {
    let body = Bytes::from_static(
        br#"{"model":"m","messages":[{"role":"user","content":[{"type":"text","text":"a"},{"type":"image_url","image_url":{"url":"https://example.com/a.jpg"}},{"type":"file","file":{"file_id":"https://example.com/b.pdf"}}]},
            {"role":"assistant","tool_calls":[{"id":"c","function":{"name":"f","arguments":"{}"}}]},
            {"role":"tool","tool_call_id":"c","content":[{"type":"image_url","image_url":{"url":"https://example.com/a.jpg"}}]}]}"#,
    );
    let traits = Traits { remote_uris: false, ..traits("m") };
    let target = Target { model: "m", traits: &traits, backend: Backend::GeminiApi, strict: false };
    let mut made = ask(parse(&body).unwrap(), &target, &Memory).unwrap();
    let nothing = std::collections::BTreeMap::new();
    let wanted = super::fill(&mut made.request, &nothing);
    let places: Vec<&str> = wanted.iter().map(|wanted| wanted.place.as_str()).collect();
    assert_eq!(places, ["messages[0].content[1].image_url", "messages[0].content[2].file.file_id"]);
    let media = wanted.into_iter().map(|wanted| {
        (wanted.url, crate::translate::Media { mime: "image/png", data: "iVBORw0KGgo=".to_owned() })
    });
    let media = media.collect();
    let mut made = ask(parse(&body).unwrap(), &target, &Memory).unwrap();
    assert!(super::fill(&mut made.request, &media).is_empty());
    let sent = wire::encode(&made.request, &body).unwrap().join();
    let sent = String::from_utf8(sent.to_vec()).unwrap();
    assert_eq!(
        sent.matches(r#""inlineData":{"mimeType":"image/png","data":"iVBORw0KGgo="}"#).count(),
        3,
        "{sent}"
    );
    assert!(!sent.contains("fileData"), "{sent}");
}
