//! Canary's latencies against stable's, on logarithmic buckets (section 7).
//!
//! The tolerance is a shift by whole buckets: a canary request in bucket `y` is read as one in `y - shift`. Four tests:
//! the whole distribution by ranks, and the shares of calls slower than stable's p90, p99 and p99.9.

use serde::{Deserialize, Serialize};

use super::bets::{Direction, Line};
use super::counts::{BUCKETS, Buckets, Tally, total};
use super::errors::Wager;
use super::evidence::Evidence;
use super::histogram::{Histogram, LEVELS, Reading};
use super::math::log_sum;

/// How many times as often the slowest requests are the canary's, in each alternative of the test of ranks.
const PHI: [f64; 5] = [1.25, 1.6, 2.5, 6.0, 30.0];
const PHI_LOG_WEIGHTS: [f64; PHI.len()] = [-1.609_437_912_434_100_3; PHI.len()];
/// The margin of the shares of slow calls.
const TAIL: Line = Line { ratio: 1.0, delta: 0.001 };
const NAMES: [&str; 4] = ["overall", "p90", "p99", "p99.9"];
const WEIGHTS: [f64; 4] = [0.4, 0.2, 0.2, 0.2];

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Latency {
    direction: Direction,
    /// The tolerance in buckets.
    shift: usize,
    stable: Histogram,
    overall: Evidence,
    tails: [Wager; LEVELS.len()],
    /// Kept until stable is read anew or the weight changes. 13 kB: not on the stack of whoever reads or moves an engine.
    #[serde(skip)]
    ranks: Option<Box<Ranks>>,
}

/// What a request in each bucket is worth, for each alternative.
#[derive(Clone, Debug)]
struct Ranks {
    w: f64,
    canary: [[f64; BUCKETS]; PHI.len()],
    stable: [[f64; BUCKETS]; PHI.len()],
}

impl Latency {
    pub(super) fn new(direction: Direction, shift: usize, history: &Buckets) -> Self {
        Self {
            direction,
            shift,
            stable: Histogram::new(history),
            overall: Evidence::new(PHI.len()),
            tails: std::array::from_fn(|_| Wager::new(direction, TAIL)),
            ranks: None,
        }
    }

    pub(super) fn step(&mut self, w: f64, canary: &Buckets, stable: &Buckets) {
        let Self { direction, shift, stable: past, overall, tails, ranks } = self;
        let canary_all = total(canary);
        match past.renew() {
            (None, _) => {
                overall.idle(&PHI_LOG_WEIGHTS, canary_all);
                tails.iter_mut().for_each(|tail| tail.idle(canary_all));
            }
            (Some(reading), is_new) => {
                for (tail, cut) in tails.iter_mut().zip(&reading.cuts) {
                    let (canary, stable) = (Tally::tail(canary, cut.from + *shift), Tally::tail(stable, cut.from));
                    tail.step(cut.rate, w, &canary, &stable);
                }
                if *direction == Direction::Against && w > 0.0 && w < 1.0 {
                    let kept = ranks.take().filter(|ranks| !is_new && ranks.w == w);
                    let kept = ranks.insert(kept.unwrap_or_else(|| Box::new(Ranks::new(reading, *shift, w))));
                    overall.step(&PHI_LOG_WEIGHTS, &kept.gains(canary, stable), canary_all);
                } else {
                    *ranks = None;
                    overall.idle(&PHI_LOG_WEIGHTS, canary_all);
                }
            }
        }
        past.learn(stable);
    }

    /// Logarithm of the mean e-value of the four.
    pub(super) fn log_e(&self) -> f64 {
        log_sum(self.log_es().into_iter().zip(WEIGHTS).map(|(log_e, weight)| log_e + weight.ln()))
    }

    /// Of the whole distribution, p90, p99 and p99.9. A test for the canary leaves the first at 0.
    pub(super) fn log_es(&self) -> [f64; NAMES.len()] {
        let overall = match self.direction {
            Direction::Against => self.overall.log_e(),
            Direction::For => 0.0,
        };
        let [p90, p99, p999] = [0, 1, 2].map(|i| self.tails[i].log_e());
        [overall, p90, p99, p999]
    }

    /// The tests that must be won for the canary.
    pub(super) fn proofs(&self) -> [(&'static str, f64); 2] {
        [1, 2].map(|i| (NAMES[i], self.log_es()[i]))
    }

    /// The test with the most to say.
    pub(super) fn loudest(&self) -> &'static str {
        let says = |i: &usize| self.log_es()[*i] + WEIGHTS[*i].ln();
        let loudest = (0..NAMES.len()).max_by(|a, b| says(a).total_cmp(&says(b)).then(b.cmp(a)));
        loudest.map_or("overall", |i| NAMES[i])
    }

    pub(super) fn shift(&self) -> usize {
        self.shift
    }

    pub(super) fn is_sound(&self) -> bool {
        self.shift < BUCKETS
            && self.stable.is_sound()
            && self.overall.is_sound(PHI.len())
            && self.tails.iter().all(Wager::is_sound)
    }
}

impl Ranks {
    fn new(reading: &Reading, shift: usize, w: f64) -> Self {
        let odds = |phi: f64, y: usize| {
            let middle = reading.middle[y];
            phi / (middle + phi * (1.0 - middle)).powi(2)
        };
        let mixed = |r: f64| w * r + 1.0 - w;
        let canary = |phi: f64, y: usize| {
            let r = odds(phi, y.saturating_sub(shift));
            (r / mixed(r)).ln()
        };
        Self {
            w,
            canary: PHI.map(|phi| std::array::from_fn(|y| canary(phi, y))),
            stable: PHI.map(|phi| std::array::from_fn(|y| -mixed(odds(phi, y)).ln())),
        }
    }

    fn gains(&self, canary: &Buckets, stable: &Buckets) -> [f64; PHI.len()] {
        let mut gains = [0.0; PHI.len()];
        for (worth, counts) in [(&self.canary, canary), (&self.stable, stable)] {
            // A tick is short: most buckets are empty.
            for (y, &n) in counts.iter().enumerate().filter(|&(_, &n)| n > 0) {
                gains.iter_mut().zip(worth).for_each(|(gain, worth)| *gain += worth[y] * n as f64);
            }
        }
        gains
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::analysis::testing::{buckets, close, direction, number, numbers, vectors, whole};

    #[test]
    fn latencies_are_those_of_the_vectors() {
        for case in vectors()["latency"]["cases"].as_array().unwrap() {
            let history = buckets(&case["history"]);
            let mut test = Latency::new(direction(&case["direction"]), whole(&case["shift"]) as usize, &history);
            assert_eq!((number(&case["rho"]), number(&case["delta"])), (TAIL.ratio, TAIL.delta));
            let wanted = case["log_e"].as_array().unwrap().iter().zip(case["cuts_used"].as_array().unwrap());
            for (tick, (log_e, cuts)) in case["ticks"].as_array().unwrap().iter().zip(wanted) {
                let used = test.stable.clone().renew().0.map(|reading| reading.cuts.map(|cut| cut.from as u64));
                assert_eq!(serde_json::json!(used), *cuts, "{}", case["name"]);
                test.step(number(&tick["w"]), &buckets(&tick["canary"]), &buckets(&tick["stable"]));
                for (got, want) in test.log_es().into_iter().zip(numbers(log_e)) {
                    close(got, want, &case["name"]);
                }
            }
        }
    }

    #[test]
    fn equal_weights_are_a_fifth_each() {
        assert_eq!(PHI_LOG_WEIGHTS[0], 0.2f64.ln());
    }

    proptest! {
        #[test]
        fn no_counts_make_an_e_value_that_is_no_number(
            ticks in prop::collection::vec((0.0f64..=1.0, any::<[(usize, u64); 6]>(), 0u32..64), 1..12),
            shift in 0usize..40, against: bool
        ) {
            let direction = if against { Direction::Against } else { Direction::For };
            let mut test = Latency::new(direction, shift, &[0; BUCKETS]);
            for (w, places, down) in ticks {
                let mut counts = [[0; BUCKETS]; 2];
                places.iter().enumerate().for_each(|(i, (at, n))| counts[i % 2][at % BUCKETS] = n >> down);
                test.step(w, &counts[0], &counts[1]);
                prop_assert!(test.log_es().iter().all(|log_e| log_e.is_finite()) && test.is_sound());
                let text = serde_json::to_string(&test).unwrap();
                prop_assert_eq!(serde_json::from_str::<Latency>(&text).unwrap().log_es(), test.log_es());
            }
        }
    }
}
