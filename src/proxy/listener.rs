//! Accepting: one task per listening socket of a worker.
//!
//! A connection that is one too many waits in the task's hand, and with it everybody behind it in the kernel, until idle
//! ones have given way (`room`) or somebody goes. Where descriptors are short and nobody gives way, it is closed, and a
//! bounded number behind it, so that clients hear something instead of hanging.
//! Invariant: a stop loses nothing. The control plane closes the door in the kernel first (`net::listen`), then this
//! task accepts what is still queued, and only then is the socket closed.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use super::room::{Limit, Place, Room};
use super::shortage::{FRESH, MOST_AT_ONCE, Pauses, accept_fault, batch};
use super::worker::{TICK, Worker};
use super::{arrival, connection};
use crate::config::Bind;
use crate::model::{AcceptFault, Instant, ListenerName, Shed};
use crate::net::listen::{Acceptor, Done};
use crate::net::socket::{Peer, Socket};

/// Connections that are closed unheard after one that has waited in vain.
const REJECTED_AT_ONCE: usize = 64;
/// What the closing of idle connections takes, with a margin.
const CLOSING: Duration = Duration::from_millis(10);

/// What belongs to a listening socket of one worker.
pub(super) struct Door {
    /// Shared, since a reload may give the address to a listener of another name.
    pub(super) name: Rc<RefCell<ListenerName>>,
    pub(super) address: Rc<Bind>,
    pub(super) limit: Arc<Limit>,
}

/// A connection's places: of its listener, of the process.
type Places = (Place, Place);

/// Accepts until told to stop, then until the queue is empty.
pub(super) async fn accept(worker: Rc<Worker>, acceptor: Acceptor, door: Door, mut stop: oneshot::Receiver<Done>) {
    let mut held = None;
    let done = tokio::select! {
        biased;
        done = &mut stop => done,
        never = door.accept_all(&worker, &acceptor, &mut held) => match never {},
    };
    if let Some((stream, peer)) = held {
        door.spawn(&worker, stream, peer, door.places_anyway(&worker));
    }
    door.close(acceptor, &worker);
    // Dropping it says that the socket is closed.
    drop(done);
}

impl Door {
    /// `held` is the connection that waits for a place. Cancel safe.
    async fn accept_all(
        &self,
        worker: &Rc<Worker>,
        acceptor: &Acceptor,
        held: &mut Option<(Socket, Peer)>,
    ) -> std::convert::Infallible {
        let mut pauses = Pauses::default();
        loop {
            let accepted = tokio::select! {
                accepted = acceptor.accept() => accepted,
                () = self.limit.crowded.notified() => {
                    self.make_room_at_limit(worker);
                    continue;
                }
            };
            match accepted {
                // Without the spare one the next client would be left hanging.
                Ok(accepted) if worker.means.is_spare_due() => {
                    drop(accepted);
                    worker.means.take_spare();
                    self.reject(worker, acceptor, 1);
                }
                Ok(accepted) => {
                    pauses.reset();
                    *held = Some(accepted);
                    let places = self.places(worker).await;
                    let Some((stream, peer)) = held.take() else { continue };
                    match places {
                        Some(places) => self.spawn(worker, stream, peer, places),
                        None => {
                            drop(stream);
                            self.reject(worker, acceptor, 1);
                        }
                    }
                }
                Err(error) => self.failed(worker, acceptor, &error, &mut pauses).await,
            }
        }
    }

    /// Waits for places; `None`: descriptors are short and nobody gives way. Cancel safe.
    async fn places(&self, worker: &Worker) -> Option<Places> {
        let mut listener = None;
        let mut short_since = None;
        loop {
            if listener.is_none() {
                listener = self.limit.try_admit(self.max_connections(worker));
            }
            let crowded = match listener.take() {
                None => &self.limit,
                Some(place) => match worker.pressure.clients.try_admit(worker.means.places()) {
                    Some(process) => return Some((place, process)),
                    None => {
                        listener = Some(place);
                        &worker.pressure.clients
                    }
                },
            };
            let closed = crowded.closed.notified();
            if listener.is_none() {
                self.crowded_at_limit(worker);
            } else if self.crowded_by_descriptors(worker, *short_since.get_or_insert_with(Instant::now)).is_break() {
                return None;
            }
            let _ = tokio::time::timeout(TICK, closed).await;
        }
    }

    /// `limits.connections` are open: idle ones give way, here or on other workers.
    fn crowded_at_limit(&self, worker: &Worker) {
        let name = self.name.borrow();
        if self.limit.episode.met(worker.clock.now()) {
            tracing::warn!(event = "shortage-begun", reason = Shed::ConnLimit.as_str(), listener = %name,
                "`limits.connections` are open: idle ones are closed, the oldest first, and new ones wait");
        }
        drop(name);
        if self.make_room_at_limit(worker) == Room::None {
            self.limit.crowded.notify_waiters();
        }
    }

    fn make_room_at_limit(&self, worker: &Worker) -> Room {
        worker.make_room(Some(&self.name.borrow()), Shed::ConnLimit, batch(self.max_connections(worker)))
    }

    /// The process has as many clients as its descriptors allow. Broken off when waiting is in vain.
    fn crowded_by_descriptors(&self, worker: &Worker, since: Instant) -> std::ops::ControlFlow<()> {
        self.note(worker, AcceptFault::Descriptors);
        match worker.make_room(None, Shed::Descriptors, batch(worker.means.places())) {
            Room::None if since.elapsed() >= FRESH => std::ops::ControlFlow::Break(()),
            Room::None => {
                worker.pressure.clients.crowded.notify_waiters();
                std::ops::ControlFlow::Continue(())
            }
            Room::Made | Room::Later => std::ops::ControlFlow::Continue(()),
        }
    }

    /// After an error of the kernel's: makes room, or lets some go unheard, and pauses.
    async fn failed(&self, worker: &Worker, acceptor: &Acceptor, error: &io::Error, pauses: &mut Pauses) {
        let Some(fault) = accept_fault(error) else { return };
        self.note(worker, fault);
        if fault == AcceptFault::Other {
            tracing::warn!(event = "accept-failed", listener = %self.name.borrow(), reason = %error);
        } else {
            match worker.make_room(None, Shed::Descriptors, MOST_AT_ONCE) {
                Room::Made => return tokio::time::sleep(CLOSING).await,
                Room::Later => return tokio::time::sleep(TICK).await,
                Room::None => {
                    worker.pressure.clients.crowded.notify_waiters();
                    if worker.means.give_up_spare() {
                        self.reject(worker, acceptor, 0);
                        worker.means.take_spare();
                    }
                }
            }
        }
        tokio::time::sleep(pauses.next()).await;
    }

    fn note(&self, worker: &Worker, fault: AcceptFault) {
        let name = self.name.borrow();
        worker.cells.listener(worker.index, &name).accept_failed(fault);
        if fault != AcceptFault::Other {
            worker.pressure.descriptors_short(name.as_str(), fault.as_str(), worker.clock.now());
        }
    }

    /// Closes what waits in the queue, a bounded number. `closed` were closed already.
    fn reject(&self, worker: &Worker, acceptor: &Acceptor, closed: usize) {
        let rejected = closed + acceptor.reject(REJECTED_AT_ONCE - closed);
        let cell = worker.cells.listener(worker.index, &self.name.borrow());
        (0..rejected).for_each(|_| cell.shed(Shed::Rejected));
    }

    fn max_connections(&self, worker: &Worker) -> usize {
        worker.view().listener(&self.name.borrow()).map_or(usize::MAX, |(_, l)| l.limits.connections)
    }

    fn places_anyway(&self, worker: &Worker) -> Places {
        (self.limit.admit_anyway(), worker.pressure.clients.admit_anyway())
    }

    /// Serves what is still queued, above the limit too, and closes.
    fn close(&self, acceptor: Acceptor, worker: &Rc<Worker>) {
        let report = |error: &io::Error| tracing::warn!(event = "accept-failed", listener = %self.name.borrow(), reason = %error);
        let emptied = acceptor.accept_rest(|accepted| match accepted {
            Ok((stream, peer)) => self.spawn(worker, stream, peer, self.places_anyway(worker)),
            Err(error) => report(&error),
        });
        if let Err(error) = emptied {
            report(&error);
        }
    }

    /// A panic in there ends that connection alone: its guards give back what it holds, and the runtime goes on.
    fn spawn(&self, worker: &Rc<Worker>, mut socket: Socket, peer: Peer, places: Places) {
        let (worker, name, address) = (worker.clone(), self.name.borrow().clone(), self.address.clone());
        tokio::task::spawn_local(async move {
            if let Some(client) = arrival::admit(&worker, &name, &mut socket, peer).await {
                connection::serve(worker, socket, (name, address), client, places).await;
            }
        });
    }
}
