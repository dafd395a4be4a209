//! TLS towards endpoints: one rustls configuration per version of a split.
//!
//! Invariant: an endpoint is always verified; there is no way to switch that off, and none to fall back to cleartext.

use std::sync::{Arc, OnceLock};

use rustls::client::Resumption;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::ServerName;

use super::TlsError;
use super::provider::provider;
use super::server::roots;
use crate::config::{Protocol, UpstreamTls};
use crate::model::Address;

/// Sessions remembered per version; each of its endpoints has one, and up to eight tickets.
const SESSIONS: usize = 256;

/// What a version's endpoints are connected to with; ALPN offers what `protocol` allows.
///
/// # Errors
/// A client certificate or an authority that rustls refuses; no authorities in the system, if its own are asked for.
pub fn client_config(tls: &UpstreamTls, protocol: Protocol) -> Result<Arc<ClientConfig>, TlsError> {
    let roots = match &tls.ca {
        Some(ca) => Arc::new(roots(ca)?),
        None => system_roots()?,
    };
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Library)?
        .with_root_certificates(roots);
    let mut config = match &tls.client {
        None => builder.with_no_client_auth(),
        Some(client) => builder
            .with_client_auth_cert(client.chain.clone(), client.key.clone_key())
            .map_err(|source| TlsError::Certificate { path: client.file.clone(), source })?,
    };
    let alpn: &[&[u8]] = match protocol {
        Protocol::Auto => &[b"h2", b"http/1.1"],
        Protocol::Http1 => &[b"http/1.1"],
        Protocol::Http2 => &[b"h2"],
    };
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    config.resumption = Resumption::in_memory_sessions(SESSIONS);
    Ok(Arc::new(config))
}

/// What the endpoint is asked for (by SNI, if it is a name) and must prove to be.
///
/// As written; else the name that led to the endpoint; else its IP address. A name that no certificate can have (an SRV
/// record's target may be anything) leaves the address. `None` for a Unix socket, where TLS is never spoken.
pub fn server_name(tls: &UpstreamTls, endpoint: &Address, host: Option<&str>) -> Option<ServerName<'static>> {
    let Address::Tcp(address) = endpoint else { return None };
    let named = || ServerName::try_from(host?.trim_end_matches('.').to_owned()).ok();
    let ip = || ServerName::IpAddress(address.ip().to_canonical().into());
    Some(tls.server_name.clone().or_else(named).unwrap_or_else(ip))
}

/// What servers outside are asked with, which the system's authorities vouch for; made once. Offers HTTP/1.1 alone.
///
/// # Errors
/// No authorities in the system.
pub fn web_client() -> Result<Arc<ClientConfig>, TlsError> {
    static CLIENT: OnceLock<Arc<ClientConfig>> = OnceLock::new();
    if let Some(client) = CLIENT.get() {
        return Ok(client.clone());
    }
    let client = client_config(&UpstreamTls { ca: None, server_name: None, client: None }, Protocol::Http1)?;
    Ok(CLIENT.get_or_init(|| client).clone())
}

/// Read when they are first asked for, and then kept: a third of a megabyte of files.
fn system_roots() -> Result<Arc<RootCertStore>, TlsError> {
    static ROOTS: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    if let Some(roots) = ROOTS.get() {
        return Ok(roots.clone());
    }
    let mut roots = RootCertStore::empty();
    // Some systems have a few that are of no use; the rest are.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        return Err(TlsError::NoAuthorities);
    }
    Ok(ROOTS.get_or_init(|| Arc::new(roots)).clone())
}
