//! The head of an answer over HTTP/2 that is awaited.
//!
//! Invariant: a request is handed back only if the endpoint itself said that it did nothing with it (RFC 9113 section
//! 8.7: REFUSED_STREAM, or a stream above a GOAWAY's last) and nothing of its body was taken.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use h2::client::ResponseFuture;
use h2::{Reason, RecvStream};
use http::{Request, Response, StatusCode, header, request};

use super::error::{SendError, SendFault};
use super::http2::Slot;
use super::http2_stream::SentStream;
use super::{INTERIM_LIMIT, SendBody};
use crate::net::body::Received;

/// See the file's head.
pub(super) struct Answer<'a, B> {
    slot: &'a mut Slot<B>,
    answer: ResponseFuture,
    /// Back to the caller if it was refused.
    kept: Option<request::Parts>,
    stream: Option<Rc<SentStream<B>>>,
    interim: &'a mut dyn FnMut(Response<()>),
    interim_count: usize,
}

impl<'a, B: SendBody> Answer<'a, B> {
    pub(super) fn new(
        slot: &'a mut Slot<B>,
        answer: ResponseFuture,
        kept: Option<request::Parts>,
        stream: Rc<SentStream<B>>,
        interim: &'a mut dyn FnMut(Response<()>),
    ) -> Self {
        Self { slot, answer, kept, stream: Some(stream), interim, interim_count: 0 }
    }

    /// Hands interim answers over; an error if there are too many or one of them is none.
    fn poll_interim(&mut self, cx: &mut Context<'_>) -> Result<(), SendError<B>> {
        while let Poll::Ready(Some(answer)) = self.answer.poll_informational(cx) {
            let answer = answer.map_err(|error| self.failed(&error))?;
            self.interim_count += 1;
            if self.interim_count > INTERIM_LIMIT {
                self.slot.retire();
                return Err(SendError::sent(SendFault::TooManyInterim));
            }
            // HTTP/2 has no switch of protocols (RFC 9113 section 8.6).
            if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
                return Err(SendError::sent(SendFault::Protocol));
            }
            (self.interim)(answer);
        }
        Ok(())
    }

    fn failed(&mut self, error: &h2::Error) -> SendError<B> {
        let Some(stream) = self.stream.take() else { return SendError::sent(SendFault::Closed) };
        if stream.has_failed() {
            return SendError::sent(SendFault::Body);
        }
        let kind = if error.is_library() { SendFault::Protocol } else { SendFault::Closed };
        let is_refused = error.is_reset() && error.reason() == Some(Reason::REFUSED_STREAM);
        if error.is_remote()
            && (is_refused || error.is_go_away())
            && let (Some(kept), Some(body)) = (self.kept.take(), stream.take_untouched())
        {
            return SendError::unsent(Request::from_parts(kept, body), kind);
        }
        SendError::sent(kind)
    }
}

impl<B: SendBody> Future for Answer<'_, B> {
    type Output = Result<Response<Received>, SendError<B>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        this.poll_interim(cx)?;
        Poll::Ready(match ready!(Pin::new(&mut this.answer).poll(cx)) {
            Ok(head) if head.status().as_u16() > 599 => Err(SendError::sent(SendFault::Protocol)),
            Ok(head) => Ok(received(head)),
            Err(error) => Err(this.failed(&error)),
        })
    }
}

fn received(head: Response<RecvStream>) -> Response<Received> {
    let length = head.headers().get(header::CONTENT_LENGTH);
    let length = length.and_then(|value| value.to_str().ok()?.parse().ok());
    head.map(|stream| Received::http2(stream, length))
}
