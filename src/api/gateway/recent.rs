//! A bounded memory of items, for references to them where no store is configured.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::store::{History, Item};

/// How much is remembered.
const BYTES: usize = 64 << 20;
const ITEMS: usize = 100_000;

/// What belongs to an item beside its text, in bytes, more or less.
const AROUND: usize = 128;

/// The memory; the oldest goes first.
#[derive(Default)]
pub(super) struct Recent(Mutex<Kept>);

/// A tenant and an id.
type Name = (Arc<str>, Arc<str>);

#[derive(Default)]
struct Kept {
    by_id: HashMap<Name, (Arc<str>, u64)>,
    order: VecDeque<(Arc<str>, Arc<str>, u64)>,
    bytes: usize,
    last: u64,
}

impl std::fmt::Debug for Recent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recent").field("items", &self.0.lock().by_id.len()).finish()
    }
}

impl Recent {
    /// Remembers a tenant's items.
    pub(super) fn put(&self, tenant: &Arc<str>, items: Vec<Item>) {
        let mut kept = self.0.lock();
        let kept = &mut *kept;
        for Item { id, json } in items {
            let size = id.len() + json.len() + AROUND;
            if size > BYTES / 4 {
                continue;
            }
            kept.last += 1;
            let id: Arc<str> = id.into();
            let name = (Arc::clone(tenant), Arc::clone(&id));
            if let Some((old, _)) = kept.by_id.insert(name, (json.into(), kept.last)) {
                kept.bytes = kept.bytes.saturating_sub(id.len() + old.len() + AROUND);
            }
            kept.bytes += size;
            kept.order.push_back((Arc::clone(tenant), id, kept.last));
        }
        while kept.order.len() > ITEMS || kept.bytes > BYTES {
            let Some((tenant, id, number)) = kept.order.pop_front() else { break };
            let name = (tenant, id);
            // One that was put again is only as old as its last time.
            if kept.by_id.get(&name).is_some_and(|(_, latest)| *latest == number)
                && let Some((json, _)) = kept.by_id.remove(&name)
            {
                kept.bytes = kept.bytes.saturating_sub(name.1.len() + json.len() + AROUND);
            }
        }
    }

    /// The tenant's items among `ids` that are still known.
    pub(super) fn find(&self, tenant: &Arc<str>, ids: &[String]) -> History {
        let kept = self.0.lock();
        let known = |id: &String| {
            let (json, _) = kept.by_id.get(&(Arc::clone(tenant), id.as_str().into()))?;
            Some(Item { id: id.clone(), json: json.to_string() })
        };
        History { items: ids.iter().filter_map(known).collect(), marks: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(id: &str, size: usize) -> Vec<Item> {
        vec![Item { id: id.to_owned(), json: "x".repeat(size) }]
    }

    #[test]
    fn it_is_bounded_and_tells_tenants_apart() {
        let recent = Recent::default();
        let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        recent.put(&a, item("one", 10));
        let wanted = ["one".to_owned()];
        assert_eq!(recent.find(&a, &wanted).items.len(), 1);
        assert!(recent.find(&b, &wanted).items.is_empty());
        for number in 0..20 {
            recent.put(&b, item(&format!("big{number}"), 8 << 20));
        }
        assert!(recent.find(&a, &wanted).items.is_empty());
        assert!(recent.0.lock().bytes <= BYTES);
        assert_eq!(recent.find(&b, &["big19".to_owned(), "big0".to_owned()]).items.len(), 1);
        recent.put(&b, item("huge", BYTES));
        assert!(recent.find(&b, &["huge".to_owned()]).items.is_empty());
    }
}
