//! From what requests see to what people see: the JSON of splits, versions and endpoints.
//!
//! Invariant: one answer is made of one snapshot, so that weights, states and revision in it belong together.

use std::sync::Arc;
use std::time::Duration;

use super::context::{AdminContext, NamesOf, RuleStatsOf, StatsOf};
use super::dto::{
    CountsDto, EndpointDto, HistoryEntryDto, OverrideDto, SplitDto, SplitStatsDto, StatsDto, VersionDto,
    VersionStatsDto,
};
use super::rollout::{RolloutDto, Rollouts, state_while};
use super::rules::{RuleStatsDto, rules};
use crate::health::Board;
use crate::model::{SplitName, VersionName, rfc3339_ms};
use crate::pool::{Counts, Endpoint, EndpointKey, Health};
use crate::state::{HistoryEntry, SplitState, VersionState};

/// The window of the figures inside a split's JSON.
pub(super) const MINUTE: Duration = Duration::from_secs(60);

/// What is needed besides the snapshot, taken once per answer.
pub(super) struct View<'a> {
    pub(super) stats: &'a StatsOf,
    pub(super) rule_stats: &'a RuleStatsOf,
    pub(super) names: &'a NamesOf,
    /// Endpoints that have left the configuration.
    pub(super) leaving: Vec<(EndpointKey, Arc<Endpoint>)>,
    pub(super) checks: Board,
    pub(super) persisted: bool,
    pub(super) rollouts: Rollouts,
}

impl<'a> View<'a> {
    pub(super) fn new(ctx: &'a AdminContext, persisted: bool) -> Self {
        Self {
            stats: &*ctx.stats,
            rule_stats: &*ctx.rule_stats,
            names: &*ctx.names,
            leaving: ctx.store.registry().leaving(),
            checks: ctx.checks.clone(),
            persisted,
            rollouts: Rollouts::new(ctx),
        }
    }

    /// One split as it is.
    pub(super) fn split(&self, split: &SplitState) -> SplitDto {
        self.split_with(split, self.rollouts.of(&split.name))
    }

    /// The same with a rollout that may be newer than the one shown to all.
    pub(super) fn split_with(&self, split: &SplitState, rollout: Option<RolloutDto>) -> SplitDto {
        let figures = self.figures(split, MINUTE);
        let versions = split.versions.iter().zip(figures);
        SplitDto {
            name: split.name.to_string(),
            revision: split.revision.0,
            state: state_while(rollout.as_ref(), state(split)),
            stable: split.stable.to_string(),
            rollback_to: rollback_to(split).map(ToString::to_string),
            source: split.override_.as_ref().map_or("file", |o| o.source.as_str()),
            weights: split.weights.clone(),
            file_weights: split.file_weights.clone(),
            changed: None,
            persisted: self.persisted,
            dry_run: None,
            override_: split.override_.as_ref().map(|o| OverrideDto {
                hold: o.hold,
                by: o.by.0.clone(),
                at: o.at.clone(),
                reason: o.reason.clone(),
            }),
            versions: versions.map(|(version, figures)| self.version(split, version, figures)).collect(),
            rules: self.rules(&split.name, MINUTE),
            rollout,
        }
    }

    /// The figures of a split over one window.
    pub(super) fn stats(&self, split: &SplitState, window: Duration) -> SplitStatsDto {
        let versions = self.figures(split, window);
        let window_seconds = versions.first().map_or(window.as_secs(), |v| v.stats.window_seconds);
        SplitStatsDto {
            split: split.name.to_string(),
            window_seconds,
            versions,
            rules: self.rules(&split.name, window),
        }
    }

    fn rules(&self, split: &SplitName, window: Duration) -> Vec<RuleStatsDto> {
        self.rollouts.written(split).map(|split| rules(split, self.rule_stats, window)).unwrap_or_default()
    }

    fn figures(&self, split: &SplitState, window: Duration) -> Vec<VersionStatsDto> {
        let of = |version: &VersionState| {
            let in_flight = self.endpoints(split, version).map(|e| e.counts().total()).sum();
            StatsDto { in_flight, ..(self.stats)(&split.name, &version.name, window) }
        };
        let stats: Vec<StatsDto> = split.versions.iter().map(of).collect();
        let total: u64 = stats.iter().map(|s| s.requests).sum();
        let one = |(version, stats): (&VersionState, StatsDto)| VersionStatsDto {
            name: version.name.to_string(),
            share: share(split, version),
            observed_share: (total > 0).then(|| round4(stats.requests as f64 / total as f64)),
            stats,
        };
        split.versions.iter().zip(stats).map(one).collect()
    }

    fn version(&self, split: &SplitState, version: &VersionState, figures: VersionStatsDto) -> VersionDto {
        VersionDto {
            name: figures.name,
            weight: version.weight.value(),
            share: figures.share,
            observed_share: figures.observed_share,
            state: version_state(version),
            unavailable: (!version.pool.endpoints().iter().any(|e| e.is_available())).then_some(true),
            endpoints: self.endpoints(split, version).map(|e| self.endpoint(split, version, e)).collect(),
            names: (self.names)(&split.name, &version.name),
            stats: figures.stats,
        }
    }

    fn endpoint(&self, split: &SplitState, version: &VersionState, endpoint: &Endpoint) -> EndpointDto {
        let (split, version, address) = (split.name.clone(), version.name.clone(), endpoint.address().clone());
        let health = endpoint.health();
        let is_checked = health != Health::Unchecked;
        let last = is_checked.then(|| self.checks.last(&EndpointKey { split, version, address })).flatten();
        EndpointDto {
            address: endpoint.address().to_string(),
            state: endpoint.state().as_str(),
            readmitted_in_seconds: endpoint.ejections().left.map(|left| left.as_secs_f64().ceil() as u64),
            in_flight: endpoint.counts().total(),
            last_check: last.as_ref().map(|last| rfc3339_ms(last.at)),
            reason: last.and_then(|last| last.reason).filter(|_| !health.is_able()),
        }
    }

    /// Those in force, and those that left but are still busy.
    fn endpoints<'s>(
        &'s self,
        split: &'s SplitState,
        version: &'s VersionState,
    ) -> impl Iterator<Item = &'s Arc<Endpoint>> {
        let belongs = |key: &EndpointKey| key.split == split.name && key.version == version.name;
        let busy = self.leaving.iter().filter(move |(key, e)| belongs(key) && e.counts().total() > 0).map(|(_, e)| e);
        version.pool.endpoints().iter().chain(busy)
    }
}

fn state(split: &SplitState) -> &'static str {
    match &split.override_ {
        None => "steady",
        Some(o) if o.hold => "held",
        Some(_) => "shifted",
    }
}

/// A drain takes no request at all, a closed version still those of `test` rules: the stronger word wins.
fn version_state(version: &VersionState) -> &'static str {
    match (version.draining, version.closed) {
        (true, _) => "draining",
        (false, true) => "closed",
        (false, false) => "open",
    }
}

/// The part of the coin, not of the written weights: what a closed or draining version would get goes to the others.
fn share(split: &SplitState, version: &VersionState) -> f64 {
    let total: u64 = split.coin.0.iter().map(|(_, w)| u64::from(w.value())).sum();
    let part = |(i, w): &(usize, crate::model::Weight)| {
        split.versions.get(*i).filter(|v| v.name == version.name).map(|_| w.value())
    };
    split.coin.0.iter().find_map(part).map_or(0.0, |part| f64::from(part) / total as f64)
}

/// Where a rollback without a target goes (surface.md section 6): the same answer as the store's own.
fn rollback_to(split: &SplitState) -> Option<&VersionName> {
    let previous = split.previous_stable.as_ref();
    let has_everything = |v: &&VersionName| split.weights.iter().all(|(other, w)| other == *v || w.is_zero());
    let is_rolled_back = split.is_held() && (split.versions.len() == 1 || split.versions.iter().any(|v| v.closed));
    let there = [Some(&split.stable), previous].into_iter().flatten().find(has_everything);
    if is_rolled_back && there.is_some() {
        return there;
    }
    if has_everything(&&split.stable) { previous } else { Some(&split.stable) }
}

/// Shares are read by people; four places tell a hundredth of a percent.
fn round4(x: f64) -> f64 {
    (x * 10_000.0).round() / 10_000.0
}

impl From<Counts> for CountsDto {
    fn from(counts: Counts) -> Self {
        let Counts { requests, streams, upgrades } = counts;
        Self { total: counts.total(), requests, streams, upgrades }
    }
}

impl From<HistoryEntry> for HistoryEntryDto {
    fn from(entry: HistoryEntry) -> Self {
        Self {
            revision: entry.revision.0,
            at: entry.at,
            kind: entry.kind,
            split: entry.split.map(String::from),
            from: entry.from,
            to: entry.to,
            target: entry.target,
            by: entry.by.0,
            source: entry.source.as_str(),
            reason: entry.reason,
            id: entry.id,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Actor, Address, Instant, Revision, Source, Weight, Weights};
    use crate::pool::{Deadlines, Pool};
    use crate::state::{Coin, Override};

    fn name(text: &str) -> VersionName {
        VersionName::new(text).unwrap()
    }

    fn weights(v1: u32, v2: u32) -> Weights {
        [("v1", v1), ("v2", v2)].map(|(v, w)| (name(v), Weight::new(w).unwrap())).into_iter().collect()
    }

    fn version(text: &str, weight: u32, port: u16) -> VersionState {
        let endpoint = Arc::new(Endpoint::new(Address::Tcp(([127, 0, 0, 1], port).into())));
        let pool = Arc::new(Pool::new(vec![endpoint], 9));
        VersionState { name: name(text), weight: Weight::new(weight).unwrap(), closed: false, draining: false, pool }
    }

    fn shop(v1: u32, v2: u32) -> SplitState {
        let coin = [(0, v1), (1, v2)].into_iter().filter(|(_, w)| *w > 0);
        SplitState {
            name: SplitName::new("shop").unwrap(),
            revision: Revision(17),
            epoch: 1,
            weights: weights(v1, v2),
            file_weights: weights(90, 10),
            override_: None,
            stable: name("v1"),
            previous_stable: None,
            versions: vec![version("v1", v1, 9001), version("v2", v2, 9002)],
            coin: Coin(coin.map(|(i, w)| (i, Weight::new(w).unwrap())).collect()),
            owners: None,
            rollout_tag: "0".into(),
            rollout: None,
            rolled_out: Vec::new(),
            rules: Vec::new(),
            retry_budget: Arc::default(),
            holding: Arc::default(),
        }
    }

    fn some(split: &SplitName, version: &VersionName, window: Duration) -> StatsDto {
        assert_eq!(split.as_str(), "shop");
        let requests = if version.as_str() == "v1" { 750 } else { 250 };
        StatsDto { window_seconds: window.as_secs(), requests, rps: 1.5, p50_ms: Some(3.0), ..StatsDto::default() }
    }

    fn view() -> View<'static> {
        let (names, leaving, checks) = (&|_: &_, _: &_| Vec::new(), Vec::new(), Board::default());
        let rule_stats = &|_: &_, _: &_, _: &_, _| StatsDto::default();
        View { stats: &some, rule_stats, names, leaving, checks, persisted: true, rollouts: Rollouts::none() }
    }

    #[test]
    fn the_json_is_that_of_the_contract() {
        let mut split = shop(75, 25);
        let (hold, by, at) = (false, Actor("token:ci".into()), "2026-03-01T12:00:00.000Z".to_owned());
        let (source, reason) = (Source::Api, Some("release 42".to_owned()));
        split.override_ = Some(Override { weights: weights(75, 25), hold, by, source, at, reason });
        let claim = split.versions[1].pool.endpoints()[0].claim(9).unwrap();
        let json = serde_json::to_value(view().split(&split)).unwrap();
        let stats = |requests, in_flight| {
            serde_json::json!({"window_seconds": 60, "requests": requests, "rps": 1.5, "error_rate": 0.0, "p50_ms": 3.0,
                "p90_ms": null, "p95_ms": null, "p99_ms": null, "in_flight": in_flight})
        };
        let wanted = serde_json::json!({"name": "shop", "revision": 17, "state": "shifted", "stable": "v1",
            "rollback_to": "v1", "source": "api", "weights": {"v1": 75, "v2": 25}, "file_weights": {"v1": 90, "v2": 10},
            "persisted": true,
            "override": {"hold": false, "by": "token:ci", "at": "2026-03-01T12:00:00.000Z", "reason": "release 42"},
            "versions": [
                {"name": "v1", "weight": 75, "share": 0.75, "observed_share": 0.75, "state": "open",
                 "endpoints": [{"address": "127.0.0.1:9001", "state": "up", "in_flight": 0}], "stats": stats(750, 0)},
                {"name": "v2", "weight": 25, "share": 0.25, "observed_share": 0.25, "state": "open",
                 "endpoints": [{"address": "127.0.0.1:9002", "state": "up", "in_flight": 1}], "stats": stats(250, 1)}]});
        assert_eq!(json, wanted);
        drop(claim);
    }

    #[test]
    fn states_and_rollback_target() {
        let mut split = shop(90, 10);
        assert_eq!(state(&split), "steady");
        assert_eq!(rollback_to(&split), Some(&name("v1")));
        split.weights = weights(100, 0);
        assert_eq!(rollback_to(&split), None);
        split.previous_stable = Some(name("v2"));
        assert_eq!(rollback_to(&split), Some(&name("v2")));
        let (by, source, at) = (Actor("local:alice".into()), Source::Cli, String::new());
        split.override_ = Some(Override { weights: weights(100, 0), hold: true, by, source, at, reason: None });
        split.versions[1].closed = true;
        assert_eq!(state(&split), "held");
        assert_eq!(rollback_to(&split), Some(&name("v1")), "a second press stays where the first led");
        assert_eq!(version_state(&split.versions[1]), "closed");
        split.versions[1].draining = true;
        assert_eq!(version_state(&split.versions[1]), "draining");
    }

    #[test]
    fn an_endpoint_that_left_is_shown_while_busy() {
        let split = shop(90, 10);
        let endpoint = Arc::new(Endpoint::new("127.0.0.1:9009".parse::<Address>().unwrap()));
        let claim = endpoint.claim(9).unwrap();
        endpoint.drain(Deadlines::new(Instant::now(), Duration::ZERO, Duration::ZERO));
        let key = EndpointKey { split: split.name.clone(), version: name("v2"), address: endpoint.address().clone() };
        let view = View { leaving: vec![(key, endpoint)], ..view() };
        let shown = view.split(&split);
        assert_eq!(shown.versions[0].endpoints.len(), 1);
        assert_eq!((shown.versions[1].endpoints[1].state, shown.versions[1].stats.in_flight), ("draining", 1));
        drop(claim);
        assert_eq!(view.split(&split).versions[1].endpoints.len(), 1);
    }

    #[test]
    fn a_split_without_requests_has_no_observed_share() {
        let none = |_: &SplitName, _: &VersionName, _: Duration| StatsDto::default();
        let view = View { stats: &none, persisted: false, ..view() };
        let shown = view.split(&shop(90, 10));
        assert_eq!(shown.versions[0].observed_share, None);
        assert_eq!(shown.versions[0].share, 0.9);
    }
}
