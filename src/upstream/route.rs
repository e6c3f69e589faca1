//! Which models go where.

use std::sync::Arc;
use std::time::Duration;

use super::settings::Timeouts;
use crate::catalog::Pattern;
use crate::error::{Error, Kind, Origin, Result};

/// Which models go where, and how.
#[derive(Clone, Debug, Default)]
pub struct RouteConfig {
    /// Patterns of model ids.
    pub models: Vec<Pattern>,
    /// Names of sites, in order of preference.
    pub sites: Vec<String>,
    /// How the sites share the work.
    pub balance: Balance,
    /// Models to ask instead when no site serves this one, in order.
    pub fallback: Vec<String>,
    /// Other patience than the rest.
    pub times: Times,
    /// How often one request may return to a place that failed.
    pub retries: Option<u32>,
    /// How many short whole calls in a hundred may be made twice.
    pub hedge_percent: Option<u32>,
}

/// What holds where a route says nothing.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Defaults {
    pub(super) times: Timeouts,
    pub(super) retries: u32,
    pub(super) hedge_percent: u32,
}

/// How the sites of a route share the work.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Balance {
    /// The first that can, in the order written.
    #[default]
    Order,
    /// All of them, by weight (one for each site); the requests of one conversation go to the same, so that
    /// Google's implicit cache keeps hitting.
    Spread(Vec<u32>),
}

/// What a route changes about the deadlines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Times {
    /// Instead of [`Timeouts::head`].
    pub head: Option<Duration>,
    /// Instead of [`Timeouts::first_event`], and of [`Timeouts::head`] where that is not given.
    pub first_event: Option<Duration>,
    /// Instead of [`Timeouts::idle`].
    pub idle: Option<Duration>,
    /// Instead of [`Timeouts::total`].
    pub total: Option<Duration>,
}

impl Times {
    fn over(self, times: Timeouts) -> Timeouts {
        Timeouts {
            connect: times.connect,
            head: self.head.or(self.first_event).unwrap_or(times.head),
            first_event: self.first_event.unwrap_or(times.first_event),
            idle: self.idle.unwrap_or(times.idle),
            total: self.total.unwrap_or(times.total),
        }
    }
}

/// One route, its sites as places in the list of sites.
#[derive(Debug)]
pub(super) struct Route {
    models: Vec<Pattern>,
    pub(super) sites: Vec<usize>,
    weights: Option<Vec<u32>>,
    pub(super) fallback: Vec<String>,
    pub(super) times: Timeouts,
    pub(super) retries: u32,
    pub(super) hedge_percent: u32,
}

/// All routes.
#[derive(Debug)]
pub(super) struct Routes {
    written: Vec<Route>,
    /// For models that no route names: the first site.
    other: Route,
}

impl Routes {
    /// Checks that every name is known.
    pub(super) fn new(written: Vec<RouteConfig>, names: &[Arc<str>], defaults: &Defaults) -> Result<Self> {
        let Defaults { times, retries, hedge_percent } = *defaults;
        let route = |route: RouteConfig| {
            let place = |name: &String| {
                names.iter().position(|known| **known == **name).ok_or_else(|| {
                    Error::new(Kind::Invalid, Origin::Gateway, format!("There is no site {name:?}."))
                })
            };
            let sites = route.sites.iter().map(place).collect::<Result<Vec<_>>>()?;
            let weights = match route.balance {
                Balance::Order => None,
                Balance::Spread(weights) => Some(weights),
            };
            Ok(Route {
                models: route.models,
                sites,
                weights,
                fallback: route.fallback,
                times: route.times.over(times),
                retries: route.retries.unwrap_or(retries),
                hedge_percent: route.hedge_percent.unwrap_or(hedge_percent),
            })
        };
        let written = written.into_iter().map(route).collect::<Result<_>>()?;
        let other = Route {
            models: Vec::new(),
            sites: vec![0],
            weights: None,
            fallback: Vec::new(),
            times,
            retries,
            hedge_percent,
        };
        Ok(Self { written, other })
    }

    /// The first route that names the model.
    pub(super) fn find(&self, model: &str) -> &Route {
        self.written(model).unwrap_or(&self.other)
    }

    /// The same, where there is one.
    pub(super) fn written(&self, model: &str) -> Option<&Route> {
        let named = |route: &&Route| route.models.iter().any(|pattern| pattern.matches(model));
        self.written.iter().find(named)
    }
}

impl Route {
    pub(super) fn spreads(&self) -> bool {
        self.weights.is_some()
    }

    /// The sites in the order in which a session should try them; `names` are all sites' names.
    pub(super) fn order(&self, session: u64, names: &[Arc<str>]) -> Vec<usize> {
        let mut order = self.sites.clone();
        if let Some(weights) = &self.weights {
            let weight = |site: usize| {
                let at = self.sites.iter().position(|known| *known == site).unwrap_or(0);
                weights.get(at).copied().unwrap_or(1)
            };
            let score = |site: usize| score(session, names.get(site).map_or("", |name| name), weight(site));
            order.sort_by(|a, b| score(*b).total_cmp(&score(*a)));
        }
        order
    }
}

/// Weighted rendezvous hashing: the highest score wins, each site wins its share of the sessions, and a site that
/// comes or goes moves no session between the others.
fn score(session: u64, name: &str, weight: u32) -> f64 {
    let hash = mix(session ^ hash(name.as_bytes()));
    // A number between 0 and 1, never either.
    #[expect(clippy::cast_precision_loss, reason = "53 bits are kept on purpose")]
    let unit = ((hash >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
    -f64::from(weight) / unit.ln()
}

/// A hash that is the same in every process, so that replicas agree (FNV-1a, then mixed).
pub fn hash(bytes: &[u8]) -> u64 {
    let folded = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    mix(folded)
}

/// Spreads every bit over all others (the end of `SplitMix64`).
pub(super) fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Vec<Arc<str>> {
        ["a", "b", "c", "d"].map(Arc::from).to_vec()
    }

    fn spread(sites: &[&str], weights: Vec<u32>) -> Routes {
        let route = RouteConfig {
            models: vec![Pattern::new("gemini-*")],
            sites: sites.iter().map(|site| (*site).to_owned()).collect(),
            balance: Balance::Spread(weights),
            ..RouteConfig::default()
        };
        Routes::new(vec![route], &names(), &Defaults::default()).unwrap()
    }

    #[test]
    fn the_first_route_that_names_a_model_has_it() {
        let routes = spread(&["c", "b"], vec![1, 1]);
        assert_eq!(routes.find("gemini-x").sites, [2, 1]);
        assert_eq!(routes.find("other").order(9, &names()), [0]);
        let unknown = RouteConfig { sites: vec!["z".to_owned()], ..RouteConfig::default() };
        assert!(Routes::new(vec![unknown], &names(), &Defaults::default()).is_err());
    }

    #[test]
    fn sessions_are_shared_by_weight_and_stay() {
        let three = spread(&["a", "b", "c"], vec![2, 1, 1]);
        let two = spread(&["a", "b"], vec![2, 1]);
        let first = |routes: &Routes, session| routes.find("gemini-x").order(session, &names())[0];
        let mut wins = [0_u32; 3];
        for session in 0..8000_u64 {
            let before = first(&three, session);
            wins[before] += 1;
            assert_eq!(before, first(&three, session));
            if before != 2 {
                assert_eq!(first(&two, session), before, "only the lost site's sessions move");
            }
        }
        assert!((3700..4300).contains(&wins[0]), "{wins:?}");
        assert!((1700..2300).contains(&wins[1]), "{wins:?}");
    }
}
