//! Faults on demand: by the model's name (`sim-<fault>`) or for every request (`Config::fault`).

use http::StatusCode;
use serde_json::json;

use super::validate::Refusal;

/// Every fault, its name without `sim-` and what happens.
///
/// | name | what happens |
/// |---|---|
/// | `429`, `429-<n>s` | 429 with `RetryInfo` of 2 s (of n seconds) and a per-minute quota |
/// | `429-daily` | 429 of a per-day quota |
/// | `400` `401` `403` `404` `500` `503` `504` | that status in Google's shape |
/// | `html` | 502 with an HTML page |
/// | `empty` | 200 without a byte |
/// | `error-in-200` | 200 with an error object for a body |
/// | `hang` | no answer at all |
/// | `slow` | a second to the first token, then five a second |
/// | `reset` | the body breaks off with an error (a stream: after three events) |
/// | `cut` | a clean end where more should come, without a finish reason |
/// | `half` | half an event, then a clean end |
/// | `stall` | three events, then silence |
/// | `garbage` | three events, then what is not JSON |
/// | `error-mid` | three events, then an error object |
/// | `error-first` | 200, and an error object as the first event (not streamed: 503) |
/// | `blocked` | the prompt is blocked |
/// | `safety` | some text, then `SAFETY` |
/// | `malformed` | `MALFORMED_FUNCTION_CALL` |
/// | `nocandidates` | usage and nothing else |
/// | `thinkcap` | `MAX_TOKENS` in the middle of thinking, without text |
/// | `hops` | Gemini 4 stops after 40 tokens and wants to be asked on |
/// | `hops-reset` | the same, and every connection breaks after three events |
/// | `array` | a JSON array, even with `alt=sse` |
pub const FAULTS: &[&str] = &[
    "429",
    "429-60s",
    "429-daily",
    "400",
    "401",
    "403",
    "404",
    "500",
    "503",
    "504",
    "html",
    "empty",
    "error-in-200",
    "hang",
    "slow",
    "reset",
    "cut",
    "half",
    "stall",
    "garbage",
    "error-mid",
    "error-first",
    "blocked",
    "safety",
    "malformed",
    "nocandidates",
    "thinkcap",
    "hops",
    "hops-reset",
    "array",
];

/// A fault, read from its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    None,
    Status(u16),
    Quota { seconds: u64 },
    Daily,
    Html,
    Empty,
    ErrorIn200,
    Hang,
    Slow,
    Reset,
    Cut,
    Half,
    Stall,
    Garbage,
    ErrorMid,
    ErrorFirst,
    Blocked,
    Safety,
    Malformed,
    NoCandidates,
    ThinkCap,
    Hops,
    HopsReset,
    Array,
}

impl Fault {
    /// Reads `429-60s`, `sim-503` …; names that are no fault are none.
    pub(super) fn named(name: &str) -> Self {
        let name = name.strip_prefix("sim-").unwrap_or(name);
        match name {
            "400" | "401" | "403" | "404" | "500" | "503" | "504" => {
                name.parse().map_or(Self::None, Self::Status)
            }
            "429" => Self::Quota { seconds: 2 },
            "429-daily" => Self::Daily,
            "html" => Self::Html,
            "empty" => Self::Empty,
            "error-in-200" => Self::ErrorIn200,
            "hang" => Self::Hang,
            "slow" => Self::Slow,
            "reset" => Self::Reset,
            "cut" => Self::Cut,
            "half" => Self::Half,
            "stall" => Self::Stall,
            "garbage" => Self::Garbage,
            "error-mid" => Self::ErrorMid,
            "error-first" => Self::ErrorFirst,
            "blocked" => Self::Blocked,
            "safety" => Self::Safety,
            "malformed" => Self::Malformed,
            "nocandidates" => Self::NoCandidates,
            "thinkcap" => Self::ThinkCap,
            "hops" => Self::Hops,
            "hops-reset" => Self::HopsReset,
            "array" => Self::Array,
            _ => name
                .strip_prefix("429-")
                .and_then(|rest| rest.strip_suffix('s'))
                .and_then(|seconds| seconds.parse().ok())
                .map_or(Self::None, |seconds| Self::Quota { seconds }),
        }
    }

    /// Strikes in the middle of a body.
    pub(super) fn breaks_body(self) -> bool {
        matches!(
            self,
            Self::Reset
                | Self::HopsReset
                | Self::Cut
                | Self::Half
                | Self::Stall
                | Self::Garbage
                | Self::ErrorMid
        )
    }

    /// The refusal, where the fault is one.
    pub(super) fn refusal(self, model: &str) -> Option<Refusal> {
        match self {
            Self::Quota { seconds } => Some(quota(model, "PerMinute", Some(seconds))),
            Self::Daily => Some(quota(model, "PerDay", None)),
            Self::Status(400) => Some(Refusal::invalid("Request contains an invalid argument.")),
            Self::Status(401) => Some(unauthenticated()),
            Self::Status(403) => Some(Refusal::new(
                403,
                "PERMISSION_DENIED",
                "Generative Language API has not been used in project 1 before or it is disabled.",
            )),
            Self::Status(404) => Some(super::models::unknown(model, "v1beta", "generateContent")),
            Self::Status(500) => Some(Refusal::new(
                500,
                "INTERNAL",
                "An internal error has occurred. Please retry or report in https://developers.generativeai.google/guide/troubleshooting",
            )),
            Self::Status(504) => Some(Refusal::new(
                504,
                "DEADLINE_EXCEEDED",
                "Deadline expired before operation could complete.",
            )),
            Self::Status(_) | Self::ErrorFirst | Self::ErrorIn200 | Self::ErrorMid => Some(overloaded()),
            Self::None
            | Self::Html
            | Self::Empty
            | Self::Hang
            | Self::Slow
            | Self::Reset
            | Self::Cut
            | Self::Half
            | Self::Stall
            | Self::Garbage
            | Self::Blocked
            | Self::Safety
            | Self::Malformed
            | Self::NoCandidates
            | Self::ThinkCap
            | Self::Hops
            | Self::HopsReset
            | Self::Array => None,
        }
    }
}

/// 503 in Google's words.
pub(super) fn overloaded() -> Refusal {
    Refusal::new(503, "UNAVAILABLE", "The model is overloaded. Please try again later.")
}

/// 401 for a token that is no longer good.
pub(super) fn unauthenticated() -> Refusal {
    Refusal::new(
        401,
        "UNAUTHENTICATED",
        "Request had invalid authentication credentials. Expected OAuth 2 access token, login cookie or other valid \
         authentication credential.",
    )
    .detail(json!({
        "@type": "type.googleapis.com/google.rpc.ErrorInfo",
        "reason": "ACCESS_TOKEN_EXPIRED",
        "domain": "googleapis.com",
        "metadata": { "service": "aiplatform.googleapis.com" },
    }))
}

/// 400 for a key that is none.
pub(super) fn bad_key() -> Refusal {
    let message = "API key not valid. Please pass a valid API key.";
    Refusal::invalid(message)
        .detail(json!({
            "@type": "type.googleapis.com/google.rpc.ErrorInfo",
            "reason": "API_KEY_INVALID",
            "domain": "googleapis.com",
            "metadata": { "service": "generativelanguage.googleapis.com" },
        }))
        .detail(json!({
            "@type": "type.googleapis.com/google.rpc.LocalizedMessage",
            "locale": "en-US",
            "message": message,
        }))
}

fn quota(model: &str, window: &str, seconds: Option<u64>) -> Refusal {
    let refusal = Refusal {
        code: StatusCode::TOO_MANY_REQUESTS,
        status: "RESOURCE_EXHAUSTED",
        message: "You exceeded your current quota, please check your plan and billing details.".into(),
        details: Vec::new(),
    }
    .detail(json!({
        "@type": "type.googleapis.com/google.rpc.QuotaFailure",
        "violations": [{
            "quotaMetric": "generativelanguage.googleapis.com/generate_content_requests",
            "quotaId": format!("GenerateRequests{window}PerProjectPerModel"),
            "quotaDimensions": { "location": "global", "model": model },
            "quotaValue": "10",
        }],
    }))
    .detail(json!({
        "@type": "type.googleapis.com/google.rpc.Help",
        "links": [{ "description": "Learn more about quotas", "url": "https://ai.google.dev/gemini-api/docs/rate-limits" }],
    }));
    match seconds {
        None => refusal,
        Some(seconds) => refusal.detail(json!({
            "@type": "type.googleapis.com/google.rpc.RetryInfo",
            "retryDelay": format!("{seconds}s"),
        })),
    }
}
