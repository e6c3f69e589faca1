//! Gemway: the OpenAI-compatible gateway in front of Google Gemini.

pub mod admin;
pub mod api;
pub mod app;
pub mod body;
pub mod catalog;
pub mod cli;
pub mod clock;
pub mod config;
pub mod error;
pub mod fetch;
pub mod gemini;
pub mod ids;
pub mod keys;
pub mod limits;
pub mod memory;
pub mod meter;
pub mod openai;
pub mod server;
pub mod simulator;
pub mod sse;
pub mod store;
pub mod telemetry;
pub mod translate;
pub mod upstream;
pub mod usage;
pub mod wire;
