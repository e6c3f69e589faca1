//! Credentials that are made of other credentials: workload identity federation, and impersonation.
//!
//! A workload proves who it is with a token of its own world (a file, an address, a program), Google's token
//! service gives a federated token for it, and where the configuration says so, that one buys the token of a
//! service account.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::pin::Pin;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, header};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::connect::Client;
use super::credential::{Exchange, Key, SCOPE, from_key};
use super::fail;
use super::token::bearer;
use crate::clock::Clock;
use crate::error::Result;

const SUBJECT_TOKEN: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
/// What a program may take, unless its configuration says otherwise; Google's own bounds.
const PROGRAM: Duration = Duration::from_secs(30);
const PROGRAM_BOUNDS: (Duration, Duration) = (Duration::from_secs(5), Duration::from_mins(2));
/// What a program may print.
const PRINTED: u64 = 1 << 20;

/// A token and its life.
pub(super) struct Granted {
    pub(super) secret: String,
    pub(super) life: Duration,
}

type Granting<'a> = Pin<Box<dyn Future<Output = Result<Granted>> + Send + 'a>>;

/// Identity from another world.
#[derive(Deserialize)]
pub(super) struct External {
    audience: String,
    subject_token_type: String,
    token_url: String,
    credential_source: Origin,
    service_account_impersonation_url: Option<String>,
    #[serde(default)]
    service_account_impersonation: Lifetime,
    client_id: Option<String>,
    client_secret: Option<String>,
    pub(super) quota_project_id: Option<String>,
    workforce_pool_user_project: Option<String>,
}

/// A service account's token for somebody who may act as it.
#[derive(Deserialize)]
pub(super) struct Impersonated {
    service_account_impersonation_url: String,
    source_credentials: Value,
    #[serde(default)]
    delegates: Vec<String>,
    pub(super) quota_project_id: Option<String>,
}

#[derive(Default, Deserialize)]
struct Lifetime {
    token_lifetime_seconds: Option<u64>,
}

/// Where the subject token comes from: exactly one of the three.
#[derive(Deserialize)]
struct Origin {
    file: Option<PathBuf>,
    url: Option<String>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    executable: Option<Program>,
    #[serde(default)]
    format: Format,
}

#[derive(Default, Deserialize)]
struct Format {
    #[serde(rename = "type")]
    kind: Option<String>,
    subject_token_field_name: Option<String>,
}

#[derive(Clone, Deserialize)]
struct Program {
    command: String,
    timeout_millis: Option<u64>,
    output_file: Option<PathBuf>,
}

/// Buys a token for what a key file holds. `programs`: the file may name a program to run.
pub(super) fn grant<'a>(text: &'a str, programs: bool, client: &'a Client) -> Granting<'a> {
    Box::pin(async move {
        let key =
            super::credential::parse(text).map_err(|what| fail::credential(format!("the file {what}")))?;
        match key {
            Key::ServiceAccount { .. } | Key::AuthorizedUser { .. } => {
                granted(&from_key(text, key)?.run(client).await?)
            }
            Key::ExternalAccount(external) => external.grant(programs, client).await,
            Key::ImpersonatedServiceAccount(impersonated) => {
                let source = impersonated.source_credentials.to_string();
                let own = grant(&source, programs, client).await?;
                let url = &impersonated.service_account_impersonation_url;
                impersonate(url, &own, &impersonated.delegates, None, client).await
            }
            Key::Other => Err(fail::credential("the credential file has an unknown type")),
        }
    })
}

/// Reads OAuth's answer.
pub(super) fn granted(reply: &[u8]) -> Result<Granted> {
    #[derive(Deserialize)]
    struct Reply {
        access_token: String,
        // The standard lets it out; an hour is what Google gives.
        #[serde(default = "an_hour")]
        expires_in: u64,
    }
    fn an_hour() -> u64 {
        3600
    }
    let reply: Reply = serde_json::from_slice(reply)
        // The parser's own words could quote the token.
        .map_err(|_secret| fail::credential("the token endpoint's answer is not a token"))?;
    Ok(Granted { secret: reply.access_token, life: Duration::from_secs(reply.expires_in) })
}

impl External {
    async fn grant(&self, programs: bool, client: &Client) -> Result<Granted> {
        let subject = self.subject(programs, client).await?;
        let mut form = vec![
            ("grant_type", SUBJECT_TOKEN),
            ("audience", &self.audience),
            ("scope", SCOPE),
            ("requested_token_type", ACCESS_TOKEN),
            ("subject_token", subject.trim()),
            ("subject_token_type", &self.subject_token_type),
        ];
        let options = self.workforce_pool_user_project.as_ref().filter(|_| self.client_id.is_none());
        let options = options.map(|project| json!({ "userProject": project }).to_string());
        form.extend(options.as_ref().map(|options| ("options", options.as_str())));
        let encode = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        let pairs: Vec<_> = form.iter().map(|(name, value)| format!("{name}={}", encode(value))).collect();
        let mut headers = HeaderMap::new();
        let media = HeaderValue::from_static("application/x-www-form-urlencoded");
        headers.insert(header::CONTENT_TYPE, media);
        if let (Some(id), Some(secret)) = (&self.client_id, &self.client_secret) {
            let basic = STANDARD.encode(format!("{id}:{secret}"));
            let mut basic = HeaderValue::try_from(format!("Basic {basic}")).map_err(fail::credential)?;
            basic.set_sensitive(true);
            headers.insert(header::AUTHORIZATION, basic);
        }
        let exchange = Exchange {
            method: Method::POST,
            uri: Uri::try_from(&self.token_url).map_err(fail::credential)?,
            headers,
            body: pairs.join("&").into(),
        };
        let federated = granted(&exchange.run(client).await?)?;
        match &self.service_account_impersonation_url {
            None => Ok(federated),
            Some(url) => {
                let life = self.service_account_impersonation.token_lifetime_seconds;
                impersonate(url, &federated, &[], life, client).await
            }
        }
    }

    async fn subject(&self, programs: bool, client: &Client) -> Result<String> {
        let source = &self.credential_source;
        match (&source.file, &source.url, &source.executable) {
            (Some(path), None, None) => {
                let text = tokio::fs::read_to_string(path).await.map_err(fail::credential)?;
                source.format.read(text)
            }
            (None, Some(url), None) => {
                let mut headers = HeaderMap::new();
                for (name, value) in &source.headers {
                    let name = HeaderName::try_from(name).map_err(fail::credential)?;
                    headers.insert(name, HeaderValue::try_from(value).map_err(fail::credential)?);
                }
                let uri = Uri::try_from(url).map_err(fail::credential)?;
                let exchange = Exchange { method: Method::GET, uri, headers, body: Bytes::new() };
                let bytes = exchange.run(client).await?;
                source.format.read(String::from_utf8_lossy(&bytes).into_owned())
            }
            (None, None, Some(program)) if programs => {
                let program = program.clone();
                let (audience, kind) = (self.audience.clone(), self.subject_token_type.clone());
                let impersonated = self.service_account_impersonation_url.clone();
                let running = tokio::task::spawn_blocking(move || {
                    program.token(&audience, &kind, impersonated.as_deref())
                });
                running.await.map_err(fail::credential)?.map_err(fail::credential)
            }
            (None, None, Some(_)) => Err(fail::credential(
                "the credential runs a program, which GOOGLE_EXTERNAL_ACCOUNT_ALLOW_EXECUTABLES=1 must allow",
            )),
            _ => Err(fail::credential(
                "the credential's source is none of a file, a URL and an executable (others are not supported)",
            )),
        }
    }
}

impl Format {
    fn read(&self, text: String) -> Result<String> {
        if self.kind.as_deref() != Some("json") {
            return Ok(text);
        }
        let field = self.subject_token_field_name.as_deref().unwrap_or("access_token");
        // The parser's own words could quote the token.
        let value: Value = serde_json::from_str(&text)
            .map_err(|_secret| fail::credential("the subject token's file is not JSON"))?;
        let token = value.get(field).and_then(Value::as_str).map(str::to_owned);
        token.ok_or_else(|| fail::credential("the subject token's file lacks the field that is configured"))
    }
}

impl Program {
    /// Runs the program, unless what it wrote the last time is still good. Blocks.
    fn token(&self, audience: &str, kind: &str, impersonated: Option<&str>) -> Result<String, String> {
        if let Some(path) = &self.output_file
            && let Ok(text) = std::fs::read_to_string(path)
            && let Ok(token) = printed(&text, true)
        {
            return Ok(token);
        }
        let (least, most) = PROGRAM_BOUNDS;
        let limit = self.timeout_millis.map_or(PROGRAM, Duration::from_millis).clamp(least, most);
        let mut words = self.command.split_whitespace();
        let program = words.next().ok_or("the credential's command is empty")?;
        let mut command = Command::new(program);
        command
            .args(words)
            .env("GOOGLE_EXTERNAL_ACCOUNT_AUDIENCE", audience)
            .env("GOOGLE_EXTERNAL_ACCOUNT_TOKEN_TYPE", kind)
            .env("GOOGLE_EXTERNAL_ACCOUNT_INTERACTIVE", "0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        if let Some(url) = impersonated
            && let Some(email) = url.rsplit('/').next().and_then(|last| last.split(':').next())
        {
            command.env("GOOGLE_EXTERNAL_ACCOUNT_IMPERSONATED_EMAIL", email);
        }
        if let Some(path) = &self.output_file {
            command.env("GOOGLE_EXTERNAL_ACCOUNT_OUTPUT_FILE", path);
        }
        let mut child = command.spawn().map_err(|error| format!("the credential's command: {error}"))?;
        let output = child.stdout.take();
        let reading = std::thread::spawn(move || {
            let mut text = String::new();
            if let Some(output) = output {
                // What could not be read is missed below.
                let _ = std::io::Read::read_to_string(&mut std::io::Read::take(output, PRINTED), &mut text);
            }
            text
        });
        let begun = Instant::now();
        let status = loop {
            match child.try_wait() {
                Ok(Some(status)) => break status,
                #[expect(clippy::disallowed_methods, reason = "a thread for what blocks")]
                Ok(None) if begun.elapsed() < limit => std::thread::sleep(Duration::from_millis(20)),
                Ok(None) | Err(_) => {
                    // It may have ended by itself in between.
                    let _ = child.kill();
                    let _ = child.wait();
                    return Err("the credential's command took too long".to_owned());
                }
            }
        };
        let text = reading.join().map_err(|_panic| "the credential's command could not be read")?;
        if !status.success() {
            return Err(format!("the credential's command ended with {status}"));
        }
        printed(&text, false)
    }
}

/// Reads what a program printed: a token, or why there is none. `kept`: it comes from a file of an earlier run, and
/// must say how long it is good.
fn printed(text: &str, kept: bool) -> Result<String, String> {
    #[derive(Deserialize)]
    struct Printed {
        success: bool,
        id_token: Option<String>,
        saml_response: Option<String>,
        access_token: Option<String>,
        expiration_time: Option<u64>,
        code: Option<String>,
    }
    // The parser's own words could quote the token.
    let read: Printed =
        serde_json::from_str(text).map_err(|_secret| "the credential's command printed no answer")?;
    if !read.success {
        let code = read.code.unwrap_or_default();
        return Err(format!(
            "the credential's command refuses: {}",
            crate::translate::fault::mask(&code, &[])
        ));
    }
    let fresh = match read.expiration_time {
        Some(end) => end > Clock::System.unix_seconds() + 30,
        None => !kept,
    };
    let token = read.id_token.or(read.saml_response).or(read.access_token);
    token.filter(|_| fresh).ok_or_else(|| "the credential's command printed no token that is good".to_owned())
}

async fn impersonate(
    url: &str,
    own: &Granted,
    delegates: &[String],
    life: Option<u64>,
    client: &Client,
) -> Result<Granted> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Reply {
        access_token: String,
        expire_time: String,
    }
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::AUTHORIZATION, bearer(&own.secret)?);
    let lifetime = format!("{}s", life.unwrap_or(3600));
    let body = json!({ "scope": [SCOPE], "delegates": delegates, "lifetime": lifetime }).to_string();
    let uri = Uri::try_from(url).map_err(fail::credential)?;
    let exchange = Exchange { method: Method::POST, uri, headers, body: body.into() };
    let reply: Reply = serde_json::from_slice(&exchange.run(client).await?)
        .map_err(|_secret| fail::credential("the impersonation's answer is not a token"))?;
    let end: jiff::Timestamp = reply.expire_time.parse().map_err(fail::credential)?;
    let now = Clock::System.unix_seconds();
    let life = u64::try_from(end.as_second()).unwrap_or(0).saturating_sub(now);
    Ok(Granted { secret: reply.access_token, life: Duration::from_secs(life) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_program_prints_is_a_token_or_a_reason() {
        let read = |text| printed(text, false);
        assert_eq!(read(r#"{"success":true,"id_token":"t","version":1}"#).unwrap(), "t");
        assert!(printed(r#"{"success":true,"id_token":"t"}"#, true).is_err());
        assert!(read(r#"{"success":true,"id_token":"t","expiration_time":1}"#).is_err());
        assert!(read(r#"{"success":false,"code":"401"}"#).unwrap_err().contains("401"));
        assert!(!read(r#"{"success":"s3cret"}"#).unwrap_err().contains("s3cret"));
    }
}
