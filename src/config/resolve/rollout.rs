//! The plan of a split's rollouts: the version, the steps, what is allowed. Checks have a file of their own.
//!
//! Ranges are those that `analysis::Settings` and `rollout::Plan` demand, told where they are written.

use std::time::Duration;

use super::{Context, rollout_checks};
use crate::config::error::Code;
use crate::config::path::Path;
use crate::config::raw::{
    RawAnalysis, RawAnalysisOrOff, RawErrorsAllowed, RawLatencyAllowed, RawOnInconclusive, RawOnRegressed, RawRollout,
    RawSplit, RawStep, RawSticky, RawStickyBy, RawStrategy,
};
use crate::config::{
    Analysis, ErrorsAllowed, LatencyAllowed, OnInconclusive, OnRegressed, Rollout, Step, StepsFlaw, Strategy,
    steps_flaw,
};
use crate::model::VersionName;

/// `stable` is the file's.
pub fn rollout(raw: &RawSplit, stable: Option<&VersionName>, path: &Path, cx: &mut Context<'_>) -> Option<Rollout> {
    let rollout = raw.rollout.as_ref()?;
    let place = path.key("rollout");
    let to = to(rollout, raw, stable, &place, cx);
    let strategy = match rollout.strategy {
        RawStrategy::Canary => Strategy::Canary,
        RawStrategy::BlueGreen => Strategy::BlueGreen,
    };
    Some(Rollout {
        to,
        strategy,
        auto_start: rollout.auto_start,
        steps: steps(rollout.steps.as_deref(), strategy, &place.key("steps"), cx),
        on_regressed: match rollout.on_regressed {
            RawOnRegressed::Rollback => OnRegressed::Rollback,
            RawOnRegressed::Pause => OnRegressed::Pause,
        },
        on_inconclusive: match rollout.on_inconclusive {
            RawOnInconclusive::Hold => OnInconclusive::Hold,
            RawOnInconclusive::Advance => OnInconclusive::Advance,
            RawOnInconclusive::Rollback => OnInconclusive::Rollback,
        },
        max_wait: rollout.max_wait.0,
        analysis: analysis(rollout, raw.sticky.as_ref(), &place, cx),
        checks: rollout_checks::checks(&rollout.checks, &place.key("checks"), cx),
    })
}

fn to(
    raw: &RawRollout,
    split: &RawSplit,
    stable: Option<&VersionName>,
    path: &Path,
    cx: &mut Context<'_>,
) -> Option<VersionName> {
    let versions = split.versions.as_ref()?;
    if let Some(written) = &raw.to {
        if versions.contains_key(written) {
            return VersionName::new(written).ok();
        }
        if !cx.lacks_keys(&path.parent().key("versions")) {
            let message = format!("{} has no version `{written}`", path.parent().words());
            cx.unknown_name(message, written, versions.keys(), &path.key("to"));
        }
        return None;
    }
    let stable = stable?.as_str();
    let others: Vec<&str> = versions.keys().map(String::as_str).filter(|name| *name != stable).collect();
    if let ([first, _, ..], false) = (others.as_slice(), cx.lacks_keys(path)) {
        let known = others.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        let problem =
            cx.problem_at_key(Code::MissingKey, path, format!("{} does not say to which version", path.words()));
        problem.key = Some(path.key("to").to_string());
        problem.label = Some("`to` is missing here".into());
        problem.help = Some(format!("not stable are {known}: add for example to = \"{first}\""));
    }
    None
}

fn steps(raw: Option<&[RawStep]>, strategy: Strategy, path: &Path, cx: &mut Context<'_>) -> Vec<Step> {
    let Some(raw) = raw else { return strategy.steps() };
    let step = |raw: &RawStep| Some(Step { weight: raw.weight?, hold: raw.hold?.0, approve: raw.approve });
    let steps: Vec<Step> = raw.iter().filter_map(step).collect();
    // Half a step has been reported by the walk.
    let is_whole = steps.len() == raw.len() && !cx.is_flawed(path);
    if let (Some(flaw), true) = (steps_flaw(strategy, &steps), is_whole) {
        let place = flaw.step().map_or(path.clone(), |i| path.index(i).key("weight"));
        let (label, help) = match flaw {
            StepsFlaw::Empty => ("no step", "leave `steps` out for those of the strategy".to_owned()),
            StepsFlaw::Weight(_) => ("too small a share", "write 0, or a percentage from 0.0001 to 100".to_owned()),
            StepsFlaw::NotRising(i) => {
                ("not above the step before", format!("step {i} has {}: each step must have more", steps[i - 1].weight))
            }
            StepsFlaw::NotOneSwitch => {
                let help = "write one step with weight = 100, or strategy = \"canary\"";
                ("not one switch", help.to_owned())
            }
        };
        cx.tell(Code::OutOfRange, &place, format!("the steps of {}: {flaw}", path.parent().words()), label, &help);
    }
    steps
}

fn analysis(raw: &RawRollout, sticky: Option<&RawSticky>, path: &Path, cx: &mut Context<'_>) -> Option<Analysis> {
    let defaults = RawAnalysis::default();
    let raw = match &raw.analysis {
        Some(RawAnalysisOrOff::Off(false)) => return None,
        Some(RawAnalysisOrOff::Off(true)) | None => &defaults,
        Some(RawAnalysisOrOff::On(analysis)) => analysis,
    };
    no_comparison(sticky, path, cx);
    let path = path.key("analysis");
    chance(raw.false_alarm, &path.key("false_alarm"), cx);
    Some(Analysis {
        false_alarm: raw.false_alarm,
        errors: errors(&raw.errors, &path.key("errors"), cx),
        latency: latency(&raw.latency, &path.key("latency"), cx),
        warm_up: raw.warm_up.0,
    })
}

/// Under such stickiness it is not our coin who decides which user is on which version.
fn no_comparison(sticky: Option<&RawSticky>, path: &Path, cx: &mut Context<'_>) {
    let by = match sticky.map(|s| s.by) {
        Some(RawStickyBy::Header) => "header",
        Some(RawStickyBy::ClientIp) => "client_ip",
        Some(RawStickyBy::Cookie) | None => return,
    };
    let message = format!("{} cannot compare versions: the split is sticky by {by}", path.words());
    let problem = cx.problem_at_key(Code::NoComparison, path, message);
    problem.label = Some("objective and checks only".into());
    problem.help =
        Some("use sticky.by = \"cookie\", or none, to compare; or rely on errors.max, max_p99 and checks".into());
}

fn chance(x: f64, path: &Path, cx: &mut Context<'_>) {
    if !(x > 1e-12 && x < 1.0) {
        let message = format!("`{}` is a chance, not {x}", path.last_key());
        cx.tell(Code::OutOfRange, path, message, "not above 0 and below 1", "write for example 0.001");
    }
}

fn errors(raw: &RawErrorsAllowed, path: &Path, cx: &mut Context<'_>) -> ErrorsAllowed {
    if raw.margin >= 1.0 {
        let help = "write for example 0.001, a tenth of a percentage point";
        let message = "a margin of 1 allows every request to fail".to_owned();
        cx.tell(Code::OutOfRange, &path.key("margin"), message, "not below 1", help);
    }
    if let Some(max) = raw.max.filter(|max| !(*max > 1e-12 && *max < 1.0)) {
        let help = "write for example 0.01, or leave it out to have it follow stable's past";
        let message = format!("`max` is a rate, not {max}");
        cx.tell(Code::OutOfRange, &path.key("max"), message, "not above 0 and below 1", help);
    }
    ErrorsAllowed { ratio: raw.ratio, margin: raw.margin, max: raw.max }
}

fn latency(raw: &RawLatencyAllowed, path: &Path, cx: &mut Context<'_>) -> LatencyAllowed {
    let max_p99 = raw.max_p99.map(|max| max.0);
    if max_p99 == Some(Duration::ZERO) {
        let message = "no answer takes no time".to_owned();
        cx.tell(Code::OutOfRange, &path.key("max_p99"), message, "not above 0", "leave `max_p99` out to have none");
    }
    LatencyAllowed { slower: raw.slower, max_p99 }
}
