//! The answer to an extended CONNECT (RFC 8441): from its head on the stream carries bytes of another protocol.

use std::cell::RefCell;
use std::rc::Rc;

use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use http::Response;

use super::stream::remove_connection_fields;
use crate::net::duplex::Duplex;

/// Sends the head of an answer that opens a tunnel and gives the tunnel. The service calls this instead of answering;
/// whatever it answers afterwards is dropped, and from here on only the tunnel tells that the client has gone.
/// `received` is the request's body, by `Received::into_http2`.
///
/// # Errors
/// When the client has gone, or was answered before.
pub(crate) fn accept(
    respond: &Rc<RefCell<SendResponse<Bytes>>>,
    mut head: Response<()>,
    received: RecvStream,
) -> Result<Duplex, h2::Error> {
    remove_connection_fields(head.headers_mut());
    let stream = respond.borrow_mut().send_response(head, false)?;
    Ok(Duplex::new(received, stream))
}
