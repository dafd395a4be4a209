//! The same over HTTP/2, where a request is not text: what is malformed there (RFC 9113 section 8) must not become
//! text with another meaning at an HTTP/1.1 origin.
//!
//! A refusal is a reset stream, a lost connection, or an answer of 4xx or 5xx by weir; all are as good.

use std::collections::HashSet;
use std::time::Duration;

use super::oracle::{Expect, NEXT, Origin, SMUGGLED, judge};
use super::{in_flight, shown};
use crate::support::h2wire::{CANCEL, END_HEADERS, END_STREAM, Frame, H2, Outcome, kind};
use crate::support::{Conf, Recorder, Weir, hpack, wait_until};
use Expect::{AtMostOnce, Broken, BrokenOr, Either, Passes, Refused};

/// Any refusal by status; resets count as 400.
const ANY: &[u16] = &[400, 403, 404, 405, 411, 413, 417, 421, 426, 431, 501, 505];

type Fields<'a> = &'a [(&'a str, &'a str)];

struct Case {
    name: &'static str,
    /// All on stream 1.
    frames: Vec<Frame>,
    expect: Expect,
}

/// The pseudo-header fields of a sound request.
const SOUND: Fields<'_> = &[(":method", "POST"), (":scheme", "http"), (":authority", "app.test"), (":path", "/case")];

/// Exactly these fields and no body.
fn exactly(name: &'static str, fields: Fields<'_>, expect: Expect) -> Case {
    Case { name, frames: vec![Frame::headers(1, END_STREAM, hpack::block(fields))], expect }
}

/// A sound request with one field more.
fn with(name: &'static str, field: &str, value: &str, expect: Expect) -> Case {
    exactly(name, &[SOUND, &[(field, value)]].concat(), expect)
}

/// A sound request with one pseudo-header field of another value.
fn other(name: &'static str, field: &str, value: &str, expect: Expect) -> Case {
    let fields: Vec<_> = SOUND.iter().map(|&(n, v)| if n == field { (n, value) } else { (n, v) }).collect();
    exactly(name, &fields, expect)
}

/// A sound request without one of its fields.
fn without(name: &'static str, field: &str, expect: Expect) -> Case {
    let fields: Vec<_> = SOUND.iter().filter(|(n, _)| *n != field).copied().collect();
    exactly(name, &fields, expect)
}

/// A sound request with these fields more, a body, and trailers if there are any.
fn body(name: &'static str, more: Fields<'_>, data: &str, trailers: Fields<'_>, expect: Expect) -> Case {
    let last = if trailers.is_empty() { END_STREAM } else { 0 };
    let mut frames =
        vec![Frame::headers(1, 0, hpack::block(&[SOUND, more].concat())), Frame::data(1, last, data.as_bytes())];
    if !trailers.is_empty() {
        frames.push(Frame::headers(1, END_STREAM, hpack::block(trailers)));
    }
    Case { name, frames, expect }
}

#[track_caller]
fn hold(cases: Vec<Case>) {
    let names: HashSet<_> = cases.iter().map(|c| c.name).collect();
    assert_eq!(names.len(), cases.len(), "a name is there twice");
    let recorder = Recorder::start();
    let weir = Weir::start(&Conf::one(recorder.address));
    let mut sound = H2::open(weir.web(), &[]).unwrap();
    sound.get(1, "/next").unwrap();
    assert_eq!(sound.outcome(1).status(), Some(200), "a sound request over HTTP/2 passes");
    drop(sound);
    recorder.take();
    let wrong: Vec<String> = cases.iter().filter_map(|c| run(&weir, &recorder, c).err()).collect();
    assert!(wrong.is_empty(), "{} of {} cases are wrong:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

/// The case on stream 1, the innocent request on stream 3.
fn run(weir: &Weir, recorder: &Recorder, case: &Case) -> Result<(), String> {
    let mut client = H2::open(weir.web(), &[]).unwrap();
    let bytes: Vec<u8> = case.frames.iter().flat_map(Frame::bytes).collect();
    // The connection may end before all of it is sent.
    let _ = client.send_bytes(&bytes);
    client.set_read_limit(Duration::from_secs(5));
    // What the client has given up itself is answered by nobody.
    let is_given_up = case.frames.iter().any(|f| f.kind == kind::RST_STREAM && f.stream == 1);
    let first = if is_given_up { Outcome::Reset(CANCEL) } else { client.outcome(1) };
    let _ = client.get(3, "/next");
    let second = client.outcome(3);
    drop(client);
    wait_until("nothing is in flight", || in_flight(weir) == 0);
    let seen = recorder.take();
    let origin = Origin::new(&seen);
    judged(&case.expect, &first, &second, &origin).map_err(|why| {
        format!(
            "- {}: {why}\n  client: {first:?}, then {second:?}\n  origin: {origin}\n  sent: {:?}",
            case.name,
            shown(&bytes)
        )
    })
}

/// In the terms of HTTP/1.1: a lost stream is a refusal, and what came of it a closed connection.
fn judged(expect: &Expect, first: &Outcome, second: &Outcome, origin: &Origin<'_>) -> Result<(), String> {
    if *first == Outcome::Silent {
        return Err("neither answered nor refused".to_owned());
    }
    let is_lost = matches!(second, Outcome::Gone(_) | Outcome::Closed | Outcome::Reset(_));
    if !is_lost && second.status() != Some(200) {
        return Err("the innocent request is neither answered nor lost with the connection".to_owned());
    }
    match first.status() {
        Some(200) if is_lost => judge(expect, &[200], true, origin),
        Some(200) => judge(expect, &[200, 200], false, origin),
        // Another stream of the same connection may live on.
        Some(status) => judge(expect, &[status], true, &origin.without_next()),
        None => judge(expect, &[400], true, &origin.without_next()),
    }
}

#[test]
fn pseudo_headers() {
    let twice = |name, field: &'static str, value| with(name, field, value, Refused(ANY));
    let injected = "/case HTTP/1.1\r\nHost: evil.test\r\n\r\nGET /smuggled";
    hold(vec![
        exactly("sound", SOUND, Passes("/case", "")),
        twice("two methods", ":method", "GET"),
        twice("two paths", ":path", "/smuggled"),
        twice("two authorities", ":authority", "evil.test"),
        twice("two schemes", ":scheme", "https"),
        twice("unknown", ":evil", "x"),
        twice("of an answer", ":status", "200"),
        twice("protocol without CONNECT", ":protocol", "websocket"),
        twice("only a colon", ":", "x"),
        without("no method", ":method", Refused(ANY)),
        without("no path", ":path", Refused(ANY)),
        without("no scheme", ":scheme", Refused(ANY)),
        without("no authority, no Host", ":authority", Refused(ANY)),
        exactly(
            "Host instead of the authority",
            &[(":method", "GET"), (":scheme", "http"), (":path", "/case"), ("host", "app.test")],
            Either(ANY, "/case", ""),
        ),
        exactly(
            "behind a field",
            &[(":method", "GET"), (":scheme", "http"), (":authority", "app.test"), ("x", "y"), (":path", "/case")],
            Refused(ANY),
        ),
        exactly(
            "method behind a field",
            &[("x", "y"), (":method", "GET"), (":scheme", "http"), (":authority", "app.test"), (":path", "/case")],
            Refused(ANY),
        ),
        exactly("nothing at all", &[], Refused(ANY)),
        with("path in upper case", ":PATH", "/evil", Refused(ANY)),
        other("empty method", ":method", "", Refused(ANY)),
        other("method with a blank", ":method", "GET /smuggled HTTP/1.1", Refused(ANY)),
        other("method with CRLF", ":method", "GET /smuggled HTTP/1.1\r\nX: y\r\n\r\nGET", Refused(ANY)),
        other("lower case method", ":method", "post", Either(ANY, "/case", "")),
        other("empty path", ":path", "", Refused(ANY)),
        other("path without a slash", ":path", "case", Refused(ANY)),
        other("path with a host before it", ":path", "@evil.test/case", Refused(ANY)),
        other("path of a port", ":path", ":80/case", Refused(ANY)),
        other("path is a star", ":path", "*", Refused(ANY)),
        other("path is a URI", ":path", "http://evil.test/case", Refused(ANY)),
        other("path with a blank", ":path", "/case HTTP/1.1", Refused(ANY)),
        other("path with CRLF", ":path", injected, Refused(ANY)),
        other("path with LF", ":path", "/case\nX: y", Refused(ANY)),
        other("path with NUL", ":path", "/case\0", Refused(ANY)),
        other("path with a tab", ":path", "/ca\tse", Refused(ANY)),
        other("path with a fragment", ":path", "/case#evil", Either(ANY, "/case", "")),
        other("path with a backslash", ":path", "/a\\..\\case", Refused(ANY)),
        other("path with an escaped NUL", ":path", "/case%00", Refused(ANY)),
        other("path with dots", ":path", "/a/%2e%2E/../case", Passes("/case", "")),
        other("path beyond ASCII", ":path", "/cas\u{e9}", Refused(ANY)),
        exactly(
            "OPTIONS star",
            &[(":method", "OPTIONS"), (":scheme", "http"), (":authority", "app.test"), (":path", "*")],
            Either(ANY, "*", ""),
        ),
    ]);
}

#[test]
fn authorities_and_schemes() {
    hold(vec![
        other("user information", ":authority", "evil@app.test", Refused(ANY)),
        other("user and password", ":authority", "evil:x@app.test", Refused(ANY)),
        other("CRLF", ":authority", "app.test\r\nX: evil", Refused(ANY)),
        other("NUL", ":authority", "app.test\0", Refused(ANY)),
        other("blank", ":authority", "app.test evil.test", Refused(ANY)),
        other("list", ":authority", "app.test,evil.test", Refused(ANY)),
        other("path", ":authority", "app.test/evil", Refused(ANY)),
        other("query", ":authority", "app.test?evil", Refused(ANY)),
        other("fragment", ":authority", "app.test#evil", Refused(ANY)),
        other("backslash", ":authority", "app.test\\evil", Refused(ANY)),
        other("two ports", ":authority", "app.test:80:80", Refused(ANY)),
        other("a word as port", ":authority", "app.test:evil", Refused(ANY)),
        other("port", ":authority", "app.test:8080", Passes("/case", "")),
        other("upper case", ":authority", "APP.Test", Passes("/case", "")),
        other("empty", ":authority", "", Refused(ANY)),
        with("the same Host beside it", "host", "app.test", Passes("/case", "")),
        with("another Host beside it", "host", "evil.test", Either(ANY, "/case", "")),
        with("an empty Host beside it", "host", "", Either(ANY, "/case", "")),
        exactly(
            "two Hosts",
            &[SOUND, &[("host", "app.test"), ("host", "evil.test")]].concat(),
            Either(ANY, "/case", ""),
        ),
        other("https scheme", ":scheme", "https", Either(ANY, "/case", "")),
        other("unknown scheme", ":scheme", "ftp", Either(ANY, "/case", "")),
        other("empty scheme", ":scheme", "", Either(ANY, "/case", "")),
        other("scheme is a URI", ":scheme", "http://evil.test/smuggled?", Refused(ANY)),
        other("scheme with CRLF", ":scheme", "http\r\nX: evil", Refused(ANY)),
        exactly("CONNECT", &[(":method", "CONNECT"), (":authority", "app.test:443")], Refused(ANY)),
        other("CONNECT with a path", ":method", "CONNECT", Refused(ANY)),
        exactly(
            "extended CONNECT, unknown protocol",
            &[
                (":method", "CONNECT"),
                (":protocol", "cow"),
                (":scheme", "http"),
                (":authority", "app.test"),
                (":path", "/case"),
            ],
            Refused(ANY),
        ),
        exactly(
            "extended CONNECT, CRLF in the protocol",
            &[
                (":method", "CONNECT"),
                (":protocol", "websocket\r\nX: evil"),
                (":scheme", "http"),
                (":authority", "app.test"),
                (":path", "/case"),
            ],
            Refused(ANY),
        ),
    ]);
}

#[test]
fn fields() {
    hold(vec![
        with("upper case name", "X-Upper", "y", Refused(ANY)),
        with("empty name", "", "y", Refused(ANY)),
        with("blank in a name", "x y", "z", Refused(ANY)),
        with("blank behind a name", "transfer-encoding ", "chunked", Refused(ANY)),
        with("colon in a name", "x: evil\r\nx", "z", Refused(ANY)),
        with("a field inside a name", "x:evil", "z", Refused(ANY)),
        with("CRLF in a name", "x\r\nevil", "z", Refused(ANY)),
        with("NUL in a name", "x\0", "z", Refused(ANY)),
        with("DEL in a name", "x\u{7f}", "z", Refused(ANY)),
        with("name beyond ASCII", "x\u{e9}", "z", Refused(ANY)),
        with("CRLF in a value", "x", "y\r\nevil: z", Refused(ANY)),
        with("a request in a value", "x", &format!("y\r\n\r\n{SMUGGLED}"), Refused(ANY)),
        with("LF in a value", "x", "y\nevil: z", Refused(ANY)),
        with("CR in a value", "x", "y\revil: z", Refused(ANY)),
        with("NUL in a value", "x", "y\0evil", Refused(ANY)),
        with("blank before a value", "x", " y", Either(ANY, "/case", "")),
        with("tab behind a value", "x", "y\t", Either(ANY, "/case", "")),
        with("connection", "connection", "close", Refused(ANY)),
        with("connection lists our field", "connection", "x-forwarded-for", Refused(ANY)),
        with("keep-alive", "keep-alive", "timeout=5", Refused(ANY)),
        with("proxy-connection", "proxy-connection", "keep-alive", Refused(ANY)),
        with("upgrade", "upgrade", "h2c", Refused(ANY)),
        with("http2-settings", "http2-settings", "AAMAAABk", Either(ANY, "/case", "")),
        with("transfer-encoding without a body", "transfer-encoding", "chunked", Refused(ANY)),
        with("te: gzip", "te", "gzip", Refused(ANY)),
        with("te: a list", "te", "trailers, gzip", Refused(ANY)),
        with("te: trailers", "te", "trailers", Passes("/case", "")),
        with("twin of a framing", "transfer_encoding", "chunked", Either(ANY, "/case", "")),
        with("twin of ours", "x_forwarded_for", "6.6.6.6", Either(ANY, "/case", "")),
        with("forged", "x-forwarded-for", "6.6.6.6", Either(ANY, "/case", "")),
        with("an expectation nobody knows", "expect", "cow", Either(ANY, "/case", "")),
        exactly(
            "cookie crumbs",
            &[SOUND, &[("cookie", "a=1"), ("x", "y"), ("cookie", "b=2")]].concat(),
            Passes("/case", ""),
        ),
    ]);
}

/// Crumbs are joined with `; ` before an HTTP/1.1 origin sees them (RFC 9113 section 8.2.3).
#[test]
fn cookie_crumbs_are_joined() {
    let recorder = Recorder::start();
    let weir = Weir::start(&Conf::one(recorder.address));
    let mut client = H2::open(weir.web(), &[]).unwrap();
    let fields = [SOUND, &[("cookie", "a=1"), ("cookie", "b=2"), ("cookie", "c=3")]].concat();
    client.send(&Frame::headers(1, END_STREAM, hpack::block(&fields))).unwrap();
    assert_eq!(client.outcome(1).status(), Some(200));
    let seen = recorder.take();
    assert_eq!(seen[0].head.as_ref().unwrap().all("cookie"), ["a=1; b=2; c=3"]);
}

#[test]
fn bodies() {
    let te = ("transfer-encoding", "chunked");
    let chunks = format!("0\r\n\r\n{SMUGGLED}");
    let late = |name, first: Vec<Frame>, expect| {
        let mut frames = vec![Frame::headers(1, 0, hpack::block(SOUND))];
        frames.extend(first);
        Case { name, frames, expect }
    };
    let block = hpack::block(SOUND);
    let (front, rest) = block.split_at(block.len() / 2);
    hold(vec![
        body("sound", &[], SMUGGLED, &[], Passes("/case", SMUGGLED)),
        body("exact length", &[("content-length", "42")], SMUGGLED, &[], Passes("/case", SMUGGLED)),
        body("H2.CL, too short", &[("content-length", "0")], SMUGGLED, &[], Broken),
        body("H2.CL, a little too short", &[("content-length", "41")], SMUGGLED, &[], Broken),
        body("H2.CL, too long", &[("content-length", "43")], SMUGGLED, &[], Broken),
        body("two lengths", &[("content-length", "42"), ("content-length", "0")], SMUGGLED, &[], Refused(ANY)),
        body("the same length twice", &[("content-length", "5"), ("content-length", "5")], "hello", &[], {
            Either(ANY, "/case", "hello")
        }),
        body("list of lengths", &[("content-length", "5, 5")], "hello", &[], Either(ANY, "/case", "hello")),
        body("signed length", &[("content-length", "+5")], "hello", &[], Refused(ANY)),
        body("hexadecimal length", &[("content-length", "0x5")], "hello", &[], Refused(ANY)),
        body("empty length", &[("content-length", "")], "hello", &[], Refused(ANY)),
        body("length after an overflow", &[("content-length", "18446744073709551621")], "hello", &[], Refused(ANY)),
        with("length without a body", "content-length", "42", Broken),
        body("H2.TE", &[te], &chunks, &[], Refused(ANY)),
        body("H2.TE and a length", &[("content-length", "47"), te], &chunks, &[], Refused(ANY)),
        body("H2.TE in a value", &[("x", "y\r\ntransfer-encoding: chunked")], &chunks, &[], Refused(ANY)),
        body("H2.TE in a name", &[("x: y\r\ntransfer-encoding", "chunked")], &chunks, &[], Refused(ANY)),
        body("an expectation", &[("expect", "100-continue")], SMUGGLED, &[], Passes("/case", SMUGGLED)),
        body("trailers", &[("te", "trailers")], "hello", &[("x-sum", "1")], BrokenOr("/case", "hello")),
        // h2 drops it and says nothing; no trace of it may go on.
        body("trailer with a path", &[], "hello", &[(":path", "/smuggled")], BrokenOr("/case", "hello")),
        body("trailer in upper case", &[], "hello", &[("X-Sum", "1")], Broken),
        body("trailer with CRLF", &[("te", "trailers")], "hello", &[("x", &format!("y\r\n\r\n{SMUGGLED}"))], Broken),
        body("trailer content-length", &[], "hello", &[("content-length", "42")], BrokenOr("/case", "hello")),
        body("trailer transfer-encoding", &[], "hello", &[("transfer-encoding", "chunked")], Broken),
        body("trailer host", &[("trailer", "host")], "hello", &[("host", "evil.test")], BrokenOr("/case", "hello")),
        late(
            "trailers that do not end the stream",
            vec![
                Frame::data(1, 0, "hello"),
                Frame::headers(1, 0, hpack::block(&[("x", "y")])),
                Frame::data(1, END_STREAM, SMUGGLED),
            ],
            Broken,
        ),
        late("data behind the end", vec![Frame::data(1, END_STREAM, "hello"), Frame::data(1, END_STREAM, SMUGGLED)], {
            AtMostOnce("/case", "hello")
        }),
        late(
            "headers behind the end",
            vec![Frame::data(1, END_STREAM, "hello"), Frame::headers(1, END_STREAM, hpack::block(SOUND))],
            AtMostOnce("/case", "hello"),
        ),
        late("reset in the body", vec![Frame::data(1, 0, "hel"), Frame::number(kind::RST_STREAM, 1, CANCEL)], Broken),
        late("padding longer than the frame", vec![Frame::new(kind::DATA, 0x9, 1, [200, 1, 2, 3])], Broken),
        late("a request as data", vec![Frame::data(1, 0, SMUGGLED), Frame::data(1, END_STREAM, NEXT)], {
            Passes(
                "/case",
                "GET /smuggled HTTP/1.1\r\nHost: app.test\r\n\r\nGET /next HTTP/1.1\r\nHost: app.test\r\n\r\n",
            )
        }),
        Case {
            name: "head in two frames",
            frames: vec![
                Frame::new(kind::HEADERS, END_STREAM, 1, front),
                Frame::new(kind::CONTINUATION, END_HEADERS, 1, rest),
            ],
            expect: Passes("/case", ""),
        },
        Case {
            name: "another frame inside a head",
            frames: vec![
                Frame::new(kind::HEADERS, END_STREAM, 1, front),
                Frame::data(1, 0, SMUGGLED),
                Frame::new(kind::CONTINUATION, END_HEADERS, 1, rest),
            ],
            expect: Refused(ANY),
        },
        Case {
            name: "broken header block",
            frames: vec![Frame::headers(1, END_STREAM, vec![0x00, 0x7f, 0xff])],
            expect: Refused(ANY),
        },
        Case { name: "data without a head", frames: vec![Frame::data(1, END_STREAM, SMUGGLED)], expect: Refused(ANY) },
    ]);
}
