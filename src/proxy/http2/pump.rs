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
    /// By a reset of ours: the body failed, or the client took nothing of it.
    Cut,
    /// By the client, or with its connection.
    Cancelled,
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
            Poll::Ready(None) => Some(self.send(Bytes::new(), true).map_or(End::Cancelled, |()| End::Complete)),
            Poll::Pending => return self.stream.poll_reset(cx).map(|_| Some(End::Cancelled)),
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
                Some(self.stream.send_trailers(trailers).map_or(End::Cancelled, |()| End::Complete))
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
            Err(_) => Some(End::Cancelled),
            Ok(()) => is_end.then_some(End::Complete),
        })
    }

    /// Ready with nothing when there is room again.
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Option<End>> {
        match self.stream.poll_capacity(cx) {
            Poll::Ready(Some(Ok(_))) => Poll::Ready(None),
            Poll::Ready(_) => Poll::Ready(Some(End::Cancelled)),
            Poll::Pending if self.stream.poll_reset(cx).is_ready() => Poll::Ready(Some(End::Cancelled)),
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

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::time::Duration;

    use http::HeaderMap;
    use http_body_util::{BodyExt, Full};
    use tokio::io::DuplexStream;

    use super::*;
    use crate::model::Instant;
    use crate::proxy::clock::Clock;
    use crate::proxy::stall::Stalls;

    type Client = h2::client::SendRequest<Bytes>;

    /// The server's half of an answered stream, the client's half, and what must live as long.
    async fn pair() -> (SendStream<Bytes>, h2::RecvStream, Client) {
        let (ours, theirs): (DuplexStream, _) = tokio::io::duplex(1 << 20);
        let serve = async {
            let mut connection = h2::server::handshake(theirs).await.unwrap();
            let (_, mut respond) = connection.accept().await.unwrap().unwrap();
            let send = respond.send_response(http::Response::new(()), false).unwrap();
            tokio::spawn(async move { while connection.accept().await.is_some() {} });
            send
        };
        let ask = async {
            let (mut client, connection) = h2::client::handshake(ours).await.unwrap();
            tokio::spawn(connection);
            let request = http::Request::get("http://app.test/").body(()).unwrap();
            let (answer, _) = client.send_request(request, true).unwrap();
            (answer.await.unwrap().into_body(), client)
        };
        let ((received, client), send) = tokio::join!(ask, serve);
        (send, received, client)
    }

    struct Setup {
        clock: Rc<Clock>,
        stalls: Rc<Stalls>,
        meter: Rc<RefCell<Meter>>,
    }

    fn setup() -> Setup {
        let clock = Rc::new(Clock::new());
        Setup {
            stalls: Stalls::new(clock.clone()),
            clock,
            meter: Rc::new(RefCell::new(Meter::new(Instant::now(), 100))),
        }
    }

    impl Setup {
        async fn pump<B: Body<Data = Bytes> + Unpin>(&self, stream: SendStream<Bytes>, body: B) -> End {
            let stall = Stall::new(&self.stalls, Some(Duration::from_secs(30)));
            let mut pump = Pump::new(stream, body, stall, &self.meter);
            std::future::poll_fn(|cx| pump.poll(cx)).await
        }

        async fn ticks(&self) {
            loop {
                tokio::time::sleep(Duration::from_millis(100)).await;
                self.clock.tick();
                self.stalls.look();
            }
        }
    }

    async fn all(received: &mut h2::RecvStream) -> Result<usize, h2::Error> {
        let mut length = 0;
        while let Some(data) = received.data().await {
            length += data.as_ref().map_or(0, Bytes::len);
            received.flow_control().release_capacity(data?.len())?;
        }
        Ok(length)
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_without_a_window_is_cut_after_the_limit_and_not_before() {
        let (stream, mut received, _client) = pair().await;
        let (setup, begun) = (setup(), Instant::now());
        let body = Full::new(Bytes::from(vec![1; 200_000]));
        let end = tokio::select! {
            end = setup.pump(stream, body) => end,
            () = setup.ticks() => unreachable!("runs for ever"),
        };
        assert_eq!(end, End::Cut);
        assert!((30.0..30.5).contains(&begun.elapsed().as_secs_f64()), "{:?}", begun.elapsed());
        assert_eq!(all(&mut received).await.unwrap_err().reason(), Some(Reason::CANCEL));
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_client_is_not_cut() {
        let (stream, mut received, _client) = pair().await;
        let setup = setup();
        let body = Full::new(Bytes::from(vec![1; 1_000_000]));
        let slow = async {
            let mut length = 0;
            while let Some(data) = received.data().await {
                let data = data.unwrap();
                tokio::time::sleep(Duration::from_secs(5)).await;
                received.flow_control().release_capacity(data.len()).unwrap();
                length += data.len();
            }
            length
        };
        let (end, length) = tokio::select! {
            done = async { tokio::join!(setup.pump(stream, body), slow) } => done,
            () = setup.ticks() => unreachable!("runs for ever"),
        };
        assert_eq!((end, length), (End::Complete, 1_000_000));
    }

    #[tokio::test]
    async fn trailers_end_a_body_without_what_belongs_to_a_connection() {
        let (stream, mut received, _client) = pair().await;
        let trailers = HeaderMap::from_iter([
            (http::HeaderName::from_static("grpc-status"), http::HeaderValue::from_static("0")),
            (http::header::CONNECTION, http::HeaderValue::from_static("close")),
        ]);
        let body = Full::new(Bytes::from_static(b"hello")).with_trailers(async { Some(Ok::<_, Infallible>(trailers)) });
        let setup = setup();
        let (end, length) = tokio::join!(setup.pump(stream, Box::pin(body)), all(&mut received));
        assert_eq!((end, length.unwrap()), (End::Complete, 5));
        let trailers = received.trailers().await.unwrap().unwrap();
        assert_eq!((trailers.len(), &trailers["grpc-status"]), (1, &http::HeaderValue::from_static("0")));
    }

    /// Two bytes, then an error; has it given the bytes?
    struct Failing(bool);

    impl Body for Failing {
        type Data = Bytes;
        type Error = &'static str;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, &'static str>>> {
            let has_given = std::mem::replace(&mut self.0, true);
            Poll::Ready(Some(if has_given { Err("cut") } else { Ok(Frame::data(Bytes::from_static(b"ab"))) }))
        }
    }

    #[tokio::test]
    async fn a_body_that_fails_is_a_reset() {
        let (stream, mut received, _client) = pair().await;
        assert_eq!(setup().pump(stream, Failing(false)).await, End::Cut);
        assert_eq!(all(&mut received).await.unwrap_err().reason(), Some(Reason::INTERNAL_ERROR));
    }
}
