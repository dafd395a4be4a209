//! Rates, traffic, factors and steps as people write them on the command line. Pure.
//!
//! Invariant: what is taken is finite and in range, and steps are a list the file could hold; a refusal says how to
//! write it.

use std::time::Duration;

use crate::config::{Step, Strategy, durations, steps_flaw};

/// Steps of a rollout: `1:2m,5:5m,100`.
#[derive(Clone, Debug, PartialEq)]
pub struct Steps(pub Vec<Step>);

/// For a step that names no time; that of the default steps.
const HOLD: Duration = Duration::from_secs(300);

impl Steps {
    pub fn parse(text: &str) -> Result<Self, String> {
        let steps = text.split(',').map(step).collect::<Result<Vec<_>, _>>()?;
        match steps_flaw(Strategy::Canary, &steps) {
            Some(flaw) => Err(flaw.to_string()),
            None => Ok(Self(steps)),
        }
    }
}

fn step(text: &str) -> Result<Step, String> {
    let wrong = || format!("`{text}` is not a step; write PERCENT:TIME, as in 5:10m");
    let (weight, hold) = text.split_once(':').map_or((text, None), |(weight, hold)| (weight, Some(hold)));
    let weight = weight.trim().trim_end_matches('%').trim_end().parse().map_err(|_| wrong())?;
    let hold = hold.map_or(Ok(HOLD), durations::parse).map_err(|_| wrong())?;
    Ok(Step { weight, hold, approve: false })
}

/// A share of 0 to 1: `0.1%` or `0.001`.
pub fn rate(text: &str) -> Result<f64, String> {
    let wrong = || format!("`{text}` is not a rate of 0 to 100 %; write 0.1% or 0.001");
    let (number, unit) = text.strip_suffix('%').map_or((text, 1.0), |number| (number.trim_end(), 100.0));
    let rate = number.trim_start().parse::<f64>().map_err(|_| wrong())? / unit;
    if (0.0..=1.0).contains(&rate) { Ok(rate) } else { Err(wrong()) }
}

/// Requests per second.
pub fn per_second(text: &str) -> Result<f64, String> {
    positive(text, 1e-3, 1e6).ok_or(format!("`{text}` is not a number of requests per second, 0.001 to 1000000"))
}

/// How many times as much.
pub fn factor(text: &str) -> Result<f64, String> {
    positive(text, 1e-3, 1e4).ok_or(format!("`{text}` is not a factor, 0.001 to 10000"))
}

fn positive(text: &str, least: f64, most: f64) -> Option<f64> {
    text.parse().ok().filter(|x| (least..=most).contains(x))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn rates_are_written_in_percent_or_plain() {
        for (text, expected) in
            [("0.1%", 0.001), ("0.001", 0.001), ("5 %", 0.05), ("0", 0.0), ("100%", 1.0), ("1", 1.0)]
        {
            assert!((rate(text).unwrap() - expected).abs() < 1e-15, "{text}");
        }
        for bad in ["", "%", "2", "101%", "-1%", "NaN", "inf", "1‰", "0.1%%"] {
            assert!(rate(bad).unwrap_err().contains("write 0.1% or 0.001"), "{bad}");
        }
    }

    #[test]
    fn steps_have_a_weight_and_a_time() {
        let Steps(steps) = Steps::parse("1:2m,5%, 50:1h30m,100:0s").unwrap();
        let read: Vec<_> = steps.iter().map(|step| (step.weight, step.hold.as_secs())).collect();
        assert_eq!(read, [(1.0, 120), (5.0, 300), (50.0, 5400), (100.0, 0)]);
        for (bad, why) in [
            ("", "write PERCENT:TIME"),
            ("1:2m,", "write PERCENT:TIME"),
            ("1:120", "write PERCENT:TIME"),
            ("x:1m", "write PERCENT:TIME"),
            ("5,1", "not above that of the step before"),
            ("101", "a weight is 0, or 0.0001 to 100"),
            ("nan", "a weight is 0, or 0.0001 to 100"),
        ] {
            let said = Steps::parse(bad).unwrap_err();
            assert!(said.contains(why), "{bad}: {said}");
        }
    }

    #[test]
    fn traffic_and_factors_have_bounds() {
        assert_eq!((per_second("0.5"), factor("1.2")), (Ok(0.5), Ok(1.2)));
        for bad in ["0", "-1", "NaN", "1e9", "many"] {
            assert!(per_second(bad).is_err() && factor(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics_and_what_is_taken_is_in_range(text in "\\PC*") {
            let _ = Steps::parse(&text);
            prop_assert!(rate(&text).is_ok_and(|rate| (0.0..=1.0).contains(&rate)) || rate(&text).is_err());
        }

        #[test]
        fn a_rate_reads_back(rate_ in 0.0f64..=1.0) {
            prop_assert_eq!(rate(&rate_.to_string()), Ok(rate_));
        }
    }
}
