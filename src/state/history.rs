//! What has happened: the newest entries in memory, all of them line by line in `history.jsonl`.
//!
//! The file is written without a sync: the state file carries the newest entries, and what a crash took is appended
//! again at the next start. Invariants: an entry is in memory once it is in force; a torn or foreign line costs that
//! line only; a disk that refuses costs nothing but a later attempt.

use std::collections::{HashSet, VecDeque};
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::HistoryEntry;
use crate::model::{Revision, SplitName, Weights};

/// Entries kept in memory.
const IN_MEMORY: usize = 1000;
/// Lines above which the file is made shorter, and to how many.
const LINES: usize = 10_000;
const LINES_LEFT: usize = 5000;

/// The newest entries, oldest first.
#[derive(Debug, Default)]
pub(super) struct Memory(VecDeque<HistoryEntry>);

impl Memory {
    pub fn push(&mut self, entries: impl IntoIterator<Item = HistoryEntry>) {
        self.0.extend(entries);
        let surplus = self.0.len().saturating_sub(IN_MEMORY);
        self.0.drain(..surplus);
    }

    pub fn newest(&self, split: Option<&SplitName>, limit: usize, before: Option<u64>) -> Vec<HistoryEntry> {
        let wanted = |e: &&HistoryEntry| {
            split.is_none_or(|s| e.split.as_ref() == Some(s)) && before.is_none_or(|b| e.revision.0 < b)
        };
        self.0.iter().rev().filter(wanted).take(limit).cloned().collect()
    }

    /// The weights in force at a revision that touched the split.
    pub fn weights_at(&self, split: &SplitName, revision: Revision) -> Option<Weights> {
        let of_split = || self.0.iter().rev().filter(|e| e.split.as_ref() == Some(split) && e.revision <= revision);
        of_split().next().filter(|e| e.revision == revision)?;
        of_split().find_map(|e| e.to.clone())
    }

    pub fn revision(&self) -> Revision {
        self.0.iter().map(|e| e.revision).max().unwrap_or_default()
    }
}

/// `history.jsonl`.
#[derive(Debug)]
pub(super) struct Log {
    path: PathBuf,
    lines: usize,
    /// Not in the file yet.
    waiting: Vec<HistoryEntry>,
    /// The file's last line has no end: the next one must not be glued to it.
    torn: bool,
}

impl Log {
    /// Reads the file, and appends those of `recent` that it lacks.
    pub fn open(dir: &Path, recent: &[HistoryEntry], memory: &mut Memory) -> Self {
        let path = dir.join("history.jsonl");
        let text = std::fs::read(&path).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let torn = !text.is_empty() && !text.ends_with('\n');
        let lines = text.lines().count();
        let known: Vec<HistoryEntry> =
            text.lines().skip(lines.saturating_sub(IN_MEMORY)).filter_map(|l| serde_json::from_str(l).ok()).collect();
        // By the line too: after a very large reload the newest entries reach back beyond what is kept in memory.
        let all_lines: HashSet<&str> = text.lines().collect();
        let has_line = |e: &HistoryEntry| serde_json::to_string(e).is_ok_and(|line| all_lines.contains(line.as_str()));
        let missing: Vec<_> = recent.iter().filter(|e| !known.contains(e) && !has_line(e)).cloned().collect();
        let mut all: Vec<_> = known.into_iter().chain(missing.iter().cloned()).collect();
        all.sort_by_key(|e| e.revision);
        memory.push(all);
        let mut log = Self { path, lines, waiting: missing, torn };
        log.flush();
        log
    }

    /// Adds entries and tries to write all that wait.
    pub fn append(&mut self, entries: &[HistoryEntry]) {
        self.defer(entries);
        self.flush();
    }

    /// Adds entries whose state is not on disk yet: history must not run ahead of it.
    pub fn defer(&mut self, entries: &[HistoryEntry]) {
        self.waiting.extend_from_slice(entries);
        let surplus = self.waiting.len().saturating_sub(IN_MEMORY);
        self.waiting.drain(..surplus);
    }

    /// Writes what waits. True if nothing does any more.
    pub fn flush(&mut self) -> bool {
        if self.waiting.is_empty() {
            return true;
        }
        if let Err(error) = self.write() {
            self.torn = true;
            tracing::warn!(event = "history_not_written", path = %self.path.display(), %error, "will be tried again");
            return false;
        }
        self.lines += self.waiting.len() + usize::from(std::mem::take(&mut self.torn));
        self.waiting.clear();
        true
    }

    fn write(&self) -> io::Result<()> {
        let mut text = if self.torn { "\n".to_owned() } else { String::new() };
        for entry in &self.waiting {
            text.push_str(&serde_json::to_string(entry)?);
            text.push('\n');
        }
        let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(&self.path)?;
        file.write_all(text.as_bytes())
    }

    /// Makes a long file shorter; kept out of the way of changes.
    pub fn compact(&mut self) {
        if self.lines <= LINES {
            return;
        }
        match self.shorten() {
            Ok(lines) => self.lines = lines,
            Err(error) => {
                tracing::warn!(event = "history_not_compacted", path = %self.path.display(), %error);
                // Counted from here, else a full disk would be asked again every second.
                self.lines = LINES_LEFT;
            }
        }
    }

    fn shorten(&self) -> io::Result<usize> {
        let text = std::fs::read(&self.path)?;
        let text = String::from_utf8_lossy(&text);
        let surplus = text.lines().count().saturating_sub(LINES_LEFT);
        let left: Vec<&str> = text.lines().skip(surplus).collect();
        let temporary = self.path.with_extension("jsonl.tmp");
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        file.write_all((left.join("\n") + "\n").as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&temporary, &self.path).map(|()| left.len())
    }
}
