//! From an address to a stream that speaks a known protocol: TCP, then TLS with ALPN if it is configured; or a Unix
//! socket, in cleartext.
//!
//! Invariant: what was to be TLS is never spoken in cleartext, and HTTP/2 over TLS only if the endpoint chose it
//! (RFC 9113 section 3.3).

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::ClientConfig;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::Settings;
use super::error::DialError;
use crate::config::Protocol;
use crate::model::Address;

const HTTP2: &[u8] = b"h2";
const HTTP1: &[u8] = b"http/1.1";

/// How long an HTTP/2 peer may leave data unacknowledged.
const UNACKNOWLEDGED: Duration = Duration::from_secs(10);

/// A connected stream, encrypted or not.
#[derive(Debug)]
pub enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
    /// Boxed: it is twenty times as large.
    Tls(Box<TlsStream<TcpStream>>),
}

/// What is spoken on a new stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speaks {
    Http1,
    Http2,
}

/// The TLS configuration with the protocols that we offer (RFC 7301), the preferred one first. Shares everything else
/// with the original, resumable sessions included.
pub(super) fn offering(tls: &Arc<ClientConfig>, protocol: Protocol) -> Arc<ClientConfig> {
    let mut config = ClientConfig::clone(tls);
    let offered: &[&[u8]] = match protocol {
        Protocol::Auto => &[HTTP2, HTTP1],
        Protocol::Http1 => &[HTTP1],
        Protocol::Http2 => &[HTTP2],
    };
    config.alpn_protocols = offered.iter().map(|name| name.to_vec()).collect();
    Arc::new(config)
}

/// Settings that leave the endpoint no choice but HTTP/1.1.
pub(super) fn http1_alone(mut settings: Settings) -> Settings {
    settings.protocol = Protocol::Http1;
    if let Some((tls, _)) = &mut settings.tls {
        *tls = offering(tls, Protocol::Http1);
    }
    settings
}

/// Connects. `settings.tls` is the result of [`offering`]. Cancel safe.
///
/// # Errors
/// `DialError::Connect` and `DialError::Tls`.
pub(super) async fn connect(address: &Address, settings: Settings) -> Result<(Stream, Speaks), DialError> {
    let in_cleartext = if settings.protocol == Protocol::Http2 { Speaks::Http2 } else { Speaks::Http1 };
    let address = match address {
        Address::Tcp(address) => address,
        // The configuration has refused TLS there.
        Address::Unix(_) if settings.tls.is_some() => {
            return Err(DialError::tls(io::Error::other("no TLS over a Unix socket")));
        }
        Address::Unix(path) => {
            let unix = UnixStream::connect(path.as_ref()).await.map_err(DialError::connect)?;
            return Ok((Stream::Unix(unix), in_cleartext));
        }
    };
    let tcp = TcpStream::connect(address).await.map_err(DialError::connect)?;
    tcp.set_nodelay(true).map_err(DialError::connect)?;
    let Some((config, name)) = settings.tls else {
        return ready(Stream::Tcp(tcp), in_cleartext);
    };
    let stream = TlsConnector::from(config).connect(name, tcp).await.map_err(DialError::tls)?;
    let speaks = match stream.get_ref().1.alpn_protocol() {
        Some(HTTP2) => Speaks::Http2,
        _ if settings.protocol == Protocol::Http2 => {
            return Err(DialError::tls(io::Error::other("the endpoint does not offer HTTP/2 (ALPN h2)")));
        }
        _ => Speaks::Http1,
    };
    ready(Stream::Tls(Box::new(stream)), speaks)
}

/// Over HTTP/2 exchanges that time out leave their connection to others. So that a peer which is gone without a word
/// does not take them all, the connection fails when what was written is not acknowledged (RFC 5482). Not so over
/// HTTP/1.1, where an endpoint may stop reading an upload for as long as it likes.
fn ready(stream: Stream, speaks: Speaks) -> Result<(Stream, Speaks), DialError> {
    if let (Speaks::Http2, Some(tcp)) = (speaks, stream.tcp()) {
        let tcp = socket2::SockRef::from(tcp);
        tcp.set_tcp_user_timeout(Some(UNACKNOWLEDGED)).map_err(DialError::connect)?;
    }
    Ok((stream, speaks))
}

impl Stream {
    /// The endpoint has chosen one of the protocols it was offered (ALPN).
    pub(super) fn is_negotiated(&self) -> bool {
        matches!(self, Self::Tls(stream) if stream.get_ref().1.alpn_protocol().is_some())
    }

    fn tcp(&self) -> Option<&TcpStream> {
        match self {
            Self::Tcp(stream) => Some(stream),
            Self::Tls(stream) => Some(stream.get_ref().0),
            Self::Unix(_) => None,
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut *self {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Unix(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut *self {
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Tcp(stream) => stream.is_write_vectored(),
            Self::Unix(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_http2_connections_fail_when_nothing_is_acknowledged() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        for (protocol, limit) in [(Protocol::Http2, Some(UNACKNOWLEDGED)), (Protocol::Auto, None)] {
            let settings = Settings { idle_cap: 0, idle_for: None, max_age: None, protocol, tls: None };
            let (stream, _) = connect(&listener.local_addr().unwrap().into(), settings).await.unwrap();
            let found = socket2::SockRef::from(stream.tcp().unwrap()).tcp_user_timeout().unwrap();
            assert_eq!(found.filter(|limit| !limit.is_zero()), limit);
        }
    }
}
