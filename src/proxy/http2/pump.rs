//! An answer's body on its way into an HTTP/2 stream.
//!
//! Invariants: at most one frame of the body is held while the client's windows are closed, so back-pressure reaches the
//! endpoint; the stream ends cleanly only if the body did; a client that opens no window for too long is cut, and one
//! that resets the stream ends the body at once.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::{Reason, SendStream};
use http_body::{Body, Frame};

use super::meter::Meter;
use super::stream::remove_connection_fields;
use crate::proxy::stall::Stall;

/// How a body ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Complete,
    /// By a reset, the client's or ours.
    Cut,
}

/// See the file's head.
pub(super) struct Pump<B> {
    stream: SendStream<Bytes>,
    body: B,
    /// What the window had no room for.
    data: Bytes,
    /// `data` is the last of the body.
    is_last: bool,
    stall: Stall,
    meter: Rc<RefCell<Meter>>,
}

impl<B: Body<Data = Bytes> + Unpin> Pump<B> {
    pub(super) fn new(stream: SendStream<Bytes>, body: B, stall: Stall, meter: &Rc<RefCell<Meter>>) -> Self {
        Self { stream, body, data: Bytes::new(), is_last: false, stall, meter: meter.clone() }
    }

    /// Ready when the stream has got the whole body, or was reset.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        loop {
            let end = match self.data.is_empty() {
                true => ready!(self.poll_body(cx)),
                false => ready!(self.poll_send(cx)),
            };
            if let Some(end) = end {
                return Poll::Ready(end);
            }
        }
    }

    /// The next frame of the body; what ends the stream is sent at once.
    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Option<End>> {
        let end = match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => self.take(frame),
            Poll::Ready(Some(Err(_))) => {
                self.stream.send_reset(Reason::INTERNAL_ERROR);
                Some(End::Cut)
            }
            Poll::Ready(None) => Some(self.send(Bytes::new(), true).map_or(End::Cut, |()| End::Complete)),
            Poll::Pending => return self.stream.poll_reset(cx).map(|_| Some(End::Cut)),
        };
        Poll::Ready(end)
    }

    fn take(&mut self, frame: Frame<Bytes>) -> Option<End> {
        match frame.into_data() {
            Ok(data) if !data.is_empty() => {
                self.is_last = self.body.is_end_stream();
                self.data = data;
                None
            }
            Ok(_) => None,
            Err(frame) => {
                let mut trailers = frame.into_trailers().ok()?;
                remove_connection_fields(&mut trailers);
                Some(self.stream.send_trailers(trailers).map_or(End::Cut, |()| End::Complete))
            }
        }
    }

    /// Sends of `data` what the windows have room for.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<Option<End>> {
        self.stream.reserve_capacity(self.data.len());
        let room = self.stream.capacity().min(self.data.len());
        if room == 0 {
            return self.poll_room(cx);
        }
        self.stall.progress();
        let data = self.data.split_to(room);
        let is_end = self.is_last && self.data.is_empty();
        Poll::Ready(match self.send(data, is_end) {
            Err(_) => Some(End::Cut),
            Ok(()) => is_end.then_some(End::Complete),
        })
    }

    /// Ready with nothing when there is room again.
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Option<End>> {
        match self.stream.poll_capacity(cx) {
            Poll::Ready(Some(Ok(_))) => Poll::Ready(None),
            Poll::Ready(_) => Poll::Ready(Some(End::Cut)),
            Poll::Pending if self.stream.poll_reset(cx).is_ready() => Poll::Ready(Some(End::Cut)),
            Poll::Pending => {
                ready!(self.stall.poll_over(cx));
                self.stream.send_reset(Reason::CANCEL);
                Poll::Ready(Some(End::Cut))
            }
        }
    }

    fn send(&mut self, data: Bytes, is_end: bool) -> Result<(), h2::Error> {
        self.meter.borrow_mut().sent(data.len());
        self.stream.send_data(data, is_end)
    }
}
