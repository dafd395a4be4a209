//! A connection that speaks HTTP/2, shared by many exchanges, over the `h2` crate.
//!
//! Invariants: it is used only after the peer's SETTINGS have come, so its limits are known from the first stream on;
//! a slot is held for as long as its stream may live; an exchange that is given up resets its stream and nothing else.
//! (So nothing here finds out that a peer is gone: its connection has a TCP user timeout, see `dial`. PINGs would do it
//! too, but gRPC servers take those for an attack.)

use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::Rc;
use std::task::{Context, Waker};
use std::time::Duration;

use bytes::Bytes;
use h2::Reason;
use h2::client::{Builder, Connection, SendRequest};
use http::uri::Scheme;
use http::{Request, Response};
use slab::Slab;
use tokio::task::JoinHandle;

use super::dial::Stream;
use super::error::{DialError, SendError, SendFault};
use super::http1::{LINGER, LINGER_BYTES};
use super::http2_answer::Answer;
use super::http2_stream::{SentStream, upload};
use super::{HEAD_LIMIT, SendBody, Upstream, http2_request};
use crate::model::{Address, Instant};

/// Streams of our own on one connection, even if the peer allows more: one packet lost delays all of them.
pub(super) const STREAMS: usize = 100;
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// What received frames of less than 256 bytes may lack to these while they wait to be read: as much as messages of five
/// bytes, the smallest of gRPC, lack that fill the connection's window. h2's own limit, half of the window, ends the
/// connection for all when one client leaves 2,000 small messages unread.
const SMALL_FRAMES: usize = 64 << 20;
/// What stands for the peer's limit of streams until its SETTINGS have come; no peer can say so (32 bits).
const UNKNOWN: usize = usize::MAX - 1;

/// See the file's head.
#[derive(Debug)]
pub(super) struct Http2 {
    sender: SendRequest<Bytes>,
    scheme: Scheme,
    open: Rc<Open>,
    held: Cell<usize>,
    /// Not used for new requests: it is over, it was told to end, or the settings have changed.
    is_closed: Cell<bool>,
    /// From the first tick that finds no stream on it.
    idle_since: Cell<Option<Instant>>,
    /// When it is too old for a new request.
    ends: Option<Instant>,
}

impl Http2 {
    /// Starts to speak over a new stream; waits for the peer's SETTINGS. Cancel safe.
    pub(super) async fn new<B: SendBody>(
        upstream: &Rc<Upstream<B>>,
        stream: Stream,
        ends: Option<Instant>,
    ) -> Result<Rc<Self>, DialError> {
        let scheme = if matches!(stream, Stream::Tls(_)) { Scheme::HTTPS } else { Scheme::HTTP };
        let (sender, mut connection) = builder().handshake(stream).await.map_err(DialError::handshake)?;
        settings(&sender, &mut connection).await?;
        let open = Rc::<Open>::default();
        let run = async move {
            // Its error reaches whoever waits for an answer.
            let _ = connection.await;
        };
        upstream.spawn(run, Some(open.clone()));
        let (held, is_closed, idle_since) = (Cell::new(0), Cell::new(false), Cell::new(None));
        Ok(Rc::new(Self { sender, scheme, open, held, is_closed, idle_since, ends }))
    }

    /// Whether new requests may use it.
    pub(super) fn is_open(&self) -> bool {
        if !self.is_closed.get() && !is_alive(&mut self.sender.clone()) {
            self.is_closed.set(true);
        }
        !self.is_closed.get()
    }

    /// No request uses it from now on; those that do go on.
    pub(super) fn retire(&self) {
        self.is_closed.set(true);
    }

    /// A place for one more stream, if there is one.
    pub(super) fn slot<B: SendBody>(self: &Rc<Self>) -> Option<Slot<B>> {
        (self.held.get() < self.places() && self.is_open()).then(|| {
            self.held.set(self.held.get() + 1);
            self.idle_since.set(None);
            Slot { connection: self.clone(), stream: None, place: None, upload: None, is_done: false }
        })
    }

    /// Streams that may be on it at a time.
    pub(super) fn places(&self) -> usize {
        self.sender.current_max_send_streams().min(STREAMS)
    }

    /// How long no stream has been on it, as far as ticks have seen; `None` while there are some.
    pub(super) fn idle_for(&self, now: Instant) -> Option<Duration> {
        if self.held.get() > 0 {
            return None;
        }
        let since = self.idle_since.get().unwrap_or(now);
        self.idle_since.set(Some(since));
        Some(now.duration_since(since))
    }
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder
        .enable_push(false)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .data_frame_budget(SMALL_FRAMES)
        .max_header_list_size(HEAD_LIMIT as u32)
        .max_send_buffer_size(STREAM_WINDOW as usize)
        .max_concurrent_reset_streams(STREAMS)
        .initial_max_send_streams(UNKNOWN);
    builder
}

/// Waits for the peer's SETTINGS, without which it is not known whether it speaks HTTP/2 at all.
async fn settings(sender: &SendRequest<Bytes>, connection: &mut Connection<Stream, Bytes>) -> Result<(), DialError> {
    std::future::poll_fn(|cx| {
        let over = std::pin::Pin::new(&mut *connection).poll(cx);
        if sender.current_max_send_streams() != UNKNOWN {
            return std::task::Poll::Ready(Ok(()));
        }
        over.map(|over| Err(over.map_or_else(DialError::handshake, |()| DialError::handshake(Ended))))
    })
    .await
}

#[derive(Debug, thiserror::Error)]
#[error("the connection ended before the peer's SETTINGS")]
struct Ended;

/// Neither over nor told to end, and not out of stream numbers.
fn is_alive(sender: &mut SendRequest<Bytes>) -> bool {
    // A fresh clone is never made to wait.
    !matches!(sender.poll_ready(&mut Context::from_waker(Waker::noop())), std::task::Poll::Ready(Err(_)))
}

/// A place for one stream, and the stream.
#[derive(Debug)]
pub(super) struct Slot<B> {
    connection: Rc<Http2>,
    stream: Option<Rc<SentStream<B>>>,
    /// Among those that a cut ends.
    place: Option<usize>,
    upload: Option<JoinHandle<()>>,
    /// Read to its end, or handed over as a tunnel.
    is_done: bool,
}

impl<B: SendBody> Slot<B> {
    /// Sends a request; the future is the head of its answer.
    pub(super) fn send<'a>(
        &'a mut self,
        request: Request<B>,
        address: &Address,
        interim: &'a mut dyn FnMut(Response<()>),
    ) -> Result<Answer<'a, B>, SendError<B>> {
        let connection = self.connection.clone();
        let is_tunnel = request.extensions().get::<h2::ext::Protocol>().is_some();
        if is_tunnel && !connection.sender.is_extended_connect_protocol_enabled() {
            return Err(SendError::unsent(request, SendFault::NoExtendedConnect));
        }
        let Some(head) = http2_request::head(&request, connection.scheme.clone(), address) else {
            return Err(SendError::unsent(request, SendFault::Protocol));
        };
        let mut sender = connection.sender.clone();
        if !is_alive(&mut sender) {
            connection.retire();
            return Err(SendError::unsent(request, SendFault::Closed));
        }
        let (kept, body) = request.into_parts();
        let has_body = !body.is_end_stream() && !is_tunnel;
        let Ok((answer, stream)) = sender.send_request(head, !has_body && !is_tunnel) else {
            // A field that HTTP/2 has no way to say: nothing was sent.
            return Err(SendError::unsent(Request::from_parts(kept, body), SendFault::Protocol));
        };
        let stream = Rc::new(SentStream::new(stream, body));
        if has_body {
            self.upload = Some(tokio::task::spawn_local(upload(stream.clone())));
        }
        self.stream = Some(stream.clone());
        self.place = Some(connection.open.enter(stream.clone()));
        Ok(Answer::new(self, answer, Some(kept), stream, interim))
    }

    /// New requests do not use this connection.
    pub(super) fn retire(&self) {
        self.connection.retire();
    }

    /// The answer was read to its end. An upload that was answered early may go on for a moment.
    pub(super) fn give_back(mut self) {
        match self.upload.take() {
            Some(mut upload) if !upload.is_finished() => {
                if let Some(stream) = &self.stream {
                    stream.allow(LINGER_BYTES);
                }
                tokio::task::spawn_local(async move {
                    let mut slot = self;
                    slot.is_done = tokio::time::timeout(LINGER, &mut upload).await.is_ok();
                    // Else the end of the slot resets the stream.
                    slot.upload = Some(upload);
                });
            }
            _ => self.is_done = true,
        }
    }

    /// Takes the sending half out, for a tunnel; the slot stays with it.
    pub(super) fn take_stream(&mut self) -> Option<h2::SendStream<Bytes>> {
        self.is_done = true;
        self.place.take().into_iter().for_each(|place| self.connection.open.leave(place));
        self.stream.take().and_then(|stream| stream.take())
    }
}

impl<B> Drop for Slot<B> {
    fn drop(&mut self) {
        self.connection.held.set(self.connection.held.get().saturating_sub(1));
        self.place.take().into_iter().for_each(|place| self.connection.open.leave(place));
        if self.is_done {
            return;
        }
        if let Some(upload) = self.upload.take() {
            upload.abort();
        }
        if let Some(stream) = self.stream.take() {
            stream.reset(Reason::CANCEL);
        }
    }
}

/// The streams of a connection that are exchanges and no tunnels.
#[derive(Default)]
pub(super) struct Open(RefCell<Slab<Rc<dyn Cut>>>);

impl fmt::Debug for Open {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Open({})", self.0.borrow().len())
    }
}

impl Open {
    fn enter(&self, stream: Rc<dyn Cut>) -> usize {
        self.0.borrow_mut().insert(stream)
    }

    fn leave(&self, place: usize) {
        self.0.borrow_mut().try_remove(place);
    }

    /// Resets them all; whoever waits for one is woken and finds it so.
    pub(super) fn cut(&self) {
        self.0.borrow().iter().for_each(|(_, stream)| stream.cut());
    }
}

/// What is the same of streams with any body.
trait Cut {
    fn cut(&self);
}

impl<B: SendBody> Cut for SentStream<B> {
    fn cut(&self) {
        self.reset(Reason::CANCEL);
    }
}

/// The connections to one endpoint that speak HTTP/2. One is filled before the next is used.
#[derive(Debug, Default)]
pub(super) struct Shared(RefCell<Vec<Rc<Http2>>>);

impl Shared {
    pub(super) fn slot<B: SendBody>(&self) -> Option<Slot<B>> {
        self.0.borrow().iter().find_map(Http2::slot)
    }

    pub(super) fn push(&self, connection: Rc<Http2>) {
        self.0.borrow_mut().push(connection);
    }

    /// Lets go of those that must not be used, or have been idle for too long. Their last stream ends them.
    pub(super) fn tidy(&self, now: Instant, idle_limit: Option<Duration>, draining: bool) {
        let keeps = |connection: &Rc<Http2>| {
            connection.is_open()
                && connection.ends.is_none_or(|ends| now < ends)
                && connection.idle_for(now).is_none_or(|idle| !draining && idle_limit.is_none_or(|limit| idle < limit))
        };
        let gone: Vec<_> = self.0.borrow_mut().extract_if(.., |connection| !keeps(connection)).collect();
        gone.iter().for_each(|connection| connection.retire());
    }

    /// None of them is used for new requests.
    pub(super) fn retire_all(&self) {
        self.0.take().iter().for_each(|connection| connection.retire());
    }
}
