//! One running test: a mixture over alternatives and over start times (section 4).
//!
//! A canary may break late, and its good past must not hide that. So a share of the capital is held back and released
//! as canary requests are seen: half at once, half of the rest by the thousandth, and so on. Capital released earlier
//! has been through all ticks since, capital released now has not.
//!
//! Invariant: what is released, and at what odds, is fixed before the tick's outcomes are read.

use serde::{Deserialize, Serialize};

use super::exact;
use super::math::{log_add, log_sum};

/// Share of the capital that is in play from the first tick.
const AT_ONCE: f64 = 0.5;
/// Canary requests after which half of the rest is in play.
const HALF_TIME: f64 = 1000.0;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Evidence {
    /// Logarithm of the capital on each alternative, whatever its share of the whole.
    #[serde(with = "exact::list")]
    log_a: Vec<f64>,
    /// Canary requests seen.
    #[serde(with = "exact")]
    seen: f64,
    #[serde(with = "exact")]
    released: f64,
    #[serde(with = "exact")]
    log_e: f64,
}

impl Evidence {
    /// Knows nothing: an e-value of 1.
    pub(super) fn new(alternatives: usize) -> Self {
        Self { log_a: vec![f64::NEG_INFINITY; alternatives], seen: 0.0, released: 0.0, log_e: 0.0 }
    }

    /// One tick: the log likelihood ratio of each alternative, its weight in the mixture, and the canary's requests.
    pub(super) fn step(&mut self, log_weights: &[f64], gains: &[f64], canary_all: f64) {
        let total = 1.0 - (1.0 - AT_ONCE) / (1.0 + self.seen / HALF_TIME);
        let fresh = total - self.released;
        for (log_a, gain) in self.log_a.iter_mut().zip(gains) {
            if fresh > 0.0 {
                *log_a = log_add(*log_a, fresh.ln());
            }
            *log_a += gain;
        }
        self.released = total;
        let terms = self.log_a.iter().zip(log_weights).map(|(log_a, log_weight)| log_a + log_weight);
        self.log_e = log_sum(terms.chain(std::iter::once((1.0 - self.released).ln())));
        self.seen += canary_all;
    }

    /// A tick in which nothing is bet.
    pub(super) fn idle(&mut self, log_weights: &[f64], canary_all: f64) {
        const NOTHING: [f64; 16] = [0.0; 16];
        self.step(log_weights, &NOTHING[..self.log_a.len()], canary_all);
    }

    /// Natural logarithm of the e-value.
    pub(super) fn log_e(&self) -> f64 {
        self.log_e
    }

    /// Whether it can have come from ticks; asked of what was read from a disk.
    pub(super) fn is_sound(&self, alternatives: usize) -> bool {
        self.log_a.len() == alternatives
            && self.log_a.iter().all(|&log_a| log_a < f64::INFINITY)
            && self.seen.is_finite()
            && self.seen >= 0.0
            && (0.0..=1.0).contains(&self.released)
            && self.log_e.is_finite()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tick_without_requests_changes_nothing() {
        let mut evidence = Evidence::new(2);
        let weights = [0.5f64.ln(), 0.5f64.ln()];
        evidence.step(&weights, &[1.0, -1.0], 40.0);
        evidence.idle(&weights, 0.0);
        let before = evidence.log_e();
        (0..100).for_each(|_| evidence.idle(&weights, 0.0));
        assert!((evidence.log_e() - before).abs() < 1e-12);
    }

    #[test]
    fn old_losses_do_not_hide_a_late_gain() {
        let weights = [0.0];
        let mut evidence = Evidence::new(1);
        // Long good behaviour: the bet on a bad canary loses everything it has, thousandfold.
        (0..100).for_each(|_| evidence.step(&weights, &[-10.0], 100.0));
        assert!(evidence.log_e() > 0.04f64.ln());
        (0..4).for_each(|_| evidence.step(&weights, &[6.0], 1.0));
        assert!(evidence.log_e() > 1000f64.ln(), "{}", evidence.log_e());
    }
}
