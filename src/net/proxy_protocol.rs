//! The PROXY protocol, versions 1 and 2 (HAProxy's `proxy-protocol.txt`): who the client of a TCP proxy is.
//!
//! `parse` is pure and strict: whoever may send this header at all is trusted, so one that is not exactly as specified is
//! a fault or an attack, never something to make sense of.
//! Invariants: any bytes are answered, none panics; every true prefix of a header is `Incomplete`; `len` never reaches
//! past the header; what is needed to decide is bounded (107 bytes for version 1, 536 for version 2).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::socket::Socket;

/// Version 1: the longest line, its CRLF included.
const MAX_LINE: usize = 107;
/// Version 2: what every receiver has to take, and as much as this one takes.
const MAX_BINARY: usize = 536;
const WORD: &[u8] = b"PROXY ";
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, version and command, family, length.
const FIXED: usize = 16;

/// What the first bytes of a connection are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// The beginning of a header; more must come.
    Incomplete,
    /// A header of `len` bytes. Without addresses if the proxy speaks for itself (LOCAL), does not know (UNKNOWN,
    /// UNSPEC), or its client has no IP address (UNIX): then the connection's own count.
    Complete { len: usize, source: Option<SocketAddr>, destination: Option<SocketAddr> },
}

/// The bytes are no PROXY header, or not one we take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a valid PROXY header: {0}")]
pub struct BadHeader(&'static str);

/// Looks at the first bytes of a connection.
///
/// # Errors
/// `BadHeader`: no continuation of these bytes would be a header.
pub fn parse(bytes: &[u8]) -> Result<Parsed, BadHeader> {
    if starts(bytes, SIGNATURE) {
        binary(bytes)
    } else if starts(bytes, WORD) {
        line(bytes)
    } else {
        Err(BadHeader("it begins like none"))
    }
}

/// Reads a header off a connection and leaves what follows it. Gives the client's address, if the header has one. The
/// caller bounds it by time. Cancel safe: what was read stays in the socket.
///
/// # Errors
/// `InvalidData` for a bad header, `UnexpectedEof` for an end before its end, and those of the socket.
pub async fn read(socket: &mut Socket) -> io::Result<Option<SocketAddr>> {
    loop {
        // Nothing read yet is not looked at: a prefix of every header.
        match parse(socket.ahead()).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))? {
            Parsed::Complete { len, source, .. } => {
                socket.consume(len);
                return Ok(source);
            }
            Parsed::Incomplete if socket.read_ahead().await? == 0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            Parsed::Incomplete => {}
        }
    }
}

/// Whether `bytes` begin with `word`, as far as they go.
fn starts(bytes: &[u8], word: &[u8]) -> bool {
    let n = bytes.len().min(word.len());
    bytes[..n] == word[..n]
}

/// Version 1: `PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n`.
fn line(bytes: &[u8]) -> Result<Parsed, BadHeader> {
    let head = &bytes[..bytes.len().min(MAX_LINE)];
    let Some(end) = head.iter().position(|b| *b == b'\n') else {
        return if head.len() < MAX_LINE { Ok(Parsed::Incomplete) } else { Err(BadHeader("the line is too long")) };
    };
    let text = head[..end].strip_suffix(b"\r").ok_or(BadHeader("a line feed without carriage return"))?;
    let text = text.strip_prefix(WORD).ok_or(BadHeader("it begins like none"))?;
    let text = std::str::from_utf8(text).map_err(|_| BadHeader("the line is not ASCII"))?;
    let (source, destination) = match text.split(' ').collect::<Vec<_>>()[..] {
        // Whatever follows is to be ignored.
        ["UNKNOWN", ..] => (None, None),
        ["TCP4", from, to, from_port, to_port] => (pair::<Ipv4Addr>(from, from_port)?, pair::<Ipv4Addr>(to, to_port)?),
        ["TCP6", from, to, from_port, to_port] => (pair::<Ipv6Addr>(from, from_port)?, pair::<Ipv6Addr>(to, to_port)?),
        _ => return Err(BadHeader("the line has other fields than it should")),
    };
    Ok(Parsed::Complete { len: end + 1, source, destination })
}

fn pair<A: std::str::FromStr + Into<IpAddr>>(ip: &str, port: &str) -> Result<Option<SocketAddr>, BadHeader> {
    let ip: A = ip.parse().map_err(|_| BadHeader("an address is not one of its family"))?;
    // Rust's parser would also take `+80` and `080`.
    let is_plain = port.bytes().all(|b| b.is_ascii_digit()) && (port.len() == 1 || !port.starts_with('0'));
    match port.parse() {
        Ok(port) if is_plain => Ok(Some(SocketAddr::new(ip.into(), port))),
        _ => Err(BadHeader("a port is not one")),
    }
}

/// Version 2: signature, version and command, family and transport, length, addresses, then TLVs, which we skip.
fn binary(bytes: &[u8]) -> Result<Parsed, BadHeader> {
    let is_local = match bytes.get(12) {
        None => return Ok(Parsed::Incomplete),
        Some(0x20) => true,
        Some(0x21) => false,
        Some(_) => return Err(BadHeader("an unknown version or command")),
    };
    let Some(kind) = bytes.get(13) else { return Ok(Parsed::Incomplete) };
    let needed = if is_local { 0 } else { address_len(*kind)? };
    let Some(length) = bytes.get(14..FIXED) else { return Ok(Parsed::Incomplete) };
    let length = usize::from(length[0]) << 8 | usize::from(length[1]);
    let len = FIXED + length;
    if len > MAX_BINARY {
        return Err(BadHeader("it is too long"));
    }
    if length < needed {
        return Err(BadHeader("it is too short for its addresses"));
    }
    let Some(addresses) = bytes.get(FIXED..len) else { return Ok(Parsed::Incomplete) };
    let (source, destination) = if is_local { (None, None) } else { endpoints(*kind, addresses) };
    Ok(Parsed::Complete { len, source, destination })
}

/// Bytes that the addresses of a family and transport take.
fn address_len(kind: u8) -> Result<usize, BadHeader> {
    let transport = kind & 0xf;
    if transport > 2 {
        return Err(BadHeader("an unknown transport"));
    }
    match kind >> 4 {
        0 => Ok(0),
        1 => Ok(12),
        2 => Ok(36),
        3 => Ok(216),
        _ => Err(BadHeader("an unknown address family")),
    }
}

/// Those of TCP over IP; of everything else we know only that it is not that.
fn endpoints(kind: u8, bytes: &[u8]) -> (Option<SocketAddr>, Option<SocketAddr>) {
    match kind {
        0x11 => (four(bytes, 0, 8), four(bytes, 4, 10)),
        0x21 => (six(bytes, 0, 32), six(bytes, 16, 34)),
        _ => (None, None),
    }
}

fn four(bytes: &[u8], ip: usize, port: usize) -> Option<SocketAddr> {
    let octets: [u8; 4] = bytes.get(ip..ip + 4)?.try_into().ok()?;
    Some((octets, port_at(bytes, port)?).into())
}

fn six(bytes: &[u8], ip: usize, port: usize) -> Option<SocketAddr> {
    let octets: [u8; 16] = bytes.get(ip..ip + 16)?.try_into().ok()?;
    Some((octets, port_at(bytes, port)?).into())
}

fn port_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

#[cfg(test)]
#[path = "proxy_protocol_tests.rs"]
mod tests;
