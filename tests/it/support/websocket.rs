//! WebSockets by hand (RFC 6455, RFC 8441): frames as bytes, for clients over both protocols and for origins.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use sha1::{Digest as _, Sha1};

use super::{After, Connection, Exchange, Failure, Frames, LIMIT, Origin, frames};

pub const TEXT: u8 = 1;
pub const CLOSE: u8 = 8;

/// One frame, its payload unmasked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WsFrame {
    pub opcode: u8,
    pub is_masked: bool,
    pub payload: Vec<u8>,
}

impl WsFrame {
    /// Of a close frame.
    pub fn code(&self) -> u16 {
        assert_eq!((self.opcode, self.payload.len()), (CLOSE, 2), "{self:?}");
        u16::from_be_bytes([self.payload[0], self.payload[1]])
    }
}

/// A whole message as bytes.
pub fn ws_frame(opcode: u8, mask: Option<[u8; 4]>, payload: &[u8]) -> Vec<u8> {
    let masked = if mask.is_some() { 0x80 } else { 0 };
    let mut bytes = vec![0x80 | opcode];
    match payload.len() {
        n @ 0..=125 => bytes.push(masked | n as u8),
        n @ 126..=0xffff => bytes.extend([&[masked | 126][..], &(n as u16).to_be_bytes()].concat()),
        n => bytes.extend([&[masked | 127][..], &(n as u64).to_be_bytes()].concat()),
    }
    bytes.extend(mask.into_iter().flatten());
    let key = mask.unwrap_or_default();
    bytes.extend(payload.iter().enumerate().map(|(i, byte)| byte ^ key[i % 4]));
    bytes
}

/// Reads one frame; `take` gives exactly so many bytes.
fn read_frame(mut take: impl FnMut(usize) -> Result<Vec<u8>, Failure>) -> Result<WsFrame, Failure> {
    let head = take(2)?;
    let is_masked = head[1] & 0x80 != 0;
    let number = |bytes: Vec<u8>| bytes.iter().fold(0usize, |n, byte| n << 8 | usize::from(*byte));
    let length = match head[1] & 0x7f {
        126 => number(take(2)?),
        127 => number(take(8)?),
        short => usize::from(short),
    };
    let mask = if is_masked { take(4)? } else { vec![0; 4] };
    let payload = take(length)?.iter().enumerate().map(|(i, byte)| byte ^ mask[i % 4]).collect();
    if head[0] & 0x70 != 0 || !matches!(head[0] & 0x0f, 0..=2 | 8..=10) {
        return Err(Failure::Malformed(format!("frame {head:?}")));
    }
    Ok(WsFrame { opcode: head[0] & 0x0f, is_masked, payload })
}

/// A client's WebSocket.
pub struct Socket {
    line: Line,
}

enum Line {
    Http1(Connection),
    /// Data of stream 1 that was not taken yet.
    Http2(Box<Frames>, Vec<u8>),
}

impl Socket {
    #[track_caller]
    pub fn http1(address: SocketAddr, path: &str) -> Self {
        let mut wire = Connection::open(address).unwrap();
        let ask = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        wire.send(format!("GET {path} HTTP/1.1\r\nHost: app.test\r\n{ask}")).unwrap();
        let head = wire.head().unwrap();
        assert_eq!(head.status(), 101, "{}", head.raw);
        assert_eq!(head.get("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
        Self { line: Line::Http1(wire) }
    }

    #[track_caller]
    pub fn http2(address: SocketAddr, path: &str) -> Self {
        let mut wire = Frames::open(address);
        let fields = [
            (":method", "CONNECT"),
            (":protocol", "websocket"),
            (":scheme", "http"),
            (":authority", "app.test"),
            (":path", path),
            ("sec-websocket-version", "13"),
        ];
        wire.send(frames::HEADERS, frames::END_HEADERS, 1, &frames::block(&fields));
        let head = wire.until(frames::HEADERS);
        assert_eq!((head.stream, head.flags & frames::END_STREAM), (1, 0), "{head:?}");
        Self { line: Line::Http2(Box::new(wire), Vec::new()) }
    }

    #[track_caller]
    pub fn send(&mut self, opcode: u8, payload: &[u8]) {
        let bytes = ws_frame(opcode, Some([7, 1, 9, 3]), payload);
        match &mut self.line {
            Line::Http1(wire) => wire.send(bytes).unwrap(),
            Line::Http2(wire, _) => wire.send(frames::DATA, 0, 1, &bytes),
        }
    }

    pub fn next(&mut self) -> Result<WsFrame, Failure> {
        match &mut self.line {
            Line::Http1(wire) => read_frame(|n| wire.take(n)),
            Line::Http2(wire, data) => read_frame(|n| {
                while data.len() < n {
                    more(wire, data)?;
                }
                Ok(data.drain(..n).collect())
            }),
        }
    }

    /// A message that comes back.
    #[track_caller]
    pub fn echoes(&mut self) {
        self.send(TEXT, b"still there?");
        let back = self.next().unwrap();
        assert_eq!((back.opcode, &back.payload[..]), (TEXT, &b"still there?"[..]));
    }

    /// Reads to the close frame, answers it, and sees the end; gives the code and the messages before it.
    #[track_caller]
    pub fn closes(&mut self) -> (u16, Vec<WsFrame>) {
        let mut before = Vec::new();
        loop {
            let frame = self.next().unwrap_or_else(|e| panic!("no close frame: {e}"));
            assert!(!frame.is_masked, "servers do not mask");
            if frame.opcode == CLOSE {
                self.send(CLOSE, &frame.payload);
                assert!(self.ends(), "nothing comes behind a close frame but the end");
                return (frame.code(), before);
            }
            before.push(frame);
        }
    }

    /// A clean end, and nothing before it.
    fn ends(&mut self) -> bool {
        match &mut self.line {
            Line::Http1(wire) => wire.is_closed_within(LIMIT),
            Line::Http2(wire, data) => matches!(more(wire, data), Err(Failure::ClosedBeforeHead)) && data.is_empty(),
        }
    }
}

/// The next data of stream 1; `ClosedBeforeHead` at its clean end.
fn more(wire: &mut Frames, data: &mut Vec<u8>) -> Result<(), Failure> {
    loop {
        let frame = wire.next()?;
        match (frame.kind, frame.stream) {
            (frames::DATA, 1) => {
                data.extend(&frame.payload);
                if frame.flags & frames::END_STREAM != 0 && frame.payload.is_empty() {
                    return Err(Failure::ClosedBeforeHead);
                }
                let size = (frame.payload.len() as u32).to_be_bytes();
                [0, 1].iter().for_each(|stream| wire.send(frames::WINDOW_UPDATE, 0, *stream, &size));
                return Ok(());
            }
            (frames::RST_STREAM, 1) => return Err(Failure::Cut(format!("reset {}", frame.reason()))),
            (frames::PING, 0) if frame.flags & frames::ACK == 0 => {
                wire.send(frames::PING, frames::ACK, 0, &frame.payload);
            }
            _ => {}
        }
    }
}

/// An origin of WebSockets: `/flood` sends large messages in small pieces until it is told to close, other paths echo.
/// Plain requests get event streams that last until the client goes; each is sent an event ten times a second.
pub struct WsOrigin {
    pub origin: Origin,
    /// The close frames it was sent.
    closes: Arc<Mutex<Vec<WsFrame>>>,
}

impl WsOrigin {
    pub fn new() -> Self {
        let closes = Arc::<Mutex<Vec<WsFrame>>>::default();
        let theirs = closes.clone();
        let origin = Origin::scripted(move |exchange| {
            let Some(key) = exchange.head.get("sec-websocket-key") else { return events(exchange) };
            let head = format!(
                "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
                 Sec-WebSocket-Accept: {}\r\n\r\n",
                proof(key)
            );
            exchange.wire.send(head)?;
            let close = if exchange.head.target() == "/flood" { flood(exchange.wire)? } else { echo(exchange.wire)? };
            theirs.lock().unwrap().push(close.clone());
            exchange.wire.send(ws_frame(CLOSE, None, &close.payload))?;
            exchange.wire.is_closed_within(LIMIT);
            Ok(After::Close)
        });
        Self { origin, closes }
    }

    /// The close frames it was sent so far.
    pub fn closes(&self) -> Vec<WsFrame> {
        self.closes.lock().unwrap().clone()
    }
}

fn proof(key: &str) -> String {
    let digest = Sha1::digest(format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11"));
    base64::engine::general_purpose::STANDARD.encode(digest)
}

/// Until the close frame, which it gives.
fn echo(wire: &mut Connection) -> Result<WsFrame, Failure> {
    loop {
        match read_frame(|n| wire.take(n)) {
            Ok(frame) if frame.opcode == CLOSE => return Ok(frame),
            Ok(frame) => wire.send(ws_frame(frame.opcode, None, &frame.payload))?,
            Err(Failure::Silent) => {}
            Err(failure) => return Err(failure),
        }
    }
}

fn flood(wire: &mut Connection) -> Result<WsFrame, Failure> {
    for n in 0u32.. {
        let payload: Vec<u8> = (0..40_000 + n % 7).map(|i| (i % 256) as u8).collect();
        for piece in ws_frame(2, None, &payload).chunks(3001) {
            wire.send(piece)?;
        }
        if wire.is_closed_within(Duration::from_millis(1)) {
            break;
        }
        if !wire.left_over().is_empty() {
            return read_frame(|n| wire.take(n));
        }
    }
    Err(Failure::ClosedBeforeHead)
}

fn events(exchange: &mut Exchange<'_>) -> Result<After, Failure> {
    let kind = if exchange.head.target() == "/grpc" { "application/grpc" } else { "text/event-stream" };
    exchange.wire.send(format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nTransfer-Encoding: chunked\r\n\r\n"))?;
    while !exchange.wire.is_closed_within(Duration::from_millis(100)) {
        exchange.chunk(b"data: x\n\n")?;
    }
    Ok(After::Close)
}
