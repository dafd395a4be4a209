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
use tokio::task::{JoinSet, spawn_blocking};

use super::archive::{Archive, Filed};
use super::clock::Clock;
use super::desk::{Ask, Board};
use super::document::Document;
use super::effect::Effect;
use super::event::Event;
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
    shown: Instant,
    filed: Instant,
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
            shown: now,
            filed: now,
        }
    }

    /// Takes up what an earlier process has left, then runs for ever.
    pub async fn run(mut self) {
        self.restore().await;
        self.auto_start().await;
        self.show();
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let is_idle = self.runs.is_empty();
            tokio::select! {
                biased;
                event = self.events.recv() => self.heard(event).await,
                Some(answered) = self.answers.recv() => self.answered(answered).await,
                Some(ask) = self.asked.recv() => self.ask(ask).await,
                Some(_) = self.asking.join_next() => {}
                _ = ticks.tick(), if !is_idle => self.tick().await,
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

    async fn tick(&mut self) {
        // A successor has all of it from here on, or is about to.
        if self.ports.store.is_frozen() {
            return;
        }
        let now = Instant::now();
        let splits: Vec<SplitName> = self.runs.keys().cloned().collect();
        for name in splits {
            let Some(split) = self.split(&name) else {
                // It has left the file, and nobody can be counted any more.
                self.close_gone(&name).await;
                continue;
            };
            self.retry(&name).await;
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
        if now.saturating_duration_since(self.filed) >= FILE {
            self.filed = now;
            let filed = self.runs.values().map(Run::filed).collect();
            self.file(filed, false).await;
        }
    }

    /// An event's way, and that of all that follow from it.
    pub(super) async fn advance(&mut self, name: &SplitName, event: Event) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            let moment = self.clock.now();
            let Some(run) = self.runs.get_mut(name) else { return };
            let effects = run.step(event, moment);
            self.follow(name, effects, &mut events).await;
        }
    }

    /// Carries effects out as far as the disk allows; what follows from them is added to `events`.
    pub(super) async fn follow(&mut self, name: &SplitName, effects: Vec<Effect>, events: &mut VecDeque<Event>) {
        let (at_once, later): (Vec<_>, Vec<_>) = effects.into_iter().partition(is_urgent);
        for effect in at_once {
            self.carry(name, effect, events).await;
        }
        if let Some(run) = self.runs.get_mut(name) {
            run.held.extend(later);
        }
        self.let_go(name, events).await;
    }

    /// Writes progress down, then carries out what has waited for it.
    async fn let_go(&mut self, name: &SplitName, events: &mut VecDeque<Event>) {
        if !self.note(name).await {
            return;
        }
        let held = self.runs.get_mut(name).map(|run| std::mem::take(&mut run.held)).unwrap_or_default();
        for effect in held {
            Box::pin(self.carry(name, effect, events)).await;
        }
        let is_over = self.runs.get(name).is_some_and(|run| run.machine.is_over() && run.noted == run.machine.turn());
        if is_over && events.is_empty() {
            Box::pin(self.forget(name)).await;
        }
    }

    /// What the disk refused, once more.
    async fn retry(&mut self, name: &SplitName) {
        let waits = self.runs.get(name).is_some_and(|run| run.noted != run.machine.turn() || !run.held.is_empty());
        if !waits {
            return;
        }
        let mut events = VecDeque::new();
        self.let_go(name, &mut events).await;
        while let Some(event) = events.pop_front() {
            Box::pin(self.advance(name, event)).await;
        }
    }

    /// Closes the receipt once the last request is in.
    async fn close(&mut self, name: &SplitName, now: Instant) {
        // As it is now: before a rollback the rollout's last coin was in force, and nothing would be waited for.
        let Some(split) = self.split(name) else { return };
        let Some(run) = self.runs.get_mut(name) else { return };
        let Some((seq, _)) = run.closing else { return };
        if run.may_close(&split, now) {
            self.close_now(name, seq).await;
        }
    }

    async fn close_gone(&mut self, name: &SplitName) {
        self.retry(name).await;
        let closing = self.runs.get(name).and_then(|run| run.closing);
        if let Some((seq, _)) = closing {
            self.close_now(name, seq).await;
        }
    }

    async fn close_now(&mut self, name: &SplitName, seq: u64) {
        let Some(run) = self.runs.get_mut(name) else { return };
        run.closing = None;
        run.books.ended_at = Some(std::time::SystemTime::now());
        let filed = run.filed();
        self.file(vec![filed], true).await;
        self.advance(name, Event::Done { seq }).await;
    }

    /// It is over: its document stays.
    async fn forget(&mut self, name: &SplitName) {
        let Some(run) = self.runs.remove(name) else { return };
        if let Some(split) = self.split(name) {
            let view = Arc::new(run.view(&split));
            let mut board = self.board.load().as_ref().clone();
            board.views.insert(name.clone(), view);
            self.board.store(Arc::new(board));
        }
        self.past.insert(0, Arc::new(run.document()));
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

    /// Writes receipts; a disk that refuses is told of, and holds nothing up.
    pub(super) async fn file(&self, filed: Vec<Filed>, is_final: bool) {
        let archive = self.archive.clone();
        let written = spawn_blocking(move || filed.iter().try_for_each(|one| archive.write(one, is_final))).await;
        if let Ok(Err(error)) = written {
            tracing::warn!(event = "receipt_not_written", %error, "will be tried again");
        }
    }

    pub(super) fn store(&self) -> Arc<Store> {
        self.ports.store.clone()
    }
}

fn is_urgent(effect: &Effect) -> bool {
    matches!(effect, Effect::Do { .. }) && !effect.waits_for_journal()
}
