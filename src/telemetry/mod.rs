//! What the operator sees: metrics, logs and traces. No prompt, no answer and no secret ever gets here.

pub mod log;
pub mod metrics;
pub mod otlp;
pub mod trace;

pub use log::{Format, clip, clipped, mask};
pub use metrics::{Accounts, Metrics};
