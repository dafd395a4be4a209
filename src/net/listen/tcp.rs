//! Binding a TCP port for several workers, exclusively first and shared only then.
//!
//! Why in this order: a bind with SO_REUSEPORT joins whoever has that port, another weir included. So the first
//! socket binds and listens without it, which fails if anybody listens there, and only then opens the port to its
//! siblings. Set before `listen`, two processes that start together would both get in.
//! Invariant: all sockets of an address are this process's own.

use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

use super::{BACKLOG, BindError, holder};

/// The real address (port 0 has become a number) and its sockets.
pub(super) type Sockets = (SocketAddr, Vec<TcpListener>);

/// One socket per worker, at least one. Connections wait in the kernel from here on.
pub(super) fn bind(address: SocketAddr, workers: usize) -> Result<Sockets, BindError> {
    let first = first(address).map_err(|e| BindError::tcp(address, e))?;
    complete(first, address, workers)
}

/// As `bind`, for an address that overlaps one of ours (`0.0.0.0:80` while we have `10.0.0.1:80`), where an
/// exclusive bind would fail because of ourselves.
pub(super) fn bind_beside_own(address: SocketAddr, workers: usize) -> Result<Sockets, BindError> {
    match bind(address, workers) {
        Err(BindError::InUse { .. }) if holder::all_ours(address) => {
            let first = sibling(address).map_err(|e| BindError::tcp(address, e))?;
            complete(first, address, workers)
        }
        result => result,
    }
}

fn complete(first: Socket, asked: SocketAddr, workers: usize) -> Result<Sockets, BindError> {
    let all = || -> io::Result<Sockets> {
        let address = first.local_addr()?.as_socket().unwrap_or(asked);
        let siblings = (1..workers).map(|_| sibling(address)).collect::<io::Result<Vec<_>>>()?;
        Ok((address, std::iter::once(first).chain(siblings).map(TcpListener::from).collect()))
    };
    all().map_err(|e| BindError::tcp(asked, e))
}

/// More sockets beside those of ours that listen on that real address already.
pub(super) fn siblings(address: SocketAddr, count: usize) -> Result<Vec<TcpListener>, BindError> {
    let all = (0..count).map(|_| sibling(address).map(TcpListener::from)).collect::<io::Result<_>>();
    all.map_err(|e| BindError::tcp(address, e))
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
    // Accepted connections inherit it: one system call less for each.
    socket.set_tcp_nodelay(true)?;
    if address.is_ipv6() {
        // So that `0.0.0.0:80` and `[::]:80` can stand beside one another, as the example file has them.
        socket.set_only_v6(true)?;
    }
    Ok(socket)
}

/// Whether two addresses claim the same port of the same interface.
pub(super) fn overlap(a: SocketAddr, b: SocketAddr) -> bool {
    let same_family = a.is_ipv4() == b.is_ipv4();
    let meets = a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified();
    a.port() == b.port() && a.port() != 0 && same_family && meets
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;
    use crate::net::listen::{ListeningSocket, accept_rest};

    fn loopback() -> SocketAddr {
        ([127, 0, 0, 1], 0).into()
    }

    fn rest_of(sockets: Vec<TcpListener>) -> Vec<usize> {
        sockets.into_iter().map(|s| accept_rest(&ListeningSocket::Tcp(s), |_| ()).unwrap()).collect()
    }

    #[test]
    fn port_zero_resolves_once_and_every_worker_gets_connections() {
        let (address, sockets) = bind(loopback(), 3).unwrap();
        assert_ne!(address.port(), 0);
        assert!(sockets.iter().all(|s| s.local_addr().unwrap() == address));
        let clients: Vec<_> = (0..90).map(|_| TcpStream::connect(address).unwrap()).collect();
        let per_worker = rest_of(sockets);
        assert_eq!(per_worker.iter().sum::<usize>(), clients.len());
        assert!(per_worker.iter().all(|&n| n > 5), "{per_worker:?}");
    }

    #[test]
    fn what_is_accepted_does_not_wait_to_fill_packets() {
        let (address, sockets) = bind(loopback(), 1).unwrap();
        let _client = TcpStream::connect(address).unwrap();
        let nodelay = |(stream, _): (TcpStream, SocketAddr)| stream.nodelay().unwrap();
        sockets[0].set_nonblocking(false).unwrap();
        assert!(sockets[0].accept().map(nodelay).unwrap());
    }

    #[test]
    fn nobody_else_gets_in_and_the_holder_is_named() {
        for workers in [1, 2] {
            let (address, _sockets) = bind(loopback(), workers).unwrap();
            let error = bind(address, 2).unwrap_err();
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
        let (address, narrow) = bind(loopback(), 2).unwrap();
        let wide = SocketAddr::from(([0, 0, 0, 0], address.port()));
        assert!(matches!(bind(wide, 2).unwrap_err(), BindError::InUse { .. }));
        let (wide, sockets) = bind_beside_own(wide, 2).unwrap();
        drop(narrow);
        let _client = TcpStream::connect((std::net::Ipv4Addr::LOCALHOST, wide.port())).unwrap();
        assert_eq!(rest_of(sockets).iter().sum::<usize>(), 1);
    }

    #[test]
    fn both_families_stand_beside_one_another() {
        let (four, _sockets) = bind(([0, 0, 0, 0], 0).into(), 1).unwrap();
        let six = SocketAddr::from(([0u16; 8], four.port()));
        match bind(six, 1) {
            Ok((six, _)) => assert_eq!(six.port(), four.port()),
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
