//! Connections to endpoints against scripted origins on real sockets: raw bytes for HTTP/1.1, the `h2` server and raw
//! frames for HTTP/2. Nothing here waits for a time: each test waits for what it expects, within one deadline.

// A helper of a test fails it by panicking, as the test itself does; clippy knows only the latter.
#![allow(clippy::unwrap_used)]

mod http1;
mod http2;
mod http2_faults;
mod setup;
mod tls;
mod tunnels;

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, SizeHint};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, LocalSet};

use super::*;
use crate::net::body::Received;

/// Runs a test on one thread, as a worker does, and no longer than it may take.
fn local(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let limited =
        async { tokio::time::timeout(Duration::from_secs(20), test).await.expect("the test is over in time") };
    LocalSet::new().block_on(&runtime, limited);
}

fn cleartext(protocol: Protocol) -> Settings {
    Settings { idle_cap: 4, idle_for: None, max_age: None, protocol, tls: None }
}

fn upstream_with(address: SocketAddr, settings: Settings) -> Rc<Upstream<TestBody>> {
    Rc::new(Upstream::new(address, settings))
}

async fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// A request's body that the test feeds.
#[derive(Debug, Default)]
struct TestBody {
    frames: Option<mpsc::UnboundedReceiver<io::Result<Frame<Bytes>>>>,
    is_touched: Rc<Cell<bool>>,
}

type Feed = mpsc::UnboundedSender<io::Result<Frame<Bytes>>>;

impl TestBody {
    fn fed() -> (Self, Feed) {
        let (feed, frames) = mpsc::unbounded_channel();
        (Self { frames: Some(frames), is_touched: Rc::default() }, feed)
    }

    fn full(text: &'static str) -> Self {
        let (body, feed) = Self::fed();
        feed.send(Ok(Frame::data(Bytes::from_static(text.as_bytes())))).unwrap();
        body
    }
}

impl Body for TestBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        self.is_touched.set(true);
        self.frames.as_mut().map_or(Poll::Ready(None), |frames| frames.poll_recv(cx))
    }

    fn is_end_stream(&self) -> bool {
        self.frames.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        if self.frames.is_none() { SizeHint::with_exact(0) } else { SizeHint::default() }
    }
}

fn get(path: &str) -> Request<TestBody> {
    Request::get(path).header("host", "shop.test").body(TestBody::default()).unwrap()
}

fn post(body: TestBody) -> Request<TestBody> {
    Request::post("/up").header("host", "shop.test").body(body).unwrap()
}

/// Sends without caring for interim answers.
async fn send(
    lease: &mut Lease<TestBody>,
    request: Request<TestBody>,
) -> Result<Response<Received>, SendError<TestBody>> {
    lease.send(request, &mut |_| {}).await
}

async fn fault_of(lease: &mut Lease<TestBody>, request: Request<TestBody>) -> SendFault {
    send(lease, request).await.expect_err("there is no answer").kind
}

/// A body's text and its trailers.
async fn read(response: Response<Received>) -> (String, HeaderMap) {
    let body = response.into_body().collect().await.unwrap();
    let trailers = body.trailers().cloned().unwrap_or_default();
    (String::from_utf8(body.to_bytes().to_vec()).unwrap(), trailers)
}

/// Waits until something is so, letting the other tasks run.
async fn until(what: &str, is_so: impl Fn() -> bool) {
    let wait = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), wait).await.unwrap_or_else(|_| panic!("{what}"));
}

fn live(upstream: &Upstream<TestBody>) -> usize {
    upstream.live.borrow().len()
}

/// Lets go of all idle connections, as for an endpoint that drains; none is left.
async fn drained(upstream: &Rc<Upstream<TestBody>>) {
    upstream.tidy(Instant::now(), true);
    until("no connection is left", || live(upstream) == 0).await;
}

/// One connection of a raw origin.
struct Wire {
    stream: TcpStream,
    ahead: Vec<u8>,
}

impl Wire {
    async fn accept(listener: &TcpListener) -> Self {
        Self { stream: listener.accept().await.unwrap().0, ahead: Vec::new() }
    }

    /// Reads up to and with `end`.
    async fn read_to(&mut self, end: &str) -> String {
        loop {
            if let Some(at) = self.ahead.windows(end.len()).position(|w| w == end.as_bytes()) {
                return String::from_utf8_lossy(&self.ahead.drain(..at + end.len()).collect::<Vec<_>>()).into_owned();
            }
            assert!(self.stream.read_buf(&mut self.ahead).await.unwrap() > 0, "ended before {end:?}");
        }
    }

    async fn head(&mut self) -> String {
        self.read_to("\r\n\r\n").await
    }

    async fn bytes(&mut self, n: usize) -> Vec<u8> {
        while self.ahead.len() < n {
            assert!(self.stream.read_buf(&mut self.ahead).await.unwrap() > 0, "ended");
        }
        self.ahead.drain(..n).collect()
    }

    async fn write(&mut self, text: impl AsRef<[u8]>) {
        self.stream.write_all(text.as_ref()).await.unwrap();
    }

    /// Waits for the other side's end, by FIN or reset.
    async fn ended(&mut self) {
        while matches!(self.stream.read_buf(&mut self.ahead).await, Ok(n) if n > 0) {}
    }
}

/// Runs the origin's side of a test beside it.
fn origin(script: impl Future<Output = ()> + 'static) -> JoinHandle<()> {
    tokio::task::spawn_local(script)
}
