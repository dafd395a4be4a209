//! What the checks found, for those who show it: the API, the command line, the metrics.
//!
//! Why not at the endpoint: texts and times are for people, and requests must not carry them about. Invariant: a plain
//! lock, held for lines, taken by checkers and by those who show, never by a request; counts only ever rise.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use super::probe::Probed;
use crate::model::{SplitName, VersionName};
use crate::pool::EndpointKey;

/// Clones are the same board.
#[derive(Clone, Debug, Default)]
pub struct Board(Arc<Mutex<Entries>>);

#[derive(Debug, Default)]
struct Entries {
    endpoints: HashMap<EndpointKey, LastCheck>,
    counts: HashMap<(SplitName, VersionName), CheckCounts>,
}

/// The newest check of an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastCheck {
    /// When it was over.
    pub at: SystemTime,
    /// Why the last one that did not pass did not, in words; `None` once the endpoint is up again.
    pub reason: Option<String>,
}

/// Checks of a version's endpoints since the start of the process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CheckCounts {
    pub passed: u64,
    pub failed: u64,
    /// Could not be made, by our own fault.
    pub not_made: u64,
}

impl Board {
    /// A poisoned lock still guards whole values.
    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The newest check of an endpoint; `None` before the first, and of those that are not checked.
    pub fn last(&self, key: &EndpointKey) -> Option<LastCheck> {
        self.entries().endpoints.get(key).cloned()
    }

    /// Zero for a version that was never checked.
    pub fn counts(&self, split: &SplitName, version: &VersionName) -> CheckCounts {
        self.entries().counts.get(&(split.clone(), version.clone())).copied().unwrap_or_default()
    }

    /// Takes one check down. `is_up`: what the endpoint is after it.
    pub(super) fn note(&self, key: &EndpointKey, probed: &Probed, is_up: bool, at: SystemTime) {
        let entries = &mut *self.entries();
        let counts = entries.counts.entry((key.split.clone(), key.version.clone())).or_default();
        let reason = match probed {
            Probed::Passed => {
                counts.passed += 1;
                None
            }
            Probed::Failed(why) => {
                counts.failed += 1;
                Some(why)
            }
            Probed::NotMade(why) => {
                counts.not_made += 1;
                Some(why)
            }
        };
        let last = entries.endpoints.entry(key.clone()).or_insert_with(|| LastCheck { at, reason: None });
        last.at = at;
        match reason {
            Some(why) => last.reason = Some(why.clone()),
            None if is_up => last.reason = None,
            None => {}
        }
    }

    /// It is not checked any more.
    pub(super) fn forget(&self, key: &EndpointKey) {
        self.entries().endpoints.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Address;

    #[test]
    fn the_reason_stays_until_it_is_up_again() {
        let board = Board::default();
        let (split, version) = (SplitName::new("shop").unwrap(), VersionName::new("v1").unwrap());
        let address = Address::Tcp(([127, 0, 0, 1], 1).into());
        let key = EndpointKey { split: split.clone(), version: version.clone(), address };
        assert_eq!(board.last(&key), None);
        let at = SystemTime::UNIX_EPOCH;
        let reason = |probed, is_up| {
            board.note(&key, &probed, is_up, at);
            board.last(&key).unwrap().reason
        };
        assert_eq!(reason(Probed::Passed, true), None);
        assert_eq!(reason(Probed::Failed("status 503".into()), false).as_deref(), Some("status 503"));
        assert_eq!(reason(Probed::Passed, false).as_deref(), Some("status 503"));
        assert_eq!(reason(Probed::NotMade("no descriptors".into()), false).as_deref(), Some("no descriptors"));
        assert_eq!(reason(Probed::Passed, true), None);
        assert_eq!(board.counts(&split, &version), CheckCounts { passed: 3, failed: 1, not_made: 1 });
        board.forget(&key);
        assert_eq!((board.last(&key), board.counts(&split, &version).passed), (None, 3));
    }
}
