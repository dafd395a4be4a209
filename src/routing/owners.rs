//! Who owns each of the 10,000 buckets: what a sticky split looks a user's version up in.
//!
//! Pure. Invariants: how many buckets a version owns follows from the weights alone, by largest remainder; a change
//! gives only as many buckets a new owner as it must, so a version whose part does not shrink loses none; the same
//! table and weights always give the same table.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;

use super::sticky::{BUCKETS, Bucket};
use crate::model::Weight;

/// Owns what nobody owns any more, until the next move.
const NOBODY: u32 = u32::MAX;

/// See the file's head. Versions are named by their index in the split.
#[derive(Clone, PartialEq, Eq)]
pub struct Owners(Box<[u32]>);

impl Owners {
    /// Everybody's first: contiguous, in the order of the versions. `None` when no version has weight.
    pub fn new(weights: &[(usize, Weight)]) -> Option<Self> {
        let table = due(weights).into_iter().flat_map(|(v, n)| std::iter::repeat_n(v, n)).collect::<Box<[u32]>>();
        (!table.is_empty()).then_some(Self(table))
    }

    /// The table under other weights. Versions may be new or missing: who is not in `weights` loses everything.
    /// When no version has weight nothing moves.
    ///
    /// A version gives its highest buckets to versions behind it and its lowest to those before it. So the runs stay
    /// long, and with two versions those who came last are the first to go back.
    pub fn moved(&self, weights: &[(usize, Weight)]) -> Self {
        let due = due(weights);
        if due.is_empty() {
            return self.clone();
        }
        let held = self.held();
        let mut table = self.0.clone();
        let wanted = |(v, n): (&u32, &usize)| (*v, n.saturating_sub(held.get(v).map_or(0, VecDeque::len)));
        let mut gainers: VecDeque<(u32, usize)> = due.iter().map(wanted).filter(|(_, n)| *n > 0).collect();
        for (owner, mut buckets) in held {
            let keeps = due.get(&owner).copied().unwrap_or(0);
            while buckets.len() > keeps
                && let Some((gainer, wants)) = gainers.front_mut()
            {
                let bucket = if *gainer > owner { buckets.pop_back() } else { buckets.pop_front() };
                bucket.into_iter().for_each(|b| table[b] = *gainer);
                *wants -= 1;
                if *wants == 0 {
                    gainers.pop_front();
                }
            }
        }
        Self(table)
    }

    /// The version that owns a bucket.
    pub fn owner(&self, bucket: Bucket) -> usize {
        self.0[usize::from(bucket.value())] as usize
    }

    /// From the stored form: how many buckets in a row have which owner; `None` = an owner that is gone. `None` if
    /// these are not exactly all buckets.
    pub fn from_runs(runs: impl IntoIterator<Item = (Option<usize>, u16)>) -> Option<Self> {
        let mut table = Vec::with_capacity(usize::from(BUCKETS));
        for (owner, length) in runs {
            let owner = owner.and_then(|v| u32::try_from(v).ok()).unwrap_or(NOBODY);
            if table.len() + usize::from(length) > usize::from(BUCKETS) {
                return None;
            }
            table.extend(std::iter::repeat_n(owner, usize::from(length)));
        }
        (table.len() == usize::from(BUCKETS)).then(|| Self(table.into()))
    }

    /// The stored form, as short as can be; see `from_runs`.
    pub fn runs(&self) -> impl Iterator<Item = (Option<usize>, u16)> {
        let run = |run: &[u32]| (Some(run[0]).filter(|v| *v != NOBODY).map(|v| v as usize), run.len() as u16);
        self.0.chunk_by(|a, b| a == b).map(run)
    }

    /// Each owner's buckets, ascending.
    fn held(&self) -> BTreeMap<u32, VecDeque<usize>> {
        let mut held = BTreeMap::<u32, VecDeque<usize>>::new();
        let mut from = 0;
        for run in self.0.chunk_by(|a, b| a == b) {
            held.entry(run[0]).or_default().extend(from..from + run.len());
            from += run.len();
        }
        held
    }
}

impl fmt::Debug for Owners {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.runs()).finish()
    }
}

/// How many buckets each version is due, all of them together: the whole part of each, and what is left one by one to
/// the largest remainders, of equals to the first. Empty when no version has weight.
fn due(weights: &[(usize, Weight)]) -> BTreeMap<u32, usize> {
    let total: u64 = weights.iter().map(|(_, w)| u64::from(w.value())).sum();
    if total == 0 {
        return BTreeMap::new();
    }
    let mut parts = BTreeMap::<u32, u64>::new();
    for (version, weight) in weights {
        // No file has as many versions as would not fit.
        *parts.entry(*version as u32).or_default() += u64::from(weight.value()) * u64::from(BUCKETS);
    }
    let mut due: BTreeMap<u32, usize> = parts.iter().map(|(v, n)| (*v, (n / total) as usize)).collect();
    let left = usize::from(BUCKETS) - due.values().sum::<usize>();
    let mut by_remainder: Vec<(u32, u64)> = parts.into_iter().collect();
    by_remainder.sort_by_key(|&(v, n)| (std::cmp::Reverse(n % total), v));
    for (version, _) in by_remainder.into_iter().take(left) {
        *due.entry(version).or_default() += 1;
    }
    due
}

#[cfg(test)]
mod tests;
