//! The rollout as a machine: its state, one event, the state after it and what is to be done.
//!
//! The order in which one event is looked at is the safety of it: time first, then what speaks against the new version,
//! then whether it may go up, at last whether it has waited too long. Each event leads at most one step up, and none
//! while the weights of a step are being set. Invariants: `Ended` is final; a step's time runs only while its weights
//! are in force and nobody has paused it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::checks::Checking;
use super::clock::Moment;
use super::command::{Command, What};
use super::effect::{Effect, Notice, Order, Tone};
use super::event::{Event, Judged};
use super::outbox::Outbox;
use super::plan::{Plan, PlannedStep};
use crate::config::CheckAt;
use crate::model::{Actor, Source, Weights};

/// Names a rollout for good; a restart of it is another one. Given by whoever starts it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RolloutId(pub String);

/// See the file's head.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Machine {
    pub(super) id: RolloutId,
    pub(super) plan: Plan,
    pub(super) phase: Phase,
    /// The step whose weights were ordered last; `None`: before the first.
    pub(super) step: Option<usize>,
    pub(super) paused: Option<Pause>,
    /// Watched time of the step.
    pub(super) in_step: Duration,
    /// Watched time since the step, or the start checks, should have been over.
    pub(super) waited: Duration,
    /// When time was last added.
    pub(super) seen: Moment,
    pub(super) checks: Vec<Checking>,
    /// Requests may have gone to the new version.
    pub(super) is_exposed: bool,
    /// Somebody has decided to go on although the analysis says regressed.
    pub(super) is_pardoned: bool,
    pub(super) outbox: Outbox,
    /// Rises with everything that must be on disk before it is answered or acted on.
    pub(super) turn: u64,
    /// Why it ended.
    pub(super) ending: Option<String>,
    /// The last judgment; the next tick after a restart brings another.
    #[serde(skip)]
    pub(super) judged: Option<Judged>,
}

/// Where it is. Waiting and paused are no phases of their own, so that what goes on below them is not lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Phase {
    /// The start checks are asked; no request goes to the new version.
    Starting,
    /// The next step needs somebody's consent.
    Approval,
    /// The step's weights are ordered.
    Entering,
    /// They are in force.
    Holding,
    /// The label is ordered.
    Finishing,
    Ended(End),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum End {
    Finished,
    Failed,
    Aborted,
    Superseded,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Pause {
    pub(super) why: Why,
    pub(super) text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Why {
    Asked,
    Regressed,
    WaitedTooLong,
}

impl Machine {
    /// A rollout begins. `weights` are those in force.
    pub fn start(id: RolloutId, plan: Plan, weights: &Weights, by: Actor, now: Moment) -> (Self, Vec<Effect>) {
        let checks = plan.checks.iter().map(|c| Checking::new(c.name.clone())).collect();
        let is_exposed = weights.weight(&plan.to).is_some_and(|w| !w.is_zero());
        let mut machine = Self {
            id,
            plan,
            phase: Phase::Starting,
            step: None,
            paused: None,
            in_step: Duration::ZERO,
            waited: Duration::ZERO,
            seen: now,
            checks,
            is_exposed,
            is_pardoned: false,
            outbox: Outbox::default(),
            turn: 1,
            ending: None,
            judged: None,
        };
        let mut out = Vec::new();
        let text = format!("from {} to {}", machine.plan.stable, machine.plan.to);
        out.push(Effect::Log { tone: Tone::Info, event: "rollout.started", text });
        if !machine.plan.has_checks(CheckAt::Start) {
            machine.go_up(by, "the rollout begins".into(), &mut out);
        } else if is_exposed {
            machine.order_weights(0, by, "the start checks come first".into(), &mut out);
        } else {
            machine.ask(CheckAt::Start, &mut out);
        }
        (machine, out)
    }

    /// The only way on. Performs nothing: the new state is written down if `turn` has risen, then what is in the list is
    /// done, in its order (see [`Effect`]).
    pub fn step(mut self, event: Event, now: Moment) -> (Self, Vec<Effect>) {
        let mut out = Vec::new();
        self.pass(now.since(self.seen));
        self.seen = now;
        match event {
            Event::Tick(judged) => self.tick(judged, &mut out),
            Event::Answered { check, question, answer } => self.answered(&check, question, answer, &mut out),
            Event::Done { seq } => self.done(seq, &mut out),
            Event::Refused { seq, why } => self.refused(seq, &why, &mut out),
            Event::Command(command) => self.command(command, &mut out),
            Event::RolledBack { by, source, reason } => self.rolled_back(&by, source, reason, &mut out),
            Event::FileChangedWeights => self.superseded("the file gives other weights".into(), &mut out),
            Event::VersionLeft(version) => self.version_left(&version, &mut out),
            Event::NewerVersion { to, by } => self.newer_version(&to, by, &mut out),
        }
        (self, out)
    }

    /// Adds watched time.
    pub(super) fn pass(&mut self, time: Duration) {
        self.checks.iter_mut().for_each(|check| check.pass(time));
        if self.paused.is_some() {
            return;
        }
        match self.phase {
            Phase::Holding if self.left().is_zero() => self.waited = self.waited.saturating_add(time),
            Phase::Holding => self.in_step = self.in_step.saturating_add(time),
            Phase::Starting => self.waited = self.waited.saturating_add(time),
            _ => {}
        }
    }

    fn tick(&mut self, judged: Option<Judged>, out: &mut Vec<Effect>) {
        self.judged = judged.or(self.judged.take());
        self.look_for_regression(out);
        if self.is_watched() {
            self.ask(CheckAt::Always, out);
        }
        self.try_to_go_up(out);
        self.look_for_patience(out);
        // Last: what a rollback has just made void is not tried again.
        out.extend(self.outbox.again());
    }

    fn done(&mut self, seq: u64, out: &mut Vec<Effect>) {
        let Some(order) = self.outbox.done(seq) else { return };
        self.turn += 1;
        match (order, self.phase) {
            (Order::Weights { .. }, Phase::Entering) => {
                self.phase = Phase::Holding;
                out.extend(self.step.map(Effect::EnterStep));
                self.ask(CheckAt::Always, out);
            }
            (Order::Weights { .. }, Phase::Starting) => self.ask(CheckAt::Start, out),
            (Order::Relabel { .. }, Phase::Finishing) => self.finished(out),
            _ => {}
        }
    }

    fn refused(&mut self, seq: u64, why: &str, out: &mut Vec<Effect>) {
        let Some(order) = self.outbox.refused(seq) else { return };
        self.turn += 1;
        let what = match order {
            Order::Weights { .. } => "the weights of the step",
            Order::Rollback { .. } => "the rollback",
            Order::Relabel { .. } => "the new stable version",
            // Nobody can be told that nobody can be told.
            Order::Notify { .. } | Order::Receipt { .. } => return,
        };
        let text = format!("{what} could not be set: {why}; it is tried again");
        out.push(Effect::Log { tone: Tone::Warn, event: "rollout.stuck", text: text.clone() });
        self.notify(Notice::RolloutStuck, text, out);
    }

    fn command(&mut self, command: Command, out: &mut Vec<Effect>) {
        if self.refusal(command.what).is_some() {
            return;
        }
        let Command { what, by, source, reason } = command;
        let text = match &reason {
            Some(reason) => format!("{}: {reason}", by.0),
            None => by.0.clone(),
        };
        self.turn += 1;
        match what {
            What::Approve => self.order_next(by, format!("approved by {text}"), out),
            What::Promote { full } => self.promote(full, by, text, out),
            What::Pause => self.pause(Why::Asked, format!("by {text}"), out),
            What::Resume => self.resume(out),
            What::Abort => self.abort(source, by, reason, out),
        }
    }

    fn abort(&mut self, source: Source, by: Actor, reason: Option<String>, out: &mut Vec<Effect>) {
        let reason = reason.unwrap_or_else(|| "aborted".into());
        self.roll_back(End::Aborted, source, by, reason, out);
    }

    pub(super) fn pause(&mut self, why: Why, text: String, out: &mut Vec<Effect>) {
        // A reason that is being waited on is not replaced by a smaller one.
        let is_news = self.paused.as_ref().is_none_or(|now| why == Why::Regressed && now.why != why);
        if !is_news {
            return;
        }
        self.turn += 1;
        out.push(Effect::Log { tone: Tone::Warn, event: "rollout.paused", text: text.clone() });
        if why != Why::Asked {
            self.notify(Notice::RolloutPaused, format!("paused: {text}"), out);
        }
        self.paused = Some(Pause { why, text });
    }

    pub(super) fn resume(&mut self, out: &mut Vec<Effect>) {
        let Some(pause) = self.paused.take() else { return };
        self.waited = Duration::ZERO;
        if pause.why == Why::Regressed {
            self.is_pardoned = true;
            self.checks.iter_mut().for_each(Checking::pardon);
        }
        out.push(Effect::Log {
            tone: Tone::Info,
            event: "rollout.resumed",
            text: format!("was paused: {}", pause.text),
        });
    }

    pub(super) fn notify(&mut self, notice: Notice, text: String, out: &mut Vec<Effect>) {
        let effect = self.outbox.push(Order::Notify { notice, text });
        out.push(effect);
    }

    /// The order with this number is still to be carried out.
    pub(super) fn is_ordered(&self, seq: u64) -> bool {
        self.outbox.has_number(seq)
    }

    /// The step in force or being set.
    pub(super) fn now_at(&self) -> Option<&PlannedStep> {
        self.step.and_then(|step| self.plan.steps.get(step))
    }

    /// Of the step's time.
    pub(super) fn left(&self) -> Duration {
        self.now_at().map_or(Duration::ZERO, |step| step.hold.saturating_sub(self.in_step))
    }

    /// Requests go to the new version by this rollout's weights.
    fn is_watched(&self) -> bool {
        self.step.is_some() && matches!(self.phase, Phase::Approval | Phase::Holding)
    }
}
