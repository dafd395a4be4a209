//! Sizes as the operator writes them: `"512B"`, `"64KiB"`, `"10MiB"`, `"1GiB"`.
//!
//! Invariant: `parse(&format(n)) == n` for every `n` up to `MAX`. Only powers of 1024 are known: `KB` and `MB` mean
//! different things to different people, so they are refused with the remedy.

/// The largest size that is accepted.
pub const MAX: u64 = 1 << 50;

const UNITS: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// Why a text is not a size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadSize {
    #[error("it does not start with a whole number")]
    NoNumber,
    #[error("a number without a unit (B, KiB, MiB, GiB)")]
    NoUnit,
    #[error("a unit that is none of B, KiB, MiB, GiB")]
    UnknownUnit,
    #[error("larger than 1048576GiB")]
    TooLarge,
}

/// Reads a whole number with a unit.
///
/// # Errors
/// `BadSize` says what is wrong.
pub fn parse(text: &str) -> Result<u64, BadSize> {
    let text = text.trim();
    let (digits, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    if digits.is_empty() {
        return Err(BadSize::NoNumber);
    }
    if unit.is_empty() {
        return Err(BadSize::NoUnit);
    }
    let (_, factor) = UNITS.iter().find(|(name, _)| *name == unit).ok_or(BadSize::UnknownUnit)?;
    let count: u64 = digits.parse().map_err(|_| BadSize::TooLarge)?;
    count.checked_mul(*factor).filter(|n| *n <= MAX).ok_or(BadSize::TooLarge)
}

/// In the largest unit that leaves no rest.
pub fn format(bytes: u64) -> String {
    let fits = |(_, size): &&(&str, u64)| bytes > 0 && bytes.is_multiple_of(*size);
    let (name, size) = UNITS.iter().find(fits).unwrap_or(&("B", 1));
    format!("{}{name}", bytes / size)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_what_people_write() {
        for (text, n) in [("512B", 512), ("64KiB", 65_536), ("10MiB", 10 << 20), ("1GiB", 1 << 30), ("0B", 0)] {
            assert_eq!(parse(text), Ok(n), "{text}");
            assert_eq!(format(n), text);
        }
    }

    #[test]
    fn says_what_is_wrong() {
        for (text, error) in [
            ("", BadSize::NoNumber),
            ("KiB", BadSize::NoNumber),
            ("64", BadSize::NoUnit),
            ("64KB", BadSize::UnknownUnit),
            ("1.5MiB", BadSize::UnknownUnit),
            ("9999999999GiB", BadSize::TooLarge),
            ("99999999999999999999B", BadSize::TooLarge),
        ] {
            assert_eq!(parse(text), Err(error), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(n in 0..=MAX) {
            prop_assert_eq!(parse(&format(n)), Ok(n));
        }

        #[test]
        fn no_text_panics(text in "\\PC*") {
            let _ = parse(&text);
        }
    }
}
