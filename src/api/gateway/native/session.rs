//! Uploads: their start, and the pieces that follow at an address that Google makes up.
//!
//! That address is a credential at Google, and Google's clients send no key along with it. So the client is given
//! an address of ours that holds the caller's name, the site and Google's address under a seal; whoever comes
//! back with it is who began the upload. Every process of one installation can open it, for the seal is made of
//! the site's own key.

use std::sync::{Arc, LazyLock};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::{HOST, HeaderName, HeaderValue, LOCATION};
use http::{HeaderMap, Response, Uri};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::journey::{Again, Way};
use super::send::{Billing, Sending};
use super::{Walk, payload, sift};
use crate::api::gateway::Gateway;
use crate::api::gateway::admit::Size;
use crate::body::Body;
use crate::error::{Error, Kind, Origin, Result};
use crate::keys::Tenant;
use crate::telemetry::metrics::UNRESOLVED;
use crate::upstream::{RawPath, Site};

/// Where Google tells the address of an upload.
const ADDRESSES: [HeaderName; 3] = [
    HeaderName::from_static("x-goog-upload-url"),
    HeaderName::from_static("x-goog-upload-control-url"),
    LOCATION,
];

/// Seals what a site without a key of its own hands out; another process cannot open it.
static OWN: LazyLock<Option<[u8; 32]>> = LazyLock::new(|| {
    let mut own = [0; 32];
    getrandom::fill(&mut own).ok().map(|()| own)
});

/// What a sealed address holds.
struct Session {
    tenant: String,
    /// Google's path and query.
    address: String,
}

impl Gateway {
    /// The start of an upload.
    pub(in crate::api::gateway) async fn upload(&self, walk: Walk<'_>, path: &str) -> Result<Response<Body>> {
        let Walk { cx, native, incoming, credential, query } = walk;
        let site = self.speaker(native, None)?;
        self.admit(cx, "", Size::FREE).await?;
        let (cut, origin) = (incoming.cut.clone(), origin(&cx.headers, &incoming.uri));
        let (method, replay) = (
            incoming.method.clone(),
            sift::length(&cx.headers).is_some_and(|length| length <= super::REPLAYABLE),
        );
        let (payload, rise) = payload(cx, incoming, replay && site.renews()).await?;
        let sending = Sending {
            way: Way::To(site, RawPath::Root(path), Again::of(cx, &method)?),
            method,
            query: query.as_deref(),
            payload,
            credential,
            billing: Billing::FREE,
            rise,
            label: UNRESOLVED,
            paid: None,
        };
        let mut response = self.send(cx, sending, cut).await?;
        for name in ADDRESSES {
            let Some(given) = response.headers().get(&name).and_then(|value| value.to_str().ok()) else {
                continue;
            };
            let sealed = seal(site, cx.tenant.name(), given)?;
            let ours = HeaderValue::try_from(format!("{origin}/upload/session/{sealed}"))
                .map_err(Error::internal)?;
            response.headers_mut().insert(name, ours);
        }
        Ok(response)
    }

    /// A piece of an upload.
    pub(in crate::api::gateway) async fn continue_upload(
        &self,
        walk: Walk<'_>,
        token: &str,
    ) -> Result<Response<Body>> {
        let Walk { cx, incoming, credential, .. } = walk;
        let (session, site) = self.open(token).ok_or_else(stale)?;
        if session.tenant != **cx.tenant.name() {
            return Err(stale());
        }
        self.admit(cx, "", Size::FREE).await?;
        let (cut, method) = (incoming.cut.clone(), incoming.method.clone());
        let (payload, rise) = payload(cx, incoming, false).await?;
        let sending = Sending {
            way: Way::To(site, RawPath::Host(&session.address), Again::of(cx, &method)?),
            method,
            query: None,
            payload,
            credential,
            billing: Billing::FREE,
            rise,
            label: UNRESOLVED,
            paid: None,
        };
        let mut response = self.send(cx, sending, cut).await?;
        for name in ADDRESSES {
            response.headers_mut().remove(name);
        }
        Ok(response)
    }

    /// Who began the upload that this token continues.
    ///
    /// # Errors
    /// 404 where the token is not one of ours, or its key is gone.
    pub(in crate::api::gateway) fn begun_by(&self, token: &str) -> Result<Arc<Tenant>> {
        let (session, _) = self.open(token).ok_or_else(stale)?;
        self.keys.named(&session.tenant).ok_or_else(stale)
    }

    fn open(&self, token: &str) -> Option<(Session, &Site)> {
        let (payload, seal) = token.split_once('.')?;
        let text = String::from_utf8(URL_SAFE_NO_PAD.decode(payload).ok()?).ok()?;
        let mut lines = text.splitn(3, '\n');
        let (tenant, site, address) = (lines.next()?, lines.next()?, lines.next()?);
        let found = self.upstream.sites().find(|known| known.name() == site)?;
        let given = URL_SAFE_NO_PAD.decode(seal).ok()?;
        let key = found.seal().or(*OWN)?;
        if !bool::from(mac(&key, &text).ct_eq(&given)) {
            return None;
        }
        let session = Session { tenant: tenant.into(), address: address.into() };
        Some((session, found))
    }
}

/// The token for one of Google's addresses.
fn seal(site: &Site, tenant: &str, given: &str) -> Result<String> {
    let uri = Uri::try_from(given).map_err(Error::internal)?;
    let query = sift::query(uri.query()).map_or_else(String::new, |query| format!("?{query}"));
    let text = format!("{tenant}\n{}\n{}{query}", site.name(), uri.path());
    let key = site.seal().or(*OWN).ok_or_else(|| Error::internal("no randomness"))?;
    let seal = mac(&key, &text);
    Ok(format!("{}.{}", URL_SAFE_NO_PAD.encode(&text), URL_SAFE_NO_PAD.encode(seal)))
}

/// HMAC-SHA256 with a key of half a block.
fn mac(key: &[u8; 32], text: &str) -> [u8; 32] {
    let pad = |byte: u8| {
        let mut block = [byte; 64];
        for (padded, key) in block.iter_mut().zip(key) {
            *padded ^= key;
        }
        block
    };
    let inner = Sha256::new().chain_update(pad(0x36)).chain_update(text).finalize();
    Sha256::new().chain_update(pad(0x5c)).chain_update(inner).finalize().into()
}

/// Where the client found us, so that it finds us again.
fn origin(headers: &HeaderMap, uri: &Uri) -> String {
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let forwarded = text(HeaderName::from_static("x-forwarded-proto"));
    let scheme = match forwarded.map(str::trim).or(uri.scheme_str()) {
        Some("https") => "https",
        _ => "http",
    };
    let host = text(HeaderName::from_static("x-forwarded-host")).or(text(HOST));
    let host = host.or(uri.authority().map(http::uri::Authority::as_str)).unwrap_or("localhost");
    format!("{scheme}://{}", host.split(',').next().unwrap_or(host).trim())
}

fn stale() -> Error {
    Error::new(Kind::NotFound, Origin::Client, "This upload is not known here, or no longer.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seal_is_hmac_sha256() {
        let mut key = [0; 32];
        key.iter_mut().zip(b"Jefe").for_each(|(byte, given)| *byte = *given);
        // RFC 4231, second case.
        let known = "W9zBRr9gdU5qBCQmCJV1x1oAPwidJzmDnexYuWTsOEM";
        assert_eq!(URL_SAFE_NO_PAD.encode(mac(&key, "what do ya want for nothing?")), known);
    }

    #[test]
    fn the_client_is_sent_back_to_where_it_came_from() {
        let mut headers = HeaderMap::new();
        let uri = Uri::from_static("/upload/v1beta/files");
        headers.insert(HOST, HeaderValue::from_static("gateway:8080"));
        assert_eq!(origin(&headers, &uri), "http://gateway:8080");
        headers.insert("x-forwarded-proto", HeaderValue::from_static("https"));
        assert_eq!(origin(&headers, &uri), "https://gateway:8080");
    }
}
