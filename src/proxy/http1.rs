//! One HTTP/1.1 client connection, served by hyper.
//!
//! hyper's graceful shutdown closes idle connections at once (amendments.md 2.4), so it is only called on an order.

use std::convert::Infallible;
use std::rc::Rc;
use std::task::Poll;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;

use super::client::{Client, Order};
use super::client_io::{ClientIo, Transport};
use super::service::{self, Early};
use super::worker::Worker;
use crate::model::Refusal;
use crate::net::body::Received;

/// hyper's smallest buffer.
const MIN_BUFFER: usize = 8192;

/// Serves requests until the connection ends.
pub(super) async fn serve(worker: &Rc<Worker>, client: &Rc<Client>, transport: Transport) {
    let io = TokioIo::new(ClientIo::new(transport, client.clone()));
    let header_bytes = worker.view().listener(&client.listener).map_or(32 << 10, |(_, l)| l.limits.header_bytes);
    let answer = |request: http::Request<hyper::body::Incoming>| {
        let (worker, client) = (worker.clone(), client.clone());
        async move {
            let request = request.map(Received::from);
            Ok::<_, Infallible>(service::serve(worker, client.clone(), request, Early::Http1(client)).await)
        }
    };
    let connection = http1::Builder::new()
        .writev(false)
        .auto_date_header(false)
        .header_read_timeout(None)
        .max_header_size(header_bytes)
        .max_buf_size(header_bytes.max(MIN_BUFFER))
        .serve_connection(io, service_fn(answer));
    tokio::pin!(connection);
    let ended = std::future::poll_fn(|cx| {
        match client.watch(cx) {
            Some(Order::Abort) => return Poll::Ready(Ok(())),
            Some(Order::Finish) => connection.as_mut().graceful_shutdown(),
            Some(Order::Expire) | None => {}
        }
        connection.as_mut().poll(cx)
    });
    if let Err(error) = ended.await {
        count(client, &error);
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
