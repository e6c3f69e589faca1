//! Names of replies and calls: random in life, counted in tests.

use std::cell::RefCell;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
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

/// Bytes of an id, before they become characters.
const LENGTH: usize = 24;

/// Randomness that a thread has asked for and not used yet: the system is asked once for a hundred ids.
struct Pool {
    bytes: [u8; ROOM],
    used: usize,
}

const ROOM: usize = 100 * LENGTH;

thread_local! {
    static POOL: RefCell<Pool> = const { RefCell::new(Pool { bytes: [0; ROOM], used: ROOM }) };
}

impl Pool {
    fn take(&mut self) -> [u8; LENGTH] {
        if self.used >= self.bytes.len() {
            fill(&mut self.bytes);
            self.used = 0;
        }
        let fresh = self.bytes.get_mut(self.used..).and_then(<[u8]>::first_chunk_mut);
        self.used += LENGTH;
        // What was given out is wiped: nobody gets it a second time.
        fresh.map(|bytes| std::mem::replace(bytes, [0; LENGTH])).unwrap_or_default()
    }
}

/// Fills `bytes` with randomness.
pub fn fill(bytes: &mut [u8]) {
    if getrandom::fill(bytes).is_err() {
        // A static binary in a root without /dev finds none that way.
        hashed(bytes);
    }
}

/// Bytes that nobody can guess who does not know the keys of a hasher, which the standard library draws from the system
/// by a way of its own. Each hasher has other keys.
fn hashed(bytes: &mut [u8]) {
    let keys = RandomState::new();
    for (at, chunk) in bytes.chunks_mut(8).enumerate() {
        for (byte, fresh) in chunk.iter_mut().zip(keys.hash_one(at).to_le_bytes()) {
            *byte = fresh;
        }
    }
}

fn random(prefix: &str) -> String {
    let bytes = POOL.with_borrow_mut(Pool::take);
    let mut name = String::with_capacity(prefix.len() + LENGTH);
    name.push_str(prefix);
    let mut letters = [b'0'; LENGTH];
    for (letter, byte) in letters.iter_mut().zip(bytes) {
        *letter = ALPHABET.get(usize::from(byte) % ALPHABET.len()).copied().unwrap_or(b'0');
    }
    name.push_str(std::str::from_utf8(&letters).unwrap_or_default());
    name
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn ids_differ_where_the_system_gives_no_bytes() {
        let mut seen = HashSet::new();
        for _ in 0..100 {
            let mut bytes = [0; 10 * LENGTH];
            hashed(&mut bytes);
            assert!(bytes.chunks(LENGTH).all(|id| seen.insert(id.to_vec())));
        }
    }

    #[test]
    fn random_ids_are_long_plain_and_never_the_same() {
        let ids: HashSet<String> = (0..1000).map(|_| Ids::Random.mint("call_")).collect();
        assert_eq!(ids.len(), 1000);
        for id in ids {
            let own = id.strip_prefix("call_").unwrap();
            assert_eq!(own.len(), LENGTH);
            assert!(
                own.bytes().all(|byte| byte.is_ascii_alphanumeric()) && own.contains(|c| c != '0'),
                "{own}"
            );
        }
    }
}
