//! A configuration that changes while requests go on.
//!
//! SIGHUP, or a change of any file the configuration was made of, has it read again. A right one is swapped in at
//! once: requests that have begun keep what they began with. A wrong one is refused and said so, and the old one
//! stays. What the process was started with (addresses, bounds of the server, the log) needs a restart.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::future::BoxFuture;
use http::HeaderMap;
use secrecy::ExposeSecret;

use crate::admin::Desk;
use crate::api::gateway::Gateway;
use crate::api::routes::Endpoint;
use crate::api::{Ctx, Engine, Incoming, Readiness, Reply};
use crate::config::{Config, Overrides, Seen};
use crate::error::{Error, Kind, Origin, Result};
use crate::keys::Tenant;
use crate::keys::stored::Shelf;
use crate::meter::Terms;
use crate::server::{Hangups, Tls};
use crate::store::Place;
use crate::telemetry::Metrics;
use crate::upstream::Report;

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(2);

/// The gateway in force.
#[derive(Debug)]
pub(super) struct Current(ArcSwap<Gateway>);

impl Current {
    pub(super) fn new(gateway: Gateway) -> Self {
        let gateway = Arc::new(gateway);
        gateway.state.serve_with(&gateway);
        Self(ArcSwap::new(gateway))
    }
}

impl Engine for Current {
    fn authenticate(&self, headers: &HeaderMap, query: Option<&str>) -> Result<Arc<Tenant>> {
        self.0.load().authenticate(headers, query)
    }

    fn serve(
        self: Arc<Self>,
        cx: Ctx,
        endpoint: Endpoint,
        incoming: Incoming,
    ) -> BoxFuture<'static, Result<Reply>> {
        self.0.load_full().serve(cx, endpoint, incoming)
    }

    fn uploader(&self, token: &str) -> Result<Arc<Tenant>> {
        self.0.load().uploader(token)
    }

    fn ready(&self) -> Readiness {
        self.0.load().ready()
    }

    fn sites(&self) -> Vec<Report> {
        self.0.load().sites()
    }

    fn observe(&self, metrics: &Metrics) {
        self.0.load().observe(metrics);
    }
}

/// The care that a gateway's credentials need for as long as it is in force.
pub(super) type Care = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Watches for changes, and makes them.
pub(super) struct Watch {
    pub(super) current: Arc<Current>,
    pub(super) care: Care,
    pub(super) hangups: Hangups,
    pub(super) flags: Overrides,
    pub(super) seen: Seen,
    /// What the process was started with.
    pub(super) began: Config,
    pub(super) tls: Option<Arc<Tls>>,
    pub(super) metrics: Arc<Metrics>,
    /// What else follows the configuration: prices, what operators see, keys of the store.
    pub(super) terms: Arc<ArcSwap<Terms>>,
    pub(super) desk: Arc<ArcSwap<Desk>>,
    pub(super) shelf: Option<Arc<Shelf>>,
}

impl Watch {
    /// Never ends.
    pub(super) async fn run(mut self) {
        loop {
            tokio::select! {
                // Without credentials to care for it is over at once, and must not be asked again.
                () = &mut self.care => self.care = Box::pin(std::future::pending()),
                () = self.hangups.next() => self.reload(),
                () = tokio::time::sleep(LOOK) => {
                    if self.seen.changed() {
                        self.reload();
                    }
                }
            }
        }
    }

    fn reload(&mut self) {
        let (config, seen) = Config::from_process_seen(&self.flags);
        self.seen = seen;
        let config = config
            .map_err(|error| Error::new(Kind::Invalid, Origin::Gateway, error.to_string()).because(error));
        match config.and_then(|config| self.take(&config)) {
            Ok(()) => {
                self.metrics.reloaded(&self.seen.hash());
                tracing::info!("the configuration was read again and is in force");
            }
            Err(error) => {
                self.metrics.reload_refused();
                tracing::error!(error = error.message(), "the new configuration is wrong: the old one stays");
            }
        }
    }

    /// Puts a configuration in force, or changes nothing.
    fn take(&mut self, config: &Config) -> Result<()> {
        // The care that it comes with is for credentials which it may not keep.
        let (mut gateway, _) = super::gateway(config)?;
        if let (Some(tls), Some(new)) = (&self.tls, &config.tls) {
            tls.replace(&new.pem)?;
        }
        for what in fixed(&self.began, config) {
            tracing::warn!(what, "this was changed and needs a restart to be in force");
        }
        for warning in config.warnings() {
            tracing::warn!("{warning}");
        }
        gateway.inherit(&self.current.0.load());
        let gateway = Arc::new(gateway);
        gateway.state.serve_with(&gateway);
        self.terms.store(Arc::new(super::terms(config, &gateway)));
        self.desk.store(Arc::new(super::desk(config)));
        if let Some(shelf) = &self.shelf {
            shelf.unless_said(config.credentials.into());
        }
        self.care = Box::pin(gateway.upstream.background());
        self.current.0.store(gateway);
        Ok(())
    }
}

/// What differs between two configurations and is read at the start only.
fn fixed(old: &Config, new: &Config) -> impl Iterator<Item = &'static str> {
    let changed = [
        ("listen", old.listen != new.listen),
        ("admin_listen", old.admin_listen != new.admin_listen),
        ("server", old.server != new.server),
        ("log", old.log != new.log),
        ("store", old.store.as_ref().map(place) != new.store.as_ref().map(place)),
        ("tls", old.tls.is_some() != new.tls.is_some()),
        ("admin_key", old.admin_key.is_some() != new.admin_key.is_some()),
        ("traces", old.traces.as_ref().map(collector) != new.traces.as_ref().map(collector)),
        ("ledger", ledger(old) != ledger(new)),
        ("limits", shared(old) != shared(new)),
    ];
    changed.into_iter().filter_map(|(what, changed)| changed.then_some(what))
}

/// Where spans go, for comparing.
fn collector(traces: &crate::config::Traces) -> (&http::Uri, &str) {
    (&traces.endpoint, &traces.service)
}

/// Where the ledger is, for comparing.
fn ledger(config: &Config) -> Option<(String, crate::config::Durability)> {
    let ledger = config.ledger.as_ref()?;
    let place = match &ledger.place {
        Place::Sqlite(path) => path.display().to_string(),
        Place::Postgres(url) => url.expose_secret().to_owned(),
    };
    Some((place, ledger.durability))
}

/// How limits are shared, for comparing; the rules themselves are taken over.
fn shared(config: &Config) -> impl PartialEq {
    let limits = &config.limits;
    let redis = limits.redis.as_ref().map(|url| url.expose_secret().to_owned());
    (redis, limits.ca_file.clone(), limits.on_store_failure, limits.replicas, limits.store_timeout)
}

/// Where state is kept, for comparing.
fn place(store: &crate::config::Store) -> (&str, Duration, u64) {
    (store.url.expose_secret(), store.max_age, store.max_bytes)
}
