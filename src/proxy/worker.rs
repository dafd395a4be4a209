//! One data-plane thread: its view of the snapshot, its connections on both sides, its tick.
//!
//! Everything here is used by one thread only, hence cells and no locks. Invariant: no borrow is held across an await.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use arc_swap::cache::Cache;
use slab::Slab;
use tokio::sync::Notify;

use super::client::{Client, Phase, Protocol};
use super::client_io::Transport;
use super::clock::Clock;
use super::connection::GRACE;
use super::flush::Flusher;
use super::http2::Runners;
use super::leaving::{Closing, Tunnels};
use super::room::{Means, Pressure};
use super::stall::Stalls;
use super::upload::RequestBody;
use super::view::View;
use crate::config::{self, Bind};
use crate::model::{Instant, Kind};
use crate::net::upstream::{Settings, Upstream};
use crate::pool::{Counts, Endpoint};
use crate::state::Snapshot;
use crate::telemetry::{AccessLog, Cells, Format};

/// How often a worker looks after itself: timeouts of clients and idle connections are exact to this.
pub(super) const TICK: Duration = Duration::from_millis(100);

type SnapshotCache = Cache<Arc<ArcSwap<Snapshot>>, Arc<Snapshot>>;
/// By the endpoint's address in memory, which it keeps for as long as it is in here, and whether it is for tunnels.
type Upstreams = HashMap<(*const Endpoint, bool), (Arc<Endpoint>, Rc<Upstream<RequestBody>>)>;

/// What all workers have in common.
pub(super) struct Shared {
    pub(super) snapshot: Arc<ArcSwap<Snapshot>>,
    pub(super) swapped: Arc<Notify>,
    pub(super) cells: Arc<Cells>,
    pub(super) pressure: Arc<Pressure>,
}

/// See the file's head.
pub(super) struct Worker {
    pub(super) index: usize,
    /// How many workers there are.
    pub(super) of: usize,
    pub(super) cells: Arc<Cells>,
    pub(super) pressure: Arc<Pressure>,
    pub(super) means: Means,
    /// Woken when there is a new snapshot, for those who wait for one.
    pub(super) swapped: Arc<Notify>,
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
    /// Connections that have not said yet whose they are; see `arrival`.
    pub(super) arriving: Cell<usize>,
    pub(super) tunnels: Rc<Tunnels>,
    /// Listeners that are gone and still have connections.
    gone: RefCell<Vec<(Rc<Bind>, Duration)>>,
    /// Set when the process goes down: answers say `Connection: close`.
    closing: Cell<Option<Closing>>,
    /// What the end of the process has cut.
    cut: Cell<Counts>,
}

impl Worker {
    pub(super) fn new(index: usize, of: usize, shared: Shared, access: AccessLog) -> Rc<Self> {
        let clock = Rc::new(Clock::new());
        let worker = Self {
            index,
            of,
            cells: shared.cells,
            pressure: shared.pressure,
            means: Means::default(),
            swapped: shared.swapped,
            access,
            rng: RefCell::new(fastrand::Rng::new()),
            flusher: Rc::default(),
            stalls: Stalls::new(clock.clone()),
            runners: Runners::default(),
            clock,
            snapshot: RefCell::new(Cache::new(shared.snapshot)),
            view: RefCell::new(None),
            upstreams: RefCell::default(),
            clients: RefCell::default(),
            arriving: Cell::new(0),
            tunnels: Rc::default(),
            gone: RefCell::default(),
            closing: Cell::new(None),
            cut: Cell::default(),
        };
        worker.view();
        worker.means.renew();
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
    pub(super) fn upstream(&self, endpoint: &Arc<Endpoint>, settings: Settings) -> Rc<Upstream<RequestBody>> {
        self.connections(endpoint, settings, false)
    }

    /// Those for tunnels: where TLS lets the endpoint choose, connections of their own, which prefer HTTP/1.1.
    pub(super) fn tunnels(&self, endpoint: &Arc<Endpoint>, settings: Settings) -> Rc<Upstream<RequestBody>> {
        let may_choose = settings.protocol == config::Protocol::Auto && settings.tls.is_some();
        self.connections(endpoint, settings, may_choose)
    }

    fn connections(
        &self,
        endpoint: &Arc<Endpoint>,
        settings: Settings,
        for_tunnels: bool,
    ) -> Rc<Upstream<RequestBody>> {
        let mut upstreams = self.upstreams.borrow_mut();
        match upstreams.entry((Arc::as_ptr(endpoint), for_tunnels)) {
            Entry::Occupied(entry) => {
                entry.get().1.configure(settings);
                entry.get().1.clone()
            }
            Entry::Vacant(entry) => {
                let new = if for_tunnels { Upstream::for_tunnels } else { Upstream::new };
                let new = Rc::new(new(endpoint.address().clone(), settings));
                entry.insert((endpoint.clone(), new)).1.clone()
            }
        }
    }

    /// All that there are now.
    pub(super) fn upstreams(&self) -> Vec<Rc<Upstream<RequestBody>>> {
        self.upstreams.borrow().values().map(|(_, upstream)| upstream.clone()).collect()
    }

    pub(super) fn wall_clock(&self, at: Instant) -> SystemTime {
        self.clock.wall(at)
    }

    pub(super) fn is_closing(&self) -> bool {
        self.closing.get().is_some()
    }

    /// The process goes down: from now on connections end with their next answer. Tunnels end in time for what was asked
    /// for at `begun` to be over at `over`.
    pub(super) fn close(&self, begun: Instant, over: Instant) {
        self.closing.set(Some(Closing { since: Instant::now(), begun, over }));
    }

    /// The same for the clients of one listener that has left the configuration. What they have begun has as long as the
    /// most patient split gives.
    pub(super) fn close_listener(&self, address: &Rc<Bind>) {
        let (now, view) = (Instant::now(), self.view());
        let limits = view.snapshot.config.splits.iter().map(|split| split.drain.timeout);
        let limit = limits.max().unwrap_or_else(|| config::Drain::default().timeout);
        for (_, client) in self.clients.borrow().iter().filter(|(_, c)| Rc::ptr_eq(&c.local, address)) {
            client.close(now, limit);
        }
        let mut gone = self.gone.borrow_mut();
        gone.retain(|(address, _)| Rc::strong_count(address) > 1);
        gone.push((address.clone(), limit));
    }

    /// For one that was still in the queue of a listener that has gone: what `close_listener` gave to the others.
    pub(super) fn limit_if_gone(&self, address: &Rc<Bind>) -> Option<Duration> {
        self.gone.borrow().iter().find(|(gone, _)| Rc::ptr_eq(gone, address)).map(|(_, limit)| *limit)
    }

    /// Ends every client connection now; returns how many there were.
    pub(super) fn abort_clients(&self) -> usize {
        let clients: Vec<_> = self.clients.borrow().iter().map(|(_, c)| c.clone()).collect();
        clients.iter().for_each(|c| c.cut());
        clients.len()
    }

    /// Counted only once the process goes down.
    pub(super) fn note_cut(&self, kind: Kind) {
        if self.is_closing() {
            let mut cut = self.cut.get();
            cut.add(Counts::one(kind));
            self.cut.set(cut);
        }
    }

    /// What the end of the process has cut so far.
    pub(super) fn cut(&self) -> Counts {
        self.cut.get()
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
        self.means.renew();
        if self.index == 0 {
            self.pressure.tell_over(self.clock.now());
        }
        let view = self.view();
        self.stalls.look();
        self.tunnels.look(self.clock.now(), self.closing.get());
        self.tidy_clients(&view);
        self.tidy_upstreams();
        self.access.flush();
    }

    fn tidy_clients(&self, view: &View) {
        let now = self.clock.now();
        let over = |since: Instant, limit: Option<Duration>| limit.is_some_and(|l| now.duration_since(since) >= l);
        for (_, client) in self.clients.borrow().iter() {
            let closing = client.closing().or(self.closing.get().map(|closing| closing.since));
            if client.is_overdue(now) && client.phase() != Phase::Idle {
                client.cut();
                continue;
            }
            if client.protocol.get() == Some(Protocol::Http2) {
                tidy_http2(client, now, closing.is_some(), view);
                continue;
            }
            match client.phase() {
                Phase::Busy => {
                    let Some(since) = client.blocked.get() else { continue };
                    let body = view.listener(&client.listener).and_then(|(_, l)| l.timeouts.body);
                    if over(since, body) {
                        client.abort();
                    }
                }
                // One that was busy until now has had no chance to say that it would be the last.
                Phase::Idle if closing.is_some_and(|at| over(at.max(client.since()), Some(GRACE))) => client.finish(),
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
            if endpoint.is_over(Kind::Request, now) {
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
