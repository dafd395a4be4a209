//! The only place where a failure becomes an answer: one table from cause to status, `weir-error` and metric.
//!
//! Invariant: every refusal and failure has one status, one word in `weir-error`, and one cause on the books.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};

use super::body::Body;
use crate::model::{Cause, Refusal};

/// Why a request was not answered by a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProxyError {
    /// Malformed or ambiguous; says what is wrong.
    BadRequest(&'static str),
    NoRoute,
    /// The version has no endpoint that takes requests.
    NoEndpoint,
    /// Every endpoint has `max_in_flight` requests, or we have no descriptor left.
    Overloaded,
    Connect,
    Reset,
    /// Which of the split's `timeouts` ran out.
    Timeout(&'static str),
    Protocol,
    /// The drain's deadline cut the exchange.
    Cut,
}

impl ProxyError {
    fn answer(self) -> (StatusCode, &'static str) {
        match self {
            Self::BadRequest(_) => (StatusCode::BAD_REQUEST, "bad-request"),
            Self::NoRoute => (StatusCode::NOT_FOUND, "no-route"),
            Self::NoEndpoint => (StatusCode::SERVICE_UNAVAILABLE, "no-endpoint"),
            Self::Overloaded => (StatusCode::SERVICE_UNAVAILABLE, "overloaded"),
            Self::Connect => (StatusCode::BAD_GATEWAY, "connect-failed"),
            Self::Reset | Self::Cut => (StatusCode::BAD_GATEWAY, "upstream-reset"),
            Self::Timeout(_) => (StatusCode::GATEWAY_TIMEOUT, "timeout"),
            Self::Protocol => (StatusCode::BAD_GATEWAY, "upstream-protocol"),
        }
    }

    /// The status the client gets.
    pub(crate) fn status(self) -> StatusCode {
        self.answer().0
    }

    /// The word in `weir-error`, metrics and log.
    pub(crate) fn word(self) -> &'static str {
        self.answer().1
    }

    /// Counted against the version; `None` when no version was reached.
    pub(crate) fn cause(self) -> Option<Cause> {
        match self {
            Self::BadRequest(_) | Self::NoRoute => None,
            Self::NoEndpoint | Self::Overloaded => Some(Cause::NoEndpoint),
            Self::Connect => Some(Cause::Connect),
            Self::Reset | Self::Cut => Some(Cause::Reset),
            Self::Timeout(_) => Some(Cause::Timeout),
            Self::Protocol => Some(Cause::Protocol),
        }
    }

    /// Counted for the listener; `None` when a version was reached.
    pub(crate) fn refusal(self) -> Option<Refusal> {
        match self {
            Self::BadRequest(_) => Some(Refusal::BadRequest),
            Self::NoRoute => Some(Refusal::NoRoute),
            _ => None,
        }
    }

    fn text(self) -> &'static str {
        match self {
            Self::BadRequest(why) => why,
            Self::NoRoute => "no route matches this request",
            Self::NoEndpoint => "no endpoint takes requests",
            Self::Overloaded => "all endpoints are at their limit",
            Self::Connect => "no connection to the endpoint",
            Self::Reset => "the endpoint ended the connection before its answer",
            Self::Cut => "the endpoint was drained and its time was over",
            Self::Timeout(which) => which,
            Self::Protocol => "the endpoint's answer was not HTTP",
        }
    }

    /// The answer for the client. A refused request closes its connection, since what follows on it is not trusted.
    pub(crate) fn response(self, request_id: HeaderValue, date: &HeaderValue) -> Response<Body> {
        let (status, word) = self.answer();
        let mut response = Response::new(Body::full(Bytes::from(format!("{word}: {}\n", self.text()))));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert("weir-error", HeaderValue::from_static(word));
        headers.insert("x-request-id", request_id);
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        headers.insert(header::DATE, date.clone());
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        if matches!(self, Self::BadRequest(_)) {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}
