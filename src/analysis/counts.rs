//! What is counted: requests assigned, failures, and 164 latency buckets, per version and weight epoch.
//!
//! Bucket 0 is for 100 us and less; bucket `i` ends at `100 us * 2^(i/8)`, inclusive; the last one takes the rest
//! (section 3). Invariant: merging is addition, so it knows no order and no grouping.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Number of latency buckets.
pub const BUCKETS: usize = 164;
/// Requests per latency bucket.
pub type Buckets = [u64; BUCKETS];

/// The counts of one version over some time.
///
/// The buckets' sum may differ from `all`: warm-up drops latencies but no errors, and a request that hangs is in the
/// last bucket before its outcome is known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Requests whose outcome is known.
    pub all: u64,
    /// Those that failed.
    pub bad: u64,
    #[serde(with = "sparse")]
    pub buckets: Buckets,
}

impl Default for Counts {
    fn default() -> Self {
        Self { all: 0, bad: 0, buckets: [0; BUCKETS] }
    }
}

impl Counts {
    /// Adds what another worker, process or moment counted.
    pub fn add(&mut self, other: &Self) {
        self.all = self.all.saturating_add(other.all);
        self.bad = self.bad.saturating_add(other.bad);
        self.buckets.iter_mut().zip(&other.buckets).for_each(|(to, from)| *to = to.saturating_add(*from));
    }

    /// Whether nothing was counted.
    pub fn is_empty(&self) -> bool {
        self.all == 0 && self.bad == 0 && self.buckets.iter().all(|&n| n == 0)
    }

    pub(super) fn tally(&self) -> Tally {
        Tally::new(self.all, self.bad)
    }

    /// Latencies above bucket `last` are read as the last bucket.
    pub(super) fn cap(&mut self, last: usize) {
        let above = last + 1;
        let hung: u64 = self.buckets[above..].iter().fold(0, |sum, &n| sum.saturating_add(n));
        self.buckets[above..].fill(0);
        self.buckets[BUCKETS - 1] = self.buckets[BUCKETS - 1].saturating_add(hung);
    }
}

/// Requests and the bad ones among them, as the tests reckon with them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Tally {
    #[serde(with = "super::exact")]
    pub(super) all: f64,
    #[serde(with = "super::exact")]
    pub(super) bad: f64,
}

impl Tally {
    pub(super) fn new(all: u64, bad: u64) -> Self {
        Self { all: all as f64, bad: bad as f64 }
    }

    pub(super) fn good(&self) -> f64 {
        self.all - self.bad
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.all += other.all;
        self.bad += other.bad;
    }

    pub(super) fn is_sound(&self) -> bool {
        self.all.is_finite() && (0.0..=self.all).contains(&self.bad)
    }

    /// Latencies as a tally: bad are those in bucket `from` and above.
    pub(super) fn tail(buckets: &Buckets, from: usize) -> Self {
        let bad = buckets.get(from..).map_or(0.0, total);
        // Added up in two parts, so that bad never exceeds all.
        Self { all: total(&buckets[..from.min(BUCKETS)]) + bad, bad }
    }
}

pub(super) fn total(buckets: &[u64]) -> f64 {
    buckets.iter().map(|&n| n as f64).sum()
}

/// Index of the bucket a latency is counted in.
pub fn bucket_of(latency: Duration) -> usize {
    let seconds = latency.as_secs_f64();
    (0..BUCKETS - 1).find(|&i| bucket_seconds(i) >= seconds).unwrap_or(BUCKETS - 1)
}

/// The end of bucket `i` in seconds; that of the last one is only a name for it.
pub fn bucket_seconds(i: usize) -> f64 {
    1e-4 * (i as f64 / 8.0).exp2()
}

/// Buckets as pairs of index and count; most are empty.
pub(super) mod sparse {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::{BUCKETS, Buckets};

    pub(crate) fn serialize<S: Serializer>(buckets: &Buckets, to: S) -> Result<S::Ok, S::Error> {
        let pairs: Vec<(usize, u64)> = buckets.iter().copied().enumerate().filter(|&(_, n)| n > 0).collect();
        pairs.serialize(to)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Buckets, D::Error> {
        let mut buckets = [0; BUCKETS];
        for (i, n) in Vec::<(usize, u64)>::deserialize(from)? {
            *buckets.get_mut(i).ok_or_else(|| D::Error::custom(format!("no latency bucket {i}")))? = n;
        }
        Ok(buckets)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::analysis::testing;

    #[test]
    fn buckets_are_those_of_the_vectors() {
        for pair in testing::vectors()["bucket_of"].as_array().unwrap() {
            let latency = Duration::from_secs_f64(pair[0].as_f64().unwrap());
            assert_eq!(bucket_of(latency) as u64, pair[1].as_u64().unwrap(), "{latency:?}");
        }
        assert_eq!(bucket_of(Duration::MAX), BUCKETS - 1);
        assert_eq!((bucket_of(Duration::ZERO), bucket_of(Duration::from_micros(100))), (0, 0));
    }

    #[test]
    fn a_cap_moves_what_lies_above_and_loses_nothing() {
        let mut counts = Counts { all: 6, bad: 0, buckets: [0; BUCKETS] };
        for i in [3, 100, 101, 150, 163] {
            counts.buckets[i] = i as u64;
        }
        counts.cap(100);
        assert_eq!((counts.buckets[3], counts.buckets[100], counts.buckets[163]), (3, 100, 101 + 150 + 163));
        assert_eq!(counts.buckets.iter().sum::<u64>(), 517);
    }

    #[test]
    fn a_tail_that_begins_beyond_the_last_bucket_is_empty() {
        let buckets = [1; BUCKETS];
        assert_eq!(Tally::tail(&buckets, BUCKETS + 3), Tally { all: 164.0, bad: 0.0 });
        assert_eq!(Tally::tail(&buckets, BUCKETS - 2), Tally { all: 164.0, bad: 2.0 });
    }

    proptest! {
        #[test]
        fn counts_come_back_from_json(all: u64, bad: u64, at in 0usize..BUCKETS, n: u64) {
            let mut counts = Counts { all, bad, ..Counts::default() };
            counts.buckets[at] = n;
            let text = serde_json::to_string(&counts).unwrap();
            prop_assert_eq!(serde_json::from_str::<Counts>(&text).unwrap(), counts);
        }
    }
}
