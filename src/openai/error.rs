//! The error object.

use serde::{Deserialize, Serialize};

/// What every failed call answers with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// The error.
    pub error: ErrorObject,
}

/// The error itself. All four keys are always present: typed clients insist.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorObject {
    /// A sentence for a person.
    pub message: String,
    /// The family (`invalid_request_error`, `server_error`, …).
    #[serde(rename = "type")]
    pub kind: String,
    /// The field at fault, as a JSON path.
    pub param: Option<String>,
    /// What exactly, for programs.
    pub code: Option<String>,
}
