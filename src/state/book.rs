//! All that is remembered over a restart, as plain data: what the file said last and what was ordered on top of it.
//!
//! Pure. Invariants: `file_weights` names every version of the split in file order; an override's weights name the
//! same versions in the same order and sum to more than 0; only a held override closes versions; epochs and
//! revisions only ever rise.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::names::Names;
use super::owners::KeptOwners;
use super::{HistoryEntry, Override};
use crate::config::{EndpointSpec, Split, Target, Version};
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
            owners: None,
        };
        kept.settle(split);
        kept
    }

    /// The weights in force.
    pub fn weights(&self) -> &Weights {
        self.override_.as_ref().map_or(&self.file_weights, |o| &o.weights)
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
        self.coin = self.draw(split);
        let before = self.owners.take();
        self.owners = split.sticky.as_ref().and_then(|_| KeptOwners::under(before.as_ref(), &self.coin, split));
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
