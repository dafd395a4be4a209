//! Which endpoints exist, over all reloads, and those that have left the configuration but are still remembered.
//!
//! Invariant: for one (split, version, address) there is one `Endpoint` for as long as anybody names it, so its
//! counts survive every reload. Removed ones are kept until they are empty plus `REMEMBER`, so that a deployment
//! script that asks late still gets its answer.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::crowd::Crowd;
use super::deadlines::Deadlines;
use super::endpoint::Endpoint;
use super::in_flight::Counts;
use super::observed::Health;
use crate::model::{Address, Instant, SplitName, VersionName};

/// How long a removed endpoint is remembered after it became empty.
const REMEMBER: Duration = Duration::from_secs(3600);

/// Where an endpoint belongs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
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
    /// What this drain has cut and the log was not told of.
    untold: Counts,
}

impl Entry {
    fn new(endpoint: Arc<Endpoint>) -> Self {
        Self { endpoint, removed: false, empty_since: None, untold: Counts::default() }
    }

    /// What was cut, once there is no more to come: requests and streams go together, tunnels one after the other until
    /// their deadline. Outside of a drain (at the end of the process) nothing is told.
    fn told(&mut self, now: Instant) -> Option<Counts> {
        self.untold.add(self.endpoint.take_cut());
        let Some(deadlines) = self.endpoint.deadlines() else {
            self.untold = Counts::default();
            return None;
        };
        let is_last = deadlines.upgrades <= now || self.endpoint.counts().total() == 0 || self.untold.upgrades == 0;
        (is_last && self.untold.total() > 0).then(|| std::mem::take(&mut self.untold))
    }
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
        let new = || Entry::new(Arc::new(Endpoint::of(key.address.clone(), crowd)));
        let entry = entries.entry(key.clone()).or_insert_with(new);
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

    /// Drains every endpoint that is not in `live`, each with what `deadlines` gives for it. Returns
    /// those that were not removed before.
    pub fn remove_all_but(
        &self,
        live: &HashSet<EndpointKey>,
        deadlines: impl Fn(&EndpointKey) -> Deadlines,
    ) -> Vec<EndpointKey> {
        let mut removed = Vec::new();
        for (key, entry) in self.entries().iter_mut().filter(|(key, entry)| !entry.removed && !live.contains(key)) {
            entry.removed = true;
            entry.endpoint.drain(deadlines(key));
            removed.push(key.clone());
        }
        removed
    }

    /// What is in flight at every endpoint that is known and busy.
    pub fn busy(&self) -> Vec<(EndpointKey, super::Counts)> {
        let entries = self.entries();
        let counts = entries.iter().map(|(key, entry)| (key.clone(), entry.endpoint.counts()));
        counts.filter(|(_, counts)| counts.total() > 0).collect()
    }

    /// Every endpoint that takes claims.
    pub fn open(&self) -> Vec<EndpointKey> {
        let entries = self.entries();
        entries.iter().filter(|(_, entry)| !entry.endpoint.is_draining()).map(|(key, _)| key.clone()).collect()
    }

    /// What the checks say of every endpoint in use.
    pub fn health(&self) -> Vec<(EndpointKey, Health)> {
        let entries = self.entries();
        entries.iter().filter(|(_, entry)| !entry.removed).map(|(key, e)| (key.clone(), e.endpoint.health())).collect()
    }

    /// Remembers an endpoint at which only another process of us has something in flight, as one that has left.
    pub fn remember(&self, key: &EndpointKey, deadlines: Deadlines) {
        self.entries().entry(key.clone()).or_insert_with(|| {
            let endpoint = Arc::new(Endpoint::new(key.address.clone()));
            endpoint.drain(deadlines);
            Entry { removed: true, ..Entry::new(endpoint) }
        });
    }

    /// Endpoints that have left the configuration and are still remembered.
    pub fn leaving(&self) -> Vec<(EndpointKey, Arc<Endpoint>)> {
        let entries = self.entries();
        entries.iter().filter(|(_, e)| e.removed).map(|(k, e)| (k.clone(), e.endpoint.clone())).collect()
    }

    /// Forgets what has long been empty; call it every second or so. Returns what drains have cut, for the log: each
    /// endpoint once, or twice if its requests went long before its tunnels.
    pub fn tidy(&self, now: Instant) -> Vec<(EndpointKey, Counts)> {
        let mut cut = Vec::new();
        self.entries().retain(|key, entry| {
            cut.extend(entry.told(now).map(|counts| (key.clone(), counts)));
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
    use crate::model::Kind;

    fn key(port: u16) -> EndpointKey {
        EndpointKey {
            split: SplitName::new("shop").unwrap(),
            version: VersionName::new("v1").unwrap(),
            address: Address::Tcp(([127, 0, 0, 1], port).into()),
        }
    }

    fn deadlines(now: Instant) -> Deadlines {
        Deadlines::new(now, Duration::from_secs(30), Duration::from_secs(60))
    }

    #[test]
    fn cuts_are_told_in_one_line_for_each_deadline() {
        let (registry, now, second) = (Registry::default(), Instant::now(), Duration::from_secs(1));
        let endpoint = registry.endpoint(&key(1));
        let _claim = endpoint.claim(9).unwrap();
        endpoint.note_cut(Kind::Request);
        assert!(registry.tidy(now).is_empty(), "the end of the process is told elsewhere");
        endpoint.drain(deadlines(now));
        let cut = |kinds: &[Kind], at: u32| -> Vec<Counts> {
            kinds.iter().for_each(|kind| endpoint.note_cut(*kind));
            registry.tidy(now + at * second).into_iter().map(|(_, counts)| counts).collect()
        };
        assert!(cut(&[], 29).is_empty());
        let first = Counts { requests: 2, streams: 1, upgrades: 0 };
        assert_eq!(cut(&[Kind::Request, Kind::Stream, Kind::Request], 30), [first]);
        assert!(cut(&[Kind::Upgrade], 50).is_empty(), "more will follow");
        assert!(cut(&[Kind::Upgrade], 55).is_empty());
        assert_eq!(cut(&[], 60), [Counts { requests: 0, streams: 0, upgrades: 2 }]);
        assert!(cut(&[], 61).is_empty());
    }

    #[test]
    fn an_endpoint_outlives_reloads_and_comes_back() {
        let registry = Registry::default();
        let (now, first) = (Instant::now(), registry.endpoint(&key(1)));
        let claim = first.claim(9).unwrap();
        let removed = registry.remove_all_but(&HashSet::new(), |_| deadlines(now));
        assert_eq!(removed, [key(1)]);
        assert!(first.is_draining());
        assert!(registry.remove_all_but(&HashSet::new(), |_| deadlines(now)).is_empty(), "removed once");
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
        registry.remove_all_but(&HashSet::new(), |_| deadlines(now));
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
