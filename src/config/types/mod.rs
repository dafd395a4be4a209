//! The validated configuration: what the rest of the program is given, section by section.
//!
//! Invariant: every name in it resolves, every number is in range, every default is filled in; nothing later
//! re-checks it. Only `resolve` makes one. Keys that are refused with `not-yet` have no field here.

mod health;
mod listeners;
mod notify;
mod rollout;
mod routes;
mod splits;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

pub use self::health::*;
pub use self::listeners::*;
pub use self::notify::*;
pub use self::rollout::*;
pub use self::routes::*;
pub use self::splits::*;

/// The whole file (and its includes), resolved.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Data-plane threads; at least 1 (`workers = 0` has become the number of CPUs).
    pub workers: usize,
    /// Reload when a file changes.
    pub watch: bool,
    pub shutdown: Shutdown,
    /// In file order; names unique; at least one.
    pub listeners: Vec<Listener>,
    /// In file order; names unique; at least one.
    pub routes: Vec<Route>,
    /// In file order; names unique; at least one, unless every route answers by itself.
    pub splits: Vec<Split>,
    pub dns: Dns,
    pub admin: Admin,
    pub telemetry: Telemetry,
    /// In file order.
    pub notify: Vec<Notify>,
}

/// How the process goes down.
#[derive(Clone, Debug, PartialEq)]
pub struct Shutdown {
    /// Not ready, but still accepting, for this long.
    pub delay: Duration,
    /// All is over this long after the signal, `delay` included.
    pub timeout: Duration,
}

/// Who is asked for the addresses of names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dns {
    /// Empty: those of the system.
    pub servers: Vec<SocketAddr>,
    /// A file in the form of `/etc/hosts`; its names are asked of nobody.
    pub hosts: PathBuf,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Admin {
    pub bind: SocketAddr,
    /// Extra names accepted in `Host`, lower case.
    pub hosts: Vec<String>,
    /// Overrides and history live here.
    pub state_dir: PathBuf,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Telemetry {
    /// Extra address that serves only `/metrics`, `/livez`, `/readyz`.
    pub bind: Option<SocketAddr>,
    pub log: Log,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Log {
    pub level: Level,
    pub format: LogFormat,
    /// Write an access line per request.
    pub access: bool,
    /// Part of the successful requests that gets an access line, 0..1; errors always do.
    pub sample: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Text on a terminal, else JSON.
    Auto,
    Text,
    Json,
}
