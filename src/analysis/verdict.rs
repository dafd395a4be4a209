//! What is said after a tick: the verdict, its reason, and what it rests on.

use serde::{Deserialize, Serialize};

use super::bets::Direction;

/// What the evidence says of the canary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Proved to be within what is allowed at the present step.
    Healthy,
    /// Neither is proved.
    Inconclusive,
    /// Proved to be worse than allowed; final.
    Regressed,
}

impl Verdict {
    /// As in JSON and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Inconclusive => "inconclusive",
            Self::Regressed => "regressed",
        }
    }
}

/// A part of the evidence against the canary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// Failures, compared with stable's.
    Errors,
    /// Failures or slow calls, against a fixed bound.
    Objective,
    /// Latencies, compared with stable's.
    Latency,
}

impl Part {
    /// As in JSON, and after `analysis:` in a change's actor.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Errors => "errors",
            Self::Objective => "objective",
            Self::Latency => "latency",
        }
    }
}

/// One test as shown. Its e-value is `exp(log_e)`, its limit `exp(limit)`.
#[derive(Clone, Debug, PartialEq)]
pub struct Shown {
    pub name: &'static str,
    pub direction: Direction,
    /// Share of the total; 0 for those that are no part of it.
    pub weight: f64,
    /// Natural logarithm of the e-value.
    pub log_e: f64,
    /// What `log_e` must reach to decide alone (against) or together with the others (for).
    pub limit: f64,
}

/// What an engine says after a tick.
#[derive(Clone, Debug, PartialEq)]
pub struct Judgment {
    pub verdict: Verdict,
    /// One sentence for a person: counts, allowance, e-value and limit.
    pub reason: String,
    /// Who is to blame, if `Regressed`.
    pub blamed: Option<Part>,
    /// Natural logarithm of the total e-value against the canary.
    pub log_e: f64,
    pub evidence: Vec<Shown>,
    /// Canary requests, from the rollout's start, that the proof of the present step takes on average; `None` if no
    /// number is enough.
    pub needed: Option<u64>,
    /// The split is not what the weights say: promotion waits, the comparison is over.
    pub is_split_wrong: bool,
}
