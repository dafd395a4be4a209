//! One HTTP/2 stream: its request to the service, the answer's head, and its body (`pump`).
//!
//! Invariants: a client that resets its stream ends the exchange at once, upstream too; an answer is sent to its end or
//! ends with a reset, never with a clean end that is none.

use std::cell::RefCell;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body::Body as _;

use super::meter::Meter;
use super::pump::{End, Pump};
use super::request::{self, Refused};
use crate::config::{ClientTimeouts, Limits};
use crate::model::{Instant, Refusal};
use crate::net::body::Received;
use crate::proxy::body::Body;
use crate::proxy::client::Client;
use crate::proxy::early::Early;
use crate::proxy::service;
use crate::proxy::stall::Stall;
use crate::proxy::worker::Worker;

/// What a refused request adds to the cost of its frames.
const REFUSED: i32 = 5;

/// What the streams of a connection share.
pub(super) struct Shared {
    pub(super) worker: Rc<Worker>,
    pub(super) client: Rc<Client>,
    pub(super) meter: Rc<RefCell<Meter>>,
    header_bytes: usize,
    body_timeout: Option<Duration>,
}

impl Shared {
    pub(super) fn new(
        worker: &Rc<Worker>,
        client: &Rc<Client>,
        meter: Rc<RefCell<Meter>>,
        limits: &Limits,
        timeouts: &ClientTimeouts,
    ) -> Self {
        let (worker, client) = (worker.clone(), client.clone());
        Self { worker, client, meter, header_bytes: limits.header_bytes, body_timeout: timeouts.body }
    }
}

/// A request that has come in, and the way back.
pub(super) struct Stream {
    pub(super) shared: Rc<Shared>,
    pub(super) request: Request<RecvStream>,
    pub(super) respond: SendResponse<Bytes>,
}

/// Serves one request.
pub(super) async fn serve(stream: Stream) {
    let Stream { shared, request, respond } = stream;
    let (is_head, begun) = (request.method() == Method::HEAD, shared.client.now());
    match request::admit(request, shared.header_bytes) {
        Ok(request) => {
            let respond = Rc::new(RefCell::new(respond));
            let end = match answer(&shared, request, &respond).await {
                Some(answer) => send(&shared, &respond, answer, is_head).await,
                None => Some(End::Cancelled),
            };
            settle(&shared, end, begun);
        }
        Err(why) => refuse(&shared, respond, why),
    }
}

/// What a request's end means to its client's budget. What we cut is not the client's fault.
fn settle(shared: &Shared, end: Option<End>, begun: Instant) {
    let mut meter = shared.meter.borrow_mut();
    match end {
        Some(End::Complete | End::Cut) => meter.answered(),
        Some(End::Cancelled) => meter.cancelled(shared.client.now().saturating_duration_since(begun)),
        None => {}
    }
}

/// The service's answer; `None` when the client no longer wants it.
async fn answer(
    shared: &Shared,
    request: Request<Received>,
    respond: &Rc<RefCell<SendResponse<Bytes>>>,
) -> Option<Response<Body>> {
    let early = Early::Http2(respond.clone(), shared.meter.clone());
    let service = service::serve(shared.worker.clone(), shared.client.clone(), request, early);
    let mut service = std::pin::pin!(service);
    let mut is_watched = true;
    std::future::poll_fn(|cx| {
        // Before the service: a request that is over when it is taken up must not become work upstream (faults.md 4.10).
        if is_watched {
            match respond.borrow_mut().poll_reset(cx) {
                Poll::Pending => {}
                // Our own mistake and not the stream's end: the service has answered by itself, as a tunnel does.
                Poll::Ready(Err(error)) if !error.is_reset() && !error.is_go_away() && !error.is_io() => {
                    is_watched = false;
                }
                Poll::Ready(_) => return Poll::Ready(None),
            }
        }
        service.as_mut().poll(cx).map(Result::ok)
    })
    .await
}

/// Sends an answer, head and body. `None` when the service has answered by itself, or the client has gone by now.
async fn send(
    shared: &Shared,
    respond: &RefCell<SendResponse<Bytes>>,
    answer: Response<Body>,
    is_head: bool,
) -> Option<End> {
    let (mut parts, body) = answer.into_parts();
    remove_connection_fields(&mut parts.headers);
    let is_empty = is_head || has_no_body(parts.status) || body.is_end_stream();
    if !is_empty && body.is_ours() {
        announce_length(&mut parts.headers, &body);
    }
    let sent = respond.borrow_mut().send_response(Response::from_parts(parts, ()), is_empty);
    let stream = sent.ok()?;
    if is_empty {
        return Some(End::Complete);
    }
    let stall = Stall::new(&shared.worker.stalls, shared.body_timeout);
    let mut pump = Pump::new(stream, body, stall, &shared.meter);
    Some(std::future::poll_fn(|cx| pump.poll(cx)).await)
}

/// RFC 9110 sections 15.3.5 and 15.4.5.
fn has_no_body(status: StatusCode) -> bool {
    matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
}

/// What we made ourselves says how long it is, as HTTP/1.1 does.
fn announce_length(headers: &mut HeaderMap, body: &Body) {
    if let Some(length) = body.size_hint().exact()
        && !headers.contains_key(header::CONTENT_LENGTH)
    {
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
}

/// What belongs to HTTP/1.1 connections is malformed here (RFC 9113 section 8.2.2).
pub(super) fn remove_connection_fields(headers: &mut HeaderMap) {
    // One look over the names: nearly always there is none, and looking up five would hash five.
    while let Some(gone) = headers.keys().find(|name| is_of_connection(name)).cloned() {
        headers.remove(gone);
    }
}

fn is_of_connection(name: &HeaderName) -> bool {
    name == header::CONNECTION
        || name == header::TRANSFER_ENCODING
        || name == header::UPGRADE
        || matches!(name.as_str(), "keep-alive" | "proxy-connection")
}

fn refuse(shared: &Shared, mut respond: SendResponse<Bytes>, why: Refused) {
    shared.meter.borrow_mut().charge(REFUSED);
    match why {
        Refused::Malformed => {
            shared.client.cell.refused(Refusal::BadRequest);
            respond.send_reset(Reason::PROTOCOL_ERROR);
        }
        Refused::TooLarge => {
            shared.client.cell.refused(Refusal::HeaderTooLarge);
            let mut response = Response::new(());
            *response.status_mut() = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
            response.headers_mut().insert("weir-error", HeaderValue::from_static("header-too-large"));
            let _ = respond.send_response(response, true);
        }
    }
}
