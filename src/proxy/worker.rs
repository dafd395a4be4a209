//! One data-plane thread: its view of the snapshot, its connections on both sides, its tick.
//!
//! Everything here is used by one thread only, hence cells and no locks. Invariant: no borrow is held across an await.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use arc_swap::cache::Cache;
use slab::Slab;

use super::body::RequestBody;
use super::client::{Client, Phase};
use super::clock::Clock;
use super::connection::GRACE;
use super::view::View;
use crate::model::Instant;
use crate::net::upstream::{Settings, Upstream};
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
        let worker = Self {
            index,
            of,
            cells,
            access,
            rng: RefCell::new(fastrand::Rng::new()),
            clock: Rc::new(Clock::new()),
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
    pub(super) fn upstream(&self, endpoint: &Arc<Endpoint>, settings: Settings) -> Rc<Upstream<RequestBody>> {
        let mut upstreams = self.upstreams.borrow_mut();
        match upstreams.entry(Arc::as_ptr(endpoint)) {
            Entry::Occupied(entry) => {
                entry.get().1.configure(settings);
                entry.get().1.clone()
            }
            Entry::Vacant(entry) => {
                let new = Rc::new(Upstream::new(endpoint.address(), settings));
                entry.insert((endpoint.clone(), new)).1.clone()
            }
        }
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
        self.tidy_upstreams();
        self.access.flush();
    }

    fn tidy_clients(&self, view: &View) {
        let now = self.clock.now();
        let over = |since: Instant, limit: Option<Duration>| limit.is_some_and(|l| now.duration_since(since) >= l);
        for (_, client) in self.clients.borrow().iter() {
            let closing = client.closing().or(self.closing.get());
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
