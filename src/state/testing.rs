//! Hand-made configurations and orders for this room's tests.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::{Applied, ApplyError, Change, OpenOptions, Order, Store};
use crate::config::{Admin, Config, Dns, Level, Log, LogFormat, Shutdown, Split, Telemetry, Version};
use crate::model::{Actor, Revision, Source, SplitName, VersionName, Weight, Weights};
use crate::pool::Registry;

pub(super) fn name(text: &str) -> VersionName {
    VersionName::new(text).unwrap()
}

pub(super) fn split_name(text: &str) -> SplitName {
    SplitName::new(text).unwrap()
}

pub(super) fn weights(pairs: &[(&str, u32)]) -> Weights {
    pairs.iter().map(|&(v, w)| (name(v), Weight::new(w).unwrap())).collect()
}

/// Two endpoints per version; the ports follow from the version's name, so that it has the same ones in every file.
pub(super) fn endpoints(version: &str) -> Vec<SocketAddr> {
    let port = 9000 + 10 * version.bytes().map(u16::from).sum::<u16>();
    (0..2).map(|i| SocketAddr::from(([127, 0, 0, 1], port + i))).collect()
}

/// A split whose stable is the version of the largest weight.
pub(super) fn split(split: &str, pairs: &[(&str, u32)]) -> Split {
    let version = |&(v, w): &(&str, u32)| Version::new(name(v), Weight::new(w).unwrap(), endpoints(v));
    let largest = pairs.iter().rev().max_by_key(|(_, w)| w).unwrap().0;
    Split::new(split_name(split), name(largest), pairs.iter().map(version).collect())
}

pub(super) fn config(dir: &Path, splits: Vec<Split>) -> Arc<Config> {
    Arc::new(Config {
        workers: 1,
        watch: false,
        shutdown: Shutdown { delay: Duration::ZERO, timeout: Duration::from_secs(25) },
        listeners: Vec::new(),
        routes: Vec::new(),
        splits,
        dns: Dns::default(),
        admin: Admin { bind: ([127, 0, 0, 1], 9901).into(), hosts: Vec::new(), state_dir: dir.to_owned() },
        telemetry: Telemetry {
            bind: None,
            log: Log { level: Level::Info, format: LogFormat::Json, access: false, sample: 0.0 },
        },
        notify: Vec::new(),
    })
}

/// One split `shop` with these weights in the file.
pub(super) fn shop(dir: &Path, pairs: &[(&str, u32)]) -> Arc<Config> {
    config(dir, vec![split("shop", pairs)])
}

pub(super) fn open(config: Arc<Config>) -> Store {
    Store::open(config, Arc::default(), &OpenOptions::default()).unwrap()
}

pub(super) fn open_with(config: Arc<Config>, registry: &Arc<Registry>) -> Store {
    Store::open(config, registry.clone(), &OpenOptions::default()).unwrap()
}

pub(super) fn order(change: Change) -> Order {
    Order {
        id: fastrand::u128(..),
        change,
        by: Actor("local:alice".into()),
        source: Source::Cli,
        reason: None,
        if_match: None,
        dry_run: false,
    }
}

pub(super) fn shift(pairs: &[(&str, u32)]) -> Change {
    Change::SetWeights { split: split_name("shop"), weights: weights(pairs), hold: false }
}

pub(super) fn rollback(to: Option<&str>) -> Change {
    Change::Rollback { split: split_name("shop"), to: to.map(name), to_revision: None, force: false }
}

pub(super) fn back_to(revision: u64) -> Change {
    let to_revision = Some(Revision(revision));
    Change::Rollback { split: split_name("shop"), to: None, to_revision, force: false }
}

pub(super) fn release() -> Change {
    Change::Release { split: split_name("shop") }
}

pub(super) fn drain(version: &str, endpoint: Option<SocketAddr>) -> Change {
    let endpoint = endpoint.map(|a| a.to_string());
    Change::Drain { split: split_name("shop"), version: name(version), endpoint }
}

pub(super) fn undrain(version: &str, endpoint: Option<SocketAddr>) -> Change {
    let endpoint = endpoint.map(|a| a.to_string());
    Change::Undrain { split: split_name("shop"), version: name(version), endpoint }
}

pub(super) fn apply(store: &Store, change: Change) -> Result<Applied, ApplyError> {
    store.apply(order(change))
}

/// Applies and expects a change that is on disk.
pub(super) fn done(store: &Store, change: Change) -> Applied {
    let applied = apply(store, change).unwrap();
    assert!(applied.changed && applied.persisted, "{applied:?}");
    applied
}

/// The weights of `shop` in force, as text: `v1 90, v2 10`.
pub(super) fn in_force(store: &Store) -> String {
    store.snapshot().split("shop").unwrap().weights.to_string()
}
