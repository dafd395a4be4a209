//! Session resumption: what outlives a reload, and the fence between listeners.
//!
//! One ticket key and one session cache serve the whole process, so a client that comes back after a reload (or to
//! another listener of the same names) resumes. rustls checks on resumption that SNI and suite are the same, but neither
//! client certificates nor server names: a ticket from an open listener would pass for a client certificate at a strict
//! one, and would let one server's names be served by another. Hence the fence: every ticket and every cached session
//! carries a digest of both. Invariant: nothing is resumed under another fence than it was made under.

use std::fmt;
use std::sync::Arc;

use rustls::crypto::aws_lc_rs::Ticketer;
use rustls::server::{ProducesTickets, ServerSessionMemoryCache, StoresServerSessions};
use sha2::{Digest, Sha256};

use super::TlsError;
use crate::config::ListenerTls;

/// Sessions kept for TLS 1.2 clients that cannot do tickets; all else is stateless.
const SESSIONS: usize = 4096;

/// What all server configurations of a process share.
#[derive(Clone)]
pub struct Shared {
    /// Its key is made here, changes every six hours, and is never written anywhere.
    tickets: Arc<dyn ProducesTickets>,
    sessions: Arc<dyn StoresServerSessions>,
}

impl Shared {
    /// # Errors
    /// The system gives no randomness.
    pub fn new() -> Result<Self, TlsError> {
        let tickets = Ticketer::new().map_err(TlsError::Library)?;
        Ok(Self { tickets, sessions: ServerSessionMemoryCache::new(SESSIONS) })
    }

    pub(super) fn tickets(&self, tls: &ListenerTls) -> Arc<dyn ProducesTickets> {
        Arc::new(Fenced { inner: self.tickets.clone(), fence: fence(tls) })
    }

    pub(super) fn sessions(&self, tls: &ListenerTls) -> Arc<dyn StoresServerSessions> {
        Arc::new(Fenced { inner: self.sessions.clone(), fence: fence(tls) })
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

type Fence = [u8; 16];

/// Of the names served and of whom clients must be certified by. Not of the certificates: renewing one keeps sessions.
fn fence(tls: &ListenerTls) -> Fence {
    let mut digest = Sha256::new();
    let mut part = |bytes: &[u8]| {
        digest.update((bytes.len() as u64).to_le_bytes());
        digest.update(bytes);
    };
    let mut names: Vec<&str> = tls.certificates.iter().flat_map(|c| &c.names).map(String::as_str).collect();
    names.sort_unstable();
    names.dedup();
    names.iter().for_each(|name| part(name.as_bytes()));
    part(if tls.client_ca.is_some() { b"certified by" } else { b"anybody" });
    tls.client_ca.iter().flat_map(|ca| &ca.certificates).for_each(|ca| part(ca));
    let whole: [u8; 32] = digest.finalize().into();
    std::array::from_fn(|i| whole[i])
}

/// Puts the fence in front of everything that goes in, and asks for it of everything that comes out.
#[derive(Debug)]
struct Fenced<T> {
    inner: T,
    fence: Fence,
}

impl<T> Fenced<T> {
    fn with(&self, bytes: &[u8]) -> Vec<u8> {
        [&self.fence, bytes].concat()
    }
}

impl ProducesTickets for Fenced<Arc<dyn ProducesTickets>> {
    fn enabled(&self) -> bool {
        self.inner.enabled()
    }

    fn lifetime(&self) -> u32 {
        self.inner.lifetime()
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.inner.encrypt(&self.with(plain))
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        self.inner.decrypt(cipher)?.strip_prefix(&self.fence).map(<[u8]>::to_vec)
    }
}

impl StoresServerSessions for Fenced<Arc<dyn StoresServerSessions>> {
    fn put(&self, key: Vec<u8>, value: Vec<u8>) -> bool {
        self.inner.put(self.with(&key), value)
    }

    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.inner.get(&self.with(key))
    }

    fn take(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.inner.take(&self.with(key))
    }

    fn can_cache(&self) -> bool {
        self.inner.can_cache()
    }
}
