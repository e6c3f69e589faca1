//! Hashes for tables whose keys no client can choose, or which were hashed with a secret before: there the library's own
//! hash costs more than the look into the table.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// A table by numbers that are spread well already.
pub type ByHash<V> = HashMap<u64, V, BuildHasherDefault<Ready>>;

/// Takes a number as its hash.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ready(u64);

impl Hasher for Ready {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = mixed(self.0, u64::from(*byte));
        }
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }
}

/// A hash of words in their order. Whoever can choose them can make it the same for many: not for clients' words.
pub fn words(words: &[&str]) -> u64 {
    let mut hash = 0x243f_6a88_85a3_08d3;
    for word in words {
        let (chunks, rest) = word.as_bytes().as_chunks::<8>();
        for chunk in chunks {
            hash = mixed(hash, u64::from_le_bytes(*chunk));
        }
        let last = rest.iter().fold(0, |last, byte| last << 8 | u64::from(*byte));
        // The length keeps `ab`, `c` from being `a`, `bc`.
        hash = mixed(hash, last ^ (word.len() as u64) << 56);
    }
    hash ^ hash >> 32
}

fn mixed(hash: u64, word: u64) -> u64 {
    (hash ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(27)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn words_that_differ_have_hashes_that_do() {
        let all = ["", "a", "b", "ab", "abcdefgh", "abcdefghi", "gemini-2.5-flash", "gemini-2.5-pro", "chat"];
        let mut seen = HashSet::new();
        for one in all {
            for other in all {
                assert!(seen.insert(words(&[one, other])), "{one}, {other}");
            }
            assert!(seen.insert(words(&[one])) || one.is_empty(), "{one}");
        }
        assert_ne!(words(&["ab", "c"]), words(&["a", "bc"]));
    }

    #[test]
    fn a_number_is_its_own_hash() {
        let mut table = ByHash::default();
        table.insert(7, "seven");
        assert_eq!(table.get(&7), Some(&"seven"));
        let mut hasher = Ready::default();
        hasher.write_u64(7);
        assert_eq!(hasher.finish(), 7);
    }
}
