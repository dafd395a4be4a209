//! One token bucket, as GCRA: a single time stands for the level, so taking is one comparison and one addition.
//!
//! Why scaled time: a request of "3 per second" costs 333,333,333.3 ns, which no whole number of nanoseconds is. All
//! times here are nanoseconds times `requests`; then a request costs `every` exactly and nothing is ever rounded but the
//! wait that is told to the client. A year times 2^32 fits u128 a hundredfold.

use std::time::Duration;

use crate::config::RateLimit;

/// How fast a bucket fills, and how much it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    requests: u128,
    /// Of one request.
    cost: u128,
    /// Of `burst` requests.
    capacity: u128,
}

impl Pace {
    /// `requests` per `every`, `burst` at once. Zeros, which `config` refuses, are read as the least that makes sense:
    /// 1 request, 1 ns, a burst of 1.
    pub fn new(limit: &RateLimit) -> Self {
        let cost = limit.every.as_nanos().max(1);
        Self { requests: limit.requests.max(1).into(), cost, capacity: cost * u128::from(limit.burst.max(1)) }
    }

    /// Nanoseconds, scaled.
    pub(super) fn scaled(&self, now: Duration) -> u128 {
        now.as_nanos() * self.requests
    }
}

/// The level of a bucket; a new one is full. Belongs to one `Pace`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bucket {
    /// When it will be full again, scaled (the "theoretical arrival time" of GCRA).
    full_at: u128,
}

impl Bucket {
    /// Takes one token at `now`, a time since any fixed moment.
    ///
    /// # Errors
    /// With an empty bucket nothing is taken; how long from `now` until there is a token again.
    pub fn take(&mut self, pace: &Pace, now: Duration) -> Result<(), Duration> {
        let at = pace.scaled(now);
        let next = self.full_at.max(at) + pace.cost;
        match next.checked_sub(at + pace.capacity) {
            None | Some(0) => {
                self.full_at = next;
                Ok(())
            }
            Some(missing) => Err(nanoseconds(missing.div_ceil(pace.requests))),
        }
    }

    /// When it is full again; a full bucket is as good as none.
    pub(super) fn full_at(&self) -> u128 {
        self.full_at
    }
}

fn nanoseconds(n: u128) -> Duration {
    Duration::from_nanos(u64::try_from(n).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::RateKey;

    fn pace(requests: u32, every: Duration, burst: u32) -> Pace {
        Pace::new(&RateLimit { per: RateKey::Route, requests, every, burst })
    }

    const MS: u64 = 1_000_000;

    #[test]
    fn a_bucket_is_full_at_first_and_fills_at_its_rate() {
        // 10 per second, 3 at once: (at ms, taken, wait in ms).
        let pace = pace(10, Duration::from_secs(1), 3);
        let mut bucket = Bucket::default();
        for (at, want) in [
            (0, Ok(())),
            (0, Ok(())),
            (0, Ok(())),
            (0, Err(100)),
            (40, Err(60)),
            (99, Err(1)),
            (100, Ok(())),
            (100, Err(100)),
            (299, Ok(())),
            (299, Err(1)),
            (300, Ok(())),
            // A long rest fills it to the burst and no further.
            (60_000, Ok(())),
            (60_000, Ok(())),
            (60_000, Ok(())),
            (60_000, Err(100)),
        ] {
            let got = bucket.take(&pace, Duration::from_millis(at));
            assert_eq!(got, want.map_err(Duration::from_millis), "at {at} ms");
        }
    }

    #[test]
    fn a_rate_no_nanosecond_divides_is_kept_exactly() {
        // 3 per second: over 1,000 s exactly 3,000 after the burst, tried each millisecond.
        let pace = pace(3, Duration::from_secs(1), 1);
        let mut bucket = Bucket::default();
        let times = (0..1_000_000).map(|ms| Duration::from_nanos(ms * MS));
        // A third of a second is no whole millisecond, so each token is taken up to 1 ms late.
        let taken = times.filter(|now| bucket.take(&pace, *now).is_ok()).count();
        assert!((2990..=3000).contains(&taken), "{taken}");
        // Asked exactly when told to come back, nothing is lost by rounding.
        let (mut bucket, mut now, mut taken) = (Bucket::default(), Duration::ZERO, 0);
        while now < Duration::from_secs(1000) {
            match bucket.take(&pace, now) {
                Ok(()) => taken += 1,
                Err(wait) => now += wait,
            }
        }
        assert_eq!(taken, 3000);
    }

    #[test]
    fn extremes_overflow_nothing() {
        let year = Duration::from_secs(365 * 24 * 3600);
        for pace in
            [pace(u32::MAX, year, u32::MAX), pace(1, Duration::from_nanos(1), u32::MAX), pace(0, Duration::ZERO, 0)]
        {
            let mut bucket = Bucket::default();
            assert_eq!(bucket.take(&pace, Duration::MAX / 1000), Ok(()));
            assert_eq!(bucket.take(&pace, Duration::from_secs(u64::MAX)), Ok(()));
        }
    }

    proptest! {
        #[test]
        fn never_more_than_burst_and_rate_times_time(
            requests in 1u32..1000, every_ms in 1u64..10_000, burst in 1u32..50,
            steps in prop::collection::vec(0u64..3 * MS * 100, 1..300),
        ) {
            let every = Duration::from_millis(every_ms);
            let pace = pace(requests, every, burst);
            let (mut bucket, mut now, mut taken) = (Bucket::default(), 0u64, Vec::new());
            for step in steps {
                now += step;
                match bucket.take(&pace, Duration::from_nanos(now)) {
                    Ok(()) => taken.push(now),
                    Err(wait) => {
                        // The wait is exact: a nanosecond earlier is too early.
                        let (mut early, mut due) = (bucket, bucket);
                        let at = Duration::from_nanos(now) + wait;
                        prop_assert!(early.take(&pace, at - Duration::from_nanos(1)).is_err());
                        prop_assert!(due.take(&pace, at).is_ok());
                    }
                }
            }
            // Every window, by its first and last request.
            for (i, first) in taken.iter().enumerate() {
                for (j, last) in taken.iter().enumerate().skip(i) {
                    let count = (j - i + 1) as u128;
                    let due = u128::from(last - first) * u128::from(requests) + u128::from(burst) * every.as_nanos();
                    prop_assert!(count * every.as_nanos() <= due, "{count} in {} ns", last - first);
                }
            }
        }
    }
}
