//! The books of one request: what it was, which version the coin chose, how it ended. Written once, when dropped.
//!
//! Invariants: every accepted request is recorded exactly once, whatever ends it; it counts for the version the coin
//! chose with its first attempt's outcome (amendments.md 1.5); a client that goes away counts, but not as bad
//! (analysis.md section 3).

use std::rc::Rc;
use std::time::Duration;

use http::{HeaderValue, StatusCode};

use super::body::Upload;
use super::connection::Client;
use super::error::ProxyError;
use super::headers::Forwarded;
use super::request_id::RequestId;
use super::view::View;
use super::worker::Worker;
use crate::model::Instant;
use crate::pool::Claim;
use crate::telemetry::{Finish, Line};

/// What the access line needs of the request's head, which has gone to the endpoint by then.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) method: http::Method,
    pub(super) host: HeaderValue,
    pub(super) uri: http::Uri,
    pub(super) version: http::Version,
    pub(super) traceparent: Option<HeaderValue>,
}

/// Where the coin sent the request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Choice {
    pub(super) route: usize,
    pub(super) split: usize,
    pub(super) version: usize,
}

/// How it ended so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// Nothing yet: if it stays so, the client has gone.
    Open,
    /// The answer's head has gone out; the body has not ended.
    Streaming(StatusCode),
    Complete(StatusCode),
    /// Answered by us with an error, or cut in the middle.
    Failed(ProxyError),
}

/// See the file's head.
pub(super) struct Exchange {
    worker: Rc<Worker>,
    view: Rc<View>,
    started: Instant,
    client: Rc<Client>,
    pub(super) request_id: RequestId,
    head: Option<Box<Head>>,
    route: Option<usize>,
    choice: Option<Choice>,
    claim: Option<Claim>,
    attempts: u32,
    first_byte: Option<Duration>,
    upload: Option<Rc<Upload>>,
    bytes_out: u64,
    end: End,
}

/// Status for the books of a request whose client went away before its answer ended (as nginx counts it).
const CLIENT_GONE: u16 = 499;

impl Exchange {
    pub(super) fn new(
        worker: Rc<Worker>,
        view: Rc<View>,
        client: Rc<Client>,
        request_id: RequestId,
        head: Option<Box<Head>>,
    ) -> Self {
        Self {
            worker,
            view,
            started: Instant::now(),
            client,
            request_id,
            head,
            route: None,
            choice: None,
            claim: None,
            attempts: 0,
            first_byte: None,
            upload: None,
            bytes_out: 0,
            end: End::Open,
        }
    }

    pub(super) fn started(&self) -> Instant {
        self.started
    }

    /// What the endpoint is told about the client, who asked for `host`.
    pub(super) fn forwarded<'a>(&'a self, host: &'a HeaderValue) -> Forwarded<'a> {
        Forwarded { client: &self.client.address_text, host, request_id: self.request_id.value() }
    }

    /// A route has matched.
    pub(super) fn routed(&mut self, route: usize) {
        self.route = Some(route);
    }

    /// The coin has chosen. Only the first choice counts.
    pub(super) fn chosen(&mut self, view: &Rc<View>, choice: Choice) {
        if self.choice.is_none() {
            self.view = view.clone();
            self.choice = Some(choice);
        }
    }

    /// What the coin has chosen, and in which view.
    pub(super) fn choice(&self) -> Option<Choice> {
        self.choice
    }

    pub(super) fn view_of_choice(&self) -> Option<Rc<View>> {
        self.choice.map(|_| self.view.clone())
    }

    /// The version's name, if answers are to show it.
    pub(super) fn shown_version(&self) -> Option<&HeaderValue> {
        self.choice.and_then(|c| self.view.splits[c.split].versions[c.version].shown_as.as_ref())
    }

    /// A new attempt at the claimed endpoint begins.
    pub(super) fn attempt(&mut self, claim: Claim) {
        self.claim = Some(claim);
        self.attempts += 1;
        if let (Some(choice), true) = (self.choice, self.attempts > 1) {
            self.view.splits[choice.split].versions[choice.version].cell.retry();
        }
    }

    pub(super) fn uploads(&mut self, upload: Option<&Rc<Upload>>) {
        self.upload = upload.cloned();
    }

    pub(super) fn upload(&self) -> Option<Rc<Upload>> {
        self.upload.clone()
    }

    fn bytes_in(&self) -> u64 {
        self.upload.as_ref().map_or(0, |u| u.bytes.get())
    }

    /// An attempt failed: it is on the version's books even if another one succeeds.
    pub(super) fn attempt_failed(&self, why: ProxyError) {
        if let (Some(choice), Some(cause)) = (self.choice, why.cause()) {
            self.view.splits[choice.split].versions[choice.version].cell.error(cause);
        }
    }

    /// The answer's head is here.
    pub(super) fn answered(&mut self, status: StatusCode) {
        self.first_byte = Some(self.started.elapsed());
        self.end = End::Streaming(status);
    }

    pub(super) fn add_bytes_out(&mut self, n: u64) {
        self.bytes_out += n;
    }

    pub(super) fn endpoint_is_cut(&self) -> bool {
        self.claim.as_ref().is_some_and(|c| c.endpoint().is_cut())
    }

    /// The answer's body has ended as it should.
    pub(super) fn complete(&mut self) {
        if let End::Streaming(status) = self.end {
            self.end = End::Complete(status);
        }
    }

    /// The request failed for good.
    pub(super) fn failed(&mut self, why: ProxyError) {
        if let End::Streaming(_) = self.end {
            self.attempt_failed(why);
        }
        self.end = End::Failed(why);
    }

    /// What the client got, what the version's books say, whether that is bad.
    fn outcome(&self) -> (u16, u16, bool) {
        match self.end {
            End::Open | End::Streaming(_) => (CLIENT_GONE, CLIENT_GONE, false),
            End::Complete(status) => (status.as_u16(), status.as_u16(), status.is_server_error()),
            // Cut in the middle: the client saw the status of the head, the books say what went wrong.
            End::Failed(why) => (why.status().as_u16(), why.status().as_u16(), why.status().is_server_error()),
        }
    }

    fn write_books(&self, choice: Choice, latency: Duration) {
        let (client_code, version_code, bad) = self.outcome();
        let route = &self.view.routes[choice.route];
        route.requests[choice.version].count(version_code);
        route.responses.iter().for_each(|r| r.count(client_code));
        let cell = &self.view.splits[choice.split].versions[choice.version].cell;
        if bad && matches!(self.end, End::Complete(_)) {
            cell.error(crate::model::Cause::Status);
        }
        cell.finish(&Finish {
            latency,
            first_byte: self.first_byte,
            bad,
            bytes_in: self.bytes_in(),
            bytes_out: self.bytes_out,
        });
    }

    fn write_line(&self, head: &Head, latency: Duration) {
        let names = self.choice.map(|c| {
            let split = &self.view.splits[c.split];
            let routes = self.view.snapshot.routes.targets();
            (routes[c.route].name.as_str(), split.state.name.as_str(), split.state.versions[c.version].name.as_str())
        });
        let error = if let End::Failed(why) = self.end { Some(why.word()) } else { None };
        self.worker.access.write(&Line {
            ts: self.worker.wall_clock(self.started),
            request_id: self.request_id.as_str(),
            trace_id: head.traceparent.as_ref().and_then(|v| v.to_str().ok()).and_then(|v| v.get(3..35)),
            client: self.client.address.ip(),
            method: head.method.as_str(),
            host: head.host.to_str().unwrap_or_default(),
            path: head.uri.path(),
            proto: if head.version == http::Version::HTTP_10 { "http/1.0" } else { "http/1.1" },
            status: self.outcome().0,
            bytes_in: self.bytes_in(),
            bytes_out: self.bytes_out,
            duration: latency,
            upstream: self.first_byte,
            listener: self.client.listener.as_str(),
            route: names.map(|n| n.0),
            split: names.map(|n| n.1),
            version: names.map(|n| n.2),
            endpoint: self.claim.as_ref().map(|c| c.endpoint().address()),
            attempts: self.attempts,
            picked: names.map(|_| "weight"),
            error,
        });
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let latency = self.started.elapsed();
        match (self.choice, self.route, self.end) {
            (Some(choice), ..) => self.write_books(choice, latency),
            // Every version is drained or closed: no coin was thrown, but the client got an answer.
            (None, Some(route), _) => self.view.routes[route].responses.iter().for_each(|r| r.count(self.outcome().0)),
            (None, None, End::Failed(why)) => why.refusal().into_iter().for_each(|r| self.client.cell.refused(r)),
            (None, None, _) => {}
        }
        if let Some(head) = self.head.take() {
            self.write_line(&head, latency);
        }
    }
}
