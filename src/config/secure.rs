//! Certificates and trust, read and checked: what TLS needs of the configuration.
//!
//! Held as bytes, so that two configurations are equal exactly when the files behind them are; that is how a certificate
//! that was replaced on disk makes a reload. Invariant: every chain here fits its key, every authority could be read.

use std::sync::Arc;
use std::time::SystemTime;

use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};

/// TLS towards clients.
#[derive(Debug, PartialEq)]
pub struct ListenerTls {
    /// At least one; the first serves clients whose name fits none, unless `strict_sni`.
    pub certificates: Vec<Arc<Certificate>>,
    pub min_version: TlsVersion,
    /// Client certificates are required and must be signed by one of these.
    pub client_ca: Option<Vec<CertificateDer<'static>>>,
    /// A client that asks for a name no certificate has is refused by an alert (`strict_sni`).
    pub strict_sni: bool,
}

/// A chain and its key.
#[derive(Debug, PartialEq)]
pub struct Certificate {
    /// As written in the file; names it in metrics and messages.
    pub path: String,
    pub chain: Vec<CertificateDer<'static>>,
    pub key: PrivateKeyDer<'static>,
    /// DNS names of the leaf, lower case, `*.` included; IP addresses as text.
    pub names: Vec<String>,
    pub not_after: SystemTime,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TlsVersion {
    #[default]
    V12,
    V13,
}

/// TLS towards endpoints.
#[derive(Debug, PartialEq)]
pub struct UpstreamTls {
    /// Whose certificates are accepted; `None` = the system's authorities.
    pub ca: Option<Vec<CertificateDer<'static>>>,
    /// What is asked for and verified; `None` = the endpoint's IP address.
    pub server_name: Option<ServerName<'static>>,
    /// Shown to endpoints that ask for one.
    pub client: Option<Arc<Certificate>>,
}
