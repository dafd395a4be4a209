//! What the two processes say to one another.
//!
//! The two may be of different versions. Invariants: a field that is missing has a default and one that is new is
//! ignored; what cannot be said so raises `FORMAT`, and a successor that does not know it refuses.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::link::Link;
use crate::config::Bind;
use crate::model::{Instant, ListenerName};
use crate::net::listen::{Activated, Handed, Inherited, ListeningSocket};
use crate::pool::{Counts, EndpointKey};
use crate::state;

pub(super) const FORMAT: u32 = 1;

/// Everything that goes over.
#[derive(Debug)]
pub struct Parcel {
    pub listeners: Inherited,
    pub control: Vec<Control>,
    pub state: state::Handed,
    pub upgrades: Tally,
}

/// A listening socket that is not of the data plane.
#[derive(Debug)]
pub struct Control {
    pub role: Role,
    /// As the file had it; the port may be 0.
    pub configured: SocketAddr,
    pub socket: TcpListener,
}

impl Control {
    /// # Errors
    /// When the process is out of file descriptors.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { role: self.role, configured: self.configured, socket: self.socket.try_clone()? })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    Admin,
    Telemetry,
}

/// Upgrades so far, over all processes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Tally {
    pub done: u64,
    pub failed: u64,
}

/// What a process that goes still has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Report {
    /// Open client connections.
    pub connections: usize,
    /// Every endpoint that is busy.
    pub in_flight: Vec<Part>,
    /// Every endpoint that may yet become busy.
    pub open: Vec<EndpointKey>,
}

/// One endpoint of a report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    pub key: EndpointKey,
    pub counts: Counts,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum ToSuccessor {
    /// Its descriptors were sent before it.
    Manifest(Box<Manifest>),
    /// Accept.
    Go(Report),
    /// Somebody else was faster: end.
    Cancel,
    Report(Report),
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum ToPredecessor {
    /// Everything is built and waits for `Go`; these addresses are kept, the others are not wanted.
    Ready { kept: Vec<Bind> },
    /// It will not be.
    Failed { text: String },
    /// Accepting.
    Serving,
    /// These take nothing new any more.
    Drain(Vec<EndpointKey>),
}

/// A parcel without its descriptors, which come in the order of the fields.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Manifest {
    pub format: u32,
    pub pid: u32,
    #[serde(default)]
    upgrades: Tally,
    listeners: Vec<ListenerEntry>,
    activated: Vec<ActivatedEntry>,
    control: Vec<ControlEntry>,
    state_dir: PathBuf,
    has_lock: bool,
    state: Option<String>,
    #[serde(default)]
    known: state::Known,
}

#[derive(Debug, Serialize, Deserialize)]
struct ListenerEntry {
    name: ListenerName,
    configured: Bind,
    address: Bind,
    file: Option<(u64, u64)>,
    sockets: usize,
}

#[derive(Debug, Serialize, Deserialize)]
struct ActivatedEntry {
    name: String,
    is_unix: bool,
}

#[derive(Debug, Serialize, Deserialize)]
struct ControlEntry {
    role: Role,
    configured: SocketAddr,
}

impl Parcel {
    pub(super) fn send(&self, link: &mut Link) -> io::Result<()> {
        let mut fds: Vec<BorrowedFd<'_>> = Vec::new();
        fds.extend(self.listeners.handed.iter().flat_map(|handed| &handed.sockets).map(AsFd::as_fd));
        fds.extend(self.listeners.activated.iter().map(|activated| activated.socket.as_fd()));
        fds.extend(self.control.iter().map(|control| control.socket.as_fd()));
        fds.extend(self.state.lock.iter().map(AsFd::as_fd));
        link.send_fds(&fds)?;
        link.send(&ToSuccessor::Manifest(Box::new(self.manifest())))
    }

    fn manifest(&self) -> Manifest {
        let listener = |handed: &Handed| ListenerEntry {
            name: handed.name.clone(),
            configured: handed.configured.clone(),
            address: handed.address.clone(),
            file: handed.file,
            sockets: handed.sockets.len(),
        };
        let activated = |activated: &Activated| ActivatedEntry {
            name: activated.name.clone(),
            is_unix: matches!(activated.socket, ListeningSocket::Unix(_)),
        };
        let control = |control: &Control| ControlEntry { role: control.role, configured: control.configured };
        let text = |bytes: &Vec<u8>| String::from_utf8_lossy(bytes).into_owned();
        Manifest {
            format: FORMAT,
            pid: std::process::id(),
            upgrades: self.upgrades,
            listeners: self.listeners.handed.iter().map(listener).collect(),
            activated: self.listeners.activated.iter().map(activated).collect(),
            control: self.control.iter().map(control).collect(),
            state_dir: self.state.dir.clone(),
            has_lock: self.state.lock.is_some(),
            state: self.state.state.as_ref().map(text),
            known: self.state.known.clone(),
        }
    }

    /// The other side of `send`: the parcel, and from whom it is.
    pub(super) fn receive(link: &mut Link, until: Instant) -> io::Result<(u32, Self)> {
        let invalid = |text: String| io::Error::new(io::ErrorKind::InvalidData, text);
        let manifest = match link.receive(until)? {
            ToSuccessor::Manifest(manifest) if manifest.format == FORMAT => *manifest,
            ToSuccessor::Manifest(m) => {
                return Err(invalid(format!("it hands over in format {}, this binary knows {FORMAT}", m.format)));
            }
            _ => return Err(invalid("it did not begin with a manifest".to_owned())),
        };
        let pid = manifest.pid;
        manifest.complete(link).map(|parcel| (pid, parcel))
    }
}

impl Manifest {
    fn complete(self, link: &mut Link) -> io::Result<Parcel> {
        let mut handed = Vec::new();
        for ListenerEntry { name, configured, address, file, sockets } in self.listeners {
            let is_unix = matches!(address, Bind::Unix(_));
            let sockets = link.take_fds(sockets)?.into_iter().map(|fd| ListeningSocket::from_fd(fd, is_unix));
            let sockets = sockets.collect::<io::Result<_>>()?;
            handed.push(Handed { name, configured, address, file, sockets });
        }
        let mut activated = Vec::new();
        for ActivatedEntry { name, is_unix } in self.activated {
            for fd in link.take_fds(1)? {
                activated.push(Activated { name: name.clone(), socket: ListeningSocket::from_fd(fd, is_unix)? });
            }
        }
        let mut control = Vec::new();
        for ControlEntry { role, configured } in self.control {
            for fd in link.take_fds(1)? {
                control.push(Control { role, configured, socket: fd.into() });
            }
        }
        let lock = link.take_fds(usize::from(self.has_lock))?.pop();
        let state =
            state::Handed { dir: self.state_dir, lock, state: self.state.map(String::into_bytes), known: self.known };
        Ok(Parcel { listeners: Inherited { handed, activated }, control, state, upgrades: self.upgrades })
    }
}
