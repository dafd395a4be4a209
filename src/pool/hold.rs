//! Requests that wait for an endpoint to come up (`on_unavailable = "hold"`): how many there may be.

use std::sync::Arc;

use super::bounded::Bounded;

/// Waiting requests of one split, over all workers and through reloads.
#[derive(Debug)]
pub struct Waiting(Bounded);

impl Default for Waiting {
    fn default() -> Self {
        Self(Bounded::new())
    }
}

impl Waiting {
    /// One more waits, unless `max` do already.
    pub fn enter(self: &Arc<Self>, max: u32) -> Option<WaitingGuard> {
        self.0.enter(max.into()).then(|| WaitingGuard(self.clone()))
    }

    /// How many wait.
    pub fn count(&self) -> u64 {
        self.0.count()
    }
}

/// A request that waits; ends when it is dropped.
#[derive(Debug)]
#[must_use]
pub struct WaitingGuard(Arc<Waiting>);

impl Drop for WaitingGuard {
    fn drop(&mut self) {
        self.0.0.leave();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_wait_than_may() {
        let waiting = Arc::<Waiting>::default();
        assert!(waiting.enter(0).is_none());
        let guards: Vec<_> = (0..5).filter_map(|_| waiting.enter(2)).collect();
        assert_eq!((guards.len(), waiting.count()), (2, 2));
        // A reload may lower the bound below what is there.
        assert!(waiting.enter(1).is_none());
        drop(guards);
        assert_eq!(waiting.count(), 0);
        assert!(waiting.enter(1).is_some());
    }
}
