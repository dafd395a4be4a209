//! One address that answers, with everything about it that must survive a reload.
//!
//! Two axes that never mix: what the operator wants (active or draining) and what is observed (health, ejection; see
//! `observed`). Invariant: what is in flight is only ever cut while draining, each kind at its own deadline.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::crowd::Crowd;
use super::deadlines::Deadlines;
use super::in_flight::{Counts, Freed, InFlight, Refused};
use super::observed::{Ejections, Health, Observed};
use crate::model::{Address, Instant, Kind};

/// See the file's head.
#[derive(Debug)]
pub struct Endpoint {
    address: Address,
    in_flight: InFlight,
    pub(super) observed: Observed,
    crowd: Arc<Crowd>,
    /// Woken when a draining endpoint becomes empty, or drains no more.
    pub(super) changed: Notify,
    deadlines: Mutex<Option<Deadlines>>,
    /// What was cut and not told yet, by kind.
    cut: [AtomicU32; 3],
}

impl Endpoint {
    /// A new, active endpoint with nothing in flight, alone in its version.
    pub fn new(address: impl Into<Address>) -> Self {
        Self::of(address, Arc::default())
    }

    /// The same for one of a version's.
    pub(super) fn of(address: impl Into<Address>, crowd: Arc<Crowd>) -> Self {
        Self {
            address: address.into(),
            in_flight: InFlight::new(),
            observed: Observed::new(Instant::now()),
            crowd,
            changed: Notify::new(),
            deadlines: Mutex::new(None),
            cut: Default::default(),
        }
    }

    pub fn address(&self) -> &Address {
        &self.address
    }

    /// What is in flight now, by kind.
    pub fn counts(&self) -> Counts {
        self.in_flight.counts()
    }

    /// Takes no new request.
    pub fn is_draining(&self) -> bool {
        self.in_flight.is_draining()
    }

    /// What the active checks say.
    pub fn health(&self) -> Health {
        self.observed.health()
    }

    /// Said by its checker, and by nobody else. Returns what it was. One that was not able and is up is admitted anew,
    /// with slow start.
    pub fn set_health(&self, health: Health) -> Health {
        let was = self.observed.set_health(health);
        if health.is_able() && !was.is_able() {
            self.admit();
        }
        was
    }

    /// Its slow start begins now, and those who wait for a place look at it.
    pub fn admit(&self) {
        self.observed.admit(Instant::now());
        self.crowd.wake();
    }

    /// May take a new request: neither the operator nor what is observed speaks against it. Whether it has room is
    /// decided by the claim. The first look after an ejection's time is over takes it back.
    #[inline]
    pub fn is_available(&self) -> bool {
        !self.is_draining() && self.health().is_able() && !self.is_ejected()
    }

    /// Set aside for failing.
    #[inline]
    pub fn is_ejected(&self) -> bool {
        // The clock is read only for one that is out.
        self.observed.is_out() && !self.comes_back()
    }

    #[cold]
    fn comes_back(&self) -> bool {
        let is_back = self.observed.readmit(Instant::now());
        if is_back {
            self.crowd.wake();
        }
        is_back || !self.observed.is_out()
    }

    /// What has become of its failures.
    pub fn ejections(&self) -> Ejections {
        self.is_ejected();
        self.observed.ejections(Instant::now())
    }

    /// How it is, in one word; what the operator wants comes first.
    pub fn state(&self) -> EndpointState {
        if self.is_draining() {
            return EndpointState::Draining;
        }
        match self.health() {
            Health::Down => EndpointState::Down,
            Health::Checking => EndpointState::Checking,
            Health::Up | Health::Unchecked if self.is_ejected() => EndpointState::Ejected,
            Health::Up | Health::Unchecked => EndpointState::Up,
        }
    }

    pub(super) fn crowd(&self) -> &Arc<Crowd> {
        &self.crowd
    }
    /// When what is left will be cut; `None` while active.
    pub fn deadlines(&self) -> Option<Deadlines> {
        // An active endpoint, which is nearly every one, costs no lock.
        if self.is_draining() { *self.lock_deadlines() } else { None }
    }

    /// A drain's time is over for that kind: whoever carries one ends it now.
    pub fn is_over(&self, kind: Kind, now: Instant) -> bool {
        self.deadlines().is_some_and(|deadlines| deadlines.of(kind) <= now)
    }

    /// Takes no new claim from now on; what is in flight has until its deadline. Calling it again keeps the first
    /// ones, so that a reload in the middle of a drain does not prolong it.
    pub fn drain(&self, deadlines: Deadlines) {
        self.lock_deadlines().get_or_insert(deadlines);
        if self.in_flight.set_draining(true) {
            self.changed.notify_waiters();
        }
    }

    /// Takes claims again.
    pub fn undrain(&self) {
        *self.lock_deadlines() = None;
        self.in_flight.set_draining(false);
        self.changed.notify_waiters();
    }

    fn lock_deadlines(&self) -> MutexGuard<'_, Option<Deadlines>> {
        self.deadlines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One in flight was cut at its deadline.
    pub fn note_cut(&self, kind: Kind) {
        self.cut[kind as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// What was cut since the last call.
    pub(super) fn take_cut(&self) -> Counts {
        let [requests, streams, upgrades] = self.cut.each_ref().map(|n| n.swap(0, Ordering::Relaxed));
        Counts { requests, streams, upgrades }
    }

    /// Counts one request in, as one atomic step with the test of the drain bit.
    ///
    /// # Errors
    /// `Refused` when it drains or has `max_in_flight` requests.
    pub fn claim(self: &Arc<Self>, max_in_flight: u32) -> Result<Claim, Refused> {
        // Before it is counted: an attempt that begins while an ejection does is of the time before it.
        let generation = self.observed.generation();
        self.in_flight.claim(Kind::Request, max_in_flight)?;
        Ok(Claim { endpoint: self.clone(), kind: Kind::Request, generation })
    }

    /// The same for a request that will wait if it is full: its `Crowd` is woken when a place is given up.
    pub(super) fn claim_or_wait(self: &Arc<Self>, max_in_flight: u32) -> Result<Claim, Refused> {
        let generation = self.observed.generation();
        self.in_flight.claim_or_wait(max_in_flight)?;
        Ok(Claim { endpoint: self.clone(), kind: Kind::Request, generation })
    }

    fn tell(&self, freed: Freed) {
        if freed.is_drained {
            self.changed.notify_waiters();
        }
        if freed.is_awaited {
            self.crowd.wake();
        }
    }
}

/// See `Endpoint::state`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndpointState {
    Checking,
    Up,
    Down,
    Ejected,
    Draining,
}

impl EndpointState {
    /// As in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Checking => "checking",
            Self::Up => "up",
            Self::Down => "down",
            Self::Ejected => "ejected",
            Self::Draining => "draining",
        }
    }
}

/// One request in flight at an endpoint; dropping it counts it out.
#[derive(Debug)]
pub struct Claim {
    endpoint: Arc<Endpoint>,
    kind: Kind,
    /// Ejections there had been when it began.
    pub(super) generation: u8,
}

impl Claim {
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }

    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The exchange turned out to be of another kind.
    pub fn convert(&mut self, to: Kind) {
        let freed = self.endpoint.in_flight.convert(self.kind, to);
        self.kind = to;
        self.endpoint.tell(freed);
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let freed = self.endpoint.in_flight.release(self.kind);
        self.endpoint.tell(freed);
    }
}
