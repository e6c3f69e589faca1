//! What is known of sites and projects at this moment. Read by every call, written by few: no locks, only atomics.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use arc_swap::ArcSwap;

use super::breaker::Breaker;
use super::hedge::{Credit, Pace};
use super::retry::Budget;
use super::throttle::Throttle;
use crate::hash::ByName;

/// Model names come from clients: beyond this many, the rest share one entry.
const MODELS: usize = 512;

/// Something for each model.
#[derive(Debug, Default)]
pub(super) struct ByModel<T> {
    known: ArcSwap<ByName<Arc<T>>>,
    rest: Arc<T>,
}

impl<T: Default> ByModel<T> {
    pub(super) fn of(&self, model: &str) -> Arc<T> {
        let known = self.known.load();
        if let Some(found) = known.get(model) {
            return Arc::clone(found);
        }
        if known.len() >= MODELS {
            return Arc::clone(&self.rest);
        }
        let new = Arc::new(T::default());
        self.known.rcu(|known| {
            let mut more = ByName::clone(known);
            more.entry(model.into()).or_insert_with(|| Arc::clone(&new));
            more
        });
        self.known.load().get(model).map_or_else(|| Arc::clone(&self.rest), Arc::clone)
    }

    /// All that are known, and under `*` what the rest share.
    pub(super) fn each(&self) -> Vec<(String, Arc<T>)> {
        let known = self.known.load();
        let named = known.iter().map(|(model, one)| (model.to_string(), Arc::clone(one)));
        named.chain([("*".to_owned(), Arc::clone(&self.rest))]).collect()
    }

    /// How many models are so.
    pub(super) fn count(&self, are: impl Fn(&T) -> bool) -> usize {
        self.known.load().values().filter(|each| are(each)).count() + usize::from(are(&self.rest))
    }
}

/// One site.
#[derive(Debug)]
pub(super) struct Health {
    pub(super) breakers: ByModel<Breaker>,
    pub(super) throttle: Arc<Throttle>,
    pub(super) budget: Budget,
    /// How long answers take, by model and method; only where calls may be hedged.
    pub(super) paces: ByModel<Pace>,
    pub(super) credit: Credit,
    /// How often that budget was spent when a call could have been repeated.
    pub(super) denied: AtomicU64,
    /// Until when its credential is not believed in, in milliseconds.
    pub(super) refused_until: AtomicU64,
}

impl Health {
    pub(super) fn new(most: u32) -> Self {
        Self {
            breakers: ByModel::default(),
            throttle: Throttle::new(most),
            budget: Budget::new(),
            paces: ByModel::default(),
            credit: Credit::default(),
            denied: AtomicU64::new(0),
            refused_until: AtomicU64::new(0),
        }
    }
}

/// One model in one project, whose quota all keys of the project share.
#[derive(Debug, Default)]
pub(super) struct Quota {
    until: AtomicU64,
    spent: AtomicBool,
}

impl Quota {
    /// Until when there is none, in milliseconds, and whether that is for the day.
    pub(super) fn cooling(&self, now: u64) -> Option<(u64, bool)> {
        let until = self.until.load(Relaxed);
        (until > now).then(|| (until, self.spent.load(Relaxed)))
    }

    /// There is none before `until`.
    pub(super) fn cool(&self, until: u64, spent: bool) {
        if self.until.fetch_max(until, Relaxed) < until {
            self.spent.store(spent, Relaxed);
        }
    }

    /// A call was served: there is some after all.
    pub(super) fn worked(&self) {
        if self.until.load(Relaxed) > 0 {
            self.until.store(0, Relaxed);
        }
    }
}

/// How long until Google's daily quotas come back, in seconds: midnight in California, which is 7 or 8 in the
/// morning in UTC. In winter the first guess costs one refused call, and no table of time zones is needed.
pub(super) fn until_midnight_pacific(unix_seconds: u64) -> u64 {
    let of_day = unix_seconds % 86_400;
    let boundaries = [7 * 3600, 8 * 3600, 31 * 3600];
    boundaries.iter().find(|boundary| **boundary > of_day).map_or(3600, |boundary| boundary - of_day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_model_has_its_own_and_names_do_not_pile_up() {
        let all: ByModel<AtomicU64> = ByModel::default();
        all.of("a").store(1, Relaxed);
        assert_eq!(all.of("a").load(Relaxed), 1);
        assert_eq!(all.of("b").load(Relaxed), 0);
        for n in 0..2000 {
            all.of(&format!("m{n}")).store(2, Relaxed);
        }
        assert_eq!(all.known.load().len(), MODELS);
        assert_eq!(all.of("never-seen").load(Relaxed), 2);
    }

    #[test]
    fn a_project_cools_and_recovers() {
        let quota = Quota::default();
        assert_eq!(quota.cooling(0), None);
        quota.cool(500, false);
        quota.cool(300, true);
        assert_eq!(quota.cooling(499), Some((500, false)));
        assert_eq!(quota.cooling(500), None);
        quota.cool(900, true);
        assert_eq!(quota.cooling(600), Some((900, true)));
        quota.worked();
        assert_eq!(quota.cooling(600), None);
    }

    #[test]
    fn the_day_ends_in_california() {
        for (now, wait) in [(0, 7 * 3600), (7 * 3600, 3600), (8 * 3600 - 1, 1), (8 * 3600, 23 * 3600)] {
            assert_eq!(until_midnight_pacific(1_800_000_000 / 86_400 * 86_400 + now), wait, "{now}");
        }
    }
}
