//! What all runs come to. `-o json` is this, as it stands.
//!
//! Invariant: every run is counted in exactly one of the ends.

use std::collections::BTreeMap;

use serde::Serialize;

use super::figures::{mean, ninth_decile};
use super::run::{End, Run};
use super::setup::{Prepared, Traffic};
use crate::analysis::{Part, needed_requests};
use crate::config::{OnInconclusive, OnRegressed};

/// See the file's head. Times are seconds, rates and shares 0..=1, weights percent.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    pub split: String,
    pub requests_per_second: f64,
    pub errors: f64,
    pub canary_errors: f64,
    pub latency_seconds: f64,
    pub spread: f64,
    pub canary_slower: f64,
    pub history: u64,
    pub runs: u32,
    pub seed: u64,
    pub steps: Vec<StepReport>,
    pub ends: Ends,
    /// Chance that a canary no worse than allowed is ever rolled back, as promised.
    pub false_alarm: f64,
    /// Whether this canary is no worse than allowed, so that its rollbacks are false alarms.
    pub is_allowed: bool,
    pub is_equal: bool,
    pub max_wait_seconds: f64,
    /// What is done with a regressed canary: `rollback` or `pause`.
    pub on_regressed: OnRegressed,
    pub on_inconclusive: OnInconclusive,
    /// `None` without a rollback by the analysis.
    pub until_rollback: Option<Until>,
    /// From the first request to the end, whichever it was.
    pub mean_seconds: f64,
}

/// One step: what arithmetic says of it, and what the runs did.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StepReport {
    pub weight: f64,
    pub for_seconds: f64,
    /// Canary requests from the rollout's start to the step's end, if every step takes its time and no more.
    pub canary_requests: u64,
    /// Those that the proof about errors asked for at this step takes on average; `None`: it proves nothing, or no number
    /// is enough. The proofs about latency may take more: see `lacked`.
    pub needed: Option<u64>,
    /// How long the step would have to be for it, the ones before having waited for theirs.
    pub takes_seconds: Option<f64>,
    /// Runs that came to this step.
    pub began: u32,
    /// Those that went on when its time was over.
    pub in_time: u32,
    /// Those that went on at all.
    pub passed: u32,
    /// How long these took.
    pub mean_seconds: Option<f64>,
    /// The proof that was furthest from its limit when the time was over, of how many runs.
    pub lacked: BTreeMap<&'static str, u32>,
}

/// How the runs ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Ends {
    pub finished: u32,
    /// By the analysis, whichever part was to blame.
    pub rolled_back: u32,
    pub by_errors: u32,
    pub by_objective: u32,
    pub by_latency: u32,
    /// For want of evidence (`on_inconclusive = "rollback"`).
    pub thin: u32,
    /// Still waiting for evidence when `max_wait` was over.
    pub waiting: u32,
}

/// What a rollback cost. Requests are those that began on the canary before it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Until {
    pub mean_canary_requests: f64,
    pub p90_canary_requests: f64,
    /// Those that failed.
    pub mean_harmed: f64,
    pub p90_harmed: f64,
    pub mean_seconds: f64,
}

impl Report {
    pub(super) fn of(setup: &Prepared, runs: &[Run]) -> Self {
        let Traffic { per_second, errors, canary_errors, latency, spread, canary_slower } = setup.traffic;
        let took: Vec<f64> = runs.iter().map(|run| seconds(run.took)).collect();
        Self {
            split: setup.plan.split.to_string(),
            requests_per_second: per_second,
            errors,
            canary_errors,
            latency_seconds: latency.as_secs_f64(),
            spread,
            canary_slower,
            history: setup.history,
            runs: setup.runs,
            seed: setup.seed,
            steps: steps(setup, runs),
            ends: Ends::of(runs),
            false_alarm: setup.settings.false_alarm,
            is_allowed: setup.is_allowed(),
            is_equal: setup.is_equal(),
            max_wait_seconds: setup.plan.max_wait.as_secs_f64(),
            on_regressed: setup.plan.on_regressed,
            on_inconclusive: setup.plan.on_inconclusive,
            until_rollback: Until::of(runs),
            mean_seconds: mean(&took).unwrap_or_default(),
        }
    }

    /// As JSON, one document.
    pub fn json(&self) -> String {
        serde_json::to_string_pretty(self).expect("numbers, texts and lists of them")
    }
}

impl Ends {
    fn of(runs: &[Run]) -> Self {
        let mut ends = Self::default();
        for run in runs {
            match run.end {
                End::Finished => ends.finished += 1,
                End::Thin => ends.thin += 1,
                End::Waiting => ends.waiting += 1,
                End::RolledBack(part) => {
                    ends.rolled_back += 1;
                    *match part {
                        Part::Errors => &mut ends.by_errors,
                        Part::Objective => &mut ends.by_objective,
                        Part::Latency => &mut ends.by_latency,
                    } += 1;
                }
            }
        }
        ends
    }
}

impl Until {
    fn of(runs: &[Run]) -> Option<Self> {
        let back = || runs.iter().filter(|run| matches!(run.end, End::RolledBack(_)));
        let all = |of: fn(&Run) -> f64| back().map(of).collect::<Vec<f64>>();
        let (canary, harmed) = (all(|run| run.canary as f64), all(|run| run.harmed as f64));
        Some(Self {
            mean_canary_requests: mean(&canary)?,
            p90_canary_requests: ninth_decile(&canary)?,
            mean_harmed: mean(&harmed)?,
            p90_harmed: ninth_decile(&harmed)?,
            mean_seconds: mean(&all(|run| seconds(run.took)))?,
        })
    }
}

fn steps(setup: &Prepared, runs: &[Run]) -> Vec<StepReport> {
    let Prepared { plan, settings, margins, traffic, .. } = setup;
    let (mut before, mut by_time) = (0.0, 0.0);
    let mut reports = Vec::new();
    for (i, (step, margin)) in plan.steps.iter().zip(margins).enumerate() {
        let weight = plan.percent(i).unwrap_or_default();
        let per_second = traffic.per_second * weight / 100.0;
        let is_compared = weight > 0.0 && weight < 100.0;
        let needed = needed_requests(traffic.errors, settings.errors.ratio, *margin, settings.false_healthy);
        let needed = needed.filter(|_| is_compared);
        let takes = needed.map(|needed| (needed as f64 - before).max(0.0) / per_second);
        let hold = step.hold.as_secs_f64();
        by_time += per_second * hold;
        before += per_second * hold.max(takes.unwrap_or_default());
        let took: Vec<f64> = runs.iter().filter_map(|run| run.step_took(i)).map(|took| took.as_secs_f64()).collect();
        reports.push(StepReport {
            weight,
            for_seconds: hold,
            canary_requests: by_time as u64,
            needed,
            takes_seconds: takes,
            began: runs.iter().filter(|run| run.entered.len() > i).count() as u32,
            // The machine looks each second.
            in_time: took.iter().filter(|&&took| took <= hold + 1.0).count() as u32,
            passed: took.len() as u32,
            mean_seconds: mean(&took),
            lacked: lacked(runs, i),
        });
    }
    reports
}

fn lacked(runs: &[Run], step: usize) -> BTreeMap<&'static str, u32> {
    let mut lacked = BTreeMap::new();
    for name in runs.iter().filter_map(|run| *run.lacked.get(step)?) {
        *lacked.entry(name).or_default() += 1;
    }
    lacked
}

fn seconds(micros: u64) -> f64 {
    micros as f64 / 1e6
}
