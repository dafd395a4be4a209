//! A split that a rollout looks at: what is new of its versions, by worker, epoch and the moment requests began.
//!
//! Invariant: while it is watched no cell of the split goes before its last count has been given out, and none is given
//! out twice; a cell that only the watch holds is read once more and let go.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{Ordering, fence};
use std::sync::{Arc, Weak};

use super::bins::BinReader;
use super::cells::{Cell as _, VersionCell};
use super::registry::Cells;
use crate::analysis::{BUCKETS, BinCounts, Buckets};
use crate::model::{Cause, Instant, SplitName, VersionName};

/// Counts of requests that began in one bin.
#[derive(Clone, Debug)]
pub struct Came {
    pub version: VersionName,
    pub epoch: u64,
    /// Since the process began to count; see `Watch::bin`.
    pub bin: u64,
    pub new: BinCounts,
}

/// Everything that one worker has counted of a version in an epoch. Only rises.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    /// First attempts by status.
    pub statuses: BTreeMap<u16, u64>,
    /// Failed attempts.
    pub causes: Vec<(Cause, u64)>,
    pub retried: u64,
    pub rescued: u64,
    pub spilled: u64,
    pub cut: u64,
}

/// Who counted: worker, version, epoch.
pub type Counter = (usize, VersionName, u64);

/// See the file's head. Dropping it ends the watch.
#[derive(Debug)]
pub struct Watch {
    cells: Arc<Cells>,
    split: SplitName,
    held: HashMap<Counter, Held>,
    /// Let go, but the registry has them until it is next read: what was given out of each.
    left: HashMap<Counter, (Weak<VersionCell>, BinReader)>,
}

#[derive(Debug)]
struct Held {
    cell: Arc<VersionCell>,
    reader: BinReader,
}

impl Watch {
    /// Requests that begin from now on are counted by their start.
    pub fn begin(cells: Arc<Cells>, split: SplitName, now: Instant) -> Self {
        cells.watch(&split, now);
        let mut watch = Self { cells, split, held: HashMap::new(), left: HashMap::new() };
        // What earlier watches have seen is none of ours.
        watch.take(now, |_| ());
        watch
    }

    /// The bin a moment is in.
    pub fn bin(&self, at: Instant) -> u64 {
        self.cells.bin(at)
    }

    /// What is new. Call it at least every six seconds.
    pub fn take(&mut self, now: Instant, mut give: impl FnMut(Came)) {
        self.find_new();
        for ((_, version, epoch), held) in &mut self.held {
            let Some(watched) = held.cell.watched() else { continue };
            held.reader.take(watched, now, |bin, new| give(Came { version: version.clone(), epoch: *epoch, bin, new }));
        }
    }

    /// Latencies of a version's failures that are new since the last call, as far as they were counted by start.
    pub fn take_failures(&mut self, version: &VersionName) -> Buckets {
        let mut sum = [0; BUCKETS];
        for (_, held) in self.held.iter_mut().filter(|((_, of, _), _)| of == version) {
            if let Some(watched) = held.cell.watched() {
                held.reader.take_failures(watched, &mut sum);
            }
        }
        sum
    }

    fn find_new(&mut self) {
        let mut left = HashMap::new();
        for (counter, cell) in self.cells.of_split(&self.split) {
            if self.held.contains_key(&counter) {
                continue;
            }
            let known = self.left.remove(&counter).filter(|(known, _)| known.as_ptr() == Arc::as_ptr(&cell));
            match known {
                // The registry and we, as when it was let go.
                Some(known) if Arc::strong_count(&cell) <= 2 => drop(left.insert(counter, known)),
                known => {
                    let reader = known.map(|(_, reader)| reader).unwrap_or_default();
                    self.held.insert(counter, Held { cell, reader });
                }
            }
        }
        // Of the others the registry knows nothing any more.
        self.left = left;
    }

    /// Failures of a version so far, cheaply: when it rises, a look is worth while.
    pub fn failures(&self, version: &VersionName) -> u64 {
        let mine = self.held.iter().filter(|((_, of, _), _)| of == version);
        mine.fold(0, |sum, (_, held)| sum.wrapping_add(held.cell.failures()))
    }

    /// Everything that was counted since the cells began. Cells that nobody counts in any more are let go: what is given
    /// of them now is the last.
    pub fn totals(&mut self, mut give: impl FnMut(&Counter, Totals)) {
        let mut left = Vec::new();
        for (counter, held) in &self.held {
            // The registry and we: nobody writes to it any more, and the acquiring look comes before the last reading.
            let is_left = Arc::strong_count(&held.cell) <= 2;
            fence(Ordering::Acquire);
            give(counter, totals(&held.cell));
            if is_left {
                left.push(counter.clone());
            }
        }
        for counter in left {
            let Some(Held { cell, reader }) = self.held.remove(&counter) else { continue };
            self.left.insert(counter, (Arc::downgrade(&cell), reader));
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.cells.unwatch(&self.split);
    }
}

fn totals(cell: &VersionCell) -> Totals {
    // First, since they are counted last: no request is here without its causes.
    let statuses = cell.watched().map(|watched| watched.codes.read()).unwrap_or_default();
    let counts = cell.read();
    let causes = Cause::ALL.iter().zip(counts.causes).filter(|(_, n)| *n > 0).map(|(cause, n)| (*cause, n));
    Totals {
        statuses,
        causes: causes.collect(),
        retried: counts.retries,
        rescued: counts.rescued,
        spilled: counts.spilled,
        cut: counts.cut.iter().sum(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::telemetry::{Counted, Finish};

    fn names() -> (SplitName, VersionName) {
        (SplitName::new("shop").unwrap(), VersionName::new("v2").unwrap())
    }

    fn finish(cell: &VersionCell, began: Instant, watched: Counted, code: u16) {
        let bad = code >= 500;
        let latency = Duration::from_millis(3);
        cell.finish(&Finish {
            latency,
            first_byte: None,
            bad,
            bytes_in: 0,
            bytes_out: 0,
            code,
            began,
            age: latency,
            watched,
        });
    }

    #[test]
    fn cells_of_before_and_after_are_watched_and_those_left_are_read_to_the_end() {
        let (cells, (split, version)) = (Arc::new(Cells::new()), names());
        let old = cells.version(0, &split, &version, 1);
        assert_eq!(old.begin(Instant::now()), Counted::No, "nobody looks");
        let now = Instant::now();
        let mut watch = Watch::begin(cells.clone(), split.clone(), now);
        let new = cells.version(1, &split, &version, 2);
        for cell in [&old, &new] {
            assert_eq!(cell.begin(now), Counted::Begun);
            finish(cell, now, Counted::Begun, 503);
        }
        let mut came = Vec::new();
        watch.take(now, |one| came.push((one.epoch, one.new.began, one.new.ended.all, one.new.ended.bad)));
        came.sort_unstable();
        assert_eq!(came, [(1, 1, 1, 1), (2, 1, 1, 1)]);
        assert_eq!(watch.failures(&version), 2);
        let (first, second) = (watch.take_failures(&version), watch.take_failures(&version));
        assert_eq!((first.iter().sum::<u64>(), second.iter().sum::<u64>()), (2, 0));
        finish(&old, now, Counted::No, 200);
        drop(old);
        let mut all: BTreeMap<Counter, Totals> = BTreeMap::new();
        let mut look = |watch: &mut Watch| {
            all.clear();
            watch.totals(|counter, totals| drop(all.insert(counter.clone(), totals)));
            all.values().map(|t| t.statuses.values().sum::<u64>()).sum::<u64>()
        };
        assert_eq!(look(&mut watch), 3, "also those that began before the watch");
        assert_eq!(look(&mut watch), 1, "the left cell has said its last");
        drop(watch);
        let next = cells.version(1, &split, &version, 3);
        assert_eq!(next.begin(Instant::now()), Counted::No);
    }

    #[test]
    fn a_second_watch_takes_nothing_of_the_first() {
        let (cells, (split, version)) = (Arc::new(Cells::new()), names());
        let (cell, now) = (cells.version(0, &split, &version, 1), Instant::now());
        drop(Watch::begin(cells.clone(), split.clone(), now));
        finish(&cell, now, cell.begin(now), 200);
        let mut watch = Watch::begin(cells.clone(), split, now);
        watch.take(now, |_| panic!("seen before"));
        finish(&cell, now, cell.begin(now), 200);
        let mut count = 0;
        watch.take(now, |came| count += came.new.ended.all);
        assert_eq!(count, 1);
        drop(watch);
        assert_eq!(cell.begin(now), Counted::No, "nobody looks any more, though the coin is the same");
    }

    #[test]
    fn a_cell_that_was_let_go_is_not_given_out_again() {
        let (cells, (split, version)) = (Arc::new(Cells::new()), names());
        let (cell, now) = (cells.version(0, &split, &version, 1), Instant::now());
        let mut watch = Watch::begin(cells.clone(), split.clone(), now);
        let seen = |watch: &mut Watch| {
            let mut count = 0;
            watch.take(now, |came| count += came.new.ended.all);
            count
        };
        finish(&cell, now, cell.begin(now), 200);
        assert_eq!(seen(&mut watch), 1);
        // The coin has changed; the registry has not been read since.
        drop(cell);
        watch.totals(|_, _| ());
        assert_eq!(seen(&mut watch), 0, "no second time");
        watch.totals(|_, _| panic!("it has said its last"));
        let again = cells.version(0, &split, &version, 1);
        finish(&again, now, again.begin(now), 200);
        assert_eq!(seen(&mut watch), 1, "somebody counts in it again");
        drop(again);
        watch.totals(|_, _| ());
        cells.collect();
        assert_eq!(seen(&mut watch), 0);
        assert!(watch.left.is_empty(), "the registry has let it go too");
    }
}
