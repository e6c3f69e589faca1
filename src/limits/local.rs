//! Counts in this process. What a request touches is locked together, in order, looked at, and then charged.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};

use super::bucket::Rate;
use super::budget::{Budget, Period, Purse, Spent};
use super::fair::{Contest, Shares};
use super::shared::{Name, Said, Word};
use super::window::Window;
use super::{Charge, Refused, SHARD, State, Subject, Timer, Verdict, What, hash};
use crate::hash::ByHash;

const SHARDS: usize = 64;

#[derive(Debug)]
pub(super) struct Local {
    timer: Timer,
    shards: Vec<Mutex<Shard>>,
    /// What the ledger said had been spent, by key.
    known: Mutex<HashMap<(u64, Period), (u64, Spent)>>,
}

/// Counts by the hash of what they are of, which is a secret one. A count that says nothing is not there.
#[derive(Debug, Default)]
struct Shard {
    minutes: ByHash<Window>,
    days: ByHash<Window>,
    buckets: ByHash<f64>,
    flights: ByHash<u32>,
    purses: ByHash<Purse>,
    shares: ByHash<Shares>,
    contests: ByHash<Contest>,
    /// What is known of counts that replicas share, for the time without their store.
    parts: ByHash<Part>,
    /// What was let through here and is not counted there yet.
    untold: ByHash<Window>,
}

/// This replica's part of a count.
#[derive(Clone, Copy, Debug)]
struct Part {
    /// The count's name in the store.
    name: Name,
    span: u64,
    /// How many this replica may let through in a window: what it had, and an equal part of what was left.
    most: u64,
    /// When that was known, if it ever was.
    at: Option<u64>,
}

/// The shards that a request touches: that of its key, and those of the rules that apply to it.
enum Guards<'a> {
    One(MutexGuard<'a, Shard>),
    Many(Vec<(usize, MutexGuard<'a, Shard>)>),
}

fn place(id: u64) -> usize {
    usize::try_from((id >> SHARD) % SHARDS as u64).unwrap_or(0)
}

impl Guards<'_> {
    fn of(&mut self, id: u64) -> Option<&mut Shard> {
        match self {
            Self::One(shard) => Some(shard),
            Self::Many(shards) => {
                let wanted = place(id);
                shards.iter_mut().find(|(at, _)| *at == wanted).map(|(_, shard)| &mut **shard)
            }
        }
    }
}

impl Local {
    pub(super) fn new(timer: Timer) -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Self { timer, shards, known: Mutex::default() }
    }

    /// Locks what the charges need, always in the same order.
    fn lock(&self, charges: &[Charge]) -> Guards<'_> {
        let first = charges.first().map_or(0, |charge| place(charge.id));
        if charges.iter().all(|charge| place(charge.id) == first)
            && let Some(shard) = self.shards.get(first)
        {
            return Guards::One(shard.lock());
        }
        let mut places: Vec<usize> = charges.iter().map(|charge| place(charge.id)).collect();
        places.sort_unstable();
        places.dedup();
        Guards::Many(places.into_iter().filter_map(|at| Some((at, self.shards.get(at)?.lock()))).collect())
    }

    pub(super) fn admit(&self, charges: &[Charge], key: u64) -> Verdict {
        // Of the one that may be a budget's; the others begin with nothing.
        let budget = charges.iter().find(|charge| matches!(charge.what, What::Budget { .. }));
        let seed = budget.map_or(0, |budget| self.seed(budget, key));
        let mut guards = self.lock(charges);
        let now = self.timer.millis();
        let mut states = Vec::with_capacity(charges.len());
        let mut refused: Option<Refused> = None;
        for (at, charge) in charges.iter().enumerate() {
            let Some(shard) = guards.of(charge.id) else { continue };
            match shard.look(charge, key, now, seed) {
                Ok(state) => states.push(state),
                // The one that takes longest decides when to come back.
                Err(state) if refused.is_none_or(|other| other.state.millis < state.millis) => {
                    refused = Some(Refused { at, state });
                }
                Err(_) => {}
            }
        }
        if let Some(refused) = refused {
            return Err(refused);
        }
        for charge in charges {
            if let Some(shard) = guards.of(charge.id) {
                shard.take(charge, key, now);
            }
        }
        Ok(states)
    }

    pub(super) fn settle(&self, charges: &[Charge], actual: impl Fn(&Charge) -> u64, key: u64) {
        let mut guards = self.lock(charges);
        let now = self.timer.millis();
        for charge in charges {
            if let Some(shard) = guards.of(charge.id) {
                shard.settle(charge, actual(charge), key, now);
            }
        }
    }

    pub(super) fn now(&self) -> u64 {
        self.timer.millis()
    }

    fn shard(&self, id: u64) -> Option<MutexGuard<'_, Shard>> {
        self.shards.get(place(id)).map(Mutex::lock)
    }

    pub(super) fn remember(&self, key: &str, per: Period, period: u64, spent: Spent) {
        self.known.lock().insert((hash(key), per), (period, spent));
    }

    /// What is known to be spent of a budget before this process counted any; `key` is whose it is.
    pub(super) fn seed(&self, charge: &Charge, key: u64) -> u64 {
        let What::Budget { budget, period, .. } = &charge.what else { return 0 };
        if let Some(shard) = self.shards.get(place(charge.id))
            && let Some(purse) = shard.lock().purses.get(&charge.id).filter(|purse| purse.period == *period)
        {
            return purse.spent;
        }
        match self.known.lock().get(&(key, budget.per)) {
            Some((known, spent)) if known == period => spent.of(budget.amount),
            _ => 0,
        }
    }

    /// What the shared store said of a charge, in case it goes away or is late once. `took`: it let the request
    /// through; else it has no room. `replicas` share what is left.
    pub(super) fn learn(&self, charge: &Charge, state: &State, took: bool, replicas: u64) {
        let (now, span) = (self.now(), charge.what.span());
        let Some(mut shard) = self.shard(charge.id) else { return };
        match &charge.what {
            What::Minute | What::Day => {
                let own = shard.own(charge, took, now);
                let most = own.saturating_add(state.remaining / replicas);
                shard.parts.insert(charge.id, Part { name: Name::of(charge), span, most, at: Some(now) });
            }
            What::Input | What::Output | What::Total if took => {
                // A bucket that is a part of another is as full as that one.
                shard.buckets.insert(charge.id, super::bucket::float(now.saturating_add(state.millis)));
                let part = Part { name: Name::of(charge), span, most: 0, at: Some(now) };
                shard.parts.insert(charge.id, part);
            }
            What::Flights if took => *shard.flights.entry(charge.id).or_default() += 1,
            What::Budget { period, until_reset, .. } if took => {
                let ends = now.saturating_add(millis(*until_reset));
                let purse = shard.purses.entry(charge.id).or_default();
                *purse = Purse { period: *period, ends, spent: state.spent, ..*purse };
            }
            What::Input | What::Output | What::Total | What::Flights | What::Budget { .. } => {}
        }
    }

    /// The same when a request of ours has ended.
    pub(super) fn learn_settled(&self, charge: &Charge, actual: u64, key: u64) {
        let Some(mut shard) = self.shard(charge.id) else { return };
        if let What::Budget { period, .. } = &charge.what {
            if let Some(purse) = shard.purses.get_mut(&charge.id).filter(|purse| purse.period == *period) {
                purse.spent = purse.spent.saturating_add(actual);
            }
            return;
        }
        let now = self.now();
        shard.settle(charge, actual, key, now);
    }

    /// How much of a shared limit this replica may let through by itself. In the window after the store's last word it
    /// is what it had itself and its part of what was left: so all replicas together stay at the limit. Then it
    /// falls to an equal part where that is less, and another window later it rises to it where that is more.
    pub(super) fn part(&self, charge: &Charge, replicas: u64) -> u64 {
        let even = (charge.limit / replicas).max(charge.limit.min(1));
        let span = charge.what.span();
        if !matches!(charge.what, What::Minute | What::Day) {
            return even;
        }
        let known = self.shard(charge.id).and_then(|shard| shard.parts.get(&charge.id).copied());
        let Some((part, at)) = known.and_then(|part| Some((part, part.at?))) else { return even };
        match self.now().saturating_sub(at) {
            age if age < span => part.most.min(charge.limit),
            age if age < 2 * span => part.most.min(even),
            _ => even,
        }
    }

    /// A request was let through that the store does not know of, at this time.
    pub(super) fn untold(&self, charge: &Charge, at: u64) {
        if !matches!(charge.what, What::Minute | What::Day) {
            return;
        }
        let Some(mut shard) = self.shard(charge.id) else { return };
        let (name, span) = (Name::of(charge), charge.what.span());
        shard.parts.entry(charge.id).or_insert(Part { name, span, most: 0, at: None });
        let window = shard.untold.entry(charge.id).and_modify(|window| window.add(at, span));
        window.or_insert_with(|| Window::first(at));
    }

    /// All of that, to be told; it counts as told from here on.
    pub(super) fn take_untold(&self) -> Vec<Word> {
        let mut words = Vec::new();
        for shard in &self.shards {
            let shard = &mut *shard.lock();
            for (id, window) in shard.untold.drain() {
                if let Some(part) = shard.parts.get(&id) {
                    words.push(Word {
                        name: part.name,
                        said: Said::Requests(part.span, window.cells(self.now())),
                    });
                }
            }
        }
        words
    }

    /// Everything that this replica let through and that still counts, for a store that has lost it.
    pub(super) fn everything(&self) -> Vec<Word> {
        let mut words = Vec::new();
        let now = self.now();
        for shard in &self.shards {
            let shard = &mut *shard.lock();
            shard.untold.clear();
            for (id, part) in &shard.parts {
                let window = shard.minutes.get(id).or_else(|| shard.days.get(id));
                let said = match (window, shard.buckets.get(id)) {
                    (Some(window), _) => Said::Requests(part.span, window.cells(now)),
                    (None, Some(full_at)) => Said::Tokens(*full_at),
                    (None, None) => continue,
                };
                words.push(Word { name: part.name, said });
            }
        }
        words
    }

    pub(super) fn spent(&self, key: &str, budget: &Budget, period: u64) -> (u64, u64) {
        let what = What::Budget { budget: *budget, bounded: true, period, until_reset: Duration::ZERO };
        let key = hash(key);
        let charge = Charge::new(what, "key", &Subject::of_key(key), budget.amount.count(), 0);
        let reserved = self.shards.get(place(charge.id)).and_then(|shard| {
            shard
                .lock()
                .purses
                .get(&charge.id)
                .filter(|purse| purse.period == period)
                .map(|purse| purse.reserved)
        });
        (self.seed(&charge, key), reserved.unwrap_or(0))
    }

    pub(super) fn sweep(&self) {
        let now = self.timer.millis();
        for shard in &self.shards {
            shard.lock().sweep(now);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len()).sum()
    }
}

impl Shard {
    fn windows(&mut self, what: &What) -> &mut ByHash<Window> {
        if *what == What::Day { &mut self.days } else { &mut self.minutes }
    }

    /// Where a limit would stand with this request, or what it lacks.
    fn look(&mut self, charge: &Charge, key: u64, now: u64, seed: u64) -> Result<State, State> {
        match &charge.what {
            What::Minute | What::Day => self.look_at_window(charge, key, now),
            What::Input | What::Output | What::Total => {
                let full_at = self.buckets.get(&charge.id).copied().unwrap_or(0.0);
                let seen = Rate::new(charge.limit, charge.what.span()).look(full_at, now, charge.cost);
                let left = seen.map_or(0, |state| state.remaining.saturating_add(charge.cost));
                self.contested(charge, key, now, left, seen)
            }
            What::Flights => {
                let flying = u64::from(self.flights.get(&charge.id).copied().unwrap_or(0));
                let left = charge.limit.saturating_sub(flying);
                let state = State { remaining: left.saturating_sub(1), millis: 1000, ..State::default() };
                let seen = if left > 0 { Ok(state) } else { Err(state) };
                self.contested(charge, key, now, left, seen)
            }
            What::Budget { bounded, period, until_reset, .. } => {
                let purse = self.purses.entry(charge.id).or_default();
                if purse.period != *period {
                    let ends = now.saturating_add(millis(*until_reset));
                    *purse = Purse { period: *period, ends, spent: seed, ..Purse::default() };
                }
                purse.look(charge, *bounded, millis(*until_reset))
            }
        }
    }

    /// The same, after the question who of those that share the count is to wait. `left` of it is not taken.
    fn contested(
        &mut self,
        charge: &Charge,
        key: u64,
        now: u64,
        left: u64,
        seen: Result<State, State>,
    ) -> Result<State, State> {
        if !charge.common {
            return seen;
        }
        let contest = self.contests.entry(charge.id).or_default();
        let held = matches!(charge.what, What::Flights);
        match seen {
            Ok(_)
                if contest.has_enough(
                    key,
                    (charge.limit - left.min(charge.limit), charge.limit),
                    held,
                    now,
                ) =>
            {
                Err(State { millis: 1000, ..State::default() })
            }
            Ok(state) => Ok(state),
            Err(state) => {
                contest.refused(key, held, now);
                Err(state)
            }
        }
    }

    /// How much of a count this process has in its window, with this request if it `took` its place.
    fn own(&mut self, charge: &Charge, took: bool, now: u64) -> u64 {
        let span = charge.what.span();
        let windows = self.windows(&charge.what);
        if took {
            let window = windows.entry(charge.id).and_modify(|window| window.add(now, span));
            window.or_insert_with(|| Window::first(now));
        }
        let Some(window) = windows.get_mut(&charge.id) else { return 0 };
        if window.prune(now, span) {
            return window.total();
        }
        windows.remove(&charge.id);
        0
    }

    fn look_at_window(&mut self, charge: &Charge, key: u64, now: u64) -> Result<State, State> {
        let span = charge.what.span();
        let windows = self.windows(&charge.what);
        if windows.get_mut(&charge.id).is_some_and(|window| !window.prune(now, span)) {
            windows.remove(&charge.id);
        }
        let window = windows.get(&charge.id);
        let taken = window.map_or(0, Window::total);
        let (first, last) = window.map_or((0, span), |window| window.waits(now, span));
        if charge.common && charge.what == What::Minute {
            let shares = self.shares.entry(charge.id).or_default();
            if shares.has_enough(key, (taken, charge.limit), now, span) {
                return Err(State { millis: first.max(1000), ..State::default() });
            }
        }
        if taken >= charge.limit {
            let wait = if charge.limit == 0 { super::DAY } else { first };
            return Err(State { millis: wait, ..State::default() });
        }
        // With this request in it, the newest stops to count a whole window from now.
        Ok(State { remaining: charge.limit - taken - 1, millis: last.max(span), ..State::default() })
    }

    fn take(&mut self, charge: &Charge, key: u64, now: u64) {
        let span = charge.what.span();
        match &charge.what {
            What::Minute | What::Day => {
                self.windows(&charge.what)
                    .entry(charge.id)
                    .and_modify(|window| window.add(now, span))
                    .or_insert_with(|| Window::first(now));
                if charge.common
                    && charge.what == What::Minute
                    && let Some(shares) = self.shares.get_mut(&charge.id)
                {
                    shares.used(key, now, span);
                }
            }
            What::Input | What::Output | What::Total => {
                let rate = Rate::new(charge.limit, span);
                let full_at = self.buckets.entry(charge.id).or_default();
                *full_at = rate.take(*full_at, now, charge.cost);
                self.contend(charge, key, now, charge.cost);
            }
            What::Flights => {
                *self.flights.entry(charge.id).or_default() += 1;
                self.contend(charge, key, now, 1);
            }
            What::Budget { .. } => {
                let purse = self.purses.entry(charge.id).or_default();
                purse.reserved = purse.reserved.saturating_add(charge.cost);
                purse.holders += 1;
            }
        }
    }

    fn contend(&mut self, charge: &Charge, key: u64, now: u64, cost: u64) {
        if charge.common
            && let Some(contest) = self.contests.get_mut(&charge.id)
        {
            contest.took(key, cost, matches!(charge.what, What::Flights), now);
        }
    }

    fn settle(&mut self, charge: &Charge, actual: u64, key: u64, now: u64) {
        match &charge.what {
            What::Minute | What::Day => {}
            What::Input | What::Output | What::Total => {
                let rate = Rate::new(charge.limit, charge.what.span());
                let full_at = self.buckets.entry(charge.id).or_default();
                *full_at = rate.settle(*full_at, now, (charge.cost, actual));
                if let Some(contest) = self.contests.get_mut(&charge.id) {
                    contest.settled(key, (charge.cost, actual), false, now);
                }
            }
            What::Flights => {
                if let Some(contest) = self.contests.get_mut(&charge.id) {
                    contest.settled(key, (1, 0), true, now);
                }
                if let Some(flying) = self.flights.get_mut(&charge.id) {
                    *flying = flying.saturating_sub(1);
                    if *flying == 0 {
                        self.flights.remove(&charge.id);
                    }
                }
            }
            What::Budget { period, .. } => {
                // A request counts in the period in which it began; an old period is nobody's concern.
                if let Some(purse) = self.purses.get_mut(&charge.id).filter(|purse| purse.period == *period) {
                    purse.reserved = purse.reserved.saturating_sub(charge.cost);
                    purse.holders = purse.holders.saturating_sub(1);
                    purse.spent = purse.spent.saturating_add(actual);
                }
            }
        }
    }

    fn sweep(&mut self, now: u64) {
        self.minutes.retain(|_, window| window.prune(now, super::MINUTE));
        self.days.retain(|_, window| window.prune(now, super::DAY));
        self.buckets.retain(|_, full_at| *full_at > super::bucket::float(now));
        self.shares.retain(|_, shares| shares.prune(now, super::MINUTE));
        self.contests.retain(|_, contest| contest.prune(now));
        self.untold.retain(|id, window| self.parts.get(id).is_some_and(|part| window.prune(now, part.span)));
        let untold = &self.untold;
        self.parts.retain(|id, part| {
            part.at.is_some_and(|at| now.saturating_sub(at) < 2 * part.span) || untold.contains_key(id)
        });
        self.purses.retain(|_, purse| purse.ends > now);
        // Room that a crowd needed is given back when it has gone.
        shrink(&mut self.minutes);
        shrink(&mut self.days);
        shrink(&mut self.buckets);
        shrink(&mut self.flights);
        shrink(&mut self.purses);
        shrink(&mut self.parts);
        shrink(&mut self.untold);
    }

    fn len(&self) -> usize {
        self.minutes.len() + self.days.len() + self.buckets.len() + self.flights.len() + self.purses.len()
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn shrink<V>(map: &mut ByHash<V>) {
    if map.capacity() > 64 && map.len() * 4 < map.capacity() {
        map.shrink_to(map.len() * 2);
    }
}
