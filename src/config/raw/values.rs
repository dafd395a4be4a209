//! The kinds of values keys have: a duration, a size, one thing or a list of them.
//!
//! Their schemas carry a `format` (`weir-duration`, `weir-size`), by which the walk checks the text where it stands.

use std::borrow::Cow;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::config::{durations, sizes};

/// A duration with a unit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dur(pub Duration);

/// A number of bytes with a unit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Size(pub u64);

/// One thing, or a list of them.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
pub enum OneOrMany<T> {
    One(T),
    Many(Vec<T>),
}

impl Dur {
    pub const fn secs(n: u64) -> Self {
        Self(Duration::from_secs(n))
    }

    /// `None` for zero: the file's way to say "no limit".
    pub fn limit(self) -> Option<Duration> {
        (!self.0.is_zero()).then_some(self.0)
    }
}

impl<T> OneOrMany<T> {
    pub fn as_slice(&self) -> &[T] {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::Many(many) => many,
        }
    }

    /// The path of the `i`th thing: the key itself when it stands alone.
    pub fn is_list(&self) -> bool {
        matches!(self, Self::Many(_))
    }
}

impl Serialize for Dur {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&durations::format(self.0))
    }
}

impl<'de> Deserialize<'de> for Dur {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        durations::parse(&String::deserialize(d)?).map(Self).map_err(D::Error::custom)
    }
}

impl JsonSchema for Dur {
    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "weir-duration", "examples": ["250ms", "10s", "1h30m"] })
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&sizes::format(self.0))
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        sizes::parse(&String::deserialize(d)?).map(Self).map_err(D::Error::custom)
    }
}

impl JsonSchema for Size {
    fn schema_name() -> Cow<'static, str> {
        "Size".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "weir-size", "examples": ["64KiB", "10MiB"] })
    }
}
