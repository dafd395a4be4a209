//! What the store keeps of a split's rollout, for the room that runs it: whose it is, and its progress as text that only
//! that room reads. Pure.
//!
//! Invariants: while a rollout runs nobody else shifts its split; what was promoted stays stable until the file names
//! another stable version itself.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::book::Kept;
use super::orders::{Changed, Mark};
use super::precedence::in_order;
use super::{ApplyError, Order};
use crate::config::Split;
use crate::model::{Revision, Source, VersionName, Weights};

/// A rollout as it lies in `state.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RolloutMark {
    pub id: String,
    pub to: VersionName,
    /// It has not ended: others may not change the weights.
    pub running: bool,
    /// The split's revision that it has seen last: what is later in history is news to it.
    #[serde(default)]
    pub revision: Revision,
    /// Its progress, to be taken up after a restart; `None` once nothing is left to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<Value>,
}

/// A version that a finished rollout made stable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Promoted {
    pub version: VersionName,
    /// What the file named then.
    pub file_stable: VersionName,
}

/// The version that is stable under a file, and whether a promotion still counts.
pub(super) fn stable(promoted: Option<&Promoted>, split: &Split) -> (VersionName, Option<Promoted>) {
    let has = |version: &VersionName| split.versions.iter().any(|v| v.name == *version);
    let stands = |p: &&Promoted| p.file_stable == split.stable && has(&p.version);
    match promoted.filter(stands) {
        Some(promoted) => (promoted.version.clone(), Some(promoted.clone())),
        None => (split.stable.clone(), None),
    }
}

/// Whether a rollout stands in an order's way.
///
/// # Errors
/// It does.
pub(super) fn refuse(kept: &Kept, split: &Split, order: &Order) -> Result<(), ApplyError> {
    match kept.rollout.as_ref().filter(|rollout| rollout.running && order.source != Source::Rollout) {
        None => Ok(()),
        Some(rollout) => Err(ApplyError::RolloutRunning { split: split.name.clone(), to: rollout.to.clone() }),
    }
}

/// Another progress, or another rollout.
pub(super) fn note(kept: &mut Kept, mark: &RolloutMark) -> bool {
    if kept.rollout.as_ref() == Some(mark) {
        return false;
    }
    if mark.running && !kept.rolled_out.contains(&mark.to) {
        kept.rolled_out.push(mark.to.clone());
    }
    kept.rollout = Some(mark.clone());
    true
}

/// `to` has everything and is stable; the stable before it is where a rollback goes.
pub(super) fn promote(kept: &mut Kept, split: &Split, to: &VersionName, weights: &Weights, mark: &Mark<'_>) -> Changed {
    if !split.versions.iter().any(|v| v.name == *to) {
        return Err(ApplyError::UnknownVersion {
            split: split.name.clone(),
            version: to.to_string(),
            known: split.versions.iter().map(|v| v.name.to_string()).collect(),
        });
    }
    let weights = in_order(weights, &kept.file_weights);
    if kept.stable == *to && kept.weights().same_as(&weights) {
        return Ok(false);
    }
    if kept.stable != *to {
        kept.previous_stable = Some(std::mem::replace(&mut kept.stable, to.clone()));
    }
    kept.promoted = Some(Promoted { version: to.clone(), file_stable: split.stable.clone() });
    kept.override_ = Some(mark.over(weights, false));
    kept.closed.clear();
    Ok(true)
}

/// Versions that were rolled out and are still in the file.
pub(super) fn still_known(kept: &Kept, split: &Split) -> Vec<VersionName> {
    let has = |version: &&VersionName| split.versions.iter().any(|v| v.name == **version);
    kept.rolled_out.iter().filter(has).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::testing::*;
    use crate::state::{Change, Store};

    fn mark(id: &str, running: bool) -> RolloutMark {
        let (revision, progress) = (Revision(1), Some(serde_json::json!({"step": 1})));
        RolloutMark { id: id.into(), to: name("v2"), running, revision, progress }
    }

    fn note(store: &Store, mark: RolloutMark) {
        store.apply(order(Change::Note { split: split_name("shop"), rollout: mark })).unwrap();
    }

    fn to(v1: u32, v2: u32, source: Source) -> Order {
        let weights = weights(&[("v1", v1), ("v2", v2)]);
        Order { source, ..order(Change::SetWeights { split: split_name("shop"), weights, hold: false }) }
    }

    #[test]
    fn progress_is_there_after_a_restart_and_no_revision_is_used_up() {
        let dir = tempfile::tempdir().unwrap();
        let config = shop(dir.path(), &[("v1", 100), ("v2", 0)]);
        let store = open(config.clone());
        let before = store.snapshot().revision;
        note(&store, mark("a", true));
        note(&store, mark("a", true));
        assert_eq!(store.snapshot().revision, before);
        drop(store);
        let store = open(config);
        let now = store.snapshot();
        let split = now.split("shop").unwrap();
        assert_eq!(split.rollout, Some(mark("a", true)));
        assert_eq!((&*split.rollout_tag, split.rolled_out.as_slice()), ("a", &[name("v2")][..]));
    }

    #[test]
    fn while_it_runs_only_the_rollout_shifts_and_anybody_rolls_back() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(shop(dir.path(), &[("v1", 100), ("v2", 0)]));
        note(&store, mark("a", true));
        for refused in [to(50, 50, Source::Api), order(Change::Release { split: split_name("shop") })] {
            let error = store.apply(refused).unwrap_err();
            assert!(matches!(error, ApplyError::RolloutRunning { .. }), "{error}");
        }
        assert!(store.apply(to(75, 25, Source::Rollout)).unwrap().changed);
        let back = Change::Rollback { split: split_name("shop"), to: None, to_revision: None, force: true };
        assert!(store.apply(order(back)).unwrap().changed);
        note(&store, mark("a", false));
        assert!(store.apply(to(50, 50, Source::Api)).unwrap().changed);
    }

    #[test]
    fn what_was_promoted_is_stable_until_the_file_names_another() {
        let dir = tempfile::tempdir().unwrap();
        let config = shop(dir.path(), &[("v1", 100), ("v2", 0)]);
        let store = open(config.clone());
        let everything = weights(&[("v1", 0), ("v2", 100)]);
        let promote =
            || order(Change::Promote { split: split_name("shop"), to: name("v2"), weights: everything.clone() });
        assert!(store.apply(promote()).unwrap().changed);
        assert!(!store.apply(promote()).unwrap().changed, "twice is the same deed");
        drop(store);
        let store = open(config);
        let stable = |store: &Store| {
            let now = store.snapshot();
            let split = now.split("shop").unwrap();
            (split.stable.to_string(), split.previous_stable.as_ref().map(ToString::to_string))
        };
        assert_eq!(stable(&store), ("v2".into(), Some("v1".into())));
        let reload = |weights: &[(&str, u32)]| {
            let config = shop(dir.path(), weights);
            store.apply(order(Change::Reload { config })).unwrap();
        };
        reload(&[("v1", 90), ("v2", 10)]);
        assert_eq!(stable(&store), ("v2".into(), Some("v1".into())), "the file's stable is what it was");
        reload(&[("v1", 10), ("v2", 90)]);
        reload(&[("v1", 90), ("v2", 10)]);
        assert_eq!(stable(&store).0, "v1", "the file has named another since");
    }
}
