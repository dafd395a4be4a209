//! One attempt at one endpoint: a connection, the request, the head of the answer.
//!
//! Invariants: a request that an idle connection lost is sent once more on a new one, on nobody's books, if it may be
//! (faults.md 4.6); what the client did wrong is never blamed on the endpoint.

use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use http::{HeaderValue, Response};
use http_body_util::BodyExt as _;
use tokio::time::Sleep;

use super::deadlines::{Deadlines, TOTAL};
use super::early::Early;
use super::error::ProxyError;
use super::exchange::Exchange;
use super::outgoing::Outgoing;
use super::retry::Failure;
use super::upload::{Broken, RequestBody};
use crate::config::{HeaderEdits, UpstreamTimeouts};
use crate::model::Instant;
use crate::net::body::Received;
use crate::net::upstream::{DialError, Lease, SendFault, Upstream};

/// How much of an answer that nobody wants is read to keep its connection, and for how long.
const DISCARD_BYTES: usize = 64 << 10;
const DISCARD_TIME: Duration = Duration::from_secs(1);

/// Without a descriptor for a connection, idle ones are closed and it is tried again: so often, and after so long. All
/// together a little longer than a client must have been idle to give way, so that a flood of new ones harms nobody who
/// was there before.
const ROOM_TRIES: u32 = 30;
const ROOM_MADE: Duration = Duration::from_millis(20);

/// The head of an endpoint's answer, and what its body still needs.
pub(super) struct Answer {
    pub(super) head: Response<Received>,
    pub(super) lease: Lease<RequestBody>,
    /// Its connection is not used again.
    pub(super) is_odd: bool,
    pub(super) deadline: Option<Pin<Box<Sleep>>>,
    /// `timeouts.stall`.
    pub(super) stall: Option<Duration>,
}

/// One endpoint: over an idle connection if there is one, else over a new one.
pub(super) async fn at_endpoint(
    upstream: &Rc<Upstream<RequestBody>>,
    (host, timeouts, edits): (Option<&HeaderValue>, &UpstreamTimeouts, &HeaderEdits),
    early: &Early,
    exchange: &Exchange,
    outgoing: &mut Outgoing,
) -> Result<Answer, Failure> {
    let mut is_resent = false;
    loop {
        let reused = if is_resent { None } else { upstream.checkout() };
        let is_reused = reused.is_some();
        let mut lease = match reused {
            Some(lease) => lease,
            None => Box::pin(dial(upstream, exchange, timeouts)).await.map_err(Failure::Unsent)?,
        };
        let begun = if is_reused { exchange.attempt_started() } else { Instant::now() };
        let deadlines = Deadlines::new(begun, exchange, timeouts);
        match send(&mut lease, outgoing, &deadlines, early, exchange).await {
            Ok(head) => {
                let (deadline, stall) = (deadlines.for_body(), timeouts.stall);
                return Ok(Answer { head, lease, is_odd: false, deadline, stall });
            }
            // The idle connection was closed under our hands: the next one, or a new one. A shared one that refuses would
            // be handed out again for ever, so after that it is a new one.
            Err(Failure::Unsent(_)) if is_reused => is_resent = lease.is_http2(),
            // Closed while the request was on its way: once more on a new connection, on nobody's books.
            Err(Failure::Sent(ProxyError::Reset))
                if is_reused && !exchange.is_cut() && outgoing.resend(host, exchange, edits) =>
            {
                is_resent = true;
            }
            Err(Failure::Sent(_)) if exchange.is_cut() => return Err(Failure::Sent(ProxyError::Cut)),
            Err(failure) => return Err(failure),
        }
    }
}

/// Connects, in the time that the exchange has left.
pub(super) async fn dial(
    upstream: &Rc<Upstream<RequestBody>>,
    exchange: &Exchange,
    timeouts: &UpstreamTimeouts,
) -> Result<Lease<RequestBody>, ProxyError> {
    let over = Deadlines::total(exchange, timeouts);
    let mut tries = ROOM_TRIES;
    loop {
        let left = over.map(|over| over.saturating_duration_since(Instant::now()));
        let limit =
            left.map_or(timeouts.connect, |left| Some(timeouts.connect.map_or(left, |connect| connect.min(left))));
        match upstream.dial(limit).await {
            Ok(lease) => return Ok(lease),
            Err(error) if error.is_out_of_descriptors() && tries > 0 => {
                tries -= 1;
                exchange.worker().make_room_for_dial();
                tokio::time::sleep(ROOM_MADE).await;
            }
            Err(DialError::Timeout) if over.is_some_and(|over| over <= Instant::now()) => {
                return Err(ProxyError::Timeout(TOTAL));
            }
            Err(error) => return Err(dial_error(&error)),
        }
    }
}

fn dial_error(error: &DialError) -> ProxyError {
    match error {
        error if error.is_local() => ProxyError::Exhausted,
        DialError::Tls(_) => ProxyError::Tls,
        _ => ProxyError::Connect,
    }
}

/// Sends the request. It is handed about by reference, since every move of it is a copy.
async fn send(
    lease: &mut Lease<RequestBody>,
    outgoing: &mut Outgoing,
    deadlines: &Deadlines,
    early: &Early,
    exchange: &Exchange,
) -> Result<Response<Received>, Failure> {
    let Some(mut request) = outgoing.request.take() else { return Err(Failure::Sent(ProxyError::Reset)) };
    if let Some(handshake) = &outgoing.handshake {
        if lease.is_http2() { handshake.ask_http2(&mut request) } else { handshake.ask_http1(&mut request) }
    }
    let mut interim = |answer: Response<()>| early.pass(answer, exchange.upload());
    let answer = tokio::select! {
        biased;
        answer = lease.send(request, &mut interim) => answer,
        which = deadlines.head() => return Err(Failure::Sent(ProxyError::Timeout(which))),
    };
    answer.map_err(|error| {
        outgoing.request = error.request;
        match (&outgoing.request, upload_error(exchange)) {
            (Some(_), _) if error.kind == SendFault::NoExtendedConnect => Failure::Unsent(ProxyError::Protocol),
            (Some(_), _) => Failure::Unsent(ProxyError::Connect),
            (None, Some(why)) => Failure::Sent(why),
            (None, None) => Failure::Sent(sent_error(error.kind)),
        }
    })
}

/// The client's fault, if it was one.
fn upload_error(exchange: &Exchange) -> Option<ProxyError> {
    exchange.upload()?.broken.get().map(|broken| match broken {
        Broken::TooLarge => ProxyError::BodyTooLarge,
        Broken::Timeout => ProxyError::ClientTimeout,
        Broken::Client => ProxyError::ClientGone,
    })
}

fn sent_error(fault: SendFault) -> ProxyError {
    match fault {
        SendFault::Protocol | SendFault::HeadTooLarge | SendFault::TooManyInterim => ProxyError::Protocol,
        SendFault::Closed | SendFault::Body | SendFault::NoExtendedConnect => ProxyError::Reset,
    }
}

/// Reads an answer nobody wants to its end if that is near, so that its connection can be used again.
pub(super) fn discard(answer: Answer) {
    let Answer { head, lease, .. } = answer;
    tokio::task::spawn_local(async move {
        let body = http_body_util::Limited::new(head.into_body(), DISCARD_BYTES);
        if let Ok(Ok(_)) = tokio::time::timeout(DISCARD_TIME, body.collect()).await {
            lease.give_back();
        }
    });
}
