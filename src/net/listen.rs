//! Listening sockets of the data plane: one per worker for each TCP address, one that all workers share for each Unix
//! path, bound so that no other process shares it by accident, and closed so that no connection the kernel has already
//! taken is lost.
//!
//! Invariant: as long as a `Bound` lives, every one of its sockets listens, whatever the workers do with theirs.

mod acceptor;
mod activation;
mod error;
mod half_open;
mod handed;
mod holder;
mod set;
mod stop;
mod tcp;
mod unix;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;

pub use acceptor::Acceptor;
pub use activation::{Activated, activated};
pub use error::BindError;
pub use handed::{Handed, Inherited};
pub use set::{Done, ListenerCommand, Listeners, Listening, Prepared, Refused, Sink, Stopped, Stopping};
pub use stop::{Accepted, accept_rest};

use crate::config::Bind;

/// Connections that may wait to be accepted, per socket; the kernel caps it at `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// A listening socket for one worker, non-blocking.
#[derive(Debug)]
pub enum ListeningSocket {
    Tcp(TcpListener),
    /// The same socket as every other worker's.
    Unix(UnixListener),
}

impl ListeningSocket {
    /// # Errors
    /// When the process is out of file descriptors.
    pub fn try_clone(&self) -> io::Result<Self> {
        match self {
            Self::Tcp(socket) => socket.try_clone().map(Self::Tcp),
            Self::Unix(socket) => socket.try_clone().map(Self::Unix),
        }
    }

    /// A descriptor that came from another process, which says of which kind it is.
    ///
    /// # Errors
    /// When it is not a socket.
    pub fn from_fd(fd: OwnedFd, is_unix: bool) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&fd, true)?;
        Ok(if is_unix { Self::Unix(fd.into()) } else { Self::Tcp(fd.into()) })
    }
}

impl AsFd for ListeningSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(socket) => socket.as_fd(),
            Self::Unix(socket) => socket.as_fd(),
        }
    }
}

/// An address that is listened on.
#[derive(Debug)]
pub struct Bound {
    /// The real one: port 0 has become a number.
    pub address: Bind,
    sockets: Sockets,
    /// Another process listens there with us, or will: whoever closes it here leaves the sockets themselves alone.
    shared: bool,
}

#[derive(Debug)]
enum Sockets {
    /// One per worker, or more if a process before us had more workers.
    Tcp(Vec<TcpListener>),
    /// One for so many workers.
    Unix { socket: UnixListener, file: unix::SocketFile, workers: usize },
    /// The service manager's, one for so many workers.
    Given { socket: ListeningSocket, workers: usize },
}

impl Bound {
    /// A second handle to each worker's socket, in order; where there are more than workers, it begins again with the
    /// first worker.
    ///
    /// # Errors
    /// When the process is out of file descriptors.
    pub fn handles(&self) -> io::Result<Vec<ListeningSocket>> {
        match &self.sockets {
            Sockets::Tcp(sockets) => sockets.iter().map(|s| s.try_clone().map(ListeningSocket::Tcp)).collect(),
            Sockets::Unix { socket, workers, .. } => {
                (0..*workers).map(|_| socket.try_clone().map(ListeningSocket::Unix)).collect()
            }
            Sockets::Given { socket, workers } => (0..*workers).map(|_| socket.try_clone()).collect(),
        }
    }
}

/// Listens on an address for so many workers (at least one). Connections wait in the kernel from here on. Blocking
/// (it may read `/proc`), but short.
///
/// # Errors
/// `BindError`; then nothing listens.
pub fn bind(address: &Bind, workers: usize) -> Result<Bound, BindError> {
    match address {
        Bind::Tcp(tcp) => Ok(tcp::bind(*tcp, workers)?.into()),
        Bind::Unix(path) => {
            let (socket, file) = unix::bind(path)?;
            let sockets = Sockets::Unix { socket, file, workers: workers.max(1) };
            Ok(Bound { address: address.clone(), sockets, shared: false })
        }
        Bind::Systemd(_) => Err(BindError::NotPassed { address: address.clone(), passed: Vec::new() }),
    }
}

/// As `bind`, for an address that overlaps one of ours.
fn bind_beside_own(address: &Bind, workers: usize) -> Result<Bound, BindError> {
    match address {
        Bind::Tcp(tcp) => Ok(tcp::bind_beside_own(*tcp, workers)?.into()),
        Bind::Unix(_) | Bind::Systemd(_) => bind(address, workers),
    }
}

/// One socket on a TCP address, as exclusive as `bind`'s: for what does not belong to the data plane.
///
/// # Errors
/// `BindError`; then nothing listens.
pub fn bind_one(address: SocketAddr) -> Result<TcpListener, BindError> {
    let failed = || BindError::Other { address: Bind::Tcp(address), source: io::Error::other("no socket") };
    tcp::bind(address, 1)?.1.pop().ok_or_else(failed)
}

impl From<tcp::Sockets> for Bound {
    fn from((address, sockets): tcp::Sockets) -> Self {
        Self { address: Bind::Tcp(address), sockets: Sockets::Tcp(sockets), shared: false }
    }
}

/// Whether two addresses cannot be had by two listeners.
fn overlap(a: &Bind, b: &Bind) -> bool {
    match (a, b) {
        (Bind::Tcp(a), Bind::Tcp(b)) => tcp::overlap(*a, *b),
        (Bind::Unix(a), Bind::Unix(b)) => a.path == b.path,
        (Bind::Systemd(a), Bind::Systemd(b)) => a == b,
        _ => false,
    }
}
