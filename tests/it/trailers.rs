//! Trailers both ways over HTTP/1.1: announced ones pass, framing and routing fields never do (RFC 9110 section 6.5.1).

use crate::support::{After, Conf, Origin, Recorder, Weir};

const UPLOAD: &str = "POST / HTTP/1.1\r\nHost: app.test\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n\
                      5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n";

#[test]
fn those_of_a_request_reach_the_origin() {
    let origin = Recorder::start();
    let weir = Weir::start(&Conf::one(origin.address));
    assert_eq!(weir.connect().ask(UPLOAD).unwrap().status(), 200);
    let seen = origin.take();
    assert_eq!(seen.len(), 1);
    assert_eq!((seen[0].body.as_slice(), seen[0].trailers.len()), (&b"hello"[..], 1), "{:?}", seen[0].trailers);
    assert_eq!((seen[0].trailers[0].0.to_ascii_lowercase(), seen[0].trailers[0].1.as_str()), ("x-sum".to_owned(), "1"));
}

#[test]
fn those_of_an_answer_reach_a_client_that_takes_them() {
    let origin = Origin::scripted(|exchange| {
        exchange.wire.send("HTTP/1.1 200 OK\r\nTrailer: X-Done\r\nTransfer-Encoding: chunked\r\n\r\n")?;
        exchange.chunk(b"world")?;
        exchange.wire.send("0\r\nX-Done: yes\r\n\r\n")?;
        Ok(After::Keep)
    });
    let weir = Weir::start(&Conf::one(origin.address));
    let mut client = weir.connect();
    for (te, end) in [("TE: trailers\r\nConnection: te\r\n", "0\r\nx-done: yes\r\n\r\n"), ("", "0\r\n\r\n")] {
        client.send(format!("GET / HTTP/1.1\r\nHost: app.test\r\n{te}\r\n")).unwrap();
        assert!(client.head().unwrap().is_chunked());
        assert_eq!(client.chunk().unwrap().as_deref(), Some(&b"world"[..]));
        let got = client.take(end.len()).unwrap();
        assert_eq!(String::from_utf8_lossy(&got).to_ascii_lowercase(), end, "{te:?}");
    }
}
