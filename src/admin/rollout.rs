//! The JSON of rollouts: inside a split, and as lines of a list.
//!
//! Invariant: what is shown is the desk's word of one moment. Only what is allowed of the new version is read from the
//! file in force, for people to compare with; nothing is decided by it.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::Serialize;
use utoipa::ToSchema;

use super::context::AdminContext;
use crate::analysis::{Direction, Shown};
use crate::config::{self, Check, CheckKind, Config, durations};
use crate::model::{SplitName, rfc3339_ms};
use crate::rollout::{CheckView, Desk, Document, State, StepView, Tally, View, What};

/// A rollout: the one that runs, or the last one of its split.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct RolloutDto {
    id: String,
    to: String,
    /// What it is compared with, and rolled back to.
    stable: String,
    /// `running`, `waiting`, `approval`, `paused`, `finished`, `failed`, `aborted`, `superseded`.
    #[schema(example = "running")]
    state: &'static str,
    /// From 1; 0 before the first.
    step: usize,
    /// How many there are.
    steps: usize,
    /// When the step's time is over (RFC 3339 UTC); null while it does not run.
    step_ends_at: Option<String>,
    step_left_seconds: Option<u64>,
    plan: Vec<StepDto>,
    /// `healthy`, `inconclusive`, `regressed`; null until the analysis has looked, or if there is none.
    verdict: Option<&'static str>,
    /// Why, in one sentence: counts, what is allowed, e-values and their limits.
    reason: Option<String>,
    /// Natural logarithm of the total e-value against the new version.
    log_e: Option<f64>,
    evidence: Vec<EvidenceDto>,
    /// What was judged; null until the analysis has looked.
    judged: Option<JudgedDto>,
    /// By the file; null without analysis.
    allowed: Option<AllowedDto>,
    /// Requests of the new version that the proof of this step takes from the rollout's start; null if no number is enough.
    needed: Option<u64>,
    checks: Vec<CheckDto>,
    /// A rollback would work now.
    rollback_ready: bool,
    /// Why, or why not.
    rollback_detail: String,
    /// Why it is paused, or what it waits for.
    waits_for: Option<String>,
    /// What comes after this step.
    next: Option<String>,
    /// What it takes now: `approve`, `promote`, `pause`, `resume`, `abort`.
    commands: Vec<&'static str>,
    started_at: String,
    by: String,
    /// Why it was started.
    started_because: Option<String>,
    ended_at: Option<String>,
    /// Why it ended.
    ending: Option<String>,
    persisted: bool,
}

/// A step as planned.
#[derive(Debug, Serialize, ToSchema)]
struct StepDto {
    /// Percent for the new version.
    weight: f64,
    /// How long it is watched at least.
    #[serde(rename = "for")]
    #[schema(example = "10m")]
    hold: String,
    /// Somebody must agree before it begins.
    approve: bool,
}

/// One test: its e-value is `exp(log_e)`, its limit `exp(limit)`.
#[derive(Debug, Serialize, ToSchema)]
struct EvidenceDto {
    name: &'static str,
    /// Which claim it speaks for: `against` or `for` the new version.
    #[schema(example = "against")]
    direction: &'static str,
    log_e: f64,
    limit: f64,
}

/// Requests that were judged.
#[derive(Debug, Serialize, ToSchema)]
struct JudgedDto {
    /// Of the new version.
    canary: TallyDto,
    stable: TallyDto,
}

#[derive(Debug, Serialize, ToSchema)]
struct TallyDto {
    requests: u64,
    errors: u64,
}

/// What is allowed of the new version.
#[derive(Debug, Serialize, ToSchema)]
struct AllowedDto {
    /// Errors: so many times stable's rate,
    ratio: f64,
    /// plus so much (a part of all requests),
    margin: f64,
    /// and never more than this part of its requests, if given.
    max: Option<f64>,
    /// Part by which it may be slower than stable.
    slower: f64,
    max_p99_ms: Option<f64>,
}

/// An outside check.
#[derive(Debug, Serialize, ToSchema)]
struct CheckDto {
    name: String,
    /// `start`, `step`, `always`, `finish`.
    #[schema(example = "always")]
    at: &'static str,
    /// `pass`, `fail`, `wait`, `error`; null until it has answered.
    verdict: Option<&'static str>,
    said: Option<String>,
    /// What a query found.
    value: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    min: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max: Option<f64>,
}

/// Rollouts, newest first.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct RolloutsDto {
    pub(super) rollouts: Vec<SummaryDto>,
}

/// A rollout in a line.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct SummaryDto {
    /// Its receipt: `/api/v1/rollouts/{id}/receipt`.
    id: String,
    split: String,
    to: String,
    stable: String,
    #[schema(example = "finished")]
    state: String,
    by: String,
    reason: Option<String>,
    started_at: String,
    ended_at: Option<String>,
    ending: Option<String>,
    /// Requests of both versions.
    requests: u64,
}

/// What the JSON is made of, taken once per answer.
pub(super) struct Rollouts {
    desk: Desk,
    config: Option<Arc<Config>>,
    now: SystemTime,
}

impl Rollouts {
    pub(super) fn new(ctx: &AdminContext) -> Self {
        let config = Some(ctx.store.snapshot().config.clone());
        Self { desk: ctx.rollouts.clone(), config, now: SystemTime::now() }
    }

    #[cfg(test)]
    pub(super) fn none() -> Self {
        Self { desk: Desk::new().0, config: None, now: SystemTime::now() }
    }

    /// The rollout that runs in a split, or its last one.
    pub(super) fn of(&self, split: &SplitName) -> Option<RolloutDto> {
        self.desk.view(split).map(|view| self.dto(&view))
    }

    pub(super) fn dto(&self, view: &View) -> RolloutDto {
        let written = self.written(&view.split).and_then(|split| split.rollout.as_ref());
        dto(view, written, self.now)
    }

    /// The split in the file.
    pub(super) fn written(&self, split: &SplitName) -> Option<&config::Split> {
        self.config.as_ref()?.splits.iter().find(|known| known.name == *split)
    }
}

/// The word for a split of which `otherwise` is true without a rollout. A split that is held says so: the rollout has
/// been rolled back then, or has not begun to move it.
pub(super) fn state_while(rollout: Option<&RolloutDto>, otherwise: &'static str) -> &'static str {
    match rollout.map(|r| (r.state, r.ended_at.is_some())) {
        Some((state, false)) if otherwise != "held" => match state {
            "paused" => "paused",
            "running" | "waiting" | "approval" => "rolling_out",
            _ => otherwise,
        },
        _ => otherwise,
    }
}

fn dto(view: &View, written: Option<&config::Rollout>, now: SystemTime) -> RolloutDto {
    let judged = view.judgment.as_ref();
    let left = view.time_left.filter(|_| !view.state.is_end());
    RolloutDto {
        id: view.id.clone(),
        to: view.to.to_string(),
        stable: view.stable.to_string(),
        state: view.state.as_str(),
        step: view.step.map_or(0, |step| step + 1),
        steps: view.steps.len(),
        step_ends_at: left.and_then(|left| now.checked_add(left)).map(rfc3339_ms),
        step_left_seconds: left.map(rounded_up),
        plan: view.steps.iter().map(step).collect(),
        verdict: judged.map(|j| j.verdict.as_str()),
        reason: judged.map(|j| j.reason.clone()),
        log_e: judged.map(|j| finite(j.log_e)),
        evidence: judged.iter().flat_map(|j| &j.evidence).map(evidence).collect(),
        judged: judged.map(|j| JudgedDto { canary: tally(j.canary), stable: tally(j.stable) }),
        allowed: written.and_then(|w| w.analysis.as_ref()).map(allowed),
        needed: judged.and_then(|j| j.needed),
        checks: view.checks.iter().map(|check| self::check(check, written)).collect(),
        rollback_ready: view.rollback_ready.is_ready,
        rollback_detail: view.rollback_ready.text.clone(),
        waits_for: view.waits_for.clone(),
        next: view.next.clone(),
        commands: commands(&view.commands),
        started_at: rfc3339_ms(view.started_at),
        by: view.by.0.clone(),
        started_because: view.reason.clone(),
        ended_at: view.state.is_end().then(|| rfc3339_ms(view.ended_at.unwrap_or(now))),
        ending: view.ending.clone(),
        persisted: view.persisted,
    }
}

fn rounded_up(left: Duration) -> u64 {
    left.as_secs() + u64::from(left.subsec_nanos() > 0)
}

/// JSON has no infinity. Far beyond every limit is as good.
fn finite(log: f64) -> f64 {
    log.clamp(-1e6, 1e6)
}

fn step(step: &StepView) -> StepDto {
    StepDto { weight: step.weight, hold: durations::format(step.hold), approve: step.approve }
}

fn evidence(shown: &Shown) -> EvidenceDto {
    let direction = match shown.direction {
        Direction::Against => "against",
        Direction::For => "for",
    };
    EvidenceDto { name: shown.name, direction, log_e: finite(shown.log_e), limit: finite(shown.limit) }
}

fn tally(tally: Tally) -> TallyDto {
    TallyDto { requests: tally.all, errors: tally.bad }
}

fn allowed(analysis: &config::Analysis) -> AllowedDto {
    let config::Analysis { errors, latency, .. } = analysis;
    AllowedDto {
        ratio: errors.ratio,
        margin: errors.margin,
        max: errors.max,
        slower: latency.slower,
        max_p99_ms: latency.max_p99.map(|p99| p99.as_secs_f64() * 1e3),
    }
}

fn check(check: &CheckView, written: Option<&config::Rollout>) -> CheckDto {
    let mut written = written.iter().flat_map(|w| &w.checks).filter(|c: &&Check| c.name == check.name);
    let (min, max) = match written.next().map(|c| &c.ask) {
        Some(CheckKind::Prometheus { min, max, .. }) => (*min, *max),
        _ => (None, None),
    };
    CheckDto {
        name: check.name.to_string(),
        at: check.at.as_str(),
        verdict: check.verdict,
        said: check.said.clone(),
        value: check.value.filter(|value| value.is_finite()),
        min,
        max,
    }
}

fn commands(commands: &[What]) -> Vec<&'static str> {
    let word = |what: &What| match what {
        What::Approve => "approve",
        What::Promote { .. } => "promote",
        What::Pause => "pause",
        What::Resume => "resume",
        What::Abort => "abort",
    };
    let mut words: Vec<_> = commands.iter().map(word).collect();
    words.dedup();
    words
}

/// Whether a rollout is now something else than it was: another one, elsewhere, or in another mood.
pub(super) fn has_changed(before: Option<&View>, after: &View) -> bool {
    // What it waits for changes by itself, why it is paused does not.
    let why = |view: &View| view.waits_for.clone().filter(|_| view.state == State::Paused);
    let essence = |view: &View| (view.id.clone(), view.state, view.step, why(view));
    before.map(essence) != Some(essence(after))
}

impl From<&Document> for SummaryDto {
    fn from(document: &Document) -> Self {
        Self {
            id: document.id.clone(),
            split: document.split.to_string(),
            to: document.to.to_string(),
            stable: document.stable.to_string(),
            state: document.state.clone(),
            by: document.by.0.clone(),
            reason: document.reason.clone(),
            started_at: document.started_at.clone(),
            ended_at: document.ended_at.clone(),
            ending: document.ending.clone(),
            requests: document.totals.iter().map(|total| total.requests).sum(),
        }
    }
}

#[cfg(test)]
mod tests;
