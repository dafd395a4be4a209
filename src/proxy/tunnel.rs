//! A tunnel between a client and an endpoint, after a handshake both have agreed to: bytes both ways until one side ends,
//! or weir ends it.
//!
//! All tunnels are WebSockets (`websocket`), so that weir can say goodbye on both sides: a close frame, then the side's
//! own for a short while, then the end. Invariant: the exchange, and with it the in-flight claim, lives as long as the
//! tunnel.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use h2::RecvStream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use super::client::Busy;
use super::exchange::Exchange;
use super::flow::Flow;
use super::leaving::{Leaving, Order};
use super::ws_frames;
use crate::model::Instant;
use crate::net::upstream::Tunnel;

/// What a tunnel is made of, once the endpoint has agreed.
pub(super) struct Agreed {
    pub(super) endpoint: Tunnel,
    pub(super) exchange: Exchange,
    pub(super) leaving: Leaving,
    /// The client's half, if it comes over HTTP/2.
    pub(super) stream: Option<RecvStream>,
    pub(super) busy: Option<Busy>,
}

/// Carries bytes until both sides have ended, one has failed, or it is told to end and has. `early` are bytes the client
/// has sent behind its handshake. Dropped early, the exchange counts as one whose client has gone.
pub(super) async fn run<C: AsyncRead + AsyncWrite + Unpin>(client: C, early: Bytes, agreed: Agreed) {
    let Agreed { endpoint, mut exchange, leaving, busy: _busy, .. } = agreed;
    let client = Early { io: client, early };
    let mut carried = Carried::new(client, endpoint);
    // How it ended does not matter: a side that just goes away is how most WebSockets end.
    let _ = std::future::poll_fn(|cx| {
        if let Poll::Ready(order) = leaving.poll(cx) {
            carried.end(order);
        }
        carried.poll(cx)
    })
    .await;
    exchange.add_bytes_in(carried.to_endpoint.written());
    exchange.add_bytes_out(carried.to_client.written());
    if leaving.is_told() {
        exchange.note_cut();
        exchange.complete();
    } else if !exchange.client().is_cut() {
        exchange.complete();
    }
}

/// See the file's head.
struct Carried<C, E> {
    client: C,
    endpoint: E,
    to_client: Flow,
    to_endpoint: Flow,
    end: Option<End>,
}

/// How far a tunnel's end, as ordered, has come.
struct End {
    /// To `over`, half of the way first.
    sleep: Pin<Box<Sleep>>,
    over: Instant,
    is_hurried: bool,
}

impl<C, E> Carried<C, E>
where
    C: AsyncRead + AsyncWrite + Unpin,
    E: AsyncRead + AsyncWrite + Unpin,
{
    fn new(client: C, endpoint: E) -> Self {
        Self { client, endpoint, to_client: Flow::new(), to_endpoint: Flow::new(), end: None }
    }

    /// Ready when it is over.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            if let Poll::Ready(end) = self.poll_flows(cx) {
                return Poll::Ready(end);
            }
            // After the flows: what has no time at all still says goodbye.
            if ready!(self.poll_over(cx)) {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
        }
    }

    fn poll_flows(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let to_client = self.to_client.poll(cx, &mut self.endpoint, &mut self.client)?;
        let to_endpoint = self.to_endpoint.poll(cx, &mut self.client, &mut self.endpoint)?;
        if to_client.is_ready() && to_endpoint.is_ready() {
            return Poll::Ready(Ok(()));
        }
        if self.end.is_some() && self.to_client.is_closed() && self.to_endpoint.is_closed() {
            ready!(Pin::new(&mut self.client).poll_shutdown(cx))?;
            return Pin::new(&mut self.endpoint).poll_shutdown(cx);
        }
        Poll::Pending
    }

    /// Begins to end it; only the first order counts.
    fn end(&mut self, order: Order) {
        if self.end.is_some() {
            return;
        }
        let code = order.why.code();
        self.to_client.close(ws_frames::close(code, None));
        // There must be a mask; it need not be secret, since no page's script has chosen what it hides.
        self.to_endpoint.close(ws_frames::close(code, Some(fastrand::u32(..).to_ne_bytes())));
        let now = Instant::now();
        let half = order.over.saturating_duration_since(now) / 2;
        let sleep = Box::pin(tokio::time::sleep_until(now + half));
        self.end = Some(End { sleep, over: order.over, is_hurried: false });
    }

    /// Ready with true when an ordered end has taken all of its time; with false after half of it, from when on messages
    /// are not waited for, only frames.
    fn poll_over(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        let Some(end) = &mut self.end else { return Poll::Pending };
        ready!(end.sleep.as_mut().poll(cx));
        if std::mem::replace(&mut end.is_hurried, true) {
            return Poll::Ready(true);
        }
        self.to_client.hurry();
        self.to_endpoint.hurry();
        end.sleep.as_mut().reset(end.over);
        Poll::Ready(false)
    }
}

/// A client whose first bytes are here already.
struct Early<C> {
    io: C,
    early: Bytes,
}

impl<C: AsyncRead + Unpin> AsyncRead for Early<C> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.early.is_empty() {
            return Pin::new(&mut self.io).poll_read(cx, buf);
        }
        let n = self.early.len().min(buf.remaining());
        buf.put_slice(&self.early[..n]);
        self.early.advance(n);
        Poll::Ready(Ok(()))
    }
}

impl<C: AsyncWrite + Unpin> AsyncWrite for Early<C> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

    use super::*;
    use crate::proxy::leaving::Why;
    use crate::proxy::ws_frames::{Frames, close};

    const PATIENCE: Duration = Duration::from_secs(2);

    /// A tunnel that was told to end, its far ends, and when it must be over.
    struct Setup {
        carried: Carried<DuplexStream, DuplexStream>,
        client: DuplexStream,
        endpoint: DuplexStream,
        over: Instant,
    }

    /// `said` is what the endpoint had said before.
    async fn told(said: &[u8]) -> Setup {
        told_within(said, PATIENCE).await
    }

    async fn told_within(said: &[u8], patience: Duration) -> Setup {
        let ((near_client, client), (near_endpoint, mut endpoint)) = (tokio::io::duplex(9000), tokio::io::duplex(9000));
        let mut carried = Carried::new(near_client, near_endpoint);
        endpoint.write_all(said).await.unwrap();
        let mut cx = Context::from_waker(std::task::Waker::noop());
        assert!(carried.poll(&mut cx).is_pending());
        let over = Instant::now() + patience;
        carried.end(Order { why: Why::Drain, over });
        Setup { carried, client, endpoint, over }
    }

    /// All that comes to an end of the tunnel.
    async fn rest(end: &mut DuplexStream) -> Vec<u8> {
        let mut all = Vec::new();
        end.read_to_end(&mut all).await.unwrap();
        all
    }

    async fn run(mut carried: Carried<DuplexStream, DuplexStream>) -> io::Result<Instant> {
        std::future::poll_fn(|cx| carried.poll(cx)).await.map(|()| Instant::now())
    }

    /// Reads the close frame and sends its own; then all that comes.
    async fn answers(mut end: DuplexStream, length: usize, mask: Option<[u8; 4]>) -> Vec<u8> {
        let mut frame = vec![0; length];
        end.read_exact(&mut frame).await.unwrap();
        end.write_all(&close(1001, mask)).await.unwrap();
        frame.extend(rest(&mut end).await);
        frame
    }

    #[tokio::test(start_paused = true)]
    async fn it_ends_as_soon_as_both_sides_have_closed() {
        let s = told(b"").await;
        let before = Instant::now();
        let (over, at_client, at_endpoint) =
            tokio::join!(run(s.carried), answers(s.client, 4, Some([1; 4])), answers(s.endpoint, 8, None));
        assert_eq!(over.unwrap(), before, "nothing was waited for");
        assert_eq!(at_client, close(1001, None));
        let mut frames = Frames::default();
        frames.see(&at_endpoint);
        assert!(frames.has_close() && frames.is_boundary() && at_endpoint[1] == 0x82, "{at_endpoint:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_side_that_does_not_answer_has_until_its_time_is_over() {
        let mut s = told(b"").await;
        assert_eq!(run(s.carried).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(Instant::now(), s.over);
        assert_eq!(rest(&mut s.client).await, close(1001, None));
        assert_eq!(rest(&mut s.endpoint).await.len(), 8);
    }

    #[tokio::test(start_paused = true)]
    async fn without_any_time_it_is_told_all_the_same() {
        let mut s = told_within(b"", Duration::ZERO).await;
        assert!(run(s.carried).await.is_err() && Instant::now() == s.over);
        assert_eq!(rest(&mut s.client).await, close(1001, None));
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_is_waited_for_half_of_the_time_and_a_frame_for_all_of_it() {
        // A fragment that is not the last, whole and in part.
        let fragment = [0x01, 5, 1, 2, 3, 4, 5];
        for (said, is_closed) in [(&fragment[..], true), (&fragment[..6], false)] {
            let mut s = told(said).await;
            let mut before = vec![0; said.len()];
            let watch = async {
                s.client.read_exact(&mut before).await.unwrap();
                let mut first = [0; 1];
                let is_closed = s.client.read(&mut first).await.unwrap() > 0;
                (is_closed, Instant::now(), [&first[..], &rest(&mut s.client).await].concat())
            };
            let (end, (closed, at, rest)) = tokio::join!(run(s.carried), watch);
            assert_eq!(before, said);
            assert_eq!(at, if is_closed { s.over - PATIENCE / 2 } else { s.over });
            let rest = if closed { rest } else { Vec::new() };
            assert!(end.is_err() && Instant::now() == s.over);
            assert_eq!(rest, if is_closed { close(1001, None) } else { Vec::new() });
        }
    }
}
