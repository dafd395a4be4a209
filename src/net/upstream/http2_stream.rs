//! The sending half of an HTTP/2 stream, and the task that sends a request's body over it.
//!
//! Invariants: a body is not touched before there is room to send a byte of it; never more is taken out of it than one
//! frame ahead of the peer's window; a body that fails resets its stream, so that a cut upload is never completed
//! (faults.md 2.3).

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::{Reason, SendStream};
use http::HeaderMap;
use hyper::body::Frame;

use super::SendBody;

/// See the file's head. Shared by the exchange and its upload; neither holds a borrow across an await.
#[derive(Debug)]
pub(super) struct SentStream<B> {
    /// Taken by a tunnel.
    send: RefCell<Option<SendStream<Bytes>>>,
    /// Taken back if the stream was refused.
    body: RefCell<Option<B>>,
    is_touched: Cell<bool>,
    /// Bytes that may still be sent.
    allowance: Cell<usize>,
    has_failed: Cell<bool>,
}

/// The stream is over: reset, or its connection has ended. Whoever waits for the answer learns why.
struct Gone;

impl<B> SentStream<B> {
    pub(super) fn new(stream: SendStream<Bytes>, body: B) -> Self {
        let (send, body) = (RefCell::new(Some(stream)), RefCell::new(Some(body)));
        let (is_touched, has_failed) = (Cell::new(false), Cell::new(false));
        Self { send, body, is_touched, has_failed, allowance: Cell::new(usize::MAX) }
    }

    /// Takes the body back, if nothing was taken out of it.
    pub(super) fn take_untouched(&self) -> Option<B> {
        if self.is_touched.get() { None } else { self.body.borrow_mut().take() }
    }

    /// The request's body has failed.
    pub(super) fn has_failed(&self) -> bool {
        self.has_failed.get()
    }

    /// From now on at most so many bytes are sent; then the upload ends, incomplete.
    pub(super) fn allow(&self, bytes: usize) {
        self.allowance.set(bytes);
    }

    pub(super) fn reset(&self, reason: Reason) {
        if let Some(stream) = &mut *self.send.borrow_mut() {
            stream.send_reset(reason);
        }
    }

    pub(super) fn take(&self) -> Option<SendStream<Bytes>> {
        self.send.borrow_mut().take()
    }

    fn with<T>(&self, f: impl FnOnce(&mut SendStream<Bytes>) -> Poll<Result<T, Gone>>) -> Poll<Result<T, Gone>> {
        match &mut *self.send.borrow_mut() {
            Some(stream) => f(stream),
            None => Poll::Ready(Err(Gone)),
        }
    }

    /// Waits for room for at least one byte, of `wanted`.
    async fn room(&self, wanted: usize) -> Result<usize, Gone> {
        let _ = self.with(|stream| {
            stream.reserve_capacity(wanted);
            Poll::Ready(Ok(()))
        });
        std::future::poll_fn(|cx| self.with(|stream| poll_room(stream, cx))).await
    }

    fn send(&self, data: Bytes, is_last: bool) -> Result<(), Gone> {
        let Some(left) = self.allowance.get().checked_sub(data.len()) else {
            self.reset(Reason::CANCEL);
            return Err(Gone);
        };
        self.allowance.set(left);
        now(self.with(|stream| Poll::Ready(stream.send_data(data, is_last).map_err(|_| Gone))))
    }

    fn send_trailers(&self, trailers: HeaderMap) -> Result<(), Gone> {
        now(self.with(|stream| Poll::Ready(stream.send_trailers(trailers).map_err(|_| Gone))))
    }
}

fn now<T>(poll: Poll<Result<T, Gone>>) -> Result<T, Gone> {
    match poll {
        Poll::Ready(result) => result,
        Poll::Pending => Err(Gone),
    }
}

fn poll_room(stream: &mut SendStream<Bytes>, cx: &mut Context<'_>) -> Poll<Result<usize, Gone>> {
    loop {
        // `poll_capacity` tells of changes only.
        let room = stream.capacity();
        if room > 0 {
            return Poll::Ready(Ok(room));
        }
        match ready!(stream.poll_capacity(cx)) {
            Some(Ok(_)) => {}
            Some(Err(_)) | None => return Poll::Ready(Err(Gone)),
        }
    }
}

impl<B: SendBody> SentStream<B> {
    /// The next frame of the body; an end of the stream ends the wait for one.
    fn poll_frame(&self, cx: &mut Context<'_>) -> Poll<Result<Option<Frame<Bytes>>, Gone>> {
        let is_gone = self.with(|stream| stream.poll_reset(cx).map(|_| Err::<(), _>(Gone)));
        if is_gone.is_ready() {
            return Poll::Ready(Err(Gone));
        }
        let mut body = self.body.borrow_mut();
        let Some(body) = &mut *body else { return Poll::Ready(Err(Gone)) };
        self.is_touched.set(true);
        match ready!(Pin::new(body).poll_frame(cx)).transpose() {
            Ok(frame) => Poll::Ready(Ok(frame)),
            Err(_) => {
                self.has_failed.set(true);
                self.reset(Reason::CANCEL);
                Poll::Ready(Err(Gone))
            }
        }
    }

    async fn send_all(&self) -> Result<(), Gone> {
        loop {
            self.room(1).await?;
            let Some(frame) = std::future::poll_fn(|cx| self.poll_frame(cx)).await? else {
                return self.send(Bytes::new(), true);
            };
            match frame.into_data() {
                Ok(data) => {
                    let is_last = self.body.borrow().as_ref().is_none_or(B::is_end_stream);
                    self.send_chunk(data, is_last).await?;
                    if is_last {
                        return Ok(());
                    }
                }
                // There is no third kind of frame.
                Err(frame) => return self.send_trailers(frame.into_trailers().unwrap_or_default()),
            }
        }
    }

    async fn send_chunk(&self, mut data: Bytes, is_last: bool) -> Result<(), Gone> {
        if data.is_empty() && is_last {
            return self.send(data, true);
        }
        while !data.is_empty() {
            let room = self.room(data.len()).await?;
            let part = data.split_to(room.min(data.len()));
            self.send(part, is_last && data.is_empty())?;
        }
        Ok(())
    }
}

/// Sends a request's body to its end or its stream's.
pub(super) async fn upload<B: SendBody>(stream: Rc<SentStream<B>>) {
    // Why it ended early is told by the answer.
    let _ = stream.send_all().await;
}
