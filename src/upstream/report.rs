//! How the sites stand, for operators.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;

use serde::Serialize;

use super::Upstream;
use super::breaker::Standing;
use crate::translate::Backend;

/// How one site stands at this moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Its name.
    pub name: String,
    /// `gemini_api`, `vertex` or `simulator`.
    pub kind: &'static str,
    /// The project whose quota it draws on.
    pub quota_group: String,
    /// Calls under way.
    pub in_flight: u32,
    /// How many there may be; fewer than configured while the site turns calls away.
    pub in_flight_limit: u32,
    /// So long its credential is not tried again, in milliseconds: Google refused it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credential_refused_for_ms: Option<u64>,
    /// Models that do not stand well there, by name; all others do.
    pub models: BTreeMap<String, ModelReport>,
}

/// How one model stands at a site.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ModelReport {
    /// `well`; `doubtful`: it failed in a row, comes last and is probed; `given_up`: it is only probed.
    pub breaker: &'static str,
    /// When the next probe may go, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_probe_in_ms: Option<u64>,
    /// How long until there is quota again, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quota_back_in_ms: Option<u64>,
    /// It is the day's quota that is spent.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub daily_quota_spent: bool,
}

impl Upstream {
    /// How all sites stand, in their order.
    pub fn reports(&self) -> Vec<Report> {
        let now = self.now();
        let each = self.sites.iter().zip(&self.health).zip(&self.group_of);
        let report = each.map(|((site, health), group)| {
            let mut models: BTreeMap<String, ModelReport> = BTreeMap::new();
            let well = || ModelReport {
                breaker: "well",
                next_probe_in_ms: None,
                quota_back_in_ms: None,
                daily_quota_spent: false,
            };
            for (model, breaker) in health.breakers.each() {
                let standing = match breaker.standing() {
                    Standing::Well => continue,
                    Standing::Doubtful => "doubtful",
                    Standing::Closed => "given_up",
                };
                let report = models.entry(model).or_insert_with(well);
                report.breaker = standing;
                report.next_probe_in_ms = Some(breaker.probe_at().saturating_sub(now));
            }
            for (model, quota) in self.groups.get(*group).into_iter().flat_map(|group| group.quotas.each()) {
                if let Some((until, spent)) = quota.cooling(now) {
                    let report = models.entry(model).or_insert_with(well);
                    report.quota_back_in_ms = Some(until.saturating_sub(now));
                    report.daily_quota_spent = spent;
                }
            }
            let refused = health.refused_until.load(Relaxed).saturating_sub(now);
            Report {
                name: site.name().to_owned(),
                kind: match site.backend() {
                    _ if site.is_simulator() => "simulator",
                    Backend::GeminiApi => "gemini_api",
                    Backend::Vertex => "vertex",
                },
                quota_group: site.group().to_owned(),
                in_flight: health.throttle.in_flight(),
                in_flight_limit: health.throttle.limit(),
                credential_refused_for_ms: (refused > 0).then_some(refused),
                models,
            }
        });
        report.collect()
    }
}
