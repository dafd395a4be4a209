//! Which certificate a client gets: exact name, then a wildcard of one label (RFC 6125), else the first, or none if the
//! operator wants it strict. Of several for a name (ECDSA beside RSA) the first whose key the client can verify.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use rustls::SignatureScheme;
use rustls::crypto::CryptoProvider;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::TlsError;
use crate::config::{Certificate, ListenerTls};

type Key = Arc<CertifiedKey>;

/// See the file's head.
pub(super) struct Certificates {
    /// By host, lower case.
    exact: HashMap<String, Vec<Key>>,
    /// By what follows the first label: `example.com` of `*.example.com`.
    wildcard: HashMap<String, Vec<Key>>,
    /// For clients that ask for no name, or for one nobody has.
    other: Vec<Key>,
    /// For clients that ask for no name, if it is strict: those with an IP address, which SNI cannot carry.
    unnamed: Vec<Key>,
    is_strict: bool,
}

impl Certificates {
    pub(super) fn new(tls: &ListenerTls, provider: &CryptoProvider) -> Result<Self, TlsError> {
        let (exact, wildcard, is_strict) = (HashMap::new(), HashMap::new(), tls.strict_sni);
        let mut all = Self { exact, wildcard, other: Vec::new(), unnamed: Vec::new(), is_strict };
        for certificate in &tls.certificates {
            all.add(certificate, Arc::new(certified(certificate, provider)?));
        }
        Ok(all)
    }

    fn add(&mut self, certificate: &Certificate, key: Key) {
        for name in &certificate.names {
            match name.strip_prefix("*.") {
                Some(rest) => self.wildcard.entry(rest.to_owned()).or_default().push(key.clone()),
                None if name.parse::<IpAddr>().is_ok() => self.unnamed.push(key.clone()),
                None => self.exact.entry(name.clone()).or_default().push(key.clone()),
            }
        }
        self.other.push(key);
    }

    /// `name` is lower case.
    fn choose(&self, name: Option<&str>, schemes: &[SignatureScheme]) -> Option<Key> {
        let found = match name {
            Some(name) => self.exact.get(name).or_else(|| self.wildcard.get(name.split_once('.')?.1)),
            None => self.is_strict.then_some(&self.unnamed),
        };
        let candidates = match found {
            Some(found) => found,
            None if self.is_strict => return None,
            None => &self.other,
        };
        // Without a name to go by the first is the operator's choice, whatever others could be verified.
        let candidates = if found.is_some() { candidates } else { candidates.get(..1)? };
        let fits = |key: &&Key| key.key.choose_scheme(schemes).is_some();
        candidates.iter().find(fits).or(candidates.first()).cloned()
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Key> {
        // rustls has made it lower case.
        self.choose(hello.server_name(), hello.signature_schemes())
    }
}

/// Names only: what is behind them is not for logs.
impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.exact.keys().chain(self.wildcard.keys()).collect();
        f.debug_struct("Certificates").field("names", &names).finish_non_exhaustive()
    }
}

/// A chain with its key ready to sign.
pub(super) fn certified(certificate: &Certificate, provider: &CryptoProvider) -> Result<CertifiedKey, TlsError> {
    CertifiedKey::from_der(certificate.chain.clone(), certificate.key.clone_key(), provider)
        .map_err(|source| TlsError::Certificate { path: certificate.file.clone(), source })
}
