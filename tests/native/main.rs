//! Google's own endpoints through the gateway, over real sockets: what Google sees, and what the client gets.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests fail that way"
)]

mod again;
mod calls;
mod fake;
mod kept;
mod limits;
mod seeds;
mod upload;
