//! The two orders in which counts reach the engine (section 3): against the canary as they become known, or by start;
//! for the canary always by start.
//!
//! Why two: if the canary merely fails sooner than stable, outcomes in order of completion make its head start look
//! like a regression; and if it fails later, they make it look healthy at first. By start neither can happen, but one
//! waits for the slowest. So requests are kept in bins of 100 ms by their start, and bins are released in order, each
//! when all its requests have ended or have run too long for an answer to matter.
//!
//! By completion a request counts as good from its start on, and its failure, should it come, besides: so an answer that is
//! late, within what is allowed or while latencies do not count, is no missing one. (Counted when they come, 200 good
//! answers of stable against none of a canary that takes a tenth of a second longer would be odds of 1000 to 1.) Latencies
//! count when they are known; where traffic is so dense that a tolerable lateness alone would speak against the canary,
//! the order is by start.
//!
//! Sources are read one after the other while requests go on. What began after the reading did is seen of those read
//! last and not of those read first, and a reader that is interrupted in between would see hundreds of one version and
//! none of the other. So no order gives out anything of a bin before it is over, at the price of a tenth of a second.
//!
//! Invariants: each order gives every request out at most once, in the epoch of its own coin; what is released or left
//! out depends on when a request began, never on how it ended. Time is a number of bins since a moment that all
//! sources agree on; `release` is told up to when all of them have reported.

use std::collections::BTreeMap;
use std::time::Duration;

use super::bins::{Cells, Pending, close_for_it, close_known};
use super::counts::{BUCKETS, Buckets, Counts, Tally, bucket_of, bucket_seconds};
use super::histogram::Histogram;
use super::history::History;
use super::plug_in::PlugIn;
use super::settings::Settings;

/// Width of a bin.
pub const BIN: Duration = Duration::from_millis(100);
/// Against the canary a request hangs after this at the least.
const PATIENCE: Duration = Duration::from_secs(1);
/// For the canary a request is waited for so long at the least; also while stable's latencies are not known.
const LONG_PATIENCE: Duration = Duration::from_secs(30);
/// Up to so many canary failures on their way at any moment, completion is as good as start.
const HEAD_START: f64 = 0.1;

/// Up to so many canary answers that are on their way longer than stable's, and may be, latencies are compared as they
/// become known.
const LATE: f64 = 0.5;

/// Which of the two versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Canary = 0,
    Stable = 1,
}

/// In what order counts against the canary are taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// By completion where that is harmless, else by start; chosen anew for each weight epoch.
    #[default]
    Auto,
    Completion,
    Start,
}

/// What is known of the requests that began in one bin, of one version in one epoch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BinCounts {
    /// Requests that began.
    pub began: u64,
    /// Streams whose head has come, which hang no more, with their latency in `ended` already; and those of them that
    /// have ended.
    pub opened: u64,
    pub closed: u64,
    /// Those that have ended.
    pub ended: Counts,
}

/// Counts of one epoch for the engine. In `known` there may be more failures than requests: those of requests that were
/// given out as good before.
#[derive(Clone, Debug, PartialEq)]
pub struct Portion {
    pub epoch: u64,
    /// Probability with which the coin sent these requests to the canary.
    pub w: f64,
    pub canary: Counts,
    pub stable: Counts,
}

/// What a moment has released, in order of epochs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Released {
    /// For `Engine::settle`.
    pub settled: Vec<Portion>,
    /// For `Engine::tick`.
    pub known: Vec<Portion>,
}

/// Counts of an epoch that was never begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("weight epoch {0} is not known")]
pub struct UnknownEpoch(pub u64);

/// Orders the counts of one rollout.
#[derive(Clone, Debug)]
pub struct Feed {
    order: Order,
    /// Tolerated slowness in buckets.
    shift: usize,
    /// In bins.
    warm_up: u64,
    epochs: BTreeMap<u64, Epoch>,
    bins: BTreeMap<u64, Cells>,
    /// By completion, by bin, until it is over.
    arrived: BTreeMap<u64, Vec<Arrived>>,
    /// By completion, not yet released.
    known: Pending,
    /// Bins below have no request left that may still be called hanging.
    hung_to: u64,
    /// Bins below are released against and for the canary. The latter never leads.
    known_to: u64,
    settled_to: u64,
    /// Bins whose latencies count for nobody: first, and first after.
    cold: Vec<(u64, u64)>,
    stable: Stable,
    /// Later than the end of this bucket a request hangs. Fixed before the counts of a release are read.
    hang_bucket: usize,
}

/// What is new of the requests of one bin: `all` are those that began.
#[derive(Clone, Debug)]
struct Arrived {
    epoch: u64,
    side: Side,
    counts: Counts,
}

#[derive(Clone, Copy, Debug)]
struct Epoch {
    w: f64,
    is_by_start: bool,
}

/// What is known of stable.
#[derive(Clone, Debug)]
struct Stable {
    latencies: Histogram,
    errors: PlugIn,
    /// Latencies of the failed ones.
    failures: Buckets,
}

impl BinCounts {
    pub fn add(&mut self, other: &Self) {
        self.began = self.began.saturating_add(other.began);
        self.opened = self.opened.saturating_add(other.opened);
        self.closed = self.closed.saturating_add(other.closed);
        self.ended.add(&other.ended);
    }

    /// Requests whose end is known only; they are taken to have begun where they are booked.
    pub fn ended(counts: Counts) -> Self {
        Self { began: counts.all, ended: counts, ..Self::default() }
    }
}

impl Feed {
    /// Nothing yet; `begin_epoch` comes first.
    pub fn new(settings: &Settings, order: Order, history: &History) -> Self {
        let errors = PlugIn::new(&history.tally());
        let stable = Stable { latencies: Histogram::new(history.buckets()), errors, failures: *history.failures() };
        let mut feed = Self {
            order,
            shift: settings.latency.as_ref().map_or(0, |latency| latency.shift()),
            warm_up: bins_of(settings.warm_up),
            epochs: BTreeMap::new(),
            bins: BTreeMap::new(),
            arrived: BTreeMap::new(),
            known: Pending::default(),
            hung_to: 0,
            known_to: 0,
            settled_to: 0,
            cold: Vec::new(),
            stable,
            hang_bucket: 0,
        };
        feed.hang_bucket = feed.stable.hang_bucket(feed.shift);
        feed
    }

    /// A coin with another probability of the canary is tossed from now on, `per_second` times as far as is known.
    /// Epochs rise; beginning one again changes nothing.
    pub fn begin_epoch(&mut self, epoch: u64, w: f64, per_second: f64) {
        let is_by_start = match self.order {
            Order::Auto => {
                let canary = w * per_second;
                self.stable.head_start(canary) > HEAD_START || self.stable.late(canary, self.shift) > LATE
            }
            Order::Completion => false,
            Order::Start => true,
        };
        self.epochs.entry(epoch).or_insert(Epoch { w, is_by_start });
    }

    /// Whether counts of this epoch are taken by start on both ways.
    pub fn is_by_start(&self, epoch: u64) -> bool {
        self.epochs.get(&epoch).is_some_and(|epoch| epoch.is_by_start)
    }

    /// A step, or an endpoint's first request, was in this bin: for the settings' `warm_up` from its start no latency
    /// counts, of either version. Say so before the bin is released.
    pub fn warm_up(&mut self, bin: u64) {
        if self.warm_up > 0 {
            self.cold.push((bin, bin.saturating_add(self.warm_up)));
        }
    }

    /// Takes in what is new (see `Meter`) of the requests that began in `bin`. What comes for a bin that has been
    /// released is left out where order matters.
    ///
    /// # Errors
    /// The epoch was not begun; nothing is taken in.
    pub fn add(&mut self, bin: u64, epoch: u64, side: Side, new: &BinCounts) -> Result<(), UnknownEpoch> {
        let is_by_start = self.epochs.get(&epoch).ok_or(UnknownEpoch(epoch))?.is_by_start;
        if side == Side::Stable {
            self.stable.learn(&new.ended);
        }
        if !is_by_start {
            let counts = Counts { all: new.began, ..new.ended.clone() };
            self.arrived.entry(bin).or_default().push(Arrived { epoch, side, counts });
        }
        if bin >= self.settled_to {
            self.bins.entry(bin).or_default().add(epoch, side, new);
        }
        Ok(())
    }

    /// Takes in what has arrived of bins that are over, in epochs by completion.
    fn take_arrived(&mut self, now: u64) {
        let open = self.arrived.split_off(&now);
        for (bin, all) in std::mem::replace(&mut self.arrived, open) {
            for Arrived { epoch, side, mut counts } in all {
                // What hangs is in the last bucket already.
                if bin < self.hung_to || self.is_cold(bin) {
                    counts.buckets = [0; BUCKETS];
                }
                counts.cap(self.hang_bucket);
                self.known.add(epoch, side, &counts);
            }
        }
    }

    /// Takes in the latencies of stable's failed requests, which `Order::Auto` goes by.
    pub fn learn_failures(&mut self, failures: &Buckets) {
        self.stable.failures.iter_mut().zip(failures).for_each(|(sum, n)| *sum = sum.saturating_add(*n));
    }

    /// Whatever can be given to the engine when all sources have reported all up to the start of bin `now`.
    pub fn release(&mut self, now: u64) -> Released {
        self.take_arrived(now);
        let hang = bins_of(self.hang_after());
        self.hung_to = self.hang(now.saturating_sub(hang));
        self.known_to = self.close_known(now);
        let given_up = now.saturating_sub(hang.max(bins_of(LONG_PATIENCE)));
        let mut settled = Pending::default();
        self.settled_to = self.settle(now, given_up, &mut settled);
        self.bins = self.bins.split_off(&self.hung_to.min(self.settled_to));
        let oldest = self.hung_to.min(self.settled_to);
        self.cold.retain(|(_, until)| *until > oldest);
        self.hang_bucket = self.stable.hang_bucket(self.shift);
        let known = std::mem::take(&mut self.known);
        Released { settled: self.portions(settled), known: self.portions(known) }
    }

    /// From which age on a request hangs.
    pub fn hang_after(&self) -> Duration {
        Duration::from_secs_f64(bucket_seconds(self.hang_bucket))
    }

    /// Counts those that hang, in epochs by completion, in the last bucket: their outcome is still to come.
    fn hang(&mut self, until: u64) -> u64 {
        let until = until.max(self.hung_to);
        for (&bin, cells) in self.bins.range(self.hung_to..until) {
            if is_cold(&self.cold, bin) {
                continue;
            }
            for (epoch, side, cell) in cells.iter() {
                let running = cell.running();
                if running > 0 && !self.is_by_start(epoch) {
                    self.known.hang(epoch, side, running);
                }
            }
        }
        until
    }

    /// Bins in order, against the canary, in epochs by start.
    fn close_known(&mut self, now: u64) -> u64 {
        let epochs = &self.epochs;
        let is_by_start = |epoch: u64| epochs.get(&epoch).is_some_and(|epoch| epoch.is_by_start);
        for (&bin, cells) in self.bins.range(self.known_to..now.max(self.known_to)) {
            let of_these = || cells.iter().filter(|(epoch, ..)| is_by_start(*epoch));
            if bin >= self.hung_to && of_these().any(|(.., cell)| cell.is_running()) {
                return bin;
            }
            for (epoch, side, cell) in of_these() {
                let counts = close_known(cell, self.hang_bucket);
                self.known.add(epoch, side, &warm(counts, &self.cold, bin));
            }
        }
        now.max(self.known_to)
    }

    /// Bins in order, for the canary; those below `given_up` whether all requests have ended or not.
    fn settle(&self, now: u64, given_up: u64, settled: &mut Pending) -> u64 {
        for (&bin, cells) in self.bins.range(self.settled_to..now.max(self.settled_to)) {
            if bin >= given_up && cells.iter().any(|(.., cell)| cell.is_running()) {
                return bin;
            }
            for (epoch, side, cell) in cells.iter() {
                let counts = close_for_it(cell, side, self.hang_bucket);
                settled.add(epoch, side, &warm(counts, &self.cold, bin));
            }
        }
        now.max(self.settled_to)
    }

    fn portions(&self, pending: Pending) -> Vec<Portion> {
        let with_weight = pending.into_iter().filter_map(|(epoch, [canary, stable])| {
            let w = self.epochs.get(&epoch)?.w;
            Some(Portion { epoch, w, canary, stable })
        });
        with_weight.collect()
    }

    fn is_cold(&self, bin: u64) -> bool {
        is_cold(&self.cold, bin)
    }
}

impl Stable {
    fn learn(&mut self, ended: &Counts) {
        self.latencies.learn(&ended.buckets);
        self.errors.learn(&Tally::new(ended.all, ended.bad.min(ended.all)));
    }

    fn hang_bucket(&mut self, shift: usize) -> usize {
        let (reading, _) = self.latencies.renew();
        let slowest = reading.map(|reading| reading.cuts[2].from - 1 + shift);
        let bucket = slowest.map_or(bucket_of(LONG_PATIENCE), |slowest| slowest.max(bucket_of(PATIENCE)));
        // Beyond its end a request is in the last bucket anyway.
        bucket.min(BUCKETS - 2)
    }

    /// How many of the canary's failures are on their way at any moment, if it fails as often and as slowly as stable.
    fn head_start(&self, canary_per_second: f64) -> f64 {
        self.errors.now() * canary_per_second * self.age_of_failures()
    }

    /// How many of the canary's answers are late at any moment, if it is as slow as it may be.
    fn late(&self, canary_per_second: f64, shift: usize) -> f64 {
        let slow = self.latencies.p90().map_or(0.0, bucket_seconds);
        canary_per_second * slow * ((shift as f64 / 8.0).exp2() - 1.0)
    }

    /// Seconds within which 95 % of stable's failures show.
    fn age_of_failures(&self) -> f64 {
        let all = super::counts::total(&self.failures);
        if all < 20.0 {
            return 1.0;
        }
        let mut sum = 0.0;
        let slow = self.failures.iter().position(|&n| {
            sum += n as f64;
            sum >= 0.95 * all
        });
        bucket_seconds(slow.unwrap_or(BUCKETS - 1))
    }
}

/// No latency counts in a cold bin.
fn warm(mut counts: Counts, cold: &[(u64, u64)], bin: u64) -> Counts {
    if is_cold(cold, bin) {
        counts.buckets = [0; BUCKETS];
    }
    counts
}

fn is_cold(cold: &[(u64, u64)], bin: u64) -> bool {
    cold.iter().any(|(from, until)| (*from..*until).contains(&bin))
}

/// Rounded up: who has run longer than these has run longer than `time`.
fn bins_of(time: Duration) -> u64 {
    u64::try_from(time.as_nanos().div_ceil(BIN.as_nanos())).unwrap_or(u64::MAX)
}

#[cfg(test)]
#[path = "feed_tests.rs"]
mod tests;
