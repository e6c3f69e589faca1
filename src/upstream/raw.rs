//! Requests passed on as they are: a method, a path, some headers and a body that is never looked at.
//!
//! Nothing is parsed here and nothing is buffered: the answer's body arrives at the reader as Google sends it,
//! under the same deadlines as any other call. Dropping it cancels the call.

use std::borrow::Cow;
use std::pin::pin;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use http_body_util::BodyExt as _;
use tokio::time::timeout_at;

use super::events::Watched;
use super::site::Site;
use super::trip::Leg;
use super::{AGENT, IDENTITY, Upstream, fail};
use crate::body::{self, Body};
use crate::error::{Error, Result};

/// What the caller's request says of itself.
#[derive(Debug)]
pub struct Raw<'a> {
    /// The method.
    pub method: &'a Method,
    /// Which way the address is built.
    pub path: RawPath<'a>,
    /// What follows the `?`, without any credential in it.
    pub query: Option<&'a str>,
    /// Headers, already chosen.
    pub headers: HeaderMap,
    /// The body.
    pub payload: Payload,
    /// Whose credential goes along.
    pub credential: &'a Credential,
    /// `traceparent`, where the request is traced.
    pub trace: Option<HeaderValue>,
}

impl Raw<'_> {
    fn is_whole(&self) -> bool {
        matches!(self.payload, Payload::Whole(_))
    }

    /// The body, in hand or still coming; that is there once.
    fn body(&mut self) -> Body {
        match &mut self.payload {
            Payload::Whole(bytes) => body::full(bytes.clone()),
            Payload::Stream(body) => std::mem::replace(body, body::empty()),
        }
    }
}

/// Where a request goes at a site.
#[derive(Clone, Copy, Debug)]
pub enum RawPath<'a> {
    /// Below the version, with the place of a Vertex site in front where there is one
    /// (`publishers/google/models/m:generateContent`, `cachedContents`).
    Placed {
        /// `v1`, `v1beta` …; none is the site's own.
        version: Option<&'a str>,
        /// The project and the location to name instead of the site's own.
        place: (Option<&'a str>, Option<&'a str>),
        /// The rest.
        rest: &'a str,
    },
    /// Below the version, without a place (`models/m:generateContent`, `publishers/google/models`).
    Bare {
        /// `v1`, `v1beta` …; none is the site's own.
        version: Option<&'a str>,
        /// The rest.
        rest: &'a str,
    },
    /// From the root, behind the site's base address (`upload/v1beta/files`).
    Root(&'a str),
    /// From the root of the site's host: an address that Google itself handed out.
    Host(&'a str),
}

/// A body on its way up.
#[derive(Debug)]
pub enum Payload {
    /// In hand: can be sent again.
    Whole(Bytes),
    /// Still coming: can be sent once.
    Stream(Body),
}

/// Whose credential a request travels with.
#[derive(Clone, Debug)]
pub enum Credential {
    /// The site's.
    Site,
    /// These headers, the caller's own.
    Caller(HeaderMap),
    /// None: the address is the credential.
    None,
}

impl Upstream {
    /// The sites of the route that names this model, in the order written; all of them where no route does, and where no
    /// model is given.
    pub fn on_route(&self, model: Option<&str>) -> impl Iterator<Item = &Site> + Clone {
        let route = model.and_then(|model| self.routes.written(model));
        let count = route.map_or(self.sites.len(), |route| route.sites.len());
        let place = move |at| route.map_or(Some(at), |route| route.sites.get(at).copied());
        (0..count).filter_map(move |at| self.sites.get(place(at)?))
    }

    /// Sends a request on, as one leg of a trip where there is one, and returns with the status line in hand. Every status
    /// is an answer. Takes headers, and a body that is still coming, out of `raw`.
    ///
    /// # Errors
    /// When there is no address for it, no credential, or no status line; tell [`super::Trip::failed`].
    pub async fn raw(&self, site: &Site, leg: Option<&Leg<'_>>, raw: &mut Raw<'_>) -> Result<Response<Body>> {
        let patience = leg.map_or_else(|| self.patience(), Leg::patience);
        let (idle, deadline, flying) = (patience.times.idle, patience.deadline, patience.flying);
        // An upload's status line comes when all of it has been taken, however long that is.
        let head = if raw.is_whole() { patience.times.first_event } else { patience.times.total };
        // What goes up as it came is sent when there is a leg.
        let (until, late) = patience.until(patience.begun, head, fail::silent);
        let late = |_elapsed| late();
        raw.headers.insert(header::ACCEPT_ENCODING, IDENTITY);
        raw.headers.insert(header::USER_AGENT, AGENT);
        if let Some(trace) = raw.trace.take() {
            raw.headers.insert("traceparent", trace);
        }
        let uri = self.address(site, raw.path, raw.query).await?;
        // Only a token can turn out to be old, and only what is in hand can be sent again.
        let mut again = site.renews() && raw.is_whole();
        loop {
            let mut request = Request::new(raw.body());
            request.method_mut().clone_from(raw.method);
            request.uri_mut().clone_from(&uri);
            *request.headers_mut() =
                if again { raw.headers.clone() } else { std::mem::take(&mut raw.headers) };
            let token = match raw.credential {
                Credential::Site => {
                    for (name, value) in site.headers() {
                        request.headers_mut().insert(name.clone(), value.clone());
                    }
                    match site.tokens() {
                        Some(_) => timeout_at(until, site.token(&self.client)).await.map_err(late)??,
                        None => None,
                    }
                }
                Credential::Caller(theirs) => {
                    for (name, value) in theirs {
                        request.headers_mut().insert(name.clone(), value.clone());
                    }
                    None
                }
                Credential::None => None,
            };
            if let Some(token) = &token {
                request.headers_mut().insert(header::AUTHORIZATION, token.header.clone());
            }
            let answered = if let Some(local) = site.local() {
                timeout_at(until, local.pass(request)).await.map_err(late)?
            } else {
                // Pinned where it is made: it is large, and each wrapper that took it in would move it.
                let answered = pin!(site.client().request(request, flying));
                timeout_at(until, answered).await.map_err(late)?.map_err(fail::unanswered)?
            };
            if answered.status() == StatusCode::UNAUTHORIZED
                && let (Some(tokens), Some(token)) = (site.tokens(), &token)
            {
                tokens.invalidate(token);
                if std::mem::take(&mut again) {
                    continue;
                }
            }
            return Ok(answered.map(|body| {
                Watched::new(body, idle, deadline).map_err(|error: Error| error.into()).boxed_unsync()
            }));
        }
    }

    pub(super) async fn address(&self, site: &Site, path: RawPath<'_>, query: Option<&str>) -> Result<Uri> {
        let named = match path {
            RawPath::Placed { place: (Some(project), _), .. } => {
                site.location().map(|location| (project, location))
            }
            // In a box: finding a project out is rare, and its future is large.
            RawPath::Placed { .. } => Box::pin(site.named(&self.client)).await?,
            RawPath::Bare { .. } | RawPath::Root(_) | RawPath::Host(_) => None,
        };
        let (base, own) = site.base();
        let mut base = Cow::Borrowed(base);
        let mut address = match path {
            RawPath::Placed { version, place: (_, theirs), rest } => {
                let version = version.unwrap_or(own);
                match named {
                    Some((project, location)) => {
                        let location = theirs.unwrap_or(location);
                        base = site.base_at(location)?;
                        let below = base.path();
                        format!("{below}/{version}/projects/{project}/locations/{location}/{rest}")
                    }
                    None => [base.path(), "/", version, "/", rest].concat(),
                }
            }
            RawPath::Bare { version, rest } => [base.path(), "/", version.unwrap_or(own), "/", rest].concat(),
            RawPath::Root(rest) => [base.path(), "/", rest].concat(),
            RawPath::Host(rest) => rest.to_owned(),
        };
        if let Some(query) = query.filter(|query| !query.is_empty()) {
            address.push(if address.contains('?') { '&' } else { '?' });
            address.push_str(query);
        }
        base.at(address)
    }
}
