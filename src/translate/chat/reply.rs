//! Chat: reply.
