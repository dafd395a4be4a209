//! Where the clients go and how they behave; one [`Client`] for each of them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustls::ClientConfig;

use super::fence::Fence;
use super::tally::Tally;
use crate::support::{Authority, Connection, Failure};

/// The name on the certificate and in every request.
pub const HOST: &str = "app.test";

/// What all clients of a load share.
pub struct Plan {
    pub plain: SocketAddr,
    pub secure: SocketAddr,
    pub http1_tls: Arc<ClientConfig>,
    pub http2_tls: Arc<ClientConfig>,
    pub fence: Fence,
    pub stop: AtomicBool,
    /// From now on a client that is refused when it connects is done; until then that is a failure.
    pub until_refused: AtomicBool,
    /// WebSockets stay until they are closed; otherwise each client ends its own after a moment.
    pub long_sockets: bool,
}

impl Plan {
    pub fn new(plain: SocketAddr, secure: SocketAddr, authority: &Authority) -> Self {
        let http1_tls = authority.client(None);
        let mut http2_tls = (*http1_tls).clone();
        http2_tls.alpn_protocols = vec![b"h2".to_vec()];
        Self {
            plain,
            secure,
            http1_tls,
            http2_tls: Arc::new(http2_tls),
            fence: Fence::open(),
            stop: AtomicBool::new(false),
            until_refused: AtomicBool::new(false),
            long_sockets: false,
        }
    }
}

/// One of them.
pub struct Client {
    pub plan: Arc<Plan>,
    pub tally: Tally,
    pub is_secure: bool,
    /// Between two requests, on average.
    pub pace: Duration,
    pub seed: u64,
}

impl Client {
    pub fn is_over(&self) -> bool {
        self.plan.stop.load(Ordering::SeqCst)
    }

    /// A new connection for HTTP/1.1.
    pub fn connect(&self) -> Result<Connection, Failure> {
        let connection = if self.is_secure {
            Connection::open_tls(self.plan.secure, &self.plan.http1_tls, HOST)
        } else {
            Connection::open(self.plan.plain)
        };
        if connection.is_ok() {
            self.tally.opened();
        }
        connection
    }

    /// Whether a failure is the end that is waited for.
    pub fn is_done_by(&self, failure: &Failure) -> bool {
        *failure == Failure::Refused && self.plan.until_refused.load(Ordering::SeqCst)
    }

    /// Where its WebSockets lead: over TLS to an endpoint that speaks HTTP/2, in cleartext to one that speaks HTTP/1.1;
    /// so each protocol is carried over each.
    pub fn socket_path(&self) -> &'static str {
        if self.is_secure { "/rpc.Echo/socket" } else { "/socket" }
    }

    /// A random wait of `pace` on average.
    pub fn pause(&self, rng: &mut fastrand::Rng) -> Duration {
        self.pace.mul_f64(2.0 * rng.f64())
    }
}
