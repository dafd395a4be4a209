//! Weights, the set of weights of a split, and the revision that numbers changes.
//!
//! Invariant: a `Weight` is at most 1,000,000, so that sums over thousands of versions fit in a `u64`; `Weights`
//! keeps the file's order and names each version once.

use std::fmt;

use serde::de::{MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::VersionName;

/// A relative share of a split's requests, 0 to 1,000,000.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct Weight(u32);

/// A number above `Weight::MAX`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a weight is a whole number from 0 to 1000000")]
pub struct BadWeight;

impl Weight {
    /// The largest weight.
    pub const MAX: u32 = 1_000_000;

    /// Checks and takes a number.
    ///
    /// # Errors
    /// `BadWeight` above `MAX`.
    pub fn new(n: u32) -> Result<Self, BadWeight> {
        if n <= Self::MAX { Ok(Self(n)) } else { Err(BadWeight) }
    }

    /// The number.
    pub fn value(self) -> u32 {
        self.0
    }

    /// No new request comes by weight; the version stays warm.
    pub fn is_zero(self) -> bool {
        self.0 == 0
    }
}

impl TryFrom<u32> for Weight {
    type Error = BadWeight;
    fn try_from(n: u32) -> Result<Self, BadWeight> {
        Self::new(n)
    }
}

impl From<Weight> for u32 {
    fn from(w: Weight) -> u32 {
        w.0
    }
}

/// The number of a change: rises by one with each, over the whole process and over restarts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Revision(pub u64);

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The weights of all versions of a split, in the file's order; JSON: `{"v1":90,"v2":10}`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Weights(Vec<(VersionName, Weight)>);

impl Weights {
    /// The weight of a version, if it is named.
    pub fn weight(&self, version: &VersionName) -> Option<Weight> {
        self.0.iter().find(|(v, _)| v == version).map(|&(_, w)| w)
    }

    /// Sets a version's weight, appending the version if it is new.
    pub fn set(&mut self, version: VersionName, weight: Weight) {
        match self.0.iter_mut().find(|(v, _)| *v == version) {
            Some(entry) => entry.1 = weight,
            None => self.0.push((version, weight)),
        }
    }

    /// Sum of all weights.
    pub fn total(&self) -> u64 {
        self.0.iter().map(|(_, w)| u64::from(w.value())).sum()
    }

    /// A version's part of the whole, 0 to 1; 0 when the sum is 0.
    pub fn share(&self, version: &VersionName) -> f64 {
        let (part, total) = (self.weight(version).unwrap_or_default().value(), self.total());
        if total == 0 { 0.0 } else { f64::from(part) / total as f64 }
    }

    /// The pairs in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&VersionName, Weight)> {
        self.0.iter().map(|(v, w)| (v, *w))
    }

    /// How many versions are named.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// No version at all.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether both give every version the same weight, in whatever order; a version not named counts as 0.
    pub fn same_as(&self, other: &Self) -> bool {
        let within = |a: &Self, b: &Self| a.iter().all(|(v, w)| b.weight(v).unwrap_or_default() == w);
        within(self, other) && within(other, self)
    }
}

impl FromIterator<(VersionName, Weight)> for Weights {
    /// Later pairs replace earlier ones of the same name.
    fn from_iter<I: IntoIterator<Item = (VersionName, Weight)>>(pairs: I) -> Self {
        let mut weights = Self::default();
        for (v, w) in pairs {
            weights.set(v, w);
        }
        weights
    }
}

impl fmt::Display for Weights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (v, w)) in self.iter().enumerate() {
            write!(f, "{}{v} {}", if i == 0 { "" } else { ", " }, w.value())?;
        }
        Ok(())
    }
}

impl Serialize for Weights {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let mut map = s.serialize_map(Some(self.0.len()))?;
        for (v, w) in self.iter() {
            map.serialize_entry(v, &w)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Weights {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = Weights;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a table of version = weight")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Weights, A::Error> {
                let mut weights = Weights::default();
                while let Some((v, w)) = map.next_entry::<VersionName, Weight>()? {
                    weights.set(v, w);
                }
                Ok(weights)
            }
        }
        d.deserialize_map(Pairs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weights(pairs: &[(&str, u32)]) -> Weights {
        pairs.iter().map(|&(v, w)| (VersionName::new(v).unwrap(), Weight::new(w).unwrap())).collect()
    }

    #[test]
    fn json_keeps_order_and_ranges() {
        let w: Weights = serde_json::from_str(r#"{"v2":10,"v1":90}"#).unwrap();
        assert_eq!(serde_json::to_string(&w).unwrap(), r#"{"v2":10,"v1":90}"#);
        assert!(serde_json::from_str::<Weights>(r#"{"v2":1000001}"#).is_err());
        assert!(serde_json::from_str::<Weights>(r#"{"v2":-1}"#).is_err());
    }

    #[test]
    fn same_as_ignores_order_and_absent_zeroes() {
        assert!(weights(&[("v1", 90), ("v2", 10)]).same_as(&weights(&[("v2", 10), ("v1", 90)])));
        assert!(weights(&[("v1", 100)]).same_as(&weights(&[("v1", 100), ("v2", 0)])));
        assert!(!weights(&[("v1", 90), ("v2", 10)]).same_as(&weights(&[("v1", 9), ("v2", 1)])));
    }

    #[test]
    fn shares_are_parts_of_the_sum() {
        let w = weights(&[("v1", 3), ("v2", 1)]);
        assert_eq!(w.share(&VersionName::new("v2").unwrap()), 0.25);
        assert_eq!(weights(&[("v1", 0)]).share(&VersionName::new("v1").unwrap()), 0.0);
    }
}
