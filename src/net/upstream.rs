//! One worker's connections to one endpoint.
//!
//! Why own code and not the pooled client of hyper-util: that one locks, wakes and boxes on every request. Here
//! everything lives on one thread. Invariants: a connection is given back only when its answer was read to the end and
//! nothing odd happened; a lease that is dropped early ends its connection at once, so that the origin hears of it; at
//! most `idle_cap` connections wait, the newest is used first, so that surplus ones age and go.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::time::Duration;

use hyper::body::{Body, Incoming};
use hyper::client::conn::TrySendError;
use hyper::client::conn::http1::{Builder, Connection, SendRequest};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use slab::Slab;
use tokio::net::TcpStream;
use tokio::task::AbortHandle;

use crate::model::Instant;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    #[error("connect: {0}")]
    Connect(#[source] io::Error),
    #[error("connect: no answer in time")]
    Timeout,
    #[error("handshake: {0}")]
    Handshake(#[source] hyper::Error),
}

impl DialError {
    /// Whether we, not the endpoint, are at fault: no descriptors or ports left.
    pub fn is_local(&self) -> bool {
        let local = |e: &io::Error| matches!(e.raw_os_error(), Some(LIMIT_PROCESS | LIMIT_SYSTEM | NO_PORT));
        matches!(self, Self::Connect(e) if local(e))
    }
}

// EMFILE, ENFILE and EADDRNOTAVAIL on Linux.
const LIMIT_PROCESS: i32 = 24;
const LIMIT_SYSTEM: i32 = 23;
const NO_PORT: i32 = 99;

#[derive(Debug)]
struct Idle<B> {
    sender: SendRequest<B>,
    task: AbortHandle,
    /// From the first tick that finds it here: close enough, and no clock is read per request.
    since: Option<Instant>,
}

/// See the file's head.
#[derive(Debug)]
pub struct Upstream<B> {
    address: SocketAddr,
    idle: RefCell<Vec<Idle<B>>>,
    live: RefCell<Slab<AbortHandle>>,
    idle_cap: Cell<usize>,
    idle_for: Cell<Option<Duration>>,
}

/// A connection in use by one exchange.
#[derive(Debug)]
pub struct Lease<B> {
    upstream: Rc<Upstream<B>>,
    /// Taken when the connection goes back.
    sender: Option<SendRequest<B>>,
    /// Ends the connection.
    task: AbortHandle,
    /// It has carried a request before, so the endpoint may have closed it in the meantime.
    pub reused: bool,
}

impl<B: Body<Data: Send, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + 'static> Upstream<B> {
    /// No connection yet. `idle_cap` is this worker's part of `pool.idle_per_endpoint`.
    pub fn new(address: SocketAddr, idle_cap: usize, idle_for: Option<Duration>) -> Self {
        Self {
            address,
            idle: RefCell::new(Vec::new()),
            live: RefCell::new(Slab::new()),
            idle_cap: Cell::new(idle_cap),
            idle_for: Cell::new(idle_for),
        }
    }

    /// Takes over the limits of a new configuration.
    pub fn set_limits(&self, idle_cap: usize, idle_for: Option<Duration>) {
        self.idle_cap.set(idle_cap);
        self.idle_for.set(idle_for);
    }

    /// The most recently used idle connection that is still open.
    pub fn checkout(self: &Rc<Self>) -> Option<Lease<B>> {
        let mut idle = self.idle.borrow_mut();
        while let Some(Idle { sender, task, .. }) = idle.pop() {
            if sender.is_ready() {
                return Some(Lease { upstream: self.clone(), sender: Some(sender), task, reused: true });
            }
        }
        None
    }

    /// Opens a new connection. Cancel safe.
    ///
    /// # Errors
    /// `DialError` when none can be had within `limit`.
    pub async fn dial(self: &Rc<Self>, limit: Option<Duration>) -> Result<Lease<B>, DialError> {
        let connect = TcpStream::connect(self.address);
        let stream = match limit {
            Some(limit) => tokio::time::timeout(limit, connect).await.map_err(|_| DialError::Timeout)?,
            None => connect.await,
        }
        .map_err(DialError::Connect)?;
        stream.set_nodelay(true).map_err(DialError::Connect)?;
        let handshake = Builder::new().writev(false).handshake(TokioIo::new(stream)).await;
        let (sender, connection) = handshake.map_err(DialError::Handshake)?;
        let task = self.spawn(connection);
        Ok(Lease { upstream: self.clone(), sender: Some(sender), task, reused: false })
    }

    fn spawn(self: &Rc<Self>, connection: Connection<TokioIo<TcpStream>, B>) -> AbortHandle {
        let mut live = self.live.borrow_mut();
        let entry = live.vacant_entry();
        let (key, upstream) = (entry.key(), Rc::downgrade(self));
        let guard = Live { upstream, key };
        let task = tokio::task::spawn_local(async move {
            // Its error reaches whoever waits for the answer; an idle one that ends concerns nobody.
            let _guard = guard;
            let _ = connection.await;
        });
        entry.insert(task.abort_handle());
        task.abort_handle()
    }

    fn put_idle(&self, sender: SendRequest<B>, task: AbortHandle) {
        let mut idle = self.idle.borrow_mut();
        if idle.len() < self.idle_cap.get() {
            idle.push(Idle { sender, task, since: None });
        }
    }

    /// Ends every connection, whatever it is doing.
    pub fn cut(&self) {
        let live: Vec<_> = self.live.borrow_mut().drain().collect();
        live.into_iter().for_each(|task| task.abort());
    }

    /// Closes idle connections that are too old, or all of them if the endpoint drains. Called by the worker's tick.
    pub fn tidy(&self, now: Instant, draining: bool) {
        let limit = self.idle_for.get();
        let old = |i: &mut Idle<B>| {
            let idle_for = now - *i.since.get_or_insert(now);
            draining || i.sender.is_closed() || limit.is_some_and(|l| idle_for >= l)
        };
        let gone: Vec<_> = self.idle.borrow_mut().extract_if(.., old).collect();
        drop(gone);
    }
}

impl<B: Body<Data: Send, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + 'static> Lease<B> {
    /// Sends a request; the future is the head of its answer. When nothing of it was written, the error brings the
    /// request back. Dropping the lease ends the connection, so an answer that is not waited for is never read as the
    /// next one's. (Not an async function: that would copy the request twice more.)
    pub fn send(
        &mut self,
        request: Request<B>,
    ) -> impl Future<Output = Result<Response<Incoming>, TrySendError<Request<B>>>> + use<B> {
        // Only `give_back` takes the sender, and it takes the lease with it.
        self.sender.as_mut().expect("a lease has its sender until it is given back").try_send_request(request)
    }

    /// The answer was read to its end: the connection may serve again.
    pub fn give_back(mut self) {
        let Some(mut sender) = self.sender.take() else { return };
        let (upstream, task) = (self.upstream.clone(), self.task.clone());
        if sender.is_ready() {
            return upstream.put_idle(sender, task);
        }
        if !sender.is_closed() {
            // The connection task has the end of the answer in hand and needs one more turn, or is still sending the
            // rest of an upload that the endpoint answered early; the latter must not wait for ever.
            tokio::task::spawn_local(async move {
                match tokio::time::timeout(LINGER, sender.ready()).await {
                    Ok(Ok(())) => upstream.put_idle(sender, task),
                    _ => task.abort(),
                }
            });
        }
    }
}

/// How long an upload may go on after its early answer (faults.md 3.2).
const LINGER: Duration = Duration::from_secs(1);

impl<B> Drop for Lease<B> {
    fn drop(&mut self) {
        if self.sender.take().is_some() {
            self.task.abort();
        }
    }
}

/// A connection's place in `Upstream::live`, given up when its task ends or is aborted.
struct Live<B> {
    upstream: Weak<Upstream<B>>,
    key: usize,
}

impl<B> Drop for Live<B> {
    fn drop(&mut self) {
        if let Some(upstream) = self.upstream.upgrade() {
            // While `cut` is at work, it holds the slab and has emptied it already.
            if let Ok(mut live) = upstream.live.try_borrow_mut() {
                live.try_remove(self.key);
            }
        }
    }
}
