//! What the gateway makes of a Google that misbehaves: over real sockets, row by row.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod drain;
mod health;
mod heartbeat;
mod hedge;
mod http2;
mod identity;
mod leaving;
mod names;
mod pool;
mod rows;
mod soak;
mod stage;
mod table;
