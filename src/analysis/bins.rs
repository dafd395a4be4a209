//! One bin of requests by their start, and how it is closed on either way (section 3). See `feed` for the orders.

use std::collections::BTreeMap;

use super::counts::{BUCKETS, Counts};
use super::feed::{BinCounts, Side};

/// What is known of one bin: by epoch, canary and stable.
#[derive(Clone, Debug, Default)]
pub(super) struct Cells {
    by_epoch: BTreeMap<u64, [BinCounts; 2]>,
}

impl Cells {
    pub(super) fn add(&mut self, epoch: u64, side: Side, new: &BinCounts) {
        self.by_epoch.entry(epoch).or_default()[side as usize].add(new);
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, Side, &BinCounts)> {
        self.by_epoch
            .iter()
            .flat_map(|(&epoch, [canary, stable])| [(epoch, Side::Canary, canary), (epoch, Side::Stable, stable)])
    }
}

impl BinCounts {
    pub(super) fn is_running(&self) -> bool {
        self.running() > 0
    }

    /// Without streams that are open.
    pub(super) fn running(&self) -> u64 {
        self.began.saturating_sub(self.ended.all).saturating_sub(self.open())
    }

    /// Streams that go on; so far they are good.
    fn open(&self) -> u64 {
        self.opened.saturating_sub(self.closed)
    }
}

/// Against the canary: what still runs is no failure, and as slow as can be; for both versions.
pub(super) fn close_known(cell: &BinCounts, hang_bucket: usize) -> Counts {
    let mut counts = known(cell, hang_bucket);
    put(&mut counts, cell.running(), 0, BUCKETS - 1);
    counts
}

/// For the canary: what still runs counts against it, whichever version it is of.
pub(super) fn close_for_it(cell: &BinCounts, side: Side, hang_bucket: usize) -> Counts {
    let mut counts = known(cell, hang_bucket);
    match side {
        Side::Canary => put(&mut counts, cell.running(), cell.running(), BUCKETS - 1),
        Side::Stable => put(&mut counts, cell.running(), 0, 0),
    }
    counts
}

fn known(cell: &BinCounts, hang_bucket: usize) -> Counts {
    let mut counts = cell.ended.clone();
    counts.cap(hang_bucket);
    counts.all = counts.all.saturating_add(cell.open());
    counts
}

fn put(counts: &mut Counts, all: u64, bad: u64, bucket: usize) {
    counts.all = counts.all.saturating_add(all);
    counts.bad = counts.bad.saturating_add(bad);
    counts.buckets[bucket] = counts.buckets[bucket].saturating_add(all);
}

/// Counts on their way to the engine, by epoch.
#[derive(Clone, Debug, Default)]
pub(super) struct Pending {
    by_epoch: BTreeMap<u64, [Counts; 2]>,
}

impl Pending {
    pub(super) fn add(&mut self, epoch: u64, side: Side, counts: &Counts) {
        if !counts.is_empty() {
            self.by_epoch.entry(epoch).or_default()[side as usize].add(counts);
        }
    }

    /// Adds latencies only.
    pub(super) fn hang(&mut self, epoch: u64, side: Side, n: u64) {
        put_latency(&mut self.by_epoch.entry(epoch).or_default()[side as usize], n);
    }

    pub(super) fn into_iter(self) -> impl Iterator<Item = (u64, [Counts; 2])> {
        self.by_epoch.into_iter()
    }
}

fn put_latency(counts: &mut Counts, n: u64) {
    counts.buckets[BUCKETS - 1] = counts.buckets[BUCKETS - 1].saturating_add(n);
}
