//! An answer on its way: the place that it takes up at its site, and what its end says about that site.

use std::sync::Arc;

use tokio::time::Instant;

use super::breaker::Breaker;
use super::retry::Class;
use super::throttle::Flight;
use super::trip::millis;
use crate::error::Error;

/// A streamed answer that has begun; to be kept as long as it goes on.
#[derive(Debug)]
pub struct Course {
    /// Given back with the course.
    pub(super) _flight: Option<Flight>,
    pub(super) breaker: Arc<Breaker>,
    /// Whether it is to show that its site is well again.
    pub(super) probe: bool,
    pub(super) epoch: Instant,
}

impl Course {
    /// The answer is over: it came to its end, or failed like this. Whoever leaves before that says nothing.
    pub fn ended(&mut self, failure: Option<&Error>) {
        match failure {
            None => self.breaker.ended(std::mem::take(&mut self.probe)),
            Some(error) if Class::of(error).blames_site() => {
                self.probe = false;
                self.breaker.broke(millis(self.epoch.elapsed()));
            }
            Some(_) => {}
        }
    }
}

impl Drop for Course {
    fn drop(&mut self) {
        if self.probe {
            self.breaker.abandoned();
        }
    }
}
