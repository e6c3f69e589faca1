//! What the operator sees: metrics and logs. No prompt, no answer and no secret ever gets here.

pub mod log;
pub mod metrics;

pub use log::{Format, clip, mask};
pub use metrics::{Accounts, Metrics};
