//! What an earlier process has left: rollouts that go on, receipts that stay, and what has happened to the splits since.
//!
//! Invariants: whatever the store's history knows of a split beyond what its rollout had seen is heard before anything is
//! ordered again; each receipt ends, also if its rollout cannot be taken up.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::SystemTime;

use super::archive::Filed;
use super::controller::Controller;
use super::document::Document;
use super::event::Event;
use super::machine::Machine;
use super::plan::Plan;
use super::run::{Left, Run};
use super::saved::Saved;
use super::status::State;
use crate::model::{Instant, Revision, SplitName, rfc3339_ms};
use crate::state::{HistoryEntry, RolloutMark, SplitState};

/// So far back in a split's history is looked.
const BACK: usize = 1000;

impl Controller {
    /// Takes up what an earlier process has left.
    pub(super) async fn restore(&mut self) {
        let archive = self.archive.clone();
        let filed = tokio::task::spawn_blocking(move || archive.read()).await.unwrap_or_default();
        let snapshot = self.ports.store.snapshot();
        for split in &snapshot.splits {
            let Some(mark) = split.rollout.clone().filter(|mark| mark.progress.is_some()) else { continue };
            let mine = filed.iter().find(|filed| filed.document.id == mark.id);
            Box::pin(self.restore_one(split, mark, mine)).await;
        }
        let runs = |id: &str| self.runs.values().any(|run| run.machine.id().0 == id);
        let (mut past, mut open) = (Vec::new(), Vec::new());
        for Filed { document, .. } in filed.into_iter().filter(|filed| !runs(&filed.document.id)) {
            let is_closed = document.ended_at.is_some();
            let document = if is_closed { document } else { abandoned(document) };
            past.push(Arc::new(document.clone()));
            if !is_closed {
                open.push(Filed::closed(document));
            }
        }
        // Those that have just ended are among the past already.
        past.retain(|old: &Arc<Document>| self.past.iter().all(|known| known.id != old.id));
        self.past.extend(past);
        if !open.is_empty() {
            self.file(open, true).await;
        }
    }

    async fn restore_one(&mut self, split: &Arc<SplitState>, mark: RolloutMark, filed: Option<&Filed>) {
        let times = (Instant::now(), self.clock.now());
        let saved = serde_json::from_value::<Saved>(mark.progress.unwrap_or_default()).map_err(|why| why.to_string());
        let config = self.ports.store.snapshot().config.clone();
        let configured = config.splits.iter().find(|one| one.name == split.name);
        let rollout = configured.and_then(|one| one.rollout.as_ref());
        let restored = saved.and_then(|saved| {
            let left = Left {
                saved,
                filed,
                analysis: rollout.and_then(|rollout| rollout.analysis.clone()).unwrap_or_default(),
                history: &|plan: &Plan| self.ports.windows.history(&plan.split, &plan.stable),
            };
            let found = |machine: &Machine| self.found(&split.name, machine, mark.revision);
            Run::restore(left, found, &self.ports.cells, split, times)
        });
        match restored {
            Ok((run, effects)) => {
                let (id, state) = (run.machine.id().clone(), run.machine.state().as_str());
                tracing::info!(event = "rollout.restored", split = %split.name, rollout = id.0, state);
                self.runs.insert(split.name.clone(), run);
                let mut events = VecDeque::new();
                self.follow(&split.name, effects, &mut events).await;
                self.take_in(&split.name, &id, events).await;
            }
            Err(why) => {
                tracing::error!(event = "rollout.not_restored", split = %split.name, why,
                    "the weights stay as they are: roll back, or start it anew");
                self.give_up(&split.name).await;
            }
        }
    }

    /// After news that were missed: what they come to.
    pub(super) async fn look_around(&mut self) {
        // Their own may be among those missed.
        self.own.clear();
        for name in self.names() {
            let found = self.runs.get(&name).and_then(|run| self.found(&name, &run.machine, run.revision));
            if let Some(split) = self.split(&name) {
                self.saw_revision(&name, split.revision);
            }
            if let Some(event) = found {
                self.advance(&name, event).await;
            }
        }
        self.auto_start().await;
    }

    /// What has happened to the split besides what the rollout knows of: that is, after `since`.
    fn found(&self, name: &SplitName, machine: &Machine, since: Revision) -> Option<Event> {
        let split = self.split(name);
        if let Some(left) = gone(split.as_deref(), machine.plan()) {
            return Some(left);
        }
        let history = self.ports.store.history(Some(name), BACK, None);
        // Oldest first: it is what ended the rollout.
        let missed = history.iter().rev().filter(|entry| entry.revision > since && since.0 > 0);
        missed.into_iter().find_map(news).or_else(|| {
            let (split, share) = (split?, machine.in_force()?);
            let weights = share.weights(split.versions.iter().map(|version| &version.name));
            (!weights.same_as(&split.weights)).then_some(Event::FileChangedWeights)
        })
    }
}

/// What an entry of a split's history is to its rollout.
pub(super) fn news(entry: &HistoryEntry) -> Option<Event> {
    let HistoryEntry { kind, by, source, reason, .. } = entry;
    match kind.as_str() {
        "rollback" => Some(Event::RolledBack { by: by.clone(), source: *source, reason: reason.clone() }),
        "superseded" => Some(Event::FileChangedWeights),
        _ => None,
    }
}

/// A version of the rollout is not in the file.
pub(super) fn gone(split: Option<&SplitState>, plan: &Plan) -> Option<Event> {
    let has =
        |version: &crate::model::VersionName| split.is_some_and(|split| split.version(version.as_str()).is_some());
    let left = [&plan.to, &plan.stable].into_iter().find(|version| !has(version))?;
    Some(Event::VersionLeft(left.clone()))
}

/// A receipt whose rollout is not there any more.
fn abandoned(document: Document) -> Document {
    Document {
        state: State::Superseded.as_str().to_owned(),
        ended_at: Some(rfc3339_ms(SystemTime::now())),
        ending: document.ending.or_else(|| Some("superseded: it could not be taken up after a restart".into())),
        ..document
    }
}
