//! The complete file as it is written (surface.md section 3): every key with its type, default and description.
//!
//! From these types comes the one schema that drives unknown keys, allowed keys, type checks, defaults and
//! `weir schema`; so a key is added here and nowhere else. A key whose function is not built yet carries
//! `x-weir-not-yet` and never reaches `resolve`. Fields stand in the order in which "keys allowed here" lists them.

mod later;
mod listeners;
mod notify;
mod rollout;
mod routes;
mod splits;
mod values;

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use later::*;
pub use listeners::*;
pub use notify::*;
pub use rollout::*;
pub use routes::*;
pub use splits::*;
pub use values::*;

/// The configuration of weir, a Layer-7 reverse proxy that splits traffic among versions.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RawConfig {
    /// Further files, relative to this one; `*` is allowed in the file name. Merged by name.
    pub include: Vec<String>,
    /// Data-plane threads; 0 = one per CPU.
    #[schemars(range(min = 0, max = 1024))]
    pub workers: usize,
    /// Reload when a file changes.
    pub watch: bool,
    /// How the process goes down.
    pub shutdown: RawShutdown,
    /// Addresses weir accepts connections on, by name.
    pub listeners: IndexMap<String, RawListener>,
    /// Which requests go where; the most specific match wins.
    pub routes: Vec<RawRoute>,
    /// What every split takes unless it says otherwise.
    pub defaults: RawDefaults,
    /// Applications whose traffic is divided among their versions, by name.
    pub splits: IndexMap<String, RawSplit>,
    /// Feature flags, by name.
    #[schemars(extend("x-weir-not-yet" = true))]
    pub flags: IndexMap<String, RawFlag>,
    /// Who is asked for the addresses of names.
    pub dns: RawDns,
    /// Dashboard, API, metrics and probes.
    pub admin: RawAdmin,
    /// Metrics, logs and traces.
    pub telemetry: RawTelemetry,
    /// Who is told what happens.
    pub notify: Vec<RawNotify>,
    /// Several weirs that act as one.
    #[schemars(extend("x-weir-not-yet" = true))]
    pub fleet: Option<RawFleet>,
}

impl Default for RawConfig {
    fn default() -> Self {
        Self {
            include: Vec::new(),
            workers: 0,
            watch: true,
            shutdown: RawShutdown::default(),
            listeners: IndexMap::new(),
            routes: Vec::new(),
            defaults: RawDefaults::default(),
            splits: IndexMap::new(),
            flags: IndexMap::new(),
            dns: RawDns::default(),
            admin: RawAdmin::default(),
            telemetry: RawTelemetry::default(),
            notify: Vec::new(),
            fleet: None,
        }
    }
}

/// How the process goes down.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RawShutdown {
    /// Not ready, but still accepting, for this long.
    pub delay: Dur,
    /// All is over this long after the signal, `delay` included.
    pub timeout: Dur,
}

impl Default for RawShutdown {
    fn default() -> Self {
        Self { delay: Dur::secs(0), timeout: Dur::secs(25) }
    }
}

/// Who is asked for the addresses of names.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RawDns {
    /// Name servers, `ip` or `ip:port`; default: those of /etc/resolv.conf, with its search domains.
    pub servers: Vec<String>,
    /// Names that no server is asked for.
    pub hosts: String,
}

impl Default for RawDns {
    fn default() -> Self {
        Self { servers: Vec::new(), hosts: "/etc/hosts".into() }
    }
}

/// Dashboard, API, metrics and probes.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RawAdmin {
    /// A loopback address; others are refused while there are no tokens.
    pub bind: String,
    /// Names accepted in `Host`, beside loopback names and IP addresses.
    pub hosts: Vec<String>,
    /// Where overrides and history live; default: $STATE_DIRECTORY, else the user's state folder.
    pub state_dir: Option<String>,
    /// Who may do what.
    #[schemars(extend("x-weir-not-yet" = true))]
    pub tokens: Vec<RawToken>,
}

impl Default for RawAdmin {
    fn default() -> Self {
        Self { bind: "127.0.0.1:9901".into(), hosts: Vec::new(), state_dir: None, tokens: Vec::new() }
    }
}

/// Metrics, logs and traces.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RawTelemetry {
    /// An extra address that serves only /metrics, /livez and /readyz.
    pub bind: Option<String>,
    /// Events on standard error, access lines on standard output.
    pub log: RawLog,
    /// What the metrics look like.
    #[schemars(extend("x-weir-not-yet" = true))]
    pub metrics: RawMetrics,
    /// OpenTelemetry traces.
    #[schemars(extend("x-weir-not-yet" = true))]
    pub traces: Option<RawTraces>,
}

/// What is logged, and how.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RawLog {
    /// Events less important than this are left out.
    pub level: RawLevel,
    /// `auto`: text on a terminal, else JSON.
    pub format: RawLogFormat,
    /// An access line per request.
    pub access: bool,
    /// Part of the successful requests that gets an access line; errors always do.
    #[schemars(range(min = 0, max = 1))]
    pub sample: f64,
}

impl Default for RawLog {
    fn default() -> Self {
        Self { level: RawLevel::Info, format: RawLogFormat::Auto, access: true, sample: 1.0 }
    }
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RawLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RawLogFormat {
    Auto,
    Text,
    Json,
}
