//! HTTP/2 by hand: frames as they are on the wire, field blocks without any compression.

use std::net::SocketAddr;
use std::time::Duration;

use super::{Connection, Failure, LIMIT};

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 0x1;
pub const ACK: u8 = 0x1;
pub const END_HEADERS: u8 = 0x4;

pub const PROTOCOL_ERROR: u32 = 1;
pub const REFUSED_STREAM: u32 = 7;
pub const ENHANCE_YOUR_CALM: u32 = 11;

#[derive(Clone, Debug)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

impl Frame {
    /// The error code of RST_STREAM and GOAWAY.
    pub fn reason(&self) -> u32 {
        let at = if self.kind == GOAWAY { 4 } else { 0 };
        u32::from_be_bytes(self.payload[at..at + 4].try_into().unwrap())
    }
}

/// The bytes of a frame.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// A field block of literals (RFC 7541 section 6.2.2), names and values shorter than 127.
pub fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            block.push(u8::try_from(text.len()).unwrap());
            block.extend(text.as_bytes());
        }
    }
    block
}

/// The fields of a plain GET.
pub const GET: [(&str, &str); 4] =
    [(":method", "GET"), (":scheme", "http"), (":authority", "app.test"), (":path", "/")];

/// A connection after both prefaces.
pub struct Frames {
    pub wire: Connection,
}

impl Frames {
    pub fn open(address: SocketAddr) -> Self {
        let mut wire = Connection::open(address).unwrap();
        wire.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
        let mut this = Self { wire };
        this.send(SETTINGS, 0, 0, &[]);
        this.until(SETTINGS);
        this.send(SETTINGS, ACK, 0, &[]);
        this
    }

    #[track_caller]
    pub fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        self.wire.send(frame(kind, flags, stream, payload)).unwrap();
    }

    pub fn next(&mut self) -> Result<Frame, Failure> {
        let head = self.wire.take(9)?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let stream = u32::from_be_bytes(head[5..9].try_into().unwrap()) & 0x7fff_ffff;
        Ok(Frame { kind: head[3], flags: head[4], stream, payload: self.wire.take(length)? })
    }

    /// The next frame of that kind.
    #[track_caller]
    pub fn until(&mut self, kind: u8) -> Frame {
        loop {
            let frame = self.next().unwrap_or_else(|e| panic!("no frame of kind {kind}: {e}"));
            if frame.kind == kind {
                return frame;
            }
        }
    }

    /// Nothing more comes: closed by the other side.
    #[track_caller]
    pub fn expect_end(&mut self) {
        let limit = LIMIT.min(Duration::from_secs(10));
        while self.next().is_ok() {}
        assert!(self.wire.is_closed_within(limit), "still open");
    }
}
