//! Durations as the operator writes them: `"250ms"`, `"10s"`, `"1h30m"`, `"0s"`.
//!
//! Invariant: `parse(&format(d)) == d` for every whole number of milliseconds up to `MAX`; nothing longer is ever
//! accepted, so that adding one to a clock cannot overflow.

use std::time::Duration;

/// The longest duration that is accepted: a year.
pub const MAX: Duration = Duration::from_secs(365 * 24 * 3600);

const UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

/// Why a text is not a duration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadDuration {
    #[error("it has no number")]
    NoNumber,
    #[error("a number without a unit (ms, s, m, h, d)")]
    NoUnit,
    #[error("a unit that is none of ms, s, m, h, d")]
    UnknownUnit,
    #[error("units must go from large to small, each at most once")]
    Order,
    #[error("longer than a year")]
    TooLong,
}

/// Reads numbers with units, largest unit first.
///
/// # Errors
/// `BadDuration` says what is wrong.
pub fn parse(text: &str) -> Result<Duration, BadDuration> {
    let mut rest = text.trim();
    let mut total: u64 = 0;
    let mut smallest = u64::MAX;
    if rest.is_empty() {
        return Err(BadDuration::NoNumber);
    }
    while !rest.is_empty() {
        let (count, after) = take_number(rest)?;
        let (unit, after) = take_unit(after)?;
        if unit >= smallest {
            return Err(BadDuration::Order);
        }
        smallest = unit;
        total = count.checked_mul(unit).and_then(|part| total.checked_add(part)).ok_or(BadDuration::TooLong)?;
        rest = after;
    }
    let duration = Duration::from_millis(total);
    if duration <= MAX { Ok(duration) } else { Err(BadDuration::TooLong) }
}

fn take_number(text: &str) -> Result<(u64, &str), BadDuration> {
    let (digits, rest) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    if digits.is_empty() {
        return Err(BadDuration::NoNumber);
    }
    Ok((digits.parse().map_err(|_| BadDuration::TooLong)?, rest))
}

fn take_unit(text: &str) -> Result<(u64, &str), BadDuration> {
    let (word, rest) = text.split_at(text.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(text.len()));
    if word.is_empty() {
        return Err(if text.is_empty() { BadDuration::NoUnit } else { BadDuration::UnknownUnit });
    }
    let unit = UNITS.iter().find(|(name, _)| *name == word).ok_or(BadDuration::UnknownUnit)?;
    Ok((unit.1, rest))
}

/// The shortest writing: `1h30m`, `250ms`, `0s`. Parts of a millisecond are dropped.
pub fn format(duration: Duration) -> String {
    let mut left = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if left == 0 {
        return "0s".into();
    }
    let mut text = String::new();
    for (name, size) in UNITS {
        if left >= size {
            text.push_str(&format!("{}{name}", left / size));
            left %= size;
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_what_people_write() {
        for (text, ms) in
            [("250ms", 250), ("10s", 10_000), ("1h30m", 5_400_000), ("0s", 0), ("1d", 86_400_000), ("1s500ms", 1500)]
        {
            assert_eq!(parse(text), Ok(Duration::from_millis(ms)), "{text}");
        }
    }

    #[test]
    fn says_what_is_wrong() {
        for (text, error) in [
            ("", BadDuration::NoNumber),
            ("s", BadDuration::NoNumber),
            ("10", BadDuration::NoUnit),
            ("1.5s", BadDuration::UnknownUnit),
            ("10 s", BadDuration::UnknownUnit),
            ("10sec", BadDuration::UnknownUnit),
            ("1m1h", BadDuration::Order),
            ("1s1s", BadDuration::Order),
            ("-1s", BadDuration::NoNumber),
            ("366d", BadDuration::TooLong),
            ("99999999999999999999s", BadDuration::TooLong),
        ] {
            assert_eq!(parse(text), Err(error), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(ms in 0..=u64::try_from(MAX.as_millis()).unwrap()) {
            let duration = Duration::from_millis(ms);
            prop_assert_eq!(parse(&format(duration)), Ok(duration));
        }

        #[test]
        fn no_text_panics(text in "\\PC*") {
            let _ = parse(&text);
        }
    }
}
