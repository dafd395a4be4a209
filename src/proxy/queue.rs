//! Waiting in line for a place at a version whose endpoints are all full (`pool.queue`).
//!
//! Invariants: whoever gives up a place wakes the first in line, and nobody polls; a new snapshot is seen at once, so that a
//! rollback is for those who wait too; waiting ends in time.

use std::rc::Rc;

use super::attempt::Trip;
use super::deadlines::Deadlines;
use super::error::ProxyError;
use super::exchange::Exchange;
use crate::model::Instant;
use crate::pool::{Claim, Place, Unavailable};

/// What waiting came to.
enum Waited {
    Claimed(usize, Claim),
    /// There is a new snapshot.
    Swapped,
    Over(ProxyError),
}

impl Trip<'_> {
    /// A place at the version, or at whatever the choice is by then.
    pub(super) async fn queue(&mut self, exchange: &mut Exchange) -> Result<(usize, Claim), ProxyError> {
        let split = self.split();
        let over = Deadlines::total(exchange, &split.timeouts);
        let until = Instant::now() + split.pool.queue_timeout;
        let until = over.map_or(until, |over| until.min(over));
        loop {
            let Some(mut place) = self.at().pool.line_up() else { return Err(ProxyError::Overloaded) };
            match self.wait_in_line(&mut place, until).await {
                Waited::Claimed(endpoint, claim) => {
                    exchange.has_waited();
                    return Ok((endpoint, claim));
                }
                Waited::Over(why) => return Err(why),
                Waited::Swapped => self.choose_again(exchange),
            }
            drop(place);
            match self.claim() {
                Err(Unavailable::Full) => {}
                Err(Unavailable::None) => return Err(ProxyError::NoEndpoint),
                Ok(claimed) => {
                    exchange.has_waited();
                    return Ok(claimed);
                }
            }
        }
    }

    /// Cancel safe.
    async fn wait_in_line(&self, place: &mut Place, until: Instant) -> Waited {
        let (mut looks, seen) = (false, self.worker.view());
        loop {
            let swapped = self.worker.swapped.notified();
            if looks {
                match self.claim_or_wait() {
                    Ok((endpoint, claim)) => return Waited::Claimed(endpoint, claim),
                    Err(Unavailable::None) => return Waited::Over(ProxyError::NoEndpoint),
                    Err(Unavailable::Full) => {}
                }
            }
            // A swap that came before `notified` is seen here.
            if !Rc::ptr_eq(&self.worker.view(), &seen) {
                return Waited::Swapped;
            }
            tokio::select! {
                biased;
                () = place.turn() => looks = true,
                () = swapped => looks = false,
                () = tokio::time::sleep_until(until) => return Waited::Over(ProxyError::Overloaded),
            }
        }
    }
}
