//! Stable's latencies of the past, and what the latency tests read out of them: each bucket's middle rank and the cuts
//! of the slowest tenth, hundredth and thousandth (section 7).

use serde::{Deserialize, Serialize};

use super::counts::{BUCKETS, Buckets, Tally};
use super::exact;
use super::plug_in::{MEMORY, assumed_rate, is_due};

/// Below so many requests nothing is read.
const ENOUGH: f64 = 100.0;
/// Levels of the cuts.
pub(super) const LEVELS: [f64; 3] = [0.9, 0.99, 0.999];

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Histogram {
    #[serde(with = "exact::sparse")]
    counts: Vec<f64>,
    #[serde(with = "exact")]
    total: f64,
    /// `total` when last read.
    #[serde(with = "exact::option")]
    last: Option<f64>,
    /// The counts as last read: what a restored engine reads again.
    #[serde(with = "exact::sparse")]
    basis: Vec<f64>,
    #[serde(skip)]
    reading: Option<Reading>,
}

/// What is known of stable's latencies at a refresh.
#[derive(Clone, Debug)]
pub(super) struct Reading {
    /// Share of requests faster than the middle of each bucket.
    pub(super) middle: Vec<f64>,
    pub(super) cuts: [Cut; LEVELS.len()],
}

/// Where the slow ones begin, and how many there are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Cut {
    /// First bucket of the slow ones.
    pub(super) from: usize,
    /// Assumed share of the slow ones.
    pub(super) rate: f64,
}

impl Histogram {
    pub(super) fn new(history: &Buckets) -> Self {
        let empty = vec![0.0; BUCKETS];
        let mut new = Self { counts: empty.clone(), total: 0.0, last: None, basis: empty, reading: None };
        new.learn(history);
        new
    }

    /// For the tick that begins: read anew if due. `None` while too little is known. The flag says whether the reading
    /// is another than that of the last call.
    pub(super) fn renew(&mut self) -> (Option<&Reading>, bool) {
        if self.total < ENOUGH && self.last.is_none() {
            return (None, false);
        }
        let is_due = is_due(self.total, self.last);
        if is_due {
            self.last = Some(self.total);
            self.basis.clone_from(&self.counts);
        }
        let is_new = is_due || self.reading.is_none();
        if is_new {
            self.reading = Some(Reading::of(&self.basis));
        }
        (self.reading.as_ref(), is_new)
    }

    /// The bucket of the 90th percentile, as last read.
    pub(super) fn p90(&self) -> Option<usize> {
        self.reading.as_ref().map(|reading| reading.cuts[0].from.saturating_sub(1))
    }

    /// The share of calls in bucket `from` and above, as last read.
    pub(super) fn rate_from(&self, from: usize) -> f64 {
        let tail: f64 = self.basis.get(from..).unwrap_or_default().iter().sum();
        assumed_rate(&Tally { all: self.basis.iter().sum(), bad: tail })
    }

    pub(super) fn learn(&mut self, stable: &Buckets) {
        for (count, &n) in self.counts.iter_mut().zip(stable) {
            *count += n as f64;
            self.total += n as f64;
        }
        while self.total > MEMORY {
            self.counts.iter_mut().for_each(|count| *count /= 2.0);
            self.total /= 2.0;
            self.last = self.last.map(|last| last / 2.0);
        }
    }

    pub(super) fn is_sound(&self) -> bool {
        let is_count = |count: &f64| (0.0..f64::INFINITY).contains(count);
        let sum: f64 = self.counts.iter().sum();
        self.counts.iter().chain(&self.basis).all(is_count)
            && (0.0..=MEMORY).contains(&self.total)
            && (sum - self.total).abs() <= 1e-6 * (1.0 + self.total)
            && self.last.is_none_or(|last| is_count(&last) && self.basis.iter().sum::<f64>() > 0.0)
    }
}

impl Reading {
    fn of(counts: &[f64]) -> Self {
        let total: f64 = counts.iter().sum();
        let mut below = 0.0;
        let middle = counts.iter().map(|count| {
            let middle = (below + count / 2.0) / total;
            below += count;
            middle.min(1.0)
        });
        Self { middle: middle.collect(), cuts: LEVELS.map(|level| Cut::at(counts, level, total)) }
    }
}

impl Cut {
    fn at(counts: &[f64], level: f64, total: f64) -> Self {
        let (mut from, mut tail) = (BUCKETS, 0.0);
        while from > 1 && tail + counts[from - 1] <= (1.0 - level) * total {
            from -= 1;
            tail += counts[from];
        }
        Self { from, rate: assumed_rate(&Tally { all: total, bad: tail }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_read_below_a_hundred() {
        let mut buckets = [0; BUCKETS];
        buckets[50] = 99;
        let mut histogram = Histogram::new(&buckets);
        assert!(histogram.renew().0.is_none());
        let mut one = [0; BUCKETS];
        one[60] = 1;
        histogram.learn(&one);
        let (reading, is_new) = histogram.renew();
        let cuts = reading.unwrap().cuts.map(|cut| cut.from);
        assert_eq!((cuts, is_new), ([51, 51, 61], true));
        assert!(!histogram.renew().1);
    }

    #[test]
    fn the_past_is_halved() {
        let mut histogram = Histogram::new(&[10_000; BUCKETS]);
        assert!(histogram.total <= MEMORY && histogram.is_sound());
        histogram.renew();
        histogram.learn(&[u64::MAX; BUCKETS]);
        assert!(histogram.total <= MEMORY && histogram.is_sound(), "{}", histogram.total);
    }
}
