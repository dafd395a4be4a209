//! What is written of rollouts besides their decisions: receipts in the making, evidence, the step's clock; and how a
//! receipt is closed.
//!
//! Invariants: a rollout is forgotten only when its last receipt is on disk (or somebody begins the next one); a slow
//! disk holds up no look, since the regular filing is not waited for.

use std::time::SystemTime;

use tokio::task::{JoinHandle, spawn_blocking};

use super::archive::{Archive, Filed};
use super::controller::{Controller, RETRY};
use super::event::Event;
use super::run::Run;
use crate::model::{Instant, SplitName};

impl Controller {
    /// Files all that run, unless the disk is still at the last ones.
    pub(super) fn file_running(&mut self) {
        if self.filing.as_ref().is_some_and(|filing| !filing.is_finished()) {
            return;
        }
        let filed = self.all_filed();
        self.filing = Some(write(self.archive.clone(), filed, false));
    }

    /// True if it is on disk; then it is whole.
    pub(super) async fn file(&mut self, filed: Vec<Filed>, is_final: bool) -> bool {
        // They have their temporary names in common.
        if let Some(filing) = self.filing.take() {
            let _ = filing.await;
        }
        write(self.archive.clone(), filed, is_final).await.unwrap_or(false)
    }

    /// Everything that is known up to now, for a successor.
    pub(super) async fn park(&mut self) {
        let now = Instant::now();
        for name in self.names() {
            let per_second = self.ports.windows.rate(&name);
            if let (Some(split), Some(run)) = (self.split(&name), self.runs.get_mut(&name)) {
                run.learn(&split, per_second, now);
            }
        }
        let filed = self.all_filed();
        self.file(filed, false).await;
    }

    /// With all that is counted by now: a gap begins when it was filed.
    pub(super) fn all_filed(&mut self) -> Vec<Filed> {
        let (snapshot, now) = (self.ports.store.snapshot(), Instant::now());
        for (name, run) in &mut self.runs {
            if let Some(split) = snapshot.split(name.as_str()) {
                run.count(split, now);
            }
        }
        self.runs.values().map(Run::filed).collect()
    }

    /// Closes the receipt once the last request is in.
    pub(super) async fn close(&mut self, name: &SplitName, now: Instant) {
        // As it is now: before a rollback the rollout's last coin was in force, and nothing would be waited for.
        let Some(split) = self.split(name) else { return };
        let Some(run) = self.runs.get_mut(name) else { return };
        let Some((seq, _)) = run.closing else { return };
        if run.may_close(&split, now) {
            self.close_now(name, seq, false).await;
        }
    }

    /// Of a split that has left the file: nobody can be counted there, and nothing set.
    pub(super) async fn close_gone(&mut self, name: &SplitName) {
        self.retry(name).await;
        let Some(run) = self.runs.get(name) else { return };
        match run.closing {
            Some((seq, _)) => self.close_now(name, seq, false).await,
            None if run.machine.state().is_end() && run.noted == run.machine.turn() => self.forget(name).await,
            None => {}
        }
    }

    /// `is_forced`: also if the disk refuses the receipt.
    pub(super) async fn close_now(&mut self, name: &SplitName, seq: u64, is_forced: bool) {
        let Some(run) = self.runs.get_mut(name) else { return };
        let now = Instant::now();
        if !is_forced && run.unfiled.is_some_and(|at| now.saturating_duration_since(at) < RETRY) {
            return;
        }
        run.books.ended_at = Some(SystemTime::now());
        let filed = run.filed();
        let is_filed = self.file(vec![filed], true).await;
        let Some(run) = self.runs.get_mut(name) else { return };
        if !is_filed && !is_forced {
            (run.books.ended_at, run.unfiled) = (None, Some(now));
            return;
        }
        run.closing = None;
        self.advance(name, Event::Done { seq }).await;
    }
}

/// A disk that refuses is told of, and tried again with the next ones.
fn write(archive: Archive, filed: Vec<Filed>, is_final: bool) -> JoinHandle<bool> {
    spawn_blocking(move || {
        let written = filed.iter().try_for_each(|one| archive.write(one, is_final));
        written
            .inspect_err(|error| tracing::warn!(event = "receipt_not_written", %error, "will be tried again"))
            .is_ok()
    })
}
