//! A message body as it comes in, whichever protocol brings it: a client's upload or an endpoint's answer.
//!
//! Invariant: nothing is buffered here; over HTTP/2 the sender's window is opened again only by what was taken out.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::RecvStream;
use hyper::body::{Body, Frame, Incoming, SizeHint};

/// See the file's head.
#[derive(Debug, Default)]
pub enum Received {
    #[default]
    None,
    Http1(Incoming),
    Http2(Http2Body),
}

/// An HTTP/2 stream's data and trailers.
#[derive(Debug)]
pub struct Http2Body {
    stream: RecvStream,
    data_ended: bool,
    /// From `content-length`; the library holds the peer to it.
    left: Option<u64>,
}

/// Why a body ended early.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    #[error(transparent)]
    Http1(#[from] hyper::Error),
    #[error(transparent)]
    Http2(#[from] h2::Error),
}

impl From<Incoming> for Received {
    fn from(incoming: Incoming) -> Self {
        if incoming.is_end_stream() { Self::None } else { Self::Http1(incoming) }
    }
}

impl Received {
    /// A stream's body; `length` is its `content-length`.
    pub fn http2(stream: RecvStream, length: Option<u64>) -> Self {
        if stream.is_end_stream() {
            Self::None
        } else {
            Self::Http2(Http2Body { stream, data_ended: false, left: length })
        }
    }

    /// Takes the HTTP/2 stream out, for a tunnel over it.
    pub fn into_http2(self) -> Option<RecvStream> {
        match self {
            Self::Http2(body) => Some(body.stream),
            Self::None | Self::Http1(_) => None,
        }
    }
}

impl Body for Received {
    type Data = Bytes;
    type Error = ReceiveError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ReceiveError>>> {
        match self.get_mut() {
            Self::None => Poll::Ready(None),
            Self::Http1(incoming) => Pin::new(incoming).poll_frame(cx).map_err(ReceiveError::from),
            Self::Http2(body) => body.poll_frame(cx).map_err(ReceiveError::from),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::None => true,
            Self::Http1(incoming) => incoming.is_end_stream(),
            Self::Http2(body) => body.stream.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::None => SizeHint::with_exact(0),
            Self::Http1(incoming) => incoming.size_hint(),
            Self::Http2(body) => body.left.map_or_else(SizeHint::default, SizeHint::with_exact),
        }
    }
}

impl Http2Body {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        if !self.data_ended {
            match ready!(self.stream.poll_data(cx)) {
                Some(Ok(data)) => {
                    // Fails only if more is given back than was taken.
                    let _ = self.stream.flow_control().release_capacity(data.len());
                    self.left = self.left.map(|left| left.saturating_sub(data.len() as u64));
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => self.data_ended = true,
            }
        }
        match ready!(self.stream.poll_trailers(cx)) {
            Ok(Some(trailers)) => Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
            Ok(None) => Poll::Ready(None),
            Err(error) => Poll::Ready(Some(Err(error))),
        }
    }
}
