//! How the sites stand, for whoever scrapes metrics.

use std::sync::atomic::Ordering::Relaxed;

use super::Upstream;
use super::breaker::Standing;

/// How one site stands at this moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look<'u> {
    /// Its name.
    pub site: &'u str,
    /// Calls under way.
    pub in_flight: u32,
    /// Calls that it may carry at once.
    pub limit: u32,
    /// Models whose breaker half-opened there: they are called last.
    pub doubtful: usize,
    /// Models whose breaker is open there: they are not called.
    pub closed: usize,
    /// Models without quota in the site's project.
    pub cooling: usize,
    /// Its credential was refused a short time ago.
    pub refused: bool,
    /// Calls that would have been repeated if the retry budget had allowed it.
    pub denied: u64,
}

impl Upstream {
    /// Looks at every site.
    pub fn look(&self) -> impl Iterator<Item = Look<'_>> {
        let now = self.now();
        self.names.iter().zip(&self.health).zip(&self.group_of).map(move |((name, health), group)| Look {
            site: name,
            in_flight: health.throttle.in_flight(),
            limit: health.throttle.limit(),
            doubtful: health.breakers.count(|breaker| breaker.standing() == Standing::Doubtful),
            closed: health.breakers.count(|breaker| breaker.standing() == Standing::Closed),
            cooling: self
                .groups
                .get(*group)
                .map_or(0, |group| group.quotas.count(|quota| quota.cooling(now).is_some())),
            refused: health.refused_until.load(Relaxed) > now,
            denied: health.denied.load(Relaxed),
        })
    }
}
