//! Splits and their versions: shares, choice, endpoints, and what happens when one fails.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, Method};
use serde::{Deserialize, Serialize};

use super::{HealthCheck, Match, Rollout};
use crate::config::secure::UpstreamTls;
use crate::model::{Address, SplitName, VersionName, Weight, Weights};

#[derive(Clone, Debug, PartialEq)]
pub struct Split {
    pub name: SplitName,
    /// Rollback target: as written, else the version of the largest weight (the first of equals).
    pub stable: VersionName,
    pub weigh_by: WeighBy,
    pub balance: Balance,
    /// Answers carry `weir-version`.
    pub expose_version: bool,
    pub sticky: Option<Sticky>,
    pub on_unavailable: OnUnavailable,
    pub retries: Retries,
    /// In order; the first that matches wins; they come before sticky and weights.
    pub rules: Vec<Rule>,
    pub timeouts: UpstreamTimeouts,
    /// `None`: no endpoint is ever ejected.
    pub eject: Option<Eject>,
    pub drain: Drain,
    pub pool: PoolLimits,
    /// How its versions are changed, if step by step.
    pub rollout: Option<Rollout>,
    /// In file order; names unique; at least one has a weight above 0.
    pub versions: Vec<Version>,
}

impl Split {
    /// The weights as the file says, in file order.
    pub fn weights(&self) -> Weights {
        self.versions.iter().map(|v| (v.name.clone(), v.weight)).collect()
    }
}

/// What a version's share follows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WeighBy {
    /// Its weight.
    #[default]
    Weight,
    /// Its weight, times that of its endpoints that are available.
    Endpoints,
}

/// How one of a version's endpoints is chosen. All respect the endpoints' weights.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Balance {
    /// The less busy of two random ones.
    #[default]
    LeastRequests,
    RoundRobin,
    /// Equal keys to the same endpoint; a request without a key as `LeastRequests`.
    Hash(HashKey),
}

/// What of a request is hashed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HashKey {
    ClientIp,
    Header(HeaderName),
    Cookie(String),
}

/// Failures in a row that take an endpoint out for a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Eject {
    /// So many in a row, 1 to 1000.
    pub errors: u32,
    /// How long the first time, above zero; longer if it happens again and again.
    pub duration: Duration,
    /// Of a version's endpoints that may be out at a time, 1 to 100.
    pub max_percent: u32,
}

/// How a user stays on the version they got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sticky {
    Cookie { name: String, ttl: Duration },
    Header(HeaderName),
    ClientIp,
}

/// What happens to a request whose version has no endpoint to use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OnUnavailable {
    /// It goes to the other open versions with weight, billed to its own.
    Spill,
    /// 503.
    Fail,
    /// It waits.
    Hold(Hold),
}

/// Bounds of waiting requests (`hold`), per split.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    /// A request waits at most this long, then 503.
    pub timeout: Duration,
    /// At most so many wait, over all workers; above it 503 at once.
    pub requests: u32,
}

/// Other attempts at other endpoints of the same version.
#[derive(Clone, Debug, PartialEq)]
pub struct Retries {
    /// After the first.
    pub attempts: u32,
    pub on: RetryOn,
    /// Upper case.
    pub methods: Vec<Method>,
    /// Part of the split's requests in flight that may be retries, 0..1; at least 3 may.
    pub budget: f64,
    /// One last attempt goes to stable.
    pub rescue: bool,
    /// A request body of at most so many bytes is kept for another attempt; a larger one is sent once.
    pub body_bytes: usize,
}

/// Which failures are tried again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RetryOn {
    pub connect: bool,
    pub reset: bool,
    pub timeout: bool,
    /// 500 to 599.
    pub statuses: Vec<u16>,
}

/// Who gets which version whatever the weights say.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// Unique in its split.
    pub name: String,
    /// Any of these; at least one.
    pub matches: Vec<Match>,
    pub choice: RuleChoice,
    /// Reaches the version even after a rollback has closed it.
    pub test: bool,
}

/// Indexes are those of the split's versions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RuleChoice {
    Version(usize),
    /// Weights above 0; at least one.
    Weights(Vec<(usize, Weight)>),
}

impl RuleChoice {
    /// Whether it may choose the version of that index.
    pub fn has(&self, version: usize) -> bool {
        match self {
            Self::Version(only) => *only == version,
            Self::Weights(weights) => weights.iter().any(|(one, _)| *one == version),
        }
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
    /// An endpoint that is silent in a body.
    pub stall: Option<Duration>,
    /// Life of an idle pooled connection.
    pub idle: Option<Duration>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Drain {
    /// After this a leaving endpoint's requests and streams are cut.
    pub timeout: Duration,
    /// After this its tunnels are.
    pub upgraded_timeout: Duration,
    /// Over this time the share of an endpoint that is new, or back, grows; zero: at once.
    pub slow_start: Duration,
}

#[derive(Clone, Debug, PartialEq)]
pub struct PoolLimits {
    /// Idle connections kept per endpoint, over all workers.
    pub idle_per_endpoint: usize,
    /// Requests in flight per endpoint, over all workers; above it the endpoint counts as full.
    pub max_in_flight: u32,
    /// Requests of one version that wait while its endpoints are full, over all workers.
    pub queue: u32,
    /// How long one waits, above zero.
    pub queue_timeout: Duration,
    /// A connection older than this takes no new request; `None`: no limit.
    pub max_age: Option<Duration>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Version {
    pub name: VersionName,
    pub weight: Weight,
    /// In file order, unique; may be empty only for weight 0.
    pub endpoints: Vec<EndpointSpec>,
    /// Names among them are asked again after this at the latest.
    pub dns_refresh: Duration,
    pub protocol: Protocol,
    /// Given if the endpoints are `https://`; then all of them are.
    pub tls: Option<Arc<UpstreamTls>>,
    /// What endpoints get as `Host`.
    pub host: HostHeader,
    /// How its endpoints are checked; `None`: not at all.
    pub health: Option<Arc<HealthCheck>>,
}

impl Version {
    /// The names whose addresses are asked for.
    pub fn names(&self) -> impl Iterator<Item = &NameTarget> {
        self.endpoints.iter().filter_map(|spec| match &spec.target {
            Target::Name(name) => Some(name),
            Target::Address(_) => None,
        })
    }

    /// The addresses the file gives, in file order.
    pub fn addresses(&self) -> impl Iterator<Item = &Address> {
        self.weighted_addresses().map(|(address, _)| address)
    }

    /// The same with their weights.
    pub fn weighted_addresses(&self) -> impl Iterator<Item = (&Address, u32)> {
        self.endpoints.iter().filter_map(|spec| match &spec.target {
            Target::Address(address) => Some((address, spec.weight)),
            Target::Name(_) => None,
        })
    }
}

/// One entry of `endpoints`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointSpec {
    pub target: Target,
    /// Relative share among the version's endpoints, 0 to 1,000,000; each address of a name has it.
    pub weight: u32,
}

impl From<Target> for EndpointSpec {
    fn from(target: Target) -> Self {
        Self { target, weight: 1 }
    }
}

impl From<SocketAddr> for EndpointSpec {
    fn from(address: SocketAddr) -> Self {
        Target::Address(address.into()).into()
    }
}

/// What an entry of `endpoints` names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    Address(Address),
    /// All addresses of a name, asked again from time to time.
    Name(NameTarget),
}

impl Target {
    /// Whether both lead to the same place, whatever the way it is written.
    pub fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Address(a), Self::Address(b)) => a.is_same(b),
            (a, b) => a == b,
        }
    }
}

/// A name whose addresses are asked for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NameTarget {
    /// In lower case.
    pub name: Arc<str>,
    pub of: NameOf,
}

/// Which records of a name say where its endpoints are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum NameOf {
    /// A and AAAA, each with this port.
    Hosts(u16),
    /// SRV, which bring ports and weights; of several priorities the lowest.
    Services,
}

impl fmt::Display for NameTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.of {
            NameOf::Hosts(port) => write!(f, "{}:{port}", self.name),
            NameOf::Services => write!(f, "srv+{}", self.name),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Name(name) => name.fmt(f),
        }
    }
}

/// What is spoken with endpoints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// Over TLS what ALPN says, in cleartext HTTP/1.1.
    #[default]
    Auto,
    Http1,
    /// In cleartext by prior knowledge.
    Http2,
}

/// `host` of a version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HostHeader {
    /// As the client sent it.
    #[default]
    Client,
    /// The endpoint's own name, or its address if it has none.
    Endpoint,
}
