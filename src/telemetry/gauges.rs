//! What other rooms know and the metrics show: filled by the wiring once a second, plain data.

use std::time::{Duration, SystemTime};

use super::rollouts::RolloutGauges;
use crate::model::{Revision, Source, SplitName, VersionName};

/// The state of everything at one instant. What is not in it any more is shown as 0 for an hour, then no more.
#[derive(Clone, Debug, Default)]
pub struct Gauges {
    pub splits: Vec<SplitGauges>,
    /// Each name once.
    pub certificates: Vec<CertificateGauge>,
    /// Each name once.
    pub names: Vec<NameGauge>,
    /// Look-ups since the start, by result.
    pub lookups: Vec<(&'static str, u64)>,
    /// Overrides and history are on disk.
    pub persisted: bool,
    pub reloads: Reloads,
    /// Binary upgrades done and failed, over all processes so far.
    pub upgrades: (u64, u64),
    /// `AccessWriter::dropped`.
    pub access_lines_dropped: u64,
    /// `panics::count`.
    pub panics: u64,
}

#[derive(Clone, Debug)]
pub struct CertificateGauge {
    /// Its path as written in the file.
    pub name: String,
    pub not_after: SystemTime,
}

/// A name whose addresses are endpoints.
#[derive(Clone, Debug)]
pub struct NameGauge {
    /// As in the file.
    pub name: String,
    /// For how long there has been no good answer; zero while the newest is good.
    pub stale: Duration,
}

#[derive(Clone, Debug)]
pub struct SplitGauges {
    pub name: SplitName,
    /// The revision that last touched it.
    pub revision: Revision,
    /// Weights are held against the file.
    pub held: bool,
    /// Weights set at runtime are in force.
    pub overridden: bool,
    pub versions: Vec<VersionGauges>,
    /// Rollbacks since the start of the process, by who asked.
    pub rollbacks: Vec<(Source, u64)>,
    /// Its rollout, running or the last; `None` if there was none.
    pub rollout: Option<RolloutGauges>,
}

#[derive(Clone, Debug)]
pub struct VersionGauges {
    pub name: VersionName,
    /// Share in force, 0 to 1.
    pub ratio: f64,
    /// Share by the file, 0 to 1.
    pub file_ratio: f64,
    /// Of all kinds.
    pub in_flight: u64,
    pub endpoints: Vec<EndpointGauges>,
    /// Active checks of its endpoints since the start of the process, by result; empty if it has none.
    pub checks: Vec<(&'static str, u64)>,
}

#[derive(Clone, Debug, Default)]
pub struct EndpointGauges {
    pub address: String,
    /// Its checks do not speak against it, and it is not ejected.
    pub up: bool,
    pub draining: bool,
    /// Since it is known.
    pub ejections: u64,
    pub in_flight: u64,
}

/// Results of loading the configuration, since the start of the process.
#[derive(Clone, Debug)]
pub struct Reloads {
    pub applied: u64,
    pub rejected: u64,
    /// The file as it is now is the one in force.
    pub last_successful: bool,
    /// When a configuration was last taken; the start counts.
    pub last_success: SystemTime,
}

impl Default for Reloads {
    fn default() -> Self {
        Self { applied: 0, rejected: 0, last_successful: true, last_success: SystemTime::now() }
    }
}
