//! `[defaults]` and `[splits.NAME]` with its versions.

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Dur, OneOrMany, RawMatch, RawRollout, Size};

/// What every split takes; a split overrides key by key with a table of the same name.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RawDefaults {
    /// How long endpoints are waited for.
    pub timeouts: RawUpstreamTimeouts,
    /// Keep a user on the version they got.
    pub sticky: Option<RawSticky>,
    /// How long requests wait, with `on_unavailable = "hold"`.
    pub hold: RawHold,
    /// Other attempts at other endpoints of the same version.
    pub retries: RawRetries,
    /// Active checks of endpoints.
    pub health: RawHealth,
    /// Failures in a row that take an endpoint out for a time.
    pub eject: RawEject,
    /// How leaving endpoints finish, and new ones begin.
    pub drain: RawDrain,
    /// Connections and requests per endpoint.
    pub pool: RawPool,
}

/// One application whose traffic is divided among its versions.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawSplit {
    /// Rollback target and baseline; default: the version of the largest weight.
    pub stable: Option<String>,
    /// What a version's share follows.
    #[serde(default)]
    pub weigh_by: RawWeighBy,
    /// How an endpoint is chosen among those of a version.
    #[serde(default)]
    pub balance: RawBalance,
    /// What of a request is hashed, with `balance = "hash"`; default: the client's address.
    pub hash: Option<RawHash>,
    /// Keep a user on the version they got.
    pub sticky: Option<RawSticky>,
    /// What happens when a version has no endpoint to use.
    #[serde(default)]
    pub on_unavailable: RawOnUnavailable,
    /// How long requests wait, with `on_unavailable = "hold"`.
    #[serde(default)]
    pub hold: RawHold,
    /// Answers carry `weir-version`.
    #[serde(default)]
    pub expose_version: bool,
    /// How long endpoints are waited for.
    #[serde(default)]
    pub timeouts: RawUpstreamTimeouts,
    /// Other attempts at other endpoints of the same version.
    #[serde(default)]
    pub retries: RawRetries,
    /// Active checks of endpoints.
    #[serde(default)]
    pub health: RawHealth,
    /// Failures in a row that take an endpoint out for a time.
    #[serde(default)]
    pub eject: RawEject,
    /// How leaving endpoints finish, and new ones begin.
    #[serde(default)]
    pub drain: RawDrain,
    /// Connections and requests per endpoint.
    #[serde(default)]
    pub pool: RawPool,
    /// The releases, by name.
    #[schemars(required)]
    pub versions: Option<IndexMap<String, RawVersion>>,
    /// Who gets which version whatever the weights say.
    #[serde(default)]
    pub rules: Vec<RawRule>,
    /// Copies of requests to another version.
    #[schemars(extend("x-weir-not-yet" = true))]
    pub mirror: Option<RawMirror>,
    /// A plan of steps that moves the weights.
    pub rollout: Option<RawRollout>,
}

/// One release: a weight and its endpoints.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawVersion {
    /// Relative share; default: 1 if no version of the split has one, else 0.
    #[schemars(range(min = 0, max = 1_000_000))]
    pub weight: Option<u32>,
    /// What answers: `ip:port`, `name:port` (all its addresses) or `srv+NAME` (what its SRV records say), each with
    /// `https://` before it or not; `unix:/path`.
    pub endpoints: Option<Vec<RawEndpoint>>,
    /// A name is asked again after this at the latest, at least `1s`; earlier if its records live shorter.
    #[schemars(extend("default" = "30s"))]
    pub dns_refresh: Option<Dur>,
    /// What is spoken with the endpoints.
    #[serde(default)]
    pub protocol: RawProtocol,
    /// What the endpoints get as `Host`.
    #[serde(default)]
    pub host: RawHostHeader,
    /// TLS towards the endpoints, which are then `https://ip:port` or `https://name:port`.
    pub tls: Option<RawUpstreamTls>,
    /// Active checks of its endpoints; overrides the split's `health` key by key.
    pub health: Option<RawHealth>,
}

/// `ip:port`, `name:port`, `srv+NAME`, the same with `https://`; `unix:/path`; or a table.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum RawEndpoint {
    Address(String),
    Table(RawEndpointTable),
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawEndpointTable {
    #[schemars(required)]
    pub address: Option<String>,
    /// Relative share among the version's endpoints; each address of a name has it.
    #[schemars(range(min = 0, max = 1_000_000), extend("default" = 1))]
    pub weight: Option<u32>,
}

/// How long an endpoint is waited for; `0s` = no limit.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RawUpstreamTimeouts {
    pub connect: Dur,
    /// To the first byte of the answer.
    pub first_byte: Dur,
    /// The whole exchange.
    pub total: Dur,
    /// An origin that is silent in a body.
    pub stall: Dur,
    /// Life of an idle pooled connection.
    pub idle: Dur,
}

impl Default for RawUpstreamTimeouts {
    fn default() -> Self {
        Self {
            connect: Dur::secs(1),
            first_byte: Dur::secs(30),
            total: Dur::secs(0),
            stall: Dur::secs(0),
            idle: Dur::secs(60),
        }
    }
}

/// How leaving endpoints finish, and new ones begin.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RawDrain {
    /// After this its requests are cut.
    pub timeout: Dur,
    /// The same for WebSocket and CONNECT streams, which are told to close before it.
    pub upgraded_timeout: Dur,
    /// The share of an endpoint that is new, or back, grows over this time; `0s` = at once.
    pub slow_start: Dur,
}

impl Default for RawDrain {
    fn default() -> Self {
        Self { timeout: Dur::secs(30), upgraded_timeout: Dur::secs(3600), slow_start: Dur::secs(0) }
    }
}

/// Connections and requests per endpoint, over all workers.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RawPool {
    /// Idle connections that are kept.
    #[schemars(range(min = 0, max = 1_000_000))]
    pub idle_per_endpoint: usize,
    /// Requests in flight; above it the endpoint counts as full.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_in_flight: u32,
    /// Requests that wait while every endpoint of a version is full, per version.
    #[schemars(range(min = 0, max = 1_000_000))]
    pub queue: u32,
    /// How long they wait, then 503.
    pub queue_timeout: Dur,
    /// A connection older than this takes no new request; `0s` = no limit.
    pub max_age: Dur,
}

impl Default for RawPool {
    fn default() -> Self {
        Self {
            idle_per_endpoint: 64,
            max_in_flight: 1024,
            queue: 0,
            queue_timeout: Dur::secs(1),
            max_age: Dur::secs(0),
        }
    }
}

#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RawWeighBy {
    #[default]
    Weight,
    Endpoints,
}

#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RawBalance {
    #[default]
    LeastRequests,
    RoundRobin,
    Hash,
}

/// What of a request is hashed: equal values go to the same endpoint.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RawHash {
    pub by: RawHashBy,
    /// Of the header or cookie.
    pub name: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RawHashBy {
    #[default]
    ClientIp,
    Header,
    Cookie,
}

#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RawProtocol {
    #[default]
    Auto,
    Http1,
    Http2,
}

/// The client's `Host`, or the endpoint's own name or address.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RawHostHeader {
    #[default]
    Client,
    Endpoint,
}

#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RawOnUnavailable {
    #[default]
    Spill,
    Fail,
    Hold,
}

/// Bounds of requests that wait for an endpoint.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RawHold {
    /// After this 503.
    pub timeout: Dur,
    /// So many wait, over all workers; above it 503 at once.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub requests: u32,
}

impl Default for RawHold {
    fn default() -> Self {
        Self { timeout: Dur::secs(5), requests: 100 }
    }
}

/// Keep a user on the version they got.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RawSticky {
    pub by: RawStickyBy,
    /// Of the cookie or header; a cookie's default is `weir_` and the split's name.
    pub name: Option<String>,
    /// How long the cookie lives after it is set.
    #[schemars(extend("default" = "24h"))]
    pub ttl: Option<Dur>,
}

/// What tells a user from another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RawStickyBy {
    #[default]
    Cookie,
    Header,
    ClientIp,
}

/// Other attempts at other endpoints of the same version.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RawRetries {
    /// After the first.
    #[schemars(range(min = 0, max = 10))]
    pub attempts: u32,
    /// `connect`, `reset`, `timeout`, or a status from `500` to `599`.
    pub on: Vec<String>,
    /// Tried again although the request was written.
    pub methods: Vec<String>,
    /// Part of the requests in flight.
    #[schemars(range(min = 0, max = 1))]
    pub budget: f64,
    /// One last attempt goes to stable.
    pub rescue: bool,
    /// A request body up to this is kept for another attempt; at most 16MiB.
    pub body_bytes: Size,
}

impl Default for RawRetries {
    fn default() -> Self {
        let owned = |words: &[&str]| words.iter().map(|w| (*w).to_owned()).collect();
        Self {
            attempts: 1,
            on: owned(&["connect", "reset", "502", "503", "504"]),
            methods: owned(&["GET", "HEAD", "OPTIONS"]),
            budget: 0.2,
            rescue: false,
            body_bytes: Size(64 << 10),
        }
    }
}

/// Active checks; off until `path` or another `kind` is given.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RawHealth {
    /// What is asked; default: `http` if there is a `path`.
    pub kind: Option<RawHealthKind>,
    /// `http`: the path that is asked for, with its query.
    pub path: Option<String>,
    /// `http`: how it is asked.
    #[schemars(extend("default" = "GET"))]
    pub method: Option<String>,
    /// `http` and `grpc`: the `Host` that is asked for; default: the endpoint's address.
    pub host: Option<String>,
    /// `http` and `grpc`: more fields of the request.
    pub headers: Option<IndexMap<String, String>>,
    /// `http`: statuses that pass, as `200`, `200-399` or `200,301-302`.
    #[schemars(extend("default" = "200-399"))]
    pub expect: Option<String>,
    /// `grpc`: the service that is asked about; default: the server as a whole.
    pub service: Option<String>,
    /// From one check to the next, give or take a tenth.
    pub interval: Dur,
    /// For connection, TLS and the head of the answer together.
    pub timeout: Dur,
    /// Passed in a row: a down endpoint is up again.
    #[schemars(range(min = 1, max = 1000))]
    pub healthy_after: u32,
    /// Failed in a row: an endpoint is down.
    #[schemars(range(min = 1, max = 1000))]
    pub unhealthy_after: u32,
}

impl Default for RawHealth {
    fn default() -> Self {
        Self {
            kind: None,
            path: None,
            method: None,
            host: None,
            headers: None,
            expect: None,
            service: None,
            interval: Dur::secs(5),
            timeout: Dur::secs(2),
            healthy_after: 2,
            unhealthy_after: 3,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RawHealthKind {
    /// A request, and a status that is expected.
    Http,
    /// A connection is enough (with TLS, if the endpoints have it).
    Tcp,
    /// `grpc.health.v1.Health/Check`.
    Grpc,
    /// No check, whatever `defaults` or the split say.
    Off,
}

/// Failures in a row that take an endpoint out for a time.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RawEject {
    /// So many in a row; 0 = never.
    #[schemars(range(min = 0, max = 1000))]
    pub errors: u32,
    /// The first time; each time in a row that follows twice as long, up to five minutes.
    #[serde(rename = "for")]
    pub duration: Dur,
    /// Of a version's endpoints that may be out at a time; one may be always, but for stable's last.
    #[schemars(range(min = 1, max = 100))]
    pub max_percent: u32,
}

impl Default for RawEject {
    fn default() -> Self {
        Self { errors: 5, duration: Dur::secs(10), max_percent: 50 }
    }
}

/// TLS towards the endpoints.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawUpstreamTls {
    /// Whose certificates are accepted, as a PEM file; default: the system's authorities.
    pub ca: Option<String>,
    /// What is asked for (SNI) and verified; default: the endpoint's name, or its IP address if it has none.
    pub server_name: Option<String>,
    /// Client certificate chain, as a PEM file; with `key`.
    pub cert: Option<String>,
    /// Its key, as a PEM file.
    pub key: Option<String>,
}

/// Who gets which version whatever the weights say.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawRule {
    /// Shown in logs as `rule:NAME`.
    pub name: String,
    /// Which requests; a list means "or".
    #[serde(rename = "match")]
    pub matches: OneOrMany<RawMatch>,
    /// All of them go to this version; or:
    pub version: Option<String>,
    /// They are divided by these weights, each user staying where they are.
    pub weights: Option<IndexMap<String, u32>>,
    /// Reaches the version even after a rollback has closed it.
    #[serde(default)]
    pub test: bool,
}

/// Copies of requests to another version; answers are thrown away.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawMirror {
    pub version: String,
    #[schemars(range(min = 0, max = 100))]
    pub percent: f64,
    pub methods: Option<Vec<String>>,
    pub max_body: Option<Size>,
    pub max_in_flight: Option<u32>,
}
