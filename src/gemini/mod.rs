//! The gemini dialect: types only.
pub mod answer;
pub mod ask;
pub mod embed;
pub mod error;
mod plain;
