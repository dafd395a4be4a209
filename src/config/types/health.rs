//! Active checks of a version's endpoints, as plain data.

use std::fmt;
use std::time::Duration;

use http::uri::{Authority, PathAndQuery};
use http::{HeaderName, HeaderValue, Method};

/// How an endpoint is checked, how often, and when it counts as up or down.
#[derive(Clone, Debug, PartialEq)]
pub struct HealthCheck {
    pub kind: HealthKind,
    /// From one check to the next, give or take a tenth; at least 10 ms.
    pub interval: Duration,
    /// For connection, TLS and the head of the answer together; above 0.
    pub timeout: Duration,
    /// So many passes in a row make a down endpoint up; at least 1.
    pub healthy_after: u32,
    /// So many failures in a row make an endpoint down; at least 1.
    pub unhealthy_after: u32,
}

/// What is asked of an endpoint.
#[derive(Clone, Debug, PartialEq)]
pub enum HealthKind {
    /// A request, in the version's protocol.
    Http(HttpCheck),
    /// A connection; with TLS also the handshake.
    Tcp,
    /// `grpc.health.v1.Health/Check`, over HTTP/2.
    Grpc(GrpcCheck),
}

#[derive(Clone, Debug, PartialEq)]
pub struct HttpCheck {
    pub path: PathAndQuery,
    pub method: Method,
    /// Default: the endpoint's address.
    pub host: Option<Authority>,
    pub headers: Vec<(HeaderName, HeaderValue)>,
    pub expect: Statuses,
}

#[derive(Clone, Debug, PartialEq)]
pub struct GrpcCheck {
    /// Empty: the server as a whole.
    pub service: String,
    /// Default: the endpoint's address.
    pub host: Option<Authority>,
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

/// Statuses, as ranges with both ends; at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statuses(pub Vec<(u16, u16)>);

impl Statuses {
    pub fn contains(&self, status: u16) -> bool {
        self.0.iter().any(|&(first, last)| (first..=last).contains(&status))
    }
}

impl fmt::Display for Statuses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (first, last)) in self.0.iter().enumerate() {
            f.write_str(if i == 0 { "" } else { "," })?;
            match first == last {
                true => write!(f, "{first}")?,
                false => write!(f, "{first}-{last}")?,
            }
        }
        Ok(())
    }
}
