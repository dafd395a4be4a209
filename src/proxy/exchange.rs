//! The books of one request: what it was, which version was chosen, how it ended. Written once, when dropped.
//!
//! Invariants: every accepted request is recorded exactly once, whatever ends it; it counts for the version that was
//! chosen with its first attempt's outcome, whoever answered in the end (amendments.md 1.5); every failed attempt counts
//! for the version that failed; a client that goes away counts, but not as bad (analysis.md section 3).

mod books;
mod cut;

use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use http::{HeaderValue, StatusCode};

use super::choose::{Choice, Picked};
use super::client::Client;
use super::error::ProxyError;
use super::fields::Fields;
use super::grpc;
use super::headers::{self, Forwarded};
use super::request_id::RequestId;
use super::upload::Upload;
use super::view::{VersionView, View};
use super::worker::Worker;
use crate::model::{Cause, Instant, Kind};
use crate::pool::{Claim, Outcome};
use crate::telemetry::Counted;

/// What the access line needs of the request's head, which has gone to the endpoint by then.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) method: http::Method,
    pub(super) host: HeaderValue,
    pub(super) uri: http::Uri,
    pub(super) version: http::Version,
    pub(super) traceparent: Option<HeaderValue>,
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

/// How one attempt went, for the books of its version.
#[derive(Clone, Copy, Debug)]
struct Booked {
    code: u16,
    is_bad: bool,
    latency: Duration,
}

/// See the file's head.
pub(super) struct Exchange {
    worker: Rc<Worker>,
    view: Rc<View>,
    started: Instant,
    client: Rc<Client>,
    client_ip: Option<IpAddr>,
    pub(super) request_id: RequestId,
    head: Option<Box<Head>>,
    route: Option<usize>,
    choice: Option<Choice>,
    /// The version of the present attempt, and the view and split it is of: other ones than the choice's after a spill,
    /// a rescue, or a wait.
    at: usize,
    at_split: Option<(Rc<View>, usize)>,
    attempt_started: Instant,
    picked: Picked,
    /// The rule that chose, by its index. Such traffic counts in no analysis.
    by_rule: Option<usize>,
    /// How far it is counted by its start, for a rollout's analysis.
    watched: Counted,
    claim: Option<Claim>,
    attempts: u32,
    /// The first attempt's, once another one has followed.
    first: Option<Booked>,
    first_byte: Option<Duration>,
    upload: Option<Rc<Upload>>,
    bytes_in: u64,
    bytes_out: u64,
    /// Of the request's head, as it came.
    pub(super) asked: Fields,
    pub(super) is_grpc: bool,
    grpc_status: Option<u8>,
    /// Latency is that of the answer's head: gRPC, event streams, tunnels.
    is_stream: bool,
    end: End,
}

impl Exchange {
    pub(super) fn new(
        worker: Rc<Worker>,
        view: Rc<View>,
        client: Rc<Client>,
        request_id: RequestId,
        head: Option<Box<Head>>,
    ) -> Self {
        let started = Instant::now();
        Self {
            worker,
            view,
            started,
            client_ip: client.peer.ip(),
            client,
            request_id,
            head,
            route: None,
            choice: None,
            at: 0,
            at_split: None,
            attempt_started: started,
            picked: Picked::Weight,
            by_rule: None,
            watched: Counted::No,
            claim: None,
            attempts: 0,
            first: None,
            first_byte: None,
            upload: None,
            bytes_in: 0,
            bytes_out: 0,
            asked: Fields::default(),
            is_grpc: false,
            grpc_status: None,
            is_stream: false,
            end: End::Open,
        }
    }

    pub(super) fn started(&self) -> Instant {
        self.started
    }

    pub(super) fn worker(&self) -> &Worker {
        &self.worker
    }

    pub(super) fn client(&self) -> &Rc<Client> {
        &self.client
    }

    /// Takes the client's address from what the trusted proxies before us say.
    pub(super) fn believe(&mut self, headers: &http::HeaderMap) {
        let Some((_, listener)) = self.view.listener(&self.client.listener) else { return };
        self.client_ip = headers::client_ip(headers, self.client_ip, |ip| listener.trusted_proxies.trusts(ip));
    }

    /// The client's address, for matches and limits.
    pub(super) fn client_ip(&self) -> Option<IpAddr> {
        self.client_ip
    }

    /// What the endpoint is told about the client, who asked for `host`.
    pub(super) fn forwarded<'a>(&'a self, host: &'a HeaderValue) -> Forwarded<'a> {
        Forwarded {
            client: &self.client.address_text,
            host,
            request_id: self.request_id.value(),
            is_secure: self.client.is_secure.get(),
            is_trusted: self.client.is_trusted,
        }
    }

    /// A route has matched.
    pub(super) fn routed(&mut self, route: usize) {
        self.route = Some(route);
    }

    /// A version has been chosen. Only the first choice counts. `is_fresh`: by a coin that was tossed for this request, or
    /// for its client's first one (analysis.md section 2.5).
    pub(super) fn chosen(&mut self, view: &Rc<View>, choice: Choice, picked: Picked, is_fresh: bool) {
        if self.choice.is_none() {
            self.view = view.clone();
            self.choice = Some(choice);
            self.at = choice.version;
            self.picked = picked;
            self.by_rule = if let Picked::Rule(rule) = picked { Some(rule) } else { None };
            if is_fresh && self.by_rule.is_none() {
                self.watched = view.splits[choice.split].versions[choice.version].cell.begin(self.started);
            }
        }
    }

    /// The version's name, if answers are to show it.
    pub(super) fn shown_version(&self) -> Option<&HeaderValue> {
        self.version_at()?.shown_as.as_ref()
    }

    /// One that was chosen.
    fn version(&self, version: usize) -> Option<&VersionView> {
        self.view.splits[self.choice?.split].versions.get(version)
    }

    /// That of the present attempt.
    fn version_at(&self) -> Option<&VersionView> {
        match &self.at_split {
            None => self.version(self.at),
            Some((view, split)) => view.splits[*split].versions.get(self.at),
        }
    }

    /// What follows happens in a newer view. The books stay with what was chosen first.
    pub(super) fn moves(&mut self, view: &Rc<View>, split: usize) {
        self.at_split = Some((view.clone(), split));
    }

    /// A new attempt at the claimed endpoint of a version begins.
    pub(super) fn attempt(&mut self, claim: Claim, version: usize) {
        self.claim = Some(claim);
        self.at = version;
        // A request that never failed has no need of another look at the clock.
        if self.first.is_some() {
            self.attempt_started = Instant::now();
        }
        self.attempts += 1;
    }

    /// When the present attempt began.
    pub(super) fn attempt_started(&self) -> Instant {
        self.attempt_started
    }

    /// Another endpoint of the same version is tried.
    pub(super) fn retries(&mut self, version: usize) {
        self.at = version;
        if let Some(version) = self.version_at() {
            version.cell.retry();
        }
    }

    /// The chosen version could not be used: its request goes to others.
    pub(super) fn spills(&mut self) {
        if self.picked != Picked::Spill
            && let Some(version) = self.choice.and_then(|c| self.version(c.version))
        {
            version.cell.spill();
        }
        self.picked = Picked::Spill;
    }

    /// Nobody could be asked: what follows is a first attempt still.
    pub(super) fn waits(&mut self) {
        self.attempts = 0;
    }

    /// It has waited in line, which is not the endpoint's doing.
    pub(super) fn has_waited(&mut self) {
        self.attempt_started = Instant::now();
    }

    /// The chosen version has failed: stable gets its chance.
    pub(super) fn goes_to_stable(&mut self) {
        self.picked = Picked::Rescue;
    }

    pub(super) fn uploads(&mut self, upload: Option<&Rc<Upload>>) {
        self.upload = upload.cloned();
    }

    pub(super) fn upload(&self) -> Option<&Rc<Upload>> {
        self.upload.as_ref()
    }

    fn bytes_in(&self) -> u64 {
        self.bytes_in + self.upload.as_ref().map_or(0, |u| u.bytes.get())
    }

    /// An attempt failed: it is on its version's books even if another one succeeds.
    pub(super) fn attempt_failed(&mut self, why: ProxyError) {
        if let Some(cause) = why.cause() {
            self.count_error(cause);
        }
        if why == ProxyError::Cut {
            self.note_cut();
        }
        self.report_failure(why);
        self.note_first(why.status(), why.status().is_server_error());
    }

    /// An answer is thrown away for another attempt.
    pub(super) fn answer_dropped(&mut self, status: StatusCode) {
        self.count_error(Cause::Status);
        self.report(Outcome::Bad(Cause::Status));
        self.note_first(status, true);
    }

    fn count_error(&self, cause: Cause) {
        if let Some(version) = self.version_at() {
            version.cell.error(cause);
        }
    }

    fn note_first(&mut self, status: StatusCode, is_bad: bool) {
        let outcome = Booked { code: status.as_u16(), is_bad, latency: self.started.elapsed() };
        self.first.get_or_insert(outcome);
    }

    /// The answer's head is here. `is_stream`: it goes on for as long as both sides like.
    pub(super) fn answered(&mut self, status: StatusCode, is_stream: bool) {
        self.first_byte = Some(self.started.elapsed());
        self.end = End::Streaming(status);
        if is_stream {
            self.is_stream = true;
            self.convert(Kind::Stream);
            self.opened();
        }
        if self.picked == Picked::Rescue
            && !status.is_server_error()
            && let Some(version) = self.choice.and_then(|c| self.version(c.version))
        {
            version.cell.rescue();
        }
    }

    /// It has become a tunnel.
    pub(super) fn upgraded(&mut self) {
        self.is_stream = true;
        self.convert(Kind::Upgrade);
        self.opened();
    }

    /// A stream's head is here: from now on it takes as long as it likes. (After a failed attempt nothing is left to be
    /// said of the version.)
    fn opened(&mut self) {
        if self.watched == Counted::Begun
            && self.first.is_none()
            && let (Some(version), Some(age)) = (self.choice.and_then(|c| self.version(c.version)), self.first_byte)
        {
            self.watched = version.cell.open(self.started, age);
        }
    }

    fn convert(&mut self, kind: Kind) {
        if let Some(claim) = &mut self.claim {
            claim.convert(kind);
        }
    }

    /// We have answered by ourselves, and that is no failure.
    pub(super) fn answered_here(&mut self, status: StatusCode) {
        self.end = End::Complete(status);
    }

    pub(super) fn note_grpc_status(&mut self, status: Option<u8>) {
        self.grpc_status = status.or(self.grpc_status);
    }

    pub(super) fn add_bytes_in(&mut self, n: u64) {
        self.bytes_in += n;
    }

    pub(super) fn add_bytes_out(&mut self, n: u64) {
        self.bytes_out += n;
    }

    /// The answer's body has ended as it should.
    pub(super) fn complete(&mut self) {
        let End::Streaming(status) = self.end else { return };
        self.end = End::Complete(status);
        let cause = if status.is_server_error() {
            Cause::Status
        } else if self.has_bad_grpc_status() {
            Cause::Grpc
        } else {
            return self.report(Outcome::Good);
        };
        self.count_error(cause);
        self.report(Outcome::Bad(cause));
    }

    fn has_bad_grpc_status(&self) -> bool {
        // A gRPC answer without a status was cut by somebody who ended it cleanly (status UNKNOWN by the specification).
        self.is_grpc && self.grpc_status.is_none_or(grpc::is_bad)
    }

    /// The request failed for good.
    pub(super) fn failed(&mut self, why: ProxyError) {
        if let (End::Streaming(_), Some(cause)) = (self.end, why.cause()) {
            self.count_error(cause);
            if why == ProxyError::Cut {
                self.note_cut();
            }
            self.report_failure(why);
        }
        self.end = End::Failed(why);
    }
}
