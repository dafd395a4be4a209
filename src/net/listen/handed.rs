//! Listening sockets on their way from one process to the next (a binary upgrade).
//!
//! Both processes hold the same sockets for a while, each with its own handle: what waits in a queue can be accepted by
//! either. Invariant: a socket that is shared gets no filter and is not shut, and its path stays.

use std::io;

use super::{Activated, BindError, Bound, ListeningSocket, Sockets, tcp, unix};
use crate::config::Bind;
use crate::model::ListenerName;

/// A listener address with all its sockets, as it goes to another process.
#[derive(Debug)]
pub struct Handed {
    pub name: ListenerName,
    /// As the file had it; the port may be 0.
    pub configured: Bind,
    /// The real one.
    pub address: Bind,
    /// Device and inode of the file of a Unix socket.
    pub file: Option<(u64, u64)>,
    pub sockets: Vec<ListeningSocket>,
}

/// Sockets that others have opened.
#[derive(Debug, Default)]
pub struct Inherited {
    /// By the process before us; what is not asked for at the first `prepare` is closed with `forget`.
    pub handed: Vec<Handed>,
    /// By the service manager; kept for as long as we live, since a reload may ask for them at any time.
    pub activated: Vec<Activated>,
}

impl Handed {
    /// Makes it ours, for so many workers. Of fewer sockets than workers some are added; of more, each stays, because
    /// connections wait in every one of them.
    pub(super) fn into_bound(self, workers: usize) -> Result<Bound, BindError> {
        let Self { configured, address, file, sockets, .. } = self;
        let failed = |what: &str| BindError::Other { address: configured.clone(), source: io::Error::other(what) };
        let sockets = match &address {
            Bind::Tcp(tcp) => {
                let mut all: Vec<_> = sockets.into_iter().filter_map(ListeningSocket::into_tcp).collect();
                all.extend(tcp::siblings(*tcp, workers.saturating_sub(all.len()))?);
                Sockets::Tcp(all)
            }
            Bind::Unix(unix) => {
                let socket = sockets.into_iter().find_map(ListeningSocket::into_unix);
                let (Some(socket), Some(file)) = (socket, file) else { return Err(failed("no socket came with it")) };
                let file = unix::SocketFile::inherited(&unix.path, file);
                Sockets::Unix { socket, file, workers: workers.max(1) }
            }
            Bind::Systemd(_) => return Err(failed("a name is no address")),
        };
        Ok(Bound { address, sockets, shared: false })
    }
}

impl ListeningSocket {
    fn into_tcp(self) -> Option<std::net::TcpListener> {
        if let Self::Tcp(socket) = self { Some(socket) } else { None }
    }

    fn into_unix(self) -> Option<std::os::unix::net::UnixListener> {
        if let Self::Unix(socket) = self { Some(socket) } else { None }
    }
}

/// Sockets, and the file of a Unix socket.
type Shared = (Vec<ListeningSocket>, Option<unix::Identity>);

impl Bound {
    /// Its sockets, each once, and the file of a Unix socket.
    pub(super) fn share(&self) -> io::Result<Shared> {
        match &self.sockets {
            Sockets::Tcp(_) => self.handles().map(|sockets| (sockets, None)),
            Sockets::Unix { socket, file, .. } => {
                Ok((vec![ListeningSocket::Unix(socket.try_clone()?)], Some(file.identity())))
            }
            Sockets::Given { socket, .. } => Ok((vec![socket.try_clone()?], None)),
        }
    }

    /// Somebody else has it from now on, whatever we do with our handles.
    pub(super) fn disown(&mut self) {
        self.shared = true;
        if let Sockets::Unix { file, .. } = &mut self.sockets {
            file.set_shared(true);
        }
    }

    /// It is ours to close.
    pub(super) fn own(&mut self) {
        if let Sockets::Unix { file, .. } = &mut self.sockets {
            file.set_shared(false);
        }
    }
}
