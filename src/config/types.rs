//! The validated configuration: what the rest of the program is given, section by section.
//!
//! Invariant: every name in it resolves, every number is in range, every default is filled in; nothing later
//! re-checks it. Only `resolve` makes one. Keys that are refused with `not-yet` have no field here.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method};
use ipnet::IpNet;

use super::secure::{ListenerTls, UpstreamTls};
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
    /// In file order; names unique; at least one, unless every route answers by itself.
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
    pub bind: Vec<Bind>,
    /// Every request is sent to https on this port (308).
    pub redirect_https: Option<u16>,
    /// Peers whose `X-Forwarded-*` is believed.
    pub trusted_proxies: Trusted,
    /// Trusted peers send a PROXY header first; others are refused.
    pub proxy_protocol: bool,
    pub limits: Limits,
    pub timeouts: ClientTimeouts,
    pub tls: Option<Arc<ListenerTls>>,
}

/// Where a listener listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Bind {
    Tcp(SocketAddr),
    Unix(UnixBind),
}

/// A Unix socket: `unix:/path`, absolute.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct UnixBind {
    pub path: PathBuf,
    /// Permission bits of the socket file (`socket_mode`, default 0o660).
    pub mode: u32,
}

impl Bind {
    /// The address, unless it is a Unix socket.
    pub fn tcp(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(address) => Some(*address),
            Self::Unix(_) => None,
        }
    }
}

impl std::fmt::Display for Bind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(unix) => write!(f, "unix:{}", unix.path.display()),
        }
    }
}

/// Which peers are believed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trusted {
    pub networks: Vec<IpNet>,
    /// Peers on a Unix socket (`"unix"` in the list).
    pub unix: bool,
}

/// What clients may use up, per listener and process.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// Open client connections; above it accepting waits.
    pub connections: usize,
    /// Bytes of a request head; above it 431.
    pub header_bytes: usize,
    /// Bytes of a request body; above it 413. `None` = no limit.
    pub body_bytes: Option<u64>,
    /// Requests at a time on one HTTP/2 connection.
    pub streams: u32,
}

/// How long clients are waited for; `None` = no limit.
#[derive(Clone, Debug, PartialEq)]
pub struct ClientTimeouts {
    /// From the first byte of a head to its end; above it 408.
    pub header: Option<Duration>,
    /// While the client sends a body: to its next byte; while it takes one: for room to write.
    pub body: Option<Duration>,
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
    pub action: Action,
    pub request_headers: HeaderEdits,
    pub response_headers: HeaderEdits,
    pub rate_limit: Option<RateLimit>,
}

impl Route {
    /// The split it leads to, if it leads to one.
    pub fn split(&self) -> Option<&SplitName> {
        match &self.action {
            Action::Split { split, .. } => Some(split),
            Action::Redirect(_) | Action::Respond(_) => None,
        }
    }
}

/// What a route does with its requests.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    Split {
        split: SplitName,
        /// The matched prefix is cut off the path that goes on; every match of the route has a prefix.
        strip_prefix: bool,
    },
    Redirect(Redirect),
    Respond(Respond),
}

/// An answer that names another address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirect {
    /// `http://` or `https://` with a host, or a path of the same host; visible ASCII only. `{path}` stands for the normal form of the path; the query goes with it.
    pub to: String,
    /// 301, 302, 303, 307 or 308.
    pub code: u16,
}

/// A fixed answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Respond {
    /// 200 to 599.
    pub code: u16,
    pub body: String,
}

/// Changes to header fields; removed first, then set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderEdits {
    /// Names unique. Never hop-by-hop fields, `host` (but on requests) or framing; on answers nothing of weir's own.
    pub set: Vec<(HeaderName, HeaderValue)>,
    pub remove: Vec<HeaderName>,
}

/// A token bucket: `requests` per `every`, `burst` at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RateLimit {
    pub per: RateKey,
    /// At least 1.
    pub requests: u32,
    /// Above zero.
    pub every: Duration,
    /// At least 1; default `requests`.
    pub burst: u32,
}

/// What has a bucket of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RateKey {
    Route,
    ClientIp,
    /// By its value; requests without the field share one bucket, so that leaving it out is no way around.
    Header(HeaderName),
}

/// One alternative of a route's `match`: all its parts must hold.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Match {
    pub host: Option<HostMatch>,
    pub path: Option<PathMatch>,
    /// Upper case; empty = any.
    pub methods: Vec<String>,
    /// In the order of their names, as are cookies and queries, so that equal conditions are equal.
    pub headers: Vec<(HeaderName, ValueMatch)>,
    /// By name, which is case-sensitive.
    pub cookies: Vec<(String, ValueMatch)>,
    /// By name, after percent-decoding.
    pub queries: Vec<(String, ValueMatch)>,
    /// Any of these, sorted; IPv4 never as mapped IPv6. Empty = any client.
    pub client_ip: Vec<IpNet>,
}

/// What a value must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ValueMatch {
    Exact(String),
    /// Searched for anywhere in the value, unless it has anchors; no match in what is not UTF-8.
    Regex(Pattern),
    /// There, whatever it is.
    Present,
    Absent,
}

/// A compiled regular expression; equal if its text is.
#[derive(Clone, Debug)]
pub struct Pattern(pub regex::Regex);

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

impl Eq for Pattern {}

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
    /// Searched for anywhere in the path, unless it has anchors.
    Regex(Pattern),
}

#[derive(Clone, Debug, PartialEq)]
pub struct Split {
    pub name: SplitName,
    /// Rollback target: as written, else the version of the largest weight (the first of equals).
    pub stable: VersionName,
    /// Answers carry `weir-version`.
    pub expose_version: bool,
    pub sticky: Option<Sticky>,
    pub on_unavailable: OnUnavailable,
    pub retries: Retries,
    /// In order; the first that matches wins; they come before sticky and weights.
    pub rules: Vec<Rule>,
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
    /// After this a leaving endpoint's requests are cut.
    pub timeout: Duration,
    /// The same for WebSocket and CONNECT streams.
    pub upgraded_timeout: Duration,
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
    pub protocol: Protocol,
    /// Given if the endpoints are `https://`; then all of them are.
    pub tls: Option<Arc<UpstreamTls>>,
    /// What endpoints get as `Host`.
    pub host: HostHeader,
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
    /// The endpoint's own address.
    Endpoint,
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
