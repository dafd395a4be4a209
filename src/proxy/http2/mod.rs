//! One HTTP/2 client connection, served by the crate h2 directly, and not through hyper: only so can we send 1xx answers
//! and a GOAWAY with a reason.
//!
//! The connection's task accepts streams and carries out orders; each stream is served by a task beside it (`runners`, `stream`). Invariants:
//! a client is told to go before it is cut, and what it has begun is finished; a client whose frames cost more than its
//! requests is ended (`meter`); what waits for a client is bounded, per stream and for the whole connection.

mod link;
mod meter;
mod pump;
mod request;
mod runners;
mod stream;
pub(super) mod tunnel;

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::{Reason, server};
use tokio::time::Sleep;

use self::link::Link;
pub(super) use self::meter::Meter;
pub(super) use self::runners::Runners;
use self::stream::{Shared, Stream};
use super::client::{Client, Order, Phase};
use super::client_io::Transport;
use super::connection::GRACE;
use super::worker::Worker;
use crate::config::Limits;
use crate::model::Refusal;

/// What a client may have under way to us on one stream, and on all of them: the memory of slow endpoints.
const STREAM_WINDOW: u32 = 256 << 10;
const CONNECTION_WINDOW: u32 = 1 << 20;
/// What of one answer may wait in h2 for its turn on the connection.
pub(super) const SEND_BUFFER: usize = 64 << 10;
/// What received frames of less than 256 bytes may lack to these while they wait for an endpoint: 16,000 small messages
/// of one gRPC stream, which fill its window. h2's own half of the window is for 2,000.
const SMALL_FRAMES: usize = 4 << 20;
/// What all streams of a connection share: the bodies under way to us, and what small frames of them may lack.
pub(super) const SHARED_BYTES: usize = CONNECTION_WINDOW as usize + SMALL_FRAMES;
/// Streams reset by us that h2 still knows, and for how long, so that late frames of theirs are no error: an upload that
/// is answered early may have a window under way on a slow line.
const RESET_STREAMS: usize = 200;
const RESET_FOR: Duration = Duration::from_secs(10);
/// Resets before we have even taken the request (CVE-2023-44487), at a time.
const PENDING_RESETS: usize = 20;
/// Resets that a client makes h2 send (CVE-2025-8671), for the life of a connection (faults.md 1.1), and besides streams
/// refused to a client that has not heard of our limit yet: h2 counts them together.
const ERROR_RESETS: usize = 100;
const REFUSED_AT_FIRST: usize = 200;

/// Serves requests until the connection ends.
pub(super) async fn serve(worker: &Rc<Worker>, client: &Rc<Client>, transport: Transport) {
    client.enter(Phase::Head);
    // A listener that has just gone still serves whom it has let in.
    let listener = worker.view().listener(&client.listener).map(|(_, l)| (l.limits.clone(), l.timeouts.clone()));
    let (limits, timeouts) = listener.unwrap_or_default();
    let meter = Rc::new(RefCell::new(Meter::new(client.now(), limits.streams)));
    let link = Link::new(worker, client, transport, &meter);
    let Some(connection) = handshake(client, &limits, link).await else { return };
    client.enter(Phase::Idle);
    let shared = Shared::new(worker, client, meter, &limits, &timeouts);
    let mut server = Server { shared: Rc::new(shared), connection, stage: Stage::Open, deadline: None };
    std::future::poll_fn(|cx| server.poll(cx)).await;
}

/// Until the client's preface is there. An order to finish waits until then, so that a client that has just come is told.
async fn handshake(client: &Client, limits: &Limits, link: Link) -> Option<Connection> {
    let handshake = builder(limits).handshake(link);
    tokio::pin!(handshake);
    let done = std::future::poll_fn(|cx| match client.watch(cx) {
        Some(Order::Abort) => Poll::Ready(None),
        Some(Order::Expire) => {
            client.cell.refused(Refusal::ClientTimeout);
            Poll::Ready(None)
        }
        Some(Order::Finish) | None => handshake.as_mut().poll(cx).map(Some),
    });
    match done.await? {
        Ok(connection) => Some(connection),
        Err(error) => {
            count(client, &error);
            None
        }
    }
}

fn builder(limits: &Limits) -> server::Builder {
    let mut builder = server::Builder::new();
    builder
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(limits.streams)
        .max_header_list_size(request::list_limit(limits.header_bytes))
        .max_send_buffer_size(SEND_BUFFER)
        .data_frame_budget(SMALL_FRAMES)
        .max_concurrent_reset_streams(RESET_STREAMS)
        .reset_stream_duration(RESET_FOR)
        .max_pending_accept_reset_streams(PENDING_RESETS)
        .max_local_error_reset_streams(Some(ERROR_RESETS + REFUSED_AT_FIRST))
        .enable_connect_protocol();
    builder
}

type Connection = server::Connection<Link, Bytes>;

/// How far a connection's end has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Open,
    /// Told to begin nothing more (RFC 9113 section 6.8); what is begun is finished.
    Finishing,
    /// The last GOAWAY is being written, then it closes.
    Ending,
}

struct Server {
    shared: Rc<Shared>,
    connection: Connection,
    stage: Stage,
    /// When a client that does not do its part of the end is left alone.
    deadline: Option<Pin<Box<Sleep>>>,
}

impl Server {
    /// Ready when the connection is over.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self.shared.client.watch(cx) {
            Some(Order::Abort) => return Poll::Ready(()),
            Some(Order::Expire) => self.end(Reason::NO_ERROR, Some(Refusal::ClientTimeout)),
            Some(Order::Finish) => self.finish(),
            None => {}
        }
        loop {
            if self.poll_accept(cx).is_ready() {
                return Poll::Ready(());
            }
            // Each round ends the connection a little more; the third waits.
            if self.stage != Stage::Ending && self.shared.meter.borrow().is_over() {
                self.end(Reason::ENHANCE_YOUR_CALM, Some(Refusal::Http2Abuse));
                continue;
            }
            ready!(self.poll_deadline(cx));
            match self.stage {
                Stage::Ending => return Poll::Ready(()),
                Stage::Open | Stage::Finishing => self.end(Reason::NO_ERROR, None),
            }
        }
    }

    /// Takes what requests there are; ready when the connection has closed.
    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            match ready!(self.connection.poll_accept(cx)) {
                Some(Ok((request, respond))) => {
                    let (shared, worker) = (self.shared.clone(), &self.shared.worker);
                    worker.runners.serve(worker, Stream { shared, request, respond });
                }
                Some(Err(error)) => {
                    // Both of us may have had enough of the same flood.
                    if self.stage != Stage::Ending {
                        count(&self.shared.client, &error);
                    }
                    return Poll::Ready(());
                }
                None => return Poll::Ready(()),
            }
        }
    }

    /// Ready when a client that is to go has had time enough. h2 closes after the last stream, but first wants to hear
    /// from the client that it knows (amendments.md 2.5).
    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let is_client_due = match self.stage {
            Stage::Open => false,
            Stage::Finishing => !self.connection.has_streams(),
            Stage::Ending => true,
        };
        if !is_client_due {
            self.deadline = None;
            return Poll::Pending;
        }
        self.deadline.get_or_insert_with(|| Box::pin(tokio::time::sleep(GRACE))).as_mut().poll(cx)
    }

    fn finish(&mut self) {
        if self.stage == Stage::Open {
            self.stage = Stage::Finishing;
            self.connection.graceful_shutdown();
        }
    }

    /// Says goodbye and closes, whatever is under way.
    fn end(&mut self, reason: Reason, why: Option<Refusal>) {
        if self.stage != Stage::Ending {
            self.stage = Stage::Ending;
            self.deadline = None;
            why.into_iter().for_each(|why| self.shared.client.cell.refused(why));
            self.connection.abrupt_shutdown(reason);
        }
    }
}

/// What h2 ended the connection for by itself (amendments.md 2.5, 2.9).
fn count(client: &Client, error: &h2::Error) {
    if !error.is_go_away() || !error.is_library() {
        return;
    }
    let is_abuse = error.reason() == Some(Reason::ENHANCE_YOUR_CALM);
    client.cell.refused(if is_abuse { Refusal::Http2Abuse } else { Refusal::BadRequest });
}
