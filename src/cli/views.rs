//! The admin API's answers, as far as this room reads them (surface.md section 7).
//!
//! Invariant: a field that is missing or new is no error: the CLI and the running weir may be of different age.

use serde::Deserialize;

use super::rollout_views::Rollout;
use crate::model::Weights;

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Status {
    pub config: ConfigStatus,
    pub persisted: Option<bool>,
    pub predecessor: Option<Predecessor>,
    pub splits: Vec<Split>,
}

/// A process that has handed over and finishes what it has.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Predecessor {
    pub pid: u64,
    pub connections: u64,
    pub in_flight: Counts,
}

/// A new process has taken over.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Upgrade {
    pub pid: u64,
    pub predecessor: u64,
    pub took_ms: u64,
}

/// How the last load of the configuration went.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ConfigStatus {
    pub result: String,
    pub at: String,
    pub message: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Split {
    pub name: String,
    pub revision: u64,
    pub state: String,
    pub stable: String,
    pub weights: Weights,
    pub file_weights: Weights,
    pub changed: Option<bool>,
    pub persisted: bool,
    pub dry_run: Option<bool>,
    #[serde(rename = "override")]
    pub override_: Option<Override>,
    pub versions: Vec<Version>,
    pub rules: Vec<RuleStats>,
    pub rollout: Option<Rollout>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Override {
    pub hold: bool,
    pub by: String,
    pub reason: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Version {
    pub name: String,
    pub share: f64,
    pub observed_share: Option<f64>,
    pub state: String,
    pub endpoints: Vec<Endpoint>,
    pub names: Vec<Name>,
    pub stats: Stats,
}

/// A name whose addresses are endpoints.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Name {
    pub name: String,
    pub state: String,
    pub age_seconds: Option<u64>,
    pub error: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Endpoint {
    pub address: String,
    pub state: String,
    pub in_flight: u64,
    pub reason: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Stats {
    pub requests: u64,
    pub rps: Option<f64>,
    pub error_rate: Option<f64>,
    pub p50_ms: Option<f64>,
    pub p95_ms: Option<f64>,
    pub p99_ms: Option<f64>,
    pub in_flight: u64,
}

/// What a rule has sent to a version.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct RuleStats {
    pub name: String,
    pub version: String,
    #[serde(flatten)]
    pub stats: Stats,
}

/// How far a drain is.
#[derive(Clone, Debug, Deserialize)]
pub struct Drain {
    pub drained: bool,
    pub in_flight: Counts,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Counts {
    pub total: u64,
    pub requests: u64,
    pub streams: u64,
    pub upgrades: u64,
}

#[derive(Clone, Debug, Deserialize)]
pub struct History {
    pub history: Vec<Entry>,
}

/// One change: who, when, why, from, to.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Entry {
    pub revision: u64,
    pub at: String,
    pub kind: String,
    pub split: Option<String>,
    pub from: Option<Weights>,
    pub to: Option<Weights>,
    pub target: Option<String>,
    pub by: String,
    pub reason: Option<String>,
}

/// A reload that was accepted.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Reload {
    pub result: String,
    pub revision: u64,
    pub persisted: bool,
    pub dry_run: bool,
    pub held: Vec<String>,
    pub superseded: Vec<String>,
    pub warnings: Vec<Diagnostic>,
}

/// One problem of a configuration (surface.md section 5).
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Diagnostic {
    pub code: String,
    pub severity: String,
    pub message: String,
    pub file: Option<String>,
    pub line: Option<u64>,
    pub column: Option<u64>,
    pub help: Option<String>,
}
