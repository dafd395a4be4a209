//! One client connection, from the accepted socket to the protocol it speaks.
//!
//! Over TLS the client says by ALPN what it speaks; in cleartext an HTTP/2 client opens with its preface (prior knowledge,
//! RFC 9113 section 3.3), and everybody else speaks HTTP/1.1. Invariant: until that is known the connection is bound by
//! the same limits as a request head.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use tokio_rustls::TlsAcceptor;

use super::client::{Client, Phase, Protocol, Registered};
use super::client_io::Transport;
use super::worker::Worker;
use super::{http1, http2};
use crate::config::Bind;
use crate::model::ListenerName;
use crate::net::socket::{Peer, Socket};

/// How long a closing listener or process lets idle connections send one more request (faults.md 4.2).
pub(super) const GRACE: Duration = Duration::from_secs(2);

/// What an HTTP/2 client sends first (RFC 9113 section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Serves a connection until it ends. `_permit` is held as long.
pub(super) async fn serve<P>(
    worker: Rc<Worker>,
    socket: Socket,
    local: (ListenerName, Rc<Bind>),
    peer: Peer,
    _permit: P,
) {
    let Some(registered) = Registered::new(&worker, local, peer) else { return };
    let client = &registered.client;
    let opened = tokio::select! {
        biased;
        opened = open(&worker, client, socket) => opened,
        _ = client.ordered() => return,
    };
    let Ok((protocol, transport)) = opened else { return };
    client.protocol.set(Some(protocol));
    match protocol {
        Protocol::Http1 => http1::serve(&worker, client, transport).await,
        Protocol::Http2 => Box::pin(http2::serve(&worker, client, transport)).await,
    }
}

/// Finds out what the client speaks.
async fn open(worker: &Rc<Worker>, client: &Rc<Client>, mut socket: Socket) -> io::Result<(Protocol, Transport)> {
    let view = worker.view();
    let tls = view.listener(&client.listener).and_then(|(index, _)| view.snapshot.tls[index].clone());
    drop(view);
    if let Some(tls) = tls {
        return Box::pin(secure(client, socket, tls)).await;
    }
    let protocol = prior_knowledge(client, &mut socket).await?;
    Ok((protocol, Transport::Plain(socket)))
}

/// Shakes hands. The head's time runs from the client's first byte; one that is silent counts as idle.
async fn secure(client: &Client, mut socket: Socket, tls: Arc<ServerConfig>) -> io::Result<(Protocol, Transport)> {
    if socket.ahead().is_empty() && socket.read_ahead().await? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    client.enter(Phase::Head);
    let stream = match TlsAcceptor::from(tls).accept(socket).await {
        Ok(stream) => stream,
        Err(error) => {
            client.cell.handshake_failed();
            return Err(error);
        }
    };
    client.cell.handshake_ok();
    client.is_secure.set(true);
    client.enter(Phase::Idle);
    let protocol = if stream.get_ref().1.alpn_protocol() == Some(b"h2") { Protocol::Http2 } else { Protocol::Http1 };
    Ok((protocol, Transport::Tls(Box::new(stream))))
}

/// Reads ahead until the preface is there whole or the bytes differ from it. What came in one packet with a PROXY header
/// is there already. The head's time runs from its first byte.
async fn prior_knowledge(client: &Client, socket: &mut Socket) -> io::Result<Protocol> {
    loop {
        let ahead = socket.ahead();
        if !ahead.is_empty() && client.phase() == Phase::Idle {
            client.enter(Phase::Head);
        }
        if ahead.starts_with(PREFACE) {
            return Ok(Protocol::Http2);
        }
        if !PREFACE.starts_with(ahead) {
            return Ok(Protocol::Http1);
        }
        if socket.read_ahead().await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}
