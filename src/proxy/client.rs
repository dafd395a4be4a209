//! A client connection as its worker knows it: what it is doing, since when, and what it has been told to do.
//!
//! The connection's socket wrapper (`client_io`) and the requests on it report the phase, the worker's tick gives the
//! orders, the connection's task carries them out. Used by one thread only, hence cells.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use http::HeaderValue;

use super::clock::Clock;
use super::framing::Lengths;
use super::tunnel::Agreed;
use super::worker::Worker;
use crate::config::Bind;
use crate::model::{Instant, ListenerName};
use crate::net::socket::Peer;
use crate::telemetry::ListenerCell;

/// What a connection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Between requests; nothing of the next one has arrived.
    Idle,
    /// Part of a head has arrived (or of a handshake).
    Head,
    /// At least one request is being answered.
    Busy,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// End when idle, at once if idle now.
    Finish,
    /// Answer 408 and end.
    Expire,
    /// End now.
    Abort,
}

/// What a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    Http1,
    Http2,
}

/// The end of a listener.
#[derive(Clone, Copy, Debug)]
struct Closing {
    since: Instant,
    limit: Duration,
}

/// See the file's head.
pub(super) struct Client {
    /// Who it is: the other end, or whom a trusted PROXY header has named.
    pub(super) peer: Peer,
    /// Its address as a header value, made once; `unknown` (RFC 7239 section 6) over a Unix socket.
    pub(super) address_text: HeaderValue,
    pub(super) listener: ListenerName,
    /// Where it was accepted, for as long as that is listened on.
    pub(super) local: Rc<Bind>,
    pub(super) cell: Arc<ListenerCell>,
    /// What it says about where its requests come from is believed (`trusted_proxies`).
    pub(super) is_trusted: bool,
    /// Over TLS.
    pub(super) is_secure: Cell<bool>,
    /// `None` until it is known.
    pub(super) protocol: Cell<Option<Protocol>>,
    /// Since when the client takes no more of what we have to send.
    pub(super) blocked: Cell<Option<Instant>>,
    /// Since when an HTTP/2 header block has waited for its rest. Apart from the phase: other streams go on meanwhile.
    pub(super) block_since: Cell<Option<Instant>>,
    /// Open tunnels on it.
    pub(super) tunnels: Cell<u32>,
    /// The tunnel this connection becomes once the answer's head is out.
    pub(super) agreed: Cell<Option<Box<Agreed>>>,
    /// The client has announced its last request and sent all of it.
    pub(super) has_ended: Cell<bool>,
    /// Interim answers that are to go out before the answer.
    pub(super) interim: RefCell<Vec<u8>>,
    /// What was said over HTTP/1.1 about the lengths of bodies.
    pub(super) lengths: RefCell<Lengths>,
    /// The HTTP library has written all it had.
    pub(super) is_flushed: Cell<bool>,
    clock: Rc<Clock>,
    phase: Cell<Phase>,
    requests: Cell<u32>,
    since: Cell<Instant>,
    closing: Cell<Option<Closing>>,
    is_cut: Cell<bool>,
    order: Cell<Option<Order>>,
    task: RefCell<Option<Waker>>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("peer", &self.peer).finish_non_exhaustive()
    }
}

impl Client {
    pub(super) fn phase(&self) -> Phase {
        self.phase.get()
    }

    /// Since when it is in its phase, to the tick.
    pub(super) fn since(&self) -> Instant {
        self.since.get()
    }

    /// Since when its listener is going away.
    pub(super) fn closing(&self) -> Option<Instant> {
        self.closing.get().map(|closing| closing.since)
    }

    /// Its listener goes away and gives what it does so much time; tunnels have their own.
    pub(super) fn close(&self, now: Instant, limit: Duration) {
        self.closing.set(Some(Closing { since: now, limit }));
    }

    /// The time that its listener has left it is over.
    pub(super) fn is_overdue(&self, now: Instant) -> bool {
        let is_over = |closing: Closing| now.saturating_duration_since(closing.since) >= closing.limit;
        self.tunnels.get() == 0 && self.closing.get().is_some_and(is_over)
    }

    /// Ends it now, by a drain: what is under way counts as cut.
    pub(super) fn cut(&self) {
        self.is_cut.set(true);
        self.abort();
    }

    pub(super) fn is_cut(&self) -> bool {
        self.is_cut.get()
    }

    /// No more than was ordered before: a connection that is to end now does.
    pub(super) fn finish(&self) {
        if self.order.get().is_none() {
            self.give(Order::Finish);
        }
    }

    pub(super) fn expire(&self) {
        self.give(Order::Expire);
    }

    pub(super) fn abort(&self) {
        self.give(Order::Abort);
    }

    fn give(&self, order: Order) {
        self.order.set(Some(order));
        self.wake();
    }

    /// Has the connection's task look at its orders.
    pub(super) fn wake(&self) {
        if let Some(task) = self.task.borrow().as_ref() {
            task.wake_by_ref();
        }
    }

    pub(super) fn order(&self) -> Option<Order> {
        self.order.get()
    }

    /// The last order; the calling task is the one that will be woken by the next. Only the connection's own task
    /// calls this.
    pub(super) fn watch(&self, cx: &Context<'_>) -> Option<Order> {
        let mut task = self.task.borrow_mut();
        if !task.as_ref().is_some_and(|t| t.will_wake(cx.waker())) {
            *task = Some(cx.waker().clone());
        }
        self.order.get()
    }

    /// Waits for an order to end before there is a request. Cancel safe.
    pub(super) async fn ordered(&self) -> Order {
        std::future::poll_fn(|cx| self.watch(cx).map_or(Poll::Pending, Poll::Ready)).await
    }

    pub(super) fn enter(&self, phase: Phase) {
        self.phase.set(phase);
        self.since.set(self.clock.now());
    }

    /// To the tick.
    pub(super) fn now(&self) -> Instant {
        self.clock.now()
    }
}

/// While one of these lives its connection is `Busy`; after the last it is `Idle` again.
pub(super) struct Busy(Rc<Client>);

impl Busy {
    pub(super) fn new(client: &Rc<Client>) -> Self {
        let before = client.requests.replace(client.requests.get() + 1);
        if before == 0 {
            client.enter(Phase::Busy);
        }
        Self(client.clone())
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let left = self.0.requests.get() - 1;
        self.0.requests.set(left);
        if left == 0 {
            self.0.enter(Phase::Idle);
        }
    }
}

/// A client that its worker knows of; dropped when the connection is gone.
pub(super) struct Registered {
    worker: Rc<Worker>,
    key: usize,
    pub(super) client: Rc<Client>,
}

impl Registered {
    /// Counts a connection in and makes it known to the worker's tick.
    pub(super) fn new(worker: &Rc<Worker>, (listener, local): (ListenerName, Rc<Bind>), peer: Peer) -> Option<Self> {
        let view = worker.view();
        let cell = match view.listener(&listener) {
            Some((index, _)) => view.listeners[index].clone(),
            None => worker.cells.listener(worker.index, &listener),
        };
        let trusted = view.listener(&listener).map(|(_, l)| &l.trusted_proxies);
        let is_trusted = trusted.is_some_and(|t| t.trusts(peer.ip()));
        let client = Rc::new(Client {
            peer,
            address_text: forwarded_for(peer)?,
            listener,
            local,
            cell,
            is_trusted,
            is_secure: Cell::new(false),
            protocol: Cell::new(None),
            blocked: Cell::new(None),
            tunnels: Cell::new(0),
            agreed: Cell::new(None),
            has_ended: Cell::new(false),
            interim: RefCell::default(),
            lengths: RefCell::default(),
            is_flushed: Cell::new(true),
            block_since: Cell::new(None),
            clock: worker.clock.clone(),
            phase: Cell::new(Phase::Idle),
            requests: Cell::new(0),
            since: Cell::new(worker.clock.now()),
            closing: Cell::new(None),
            is_cut: Cell::new(false),
            order: Cell::new(None),
            task: RefCell::new(None),
        });
        if let Some(limit) = worker.limit_if_gone(&client.local) {
            client.close(worker.clock.now(), limit);
        }
        client.cell.opened();
        let key = worker.clients.borrow_mut().insert(client.clone());
        Some(Self { worker: worker.clone(), key, client })
    }
}

fn forwarded_for(peer: Peer) -> Option<HeaderValue> {
    match peer.ip() {
        Some(ip) => ip.to_string().parse().ok(),
        None => Some(HeaderValue::from_static("unknown")),
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.client.cell.closed();
        self.worker.clients.borrow_mut().try_remove(self.key);
    }
}
