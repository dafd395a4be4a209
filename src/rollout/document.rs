//! The receipt of a rollout as it is kept and given out: who did what when, every request, every answer and verdict.
//!
//! One JSON file per rollout under `state_dir/rollouts`, written while it runs and closed at its end.
//! Invariant: `sheets` are sums of cells; they agree with `weir_requests_total` of the same time.

use serde::{Deserialize, Serialize};

use super::accounts::{Counters, Sheet};
use crate::model::{Actor, SplitName, VersionName};

/// See the file's head. Times are RFC 3339 UTC with milliseconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Document {
    pub id: String,
    pub split: SplitName,
    pub to: VersionName,
    pub stable: VersionName,
    /// `running` and the other words of `State`.
    pub state: String,
    pub by: Actor,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    pub started_at: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<String>,
    /// Why it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ending: Option<String>,
    /// As planned at the start.
    pub steps: Vec<PlannedStep>,
    /// What happened, in order.
    pub log: Vec<Entry>,
    /// Requests by step and version.
    pub sheets: Vec<Sheet>,
    /// The same over all steps.
    pub totals: Vec<Total>,
    /// The analysis' last word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Said>,
    /// Times in which requests may have gone uncounted: weir was killed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gaps: Vec<Gap>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlannedStep {
    /// Percent.
    pub weight: f64,
    pub for_seconds: f64,
    pub approve: bool,
}

/// One line of what happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    pub at: String,
    /// `started`, `step`, `check`, `approval`, `paused`, `resumed`, `rolled-back`, `ended` ...
    pub event: String,
    pub text: String,
    /// The step in force, from 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<usize>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Total {
    pub version: VersionName,
    pub requests: u64,
    pub counters: Counters,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Said {
    pub verdict: String,
    pub reason: String,
    pub evidence: Vec<Evidence>,
}

/// One test: its e-value is `exp(log_e)`, its limit `exp(limit)`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    pub name: String,
    /// `against` or `for`.
    pub direction: String,
    pub log_e: f64,
    pub limit: f64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Gap {
    pub from: String,
    pub until: String,
}
