//! The books of an exchange: what its endpoint hears of each attempt, and at the end its counts and its access line.
//!
//! Invariant: the end is written once, when the exchange is dropped, whatever ended it.

use std::time::Duration;

use super::{Booked, End, Exchange, Head};
use crate::pool::Outcome;
use crate::proxy::choose::Choice;
use crate::proxy::client::Protocol;
use crate::proxy::error::{CLIENT_GONE, ProxyError};
use crate::telemetry::{Finish, Line};

impl Exchange {
    /// How the last attempt went.
    fn outcome(&self, latency: Duration) -> Booked {
        let latency = self.first_byte.filter(|_| self.is_stream).unwrap_or(latency);
        let (code, is_bad) = match self.end {
            End::Open | End::Streaming(_) => (CLIENT_GONE, false),
            End::Complete(status) => (status, status.is_server_error() || self.has_bad_grpc_status()),
            // Cut in the middle: the client saw the status of the head, the books say what went wrong.
            End::Failed(why) => (why.status(), why.status().is_server_error()),
        };
        Booked { code: code.as_u16(), is_bad, latency }
    }

    /// How the present attempt went, for its endpoint: once per attempt. (A client that goes away says nothing of it.)
    pub(super) fn report(&self, outcome: Outcome) {
        if let (Some(claim), Some(version)) = (&self.claim, self.version_at()) {
            version.pool.report(claim, outcome, version.is_stable);
        }
    }

    /// The same, if it was the endpoint's doing.
    pub(super) fn report_failure(&self, why: ProxyError) {
        let is_sent = self.upload.as_ref().is_none_or(|upload| upload.ended.get().is_some());
        if let Some(cause) = why.blame(is_sent) {
            self.report(Outcome::Bad(cause));
        }
    }

    fn write_books(&self, choice: Choice, latency: Duration) {
        let last = self.outcome(latency);
        let own = self.first.unwrap_or(last);
        let route = &self.view.routes[choice.route];
        route.responses.iter().for_each(|r| r.count(last.code));
        let version = &self.view.splits[choice.split].versions[choice.version];
        let cell = self.by_rule.and_then(|rule| version.rule_cells.get(rule)).unwrap_or(&version.cell);
        cell.finish(&Finish {
            latency: own.latency,
            first_byte: self.first_byte,
            bad: own.is_bad,
            bytes_in: self.bytes_in(),
            bytes_out: self.bytes_out,
            code: own.code,
            began: self.started,
            age: latency,
            watched: self.watched,
        });
        // Last, and read first: who sees the request counted sees everything else of it counted.
        route.requests[choice.version].count(own.code);
    }

    /// Of the version whose endpoint was asked last.
    fn version_name(&self) -> &str {
        let (view, split) = match (&self.at_split, self.choice) {
            (Some((view, split)), _) => (view, *split),
            (None, Some(choice)) => (&self.view, choice.split),
            (None, None) => return "",
        };
        view.splits[split].state.versions.get(self.at).map_or("", |version| version.name.as_str())
    }

    fn write_line(&self, head: &Head, latency: Duration) {
        let names = self.choice.map(|c| {
            let split = &self.view.splits[c.split];
            let routes = self.view.snapshot.routes.targets();
            (routes[c.route].name.as_str(), split.state.name.as_str(), self.version_name())
        });
        let routes = self.view.snapshot.routes.targets();
        let error = if let End::Failed(why) = self.end { Some(why.word()) } else { None };
        self.worker.access.write(&Line {
            ts: self.worker.wall_clock(self.started),
            request_id: self.request_id.as_str(),
            trace_id: head.traceparent.as_ref().and_then(|v| v.to_str().ok()).and_then(|v| v.get(3..35)),
            client: self.client_ip,
            method: head.method.as_str(),
            host: head.host.to_str().unwrap_or_default(),
            path: head.uri.path(),
            proto: self.proto(head.version),
            status: self.outcome(latency).code,
            bytes_in: self.bytes_in(),
            bytes_out: self.bytes_out,
            duration: latency,
            upstream: self.first_byte,
            listener: self.client.listener.as_str(),
            route: self.route.and_then(|r| routes.get(r)).map(|r| r.name.as_str()),
            split: names.map(|n| n.1),
            version: names.map(|n| n.2),
            endpoint: self.claim.as_ref().map(|c| c.endpoint().address()),
            attempts: self.attempts,
            picked: self.choice.and_then(|c| self.picked.word(&self.view, c.split)),
            error,
        });
    }

    fn proto(&self, version: http::Version) -> &'static str {
        match (self.client.protocol.get(), version) {
            (Some(Protocol::Http2), _) => "h2",
            (_, http::Version::HTTP_10) => "http/1.0",
            _ => "http/1.1",
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let latency = self.started.elapsed();
        if self.client.is_cut() && matches!(self.end, End::Open | End::Streaming(_)) {
            self.note_cut();
        }
        if let End::Failed(why) = self.end {
            why.refusal().into_iter().for_each(|r| self.client.cell.refused(r));
        }
        match (self.choice, self.route) {
            (Some(choice), _) => self.write_books(choice, latency),
            // Every version is drained or closed, or the route answers by itself: the client got an answer all the same.
            (None, Some(route)) => {
                let code = self.outcome(latency).code;
                self.view.routes[route].responses.iter().for_each(|r| r.count(code));
            }
            (None, None) => {}
        }
        if let Some(head) = self.head.take() {
            self.write_line(&head, latency);
        }
    }
}
