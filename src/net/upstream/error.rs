//! Why there is no connection, and why a request over one has no answer.
//!
//! Invariant: a `SendError` carries the request exactly when the endpoint cannot have acted on it, so whoever gets it
//! back may send it again whatever its method (faults.md 2.2).

use std::fmt;
use std::io;
use std::sync::Arc;

use http::Request;

/// Why there is no connection. Cloneable, since requests that wait for the same connection share its failure.
#[derive(Clone, Debug, thiserror::Error)]
pub enum DialError {
    #[error("connect: {0}")]
    Connect(#[source] Arc<io::Error>),
    /// Connecting, the TLS handshake and the peer's HTTP/2 settings together took too long.
    #[error("connect: no answer in time")]
    Timeout,
    /// The certificate is not trusted, is for another name or out of date, or there is no common ground.
    #[error("tls: {0}")]
    Tls(#[source] Arc<io::Error>),
    /// Connected, but what is spoken there is not the protocol that was asked for.
    #[error("handshake: {0}")]
    Handshake(#[source] Arc<dyn std::error::Error + Send + Sync>),
}

impl DialError {
    pub(super) fn connect(error: io::Error) -> Self {
        Self::Connect(Arc::new(error))
    }

    pub(super) fn tls(error: io::Error) -> Self {
        Self::Tls(Arc::new(error))
    }

    pub(super) fn handshake(error: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Handshake(Arc::new(error))
    }

    /// The endpoint refused the TLS handshake, and said so (RFC 7301 section 3.2: `no_application_protocol`; some servers
    /// have only `handshake_failure` for it).
    pub(super) fn is_alert(&self) -> bool {
        let inner =
            |e: &io::Error| matches!(e.get_ref().and_then(|e| e.downcast_ref()), Some(rustls::Error::AlertReceived(_)));
        matches!(self, Self::Tls(error) if inner(error))
    }

    /// Whether we, not the endpoint, are at fault: no descriptors, ports or memory left here.
    pub fn is_local(&self) -> bool {
        self.is_out_of_descriptors() || matches!(self.os_error(), Some(NO_PORT | NO_MEMORY | NO_BUFFERS))
    }

    /// Closing other connections helps.
    pub fn is_out_of_descriptors(&self) -> bool {
        matches!(self.os_error(), Some(LIMIT_PROCESS | LIMIT_SYSTEM))
    }

    fn os_error(&self) -> Option<i32> {
        match self {
            Self::Connect(error) => error.raw_os_error(),
            _ => None,
        }
    }
}

// EMFILE, ENFILE, EADDRNOTAVAIL, ENOMEM and ENOBUFS on Linux.
const LIMIT_PROCESS: i32 = 24;
const LIMIT_SYSTEM: i32 = 23;
const NO_PORT: i32 = 99;
const NO_MEMORY: i32 = 12;
const NO_BUFFERS: i32 = 105;

/// A request without an answer.
pub struct SendError<B> {
    /// The request as it was given, if the endpoint has not acted on it: nothing of it was written, or the endpoint
    /// said so (HTTP/2) before its body was touched.
    pub request: Option<Request<B>>,
    pub kind: SendFault,
}

/// What went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendFault {
    /// Reset or closed before a byte of the answer (HTTP/2: the stream, or its connection).
    #[error("the connection was closed before an answer")]
    Closed,
    /// Not HTTP, a status that does not exist, or a head that was cut.
    #[error("the answer is not valid HTTP")]
    Protocol,
    #[error("the answer's head is too large")]
    HeadTooLarge,
    /// More than ten 1xx before the answer.
    #[error("too many interim answers")]
    TooManyInterim,
    /// Our own request body failed: the endpoint is not to blame.
    #[error("the request's body ended early")]
    Body,
    /// The endpoint takes no WebSocket over this HTTP/2 connection (RFC 8441 section 3), or it speaks HTTP/1.1.
    #[error("the endpoint has not enabled extended CONNECT")]
    NoExtendedConnect,
}

impl<B> SendError<B> {
    pub(super) fn sent(kind: SendFault) -> Self {
        Self { request: None, kind }
    }

    pub(super) fn unsent(request: Request<B>, kind: SendFault) -> Self {
        Self { request: Some(request), kind }
    }
}

impl<B> fmt::Debug for SendError<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendError").field("kind", &self.kind).field("unsent", &self.request.is_some()).finish()
    }
}

impl<B> fmt::Display for SendError<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.kind.fmt(f)
    }
}

impl<B> std::error::Error for SendError<B> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_lacking_here_is_not_the_endpoints_fault() {
        for (code, is_local, is_out) in
            [(24, true, true), (23, true, true), (99, true, false), (12, true, false), (111, false, false)]
        {
            let error = DialError::connect(io::Error::from_raw_os_error(code));
            assert_eq!((error.is_local(), error.is_out_of_descriptors()), (is_local, is_out), "{code}");
        }
        assert!(!DialError::Timeout.is_local());
        assert!(!DialError::tls(io::Error::from_raw_os_error(24)).is_local(), "that is its handshake");
    }
}
