//! The JSON of answers, apart from the types inside, so that the API does not move by accident.
//!
//! Invariant: field names and order are those of surface.md section 7; new fields may be added, none renamed.

use serde::Serialize;
use utoipa::ToSchema;

use super::rollout::RolloutDto;
use super::rules::RuleStatsDto;
use crate::model::Weights;

/// Everything at once.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct StatusDto {
    /// Version of weir.
    pub(super) weir: &'static str,
    /// Number of the last change.
    pub(super) revision: u64,
    pub(super) uptime_seconds: u64,
    pub(super) ready: bool,
    /// What readiness waits for.
    pub(super) not_ready: Vec<String>,
    pub(super) shutting_down: bool,
    /// The process that answers.
    pub(super) pid: u32,
    /// The process before it, as long as it has something in flight.
    pub(super) predecessor: Option<PredecessorDto>,
    /// All acknowledged changes are on disk.
    pub(super) persisted: bool,
    pub(super) config: ConfigStatusDto,
    pub(super) listeners: Vec<ListenerDto>,
    pub(super) splits: Vec<SplitDto>,
}

/// A process that has handed over and finishes what it has.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct PredecessorDto {
    pub(super) pid: u32,
    /// Since when it accepts nothing (RFC 3339 UTC).
    pub(super) since: String,
    /// Open client connections.
    pub(super) connections: usize,
    /// Over all endpoints.
    pub(super) in_flight: CountsDto,
    /// Those that are busy.
    pub(super) endpoints: Vec<BusyDto>,
}

/// An endpoint at which another process has something in flight.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct BusyDto {
    pub(super) split: String,
    pub(super) version: String,
    pub(super) address: String,
    pub(super) in_flight: CountsDto,
}

/// A new process has taken over.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct UpgradeDto {
    /// The process that serves now.
    pub(super) pid: u32,
    /// The one that answers, and finishes what it has.
    pub(super) predecessor: u32,
    /// From the call to the first connection that the new one accepts.
    pub(super) took_ms: u64,
}

/// How the last load of the configuration went.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ConfigStatusDto {
    /// `ok`, or `rejected`: then an older configuration is in force.
    #[schema(example = "ok")]
    pub(super) result: &'static str,
    /// Since when (RFC 3339 UTC).
    pub(super) at: String,
    pub(super) message: Option<String>,
}

/// A listener as configured.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ListenerDto {
    pub(super) name: String,
    pub(super) bind: Vec<String>,
}

/// All splits, in file order.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct SplitsDto {
    pub(super) splits: Vec<SplitDto>,
}

/// One split as it is now.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct SplitDto {
    pub(super) name: String,
    /// The change that last touched this split; also its ETag.
    pub(super) revision: u64,
    /// `steady`, `shifted`, `held`; while a rollout runs `rolling_out`, `paused`.
    #[schema(example = "steady")]
    pub(super) state: &'static str,
    pub(super) stable: String,
    /// Where a rollback would go; null when there is nothing to roll back to.
    pub(super) rollback_to: Option<String>,
    /// What the weights in force come from: `file`, `api`, `cli`, `dashboard`.
    #[schema(example = "file")]
    pub(super) source: &'static str,
    #[schema(value_type = std::collections::BTreeMap<String, u32>)]
    pub(super) weights: Weights,
    #[schema(value_type = std::collections::BTreeMap<String, u32>)]
    pub(super) file_weights: Weights,
    /// In answers to a change: false if everything was so already.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) changed: Option<bool>,
    pub(super) persisted: bool,
    /// In answers to a change with `?dry_run=true`: nothing was done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) dry_run: Option<bool>,
    /// Weights set at runtime, if any.
    #[serde(rename = "override")]
    pub(super) override_: Option<OverrideDto>,
    pub(super) versions: Vec<VersionDto>,
    /// What each rule has sent to each version in the last minute; absent without rules.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) rules: Vec<RuleStatsDto>,
    /// The rollout that runs, or the last one; absent if there was none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) rollout: Option<RolloutDto>,
}

/// Weights set at runtime; they stand above the file.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct OverrideDto {
    /// Also defies a file that changes.
    pub(super) hold: bool,
    pub(super) by: String,
    pub(super) at: String,
    pub(super) reason: Option<String>,
}

/// One version of a split.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct VersionDto {
    pub(super) name: String,
    pub(super) weight: u32,
    /// Part of the requests it should get, 0..1.
    pub(super) share: f64,
    /// Part of the requests of the last minute it got, 0..1; null without requests.
    pub(super) observed_share: Option<f64>,
    /// `open`, `closed` by a rollback, `draining`.
    #[schema(example = "open")]
    pub(super) state: &'static str,
    /// True when none of its endpoints takes requests: `on_unavailable` decides. Absent otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) unavailable: Option<bool>,
    pub(super) endpoints: Vec<EndpointDto>,
    /// The names among its endpoints in the file, and how they stand; left out if there are none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) names: Vec<NameDto>,
    pub(super) stats: StatsDto,
}

/// A name whose addresses are endpoints.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct NameDto {
    /// As in the file, without a scheme.
    #[schema(example = "shop.internal:9000")]
    pub name: String,
    /// `resolving` (asked for the first time), `fresh`, `stale` (the last good answer is in force), `unresolved` (there
    /// has never been an address).
    #[schema(example = "fresh")]
    pub state: &'static str,
    /// How many addresses are in force.
    pub addresses: usize,
    /// Since the last good answer; null if there was none.
    pub age_seconds: Option<u64>,
    /// Why the newest answer was not good.
    pub error: Option<String>,
}

/// One address of a version. One that has left the file is listed until nothing is in flight.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct EndpointDto {
    #[schema(example = "10.0.1.11:9000")]
    pub(super) address: String,
    /// `checking` (no check has passed yet), `up`, `down`, `ejected`, `draining`.
    #[schema(example = "up")]
    pub(super) state: &'static str,
    /// While it is ejected: when it is taken back, rounded up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) readmitted_in_seconds: Option<u64>,
    pub(super) in_flight: u32,
    /// When it was last checked (RFC 3339 UTC); only if its version has active checks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) last_check: Option<String>,
    /// Why it is not up: how its last check failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reason: Option<String>,
}

/// What a version did in the last so many seconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, ToSchema)]
pub struct StatsDto {
    /// How far back it looks.
    pub window_seconds: u64,
    pub requests: u64,
    /// Requests per second.
    pub rps: f64,
    /// Errors per request, 0..1.
    pub error_rate: f64,
    /// Latency in milliseconds; null without requests.
    pub p50_ms: Option<f64>,
    pub p90_ms: Option<f64>,
    pub p95_ms: Option<f64>,
    pub p99_ms: Option<f64>,
    /// Now, not in the window.
    pub in_flight: u32,
}

/// The figures of all versions of a split over one window.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct SplitStatsDto {
    pub(super) split: String,
    pub(super) window_seconds: u64,
    pub(super) versions: Vec<VersionStatsDto>,
    /// What of it each rule has sent to each version; absent without rules.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) rules: Vec<RuleStatsDto>,
}

/// The figures of one version.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct VersionStatsDto {
    pub(super) name: String,
    pub(super) share: f64,
    pub(super) observed_share: Option<f64>,
    pub(super) stats: StatsDto,
}

/// How far a drain is.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct DrainDto {
    pub(super) split: String,
    pub(super) version: String,
    /// Nothing is in flight any more.
    pub(super) drained: bool,
    /// Over all endpoints asked for.
    pub(super) in_flight: CountsDto,
    pub(super) endpoints: Vec<DrainEndpointDto>,
}

/// One endpoint of a drain.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct DrainEndpointDto {
    pub(super) address: String,
    /// It has left the configuration.
    pub(super) removed: bool,
    pub(super) in_flight: CountsDto,
    /// After this long what is left is cut: requests and streams first, upgrades if nothing else is left.
    pub(super) cut_in_seconds: Option<u64>,
}

/// What is in flight, by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub(super) struct CountsDto {
    pub(super) total: u32,
    pub(super) requests: u32,
    pub(super) streams: u32,
    pub(super) upgrades: u32,
}

/// A page of the history, newest first.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct HistoryDto {
    pub(super) history: Vec<HistoryEntryDto>,
    /// Give it as `before` for the next page; null at the end.
    pub(super) next_before: Option<u64>,
}

/// One change: who, when, why, from, to.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct HistoryEntryDto {
    pub(super) revision: u64,
    pub(super) at: String,
    /// `weights`, `rollback`, `release`, `drain`, `undrain`, `reload`, `superseded`, `held`.
    pub(super) kind: String,
    pub(super) split: Option<String>,
    #[schema(value_type = Option<std::collections::BTreeMap<String, u32>>)]
    pub(super) from: Option<Weights>,
    #[schema(value_type = Option<std::collections::BTreeMap<String, u32>>)]
    pub(super) to: Option<Weights>,
    /// For drains: `v1`, or `v1/10.0.0.1:9000`.
    pub(super) target: Option<String>,
    pub(super) by: String,
    pub(super) source: &'static str,
    pub(super) reason: Option<String>,
    pub(super) id: String,
}

/// A reload that was accepted.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ReloadDto {
    /// `applied`, or `unchanged` if the files say what is in force already.
    #[schema(example = "applied")]
    pub(super) result: &'static str,
    pub(super) revision: u64,
    pub(super) changed: bool,
    pub(super) persisted: bool,
    pub(super) dry_run: bool,
    /// Splits whose held rollback defies the file until it is released.
    pub(super) held: Vec<String>,
    /// Splits whose override the file replaced.
    pub(super) superseded: Vec<String>,
    #[schema(value_type = Vec<Object>)]
    pub(super) warnings: serde_json::Value,
}
