//! How the controller carries effects out.
//!
//! Invariant: an order is reported done only when it is in force (and on disk, where it waits for that), refused only
//! when nothing has changed.

use std::collections::VecDeque;
use std::time::SystemTime;

use tokio::task::spawn_blocking;

use super::controller::{Answered, Controller, RETRY};
use super::effect::{Effect, Order as Deed};
use super::event::Event;
use super::share::Share;
use crate::checks::{self, Answer, Finding, Question};
use crate::config::CheckAt;
use crate::model::{Actor, CheckName, Instant, Revision, Source, SplitName};
use crate::notices::Notice;
use crate::state::{Applied, ApplyError, Change, Order, RolloutMark};

/// So often an order is given again at once, when others were first.
const TRIES: usize = 5;

impl Controller {
    pub(super) async fn carry(&mut self, name: &SplitName, effect: Effect, events: &mut VecDeque<Event>) {
        match effect {
            Effect::Do { seq, order } => self.carry_out(name, seq, order, events).await,
            Effect::EnterStep(step) => {
                let split = self.split(name);
                if let (Some(run), Some(split)) = (self.runs.get_mut(name), split) {
                    run.enter_step(step, &split, Instant::now());
                }
                self.filed = None;
            }
            Effect::Ask { check, question, at } => self.ask_check(name, check, question, at),
            // Told when the machine stepped.
            Effect::Log { .. } => {}
        }
    }

    async fn carry_out(&mut self, name: &SplitName, seq: u64, deed: Deed, events: &mut VecDeque<Event>) {
        if !self.is_ordered(name, seq) {
            return;
        }
        if deed.leads_upward() && self.is_too_soon(name, seq) {
            return events.push_back(Event::Refused { seq, why: "it was a moment ago".into() });
        }
        let (split, again) = (name.clone(), deed.clone());
        let (change, by, source, reason) = match deed {
            Deed::Notify { notice, text } => {
                let rollout = self.runs.get(name).map(|run| run.machine.id().0.clone()).unwrap_or_default();
                self.ports.notices.send(Notice {
                    event: notice.as_str().to_owned(),
                    split: Some(split),
                    text,
                    // The same when it is told again after a crash.
                    key: format!("{rollout}/{seq}"),
                    rollout: Some(rollout),
                    at: SystemTime::now(),
                });
                return events.push_back(Event::Done { seq });
            }
            Deed::Receipt { .. } => {
                if let Some(run) = self.runs.get_mut(name) {
                    run.closing = Some((seq, Instant::now()));
                }
                self.filed = None;
                return;
            }
            Deed::Weights { share, by, reason } => {
                let weights = self.weights(name, &share);
                (Change::SetWeights { split, weights, hold: false }, by, Source::Rollout, reason)
            }
            Deed::Relabel { share } => {
                let (weights, by) = (self.weights(name, &share), Actor("rollout".into()));
                (Change::Promote { split, to: share.to, weights }, by, Source::Rollout, "the rollout is over".into())
            }
            Deed::Rollback { to, source, by, reason } => {
                let change = Change::Rollback { split, to: Some(to), to_revision: None, force: false };
                (change, by, source, reason)
            }
        };
        let order =
            Order { id: fastrand::u128(..), change, by, source, reason: Some(reason), if_match: None, dry_run: false };
        let held = Effect::Do { seq, order: again };
        self.order(name, (seq, order), held, events).await;
    }

    /// Gives an order to the store, and tells the machine what came of it.
    async fn order(
        &mut self,
        name: &SplitName,
        (seq, mut order): (u64, Order),
        held: Effect,
        events: &mut VecDeque<Event>,
    ) {
        for _ in 0..TRIES {
            // A rollback stands above whatever somebody else has just changed.
            if !matches!(order.change, Change::Rollback { .. }) {
                order.if_match = self.runs.get(name).map(|run| run.revision);
            }
            let Some(why) = self.try_order(name, seq, order.clone(), &held).await else { return };
            let Err(error) = why else { return events.push_back(Event::Done { seq }) };
            // What was first is heard first: it may have made the order void.
            Box::pin(self.catch_up()).await;
            if !self.is_ordered(name, seq) {
                return;
            }
            let is_late = matches!(error, ApplyError::RevisionChanged { .. });
            if !is_late {
                return self.refuse(name, seq, error.to_string(), events);
            }
            order.id = fastrand::u128(..);
        }
        self.refuse(name, seq, "the split is changed all the time".into(), events);
    }

    /// `None`: not now, since a successor is being given the state; it is tried again if that fails.
    async fn try_order(
        &mut self,
        name: &SplitName,
        seq: u64,
        order: Order,
        held: &Effect,
    ) -> Option<Result<(), ApplyError>> {
        match self.apply(order).await {
            Ok(applied) => {
                self.saw(name, &applied);
                Some(Ok(()))
            }
            Err(ApplyError::Frozen) => {
                let run = self.runs.get_mut(name).filter(|run| run.machine.is_ordered(seq));
                run.into_iter().for_each(|run| run.stalled.push(held.clone()));
                None
            }
            Err(error) => Some(Err(error)),
        }
    }

    fn refuse(&mut self, name: &SplitName, seq: u64, why: String, events: &mut VecDeque<Event>) {
        if let Some(run) = self.runs.get_mut(name) {
            run.refused = Some((seq, Instant::now()));
        }
        events.push_back(Event::Refused { seq, why });
    }

    /// An order may have become void since it was given: by a rollback, while the disk refused.
    fn is_ordered(&self, name: &SplitName, seq: u64) -> bool {
        self.runs.get(name).is_some_and(|run| run.machine.is_ordered(seq))
    }

    /// It was refused a moment ago: a disk that is sick is not asked ten times a second.
    fn is_too_soon(&self, name: &SplitName, seq: u64) -> bool {
        let refused = self.runs.get(name).and_then(|run| run.refused).filter(|(of, _)| *of == seq);
        refused.is_some_and(|(_, at)| Instant::now().saturating_duration_since(at) < RETRY)
    }

    /// Says something to the one write path.
    pub(super) async fn apply(&mut self, order: Order) -> Result<Applied, ApplyError> {
        let id = format!("{:032x}", order.id);
        if !matches!(order.change, Change::Note { .. }) {
            self.own.insert(id.clone());
        }
        let store = self.store();
        let result = spawn_blocking(move || store.apply(order)).await.unwrap_or(Err(ApplyError::Frozen));
        // Where nothing has changed there will be no event.
        if !result.as_ref().is_ok_and(|applied| applied.changed) {
            self.own.remove(&id);
        }
        result
    }

    fn saw(&mut self, name: &SplitName, applied: &Applied) {
        let revision = applied.snapshot.split(name.as_str()).map(|split| split.revision);
        if let (Some(run), Some(revision)) = (self.runs.get_mut(name), revision) {
            run.revision = run.revision.max(revision);
        }
    }

    pub(super) fn saw_revision(&mut self, name: &SplitName, revision: Revision) {
        if let Some(run) = self.runs.get_mut(name) {
            run.revision = run.revision.max(revision);
        }
    }

    fn weights(&self, name: &SplitName, share: &Share) -> crate::model::Weights {
        let split = self.split(name);
        let versions = split.iter().flat_map(|split| split.versions.iter().map(|version| &version.name));
        share.weights(versions)
    }

    /// Writes progress down if there is any. True if all of it is on disk (or there is no disk).
    pub(super) async fn note(&mut self, name: &SplitName) -> bool {
        let Some(run) = self.runs.get(name) else { return false };
        let turn = run.machine.turn();
        if run.noted == turn {
            return true;
        }
        let now = Instant::now();
        let is_too_soon = |&(of, at): &(u64, Instant)| of == turn && now.saturating_duration_since(at) < RETRY;
        if run.unnoted.as_ref().is_some_and(is_too_soon) {
            return false;
        }
        let mark = run.mark();
        match self.apply(note_order(name, mark)).await {
            Ok(applied) => {
                if let Some(run) = self.runs.get_mut(name) {
                    (run.noted, run.is_persisted) = (turn, applied.persisted);
                }
                true
            }
            Err(error) => {
                let Some(run) = self.runs.get_mut(name) else { return false };
                run.unnoted = Some((turn, now));
                if std::mem::replace(&mut run.is_persisted, false) {
                    tracing::warn!(event = "rollout.not_noted", split = %name, %error, "will be tried again");
                }
                false
            }
        }
    }

    /// A rollout that cannot be taken up is no rollout.
    pub(super) async fn give_up(&mut self, name: &SplitName) {
        let Some(mark) = self.split(name).and_then(|split| split.rollout.clone()) else { return };
        let order = note_order(name, RolloutMark { running: false, progress: None, ..mark });
        if let Err(error) = self.apply(order).await {
            tracing::warn!(event = "rollout.not_noted", split = %name, %error);
        }
    }

    fn ask_check(&mut self, name: &SplitName, check: CheckName, question: u64, at: CheckAt) {
        let Some(run) = self.runs.get(name) else { return };
        let (plan, rollout) = (run.machine.plan(), run.machine.id().0.clone());
        let snapshot = self.ports.store.snapshot();
        let of_split = snapshot.config.splits.iter().find(|split| split.name == *name);
        let known = of_split.and_then(|split| split.rollout.as_ref());
        let found = known.and_then(|known| known.checks.iter().find(|one| one.name == check && one.at == at)).cloned();
        let version = of_split.and_then(|split| split.versions.iter().find(|version| version.name == plan.to));
        let asked = Question {
            split: name.clone(),
            to: plan.to.clone(),
            stable: plan.stable.clone(),
            rollout: rollout.clone(),
            step: run.machine.at_step(),
            weight_percent: run.machine.at_step().and_then(|step| plan.percent(step)).unwrap_or_default(),
            endpoints: version.map(|v| v.endpoints.iter().map(|e| e.target.to_string()).collect()).unwrap_or_default(),
        };
        let (answers, split) = (self.answer.clone(), name.clone());
        let lost = || Finding {
            answer: Answer::Error("the file has no such check any more".into()),
            value: None,
            output: None,
        };
        self.asking.spawn(async move {
            let finding = match found {
                Some(found) => checks::look(&found, &asked).await,
                None => lost(),
            };
            // Nobody to hear it: the process ends.
            let _ = answers.send(Answered { rollout, split, check, question, finding });
        });
    }
}

fn note_order(name: &SplitName, mark: RolloutMark) -> Order {
    Order {
        id: fastrand::u128(..),
        change: Change::Note { split: name.clone(), rollout: mark },
        by: Actor("rollout".into()),
        source: Source::Rollout,
        reason: None,
        if_match: None,
        dry_run: false,
    }
}
