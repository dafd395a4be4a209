//! What the endpoints of one version have in common, over all reloads: who waits for a place at any of them, and whose
//! ejection is being decided.
//!
//! A request that finds all of them full waits in line, without polling: whoever gives up a place wakes the first.
//! Invariants: only the first in line marks the endpoints (`claim_or_wait`), and who leaves the line, with a place or
//! without, wakes the next; so while anybody waits either the full endpoints are marked or somebody is woken.

use std::sync::Arc;

use tokio::sync::Notify;

use super::bounded::Bounded;

/// See the file's head.
#[derive(Debug)]
pub(super) struct Crowd {
    /// Two ejections at once could each think that the other endpoint stays.
    ejecting: Bounded,
    waiting: Bounded,
    /// Wakes in the order in which they came.
    freed: Notify,
}

impl Default for Crowd {
    fn default() -> Self {
        Self { ejecting: Bounded::new(), waiting: Bounded::new(), freed: Notify::new() }
    }
}

impl Crowd {
    /// There may be a place: the first in line looks.
    pub(super) fn wake(&self) {
        if self.waiting.count() > 0 {
            self.freed.notify_one();
        }
    }

    /// Somebody waits already: who comes now is behind them.
    pub(super) fn has_line(&self) -> bool {
        self.waiting.count() > 0
    }

    /// One more in line, unless `max` are.
    pub(super) fn line_up(self: &Arc<Self>, max: u32) -> Option<Place> {
        let ahead = self.waiting.enter_behind(max.into())?;
        Some(Place { crowd: self.clone(), is_first: ahead == 0 })
    }

    /// Does `f` unless somebody else is at it just now; never waits.
    pub(super) fn eject_alone(&self, f: impl FnOnce()) {
        if self.ejecting.enter(1) {
            f();
            self.ejecting.leave();
        }
    }
}

/// A place in line; whoever drops it wakes the next.
#[derive(Debug)]
#[must_use]
pub struct Place {
    crowd: Arc<Crowd>,
    /// Nobody was there: it has to look before it waits, since nobody will wake it.
    pub is_first: bool,
}

impl Place {
    /// Until it is time to look for a place again. Cancel safe: who was woken and goes without looking wakes the next.
    pub async fn woken(&self) {
        self.crowd.freed.notified().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.crowd.waiting.leave();
        self.crowd.wake();
    }
}
