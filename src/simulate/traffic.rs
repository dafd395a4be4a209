//! The made-up requests of one run: when each begins, whom the coin gives it, how and when it ends.
//!
//! Requests come at random moments (a Poisson process); the coin is the product's deck. Invariant: what the coin says
//! depends on nothing but the deck and the weights, and no request is dealt twice.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::f64::consts::LN_2;

use super::setup;
use crate::analysis::{BUCKETS, Buckets, Counts, History, Side};
use crate::model::Weight;
use crate::routing::{Deck, Shares};

/// Requests whose end is further away never end: nobody looks at them any more.
const LONGEST: f64 = 3600e6;
/// The 99th percentile of the standard normal distribution.
const P99: f64 = 2.326_347_874_040_841;

/// A request on its way. Ordered by its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Request {
    /// In microseconds of the run.
    pub(super) ends: u64,
    pub(super) began: u64,
    pub(super) epoch: u64,
    pub(super) is_canary: bool,
    pub(super) is_bad: bool,
    pub(super) bucket: usize,
}

impl Request {
    pub(super) fn side(&self) -> Side {
        if self.is_canary { Side::Canary } else { Side::Stable }
    }
}

#[derive(Debug)]
pub(super) struct Stream {
    rng: fastrand::Rng,
    deck: Deck,
    shares: Shares,
    epoch: u64,
    /// Microseconds between two requests, on average.
    gap: f64,
    /// When the next one begins.
    next: f64,
    /// Of stable and canary.
    errors: [f64; 2],
    latencies: [Latency; 2],
    under_way: BinaryHeap<Reverse<Request>>,
}

impl Stream {
    pub(super) fn new(traffic: &setup::Traffic, seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let latency = |factor: f64| Latency::new(traffic.latency.as_secs_f64() * factor, traffic.spread);
        let mut stream = Self {
            deck: Deck::new(&mut rng),
            rng,
            shares: Shares::default(),
            epoch: 0,
            gap: 1e6 / traffic.per_second,
            next: 0.0,
            errors: [traffic.errors, traffic.canary_errors],
            latencies: [latency(1.0), latency(traffic.canary_slower)],
            under_way: BinaryHeap::new(),
        };
        stream.next = stream.wait();
        stream
    }

    /// So many of stable's requests as were seen before the rollout.
    pub(super) fn history(&mut self, requests: u64) -> History {
        let (mut counts, mut failures): (Counts, Buckets) = (Counts::default(), [0; BUCKETS]);
        for _ in 0..requests {
            let (bucket, is_bad) = (self.latencies[0].draw(&mut self.rng).1, self.rng.f64() < self.errors[0]);
            counts.all += 1;
            counts.bad += u64::from(is_bad);
            counts.buckets[bucket] += 1;
            failures[bucket] += u64::from(is_bad);
        }
        let mut history = History::default();
        history.learn(&counts, &failures);
        history
    }

    /// From now on the canary gets so many millionths, in this epoch.
    pub(super) fn set_share(&mut self, parts: u32, epoch: u64) {
        let weight = |parts: u32| Weight::new(parts).unwrap_or_default();
        self.shares = Shares::new(&[(0, weight(Weight::MAX.saturating_sub(parts))), (1, weight(parts))]);
        self.epoch = epoch;
    }

    /// The next request that begins before this moment.
    pub(super) fn begin(&mut self, until: u64) -> Option<Request> {
        if self.next >= until as f64 {
            return None;
        }
        let began = self.next as u64;
        self.next += self.wait();
        let version = self.shares.pick(self.deck.deal(&mut self.rng)).unwrap_or(0);
        let is_bad = self.rng.f64() < self.errors[version];
        let (micros, bucket) = self.latencies[version].draw(&mut self.rng);
        let ends = began + micros.min(LONGEST) as u64;
        let request = Request { ends, began, epoch: self.epoch, is_canary: version == 1, is_bad, bucket };
        self.under_way.push(Reverse(request));
        Some(request)
    }

    /// The next request that ends before this moment.
    pub(super) fn end(&mut self, until: u64) -> Option<Request> {
        let is_due = self.under_way.peek().is_some_and(|Reverse(next)| next.ends < until);
        if is_due { self.under_way.pop().map(|Reverse(request)| request) } else { None }
    }

    fn wait(&mut self) -> f64 {
        -self.gap * (-self.rng.f64()).ln_1p()
    }
}

/// Lognormal.
#[derive(Clone, Copy, Debug)]
struct Latency {
    /// Logarithm of the median in microseconds.
    middle: f64,
    sigma: f64,
}

impl Latency {
    fn new(median_seconds: f64, spread: f64) -> Self {
        Self { middle: (median_seconds * 1e6).ln(), sigma: spread.ln() / P99 }
    }

    /// In microseconds, and its bucket.
    fn draw(&self, rng: &mut fastrand::Rng) -> (f64, usize) {
        let log = self.middle + self.sigma * normal(rng);
        (log.exp(), bucket_of_log(log))
    }
}

/// Of the logarithm of microseconds: `analysis::bucket_of` searches, which is too slow for millions.
fn bucket_of_log(log: f64) -> usize {
    let octaves = (log - 100f64.ln()) / LN_2;
    // A negative number becomes 0.
    ((octaves * 8.0).ceil() as usize).min(BUCKETS - 1)
}

/// By Box and Muller.
fn normal(rng: &mut fastrand::Rng) -> f64 {
    let (radius, angle) = ((-2.0 * (-rng.f64()).ln_1p()).sqrt(), std::f64::consts::TAU * rng.f64());
    radius * angle.cos()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::analysis::bucket_of;

    fn traffic() -> setup::Traffic {
        setup::Traffic {
            per_second: 1000.0,
            errors: 0.02,
            canary_errors: 0.3,
            latency: Duration::from_millis(20),
            spread: 8.0,
            canary_slower: 2.0,
        }
    }

    #[test]
    fn the_traffic_is_as_it_was_asked_for() {
        let mut stream = Stream::new(&traffic(), 7);
        stream.set_share(250_000, 3);
        let requests: Vec<Request> = std::iter::from_fn(|| stream.begin(60_000_000)).collect();
        assert!((58_800..=61_200).contains(&requests.len()), "{}", requests.len());
        assert!(
            requests.windows(2).all(|pair| pair[0].began <= pair[1].began) && requests.iter().all(|r| r.epoch == 3)
        );
        let of = |is_canary| requests.iter().filter(move |r| r.is_canary == is_canary);
        let share = of(true).count() as f64 / requests.len() as f64;
        assert!((share - 0.25).abs() < 0.001, "{share}");
        for (is_canary, rate, median) in [(true, 0.3, 0.04), (false, 0.02, 0.02)] {
            let all = of(is_canary).count();
            let bad = of(is_canary).filter(|r| r.is_bad).count() as f64 / all as f64;
            assert!((bad - rate).abs() < 0.015, "{bad}");
            let mut took: Vec<u64> = of(is_canary).map(|r| r.ends - r.began).collect();
            took.sort_unstable();
            let at = |rank: f64| took[(all as f64 * rank) as usize] as f64 / 1e6;
            assert!((at(0.5) / median - 1.0).abs() < 0.05, "{}", at(0.5));
            assert!((at(0.99) / median / 8.0 - 1.0).abs() < 0.15, "{}", at(0.99));
        }
    }

    #[test]
    fn every_request_ends_once_and_in_order() {
        let mut stream = Stream::new(&traffic(), 1);
        stream.set_share(0, 1);
        let begun = std::iter::from_fn(|| stream.begin(1_000_000)).count();
        let early: Vec<Request> = std::iter::from_fn(|| stream.end(500_000)).collect();
        assert!(early.iter().all(|r| r.ends < 500_000 && !r.is_canary));
        let late: Vec<Request> = std::iter::from_fn(|| stream.end(u64::MAX)).collect();
        assert_eq!(early.len() + late.len(), begun);
        assert!(late.windows(2).all(|pair| pair[0].ends <= pair[1].ends));
    }

    #[test]
    fn a_history_has_stables_rates() {
        let (all, bad) = Stream::new(&traffic(), 5).history(20_000).requests();
        assert_eq!(all, 20_000);
        assert!((300..=500).contains(&bad), "{bad}");
    }

    proptest! {
        #[test]
        fn buckets_are_those_of_the_analysis(micros in 1.0f64..1e10) {
            let exact = bucket_of(Duration::from_secs_f64(micros / 1e6));
            let quick = bucket_of_log(micros.ln());
            // At a bucket's very end the logarithm may round either way.
            let edge = (8.0 * (micros / 100.0).log2()).fract().abs();
            prop_assert!(quick == exact || !(1e-6..1.0 - 1e-6).contains(&edge), "{micros}: {quick} {exact}");
        }
    }
}
