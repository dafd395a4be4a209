//! One request, from its head to the head of its answer; reads like house.md section 4.
//!
//! Invariants: what is ambiguous is refused before anything is chosen; every request gets exactly one answer; the
//! snapshot is read once per choice.

use std::convert::Infallible;
use std::rc::Rc;

use bytes::Bytes;
use h2::RecvStream;
use http::{HeaderValue, Method, Request, Response, StatusCode, Version, header};
use hyper::body::Body as _;

use super::attempt::Trip;
use super::body::{AnswerBody, Body};
use super::choose::Selector;
use super::client::{Busy, Client};
use super::early::Early;
use super::error::{Asked, ProxyError};
use super::exchange::{Exchange, Head};
use super::fields::{Field, Fields};
use super::leaving::Leaving;
use super::outgoing::{Outgoing, Plan, Target};
use super::request_id::RequestId;
use super::send::Answer;
use super::stall::Stall;
use super::tunnel::Agreed;
use super::upload::{Bounds, Upload};
use super::view::View;
use super::websocket::Handshake;
use super::worker::Worker;
use super::{framing, grpc, headers, http2, local, tunnel, websocket};
use crate::config::{Action, Route, Split};
use crate::model::Instant;
use crate::net::body::Received;
use crate::net::upstream::Tunnel;
use crate::routing::{Found, Query};

/// What a request gets, if nothing fails.
enum Reply {
    Upstream(Answer),
    /// The connection, or stream, is the endpoint's from here on.
    Tunnel(Response<()>, Tunnel, Leaving, Option<RecvStream>),
    /// Made by us, as the file says.
    Local(Response<Body>),
}

/// Answers one request, whatever happens; never fails.
///
/// Not an async function: those keep their arguments twice, and everything here is copied with the future. What is large
/// and rare (connecting, tunnels) is boxed where it is awaited, for the same reason.
pub(super) fn serve(
    worker: Rc<Worker>,
    client: Rc<Client>,
    request: Request<Received>,
    early: Early,
) -> impl Future<Output = Result<Response<Body>, Infallible>> {
    let mut request = Some(request);
    async move { Ok(answer(&worker, &client, &mut request, &early).await) }
}

/// `request` is taken once it is known where it goes.
async fn answer(
    worker: &Rc<Worker>,
    client: &Rc<Client>,
    request: &mut Option<Request<Received>>,
    early: &Early,
) -> Response<Body> {
    let busy = Busy::new(client);
    let headers = request.as_ref().map(Request::headers);
    let is_doubled = headers.is_some_and(|headers| client.lengths.borrow_mut().may_be_doubled(headers));
    let view = worker.view();
    let mut exchange = open(worker, &view, client, request.as_ref());
    let result = reply(worker, &view, early, &mut exchange, request).await;
    let is_closing = is_doubled || worker.is_closing() || client.closing().is_some();
    let mut answer = match result {
        Ok(Reply::Upstream(answer)) => from_upstream(worker, answer, exchange),
        Ok(Reply::Tunnel(head, endpoint, leaving, stream)) => {
            let answer = head.map(|()| Body::tunnel(Agreed { endpoint, exchange, leaving, stream, busy: None }));
            return open_tunnel(answer.map(|body| body.hold(busy)), early);
        }
        Ok(Reply::Local(answer)) => {
            exchange.answered_here(answer.status());
            answer
        }
        Err(why) => {
            exchange.failed(why);
            why.response(Asked {
                request_id: &exchange.request_id.value(),
                date: &worker.clock.date(),
                is_grpc: exchange.is_grpc,
            })
        }
    };
    if is_closing {
        answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    answer.map(|body| body.hold(busy))
}

/// Opens the books.
fn open(worker: &Rc<Worker>, view: &Rc<View>, client: &Rc<Client>, request: Option<&Request<Received>>) -> Exchange {
    let now = worker.clock.unix_ms(worker.clock.now());
    let chance = || worker.rng.borrow_mut().u128(..);
    let fields = request.map(|request| Fields::of(request.headers())).unwrap_or_default();
    let own_id = request.map(Request::headers).filter(|_| fields.has(Field::XRequestId));
    let request_id = RequestId::new(own_id, client.is_trusted, now, chance);
    let head = request.filter(|_| view.logs_access()).map(|request| Box::new(access_head(request)));
    let mut exchange = Exchange::new(worker.clone(), view.clone(), client.clone(), request_id, head);
    let Some(request) = request else { return exchange };
    exchange.asked = fields;
    exchange.is_grpc = fields.has(Field::ContentType) && grpc::is_grpc(request.headers());
    if fields.has(Field::Connection) && request.body().is_end_stream() && headers::asks_to_close(request.headers()) {
        client.has_ended.set(true);
    }
    if client.is_trusted {
        exchange.believe(request.headers());
    }
    exchange
}

async fn reply(
    worker: &Rc<Worker>,
    view: &Rc<View>,
    early: &Early,
    exchange: &mut Exchange,
    asked: &mut Option<Request<Received>>,
) -> Result<Reply, ProxyError> {
    let Some(request) = asked else { return Err(ProxyError::ClientGone) };
    if exchange.asked.has(Field::TransferEncoding) {
        framing::check(request.headers(), request.version())?;
    }
    let (found, selector, target) = match find(worker, view, exchange, request)? {
        Wanted::Here(answer) => return Ok(Reply::Local(answer)),
        Wanted::Split(found, selector, target) => (found, selector, target),
    };
    let route = &view.snapshot.config.routes[found.route];
    let mut trip = Trip::start(worker, early, view, found.route, selector, exchange)?;
    let (mut outgoing, stream) = prepare(worker, view, found, exchange, asked, target)?;
    let mut answer = trip.go(exchange, &mut outgoing).await?;
    if let Some(handshake) = outgoing.handshake.take()
        && agrees(&handshake, exchange, &answer)?
    {
        return Box::pin(leave_http(worker, route, exchange, (*handshake, stream), answer)).await;
    }
    finish_head(worker, route, exchange, &mut answer)?;
    if let Some(cookie) = trip.cookie(exchange.client().is_secure.get()) {
        answer.head.headers_mut().append(header::SET_COOKIE, cookie);
    }
    Ok(Reply::Upstream(answer))
}

/// What a request has come to.
enum Wanted {
    /// An answer of ours, as the file says.
    Here(Response<Body>),
    Split(Found, Selector, Target),
}

/// Finds the route, and what of the request decides its version.
fn find(
    worker: &Rc<Worker>,
    view: &View,
    exchange: &mut Exchange,
    request: &Request<Received>,
) -> Result<Wanted, ProxyError> {
    let target = Target::of(request)?;
    let (name, date) = (target.name()?, || worker.clock.date());
    let (index, listener) = view.listener(&exchange.client().listener).unzip();
    if let Some(port) = listener.and_then(|l| l.redirect_https) {
        return Ok(Wanted::Here(local::to_https(&name, &target, port, &date())));
    }
    let query = Query {
        listener: index,
        host: &name,
        path: target.path(),
        method: request.method().as_str(),
        headers: request.headers(),
        query: target.query(),
        client: exchange.client_ip(),
    };
    let found = view.snapshot.routes.find(&query).ok_or(ProxyError::NoRoute)?;
    exchange.routed(found.route);
    limit_rate(view, found.route, &query)?;
    let route = &view.snapshot.config.routes[found.route];
    Ok(match (&route.action, view.snapshot.routes.targets()[found.route].split()) {
        (Action::Redirect(redirect), _) => Wanted::Here(local::redirect(redirect, &target, &date())),
        (Action::Respond(respond), _) => Wanted::Here(local::respond(respond, &date())),
        (Action::Split { strip_prefix, .. }, Some(split)) => {
            let selector = Selector::of(worker, view, split, &query);
            let found = Found { prefix: if *strip_prefix { found.prefix } else { 0 }, ..found };
            drop(name);
            Wanted::Split(found, selector, target)
        }
        (Action::Split { .. }, None) => return Err(ProxyError::NoRoute),
    })
}

fn limit_rate(view: &View, route: usize, query: &Query<'_>) -> Result<(), ProxyError> {
    let Some(limiter) = &view.snapshot.limiters[route] else { return Ok(()) };
    let key = limiter.key(query.headers, query.client);
    let later = |after: std::time::Duration| ProxyError::RateLimited(after.as_secs_f64().ceil().max(1.0) as u64);
    limiter.take(key, Instant::now()).map_err(later)
}

/// Makes the request into what the endpoint gets.
fn prepare(
    worker: &Rc<Worker>,
    view: &View,
    found: Found,
    exchange: &mut Exchange,
    asked: &mut Option<Request<Received>>,
    target: Target,
) -> Result<(Outgoing, Option<RecvStream>), ProxyError> {
    let route = &view.snapshot.config.routes[found.route];
    let listener = view.listener(&exchange.client().listener).map(|(_, listener)| listener);
    let body_bytes = listener.and_then(|l| l.limits.body_bytes);
    let Some(request) = asked else { return Err(ProxyError::ClientGone) };
    if let (Some(limit), Some(length)) = (body_bytes, request.body().size_hint().exact())
        && length > limit
    {
        return Err(ProxyError::BodyTooLarge);
    }
    let split = view.snapshot.routes.targets()[found.route].split();
    let split = split.map(|split| &view.snapshot.config.splits[split]);
    let kept = split.filter(|s| may_repeat(s, request.method())).map_or(0, |s| s.retries.body_bytes);
    let has_body = !request.body().is_end_stream();
    let Some(request) = asked.take() else { return Err(ProxyError::ClientGone) };
    let (mut parts, mut body) = request.into_parts();
    if exchange.asked.has(Field::Expect) && (parts.version == Version::HTTP_10 || !has_body) {
        // Such a client sends its body unasked, or has none to send (RFC 9110 section 10.1.1).
        parts.headers.remove(header::EXPECT);
    }
    let may_upgrade = exchange.asked.has(Field::Upgrade) || parts.method == Method::CONNECT;
    let wanted = || websocket::wanted(&parts, has_body, || worker.rng.borrow_mut().u128(..));
    let handshake = if may_upgrade { wanted()? } else { None };
    let stream = if handshake.is_some() { std::mem::take(&mut body).into_http2() } else { None };
    let stall = || Stall::new(&worker.stalls, listener.and_then(|l| l.timeouts.body));
    let client = matches!(body, Received::Http1(_)).then(|| exchange.client().clone());
    let upload = Upload::new(body, client, stall, Bounds { bytes: body_bytes, kept });
    if let Some(upload) = upload.as_ref().filter(|_| headers::expects_continue(&parts.headers)) {
        upload.wait_for_continue();
    }
    exchange.uploads(upload.as_ref());
    let handshake = handshake.map(Box::new);
    let plan = Plan { prefix: found.prefix, edits: &route.request_headers, handshake, may_repeat: kept > 0 };
    Ok((Outgoing::new(parts, upload, target, exchange, plan)?, stream))
}

fn may_repeat(split: &Split, method: &http::Method) -> bool {
    (split.retries.attempts > 0 || split.retries.rescue) && split.retries.methods.contains(method)
}

/// The answer's head as the client gets it.
fn finish_head(worker: &Worker, route: &Route, exchange: &mut Exchange, answer: &mut Answer) -> Result<(), ProxyError> {
    let head = &mut answer.head;
    if head.status() == StatusCode::SWITCHING_PROTOCOLS {
        exchange.attempt_failed(ProxyError::Protocol);
        return Err(ProxyError::Protocol);
    }
    if answer.lease.is_http2() {
        // Over HTTP/1.1 an answer with any other length has been refused.
        framing::one_length(head.headers_mut()).inspect_err(|why| exchange.attempt_failed(*why))?;
    }
    exchange.answered(head.status(), is_stream(exchange, head.headers()));
    if exchange.is_grpc {
        exchange.note_grpc_status(grpc::status(head.headers()));
        headers::announce_grpc_trailers(head.headers_mut());
    }
    let received = std::mem::replace(head.version_mut(), Version::HTTP_11);
    answer.is_odd = headers::prepare_response(head.headers_mut(), received, &worker.clock.date());
    headers::edit(head.headers_mut(), &route.response_headers);
    if let Some(shown) = exchange.shown_version() {
        head.headers_mut().insert("weir-version", shown.clone());
    }
    Ok(())
}

/// Whether the endpoint has agreed to a tunnel.
fn agrees(handshake: &Handshake, exchange: &mut Exchange, answer: &Answer) -> Result<bool, ProxyError> {
    let agreed = handshake.is_agreed(answer.lease.is_http2(), answer.head.status(), answer.head.headers());
    agreed.inspect_err(|why| exchange.attempt_failed(*why))
}

/// The head for the client, and the endpoint's half of the tunnel.
async fn leave_http(
    worker: &Worker,
    route: &Route,
    exchange: &mut Exchange,
    (handshake, stream): (Handshake, Option<RecvStream>),
    answer: Answer,
) -> Result<Reply, ProxyError> {
    let Answer { mut head, lease, .. } = answer;
    let Ok(endpoint) = lease.into_tunnel(&mut head).await else {
        exchange.attempt_failed(ProxyError::Reset);
        return Err(ProxyError::Reset);
    };
    let (received, mut status) = (head.version(), head.status());
    let headers = head.headers_mut();
    headers::prepare_response(headers, received, &worker.clock.date());
    headers::edit(headers, &route.response_headers);
    handshake.answer(&mut status, headers);
    *head.status_mut() = status;
    exchange.answered(status, false);
    exchange.upgraded();
    let Some((at, time)) = exchange.tunnel() else { return Err(ProxyError::Reset) };
    let leaving = worker.tunnels.enter((at, exchange.client()), time, worker.rng.borrow_mut().f64());
    Ok(Reply::Tunnel(head.map(drop), endpoint, leaving, stream))
}

/// Over HTTP/1.1 the connection's task runs the tunnel when the answer's head is out; over HTTP/2 it runs beside the
/// connection.
fn open_tunnel(mut answer: Response<Body>, early: &Early) -> Response<Body> {
    let Some(mut agreed) = answer.body_mut().take_tunnel() else { return answer };
    let (respond, meter) = match early {
        Early::Http2(respond, meter) => (respond, meter),
        Early::Http1(client) => {
            client.agreed.set(Some(Box::new(agreed)));
            return answer;
        }
        Early::None => return answer,
    };
    let Some(stream) = agreed.stream.take() else { return answer };
    let (parts, body) = answer.into_parts();
    let head = Response::from_parts(parts, ());
    if let Ok(client) = http2::tunnel::accept(respond, meter, head, stream) {
        tokio::task::spawn_local(tunnel::run(client, Bytes::new(), agreed));
    }
    // Its head is out already; this one goes nowhere.
    Response::new(body)
}

/// An answer that goes on for as long as both sides like.
fn is_stream(exchange: &Exchange, headers: &http::HeaderMap) -> bool {
    let is_events = |kind: &HeaderValue| kind.as_bytes().starts_with(b"text/event-stream");
    exchange.is_grpc || headers.get(header::CONTENT_TYPE).is_some_and(is_events)
}

fn from_upstream(worker: &Worker, answer: Answer, exchange: Exchange) -> Response<Body> {
    let Answer { head, lease, is_odd, deadline, stall } = answer;
    let stall = Stall::new(&worker.stalls, stall);
    head.map(|incoming| {
        Body::upstream(AnswerBody { incoming, exchange, lease: Some(lease), is_odd, deadline, stall, is_cut: None })
    })
}

fn access_head(request: &Request<Received>) -> Head {
    let headers = request.headers();
    let host = headers.get(header::HOST).cloned();
    let authority = || request.uri().authority().and_then(|a| HeaderValue::from_str(a.as_str()).ok());
    Head {
        method: request.method().clone(),
        host: host.or_else(authority).unwrap_or_else(|| HeaderValue::from_static("")),
        uri: request.uri().clone(),
        version: request.version(),
        traceparent: headers.get("traceparent").cloned(),
    }
}
