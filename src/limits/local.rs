//! Counts in this process. What a request touches is locked together, in order, looked at, and then charged.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};

use super::bucket::Rate;
use super::budget::{Budget, Period, Purse, Spent};
use super::fair::Shares;
use super::window::Window;
use super::{Charge, Refused, State, Timer, Verdict, What, hash};

const SHARDS: usize = 64;

#[derive(Debug)]
pub(super) struct Local {
    timer: Timer,
    shards: Vec<Mutex<Shard>>,
    /// What the ledger said had been spent, by key.
    known: Mutex<HashMap<(u64, Period), (u64, Spent)>>,
}

/// Counts by the hash of what they are of. A count that says nothing is not there.
#[derive(Debug, Default)]
struct Shard {
    minutes: HashMap<u64, Window>,
    days: HashMap<u64, Window>,
    buckets: HashMap<u64, f64>,
    flights: HashMap<u64, u32>,
    purses: HashMap<u64, Purse>,
    shares: HashMap<u64, Shares>,
}

type Guards<'a> = Vec<(usize, MutexGuard<'a, Shard>)>;

fn place(id: u64) -> usize {
    usize::try_from(id % SHARDS as u64).unwrap_or(0)
}

fn find<'g>(guards: &'g mut Guards<'_>, id: u64) -> Option<&'g mut Shard> {
    let wanted = place(id);
    guards.iter_mut().find(|(at, _)| *at == wanted).map(|(_, shard)| &mut **shard)
}

impl Local {
    pub(super) fn new(timer: Timer) -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Self { timer, shards, known: Mutex::default() }
    }

    /// Locks what the charges need, always in the same order.
    fn lock(&self, charges: &[Charge]) -> Guards<'_> {
        let mut places: Vec<usize> = charges.iter().map(|charge| place(charge.id)).collect();
        places.sort_unstable();
        places.dedup();
        places.into_iter().filter_map(|at| Some((at, self.shards.get(at)?.lock()))).collect()
    }

    pub(super) fn admit(&self, charges: &[Charge], key: u64) -> Verdict {
        let seeds: Vec<u64> = charges.iter().map(|charge| self.seed(charge)).collect();
        let mut guards = self.lock(charges);
        let now = self.timer.millis();
        let mut states = Vec::with_capacity(charges.len());
        let mut refused: Option<Refused> = None;
        for (at, (charge, seed)) in charges.iter().zip(&seeds).enumerate() {
            let Some(shard) = find(&mut guards, charge.id) else { continue };
            match shard.look(charge, key, now, *seed) {
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
            if let Some(shard) = find(&mut guards, charge.id) {
                shard.take(charge, key, now);
            }
        }
        Ok(states)
    }

    pub(super) fn settle(&self, charges: &[Charge], actual: &[u64], _key: u64) {
        let mut guards = self.lock(charges);
        let now = self.timer.millis();
        for (charge, actual) in charges.iter().zip(actual) {
            if let Some(shard) = find(&mut guards, charge.id) {
                shard.settle(charge, *actual, now);
            }
        }
    }

    pub(super) fn remember(&self, key: &str, per: Period, period: u64, spent: Spent) {
        self.known.lock().insert((hash(key), per), (period, spent));
    }

    /// What is known to be spent of a budget before this process counted any.
    pub(super) fn seed(&self, charge: &Charge) -> u64 {
        let What::Budget { budget, period, .. } = &charge.what else { return 0 };
        if let Some(shard) = self.shards.get(place(charge.id))
            && let Some(purse) = shard.lock().purses.get(&charge.id).filter(|purse| purse.period == *period)
        {
            return purse.spent;
        }
        let key = charge.subject.split('\0').nth(2).unwrap_or_default();
        match self.known.lock().get(&(hash(key), budget.per)) {
            Some((known, spent)) if known == period => spent.of(budget.amount),
            _ => 0,
        }
    }

    /// What the shared store let through, in case it goes away or is late once: then this process knows what of its
    /// part it has had.
    pub(super) fn learn(&self, charge: &Charge, state: &State) {
        if matches!(charge.what, What::Minute | What::Day)
            && let Some(shard) = self.shards.get(place(charge.id))
        {
            let (now, span) = (self.timer.millis(), charge.what.span());
            let mut shard = shard.lock();
            let window = shard.windows(&charge.what).entry(charge.id);
            let window = window.and_modify(|window| window.add(now, span));
            window.or_insert_with(|| Window::first(now)).prune(now, span);
        }
        if let What::Budget { period, until_reset, .. } = &charge.what
            && let Some(shard) = self.shards.get(place(charge.id))
        {
            let ends = self.timer.millis().saturating_add(millis(*until_reset));
            let mut shard = shard.lock();
            let purse = shard.purses.entry(charge.id).or_default();
            *purse = Purse { period: *period, ends, spent: state.spent, ..*purse };
        }
    }

    /// The same when a request of ours has ended.
    pub(super) fn learn_settled(&self, charge: &Charge, actual: u64) {
        if let What::Budget { period, .. } = &charge.what
            && let Some(shard) = self.shards.get(place(charge.id))
            && let Some(purse) = shard.lock().purses.get_mut(&charge.id)
            && purse.period == *period
        {
            purse.spent = purse.spent.saturating_add(actual);
        }
    }

    pub(super) fn spent(&self, key: &str, budget: &Budget, period: u64) -> (u64, u64) {
        let what = What::Budget { budget: *budget, bounded: true, period, until_reset: Duration::ZERO };
        let subject = format!("key\0{key}\0{}", budget.per.as_str());
        let charge = Charge::new(what, "key", &subject, budget.amount.count(), 0);
        let reserved = self.shards.get(place(charge.id)).and_then(|shard| {
            shard
                .lock()
                .purses
                .get(&charge.id)
                .filter(|purse| purse.period == period)
                .map(|purse| purse.reserved)
        });
        (self.seed(&charge), reserved.unwrap_or(0))
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
    fn windows(&mut self, what: &What) -> &mut HashMap<u64, Window> {
        if *what == What::Day { &mut self.days } else { &mut self.minutes }
    }

    /// Where a limit would stand with this request, or what it lacks.
    fn look(&mut self, charge: &Charge, key: u64, now: u64, seed: u64) -> Result<State, State> {
        match &charge.what {
            What::Minute | What::Day => self.look_at_window(charge, key, now),
            What::Input | What::Output | What::Total => {
                let full_at = self.buckets.get(&charge.id).copied().unwrap_or(0.0);
                Rate::new(charge.limit, charge.what.span()).look(full_at, now, charge.cost)
            }
            What::Flights => {
                let flying = u64::from(self.flights.get(&charge.id).copied().unwrap_or(0));
                let left = charge.limit.saturating_sub(flying);
                let state = State { remaining: left.saturating_sub(1), millis: 1000, ..State::default() };
                if left > 0 { Ok(state) } else { Err(state) }
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
            }
            What::Flights => *self.flights.entry(charge.id).or_default() += 1,
            What::Budget { .. } => {
                let purse = self.purses.entry(charge.id).or_default();
                purse.reserved = purse.reserved.saturating_add(charge.cost);
                purse.holders += 1;
            }
        }
    }

    fn settle(&mut self, charge: &Charge, actual: u64, now: u64) {
        match &charge.what {
            What::Minute | What::Day => {}
            What::Input | What::Output | What::Total => {
                let rate = Rate::new(charge.limit, charge.what.span());
                let full_at = self.buckets.entry(charge.id).or_default();
                *full_at = rate.settle(*full_at, now, (charge.cost, actual));
            }
            What::Flights => {
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
        self.purses.retain(|_, purse| purse.ends > now);
        // Room that a crowd needed is given back when it has gone.
        shrink(&mut self.minutes);
        shrink(&mut self.days);
        shrink(&mut self.buckets);
        shrink(&mut self.flights);
        shrink(&mut self.purses);
    }

    fn len(&self) -> usize {
        self.minutes.len() + self.days.len() + self.buckets.len() + self.flights.len() + self.purses.len()
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn shrink<V>(map: &mut HashMap<u64, V>) {
    if map.capacity() > 64 && map.len() * 4 < map.capacity() {
        map.shrink_to(map.len() * 2);
    }
}
