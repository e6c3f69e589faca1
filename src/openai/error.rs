//! The error object.
