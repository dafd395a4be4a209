//! What is new in counters that only rise: many workers and processes become one stream of counts (section 3).
//!
//! Every source sends its counters as they stand, tagged with who it is; the meter gives out the difference to what it
//! has given out before. So a reading that is lost or late only delays, one that comes twice changes nothing, and a
//! process that restarts is a new source whose counters begin at 0.
//!
//! Invariant: over all calls, what is given out is the sum of each source's highest reading, and never are there more
//! failures than requests in one portion: counters are read while they are written, so a failure may show before its
//! request; it waits for the next.

use std::collections::BTreeMap;

use super::counts::{Buckets, Counts};
use super::feed::BinCounts;

/// Who counts. A restarted process has a higher generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin {
    pub process: u64,
    pub generation: u64,
    pub worker: u32,
}

/// Some counters fell while others rose: this is not a later reading of the same counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("counters of the same source fell")]
pub struct WentBack;

/// Remembers what each source has brought. `K` names the source and what it counts: origin, version, epoch, bin.
#[derive(Clone, Debug)]
pub struct Meter<K> {
    given: BTreeMap<K, BinCounts>,
}

impl<K: Ord> Default for Meter<K> {
    fn default() -> Self {
        Self { given: BTreeMap::new() }
    }
}

impl<K: Ord> Meter<K> {
    /// What a reading brings that was not known. An older reading that comes late brings nothing.
    ///
    /// # Errors
    /// The reading contradicts an earlier one; it is left out.
    pub fn take(&mut self, source: K, reading: &BinCounts) -> Result<BinCounts, WentBack> {
        let given = self.given.entry(source).or_default();
        if !is_later(reading, given) {
            let is_earlier =
                is_later(given, reading) || given.ended.bad <= reading.ended.bad && is_stale(given, reading);
            return if is_earlier { Ok(BinCounts::default()) } else { Err(WentBack) };
        }
        let all = reading.ended.all - given.ended.all;
        let new = BinCounts {
            began: reading.began - given.began,
            opened: reading.opened - given.opened,
            closed: reading.closed - given.closed,
            ended: Counts {
                all,
                bad: (reading.ended.bad - given.ended.bad).min(all),
                buckets: difference(&reading.ended.buckets, &given.ended.buckets),
            },
        };
        given.add(&new);
        Ok(new)
    }

    /// Forgets sources that will not be heard of again; if they are, they count anew.
    pub fn retain(&mut self, keep: impl Fn(&K) -> bool) {
        self.given.retain(|source, _| keep(source));
    }
}

/// No counter of `b` is above that of `a`.
fn is_later(a: &BinCounts, b: &BinCounts) -> bool {
    a.ended.bad >= b.ended.bad && is_stale(a, b)
}

/// As `is_later`, failures apart: of these some may not have been given out yet.
fn is_stale(a: &BinCounts, b: &BinCounts) -> bool {
    let buckets = a.ended.buckets.iter().zip(&b.ended.buckets);
    a.began >= b.began
        && a.opened >= b.opened
        && a.closed >= b.closed
        && a.ended.all >= b.ended.all
        && buckets.into_iter().all(|(a, b)| a >= b)
}

fn difference(now: &Buckets, before: &Buckets) -> Buckets {
    std::array::from_fn(|i| now[i] - before[i])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn reading(all: u64, bad: u64) -> BinCounts {
        let mut counts = Counts { all, bad, ..Counts::default() };
        counts.buckets[7] = all;
        BinCounts { began: all, ended: counts, ..BinCounts::default() }
    }

    #[test]
    fn a_failure_seen_before_its_request_waits() {
        let mut meter = Meter::default();
        let mut torn = reading(10, 11);
        assert_eq!(meter.take(1, &torn).unwrap().ended.bad, 10);
        torn.ended.bad = 12;
        assert_eq!(meter.take(1, &torn).unwrap().ended.bad, 0);
        torn.ended.all = 12;
        let new = meter.take(1, &torn).unwrap().ended;
        assert_eq!((new.all, new.bad), (2, 2));
    }

    #[test]
    fn what_comes_twice_or_late_changes_nothing_and_what_contradicts_is_refused() {
        let mut meter = Meter::default();
        assert_eq!(meter.take(1, &reading(10, 2)).unwrap(), reading(10, 2));
        assert_eq!(meter.take(1, &reading(10, 2)).unwrap(), BinCounts::default());
        assert_eq!(meter.take(1, &reading(4, 2)).unwrap(), BinCounts::default());
        let mut contradiction = reading(9, 2);
        contradiction.ended.buckets[3] = 1;
        assert_eq!(meter.take(1, &contradiction), Err(WentBack));
        // Another generation is another source.
        assert_eq!(meter.take(2, &reading(3, 1)).unwrap(), reading(3, 1));
    }

    proptest! {
        #[test]
        fn what_is_given_out_is_the_sum_of_the_highest_readings(
            steps in prop::collection::vec((0u64..4, 0u64..50, any::<prop::sample::Index>(), any::<bool>()), 1..80)
        ) {
            let (mut meter, mut sum, mut now) = (Meter::default(), BinCounts::default(), vec![reading(0, 0); 4]);
            let mut earlier: Vec<(u64, BinCounts)> = Vec::new();
            for (source, n, pick, is_repeat) in steps {
                let (source, counts) = if is_repeat && !earlier.is_empty() {
                    earlier[pick.index(earlier.len())].clone()
                } else {
                    now[source as usize].add(&reading(n, n / 3));
                    earlier.push((source, now[source as usize].clone()));
                    (source, now[source as usize].clone())
                };
                sum.add(&meter.take(source, &counts).unwrap());
            }
            let mut want = BinCounts::default();
            now.iter().for_each(|counts| want.add(counts));
            prop_assert_eq!(sum, want);
        }
    }
}
