//! The time of day, stopped in tests.

use std::time::{SystemTime, UNIX_EPOCH};

/// Where the time of day comes from.
#[derive(Clone, Copy, Debug)]
pub enum Clock {
    /// The machine's.
    System,
    /// Always this many seconds since 1970.
    Stopped(u64),
}

impl Clock {
    /// Seconds since 1970.
    pub fn unix_seconds(self) -> u64 {
        match self {
            Self::System => SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
            Self::Stopped(seconds) => seconds,
        }
    }

    /// Milliseconds since 1970.
    pub fn unix_millis(self) -> u64 {
        self.unix_micros() / 1000
    }

    /// Microseconds since 1970.
    pub fn unix_micros(self) -> u64 {
        match self {
            Self::System => SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| {
                since.as_secs().saturating_mul(1_000_000).saturating_add(since.subsec_micros().into())
            }),
            Self::Stopped(seconds) => seconds.saturating_mul(1_000_000),
        }
    }
}
