//! Health as the store knows it: what a new endpoint is, and whither a rollback does not go.

use std::sync::Arc;
use std::time::Duration;

use super::testing::*;
use super::*;
use crate::config::{Config, HealthCheck, HealthKind};
use crate::pool::{Endpoint, Health};

const BOTH: [(&str, u32); 2] = [("v1", 90), ("v2", 10)];

/// The configuration with every version checked.
fn checked(mut config: Arc<Config>) -> Arc<Config> {
    let (interval, timeout) = (Duration::from_secs(5), Duration::from_secs(2));
    let check = HealthCheck { kind: HealthKind::Tcp, interval, timeout, healthy_after: 2, unhealthy_after: 3 };
    for version in &mut Arc::make_mut(&mut config).splits[0].versions {
        version.health = Some(Arc::new(check.clone()));
    }
    config
}

fn endpoints_of(store: &Store, version: &str) -> Vec<Arc<Endpoint>> {
    store.snapshot().split("shop").unwrap().version(version).unwrap().pool.endpoints().to_vec()
}

fn health_of(store: &Store, version: &str) -> Vec<Health> {
    endpoints_of(store, version).iter().map(|e| e.health()).collect()
}

#[test]
fn what_is_new_and_checked_takes_nothing_from_the_first_moment() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(checked(shop(dir.path(), &BOTH)));
    assert_eq!(health_of(&store, "v1"), [Health::Checking; 2]);
    endpoints_of(&store, "v1").iter().for_each(|e| drop_health(e.set_health(Health::Up)));
    let reload = |config| apply(&store, Change::Reload { config }).unwrap();
    reload(checked(shop(dir.path(), &[("v1", 80), ("v2", 10), ("v3", 10)])));
    assert_eq!(health_of(&store, "v1"), [Health::Up; 2], "its checker's business");
    assert_eq!(health_of(&store, "v3"), [Health::Checking; 2]);
    // One that comes back has to prove itself as any other, and one that nobody checks has nothing to prove.
    endpoints_of(&store, "v3").iter().for_each(|e| drop_health(e.set_health(Health::Up)));
    reload(checked(shop(dir.path(), &BOTH)));
    reload(checked(shop(dir.path(), &[("v1", 80), ("v2", 10), ("v3", 10)])));
    assert_eq!(health_of(&store, "v3"), [Health::Checking; 2]);
    reload(checked(shop(dir.path(), &BOTH)));
    reload(shop(dir.path(), &[("v1", 80), ("v2", 10), ("v3", 10)]));
    assert_eq!(health_of(&store, "v3"), [Health::Unchecked; 2]);
}

fn drop_health(_: Health) {}

#[test]
fn a_rehearsal_changes_nobodys_health() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(shop(dir.path(), &BOTH));
    let change = Change::Reload { config: checked(shop(dir.path(), &[("v1", 1), ("v3", 1)])) };
    store.apply(Order { dry_run: true, ..order(change) }).unwrap();
    assert_eq!(health_of(&store, "v1"), [Health::Unchecked; 2]);
}

#[test]
fn a_rollback_goes_to_nobody_who_is_ill_unless_forced() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(checked(shop(dir.path(), &BOTH)));
    let v1 = endpoints_of(&store, "v1");
    let set = |health: [Health; 2]| v1.iter().zip(health).for_each(|(e, health)| drop_health(e.set_health(health)));
    for health in [[Health::Checking; 2], [Health::Down; 2], [Health::Checking, Health::Down]] {
        set(health);
        let refused = apply(&store, rollback(None)).unwrap_err();
        assert!(
            matches!(&refused, ApplyError::TargetUnhealthy(why) if why.contains("no healthy endpoint")),
            "{refused}"
        );
    }
    // One is enough; but not one that drains.
    set([Health::Up, Health::Down]);
    done(&store, drain("v1", Some(endpoints("v1")[0])));
    assert!(matches!(apply(&store, rollback(None)), Err(ApplyError::TargetUnhealthy(_))));
    done(&store, undrain("v1", Some(endpoints("v1")[0])));
    set([Health::Down; 2]);
    let forced = Change::Rollback { split: split_name("shop"), to: None, to_revision: None, force: true };
    assert!(apply(&store, forced).unwrap().changed);
    done(&store, release());
    set([Health::Down, Health::Up]);
    assert!(apply(&store, rollback(None)).unwrap().changed);
}

#[test]
fn a_successor_begins_with_what_the_checks_have_found() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(open(checked(shop(dir.path(), &BOTH))));
    let (v1, v2) = (endpoints_of(&store, "v1"), endpoints_of(&store, "v2"));
    v1[0].set_health(Health::Up);
    v1[1].set_health(Health::Down);
    v2[0].set_health(Health::Unchecked);
    let (_frozen, handed) = store.freeze().unwrap();
    let config = checked(shop(dir.path(), &[("v1", 80), ("v2", 10), ("v3", 10)]));
    let next = Store::open(config, Arc::default(), &OpenOptions { ignore_state: false, handed: Some(handed) }).unwrap();
    assert_eq!(health_of(&next, "v1"), [Health::Up, Health::Down]);
    assert_eq!(health_of(&next, "v2"), [Health::Up, Health::Checking], "one that has taken requests goes on");
    assert_eq!(health_of(&next, "v3"), [Health::Checking; 2], "new with it");
}
