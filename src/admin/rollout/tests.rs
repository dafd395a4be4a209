//! The JSON of made-up rollouts.

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
    let url = crate::config::WebUrl::parse("http://p:9090").unwrap();
    let ask = CheckKind::Prometheus { url, query: "up".into(), min: None, max: Some(0.5) };
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
