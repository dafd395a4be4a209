//! The split check (section 8): does the canary get the share the weights say? If not, the coin is not what the
//! comparison takes it for, and its odds are void. Invariant: once it has fired it stays fired.

use serde::{Deserialize, Serialize};

use super::exact;
use super::math::log_sum;

/// Shifts of the log odds that are bet on, with equal weights.
const SHIFTS: [f64; 12] = [-2.0, -1.0, -0.5, -0.2, -0.1, -0.05, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0];

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct SplitCheck {
    #[serde(with = "exact::list")]
    log_l: Vec<f64>,
    #[serde(with = "exact")]
    limit: f64,
    has_fired: bool,
}

impl SplitCheck {
    /// Fires when the log e-value reaches `limit`.
    pub(super) fn new(limit: f64) -> Self {
        Self { log_l: vec![0.0; SHIFTS.len()], limit, has_fired: false }
    }

    pub(super) fn step(&mut self, w: f64, canary_all: f64, stable_all: f64) {
        if w <= 0.0 || w >= 1.0 {
            return;
        }
        let log_odds = (w / (1.0 - w)).ln();
        for (log_l, shift) in self.log_l.iter_mut().zip(SHIFTS) {
            // Logistic of the shifted odds, and its complement without cancellation.
            let (v, rest) = (1.0 / (1.0 + (-(log_odds + shift)).exp()), 1.0 / (1.0 + (log_odds + shift).exp()));
            let (canary, stable) = ((v / w).ln(), (rest / (1.0 - w)).ln());
            if canary.is_finite() && stable.is_finite() {
                *log_l += canary_all * canary + stable_all * stable;
            }
        }
        self.has_fired |= self.log_e() >= self.limit;
    }

    pub(super) fn log_e(&self) -> f64 {
        log_sum(self.log_l.iter().copied()) - (SHIFTS.len() as f64).ln()
    }

    pub(super) fn limit(&self) -> f64 {
        self.limit
    }

    pub(super) fn has_fired(&self) -> bool {
        self.has_fired
    }

    pub(super) fn is_sound(&self) -> bool {
        self.log_l.len() == SHIFTS.len() && self.log_l.iter().all(|l| l.is_finite()) && self.limit.is_finite()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::testing::{close, number, numbers, vectors};

    #[test]
    fn split_checks_are_those_of_the_vectors() {
        for case in vectors()["split"]["cases"].as_array().unwrap() {
            let mut check = SplitCheck::new(1e4f64.ln());
            for (tick, log_e) in case["ticks"].as_array().unwrap().iter().zip(numbers(&case["log_e"])) {
                check.step(number(&tick[0]), number(&tick[1]), number(&tick[2]));
                close(check.log_e(), log_e, case);
            }
        }
    }

    #[test]
    fn it_stays_fired_and_weights_of_all_or_nothing_say_nothing() {
        let mut check = SplitCheck::new(1e4f64.ln());
        check.step(0.0, 50.0, 0.0);
        check.step(1.0, 0.0, 50.0);
        assert!(check.log_e().abs() < 1e-12);
        check.step(0.05, 90.0, 910.0);
        check.step(0.05, 900.0, 100.0);
        check.step(0.05, 0.0, 1e6);
        assert!(check.has_fired());
    }
}
