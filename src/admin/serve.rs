//! The admin server's connections: few, bounded, and none of them able to keep others out for long.
//!
//! Invariant: they are accepted although the rest of the process has no descriptor left (`reserve`); at most `CONNECTIONS`
//! are open; one that sends no head for `HEADER_TIME`, or reads nothing of its answer
//! for `WRITE_TIME`, is closed.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use hyper::server::conn::http1;
use hyper::service::Service as _;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;

use super::reserve::Reserve;

const CONNECTIONS: usize = 256;
/// Also the life of an idle connection: hyper's header timer runs between requests.
const HEADER_TIME: Duration = Duration::from_secs(10);
const WRITE_TIME: Duration = Duration::from_secs(30);
/// After an accept failed for want of file descriptors, trying at once would only burn CPU.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// What is being answered at the end usually gets this long.
pub const GRACE: Duration = Duration::from_secs(2);

/// Serves until `shutdown` is over, then finishes what is being answered, for at most as long as `shutdown` says. Not
/// cancel safe: dropping it cuts every connection.
pub async fn serve(listener: TcpListener, router: Router, shutdown: impl Future<Output = Duration>) {
    let (slots, reserve) = (Arc::new(Semaphore::new(CONNECTIONS)), Reserve::new());
    let (stop, stopped) = watch::channel(());
    let mut connections = JoinSet::new();
    tokio::pin!(shutdown);
    let grace = loop {
        tokio::select! {
            grace = &mut shutdown => break grace,
            Some(_) = connections.join_next() => reserve.refill(),
            (stream, peer, slot) = accept(&listener, &slots, &reserve) => {
                connections.spawn(connection(stream, peer, router.clone(), stopped.clone(), slot));
            }
        }
    };
    drop((listener, stop));
    // Whatever is left after the grace is aborted when the set is dropped.
    let _ = tokio::time::timeout(grace, async { while connections.join_next().await.is_some() {} }).await;
}

async fn accept(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
    reserve: &Reserve,
) -> (TcpStream, SocketAddr, Option<OwnedSemaphorePermit>) {
    // `Err` only if the semaphore were closed, which nobody does.
    let slot = slots.clone().acquire_owned().await.ok();
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => return (stream, peer, slot),
            Err(e) if reserve.give_up(&e) => {}
            Err(e) => {
                tracing::warn!(error = %e, "the admin listener could not accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                reserve.refill();
            }
        }
    }
}

async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    router: Router,
    mut stopped: watch::Receiver<()>,
    _slot: Option<OwnedSemaphorePermit>,
) {
    // Answers are small and waited for; both options only make things better, so a failure is of no interest.
    let _ = stream.set_nodelay(true);
    let _ = socket2::SockRef::from(&stream).set_tcp_user_timeout(Some(WRITE_TIME));
    let service = TowerToHyperService::new(router);
    let service = hyper::service::service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(ConnectInfo(peer));
        service.call(request)
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEADER_TIME).max_buf_size(64 << 10);
    let serving = http.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(serving);
    // Errors here are the client's (gone, malformed, too slow); hyper has answered what can be answered.
    tokio::select! {
        _ = serving.as_mut() => {}
        _ = stopped.changed() => {
            serving.as_mut().graceful_shutdown();
            let _ = serving.await;
        }
    }
}
