//! Where a credential comes from, and the request that turns it into an access token.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Uri, header};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde_json::json;

use super::connect::Client;
use super::fail;
use super::federation::{self, External, Granted, Impersonated, granted};
use super::token::assertion;
use crate::error::Result;

pub(super) const SCOPE: &str = "https://www.googleapis.com/auth/cloud-platform";
const TOKEN_URI: &str = "https://oauth2.googleapis.com/token";
const METADATA_HOST: &str = "metadata.google.internal";

/// Where tokens come from.
#[derive(Debug)]
pub(super) enum Source {
    /// A key file, read again for every exchange so that a rotated one is picked up.
    File {
        /// Where.
        path: PathBuf,
        /// It may name a program to run.
        programs: bool,
    },
    /// The metadata server at this host.
    Metadata(String),
}

/// One request to a token endpoint.
pub(super) struct Exchange {
    pub(super) method: Method,
    pub(super) uri: Uri,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// A key file, by its `type`.
#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Key {
    ServiceAccount {
        client_email: String,
        private_key_id: Option<String>,
        token_uri: String,
        project_id: Option<String>,
        quota_project_id: Option<String>,
    },
    AuthorizedUser {
        client_id: String,
        client_secret: String,
        refresh_token: String,
        token_uri: Option<String>,
        quota_project_id: Option<String>,
    },
    ExternalAccount(Box<External>),
    ImpersonatedServiceAccount(Impersonated),
    #[serde(other)]
    Other,
}

/// What a key file says about projects.
#[derive(Debug, Default)]
pub(super) struct Projects {
    pub(super) own: Option<String>,
    pub(super) quota: Option<String>,
}

impl Source {
    pub(super) fn metadata(host: Option<&str>) -> Self {
        Self::Metadata(host.unwrap_or(METADATA_HOST).to_owned())
    }

    /// Takes a key file, which must be readable now.
    pub(super) fn file(path: &Path, programs: bool) -> Result<(Self, Projects)> {
        let text = std::fs::read_to_string(path).map_err(|error| {
            fail::setting(format!("The credential file {} cannot be read: {error}.", path.display()))
        })?;
        let projects = match parse(&text) {
            Ok(Key::ServiceAccount { project_id, quota_project_id, .. }) => {
                Projects { own: project_id, quota: quota_project_id }
            }
            Ok(
                Key::AuthorizedUser { quota_project_id, .. }
                | Key::ImpersonatedServiceAccount(Impersonated { quota_project_id, .. }),
            ) => Projects { own: quota_project_id.clone(), quota: quota_project_id },
            Ok(Key::ExternalAccount(external)) => {
                Projects { own: external.quota_project_id.clone(), quota: external.quota_project_id }
            }
            Ok(Key::Other) => {
                return Err(fail::setting(format!(
                    "The credential file {} is of a type that the gateway does not know.",
                    path.display()
                )));
            }
            Err(what) => {
                return Err(fail::setting(format!("The credential file {} {what}.", path.display())));
            }
        };
        Ok((Self::File { path: path.to_owned(), programs }, projects))
    }

    /// Brings a token.
    pub(super) async fn grant(&self, client: &Client) -> Result<Granted> {
        match self {
            Self::Metadata(host) => {
                let scope = utf8_percent_encode(SCOPE, NON_ALPHANUMERIC);
                let path = format!("instance/service-accounts/default/token?scopes={scope}");
                granted(&metadata(host, &path)?.run(client).await?)
            }
            Self::File { path, programs } => {
                let text = tokio::fs::read_to_string(path).await.map_err(fail::credential)?;
                federation::grant(&text, *programs, client).await
            }
        }
    }

    /// The request that brings the project's id, where there is something to ask.
    pub(super) fn project(&self) -> Option<Result<Exchange>> {
        match self {
            Self::Metadata(host) => Some(metadata(host, "project/project-id")),
            Self::File { .. } => None,
        }
    }
}

/// Reads a key file. The failure says nothing of the content: a parser's message may quote a secret.
pub(super) fn parse(text: &str) -> Result<Key, String> {
    serde_json::from_str(text).map_err(|error| {
        format!("is not a Google credential (line {}, column {})", error.line(), error.column())
    })
}

fn metadata(host: &str, path: &str) -> Result<Exchange> {
    let uri = Uri::try_from(format!("http://{host}/computeMetadata/v1/{path}")).map_err(fail::credential)?;
    let mut headers = HeaderMap::new();
    headers.insert("metadata-flavor", HeaderValue::from_static("Google"));
    Ok(Exchange { method: Method::GET, uri, headers, body: Bytes::new() })
}

/// The request that brings a token for a key which needs no other.
pub(super) fn from_key(text: &str, key: Key) -> Result<Exchange> {
    let mut headers = HeaderMap::new();
    let (uri, media, body) = match key {
        Key::ServiceAccount { client_email, private_key_id, token_uri, .. } => {
            let signed = assertion(text, &client_email, private_key_id.as_deref(), &token_uri, SCOPE)?;
            let grant = utf8_percent_encode("urn:ietf:params:oauth:grant-type:jwt-bearer", NON_ALPHANUMERIC);
            let form = format!("grant_type={grant}&assertion={signed}");
            (token_uri, "application/x-www-form-urlencoded", form)
        }
        Key::AuthorizedUser { client_id, client_secret, refresh_token, token_uri, .. } => {
            let ask = json!({
                "grant_type": "refresh_token",
                "client_id": client_id,
                "client_secret": client_secret,
                "refresh_token": refresh_token,
            });
            (token_uri.unwrap_or_else(|| TOKEN_URI.to_owned()), "application/json", ask.to_string())
        }
        Key::ExternalAccount(_) | Key::ImpersonatedServiceAccount(_) | Key::Other => {
            return Err(fail::credential("the credential file has an unknown type"));
        }
    };
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media));
    let uri = Uri::try_from(uri).map_err(fail::credential)?;
    Ok(Exchange { method: Method::POST, uri, headers, body: body.into() })
}
