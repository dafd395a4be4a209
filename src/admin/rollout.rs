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
mod tests {
    use std::time::UNIX_EPOCH;

    use serde_json::{Value, json};

    use super::*;
    use crate::analysis::Verdict;
    use crate::config::{CheckAt, ErrorsAllowed, LatencyAllowed, OnInconclusive, OnRegressed, Strategy};
    use crate::model::{Actor, CheckName, VersionName};
    use crate::rollout::{Readiness, Shown as Judgment};

    /// 2026-03-01T12:00:00Z.
    fn noon() -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_772_366_400)
    }

    fn view() -> View {
        let (name, minutes) = (|text| VersionName::new(text).unwrap(), |n: u64| Duration::from_secs(60 * n));
        let step = |weight, n, approve| StepView { weight, hold: minutes(n), approve };
        View {
            id: "01J".into(),
            split: SplitName::new("shop").unwrap(),
            to: name("v2"),
            stable: name("v1"),
            state: State::Running,
            by: Actor("token:ci".into()),
            reason: Some("release 42".into()),
            started_at: noon() - minutes(4),
            step: Some(1),
            steps: vec![step(1.0, 2, false), step(25.0, 10, false), step(100.0, 90, true)],
            time_left: Some(Duration::from_millis(371_500)),
            waits_for: None,
            next: Some("100 % for v2, once somebody agrees".into()),
            ending: None,
            ended_at: None,
            commands: vec![What::Promote { full: false }, What::Pause, What::Abort],
            judgment: Some(judgment()),
            checks: vec![CheckView {
                name: CheckName::new("orders").unwrap(),
                at: CheckAt::Always,
                verdict: Some("pass"),
                said: Some("0.1, at most 0.5".into()),
                value: Some(0.1),
            }],
            rollback_ready: Readiness { is_ready: true, text: "v1: 2 of 2 endpoints up".into() },
            persisted: true,
        }
    }

    fn judgment() -> Judgment {
        let shown = |name, direction, log_e, limit| Shown { name, direction, weight: 0.6, log_e, limit };
        Judgment {
            verdict: Verdict::Inconclusive,
            reason: "canary 2/880 vs stable 15/16400".into(),
            log_e: f64::NEG_INFINITY,
            evidence: vec![
                shown("errors", Direction::Against, -0.86, 6.91),
                shown("errors", Direction::For, f64::INFINITY, 3.0),
            ],
            needed: Some(1120),
            canary: Tally { all: 880, bad: 2 },
            stable: Tally { all: 16_400, bad: 15 },
        }
    }

    fn written() -> config::Rollout {
        let ask = CheckKind::Prometheus { url: "http://p:9090".into(), query: "up".into(), min: None, max: Some(0.5) };
        let name = CheckName::new("orders").unwrap();
        config::Rollout {
            to: None,
            strategy: Strategy::Canary,
            auto_start: false,
            steps: Strategy::Canary.steps(),
            on_regressed: OnRegressed::Rollback,
            on_inconclusive: OnInconclusive::Hold,
            max_wait: Duration::from_secs(3600),
            analysis: Some(config::Analysis {
                false_alarm: 0.001,
                errors: ErrorsAllowed { ratio: 1.1, margin: 0.001, max: None },
                latency: LatencyAllowed { slower: 0.19, max_p99: Some(Duration::from_millis(500)) },
                warm_up: Duration::from_secs(10),
            }),
            checks: vec![Check { name, at: CheckAt::Always, ask, every: Duration::from_secs(30), failures: 2 }],
        }
    }

    fn json(view: &View, written: Option<&config::Rollout>) -> Value {
        serde_json::to_value(dto(view, written, noon())).unwrap()
    }

    #[test]
    fn the_json_is_that_of_the_contract() {
        let wanted = json!({
            "id": "01J", "to": "v2", "stable": "v1", "state": "running", "step": 2, "steps": 3,
            "step_ends_at": "2026-03-01T12:06:11.500Z", "step_left_seconds": 372,
            "plan": [{"weight": 1.0, "for": "2m", "approve": false}, {"weight": 25.0, "for": "10m", "approve": false},
                {"weight": 100.0, "for": "1h30m", "approve": true}],
            "verdict": "inconclusive", "reason": "canary 2/880 vs stable 15/16400", "log_e": -1e6,
            "evidence": [{"name": "errors", "direction": "against", "log_e": -0.86, "limit": 6.91},
                {"name": "errors", "direction": "for", "log_e": 1e6, "limit": 3.0}],
            "judged": {"canary": {"requests": 880, "errors": 2}, "stable": {"requests": 16400, "errors": 15}},
            "allowed": {"ratio": 1.1, "margin": 0.001, "max": null, "slower": 0.19, "max_p99_ms": 500.0},
            "needed": 1120,
            "checks": [{"name": "orders", "at": "always", "verdict": "pass", "said": "0.1, at most 0.5", "value": 0.1,
                "max": 0.5}],
            "rollback_ready": true, "rollback_detail": "v1: 2 of 2 endpoints up", "waits_for": null,
            "next": "100 % for v2, once somebody agrees", "commands": ["promote", "pause", "abort"],
            "started_at": "2026-03-01T11:56:00.000Z", "by": "token:ci", "started_because": "release 42",
            "ended_at": null, "ending": null, "persisted": true});
        assert_eq!(json(&view(), Some(&written())), wanted);
    }

    #[test]
    fn what_is_not_known_is_null_and_the_step_before_the_first_is_0() {
        let mut view = View { step: None, time_left: None, judgment: None, ..view() };
        view.checks[0].value = Some(f64::NAN);
        let json = json(&view, None);
        assert_eq!((&json["step"], &json["steps"]), (&json!(0), &json!(3)));
        for null in ["step_ends_at", "step_left_seconds", "verdict", "reason", "log_e", "judged", "allowed", "needed"] {
            assert_eq!(json[null], Value::Null, "{null}");
        }
        assert_eq!((&json["evidence"], &json["checks"][0]["value"]), (&json!([]), &Value::Null));
        assert!(json["checks"][0].get("max").is_none());
    }

    #[test]
    fn a_split_is_called_by_what_moves_it() {
        for (state, otherwise, word) in [
            (State::Running, "shifted", "rolling_out"),
            (State::Waiting, "steady", "rolling_out"),
            (State::Approval, "shifted", "rolling_out"),
            (State::Paused, "shifted", "paused"),
            (State::Running, "held", "held"),
            (State::Finished, "shifted", "shifted"),
            (State::Failed, "held", "held"),
            (State::Superseded, "steady", "steady"),
        ] {
            let dto = dto(&View { state, ..view() }, None, noon());
            assert_eq!(state_while(Some(&dto), otherwise), word, "{state:?}");
        }
        assert_eq!(state_while(None, "steady"), "steady");
    }

    #[test]
    fn a_pause_of_what_is_paused_changes_nothing() {
        let (running, paused) = (view(), View { state: State::Paused, waits_for: Some("by ci".into()), ..view() });
        assert!(has_changed(None, &running) && has_changed(Some(&running), &paused));
        assert!(has_changed(Some(&running), &View { step: Some(2), ..view() }));
        assert!(!has_changed(Some(&paused), &paused.clone()));
        let waits = View { waits_for: Some("evidence: 3 of 4".into()), ..view() };
        assert!(!has_changed(Some(&running), &waits), "what it waits for changes by itself");
    }
}
