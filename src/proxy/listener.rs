//! Accepting: one task per listening socket of a worker.
//!
//! Invariant: a stop loses nothing. The control plane closes the door in the kernel first (`net::listen`), then this
//! task accepts what is still queued, and only then is the socket closed.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, oneshot};

use super::connection;
use super::worker::Worker;
use crate::model::ListenerName;
use crate::net::listen::{Done, accept_rest};

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
    /// Shared, since a reload may give the address to a listener of another name.
    pub(super) name: Rc<RefCell<ListenerName>>,
    pub(super) address: SocketAddr,
    pub(super) listener: TcpListener,
    pub(super) limit: Arc<Limit>,
}

/// Accepts until told to stop, then until the queue is empty.
pub(super) async fn accept(worker: Rc<Worker>, socket: Socket, mut stop: oneshot::Receiver<Done>) {
    let mut pause = MIN_PAUSE;
    let done = loop {
        let permit = tokio::select! {
            permit = socket.limit.admit(|| socket.max_connections(&worker)) => permit,
            done = &mut stop => break done,
        };
        let accepted = tokio::select! {
            accepted = socket.listener.accept() => accepted,
            done = &mut stop => break done,
        };
        match accepted {
            Ok((stream, peer)) => {
                pause = MIN_PAUSE;
                socket.spawn(&worker, stream, peer, permit);
            }
            Err(error) => {
                socket.report(&error);
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(MAX_PAUSE);
            }
        }
    };
    if let Err(error) = socket.empty_queue(&worker) {
        socket.report(&error);
    }
    drop(socket);
    // Dropping it says that the socket is closed.
    drop(done);
}

impl Socket {
    fn max_connections(&self, worker: &Worker) -> usize {
        worker.view().listener(&self.name.borrow()).map_or(usize::MAX, |(_, l)| l.limits.connections)
    }

    fn report(&self, error: &io::Error) {
        tracing::warn!(event = "accept-failed", listener = %self.name.borrow(), reason = %error);
    }

    /// The queue is read past tokio, whose readiness may lag behind the kernel's.
    fn empty_queue(&self, worker: &Rc<Worker>) -> io::Result<()> {
        let listener = SockRef::from(&self.listener).try_clone()?.into();
        accept_rest(&listener, |stream, peer| {
            self.limit.open.fetch_add(1, Ordering::AcqRel);
            let permit = Permit(self.limit.clone());
            match TcpStream::from_std(stream) {
                Ok(stream) => self.spawn(worker, stream, peer, permit),
                Err(error) => self.report(&error),
            }
        })?;
        Ok(())
    }

    fn spawn(&self, worker: &Rc<Worker>, stream: TcpStream, peer: SocketAddr, permit: Permit) {
        if stream.set_nodelay(true).is_ok() {
            let local = (self.name.borrow().clone(), self.address.port());
            tokio::task::spawn_local(connection::serve(worker.clone(), stream.into(), local, peer, permit));
        }
    }
}
