//! Requests of a watched version by the moment they began, in bins of 100 ms (analysis.md section 3): what a rollout is
//! judged from, and its receipt.
//!
//! A ring of bins with one writer, the worker, whose counters only rise, also when a bin comes round again; the reader
//! takes differences to what it saw last and knows by the time which bin a place in the ring is. Requests that end later
//! than `HORIZON` bins after their start are left out, of every version alike: by then they have long been counted as
//! hanging. So no place is written to for `BINS - HORIZON` bins before it is used again, and a reader that looks at least
//! every six seconds never takes one bin for another.
//!
//! Invariant: what the reader gives out is, summed up, what the worker has counted, and no portion has more failures
//! than requests: a failure that is seen before its request waits for the next look.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use super::buckets::{BUCKETS, nanos};
use super::cells::CodeCell;
use crate::analysis::{BIN, BinCounts, Buckets, Counts};
use crate::model::Instant;

const BINS: u64 = 512;
const BIN_NANOS: u64 = BIN.as_nanos() as u64;
/// How many bins after its start the end of a request still counts.
const HORIZON: u64 = 448;

/// Counts of one watched version on one worker in one epoch.
#[derive(Debug)]
pub(super) struct Watched {
    /// When bin 0 begins.
    origin: Instant,
    /// What began before is not counted.
    since: Instant,
    /// Empty where nothing is counted by start, as of what rules send.
    ring: Box<[Slot]>,
    /// Latencies of failures that were counted by start.
    failures: [AtomicU32; BUCKETS],
    /// Somebody looks.
    is_on: AtomicBool,
    /// Every request of the epoch by status, for the receipt; those that began before the watch too.
    pub(super) codes: CodeCell,
}

#[derive(Debug)]
struct Slot {
    began: AtomicU32,
    all: AtomicU32,
    bad: AtomicU32,
    /// Streams whose head has come, and those of them that have ended.
    opened: AtomicU32,
    closed: AtomicU32,
    buckets: [AtomicU32; BUCKETS],
}

/// What a reader has seen of one slot.
#[derive(Clone, Debug)]
struct Seen {
    began: u32,
    all: u32,
    bad: u32,
    opened: u32,
    closed: u32,
    buckets: [u32; BUCKETS],
}

/// Remembers what it has given out of one `Watched`.
#[derive(Debug)]
pub(super) struct BinReader {
    seen: Vec<Option<Box<Seen>>>,
    failures: [u32; BUCKETS],
}

impl Default for BinReader {
    fn default() -> Self {
        Self { seen: (0..BINS).map(|_| None).collect(), failures: [0; BUCKETS] }
    }
}

/// The bin a moment is in; `None` before the first.
pub(super) fn bin_of(origin: Instant, at: Instant) -> Option<u64> {
    // In whole nanoseconds of 64 bits, which is 584 years: a division of 128 bits costs as much as all the rest here.
    Some(nanos(at.checked_duration_since(origin)?) / BIN_NANOS)
}

fn add(counter: &AtomicU32, n: u32) {
    // One writer, as in `cells`.
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
}

fn read(counter: &AtomicU32) -> u32 {
    counter.load(Ordering::Relaxed)
}

impl Watched {
    /// `is_by_start`: requests are counted by the moment they begin, not by status alone.
    pub(super) fn new(origin: Instant, since: Instant, is_by_start: bool) -> Self {
        let bins = if is_by_start { BINS } else { 0 };
        Self {
            origin,
            since,
            ring: (0..bins).map(|_| Slot::default()).collect(),
            failures: std::array::from_fn(|_| AtomicU32::new(0)),
            is_on: AtomicBool::new(true),
            codes: CodeCell::default(),
        }
    }

    /// While it is off nothing is counted, and nobody reads.
    pub(super) fn turn(&self, is_on: bool) {
        self.is_on.store(is_on, Ordering::Relaxed);
    }

    pub(super) fn is_on(&self) -> bool {
        self.is_on.load(Ordering::Relaxed)
    }

    fn slot(&self, bin: u64) -> &Slot {
        &self.ring[(bin % BINS) as usize]
    }

    /// A request has begun. False: before the watch, so that its end is not to be counted here.
    pub(super) fn begin(&self, at: Instant) -> bool {
        if self.ring.is_empty() || !self.is_on() || at < self.since {
            return false;
        }
        let Some(bin) = bin_of(self.origin, at) else { return false };
        add(&self.slot(bin).began, 1);
        true
    }

    fn of_start(&self, began: Instant, age: Duration) -> Option<&Slot> {
        let bin = bin_of(self.origin, began)?;
        (bin_of(self.origin, began + age)? - bin < HORIZON).then(|| self.slot(bin))
    }

    /// The head of a stream's answer has come after `age`: it hangs no more.
    pub(super) fn open(&self, began: Instant, age: Duration, bucket: usize) {
        let Some(slot) = self.of_start(began, age) else { return };
        add(&slot.buckets[bucket], 1);
        add(&slot.opened, 1);
    }

    /// It has ended, `age` after its start.
    pub(super) fn end(&self, began: Instant, age: Duration, is_bad: bool, how: Ended) {
        let Some(slot) = self.of_start(began, age) else { return };
        match how {
            Ended::After(bucket) => {
                add(&slot.buckets[bucket], 1);
                add(&self.failures[bucket], u32::from(is_bad));
            }
            Ended::Open => add(&slot.closed, 1),
        }
        add(&slot.all, 1);
        add(&slot.bad, u32::from(is_bad));
    }
}

/// What is known of a request's latency at its end.
#[derive(Clone, Copy, Debug)]
pub(super) enum Ended {
    /// This bucket's.
    After(usize),
    /// It was counted with the head.
    Open,
}

impl Default for Slot {
    fn default() -> Self {
        let zero = || AtomicU32::new(0);
        Self {
            began: zero(),
            all: zero(),
            bad: zero(),
            opened: zero(),
            closed: zero(),
            buckets: std::array::from_fn(|_| zero()),
        }
    }
}

impl Default for Seen {
    fn default() -> Self {
        Self { began: 0, all: 0, bad: 0, opened: 0, closed: 0, buckets: [0; BUCKETS] }
    }
}

impl BinReader {
    /// What is new since the last call, by bin, oldest first.
    pub(super) fn take(&mut self, watched: &Watched, now: Instant, mut give: impl FnMut(u64, BinCounts)) {
        let Some(last) = bin_of(watched.origin, now).filter(|_| !watched.ring.is_empty()) else { return };
        for bin in last.saturating_sub(HORIZON)..=last {
            let seen = &mut self.seen[(bin % BINS) as usize];
            if let Some(new) = news(watched.slot(bin), seen) {
                give(bin, new);
            }
        }
    }
}

impl BinReader {
    /// Adds the latencies of failures that are new since the last call.
    pub(super) fn take_failures(&mut self, watched: &Watched, sum: &mut Buckets) {
        for ((sum, seen), now) in sum.iter_mut().zip(&mut self.failures).zip(&watched.failures) {
            *sum += came(read(now), seen);
        }
    }
}

/// What a counter has risen by.
fn came(now: u32, seen: &mut u32) -> u64 {
    let new = now.wrapping_sub(*seen);
    *seen = now;
    u64::from(new)
}

/// `None` if nothing has been written there. A slot nobody has written to costs no memory here either.
fn news(slot: &Slot, seen: &mut Option<Box<Seen>>) -> Option<BinCounts> {
    // Each write raises one of these, its last one or its first.
    let now = [read(&slot.began), read(&slot.all), read(&slot.opened), read(&slot.bad)];
    let before = seen.as_ref().map_or([0; 4], |seen| [seen.began, seen.all, seen.opened, seen.bad]);
    if now == before {
        return None;
    }
    let seen = seen.get_or_insert_default();
    // Ends before starts: an end that is seen has a start that is seen.
    let all = came(now[1], &mut seen.all);
    let bad = u64::from(now[3].wrapping_sub(seen.bad)).min(all);
    seen.bad = seen.bad.wrapping_add(bad as u32);
    let closed = came(read(&slot.closed), &mut seen.closed);
    let opened = came(read(&slot.opened), &mut seen.opened);
    let buckets = std::array::from_fn(|i| came(read(&slot.buckets[i]), &mut seen.buckets[i]));
    let began = came(read(&slot.began), &mut seen.began);
    Some(BinCounts { began, opened, closed, ended: Counts { all, bad, buckets } })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn sum(reader: &mut BinReader, watched: &Watched, now: Instant) -> Vec<(u64, u64, u64, u64)> {
        let mut found = Vec::new();
        reader.take(watched, now, |bin, new| found.push((bin, new.began, new.ended.all, new.ended.bad)));
        found
    }

    #[test]
    fn a_request_is_counted_where_it_began() {
        let origin = Instant::now();
        let (watched, mut reader) = (Watched::new(origin, origin, true), BinReader::default());
        assert!(!watched.begin(origin - MS), "before the watch");
        let early = origin + 50 * MS;
        assert!(watched.begin(early) && watched.begin(origin + 250 * MS));
        assert_eq!(sum(&mut reader, &watched, origin + 300 * MS), [(0, 1, 0, 0), (2, 1, 0, 0)]);
        watched.end(early, 400 * MS, true, Ended::After(3));
        assert_eq!(sum(&mut reader, &watched, origin + 500 * MS), [(0, 0, 1, 1)]);
        assert_eq!(sum(&mut reader, &watched, origin + 600 * MS), []);
    }

    #[test]
    fn a_stream_hangs_no_more_once_its_head_is_there() {
        let origin = Instant::now();
        let (watched, mut reader) = (Watched::new(origin, origin, true), BinReader::default());
        watched.begin(origin);
        watched.open(origin, 20 * MS, 5);
        let mut all = BinCounts::default();
        reader.take(&watched, origin + 100 * MS, |_, new| all.add(&new));
        assert_eq!((all.began, all.opened, all.closed, all.ended.all, all.ended.buckets[5]), (1, 1, 0, 0, 1));
        watched.end(origin, 9000 * MS, true, Ended::Open);
        reader.take(&watched, origin + 9001 * MS, |_, new| all.add(&new));
        assert_eq!((all.began, all.closed, all.ended.all, all.ended.bad), (1, 1, 1, 1));
    }

    #[test]
    fn a_place_that_comes_round_again_is_another_bin_and_late_ends_are_left_out() {
        let origin = Instant::now();
        let (watched, mut reader) = (Watched::new(origin, origin, true), BinReader::default());
        let bin = |n: u64| origin + BIN * n as u32;
        watched.begin(bin(7));
        assert_eq!(sum(&mut reader, &watched, bin(8)), [(7, 1, 0, 0)]);
        watched.end(bin(7), BIN * HORIZON as u32, true, Ended::After(9));
        assert_eq!(sum(&mut reader, &watched, bin(7 + HORIZON)), []);
        watched.begin(bin(7 + BINS));
        watched.end(bin(7 + BINS), MS, false, Ended::After(9));
        assert_eq!(sum(&mut reader, &watched, bin(8 + BINS)), [(7 + BINS, 1, 1, 0)]);
    }

    #[test]
    fn nothing_is_lost_between_writer_and_reader() {
        const REQUESTS: u64 = 50_000;
        let origin = Instant::now();
        let watched = Watched::new(origin, origin, true);
        let (mut reader, mut all) = (BinReader::default(), BinCounts::default());
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                for i in 0..REQUESTS {
                    let at = origin + Duration::from_micros(20 * i);
                    watched.begin(at);
                    watched.end(at, MS, i % 3 == 0, Ended::After((i % 100) as usize));
                }
            });
            while !writer.is_finished() {
                reader.take(&watched, origin + 2000 * MS, |_, new| {
                    assert!(new.ended.bad <= new.ended.all);
                    all.add(&new);
                });
            }
        });
        reader.take(&watched, origin + 2000 * MS, |_, new| all.add(&new));
        assert_eq!((all.began, all.ended.all), (REQUESTS, REQUESTS));
        assert_eq!(all.ended.bad, REQUESTS.div_ceil(3));
        assert_eq!(all.ended.buckets.iter().sum::<u64>(), REQUESTS);
    }
}
