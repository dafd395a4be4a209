//! A client's request body on its way to an endpoint: passed on as it comes, counted, bounded, and kept for another
//! attempt as long as it is small.
//!
//! Why one shared source and several readers: an attempt that failed leaves its reader in the hands of the HTTP library,
//! and the next attempt must go on where the client is. Invariants: only the newest reader gets anything, so a body is
//! never divided between two endpoints; a body that did not come to its end is an error for the reader, so that the
//! endpoint never sees it completed (faults.md 2.3).

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::Sleep;

use super::client::Client;
use super::stall::Stall;
use super::trailers;
use crate::model::Instant;
use crate::net::body::{ReceiveError, Received};

/// How long a client that asked first is kept waiting for the endpoint's `100 Continue` (RFC 9110 section 10.1.1).
const CONTINUE: Duration = Duration::from_secs(1);

/// Bounds of one upload.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// `limits.body_bytes`.
    pub(super) bytes: Option<u64>,
    /// What is kept for another attempt; 0 = nothing.
    pub(super) kept: usize,
}

/// What went wrong with it, on the client's side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Broken {
    TooLarge,
    /// Nothing came for `timeouts.body`.
    Timeout,
    /// The client went away, or what it sent was malformed.
    Client,
}

/// See the file's head.
#[derive(Debug)]
pub(super) struct Upload {
    source: RefCell<Received>,
    stall: RefCell<Stall>,
    kept: RefCell<Kept>,
    bounds: Bounds,
    /// The connection, over HTTP/1.1.
    client: Option<Rc<Client>>,
    reader: Cell<u32>,
    hold: RefCell<Option<Hold>>,
    pub(super) bytes: Cell<u64>,
    /// When the endpoint had taken the last of it.
    pub(super) ended: Cell<Option<Instant>>,
    pub(super) broken: Cell<Option<Broken>>,
}

/// What was read so far, or nothing once it is too much.
#[derive(Debug)]
struct Kept {
    pieces: Vec<Piece>,
    bytes: usize,
    is_whole: bool,
}

#[derive(Clone, Debug)]
enum Piece {
    Data(Bytes),
    Trailers(HeaderMap),
}

/// Until the endpoint wants the body.
#[derive(Debug)]
struct Hold {
    until: Pin<Box<Sleep>>,
    reader: Waker,
}

/// A request's body as the HTTP library takes it.
#[derive(Debug, Default)]
pub(crate) struct RequestBody(Option<Reader>);

#[derive(Debug)]
struct Reader {
    upload: Rc<Upload>,
    number: u32,
    /// Pieces taken from what is kept.
    at: usize,
}

/// Why a request body ended early.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UploadError {
    #[error(transparent)]
    Receive(#[from] ReceiveError),
    #[error("the body is larger than limits.body_bytes")]
    TooLarge,
    #[error("the client sent nothing for timeouts.body")]
    Timeout,
    #[error("the trailers end in the middle of a line")]
    Trailers,
    #[error("another attempt has taken over")]
    Superseded,
}

impl Upload {
    /// `None` if there is no body. `client` is its connection if that speaks HTTP/1.1.
    pub(super) fn new(source: Received, client: Option<Rc<Client>>, stall: Stall, bounds: Bounds) -> Option<Rc<Self>> {
        (!source.is_end_stream()).then(|| {
            Rc::new(Self {
                source: RefCell::new(source),
                stall: RefCell::new(stall),
                kept: RefCell::new(Kept { pieces: Vec::new(), bytes: 0, is_whole: bounds.kept > 0 }),
                bounds,
                client,
                reader: Cell::new(0),
                hold: RefCell::new(None),
                bytes: Cell::new(0),
                ended: Cell::new(None),
                broken: Cell::new(None),
            })
        })
    }

    /// It can be sent again from the start.
    pub(super) fn is_replayable(&self) -> bool {
        self.broken.get().is_none() && (self.kept.borrow().is_whole || self.bytes.get() == 0)
    }

    /// A body for the next attempt; earlier ones are cut.
    pub(super) fn reader(self: &Rc<Self>) -> RequestBody {
        let number = self.reader.get() + 1;
        self.reader.set(number);
        RequestBody(Some(Reader { upload: self.clone(), number, at: 0 }))
    }

    /// Not read until `go_on`, or for a second: the client waits for `100 Continue` before it sends.
    pub(super) fn wait_for_continue(&self) {
        let until = Box::pin(tokio::time::sleep(CONTINUE));
        *self.hold.borrow_mut() = Some(Hold { until, reader: Waker::noop().clone() });
    }

    /// It still waits to be asked for.
    pub(super) fn is_held(&self) -> bool {
        self.hold.borrow().is_some()
    }

    /// The endpoint wants the body.
    pub(super) fn go_on(&self) {
        if let Some(hold) = self.hold.borrow_mut().take() {
            hold.reader.wake();
        }
    }

    fn poll_held(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut held = self.hold.borrow_mut();
        if let Some(hold) = held.as_mut() {
            hold.reader.clone_from(cx.waker());
            ready!(hold.until.as_mut().poll(cx));
            *held = None;
        }
        Poll::Ready(())
    }

    fn poll_source(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Piece, UploadError>>> {
        ready!(self.poll_held(cx));
        let polled = Pin::new(&mut *self.source.borrow_mut()).poll_frame(cx);
        if polled.is_pending() {
            ready!(self.stall.borrow_mut().poll_over(cx));
            return Poll::Ready(Some(Err(self.breaks(Broken::Timeout, UploadError::Timeout))));
        }
        self.stall.borrow().progress();
        match ready!(polled) {
            Some(Ok(frame)) => Poll::Ready(Some(self.take(frame))),
            Some(Err(error)) => Poll::Ready(Some(Err(self.breaks(Broken::Client, error.into())))),
            None => Poll::Ready(None),
        }
    }

    fn take(&self, frame: Frame<Bytes>) -> Result<Piece, UploadError> {
        let piece = match frame.into_data() {
            Ok(data) => Piece::Data(data),
            Err(frame) => Piece::Trailers(self.checked(frame.into_trailers().unwrap_or_default())?),
        };
        if let Piece::Data(data) = &piece {
            let bytes = self.bytes.get() + data.len() as u64;
            self.bytes.set(bytes);
            if self.bounds.bytes.is_some_and(|limit| bytes > limit) {
                return Err(self.breaks(Broken::TooLarge, UploadError::TooLarge));
            }
        }
        self.kept.borrow_mut().keep(&piece, self.bounds.kept);
        Ok(piece)
    }

    /// hyper takes a LF for the end of a line of trailers, and what follows for more of them, to the next CRLF CRLF: after
    /// trailers it is not certain where the next request begins, so there is none. Of an end that is no CRLF nothing is left.
    fn checked(&self, mut trailers: HeaderMap) -> Result<HeaderMap, UploadError> {
        if let Some(client) = &self.client {
            client.finish();
            if trailers.is_empty() {
                return Err(self.breaks(Broken::Client, UploadError::Trailers));
            }
        }
        trailers::clean_request(&mut trailers);
        Ok(trailers)
    }

    fn breaks(&self, how: Broken, error: UploadError) -> UploadError {
        self.broken.set(Some(how));
        error
    }
}

impl Kept {
    fn keep(&mut self, piece: &Piece, limit: usize) {
        if let Piece::Data(data) = piece {
            self.bytes += data.len();
        }
        if self.is_whole && self.bytes <= limit {
            self.pieces.push(piece.clone());
        } else {
            (self.is_whole, self.pieces) = (false, Vec::new());
        }
    }

    fn left_after(&self, at: usize) -> u64 {
        let data = |piece: &Piece| if let Piece::Data(data) = piece { data.len() as u64 } else { 0 };
        self.pieces.iter().skip(at).map(data).sum()
    }
}

impl Reader {
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Piece, UploadError>>> {
        let upload = &self.upload;
        if self.number != upload.reader.get() {
            return Poll::Ready(Some(Err(UploadError::Superseded)));
        }
        let kept = upload.kept.borrow().pieces.get(self.at).cloned();
        let piece = match kept {
            Some(piece) => Some(Ok(piece)),
            None => ready!(upload.poll_source(cx)),
        };
        // Right also when nothing is kept: then there is nothing to be taken from there.
        self.at += 1;
        if piece.is_none() || self.is_at_end() {
            upload.ended.set(Some(Instant::now()));
        }
        Poll::Ready(piece)
    }

    fn is_at_end(&self) -> bool {
        self.upload.source.borrow().is_end_stream() && self.at >= self.upload.kept.borrow().pieces.len()
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = UploadError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, UploadError>>> {
        let Some(reader) = &mut self.0 else { return Poll::Ready(None) };
        let frame = |piece| match piece {
            Piece::Data(data) => Frame::data(data),
            Piece::Trailers(trailers) => Frame::trailers(trailers),
        };
        reader.poll_piece(cx).map_ok(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(Reader::is_at_end)
    }

    fn size_hint(&self) -> SizeHint {
        let Some(reader) = &self.0 else { return SizeHint::with_exact(0) };
        let source = reader.upload.source.borrow().size_hint();
        let kept = reader.upload.kept.borrow().left_after(reader.at);
        source.exact().map_or_else(SizeHint::default, |left| SizeHint::with_exact(left + kept))
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;
    use crate::proxy::clock::Clock;
    use crate::proxy::stall::Stalls;

    /// A stream's body, and the hand that sends it.
    async fn incoming(announced: bool) -> (Received, h2::SendStream<Bytes>, tokio::task::JoinHandle<()>) {
        let (near, far) = tokio::io::duplex(1 << 20);
        let (server, client) = tokio::join!(h2::server::handshake(near), h2::client::handshake(far));
        let (mut server, (client, connection)) = (server.unwrap(), client.unwrap());
        tokio::spawn(async move { drop(connection.await) });
        let mut client = client.ready().await.unwrap();
        let request = http::Request::post("http://a/");
        let request = if announced { request.header("content-length", 6) } else { request };
        let (_, hand) = client.send_request(request.body(()).unwrap(), false).unwrap();
        let (request, respond) = server.accept().await.unwrap().unwrap();
        let task = tokio::spawn(async move {
            let _hold = (client, respond);
            while server.accept().await.is_some() {}
        });
        (Received::http2(request.into_body(), announced.then_some(6)), hand, task)
    }

    fn upload(source: Received, bounds: Bounds) -> Rc<Upload> {
        let stalls = Stalls::new(Rc::new(Clock::new()));
        Upload::new(source, None, Stall::new(&stalls, None), bounds).unwrap()
    }

    #[tokio::test]
    async fn a_small_body_is_sent_again_from_the_start() {
        let (source, mut hand, task) = incoming(true).await;
        let upload = upload(source, Bounds { bytes: None, kept: 6 });
        hand.send_data("abc".into(), false).unwrap();
        let mut first = upload.reader();
        assert_eq!(first.frame().await.unwrap().unwrap().into_data().unwrap(), "abc");
        assert!(upload.is_replayable());
        let second = upload.reader();
        assert_eq!(second.size_hint().exact(), Some(6));
        assert!(matches!(first.frame().await.unwrap(), Err(UploadError::Superseded)));
        hand.send_data("def".into(), true).unwrap();
        assert_eq!(second.collect().await.unwrap().to_bytes(), "abcdef");
        assert!(upload.ended.get().is_some());
        assert_eq!(upload.bytes.get(), 6);
        task.abort();
    }

    #[tokio::test]
    async fn a_large_one_is_not_kept_and_one_over_the_limit_breaks() {
        let (source, mut hand, task) = incoming(false).await;
        let upload = upload(source, Bounds { bytes: Some(5), kept: 4 });
        let mut body = upload.reader();
        hand.send_data("abcde".into(), false).unwrap();
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "abcde");
        assert!(!upload.is_replayable());
        hand.send_data("f".into(), true).unwrap();
        assert!(matches!(body.frame().await.unwrap(), Err(UploadError::TooLarge)));
        assert_eq!(upload.broken.get(), Some(Broken::TooLarge));
        task.abort();
    }

    #[tokio::test]
    async fn trailers_are_kept_too_and_a_reset_is_an_error() {
        let (source, mut hand, task) = incoming(false).await;
        let kept = upload(source, Bounds { bytes: None, kept: 100 });
        hand.send_data("a".into(), false).unwrap();
        let forged = (http::HeaderName::from_static("x-forwarded-for"), "6.6.6.6".parse().unwrap());
        hand.send_trailers(HeaderMap::from_iter([(http::header::ETAG, "x".parse().unwrap()), forged])).unwrap();
        for _ in 0..2 {
            let whole = kept.reader().collect().await.unwrap();
            assert_eq!(whole.trailers().unwrap()["etag"], "x");
            assert_eq!(whole.trailers().unwrap().len(), 1);
            assert_eq!(whole.to_bytes(), "a");
        }
        task.abort();
        let (source, mut hand, task) = incoming(false).await;
        let cut = upload(source, Bounds { bytes: None, kept: 100 });
        hand.send_reset(h2::Reason::CANCEL);
        assert!(cut.reader().collect().await.is_err());
        assert_eq!(cut.broken.get(), Some(Broken::Client));
        task.abort();
    }

    #[tokio::test]
    async fn a_client_that_asks_first_is_read_when_the_endpoint_agrees() {
        let (source, mut hand, task) = incoming(false).await;
        let upload = upload(source, Bounds { bytes: None, kept: 0 });
        upload.wait_for_continue();
        hand.send_data("a".into(), true).unwrap();
        let mut body = upload.reader();
        let early = tokio::select! { biased; frame = body.frame() => Some(frame), () = std::future::ready(()) => None };
        assert!(early.is_none());
        upload.go_on();
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "a");
        task.abort();
    }
}
