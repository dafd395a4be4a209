//! One request, from its head to the head of its answer; reads like house.md section 4.
//!
//! Invariants: the snapshot is read once per choice; the claim is counted before the choice is final; an endpoint sees
//! a request a second time only if nothing of the first time was written (faults.md 2.2).

use std::convert::Infallible;
use std::rc::Rc;
use std::time::Duration;

use http::{HeaderValue, Request, Response, StatusCode, header};
use hyper::body::Incoming;

use super::body::{Body, RequestBody, Upload};
use super::connection::{Busy, Client};
use super::error::ProxyError;
use super::exchange::{Choice, Exchange, Head};
use super::headers;
use super::outgoing::{Outgoing, Target};
use super::request_id::RequestId;
use super::view::View;
use super::worker::Worker;
use crate::config::UpstreamTimeouts;
use crate::model::Instant;
use crate::net::upstream::{DialError, Lease, Upstream};
use crate::pool::Unavailable;

/// Attempts to connect, all at different endpoints, before a request is given up.
const CONNECT_ATTEMPTS: usize = 2;

/// Answers one request, whatever happens.
pub(super) async fn serve(
    worker: Rc<Worker>,
    client: Rc<Client>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let busy = Busy::new(&client);
    let view = worker.view();
    let now = worker.clock.unix_ms(worker.clock.now());
    let request_id = RequestId::new(request.headers(), now, || worker.rng.borrow_mut().u128(..));
    let head = view.logs_access().then(|| Box::new(access_head(&request)));
    let mut exchange = Exchange::new(worker.clone(), view.clone(), client.clone(), request_id, head);
    let result = forward(&worker, &view, &client, &mut exchange, request).await;
    let is_closing = worker.is_closing() || client.closing().is_some();
    Ok(match result {
        Ok(Answer { mut head, lease, is_odd, deadline }) => {
            close_if(is_closing, &mut head);
            head.map(|body| Body::upstream(body, exchange, lease, is_odd, deadline).hold(busy))
        }
        Err(why) => {
            exchange.failed(why);
            let mut answer = why.response(exchange.request_id.value(), &worker.clock.date());
            close_if(is_closing, &mut answer);
            answer.map(|body| body.hold(busy))
        }
    })
}

fn close_if<B>(is_closing: bool, answer: &mut Response<B>) {
    if is_closing {
        answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
}

/// The head of an endpoint's answer, and what its body still needs.
struct Answer {
    head: Response<Incoming>,
    lease: Lease<RequestBody>,
    is_odd: bool,
    deadline: Option<std::pin::Pin<Box<tokio::time::Sleep>>>,
}

async fn forward(
    worker: &Rc<Worker>,
    view: &Rc<View>,
    client: &Client,
    exchange: &mut Exchange,
    request: Request<Incoming>,
) -> Result<Answer, ProxyError> {
    let target = Target::of(&request)?;
    let route = target.route(view, client, request.method().as_str())?;
    exchange.routed(route);
    let mut outgoing = Outgoing::new(request, target, exchange)?;
    exchange.uploads(outgoing.upload());
    let mut answer = attempt(worker, view, route, exchange, &mut outgoing).await?;
    let head = &mut answer.head;
    if head.status() == StatusCode::SWITCHING_PROTOCOLS {
        exchange.attempt_failed(ProxyError::Protocol);
        return Err(ProxyError::Protocol);
    }
    exchange.answered(head.status());
    let received = head.version();
    answer.is_odd = headers::prepare_response(head.headers_mut(), received, &worker.clock.date());
    if let Some(shown) = exchange.shown_version() {
        head.headers_mut().insert("weir-version", shown.clone());
    }
    Ok(answer)
}

/// Picks, claims, connects, sends; on to the next endpoint as long as nothing was written.
async fn attempt(
    worker: &Rc<Worker>,
    view: &Rc<View>,
    route: usize,
    exchange: &mut Exchange,
    outgoing: &mut Outgoing,
) -> Result<Answer, ProxyError> {
    let (mut tried, mut attempts) = (0u64, 0);
    loop {
        let (view, choice, endpoint) = claim(worker, view, route, tried, exchange)?;
        let upstreams = &view.splits[choice.split].versions[choice.version].upstreams;
        let timeouts = &view.snapshot.config.splits[choice.split].timeouts;
        let (why, is_over) = match at_endpoint(&upstreams[endpoint], timeouts, exchange, outgoing).await {
            Ok(answer) => return Ok(answer),
            Err(Failed::Unsent(why)) => (why, why != ProxyError::Connect),
            Err(Failed::Sent(_)) if exchange.endpoint_is_cut() => (ProxyError::Cut, true),
            Err(Failed::Sent(why)) => (why, true),
        };
        exchange.attempt_failed(why);
        attempts += 1;
        tried |= 1u64.checked_shl(endpoint as u32).unwrap_or(0);
        if is_over || attempts >= CONNECT_ATTEMPTS.min(upstreams.len()) {
            return Err(why);
        }
    }
}

/// One endpoint: over an idle connection if there is one, else over a new one.
async fn at_endpoint(
    upstream: &Rc<Upstream<RequestBody>>,
    timeouts: &UpstreamTimeouts,
    exchange: &Exchange,
    outgoing: &mut Outgoing,
) -> Result<Answer, Failed> {
    let mut is_resent = false;
    loop {
        let reused = if is_resent { None } else { upstream.checkout() };
        let is_reused = reused.is_some();
        let mut lease = match reused {
            Some(lease) => lease,
            None => upstream.dial(timeouts.connect).await.map_err(|error| Failed::Unsent(dial_error(&error)))?,
        };
        let begun = if is_reused { exchange.started() } else { Instant::now() };
        let deadlines = Deadlines::new(begun, exchange, timeouts);
        match send(&mut lease, outgoing, &deadlines).await {
            Ok(head) => return Ok(Answer { head, lease, is_odd: false, deadline: deadlines.for_body() }),
            // The idle connection was closed under our hands: the next one, or a new one.
            Err(Failed::Unsent(_)) if is_reused => {}
            // Closed while the request was on its way: once more on a new connection, on nobody's books.
            Err(Failed::Sent(ProxyError::Reset))
                if is_reused && !exchange.endpoint_is_cut() && outgoing.restore(exchange) =>
            {
                is_resent = true;
            }
            Err(failed) => return Err(failed),
        }
    }
}

/// The version by the coin (once per request) and a claim on one of its endpoints. A claim that is refused because
/// everything drains means that the snapshot has just changed: it is read once more.
fn claim(
    worker: &Rc<Worker>,
    view: &Rc<View>,
    route: usize,
    tried: u64,
    exchange: &mut Exchange,
) -> Result<(Rc<View>, Choice, usize), ProxyError> {
    let mut view = exchange.view_of_choice().unwrap_or_else(|| view.clone());
    loop {
        let choice = match exchange.choice() {
            Some(choice) => choice,
            None => choose(worker, &view, route)?,
        };
        let pool = &view.splits[choice.split].state.versions[choice.version].pool;
        match pool.claim(tried, &mut worker.rng.borrow_mut()) {
            Ok((endpoint, claim)) => {
                exchange.chosen(&view, choice);
                exchange.attempt(claim);
                return Ok((view, choice, endpoint));
            }
            Err(why) => {
                let now = worker.view();
                if exchange.choice().is_none() && !Rc::ptr_eq(&now, &view) && same_route(&now, &view, route) {
                    view = now;
                    continue;
                }
                exchange.chosen(&view, choice);
                let why = if why == Unavailable::Full { ProxyError::Overloaded } else { ProxyError::NoEndpoint };
                exchange.attempt_failed(why);
                return Err(why);
            }
        }
    }
}

fn choose(worker: &Worker, view: &View, route: usize) -> Result<Choice, ProxyError> {
    let split = view.snapshot.routes.targets()[route].split().ok_or(ProxyError::NoRoute)?;
    let version = view.splits[split].pick(&mut worker.rng.borrow_mut()).ok_or(ProxyError::NoEndpoint)?;
    Ok(Choice { route, split, version })
}

/// Whether a route's index means the same in both views.
fn same_route(now: &View, before: &View, route: usize) -> bool {
    let name = |v: &View| v.snapshot.routes.targets().get(route).map(|t| t.name.clone());
    name(now).is_some() && name(now) == name(before)
}

fn dial_error(error: &DialError) -> ProxyError {
    if error.is_local() { ProxyError::Overloaded } else { ProxyError::Connect }
}

enum Failed {
    /// Nothing was written; the request is back in its place.
    Unsent(ProxyError),
    Sent(ProxyError),
}

/// Sends the request. It is handed about by reference, since every move of it is a copy.
async fn send(
    lease: &mut Lease<RequestBody>,
    outgoing: &mut Outgoing,
    deadlines: &Deadlines,
) -> Result<Response<Incoming>, Failed> {
    let Some(request) = outgoing.request.take() else { return Err(Failed::Sent(ProxyError::Reset)) };
    let answer = tokio::select! {
        biased;
        answer = lease.send(request) => answer,
        which = deadlines.head() => return Err(Failed::Sent(ProxyError::Timeout(which))),
    };
    answer.map_err(|mut error| {
        outgoing.request = error.take_message();
        if outgoing.request.is_some() {
            Failed::Unsent(ProxyError::Connect)
        } else {
            Failed::Sent(sent_error(error.error()))
        }
    })
}

fn sent_error(error: &hyper::Error) -> ProxyError {
    if error.is_parse() || error.is_parse_too_large() { ProxyError::Protocol } else { ProxyError::Reset }
}

/// When an exchange is given up (`timeouts` of its split).
struct Deadlines {
    begun: Instant,
    first_byte: Option<Duration>,
    total: Option<Instant>,
    /// While the client still sends, the endpoint is not late.
    upload: Option<Rc<Upload>>,
}

impl Deadlines {
    fn new(begun: Instant, exchange: &Exchange, timeouts: &UpstreamTimeouts) -> Self {
        let total = timeouts.total.and_then(|limit| exchange.started().checked_add(limit));
        Self { begun, first_byte: timeouts.first_byte, total, upload: exchange.upload() }
    }

    /// Ends when the answer's head is overdue, and says which limit that is.
    async fn head(&self) -> &'static str {
        loop {
            let first_byte = self.first_byte.and_then(|limit| self.sent().checked_add(limit));
            let Some(at) = [first_byte, self.total].into_iter().flatten().min() else { std::future::pending().await };
            tokio::time::sleep_until(at).await;
            if self.total.is_some_and(|total| total <= at) {
                return "the exchange took too long (timeouts.total)";
            }
            let sending = self.upload.as_ref().is_some_and(|u| u.ended.get().is_none());
            if !sending && self.first_byte.is_some_and(|limit| self.sent() + limit <= at) {
                return "no first byte of an answer in time (timeouts.first_byte)";
            }
        }
    }

    /// When the request was sent to its end; now, while that is still going on.
    fn sent(&self) -> Instant {
        match &self.upload {
            None => self.begun,
            Some(upload) => upload.ended.get().unwrap_or_else(Instant::now),
        }
    }

    fn for_body(&self) -> Option<std::pin::Pin<Box<tokio::time::Sleep>>> {
        self.total.map(|at| Box::pin(tokio::time::sleep_until(at)))
    }
}

fn access_head(request: &Request<Incoming>) -> Head {
    let headers = request.headers();
    Head {
        method: request.method().clone(),
        host: headers.get(header::HOST).cloned().unwrap_or_else(|| HeaderValue::from_static("")),
        uri: request.uri().clone(),
        version: request.version(),
        traceparent: headers.get("traceparent").cloned(),
    }
}
