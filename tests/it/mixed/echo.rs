//! What the clients send and the origins answer: bytes anybody can make again, WebSocket frames, gRPC messages.
//!
//! By hand and apart from the product, so that a mistake is not made on both sides.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest as _, Sha1};

/// `length` bytes that only this seed gives.
pub fn bytes(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let mut bytes: Vec<u8> = (0..length.div_ceil(8)).flat_map(|_| next()).collect();
    bytes.truncate(length);
    bytes
}

/// Says where two bodies part; empty if they are the same.
pub fn difference(sent: &[u8], got: &[u8]) -> Option<String> {
    let at = sent.iter().zip(got).position(|(a, b)| a != b);
    match at {
        Some(at) => Some(format!("bodies differ at byte {at} of {} (got {})", sent.len(), got.len())),
        None if sent.len() != got.len() => Some(format!("{} bytes instead of {}", got.len(), sent.len())),
        None => None,
    }
}

/// RFC 6455 section 4.2.2.
pub fn accept_of(key: &str) -> String {
    STANDARD.encode(Sha1::new().chain_update(key).chain_update("258EAFA5-E914-47DA-95CA-C5AB0DC85B11").finalize())
}

pub const BINARY: u8 = 2;
pub const CLOSE: u8 = 8;
pub const PING: u8 = 9;
pub const PONG: u8 = 10;

/// A whole WebSocket frame; none of ours is fragmented.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WsFrame {
    pub opcode: u8,
    pub payload: Vec<u8>,
}

impl WsFrame {
    pub fn new(opcode: u8, payload: impl Into<Vec<u8>>) -> Self {
        Self { opcode, payload: payload.into() }
    }

    pub fn close(code: u16) -> Self {
        Self::new(CLOSE, code.to_be_bytes())
    }

    /// A close frame's code.
    pub fn code(&self) -> Option<u16> {
        let code = self.payload.get(..2).filter(|_| self.opcode == CLOSE)?;
        Some(u16::from_be_bytes([code[0], code[1]]))
    }

    /// Its bytes; a client's are masked, with this mask.
    pub fn bytes(&self, mask: Option<[u8; 4]>) -> Vec<u8> {
        let bit = if mask.is_some() { 0x80 } else { 0 };
        let mut bytes = vec![0x80 | self.opcode];
        match self.payload.len() {
            length @ 0..=125 => bytes.push(bit | length as u8),
            length @ 126..=0xffff => {
                bytes.push(bit | 126);
                bytes.extend((length as u16).to_be_bytes());
            }
            length => {
                bytes.push(bit | 127);
                bytes.extend((length as u64).to_be_bytes());
            }
        }
        let mask = mask.inspect(|mask| bytes.extend(mask)).unwrap_or_default();
        bytes.extend(self.payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        bytes
    }
}

/// Makes frames, or messages, of bytes as they come.
#[derive(Default)]
pub struct Reader {
    buffer: Vec<u8>,
}

impl Reader {
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Nothing half read is left.
    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// The next WebSocket frame, either side's.
    ///
    /// # Errors
    /// With the number of bytes that are missing at least.
    pub fn frame(&mut self) -> Result<WsFrame, usize> {
        let head = self.want(2)?;
        let (first, second) = (head[0], head[1]);
        let wide = match second & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let is_masked = second & 0x80 != 0;
        let start = 2 + wide + if is_masked { 4 } else { 0 };
        let head = self.want(start)?;
        let length = match wide {
            0 => usize::from(second & 0x7f),
            _ => head[2..2 + wide].iter().fold(0usize, |n, b| n << 8 | usize::from(*b)),
        };
        let mask: Vec<u8> = if is_masked { head[2 + wide..].to_vec() } else { vec![0] };
        self.want(start + length)?;
        let payload = self.buffer.drain(..start + length).skip(start);
        let payload = payload.zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect();
        Ok(WsFrame { opcode: first & 0x0f, payload })
    }

    /// The next length-prefixed gRPC message.
    ///
    /// # Errors
    /// As `frame`.
    pub fn message(&mut self) -> Result<Vec<u8>, usize> {
        let head = self.want(5)?;
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
        self.want(5 + length)?;
        Ok(self.buffer.drain(..5 + length).skip(5).collect())
    }

    fn want(&self, length: usize) -> Result<&[u8], usize> {
        self.buffer.get(..length).ok_or_else(|| length - self.buffer.len())
    }
}

/// A gRPC message on the wire, uncompressed.
pub fn message(payload: &[u8]) -> Vec<u8> {
    [&[0], &(payload.len() as u32).to_be_bytes()[..], payload].concat()
}

#[test]
fn frames_and_messages_survive_any_cut() {
    for length in [0, 1, 125, 126, 127, 65_535, 65_536, 70_000] {
        let frame = WsFrame::new(BINARY, bytes(7, length));
        for mask in [None, Some([1, 2, 3, 250])] {
            let wire = frame.bytes(mask);
            let (mut reader, mut fed) = (Reader::default(), 0);
            let got = loop {
                match reader.frame() {
                    Ok(frame) => break frame,
                    Err(missing) => {
                        reader.push(&wire[fed..fed + missing]);
                        fed += missing;
                    }
                }
            };
            assert_eq!((got, fed, reader.is_empty()), (frame.clone(), wire.len(), true), "{length} {mask:?}");
        }
        let mut reader = Reader::default();
        reader.push(&message(&frame.payload));
        assert_eq!(reader.message().unwrap(), frame.payload);
    }
    assert_eq!(WsFrame::close(1012).code(), Some(1012));
    assert_eq!(accept_of("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    assert!(bytes(1, 100) == bytes(1, 100) && bytes(1, 100) != bytes(2, 100));
}
