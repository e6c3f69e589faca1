//! A bounded memory of thought signatures, for clients that drop the field in which they travel.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::translate::Signatures;

/// How much is kept, and how long.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Signatures.
    pub entries: usize,
    /// Bytes of ids and signatures together.
    pub bytes: usize,
    /// Age.
    pub age: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { entries: 50_000, bytes: 64 << 20, age: Duration::from_hours(6) }
    }
}

/// The memory; the oldest goes first.
#[derive(Default)]
pub struct Memory {
    bounds: Bounds,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    by_id: HashMap<Arc<str>, Entry>,
    /// Ids in the order of remembering; one that was remembered again appears again, with a newer number.
    order: VecDeque<(Arc<str>, u64)>,
    bytes: usize,
    last: u64,
}

struct Entry {
    signature: Arc<str>,
    since: Instant,
    number: u64,
}

impl Memory {
    /// An empty memory.
    pub fn new(bounds: Bounds) -> Self {
        Self { bounds, kept: Mutex::default() }
    }

    /// How many signatures are kept.
    pub fn len(&self) -> usize {
        self.kept.lock().by_id.len()
    }

    /// Whether none is kept.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl std::fmt::Debug for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Memory").field("bounds", &self.bounds).finish_non_exhaustive()
    }
}

impl Kept {
    fn forget_oldest(&mut self) -> bool {
        let Some((id, number)) = self.order.pop_front() else { return false };
        if self.by_id.get(&id).is_some_and(|entry| entry.number == number)
            && let Some(entry) = self.by_id.remove(&id)
        {
            self.bytes = self.bytes.saturating_sub(id.len() + entry.signature.len());
        }
        true
    }
}

impl Signatures for Memory {
    fn remember(&self, call_id: &str, signature: &str) {
        let size = call_id.len() + signature.len();
        if call_id.is_empty() || signature.is_empty() || size > self.bounds.bytes {
            return;
        }
        let now = Instant::now();
        let mut kept = self.kept.lock();
        kept.last += 1;
        let number = kept.last;
        let id: Arc<str> = call_id.into();
        let entry = Entry { signature: signature.into(), since: now, number };
        if let Some(before) = kept.by_id.insert(Arc::clone(&id), entry) {
            kept.bytes = kept.bytes.saturating_sub(call_id.len() + before.signature.len());
        }
        kept.bytes += size;
        kept.order.push_back((id, number));
        while kept.order.len() > self.bounds.entries || kept.bytes > self.bounds.bytes {
            if !kept.forget_oldest() {
                break;
            }
        }
    }

    fn recall(&self, call_id: &str) -> Option<Arc<str>> {
        let kept = self.kept.lock();
        let entry = kept.by_id.get(call_id)?;
        (entry.since.elapsed() <= self.bounds.age).then(|| Arc::clone(&entry.signature))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_goes_first_and_bounds_hold() {
        let memory = Memory::new(Bounds { entries: 2, bytes: 100, ..Bounds::default() });
        memory.remember("a", "1");
        memory.remember("b", "2");
        memory.remember("a", "3");
        assert_eq!(memory.recall("a").as_deref(), Some("3"));
        memory.remember("c", "4");
        assert_eq!(memory.recall("b"), None);
        assert_eq!(memory.recall("a").as_deref(), Some("3"));
        memory.remember("d", &"x".repeat(98));
        assert_eq!(memory.len(), 1);
        memory.remember("e", &"x".repeat(200));
        assert_eq!(memory.recall("e"), None);
        let short = Memory::new(Bounds { age: Duration::ZERO, ..Bounds::default() });
        short.remember("a", "1");
        std::thread::yield_now();
        assert_eq!(short.recall("a"), None);
    }
}
