//! What the gateway makes of a Google that misbehaves: over real sockets, row by row.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod leaving;
mod rows;
mod stage;
mod table;
