//! Fetches media that a model does not read by their address: only where the operator says so, only from the
//! hosts it names, and never from inside its own network.
//!
//! A name is resolved once, the addresses are checked, and the connection goes to a checked address: what a
//! name means cannot change between the look and the step. Each redirect is a new address and is checked the
//! same way. Sizes, count and time have limits of the request as a whole.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::future::try_join_all;
use http::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, HOST, LOCATION, USER_AGENT};
use http::{Request, Response, Uri};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper_rustls::ConfigBuilderExt as _;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::error::{Error, Result};
use crate::translate::{Media, Wanted};

const MOST_REDIRECTS: usize = 3;

/// What may be fetched, and how much of it.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Hosts by name, `*.example.com` for all below one, `*` for all public ones.
    pub allow: Vec<String>,
    /// Bytes of all media of one request together.
    pub max_bytes: usize,
    /// Time for all media of one request together.
    pub timeout: Duration,
    /// Addresses in one request.
    pub max_count: usize,
    /// Also this machine itself, any port, and without TLS: for tests; no configuration sets it.
    pub loopback: bool,
}

/// Fetches.
pub struct Fetcher {
    settings: Settings,
    tls: TlsConnector,
}

impl fmt::Debug for Fetcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fetcher").field("settings", &self.settings).finish_non_exhaustive()
    }
}

fn refuse(what: impl Into<String>) -> Error {
    Error::invalid("", what.into()).code("invalid_image_url")
}

impl Fetcher {
    /// A fetcher with the machine's root certificates, or Mozilla's where it has none.
    ///
    /// # Errors
    /// When TLS cannot be set up.
    pub fn new(settings: Settings) -> Result<Self> {
        let builder = || {
            rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
                .with_safe_default_protocol_versions()
                .map_err(Error::internal)
        };
        let config = match builder()?.with_native_roots() {
            Ok(config) => config,
            Err(error) => {
                tracing::debug!(%error, "no root certificates on this machine; using the built-in ones");
                builder()?.with_webpki_roots()
            }
        };
        Ok(Self { settings, tls: TlsConnector::from(Arc::new(config.with_no_client_auth())) })
    }

    /// Fetches all media that one request waits for; by address.
    ///
    /// # Errors
    /// `Invalid` with the path of the part whose address is not allowed, does not answer, or holds something
    /// that is no media.
    pub async fn all(&self, wanted: Vec<Wanted>) -> Result<BTreeMap<String, Media>> {
        if let Some(over) = wanted.get(self.settings.max_count) {
            let message =
                format!("At most {} addresses are fetched for one request.", self.settings.max_count);
            return Err(refuse(message).at(over.place.clone()));
        }
        let left = AtomicUsize::new(self.settings.max_bytes);
        let one = |wanted: Wanted| {
            let left = &left;
            async move {
                let media =
                    self.one(&wanted.url, left).await.map_err(|error| error.at(wanted.place.clone()))?;
                Ok::<_, Error>((wanted.url, media))
            }
        };
        let place = wanted.first().map(|wanted| wanted.place.clone()).unwrap_or_default();
        match tokio::time::timeout(self.settings.timeout, try_join_all(wanted.into_iter().map(one))).await {
            Ok(fetched) => Ok(fetched?.into_iter().collect()),
            Err(_) => Err(refuse("What the URL names could not be fetched in time.").at(place)),
        }
    }

    async fn one(&self, url: &str, left: &AtomicUsize) -> Result<Media> {
        let mut uri: Uri = url.parse().map_err(not_a_url)?;
        for _ in 0..=MOST_REDIRECTS {
            let response = self.get(&uri).await?;
            let status = response.status();
            if status.is_redirection() {
                let next = response.headers().get(LOCATION).and_then(|next| next.to_str().ok());
                uri = resolve(&uri, next.ok_or_else(|| refuse("The URL leads nowhere."))?)?;
                continue;
            }
            if !status.is_success() {
                return Err(refuse(format!("The URL answers with status {}.", status.as_u16())));
            }
            return body(response, left).await;
        }
        Err(refuse("The URL leads from one place to the next without end."))
    }

    async fn get(&self, uri: &Uri) -> Result<Response<Incoming>> {
        let secure = match uri.scheme_str() {
            Some("https") => true,
            Some("http") if self.settings.loopback => false,
            _ => return Err(refuse("Only https:// is fetched.")),
        };
        let authority = uri.authority().ok_or_else(|| refuse("The URL has no host."))?;
        let usual = if secure { 443 } else { 80 };
        let port = uri.port_u16().unwrap_or(usual);
        if authority.as_str().contains('@') || (port != usual && !self.settings.loopback) {
            return Err(refuse("A URL with a user or a port is not fetched."));
        }
        let host = authority.host().trim_end_matches('.').to_ascii_lowercase();
        if !self.settings.allow.iter().any(|pattern| allows(pattern, &host)) {
            return Err(refuse("The URL's host is not among those that are fetched from."));
        }
        let tcp = self.connect(&host, port).await?;
        let target = uri.path_and_query().map_or("/", |path| path.as_str());
        let request = Request::get(target)
            .header(HOST, authority.as_str())
            .header(USER_AGENT, concat!("gemway/", env!("CARGO_PKG_VERSION")))
            .header(ACCEPT, "image/*, video/*, audio/*, application/pdf")
            .header(ACCEPT_ENCODING, "identity")
            .body(Empty::new())
            .map_err(not_a_url)?;
        if !secure {
            return exchange(tcp, request).await;
        }
        let name = ServerName::try_from(host).map_err(not_a_url)?;
        let tls = self.tls.connect(name, tcp).await.map_err(unreachable)?;
        exchange(tls, request).await
    }

    /// Connects to the first address of a host that may be connected to.
    async fn connect(&self, host: &str, port: u16) -> Result<TcpStream> {
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let addresses: Vec<SocketAddr> =
            tokio::net::lookup_host((bare, port)).await.map_err(unreachable)?.take(16).collect();
        let allowed: Vec<SocketAddr> = addresses
            .into_iter()
            .filter(|address| public(address.ip()) || (self.settings.loopback && address.ip().is_loopback()))
            .collect();
        if allowed.is_empty() {
            return Err(refuse("The URL's host is private or cannot be resolved from outside."));
        }
        let mut failed = None;
        for address in allowed {
            match TcpStream::connect(address).await {
                Ok(tcp) => return Ok(tcp),
                Err(error) => failed = Some(error),
            }
        }
        Err(failed.map_or_else(|| refuse("The URL's host cannot be reached."), unreachable))
    }
}

fn not_a_url(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    refuse("This is not a URL.").because(error)
}

fn unreachable(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    refuse("The URL's host cannot be reached.").because(error)
}

async fn exchange<S>(stream: S, request: Request<Empty<Bytes>>) -> Result<Response<Incoming>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
        .max_buf_size(64 * 1024)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(unreachable)?;
    // It ends with the response: nobody keeps the sender.
    tokio::spawn(connection);
    sender.send_request(request).await.map_err(unreachable)
}

async fn body(response: Response<Incoming>, left: &AtomicUsize) -> Result<Media> {
    let large = || refuse("What the URL names is too large.");
    let encoding = response.headers().get(CONTENT_ENCODING);
    if encoding.is_some_and(|encoding| !encoding.as_bytes().eq_ignore_ascii_case(b"identity")) {
        return Err(refuse("The URL answers in an encoding that was not asked for."));
    }
    let length = response.headers().get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    if length.is_some_and(|length: usize| length > left.load(Ordering::Relaxed)) {
        return Err(large());
    }
    let mut body = response.into_body();
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(unreachable)?.into_data() else { continue };
        let fits =
            left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(data.len()));
        if fits.is_err() {
            return Err(large());
        }
        bytes.extend_from_slice(&data);
    }
    let mime = sniff(&bytes).ok_or_else(|| {
        Error::invalid("", "What the URL names is no image, sound, video or PDF.")
            .code("invalid_image_format")
    })?;
    Ok(Media { mime, data: STANDARD.encode(bytes) })
}

/// Where a redirect leads: a whole URL, or a path on the same host.
fn resolve(from: &Uri, to: &str) -> Result<Uri> {
    if to.starts_with("//") {
        return format!("{}:{to}", from.scheme_str().unwrap_or("https")).parse().map_err(not_a_url);
    }
    if !to.starts_with('/') {
        let uri: Uri = to.parse().map_err(not_a_url)?;
        return if uri.scheme().is_some() { Ok(uri) } else { Err(refuse("The URL leads nowhere.")) };
    }
    let mut parts = from.clone().into_parts();
    parts.path_and_query = Some(to.parse().map_err(not_a_url)?);
    Uri::from_parts(parts).map_err(not_a_url)
}

/// Whether a pattern of the operator's names a host.
fn allows(pattern: &str, host: &str) -> bool {
    match pattern.strip_prefix('*') {
        Some("") => true,
        Some(below) => below.starts_with('.') && host.len() > below.len() && ends_with(host, below),
        None => host.eq_ignore_ascii_case(pattern),
    }
}

fn ends_with(host: &str, end: &str) -> bool {
    let at = host.len().saturating_sub(end.len());
    host.get(at..).is_some_and(|tail| tail.eq_ignore_ascii_case(end))
}

/// Whether an address is one of the public internet's.
fn public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => public_v4(address),
        IpAddr::V6(address) => public_v6(address),
    }
}

fn public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    !(address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_multicast()
        || address.is_documentation()
        || a == 0
        || a >= 240
        || (a == 100 && (64..128).contains(&b))
        || (a == 192 && b == 0 && c == 0)
        || (a == 192 && b == 88 && c == 99)
        || (a == 198 && (b == 18 || b == 19)))
}

/// Global unicast, without the ranges that carry an IPv4 address inside (6to4, Teredo) or are for documents.
/// Mapped, translated, unique local and link-local addresses lie outside of it.
fn public_v6(address: Ipv6Addr) -> bool {
    let [first, second, ..] = address.segments();
    let global = (0x2000..0x4000).contains(&first);
    let inner = first == 0x2002 || (first == 0x2001 && (second < 0x0200 || second == 0x0db8));
    global && !inner && first != 0x3fff
}

/// The media type, by the first bytes: what a server says of itself is not asked.
fn sniff(bytes: &[u8]) -> Option<&'static str> {
    const MARKS: [(&[u8], &str); 10] = [
        (b"\x89PNG\r\n\x1a\n", "image/png"),
        (b"\xff\xd8\xff", "image/jpeg"),
        (b"GIF8", "image/gif"),
        (b"%PDF-", "application/pdf"),
        (b"ID3", "audio/mp3"),
        (b"\xff\xfb", "audio/mp3"),
        (b"\xff\xf3", "audio/mp3"),
        (b"OggS", "audio/ogg"),
        (b"fLaC", "audio/flac"),
        (b"\x1a\x45\xdf\xa3", "video/webm"),
    ];
    if let Some((_, mime)) = MARKS.iter().find(|(mark, _)| bytes.starts_with(mark)) {
        return Some(mime);
    }
    let word = bytes.get(8..12)?;
    if bytes.starts_with(b"RIFF") {
        return match word {
            b"WEBP" => Some("image/webp"),
            b"WAVE" => Some("audio/wav"),
            _ => None,
        };
    }
    if bytes.get(4..8) != Some(b"ftyp") {
        return None;
    }
    Some(match word {
        b"heic" | b"heix" | b"hevc" => "image/heic",
        b"mif1" | b"msf1" | b"heim" => "image/heif",
        b"M4A " => "audio/m4a",
        b"qt  " => "video/quicktime",
        b"avif" | b"avis" => return None,
        _ => "video/mp4",
    })
}

#[cfg(test)]
mod tests;
