//! Closing a listening socket without losing what the kernel has already taken for us.
//!
//! A plain close resets every connection in the accept queue. So first a filter on the sockets drops the packets that
//! *begin* a connection (SYN without ACK), then the queue is emptied, then they are closed. The filter must let the
//! rest through: a client whose SYN was answered takes itself for connected, and its last ACK, and the request behind it,
//! must still reach us. A filter that drops everything (the usual recipe) resets exactly those clients at the close.
//! Dropped SYNs are repeated by the client's kernel after a second, and then find the successor or a closed port.
//! A Unix socket has no handshake: its path is taken away, and its receiving side is shut, after which the kernel refuses
//! every `connect`, those that had already found the path included, and still gives out what is queued.

use std::io;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use socket2::{SockFilter, SockRef};

use super::{Bound, ListeningSocket, Sockets, half_open};
use crate::config::Bind;
use crate::model::Instant;

/// What a client's handshake may take after the filter is in place; a client that is slower is lost.
const HANDSHAKE: Duration = Duration::from_secs(1);
/// Between two looks at the half-open ones.
const LOOK: Duration = Duration::from_millis(5);
/// Far above what two full queues hold: a bound for a loop that ends by itself.
const MOST: usize = 1 << 16;

/// Classic BPF over the TCP header: byte 13 holds the flags; SYN (0x02) without ACK (0x10) is dropped.
const NO_SYN: [SockFilter; 5] = [
    SockFilter::new(0x30, 0, 0, 13),       // load the byte
    SockFilter::new(0x54, 0, 0, 0x12),     // and
    SockFilter::new(0x15, 0, 1, 0x02),     // equal: next, else skip one
    SockFilter::new(0x06, 0, 0, 0),        // return: keep nothing
    SockFilter::new(0x06, 0, 0, u32::MAX), // return: keep all
];

impl Bound {
    /// From now on no new connection begins here; those that have begun still complete and can be accepted. At a socket
    /// that is shared they go on beginning: for the others.
    pub(super) fn refuse_new(&self) -> io::Result<()> {
        match &self.sockets {
            _ if self.shared => Ok(()),
            Sockets::Given { .. } => Ok(()),
            Sockets::Tcp(sockets) => sockets.iter().try_for_each(|s| SockRef::from(s).attach_filter(&NO_SYN)),
            Sockets::Unix { socket, file, .. } => {
                file.remove();
                SockRef::from(socket).shutdown(Shutdown::Read)
            }
        }
    }

    /// Waits until every handshake that had begun is complete, for a bounded time. Returns how many were left.
    pub(super) async fn handshakes_done(&self) -> usize {
        let Bind::Tcp(address) = self.address else { return 0 };
        if self.shared {
            return 0;
        }
        let (begun, mut quiet, mut left) = (Instant::now(), 0, 0);
        // Twice: a connection is for a moment neither half-open nor in the queue.
        while quiet < 2 && begun.elapsed() < HANDSHAKE {
            tokio::time::sleep(LOOK).await;
            left = half_open(address, begun.elapsed()).await;
            quiet = if left == 0 { quiet + 1 } else { 0 };
        }
        left
    }
}

/// A kernel that does not say is given a while.
async fn half_open(address: SocketAddr, waited: Duration) -> usize {
    let look = tokio::task::spawn_blocking(move || half_open::count(address)).await;
    look.ok().and_then(Result::ok).unwrap_or(usize::from(waited < HANDSHAKE / 4))
}

/// A connection as the kernel gave it out, non-blocking.
#[derive(Debug)]
pub enum Accepted {
    Tcp(TcpStream, SocketAddr),
    Unix(UnixStream),
}

impl ListeningSocket {
    fn accept(&self) -> io::Result<Accepted> {
        match self {
            Self::Tcp(socket) => {
                let (stream, client) = socket.accept()?;
                stream.set_nonblocking(true)?;
                Ok(Accepted::Tcp(stream, client))
            }
            Self::Unix(socket) => {
                let (stream, _) = socket.accept()?;
                stream.set_nonblocking(true)?;
                Ok(Accepted::Unix(stream))
            }
        }
    }
}

/// Accepts all that waits in the queue of a listener. Only for a listener that is being stopped. Returns how many there
/// were.
///
/// # Errors
/// When the process is out of file descriptors or memory; what was accepted before is with `take`.
pub fn accept_rest(listener: &ListeningSocket, mut take: impl FnMut(Accepted)) -> io::Result<usize> {
    let mut count = 0;
    while count < MOST {
        match listener.accept() {
            Ok(accepted) => {
                take(accepted);
                count += 1;
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
            // The client has gone already, or the call was interrupted: the next one may still be there.
            Err(e) if matches!(e.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;
    use crate::net::listen::bind;

    fn sockets(bound: &Bound) -> Vec<ListeningSocket> {
        bound.handles().unwrap()
    }

    fn attach(bound: &Bound, filter: &[SockFilter]) {
        let Sockets::Tcp(sockets) = &bound.sockets else { panic!("not TCP") };
        sockets.iter().for_each(|s| SockRef::from(s).attach_filter(filter).unwrap());
    }

    const NOTHING: [SockFilter; 1] = [SockFilter::new(0x06, 0, 0, 0)];
    /// Only packets with SYN come through: the client's last ACK gets lost.
    const ONLY_SYN: [SockFilter; 5] = [
        SockFilter::new(0x30, 0, 0, 13),
        SockFilter::new(0x54, 0, 0, 0x02),
        SockFilter::new(0x15, 0, 1, 0x02),
        SockFilter::new(0x06, 0, 0, u32::MAX),
        SockFilter::new(0x06, 0, 0, 0),
    ];

    fn connected_but_half_open() -> (Bound, TcpStream) {
        let bound = bind(&Bind::Tcp(([127, 0, 0, 1], 0).into()), 1).unwrap();
        attach(&bound, &ONLY_SYN);
        let address = bound.address.tcp().unwrap();
        let client = TcpStream::connect(address).unwrap();
        assert_eq!(half_open::count(address).unwrap(), 1);
        (bound, client)
    }

    #[tokio::test]
    async fn a_client_whose_last_ack_was_lost_is_waited_for_and_served() {
        let (bound, mut client) = connected_but_half_open();
        bound.refuse_new().unwrap();
        let (left, ()) = tokio::join!(bound.handshakes_done(), async { client.write_all(b"x").unwrap() });
        assert_eq!(left, 0);
        let mut got = Vec::new();
        assert_eq!(accept_rest(&sockets(&bound)[0], |accepted| got.push(accepted)).unwrap(), 1);
        drop(bound);
        let Accepted::Tcp(served, _) = &mut got[0] else { panic!("not TCP") };
        served.write_all(b"y").unwrap();
        client.read_exact(&mut [0]).unwrap();
    }

    /// Why the filter is not the usual one: with it the same client is reset.
    #[tokio::test]
    async fn a_filter_that_drops_everything_would_reset_that_client() {
        let (bound, mut client) = connected_but_half_open();
        attach(&bound, &NOTHING);
        client.write_all(b"x").unwrap();
        let begun = Instant::now();
        assert_eq!(bound.handshakes_done().await, 1);
        assert!(begun.elapsed() < 5 * HANDSHAKE, "not for ever: {:?}", begun.elapsed());
        assert_eq!(accept_rest(&sockets(&bound)[0], |_| ()).unwrap(), 0);
        drop(bound);
        client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        assert_eq!(client.read(&mut [0]).unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    }
}
