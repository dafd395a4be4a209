//! How long a drain lets what is in flight go on, by kind. Pure.
//!
//! Two deadlines, because a WebSocket that is told to go comes back at once: hours are right for tunnels where requests
//! have seconds. Invariant: deadlines are fixed when the drain begins.

use std::time::Duration;

use super::in_flight::Counts;
use crate::model::{Instant, Kind};

/// A time too far to be told counts as this.
const CENTURY: Duration = Duration::from_secs(100 * 365 * 86_400);

/// See the file's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadlines {
    /// When the drain began.
    pub begun: Instant,
    /// The end of requests and streams.
    pub requests: Instant,
    /// The end of tunnels.
    pub upgrades: Instant,
}

impl Deadlines {
    /// Of a drain that begins at `begun` and gives so much time to requests (and streams) and to upgrades.
    pub fn new(begun: Instant, requests: Duration, upgrades: Duration) -> Self {
        Self { begun, requests: begun + requests.min(CENTURY), upgrades: begun + upgrades.min(CENTURY) }
    }

    pub fn of(&self, kind: Kind) -> Instant {
        match kind {
            Kind::Request | Kind::Stream => self.requests,
            Kind::Upgrade => self.upgrades,
        }
    }

    /// The next one that cuts something, with so much in flight.
    pub fn next(&self, in_flight: Counts) -> Option<Instant> {
        let short = (in_flight.requests + in_flight.streams > 0).then_some(self.requests);
        let long = (in_flight.upgrades > 0).then_some(self.upgrades);
        short.into_iter().chain(long).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tunnels_have_their_own() {
        let (now, second) = (Instant::now(), Duration::from_secs(1));
        let deadlines = Deadlines::new(now, 30 * second, 3600 * second);
        assert_eq!((deadlines.of(Kind::Request), deadlines.of(Kind::Stream)), (now + 30 * second, now + 30 * second));
        assert_eq!(deadlines.of(Kind::Upgrade), now + 3600 * second);
        let next = |streams, upgrades| deadlines.next(Counts { requests: 0, streams, upgrades });
        assert_eq!(next(1, 1), Some(now + 30 * second));
        assert_eq!(next(0, 1), Some(now + 3600 * second));
        assert_eq!(next(0, 0), None);
        assert!(Deadlines::new(now, Duration::MAX, Duration::MAX).requests > now);
    }
}
