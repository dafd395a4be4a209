//! Which names are followed: those of the configuration in force, through all reloads.
//!
//! Invariant: one task per name, whoever and how many name it; a name that nobody names any more is asked for no more.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

use super::ask::Asker;
use super::rule::Terms;
use super::status::Statuses;
use super::task::{How, follow};
use crate::config::{Config, NameTarget};
use crate::model::Address;
use crate::state::Store;

/// How often it is looked whether the system's name servers are others.
const LOOK: Duration = Duration::from_secs(5);
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// See the file's head.
#[derive(Debug)]
struct Supervisor {
    store: Arc<Store>,
    statuses: Statuses,
    /// Never taken as the address of a name.
    admin: Option<Address>,
    asker: Arc<Asker>,
    system: Option<SystemTime>,
    followed: BTreeMap<NameTarget, Followed>,
    tasks: JoinSet<()>,
}

#[derive(Debug)]
struct Followed {
    how: watch::Sender<How>,
    task: AbortHandle,
}

/// Follows the names of whatever `store` has in force, until it is dropped. `admin` is the address of our own admin
/// listener: clients must not reach it by way of a name.
pub async fn run(store: Arc<Store>, admin: Option<Address>, statuses: Statuses) {
    let mut config = store.snapshot().config.clone();
    let (asker, system) = (Arc::new(Asker::new(&config.dns)), changed_at());
    let mut this =
        Supervisor { store, statuses, admin, asker, system, followed: BTreeMap::new(), tasks: JoinSet::new() };
    this.reconcile(&config);
    let swapped = this.store.swapped();
    loop {
        // Registered before the look, so that a swap between look and wait is not lost.
        let next = swapped.notified();
        tokio::pin!(next);
        next.as_mut().enable();
        let now = this.store.snapshot().config.clone();
        if !Arc::ptr_eq(&now, &config) {
            this.take(&config, &now);
            config = now;
        }
        if tokio::time::timeout(LOOK, next).await.is_err() {
            this.look(&config);
        }
    }
}

impl Supervisor {
    /// A new configuration.
    fn take(&mut self, before: &Config, now: &Config) {
        if before.dns != now.dns {
            self.asker = Arc::new(Asker::new(&now.dns));
        }
        self.reconcile(now);
    }

    /// Whoever edits `/etc/resolv.conf` (a container that moves, a network that changes) means it to count.
    fn look(&mut self, config: &Config) {
        let system = changed_at();
        if config.dns.servers.is_empty() && system != self.system && !self.followed.is_empty() {
            self.asker = Arc::new(Asker::new(&config.dns));
            self.reconcile(config);
        }
        self.system = system;
        while self.tasks.try_join_next().is_some() {}
    }

    fn reconcile(&mut self, config: &Config) {
        let wanted = wanted(config);
        let (followed, statuses) = (&mut self.followed, &self.statuses);
        followed.retain(|name, one| {
            let stays = wanted.contains_key(name);
            if !stays {
                one.task.abort();
                statuses.leave(name);
            }
            stays
        });
        for (name, refresh) in wanted {
            let terms = Terms { refresh, refused: self.admin.clone() };
            let how = How { terms, asker: self.asker.clone() };
            match self.followed.get(&name) {
                Some(known) => drop(known.how.send_replace(how)),
                None => self.start(name, how),
            }
        }
    }

    fn start(&mut self, name: NameTarget, how: How) {
        self.statuses.follow(&name);
        let (how, theirs) = watch::channel(how);
        let task = follow(name.clone(), theirs, self.statuses.clone(), self.store.clone());
        let task = self.tasks.spawn(task);
        self.followed.insert(name, Followed { how, task });
    }
}

/// Every name, with the shortest time anybody gives it.
pub(super) fn wanted(config: &Config) -> BTreeMap<NameTarget, Duration> {
    let mut wanted = BTreeMap::new();
    for version in config.splits.iter().flat_map(|split| &split.versions) {
        for name in version.names() {
            let refresh = wanted.entry(name.clone()).or_insert(version.dns_refresh);
            *refresh = version.dns_refresh.min(*refresh);
        }
    }
    wanted
}

fn changed_at() -> Option<SystemTime> {
    std::fs::metadata(RESOLV_CONF).and_then(|file| file.modified()).ok()
}
