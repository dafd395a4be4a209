//! What a request sees: loaded once per request, never changed after it is published.
//!
//! Invariant: index `i` of `Snapshot::splits` is index `i` of `config.splits`, and index `j` of a split's `versions`
//! is index `j` of that split's `versions` in the configuration; the route table speaks in these indexes.

use std::sync::Arc;

use rustls::{ClientConfig, ServerConfig};

use super::rollouts::RolloutMark;
use crate::config::Config;
use crate::model::{Actor, Revision, Source, SplitName, VersionName, Weight, Weights};
use crate::pool::{Pool, RetryBudget, Waiting};
use crate::rate::Limiter;
use crate::routing::{Owners, RouteTable};

/// See the file's head.
#[derive(Debug)]
pub struct Snapshot {
    pub revision: Revision,
    pub config: Arc<Config>,
    pub routes: Arc<RouteTable>,
    /// By route; kept through reloads that leave its limit alone.
    pub limiters: Vec<Option<Arc<Limiter>>>,
    pub splits: Vec<Arc<SplitState>>,
    /// By index of `config.listeners`; `None` where cleartext is spoken.
    pub tls: Vec<Option<Arc<ServerConfig>>>,
    /// By index of `config.splits` and of their `versions`; `None` where cleartext is spoken.
    pub upstream_tls: Vec<Vec<Option<Arc<ClientConfig>>>>,
    /// False once a write to `state_dir` has failed, or in memory mode.
    pub persisted: bool,
}

/// One split as requests and views see it.
#[derive(Debug)]
pub struct SplitState {
    pub name: SplitName,
    /// The revision that last touched this split; its ETag.
    pub revision: Revision,
    /// Rises with every change of the coin; counts are keyed by it (analysis.md section 2.1). Never repeats, also
    /// not over the splits' leaving and coming back.
    pub epoch: u64,
    /// In force, all versions in file order.
    pub weights: Weights,
    pub file_weights: Weights,
    pub override_: Option<Override>,
    /// Rollback target and baseline.
    pub stable: VersionName,
    /// Where a rollback goes when `stable` has everything already.
    pub previous_stable: Option<VersionName>,
    pub versions: Vec<VersionState>,
    /// What the deck deals from: versions that are open and have weight, with their weights.
    pub coin: Coin,
    /// Which version each sticky bucket has, when the split is sticky and the coin not empty; only versions of the coin
    /// own any.
    pub owners: Option<Arc<Owners>>,
    /// The running rollout, or the last one.
    pub rollout: Option<RolloutMark>,
    /// Versions of the file that a rollout has begun to.
    pub rolled_out: Vec<VersionName>,
    /// Which rollout the sticky cookie of a request must name for the user to count as seen; `0`: none yet.
    pub rollout_tag: Arc<str>,
    /// The rules that can choose somebody now, in order.
    pub rules: Vec<RuleState>,
    /// Retries in flight; the same one through reloads.
    pub retry_budget: Arc<RetryBudget>,
    /// Requests that wait for an endpoint; the same one through reloads.
    pub holding: Arc<Waiting>,
}

/// What a rule may choose now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleState {
    /// Into the split's `rules` in the configuration.
    pub index: usize,
    /// (Index into `versions`, weight above 0), by version; at least one. Closed versions only for `test` rules.
    pub choices: Vec<(usize, Weight)>,
}

/// The versions a request may get by weight: (index into `versions`, weight above 0). Empty: none is open.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Coin(pub Vec<(usize, Weight)>);

/// Weights set at runtime; they stand above the file.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Override {
    pub weights: Weights,
    /// A rollback: also defies a file that changes.
    pub hold: bool,
    pub by: Actor,
    /// Which way it came in.
    pub source: Source,
    /// RFC 3339 UTC with milliseconds.
    pub at: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// One version of a split.
#[derive(Debug)]
pub struct VersionState {
    pub name: VersionName,
    /// In force.
    pub weight: Weight,
    /// Closed by a rollback: no weights, rules or copies, except `test` rules.
    pub closed: bool,
    /// Drained as a whole by the operator.
    pub draining: bool,
    pub pool: Arc<Pool>,
}

impl Snapshot {
    /// The split of that name.
    pub fn split(&self, name: &str) -> Option<&Arc<SplitState>> {
        self.splits.iter().find(|s| s.name.as_str() == name)
    }
}

impl VersionState {
    /// The checks of some endpoint that does not drain do not speak against it.
    pub fn is_able(&self) -> bool {
        self.pool.endpoints().iter().any(|e| !e.is_draining() && e.health().is_able())
    }
}

impl SplitState {
    /// The version of that name.
    pub fn version(&self, name: &str) -> Option<&VersionState> {
        self.versions.iter().find(|v| v.name.as_str() == name)
    }

    /// What is in flight at its endpoints, of all kinds; the sum is not of one instant.
    pub fn in_flight(&self) -> u32 {
        self.versions.iter().flat_map(|v| v.pool.endpoints()).map(|e| e.counts().total()).sum()
    }

    /// A rollout moves its weights.
    pub fn is_rolling_out(&self) -> bool {
        self.rollout.as_ref().is_some_and(|rollout| rollout.running)
    }

    /// Weights are held against the file by a rollback.
    pub fn is_held(&self) -> bool {
        self.override_.as_ref().is_some_and(|o| o.hold)
    }
}
