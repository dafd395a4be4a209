//! From a file to everything a running weir is made of, in the order in which each step can still be taken back.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use arc_swap::ArcSwap;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};

use super::load::{loaded, loader};
use super::upgrade::{Candidate, Upgrades};
use super::{Options, StartError, bounds};
use crate::cli::Exit;
use crate::config::{self, Config};
use crate::dns::Statuses;
use crate::health;
use crate::lifecycle::{Blocker, Notifier, Readiness};
use crate::model::Instant;
use crate::net::listen::{Inherited, Listeners, Prepared, activated, bind_one};
use crate::pool::Registry;
use crate::proxy::{DataPlane, Parts};
use crate::reload::{self, LoadedConfig, Loader, Problem, ReloadHandle, Reloader, last_good_path};
use crate::rollout::{Ask, Board, Desk};
use crate::state::{self, OpenError, OpenOptions, Store};
use crate::telemetry::{self, AccessLog, AccessWriter, Cells, Flusher, events};
use crate::upgrade::{Control, Parcel, Program, Role, Tally};

/// A weir that is complete but for its tasks.
pub(super) struct World {
    pub(super) config: Arc<Config>,
    pub(super) loaded: LoadedConfig,
    pub(super) load: Loader,
    pub(super) store: Arc<Store>,
    /// How names stand; filled once they are followed.
    pub(super) names: Statuses,
    pub(super) listeners: Arc<Listeners>,
    pub(super) plane: Arc<DataPlane>,
    pub(super) flusher: Flusher,
    pub(super) access: AccessWriter,
    /// What the active checks found.
    pub(super) checks: health::Board,
    pub(super) desk: Desk,
    /// The desk's other side, until somebody serves it.
    pub(super) asked: Option<(mpsc::Receiver<Ask>, Arc<ArcSwap<Board>>)>,
    pub(super) cells: Arc<Cells>,
    pub(super) reloads: ReloadHandle,
    pub(super) reloader: Reloader,
    pub(super) readiness: Readiness,
    pub(super) starting: Blocker,
    pub(super) notifier: Arc<Notifier>,
    pub(super) upgrades: Arc<Upgrades>,
    /// Successors that are ready.
    pub(super) candidates: mpsc::Receiver<Candidate>,
    /// Bound and not accepted from; see `open`.
    pub(super) prepared: Option<Prepared>,
    /// Taken when it is served.
    pub(super) admin: Option<TcpListener>,
    pub(super) probes: Option<TcpListener>,
}

impl World {
    /// Begins to accept on the data plane.
    pub(super) fn open(&mut self) {
        // Nothing was open, so nothing is stopped.
        self.prepared.take().into_iter().for_each(|prepared| drop(self.listeners.commit(prepared)));
    }
}

/// Builds it, on what a process before us has handed over, if there is one. Nothing is accepted yet.
pub(super) fn world(options: &Options, parcel: Option<Parcel>) -> Result<World, StartError> {
    let readiness = Readiness::new();
    let starting = readiness.block("starting");
    let (loaded, config) = configuration(options, parcel.is_none())?;
    let log = &config.telemetry.log;
    events::init(log.level, events_format(log.format));
    loaded.warnings.iter().for_each(|text| tracing::warn!(event = "config-warning", "{text}"));
    let program = options.signals.then(Program::of_this_process);
    let (mut given, state) = given(options, parcel);
    bounds::raise_descriptors();
    let store = open_store(&config, options, state)?;
    // Both control addresses before the data plane: a second weir by mistake must not take requests for a moment.
    let admin = given.control_listener(&loaded, Role::Admin, config.admin.bind)?;
    let at = config.telemetry.bind;
    let probes = at.map(|at| given.control_listener(&loaded, Role::Telemetry, at)).transpose()?;
    let cells = Arc::new(Cells::new());
    let mut flusher = Flusher::new(cells.clone(), Instant::now());
    flusher.register(&config);
    let access = AccessWriter::start(io::stdout()).map_err(internal)?;
    let (desk, asked, board) = Desk::new();
    let logs = access_logs(&access, &config);
    let plane = Arc::new(
        DataPlane::start(Parts {
            snapshot: store.shared(),
            swapped: store.swapped(),
            cells: cells.clone(),
            access: logs,
        })
        .map_err(internal)?,
    );
    let (listeners, prepared) = listeners(&plane, &config, &loaded, given.listeners)?;
    bounds::tell(&config);
    let load = loader(options.config.clone());
    let effective: reload::Effective = Arc::new(config::effective);
    let running = (config.clone(), loaded.digest);
    let (reloads, reloader) = Reloader::new(load.clone(), running, store.clone(), listeners.clone(), effective);
    let notifier = Arc::new(if options.signals { Notifier::from_env() } else { Notifier::default() });
    let (ready, candidates) = mpsc::channel(1);
    let upgrades = Upgrades {
        program,
        store: store.clone(),
        listeners: listeners.clone(),
        reloads: reloads.clone(),
        control: Mutex::new(
            [Some(&admin), probes.as_ref()].into_iter().flatten().map(handle).collect::<Result<_, _>>()?,
        ),
        tally: Mutex::new(given.upgrades),
        one: tokio::sync::Mutex::default(),
        called_off: watch::Sender::new(false),
        ready,
        rollouts: desk.clone(),
    };
    Ok(World {
        config,
        loaded,
        load,
        store,
        names: Statuses::default(),
        listeners,
        plane,
        flusher,
        access,
        checks: health::Board::default(),
        desk,
        asked: Some((asked, board)),
        cells,
        reloads,
        reloader: reloader.telling(notifier.clone()),
        readiness,
        starting,
        notifier,
        upgrades: Arc::new(upgrades),
        candidates,
        prepared: Some(prepared),
        admin: Some(listen(admin)?),
        probes: probes.map(listen).transpose()?,
    })
}

/// How events are written: they go to stderr.
pub(super) fn events_format(format: config::LogFormat) -> telemetry::Format {
    telemetry::Format::resolve(format, &io::stderr())
}

/// What need not be made.
struct Given {
    listeners: Inherited,
    control: Vec<Control>,
    upgrades: Tally,
}

/// From the process before us, or from the service manager.
fn given(options: &Options, parcel: Option<Parcel>) -> (Given, Option<state::Handed>) {
    match parcel {
        Some(Parcel { listeners, control, state, upgrades }) => {
            let upgrades = Tally { done: upgrades.done + 1, ..upgrades };
            (Given { listeners, control, upgrades }, Some(state))
        }
        None => {
            let activated = if options.signals { activated() } else { Vec::new() };
            let listeners = Inherited { handed: Vec::new(), activated };
            (Given { listeners, control: Vec::new(), upgrades: Tally::default() }, None)
        }
    }
}

/// The file, or with `--last-good` its last good copy; a successor takes no copy, since the process before it has better.
fn configuration(options: &Options, may_copy: bool) -> Result<(LoadedConfig, Arc<Config>), StartError> {
    let first = config::load(&options.config, &super::load::env);
    let text = first.report.text(options.color);
    let first = loaded(&options.config, first);
    if let Ok(config) = first.config.clone() {
        return Ok((first, config));
    }
    if options.last_good && may_copy {
        let path = last_good_path(&config::state_dir(&options.config, &super::load::env));
        let copy = loaded(&path, config::load(&path, &super::load::env));
        if let Ok(config) = copy.config.clone() {
            // The watcher goes on with the file that is meant, so mending it is enough.
            return Ok((LoadedConfig { files: first.files, folders: first.folders, ..copy }, config));
        }
    }
    Err(StartError::new(Exit::ConfigInvalid, text))
}

fn open_store(
    config: &Arc<Config>,
    options: &Options,
    handed: Option<state::Handed>,
) -> Result<Arc<Store>, StartError> {
    let open = OpenOptions { ignore_state: options.ignore_state, handed };
    match Store::open(config.clone(), Arc::new(Registry::default()), &open) {
        Ok(store) => Ok(Arc::new(store)),
        Err(error @ OpenError::Newer { .. }) => {
            Err(StartError::new(Exit::ConfigInvalid, format!("error[state-newer]: {error}")))
        }
        Err(error @ OpenError::HeldConflict(_)) => {
            Err(StartError::new(Exit::ConfigInvalid, format!("error[held-conflict]: {error}")))
        }
        Err(error @ OpenError::BadTls(_)) => {
            Err(StartError::new(Exit::ConfigInvalid, format!("error[bad-certificate]: {error}")))
        }
        Err(error @ OpenError::Locked { .. }) => {
            Err(StartError::new(Exit::Failed, format!("error[state-locked]: {error}")))
        }
    }
}

impl Given {
    fn control_listener(
        &mut self,
        loaded: &LoadedConfig,
        role: Role,
        configured: SocketAddr,
    ) -> Result<Control, StartError> {
        if let Some(i) = self.control.iter().position(|c| c.role == role && c.configured == configured) {
            return Ok(self.control.swap_remove(i));
        }
        let key = match role {
            Role::Admin => "admin.bind",
            Role::Telemetry => "telemetry.bind",
        };
        // The same exclusive bind as for the data plane, with one socket.
        let socket = bind_one(configured).map_err(|error| {
            let (key, message, help) = (key.to_owned(), format!("`{key}`: {error}"), error.remedy());
            let problem = Problem { code: "address-in-use", is_warning: false, key, message, help };
            StartError::new(Exit::Address, loaded.explain(&[problem]).text)
        })?;
        Ok(Control { role, configured, socket })
    }
}

fn handle(control: &Control) -> Result<Control, StartError> {
    control.try_clone().map_err(internal)
}

fn listen(control: Control) -> Result<TcpListener, StartError> {
    control.socket.set_nonblocking(true).and_then(|()| TcpListener::from_std(control.socket)).map_err(internal)
}

fn access_logs(writer: &AccessWriter, config: &Config) -> Vec<AccessLog> {
    let log = &config.telemetry.log;
    let format = telemetry::Format::resolve(log.format, &io::stdout());
    (0..config.workers).map(|_| writer.log(format, log.sample, fastrand::u64(..))).collect()
}

fn listeners(
    plane: &Arc<DataPlane>,
    config: &Config,
    loaded: &LoadedConfig,
    inherited: Inherited,
) -> Result<(Arc<Listeners>, Prepared), StartError> {
    let theirs = plane.clone();
    let send = Arc::new(move |worker, command| theirs.command(worker, command));
    let listeners = Arc::new(Listeners::new(config.workers, send).inheriting(inherited));
    let prepared = listeners.prepare(&reload::wanted(config)).map_err(|refused| {
        let problems: Vec<_> = refused.iter().map(|r| reload::not_bound(config, r)).collect();
        StartError::new(Exit::Address, loaded.explain(&problems).text)
    })?;
    listeners.forget_inherited();
    Ok((listeners, prepared))
}

fn internal(error: impl std::fmt::Display) -> StartError {
    StartError::new(Exit::Failed, format!("error: {error}"))
}
