//! A tunnel between a client and an endpoint, after a handshake both have agreed to: bytes both ways until one side ends.
//!
//! Invariant: the exchange, and with it the in-flight claim, lives as long as the tunnel. The endpoint's half ends by
//! itself when a drain is over (`net::upstream`).

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf as _, Bytes};
use h2::RecvStream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::client::Busy;
use super::error::ProxyError;
use super::exchange::Exchange;
use crate::net::upstream::Tunnel;

/// Bytes read at once, each way.
const BUFFER: usize = 8 << 10;

/// What a tunnel is made of, once the endpoint has agreed.
pub(super) struct Agreed {
    pub(super) endpoint: Tunnel,
    pub(super) exchange: Exchange,
    /// The client's half, if it comes over HTTP/2.
    pub(super) stream: Option<RecvStream>,
    pub(super) busy: Option<Busy>,
}

/// Carries bytes until both sides have ended or one has failed. `early` are bytes the client has sent behind its
/// handshake. Dropped early, the exchange counts as one whose client has gone.
pub(super) async fn run<C: AsyncRead + AsyncWrite + Unpin>(client: C, early: Bytes, agreed: Agreed) {
    let Agreed { endpoint, mut exchange, busy: _busy, .. } = agreed;
    let (to_client, to_endpoint) = (Cell::new(0), Cell::new(0));
    let mut client = Early { io: client, early };
    let mut endpoint = Counted { io: endpoint, read: &to_client, written: &to_endpoint };
    let ended = tokio::io::copy_bidirectional_with_sizes(&mut client, &mut endpoint, BUFFER, BUFFER).await;
    exchange.add_bytes_in(to_endpoint.get());
    exchange.add_bytes_out(to_client.get());
    if ended.is_err() && exchange.endpoint_is_cut() {
        exchange.failed(ProxyError::Cut);
    } else {
        // A side that just goes away is how most WebSockets end.
        exchange.complete();
    }
}

/// A client whose first bytes are here already.
struct Early<C> {
    io: C,
    early: Bytes,
}

impl<C: AsyncRead + Unpin> AsyncRead for Early<C> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.early.is_empty() {
            return Pin::new(&mut self.io).poll_read(cx, buf);
        }
        let n = self.early.len().min(buf.remaining());
        buf.put_slice(&self.early[..n]);
        self.early.advance(n);
        Poll::Ready(Ok(()))
    }
}

impl<C: AsyncWrite + Unpin> AsyncWrite for Early<C> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// Counts what passes, also of a tunnel that is cut.
struct Counted<'a, E> {
    io: E,
    read: &'a Cell<u64>,
    written: &'a Cell<u64>,
}

impl<E: AsyncRead + Unpin> AsyncRead for Counted<'_, E> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.io).poll_read(cx, buf);
        self.read.set(self.read.get() + (buf.filled().len() - before) as u64);
        polled
    }
}

impl<E: AsyncWrite + Unpin> AsyncWrite for Counted<'_, E> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write(cx, buf);
        if let Poll::Ready(Ok(n)) = polled {
            self.written.set(self.written.get() + n as u64);
        }
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
