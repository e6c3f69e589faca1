//! Series that were found once: a request counts in two dozen of them, and would look up each by all its labels.
//!
//! A series is made when something is counted in it, not before: what nobody counted is not scraped.

use std::sync::{Arc, OnceLock};

use parking_lot::RwLock;
use prometheus::{Counter, Histogram, IntCounter};

use crate::hash::{self, ByHash};

/// So many groups are remembered; with more labels than that, each request looks for its own.
const MOST: usize = 4096;

/// Groups of series by the words that their labels are made of.
#[derive(Debug)]
pub(super) struct Cache<const N: usize, G>(RwLock<ByHash<Vec<Known<N, G>>>>);

/// The words of a group, a number that belongs to them, and the group.
type Known<const N: usize, G> = ([Box<str>; N], u16, Arc<G>);

impl<const N: usize, G> Default for Cache<N, G> {
    fn default() -> Self {
        Self(RwLock::default())
    }
}

impl<const N: usize, G: Default> Cache<N, G> {
    /// The group of these words and this number, if there is one.
    pub(super) fn find(&self, words: [&str; N], number: u16) -> Option<Arc<G>> {
        among(self.0.read().get(&place(&words, number))?, words, number)
    }

    /// The group of these words, which come from closed sets and from the configuration, and this number.
    pub(super) fn of(&self, words: [&str; N], number: u16) -> Arc<G> {
        if let Some(found) = self.find(words, number) {
            return found;
        }
        let mut all = self.0.write();
        if all.len() >= MOST {
            return Arc::default();
        }
        let known = all.entry(place(&words, number)).or_default();
        if let Some(found) = among(known, words, number) {
            return found;
        }
        let fresh = Arc::<G>::default();
        known.push((words.map(Box::from), number, Arc::clone(&fresh)));
        fresh
    }
}

fn place(words: &[&str], number: u16) -> u64 {
    hash::words(words) ^ u64::from(number) << 16
}

fn among<const N: usize, G>(known: &[Known<N, G>], words: [&str; N], number: u16) -> Option<Arc<G>> {
    let same = |known: &[Box<str>; N]| known.iter().zip(words).all(|(known, word)| **known == *word);
    known.iter().find(|known| known.1 == number && same(&known.0)).map(|(.., found)| Arc::clone(found))
}

/// A series, once something was counted in it.
#[derive(Debug)]
pub(super) struct Series<T>(OnceLock<T>);

impl<T> Default for Series<T> {
    fn default() -> Self {
        Self(OnceLock::new())
    }
}

impl<T> Series<T> {
    /// The series, found by its labels the first time.
    pub(super) fn get(&self, find: impl FnOnce() -> T) -> &T {
        self.0.get_or_init(find)
    }
}

/// What finished requests count in that have route, method, outcome, error, model, provider and status in common.
#[derive(Debug, Default)]
pub(super) struct Request {
    pub(super) requests: Series<IntCounter>,
    pub(super) duration: Series<Histogram>,
    pub(super) before: Series<Histogram>,
    pub(super) after: Series<Histogram>,
    pub(super) first_token: Series<Histogram>,
    pub(super) first_token_ours: Series<Histogram>,
    pub(super) tokens: [Series<IntCounter>; 5],
    pub(super) estimate_error: Series<Histogram>,
    pub(super) gen_ai_duration: Series<Histogram>,
    pub(super) gen_ai_first_chunk: Series<Histogram>,
    pub(super) gen_ai_input: [Series<IntCounter>; 6],
    pub(super) gen_ai_output: [Series<IntCounter>; 6],
    pub(super) gen_ai_cached: [Series<IntCounter>; 6],
    pub(super) gen_ai_reasoning: [Series<IntCounter>; 6],
}

/// What a key used of a model.
#[derive(Debug, Default)]
pub(super) struct Account {
    pub(super) tokens: [Series<IntCounter>; 4],
    pub(super) cost: Series<Counter>,
    pub(super) unpriced: Series<IntCounter>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_words_have_the_same_group_and_others_another() {
        let cache = Cache::<2, Series<u32>>::default();
        cache.of(["a", "b"], 1).get(|| 7);
        assert_eq!(*cache.of(["a", "b"], 1).get(|| 8), 7);
        for other in [(["a", "b"], 2), (["ab", ""], 1), (["b", "a"], 1)] {
            assert_eq!(*cache.of(other.0, other.1).get(|| 8), 8, "{other:?}");
        }
    }

    #[test]
    fn groups_are_bounded() {
        let cache = Cache::<1, Series<u32>>::default();
        for number in 0..u16::try_from(MOST + 10).unwrap() {
            cache.of(["a"], number).get(|| 0);
        }
        assert!(cache.0.read().len() <= MOST);
        assert_eq!(*cache.of(["late"], 0).get(|| 9), 9);
    }
}
