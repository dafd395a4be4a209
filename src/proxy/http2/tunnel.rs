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

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;
    use crate::model::Instant;

    #[tokio::test]
    async fn what_a_tunnel_brings_pays_for_its_windows() {
        let (ours, theirs) = tokio::io::duplex(64 << 10);
        let meter = Rc::new(RefCell::new(Meter::new(Instant::now(), 1)));
        let serve = async {
            let mut connection = h2::server::handshake(theirs).await.unwrap();
            let (request, respond) = connection.accept().await.unwrap().unwrap();
            tokio::spawn(async move { while connection.accept().await.is_some() {} });
            accept(&Rc::new(RefCell::new(respond)), &meter, Response::new(()), request.into_body()).unwrap()
        };
        let ask = async {
            let (mut client, connection) = h2::client::handshake(ours).await.unwrap();
            tokio::spawn(connection);
            let request = http::Request::post("http://app.test/").body(()).unwrap();
            let (answer, send) = client.send_request(request, false).unwrap();
            (answer.await.unwrap(), send)
        };
        let (mut tunnel, _client) = tokio::join!(serve, ask);
        for _ in 0..100 {
            tunnel.write_all(b"a message").await.unwrap();
            // Its window and the connection's, and a PING.
            meter.borrow_mut().charge(3);
        }
        assert!(!meter.borrow().is_over());
        meter.borrow_mut().charge(1000);
        assert!(meter.borrow().is_over());
    }
}
