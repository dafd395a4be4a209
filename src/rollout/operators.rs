//! What reaches the controller from outside: operators, files that change, rollbacks past it, an earlier process.
//!
//! Invariant: whoever asked is answered with what is in force, after it is on disk.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::SystemTime;

use super::archive::Filed;
use super::command::Command;
use super::controller::Controller;
use super::desk::{Ask, DeskError, Start};
use super::effect::Effect;
use super::event::Event;
use super::machine::Machine;
use super::plan::{Plan, starts_by_itself};
use super::run::{Begin, Run};
use super::saved::Saved;
use super::view::View;
use crate::config::{self, Rollout};
use crate::model::{Actor, Instant, Source, SplitName, rfc3339_ms};
use crate::notices::Notice;
use crate::state::{ApplyError, ChangeEvent, Snapshot, SplitState};

impl Controller {
    pub(super) async fn ask(&mut self, ask: Ask) {
        // Who asks must find what has happened before.
        self.catch_up().await;
        let is_frozen = self.ports.store.is_frozen();
        let (answer, result) = match ask {
            // A successor runs them from here on, or is about to.
            Ask::Start { answer, .. } | Ask::Command { answer, .. } if is_frozen => {
                (answer, Err(DeskError::Store(ApplyError::Frozen)))
            }
            Ask::Start { split, start, answer } => {
                let result = self.start(&split, start).await;
                (answer, result)
            }
            Ask::Command { split, command, dry_run, answer } => {
                let result = self.command(&split, command, dry_run).await;
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
        if !dry_run {
            self.advance(name, Event::Command(command)).await;
        }
        self.view(name).ok_or_else(|| DeskError::NoRollout(name.clone()))
    }

    async fn start(&mut self, name: &SplitName, start: Start) -> Result<Arc<View>, DeskError> {
        let split = self.known(name)?;
        if let Some(run) = self.runs.get(name) {
            let to = run.machine.plan().to.clone();
            return Err(DeskError::Running { split: name.clone(), to });
        }
        if let Some(wanted) = start.if_match.filter(|wanted| *wanted != split.revision) {
            let (split, now) = (name.clone(), split.revision);
            return Err(ApplyError::RevisionChanged { split, wanted, now }.into());
        }
        let (run, effects) = self.begin(&split, &start)?;
        if start.dry_run {
            return Ok(Arc::new(run.view(&split)));
        }
        self.runs.insert(name.clone(), run);
        if !self.note(name).await {
            // Nothing has been done yet, and nothing will be.
            self.runs.remove(name);
            return Err(DeskError::NotPersisted);
        }
        self.tell_start(name);
        let mut events = VecDeque::new();
        self.follow(name, effects, &mut events).await;
        while let Some(event) = events.pop_front() {
            self.advance(name, event).await;
        }
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
            self.saw_revision(name, event.revision);
            if !is_own && self.runs.contains_key(name) {
                self.foreign(&name.clone(), &event).await;
            }
        }
        if matches!(event.kind.as_str(), "reload" | "superseded") {
            self.auto_start().await;
        }
    }

    async fn foreign(&mut self, name: &SplitName, event: &ChangeEvent) {
        if let Some(left) = self.version_left(name) {
            return self.advance(name, left).await;
        }
        let news = match event.kind.as_str() {
            "rollback" => Event::RolledBack { by: event.by.clone(), reason: event.reason.clone() },
            "superseded" => Event::FileChangedWeights,
            _ => return,
        };
        self.advance(name, news).await;
    }

    fn version_left(&self, name: &SplitName) -> Option<Event> {
        let plan = self.runs.get(name)?.machine.plan();
        gone(self.split(name).as_deref(), plan)
    }

    /// After news that were missed: what they come to.
    pub(super) async fn look_around(&mut self) {
        let names: Vec<SplitName> = self.runs.keys().cloned().collect();
        for name in names {
            let found = self.runs.get(&name).and_then(|run| self.found(&name, &run.machine));
            if let Some(split) = self.split(&name) {
                self.saw_revision(&name, split.revision);
            }
            if let Some(event) = found {
                self.advance(&name, event).await;
            }
        }
        self.auto_start().await;
    }

    /// What has happened to the split besides what the rollout knows of.
    fn found(&self, name: &SplitName, machine: &Machine) -> Option<Event> {
        let split = self.split(name);
        if let Some(left) = gone(split.as_deref(), machine.plan()) {
            return Some(left);
        }
        let split = split?;
        let began = machine.id().0.parse::<ulid::Ulid>().map(|id| id.timestamp_ms()).unwrap_or_default();
        let began = rfc3339_ms(SystemTime::UNIX_EPOCH + std::time::Duration::from_millis(began));
        match split.override_.as_ref().filter(|held| held.hold && held.at > began) {
            Some(held) => Some(Event::RolledBack { by: held.by.clone(), reason: held.reason.clone() }),
            None => {
                let share = machine.in_force()?;
                let weights = share.weights(split.versions.iter().map(|version| &version.name));
                (!weights.same_as(&split.weights)).then_some(Event::FileChangedWeights)
            }
        }
    }

    /// Takes up what an earlier process has left.
    pub(super) async fn restore(&mut self) {
        let archive = self.archive.clone();
        let filed = tokio::task::spawn_blocking(move || archive.read()).await.unwrap_or_default();
        let snapshot = self.ports.store.snapshot();
        for split in &snapshot.splits {
            let Some(mark) = &split.rollout else { continue };
            let Some(progress) = mark.progress.clone() else { continue };
            let mine = filed.iter().find(|filed| filed.document.id == mark.id);
            self.restore_one(split, progress, mine).await;
        }
        let runs = |id: &str| self.runs.values().any(|run| run.machine.id().0 == id);
        self.past = filed.into_iter().map(|filed| filed.document).filter(|d| !runs(&d.id)).map(Arc::new).collect();
    }

    async fn restore_one(&mut self, split: &Arc<SplitState>, progress: serde_json::Value, filed: Option<&Filed>) {
        let times = (Instant::now(), self.clock.now());
        let restored = serde_json::from_value::<Saved>(progress).map_err(|why| why.to_string()).and_then(|saved| {
            let found = |machine: &Machine| self.found(&split.name, machine);
            Run::restore((saved, filed), found, &self.ports.cells, split, times)
        });
        match restored {
            Ok((run, effects)) => {
                let (id, state) = (run.machine.id().0.clone(), run.machine.state().as_str());
                tracing::info!(event = "rollout.restored", split = %split.name, rollout = id, state);
                self.runs.insert(split.name.clone(), run);
                let mut events = VecDeque::new();
                self.follow(&split.name, effects, &mut events).await;
                while let Some(event) = events.pop_front() {
                    self.advance(&split.name, event).await;
                }
            }
            Err(why) => {
                tracing::error!(event = "rollout.not_restored", split = %split.name, why,
                    "the weights stay as they are: roll back, or start it anew");
                self.give_up(&split.name).await;
            }
        }
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

fn gone(split: Option<&SplitState>, plan: &Plan) -> Option<Event> {
    let has =
        |version: &crate::model::VersionName| split.is_some_and(|split| split.version(version.as_str()).is_some());
    let left = [&plan.to, &plan.stable].into_iter().find(|version| !has(version))?;
    Some(Event::VersionLeft(left.clone()))
}
