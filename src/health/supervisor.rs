//! Who is checked follows the snapshot: checkers start, stop and are replaced as it changes.
//!
//! The store has said what a *new* endpoint is before anybody could see it (`Checking` where it is checked); this one
//! only decides about those that are in use. One whose check is switched on keeps taking requests until failures have
//! shown that it is not able; one whose check is switched off is taken for able. Invariants: a checker that was stopped
//! says nothing any more, since all of this runs on one thread; one that has left is nobody's until it comes back.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::task::{AbortHandle, JoinSet};

use super::board::Board;
use super::checker::Checker;
use super::probe::{Target, probe};
use super::rule::Rule;
use crate::config::{Split, Version};
use crate::net::upstream::Settings;
use crate::pool::{Endpoint, EndpointKey, Health};
use crate::state::{Snapshot, Store};
use crate::tls;

/// Checks at a time, over all endpoints: each is a connection, and its TLS a burst of arithmetic.
const AT_A_TIME: usize = 64;

/// Checks what the snapshot in force says, for as long as it is polled.
pub async fn supervise(store: Arc<Store>, board: Board) {
    let mut supervisor = Supervisor::new(board);
    let swapped = store.swapped();
    loop {
        // Registered before the look, so that a swap between look and wait is not lost.
        let mut changed = std::pin::pin!(swapped.notified());
        changed.as_mut().enable();
        supervisor.follow(&store.snapshot());
        changed.await;
    }
}

#[derive(Debug)]
struct Supervisor {
    board: Board,
    permits: Arc<Semaphore>,
    running: HashMap<EndpointKey, Running>,
    tasks: JoinSet<()>,
}

#[derive(Debug)]
struct Running {
    task: AbortHandle,
    target: Target,
    endpoint: Arc<Endpoint>,
}

impl Supervisor {
    fn new(board: Board) -> Self {
        let permits = Arc::new(Semaphore::new(AT_A_TIME));
        Self { board, permits, running: HashMap::new(), tasks: JoinSet::new() }
    }

    fn follow(&mut self, snapshot: &Snapshot) {
        while self.tasks.try_join_next().is_some() {}
        let mut present = HashSet::new();
        let mut wanted = HashMap::new();
        for (key, endpoint, target) in endpoints(snapshot) {
            present.insert(key.clone());
            wanted.extend(target.map(|target| (key, (endpoint, target))));
        }
        let over: Vec<_> = self.running.extract_if(|key, running| !is_wanted(&wanted, key, running)).collect();
        for (key, running) in over {
            running.task.abort();
            if !wanted.contains_key(&key) {
                self.board.forget(&key);
            }
            if !wanted.contains_key(&key) && present.contains(&key) {
                running.endpoint.set_health(Health::Unchecked);
            }
        }
        for (key, (endpoint, target)) in wanted {
            if !self.running.contains_key(&key) {
                let running = self.start(key.clone(), endpoint, target);
                self.running.insert(key, running);
            }
        }
    }

    fn start(&mut self, key: EndpointKey, endpoint: Arc<Endpoint>, target: Target) -> Running {
        if endpoint.health() == Health::Unchecked {
            endpoint.set_health(Health::Up);
        }
        let check = &target.check;
        let checker = Checker {
            key,
            endpoint: endpoint.clone(),
            rule: Rule { healthy_after: check.healthy_after, unhealthy_after: check.unhealthy_after },
            interval: check.interval,
            board: self.board.clone(),
            permits: self.permits.clone(),
        };
        let theirs = Arc::new(target.clone());
        let ask = move || {
            let target = theirs.clone();
            async move { probe(&target).await }
        };
        let task = self.tasks.spawn(checker.run(ask, fastrand::Rng::new()));
        Running { task, target, endpoint }
    }
}

fn is_wanted(wanted: &HashMap<EndpointKey, (Arc<Endpoint>, Target)>, key: &EndpointKey, running: &Running) -> bool {
    wanted
        .get(key)
        .is_some_and(|(endpoint, target)| Arc::ptr_eq(endpoint, &running.endpoint) && running.target.is_same(target))
}

/// Every endpoint in use, with how it is checked.
fn endpoints(snapshot: &Snapshot) -> impl Iterator<Item = (EndpointKey, Arc<Endpoint>, Option<Target>)> {
    let splits = snapshot.config.splits.iter().zip(&snapshot.splits).zip(&snapshot.upstream_tls);
    splits.flat_map(|((split, state), secured)| {
        let versions = split.versions.iter().zip(&state.versions).zip(secured);
        versions.flat_map(move |((version, state), tls)| {
            let members = state.pool.endpoints().iter().zip(state.pool.hosts());
            members.map(move |(endpoint, host)| {
                let name = |tls| tls::server_name(tls, endpoint.address(), host.as_deref());
                let settings = Settings {
                    idle_cap: 0,
                    idle_for: None,
                    max_age: None,
                    protocol: version.protocol,
                    tls: tls.clone().zip(version.tls.as_deref().and_then(name)),
                };
                let address = endpoint.address().clone();
                let target = |check| Target { address, host: host.clone(), settings, check };
                (key(split, version, endpoint), endpoint.clone(), version.health.clone().map(target))
            })
        })
    })
}

fn key(split: &Split, version: &Version, endpoint: &Endpoint) -> EndpointKey {
    EndpointKey { split: split.name.clone(), version: version.name.clone(), address: endpoint.address().clone() }
}
