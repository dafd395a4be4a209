//! Closing a listening socket without losing what the kernel has already taken for us.
//!
//! A plain close resets every connection in the accept queue. So first a filter on the sockets drops the packets that
//! *begin* a connection (SYN without ACK), then the queue is emptied, then they are closed. The filter must let the
//! rest through: a client whose SYN was answered takes itself for connected, and its last ACK, and the request behind it,
//! must still reach us. A filter that drops everything (the usual recipe) resets exactly those clients at the close.
//! Dropped SYNs are repeated by the client's kernel after a second, and then find the successor or a closed port.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use socket2::{SockFilter, SockRef};

use super::{Bound, half_open};
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
    /// From now on no new connection begins here; those that have begun still complete and can be accepted.
    pub(super) fn refuse_new(&self) -> io::Result<()> {
        self.sockets.iter().try_for_each(|socket| SockRef::from(socket).attach_filter(&NO_SYN))
    }

    /// Waits until every handshake that had begun is complete, for a bounded time. Returns how many were left.
    pub(super) async fn handshakes_done(&self) -> usize {
        let (begun, mut quiet, mut left) = (Instant::now(), 0, 0);
        // Twice: a connection is for a moment neither half-open nor in the queue.
        while quiet < 2 && begun.elapsed() < HANDSHAKE {
            tokio::time::sleep(LOOK).await;
            left = self.half_open(begun.elapsed()).await;
            quiet = if left == 0 { quiet + 1 } else { 0 };
        }
        left
    }

    /// A kernel that does not say is given a while.
    async fn half_open(&self, waited: Duration) -> usize {
        let address = self.address;
        let look = tokio::task::spawn_blocking(move || half_open::count(address)).await;
        look.ok().and_then(Result::ok).unwrap_or(usize::from(waited < HANDSHAKE / 4))
    }
}

/// Accepts all that waits in the queue of a non-blocking listener; each stream is non-blocking. Only for a listener
/// that is being stopped. Returns how many there were.
///
/// # Errors
/// When the process is out of file descriptors or memory; what was accepted before is with `take`.
pub fn accept_rest(listener: &TcpListener, mut take: impl FnMut(TcpStream, SocketAddr)) -> io::Result<usize> {
    let mut count = 0;
    while count < MOST {
        match listener.accept() {
            Ok((stream, client)) => {
                stream.set_nonblocking(true)?;
                take(stream, client);
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
        let bound = bind(([127, 0, 0, 1], 0).into(), 1).unwrap();
        SockRef::from(&bound.sockets[0]).attach_filter(&ONLY_SYN).unwrap();
        let client = TcpStream::connect(bound.address).unwrap();
        assert_eq!(half_open::count(bound.address).unwrap(), 1);
        (bound, client)
    }

    #[tokio::test]
    async fn a_client_whose_last_ack_was_lost_is_waited_for_and_served() {
        let (bound, mut client) = connected_but_half_open();
        bound.refuse_new().unwrap();
        let (left, ()) = tokio::join!(bound.handshakes_done(), async { client.write_all(b"x").unwrap() });
        assert_eq!(left, 0);
        let mut got = Vec::new();
        assert_eq!(accept_rest(&bound.sockets[0], |stream, _| got.push(stream)).unwrap(), 1);
        drop(bound);
        got[0].write_all(b"y").unwrap();
        client.read_exact(&mut [0]).unwrap();
    }

    /// Why the filter is not the usual one: with it the same client is reset.
    #[tokio::test]
    async fn a_filter_that_drops_everything_would_reset_that_client() {
        let (bound, mut client) = connected_but_half_open();
        SockRef::from(&bound.sockets[0]).attach_filter(&NOTHING).unwrap();
        client.write_all(b"x").unwrap();
        let begun = Instant::now();
        assert_eq!(bound.handshakes_done().await, 1);
        assert!(begun.elapsed() < 5 * HANDSHAKE, "not for ever: {:?}", begun.elapsed());
        assert_eq!(accept_rest(&bound.sockets[0], |_, _| ()).unwrap(), 0);
        drop(bound);
        client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        assert_eq!(client.read(&mut [0]).unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    }
}
