//! One request, from its head to the head of its answer; reads like house.md section 4.
//!
//! Invariants: the snapshot is read once per choice; the claim is counted before the choice is final; an endpoint sees
//! a request a second time only if nothing of the first time was written (faults.md 2.2).

use std::convert::Infallible;
use std::rc::Rc;
use std::time::Duration;

use http::{HeaderValue, Request, Response, StatusCode, Uri, Version, header, uri};
use hyper::body::{Body as _, Incoming};

use super::body::{Body, RequestBody, Upload};
use super::connection::{Busy, Client};
use super::error::ProxyError;
use super::exchange::{Choice, Exchange, Head};
use super::headers::{self, Forwarded};
use super::view::View;
use super::worker::Worker;
use crate::config::UpstreamTimeouts;
use crate::model::Instant;
use crate::net::upstream::{DialError, Lease};
use crate::pool::Unavailable;
use crate::routing::{Query, normal_host, normal_path};

/// Attempts to connect, all at different endpoints, before a request is given up.
const CONNECT_ATTEMPTS: u32 = 2;

type Outbound = Request<RequestBody>;

/// Answers one request, whatever happens.
pub(super) async fn serve(
    worker: Rc<Worker>,
    client: Rc<Client>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let busy = Busy::new(&client);
    let view = worker.view();
    let request_id = request_id(&worker, &request);
    let head = view.logs_access().then(|| Box::new(access_head(&request)));
    let mut exchange = Exchange::new(worker.clone(), view.clone(), &client, request_id, head);
    let result = forward(&worker, &view, &client, &mut exchange, request).await;
    let is_closing = worker.is_closing() || client.closing().is_some();
    Ok(match result {
        Ok(Answer { mut head, lease, is_odd, deadline }) => {
            close_if(is_closing, &mut head);
            head.map(|body| Body::upstream(body, exchange, lease, is_odd, deadline).hold(busy))
        }
        Err(why) => {
            exchange.failed(why);
            let mut answer = why.response(&exchange.request_id, &worker.clock.date());
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
    let mut request = Some(outbound(request, target, client, exchange)?);
    let mut answer = attempt(worker, view, route, exchange, &mut request).await?;
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

/// Where a request wants to go.
struct Target {
    /// As it goes upstream in `Host`.
    host: HeaderValue,
    /// The normal form, if that is not the path as it came.
    path: Option<String>,
    uri: Uri,
}

impl Target {
    /// Refuses what could be read in two ways (faults.md 1.2).
    fn of(request: &Request<Incoming>) -> Result<Self, ProxyError> {
        if request.method() == http::Method::CONNECT {
            return Err(ProxyError::BadRequest("CONNECT is not proxied"));
        }
        let (host, uri) = (authority(request)?, request.uri().clone());
        // `OPTIONS *` asks about the server as a whole; it is matched as `/` and goes on as it is.
        let raw = if uri.path() == "*" { "/" } else { uri.path() };
        let path = normal_path(raw).map_err(|_| ProxyError::BadRequest("the path can be read in two ways"))?;
        let path = (path != raw).then(|| path.into_owned());
        Ok(Self { host, path, uri })
    }

    fn path(&self) -> &str {
        match &self.path {
            Some(path) => path,
            None if self.uri.path() == "*" => "/",
            None => self.uri.path(),
        }
    }

    fn route(&self, view: &View, client: &Client, method: &str) -> Result<usize, ProxyError> {
        const NO_HOST: ProxyError = ProxyError::BadRequest("Host is not a host name");
        let host = normal_host(self.host.to_str().map_err(|_| NO_HOST)?).map_err(|_| NO_HOST)?;
        let listener = view.listener(&client.listener).map(|(index, _)| index);
        let query = Query { listener, host: &host, path: self.path(), method };
        view.snapshot.routes.find(&query).ok_or(ProxyError::NoRoute)
    }

    /// Origin form (RFC 9112 section 3.2.1), with the path that was matched.
    fn forwarded_uri(self) -> Result<Uri, ProxyError> {
        if self.uri.authority().is_none() && self.path.is_none() {
            return Ok(self.uri);
        }
        let unreadable = |_| ProxyError::BadRequest("the target can be read in two ways");
        let target = match (self.path, self.uri.query()) {
            (Some(path), Some(query)) => uri::PathAndQuery::try_from(format!("{path}?{query}")).map_err(unreadable)?,
            (Some(path), None) => uri::PathAndQuery::try_from(path).map_err(unreadable)?,
            (None, _) => self.uri.path_and_query().cloned().unwrap_or_else(|| uri::PathAndQuery::from_static("/")),
        };
        Ok(Uri::from(target))
    }
}

/// The one host a request names: the target's authority wins over `Host` (RFC 9112 section 3.2.2).
fn authority(request: &Request<Incoming>) -> Result<HeaderValue, ProxyError> {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let (first, second) = (hosts.next(), hosts.next());
    if second.is_some() {
        return Err(ProxyError::BadRequest("more than one Host"));
    }
    if let Some(authority) = request.uri().authority() {
        let text = authority.as_str();
        return HeaderValue::from_str(text).map_err(|_| ProxyError::BadRequest("the target names no host"));
    }
    match first {
        Some(host) => Ok(host.clone()),
        None if request.version() == Version::HTTP_10 => Ok(HeaderValue::from_static("")),
        None => Err(ProxyError::BadRequest("no Host")),
    }
}

/// The request as the endpoint gets it.
fn outbound(
    request: Request<Incoming>,
    target: Target,
    client: &Client,
    exchange: &mut Exchange,
) -> Result<Outbound, ProxyError> {
    let (mut parts, body) = request.into_parts();
    let received = std::mem::replace(&mut parts.version, Version::HTTP_11);
    let forwarded = Forwarded { client: &client.address_text, host: &target.host, request_id: &exchange.request_id };
    headers::prepare_request(&mut parts.headers, received, &forwarded);
    if target.uri.authority().is_some() {
        parts.headers.insert(header::HOST, target.host.clone());
    }
    parts.uri = target.forwarded_uri()?;
    let body = RequestBody::new(body);
    exchange.uploads(body.upload());
    Ok(Request::from_parts(parts, body))
}

/// Picks, claims, connects, sends; on to the next endpoint as long as nothing was written.
async fn attempt(
    worker: &Rc<Worker>,
    view: &Rc<View>,
    route: usize,
    exchange: &mut Exchange,
    request: &mut Option<Outbound>,
) -> Result<Answer, ProxyError> {
    let mut tried = 0u64;
    let mut attempts = 0;
    loop {
        let (view, choice, endpoint) = claim(worker, view, route, tried, exchange)?;
        let timeouts = &view.snapshot.config.splits[choice.split].timeouts;
        let upstream = &view.splits[choice.split].versions[choice.version].upstreams[endpoint];
        let mut is_resent = false;
        let failed = loop {
            let reused = if is_resent { None } else { upstream.checkout() };
            let is_reused = reused.is_some();
            let mut lease = match reused {
                Some(lease) => lease,
                None => match upstream.dial(timeouts.connect).await {
                    Ok(lease) => lease,
                    Err(error) => break dial_error(&error),
                },
            };
            let begun = if is_reused { exchange.started() } else { Instant::now() };
            let deadlines = Deadlines::new(begun, exchange, timeouts);
            let spare = if is_reused { spare(request) } else { None };
            match send(&mut lease, request, &deadlines).await {
                Ok(head) => return Ok(Answer { head, lease, is_odd: false, deadline: deadlines.for_body() }),
                // The idle connection was closed under our hands: the next one, or a new one.
                Err(Failed::Unsent) if is_reused => {}
                Err(Failed::Unsent) => break ProxyError::Connect,
                // Closed while the request was on its way: once more on a new connection, on nobody's books.
                Err(Failed::Sent(ProxyError::Reset)) if spare.is_some() && !exchange.endpoint_is_cut() => {
                    (*request, is_resent) = (spare, true);
                }
                Err(Failed::Sent(why)) => {
                    let why = if exchange.endpoint_is_cut() { ProxyError::Cut } else { why };
                    exchange.attempt_failed(why);
                    return Err(why);
                }
            }
        };
        exchange.attempt_failed(failed);
        attempts += 1;
        tried |= 1u64.checked_shl(endpoint as u32).unwrap_or(0);
        let another = view.splits[choice.split].versions[choice.version].upstreams.len() > attempts as usize;
        if failed != ProxyError::Connect || attempts >= CONNECT_ATTEMPTS || !another {
            return Err(failed);
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
    let split = view.snapshot.routes.targets()[route].split;
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

/// A copy of a request that may be sent twice: idempotent (RFC 9110 section 9.2.2) and without a body.
fn spare(request: &Option<Outbound>) -> Option<Outbound> {
    let request = request.as_ref().filter(|r| r.method().is_idempotent() && r.body().is_end_stream())?;
    let mut spare = Request::new(RequestBody::none());
    *spare.method_mut() = request.method().clone();
    *spare.uri_mut() = request.uri().clone();
    *spare.headers_mut() = request.headers().clone();
    Some(spare)
}

enum Failed {
    /// Nothing was written; the request is back in its place.
    Unsent,
    Sent(ProxyError),
}

/// Sends the request that is in `place`. It is handed about by reference, since every move of it is a copy.
async fn send(
    lease: &mut Lease<RequestBody>,
    place: &mut Option<Outbound>,
    deadlines: &Deadlines,
) -> Result<Response<Incoming>, Failed> {
    let Some(request) = place.take() else { return Err(Failed::Sent(ProxyError::Reset)) };
    let answer = tokio::select! {
        biased;
        answer = lease.send(request) => answer,
        which = deadlines.head() => return Err(Failed::Sent(ProxyError::Timeout(which))),
    };
    answer.map_err(|mut error| {
        *place = error.take_message();
        if place.is_some() { Failed::Unsent } else { Failed::Sent(sent_error(error.error())) }
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

fn request_id(worker: &Worker, request: &Request<Incoming>) -> HeaderValue {
    if let Some(kept) = headers::kept_request_id(request.headers()) {
        return kept.clone();
    }
    let chance = worker.rng.borrow_mut().u128(..);
    let id = ulid::Ulid::from_parts(worker.clock.unix_ms(worker.clock.now()), chance);
    let mut text = [0; ulid::ULID_LEN];
    id.array_to_str(&mut text);
    HeaderValue::from_bytes(&text).unwrap_or_else(|_| HeaderValue::from_static("-"))
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
