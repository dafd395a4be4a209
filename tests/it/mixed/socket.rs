//! WebSocket clients over HTTP/1.1: masked frames by hand, every echo checked.
//!
//! A close frame with 1001 or 1012 is a clean end, after which they connect again; any other end that the client has not
//! asked for is a cut.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::echo::{self, BINARY, CLOSE, PING, PONG, Reader, WsFrame};
use super::plan::{Client, HOST};
use super::tally::End;
use crate::support::{Connection, Failure, Instant, LIMIT};

/// How long a client that ends by itself stays.
pub const LIFE: Duration = Duration::from_millis(500);

pub fn run(client: &Client) {
    let mut rng = fastrand::Rng::with_seed(client.seed);
    while !client.is_over() {
        match talk(client, &mut rng) {
            Ok(end) => client.tally.ended(end),
            Err(failure) if client.is_done_by(&failure) => return,
            Err(failure) => client.tally.failed(&failure.to_string()),
        }
    }
}

fn talk(client: &Client, rng: &mut fastrand::Rng) -> Result<End, Failure> {
    let seen = client.plan.fence.seen();
    let mut socket = Socket { connection: client.connect()?, reader: Reader::default() };
    let endpoint = socket.shake_hands(client.socket_path(), rng)?;
    client.plan.fence.check(&seen, &endpoint).map_err(Failure::Malformed)?;
    let begun = Instant::now();
    let cut = |failure| Failure::Cut(format!("WebSocket with {endpoint}, {:?} old: {failure}", begun.elapsed()));
    while !client.is_over() && (client.plan.long_sockets || begun.elapsed() < LIFE) {
        let sent = message(rng);
        socket.send(&sent, rng).map_err(cut)?;
        match Said::of(&socket.next(rng).map_err(cut)?, &sent).map_err(|text| cut(Failure::Malformed(text)))? {
            Said::Echo => client.tally.ok(&endpoint),
            Said::Closed(code) => {
                // The answer to a close frame is owed by protocol; its receiver may be gone already.
                let _ = socket.send(&WsFrame::close(1000), rng);
                return socket.expect_end(End::ClosedByUs(code)).map_err(cut);
            }
        }
        std::thread::sleep(client.pause(rng));
    }
    socket.send(&WsFrame::close(1000), rng).map_err(cut)?;
    let answer = socket.next(rng).map_err(cut)?;
    match answer.code() {
        Some(1000) => socket.expect_end(End::Done).map_err(cut),
        Some(code @ (1001 | 1012)) => socket.expect_end(End::ClosedByUs(code)).map_err(cut),
        _ => Err(cut(Failure::Malformed(format!("{answer:?} instead of a close frame")))),
    }
}

/// A message of any length class of the protocol.
pub fn message(rng: &mut fastrand::Rng) -> WsFrame {
    let length = if rng.u8(..) < 8 { 70_000 } else { rng.usize(..500) };
    WsFrame::new(BINARY, echo::bytes(rng.u64(..), length))
}

/// What came where an echo was due.
#[derive(Debug, PartialEq, Eq)]
pub enum Said {
    Echo,
    /// A close frame of weir's, with its code.
    Closed(u16),
}

impl Said {
    /// # Errors
    /// When it is neither.
    pub fn of(got: &WsFrame, sent: &WsFrame) -> Result<Self, String> {
        match (got.opcode, got.code()) {
            (CLOSE, Some(code @ (1001 | 1012))) => Ok(Self::Closed(code)),
            (CLOSE, code) => Err(format!("closed with {code:?}")),
            _ => match echo::difference(&sent.payload, &got.payload) {
                None => Ok(Self::Echo),
                Some(difference) => Err(difference),
            },
        }
    }
}

struct Socket {
    connection: Connection,
    reader: Reader,
}

impl Socket {
    fn shake_hands(&mut self, path: &str, rng: &mut fastrand::Rng) -> Result<String, Failure> {
        let key = STANDARD.encode(rng.u128(..).to_ne_bytes());
        self.connection.send(format!(
            "GET {path} HTTP/1.1\r\nHost: {HOST}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n"
        ))?;
        let head = self.connection.head()?;
        if head.status() != 101 || head.get("sec-websocket-accept") != Some(&echo::accept_of(&key)) {
            return Err(Failure::Malformed(format!("no handshake: {}", head.raw)));
        }
        Ok(head.get("x-endpoint").unwrap_or("nobody").to_owned())
    }

    fn send(&mut self, frame: &WsFrame, rng: &mut fastrand::Rng) -> Result<(), Failure> {
        self.connection.send(frame.bytes(Some(rng.u32(..).to_ne_bytes())))
    }

    /// The next frame that is not about liveness.
    fn next(&mut self, rng: &mut fastrand::Rng) -> Result<WsFrame, Failure> {
        loop {
            match self.reader.frame() {
                Ok(ping) if ping.opcode == PING => self.send(&WsFrame::new(PONG, ping.payload), rng)?,
                Ok(pong) if pong.opcode == PONG => {}
                Ok(frame) => return Ok(frame),
                Err(missing) => self.reader.push(&self.connection.take(missing)?),
            }
        }
    }

    /// After the close frames nothing comes but the end.
    fn expect_end(&mut self, end: End) -> Result<End, Failure> {
        if self.connection.is_closed_within(LIMIT) && self.reader.is_empty() {
            return Ok(end);
        }
        Err(Failure::Malformed("still open, or more to say, after the close frames".to_owned()))
    }
}
