//! `[traces]`: where spans go, in the file or in OpenTelemetry's own variables.

use std::collections::BTreeMap;

use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use serde::Deserialize;
use serde_spanned::Spanned;

use super::ConfigError;
use super::resolve::Resolver;

/// As it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Written {
    endpoint: Spanned<String>,
    service: Option<String>,
    share: Option<Spanned<f64>>,
    #[serde(default)]
    headers: BTreeMap<String, Spanned<String>>,
}

/// Where spans go.
#[derive(Clone, Debug)]
pub struct Traces {
    /// The collector's address for traces, path included.
    pub endpoint: Uri,
    /// `service.name`.
    pub service: String,
    /// Which part of the traces that begin here is kept, 0 to 1.
    pub share: f64,
    /// Sent with every letter; the values are secrets.
    pub headers: HeaderMap,
}

impl Resolver<'_> {
    pub(super) fn traces(&self, written: Option<&Written>) -> Result<Option<Traces>, ConfigError> {
        let env = |name: &str| (self.env)(name);
        let service = env("OTEL_SERVICE_NAME").unwrap_or_else(|| "gemway".to_owned());
        let Some(written) = written else {
            let found = env("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
                .map(|whole| ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", whole))
                .or_else(|| {
                    let base = env("OTEL_EXPORTER_OTLP_ENDPOINT")?;
                    Some(("OTEL_EXPORTER_OTLP_ENDPOINT", below(&base)))
                });
            let Some((name, endpoint)) = found else { return Ok(None) };
            let endpoint =
                address(&endpoint).map_err(|problem| ConfigError::new(format!("{name}: {problem}")))?;
            let mut headers = HeaderMap::new();
            for pair in env("OTEL_EXPORTER_OTLP_HEADERS").unwrap_or_default().split(',') {
                if let Some((name, value)) = pair.split_once('=') {
                    let (name, value) = header(name, value).map_err(|problem| {
                        ConfigError::new(format!("OTEL_EXPORTER_OTLP_HEADERS: {problem}"))
                    })?;
                    headers.insert(name, value);
                }
            }
            return Ok(Some(Traces { endpoint, service, share: 1.0, headers }));
        };
        let endpoint = address(&below(written.endpoint.get_ref()))
            .map_err(|problem| self.complaint(&written.endpoint, &problem))?;
        let share = match &written.share {
            None => 1.0,
            Some(share) if (0.0..=1.0).contains(share.get_ref()) => *share.get_ref(),
            Some(share) => return Err(self.complaint(share, "a share is between 0 and 1")),
        };
        let mut headers = HeaderMap::new();
        for (name, value) in &written.headers {
            use secrecy::ExposeSecret;
            let secret = self.secret(value)?;
            let (name, secret) =
                header(name, secret.expose_secret()).map_err(|problem| self.complaint(value, &problem))?;
            headers.insert(name, secret);
        }
        let service = written.service.clone().unwrap_or(service);
        Ok(Some(Traces { endpoint, service, share, headers }))
    }
}

/// The collector's base, and the path that OTLP fixes below it.
fn below(base: &str) -> String {
    let base = base.trim().trim_end_matches('/');
    if base.ends_with("/v1/traces") { base.to_owned() } else { format!("{base}/v1/traces") }
}

fn address(text: &str) -> Result<Uri, String> {
    let uri: Uri = text.trim().parse().map_err(|error| format!("\"{text}\" is not an address: {error}"))?;
    match uri.scheme_str() {
        Some("http" | "https") if uri.host().is_some() => Ok(uri),
        _ => Err(format!("\"{text}\" is not an http or https address")),
    }
}

fn header(name: &str, value: &str) -> Result<(HeaderName, HeaderValue), String> {
    let name: HeaderName =
        name.trim().parse().map_err(|error| format!("`{}` is not a header's name: {error}", name.trim()))?;
    let mut value = HeaderValue::from_str(value.trim())
        .map_err(|error| format!("the value of `{name}` does not fit a header: {error}"))?;
    value.set_sensitive(true);
    Ok((name, value))
}
