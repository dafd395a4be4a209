//! What the operator allows, and how sure we want to be. Fixed for a whole rollout: a restored engine keeps its own.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::bets::Line;
use super::{counts, exact};

/// Settings of one rollout's analysis. `Default` is what a file without any gets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Chance that a canary no worse than allowed is ever called regressed, over the whole rollout.
    #[serde(with = "exact")]
    pub false_alarm: f64,
    /// What is allowed of failures.
    pub errors: Allowance,
    /// What is allowed of latencies; `None`: they are not judged.
    pub latency: Option<LatencyAllowance>,
    /// Chance that a canary is blamed for an incident it shares with stable.
    #[serde(with = "exact")]
    pub beta: f64,
    /// Chance that a canary worse than allowed is called healthy, at any one look.
    #[serde(with = "exact")]
    pub false_healthy: f64,
    /// Chance that a right split is called wrong.
    #[serde(with = "exact")]
    pub split_alarm: f64,
    /// Latencies of requests that began so soon after a step's start, or an endpoint's first request, count for neither
    /// version.
    pub warm_up: Duration,
}

/// Allowed: `ratio` times stable's failure rate plus `margin`, and never more than `max`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Allowance {
    /// At least 1.
    #[serde(with = "exact")]
    pub ratio: f64,
    /// A rate: 0.001 is a tenth of a percentage point.
    #[serde(with = "exact")]
    pub margin: f64,
    /// `None`: thrice the rate in the history, at least 1 %.
    #[serde(with = "exact::option")]
    pub max: Option<f64>,
}

/// Allowed: `slower` than stable by this share, and a 99th percentile of at most `max_p99`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LatencyAllowance {
    /// 0.19 is 19 %; taken as the nearest whole number of buckets (9 % each).
    #[serde(with = "exact")]
    pub slower: f64,
    /// Taken as the end of its bucket; part of the objective.
    pub max_p99: Option<Duration>,
}

/// A setting no analysis can be run with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{key}` must be {allowed}")]
pub struct BadSettings {
    /// As in the file: `errors.ratio`.
    pub key: &'static str,
    /// What would be right.
    pub allowed: &'static str,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            false_alarm: 0.001,
            errors: Allowance { ratio: 1.1, margin: 0.001, max: None },
            latency: Some(LatencyAllowance { slower: 0.19, max_p99: None }),
            beta: 0.05,
            false_healthy: 0.05,
            split_alarm: 1e-4,
            warm_up: Duration::from_secs(10),
        }
    }
}

impl Settings {
    /// # Errors
    /// The first setting out of range.
    pub fn check(&self) -> Result<(), BadSettings> {
        const CHANCE: &str = "above 0 and below 1";
        let is_chance = |x: f64| x > 1e-12 && x < 1.0;
        let Allowance { ratio, margin, max } = self.errors;
        let latency = self.latency.as_ref();
        let demands = [
            (is_chance(self.false_alarm), "false_alarm", CHANCE),
            (is_chance(self.beta), "beta", CHANCE),
            (is_chance(self.false_healthy), "false_healthy", CHANCE),
            (is_chance(self.split_alarm), "split_alarm", CHANCE),
            ((1.0..=100.0).contains(&ratio), "errors.ratio", "1 to 100"),
            ((0.0..1.0).contains(&margin), "errors.margin", "at least 0 and below 1"),
            (max.is_none_or(is_chance), "errors.max", CHANCE),
            (latency.is_none_or(|l| (0.0..=100.0).contains(&l.slower)), "latency.slower", "0 to 100"),
            (latency.is_none_or(|l| l.max_p99 != Some(Duration::ZERO)), "latency.max_p99", "above 0"),
        ];
        let bad = demands.into_iter().find(|(is_kept, ..)| !is_kept);
        bad.map_or(Ok(()), |(_, key, allowed)| Err(BadSettings { key, allowed }))
    }

    /// For each step of a rollout the margin to be proved before leaving it: an excess of failures below 0.05 % of all
    /// traffic at the next step's weight (section 9). Weights in 0..=1; the last step is followed by all traffic.
    pub fn healthy_margins(&self, steps: &[f64]) -> Vec<f64> {
        let next = steps.iter().skip(1).copied().chain(std::iter::once(1.0)).take(steps.len());
        next.map(|w| if w > 0.0 { (0.0005 / w).max(self.errors.margin).min(1.0) } else { 1.0 }).collect()
    }

    pub(super) fn line(&self, delta: f64) -> Line {
        Line { ratio: self.errors.ratio, delta }
    }
}

impl LatencyAllowance {
    /// The tolerance in buckets.
    pub fn shift(&self) -> usize {
        (8.0 * (1.0 + self.slower).log2()).round().max(0.0) as usize
    }

    /// First bucket that is too slow for `max_p99`.
    pub(super) fn too_slow(&self) -> Option<usize> {
        self.max_p99.map(|max| counts::bucket_of(max) + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_in_range_and_others_are_named() {
        assert_eq!(Settings::default().check(), Ok(()));
        let errors = Allowance { ratio: 0.9, ..Settings::default().errors };
        let bad = Settings { errors, ..Settings::default() }.check().unwrap_err();
        assert_eq!(bad.to_string(), "`errors.ratio` must be 1 to 100");
        let bad = Settings { false_alarm: f64::NAN, ..Settings::default() }.check().unwrap_err();
        assert_eq!(bad.key, "false_alarm");
    }

    #[test]
    fn slower_is_the_nearest_bucket() {
        let shift = |slower| LatencyAllowance { slower, max_p99: None }.shift();
        assert_eq!([0.0, 0.04, 0.05, 0.19, 0.2, 1.0].map(shift), [0, 0, 1, 2, 2, 8]);
    }

    #[test]
    fn the_ladder_asks_more_before_more_traffic() {
        let margins = Settings::default().healthy_margins(&[0.01, 0.05, 0.25, 0.5, 1.0]);
        assert_eq!(margins, [0.01, 0.002, 0.001, 0.001, 0.001]);
    }
}
