//! What the endpoints of one version have in common, over all reloads: who waits for a place at any of them, and whose
//! ejection is being decided.
//!
//! A request that finds all of them full waits in line, without polling: the first in line looks for a place, and waits
//! until one is given up. Invariants: only the first looks, and marks the endpoints that are full (`claim_or_wait`), so
//! that it is woken by whoever gives up a place; when it leaves, with a place or without, the next is the first and looks.

use std::sync::Arc;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use super::bounded::Bounded;

/// See the file's head.
#[derive(Debug)]
pub(super) struct Crowd {
    /// Two ejections at once could each think that the other endpoint stays.
    ejecting: Bounded,
    waiting: Bounded,
    /// Who has its one permit is the first; it is given on in the order in which they came.
    first: Arc<Semaphore>,
    /// Wakes the first.
    freed: Notify,
}

impl Default for Crowd {
    fn default() -> Self {
        let first = Arc::new(Semaphore::new(1));
        Self { ejecting: Bounded::new(), waiting: Bounded::new(), first, freed: Notify::new() }
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
        self.waiting.enter(max.into()).then(|| Place { crowd: self.clone(), first: None })
    }

    /// Does `f` unless somebody else is at it just now; never waits.
    pub(super) fn eject_alone(&self, f: impl FnOnce()) {
        if self.ejecting.enter(1) {
            f();
            self.ejecting.leave();
        }
    }
}

/// A place in line; it ends when it is dropped.
#[derive(Debug)]
#[must_use]
pub struct Place {
    crowd: Arc<Crowd>,
    /// Given back when this is dropped: then the next is the first.
    first: Option<OwnedSemaphorePermit>,
}

impl Place {
    /// Until it is time to look for a place. Cancel safe, but who has not come to be the first goes to the end.
    pub async fn turn(&mut self) {
        if self.first.is_some() {
            return self.crowd.freed.notified().await;
        }
        // It is never closed.
        self.first = self.crowd.first.clone().acquire_owned().await.ok();
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.crowd.waiting.leave();
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::time::Duration;

    use tokio::task::JoinHandle;
    use tokio::time::timeout;

    use super::*;
    use crate::model::Address;
    use crate::pool::{By, Claim, Endpoint, Pool, Rules, Unavailable};

    /// Two endpoints with room for one request each, and a line for three.
    fn narrow() -> Arc<Pool> {
        let crowd = Arc::<Crowd>::default();
        let endpoint =
            |i: u16| Arc::new(Endpoint::of(Address::Tcp(([127, 0, 0, 1], 9000 + i).into()), Arc::clone(&crowd)));
        Arc::new(Pool::with_rules((0..2).map(endpoint), Rules { max_in_flight: 1, queue: 3, ..Rules::default() }))
    }

    fn claim(pool: &Pool, waits: bool) -> Result<Claim, Unavailable> {
        let (turns, mut rng) = (RefCell::default(), fastrand::Rng::with_seed(1));
        let mut by = By { tried: 0, key: None, turns: &turns, rng: &mut rng };
        let claimed = if waits { pool.claim_or_wait(&mut by) } else { pool.claim_by(&mut by) };
        claimed.map(|(_, claim)| claim)
    }

    /// As the data plane waits.
    async fn wait(pool: Arc<Pool>, mut place: Place) -> Claim {
        loop {
            place.turn().await;
            if let Ok(claim) = claim(&pool, true) {
                return claim;
            }
        }
    }

    /// One in line, who has come to wait.
    async fn in_line(pool: &Arc<Pool>) -> JoinHandle<Claim> {
        let place = pool.line_up().unwrap();
        let waiting = tokio::spawn(wait(pool.clone(), place));
        tokio::time::sleep(Duration::from_millis(1)).await;
        waiting
    }

    fn done(waiting: &[JoinHandle<Claim>]) -> Vec<bool> {
        waiting.iter().map(JoinHandle::is_finished).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_in_line_gets_the_place_that_is_given_up() {
        let pool = narrow();
        let mut held = vec![claim(&pool, false).unwrap(), claim(&pool, false).unwrap()];
        assert!(!pool.has_line());
        let waiting = [in_line(&pool).await, in_line(&pool).await, in_line(&pool).await];
        assert!(pool.has_line() && pool.line_up().is_none(), "it is for three");
        for served in 0..=2 {
            tokio::time::sleep(Duration::from_secs(1)).await;
            assert_eq!(done(&waiting), [served > 0, served > 1, false]);
            held.pop();
        }
        let [first, second, third] = waiting;
        drop(first.await.unwrap());
        let third = timeout(Duration::from_secs(1), third).await.unwrap().unwrap();
        assert!(!pool.has_line());
        drop((second, third));
    }

    #[tokio::test(start_paused = true)]
    async fn places_given_up_together_go_to_as_many() {
        let pool = narrow();
        let held = [claim(&pool, false).unwrap(), claim(&pool, false).unwrap()];
        let waiting = [in_line(&pool).await, in_line(&pool).await, in_line(&pool).await];
        drop(held);
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(done(&waiting), [true, true, false]);
    }

    #[tokio::test(start_paused = true)]
    async fn who_leaves_the_line_wakes_the_next() {
        let pool = narrow();
        let mut held = vec![claim(&pool, false).unwrap(), claim(&pool, false).unwrap()];
        let [first, second] = [in_line(&pool).await, in_line(&pool).await];
        first.abort();
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(!second.is_finished());
        held.pop();
        timeout(Duration::from_secs(1), second).await.unwrap().unwrap();
        assert!(!pool.has_line());
    }

    #[tokio::test(start_paused = true)]
    async fn an_endpoint_that_comes_back_is_a_place() {
        let pool = narrow();
        pool.endpoints()[1].set_health(crate::pool::Health::Down);
        let _held = claim(&pool, false).unwrap();
        let waiting = in_line(&pool).await;
        pool.endpoints()[1].set_health(crate::pool::Health::Up);
        timeout(Duration::from_secs(1), waiting).await.unwrap().unwrap();
    }

    #[test]
    fn one_ejection_at_a_time() {
        let (crowd, mut done) = (Crowd::default(), Vec::new());
        crowd.eject_alone(|| crowd.eject_alone(|| done.push(1)));
        crowd.eject_alone(|| done.push(2));
        assert_eq!(done, [2]);
    }
}
