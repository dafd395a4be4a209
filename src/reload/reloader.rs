//! The one way a configuration comes into force after the start: load, compare, bind aside, apply, hand over.
//!
//! A task of its own that takes one order at a time, so that two reloads cannot cross and one whose asker has gone
//! away is still carried out whole.
//! Invariant: every step before `Store::apply` can be taken back by dropping what it made.

use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use serde_json::Value;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinSet, spawn_blocking};

use super::last_good;
use super::load::{LoadedConfig, Loader, Problem};
use super::outcome::{ReloadOutcome, ReloadResult, ReloadStatus};
use super::restart::keep_what_needs_a_restart;
use crate::config::{Bind, Config, Listener};
use crate::lifecycle::Notifier;
use crate::model::{Actor, Instant, ListenerName, Revision, Source};
use crate::net::listen::{BindError, Listeners, Prepared, Refused, Stopping};
use crate::state::{Applied, ApplyError, Change, Order, Store};

/// The configuration as one TOML text.
pub type Effective = Arc<dyn Fn(&Config) -> String + Send + Sync>;

/// Orders that may wait; whoever comes then waits to give his.
const QUEUE: usize = 16;

/// The process is going down: no reload any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("weir is shutting down")]
pub struct Gone;

enum Command {
    Reload {
        by: Actor,
        source: Source,
        /// By the watcher, which has it already.
        loaded: Option<Box<LoadedConfig>>,
        answer: oneshot::Sender<ReloadOutcome>,
    },
    Pause(oneshot::Sender<Paused>),
}

/// No reload begins as long as this lives.
#[derive(Debug)]
#[must_use = "reloads wait only as long as this lives"]
pub struct Paused {
    _held: oneshot::Sender<Infallible>,
}

/// Asks for reloads and tells how they went.
#[derive(Clone)]
pub struct ReloadHandle {
    commands: mpsc::Sender<Command>,
    status: watch::Receiver<ReloadStatus>,
}

impl ReloadHandle {
    /// Reads the files now and puts them into force. Carried out also if the caller stops waiting.
    ///
    /// # Errors
    /// `Gone` when the process is going down.
    pub async fn reload(&self, by: Actor, source: Source) -> Result<ReloadOutcome, Gone> {
        self.order(by, source, None).await
    }

    pub(super) async fn take(&self, loaded: LoadedConfig) -> Result<ReloadOutcome, Gone> {
        self.order(Actor("file".to_owned()), Source::File, Some(loaded)).await
    }

    async fn order(&self, by: Actor, source: Source, loaded: Option<LoadedConfig>) -> Result<ReloadOutcome, Gone> {
        let (answer, outcome) = oneshot::channel();
        self.commands
            .send(Command::Reload { by, source, loaded: loaded.map(Box::new), answer })
            .await
            .map_err(|_| Gone)?;
        outcome.await.map_err(|_| Gone)
    }

    /// Waits for the reload that is under way, and keeps those that come waiting.
    ///
    /// # Errors
    /// `Gone` when the process is going down.
    pub async fn pause(&self) -> Result<Paused, Gone> {
        let (granted, paused) = oneshot::channel();
        self.commands.send(Command::Pause(granted)).await.map_err(|_| Gone)?;
        paused.await.map_err(|_| Gone)
    }

    /// How reloads have gone.
    pub fn status(&self) -> watch::Receiver<ReloadStatus> {
        self.status.clone()
    }
}

/// See the file's head.
pub struct Reloader {
    load: Loader,
    store: Arc<Store>,
    listeners: Arc<Listeners>,
    effective: Effective,
    notifier: Arc<Notifier>,
    commands: mpsc::Receiver<Command>,
    status: watch::Sender<ReloadStatus>,
}

impl Reloader {
    /// For a process that runs `running`, read from files of that digest, and listens for it already.
    pub fn new(
        load: Loader,
        (running, digest): (Arc<Config>, [u8; 32]),
        store: Arc<Store>,
        listeners: Arc<Listeners>,
        effective: Effective,
    ) -> (ReloadHandle, Self) {
        let (sender, commands) = mpsc::channel(QUEUE);
        let (status, seen) = watch::channel(ReloadStatus::started(running, digest));
        let handle = ReloadHandle { commands: sender, status: seen };
        (handle, Self { load, store, listeners, effective, notifier: Arc::default(), commands, status })
    }

    /// Tells the service manager of each reload.
    #[must_use]
    pub fn telling(mut self, notifier: Arc<Notifier>) -> Self {
        self.notifier = notifier;
        self
    }

    /// Carries out orders until the last handle is gone.
    pub async fn run(mut self) {
        let (good, configs) = watch::channel(self.running());
        let mut keeper = JoinSet::new();
        keeper.spawn(last_good::keep(configs, self.effective.clone()));
        while let Some(command) = self.commands.recv().await {
            let (by, source, loaded, answer) = match command {
                Command::Reload { by, source, loaded, answer } => (by, source, loaded, answer),
                Command::Pause(granted) => {
                    pause(granted).await;
                    continue;
                }
            };
            self.notifier.reloading();
            let outcome = self.carry_out(by, source, loaded.map(|loaded| *loaded)).await;
            self.notifier.ready(&status(&outcome, self.store.snapshot().revision));
            if matches!(outcome.result, ReloadResult::Applied { .. }) {
                good.send_replace(self.running());
            }
            // Whoever asked may have gone away.
            let _ = answer.send(outcome);
        }
        drop(good);
        keeper.join_all().await;
    }

    fn running(&self) -> Arc<Config> {
        self.status.borrow().running.clone()
    }

    async fn carry_out(&self, by: Actor, source: Source, loaded: Option<LoadedConfig>) -> ReloadOutcome {
        let (at, begun, before) = (SystemTime::now(), Instant::now(), self.store.snapshot().revision);
        let watched = loaded.is_some();
        let result = match self.attempt(&by, source, loaded).await {
            Ok(result) | Err(Rejected(result)) => result,
        };
        let outcome = ReloadOutcome { result, by, at, took: begun.elapsed() };
        log(&outcome, before.0);
        // That the watcher finds what is in force already is news only after a file that was bad.
        let is_news = !watched || !matches!(outcome.result, ReloadResult::Unchanged) || self.status.borrow().is_stale();
        if is_news {
            self.status.send_modify(|status| status.count(outcome.clone()));
        }
        outcome
    }

    async fn attempt(
        &self,
        by: &Actor,
        source: Source,
        loaded: Option<LoadedConfig>,
    ) -> Result<ReloadResult, Rejected> {
        let loaded = match loaded {
            Some(loaded) => loaded,
            None => self.load().await,
        };
        let new = match &loaded.config {
            Err(report) => return Err(Rejected::new(report.clone(), loaded.diagnostics.clone())),
            Ok(_) if loaded.digest == self.status.borrow().digest => return Ok(ReloadResult::Unchanged),
            Ok(new) => new,
        };
        let (config, problems) = keep_what_needs_a_restart(&self.running(), new);
        let prepared = self.bind(&config, &loaded).await?;
        let applied = self.apply(&config, by, source, &loaded).await?;
        self.switch_listeners(prepared);
        self.status.send_modify(|status| (status.running, status.digest) = (config.clone(), loaded.digest));
        Ok(result(applied, &loaded, &problems))
    }

    async fn load(&self) -> LoadedConfig {
        let load = self.load.clone();
        spawn_blocking(move || load()).await.unwrap_or_else(|error| {
            LoadedConfig::failed(format!("error: reading the configuration failed inside weir: {error}\n"))
        })
    }

    async fn bind(&self, config: &Config, loaded: &LoadedConfig) -> Result<Prepared, Rejected> {
        let wanted = wanted(config);
        self.listeners.ready_for(&wanted).await;
        let listeners = self.listeners.clone();
        match spawn_blocking(move || listeners.prepare(&wanted)).await {
            Ok(Ok(prepared)) => Ok(prepared),
            Ok(Err(refused)) => {
                let problems: Vec<_> = refused.iter().map(|refused| not_bound(config, refused)).collect();
                Err(Rejected::because(loaded, &problems))
            }
            Err(error) => Err(Rejected::because(loaded, &[internal(&error)])),
        }
    }

    async fn apply(
        &self,
        config: &Arc<Config>,
        by: &Actor,
        source: Source,
        loaded: &LoadedConfig,
    ) -> Result<Applied, Rejected> {
        let order = Order {
            id: fastrand::u128(..),
            change: Change::Reload { config: config.clone() },
            by: by.clone(),
            source,
            reason: None,
            if_match: None,
            dry_run: false,
        };
        let store = self.store.clone();
        // It writes to the disk.
        match spawn_blocking(move || store.apply(order)).await {
            Ok(Ok(applied)) => Ok(applied),
            Ok(Err(error)) => Err(Rejected::because(loaded, &[not_applied(&error)])),
            Err(error) => Err(Rejected::because(loaded, &[internal(&error)])),
        }
    }

    fn switch_listeners(&self, prepared: Prepared) {
        let before = self.listeners.listening();
        let stopping = self.listeners.commit(prepared);
        for new in self.listeners.listening().iter().filter(|l| before.iter().all(|old| old.address != l.address)) {
            tracing::info!(event = "listener-opened", listener = %new.name, address = %new.address);
        }
        for one in stopping {
            tokio::spawn(close(one));
        }
    }
}

async fn pause(granted: oneshot::Sender<Paused>) {
    let (held, released) = oneshot::channel();
    if granted.send(Paused { _held: held }).is_ok() {
        let _ = released.await;
    }
}

/// One line for `systemctl status`.
fn status(outcome: &ReloadOutcome, revision: Revision) -> String {
    match &outcome.result {
        ReloadResult::Rejected { .. } => format!("the configuration was rejected; revision {revision} stays in force"),
        ReloadResult::Applied { .. } | ReloadResult::Unchanged => format!("serving; revision {revision}"),
    }
}

/// What a configuration wants to listen on.
pub fn wanted(config: &Config) -> Vec<(ListenerName, Bind)> {
    let of = |listener: &Listener| -> Vec<_> {
        listener.bind.iter().map(|bind| (listener.name.clone(), bind.clone())).collect()
    };
    config.listeners.iter().flat_map(of).collect()
}

async fn close(stopping: Stopping) {
    let stopped = stopping.finish().await;
    let address = &stopped.address;
    if stopped.emptied && stopped.half_open == 0 {
        tracing::info!(event = "listener-closed", %address);
    } else {
        let (half_open, emptied) = (stopped.half_open, stopped.emptied);
        tracing::warn!(event = "listener-closed", %address, half_open, emptied, "some clients may have been cut off");
    }
}

/// A `ReloadResult::Rejected` on its way out.
struct Rejected(ReloadResult);

impl Rejected {
    fn new(report: String, diagnostics: Value) -> Self {
        Self(ReloadResult::Rejected { report, diagnostics })
    }

    fn because(loaded: &LoadedConfig, problems: &[Problem]) -> Self {
        let report = loaded.explain(problems);
        Self::new(report.text, report.diagnostics)
    }
}

/// What a listener whose address cannot be had looks like in a report.
pub fn not_bound(config: &Config, Refused { name, error }: &Refused) -> Problem {
    let code = match error {
        BindError::InUse { .. } | BindError::NotPermitted { .. } => "address-in-use",
        BindError::NotLocal { .. }
        | BindError::NoFolder { .. }
        | BindError::NotASocket { .. }
        | BindError::TooLong { .. }
        | BindError::NotPassed { .. }
        | BindError::Other { .. } => "bad-address",
    };
    let several = config.listeners.iter().any(|l| l.name == *name && l.bind.len() > 1);
    let which = if several { " (one of its addresses)" } else { "" };
    let message = format!("listener `{name}`{which}: {error}");
    Problem { code, is_warning: false, key: format!("listeners.{name}.bind"), message, help: error.remedy() }
}

/// What an order that the store refused looks like in a report.
pub fn not_applied(error: &ApplyError) -> Problem {
    let message = error.to_string();
    let (code, key, help) = match error {
        ApplyError::HeldConflict(_) => {
            ("held-conflict", "splits", "`weir release` the split first, or keep the version it needs")
        }
        ApplyError::BadTls { key, .. } => {
            ("bad-certificate", key.as_str(), "the certificates in force go on; mend the files or what names them")
        }
        _ => ("not-applied", "splits", "the configuration in force is as it was"),
    };
    Problem { code, is_warning: false, key: key.to_owned(), message, help: help.to_owned() }
}

fn internal(error: &dyn fmt::Display) -> Problem {
    let message = format!("the configuration could not be put into force: {error}");
    let help = "this is a fault of weir; please report it".to_owned();
    Problem { code: "internal", is_warning: false, key: String::new(), message, help }
}

fn result(applied: Applied, loaded: &LoadedConfig, problems: &[Problem]) -> ReloadResult {
    let held = applied.events.iter().filter(|event| event.kind == "held").filter_map(|event| event.split.clone());
    let (mut warnings, mut diagnostics) = (loaded.warnings.clone(), loaded.diagnostics.clone());
    for problem in problems {
        let report = loaded.explain(std::slice::from_ref(problem));
        warnings.push(report.text);
        if let (Value::Array(all), Value::Array(new)) = (&mut diagnostics, report.diagnostics) {
            all.extend(new);
        }
    }
    ReloadResult::Applied {
        revision: applied.snapshot.revision,
        changed: applied.changed,
        persisted: applied.persisted,
        held: held.collect(),
        warnings,
        diagnostics,
    }
}

fn log(outcome: &ReloadOutcome, before: u64) {
    let (by, took_ms) = (&outcome.by.0, outcome.took.as_millis() as u64);
    match &outcome.result {
        ReloadResult::Applied { revision, changed, persisted, held, warnings, .. } => {
            for warning in warnings {
                tracing::warn!(event = "config-warning", by, "{}", warning.trim_end());
            }
            let held = held.iter().map(|split| split.as_str()).collect::<Vec<_>>().join(" ");
            tracing::info!(event = "reloaded", by, revision = revision.0, changed, persisted, held, took_ms);
        }
        ReloadResult::Rejected { report, .. } => {
            tracing::error!(event = "config-rejected", by, revision = before, took_ms, "{}", report.trim_end());
        }
        ReloadResult::Unchanged => tracing::debug!(event = "config-unchanged", by, revision = before, took_ms),
    }
}

impl fmt::Debug for ReloadHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReloadHandle").field("status", &*self.status.borrow()).finish_non_exhaustive()
    }
}

impl fmt::Debug for Reloader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reloader").field("listeners", &self.listeners).finish_non_exhaustive()
    }
}

#[cfg(test)]
impl ReloadHandle {
    /// A handle whose orders are answered `Unchanged`, and the loads that came in as its orders.
    pub(super) fn fake(running: Arc<Config>) -> (Self, mpsc::UnboundedReceiver<LoadedConfig>) {
        let (commands, mut orders) = mpsc::channel::<Command>(1);
        let (sender, status) = watch::channel(ReloadStatus::started(running, [0; 32]));
        let (seen, loads) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            let _status = sender;
            while let Some(Command::Reload { by, loaded, answer, .. }) = orders.recv().await {
                let (at, took) = (SystemTime::now(), std::time::Duration::ZERO);
                let _ = seen.send(*loaded.expect("the watcher has loaded it"));
                let _ = answer.send(ReloadOutcome { result: ReloadResult::Unchanged, by, at, took });
            }
        });
        (Self { commands, status }, loads)
    }
}

#[cfg(test)]
#[path = "reloader_tests.rs"]
mod tests;
