//! All cells of the process: handed to workers when they build their view, collected once a second.
//!
//! A reload gives new keys (an epoch, a route, a listener) and the old cells go on counting what is still in flight.
//! When the registry is a cell's last holder nothing can be added any more: it is read once more and dropped.
//!
//! Invariant: "last holder" is established before the last reading, with acquire ordering, and under the lock that
//! could hand the cell out again; so that reading is complete.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::atomic::{Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use indexmap::IndexSet;

use super::bins::bin_of;
use super::cells::{Additive, Cell, CodeCell, CodeCounts, ListenerCell, ListenerCounts, VersionCell, VersionCounts};
use super::watch::Counter;
use crate::model::{Instant, ListenerName, RouteName, SplitName, VersionName};

pub(super) type VersionKey = (SplitName, VersionName);
/// Split, rule, version.
pub(super) type RuleKey = (SplitName, String, VersionName);
pub(super) type RequestKey = (RouteName, SplitName, VersionName);
pub(super) type ResponseKey = (RouteName, SplitName);

/// Cells of rules have epochs from here on; those of weights count up from 0 and never come so far.
pub const RULE_EPOCHS: u64 = 1 << 63;

/// See the file's head. Shared behind an `Arc`; one per running weir.
#[derive(Debug)]
pub struct Cells {
    /// When bins of watched splits begin to be numbered.
    origin: Instant,
    /// Splits that a rollout looks at, and since when. Locked after `versions`.
    watched: Mutex<HashMap<SplitName, Instant>>,
    versions: Mutex<Shelf<(usize, VersionKey, u64), VersionCell>>,
    /// Rules ever named, each by its place for good: `RULE_EPOCHS` and its place are its epoch. Locked before `versions`.
    rules: Mutex<IndexSet<(SplitName, String)>>,
    requests: Mutex<Shelf<(usize, RequestKey), CodeCell>>,
    responses: Mutex<Shelf<(usize, ResponseKey), CodeCell>>,
    listeners: Mutex<Shelf<(usize, ListenerName), ListenerCell>>,
}

impl Default for Cells {
    fn default() -> Self {
        Self {
            origin: Instant::now(),
            watched: Mutex::default(),
            versions: Mutex::default(),
            rules: Mutex::default(),
            requests: Mutex::default(),
            responses: Mutex::default(),
            listeners: Mutex::default(),
        }
    }
}

impl Cells {
    pub fn new() -> Self {
        Self::default()
    }

    /// The cell for a version in a weight epoch. The same key gives the same cell; only `worker`'s thread may record.
    pub fn version(&self, worker: usize, split: &SplitName, version: &VersionName, epoch: u64) -> Arc<VersionCell> {
        let mut versions = lock(&self.versions);
        let cell = versions.cell((worker, (split.clone(), version.clone()), epoch));
        if let Some(since) = lock(&self.watched).get(split) {
            cell.watch(self.origin, *since, epoch < RULE_EPOCHS);
        }
        cell
    }

    /// The cell for what a rule sends to a version; it counts in no analysis.
    pub fn rule(&self, worker: usize, split: &SplitName, version: &VersionName, rule: &str) -> Arc<VersionCell> {
        let (place, _) = lock(&self.rules).insert_full((split.clone(), rule.to_owned()));
        self.version(worker, split, version, RULE_EPOCHS + place as u64)
    }

    /// Counts the split's requests by their start, from `since` on.
    pub(super) fn watch(&self, split: &SplitName, since: Instant) {
        let versions = lock(&self.versions);
        lock(&self.watched).insert(split.clone(), since);
        versions.of_split(split).for_each(|((.., epoch), cell)| cell.watch(self.origin, since, *epoch < RULE_EPOCHS));
    }

    pub(super) fn unwatch(&self, split: &SplitName) {
        let versions = lock(&self.versions);
        lock(&self.watched).remove(split);
        // Their coin may be in force for weeks.
        versions.of_split(split).filter_map(|(_, cell)| cell.watched()).for_each(|watched| watched.turn(false));
    }

    /// The cells of a split, each with who counts in it.
    pub(super) fn of_split(&self, split: &SplitName) -> Vec<(Counter, Arc<VersionCell>)> {
        let name = |(worker, (_, version), epoch): &(usize, VersionKey, u64)| (*worker, version.clone(), *epoch);
        lock(&self.versions).of_split(split).map(|(key, cell)| (name(key), cell.clone())).collect()
    }

    /// The bin a moment is in; what is before the first is in the first.
    pub(super) fn bin(&self, at: Instant) -> u64 {
        bin_of(self.origin, at).unwrap_or_default()
    }

    /// `weir_requests_total`: first attempts, on the books of the version the coin chose.
    pub fn requests(
        &self,
        worker: usize,
        route: &RouteName,
        split: &SplitName,
        version: &VersionName,
    ) -> Arc<CodeCell> {
        lock(&self.requests).cell((worker, (route.clone(), split.clone(), version.clone())))
    }

    /// `weir_responses_total`: what clients got.
    pub fn responses(&self, worker: usize, route: &RouteName, split: &SplitName) -> Arc<CodeCell> {
        lock(&self.responses).cell((worker, (route.clone(), split.clone())))
    }

    /// Connections and refused requests of a listener.
    pub fn listener(&self, worker: usize, listener: &ListenerName) -> Arc<ListenerCell> {
        lock(&self.listeners).cell((worker, listener.clone()))
    }

    /// What came since the last call, summed over workers and epochs. One collector only: it takes the differences.
    pub(super) fn collect(&self) -> Collected {
        let mut sums = Collected::default();
        // First, since they are written last: a request is never counted before what came of it.
        lock(&self.requests).collect(|(_, key), counts| sums.requests.entry(key.clone()).or_default().add(counts));
        let rules = lock(&self.rules);
        lock(&self.versions).collect(|(_, key, epoch), counts| {
            sums.versions.entry(key.clone()).or_default().add(counts);
            let place = epoch.checked_sub(RULE_EPOCHS).and_then(|place| usize::try_from(place).ok());
            if let Some((split, rule)) = place.and_then(|place| rules.get_index(place)) {
                let key = (split.clone(), rule.clone(), key.1.clone());
                sums.rules.entry(key).or_default().add(counts);
            }
        });
        drop(rules);
        lock(&self.responses).collect(|(_, key), counts| sums.responses.entry(key.clone()).or_default().add(counts));
        lock(&self.listeners).collect(|(_, key), counts| sums.listeners.entry(key.clone()).or_default().add(counts));
        sums
    }
}

/// Sums of one second.
#[derive(Debug, Default)]
pub(super) struct Collected {
    pub(super) versions: HashMap<VersionKey, VersionCounts>,
    /// What of it rules have sent.
    pub(super) rules: HashMap<RuleKey, VersionCounts>,
    pub(super) requests: HashMap<RequestKey, CodeCounts>,
    pub(super) responses: HashMap<ResponseKey, CodeCounts>,
    pub(super) listeners: HashMap<ListenerName, ListenerCounts>,
}

/// Cells of one kind.
#[derive(Debug)]
struct Shelf<K, C: Cell>(HashMap<K, Slot<C>>);

#[derive(Debug, Default)]
struct Slot<C: Cell> {
    cell: Arc<C>,
    /// The last reading.
    seen: C::Counts,
}

impl<K, C: Cell> Default for Shelf<K, C> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl Shelf<(usize, VersionKey, u64), VersionCell> {
    fn of_split<'a>(
        &'a self,
        split: &'a SplitName,
    ) -> impl Iterator<Item = (&'a (usize, VersionKey, u64), &'a Arc<VersionCell>)> {
        self.0.iter().filter(move |((_, (of, _), _), _)| of == split).map(|(key, slot)| (key, &slot.cell))
    }
}

impl<K: Hash + Eq, C: Cell> Shelf<K, C> {
    fn cell(&mut self, key: K) -> Arc<C> {
        Arc::clone(&self.0.entry(key).or_default().cell)
    }

    fn collect(&mut self, mut take: impl FnMut(&K, &C::Counts)) {
        self.0.retain(|key, slot| {
            // Not `get_mut`: a watch may remember by a weak one what it has let go. The fence acquires what the last
            // holder wrote before letting go.
            let is_last_holder = Arc::strong_count(&slot.cell) == 1;
            fence(Ordering::Acquire);
            let now = slot.cell.read();
            take(key, &now.since(&slot.seen));
            slot.seen = now;
            !is_last_holder
        });
    }
}

/// A poisoned lock still guards whole values: no step between lock and unlock leaves half a change.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::telemetry::{Counted, Finish};

    fn good() -> Finish {
        Finish {
            latency: Duration::from_millis(2),
            first_byte: None,
            bad: false,
            bytes_in: 0,
            bytes_out: 0,
            code: 200,
            began: Instant::now(),
            age: Duration::ZERO,
            watched: Counted::No,
        }
    }

    fn names() -> (SplitName, VersionName) {
        (SplitName::new("shop").unwrap(), VersionName::new("v1").unwrap())
    }

    #[test]
    fn workers_and_epochs_add_up_and_left_cells_are_dropped_with_their_last_count() {
        let (cells, (split, version)) = (Cells::new(), names());
        let old = cells.version(0, &split, &version, 1);
        let other = cells.version(1, &split, &version, 1);
        old.finish(&good());
        other.finish(&good());
        assert_eq!(cells.collect().versions[&names()].all, 2);

        let new = cells.version(0, &split, &version, 2);
        old.finish(&good());
        new.finish(&good());
        drop(old);
        assert_eq!(cells.collect().versions[&names()].all, 2);
        assert_eq!(lock(&cells.versions).0.len(), 2);
        assert_eq!(cells.collect().versions[&names()].all, 0);
        drop((new, other));
        cells.collect();
        assert!(lock(&cells.versions).0.is_empty());
        assert!(cells.collect().versions.is_empty());
    }

    #[test]
    fn what_a_rule_sends_counts_for_the_version_and_for_the_rule() {
        let (cells, (split, version)) = (Cells::new(), names());
        let other = SplitName::new("cart").unwrap();
        let (beta, late) = (cells.rule(0, &split, &version, "beta"), cells.rule(0, &split, &version, "late"));
        let elsewhere = cells.rule(0, &other, &version, "beta");
        assert!(Arc::ptr_eq(&beta, &cells.rule(0, &split, &version, "beta")) && !Arc::ptr_eq(&beta, &late));
        let second = cells.rule(1, &split, &version, "beta");
        for cell in [&beta, &second, &late, &elsewhere, &cells.version(0, &split, &version, 1)] {
            cell.finish(&good());
        }
        let came = cells.collect();
        assert_eq!(came.versions[&names()].all, 4);
        let of = |split: &SplitName, rule: &str| came.rules[&(split.clone(), rule.to_owned(), version.clone())].all;
        assert_eq!((of(&split, "beta"), of(&split, "late"), of(&other, "beta"), came.rules.len()), (2, 1, 1, 3));
    }

    #[test]
    fn the_same_key_is_the_same_cell() {
        let (cells, (split, version)) = (Cells::new(), names());
        let route = RouteName::new("r").unwrap();
        let (a, b) = (cells.requests(0, &route, &split, &version), cells.requests(0, &route, &split, &version));
        assert!(Arc::ptr_eq(&a, &b));
        assert!(!Arc::ptr_eq(&a, &cells.requests(1, &route, &split, &version)));
    }

    #[test]
    fn nothing_is_lost_while_workers_come_and_go() {
        const ROUNDS: u64 = 2000;
        let cells = Arc::new(Cells::new());
        let workers = (0..2).map(|worker| {
            let cells = Arc::clone(&cells);
            std::thread::spawn(move || {
                let (split, version) = names();
                for epoch in 0..ROUNDS {
                    let cell = cells.version(worker, &split, &version, epoch / 10);
                    cell.finish(&good());
                }
            })
        });
        let workers = workers.collect::<Vec<_>>();
        let mut all = 0;
        while !workers.iter().all(|w| w.is_finished()) {
            all += cells.collect().versions.get(&names()).map_or(0, |counts| counts.all);
        }
        workers.into_iter().for_each(|w| w.join().unwrap());
        all += cells.collect().versions.get(&names()).map_or(0, |counts| counts.all);
        assert_eq!(all, 2 * ROUNDS);
        assert!(lock(&cells.versions).0.is_empty());
    }
}
