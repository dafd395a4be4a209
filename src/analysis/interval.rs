//! For people only, no verdict depends on it: where a rate may lie, and how many requests a proof will take.

use super::bets::Line;
use super::math::{bisect, divergence, log_beta};

/// The rates a count leaves standing, both ends within 0..=1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RateInterval {
    pub low: f64,
    pub high: f64,
}

/// All rates that `bad` of `all` do not refute at level `alpha`, however often one looks (section 9).
pub fn rate_interval(bad: u64, all: u64, alpha: f64) -> RateInterval {
    let (bad, good) = (bad.min(all) as f64, (all - bad.min(all)) as f64);
    let mixed = log_beta(bad + 0.5, good + 0.5) - log_beta(0.5, 0.5);
    let is_refuted = |p: f64| {
        let term = |n: f64, log: f64| if n > 0.0 { n * log } else { 0.0 };
        mixed - term(bad, p.ln()) - term(good, (-p).ln_1p()) >= -alpha.ln()
    };
    let seen = if all > 0 { bad / all as f64 } else { 0.5 };
    let low = if bad > 0.0 { bisect(0.0, seen, is_refuted) } else { 0.0 };
    let high = if good > 0.0 { bisect(seen, 1.0, |p| !is_refuted(p)) } else { 1.0 };
    RateInterval { low, high }
}

/// How many canary requests a canary as good as stable needs to be proved within `ratio * rate + delta`, on average.
/// `None`: that bound is no bound, or no better than the rate itself.
pub fn needed_requests(rate: f64, ratio: f64, delta: f64, false_healthy: f64) -> Option<u64> {
    let bound = Line { ratio, delta }.bound(rate);
    needed_of(rate, bound, false_healthy)
}

/// The same of a bound that is known.
pub(super) fn needed_of(rate: f64, bound: f64, false_healthy: f64) -> Option<u64> {
    if bound >= 1.0 || bound <= rate {
        return None;
    }
    let needed = ((2.0 - false_healthy.ln()) / divergence(rate, bound)).ceil();
    needed.is_finite().then_some(needed as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::testing::{close, number, numbers, vectors, whole};

    #[test]
    fn intervals_are_those_of_the_vectors() {
        for case in vectors()["rate_interval"].as_array().unwrap() {
            let got = rate_interval(whole(&case["bad"]), whole(&case["all"]), number(&case["alpha"]));
            let want = numbers(&case["interval"]);
            close(got.low, want[0], case);
            close(got.high, want[1], case);
        }
    }

    #[test]
    fn needed_requests_are_those_of_the_vectors() {
        for case in vectors()["needed_requests"].as_array().unwrap() {
            let [rate, rho, delta, alpha] = ["rate", "rho", "delta", "alpha_healthy"].map(|key| number(&case[key]));
            assert_eq!(needed_requests(rate, rho, delta, alpha), Some(whole(&case["needed"])), "{case}");
        }
        assert_eq!(needed_requests(0.95, 1.1, 0.001, 0.05), None);
        assert_eq!(needed_requests(0.01, 1.0, 0.0, 0.05), None);
    }

    #[test]
    fn the_seen_rate_is_never_refuted() {
        for (bad, all) in [(1, 1), (0, 1), (1, 2), (u64::MAX, u64::MAX), (1, u64::MAX), (9, 3)] {
            let RateInterval { low, high } = rate_interval(bad, all, 0.05);
            assert!((0.0..=1.0).contains(&low) && low <= high && high <= 1.0, "{bad}/{all}: {low} {high}");
        }
    }
}
