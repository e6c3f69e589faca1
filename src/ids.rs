//! Names of replies and calls: random in life, counted in tests.

use std::sync::atomic::{AtomicU64, Ordering};

const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// Where names come from.
#[derive(Debug)]
pub enum Ids {
    /// 24 characters of the operating system's randomness: nobody can guess another's.
    Random,
    /// 1, 2, 3 … so that golden files are stable.
    Counted(AtomicU64),
}

impl Ids {
    /// Counted names, starting at 1.
    pub fn counted() -> Self {
        Self::Counted(AtomicU64::new(0))
    }

    /// `prefix` and 24 letters or digits (`chatcmpl-…`, `call_…`, `req_…`), or a number in tests.
    pub fn mint(&self, prefix: &str) -> String {
        match self {
            Self::Random => random(prefix),
            Self::Counted(last) => format!("{prefix}{}", last.fetch_add(1, Ordering::Relaxed) + 1),
        }
    }
}

fn random(prefix: &str) -> String {
    let mut bytes = [0_u8; 24];
    // Without randomness nothing on this machine works; ids then repeat, which no invariant of ours forbids.
    let _ = getrandom::fill(&mut bytes);
    let mut name = String::with_capacity(prefix.len() + bytes.len());
    name.push_str(prefix);
    for byte in bytes {
        name.push(char::from(ALPHABET.get(usize::from(byte) % 62).copied().unwrap_or(b'0')));
    }
    name
}
