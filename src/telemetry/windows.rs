//! What every version did in the last minutes: for the page, the API and the CLI.
//!
//! Two rings per version, of 60 slots of a second and of 90 slots of ten, fed by what each flush brings. A slot without
//! traffic costs nothing but its place.
//!
//! Invariant: a window ends with the last flush and covers whole slots; its length is what rates are divided by.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::buckets::{BUCKETS, bucket_end};
use super::cells::VersionCounts;
use super::registry::{RuleKey, VersionKey, lock};
use crate::analysis::History;
use crate::model::{Instant, SplitName, VersionName};

/// The longest window.
const LONGEST: u64 = 900;
const FINE: Shape = Shape { seconds: 1, slots: 60 };
const COARSE: Shape = Shape { seconds: 10, slots: 90 };

/// What a version did in a window.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stats {
    /// As asked for, within 1 to 900.
    pub window_seconds: u64,
    pub requests: u64,
    /// Requests per second.
    pub rps: f64,
    /// Part of the requests that were errors, 0 to 1; 0 without requests.
    pub error_rate: f64,
    /// Latency; `None` without requests.
    pub p50_ms: Option<f64>,
    pub p90_ms: Option<f64>,
    pub p95_ms: Option<f64>,
    pub p99_ms: Option<f64>,
    /// The version's part of its split's requests, 0 to 1; `None` when the split had none.
    pub observed_share: Option<f64>,
}

/// A handle to the rings; clones are the same rings.
#[derive(Clone, Debug)]
pub struct Windows(Arc<Mutex<Rings>>);

impl Windows {
    /// `start` is when counting began.
    pub(super) fn new(start: Instant) -> Self {
        Self(Arc::new(Mutex::new(Rings { start, tick: 1, versions: HashMap::new(), rules: HashMap::new() })))
    }

    /// What a version did in the last `window`, rounded to whole seconds, above a minute to tens of seconds, and kept
    /// within a second and a quarter of an hour. A version that is not known did nothing.
    pub fn stats(&self, split: &SplitName, version: &VersionName, window: Duration) -> Stats {
        let rings = lock(&self.0);
        let (seconds, span) = rings.span(window);
        let own = rings.versions.get(&(split.clone(), version.clone())).map(|rings| rings.sum(&span));
        let of_split = rings.versions.iter().filter(|((s, _), _)| s == split);
        let of_split: u64 = of_split.map(|(_, rings)| rings.requests(&span)).sum();
        own.unwrap_or_default().stats(seconds, &span, of_split)
    }

    /// The same of what a rule has sent to a version.
    pub fn rule_stats(&self, split: &SplitName, rule: &str, version: &VersionName, window: Duration) -> Stats {
        let rings = lock(&self.0);
        let (seconds, span) = rings.span(window);
        let mut of_rule = rings.rules.iter().filter(|((s, r, _), _)| s == split && r == rule);
        let of_all: u64 = of_rule.clone().map(|(_, rings)| rings.requests(&span)).sum();
        let own = of_rule.find(|((_, _, v), _)| v == version).map(|(_, rings)| rings.sum(&span));
        own.unwrap_or_default().stats(seconds, &span, of_all)
    }

    /// A version's requests of the last quarter of an hour, for the analysis to begin with.
    pub fn history(&self, split: &SplitName, version: &VersionName) -> History {
        let rings = lock(&self.0);
        let span = Span::ending(rings.tick, LONGEST);
        let sum = rings.versions.get(&(split.clone(), version.clone())).map(|rings| rings.sum(&span));
        let Sum { all, bad, buckets } = sum.unwrap_or_default();
        History::of(all, bad, buckets)
    }

    /// Requests of a split per second, over the last ten.
    pub fn rate(&self, split: &SplitName) -> f64 {
        let rings = lock(&self.0);
        let span = Span::ending(rings.tick, 10);
        let of_split = rings.versions.iter().filter(|((of, _), _)| of == split);
        of_split.map(|(_, rings)| rings.requests(&span)).sum::<u64>() as f64 / span.covers as f64
    }

    /// Takes what came up to `now`.
    pub(super) fn feed<'a>(&self, came: impl Iterator<Item = (&'a VersionKey, &'a VersionCounts)>, now: Instant) {
        let rings = &mut *lock(&self.0);
        // Flushes come a little early or late: rounded, so that each gets a slot of its own.
        let since = now.duration_since(rings.start) + Duration::from_millis(500);
        rings.tick = since.as_secs().max(rings.tick);
        for (key, counts) in came.filter(|(_, counts)| counts.all > 0) {
            rings.versions.entry(key.clone()).or_default().add(rings.tick, counts);
        }
        let tick = rings.tick;
        rings.versions.retain(|_, rings| rings.last + LONGEST > tick);
        rings.rules.retain(|_, rings| rings.last + LONGEST > tick);
    }

    /// What of it rules have sent; after `feed`.
    pub(super) fn feed_rules<'a>(&self, came: impl Iterator<Item = (&'a RuleKey, &'a VersionCounts)>) {
        let rings = &mut *lock(&self.0);
        for (key, counts) in came.filter(|(_, counts)| counts.all > 0) {
            rings.rules.entry(key.clone()).or_default().add(rings.tick, counts);
        }
    }
}

#[derive(Debug)]
struct Rings {
    start: Instant,
    /// Seconds from the start to the last flush, at least 1; tick `t` is the second that ends then.
    tick: u64,
    versions: HashMap<VersionKey, VersionRings>,
    rules: HashMap<RuleKey, VersionRings>,
}

impl Rings {
    /// A window's whole seconds, and what it reads.
    fn span(&self, window: Duration) -> (u64, Span) {
        let seconds = (window.as_secs() + u64::from(window.subsec_millis() >= 500)).clamp(1, LONGEST);
        (seconds, Span::ending(self.tick, seconds))
    }
}

/// Which slots a window reads and how many seconds these are.
#[derive(Debug, PartialEq)]
struct Span {
    shape: Shape,
    /// Slots, numbered since the start.
    slots: std::ops::RangeInclusive<u64>,
    covers: u64,
}

impl Span {
    fn ending(tick: u64, seconds: u64) -> Self {
        let shape = if seconds <= FINE.slots as u64 { FINE } else { COARSE };
        let last = tick / shape.seconds;
        let first = (last + 1).saturating_sub(seconds / shape.seconds);
        let first_tick = (first * shape.seconds).max(1);
        Self { shape, slots: first..=last, covers: tick + 1 - first_tick }
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Shape {
    seconds: u64,
    slots: usize,
}

#[derive(Debug)]
struct VersionRings {
    fine: Ring,
    coarse: Ring,
    last: u64,
}

impl Default for VersionRings {
    fn default() -> Self {
        Self { fine: Ring::new(FINE), coarse: Ring::new(COARSE), last: 0 }
    }
}

impl VersionRings {
    fn add(&mut self, tick: u64, counts: &VersionCounts) {
        self.last = tick;
        self.fine.slot(tick).add(counts);
        self.coarse.slot(tick).add(counts);
    }

    fn slots(&self, span: &Span) -> impl Iterator<Item = &Slot> {
        let ring = if span.shape == FINE { &self.fine } else { &self.coarse };
        let slots = span.slots.clone();
        ring.slots.iter().filter_map(Option::as_deref).filter(move |slot| slots.contains(&slot.number))
    }

    fn requests(&self, span: &Span) -> u64 {
        self.slots(span).map(|slot| slot.all).sum()
    }

    fn sum(&self, span: &Span) -> Sum {
        self.slots(span).fold(Sum::default(), |mut sum, slot| {
            sum.all += slot.all;
            sum.bad += slot.bad;
            sum.buckets.iter_mut().zip(&slot.buckets).for_each(|(sum, n)| *sum += u64::from(*n));
            sum
        })
    }
}

#[derive(Debug)]
struct Ring {
    shape: Shape,
    slots: Vec<Option<Box<Slot>>>,
}

impl Ring {
    fn new(shape: Shape) -> Self {
        Self { shape, slots: vec![None; shape.slots] }
    }

    /// The slot of a tick, emptied if it still holds an older round.
    fn slot(&mut self, tick: u64) -> &mut Slot {
        let number = tick / self.shape.seconds;
        let place = &mut self.slots[(number % self.shape.slots as u64) as usize];
        let slot = place.get_or_insert_with(|| Box::new(Slot::new(number)));
        if slot.number != number {
            **slot = Slot::new(number);
        }
        slot
    }
}

#[derive(Clone, Debug)]
struct Slot {
    number: u64,
    all: u64,
    bad: u64,
    /// Narrow: the rings are what takes the memory, and four billion requests do not come in ten seconds.
    buckets: [u32; BUCKETS],
}

impl Slot {
    fn new(number: u64) -> Self {
        Self { number, all: 0, bad: 0, buckets: [0; BUCKETS] }
    }

    fn add(&mut self, counts: &VersionCounts) {
        self.all += counts.all;
        self.bad += counts.bad;
        for (sum, n) in self.buckets.iter_mut().zip(counts.buckets) {
            *sum = sum.saturating_add(u32::try_from(n).unwrap_or(u32::MAX));
        }
    }
}

#[derive(Debug)]
struct Sum {
    all: u64,
    bad: u64,
    buckets: [u64; BUCKETS],
}

impl Default for Sum {
    fn default() -> Self {
        Self { all: 0, bad: 0, buckets: [0; BUCKETS] }
    }
}

impl Sum {
    fn stats(&self, window_seconds: u64, span: &Span, of_all: u64) -> Stats {
        let part = |n: u64, of: u64| (of > 0).then(|| n as f64 / of as f64);
        Stats {
            window_seconds,
            requests: self.all,
            rps: self.all as f64 / span.covers as f64,
            error_rate: part(self.bad, self.all).unwrap_or(0.0),
            p50_ms: self.percentile(0.50),
            p90_ms: self.percentile(0.90),
            p95_ms: self.percentile(0.95),
            p99_ms: self.percentile(0.99),
            observed_share: part(self.all, of_all),
        }
    }

    /// The latency that a part `q` of the requests did not exceed, in milliseconds. Within a bucket latencies are taken
    /// to be spread evenly in ratio, in the first one (which begins at 0) evenly in time.
    fn percentile(&self, q: f64) -> Option<f64> {
        let total: u64 = self.buckets.iter().sum();
        let rank = q * total as f64;
        let mut below = 0;
        for (i, &n) in self.buckets.iter().enumerate().filter(|(_, n)| **n > 0) {
            if (below + n) as f64 >= rank {
                let part = (rank - below as f64) / n as f64;
                let end = bucket_end(i).as_secs_f64() * 1e3;
                let Some(before) = i.checked_sub(1) else { return Some(end * part) };
                let start = bucket_end(before).as_secs_f64() * 1e3;
                return Some(start * (end / start).powf(part));
            }
            below += n;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::bucket_index;

    fn key(version: &str) -> VersionKey {
        (SplitName::new("shop").unwrap(), VersionName::new(version).unwrap())
    }

    fn counts(all: u64, bad: u64, latency: Duration) -> VersionCounts {
        let mut counts = VersionCounts { all, bad, ..VersionCounts::default() };
        counts.buckets[bucket_index(latency)] = all;
        counts
    }

    struct Fed {
        start: Instant,
        windows: Windows,
    }

    impl Fed {
        fn new() -> Self {
            let start = Instant::now();
            Self { start, windows: Windows::new(start) }
        }

        fn feed(&self, millis: u64, came: &[(&str, u64, u64)]) {
            let latency = Duration::from_millis(2);
            let came: Vec<_> = came.iter().map(|&(v, all, bad)| (key(v), counts(all, bad, latency))).collect();
            self.windows.feed(came.iter().map(|(k, c)| (k, c)), self.start + Duration::from_millis(millis));
        }

        fn stats(&self, version: &str, seconds: u64) -> Stats {
            let (split, version) = key(version);
            self.windows.stats(&split, &version, Duration::from_secs(seconds))
        }
    }

    #[test]
    fn rates_are_over_the_time_there_is() {
        let fed = Fed::new();
        assert_eq!(fed.stats("v1", 60), Stats { window_seconds: 60, ..Stats::default() });
        for second in 1..=5 {
            // Early and late flushes still get a slot each.
            fed.feed(second * 1000 + [0, 40, 960][second as usize % 3] - 20, &[("v1", 90, 9), ("v2", 30, 0)]);
        }
        let v1 = fed.stats("v1", 60);
        assert_eq!((v1.window_seconds, v1.requests, v1.error_rate), (60, 450, 0.1));
        assert!((v1.rps - 90.0).abs() < 20.0, "{v1:?}");
        assert_eq!(v1.observed_share, Some(0.75));
        assert_eq!(fed.stats("v2", 60).observed_share, Some(0.25));
    }

    #[test]
    fn old_seconds_leave_short_windows_first() {
        let fed = Fed::new();
        fed.feed(1000, &[("v1", 1000, 0)]);
        (2..=61).for_each(|second| fed.feed(second * 1000, &[("v1", 10, 0)]));
        assert_eq!((fed.stats("v1", 60).requests, fed.stats("v1", 60).rps), (600, 10.0));
        assert_eq!(fed.stats("v1", 10).requests, 100);
        assert_eq!(fed.stats("v1", 900).requests, 1600);
        let coarse = fed.stats("v1", 120);
        assert!((coarse.rps - 1600.0 / 61.0).abs() < 1e-9, "{coarse:?}");
        (62..=970).for_each(|second| fed.feed(second * 1000, &[("v2", 1, 0)]));
        assert_eq!(fed.stats("v1", 900), Stats { window_seconds: 900, observed_share: Some(0.0), ..Stats::default() });
        assert_eq!(lock(&fed.windows.0).versions.len(), 1);
    }

    #[test]
    fn a_rule_has_figures_of_its_own() {
        let fed = Fed::new();
        let ((split, v1), (_, v2)) = (key("v1"), key("v2"));
        let key = |rule: &str, version: &VersionName| (split.clone(), rule.to_owned(), version.clone());
        let came = [(key("beta", &v1), 30, 3), (key("beta", &v2), 10, 0), (key("late", &v2), 5, 5)];
        let came = came.map(|(key, all, bad)| (key, counts(all, bad, Duration::from_millis(2))));
        fed.feed(1000, &[("v1", 100, 3)]);
        fed.windows.feed_rules(came.iter().map(|(key, counts)| (key, counts)));
        let stats = |rule, version| fed.windows.rule_stats(&split, rule, version, Duration::from_secs(60));
        let beta = stats("beta", &v1);
        assert_eq!((beta.requests, beta.rps, beta.error_rate, beta.observed_share), (30, 30.0, 0.1, Some(0.75)));
        assert!(beta.p50_ms.is_some_and(|ms| (1.8..2.2).contains(&ms)), "{beta:?}");
        assert_eq!((stats("beta", &v2).requests, stats("late", &v2).error_rate), (10, 1.0));
        assert_eq!(stats("late", &v1), Stats { window_seconds: 60, observed_share: Some(0.0), ..Stats::default() });
        assert_eq!(fed.stats("v1", 60).requests, 100, "as they are in the version's own");
        (2..=910).for_each(|second| fed.feed(second * 1000, &[]));
        assert!(lock(&fed.windows.0).rules.is_empty());
    }

    #[test]
    fn a_span_covers_whole_slots() {
        assert_eq!(Span::ending(7, 60), Span { shape: FINE, slots: 0..=7, covers: 7 });
        assert_eq!(Span::ending(100, 60), Span { shape: FINE, slots: 41..=100, covers: 60 });
        assert_eq!(Span::ending(1005, 900), Span { shape: COARSE, slots: 11..=100, covers: 896 });
        assert_eq!(Span::ending(5, 900), Span { shape: COARSE, slots: 0..=0, covers: 5 });
    }

    #[test]
    fn percentiles_are_within_their_bucket_and_rise() {
        let mut sum = Sum::default();
        assert_eq!(sum.percentile(0.5), None);
        sum.buckets[0] = 10;
        assert!((sum.percentile(0.5).unwrap() - 0.05).abs() < 1e-12);
        sum.buckets[0] = 0;
        for micros in 1..=10_000 {
            sum.buckets[bucket_index(Duration::from_micros(micros * 10))] += 1;
        }
        for (q, expected) in [(0.5, 50.0), (0.9, 90.0), (0.95, 95.0), (0.99, 99.0)] {
            let found = sum.percentile(q).unwrap();
            assert!((found / expected - 1.0).abs() < 0.02, "{q}: {found}");
        }
    }
}
