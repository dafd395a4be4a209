//! The owners of a split's sticky buckets as they are remembered: by name, so that a file may order its versions anew,
//! and run by run, so that the state file stays short.
//!
//! Pure. Invariant: what is kept names only versions that own something, in the file's order, and covers all buckets.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::config::Split;
use crate::model::{VersionName, Weight};
use crate::routing::Owners;

/// See the file's head.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct KeptOwners {
    versions: Vec<VersionName>,
    /// Index into `versions`, number of buckets.
    runs: Vec<(usize, u16)>,
}

impl KeptOwners {
    /// The owners under a coin, moved from those before as little as must be. While no version takes requests the
    /// owners stay as they were: who comes back gets its own again.
    pub fn under(before: Option<&Self>, coin: &[(usize, VersionName, Weight)], split: &Split) -> Option<Self> {
        let weights: Vec<_> = coin.iter().map(|(i, _, w)| (*i, *w)).collect();
        if weights.is_empty() {
            return before.cloned();
        }
        let moved = before.and_then(|kept| kept.table(split)).map(|owners| owners.moved(&weights));
        moved.or_else(|| Owners::new(&weights)).map(|owners| Self::new(&owners, split))
    }

    fn new(owners: &Owners, split: &Split) -> Self {
        let some: BTreeSet<usize> = owners.runs().filter_map(|(version, _)| version).collect();
        let name = |version: &usize| split.versions.get(*version).map(|v| v.name.clone());
        let place = |version: usize| some.range(..version).count();
        let runs = owners.runs().filter_map(|(version, n)| Some((place(version?), n))).collect();
        Self { versions: some.iter().filter_map(name).collect(), runs }
    }

    /// By the indexes of the split's versions; `None` if what was kept does not cover all buckets. Versions that left
    /// the split own nothing.
    pub fn table(&self, split: &Split) -> Option<Owners> {
        let index = |name: &VersionName| split.versions.iter().position(|v| v.name == *name);
        let indexes: Vec<_> = self.versions.iter().map(index).collect();
        Owners::from_runs(self.runs.iter().map(|&(v, n)| (indexes.get(v).copied().flatten(), n)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Sticky;
    use crate::state::book::Kept;
    use crate::state::testing::{name, split};

    fn sticky(pairs: &[(&str, u32)]) -> Split {
        Split { sticky: Some(Sticky::ClientIp), ..split("shop", pairs) }
    }

    fn json(kept: &KeptOwners) -> String {
        serde_json::to_string(kept).unwrap()
    }

    #[test]
    fn the_stored_form_is_short_and_by_name() {
        let file = sticky(&[("v1", 90), ("v2", 10), ("v3", 0)]);
        let kept = Kept::fresh(&file).owners.unwrap();
        assert_eq!(json(&kept), r#"{"versions":["v1","v2"],"runs":[[0,9000],[1,1000]]}"#);
        assert_eq!(serde_json::from_str::<KeptOwners>(&json(&kept)).unwrap(), kept);
        assert!(Kept::fresh(&split("shop", &[("v1", 1)])).owners.is_none(), "not sticky");
    }

    #[test]
    fn another_order_in_the_file_moves_nobody() {
        let (file, turned) = (sticky(&[("v1", 90), ("v2", 10)]), sticky(&[("v2", 10), ("v1", 90)]));
        let kept = Kept::fresh(&file).owners.unwrap();
        let next = KeptOwners::under(Some(&kept), &Kept::fresh(&turned).coin, &turned).unwrap();
        assert_eq!(json(&next), r#"{"versions":["v2","v1"],"runs":[[1,9000],[0,1000]]}"#);
    }

    #[test]
    fn who_leaves_the_file_leaves_only_its_own_buckets() {
        let (before, file) = (sticky(&[("v1", 50), ("v2", 30), ("v3", 20)]), sticky(&[("v1", 50), ("v3", 50)]));
        let kept = Kept::fresh(&before).owners.unwrap();
        let next = KeptOwners::under(Some(&kept), &Kept::fresh(&file).coin, &file).unwrap();
        assert_eq!(json(&next), r#"{"versions":["v1","v3"],"runs":[[0,5000],[1,5000]]}"#);
    }

    #[test]
    fn what_does_not_cover_all_buckets_is_made_anew() {
        let file = sticky(&[("v1", 1), ("v2", 1)]);
        let torn = KeptOwners { versions: vec![name("v1")], runs: vec![(0, 17), (9, 3)] };
        let kept = Kept { owners: Some(torn), ..Kept::fresh(&file) };
        assert_eq!(KeptOwners::under(kept.owners.as_ref(), &kept.coin, &file), Kept::fresh(&file).owners);
    }

    #[test]
    fn while_nobody_takes_requests_the_owners_stay() {
        let file = sticky(&[("v1", 75), ("v2", 25)]);
        let kept = Kept::fresh(&file).owners;
        assert_eq!(KeptOwners::under(kept.as_ref(), &[], &file), kept);
        assert_eq!(KeptOwners::under(None, &[], &file), None);
    }
}
