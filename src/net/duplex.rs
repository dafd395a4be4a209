//! An HTTP/2 stream as plain bytes in both directions: what an extended CONNECT opens (RFC 8441), at either side of it.
//!
//! Invariants: the peer's window is opened again only by what was read; what waits to be sent is bounded by the peer's
//! window and h2's buffer; a tunnel that is dropped before it was shut down ends with a reset, which the peer cannot take
//! for an end.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use h2::{Reason, RecvStream, SendStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The most that is copied at once: a frame of the smallest limit (RFC 9113 section 4.2).
const PIECE: usize = 16 << 10;

/// See the file's head.
#[derive(Debug)]
pub struct Duplex {
    recv: RecvStream,
    send: SendStream<Bytes>,
    unread: Bytes,
    is_shut: bool,
}

impl Duplex {
    /// After the heads of both sides.
    pub fn new(recv: RecvStream, send: SendStream<Bytes>) -> Self {
        Self { recv, send, unread: Bytes::new(), is_shut: false }
    }

    /// Makes `unread` not empty; false at the end.
    fn poll_unread(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        while self.unread.is_empty() {
            match ready!(self.recv.poll_data(cx)) {
                Some(data) => self.unread = data.map_err(to_io)?,
                None => return Poll::Ready(Ok(false)),
            }
        }
        Poll::Ready(Ok(true))
    }

    /// Room for at least one byte.
    fn poll_room(&mut self, cx: &mut Context<'_>, wanted: usize) -> Poll<io::Result<usize>> {
        self.send.reserve_capacity(wanted.min(PIECE));
        loop {
            let room = self.send.capacity();
            if room > 0 {
                return Poll::Ready(Ok(room));
            }
            match self.send.poll_capacity(cx) {
                Poll::Ready(Some(room)) => drop(room.map_err(to_io)?),
                Poll::Ready(None) => return Poll::Ready(Err(self.why_closed(cx))),
                // A reset wakes whoever waits for it.
                Poll::Pending if self.send.poll_reset(cx).is_ready() => {
                    return Poll::Ready(Err(self.why_closed(cx)));
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    fn why_closed(&mut self, cx: &mut Context<'_>) -> io::Error {
        match self.send.poll_reset(cx) {
            Poll::Ready(Ok(reason)) => io::Error::new(io::ErrorKind::ConnectionReset, h2::Error::from(reason)),
            Poll::Ready(Err(error)) => to_io(error),
            Poll::Pending => io::ErrorKind::BrokenPipe.into(),
        }
    }
}

fn to_io(error: h2::Error) -> io::Error {
    if error.is_io() {
        return error.into_io().unwrap_or_else(|| io::ErrorKind::BrokenPipe.into());
    }
    io::Error::new(io::ErrorKind::ConnectionReset, error)
}

impl AsyncRead for Duplex {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if buf.remaining() > 0 && ready!(this.poll_unread(cx))? {
            let n = this.unread.len().min(buf.remaining());
            buf.put_slice(&this.unread[..n]);
            this.unread.advance(n);
            // Fails only if more is given back than was taken.
            let _ = this.recv.flow_control().release_capacity(n);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Duplex {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let n = ready!(this.poll_room(cx, buf.len()))?.min(buf.len()).min(PIECE);
        this.send.send_data(Bytes::copy_from_slice(&buf[..n]), false).map_err(to_io)?;
        Poll::Ready(Ok(n))
    }

    /// Ready at once: the connection's task sends what it has.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !std::mem::replace(&mut self.is_shut, true) {
            self.send.send_data(Bytes::new(), true).map_err(to_io)?;
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for Duplex {
    fn drop(&mut self) {
        if !self.is_shut {
            self.send.send_reset(Reason::CANCEL);
        }
    }
}
