//! What a key may spend in a day or a month.

use super::{Charge, Claim, State};
use crate::error::{Error, Kind, Origin, Retry};

/// What a key may spend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// How much.
    pub amount: Amount,
    /// In which span.
    pub per: Period,
}

/// What a budget counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Amount {
    /// Nano-dollars.
    Nanos(u64),
    /// Tokens, of prompt and answer together.
    Tokens(u64),
}

impl Amount {
    pub(super) const fn count(self) -> u64 {
        match self {
            Self::Nanos(count) | Self::Tokens(count) => count,
        }
    }

    fn show(self, count: u64) -> String {
        match self {
            Self::Tokens(_) => format!("{count} tokens"),
            Self::Nanos(_) => {
                let text = format!("{}.{:06}", count / 1_000_000_000, count % 1_000_000_000 / 1000);
                let short = text.trim_end_matches('0');
                // At least cents are shown.
                let cents = text.find('.').map_or(text.len(), |dot| dot + 3);
                format!("${}", text.get(..short.len().max(cents)).unwrap_or(&text))
            }
        }
    }
}

/// The span of a budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Period {
    /// A calendar day, UTC.
    Day,
    /// A calendar month, UTC.
    Month,
}

impl Period {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Day => "day",
            Self::Month => "month",
        }
    }

    /// Which day, or which month, a time (seconds since 1970) falls into.
    pub(super) fn index(self, now: u64) -> u64 {
        match self {
            Self::Day => now / 86_400,
            Self::Month => {
                let (year, month) = civil(now / 86_400);
                year * 12 + month - 1
            }
        }
    }

    /// Its first second.
    pub fn start(self, index: u64) -> u64 {
        match self {
            Self::Day => index * 86_400,
            Self::Month => days(index / 12, index % 12 + 1) * 86_400,
        }
    }

    /// The first second of the current one.
    pub fn beginning(self, now: u64) -> u64 {
        self.start(self.index(now))
    }

    /// The first second after it.
    pub(super) fn end(self, index: u64) -> u64 {
        self.start(index + 1)
    }
}

/// The year and month of a day since 1970 (H. Hinnant's civil calendar, years counted from March).
fn civil(day: u64) -> (u64, u64) {
    let day = day + 719_468;
    let (era, of_era) = (day / 146_097, day % 146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let from_march = (5 * of_year + 2) / 153;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (year + era * 400 + u64::from(month <= 2), month)
}

/// The first day of a month, in days since 1970.
fn days(year: u64, month: u64) -> u64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (year / 400, year % 400);
    let from_march = if month > 2 { month - 3 } else { month + 9 };
    let of_year = (153 * from_march + 2) / 5;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// What was spent, in both units.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spent {
    /// Nano-dollars.
    pub nanos: u64,
    /// Tokens.
    pub tokens: u64,
}

impl Spent {
    pub(super) const fn of(self, amount: Amount) -> u64 {
        match amount {
            Amount::Nanos(_) => self.nanos,
            Amount::Tokens(_) => self.tokens,
        }
    }
}

/// One budget's state in this period.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Purse {
    pub(super) period: u64,
    /// When that is over, in the limiter's own time.
    pub(super) ends: u64,
    pub(super) spent: u64,
    pub(super) reserved: u64,
    /// How many requests hold a reserve.
    pub(super) holders: u32,
}

impl Purse {
    /// Whether the worst case fits. Where the client named no bound of its own, the worst case may be far more
    /// than what is left although the request is small; then it may run alone, holding all that is left.
    pub(super) fn look(&self, charge: &Charge, bounded: bool, until_reset: u64) -> Result<State, State> {
        let taken = self.spent.saturating_add(self.reserved);
        let left = charge.limit.saturating_sub(taken);
        let alone = !bounded && self.holders == 0 && left > 0;
        let state =
            State { remaining: left, millis: until_reset, spent: self.spent, reserved: self.reserved };
        if charge.cost <= left && left > 0 || alone { Ok(state) } else { Err(state) }
    }
}

pub(super) fn refused(
    budget: &Budget,
    period: u64,
    state: &State,
    charge: &Charge,
    claim: &Claim<'_>,
) -> Error {
    let show = |count| budget.amount.show(count);
    let under_way = match state.reserved {
        0 => String::new(),
        reserved => format!(", {} reserved by requests under way", show(reserved)),
    };
    let reset =
        i64::try_from(budget.per.end(period)).ok().and_then(|end| jiff::Timestamp::from_second(end).ok());
    let reset = reset.map_or_else(String::new, |reset| format!(" It resets at {reset}."));
    Error::new(
        Kind::QuotaSpent,
        Origin::Gateway,
        format!(
            "You exceeded your current quota: the budget of the API key '{}' is {} a {}, {} spent{under_way}; \
             this request may take {}.{reset}",
            claim.key,
            show(charge.limit),
            budget.per.as_str(),
            show(state.spent),
            show(charge.cost),
        ),
    )
    .code("insufficient_quota")
    .retry(Retry::After(std::time::Duration::from_millis(state.millis.max(1))))
}
