//! The sentences of a verdict, exact to the letter (section 9 and its vectors).

use serde::{Deserialize, Serialize};

use super::counts::Tally;

/// Counts so far of both versions.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(super) struct Sums {
    pub(super) canary: Tally,
    pub(super) stable: Tally,
}

impl Sums {
    pub(super) fn add(&mut self, canary: &Tally, stable: &Tally) {
        self.canary.add(canary);
        self.stable.add(stable);
    }

    pub(super) fn is_sound(&self) -> bool {
        self.canary.is_sound() && self.stable.is_sound()
    }
}

/// A log e-value and the chance whose inverse it is measured against.
#[derive(Clone, Copy, Debug)]
pub(super) struct Measure {
    pub(super) log_e: f64,
    pub(super) alpha: f64,
}

impl Measure {
    fn exceeds(&self) -> String {
        format!("e-value {} > {}", e_value(self.log_e), limit(self.alpha))
    }

    fn of(&self) -> String {
        format!("{} of {}", e_value(self.log_e), limit(self.alpha))
    }
}

pub(super) fn errors(sums: &Sums, allowed: &str, total: Measure) -> String {
    let (canary, stable) = (ratio(&sums.canary), ratio(&sums.stable));
    format!("errors: canary {canary} vs stable {stable} (allowed {allowed}); {}", total.exceeds())
}

pub(super) fn objective(sums: &Sums, broken: &str, total: Measure) -> String {
    format!("{}; stable {}; {}", breaks(sums, broken), ratio(&sums.stable), total.exceeds())
}

/// The objective is broken, but no more by the canary than by stable, as far as is known.
pub(super) fn nothing_sets_apart(sums: &Sums, broken: &str) -> String {
    format!("{}, but nothing sets it apart from stable {}; held", breaks(sums, broken), ratio(&sums.stable))
}

fn breaks(sums: &Sums, broken: &str) -> String {
    format!("errors: canary {} breaks the objective of {broken}", ratio(&sums.canary))
}

/// `latency: canary 12/400 slower than 500ms`, both counts of requests with a latency that counts.
pub(super) fn max_p99(slow: &Sums, max: &str, total: Measure) -> String {
    format!("{}; stable {}; {}", too_slow(slow, max), ratio(&slow.stable), total.exceeds())
}

pub(super) fn max_p99_held(slow: &Sums, max: &str) -> String {
    format!("{}, but nothing sets it apart from stable {}; held", too_slow(slow, max), ratio(&slow.stable))
}

fn too_slow(slow: &Sums, max: &str) -> String {
    format!("latency (max_p99): canary {} slower than {max} breaks the objective of 1%", ratio(&slow.canary))
}

pub(super) fn latency(test: &str, shift: usize, total: Measure) -> String {
    let slower = 100.0 * ((shift as f64 / 8.0).exp2() - 1.0);
    format!("latency ({test}): canary slower than stable by more than {slower:.0}%; {}", total.exceeds())
}

pub(super) fn split(canary_all: f64, all: f64) -> String {
    format!("split: canary got {canary_all} of {all} requests, not what the weights say; comparison stopped")
}

pub(super) fn healthy(sums: &Sums, allowed: &str, weakest: &str, proof: Measure) -> String {
    let (canary, stable) = (ratio(&sums.canary), ratio(&sums.stable));
    let proof = proof.exceeds();
    format!("errors: canary {canary} vs stable {stable}, within {allowed}; weakest proof {weakest}: {proof}")
}

pub(super) fn undecided(sums: &Sums, total: Measure, weakest: &str, proof: Measure) -> String {
    let (canary, stable) = (ratio(&sums.canary), ratio(&sums.stable));
    format!(
        "canary {canary} vs stable {stable}; against it: e-value {}; for it ({weakest}): {}",
        total.of(),
        proof.of()
    )
}

/// `1.1 x stable + 0.1%`.
pub(super) fn allowance(ratio: f64, delta: f64) -> String {
    format!("{} x stable + {}", significant(ratio, 6), percent(delta))
}

fn ratio(tally: &Tally) -> String {
    format!("{}/{}", tally.bad, tally.all)
}

/// What an e-value, given as its logarithm, is measured against, given as its logarithm too: `1000`, `20`.
pub fn e_limit(log: f64) -> String {
    limit((-log).exp())
}

/// An e-value given as its logarithm, as short as its size allows: `0.42`, `1270`, `4.1e6`, `<0.01`, `1e99+`.
pub fn e_value(log_e: f64) -> String {
    match log_e.exp() {
        // 10^99 and above, infinity too.
        _ if log_e >= 99.0 * std::f64::consts::LN_10 => "1e99+".to_owned(),
        e if e < 0.01 => "<0.01".to_owned(),
        e if e < 10.0 => format!("{e:.2}"),
        e if e < 100.0 => format!("{e:.1}"),
        e if e < 10_000.0 => format!("{e:.0}"),
        e => format!("{e:.1e}"),
    }
}

fn limit(alpha: f64) -> String {
    let limit = 1.0 / alpha;
    if limit < 1e6 { significant(limit, 6) } else { format!("{limit:.1e}") }
}

/// 3 significant digits, 2 below 0.1 %.
pub(super) fn percent(rate: f64) -> String {
    // Of the rate, not of a hundred times it: 100 * 0.001 may lie below 0.1.
    format!("{}%", significant(100.0 * rate, if rate < 0.001 { 2 } else { 3 }))
}

/// At most so many significant digits, without zeros at the end.
fn significant(x: f64, digits: i32) -> String {
    if x == 0.0 || !x.is_finite() {
        return x.to_string();
    }
    let places = (digits - 1 - x.abs().log10().floor() as i32).max(0) as usize;
    let text = format!("{x:.places$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::testing::{number, vectors};

    #[test]
    fn e_values_and_percents_are_those_of_the_vectors() {
        for pair in vectors()["format_e"].as_array().unwrap() {
            assert_eq!(e_value(number(&pair[0])), pair[1].as_str().unwrap(), "{pair}");
        }
        for pair in vectors()["format_percent"].as_array().unwrap() {
            assert_eq!(percent(number(&pair[0])), pair[1].as_str().unwrap(), "{pair}");
        }
    }

    #[test]
    fn limits_and_odd_rates_are_short() {
        assert_eq!([0.001, 0.05, 0.003, 1e-7].map(limit), ["1000", "20", "333.333", "1.0e7"]);
        assert_eq!([1000f64, 20.0, 333.333, 1e7].map(|e| e_limit(e.ln())), ["1000", "20", "333.333", "1.0e7"]);
        assert_eq!(
            [0.0, 1.0, 0.12345, 0.000_123_4, 1e-9].map(percent),
            ["0%", "100%", "12.3%", "0.012%", "0.0000001%"]
        );
        assert_eq!(allowance(1.0, 0.0), "1 x stable + 0%");
    }
}
