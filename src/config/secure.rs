//! Certificates and trust, read and checked: what TLS needs of the configuration.
//!
//! Held as bytes, so that two configurations are equal exactly when the files behind them are; that is how a certificate
//! that was replaced on disk makes a reload. Invariant: every chain here fits its key, every authority could be read.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};

use super::types::Config;

impl Config {
    /// Every certificate that is shown to somebody, in file order; of several of one name the one that ends first.
    pub fn certificates(&self) -> Vec<&Arc<Certificate>> {
        let listeners = self.listeners.iter().filter_map(|l| l.tls.as_ref()).flat_map(|tls| &tls.certificates);
        let versions = self.splits.iter().flat_map(|s| &s.versions).filter_map(|v| v.tls.as_ref()?.client.as_ref());
        let mut found: Vec<&Arc<Certificate>> = Vec::new();
        for one in listeners.chain(versions) {
            match found.iter_mut().find(|known| known.path == one.path) {
                Some(known) if known.not_after > one.not_after => *known = one,
                Some(_) => {}
                None => found.push(one),
            }
        }
        found
    }
}

/// TLS towards clients.
#[derive(Debug, PartialEq)]
pub struct ListenerTls {
    /// At least one; the first serves clients whose name fits none, unless `strict_sni`.
    pub certificates: Vec<Arc<Certificate>>,
    pub min_version: TlsVersion,
    /// Client certificates are required and must be signed by one of these.
    pub client_ca: Option<Authorities>,
    /// A client that asks for a name no certificate has is refused by an alert (`strict_sni`); one that asks for none
    /// gets the first certificate for an IP address.
    pub strict_sni: bool,
}

/// A chain and its key.
#[derive(Debug, PartialEq)]
pub struct Certificate {
    /// As written in the file; names it in metrics and messages.
    pub path: String,
    /// Where the chain was read.
    pub file: PathBuf,
    /// Where the key was read.
    pub key_file: PathBuf,
    /// The leaf first; at least that.
    pub chain: Vec<CertificateDer<'static>>,
    /// Its `Debug` does not show it.
    pub key: PrivateKeyDer<'static>,
    /// DNS names of the leaf, lower case, `*.` included; IP addresses as text.
    pub names: Vec<String>,
    /// Of the leaf.
    pub not_after: SystemTime,
}

/// Whose signatures are believed; at least one.
#[derive(Debug, PartialEq)]
pub struct Authorities {
    pub file: PathBuf,
    pub certificates: Vec<CertificateDer<'static>>,
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
    pub ca: Option<Authorities>,
    /// What is asked for and verified; `None` = the endpoint's IP address.
    pub server_name: Option<ServerName<'static>>,
    /// Shown to endpoints that ask for one.
    pub client: Option<Arc<Certificate>>,
}
