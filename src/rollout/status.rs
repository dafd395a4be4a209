//! A rollout as people see it: its state in a word, what it waits for, what comes next; and whether a rollback would
//! work now.

use std::time::Duration;

use super::advance::Gate;
use super::checks::Checking;
use super::command::What;
use super::machine::{End, Machine, Phase, RolloutId};
use super::plan::{Asked, Plan};
use super::share::Share;
use crate::config::CheckAt;
use crate::model::VersionName;

/// As in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// A step's time runs, or its weights are being set.
    Running,
    /// Something must come true before it goes on.
    Waiting,
    /// Somebody must agree.
    Approval,
    Paused,
    Finished,
    /// It was rolled back by evidence.
    Failed,
    /// It was rolled back by a person.
    Aborted,
    /// The file, or a newer version, took its place.
    Superseded,
}

impl State {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Waiting => "waiting",
            Self::Approval => "approval",
            Self::Paused => "paused",
            Self::Finished => "finished",
            Self::Failed => "failed",
            Self::Aborted => "aborted",
            Self::Superseded => "superseded",
        }
    }

    /// It will never run again.
    pub fn is_end(self) -> bool {
        matches!(self, Self::Finished | Self::Failed | Self::Aborted | Self::Superseded)
    }
}

impl Machine {
    pub fn id(&self) -> &RolloutId {
        &self.id
    }

    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The step in force, or whose weights are being set; from 0; `None` before the first.
    pub fn at_step(&self) -> Option<usize> {
        self.step
    }

    /// Rises with everything that must be on disk before it is answered or acted on.
    pub fn turn(&self) -> u64 {
        self.turn
    }

    /// Ended, and nothing is left to be done: it may be forgotten.
    pub fn is_over(&self) -> bool {
        self.state().is_end() && self.outbox.is_empty()
    }

    /// The weights that are in force, as far as it knows: nobody else has set others.
    pub(super) fn in_force(&self) -> Option<Share> {
        let parts = self.step.and_then(|step| self.plan.steps.get(step)).map(|step| step.parts)?;
        matches!(self.phase, Phase::Holding | Phase::Approval).then(|| self.plan.share(parts))
    }

    /// The step that requests are sent by; unlike `at_step` not the one that is just being set.
    pub(super) fn step_in_force(&self) -> Option<usize> {
        match self.phase {
            Phase::Entering => self.step.and_then(|step| step.checked_sub(1)),
            _ => self.step,
        }
    }

    /// What its checks have said last.
    pub(super) fn checks_seen(&self) -> impl Iterator<Item = (&Asked, &Checking)> {
        self.plan.checks.iter().zip(&self.checks)
    }

    /// Why it ended.
    pub fn ending(&self) -> Option<&str> {
        self.ending.as_deref()
    }

    pub fn state(&self) -> State {
        match self.phase {
            Phase::Ended(End::Finished) => State::Finished,
            Phase::Ended(End::Failed) => State::Failed,
            Phase::Ended(End::Aborted) => State::Aborted,
            Phase::Ended(End::Superseded) => State::Superseded,
            _ if self.paused.is_some() => State::Paused,
            Phase::Starting => State::Waiting,
            Phase::Approval => State::Approval,
            Phase::Holding if self.left().is_zero() => State::Waiting,
            Phase::Holding | Phase::Entering | Phase::Finishing => State::Running,
        }
    }

    /// Time the step has left, if it runs.
    pub fn time_left(&self) -> Option<Duration> {
        (self.phase == Phase::Holding).then(|| self.left()).filter(|left| !left.is_zero())
    }

    /// Why it is paused, or what it waits for.
    pub fn waits_for(&self) -> Option<String> {
        if let Some(pause) = &self.paused {
            return Some(pause.text.clone());
        }
        match self.phase {
            Phase::Starting => self.check_that_holds(CheckAt::Start),
            Phase::Approval => Some("somebody's consent".into()),
            Phase::Holding if self.left().is_zero() => match self.gate() {
                Gate::Shut(why) | Gate::TooThin(why) => Some(format!("evidence: {why}")),
                Gate::Open => self.check_that_holds(CheckAt::Always).or_else(|| self.check_that_holds(self.leaving())),
            },
            _ => None,
        }
    }

    fn check_that_holds(&self, at: CheckAt) -> Option<String> {
        self.held_by(at).map(|check| format!("check {}: {}", check.name, check.said()))
    }

    /// What comes after the present step, as a person would say it; `None` at the end.
    pub fn next_step(&self) -> Option<String> {
        if self.state().is_end() {
            return None;
        }
        let Some(weight) = self.plan.percent(self.next()) else {
            return Some(format!("{} becomes stable", self.plan.to));
        };
        let consent = if self.plan.steps[self.next()].approve { ", once somebody agrees" } else { "" };
        Some(format!("{weight} % for {}{consent}", self.plan.to))
    }

    /// What an operator may say now.
    pub fn commands(&self) -> Vec<What> {
        let all = [What::Approve, What::Promote { full: false }, What::Pause, What::Resume, What::Abort];
        all.into_iter().filter(|what| self.refusal(*what).is_none()).collect()
    }
}

/// Whoever a rollback would go to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub version: VersionName,
    /// Endpoints that take requests now.
    pub up: usize,
    pub endpoints: usize,
    pub is_draining: bool,
}

/// Whether a rollback would work at once without force, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Readiness {
    pub is_ready: bool,
    pub text: String,
}

/// A rollback needs somebody warm to go back to. `None`: there is nobody else.
pub fn rollback_ready(target: Option<&Target>) -> Readiness {
    let (is_ready, text) = match target {
        None => (false, "there is no version to go back to".to_owned()),
        Some(Target { version, is_draining: true, .. }) => (false, format!("{version} drains")),
        Some(Target { version, up: 0, endpoints, .. }) => {
            (false, format!("none of the {endpoints} endpoints of {version} is up"))
        }
        Some(Target { version, up, endpoints, .. }) => (true, format!("{version}: {up} of {endpoints} endpoints up")),
    };
    Readiness { is_ready, text }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rollout::testing::version;

    #[test]
    fn a_rollback_needs_somebody_warm() {
        let target = |up, is_draining| Some(Target { version: version("v1"), up, endpoints: 2, is_draining });
        for (target, is_ready, text) in [
            (None, false, "there is no version to go back to"),
            (target(2, true), false, "v1 drains"),
            (target(0, false), false, "none of the 2 endpoints of v1 is up"),
            (target(1, false), true, "v1: 1 of 2 endpoints up"),
        ] {
            let ready = rollback_ready(target.as_ref());
            assert_eq!((ready.is_ready, ready.text.as_str()), (is_ready, text));
        }
    }
}
