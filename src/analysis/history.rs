//! What is known of stable before a rollout: the start of every plug-in rate. Kept in `state.json` between rollouts.
//!
//! Invariant: above 200,000 requests it is halved, so it follows what stable does and never overflows; a wrong history
//! costs speed, never validity.

use serde::{Deserialize, Serialize};

use super::counts::{BUCKETS, Buckets, Counts, Tally, sparse};

const MEMORY: u64 = 200_000;

/// Stable's requests of the past. `Default`: none are known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Written")]
pub struct History {
    all: u64,
    bad: u64,
    #[serde(with = "sparse")]
    buckets: Buckets,
    /// Latencies of the failed ones.
    #[serde(with = "sparse")]
    failures: Buckets,
}

/// As read from a disk.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    all: u64,
    bad: u64,
    #[serde(with = "sparse")]
    buckets: Buckets,
    #[serde(with = "sparse")]
    failures: Buckets,
}

impl TryFrom<Written> for History {
    type Error = &'static str;

    fn try_from(Written { all, bad, buckets, failures }: Written) -> Result<Self, Self::Error> {
        if bad > all {
            return Err("a history with more failures than requests");
        }
        Ok(Self { all, bad, buckets, failures })
    }
}

impl Default for History {
    fn default() -> Self {
        Self { all: 0, bad: 0, buckets: [0; BUCKETS], failures: [0; BUCKETS] }
    }
}

impl History {
    /// A history known as sums; more failures than requests are read as all.
    pub fn of(all: u64, bad: u64, buckets: Buckets) -> Self {
        Self { all, bad: bad.min(all), buckets, ..Self::default() }
    }

    /// Takes in stable's requests while no rollout runs, and the latencies of the failed among them (all 0 if not
    /// known); halves what has grown too old.
    pub fn learn(&mut self, stable: &Counts, failures: &Buckets) {
        self.all = self.all.saturating_add(stable.all);
        self.bad = self.bad.saturating_add(stable.bad.min(stable.all)).min(self.all);
        learn(&mut self.buckets, &stable.buckets);
        learn(&mut self.failures, failures);
        while self.all > MEMORY {
            self.all /= 2;
            self.bad /= 2;
        }
        [&mut self.buckets, &mut self.failures].into_iter().for_each(forget);
    }

    /// Stable's requests, and the bad ones.
    pub fn requests(&self) -> (u64, u64) {
        (self.all, self.bad)
    }

    pub(super) fn tally(&self) -> Tally {
        Tally::new(self.all, self.bad)
    }

    pub(super) fn buckets(&self) -> &Buckets {
        &self.buckets
    }

    pub(super) fn failures(&self) -> &Buckets {
        &self.failures
    }
}

fn learn(past: &mut Buckets, new: &Buckets) {
    past.iter_mut().zip(new).for_each(|(past, new)| *past = past.saturating_add(*new));
}

fn forget(past: &mut Buckets) {
    while past.iter().fold(0u64, |sum, &n| sum.saturating_add(n)) > MEMORY {
        past.iter_mut().for_each(|n| *n /= 2);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_is_halved_and_comes_back() {
        let mut history = History::default();
        let mut counts = Counts { all: 150_000, bad: 1_500, ..Counts::default() };
        counts.buckets[60] = 150_000;
        let mut failures = [0; BUCKETS];
        failures[90] = 1_500;
        (0..3).for_each(|_| history.learn(&counts, &failures));
        // 150,000; then 300,000 and 300,000 again, halved each time.
        assert_eq!((history.requests(), history.buckets[60], history.failures[90]), ((150_000, 1_500), 150_000, 4_500));
        let text = serde_json::to_string(&history).unwrap();
        assert_eq!(serde_json::from_str::<History>(&text).unwrap(), history);
    }

    #[test]
    fn a_history_that_cannot_be_is_refused() {
        let text = r#"{"all":3,"bad":4,"buckets":[],"failures":[]}"#;
        assert!(serde_json::from_str::<History>(text).unwrap_err().to_string().contains("more failures than requests"));
        let text = r#"{"all":3,"bad":1,"buckets":[[164,1]],"failures":[]}"#;
        assert!(serde_json::from_str::<History>(text).unwrap_err().to_string().contains("no latency bucket 164"));
    }

    #[test]
    fn the_largest_counts_overflow_nothing() {
        let counts = Counts { all: u64::MAX, bad: u64::MAX, buckets: [u64::MAX; BUCKETS] };
        let mut history = History::default();
        (0..3).for_each(|_| history.learn(&counts, &counts.buckets));
        let (all, bad) = history.requests();
        assert!(bad <= all && all <= MEMORY);
    }
}
