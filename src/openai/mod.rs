//! The openai dialect: types only.
pub mod chat;
pub mod completion;
pub mod completions;
pub mod embeddings;
pub mod error;
pub mod models;
pub mod responses;
