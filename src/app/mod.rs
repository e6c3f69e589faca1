//! The only file that knows everybody: configuration in, running gateway out.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::{Request, Response};

use crate::admin::{Admin, Desk};
use crate::api::gateway::{Batches, Gateway, Learned, Listing, State, Unpaid};
use crate::api::{Engine, Intake, Operator};
use crate::body::Body;
use crate::catalog::Pattern;
use crate::clock::Clock;
use crate::config::{self, Config, GoogleCredentials, LogFormat, Overrides, Seen};
use crate::error::{Error, Kind, Origin, Result};
use crate::fetch::{self, Fetcher};
use crate::ids::Ids;
use crate::keys::stored::{self, Shelf};
use crate::keys::{Keys, Stored};
use crate::limits::{Limiter, Period, Spent};
use crate::memory::Memory;
use crate::meter::ledger::{self, Dimension, Durability, Ledger, Query};
use crate::meter::{Books, Terms};
use crate::server::{self, Shutdown};
use crate::simulator::{self, Simulator};
use crate::store::{self, Place, Store};
use crate::telemetry::log::{self, Format};
use crate::telemetry::otlp::Carrier;
use crate::telemetry::{Accounts, Metrics};
use crate::upstream::{self, Local, Upstream};

mod reload;
pub mod simulate;

use reload::{Current, Watch};

/// Installs the log, as configured.
pub fn log(config: &Config) {
    let format = match config.log.format {
        LogFormat::Auto => Format::Auto,
        LogFormat::Json => Format::Json,
        LogFormat::Pretty => Format::Pretty,
    };
    log::init(format, &config.log.level);
}

/// Serves until told to end.
///
/// # Errors
/// When the configuration asks for what cannot be had: an address in use, a catalogue that cannot be read.
pub async fn serve(config: Config, flags: Overrides, seen: Seen) -> Result<()> {
    let (mut gateway, care) = gateway(&config)?;
    gateway.state = Arc::new(State::new(config.store.as_ref().map(store).transpose()?));
    let state = Arc::clone(&gateway.state);
    state.recover().await;
    let tls = config.tls.as_ref().map(|tls| server::Tls::new(&tls.pem)).transpose()?.map(Arc::new);
    // Before anybody can see that we run: until then SIGHUP ends the process.
    let hangups = server::Hangups::listen()?;
    let metrics = Arc::new(Metrics::new());
    metrics.configured(&seen.hash());
    let ledger = open_ledger(&config, &metrics)?;
    let (spans, mut carrier) = match &config.traces {
        None => (None, None),
        Some(traces) => {
            let post = gateway.upstream.letters(traces.endpoint.clone(), traces.headers.clone());
            let (spans, carrier) = metrics.spans(&traces.service, post);
            (Some(spans), Some(carrier))
        }
    };
    let terms = Arc::new(ArcSwap::from_pointee(terms(&config, &gateway)));
    let desk = Arc::new(ArcSwap::from_pointee(desk(&config)));
    let books = Books::with(Arc::clone(&metrics), Arc::clone(&terms), ledger.clone());
    gateway.limiter = limiter(&config, &metrics).await?;
    let limiter = gateway.limiter.clone();
    let shelf = shelf(&config, &gateway).await?;
    let stored_keys = gateway.keys.stored();
    let books = books.tracing(spans).logging(config.log.share);
    let server = server::bind(server::Config {
        listen: config.listen.to_string(),
        admin_listen: config.admin_listen.to_string(),
        tls: tls.clone(),
        trace_share: config.traces.as_ref().map(|traces| traces.share),
        intake: Intake {
            limit: config.server.max_body_bytes,
            idle: config.server.body_timeout,
            ..Intake::default()
        },
        patience: server::Patience { head: config.server.header_timeout, ..server::Patience::default() },
        heartbeat: Some(config.server.heartbeat).filter(|every| !every.is_zero()),
        min_drain: config.server.min_drain,
        drain_timeout: config.server.drain_timeout,
        ..server::Config::default()
    })
    .await?
    .booked(Arc::new(books));
    say(&config);
    tracing::info!(listen = %config.listen, admin = %config.admin_listen, "serving");
    let shutdown = Shutdown::default();
    let drain_timeout = config.server.drain_timeout;
    let current = Arc::new(Current::new(gateway));
    let engine: Arc<dyn Engine> = Arc::<Current>::clone(&current);
    let kept = shelf.clone().map(|shelf| (shelf, stored_keys.clone()));
    let operator = operator(&config, &desk, &limiter, kept, &engine);
    let server = server.operated(operator);
    let watch = Watch {
        current,
        care: Box::pin(care),
        hangups,
        flags,
        seen,
        began: config,
        tls,
        metrics: Arc::clone(&metrics),
        terms,
        desk,
        shelf: shelf.clone(),
    };
    let begun = OnceLock::new();
    let serving = async {
        let ended = server.run(Arc::clone(&engine), metrics, shutdown.clone()).await;
        let spent = begun.get().map_or(drain_timeout, Instant::elapsed);
        tokio::select! {
            () = state.close(drain_timeout.saturating_sub(spent)) => {}
            () = shutdown.now.cancelled() => state.close(Duration::ZERO).await,
        }
        ended
    };
    let signalled = async {
        shutdown.begin.cancelled().await;
        begun.get_or_init(Instant::now);
        std::future::pending::<()>().await;
    };
    let ended = tokio::select! {
        ended = serving => ended,
        () = signalled => Ok(()),
        failed = server::watch(&shutdown) => failed,
        () = watch.run() => Ok(()),
        () = limiter.care() => Ok(()),
        () = follow(shelf, stored_keys) => Ok(()),
        () = state.keep() => Ok(()),
        () = carry(&mut carrier) => Ok(()),
    };
    if let Some(carrier) = &mut carrier {
        carrier.finish().await;
    }
    if let Some(ledger) = ledger {
        ledger.close().await;
    }
    ended
}

/// What the operator should know at the start.
fn say(config: &Config) {
    for warning in config.warnings() {
        tracing::warn!("{warning}");
    }
    if config.simulated() {
        tracing::warn!(
            "no Google credential is configured: every answer comes from the built-in simulator. \
             Set GEMINI_API_KEY to talk to Gemini"
        );
    }
}

/// Keeps the store's keys in force, where there is one.
async fn follow(shelf: Option<Arc<Shelf>>, stored: Stored) {
    match shelf {
        Some(shelf) => stored::follow(shelf, stored).await,
        None => std::future::pending().await,
    }
}

/// What requests cost under a configuration, and who is told.
fn terms(config: &Config, gateway: &Gateway) -> Terms {
    Terms { prices: Arc::clone(&gateway.prices), shows_cost: config.cost_header }
}

/// What the operator's API shows of a configuration.
fn desk(config: &Config) -> Desk {
    Desk { key: config.admin_key.clone(), configured: config.key_configs() }
}

/// The operator's API, where there is a key for it.
fn operator(
    config: &Config,
    desk: &Arc<ArcSwap<Desk>>,
    limiter: &Limiter,
    shelf: Option<(Arc<Shelf>, Stored)>,
    engine: &Arc<dyn Engine>,
) -> Option<Arc<dyn Operator>> {
    config.admin_key.as_ref()?;
    Some(Arc::new(Admin {
        desk: Arc::clone(desk),
        shelf,
        limiter: limiter.clone(),
        ledger: config.ledger.as_ref().map(|ledger| ledger.place.clone()),
        engine: Arc::clone(engine),
    }))
}

/// The store's keys, in force; a Postgres that is away is waited for in the background.
async fn shelf(config: &Config, gateway: &Gateway) -> Result<Option<Arc<Shelf>>> {
    let place = match &config.store {
        // What is kept in memory alone has no keys that a command could make.
        Some(store) => Place::parse(&store.url).ok(),
        None => None,
    };
    let Some(place) = place else { return Ok(None) };
    let file = matches!(place, Place::Sqlite(_));
    let (shelf, stored) = (Arc::new(Shelf::new(place)), gateway.keys.stored());
    shelf.unless_said(config.credentials.into());
    let (reading, into) = (Arc::clone(&shelf), stored.clone());
    let read = tokio::task::spawn_blocking(move || reading.load(&into)).await.map_err(Error::internal)?;
    match read {
        Err(error) if file => return Err(error),
        Err(_) => stored.unread(),
        Ok(()) => {}
    }
    Ok(Some(shelf))
}

/// Carries spans to their collector for as long as we serve.
async fn carry(carrier: &mut Option<Carrier>) {
    if let Some(carrier) = carrier {
        carrier.run().await;
    }
    std::future::pending::<()>().await;
}

/// The limits, with budgets that begin where the ledger says they stand.
async fn limiter(config: &Config, metrics: &Metrics) -> Result<Limiter> {
    let (rules, accounts) = (config.limits.rules.clone(), metrics.accounts().clone());
    let limiter = match config.sharing() {
        None => Limiter::new(rules, accounts),
        Some(sharing) => Limiter::sharing(rules, &sharing, accounts)?,
    };
    let Some(ledger) = &config.ledger else { return Ok(limiter) };
    let now = Clock::System.unix_seconds();
    for per in [Period::Day, Period::Month] {
        let place = ledger.place.clone();
        let since = i64::try_from(per.beginning(now) * 1000).unwrap_or(i64::MAX);
        let query = Query { by: vec![Dimension::parse("key")?], since, ..Query::default() };
        match tokio::task::spawn_blocking(move || ledger::ask(&place, &query))
            .await
            .map_err(Error::internal)?
        {
            Ok(groups) => {
                for group in groups {
                    let tokens = group.input + group.tool_use + group.output + group.thoughts;
                    let spent = Spent { nanos: group.cost.unwrap_or(0), tokens };
                    limiter.remember(group.names.first().map_or("", String::as_str), per, spent);
                }
            }
            Err(error) => tracing::warn!(%error, "budgets begin at nothing: the ledger cannot be read"),
        }
    }
    Ok(limiter)
}

fn open_ledger(config: &Config, metrics: &Metrics) -> Result<Option<Ledger>> {
    let Some(ledger) = &config.ledger else { return Ok(None) };
    let durability = match ledger.durability {
        config::Durability::Process => Durability::Process,
        config::Durability::BeforeEnd => Durability::BeforeEnd,
    };
    Ledger::open(&ledger.place, durability, metrics.accounts().clone()).map(Some)
}

/// The gateway that a configuration describes, and the future that keeps its credentials fresh.
///
/// # Errors
/// When a catalogue or a credential file cannot be read.
pub fn gateway(config: &Config) -> Result<(Gateway, impl Future<Output = ()> + Send + use<>)> {
    let catalog = config
        .catalogue_from_process()
        .map_err(|error| Error::new(Kind::Invalid, Origin::Gateway, error.to_string()))?;
    let prices = config.prices_from_process();
    let prices = prices.map_err(|error| Error::new(Kind::Invalid, Origin::Gateway, error.to_string()))?;
    let sites = config.sites.iter().map(|site| upstream::SiteConfig {
        name: site.name.clone(),
        quota_group: Some(site.quota_group.clone()),
        kind: kind(&site.kind, config.simulator),
    });
    let times = config.upstream;
    let upstream = Upstream::new(upstream::Config {
        sites: sites.collect(),
        timeouts: upstream::Timeouts {
            connect: times.connect_timeout,
            head: times.head_timeout,
            first_event: times.first_event_timeout,
            idle: times.idle_timeout,
            total: times.total_timeout,
        },
        routes: config.routes.iter().map(route).collect(),
        retries: times.retries,
        hedge_percent: times.hedge_percent,
        longest_wait: times.longest_retry_wait,
        slow_start: times.slow_start,
        max_in_flight: times.max_in_flight,
        network: upstream::Network {
            https_proxy: config.network.https_proxy.clone(),
            no_proxy: config.network.no_proxy.clone(),
            ca_file: config.network.ca_file.clone(),
            max_age: config.network.connection_max_age,
            names: None,
        },
        programs: config.network.programs,
    })?;
    let care = upstream.background();
    let keys = config.key_configs();
    let labels = catalog.models().map(|model| model.id.clone()).collect();
    let mut client_keys = Keys::new(&keys).everybody(config.credentials.into());
    if config.store.is_some() && !config.listen.is_local() && !config.insecure_no_auth {
        // Keys are made while it runs; until the first one nobody is let in.
        client_keys.close();
    }
    let gateway = Gateway {
        limiter: Limiter::new(config.limits.rules.clone(), Accounts::new()),
        prices: Arc::new(prices),
        keys: client_keys,
        aliases: config.aliases.clone(),
        catalog,
        upstream: Arc::new(upstream),
        learned: Learned::default(),
        signatures: Arc::new(Memory::default()),
        ids: Arc::new(Ids::Random),
        clock: Clock::System,
        state: Arc::default(),
        strict: config.strict,
        unpaid: Unpaid::default(),
        batches: Batches::default(),
        open_places: config
            .sites
            .iter()
            .filter(|site| site.caller_place)
            .map(|site| site.name.clone())
            .collect(),
        listed: Listing::default(),
        labels,
        fetcher: config.fetch.as_ref().map(fetcher).transpose()?,
    };
    Ok((gateway, care))
}

fn fetcher(fetch: &config::Fetch) -> Result<Fetcher> {
    Fetcher::new(fetch::Settings {
        allow: fetch.allow.clone(),
        max_bytes: fetch.max_bytes,
        timeout: fetch.timeout,
        max_count: fetch.max_count,
        loopback: false,
    })
}

fn store(config: &config::Store) -> Result<Store> {
    Store::open(&store::Config {
        url: config.url.clone(),
        max_age: config.max_age,
        max_bytes: config.max_bytes,
    })
}

fn route(route: &config::Route) -> upstream::RouteConfig {
    upstream::RouteConfig {
        models: route.models.iter().map(|model| Pattern::new(model.as_str())).collect(),
        sites: route.sites.clone(),
        balance: match route.balance {
            config::Balance::Order => upstream::Balance::Order,
            config::Balance::Spread => upstream::Balance::Spread(route.weights.clone()),
        },
        fallback: route.fallback.clone(),
        times: upstream::Times {
            head: route.head_timeout,
            first_event: route.first_event_timeout,
            idle: route.idle_timeout,
            total: route.total_timeout,
        },
        retries: route.retries,
        hedge_percent: route.hedge_percent,
    }
}

fn kind(kind: &config::SiteKind, pace: config::Simulator) -> upstream::SiteKind {
    match kind {
        config::SiteKind::GeminiApi { base_url, api_version, api_key } => upstream::SiteKind::GeminiApi {
            base_url: base_url.clone(),
            api_version: api_version.clone(),
            api_key: api_key.clone(),
        },
        config::SiteKind::Vertex { base_url, api_version, project, location, credentials, quota_project } => {
            upstream::SiteKind::Vertex {
                base_url: Some(base_url.clone()),
                api_version: api_version.clone(),
                project: project.clone(),
                location: location.clone(),
                credentials: match credentials {
                    GoogleCredentials::Adc => upstream::Credentials::adc(config::process_env),
                    GoogleCredentials::File(path) => upstream::Credentials::File(path.clone()),
                    GoogleCredentials::Metadata => upstream::Credentials::Metadata,
                    GoogleCredentials::ApiKey(key) => upstream::Credentials::ApiKey(key.clone()),
                },
                quota_project: quota_project.clone(),
            }
        }
        config::SiteKind::Simulator => {
            upstream::SiteKind::Local(Arc::new(InProcess(Arc::new(Simulator::new(simulator::Config {
                time_to_first_token: pace.time_to_first_token,
                tokens_per_second: pace.tokens_per_second,
                ..simulator::Config::default()
            })))))
        }
    }
}

/// The simulator as a place to call, without a socket between.
#[derive(Debug)]
struct InProcess(Arc<Simulator>);

impl Local for InProcess {
    fn respond(&self, request: Request<Bytes>) -> Pin<Box<dyn Future<Output = Response<Body>> + Send>> {
        let simulator = Arc::clone(&self.0);
        Box::pin(async move { simulator.respond(request).await })
    }

    fn pass(&self, request: Request<Body>) -> Pin<Box<dyn Future<Output = Response<Body>> + Send>> {
        let simulator = Arc::clone(&self.0);
        Box::pin(async move { simulator.pass(request).await })
    }
}
