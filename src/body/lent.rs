//! Memory for long bodies, used again.
//!
//! Megabytes that come fresh from the system are cleared by it page by page, which for a body that is read, forwarded and
//! forgotten costs more than reading it. So what a long body lay in is kept for a moment for the next one.

use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::time::Instant;

/// Bodies shorter than this take what the allocator gives: that is warm as well.
pub(super) const LONG: usize = 256 << 10;
/// Bytes that are kept, in all.
const MOST: usize = 32 << 20;
/// How long they are kept when nobody wants them.
const WHILE: Duration = Duration::from_secs(2);

/// What is kept, and since when.
static KEPT: Mutex<Vec<(Instant, Vec<u8>)>> = Mutex::new(Vec::new());

/// A buffer that is kept when it is no longer needed.
#[derive(Debug)]
pub(super) struct Lent(Vec<u8>);

impl Lent {
    /// An empty one with room for so many bytes.
    pub(super) fn new(room: usize) -> Self {
        let mut kept = KEPT.lock();
        // Not one that is much too large: whoever holds a little in it for long would hold all of it.
        let fits = |buffer: &Vec<u8>| (room..room.saturating_mul(4)).contains(&buffer.capacity());
        let found = kept.iter().rposition(|(_, buffer)| fits(buffer));
        let found = found.map(|at| kept.swap_remove(at).1);
        drop(kept);
        Self(found.unwrap_or_else(|| Vec::with_capacity(room)))
    }

    /// Bytes in it.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Puts bytes behind those that are in it.
    pub(super) fn extend(&mut self, bytes: &[u8]) {
        let needed = self.0.len() + bytes.len();
        if needed > self.0.capacity() {
            let mut larger = Self::new(needed.max(2 * self.0.capacity()));
            larger.0.extend_from_slice(&self.0);
            *self = larger;
        }
        self.0.extend_from_slice(bytes);
    }

    /// What is in it, as handles; it is kept when the last of them is gone.
    pub(super) fn freeze(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let mut buffer = std::mem::take(&mut self.0);
        // Who gives it back to the system later needs a runtime for that.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        buffer.clear();
        let mut kept = KEPT.lock();
        let size: usize = kept.iter().map(|(_, buffer)| buffer.capacity()).sum();
        if buffer.capacity() < LONG || size + buffer.capacity() > MOST {
            return;
        }
        let first = kept.is_empty();
        kept.push((Instant::now(), buffer));
        drop(kept);
        if first {
            runtime.spawn(sweep());
        }
    }
}

/// Lets go of what nobody wants, until nothing is left.
async fn sweep() {
    loop {
        tokio::time::sleep(WHILE).await;
        let mut kept = KEPT.lock();
        kept.retain(|(since, _)| since.elapsed() < WHILE);
        if kept.is_empty() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // One test: what is kept is kept for all.
    #[tokio::test(start_paused = true)]
    async fn a_buffer_is_used_again_and_let_go_in_the_end() {
        let mut first = Lent::new(LONG);
        first.extend(&vec![7; LONG / 2]);
        let place = first.0.as_ptr();
        let bytes = first.freeze();
        let slice = bytes.slice(5..9);
        drop(bytes);
        assert_ne!(Lent::new(LONG).0.as_ptr(), place, "a handle is left");
        drop(slice);
        assert!(KEPT.lock().iter().any(|(_, buffer)| buffer.as_ptr() == place && buffer.is_empty()));
        // It is too large for so little, and grows into what is larger.
        let mut small = Lent::new(LONG / 8);
        assert_ne!(small.0.as_ptr(), place);
        for _ in 0..16 {
            small.extend(&vec![1; LONG / 8]);
        }
        assert!(small.len() == 2 * LONG && small.as_ref().iter().all(|byte| *byte == 1));
        drop(small);
        let many: Vec<_> = (0..64).map(|_| Lent::new(1 << 20)).collect();
        drop(many);
        let size = || KEPT.lock().iter().map(|(_, buffer)| buffer.capacity()).sum::<usize>();
        assert!(size() <= MOST && size() > MOST / 2, "{}", size());
        tokio::time::sleep(3 * WHILE).await;
        assert_eq!(size(), 0);
    }
}
