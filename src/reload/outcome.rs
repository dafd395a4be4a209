//! What came of a reload, for `/status`, metrics, the API's answer and the log.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde_json::Value;

use crate::config::Config;
use crate::model::{Actor, Revision, SplitName};

/// One reload.
#[derive(Clone, Debug)]
pub struct ReloadOutcome {
    pub result: ReloadResult,
    pub by: Actor,
    pub at: SystemTime,
    /// From the order to the moment all workers could use it.
    pub took: Duration,
}

/// See the file's head.
#[derive(Clone, Debug)]
pub enum ReloadResult {
    /// In force.
    Applied {
        revision: Revision,
        /// False if it says what was in force already.
        changed: bool,
        /// False if the change is not on disk yet (it is retried).
        persisted: bool,
        /// Splits whose new weights wait behind a held rollback.
        held: Vec<SplitName>,
        /// Rendered, `restart-needed` included.
        warnings: Vec<String>,
        diagnostics: Value,
    },
    /// Nothing was touched.
    Rejected {
        /// For people.
        report: String,
        /// The array of surface.md section 5.
        diagnostics: Value,
    },
    /// The files are those in force, byte for byte.
    Unchanged,
}

impl ReloadResult {
    /// The label of `weir_config_reloads_total{result}`.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Applied { .. } => "applied",
            Self::Rejected { .. } => "rejected",
            Self::Unchanged => "unchanged",
        }
    }
}

/// How reloads have gone since the start. The start itself counts as the first success.
#[derive(Clone, Debug)]
pub struct ReloadStatus {
    /// The configuration in force.
    pub running: Arc<Config>,
    /// Of the files in force.
    pub digest: [u8; 32],
    /// `None`: not one since the start.
    pub last: Option<ReloadOutcome>,
    pub last_success_at: SystemTime,
    pub applied: u64,
    pub rejected: u64,
    pub unchanged: u64,
}

impl ReloadStatus {
    pub(super) fn started(running: Arc<Config>, digest: [u8; 32]) -> Self {
        let now = SystemTime::now();
        Self { running, digest, last: None, last_success_at: now, applied: 0, rejected: 0, unchanged: 0 }
    }

    /// The files on disk are not those in force: the last ones were rejected.
    pub fn is_stale(&self) -> bool {
        self.last.as_ref().is_some_and(|last| matches!(last.result, ReloadResult::Rejected { .. }))
    }

    pub(super) fn count(&mut self, outcome: ReloadOutcome) {
        match outcome.result {
            ReloadResult::Applied { .. } => self.applied += 1,
            ReloadResult::Rejected { .. } => self.rejected += 1,
            ReloadResult::Unchanged => self.unchanged += 1,
        }
        if !matches!(outcome.result, ReloadResult::Rejected { .. }) {
            self.last_success_at = outcome.at;
        }
        self.last = Some(outcome);
    }
}
