//! How much of a split's traffic the new version gets, and the weights that say so.

use serde::{Deserialize, Serialize};

use crate::model::{VersionName, Weight, Weights};

/// `parts` of `WHOLE` for `to`, the rest for `stable`, nothing for anybody else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Share {
    pub to: VersionName,
    pub stable: VersionName,
    /// 0..=`WHOLE`.
    pub parts: u32,
}

/// A hundred percent.
pub(super) const WHOLE: u32 = 1_000_000;

impl Share {
    /// For all versions that the split has when it is done: they may have become more since the start.
    ///
    /// The numbers are those a person would write: 25 and 75, not 250000 and 750000.
    pub fn weights<'a>(&self, versions: impl IntoIterator<Item = &'a VersionName>) -> Weights {
        let unit = [10_000, 1000, 100, 10].into_iter().find(|unit| self.parts.is_multiple_of(*unit)).unwrap_or(1);
        // A part of `WHOLE` is a weight, since that is the largest.
        let weight = |parts: u32| Weight::new(parts / unit).unwrap_or_default();
        let of = |version: &VersionName| match version {
            v if *v == self.to => weight(self.parts),
            v if *v == self.stable => weight(WHOLE.saturating_sub(self.parts)),
            _ => Weight::default(),
        };
        versions.into_iter().map(|v| (v.clone(), of(v))).collect()
    }

    /// As people write it.
    pub fn percent(&self) -> f64 {
        percent(self.parts)
    }
}

pub(super) fn percent(parts: u32) -> f64 {
    f64::from(parts) / f64::from(WHOLE / 100)
}

/// Of a percentage of 0..=100.
pub(super) fn parts(percent: f64) -> u32 {
    (percent * f64::from(WHOLE / 100)).round().clamp(0.0, f64::from(WHOLE)) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rollout::testing::version;

    #[test]
    fn weights_are_the_numbers_a_person_would_write() {
        let versions = ["v1", "v2", "v3"].map(version);
        for (percent, expected) in [
            (0.0, "v1 100, v2 0, v3 0"),
            (25.0, "v1 75, v2 25, v3 0"),
            (0.5, "v1 995, v2 5, v3 0"),
            (33.33, "v1 6667, v2 3333, v3 0"),
            (0.0001, "v1 999999, v2 1, v3 0"),
            (100.0, "v1 0, v2 100, v3 0"),
        ] {
            let share = Share { to: version("v2"), stable: version("v1"), parts: parts(percent) };
            assert_eq!(share.weights(&versions).to_string(), expected);
            assert_eq!(share.percent(), percent);
        }
    }
}
