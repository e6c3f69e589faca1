//! Chat Completions replies and chunks.
