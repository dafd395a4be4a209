//! What is bet on one request: the alternatives, and for each the nearest allowed pair of rates (section 5.1).
//!
//! The ratio of an alternative to the Kullback-Leibler nearest point of the allowed half-plane has expectation at most
//! 1 under everything allowed (section 5.2): that one line is what the guarantee rests on. Invariant: a factor that is
//! not finite is not bet on.

use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

use super::counts::Tally;
use super::math::bisect;

/// Which claim winning refutes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// Winning says: worse than allowed.
    Against,
    /// Winning says: within what is allowed.
    For,
}

/// How many alternatives for "worse".
pub(super) const WORSE: usize = 16;

/// Places of the alternatives for "worse" between the bound and 1.
pub(super) fn worse(k: usize) -> f64 {
    0.97 * 0.5f64.powi(k as i32)
}

/// Logarithms of the weights of the alternatives for "worse".
pub(super) static WORSE_LOG_WEIGHTS: LazyLock<[f64; WORSE]> = LazyLock::new(|| {
    let harmonic: f64 = (1..=WORSE).map(|j| 1.0 / j as f64).sum();
    std::array::from_fn(|k| (1.0 / (k + 1) as f64 / harmonic).ln())
});

/// Places of the alternatives for "within" between stable's rate and the bound.
const WITHIN: [f64; 3] = [0.0, 0.25, 0.5];
static WITHIN_LOG_WEIGHTS: LazyLock<[f64; 3]> = LazyLock::new(|| [0.5, 0.3, 0.2].map(f64::ln));

impl Direction {
    /// Of the alternatives of a comparison, in order.
    pub(super) fn log_weights(self) -> &'static [f64] {
        match self {
            Self::Against => &*WORSE_LOG_WEIGHTS,
            Self::For => &*WITHIN_LOG_WEIGHTS,
        }
    }
}

/// The allowed line: canary's rate = `ratio` * stable's + `delta`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Line {
    #[serde(with = "super::exact")]
    pub(super) ratio: f64,
    #[serde(with = "super::exact")]
    pub(super) delta: f64,
}

impl Line {
    pub(super) fn bound(&self, stable: f64) -> f64 {
        self.ratio * stable + self.delta
    }

    /// Stable's rate at the point of the line nearest to (`q_s`, `q_c`) when the coin says canary with `w`.
    pub(super) fn nearest(&self, q_s: f64, q_c: f64, w: f64) -> f64 {
        if self.ratio == 1.0 && self.delta == 0.0 {
            return w * q_c + (1.0 - w) * q_s;
        }
        let reach = (q_c - self.delta) / self.ratio;
        let (low, high) = if q_c > self.bound(q_s) {
            (q_s, reach.min((1.0 - self.delta) / self.ratio).min(1.0))
        } else {
            (reach.max(0.0), q_s)
        };
        bisect(low, high, |p| {
            let pc = self.bound(p);
            let stable = (1.0 - w) * (p - q_s) / (p * (1.0 - p));
            stable + w * self.ratio * (pc - q_c) / (pc * (1.0 - pc)) < 0.0
        })
    }

    /// What a bad and a good canary request, a bad and a good stable one are worth. `None`: there is no bet.
    pub(super) fn log_factors(&self, q_s: f64, q_c: f64, w: f64) -> Option<[f64; 4]> {
        let bound = self.bound(q_s);
        if bound >= 1.0 || q_c == bound || w <= 0.0 || w >= 1.0 {
            return None;
        }
        let p = self.nearest(q_s, q_c, w);
        let pc = self.bound(p);
        let logs = [(q_c / pc).ln(), ((1.0 - q_c) / (1.0 - pc)).ln(), (q_s / p).ln(), ((1.0 - q_s) / (1.0 - p)).ln()];
        logs.iter().all(|log| log.is_finite()).then_some(logs)
    }
}

/// All alternatives' factors for one assumed rate of stable and one weight.
#[derive(Clone, Debug)]
pub(super) struct Bets {
    q_s: f64,
    w: f64,
    factors: [[f64; 4]; WORSE],
}

impl Bets {
    pub(super) fn new(direction: Direction, line: &Line, q_s: f64, w: f64) -> Self {
        let bound = line.bound(q_s);
        let alternative = |k: usize| match direction {
            Direction::Against => Some(bound + (1.0 - bound) * worse(k)),
            Direction::For => WITHIN.get(k).map(|v| q_s + v * (bound - q_s)),
        };
        let factors = |k| alternative(k).and_then(|q_c| line.log_factors(q_s, q_c, w));
        Self { q_s, w, factors: std::array::from_fn(|k| factors(k).unwrap_or_default()) }
    }

    pub(super) fn is_for(&self, q_s: f64, w: f64) -> bool {
        self.q_s == q_s && self.w == w
    }

    /// Log likelihood ratio of each alternative.
    pub(super) fn gains(&self, canary: &Tally, stable: &Tally) -> [f64; WORSE] {
        self.factors.map(|[canary_bad, canary_good, stable_bad, stable_good]| {
            canary.bad * canary_bad
                + canary.good() * canary_good
                + stable.bad * stable_bad
                + stable.good() * stable_good
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::analysis::testing::{close, number, numbers, vectors};

    #[test]
    fn roots_and_factors_are_those_of_the_vectors() {
        for case in vectors()["boundary_root"].as_array().unwrap() {
            let line = Line { ratio: number(&case["rho"]), delta: number(&case["delta"]) };
            let (q_s, q_c, w) = (number(&case["q_s"]), number(&case["q_c"]), number(&case["w"]));
            let p = line.nearest(q_s, q_c, w);
            close(p, number(&case["p_s"]), case);
            close(line.bound(p), number(&case["p_c"]), case);
            let factors = line.log_factors(q_s, q_c, w).unwrap();
            factors.iter().zip(numbers(&case["log_factors"])).for_each(|(&got, want)| close(got, want, case));
        }
    }

    #[test]
    fn the_grid_is_that_of_the_vectors() {
        let grid = &vectors()["grid"];
        for (k, (u, g)) in numbers(&grid["u"]).into_iter().zip(numbers(&grid["g"])).enumerate() {
            close(worse(k), u, grid);
            close(WORSE_LOG_WEIGHTS[k].exp(), g, grid);
        }
    }

    proptest! {
        /// On the line, and anywhere on the allowed side of it, a request's factor has a mean of at most 1.
        #[test]
        fn nobody_wins_against_what_is_allowed(
            q_s in 1e-6f64..0.9, w in 0.01f64..0.99, ratio in 1.0f64..3.0, delta in 0.0f64..0.1,
            k in 0usize..WORSE, p in 0.0f64..1.0, share in 0.0f64..=1.0
        ) {
            let line = Line { ratio, delta };
            let bets = Bets::new(Direction::Against, &line, q_s, w);
            let [canary_bad, canary_good, stable_bad, stable_good] = bets.factors[k].map(f64::exp);
            let pc = line.bound(p).min(1.0) * share;
            let canary = pc * canary_bad + (1.0 - pc) * canary_good;
            let mean = w * canary + (1.0 - w) * (p * stable_bad + (1.0 - p) * stable_good);
            prop_assert!(mean <= 1.0 + 1e-9, "{mean}");
        }
    }
}
