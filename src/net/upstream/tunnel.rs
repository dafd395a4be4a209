//! A connection, or an HTTP/2 stream, that has left HTTP behind: bytes both ways until either side ends.
//!
//! Invariant: its end is its owner's affair; `Upstream::cut` does not touch it, since tunnels may outlive requests.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::net::duplex::Duplex;

/// See the file's head. Dropping it ends what is under it.
pub struct Tunnel {
    under: Under,
    /// Its HTTP/2 slot, and the upstream, which a worker keeps for as long as it has tunnels.
    _place: Box<dyn std::any::Any>,
}

enum Under {
    Http1(TokioIo<Upgraded>),
    Http2(Duplex),
}

impl Tunnel {
    pub(super) fn http1(upgraded: Upgraded, place: impl std::any::Any) -> Self {
        Self { under: Under::Http1(TokioIo::new(upgraded)), _place: Box::new(place) }
    }

    pub(super) fn http2(receive: h2::RecvStream, send: h2::SendStream<Bytes>, place: impl std::any::Any) -> Self {
        Self { under: Under::Http2(Duplex::new(receive, send)), _place: Box::new(place) }
    }
}

impl AsyncRead for Tunnel {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut self.under {
            Under::Http1(io) => Pin::new(io).poll_read(cx, buf),
            Under::Http2(io) => Pin::new(io).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Tunnel {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.under {
            Under::Http1(io) => Pin::new(io).poll_write(cx, buf),
            Under::Http2(io) => Pin::new(io).poll_write(cx, buf),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.under {
            Under::Http1(io) => Pin::new(io).poll_flush(cx),
            Under::Http2(io) => Pin::new(io).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.under {
            Under::Http1(io) => Pin::new(io).poll_shutdown(cx),
            Under::Http2(io) => Pin::new(io).poll_shutdown(cx),
        }
    }
}

impl fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tunnel").field("is_http2", &matches!(self.under, Under::Http2(_))).finish()
    }
}
