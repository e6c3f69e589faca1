//! `google.rpc.Status`.

use std::time::Duration;

use serde_json::Value;

/// A wait longer than this is as good as "not now".
const MAX_WAIT: Duration = Duration::from_hours(24);

/// Google's error, as far as anybody acts on it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// The HTTP status inside the body.
    pub code: Option<u16>,
    /// `INVALID_ARGUMENT`, …
    pub status: String,
    /// Google's sentence.
    pub message: String,
    /// `ErrorInfo.reason`s.
    pub reasons: Vec<String>,
    /// `QuotaFailure.violations[].quotaId`s.
    pub quota_ids: Vec<String>,
    /// `RetryInfo.retryDelay`.
    pub retry_delay: Option<Duration>,
    /// `BadRequest.fieldViolations[0].field`.
    pub field: Option<String>,
}

impl Status {
    /// Reads an error body: an object, or an array of one, with or without the `error` envelope's details.
    pub fn parse(body: &[u8]) -> Option<Self> {
        let value: Value = serde_json::from_slice(body).ok()?;
        let value = if let Value::Array(list) = &value { list.first()? } else { &value };
        let error = value.get("error")?;
        let text = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or_default().to_owned();
        let code = error.get("code").and_then(|code| match code {
            Value::String(code) => code.parse().ok(),
            Value::Number(code) => code.as_u64(),
            Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
        });
        let mut read = Self {
            code: code.and_then(|code| u16::try_from(code).ok()),
            status: text(error.get("status")),
            message: error.as_str().map_or_else(|| text(error.get("message")), str::to_owned),
            ..Self::default()
        };
        for detail in error.get("details").and_then(Value::as_array).into_iter().flatten() {
            read.detail(detail);
        }
        read.retry_delay = read.retry_delay.or_else(|| told(&read.message));
        for old in error.get("errors").and_then(Value::as_array).into_iter().flatten() {
            read.reasons.extend(old.get("reason").and_then(Value::as_str).map(str::to_owned));
        }
        Some(read)
    }

    fn detail(&mut self, detail: &Value) {
        let list = |name: &str| detail.get(name).and_then(Value::as_array).into_iter().flatten();
        let text = |value: &Value, name: &str| value.get(name).and_then(Value::as_str).map(str::to_owned);
        self.reasons.extend(text(detail, "reason"));
        self.quota_ids.extend(list("violations").filter_map(|violation| text(violation, "quotaId")));
        if self.field.is_none() {
            let mut fields = list("fieldViolations").filter_map(|violation| text(violation, "field"));
            self.field = fields.next().filter(|field| !field.is_empty());
        }
        if let Some(delay) = detail.get("retryDelay") {
            self.retry_delay = duration(delay).or(self.retry_delay);
        }
    }
}

/// The wait that only the sentence tells: `Please retry in 45.83s.`
fn told(message: &str) -> Option<Duration> {
    let (_, rest) = message.split_once("retry in ")?;
    let number = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
    let (number, unit) = (rest.get(..number)?.trim_end_matches('.'), rest.get(number..)?);
    let scale = if unit.starts_with("ms") {
        0.001
    } else if unit.starts_with('s') {
        1.0
    } else {
        return None;
    };
    let seconds: f64 = number.parse().ok()?;
    duration(&Value::from(seconds * scale))
}

/// Reads `"59s"`, `"0.5s"` or `{"seconds":59}`; nonsense and negative waits are none, huge ones are cut.
fn duration(value: &Value) -> Option<Duration> {
    let seconds = match value {
        Value::String(text) => text.trim().strip_suffix('s')?.parse::<f64>().ok()?,
        Value::Number(number) => number.as_f64()?,
        Value::Object(parts) => {
            let number = |name: &str| match parts.get(name) {
                Some(Value::String(text)) => text.parse().ok(),
                Some(other) => other.as_f64(),
                None => None,
            };
            number("seconds").unwrap_or(0.0) + number("nanos").unwrap_or(0.0) / 1e9
        }
        Value::Null | Value::Bool(_) | Value::Array(_) => return None,
    };
    if seconds.is_nan() || seconds <= 0.0 {
        return None;
    }
    Some(Duration::try_from_secs_f64(seconds).map_or(MAX_WAIT, |wait| wait.min(MAX_WAIT)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_may_be_told_in_prose_only() {
        let told = |message: &str| told(message);
        assert_eq!(told("Quota. Please retry in 45.5s."), Some(Duration::from_millis(45_500)));
        assert_eq!(told("Please retry in 250ms."), Some(Duration::from_millis(250)));
        for other in ["retry in a while", "retry in 5 minutes", "retry in ", "no"] {
            assert_eq!(told(other), None, "{other}");
        }
    }

    #[test]
    fn waits_are_read_and_bounded() {
        let wait = |json: &str| duration(&serde_json::from_str(json).unwrap());
        assert_eq!(wait(r#""59s""#), Some(Duration::from_secs(59)));
        assert_eq!(wait(r#""0.5s""#), Some(Duration::from_millis(500)));
        assert_eq!(wait(r#""0.000000001s""#), Some(Duration::from_nanos(1)));
        assert_eq!(wait(r#"{"seconds":"2","nanos":500000000}"#), Some(Duration::from_millis(2500)));
        assert_eq!(wait(r#""1000000000s""#), Some(MAX_WAIT));
        assert_eq!(wait(r#""1e300s""#), Some(MAX_WAIT));
        for nonsense in [r#""-1s""#, r#""abc""#, r#""NaNs""#, "null", "[]", r#""5""#] {
            assert_eq!(wait(nonsense), None, "{nonsense}");
        }
    }
}
