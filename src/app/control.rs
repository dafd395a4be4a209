//! The control thread: runs the tasks of a complete `World`, and takes it down in order.
//!
//! Invariant: at the end the order is readiness, delay, listeners, requests, admin, state, log; nothing accepted is
//! dropped before its deadline.

use std::cell::Cell;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::task::{JoinSet, spawn_blocking};

use super::context::context;
use super::fare::Fare;
use super::gauges::{Rollbacks, gauges, tell_expiring};
use super::start::{World, events_format, world};
use super::{Addresses, Options, StartError};
use crate::admin;
use crate::cli::Exit;
use crate::config::Shutdown;
use crate::lifecycle::{Ending, Phase, Signal, Signals, drive};
use crate::model::{Actor, Instant, Source};
use crate::net::listen::{Listeners, Stopping};
use crate::proxy::DataPlane;
use crate::reload::{self, ReloadHandle};
use crate::state::Store;
use crate::telemetry::{Flusher, events};
use crate::tls::ExpiryWatch;

/// How often counts become metrics and leaving endpoints are looked after.
const FLUSH: Duration = Duration::from_secs(1);
/// The data plane's own deadline comes this much before the process's, so that what was cut is still counted.
const MARGIN: Duration = Duration::from_millis(100);
/// What the last lines of the access log and the workers' threads may take at the end.
const LAST: Duration = Duration::from_secs(1);

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Everything was finished.
    Drained,
    /// So many connections were cut at the deadline.
    Cut(usize),
    /// On a second signal, or QUIT: at once.
    Forced,
    /// The control thread died.
    Failed,
}

impl Ended {
    /// A drain ends with 0 even if its deadline cut something: that is what the operator asked for.
    pub fn exit(self) -> Exit {
        if self == Self::Failed { Exit::Failed } else { Exit::Done }
    }
}

type Ready = mpsc::Sender<Result<Addresses, StartError>>;

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
        let world = match started(options) {
            Ok(started) => started,
            Err(error) => {
                let _ = ready.send(Err(error));
                return Ended::Failed;
            }
        };
        go_first();
        serve(world, begun, ready, stopped).await
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

/// Signals first: one that comes while we start must not kill us half-way.
fn started(options: &Options) -> Result<(World, Option<Signals>), StartError> {
    let signals = options.signals.then(Signals::install).transpose();
    let signals = signals.map_err(|e| StartError::new(Exit::Failed, format!("error: no signal handlers: {e}")))?;
    Ok((world(options)?, signals))
}

async fn serve(
    (mut world, signals): (World, Option<Signals>),
    begun: Instant,
    ready: &Ready,
    stopped: oneshot::Receiver<()>,
) -> Ended {
    let (phases, phase) = watch::channel(Phase::Running);
    let addresses = addresses(&world, begun);
    let context = Arc::new(context(&world, phase));
    let (admin, stop_admin) = serve_admin(&mut world, context);
    let World { config, loaded, load, store, listeners, plane, flusher, access, reloads, reloader, .. } = world;
    let mut background = JoinSet::new();
    background.spawn(reloader.run());
    background.spawn(flush(flusher, store.clone(), reloads.clone(), access.dropped_count()));
    let theirs = reloads.clone();
    background.spawn(async move { reload::watch(load, &loaded, theirs).await });
    drop(world.starting);
    let _ = ready.send(Ok(addresses));

    let mut asked = Asked { signals, stopped: Some(stopped), reloads };
    let first = asked.asked_to_end().await;
    let _blocker = world.readiness.block("shutting-down");
    let ended = down(&config.shutdown, (&listeners, &plane), first, &mut asked, &phases).await;
    drop(stop_admin);
    admin.join_all().await;
    background.shutdown().await;
    let last = store.clone();
    let saved = spawn_blocking(move || last.retry_persist()).await.unwrap_or(false);
    tracing::info!(event = "shutdown", phase = "ended", how = ?ended, saved);
    // The workers' logs end with their threads; cut off by force they are left to the process's end.
    if ended != Ended::Forced {
        let _ = tokio::time::timeout(LAST, spawn_blocking(move || plane.join())).await;
        access.close(LAST);
    }
    ended
}

/// The admin API and, if there is one, the listener of the probes. They serve until the sender is dropped.
fn serve_admin(world: &mut World, context: Arc<admin::AdminContext>) -> (JoinSet<()>, watch::Sender<()>) {
    let (stop, stopped) = watch::channel(());
    let mut tasks = JoinSet::new();
    let sockets =
        [(world.admin.take(), admin::router(context.clone())), (world.probes.take(), admin::probes_router(context))];
    for (socket, router) in sockets {
        let Some(socket) = socket else { continue };
        let mut stopped = stopped.clone();
        tasks.spawn(admin::serve(socket, router, async move { drop(stopped.changed().await) }));
    }
    (tasks, stop)
}

/// Takes the data plane down in order: delay, listeners, requests.
async fn down(
    config: &Shutdown,
    (listeners, plane): (&Listeners, &DataPlane),
    first: End,
    asked: &mut Asked,
    phases: &watch::Sender<Phase>,
) -> Ended {
    tracing::info!(event = "shutdown", phase = "begun", timeout_seconds = config.timeout.as_secs_f64());
    if let End::AtOnce = first {
        return Ended::Forced;
    }
    let deadline = Instant::now() + config.timeout.saturating_sub(MARGIN);
    let cut = Cell::new(0);
    let drained = async {
        Stopping::finish_all(listeners.close()).await;
        cut.set(plane.drain(deadline).await);
    };
    let again = async {
        asked.asked_to_end().await;
    };
    match drive(config, drained, again, phases).await {
        Ending::Forced => Ended::Forced,
        Ending::Drained | Ending::TimedOut if cut.get() > 0 => Ended::Cut(cut.get()),
        Ending::Drained | Ending::TimedOut => Ended::Drained,
    }
}

/// Counts become metrics; endpoints that have left are cut and forgotten in time; a write that failed is tried again.
async fn flush(mut flusher: Flusher, store: Arc<Store>, reloads: ReloadHandle, lines_dropped: impl Fn() -> u64) {
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
        let now = gauges(&snapshot, &reloads.status().borrow(), &rollbacks, lines_dropped());
        flusher.flush(&now, Instant::now());
        tell_expiring(&mut expiry, &snapshot.config);
        fare.tell(&snapshot);
        fare.weigh(&store, &snapshot).await;
        for (key, left) in store.registry().tidy(Instant::now()) {
            tracing::warn!(event = "drain-cut", split = %key.split, version = %key.version, endpoint = %key.address,
                requests = left.requests, "the drain's time was over: what was left is cut");
        }
        if !snapshot.persisted {
            let store = store.clone();
            drop(spawn_blocking(move || store.retry_persist()).await);
        }
    }
}

enum End {
    Drain,
    AtOnce,
}

/// Who may ask the process for something.
struct Asked {
    signals: Option<Signals>,
    stopped: Option<oneshot::Receiver<()>>,
    reloads: ReloadHandle,
}

impl Asked {
    /// Waits until the process is asked to end; obeys everything else on the way.
    async fn asked_to_end(&mut self) -> End {
        loop {
            match self.next().await {
                Signal::Terminate => return End::Drain,
                Signal::Quit => return End::AtOnce,
                Signal::Reload => {
                    let reloads = self.reloads.clone();
                    tokio::spawn(async move { drop(reloads.reload(Actor("signal".to_owned()), Source::File).await) });
                }
                Signal::ReopenLogs => tracing::info!(event = "logs", "logs go to stdout and stderr: nothing to reopen"),
                Signal::Upgrade => tracing::warn!(event = "not-yet", "a binary upgrade by USR2 is not built yet"),
            }
        }
    }

    async fn next(&mut self) -> Signal {
        let stopped = async {
            match &mut self.stopped {
                Some(stopped) => drop(stopped.await),
                None => std::future::pending().await,
            }
        };
        let signal = async {
            match &mut self.signals {
                Some(signals) => signals.next().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = stopped => {
                self.stopped = None;
                Signal::Terminate
            }
            signal = signal => signal,
        }
    }
}

fn addresses(world: &World, begun: Instant) -> Addresses {
    let admin = world.admin.as_ref().and_then(|a| a.local_addr().ok()).unwrap_or(world.config.admin.bind);
    let listening = world.listeners.listening();
    let mut line = format!("weir {}", env!("CARGO_PKG_VERSION").trim_end_matches(".0"));
    for listener in &listening {
        let secure = world.config.listeners.iter().any(|l| l.name == listener.name && l.tls.is_some());
        // Of a Unix socket as curl has it: `--unix-socket`, not a URL.
        let scheme = match listener.address.tcp() {
            None => "",
            Some(_) if secure => "https://",
            Some(_) => "http://",
        };
        line += &format!("  {} {scheme}{}", listener.name, listener.address);
    }
    line += &format!("   dashboard http://{admin}");
    for split in &world.store.snapshot().splits {
        let share = |(name, _)| format!("{name} {} %", percent(split.weights.share(name)));
        line += &format!("   {}: {}", split.name, split.weights.iter().map(share).collect::<Vec<_>>().join(", "));
    }
    line += &format!("   ready in {} ms", begun.elapsed().as_millis());
    let listeners = listening.into_iter().map(|l| (l.name, l.address)).collect();
    Addresses { listeners, admin, ready_line: line }
}

/// `90`, `12.5`, `0.05`: as many digits as it needs, two at most.
fn percent(share: f64) -> String {
    let text = format!("{:.2}", share * 100.0);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}
