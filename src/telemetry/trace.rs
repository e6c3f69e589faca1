//! Traces: W3C trace context in and out, and spans for a request and for each call it took.
//!
//! A span is made when everything about it is known, at the request's settlement; nothing is kept in thread-locals
//! and a request that nobody traces pays nothing. No prompt and no answer is ever part of a span.

use std::time::Duration;

use serde_json::{Value, json};

use crate::hex;

/// Which trace a request belongs to, and the calls it has made so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    id: [u8; 16],
    parent: Option<[u8; 8]>,
    span: [u8; 8],
    sampled: bool,
    /// The span of the call that is made next, or now.
    next: [u8; 8],
    calls: Vec<Call>,
}

/// One call to Google.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Call {
    span: [u8; 8],
    site: String,
    status: Option<u16>,
    /// What it failed of, from a closed set.
    reason: Option<&'static str>,
    /// Since the request came in.
    begun: Duration,
    ended: Duration,
}

/// What a span tells beside its times.
#[derive(Clone, Debug, Default)]
pub struct Attributes {
    /// `chat POST`.
    pub name: String,
    /// Names and values.
    pub values: Vec<(&'static str, Value)>,
    /// What went wrong, from a closed set.
    pub error: Option<String>,
}

impl Trace {
    /// Continues the trace of a `traceparent` header, or begins one of its own where there is none, or none that
    /// is well-formed. `share` of the traces that begin here are kept; the caller's own choice stands for its.
    pub fn begin(traceparent: Option<&str>, share: f64) -> Self {
        let mut fresh = [0_u8; 40];
        crate::ids::fill(&mut fresh);
        let (id, rest) = fresh.split_first_chunk::<16>().map_or(([1; 16], &[][..]), |(id, rest)| (*id, rest));
        let (span, rest) = rest.split_first_chunk::<8>().map_or(([1; 8], &[][..]), |(id, rest)| (*id, rest));
        let (next, rest) = rest.split_first_chunk::<8>().map_or(([2; 8], &[][..]), |(id, rest)| (*id, rest));
        let dice = rest.first_chunk::<4>().map_or(0, |dice| u32::from_le_bytes(*dice));
        let mut trace = Self {
            id,
            parent: None,
            span,
            sampled: f64::from(dice) < share * f64::from(u32::MAX),
            next,
            calls: Vec::new(),
        };
        if let Some((id, parent, sampled)) = traceparent.and_then(parse) {
            (trace.id, trace.parent, trace.sampled) = (id, Some(parent), sampled);
        }
        trace
    }

    /// Whether anybody will see it.
    pub fn sampled(&self) -> bool {
        self.sampled
    }

    /// The trace's id, as logs show it.
    pub fn id(&self) -> String {
        hex::write(&self.id)
    }

    /// The `traceparent` of the call that is about to be made.
    pub fn outgoing(&self) -> String {
        format!("00-{}-{}-{:02x}", hex::write(&self.id), hex::write(&self.next), u8::from(self.sampled))
    }

    /// A call to `site` has ended; its times are since the request came in.
    pub fn called(
        &mut self,
        site: &str,
        status: Option<u16>,
        reason: Option<&'static str>,
        begun: Duration,
        ended: Duration,
    ) {
        self.calls.push(Call { span: self.next, site: site.to_owned(), status, reason, begun, ended });
        crate::ids::fill(&mut self.next);
    }

    /// The spans of a request that came `at` (milliseconds since 1970), in OTLP's JSON form.
    pub fn spans(&self, at: u64, duration: Duration, request: &Attributes, call: &Attributes) -> Vec<Value> {
        const SERVER: u8 = 2;
        const CLIENT: u8 = 3;
        let mut all = Vec::with_capacity(1 + self.calls.len());
        let times = (nanos(at, Duration::ZERO), nanos(at, duration));
        all.push(self.span(self.span, self.parent, SERVER, times, request));
        let (mut hops, mut resends) = (0_u32, 0_u32);
        for each in &self.calls {
            let mut told = call.clone();
            told.values.push(("gemway.site", json!(each.site)));
            // A call is one more hop of the answer, or the same request once more.
            told.values.push(("gemway.hop", json!(hops)));
            if resends > 0 {
                told.values.push(("http.request.resend_count", json!(resends)));
            }
            if each.reason.is_some() {
                resends += 1;
            } else {
                (hops, resends) = (hops + 1, 0);
            }
            if let Some(status) = each.status {
                told.values.push(("http.response.status_code", json!(status)));
            }
            told.error = each.reason.map(str::to_owned);
            let times = (nanos(at, each.begun), nanos(at, each.ended));
            all.push(self.span(each.span, Some(self.span), CLIENT, times, &told));
        }
        all
    }

    fn span(
        &self,
        id: [u8; 8],
        parent: Option<[u8; 8]>,
        kind: u8,
        (start, end): (String, String),
        told: &Attributes,
    ) -> Value {
        let mut values: Vec<Value> = told.values.iter().map(|(key, value)| attribute(key, value)).collect();
        let status = match &told.error {
            None => json!({}),
            Some(error) => {
                values.push(attribute("error.type", &json!(error)));
                json!({ "code": 2 })
            }
        };
        json!({
            "traceId": hex::write(&self.id),
            "spanId": hex::write(&id),
            "parentSpanId": parent.map_or_else(String::new, |parent| hex::write(&parent)),
            "name": told.name,
            "kind": kind,
            "startTimeUnixNano": start,
            "endTimeUnixNano": end,
            "attributes": values,
            "status": status,
        })
    }
}

/// One attribute in OTLP's JSON: 64-bit integers are strings there.
pub fn attribute(key: &str, value: &Value) -> Value {
    let typed = match value {
        Value::Bool(value) => json!({ "boolValue": value }),
        Value::Number(number) if number.is_f64() => json!({ "doubleValue": number }),
        Value::Number(number) => json!({ "intValue": number.to_string() }),
        Value::String(text) => json!({ "stringValue": text }),
        Value::Null | Value::Array(_) | Value::Object(_) => json!({ "stringValue": value.to_string() }),
    };
    json!({ "key": key, "value": typed })
}

/// A moment, in nanoseconds since 1970, as OTLP's JSON writes it.
fn nanos(at: u64, later: Duration) -> String {
    (u128::from(at) * 1_000_000 + later.as_nanos()).to_string()
}

/// Reads `00-<32 hex>-<16 hex>-<2 hex>`: version 00, and what later versions promise to keep.
fn parse(header: &str) -> Option<([u8; 16], [u8; 8], bool)> {
    let mut fields = header.trim().split('-');
    let (version, id, parent, flags) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
    let [version] = unhex::<1>(version)?;
    if version == 0xff || (version == 0 && fields.next().is_some()) {
        return None;
    }
    let (id, parent, [flags]) = (unhex::<16>(id)?, unhex::<8>(parent)?, unhex::<1>(flags)?);
    let empty = id == [0; 16] || parent == [0; 8];
    (!empty).then_some((id, parent, flags & 1 == 1))
}

/// The header's digits are lower-case ones.
fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.bytes().any(|byte| byte.is_ascii_uppercase()) { None } else { hex::read(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIVEN: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_trace_is_continued() {
        let mut trace = Trace::begin(Some(GIVEN), 0.0);
        assert!(trace.sampled());
        let out = trace.outgoing();
        assert!(out.starts_with("00-0af7651916cd43dd8448eb211c80319c-") && out.ends_with("-01"), "{out}");
        assert!(!out.contains("b7ad6b7169203331"));
        trace.called(
            "studio",
            Some(503),
            Some("overloaded"),
            Duration::from_millis(1),
            Duration::from_millis(2),
        );
        trace.called("studio", Some(200), None, Duration::from_millis(3), Duration::from_millis(4));
        let told = Attributes { name: "chat".into(), ..Attributes::default() };
        let spans = trace.spans(1000, Duration::from_millis(5), &told, &told);
        assert_eq!(spans.len(), 3);
        assert_eq!(spans[0]["parentSpanId"], "b7ad6b7169203331");
        assert_eq!(spans[0]["endTimeUnixNano"], "1005000000");
        assert_eq!(spans[1]["parentSpanId"], spans[0]["spanId"]);
        assert_eq!(spans[1]["spanId"], out.split('-').nth(2).unwrap());
        let told = |span: usize, name: &str| {
            let all = spans[span]["attributes"].as_array().unwrap();
            all.iter().find(|each| each["key"] == name).map(|each| each["value"].clone())
        };
        assert_eq!(told(1, "error.type"), Some(json!({ "stringValue": "overloaded" })));
        assert_eq!(told(1, "http.request.resend_count"), None);
        assert_eq!(told(2, "http.request.resend_count"), Some(json!({ "intValue": "1" })));
        assert_eq!(told(2, "gemway.hop"), Some(json!({ "intValue": "0" })));
        assert_eq!((&spans[1]["status"]["code"], &spans[2]["status"]), (&json!(2), &json!({})));
    }

    #[test]
    fn a_broken_header_begins_a_trace() {
        let wrong = [
            "",
            "x",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
        ];
        for header in wrong {
            let trace = Trace::begin(Some(header), 1.0);
            assert!(trace.parent.is_none() && trace.sampled(), "{header}");
            assert!(!trace.id().contains("0af7651916cd43dd"), "{header}");
        }
        assert!(!Trace::begin(None, 0.0).sampled());
    }
}
