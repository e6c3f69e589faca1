//! The one client, and how it connects.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::{Client as Pool, connect::HttpConnector};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tower::Service;

use super::fail::{ConnectTimeout, setting};
use crate::body::{Body, BoxError};
use crate::error::Result;

/// The pooled client that all sites and token exchanges share.
pub(super) type Client = Pool<Connector, Body>;

const IDLE: Duration = Duration::from_secs(90);
const PING_EVERY: Duration = Duration::from_secs(20);
const PING_WITHIN: Duration = Duration::from_secs(10);
/// A stream may run this far ahead of its reader.
const STREAM_WINDOW: u32 = 1 << 20;
/// Room for many stalled readers before they starve the others on the same connection.
const CONNECTION_WINDOW: u32 = 16 << 20;

/// Builds the client. Certificates are checked against the machine's roots, or Mozilla's where it has none.
pub(super) fn client(connect: Duration) -> Result<Client> {
    let provider = || std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_keepalive(Some(Duration::from_secs(30)));
    tcp.set_connect_timeout(Some(connect));
    let tls = match HttpsConnectorBuilder::new().with_provider_and_native_roots(provider()) {
        Ok(tls) => tls,
        Err(error) => {
            tracing::debug!(%error, "no root certificates on this machine; using the built-in ones");
            HttpsConnectorBuilder::new()
                .with_provider_and_webpki_roots(provider())
                .map_err(|error| setting("TLS cannot be set up.".to_owned()).because(error))?
        }
    };
    let https = tls.https_or_http().enable_http1().enable_http2().wrap_connector(tcp);
    Ok(Pool::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE)
        .http2_initial_stream_window_size(STREAM_WINDOW)
        .http2_initial_connection_window_size(CONNECTION_WINDOW)
        .http2_keep_alive_interval(PING_EVERY)
        .http2_keep_alive_timeout(PING_WITHIN)
        .build(Connector { https, limit: connect }))
}

/// TCP and TLS under one deadline: hyper's own covers TCP only.
#[derive(Clone, Debug)]
pub(super) struct Connector {
    https: HttpsConnector<HttpConnector>,
    limit: Duration,
}

impl Service<Uri> for Connector {
    type Response = <HttpsConnector<HttpConnector> as Service<Uri>>::Response;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.https.poll_ready(cx)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let limit = self.limit;
        let connecting = self.https.call(uri);
        Box::pin(async move {
            match tokio::time::timeout(limit, connecting).await {
                Ok(connected) => connected,
                Err(_) => Err(ConnectTimeout.into()),
            }
        })
    }
}
