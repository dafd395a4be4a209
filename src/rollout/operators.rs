//! What reaches the controller from outside: operators, files that change, rollbacks past it.
//!
//! Invariant: whoever asked is answered with what is in force, after it is on disk.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::SystemTime;

use super::command::Command;
use super::controller::Controller;
use super::desk::{Ask, DeskError, Start};
use super::effect::Effect;
use super::event::Event;
use super::plan::{Plan, starts_by_itself};
use super::run::{Begin, Run};
use super::taking_up::{gone, news};
use super::view::View;
use crate::config::{self, Rollout};
use crate::model::{Actor, Instant, Source, SplitName};
use crate::notices::Notice;
use crate::state::{ApplyError, ChangeEvent, Snapshot, SplitState};

impl Controller {
    pub(super) async fn ask(&mut self, ask: Ask) {
        // Who asks must find what has happened before.
        if !matches!(ask, Ask::Park { .. }) {
            self.catch_up().await;
        }
        let (answer, result) = match ask {
            Ask::Park { answer } => {
                self.park().await;
                // Who has gone away does not hear it.
                let _ = answer.send(());
                return;
            }
            Ask::Start { split, start, answer } => {
                let result = Box::pin(self.start(&split, start)).await;
                (answer, result)
            }
            Ask::Command { split, command, dry_run, answer } => {
                let result = Box::pin(self.command(&split, command, dry_run)).await;
                (answer, result)
            }
        };
        self.show();
        // Who has gone away does not hear it.
        let _ = answer.send(result);
    }

    async fn command(&mut self, name: &SplitName, command: Command, dry_run: bool) -> Result<Arc<View>, DeskError> {
        self.known(name)?;
        let Some(run) = self.runs.get(name) else { return Err(DeskError::NoRollout(name.clone())) };
        if let Some(refusal) = run.machine.refusal(command.what) {
            return Err(DeskError::Refused(refusal));
        }
        if self.is_frozen() {
            return Err(ApplyError::Frozen.into());
        }
        if !dry_run {
            self.advance(name, Event::Command(command)).await;
            // It would be lost if the successor takes over.
            if self.is_frozen() && self.runs.get(name).is_some_and(|run| run.noted != run.machine.turn()) {
                return Err(ApplyError::Frozen.into());
            }
        }
        self.view(name).ok_or_else(|| DeskError::NoRollout(name.clone()))
    }

    async fn start(&mut self, name: &SplitName, start: Start) -> Result<Arc<View>, DeskError> {
        let split = self.known(name)?;
        if self.is_frozen() {
            return Err(ApplyError::Frozen.into());
        }
        // One that has ended, and whose last requests are still on their way, does not keep the next one waiting.
        let closing = self.runs.get(name).and_then(|run| run.closing).filter(|_| !start.dry_run);
        if let Some((seq, _)) = closing {
            self.close_now(name, seq, true).await;
        }
        if let Some(run) = self.runs.get(name) {
            let to = run.machine.plan().to.clone();
            return Err(DeskError::Running { split: name.clone(), to });
        }
        if let Some(wanted) = start.if_match.filter(|wanted| *wanted != split.revision) {
            let (split, now) = (name.clone(), split.revision);
            return Err(ApplyError::RevisionChanged { split, wanted, now }.into());
        }
        let (mut run, effects) = self.begin(&split, &start)?;
        if start.dry_run {
            return Ok(Arc::new(run.view(&split)));
        }
        run.log(&effects);
        let id = run.machine.id().clone();
        self.runs.insert(name.clone(), run);
        if !self.note(name).await {
            // Nothing has been done yet, and nothing will be.
            self.runs.remove(name);
            return Err(DeskError::NotPersisted);
        }
        self.tell_start(name);
        // So that a crash in the first second leaves who, when and how it is judged.
        let filed = self.all_filed();
        self.file(filed, false).await;
        let mut events = VecDeque::new();
        self.follow(name, effects, &mut events).await;
        self.take_in(name, &id, events).await;
        self.view(name).ok_or_else(|| DeskError::NoRollout(name.clone()))
    }

    fn tell_start(&self, name: &SplitName) {
        let Some(run) = self.runs.get(name) else { return };
        let (id, plan) = (run.machine.id().0.clone(), run.machine.plan());
        self.ports.notices.send(Notice {
            event: "rollout-started".into(),
            split: Some(name.clone()),
            text: format!("from {} to {}", plan.stable, plan.to),
            key: format!("{id}/start"),
            rollout: Some(id),
            at: SystemTime::now(),
        });
    }

    fn begin(&self, split: &SplitState, start: &Start) -> Result<(Run, Vec<Effect>), DeskError> {
        let snapshot = self.ports.store.snapshot();
        let config = configured(&snapshot, &split.name)
            .ok_or_else(|| DeskError::UnknownSplit { split: split.name.to_string(), known: names(&snapshot) })?;
        let default = Rollout::default();
        let rollout = config.rollout.as_ref().unwrap_or(&default);
        let chosen = (start.to.as_ref(), start.steps.as_deref());
        let plan = Plan::new(config, rollout, (&split.stable, &split.weights), chosen)?;
        let begin = Begin {
            history: self.ports.windows.history(&split.name, &split.stable),
            plan,
            analysis: rollout.analysis.as_ref(),
            by: start.by.clone(),
            reason: start.reason.clone(),
        };
        let times = (Instant::now(), self.clock.now());
        Run::begin(begin, &self.ports.cells, split, times).map_err(DeskError::Settings)
    }

    fn is_frozen(&self) -> bool {
        self.ports.store.is_frozen()
    }

    /// The rollout as it is, or as it ended.
    fn view(&self, name: &SplitName) -> Option<Arc<View>> {
        match (self.runs.get(name), self.split(name)) {
            (Some(run), Some(split)) => Some(Arc::new(run.view(&split))),
            _ => self.last_view(name),
        }
    }

    fn known(&self, name: &SplitName) -> Result<Arc<SplitState>, DeskError> {
        let snapshot = self.ports.store.snapshot();
        let unknown = || DeskError::UnknownSplit { split: name.to_string(), known: names(&snapshot) };
        snapshot.split(name.as_str()).cloned().ok_or_else(unknown)
    }

    /// Something has happened to a split.
    pub(super) async fn news(&mut self, event: ChangeEvent) {
        let is_own = self.own.remove(&event.id);
        if let Some(name) = &event.split {
            // What a rollout has begun upon, or has seen in the snapshot, is no news to it.
            let is_known = self.runs.get(name).is_none_or(|run| event.revision <= run.revision);
            self.saw_revision(name, event.revision);
            if !is_own && !is_known {
                self.foreign(&name.clone(), &event).await;
            }
        }
        if matches!(event.kind.as_str(), "reload" | "superseded") {
            self.auto_start().await;
        }
    }

    async fn foreign(&mut self, name: &SplitName, event: &ChangeEvent) {
        if let Some(news) = self.version_left(name).or_else(|| news(event)) {
            self.advance(name, news).await;
        }
    }

    fn version_left(&self, name: &SplitName) -> Option<Event> {
        let plan = self.runs.get(name)?.machine.plan();
        gone(self.split(name).as_deref(), plan)
    }

    /// Rollouts that a load begins.
    pub(super) async fn auto_start(&mut self) {
        let snapshot = self.ports.store.snapshot();
        for split in &snapshot.config.splits {
            if split.rollout.as_ref().is_some_and(|rollout| rollout.auto_start) {
                Box::pin(self.auto_start_one(&split.name)).await;
            }
        }
    }

    pub(super) async fn auto_start_one(&mut self, name: &SplitName) {
        let snapshot = self.ports.store.snapshot();
        let (Some(config), Some(split)) = (configured(&snapshot, name), snapshot.split(name.as_str())) else { return };
        let Some(rollout) = config.rollout.as_ref().filter(|rollout| rollout.auto_start) else { return };
        let planned = Plan::new(config, rollout, (&split.stable, &split.weights), (None, None));
        // A third version with weight is the rollout before, which this one is to replace.
        let to = match (planned, &rollout.to) {
            (Ok(plan), _) => plan.to,
            (Err(_), Some(to)) if self.runs.contains_key(name) => to.clone(),
            _ => return,
        };
        if !starts_by_itself(rollout, &to, &split.rolled_out, split.is_held()) {
            return;
        }
        let by = Actor("file".into());
        if self.runs.contains_key(name) {
            return self.advance(name, Event::NewerVersion { to, by }).await;
        }
        let (steps, reason, if_match) = (None, Some("auto_start".into()), None);
        let start = Start { to: Some(to), steps, by, source: Source::File, reason, if_match, dry_run: false };
        if let Err(error) = self.start(name, start).await {
            tracing::warn!(event = "rollout.not_started", split = %name, %error, "the file asks for it");
        }
    }
}

fn configured<'a>(snapshot: &'a Snapshot, name: &SplitName) -> Option<&'a config::Split> {
    snapshot.config.splits.iter().find(|split| split.name == *name)
}

fn names(snapshot: &Snapshot) -> Vec<String> {
    snapshot.splits.iter().map(|split| split.name.to_string()).collect()
}
