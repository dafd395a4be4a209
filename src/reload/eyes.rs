//! The system's own notice that something about the watched files has happened. Only a hint to look: the content
//! decides. Where it does not work (NFS, too few inotify watches) the comparison every two seconds does.
//!
//! Watched are the folders of every link on the way and of the file (a rename or a swap shows there) and the file
//! itself (a write through another name of it, as with a bind-mounted file, shows only there).
//! Invariant: what is watched is what `aim` was last given; nothing is left behind.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use notify::event::{AccessKind, AccessMode};
use notify::{Event, EventKind, INotifyWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;

use super::links::chain;

/// See the file's head.
#[derive(Debug)]
pub(super) struct Eyes {
    inotify: Option<INotifyWatcher>,
    /// By path, with the device and inode it had: a path can come to be another folder.
    watched: HashMap<PathBuf, (u64, u64)>,
    interest: Arc<Mutex<Interest>>,
}

/// What an event must be about; a folder may hold a log that is written to all the time.
#[derive(Debug, Default, PartialEq)]
struct Interest {
    entries: HashSet<PathBuf>,
    folders: HashSet<PathBuf>,
}

impl Eyes {
    /// `wake` is notified of everything that may matter.
    pub(super) fn new(wake: Arc<Notify>) -> Self {
        let interest = Arc::new(Mutex::new(Interest::default()));
        let theirs = interest.clone();
        let see = move |event: notify::Result<Event>| {
            if event.is_err() || event.is_ok_and(|e| theirs.lock().unwrap_or_else(PoisonError::into_inner).covers(&e)) {
                wake.notify_one();
            }
        };
        let inotify = INotifyWatcher::new(see, notify::Config::default());
        if let Err(error) = &inotify {
            tracing::warn!(event = "watch-degraded", %error, "files are only compared every two seconds");
        }
        Self { inotify: inotify.ok(), watched: HashMap::new(), interest }
    }

    #[cfg(test)]
    /// As where the system gives no notice at all.
    pub(super) fn blind() -> Self {
        Self { inotify: None, watched: HashMap::new(), interest: Arc::default() }
    }

    /// Watches what now decides about these files and folders, and nothing else. Blocking, short.
    pub(super) fn aim(&mut self, files: &[PathBuf], folders: &[PathBuf]) {
        let entries: HashSet<PathBuf> = files.iter().chain(folders).flat_map(|path| chain(path)).collect();
        let folders: HashSet<PathBuf> = folders.iter().filter_map(|path| path.canonicalize().ok()).collect();
        let mut wanted: HashSet<PathBuf> = entries.iter().filter_map(|e| Some(e.parent()?.to_owned())).collect();
        wanted.extend(files.iter().filter_map(|path| path.canonicalize().ok()));
        wanted.extend(folders.iter().cloned());
        *self.interest.lock().unwrap_or_else(PoisonError::into_inner) = Interest { entries, folders };
        self.rewatch(&wanted);
    }

    fn rewatch(&mut self, wanted: &HashSet<PathBuf>) {
        let Some(inotify) = &mut self.inotify else { return };
        self.watched.retain(|path, id| {
            let keep = wanted.contains(path) && identity(path) == Some(*id);
            if !keep {
                // An error means that the kernel has dropped the watch together with the folder.
                let _ = inotify.unwatch(path);
            }
            keep
        });
        for path in wanted {
            if let Some(id) = identity(path)
                && !self.watched.contains_key(path)
                && inotify.watch(path, RecursiveMode::NonRecursive).is_ok()
            {
                self.watched.insert(path.clone(), id);
            }
        }
    }
}

impl Interest {
    fn covers(&self, event: &Event) -> bool {
        let is_read = match event.kind {
            // Our own looks come back as events too.
            EventKind::Access(kind) => kind != AccessKind::Close(AccessMode::Write),
            _ => false,
        };
        let about = |path: &PathBuf| {
            let within = path.parent().is_some_and(|folder| self.folders.contains(folder));
            within || self.entries.contains(path) || self.folders.contains(path) || self.holds_entry(path)
        };
        !is_read && (event.paths.is_empty() || event.paths.iter().any(about))
    }

    /// The folder of an entry was itself moved or removed.
    fn holds_entry(&self, path: &Path) -> bool {
        self.entries.iter().any(|entry| entry.parent() == Some(path))
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::metadata(path).ok().map(|m| (m.dev(), m.ino()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::time::Duration;

    use super::*;

    async fn woken(wake: &Notify) -> bool {
        tokio::time::timeout(Duration::from_secs(10), wake.notified()).await.is_ok()
    }

    #[tokio::test]
    async fn every_way_to_change_a_file_wakes_and_reading_it_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let (file, wake) = (root.join("weir.toml"), Arc::new(Notify::new()));
        fs::write(&file, "a").unwrap();
        let mut eyes = Eyes::new(wake.clone());
        let files = [file.clone()];
        eyes.aim(&files, &[]);
        fs::read(&file).unwrap();
        fs::write(root.join("access.log"), "much").unwrap();
        let nothing = tokio::time::timeout(Duration::from_millis(100), wake.notified()).await;
        assert!(nothing.is_err(), "a read, or a write to another file, is no change");
        fs::write(&file, "b").unwrap();
        assert!(woken(&wake).await, "written in place");
        fs::write(root.join("new"), "c").unwrap();
        fs::rename(root.join("new"), &file).unwrap();
        assert!(woken(&wake).await, "renamed over");
        eyes.aim(&files, &[]);
        fs::remove_file(&file).unwrap();
        assert!(woken(&wake).await, "removed");
        eyes.aim(&files, &[]);
        symlink("/dev/null", &file).unwrap();
        assert!(woken(&wake).await, "created");
    }

    #[tokio::test]
    async fn what_is_no_longer_on_the_way_is_no_longer_watched() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let mut eyes = Eyes::new(Arc::new(Notify::new()));
        for i in 0..50 {
            let (target, link) = (root.join(format!("..{i}")), root.join("..data"));
            fs::create_dir(&target).unwrap();
            fs::write(target.join("weir.toml"), "").unwrap();
            let _ = fs::remove_file(&link);
            symlink(&target, &link).unwrap();
            eyes.aim(&[link.join("weir.toml")], &[]);
        }
        let mut watched: Vec<_> = eyes.watched.keys().cloned().collect();
        watched.sort();
        assert_eq!(watched, [root.clone(), root.join("..49"), root.join("..49/weir.toml")]);
    }
}
