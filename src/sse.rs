//! Server-sent events and JSON-array streams.
