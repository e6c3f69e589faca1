//! The gemini dialect: types only.
pub mod ask;
pub mod answer;
pub mod error;
