//! What the API needs from the rest of the program, as plain closures that `app` fills in.
//!
//! Closures, because telemetry windows, the reloader and readiness live in rooms that this one may not or need not
//! know by type; each does one thing and none may block for long unless it says so.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use super::dto::{NameDto, StatsDto};
use crate::health::Board;
use crate::model::{Actor, Instant, Revision, SplitName, VersionName};
use crate::rollout::Desk;
use crate::state::Store;
use crate::upgrade::Elsewhere;

/// A boxed future that may move between threads.
pub type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Counts and latencies of a version over the last so many seconds.
pub type StatsOf = dyn Fn(&SplitName, &VersionName, Duration) -> StatsDto + Send + Sync;

/// The same of what a rule, by its name, has sent to a version.
pub type RuleStatsOf = dyn Fn(&SplitName, &str, &VersionName, Duration) -> StatsDto + Send + Sync;

/// The names among a version's endpoints.
pub type NamesOf = dyn Fn(&SplitName, &VersionName) -> Vec<NameDto> + Send + Sync;

/// See the file's head.
pub struct AdminContext {
    pub store: Arc<Store>,
    /// Where rollouts are asked for and looked at.
    pub rollouts: Desk,
    /// What the active checks found.
    pub checks: Board,
    /// Its `in_flight` is not used: the pool's own count is shown.
    pub stats: Arc<StatsOf>,
    pub rule_stats: Arc<RuleStatsOf>,
    /// How the names of a version stand.
    pub names: Arc<NamesOf>,
    /// The whole Prometheus page; called on a thread that may block.
    pub render_metrics: Arc<dyn Fn() -> String + Send + Sync>,
    /// Reads the files again and applies them.
    pub reload: Arc<dyn Fn(ReloadAsk) -> BoxFuture<ReloadResult> + Send + Sync>,
    /// TOML text in, the array of diagnostics of surface.md section 5 out; called on a thread that may block.
    pub check: Arc<dyn Fn(String) -> serde_json::Value + Send + Sync>,
    /// The configuration in force as TOML, secrets left out.
    pub effective: Arc<dyn Fn() -> String + Send + Sync>,
    /// The JSON schema of `weir.toml`.
    pub schema: Arc<dyn Fn() -> serde_json::Value + Send + Sync>,
    /// `Err` names what readiness waits for.
    pub is_ready: Arc<dyn Fn() -> Result<(), Vec<String>> + Send + Sync>,
    /// How the last load of the configuration went.
    pub last_reload: Arc<dyn Fn() -> LastReload + Send + Sync>,
    /// The process is going down: changes are refused.
    pub is_shutting_down: Arc<dyn Fn() -> bool + Send + Sync>,
    /// Starts the binary anew and hands over to it; carried out also if the caller stops waiting.
    pub upgrade: Arc<dyn Fn(Actor) -> BoxFuture<UpgradeResult> + Send + Sync>,
    /// What the process before this one has in flight.
    pub elsewhere: Elsewhere,
    /// Start of the process, for the uptime.
    pub started: Instant,
}

impl fmt::Debug for AdminContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdminContext").field("started", &self.started).finish_non_exhaustive()
    }
}

/// Who wants a reload, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReloadAsk {
    pub by: Actor,
    pub reason: Option<String>,
    /// Read and check everything, apply nothing.
    pub dry_run: bool,
}

/// What came of a reload.
#[derive(Clone, Debug, PartialEq)]
pub enum ReloadResult {
    /// The files are in force now (or, for a dry run, would be).
    Done(ReloadDone),
    /// The files have errors; the old configuration stays.
    Invalid {
        /// For people: the diagnostics as text.
        text: String,
        /// For machines: the array of surface.md section 5.
        diagnostics: serde_json::Value,
    },
    /// The files would remove all that a held rollback stands on.
    HeldConflict(String),
    /// Anything else that stopped it, with the remedy.
    Failed(String),
}

/// A reload that was accepted.
#[derive(Clone, Debug, PartialEq)]
pub struct ReloadDone {
    pub revision: Revision,
    /// False if the files say what is in force already.
    pub changed: bool,
    pub persisted: bool,
    /// Splits whose held override defies the file.
    pub held: Vec<SplitName>,
    /// Splits whose override was dropped because the file changed their weights.
    pub superseded: Vec<SplitName>,
    /// Warnings, as the array of surface.md section 5.
    pub warnings: serde_json::Value,
}

/// What came of an upgrade.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UpgradeResult {
    /// That process serves now; this one finishes what it has.
    Done { pid: u32 },
    /// Another one is under way.
    Running,
    /// Not as this process runs.
    Impossible(String),
    /// The new process did not come up; this one goes on.
    Failed(String),
    /// This process is going down.
    ShuttingDown,
}

/// How the last load of the configuration went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastReload {
    pub accepted: bool,
    /// RFC 3339 UTC with milliseconds.
    pub at: String,
    /// If rejected: the first lines of why.
    pub message: Option<String>,
}
