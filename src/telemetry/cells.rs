//! Additive counts with one writer (a worker thread) and many readers.
//!
//! Why not `fetch_add`: with one writer a relaxed load and store is the same and costs no locked instruction. A
//! reader may see a request in one counter and not yet in the next; since all are cumulative the following reading
//! has it, so only the last second is ever off by one request.
//!
//! Invariant: a cell is handed to one worker only (the registry's key holds the worker), counts only rise.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::bins::{Ended, Watched};
use super::buckets::{self, BUCKETS, PROM_BUCKETS};
use crate::model::{AcceptFault, Cause, Instant, Kind, Refusal, Shed};

/// A cell's counts can be read at any time, as a plain value that adds and subtracts.
pub(super) trait Cell: Default + Debug {
    type Counts: Additive;
    fn read(&self) -> Self::Counts;
}

/// Counts that add up over workers and epochs.
pub(super) trait Additive: Default + Debug {
    /// What came since an earlier reading of the same cell.
    fn since(&self, earlier: &Self) -> Self;
    fn add(&mut self, other: &Self);
}

fn add(counter: &AtomicU64, n: u64) {
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
}

fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

fn read_all<const N: usize>(counters: &[AtomicU64; N]) -> [u64; N] {
    std::array::from_fn(|i| read(&counters[i]))
}

fn zeroes<const N: usize>() -> [AtomicU64; N] {
    std::array::from_fn(|_| AtomicU64::new(0))
}

/// How a request ended, recorded once on the books of the version the coin chose.
#[derive(Clone, Copy, Debug)]
pub struct Finish {
    /// To the last byte of any outcome; of the head for streams and upgrades.
    pub latency: Duration,
    /// To the first byte of the answer, if there was one.
    pub first_byte: Option<Duration>,
    /// Counts as an error (analysis.md section 3).
    pub bad: bool,
    /// Of the request's body.
    pub bytes_in: u64,
    /// Of the answer's body.
    pub bytes_out: u64,
    /// What the client would have got for this attempt.
    pub code: u16,
    /// When it began, and how long ago that is.
    pub began: Instant,
    pub age: Duration,
    /// As the cell's `begin` and `open` said.
    pub watched: Counted,
}

/// How far a request is counted by its start, for the analysis.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Counted {
    /// Not at all.
    #[default]
    No,
    Begun,
    /// With its latency, since it is a stream whose head has come.
    Open,
}

/// The counts of one version on one worker in one weight epoch.
// Aligned, so that the `Arc`'s count, which other threads touch, is on another cache line.
#[derive(Debug)]
#[repr(align(64))]
pub struct VersionCell {
    all: AtomicU64,
    bad: AtomicU64,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    retries: AtomicU64,
    spilled: AtomicU64,
    rescued: AtomicU64,
    cut: [AtomicU64; Kind::ALL.len()],
    causes: [AtomicU64; Cause::ALL.len()],
    buckets: [AtomicU64; BUCKETS],
    total: Durations,
    first_byte: Durations,
    /// While a rollout looks at the split.
    watched: OnceLock<Box<Watched>>,
}

/// Exact Prometheus buckets and a sum.
#[derive(Debug)]
struct Durations {
    sum: AtomicU64,
    buckets: [AtomicU64; PROM_BUCKETS],
}

impl Default for Durations {
    fn default() -> Self {
        Self { sum: AtomicU64::new(0), buckets: zeroes() }
    }
}

impl Durations {
    fn record(&self, index: usize, ns: u64) {
        add(&self.sum, ns);
        add(&self.buckets[buckets::prom_index(index, ns)], 1);
    }

    fn read(&self) -> DurationCounts {
        DurationCounts { sum: read(&self.sum), buckets: read_all(&self.buckets) }
    }
}

impl Default for VersionCell {
    fn default() -> Self {
        Self {
            all: AtomicU64::new(0),
            bad: AtomicU64::new(0),
            bytes_in: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
            retries: AtomicU64::new(0),
            spilled: AtomicU64::new(0),
            rescued: AtomicU64::new(0),
            cut: zeroes(),
            causes: zeroes(),
            buckets: zeroes(),
            total: Durations::default(),
            first_byte: Durations::default(),
            watched: OnceLock::new(),
        }
    }
}

impl VersionCell {
    /// Counts for a rollout: by status, and (`is_by_start`) requests that begin at `since` or later by their start, in bins
    /// that are numbered from `origin`. Once it has been, a second call only turns it on again.
    pub(super) fn watch(&self, origin: Instant, since: Instant, is_by_start: bool) {
        self.watched.get_or_init(|| Box::new(Watched::new(origin, since, is_by_start))).turn(true);
    }

    pub(super) fn failures(&self) -> u64 {
        read(&self.bad)
    }

    pub(super) fn watched(&self) -> Option<&Watched> {
        self.watched.get().map(Box::as_ref)
    }

    /// A request has been given to this version; give the answer back with `finish`.
    pub fn begin(&self, at: Instant) -> Counted {
        if self.watched.get().is_some_and(|watched| watched.begin(at)) { Counted::Begun } else { Counted::No }
    }

    /// The head of a stream's answer has come `age` after its start, which was counted.
    pub fn open(&self, began: Instant, age: Duration) -> Counted {
        let Some(watched) = self.watched.get() else { return Counted::No };
        watched.open(began, age, buckets::bucket_index(age));
        Counted::Open
    }

    fn finish_watched(&self, watched: &Watched, outcome: &Finish, bucket: usize) {
        watched.codes.count(outcome.code);
        let how = match outcome.watched {
            Counted::No => return,
            Counted::Begun => Ended::After(bucket),
            Counted::Open => Ended::Open,
        };
        // Not its latency, which may be that of a head or of an attempt.
        watched.end(outcome.began, outcome.age, outcome.bad, how);
    }

    /// Records the end of a request.
    pub fn finish(&self, outcome: &Finish) {
        add(&self.all, 1);
        add(&self.bad, u64::from(outcome.bad));
        add(&self.bytes_in, outcome.bytes_in);
        add(&self.bytes_out, outcome.bytes_out);
        let ns = buckets::nanos(outcome.latency);
        let index = buckets::index(ns);
        add(&self.buckets[index], 1);
        if let Some(watched) = self.watched.get().filter(|watched| watched.is_on()) {
            self.finish_watched(watched, outcome, index);
        }
        self.total.record(index, ns);
        if let Some(first_byte) = outcome.first_byte {
            let ns = buckets::nanos(first_byte);
            self.first_byte.record(buckets::index(ns), ns);
        }
    }

    /// Records a failed attempt.
    pub fn error(&self, cause: Cause) {
        add(&self.causes[cause as usize], 1);
    }

    /// Records an attempt after the first.
    pub fn retry(&self) {
        add(&self.retries, 1);
    }

    /// Records a request of this version that went to others, since this one had no endpoint to use.
    pub fn spill(&self) {
        add(&self.spilled, 1);
    }

    /// Records a request that failed here and was answered by stable.
    pub fn rescue(&self) {
        add(&self.rescued, 1);
    }

    /// Records what was cut at the deadline of a drain.
    pub fn cut(&self, kind: Kind) {
        add(&self.cut[kind as usize], 1);
    }
}

/// A reading of `Durations`; the sum is in nanoseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct DurationCounts {
    pub(super) sum: u64,
    pub(super) buckets: [u64; PROM_BUCKETS],
}

impl Additive for DurationCounts {
    fn since(&self, earlier: &Self) -> Self {
        Self { sum: self.sum.wrapping_sub(earlier.sum), buckets: array_since(&self.buckets, &earlier.buckets) }
    }

    fn add(&mut self, other: &Self) {
        self.sum = self.sum.wrapping_add(other.sum);
        array_add(&mut self.buckets, &other.buckets);
    }
}

/// A reading of a `VersionCell`, or a sum of such.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct VersionCounts {
    pub(super) all: u64,
    pub(super) bad: u64,
    pub(super) bytes_in: u64,
    pub(super) bytes_out: u64,
    pub(super) retries: u64,
    pub(super) spilled: u64,
    pub(super) rescued: u64,
    /// By `Kind`.
    pub(super) cut: [u64; Kind::ALL.len()],
    pub(super) causes: [u64; Cause::ALL.len()],
    pub(super) buckets: [u64; BUCKETS],
    pub(super) total: DurationCounts,
    pub(super) first_byte: DurationCounts,
}

impl Default for VersionCounts {
    fn default() -> Self {
        Self {
            all: 0,
            bad: 0,
            bytes_in: 0,
            bytes_out: 0,
            retries: 0,
            spilled: 0,
            rescued: 0,
            cut: [0; Kind::ALL.len()],
            causes: Default::default(),
            buckets: [0; BUCKETS],
            total: DurationCounts::default(),
            first_byte: DurationCounts::default(),
        }
    }
}

impl Cell for VersionCell {
    type Counts = VersionCounts;

    fn read(&self) -> VersionCounts {
        VersionCounts {
            all: read(&self.all),
            bad: read(&self.bad),
            bytes_in: read(&self.bytes_in),
            bytes_out: read(&self.bytes_out),
            retries: read(&self.retries),
            spilled: read(&self.spilled),
            rescued: read(&self.rescued),
            cut: read_all(&self.cut),
            causes: read_all(&self.causes),
            buckets: read_all(&self.buckets),
            total: self.total.read(),
            first_byte: self.first_byte.read(),
        }
    }
}

impl Additive for VersionCounts {
    fn since(&self, earlier: &Self) -> Self {
        Self {
            all: self.all.wrapping_sub(earlier.all),
            bad: self.bad.wrapping_sub(earlier.bad),
            bytes_in: self.bytes_in.wrapping_sub(earlier.bytes_in),
            bytes_out: self.bytes_out.wrapping_sub(earlier.bytes_out),
            retries: self.retries.wrapping_sub(earlier.retries),
            spilled: self.spilled.wrapping_sub(earlier.spilled),
            rescued: self.rescued.wrapping_sub(earlier.rescued),
            cut: array_since(&self.cut, &earlier.cut),
            causes: array_since(&self.causes, &earlier.causes),
            buckets: array_since(&self.buckets, &earlier.buckets),
            total: self.total.since(&earlier.total),
            first_byte: self.first_byte.since(&earlier.first_byte),
        }
    }

    fn add(&mut self, other: &Self) {
        self.all = self.all.wrapping_add(other.all);
        self.bad = self.bad.wrapping_add(other.bad);
        self.bytes_in = self.bytes_in.wrapping_add(other.bytes_in);
        self.bytes_out = self.bytes_out.wrapping_add(other.bytes_out);
        self.retries = self.retries.wrapping_add(other.retries);
        self.spilled = self.spilled.wrapping_add(other.spilled);
        self.rescued = self.rescued.wrapping_add(other.rescued);
        array_add(&mut self.cut, &other.cut);
        array_add(&mut self.causes, &other.causes);
        array_add(&mut self.buckets, &other.buckets);
        self.total.add(&other.total);
        self.first_byte.add(&other.first_byte);
    }
}

fn array_since<const N: usize>(now: &[u64; N], earlier: &[u64; N]) -> [u64; N] {
    std::array::from_fn(|i| now[i].wrapping_sub(earlier[i]))
}

fn array_add<const N: usize>(to: &mut [u64; N], from: &[u64; N]) {
    to.iter_mut().zip(from).for_each(|(to, from)| *to = to.wrapping_add(*from));
}

type Page = Box<[AtomicU64; 100]>;

/// Counts per exact status code. A page of 100 codes is allocated when its first code shows.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct CodeCell {
    pages: [OnceLock<Page>; 9],
}

impl CodeCell {
    /// Counts an answer. `http::StatusCode` is 100 to 999; any other number is counted as the nearest of these.
    pub fn count(&self, code: u16) {
        let at = usize::from(code.clamp(100, 999)) - 100;
        let page = self.pages[at / 100].get_or_init(|| Box::new(zeroes()));
        add(&page[at % 100], 1);
    }
}

/// A reading of a `CodeCell`: codes that were seen.
pub(super) type CodeCounts = BTreeMap<u16, u64>;

impl Cell for CodeCell {
    type Counts = CodeCounts;

    fn read(&self) -> CodeCounts {
        let pages = self.pages.iter().zip((100u16..).step_by(100));
        let codes = pages.filter_map(|(page, first)| Some((first.., page.get()?.iter())));
        codes.flat_map(|(codes, counts)| codes.zip(counts.map(read))).filter(|&(_, n)| n > 0).collect()
    }
}

impl Additive for CodeCounts {
    fn since(&self, earlier: &Self) -> Self {
        let before = |code| earlier.get(code).copied().unwrap_or(0);
        self.iter().map(|(code, n)| (*code, n.wrapping_sub(before(code)))).filter(|&(_, n)| n > 0).collect()
    }

    fn add(&mut self, other: &Self) {
        for (code, n) in other {
            *self.entry(*code).or_insert(0) += n;
        }
    }
}

/// Connections of one listener on one worker, and requests refused before they had a version.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct ListenerCell {
    opened: AtomicU64,
    closed: AtomicU64,
    refused: [AtomicU64; Refusal::ALL.len()],
    /// Done, failed.
    handshakes: [AtomicU64; 2],
    accept_faults: [AtomicU64; AcceptFault::ALL.len()],
    shed: [AtomicU64; Shed::ALL.len()],
}

impl ListenerCell {
    /// A connection was accepted.
    pub fn opened(&self) {
        add(&self.opened, 1);
    }

    /// It is gone.
    pub fn closed(&self) {
        add(&self.closed, 1);
    }

    /// A TLS handshake was completed.
    pub fn handshake_ok(&self) {
        add(&self.handshakes[0], 1);
    }

    /// A TLS handshake was not completed: refused, broken off, or too slow.
    pub fn handshake_failed(&self) {
        add(&self.handshakes[1], 1);
    }

    /// A request never reached a version.
    pub fn refused(&self, why: Refusal) {
        add(&self.refused[why as usize], 1);
    }

    /// Accepting failed, or had to wait for lack of something.
    pub fn accept_failed(&self, why: AcceptFault) {
        add(&self.accept_faults[why as usize], 1);
    }

    /// A connection was closed for the sake of others.
    pub fn shed(&self, why: Shed) {
        add(&self.shed[why as usize], 1);
    }
}

/// A reading of a `ListenerCell`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ListenerCounts {
    pub(super) opened: u64,
    pub(super) closed: u64,
    pub(super) refused: [u64; Refusal::ALL.len()],
    /// Done, failed.
    pub(super) handshakes: [u64; 2],
    pub(super) accept_faults: [u64; AcceptFault::ALL.len()],
    pub(super) shed: [u64; Shed::ALL.len()],
}

impl Cell for ListenerCell {
    type Counts = ListenerCounts;

    fn read(&self) -> ListenerCounts {
        ListenerCounts {
            opened: read(&self.opened),
            closed: read(&self.closed),
            refused: read_all(&self.refused),
            handshakes: read_all(&self.handshakes),
            accept_faults: read_all(&self.accept_faults),
            shed: read_all(&self.shed),
        }
    }
}

impl Additive for ListenerCounts {
    fn since(&self, earlier: &Self) -> Self {
        Self {
            opened: self.opened.wrapping_sub(earlier.opened),
            closed: self.closed.wrapping_sub(earlier.closed),
            refused: array_since(&self.refused, &earlier.refused),
            handshakes: array_since(&self.handshakes, &earlier.handshakes),
            accept_faults: array_since(&self.accept_faults, &earlier.accept_faults),
            shed: array_since(&self.shed, &earlier.shed),
        }
    }

    fn add(&mut self, other: &Self) {
        self.opened = self.opened.wrapping_add(other.opened);
        self.closed = self.closed.wrapping_add(other.closed);
        array_add(&mut self.refused, &other.refused);
        array_add(&mut self.handshakes, &other.handshakes);
        array_add(&mut self.accept_faults, &other.accept_faults);
        array_add(&mut self.shed, &other.shed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finish_is_counted_everywhere_once() {
        let cell = VersionCell::default();
        let (latency, first_byte) = (Duration::from_micros(3400), Some(Duration::from_millis(1)));
        let (code, began, age, watched) = (200, Instant::now(), latency, Counted::No);
        let first = Finish { latency, first_byte, bad: false, bytes_in: 5, bytes_out: 700, code, began, age, watched };
        cell.finish(&first);
        let before = cell.read();
        let latency = Duration::from_secs(999);
        cell.finish(&Finish { latency, first_byte: None, bad: true, bytes_in: 1, bytes_out: 0, ..first });
        cell.error(Cause::Timeout);
        cell.retry();
        let last = cell.read().since(&before);

        assert_eq!((before.all, before.bad, before.bytes_in, before.bytes_out), (1, 0, 5, 700));
        assert_eq!((before.buckets[buckets::bucket_index(first.latency)], before.total.buckets[3]), (1, 1));
        assert_eq!((before.total.sum, before.first_byte.sum, before.first_byte.buckets[1]), (3_400_000, 1_000_000, 1));
        assert_eq!((last.all, last.bad, last.retries, last.causes[Cause::Timeout as usize]), (1, 1, 1, 1));
        assert_eq!((last.buckets[BUCKETS - 1], last.total.buckets[PROM_BUCKETS - 1]), (1, 1));
        assert_eq!(last.first_byte, DurationCounts::default());
        let mut sum = before.clone();
        sum.add(&last);
        assert_eq!(sum, cell.read());
    }

    #[test]
    fn index_of_a_cause_and_a_refusal_is_its_place_in_all() {
        assert!(Cause::ALL.iter().enumerate().all(|(i, cause)| *cause as usize == i));
        assert!(Kind::ALL.iter().enumerate().all(|(i, kind)| *kind as usize == i));
        assert!(Refusal::ALL.iter().enumerate().all(|(i, refusal)| *refusal as usize == i));
    }

    #[test]
    fn codes_are_exact_and_pages_come_on_demand() {
        let cell = CodeCell::default();
        for code in [100, 200, 200, 499, 599, 999, 1000, 7] {
            cell.count(code);
        }
        let before = cell.read();
        assert_eq!(before, BTreeMap::from([(100, 2), (200, 2), (499, 1), (599, 1), (999, 2)]));
        assert_eq!(cell.pages.iter().filter(|page| page.get().is_some()).count(), 5);
        cell.count(503);
        assert_eq!(cell.read().since(&before), BTreeMap::from([(503, 1)]));
    }
}
