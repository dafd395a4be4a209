//! Listening sockets of the data plane: one per worker for each address, bound so that no other process shares the
//! port by accident, and closed so that no connection the kernel has already taken is lost.
//!
//! Why in this order: a bind with SO_REUSEPORT joins whoever has that port, another weir included. So the first
//! socket binds and listens without it, which fails if anybody listens there, and only then opens the port to its
//! siblings. Set before `listen`, two processes that start together would both get in.
//! Invariant: as long as a `Bound` lives, every one of its sockets listens, whatever the workers do with theirs.

mod half_open;
mod holder;
mod set;
mod stop;

use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

pub use set::{Done, ListenerCommand, Listeners, Listening, Prepared, Refused, Sink, Stopped, Stopping};
pub use stop::accept_rest;

/// Connections that may wait to be accepted, per socket; the kernel caps it at `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// Why an address cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    #[error("{address} is in use by {}", holder.as_deref().unwrap_or("a process this user may not look at"))]
    InUse {
        address: SocketAddr,
        /// `nginx (process 1234)`.
        holder: Option<String>,
    },
    #[error("not permitted to listen on {address}")]
    NotPermitted { address: SocketAddr },
    #[error("no network interface of this machine has the address of {address}")]
    NotLocal { address: SocketAddr },
    #[error("cannot listen on {address}")]
    Other {
        address: SocketAddr,
        #[source]
        source: io::Error,
    },
}

impl BindError {
    fn new(address: SocketAddr, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::AddrInUse => Self::InUse { address, holder: holder::find(address) },
            io::ErrorKind::PermissionDenied => Self::NotPermitted { address },
            io::ErrorKind::AddrNotAvailable => Self::NotLocal { address },
            _ => Self::Other { address, source },
        }
    }

    /// What the operator can do about it.
    pub fn remedy(&self) -> String {
        match self {
            Self::InUse { .. } => "stop that process, or choose another address".to_owned(),
            Self::NotPermitted { address } if address.port() < 1024 => {
                "ports below 1024 need the capability CAP_NET_BIND_SERVICE (systemd: AmbientCapabilities=), or a \
                 lower net.ipv4.ip_unprivileged_port_start; or choose a port from 1024 on"
                    .to_owned()
            }
            Self::NotPermitted { .. } => "a security policy of this machine forbids it".to_owned(),
            Self::NotLocal { .. } => "use 0.0.0.0 or [::] for all interfaces, or an address `ip addr` shows".to_owned(),
            Self::Other { source, .. } => source.to_string(),
        }
    }
}

/// An address that is listened on, with one socket per worker.
#[derive(Debug)]
pub struct Bound {
    /// The real one: port 0 has become a number.
    pub address: SocketAddr,
    sockets: Vec<TcpListener>,
}

impl Bound {
    /// A second handle to each socket, non-blocking, for the workers in order.
    ///
    /// # Errors
    /// When the process is out of file descriptors.
    pub fn handles(&self) -> io::Result<Vec<TcpListener>> {
        self.sockets.iter().map(TcpListener::try_clone).collect()
    }
}

/// Listens on an address with one socket per worker (at least one). Connections wait in the kernel from here on.
///
/// # Errors
/// `BindError`; then nothing listens.
pub fn bind(address: SocketAddr, workers: usize) -> Result<Bound, BindError> {
    let first = first(address).map_err(|e| BindError::new(address, e))?;
    complete(first, address, workers)
}

/// As `bind`, for an address that overlaps one of ours (`0.0.0.0:80` while we have `10.0.0.1:80`), where an
/// exclusive bind would fail because of ourselves.
fn bind_beside_own(address: SocketAddr, workers: usize) -> Result<Bound, BindError> {
    match bind(address, workers) {
        Err(BindError::InUse { .. }) if holder::all_ours(address) => {
            let first = sibling(address).map_err(|e| BindError::new(address, e))?;
            complete(first, address, workers)
        }
        result => result,
    }
}

fn complete(first: Socket, asked: SocketAddr, workers: usize) -> Result<Bound, BindError> {
    let all = || -> io::Result<Bound> {
        let address = first.local_addr()?.as_socket().unwrap_or(asked);
        let siblings = (1..workers).map(|_| sibling(address)).collect::<io::Result<Vec<_>>>()?;
        let sockets = std::iter::once(first).chain(siblings).map(TcpListener::from).collect();
        Ok(Bound { address, sockets })
    };
    all().map_err(|e| BindError::new(asked, e))
}

fn first(address: SocketAddr) -> io::Result<Socket> {
    let socket = socket(address)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_reuse_port(true)?;
    Ok(socket)
}

fn sibling(address: SocketAddr) -> io::Result<Socket> {
    let socket = socket(address)?;
    socket.set_reuse_port(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

fn socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    // Else a restart has to wait for the last connections' TIME_WAIT.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        // So that `0.0.0.0:80` and `[::]:80` can stand beside one another, as the example file has them.
        socket.set_only_v6(true)?;
    }
    Ok(socket)
}

/// Whether two addresses claim the same port of the same interface.
fn overlap(a: SocketAddr, b: SocketAddr) -> bool {
    let same_family = a.is_ipv4() == b.is_ipv4();
    let meets = a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified();
    a.port() == b.port() && a.port() != 0 && same_family && meets
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;

    fn loopback() -> SocketAddr {
        ([127, 0, 0, 1], 0).into()
    }

    #[test]
    fn port_zero_resolves_once_and_every_worker_gets_connections() {
        let bound = bind(loopback(), 3).unwrap();
        assert_ne!(bound.address.port(), 0);
        assert!(bound.sockets.iter().all(|s| s.local_addr().unwrap() == bound.address));
        let clients: Vec<_> = (0..90).map(|_| TcpStream::connect(bound.address).unwrap()).collect();
        let per_worker: Vec<_> = bound.sockets.iter().map(|s| accept_rest(s, |_, _| ()).unwrap()).collect();
        assert_eq!(per_worker.iter().sum::<usize>(), clients.len());
        assert!(per_worker.iter().all(|&n| n > 5), "{per_worker:?}");
    }

    #[test]
    fn nobody_else_gets_in_and_the_holder_is_named() {
        for workers in [1, 2] {
            let bound = bind(loopback(), workers).unwrap();
            let error = bind(bound.address, 2).unwrap_err();
            let me = format!("(process {})", std::process::id());
            assert!(matches!(&error, BindError::InUse { holder: Some(h), .. } if h.contains(&me)), "{error}");
            assert!(error.to_string().contains("is in use by "), "{error}");
        }
    }

    #[test]
    fn a_listener_without_reuse_port_is_not_joined_either() {
        let theirs = TcpListener::bind(loopback()).unwrap();
        let address = theirs.local_addr().unwrap();
        assert!(matches!(bind(address, 1).unwrap_err(), BindError::InUse { .. }));
        assert!(matches!(bind_beside_own(address, 1).unwrap_err(), BindError::InUse { .. }));
    }

    #[test]
    fn our_own_address_can_be_widened() {
        let narrow = bind(loopback(), 2).unwrap();
        let wide = SocketAddr::from(([0, 0, 0, 0], narrow.address.port()));
        assert!(matches!(bind(wide, 2).unwrap_err(), BindError::InUse { .. }));
        let wide = bind_beside_own(wide, 2).unwrap();
        drop(narrow);
        let _client = TcpStream::connect((std::net::Ipv4Addr::LOCALHOST, wide.address.port())).unwrap();
        let got: usize = wide.sockets.iter().map(|s| accept_rest(s, |_, _| ()).unwrap()).sum();
        assert_eq!(got, 1);
    }

    #[test]
    fn both_families_stand_beside_one_another() {
        let four = bind(([0, 0, 0, 0], 0).into(), 1).unwrap();
        let six = SocketAddr::from(([0u16; 8], four.address.port()));
        match bind(six, 1) {
            Ok(six) => assert_eq!(six.address.port(), four.address.port()),
            Err(e) => assert!(matches!(e, BindError::NotLocal { .. } | BindError::Other { .. }), "{e}"),
        }
    }

    #[test]
    fn an_address_of_another_machine_is_told_apart() {
        let error = bind(([192, 0, 2, 1], 0).into(), 1).unwrap_err();
        assert!(matches!(error, BindError::NotLocal { .. }), "{error}");
        assert!(error.remedy().contains("0.0.0.0"));
    }
}
