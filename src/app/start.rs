//! From a file to everything a running weir is made of, in the order in which each step can still be taken back.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpListener;

use super::load::{loaded, loader};
use super::{Options, StartError, bounds};
use crate::cli::Exit;
use crate::config::{self, Config};
use crate::dns::Statuses;
use crate::health;
use crate::lifecycle::{Blocker, Readiness};
use crate::model::Instant;
use crate::net::listen::{Listeners, bind_one};
use crate::pool::Registry;
use crate::proxy::{DataPlane, Parts};
use crate::reload::{self, LoadedConfig, Loader, Problem, ReloadHandle, Reloader, last_good_path};
use crate::state::{OpenError, OpenOptions, Store};
use crate::telemetry::{self, AccessLog, AccessWriter, Cells, Flusher, events};

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
    pub(super) reloads: ReloadHandle,
    pub(super) reloader: Reloader,
    pub(super) readiness: Readiness,
    pub(super) starting: Blocker,
    /// Taken when it is served.
    pub(super) admin: Option<TcpListener>,
    pub(super) probes: Option<TcpListener>,
}

/// Builds it. Nothing is accepted yet on the data plane when an error comes.
pub(super) fn world(options: &Options) -> Result<World, StartError> {
    let readiness = Readiness::new();
    let starting = readiness.block("starting");
    let (loaded, config) = configuration(options)?;
    let log = &config.telemetry.log;
    events::init(log.level, events_format(log.format));
    loaded.warnings.iter().for_each(|text| tracing::warn!(event = "config-warning", "{text}"));
    bounds::raise_descriptors();
    let store = open_store(&config, options)?;
    // Both control addresses before the data plane: a second weir by mistake must not take requests for a moment.
    let admin = control_listener(&loaded, "admin.bind", config.admin.bind)?;
    let probes = config.telemetry.bind.map(|at| control_listener(&loaded, "telemetry.bind", at)).transpose()?;
    let cells = Arc::new(Cells::new());
    let mut flusher = Flusher::new(cells.clone(), Instant::now());
    flusher.register(&config);
    let access = AccessWriter::start(io::stdout()).map_err(internal)?;
    let logs = access_logs(&access, &config);
    let plane = Arc::new(
        DataPlane::start(Parts { snapshot: store.shared(), swapped: store.swapped(), cells, access: logs })
            .map_err(internal)?,
    );
    let listeners = listeners(&plane, &config, &loaded)?;
    bounds::tell(&config);
    let load = loader(options.config.clone());
    let effective: reload::Effective = Arc::new(config::effective);
    let running = (config.clone(), loaded.digest);
    let (reloads, reloader) = Reloader::new(load.clone(), running, store.clone(), listeners.clone(), effective);
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
        reloads,
        reloader,
        readiness,
        starting,
        admin: Some(admin),
        probes,
    })
}

/// How events are written: they go to stderr.
pub(super) fn events_format(format: config::LogFormat) -> telemetry::Format {
    telemetry::Format::resolve(format, &io::stderr())
}

/// The file, or with `--last-good` its last good copy.
fn configuration(options: &Options) -> Result<(LoadedConfig, Arc<Config>), StartError> {
    let first = config::load(&options.config, &super::load::env);
    let text = first.report.text(options.color);
    let first = loaded(&options.config, first);
    if let Ok(config) = first.config.clone() {
        return Ok((first, config));
    }
    if options.last_good {
        let path = last_good_path(&config::state_dir(&options.config, &super::load::env));
        let copy = loaded(&path, config::load(&path, &super::load::env));
        if let Ok(config) = copy.config.clone() {
            // The watcher goes on with the file that is meant, so mending it is enough.
            return Ok((LoadedConfig { files: first.files, folders: first.folders, ..copy }, config));
        }
    }
    Err(StartError::new(Exit::ConfigInvalid, text))
}

fn open_store(config: &Arc<Config>, options: &Options) -> Result<Arc<Store>, StartError> {
    let open = OpenOptions { ignore_state: options.ignore_state };
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

fn control_listener(loaded: &LoadedConfig, key: &str, address: SocketAddr) -> Result<TcpListener, StartError> {
    // The same exclusive bind as for the data plane, with one socket.
    let socket = bind_one(address).map_err(|error| {
        let message = format!("`{key}`: {error}");
        let problem =
            Problem { code: "address-in-use", is_warning: false, key: key.to_owned(), message, help: error.remedy() };
        StartError::new(Exit::Address, loaded.explain(&[problem]).text)
    })?;
    TcpListener::from_std(socket).map_err(internal)
}

fn access_logs(writer: &AccessWriter, config: &Config) -> Vec<AccessLog> {
    let log = &config.telemetry.log;
    let format = telemetry::Format::resolve(log.format, &io::stdout());
    (0..config.workers).map(|_| writer.log(format, log.sample, fastrand::u64(..))).collect()
}

fn listeners(plane: &Arc<DataPlane>, config: &Config, loaded: &LoadedConfig) -> Result<Arc<Listeners>, StartError> {
    let theirs = plane.clone();
    let send = Arc::new(move |worker, command| theirs.command(worker, command));
    let listeners = Arc::new(Listeners::new(config.workers, send));
    let prepared = listeners.prepare(&reload::wanted(config)).map_err(|refused| {
        let problems: Vec<_> = refused.iter().map(|r| reload::not_bound(config, r)).collect();
        StartError::new(Exit::Address, loaded.explain(&problems).text)
    })?;
    // Nothing was open, so nothing is stopped.
    drop(listeners.commit(prepared));
    Ok(listeners)
}

fn internal(error: impl std::fmt::Display) -> StartError {
    StartError::new(Exit::Failed, format!("error: {error}"))
}
