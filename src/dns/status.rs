//! What is known of each name, for those who ask and for the tasks that find it out.
//!
//! Kept here and not in the tasks, so that a name that leaves the configuration and comes back goes on with its last good
//! answer. Invariant: only the one task of a name writes its entry.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::rule::{Failure, Known};
use super::supervisor::wanted;
use crate::config::{Config, NameTarget};
use crate::model::Instant;

/// Results of look-ups, as labels.
const RESULTS: [&str; 4] = ["answered", "empty", "timeout", "failed"];
/// Names remembered although nobody follows them; beyond it all of those are forgotten.
const REMEMBERED: usize = 1024;

/// How a name stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameState {
    /// Asked for the first time.
    Resolving,
    /// The newest answer told everything.
    Fresh,
    /// The newest answer did not; the last good one is in force.
    Stale,
    /// There has never been an address.
    Unresolved,
}

impl NameState {
    /// The word in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Resolving => "resolving",
            Self::Fresh => "fresh",
            Self::Stale => "stale",
            Self::Unresolved => "unresolved",
        }
    }
}

/// See `Statuses::of`.
#[derive(Clone, Debug)]
pub struct NameStatus {
    pub state: NameState,
    /// In force.
    pub addresses: usize,
    /// Since the last good answer; `None` if there was none.
    pub age: Option<Duration>,
    /// Why the newest answer was not good.
    pub error: Option<String>,
}

/// See the file's head. Clones are one.
#[derive(Clone, Debug, Default)]
pub struct Statuses(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    known: Mutex<BTreeMap<NameTarget, Entry>>,
    lookups: [AtomicU64; 4],
    /// Woken when a name was asked for the first time.
    asked: Notify,
}

#[derive(Debug)]
struct Entry {
    known: Known,
    is_asked: bool,
    is_followed: bool,
    since: Instant,
}

impl Statuses {
    /// How a name stands; `None`: nobody has asked for it yet.
    pub fn of(&self, name: &NameTarget) -> Option<NameStatus> {
        self.known().get(name).map(|entry| entry.status(Instant::now()))
    }

    /// For how long each name that is followed has gone without a good answer; zero while its newest is good.
    pub fn stale(&self) -> Vec<(NameTarget, Duration)> {
        let now = Instant::now();
        let known = self.known();
        let followed = known.iter().filter(|(_, entry)| entry.is_followed);
        followed.map(|(name, entry)| (name.clone(), entry.stale(now))).collect()
    }

    /// Look-ups since the start, by result.
    pub fn lookups(&self) -> Vec<(&'static str, u64)> {
        RESULTS.iter().zip(&self.0.lookups).map(|(word, n)| (*word, n.load(Ordering::Relaxed))).collect()
    }

    /// Waits until every name of a configuration has been asked for once and what came of it is in force. Cancel safe.
    pub async fn all_asked(&self, config: &Config) {
        let is_asked = |name: &NameTarget| self.known().get(name).is_some_and(|entry| entry.is_asked);
        loop {
            // Registered before the look, so that a wake between look and wait is not lost.
            let asked = self.0.asked.notified();
            tokio::pin!(asked);
            asked.as_mut().enable();
            if wanted(config).keys().all(is_asked) {
                return;
            }
            asked.await;
        }
    }

    pub(super) fn follow(&self, name: &NameTarget) {
        let mut known = self.known();
        if known.len() >= REMEMBERED {
            known.retain(|_, entry| entry.is_followed);
        }
        let new = || Entry { known: Known::default(), is_asked: false, is_followed: true, since: Instant::now() };
        known.entry(name.clone()).or_insert_with(new).is_followed = true;
    }

    pub(super) fn leave(&self, name: &NameTarget) {
        if let Some(entry) = self.known().get_mut(name) {
            entry.is_followed = false;
        }
    }

    /// Changes what is known of a name by its newest answer.
    pub(super) fn update<T>(&self, name: &NameTarget, change: impl FnOnce(&mut Known) -> T) -> Option<T> {
        let mut known = self.known();
        let entry = known.get_mut(name)?;
        let done = change(&mut entry.known);
        let word = entry.known.failure.as_ref().map_or(RESULTS[0], Failure::word);
        for (_, count) in RESULTS.iter().zip(&self.0.lookups).filter(|(known, _)| **known == word) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        Some(done)
    }

    /// What came of the newest answer is in force. Before the first is, a name is still resolving, whatever is known of
    /// it: who waits for it will send requests.
    pub(super) fn in_force(&self, name: &NameTarget) {
        let is_first = self.known().get_mut(name).is_some_and(|entry| !std::mem::replace(&mut entry.is_asked, true));
        if is_first {
            self.0.asked.notify_waiters();
        }
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<NameTarget, Entry>> {
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    fn status(&self, now: Instant) -> NameStatus {
        let addresses = self.known.addresses.len();
        let state = match &self.known.failure {
            _ if !self.is_asked => NameState::Resolving,
            None => NameState::Fresh,
            Some(_) if addresses > 0 => NameState::Stale,
            Some(_) => NameState::Unresolved,
        };
        NameStatus {
            state,
            addresses,
            age: self.known.good_at.map(|at| now.saturating_duration_since(at)),
            error: self.known.failure.as_ref().map(ToString::to_string),
        }
    }

    fn stale(&self, now: Instant) -> Duration {
        match &self.known.failure {
            Some(_) => now.saturating_duration_since(self.known.good_at.unwrap_or(self.since)),
            None => Duration::ZERO,
        }
    }
}
