//! One address that answers, with everything about it that must survive a reload.
//!
//! Two axes that never mix: what the operator wants (active or draining) and, later, what is observed (health,
//! ejection). Invariant: what is in flight is only ever cut while draining, each kind at its own deadline.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::deadlines::Deadlines;
use super::in_flight::{Counts, InFlight, Refused};
use super::observed::{Health, Observed};
use crate::model::{Address, Instant, Kind};

/// See the file's head.
#[derive(Debug)]
pub struct Endpoint {
    address: Address,
    in_flight: InFlight,
    observed: Observed,
    /// Woken when a draining endpoint becomes empty, or drains no more.
    pub(super) changed: Notify,
    deadlines: Mutex<Option<Deadlines>>,
    /// What was cut and not told yet, by kind.
    cut: [AtomicU32; 3],
}

impl Endpoint {
    /// A new, active endpoint with nothing in flight.
    pub fn new(address: impl Into<Address>) -> Self {
        Self {
            address: address.into(),
            in_flight: InFlight::new(),
            observed: Observed::default(),
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

    /// Said by its checker, and by nobody else. Returns what it was.
    pub fn set_health(&self, health: Health) -> Health {
        self.observed.set_health(health)
    }

    /// May take a new request: neither the operator nor what is observed speaks against it. Whether it has room is
    /// decided by the claim.
    pub fn is_available(&self) -> bool {
        !self.is_draining() && self.health().is_able()
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
        self.in_flight.claim(Kind::Request, max_in_flight)?;
        Ok(Claim { endpoint: self.clone(), kind: Kind::Request })
    }
}

/// One request in flight at an endpoint; dropping it counts it out.
#[derive(Debug)]
pub struct Claim {
    endpoint: Arc<Endpoint>,
    kind: Kind,
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
        self.endpoint.in_flight.convert(self.kind, to);
        self.kind = to;
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if self.endpoint.in_flight.release(self.kind) {
            self.endpoint.changed.notify_waiters();
        }
    }
}
