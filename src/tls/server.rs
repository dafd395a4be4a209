//! TLS towards clients: one rustls configuration per listener.

use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::version::TLS13;
use rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion};

use super::certificates::Certificates;
use super::provider::provider;
use super::{Shared, TlsError};
use crate::config::{Authorities, ListenerTls, TlsVersion};

/// What a listener's connections are accepted with; ALPN offers `h2`, then `http/1.1`.
///
/// # Errors
/// A certificate, a key or an authority that rustls refuses.
pub fn server_config(tls: &ListenerTls, shared: &Shared) -> Result<Arc<ServerConfig>, TlsError> {
    let provider = provider();
    let certificates = Certificates::new(tls, &provider)?;
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(versions(tls.min_version))
        .map_err(TlsError::Library)?;
    let verifier = match &tls.client_ca {
        Some(ca) => verifier(ca, provider)?,
        None => WebPkiClientVerifier::no_client_auth(),
    };
    let mut config = builder.with_client_cert_verifier(verifier).with_cert_resolver(Arc::new(certificates));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    // The order of `provider`: most clients put the dearest first.
    config.ignore_client_order = true;
    config.session_storage = shared.sessions(tls);
    config.ticketer = shared.tickets(tls);
    // Each costs an encryption and a record of the handshake; who opens several connections at once is given one on each.
    config.send_tls13_tickets = 1;
    // Early data could be replayed (RFC 8446 section 8), and a proxy cannot know which requests bear that.
    config.max_early_data_size = 0;
    Ok(Arc::new(config))
}

fn versions(min: TlsVersion) -> &'static [&'static SupportedProtocolVersion] {
    static ONLY_13: [&SupportedProtocolVersion; 1] = [&TLS13];
    match min {
        TlsVersion::V12 => rustls::DEFAULT_VERSIONS,
        TlsVersion::V13 => &ONLY_13,
    }
}

fn verifier(ca: &Authorities, provider: Arc<CryptoProvider>) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let roots = Arc::new(roots(ca)?);
    WebPkiClientVerifier::builder_with_provider(roots, provider)
        .build()
        .map_err(|source| TlsError::Authorities { path: ca.file.clone(), source: source.into() })
}

/// The authorities as rustls keeps them.
pub(super) fn roots(ca: &Authorities) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in &ca.certificates {
        let refused = |source: rustls::Error| TlsError::Authorities { path: ca.file.clone(), source: source.into() };
        roots.add(certificate.clone()).map_err(refused)?;
    }
    Ok(roots)
}
