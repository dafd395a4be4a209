//! A client's socket before anybody has said what it speaks: TCP or Unix, with what was read ahead of its protocol.
//!
//! Why read ahead instead of peeking: the first read tells a PROXY header, an HTTP/2 preface and HTTP/1.1 apart and is
//! not done twice. Invariant: bytes read ahead and not consumed are the first that a later read gives.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

/// Who is at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    Ip(SocketAddr),
    /// Over a Unix socket, where clients have no address.
    Unix,
}

impl Peer {
    /// Its IP address, one of IPv4 inside IPv6 as plain IPv4; `None` over a Unix socket.
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::Ip(address) => Some(address.ip().to_canonical()),
            Self::Unix => None,
        }
    }
}

/// See the file's head.
#[derive(Debug)]
pub struct Socket {
    stream: Stream,
    ahead: BytesMut,
}

#[derive(Debug)]
enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl From<TcpStream> for Socket {
    fn from(stream: TcpStream) -> Self {
        Self { stream: Stream::Tcp(stream), ahead: BytesMut::new() }
    }
}

impl From<UnixStream> for Socket {
    fn from(stream: UnixStream) -> Self {
        Self { stream: Stream::Unix(stream), ahead: BytesMut::new() }
    }
}

impl Socket {
    /// What was read ahead and is not consumed.
    pub fn ahead(&self) -> &[u8] {
        &self.ahead
    }

    /// Reads once more into `ahead`; 0 at the end of the stream. Cancel safe.
    ///
    /// # Errors
    /// Those of the socket.
    pub async fn read_ahead(&mut self) -> io::Result<usize> {
        self.ahead.reserve(1024);
        match &mut self.stream {
            Stream::Tcp(stream) => stream.read_buf(&mut self.ahead).await,
            Stream::Unix(stream) => stream.read_buf(&mut self.ahead).await,
        }
    }

    /// Drops the first `n` bytes of `ahead`, at most all.
    pub fn consume(&mut self, n: usize) {
        self.ahead.advance(n.min(self.ahead.len()));
    }

    /// Writes what can be written without waiting.
    ///
    /// # Errors
    /// Those of the socket, `WouldBlock` among them.
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match &self.stream {
            Stream::Tcp(stream) => stream.try_write(bytes),
            Stream::Unix(stream) => stream.try_write(bytes),
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.ahead.is_empty() {
            let n = self.ahead.len().min(buf.remaining());
            buf.put_slice(&self.ahead.split_to(n));
            if self.ahead.is_empty() {
                self.ahead = BytesMut::new();
            }
            return Poll::Ready(Ok(()));
        }
        match &mut self.stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Stream::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Stream::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Unix(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Stream::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }
}
