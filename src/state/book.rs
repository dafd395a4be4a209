//! All that is remembered over a restart, as plain data: what the file said last and what was ordered on top of it.
//!
//! Pure. Invariants: `file_weights` names every version of the split in file order; an override's weights name the
//! same versions in the same order and sum to more than 0; only a held override closes versions; epochs and
//! revisions only ever rise.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::names::Names;
use super::owners::KeptOwners;
use super::rollouts::{Promoted, RolloutMark};
use super::{HistoryEntry, Override};
use crate::config::{EndpointSpec, Split, Target, Version, WeighBy};
use crate::model::{Address, Revision, SplitName, VersionName, Weight, Weights};

/// See the file's head.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Book {
    pub revision: Revision,
    /// The last one given out, over all splits: so none repeats when a split leaves and comes back.
    pub epoch: u64,
    pub splits: BTreeMap<SplitName, Kept>,
    /// The newest history, oldest first; what is missing in `history.jsonl` after a crash is appended from here.
    pub recent: Vec<HistoryEntry>,
}

/// What is remembered of one split.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Kept {
    pub revision: Revision,
    pub epoch: u64,
    pub file_weights: Weights,
    pub stable: VersionName,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous_stable: Option<VersionName>,
    #[serde(default, rename = "override", skip_serializing_if = "Option::is_none")]
    pub override_: Option<Override>,
    /// In file order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub closed: Vec<VersionName>,
    /// Versions drained as a whole.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub drained: Vec<VersionName>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub drained_endpoints: Vec<DrainedEndpoint>,
    /// What `epoch` stands for: index, name and weight of each version that takes requests.
    pub coin: Vec<(usize, VersionName, Weight)>,
    /// With `weigh_by = "endpoints"`: the weights of each version's endpoints that are available, added up, as last told.
    /// Who is not named has all of them.
    #[serde(skip)]
    pub available: BTreeMap<VersionName, u64>,
    /// What follows from it: the weights in force while there is no override.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by_endpoints: Option<Weights>,
    /// The running rollout, or the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<RolloutMark>,
    /// The file's versions that a rollout has begun to: none of these begins by itself again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rolled_out: Vec<VersionName>,
    /// Why `stable` is not the file's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub promoted: Option<Promoted>,
    /// Of a sticky split; follows the coin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owners: Option<KeptOwners>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct DrainedEndpoint {
    pub version: VersionName,
    pub address: Address,
}

impl Kept {
    /// A split nobody has given orders for.
    pub fn fresh(split: &Split) -> Self {
        let mut kept = Self {
            revision: Revision(0),
            epoch: 0,
            file_weights: split.weights(),
            stable: split.stable.clone(),
            previous_stable: None,
            override_: None,
            closed: Vec::new(),
            drained: Vec::new(),
            drained_endpoints: Vec::new(),
            coin: Vec::new(),
            available: BTreeMap::new(),
            by_endpoints: None,
            rollout: None,
            rolled_out: Vec::new(),
            promoted: None,
            owners: None,
        };
        kept.settle(split);
        kept
    }

    /// The weights in force.
    pub fn weights(&self) -> &Weights {
        let by_itself = self.by_endpoints.as_ref().unwrap_or(&self.file_weights);
        self.override_.as_ref().map_or(by_itself, |o| &o.weights)
    }

    pub fn is_held(&self) -> bool {
        self.override_.as_ref().is_some_and(|o| o.hold)
    }

    /// The operator wants this endpoint to take nothing new.
    pub fn drains(&self, version: &VersionName, address: &Address) -> bool {
        self.drained.contains(version) || self.drains_alone(version, address)
    }

    /// The same, by an order for just this endpoint.
    pub fn drains_alone(&self, version: &VersionName, address: &Address) -> bool {
        self.drained_endpoints.iter().any(|d| d.version == *version && d.address == *address)
    }

    /// The version takes nothing new: drained as a whole, or each of its endpoints by itself, which is the same to
    /// a request.
    pub fn is_draining(&self, version: &Version) -> bool {
        let is_drained = |spec: &EndpointSpec| match &spec.target {
            Target::Address(address) => self.drains_alone(&version.name, address),
            // Its addresses come and go by themselves; the coin follows orders only.
            Target::Name(_) => false,
        };
        let each = || version.endpoints.iter().all(is_drained);
        self.drained.contains(&version.name) || (!version.endpoints.is_empty() && each())
    }

    /// The version has an endpoint that may take requests.
    pub fn is_usable(&self, version: &Version, names: &Names) -> bool {
        names.places(version).iter().any(|place| !self.drains(&version.name, &place.address))
    }

    /// Makes coin and owners what the orders now say.
    pub fn settle(&mut self, split: &Split) {
        self.by_endpoints = (split.weigh_by == WeighBy::Endpoints).then(|| self.weigh(split));
        self.coin = self.draw(split);
        let before = self.owners.take();
        self.owners = split.sticky.as_ref().and_then(|_| KeptOwners::under(before.as_ref(), &self.coin, split));
    }

    /// The file's weights times what each version has in endpoints. While nobody has any, as if all were there: then
    /// `on_unavailable` decides.
    fn weigh(&self, split: &Split) -> Weights {
        let has = |v: &Version| u64::from(v.weight.value()) * self.has(v);
        let all = |v: &Version| u64::from(v.weight.value()) * all_of(v).max(1);
        let is_dark = split.versions.iter().all(|v| has(v) == 0);
        let weigh = |v: &Version| if is_dark { all(v) } else { has(v) };
        // Weights end at a million: larger products are made smaller, none of them to nothing.
        let largest = split.versions.iter().map(weigh).max().unwrap_or_default();
        let scale = largest.div_ceil(u64::from(Weight::MAX)).max(1);
        let weight = |v: &Version| u32::try_from(weigh(v).div_ceil(scale)).ok().and_then(|w| Weight::new(w).ok());
        split.versions.iter().map(|v| (v.name.clone(), weight(v).unwrap_or_default())).collect()
    }

    /// As told, but never more than the file gives and the operator leaves.
    fn has(&self, version: &Version) -> u64 {
        let drains = |a: &Address| self.drains(&version.name, a);
        let left = |(a, w): (&Address, u32)| if drains(a) { 0 } else { u64::from(w) };
        let given: u64 = version.weighted_addresses().map(left).sum();
        let is_counted = version.weighted_addresses().count() == version.endpoints.len();
        match self.available.get(&version.name) {
            Some(told) if is_counted => given.min(*told),
            Some(told) => *told,
            None if is_counted => given,
            None => all_of(version),
        }
    }

    fn draw(&self, split: &Split) -> Vec<(usize, VersionName, Weight)> {
        let weights = self.weights();
        let takes = |v: &Version| !self.closed.contains(&v.name) && !self.is_draining(v);
        let numbered = split.versions.iter().enumerate().filter(|(_, v)| takes(v));
        numbered
            .filter_map(|(i, v)| weights.weight(&v.name).filter(|w| !w.is_zero()).map(|w| (i, v.name.clone(), w)))
            .collect()
    }
}

/// Of all endpoints that the file names.
fn all_of(version: &Version) -> u64 {
    version.endpoints.iter().map(|e| u64::from(e.weight)).sum()
}
