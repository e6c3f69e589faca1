//! The way in, over real sockets, with a double in the engine's place.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail that way")]

mod attacks;
mod double;
mod drain;
mod framing;
mod routing;
mod streaming;
