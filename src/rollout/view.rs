//! A rollout as it is shown: by the API, the CLI, the page and the metrics. Plain data, made anew after each look.
//!
//! Invariant: nothing here is read back by the machine; what is shown never decides.

use std::time::{Duration, SystemTime};

use super::command::What;
use super::status::{Readiness, State};
use crate::analysis::{Shown, Verdict};
use crate::config::CheckAt;
use crate::model::{Actor, CheckName, SplitName, VersionName};

/// A running rollout, or the last one of its split.
#[derive(Clone, Debug)]
pub struct View {
    pub id: String,
    pub split: SplitName,
    pub to: VersionName,
    pub stable: VersionName,
    pub state: State,
    pub by: Actor,
    pub reason: Option<String>,
    pub started_at: SystemTime,
    /// From 0; `None` before the first.
    pub step: Option<usize>,
    pub steps: Vec<StepView>,
    /// What the step's time has left, if it runs.
    pub time_left: Option<Duration>,
    /// Why it is paused, or what it waits for.
    pub waits_for: Option<String>,
    /// What comes after the present step.
    pub next: Option<String>,
    /// Why it ended.
    pub ending: Option<String>,
    pub ended_at: Option<SystemTime>,
    /// What an operator may say now.
    pub commands: Vec<What>,
    /// What the analysis says; `None`: it has not looked yet, or there is none.
    pub judgment: Option<Judged>,
    pub checks: Vec<CheckView>,
    /// Whether a rollback would work now.
    pub rollback_ready: Readiness,
    /// All that must survive a crash is on disk.
    pub persisted: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepView {
    /// Percent of requests for `to`.
    pub weight: f64,
    pub hold: Duration,
    pub approve: bool,
}

/// The analysis' last word.
#[derive(Clone, Debug)]
pub struct Judged {
    pub verdict: Verdict,
    /// One sentence for a person.
    pub reason: String,
    /// Natural logarithm of the total e-value against the canary.
    pub log_e: f64,
    pub evidence: Vec<Shown>,
    /// Canary requests that the proof of the present step takes from the rollout's start.
    pub needed: Option<u64>,
    /// Requests and failures that were judged: of the canary, of stable.
    pub canary: Tally,
    pub stable: Tally,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Tally {
    pub all: u64,
    pub bad: u64,
}

#[derive(Clone, Debug)]
pub struct CheckView {
    pub name: CheckName,
    pub at: CheckAt,
    /// `pass`, `fail`, `wait`, `error`; `None`: not asked yet.
    pub verdict: Option<&'static str>,
    /// In words people understand.
    pub said: Option<String>,
    /// The number a Prometheus check saw, for the metric.
    pub value: Option<f64>,
}
