//! What runs in an HTTP/2 stream: a request and its answer, a gRPC call both ways, a WebSocket by extended CONNECT.

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::ext::Protocol;
use h2::{RecvStream, SendStream};
use http::{Request, Response};
use tokio::time::{Instant, sleep};

use super::echo::{self, PING, PONG, Reader, WsFrame};
use super::keep_alive::{Ask, Way};
use super::plan::{Client, HOST};
use super::socket::{LIFE, Said, message};
use super::streams::Trouble;
use super::tally::End;
use crate::support::LIMIT;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Requests,
    Calls,
    Sockets,
}

impl Kind {
    /// Streams of one connection.
    pub fn at_once(self) -> u64 {
        if self == Self::Requests { 4 } else { 2 }
    }

    pub fn job(self, seed: u64) -> Job {
        let mut rng = fastrand::Rng::with_seed(seed);
        let ask = Ask::any(&mut rng);
        Job { kind: self, rng, ask }
    }
}

/// What one place for a stream does, and keeps until it is done.
pub struct Job {
    kind: Kind,
    pub rng: fastrand::Rng,
    ask: Ask,
}

/// The wait between two messages of a call.
const EVERY: Duration = Duration::from_millis(8);

impl Job {
    /// The next request, the last one being done.
    pub fn next(&mut self) {
        self.ask = Ask::any(&mut self.rng);
    }

    pub fn name(&self) -> String {
        if self.kind == Kind::Requests { format!("{:?}", self.ask) } else { format!("{:?}", self.kind) }
    }

    pub async fn run(&mut self, client: &Client, sender: &mut SendRequest<Bytes>) -> Result<(), Trouble> {
        match self.kind {
            Kind::Requests => within(request(client, sender, &self.ask)).await,
            Kind::Calls => call(client, sender, &mut self.rng).await,
            Kind::Sockets => socket(client, sender, &mut self.rng).await,
        }
    }
}

fn head(client: &Client, method: &str, target: &str) -> http::request::Builder {
    let scheme = if client.is_secure { "https" } else { "http" };
    Request::builder().method(method).uri(format!("{scheme}://{HOST}{target}"))
}

type Begun = (ResponseFuture, SendStream<Bytes>);

fn begin(sender: &mut SendRequest<Bytes>, head: http::request::Builder, is_all: bool) -> Result<Begun, Trouble> {
    sender.send_request(head.body(()).unwrap(), is_all).map_err(|error| Trouble::before_answer(&error))
}

/// The head of the answer and who it is of; it must be a 200, of somebody who may answer.
async fn answered(
    client: &Client,
    seen: &super::fence::Seen,
    answer: ResponseFuture,
) -> Result<(String, RecvStream), Trouble> {
    let answer: Response<RecvStream> = answer.await.map_err(|error| Trouble::before_answer(&error))?;
    let field = |name| answer.headers().get(name).and_then(|v| v.to_str().ok()).map(str::to_owned);
    let endpoint = field("x-endpoint").filter(|_| answer.status() == 200);
    let endpoint = endpoint.ok_or_else(|| Trouble::Failed(format!("{} {:?}", answer.status(), answer.headers())))?;
    client.plan.fence.check(seen, &endpoint).map_err(Trouble::Failed)?;
    Ok((endpoint, answer.into_body()))
}

async fn request(client: &Client, sender: &mut SendRequest<Bytes>, ask: &Ask) -> Result<(), Trouble> {
    let seen = client.plan.fence.seen();
    let is_get = ask.way == Way::Get;
    let (answer, mut upload) = begin(sender, head(client, if is_get { "GET" } else { "POST" }, &ask.target()), is_get)?;
    if !is_get {
        let sent = upload.send_data(ask.body().into(), true);
        // The answer's error says more.
        sent.or_else(|error| if error.is_io() || error.is_go_away() { Ok(()) } else { Err(Trouble::failed(&error)) })?;
    }
    let (endpoint, mut stream) = answered(client, &seen, answer).await?;
    let mut body = Vec::new();
    while let Some(data) = data(&mut stream).await? {
        body.extend(data);
    }
    if let Some(difference) = echo::difference(&ask.body(), &body) {
        return Err(Trouble::Failed(format!("{difference}, from {endpoint}")));
    }
    client.tally.ok(&endpoint);
    Ok(())
}

/// The next bytes, their window given back; `None` at the end, which may come in a frame without any.
async fn data(stream: &mut RecvStream) -> Result<Option<Bytes>, Trouble> {
    while let Some(data) = stream.data().await {
        let data = data.map_err(|error| Trouble::failed(&error))?;
        stream.flow_control().release_capacity(data.len()).map_err(|error| Trouble::failed(&error))?;
        if !data.is_empty() {
            return Ok(Some(data));
        }
    }
    Ok(None)
}

/// A call whose messages go one by one and come back, each with its number; its end is `grpc-status: 0`. It is bounded in
/// time and each of its messages has a limit of its own, so that a slow machine makes calls short, not late.
async fn call(client: &Client, sender: &mut SendRequest<Bytes>, rng: &mut fastrand::Rng) -> Result<(), Trouble> {
    let seen = client.plan.fence.seen();
    let head = head(client, "POST", "/rpc.Echo/Talk");
    let head = head.header("content-type", "application/grpc").header("te", "trailers");
    let (answer, upload) = begin(sender, head, false)?;
    let (endpoint, stream) = within(answered(client, &seen, answer)).await?;
    let mut call = Call { upload, stream, reader: Reader::default() };
    let begun = Instant::now();
    let told = |text| Trouble::Failed(format!("call with {endpoint}, {:?} old: {text}", begun.elapsed()));
    let mut number = 0;
    while begun.elapsed() < LIFE {
        call.exchange(number, rng).await.map_err(|text| told(format!("message {number}: {text}")))?;
        number += 1;
        sleep(EVERY).await;
    }
    within(call.end()).await.map_err(|trouble| told(format!("its end after {number}: {trouble:?}")))?;
    client.tally.ok(&endpoint);
    Ok(())
}

/// Not to wait for ever.
async fn within<T>(step: impl Future<Output = Result<T, Trouble>>) -> Result<T, Trouble> {
    let late = |_| Err(Trouble::Failed("nothing came in time".to_owned()));
    tokio::time::timeout(LIMIT, step).await.unwrap_or_else(late)
}

struct Call {
    upload: SendStream<Bytes>,
    stream: RecvStream,
    reader: Reader,
}

impl Call {
    async fn exchange(&mut self, number: u64, rng: &mut fastrand::Rng) -> Result<(), String> {
        let sent = [&number.to_be_bytes()[..], &echo::bytes(rng.u64(..), rng.usize(..2000))].concat();
        self.upload.send_data(echo::message(&sent).into(), false).map_err(|error| error.to_string())?;
        loop {
            if let Ok(got) = self.reader.message() {
                return echo::difference(&sent, &got).map_or(Ok(()), Err);
            }
            match within(data(&mut self.stream)).await {
                Ok(Some(data)) => self.reader.push(&data),
                other => return Err(format!("{other:?} instead of it")),
            }
        }
    }

    async fn end(&mut self) -> Result<(), Trouble> {
        let failed = |error| Trouble::failed(&error);
        self.upload.send_data(Bytes::new(), true).map_err(failed)?;
        if let Some(data) = data(&mut self.stream).await? {
            return Err(Trouble::Failed(format!("{} bytes behind the last message", data.len())));
        }
        let trailers = self.stream.trailers().await.map_err(failed)?;
        let status = trailers.as_ref().and_then(|trailers| trailers.get("grpc-status"));
        if status.is_none_or(|status| status != "0") {
            return Err(Trouble::Failed(format!("trailers {trailers:?}")));
        }
        Ok(())
    }
}

/// As `socket::talk`, in a stream.
async fn socket(client: &Client, sender: &mut SendRequest<Bytes>, rng: &mut fastrand::Rng) -> Result<(), Trouble> {
    let seen = client.plan.fence.seen();
    let mut head = head(client, "CONNECT", client.socket_path()).header("sec-websocket-version", "13");
    head.extensions_mut().unwrap().insert(Protocol::from_static("websocket"));
    let (answer, upload) = begin(sender, head, false)?;
    let (endpoint, stream) = within(answered(client, &seen, answer)).await?;
    let begun = Instant::now();
    let mut socket = Socket { upload, stream, reader: Reader::default() };
    let ended = socket.talk(client, rng, &endpoint, begun).await;
    // A WebSocket's end is no end of a connection here, yet it is to be told how many were closed by weir.
    match ended {
        Ok(end @ End::ClosedByUs(_)) => client.tally.ended(end),
        Ok(_) => {}
        Err(text) => {
            return Err(Trouble::Failed(format!("WebSocket with {endpoint}, {:?} old: {text}", begun.elapsed())));
        }
    }
    Ok(())
}

struct Socket {
    upload: SendStream<Bytes>,
    stream: RecvStream,
    reader: Reader,
}

impl Socket {
    async fn talk(
        &mut self,
        client: &Client,
        rng: &mut fastrand::Rng,
        endpoint: &str,
        begun: Instant,
    ) -> Result<End, String> {
        while !client.is_over() && (client.plan.long_sockets || begun.elapsed() < LIFE) {
            let sent = message(rng);
            self.send(&sent, rng)?;
            match Said::of(&self.next(rng).await?, &sent)? {
                Said::Echo => client.tally.ok(endpoint),
                Said::Closed(code) => {
                    // Its receiver may be gone already.
                    let _ = self.send(&WsFrame::close(1000), rng);
                    return self.expect_end(End::ClosedByUs(code)).await;
                }
            }
            sleep(client.pause(rng)).await;
        }
        self.send(&WsFrame::close(1000), rng)?;
        match self.next(rng).await?.code() {
            Some(1000) => self.expect_end(End::Done).await,
            Some(code @ (1001 | 1012)) => self.expect_end(End::ClosedByUs(code)).await,
            code => Err(format!("{code:?} instead of a close frame")),
        }
    }

    fn send(&mut self, frame: &WsFrame, rng: &mut fastrand::Rng) -> Result<(), String> {
        let bytes = frame.bytes(Some(rng.u32(..).to_ne_bytes()));
        self.upload.send_data(bytes.into(), false).map_err(|error| error.to_string())
    }

    async fn next(&mut self, rng: &mut fastrand::Rng) -> Result<WsFrame, String> {
        loop {
            match self.reader.frame() {
                Ok(ping) if ping.opcode == PING => self.send(&WsFrame::new(PONG, ping.payload), rng)?,
                Ok(pong) if pong.opcode == PONG => {}
                Ok(frame) => return Ok(frame),
                Err(_) => match within(data(&mut self.stream)).await {
                    Ok(Some(data)) => self.reader.push(&data),
                    other => return Err(format!("{other:?} instead of a frame")),
                },
            }
        }
    }

    /// The stream ends both ways, and nothing comes before its end.
    async fn expect_end(&mut self, end: End) -> Result<End, String> {
        let _ = self.upload.send_data(Bytes::new(), true);
        match within(data(&mut self.stream)).await {
            Ok(None) if self.reader.is_empty() => Ok(end),
            other => Err(format!("{other:?} after the close frames")),
        }
    }
}
