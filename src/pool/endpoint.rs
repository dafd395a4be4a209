//! One address that answers, with everything about it that must survive a reload.
//!
//! Two axes that never mix: what the operator wants (active or draining) and, later, what is observed (health,
//! ejection). Invariant: `cut` is only ever set while draining, and undone with the drain.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

use super::in_flight::{Counts, InFlight, Refused};
use super::observed::{Health, Observed};
use crate::model::{Address, Instant, Kind};

/// See the file's head.
#[derive(Debug)]
pub struct Endpoint {
    address: Address,
    in_flight: InFlight,
    observed: Observed,
    /// Woken when a draining endpoint becomes empty, is cut, or drains no more.
    pub(super) changed: Notify,
    deadline: Mutex<Option<Instant>>,
    cut: AtomicBool,
}

impl Endpoint {
    /// A new, active endpoint with nothing in flight.
    pub fn new(address: impl Into<Address>) -> Self {
        Self {
            address: address.into(),
            in_flight: InFlight::new(),
            observed: Observed::default(),
            changed: Notify::new(),
            deadline: Mutex::new(None),
            cut: AtomicBool::new(false),
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

    /// The drain's time is over: whoever carries one of its requests ends it now.
    pub fn is_cut(&self) -> bool {
        self.cut.load(Ordering::Acquire)
    }

    /// When what is left will be cut; `None` while active.
    pub fn drain_deadline(&self) -> Option<Instant> {
        *self.deadline.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes no new claim from now on; what is in flight has until `deadline`. Calling it again keeps the first
    /// deadline, so that a reload in the middle of a drain does not prolong it.
    pub fn drain(&self, deadline: Instant) {
        self.deadline.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(deadline);
        if self.in_flight.set_draining(true) {
            self.changed.notify_waiters();
        }
    }

    /// Takes claims again.
    pub fn undrain(&self) {
        *self.deadline.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.cut.store(false, Ordering::Release);
        self.in_flight.set_draining(false);
        self.changed.notify_waiters();
    }

    /// If the drain's deadline has passed with work left, orders it cut; returns what was left, once.
    pub fn cut_if_due(&self, now: Instant) -> Option<Counts> {
        let due = self.drain_deadline().is_some_and(|at| at <= now);
        let left = self.counts();
        (due && left.total() > 0 && !self.cut.swap(true, Ordering::AcqRel)).then_some(left)
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
