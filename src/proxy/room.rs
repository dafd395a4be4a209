//! Room for new connections when places or descriptors are short: who gives way, and what all workers share of it.
//!
//! Invariants: only idle connections give way, the oldest first, and none that has just become idle; a worker closes no
//! more of them for new clients than `SHED_PER_TICK` in each tick, so that a flood cannot buy more work than that; nobody
//! who was told that there is room waits for ever, since `Limit` counts places and not promises.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::process::{Resource, getrlimit};
use tokio::sync::Notify;

use super::client::{Client, Phase, Protocol};
use super::shortage::{self, Episode, FRESH, MOST_AT_ONCE};
use super::worker::Worker;
use crate::model::{AcceptFault, Instant, ListenerName, Shed};

/// Idle clients of a worker that may be closed for new ones in each tick.
const SHED_PER_TICK: usize = 64;

/// For one connection to an endpoint; more than one, since others want one too.
const SHED_FOR_DIAL: usize = 4;

/// Open connections and how many there may be, over all workers: of one listener, or of the process.
#[derive(Debug, Default)]
pub(super) struct Limit {
    open: AtomicUsize,
    /// Somebody has gone.
    pub(super) closed: Notify,
    /// Somebody waits and has found nobody idle on its own worker.
    pub(super) crowded: Notify,
    pub(super) episode: Episode,
}

impl Limit {
    /// Counts one in, if fewer than `max` are open.
    pub(super) fn try_admit(self: &Arc<Self>, max: usize) -> Option<Place> {
        let below = |open: usize| (open < max).then_some(open + 1);
        self.open.fetch_update(Ordering::AcqRel, Ordering::Acquire, below).ok().map(|_| Place(self.clone()))
    }

    pub(super) fn open(&self) -> usize {
        self.open.load(Ordering::Acquire)
    }

    /// Counts one in whatever there is.
    pub(super) fn admit_anyway(self: &Arc<Self>) -> Place {
        self.open.fetch_add(1, Ordering::AcqRel);
        Place(self.clone())
    }
}

/// One connection counted in.
#[derive(Debug)]
pub(super) struct Place(Arc<Limit>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::AcqRel);
        self.0.closed.notify_one();
    }
}

/// What all workers share.
#[derive(Debug, Default)]
pub(super) struct Pressure {
    /// Clients of the process, as many as its descriptors allow.
    pub(super) clients: Arc<Limit>,
    /// By listener: its addresses share one limit.
    listeners: Mutex<HashMap<ListenerName, Arc<Limit>>>,
}

impl Pressure {
    pub(super) fn listener(&self, name: &ListenerName) -> Arc<Limit> {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner).entry(name.clone()).or_default().clone()
    }

    /// Says that descriptors are short, at the beginning of an episode.
    pub(super) fn descriptors_short(&self, whose: &str, reason: &str, now: Instant) {
        if self.clients.episode.met(now) {
            tracing::warn!(
                event = "shortage-begun",
                reason,
                at = whose,
                "no room for another connection: idle ones are closed, the oldest first; raise LimitNOFILE (ulimit -n)"
            );
        }
    }

    /// Says what is over. Called by one worker.
    pub(super) fn tell_over(&self, now: Instant) {
        if let Some(over) = self.clients.episode.over(now) {
            tell(&over, "descriptors", "");
        }
        let listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        for (name, limit) in listeners.iter() {
            if let Some(over) = limit.episode.over(now) {
                tell(&over, Shed::ConnLimit.as_str(), name.as_str());
            }
        }
    }
}

fn tell(over: &shortage::Over, reason: &str, listener: &str) {
    let (seconds, times) = (over.lasted.as_secs_f64(), over.times);
    tracing::info!(event = "shortage-over", reason, listener, seconds, times, "there is room again");
}

/// What a worker has for it.
#[derive(Debug, Default)]
pub(super) struct Means {
    /// Closed for others in this tick.
    shed: Cell<usize>,
    /// Clients that the process takes.
    places: Cell<usize>,
    /// A descriptor that is given up to accept, and so to close, when there is none.
    spare: RefCell<Option<OwnedFd>>,
    /// It was given up, and is to be had again before anybody else gets one.
    is_spare_due: Cell<bool>,
}

impl Means {
    /// Each tick: limits may be changed from outside (`prlimit`).
    pub(super) fn renew(&self) {
        self.shed.set(0);
        let most = getrlimit(Resource::Nofile).current.and_then(|most| usize::try_from(most).ok());
        self.places.set(shortage::client_places(most.unwrap_or(usize::MAX)));
        if self.spare.borrow().is_none() {
            self.take_spare();
        }
    }

    /// Takes a spare descriptor, if there is one: a second handle to standard error, which needs no path.
    pub(super) fn take_spare(&self) {
        let taken = std::io::stderr().as_fd().try_clone_to_owned();
        // Not had for another reason, it never will be, and is no reason to turn clients away.
        let is_short = taken.as_ref().is_err_and(|e| shortage::accept_fault(e) == Some(AcceptFault::Descriptors));
        self.is_spare_due.set(self.is_spare_due.get() && is_short);
        *self.spare.borrow_mut() = taken.ok();
    }

    /// Whether the spare one still cannot be had: then whoever has found a descriptor gives it back for it.
    pub(super) fn is_spare_due(&self) -> bool {
        if self.is_spare_due.get() {
            self.take_spare();
        }
        self.is_spare_due.get()
    }

    pub(super) fn places(&self) -> usize {
        self.places.get()
    }

    /// Gives the spare descriptor up, if it is there. To be followed by `take_spare`.
    pub(super) fn give_up_spare(&self) -> bool {
        self.is_spare_due.set(true);
        self.spare.borrow_mut().take().is_some()
    }
}

/// What came of asking for room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Room {
    /// Idle connections are being closed.
    Made,
    /// Enough were closed in this tick.
    Later,
    /// This worker has none that are idle.
    None,
}

impl Worker {
    /// Closes up to `most` of the oldest idle clients, of one listener or of all, for new ones.
    pub(super) fn make_room(&self, of: Option<&ListenerName>, why: Shed, most: usize) -> Room {
        let left = SHED_PER_TICK.saturating_sub(self.means.shed.get());
        if left == 0 {
            return Room::Later;
        }
        let mut shed = self.shed_clients(of, why, most.min(left));
        if shed == 0 && why == Shed::Descriptors {
            shed = self.shed_upstreams(most.min(left));
        }
        self.means.shed.set(self.means.shed.get() + shed);
        if shed == 0 { Room::None } else { Room::Made }
    }

    /// For a connection to an endpoint that failed for lack of a descriptor. What is idle on the other workers is asked
    /// for too.
    pub(super) fn make_room_for_dial(&self) {
        self.pressure.descriptors_short("endpoint", "descriptors", self.clock.now());
        // Those of other endpoints first: nobody waits at the door for theirs.
        if self.shed_upstreams(SHED_FOR_DIAL) + self.shed_clients(None, Shed::Descriptors, SHED_FOR_DIAL) == 0 {
            self.pressure.clients.crowded.notify_waiters();
        }
    }

    /// Makes room when another worker finds none. Runs for ever.
    pub(super) async fn gives_way(self: Rc<Self>) {
        loop {
            self.pressure.clients.crowded.notified().await;
            self.shed_upstreams(SHED_FOR_DIAL);
            self.make_room(None, Shed::Descriptors, MOST_AT_ONCE);
        }
    }

    fn shed_clients(&self, of: Option<&ListenerName>, why: Shed, most: usize) -> usize {
        let now = self.clock.now();
        let clients = self.clients.borrow();
        let idle = clients.iter().filter(|(_, c)| of.is_none_or(|name| c.listener == *name) && gives_way(c, now));
        let mut idle: Vec<_> = idle.map(|(_, c)| (c.since(), c.clone())).collect();
        drop(clients);
        shortage::oldest(&mut idle, most);
        for (_, client) in &idle {
            // A goodbye over HTTP/2 reaches the client; over HTTP/1.1 there is none, and waiting for its end takes a second.
            let is_http2 = client.protocol.get() == Some(Protocol::Http2);
            if is_http2 {
                client.finish()
            } else {
                client.abort()
            }
            client.cell.shed(why);
        }
        idle.len()
    }

    fn shed_upstreams(&self, most: usize) -> usize {
        let mut left = most;
        for upstream in self.upstreams() {
            left -= upstream.shed(left);
        }
        most - left
    }
}

fn gives_way(client: &Client, now: Instant) -> bool {
    client.phase() == Phase::Idle
        && client.order().is_none()
        && client.is_flushed.get()
        && client.blocked.get().is_none()
        && now.saturating_duration_since(client.since()) >= FRESH
}
