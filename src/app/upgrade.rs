//! Both sides of a binary upgrade, as far as they touch the rest of the process: what is frozen and handed over, and how
//! the old process goes once the new one serves.
//!
//! Invariant: whether this process or the next one serves is decided in one place, the control task (`Asked`), so that
//! an upgrade and a shutdown cannot both win.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::spawn_blocking;

use crate::admin::UpgradeResult;
use crate::model::{Actor, Instant};
use crate::net::listen::Listeners;
use crate::pool::{Deadlines, EndpointKey};
use crate::proxy::DataPlane;
use crate::reload::{Paused, ReloadHandle};
use crate::rollout::Desk;
use crate::state::{Frozen, Store};
use crate::upgrade::{self, Control, Elsewhere, Failed, Parcel, Part, Program, Report, Reports, Successor, Tally};

/// What a new process may take to be ready.
const LIMIT: Duration = Duration::from_secs(30);
/// What ending one may take.
const CALLED_OFF: Duration = Duration::from_secs(1);

/// Says what this process has in flight.
pub(super) type ReportNow = Arc<dyn Fn() -> Report + Send + Sync>;

/// What upgrades need of this process.
#[derive(Debug)]
pub(super) struct Upgrades {
    /// `None`: weir is a guest in another program.
    pub(super) program: Option<Program>,
    pub(super) store: Arc<Store>,
    pub(super) listeners: Arc<Listeners>,
    pub(super) reloads: ReloadHandle,
    /// Second handles, for successors.
    pub(super) control: Mutex<Vec<Control>>,
    pub(super) tally: Mutex<Tally>,
    /// There is one at a time.
    pub(super) one: tokio::sync::Mutex<()>,
    /// This process goes down: none is let through any more.
    pub(super) called_off: watch::Sender<bool>,
    pub(super) ready: mpsc::Sender<Candidate>,
    pub(super) rollouts: Desk,
}

/// A successor that is ready, for the control task to let it serve, or not.
#[derive(Debug)]
pub(super) struct Candidate {
    successor: Successor,
    pauses: Pauses,
    answer: oneshot::Sender<Result<u32, Failed>>,
}

/// Nothing changes as long as this lives.
#[derive(Debug)]
pub(super) struct Pauses(#[expect(dead_code, reason = "held, and dropped")] (Frozen, Paused));

/// A successor that serves; this process only finishes.
#[derive(Debug)]
pub(super) struct Heirdom {
    pub(super) pid: u32,
    pub(super) kept: Vec<crate::config::Bind>,
    pub(super) reports: Reports,
    pub(super) pauses: Pauses,
}

impl Upgrades {
    /// Starts the binary and waits until it serves or has failed. Carried out also if the caller stops waiting.
    pub(super) async fn upgrade(self: &Arc<Self>, by: Actor) -> UpgradeResult {
        let this = self.clone();
        let attempt = tokio::spawn(async move { this.attempt(&by).await });
        attempt.await.unwrap_or_else(|e| UpgradeResult::Failed(e.to_string()))
    }

    async fn called_off(&self) {
        let _ = self.called_off.subscribe().wait_for(|off| *off).await;
    }

    /// Ends the one that is under way, and waits until nothing is left of it.
    pub(super) async fn call_off(&self) {
        self.called_off.send_replace(true);
        let _ = tokio::time::timeout(CALLED_OFF, self.one.lock()).await;
    }

    pub(super) fn tally(&self) -> Tally {
        *self.tally_mut()
    }

    fn tally_mut(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn attempt(&self, by: &Actor) -> UpgradeResult {
        let Ok(_one) = self.one.try_lock() else { return UpgradeResult::Running };
        let program = match self.program() {
            Ok(program) => program,
            Err(why) => return self.log(by, UpgradeResult::Impossible(why)),
        };
        let path = program.path().display().to_string();
        tracing::info!(event = "upgrade", phase = "begun", by = by.0, path);
        let result = match self.hand_over(program).await {
            Ok(result) => result,
            Err(Failed(why)) => UpgradeResult::Failed(why),
        };
        self.log(by, result)
    }

    /// As process 1 our end is the container's, whoever has taken over.
    fn program(&self) -> Result<Program, String> {
        if std::process::id() == 1 {
            let why = "this is process 1: when it ends, everything in its container does; let the orchestrator replace \
                 the container (or run weir under an init process)";
            return Err(why.to_owned());
        }
        self.program.clone().ok_or_else(|| "weir runs inside another program".to_owned())
    }

    async fn hand_over(&self, program: Program) -> Result<UpgradeResult, Failed> {
        let Ok(paused) = self.reloads.pause().await else { return Ok(UpgradeResult::ShuttingDown) };
        let store = self.store.clone();
        let frozen = spawn_blocking(move || store.freeze()).await;
        let (frozen, state) = frozen.map_err(|e| Failed(e.to_string()))?.map_err(|e| Failed(e.to_string()))?;
        // What comes in from here on is in flight; the successor knows all before.
        self.rollouts.park().await;
        let no_handles = |e: std::io::Error| Failed(format!("the sockets cannot be handed over: {e}"));
        let listeners = self.listeners.share().map_err(no_handles)?;
        let control = self.control().iter().map(Control::try_clone).collect::<Result<_, _>>().map_err(no_handles)?;
        let parcel = Parcel { listeners, control, state, upgrades: self.tally() };
        let successor = upgrade::start(program, parcel, LIMIT, self.called_off()).await?;
        let (answer, is_serving) = oneshot::channel();
        let candidate = Candidate { successor, pauses: Pauses((frozen, paused)), answer };
        if self.ready.send(candidate).await.is_err() {
            return Ok(UpgradeResult::ShuttingDown);
        }
        match is_serving.await {
            Ok(Ok(pid)) => Ok(UpgradeResult::Done { pid }),
            Ok(Err(failed)) => Err(failed),
            Err(_) => Ok(UpgradeResult::ShuttingDown),
        }
    }

    fn control(&self) -> MutexGuard<'_, Vec<Control>> {
        self.control.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The sockets of the admin API are the successor's alone.
    pub(super) fn close_control(&self) {
        self.control().clear();
    }

    fn log(&self, by: &Actor, result: UpgradeResult) -> UpgradeResult {
        let by = &by.0;
        match &result {
            UpgradeResult::Done { pid } => tracing::info!(event = "upgrade", phase = "handed-over", by, to = pid),
            UpgradeResult::Impossible(reason) | UpgradeResult::Failed(reason) => {
                self.tally_mut().failed += 1;
                tracing::error!(event = "upgrade", phase = "failed", by, reason, "this process goes on");
            }
            UpgradeResult::Running | UpgradeResult::ShuttingDown => {
                tracing::warn!(event = "upgrade", phase = "given-up", by, "the process is going down");
            }
        }
        result
    }
}

impl Candidate {
    /// Lets it serve. `None`: it failed, and this process goes on.
    pub(super) async fn go(self, now: Report) -> Option<Heirdom> {
        let Self { mut successor, pauses, answer } = self;
        let (pid, kept) = (successor.pid(), std::mem::take(&mut successor.kept));
        let went = spawn_blocking(move || successor.go(now)).await;
        let went = went.unwrap_or_else(|e| Err(Failed(e.to_string())));
        let (answered, heirdom) = match went {
            Ok(reports) => (Ok(pid), Some(Heirdom { pid, kept, reports, pauses })),
            Err(failed) => {
                drop(pauses);
                (Err(failed), None)
            }
        };
        // Whoever asked may have gone away.
        let _ = answer.send(answered);
        heirdom
    }
}

/// What this process has in flight, and the one before it.
pub(super) fn report(plane: &DataPlane, store: &Store, elsewhere: &Elsewhere) -> Report {
    let busy = store.registry().busy().into_iter().map(|(key, counts)| Part { key, counts });
    let open = store.registry().open();
    Report { connections: plane.connections(), in_flight: busy.collect(), open }.and(elsewhere)
}

/// Endpoints only the process before us still knows can be asked for too. Returns those it must not use any more.
pub(super) fn remember(store: &Store, report: &Report) -> Vec<EndpointKey> {
    let registry = store.registry();
    let known = report.in_flight.iter().map(|part| &part.key).chain(&report.open);
    let now = Instant::now();
    known.for_each(|key| registry.remember(key, Deadlines::new(now, Duration::ZERO, Duration::ZERO)));
    let drains = |key: &&EndpointKey| registry.find(key).is_some_and(|endpoint| endpoint.is_draining());
    report.open.iter().filter(drains).cloned().collect()
}

/// What the successor drains we drain: its clients may still have connections here.
pub(super) fn drain_too(store: &Store, keys: &[EndpointKey]) {
    let config = store.snapshot().config.clone();
    for key in keys {
        let split = config.splits.iter().find(|split| split.name == key.split);
        let drain = split.map(|split| split.drain.clone()).unwrap_or_default();
        let deadlines = Deadlines::new(Instant::now(), drain.timeout, drain.upgraded_timeout);
        match store.registry().find(key) {
            Some(endpoint) => endpoint.drain(deadlines),
            // Of a process before us, which hears of it in turn.
            None => store.registry().remember(key, deadlines),
        }
    }
}
