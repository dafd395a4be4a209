//! The one write path: check, build aside, write, swap, publish, answer.
//!
//! A rollback and a reload swap and publish before they write, because taking traffic off a bad version must not wait
//! for a sick disk; everything else is on disk before anybody sees it. Invariants: the writer's lock covers a change
//! from check to answer, so revisions have no gap and events come in their order; `book` always is what `current`
//! shows; the request path never takes the lock.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::SystemTime;

use arc_swap::ArcSwap;
use tokio::sync::{Notify, broadcast};

use super::book::Book;
use super::disk::{self, Disk, Found, NoDisk};
use super::hand_over::Handed;
use super::history::{Log, Memory};
use super::names::Names;
use super::plan::{Before, Plan, plan, reload};
use super::secure::Secured;
use super::{Applied, ApplyError, Change, ChangeEvent, HistoryEntry, Order, Snapshot, VersionState, build, format};
use crate::config::Config;
use crate::model::{Actor, Instant, Source, SplitName, VersionName, rfc3339_ms};
use crate::pool::{Endpoint, EndpointKey, Registry};
use crate::tls::Shared;

/// Events a slow subscriber may lag behind before it loses some.
const EVENTS: usize = 256;

/// How to open the state.
#[derive(Debug, Default)]
pub struct OpenOptions {
    /// Start although `state.json` is of a newer format: it is set aside, not overwritten.
    pub ignore_state: bool,
    /// By the process before us, which may yet go on: then nothing is written before `settle`.
    pub handed: Option<Handed>,
}

/// Why the process must not start.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(
        "{path} was written by a newer weir (format {found}, this one knows {known}); use that version, or start with --ignore-state"
    )]
    Newer { path: PathBuf, found: u64, known: u64 },
    #[error("{path} is in use by another weir{}", holder.map(|pid| format!(" (process {pid})")).unwrap_or_default())]
    Locked { path: PathBuf, holder: Option<u32> },
    #[error("{0}")]
    HeldConflict(String),
    #[error("{0}")]
    BadTls(String),
}

/// See the file's head.
#[derive(Debug)]
pub struct Store {
    current: Arc<ArcSwap<Snapshot>>,
    swapped: Arc<Notify>,
    registry: Arc<Registry>,
    /// What TLS sessions need to outlive reloads.
    tls: Shared,
    events: broadcast::Sender<ChangeEvent>,
    /// Apart from the writer, so that reading history does not wait for the disk.
    memory: Mutex<Memory>,
    writer: Mutex<Writer>,
    state_errors: AtomicU64,
}

#[derive(Debug)]
pub(super) struct Writer {
    pub(super) book: Book,
    pub(super) names: Names,
    /// `None`: memory mode.
    pub(super) files: Option<Files>,
    /// The disk is behind, or may be.
    pub(super) dirty: bool,
    /// No change, and no write, until it is over; see `hand_over`.
    pub(super) frozen: bool,
}

#[derive(Debug)]
pub(super) struct Files {
    pub(super) disk: Disk,
    pub(super) log: Log,
}

impl Store {
    /// Reads what is remembered, puts it on top of the file, and takes the directory for this process.
    ///
    /// # Errors
    /// Another process has the directory; the state is of a newer format; a held override cannot stand on this file; its
    /// TLS cannot be had.
    pub fn open(config: Arc<Config>, registry: Arc<Registry>, options: &OpenOptions) -> Result<Self, OpenError> {
        let dir = &config.admin.state_dir;
        let handed = options.handed.as_ref().filter(|handed| handed.dir == *dir);
        let disk = open_disk(dir, handed)?;
        let found = match handed.map(Handed::book).transpose()?.flatten() {
            Some(book) => Found { book: Some(book), stale: true },
            None => disk::read(dir, options.ignore_state)?,
        };
        let mut memory = Memory::default();
        let mut book = found.book.unwrap_or_default();
        let files = match disk {
            Some(disk) => Some(Files { log: Log::open(dir, &book.recent, &mut memory), disk }),
            None => {
                memory.push(book.recent.iter().cloned());
                None
            }
        };
        // History may know more than a state that had to be recovered; no revision is ever given twice.
        book.revision = book.revision.max(memory.revision());
        let (order, at) = (start_order(&config), rfc3339_ms(SystemTime::now()));
        let known = options.handed.as_ref().map(|handed| &handed.known);
        let names = known.map(|known| Names::of_another(&known.names)).unwrap_or_default();
        let plan = reload((&book, &names), None, &config, &order, &at)
            .map_err(|why| OpenError::HeldConflict(format!("{why} (or forget all state: empty {})", dir.display())))?;
        let is_new = plan.is_some() || found.stale;
        let unchanged = || Plan { book, config, touched: Default::default(), events: Vec::new(), names };
        let plan = plan.unwrap_or_else(unchanged);
        let (tls, secured) = secure(&plan)?;
        let first = build::snapshot(&plan, secured, None, &|key| registry.endpoint(key), files.is_some());
        build::settle_drains(&plan, &first, Instant::now());
        build::settle_health(None, &first);
        known.into_iter().for_each(|known| known.settle_health(&registry));
        let store = Self {
            current: Arc::new(ArcSwap::from_pointee(first)),
            swapped: Arc::default(),
            registry,
            tls,
            events: broadcast::Sender::new(EVENTS),
            memory: Mutex::new(memory),
            writer: Mutex::new(Writer { book: plan.book, names: plan.names, files, dirty: is_new, frozen: false }),
            state_errors: AtomicU64::new(0),
        };
        store.publish(&plan.events);
        let mut writer = store.writer();
        if options.handed.is_some() {
            writer.files.iter_mut().for_each(|files| files.log.defer(&plan.events));
        } else if is_new {
            store.write_behind(&mut writer, &plan.events);
        }
        drop(writer);
        Ok(store)
    }

    /// What is in force now.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    /// Woken after every swap, for those who wait for one.
    pub fn swapped(&self) -> Arc<Notify> {
        self.swapped.clone()
    }

    /// For the data plane's cached reads.
    pub fn shared(&self) -> Arc<ArcSwap<Snapshot>> {
        self.current.clone()
    }

    /// Which endpoints exist.
    pub fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    /// Carries out an order, or says why not. Blocks for the disk (two syncs), never for anything else.
    ///
    /// # Errors
    /// Nothing has changed; see `ApplyError`.
    pub fn apply(&self, order: Order) -> Result<Applied, ApplyError> {
        let mut writer = self.writer();
        if writer.frozen && !order.dry_run {
            return Err(ApplyError::Frozen);
        }
        let now = self.snapshot();
        let at = rfc3339_ms(SystemTime::now());
        let past = |split: &SplitName, revision| self.memory().weights_at(split, revision);
        let is_able = |split: &SplitName, version: &VersionName| {
            now.split(split.as_str()).and_then(|s| s.version(version.as_str())).is_some_and(VersionState::is_able)
        };
        let before = Before {
            book: &writer.book,
            config: &now.config,
            names: &writer.names,
            past: &past,
            is_able: &is_able,
            at: &at,
        };
        let Some(plan) = plan(&before, &order)? else {
            return Ok(Applied { persisted: now.persisted, snapshot: now, changed: false, events: Vec::new() });
        };
        let secured = Secured::new(&plan.config, Some(&now), &self.tls)?;
        if order.dry_run {
            return Ok(self.rehearse(&now, plan, secured));
        }
        match order.change {
            Change::Resolved { .. } => Ok(self.swap_alone(&mut writer, &now, plan, secured)),
            Change::Reload { .. } | Change::Rollback { .. } | Change::Available { .. } => {
                Ok(self.swap_then_write(&mut writer, &now, plan, secured))
            }
            _ => self.write_then_swap(&mut writer, &now, (plan, secured), &order.change),
        }
    }

    /// Newest first; `before` is exclusive.
    pub fn history(&self, split: Option<&SplitName>, limit: usize, before: Option<u64>) -> Vec<HistoryEntry> {
        self.memory().newest(split, limit, before)
    }

    /// Every change from now on.
    pub fn subscribe(&self) -> broadcast::Receiver<ChangeEvent> {
        self.events.subscribe()
    }

    /// Writes again what a failed write left behind; call it every second or so. True if all is on disk.
    pub fn retry_persist(&self) -> bool {
        let mut writer = self.writer();
        if writer.frozen {
            return !writer.dirty;
        }
        if writer.dirty {
            return self.write_behind(&mut writer, &[]);
        }
        writer.files.as_mut().is_some_and(|files| {
            files.log.compact();
            files.log.flush()
        })
    }

    /// Writes to `state_dir` that failed since the start.
    pub fn state_errors(&self) -> u64 {
        self.state_errors.load(Ordering::Relaxed)
    }

    /// A panic under this lock leaves `book` whole, since it is only ever replaced: so poison means nothing.
    pub(super) fn writer(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn try_writer(&self) -> Option<MutexGuard<'_, Writer>> {
        match self.writer.try_lock() {
            Ok(writer) => Some(writer),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn rehearse(&self, now: &Snapshot, plan: Plan, secured: Secured) -> Applied {
        let known =
            |key: &EndpointKey| self.registry.find(key).unwrap_or_else(|| Arc::new(Endpoint::new(key.address.clone())));
        let snapshot = Arc::new(build::snapshot(&plan, secured, Some(now), &known, now.persisted));
        Applied { snapshot, changed: true, persisted: now.persisted, events: plan.events }
    }

    /// Makes the plan what requests see, endpoints that come and go included.
    fn show(&self, now: &Snapshot, plan: &Plan, secured: Secured) {
        let next = build::snapshot(plan, secured, Some(now), &|key| self.registry.endpoint(key), now.persisted);
        // Before the swap: an endpoint that comes back must not take requests while its version drains.
        build::settle_drains(plan, &next, Instant::now());
        build::settle_health(Some(now), &next);
        build::admit_new(now, &next);
        self.swap(Arc::new(next));
        build::remove_gone(&self.registry, &now.config, plan, Instant::now());
    }

    /// For what is neither ordered nor remembered.
    fn swap_alone(&self, writer: &mut Writer, now: &Snapshot, plan: Plan, secured: Secured) -> Applied {
        self.show(now, &plan, secured);
        writer.names = plan.names;
        Applied { snapshot: self.snapshot(), changed: true, persisted: now.persisted, events: Vec::new() }
    }

    fn swap_then_write(&self, writer: &mut Writer, now: &Snapshot, plan: Plan, secured: Secured) -> Applied {
        self.show(now, &plan, secured);
        writer.book = plan.book;
        self.publish(&plan.events);
        let persisted = self.write_behind(writer, &plan.events);
        Applied { snapshot: self.snapshot(), changed: true, persisted, events: plan.events }
    }

    fn write_then_swap(
        &self,
        writer: &mut Writer,
        now: &Snapshot,
        (plan, secured): (Plan, Secured),
        change: &Change,
    ) -> Result<Applied, ApplyError> {
        if let Err((path, source)) = self.write(writer, &plan.book) {
            // Whether the refused state reached the disk is not known: what is in force is written again.
            writer.dirty = true;
            self.show_persisted(false);
            return Err(ApplyError::NotPersisted { path: path.display().to_string(), source });
        }
        writer.dirty = false;
        let persisted = writer.files.is_some();
        let find = |key: &EndpointKey| self.registry.endpoint(key);
        let next = Arc::new(build::snapshot(&plan, secured, Some(now), &find, persisted));
        // A drain after the swap, so that a request refused here finds the new coin when it looks again.
        if matches!(change, Change::Drain { .. }) {
            self.swap(next.clone());
            build::settle_drains(&plan, &next, Instant::now());
        } else {
            build::settle_drains(&plan, &next, Instant::now());
            self.swap(next.clone());
        }
        writer.book = plan.book;
        self.publish(&plan.events);
        if let Some(files) = &mut writer.files {
            files.log.append(&plan.events);
        }
        Ok(Applied { snapshot: next, changed: true, persisted, events: plan.events })
    }

    /// Writes what is already in force. True if it is on disk.
    pub(super) fn write_behind(&self, writer: &mut Writer, events: &[HistoryEntry]) -> bool {
        let written = self.write(writer, &writer.book).is_ok();
        writer.dirty = !written;
        let Some(files) = &mut writer.files else { return false };
        if written {
            files.log.append(events);
        } else {
            files.log.defer(events);
        }
        self.show_persisted(written);
        written
    }

    /// Writes a book, unless in memory mode; a failure is counted and told.
    fn write(&self, writer: &Writer, book: &Book) -> Result<(), (PathBuf, std::io::Error)> {
        let Some(Files { disk, .. }) = &writer.files else { return Ok(()) };
        let written = format::encode(book).map_err(Into::into).and_then(|bytes| disk.write(&bytes));
        written.map_err(|error| {
            self.state_errors.fetch_add(1, Ordering::Relaxed);
            tracing::error!(event = "state_not_written", path = %disk.path().display(), %error, "will be tried again");
            (disk.path(), error)
        })
    }

    /// Only ever called by the holder of the writer's lock.
    fn show_persisted(&self, persisted: bool) {
        let now = self.current.load();
        if now.persisted != persisted {
            self.swap(Arc::new(build::with_persisted(&now, persisted)));
        }
    }

    fn swap(&self, next: Arc<Snapshot>) {
        self.current.store(next);
        self.swapped.notify_waiters();
    }

    fn publish(&self, events: &[HistoryEntry]) {
        self.memory().push(events.iter().cloned());
        for event in events {
            log(event);
            // Nobody listening is no error.
            let _ = self.events.send(event.clone());
        }
    }
}

fn open_disk(dir: &std::path::Path, handed: Option<&Handed>) -> Result<Option<Disk>, OpenError> {
    match Disk::open(dir, handed.and_then(|handed| handed.lock.as_ref())) {
        Ok(disk) => Ok(Some(disk)),
        Err(NoDisk::Locked { holder }) => Err(OpenError::Locked { path: dir.to_owned(), holder }),
        Err(NoDisk::Unusable(error)) => {
            tracing::warn!(event = "memory_mode", path = %dir.display(), %error,
                "state_dir cannot be used: overrides, holds and drains will not survive a restart");
            Ok(None)
        }
    }
}

/// The first configuration's TLS, and what will be shared with those to come.
fn secure(plan: &Plan) -> Result<(Shared, Secured), OpenError> {
    let key = "tls".to_owned();
    let shared = Shared::new().map_err(|source| OpenError::BadTls(ApplyError::BadTls { key, source }.to_string()))?;
    let secured = Secured::new(&plan.config, None, &shared).map_err(|error| OpenError::BadTls(error.to_string()))?;
    Ok((shared, secured))
}

fn start_order(config: &Arc<Config>) -> Order {
    Order {
        id: fastrand::u128(..),
        change: Change::Reload { config: config.clone() },
        by: Actor("file".into()),
        source: Source::File,
        reason: Some("start".into()),
        if_match: None,
        dry_run: false,
    }
}

/// One line per change.
fn log(entry: &HistoryEntry) {
    let event = match entry.kind.as_str() {
        kind @ ("held" | "superseded") => kind,
        _ => "changed",
    };
    tracing::info!(
        event,
        kind = entry.kind,
        split = entry.split.as_ref().map(tracing::field::display),
        target_ = entry.target,
        by = entry.by.0,
        source = entry.source.as_str(),
        from = entry.from.as_ref().map(tracing::field::display),
        to = entry.to.as_ref().map(tracing::field::display),
        revision = entry.revision.0,
        reason = entry.reason,
    );
}
