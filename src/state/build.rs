//! A plan made visible: the snapshot requests will see, and the drain bits of the endpoints it names.
//!
//! Invariant: what a plan does not touch is the same `Arc` as before; a pool is only rebuilt when its endpoints or
//! limits change, so that whoever keeps something per pool keeps it.

use std::collections::HashSet;
use std::hash::RandomState;
use std::sync::Arc;
use std::time::Duration;

use super::book::Kept;
use super::names::{Names, Place};
use super::plan::Plan;
use super::rules::rules;
use super::secure::Secured;
use super::{Coin, Snapshot, SplitState, VersionState};
use crate::config::{Config, Drain, Route, Split, Version};
use crate::model::{Address, Instant, RouteName, SplitName};
use crate::pool::{Deadlines, Endpoint, EndpointKey, Health, Member, Pool, Registry, Rules};
use crate::rate::Limiter;
use crate::routing::{Owners, RouteTable};

/// The tag of a split that no rollout has moved.
const NO_ROLLOUT: &str = "0";

/// Where the endpoints of a pool come from.
pub(super) type Lookup<'a> = &'a dyn Fn(&EndpointKey) -> Arc<Endpoint>;

/// The snapshot of a plan.
pub(super) fn snapshot(
    plan: &Plan,
    secured: Secured,
    old: Option<&Snapshot>,
    endpoint: Lookup<'_>,
    persisted: bool,
) -> Snapshot {
    let same_file = old.filter(|old| Arc::ptr_eq(&old.config, &plan.config));
    let routes = same_file.map_or_else(|| Arc::new(RouteTable::new(&plan.config)), |old| old.routes.clone());
    let split = |split: &Split| {
        let was = old.and_then(|old| old.split(split.name.as_str()));
        match was.filter(|_| !plan.touched.contains(&split.name)) {
            Some(was) => was.clone(),
            None => Arc::new(split_state(plan, split, was.map(Arc::as_ref), endpoint)),
        }
    };
    Snapshot {
        revision: plan.book.revision,
        splits: plan.config.splits.iter().map(split).collect(),
        limiters: same_file.map_or_else(|| limiters(&plan.config, old), |old| old.limiters.clone()),
        config: plan.config.clone(),
        routes,
        tls: secured.listeners,
        upstream_tls: secured.upstreams,
        persisted,
    }
}

/// The same in all but the flag.
pub(super) fn with_persisted(of: &Snapshot, persisted: bool) -> Snapshot {
    Snapshot {
        revision: of.revision,
        config: of.config.clone(),
        routes: of.routes.clone(),
        limiters: of.limiters.clone(),
        splits: of.splits.clone(),
        tls: of.tls.clone(),
        upstream_tls: of.upstream_tls.clone(),
        persisted,
    }
}

/// A route whose limit is the same keeps its buckets.
fn limiters(config: &Config, old: Option<&Snapshot>) -> Vec<Option<Arc<Limiter>>> {
    let was = |name: &RouteName| {
        let old = old?;
        let at = old.config.routes.iter().position(|route| route.name == *name)?;
        old.limiters.get(at)?.clone()
    };
    let limiter = |route: &Route| {
        let limit = route.rate_limit.as_ref()?;
        let kept = was(&route.name).filter(|old| old.limit() == limit);
        Some(kept.unwrap_or_else(|| Arc::new(Limiter::new(limit, Instant::now(), RandomState::new()))))
    };
    config.routes.iter().map(limiter).collect()
}

fn split_state(plan: &Plan, split: &Split, old: Option<&SplitState>, endpoint: Lookup<'_>) -> SplitState {
    let kept = plan.book.splits.get(&split.name).cloned().unwrap_or_else(|| Kept::fresh(split));
    let version = |version: &Version| VersionState {
        name: version.name.clone(),
        weight: kept.weights().weight(&version.name).unwrap_or_default(),
        closed: kept.closed.contains(&version.name),
        draining: kept.is_draining(version),
        pool: pool((split, version), &plan.names, old, endpoint),
    };
    SplitState {
        name: split.name.clone(),
        revision: kept.revision,
        epoch: kept.epoch,
        weights: kept.weights().clone(),
        versions: split.versions.iter().map(version).collect(),
        coin: Coin(kept.coin.iter().map(|(i, _, w)| (*i, *w)).collect()),
        owners: owners(&kept, split),
        rollout_tag: kept.rollout.as_ref().map_or(NO_ROLLOUT, |rollout| rollout.id.as_str()).into(),
        rollout: kept.rollout.clone(),
        rolled_out: kept.rolled_out.clone(),
        rules: rules(split, &kept),
        retry_budget: old.map(|old| old.retry_budget.clone()).unwrap_or_default(),
        holding: old.map(|old| old.holding.clone()).unwrap_or_default(),
        file_weights: kept.file_weights,
        override_: kept.override_,
        stable: kept.stable,
        previous_stable: kept.previous_stable,
    }
}

/// Nobody owns anything while no version takes requests: the bucket of a draining version is not its any more.
fn owners(kept: &Kept, split: &Split) -> Option<Arc<Owners>> {
    let kept = kept.owners.as_ref().filter(|_| !kept.coin.is_empty())?;
    kept.table(split).map(Arc::new)
}

fn pool(
    (split, version): (&Split, &Version),
    names: &Names,
    old: Option<&SplitState>,
    endpoint: Lookup<'_>,
) -> Arc<Pool> {
    let places = names.places(version);
    let rules = Rules::from(split);
    let fits = |pool: &&Arc<Pool>| {
        let addresses = pool.endpoints().iter().map(|e| e.address());
        *pool.rules() == rules
            && addresses.eq(places.iter().map(|place| &place.address))
            && pool.weights().iter().eq(places.iter().map(|place| &place.weight))
            && pool.hosts().iter().eq(places.iter().map(|place| &place.host))
    };
    let was = old.and_then(|old| old.version(version.name.as_str())).map(|v| &v.pool);
    let find = |place: &Place| {
        let endpoint = endpoint(&key(split, version, place.address.clone()));
        Member { endpoint, weight: place.weight, host: place.host.clone() }
    };
    let new = || Arc::new(Pool::with_rules(places.iter().map(find), rules.clone()));
    was.filter(fits).map_or_else(new, Arc::clone)
}

fn key(split: &Split, version: &Version, address: Address) -> EndpointKey {
    EndpointKey { split: split.name.clone(), version: version.name.clone(), address }
}

/// Endpoints that a version has got besides those it had take their full share only after a while.
pub(super) fn admit_new(old: &Snapshot, new: &Snapshot) {
    for split in &new.splits {
        let Some(was) = old.split(split.name.as_str()) else { continue };
        for version in &split.versions {
            let Some(was) = was.version(version.name.as_str()).map(|v| v.pool.endpoints()) else { continue };
            let is_new = |e: &&Arc<Endpoint>| !was.iter().any(|old| Arc::ptr_eq(old, e));
            // With nobody to compare to, all of them would be slow together.
            let added = version.pool.endpoints().iter().filter(is_new).filter(|_| !was.is_empty());
            added.for_each(|endpoint| endpoint.admit());
        }
    }
}

/// Sets the drain bit of every endpoint as the plan says.
pub(super) fn settle_drains(plan: &Plan, snapshot: &Snapshot, now: Instant) {
    for (split, state) in plan.config.splits.iter().zip(&snapshot.splits) {
        let Some(kept) = plan.book.splits.get(&split.name) else { continue };
        let deadlines = deadlines(&split.drain, now);
        for version in &state.versions {
            for endpoint in version.pool.endpoints() {
                match (kept.drains(&version.name, endpoint.address()), endpoint.is_draining()) {
                    (true, false) => endpoint.drain(deadlines),
                    (false, true) => endpoint.undrain(),
                    _ => {}
                }
            }
        }
    }
}

/// Says what the endpoints are that come into use with `next`, before anybody sees it: one that will be checked takes
/// nothing until it has passed. Those already in use are their checkers' business.
pub(super) fn settle_health(old: Option<&Snapshot>, next: &Snapshot) {
    for (split, state) in next.config.splits.iter().zip(&next.splits) {
        let was = old.and_then(|old| old.split(split.name.as_str()));
        for (version, state) in split.versions.iter().zip(&state.versions) {
            let known = was.and_then(|was| was.version(version.name.as_str())).map(|was| was.pool.endpoints());
            let is_new =
                |endpoint: &&Arc<Endpoint>| !known.unwrap_or_default().iter().any(|e| Arc::ptr_eq(e, endpoint));
            let health = if version.health.is_some() { Health::Checking } else { Health::Unchecked };
            for endpoint in state.pool.endpoints().iter().filter(is_new) {
                endpoint.set_health(health);
            }
        }
    }
}

/// Drains what the plan no longer has, for as long as the file before it allowed.
pub(super) fn remove_gone(registry: &Registry, old: &Config, plan: &Plan, now: Instant) {
    let of = |split: &Split, version: &Version| -> Vec<_> {
        plan.names.places(version).into_iter().map(|place| key(split, version, place.address)).collect()
    };
    let of_split = |split: &Split| split.versions.iter().flat_map(|version| of(split, version)).collect::<Vec<_>>();
    let live: HashSet<_> = plan.config.splits.iter().flat_map(of_split).collect();
    let at_once = || Deadlines::new(now, Duration::ZERO, Duration::ZERO);
    let allowed = |name: &SplitName| old.splits.iter().find(|split| split.name == *name).map(|split| &split.drain);
    registry.remove_all_but(&live, |key| allowed(&key.split).map_or_else(at_once, |drain| deadlines(drain, now)));
}

fn deadlines(drain: &Drain, now: Instant) -> Deadlines {
    Deadlines::new(now, drain.timeout, drain.upgraded_timeout)
}
