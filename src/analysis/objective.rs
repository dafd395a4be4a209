//! Canary alone against a fixed bound (section 6): it acts even where there is no stable traffic to compare with.
//!
//! An outage behind both versions breaks the bound on both; a window over stable's last few hundred requests tells, and
//! while stable breaks the bound too the test stands still.

use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

use super::bets::{Direction, WORSE, WORSE_LOG_WEIGHTS, worse};
use super::counts::Tally;
use super::evidence::Evidence;
use super::exact;

/// Stable requests after which a window's share of the past has fallen to 1/e, about.
const WINDOW: f64 = 200.0;
const MET: [f64; 3] = [0.1, 0.4, 0.7];
static MET_LOG_WEIGHTS: LazyLock<[f64; 3]> = LazyLock::new(|| [0.4, 0.3, 0.3].map(f64::ln));

/// The bound on errors where the operator gave none: thrice stable's past rate, at least 1 %.
pub(super) fn adaptive_bound(history: &Tally) -> f64 {
    if history.all > 0.0 { (3.0 * (history.bad + 0.5) / (history.all + 50.0)).clamp(0.01, 0.9) } else { 0.01 }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Objective {
    direction: Direction,
    #[serde(with = "exact")]
    bound: f64,
    evidence: Evidence,
    /// Stable's window.
    #[serde(with = "exact")]
    window_all: f64,
    #[serde(with = "exact")]
    window_bad: f64,
    /// Whether the last tick was left out since stable breaks the bound too.
    is_shared: bool,
    /// What a bad and a good request are worth, for each alternative. The bound never changes.
    #[serde(skip)]
    factors: Option<[[f64; 2]; WORSE]>,
}

impl Objective {
    /// `bound` strictly within 0..1.
    pub(super) fn new(direction: Direction, bound: f64) -> Self {
        let evidence = Evidence::new(log_weights(direction).len());
        Self { direction, bound, evidence, window_all: 0.0, window_bad: 0.0, is_shared: false, factors: None }
    }

    pub(super) fn step(&mut self, w: f64, canary: &Tally, stable: &Tally) {
        let kept = (1.0 - 1.0 / WINDOW).powf(stable.all);
        self.window_all = self.window_all * kept + stable.all;
        self.window_bad = self.window_bad * kept + stable.bad;
        let breaks = self.window_bad - 1.0 > self.bound * self.window_all;
        self.is_shared = self.direction == Direction::Against && w < 1.0 && breaks;
        if !self.is_shared {
            self.bet(canary);
        }
    }

    fn bet(&mut self, canary: &Tally) {
        let (direction, x) = (self.direction, self.bound);
        let factors = self.factors.get_or_insert_with(|| std::array::from_fn(|k| log_factors(direction, x, k)));
        let gains = factors.map(|[bad, good]| canary.bad * bad + canary.good() * good);
        self.evidence.step(log_weights(direction), &gains, canary.all);
    }

    pub(super) fn log_e(&self) -> f64 {
        self.evidence.log_e()
    }

    pub(super) fn bound(&self) -> f64 {
        self.bound
    }

    pub(super) fn is_shared(&self) -> bool {
        self.is_shared
    }

    pub(super) fn is_sound(&self) -> bool {
        self.evidence.is_sound(log_weights(self.direction).len())
            && self.bound > 0.0
            && self.bound < 1.0
            && self.window_all.is_finite()
            && (0.0..=self.window_all).contains(&self.window_bad)
    }
}

fn log_factors(direction: Direction, x: f64, k: usize) -> [f64; 2] {
    let q = match direction {
        Direction::Against => x + (1.0 - x) * worse(k),
        Direction::For => x * MET.get(k).copied().unwrap_or(1.0),
    };
    [(q / x).ln(), ((1.0 - q) / (1.0 - x)).ln()]
}

fn log_weights(direction: Direction) -> &'static [f64] {
    match direction {
        Direction::Against => &*WORSE_LOG_WEIGHTS,
        Direction::For => &*MET_LOG_WEIGHTS,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::testing::{close, direction, number, numbers, vectors, whole};

    #[test]
    fn objectives_are_those_of_the_vectors() {
        for case in vectors()["objective"]["cases"].as_array().unwrap() {
            let mut test = Objective::new(direction(&case["direction"]), number(&case["x"]));
            for (tick, log_e) in case["ticks"].as_array().unwrap().iter().zip(numbers(&case["log_e"])) {
                test.step(1.0, &Tally::new(whole(&tick[0]), whole(&tick[1])), &Tally::default());
                close(test.log_e(), log_e, case);
            }
        }
    }

    #[test]
    fn what_stable_suffers_too_is_not_held_against_the_canary() {
        let mut test = Objective::new(Direction::Against, 0.01);
        test.step(0.5, &Tally::new(100, 0), &Tally::new(100, 0));
        let before = test.log_e();
        test.step(0.5, &Tally::new(100, 90), &Tally::new(100, 90));
        assert_eq!((test.log_e(), test.is_shared()), (before, true));
        // Alone it is judged alone.
        test.step(1.0, &Tally::new(10, 9), &Tally::default());
        assert!(test.log_e() > 20.0 && !test.is_shared());
    }

    #[test]
    fn without_history_the_bound_is_one_percent() {
        assert_eq!(adaptive_bound(&Tally::default()), 0.01);
        assert_eq!(adaptive_bound(&Tally::new(20_000, 20)), 0.01);
        assert_eq!(adaptive_bound(&Tally::new(950, 100)), 0.3015);
        assert_eq!(adaptive_bound(&Tally::new(100, 100)), 0.9);
    }
}
