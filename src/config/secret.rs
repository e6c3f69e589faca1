//! Secrets: `env:NAME`, `file:PATH` or the thing itself.

use std::path::Path;

use secrecy::SecretString;

use super::{Env, ReadFile};
use crate::hex;

/// Fetches what `text` points to. The complaint never repeats a literal.
pub(super) fn fetch(text: &str, env: Env<'_>, read: ReadFile<'_>) -> Result<SecretString, String> {
    let value = if let Some(name) = text.strip_prefix("env:") {
        env(name).ok_or_else(|| format!("the environment variable {name} is not set"))?
    } else if let Some(path) = text.strip_prefix("file:") {
        read(Path::new(path)).map_err(|error| format!("cannot read the secret file {path}: {error}"))?
    } else {
        text.to_owned()
    };
    let value = value.trim();
    if value.is_empty() {
        return Err("the secret is empty".to_owned());
    }
    if value.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err("the secret has a space or a control character inside".to_owned());
    }
    Ok(value.to_owned().into())
}

/// Reads `sha256:` and 64 hexadecimal digits.
pub(super) fn digest(text: &str) -> Option<[u8; 32]> {
    text.strip_prefix("sha256:").and_then(hex::read)
}
