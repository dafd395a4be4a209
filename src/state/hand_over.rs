//! The state's way from one process to the next: frozen here, handed over with the directory's lock, settled there.
//!
//! Invariants: while a store is frozen nothing changes and nothing is written, so that the successor finds every change
//! that was ever acknowledged; the successor writes nothing before it has taken over, so that the predecessor can go on
//! as if nothing had been if it fails.

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use super::book::Book;
use super::format::{FORMAT, Unreadable, decode, encode};
use super::{OpenError, Resolved, Store};
use crate::config::NameTarget;
use crate::pool::{EndpointKey, Health, Registry};

/// What is known of the world, which a successor would else have to find out while requests wait for it.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct Known {
    /// The last answers for names.
    pub names: Vec<(NameTarget, Vec<Resolved>)>,
    /// What the checks said last.
    pub health: Vec<(EndpointKey, Health)>,
}

impl Known {
    /// Endpoints that are to be checked here too are what they were found to be, until the checks say otherwise.
    pub(super) fn settle_health(&self, registry: &Registry) {
        for (key, was) in &self.health {
            let Some(endpoint) = registry.find(key).filter(|e| e.health() == Health::Checking) else { continue };
            endpoint.set_health(if *was == Health::Unchecked { Health::Up } else { *was });
        }
    }
}

/// What a successor needs of the state.
#[derive(Debug)]
pub struct Handed {
    /// `admin.state_dir` of the process that hands over; to a successor with another one this is nothing.
    pub dir: PathBuf,
    /// Its lock; `None` in memory mode.
    pub lock: Option<OwnedFd>,
    /// The state itself, if it is not on disk: memory mode, or a disk that refuses.
    pub state: Option<Vec<u8>>,
    pub known: Known,
}

impl Handed {
    /// The state that came with it.
    ///
    /// # Errors
    /// It is of a newer format, which this binary would lose.
    pub(super) fn book(&self) -> Result<Option<Book>, OpenError> {
        match self.state.as_deref().map(decode).transpose() {
            Ok(book) => Ok(book),
            Err(Unreadable::Newer(found)) => Err(OpenError::Newer { path: self.dir.clone(), found, known: FORMAT }),
            Err(Unreadable::Damaged(why)) => {
                tracing::error!(event = "state_damaged", reason = why, "what was handed over cannot be read");
                Ok(None)
            }
        }
    }
}

/// A store that takes no change; dropping it thaws it.
#[derive(Debug)]
#[must_use = "the store is frozen only as long as this lives"]
pub struct Frozen(Arc<Store>);

impl Drop for Frozen {
    fn drop(&mut self) {
        self.0.writer().frozen = false;
    }
}

impl Store {
    /// From here on changes are refused (`ApplyError::Frozen`) and nothing is written; what waits is written first. Blocks
    /// for the disk.
    ///
    /// # Errors
    /// When the process is out of file descriptors; then nothing is frozen.
    pub fn freeze(self: &Arc<Self>) -> io::Result<(Frozen, Handed)> {
        let dir = self.snapshot().config.admin.state_dir.clone();
        let mut writer = self.writer();
        if writer.dirty {
            self.write_behind(&mut writer, &[]);
        }
        if let Some(files) = &mut writer.files {
            files.log.flush();
        }
        let lock = writer.files.as_ref().map(|files| files.disk.lock().try_clone_to_owned()).transpose()?;
        let is_on_disk = writer.files.is_some() && !writer.dirty;
        let state = if is_on_disk { None } else { Some(encode(&writer.book)?) };
        writer.frozen = true;
        let known = Known { names: writer.names.all(), health: self.registry().health() };
        Ok((Frozen(self.clone()), Handed { dir, lock, state, known }))
    }

    /// Whether a successor is being given the state. Waits for nothing: while a change is being written it says no.
    pub fn is_frozen(&self) -> bool {
        self.try_writer().is_some_and(|writer| writer.frozen)
    }

    /// The predecessor is out: what its file or state has made to change is written. True if all is on disk.
    pub fn settle(&self) -> bool {
        self.writer().files.iter().for_each(|files| files.disk.sign());
        self.retry_persist()
    }
}

#[cfg(test)]
mod tests {
    use crate::model::Revision;
    use crate::state::testing::*;
    use crate::state::{ApplyError, OpenOptions};

    use super::*;

    fn successor(config: &Arc<crate::config::Config>, handed: Handed) -> Arc<Store> {
        let options = OpenOptions { ignore_state: false, handed: Some(handed) };
        Arc::new(Store::open(config.clone(), Arc::default(), &options).unwrap())
    }

    #[test]
    fn a_frozen_store_changes_nothing_until_it_is_thawed() {
        let dir = tempfile::tempdir().unwrap();
        let store = Arc::new(open(shop(dir.path(), &[("v1", 90), ("v2", 10)])));
        let (frozen, handed) = store.freeze().unwrap();
        assert!(handed.lock.is_some() && handed.state.is_none(), "{handed:?}");
        assert!(matches!(apply(&store, shift(&[("v1", 1), ("v2", 1)])), Err(ApplyError::Frozen)));
        assert_eq!(store.snapshot().revision, Revision(1));
        drop(frozen);
        assert_eq!(apply(&store, shift(&[("v1", 1), ("v2", 1)])).unwrap().snapshot.revision, Revision(2));
    }

    #[test]
    fn the_successor_has_every_change_and_the_lock_and_writes_only_when_it_settles() {
        let dir = tempfile::tempdir().unwrap();
        let store = Arc::new(open(shop(dir.path(), &[("v1", 90), ("v2", 10)])));
        apply(&store, shift(&[("v1", 1), ("v2", 1)])).unwrap();
        let before = std::fs::read(dir.path().join("state.json")).unwrap();
        let (frozen, handed) = store.freeze().unwrap();
        // Other file weights: the override is superseded, which is a change.
        let config = shop(dir.path(), &[("v1", 70), ("v2", 30)]);
        let next = successor(&config, handed);
        assert_eq!(next.snapshot().revision, Revision(3));
        assert_eq!(std::fs::read(dir.path().join("state.json")).unwrap(), before, "not before it settles");
        drop((frozen, store));
        assert!(next.settle());
        assert_ne!(std::fs::read(dir.path().join("state.json")).unwrap(), before);
        let second = Store::open(config.clone(), Arc::default(), &OpenOptions::default());
        assert!(matches!(second, Err(crate::state::OpenError::Locked { .. })), "the lock went over");
        drop(next);
        let third = open(config);
        assert_eq!(third.snapshot().revision, Revision(3));
        assert_eq!(third.history(None, 10, None).len(), 3);
    }

    #[test]
    fn a_successor_that_fails_leaves_no_trace() {
        let dir = tempfile::tempdir().unwrap();
        let store = Arc::new(open(shop(dir.path(), &[("v1", 90), ("v2", 10)])));
        let (frozen, handed) = store.freeze().unwrap();
        drop(successor(&shop(dir.path(), &[("v1", 70), ("v2", 30)]), handed));
        drop(frozen);
        assert_eq!(apply(&store, shift(&[("v1", 1), ("v2", 1)])).unwrap().snapshot.revision, Revision(2));
        let second = Store::open(shop(dir.path(), &[("v1", 90), ("v2", 10)]), Arc::default(), &OpenOptions::default());
        assert!(matches!(second, Err(crate::state::OpenError::Locked { .. })), "the lock stayed");
    }

    #[test]
    fn what_is_only_in_memory_goes_over_too() {
        let dir = tempfile::tempdir().unwrap();
        let blocked = dir.path().join("file");
        std::fs::write(&blocked, "").unwrap();
        let config = shop(&blocked.join("state"), &[("v1", 90), ("v2", 10)]);
        let store = Arc::new(open(config.clone()));
        apply(&store, shift(&[("v1", 1), ("v2", 1)])).unwrap();
        let (_frozen, handed) = store.freeze().unwrap();
        assert!(handed.lock.is_none() && handed.state.is_some());
        let next = successor(&config, handed);
        let shop = next.snapshot().split("shop").unwrap().clone();
        assert_eq!((shop.revision, shop.override_.is_some()), (Revision(2), true));
    }
}
