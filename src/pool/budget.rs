//! How many retries of a split may be in flight: a part of its requests, so that a failing version cannot multiply the
//! load on itself.

use std::sync::Arc;

use super::bounded::Bounded;

/// So many retries are always allowed: a part of few requests would be none.
const FLOOR: u64 = 3;

/// Retries in flight of one split, over all workers and through reloads.
#[derive(Debug)]
pub struct RetryBudget(Bounded);

impl Default for RetryBudget {
    fn default() -> Self {
        Self(Bounded::new())
    }
}

impl RetryBudget {
    /// One more retry, if that leaves at most `max(3, budget * in_flight)` of them in flight. `in_flight`: the
    /// split's requests in flight now, this one included; `budget`: 0..1.
    pub fn try_take(self: &Arc<Self>, in_flight: u32, budget: f64) -> Option<RetryPermit> {
        // The conversion saturates: a budget out of range allows nothing or everything.
        let allowed = (budget * f64::from(in_flight)) as u64;
        self.0.enter(allowed.max(FLOOR)).then(|| RetryPermit(self.clone()))
    }

    /// Retries in flight.
    pub fn in_flight(&self) -> u64 {
        self.0.count()
    }
}

/// A retry in flight; ends when it is dropped.
#[derive(Debug)]
#[must_use]
pub struct RetryPermit(Arc<RetryBudget>);

impl Drop for RetryPermit {
    fn drop(&mut self) {
        self.0.0.leave();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(budget: &Arc<RetryBudget>, n: usize, in_flight: u32, part: f64) -> Vec<RetryPermit> {
        (0..n).filter_map(|_| budget.try_take(in_flight, part)).collect()
    }

    #[test]
    fn three_are_always_allowed_and_a_part_of_many() {
        for (in_flight, part, allowed) in
            [(0, 0.2, 3), (1, 1.0, 3), (15, 0.2, 3), (20, 0.2, 4), (99, 0.2, 19), (100, 0.2, 20), (100, 0.0, 3)]
        {
            let budget = Arc::default();
            assert_eq!(take(&budget, 50, in_flight, part).len(), allowed, "{in_flight} x {part}");
        }
        assert_eq!(take(&Arc::default(), 50, 100, f64::NAN).len(), 3);
        assert_eq!(take(&Arc::default(), 50, u32::MAX, -1.0).len(), 3);
    }

    #[test]
    fn a_permit_comes_back_when_it_is_dropped() {
        let budget = Arc::default();
        let mut permits = take(&budget, 9, 0, 0.2);
        assert!(budget.try_take(0, 0.2).is_none());
        permits.pop();
        assert_eq!(budget.in_flight(), 2);
        let again = budget.try_take(0, 0.2);
        assert!(again.is_some() && budget.try_take(0, 0.2).is_none());
        drop((permits, again));
        assert_eq!(budget.in_flight(), 0);
    }

    #[test]
    fn permits_of_many_threads_never_pass_the_bound() {
        let budget = Arc::<RetryBudget>::default();
        let turns = || (0..2000).filter(|_| budget.try_take(25, 0.2).is_some_and(|_| budget.in_flight() > 5)).count();
        let over: usize = std::thread::scope(|threads| {
            let all: Vec<_> = (0..8).map(|_| threads.spawn(turns)).collect();
            all.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!((over, budget.in_flight()), (0, 0));
    }
}
