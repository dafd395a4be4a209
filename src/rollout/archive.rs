//! The folder of receipts: one file per rollout, with the evidence beside it while it runs.
//!
//! Why not in `state.json`: evidence is written each second, and no rollback should wait behind that. What decides (the
//! machine) is in `state.json`; losing a file here loses some evidence or a receipt, never a decision.
//! Invariant: a file is replaced whole; what cannot be read is left where it is and told.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::document::Document;
use super::saved::Saved;
use super::view::Tally;
use crate::analysis::Snapshot;

/// So many receipts are kept.
pub(super) const KEPT: usize = 200;

/// A file of the folder.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Filed {
    pub(super) document: Document,
    /// What the analysis has learned, while it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) evidence: Option<Snapshot>,
    /// Requests and failures that it has judged: of the canary, of stable.
    #[serde(default)]
    pub(super) judged: [Tally; 2],
    /// The machine, with its step's clock as it then was; what decides is in `state.json`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) progress: Option<Saved>,
    /// When all of this was so.
    #[serde(default)]
    pub(super) at: String,
}

impl Filed {
    /// Nothing more will come.
    pub(super) fn closed(document: Document) -> Self {
        let at = document.ended_at.clone().unwrap_or_default();
        Self { document, evidence: None, judged: Default::default(), progress: None, at }
    }
}

/// See the file's head. Its methods block for the disk.
#[derive(Clone, Debug)]
pub(super) struct Archive {
    /// `None`: in memory.
    folder: Option<PathBuf>,
}

impl Archive {
    /// In `state_dir`; without one that can be used, nowhere.
    pub(super) fn open(state_dir: Option<&Path>) -> Self {
        let folder = state_dir.map(|dir| dir.join("rollouts"));
        let made = folder.as_ref().map(|folder| DirBuilder::new().recursive(true).mode(0o700).create(folder));
        if let Some(Err(error)) = made {
            tracing::warn!(event = "rollouts_not_kept", %error, "receipts and evidence will not survive a restart");
            return Self { folder: None };
        }
        Self { folder }
    }

    /// All that can be read, newest first; older ones than are kept are removed.
    pub(super) fn read(&self) -> Vec<Filed> {
        let Some(folder) = &self.folder else { return Vec::new() };
        let mut paths: Vec<PathBuf> = fs::read_dir(folder)
            .map(|entries| entries.filter_map(Result::ok).map(|entry| entry.path()).collect())
            .unwrap_or_default();
        paths.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
        // Names begin with the time.
        paths.sort_unstable_by(|a, b| b.cmp(a));
        paths.split_off(paths.len().min(KEPT)).iter().for_each(|path| drop(fs::remove_file(path)));
        paths.iter().filter_map(|path| one(path)).collect()
    }

    /// Writes, or replaces, one.
    ///
    /// # Errors
    /// The disk refuses; the file is as it was.
    pub(super) fn write(&self, filed: &Filed, is_final: bool) -> io::Result<()> {
        let Some(folder) = &self.folder else { return Ok(()) };
        let path = folder.join(format!("{}.json", filed.document.id));
        let temporary = path.with_extension("tmp");
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        file.write_all(&serde_json::to_vec(filed)?)?;
        if is_final {
            file.sync_all()?;
        }
        fs::rename(&temporary, &path)?;
        if is_final { File::open(folder)?.sync_all() } else { Ok(()) }
    }
}

fn one(path: &Path) -> Option<Filed> {
    let read = fs::read(path).map_err(|error| error.to_string());
    let filed = read.and_then(|bytes| serde_json::from_slice(&bytes).map_err(|error| error.to_string()));
    filed
        .inspect_err(|error| {
            tracing::warn!(event = "receipt_not_read", path = %path.display(), error, "it is left where it is");
        })
        .ok()
}
