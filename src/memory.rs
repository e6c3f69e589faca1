//! A bounded memory of thought signatures.
