//! What is to be simulated, and its check: afterwards every number is in range and the rollout has somebody to go to.

use std::time::Duration;

use crate::analysis::{BadSettings, Settings};
use crate::config::{Rollout, Split};
use crate::model::{Weight, Weights};
use crate::rollout::{Judging, Plan, PlanError, settings};

/// A rollout and the traffic it is tried on.
#[derive(Clone, Debug)]
pub struct Setup {
    pub split: Split,
    pub rollout: Rollout,
    pub traffic: Traffic,
    /// How often.
    pub runs: u32,
    pub seed: u64,
    /// Requests of stable that are known at the start.
    pub history: u64,
}

/// The made-up requests. Latencies are lognormal, of failures too.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Traffic {
    /// Requests per second over the whole split, at random moments.
    pub per_second: f64,
    /// Share of stable's requests that fail.
    pub errors: f64,
    /// The same of the canary.
    pub canary_errors: f64,
    /// Stable's median.
    pub latency: Duration,
    /// 99th percentile over median, of both.
    pub spread: f64,
    /// The canary's latencies over stable's.
    pub canary_slower: f64,
}

/// Why nothing can be simulated.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum BadSetup {
    #[error("the analysis of split `{0}` is off (`analysis = false`): steps go by time and checks alone")]
    NoAnalysis(String),
    #[error("split `{0}` is sticky by header or client_ip: no coin decides there, so versions are not compared")]
    NoComparison(String),
    #[error(transparent)]
    Plan(#[from] PlanError),
    #[error(transparent)]
    Settings(#[from] BadSettings),
    #[error("{name} must be {allowed}")]
    OutOfRange { name: &'static str, allowed: &'static str },
}

/// Checked, and agreed to by the rollout's own rules.
#[derive(Clone, Debug)]
pub(super) struct Prepared {
    pub(super) plan: Plan,
    /// The split's, all to stable.
    pub(super) weights: Weights,
    pub(super) settings: Settings,
    /// What is to be proved before each step is left.
    pub(super) margins: Vec<f64>,
    pub(super) traffic: Traffic,
    pub(super) runs: u32,
    pub(super) seed: u64,
    pub(super) history: u64,
}

impl Prepared {
    pub(super) fn new(setup: &Setup) -> Result<Self, BadSetup> {
        let Setup { split, rollout, traffic, .. } = setup;
        check(setup)?;
        let whole = |is_stable| Weight::new(if is_stable { 100 } else { 0 }).unwrap_or_default();
        let weights: Weights = split.versions.iter().map(|v| (v.name.clone(), whole(v.name == split.stable))).collect();
        let mut plan = Plan::new(split, rollout, (&split.stable, &weights), (None, None))?;
        match plan.judging {
            Judging::Comparison => {}
            Judging::Objective => return Err(BadSetup::NoComparison(split.name.to_string())),
            Judging::Off => return Err(BadSetup::NoAnalysis(split.name.to_string())),
        }
        // Outside evidence and people are not made up: they agree at once.
        plan.checks.clear();
        plan.steps.iter_mut().for_each(|step| step.approve = false);
        let settings = rollout.analysis.as_ref().map(settings).unwrap_or_default();
        settings.check()?;
        let shares: Vec<f64> = (0..plan.steps.len()).filter_map(|i| plan.percent(i)).map(|p| p / 100.0).collect();
        let margins = settings.healthy_margins(&shares);
        let (traffic, runs, seed, history) = (*traffic, setup.runs, setup.seed, setup.history);
        Ok(Self { plan, weights, settings, margins, traffic, runs, seed, history })
    }

    /// Whether the canary is no worse than allowed, so that a rollback is a false alarm. An upper bound on the 99th
    /// percentile that stable breaks too is another matter.
    pub(super) fn is_allowed(&self) -> bool {
        let Traffic { errors, canary_errors, canary_slower, .. } = self.traffic;
        let allowed = &self.settings.errors;
        let bound = (allowed.ratio * errors + allowed.margin).min(allowed.max.unwrap_or(1.0));
        let latency = self.settings.latency.as_ref();
        let slower = latency.map_or(f64::INFINITY, |latency| (latency.shift() as f64 / 8.0).exp2());
        let is_bounded = latency.is_some_and(|latency| latency.max_p99.is_some());
        self.is_equal() || canary_errors <= bound && canary_slower <= slower && !is_bounded
    }

    /// Whether the versions do not differ.
    pub(super) fn is_equal(&self) -> bool {
        let Traffic { errors, canary_errors, canary_slower, .. } = self.traffic;
        errors == canary_errors && canary_slower == 1.0
    }
}

fn check(setup: &Setup) -> Result<(), BadSetup> {
    let Traffic { per_second, errors, canary_errors, latency, spread, canary_slower } = setup.traffic;
    let is_rate = |x: f64| (0.0..=1.0).contains(&x);
    let demands = [
        ((1e-3..=1e6).contains(&per_second), "rps", "0.001 to 1000000"),
        (is_rate(errors), "errors", "0 to 100 %"),
        (is_rate(canary_errors), "canary_errors", "0 to 100 %"),
        ((1..=600_000_000).contains(&latency.as_micros()), "latency", "above 0 and at most 10m"),
        ((1.0..=1e4).contains(&spread), "spread", "1 to 10000"),
        ((1e-3..=1e4).contains(&canary_slower), "canary_slower", "0.001 to 10000"),
        ((1..=1_000_000).contains(&setup.runs), "runs", "1 to 1000000"),
        (setup.history <= 200_000, "history", "at most 200000"),
    ];
    let bad = demands.into_iter().find(|(is_kept, ..)| !is_kept);
    bad.map_or(Ok(()), |(_, name, allowed)| Err(BadSetup::OutOfRange { name, allowed }))
}
