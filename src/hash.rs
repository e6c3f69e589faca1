//! Hashes for tables whose keys no client can choose, or which were hashed with a secret before: there the library's own
//! hash costs more than the look into the table.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};

/// A table by numbers that are spread well already.
pub type ByHash<V> = HashMap<u64, V, BuildHasherDefault<Ready>>;

/// A table by names that no client adds to, or few of them.
pub type ByName<V> = HashMap<Box<str>, V, BuildHasherDefault<Quick>>;

/// Such names themselves.
pub type Names = HashSet<String, BuildHasherDefault<Quick>>;

/// Takes a number as its hash.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ready(u64);

impl Hasher for Ready {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        let mut quick = Quick(self.0);
        quick.write(bytes);
        self.0 = quick.0;
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }
}

/// Hashes eight bytes at a time. Whoever can choose them can make the hash the same for many.
#[derive(Clone, Copy, Debug)]
pub struct Quick(u64);

impl Default for Quick {
    fn default() -> Self {
        Self(0x243f_6a88_85a3_08d3)
    }
}

impl Quick {
    fn mix(&mut self, word: u64) {
        self.0 = (self.0 ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(27);
    }
}

impl Hasher for Quick {
    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 32)
    }

    fn write(&mut self, bytes: &[u8]) {
        let (chunks, rest) = bytes.as_chunks::<8>();
        for chunk in chunks {
            self.mix(u64::from_le_bytes(*chunk));
        }
        let last = rest.iter().fold(0, |last, byte| (last << 8) | u64::from(*byte));
        // The length keeps `ab`, `c` from being `a`, `bc`.
        self.mix(last ^ ((bytes.len() as u64) << 56));
    }

    fn write_u8(&mut self, _: u8) {
        // The end of a text, which its length has told.
    }
}

/// A hash of words in their order.
pub fn words(words: &[&str]) -> u64 {
    let mut hash = Quick::default();
    for word in words {
        hash.write(word.as_bytes());
    }
    hash.finish()
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
