//! Upward: what must hold before a step is left, and what is ordered then.
//!
//! Invariant: every gate is open at the same moment; a judgment or an answer of an earlier step opens none.

use std::time::Duration;

use super::checks::{Checking, Outcome};
use super::effect::{Effect, Notice, Order, Tone};
use super::endings::actor_of;
use super::machine::{End, Machine, Phase, Why};
use super::plan::Judging;
use super::share::{WHOLE, percent};
use crate::analysis::Verdict;
use crate::checks::Answer;
use crate::config::{CheckAt, OnInconclusive};
use crate::model::{Actor, CheckName, Source};

/// What the analysis says about leaving the step.
pub(super) enum Gate {
    Open,
    Shut(String),
    /// The operator wants no thin evidence.
    TooThin(String),
}

impl Machine {
    pub(super) fn try_to_go_up(&mut self, out: &mut Vec<Effect>) {
        if self.paused.is_some() {
            return;
        }
        match self.phase {
            Phase::Starting => self.try_to_begin(out),
            Phase::Holding if self.left().is_zero() => self.try_to_leave(out),
            _ => {}
        }
    }

    fn try_to_begin(&mut self, out: &mut Vec<Effect>) {
        // Not before the new version is idle.
        if self.outbox.has(Order::leads_upward) {
            return;
        }
        if self.all_pass(CheckAt::Start) {
            self.go_up(Actor("rollout".into()), "the start checks have passed".into(), out);
        } else {
            self.ask(CheckAt::Start, out);
        }
    }

    fn try_to_leave(&mut self, out: &mut Vec<Effect>) {
        let last = self.leaving();
        match self.gate() {
            Gate::TooThin(why) => {
                let reason = format!("the evidence is thin at the step's end: {why}");
                return self.roll_back(End::Failed, Source::Analysis, Actor("analysis".into()), reason, out);
            }
            Gate::Shut(_) => return,
            Gate::Open => {}
        }
        if !self.all_pass(CheckAt::Always) {
            return;
        }
        if self.all_pass(last) {
            self.go_up(Actor("rollout".into()), self.said(), out);
        } else {
            self.ask(last, out);
        }
    }

    /// Which checks stand before what comes after this step.
    pub(super) fn leaving(&self) -> CheckAt {
        if self.next() < self.plan.steps.len() { CheckAt::Step } else { CheckAt::Finish }
    }

    /// The judgment of this very step.
    pub(super) fn gate(&self) -> Gate {
        let comparable = self.plan.judging == Judging::Comparison
            && self.now_at().is_some_and(|step| step.parts > 0 && step.parts < WHOLE);
        let judged = self.judged.as_ref().filter(|j| Some(j.step) == self.step);
        match judged {
            _ if self.plan.judging == Judging::Off => Gate::Open,
            Some(j) if j.is_split_wrong && comparable => Gate::Shut(j.reason.clone()),
            Some(j) => match (j.verdict, self.plan.on_inconclusive) {
                (Verdict::Healthy, _) => Gate::Open,
                // Pardoned, or it would not have come so far; only a person leads it further up.
                (Verdict::Regressed, _) => Gate::Shut(j.reason.clone()),
                // Nothing can be proved where nothing is compared: not to be broken is all there is.
                (Verdict::Inconclusive, _) if !comparable => Gate::Open,
                (Verdict::Inconclusive, OnInconclusive::Advance) => Gate::Open,
                (Verdict::Inconclusive, OnInconclusive::Hold) => Gate::Shut(j.reason.clone()),
                (Verdict::Inconclusive, OnInconclusive::Rollback) => Gate::TooThin(j.reason.clone()),
            },
            None if !comparable || self.plan.on_inconclusive == OnInconclusive::Advance => Gate::Open,
            None => Gate::Shut("the analysis has said nothing of this step yet".into()),
        }
    }

    /// For history: why the step is left.
    fn said(&self) -> String {
        let judged = self.judged.as_ref().filter(|j| Some(j.step) == self.step && self.plan.judging != Judging::Off);
        match judged {
            Some(j) => format!("{}: {}", j.verdict.as_str(), j.reason),
            None => "the step's time is over".into(),
        }
    }

    pub(super) fn next(&self) -> usize {
        self.step.map_or(0, |step| step.saturating_add(1))
    }

    /// The next step, or first somebody's consent to it, or the end.
    pub(super) fn go_up(&mut self, by: Actor, reason: String, out: &mut Vec<Effect>) {
        if self.plan.steps.get(self.next()).is_some_and(|next| next.approve) {
            self.turn += 1;
            self.phase = Phase::Approval;
            let weight = self.plan.percent(self.next()).unwrap_or_default();
            let text = format!("step {} gives {} {weight} %: {reason}", self.next() + 1, self.plan.to);
            out.push(Effect::Log { tone: Tone::Info, event: "rollout.approval", text: text.clone() });
            self.notify(Notice::ApprovalNeeded, text, out);
        } else {
            self.order_next(by, reason, out);
        }
    }

    pub(super) fn order_next(&mut self, by: Actor, reason: String, out: &mut Vec<Effect>) {
        match self.plan.steps.get(self.next()).map(|next| next.parts) {
            Some(parts) => self.enter(self.next(), parts, by, reason, out),
            None => self.finish(out),
        }
    }

    fn enter(&mut self, step: usize, parts: u32, by: Actor, reason: String, out: &mut Vec<Effect>) {
        self.phase = Phase::Entering;
        self.step = Some(step);
        (self.in_step, self.waited) = (Duration::ZERO, Duration::ZERO);
        self.judged = None;
        self.checks.iter_mut().for_each(Checking::begin_step);
        self.order_weights(parts, by, reason, out);
    }

    pub(super) fn order_weights(&mut self, parts: u32, by: Actor, reason: String, out: &mut Vec<Effect>) {
        self.turn += 1;
        self.is_exposed |= parts > 0;
        let text = format!("{} % for {}: {reason}", percent(parts), self.plan.to);
        out.push(Effect::Log { tone: Tone::Info, event: "rollout.step", text });
        let effect = self.outbox.push(Order::Weights { share: self.plan.share(parts), by, reason });
        out.push(effect);
    }

    pub(super) fn promote(&mut self, full: bool, by: Actor, text: String, out: &mut Vec<Effect>) {
        self.resume(out);
        let reason = format!("promoted by {text}");
        let last = self.plan.steps.len().saturating_sub(1);
        if !full {
            self.order_next(by, reason, out);
        } else if self.plan.steps[last].parts == WHOLE && self.step != Some(last) {
            self.enter(last, WHOLE, by, reason, out);
        } else {
            self.finish(out);
        }
    }

    fn finish(&mut self, out: &mut Vec<Effect>) {
        self.turn += 1;
        self.phase = Phase::Finishing;
        self.is_exposed = true;
        let effect = self.outbox.push(Order::Relabel { share: self.plan.share(WHOLE) });
        out.push(effect);
    }

    pub(super) fn ask(&mut self, at: CheckAt, out: &mut Vec<Effect>) {
        let due = self
            .plan
            .checks
            .iter()
            .zip(&mut self.checks)
            .filter(|(plan, check)| plan.at == at && !check.is_settled(at));
        out.extend(due.filter_map(|(_, check)| check.ask(at)));
    }

    fn all_pass(&self, at: CheckAt) -> bool {
        self.plan.checks.iter().zip(&self.checks).all(|(plan, check)| plan.at != at || check.has_passed())
    }

    /// The first check that holds it.
    pub(super) fn held_by(&self, at: CheckAt) -> Option<&Checking> {
        let mut all = self.plan.checks.iter().zip(&self.checks);
        all.find(|(plan, check)| plan.at == at && !check.has_passed()).map(|(_, check)| check)
    }

    pub(super) fn answered(&mut self, name: &CheckName, question: u64, answer: Answer, out: &mut Vec<Effect>) {
        if matches!(self.phase, Phase::Ended(_)) {
            return;
        }
        let found = self.plan.checks.iter().zip(&mut self.checks).find(|(plan, _)| plan.name == *name);
        let Some(outcome) = found.and_then(|(plan, check)| check.answered(question, answer, plan)) else { return };
        let log = |text| Effect::Log { tone: Tone::Warn, event: "rollout.check", text };
        match outcome {
            Outcome::Noted => {}
            Outcome::Warned(why) => {
                self.turn += 1;
                out.push(log(format!("{name} failed: {why}")));
            }
            Outcome::Mute(why) => {
                self.turn += 1;
                let text = format!("{name} could not be asked: {why}; the rollout stays where it is");
                out.push(log(text.clone()));
                self.notify(Notice::CheckFailed, text, out);
            }
            Outcome::Regressed(why) => {
                // While somebody is being waited for because of it, they know.
                let is_news = self.paused.as_ref().is_none_or(|pause| pause.why != Why::Regressed);
                let text = format!("{name} failed: {why}");
                self.regressed(Source::Check, actor_of("check", name.as_str()), text.clone(), out);
                if is_news {
                    self.notify(Notice::CheckFailed, text, out);
                }
            }
        }
        self.try_to_go_up(out);
    }

    /// Nobody has come for so long: somebody is called.
    pub(super) fn look_for_patience(&mut self, out: &mut Vec<Effect>) {
        let is_late = matches!(self.phase, Phase::Holding | Phase::Starting) && !self.waited.is_zero();
        if is_late && self.waited >= self.plan.max_wait && self.paused.is_none() {
            let why = self.waits_for().unwrap_or_else(|| "nothing".into());
            self.pause(Why::WaitedTooLong, format!("max_wait is over, still waiting for {why}"), out);
        }
    }
}
