//! Why there is no TLS for what the configuration asks.

use std::path::PathBuf;

/// The configuration was checked when it was read, so these are rare: what only rustls or the system can refuse.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("certificate {} cannot be used", path.display())]
    Certificate { path: PathBuf, source: rustls::Error },
    #[error("authorities of {} cannot be used", path.display())]
    Authorities { path: PathBuf, source: Box<dyn std::error::Error + Send + Sync> },
    #[error("this system has no certificate authorities; name a file of them with `ca`")]
    NoAuthorities,
    #[error("TLS cannot be set up")]
    Library(#[source] rustls::Error),
}
