//! One worker's connections to one endpoint, over HTTP/1.1 and HTTP/2, in cleartext and TLS.
//!
//! Why own code and not the pooled client of hyper-util: that one locks, wakes and boxes on every request. Here
//! everything lives on one thread. Invariants: a connection is given back only when its answer was read to the end and
//! nothing odd happened; a lease that is dropped early ends its connection (HTTP/2: its stream) at once, so that the
//! origin hears of it; at most `idle_cap` HTTP/1.1 connections wait, the newest is used first, so that surplus ones age
//! and go; HTTP/2 connections are filled one after the other; what was made with other settings serves no new request.

mod dial;
mod error;
mod http1;
mod http2;
mod http2_answer;
mod http2_request;
mod http2_stream;
mod interim;
mod lease;
mod setup;
#[cfg(test)]
mod tests;
mod tunnel;

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::body::Body;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use slab::Slab;
use tokio::task::AbortHandle;

pub use self::dial::{Speaks, Stream};
pub use self::error::{DialError, SendError, SendFault};
pub use self::lease::Lease;
pub use self::tunnel::Tunnel;

use self::http1::Http1;
use self::http2::{Open, Shared};
use self::setup::Setup;
use crate::config::Protocol;
use crate::model::{Address, Instant};

/// Bytes of an answer's head, of each interim one and of its trailers (HTTP/2: as RFC 9113 section 6.5.2 counts).
pub const HEAD_LIMIT: usize = 64 * 1024;
/// What one exchange can make its connection keep: hyper's two buffers of at most 8192 + 100 * 4096 bytes over HTTP/1.1;
/// over HTTP/2 less (a stream's window each way).
pub const EXCHANGE_BYTES: usize = 2 * (8192 + 100 * 4096);
/// Interim answers to one request (faults.md 3.2).
const INTERIM_LIMIT: usize = 10;

/// A request's body as both protocols need it.
pub trait SendBody: Body<Data = Bytes, Error: std::error::Error + Send + Sync + 'static> + Unpin + 'static {}

impl<B: Body<Data = Bytes, Error: std::error::Error + Send + Sync + 'static> + Unpin + 'static> SendBody for B {}

/// How an endpoint is spoken to.
#[derive(Clone, Debug)]
pub struct Settings {
    /// HTTP/1.1 connections that may wait: this worker's part of `pool.idle_per_endpoint`.
    pub idle_cap: usize,
    /// Life of a connection that is not used; `None` = no limit.
    pub idle_for: Option<Duration>,
    /// Age at which a connection takes no new request; each has a little less, by chance, so that they do not all end
    /// together. `None` = no limit.
    pub max_age: Option<Duration>,
    pub protocol: Protocol,
    /// TLS and the name that the certificate must have. Its ALPN is set here, by `protocol`.
    pub tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
}

impl Settings {
    /// Connections made with either are as good.
    pub fn connects_like(&self, other: &Self) -> bool {
        let same_tls = match (&self.tls, &other.tls) {
            (None, None) => true,
            (Some((a, name_a)), Some((b, name_b))) => Arc::ptr_eq(a, b) && name_a == name_b,
            _ => false,
        };
        same_tls && self.protocol == other.protocol
    }
}

#[derive(Debug)]
struct Idle<B> {
    connection: Http1<B>,
    /// From the first tick that finds it here: close enough, and no clock is read per request.
    since: Option<Instant>,
}

/// See the file's head.
#[derive(Debug)]
pub struct Upstream<B> {
    address: Address,
    /// HTTP/1.1 is preferred where TLS lets the endpoint choose.
    for_tunnels: bool,
    /// As given, and as used for dialling: with ALPN.
    settings: RefCell<(Settings, Settings)>,
    idle_cap: Cell<usize>,
    /// Rises when connections made until then are of no use.
    generation: Cell<u32>,
    idle: RefCell<Vec<Idle<B>>>,
    shared: Shared,
    setup: Setup,
    live: RefCell<Slab<Alive>>,
}

/// What `cut` ends.
#[derive(Debug)]
enum Alive {
    /// Carries one exchange and nothing else.
    Http1(AbortHandle),
    /// Its tunnels are spared.
    Http2(Rc<Open>),
}

impl<B: SendBody> Upstream<B> {
    /// No connection yet.
    pub fn new(address: impl Into<Address>, settings: Settings) -> Self {
        Self {
            address: address.into(),
            for_tunnels: false,
            idle_cap: Cell::new(settings.idle_cap),
            settings: RefCell::new((settings.clone(), with_alpn(settings))),
            generation: Cell::new(0),
            idle: RefCell::default(),
            shared: Shared::default(),
            setup: Setup::default(),
            live: RefCell::default(),
        }
    }

    /// The same for WebSockets. Few servers open tunnels in HTTP/2, so that where TLS lets the endpoint choose it is asked
    /// for HTTP/1.1 alone, and for HTTP/2 only if it will not have that.
    pub fn for_tunnels(address: impl Into<Address>, settings: Settings) -> Self {
        Self { for_tunnels: true, ..Self::new(address, settings) }
    }

    /// Takes over a new configuration. If it connects otherwise, no new request uses a connection made until now.
    pub fn configure(&self, settings: Settings) {
        self.idle_cap.set(settings.idle_cap);
        let mut known = self.settings.borrow_mut();
        if known.0.connects_like(&settings) {
            known.1.idle_for = settings.idle_for;
            known.1.max_age = settings.max_age;
            known.0 = settings;
            return;
        }
        *known = (settings.clone(), with_alpn(settings));
        drop(known);
        self.generation.set(self.generation.get().wrapping_add(1));
        self.setup.forget();
        self.idle.take();
        self.shared.retire_all();
    }

    /// The most recently used idle connection that is still open, or a place on an HTTP/2 connection that has one.
    pub fn checkout(self: &Rc<Self>) -> Option<Lease<B>> {
        let idle = || {
            let mut idle = self.idle.borrow_mut();
            std::iter::from_fn(|| idle.pop()).map(|idle| idle.connection).find(Http1::is_ready)
        };
        if let Some(connection) = idle() {
            return Some(Lease::http1(self, connection, true));
        }
        self.shared.slot().map(|slot| Lease::http2(self, slot, true))
    }

    /// Connects, or shares the HTTP/2 connection that somebody else is just setting up. Cancel safe.
    ///
    /// # Errors
    /// `DialError` when none can be had within `limit`, TLS handshake included.
    pub async fn dial(self: &Rc<Self>, limit: Option<Duration>) -> Result<Lease<B>, DialError> {
        let dial = setup::dial(self);
        match limit {
            Some(limit) => tokio::time::timeout(limit, dial).await.unwrap_or(Err(DialError::Timeout)),
            None => dial.await,
        }
    }

    /// Ends every exchange, whatever it is doing; tunnels go on, those too that share a connection with exchanges.
    pub fn cut(&self) {
        for (_, alive) in self.live.borrow().iter() {
            match alive {
                Alive::Http1(task) => task.abort(),
                Alive::Http2(open) => open.cut(),
            }
        }
    }

    /// Closes idle connections that are too old, or all of them if the endpoint drains. Called by the worker's tick.
    pub fn tidy(&self, now: Instant, draining: bool) {
        let limit = self.settings.borrow().0.idle_for;
        let old = |i: &mut Idle<B>| {
            let idle_for = now - *i.since.get_or_insert(now);
            draining || i.connection.is_closed() || i.connection.is_old(now) || limit.is_some_and(|l| idle_for >= l)
        };
        let gone: Vec<_> = self.idle.borrow_mut().extract_if(.., old).collect();
        drop(gone);
        self.shared.tidy(now, limit, draining);
    }

    /// Closes up to `most` of the connections that are idle, those longest without use first; says how many. (Over HTTP/2
    /// there are too few to matter.)
    pub fn shed(&self, most: usize) -> usize {
        let mut idle = self.idle.borrow_mut();
        let most = most.min(idle.len());
        let gone: Vec<_> = idle.drain(..most).collect();
        drop(idle);
        gone.len()
    }

    fn put_idle(&self, connection: Http1<B>) {
        let mut idle = self.idle.borrow_mut();
        let is_wanted = idle.len() < self.idle_cap.get() && connection.generation == self.generation.get();
        // The clock is read only where there is a limit.
        if is_wanted && !(connection.ends.is_some() && connection.is_old(Instant::now())) {
            idle.push(Idle { connection, since: None });
        }
    }

    /// Runs a connection; `open` are its streams if it speaks HTTP/2.
    fn spawn(self: &Rc<Self>, connection: impl Future<Output = ()> + 'static, open: Option<Rc<Open>>) -> AbortHandle {
        let mut live = self.live.borrow_mut();
        let entry = live.vacant_entry();
        let guard = Live { upstream: Rc::downgrade(self), key: entry.key() };
        let task = tokio::task::spawn_local(async move {
            let _guard = guard;
            connection.await;
        });
        let handle = task.abort_handle();
        entry.insert(open.map_or(Alive::Http1(handle.clone()), Alive::Http2));
        handle
    }
}

/// A connection that belongs to no worker, for a check; and what is spoken on it. Cancel safe.
///
/// # Errors
/// `DialError::Connect` and `DialError::Tls`.
pub async fn connect(address: &Address, settings: Settings) -> Result<(Stream, Speaks), DialError> {
    dial::connect(address, with_alpn(settings)).await
}

/// When a connection made now takes no new request any more: after nine tenths of its time or a little later.
fn ends(max_age: Option<Duration>) -> Option<Instant> {
    Instant::now().checked_add(max_age?.mul_f64(0.9 + 0.1 * fastrand::f64()))
}

fn with_alpn(mut settings: Settings) -> Settings {
    if let Some((tls, _)) = &mut settings.tls {
        *tls = dial::offering(tls, settings.protocol);
    }
    settings
}

/// A place in `Upstream::live`, given up when its task ends or is aborted.
struct Live<B> {
    upstream: Weak<Upstream<B>>,
    key: usize,
}

impl<B> Drop for Live<B> {
    fn drop(&mut self) {
        let Some(upstream) = self.upstream.upgrade() else { return };
        // A runtime that ends may drop the task amid `cut`.
        let _ = upstream.live.try_borrow_mut().map(|mut live| live.try_remove(self.key));
    }
}
