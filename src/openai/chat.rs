//! Chat Completions requests.
