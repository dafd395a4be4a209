//! Accepting: one task per listening socket of a worker.
//!
//! Invariant: a stop loses nothing. The control plane closes the door in the kernel first (`net::listen`), then this
//! task accepts what is still queued, and only then is the socket closed.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, oneshot};

use super::connection;
use super::worker::Worker;
use crate::model::ListenerName;

/// Pause after an accept error, doubled up to `MAX_PAUSE` while it lasts: descriptors are short, a spin frees none.
const MIN_PAUSE: Duration = Duration::from_millis(10);
const MAX_PAUSE: Duration = Duration::from_secs(1);

/// Open connections of one listener, over all workers.
#[derive(Debug, Default)]
pub(super) struct Limit {
    open: AtomicUsize,
    closed: Notify,
}

impl Limit {
    /// Waits until fewer than `max` are open and counts one in. Cancel safe.
    async fn admit(self: &Arc<Self>, max: impl Fn() -> usize) -> Permit {
        loop {
            let closed = self.closed.notified();
            tokio::pin!(closed);
            closed.as_mut().enable();
            let below = |open: usize| (open < max()).then_some(open + 1);
            if self.open.fetch_update(Ordering::AcqRel, Ordering::Acquire, below).is_ok() {
                return Permit(self.clone());
            }
            closed.await;
        }
    }
}

/// One connection counted in.
struct Permit(Arc<Limit>);

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::AcqRel);
        self.0.closed.notify_one();
    }
}

/// A listening socket of one worker.
pub(super) struct Socket {
    pub(super) name: ListenerName,
    pub(super) address: SocketAddr,
    pub(super) listener: TcpListener,
    pub(super) limit: Arc<Limit>,
}

/// Accepts until told to stop, then until the queue is empty.
pub(super) async fn accept(worker: Rc<Worker>, socket: Socket, mut stop: oneshot::Receiver<oneshot::Sender<()>>) {
    let Socket { name, address, listener, limit } = socket;
    let max = || worker.view().listener(&name).map_or(usize::MAX, |(_, l)| l.limits.connections);
    let mut pause = MIN_PAUSE;
    let done = loop {
        let permit = tokio::select! {
            permit = limit.admit(max) => permit,
            done = &mut stop => break done,
        };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            done = &mut stop => break done,
        };
        match accepted {
            Ok((stream, peer)) => {
                pause = MIN_PAUSE;
                spawn(&worker, stream, peer, (&name, address), permit);
            }
            Err(error) => {
                tracing::warn!(event = "accept-failed", listener = %name, reason = %error);
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(MAX_PAUSE);
            }
        }
    };
    if let Err(error) = empty_queue(&worker, listener, (&name, address), &limit) {
        tracing::warn!(event = "accept-failed", listener = %name, reason = %error);
    }
    // An error means that the whole data plane goes: nobody waits.
    let _ = done.map(|done| done.send(()));
}

/// The queue is read past tokio, whose readiness may lag behind the kernel's.
fn empty_queue(
    worker: &Rc<Worker>,
    listener: TcpListener,
    place: (&ListenerName, SocketAddr),
    limit: &Arc<Limit>,
) -> io::Result<()> {
    let listener = listener.into_std()?;
    loop {
        match listener.accept() {
            Ok((stream, peer)) => {
                stream.set_nonblocking(true)?;
                limit.open.fetch_add(1, Ordering::AcqRel);
                spawn(worker, TcpStream::from_std(stream)?, peer, place, Permit(limit.clone()));
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => return Err(error),
        }
    }
}

fn spawn(worker: &Rc<Worker>, stream: TcpStream, peer: SocketAddr, place: (&ListenerName, SocketAddr), permit: Permit) {
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let local = (place.0.clone(), place.1.port());
    tokio::task::spawn_local(connection::serve(worker.clone(), stream, local, peer, permit));
}
