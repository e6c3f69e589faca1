//! `/v1/embeddings` ↔ `batchEmbedContents`, `embedContent` and `predict`.
//!
//! One request becomes a [`Plan`]: the inputs, and how they are split into calls. Each answer becomes [`Vectors`]
//! as soon as it is there, so that what Google wrote can be let go; [`reply`] puts them in order. Numbers are
//! never made into a tree: they are text that is spliced, or read once.

mod decimal;
mod numbers;
mod plan;
mod request;
mod vectors;

#[cfg(test)]
mod tests;

pub use plan::{Plan, Way};
pub use request::{encoding, parse, plan};
pub use vectors::{Vectors, reply};

/// What the answering half must know of the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Vectors leave as base64 of little-endian 32-bit floats.
    pub base64: bool,
    /// Vectors are brought to length one.
    pub rescale: bool,
    /// How many numbers each must have, where the client said so.
    pub dimensions: Option<usize>,
}
