//! Fairness where several keys draw on one count of requests.
//!
//! Requests are told apart by what each key asked for and had in the window ([`Shares`]); requests at once and tokens by
//! what each has and whether it was refused a moment ago ([`Contest`]).
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

/// How long a key that was refused counts as one that wants more.
const EAGER: u64 = 2000;

/// Who has how much of a count of requests at once, or of tokens. Whoever was refused a moment ago wants more than it
/// has; whoever was not has what it wants.
#[derive(Debug, Default)]
pub(super) struct Contest {
    keys: HashMap<u64, Sharer>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Sharer {
    /// What it holds; of tokens those of the present minute and those of the one before.
    held: u64,
    before: u64,
    slot: u64,
    /// When it was refused last, plus one.
    refused: u64,
}

impl Sharer {
    /// Moves on to the present minute, where the count is of tokens.
    fn turn(&mut self, held: bool, now: u64) {
        let slot = now / super::MINUTE;
        if held || slot == self.slot {
            return;
        }
        self.before = if slot == self.slot + 1 { self.held } else { 0 };
        (self.held, self.slot) = (0, slot);
    }

    fn used(&self, held: bool, now: u64) -> u64 {
        if held {
            return self.held;
        }
        let left = super::MINUTE - now % super::MINUTE;
        self.held.saturating_add(self.before.saturating_mul(left) / super::MINUTE)
    }

    fn eager(&self, now: u64) -> bool {
        self.refused > 0 && now < self.refused.saturating_add(EAGER)
    }
}

impl Contest {
    fn sharer(&mut self, key: u64, held: bool, now: u64) -> Option<&mut Sharer> {
        if self.keys.len() >= KEYS && !self.keys.contains_key(&key) {
            self.prune(now);
            if self.keys.len() >= KEYS {
                return None;
            }
        }
        let sharer = self.keys.entry(key).or_default();
        sharer.turn(held, now);
        Some(sharer)
    }

    /// Whether a key has its share already while others want theirs. `taken` of `limit` are taken by all; `held`:
    /// what is counted is given back.
    pub(super) fn has_enough(&mut self, key: u64, (taken, limit): (u64, u64), held: bool, now: u64) -> bool {
        if self.sharer(key, held, now).is_none() || taken < limit / 2 || self.keys.len() < 2 {
            return false;
        }
        let (mut mine, mut wanted) = (0, Vec::with_capacity(self.keys.len()));
        for (other, sharer) in &mut self.keys {
            sharer.turn(held, now);
            if *other == key {
                mine = sharer.used(held, now);
            } else if sharer.eager(now) {
                wanted.push(u64::MAX);
            } else {
                wanted.push(sharer.used(held, now));
            }
        }
        wanted.contains(&u64::MAX) && mine >= share(limit, &mut wanted)
    }

    pub(super) fn took(&mut self, key: u64, cost: u64, held: bool, now: u64) {
        if let Some(sharer) = self.sharer(key, held, now) {
            sharer.held = sharer.held.saturating_add(cost);
            sharer.refused = 0;
        }
    }

    pub(super) fn refused(&mut self, key: u64, held: bool, now: u64) {
        if let Some(sharer) = self.sharer(key, held, now) {
            sharer.refused = now + 1;
        }
    }

    /// What was charged turned out to be something else.
    pub(super) fn settled(&mut self, key: u64, (cost, actual): (u64, u64), held: bool, now: u64) {
        if let Some(sharer) = self.keys.get_mut(&key) {
            sharer.turn(held, now);
            sharer.held = sharer.held.saturating_add(actual).saturating_sub(cost);
        }
    }

    /// Forgets who neither has nor wants anything; false when nobody is left.
    pub(super) fn prune(&mut self, now: u64) -> bool {
        let slot = now / super::MINUTE;
        self.keys.retain(|_, sharer| {
            let fresh = slot <= sharer.slot + 1;
            (sharer.held > 0 && (sharer.slot == 0 || fresh)) || sharer.eager(now)
        });
        !self.keys.is_empty()
    }
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

    #[test]
    fn a_flood_that_holds_all_makes_room_for_whoever_is_refused() {
        let (mut contest, limit, mut flying) = (Contest::default(), 10, [0_u64; 2]);
        let ask = |contest: &mut Contest, flying: &mut [u64; 2], key: usize, now: u64| {
            let (id, taken) = (key as u64 + 1, flying[0] + flying[1]);
            if taken >= limit {
                contest.refused(id, true, now);
            } else if !contest.has_enough(id, (taken, limit), true, now) {
                contest.took(id, 1, true, now);
                flying[key] += 1;
            }
        };
        for now in 0..20 {
            ask(&mut contest, &mut flying, 0, now);
        }
        assert_eq!(flying, [10, 0], "nobody else wants any");
        for now in (100..4000).step_by(100) {
            ask(&mut contest, &mut flying, 1, now);
            // One of the flood's requests ends each time, and it asks for more at once.
            flying[0] -= 1;
            contest.settled(1, (1, 0), true, now);
            ask(&mut contest, &mut flying, 0, now);
            ask(&mut contest, &mut flying, 0, now);
        }
        assert!(flying[1] >= 4 && flying[0] >= 4, "{flying:?}");
    }

    #[test]
    fn tokens_are_shared_by_what_was_used_in_the_last_minute() {
        let mut contest = Contest::default();
        contest.took(1, 900, false, 1000);
        assert!(!contest.has_enough(1, (900, 1000), false, 2000), "nobody else wants any");
        contest.refused(2, false, 3000);
        assert!(contest.has_enough(1, (900, 1000), false, 4000));
        assert!(!contest.has_enough(2, (900, 1000), false, 4000));
        assert!(!contest.has_enough(1, (900, 1000), false, 6000), "who has not come again does not want any");
        contest.settled(1, (900, 100), false, 6000);
        contest.refused(2, false, 6000);
        assert!(!contest.has_enough(1, (900, 1000), false, 6500));
    }
}
