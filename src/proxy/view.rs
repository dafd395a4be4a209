//! A worker's own reading of the snapshot: every name already looked up.
//!
//! Rebuilt only when the snapshot's pointer has changed. Why: the request path then touches no map, no label and no
//! shared count; what it needs is an index away. Invariants: decks are carried over while a split's coin is the same
//! (faults.md 4.3); connections are carried over while the endpoint is the same.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use http::HeaderValue;

use super::upload::RequestBody;
use super::worker::Worker;
use crate::balance::Turns;
use crate::config::{HostHeader, Listener, Rule};
use crate::model::{Address, ListenerName};
use crate::net::upstream::{Settings, Upstream};
use crate::pool::{Endpoint, Pool};
use crate::routing::{Deck, Shares};
use crate::state::{Snapshot, SplitState};
use crate::telemetry::{CodeCell, ListenerCell, VersionCell};
use crate::tls;

/// See the file's head. Indexes are those of the configuration.
pub(super) struct View {
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) splits: Vec<SplitView>,
    pub(super) routes: Vec<RouteView>,
    pub(super) listeners: Vec<Arc<ListenerCell>>,
}

pub(super) struct SplitView {
    pub(super) state: Arc<SplitState>,
    deck: Rc<RefCell<Deck>>,
    shares: Shares,
    pub(super) versions: Vec<VersionView>,
    /// `rule:NAME` of each rule.
    pub(super) rules: Vec<String>,
}

pub(super) struct VersionView {
    pub(super) cell: Arc<VersionCell>,
    pub(super) pool: Arc<Pool>,
    /// Rollback target and baseline.
    pub(super) is_stable: bool,
    /// Of this worker, by `balance = "round_robin"`.
    pub(super) turns: Rc<RefCell<Turns>>,
    /// For what each rule sends, which counts in no analysis; by the rule's index.
    pub(super) rule_cells: Vec<Arc<VersionCell>>,
    /// In the order of the pool's endpoints.
    pub(super) upstreams: Vec<Rc<Upstream<RequestBody>>>,
    /// The same for tunnels.
    pub(super) tunnels: Vec<Rc<Upstream<RequestBody>>>,
    /// What each endpoint gets as `Host`; empty: what the client sent.
    pub(super) hosts: Vec<HeaderValue>,
    /// `weir-version`, if it is to be shown.
    pub(super) shown_as: Option<HeaderValue>,
}

/// Empty for a route that is answered by us.
#[derive(Default)]
pub(super) struct RouteView {
    /// By version of the route's split.
    pub(super) requests: Vec<Arc<CodeCell>>,
    pub(super) responses: Option<Arc<CodeCell>>,
}

impl View {
    pub(super) fn new(worker: &Worker, snapshot: Arc<Snapshot>, old: Option<&View>) -> Self {
        let splits: Vec<_> = (0..snapshot.splits.len()).map(|i| SplitView::new(worker, &snapshot, i, old)).collect();
        let targets = snapshot.routes.targets().iter();
        let routes = targets.map(|t| {
            let Some(split) = t.split() else { return RouteView::default() };
            let split = &snapshot.splits[split];
            let request =
                |v: &crate::state::VersionState| worker.cells.requests(worker.index, &t.name, &split.name, &v.name);
            RouteView {
                requests: split.versions.iter().map(request).collect(),
                responses: Some(worker.cells.responses(worker.index, &t.name, &split.name)),
            }
        });
        let routes = routes.collect();
        let listeners = snapshot.config.listeners.iter();
        let listeners = listeners.map(|l| worker.cells.listener(worker.index, &l.name)).collect();
        Self { splits, routes, listeners, snapshot }
    }

    /// The listener's place and settings in this configuration, if it is still there.
    pub(super) fn listener(&self, name: &ListenerName) -> Option<(usize, &Listener)> {
        self.snapshot.config.listeners.iter().enumerate().find(|(_, l)| l.name == *name)
    }

    /// Access lines are written.
    pub(super) fn logs_access(&self) -> bool {
        self.snapshot.config.telemetry.log.access
    }
}

impl SplitView {
    fn new(worker: &Worker, snapshot: &Snapshot, index: usize, old: Option<&View>) -> Self {
        let (state, config) = (snapshot.splits[index].clone(), &snapshot.config.splits[index]);
        let same_coin = |s: &&SplitView| s.state.name == state.name && s.state.epoch == state.epoch;
        let was = old.and_then(|v| v.splits.iter().find(|s| s.state.name == state.name));
        let turns = |pool: &Arc<Pool>| {
            let same = was.and_then(|s| s.versions.iter().find(|v| Arc::ptr_eq(&v.pool, pool)));
            same.map(|v| v.turns.clone()).unwrap_or_default()
        };
        let deck = match was.filter(same_coin) {
            Some(old) => old.deck.clone(),
            None => Rc::new(RefCell::new(Deck::new(&mut worker.rng.borrow_mut()))),
        };
        let versions = state.versions.iter().enumerate().map(|(i, v)| {
            let cell = worker.cells.version(worker.index, &state.name, &v.name, state.epoch);
            // A rule that never chooses this version has no cell of its own for it.
            let rule_cell = |rule: &Rule| match rule.choice.has(i) {
                true => worker.cells.rule(worker.index, &state.name, &v.name, &rule.name),
                false => cell.clone(),
            };
            let members = || v.pool.endpoints().iter().zip(v.pool.hosts());
            let endpoints =
                || members().map(|(e, host)| (e, settings(worker, snapshot, (index, i), e, host.as_deref())));
            VersionView {
                rule_cells: config.rules.iter().map(rule_cell).collect(),
                cell,
                pool: v.pool.clone(),
                is_stable: v.name == state.stable,
                turns: turns(&v.pool),
                upstreams: endpoints().map(|(e, settings)| worker.upstream(e, settings)).collect(),
                tunnels: endpoints().map(|(e, settings)| worker.tunnels(e, settings)).collect(),
                hosts: match config.versions[i].host {
                    HostHeader::Client => Vec::new(),
                    HostHeader::Endpoint => members().map(|(e, host)| authority(e, host.as_deref())).collect(),
                },
                shown_as: config.expose_version.then(|| HeaderValue::from_str(v.name.as_str()).ok()).flatten(),
            }
        });
        let versions = versions.collect();
        let rules = config.rules.iter().map(|rule| format!("rule:{}", rule.name)).collect();
        Self { deck, shares: Shares::new(&state.coin.0), versions, rules, state }
    }

    /// The version the coin gives this request; `None` when none is open.
    pub(super) fn pick(&self, rng: &mut fastrand::Rng) -> Option<usize> {
        self.shares.pick(self.deck.borrow_mut().deal(rng))
    }
}

/// The endpoint's own name and port.
fn authority(endpoint: &Endpoint, host: Option<&str>) -> HeaderValue {
    let text = match (endpoint.address(), host) {
        (Address::Tcp(address), Some(host)) => format!("{}:{}", host.trim_end_matches('.'), address.port()),
        (address, _) => address.authority().into_owned(),
    };
    // Letters, digits and dots only, whichever it is.
    HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static("localhost"))
}

/// How an endpoint of version `i` of split `s` is spoken to; `host` is the name that led to it.
fn settings(
    worker: &Worker,
    snapshot: &Snapshot,
    (s, i): (usize, usize),
    endpoint: &Endpoint,
    host: Option<&str>,
) -> Settings {
    let split = &snapshot.config.splits[s];
    let version = &split.versions[i];
    let client = snapshot.upstream_tls.get(s).and_then(|versions| versions.get(i)).cloned().flatten();
    let name = version.tls.as_ref().and_then(|tls| tls::server_name(tls, endpoint.address(), host));
    Settings {
        idle_cap: split.pool.idle_per_endpoint.div_ceil(worker.of),
        idle_for: split.timeouts.idle,
        max_age: split.pool.max_age,
        protocol: version.protocol,
        tls: client.zip(name),
    }
}
