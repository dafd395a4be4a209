//! `[listeners.NAME]`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Dur, OneOrMany, Size};

/// An address weir accepts connections on.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawListener {
    /// `ip:port`, `unix:/path` or `systemd:NAME`, or a list of them.
    #[schemars(required)]
    pub bind: Option<OneOrMany<String>>,
    /// Permission bits of a Unix socket, octal; default: 0660.
    #[schemars(extend("default" = "0660"))]
    pub socket_mode: Option<String>,
    /// Every request is sent to https on this port (308).
    #[schemars(range(min = 1, max = 65535))]
    pub redirect_https: Option<u32>,
    /// Whose X-Forwarded-* is believed: networks, addresses, or "unix" for peers on a Unix socket.
    #[serde(default)]
    pub trusted_proxies: Vec<String>,
    /// Trusted proxies also send the PROXY header; nobody else is served.
    #[serde(default)]
    pub proxy_protocol: bool,
    /// What clients may use up.
    #[serde(default)]
    pub limits: RawLimits,
    /// How long clients are waited for.
    #[serde(default)]
    pub timeouts: RawClientTimeouts,
    /// Serve HTTPS.
    pub tls: Option<RawListenerTls>,
}

/// What clients may use up, per listener and process.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RawLimits {
    /// Open client connections; above it accepting waits.
    #[schemars(range(min = 1, max = 10_000_000))]
    pub connections: usize,
    /// Size of a request head; above it 431.
    pub header_bytes: Size,
    /// Size of a request body; above it 413. Default: no limit.
    pub body_bytes: Option<Size>,
    /// Requests at a time on one HTTP/2 connection.
    #[schemars(range(min = 1, max = 1000))]
    pub streams: u32,
}

impl Default for RawLimits {
    fn default() -> Self {
        Self { connections: 20_000, header_bytes: Size(32 << 10), body_bytes: None, streams: 128 }
    }
}

/// How long clients are waited for; `0s` = no limit.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RawClientTimeouts {
    /// For a whole request head.
    pub header: Dur,
    /// For the client to send or take body bytes.
    pub body: Dur,
    /// Between two requests of a connection.
    pub idle: Dur,
}

impl Default for RawClientTimeouts {
    fn default() -> Self {
        Self { header: Dur::secs(10), body: Dur::secs(30), idle: Dur::secs(75) }
    }
}

/// TLS towards clients.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawListenerTls {
    /// Chosen by SNI, the first if none fits; read again when they change.
    #[schemars(required)]
    pub certificates: Option<Vec<RawCertificate>>,
    /// Oldest version of TLS that is spoken.
    #[serde(default)]
    pub min_version: RawTlsVersion,
    /// Require client certificates signed by one of these.
    pub client_ca: Option<String>,
    /// Refuse clients whose SNI fits no certificate.
    #[serde(default)]
    pub strict_sni: bool,
}

/// A certificate chain and its key, as PEM files.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawCertificate {
    #[schemars(required)]
    pub cert: Option<String>,
    #[schemars(required)]
    pub key: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub enum RawTlsVersion {
    #[default]
    #[serde(rename = "1.2")]
    V12,
    #[serde(rename = "1.3")]
    V13,
}
