//! Who sets a new connection up, and who waits for it.
//!
//! Over HTTP/1.1 each request has a connection of its own. Over HTTP/2 a hundred requests that arrive while there is
//! none must not open a hundred: one of them leads, the others wait for a place on what it sets up. Invariants: if the
//! one that leads is given up, another one takes its place; a failure is everybody's who waited for it, so that nobody
//! waits in turn for the same refusal; each waits no longer than its own limit.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use tokio::sync::Notify;

use super::dial::{self, Speaks, Stream};
use super::error::DialError;
use super::http1::Http1;
use super::http2::{Http2, STREAMS};
use super::{Lease, SendBody, Settings, Upstream, ends};
use crate::config::Protocol;

/// See the file's head.
#[derive(Debug)]
pub(super) struct Setup {
    leading: Cell<usize>,
    waiting: Cell<usize>,
    /// What the endpoint chose (ALPN) the last time it was asked.
    last: Cell<Option<Speaks>>,
    /// For tunnels: it would not have HTTP/1.1 when it was asked for nothing else.
    wants_a_choice: Cell<bool>,
    /// Streams that its last connection had room for. When more requests wait, one more connection is set up.
    places: Cell<usize>,
    failures: Cell<u64>,
    failure: RefCell<Option<DialError>>,
    changed: Notify,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            leading: Cell::new(0),
            waiting: Cell::new(0),
            last: Cell::new(None),
            wants_a_choice: Cell::new(false),
            places: Cell::new(STREAMS),
            failures: Cell::new(0),
            failure: RefCell::new(None),
            changed: Notify::new(),
        }
    }
}

impl Setup {
    /// The settings have changed, or the endpoint: what is known of it is worth nothing.
    pub(super) fn forget(&self) {
        self.last.set(None);
        self.wants_a_choice.set(false);
        self.changed.notify_waiters();
    }

    #[cfg(test)]
    pub(super) fn is_waited_for(&self) -> bool {
        self.waiting.get() > 0
    }

    fn has_room_to_lead(&self) -> bool {
        self.waiting.get() >= self.leading.get() * self.places.get()
    }
}

/// A connection for one request: see the file's head. Cancel safe.
pub(super) async fn dial<B: SendBody>(upstream: &Rc<Upstream<B>>) -> Result<Lease<B>, DialError> {
    let setup = &upstream.setup;
    let failures = setup.failures.get();
    loop {
        if !may_share(upstream) {
            return connect(upstream).await;
        }
        if setup.has_room_to_lead() {
            let _leads = Leads::new(setup);
            return lead(upstream).await;
        }
        {
            let _waits = Waits::new(setup);
            setup.changed.notified().await;
        }
        if let Some(slot) = upstream.shared.slot() {
            return Ok(Lease::http2(upstream, slot, false));
        }
        if setup.failures.get() != failures
            && let Some(failure) = setup.failure.borrow().clone()
        {
            return Err(failure);
        }
    }
}

/// Whether a new connection may turn out to be HTTP/2.
fn may_share<B>(upstream: &Upstream<B>) -> bool {
    let settings = &upstream.settings.borrow().1;
    match settings.protocol {
        Protocol::Http1 => false,
        Protocol::Http2 => true,
        Protocol::Auto => settings.tls.is_some() && upstream.setup.last.get() != Some(Speaks::Http1),
    }
}

async fn lead<B: SendBody>(upstream: &Rc<Upstream<B>>) -> Result<Lease<B>, DialError> {
    let result = connect(upstream).await;
    if let Err(error) = &result {
        upstream.setup.failures.set(upstream.setup.failures.get() + 1);
        *upstream.setup.failure.borrow_mut() = Some(error.clone());
    }
    result
}

async fn connect<B: SendBody>(upstream: &Rc<Upstream<B>>) -> Result<Lease<B>, DialError> {
    let (settings, generation) = (upstream.settings.borrow().1.clone(), upstream.generation.get());
    let max_age = settings.max_age;
    let (stream, speaks) = open(upstream, settings).await?;
    upstream.setup.last.set(Some(speaks));
    match speaks {
        Speaks::Http1 => {
            Ok(Lease::http1(upstream, Http1::new(upstream, stream, (generation, ends(max_age))).await?, false))
        }
        Speaks::Http2 => {
            let connection = Http2::new(upstream, stream, ends(max_age)).await?;
            upstream.setup.places.set(connection.places().max(1));
            let slot = connection.slot().ok_or_else(|| DialError::handshake(NoStreams))?;
            if generation == upstream.generation.get() {
                upstream.shared.push(connection);
            } else {
                connection.retire();
            }
            Ok(Lease::http2(upstream, slot, false))
        }
    }
}

/// For tunnels the endpoint is asked for HTTP/1.1 alone. One that refuses, or says nothing, is asked again and given the
/// choice: it may know only HTTP/2, or no ALPN at all.
async fn open<B>(upstream: &Upstream<B>, settings: Settings) -> Result<(Stream, Speaks), DialError> {
    let has_choice = settings.protocol == Protocol::Auto && settings.tls.is_some();
    if has_choice && upstream.for_tunnels && !upstream.setup.wants_a_choice.get() {
        match dial::connect(&upstream.address, dial::http1_alone(settings.clone())).await {
            Ok((stream, speaks)) if stream.is_negotiated() => return Ok((stream, speaks)),
            Err(error) if !error.is_alert() => return Err(error),
            Ok(_) | Err(_) => upstream.setup.wants_a_choice.set(true),
        }
    }
    dial::connect(&upstream.address, settings).await
}

#[derive(Debug, thiserror::Error)]
#[error("the endpoint allows no HTTP/2 stream")]
struct NoStreams;

/// One that leads; when it stops, those that wait are woken.
struct Leads<'a>(&'a Setup);

impl<'a> Leads<'a> {
    fn new(setup: &'a Setup) -> Self {
        setup.leading.set(setup.leading.get() + 1);
        Self(setup)
    }
}

impl Drop for Leads<'_> {
    fn drop(&mut self) {
        self.0.leading.set(self.0.leading.get() - 1);
        self.0.changed.notify_waiters();
    }
}

/// One that waits.
struct Waits<'a>(&'a Setup);

impl<'a> Waits<'a> {
    fn new(setup: &'a Setup) -> Self {
        setup.waiting.set(setup.waiting.get() + 1);
        Self(setup)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.waiting.set(self.0.waiting.get() - 1);
    }
}
