//! How the controller carries effects out.
//!
//! Invariant: an order is reported done only when it is in force (and on disk, where it waits for that), refused only
//! when nothing has changed.

use std::collections::VecDeque;
use std::time::SystemTime;

use tokio::task::spawn_blocking;

use super::controller::{Answered, Controller};
use super::effect::{Effect, Order as Deed};
use super::event::Event;
use super::share::Share;
use crate::checks::{self, Answer, Finding, Question};
use crate::config::CheckAt;
use crate::model::{Actor, CheckName, Instant, Revision, Source, SplitName};
use crate::notices::Notice;
use crate::state::{Applied, ApplyError, Change, Order, RolloutMark};

impl Controller {
    pub(super) async fn carry(&mut self, name: &SplitName, effect: Effect, events: &mut VecDeque<Event>) {
        match effect {
            Effect::Do { seq, order } => self.carry_out(name, seq, order, events).await,
            Effect::EnterStep(step) => {
                let split = self.split(name);
                if let (Some(run), Some(split)) = (self.runs.get_mut(name), split) {
                    run.enter_step(step, &split, Instant::now());
                }
            }
            Effect::Ask { check, question, at } => self.ask_check(name, check, question, at),
            // Told when the machine stepped.
            Effect::Log { .. } => {}
        }
    }

    async fn carry_out(&mut self, name: &SplitName, seq: u64, deed: Deed, events: &mut VecDeque<Event>) {
        let split = name.clone();
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
        // A rollback stands above whatever somebody else has just changed.
        let if_match = match change {
            Change::Rollback { .. } => None,
            _ => self.runs.get(name).map(|run| run.revision),
        };
        let order =
            Order { id: fastrand::u128(..), change, by, source, reason: Some(reason), if_match, dry_run: false };
        match self.apply(order).await {
            Ok(applied) => {
                self.saw(name, &applied);
                events.push_back(Event::Done { seq });
            }
            Err(error) => {
                // What was first is heard first: it may have made the order void.
                Box::pin(self.catch_up()).await;
                events.push_back(Event::Refused { seq, why: error.to_string() });
            }
        }
    }

    /// Says something to the one write path.
    pub(super) async fn apply(&mut self, order: Order) -> Result<Applied, ApplyError> {
        if !matches!(order.change, Change::Note { .. }) {
            self.own.insert(format!("{:032x}", order.id));
        }
        let store = self.store();
        match spawn_blocking(move || store.apply(order)).await {
            Ok(result) => result,
            Err(_) => Err(ApplyError::Frozen),
        }
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
        let mark = run.mark();
        match self.apply(note_order(name, mark)).await {
            Ok(applied) => {
                if let Some(run) = self.runs.get_mut(name) {
                    (run.noted, run.is_persisted) = (turn, applied.persisted);
                }
                true
            }
            Err(error) => {
                if let Some(run) = self.runs.get_mut(name)
                    && std::mem::replace(&mut run.is_persisted, false)
                {
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
