//! Owners of sticky buckets, rules and the counts that outlive a snapshot, through the store from outside.

use std::path::Path;
use std::sync::Arc;

use super::testing::*;
use super::*;
use crate::config::{Config, Match, Rule, RuleChoice, Split, Sticky};
use crate::model::Weight;
use crate::routing::{BUCKETS, Bucket};

fn w(n: u32) -> Weight {
    Weight::new(n).unwrap()
}

fn sticky_split(pairs: &[(&str, u32)]) -> Split {
    Split { sticky: Some(Sticky::ClientIp), ..split("shop", pairs) }
}

fn sticky(dir: &Path, pairs: &[(&str, u32)]) -> Arc<Config> {
    config(dir, vec![sticky_split(pairs)])
}

fn reload(store: &Store, config: Arc<Config>) -> Applied {
    apply(store, Change::Reload { config }).unwrap()
}

fn shop_of(store: &Store) -> Arc<SplitState> {
    store.snapshot().split("shop").unwrap().clone()
}

/// The version each bucket has, by name.
fn users(store: &Store) -> Vec<String> {
    let shop = shop_of(store);
    let owners = shop.owners.as_ref().unwrap();
    let name = |n| shop.versions[owners.owner(Bucket::new(n).unwrap())].name.to_string();
    (0..BUCKETS).map(name).collect()
}

fn moved(before: &[String], after: &[String]) -> usize {
    before.iter().zip(after).filter(|(a, b)| a != b).count()
}

fn on(users: &[String], version: &str) -> usize {
    users.iter().filter(|u| *u == version).count()
}

#[test]
fn steps_move_only_whom_they_must_over_restarts_and_reloads() {
    let dir = tempfile::tempdir().unwrap();
    let file = [("v1", 99), ("v2", 1), ("v3", 0)];
    let mut store = open(sticky(dir.path(), &file));
    let mut before = users(&store);
    assert_eq!(on(&before, "v2"), 100);
    for percent in [5, 25, 50] {
        done(&store, shift(&[("v1", 100 - percent), ("v2", percent), ("v3", 0)]));
        let after = users(&store);
        assert_eq!(on(&after, "v2"), percent as usize * 100);
        assert_eq!(moved(&before, &after), on(&after, "v2") - on(&before, "v2"));
        drop(store);
        store = open(sticky(dir.path(), &file));
        assert_eq!(users(&store), after, "after a restart");
        assert!(!reload(&store, sticky(dir.path(), &file)).changed);
        let turned = [("v3", 0), ("v2", 1), ("v1", 99)];
        reload(&store, sticky(dir.path(), &turned));
        assert_eq!(users(&store), after, "another order in the file");
        reload(&store, sticky(dir.path(), &file));
        before = users(&store);
        assert_eq!(before, after);
    }
}

#[test]
fn a_rollback_moves_every_user_and_a_release_gives_back_as_few_as_can_be() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(sticky(dir.path(), &[("v1", 75), ("v2", 25)]));
    done(&store, rollback(None));
    assert_eq!(on(&users(&store), "v1"), 10_000);
    drop(store);
    let store = open(sticky(dir.path(), &[("v1", 75), ("v2", 25)]));
    let back = users(&store);
    assert_eq!(on(&back, "v1"), 10_000, "held over a restart");
    done(&store, release());
    assert_eq!(moved(&back, &users(&store)), 2500);
}

#[test]
fn users_of_a_draining_version_go_to_the_others_and_nobody_owns_when_all_drain() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(sticky(dir.path(), &[("v1", 60), ("v2", 20), ("v3", 20)]));
    let before = users(&store);
    done(&store, drain("v2", None));
    let without = users(&store);
    assert_eq!((on(&without, "v1"), on(&without, "v2"), on(&without, "v3")), (7500, 0, 2500));
    assert_eq!(moved(&before, &without), 2000);
    done(&store, undrain("v2", None));
    let all = users(&store);
    assert_eq!((on(&all, "v1"), moved(&without, &all)), (6000, 2000));
    for version in ["v1", "v2", "v3"] {
        done(&store, drain(version, None));
    }
    let shop = shop_of(&store);
    assert!(shop.owners.is_none() && shop.coin.0.is_empty());
    done(&store, undrain("v1", None));
    assert_eq!(on(&users(&store), "v1"), 10_000);
}

#[test]
fn owners_come_and_go_with_sticky_and_older_state_has_none() {
    let dir = tempfile::tempdir().unwrap();
    let pairs = [("v1", 75), ("v2", 25)];
    let store = open(shop(dir.path(), &pairs));
    done(&store, shift(&[("v1", 1), ("v2", 1)]));
    assert!(shop_of(&store).owners.is_none());
    drop(store);
    // What was written so far is what a weir without stickiness writes.
    let text = std::fs::read_to_string(dir.path().join("state.json")).unwrap();
    assert!(!text.contains("owners"), "{text}");
    let store = open(sticky(dir.path(), &pairs));
    assert_eq!(on(&users(&store), "v2"), 5000);
    assert_eq!(in_force(&store), "v1 1, v2 1", "the override stands");
    let text = std::fs::read_to_string(dir.path().join("state.json")).unwrap();
    assert!(text.contains(r#""owners":{"versions":["v1","v2"],"runs":[[0,5000],[1,5000]]}"#), "{text}");
    let epoch = shop_of(&store).epoch;
    assert!(reload(&store, shop(dir.path(), &pairs)).changed);
    assert!(shop_of(&store).owners.is_none());
    assert_eq!(shop_of(&store).epoch, epoch, "the coin is the same");
}

fn rule(name: &str, choice: RuleChoice, test: bool) -> Rule {
    Rule { name: name.into(), matches: vec![Match::default()], choice, test }
}

fn ruled(dir: &Path, rules: Vec<Rule>) -> Arc<Config> {
    config(dir, vec![Split { rules, ..split("shop", &[("v1", 90), ("v2", 10), ("v3", 0)]) }])
}

fn choices(store: &Store) -> Vec<(usize, Vec<(usize, u32)>)> {
    let plain = |r: &RuleState| (r.index, r.choices.iter().map(|(v, w)| (*v, w.value())).collect());
    shop_of(store).rules.iter().map(plain).collect()
}

#[test]
fn rules_lose_closed_and_draining_versions_and_fall_through_when_none_is_left() {
    let dir = tempfile::tempdir().unwrap();
    let weights = || RuleChoice::Weights(vec![(0, w(30)), (1, w(50))]);
    let rules = vec![
        rule("testers", RuleChoice::Version(1), true),
        rule("beta", RuleChoice::Version(1), false),
        rule("half", weights(), false),
        rule("third", RuleChoice::Version(2), false),
    ];
    let store = open(ruled(dir.path(), rules));
    let all = vec![(0, vec![(1, 1)]), (1, vec![(1, 1)]), (2, vec![(0, 30), (1, 50)]), (3, vec![(2, 1)])];
    assert_eq!(choices(&store), all, "weight 0 is no reason to refuse a rule");
    done(&store, rollback(None));
    assert_eq!(choices(&store), [(0, vec![(1, 1)]), (2, vec![(0, 30)])], "closed but for `test`");
    done(&store, drain("v2", None));
    assert_eq!(choices(&store), [(2, vec![(0, 30)])], "a drain takes nothing, not even tests");
    done(&store, undrain("v2", None));
    done(&store, release());
    assert_eq!(choices(&store), all);
    for endpoint in endpoints("v2") {
        done(&store, drain("v2", Some(endpoint)));
    }
    assert_eq!(choices(&store), [(2, vec![(0, 30)]), (3, vec![(2, 1)])], "each endpoint by itself is the same");
}

#[test]
fn a_file_that_changes_only_rules_is_seen_by_requests() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(ruled(dir.path(), vec![rule("a", RuleChoice::Version(0), false)]));
    assert!(reload(&store, ruled(dir.path(), vec![rule("a", RuleChoice::Version(1), false)])).changed);
    assert_eq!(choices(&store), [(0, vec![(1, 1)])]);
    let same = shop_of(&store);
    let mut other = (*store.snapshot().config).clone();
    other.watch = true;
    reload(&store, Arc::new(other));
    assert!(Arc::ptr_eq(&same, &shop_of(&store)), "nothing of the split changed");
}

#[test]
fn counts_of_a_split_outlive_its_snapshots() {
    let dir = tempfile::tempdir().unwrap();
    let pairs = [("v1", 90), ("v2", 10)];
    let with_blog = |pairs| config(dir.path(), vec![sticky_split(pairs), split("blog", &[("a", 1)])]);
    let store = open(with_blog(&pairs));
    let first = shop_of(&store);
    let permit = first.retry_budget.try_take(0, 0.2).unwrap();
    let guard = first.holding.enter(1).unwrap();
    done(&store, shift(&[("v1", 1), ("v2", 1)]));
    reload(&store, with_blog(&[("v1", 5), ("v2", 5)]));
    let now = shop_of(&store);
    assert!(!Arc::ptr_eq(&first, &now));
    assert_eq!((now.retry_budget.in_flight(), now.holding.count()), (1, 1));
    assert!(now.holding.enter(1).is_none());
    drop((permit, guard));
    assert_eq!((now.retry_budget.in_flight(), now.holding.count()), (0, 0));
    let blog = store.snapshot().split("blog").unwrap().clone();
    assert!(!Arc::ptr_eq(&blog.retry_budget, &now.retry_budget));
}

#[test]
fn in_flight_counts_every_version() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(shop(dir.path(), &[("v1", 90), ("v2", 10)]));
    let shop = shop_of(&store);
    let claims: Vec<_> = shop.versions.iter().map(|v| v.pool.endpoints()[0].claim(9).unwrap()).collect();
    assert_eq!(shop.in_flight(), 2);
    drop(claims);
    assert_eq!(shop.in_flight(), 0);
}
