//! The control thread: runs the tasks of a complete `World`, and takes it down in order.
//!
//! Invariant: at the end the order is readiness, delay, listeners, requests, admin, state, log; nothing accepted is
//! dropped before its deadline.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::task::{JoinSet, spawn_blocking};

use super::asked::{Asked, End};
use super::context::context;
use super::fare::Fare;
use super::gauges::{Rollbacks, Seen, gauges, tell_expiring};
use super::going::{Going, leave_until};
use super::ready_line::addresses;
use super::start::{World, events_format, world};
use super::upgrade::{ReportNow, Upgrades, remember, report};
use super::{Addresses, Options, StartError, rollouts};
use crate::admin;
use crate::cli::Exit;
use crate::config::Config;
use crate::dns::{self, Statuses};
use crate::health;
use crate::lifecycle::{Blocker, Notifier, Phase, Signals};
use crate::model::{Address, Instant};
use crate::net::listen::Prepared;
use crate::proxy::{Cut, DataPlane};
use crate::reload;
use crate::state::Store;
use crate::telemetry::{Flusher, events};
use crate::tls::ExpiryWatch;
use crate::upgrade::{self, Elsewhere, Heir, Inheritance, Predecessor};

/// How often counts become metrics and leaving endpoints are looked after.
const FLUSH: Duration = Duration::from_secs(1);
/// What the last lines of the access log and the workers' threads may take at the end.
const LAST: Duration = Duration::from_secs(1);

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Everything was finished.
    Drained,
    /// What was left at the deadline, and tunnels that were told to close before it.
    Cut(Cut),
    /// On a second signal, or QUIT: at once.
    Forced,
    /// The control thread died, or a part of the data plane.
    Failed,
}

impl Ended {
    /// As the log has it.
    fn word(self) -> &'static str {
        match self {
            Self::Drained => "drained",
            Self::Cut(_) => "cut",
            Self::Forced => "forced",
            Self::Failed => "failed",
        }
    }

    /// The last event of the process; `saved`: all state is on disk.
    fn tell(self, saved: bool) {
        let Cut { connections, exchanges } = if let Self::Cut(cut) = self { cut } else { Cut::default() };
        tracing::info!(
            event = "shutdown",
            phase = "ended",
            how = self.word(),
            saved,
            connections_cut = connections,
            requests_cut = exchanges.requests,
            streams_cut = exchanges.streams,
            upgrades_cut = exchanges.upgrades
        );
    }

    /// A drain ends with 0 even if its deadline cut something: that is what the operator asked for.
    pub fn exit(self) -> Exit {
        if self == Self::Failed { Exit::Failed } else { Exit::Done }
    }
}

type Ready = std::sync::mpsc::Sender<Result<Addresses, StartError>>;

/// The control thread from start to end.
pub(super) fn run(options: &Options, ready: &Ready, stopped: oneshot::Receiver<()>) -> Ended {
    let begun = Instant::now();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(16).build() {
        Ok(runtime) => runtime,
        Err(error) => {
            let _ = ready.send(Err(StartError::new(Exit::Failed, format!("error: no runtime: {error}"))));
            return Ended::Failed;
        }
    };
    let ended = runtime.block_on(async {
        match started(options) {
            Ok(started) => {
                go_first();
                serve(started, begun, ready, stopped).await
            }
            Err(error) => {
                let _ = ready.send(Err(error));
                Ended::Failed
            }
        }
    });
    // A task that blocks in the kernel (a sick disk) must not keep the process.
    runtime.shutdown_timeout(Duration::from_secs(1));
    ended
}

/// Asks the system to run this thread, and those it starts from here on, before the workers (which run already): a
/// rollback must be answered while they use every core. Without the right to ask (CAP_SYS_NICE, or RLIMIT_NICE) it
/// stays as it is.
fn go_first() {
    const NICE: i32 = -10;
    // On Linux this is the priority of the calling thread alone.
    let _ = rustix::process::setpriority_process(None, NICE);
}

/// A process that accepts.
struct Started {
    world: World,
    signals: Option<Signals>,
    predecessor: Option<Predecessor>,
    elsewhere: Elsewhere,
}

/// Signals first: one that comes while we start must not kill us half-way.
fn started(options: &Options) -> Result<Started, StartError> {
    let failed = |what: &str, e: io::Error| StartError::new(Exit::Failed, format!("error: {what}: {e}"));
    let signals = options.signals.then(Signals::install).transpose();
    let signals = signals.map_err(|e| failed("no signal handlers", e))?;
    let inheritance = if options.signals { upgrade::inherit() } else { Ok(None) };
    let Some(Inheritance { parcel, heir }) = inheritance.map_err(|e| failed("the hand-over failed", e))? else {
        let mut world = world(options, None)?;
        world.open();
        return Ok(Started { world, signals, predecessor: None, elsewhere: Elsewhere::default() });
    };
    match world(options, Some(parcel)) {
        Ok(world) => follow(world, heir, signals),
        Err(error) => {
            heir.fail(&error.text);
            Err(error)
        }
    }
}

/// Takes over from the process before us, when it says so.
fn follow(mut world: World, mut heir: Heir, signals: Option<Signals>) -> Result<Started, StartError> {
    let kept = world.prepared.as_ref().map(Prepared::addresses).unwrap_or_default();
    let first = heir
        .ready(kept)
        .map_err(|e| StartError::new(Exit::Failed, format!("error: process {} did not hand over: {e}", heir.pid())))?;
    world.open();
    remember(&world.store, &first);
    tracing::info!(event = "upgrade", phase = "taken-over", from = heir.pid());
    let (predecessor, elsewhere) = heir.serving(first);
    world.store.settle();
    Ok(Started { world, signals, predecessor: Some(predecessor), elsewhere })
}

async fn serve(
    Started { mut world, signals, predecessor, elsewhere }: Started,
    begun: Instant,
    ready: &Ready,
    stopped: oneshot::Receiver<()>,
) -> Ended {
    let (phases, phase) = watch::channel(Phase::Running);
    let addresses = addresses(&world, begun);
    let context = Arc::new(context(&world, elsewhere.clone(), phase));
    let own_address = world.admin.as_ref().and_then(|socket| socket.local_addr().ok()).map(Address::from);
    let mut background = JoinSet::new();
    // Before anybody can ask, so that no rollout seems forgotten.
    Box::pin(rollouts::spawn(&mut world, &mut background)).await;
    let (mut admin, stop_admin) = serve_admin(&mut world, context);
    let World { config, loaded, load, store, listeners, plane, flusher, access, reloads, reloader, notifier, .. } =
        world;
    let (upgrades, names, checks, desk) = (world.upgrades, world.names, world.checks, world.desk);
    background.spawn(reloader.run());
    background.spawn(health::supervise(store.clone(), checks.clone()));
    background.spawn(dns::run(store.clone(), own_address, names.clone()));
    let seen = Seen { checks, names: names.clone(), desk };
    background.spawn(flush((flusher, seen), store.clone(), upgrades.clone(), access.dropped_count()));
    let mut guard = JoinSet::new();
    guard.spawn(watchdog(notifier.clone(), plane.clone()));
    let theirs = reloads.clone();
    background.spawn(async move { reload::watch(load, &loaded, theirs).await });
    background.spawn(first_answers(names, config.clone(), world.starting));
    let status = format!("serving; revision {}", store.snapshot().revision);
    match predecessor {
        Some(predecessor) => drop(background.spawn(heed(predecessor, store.clone(), notifier.clone(), status))),
        None => notifier.ready(&status),
    }
    let _ = ready.send(Ok(addresses));

    let theirs = (plane.clone(), store.clone(), elsewhere.clone());
    let now: ReportNow = Arc::new(move || report(&theirs.0, &theirs.1, &theirs.2));
    let mut asked = Asked { signals, stopped: Some(stopped), reloads, upgrades, candidates: world.candidates };
    let first = tokio::select! {
        first = asked.asked_to_end(Some(&now)) => first,
        part = plane.failed() => return failed(part),
        () = control_failed(&mut background) => return failed("control"),
        () = control_failed(&mut admin) => return failed("admin"),
    };
    let _blocker = world.readiness.block("shutting-down");
    let going = Going {
        config: &config.shutdown,
        listeners: &listeners,
        plane: &plane,
        store: &store,
        elsewhere: &elsewhere,
        phases: &phases,
    };
    let ended = match first {
        End::HandedOver(heirdom) => {
            guard.shutdown().await;
            notifier.main_pid(heirdom.pid);
            asked.upgrades.close_control();
            let until = leave_until(&store.snapshot().config);
            let _ = stop_admin.send(until.saturating_duration_since(Instant::now()));
            going.leave(*heirdom, now, until, &mut asked).await
        }
        first => {
            notifier.stopping("finishing what is in flight");
            asked.call_off_upgrades().await;
            going.down(first, &mut asked).await
        }
    };
    asked.upgrades.close_control();
    drop(stop_admin);
    // Usually done long before; after a hand-over its calls had all the time of the connections.
    let _ = tokio::time::timeout(2 * admin::GRACE, admin.join_all()).await;
    background.shutdown().await;
    let last = store.clone();
    let saved = spawn_blocking(move || last.retry_persist()).await.unwrap_or(false);
    ended.tell(saved);
    // The workers' logs end with their threads; cut off by force they are left to the process's end.
    if ended != Ended::Forced {
        let _ = tokio::time::timeout(LAST, spawn_blocking(move || plane.join())).await;
        access.close(LAST);
    }
    ended
}

/// Waits until a task of the control plane has panicked. Those that end otherwise have done what they were for.
async fn control_failed(tasks: &mut JoinSet<()>) {
    while let Some(ended) = tasks.join_next().await {
        if ended.is_err_and(|error| error.is_panic()) {
            return;
        }
    }
    std::future::pending().await
}

/// Half a weir would hold its addresses and serve some of its clients, and nobody would start it anew.
fn failed(part: &'static str) -> Ended {
    tracing::error!(event = "failed", part, "a part that weir cannot do without has panicked: it ends");
    Ended::Failed
}

/// Traffic is asked for only once the names had a chance to be answered, so that the first requests find endpoints. Only
/// a chance: a name server that is silent keeps nobody down.
async fn first_answers(names: Statuses, config: Arc<Config>, starting: Blocker) {
    const PATIENCE: Duration = Duration::from_secs(1);
    let _ = tokio::time::timeout(PATIENCE, names.all_asked(&config)).await;
    drop(starting);
}

/// Listens to the process before us. Only when it has told that we are the main one, the service manager listens to us.
async fn heed(predecessor: Predecessor, store: Arc<Store>, notifier: Arc<Notifier>, status: String) {
    predecessor.run(|| notifier.ready(&status), |report| remember(&store, report)).await;
    tracing::info!(event = "upgrade", phase = "predecessor-gone");
}

/// Tells the service manager that we are alive, as long as this thread and every worker is.
async fn watchdog(notifier: Arc<Notifier>, plane: Arc<DataPlane>) {
    let Some(every) = notifier.watchdog_interval() else { return };
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if tokio::time::timeout(every, plane.turn()).await.is_ok() {
            notifier.alive();
        } else {
            tracing::error!(
                event = "worker-stuck",
                "a worker does not turn: the watchdog is not told that we are alive"
            );
        }
    }
}

/// The admin API and, if there is one, the listener of the probes. They serve until the sender is dropped, or says how
/// long what is being answered may take.
fn serve_admin(world: &mut World, context: Arc<admin::AdminContext>) -> (JoinSet<()>, watch::Sender<Duration>) {
    let (stop, stopped) = watch::channel(admin::GRACE);
    let mut tasks = JoinSet::new();
    let sockets =
        [(world.admin.take(), admin::router(context.clone())), (world.probes.take(), admin::probes_router(context))];
    for (socket, router) in sockets {
        let Some(socket) = socket else { continue };
        let mut stopped = stopped.clone();
        let shutdown = async move {
            let _ = stopped.changed().await;
            *stopped.borrow()
        };
        tasks.spawn(admin::serve(socket, router, shutdown));
    }
    (tasks, stop)
}

/// Counts become metrics; endpoints that have left are cut and forgotten in time; a write that failed is tried again.
async fn flush(
    (mut flusher, seen): (Flusher, Seen),
    store: Arc<Store>,
    upgrades: Arc<Upgrades>,
    lines_dropped: impl Fn() -> u64,
) {
    let reloads = upgrades.reloads.status();
    let mut seconds = tokio::time::interval(FLUSH);
    seconds.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut events = store.subscribe();
    let (mut rollbacks, mut expiry, mut fare) = (Rollbacks::default(), ExpiryWatch::default(), Fare::default());
    let mut registered = store.snapshot().config.clone();
    loop {
        seconds.tick().await;
        let snapshot = store.snapshot();
        if !Arc::ptr_eq(&registered, &snapshot.config) {
            registered = snapshot.config.clone();
            flusher.register(&registered);
            let log = &registered.telemetry.log;
            events::init(log.level, events_format(log.format));
        }
        while let Ok(event) = events.try_recv() {
            if let (Some(split), "rollback") = (event.split, event.kind.as_str()) {
                *rollbacks.entry((split, event.source)).or_default() += 1;
            }
        }
        let now = gauges(&snapshot, &reloads.borrow(), (&rollbacks, &seen), (upgrades.tally(), lines_dropped()));
        flusher.flush(&now, Instant::now());
        tell_expiring(&mut expiry, &snapshot.config);
        fare.tell(&snapshot);
        fare.weigh(&store, &snapshot).await;
        for (key, left) in store.registry().tidy(Instant::now()) {
            tracing::warn!(event = "drain-cut", split = %key.split, version = %key.version, endpoint = %key.address,
                requests = left.requests, streams = left.streams, upgrades = left.upgrades,
                "the drain's time was over: what was left is cut");
        }
        if !snapshot.persisted {
            let store = store.clone();
            drop(spawn_blocking(move || store.retry_persist()).await);
        }
    }
}
