//! A count with an upper bound that is given with each use: the one piece of concurrency behind `RetryBudget` and
//! `Waiting`.
//!
//! Why not "read, compare, add": two threads would both read the last free place. Testing and counting are one atomic
//! step. Generic over its atomic so that the same code runs under loom.

use std::sync::atomic::AtomicU64;

use super::in_flight::Word;

/// See the file's head.
#[derive(Debug)]
pub(super) struct Bounded<W = AtomicU64>(W);

impl<W: Word> Bounded<W> {
    pub(super) fn new() -> Self {
        Self(W::new(0))
    }

    /// Counts one more unless `max` are there already; true if it did. Each success needs one `leave`.
    pub(super) fn enter(&self, max: u64) -> bool {
        self.0.update(|n| (n < max).then_some(n + 1)).is_ok()
    }

    pub(super) fn leave(&self) {
        // Never below zero: only a success of `enter` leads here.
        let _ = self.0.update(|n| n.checked_sub(1));
    }

    pub(super) fn count(&self) -> u64 {
        self.0.read()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use loom::sync::Arc;

    type Loom = Bounded<loom::sync::atomic::AtomicU64>;

    /// Whatever the interleaving: one place is given to one of two, and is free again afterwards.
    #[test]
    fn loom_the_last_place_is_given_once() {
        loom::model(|| {
            let places = Arc::new(Loom::new());
            let theirs = places.clone();
            let other = loom::thread::spawn(move || theirs.enter(1));
            let mine = places.enter(1);
            let got = [mine, other.join().unwrap()];
            assert_eq!(got.iter().filter(|got| **got).count(), 1);
            assert_eq!(places.count(), 1);
            places.leave();
            assert_eq!(places.count(), 0);
        });
    }

    #[test]
    fn loom_a_place_that_is_left_is_never_lost() {
        loom::model(|| {
            let places = Arc::new(Loom::new());
            assert!(places.enter(1));
            let theirs = places.clone();
            let other = loom::thread::spawn(move || theirs.leave());
            let entered = places.enter(1);
            other.join().unwrap();
            assert_eq!(places.count(), u64::from(entered));
            assert!(places.enter(2));
        });
    }
}
