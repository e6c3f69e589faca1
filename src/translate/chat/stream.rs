//! Chat: stream.
