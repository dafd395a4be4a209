//! Addresses of names, as they come and go: pools follow, and nothing else does.

use std::net::SocketAddr;
use std::sync::Arc;

use super::testing::*;
use super::*;
use crate::config::{Config, EndpointSpec, NameOf, NameTarget, Target};
use crate::model::Revision;
use crate::pool::Registry;

fn shop_test() -> NameTarget {
    NameTarget { name: "shop.test".into(), of: NameOf::Hosts(80) }
}

/// Two splits; `v2` of `shop` is at a name alone.
fn named(dir: &std::path::Path) -> Arc<Config> {
    let mut shop = split("shop", &[("v1", 90), ("v2", 10)]);
    shop.versions[1].endpoints = vec![EndpointSpec { target: Target::Name(shop_test()), weight: 3 }];
    config(dir, vec![shop, split("other", &[("v1", 1)])])
}

fn at(port: u16) -> SocketAddr {
    ([10, 0, 0, 1], port).into()
}

fn resolved(ports: &[u16]) -> Change {
    let one = |port: &u16| Resolved { address: at(*port).into(), weight: 2, host: "shop.test".into() };
    Change::Resolved { name: shop_test(), addresses: ports.iter().map(one).collect() }
}

fn ports(store: &Store) -> Vec<String> {
    let snapshot = store.snapshot();
    snapshot.splits[0].versions[1].pool.endpoints().iter().map(|e| e.address().to_string()).collect()
}

#[test]
fn pools_follow_and_nothing_else_does() {
    let dir = tempfile::tempdir().unwrap();
    let registry: Arc<Registry> = Arc::default();
    let store = open_with(named(dir.path()), &registry);
    let file = std::fs::read(dir.path().join("state.json")).unwrap();
    let mut events = store.subscribe();
    let (before, history) = (store.snapshot(), store.history(None, 10, None));
    assert!(ports(&store).is_empty());

    assert!(apply(&store, resolved(&[1, 2])).unwrap().changed);
    let now = store.snapshot();
    let pool = &now.splits[0].versions[1].pool;
    assert_eq!(ports(&store), ["10.0.0.1:1", "10.0.0.1:2"]);
    assert_eq!((pool.weights(), pool.hosts()[0].as_deref()), (&[6, 6][..], Some("shop.test")));
    assert!(Arc::ptr_eq(&before.splits[1], &now.splits[1]), "the other split is not touched");
    assert!(Arc::ptr_eq(&before.splits[0].versions[0].pool, &now.splits[0].versions[0].pool));
    assert_eq!((now.revision, now.splits[0].revision, now.splits[0].epoch), (Revision(1), Revision(1), 1));
    assert_eq!((now.persisted, now.splits[0].coin.clone()), (true, before.splits[0].coin.clone()));

    let first = pool.endpoints()[0].clone();
    let claim = first.claim(9).unwrap();
    apply(&store, resolved(&[2, 3])).unwrap();
    assert!(first.is_draining() && first.deadlines().is_some(), "it finishes what it has");
    assert!(Arc::ptr_eq(&store.snapshot().splits[0].versions[1].pool.endpoints()[0], &pool.endpoints()[1]));
    assert!(!apply(&store, resolved(&[2, 3])).unwrap().changed);
    apply(&store, resolved(&[1])).unwrap();
    assert!(!first.is_draining(), "one that comes back is the same");
    drop(claim);

    assert!(events.try_recv().is_err());
    assert_eq!(store.history(None, 10, None), history);
    assert_eq!(std::fs::read(dir.path().join("state.json")).unwrap(), file);
    assert_eq!(done(&store, shift(&[("v1", 1), ("v2", 1)])).snapshot.revision, Revision(2), "no gap");
    assert_eq!(ports(&store), ["10.0.0.1:1"], "other changes keep the addresses");
}

#[test]
fn a_reload_starts_with_what_is_known() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(named(dir.path()));
    apply(&store, resolved(&[1])).unwrap();
    let pool = store.snapshot().splits[0].versions[1].pool.clone();
    done(&store, Change::Reload { config: shop(dir.path(), &[("v1", 90), ("v2", 10)]) });
    assert!(pool.endpoints()[0].is_draining());
    apply(&store, resolved(&[1, 2])).unwrap();
    done(&store, Change::Reload { config: named(dir.path()) });
    assert_eq!(ports(&store), ["10.0.0.1:1", "10.0.0.1:2"], "also what was answered meanwhile");
    assert!(!pool.endpoints()[0].is_draining());
}

#[test]
fn orders_know_the_addresses_of_names() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(named(dir.path()));
    let refused = apply(&store, rollback(Some("v2"))).unwrap_err();
    assert!(matches!(refused, ApplyError::TargetUnhealthy(_)));
    assert!(refused.to_string().contains("`shop.test:80` has no address yet"), "{refused}");
    assert!(matches!(apply(&store, drain("v2", Some(at(1)))), Err(ApplyError::UnknownEndpoint { .. })));

    apply(&store, resolved(&[1])).unwrap();
    done(&store, drain("v2", Some(at(1))));
    let split = &store.snapshot().splits[0];
    assert!(split.versions[1].pool.endpoints()[0].is_draining());
    assert_eq!(split.coin.0.len(), 2, "a name may have other addresses any moment");
    assert!(matches!(apply(&store, rollback(Some("v2"))), Err(ApplyError::TargetUnhealthy(_))));

    apply(&store, resolved(&[2])).unwrap();
    done(&store, rollback(Some("v2")));
    apply(&store, resolved(&[1, 2])).unwrap();
    let draining = |store: &Store| -> Vec<bool> {
        let snapshot = store.snapshot();
        snapshot.splits[0].versions[1].pool.endpoints().iter().map(|e| e.is_draining()).collect()
    };
    assert_eq!(draining(&store), [true, false], "drained while it was away");
    drop(store);
    let store = open(named(dir.path()));
    assert!(ports(&store).is_empty(), "a restart asks again");
    apply(&store, resolved(&[1, 2])).unwrap();
    assert_eq!(draining(&store), [true, false]);
    apply(&store, resolved(&[2])).unwrap();
    done(&store, undrain("v2", Some(at(1))));
    apply(&store, resolved(&[1, 2])).unwrap();
    assert_eq!(draining(&store), [false, false]);
}

#[test]
fn a_successor_begins_with_the_last_answers() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(open_with(named(dir.path()), &Arc::default()));
    apply(&store, resolved(&[1, 2])).unwrap();
    let (_frozen, handed) = store.freeze().unwrap();
    let options = OpenOptions { ignore_state: false, handed: Some(handed) };
    let next = Store::open(named(dir.path()), Arc::default(), &options).unwrap();
    assert_eq!(ports(&next), ["10.0.0.1:1", "10.0.0.1:2"]);
    assert!(!apply(&next, resolved(&[1, 2])).unwrap().changed, "and knows that it has them");
}
