//! HTTP/2 clients that mean ill: what is malformed is reset and never forwarded, what costs us is ended and counted.

use std::time::Duration;

use crate::support::frames::*;
use crate::support::{Conf, Instant, Origin, Weir};

fn weir_before(origin: &Origin) -> Weir {
    Weir::start(&Conf::one(origin.address))
}

/// A GET with some fields replaced or left out, and others behind.
fn get_with<'a>(change: &[(&str, Option<&'a str>)], more: &[(&'a str, &'a str)]) -> Vec<u8> {
    let mut fields: Vec<(&str, &str)> = Vec::new();
    for (name, value) in GET {
        match change.iter().find(|(n, _)| *n == name) {
            Some((_, None)) => {}
            Some((_, Some(value))) => fields.push((name, value)),
            None => fields.push((name, value)),
        }
    }
    fields.extend(more);
    block(&fields)
}

#[test]
fn malformed_requests_are_reset_and_never_forwarded() {
    let origin = Origin::named("v1");
    let weir = weir_before(&origin);
    let blocks = [
        ("a path without its slash", get_with(&[(":path", Some("index.html"))], &[])),
        ("an absolute path", get_with(&[(":path", Some("http://app.test/"))], &[])),
        ("an asterisk", get_with(&[(":path", Some("*"))], &[])),
        ("an empty path", get_with(&[(":path", Some(""))], &[])),
        ("no path", get_with(&[(":path", None)], &[])),
        ("no path and no authority", get_with(&[(":path", None), (":authority", None)], &[])),
        ("no method", get_with(&[(":method", None)], &[])),
        ("no scheme", get_with(&[(":scheme", None)], &[])),
        ("an authority with userinfo", get_with(&[(":authority", Some("user@app.test"))], &[])),
        ("a doubled pseudo-field", get_with(&[], &[(":path", "/b")])),
        ("a late pseudo-field", get_with(&[(":path", None)], &[("x-a", "b"), (":path", "/")])),
        ("a status", get_with(&[], &[(":status", "200")])),
        ("connection", get_with(&[], &[("connection", "keep-alive")])),
        ("transfer-encoding", get_with(&[], &[("transfer-encoding", "chunked")])),
        ("upgrade", get_with(&[], &[("upgrade", "h2c")])),
        ("keep-alive", get_with(&[], &[("keep-alive", "timeout=5")])),
        ("proxy-connection", get_with(&[], &[("proxy-connection", "close")])),
        ("te: gzip", get_with(&[], &[("te", "gzip")])),
        ("a blank before a value", get_with(&[], &[("x-a", " b")])),
        ("a blank after a value", get_with(&[], &[("x-a", "b\t")])),
        ("a length without data", get_with(&[], &[("content-length", "3")])),
        ("two lengths", get_with(&[], &[("content-length", "0"), ("content-length", "1")])),
        ("no length", get_with(&[], &[("content-length", "x")])),
    ];
    let mut client = Frames::open(weir.web());
    for (i, (what, block)) in blocks.iter().enumerate() {
        client.send(HEADERS, END_HEADERS | END_STREAM, 2 * i as u32 + 1, block);
        let end = loop {
            let frame = client.next().unwrap_or_else(|e| panic!("{what}: {e}"));
            assert_ne!(frame.kind, HEADERS, "{what}: answered");
            if frame.kind == RST_STREAM || frame.kind == GOAWAY {
                break frame;
            }
        };
        assert_eq!((end.kind, end.stream, end.reason()), (RST_STREAM, 2 * i as u32 + 1, PROTOCOL_ERROR), "{what}");
    }
    assert_eq!(origin.requests(), 0);
    // What breaks the connection's compression or framing ends it whole.
    for (what, block) in [
        ("upper case", get_with(&[], &[("X-A", "b")])),
        ("a line end in a value", get_with(&[], &[("x-a", "b\r\nhost: c")])),
        ("a blank in a name", get_with(&[], &[("x a", "b")])),
    ] {
        let mut client = Frames::open(weir.web());
        client.send(HEADERS, END_HEADERS | END_STREAM, 1, &block);
        assert_eq!(client.until(GOAWAY).reason(), PROTOCOL_ERROR, "{what}");
        client.expect_end();
    }
    assert_eq!(origin.requests(), 0);
}

#[test]
fn a_host_that_is_not_there_is_400_and_one_that_differs_is_not_heard() {
    let origin = Origin::named("v1");
    let weir = weir_before(&origin);
    let mut client = Frames::open(weir.web());
    client.send(HEADERS, END_HEADERS | END_STREAM, 1, &get_with(&[(":authority", None)], &[]));
    let answer = client.until(HEADERS);
    assert!(answer.payload.windows(3).any(|w| w == b"400") || answer.payload.contains(&0x8c), "{answer:?}");
    assert_eq!(origin.requests(), 0);
    client.send(HEADERS, END_HEADERS | END_STREAM, 3, &get_with(&[], &[("host", "evil.test"), ("host", "b.test")]));
    client.until(HEADERS);
    assert_eq!(origin.only_head().all("host"), ["app.test"]);
}

#[test]
fn data_that_differs_from_its_length_is_never_completed_upstream() {
    let origin = Origin::scripted(|exchange| {
        let body = exchange.body()?;
        exchange.answer("200 OK", "", &body)
    });
    let weir = weir_before(&origin);
    for data in [&b"ab"[..], b"abcd"] {
        let mut client = Frames::open(weir.web());
        let post = get_with(&[(":method", Some("POST"))], &[("content-length", "3")]);
        client.send(HEADERS, END_HEADERS, 1, &post);
        client.send(DATA, END_STREAM, 1, data);
        assert_eq!(client.until(RST_STREAM).reason(), PROTOCOL_ERROR);
    }
    weir.admin.wait_metric("weir_connections", &[("listener", "web")], 0.0);
}

#[test]
fn floods_of_control_frames_end_the_connection_and_are_counted() {
    let origin = Origin::named("v1");
    let weir = weir_before(&origin);
    let floods: [(&str, Vec<u8>); 6] = [
        ("SETTINGS", frame(SETTINGS, 0, 0, &[])),
        ("PING", frame(PING, 0, 0, &[0; 8])),
        ("PING answers", frame(PING, ACK, 0, &[0; 8])),
        ("PRIORITY", frame(PRIORITY, 0, 3, &[0, 0, 0, 0, 1])),
        ("WINDOW_UPDATE", frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1])),
        ("unknown frames", frame(0xfa, 0, 0, b"x")),
    ];
    for (i, (what, frame)) in floods.iter().enumerate() {
        let mut client = Frames::open(weir.web());
        client.wire.send(frame.repeat(2000)).unwrap();
        let end = client.until(GOAWAY);
        assert_eq!(end.reason(), ENHANCE_YOUR_CALM, "{what}");
        client.expect_end();
        let labels = [("listener", "web"), ("reason", "http2-abuse")];
        weir.admin.wait_metric("weir_refused_requests_total", &labels, (i + 1) as f64);
    }
}

#[test]
fn rapid_resets_end_the_connection_before_they_become_work() {
    let origin = Origin::named("v1");
    let weir = weir_before(&origin);
    let mut client = Frames::open(weir.web());
    let block = block(&GET);
    let mut all = Vec::new();
    for i in 0..500 {
        all.extend(frame(HEADERS, END_HEADERS | END_STREAM, 2 * i + 1, &block));
        all.extend(frame(RST_STREAM, 0, 2 * i + 1, &8u32.to_be_bytes()));
    }
    client.wire.send(all).unwrap();
    assert_eq!(client.until(GOAWAY).reason(), ENHANCE_YOUR_CALM);
    client.expect_end();
    assert!(origin.requests() <= 100, "{} requests", origin.requests());
    weir.admin.wait_metric("weir_refused_requests_total", &[("reason", "http2-abuse")], 1.0);
}

#[test]
fn floods_that_the_library_ends_are_counted_too() {
    let origin = Origin::named("v1");
    let weir = weir_before(&origin);
    let mut client = Frames::open(weir.web());
    let mut all = frame(HEADERS, END_STREAM, 1, &block(&GET));
    all.extend(frame(CONTINUATION, 0, 1, &[]).repeat(150));
    client.wire.send(all).unwrap();
    assert_eq!(client.until(GOAWAY).reason(), ENHANCE_YOUR_CALM);
    client.expect_end();
    let mut client = Frames::open(weir.web());
    client.send(HEADERS, END_HEADERS, 1, &get_with(&[(":method", Some("POST"))], &[]));
    client.wire.send(frame(DATA, 0, 1, &[]).repeat(1000)).unwrap();
    assert_eq!(client.until(GOAWAY).reason(), ENHANCE_YOUR_CALM);
    client.expect_end();
    weir.admin.wait_metric("weir_refused_requests_total", &[("reason", "http2-abuse")], 2.0);
}

#[test]
fn honest_clients_are_never_taken_for_a_flood() {
    let origin = Origin::named("v1");
    let weir = weir_before(&origin);
    let mut client = Frames::open(weir.web());
    let block = block(&GET);
    for i in 0..400 {
        client.send(HEADERS, END_HEADERS | END_STREAM, 2 * i + 1, &block);
        assert_eq!(client.until(DATA).flags, END_STREAM, "no frame for the end alone");
        // A PING and both windows for each answer, and a stray PRIORITY.
        client.send(WINDOW_UPDATE, 0, 0, &2u32.to_be_bytes());
        client.send(PING, 0, 0, &[0; 8]);
        client.send(PRIORITY, 0, 2 * i + 3, &[0, 0, 0, 0, 1]);
        client.until(PING);
    }
    assert_eq!(origin.requests(), 400);
}

/// Streams above a limit that the client has not heard of yet are refused, and that is all.
#[test]
fn a_client_that_opens_too_many_streams_at_first_is_not_sent_away() {
    const STREAMS: u32 = 300;
    let origin = Origin::named("v1");
    let weir = weir_before(&origin);
    let mut client = Frames::open(weir.web());
    let block = block(&GET);
    let all: Vec<u8> = (0..STREAMS).flat_map(|i| frame(HEADERS, END_HEADERS | END_STREAM, 2 * i + 1, &block)).collect();
    client.wire.send(all).unwrap();
    let (mut answered, mut refused) = (0, 0);
    while answered + refused < STREAMS {
        let frame = client.next().unwrap();
        assert_ne!(frame.kind, GOAWAY, "{answered} answered, {refused} refused: {}", frame.reason());
        answered += u32::from(frame.kind == DATA && frame.flags & END_STREAM != 0);
        if frame.kind == RST_STREAM {
            assert_eq!(frame.reason(), REFUSED_STREAM);
            refused += 1;
        }
    }
    assert!(answered >= 128, "{answered} answered, {refused} refused");
    client.send(HEADERS, END_HEADERS | END_STREAM, 2 * STREAMS + 1, &block);
    assert_eq!(client.until(HEADERS).stream, 2 * STREAMS + 1);
}

#[test]
fn a_header_block_that_does_not_end_is_bound_by_the_header_timeout() {
    let origin = Origin::named("v1");
    let weir = Weir::start(&Conf::one(origin.address).web("timeouts = { header = \"300ms\" }"));
    let mut client = Frames::open(weir.web());
    let begun = Instant::now();
    client.send(HEADERS, END_STREAM, 1, &block(&GET[..2]));
    client.until(GOAWAY);
    assert!(begun.elapsed() >= Duration::from_millis(200), "{:?}", begun.elapsed());
    client.expect_end();
    weir.admin.wait_metric("weir_refused_requests_total", &[("reason", "client-timeout")], 1.0);
    // Idle is not that.
    let mut client = Frames::open(weir.web());
    assert!(!client.wire.is_closed_within(Duration::from_millis(900)));
}

#[test]
fn a_client_that_is_idle_for_too_long_is_told_to_go() {
    let origin = Origin::named("v1");
    let weir = Weir::start(&Conf::one(origin.address).web("timeouts = { idle = \"300ms\" }"));
    let mut client = Frames::open(weir.web());
    assert_eq!(client.until(GOAWAY).reason(), 0);
    client.expect_end();
}
