//! Thought signatures and the projects they come from.
//!
//! A signature is good only in the project that made it. So what is remembered under a call's id says where it was
//! made, a conversation goes back there while it can, and where it cannot, its signatures are left out: the
//! translation then writes the value that Google documents for histories of foreign make.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::translate::Signatures;

/// Between the project's name and the signature, which is base64.
const MARK: char = '\n';

/// The memory, as one project sees it.
#[derive(Debug)]
pub(super) struct Homed {
    memory: Arc<dyn Signatures>,
    group: Arc<str>,
    /// The project of the last call that was asked about: the one whose turn it is.
    last: Mutex<Option<Box<str>>>,
}

impl Homed {
    pub(super) fn new(memory: &Arc<dyn Signatures>, group: &str) -> Self {
        Self { memory: Arc::clone(memory), group: group.into(), last: Mutex::new(None) }
    }

    /// The project that the conversation comes from, if it is another one.
    pub(super) fn foreign(&self) -> Option<Box<str>> {
        self.last.lock().take().filter(|home| **home != *self.group)
    }

    fn look_up(&self, call_id: &str) -> Option<(bool, Arc<str>)> {
        let kept = self.memory.recall(call_id)?;
        // What was remembered by something older bears no mark, and is believed.
        let Some((home, signature)) = kept.split_once(MARK) else { return Some((true, kept)) };
        let mut last = self.last.lock();
        if last.as_deref() != Some(home) {
            *last = Some(home.into());
        }
        Some((home == &*self.group, signature.into()))
    }
}

impl Signatures for Homed {
    fn remember(&self, call_id: &str, signature: &str) {
        self.memory.remember(call_id, &format!("{}{MARK}{signature}", self.group));
    }

    fn recall(&self, call_id: &str) -> Option<Arc<str>> {
        self.look_up(call_id).filter(|(native, _)| *native).map(|(_, signature)| signature)
    }

    fn native(&self, call_id: &str) -> bool {
        self.look_up(call_id).is_none_or(|(native, _)| native)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::{Bounds, Memory};

    #[test]
    fn a_signature_is_good_at_home_only() {
        let memory = Arc::new(Memory::new(Bounds::default())).view("tenant");
        let (here, there) = (Homed::new(&memory, "here"), Homed::new(&memory, "there"));
        here.remember("call", "sig");
        assert_eq!(here.recall("call").as_deref(), Some("sig"));
        assert_eq!(here.foreign(), None);
        assert!(here.native("call") && here.native("unknown"));
        assert_eq!(there.recall("call"), None);
        assert!(!there.native("call"));
        assert_eq!(there.foreign().as_deref(), Some("here"));
        memory.remember("old", "plain");
        assert_eq!(there.recall("old").as_deref(), Some("plain"));
    }
}
