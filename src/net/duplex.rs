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

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// Both ends of one stream, the client's first.
    async fn pair() -> (Duplex, Duplex) {
        let (ours, theirs) = tokio::io::duplex(64 << 10);
        let serve = async {
            let mut connection = h2::server::handshake(theirs).await.unwrap();
            let (request, mut respond) = connection.accept().await.unwrap().unwrap();
            let send = respond.send_response(http::Response::new(()), false).unwrap();
            tokio::spawn(async move { while connection.accept().await.is_some() {} });
            Duplex::new(request.into_body(), send)
        };
        let ask = async {
            let (mut client, connection) = h2::client::handshake(ours).await.unwrap();
            tokio::spawn(connection);
            let request = http::Request::post("http://app.test/").body(()).unwrap();
            let (answer, send) = client.send_request(request, false).unwrap();
            Duplex::new(answer.await.unwrap().into_body(), send)
        };
        tokio::join!(ask, serve)
    }

    #[tokio::test]
    async fn bytes_go_both_ways_to_the_end() {
        let (mut ours, mut theirs) = pair().await;
        // More than every window.
        let all: Vec<u8> = (0..1 << 20).map(|i| (i % 251) as u8).collect();
        let echo = tokio::spawn(async move {
            let (mut read, mut write) = tokio::io::split(&mut theirs);
            tokio::io::copy(&mut read, &mut write).await.unwrap();
            theirs.shutdown().await.unwrap();
            theirs
        });
        let (mut read, mut write) = tokio::io::split(&mut ours);
        let mut got = Vec::new();
        let send = async {
            write.write_all(&all).await.unwrap();
            write.shutdown().await.unwrap();
        };
        let receive = async { read.read_to_end(&mut got).await.unwrap() };
        tokio::join!(send, receive);
        assert!(got == all);
        echo.await.unwrap();
        assert_eq!(ours.read(&mut [0; 8]).await.unwrap(), 0, "the end stays the end");
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_does_not_read_stops_the_writer() {
        let (mut ours, mut theirs) = pair().await;
        let mut written = 0;
        let write = async {
            loop {
                written += ours.write(&[7; 5000]).await.unwrap();
            }
        };
        // Paused time moves on only when nothing else can.
        assert!(tokio::time::timeout(std::time::Duration::from_millis(50), write).await.is_err());
        assert_eq!(written, 65_535, "the window of RFC 9113 section 6.9.2");
        theirs.read_exact(&mut vec![0; 65_535]).await.unwrap();
        assert!(ours.write(&[7; 5000]).await.unwrap() > 0);
    }

    #[tokio::test]
    async fn dropped_before_its_end_it_is_a_reset_for_the_peer() {
        let (ours, mut theirs) = pair().await;
        drop(ours);
        let error = theirs.read(&mut [0; 8]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        let reason = error.get_ref().and_then(|e| e.downcast_ref::<h2::Error>()).and_then(h2::Error::reason);
        assert_eq!(reason, Some(Reason::CANCEL));
        assert!(theirs.write(b"x").await.is_err());
    }

    #[tokio::test]
    async fn a_reset_ends_a_writer_that_waits() {
        let (mut ours, theirs) = pair().await;
        let full = async {
            loop {
                if let Err(error) = ours.write(&[7; 5000]).await {
                    break error;
                }
            }
        };
        let cut = async {
            tokio::task::yield_now().await;
            drop(theirs);
        };
        let (error, ()) = tokio::join!(full, cut);
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }
}
