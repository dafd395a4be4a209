//! Sockets that the service manager opened for us (`LISTEN_FDS`, `LISTEN_FDNAMES`), by name.
//!
//! Why the names are read here: the crate that takes the descriptors without `unsafe` knows only their order.
//! Invariant: such a socket is never closed to new connections in the kernel (`stop`), because whoever opened it goes on
//! holding it, and what waits in its queue while we are away is for the next of us.

use std::io;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::Path;

use listenfd::ListenFd;

use super::ListeningSocket;
use crate::config::{Bind, UnixBind};

/// A socket from the service manager.
#[derive(Debug)]
pub struct Activated {
    pub name: String,
    pub socket: ListeningSocket,
}

/// Takes all that were passed to this process; those that are no listening stream sockets are told of and left. Only
/// once, and before there are threads that read the environment.
pub fn activated() -> Vec<Activated> {
    let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
    let names: Vec<&str> = names.split(':').collect();
    let mut passed = ListenFd::from_env();
    let mut found = Vec::new();
    for i in 0..passed.len() {
        // As systemd itself calls one without a name.
        let name = names.get(i).copied().filter(|name| !name.is_empty()).unwrap_or("unknown").to_owned();
        match take(&mut passed, i) {
            Ok(socket) => found.push(Activated { name, socket }),
            Err(error) => tracing::warn!(event = "socket-not-usable", name, %error,
                "the service manager passed something that is no listening TCP or Unix socket"),
        }
    }
    found
}

fn take(passed: &mut ListenFd, i: usize) -> io::Result<ListeningSocket> {
    let socket = match passed.take_tcp_listener(i) {
        Ok(socket) => socket.map(ListeningSocket::Tcp),
        Err(_) => passed.take_unix_listener(i)?.map(ListeningSocket::Unix),
    };
    let socket = socket.ok_or_else(|| io::Error::other("it was taken before"))?;
    if !rustix::net::sockopt::socket_acceptconn(&socket)? {
        return Err(io::Error::other("it does not listen"));
    }
    match &socket {
        ListeningSocket::Tcp(socket) => {
            // As our own sockets have it: what is accepted inherits it.
            socket2::SockRef::from(socket).set_tcp_nodelay(true)?;
            socket.set_nonblocking(true)?;
        }
        ListeningSocket::Unix(socket) => socket.set_nonblocking(true)?,
    }
    Ok(socket)
}

impl Activated {
    /// Where it listens.
    ///
    /// # Errors
    /// When the kernel does not say.
    pub(super) fn address(&self) -> io::Result<Bind> {
        match &self.socket {
            ListeningSocket::Tcp(socket) => socket.local_addr().map(Bind::Tcp),
            ListeningSocket::Unix(socket) => unix(socket).map(Bind::Unix),
        }
    }
}

fn unix(socket: &UnixListener) -> io::Result<UnixBind> {
    let address = socket.local_addr()?;
    // An abstract name has no path; any word tells it apart in the logs.
    let path = SocketAddr::as_pathname(&address).unwrap_or(Path::new("@")).to_owned();
    Ok(UnixBind { path, mode: 0 })
}
