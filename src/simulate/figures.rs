//! Means and ranks over runs, and numbers as people read them. Pure.

use std::time::Duration;

use crate::config::durations;

/// `None` of nothing.
pub(super) fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// The value that nine in ten do not exceed; `None` of nothing.
pub(super) fn ninth_decile(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (sorted.len() * 9).div_ceil(10);
    sorted.get(rank.saturating_sub(1)).copied()
}

/// `1,120`.
pub(super) fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A count that may be a mean: `3.2`, `286`, `1,120`.
pub(super) fn count(n: f64) -> String {
    if n < 99.95 { format!("{n:.1}") } else { grouped(n.round() as u64) }
}

/// `0.1 %`, `12.5 %`, `100 %`: as many digits as are there, up to four behind the point.
pub(super) fn percent(part: f64) -> String {
    let text = format!("{:.4}", part * 100.0);
    // What is there but too small to show must not look like nothing.
    if part > 0.0 && text == "0.0000" {
        return "<0.0001 %".to_owned();
    }
    format!("{} %", text.trim_end_matches('0').trim_end_matches('.'))
}

/// Seconds as in the file: `8m22s`; below ten seconds to the tenth, `1.3s`.
pub(super) fn time(seconds: f64) -> String {
    if seconds < 9.95 && seconds.fract() != 0.0 {
        return format!("{seconds:.1}s");
    }
    Duration::try_from_secs_f64(seconds.round()).map_or_else(|_| "for ever".into(), durations::format)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_and_means() {
        let ten: Vec<f64> = (1..=10).rev().map(f64::from).collect();
        assert_eq!((mean(&ten), ninth_decile(&ten)), (Some(5.5), Some(9.0)));
        assert_eq!((mean(&[]), ninth_decile(&[])), (None, None));
        assert_eq!(ninth_decile(&[4.0]), Some(4.0));
    }

    #[test]
    fn numbers_read_well() {
        assert_eq!([0, 999, 1120, 1_000_000].map(grouped), ["0", "999", "1,120", "1,000,000"]);
        assert_eq!([3.21, 99.94, 286.4, 1120.2].map(count), ["3.2", "99.9", "286", "1,120"]);
        assert_eq!([0.0, 0.001, 0.125, 1.0, 1e-9].map(percent), ["0 %", "0.1 %", "12.5 %", "100 %", "<0.0001 %"]);
        assert_eq!([0.0, 1.26, 9.97, 502.2, 1e300].map(time), ["0s", "1.3s", "10s", "8m22s", "for ever"]);
    }
}
