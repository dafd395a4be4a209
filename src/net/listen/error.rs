//! Why an address cannot be listened on, and what the operator can do about it.
//!
//! Invariant: every variant names the address as the file has it, and has a remedy.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::holder;
use crate::config::Bind;

/// Why an address cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    #[error("{address} is in use by {}", holder.as_deref().unwrap_or("a process this user may not look at"))]
    InUse {
        address: Bind,
        /// `nginx (process 1234)`.
        holder: Option<String>,
    },
    #[error("not permitted to listen on {address}")]
    NotPermitted { address: Bind },
    #[error("no network interface of this machine has the address of {address}")]
    NotLocal { address: Bind },
    #[error("cannot listen on {address}: there is no folder {}", folder.display())]
    NoFolder { address: Bind, folder: PathBuf },
    #[error("cannot listen on {address}: there is a file of that name that is not a socket")]
    NotASocket { address: Bind },
    #[error("cannot listen on {address}: the path is too long for a Unix socket")]
    TooLong { address: Bind },
    #[error("the service manager passed no socket named `{address}`{}", names(passed))]
    NotPassed {
        address: Bind,
        /// The names of those it passed.
        passed: Vec<String>,
    },
    #[error("cannot listen on {address}")]
    Other {
        address: Bind,
        #[source]
        source: io::Error,
    },
}

/// Behind what was asked for: what there is.
fn names(passed: &[String]) -> String {
    if passed.is_empty() { "; it passed none".to_owned() } else { format!("; it passed {}", passed.join(", ")) }
}

impl BindError {
    pub(super) fn tcp(address: SocketAddr, source: io::Error) -> Self {
        let bind = Bind::Tcp(address);
        match source.kind() {
            io::ErrorKind::AddrInUse => Self::InUse { address: bind, holder: holder::find(address) },
            io::ErrorKind::PermissionDenied => Self::NotPermitted { address: bind },
            io::ErrorKind::AddrNotAvailable => Self::NotLocal { address: bind },
            _ => Self::Other { address: bind, source },
        }
    }

    pub(super) fn unix(address: Bind, folder: &Path, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
                Self::NoFolder { address, folder: folder.to_owned() }
            }
            io::ErrorKind::PermissionDenied => Self::NotPermitted { address },
            _ => Self::Other { address, source },
        }
    }

    /// What the operator can do about it.
    pub fn remedy(&self) -> String {
        let text = match self {
            Self::InUse { address: Bind::Tcp(_), .. } => "stop that process, or choose another address",
            Self::InUse { .. } => "stop that process, or choose another path",
            Self::NotPermitted { address: Bind::Tcp(address) } if address.port() < 1024 => {
                "ports below 1024 need the capability CAP_NET_BIND_SERVICE (systemd: AmbientCapabilities=), or a \
                 lower net.ipv4.ip_unprivileged_port_start; or choose a port from 1024 on"
            }
            Self::NotPermitted { address: Bind::Tcp(_) } => "a security policy of this machine forbids it",
            Self::NotPermitted { .. } => {
                "the user weir runs as must be allowed to write to the folder and to replace an old socket in it \
                 (systemd: RuntimeDirectory= makes one under /run); or choose another folder"
            }
            Self::NotLocal { .. } => "use 0.0.0.0 or [::] for all interfaces, or an address `ip addr` shows",
            Self::NoFolder { .. } => {
                "make the folder (systemd: RuntimeDirectory= makes one under /run), or choose another"
            }
            Self::NotASocket { .. } => "remove that file if nobody needs it, or choose another path",
            Self::NotPassed { .. } => {
                "a socket unit names its sockets with FileDescriptorName=; without that the name is the unit's own, \
                 `weir.socket`"
            }
            Self::TooLong { .. } => "choose a path of less than 90 bytes",
            Self::Other { source, .. } => return source.to_string(),
        };
        text.to_owned()
    }
}
