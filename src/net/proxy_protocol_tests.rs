//! Examples from the specification, and properties over any header and any bytes.

use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::*;

fn complete(len: usize, source: Option<&str>, destination: Option<&str>) -> Result<Parsed, BadHeader> {
    let address = |text: &str| text.parse().unwrap();
    Ok(Parsed::Complete { len, source: source.map(address), destination: destination.map(address) })
}

fn v1(source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
    let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
    let (from, to) = (source.ip(), destination.ip());
    format!("PROXY {family} {from} {to} {} {}\r\n", source.port(), destination.port()).into_bytes()
}

fn v2(command: u8, kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len()).unwrap().to_be_bytes();
    [SIGNATURE, &[command, kind], &length, body].concat()
}

fn v2_of(source: SocketAddr, destination: SocketAddr, tlvs: &[u8]) -> Vec<u8> {
    let octets = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    let ports = [source.port().to_be_bytes(), destination.port().to_be_bytes()].concat();
    let body = [&octets(source.ip())[..], &octets(destination.ip()), &ports, tlvs].concat();
    v2(0x21, if source.is_ipv4() { 0x11 } else { 0x21 }, &body)
}

#[test]
fn lines_of_version_1() {
    let four = b"PROXY TCP4 192.0.2.1 198.51.100.7 56324 443\r\nGET / HTTP/1.1\r\n";
    assert_eq!(parse(four), complete(45, Some("192.0.2.1:56324"), Some("198.51.100.7:443")));
    let longest =
        "PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n";
    let address = "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535";
    assert_eq!(parse(longest.as_bytes()), complete(longest.len(), Some(address), Some(address)));
    assert_eq!(parse(b"PROXY UNKNOWN\r\n"), complete(15, None, None));
    let of_107 = format!("PROXY UNKNOWN {}\r\n", "f".repeat(91));
    assert_eq!((of_107.len(), parse(of_107.as_bytes())), (107, complete(107, None, None)));
}

#[test]
fn bad_lines_of_version_1() {
    let long = format!("PROXY UNKNOWN {}\r\n", "f".repeat(92));
    let cases = [
        "GET / HTTP/1.1\r\n",
        "proxy TCP4 192.0.2.1 192.0.2.2 1 2\r\n",
        "PROXY\tTCP4 192.0.2.1 192.0.2.2 1 2\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 1\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 1 2 3\r\n",
        "PROXY TCP4  192.0.2.1 192.0.2.2 1 2\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 1 2 \r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 1 65536\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 +1 2\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 01 2\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 -1 2\r\n",
        "PROXY TCP4 192.0.2.01 192.0.2.2 1 2\r\n",
        "PROXY TCP4 ::1 ::2 1 2\r\n",
        "PROXY TCP6 192.0.2.1 192.0.2.2 1 2\r\n",
        "PROXY TCP6 [::1] [::2] 1 2\r\n",
        "PROXY TCP6 fe80::1%lo fe80::2 1 2\r\n",
        "PROXY UDP4 192.0.2.1 192.0.2.2 1 2\r\n",
        "PROXY UNKNOWNS\r\n",
        "PROXY \r\n",
        long.as_str(),
        &long[..107],
    ];
    for case in cases {
        assert!(parse(case.as_bytes()).is_err(), "{case:?}: {:?}", parse(case.as_bytes()));
    }
}

#[test]
fn headers_of_version_2_without_addresses() {
    let cases = [
        (v2(0x20, 0x00, &[]), "LOCAL"),
        (v2(0x20, 0x11, &[1; 12]), "LOCAL with addresses, to be ignored"),
        (v2(0x20, 0xff, &[1; 3]), "LOCAL with rubbish, to be ignored"),
        (v2(0x21, 0x00, &[]), "UNSPEC"),
        (v2(0x21, 0x00, &[1; 520]), "UNSPEC with as many TLVs as go in"),
        (v2(0x21, 0x31, &[1; 216]), "UNIX"),
        (v2(0x21, 0x12, &[1; 12]), "a datagram, which this is not"),
    ];
    for (bytes, what) in cases {
        assert_eq!(parse(&bytes), complete(bytes.len(), None, None), "{what}");
    }
}

#[test]
fn bad_headers_of_version_2() {
    let mut signature = v2(0x21, 0x11, &[1; 12]);
    signature[11] = b'\r';
    let cases = [
        (signature, "signature"),
        (v2(0x11, 0x11, &[1; 12]), "version 1"),
        (v2(0x31, 0x11, &[1; 12]), "version 3"),
        (v2(0x22, 0x11, &[1; 12]), "command 2"),
        (v2(0x21, 0x41, &[1; 216]), "family 4"),
        (v2(0x21, 0x13, &[1; 12]), "transport 3"),
        (v2(0x21, 0x11, &[1; 11]), "too short for IPv4"),
        (v2(0x21, 0x21, &[1; 35]), "too short for IPv6"),
        (v2(0x21, 0x31, &[1; 215]), "too short for UNIX"),
        (v2(0x21, 0x11, &[1; 521]), "too long"),
        (v2(0x20, 0x00, &[1; 521]), "LOCAL too long"),
    ];
    for (bytes, what) in cases {
        assert!(parse(&bytes).is_err(), "{what}");
        // Refused as soon as it can be, not when a length nobody allows has arrived.
        assert!(parse(&bytes[..bytes.len().min(FIXED)]).is_err(), "{what}");
    }
}

fn addresses() -> impl Strategy<Value = (SocketAddr, SocketAddr)> {
    let four = any::<([u8; 4], u16, [u8; 4], u16)>().prop_map(|(a, p, b, q)| ((a, p).into(), (b, q).into()));
    let six = any::<([u8; 16], u16, [u8; 16], u16)>().prop_map(|(a, p, b, q)| ((a, p).into(), (b, q).into()));
    prop_oneof![four, six]
}

fn headers() -> impl Strategy<Value = (Vec<u8>, SocketAddr, SocketAddr)> {
    let tlvs = proptest::collection::vec(any::<u8>(), 0..484);
    (addresses(), any::<bool>(), tlvs).prop_map(|((source, destination), is_line, tlvs)| {
        let bytes = if is_line { v1(source, destination) } else { v2_of(source, destination, &tlvs) };
        (bytes, source, destination)
    })
}

/// Bytes that get far: a true beginning, then anything, or a true header with one byte changed.
fn nearly() -> impl Strategy<Value = Vec<u8>> {
    let anything = || proptest::collection::vec(any::<u8>(), 0..600);
    let begun = (any::<bool>(), anything()).prop_map(|(is_line, rest)| {
        let begin = if is_line { WORD } else { SIGNATURE };
        [begin, &rest].concat()
    });
    let changed = (headers(), any::<prop::sample::Index>(), any::<u8>()).prop_map(|((mut bytes, ..), at, byte)| {
        let at = at.index(bytes.len());
        bytes[at] = byte;
        bytes
    });
    prop_oneof![anything(), begun, changed]
}

proptest! {
    #[test]
    fn what_was_written_is_read_and_nothing_after_it((bytes, source, destination) in headers(), rest: Vec<u8>) {
        let expected = Ok(Parsed::Complete { len: bytes.len(), source: Some(source), destination: Some(destination) });
        prop_assert_eq!(parse(&bytes), expected);
        prop_assert_eq!(parse(&[&bytes[..], &rest].concat()), expected);
    }

    #[test]
    fn every_prefix_is_incomplete((bytes, ..) in headers()) {
        for n in 0..bytes.len() {
            prop_assert_eq!(parse(&bytes[..n]), Ok(Parsed::Incomplete), "{} of {}", n, bytes.len());
        }
    }

    #[test]
    fn any_bytes_are_answered_and_the_answer_stays(bytes in nearly()) {
        let whole = parse(&bytes);
        for n in 0..bytes.len() {
            // More bytes change nothing but `Incomplete`.
            match parse(&bytes[..n]) {
                Ok(Parsed::Incomplete) => {}
                decided => prop_assert_eq!(decided, whole),
            }
        }
        match whole {
            Ok(Parsed::Complete { len, .. }) => prop_assert!(len <= bytes.len()),
            Ok(Parsed::Incomplete) => prop_assert!(bytes.len() < MAX_BINARY),
            Err(_) => {}
        }
    }
}

/// A header byte by byte, and the request in the same packet as its end.
#[tokio::test]
async fn a_socket_is_left_with_what_follows() {
    let (source, destination) = ("[2001:db8::7]:1234".parse().unwrap(), "[2001:db8::1]:443".parse().unwrap());
    for header in [v1(source, destination), v2_of(source, destination, b"\x04\0\x02ab")] {
        let (mut peer, ours) = UnixStream::pair().unwrap();
        let mut socket = Socket::from(ours);
        let (last, first) = header.split_last().unwrap();
        let sends = async {
            for byte in first {
                peer.write_all(&[*byte]).await.unwrap();
                tokio::task::yield_now().await;
            }
            peer.write_all(&[&[*last], &b"GET /"[..]].concat()).await.unwrap();
            drop(peer);
        };
        let (client, ()) = tokio::join!(read(&mut socket), sends);
        assert_eq!(client.unwrap(), Some(source));
        let mut rest = Vec::new();
        socket.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, b"GET /");
    }
}

#[tokio::test]
async fn an_end_or_rubbish_is_refused() {
    for (bytes, expected) in [
        (&b""[..], io::ErrorKind::UnexpectedEof),
        (b"PROXY TCP4 192.0.2.1", io::ErrorKind::UnexpectedEof),
        (b"GET / HTTP/1.1\r\n\r\n", io::ErrorKind::InvalidData),
        (b"PROXY TCP4 a b c d\r\n", io::ErrorKind::InvalidData),
    ] {
        let (mut peer, ours) = UnixStream::pair().unwrap();
        peer.write_all(bytes).await.unwrap();
        drop(peer);
        assert_eq!(read(&mut Socket::from(ours)).await.unwrap_err().kind(), expected, "{bytes:?}");
    }
}
