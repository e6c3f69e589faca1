//! The table: what Google does, what the client must see, after how many calls, how soon.

use std::time::Duration;

use super::stage::Step::{Absent, Close, Deaf, Drip, Reset, Say, Serve, Stall, Wait};
use super::stage::{Act, END, HELLO, chunk, event, events, opening, status, whole};

/// How a reply ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// A whole body, or a stream with `[DONE]`.
    Good,
    /// An error in place of the reply.
    Refused(&'static str),
    /// A stream that began and ends with an error event.
    Cut(&'static str),
}

/// Whose client asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Whole,
    Stream,
    Both,
}

#[derive(Clone)]
pub(crate) struct Row {
    pub(crate) name: &'static str,
    /// The scripts of the sites, in order.
    pub(crate) sites: Vec<Vec<Act>>,
    pub(crate) way: Way,
    pub(crate) status: u16,
    pub(crate) end: End,
    /// `x-gemway-attempts`.
    pub(crate) attempts: u32,
    /// Calls that each site saw; empty where only their sum is certain.
    pub(crate) asked: Vec<usize>,
    /// Not sooner, not later, in milliseconds.
    pub(crate) within: (u64, u64),
    /// More lines in the head of the request.
    pub(crate) headers: &'static str,
    /// More lines in the route.
    pub(crate) route: &'static str,
    /// What a header of the reply must be.
    pub(crate) tells: Vec<(&'static str, Option<&'static str>)>,
}

/// Nothing is waited for but the short pauses between two tries.
const AT_ONCE: (u64, u64) = (0, 1500);

fn row(name: &'static str, sites: Vec<Vec<Act>>, status: u16, end: End) -> Row {
    let asked = sites.iter().map(|_| 1).collect();
    Row {
        name,
        sites,
        way: Way::Both,
        status,
        end,
        attempts: 1,
        asked,
        within: AT_ONCE,
        headers: "",
        route: "",
        tells: Vec::new(),
    }
}

impl Row {
    fn calls(mut self, asked: &[usize]) -> Self {
        self.attempts = u32::try_from(asked.iter().sum::<usize>()).unwrap();
        self.asked = asked.to_vec();
        self
    }
    /// So many calls, of which no site heard.
    fn unheard(mut self, calls: u32) -> Self {
        self.attempts = calls;
        self.asked.fill(0);
        self
    }
    /// What each site heard of them.
    fn heard(mut self, asked: &[usize]) -> Self {
        self.asked = asked.to_vec();
        self
    }
    /// However they are shared: the pauses are random, and so is who is ready first.
    fn calls_in_all(mut self, calls: u32) -> Self {
        (self.attempts, self.asked) = (calls, Vec::new());
        self
    }
    fn way(mut self, way: Way) -> Self {
        self.way = way;
        self
    }
    fn within(mut self, from: u64, to: u64) -> Self {
        self.within = (from, to);
        self
    }
    fn asking(mut self, headers: &'static str) -> Self {
        self.headers = headers;
        self
    }
    fn on(mut self, route: &'static str) -> Self {
        self.route = route;
        self
    }
    fn tells(mut self, name: &'static str, value: Option<&'static str>) -> Self {
        self.tells.push((name, value));
        self
    }
}

const RETRY_INFO: &str = r#"{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"0.4s"}"#;
const RETRY_LATE: &str = r#"{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"36s"}"#;
const RETRY_VERY_LATE: &str = r#"{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"90s"}"#;
const RETRY_NOW: &str = r#"{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"0.000000001s"}"#;
const RETRY_BEFORE: &str = r#"{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"-1s"}"#;
const RETRY_NEVER: &str = r#"{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"abc"}"#;
const RETRY_YEARS: &str =
    r#"{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"1000000000s"}"#;
const PER_DAY: &str = r#"{"@type":"type.googleapis.com/google.rpc.QuotaFailure","violations":[{"quotaId":"GenerateRequestsPerDayPerProjectPerModel-FreeTier"}]},{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"36s"}"#;
const PER_MINUTE: &str = r#"{"@type":"type.googleapis.com/google.rpc.QuotaFailure","violations":[{"quotaId":"GenerateRequestsPerMinutePerProjectPerModel"}]},{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"0.4s"}"#;
const KEY_INVALID: &str =
    r#"{"@type":"type.googleapis.com/google.rpc.ErrorInfo","reason":"API_KEY_INVALID"}"#;
const ERROR_EVENT: &str = r#"{"error":{"code":503,"message":"overloaded","status":"UNAVAILABLE"}}"#;
const QUOTA_EVENT: &str = r#"{"error":{"code":429,"message":"slow","status":"RESOURCE_EXHAUSTED"}}"#;

fn serve() -> Vec<Act> {
    vec![vec![Serve]]
}
fn say(bytes: Vec<u8>) -> Act {
    vec![Say(bytes)]
}
fn always(act: Act) -> Vec<Act> {
    vec![act]
}
fn then_serve(act: Act) -> Vec<Act> {
    vec![act, vec![Serve]]
}
fn raw(text: &str) -> Act {
    vec![Say(text.as_bytes().to_vec()), Close]
}
/// A stream that begins well.
fn begun(mut more: Vec<super::stage::Step>) -> Act {
    let mut act = vec![Say(opening()), Say(event(HELLO))];
    act.append(&mut more);
    act
}
fn unavailable() -> Act {
    say(status(503, "UNAVAILABLE", ""))
}

pub(crate) fn rows() -> Vec<Row> {
    let mut all = well();
    all.extend(statuses());
    all.extend(quotas());
    all.extend(connections());
    all.extend(answers());
    all.extend(odd_answers());
    all.extend(streams());
    all.extend(elsewhere());
    all.extend(wishes());
    all
}

fn well() -> Vec<Row> {
    vec![
        row("all is well", vec![serve()], 200, End::Good)
            .tells("x-gemway-served-by", Some("a"))
            .tells("x-should-retry", None),
        row("well at the first, the second idle", vec![serve(), serve()], 200, End::Good)
            .calls(&[1, 0])
            .tells("x-gemway-model", None),
    ]
}

fn statuses() -> Vec<Row> {
    let twice =
        |code, name: &str| vec![say(status(code, name, "")), say(status(code, name, "")), vec![Serve]];
    let refused = |name, code, google, status_out, out| {
        row(name, vec![always(say(status(code, google, "")))], status_out, End::Refused(out))
    };
    vec![
        row("500 once", vec![then_serve(say(status(500, "INTERNAL", "")))], 200, End::Good).calls(&[2]),
        row("502 once", vec![then_serve(say(whole(502, "<html>bad</html>")))], 200, End::Good).calls(&[2]),
        row("503 once", vec![then_serve(unavailable())], 200, End::Good).calls(&[2]),
        row("504 once", vec![then_serve(say(status(504, "DEADLINE_EXCEEDED", "")))], 200, End::Good)
            .calls(&[2]),
        row("500 twice", vec![twice(500, "INTERNAL")], 200, End::Good).calls(&[3]),
        row("503 twice", vec![twice(503, "UNAVAILABLE")], 200, End::Good).calls(&[3]),
        row(
            "500 for ever",
            vec![always(say(status(500, "INTERNAL", "")))],
            500,
            End::Refused("upstream_error"),
        )
        .calls(&[3])
        .tells("x-should-retry", Some("false")),
        row("503 for ever", vec![always(unavailable())], 503, End::Refused("upstream_overloaded"))
            .calls(&[3])
            .tells("x-should-retry", Some("false"))
            .tells("retry-after", Some("1")),
        row(
            "504 for ever",
            vec![always(say(status(504, "DEADLINE_EXCEEDED", "")))],
            504,
            End::Refused("upstream_timeout"),
        )
        .calls(&[3]),
        row(
            "400 is the client's",
            vec![always(say(status(400, "INVALID_ARGUMENT", "")))],
            400,
            End::Refused("invalid_value"),
        )
        .tells("x-gemway-attempts", Some("1")),
        refused("401 is ours", 401, "UNAUTHENTICATED", 502, "upstream_auth_error"),
        refused("403 is ours", 403, "PERMISSION_DENIED", 502, "upstream_auth_error"),
        refused("404 is the model", 404, "NOT_FOUND", 404, "model_not_found"),
        refused("413 is too large", 413, "INVALID_ARGUMENT", 413, "request_too_large"),
        refused("501 is not tried again", 501, "UNIMPLEMENTED", 500, "upstream_error"),
        row(
            "an invalid key is ours, though it is a 400",
            vec![always(say(status(400, "INVALID_ARGUMENT", KEY_INVALID)))],
            502,
            End::Refused("upstream_auth_error"),
        ),
        row(
            "a redirect is not followed",
            vec![always(raw(
                "HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n",
            ))],
            502,
            End::Refused("upstream_error"),
        ),
        row(
            "503 in a list once",
            vec![then_serve(say(whole(503, &format!("[{ERROR_EVENT}]"))))],
            200,
            End::Good,
        )
        .calls(&[2]),
        row("503 with a wait", vec![then_serve(say(status(503, "UNAVAILABLE", RETRY_INFO)))], 200, End::Good)
            .calls(&[2])
            .within(400, 2500),
        row(
            "1xx before the answer",
            vec![vec![vec![
                Say(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\n".to_vec()),
                Serve,
            ]]],
            200,
            End::Good,
        ),
    ]
}

fn quotas() -> Vec<Row> {
    let quota = |details| say(status(429, "RESOURCE_EXHAUSTED", details));
    vec![
        row("429 with a short wait", vec![then_serve(quota(RETRY_INFO))], 200, End::Good)
            .calls(&[2])
            .within(400, 2500),
        row("429 per minute with a short wait", vec![then_serve(quota(PER_MINUTE))], 200, End::Good)
            .calls(&[2])
            .within(400, 2500),
        row("429 without a wait", vec![then_serve(quota(""))], 200, End::Good).calls(&[2]),
        row(
            "429 with a long wait",
            vec![always(quota(RETRY_LATE))],
            429,
            End::Refused("rate_limit_exceeded"),
        )
        .within(0, 1000)
        .tells("retry-after", Some("36"))
        .tells("retry-after-ms", Some("36000"))
        .tells("x-should-retry", None),
        row(
            "429 with a wait that no SDK takes",
            vec![always(quota(RETRY_VERY_LATE))],
            429,
            End::Refused("rate_limit_exceeded"),
        )
        .tells("x-should-retry", Some("false")),
        row("429 for ever", vec![always(quota(""))], 429, End::Refused("rate_limit_exceeded"))
            .calls(&[3])
            .tells("x-should-retry", Some("false")),
        row("429 for the day", vec![always(quota(PER_DAY))], 429, End::Refused("insufficient_quota"))
            .within(0, 1000)
            .tells("x-should-retry", Some("false"))
            .tells("retry-after", None),
        row("429 for the day, another project", vec![always(quota(PER_DAY)), serve()], 200, End::Good)
            .calls(&[1, 1])
            .tells("x-gemway-served-by", Some("b")),
        row(
            "429 with a long wait, another project",
            vec![always(quota(RETRY_LATE)), serve()],
            200,
            End::Good,
        )
        .calls(&[1, 1])
        .within(0, 1000)
        .tells("x-gemway-served-by", Some("b")),
        row(
            "429 everywhere",
            vec![always(quota(RETRY_LATE)), always(quota(RETRY_LATE))],
            429,
            End::Refused("rate_limit_exceeded"),
        )
        .calls(&[1, 1])
        .within(0, 1000),
        row("429 with a wait of nothing", vec![then_serve(quota(RETRY_NOW))], 200, End::Good).calls(&[2]),
        row("429 with a wait before now", vec![then_serve(quota(RETRY_BEFORE))], 200, End::Good).calls(&[2]),
        row("429 with a wait that is none", vec![then_serve(quota(RETRY_NEVER))], 200, End::Good).calls(&[2]),
        row(
            "429 with a wait of thirty years",
            vec![always(quota(RETRY_YEARS))],
            429,
            End::Refused("rate_limit_exceeded"),
        )
        .tells("x-should-retry", Some("false")),
        row("429 as the first event", vec![then_serve(say(events(&[QUOTA_EVENT])))], 200, End::Good)
            .way(Way::Stream)
            .calls(&[2]),
    ]
}

fn connections() -> Vec<Row> {
    let bad = |name, act: Act, code| row(name, vec![always(act)], 502, End::Refused(code)).calls(&[3]);
    vec![
        row("nobody listens", vec![always(vec![Absent])], 502, End::Refused("upstream_unreachable"))
            .unheard(3),
        row(
            "nobody listens anywhere",
            vec![always(vec![Absent]), always(vec![Absent]), always(vec![Absent])],
            502,
            End::Refused("upstream_unreachable"),
        )
        .unheard(5)
        .tells("x-should-retry", Some("false")),
        row("nobody listens here, well there", vec![always(vec![Absent]), serve()], 200, End::Good)
            .calls_in_all(2)
            .heard(&[0, 1])
            .tells("x-gemway-served-by", Some("b")),
        row(
            "a greeting without an answer",
            vec![always(vec![Deaf])],
            504,
            End::Refused("upstream_connect_timeout"),
        )
        .on("retries = 1\nfirst_event_timeout = \"5s\"\n")
        .unheard(2)
        .within(2000, 4000),
        row("a greeting without an answer, well there", vec![always(vec![Deaf]), serve()], 200, End::Good)
            .calls_in_all(2)
            .on("first_event_timeout = \"5s\"\n")
            .heard(&[0, 1])
            .within(1000, 2500)
            .tells("x-gemway-served-by", Some("b")),
        row("a reset before the head", vec![then_serve(vec![Reset])], 200, End::Good).calls(&[2]),
        row("a close before the head", vec![then_serve(vec![Close])], 200, End::Good).calls(&[2]),
        row("a close within the head", vec![then_serve(raw("HTTP/1.1 20"))], 200, End::Good).calls(&[2]),
        row("resets for ever", vec![always(vec![Reset])], 502, End::Refused("upstream_disconnected"))
            .calls(&[3]),
        bad("no HTTP at all", raw("220 smtp ready\r\n"), "upstream_invalid_response"),
        bad(
            "a head without end",
            raw(&format!("HTTP/1.1 200 OK\r\nx: {}", "y".repeat(900_000))),
            "upstream_invalid_response",
        ),
        bad(
            "two lengths that differ",
            raw("HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello"),
            "upstream_invalid_response",
        ),
        row("silence", vec![always(vec![Stall])], 504, End::Refused("upstream_timeout")).within(600, 2500),
        row("silence, then elsewhere", vec![always(vec![Stall]), serve()], 200, End::Good)
            .calls(&[1, 1])
            .within(600, 2500)
            .tells("x-gemway-served-by", Some("b")),
        row(
            "half a head, then silence",
            vec![always(vec![Say(b"HTTP/1.1 200 OK\r\n".to_vec()), Stall])],
            504,
            End::Refused("upstream_timeout"),
        )
        .within(600, 2500),
    ]
}

fn answers() -> Vec<Row> {
    let whole_row = |name, act: Act, status, code| {
        row(name, vec![always(act)], status, End::Refused(code)).way(Way::Whole).calls(&[3])
    };
    let empty = r#"{"candidates":[{"content":{"role":"model"},"finishReason":"MALFORMED_FUNCTION_CALL","index":0}],"usageMetadata":{"promptTokenCount":3}}"#;
    vec![
        row(
            "a web page",
            vec![always(raw("HTTP/1.1 200 OK\r\ncontent-type: text/html\r\n\r\n<html>log in"))],
            502,
            End::Refused("upstream_invalid_response"),
        )
        .calls(&[3]),
        row(
            "nothing at all",
            vec![always(say(whole(200, "")))],
            502,
            End::Refused("upstream_invalid_response"),
        )
        .calls(&[3]),
        row("nothing once", vec![then_serve(say(whole(200, "")))], 200, End::Good).calls(&[2]),
        row(
            "204",
            vec![always(raw("HTTP/1.1 204 No Content\r\n\r\n"))],
            502,
            End::Refused("upstream_invalid_response"),
        )
        .calls(&[3]),
        row(
            "compressed",
            vec![always(raw("HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 4\r\n\r\nabcd"))],
            502,
            End::Refused("upstream_invalid_response"),
        )
        .calls(&[3]),
        whole_row(
            "a body shorter than it says",
            raw("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 500\r\n\r\n{\"can"),
            502,
            "upstream_disconnected",
        ),
        row(
            "a body that stalls",
            vec![always(vec![
                Say(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 500\r\n\r\n{"
                    .to_vec()),
                Stall,
            ])],
            504,
            End::Refused("upstream_stalled"),
        )
        .way(Way::Whole)
        .within(400, 2500),
        row(
            "a body in drops",
            vec![always(vec![Drip(whole(200, END), Duration::from_millis(2))])],
            200,
            End::Good,
        )
        .way(Way::Whole)
        .on("first_event_timeout = \"5s\"\n")
        .within(300, 6000),
        row(
            "broken JSON",
            vec![always(say(whole(200, "{\"candidates\":[")))],
            502,
            End::Refused("upstream_invalid_response"),
        )
        .way(Way::Whole)
        .calls(&[2]),
        row("a malformed call once", vec![then_serve(say(whole(200, empty)))], 200, End::Good)
            .way(Way::Whole)
            .calls(&[2]),
        row("a malformed call in a stream once", vec![then_serve(say(events(&[empty])))], 200, End::Good)
            .way(Way::Stream)
            .calls(&[2]),
        row(
            "a body longer than it says",
            vec![always(headed("application/json", "garbage"))],
            200,
            End::Good,
        )
        .way(Way::Whole),
        row(
            "an impossible chunk",
            vec![always(raw("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFF\r\n"))],
            502,
            End::Refused("upstream_invalid_response"),
        )
        .calls(&[3]),
    ]
}

/// The usual answer, said to be of a kind, and what comes behind it.
fn headed(kind: &str, behind: &str) -> Act {
    let head = format!("HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n\r\n", END.len());
    say([&head, END, behind].concat().into_bytes())
}

fn odd_answers() -> Vec<Row> {
    vec![
        row(
            "another type than it is",
            vec![always(headed("text/plain", ""))],
            200,
            End::Good,
        )
        .way(Way::Whole),
        row(
            "no length, and half an answer",
            vec![always(raw("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n{\"cand"))],
            502,
            End::Refused("upstream_invalid_response"),
        )
        .way(Way::Whole)
        .calls(&[2]),
        row(
            "an answer with a trailer",
            vec![always(say(
                format!(
                    "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\ntrailer: \
                     x-sum\r\n\r\n{:x}\r\n{END}\r\n0\r\nx-sum: 1\r\n\r\n",
                    END.len()
                )
                .into_bytes(),
            ))],
            200,
            End::Good,
        )
        .way(Way::Whole),
        row(
            "a NUL in the head",
            vec![always(raw("HTTP/1.1 200 OK\r\nx: a\0b\r\ncontent-length: 2\r\n\r\n{}"))],
            502,
            End::Refused("upstream_invalid_response"),
        )
        .calls(&[3]),
        row(
            "a length beside chunks",
            vec![always(raw(
                "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            ))],
            502,
            End::Refused("upstream_invalid_response"),
        )
        .way(Way::Whole)
        .calls(&[2]),
    ]
}

fn streams() -> Vec<Row> {
    let cut = |name, act: Act, code| row(name, vec![always(act)], 200, End::Cut(code)).way(Way::Stream);
    vec![
        cut(
            "a reset after an event",
            begun(vec![Wait(Duration::from_millis(100)), Reset]),
            "upstream_disconnected",
        ),
        cut("a close after an event", begun(vec![Close]), "upstream_disconnected"),
        cut("a clean end without a finish", begun(vec![Say(b"0\r\n\r\n".to_vec())]), "upstream_disconnected"),
        cut("half an event", begun(vec![Say(chunk("data: {\"cand")), Close]), "upstream_disconnected"),
        cut("a stall after an event", begun(vec![Stall]), "upstream_stalled").within(400, 2500),
        cut(
            "garbage after an event",
            begun(vec![Say(event("{nope")), Say(b"0\r\n\r\n".to_vec())]),
            "upstream_invalid_response",
        ),
        cut(
            "an error after an event",
            begun(vec![Say(event(ERROR_EVENT)), Say(b"0\r\n\r\n".to_vec())]),
            "upstream_overloaded",
        ),
        cut(
            "a quota after an event",
            begun(vec![Say(event(QUOTA_EVENT)), Say(b"0\r\n\r\n".to_vec())]),
            "rate_limit_exceeded",
        ),
        cut(
            "a bad chunk after an event",
            begun(vec![Say(b"zz\r\n".to_vec()), Close]),
            "upstream_invalid_response",
        ),
        cut(
            "events for ever, in drops",
            begun(vec![Drip(chunk(&format!("data: {}", "x".repeat(1500))), Duration::from_millis(3))]),
            "request_timeout",
        )
        .on("total_timeout = \"1500ms\"\n")
        .within(1300, 4000),
        row("an error as the first event", vec![then_serve(say(events(&[ERROR_EVENT])))], 200, End::Good)
            .way(Way::Stream)
            .calls(&[2]),
        row("an error in place of a stream", vec![then_serve(say(whole(200, ERROR_EVENT)))], 200, End::Good)
            .way(Way::Stream)
            .calls(&[2]),
        row(
            "a head, then silence",
            vec![always(vec![Say(opening()), Stall])],
            504,
            End::Refused("upstream_first_event_timeout"),
        )
        .way(Way::Stream)
        .within(600, 2500),
        row("a head, then a close", vec![then_serve(vec![Say(opening()), Close])], 200, End::Good)
            .way(Way::Stream)
            .calls(&[2]),
        row(
            "a list in place of a stream",
            vec![always(say(whole(200, &format!("[{HELLO},{END}]"))))],
            200,
            End::Good,
        )
        .way(Way::Stream),
        row("garbage as the first event", vec![then_serve(say(events(&["{nope"])))], 200, End::Good)
            .way(Way::Stream)
            .calls(&[2]),
        row(
            "counts and no candidate",
            vec![always(say(events(&[r#"{"usageMetadata":{"promptTokenCount":3}}"#])))],
            502,
            End::Refused("upstream_invalid_response"),
        )
        .way(Way::Stream)
        .calls(&[2]),
        row(
            "a stream in drops",
            vec![always(vec![Drip(events(&[HELLO, END]), Duration::from_millis(1))])],
            200,
            End::Good,
        )
        .way(Way::Stream)
        .on("first_event_timeout = \"5s\"\n")
        .within(0, 6000),
    ]
}

fn elsewhere() -> Vec<Row> {
    let faulty: [(&'static str, Act); 6] = [
        ("503 here, well there", unavailable()),
        ("500 here, well there", say(status(500, "INTERNAL", ""))),
        ("resets here, well there", vec![Reset]),
        ("garbage here, well there", raw("220 smtp ready\r\n")),
        ("a refused key here, well there", say(status(403, "PERMISSION_DENIED", ""))),
        ("nothing here, well there", say(whole(200, ""))),
    ];
    let mut all: Vec<Row> = faulty
        .into_iter()
        .map(|(name, act)| {
            row(name, vec![always(act), serve()], 200, End::Good)
                .calls(&[1, 1])
                .tells("x-gemway-served-by", Some("b"))
        })
        .collect();
    all.extend([
        row(
            "503 at both",
            vec![always(unavailable()), always(unavailable())],
            503,
            End::Refused("upstream_overloaded"),
        )
        .calls_in_all(4)
        .tells("x-should-retry", Some("false")),
        row("two dead, one well", vec![always(vec![Reset]), always(vec![Close]), serve()], 200, End::Good)
            .calls(&[1, 1, 1])
            .tells("x-gemway-served-by", Some("c")),
        row(
            "400 is not taken elsewhere",
            vec![always(say(status(400, "INVALID_ARGUMENT", ""))), serve()],
            400,
            End::Refused("invalid_value"),
        )
        .calls(&[1, 0]),
        row(
            "a broken stream is not taken elsewhere",
            vec![always(begun(vec![Close])), serve()],
            200,
            End::Cut("upstream_disconnected"),
        )
        .way(Way::Stream)
        .calls(&[1, 0]),
        row("another model", vec![always(unavailable())], 200, End::Good)
            .on("retries = 0\nfallback = [\"spare-model\"]\n")
            .calls(&[1])
            .tells("x-gemway-attempts", Some("2"))
            .tells("x-gemway-model", Some("spare-model"))
            .tells("x-gemway-served-by", Some("spare")),
    ]);
    all
}

fn wishes() -> Vec<Row> {
    vec![
        row(
            "no retry, said the client",
            vec![always(unavailable()), serve()],
            503,
            End::Refused("upstream_overloaded"),
        )
        .asking("x-gemway-no-retry: 1\r\n")
        .calls(&[1, 0])
        .tells("x-should-retry", None),
        row(
            "no other model, said the client",
            vec![always(unavailable())],
            503,
            End::Refused("upstream_overloaded"),
        )
        .asking("x-gemway-no-fallback: 1\r\n")
        .on("retries = 0\nfallback = [\"spare-model\"]\n"),
        row(
            "a deadline of the client's",
            vec![always(vec![Stall]), serve()],
            504,
            End::Refused("request_timeout"),
        )
        .asking("x-request-timeout-ms: 300\r\n")
        .calls(&[1, 0])
        .within(300, 1500),
        row("a deadline of an SDK's", vec![always(vec![Stall])], 504, End::Refused("request_timeout"))
            .asking("x-stainless-timeout: 0.3\r\n")
            .on("first_event_timeout = \"3s\"\n")
            .within(800, 2500),
        row(
            "a wait beyond the client's deadline",
            vec![always(say(status(429, "RESOURCE_EXHAUSTED", RETRY_INFO)))],
            429,
            End::Refused("rate_limit_exceeded"),
        )
        .asking("x-request-timeout-ms: 300\r\n")
        .within(0, 300),
        row("a deadline that cannot be read", vec![serve()], 400, End::Refused("invalid_value"))
            .asking("x-request-timeout: tomorrow\r\n")
            .calls(&[0]),
        row(
            "no retries, said the operator",
            vec![always(unavailable())],
            503,
            End::Refused("upstream_overloaded"),
        )
        .on("retries = 0\n"),
        row(
            "less patience, said the operator",
            vec![always(vec![Stall])],
            504,
            End::Refused("upstream_timeout"),
        )
        .on("first_event_timeout = \"200ms\"\n")
        .within(200, 590),
        row(
            "shorter silences, said the operator",
            vec![always(begun(vec![Stall]))],
            200,
            End::Cut("upstream_stalled"),
        )
        .way(Way::Stream)
        .on("idle_timeout = \"150ms\"\n")
        .within(150, 390),
    ]
}
