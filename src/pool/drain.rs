//! Waiting for a draining endpoint to become empty.

use super::endpoint::Endpoint;

/// How a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drained {
    /// Nothing is in flight, and nothing can come any more.
    Empty,
    /// The drain was called off.
    CalledOff,
}

/// Waits until a draining endpoint has nothing in flight. Cancel safe.
pub async fn wait_drained(endpoint: &Endpoint) -> Drained {
    loop {
        // Registered before the look, so that a wake between look and wait is not lost.
        let changed = endpoint.changed.notified();
        tokio::pin!(changed);
        changed.as_mut().enable();
        if !endpoint.is_draining() {
            return Drained::CalledOff;
        }
        if endpoint.counts().total() == 0 {
            return Drained::Empty;
        }
        changed.await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::model::{Address, Instant, Kind};
    use crate::pool::{Counts, Deadlines};

    fn deadlines(now: Instant) -> Deadlines {
        Deadlines::new(now, Duration::from_secs(30), Duration::from_secs(60))
    }

    fn endpoint() -> Arc<Endpoint> {
        Arc::new(Endpoint::new("127.0.0.1:1".parse::<Address>().unwrap()))
    }

    #[tokio::test(start_paused = true)]
    async fn returns_at_zero_and_not_before() {
        let endpoint = endpoint();
        let claims = [endpoint.claim(9).unwrap(), endpoint.claim(9).unwrap()];
        endpoint.drain(deadlines(Instant::now()));
        let mut wait = tokio_test_pending(&endpoint).await;
        let [first, second] = claims;
        drop(first);
        assert!(tokio::time::timeout(Duration::from_secs(5), &mut wait).await.is_err());
        drop(second);
        assert_eq!(wait.await.unwrap(), Drained::Empty);
    }

    async fn tokio_test_pending(endpoint: &Arc<Endpoint>) -> tokio::task::JoinHandle<Drained> {
        let theirs = endpoint.clone();
        let mut wait = tokio::spawn(async move { wait_drained(&theirs).await });
        assert!(tokio::time::timeout(Duration::from_secs(5), &mut wait).await.is_err(), "returned with work left");
        wait
    }

    #[tokio::test(start_paused = true)]
    async fn undrain_ends_the_wait_and_takes_claims_again() {
        let endpoint = endpoint();
        let _claim = endpoint.claim(9).unwrap();
        endpoint.drain(deadlines(Instant::now()));
        let wait = tokio_test_pending(&endpoint).await;
        endpoint.undrain();
        assert_eq!(wait.await.unwrap(), Drained::CalledOff);
        assert!(endpoint.claim(9).is_ok());
    }

    #[test]
    fn each_kind_is_over_at_its_own_deadline_and_none_after_an_undrain() {
        let (endpoint, now, second) = (endpoint(), Instant::now(), Duration::from_secs(1));
        assert!(!endpoint.is_over(Kind::Request, now));
        endpoint.drain(deadlines(now));
        let over = |after| {
            [Kind::Request, Kind::Stream, Kind::Upgrade].map(|kind| endpoint.is_over(kind, now + after * second))
        };
        assert_eq!((over(29), over(30)), ([false; 3], [true, true, false]));
        assert_eq!((over(59), over(60)), ([true, true, false], [true; 3]));
        // A reload in the middle.
        endpoint.drain(deadlines(now + 20 * second));
        assert_eq!(over(60), [true; 3], "the first deadlines stand");
        endpoint.undrain();
        assert_eq!(over(60), [false; 3]);
    }

    #[test]
    fn what_was_cut_is_told_once() {
        let endpoint = endpoint();
        [Kind::Request, Kind::Upgrade, Kind::Upgrade].iter().for_each(|kind| endpoint.note_cut(*kind));
        assert_eq!(endpoint.take_cut(), Counts { requests: 1, streams: 0, upgrades: 2 });
        assert_eq!(endpoint.take_cut(), Counts::default());
    }
}
