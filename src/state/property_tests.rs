//! Any sequence of orders keeps the promises: gapless revisions, coins, owners and rules that follow from the state, no
//! user moved without need, nothing acknowledged forgotten, dry runs that touch nothing.

use std::collections::HashMap;
use std::sync::Arc;

use proptest::prelude::*;

use super::testing::*;
use super::*;
use crate::config::{Config, Match, Rule, RuleChoice, Split, Sticky};
use crate::model::{Revision, Weight};
use crate::routing::{BUCKETS, Bucket, Owners};

const VERSIONS: [&str; 4] = ["v1", "v2", "v3", "v4"];

#[derive(Clone, Debug)]
enum Step {
    Shift([u32; 4], bool),
    Rollback(Option<usize>, bool),
    BackTo(u64),
    Release,
    Drain(usize, Option<usize>),
    Undrain(usize, Option<usize>),
    /// Weights of the versions that are in the file, in a rotated order; the second split too?
    Reload([Option<u32>; 4], usize, bool),
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let weight = prop_oneof![Just(0u32), 1..4u32, Just(1_000_000)];
    let endpoint = || prop::option::of(0..2usize);
    prop_oneof![
        4 => (prop::array::uniform4(weight.clone()), any::<bool>()).prop_map(|(w, h)| Step::Shift(w, h)),
        2 => (prop::option::of(0..4usize), any::<bool>()).prop_map(|(v, f)| Step::Rollback(v, f)),
        1 => (1..12u64).prop_map(Step::BackTo),
        1 => Just(Step::Release),
        2 => (0..4usize, endpoint()).prop_map(|(v, e)| Step::Drain(v, e)),
        2 => (0..4usize, endpoint()).prop_map(|(v, e)| Step::Undrain(v, e)),
        4 => (prop::array::uniform4(prop::option::weighted(0.7, weight)), 0..4usize, any::<bool>())
            .prop_map(|(w, r, s)| Step::Reload(w, r, s)),
        1 => Just(Step::Restart),
    ]
}

/// With a rule for everybody, another for testers; sticky or not.
fn ruled(name: &str, pairs: &[(&str, u32)], sticky: bool) -> Split {
    let weights = (0..pairs.len()).map(|i| (i, Weight::new(1).unwrap())).collect();
    let rule = |name: &str, choice, test| Rule { name: name.into(), matches: vec![Match::default()], choice, test };
    let rules = vec![rule("all", RuleChoice::Weights(weights), false), rule("test", RuleChoice::Version(0), true)];
    Split { sticky: sticky.then_some(Sticky::ClientIp), rules, ..split(name, pairs) }
}

/// A valid file, or none if the step does not make one.
fn file(dir: &std::path::Path, given: &[Option<u32>; 4], rotate: usize, second: bool) -> Option<Arc<Config>> {
    let mut pairs: Vec<_> = VERSIONS.into_iter().zip(given).filter_map(|(v, w)| w.map(|w| (v, w))).collect();
    if pairs.iter().all(|(_, w)| *w == 0) {
        return None;
    }
    let by = rotate % pairs.len();
    pairs.rotate_left(by);
    let blog = second.then(|| split("blog", &[("a", 1)]));
    Some(config(dir, std::iter::once(ruled("shop", &pairs, rotate != 3)).chain(blog).collect()))
}

fn change(step: &Step, store: &Store, dir: &std::path::Path) -> Option<Change> {
    let at = |v: usize, e: Option<usize>| e.map(|e| endpoints(VERSIONS[v])[e]);
    Some(match step {
        Step::Shift(w, hold) => {
            let has = |v: &str| store.snapshot().splits[0].version(v).is_some();
            let pairs: Vec<_> = VERSIONS.into_iter().zip(*w).filter(|(v, _)| has(v)).collect();
            Change::SetWeights { split: split_name("shop"), weights: weights(&pairs), hold: *hold }
        }
        Step::Rollback(to, force) => {
            let to = to.map(|v| name(VERSIONS[v]));
            Change::Rollback { split: split_name("shop"), to, to_revision: None, force: *force }
        }
        Step::BackTo(revision) => back_to(*revision),
        Step::Release => release(),
        Step::Drain(v, e) => drain(VERSIONS[*v], at(*v, *e)),
        Step::Undrain(v, e) => undrain(VERSIONS[*v], at(*v, *e)),
        Step::Reload(w, r, s) => Change::Reload { config: file(dir, w, *r, *s)? },
        Step::Restart => return None,
    })
}

/// All of a snapshot that must be found again, as text.
fn remembered(snapshot: &Snapshot) -> String {
    let version = |v: &VersionState| {
        let drains: Vec<_> = v.pool.endpoints().iter().map(|e| (e.address(), e.is_draining())).collect();
        format!("{:?}", (&v.name, v.weight, v.closed, v.draining, drains))
    };
    let split = |s: &Arc<SplitState>| {
        let versions: Vec<_> = s.versions.iter().map(version).collect();
        let stables = (&s.stable, &s.previous_stable);
        format!(
            "{:?}",
            (
                (&s.name, s.revision, s.epoch, &s.weights, &s.file_weights, &s.override_),
                (stables, versions, &s.coin, &s.owners, &s.rules)
            )
        )
    };
    format!("{:?} {:?}", snapshot.revision, snapshot.splits.iter().map(split).collect::<Vec<_>>())
}

fn check(snapshot: &Snapshot) {
    for (split, file) in snapshot.splits.iter().zip(&snapshot.config.splits) {
        assert_eq!(split.file_weights, file.weights());
        assert!(split.weights.iter().map(|(v, _)| v).eq(file.versions.iter().map(|v| &v.name)));
        assert!(split.weights.total() > 0);
        assert!(split.is_held() || split.versions.iter().all(|v| !v.closed));
        let open = split.versions.iter().enumerate().filter(|(_, v)| !v.closed && !v.draining && !v.weight.is_zero());
        assert_eq!(split.coin.0, open.map(|(i, v)| (i, v.weight)).collect::<Vec<_>>());
        let stopped = split.versions.iter().filter(|v| !v.weight.is_zero()).all(|v| v.draining);
        assert_eq!(split.coin.0.is_empty(), stopped, "a version with weight is never closed");
        check_rules(split);
        assert_eq!(split.owners.is_some(), file.sticky.is_some() && !split.coin.0.is_empty());
        let fresh = Owners::new(&split.coin.0).map(|owners| counts(split, &owners));
        assert!(split.owners.as_ref().is_none_or(|owners| Some(counts(split, owners)) == fresh), "shares are exact");
        for version in split.versions.iter().filter(|v| v.draining) {
            assert!(version.pool.endpoints().iter().all(|e| e.is_draining()));
        }
    }
}

fn check_rules(split: &SplitState) {
    let takes = |test: bool| {
        let takes = |v: &VersionState| !v.draining && (test || !v.closed);
        split.versions.iter().map(takes).collect::<Vec<_>>()
    };
    let Some(rules) = (!split.rules.is_empty()).then_some(&split.rules) else {
        assert!(split.name.as_str() != "shop" || takes(false).iter().all(|t| !t) && !takes(true)[0]);
        return;
    };
    let all: Vec<_> = takes(false).iter().enumerate().filter(|(_, t)| **t).map(|(i, _)| i).collect();
    let of = |index| rules.iter().find(|r| r.index == index).map(|r| r.choices.iter().map(|c| c.0).collect::<Vec<_>>());
    assert_eq!(of(0).unwrap_or_default(), all);
    assert_eq!(of(1), takes(true)[0].then(|| vec![0]));
}

/// How many buckets each version has.
fn counts(split: &SplitState, owners: &Owners) -> Vec<usize> {
    let mut counts = vec![0; split.versions.len()];
    owners.runs().for_each(|(owner, length)| counts[owner.unwrap()] += usize::from(length));
    counts
}

/// A bucket changes hands only because its owner had to give some up.
fn check_moves(before: &SplitState, after: &SplitState) {
    let (Some(was), Some(is)) = (&before.owners, &after.owners) else { return };
    let index = |v: &VersionState| after.versions.iter().position(|a| a.name == v.name);
    let now_at: Vec<_> = before.versions.iter().map(index).collect();
    let buckets = (0..BUCKETS).filter_map(Bucket::new);
    let moved = buckets.filter(|&b| now_at[was.owner(b)] != Some(is.owner(b))).count();
    let (had, has) = (counts(before, was), counts(after, is));
    let given: usize = now_at.iter().zip(had).map(|(now, had)| had.saturating_sub(now.map_or(0, |i| has[i]))).sum();
    assert_eq!(moved, given);
}

/// One coin, one epoch, over the whole run.
fn check_epochs(seen: &mut HashMap<(String, u64), Vec<String>>, snapshot: &Snapshot) {
    for split in &snapshot.splits {
        let coin = split.coin.0.iter().map(|(i, w)| format!("{i} {} {}", split.versions[*i].name, w.value())).collect();
        let known = seen.entry((split.name.to_string(), split.epoch)).or_insert_with(|| Clone::clone(&coin));
        assert_eq!(*known, coin, "epoch {}", split.epoch);
    }
}

fn run(steps: &[Step]) {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(config(dir.path(), vec![ruled("shop", &[("v1", 90), ("v2", 10)], true)]));
    let mut epochs = HashMap::new();
    for step in steps {
        let before = store.snapshot();
        let shown = remembered(&before);
        if let Some(change) = change(step, &store, dir.path()) {
            let rehearsed = store.apply(Order { dry_run: true, ..order(change.clone()) });
            assert_eq!(remembered(&store.snapshot()), shown, "a dry run changed something");
            match apply(&store, change) {
                Err(error) => {
                    assert_eq!(rehearsed.unwrap_err().to_string(), error.to_string());
                    assert!(Arc::ptr_eq(&before, &store.snapshot()));
                    assert_eq!(remembered(&store.snapshot()), shown);
                }
                Ok(applied) => {
                    let would = rehearsed.unwrap();
                    assert_eq!(would.changed, applied.changed);
                    assert_eq!(would.snapshot.splits[0].weights, applied.snapshot.splits[0].weights);
                    assert_eq!(would.snapshot.splits[0].coin, applied.snapshot.splits[0].coin);
                    assert_eq!(applied.snapshot.revision.0, before.revision.0 + u64::from(applied.changed));
                    assert_eq!(applied.events.is_empty(), !applied.changed);
                    assert!(applied.events.iter().all(|e| e.revision == applied.snapshot.revision));
                    let file = matches!(step, Step::Reload(..));
                    let held = before.splits[0].is_held();
                    assert!(!(file && held) || applied.snapshot.splits[0].is_held(), "a file undid a hold");
                }
            }
        } else if matches!(step, Step::Restart) {
            let config = before.config.clone();
            drop(store);
            store = open(config);
            assert_eq!(remembered(&store.snapshot()), shown);
        }
        check(&store.snapshot());
        check_moves(&before.splits[0], &store.snapshot().splits[0]);
        check_epochs(&mut epochs, &store.snapshot());
    }
    let history: Vec<_> = store.history(None, usize::MAX, None).iter().rev().map(|e| e.revision).collect();
    let mut all = history.clone();
    all.dedup();
    assert_eq!(all, (1..=store.snapshot().revision.0).map(Revision).collect::<Vec<_>>());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_orders_keep_the_promises(steps in prop::collection::vec(step(), 1..40)) {
        run(&steps);
    }
}
