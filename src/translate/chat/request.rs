//! Chat: request.
