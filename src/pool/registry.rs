//! Which endpoints exist, over all reloads, and those that have left the configuration but are still remembered.
//!
//! Invariant: for one (split, version, address) there is one `Endpoint` for as long as anybody names it, so its
//! counts survive every reload. Removed ones are kept until they are empty plus `REMEMBER`, so that a deployment
//! script that asks late still gets its answer.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::crowd::Crowd;
use super::endpoint::Endpoint;
use crate::model::{Address, Instant, SplitName, VersionName};

/// How long a removed endpoint is remembered after it became empty.
const REMEMBER: Duration = Duration::from_secs(3600);

/// Where an endpoint belongs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointKey {
    pub split: SplitName,
    pub version: VersionName,
    pub address: Address,
}

#[derive(Debug)]
struct Entry {
    endpoint: Arc<Endpoint>,
    removed: bool,
    empty_since: Option<Instant>,
}

/// See the file's head.
#[derive(Debug, Default)]
pub struct Registry(Mutex<BTreeMap<EndpointKey, Entry>>);

impl Registry {
    fn entries(&self) -> MutexGuard<'_, BTreeMap<EndpointKey, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The endpoint of that key: the known one, or a new one. A removed one that comes back is taken in again and
    /// drains no more.
    pub fn endpoint(&self, key: &EndpointKey) -> Arc<Endpoint> {
        let mut entries = self.entries();
        let is_of_same = |other: &&EndpointKey| other.split == key.split && other.version == key.version;
        let other = entries.keys().find(is_of_same).and_then(|other| entries.get(other));
        let crowd = other.map_or_else(Arc::<Crowd>::default, |other| other.endpoint.crowd().clone());
        let entry = entries.entry(key.clone()).or_insert_with(|| Entry {
            endpoint: Arc::new(Endpoint::of(key.address.clone(), crowd)),
            removed: false,
            empty_since: None,
        });
        if std::mem::take(&mut entry.removed) {
            entry.empty_since = None;
            entry.endpoint.undrain();
        }
        entry.endpoint.clone()
    }

    /// The endpoint of that key if it is known, removed ones included.
    pub fn find(&self, key: &EndpointKey) -> Option<Arc<Endpoint>> {
        self.entries().get(key).map(|entry| entry.endpoint.clone())
    }

    /// Drains every endpoint that is not in `live`, each with the deadline that `deadline` gives for it. Returns
    /// those that were not removed before.
    pub fn remove_all_but(
        &self,
        live: &HashSet<EndpointKey>,
        deadline: impl Fn(&EndpointKey) -> Instant,
    ) -> Vec<EndpointKey> {
        let mut removed = Vec::new();
        for (key, entry) in self.entries().iter_mut().filter(|(key, entry)| !entry.removed && !live.contains(key)) {
            entry.removed = true;
            entry.endpoint.drain(deadline(key));
            removed.push(key.clone());
        }
        removed
    }

    /// Endpoints that have left the configuration and are still remembered.
    pub fn leaving(&self) -> Vec<(EndpointKey, Arc<Endpoint>)> {
        let entries = self.entries();
        entries.iter().filter(|(_, e)| e.removed).map(|(k, e)| (k.clone(), e.endpoint.clone())).collect()
    }

    /// Cuts what is over its deadline and forgets what has long been empty; call it every second or so. Returns
    /// what was cut, for the log.
    pub fn tidy(&self, now: Instant) -> Vec<(EndpointKey, super::Counts)> {
        let mut cut = Vec::new();
        self.entries().retain(|key, entry| {
            cut.extend(entry.endpoint.cut_if_due(now).map(|left| (key.clone(), left)));
            if !entry.removed || entry.endpoint.counts().total() > 0 {
                return true;
            }
            let since = *entry.empty_since.get_or_insert(now);
            now.duration_since(since) < REMEMBER
        });
        cut
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(port: u16) -> EndpointKey {
        EndpointKey {
            split: SplitName::new("shop").unwrap(),
            version: VersionName::new("v1").unwrap(),
            address: Address::Tcp(([127, 0, 0, 1], port).into()),
        }
    }

    #[test]
    fn an_endpoint_outlives_reloads_and_comes_back() {
        let registry = Registry::default();
        let (now, first) = (Instant::now(), registry.endpoint(&key(1)));
        let claim = first.claim(9).unwrap();
        let removed = registry.remove_all_but(&HashSet::new(), |_| now + Duration::from_secs(30));
        assert_eq!(removed, [key(1)]);
        assert!(first.is_draining());
        assert!(registry.remove_all_but(&HashSet::new(), |_| now).is_empty(), "removed once");
        let again = registry.endpoint(&key(1));
        assert!(Arc::ptr_eq(&first, &again));
        assert!(!again.is_draining());
        assert_eq!(again.counts().requests, 1);
        drop(claim);
    }

    #[test]
    fn the_endpoints_of_a_version_are_one_crowd() {
        let registry = Registry::default();
        let other = EndpointKey { version: VersionName::new("v2").unwrap(), ..key(2) };
        let crowds = [key(1), other, key(3)].map(|key| registry.endpoint(&key).crowd().clone());
        assert!(Arc::ptr_eq(&crowds[0], &crowds[2]) && !Arc::ptr_eq(&crowds[0], &crowds[1]));
    }

    #[test]
    fn a_removed_endpoint_is_remembered_until_empty_plus_an_hour() {
        let registry = Registry::default();
        let now = Instant::now();
        let claim = registry.endpoint(&key(1)).claim(9).unwrap();
        registry.remove_all_but(&HashSet::new(), |_| now + Duration::from_secs(30));
        let cut = registry.tidy(now + Duration::from_secs(31));
        assert_eq!(cut.len(), 1);
        registry.tidy(now + 2 * REMEMBER);
        assert!(registry.find(&key(1)).is_some(), "still has one in flight");
        drop(claim);
        registry.tidy(now + 2 * REMEMBER);
        registry.tidy(now + 3 * REMEMBER - Duration::from_secs(1));
        assert_eq!(registry.leaving().len(), 1);
        registry.tidy(now + 3 * REMEMBER);
        assert!(registry.find(&key(1)).is_none());
    }
}
