//! The only place where a failure becomes an answer: one table from cause to status, `weir-error` and metric.
//!
//! Invariant: every refusal and failure has one status, one word in `weir-error`, and one cause on the books.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};

use super::body::Body;
use super::deadlines::TOTAL;
use super::grpc;
use crate::model::{Cause, Refusal};

/// Why a request was not answered by a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProxyError {
    /// Malformed or ambiguous; says what is wrong.
    BadRequest(&'static str),
    /// CONNECT to elsewhere, or a tunnel of a protocol we do not carry.
    NotImplemented(&'static str),
    NoRoute,
    /// Above the route's `rate_limit`; seconds until the next may come.
    RateLimited(u64),
    /// The request's body is above `limits.body_bytes`.
    BodyTooLarge,
    /// The client sent nothing more of its body for `timeouts.body`.
    ClientTimeout,
    /// The client went away before it had sent its request, or sent a body that cannot be read.
    ClientGone,
    /// The version has no endpoint that takes requests.
    NoEndpoint,
    /// Every endpoint has `max_in_flight` requests.
    Overloaded,
    /// We have no descriptor, port or memory left for a connection to the endpoint.
    Exhausted,
    Connect,
    /// The endpoint's certificate or handshake failed. Never falls back to cleartext.
    Tls,
    Reset,
    /// Which of the split's `timeouts` ran out.
    Timeout(&'static str),
    Protocol,
    /// The drain's deadline cut the exchange.
    Cut,
}

/// What an answer of ours needs to know of its request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked<'a> {
    pub(crate) request_id: &'a HeaderValue,
    pub(crate) date: &'a HeaderValue,
    pub(crate) is_grpc: bool,
}

impl ProxyError {
    fn answer(self) -> (StatusCode, &'static str) {
        match self {
            Self::BadRequest(_) => (StatusCode::BAD_REQUEST, "bad-request"),
            Self::NotImplemented(_) => (StatusCode::NOT_IMPLEMENTED, "bad-request"),
            Self::NoRoute => (StatusCode::NOT_FOUND, "no-route"),
            Self::RateLimited(_) => (StatusCode::TOO_MANY_REQUESTS, "rate-limited"),
            Self::BodyTooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "body-too-large"),
            Self::ClientTimeout => (StatusCode::REQUEST_TIMEOUT, "client-timeout"),
            Self::ClientGone => (CLIENT_GONE, "client-gone"),
            Self::NoEndpoint => (StatusCode::SERVICE_UNAVAILABLE, "no-endpoint"),
            Self::Overloaded | Self::Exhausted => (StatusCode::SERVICE_UNAVAILABLE, "overloaded"),
            Self::Connect => (StatusCode::BAD_GATEWAY, "connect-failed"),
            Self::Tls => (StatusCode::BAD_GATEWAY, "upstream-tls"),
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

    /// Counted against the version; `None` when the client is to blame or no version was reached.
    pub(crate) fn cause(self) -> Option<Cause> {
        match self {
            Self::BadRequest(_)
            | Self::NotImplemented(_)
            | Self::NoRoute
            | Self::RateLimited(_)
            | Self::BodyTooLarge
            | Self::ClientTimeout
            | Self::ClientGone => None,
            Self::NoEndpoint | Self::Overloaded | Self::Exhausted => Some(Cause::NoEndpoint),
            Self::Connect => Some(Cause::Connect),
            Self::Tls => Some(Cause::Tls),
            Self::Reset | Self::Cut => Some(Cause::Reset),
            Self::Timeout(_) => Some(Cause::Timeout),
            Self::Protocol => Some(Cause::Protocol),
        }
    }

    /// Held against the endpoint that was asked; `None` when it is not to blame: never for what we or the client failed to
    /// do (faults.md 3.5). `is_sent`: the client had sent its whole request by then.
    pub(crate) fn blame(self, is_sent: bool) -> Option<Cause> {
        match self {
            Self::NoEndpoint | Self::Overloaded | Self::Exhausted | Self::Cut => None,
            Self::Timeout(TOTAL) if !is_sent => None,
            _ => self.cause(),
        }
    }

    /// Counted for the listener; `None` when the client is not to blame.
    pub(crate) fn refusal(self) -> Option<Refusal> {
        match self {
            Self::BadRequest(_) | Self::NotImplemented(_) => Some(Refusal::BadRequest),
            Self::NoRoute => Some(Refusal::NoRoute),
            Self::RateLimited(_) => Some(Refusal::RateLimited),
            Self::BodyTooLarge => Some(Refusal::BodyTooLarge),
            Self::ClientTimeout => Some(Refusal::ClientTimeout),
            _ => None,
        }
    }

    fn text(self) -> &'static str {
        match self {
            Self::BadRequest(why) | Self::NotImplemented(why) => why,
            Self::NoRoute => "no route matches this request",
            Self::RateLimited(_) => "too many requests; try again later",
            Self::BodyTooLarge => "the body is larger than this listener takes",
            Self::ClientTimeout => "the body did not arrive",
            Self::ClientGone => "the body ended early",
            Self::NoEndpoint => "no endpoint takes requests",
            Self::Overloaded => "all endpoints are at their limit",
            Self::Exhausted => "no descriptor is left for a connection to the endpoint",
            Self::Connect => "no connection to the endpoint",
            Self::Tls => "no secure connection to the endpoint",
            Self::Reset => "the endpoint ended the connection before its answer",
            Self::Cut => "the endpoint was drained and its time was over",
            Self::Timeout(which) => which,
            Self::Protocol => "the endpoint's answer was not HTTP",
        }
    }

    /// What follows on the connection is not trusted, or not worth reading.
    fn ends_connection(self) -> bool {
        matches!(
            self,
            Self::BadRequest(_) | Self::NotImplemented(_) | Self::BodyTooLarge | Self::ClientTimeout | Self::ClientGone
        )
    }

    /// The answer for the client. A refused request closes its connection, since what follows on it is not trusted.
    pub(crate) fn response(self, asked: Asked<'_>) -> Response<Body> {
        let (status, word) = self.answer();
        let text = format!("{word}: {}", self.text());
        let mut response = Response::new(Body::full(Bytes::new()));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert("weir-error", HeaderValue::from_static(word));
        headers.insert("x-request-id", asked.request_id.clone());
        headers.insert(header::DATE, asked.date.clone());
        if let Some(seconds) = self.retry_after() {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.ends_connection() {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        if asked.is_grpc {
            let mut status = status;
            grpc::make_trailers_only(&mut status, headers, &text);
            *response.status_mut() = status;
            return response;
        }
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        response.map(|_| Body::full(Bytes::from(text + "\n")))
    }

    fn retry_after(self) -> Option<u64> {
        match self {
            Self::RateLimited(seconds) => Some(seconds),
            Self::NoEndpoint | Self::Overloaded | Self::Exhausted => Some(1),
            _ => None,
        }
    }
}

/// For the books only: nobody is there to get it (as nginx counts it).
pub(crate) const CLIENT_GONE: StatusCode = match StatusCode::from_u16(499) {
    Ok(status) => status,
    Err(_) => StatusCode::BAD_REQUEST,
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_blamed_for_its_own_failures_only() {
        for (why, is_sent, blamed) in [
            (ProxyError::Connect, true, Some(Cause::Connect)),
            (ProxyError::Tls, true, Some(Cause::Tls)),
            (ProxyError::Reset, false, Some(Cause::Reset)),
            (ProxyError::Protocol, true, Some(Cause::Protocol)),
            (ProxyError::Timeout("first_byte"), true, Some(Cause::Timeout)),
            (ProxyError::Timeout(TOTAL), true, Some(Cause::Timeout)),
            (ProxyError::Timeout(TOTAL), false, None),
            (ProxyError::Overloaded, true, None),
            (ProxyError::NoEndpoint, true, None),
            (ProxyError::Cut, true, None),
            (ProxyError::ClientGone, false, None),
            (ProxyError::ClientTimeout, false, None),
            (ProxyError::BodyTooLarge, false, None),
        ] {
            assert_eq!(why.blame(is_sent), blamed, "{why:?}, {is_sent}");
        }
    }
}
