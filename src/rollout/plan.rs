//! What a rollout agrees to at its start and keeps to its end, whatever the file says meanwhile.
//!
//! Shares are whole millionths, so that what is read back from a disk is the same to the last bit.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::share::{Share, parts, percent};
use crate::analysis::{Allowance, LatencyAllowance, Settings, needed_requests};
use crate::config::{
    Analysis, CheckAt, OnInconclusive, OnRegressed, Rollout, Step, StepsFlaw, Sticky, Strategy, steps_flaw,
};
use crate::model::{CheckName, SplitName, VersionName, Weights};

/// See the file's head.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    pub split: SplitName,
    pub to: VersionName,
    pub stable: VersionName,
    /// At least one; shares rise.
    pub steps: Vec<PlannedStep>,
    pub judging: Judging,
    pub on_regressed: OnRegressed,
    pub on_inconclusive: OnInconclusive,
    pub max_wait: Duration,
    pub checks: Vec<Asked>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlannedStep {
    /// Millionths for `to`.
    pub parts: u32,
    /// Watched at least so long.
    pub hold: Duration,
    /// Somebody must agree before it begins.
    pub approve: bool,
}

/// What the analysis may say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Judging {
    /// There is none.
    Off,
    /// Whether the objective is broken; nothing can be proved.
    Objective,
    /// Whether `to` is as good as stable.
    Comparison,
}

/// A check: when, and how often it may fail. Who is asked stays in the file, where secrets belong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Asked {
    pub name: CheckName,
    pub at: CheckAt,
    pub every: Duration,
    pub failures: u32,
}

/// Why there can be no such rollout now.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    #[error("{}", no_target(.others))]
    NoTarget { others: Vec<VersionName> },
    #[error("split `{split}` has no version `{version}`")]
    UnknownVersion { split: SplitName, version: VersionName },
    #[error("`{0}` is stable already")]
    IsStable(VersionName),
    /// Its share would have to go somewhere, and nobody has said where.
    #[error("`{0}` has weight too: a rollout moves requests between two versions only")]
    ThirdVersion(VersionName),
    #[error(transparent)]
    Steps(#[from] StepsFlaw),
}

fn no_target(others: &[VersionName]) -> String {
    match others {
        [] => "the split has no version but the stable one".into(),
        several => {
            let names: Vec<&str> = several.iter().map(VersionName::as_str).collect();
            format!("not stable are {}: say which one", names.join(", "))
        }
    }
}

impl Plan {
    /// `stable` and `weights` are those in force; `to` and `steps` an operator's own, instead of the file's.
    ///
    /// # Errors
    /// There is nobody to roll out to, or it cannot be between two versions alone, or the steps are flawed.
    pub fn new(
        split: &crate::config::Split,
        rollout: &Rollout,
        (stable, weights): (&VersionName, &Weights),
        (to, steps): (Option<&VersionName>, Option<&[Step]>),
    ) -> Result<Self, PlanError> {
        let to = target(split, rollout, stable, to)?;
        let third = |(v, w): &(&VersionName, crate::model::Weight)| **v != to && *v != stable && !w.is_zero();
        if let Some((version, _)) = weights.iter().find(third) {
            return Err(PlanError::ThirdVersion(version.clone()));
        }
        let steps = steps.unwrap_or(&rollout.steps);
        // An operator's own steps are what they say, whatever the file's strategy.
        let own = steps != rollout.steps;
        if let Some(flaw) = steps_flaw(if own { Strategy::Canary } else { rollout.strategy }, steps) {
            return Err(flaw.into());
        }
        let step = |s: &Step| PlannedStep { parts: parts(s.weight), hold: s.hold, approve: s.approve };
        let asked = |c: &crate::config::Check| Asked {
            name: c.name.clone(),
            at: c.at,
            every: c.every,
            failures: c.failures.max(1),
        };
        Ok(Self {
            split: split.name.clone(),
            to,
            stable: stable.clone(),
            steps: steps.iter().map(step).collect(),
            judging: judging(rollout, split.sticky.as_ref()),
            on_regressed: rollout.on_regressed,
            on_inconclusive: rollout.on_inconclusive,
            max_wait: rollout.max_wait,
            checks: rollout.checks.iter().map(asked).collect(),
        })
    }

    pub(super) fn share(&self, parts: u32) -> Share {
        Share { to: self.to.clone(), stable: self.stable.clone(), parts }
    }

    pub(super) fn has_checks(&self, at: CheckAt) -> bool {
        self.checks.iter().any(|c| c.at == at)
    }

    /// The weight of a step in percent.
    pub fn percent(&self, step: usize) -> Option<f64> {
        self.steps.get(step).map(|s| percent(s.parts))
    }
}

fn judging(rollout: &Rollout, sticky: Option<&Sticky>) -> Judging {
    match (&rollout.analysis, sticky.is_none_or(Sticky::allows_comparison)) {
        (None, _) => Judging::Off,
        (Some(_), false) => Judging::Objective,
        (Some(_), true) => Judging::Comparison,
    }
}

/// The one asked for, else the one written, else the only one that is not stable.
fn target(
    split: &crate::config::Split,
    rollout: &Rollout,
    stable: &VersionName,
    to: Option<&VersionName>,
) -> Result<VersionName, PlanError> {
    let has = |version: &VersionName| split.versions.iter().any(|v| v.name == *version);
    let Some(to) = to.or(rollout.to.as_ref()) else {
        let others: Vec<_> = split.versions.iter().map(|v| v.name.clone()).filter(|v| v != stable).collect();
        return match others.as_slice() {
            [only] => Ok(only.clone()),
            _ => Err(PlanError::NoTarget { others }),
        };
    };
    match to {
        to if !has(to) => Err(PlanError::UnknownVersion { split: split.name.clone(), version: to.clone() }),
        to if to == stable => Err(PlanError::IsStable(to.clone())),
        to => Ok(to.clone()),
    }
}

/// Whether a load begins this rollout: asked for, nobody holds the split, none runs to the same version, and the version
/// has not been rolled out before.
pub fn starts_by_itself(rollout: &Rollout, to: &VersionName, tried: &[VersionName], is_held: bool) -> bool {
    rollout.auto_start && !is_held && !tried.contains(to)
}

/// What the file allows, as the analysis takes it; what the file has no key for is as by default.
pub fn settings(analysis: &Analysis) -> Settings {
    let Analysis { false_alarm, errors, latency, warm_up } = analysis;
    Settings {
        false_alarm: *false_alarm,
        errors: Allowance { ratio: errors.ratio, margin: errors.margin, max: errors.max },
        latency: Some(LatencyAllowance { slower: latency.slower, max_p99: latency.max_p99 }),
        warm_up: *warm_up,
        ..Settings::default()
    }
}

/// A step that ends before its proof can be had.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ThinStep {
    pub step: usize,
    /// Requests of `to`, from the rollout's start, that the proof takes on average; `None`: no number is enough.
    pub needed: Option<u64>,
    /// Those it will have had by the step's end.
    pub expected: u64,
    /// How long the step would have to be; `None`: no time is enough.
    pub takes: Option<Duration>,
    /// Requests per second of the whole split with which it would be long enough; `None`: no traffic is enough.
    pub least_per_second: Option<f64>,
}

/// The steps too short for what is to be proved, at stable's rate of failures and the split's requests per second
/// (analysis.md 9). Steps at 0 or 100 % prove nothing and are left out.
pub fn thin_steps(steps: &[Step], settings: &Settings, rate: f64, per_second: f64) -> Vec<ThinStep> {
    let shares: Vec<f64> = steps.iter().map(|s| s.weight / 100.0).collect();
    let margins = settings.healthy_margins(&shares);
    // Of the new version: requests before the step, and by its end how many of each one per second.
    let (mut thin, mut before, mut by_each) = (Vec::new(), 0.0, 0.0);
    for (i, (step, margin)) in steps.iter().zip(margins).enumerate() {
        by_each += shares[i] * step.hold.as_secs_f64();
        let per_second = per_second.max(0.0) * shares[i];
        let by_end = before + per_second * step.hold.as_secs_f64();
        let needed = needed_requests(rate, settings.errors.ratio, margin, settings.false_healthy);
        let is_short = needed.is_none_or(|needed| by_end < needed as f64);
        if shares[i] > 0.0 && shares[i] < 1.0 && is_short {
            let takes =
                needed.and_then(|n| Duration::try_from_secs_f64((n as f64 - before).max(0.0) / per_second).ok());
            let least_per_second = needed.map(|n| n as f64 / by_each).filter(|least| least.is_finite());
            thin.push(ThinStep { step: i, needed, expected: by_end as u64, takes, least_per_second });
        }
        before = by_end;
    }
    thin
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Split;
    use crate::model::Weight;
    use crate::rollout::testing::{rollout, split, version};

    fn plan(
        split: &Split,
        rollout: &Rollout,
        stable: &str,
        weights: &[u32],
        to: Option<&str>,
    ) -> Result<Plan, PlanError> {
        let weights: Weights =
            split.versions.iter().zip(weights).map(|(v, w)| (v.name.clone(), Weight::new(*w).unwrap())).collect();
        Plan::new(split, rollout, (&version(stable), &weights), (to.map(version).as_ref(), None))
    }

    #[test]
    fn the_target_is_asked_for_written_or_the_only_one() {
        let (two, three, plain) = (split(&["v1", "v2"]), split(&["v1", "v2", "v3"]), rollout());
        let written = Rollout { to: Some(version("v2")), ..rollout() };
        assert_eq!(plan(&two, &plain, "v1", &[100, 0], None).unwrap().to, version("v2"));
        assert_eq!(plan(&two, &plain, "v2", &[0, 100], None).unwrap().to, version("v1"));
        assert_eq!(plan(&three, &written, "v1", &[90, 10, 0], None).unwrap().to, version("v2"));
        assert_eq!(plan(&three, &written, "v1", &[100, 0, 0], Some("v3")).unwrap().to, version("v3"));
        for (split, rollout, stable, weights, to, why) in [
            (&two, &written, "v2", [0, 100, 0], None, "`v2` is stable already"),
            (&two, &plain, "v1", [1, 0, 0], Some("v9"), "split `shop` has no version `v9`"),
            (&three, &plain, "v1", [1, 0, 0], None, "not stable are v2, v3: say which one"),
            (&split(&["v1"]), &plain, "v1", [1, 0, 0], None, "the split has no version but the stable one"),
            (&three, &written, "v1", [8, 1, 1], None, "`v3` has weight too: a rollout moves requests between two"),
        ] {
            let error = plan(split, rollout, stable, &weights, to).unwrap_err().to_string();
            assert!(error.starts_with(why), "{error}");
        }
    }

    #[test]
    fn an_operators_own_steps_replace_the_files_and_are_looked_at() {
        let blue_green = Rollout { strategy: Strategy::BlueGreen, steps: Strategy::BlueGreen.steps(), ..rollout() };
        let (split, stable) = (split(&["v1", "v2"]), version("v1"));
        let step = |weight| Step { weight, hold: Duration::from_secs(60), approve: false };
        let plan = |own: &[f64]| {
            let own: Vec<Step> = own.iter().copied().map(step).collect();
            Plan::new(&split, &blue_green, (&stable, &split.weights()), (None, Some(&own)))
        };
        let parts: Vec<u32> = plan(&[2.5, 50.0]).unwrap().steps.iter().map(|s| s.parts).collect();
        assert_eq!(parts, [25_000, 500_000]);
        assert_eq!(plan(&[]).unwrap_err(), PlanError::Steps(StepsFlaw::Empty));
        assert_eq!(plan(&[5.0, 4.0]).unwrap_err(), PlanError::Steps(StepsFlaw::NotRising(1)));
        assert_eq!(plan(&[f64::NAN]).unwrap_err(), PlanError::Steps(StepsFlaw::Weight(0)));
    }

    #[test]
    fn what_the_analysis_may_say_follows_from_file_and_stickiness() {
        let mut split = split(&["v1", "v2"]);
        let judging = |split: &Split, rollout: &Rollout| plan(split, rollout, "v1", &[1, 0], None).unwrap().judging;
        assert_eq!(judging(&split, &rollout()), Judging::Comparison);
        assert_eq!(judging(&split, &Rollout { analysis: None, ..rollout() }), Judging::Off);
        split.sticky = Some(Sticky::ClientIp);
        assert_eq!(judging(&split, &rollout()), Judging::Objective);
        split.sticky = Some(Sticky::Cookie { name: "c".into(), ttl: Duration::from_secs(60) });
        assert_eq!(judging(&split, &rollout()), Judging::Comparison);
    }

    #[test]
    fn the_files_defaults_are_the_analysis_own() {
        assert_eq!(rollout().analysis.as_ref().map(settings), Some(Settings::default()));
    }

    #[test]
    fn a_rollout_begins_by_itself_once_and_never_while_held() {
        let auto = Rollout { auto_start: true, ..rollout() };
        let v2 = version("v2");
        assert!(starts_by_itself(&auto, &v2, &[], false));
        assert!(!starts_by_itself(&auto, &v2, &[], true));
        assert!(!starts_by_itself(&auto, &v2, &[version("v2")], false));
        assert!(!starts_by_itself(&rollout(), &v2, &[], false));
    }

    #[test]
    fn short_steps_are_found_from_the_rate_of_requests() {
        let (steps, settings) = (Strategy::Canary.steps(), Settings::default());
        assert_eq!(thin_steps(&steps, &settings, 0.001, 100_000.0), []);
        let thin = thin_steps(&steps, &settings, 0.001, 10.0);
        assert_eq!(thin.iter().map(|t| t.step).collect::<Vec<_>>(), [0, 1, 2, 3], "100 % proves nothing");
        assert_eq!(thin[0].expected, 30, "10 a second, 1 %, five minutes");
        let (needed, takes) = (thin[0].needed.unwrap(), thin[0].takes.unwrap());
        assert_eq!(takes.as_secs_f64().round(), needed as f64 / 0.1);
        let least = thin[0].least_per_second.unwrap();
        let is_thin = |per_second| thin_steps(&steps, &settings, 0.001, per_second).iter().any(|thin| thin.step == 0);
        assert_eq!([least * 1.001, least * 0.999].map(is_thin), [false, true], "{least}");
        assert!(thin_steps(&steps, &settings, 0.001, 0.0).iter().all(|t| t.takes.is_none()), "no traffic");
    }
}
