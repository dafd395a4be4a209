//! Where weir listens, and what it takes from whom.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use crate::config::secure::ListenerTls;
use crate::model::ListenerName;

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
#[derive(Clone, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Bind {
    Tcp(SocketAddr),
    Unix(UnixBind),
    /// The sockets of that name that the service manager passed: `systemd:NAME`.
    Systemd(String),
}

/// A Unix socket: `unix:/path`, absolute.
#[derive(Clone, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct UnixBind {
    pub path: PathBuf,
    /// Permission bits of the socket file (`socket_mode`, default 0o660).
    pub mode: u32,
}

impl Bind {
    /// The address, if it is one of TCP.
    pub fn tcp(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(address) => Some(*address),
            Self::Unix(_) | Self::Systemd(_) => None,
        }
    }
}

impl std::fmt::Display for Bind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(unix) => write!(f, "unix:{}", unix.path.display()),
            Self::Systemd(name) => write!(f, "systemd:{name}"),
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
