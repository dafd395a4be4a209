//! HTTP/2 by hand (RFC 9113), cleartext by prior knowledge: frames as bytes, so that it can say what no library would.
//!
//! Nothing is checked when sending. When reading, one connection keeps what each stream came to; SETTINGS and PING are
//! acknowledged, and windows are given back, unless the test says otherwise.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use super::{Failure, LIMIT, hpack};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Frame types.
pub mod kind {
    pub const DATA: u8 = 0;
    pub const HEADERS: u8 = 1;
    pub const PRIORITY: u8 = 2;
    pub const RST_STREAM: u8 = 3;
    pub const SETTINGS: u8 = 4;
    pub const PING: u8 = 6;
    pub const GOAWAY: u8 = 7;
    pub const WINDOW_UPDATE: u8 = 8;
    pub const CONTINUATION: u8 = 9;
}

pub const END_STREAM: u8 = 0x1;
pub const END_HEADERS: u8 = 0x4;
const ACK: u8 = 0x1;
const PADDED: u8 = 0x8;
const PRIORITIZED: u8 = 0x20;

/// Settings, by number.
pub mod setting {
    pub const HEADER_TABLE_SIZE: u16 = 1;
    pub const ENABLE_PUSH: u16 = 2;
    pub const INITIAL_WINDOW_SIZE: u16 = 4;
}

/// RFC 9113 section 7.
pub const CANCEL: u32 = 8;
pub const ENHANCE_YOUR_CALM: u32 = 11;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

impl Frame {
    pub fn new(kind: u8, flags: u8, stream: u32, payload: impl Into<Vec<u8>>) -> Self {
        Self { kind, flags, stream, payload: payload.into() }
    }

    /// A whole header block in one frame.
    pub fn headers(stream: u32, flags: u8, block: Vec<u8>) -> Self {
        Self::new(kind::HEADERS, flags | END_HEADERS, stream, block)
    }

    pub fn data(stream: u32, flags: u8, data: impl Into<Vec<u8>>) -> Self {
        Self::new(kind::DATA, flags, stream, data)
    }

    pub fn settings(settings: &[(u16, u32)]) -> Self {
        let pairs = settings.iter().map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat());
        Self::new(kind::SETTINGS, 0, 0, pairs.collect::<Vec<_>>().concat())
    }

    /// RST_STREAM and WINDOW_UPDATE: a frame with one number.
    pub fn number(kind: u8, stream: u32, number: u32) -> Self {
        Self::new(kind, 0, stream, number.to_be_bytes())
    }

    pub fn bytes(&self) -> Vec<u8> {
        let length = (self.payload.len() as u32).to_be_bytes();
        [&length[1..], &[self.kind, self.flags], &self.stream.to_be_bytes(), &self.payload].concat()
    }
}

/// What a stream came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A whole answer.
    Answered { status: u16, body: Vec<u8> },
    /// RST_STREAM with this code.
    Reset(u32),
    /// GOAWAY with this code, and the stream was not answered.
    Gone(u32),
    /// The connection ended, and the stream was not answered.
    Closed,
    /// Nothing more came within the limit.
    Silent,
}

impl Outcome {
    pub fn status(&self) -> Option<u16> {
        if let Self::Answered { status, .. } = self { Some(*status) } else { None }
    }
}

#[derive(Clone, Debug, Default)]
struct Stream {
    block: Vec<u8>,
    ends_with_block: bool,
    fields: Vec<(String, String)>,
    interim: Vec<(String, String)>,
    body: Vec<u8>,
    outcome: Option<Outcome>,
}

/// A client connection.
pub struct H2 {
    stream: TcpStream,
    buffer: Vec<u8>,
    streams: BTreeMap<u32, Stream>,
    /// Code of the server's last GOAWAY.
    gone: Option<u32>,
    is_closed: bool,
    /// Gives windows back for what is read.
    pub gives_back: bool,
    /// Acknowledges SETTINGS and PING.
    pub replies: bool,
}

impl H2 {
    /// Preface and settings are sent; nothing is awaited.
    pub fn open(address: SocketAddr, settings: &[(u16, u32)]) -> Result<Self, Failure> {
        let stream =
            TcpStream::connect_timeout(&address, LIMIT).map_err(|e| Failure::Connect(format!("{address}: {e}")))?;
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream.set_write_timeout(Some(LIMIT)).unwrap();
        let mut this = Self::over(stream);
        let ours = [(setting::HEADER_TABLE_SIZE, 0), (setting::ENABLE_PUSH, 0)];
        let first = Frame::settings(&[&ours[..], settings].concat());
        this.send_bytes(&[PREFACE, &first.bytes()].concat())?;
        Ok(this)
    }

    /// Over a connection that somebody else has opened and writes to.
    pub fn over(stream: TcpStream) -> Self {
        Self {
            stream,
            buffer: Vec::new(),
            streams: BTreeMap::new(),
            gone: None,
            is_closed: false,
            gives_back: true,
            replies: true,
        }
    }

    /// How long a read may take from now on.
    pub fn set_read_limit(&self, limit: Duration) {
        self.stream.set_read_timeout(Some(limit)).unwrap();
    }

    pub fn set_write_limit(&self, limit: Duration) {
        self.stream.set_write_timeout(Some(limit)).unwrap();
    }

    pub fn send(&mut self, frame: &Frame) -> Result<(), Failure> {
        self.send_bytes(&frame.bytes())
    }

    pub fn send_bytes(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.stream.write_all(bytes).map_err(|e| Failure::Send(e.to_string()))
    }

    /// A GET on its own stream.
    pub fn get(&mut self, stream: u32, path: &str) -> Result<(), Failure> {
        let fields = [(":method", "GET"), (":scheme", "http"), (":authority", "app.test"), (":path", path)];
        self.send(&Frame::headers(stream, END_STREAM, hpack::block(&fields)))
    }

    /// Reads until it is known what the stream came to; another one's answers are kept for their own call.
    pub fn outcome(&mut self, stream: u32) -> Outcome {
        loop {
            if let Some(outcome) = self.known(stream) {
                return outcome;
            }
            match self.pump() {
                Ok(()) => {}
                Err(Failure::Silent) => return Outcome::Silent,
                Err(_) => self.is_closed = true,
            }
        }
    }

    /// What is known already.
    pub fn known(&self, stream: u32) -> Option<Outcome> {
        let known = self.streams.get(&stream).and_then(|s| s.outcome.clone());
        // After a GOAWAY for an error nothing is answered any more, whenever the connection ends.
        let is_over = self.is_closed || self.gone.is_some_and(|code| code != 0);
        known.or_else(|| is_over.then(|| self.gone.map_or(Outcome::Closed, Outcome::Gone)))
    }

    /// The fields of a stream's answer, those of its trailers behind them.
    pub fn fields(&self, stream: u32) -> &[(String, String)] {
        self.streams.get(&stream).map_or(&[], |s| &s.fields)
    }

    /// The fields of all interim answers of a stream.
    pub fn interim(&self, stream: u32) -> &[(String, String)] {
        self.streams.get(&stream).map_or(&[], |s| &s.interim)
    }

    /// Reads to the end of the connection; `Silent` if that does not come within the read limit of one frame.
    pub fn drain(&mut self) -> Outcome {
        while !self.is_closed {
            match self.pump() {
                Ok(()) => {}
                Err(Failure::Silent) => return Outcome::Silent,
                Err(_) => self.is_closed = true,
            }
        }
        self.gone.map_or(Outcome::Closed, Outcome::Gone)
    }

    /// The other handle of the same socket, for a thread that only writes.
    pub fn writer(&self) -> TcpStream {
        self.stream.try_clone().unwrap()
    }

    /// No more will be sent.
    pub fn shut(&self) {
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// Reads one frame and does what it asks for.
    pub fn pump(&mut self) -> Result<(), Failure> {
        let frame = self.frame()?;
        match frame.kind {
            kind::SETTINGS | kind::PING if !self.replies => {}
            kind::SETTINGS if frame.flags & ACK == 0 => self.reply(&Frame::new(kind::SETTINGS, ACK, 0, [])),
            kind::PING if frame.flags & ACK == 0 => self.reply(&Frame::new(kind::PING, ACK, 0, frame.payload)),
            kind::GOAWAY => self.gone = frame.payload.get(4..8).map(number),
            kind::RST_STREAM => {
                let stream = self.streams.entry(frame.stream).or_default();
                stream.outcome.get_or_insert(Outcome::Reset(number(&frame.payload)));
            }
            kind::DATA => self.take_data(&frame),
            kind::HEADERS | kind::CONTINUATION => return self.take_headers(&frame),
            _ => {}
        }
        Ok(())
    }

    fn take_data(&mut self, frame: &Frame) {
        if self.gives_back && !frame.payload.is_empty() {
            let size = frame.payload.len() as u32;
            for stream in [0, frame.stream] {
                self.reply(&Frame::number(kind::WINDOW_UPDATE, stream, size));
            }
        }
        let stream = self.streams.entry(frame.stream).or_default();
        stream.body.extend(unpadded(frame));
        if frame.flags & END_STREAM != 0 {
            stream.end();
        }
    }

    fn take_headers(&mut self, frame: &Frame) -> Result<(), Failure> {
        let stream = self.streams.entry(frame.stream).or_default();
        stream.block.extend(unpadded(frame));
        if frame.kind == kind::HEADERS {
            stream.ends_with_block = frame.flags & END_STREAM != 0;
        }
        if frame.flags & END_HEADERS != 0 {
            let fields = hpack::fields(&std::mem::take(&mut stream.block))?;
            let is_interim = fields.iter().any(|(n, v)| n == ":status" && v.starts_with('1'));
            if is_interim {
                stream.interim.extend(fields)
            } else {
                stream.fields.extend(fields)
            }
            if stream.ends_with_block {
                stream.end();
            }
        }
        Ok(())
    }

    /// A reply that cannot be sent is no matter: the next read says what happened.
    fn reply(&mut self, frame: &Frame) {
        let _ = self.send(frame);
    }

    fn frame(&mut self) -> Result<Frame, Failure> {
        self.fill(9)?;
        let head = &self.buffer[..9];
        let length = number(&[0, head[0], head[1], head[2]]) as usize;
        let (kind, flags, stream) = (head[3], head[4], number(&head[5..9]) & 0x7fff_ffff);
        self.fill(9 + length)?;
        let payload = self.buffer.drain(..9 + length).skip(9).collect();
        Ok(Frame { kind, flags, stream, payload })
    }

    fn fill(&mut self, length: usize) -> Result<(), Failure> {
        let mut piece = [0; 64 * 1024];
        while self.buffer.len() < length {
            match self.stream.read(&mut piece) {
                Ok(0) => return Err(Failure::ClosedBeforeHead),
                Ok(n) => self.buffer.extend_from_slice(&piece[..n]),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    return Err(Failure::Silent);
                }
                Err(e) => return Err(Failure::Cut(e.to_string())),
            }
        }
        Ok(())
    }
}

impl Stream {
    fn end(&mut self) {
        let status = self.fields.iter().find(|(n, _)| n == ":status").and_then(|(_, v)| v.parse().ok());
        let body = std::mem::take(&mut self.body);
        self.outcome.get_or_insert(Outcome::Answered { status: status.unwrap_or(0), body });
    }
}

fn number(bytes: &[u8]) -> u32 {
    bytes.iter().take(4).fold(0, |n, b| n << 8 | u32::from(*b))
}

/// The payload without padding and priority.
fn unpadded(frame: &Frame) -> &[u8] {
    let mut payload = frame.payload.as_slice();
    let mut pad = 0;
    if frame.flags & PADDED != 0 {
        (pad, payload) = payload.split_first().map_or((0, payload), |(n, rest)| (usize::from(*n), rest));
    }
    if frame.kind == kind::HEADERS && frame.flags & PRIORITIZED != 0 {
        payload = payload.get(5..).unwrap_or_default();
    }
    payload.get(..payload.len().saturating_sub(pad)).unwrap_or_default()
}

/// The raw client itself, against a server that is not ours.
#[test]
fn nghttpd_understands_it() {
    let Some(nghttpd) = super::tool("nghttpd") else { return };
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("next"), "innocent").unwrap();
    std::fs::write(dir.path().join("long"), vec![b'x'; 1 << 20]).unwrap();
    let address = super::free_address();
    let mut command = std::process::Command::new(nghttpd);
    command.args(["--no-tls", "--address", "127.0.0.1", &address.port().to_string(), "-d"]).arg(dir.path());
    let child = command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn().unwrap();
    let _server = super::process::KillOnDrop(child);
    let mut client = super::wait_for("nghttpd listens", || H2::open(address, &[]).ok());
    client.get(1, "/next").unwrap();
    client.get(3, "/long").unwrap();
    client.get(5, "/nowhere").unwrap();
    assert_eq!(
        client.outcome(3),
        Outcome::Answered { status: 200, body: vec![b'x'; 1 << 20] },
        "windows are given back"
    );
    assert_eq!(client.outcome(1), Outcome::Answered { status: 200, body: b"innocent".to_vec() });
    assert_eq!(client.outcome(5).status(), Some(404));
    let is_named = |(_, value): &(String, String)| value.starts_with("nghttpd");
    assert!(client.fields(1).iter().any(is_named), "Huffman strings are read: {:?}", client.fields(1));
    client.send(&Frame::headers(7, END_STREAM, hpack::block(&[(":method", "GET"), ("X-Upper", "case")]))).unwrap();
    assert!(matches!(client.outcome(7), Outcome::Reset(1)), "malformed: PROTOCOL_ERROR for the stream alone");
    client.send(&Frame::data(0, 0, "data on no stream")).unwrap();
    assert_eq!(client.drain(), Outcome::Gone(1), "PROTOCOL_ERROR for the connection");
}
