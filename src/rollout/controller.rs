//! The task that runs all rollouts: it looks, hears, writes down, and carries out what the machines order.
//!
//! Every ten milliseconds it asks each rollout whether a look is due. An event's way is: the machine's step, its progress
//! on disk if its turn has risen, then its effects in their order; a rollback does not wait for the disk. An order that
//! finds another revision than the last one seen is not carried out: what happened to the split is heard first.
//!
//! Invariant: what a person was told ("started", "promoted") is on disk, or they were told that it is not. Cancel safe
//! between events: what was ordered and not reported done is in the outbox that is on disk.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::broadcast::Receiver;
use tokio::sync::{broadcast::error::RecvError, mpsc};
use tokio::task::{JoinHandle, JoinSet};

use super::archive::{Archive, KEPT};
use super::clock::Clock;
use super::desk::{Ask, Board};
use super::document::Document;
use super::effect::Effect;
use super::event::Event;
use super::machine::RolloutId;
use super::ports::Ports;
use super::run::Run;
use super::view::View;
use crate::checks::Finding;
use crate::model::{CheckName, Instant, SplitName};
use crate::state::{ChangeEvent, SplitState, Store};

/// How often it is asked whether a look is due.
const TICK: Duration = Duration::from_millis(10);
/// How often what can be looked at is made anew, and evidence written.
const SHOW: Duration = Duration::from_millis(250);
const FILE: Duration = Duration::from_secs(1);
/// How often what the disk, or the store, has refused is tried again.
pub(super) const RETRY: Duration = Duration::from_millis(500);

/// See the file's head.
pub struct Controller {
    pub(super) ports: Ports,
    pub(super) runs: BTreeMap<SplitName, Run>,
    pub(super) archive: Archive,
    /// Of rollouts that are over, newest first.
    pub(super) past: Vec<Arc<Document>>,
    board: Arc<ArcSwap<Board>>,
    asked: mpsc::Receiver<Ask>,
    events: Receiver<ChangeEvent>,
    answers: mpsc::UnboundedReceiver<Answered>,
    pub(super) answer: mpsc::UnboundedSender<Answered>,
    /// Checks that are being asked; with the controller they end.
    pub(super) asking: JoinSet<()>,
    /// Orders of ours; what they changed is no news. By id.
    pub(super) own: HashSet<String>,
    pub(super) clock: Clock,
    /// The disk is at what was filed last.
    pub(super) filing: Option<JoinHandle<bool>>,
    shown: Instant,
    /// `None`: something has happened that should be on disk soon.
    pub(super) filed: Option<Instant>,
}

/// A check's answer to a question of a rollout.
#[derive(Debug)]
pub(super) struct Answered {
    pub(super) rollout: String,
    pub(super) split: SplitName,
    pub(super) check: CheckName,
    pub(super) question: u64,
    pub(super) finding: Finding,
}

impl std::fmt::Debug for Controller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Controller").field("runs", &self.runs.keys()).finish_non_exhaustive()
    }
}

impl Controller {
    /// Nothing runs yet. `asked` and `board` are the desk's.
    pub fn new(ports: Ports, asked: mpsc::Receiver<Ask>, board: Arc<ArcSwap<Board>>) -> Self {
        let (answer, answers) = mpsc::unbounded_channel();
        let snapshot = ports.store.snapshot();
        let dir = snapshot.persisted.then(|| snapshot.config.admin.state_dir.clone());
        let (events, now) = (ports.store.subscribe(), Instant::now());
        Self {
            archive: Archive::open(dir.as_deref()),
            ports,
            runs: BTreeMap::new(),
            past: Vec::new(),
            board,
            asked,
            events,
            answers,
            answer,
            asking: JoinSet::new(),
            own: HashSet::new(),
            clock: Clock::new(),
            filing: None,
            shown: now,
            filed: Some(now),
        }
    }

    /// Takes up what an earlier process has left: from then on the board knows of it. Once, before `run`. Not cancel safe.
    pub async fn take_up(&mut self) {
        self.restore().await;
        self.show();
    }

    /// Runs for ever.
    pub async fn run(mut self) {
        Box::pin(self.auto_start()).await;
        self.show();
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let is_idle = self.runs.is_empty();
            tokio::select! {
                biased;
                event = self.events.recv() => self.heard(event).await,
                Some(answered) = self.answers.recv() => self.answered(answered).await,
                Some(ask) = self.asked.recv() => Box::pin(self.ask(ask)).await,
                Some(_) = self.asking.join_next() => {}
                _ = ticks.tick(), if !is_idle => Box::pin(self.tick()).await,
            }
        }
    }

    async fn heard(&mut self, event: Result<ChangeEvent, RecvError>) {
        match event {
            Ok(event) => self.news(event).await,
            // Too many at once: what they come to is in the snapshot.
            Err(RecvError::Lagged(_)) => self.look_around().await,
            Err(RecvError::Closed) => std::future::pending().await,
        }
    }

    /// Everything that has been published so far.
    pub(super) async fn catch_up(&mut self) {
        while let Ok(event) = self.events.try_recv() {
            self.news(event).await;
        }
    }

    async fn answered(&mut self, answered: Answered) {
        let Answered { rollout, split, check, question, finding } = answered;
        if let Some(run) = self.runs.get_mut(&split).filter(|run| run.machine.id().0 == rollout) {
            let answer = finding.answer.clone();
            run.heard(&check, finding);
            self.advance(&split, Event::Answered { check, question, answer }).await;
        }
    }

    pub(super) async fn tick(&mut self) {
        // A successor has all of it from here on, or is about to.
        if self.ports.store.is_frozen() {
            return;
        }
        let now = Instant::now();
        for name in self.names() {
            let Some(split) = self.split(&name) else {
                // It has left the file, and nobody can be counted any more.
                self.close_gone(&name).await;
                continue;
            };
            self.retry(&name).await;
            if self.is_lost(&name, &split) {
                self.lost(&name).await;
            }
            let per_second = self.ports.windows.rate(&name);
            let event = self.runs.get_mut(&name).and_then(|run| run.tick(&split, per_second, now));
            if let Some(event) = event {
                self.advance(&name, event).await;
            }
            self.close(&name, now).await;
        }
        if now.saturating_duration_since(self.shown) >= SHOW {
            self.show();
        }
        if self.filed.is_none_or(|at| now.saturating_duration_since(at) >= FILE) {
            self.filed = Some(now);
            self.file_running();
        }
    }

    /// An event's way, and that of all that follow from it.
    pub(super) async fn advance(&mut self, name: &SplitName, event: Event) {
        if let Some(id) = self.id(name) {
            self.take_in(name, &id, VecDeque::from([event])).await;
        }
    }

    /// `advance` for several, of this rollout only: another one may have begun in its place meanwhile.
    pub(super) async fn take_in(&mut self, name: &SplitName, id: &RolloutId, mut events: VecDeque<Event>) {
        while let Some(event) = events.pop_front() {
            let moment = self.clock.now();
            let Some(run) = self.runs.get_mut(name).filter(|run| run.machine.id() == id) else { return };
            let effects = run.step(event, moment);
            self.follow(name, effects, &mut events).await;
        }
    }

    pub(super) fn id(&self, name: &SplitName) -> Option<RolloutId> {
        self.runs.get(name).map(|run| run.machine.id().clone())
    }

    pub(super) fn names(&self) -> Vec<SplitName> {
        self.runs.keys().cloned().collect()
    }

    /// Carries effects out as far as the disk allows; what follows from them is added to `events`.
    pub(super) async fn follow(&mut self, name: &SplitName, effects: Vec<Effect>, events: &mut VecDeque<Event>) {
        let id = self.id(name);
        let (at_once, later): (Vec<_>, Vec<_>) = effects.into_iter().partition(is_urgent);
        if let Some(run) = self.runs.get_mut(name) {
            run.held.extend(later);
        }
        for effect in at_once.into_iter().take_while(|_| id.is_some()) {
            if self.id(name) == id {
                self.carry(name, effect, events).await;
            }
        }
        self.let_go(name, events).await;
    }

    /// Writes progress down, then carries out what has waited for it.
    async fn let_go(&mut self, name: &SplitName, events: &mut VecDeque<Event>) {
        let id = self.id(name);
        while self.id(name) == id && self.note(name).await {
            let next = self.runs.get_mut(name).and_then(|run| run.held.pop_front());
            let Some(effect) = next else { break };
            Box::pin(self.carry(name, effect, events)).await;
        }
        let is_over = self.runs.get(name).is_some_and(|run| run.machine.is_over() && run.noted == run.machine.turn());
        if is_over && self.id(name) == id && events.is_empty() {
            Box::pin(self.forget(name)).await;
        }
    }

    /// What the disk refused, once more.
    pub(super) async fn retry(&mut self, name: &SplitName) {
        let Some(run) = self.runs.get_mut(name) else { return };
        let waits = run.noted != run.machine.turn() || !run.held.is_empty() || !run.stalled.is_empty();
        if !waits {
            return;
        }
        let stalled = std::mem::take(&mut run.stalled);
        let Some(id) = self.id(name) else { return };
        let mut events = VecDeque::new();
        self.follow(name, stalled, &mut events).await;
        Box::pin(self.take_in(name, &id, events)).await;
    }

    /// The split has left the file and come back: what was remembered of it is gone.
    fn is_lost(&self, name: &SplitName, split: &SplitState) -> bool {
        let Some(run) = self.runs.get(name).filter(|run| !run.machine.state().is_end() && run.noted > 0) else {
            return false;
        };
        split.rollout.as_ref().is_none_or(|mark| mark.id != run.machine.id().0)
    }

    async fn lost(&mut self, name: &SplitName) {
        // It may be told already.
        self.catch_up().await;
        let to = self.runs.get(name).map(|run| run.machine.plan().to.clone());
        if let Some(to) = to.filter(|_| self.split(name).is_some_and(|split| self.is_lost(name, &split))) {
            self.advance(name, Event::VersionLeft(to)).await;
        }
    }

    /// It is over: its document stays.
    pub(super) async fn forget(&mut self, name: &SplitName) {
        let Some(run) = self.runs.remove(name) else { return };
        if let Some(split) = self.split(name) {
            let view = Arc::new(run.view(&split));
            let mut board = self.board.load().as_ref().clone();
            board.views.insert(name.clone(), view);
            self.board.store(Arc::new(board));
        }
        self.past.insert(0, Arc::new(run.document()));
        self.past.truncate(KEPT);
        drop(run);
        self.show();
        self.auto_start_one(name).await;
    }

    pub(super) fn split(&self, name: &SplitName) -> Option<Arc<SplitState>> {
        self.ports.store.snapshot().split(name.as_str()).cloned()
    }

    pub(super) fn last_view(&self, name: &SplitName) -> Option<Arc<View>> {
        self.board.load().views.get(name).cloned()
    }

    pub(super) fn show(&mut self) {
        self.shown = Instant::now();
        let mut board = Board { views: self.board.load().views.clone(), documents: Vec::new() };
        for (name, run) in &self.runs {
            if let Some(split) = self.split(name) {
                board.views.insert(name.clone(), Arc::new(run.view(&split)));
            }
            board.documents.push(Arc::new(run.document()));
        }
        board.documents.extend(self.past.iter().cloned());
        self.board.store(Arc::new(board));
    }

    pub(super) fn store(&self) -> Arc<Store> {
        self.ports.store.clone()
    }
}

/// A rollback, and what is of this process only.
fn is_urgent(effect: &Effect) -> bool {
    match effect {
        Effect::Do { .. } => !effect.waits_for_journal(),
        Effect::EnterStep(_) => true,
        Effect::Ask { .. } | Effect::Log { .. } => false,
    }
}
