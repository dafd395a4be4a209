//! TLS: from the certificates and trust of the configuration to what rustls works with, on both sides of the proxy.
//!
//! Owns: the choice of a certificate by SNI, what is spoken (versions, suites, ALPN), session resumption and who may
//! resume where, whose certificates are believed. Refuses: reading files (that is `config`), sockets and handshakes (that
//! is `proxy` and `net`), metrics.
//! Invariants: everything here is made before a reload takes effect, so that a failure changes nothing; a session is
//! resumed only where the same names are served to clients that had to show the same thing.

mod certificates;
mod client;
mod error;
mod expiry;
mod provider;
mod resumption;
mod server;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

pub use client::{client_config, server_name, web_client};
pub use error::TlsError;
pub use expiry::{Expiring, ExpiryWatch};
pub use resumption::Shared;
pub use server::server_config;
