//! How many handshakes of a listening address are under way, asked of the kernel over netlink (`sock_diag`).
//!
//! Why not `/proc/net/tcp`: it prints every socket of the machine, most of a second for 50,000 of them when busy; here
//! the kernel counts only what is asked for. Where it does not answer (a sandbox) the caller waits a while instead.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

const AF_NETLINK: i32 = 16;
const NETLINK_SOCK_DIAG: i32 = 4;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const REQUEST_DUMP: u16 = 0x0301;
const DONE: u16 = 3;
/// SYN_RECV, and its form before the last ACK (NEW_SYN_RECV).
const HALF_OPEN: u32 = 1 << 3 | 1 << 12;
const HEADER: usize = 16;
const REQUEST: usize = HEADER + 56;
/// Where the local port and address lie in an answer.
const PORT: usize = HEADER + 4;
const ADDRESS: usize = HEADER + 8;

/// Clients that may take themselves for connected while we have not seen the last word of their handshake.
///
/// # Errors
/// When the kernel does not answer.
pub(super) fn count(address: SocketAddr) -> io::Result<usize> {
    let mut socket = Socket::new(Domain::from(AF_NETLINK), Type::DGRAM, Some(Protocol::from(NETLINK_SOCK_DIAG)))?;
    socket.set_read_timeout(Some(Duration::from_secs(1)))?;
    socket.write_all(&request(address))?;
    let (mut buffer, mut count) = (vec![0; 32 << 10], 0);
    loop {
        let read = socket.read(&mut buffer)?;
        let (found, done) = answers(&buffer[..read], address)?;
        count += found;
        if done {
            return Ok(count);
        }
    }
}

/// `nlmsghdr` and `inet_diag_req_v2`; the rest of the socket's identity is left open.
fn request(address: SocketAddr) -> [u8; REQUEST] {
    let mut bytes = [0; REQUEST];
    bytes[0..4].copy_from_slice(&(REQUEST as u32).to_ne_bytes());
    bytes[4..6].copy_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    bytes[6..8].copy_from_slice(&REQUEST_DUMP.to_ne_bytes());
    bytes[HEADER] = i32::from(Domain::for_address(address)) as u8;
    bytes[HEADER + 1] = i32::from(Protocol::TCP) as u8;
    bytes[HEADER + 4..HEADER + 8].copy_from_slice(&HALF_OPEN.to_ne_bytes());
    bytes[HEADER + 8..HEADER + 10].copy_from_slice(&address.port().to_be_bytes());
    bytes
}

/// How many of a packet's messages are about this address, and whether the last one says that it is the last.
fn answers(mut packet: &[u8], address: SocketAddr) -> io::Result<(usize, bool)> {
    let mut count = 0;
    while let Some((length, kind)) = header(packet) {
        match kind {
            SOCK_DIAG_BY_FAMILY => count += usize::from(is_about(&packet[..length], address)),
            DONE => return Ok((count, true)),
            // An error message, or something we did not ask for.
            _ => return Err(io::ErrorKind::Unsupported.into()),
        }
        packet = packet.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok((count, false))
}

fn header(packet: &[u8]) -> Option<(usize, u16)> {
    let length = u32::from_ne_bytes(packet.get(0..4)?.try_into().ok()?) as usize;
    let kind = u16::from_ne_bytes(packet.get(4..6)?.try_into().ok()?);
    (HEADER..=packet.len()).contains(&length).then_some((length, kind))
}

/// A socket of a wildcard listener has the address the client has asked for.
fn is_about(message: &[u8], address: SocketAddr) -> bool {
    let Some(port) = message.get(PORT..PORT + 2) else { return false };
    let here = message.get(ADDRESS..).unwrap_or_default();
    let same = match address.ip() {
        IpAddr::V4(ip) => here.starts_with(&ip.octets()),
        IpAddr::V6(ip) => here.starts_with(&ip.octets()),
    };
    port == address.port().to_be_bytes() && (same || address.ip().is_unspecified())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_answers_for_both_families() {
        for address in ["127.0.0.1:1", "[::1]:1", "0.0.0.0:1"] {
            assert_eq!(count(address.parse().unwrap()).unwrap(), 0, "{address}");
        }
    }

    #[test]
    fn an_answer_is_counted_by_port_and_address() {
        let mut message = request("127.0.0.1:80".parse().unwrap()).to_vec();
        message[PORT..PORT + 2].copy_from_slice(&80u16.to_be_bytes());
        message[ADDRESS..ADDRESS + 4].copy_from_slice(&[127, 0, 0, 1]);
        let mut end = message[..HEADER].to_vec();
        end[0..4].copy_from_slice(&(HEADER as u32).to_ne_bytes());
        end[4..6].copy_from_slice(&DONE.to_ne_bytes());
        let packet = [&message[..], &message, &end].concat();
        let of = |address: &str| answers(&packet, address.parse().unwrap()).unwrap();
        assert_eq!((of("127.0.0.1:80"), of("0.0.0.0:80")), ((2, true), (2, true)));
        assert_eq!((of("127.0.0.2:80"), of("127.0.0.1:81")), ((0, true), (0, true)));
        for cut in 0..packet.len() {
            let _ = answers(&packet[..cut], "127.0.0.1:80".parse().unwrap());
        }
    }
}
