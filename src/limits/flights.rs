//! Requests at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

#[derive(Debug)]
pub(super) struct Flights {
    limit: u32,
    now: AtomicU32,
}

/// One request under way; it ends when this is dropped.
#[derive(Debug)]
pub(super) struct Flight(Arc<Flights>);

impl Flights {
    pub(super) fn new(limit: u32) -> Arc<Self> {
        Arc::new(Self { limit, now: AtomicU32::new(0) })
    }

    pub(super) fn limit(&self) -> u32 {
        self.limit
    }

    pub(super) fn take(self: &Arc<Self>) -> Option<Flight> {
        self.now
            .try_update(Ordering::AcqRel, Ordering::Acquire, |now| (now < self.limit).then_some(now + 1))
            .ok()
            .map(|_| Flight(Arc::clone(self)))
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.0.now.fetch_sub(1, Ordering::AcqRel);
    }
}
