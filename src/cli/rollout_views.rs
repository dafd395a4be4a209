//! The API's answers about rollouts, as far as this room reads them.
//!
//! Invariant: a field that is missing or new is no error: the CLI and the running weir may be of different age.

use std::collections::BTreeMap;

use serde::Deserialize;

/// The rollout of a split.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Rollout {
    pub id: String,
    pub to: String,
    pub stable: String,
    pub state: String,
    /// From 1; 0 before the first.
    pub step: usize,
    pub steps: usize,
    pub step_left_seconds: Option<u64>,
    pub plan: Vec<Step>,
    pub verdict: Option<String>,
    pub reason: Option<String>,
    pub evidence: Vec<Evidence>,
    pub judged: Option<Judged>,
    pub allowed: Option<Allowed>,
    pub needed: Option<u64>,
    pub checks: Vec<Check>,
    pub rollback_ready: bool,
    pub rollback_detail: String,
    pub waits_for: Option<String>,
    pub next: Option<String>,
    pub ended_at: Option<String>,
    pub ending: Option<String>,
}

impl Rollout {
    /// It will never run again.
    pub fn is_over(&self) -> bool {
        self.ended_at.is_some()
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Step {
    /// Percent.
    pub weight: f64,
    #[serde(rename = "for")]
    pub hold: String,
    pub for_seconds: Option<f64>,
    pub approve: bool,
}

/// One test; `None` where JSON has no number for it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Evidence {
    pub name: String,
    pub direction: String,
    pub log_e: Option<f64>,
    pub limit: Option<f64>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Judged {
    pub canary: Tally,
    pub stable: Tally,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Tally {
    pub requests: u64,
    pub errors: u64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Allowed {
    pub ratio: f64,
    pub margin: f64,
    pub max: Option<f64>,
    pub slower: f64,
    pub max_p99_ms: Option<f64>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Check {
    pub name: String,
    pub verdict: Option<String>,
    pub said: Option<String>,
    pub value: Option<f64>,
    pub min: Option<f64>,
    pub max: Option<f64>,
}

/// Rollouts, newest first.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Rollouts {
    pub rollouts: Vec<Summary>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Summary {
    pub id: String,
    pub split: String,
    pub to: String,
    pub stable: String,
    pub state: String,
    pub by: String,
    pub reason: Option<String>,
    pub started_at: String,
    pub ended_at: Option<String>,
    pub ending: Option<String>,
    pub requests: u64,
}

/// A whole rollout, on paper.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Receipt {
    pub id: String,
    pub split: String,
    pub to: String,
    pub stable: String,
    pub state: String,
    pub by: String,
    pub reason: Option<String>,
    pub started_at: String,
    pub ended_at: Option<String>,
    pub ending: Option<String>,
    pub steps: Vec<Step>,
    pub log: Vec<Entry>,
    pub sheets: Vec<Sheet>,
    pub totals: Vec<Total>,
    pub verdict: Option<Said>,
    pub gaps: Vec<Gap>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Entry {
    pub at: String,
    pub event: String,
    pub text: String,
    /// From 0.
    pub step: Option<usize>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Sheet {
    /// From 0.
    pub step: Option<usize>,
    pub version: String,
    pub counters: Counters,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Total {
    pub version: String,
    pub requests: u64,
    pub counters: Counters,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Counters {
    /// By status; 0: no answer.
    pub statuses: BTreeMap<u16, u64>,
    pub causes: BTreeMap<String, u64>,
    pub retried: u64,
    pub rescued: u64,
    pub spilled: u64,
    pub cut: u64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Said {
    pub verdict: String,
    pub reason: String,
    pub evidence: Vec<Evidence>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Gap {
    pub from: String,
    pub until: String,
}
