//! One data-plane thread: its view of the snapshot, its connections on both sides, its tick.
//!
//! Everything here is used by one thread only, hence cells and no locks. Invariant: no borrow is held across an await.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use arc_swap::cache::Cache;
use slab::Slab;

use super::body::RequestBody;
use super::client::{Client, Phase, Protocol};
use super::client_io::Transport;
use super::clock::Clock;
use super::connection::GRACE;
use super::flush::Flusher;
use super::http2::Runners;
use super::stall::Stalls;
use super::view::View;
use crate::model::Instant;
use crate::net::upstream::Upstream;
use crate::pool::Endpoint;
use crate::state::Snapshot;
use crate::telemetry::{AccessLog, Cells, Format};

/// How often a worker looks after itself: timeouts of clients and idle connections are exact to this.
pub(super) const TICK: Duration = Duration::from_millis(100);

type SnapshotCache = Cache<Arc<ArcSwap<Snapshot>>, Arc<Snapshot>>;
/// By the endpoint's address in memory, which it keeps for as long as it is in here.
type Upstreams = HashMap<*const Endpoint, (Arc<Endpoint>, Rc<Upstream<RequestBody>>)>;

/// See the file's head.
pub(super) struct Worker {
    pub(super) index: usize,
    /// How many workers there are.
    pub(super) of: usize,
    pub(super) cells: Arc<Cells>,
    pub(super) access: AccessLog,
    pub(super) rng: RefCell<fastrand::Rng>,
    pub(super) clock: Rc<Clock>,
    /// Writes out what this worker's connections have to say.
    pub(super) flusher: Rc<Flusher<Transport>>,
    pub(super) stalls: Rc<Stalls>,
    /// Serve HTTP/2 streams.
    pub(super) runners: Runners,
    snapshot: RefCell<SnapshotCache>,
    view: RefCell<Option<Rc<View>>>,
    upstreams: RefCell<Upstreams>,
    pub(super) clients: RefCell<Slab<Rc<Client>>>,
    /// Set when the process goes down: answers say `Connection: close`.
    closing: Cell<Option<Instant>>,
}

impl Worker {
    pub(super) fn new(
        index: usize,
        of: usize,
        shared: Arc<ArcSwap<Snapshot>>,
        cells: Arc<Cells>,
        access: AccessLog,
    ) -> Rc<Self> {
        let clock = Rc::new(Clock::new());
        let worker = Self {
            index,
            of,
            cells,
            access,
            rng: RefCell::new(fastrand::Rng::new()),
            flusher: Rc::default(),
            stalls: Stalls::new(clock.clone()),
            runners: Runners::default(),
            clock,
            snapshot: RefCell::new(Cache::new(shared)),
            view: RefCell::new(None),
            upstreams: RefCell::default(),
            clients: RefCell::default(),
            closing: Cell::new(None),
        };
        worker.view();
        Rc::new(worker)
    }

    /// What is in force now, in this worker's terms. Cheap while nothing has changed.
    pub(super) fn view(&self) -> Rc<View> {
        let mut cache = self.snapshot.borrow_mut();
        let snapshot = cache.load();
        if let Some(view) = self.view.borrow().as_ref()
            && Arc::ptr_eq(&view.snapshot, snapshot)
        {
            return view.clone();
        }
        let snapshot = snapshot.clone();
        drop(cache);
        let old = self.view.borrow().clone();
        let view = Rc::new(View::new(self, snapshot, old.as_deref()));
        let log = &view.snapshot.config.telemetry.log;
        self.access.configure(Format::resolve(log.format, &std::io::stdout()), log.sample);
        *self.view.borrow_mut() = Some(view.clone());
        view
    }

    /// This worker's connections to an endpoint.
    pub(super) fn upstream(
        &self,
        endpoint: &Arc<Endpoint>,
        idle_cap: usize,
        idle_for: Option<Duration>,
    ) -> Rc<Upstream<RequestBody>> {
        let mut upstreams = self.upstreams.borrow_mut();
        let new = || (endpoint.clone(), Rc::new(Upstream::new(endpoint.address(), idle_cap, idle_for)));
        let upstream = upstreams.entry(Arc::as_ptr(endpoint)).or_insert_with(new).1.clone();
        upstream.set_limits(idle_cap, idle_for);
        upstream
    }

    pub(super) fn wall_clock(&self, at: Instant) -> SystemTime {
        self.clock.wall(at)
    }

    pub(super) fn is_closing(&self) -> bool {
        self.closing.get().is_some()
    }

    /// The process goes down: from now on connections end with their next answer.
    pub(super) fn close(&self) {
        self.closing.set(Some(Instant::now()));
    }

    /// The same for the clients of one listener that has left the configuration.
    pub(super) fn close_listener(&self, address: SocketAddr) {
        let now = Instant::now();
        for (_, client) in self.clients.borrow().iter().filter(|(_, c)| c.local_port == address.port()) {
            client.close(now);
        }
    }

    /// Ends every client connection now; returns how many there were.
    pub(super) fn abort_clients(&self) -> usize {
        let clients: Vec<_> = self.clients.borrow().iter().map(|(_, c)| c.clone()).collect();
        clients.iter().for_each(|c| c.abort());
        clients.len()
    }

    /// Runs for ever; see `TICK`.
    pub(super) async fn ticks(self: Rc<Self>) {
        let mut interval = tokio::time::interval(TICK);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            interval.tick().await;
            self.tick();
        }
    }

    fn tick(&self) {
        self.clock.tick();
        let view = self.view();
        self.tidy_clients(&view);
        self.stalls.look();
        self.tidy_upstreams();
        self.access.flush();
    }

    fn tidy_clients(&self, view: &View) {
        let now = self.clock.now();
        let over = |since: Instant, limit: Option<Duration>| limit.is_some_and(|l| now.duration_since(since) >= l);
        for (_, client) in self.clients.borrow().iter() {
            let closing = client.closing().or(self.closing.get());
            if client.protocol.get() == Some(Protocol::Http2) {
                tidy_http2(client, now, closing.is_some(), view);
                continue;
            }
            match client.phase() {
                Phase::Busy => {}
                Phase::Idle if closing.is_some_and(|at| now.duration_since(at) >= GRACE) => client.finish(),
                phase => {
                    let Some((_, listener)) = view.listener(&client.listener) else { continue };
                    match phase {
                        Phase::Idle if over(client.since(), listener.timeouts.idle) => client.finish(),
                        Phase::Head if over(client.since(), listener.timeouts.header) => client.expire(),
                        _ => {}
                    }
                }
            }
        }
    }

    fn tidy_upstreams(&self) {
        let now = self.clock.now();
        // Held by nobody but this map: the endpoint has left the view and its last exchange is over.
        self.upstreams.borrow_mut().retain(|_, (endpoint, upstream)| {
            if endpoint.is_cut() {
                upstream.cut();
            }
            upstream.tidy(now, endpoint.is_draining());
            Rc::strong_count(upstream) > 1
        });
    }
}

/// An HTTP/2 client is told at once to go, even amid its requests: what it has begun is finished, and no request is lost
/// (RFC 9113 section 6.8).
fn tidy_http2(client: &Client, now: Instant, is_closing: bool, view: &View) {
    if is_closing && client.order().is_none() {
        client.finish();
    }
    let Some((_, listener)) = view.listener(&client.listener) else { return };
    let timeouts = &listener.timeouts;
    let over = |since: Instant, limit: Option<Duration>| limit.is_some_and(|l| now.duration_since(since) >= l);
    let head = (client.phase() == Phase::Head).then(|| client.since()).or(client.block_since.get());
    if client.blocked.get().is_some_and(|since| over(since, timeouts.body)) {
        client.abort();
    } else if head.is_some_and(|since| over(since, timeouts.header)) {
        client.expire();
    } else if client.phase() == Phase::Idle && over(client.since(), timeouts.idle) && client.order().is_none() {
        client.finish();
    }
}
