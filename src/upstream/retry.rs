//! What a failure means for the next try, and how long to wait before it.

use std::time::Duration;

use tower::retry::budget::{Budget as _, TpsBudget};

use super::fail;
use crate::error::{Error, Kind, Origin, Retry};

/// Retries that a site's ordinary traffic pays for: one for every five requests…
const SHARE: f32 = 0.2;
/// …and as many a second whatever the traffic is.
const FLOOR_PER_SECOND: u32 = 10;
const REMEMBERED: Duration = Duration::from_secs(10);
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// What a failed call says about trying again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// Nobody would answer this differently.
    Final,
    /// This place may do better in a moment, and another one at once.
    Fault,
    /// This project has no quota for this model for so long.
    Quota(Option<Duration>),
    /// This project has no quota today, or no money.
    Spent,
    /// This place cannot serve us until somebody acts.
    Refused,
    /// We gave up waiting; the model may still be thinking, at our cost.
    Slow,
}

impl Class {
    pub(super) fn of(error: &Error) -> Self {
        if error.origin() != Origin::Upstream {
            return Self::Final;
        }
        let wait = match error.retries() {
            Retry::After(wait) => Some(wait),
            Retry::Soon | Retry::Never => None,
        };
        match error.kind() {
            Kind::RateLimited => Self::Quota(wait),
            Kind::QuotaSpent => Self::Spent,
            Kind::UpstreamRefused => Self::Refused,
            // A certificate that cannot be trusted stays so; another place has another.
            Kind::UpstreamUnreachable if error.retries() == Retry::Never => Self::Refused,
            Kind::Timeout => match (error.explicit_code(), fail::is_ours(error)) {
                (Some("request_timeout"), _) => Self::Final,
                (Some("upstream_connect_timeout"), _) | (_, false) => Self::Fault,
                (_, true) => Self::Slow,
            },
            Kind::Overloaded
            | Kind::UpstreamFailed
            | Kind::UpstreamBroken
            | Kind::UpstreamUnreachable
            | Kind::Conflict => {
                if error.retries() == Retry::Never {
                    Self::Final
                } else {
                    Self::Fault
                }
            }
            Kind::Malformed
            | Kind::Invalid
            | Kind::Unsupported
            | Kind::Unauthenticated
            | Kind::Forbidden
            | Kind::NotFound
            | Kind::MethodNotAllowed
            | Kind::UpgradeRequired
            | Kind::UnsupportedMedia
            | Kind::ExpectationFailed
            | Kind::RequestTimeout
            | Kind::TooLarge
            | Kind::TargetTooLong
            | Kind::ContextTooLong
            | Kind::Blocked
            | Kind::Draining
            | Kind::ClientGone
            | Kind::Internal => Self::Final,
        }
    }

    /// Whether the place failed, rather than the quota or the request.
    pub(super) fn blames_site(self) -> bool {
        matches!(self, Self::Fault | Self::Slow)
    }
}

/// The pause before the `n`-th return to a place (from 1): anything up to a bound that doubles, so that many
/// callers who failed together do not come back together. `random` is anything.
pub(super) fn pause(n: u32, random: u64) -> Duration {
    let bound = FIRST_PAUSE.saturating_mul(1 << n.saturating_sub(1).min(10)).min(LONGEST_PAUSE);
    let bound = u64::try_from(bound.as_micros()).unwrap_or(u64::MAX).max(1);
    Duration::from_micros(random % bound)
}

/// How many retries a site may be sent.
#[derive(Debug)]
pub(super) struct Budget(TpsBudget);

impl Budget {
    pub(super) fn new() -> Self {
        Self(TpsBudget::new(REMEMBERED, FLOOR_PER_SECOND, SHARE))
    }

    /// An ordinary call is made.
    pub(super) fn earn(&self) {
        self.0.deposit();
    }

    /// Asks to repeat one.
    pub(super) fn spend(&self) -> bool {
        self.0.withdraw()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_may_pass_is_tried_again() {
        let upstream = |kind| Error::new(kind, Origin::Upstream, "x");
        for (error, class) in [
            (upstream(Kind::Overloaded).retry(Retry::Soon), Class::Fault),
            (upstream(Kind::UpstreamFailed).retry(Retry::Soon), Class::Fault),
            (upstream(Kind::UpstreamFailed), Class::Final),
            (upstream(Kind::UpstreamUnreachable).retry(Retry::Soon), Class::Fault),
            (upstream(Kind::UpstreamUnreachable).code("upstream_tls_error"), Class::Refused),
            (upstream(Kind::RateLimited).retry(Retry::Soon), Class::Quota(None)),
            (
                upstream(Kind::RateLimited).retry(Retry::After(Duration::from_secs(2))),
                Class::Quota(Some(Duration::from_secs(2))),
            ),
            (upstream(Kind::QuotaSpent), Class::Spent),
            (upstream(Kind::UpstreamRefused), Class::Refused),
            (upstream(Kind::Timeout).code("upstream_timeout").retry(Retry::Soon), Class::Fault),
            (fail::timeout("upstream_timeout", "x"), Class::Slow),
            (fail::timeout("upstream_connect_timeout", "x"), Class::Fault),
            (fail::timeout("request_timeout", "x"), Class::Final),
            (upstream(Kind::NotFound), Class::Final),
            (upstream(Kind::Blocked), Class::Final),
            (Error::new(Kind::Invalid, Origin::Client, "x"), Class::Final),
            (Error::new(Kind::RateLimited, Origin::Gateway, "x").retry(Retry::Soon), Class::Final),
        ] {
            assert_eq!(Class::of(&error), class, "{error:?}");
        }
    }

    #[test]
    fn pauses_grow_to_a_bound_and_are_all_of_their_range() {
        for (n, bound) in [(1, 100), (2, 200), (3, 400), (7, 5000), (60, 5000)] {
            assert!(pause(n, u64::MAX) < Duration::from_millis(bound));
            assert_eq!(pause(n, 0), Duration::ZERO);
            assert_eq!(pause(n, bound * 1000 - 1), Duration::from_micros(bound * 1000 - 1));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_storm_is_repeated_by_a_fifth() {
        let budget = Budget::new();
        (0..1000).for_each(|_| budget.earn());
        let granted = (0..1000).filter(|_| budget.spend()).count();
        assert!((200..=300).contains(&granted), "{granted}");
        tokio::time::advance(Duration::from_secs(11)).await;
        assert!((90..=110).contains(&(0..1000).filter(|_| budget.spend()).count()));
    }
}
