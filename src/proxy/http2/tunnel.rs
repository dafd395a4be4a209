//! The answer to an extended CONNECT (RFC 8441): from its head on the stream carries bytes of another protocol.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use http::Response;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::meter::Meter;
use super::stream::remove_connection_fields;
use crate::net::duplex::Duplex;

/// Sends the head of an answer that opens a tunnel and gives the tunnel. The service calls this instead of answering;
/// whatever it answers afterwards is dropped, and from here on only the tunnel tells that the client has gone.
/// `received` is the request's body, by `Received::into_http2`.
///
/// # Errors
/// When the client has gone, or was answered before.
pub(in crate::proxy) fn accept(
    respond: &Rc<RefCell<SendResponse<Bytes>>>,
    meter: &Rc<RefCell<Meter>>,
    mut head: Response<()>,
    received: RecvStream,
) -> Result<Metered, h2::Error> {
    remove_connection_fields(head.headers_mut());
    let stream = respond.borrow_mut().send_response(head, false)?;
    Ok(Metered { io: Duplex::new(received, stream), meter: meter.clone() })
}

/// A tunnel's client, whose window updates are paid for by what it gets.
pub(in crate::proxy) struct Metered {
    io: Duplex,
    meter: Rc<RefCell<Meter>>,
}

impl AsyncRead for Metered {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Metered {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let n = ready!(Pin::new(&mut self.io).poll_write(cx, buf))?;
        self.meter.borrow_mut().sent(n);
        Poll::Ready(Ok(n))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
