//! Both bodies of an exchange, wrapped so that their end is seen.
//!
//! Invariants: frames pass through unread and unbuffered, so back-pressure holds; an answer that the endpoint cut is an
//! error here too, so that hyper cuts it visibly; the in-flight claim and the upstream connection live in the response
//! body and end with it, whoever ends it.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::Sleep;

use super::client::Busy;
use super::error::ProxyError;
use super::exchange::Exchange;
use crate::model::Instant;
use crate::net::body::{ReceiveError, Received};
use crate::net::upstream::Lease;

/// How far an upload has come.
#[derive(Debug, Default)]
pub(super) struct Upload {
    pub(super) bytes: Cell<u64>,
    /// When the endpoint had taken the last of it.
    pub(super) ended: Cell<Option<Instant>>,
}

/// A client's request body on its way to the endpoint.
#[derive(Debug)]
pub(crate) struct RequestBody(Option<(Received, Rc<Upload>)>);

impl RequestBody {
    /// A body without end yet, or none.
    pub(super) fn new(incoming: Received) -> Self {
        let is_empty = incoming.is_end_stream();
        Self((!is_empty).then(|| (incoming, Rc::default())))
    }

    /// For a request that is sent again.
    pub(super) fn none() -> Self {
        Self(None)
    }

    pub(super) fn upload(&self) -> Option<&Rc<Upload>> {
        self.0.as_ref().map(|(_, upload)| upload)
    }
}

impl HttpBody for RequestBody {
    type Data = Bytes;
    type Error = ReceiveError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ReceiveError>>> {
        let Some((incoming, upload)) = &mut self.0 else { return Poll::Ready(None) };
        let frame = std::task::ready!(Pin::new(&mut *incoming).poll_frame(cx));
        if let Some(Ok(frame)) = &frame {
            upload.bytes.set(upload.bytes.get() + frame.data_ref().map_or(0, |d| d.len() as u64));
        }
        if frame.is_none() || incoming.is_end_stream() {
            upload.ended.set(Some(Instant::now()));
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(|(incoming, _)| incoming.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.0.as_ref().map_or_else(|| SizeHint::with_exact(0), |(incoming, _)| incoming.size_hint())
    }
}

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
    Upstream(Box<Upstream>),
}

struct Upstream {
    incoming: Received,
    exchange: Exchange,
    lease: Option<Lease<RequestBody>>,
    /// The answer was odd: its connection is not used again.
    is_odd: bool,
    /// `timeouts.total`, if there is one.
    deadline: Option<Pin<Box<Sleep>>>,
}

/// Why an answer's body ended early; hyper only needs to know that it did.
#[derive(Debug, thiserror::Error)]
#[error("the answer was cut: {0}")]
pub(crate) struct CutBody(&'static str);

impl Body {
    pub(super) fn full(bytes: Bytes) -> Self {
        Self { kind: Kind::Full(Some(bytes).filter(|b| !b.is_empty())), _busy: None }
    }

    pub(super) fn upstream(
        incoming: Received,
        exchange: Exchange,
        lease: Lease<RequestBody>,
        is_odd: bool,
        deadline: Option<Pin<Box<Sleep>>>,
    ) -> Self {
        let upstream = Box::new(Upstream { incoming, exchange, lease: Some(lease), is_odd, deadline });
        Self { kind: Kind::Upstream(upstream), _busy: None }
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
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Full(bytes) => bytes.is_none(),
            Kind::Upstream(upstream) => upstream.incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Full(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64)),
            Kind::Upstream(upstream) => upstream.incoming.size_hint(),
        }
    }
}

impl Upstream {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, CutBody>>> {
        match Pin::new(&mut self.incoming).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                self.exchange.add_bytes_out(frame.data_ref().map_or(0, |d| d.len() as u64));
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(_))) => self.cut(ProxyError::Reset),
            Poll::Ready(None) => {
                self.complete();
                Poll::Ready(None)
            }
            Poll::Pending => {
                let over = self.deadline.as_mut().is_some_and(|sleep| sleep.as_mut().poll(cx).is_ready());
                if over { self.cut(ProxyError::Timeout("total")) } else { Poll::Pending }
            }
        }
    }

    fn cut(&mut self, why: ProxyError) -> Poll<Option<Result<Frame<Bytes>, CutBody>>> {
        let why = if self.exchange.endpoint_is_cut() { ProxyError::Cut } else { why };
        self.exchange.failed(why);
        self.lease = None;
        Poll::Ready(Some(Err(CutBody(why.word()))))
    }

    fn complete(&mut self) {
        if let Some(lease) = self.lease.take().filter(|_| !self.is_odd) {
            lease.give_back();
        }
        self.exchange.complete();
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        // hyper does not poll a body again whose announced length it has had.
        if self.lease.is_some() && self.incoming.is_end_stream() {
            self.complete();
        }
    }
}
