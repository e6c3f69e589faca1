//! The way in, over real sockets, with a double in the engine's place.

mod double;
mod drain;
mod framing;
mod routing;
mod streaming;
