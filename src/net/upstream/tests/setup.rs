//! Who connects and who waits.

use super::http2::{Origin, answer};
use super::*;

/// Dials at the same time; all leases.
async fn dial_all(upstream: &Rc<Upstream<TestBody>>, n: usize) -> Vec<Result<Lease<TestBody>, DialError>> {
    let dial = |_| {
        let upstream = upstream.clone();
        tokio::task::spawn_local(async move { upstream.dial(Some(Duration::from_secs(5))).await })
    };
    let tasks: Vec<_> = (0..n).map(dial).collect();
    let mut leases = Vec::new();
    for task in tasks {
        leases.push(task.await.unwrap());
    }
    leases
}

#[test]
fn a_herd_shares_one_connection() {
    local(async {
        let origin = Origin::new(|_| {}, answer).await;
        let upstream = origin.upstream();
        let leases = dial_all(&upstream, 100).await;
        for lease in leases {
            let mut lease = lease.unwrap();
            read(send(&mut lease, get("/")).await.unwrap()).await;
            lease.give_back();
        }
        assert_eq!((origin.connections.get(), live(&upstream)), (1, 1));
    });
}

#[test]
fn another_connection_is_opened_when_one_is_full() {
    local(async {
        let few = |builder: &mut h2::server::Builder| {
            builder.max_concurrent_streams(2);
        };
        let origin = Origin::new(few, answer).await;
        let upstream = origin.upstream();
        let leases = dial_all(&upstream, 5).await;
        assert_eq!(origin.connections.get(), 3);
        drop(leases);
        // Freed places are used again, the first connection's first.
        let again: Vec<_> = (0..6).map_while(|_| upstream.checkout()).collect();
        assert_eq!((again.len(), origin.connections.get()), (6, 3));
        assert!(upstream.checkout().is_none());
    });
}

#[test]
fn if_the_one_that_connects_is_given_up_another_takes_its_place() {
    local(async {
        let (listener, address) = listener().await;
        let upstream = upstream_with(address, cleartext(Protocol::Http2));
        let dial = || {
            let upstream = upstream.clone();
            tokio::task::spawn_local(async move { upstream.dial(None).await.map(|lease| lease.is_http2()) })
        };
        let leader = dial();
        let mut wire = Wire::accept(&listener).await;
        let waits = dial();
        until("the second waits", || upstream.setup.is_waited_for()).await;
        leader.abort();
        wire.ended().await;
        let mut wire = Wire::accept(&listener).await;
        wire.bytes(24).await;
        wire.write([0, 0, 0, 4, 0, 0, 0, 0, 0]).await;
        assert!(waits.await.unwrap().unwrap());
    });
}

#[test]
fn a_failure_is_everybodys_who_waited() {
    local(async {
        let (listener, address) = listener().await;
        drop(listener);
        let upstream = upstream_with(address, cleartext(Protocol::Http2));
        for result in dial_all(&upstream, 20).await {
            assert!(matches!(result, Err(DialError::Connect(_))), "{result:?}");
        }
    });
}

#[test]
fn what_speaks_something_else_is_not_spoken_to() {
    local(async {
        for reply in ["HTTP/1.1 400 Bad Request\r\n\r\n", ""] {
            let (listener, address) = listener().await;
            let upstream = upstream_with(address, cleartext(Protocol::Http2));
            origin(async move {
                let mut wire = Wire::accept(&listener).await;
                wire.bytes(24).await;
                wire.write(reply).await;
            });
            let result = upstream.dial(None).await;
            assert!(matches!(result, Err(DialError::Handshake(_))), "{result:?}");
            assert_eq!(live(&upstream), 0);
        }
    });
}

#[test]
fn nobody_waits_longer_than_allowed() {
    local(async {
        let (listener, address) = listener().await;
        let upstream = upstream_with(address, cleartext(Protocol::Http2));
        let limit = Some(Duration::from_millis(20));
        let (first, second) = tokio::join!(upstream.dial(limit), upstream.dial(limit));
        assert!(matches!(first, Err(DialError::Timeout)) && matches!(second, Err(DialError::Timeout)));
        drop(listener);
    });
}
