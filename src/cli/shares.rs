//! `weir shift`'s arithmetic: percents of some versions in, whole weights of all versions out. Pure.
//!
//! Invariants: a named version gets exactly its percent of the whole; the others keep their present ratio, exactly if
//! whole weights up to 1,000,000 can say it, else to within one millionth of the whole each.

use crate::model::{Weight, Weights};

/// One percent in the unit parts are counted in: a share is a whole number of millionths.
const PERCENT: u64 = 10_000;
const WHOLE: u64 = 100 * PERCENT;

/// `v2=25`: a version and its part of the whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    pub version: String,
    /// Millionths of the whole, 0 to 1,000,000.
    millionths: u64,
}

impl Part {
    /// Reads `VERSION=PERCENT`; the percent may have up to four decimals and a `%`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (version, percent) = text.split_once('=').ok_or("write VERSION=PERCENT, e.g. v2=25")?;
        if version.is_empty() {
            return Err("the version's name is missing; write VERSION=PERCENT, e.g. v2=25".to_owned());
        }
        let millionths = millionths(percent.strip_suffix('%').unwrap_or(percent))
            .ok_or_else(|| format!("`{percent}` is not a percentage from 0 to 100 with at most four decimals"))?;
        Ok(Self { version: version.to_owned(), millionths })
    }
}

/// Exact, unlike a detour over floating point: `0.1` is a tenth of a percent and nothing else.
fn millionths(percent: &str) -> Option<u64> {
    let (whole, decimals) = percent.split_once('.').unwrap_or((percent, "0"));
    let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(decimals) || whole.len() > 3 || decimals.len() > 4 {
        return None;
    }
    let n = whole.parse::<u64>().ok()? * PERCENT + format!("{decimals:0<4}").parse::<u64>().ok()?;
    (n <= WHOLE).then_some(n)
}

/// Why the parts make no set of weights.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SharesError {
    #[error("version `{0}` is named twice")]
    Twice(String),
    #[error("split `{split}` has {}; not `{version}`", known.join(", "))]
    UnknownVersion { split: String, version: String, known: Vec<String> },
    #[error("the percents add up to {0}, more than 100")]
    Over(String),
    #[error("every version is named, so the percents must add up to 100, not {0}")]
    NotWhole(String),
    #[error("the rest, {rest} %, would go to {}, which {} weight 0; name {} too", others.join(", "),
        if others.len() == 1 { "has" } else { "have" }, if others.len() == 1 { "it" } else { "them" })]
    NobodyForTheRest { rest: String, others: Vec<String> },
}

/// What can be refused before the running weir is asked.
pub fn check(parts: &[Part]) -> Result<(), SharesError> {
    for (i, part) in parts.iter().enumerate() {
        if parts[..i].iter().any(|p| p.version == part.version) {
            return Err(SharesError::Twice(part.version.clone()));
        }
    }
    let sum = parts.iter().map(|p| p.millionths).sum();
    if sum > WHOLE { Err(SharesError::Over(percent(sum))) } else { Ok(()) }
}

/// The new weights of all versions of `split`, in the order of `present`.
pub fn shift(split: &str, present: &Weights, parts: &[Part]) -> Result<Weights, SharesError> {
    check(parts)?;
    let known = || present.iter().map(|(v, _)| v.to_string()).collect::<Vec<_>>();
    let named = |version: &str| parts.iter().find(|p| p.version == version).map(|p| p.millionths);
    if let Some(p) = parts.iter().find(|p| !present.iter().any(|(v, _)| v.as_str() == p.version)) {
        return Err(SharesError::UnknownVersion {
            split: split.to_owned(),
            version: p.version.clone(),
            known: known(),
        });
    }
    let sum = parts.iter().map(|p| p.millionths).sum::<u64>();
    let entries: Vec<Entry> = present
        .iter()
        .map(|(v, w)| named(v.as_str()).map_or(Entry::Other(u64::from(w.value())), Entry::Named))
        .collect();
    let others: u64 = entries.iter().map(|e| e.other()).sum();
    if sum < WHOLE && parts.len() == present.len() {
        return Err(SharesError::NotWhole(percent(sum)));
    }
    if sum < WHOLE && others == 0 {
        let others = known().into_iter().filter(|v| named(v).is_none()).collect();
        return Err(SharesError::NobodyForTheRest { rest: percent(WHOLE - sum), others });
    }
    let values = exact(&entries, WHOLE - sum, others).unwrap_or_else(|| rounded(&entries, WHOLE - sum, others));
    Ok(present.iter().zip(values).map(|((v, _), n)| (v.clone(), weight(n))).collect())
}

/// A version named by the operator, with its millionths; or one that shares the rest, with its present weight.
#[derive(Clone, Copy)]
enum Entry {
    Named(u64),
    Other(u64),
}

impl Entry {
    fn other(self) -> u64 {
        match self {
            Self::Named(_) => 0,
            Self::Other(w) => w,
        }
    }
}

/// The smallest whole numbers of exactly these proportions, written out of 100 if they can be; `None` if too large.
fn exact(entries: &[Entry], rest: u64, others: u64) -> Option<Vec<u64>> {
    let scaled = |e: &Entry| match *e {
        Entry::Named(p) => u128::from(p) * u128::from(others.max(1)),
        Entry::Other(w) => u128::from(w) * u128::from(rest),
    };
    let all: Vec<u128> = entries.iter().map(scaled).collect();
    let divisor = all.iter().copied().fold(0, gcd).max(1);
    let sum: u128 = all.iter().sum::<u128>() / divisor;
    // 75 and 25 rather than 3 and 1: an operator who thinks in percents reads them back as such.
    let factor = [100, 1000].into_iter().find(|n: &u128| n.is_multiple_of(sum)).map_or(1, |n| n / sum);
    let values = all.iter().map(|n| n / divisor * factor);
    values.map(|n| u64::try_from(n).ok().filter(|&n| n <= u64::from(Weight::MAX))).collect()
}

/// Out of a million, so that every named part is whole; the rest by largest remainder.
fn rounded(entries: &[Entry], rest: u64, others: u64) -> Vec<u64> {
    let share = |w: u64| u128::from(w) * u128::from(rest);
    let others = u128::from(others.max(1));
    let mut values: Vec<u64> = entries
        .iter()
        .map(|e| match *e {
            Entry::Named(p) => p,
            Entry::Other(w) => u64::try_from(share(w) / others).unwrap_or(rest),
        })
        .collect();
    let missing = WHOLE.saturating_sub(values.iter().sum());
    let mut by_remainder: Vec<usize> = (0..entries.len()).filter(|&i| entries[i].other() > 0).collect();
    by_remainder.sort_by_key(|&i| std::cmp::Reverse(share(entries[i].other()) % others));
    for i in by_remainder.into_iter().take(usize::try_from(missing).unwrap_or(usize::MAX)) {
        values[i] += 1;
    }
    values
}

fn gcd(a: u128, b: u128) -> u128 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// Both ways above keep to the range; an overflow would be a bug here and is capped rather than a panic.
fn weight(n: u64) -> Weight {
    u32::try_from(n)
        .ok()
        .and_then(|n| Weight::new(n).ok())
        .unwrap_or_else(|| Weight::new(Weight::MAX).unwrap_or_default())
}

/// Millionths as a percent without idle zeroes: `25`, `0.5`.
fn percent(millionths: u64) -> String {
    let text = format!("{}.{:04}", millionths / PERCENT, millionths % PERCENT);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::VersionName;

    fn weights(list: &[u32]) -> Weights {
        list.iter()
            .enumerate()
            .map(|(i, &w)| (VersionName::new(&format!("v{}", i + 1)).unwrap(), Weight::new(w).unwrap()))
            .collect()
    }

    fn parts(texts: &[&str]) -> Vec<Part> {
        texts.iter().map(|t| Part::parse(t).unwrap()).collect()
    }

    fn shifted(present: &[u32], texts: &[&str]) -> Result<Vec<u32>, SharesError> {
        let new = shift("shop", &weights(present), &parts(texts))?;
        Ok(new.iter().map(|(_, w)| w.value()).collect())
    }

    #[test]
    fn the_usual_cases_read_as_percents() {
        assert_eq!(shifted(&[90, 10], &["v2=25"]), Ok(vec![75, 25]));
        assert_eq!(shifted(&[1, 1], &["v2=0.5"]), Ok(vec![995, 5]));
        assert_eq!(shifted(&[90, 10], &["v2=100"]), Ok(vec![0, 100]));
        assert_eq!(shifted(&[0, 100], &["v1=0", "v2=100%"]), Ok(vec![0, 100]));
        assert_eq!(shifted(&[60, 30, 10], &["v3=40"]), Ok(vec![40, 20, 40]));
        assert_eq!(shifted(&[1, 1, 1], &["v3=33"]), Ok(vec![335, 335, 330]));
        assert_eq!(shifted(&[50, 0, 50], &["v3=10"]), Ok(vec![90, 0, 10]));
    }

    #[test]
    fn what_makes_no_sense_is_told_apart() {
        let text = |present: &[u32], texts: &[&str]| shifted(present, texts).unwrap_err().to_string();
        assert_eq!(text(&[90, 10], &["v1=60", "v2=50.5"]), "the percents add up to 110.5, more than 100");
        let all = "every version is named, so the percents must add up to 100, not 50";
        assert_eq!(text(&[90, 10], &["v1=40", "v2=10"]), all);
        assert_eq!(text(&[90, 10], &["v9=4"]), "split `shop` has v1, v2; not `v9`");
        assert_eq!(text(&[90, 10], &["v1=4", "v1=5"]), "version `v1` is named twice");
        let rest = "the rest, 75 %, would go to v1, which has weight 0; name it too";
        assert_eq!(text(&[0, 100], &["v2=25"]), rest);
    }

    #[test]
    fn percents_are_exact_decimals() {
        assert_eq!(Part::parse("v2=0.0001").unwrap().millionths, 1);
        assert_eq!(Part::parse("v2=12.5%").unwrap().millionths, 125_000);
        for bad in ["v2", "=5", "v2=", "v2=-1", "v2=100.1", "v2=1e2", "v2=0.00001", "v2=.5", "v2=5.", "v2=NaN", "v2=٣"]
        {
            assert!(Part::parse(bad).is_err(), "{bad}");
        }
    }

    /// Present weights, and for some of the versions a percent; at least one version is left out.
    fn case() -> impl Strategy<Value = (Vec<u32>, Vec<u64>)> {
        (prop::collection::vec(prop_oneof![0u32..200, 0u32..=1_000_000], 2..8)).prop_flat_map(|present| {
            let named = 1..present.len();
            let most = WHOLE / present.len() as u64;
            (Just(present), prop::collection::vec(0..=most, named))
        })
    }

    proptest! {
        #[test]
        fn named_parts_are_exact_and_the_others_keep_their_ratio((present, named) in case()) {
            let parts: Vec<Part> = named.iter().enumerate()
                .map(|(i, &millionths)| Part { version: format!("v{}", i + 1), millionths }).collect();
            let others: u128 = present[named.len()..].iter().map(|&w| u128::from(w)).sum();
            prop_assume!(others > 0);
            let new = shift("shop", &weights(&present), &parts).unwrap();
            let new: Vec<u128> = new.iter().map(|(_, w)| u128::from(w.value())).collect();
            let total: u128 = new.iter().sum();
            prop_assert!(total > 0);
            for (n, p) in new.iter().zip(&named) {
                prop_assert_eq!(n * u128::from(WHOLE), u128::from(*p) * total);
            }
            let rest = u128::from(WHOLE - named.iter().sum::<u64>());
            for (n, &w) in new[named.len()..].iter().zip(&present[named.len()..]) {
                // |n / total - rest * w / (WHOLE * others)| is below a millionth.
                let (ours, ideal) = (n * u128::from(WHOLE) * others, u128::from(w) * rest * total);
                prop_assert!(ours.abs_diff(ideal) <= total * others, "{} of {:?}", n, new);
                prop_assert!(w > 0 || *n == 0);
            }
        }

        #[test]
        fn a_present_ratio_that_fits_is_kept_exactly(a in 1u32..100, b in 1u32..100, percent in 0u32..100) {
            let part = format!("v3={percent}");
            let new = shifted(&[a, b, 7], &[&part]).unwrap();
            prop_assert_eq!(u64::from(new[0]) * u64::from(b), u64::from(new[1]) * u64::from(a));
        }

        #[test]
        fn no_text_panics(text in ".{0,20}") {
            let _ = Part::parse(&text);
            let _ = Part::parse(&format!("v={text}"));
        }
    }
}
