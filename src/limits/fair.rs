//! Fairness where several keys draw on one count of requests.
//!
//! Whoever comes in greater numbers would get nearly all of it. So, once half of it is taken, a key that already has
//! its share waits while others want theirs. A share is an equal part, plus whatever the others do not ask for.

use std::collections::HashMap;

use super::window::Window;

/// Keys that are told apart in one count; more are never many at once, and the rest is served as it comes.
const KEYS: usize = 1024;

/// Who had how much of one count, and who asked for how much, in its window.
#[derive(Debug, Default)]
pub(super) struct Shares {
    keys: HashMap<u64, Share>,
}

#[derive(Debug, Default)]
struct Share {
    used: Option<Window>,
    asked: Option<Window>,
}

fn count(window: &mut Option<Window>, now: u64, span: u64) -> u64 {
    if window.as_mut().is_some_and(|window| !window.prune(now, span)) {
        *window = None;
    }
    window.as_ref().map_or(0, Window::total)
}

fn add(window: &mut Option<Window>, now: u64, span: u64) {
    match window {
        Some(window) => window.add(now, span),
        None => *window = Some(Window::first(now)),
    }
}

impl Shares {
    /// Notes that a key asks, and says whether it has had its share. `taken` of `limit` are taken by all.
    pub(super) fn has_enough(&mut self, key: u64, (taken, limit): (u64, u64), now: u64, span: u64) -> bool {
        if self.keys.len() >= KEYS && !self.keys.contains_key(&key) {
            self.prune(now, span);
            if self.keys.len() >= KEYS {
                return false;
            }
        }
        let mine = self.keys.entry(key).or_default();
        // What a key asks for beyond the whole limit changes nothing.
        if count(&mut mine.asked, now, span) < limit {
            add(&mut mine.asked, now, span);
        }
        if taken < limit / 2 || self.keys.len() < 2 {
            return false;
        }
        let used = self.keys.get_mut(&key).map_or(0, |mine| count(&mut mine.used, now, span));
        let mut wanted = Vec::with_capacity(self.keys.len());
        for (other, share) in &mut self.keys {
            if *other != key {
                wanted.push(count(&mut share.asked, now, span));
            }
        }
        used >= share(limit, &mut wanted)
    }

    pub(super) fn used(&mut self, key: u64, now: u64, span: u64) {
        if let Some(share) = self.keys.get_mut(&key) {
            add(&mut share.used, now, span);
        }
    }

    /// Forgets who has not come for a whole window; false when nobody is left.
    pub(super) fn prune(&mut self, now: u64, span: u64) -> bool {
        self.keys
            .retain(|_, share| count(&mut share.asked, now, span) + count(&mut share.used, now, span) > 0);
        !self.keys.is_empty()
    }
}

/// What one key may have beside others that want so much: small wishes are met whole, the rest is divided evenly.
fn share(limit: u64, wanted: &mut [u64]) -> u64 {
    wanted.sort_unstable();
    let mut left = limit;
    let mut sharers = wanted.len() as u64 + 1;
    for wish in wanted.iter() {
        let even = left / sharers;
        if *wish > even {
            return even.max(1);
        }
        left -= wish;
        sharers -= 1;
    }
    left.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_wishes_are_met_and_the_rest_is_divided() {
        assert_eq!(share(60, &mut []), 60);
        assert_eq!(share(60, &mut [100]), 30);
        assert_eq!(share(60, &mut [10]), 50);
        assert_eq!(share(60, &mut [100, 6]), 27);
    }

    #[test]
    fn a_flood_leaves_the_other_its_half() {
        let (mut shares, mut all, span) = (Shares::default(), None, 60_000);
        let (mut flood, mut calm) = (0, 0);
        for now in (0..600_000).step_by(100) {
            for (key, every) in [(1, 100), (2, 1000)] {
                if now % every != 0 {
                    continue;
                }
                let taken = count(&mut all, now, span);
                if shares.has_enough(key, (taken, 60), now, span) || taken >= 60 {
                    continue;
                }
                add(&mut all, now, span);
                shares.used(key, now, span);
                if now > 120_000 {
                    if key == 1 { flood += 1 } else { calm += 1 }
                }
            }
        }
        assert!(calm * 100 >= (flood + calm) * 45, "{calm} against {flood}");
        assert!(flood + calm > 450, "nothing is wasted: {flood} and {calm}");
    }
}
