//! A bounded memory of thought signatures, for clients that drop the field in which they travel.
//!
//! One memory for all clients, so that its bounds hold for the process; but a client sees through its own
//! `View` only what was said to it, whatever ids another one uses.

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

impl Memory {
    /// What one tenant's calls came with.
    pub fn view(self: &Arc<Self>, tenant: &str) -> Arc<dyn Signatures> {
        Arc::new(View { memory: Arc::clone(self), tenant: tenant.into() })
    }

    fn keep(&self, id: &str, signature: &str) {
        let size = id.len() + signature.len();
        if size > self.bounds.bytes {
            return;
        }
        let now = Instant::now();
        let mut kept = self.kept.lock();
        kept.last += 1;
        let number = kept.last;
        let id: Arc<str> = id.into();
        let entry = Entry { signature: signature.into(), since: now, number };
        if let Some(before) = kept.by_id.insert(Arc::clone(&id), entry) {
            kept.bytes = kept.bytes.saturating_sub(id.len() + before.signature.len());
        }
        kept.bytes += size;
        kept.order.push_back((id, number));
        while kept.order.len() > self.bounds.entries || kept.bytes > self.bounds.bytes {
            if !kept.forget_oldest() {
                break;
            }
        }
    }

    fn find(&self, id: &str) -> Option<Arc<str>> {
        let kept = self.kept.lock();
        let entry = kept.by_id.get(id)?;
        (entry.since.elapsed() <= self.bounds.age).then(|| Arc::clone(&entry.signature))
    }
}

/// One tenant's part of the memory.
#[derive(Debug)]
struct View {
    memory: Arc<Memory>,
    tenant: Box<str>,
}

impl View {
    /// A tenant's name cannot end where another's id begins: its length stands before it.
    fn key(&self, call_id: &str) -> String {
        format!("{}:{}{call_id}", self.tenant.len(), self.tenant)
    }
}

impl Signatures for View {
    fn remember(&self, call_id: &str, signature: &str) {
        if !call_id.is_empty() && !signature.is_empty() {
            self.memory.keep(&self.key(call_id), signature);
        }
    }

    fn recall(&self, call_id: &str) -> Option<Arc<str>> {
        self.memory.find(&self.key(call_id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_goes_first_and_bounds_hold() {
        let memory = Arc::new(Memory::new(Bounds { entries: 2, bytes: 100, ..Bounds::default() }));
        let view = memory.view("t");
        view.remember("a", "1");
        view.remember("b", "2");
        view.remember("a", "3");
        assert_eq!(view.recall("a").as_deref(), Some("3"));
        view.remember("c", "4");
        assert_eq!(view.recall("b"), None);
        assert_eq!(view.recall("a").as_deref(), Some("3"));
        view.remember("d", &"x".repeat(95));
        assert_eq!(memory.len(), 1);
        view.remember("e", &"x".repeat(200));
        assert_eq!(view.recall("e"), None);
        let short = Arc::new(Memory::new(Bounds { age: Duration::ZERO, ..Bounds::default() })).view("t");
        short.remember("a", "1");
        std::thread::yield_now();
        assert_eq!(short.recall("a"), None);
    }

    #[test]
    fn tenants_do_not_see_each_other() {
        let memory = Arc::new(Memory::default());
        let (one, other, joined) = (memory.view("t"), memory.view("u"), memory.view("tc"));
        one.remember("call_1", "mine");
        other.remember("call_1", "yours");
        assert_eq!(one.recall("call_1").as_deref(), Some("mine"));
        assert_eq!(other.recall("call_1").as_deref(), Some("yours"));
        assert_eq!(joined.recall("all_1"), None);
        assert_eq!(memory.view("t").recall("call_1").as_deref(), Some("mine"));
    }
}
