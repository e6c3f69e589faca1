//! Requests in a window that slides: the times of those that still count.

use std::collections::VecDeque;

/// Requests that came so close together as this part of the window may share a place in the list: that bounds
/// it. They then all count as long as the last of them.
const PLACES: u64 = 6000;

/// The requests that still count; most keys have one, and no list.
#[derive(Debug)]
pub(super) enum Window {
    One(Cell),
    Many(Box<(u64, VecDeque<Cell>)>),
}

/// So many requests at a time, in milliseconds. The time wraps around after 49 days, the window is far shorter.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cell {
    at: u32,
    count: u32,
}

#[expect(clippy::cast_possible_truncation, reason = "times wrap around on purpose")]
const fn short(millis: u64) -> u32 {
    millis as u32
}

impl Cell {
    fn age(self, now: u64) -> u64 {
        u64::from(short(now).wrapping_sub(self.at))
    }
}

impl Window {
    pub(super) fn first(now: u64) -> Self {
        Self::One(Cell { at: short(now), count: 1 })
    }

    /// Forgets what does not count any more; false when nothing is left.
    pub(super) fn prune(&mut self, now: u64, span: u64) -> bool {
        match self {
            Self::One(cell) => cell.age(now) < span,
            Self::Many(list) => {
                let (total, cells) = &mut **list;
                while let Some(cell) = cells.front().filter(|cell| cell.age(now) >= span) {
                    *total -= u64::from(cell.count);
                    cells.pop_front();
                }
                !cells.is_empty()
            }
        }
    }

    pub(super) fn total(&self) -> u64 {
        match self {
            Self::One(cell) => u64::from(cell.count),
            Self::Many(list) => list.0,
        }
    }

    /// The requests, each with the time at which it came, by a clock that says `now`.
    pub(super) fn cells(&self, now: u64) -> Vec<(u64, u64)> {
        let cell = |cell: &Cell| (now.saturating_sub(cell.age(now)), u64::from(cell.count));
        match self {
            Self::One(one) => vec![cell(one)],
            Self::Many(list) => list.1.iter().map(cell).collect(),
        }
    }

    /// Until the oldest stops to count, and until the newest does.
    pub(super) fn waits(&self, now: u64, span: u64) -> (u64, u64) {
        let left = |cell: Cell| span.saturating_sub(cell.age(now));
        match self {
            Self::One(cell) => (left(*cell), left(*cell)),
            Self::Many(list) => {
                (list.1.front().map_or(0, |cell| left(*cell)), list.1.back().map_or(0, |cell| left(*cell)))
            }
        }
    }

    pub(super) fn add(&mut self, now: u64, span: u64) {
        let step = (span / PLACES).max(1);
        let near = |cell: &Cell| u64::from(cell.at) / step == u64::from(short(now)) / step;
        let fresh = Cell { at: short(now), count: 1 };
        match self {
            Self::One(cell) if near(cell) => *cell = Cell { count: cell.count.saturating_add(1), ..fresh },
            Self::One(cell) => {
                let list = VecDeque::from([*cell, fresh]);
                *self = Self::Many(Box::new((u64::from(cell.count) + 1, list)));
            }
            Self::Many(list) => {
                let (total, cells) = &mut **list;
                *total += 1;
                match cells.back_mut().filter(|cell| near(cell)) {
                    Some(cell) => *cell = Cell { count: cell.count.saturating_add(1), ..fresh },
                    None => cells.push_back(fresh),
                }
            }
        }
    }
}
