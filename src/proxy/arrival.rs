//! What comes before HTTP: whether a peer is heard at all, and whose the connection is.
//!
//! On a listener with `proxy_protocol` the trusted peers say in a PROXY header who their client is, and nobody else is
//! let in. From then on the client is the one the header names; what *it* says about itself is believed only if it is
//! trusted too, since the bytes behind the header are its own.
//! Invariant: nothing of a connection reaches HTTP before it is known whose it is.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::worker::Worker;
use crate::config::Trusted;
use crate::model::{ListenerName, Refusal};
use crate::net::proxy_protocol;
use crate::net::socket::{Peer, Socket};

/// What a peer has to do first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum First {
    /// Nothing: it is the client.
    Speak,
    /// Name its client in a PROXY header.
    Introduce,
    /// Go.
    Leave,
}

/// The rule of `proxy_protocol` and `trusted_proxies`; `peer` is `None` over a Unix socket.
fn first(proxy_protocol: bool, trusted: &Trusted, peer: Option<IpAddr>) -> First {
    match (proxy_protocol, trusted.trusts(peer)) {
        (false, _) => First::Speak,
        (true, true) => First::Introduce,
        (true, false) => First::Leave,
    }
}

/// Whose connection this is; `None`: nobody's that is heard, close it. Refusals are counted here. What follows a PROXY
/// header stays in the socket.
pub(super) async fn admit(worker: &Worker, name: &ListenerName, socket: &mut Socket, peer: Peer) -> Option<Peer> {
    let view = worker.view();
    // A listener that has just left the configuration serves what it has accepted, as plainly as it can.
    let Some((_, listener)) = view.listener(name) else { return Some(peer) };
    let refusal = match first(listener.proxy_protocol, &listener.trusted_proxies, peer.ip()) {
        First::Speak => return Some(peer),
        First::Leave => Refusal::Untrusted,
        First::Introduce => {
            let patience = listener.timeouts.header;
            drop(view);
            match introduced(worker, socket, patience).await {
                Ok(Some(client)) => return Some(Peer::Ip(client)),
                Ok(None) => return Some(peer),
                // A look whether the port is open, as load balancers take it: nothing was asked for.
                Err(e) if e.kind() == io::ErrorKind::UnexpectedEof && socket.ahead().is_empty() => return None,
                Err(_) => Refusal::ProxyHeader,
            }
        }
    };
    worker.cells.listener(worker.index, name).refused(refusal);
    None
}

/// The client a trusted peer names, if it names one. Counted as arriving meanwhile, so that a process that goes down
/// waits for it.
async fn introduced(
    worker: &Worker,
    socket: &mut Socket,
    patience: Option<Duration>,
) -> io::Result<Option<SocketAddr>> {
    let _arriving = Arriving::new(worker);
    let header = proxy_protocol::read(socket);
    match patience {
        Some(patience) => tokio::time::timeout(patience, header).await?,
        None => header.await,
    }
}

struct Arriving<'a>(&'a Worker);

impl<'a> Arriving<'a> {
    fn new(worker: &'a Worker) -> Self {
        worker.arriving.set(worker.arriving.get() + 1);
        Self(worker)
    }
}

impl Drop for Arriving<'_> {
    fn drop(&mut self) {
        self.0.arriving.set(self.0.arriving.get() - 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_trusted_peers_get_in_where_the_proxy_protocol_is_spoken() {
        let list = Trusted { networks: vec!["10.0.0.0/8".parse().unwrap()], unix: false };
        let unix = Trusted { networks: Vec::new(), unix: true };
        let inside = Some([10, 1, 1, 1].into());
        let outside = Some([203, 0, 113, 1].into());
        let cases = [
            (false, &list, inside, First::Speak),
            (false, &list, outside, First::Speak),
            (false, &list, None, First::Speak),
            (true, &list, inside, First::Introduce),
            (true, &list, Some("::ffff:10.1.1.1".parse().unwrap()), First::Introduce),
            (true, &list, outside, First::Leave),
            (true, &list, None, First::Leave),
            (true, &unix, None, First::Introduce),
            (true, &unix, inside, First::Leave),
            (true, &Trusted::default(), inside, First::Leave),
        ];
        for (speaks, trusted, peer, expected) in cases {
            assert_eq!(first(speaks, trusted, peer), expected, "{speaks} {trusted:?} {peer:?}");
        }
    }
}
