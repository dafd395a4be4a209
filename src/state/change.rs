//! A change, as whoever wants it writes it down, and what comes of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::names::Resolved;
use super::rollouts::RolloutMark;
use super::snapshot::Snapshot;
use crate::config::{Config, NameTarget};
use crate::model::{Actor, Revision, Source, SplitName, VersionName, Weights};
use crate::tls::TlsError;

/// What is to change. Everything that ever changes what requests see is one of these.
#[derive(Clone, Debug)]
pub enum Change {
    /// A new configuration, already validated, its listeners already bound.
    Reload { config: Arc<Config> },
    /// A name has other addresses. Says nothing that anybody ordered: no revision, no history, nothing on disk.
    Resolved { name: NameTarget, addresses: Arc<[Resolved]> },
    /// Set the weights of every version; `hold` also defies later files.
    SetWeights { split: SplitName, weights: Weights, hold: bool },
    /// All to the target, everything else closed, held (surface.md section 6).
    Rollback { split: SplitName, to: Option<VersionName>, to_revision: Option<Revision>, force: bool },
    /// Back to the file's weights.
    Release { split: SplitName },
    /// No new requests for a version, or for one of its endpoints (`host:port` as in the file).
    Drain { split: SplitName, version: VersionName, endpoint: Option<String> },
    /// What each version of a split with `weigh_by = "endpoints"` has in available endpoints, their weights added up. No
    /// order of anybody's: no revision, no history, but a new coin.
    Available { split: SplitName, available: BTreeMap<VersionName, u64> },
    /// A rollout's progress, written down before it is acted upon. No order of anybody's: no revision, no history.
    Note { split: SplitName, rollout: RolloutMark },
    /// A finished rollout's version gets everything, and is stable from now on.
    Promote { split: SplitName, to: VersionName, weights: Weights },
    /// Takes a drain back.
    Undrain { split: SplitName, version: VersionName, endpoint: Option<String> },
}

/// A change with who wants it and on what condition.
#[derive(Clone, Debug)]
pub struct Order {
    /// Random; identifies the change over the fleet (fleet.md section 1).
    pub id: u128,
    pub change: Change,
    pub by: Actor,
    pub source: Source,
    pub reason: Option<String>,
    /// Only if the split's revision is still this one; a reload has no split, so there it means nothing.
    pub if_match: Option<Revision>,
    /// Say what would happen, do nothing.
    pub dry_run: bool,
}

/// What an order did.
#[derive(Clone, Debug)]
pub struct Applied {
    /// As it is now (or, for a dry run, would be).
    pub snapshot: Arc<Snapshot>,
    /// False if everything was so already; then the revision did not rise.
    pub changed: bool,
    /// It is on disk.
    pub persisted: bool,
    /// What was published, one per split touched (or one without a split for a reload that touched none).
    pub events: Vec<ChangeEvent>,
}

/// One line of history, one event for subscribers, one log line.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct HistoryEntry {
    pub revision: Revision,
    /// RFC 3339 UTC with milliseconds.
    pub at: String,
    /// `weights`, `rollback`, `release`, `promote`, `drain`, `undrain`, `reload`, `superseded`, `held`.
    pub kind: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split: Option<SplitName>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Weights>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<Weights>,
    /// For drains: `v1` or `v1/10.0.0.1:9000`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    pub by: Actor,
    pub source: Source,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The order's id, 32 hexadecimal digits.
    pub id: String,
}

/// What subscribers get.
pub type ChangeEvent = HistoryEntry;

/// Why an order was not carried out; nothing has changed.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    #[error("there is no split `{split}`; known: {}", known.join(", "))]
    UnknownSplit { split: String, known: Vec<String> },
    #[error("split `{split}` has {}; not `{version}`", known.join(", "))]
    UnknownVersion { split: SplitName, version: String, known: Vec<String> },
    #[error("version `{version}` has no endpoint `{endpoint}`; it has {}", known.join(", "))]
    UnknownEndpoint { version: VersionName, endpoint: String, known: Vec<String> },
    #[error("{0}")]
    BadWeights(String),
    #[error("{0}")]
    NothingToRollBack(String),
    #[error("{0}")]
    TargetUnhealthy(String),
    #[error("a rollout to `{to}` runs in split `{split}`: it sets the weights; pause or abort it first, or roll back")]
    RolloutRunning { split: SplitName, to: VersionName },
    #[error("split `{split}` is at revision {now}, not {wanted}: someone else was first")]
    RevisionChanged { split: SplitName, wanted: Revision, now: Revision },
    #[error("there is no revision {0} in the history of this split")]
    UnknownRevision(Revision),
    /// Taking back the drain of one endpoint while its whole version drains.
    #[error("`{endpoint}` drains because all of `{version}` does; undrain `{version}` instead")]
    DrainedAsVersion { version: VersionName, endpoint: String },
    /// A reload would remove a version that a held rollback stands on.
    #[error("{0}")]
    HeldConflict(String),
    /// A reload whose TLS cannot be had.
    #[error("`{key}`: {source}{}", cause(source))]
    BadTls { key: String, source: TlsError },
    /// A successor is being started, which has the state from here on.
    #[error("a new process is taking over: changes are refused until it has, or until it has failed")]
    Frozen,
    /// The disk refused; a rollback or reload would have gone ahead.
    #[error("could not write {path}: {source}; nothing was changed")]
    NotPersisted { path: String, source: std::io::Error },
}

/// What is behind an error, in brackets.
fn cause(error: &dyn std::error::Error) -> String {
    error.source().map(|source| format!(" ({source})")).unwrap_or_default()
}
