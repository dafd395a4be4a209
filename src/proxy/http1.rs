//! One HTTP/1.1 client connection, served by hyper.
//!
//! hyper's graceful shutdown closes idle connections at once (amendments.md 2.4), so it is only called on an order.

use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;

use bytes::Bytes;
use http::{Request, Version};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;

use super::client::{Client, Order};
use super::client_io::{ClientIo, Transport};
use super::early::Early;
use super::service;
use super::tunnel::{self, Agreed};
use super::worker::Worker;
use crate::model::Refusal;
use crate::net::body::Received;

/// hyper's smallest buffer.
const MIN_BUFFER: usize = 8192;

/// What hyper may keep of what was read, and of what is to be written.
pub(super) fn buffer(header_bytes: usize) -> usize {
    header_bytes.max(MIN_BUFFER)
}

/// Serves requests until the connection ends, and the tunnel it may end in.
pub(super) async fn serve(worker: &Rc<Worker>, client: &Rc<Client>, transport: Transport) {
    let io = TokioIo::new(ClientIo::new(transport, client.clone()));
    let header_bytes = worker.view().listener(&client.listener).map_or(32 << 10, |(_, l)| l.limits.header_bytes);
    let answer = |request: Request<Incoming>| {
        let early = if request.version() == Version::HTTP_11 { Early::Http1(client.clone()) } else { Early::None };
        service::serve(worker.clone(), client.clone(), request.map(Received::from), early)
    };
    let mut connection = http1::Builder::new()
        .writev(false)
        .auto_date_header(false)
        .header_read_timeout(None)
        .max_header_size(header_bytes)
        .max_buf_size(buffer(header_bytes))
        .serve_connection(io, service_fn(answer));
    let ended = std::future::poll_fn(|cx| {
        match client.watch(cx) {
            Some(Order::Abort) => return Poll::Ready(None),
            Some(Order::Finish) => Pin::new(&mut connection).graceful_shutdown(),
            Some(Order::Expire) | None => {}
        }
        Pin::new(&mut connection).poll(cx).map(Some)
    });
    match ended.await {
        Some(Err(error)) => count(client, &error),
        Some(Ok(())) => {
            if let Some(agreed) = client.agreed.take() {
                let parts = connection.into_parts();
                Box::pin(carry(client, parts.io.into_inner().into_transport(), parts.read_buf, *agreed)).await;
            }
        }
        None => {}
    }
}

/// Runs a tunnel until it ends or is to end.
async fn carry(client: &Client, transport: Transport, early: Bytes, agreed: Agreed) {
    let aborted = std::future::poll_fn(|cx| match client.watch(cx) {
        Some(Order::Abort) => Poll::Ready(()),
        _ => Poll::Pending,
    });
    tokio::select! {
        () = tunnel::run(transport, early, agreed) => {}
        () = aborted => {}
    }
}

/// What hyper refused by itself, before we saw a request (amendments.md 2.9).
fn count(client: &Client, error: &hyper::Error) {
    if error.is_parse_too_large() {
        client.cell.refused(Refusal::HeaderTooLarge);
    } else if error.is_parse() {
        client.cell.refused(Refusal::BadRequest);
    }
}
