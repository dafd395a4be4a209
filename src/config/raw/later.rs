//! Whole sections that are reserved: flags, tokens, metrics' extras, traces, fleet. The schema knows them, so that
//! they are refused with `not-yet` and not as a typing mistake.

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A feature flag.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawFlag {
    /// Boolean, string, number or table, all of one type.
    pub variants: IndexMap<String, serde_json::Value>,
    pub default: String,
    #[serde(default)]
    pub rules: Vec<RawFlagRule>,
}

/// One of `context`, `follows`, `percent`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawFlagRule {
    pub context: Option<IndexMap<String, serde_json::Value>>,
    /// `split/version`.
    pub follows: Option<String>,
    pub percent: Option<IndexMap<String, f64>>,
    pub variant: Option<String>,
}

/// Who may do what.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawToken {
    pub name: String,
    pub role: RawRole,
    /// A file that holds the token.
    pub file: Option<String>,
    /// Digest of the token.
    pub sha256: Option<String>,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RawRole {
    Viewer,
    Operator,
    Flags,
}

/// What the metrics look like.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RawMetrics {
    pub native_histograms: bool,
}

/// OpenTelemetry traces.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawTraces {
    pub endpoint: String,
    #[schemars(range(min = 0, max = 1))]
    pub sample_ratio: Option<f64>,
}

/// Several weirs that act as one.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawFleet {
    pub name: String,
    pub etcd: Option<Vec<String>>,
}
