//! Answers that end too early: the client has what came before the cut, the head first of all, and then the cut.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use super::post;
use crate::support::h2wire::{CANCEL, END_HEADERS, Frame, H2, Outcome, kind};
use crate::support::{After, Conf, Connection, Failure, Origin, Weir, hpack, times};

const PART: &str = "eighteen bytes and";

/// Over HTTP/2: head, part and reset in one packet.
fn http2_origin() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        while let Ok((stream, _)) = listener.accept() {
            std::thread::spawn(move || reset_all(stream));
        }
    });
    address
}

/// Every stream gets the same, until the other side has enough.
fn reset_all(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    stream.read_exact(&mut [0; 24])?;
    stream.write_all(&Frame::settings(&[]).bytes())?;
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head)?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        stream.read_exact(&mut vec![0; length])?;
        let number = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        if head[3] == kind::HEADERS {
            let frames = [
                Frame::headers(number, END_HEADERS, hpack::block(&[(":status", "200")])),
                Frame::data(number, 0, PART),
                Frame::number(kind::RST_STREAM, number, CANCEL),
            ];
            stream.write_all(&frames.iter().flat_map(Frame::bytes).collect::<Vec<_>>())?;
        }
    }
}

fn over_http2(endpoint: SocketAddr) -> Conf {
    let version = format!("weight = 1\nendpoints = [\"{endpoint}\"]\nprotocol = \"http2\"");
    Conf::shop(&[]).tail(&format!("[splits.shop.versions.v1]\n{version}"))
}

#[track_caller]
fn assert_comes_before_the_cut(conf: &Conf) {
    let weir = Weir::start(conf);
    for turn in 0..times(50, 2000) {
        let mut client: Connection = weir.connect();
        client.send(post("/")).unwrap();
        let head = client.head().unwrap_or_else(|failure| panic!("turn {turn}: {failure}"));
        assert_eq!(head.status(), 200, "turn {turn}: {}", head.raw);
        assert_eq!(client.chunk().unwrap().as_deref(), Some(PART.as_bytes()), "turn {turn}");
        let end = client.chunk().unwrap_err();
        assert!(matches!(end, Failure::Cut(_)), "turn {turn}: {end}");
    }
    for turn in 0..times(20, 500) {
        let mut client = H2::open(weir.web(), &[]).unwrap();
        client.get(1, "/").unwrap();
        assert!(matches!(client.outcome(1), Outcome::Reset(_)), "turn {turn}");
        let status = client.fields(1).first();
        assert!(status.is_some_and(|(name, value)| name == ":status" && value == "200"), "turn {turn}: {status:?}");
    }
}

#[test]
fn a_reset_stream() {
    assert_comes_before_the_cut(&over_http2(http2_origin()));
}

#[test]
fn a_reset_connection() {
    let origin = Origin::scripted(|exchange| {
        exchange.body()?;
        exchange.wire.send(format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n12\r\n{PART}\r\n"))?;
        Ok(After::Reset)
    });
    assert_comes_before_the_cut(&Conf::one(origin.address));
}

#[test]
fn chunks_that_end_in_nonsense() {
    let origin = Origin::scripted(|exchange| {
        exchange.body()?;
        let chunks = format!("12\r\n{PART}\r\nzz\r\n");
        exchange.wire.send(format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}"))?;
        Ok(After::Keep)
    });
    assert_comes_before_the_cut(&Conf::one(origin.address));
}
