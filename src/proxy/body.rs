//! An answer's body on its way to the client, wrapped so that its end is seen.
//!
//! Invariants: frames pass through unread and unbuffered, so back-pressure holds; an answer that the endpoint cut is an
//! error here too, so that hyper cuts it visibly; the in-flight claim and the upstream connection live in the response
//! body and end with it, whoever ends it.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::Sleep;

use super::client::Busy;
use super::error::ProxyError;
use super::exchange::Exchange;
use super::grpc;
use super::stall::Stall;
use super::trailers;
use super::tunnel::Agreed;
use super::upload::RequestBody;
use crate::net::body::Received;
use crate::net::upstream::Lease;

/// An answer's body on its way to the client.
pub(crate) struct Body {
    kind: Kind,
    /// Marks the client's connection busy until the body is gone.
    _busy: Option<Busy>,
}

enum Kind {
    /// Made by us.
    Full(Option<Bytes>),
    /// Boxed, because hyper moves an answer several times and this is most of it.
    Upstream(Box<AnswerBody>),
    /// None: the connection leaves HTTP after this answer.
    Tunnel(Box<Agreed>),
}

/// An endpoint's answer on its way to the client.
pub(super) struct AnswerBody {
    pub(super) incoming: Received,
    pub(super) exchange: Exchange,
    pub(super) lease: Option<Lease<RequestBody>>,
    /// The answer was odd: its connection is not used again.
    pub(super) is_odd: bool,
    /// `timeouts.total`, if there is one.
    pub(super) deadline: Option<Pin<Box<Sleep>>>,
    /// `timeouts.stall`.
    pub(super) stall: Stall,
    /// It is over, and this is to be told when all before it has gone out.
    pub(super) is_cut: Option<&'static str>,
}

/// Why an answer's body ended early; hyper only needs to know that it did.
#[derive(Debug, thiserror::Error)]
#[error("the answer was cut: {0}")]
pub(crate) struct CutBody(&'static str);

impl Body {
    pub(super) fn full(bytes: Bytes) -> Self {
        Self { kind: Kind::Full(Some(bytes).filter(|b| !b.is_empty())), _busy: None }
    }

    pub(super) fn upstream(answer: AnswerBody) -> Self {
        Self { kind: Kind::Upstream(Box::new(answer)), _busy: None }
    }

    pub(super) fn tunnel(agreed: Agreed) -> Self {
        Self { kind: Kind::Tunnel(Box::new(agreed)), _busy: None }
    }

    /// Takes out the tunnel this answer opens, if it opens one; what is left is an empty body.
    pub(super) fn take_tunnel(&mut self) -> Option<Agreed> {
        if !matches!(self.kind, Kind::Tunnel(_)) {
            return None;
        }
        let Kind::Tunnel(mut agreed) = std::mem::replace(&mut self.kind, Kind::Full(None)) else { return None };
        agreed.busy = self._busy.take();
        Some(*agreed)
    }

    /// No endpoint's.
    pub(super) fn is_ours(&self) -> bool {
        matches!(self.kind, Kind::Full(_))
    }

    /// Keeps the client's connection marked busy for as long as this body lives.
    pub(super) fn hold(mut self, busy: Busy) -> Self {
        self._busy = Some(busy);
        self
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = CutBody;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, CutBody>>> {
        match &mut self.kind {
            Kind::Full(bytes) => Poll::Ready(bytes.take().map(|b| Ok(Frame::data(b)))),
            Kind::Upstream(upstream) => upstream.poll_frame(cx),
            Kind::Tunnel(_) => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Full(bytes) => bytes.is_none(),
            Kind::Upstream(upstream) => upstream.incoming.is_end_stream(),
            Kind::Tunnel(_) => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Full(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64)),
            Kind::Upstream(upstream) => upstream.incoming.size_hint(),
            Kind::Tunnel(_) => SizeHint::with_exact(0),
        }
    }
}

impl AnswerBody {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, CutBody>>> {
        if let Some(why) = self.is_cut {
            return self.poll_cut(why);
        }
        // Before the body: one that never pauses is over at its time too.
        if self.deadline.as_mut().is_some_and(|sleep| sleep.as_mut().poll(cx).is_ready()) {
            return self.cut(ProxyError::Timeout("total"), cx);
        }
        match Pin::new(&mut self.incoming).poll_frame(cx) {
            Poll::Ready(Some(Ok(mut frame))) => {
                self.stall.progress();
                self.exchange.add_bytes_out(frame.data_ref().map_or(0, |d| d.len() as u64));
                if let Some(trailers) = frame.trailers_mut() {
                    trailers::clean_answer(trailers);
                    self.exchange.note_grpc_status(grpc::status(trailers));
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(_))) => self.cut(ProxyError::Reset, cx),
            Poll::Ready(None) => {
                self.complete();
                Poll::Ready(None)
            }
            Poll::Pending => {
                if self.stall.poll_over(cx).is_ready() {
                    return self.cut(ProxyError::Timeout("stall"), cx);
                }
                Poll::Pending
            }
        }
    }

    /// Pending at first: a library that is told of the cut drops what it has not written, the head included.
    fn cut(&mut self, why: ProxyError, cx: &Context<'_>) -> Poll<Option<Result<Frame<Bytes>, CutBody>>> {
        let why = if self.exchange.is_cut() { ProxyError::Cut } else { why };
        self.exchange.failed(why);
        self.lease = None;
        self.is_cut = Some(why.word());
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// While the client's socket is full its connection is woken by that, and cut by the tick if it stays so.
    fn poll_cut(&self, why: &'static str) -> Poll<Option<Result<Frame<Bytes>, CutBody>>> {
        if self.exchange.client().is_flushed.get() { Poll::Ready(Some(Err(CutBody(why)))) } else { Poll::Pending }
    }

    fn complete(&mut self) {
        if let Some(lease) = self.lease.take().filter(|_| !self.is_odd) {
            lease.give_back();
        }
        self.exchange.complete();
    }
}

impl Drop for AnswerBody {
    fn drop(&mut self) {
        // hyper does not poll a body again whose announced length it has had.
        if self.lease.is_some() && self.incoming.is_end_stream() {
            self.complete();
        }
    }
}
