//! How endpoints fare, once a second: what there is to tell about them, and the weights that follow their number.
//!
//! Requests eject and take back without telling anybody; here it becomes an event. Invariants: each ejection, each return
//! and each version that goes dark or comes back is told once; weights follow at most once a second.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use tokio::task::spawn_blocking;

use crate::config::{OnUnavailable, WeighBy};
use crate::model::{Actor, Source, SplitName, VersionName};
use crate::pool::{Ejections, Endpoint, EndpointKey, EndpointState};
use crate::state::{Change, Order, Snapshot, SplitState, Store, VersionState};

/// What was told last.
#[derive(Debug, Default)]
pub(super) struct Fare {
    endpoints: HashMap<EndpointKey, Ejections>,
    /// Versions without an available endpoint.
    dark: HashSet<(SplitName, VersionName)>,
    weighed: HashMap<SplitName, BTreeMap<VersionName, u64>>,
}

/// What is new about an endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct News {
    is_ejected: bool,
    is_back: bool,
}

impl Fare {
    /// Tells what has happened since the last time.
    pub(super) fn tell(&mut self, snapshot: &Snapshot) {
        let mut endpoints = HashMap::new();
        for split in &snapshot.splits {
            for version in &split.versions {
                self.tell_version(snapshot, split, version);
                for endpoint in version.pool.endpoints() {
                    let (split, version, address) =
                        (split.name.clone(), version.name.clone(), endpoint.address().clone());
                    let key = EndpointKey { split, version, address };
                    let before = self.endpoints.get(&key).copied().unwrap_or_default();
                    let now = tell_endpoint(&key, endpoint, before);
                    endpoints.insert(key, now);
                }
            }
        }
        self.endpoints = endpoints;
    }

    fn tell_version(&mut self, snapshot: &Snapshot, split: &SplitState, version: &VersionState) {
        let endpoints = version.pool.endpoints();
        let is_dark = !endpoints.iter().any(|e| e.is_available());
        // Not known yet, or wanted so.
        let is_open = endpoints.iter().any(|e| e.state() == EndpointState::Checking) || version.draining;
        let key = (split.name.clone(), version.name.clone());
        if is_dark && !is_open && !version.weight.is_zero() && self.dark.insert(key.clone()) {
            let config = snapshot.config.splits.iter().find(|s| s.name == split.name);
            let then = config.map_or("", |s| match s.on_unavailable {
                OnUnavailable::Spill => "spill",
                OnUnavailable::Fail => "fail",
                OnUnavailable::Hold(_) => "hold",
            });
            tracing::warn!(event = "version-unavailable", split = %split.name, version = %version.name,
                on_unavailable = then, "none of its endpoints takes requests");
        } else if !is_dark && self.dark.remove(&key) {
            tracing::info!(event = "version-available", split = %split.name, version = %version.name);
        }
    }

    /// Brings the weights of splits with `weigh_by = "endpoints"` up to date.
    pub(super) async fn weigh(&mut self, store: &Arc<Store>, snapshot: &Snapshot) {
        self.weighed.retain(|name, _| snapshot.split(name.as_str()).is_some());
        for (config, split) in snapshot.config.splits.iter().zip(&snapshot.splits) {
            if config.weigh_by != WeighBy::Endpoints {
                continue;
            }
            let available = |v: &VersionState| (v.name.clone(), v.pool.available());
            let available: BTreeMap<_, _> = split.versions.iter().map(available).collect();
            if self.weighed.get(&split.name) == Some(&available) {
                continue;
            }
            let (name, store) = (split.name.clone(), store.clone());
            let order = order(Change::Available { split: name.clone(), available: available.clone() });
            if let Ok(Ok(applied)) = spawn_blocking(move || store.apply(order)).await {
                // Under an override nothing follows from it yet.
                if let Some(now) = applied.snapshot.split(name.as_str()).filter(|now| now.epoch != split.epoch) {
                    tracing::info!(event = "weighed", split = %name, to = %now.weights, "by available endpoints");
                }
                self.weighed.insert(name, available);
            }
        }
    }
}

fn order(change: Change) -> Order {
    Order {
        id: fastrand::u128(..),
        change,
        by: Actor("endpoints".to_owned()),
        source: Source::File,
        reason: None,
        if_match: None,
        dry_run: false,
    }
}

fn news(before: Ejections, now: Ejections) -> News {
    let is_ejected = now.count > before.count;
    News { is_ejected, is_back: now.left.is_none() && (is_ejected || before.left.is_some()) }
}

/// Returns what has been told.
fn tell_endpoint(key: &EndpointKey, endpoint: &Endpoint, before: Ejections) -> Ejections {
    let now = endpoint.ejections();
    let news = news(before, now);
    if news.is_ejected {
        tracing::warn!(event = "ejected", split = %key.split, version = %key.version, endpoint = %key.address,
            reason = now.cause.map(|cause| cause.as_str()), in_a_row = now.row,
            seconds_left = now.left.unwrap_or_default().as_secs_f64(), "too many failures in a row");
    }
    if news.is_back {
        tracing::info!(event = "readmitted", split = %key.split, version = %key.version, endpoint = %key.address,
            "its time is over");
    }
    now
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn every_ejection_and_return_is_told_once() {
        let at = |count, is_out: bool| Ejections {
            count,
            left: is_out.then_some(Duration::from_secs(1)),
            ..Ejections::default()
        };
        for (before, now, is_ejected, is_back) in [
            (at(0, false), at(0, false), false, false),
            (at(0, false), at(1, true), true, false),
            (at(1, true), at(1, true), false, false),
            (at(1, true), at(1, false), false, true),
            (at(1, false), at(1, false), false, false),
            // Out and back between two looks.
            (at(1, false), at(2, false), true, true),
            (at(1, true), at(2, true), true, false),
        ] {
            assert_eq!(news(before, now), News { is_ejected, is_back }, "{before:?} {now:?}");
        }
    }
}
