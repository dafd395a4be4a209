//! A listening socket inside a worker's runtime.
//!
//! Invariant: what comes out is ready for any protocol: a `Socket`, and who is at its other end. A Unix socket that was
//! shut (`stop`) is as quiet as one to which nobody comes.

use std::io;
use std::os::unix::net::{UnixListener, UnixStream};
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::TcpListener;

use super::{Accepted, ListeningSocket, accept_rest};
use crate::net::socket::{Peer, Socket};

/// See the file's head.
#[derive(Debug)]
pub enum Acceptor {
    Tcp(TcpListener),
    /// Not tokio's listener: shut, it would spin in `accept`, because to tokio an end stays readable.
    Unix(AsyncFd<UnixListener>),
}

impl Acceptor {
    /// Inside a runtime with I/O only.
    ///
    /// # Errors
    /// When the kernel does not watch the socket for us.
    pub fn new(socket: ListeningSocket) -> io::Result<Self> {
        match socket {
            ListeningSocket::Tcp(socket) => TcpListener::from_std(socket).map(Self::Tcp),
            #[expect(
                deprecated,
                reason = "its successor is unsafe; a `UnixListener` keeps its descriptor, as both ask"
            )]
            ListeningSocket::Unix(socket) => AsyncFd::with_interest(socket, Interest::READABLE).map(Self::Unix),
        }
    }

    /// The next connection. Cancel safe.
    ///
    /// # Errors
    /// When the process is out of file descriptors or memory.
    pub async fn accept(&self) -> io::Result<(Socket, Peer)> {
        match self {
            Self::Tcp(socket) => {
                let (stream, client) = socket.accept().await?;
                Ok((stream.into(), Peer::Ip(client)))
            }
            Self::Unix(socket) => in_runtime(Accepted::Unix(accept(socket).await?)),
        }
    }

    /// Accepts and closes what waits, at most so many; says how many there were. It takes one descriptor.
    pub fn reject(&self, most: usize) -> usize {
        let mut cx = Context::from_waker(Waker::noop());
        // A client that has gone already counts as well: it needs no more than the others.
        (0..most).take_while(|_| matches!(pin!(self.accept()).poll(&mut cx), Poll::Ready(Ok(_)))).count()
    }

    /// All that still waits, past tokio, whose readiness may lag behind the kernel's; then the socket is closed. Only
    /// for a listener that is being stopped.
    ///
    /// # Errors
    /// When the process is out of file descriptors or memory; what was accepted before is with `take`.
    pub fn accept_rest(self, mut take: impl FnMut(io::Result<(Socket, Peer)>)) -> io::Result<()> {
        let socket = match self {
            Self::Tcp(socket) => ListeningSocket::Tcp(socket.into_std()?),
            Self::Unix(socket) => ListeningSocket::Unix(socket.into_inner()),
        };
        accept_rest(&socket, |accepted| take(in_runtime(accepted)))?;
        Ok(())
    }
}

async fn accept(socket: &AsyncFd<UnixListener>) -> io::Result<UnixStream> {
    loop {
        let mut ready = socket.readable().await?;
        let is_shut = ready.ready().is_read_closed();
        match ready.try_io(|socket| socket.get_ref().accept()) {
            Ok(accepted) => {
                let (stream, _) = accepted?;
                stream.set_nonblocking(true)?;
                return Ok(stream);
            }
            Err(_) if is_shut => return std::future::pending().await,
            Err(_) => {}
        }
    }
}

fn in_runtime(accepted: Accepted) -> io::Result<(Socket, Peer)> {
    match accepted {
        Accepted::Tcp(stream, client) => Ok((tokio::net::TcpStream::from_std(stream)?.into(), Peer::Ip(client))),
        Accepted::Unix(stream) => Ok((tokio::net::UnixStream::from_std(stream)?.into(), Peer::Unix)),
    }
}
