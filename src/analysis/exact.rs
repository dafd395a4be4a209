//! Floating point numbers in JSON, bit for bit.
//!
//! serde_json reads a long decimal to within a unit of the last place, and JSON has no infinities; a restored engine
//! must go on exactly as the one that was saved. So a whole number is written as one and anything else as the
//! hexadecimal digits of its bits (a string, since tools read numbers above 2^53 wrongly).

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Exact {
    Whole(i64),
    Bits(String),
}

impl From<f64> for Exact {
    fn from(x: f64) -> Self {
        // The cast saturates; what it does not preserve to the bit (fractions, -0, infinities) goes the other way.
        let whole = x as i64;
        let is_whole = x.abs() < 9e15 && (whole as f64).to_bits() == x.to_bits();
        if is_whole { Self::Whole(whole) } else { Self::Bits(format!("{:x}", x.to_bits())) }
    }
}

impl Exact {
    fn value<E: Error>(&self) -> Result<f64, E> {
        match self {
            Self::Whole(n) => Ok(*n as f64),
            Self::Bits(digits) => u64::from_str_radix(digits, 16).map(f64::from_bits).map_err(E::custom),
        }
    }
}

pub(super) fn serialize<S: Serializer>(x: &f64, to: S) -> Result<S::Ok, S::Error> {
    Exact::from(*x).serialize(to)
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    Exact::deserialize(from)?.value()
}

/// An optional number.
pub(super) mod option {
    use super::{Deserialize, Deserializer, Exact, Serialize, Serializer};

    pub(crate) fn serialize<S: Serializer>(x: &Option<f64>, to: S) -> Result<S::Ok, S::Error> {
        x.map(Exact::from).serialize(to)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<f64>, D::Error> {
        Option::<Exact>::deserialize(from)?.map(|exact| exact.value()).transpose()
    }
}

/// A list of numbers.
pub(super) mod list {
    use super::{Deserialize, Deserializer, Exact, Serializer};

    pub(crate) fn serialize<S: Serializer>(list: &[f64], to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(list.iter().map(|&x| Exact::from(x)))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<f64>, D::Error> {
        Vec::<Exact>::deserialize(from)?.iter().map(Exact::value).collect()
    }
}

/// A number per latency bucket, most of them 0: pairs of index and number.
pub(super) mod sparse {
    use serde::de::Error;

    use super::{Deserialize, Deserializer, Exact, Serializer};
    use crate::analysis::counts::BUCKETS;

    pub(crate) fn serialize<S: Serializer>(list: &[f64], to: S) -> Result<S::Ok, S::Error> {
        let filled = list.iter().enumerate().filter(|&(_, &x)| x != 0.0);
        to.collect_seq(filled.map(|(i, &x)| (i, Exact::from(x))))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<f64>, D::Error> {
        let mut list = vec![0.0; BUCKETS];
        for (i, exact) in Vec::<(usize, Exact)>::deserialize(from)? {
            *list.get_mut(i).ok_or_else(|| D::Error::custom(format!("no latency bucket {i}")))? = exact.value()?;
        }
        Ok(list)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn back(x: f64) -> f64 {
        let text = serde_json::to_string(&Exact::from(x)).unwrap();
        serde_json::from_str::<Exact>(&text).unwrap().value::<serde_json::Error>().unwrap()
    }

    #[test]
    fn the_odd_ones_come_back() {
        for x in [0.0, -0.0, 1.0, f64::INFINITY, f64::NEG_INFINITY, f64::MAX, f64::MIN_POSITIVE, 9.1e15, 0.1 + 0.2] {
            assert_eq!(back(x).to_bits(), x.to_bits(), "{x}");
        }
        assert!(serde_json::from_str::<Exact>("\"xyz\"").unwrap().value::<serde_json::Error>().is_err());
    }

    proptest! {
        #[test]
        fn every_number_comes_back_bit_for_bit(bits: u64) {
            prop_assert_eq!(back(f64::from_bits(bits)).to_bits(), bits);
        }
    }
}
