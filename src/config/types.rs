//! The validated configuration: what the rest of the program is given, section by section.
//!
//! Invariant: every name in it resolves, every number is in range, every default is filled in; nothing later
//! re-checks it. Only `resolve` makes one. Keys that are refused with `not-yet` have no field here.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::model::{ListenerName, RouteName, SplitName, VersionName, Weight, Weights};

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
    /// In file order; names unique; at least one.
    pub splits: Vec<Split>,
    pub admin: Admin,
    pub telemetry: Telemetry,
}

/// How the process goes down.
#[derive(Clone, Debug, PartialEq)]
pub struct Shutdown {
    /// Not ready, but still accepting, for this long.
    pub delay: Duration,
    /// All is over this long after the signal, `delay` included.
    pub timeout: Duration,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Listener {
    pub name: ListenerName,
    /// At least one; unique over all listeners.
    pub bind: Vec<SocketAddr>,
    pub limits: Limits,
    pub timeouts: ClientTimeouts,
}

/// What clients may use up, per listener and process.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// Open client connections; above it accepting waits.
    pub connections: usize,
    /// Bytes of a request head; above it 431.
    pub header_bytes: usize,
}

/// How long clients are waited for; `None` = no limit.
#[derive(Clone, Debug, PartialEq)]
pub struct ClientTimeouts {
    /// From the first byte of a head to its end; above it 408.
    pub header: Option<Duration>,
    /// Between two requests of a connection.
    pub idle: Option<Duration>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    /// As written, else `route-1`, `route-2` by place in the file.
    pub name: RouteName,
    /// Listeners it applies to; empty = all.
    pub listeners: Vec<ListenerName>,
    /// Any of these matches; empty = every request.
    pub matches: Vec<Match>,
    pub split: SplitName,
}

/// One alternative of a route's `match`: all its parts must hold.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Match {
    pub host: Option<HostMatch>,
    pub path: Option<PathMatch>,
    /// Upper case; empty = any.
    pub methods: Vec<String>,
}

/// Lower case, without port and final dot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostMatch {
    Exact(String),
    /// `*.example.com` is kept as `.example.com`: matches every longer host that ends so.
    Suffix(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathMatch {
    Exact(String),
    /// By whole segments; without the final `/` (`""` is the prefix `/`).
    Prefix(String),
    /// A pattern that is known to compile with the crate `regex`.
    Regex(String),
}

#[derive(Clone, Debug, PartialEq)]
pub struct Split {
    pub name: SplitName,
    /// Rollback target: as written, else the version of the largest weight (the first of equals).
    pub stable: VersionName,
    /// Answers carry `weir-version`.
    pub expose_version: bool,
    pub timeouts: UpstreamTimeouts,
    pub drain: Drain,
    pub pool: PoolLimits,
    /// In file order; names unique; at least one has a weight above 0.
    pub versions: Vec<Version>,
}

impl Split {
    /// The weights as the file says, in file order.
    pub fn weights(&self) -> Weights {
        self.versions.iter().map(|v| (v.name.clone(), v.weight)).collect()
    }
}

/// How long an endpoint is waited for; `None` = no limit.
#[derive(Clone, Debug, PartialEq)]
pub struct UpstreamTimeouts {
    pub connect: Option<Duration>,
    /// From the request's being sent to the first byte of the answer.
    pub first_byte: Option<Duration>,
    /// The whole exchange, both bodies included.
    pub total: Option<Duration>,
    /// Life of an idle pooled connection.
    pub idle: Option<Duration>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Drain {
    /// After this a leaving endpoint's requests are cut.
    pub timeout: Duration,
}

#[derive(Clone, Debug, PartialEq)]
pub struct PoolLimits {
    /// Idle connections kept per endpoint, over all workers.
    pub idle_per_endpoint: usize,
    /// Requests in flight per endpoint, over all workers; above it the endpoint counts as full.
    pub max_in_flight: u32,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Version {
    pub name: VersionName,
    pub weight: Weight,
    /// In file order, unique; may be empty only for weight 0.
    pub endpoints: Vec<SocketAddr>,
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
