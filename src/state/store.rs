//! The one write path.
use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::broadcast;

use super::{Applied, ApplyError, ChangeEvent, HistoryEntry, Order, Snapshot};
use crate::config::Config;
use crate::model::SplitName;
use crate::pool::Registry;

/// How to open the state.
#[derive(Clone, Debug, Default)]
pub struct OpenOptions {
    /// Start although `state.json` is of a newer format: it is set aside, not overwritten.
    pub ignore_state: bool,
}

/// Why the process must not start.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(
        "{path} was written by a newer weir (format {found}, this one knows {known}); use that version, or start with --ignore-state"
    )]
    Newer { path: PathBuf, found: u64, known: u64 },
    #[error("{path} is in use by another weir{}", holder.map(|pid| format!(" (process {pid})")).unwrap_or_default())]
    Locked { path: PathBuf, holder: Option<u32> },
    #[error("{0}")]
    HeldConflict(String),
}

/// See the file's head.
pub struct Store {
    current: Arc<ArcSwap<Snapshot>>,
}

impl Store {
    pub fn open(config: Arc<Config>, registry: Arc<Registry>, options: &OpenOptions) -> Result<Self, OpenError> {
        let _ = (config, registry, options);
        todo!()
    }
    /// What is in force now.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }
    /// For the data plane's cached reads.
    pub fn shared(&self) -> Arc<ArcSwap<Snapshot>> {
        self.current.clone()
    }
    pub fn registry(&self) -> &Arc<Registry> {
        todo!()
    }
    pub fn apply(&self, order: Order) -> Result<Applied, ApplyError> {
        let _ = order;
        todo!()
    }
    /// Newest first; `before` is exclusive.
    pub fn history(&self, split: Option<&SplitName>, limit: usize, before: Option<u64>) -> Vec<HistoryEntry> {
        let _ = (split, limit, before);
        todo!()
    }
    pub fn subscribe(&self) -> broadcast::Receiver<ChangeEvent> {
        todo!()
    }
    /// Writes again what a failed write left behind; call it every second or so. True if all is on disk.
    pub fn retry_persist(&self) -> bool {
        todo!()
    }
}
