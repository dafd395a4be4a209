//! The client's socket as the HTTP library sees it: tells the connection's phase, and ends it politely.
//!
//! hyper's own header timer also covers the idle time between requests (amendments.md 2.9), so the phases are told apart
//! here. Invariant: a connection that is given up is first half-closed and then read until the client has closed too,
//! so that a client that is still sending sees the end of our answer and not a reset.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;
use tokio_rustls::server::TlsStream;

use super::client::{Client, Order, Phase};
use super::framing;
use crate::model::Refusal;
use crate::net::socket::Socket;

/// How long a half-closed connection is read to its end.
const LINGER: Duration = Duration::from_secs(1);
/// And how many bytes: what an honest client may have under way before it sees our answer. One that floods us is cut.
const LINGER_BYTES: usize = 1 << 20;

const REQUEST_TIMEOUT: &[u8] = b"HTTP/1.1 408 Request Timeout\r\nweir-error: client-timeout\r\n\
content-type: text/plain; charset=utf-8\r\ncontent-length: 48\r\nconnection: close\r\n\r\n\
client-timeout: the request head did not arrive\n";

const OTHER_VERSION: &[u8] = b"HTTP/1.1 505 HTTP Version Not Supported\r\nweir-error: bad-request\r\n\
content-type: text/plain; charset=utf-8\r\ncontent-length: 51\r\nconnection: close\r\n\r\n\
bad-request: this version of HTTP is not spoken so\n";

/// In cleartext or over TLS.
pub(super) enum Transport {
    Plain(Socket),
    Tls(Box<TlsStream<Socket>>),
}

/// See the file's head.
pub(super) struct ClientIo {
    transport: Transport,
    client: Rc<Client>,
    linger: Linger,
}

impl ClientIo {
    pub(super) fn new(transport: Transport, client: Rc<Client>) -> Self {
        Self { transport, client, linger: Linger::default() }
    }

    /// The socket alone, for what is no HTTP.
    pub(super) fn into_transport(self) -> Transport {
        self.transport
    }

    /// The answer to what does not become a request. Best effort: a client that does not read it does not get it.
    fn answer(&mut self, cx: &mut Context<'_>, answer: &[u8], why: Refusal) {
        self.client.cell.refused(why);
        let _ = Pin::new(&mut self.transport).poll_write(cx, answer);
        let _ = Pin::new(&mut self.transport).poll_flush(cx);
    }

    /// Interim answers go out between two answers: the HTTP library has nothing half-written when this is called.
    fn poll_interim(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut waiting = self.client.interim.borrow_mut();
        while !waiting.is_empty() {
            let n = ready!(Pin::new(&mut self.transport).poll_write(cx, &waiting))?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            waiting.drain(..n);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for ClientIo {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.client.order() == Some(Order::Expire) && self.client.phase() == Phase::Head {
            self.answer(cx, REQUEST_TIMEOUT, Refusal::ClientTimeout);
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.transport).poll_read(cx, buf))?;
        let bytes = &buf.filled()[before..];
        self.client.lengths.borrow_mut().see(bytes);
        if !bytes.is_empty() && self.client.phase() == Phase::Idle {
            self.client.enter(Phase::Head);
            if self.client.is_flushed.get() && framing::names_other_version(bytes) {
                self.answer(cx, OTHER_VERSION, Refusal::BadRequest);
                return Poll::Ready(Err(io::ErrorKind::Unsupported.into()));
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ClientIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = match self.poll_interim(cx) {
            Poll::Ready(Ok(())) => Pin::new(&mut self.transport).poll_write(cx, buf),
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => Poll::Pending,
        };
        self.note_progress(written.is_pending());
        self.client.is_flushed.set(false);
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_interim(cx))?;
        self.client.is_flushed.set(true);
        Pin::new(&mut self.transport).poll_flush(cx)
    }

    /// Half-closes, then reads what the client still sends until it closes too or `LINGER` is over.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { transport, linger, .. } = self.get_mut();
        linger.poll_end(transport, cx)
    }
}

/// The polite end of a connection; see the file's head.
#[derive(Default)]
pub(super) struct Linger {
    over: Option<Pin<Box<Sleep>>>,
    /// Read since.
    bytes: usize,
}

impl Linger {
    /// Half-closes, then reads what the client still sends until it closes too, `LINGER` is over or it was too much.
    pub(super) fn poll_end<T>(&mut self, transport: &mut T, cx: &mut Context<'_>) -> Poll<io::Result<()>>
    where
        T: AsyncRead + AsyncWrite + Unpin,
    {
        if self.over.is_none() {
            ready!(Pin::new(&mut *transport).poll_shutdown(cx))?;
        }
        let over = self.over.get_or_insert_with(|| Box::pin(tokio::time::sleep(LINGER)));
        loop {
            let mut scratch = [std::mem::MaybeUninit::uninit(); 4096];
            let mut rest = ReadBuf::uninit(&mut scratch);
            match Pin::new(&mut *transport).poll_read(cx, &mut rest) {
                Poll::Ready(Ok(())) if !rest.filled().is_empty() && self.bytes < LINGER_BYTES => {
                    self.bytes += rest.filled().len();
                }
                Poll::Ready(_) => return Poll::Ready(Ok(())),
                Poll::Pending => return over.as_mut().poll(cx).map(Ok),
            }
        }
    }
}

impl ClientIo {
    /// For the worker's tick, which ends clients that take nothing for too long.
    fn note_progress(&self, is_blocked: bool) {
        let blocked = &self.client.blocked;
        match (is_blocked, blocked.get()) {
            (true, None) => blocked.set(Some(self.client.now())),
            (false, Some(_)) => blocked.set(None),
            _ => {}
        }
    }
}

impl AsyncRead for Transport {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Transport {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[test]
    fn answers_of_ours_are_as_long_as_they_say() {
        for answer in [REQUEST_TIMEOUT, OTHER_VERSION] {
            let (head, body) = std::str::from_utf8(answer).unwrap().split_once("\r\n\r\n").unwrap();
            assert!(head.contains(&format!("content-length: {}\r\n", body.len())), "{answer:?}");
        }
    }

    #[tokio::test]
    async fn a_flood_is_not_read_for_long_and_an_honest_end_is_awaited() {
        let (mut near, far) = tokio::io::duplex(1 << 16);
        let flood = tokio::spawn(async move {
            let (mut reading, mut writing) = tokio::io::split(far);
            let mut sent = 0;
            while writing.write_all(&[0; 1 << 14]).await.is_ok() {
                sent += 1 << 14;
            }
            (sent, reading.read(&mut [0; 1]).await.unwrap())
        });
        let mut linger = Linger::default();
        std::future::poll_fn(|cx| linger.poll_end(&mut near, cx)).await.unwrap();
        drop(near);
        let (sent, end) = flood.await.unwrap();
        assert!((LINGER_BYTES..LINGER_BYTES + (1 << 18)).contains(&sent), "{sent}");
        assert_eq!(end, 0);

        let (mut near, mut far) = tokio::io::duplex(1 << 16);
        let mut linger = Linger::default();
        let ended = std::future::poll_fn(|cx| linger.poll_end(&mut near, cx));
        let (ended, ()) = tokio::join!(ended, async move {
            far.write_all(b"the rest").await.unwrap();
            assert_eq!(far.read(&mut [0; 1]).await.unwrap(), 0);
        });
        ended.unwrap();
    }
}
