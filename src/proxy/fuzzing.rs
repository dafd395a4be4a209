//! Doors for the fuzz targets in `fuzz/`, which are outside and may do what a client may do. Feature `fuzzing` only.
//!
//! Invariant: nothing here decides anything; what a target sees is what the data plane does.

use std::net::IpAddr;
use std::rc::Rc;

use http::{HeaderMap, HeaderValue, Version};
use tokio::net::UnixStream;

use super::headers::{self, Forwarded};
use super::plane::Parts;
use super::worker::{Shared, Worker};
use super::{arrival, connection};
use crate::config::Bind;
use crate::model::ListenerName;
use crate::net::socket::{Peer, Socket};

/// One worker on the caller's thread instead of one of its own, with connections handed to it instead of accepted.
pub struct LoneWorker {
    worker: Rc<Worker>,
    listener: ListenerName,
    address: Rc<Bind>,
}

impl std::fmt::Debug for LoneWorker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LoneWorker").field("listener", &self.listener).finish_non_exhaustive()
    }
}

impl LoneWorker {
    /// Serves the first listener of the configuration; `None` without one, or without an access log.
    ///
    /// # Panics
    /// Outside a `LocalRuntime` or `LocalSet`.
    pub fn new(parts: Parts) -> Option<Self> {
        let listener = parts.snapshot.load().config.listeners.first()?.clone();
        let Parts { snapshot, swapped, cells, access } = parts;
        let shared = Shared { snapshot, swapped, cells, pressure: Default::default() };
        let worker = Worker::new(0, 1, shared, access.into_iter().next()?);
        tokio::task::spawn_local(worker.clone().ticks());
        tokio::task::spawn_local(tokio::task::unconstrained(worker.flusher.clone().run()));
        Some(Self { worker, listener: listener.name, address: Rc::new(listener.bind.first()?.clone()) })
    }

    /// Serves one client until its connection ends.
    pub async fn serve(&self, client: UnixStream) {
        let mut socket = Socket::from(client);
        if let Some(peer) = arrival::admit(&self.worker, &self.listener, &mut socket, Peer::Unix).await {
            let local = (self.listener.clone(), self.address.clone());
            connection::serve(self.worker.clone(), socket, local, peer, ()).await;
        }
    }
}

/// A client as `prepare_request` hears of it.
#[derive(Clone, Debug)]
pub struct Sender {
    pub address: HeaderValue,
    pub host: HeaderValue,
    pub request_id: HeaderValue,
    pub is_secure: bool,
    pub is_trusted: bool,
}

/// Makes a client's header fields into those for the endpoint.
pub fn prepare_request(fields: &mut HeaderMap, received: Version, from: &Sender) {
    let forwarded = Forwarded {
        client: &from.address,
        host: &from.host,
        request_id: from.request_id.clone(),
        is_secure: from.is_secure,
        is_trusted: from.is_trusted,
    };
    headers::prepare_request(fields, received, forwarded);
}

/// The client as the trusted proxies say.
pub fn client_ip(
    fields: &HeaderMap,
    peer: Option<IpAddr>,
    is_trusted: impl Fn(Option<IpAddr>) -> bool,
) -> Option<IpAddr> {
    headers::client_ip(fields, peer, is_trusted)
}

/// The client's request id, if it is one to keep.
pub fn kept_request_id(fields: &HeaderMap, is_trusted: bool) -> Option<&HeaderValue> {
    headers::kept_request_id(fields, is_trusted)
}
