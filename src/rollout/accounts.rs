//! The books of a rollout: every request by step, version, status and cause.
//!
//! Cells only rise and are read while they are written, per worker and process; the receipt takes the difference to what
//! a source has brought before. Invariant: what it holds is, to the last request, the sum of every source's highest
//! reading; a reading that is lost, late or repeated changes nothing of that.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::model::VersionName;

/// What has been counted of one version in one step: a reading of rising counters, or a sum of differences of such.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Counters {
    /// The outcome of first attempts by status; 0: none (no answer).
    pub statuses: BTreeMap<u16, u64>,
    /// Failed attempts by cause, as in `weir_errors_total`.
    pub causes: BTreeMap<String, u64>,
    pub retried: u64,
    /// Answered by stable instead.
    pub rescued: u64,
    /// Answered by another version, for this one had no endpoint.
    pub spilled: u64,
    /// Ended at the deadline of a drain.
    pub cut: u64,
}

/// Some counters of a source fell: this is not a later reading of the same counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("counters of the same source fell")]
pub struct WentBack;

/// One rollout's books. `S` names a source of counters whose requests are all of one step and version: process,
/// generation, worker, epoch, version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt<S: Ord> {
    /// By step, `None` before the first, and version.
    sheets: Vec<Sheet>,
    /// What each source has brought. Not written down: what a source of an earlier process counted is in the sheets, and
    /// a restarted process is another source.
    #[serde(skip, default = "BTreeMap::new")]
    brought: BTreeMap<S, Counters>,
}

/// One line of the books.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sheet {
    /// From 0; `None`: before the first.
    pub step: Option<usize>,
    pub version: VersionName,
    pub counters: Counters,
}

impl<S: Ord> Default for Receipt<S> {
    fn default() -> Self {
        Self { sheets: Vec::new(), brought: BTreeMap::new() }
    }
}

impl<S: Ord> Receipt<S> {
    /// Goes on with sheets that an earlier process has written.
    pub fn of(sheets: Vec<Sheet>) -> Self {
        Self { sheets, brought: BTreeMap::new() }
    }

    /// Where a source stands at the rollout's start: what it counted before is none of its requests.
    pub fn begin(&mut self, source: S, reading: Counters) {
        self.brought.insert(source, reading);
    }

    /// Takes in what a reading brings that was not known. An older reading that comes late brings nothing.
    ///
    /// # Errors
    /// The reading contradicts an earlier one; it is left out.
    pub fn take(
        &mut self,
        source: S,
        step: Option<usize>,
        version: &VersionName,
        now: &Counters,
    ) -> Result<(), WentBack> {
        let before = self.brought.entry(source).or_default();
        if !now.covers(before) {
            return if before.covers(now) { Ok(()) } else { Err(WentBack) };
        }
        let new = now.since(before);
        *before = now.clone();
        if new != Counters::default() {
            self.sheet(step, version).add(&new);
        }
        Ok(())
    }

    fn sheet(&mut self, step: Option<usize>, version: &VersionName) -> &mut Counters {
        let found = self.sheets.iter().position(|s| s.step == step && s.version == *version);
        let at = found.unwrap_or_else(|| {
            self.sheets.push(Sheet { step, version: version.clone(), counters: Counters::default() });
            self.sheets.sort_by(|a, b| (a.step, a.version.as_str()).cmp(&(b.step, b.version.as_str())));
            self.sheets.iter().position(|s| s.step == step && s.version == *version).unwrap_or_default()
        });
        &mut self.sheets[at].counters
    }

    /// In order of steps, then of names.
    pub fn sheets(&self) -> &[Sheet] {
        &self.sheets
    }

    /// Of a version over all steps.
    pub fn total(&self, version: &VersionName) -> Counters {
        let mut total = Counters::default();
        self.sheets.iter().filter(|s| s.version == *version).for_each(|s| total.add(&s.counters));
        total
    }
}

impl Counters {
    /// Requests, whatever became of them.
    pub fn requests(&self) -> u64 {
        self.statuses.values().sum()
    }

    /// Neither a status nor a cause has fallen.
    fn covers(&self, earlier: &Self) -> bool {
        let by_key = |now: u64, earlier: u64| now >= earlier;
        earlier.statuses.iter().all(|(k, n)| by_key(self.statuses.get(k).copied().unwrap_or(0), *n))
            && earlier.causes.iter().all(|(k, n)| by_key(self.causes.get(k).copied().unwrap_or(0), *n))
            && self.single().into_iter().zip(earlier.single()).all(|(now, earlier)| by_key(now, earlier))
    }

    fn single(&self) -> [u64; 4] {
        [self.retried, self.rescued, self.spilled, self.cut]
    }

    /// Without what was counted earlier; `self` covers it.
    fn since(&self, earlier: &Self) -> Self {
        Self {
            statuses: difference(&self.statuses, &earlier.statuses),
            causes: difference(&self.causes, &earlier.causes),
            retried: self.retried.saturating_sub(earlier.retried),
            rescued: self.rescued.saturating_sub(earlier.rescued),
            spilled: self.spilled.saturating_sub(earlier.spilled),
            cut: self.cut.saturating_sub(earlier.cut),
        }
    }

    fn add(&mut self, other: &Self) {
        other.statuses.iter().for_each(|(k, n)| *self.statuses.entry(*k).or_default() += n);
        other.causes.iter().for_each(|(k, n)| *self.causes.entry(k.clone()).or_default() += n);
        self.retried += other.retried;
        self.rescued += other.rescued;
        self.spilled += other.spilled;
        self.cut += other.cut;
    }
}

fn difference<K: Ord + Clone>(now: &BTreeMap<K, u64>, earlier: &BTreeMap<K, u64>) -> BTreeMap<K, u64> {
    let since = |(k, n): (&K, &u64)| (k.clone(), n.saturating_sub(earlier.get(k).copied().unwrap_or(0)));
    now.iter().map(since).filter(|(_, n)| *n > 0).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::rollout::testing::version;

    fn counters(status: u16, n: u64, cause: &str) -> Counters {
        let causes = if status >= 500 { BTreeMap::from([(cause.to_owned(), n)]) } else { BTreeMap::new() };
        Counters { statuses: BTreeMap::from([(status, n)]), causes, retried: n / 3, cut: n / 7, ..Counters::default() }
    }

    #[test]
    fn what_was_counted_before_the_start_is_left_out() {
        let (mut receipt, v1) = (Receipt::default(), version("v1"));
        receipt.begin(1, counters(200, 1000, ""));
        receipt.take(1, Some(0), &v1, &counters(200, 1040, "")).unwrap();
        assert_eq!(receipt.total(&v1).requests(), 40);
        assert_eq!(receipt.sheets().len(), 1);
    }

    #[test]
    fn late_and_repeated_readings_bring_nothing_and_contradictions_are_refused() {
        let (mut receipt, v1) = (Receipt::default(), version("v1"));
        for n in [10, 30, 20, 30] {
            receipt.take(1, Some(0), &v1, &counters(200, n, "")).unwrap();
        }
        assert_eq!(receipt.total(&v1).requests(), 30);
        assert_eq!(receipt.take(1, Some(0), &v1, &counters(503, 40, "status")), Err(WentBack));
        assert_eq!(receipt.total(&v1).requests(), 30);
    }

    #[test]
    fn a_receipt_survives_and_a_new_process_counts_from_nothing() {
        let (mut receipt, v2) = (Receipt::default(), version("v2"));
        receipt.take((1, 0), Some(1), &v2, &counters(503, 21, "connect")).unwrap();
        let text = serde_json::to_string(&receipt).unwrap();
        let mut receipt: Receipt<(u32, u32)> = serde_json::from_str(&text).unwrap();
        receipt.take((2, 0), Some(1), &v2, &counters(503, 4, "connect")).unwrap();
        let [sheet] = receipt.sheets() else { panic!("{receipt:?}") };
        assert_eq!(sheet.counters.causes, BTreeMap::from([("connect".to_owned(), 25)]));
        assert_eq!((sheet.counters.retried, sheet.counters.cut), (8, 3));
    }

    proptest! {
        /// Sources count in their own steps and versions; readings are lost, repeated and late; the last always comes.
        #[test]
        fn the_sums_are_those_of_the_requests(
            requests in prop::collection::vec((0..6usize, prop::sample::select(vec![200u16, 404, 500, 503])), 0..400),
            readings in prop::collection::vec((0..6usize, 0..8usize), 0..200),
        ) {
            let mut true_sheets: BTreeMap<(Option<usize>, &str), BTreeMap<u16, u64>> = BTreeMap::new();
            let place = |source: usize| ([None, Some(0), Some(1)][source % 3], ["v1", "v2"][source % 2]);
            let mut cells = vec![vec![Counters::default()]; 6];
            let mut receipt = Receipt::default();
            let mut readings = readings.into_iter();
            for (source, status) in requests {
                let mut cell = cells[source].last().unwrap().clone();
                *cell.statuses.entry(status).or_default() += 1;
                if status >= 500 {
                    *cell.causes.entry("status".into()).or_default() += 1;
                    cell.retried += 1;
                }
                cells[source].push(cell);
                *true_sheets.entry(place(source)).or_default().entry(status).or_default() += 1;
                if let Some((source, back)) = readings.next() {
                    let reading = cells[source].iter().rev().nth(back).unwrap_or(&cells[source][0]);
                    let (step, name) = place(source);
                    receipt.take(source, step, &version(name), reading).unwrap();
                }
            }
            for (source, history) in cells.iter().enumerate() {
                let (step, name) = place(source);
                receipt.take(source, step, &version(name), history.last().unwrap()).unwrap();
            }
            let found: BTreeMap<_, _> =
                receipt.sheets().iter().map(|s| ((s.step, s.version.as_str()), s.counters.statuses.clone())).collect();
            prop_assert_eq!(&found, &true_sheets);
            for sheet in receipt.sheets() {
                let bad: u64 = sheet.counters.statuses.iter().filter(|(s, _)| **s >= 500).map(|(_, n)| n).sum();
                prop_assert_eq!(sheet.counters.causes.values().sum::<u64>(), bad);
                prop_assert_eq!(sheet.counters.retried, bad);
            }
            let all = receipt.total(&version("v1")).requests() + receipt.total(&version("v2")).requests();
            prop_assert_eq!(all, true_sheets.values().flat_map(|s| s.values()).sum::<u64>());
        }
    }
}
