//! One client connection: its phase, its timeouts, and the wrapper around its socket that sees both.
//!
//! hyper's own header timer also covers the idle time between requests (amendments.md 2.9), and its graceful shutdown
//! closes idle connections at once (2.4), so both are done here: the socket wrapper tells `Idle` from `Head`, the
//! worker's tick gives the orders, the connection's task carries them out.
//! Invariant: a connection that is given up is first half-closed and then read until the client has closed too, so
//! that a client that is still sending sees the end of our answer and not a reset.

use std::cell::{Cell, RefCell};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use http::HeaderValue;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use super::clock::Clock;
use super::service;
use super::worker::Worker;
use crate::config::Bind;
use crate::model::{Instant, ListenerName, Refusal};
use crate::net::socket::{Peer, Socket};
use crate::telemetry::ListenerCell;

/// How long a closing listener or process lets idle connections send one more request (faults.md 4.2).
pub(super) const GRACE: Duration = Duration::from_secs(2);
/// How long a half-closed connection is read to its end.
const LINGER: Duration = Duration::from_secs(1);
/// hyper's smallest buffer.
const MIN_BUFFER: usize = 8192;

const REQUEST_TIMEOUT: &[u8] = b"HTTP/1.1 408 Request Timeout\r\nweir-error: client-timeout\r\n\
content-type: text/plain; charset=utf-8\r\ncontent-length: 48\r\nconnection: close\r\n\r\n\
client-timeout: the request head did not arrive\n";

/// What a connection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Between requests; nothing of the next one has arrived.
    Idle,
    /// Part of a head has arrived.
    Head,
    /// A request is being answered.
    Busy,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    /// End when idle, at once if idle now.
    Finish,
    /// Answer 408 and end.
    Expire,
    /// End now.
    Abort,
}

/// A client connection as its worker knows it.
#[derive(Debug)]
pub(super) struct Client {
    /// Who it is: the other end, or whom a trusted PROXY header has named.
    pub(super) peer: Peer,
    /// Its address as a header value, made once; `unknown` (RFC 7239 section 6) over a Unix socket.
    pub(super) address_text: HeaderValue,
    pub(super) listener: ListenerName,
    /// Where it was accepted, for as long as that is listened on.
    pub(super) local: Rc<Bind>,
    pub(super) cell: Arc<ListenerCell>,
    clock: Rc<Clock>,
    phase: Cell<Phase>,
    since: Cell<Instant>,
    closing: Cell<Option<Instant>>,
    order: Cell<Option<Order>>,
    task: RefCell<Option<Waker>>,
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
        self.closing.get()
    }

    pub(super) fn close(&self, now: Instant) {
        self.closing.set(Some(now));
    }

    pub(super) fn finish(&self) {
        self.give(Order::Finish);
    }

    pub(super) fn expire(&self) {
        self.give(Order::Expire);
    }

    pub(super) fn abort(&self) {
        self.give(Order::Abort);
    }

    fn give(&self, order: Order) {
        self.order.set(Some(order));
        if let Some(task) = self.task.borrow().as_ref() {
            task.wake_by_ref();
        }
    }

    fn enter(&self, phase: Phase) {
        self.phase.set(phase);
        self.since.set(self.clock.now());
    }
}

/// While it lives its connection is `Busy`; then it is `Idle` again.
pub(super) struct Busy(Rc<Client>);

impl Busy {
    pub(super) fn new(client: &Rc<Client>) -> Self {
        client.enter(Phase::Busy);
        Self(client.clone())
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.enter(Phase::Idle);
    }
}

/// Serves a connection until it ends. `_permit` is held as long.
pub(super) async fn serve<P>(
    worker: Rc<Worker>,
    socket: Socket,
    local: (ListenerName, Rc<Bind>),
    peer: Peer,
    _permit: P,
) {
    let Some(client) = register(&worker, local, peer) else { return };
    let (key, client) = client;
    let entry = Registered { worker: worker.clone(), key, client: client.clone() };
    let io = TokioIo::new(ClientIo { stream: socket, client: client.clone(), linger: None });
    let header_bytes = worker.view().listener(&client.listener).map_or(32 << 10, |(_, l)| l.limits.header_bytes);
    let answer = |request| service::serve(worker.clone(), client.clone(), request);
    let connection = http1::Builder::new()
        .writev(false)
        .auto_date_header(false)
        .header_read_timeout(None)
        .max_header_size(header_bytes)
        .max_buf_size(header_bytes.max(MIN_BUFFER))
        .serve_connection(io, service_fn(answer));
    tokio::pin!(connection);
    let ended = std::future::poll_fn(|cx| {
        match client.order.get() {
            Some(Order::Abort) => return Poll::Ready(Ok(())),
            Some(Order::Finish) => connection.as_mut().graceful_shutdown(),
            Some(Order::Expire) | None => {}
        }
        client.task.borrow_mut().get_or_insert_with(|| cx.waker().clone());
        connection.as_mut().poll(cx)
    });
    if let Err(error) = ended.await {
        count(&client, &error);
    }
    drop(entry);
}

/// What hyper refused by itself, before we saw a request (amendments.md 2.9).
fn count(client: &Client, error: &hyper::Error) {
    if error.is_parse_too_large() {
        client.cell.refused(Refusal::HeaderTooLarge);
    } else if error.is_parse() {
        client.cell.refused(Refusal::BadRequest);
    }
}

struct Registered {
    worker: Rc<Worker>,
    key: usize,
    client: Rc<Client>,
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.client.cell.closed();
        self.worker.clients.borrow_mut().try_remove(self.key);
    }
}

fn register(
    worker: &Rc<Worker>,
    (listener, local): (ListenerName, Rc<Bind>),
    peer: Peer,
) -> Option<(usize, Rc<Client>)> {
    let cell = worker.cells.listener(worker.index, &listener);
    let client = Rc::new(Client {
        peer,
        address_text: forwarded_for(peer)?,
        listener,
        local,
        cell,
        clock: worker.clock.clone(),
        phase: Cell::new(Phase::Idle),
        since: Cell::new(worker.clock.now()),
        closing: Cell::new(None),
        order: Cell::new(None),
        task: RefCell::new(None),
    });
    client.cell.opened();
    Some((worker.clients.borrow_mut().insert(client.clone()), client))
}

fn forwarded_for(peer: Peer) -> Option<HeaderValue> {
    match peer.ip() {
        Some(ip) => ip.to_string().parse().ok(),
        None => Some(HeaderValue::from_static("unknown")),
    }
}

/// The client's socket; see the file's head.
struct ClientIo {
    stream: Socket,
    client: Rc<Client>,
    linger: Option<Pin<Box<Sleep>>>,
}

impl AsyncRead for ClientIo {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.client.order.get() == Some(Order::Expire) && self.client.phase() == Phase::Head {
            self.client.cell.refused(Refusal::ClientTimeout);
            // Best effort: a client that sends a byte a second reads its answer or does not.
            let _ = self.stream.try_write(REQUEST_TIMEOUT);
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        if buf.filled().len() > before && self.client.phase() == Phase::Idle {
            self.client.enter(Phase::Head);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ClientIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    /// Half-closes, then reads what the client still sends until it closes too or `LINGER` is over.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.linger.is_none() {
            ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
            self.linger = Some(Box::pin(tokio::time::sleep(LINGER)));
        }
        loop {
            let mut scratch = [std::mem::MaybeUninit::uninit(); 4096];
            let mut rest = ReadBuf::uninit(&mut scratch);
            match Pin::new(&mut self.stream).poll_read(cx, &mut rest) {
                Poll::Ready(Ok(())) if !rest.filled().is_empty() => {}
                Poll::Ready(_) => return Poll::Ready(Ok(())),
                Poll::Pending => break,
            }
        }
        let Some(linger) = &mut self.linger else { return Poll::Ready(Ok(())) };
        linger.as_mut().poll(cx).map(Ok)
    }
}
