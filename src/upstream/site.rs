//! The places that can be called, and what a call looks like there.

use std::borrow::Cow;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Uri, header};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use tokio::sync::OnceCell;

use super::connect::Client;
use super::credential::{Projects, Source};
use super::fail;
use super::inherit::{self, Print};
use super::origin::Origin;
use super::settings::{Credentials, Local, SiteConfig, SiteKind};
use super::token::{Token, Tokens, bearer};
use super::{AGENT, Call, EVENT_STREAM, IDENTITY, JSON, Method};
use crate::catalog::dotted;
use crate::error::{Error, Result};
use crate::translate::Backend;

/// The simulator inside this process; no resolver knows the name.
const LOCAL: &str = "http://simulator.invalid";
const KEY_HEADER: HeaderName = HeaderName::from_static("x-goog-api-key");
const PROJECT_HEADER: HeaderName = HeaderName::from_static("x-goog-user-project");
/// Room for the usual address, so that it does not grow while it is written.
const ADDRESS: usize = 192;
/// What may stand in a path segment as it is.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b'@');

/// One place that can be called.
#[derive(Debug)]
pub struct Site {
    name: Arc<str>,
    group: Arc<str>,
    place: Place,
    /// Sent with every call: the key, the quota project.
    headers: HeaderMap,
    /// The same with all else that a posted request has in its head, made once: for whole answers, and for streams.
    posts: [HeaderMap; 2],
    tokens: Option<Arc<Tokens>>,
    /// Its own connections.
    client: Client,
    /// What it was made of, for comparing.
    print: Print,
}

#[derive(Debug)]
enum Place {
    Gemini { base: Origin, version: String },
    Vertex { base: Origin, version: String, location: String, project: Project },
    Local(Origin, Arc<dyn Local>),
}

/// Which project a Vertex path names.
#[derive(Debug)]
enum Project {
    /// None: express mode.
    Express,
    /// This one, or the credential's own, once it is known.
    Named(OnceCell<String>),
}

impl Site {
    pub(super) fn new(config: SiteConfig, programs: bool, client: &Client) -> Result<Self> {
        let client = client.sibling();
        let print = inherit::site(&config.kind, programs);
        let name: Arc<str> = config.name.into();
        let group = config.quota_group.map_or_else(|| Arc::clone(&name), Into::into);
        match config.kind {
            SiteKind::GeminiApi { base_url, api_version, api_key } => {
                let mut headers = HeaderMap::new();
                headers.insert(KEY_HEADER, key(&api_key)?);
                let place = Place::Gemini { base: Origin::new(&base_url)?, version: setting(api_version)? };
                let posts = posts(&headers);
                Ok(Self { name, group, place, headers, posts, tokens: None, client, print })
            }
            SiteKind::Vertex { base_url, api_version, project, location, credentials, quota_project } => {
                let who = Who::new(credentials, programs)?;
                let mut headers = who.headers;
                if let Some(quota) = quota_project.or(who.projects.quota) {
                    headers.insert(PROJECT_HEADER, plain(&quota)?);
                }
                let project = match project.or(who.projects.own).map(setting).transpose()? {
                    None if who.express => Project::Express,
                    named => Project::Named(OnceCell::new_with(named)),
                };
                let location = setting(location)?;
                let base = Origin::new(&base_url.unwrap_or_else(|| vertex_host(&location)))?;
                let place = Place::Vertex { base, version: setting(api_version)?, location, project };
                Ok(Self {
                    name,
                    group,
                    place,
                    posts: posts(&headers),
                    headers,
                    tokens: who.source.map(|source| Arc::new(Tokens::new(source))),
                    client,
                    print,
                })
            }
            SiteKind::Local(local) => Ok(Self {
                name,
                group,
                place: Place::Local(Origin::new(LOCAL)?, local),
                headers: HeaderMap::new(),
                posts: posts(&HeaderMap::new()),
                tokens: None,
                client,
                print,
            }),
        }
    }

    /// Whether it is the same place, called in the same name with the same credential.
    pub(super) fn is(&self, other: &Self) -> bool {
        self.name == other.name && self.print == other.print
    }

    /// Takes over the token of an older self, and its connections where the network is the same.
    pub(super) fn succeed(&mut self, old: &Self, connections: bool) {
        self.tokens.clone_from(&old.tokens);
        if connections {
            self.client = old.client.clone();
        }
    }

    /// Its name in logs and metrics.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The Google project whose quota it draws on.
    pub fn group(&self) -> &str {
        &self.group
    }

    /// The surface it speaks.
    pub fn backend(&self) -> Backend {
        match self.place {
            Place::Gemini { .. } | Place::Local(..) => Backend::GeminiApi,
            Place::Vertex { .. } => Backend::Vertex,
        }
    }

    /// Whether it is the simulator inside this process.
    pub fn is_simulator(&self) -> bool {
        self.local().is_some()
    }

    pub(super) fn shared_name(&self) -> Arc<str> {
        Arc::clone(&self.name)
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    pub(super) fn local(&self) -> Option<&Arc<dyn Local>> {
        match &self.place {
            Place::Local(_, local) => Some(local),
            Place::Gemini { .. } | Place::Vertex { .. } => None,
        }
    }

    pub(super) fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// The head of a posted request, without its credential where that is a token.
    pub(super) fn posts(&self, streams: bool) -> &HeaderMap {
        let [whole, streamed] = &self.posts;
        if streams { streamed } else { whole }
    }

    /// What must not show up in any text; a proxy's error page may repeat our headers.
    pub(super) fn secrets(&self) -> Vec<&str> {
        let sensitive = self.headers.values().filter(|value| value.is_sensitive());
        let texts = sensitive.filter_map(|value| value.to_str().ok());
        texts.map(|text| text.strip_prefix("Bearer ").unwrap_or(text)).collect()
    }

    pub(super) fn tokens(&self) -> Option<&Arc<Tokens>> {
        self.tokens.as_ref()
    }

    /// The token to send, where one is needed.
    pub(super) async fn token(&self, client: &Client) -> Result<Option<Arc<Token>>> {
        match &self.tokens {
            // In a box: an exchange is rare and its future is large, which every call would carry along.
            Some(tokens) => Box::pin(tokens.get(client)).await.map(Some),
            None => Ok(None),
        }
    }

    /// Where its addresses begin, and the version that they name.
    pub(super) fn base(&self) -> (&Origin, &str) {
        match &self.place {
            Place::Gemini { base, version } | Place::Vertex { base, version, .. } => (base, version),
            Place::Local(base, _) => (base, "v1beta"),
        }
    }

    /// Where addresses of another location begin: at that location's host, unless an operator named a host.
    ///
    /// # Errors
    /// When no host can have that location in its name.
    pub(super) fn base_at(&self, there: &str) -> Result<Cow<'_, Origin>> {
        match &self.place {
            Place::Vertex { base, location, .. }
                if location != there && base.as_str() == vertex_host(location) =>
            {
                let named = Origin::new(&vertex_host(there));
                let bad = |_| Error::invalid("path", "This path cannot be asked for.");
                named.map(Cow::Owned).map_err(bad)
            }
            Place::Gemini { base, .. } | Place::Vertex { base, .. } | Place::Local(base, _) => {
                Ok(Cow::Borrowed(base))
            }
        }
    }

    /// The project and location of a Vertex site; nothing elsewhere and in express mode.
    pub(super) async fn named(&self, client: &Client) -> Result<Option<(&str, &str)>> {
        match &self.place {
            Place::Vertex { location, project: Project::Named(cell), .. } => {
                Ok(Some((self.project(cell, client).await?, location)))
            }
            Place::Vertex { project: Project::Express, .. } | Place::Gemini { .. } | Place::Local(..) => {
                Ok(None)
            }
        }
    }

    /// The location of a Vertex site.
    pub(super) fn location(&self) -> Option<&str> {
        match &self.place {
            Place::Vertex { location, .. } => Some(location),
            Place::Gemini { .. } | Place::Local(..) => None,
        }
    }

    /// Whether its credential is a token that can be renewed when Google refuses it.
    pub fn renews(&self) -> bool {
        self.tokens.is_some()
    }

    /// Whether a Vertex path with this location is meant for it.
    pub fn serves(&self, there: &str) -> bool {
        matches!(&self.place, Place::Vertex { location, .. } if location == there)
    }

    /// Something that the processes of one installation share and nobody else knows; nothing where the site has
    /// no key of its own.
    pub fn seal(&self) -> Option<[u8; 32]> {
        let secrets = self.secrets();
        let secret = secrets.first()?;
        Some(Sha256::digest([b"gemway seal\0", secret.as_bytes()].concat()).into())
    }

    /// Replaces this site's credential wherever it stands in a text.
    pub fn mask(&self, text: Bytes) -> Bytes {
        let found = |secret: &&str| memchr::memmem::find(&text, secret.as_bytes()).is_some();
        let Some(secret) = self.secrets().into_iter().find(found) else { return text };
        let mut clean = Vec::with_capacity(text.len());
        let mut rest = &text[..];
        while let Some(at) = memchr::memmem::find(rest, secret.as_bytes()) {
            let (before, after) = rest.split_at(at);
            clean.extend_from_slice(before);
            clean.extend_from_slice(b"***");
            rest = after.get(secret.len()..).unwrap_or_default();
        }
        clean.extend_from_slice(rest);
        clean.into()
    }

    /// The address of a call.
    pub(super) async fn uri(&self, call: &Call, client: &Client) -> Result<Uri> {
        let method = match call.method {
            Method::Generate => ":generateContent",
            Method::Stream => ":streamGenerateContent?alt=sse",
            Method::CountTokens => ":countTokens",
            Method::Embed => ":embedContent",
            Method::BatchEmbed => ":batchEmbedContents",
            Method::Predict => ":predict",
        };
        let (base, version) = self.base();
        let mut address = String::with_capacity(ADDRESS);
        let add =
            |address: &mut String, pieces: &[&str]| pieces.iter().for_each(|piece| address.push_str(piece));
        match &self.place {
            Place::Gemini { .. } | Place::Local(..) => {
                add(&mut address, &[base.path(), "/", version, "/"]);
                gemini_model(&call.model, &mut address)?;
            }
            Place::Vertex { location, project, .. } => {
                let version = if call.preview { "v1beta1" } else { version };
                add(&mut address, &[base.path(), "/", version, "/"]);
                if let Project::Named(cell) = project {
                    let project = match cell.get() {
                        Some(known) => known,
                        None => Box::pin(self.project(cell, client)).await?,
                    };
                    add(&mut address, &["projects/", project, "/locations/", location, "/"]);
                }
                vertex_model(&call.model, &mut address)?;
            }
        }
        address.push_str(method);
        base.at(address)
    }

    /// The address of a list or a thing, given its path after the version. Vertex lists its models in v1beta1.
    pub(super) fn resource(&self, path: &str) -> Result<Uri> {
        let safe = !path.starts_with('/')
            && !path.contains("..")
            && path.bytes().all(|byte| byte.is_ascii_graphic());
        if !safe || path.contains('#') {
            return Err(Error::invalid("path", "This path cannot be asked for."));
        }
        let (base, own) = self.base();
        let version = match &self.place {
            Place::Gemini { .. } | Place::Local(..) => own,
            Place::Vertex { .. } => "v1beta1",
        };
        base.at([base.path(), "/", version, "/", path].concat())
    }

    async fn project<'s>(&'s self, cell: &'s OnceCell<String>, client: &Client) -> Result<&'s str> {
        let ask = || async {
            let exchange = self.tokens.as_ref().and_then(|tokens| tokens.source().project());
            let Some(exchange) = exchange else {
                return Err(fail::credential("no project is configured and the credential names none"));
            };
            let bytes = exchange?.run(client).await?;
            setting(String::from_utf8_lossy(&bytes).trim().to_owned()).map_err(fail::credential)
        };
        cell.get_or_try_init(ask).await.map(String::as_str)
    }
}

/// A credential, taken apart.
#[derive(Default)]
struct Who {
    headers: HeaderMap,
    source: Option<Source>,
    projects: Projects,
    express: bool,
}

impl Who {
    fn new(credentials: Credentials, programs: bool) -> Result<Self> {
        let mut who = Self::default();
        match credentials {
            Credentials::ApiKey(secret) => {
                who.headers.insert(KEY_HEADER, key(&secret)?);
                who.express = true;
            }
            Credentials::Static(token) => {
                who.headers.insert(header::AUTHORIZATION, bearer(token.expose_secret())?);
            }
            Credentials::File(path) => return Self::file(&path, programs),
            Credentials::Metadata => who.source = Some(Source::metadata(None)),
            Credentials::MetadataAt(host) => who.source = Some(Source::metadata(Some(&host))),
            Credentials::Adc => {
                if let Credentials::File(path) = Credentials::adc(|_| None) {
                    return Self::file(&path, programs);
                }
                who.source = Some(Source::metadata(None));
            }
        }
        Ok(who)
    }

    fn file(path: &Path, programs: bool) -> Result<Self> {
        let (source, projects) = Source::file(path, programs)?;
        Ok(Self { source: Some(source), projects, ..Self::default() })
    }
}

/// What a posted request has in its head. Headers are listed here and nowhere else: none comes from the client.
fn posts(own: &HeaderMap) -> [HeaderMap; 2] {
    [JSON, EVENT_STREAM].map(|accept| {
        let mut headers = own.clone();
        headers.insert(header::ACCEPT, accept);
        headers.insert(header::ACCEPT_ENCODING, IDENTITY);
        headers.insert(header::USER_AGENT, AGENT);
        headers.insert(header::CONTENT_TYPE, JSON);
        headers
    })
}

/// The host that serves a location.
fn vertex_host(location: &str) -> String {
    match location {
        "global" => "https://aiplatform.googleapis.com".to_owned(),
        "us" | "eu" => format!("https://aiplatform.{location}.rep.googleapis.com"),
        region => format!("https://{region}-aiplatform.googleapis.com"),
    }
}

/// `gemini-3.8-flash`, `models/…` or `tunedModels/…` as the Gemini API writes it.
fn gemini_model(model: &str, address: &mut String) -> Result<()> {
    let (kind, id) = match model.split_once('/') {
        None => ("models/", model),
        Some(("models", id)) => ("models/", id),
        Some(("tunedModels", id)) => ("tunedModels/", id),
        Some(_) => return Err(bad_model()),
    };
    address.push_str(kind);
    segment(id, address)
}

/// A bare id, `publisher/model`, `publishers/…/models/…` or the number of a tuned model's endpoint.
fn vertex_model(model: &str, address: &mut String) -> Result<()> {
    let pieces: Vec<&str> = model.split('/').collect();
    let (publisher, id) = match *pieces.as_slice() {
        [number] if !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()) => {
            address.push_str("endpoints/");
            address.push_str(number);
            return Ok(());
        }
        [id] | ["models", id] => ("google", id),
        [publisher, id] | ["publishers", publisher, "models", id] => (publisher, id),
        _ => return Err(bad_model()),
    };
    address.push_str("publishers/");
    segment(publisher, address)?;
    address.push_str("/models/");
    segment(id, address)
}

/// One segment of a path, unable to become two, or a query.
fn segment(text: &str, address: &mut String) -> Result<()> {
    if text.is_empty() || text.len() > 256 || text == "." || dotted(text) {
        return Err(bad_model());
    }
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~' | b'@');
    if text.bytes().all(plain) {
        address.push_str(text);
        return Ok(());
    }
    let bad = |byte: u8| byte.is_ascii_control() || matches!(byte, b'/' | b'?' | b'#' | b'&' | b'%' | b'\\');
    if text.bytes().any(bad) {
        return Err(bad_model());
    }
    address.extend(utf8_percent_encode(text, SEGMENT));
    Ok(())
}

fn bad_model() -> Error {
    Error::invalid("model", "This is not the name of a model.")
}

/// A project, location or version from the settings: a word that needs no encoding.
fn setting(text: String) -> Result<String> {
    let fine = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b':');
    if text.is_empty() || text.contains("..") || !text.bytes().all(fine) {
        return Err(fail::setting(format!("{text:?} cannot stand in a path.")));
    }
    Ok(text)
}

fn key(secret: &SecretString) -> Result<HeaderValue> {
    let mut value = plain(secret.expose_secret().trim())?;
    value.set_sensitive(true);
    Ok(value)
}

fn plain(text: &str) -> Result<HeaderValue> {
    if text.is_empty() {
        return Err(fail::setting("A key or a project is empty.".to_owned()));
    }
    // The cause is left out: it could quote the secret.
    HeaderValue::try_from(text).map_err(|_secret| {
        fail::setting("A key or a project holds characters that no header may hold.".to_owned())
    })
}
