//! Why an attempt failed, and why a request was refused: the words of metrics, logs and `weir-error`.
//!
//! Invariant: the text of a cause is a contract with dashboards and alerts (surface.md sections 4 and 9).

/// Why an attempt at an endpoint counts against its version (`weir_errors_total{reason}`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// The answer's status was 5xx.
    Status,
    /// The answer's gRPC status is one of 2, 4, 8, 13, 14, 15.
    Grpc,
    /// No connection could be made.
    Connect,
    /// The connection ended before the answer did.
    Reset,
    /// A limit of the split's `timeouts` ran out.
    Timeout,
    /// The TLS handshake with the endpoint failed.
    Tls,
    /// No endpoint could take the request.
    NoEndpoint,
    /// The answer was not HTTP.
    Protocol,
}

impl Cause {
    /// All causes, in the order of their index.
    pub const ALL: [Self; 8] = [
        Self::Status,
        Self::Grpc,
        Self::Connect,
        Self::Reset,
        Self::Timeout,
        Self::Tls,
        Self::NoEndpoint,
        Self::Protocol,
    ];

    /// The label used in metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Grpc => "grpc",
            Self::Connect => "connect",
            Self::Reset => "reset",
            Self::Timeout => "timeout",
            Self::Tls => "tls",
            Self::NoEndpoint => "no-endpoint",
            Self::Protocol => "protocol",
        }
    }
}

/// Why a request never reached a version (`weir_refused_requests_total{listener,reason}`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// Malformed or ambiguous.
    BadRequest,
    /// No route matches.
    NoRoute,
    /// Head larger than `limits.header_bytes`.
    HeaderTooLarge,
    /// Request target too long.
    UriTooLong,
    /// The client took longer than `timeouts.header` for its head.
    ClientTimeout,
    /// The body is larger than `limits.body_bytes`.
    BodyTooLarge,
    /// More than the route's `rate_limit`.
    RateLimited,
    /// A trusted peer that had to send a PROXY header sent none in time, or a bad one.
    ProxyHeader,
    /// A peer that may not connect here at all.
    Untrusted,
    /// An HTTP/2 connection that was ended because its control frames cost more than its requests.
    Http2Abuse,
}

impl Refusal {
    /// All refusals, in the order of their index.
    pub const ALL: [Self; 10] = [
        Self::BadRequest,
        Self::NoRoute,
        Self::HeaderTooLarge,
        Self::UriTooLong,
        Self::ClientTimeout,
        Self::BodyTooLarge,
        Self::RateLimited,
        Self::ProxyHeader,
        Self::Untrusted,
        Self::Http2Abuse,
    ];

    /// The label used in metrics and in `weir-error`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BadRequest => "bad-request",
            Self::NoRoute => "no-route",
            Self::HeaderTooLarge => "header-too-large",
            Self::UriTooLong => "uri-too-long",
            Self::ClientTimeout => "client-timeout",
            Self::BodyTooLarge => "body-too-large",
            Self::RateLimited => "rate-limited",
            Self::ProxyHeader => "proxy-header",
            Self::Untrusted => "untrusted",
            Self::Http2Abuse => "http2-abuse",
        }
    }
}
