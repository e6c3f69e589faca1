//! One request's way over the sites: where to go first, whether and when to go on, what to say when nobody served.
//!
//! A [`Trip`] hands out [`Leg`]s. Each leg is one call at one site; the caller says how it went, and asks for the
//! next one. Everything happens before the client has seen a byte, so a leg may always be followed by another.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::breaker::{Breaker, Standing};
use super::course::Course;
use super::fail;
use super::health::{Quota, until_midnight_pacific};
use super::retry::{Class, pause};
use super::route::{Route, mix};
use super::throttle::Flight;
use super::{Patience, Site, Upstream};
use crate::error::{Error, Kind, Origin, Result, Retry};

/// A project that says "too many" without saying for how long is left alone for this long.
const SHORT_COOLING: Duration = Duration::from_secs(1);
/// A site that refused our credential is the last resort for this long.
const REFUSED_FOR: Duration = Duration::from_mins(1);

/// What a request wants of its way.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wish<'w> {
    /// The model, as it is dispatched.
    pub model: &'w str,
    /// Requests of one conversation have one number here; where sites share the work, they meet at one site.
    pub session: Option<u64>,
    /// The whole request must be over within.
    pub total: Option<Duration>,
    /// The first byte must be there within.
    pub first: Option<Duration>,
    /// Whether anything may be repeated.
    pub repeat: Repeat,
}

/// What may be done again, and with what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Repeat {
    /// Other tries, other sites, other models.
    #[default]
    All,
    /// Other tries and sites, but the model that was asked for.
    SameModel,
    /// One call, whatever comes of it.
    Never,
}

/// One request's way over the sites.
#[derive(Debug)]
pub struct Trip<'u> {
    upstream: &'u Upstream,
    model: Arc<str>,
    route: &'u Route,
    fallback: std::slice::Iter<'u, String>,
    session: u64,
    places: Vec<Place>,
    /// All places belong to one project: there is no elsewhere.
    lone: bool,
    repeat: Repeat,
    begun: Instant,
    total: Option<Duration>,
    deadline: Instant,
    /// Before this the first byte must be there.
    first_by: Option<Instant>,
    sent: u32,
    returns: u32,
    last: Option<(Class, Error)>,
    moved: bool,
}

/// A site that this trip may call.
#[derive(Debug)]
struct Place {
    site: usize,
    breaker: Arc<Breaker>,
    quota: Arc<Quota>,
    tries: u32,
    /// When it may be called again; `None` once it is out of the question.
    ready: Option<Instant>,
}

/// One call at one site.
#[derive(Debug)]
pub struct Leg<'u> {
    site: &'u Site,
    /// Its place in the trip, and in the list of sites.
    index: usize,
    pub(super) site_index: usize,
    /// How many calls in a hundred may be made twice.
    pub(super) hedge_percent: u32,
    model: Arc<str>,
    breaker: Arc<Breaker>,
    quota: Arc<Quota>,
    flight: Option<Flight>,
    probe: bool,
    begun: Instant,
    patience: Patience,
}

impl<'u> Leg<'u> {
    /// Where.
    pub fn site(&self) -> &'u Site {
        self.site
    }

    /// Which model: the one asked for, or a fallback.
    pub fn model(&self) -> &str {
        &self.model
    }

    /// How long what is asked here may take.
    pub fn patience(&self) -> Patience {
        self.patience
    }
}

impl Drop for Leg<'_> {
    fn drop(&mut self) {
        // Nobody said how it went: the client left.
        if self.probe {
            self.breaker.abandoned();
        }
    }
}

/// Why no place can be called right now.
enum Stop {
    Cooling { until: u64, spent: bool },
    Closed { until: u64 },
    Full,
}

impl Upstream {
    /// Whether the sites of this model share the work, so that a session's number means something.
    pub fn spreads(&self, model: &str) -> bool {
        self.routes.find(model).spreads()
    }

    /// Begins a request's way.
    pub fn trip(&self, wish: &Wish<'_>) -> Trip<'_> {
        let mut trip = self.at_home(wish);
        let order = trip.route.order(trip.session, &self.names);
        trip.plan(trip.route, order);
        trip
    }

    /// Begins the way of a request that only these sites can serve: in its route's order, or in this one where
    /// none of them is on its route. Another model than the one asked for is never asked.
    pub fn trip_among(&self, wish: &Wish<'_>, sites: &[&Site]) -> Trip<'_> {
        let mut trip = self.at_home(wish);
        if trip.repeat == Repeat::All {
            trip.repeat = Repeat::SameModel;
        }
        let among = |at: &usize| {
            self.sites.get(*at).is_some_and(|site| sites.iter().any(|wanted| std::ptr::eq(*wanted, site)))
        };
        let mut order = trip.route.order(trip.session, &self.names);
        order.retain(among);
        if order.is_empty() {
            order = (0..self.sites.len()).filter(among).collect();
        }
        trip.plan(trip.route, order);
        trip
    }

    /// How long to wait before the `nth` repetition at the same site of a call that changes nothing there; nothing
    /// where repeating would not help.
    pub fn again(&self, site: &Site, nth: u32, error: &Error) -> Option<Duration> {
        let wait = match error.retries() {
            Retry::After(wait) => wait,
            Retry::Soon => Duration::ZERO,
            Retry::Never => return None,
        };
        let may = matches!(Class::of(error), Class::Fault | Class::Quota(_))
            && nth <= self.routes.find("").retries
            && wait <= self.longest_wait;
        let at = self.sites.iter().position(|known| std::ptr::eq(known, site))?;
        let health = self.health.get(at).filter(|_| may)?;
        let granted = health.budget.spend();
        if !granted {
            health.denied.fetch_add(1, Relaxed);
        }
        granted.then(|| wait + pause(nth, self.random()))
    }

    fn at_home(&self, wish: &Wish<'_>) -> Trip<'_> {
        let begun = Instant::now();
        let route = self.routes.find(wish.model);
        Trip {
            upstream: self,
            model: wish.model.into(),
            route,
            fallback: route.fallback.iter(),
            session: wish.session.unwrap_or_else(|| self.random()),
            places: Vec::new(),
            lone: true,
            repeat: wish.repeat,
            begun,
            total: wish.total,
            deadline: begun,
            first_by: wish.first.map(|first| begun + first),
            sent: 0,
            returns: 0,
            last: None,
            moved: false,
        }
    }

    pub(super) fn now(&self) -> u64 {
        self.at(Instant::now())
    }

    fn at(&self, moment: Instant) -> u64 {
        millis(moment.saturating_duration_since(self.epoch))
    }

    fn random(&self) -> u64 {
        let step = 0x9e37_79b9_7f4a_7c15;
        mix(self.dice.fetch_add(step, Relaxed))
    }
}

pub(super) fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

impl<'u> Trip<'u> {
    /// How many calls were made.
    pub fn sent(&self) -> u32 {
        self.sent
    }

    /// From now on nothing can be sent again.
    pub fn stay(&mut self) {
        self.repeat = Repeat::Never;
    }

    /// Whether another model than the one asked for is being asked.
    pub fn moved(&self) -> bool {
        self.moved
    }

    /// When the whole request must be over.
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Whether the sites of this trip belong to more than one project.
    pub fn has_choice(&self) -> bool {
        !self.lone
    }

    /// Goes first to sites of this project; `false` if there is none on the way.
    pub fn prefer(&mut self, group: &str) -> bool {
        let elsewhere =
            |place: &Place| self.upstream.sites.get(place.site).is_none_or(|site| site.group() != group);
        self.places.sort_by_key(elsewhere);
        self.places.first().is_some_and(|place| !elsewhere(place))
    }

    /// This leg was not called, and may be given out again.
    pub fn give_back(&mut self, leg: Leg<'u>) {
        let site = leg.site_index;
        drop(leg);
        self.sent = self.sent.saturating_sub(1);
        if let Some(place) = self.places.iter_mut().find(|place| place.site == site) {
            place.tries = 0;
        }
    }

    fn plan(&mut self, route: &'u Route, order: Vec<usize>) {
        self.route = route;
        let upstream = self.upstream;
        self.places = order
            .into_iter()
            .filter_map(|site| {
                let health = upstream.health.get(site)?;
                let group = &upstream.groups.get(*upstream.group_of.get(site)?)?.quotas;
                Some(Place {
                    site,
                    breaker: health.breakers.of(&self.model),
                    quota: group.of(&self.model),
                    tries: 0,
                    ready: Some(self.begun),
                })
            })
            .collect();
        let first = self.places.first().map(|place| Arc::clone(&place.quota));
        self.lone =
            first.is_none_or(|first| self.places.iter().all(|place| Arc::ptr_eq(&place.quota, &first)));
        let total = self.total.unwrap_or(route.times.total).min(route.times.total);
        self.deadline = self.begun + total;
    }

    /// The next call to make. Waits where waiting was told to help.
    ///
    /// # Errors
    /// What the last call failed with, or why none can be made, when there is nowhere to go any more.
    pub async fn next(&mut self) -> Result<Leg<'u>> {
        loop {
            let stop = match self.fresh() {
                Ok(leg) => return Ok(leg),
                Err(stop) => stop,
            };
            if let Some((at, when)) = self.again() {
                sleep_until(when).await;
                let health = self.upstream.health.get(self.site_of(at));
                let granted = health.is_some_and(|health| health.budget.spend());
                if let Some(health) = health.filter(|_| !granted) {
                    health.denied.fetch_add(1, Relaxed);
                }
                if granted && let Some(leg) = self.depart(at, Instant::now()) {
                    self.returns += 1;
                    return Ok(leg);
                }
                self.rule_out(at);
                continue;
            }
            if !self.fall_back() {
                return Err(self.verdict(stop.as_ref()));
            }
        }
    }

    /// The best place that was not tried yet.
    fn fresh(&mut self) -> Result<Leg<'u>, Option<Stop>> {
        if self.repeat == Repeat::Never && self.sent > 0 {
            return Err(None);
        }
        let moment = Instant::now();
        let now = self.upstream.at(moment);
        let (mut doubtful, mut stop) = (None, None);
        for at in 0..self.places.len() {
            let Some(place) = self.places.get(at).filter(|place| place.tries == 0 && place.ready.is_some())
            else {
                continue;
            };
            let Some(health) = self.upstream.health.get(place.site) else { continue };
            // With nowhere else to go a cooling project is asked: it may have more than it said.
            if !self.lone
                && let Some((until, spent)) = place.quota.cooling(now)
            {
                stop = Some(match stop {
                    Some(Stop::Cooling { until: sooner, spent }) if sooner <= until => {
                        Stop::Cooling { until: sooner, spent }
                    }
                    Some(Stop::Cooling { .. }) | None => Stop::Cooling { until, spent },
                    Some(other) => other,
                });
                continue;
            }
            match place.breaker.standing() {
                Standing::Well if health.refused_until.load(Relaxed) <= now => {
                    match self.depart(at, moment) {
                        Some(leg) => return Ok(leg),
                        None => stop = Some(Stop::Full),
                    }
                }
                Standing::Well => {
                    doubtful.get_or_insert(at);
                }
                standing @ (Standing::Doubtful | Standing::Closed) => {
                    let until = place.breaker.probe_at();
                    let breaker = Arc::clone(&place.breaker);
                    if breaker.probe(now) {
                        if let Some(mut leg) = self.depart(at, moment) {
                            leg.probe = true;
                            return Ok(leg);
                        }
                        breaker.abandoned();
                        stop = Some(Stop::Full);
                    } else if standing == Standing::Doubtful {
                        doubtful.get_or_insert(at);
                    } else {
                        stop = Some(Stop::Closed { until });
                    }
                }
            }
        }
        match doubtful {
            Some(at) => self.depart(at, moment).ok_or(Some(Stop::Full)),
            None => Err(stop),
        }
    }

    /// The place to return to, and when: the one that is ready first.
    fn again(&self) -> Option<(usize, Instant)> {
        if self.repeat == Repeat::Never || self.sent == 0 || self.returns >= self.route.retries {
            return None;
        }
        let tried = self.places.iter().enumerate().filter(|(_, place)| place.tries > 0);
        let ready = tried.filter_map(|(at, place)| Some((at, place.ready?)));
        let (at, when) = ready.min_by_key(|(_, when)| *when)?;
        // A wait that ends after the deadline, or that nobody would sit through, is the client's to take.
        let patience = Instant::now() + self.upstream.longest_wait;
        let late = when >= self.deadline || self.first_by.is_some_and(|by| when >= by) || when > patience;
        let closed = self.places.get(at).is_some_and(|place| place.breaker.standing() == Standing::Closed);
        (!late && !closed).then_some((at, when))
    }

    fn site_of(&self, at: usize) -> usize {
        self.places.get(at).map_or(usize::MAX, |place| place.site)
    }

    fn rule_out(&mut self, at: usize) {
        if let Some(place) = self.places.get_mut(at) {
            place.ready = None;
        }
    }

    fn depart(&mut self, at: usize, begun: Instant) -> Option<Leg<'u>> {
        let upstream = self.upstream;
        let place = self.places.get_mut(at)?;
        let (site, health) = (upstream.sites.get(place.site)?, upstream.health.get(place.site)?);
        let flight = health.throttle.depart()?;
        if place.tries == 0 {
            health.budget.earn();
        }
        place.tries += 1;
        self.sent += 1;
        Some(Leg {
            site,
            index: at,
            site_index: place.site,
            hedge_percent: if self.repeat == Repeat::Never { 0 } else { self.route.hedge_percent },
            model: Arc::clone(&self.model),
            breaker: Arc::clone(&place.breaker),
            quota: Arc::clone(&place.quota),
            flight: Some(flight),
            probe: false,
            begun,
            patience: Patience {
                times: self.route.times,
                deadline: self.deadline,
                first_by: self.first_by,
                flying: health.throttle.in_flight(),
                begun,
            },
        })
    }

    fn fall_back(&mut self) -> bool {
        if self.repeat != Repeat::All {
            return false;
        }
        let Some(model) = self.fallback.next() else { return false };
        tracing::info!(from = %self.model, to = %model, "no site serves the model; asking another");
        self.model = model.as_str().into();
        self.moved = true;
        self.returns = 0;
        let route = self.upstream.routes.find(model);
        self.plan(route, route.order(self.session, &self.upstream.names));
        true
    }

    /// The call worked, and its answer is all here.
    pub fn worked(&mut self, mut leg: Leg<'u>) {
        if !self.slow(&leg) {
            leg.breaker.worked();
        }
        leg.probe = false;
        self.served(&leg);
    }

    /// The call worked, and its answer has begun.
    pub fn began(&mut self, mut leg: Leg<'u>) -> Course {
        let shown = self.slow(&leg) || leg.breaker.began();
        self.served(&leg);
        Course {
            _flight: leg.flight.take(),
            breaker: Arc::clone(&leg.breaker),
            probe: std::mem::take(&mut leg.probe) && !shown,
            epoch: self.upstream.epoch,
        }
    }

    /// Counts a call that took too long to begin against its place.
    fn slow(&self, leg: &Leg<'u>) -> bool {
        let slow = self.upstream.slow_start.is_some_and(|limit| leg.begun.elapsed() > limit);
        if slow {
            leg.breaker.failed(self.upstream.now());
        }
        slow
    }

    fn served(&self, leg: &Leg<'u>) {
        leg.quota.worked();
        if let Some(health) = self.upstream.health.get(self.site_of(leg.index)) {
            health.throttle.hear(false, || self.upstream.now());
            if health.refused_until.load(Relaxed) > 0 {
                health.refused_until.store(0, Relaxed);
            }
        }
    }

    /// The call failed.
    ///
    /// # Errors
    /// With the failure itself, when nothing that could follow would be better.
    pub fn failed(&mut self, mut leg: Leg<'u>, error: Error) -> Result<()> {
        let class = Class::of(&error);
        let now = self.upstream.now();
        let health = self.upstream.health.get(self.site_of(leg.index));
        if class.blames_site() {
            leg.breaker.failed(now);
        } else if !matches!(class, Class::Refused) {
            // It answered, and that is what the breaker asks of it.
            leg.breaker.worked();
        }
        leg.probe = matches!(class, Class::Refused) && leg.probe;
        if let Some(health) = health {
            // A quota that says when it is back is one model's; only what says no more is load.
            let turned_away = matches!(class, Class::Quota(None) | Class::Slow)
                || matches!(error.kind(), Kind::Overloaded | Kind::Timeout);
            health.throttle.hear(turned_away, || now);
            if class == Class::Refused {
                let until = now + millis(REFUSED_FOR);
                health.refused_until.store(until, Relaxed);
            }
        }
        let ready = self.ready_after(class, &error, &leg.quota, now);
        if let Some(place) = self.places.get_mut(leg.index) {
            place.ready = ready;
        }
        let index = leg.index;
        drop(leg);
        if class == Class::Final {
            return Err(error.attempts(self.sent));
        }
        tracing::debug!(
            site = self.upstream.names.get(self.site_of(index)).map(|name| &**name),
            ?error,
            "a call failed"
        );
        // The most telling failure is kept: a quota says more than a credential that some other site lacks.
        let rank = |class: &Class| match class {
            Class::Quota(_) => 4,
            Class::Fault => 3,
            Class::Slow => 2,
            Class::Spent => 1,
            Class::Refused | Class::Final => 0,
        };
        if self.last.as_ref().is_none_or(|(before, _)| rank(before) <= rank(&class)) {
            self.last = Some((class, error));
        }
        Ok(())
    }

    /// When a place may be called again after a failure; never, if that cannot help.
    fn ready_after(&self, class: Class, error: &Error, quota: &Quota, now: u64) -> Option<Instant> {
        let told = match error.retries() {
            Retry::After(wait) => wait,
            Retry::Soon | Retry::Never => Duration::ZERO,
        };
        let backoff = pause(self.returns + 1, self.upstream.random());
        match class {
            Class::Quota(wait) => {
                quota.cool(now + millis(wait.unwrap_or(SHORT_COOLING)), false);
                Some(Instant::now() + told + backoff)
            }
            Class::Spent => {
                let day = until_midnight_pacific(self.upstream.clock.unix_seconds());
                quota.cool(now + day * 1000, true);
                None
            }
            Class::Fault => Some(Instant::now() + told.max(backoff)),
            Class::Refused | Class::Slow | Class::Final => None,
        }
    }

    /// This leg is not to be called after all, nor any other of its model.
    pub fn pass_over(&mut self, leg: Leg<'u>) {
        drop(leg);
        self.sent = self.sent.saturating_sub(1);
        for place in &mut self.places {
            place.ready = None;
        }
    }

    /// What the client is told when nobody served.
    fn verdict(&mut self, stop: Option<&Stop>) -> Error {
        let now = self.upstream.now();
        let Some((_, error)) = self.last.take() else {
            let wait = |until: u64| Retry::After(Duration::from_millis(until.saturating_sub(now).max(1)));
            return match stop {
                Some(Stop::Cooling { spent: true, .. }) => {
                    Error::new(Kind::QuotaSpent, Origin::Upstream, "Google's quota for today is spent.")
                }
                Some(Stop::Cooling { until, .. }) => Error::new(
                    Kind::RateLimited,
                    Origin::Upstream,
                    "Google's quota is used up for the moment at every site that serves this model.",
                )
                .retry(wait(*until)),
                Some(Stop::Closed { until }) => fail::closed().retry(wait((*until).max(now + 1000))),
                Some(Stop::Full) | None => fail::full(),
            };
        };
        // Nobody sits through one wait here; whoever comes again after a second finds the probe done.
        let error = match (error.kind(), error.retries()) {
            (Kind::Overloaded, Retry::Soon) => error.retry(Retry::After(Duration::from_secs(1))),
            _ => error,
        };
        let error = error.attempts(self.sent);
        // Whoever asked us not to repeat does so himself.
        if self.sent > 1 { error.exhausted() } else { error }
    }
}
