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
    use crate::model::{Address, Instant};

    fn endpoint() -> Arc<Endpoint> {
        Arc::new(Endpoint::new("127.0.0.1:1".parse::<Address>().unwrap()))
    }

    #[tokio::test(start_paused = true)]
    async fn returns_at_zero_and_not_before() {
        let endpoint = endpoint();
        let claims = [endpoint.claim(9).unwrap(), endpoint.claim(9).unwrap()];
        endpoint.drain(Instant::now() + Duration::from_secs(30));
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
        endpoint.drain(Instant::now() + Duration::from_secs(30));
        let wait = tokio_test_pending(&endpoint).await;
        endpoint.undrain();
        assert_eq!(wait.await.unwrap(), Drained::CalledOff);
        assert!(endpoint.claim(9).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_left_at_the_deadline_is_cut_once() {
        let endpoint = endpoint();
        let _claim = endpoint.claim(9).unwrap();
        let now = Instant::now();
        endpoint.drain(now + Duration::from_secs(30));
        assert_eq!(endpoint.cut_if_due(now + Duration::from_secs(29)), None);
        assert_eq!(endpoint.cut_if_due(now + Duration::from_secs(30)).unwrap().requests, 1);
        assert_eq!(endpoint.cut_if_due(now + Duration::from_secs(31)), None);
        assert!(endpoint.is_cut());
    }
}
