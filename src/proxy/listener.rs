//! Accepting: one task per listening socket of a worker.
//!
//! Invariant: a stop loses nothing. The control plane closes the door in the kernel first (`net::listen`), then this
//! task accepts what is still queued, and only then is the socket closed.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};

use super::worker::Worker;
use super::{arrival, connection};
use crate::config::Bind;
use crate::model::ListenerName;
use crate::net::listen::{Acceptor, Done};
use crate::net::socket::{Peer, Socket};

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
    pub(super) fn open(&self) -> usize {
        self.open.load(Ordering::Acquire)
    }

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

/// What belongs to a listening socket of one worker.
pub(super) struct Door {
    /// Shared, since a reload may give the address to a listener of another name.
    pub(super) name: Rc<RefCell<ListenerName>>,
    pub(super) address: Rc<Bind>,
    pub(super) limit: Arc<Limit>,
}

/// Accepts until told to stop, then until the queue is empty.
pub(super) async fn accept(worker: Rc<Worker>, acceptor: Acceptor, door: Door, mut stop: oneshot::Receiver<Done>) {
    let mut pause = MIN_PAUSE;
    let done = loop {
        let permit = tokio::select! {
            permit = door.limit.admit(|| door.max_connections(&worker)) => permit,
            done = &mut stop => break done,
        };
        let accepted = tokio::select! {
            accepted = acceptor.accept() => accepted,
            done = &mut stop => break done,
        };
        match accepted {
            Ok((stream, peer)) => {
                pause = MIN_PAUSE;
                door.spawn(&worker, stream, peer, permit);
            }
            Err(error) => {
                door.report(&error);
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(MAX_PAUSE);
            }
        }
    };
    door.close(acceptor, &worker);
    // Dropping it says that the socket is closed.
    drop(done);
}

impl Door {
    fn max_connections(&self, worker: &Worker) -> usize {
        worker.view().listener(&self.name.borrow()).map_or(usize::MAX, |(_, l)| l.limits.connections)
    }

    fn report(&self, error: &io::Error) {
        tracing::warn!(event = "accept-failed", listener = %self.name.borrow(), reason = %error);
    }

    /// Serves what is still queued, above the limit too, and closes.
    fn close(&self, acceptor: Acceptor, worker: &Rc<Worker>) {
        let emptied = acceptor.accept_rest(|accepted| match accepted {
            Ok((stream, peer)) => {
                self.limit.open.fetch_add(1, Ordering::AcqRel);
                self.spawn(worker, stream, peer, Permit(self.limit.clone()));
            }
            Err(error) => self.report(&error),
        });
        if let Err(error) = emptied {
            self.report(&error);
        }
    }

    fn spawn(&self, worker: &Rc<Worker>, mut socket: Socket, peer: Peer, permit: Permit) {
        let (worker, name, address) = (worker.clone(), self.name.borrow().clone(), self.address.clone());
        tokio::task::spawn_local(async move {
            if let Some(client) = arrival::admit(&worker, &name, &mut socket, peer).await {
                connection::serve(worker, socket, (name, address), client, permit).await;
            }
        });
    }
}
