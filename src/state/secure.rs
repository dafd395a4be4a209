//! What a configuration's TLS is accepted and connected with, made before anything of it takes effect.
//!
//! Invariant: what did not change is the same `Arc` as before, so that whoever keeps something per rustls configuration
//! (sessions, pooled connections) keeps it.

use std::sync::Arc;

use rustls::{ClientConfig, ServerConfig};

use super::{ApplyError, Snapshot};
use crate::config::{Config, ListenerTls, Split, UpstreamTls, Version};
use crate::tls::{Shared, TlsError, client_config, server_config};

/// By the same indexes as the configuration's.
#[derive(Clone, Debug, Default)]
pub(super) struct Secured {
    /// By listener.
    pub listeners: Vec<Option<Arc<ServerConfig>>>,
    /// By split and version.
    pub upstreams: Vec<Vec<Option<Arc<ClientConfig>>>>,
}

impl Secured {
    /// For `config`, taking over from `old` what is the same.
    ///
    /// # Errors
    /// `BadTls` with the first part that cannot be had.
    pub(super) fn new(config: &Arc<Config>, old: Option<&Snapshot>, shared: &Shared) -> Result<Self, ApplyError> {
        if let Some(old) = old.filter(|old| Arc::ptr_eq(&old.config, config)) {
            return Ok(Self { listeners: old.tls.clone(), upstreams: old.upstream_tls.clone() });
        }
        let mut secured = Self::default();
        for listener in &config.listeners {
            let made = listener.tls.as_deref().map(|tls| server(tls, old, shared)).transpose();
            secured.listeners.push(made.map_err(|source| bad(format!("listeners.{}.tls", listener.name), source))?);
        }
        for split in &config.splits {
            let versions = split.versions.iter().map(|version| {
                let made = version.tls.as_deref().map(|tls| client(tls, split, version, old)).transpose();
                made.map_err(|source| bad(format!("splits.{}.versions.{}.tls", split.name, version.name), source))
            });
            secured.upstreams.push(versions.collect::<Result<_, _>>()?);
        }
        Ok(secured)
    }
}

fn bad(key: String, source: TlsError) -> ApplyError {
    ApplyError::BadTls { key, source }
}

/// Equal certificates and trust give the same thing, whatever their listener is called.
fn server(tls: &ListenerTls, old: Option<&Snapshot>, shared: &Shared) -> Result<Arc<ServerConfig>, TlsError> {
    let kept = old.and_then(|old| {
        let mut all = old.config.listeners.iter().zip(&old.tls);
        all.find_map(|(listener, made)| made.clone().filter(|_| listener.tls.as_deref() == Some(tls)))
    });
    kept.map_or_else(|| server_config(tls, shared), Ok)
}

fn client(
    tls: &UpstreamTls,
    split: &Split,
    version: &Version,
    old: Option<&Snapshot>,
) -> Result<Arc<ClientConfig>, TlsError> {
    let kept = old.and_then(|old| {
        let (was, made) = old.config.splits.iter().zip(&old.upstream_tls).find(|(was, _)| was.name == split.name)?;
        let (was, made) = was.versions.iter().zip(made).find(|(was, _)| was.name == version.name)?;
        made.clone().filter(|_| was.tls.as_deref() == Some(tls) && was.protocol == version.protocol)
    });
    kept.map_or_else(|| client_config(tls, version.protocol), Ok)
}
